package osdp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// counting is a source of numbers that can be told in advance.
type counting byte

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(*c)
		*c++
	}
	return len(b), nil
}

var testKey = [KeySize]byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF}

// told collects what a panel tells people and the device.
type told struct {
	lines []string
}

func (w *told) add(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

func (w *told) config() Config {
	return Config{
		Address: 5, Vendor: [3]byte{1, 2, 3}, Model: 4, Version: 5, Serial: 0x01020304, Firmware: [3]byte{1, 2, 3}, Baud: 9600,
		LED: func(l LED) {
			w.add("led temporary %v for %v, permanent %v", *l.Temporary, l.Time, *l.Permanent)
		},
		Buzzer: func(b Buzzer) { w.add("buzzer %v %v ×%d", b.On, b.Gap, b.Count) },
		Text:   func(t Text) { w.add("text %q for %v at %d,%d", t.Text, t.Time, t.Row, t.Column) },
		Rand:   new(counting),
	}
}

// TestPanels replays what control panels of others sent, and wants byte for
// byte the answers that those understood.
func TestPanels(t *testing.T) {
	for _, test := range []struct {
		name, key        string
		configure        func(*Config)
		secure           bool
		wiegand, another func() (CardData, error)
	}{
		{name: "clear", configure: func(c *Config) { c.Clear = true }, another: number40},
		{name: "secure", configure: func(c *Config) { c.Key = &testKey }, secure: true, another: number40},
		{name: "install", configure: func(c *Config) { c.Install = true }, secure: true, another: number40, key: hex.EncodeToString(testKey[:])},
		{name: "clear-3.0.8", configure: func(c *Config) { c.Clear = true }, another: letters},
		{name: "secure-3.0.8", configure: func(c *Config) { c.Key = &testKey }, secure: true, another: letters},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w told
			c := w.config()
			test.configure(&c)
			var set string
			c.SaveKey = func(k [KeySize]byte) error { set = hex.EncodeToString(k[:]); return nil }
			d, err := NewDevice(c)
			if err != nil {
				t.Fatal(err)
			}
			cards := []func() (CardData, error){func() (CardData, error) { return Wiegand26(18, "34567") }, test.another}
			file, err := os.Open(filepath.Join("testdata", test.name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			var in splitter
			var answers [][]byte
			number := 0
			for lines := bufio.NewScanner(file); lines.Scan(); {
				number++
				who, what, _ := strings.Cut(lines.Text(), " ")
				if who == "#" {
					continue
				}
				want, err := hex.DecodeString(what)
				if err != nil {
					t.Fatal(err)
				}
				switch who {
				case "panel":
					for _, p := range in.next(want) {
						answers = append(answers, append([]byte{mark}, d.handle(p)...))
					}
				case "reader":
					if len(answers) == 0 || !bytes.Equal(answers[0], want) {
						t.Fatalf("line %d: reader answers %x, want %x", number, answers, want)
					}
					answers = answers[1:]
				case "card":
					card, err := cards[0]()
					if err != nil {
						t.Fatal(err)
					}
					if got := append([]byte{card.code}, card.after...); !bytes.Equal(got, want) {
						t.Fatalf("line %d: card data %x, want %x", number, got, want)
					}
					if err := d.Present(card); err != nil {
						t.Fatal(err)
					}
					cards = cards[1:]
				default:
					t.Fatalf("line %d: %q", number, who)
				}
			}
			if len(cards) != 0 || number < 20 {
				t.Fatalf("%d lines, %d cards left", number, len(cards))
			}
			if d.Secure() != test.secure || set != test.key {
				t.Errorf("secure %v, want %v; key %q, want %q", d.Secure(), test.secure, set, test.key)
			}
			want := []string{
				"led temporary {500ms 0s green black} for 2s, permanent {100ms 0s red black}",
				"buzzer 300ms 100ms ×2",
				`text "WELCOME" for 4s at 1,1`,
			}
			if diff := cmp.Diff(want, w.lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func number40() (CardData, error) { return Number("1234567890", 40) }
func letters() (CardData, error)  { return Formatted("FA-0001-7") }

// TestVectors: SIA OSDP specification, annex E (examples), as the unit tests
// of libosdp 3.2.0 quote it (test-sc-sia-vectors.c).
func TestVectors(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, test := range []struct {
		message, check string
		crc            bool
	}{
		{"53 7F 0D 00 04 6E 00 80 25 00 00", "6E 38", true},
		{"53 00 09 00 04 61 00", "C0 66", true},
		{"53 7F 0C 00 00 6E 00 80 25 00 00", "0F", false},
		{"53 00 08 00 00 61 00", "44", false},
	} {
		if got, want := appendCheck(nil, unhex(test.message), test.crc), unhex(test.check); !bytes.Equal(got, want) {
			t.Errorf("check of %s: %x, want %x", test.message, got, want)
		}
	}
	c := newChannel(defaultKey, [8]byte(unhex("B0 B1 B2 B3 B4 B5 B6 B7")), [8]byte(unhex("A0 A1 A2 A3 A4 A5 A6 A7")))
	client := c.clientCryptogram()
	if want := unhex("FD E5 D2 F4 28 EC 16 31 24 71 EA 3C 02 BD 77 96"); !bytes.Equal(client[:], want) {
		t.Errorf("client cryptogram %x, want %x", client, want)
	}
	mac, err := c.accept(unhex("26 D3 35 6E 07 76 2D 26 28 01 FC 8E 66 65 A8 91"))
	if err != nil {
		t.Errorf("host cryptogram is refused: %v", err)
	}
	if want := unhex("B2 A3 00 57 EB 98 BA 22 29 EC 1F 87 56 62 B5 24"); !bytes.Equal(mac[:], want) {
		t.Errorf("initial R-MAC %x, want %x", mac, want)
	}
}

// TestServe runs a recorded panel over a line, byte by byte.
func TestServe(t *testing.T) {
	var w told
	c := w.config()
	c.Clear = true
	d, err := NewDevice(c)
	if err != nil {
		t.Fatal(err)
	}
	panel, line := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Serve(ctx, line) }()
	go func() {
		for _, b := range []byte("\xff\x53\x05\x09\x00\x04\x61\x00\xc1\x25") {
			_, _ = panel.Write([]byte{b})
		}
	}()
	answer := make([]byte, 21)
	if _, err := io.ReadFull(panel, answer); err != nil || answer[6] != replyID {
		t.Fatalf("%x, %v", answer, err)
	}
	if !d.Online() || d.Secure() {
		t.Error("not on line, or secure")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// clock is a time that the test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }
