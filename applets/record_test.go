package applets_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func date(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

// The bytes are written out by hand from docs/card-protocol.md.
var records = []struct {
	name   string
	record applets.Record
	bytes  string
}{
	{"least", applets.Record{Service: "a", ID: "1"}, "C1 01 61 C2 01 31 C3 02 0000"},
	{"expiry", applets.Record{Service: "lib", ID: "K-7", IssueNumber: 258, Expiry: date(2031, 3, 9)},
		"C1 03 6C6962 C2 03 4B2D37 C3 02 0102 C4 04 20310309"},
	{"signed", applets.Record{Service: "lib", ID: "図", IssueNumber: 1, Signature: bytes.Repeat([]byte{0x5A}, 64)},
		"C1 03 6C6962 C2 03 E59BB3 C3 02 0001 C5 40" + strings.Repeat("5A", 64)},
}

func TestRecord(t *testing.T) {
	for _, c := range records {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.bytes)
			got, err := c.record.Encode()
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("encoded to % X, %v; want % X", got, err, want)
			}
			r, err := applets.ParseRecord(want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.record, r); d != "" {
				t.Error(d)
			}
		})
	}
	most := applets.Record{Service: strings.Repeat("s", 32), ID: strings.Repeat("9", 64), Expiry: date(2030, 1, 1), Signature: make([]byte, 64)}
	if b, err := most.Encode(); err != nil || len(b) > applets.MaxRecord {
		t.Errorf("greatest record: %d bytes, %v", len(b), err)
	}
}

func TestRecordRefused(t *testing.T) {
	for _, c := range []struct{ name, bytes string }{
		{"empty", ""},
		{"no issue number", "C1 01 61 C2 01 31"},
		{"expiry without issue number", "C1 01 61 C2 01 31 C4 04 20300101"},
		{"no ID", "C1 01 61 C3 02 0000"},
		{"empty ID", "C1 01 61 C2 00 C3 02 0000"},
		{"order", "C2 01 31 C1 01 61 C3 02 0000"},
		{"twice", "C1 01 61 C1 01 61 C2 01 31 C3 02 0000"},
		{"trailing byte", "C1 01 61 C2 01 31 C3 02 0000 00"},
		{"unknown tag", "C1 01 61 C2 01 31 C3 02 0000 C6 01 00"},
		{"length not minimal", "C1 81 01 61 C2 01 31 C3 02 0000"},
		{"issue number of 1 byte", "C1 01 61 C2 01 31 C3 01 00"},
		{"space in service", "C1 01 20 C2 01 31 C3 02 0000"},
		{"ID not UTF-8", "C1 01 61 C2 01 FF C3 02 0000"},
		{"control character", "C1 01 61 C2 01 0A C3 02 0000"},
		{"not BCD", "C1 01 61 C2 01 31 C3 02 0000 C4 04 2030010A"},
		{"no date", "C1 01 61 C2 01 31 C3 02 0000 C4 04 20300230"},
		{"year 0", "C1 01 61 C2 01 31 C3 02 0000 C4 04 00000101"},
		{"date that stands for none", "C1 01 61 C2 01 31 C3 02 0000 C4 04 00010101"},
		{"short signature", "C1 01 61 C2 01 31 C3 02 0000 C5 01 00"},
		{"empty signature", "C1 01 61 C2 01 31 C3 02 0000 C5 00"},
		{"long", "C1 01 61 C2 81D8" + strings.Repeat("31", 216) + "C3 02 0000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r, err := applets.ParseRecord(unhex(t, c.bytes)); !errors.Is(err, applets.ErrMalformedRecord) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
	for _, r := range []applets.Record{
		{ID: "1"}, {Service: "a"}, {Service: "é", ID: "1"}, {Service: strings.Repeat("s", 33), ID: "1"},
		{Service: "a", ID: strings.Repeat("1", 65)}, {Service: "a", ID: "1", Expiry: date(2030, 1, 1).Add(time.Hour)},
		{Service: "a", ID: "1", Expiry: date(10000, 1, 1)}, {Service: "a", ID: "1", Signature: []byte{1}},
	} {
		if b, err := r.Encode(); !errors.Is(err, applets.ErrMalformedRecord) {
			t.Errorf("%+v: got % X, %v", r, b, err)
		}
	}
}

func TestSignature(t *testing.T) {
	public, private, err := ed25519.GenerateKey(bytes.NewReader(make([]byte, 64)))
	if err != nil {
		t.Fatal(err)
	}
	aid, other := iso7816.MustAID("F0465245454152454101"), iso7816.MustAID("F046524545415245410100")
	r := applets.Record{Service: "lib", ID: "K-7", IssueNumber: 1}
	if err := r.Verify(public, aid); !errors.Is(err, applets.ErrNoSignature) {
		t.Errorf("unsigned: %v", err)
	}
	m, err := r.SignedMessage(aid)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte("FREEAREA EF.ID 1\x0A"), unhex(t, "F0465245454152454101 C1 03 6C6962 C2 03 4B2D37 C3 02 0001")...)
	if !bytes.Equal(m, want) {
		t.Errorf("message is % X, want % X", m, want)
	}
	r.Signature = ed25519.Sign(private, m)
	if err := r.Verify(public, aid); err != nil {
		t.Error(err)
	}
	if err := r.Verify(public, other); !errors.Is(err, applets.ErrSignature) {
		t.Errorf("other instance: %v", err)
	}
	if err := r.Verify(public[:5], aid); !errors.Is(err, applets.ErrSignature) {
		t.Errorf("short key: %v", err)
	}
	forged := r
	forged.ID = "K-8"
	if err := forged.Verify(public, aid); !errors.Is(err, applets.ErrSignature) {
		t.Errorf("other ID: %v", err)
	}
}

func TestExpired(t *testing.T) {
	r := applets.Record{Expiry: date(2030, 6, 30)}
	tokyo := time.FixedZone("JST", 9*3600)
	for _, c := range []struct {
		now  time.Time
		want bool
	}{
		{time.Date(2030, 6, 30, 23, 59, 59, 0, tokyo), false},
		{time.Date(2030, 7, 1, 0, 0, 0, 0, tokyo), true},
		{time.Date(2030, 6, 30, 23, 59, 59, 0, time.UTC), false},
		{time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC), true},
	} {
		if got := r.Expired(c.now); got != c.want {
			t.Errorf("at %v: %v", c.now, got)
		}
	}
	if (applets.Record{}).Expired(date(9999, 1, 1)) {
		t.Error("an ID without expiry expired")
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, c := range records {
		f.Add(unhex(f, c.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := applets.ParseRecord(b)
		if err != nil {
			if !errors.Is(err, applets.ErrMalformedRecord) {
				t.Errorf("%v", err)
			}
			return
		}
		if got, err := r.Encode(); err != nil || !bytes.Equal(got, b) {
			t.Errorf("% X came back as % X, %v", b, got, err)
		}
	})
}

var itemLists = []struct {
	name  string
	items []applets.Item
	bytes string
}{
	{"none", nil, ""},
	{"one", []applets.Item{{Name: "dept", Value: "A1"}}, "E1 0C E2 0A C1 04 64657074 C2 02 4131"},
	{"two", []applets.Item{{Name: "a", Value: ""}, {Name: "b", Value: "é"}}, "E1 10 E2 05 C1 01 61 C2 00 E2 07 C1 01 62 C2 02 C3A9"},
}

func TestItems(t *testing.T) {
	for _, c := range itemLists {
		want := unhex(t, c.bytes)
		got, err := applets.EncodeItems(c.items)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: encoded to % X, %v; want % X", c.name, got, err, want)
		}
		items, err := applets.ParseItems(want)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.items, items); d != "" {
			t.Error(d)
		}
	}
	for _, s := range []string{
		"E1 00", "E2 05 C1 01 61 C2 00", "E1 05 E2 03 C1 01 61", "E1 07 E2 05 C2 00 C1 01 61", "E1 07 E2 05 C1 01 61 C2 00 00",
		"E1 0E E2 05 C1 01 61 C2 00 E2 05 C1 01 61 C2 00", "E1 07 E2 05 C1 01 20 C2 00", "E1 08 E2 06 C1 01 61 C2 01 FF",
		"E1 06 E2 04 C1 00 C2 00", "E1 02 C1 00", "E1 77" + strings.Repeat("E2 05 C1 01 61 C2 00", 17),
	} {
		if items, err := applets.ParseItems(unhex(t, s)); !errors.Is(err, applets.ErrMalformedItems) {
			t.Errorf("%s: got %v, %v", s, items, err)
		}
	}
	many := make([]applets.Item, 17)
	for i := range many {
		many[i].Name = fmt.Sprint("n", i)
	}
	for _, items := range [][]applets.Item{
		many, {{Name: ""}}, {{Name: "a b"}}, {{Name: "a"}, {Name: "a"}}, {{Name: "a", Value: "\x00"}},
		{{Name: "a", Value: strings.Repeat("x", 1020)}}, {{Name: "a", Value: strings.Repeat("x", 70000)}},
		{{Name: strings.Repeat("n", 33)}},
	} {
		if b, err := applets.EncodeItems(items); !errors.Is(err, applets.ErrMalformedItems) {
			t.Errorf("%d items: got %d bytes, %v", len(items), len(b), err)
		}
	}
}

func FuzzParseItems(f *testing.F) {
	for _, c := range itemLists {
		f.Add(unhex(f, c.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := applets.ParseItems(b)
		if err != nil {
			if !errors.Is(err, applets.ErrMalformedItems) {
				t.Errorf("%v", err)
			}
			return
		}
		if got, err := applets.EncodeItems(items); err != nil || !bytes.Equal(got, b) {
			t.Errorf("% X came back as % X, %v", b, got, err)
		}
	})
}

func TestPINDoesNotShow(t *testing.T) {
	p, err := applets.NewPIN("90817263")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "pin", p, "setting", applets.PINSetting{Reference: p})
	all := log.String() + fmt.Sprintf("%v %+v %#v %s %x %X %d %q %v %+v", p, p, p, p, p, p, p, p, &p, applets.PINSetting{Reference: p})
	for _, secret := range []string{"9081", "39 30", "3930", "57 48", "0x39"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q shows in %s", secret, all)
		}
	}
	for _, s := range []string{"", "123", "1234567890123", "12a4", "１２３４", "12 4"} {
		if _, err := applets.NewPIN(s); !errors.Is(err, applets.ErrMalformedPIN) || s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
	other, _ := applets.NewPIN("90817263")
	if !p.Equal(other) {
		t.Error("equal PINs differ")
	}
	p.Erase()
	if !p.IsZero() || p.Equal(other) {
		t.Error("an erased PIN is still there")
	}
}
