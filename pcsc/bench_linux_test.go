package pcsc_test

import (
	"testing"
	"time"

	"github.com/freearea/freearea/internal/pcscd"
	"github.com/freearea/freearea/iso7816"
)

// benchmarkCards are measured against a bare echo card on the same stack. insert
// puts the card into the reader until the end of the benchmark; commands are
// sent to it in turn, after setup (which may be nil).
var benchmarkCards = []struct {
	name     string
	insert   func(b *testing.B, r *pcscd.Reader)
	setup    func(b *testing.B, card iso7816.Card)
	commands [][]byte
}{
	{
		name:     "echo",
		insert:   func(b *testing.B, r *pcscd.Reader) { (&naiveCard{atr: atrTwo}).insert(b, r) },
		commands: [][]byte{benchmarkCommand},
	},
}

// benchmarkCommand is a SELECT by a long AID.
var benchmarkCommand = []byte{
	0x00, 0xA4, 0x04, 0x00, 0x10, 0xF0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x00,
}

// BenchmarkAPDU sends commands through pcscd to a card, and to an echo card in
// the other slot of the same reader in turn. It reports both means and their
// ratio ("x-echo"), of one run on one machine.
func BenchmarkAPDU(b *testing.B) {
	for _, card := range benchmarkCards {
		b.Run(card.name, func(b *testing.B) {
			d, s := start(b, 2)
			(&naiveCard{atr: atrOne}).insert(b, d.Readers[0])
			card.insert(b, d.Readers[1])
			settle(b, s, d.Readers[0], d.Readers[1])
			echo, tried := open(b, s, d.Readers[0].Name, iso7816.Exclusive), open(b, s, d.Readers[1].Name, iso7816.Exclusive)
			if card.setup != nil {
				card.setup(b, tried)
			}
			ctx := b.Context()
			send := func(conn iso7816.Conn, command []byte) time.Duration {
				begin := time.Now()
				if _, err := conn.Transmit(ctx, command); err != nil {
					b.Fatal(err)
				}
				return time.Since(begin)
			}
			var echoTime, triedTime time.Duration
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				command := card.commands[n%len(card.commands)]
				echoTime += send(echo, command)
				triedTime += send(tried, command)
				n++
			}
			b.ReportMetric(float64(echoTime.Nanoseconds())/float64(n), "ns/echo")
			b.ReportMetric(float64(triedTime.Nanoseconds())/float64(n), "ns/APDU")
			b.ReportMetric(float64(triedTime)/float64(echoTime), "x-echo")
		})
	}
}
