package jcvm_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestAgainstHostVM runs the same Java code as a Java virtual machine for
// desktops did (testdata/oracle), whose results testdata/ops.golden holds.
func TestAgainstHostVM(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "ops")
	b, err := os.ReadFile("testdata/ops.golden")
	if err != nil {
		t.Fatal(err)
	}
	var as, bs []string
	cases := 0
	for line := range strings.Lines(string(b)) {
		p := strings.Fields(line)
		switch p[0] {
		case "#":
			continue
		case "a":
			as = p[1:]
			continue
		case "b":
			bs = p[1:]
			continue
		}
		op, err := strconv.Atoi(p[0])
		if err != nil || len(p) != 1+len(as)*len(bs) {
			t.Fatalf("line %.20q: %d fields, %v", line, len(p), err)
		}
		for i, want := range p[1:] {
			x, y := as[i/len(bs)], bs[i%len(bs)]
			want = fmt.Sprintf("%08s9000", want)
			if got := exchange(t, card, fmt.Sprintf("8001%02X0008%s%s", op, x, y)); got != want {
				t.Errorf("case %d of %s and %s: %s, want %s", op, x, y, got, want)
			}
			cases++
		}
	}
	if cases != 75*26*11 {
		t.Errorf("%d cases", cases)
	}
}
