package ledger_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/freearea/freearea/ledger"
)

// A service's batches follow each other without gap and without overlap.
func TestHandover(t *testing.T) {
	l := fresh(t)
	add(t, l, consent("c1", "library"), consent("c2", "library"), consent("c3", "library"))
	prepared := func(batch string, after, through int64) ledger.HandoverPrepared {
		return ledger.HandoverPrepared{Batch: batch, Service: "library", After: after, Through: through, Rows: 1, Format: "csv", Digest: strings.Repeat("ab", 32)}
	}
	handed := func(batch string) ledger.HandedOver {
		return ledger.HandedOver{Batch: batch, Service: "library", To: "library.csv"}
	}
	for _, step := range []struct {
		data ledger.Data
		want error
	}{
		{handed("b1"), ledger.ErrOrder},           // not prepared
		{prepared("b1", 1, 2), ledger.ErrOrder},   // a gap
		{prepared("b1", 0, 99), ledger.ErrOrder},  // what has not happened
		{prepared("b1", 0, 0), ledger.ErrInvalid}, // nothing
		{prepared("b1", 0, 2), nil},               //
		{prepared("b2", 2, 3), ledger.ErrOrder},   // the first is open
		{handed("b2"), ledger.ErrOrder},           //
		{handed("b1"), nil},                       //
		{handed("b1"), ledger.ErrExists},          // twice
		{prepared("b2", 0, 3), ledger.ErrOrder},   // an overlap
		{prepared("b1", 2, 3), ledger.ErrExists},  // another of the same name
		{prepared("b2", 2, 3), nil},               //
	} {
		if _, err := appendAll(t.Context(), l, step.data); !errors.Is(err, step.want) {
			t.Errorf("%+v: got %v, want %v", step.data, err, step.want)
		}
	}
	last, open, ok, err := l.LastHandover(t.Context(), "library")
	if err != nil || !ok || !open || last.Batch != "b2" {
		t.Errorf("last %+v, open %v, %v, %v", last, open, ok, err)
	}
	if _, _, ok, err := l.LastHandover(t.Context(), "gym"); err != nil || ok {
		t.Errorf("another service's: %v, %v", ok, err)
	}
}
