package jcvm_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/iso7816"
)

const late = "00A4040007 F0000000011801"

// TestLatePINs: PINs whose limits change, and one whose tries are counted
// before the comparison (OwnerPINx, OwnerPINxWithPredecrement).
func TestLatePINs(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	script{ // result, limit, tries, validated
		{"80010000 04 01020304", "00 03 03 00 9000"},
		{"80010001 04 01020305", "00 03 02 00 9000"},
		{"80010001 04 01020304", "01 03 03 01 9000"},
		{"80010005", "00 03 03 00 9000"},
		{"80010002 01 05", "00 05 05 00 9000"},
		{"80010003 01 01", "00 05 01 00 9000"},
		{"80010001 04 01020305", "00 05 00 00 9000"},
		{"80010001 04 01020304", "00 05 00 00 9000"}, // blocked
		{"80010003 01 06", "6A11"},
		{"80010003 01 FF", "6A11"},
		{"80010002 01 00", "6A11"},
		{"80010003 01 02", "00 05 02 00 9000"},
		{"80010001 04 01020304", "01 05 05 01 9000"},
		{"80010008", "00 05 05 00 9000"}, // a transaction takes an administrative change back
		{"80010000 09 010203040506070809", "6A11"},
		{"80010006", "01 05 05 00 9000"},
		{"80010007", "6A11"},

		{"80010100 04 01020304", "00 02 02 00 9000"},
		{"80010101 04 01020304", "6A12"}, // not counted before
		{"80010104", "01 02 01 00 9000"},
		{"80010101 04 01020304", "01 02 02 01 9000"},
		{"80010101 04 01020304", "6A12"}, // once for each
		{"80010104", "01 02 01 00 9000"},
		{"80010101 04 01020305", "00 02 01 00 9000"},
		{"80010104", "00 02 00 00 9000"},
		{"80010101 04 01020304", "01 02 02 01 9000"}, // the last try counts too
		{"80010104", "01 02 01 00 9000"},
		{"80010104", "00 02 00 00 9000"},
		{"80010104", "00 02 00 00 9000"},
		{"80010101 04 01020304", "00 02 00 00 9000"}, // blocked
		{"80010103 01 01", "00 02 01 00 9000"},
		{"80010104", "00 02 00 00 9000"},
		{late, "9000"},
	}.run(t, card)
	if err := card.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	script{{late, "9000"}, {"80010101 04 01020304", "6A12"}, {"80010109", "00 02 00 00 9000"}}.run(t, card)
}

// TestLateArrays: integrity-sensitive and global arrays.
func TestLateArrays(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	used := card.Memory().PersistentUsed
	for range 100 { // they end with the command, or there would be no room
		script{{"80030000", "0A 05 01 01 9000"}}.run(t, card)
	}
	if got := card.Memory().PersistentUsed; got != used {
		t.Errorf("global arrays left %d bytes", got-used)
	}
	script{
		{"80030005", "6A21"},
		{"80030006", "6A22"}, // more than there is
		{"80030007", "6AF1"}, // can't be kept
		{"80030008", "6AF1"},
		{"80020001", "01 01 00 02 01 07 9000"},
		{"80020002", "6A21"},
		{"80020003", "6A21"},
		{"80020004", "6AF2"},
		{"80020005", "6A21"},
	}.run(t, card)
	if err := card.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	script{{late, "9000"}, {"80020000", "01 01 00 02 01 07 9000"}, {"80020006", "01 01 00 02 01 00 03 9000"}}.run(t, card)
}

// TestCounterModes: CTR of SP 800-38A F.5.1, GCM of the test cases 2, 4 and 6
// of its authors' specification, CCM of RFC 3610's packet vectors 1 and 4; in
// pieces of all sizes, and back.
func TestCounterModes(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	key := func(k string) { script{{"80040000 10" + k, "9000"}}.run(t, card) }
	key("2B7E151628AED2A6ABF7158809CF4F3C")
	iv := "F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF"
	plain := "6BC1BEE22E409F96E93D7E117393172AAE2D8A571E03AC9C9EB76FAC45AF8E51"
	crypted := "874D6191B620E3261BEF6864990DB6CE9806F66B7970FDFF8617187BB9FFFDFF"
	for first := range 33 {
		script{
			{fmt.Sprintf("800500%02X 30%s%s", first, iv, plain), crypted + "9000"},
			{fmt.Sprintf("800501%02X 30%s%s", first, iv, crypted), plain + "9000"},
		}.run(t, card)
	}
	for _, x := range []struct {
		name, key, nonce, aad, plain, crypted, tag string
		ccm                                        bool
	}{
		{"GCM 2", strings.Repeat("00", 16), strings.Repeat("00", 12), "", strings.Repeat("00", 16), "0388DACE60B6A392F328C2B971B2FE78", "AB6E47D42CEC13BDF53A67B21257BDDF", false},
		{
			"GCM 4", "FEFFE9928665731C6D6A8F9467308308", "CAFEBABEFACEDBADDECAF888", "FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2",
			"D9313225F88406E5A55909C5AFF5269A86A7A9531534F7DA2E4C303D8A318A721C3C0C95956809532FCF0E2449A6B525B16AEDF5AA0DE657BA637B39",
			"42831EC2217774244B7221B784D0D49CE3AA212F2C02A4E035C17E2329ACA12E21D514B25466931C7D8F6A5AAC84AA051BA30B396A0AAC973D58E091",
			"5BC94FBC3221A5DB94FAE95AE7121A47", false,
		},
		{
			"CCM 1", "C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF", "00000003020100A0A1A2A3A4A5", "0001020304050607",
			"08090A0B0C0D0E0F101112131415161718191A1B1C1D1E", "588C979A61C663D2F066D0C2C0F989806D5F6B61DAC384", "17E8D12CFDF926E0", true,
		},
		{
			"CCM 4", "C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF", "00000006050403A0A1A2A3A4A5", "000102030405060708090A0B",
			"0C0D0E0F101112131415161718191A1B1C1D1E", "A28C6865939A9A79FAAA5C4C2A9D4A91CDAC8C", "96C861B9C9E61EF1", true,
		},
	} {
		key(x.key)
		size := 0
		if x.ccm {
			size = len(x.tag) / 2
		}
		n := len(x.plain) / 2
		for first := 0; first <= n; first += 5 {
			command := func(mode int, text string) string {
				body := fmt.Sprintf("%02X%02X%02X%02X%02X", mode, size, first, len(x.nonce)/2, len(x.aad)/2) + x.nonce + x.aad + text
				return fmt.Sprintf("80060000 %02X", len(body)/2) + body
			}
			wrong := x.tag[:len(x.tag)-1] + map[bool]string{true: "0", false: "1"}[x.tag[len(x.tag)-1] != '0']
			script{
				{command(2, x.plain), x.crypted + x.tag + "9000"},
				{command(1, x.tag+x.crypted), x.plain + "01 9000"},
				{command(1, wrong+x.crypted), x.plain + "00 9000"},
			}.run(t, card)
		}
	}
}

// TestOneShot: SHA-256 of "abc" (FIPS 180-4's example), AES (FIPS 197, C.1),
// CMAC (RFC 4493, example 2), and a digest that goes on after a block of zero
// bytes, whose chaining value and end an implementation in Python of its own
// gave.
func TestOneShot(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	const (
		abc      = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
		midstate = "DA5698BE17B9B46962335799779FBECA8CE5D491C0D26243BAFEF9EA1837A9D8"
		whole    = "DA6D13E08CD1E0A0FA5220C1DE798889B57407B56589E8768424CBBCF3A47EBC"
	)
	script{
		{"80070000 03 616263", abc + "9000"},
		{"80070000 03 616263", abc + "9000"},
		{"80040000 10 000102030405060708090A0B0C0D0E0F", "9000"},
		{"80070001 10 00112233445566778899AABBCCDDEEFF", "69C4E0D86A7B0430D8CDB78070B4C55A 9000"},
		{"80040000 10 2B7E151628AED2A6ABF7158809CF4F3C", "9000"},
		{"80070002 10 6BC1BEE22E409F96E93D7E117393172A", "070A16B46B4D4144F79BDD9DD04A287C 9000"},
		{"80070003", "9000"},
		{"80070004", "6A35"}, // no update
		{"80070005", "6AF1"}, // can't be kept
		{"80070006", "6A33"},
		{"80070007", "9000"}, // closed ones come back
		{"80070008", "6A25"}, // there is an end to them
		{"80070007", "9000"}, // but not beyond the command
		{"80070009", "6A33"},
		{"80080000 25" + midstate + "0040 616263", whole + "9000"},
		{"8007000A 25" + midstate + "0040 616263", whole + "9000"},
		{"80080000 25" + midstate + "0041 616263", "6A31"}, // not a whole block
		{"80080000 25" + midstate + "0000 616263", "6A31"},
	}.run(t, card)
}

// TestSharedDomain: a key over the curve of another one. The parameters are
// those of P-256 (FIPS 186-4, D.1.2.3).
func TestSharedDomain(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	n := "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551"
	script{
		{"80090005", "6A32"}, // none yet
		{"80090000 20 FFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF", "9000"},
		{"80090001 20 FFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFC", "9000"},
		{"80090002 20 5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B", "9000"},
		{"80090003 41 046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C2964FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5", "9000"},
		{"80090004 20" + n, "9000"},
		{"80090005", "1E" + n + "9000"},
		{"80090006", "6A33"},
		{"80090007", "6A31"},
	}.run(t, card)
}

// TestClassBytes (ISO/IEC 7816-4, 5.1.1).
func TestClassBytes(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	for class, want := range map[string]string{
		"00": "000C", "03": "030C", "04": "000D", "0C": "000D", "10": "000E", "40": "040C", "4F": "130C", "60": "040D", "50": "040E",
		"80": "0008", "84": "0009", "C1": "0508", "E1": "0509", "FF": "", "20": "",
	} {
		got := exchange(t, card, "800A00"+class)
		if want == "" { // not valid, whatever else they say
			if b, _ := hex.DecodeString(got); len(b) != 4 || b[1]&8 != 0 {
				t.Errorf("class %s: %s", class, got)
			}
		} else if got != want+"9000" {
			t.Errorf("class %s: %s, want %s", class, got, want)
		}
	}
}

// TestSensitiveResult holds what was returned last against what the applet
// says it was.
func TestSensitiveResult(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	for n, want := range []string{"9000", "6AF1", "9000", "6AF1", "6AF1", "6AF1", "6AF1", "9000", "6AF1"} {
		if got := exchange(t, card, fmt.Sprintf("800B%04X", n)); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestAbsent: what is not there says so.
func TestAbsent(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "late")
	script{{"80040000 10 2B7E151628AED2A6ABF7158809CF4F3C", "9000"}}.run(t, card)
	for n := range 16 {
		if got := exchange(t, card, fmt.Sprintf("800C%04X", n)); got != "6A33" { // NO_SUCH_ALGORITHM
			t.Errorf("%d: %s", n, got)
		}
	}
	script{
		{"800C0010", "6A31"},
		{"800C0011", "6A34"}, // INVALID_INIT
		{"800C0012", "6A34"},
		{"800C0013", "6A31"}, // ILLEGAL_VALUE
		{"800C0014", "6A35"}, // ILLEGAL_USE
		{"800C0015", "6A31"},
		{"800C0016", "6A31"},
		{"800C0017", "6AFF"},
	}.run(t, card)
}

// onProfile is a card with the applet, selected, as another profile and other
// quirks make it.
func onProfile(t *testing.T, quirks jcvm.Quirks, change func(*emulator.Profile)) *emulator.Card {
	t.Helper()
	cfg := config(t)
	cfg.Linker = jcvm.Linker{Quirks: quirks}
	change(&cfg.Profile)
	card, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := load(t, card, "late")
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	script{{late, "9000"}}.run(t, card)
	return card
}

// TestAPDUStates: every method of APDU out of turn, with T=1.
func TestAPDUStates(t *testing.T) {
	t.Parallel()
	card := onProfile(t, jcvm.Quirks{ShortBuffer: true}, func(*emulator.Profile) {})
	script{
		{"80200000 07", "0007 01 FE 9000"},
		{"80200000 00", "0100 01 FE 9000"},
		{"80200000", "0100 01 FE 9000"},
		{"80200001 02 AABB 05", "02 00FE 9000"},
		{"80200001", "00 00FE 9000"},
		{"80200002", "6A01"}, {"80200003", "6A01"}, {"80200004", "6A01"}, {"80200005", "6A01"}, {"80200006", "6A01"},
		{"80200007", "6A03"}, {"80200008", "6A01"}, {"80200009", "6A02"}, {"8020000A", "80 6A01"}, {"8020000B", "6A01"},
		{"8020000D", "6A01"}, {"8020000E", "6A01"}, {"8020000F", "6A01"}, {"80200010", "6A03"},
		{"8020000C 00", strings.Repeat("00", 253) + "9000"},
	}.run(t, card)
}

// TestQuirks shows both values of each.
func TestQuirks(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name                  string
		quirk                 jcvm.Quirks
		command, usual, other string
	}{
		{"NoLeIsZero", jcvm.Quirks{NoLeIsZero: true}, "80200000", "010001FE9000", "000001FE9000"},
		{"EmptyIncoming", jcvm.Quirks{EmptyIncoming: true}, "80200001", "0000FE9000", "6A01"},
		{"UnchainedBlock", jcvm.Quirks{UnchainedBlock: true}, "8020000C 00", strings.Repeat("00", 253) + "9000", "6A03"},
	} {
		for quirk, want := range map[jcvm.Quirks]string{{}: x.usual, x.quirk: x.other} {
			if got := exchange(t, onProfile(t, quirk, func(*emulator.Profile) {}), x.command); got != want {
				t.Errorf("%s %+v: %s, want %s", x.name, quirk, got, want)
			}
		}
	}
}

// TestStatics: an object in a static field, and the deletion of the instance
// that made it.
func TestStatics(t *testing.T) {
	t.Parallel()
	const instance, file = "0A 4F07 F0000000011801", "08 4F06 F00000000118"
	for hold, want := range map[bool]string{false: "009000", true: "6985"} {
		card := onProfile(t, jcvm.Quirks{StaticsHold: hold}, func(*emulator.Profile) {})
		script{{"800D0000", "01 9000"}}.run(t, card)
		remove := func(what string, related byte) string {
			b, err := hex.DecodeString(strings.ReplaceAll(what[3:], " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			r, err := manage(t, card).Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE4, P2: related, Data: b, Ne: 256})
			if err != nil {
				t.Fatal(err)
			}
			return strings.ToUpper(hex.EncodeToString(r.Encode()))
		}
		if got := remove(instance, 0); got != want {
			t.Errorf("hold %v: %s, want %s", hold, got, want)
		}
		if !hold {
			f := readCAP(t, "late")
			installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
			script{{late, "9000"}, {"800D0001", "01 9000"}}.run(t, card)
		}
		if got := remove(file, 0x80); got != "009000" { // with what refers to it
			t.Errorf("hold %v: the load file: %s", hold, got)
		}
	}
}

// TestT0: the card splits commands and responses itself (JCRE 9.4.1).
func TestT0(t *testing.T) {
	t.Parallel()
	t0 := func(p *emulator.Profile) { p.ATR = []byte{0x3B, 0x02, 0x14, 0x50}; p.ExtendedLength = false }
	zero := func(n int) string { return strings.Repeat("00", n) }
	for _, quirk := range []jcvm.Quirks{{}, {NoLeIsZero: true}} {
		card := onProfile(t, quirk, t0)
		script{
			{"80200000 04", "0004 00 01 9000"},                      // case 2
			{"80200000 00", "6C04"},                                 // longer than what there is
			{"80200000 04", "0100 00 01 9000"},                      // what was held back
			{"80200000 00", "6C04"}, {"80200000 03", "000300 6101"}, // another Le is another command
			{"80200000 09", "6C04"}, {"80200001 01", "00 6102"}, // another command takes its place
			{"80200000 04", "0004 00 01 9000"},
			{"80200001 02 AABB", "6103"}, // case 4
			{"00C00000 03", "02 0102 9000"},
			{"80200001 02 AABB 05", "6103"}, // an interface device drops Le
			{"00C00000 00", "6C03"},
			{"00C00000 02", "02 01 6101"},
			{"00C00000 01", "02 9000"},
			{"00C00000 01", "6D00"},
			{"80200011 01 64", "6164"}, {"00C00000 64", zero(100) + "9000"},
			{"80200012 40", zero(0x40) + "6124"}, // Le too short: the rest follows
			{"00C00000 24", zero(0x24) + "9000"},
			{"80200013 01 64", "9000"}, // case 3
			{"80200013", "9000"},       // case 1
			{"80200002", "6A01"},
			{"80200001 02 AA", "6700"},
			{"80200001 02 AABBCCDD", "6700"},
			{"80200000 00 0004", "6700"}, // extended length
		}.run(t, card)
	}
	// With data, no quirk says what Le is: nobody knows it.
	script{{"80200011 01 04", "6104"}, {"00C00000 04", "00000000 9000"}}.run(t, onProfile(t, jcvm.Quirks{NoLeIsZero: true, EmptyIncoming: true}, t0))
}
