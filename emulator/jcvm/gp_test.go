package jcvm_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

const (
	secureA = "F0000000011901"
	secureB = "F0000000011902"
)

// withSecure is a card with two instances of the applet that asks its platform
// for things, with privileges.
func withSecure(t *testing.T, cfg emulator.Config, a, b string) (*emulator.Card, *capfile.File) {
	t.Helper()
	card, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := load02(t, card, "secure", cfg.SecureChannel)
	for aid, privileges := range map[string]string{secureA: a, secureB: b} {
		installWith(t, card, f, aid, privileges, "", cfg.SecureChannel)
	}
	return card, f
}

// manageWith is manage with a protocol.
func manageWith(t *testing.T, card iso7816.Card, p scp.Protocol) *scp.Session {
	t.Helper()
	if _, err := globalplatform.Select(t.Context(), iso7816.Plain(card), globalplatform.IssuerSecurityDomain); err != nil {
		t.Fatal(err)
	}
	return speak(t, card, p, scp.CMAC)
}

// speak opens a secure channel with what is selected.
func speak(t *testing.T, card iso7816.Card, p scp.Protocol, level scp.Level) *scp.Session {
	t.Helper()
	o := scp.HostOptions{Level: level, Rand: rand.New(rand.NewSource(3)), AllowDeprecated: true}
	if p != (scp.Protocol{}) {
		o.Protocols = []scp.Protocol{p}
	}
	s, err := scp.Open(t.Context(), iso7816.Plain(card), testKeys(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load02(t *testing.T, card iso7816.Card, name string, p scp.Protocol) *capfile.File {
	t.Helper()
	f := readCAP(t, name)
	if _, err := globalplatform.Load(t.Context(), manageWith(t, card, p), f, globalplatform.LoadOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

func lv(parts ...string) []byte {
	var out []byte
	for _, p := range parts {
		b, _ := hex.DecodeString(p)
		out = append(append(out, byte(len(b))), b...)
	}
	return out
}

// installWith makes an instance with privileges and system parameters.
func installWith(t *testing.T, card iso7816.Card, f *capfile.File, aid, privileges, system string, p scp.Protocol) {
	t.Helper()
	parameters := "C900" + system
	data := lv(f.Package.AID.String(), f.Applets[0].String(), aid, privileges, parameters, "")
	if r, err := manageWith(t, card, p).Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE6, P1: 0x0C, Data: data, Ne: 256}); err != nil || r.SW != iso7816.OK {
		t.Fatalf("install of %s: %v, %v", aid, r.SW, err)
	}
}

func choose(t *testing.T, card iso7816.Card, aid string) {
	t.Helper()
	selectApplet(t, card, iso7816.MustAID(aid))
}

// ask sends a command through a session and returns data and status word.
func ask(t *testing.T, s iso7816.Sender, ins, p1, p2 byte, data string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(data, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: ins, P1: p1, P2: p2, Data: b, Ne: 256})
	if err != nil {
		t.Fatalf("%02X: %v", ins, err)
	}
	return strings.ToUpper(hex.EncodeToString(r.Encode()))
}

// TestSecureChannel: an applet speaks the protocol of its Security Domain, at
// every level, to this project's host.
func TestSecureChannel(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		protocol scp.Protocol
		levels   []scp.Level
	}{
		{scp.SCP03, []scp.Level{0x00, 0x01, 0x03, 0x11, 0x13, 0x33}},
		{scp.SCP03S16, []scp.Level{0x33}},
		{scp.SCP02, []scp.Level{0x00, 0x01, 0x03}},
		{scp.Protocol{Number: 2, I: 0x75}, []scp.Level{0x10, 0x11, 0x13}},
	} {
		for _, level := range x.levels {
			cfg := config(t)
			cfg.SecureChannel = x.protocol
			card, _ := withSecure(t, cfg, "00", "00")
			choose(t, card, secureA)
			script{{"80020000", "00 9000"}, {"84010000 02 AABB", "8402AABB 9000"}, {"80050000 10 00112233445566778899AABBCCDDEEFF", "6985"}}.run(t, card)
			s := speak(t, card, x.protocol, level)
			class := "80"
			for n := range 3 {
				data := strings.Repeat("5A", 5+n)
				if got, want := ask(t, s, 1, 0, 0, data), fmt.Sprintf("%s%02X", class, 5+n)+data+"9000"; got != want {
					t.Errorf("%v %v: %s, want %s", x.protocol, level, got, want)
				}
			}
			if got, want := ask(t, s, 2, 0, 0, ""), fmt.Sprintf("%02X9000", 0x80|byte(level)); got != want {
				t.Errorf("%v %v: level %s, want %s", x.protocol, level, got, want)
			}
			secret := []byte("sixteen bytes of")
			sealed, err := s.EncryptSensitive(secret)
			if err != nil {
				t.Fatal(err)
			}
			if got := ask(t, s, 5, 0, 0, hex.EncodeToString(sealed)); got != strings.ToUpper(hex.EncodeToString(secret))+"9000" {
				t.Errorf("%v %v: decryptData: %s", x.protocol, level, got)
			}
			if got := ask(t, s, 4, 0, 0, hex.EncodeToString(secret)); got != strings.ToUpper(hex.EncodeToString(sealed))+"9000" {
				t.Errorf("%v %v: encryptData: %s", x.protocol, level, got)
			}
			if got := ask(t, s, 4, 0, 0, "AA"); !strings.HasSuffix(got, "6700") {
				t.Errorf("%v %v: encryptData of a byte: %s", x.protocol, level, got)
			}
			if level == 0x01 {
				// A wrong MAC ends the session, until it is reset.
				script{
					{"84010000 0A 00000000000000000000", "6982"},
					{"84010000 02 AABB", "6985"},
					{"80010000 02 AABB", "6985"}, // wrap and unwrap both say so
					{"80020000", "6985"},
				}.run(t, card)
				choose(t, card, secureA)
				script{{"80020000", "00 9000"}}.run(t, card)
			}
		}
	}
}

// TestSecureChannelEnds: with resetSecurity, selection, and the logical
// channel; it is one at a time, and the selected application's.
func TestSecureChannelEnds(t *testing.T) {
	t.Parallel()
	card, _ := withSecure(t, config(t), "00", "00")
	choose(t, card, secureA)
	s := speak(t, card, scp.Protocol{}, scp.CMAC)
	script{{"80020000", "81 9000"}, {"00700000 01", "01 9000"}}.run(t, card)
	// The other channel has no session, and gets none while this one lasts.
	script{
		{"01A40400 07" + secureB, "6985"}, // not multiselectable
		{"01A40400", ""},
	}[:1].run(t, card)
	script{{"81500000 08 0001020304050607", "6985"}}.run(t, card) // the Security Domain's own
	if got := ask(t, s, 3, 0, 0, ""); got != "009000" {
		t.Errorf("after resetSecurity: %s", got)
	}
	if got := exchange(t, card, "81500000 08 0001020304050607"); !strings.HasSuffix(got, "9000") {
		t.Errorf("after the session: %s", got)
	}
	script{{"00708001", "9000"}, {"80020000", "00 9000"}}.run(t, card)
	speak(t, card, scp.Protocol{}, scp.CMAC)
	choose(t, card, secureB)
	script{{"80020000", "00 9000"}}.run(t, card)
	script{
		{"80820000 10 00000000000000000000000000000000", "6985"},
		{"80500001 08 0001020304050607", "6A86"},
		{"80507700 08 0001020304050607", "6A88"},
		{"80500000 04 00010203", "6700"},
		{"80500000 08 0001020304050607", ""},
	}[:4].run(t, card)
	// SecureChannelx2: the command out of an array.
	if got := exchange(t, card, "800B0000 0D 80500000 08 0001020304050607"); !strings.HasSuffix(got, "9000") || len(got) < 40 {
		t.Errorf("processSecurity of an array: %s", got)
	}
	script{{"800B0000 05 8051000000", "6D00 9000"}, {"800B0000 05 0050000000", "6E00 9000"}}.run(t, card)
}

// TestPersonalization: STORE DATA through the Security Domain, answered by the
// application (Personalization.processData).
func TestPersonalizationOfAnApplet(t *testing.T) {
	t.Parallel()
	card, _ := withSecure(t, config(t), "00", "00")
	s := manage(t, card)
	ctx := context.Background()
	cmd, err := globalplatform.InstallForPersonalization{Instance: iso7816.MustAID(secureA)}.Command()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := iso7816.Do(ctx, s, cmd); err != nil {
		t.Fatal(err)
	}
	secret := []byte("sixteen bytes of")
	sealed, err := s.EncryptSensitive(secret)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Send(ctx, iso7816.Command{CLA: 0x80, INS: 0xE2, P1: 0xE1, Data: sealed, Ne: 256})
	if err != nil || r.SW != iso7816.OK || !bytes.Equal(r.Data, []byte{0x81}) {
		t.Errorf("STORE DATA: %X %v, %v", r.Data, r.SW, err)
	}
	choose(t, card, secureA)
	if got := exchange(t, card, "80060000"); got != strings.ToUpper(hex.EncodeToString(secret))+"9000" {
		t.Errorf("stored: %s", got)
	}
}

// TestRegistryEntry: an application's own entry, and others' with the
// privileges for it.
func TestRegistryEntry(t *testing.T) {
	t.Parallel()
	card, _ := withSecure(t, config(t), "1C0C00", "00") // Card Lock, Terminate, Reset; Global Lock and Registry
	choose(t, card, secureB)
	script{
		{"80070000", "07 00 000000" + secureB + "9000"},
		{"80070000 07" + secureA, "EE 9000"}, // what others are is not its business
		{"80070001", "01 17 9000"},
		{"80070004", "0F 17 9000"},
		{"80070005", "00 0F 9000"}, // no Card Lock
		{"80070006", "00 9000"},
		{"80070007", "00 01 9000"}, // not its own Security Domain; always the same object
		{"80070003", "00 17 9000"}, // 00 is no state of an application
	}.run(t, card)
	choose(t, card, secureA)
	script{
		{"80070000", "07 01 1C0C00" + secureA + "9000"},
		{"80070000 07" + secureB, "17 00 000000" + secureB + "9000"},
		{"80070001 07" + secureB, "00 17 9000"}, // another's state
		{"80070002 07" + secureB, "01 97 9000"}, // its lock
		{"80070003 07" + secureB, "01 17 9000"},
		{"80070006", "01 9000"},
	}.run(t, card)
	choose(t, card, secureB)
	script{
		{"80070002", "01 97 9000"}, // it locks itself
		{"80070003", "00 97 9000"}, // and doesn't unlock itself
		{"00A40400 07" + secureB, "6A82"},
	}.run(t, card)
	choose(t, card, secureA)
	script{{"80070005", "01 7F 9000"}, {"80070005", "00 7F 9000"}}.run(t, card)
	used := card.Memory().PersistentUsed
	if err := card.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if atr := card.ATR(); !bytes.Contains(atr, []byte{0x80, 0x07, 0x00}) {
		t.Errorf("ATR %X has not the historical bytes that were set", atr)
	}
	if got := card.Memory().PersistentUsed; got != used {
		t.Errorf("%d bytes in use, %d before the reset", got, used)
	}
}

// TestGlobalPIN is the card's shared CVM.
func TestGlobalPIN(t *testing.T) {
	t.Parallel()
	card, _ := withSecure(t, config(t), "02", "00") // CVM Management
	choose(t, card, secureA)
	script{ // done, active, submitted, verified, blocked, tries
		{"80081101", "01 00 00 00 00 03 9000"},
		{"80081100 04 31323334", "01 01 00 00 00 03 9000"},
		{"80081102 04 31323335", "00 01 01 00 00 02 9000"},
		{"80081102 04 31323334", "01 01 01 01 00 03 9000"},
		{"80081106", "01 01 01 01 00 03 9000"}, // an array that isn't global
		{"80081103", "01 01 00 00 00 03 9000"},
		{"80081202", "EE 9000"},
	}.run(t, card)
	choose(t, card, secureB)
	script{
		{"80081102 04 31323334", "01 01 01 01 00 03 9000"},
		{"80081100 04 31323334", "00 01 01 01 00 03 9000"}, // no CVM Management
		{"80081104", "00 01 01 01 00 03 9000"},
		{"80081102 04 39393939", "00 01 01 00 00 02 9000"},
		{"80081102 04 39393939", "00 01 01 00 00 01 9000"},
		{"80081102 04 39393939", "00 01 00 00 01 00 9000"},
		{"80081102 04 31323334", "00 01 00 00 01 00 9000"},
		{"80081105", "00 01 00 00 01 00 9000"},
	}.run(t, card)
	choose(t, card, secureA)
	script{{"80081105", "01 01 00 00 00 03 9000"}, {"80081104", "01 01 00 00 01 03 9000"}}[:1].run(t, card)
}

// TestGlobalService: one application serves another.
func TestGlobalService(t *testing.T) {
	t.Parallel()
	card, _ := withSecure(t, config(t), "000100", "00")
	choose(t, card, secureB)
	script{
		{"80090002 02 A001", "00 9000"}, // nobody
		{"80090000 02 A001", "6985"},    // no Global Service
	}.run(t, card)
	choose(t, card, secureA)
	script{{"80090000 02 A001", "9000"}, {"80090000 02 8212", "9000"}}.run(t, card)
	if err := card.Reset(t.Context()); err != nil { // the server is not opened now
		t.Fatal(err)
	}
	choose(t, card, secureB)
	script{
		{"80090002 02 A001", "02 9000"},
		{"80090003 09 A001" + secureA, "02 9000"},
		{"80090003 09 A001" + secureB, "00 9000"},
		{"80090002 02 A002", "00 9000"},
		{"80090002 02 8211", "02 9000"}, // the global PIN
		{"80081202", "01 01 01 01 00 09 9000"},
	}.run(t, card)
	choose(t, card, secureA)
	script{
		{"800A0000", "07" + secureB + "9000"}, // who asked
		{"80090001 02 A001", "9000"},
	}.run(t, card)
	choose(t, card, secureB)
	script{{"80090002 02 A001", "00 9000"}}.run(t, card)
}

// TestMultiSelectable: an applet on several logical channels (JCRE 4.2, 4.6).
func TestMultiSelectable(t *testing.T) {
	t.Parallel()
	const a, b = "F0000000011A01", "F0000000011A02"
	card := newCard(t)
	f := load(t, card, "shared")
	for _, aid := range []string{a, b} {
		installAs(t, card, f, f.Applets[0], iso7816.MustAID(aid), nil)
	}
	script{
		{"00700000 01", "01 9000"}, {"00700000 01", "02 9000"},
		{"00A40400 07" + a, "9000"},
		{"80010000", "1000 9000"}, // select, on channel 0
		{"00A40400 07" + a, "9000"},
		{"80010000", "2000 1000 5000 9000"}, // deselect, select, selected again
		{"80025500", "9000"},
		{"01A40400 07" + a, "9000"},
		{"81010000", "3101 9000"},                     // select(true)
		{"81030000 07" + b, "55 01 01 01 00 81 9000"}, // one memory for the package
		{"02A40400 07" + b, "9000"},                   //
		{"82010000", "3002 9000"},                     // select(false)
		{"82030000 07" + a, "00 02 02 01 01 82 9000"}, // memory of its own
		{"02A40400 08 A000000151000000", ""},          //
	}[:13].run(t, card)
	choose2 := exchange(t, card, "02A40400 08 A000000151000000")
	if !strings.HasSuffix(choose2, "9000") {
		t.Fatal(choose2)
	}
	script{
		{"02A40400 07" + b, "9000"},
		{"82010000", "4002 3002 9000"}, // deselect(false): the package goes on elsewhere
		{"00708001", "9000"},
		{"80030000 07" + b, "55 00 00 01 01 80 9000"}, // still there
		{"80010000", "4101 9000"},                     // deselect(true)
		{"00708002", "9000"},
		{"80030000 07" + b, "55 00 00 01 00 80 9000"},
		{"00A40400 07" + b, "9000"}, // the last of the package goes
		{"80010000", "4002 1000 9000"},
		{"00A40400 07" + a, "9000"},
		{"80030000 07" + b, "00 00 00 01 00 80 9000"}, // cleared
		{"80010000", "2000 1000 9000"},
	}.run(t, card)
	// One that isn't multiselectable is refused on a second channel, and so is
	// another of its package.
	other, _ := withSecure(t, config(t), "00", "00")
	choose(t, other, secureA)
	script{
		{"00700000 01", "01 9000"},
		{"01A40400 07" + secureA, "6985"},
		{"01A40400 07" + secureB, "6985"},
		{"00A40400 07" + secureB, "9000"},
		{"01A40400 07" + secureA, "6985"},
	}.run(t, other)
	if err := other.Reset(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	script{{"00700000 01", "01 9000"}, {"01A40400 07" + secureA, "9000"}, {"81020000", "00 9000"}}.run(t, other)
}
