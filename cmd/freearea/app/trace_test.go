package app

import (
	"testing"

	"github.com/freearea/freearea/iso7816"
)

// What a trace leaves out of answers: the holder's data, and nothing that
// tells what a card is.
func TestHoldersData(t *testing.T) {
	for _, x := range []struct {
		cla, ins byte
		secret   bool
	}{
		{0x00, 0xB0, true}, {0x84, 0xB0, true}, {0x00, 0xB2, true}, {0x84, 0x20, true}, {0x00, 0xCA, true}, {0x84, 0x54, true},
		{0x80, 0xCA, false}, {0x84, 0xCA, false}, {0x00, 0xA4, false}, {0x80, 0xF2, false}, {0x80, 0x50, false},
	} {
		if got := holdersData(iso7816.Command{CLA: x.cla, INS: x.ins}); got != x.secret {
			t.Errorf("%02X %02X: %t", x.cla, x.ins, got)
		}
	}
}
