package ledger_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/freearea/freearea/ledger"
)

// number draws IDs as a scheme of kind sequence does.
func number(n uint64) (string, error) { return fmt.Sprintf("P-%03d", n), nil }

func reserve(t *testing.T, l *ledger.Ledger, r ledger.Reservation) (string, bool) {
	t.Helper()
	id, again, err := l.ReserveID(t.Context(), r)
	must(t, err)
	return id, again
}

func TestReserveDrawn(t *testing.T) {
	l := fresh(t)
	add(t, l, consent("c1", "library"), consent("c2", "library"), consent("c3", "library"), consent("c4", "job"))
	draw := func(service, consent, run, want string, wantAgain bool) {
		t.Helper()
		id, again := reserve(t, l, ledger.Reservation{Actor: clerk, Service: service, Consent: consent, Run: run, Draw: number})
		if id != want || again != wantAgain {
			t.Errorf("%s for %s: got %s %v, want %s %v", service, consent, id, again, want, wantAgain)
		}
	}
	if _, ok, err := l.ReservedID(t.Context(), "library", "c1"); ok || err != nil {
		t.Errorf("reserved before: %v %v", ok, err)
	}
	draw("library", "c1", "r1", "P-001", false)
	draw("library", "c1", "r2", "P-001", true) // a run that was interrupted, again
	draw("library", "c2", "r3", "P-002", false)
	draw("job", "c4", "r4", "P-001", false) // services count by themselves
	if id, ok, err := l.ReservedID(t.Context(), "library", "c1"); id != "P-001" || !ok || err != nil {
		t.Errorf("reserved: %q %v %v", id, ok, err)
	}
	if n, err := l.NextSequence(t.Context(), "library"); n != 3 || err != nil {
		t.Errorf("next is %d, %v", n, err)
	}
	// An ID that somebody was given is passed over, and so is its number.
	add(t, l, consent("c5", "library"))
	reserve(t, l, ledger.Reservation{Actor: clerk, Service: "library", Consent: "c5", ID: "P-003"})
	draw("library", "c3", "r5", "P-004", false)
	if n, err := l.NextSequence(t.Context(), "library"); n != 5 || err != nil {
		t.Errorf("next is %d, %v", n, err)
	}
}

func TestReserveGiven(t *testing.T) {
	ctx := t.Context()
	l := fresh(t)
	add(t, l, consent("c1", "library"), consent("c2", "library"), consent("c3", "library"),
		ledger.CardBound{Consent: "c1", Card: cardA}, ledger.CardBound{Consent: "c2", Card: cardA}, ledger.CardBound{Consent: "c3", Card: cardB})
	give := func(consent, id string) (bool, error) {
		got, again, err := l.ReserveID(ctx, ledger.Reservation{Actor: clerk, Service: "library", Consent: consent, ID: id})
		if err == nil && got != id {
			t.Errorf("got %s for %s", got, id)
		}
		return again, err
	}
	if again, err := give("c1", "L-1"); again || err != nil {
		t.Errorf("first time: %v %v", again, err)
	}
	if again, err := give("c1", "L-1"); !again || err != nil {
		t.Errorf("again: %v %v", again, err)
	}
	if _, err := give("c3", "L-1"); !errors.Is(err, ledger.ErrIDTaken) {
		t.Errorf("another card's holder: %v", err)
	}
	add(t, l, runOf("r1", "library", cardA, aidLib), issue("r1", "c1", "library", "L-1", cardA, aidLib, 1))
	if _, err := give("c2", "L-1"); !errors.Is(err, ledger.ErrIDTaken) {
		t.Errorf("a new consent while the card holds the ID: %v", err)
	}
	add(t, l, withdrawn("library", cardA))
	if _, err := give("c3", "L-1"); !errors.Is(err, ledger.ErrIDTaken) {
		t.Errorf("another card's holder after the withdrawal: %v", err)
	}
	if again, err := give("c2", "L-1"); again || err != nil {
		t.Errorf("the same card's holder after the withdrawal: %v %v", again, err)
	}
	if again, err := give("c2", "L-1"); !again || err != nil {
		t.Errorf("and again: %v %v", again, err)
	}
	if id, ok, err := l.ReservedID(ctx, "library", "c1"); ok || err != nil {
		t.Errorf("the first consent still has %q, %v", id, err)
	}
	if id, ok, err := l.ReservedID(ctx, "library", "c2"); id != "L-1" || !ok || err != nil {
		t.Errorf("the second has %q %v, %v", id, ok, err)
	}
	add(t, l, issue("r1", "c2", "library", "L-1", cardA, aidLib, 2))
}

func TestReserveRefuses(t *testing.T) {
	l := fresh(t)
	add(t, l, consent("c1", "library"), consent("c2", "library"), ledger.ConsentWithdrawn{Consent: "c2"})
	broken := errors.New("broken")
	tests := []struct {
		name string
		r    ledger.Reservation
		want error
	}{
		{"neither", ledger.Reservation{Service: "library", Consent: "c1"}, ledger.ErrInvalid},
		{"both", ledger.Reservation{Service: "library", Consent: "c1", ID: "x", Draw: number}, ledger.ErrInvalid},
		{"unknown consent", ledger.Reservation{Service: "library", Consent: "c9", Draw: number}, ledger.ErrNotFound},
		{"withdrawn consent", ledger.Reservation{Service: "library", Consent: "c2", Draw: number}, ledger.ErrWithdrawn},
		{"another service", ledger.Reservation{Service: "job", Consent: "c1", Draw: number}, ledger.ErrOrder},
		{"draw fails", ledger.Reservation{Service: "library", Consent: "c1", Draw: func(uint64) (string, error) { return "", broken }}, broken},
		{"draws nothing", ledger.Reservation{Service: "library", Consent: "c1", Draw: func(uint64) (string, error) { return "", nil }}, ledger.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.r.Actor = clerk
			if _, _, err := l.ReserveID(t.Context(), tt.r); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	// A service whose IDs have run out.
	reserve(t, l, ledger.Reservation{Actor: clerk, Service: "library", Consent: "c1", ID: "only"})
	add(t, l, consent("c3", "library"))
	draws := 0
	_, _, err := l.ReserveID(t.Context(), ledger.Reservation{Actor: clerk, Service: "library", Consent: "c3", Draw: func(uint64) (string, error) {
		draws++
		return "only", nil
	}})
	if !errors.Is(err, ledger.ErrIDTaken) || draws != 1000 {
		t.Errorf("got %v after %d draws", err, draws)
	}
}
