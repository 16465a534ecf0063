package iso7816_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/iso7816"
)

func TestResponse(t *testing.T) {
	r, err := iso7816.ParseResponse(unhex("0102 63C2"))
	if err != nil || !bytes.Equal(r.Data, unhex("0102")) || r.SW != 0x63C2 {
		t.Errorf("%X %v, %v", r.Data, r.SW, err)
	}
	if got := r.Encode(); !bytes.Equal(got, unhex("010263C2")) {
		t.Errorf("encoded %X", got)
	}
	for _, n := range []int{0, 1, iso7816.MaxExtendedNe + 3} {
		if _, err := iso7816.ParseResponse(make([]byte, n)); !errors.Is(err, iso7816.ErrMalformedResponse) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, n := range []int{2, iso7816.MaxExtendedNe + 2} {
		if _, err := iso7816.ParseResponse(make([]byte, n)); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestStatusErrors(t *testing.T) {
	cmd := iso7816.Command{CLA: 0x84, INS: 0x20, P2: 1, Data: []byte("4711")}
	if err := (iso7816.Response{SW: iso7816.OK}).Err(cmd); err != nil {
		t.Errorf("9000: %v", err)
	}
	err := fmt.Errorf("reading: %w", iso7816.Response{SW: iso7816.ErrSecurityStatus}.Err(cmd))
	if !errors.Is(err, iso7816.ErrSecurityStatus) || errors.Is(err, iso7816.ErrConditions) {
		t.Errorf("6982 is not matched: %v", err)
	}
	var status *iso7816.StatusError
	if !errors.As(err, &status) || status.Header != [4]byte{0x84, 0x20, 0, 1} {
		t.Errorf("%+v", status)
	}
	if want := "reading: VERIFY (84 20 00 01) refused: 6982 security status not satisfied"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestStatusWords(t *testing.T) {
	for _, test := range []struct {
		sw      iso7816.SW
		text    string
		tries   int
		isTries bool
		warning bool
	}{
		{0x9000, "9000 normal end", 0, false, false},
		{0x63C0, "63C0 wrong PIN, 0 tries left", 0, true, true},
		{0x63C1, "63C1 wrong PIN, 1 try left", 1, true, true},
		{0x63CF, "63CF wrong PIN, 15 tries left", 15, true, true},
		{0x6300, "6300 authentication of the host failed", 0, false, true},
		{0x6310, "6310 more data available", 0, false, true},
		{0x6283, "6283", 0, false, true},
		{0x6A82, "6A82 file or application not found", 0, false, false},
		{0x6983, "6983 authentication method blocked", 0, false, false},
		{0x6401, "6401", 0, false, false},
		{0x0001, "0001", 0, false, false},
	} {
		if got := test.sw.Error(); got != test.text {
			t.Errorf("%q, want %q", got, test.text)
		}
		n, ok := test.sw.TriesLeft()
		if ok != test.isTries || ok && n != test.tries {
			t.Errorf("%v: tries %d, %v", test.sw, n, ok)
		}
		if test.sw.Warning() != test.warning {
			t.Errorf("%v: warning %v", test.sw, test.sw.Warning())
		}
	}
}

func TestInstructionName(t *testing.T) {
	for _, test := range []struct {
		cla, ins byte
		want     string
	}{
		{0x00, 0xA4, "SELECT"},
		{0x84, 0x54, "EXPRESS"},
		{0x00, 0x54, "instruction 54"},
		{0x84, 0xE2, "STORE DATA"},
		{0x80, 0x00, "instruction 00"},
	} {
		if got := iso7816.InstructionName(test.cla, test.ins); got != test.want {
			t.Errorf("%02X %02X: %q, want %q", test.cla, test.ins, got, test.want)
		}
	}
}

func TestEventAndModeNames(t *testing.T) {
	for _, test := range []struct {
		v    fmt.Stringer
		want string
	}{
		{iso7816.SlotAdded, "slot added"},
		{iso7816.SlotRemoved, "slot removed"},
		{iso7816.CardInserted, "card inserted"},
		{iso7816.CardRemoved, "card removed"},
		{iso7816.EventKind(9), "event 9"},
		{iso7816.EventKind(-1), "event -1"},
		{iso7816.Shared, "shared"},
		{iso7816.Exclusive, "exclusive"},
	} {
		if got := test.v.String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func FuzzParseResponse(f *testing.F) {
	for _, s := range []string{"", "90", "9000", "01029000"} {
		f.Add(unhex(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := iso7816.ParseResponse(b)
		if err != nil {
			if !errors.Is(err, iso7816.ErrMalformedResponse) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again := r.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("accepted %X, encodes %X", b, again)
		}
		if text := r.SW.Error(); !strings.HasPrefix(text, r.SW.String()) {
			t.Fatalf("%v says %q", r.SW, text)
		}
	})
}
