package readerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/reader/policy"
)

// Output tells one system of others what happened.
type Output interface {
	// Name tells outputs apart in logs and metrics: its kind and its place,
	// "door /dev/ttyUSB0".
	Name() string
	// Run does what the output does besides telling events, until the context
	// ends. An error ends the daemon.
	Run(ctx context.Context) error
	// Tell tells one event. It may take its time: the output's events wait
	// meanwhile, and no other's. The error is logged and counted.
	Tell(ctx context.Context, e Event) error
}

// queueLength is how many events can wait for an output. Those that come while
// it is full are lost to this output, logged and counted.
const queueLength = 256

// Options of a daemon.
type Options struct {
	Reader *reader.Reader
	Source iso7816.Source
	Slots  []string // names of those that are watched, nil for all
	// Seen are the names of slots whose card was read already, by the daemon
	// before this one. It is read again when it has been away.
	Seen    []string
	Policy  *policy.Policy // nil accepts every tap
	Outputs []Output
	Log     *slog.Logger
	// LogIDs writes IDs into the log in the clear. Without it the log has the
	// tap's id, by which an output's record can be found.
	LogIDs  bool
	Metrics *Metrics // nil counts nothing
}

// Daemon reads cards and tells outputs.
type Daemon struct{ o Options }

// New returns a daemon. It refuses outputs that have the same name.
func New(o Options) (*Daemon, error) {
	seen := map[string]bool{}
	for _, out := range o.Outputs {
		if seen[out.Name()] {
			return nil, fmt.Errorf("output %q stands there twice", out.Name())
		}
		seen[out.Name()] = true
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if len(o.Slots) > 0 {
		o.Source = iso7816.SomeSlots(o.Source, o.Slots)
	}
	if len(o.Seen) > 0 {
		o.Source = seenSource{o.Source, o.Seen}
	}
	return &Daemon{o}, nil
}

// Run reads cards until the context ends, which is no error, or the source or
// an output fails. All that it began has ended when it returns; what had been
// read by then has been told.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var running sync.WaitGroup
	queues := make([]chan Event, len(d.o.Outputs))
	for i, out := range d.o.Outputs {
		queues[i] = make(chan Event, queueLength)
		running.Go(func() {
			if err := out.Run(ctx); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("%s: %w", out.Name(), err))
			}
		})
		running.Go(func() { d.pump(ctx, out, queues[i]) })
	}
	for tap, err := range d.o.Reader.Taps(ctx, d.o.Source) {
		e, fatal := d.event(tap, err)
		if fatal != nil {
			fail(fatal)
			break
		}
		d.log(e)
		d.o.Metrics.tap(e)
		for i, out := range d.o.Outputs {
			select {
			case queues[i] <- e:
			default:
				d.o.Metrics.lost(out.Name())
				d.o.Log.Error("event lost: the output takes none", "output", out.Name())
			}
		}
	}
	for _, q := range queues {
		close(q)
	}
	if ctx.Err() == nil {
		fail(errors.New("the source of cards has ended"))
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// event makes one of a tap or an error; an error that is no card's is fatal.
func (d *Daemon) event(tap *reader.Tap, err error) (Event, error) {
	if card := new(reader.TapError); errors.As(err, &card) {
		return failed(card), nil
	}
	if err != nil {
		return Event{}, err
	}
	decision := policy.Decision{Accepted: true}
	if d.o.Policy != nil {
		decision = d.o.Policy.Decide(tap)
	}
	return tapped(tap, decision), nil
}

// grace is for how long outputs are told what waits when the context ends.
const grace = 5 * time.Second

// pump tells an output its events, those too that wait when the context ends.
func (d *Daemon) pump(ctx context.Context, out Output, queue <-chan Event) {
	ending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	for e := range queue {
		err := out.Tell(ending, e)
		d.o.Metrics.told(out.Name(), err)
		if err != nil {
			d.o.Log.Error("event not told", "output", out.Name(), "error", err)
		}
	}
}

func (d *Daemon) log(e Event) {
	attributes := []any{"slot", e.slot(), "service", e.service(), "outcome", e.Outcome}
	if e.Reason != "" {
		attributes = append(attributes, "reason", e.Reason)
	}
	if len(e.Warnings) > 0 {
		attributes = append(attributes, "warnings", e.Warnings)
	}
	if e.Tap == nil {
		d.o.Log.Warn("card", append(attributes, "error", e.Err.Err)...)
		return
	}
	attributes = append(attributes, "tap", e.Tap.TapID, "commands", e.Tap.Commands, "duration", e.Tap.Duration)
	if d.o.LogIDs {
		attributes = append(attributes, "id", e.Tap.ID)
	}
	d.o.Log.Info("card", attributes...)
}
