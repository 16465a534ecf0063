package emulator

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/freearea/freearea/iso7816"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestSlotsEvents(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := NewSlots("b", "a")
	one, two := newTestCard(t), newTestCard(t)
	if err := s.Insert("b", one); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	steps := []func() error{
		func() error { return s.Insert("a", two) },
		func() error { return s.Remove("a") },
		func() error { return s.Remove("a") }, // empty: nothing happens
		func() error { return s.Add("c") },
		func() error { return s.Insert("c", two) },
		func() error { return s.Drop("c") },
		func() error { cancel(); return nil },
	}
	var got []string
	for e, err := range s.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%v %s %d", e.Kind, e.Slot, len(e.ATR)))
		if len(got) == 3 { // all that was there
			for _, f := range steps[:6] {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(got) == 9 {
			steps[6]()
		}
	}
	if diff := cmp.Diff([]string{
		"slot added a 0", "slot added b 0", "card inserted b 19",
		"card inserted a 19", "card removed a 0",
		"slot added c 0", "card inserted c 19", "card removed c 0", "slot removed c 0",
	}, got); diff != "" {
		t.Error(diff)
	}
	if len(s.watchers) != 0 {
		t.Error("a watcher is left")
	}
	for _, e := range []struct{ err, want error }{
		{s.Insert("b", two), ErrSlotTaken}, {s.Insert("x", two), ErrNoSlot}, {s.Add("a"), ErrSlotTaken},
		{s.Remove("x"), ErrNoSlot}, {s.Drop("x"), ErrNoSlot},
	} {
		if !errors.Is(e.err, e.want) {
			t.Errorf("%v, want %v", e.err, e.want)
		}
	}
}

func TestSlotsSharing(t *testing.T) {
	ctx := context.Background()
	s := NewSlots("a", "b")
	if err := s.Insert("a", newTestCard(t)); err != nil {
		t.Fatal(err)
	}
	open := func(mode iso7816.Mode, want error) iso7816.Conn {
		t.Helper()
		c, err := s.Open(ctx, "a", mode)
		if !errors.Is(err, want) {
			t.Fatalf("Open %v: %v, want %v", mode, err, want)
		}
		return c
	}
	if _, err := s.Open(ctx, "b", iso7816.Shared); !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Errorf("empty slot: %v", err)
	}
	if _, err := s.Open(ctx, "x", iso7816.Shared); !errors.Is(err, ErrNoSlot) {
		t.Errorf("no slot: %v", err)
	}
	one, two := open(iso7816.Shared, nil), open(iso7816.Shared, nil)
	open(iso7816.Exclusive, ErrInUse)
	transmit(t, one, "00A40400 0A D392F000260100000001")
	if r := transmit(t, two, "80CA0042 00"); r.SW != iso7816.ErrUnknownINS {
		t.Errorf("two connections to one card: %v", r.SW)
	}
	one.Close()
	open(iso7816.Exclusive, ErrInUse)
	two.Close()
	two.Close() // again
	if _, err := two.Transmit(ctx, mustHex("00A40400")); err == nil {
		t.Error("a closed connection transmits")
	}
	x := open(iso7816.Exclusive, nil)
	open(iso7816.Shared, ErrInUse)
	status, err := s.Slots(ctx)
	if err != nil || !status[0].InUse || !status[0].CardPresent || status[1].CardPresent {
		t.Errorf("%+v %v", status, err)
	}
	if a := x.(iso7816.AnswerToReset).ATR(); len(a) != 19 || !x.(iso7816.ExtendedLength).ExtendedLength() {
		t.Errorf("ATR %X", a)
	}
	transmit(t, x, "00A40400 0A D392F000260100000001")
	x.Close() // resets
	y := open(iso7816.Shared, nil)
	if r := transmit(t, y, "80CA0042 00"); r.SW != iso7816.OK {
		t.Errorf("after an exclusive connection: %v", r.SW)
	}
}

func TestSlotsTransactions(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx := context.Background()
	s := NewSlots("a")
	if err := s.Insert("a", newTestCard(t)); err != nil {
		t.Fatal(err)
	}
	one, _ := s.Open(ctx, "a", iso7816.Shared)
	two, _ := s.Open(ctx, "a", iso7816.Shared)
	alone := one.(iso7816.Transactor)
	if err := alone.Begin(ctx); err != nil {
		t.Fatal(err)
	}
	if err := alone.Begin(ctx); err == nil {
		t.Error("Begin twice")
	}
	transmit(t, one, "00A40400")
	// Others wait, as long as their context lets them.
	short, cancel := context.WithCancel(ctx)
	result := make(chan error, 2)
	go func() { _, err := two.Transmit(short, mustHex("00A40400")); result <- err }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for another's transaction: %v", err)
	}
	go func() { _, err := two.Transmit(ctx, mustHex("00A40400")); result <- err }()
	if err := alone.End(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("after the transaction: %v", err)
	}
	if err := alone.End(); err == nil {
		t.Error("End without Begin")
	}
	// Closing ends a transaction, removing ends a wait.
	if err := alone.Begin(ctx); err != nil {
		t.Fatal(err)
	}
	one.Close()
	if err := two.(iso7816.Transactor).Begin(ctx); err != nil {
		t.Fatal(err)
	}
	three, _ := s.Open(ctx, "a", iso7816.Shared)
	go func() { result <- three.(iso7816.Transactor).Begin(ctx) }()
	if err := s.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Errorf("waiting for a removed card: %v", err)
	}
	// Another card in the slot is another connection's business.
	if err := s.Insert("a", newTestCard(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := three.Transmit(ctx, mustHex("00A40400")); !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Errorf("connection to the removed card: %v", err)
	}
}

// A card whose power is cut stays mute until it is put in again.
func TestSlotsTornCard(t *testing.T) {
	ctx := context.Background()
	s := NewSlots("a")
	card := newTestCard(t)
	if err := s.Insert("a", card); err != nil {
		t.Fatal(err)
	}
	conn, _ := s.Open(ctx, "a", iso7816.Exclusive)
	card.SetCut(Cut{Command: 2, Where: AfterCommand})
	transmit(t, conn, "00A40400")
	for range 2 {
		if _, err := conn.Transmit(ctx, mustHex("00A40400")); !errors.Is(err, iso7816.ErrCardRemoved) {
			t.Errorf("%v", err)
		}
	}
	_ = s.Remove("a")
	_ = s.Insert("a", card)
	conn, err := s.Open(ctx, "a", iso7816.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	transmit(t, conn, "00A40400")
}
