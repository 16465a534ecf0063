// Package hostile is a card that lies: it stands between a host and a card
// and changes answers, so that tests can hold every host flow against every
// kind of lie. It is for tests.
package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/freearea/freearea/iso7816"
)

// Bounds of one run, whatever the card answers.
const (
	// MaxCommands is how many commands a host may send beyond those of the
	// honest run: the 256 GET RESPONSE after one command, twice for 6Cxx, or
	// the 256 parts of one registry.
	MaxCommands = 520
	// MaxMemory is how many bytes a host may allocate beyond those of the
	// honest run, all that was freed again counted too: an answer of 64 KiB,
	// parsed, copied and put into an error, and the parts of a registry of as much.
	MaxMemory = 32 << 20
)

// An Attack is one way of lying.
type Attack struct {
	Name string
	// Answer makes what the host gets of the command, the card's answer to it
	// and the answer before that one.
	Answer  func(command, answer, before []byte) []byte
	Swallow bool // the card doesn't get the command
	Always  bool // from the attacked command on, not it alone
	Late    bool // the answer comes when the context has ended
	Forged  bool // a bit of the answer is another
}

// answer is an attack that says the same always.
func answer(name string, b []byte) Attack {
	return Attack{Name: name, Answer: func(_, _, _ []byte) []byte { return b }}
}

func swallow(a Attack) Attack {
	a.Name, a.Swallow = a.Name+", command swallowed", true
	return a
}

func always(a Attack) Attack {
	a.Name, a.Always = a.Name+", for ever", true
	return a
}

// ok puts 9000 behind data.
func ok(data []byte) []byte { return append(bytes.Clone(data), 0x90, 0x00) }

// longest is the longest answer to a command of short length whose lengths an
// attack goes through.
const longest = 258

// Attacks are all the lies there are. Those by position (cut there, changed
// there) come for every position when every is set, and else for some.
func Attacks(every bool) []Attack {
	var out []Attack
	add := func(a ...Attack) { out = append(out, a...) }

	positions := []int{0, 1, 2, 3, 4, 9, 12, 13, 27, 28, 100}
	if every {
		positions = nil
		for i := range longest {
			positions = append(positions, i)
		}
	}
	for _, i := range positions {
		add(Attack{Name: fmt.Sprintf("cut to %d bytes", i), Answer: func(_, a, _ []byte) []byte { return a[:min(i, len(a))] }})
		if i > 0 {
			add(Attack{Name: fmt.Sprintf("the last %d bytes of the data missing", i), Answer: func(_, a, _ []byte) []byte {
				return append(bytes.Clone(a[:max(0, len(a)-2-i)]), a[max(0, len(a)-2):]...)
			}})
		}
		add(Attack{Name: fmt.Sprintf("byte %d changed", i), Forged: true, Answer: func(_, a, _ []byte) []byte {
			a = bytes.Clone(a)
			if i < len(a) {
				a[i] ^= 1 << (i % 8)
			}
			return a
		}}, Attack{Name: fmt.Sprintf("byte %d from the end of the data changed", i), Forged: true, Answer: func(_, a, _ []byte) []byte {
			a = bytes.Clone(a)
			if n := len(a) - 3 - i; n >= 0 {
				a[n] ^= 0x80
			}
			return a
		}})
	}
	for _, n := range []int{1, 2, 8, 16, 255, 65_535} {
		add(Attack{Name: fmt.Sprintf("%d bytes too many", n), Answer: func(_, a, _ []byte) []byte {
			return append(append(bytes.Clone(a[:max(0, len(a)-2)]), make([]byte, n)...), a[max(0, len(a)-2):]...)
		}}, Attack{Name: fmt.Sprintf("%d bytes behind the status word", n), Answer: func(_, a, _ []byte) []byte {
			return append(bytes.Clone(a), make([]byte, n)...)
		}})
	}
	add(answer("1 MiB", make([]byte, 1<<20)), answer("nothing", nil))

	// Chains without an end.
	for _, b := range [][]byte{{0x61, 0x00}, {0x61, 0x10}, {0xAA, 0x61, 0x01}, {0x6C, 0x00}, {0x6C, 0x10}, {0x6C, 0x01}, {0x63, 0x10}} {
		a := answer(fmt.Sprintf("%X", b), b)
		add(a, always(a))
	}
	add(always(answer("61FF after 256 bytes", append(make([]byte, 256), 0x61, 0xFF))))
	add(always(Attack{Name: "6310 after the answer", Answer: func(_, a, _ []byte) []byte {
		return append(bytes.Clone(a[:max(0, len(a)-2)]), 0x63, 0x10)
	}}))

	// TLV bombs.
	for _, bomb := range []struct {
		name string
		data []byte
	}{
		{"nested 100 deep", nested(0x6F, 100)},
		{"nested 10,000 deep", nested(0x30, 10_000)},
		{"a length of 4 GiB", []byte{0x6F, 0x84, 0xFF, 0xFF, 0xFF, 0xFF}},
		{"a length of 2^63", []byte{0xE3, 0x88, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}},
		{"a length of 2^1016", append([]byte{0xE3, 0xFF}, bytes.Repeat([]byte{0xFF}, 127)...)},
		{"an indefinite length", []byte{0x6F, 0x80, 0x84, 0x01, 0x01, 0x00, 0x00}},
		{"a tag without an end", bytes.Repeat([]byte{0xFF}, 250)},
		{"32,000 empty entries", bytes.Repeat([]byte{0xE3, 0x00}, 32_000)},
		{"10,000 objects", bytes.Repeat([]byte{0x4F, 0x01, 0x00}, 10_000)},
		{"key information 10,000 fold", bytes.Repeat([]byte{0xC0, 0x04, 0x01, 0x01, 0x88, 0x10}, 10_000)},
	} {
		add(answer("TLV: "+bomb.name, ok(bomb.data)))
	}

	// What was said before.
	replay := Attack{Name: "the answer before", Answer: func(_, _, before []byte) []byte { return before }}
	add(replay, swallow(replay), Attack{Name: "the command as answer", Answer: func(c, _, _ []byte) []byte { return ok(c) }})

	for seed := range uint64(4) {
		for _, n := range []int{2, 10, 30, 66, 258} {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			add(answer(fmt.Sprintf("%d random bytes, %d", n, seed), ok(b)))
		}
	}

	for _, sw := range []uint16{0x9000, 0x0000, 0x6283, 0x6300, 0x63C0, 0x63CF, 0x6400, 0x6581, 0x6700, 0x6982, 0x6983, 0x6984, 0x6985, 0x6A80, 0x6A82, 0x6A84,
		0x6A86, 0x6A88, 0x6D00, 0x6F00, 0x9100, 0xFFFF} {
		b := []byte{byte(sw >> 8), byte(sw)}
		add(answer(fmt.Sprintf("%04X", sw), b), swallow(answer(fmt.Sprintf("%04X", sw), b)), Attack{
			Name: fmt.Sprintf("%04X behind the data", sw), Answer: func(_, a, _ []byte) []byte { return append(bytes.Clone(a[:max(0, len(a)-2)]), b...) },
		})
	}

	add(Attack{Name: "too late", Late: true, Answer: func(_, a, _ []byte) []byte { return a }})
	return out
}

// nested is a constructed object in itself, n times, all lengths right.
func nested(tag byte, n int) []byte {
	headers := [][]byte{{0x04, 0x00}} // from the inmost on
	size := 2
	for range n {
		h := iso7816.AppendTLV(nil, iso7816.Tag(tag), make([]byte, size))
		h = h[:len(h)-size]
		headers = append(headers, h)
		size += len(h)
	}
	slices.Reverse(headers)
	return bytes.Join(headers, nil)
}

// Card is the liar.
type Card struct {
	iso7816.Card
	Attack Attack
	At     int // which command's answer is attacked, from 1; 0 is none

	Commands int // that the host has sent
	// Authentications are INITIALIZE UPDATE and EXTERNAL AUTHENTICATE among
	// them. One INITIALIZE UPDATE with another Le, after 6Cxx, is the same one.
	Authentications int
	Lied            bool
	Protected       bool // the command whose answer was attacked has a MAC, and is not EXTERNAL AUTHENTICATE
	limit           int
	cancel          context.CancelFunc
	before          []byte // the card's answer to the command before
	said            byte   // SW1 of what the host was told
	ended           int    // commands after the end of the context
}

const (
	insInitializeUpdate     = 0x50
	insExternalAuthenticate = 0x82
)

var errEndless = errors.New("the host does not stop")

// ExtendedLength implements the option of cards with extended length.
func (c *Card) ExtendedLength() bool {
	x, is := c.Card.(interface{ ExtendedLength() bool })
	return is && x.ExtendedLength()
}

// Transmit implements [iso7816.Card].
func (c *Card) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	c.Commands++
	if c.limit > 0 && c.Commands > c.limit {
		return nil, errEndless
	}
	if ctx.Err() != nil {
		c.ended++
		return nil, ctx.Err()
	}
	if len(command) > 1 && command[0]&0x80 != 0 && (command[1] == insExternalAuthenticate || command[1] == insInitializeUpdate && c.said != 0x6C) {
		c.Authentications++
	}
	attacked := c.At > 0 && (c.Commands == c.At || c.Commands > c.At && c.Attack.Always)
	var answer []byte
	if !attacked || !c.Attack.Swallow {
		var err error
		if answer, err = c.Card.Transmit(ctx, command); err != nil {
			return nil, err
		}
	}
	said := answer
	if attacked {
		said = c.Attack.Answer(command, answer, c.before)
		c.Protected = command[0]&0x84 == 0x84 && command[1] != insExternalAuthenticate
		c.Lied = c.Lied || c.Attack.Swallow || c.Attack.Late || !bytes.Equal(said, answer)
		if c.Attack.Late {
			c.cancel()
		}
	}
	c.before = answer
	if c.said = 0; len(said) == 2 {
		c.said = said[0]
	}
	return said, nil
}

// Honest is what a flow takes with a card that does not lie.
type Honest struct {
	Commands, Authentications int
	memory                    uint64
}

// Measure runs a flow with an honest card.
func Measure(t testing.TB, card iso7816.Card, host func(context.Context, iso7816.Card) error) Honest {
	t.Helper()
	c := &Card{Card: card}
	used, err := allocated(func() error { return host(t.Context(), c) })
	if err != nil {
		t.Fatalf("with an honest card: %v", err)
	}
	return Honest{c.Commands, c.Authentications, used}
}

func allocated(f func() error) (uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

// Run lies to a host once, and fails the test where the host does what no host
// may, whoever it speaks to: send more commands or take more memory than the
// bounds, authenticate more often than to an honest card, go on when its
// context has ended, or fail with an error that is none of typed or of
// package iso7816's. It returns that error. Tests that run it must not be
// parallel: memory is the process's.
func Run(t testing.TB, honest Honest, c *Card, typed []error, host func(context.Context, iso7816.Card) error) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.limit, c.cancel = honest.Commands+MaxCommands, cancel
	used, err := allocated(func() error { return host(ctx, c) })
	switch {
	case c.Commands > c.limit:
		t.Errorf("more than %d commands, %d are sent to an honest card", c.limit, honest.Commands)
	case used > honest.memory+MaxMemory:
		t.Errorf("%d bytes allocated, %d with an honest card", used, honest.memory)
	case c.Authentications > honest.Authentications:
		t.Errorf("%d commands of authentications, %d are sent to an honest card", c.Authentications, honest.Authentications)
	case c.ended > 1:
		t.Errorf("%d commands after the context had ended", c.ended)
	case err != nil && !known(err, typed):
		t.Errorf("an error without a type: %v", err)
	}
	return err
}

func known(err error, typed []error) bool {
	var status iso7816.SW
	if errors.As(err, &status) {
		return true
	}
	for _, e := range append([]error{iso7816.ErrProtocol, iso7816.ErrMalformedResponse, iso7816.ErrMalformedTLV, iso7816.ErrMalformedAID,
		iso7816.ErrExtendedLength, context.Canceled}, typed...) {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
