package iso7816_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freearea/freearea/iso7816"
)

// unhex reads hexadecimal digits of a test.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The encodings are those of ISO/IEC 7816-4, table 1 and 5.1, written by hand.
func TestCommandEncodings(t *testing.T) {
	data := func(n int) []byte { return bytes.Repeat([]byte{0xDA}, n) }
	hexData := func(n int) string { return strings.Repeat("DA", n) }
	for _, test := range []struct {
		name string
		c    iso7816.Command
		want string
	}{
		{"case 1", iso7816.Command{CLA: 0x80, INS: 0xF2, P1: 1, P2: 2}, "80F20102"},
		{"case 2 short", iso7816.Command{INS: 0xB0, Ne: 1}, "00B0000001"},
		{"case 2 short, 255", iso7816.Command{INS: 0xB0, Ne: 255}, "00B00000FF"},
		{"case 2 short, 256", iso7816.Command{INS: 0xB0, Ne: 256}, "00B0000000"},
		{"case 2 extended", iso7816.Command{INS: 0xB0, Ne: 257, Extended: true}, "00B00000000101"},
		{"case 2 extended, 65535", iso7816.Command{INS: 0xB0, Ne: 65535, Extended: true}, "00B0000000FFFF"},
		{"case 2 extended, 65536", iso7816.Command{INS: 0xB0, Ne: 65536, Extended: true}, "00B00000000000"},
		{"case 2 extended by choice", iso7816.Command{INS: 0xB0, Ne: 1, Extended: true}, "00B00000000001"},
		{"case 3 short", iso7816.Command{INS: 0xD6, Data: data(1)}, "00D6000001DA"},
		{"case 3 short, 255", iso7816.Command{INS: 0xD6, Data: data(255)}, "00D60000FF" + hexData(255)},
		{"case 3 extended", iso7816.Command{INS: 0xD6, Data: data(256), Extended: true}, "00D60000000100" + hexData(256)},
		{"case 3 extended by choice", iso7816.Command{INS: 0xD6, Data: data(1), Extended: true}, "00D60000000001DA"},
		{"case 3 extended, 65535", iso7816.Command{INS: 0xD6, Data: data(65535), Extended: true}, "00D6000000FFFF" + hexData(65535)},
		{"case 4 short", iso7816.Command{INS: 0xA4, P1: 4, Data: data(2), Ne: 256}, "00A4040002DADA00"},
		{"case 4 extended", iso7816.Command{INS: 0xA4, Data: data(2), Ne: 65536, Extended: true}, "00A40000000002DADA0000"},
		{"case 4 extended, long data", iso7816.Command{INS: 0xA4, Data: data(256), Ne: 1, Extended: true}, "00A40000000100" + hexData(256) + "0001"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if want := unhex(test.want); !bytes.Equal(got, want) {
				t.Errorf("encoded %.40X, want %.40X", got, want)
			}
			back, err := iso7816.ParseCommand(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.c, back); diff != "" {
				t.Errorf("parsed again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCommandChoosesTheForm(t *testing.T) {
	for _, test := range []struct {
		c        iso7816.Command
		extended bool
	}{
		{iso7816.Command{Data: make([]byte, 255), Ne: 256}, false},
		{iso7816.Command{Data: make([]byte, 256)}, true},
		{iso7816.Command{Ne: 257}, true},
	} {
		if got := test.c.NeedsExtended(); got != test.extended {
			t.Errorf("%v: needs the extended form: %v", test.c, got)
		}
		b, err := test.c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := iso7816.ParseCommand(b); err != nil || back.Extended != test.extended {
			t.Errorf("%v: parsed as %v, %v", test.c, back, err)
		}
	}
	// There is no extended form without lengths.
	if b, err := (iso7816.Command{INS: 0xA4, Extended: true}).Encode(); err != nil || len(b) != 4 {
		t.Errorf("case 1: %X, %v", b, err)
	}
}

func TestCommandWithoutEncoding(t *testing.T) {
	for _, c := range []iso7816.Command{
		{Ne: -1},
		{Ne: iso7816.MaxExtendedNe + 1},
		{Data: make([]byte, iso7816.MaxExtendedData+1)},
	} {
		if _, err := c.Encode(); !errors.Is(err, iso7816.ErrMalformedCommand) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestParseCommandRefuses(t *testing.T) {
	for _, test := range []struct{ name, b string }{
		{"nothing", ""},
		{"short header", "00A404"},
		{"Lc without data", "00A4040002"[:8] + "02DA"},
		{"data too short", "00A4040003DADA"},
		{"data too long", "00A4040001DADADA"},
		{"extended length cut short", "00A404000001"},
		{"extended Lc 0", "00A40400000000DA"},
		{"extended Lc 0, two bytes", "00A404000000000000"},
		{"extended data too short", "00A40400000002DA"},
		{"one byte of an extended Le", "00A40400000001DA00"},
		{"extended data too long", "00A40400000001DA000000"},
	} {
		if c, err := iso7816.ParseCommand(unhex(test.b)); !errors.Is(err, iso7816.ErrMalformedCommand) {
			t.Errorf("%s: %v, %v", test.name, c, err)
		}
	}
}

// Data of a command never ends up in a log.
func TestCommandString(t *testing.T) {
	c := iso7816.Command{CLA: 0x84, INS: 0x20, P2: 1, Data: []byte("4711"), Ne: 256}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c)} {
		if s != "VERIFY 84200001, 4 data bytes, Ne 256" {
			t.Error(s)
		}
	}
}

// A parsed command does not let an append run into the bytes after its data.
func TestParseCommandAliasing(t *testing.T) {
	b := unhex("00A4040001DA00")
	c, err := iso7816.ParseCommand(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(c.Data, 0xFF)
	if b[6] != 0 {
		t.Error("appending to the data overwrote Le")
	}
}

func TestCommandRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(65500, 65535)).Draw(t, "Lc")
		c := iso7816.Command{
			CLA: rapid.Byte().Draw(t, "CLA"), INS: rapid.Byte().Draw(t, "INS"),
			P1: rapid.Byte().Draw(t, "P1"), P2: rapid.Byte().Draw(t, "P2"),
			Ne:       rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(65500, 65536)).Draw(t, "Ne"),
			Extended: rapid.Bool().Draw(t, "extended"),
		}
		if length > 0 {
			c.Data = bytes.Repeat([]byte{rapid.Byte().Draw(t, "data")}, length)
		}
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := iso7816.ParseCommand(b)
		if err != nil {
			t.Fatal(err)
		}
		c.Extended = (c.Extended || c.NeedsExtended()) && (length > 0 || c.Ne > 0)
		if !reflect.DeepEqual(c, back) { // cmp.Diff is slow on long data
			t.Fatalf("%v parsed as %v", c, back)
		}
	})
}

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"", "00A40400", "00A4040000", "00A40400000000", "00A4040002DADA00", "00A40400000001DA0000", "00A40400000000DA"} {
		f.Add(unhex(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := iso7816.ParseCommand(b)
		if err != nil {
			if !errors.Is(err, iso7816.ErrMalformedCommand) {
				t.Fatalf("error %v", err)
			}
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("accepted %X, encodes %X", b, again)
		}
	})
}
