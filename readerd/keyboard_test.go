package readerd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/readerd"
)

// golden reads a file of testdata/keyboard without its comments.
func golden(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "keyboard", name))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func accepted(id string) readerd.Event {
	return readerd.Event{Outcome: readerd.Accepted, Tap: &reader.Tap{ID: id, TapID: strings.Repeat("ab", 16), Service: "library", Slot: "Reader 0"}}
}

// typed are the reports that a keyboard writes, an event a line.
func typed(c readerd.KeyboardConfig, e readerd.Event) ([]string, error) {
	var out bytes.Buffer
	err := readerd.NewKeyboard(c, &out).Tell(context.Background(), e)
	var lines []string
	for b := out.Bytes(); len(b) > 0; b = b[eventSize:] {
		lines = append(lines, hex.EncodeToString(b[:eventSize]))
	}
	return lines, err
}

const eventSize = 2*int(unsafe.Sizeof(uintptr(0))) + 8

// TestKeyboardEvents: byte for byte what the kernel's own header makes of it.
func TestKeyboardEvents(t *testing.T) {
	if eventSize != 24 || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the golden files are of machines with 64 bits, low byte first")
	}
	for _, test := range []struct{ layout, prefix, id, suffix string }{
		{"us", "none", "FA-12_b:9.z", "enter"},
		{"jp106", "tab", "FA-12_b:9.z", "tab"},
		{"digits", "none", "0123456789", "none"},
	} {
		got, err := typed(readerd.KeyboardConfig{Layout: test.layout, Prefix: test.prefix, Suffix: test.suffix}, accepted(test.id))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(golden(t, test.layout+".events"), got); diff != "" {
			t.Errorf("%s: %s", test.layout, diff)
		}
	}
}

// TestKeyboardLayouts: every character is typed by the key that XKB has for it,
// and one that is none of them, by no key at all.
func TestKeyboardLayouts(t *testing.T) {
	for layout, file := range map[string]string{"us": "us.keys", "jp106": "jp106.keys", "digits": "us.keys"} {
		c := readerd.KeyboardConfig{Layout: layout, Prefix: "none", Suffix: "none"}
		keys := map[rune]string{}
		for _, line := range golden(t, file) {
			if layout != "digits" || line[0] >= '0' && line[0] <= '9' {
				keys[rune(line[0])] = line[2:]
			}
		}
		others := []rune("é¥＠１ｱ\u0085\u200b\u2028")
		for r := rune(0); r < 0x100+rune(len(others)); r++ {
			char := r
			if r >= 0x100 {
				char = others[r-0x100]
			}
			events, err := typed(c, accepted(string(char)))
			want, ok := keys[char]
			if !ok {
				if err == nil || len(events) > 0 {
					t.Errorf("%s: %q is typed", layout, char)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %q: %v", layout, char, err)
				continue
			}
			if got := pressed(t, events); got != want {
				t.Errorf("%s: %q is typed by key %s, want %s", layout, char, got, want)
			}
		}
	}
}

// pressed says which key the events press, with "Shift" or "-".
func pressed(t *testing.T, events []string) string {
	t.Helper()
	shift, code := "-", -1
	for _, line := range events {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		b = b[eventSize-8:]
		if binary.NativeEndian.Uint16(b) != 1 || binary.NativeEndian.Uint32(b[4:]) != 1 {
			continue
		}
		if n := int(binary.NativeEndian.Uint16(b[2:])); n == 42 {
			shift = "Shift"
		} else {
			code = n
		}
	}
	return fmt.Sprint(code, " ", shift)
}

// TestKeyboardRefuses: an ID that can't be typed whole is not typed at all, nor
// is what was not accepted.
func TestKeyboardRefuses(t *testing.T) {
	us := readerd.KeyboardConfig{Layout: "us", Prefix: "tab", Suffix: "enter"}
	for _, id := range []string{"FA-1\n", "FA-1;reboot", "FA 1", "FA-1\x1b[A", "ＦＡ１", "FA-\xff"} {
		if got, err := typed(us, accepted(id)); err == nil || len(got) > 0 {
			t.Errorf("%q: %d events, %v", id, len(got), err)
		} else if strings.Contains(err.Error(), "FA") {
			t.Errorf("the error names the ID: %v", err)
		}
	}
	if got, err := typed(readerd.KeyboardConfig{Layout: "digits", Prefix: "none", Suffix: "enter"}, accepted("12A")); err == nil || len(got) > 0 {
		t.Errorf("digits: %d events, %v", len(got), err)
	}
	refused := accepted("FA-1")
	refused.Outcome, refused.Reason = readerd.Refused, "denied"
	for _, e := range []readerd.Event{refused, {Outcome: readerd.Failed, Err: &reader.TapError{Err: errors.New("noise")}}} {
		if got, err := typed(us, e); err != nil || len(got) > 0 {
			t.Errorf("%s: %d events, %v", e.Outcome, len(got), err)
		}
	}
}

// times notes when it is written to, and what.
type times struct {
	at      []time.Duration
	written [][]byte
	start   time.Time
}

func (w *times) Write(b []byte) (int, error) {
	w.at = append(w.at, time.Since(w.start))
	w.written = append(w.written, bytes.Clone(b))
	return len(b), nil
}

// TestKeyboardDelay: one write a key, with the pause between them. An end in
// the middle leaves no key down.
func TestKeyboardDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &times{start: time.Now()}
		k := readerd.NewKeyboard(readerd.KeyboardConfig{Layout: "us", Prefix: "none", Suffix: "enter", Delay: readerd.Duration(10 * time.Millisecond)}, w)
		if err := k.Tell(t.Context(), accepted("A1b")); err != nil {
			t.Fatal(err)
		}
		const ms = time.Millisecond
		if diff := cmp.Diff([]time.Duration{0, 10 * ms, 20 * ms, 30 * ms}, w.at); diff != "" {
			t.Error(diff)
		}
		w.written = nil
		ctx, cancel := context.WithTimeout(t.Context(), 15*ms)
		defer cancel()
		if err := k.Tell(ctx, accepted("A1b")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if len(w.written) != 2 {
			t.Fatalf("%d keys", len(w.written))
		}
		down := map[uint16]uint32{}
		for b := bytes.Join(w.written, nil); len(b) > 0; b = b[eventSize:] {
			e := b[eventSize-8:]
			down[binary.NativeEndian.Uint16(e[2:])] = binary.NativeEndian.Uint32(e[4:])
		}
		for code, value := range down {
			if value != 0 {
				t.Errorf("key %d is down", code)
			}
		}
	})
}
