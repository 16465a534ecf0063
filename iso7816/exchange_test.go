package iso7816_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/iso7816"
)

// script returns a card that answers a trace's body.
func script(t *testing.T, body string) *iso7816.Replay {
	t.Helper()
	return parseTrace(t, "freearea-trace 1\n"+body).Card()
}

func TestSend(t *testing.T) {
	read := iso7816.Command{CLA: 0x80, INS: 0xCA, P1: 1, P2: 2, Ne: 256}
	for _, test := range []struct {
		name, body string
		c          iso7816.Command
		data       string
		sw         iso7816.SW
	}{
		{"plain", "> 80CA0102 00\n< 0102 9000\n", read, "0102", 0x9000},
		{"refused", "> 80CA0102 00\n< 6A88\n", read, "", 0x6A88},
		{"warning with data", "> 80CA0102 00\n< 01 6282\n", read, "01", 0x6282},
		{"6Cxx", "> 80CA0102 00\n< 6C02\n> 80CA0102 02\n< 0102 9000\n", read, "0102", 0x9000},
		{"6C00 is 256", "> 80CA0102 01\n< 6C00\n> 80CA0102 00\n< 01 9000\n", iso7816.Command{CLA: 0x80, INS: 0xCA, P1: 1, P2: 2, Ne: 1}, "01", 0x9000},
		{"6Cxx with data", "> 80CA0102 01 AA 00\n< 6C02\n> 80CA0102 01 AA 02\n< 0102 9000\n",
			iso7816.Command{CLA: 0x80, INS: 0xCA, P1: 1, P2: 2, Data: []byte{0xAA}, Ne: 256}, "0102", 0x9000},
		{"6Cxx to case 1", "> 80CA0102\n< 6C02\n", iso7816.Command{CLA: 0x80, INS: 0xCA, P1: 1, P2: 2}, "", 0x6C02},
		{"6Cxx to a PIN", "> 00200001 02 1234\n< 6C02\n", iso7816.Command{INS: 0x20, P2: 1, Data: unhex("1234")}, "", 0x6C02},
		{"6Cxx, then 61xx", "> 80CA0102 00\n< 6C02\n> 80CA0102 02\n< 6101\n> 80C00000 01\n< 09 9000\n", read, "09", 0x9000},
		// The class byte is kept, secure messaging bits and all (7.6.1).
		{"61xx keeps the class", "> 84CA0000 00\n< 6102\n> 84C00000 02\n< 0102 9000\n", iso7816.Command{CLA: 0x84, INS: 0xCA, Ne: 256}, "0102", 0x9000},
		{"61xx after case 3", "> 00A40400 02 F000\n< 6101\n> 00C00000 01\n< 01 9000\n", iso7816.Command{INS: 0xA4, P1: 4, Data: unhex("F000")}, "01", 0x9000},
		{"61xx with data", "> 80CA0102 00\n< 01 6100\n> 80C00000 00\n< 02 6101\n> 80C00000 01\n< 03 9000\n", read, "010203", 0x9000},
		{"6Cxx to GET RESPONSE", "> 80CA0102 00\n< 6100\n> 80C00000 00\n< 6C01\n> 80C00000 01\n< 07 9000\n", read, "07", 0x9000},
		{"refused in the middle", "> 80CA0102 00\n< 01 6101\n> 80C00000 01\n< 6F00\n", read, "01", 0x6F00},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := script(t, test.body)
			r, err := iso7816.Send(context.Background(), card, test.c)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(r.Data, unhex(test.data)) || r.SW != test.sw {
				t.Errorf("answer %X %v, want %s %v", r.Data, r.SW, test.data, test.sw)
			}
			if err := card.Done(); err != nil {
				t.Error(err)
			}
		})
	}
}

// countingCard answers from a function and counts the commands.
type countingCard struct {
	n      int
	answer func(n int, c iso7816.Command) []byte
}

func (k *countingCard) Transmit(_ context.Context, b []byte) ([]byte, error) {
	c, err := iso7816.ParseCommand(b)
	if err != nil {
		return nil, err
	}
	k.n++
	return k.answer(k.n, c), nil
}

func TestSendToHostileCards(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(n int, c iso7816.Command) []byte
		most   int // commands that it may take to see it
		want   string
	}{
		{"61xx for ever, a byte each", func(int, iso7816.Command) []byte { return unhex("AA6101") }, 257, "still 6101 after 256"},
		{"61xx for ever, without data", func(int, iso7816.Command) []byte { return unhex("6110") }, 2, "no data"},
		{"61xx for ever, 65,535 bytes each", func(int, iso7816.Command) []byte { return append(make([]byte, 65535), 0x61, 0) }, 2, "more than 65536"},
		{"6Cxx for ever", func(int, iso7816.Command) []byte { return unhex("6C10") }, 2, "6C10 after the length it asked for"},
		{"6Cxx with changing lengths", func(n int, _ iso7816.Command) []byte { return []byte{0x6C, byte(n)} }, 2, "6C02 after the length it asked for"},
		{"6Cxx to GET RESPONSE for ever", func(n int, c iso7816.Command) []byte {
			if c.INS == 0xC0 {
				return unhex("6C10")
			}
			return unhex("6110")
		}, 3, "after the length it asked for"},
		{"61xx and 6Cxx in turn", func(n int, c iso7816.Command) []byte {
			if n%2 == 0 {
				return unhex("6C01")
			}
			return unhex("AA6101")
		}, 513, "still 6101"},
		{"more than an answer can hold", func(int, iso7816.Command) []byte { return append(make([]byte, 65537), 0x90, 0) }, 1, "malformed response"},
		{"an empty answer", func(int, iso7816.Command) []byte { return nil }, 1, "0 bytes"},
		{"half a status word", func(int, iso7816.Command) []byte { return []byte{0x90} }, 1, "1 bytes"},
		{"half a status word to GET RESPONSE", func(_ int, c iso7816.Command) []byte {
			if c.INS == 0xC0 {
				return []byte{0x90}
			}
			return unhex("6110")
		}, 2, "1 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := &countingCard{answer: test.answer}
			_, err := iso7816.Send(context.Background(), card, iso7816.Command{INS: 0xCA, Ne: 256})
			if !errors.Is(err, iso7816.ErrProtocol) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if !strings.HasPrefix(fmt.Sprint(err), "GET DATA: ") {
				t.Errorf("the error does not name the command: %v", err)
			}
			if card.n > test.most {
				t.Errorf("%d commands, %d at most", card.n, test.most)
			}
		})
	}
}

func TestSendGathersAllThereCanBe(t *testing.T) {
	card := &countingCard{answer: func(n int, _ iso7816.Command) []byte {
		switch {
		case n == 1:
			return unhex("6100")
		case n <= 256:
			return append(make([]byte, 256), 0x61, 0x00)
		}
		return append(make([]byte, 256), 0x90, 0x00)
	}}
	r, err := iso7816.Send(context.Background(), card, iso7816.Command{INS: 0xCA, Ne: 256})
	if err != nil || len(r.Data) != iso7816.MaxExtendedNe || r.SW != iso7816.OK {
		t.Errorf("%d bytes, %v, %v", len(r.Data), r.SW, err)
	}
}

func TestSendErrors(t *testing.T) {
	ctx := context.Background()
	_, err := iso7816.Send(ctx, script(t, "> 00B00000 00\n! removed\n"), iso7816.Command{INS: 0xB0, Ne: 256})
	if !errors.Is(err, iso7816.ErrCardRemoved) || errors.Is(err, iso7816.ErrProtocol) || err.Error() != "READ BINARY: card removed" {
		t.Errorf("removed: %v", err)
	}
	_, err = iso7816.Send(ctx, script(t, "> 00B00000 00\n< 6101\n> 00C00000 01\n! removed\n"), iso7816.Command{INS: 0xB0, Ne: 256})
	if !errors.Is(err, iso7816.ErrCardRemoved) || err.Error() != "READ BINARY: GET RESPONSE: card removed" {
		t.Errorf("removed in the middle: %v", err)
	}
	_, err = iso7816.Send(ctx, script(t, ""), iso7816.Command{INS: 0xB0, Ne: -1})
	if !errors.Is(err, iso7816.ErrMalformedCommand) {
		t.Errorf("no encoding: %v", err)
	}
}

func TestSendExtended(t *testing.T) {
	ctx := context.Background()
	extended := iso7816.Command{INS: 0xB0, Ne: 65536}
	card := &countingCard{answer: func(int, iso7816.Command) []byte { return unhex("9000") }}
	for _, c := range []iso7816.Command{extended, {INS: 0xD6, Data: make([]byte, 256)}, {INS: 0xB0, Ne: 1, Extended: true}} {
		if _, err := iso7816.Send(ctx, card, c); !errors.Is(err, iso7816.ErrExtendedLength) || card.n != 0 {
			t.Errorf("%v: %v after %d commands", c, err, card.n)
		}
	}
	// Without lengths there is nothing extended about a command.
	if _, err := iso7816.Send(ctx, card, iso7816.Command{INS: 0xB0, Extended: true}); err != nil {
		t.Error(err)
	}
	long := script(t, "> 00B00000 000000\n< 01 9000\n")
	if r, err := iso7816.Send(ctx, long, extended); err != nil || !bytes.Equal(r.Data, []byte{1}) {
		t.Errorf("%X, %v", r.Data, err)
	}
}

func TestDo(t *testing.T) {
	ctx := context.Background()
	aid := iso7816.MustAID("A000000151000000")
	card := iso7816.Plain(script(t, "> 00A40400 08 A000000151000000 00\n< 6F00 9000\n> 00A40400 08 A000000151000000 00\n< AA 6283\n"))
	if data, err := iso7816.Do(ctx, card, iso7816.Select(aid)); err != nil || !bytes.Equal(data, unhex("6F00")) {
		t.Errorf("%X, %v", data, err)
	}
	if data, err := iso7816.Do(ctx, card, iso7816.Select(aid)); !errors.Is(err, iso7816.SW(0x6283)) || !bytes.Equal(data, unhex("AA")) {
		t.Errorf("%X, %v", data, err)
	}
	if _, err := iso7816.Do(ctx, card, iso7816.Select(aid)); !errors.Is(err, iso7816.ErrDeviation) {
		t.Errorf("%v", err)
	}
}
