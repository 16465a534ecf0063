package batch_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/batch"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
)

// Fourteen slots at once, two cards each: every row is issued once, in the order
// in which the cards were presented, and every ID is another.
func TestFourteenSlots(t *testing.T) {
	o := newOffice(t, 14)
	cards := map[string]*emulator.Card{}
	for i, slot := range o.names {
		cards[slot] = o.card()
		o.insert(i, cards[slot])
	}
	r := o.begin(o.list(28))
	for done := range 28 {
		e := r.wait(batch.Done, batch.Refused)
		if e.Kind == batch.Refused {
			t.Fatalf("%s: %v", e.Slot, e.Err)
		}
		check(t, o.slots.Remove(e.Slot))
		if done < 14 {
			check(t, o.slots.Insert(e.Slot, o.card()))
		}
	}
	report := r.end()
	ids := map[string]bool{}
	for i, e := range report.Rows {
		ids[e.ID] = true
		if e.State != batch.Issued || e.ID == "" || e.Run == "" || e.Card == "" || e.Reference != fmt.Sprintf("M-%03d", i) {
			t.Errorf("row %d: %+v", i, e)
		}
		if i < 14 && e.Slot != o.names[i] {
			t.Errorf("row %d went to %s: the cards lay in the order of the slots", i, e.Slot)
		}
	}
	if len(ids) != 28 || len(o.issues()) != 28 || report.Totals.Issued != 28 || report.Totals.Open != 0 {
		t.Errorf("%d IDs, %d issues, %+v", len(ids), len(o.issues()), report.Totals)
	}
}

// Stopped and gone on with: cards under way are finished, the next run has the
// rest, and a card of the list is recognised.
func TestStopAndGoOn(t *testing.T) {
	o := newOffice(t, 2)
	text := o.list(3)
	first := o.card()
	r := o.begin(text)
	o.insert(0, first)
	r.wait(batch.Matched)
	r.stop()
	report := r.end()
	if got := states(report); got != "issued, open, open" {
		t.Fatalf("stopped: %s", got)
	}
	o.remove(0)

	r = o.begin(text)
	o.insert(1, first)
	if e := r.wait(batch.Recognised, batch.Refused, batch.Done); e.Kind != batch.Recognised || e.Line != 2 || e.Reference != "M-000" {
		t.Errorf("the issued card: %+v", e)
	}
	o.remove(1)
	for range 2 {
		o.insert(0, o.card())
		r.wait(batch.Done)
		o.remove(0)
	}
	if got := states(r.end()); got != "issued-before, issued, issued" {
		t.Errorf("gone on: %s", got)
	}
	// Once more: there is nothing to do, and no card is waited for.
	if got := states(o.begin(text).end()); got != "issued-before, issued-before, issued-before" {
		t.Errorf("once more: %s", got)
	}
	if n := len(o.issues()); n != 3 {
		t.Errorf("%d issues", n)
	}
}

// A card that is torn keeps its row, and goes on with it in any slot; the slots
// beside it go on meanwhile.
func TestTornCard(t *testing.T) {
	o := newOffice(t, 2)
	torn := o.card()
	// In the midst of what the first step writes.
	torn.SetCut(emulator.Cut{Command: 12, Where: emulator.AfterCommand})
	r := o.begin(o.list(2))
	o.insert(0, torn)
	if e := r.wait(batch.Refused, batch.Done); e.Kind != batch.Refused || !errors.Is(e.Err, iso7816.ErrCardRemoved) || e.Line != 2 || e.Row.State != batch.Unfinished {
		t.Fatalf("torn: %+v %+v", e, e.Row)
	}
	o.remove(0)
	o.insert(0, o.card())
	if e := r.wait(batch.Refused, batch.Done); e.Kind != batch.Done || e.Line != 3 {
		t.Fatalf("the next card: %+v: %v", e, e.Err)
	}
	o.insert(1, torn)
	if e := r.wait(batch.Refused, batch.Done); e.Kind != batch.Done || e.Line != 2 || e.Slot != o.names[1] {
		t.Fatalf("the torn card again: %+v: %v", e, e.Err)
	}
	if got := states(r.end()); got != "issued, issued" {
		t.Error(got)
	}
}

// pulled is a card whose slot is pulled out before a command.
type pulled struct {
	*emulator.Card
	left int
	pull func()
}

func (p *pulled) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if p.left--; p.left == 0 {
		go p.pull() // it waits until the command has ended
		return nil, iso7816.ErrCardRemoved
	}
	return p.Card.Transmit(ctx, command)
}

// A slot that is pulled out before its card has been written to leaves the row
// to the next card.
func TestPulledSlot(t *testing.T) {
	for _, test := range []struct {
		name string
		left int
	}{{"while it is identified", 2}, {"while it authenticates", 5}} {
		t.Run(test.name, func(t *testing.T) {
			o := newOffice(t, 2)
			r := o.begin(o.list(1))
			o.insert(0, &pulled{Card: o.card(), left: test.left, pull: func() { _ = o.slots.Drop(o.names[0]) }})
			if e := r.wait(batch.Refused); !errors.Is(e.Err, iso7816.ErrCardRemoved) || e.Line != 0 {
				t.Fatalf("pulled: %+v", e)
			}
			o.insert(1, o.card())
			if e := r.wait(batch.Refused, batch.Done); e.Kind != batch.Done || e.Line != 2 {
				t.Fatalf("the next card: %+v: %v", e, e.Err)
			}
			if got := states(r.end()); got != "issued" {
				t.Error(got)
			}
		})
	}
}

// Two processes work on one list and one ledger: no row is issued twice, and
// both end when all rows are issued.
func TestTwoProcesses(t *testing.T) {
	o := newOffice(t, 4)
	text := o.list(12)
	var here, there *run
	second := o.open()
	for i := range 4 {
		o.insert(i, o.card())
	}
	feed := func(r *run) {
		for e := range r.events {
			if e.Kind == batch.Refused && !errors.Is(e.Err, batch.ErrNoRow) && !errors.Is(e.Err, batch.ErrStopped) {
				t.Errorf("%s: %v", e.Slot, e.Err)
			}
			if e.Kind != batch.Done {
				continue
			}
			o.mu.Lock()
			card := o.card()
			o.mu.Unlock()
			_ = o.slots.Remove(e.Slot)
			_ = o.slots.Insert(e.Slot, card)
		}
	}
	half := func(names ...string) func(*batch.Options) { return func(x *batch.Options) { x.Slots = names } }
	here = o.begin(text, half(o.names[:2]...))
	there = o.begin(text, half(o.names[2:]...), func(x *batch.Options) { x.Ledger = second })
	var feeding sync.WaitGroup
	feeding.Go(func() { feed(here) })
	feeding.Go(func() { feed(there) })
	one, two := here.end(), there.end()
	close(here.events)
	close(there.events)
	feeding.Wait()
	if n := len(o.issues()); n != 12 {
		t.Errorf("%d issues of 12 rows", n)
	}
	if a, b := one.Totals, two.Totals; a.Issued+b.Issued != 12 || a.Issued != b.Beside+b.Before || b.Issued != a.Beside+a.Before {
		t.Errorf("here %+v, there %+v", a, b)
	}
}

// A row that names its card waits for it, also by the last digits; other cards
// get the rows that name none.
func TestNamedCards(t *testing.T) {
	o := newOffice(t, 1)
	text := "cin,consent,card-expiry\n" +
		fmt.Sprintf("%s,%s,2031-05-20\n", cin(3), o.consent("a", points)) +
		fmt.Sprintf("%s,%s,2031-05-20\n", strings.ToLower(cin(0x2)[4:]), o.consent("b", points)) +
		fmt.Sprintf(",%s,2031-05-20\n", o.consent("c", points))
	r := o.begin(text)
	for _, want := range []int{4, 3, 2} { // the cards 1, 2 and 3
		o.insert(0, o.card())
		if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done || e.Line != want {
			t.Fatalf("line %d: %+v: %v", want, e, e.Err)
		}
		o.remove(0)
	}
	r.end()
}

// What one card or one row is refused for stops no other, and is told; what can
// be mended is done when the card is presented again.
func TestRefusals(t *testing.T) {
	o := newOffice(t, 1)
	text := o.list(3)
	next := func(r *run, card iso7816.Card) batch.Event {
		t.Helper()
		o.insert(0, card)
		e := r.wait(batch.Done, batch.Refused)
		o.remove(0)
		return e
	}
	// A card that has the service under a consent of no row.
	other := o.card()
	stray := o.begin("consent,card-expiry\n" + o.consent("stray.json", points) + ",2031-05-20\n")
	next(stray, other)
	stray.end()

	r := o.begin(text)
	if e := next(r, other); batch.Code(e.Err) != "other-issue" || e.Line != 0 {
		t.Errorf("issued already: %+v", e)
	}
	// The first row's holder takes the consent back while the batch runs.
	report, err := r.b.Report(t.Context())
	check(t, err)
	_, err = o.book.Append(t.Context(), ledger.Event{
		Actor: ledger.Actor{Operator: "clerk", Counter: "window-1"}, Data: ledger.ConsentWithdrawn{Consent: report.Rows[0].Consent, Signed: []byte{}},
	})
	check(t, err)
	mine := o.card()
	if e := next(r, mine); !errors.Is(e.Err, consent.ErrWithdrawn) || e.Line != 2 || e.Row.State != batch.RefusedRow {
		t.Errorf("withdrawn: %+v", e)
	}
	if e := next(r, mine); e.Kind != batch.Done || e.Line != 3 {
		t.Errorf("the same card, the next row: %+v: %v", e, e.Err)
	}
	if e := next(r, o.card()); e.Kind != batch.Done || e.Line != 4 {
		t.Errorf("the next card: %+v: %v", e, e.Err)
	}
	end := r.end()
	if got := states(end); got != "refused consent-withdrawn, issued, issued" {
		t.Error(got)
	}
	if len(end.Refusals) != 2 || end.Refusals[0].Code != "other-issue" || end.Refusals[1].Line != 2 {
		t.Errorf("refusals %+v", end.Refusals)
	}
}

// A card that comes when the last row has just been issued is told that there is
// no row for it, not that somebody has stopped the batch.
func TestLateCard(t *testing.T) {
	o := newOffice(t, 2)
	there, done := make(chan struct{}), make(chan struct{})
	o.insert(0, &watched{Card: o.card(), first: func() { <-there }})
	o.insert(1, &watched{Card: o.card(), first: func() { <-done }})
	r := o.begin(o.list(1), func(x *batch.Options) {
		tell := x.Observe
		x.Observe = func(e batch.Event) {
			switch {
			case e.Kind == batch.Presented && e.Slot == o.names[1]:
				close(there)
			case e.Kind == batch.Done:
				close(done)
			}
			tell(e)
		}
	})
	if e := r.wait(batch.Refused); !errors.Is(e.Err, batch.ErrNoRow) {
		t.Errorf("%+v: %v", e, e.Err)
	}
	r.end()
}

// Consents are on record before any card is used.
func TestConsentsFirst(t *testing.T) {
	o := newOffice(t, 1)
	text := o.list(3)
	recorded := -1
	card := &watched{Card: o.card(), first: func() {
		recorded = 0
		for _, err := range o.book.Events(context.Background(), ledger.Filter{Kinds: []ledger.Kind{ledger.KindConsentRecorded}}) {
			if err == nil {
				recorded++
			}
		}
	}}
	o.insert(0, card)
	r := o.begin(text)
	r.wait(batch.Done)
	r.stop()
	r.end()
	if recorded != 3 {
		t.Errorf("%d consents of 3 were on record when the first command came", recorded)
	}
}

// The report has what another process has begun until now, whenever the ledger
// was asked last.
func TestReportHasOthers(t *testing.T) {
	o := newOffice(t, 1)
	r := o.begin(o.list(1), func(x *batch.Options) { x.Poll = time.Hour })
	r.wait(batch.Recording)
	r.stop()
	report := r.end()
	if got := states(report); got != "open" {
		t.Fatal(got)
	}
	const other = ledger.CardRef("00112233445566778899aabbccddeeff")
	_, err := o.book.Append(t.Context(), ledger.Event{
		Actor: ledger.Actor{Operator: "clerk", Counter: "window-2"}, Data: ledger.CardBound{Consent: report.Rows[0].Consent, Card: other},
	})
	check(t, err)
	report, err = r.b.Report(t.Context())
	check(t, err)
	if got := states(report); got != "unfinished" || report.Rows[0].Card != string(other) {
		t.Errorf("%s, card %s", got, report.Rows[0].Card)
	}
}

// asked is a ledger that notes from where its events are asked for, and in which
// another process records a consent of the list first.
type asked struct {
	*ledger.Ledger
	after  chan int64
	before func(ledger.Event)
}

func (a *asked) Events(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Event, error] {
	a.after <- f.After
	return a.Ledger.Events(ctx, f)
}

func (a *asked) Append(ctx context.Context, events ...ledger.Event) (int64, error) {
	if f := a.before; f != nil {
		a.before = nil
		f(events[len(events)-1])
	}
	return a.Ledger.Append(ctx, events...)
}

// A long list and a long ledger: each event is looked at once, however often it
// is asked what other processes have done; a consent that one of them records
// meanwhile keeps none of the others from being recorded.
func TestLongList(t *testing.T) {
	o := newOffice(t, 1)
	const rows = 150
	book := &asked{Ledger: o.book, after: make(chan int64, 10_000)}
	book.before = func(e ledger.Event) {
		_, err := o.book.Append(context.Background(), e)
		check(t, err)
	}
	text := o.list(rows)
	r := o.begin(text, func(x *batch.Options) { x.Ledger = book })
	for range 3 {
		o.insert(0, o.card())
		if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done {
			t.Fatal(e.Err)
		}
		o.remove(0)
	}
	r.stop()
	r.end()
	consents := 0
	for _, err := range o.book.Events(t.Context(), ledger.Filter{Kinds: []ledger.Kind{ledger.KindConsentRecorded}}) {
		check(t, err)
		consents++
	}
	if consents != rows {
		t.Errorf("%d consents of %d are recorded", consents, rows)
	}
	// A second run has all of them before it.
	book.after = make(chan int64, 10_000)
	before := must(o.book.Last(t.Context()))
	r = o.begin(text, func(x *batch.Options) { x.Ledger = book })
	o.insert(0, o.card())
	r.wait(batch.Done)
	for range 2 {
		if after := <-book.after; after < before {
			t.Errorf("events were asked for after %d; %d were looked at before", after, before)
		} else {
			before = after + 1
		}
		o.remove(0)
		o.insert(0, o.card())
		r.wait(batch.Done)
	}
	r.stop()
	r.end()
}

type watched struct {
	*emulator.Card
	first func()
}

func (w *watched) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if w.first != nil {
		w.first()
		w.first = nil
	}
	return w.Card.Transmit(ctx, command)
}

// racing is a ledger in which something happens just before a consent is bound.
type racing struct {
	*ledger.Ledger
	before func(ledger.CardBound)
}

func (r *racing) Append(ctx context.Context, events ...ledger.Event) (int64, error) {
	for _, e := range events {
		if d, ok := e.Data.(ledger.CardBound); ok && r.before != nil {
			f := r.before
			r.before = nil
			f(d)
		}
	}
	return r.Ledger.Append(ctx, events...)
}

// Another process gets hold of the row between this one's look at the ledger
// and its binding: the card gets the next row, and the row stays the other's.
func TestRowTakenMeanwhile(t *testing.T) {
	o := newOffice(t, 1)
	const other = ledger.CardRef("00112233445566778899aabbccddeeff")
	book := &racing{Ledger: o.book}
	book.before = func(d ledger.CardBound) {
		_, err := o.book.Append(context.Background(), ledger.Event{
			Actor: ledger.Actor{Operator: "clerk", Counter: "window-2"}, Data: ledger.CardBound{Consent: d.Consent, Card: other},
		})
		if err != nil {
			t.Error(err)
		}
	}
	r := o.begin(o.list(2), func(x *batch.Options) { x.Ledger = book })
	o.insert(0, o.card())
	if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done || e.Line != 3 {
		t.Errorf("%+v: %v", e, e.Err)
	}
	r.stop()
	report := r.end()
	if report.Rows[0].State != batch.Unfinished || report.Rows[0].Card != string(other) || report.Rows[1].State != batch.Issued {
		t.Errorf("rows %+v", report.Rows)
	}
}
