//go:build unix

package reader_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freearea/freearea/emulator/timing"
	"github.com/freearea/freearea/reader"
)

// benchTaps is how many taps one round of the benchmark is.
const benchTaps = 10_000

// processorTime is what the process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTap makes 10,000 taps a round of each kind of card, one slot after
// the other and 14 at once, and reports
//   - percentiles of the terminal's time in a tap (p50-ns, p95-ns, p99-ns);
//     with 14 slots a tap waits for its turn on the machine's processors;
//   - commands and bytes of a tap beside the smallest that docs/card-protocol.md
//     allows (see smallest);
//   - the computed time of link, from the field on, and card (link-ms, card-ms)
//     at 848 kbit/s and with the cheapest card that there are prices for;
//   - the terminal's share of a tap in percent (host-%): its processor time in
//     the sum of that and those. Slower links and cards make it less. It must be
//     under 2.
func BenchmarkTap(b *testing.B) {
	for _, k := range tapKinds {
		steps := k.measure(b)
		card := newReplay(steps)
		link := timing.Contactless(timing.Rate848)
		cost := timing.Sum(steps, link, timing.P71().WithTransientKeys())
		cost.Link += link.Activation()
		for _, slots := range []int{1, 14} {
			b.Run(fmt.Sprintf("%s/slots=%d", k, slots), func(b *testing.B) {
				o := k.options()
				o.Rand = sameBytes(0xA5)
				r := newReader(b, o)
				var times []time.Duration
				var used time.Duration
				b.ReportAllocs()
				for b.Loop() {
					before := processorTime(b)
					times = append(times, tapAll(b, r, card, slots)...)
					used += processorTime(b) - before
				}
				slices.Sort(times)
				for _, p := range []int{50, 95, 99} {
					b.ReportMetric(float64(times[len(times)*p/100]), fmt.Sprintf("p%d-ns", p))
				}
				host := used / time.Duration(len(times))
				share := 100 * float64(host) / float64(host+cost.Total())
				if share >= 2 {
					b.Errorf("the terminal's share of a tap is %.2f %%: %v of %v", share, host, host+cost.Total())
				}
				b.ReportMetric(share, "host-%")
				b.ReportMetric(cost.Link.Seconds()*1000, "link-ms")
				b.ReportMetric(cost.Card.Seconds()*1000, "card-ms")
				commands, bytes := k.smallest(b)
				b.ReportMetric(float64(cost.Commands), "commands/tap")
				b.ReportMetric(float64(commands), "commands-least")
				b.ReportMetric(float64(cost.Bytes), "bytes/tap")
				b.ReportMetric(float64(bytes), "bytes-least")
			})
		}
	}
}

// tapAll makes benchTaps taps at so many slots at once and returns their times.
func tapAll(b *testing.B, r *reader.Reader, card replay, slots int) []time.Duration {
	times := make([]time.Duration, benchTaps)
	var wait sync.WaitGroup
	for slot := range slots {
		wait.Go(func() {
			for i := slot; i < benchTaps; i += slots {
				began := time.Now()
				tap, err := r.Read(context.Background(), card)
				times[i] = time.Since(began)
				if err != nil || tap.ID != kindID {
					b.Errorf("tap %+v, %v", tap, err)
					return
				}
			}
		})
	}
	wait.Wait()
	return times
}
