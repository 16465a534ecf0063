package reader_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/reader"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// said is a result in short: slot, then ID or code.
func said(tap *reader.Tap, err error) string {
	var failed *reader.TapError
	switch {
	case err == nil:
		return tap.Slot + " " + tap.ID
	case errors.As(err, &failed):
		return failed.Slot + " " + reader.Code(err)
	}
	return "end: " + err.Error()
}

// TestTapsFollowTheSlots goes through a day of a source, one step after each
// result.
func TestTapsFollowTheSlots(t *testing.T) {
	defer goleak.VerifyNone(t)
	a := newCard(t, points(record("points", "A")))
	b := newCard(t, points(record("points", "B")))
	blank := newCard(t)
	slots := emulator.NewSlots("front", "side")
	check(t, slots.Insert("front", a)) // is there when watching begins
	steps := []struct {
		want string
		next func()
	}{
		{"front A", func() { check(t, slots.Insert("side", b)) }},
		{"side B", func() { check(t, slots.Remove("side")); check(t, slots.Insert("side", blank)) }},
		{"side no-service", func() { check(t, slots.Remove("side")); check(t, slots.Insert("side", b)) }},
		{"side B", func() { check(t, slots.Add("new")); check(t, slots.Remove("side")); check(t, slots.Insert("new", b)) }},
		{"new B", func() { check(t, slots.Drop("new")); check(t, slots.Insert("side", b)) }},
		{"side B", func() { check(t, slots.Add("new")); check(t, slots.Insert("new", blank)) }}, // plugged in again
		{"new no-service", func() { check(t, slots.Remove("front")); check(t, slots.Insert("front", a)) }},
		{"front A", nil},
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newReader(t, reader.Options{Services: []reader.Service{pointsService()}})
	n := 0
	for tap, err := range r.Taps(ctx, slots) {
		if n == len(steps) {
			t.Fatalf("one result more: %s", said(tap, err))
		}
		if got := said(tap, err); got != steps[n].want {
			t.Fatalf("step %d: got %s, want %s", n, got, steps[n].want)
		}
		if n++; n == len(steps) {
			cancel()
			continue
		}
		steps[n-1].next()
	}
	if n != len(steps) {
		t.Errorf("%d results", n)
	}
	goleak.VerifyNone(t)
	if open, err := slots.Open(t.Context(), "front", iso7816.Exclusive); err != nil {
		t.Errorf("a card is still held: %v", err)
	} else {
		check(t, open.Close())
	}
}

// fakeSource yields given events, then an error or nothing.
type fakeSource struct {
	events []iso7816.Event
	before func(event int) // nil, or called before each event
	err    error
	open   func(slot string) (iso7816.Conn, error)
}

func (s *fakeSource) Slots(context.Context) ([]iso7816.SlotStatus, error) { return nil, nil }

func (s *fakeSource) Events(context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		for i, e := range s.events {
			if s.before != nil {
				s.before(i)
			}
			if !yield(e, nil) {
				return
			}
		}
		if s.err != nil {
			yield(iso7816.Event{}, s.err)
		}
	}
}

func (s *fakeSource) Open(_ context.Context, slot string, mode iso7816.Mode) (iso7816.Conn, error) {
	if mode != iso7816.Shared {
		return nil, errors.New("cards are read shared")
	}
	return s.open(slot)
}

type conn struct{ iso7816.Card }

func (conn) Close() error { return errors.New("the card has left") }

func event(kind iso7816.EventKind, slot string) iso7816.Event {
	return iso7816.Event{Kind: kind, Slot: slot}
}

// TestACardThatStaysIsOneTap tells of the same card again after it was read.
func TestACardThatStaysIsOneTap(t *testing.T) {
	card := newCard(t, points(record("points", "A")))
	read := make(chan struct{})
	source := &fakeSource{
		open: func(string) (iso7816.Conn, error) { return conn{card}, nil },
		events: []iso7816.Event{
			event(iso7816.CardInserted, "s"), event(iso7816.CardInserted, "s"), event(iso7816.SlotAdded, "s"), event(iso7816.CardInserted, "s"),
		},
		before: func(i int) {
			if i == 1 {
				<-read
			}
		},
	}
	n := 0
	for tap, err := range newReader(t, reader.Options{Services: []reader.Service{pointsService()}}).Taps(t.Context(), source) {
		if got := said(tap, err); got != "s A" {
			t.Errorf("got %s", got)
		}
		if n++; n == 1 {
			close(read)
		}
	}
	if n != 1 {
		t.Errorf("%d taps", n)
	}
}

// telling is a card that tells when it is given back.
type telling struct {
	conn
	closed chan<- struct{}
}

func (c telling) Close() error {
	c.closed <- struct{}{}
	return nil
}

// TestDebounce: a card that comes and goes is one tap while it does, and
// another one, or another slot, is not.
func TestDebounce(t *testing.T) {
	first, other := newCard(t, points(record("points", "A"))), newCard(t, points(record("points", "B")))
	now := time.Date(2026, 4, 1, 9, 0, 0, 0, time.UTC)
	steps := []struct {
		card  iso7816.Card
		slot  string
		after time.Duration // since the step before
	}{
		{first, "s", 0},
		{first, "s", 999 * time.Millisecond},
		{first, "s", 999 * time.Millisecond}, // counted from the last reading
		{first, "s", time.Second},
		{first, "r", 0},
		{other, "s", 0},
		{first, "s", 0},
	}
	var events []iso7816.Event
	for _, s := range steps {
		events = append(events, event(iso7816.CardInserted, s.slot), event(iso7816.CardRemoved, s.slot))
	}
	closed := make(chan struct{}, len(steps))
	at := -1
	source := &fakeSource{
		events: events,
		open: func(string) (iso7816.Conn, error) {
			return telling{conn{steps[at].card}, closed}, nil
		},
		before: func(i int) {
			if i%2 == 1 {
				<-closed
				return
			}
			at++
			now = now.Add(steps[at].after)
		},
	}
	got, want := map[string][]string{}, map[string][]string{"s": {"A", "A", "B", "A"}, "r": {"A"}}
	r := newReader(t, reader.Options{Services: []reader.Service{pointsService()}, Debounce: time.Second, Clock: func() time.Time { return now }})
	for tap, err := range r.Taps(t.Context(), source) {
		if err != nil {
			t.Fatal(err)
		}
		got[tap.Slot] = append(got[tap.Slot], tap.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestNothingGoesOnAfterTheLoop looks, at once, whether a reading that hung
// has given its card back.
func TestNothingGoesOnAfterTheLoop(t *testing.T) {
	begun := make(chan struct{})
	var closed atomic.Bool
	source := &fakeSource{events: []iso7816.Event{event(iso7816.CardInserted, "hangs"), event(iso7816.CardInserted, "refused")}}
	source.open = func(slot string) (iso7816.Conn, error) {
		if slot == "refused" {
			return nil, errors.New("held by another program")
		}
		return closing{hangs(begun), &closed}, nil
	}
	for range newReader(t, reader.Options{Services: []reader.Service{pointsService()}}).Taps(t.Context(), source) {
		<-begun
		break
	}
	if !closed.Load() {
		t.Error("the card is still held")
	}
}

type closing struct {
	iso7816.Card
	closed *atomic.Bool
}

func (c closing) Close() error { c.closed.Store(true); return nil }

func TestTapsOfASource(t *testing.T) {
	const added, in, out, gone = iso7816.SlotAdded, iso7816.CardInserted, iso7816.CardRemoved, iso7816.SlotRemoved
	card := newCard(t, points(record("points", "A")))
	open := func(string) (iso7816.Conn, error) { return conn{card}, nil }
	tests := []struct {
		name   string
		source *fakeSource
		want   []string
	}{
		{"nothing", &fakeSource{}, nil},
		{"one card told twice", &fakeSource{open: open, events: []iso7816.Event{
			event(added, "s"), event(in, "s"), event(in, "s"), event(added, "s"), event(in, "s"),
		}}, []string{"s A"}},
		{"a card in a slot that was not told", &fakeSource{open: open, events: []iso7816.Event{event(in, "s")}}, []string{"s A"}},
		{"a card that leaves an unknown slot", &fakeSource{open: open, events: []iso7816.Event{
			event(out, "s"), event(gone, "s"), event(in, "t"),
		}}, []string{"t A"}},
		{"two slots", &fakeSource{open: open, events: []iso7816.Event{event(in, "s"), event(in, "t")}}, []string{"s A", "t A"}},
		{"a slot that can't be opened", &fakeSource{
			open: func(slot string) (iso7816.Conn, error) {
				if slot == "s" {
					return nil, errors.New("held by another program")
				}
				return conn{card}, nil
			},
			events: []iso7816.Event{event(in, "s"), event(in, "t")},
		}, []string{"s error", "t A"}},
		{"the source fails", &fakeSource{open: open, err: errors.New("no daemon"), events: []iso7816.Event{event(in, "s")}},
			[]string{"end: no daemon", "s A"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader(t, reader.Options{Services: []reader.Service{pointsService()}})
			var got []string
			for tap, err := range r.Taps(t.Context(), tt.source) {
				got = append(got, said(tap, err))
			}
			goleak.VerifyNone(t)
			if n := slices.IndexFunc(got, func(s string) bool { return strings.HasPrefix(s, "end") }); n >= 0 && n != len(got)-1 {
				t.Errorf("the source's error is not the last result: %q", got)
			}
			slices.Sort(got)
			if !cmp.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCardLeavesWhileAPersonIsAsked ends the question, and the next card is
// read.
func TestCardLeavesWhileAPersonIsAsked(t *testing.T) {
	card := newCard(t, library(record("library", "L-1"), "1234"))
	slots := emulator.NewSlots("front")
	check(t, slots.Insert("front", card))
	asked := 0
	r := newReader(t, reader.Options{
		Services: []reader.Service{libraryService()},
		PIN: func(ctx context.Context, q reader.PINQuestion) (applets.PIN, error) {
			if q != (reader.PINQuestion{Slot: "front", Service: "library"}) {
				t.Errorf("question %+v", q)
			}
			if asked++; asked == 1 {
				check(t, slots.Remove("front"))
				<-ctx.Done()
				return applets.PIN{}, ctx.Err()
			}
			other, err := slots.Open(ctx, "front", iso7816.Shared)
			check(t, err)
			defer other.Close()
			begun, _ := other.(iso7816.Transactor)
			check(t, begun.Begin(ctx)) // the card is free while a person is asked
			check(t, begun.End())
			return applets.NewPIN("1234")
		},
	})
	var got []string
	for tap, err := range r.Taps(t.Context(), slots) {
		got = append(got, said(tap, err))
		if len(got) == 2 {
			break
		}
		check(t, slots.Insert("front", card))
	}
	goleak.VerifyNone(t)
	if want := []string{"front card-removed", "front L-1"}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLeavingTheLoop breaks, panics and cancels with readings under way.
func TestLeavingTheLoop(t *testing.T) {
	card := newCard(t, points(record("points", "A")))
	begun := make(chan struct{})
	source := func() iso7816.Source {
		slots := emulator.NewSlots("fast", "hangs")
		check(t, slots.Insert("fast", card))
		check(t, slots.Insert("hangs", hangs(begun)))
		return slots
	}
	r := newReader(t, reader.Options{Services: []reader.Service{pointsService()}})
	take := func(ctx context.Context, f func()) {
		for tap, err := range r.Taps(ctx, source()) {
			if got := said(tap, err); got != "fast A" {
				t.Errorf("got %s", got)
			}
			<-begun
			f()
			return
		}
	}
	t.Run("break", func(t *testing.T) {
		take(t.Context(), func() {})
		goleak.VerifyNone(t)
	})
	t.Run("panic", func(t *testing.T) {
		func() {
			defer func() { _ = recover() }()
			take(t.Context(), func() { panic("in the caller") })
		}()
		goleak.VerifyNone(t)
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for tap, err := range r.Taps(ctx, source()) {
			if got := said(tap, err); got != "fast A" {
				t.Errorf("got %s", got)
			}
			<-begun
			cancel()
		}
		goleak.VerifyNone(t)
	})
}

// hangs is a card that never answers, and tells when it has been asked.
type hangs chan struct{}

func (h hangs) Transmit(ctx context.Context, _ []byte) ([]byte, error) {
	select {
	case h <- struct{}{}:
	case <-ctx.Done():
	}
	<-ctx.Done()
	return nil, fmt.Errorf("no answer: %w", ctx.Err())
}

// TestCardLeavesDuringACommand ends a reading that hangs.
func TestCardLeavesDuringACommand(t *testing.T) {
	begun := make(chan struct{})
	slots := emulator.NewSlots("front")
	check(t, slots.Insert("front", hangs(begun)))
	go func() {
		<-begun
		if err := slots.Remove("front"); err != nil {
			t.Error(err)
		}
	}()
	r := newReader(t, reader.Options{Services: []reader.Service{pointsService()}})
	for tap, err := range r.Taps(t.Context(), slots) {
		if got := said(tap, err); got != "front card-removed" {
			t.Errorf("got %s", got)
		}
		break
	}
	goleak.VerifyNone(t)
}
