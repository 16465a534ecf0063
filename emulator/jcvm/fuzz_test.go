package jcvm_test

import (
	"testing"

	"github.com/freearea/freearea/emulator"
)

// FuzzCommands gives applets commands of any form, each after a byte that says
// how long it is, on a card with T=1 or T=0. The card always answers, and works
// after a reset.
func FuzzCommands(f *testing.F) {
	for _, seed := range []string{
		"\x04\x80\x20\x00\x00", "\x05\x80\x20\x00\x00\x07\x05\x00\xC0\x00\x00\x04",
		"\x0D\x80\x50\x00\x00\x08\x00\x01\x02\x03\x04\x05\x06\x07\x07\x84\x01\x00\x00\x02\xAA\xBB",
		"\x15\x80\x04\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0F\x80\x06\x00\x00\x0A\x02\x00\x00\x01\x01\x00\x00\x05\x05\x05",
		"\x05\x00\x70\x00\x00\x01\x0C\x01\xA4\x04\x00\x07\xF0\x00\x00\x00\x01\x1A\x01\x04\x81\x01\x00\x00",
		"\x07\x80\x0C\x00\x02\x02\x01\x02\x04\x80\x03\x00\x08\x04\x80\x07\x00\x08", "\x07\x80\x08\x11\x02\x02\x31\x32\x06\x80\x07\x00\x02\x01\x00",
	} {
		for applet := range byte(3) {
			f.Add(applet, true, []byte(seed))
			f.Add(applet, false, []byte(seed))
		}
	}
	names := []string{"late", "secure", "shared"}
	f.Fuzz(func(t *testing.T, applet byte, t0 bool, b []byte) {
		cfg := config(t)
		if t0 {
			cfg.Profile.ATR = []byte{0x3B, 0x02, 0x14, 0x50}
		}
		card, err := emulator.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		file := load(t, card, names[int(applet)%len(names)])
		installAs(t, card, file, file.Applets[0], file.Applets[0], nil)
		selectApplet(t, card, file.Applets[0])
		for range 8 {
			if len(b) < 1 || len(b) < 1+int(b[0]) {
				break
			}
			var command []byte
			command, b = b[1:1+b[0]], b[1+b[0]:]
			r, err := card.Transmit(t.Context(), command)
			if err != nil || len(r) < 2 {
				t.Fatalf("%X: %X, %v", command, r, err)
			}
		}
		if err := card.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		manage(t, card)
	})
}
