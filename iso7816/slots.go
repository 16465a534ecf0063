package iso7816

import (
	"context"
	"iter"
	"slices"
)

// SomeSlots narrows a source to the slots that are named. Those that are not
// there yet are watched for.
func SomeSlots(source Source, names []string) Source { return someSlots{source, names} }

type someSlots struct {
	Source
	names []string
}

func (s someSlots) Slots(ctx context.Context) ([]SlotStatus, error) {
	all, err := s.Source.Slots(ctx)
	return slices.DeleteFunc(all, func(slot SlotStatus) bool { return !slices.Contains(s.names, slot.Slot) }), err
}

func (s someSlots) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for e, err := range s.Source.Events(ctx) {
			if err == nil && !slices.Contains(s.names, e.Slot) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
