package pcsc_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/pcsc"
	"github.com/freearea/freearea/reader"
)

// BenchmarkInsertion puts a card into a virtual reader and takes it out again
// while a terminal waits for taps, and reports, as medians in one run:
//   - from the card's entering the reader to the PC/SC service's event
//     (ns-to-event): the service looks at its readers from time to time;
//   - from the event to the terminal's first command (ns-to-command), and how
//     much of that was spent outside of the PC/SC library (ours-ns, ours-%):
//     that is this project's code, the library's calls are the service's;
//   - our part in the whole delay (ours-%-of-delay).
func BenchmarkInsertion(b *testing.B) {
	d, s := start(b, 1)
	slot := d.Readers[0]
	var mu sync.Mutex
	var calls []pcsc.Call
	source := pcsc.NewObserved(func(c pcsc.Call) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, c)
	})
	profile, _ := applets.Base().Lookup("common-ap")
	r, err := reader.New(reader.Options{Services: []reader.Service{{ID: "points", Profile: profile, Instance: benchmarkService}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	next, stop := iter.Pull2(r.Taps(ctx, source))
	defer stop()
	var toEvent, toCommand, ours, share, ofDelay []float64
	for b.Loop() {
		mu.Lock()
		calls = nil
		mu.Unlock()
		card := &naiveCard{atr: atrOne, answer: func([]byte) ([]byte, bool) { return []byte{0x6A, 0x82}, true }}
		inserted := time.Now()
		card.insert(b, slot)
		watchdog := time.AfterFunc(limit, cancel)
		_, err, ok := next()
		watchdog.Stop()
		if !ok || !errors.Is(err, reader.ErrNoService) {
			b.Fatalf("%v (more: %v)", err, ok)
		}
		mu.Lock()
		event, command, inside := delays(b, calls, slot.Name)
		mu.Unlock()
		took := command.Sub(event)
		toEvent = append(toEvent, float64(event.Sub(inserted)))
		toCommand = append(toCommand, float64(took))
		ours = append(ours, float64(took-inside))
		share = append(share, 100*float64(took-inside)/float64(took))
		ofDelay = append(ofDelay, 100*float64(took-inside)/float64(command.Sub(inserted)))
		card.remove()
		settleEmpty(b, s, slot)
	}
	for _, m := range []struct {
		unit   string
		values []float64
	}{{"ns-to-event", toEvent}, {"ns-to-command", toCommand}, {"ours-ns", ours}, {"ours-%", share}, {"ours-%-of-delay", ofDelay}} {
		slices.Sort(m.values)
		b.ReportMetric(m.values[len(m.values)/2], m.unit)
	}
}

// delays finds in the library's calls when the service told of the card, when
// the first command was handed to it, and how long its calls took in between.
// The watching goroutine goes on with its own calls meanwhile; the reading one
// makes others.
func delays(b *testing.B, calls []pcsc.Call, slot string) (event, command time.Time, inside time.Duration) {
	for _, c := range calls {
		if c.Name == "wait" && slices.Contains(c.Present, slot) && (event.IsZero() || c.Ended.Before(event)) {
			event = c.Ended
		}
		if c.Name == "transmit" && (command.IsZero() || c.Began.Before(command)) {
			command = c.Began
		}
	}
	if event.IsZero() || command.Before(event) {
		b.Fatalf("no event, or no command after it, in %+v", calls)
	}
	for _, c := range calls {
		if c.Name != "wait" && !c.Began.Before(event) && !c.Ended.After(command) {
			inside += c.Ended.Sub(c.Began)
		}
	}
	return event, command, inside
}
