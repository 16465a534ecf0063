package iso7816_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freearea/freearea/iso7816"
)

func TestTLVEncodings(t *testing.T) {
	value := func(n int) []byte { return bytes.Repeat([]byte{0xDA}, n) }
	for _, test := range []struct {
		tag         iso7816.Tag
		value       []byte
		head        string
		constructed bool
	}{
		{0x84, unhex("F000000001"), "84 05", false},
		{0x80, nil, "80 00", false},
		{0x6F, value(0x7F), "6F 7F", true},
		{0x6F, value(0x80), "6F 81 80", true},
		{0x6F, value(0xFF), "6F 81 FF", true},
		{0x6F, value(0x100), "6F 82 01 00", true},
		{0x6F, value(65535), "6F 82 FF FF", true},
		{0x9F70, value(1), "9F 70 01", false},
		{0x5F1F, value(1), "5F 1F 01", false},
		{0x7F21, value(1), "7F 21 01", true},
		{0xFF21, value(1), "FF 21 01", true},
		{0xDF8101, value(1), "DF 81 01 01", false},
		{0xBF817F, value(1), "BF 81 7F 01", true},
	} {
		want := append(unhex(test.head), test.value...)
		got := iso7816.TLV{Tag: test.tag, Value: test.value}.Encode()
		if !bytes.Equal(got, want) {
			t.Errorf("tag %v: encoded %.20X, want %.20X", test.tag, got, want)
		}
		if test.tag.Constructed() != test.constructed {
			t.Errorf("tag %v: constructed %v", test.tag, test.tag.Constructed())
		}
		back, rest, err := iso7816.ParseTLV(append(got, 0x55))
		if err != nil || back.Tag != test.tag || !bytes.Equal(back.Value, test.value) || !bytes.Equal(rest, []byte{0x55}) {
			t.Errorf("tag %v: parsed %v, rest %X, %v", test.tag, back.Tag, rest, err)
		}
	}
}

func TestParseTLVRefuses(t *testing.T) {
	for _, test := range []struct{ name, b, want string }{
		{"nothing", "", "no tag"},
		{"padding 00", "00 00", "tag 00"},
		{"tag only", "84", "tag 84 has no length"},
		{"tag cut short", "9F", "tag 9F is cut short"},
		{"tag cut short, third byte", "DF 81", "tag DF81 is cut short"},
		{"tag not minimal", "9F 1E 00", "tag 9F1E is not minimal"},
		{"tag not minimal, 00", "9F 00 00", "not minimal"},
		{"tag not minimal, 80", "9F 80 01 00", "not minimal"},
		{"tag of 4 bytes", "DF 81 81 01 00", "longer than 3 bytes"},
		{"indefinite length", "6F 80 00 00", "length byte 80"},
		{"length of 3 bytes", "6F 83 00 00 01 AA", "length byte 83"},
		{"length FF", "6F FF", "length byte FF"},
		{"length cut short, 81", "6F 81", "length of tag 6F is cut short"},
		{"length cut short, 82", "6F 82 01", "length of tag 6F is cut short"},
		{"length not minimal, 81", "84 81 01 AA", "not minimal"},
		{"length not minimal, 82", "84 82 00 01 AA", "not minimal"},
		{"length not minimal, 82 00FF", "84 82 00 FF" + strings.Repeat("AA", 255), "not minimal"},
		{"value too short", "84 02 AA", "says 2 bytes, 1 are there"},
		{"value far too short", "84 82 FF FF", "says 65535 bytes, 0 are there"},
	} {
		_, _, err := iso7816.ParseTLV(unhex(test.b))
		if !errors.Is(err, iso7816.ErrMalformedTLV) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", test.name, err, test.want)
		}
		if _, err := iso7816.ParseTLVs(append(unhex("8000"), unhex(test.b)...)); (err == nil) != (test.b == "") {
			t.Errorf("%s, after another: %v", test.name, err)
		}
	}
}

func TestParseTLVs(t *testing.T) {
	// The FCI of an application, as GPCS table 11-79 has it.
	fci := unhex("6F 10 8408A000000151000000 A504 9F6501FF")
	outer, err := iso7816.ParseSingleTLV(fci, 0x6F)
	if err != nil {
		t.Fatal(err)
	}
	list, err := outer.Children()
	if err != nil {
		t.Fatal(err)
	}
	want := []iso7816.TLV{{Tag: 0x84, Value: unhex("A000000151000000")}, {Tag: 0xA5, Value: unhex("9F6501FF")}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("children (-want +got):\n%s", diff)
	}
	a5, ok := iso7816.Find(list, 0xA5)
	if !ok {
		t.Fatal("A5 not found")
	}
	inner, err := a5.Children()
	if diff := cmp.Diff([]iso7816.TLV{{Tag: 0x9F65, Value: []byte{0xFF}}}, inner); diff != "" || err != nil {
		t.Errorf("%v, children of A5 (-want +got):\n%s", err, diff)
	}
	if _, ok := iso7816.Find(list, 0x9F65); ok {
		t.Error("Find looks into children")
	}
	if _, err := list[0].Children(); !errors.Is(err, iso7816.ErrMalformedTLV) {
		t.Errorf("children of a primitive object: %v", err)
	}
	first, _ := iso7816.Find([]iso7816.TLV{{Tag: 0x80, Value: []byte{1}}, {Tag: 0x80, Value: []byte{2}}}, 0x80)
	if !bytes.Equal(first.Value, []byte{1}) {
		t.Errorf("Find returned %X, not the first", first.Value)
	}
	for _, test := range []struct{ b, want string }{
		{"6F 00 00", "1 bytes after tag 6F"},
		{"84 00", "tag 84 where 6F is expected"},
		{"", "no tag"},
	} {
		if _, err := iso7816.ParseSingleTLV(unhex(test.b), 0x6F); !errors.Is(err, iso7816.ErrMalformedTLV) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.b, err)
		}
	}
}

func TestAppendTLVPanics(t *testing.T) {
	for _, test := range []struct {
		tag iso7816.Tag
		n   int
	}{
		{0, 0}, {0x9F, 0}, {0x8401, 0}, {0x9F1E, 0}, {0x9F81, 0}, {0x9F7001, 0}, {0xDF818101, 0}, {0x01000084, 0}, {0x84, 65536},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("tag %v, %d bytes: no panic", test.tag, test.n)
				}
			}()
			iso7816.AppendTLV(nil, test.tag, make([]byte, test.n))
		}()
	}
}

func TestTLVRoundTrip(t *testing.T) {
	tags := rapid.OneOf(
		rapid.Map(rapid.IntRange(1, 0xFE).Filter(func(n int) bool { return n&0x1F != 0x1F }), func(n int) iso7816.Tag { return iso7816.Tag(n) }),
		rapid.Map(rapid.IntRange(0x1F, 0x7F), func(n int) iso7816.Tag { return 0x9F00 | iso7816.Tag(n) }),
		rapid.Map(rapid.IntRange(0x1F, 0x7F), func(n int) iso7816.Tag { return 0xBF8100 | iso7816.Tag(n) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		var want []iso7816.TLV
		var b []byte
		for range rapid.IntRange(0, 4).Draw(t, "objects") {
			tlv := iso7816.TLV{Tag: tags.Draw(t, "tag"), Value: make([]byte, rapid.IntRange(0, 600).Draw(t, "length"))}
			want = append(want, tlv)
			b = append(b, tlv.Encode()...)
		}
		got, err := iso7816.ParseTLVs(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("parsed again (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseTLVs(f *testing.F) {
	for _, s := range []string{"", "6F108408A000000151000000A5049F6501FF", "8100", "9F7001AA", "DF810100", "848101AA", "8480", "00"} {
		f.Add(unhex(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := iso7816.ParseTLVs(b)
		if err != nil {
			if !errors.Is(err, iso7816.ErrMalformedTLV) {
				t.Fatalf("error %v", err)
			}
			return
		}
		var again []byte
		for _, tlv := range list {
			again = iso7816.AppendTLV(again, tlv.Tag, tlv.Value)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("accepted %X, encodes %X", b, again)
		}
	})
}
