package ledger_test

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
)

// BenchmarkLedger measures ledgers of 10³, 10⁵ and 10⁶ events (with -short
// without the last). Opening, appending and proving may grow with the
// logarithm only. Verifying is compared with the bare signature checks that it
// needs, made in the same run with all processors: x-bare is how many times as
// long it takes.
func BenchmarkLedger(b *testing.B) {
	for _, n := range []int{1e3, 1e5, 1e6} {
		if n > 1e5 && testing.Short() {
			continue
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "ledger.db")
			began := time.Now()
			l := build(b, path, n)
			built := time.Since(began)
			b.Run("build", func(b *testing.B) {
				b.ReportMetric(float64(built.Nanoseconds())/float64(n), "ns/event")
			})
			b.Run("open", func(b *testing.B) {
				for b.Loop() {
					l, err := ledger.Open(b.Context(), path, ledgertest.Options(clerk.Operator, ledger.Options{}))
					if err != nil {
						b.Fatal(err)
					}
					if err := l.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("prove", func(b *testing.B) {
				var p *ledger.Proof
				for b.Loop() {
					var err error
					if p, err = l.Prove(b.Context(), int64(n)/3, false); err != nil {
						b.Fatal(err)
					}
				}
				encoded, err := p.Encode()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(p.Events[0].Hashes)), "hashes/proof")
				b.ReportMetric(float64(len(encoded)), "B/proof")
			})
			b.Run("verify", func(b *testing.B) {
				var bare, whole time.Duration
				for b.Loop() {
					began := time.Now()
					checkSignatures(n)
					bare += time.Since(began)
					began = time.Now()
					if err := l.Check(b.Context()); err != nil {
						b.Fatal(err)
					}
					whole += time.Since(began)
				}
				b.ReportMetric(whole.Seconds()/bare.Seconds(), "x-bare")
				b.ReportMetric(float64(whole.Nanoseconds())/float64(b.N)/float64(n), "ns/event")
			})
			b.Run("append", func(b *testing.B) {
				for b.Loop() {
					if _, err := appendAll(b.Context(), l, ledger.StepIntended{Run: "run-0", Step: 1, Name: "load"}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// build appends n events to a new ledger, many at a time.
func build(b *testing.B, path string, n int) *ledger.Ledger {
	b.Helper()
	l := ledgertest.MustOpen(b, path, clerk.Operator, ledger.Options{Create: true})
	for left, part := n-1, 0; left > 0; part++ {
		run := fmt.Sprint("run-", part)
		events := []ledger.Event{{Actor: clerk, Data: runOf(run, "library", cardA, aidLib)}}
		for step := 1; len(events) < min(left, 1000); step++ {
			events = append(events, ledger.Event{Actor: clerk, Data: ledger.StepIntended{Run: run, Step: step, Name: "load"}})
		}
		if _, err := l.Append(b.Context(), events...); err != nil {
			b.Fatal(err)
		}
		left -= len(events)
	}
	return l
}

// checkSignatures verifies n signatures over messages of an event's size with
// all processors.
func checkSignatures(n int) {
	k := ledgertest.Operator(clerk.Operator)
	message := make([]byte, 300)
	signature, err := k.Sign(message)
	if err != nil {
		panic(err)
	}
	public := k.Public()
	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range (n + w) / workers {
				if !ed25519.Verify(public, message, signature) {
					panic("signature does not verify")
				}
			}
		})
	}
	wg.Wait()
}
