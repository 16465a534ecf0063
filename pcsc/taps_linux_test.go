package pcsc_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/internal/pcscd"
	"github.com/freearea/freearea/pcsc"
	"github.com/freearea/freearea/reader"
)

// A terminal in Go: each card that is put into a slot is one tap, and when the
// terminal has ended nothing of it is left.
func testTaps(t *testing.T, program string) {
	d, s := start(t, 2)
	o := newOffice(t, program)
	points := o.services[0]
	o.makeKeys(points)
	o.counter.run("emulate", "new", "card.img")
	card := o.emulate(t, "card.img")
	remove := card.insert(t, s, d.Readers[0])
	done := as[issued](t, o.counter.run(points.issueArgs(d.Readers[0].Name, o.consent(points, "one"))...))

	profile, _ := applets.Base().Lookup(points.profile)
	r, err := reader.New(reader.Options{Services: []reader.Service{{ID: points.id, Profile: profile, Instance: points.instance}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	next, stop := iter.Pull2(r.Taps(ctx, s))
	defer stop()
	want := func(slot *pcscd.Reader) {
		t.Helper()
		watchdog := time.AfterFunc(limit, cancel)
		defer watchdog.Stop()
		tap, err, ok := next()
		if err != nil || !ok {
			t.Fatalf("tap %v, %v (more: %v)", tap, err, ok)
		}
		if tap.Slot != slot.Name || tap.ID != done.ID || tap.Service != points.id || tap.Commands != 1 {
			t.Errorf("tap %+v, want %s at %s", tap, done.ID, slot.Name)
		}
	}
	want(d.Readers[0]) // the card that lay there before
	for _, slot := range []*pcscd.Reader{d.Readers[1], d.Readers[0], d.Readers[0]} {
		remove()
		emptied(t, s, d.Readers[0])
		emptied(t, s, d.Readers[1])
		remove = card.insert(t, s, slot)
		want(slot)
	}
	// Another kind of card is an error of its own, and not the end.
	remove()
	emptied(t, s, d.Readers[0])
	other := &naiveCard{atr: atrOne, answer: func([]byte) ([]byte, bool) { return []byte{0x6A, 0x82}, true }}
	other.insert(t, d.Readers[1])
	if _, err, ok := next(); !ok || !errors.Is(err, reader.ErrNoService) {
		t.Errorf("error %v of a card without the service (more: %v)", err, ok)
	}
	card.insert(t, s, d.Readers[0])
	want(d.Readers[0])
	cancel()
	if tap, err, ok := next(); ok {
		t.Errorf("tap %v, %v after the end", tap, err)
	}
}

// The driver as it comes waits for cards. `emulate --connect` puts one in.
func testWaitingReader(t *testing.T, program string) {
	noLeaks(t)
	d := pcscd.Start(t, pcscd.Options{Readers: 2, Waiting: true})
	s := pcsc.New(pcsc.Options{})
	slot := d.Readers[1]
	o := newOffice(t, program)
	points := o.services[0]
	o.makeKeys(points)
	o.counter.run("emulate", "new", "card.img")
	insert := func(args ...string) *process {
		card := o.counter.background(t, true, append([]string{"emulate", "card.img", "--connect", slot.Addr}, args...)...)
		settle(t, s, slot)
		if line, want := card.line(), fmt.Sprintf("card.img is in the reader at %s", slot.Addr); line != want {
			t.Errorf("emulate says %q, want %q", line, want)
		}
		return card
	}
	card := insert()
	done := as[issued](t, o.counter.run(points.issueArgs(slot.Name, o.consent(points, "one"))...))
	if end := card.interrupt(); end.status != 0 {
		t.Errorf("%+v", end)
	}
	settleEmpty(t, s, slot)

	// Torn out in the middle of a command, and put back.
	card = insert("--cut", "after:1")
	if failed := o.counter.try("", points.readArgs(slot.Name)...); failed.status != 1 || !isRemoved(failed) {
		t.Errorf("read of a torn card: %+v", failed)
	}
	if end := card.wait(); end.status != 1 {
		t.Errorf("%+v", end)
	}
	settleEmpty(t, s, slot)
	card = insert()
	if got := as[tap](t, o.counter.run(points.readArgs(slot.Name)...)); got.ID != done.ID {
		t.Errorf("read %+v, issued %s", got, done.ID)
	}
	d.Stop() // the reader is gone: nothing holds the card
	if end := card.wait(); end.status != 0 {
		t.Errorf("without a reader the card's process ends with %+v", end)
	}
}
