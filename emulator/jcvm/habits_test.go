package jcvm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform"
)

// TestHabits runs what public applets were seen to do: none of it is in the
// specification's main line, and their clients fail without it.
func TestHabits(t *testing.T) {
	t.Parallel()
	card := newCard(t)
	f := load(t, card, "habits")
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	aid := fmt.Sprintf("00A40400 %02X %X 00", f.Applets[0].Len(), f.Applets[0].Bytes())
	script{
		// It is selected, though it answered SELECT as an unknown command.
		{aid, "6D00"},
		{"80040000 01", "01 9000"},
		{"80040000 01", "02 9000"},
		{aid, "6D00"},
		{"80040000 01", "01 9000"},
		// Its own way to answer in parts.
		{"80010000 00", "0102 6103"},
		{"80C00000 03", "030405 9000"},
		// It knows extended length, so it may answer at length to a short
		// command; the card keeps the rest.
		{"80030000 00", strings.Repeat("07", 256) + "612C"},
		{"00C00000 2C", strings.Repeat("07", 44) + "9000"},
		// What it sent before an exception stays sent.
		{"80050000 00", "8005 6A80"},
		{fmt.Sprintf("80020000 0001F4 %X 0000", make([]byte, 500)), "01F4 9000"},
	}.run(t, card)
}

// TestSelectionOnChannel opens a logical channel for an applet that answers
// SELECT with an error.
func TestSelectionOnChannel(t *testing.T) {
	t.Parallel()
	card := newCard(t)
	f := load(t, card, "habits")
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	script{
		{"00700000 01", "01 9000"},
		{fmt.Sprintf("01A40400 %02X %X", f.Applets[0].Len(), f.Applets[0].Bytes()), "6D00"},
		{"81040000 01", "01 9000"},
	}.run(t, card)
}

// TestShortBuffer receives a long command in parts.
func TestShortBuffer(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Linker = jcvm.Linker{Quirks: jcvm.Quirks{ShortBuffer: true}}
	card, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := readCAP(t, "habits")
	if _, err := globalplatform.Load(context.Background(), manage(t, card), f, globalplatform.LoadOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	script{
		{fmt.Sprintf("00A40400 %02X %X 00", f.Applets[0].Len(), f.Applets[0].Bytes()), "6D00"},
		{fmt.Sprintf("80020000 0001F4 %X 0000", make([]byte, 500)), "00FE 9000"}, // 261 - 7
		{fmt.Sprintf("80020000 FF %X 00", make([]byte, 255)), "00FF 9000"},
	}.run(t, card)
}

// TestECDSAWithoutHash signs what the application hashed, of any length.
func TestECDSAWithoutHash(t *testing.T) {
	t.Parallel()
	c := newAsymCard(t)
	c.curve(0, 1, ofGo(elliptic.P256()))
	c.do(9, 0, 1)
	c.do(0x0A, 0, 0)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), c.do(4, 0, 0x36))
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range hashes {
		digest := sum(h, []byte("a message"))
		c.do(0x10, 0, 0, 0, 5, 0)
		c.do(0x11, 1, 1)
		signature := c.do(0x15, 0, 0, digest...)
		if !ecdsa.VerifyASN1(public, digest, signature) {
			t.Errorf("%s: Go refuses %X", name, signature)
		}
		c.fails("6605", 0x13, 0, 0, digest...) // there is no hash to compute
		c.do(0x11, 0, 2)
		if c.do(0x16, 0, 0, append(append([]byte{0, byte(len(signature))}, signature...), digest...)...)[0] != 1 {
			t.Errorf("%s: the card refuses its own signature", name)
		}
	}
	c.fails("6603", 0x10, 0, 0, 0, 3, 7)
}
