package iso7816_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/freearea/freearea/iso7816"
)

func TestParseAID(t *testing.T) {
	for _, s := range []string{"A000000151000000", "a000000151000000", "A0 00 00 01 51 00 00 00", "A0:00:00:01:51:00:00:00", "A0000001 51000000"} {
		a, err := iso7816.ParseAID(s)
		if err != nil || a.String() != "A000000151000000" || a.Len() != 8 || a.IsZero() {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
	for _, s := range []string{
		"", " ", "A0000001", "A0000001 ", "A00000015", strings.Repeat("A0", 17), strings.Repeat("A0", 1<<20), "A0 0 000151", "A 0000001 51",
		" A000000151", "A000000151 ", "A0  00000151", "A0-00-00-01-51", "0xA000000151", "G000000151", "A0000001\n51", "Ａ000000151",
	} {
		if a, err := iso7816.ParseAID(s); !errors.Is(err, iso7816.ErrMalformedAID) || len(err.Error()) > 120 {
			t.Errorf("%.20q: %v, %v", s, a, err)
		}
	}
	for _, n := range []int{0, 4, 17} {
		if _, err := iso7816.NewAID(make([]byte, n)); !errors.Is(err, iso7816.ErrMalformedAID) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, n := range []int{5, 16} {
		if a, err := iso7816.NewAID(make([]byte, n)); err != nil || a.Len() != n {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustAID takes a malformed AID")
		}
	}()
	iso7816.MustAID("A0")
}

func TestAIDValues(t *testing.T) {
	long, short := iso7816.MustAID("A000000151000000"), iso7816.MustAID("A0000001510000")
	var zero iso7816.AID
	for _, test := range []struct {
		a, prefix iso7816.AID
		want      bool
	}{
		{long, short, true},
		{long, long, true},
		{short, long, false},
		{long, zero, true},
		{zero, zero, true},
		{zero, short, false},
		{long, iso7816.MustAID("A0000001520000"), false},
		// Zeros after an AID are not part of it.
		{short, long, false},
	} {
		if got := test.a.HasPrefix(test.prefix); got != test.want {
			t.Errorf("%v has prefix %v: %v", test.a, test.prefix, got)
		}
	}
	if long == short {
		t.Error("an AID equals its prefix")
	}
	if m := map[iso7816.AID]int{long: 1}; m[iso7816.MustAID("a0 00 00 01 51 00 00 00")] != 1 {
		t.Error("an AID is not found as a key")
	}
	long.Bytes()[0] = 0
	if long.String() != "A000000151000000" {
		t.Error("Bytes is not a copy")
	}
	if !zero.IsZero() || zero.Len() != 0 || zero.String() != "" || len(zero.Bytes()) != 0 {
		t.Errorf("zero AID: %v", zero)
	}
}

func TestAIDText(t *testing.T) {
	type row struct {
		A, B iso7816.AID
	}
	in := row{A: iso7816.MustAID("D392F000260100000001")}
	text, err := json.Marshal(in)
	if err != nil || string(text) != `{"A":"D392F000260100000001","B":""}` {
		t.Errorf("%s, %v", text, err)
	}
	out := row{B: in.A}
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Errorf("%v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"D3"}`), &out); !errors.Is(err, iso7816.ErrMalformedAID) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseAID(f *testing.F) {
	f.Add("A000000151000000")
	f.Add("a0:00 00:01 51")
	f.Add(" A0")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := iso7816.ParseAID(s)
		if err != nil {
			if !errors.Is(err, iso7816.ErrMalformedAID) || !a.IsZero() {
				t.Fatalf("%v, error %v", a, err)
			}
			return
		}
		plain := strings.ToUpper(strings.NewReplacer(" ", "", ":", "").Replace(s))
		again, err := iso7816.ParseAID(a.String())
		if err != nil || again != a || a.String() != plain || !bytes.Equal(a.Bytes(), unhex(plain)) {
			t.Fatalf("%q is %v, then %v (%v)", s, a, again, err)
		}
	})
}
