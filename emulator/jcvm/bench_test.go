package jcvm_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"testing"
	"time"
)

// rounds of 100 of the loops of bench.BenchApplet.
const rounds = 50

// perRound is the number of bytecodes in one of the 100 turns of each loop,
// counted in the load file.
var loops = []struct {
	name     string
	ins      int
	perRound int
	native   func(n int) int16
}{
	{"arithmetic", 1, 15, goArithmetic},
	{"arrays", 2, 22, goArrays},
	{"calls", 3, 13, goCalls},
	{"virtual", 4, 13, goCalls},
}

//go:noinline
func goArithmetic(n int) int16 {
	x, y := int16(1), int16(7)
	for range n {
		for range 100 {
			x = x*31 + y
			y ^= x
		}
	}
	return x + y
}

var array [256]int8

func goArrays(n int) int16 { return overArray(array[:], n) }

//go:noinline
func overArray(a []int8, n int) int16 {
	x := int16(0)
	for range n {
		for j := range 100 {
			a[j] = a[j+1] + int8(j)
			x += int16(a[j])
		}
	}
	return x
}

//go:noinline
func leaf(a, b int16) int16 { return a + b }

//go:noinline
func goCalls(n int) int16 {
	x := int16(0)
	for range n {
		for j := range 100 {
			x = leaf(x, int16(j))
		}
	}
	return x
}

// BenchmarkBytecode reports the bytecodes that are executed in a second, and
// how many times longer that takes than a bare Go loop of the same shape.
func BenchmarkBytecode(b *testing.B) {
	card := withApplet(b, "bench")
	for _, l := range loops {
		b.Run(l.name, func(b *testing.B) {
			b.ReportAllocs()
			command := fmt.Sprintf("80%02X%04X", l.ins, rounds)
			// They are measured in turns, and the fastest of each compared: what else
			// the machine does makes a turn slower, never faster.
			executed, bare := time.Hour, time.Hour
			for b.Loop() {
				start := time.Now()
				exchange(b, card, command)
				executed = min(executed, time.Since(start))
				start = time.Now()
				l.native(rounds)
				bare = min(bare, time.Since(start))
			}
			b.ReportMetric(rounds*100*float64(l.perRound)/executed.Seconds()/1e6, "Mbytecodes/s")
			b.ReportMetric(executed.Seconds()/bare.Seconds(), "x-go")
		})
	}
}

// TestAllocations: a command takes a few allocations, and no more of them for
// more bytecodes.
func TestAllocations(t *testing.T) {
	card := withApplet(t, "bench")
	for _, l := range loops {
		for _, rounds := range []int{1, 100} {
			command, err := hex.DecodeString(fmt.Sprintf("80%02X%04X", l.ins, rounds))
			if err != nil {
				t.Fatal(err)
			}
			n := testing.AllocsPerRun(20, func() {
				if _, err := card.Transmit(context.Background(), command); err != nil {
					t.Fatal(err)
				}
			})
			if t.Logf("%s: %v allocations in %d rounds", l.name, n, rounds); n > 8 {
				t.Errorf("%s: %v allocations in %d rounds, 8 allowed", l.name, n, rounds)
			}
		}
	}
}
