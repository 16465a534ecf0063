package readerd

import (
	"context"
	"iter"

	"github.com/freearea/freearea/iso7816"
)

// seenSource is a source in which some cards were read before it was watched.
type seenSource struct {
	iso7816.Source
	slots []string
}

// Events leaves out the insertion of a card that has been in its slot since
// before.
func (s seenSource) Events(ctx context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		seen := map[string]bool{}
		for _, slot := range s.slots {
			seen[slot] = true
		}
		for e, err := range s.Source.Events(ctx) {
			known := err == nil && e.Kind == iso7816.CardInserted && seen[e.Slot]
			if e.Kind != iso7816.SlotAdded {
				delete(seen, e.Slot)
			}
			if !known && !yield(e, err) {
				return
			}
		}
	}
}
