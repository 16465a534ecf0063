package reader_test

import (
	"context"
	"testing"

	"github.com/freearea/freearea/reader"
)

// BenchmarkTap reads each kind of card in process and reports what a tap costs
// on the way to the card: command APDUs, and bytes in both directions. (The
// time is that of terminal and emulated card together.)
func BenchmarkTap(b *testing.B) {
	for _, c := range []struct {
		name    string
		issue   issue
		service reader.Service
		pin     string
	}{
		{"common-ap", points(record("points", "K-1042")), pointsService(), ""},
		{"type-a", library(record("library", "0000123"), ""), libraryService(), ""},
		{"type-a-pin", library(record("library", "0000123"), "2580"), libraryService(), "2580"},
		{"type-d", office(record("office", "E-7")), officeService(), ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			card := newCard(b, c.issue)
			o := reader.Options{Services: []reader.Service{c.service}, Keys: terminal(1), Clock: clock, PINAtHand: true}
			if c.pin != "" {
				asked := 0
				o.PIN = always(c.pin, &asked)
			}
			r := newReader(b, o)
			var tap *reader.Tap
			for b.Loop() {
				var err error
				if tap, err = r.Read(context.Background(), card); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(tap.Commands), "commands/tap")
			b.ReportMetric(float64(tap.Bytes), "bytes/tap")
		})
	}
}
