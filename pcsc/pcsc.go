package pcsc

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// Options are the choices of a Source. The zero value is good for every
// device.
type Options struct {
	// ExtendedLength says that the devices take extended-length APDUs. PC/SC
	// has no dependable way to ask, and a device that does not take them
	// fails in the middle of the work, so nobody uses them unasked.
	ExtendedLength bool
}

// Source is the PC/SC devices of this machine as slots. It holds no
// connection to the service between calls and may be used by several
// goroutines. It implements [iso7816.Source].
type Source struct {
	opts     Options
	lib      library
	platform platform
	// installed reports whether the service is on this machine at all.
	installed func() bool
}

var _ iso7816.Source = (*Source)(nil)

// New returns the PC/SC devices of this machine. It calls nothing yet: what
// is missing is reported by the first use, and in detail by Diagnose.
func New(o Options) *Source {
	return &Source{opts: o, lib: system{}, platform: thisPlatform(), installed: pcscdInstalled}
}

// Slots lists the devices as they are now, sorted by name. No device at all is
// an empty list. A card that has not yet answered to its reset may delay the
// answer by half a second.
func (s *Source) Slots(ctx context.Context) ([]iso7816.SlotStatus, error) {
	states, err := run(ctx, "list slots", "", func() ([]slotState, error) {
		sess, err := s.establish()
		if err != nil {
			return nil, err
		}
		defer sess.release()
		return s.snapshot(sess)
	}, nil)
	if err != nil {
		if s.idle(err) {
			return nil, nil
		}
		return nil, err
	}
	out := make([]iso7816.SlotStatus, 0, len(states))
	for _, st := range states {
		out = append(out, iso7816.SlotStatus{
			Slot:        st.name,
			CardPresent: st.has(statePresent),
			ATR:         st.cardATR(),
			InUse:       st.has(stateExclusive),
			Mute:        st.has(statePresent) && st.has(stateMute),
		})
	}
	slices.SortFunc(out, func(a, b iso7816.SlotStatus) int { return strings.Compare(a.Slot, b.Slot) })
	return out, nil
}

// Events yields what is there now and then every change, as [iso7816.Source]
// says. Insertion and removal are seen when the PC/SC service sees them (pcscd
// looks at a device every 0.4 s); devices that come and go are seen within
// 0.25 s more. A card exchanged while the caller was busy with an earlier
// event is reported as removed and inserted, where the service counts such
// changes. When the service goes away, the error wraps [ErrNoService].
func (s *Source) Events(ctx context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		batches := make(chan batch)
		go s.watch(ctx, batches)
		for {
			select {
			case <-ctx.Done():
				return
			case b := <-batches:
				for _, e := range b.events {
					if ctx.Err() != nil || !yield(e, nil) {
						return
					}
				}
				if b.err != nil {
					yield(iso7816.Event{}, b.err)
					return
				}
			}
		}
	}
}

// Open connects to the card in a slot. The errors wrap [ErrNoSlot] when there
// is no such slot, [iso7816.ErrCardRemoved] when no card is in it, [ErrInUse]
// when another program holds the card in a mode that does not go with this
// one, [ErrMute] when the card does not answer. While another program is
// inside a transaction Open waits for its end.
//
// The connection is an [iso7816.AnswerToReset], [iso7816.Resetter],
// [iso7816.Transactor] and [iso7816.ExtendedLength]. It may be used by several
// goroutines; their commands are sent one after the other.
func (s *Source) Open(ctx context.Context, slot string, mode iso7816.Mode) (iso7816.Conn, error) {
	return s.open(ctx, slot, mode)
}

// waitStep is the longest wait inside the PC/SC library while watching. It
// bounds how long an abandoned watch lives on, and how late a device is seen
// where the service does not announce devices.
const waitStep = 250 * time.Millisecond
