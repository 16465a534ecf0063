package iso7816_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/iso7816"
)

// threeSlots has slots in which cards are, and ends with an error.
type threeSlots struct{ iso7816.Source }

var errGone = errors.New("PC/SC service has gone")

func (threeSlots) Slots(context.Context) ([]iso7816.SlotStatus, error) {
	return []iso7816.SlotStatus{{Slot: "a"}, {Slot: "b"}, {Slot: "c"}}, nil
}

func (threeSlots) Events(context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		for _, slot := range []string{"a", "b", "c"} {
			if !yield(iso7816.Event{Kind: iso7816.CardInserted, Slot: slot}, nil) {
				return
			}
		}
		yield(iso7816.Event{}, errGone)
	}
}

// TestSomeSlots: nothing of other slots, and every error.
func TestSomeSlots(t *testing.T) {
	source := iso7816.SomeSlots(threeSlots{}, []string{"c", "a", "elsewhere"})
	slots, err := source.Slots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]iso7816.SlotStatus{{Slot: "a"}, {Slot: "c"}}, slots); diff != "" {
		t.Error(diff)
	}
	var got []string
	for e, err := range source.Events(t.Context()) {
		if err != nil {
			got = append(got, err.Error())
		} else {
			got = append(got, e.Slot)
		}
	}
	if diff := cmp.Diff([]string{"a", "c", errGone.Error()}, got); diff != "" {
		t.Error(diff)
	}
	for range source.Events(t.Context()) {
		break
	}
}
