package batch_test

import (
	"fmt"
	"testing"

	"github.com/freearea/freearea/batch"
)

// BenchmarkList reads and checks lists of different lengths. A row of a long
// one costs what it costs in a short one: x-short is how many times as long it
// takes, in the same run.
func BenchmarkList(b *testing.B) {
	short := 0.0
	for _, rows := range []int{500, 4000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			o := newOffice(b, 1)
			text := []byte(o.list(rows))
			for b.Loop() {
				list, err := batch.Parse("x.csv", text, points, "")
				check(b, err)
				_, err = batch.New(b.Context(), list, o.options(points, o.book))
				check(b, err)
			}
			row := float64(b.Elapsed()) / float64(b.N) / float64(rows)
			if short == 0 {
				short = row
			}
			b.ReportMetric(row, "ns/row")
			b.ReportMetric(row/short, "x-short")
		})
	}
}
