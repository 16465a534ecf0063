package ledger_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
)

// build appends n events to a new ledger, many at a time.
func build(b testing.TB, path string, n int) *ledger.Ledger {
	l := ledgertest.MustOpen(b, path, clerk.Operator, ledger.Options{Create: true})
	left := n - 1
	for part := 0; left > 0; part++ {
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

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		build(b, filepath.Join(b.TempDir(), "l"), 10000)
	}
}
func BenchmarkVerify(b *testing.B) {
	l := build(b, filepath.Join(b.TempDir(), "l"), 10000)
	for b.Loop() {
		if err := l.Check(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
func BenchmarkAppendOne(b *testing.B) {
	l := build(b, filepath.Join(b.TempDir(), "l"), 10000)
	add := 0
	for b.Loop() {
		add++
		if _, err := l.Append(b.Context(), ledger.Event{Actor: clerk, Data: ledger.StepIntended{Run: "run-0", Step: 1, Name: "load"}}); err != nil {
			b.Fatal(err)
		}
	}
}
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "l")
	build(b, path, 10000).Close()
	for b.Loop() {
		l, err := ledger.Open(b.Context(), path, ledger.Options{})
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}
