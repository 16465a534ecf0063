package reader

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/freearea/freearea/iso7816"
)

// Taps waits for cards in all slots of the source, slots that appear later
// included, and yields what each card answered: a tap, or a [*TapError]. A
// card that stays in its slot is one tap, whatever else happens to it there, and
// so is one that comes back within [Options.Debounce].
// Slots are read at the same time, each by a goroutine of its own; one whose
// last answer the caller has not taken yet reads nothing, and of the cards
// that it misses meanwhile only the last is told.
//
// Errors of cards do not end the sequence. An error of the source is yielded
// once and does. The sequence ends by itself when the context does. When it
// has ended, so have its goroutines.
func (r *Reader) Taps(ctx context.Context, source iso7816.Source) iter.Seq2[*Tap, error] {
	return func(yield func(*Tap, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		w := &watch{r: r, source: source, results: make(chan result)}
		go w.run(ctx)
		defer func() {
			cancel()
			for range w.results { // until all goroutines have ended
			}
		}()
		for res := range w.results {
			if ctx.Err() != nil || !yield(res.tap, res.err) {
				return
			}
		}
	}
}

type result struct {
	tap *Tap
	err error
}

// watch is one running Taps.
type watch struct {
	r       *Reader
	source  iso7816.Source
	results chan result
	slots   sync.WaitGroup
}

// insertion is one stay of a card in a slot. Its context ends when the card
// leaves.
type insertion struct {
	ctx    context.Context
	remove context.CancelCauseFunc
}

// mailbox is what the watch knows of a slot.
type mailbox struct {
	present *insertion      // nil while the slot is empty
	next    chan *insertion // for the slot's goroutine; holds the newest one that it has not begun
}

// run follows the source's events until they end.
func (w *watch) run(ctx context.Context) {
	defer close(w.results)
	slots := map[string]*mailbox{}
	remove := func(m *mailbox) {
		if m.present != nil {
			m.present.remove(iso7816.ErrCardRemoved)
			m.present = nil
		}
	}
	var failure error
	for e, err := range w.source.Events(ctx) {
		if err != nil {
			failure = err
			break
		}
		m := slots[e.Slot]
		switch e.Kind {
		case iso7816.SlotAdded, iso7816.CardInserted:
			if m == nil {
				m = &mailbox{next: make(chan *insertion, 1)}
				slots[e.Slot] = m
				w.slots.Go(func() { w.slot(ctx, e.Slot, m.next) })
			}
			if e.Kind == iso7816.SlotAdded || m.present != nil {
				continue
			}
			m.present = new(insertion)
			m.present.ctx, m.present.remove = context.WithCancelCause(ctx)
			select { // a card that came and went while the slot's goroutine was busy
			case <-m.next:
			default:
			}
			m.next <- m.present
		case iso7816.CardRemoved:
			if m != nil {
				remove(m)
			}
		case iso7816.SlotRemoved:
			if m != nil {
				remove(m)
				close(m.next)
				delete(slots, e.Slot)
			}
		}
	}
	// What the slots have begun they finish, unless the context has ended.
	for _, m := range slots {
		close(m.next)
	}
	w.slots.Wait()
	for _, m := range slots {
		remove(m) // frees the context
	}
	if failure != nil {
		w.send(ctx, result{err: failure})
	}
}

// send hands a result to the caller, unless nobody listens any more.
func (w *watch) send(ctx context.Context, res result) {
	select {
	case w.results <- res:
	case <-ctx.Done():
	}
}

// slot reads the cards of one slot, one after the other.
func (w *watch) slot(ctx context.Context, name string, cards <-chan *insertion) {
	var last *Tap
	for card := range cards {
		if ctx.Err() != nil {
			continue
		}
		tap, err := w.card(card.ctx, name)
		if err != nil {
			// A reading that was broken off because the card left is told as
			// that, whatever broke first.
			if errors.Is(err, context.Canceled) && errors.Is(context.Cause(card.ctx), iso7816.ErrCardRemoved) {
				err = iso7816.ErrCardRemoved
			}
			err = &TapError{Slot: name, At: w.r.o.Clock(), Err: err}
		} else {
			again := w.again(last, tap)
			if last = tap; again {
				continue
			}
		}
		w.send(ctx, result{tap, err})
	}
}

// again tells whether a tap is the last one of its slot still.
func (w *watch) again(last, tap *Tap) bool {
	return last != nil && last.Instance == tap.Instance && last.ID == tap.ID && tap.At.Sub(last.At) < w.r.o.Debounce
}

// card reads the card that is in a slot now.
func (w *watch) card(ctx context.Context, slot string) (*Tap, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := w.source.Open(ctx, slot, iso7816.Shared)
	if err != nil {
		return nil, err
	}
	tap, err := w.r.read(ctx, conn, slot)
	// The card may have left by now; what was read was read.
	_ = conn.Close()
	return tap, err
}
