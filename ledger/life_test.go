package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/ledger"
)

func revoked(card ledger.CardRef, consent, id string, n uint16) ledger.Revoked {
	return ledger.Revoked{Service: "library", Card: card, Consent: consent, ID: id, IssueNumber: n, Cause: ledger.CauseLost}
}

// What is said of a card that never held the service, of another card's
// consent or of another's ID is refused.
func TestLifeIsAdmitted(t *testing.T) {
	replaced := ledger.CardReplaced{Old: cardA, Card: cardB, Cause: ledger.CauseLost}
	keeps := ledger.IDCarried{Service: "library", ID: "L1", From: "c1", Consent: "c2"}
	renewed := []ledger.Data{consent("c2", "library"), ledger.CardBound{Consent: "c2", Card: cardB}}
	tests := []struct {
		name   string
		before []ledger.Data
		data   ledger.Data
		want   error
	}{
		{"suspended", nil, ledger.Suspended{Service: "library", Card: cardA, Run: "r"}, nil},
		{"suspended on another card", nil, ledger.Suspended{Service: "library", Card: cardB, Run: "r"}, ledger.ErrOrder},
		{"suspended after withdrawal", []ledger.Data{withdrawn("library", cardA)}, ledger.Suspended{Service: "library", Card: cardA, Run: "r"}, ledger.ErrOrder},
		{"resumed on another card", nil, ledger.Resumed{Service: "library", Card: cardB, Run: "r"}, ledger.ErrOrder},
		{"PIN of nobody", nil, ledger.PINReset{Service: "library", Card: cardB, Run: "r"}, ledger.ErrOrder},
		{"key of nobody", nil, ledger.KeyKept{Service: "library", Card: cardB, Run: "r", KeyVersion: 1, Until: "2027-01-01"}, ledger.ErrOrder},
		{"revoked", nil, revoked(cardA, "c1", "L1", 1), nil},
		{"revoked twice", []ledger.Data{revoked(cardA, "c1", "L1", 1)}, revoked(cardA, "c1", "L1", 1), ledger.ErrExists},
		{"revoked by another number", nil, revoked(cardA, "c1", "L1", 2), ledger.ErrOrder},
		{"revoked on another card", nil, revoked(cardB, "c1", "L1", 1), ledger.ErrOrder},
		{"revoked when wiped", []ledger.Data{withdrawn("library", cardA)}, revoked(cardA, "c1", "L1", 1), ledger.ErrOrder},
		{"replaced", nil, replaced, nil},
		{"replaced twice", []ledger.Data{replaced}, replaced, ledger.ErrExists},
		{"replaced by the one before", []ledger.Data{replaced}, ledger.CardReplaced{Old: cardB, Card: cardA, Cause: ledger.CauseLost}, ledger.ErrOrder},
		{"replaced by itself", nil, ledger.CardReplaced{Old: cardA, Card: cardA, Cause: ledger.CauseLost}, ledger.ErrInvalid},
		{"replaced without cause", nil, ledger.CardReplaced{Old: cardA, Card: cardB, Cause: ledger.CauseWithdrawn}, ledger.ErrInvalid},
		{"ID carried", append(renewed, replaced), keeps, nil},
		{"ID carried on the same card", []ledger.Data{consent("c2", "library"), ledger.CardBound{Consent: "c2", Card: cardA}}, keeps, nil},
		{"ID carried to a stranger", renewed, keeps, ledger.ErrOrder},
		{"ID carried to nobody", []ledger.Data{consent("c2", "library"), replaced}, keeps, ledger.ErrOrder},
		{"another's ID carried", append(renewed, replaced), ledger.IDCarried{Service: "library", ID: "L2", From: "c1", Consent: "c2"}, ledger.ErrOrder},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := fresh(t)
			issued(t, l, 1, "library", "L1", cardA)
			if len(tt.before) > 0 {
				add(t, l, tt.before...)
			}
			if _, err := appendAll(t.Context(), l, tt.data); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestLifeStates(t *testing.T) {
	l := fresh(t)
	ctx := t.Context()
	issued(t, l, 1, "library", "L1", cardA)
	state := func(card ledger.CardRef, want ledger.State) {
		t.Helper()
		list, err := l.Services(ctx, card)
		must(t, err)
		if len(list) != 1 || list[0].State != want {
			t.Errorf("states %+v, want %s", list, want)
		}
		held, err := l.IsSuspended(ctx, "library", card)
		must(t, err)
		if held != (want == ledger.OnHold) {
			t.Errorf("suspended is %v in state %s", held, want)
		}
		on, err := l.IssuesOn(ctx, card)
		must(t, err)
		if (len(on) == 0) != (want == ledger.Ended) || len(on) == 1 && on[0].Revoked != (want == ledger.Void) {
			t.Errorf("on the card %+v in state %s", on, want)
		}
	}
	state(cardA, ledger.Active)
	add(t, l, ledger.Suspended{Service: "library", Card: cardA, Run: "r"})
	state(cardA, ledger.OnHold)
	add(t, l, ledger.Resumed{Service: "library", Card: cardA, Run: "r"})
	state(cardA, ledger.Active)

	// The card is replaced: the ID goes along, the old issue is void.
	add(t, l, ledger.CardReplaced{Old: cardA, Card: cardB, Cause: ledger.CauseLost})
	if ok, err := l.Replaced(ctx, cardA, cardB); err != nil || !ok {
		t.Errorf("replaced: %v, %v", ok, err)
	}
	add(t, l, consent("c2", "library"), ledger.CardBound{Consent: "c2", Card: cardB}, runOf("r2", "library", cardB, aidLib),
		ledger.IDCarried{Service: "library", ID: "L1", From: "c1", Consent: "c2"},
		issue("r2", "c2", "library", "L1", cardB, aidLib, 2), revoked(cardA, "c1", "L1", 1),
		ledger.KeyKept{Service: "library", Card: cardB, Run: "r2", KeyVersion: 1, Until: "2027-01-01"})
	if id, ok, err := l.ReservedID(ctx, "library", "c2"); err != nil || !ok || id != "L1" {
		t.Errorf("the new consent has the ID %q, %v", id, err)
	}
	if id, ok, err := l.ReservedID(ctx, "library", "c1"); err != nil || ok {
		t.Errorf("the old consent has the ID %q still, %v", id, err)
	}
	state(cardA, ledger.Void)
	list, err := l.IssuesOf(ctx, "", "L1", "")
	must(t, err)
	if len(list) != 2 || !list[0].Revoked || list[1].Revoked {
		t.Errorf("issues of L1: %+v", list)
	}
	for card, want := range map[ledger.CardRef]bool{cardA: true, cardB: false} {
		if was, err := l.WasReplaced(ctx, card); err != nil || was != want {
			t.Errorf("%s was replaced: %v, %v", card, was, err)
		}
	}
	for consent, want := range map[string]bool{"c1": true, "c2": false} {
		if passed, err := l.PassedOn(ctx, consent); err != nil || passed != want {
			t.Errorf("%s passed on: %v, %v", consent, passed, err)
		}
	}
	on, err := l.IssuesOn(ctx, cardB)
	must(t, err)
	if len(on) != 1 || on[0].IssueNumber != 2 {
		t.Errorf("on the new card: %+v", on)
	}
	kept, ok, err := l.KeptKey(ctx, "library", cardB)
	if err != nil || !ok || kept.KeyVersion != 1 {
		t.Errorf("kept key %+v, %v, %v", kept, ok, err)
	}
	add(t, l, withdrawn("library", cardA), runOf("r3", "library", cardB, aidLib), issue("r3", "c2", "library", "L1", cardB, aidLib, 3))
	state(cardA, ledger.Ended)
	if list, err = l.EveryIssueOf(ctx, "library", "L1", ""); err != nil || len(list) != 3 || !list[0].Ended || !list[1].Ended || list[1].Revoked || list[2].Ended {
		t.Errorf("every issue of L1: %+v, %v", list, err)
	}
	if list, err = l.IssuesOf(ctx, "library", "L1", ""); err != nil || len(list) != 1 || list[0].IssueNumber != 3 {
		t.Errorf("issues of L1 after the old card was wiped: %+v, %v", list, err)
	}
	for card, number := range map[ledger.CardRef]uint16{cardA: 1, cardB: 3} {
		list, err := l.LastIssuesOn(ctx, card)
		lost := card == cardA
		if err != nil || len(list) != 1 || list[0].IssueNumber != number || list[0].Ended != lost || list[0].Revoked != lost || (list[0].Cause == ledger.CauseLost) != lost {
			t.Errorf("last issues on %s: %+v, %v", card, list, err)
		}
	}
	if _, ok, err := l.KeptKey(ctx, "library", cardB); err != nil || ok {
		t.Errorf("a later issue has the older key still: %v, %v", ok, err)
	}
}

// What was revoked and not wiped keeps its values until it expires, since
// terminals are told to refuse its ID; so does what is being handed over.
func TestEraseRevoked(t *testing.T) {
	now := start
	l := open(t, filepath.Join(t.TempDir(), "l"), ledger.Options{Create: true, Clock: func() time.Time { return now }})
	issued(t, l, 1, "library", "L1", cardA) // expires on 2031-03-31
	add(t, l, ledger.ConsentWithdrawn{Consent: "c1"},
		ledger.Revoked{Service: "library", Card: cardA, Consent: "c1", ID: "L1", IssueNumber: 1, Cause: ledger.CauseWithdrawn})
	erasable := func(f ledger.EraseFilter) (int, error) {
		list, err := l.Erasable(t.Context(), f)
		return len(list), err
	}
	late := time.Date(2031, 4, 1, 0, 0, 0, 0, time.UTC)
	now = late.Add(-time.Second)
	if _, err := erasable(ledger.EraseFilter{Consent: "c1"}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("asked for while a card may hold it: %v", err)
	}
	if n, err := erasable(ledger.EraseFilter{Service: "library", Before: now}); n != 0 || err != nil {
		t.Errorf("kept long enough while a card may hold it: %d, %v", n, err)
	}
	now = late
	if n, err := erasable(ledger.EraseFilter{Consent: "c1"}); n != 1 || err != nil {
		t.Errorf("expired: %d, %v", n, err)
	}
	digest := strings.Repeat("ab", 32)
	first := add(t, l, ledger.HandoverPrepared{Batch: "b1", Service: "library", Through: 7, Rows: 1, Format: "csv", Digest: digest})
	if _, err := erasable(ledger.EraseFilter{Consent: "c1"}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("while it is handed over: %v", err)
	}
	add(t, l, ledger.HandedOver{Batch: "b1", Service: "library", To: "file"})
	if _, err := erasable(ledger.EraseFilter{Consent: "c1"}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("while nobody was told that it is revoked: %v", err)
	}
	second := add(t, l, ledger.HandoverPrepared{Batch: "b2", Service: "library", After: 7, Through: first + 1, Rows: 1, Format: "csv", Digest: digest})
	add(t, l, ledger.HandedOver{Batch: "b2", Service: "library", To: "file"})
	third := add(t, l, consent("c9", "gym"),
		ledger.HandoverPrepared{Batch: "b3", Service: "library", After: first + 1, Through: second + 2, Rows: 1, Format: "csv", Digest: digest},
		ledger.HandedOver{Batch: "b3", Service: "library", To: "file"}) - 1
	done, err := l.Erase(t.Context(), clerk, "", ledger.EraseFilter{Service: "library", Before: late})
	must(t, err)
	// An ID could be tried against the digest of a batch that told of it.
	if len(done) != 1 || !slices.Contains(done[0].Events, first) || !slices.Contains(done[0].Events, second) || slices.Contains(done[0].Events, third) {
		t.Errorf("erased %+v, batches %d, %d and %d", done, first, second, third)
	}
	for e, err := range l.Events(t.Context(), ledger.Filter{Kinds: []ledger.Kind{ledger.KindHandoverPrepared}}) {
		must(t, err)
		if d := e.Data.(ledger.HandoverPrepared); d.Digest != "" && e.Seq != third || d.Digest == "" && e.Seq == third {
			t.Errorf("event %d has the digest %q", e.Seq, d.Digest)
		}
	}
	// The issue is found by its ID still, and can be wiped.
	list, err := l.IssuesOf(t.Context(), "", "L1", "")
	must(t, err)
	if len(list) != 1 || !list[0].Revoked || list[0].ID != "" {
		t.Errorf("found %+v", list)
	}
	must(t, l.Check(t.Context()))
}

// A holder kept the ID on a new card, and then took the consent back: the ID is
// gone when the consents that had it before are erased as well, the old card's
// as soon as that card does not hold it any more.
func TestEraseCarried(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, ledger.Options{Create: true, Clock: ticking()})
	const id = "L-CARRIED-7"
	issued(t, l, 1, "library", id, cardA)
	issued(t, l, 3, "library", "L-OTHER", ledger.CardRef(strings.Repeat("0c", 16)))
	renewed := revoked(cardA, "c1", id, 1)
	renewed.Cause = ledger.CauseRenewed
	add(t, l, consent("c2", "library"), ledger.CardBound{Consent: "c2", Card: cardB},
		ledger.CardReplaced{Old: cardA, Card: cardB, Cause: ledger.CauseRenewed},
		ledger.IDCarried{Service: "library", ID: id, From: "c1", Consent: "c2"},
		issue("r2", "c2", "library", id, cardB, aidLib, 2), renewed)
	erase := func(consent string) (erased []string) {
		t.Helper()
		done, err := l.Erase(t.Context(), clerk, "", ledger.EraseFilter{Consent: consent})
		must(t, err)
		for _, d := range done {
			erased = append(erased, d.Consent)
		}
		return erased
	}
	if _, err := l.Erase(t.Context(), clerk, "", ledger.EraseFilter{Consent: "c1"}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("the old one, not taken back: %v", err)
	}
	add(t, l, ledger.ConsentWithdrawn{Consent: "c2"}, withdrawn("library", cardB))
	if got := erase("c2"); !slices.Equal(got, []string{"c2"}) {
		t.Errorf("while the old card may hold it: %v", got)
	}
	if left, err := l.StillHave(t.Context(), "c2"); err != nil || !slices.Equal(left, []string{"c1"}) {
		t.Errorf("still have it: %v, %v", left, err)
	}
	add(t, l, withdrawn("library", cardA))
	if got := erase("c2"); !slices.Equal(got, []string{"c1"}) {
		t.Errorf("when the old card is wiped: %v", got)
	}
	if left, err := l.StillHave(t.Context(), "c2"); err != nil || len(left) != 0 {
		t.Errorf("still have it: %v, %v", left, err)
	}
	must(t, l.Check(t.Context()))
	must(t, l.Close())
	if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte(id)) || !bytes.Contains(b, []byte("L-OTHER")) {
		t.Errorf("in the file there is still the ID, or another's is not: %v", err)
	}
}

// An ID is good while one card has it that is neither suspended nor revoked;
// what was reserved only is neither good nor bad.
func TestIDs(t *testing.T) {
	l := fresh(t)
	cards := func(n int) ledger.CardRef { return ledger.CardRef(strings.Repeat(fmt.Sprintf("%02x", n), 16)) }
	for n := 1; n <= 7; n++ {
		issued(t, l, n, "library", fmt.Sprint("L", n), cards(n))
	}
	issued(t, l, 8, "job", "J1", cards(1))
	add(t, l,
		ledger.Suspended{Service: "library", Card: cards(2), Run: "r"},
		ledger.Suspended{Service: "library", Card: cards(3), Run: "r"}, ledger.Resumed{Service: "library", Card: cards(3), Run: "r"},
		revoked(cards(4), "c4", "L4", 1),
		withdrawn("library", cards(5)),
		// The sixth goes to another card; what the old one holds is void.
		ledger.CardReplaced{Old: cards(6), Card: cards(16), Cause: ledger.CauseLost},
		consent("c16", "library"), ledger.CardBound{Consent: "c16", Card: cards(16)}, runOf("r16", "library", cards(16), aidLib),
		ledger.IDCarried{Service: "library", ID: "L6", From: "c6", Consent: "c16"},
		issue("r16", "c16", "library", "L6", cards(16), aidLib, 2), revoked(cards(6), "c6", "L6", 1),
		withdrawn("library", cards(7)), ledger.ConsentWithdrawn{Consent: "c7"},
		consent("c9", "library"), ledger.IDReserved{Service: "library", ID: "L9", Consent: "c9"})
	check := func(good bool, wantErased int, want ...string) {
		t.Helper()
		ids, erased, err := l.IDs(t.Context(), "library", good)
		must(t, err)
		var got []string
		for id, err := range ids {
			must(t, err)
			got = append(got, id)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || erased != wantErased {
			t.Errorf("good %v: %q and %d erased, want %q and %d", good, got, erased, want, wantErased)
		}
	}
	check(true, 0, "L1", "L3", "L6")
	check(false, 0, "L2", "L4", "L5", "L7")
	_, err := l.Erase(t.Context(), clerk, "", ledger.EraseFilter{Consent: "c7"})
	must(t, err)
	check(true, 0, "L1", "L3", "L6")
	check(false, 1, "L2", "L4", "L5")
}
