package scp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var levels = []scp.Level{scp.None, scp.CMAC, scp.CDecryption, scp.CMACRMAC, scp.CDecRMAC, scp.Full}

func testSet(t testing.TB, size int) keys.Set {
	fill := func(first byte) keys.Key {
		b := make([]byte, size)
		for i := range b {
			b[i] = first + byte(i)
		}
		return key(t, b)
	}
	return keys.Set{Version: 1, ENC: fill(0x40), MAC: fill(0x60), DEK: fill(0x80)}
}

func chacha(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

// loopback is a card that knows the channel and answers with what process
// says; the tests look at and tamper with what goes over the wire.
type loopback struct {
	t        testing.TB
	card     *scp.CardSession
	process  func(iso7816.Command) iso7816.Response
	onWire   func(iso7816.Command) iso7816.Command
	response func(iso7816.Response) iso7816.Response
	sent     []iso7816.Command
	answered []iso7816.Response
}

func newLoopback(t testing.TB, set keys.Set) *loopback {
	return &loopback{t: t,
		card: scp.NewCardSession(scp.CardOptions{
			DiversificationData: [10]byte{1, 2, 3}, Rand: chacha(7),
			Keys: func(v byte) (keys.Set, bool) { return set, v == 0 || v == set.Version },
		}),
		process: func(c iso7816.Command) iso7816.Response { return iso7816.Response{Data: c.Data, SW: iso7816.OK} },
	}
}

func (l *loopback) Send(_ context.Context, c iso7816.Command) (iso7816.Response, error) {
	// Through bytes and back: what can't be encoded is not sent.
	c = command(l.t, encode(l.t, c))
	l.sent = append(l.sent, c)
	if l.onWire != nil {
		c = l.onWire(c)
	}
	r := l.answer(c)
	if l.response != nil {
		r = l.response(r)
	}
	l.answered = append(l.answered, r)
	return r, nil
}

func (l *loopback) answer(c iso7816.Command) iso7816.Response {
	switch c.INS {
	case 0x50:
		return l.card.InitializeUpdate(c)
	case 0x82:
		return l.card.ExternalAuthenticate(c)
	}
	plain, err := l.card.Unwrap(c)
	if err != nil {
		var sw iso7816.SW
		if !errors.As(err, &sw) {
			l.t.Fatalf("Unwrap: %v is no status word", err)
		}
		return iso7816.Response{SW: sw}
	}
	return l.card.Wrap(l.process(plain))
}

func (l *loopback) open(level scp.Level, set keys.Set) *scp.Session {
	l.t.Helper()
	s, err := scp.Open(l.t.Context(), l, set, scp.HostOptions{Level: level, Rand: chacha(1)})
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func TestEveryLevelAndKeySize(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		for _, level := range levels {
			t.Run(fmt.Sprintf("AES-%d level %02X", size*8, byte(level)), func(t *testing.T) {
				set := testSet(t, size)
				l := newLoopback(t, set)
				s := l.open(level, set)
				if got := l.card.Level(); got != level {
					t.Fatalf("card is at level %v", got)
				}
				for _, n := range []int{0, 1, 15, 16, 17, 100, s.MaxData()} {
					data := bytes.Repeat([]byte("secret sentence "), 16)[:n]
					r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, P1: 1, P2: 2, Data: data, Ne: 256})
					if err != nil || r.SW != iso7816.OK || !bytes.Equal(r.Data, data) {
						t.Fatalf("%d bytes: %X %v %v", n, r.Data, r.SW, err)
					}
					wire, answer := l.sent[len(l.sent)-1], l.answered[len(l.answered)-1]
					if got := bytes.Contains(wire.Data, data); n > 8 && got == level.HasCDecryption() {
						t.Errorf("%d bytes: command data readable: %v", n, got)
					}
					if got := bytes.Contains(answer.Data, data); n > 8 && got == level.HasREncryption() {
						t.Errorf("%d bytes: response data readable: %v", n, got)
					}
					if (wire.CLA == 0x84) != level.HasCMAC() {
						t.Errorf("class byte %02X", wire.CLA)
					}
					if level.HasREncryption() && n == 0 && len(answer.Data) != 8 {
						t.Errorf("empty response became %d bytes, R-MAC only expected", len(answer.Data))
					}
				}
			})
		}
	}
}

func TestLongestResponse(t *testing.T) {
	for level, want := range map[scp.Level]int{scp.None: 256, scp.CMAC: 256, scp.CMACRMAC: 248, scp.CDecRMAC: 248, scp.Full: 239} {
		set := testSet(t, 16)
		l := newLoopback(t, set)
		s := l.open(level, set)
		if s.MaxResponse() != want {
			t.Errorf("level %v: MaxResponse %d, want %d", level, s.MaxResponse(), want)
		}
		var ne int
		l.process = func(c iso7816.Command) iso7816.Response {
			ne = c.Ne
			return iso7816.Response{Data: make([]byte, c.Ne), SW: iso7816.OK}
		}
		r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x00, INS: 0xB0, Ne: 256})
		if err != nil || len(r.Data) != want || ne != want {
			t.Errorf("level %v: %d bytes, Ne %d, %v", level, len(r.Data), ne, err)
		}
		if n := len(l.answered[len(l.answered)-1].Data); n > 256 {
			t.Errorf("level %v: %d bytes on the wire", level, n)
		}
	}
}

// The host asks for as many bytes as the protected answer has, so that a
// card which honours Le does not cut the R-MAC off.
func TestNe(t *testing.T) {
	for _, x := range []struct {
		level      scp.Level
		data       int
		ne         int
		wire, card int
	}{
		{scp.CMAC, 4, 0, 0, 0}, {scp.CMAC, 4, 20, 20, 20}, {scp.CMAC, 4, 256, 256, 256},
		{scp.CMACRMAC, 4, 0, 256, 248}, {scp.CMACRMAC, 0, 0, 256, 248}, {scp.CMACRMAC, 4, 20, 28, 20}, {scp.CMACRMAC, 4, 250, 256, 248},
		{scp.Full, 4, 20, 40, 31}, {scp.Full, 4, 15, 24, 15}, {scp.Full, 4, 16, 40, 31}, {scp.Full, 4, 256, 256, 239},
	} {
		set := testSet(t, 16)
		l := newLoopback(t, set)
		s := l.open(x.level, set)
		got := -1
		l.process = func(c iso7816.Command) iso7816.Response { got = c.Ne; return iso7816.Response{SW: iso7816.OK} }
		if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, Data: make([]byte, x.data), Ne: x.ne}); err != nil {
			t.Fatal(err)
		}
		if wire := l.sent[len(l.sent)-1].Ne; wire != x.wire || got != x.card {
			t.Errorf("level %v, Ne %d: %d on the wire, %d on the card; want %d, %d", x.level, x.ne, wire, got, x.wire, x.card)
		}
	}
}

func TestMaxData(t *testing.T) {
	for level, want := range map[scp.Level]int{scp.None: 255, scp.CMAC: 247, scp.CMACRMAC: 247, scp.CDecryption: 239, scp.CDecRMAC: 239, scp.Full: 239} {
		if level.MaxData() != want {
			t.Errorf("level %v: %d, want %d", level, level.MaxData(), want)
		}
		if level == scp.None {
			continue
		}
		set := testSet(t, 16)
		l := newLoopback(t, set)
		s := l.open(level, set)
		sent := len(l.sent)
		if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, Data: make([]byte, want+1)}); !errors.Is(err, scp.ErrTooLong) {
			t.Errorf("level %v: %d bytes: %v", level, want+1, err)
		}
		if len(l.sent) != sent {
			t.Errorf("level %v: too long a command was sent", level)
		}
		if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, Data: make([]byte, want)}); err != nil {
			t.Errorf("level %v: session unusable after ErrTooLong: %v", level, err)
		}
	}
}

func TestExtendedLength(t *testing.T) {
	for _, level := range levels {
		set := testSet(t, 32)
		l := newLoopback(t, set)
		s := l.open(level, set)
		data := bytes.Repeat([]byte{0xA5}, 1000)
		r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, Data: data, Ne: 2000, Extended: true})
		if err != nil || !bytes.Equal(r.Data, data) {
			t.Errorf("level %v: %d bytes, %v", level, len(r.Data), err)
		}
		if r, err = s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, Data: data[:3], Ne: 256}); err != nil || len(r.Data) != 3 {
			t.Errorf("level %v: short command after an extended one: %v", level, err)
		}
	}
}

func TestLogicalChannels(t *testing.T) {
	for plain, secure := range map[byte]byte{0x00: 0x04, 0x80: 0x84, 0x83: 0x87, 0x02: 0x06, 0xC1: 0xE1, 0x4F: 0x6F} {
		set := testSet(t, 16)
		l := newLoopback(t, set)
		s := l.open(scp.Full, set)
		got := byte(0xFF)
		l.process = func(c iso7816.Command) iso7816.Response { got = c.CLA; return iso7816.Response{SW: iso7816.OK} }
		// The logical channel is no part of what the C-MAC protects (AmdD 6.2.4).
		l.onWire = func(c iso7816.Command) iso7816.Command {
			if c.CLA != secure {
				t.Errorf("class %02X is %02X on the wire, want %02X", plain, c.CLA, secure)
			}
			return c
		}
		if _, err := s.Send(t.Context(), iso7816.Command{CLA: plain, INS: 0xB0}); err != nil {
			t.Fatal(err)
		}
		if got != plain {
			t.Errorf("class %02X arrives as %02X", plain, got)
		}
	}
}

// A card without the keys gets nothing that was computed with them.
func TestWrongKeysSendNothing(t *testing.T) {
	set, other := testSet(t, 16), testSet(t, 16)
	other.MAC = key(t, bytes.Repeat([]byte{9}, 16))
	l := newLoopback(t, other)
	_, err := scp.Open(t.Context(), l, set, scp.HostOptions{Level: scp.Full})
	if !errors.Is(err, scp.ErrCardCryptogram) {
		t.Fatalf("error %v", err)
	}
	if len(l.sent) != 1 {
		t.Errorf("%d commands sent, INITIALIZE UPDATE only expected", len(l.sent))
	}
}

func TestAuthenticateOnce(t *testing.T) {
	set := testSet(t, 16)
	l := newLoopback(t, set)
	p, err := scp.Initialize(t.Context(), l, scp.HostOptions{Level: scp.CMAC})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Authenticate(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Authenticate(t.Context(), set); !errors.Is(err, scp.ErrSessionOver) {
		t.Errorf("second Authenticate: %v", err)
	}
	if len(l.sent) != 2 {
		t.Errorf("%d commands sent", len(l.sent))
	}
}

func TestOpenRefuses(t *testing.T) {
	info := scp.KeyInformation{KeyVersion: 1, Protocol: 3, I: 0x60, Challenge: make([]byte, 8), Cryptogram: make([]byte, 8)}
	info02 := scp.KeyInformation{KeyVersion: 1, Protocol: 2, Challenge: make([]byte, 6), Cryptogram: make([]byte, 8)}
	info16 := scp.KeyInformation{KeyVersion: 1, Protocol: 3, I: 0x61, Challenge: make([]byte, 16), Cryptogram: make([]byte, 16)}
	only := func(p ...scp.Protocol) scp.HostOptions { return scp.HostOptions{Protocols: p} }
	with := func(f func(*scp.KeyInformation)) scp.KeyInformation { k := info; f(&k); return k }
	for name, x := range map[string]struct {
		answer []byte
		o      scp.HostOptions
		want   error
	}{
		"another version":  {info.Encode(), scp.HostOptions{KeyVersion: 2}, scp.ErrKeyVersion},
		"keys of another":  {with(func(k *scp.KeyInformation) { k.KeyVersion = 9 }).Encode(), scp.HostOptions{}, scp.ErrKeyVersion},
		"no R-MAC":         {with(func(k *scp.KeyInformation) { k.I = 0 }).Encode(), scp.HostOptions{Level: scp.CMACRMAC}, scp.ErrLevel},
		"no R-ENCRYPTION":  {with(func(k *scp.KeyInformation) { k.I = 0x20 }).Encode(), scp.HostOptions{Level: scp.Full}, scp.ErrLevel},
		"no such level":    {info.Encode(), scp.HostOptions{Level: 0x23}, scp.ErrLevel},
		"SCP02":            {info02.Encode(), scp.HostOptions{}, scp.ErrProtocolNotSupported},
		"SCP02 only":       {info.Encode(), only(scp.SCP02), scp.ErrProtocolNotSupported},
		"SCP02, 29 bytes":  {append(info02.Encode(), 0), only(scp.SCP02), scp.ErrMalformedKeyInformation},
		"SCP02, no proof":  {info02.Encode(), only(scp.SCP03, scp.SCP02), scp.ErrCardCryptogram},
		"SCP02, no R-MAC":  {info02.Encode(), scp.HostOptions{Level: scp.CMACRMAC, Protocols: []scp.Protocol{scp.SCP02}}, scp.ErrLevel},
		"SCP02, no R-ENC":  {info02.Encode(), scp.HostOptions{Level: scp.Full, Protocols: []scp.Protocol{{Number: 2, I: 0x75}}}, scp.ErrLevel},
		"SCP03, R-MAC":     {info.Encode(), scp.HostOptions{Level: scp.RMAC}, scp.ErrLevel},
		"SCP01":            {with(func(k *scp.KeyInformation) { k.Protocol = 1 }).Encode(), scp.HostOptions{}, scp.ErrProtocolNotSupported},
		"S16":              {info16.Encode(), scp.HostOptions{}, scp.ErrProtocolNotSupported},
		"S8 after S16":     {info.Encode(), only(scp.SCP03S16, scp.SCP03), scp.ErrProtocolNotSupported},
		"S16, no proof":    {info16.Encode(), only(scp.SCP03S16), scp.ErrCardCryptogram},
		"S16, short":       {info16.Encode()[:44], only(scp.SCP03S16), scp.ErrMalformedKeyInformation},
		"i = 40":           {with(func(k *scp.KeyInformation) { k.I = 0x40 }).Encode(), scp.HostOptions{}, scp.ErrProtocolNotSupported},
		"i = 64":           {with(func(k *scp.KeyInformation) { k.I = 0x64 }).Encode(), scp.HostOptions{}, scp.ErrProtocolNotSupported},
		"one byte more":    {append(info.Encode(), 0), scp.HostOptions{}, scp.ErrMalformedKeyInformation},
		"one byte less":    {info.Encode()[:28], scp.HostOptions{}, scp.ErrMalformedKeyInformation},
		"nothing":          {nil, scp.HostOptions{}, scp.ErrMalformedKeyInformation},
		"pseudo, no count": {with(func(k *scp.KeyInformation) { k.I = 0x70 }).Encode()[:29], scp.HostOptions{}, scp.ErrMalformedKeyInformation},
		"no proof":         {info.Encode(), scp.HostOptions{}, scp.ErrCardCryptogram},
	} {
		t.Run(name, func(t *testing.T) {
			sent := 0
			card := sender(func(iso7816.Command) iso7816.Response {
				sent++
				return iso7816.Response{Data: x.answer, SW: iso7816.OK}
			})
			p, err := scp.Initialize(t.Context(), card, x.o)
			if err == nil {
				_, err = p.Authenticate(t.Context(), testSet(t, 16))
			}
			if !errors.Is(err, x.want) {
				t.Errorf("error %v, want %v", err, x.want)
			}
			if sent > 1 {
				t.Errorf("%d commands sent", sent)
			}
		})
	}
}

type sender func(iso7816.Command) iso7816.Response

func (f sender) Send(_ context.Context, c iso7816.Command) (iso7816.Response, error) {
	return f(c), nil
}

func TestKeySetsThatCannotBe(t *testing.T) {
	set := testSet(t, 16)
	set.MAC = key(t, make([]byte, 32))
	for name, set := range map[string]keys.Set{"none": {}, "lengths differ": set} {
		if _, err := scp.DeriveSessionKeys(set, make([]byte, 8), make([]byte, 8)); !errors.Is(err, scp.ErrKeySet) {
			t.Errorf("%s: %v", name, err)
		}
		l := newLoopback(t, set)
		if r := l.card.InitializeUpdate(initializeUpdate()); r.SW != iso7816.ErrDataNotFound {
			t.Errorf("%s: INITIALIZE UPDATE %v", name, r.SW)
		}
	}
}

func initializeUpdate() iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: 0x50, Data: make([]byte, 8), Ne: 256}
}

// Whatever is changed in a response that carries an R-MAC, the host uses
// nothing of it, and nothing goes over the session afterwards.
func TestTamperedResponse(t *testing.T) {
	for _, level := range []scp.Level{scp.CMACRMAC, scp.CDecRMAC, scp.Full} {
		for name, tamper := range map[string]func(iso7816.Response) iso7816.Response{
			"first byte":         func(r iso7816.Response) iso7816.Response { r.Data[0] ^= 1; return r },
			"last byte of data":  func(r iso7816.Response) iso7816.Response { r.Data[len(r.Data)-9] ^= 0x80; return r },
			"first byte of MAC":  func(r iso7816.Response) iso7816.Response { r.Data[len(r.Data)-8] ^= 1; return r },
			"last byte of MAC":   func(r iso7816.Response) iso7816.Response { r.Data[len(r.Data)-1] ^= 1; return r },
			"OK to warning":      func(r iso7816.Response) iso7816.Response { r.SW = iso7816.ErrUnchanged; return r },
			"OK to 63C1":         func(r iso7816.Response) iso7816.Response { r.SW = 0x63C1; return r },
			"no data":            func(r iso7816.Response) iso7816.Response { r.Data = nil; return r },
			"warning, no data":   func(r iso7816.Response) iso7816.Response { return iso7816.Response{SW: 0x6283} },
			"63xx, no data":      func(r iso7816.Response) iso7816.Response { return iso7816.Response{SW: iso7816.SWMoreData} },
			"seven bytes":        func(r iso7816.Response) iso7816.Response { r.Data = r.Data[len(r.Data)-7:]; return r },
			"data without a MAC": func(r iso7816.Response) iso7816.Response { r.Data = r.Data[:len(r.Data)-8]; return r },
			"one byte more":      func(r iso7816.Response) iso7816.Response { r.Data = append(r.Data, 0); return r },
			"an earlier answer":  nil,
		} {
			t.Run(fmt.Sprintf("%02X %s", byte(level), name), func(t *testing.T) {
				set := testSet(t, 16)
				l := newLoopback(t, set)
				s := l.open(level, set)
				c := iso7816.Command{CLA: 0x80, INS: 0xCA, Data: []byte("the answer's data"), Ne: 256}
				if _, err := s.Send(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				earlier := l.answered[len(l.answered)-1]
				l.response = tamper
				if tamper == nil {
					l.response = func(iso7816.Response) iso7816.Response { return earlier }
				}
				r, err := s.Send(t.Context(), c)
				if !errors.Is(err, scp.ErrResponseMAC) || r.Data != nil {
					t.Fatalf("%X %v", r.Data, err)
				}
				l.response = nil
				sent := len(l.sent)
				_, err = s.Send(t.Context(), c)
				if !errors.Is(err, scp.ErrSessionOver) || !errors.Is(err, scp.ErrResponseMAC) || len(l.sent) != sent {
					t.Errorf("after it: %v, %d commands sent", err, len(l.sent)-sent)
				}
				if _, err := s.EncryptSensitive(make([]byte, 16)); !errors.Is(err, scp.ErrSessionOver) {
					t.Errorf("EncryptSensitive after it: %v", err)
				}
			})
		}
	}
}

// Errors carry no R-MAC (AmdD 6.2.5); warnings do. The session goes on.
func TestWhichResponsesAreProtected(t *testing.T) {
	for _, level := range []scp.Level{scp.CMACRMAC, scp.Full} {
		set := testSet(t, 16)
		l := newLoopback(t, set)
		s := l.open(level, set)
		for sw, protected := range map[iso7816.SW]bool{
			iso7816.OK: true, 0x6200: true, 0x6283: true, 0x6300: true, 0x6310: true, 0x63C2: true,
			0x6400: false, 0x6581: false, 0x6700: false, 0x6982: false, 0x6A88: false, 0x6D00: false, 0x9001: false,
		} {
			l.process = func(iso7816.Command) iso7816.Response { return iso7816.Response{Data: []byte("data"), SW: sw} }
			r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA, Ne: 256})
			if err != nil || r.SW != sw {
				t.Fatalf("level %v, %v: %v %v", level, sw, r.SW, err)
			}
			wire := l.answered[len(l.answered)-1]
			if got := string(r.Data) == "data"; got != protected || (len(wire.Data) > 0) != protected {
				t.Errorf("level %v, %v: data %q, %d bytes on the wire", level, sw, r.Data, len(wire.Data))
			}
			// Data beside an error is nobody's: it must not reach the caller.
			l.response = func(r iso7816.Response) iso7816.Response {
				if !protected {
					r.Data = []byte("forged beside an error")
				}
				return r
			}
			if r, err = s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA, Ne: 256}); err != nil || (!protected && r.Data != nil) {
				t.Errorf("level %v, %v: %q %v", level, sw, r.Data, err)
			}
			l.response = nil
		}
	}
}

func TestTamperedCommand(t *testing.T) {
	for _, level := range levels[1:] {
		for name, tamper := range map[string]func(iso7816.Command) iso7816.Command{
			"INS":              func(c iso7816.Command) iso7816.Command { c.INS ^= 1; return c },
			"P1":               func(c iso7816.Command) iso7816.Command { c.P1 ^= 0x80; return c },
			"P2":               func(c iso7816.Command) iso7816.Command { c.P2++; return c },
			"first byte":       func(c iso7816.Command) iso7816.Command { c.Data[0] ^= 1; return c },
			"last byte of MAC": func(c iso7816.Command) iso7816.Command { c.Data[len(c.Data)-1] ^= 1; return c },
			"no MAC":           func(c iso7816.Command) iso7816.Command { c.Data = c.Data[:len(c.Data)-8]; return c },
			"MAC only":         func(c iso7816.Command) iso7816.Command { c.Data = c.Data[len(c.Data)-8:]; return c },
			"seven bytes":      func(c iso7816.Command) iso7816.Command { c.Data = c.Data[:7]; return c },
			"no data":          func(c iso7816.Command) iso7816.Command { c.Data = nil; return c },
			"in the clear": func(c iso7816.Command) iso7816.Command {
				return iso7816.Command{CLA: 0x80, INS: c.INS, P1: c.P1, P2: c.P2, Data: []byte("clear data here")}
			},
			"without the indication": func(c iso7816.Command) iso7816.Command { c.CLA = 0x80; return c },
			"extended":               func(c iso7816.Command) iso7816.Command { c.Extended = true; return c },
			"twice":                  nil,
		} {
			t.Run(fmt.Sprintf("%02X %s", byte(level), name), func(t *testing.T) {
				set := testSet(t, 16)
				l := newLoopback(t, set)
				s := l.open(level, set)
				processed := 0
				l.process = func(iso7816.Command) iso7816.Response { processed++; return iso7816.Response{SW: iso7816.OK} }
				c := iso7816.Command{CLA: 0x80, INS: 0xE2, Data: []byte("some data of a command")}
				if _, err := s.Send(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				wire := l.sent[len(l.sent)-1]
				if tamper == nil { // replay
					tamper = func(iso7816.Command) iso7816.Command { return wire }
				}
				l.onWire = tamper
				if r, err := s.Send(t.Context(), c); err != nil || r.SW != iso7816.ErrSecurityStatus {
					t.Fatalf("%v %v", r.SW, err)
				}
				if processed != 1 {
					t.Error("the card processed it")
				}
				if !l.card.Aborted() || l.card.Authenticated() || l.card.Level() != scp.None {
					t.Error("the channel is not aborted")
				}
				// Nothing passes now, not even in the clear, until INITIALIZE UPDATE.
				for _, cla := range []byte{0x80, 0x84} {
					if _, err := l.card.Unwrap(iso7816.Command{CLA: cla, INS: 0xCA}); !errors.Is(err, iso7816.ErrSecurityStatus) {
						t.Errorf("class %02X after it: %v", cla, err)
					}
				}
				if _, err := l.card.DecryptSensitive(make([]byte, 16)); err == nil {
					t.Error("DEK usable after it")
				}
				l.onWire = nil
				l.open(level, set)
				if !l.card.Authenticated() {
					t.Error("no new session")
				}
			})
		}
	}
}

func TestExternalAuthenticateRefuses(t *testing.T) {
	set := testSet(t, 16)
	for name, x := range map[string]struct {
		tamper  func(iso7816.Command) iso7816.Command
		accept  func(scp.Level) bool
		want    iso7816.SW
		aborted bool
	}{
		"cryptogram":       {tamper: func(c iso7816.Command) iso7816.Command { c.Data[0] ^= 1; return c }, want: iso7816.ErrAuthentication},
		"last of it":       {tamper: func(c iso7816.Command) iso7816.Command { c.Data[7] ^= 1; return c }, want: iso7816.ErrAuthentication},
		"MAC":              {tamper: func(c iso7816.Command) iso7816.Command { c.Data[15] ^= 1; return c }, want: iso7816.ErrSecurityStatus, aborted: true},
		"level lowered":    {tamper: func(c iso7816.Command) iso7816.Command { c.P1 = 0x01; return c }, want: iso7816.ErrSecurityStatus, aborted: true},
		"level unknown":    {tamper: func(c iso7816.Command) iso7816.Command { c.P1 = 0x23; return c }, want: iso7816.ErrIncorrectP1P2},
		"P2":               {tamper: func(c iso7816.Command) iso7816.Command { c.P2 = 1; return c }, want: iso7816.ErrIncorrectP1P2},
		"too short":        {tamper: func(c iso7816.Command) iso7816.Command { c.Data = c.Data[:15]; return c }, want: iso7816.ErrWrongLength},
		"without class":    {tamper: func(c iso7816.Command) iso7816.Command { c.CLA = 0x80; return c }, want: iso7816.ErrSecurityStatus},
		"level not wanted": {accept: func(l scp.Level) bool { return l == scp.CMAC }, want: iso7816.ErrSecurityStatus},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoopback(t, set)
			l.card = scp.NewCardSession(scp.CardOptions{Accept: x.accept, Keys: func(byte) (keys.Set, bool) { return set, true }})
			l.onWire = func(c iso7816.Command) iso7816.Command {
				if c.INS == 0x82 && x.tamper != nil {
					return x.tamper(c)
				}
				return c
			}
			_, err := scp.Open(t.Context(), l, set, scp.HostOptions{Level: scp.Full})
			if !errors.Is(err, x.want) {
				t.Fatalf("error %v, want %v", err, x.want)
			}
			if l.card.Authenticated() || l.card.Aborted() != x.aborted {
				t.Errorf("authenticated %v, aborted %v", l.card.Authenticated(), l.card.Aborted())
			}
			// The challenges are used up: the right command comes too late.
			if r := l.card.ExternalAuthenticate(l.sent[1]); r.SW != iso7816.ErrConditions {
				t.Errorf("a second EXTERNAL AUTHENTICATE: %v", r.SW)
			}
		})
	}
}

func TestInitializeUpdateRefuses(t *testing.T) {
	set := testSet(t, 16)
	for name, x := range map[string]struct {
		change func(*iso7816.Command)
		want   iso7816.SW
	}{
		"short challenge": {func(c *iso7816.Command) { c.Data = c.Data[:7] }, iso7816.ErrWrongLength},
		"long challenge":  {func(c *iso7816.Command) { c.Data = make([]byte, 16) }, iso7816.ErrWrongLength},
		"P2":              {func(c *iso7816.Command) { c.P2 = 1 }, iso7816.ErrIncorrectP1P2},
		"key version":     {func(c *iso7816.Command) { c.P1 = 2 }, iso7816.ErrDataNotFound},
		"class":           {func(c *iso7816.Command) { c.CLA = 0x00 }, iso7816.ErrUnknownCLA},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoopback(t, set)
			l.open(scp.CMAC, set)
			c := initializeUpdate()
			x.change(&c)
			if r := l.card.InitializeUpdate(c); r.SW != x.want || r.Data != nil {
				t.Errorf("%v, want %v", r.SW, x.want)
			}
			if l.card.Authenticated() {
				t.Error("the session before it lives on")
			}
		})
	}
}

// EXTERNAL AUTHENTICATE inside a session is no way to change its level.
func TestExternalAuthenticateInsideSession(t *testing.T) {
	set := testSet(t, 16)
	l := newLoopback(t, set)
	l.open(scp.Full, set)
	if r := l.card.ExternalAuthenticate(l.sent[1]); r.SW != iso7816.ErrConditions || l.card.Authenticated() {
		t.Errorf("%v, authenticated %v", r.SW, l.card.Authenticated())
	}
}

func TestWithoutSession(t *testing.T) {
	l := newLoopback(t, testSet(t, 16))
	c := iso7816.Command{CLA: 0x80, INS: 0xCA, Ne: 256}
	if got, err := l.card.Unwrap(c); err != nil || got.INS != c.INS {
		t.Errorf("in the clear: %v", err)
	}
	c.CLA = 0x84
	if _, err := l.card.Unwrap(c); !errors.Is(err, iso7816.ErrSecurityStatus) {
		t.Errorf("with secure messaging: %v", err)
	}
	if r := l.card.ExternalAuthenticate(iso7816.Command{CLA: 0x84, INS: 0x82, Data: make([]byte, 16)}); r.SW != iso7816.ErrConditions {
		t.Errorf("EXTERNAL AUTHENTICATE: %v", r.SW)
	}
}

func TestClose(t *testing.T) {
	set := testSet(t, 16)
	l := newLoopback(t, set)
	s := l.open(scp.Full, set)
	s.Close()
	s.Close()
	if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA}); !errors.Is(err, scp.ErrSessionOver) {
		t.Errorf("Send: %v", err)
	}
	if _, err := s.EncryptSensitive(make([]byte, 16)); !errors.Is(err, scp.ErrSessionOver) {
		t.Errorf("EncryptSensitive: %v", err)
	}
}

func TestLostAnswerEndsSession(t *testing.T) {
	k, err := scp.DeriveSessionKeys(testSet(t, 16), make([]byte, 8), make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	s := scp.ResumeHost(removed{}, k, scp.CMAC, [16]byte{}, 1)
	if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA}); !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Fatal(err)
	}
	if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA}); !errors.Is(err, scp.ErrSessionOver) || !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Errorf("after it: %v", err)
	}
}

type removed struct{}

func (removed) Send(context.Context, iso7816.Command) (iso7816.Response, error) {
	return iso7816.Response{}, iso7816.ErrCardRemoved
}

// The caller may erase what it passed, and the session's keys are its own.
func TestKeysAreCopied(t *testing.T) {
	set := testSet(t, 32)
	l := newLoopback(t, testSet(t, 32))
	s := l.open(scp.Full, set)
	plain := bytes.Repeat([]byte{0x5A}, 32)
	want, err := s.EncryptSensitive(plain)
	if err != nil {
		t.Fatal(err)
	}
	set.Erase()
	got, err := s.EncryptSensitive(plain)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("after Erase %X, before %X: %v", got, want, err)
	}
	if back, err := l.card.DecryptSensitive(got); err != nil || !bytes.Equal(back, plain) {
		t.Errorf("the card reads %X: %v", back, err)
	}
	if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA}); err != nil {
		t.Errorf("Send after Erase: %v", err)
	}
}

// Keys 40…4F and 50…5F encrypted under the DEK 00…0F, from kaoh/globalplatform,
// globalplatform/src/storeDataTest.c, test_build_store_data_keys_scp03_aes128.
func TestSensitiveDataVector(t *testing.T) {
	set := testSet(t, 16)
	set.DEK = key(t, unhex(t, "000102030405060708090A0B0C0D0E0F"))
	l := newLoopback(t, set)
	s := l.open(scp.CMAC, set)
	for plain, want := range map[string]string{
		"404142434445464748494A4B4C4D4E4F": "D533E59B45A153ED7E5E9C5DFCFD4AAA",
		"505152535455565758595A5B5C5D5E5F": "3EF0B1A5E3059DAB21FCE23A7B61C4CA",
	} {
		if got, err := s.EncryptSensitive(unhex(t, plain)); err != nil || !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%s: %X, %v", plain, got, err)
		}
	}
	for _, n := range []int{0, 1, 15, 17, 24} {
		if _, err := s.EncryptSensitive(make([]byte, n)); !errors.Is(err, scp.ErrSensitiveLength) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, err := l.card.DecryptSensitive(make([]byte, n)); !errors.Is(err, scp.ErrSensitiveLength) {
			t.Errorf("card, %d bytes: %v", n, err)
		}
	}
	set.DEK = keys.Key{}
	l = newLoopback(t, set)
	s = l.open(scp.CMAC, set)
	if _, err := s.EncryptSensitive(make([]byte, 16)); !errors.Is(err, scp.ErrNoDEK) {
		t.Errorf("without a DEK: %v", err)
	}
}

// The vector of express reading (docs/card-protocol.md): another label, and
// sessions on both sides that begin where it ends.
func TestLabelAndResume(t *testing.T) {
	set := keys.Set{
		ENC: key(t, unhex(t, "404142434445464748494A4B4C4D4E4F")),
		MAC: key(t, unhex(t, "505152535455565758595A5B5C5D5E5F")),
	}
	host, card := unhex(t, "A0A1A2A3A4A5A6A7A8A9AAABACADAEAF"), unhex(t, "C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF")
	k, err := scp.DeriveSessionKeysLabel(scp.Label([]byte("FREEAREA-X1")), set, host, card)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := sp800.Sum(k.MAC.Bytes(), append(unhex(t, "F0465245454152454101"), make([]byte, 6)...), unhex(t, "8454013318"), host)
	if err != nil || !bytes.Equal(mac[:8], unhex(t, "1FB5FE794B5FB66F")) {
		t.Fatalf("C-MAC %X, %v", mac, err)
	}
	l := newLoopback(t, testSet(t, 16))
	l.card = scp.ResumeCard(scp.CardOptions{Keys: func(byte) (keys.Set, bool) { return set, true }}, k, scp.Full, mac, 1)
	s := scp.ResumeHost(l, k, scp.Full, mac, 1)
	for range 3 {
		r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0x20, Data: []byte("123456"), Ne: 256})
		if err != nil || string(r.Data) != "123456" {
			t.Fatalf("%q %v", r.Data, err)
		}
	}
	// A session that begins elsewhere is another session.
	s = scp.ResumeHost(l, k, scp.Full, mac, 1)
	if r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0x20}); err != nil || r.SW != iso7816.ErrSecurityStatus {
		t.Errorf("%v %v", r.SW, err)
	}
}

func TestDerivationIsBoundToTheLabel(t *testing.T) {
	set := testSet(t, 16)
	a, _ := scp.DeriveSessionKeys(set, make([]byte, 8), make([]byte, 8))
	b, _ := scp.DeriveSessionKeysLabel(scp.Label{10: 1}, set, make([]byte, 8), make([]byte, 8))
	if a.ENC.Equal(b.ENC) || a.MAC.Equal(b.MAC) || a.RMAC.Equal(b.RMAC) || a.MAC.Equal(a.RMAC) {
		t.Error("keys repeat")
	}
}

func TestNothingPrintsKeys(t *testing.T) {
	set := testSet(t, 16)
	l := newLoopback(t, set)
	s := l.open(scp.Full, set)
	k, _ := scp.DeriveSessionKeys(set, make([]byte, 8), make([]byte, 8))
	for _, v := range []any{k, &k, s, l.card} {
		for _, format := range []string{"%v", "%+v", "%#v"} {
			got := strings.ToUpper(fmt.Sprintf(format, v))
			for _, b := range [][]byte{k.ENC.Bytes(), set.DEK.Bytes()} {
				if strings.Contains(got, fmt.Sprintf("%X", b)) || strings.Contains(got, strings.ToUpper(fmt.Sprint(b))) {
					t.Errorf("%s of %T prints a key", format, v)
				}
			}
		}
	}
}

func TestSendAllocatesLittle(t *testing.T) {
	s, c := benchSession(t)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Send(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}); n > 12 {
		t.Errorf("%v allocations in one command at level 33, both sides' coding", n)
	}
}

// benchSession is a session over a card that costs as little as possible: it
// unwraps and answers 200 bytes.
func benchSession(t testing.TB) (*scp.Session, iso7816.Command) {
	set := testSet(t, 16)
	k, err := scp.DeriveSessionKeys(set, make([]byte, 8), make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	card := scp.ResumeCard(scp.CardOptions{}, k, scp.Full, [16]byte{}, 1)
	answer := make([]byte, 200)
	s := scp.ResumeHost(sender(func(c iso7816.Command) iso7816.Response {
		if _, err := card.Unwrap(c); err != nil {
			t.Fatal(err)
		}
		return card.Wrap(iso7816.Response{Data: answer, SW: iso7816.OK})
	}), k, scp.Full, [16]byte{}, 1)
	return s, iso7816.Command{CLA: 0x80, INS: 0x20, P2: 1, Data: make([]byte, 12), Ne: 256}
}

func BenchmarkSend(b *testing.B) {
	s, c := benchSession(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Send(context.Background(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	set := testSet(b, 16)
	card := scp.NewCardSession(scp.CardOptions{Keys: func(byte) (keys.Set, bool) { return set, true }})
	wire := sender(func(c iso7816.Command) iso7816.Response {
		if c.INS == 0x50 {
			return card.InitializeUpdate(c)
		}
		return card.ExternalAuthenticate(c)
	})
	b.ReportAllocs()
	for b.Loop() {
		s, err := scp.Open(context.Background(), wire, set, scp.HostOptions{Level: scp.Full})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
