package readerd

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"
	"unsafe"
)

// KeyboardConfig is a keyboard that types the IDs of accepted taps into
// whatever has the focus (Linux, uinput).
type KeyboardConfig struct {
	// Layout is the layout that the system has for its keyboards: see
	// [KeyboardLayouts].
	Layout string `toml:"layout"`
	// Prefix and Suffix are typed before and after the ID: "enter", "tab",
	// "none". Suffix is "enter" unless given, Prefix "none".
	Prefix string `toml:"prefix"`
	Suffix string `toml:"suffix"`
	// Delay is the pause after each key: 1ms to 1s, 5ms unless given. The
	// kernel holds 64 events for a program that reads them, which are 8 keys
	// with Shift, and drops what it can't hold.
	Delay Duration `toml:"delay"`
	// Device is "/dev/uinput" unless given.
	Device string `toml:"device"`
}

const (
	defaultKeyDelay = 5 * time.Millisecond
	minKeyDelay     = time.Millisecond
	maxKeyDelay     = time.Second
)

func (c *KeyboardConfig) check(at string, fault func(format string, args ...any)) {
	if c.Prefix == "" {
		c.Prefix = "none"
	}
	if c.Suffix == "" {
		c.Suffix = "enter"
	}
	if c.Device == "" {
		c.Device = "/dev/uinput"
	}
	if c.Delay == 0 {
		c.Delay = Duration(defaultKeyDelay)
	}
	if !slices.Contains(KeyboardLayouts(), c.Layout) {
		fault("%s.layout: %q, one of %q expected", at, c.Layout, KeyboardLayouts())
	}
	for key, name := range map[string]string{"prefix": c.Prefix, "suffix": c.Suffix} {
		if _, ok := namedKeys[name]; !ok {
			fault(`%s.%s: %q, "enter", "tab" or "none" expected`, at, key, name)
		}
	}
	if d := time.Duration(c.Delay); d < minKeyDelay || d > maxKeyDelay {
		fault("%s.delay: %s, %s to %s expected", at, d, minKeyDelay, maxKeyDelay)
	}
}

// stroke is one key, by the kernel's code of it (linux/input-event-codes.h),
// with Shift or without. A code says where a key is, and the layout what it
// types.
type stroke struct {
	code  uint16
	shift bool
}

const (
	keyTab       = 15
	keyEnter     = 28
	keyLeftShift = 42
)

// namedKeys are what can be typed before and after an ID.
var namedKeys = map[string][]stroke{"none": nil, "enter": {{code: keyEnter}}, "tab": {{code: keyTab}}}

// KeyboardLayouts lists the names of layouts: "us"; "jp106", the Japanese one
// with 106 or 109 keys; "digits", which types IDs of digits only, and those on
// either. No layout types anything but letters, digits and "-._:": a card must
// not be able to press a control key, or to spell a command.
func KeyboardLayouts() []string { return []string{"us", "jp106", "digits"} }

var keyboardLayouts = map[string]map[rune]stroke{
	"us":     layout(alphanumericKeys, digitKeys, map[rune]stroke{'-': {code: 12}, '.': {code: 52}, '_': {12, true}, ':': {39, true}}),
	"jp106":  layout(alphanumericKeys, digitKeys, map[rune]stroke{'-': {code: 12}, '.': {code: 52}, '_': {89, true}, ':': {code: 40}}),
	"digits": digitKeys,
}

var (
	digitKeys        = row("1234567890", 2)
	alphanumericKeys = layout(row("qwertyuiop", 16), row("asdfghjkl", 30), row("zxcvbnm", 44))
)

// row is keys that stand side by side: letters with and without Shift, digits
// without.
func row(keys string, first uint16) map[rune]stroke {
	m := map[rune]stroke{}
	for i, r := range keys {
		code := first + uint16(i)
		m[r] = stroke{code: code}
		if upper := r - 'a' + 'A'; r >= 'a' {
			m[upper] = stroke{code, true}
		}
	}
	return m
}

func layout(parts ...map[rune]stroke) map[rune]stroke {
	m := map[rune]stroke{}
	for _, part := range parts {
		for r, s := range part {
			m[r] = s
		}
	}
	return m
}

// Keyboard types the IDs of accepted taps.
type Keyboard struct {
	c KeyboardConfig
	w io.Writer
}

// NewKeyboard returns the output. It writes events as Linux has them (struct
// input_event of this machine), one key with a write.
func NewKeyboard(c KeyboardConfig, w io.Writer) *Keyboard { return &Keyboard{c, w} }

// Open makes the keyboard; the file is the caller's to close, which takes the
// keyboard away. Where the system has no uinput that is an error.
func (c KeyboardConfig) Open() (*Keyboard, io.Closer, error) {
	f, err := openUinput(c.Device, c.keyCodes())
	if err != nil {
		return nil, nil, err
	}
	return NewKeyboard(c, f), f, nil
}

// Name implements [Output].
func (k *Keyboard) Name() string { return "keyboard " + k.c.Layout }

// Run implements [Output].
func (*Keyboard) Run(context.Context) error { return nil }

// Tell implements [Output]. An ID that the layout can't type is refused before
// any key is pressed.
func (k *Keyboard) Tell(ctx context.Context, e Event) error {
	if e.Outcome != Accepted {
		return nil
	}
	strokes, err := k.strokes(e.Tap.ID)
	if err != nil {
		return err
	}
	for _, s := range strokes {
		if _, err := k.w.Write(s.events()); err != nil {
			return err
		}
		if k.c.Delay == 0 {
			continue
		}
		select {
		case <-time.After(time.Duration(k.c.Delay)):
		case <-ctx.Done(): // no key is down
			return ctx.Err()
		}
	}
	return nil
}

func (k *Keyboard) strokes(id string) ([]stroke, error) {
	keys := keyboardLayouts[k.c.Layout]
	strokes := slices.Clone(namedKeys[k.c.Prefix])
	for i, r := range id {
		s, ok := keys[r]
		if !ok {
			return nil, fmt.Errorf("keyboard layout %s can't type character %d of the ID: nothing is typed", k.c.Layout, i+1)
		}
		strokes = append(strokes, s)
	}
	return append(strokes, namedKeys[k.c.Suffix]...), nil
}

// Types of events, and the one code of evSyn that is used.
const (
	evSyn     = 0
	evKey     = 1
	synReport = 0
)

// events are the key going down and up, with Shift around it where needed,
// each change in a report of its own.
func (s stroke) events() []byte {
	var b []byte
	change := func(code uint16, down int32) {
		b = appendEvent(b, evKey, code, down)
		b = appendEvent(b, evSyn, synReport, 0)
	}
	if s.shift {
		change(keyLeftShift, 1)
	}
	change(s.code, 1)
	change(s.code, 0)
	if s.shift {
		change(keyLeftShift, 0)
	}
	return b
}

// appendEvent appends a struct input_event (linux/input.h): seconds and
// microseconds, which are the kernel's to fill in, of the size of a long each;
// type, code, value.
func appendEvent(b []byte, kind, code uint16, value int32) []byte {
	b = append(b, make([]byte, 2*unsafe.Sizeof(uintptr(0)))...)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, code)
	return binary.NativeEndian.AppendUint32(b, uint32(value))
}

// keyCodes are the keys that a keyboard of the layout has.
func (c KeyboardConfig) keyCodes() []uint16 {
	codes := []uint16{keyEnter, keyTab, keyLeftShift}
	for _, s := range keyboardLayouts[c.Layout] {
		codes = append(codes, s.code)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}
