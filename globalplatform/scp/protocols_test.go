package scp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var protocols = []scp.Protocol{
	{Number: 3, I: 0x00}, {Number: 3, I: 0x10}, {Number: 3, I: 0x20}, {Number: 3, I: 0x30}, {Number: 3, I: 0x60}, {Number: 3, I: 0x70},
	{Number: 3, I: 0x01}, {Number: 3, I: 0x11}, {Number: 3, I: 0x21}, {Number: 3, I: 0x31}, {Number: 3, I: 0x61}, {Number: 3, I: 0x71},
	{Number: 2, I: 0x15}, {Number: 2, I: 0x55}, {Number: 2, I: 0x35}, {Number: 2, I: 0x75},
}

var allLevels = append([]scp.Level{scp.RMAC}, levels...)

var testDomain = iso7816.MustAID("A000000151000000")

// counters is a card's memory of sequence counters.
type counters struct {
	values map[byte]uint32
	fail   error
}

func (c *counters) options(p scp.Protocol, set keys.Set) scp.CardOptions {
	return scp.CardOptions{
		Protocol: p, AID: testDomain, Rand: chacha(7),
		Keys:    func(v byte) (keys.Set, bool) { return set, v == 0 || v == set.Version },
		Counter: func(v byte) (uint32, error) { return c.values[v], nil },
		SetCounter: func(v byte, n uint32) error {
			if c.fail == nil {
				c.values[v] = n
			}
			return c.fail
		},
	}
}

func newProtocolLoopback(t testing.TB, p scp.Protocol, set keys.Set) (*loopback, *counters) {
	l, c := newLoopback(t, set), &counters{values: map[byte]uint32{}}
	l.card = scp.NewCardSession(c.options(p, set))
	return l, c
}

func hostOptions(p scp.Protocol, level scp.Level) scp.HostOptions {
	return scp.HostOptions{Level: level, Rand: chacha(1), Protocols: []scp.Protocol{p}, AID: testDomain, AllowDeprecated: true}
}

// What the tables of "i" allow, written down beside Supports.
func allowed(p scp.Protocol, l scp.Level) bool {
	if p.Number == 2 {
		return l == scp.None || l == scp.CMAC || l == scp.CDecryption ||
			(p.I == 0x35 || p.I == 0x75) && (l == scp.RMAC || l == scp.CMACRMAC || l == scp.CDecRMAC)
	}
	switch p.I &^ 1 {
	case 0x00, 0x10:
		return l == scp.None || l == scp.CMAC || l == scp.CDecryption
	case 0x20, 0x30:
		return l != scp.Full && l != scp.RMAC
	}
	return l != scp.RMAC
}

func TestEveryProtocolAndLevel(t *testing.T) {
	for _, p := range protocols {
		for _, level := range allLevels {
			t.Run(fmt.Sprintf("%v level %02X", p, byte(level)), func(t *testing.T) {
				set := testSet(t, 16)
				l, _ := newProtocolLoopback(t, p, set)
				s, err := scp.Open(t.Context(), l, set, hostOptions(p, level))
				if !allowed(p, level) {
					if !errors.Is(err, scp.ErrLevel) {
						t.Fatalf("host: %v", err)
					}
					// A host that asks for it nevertheless: the card refuses.
					if !refusesLevel(t, p, level) {
						t.Error("the card takes it")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if l.card.Level() != level || s.Protocol() != p {
					t.Fatalf("card at %v, protocol %v", l.card.Level(), s.Protocol())
				}
				secret := bytes.Repeat([]byte("secret sentence "), 16)
				for _, n := range []int{0, 1, 7, 8, 9, 15, 16, 17, 100, s.MaxData()} {
					data := secret[:n]
					l.process = func(c iso7816.Command) iso7816.Response {
						return iso7816.Response{Data: c.Data[:min(len(c.Data), s.MaxResponse())], SW: iso7816.OK}
					}
					r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, P1: 1, P2: 2, Data: data, Ne: 256})
					if err != nil || r.SW != iso7816.OK || !bytes.Equal(r.Data, data[:min(n, s.MaxResponse())]) {
						t.Fatalf("%d bytes: %X %v %v", n, r.Data, r.SW, err)
					}
					wire, answer := l.sent[len(l.sent)-1], l.answered[len(l.answered)-1]
					if n > 8 && bytes.Contains(wire.Data, data) == level.HasCDecryption() || n > 8 && bytes.Contains(answer.Data, r.Data) == level.HasREncryption() {
						t.Errorf("%d bytes: sent %X, answered %X", n, wire.Data, answer.Data)
					}
					if (wire.CLA == 0x84) != level.HasCMAC() {
						t.Errorf("class byte %02X", wire.CLA)
					}
				}
				if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, Data: secret[:min(s.MaxData()+1, 256)]}); level.HasCMAC() && !errors.Is(err, scp.ErrTooLong) {
					t.Errorf("too long: %v", err)
				}
				// An error, and a warning, and the session goes on.
				for _, sw := range []iso7816.SW{iso7816.ErrDataNotFound, iso7816.SWMoreData, iso7816.OK} {
					l.process = func(iso7816.Command) iso7816.Response { return iso7816.Response{SW: sw} }
					if r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA, Ne: 256}); err != nil || r.SW != sw {
						t.Errorf("%v: %v, %v", sw, r.SW, err)
					}
				}
				block := bytes.Repeat([]byte{0x5A}, 16)
				sealed, err := s.EncryptSensitive(block)
				if err != nil {
					t.Fatal(err)
				}
				if back, err := l.card.DecryptSensitive(sealed); err != nil || !bytes.Equal(back, block) || bytes.Equal(sealed, block) {
					t.Errorf("sensitive data: %X, %v", back, err)
				}
			})
		}
	}
}

// refusesLevel opens a session as a host that ignores what "i" says: it takes
// the answer of a card that says more.
func refusesLevel(t *testing.T, p scp.Protocol, level scp.Level) bool {
	set := testSet(t, 16)
	l, _ := newProtocolLoopback(t, p, set)
	claimed := scp.Protocol{Number: 2, I: p.I&0x40 | 0x35}
	if p.Number == 3 {
		claimed.Number, claimed.I = 3, p.I|0x60
		l.response = func(r iso7816.Response) iso7816.Response {
			if len(r.Data) > 13 {
				r.Data[12] = claimed.I
			}
			return r
		}
	}
	if !claimed.Supports(level) {
		return true // no host can ask
	}
	_, err := scp.Open(t.Context(), l, set, hostOptions(claimed, level))
	return errors.Is(err, iso7816.ErrSecurityStatus) && !l.card.Authenticated()
}

func TestInvalidProtocols(t *testing.T) {
	for _, p := range []scp.Protocol{{1, 0x05}, {2, 0x1A}, {2, 0x05}, {2, 0x14}, {2, 0x95}, {3, 0x40}, {3, 0x50}, {3, 0x62}, {3, 0x80}, {3, 0x41}, {0x11, 0}} {
		if p.Valid() {
			t.Errorf("%v is valid", p)
		}
		if _, err := scp.Initialize(t.Context(), nil, scp.HostOptions{Protocols: []scp.Protocol{p}}); !errors.Is(err, scp.ErrProtocolNotSupported) {
			t.Errorf("%v: %v", p, err)
		}
	}
	for name, o := range map[string]scp.CardOptions{
		"another protocol":    {Protocol: scp.Protocol{Number: 3, I: 0x40}},
		"SCP02, no counter":   {Protocol: scp.Protocol{Number: 2, I: 0x15}},
		"i = 70, no counter":  {Protocol: scp.Protocol{Number: 3, I: 0x70}, AID: testDomain},
		"i = 70, no AID":      {Protocol: scp.Protocol{Number: 3, I: 0x70}, Counter: func(byte) (uint32, error) { return 0, nil }, SetCounter: func(byte, uint32) error { return nil }},
		"SCP02 i=55, no AID":  {Protocol: scp.SCP02, Counter: func(byte) (uint32, error) { return 0, nil }, SetCounter: func(byte, uint32) error { return nil }},
		"half of the counter": {Protocol: scp.Protocol{Number: 2, I: 0x15}, Counter: func(byte) (uint32, error) { return 0, nil }},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			scp.NewCardSession(o)
		}()
	}
}

// SCP03 counts challenges, SCP02 opened sessions; neither turns over, and
// nothing goes out that was not kept.
func TestSequenceCounter(t *testing.T) {
	set := testSet(t, 16)
	for _, x := range []struct {
		p             scp.Protocol
		end           uint32
		asked, opened uint32 // counted by INITIALIZE UPDATE, by EXTERNAL AUTHENTICATE
		answered      uint32 // in the first session
	}{
		{scp.Protocol{Number: 3, I: 0x70}, 0xFFFFFF, 1, 0, 1},
		{scp.Protocol{Number: 3, I: 0x11}, 0xFFFFFF, 1, 0, 1},
		{scp.Protocol{Number: 2, I: 0x15}, 0xFFFF, 0, 1, 0},
		{scp.SCP02, 0xFFFF, 0, 1, 0},
	} {
		t.Run(x.p.String(), func(t *testing.T) {
			l, c := newProtocolLoopback(t, x.p, set)
			s, err := scp.Open(t.Context(), l, set, hostOptions(x.p, scp.CMAC))
			if err != nil {
				t.Fatal(err)
			}
			if got := s.KeyInformation().SequenceCounter; got != x.answered || c.values[1] != 1 {
				t.Errorf("answers %d, keeps %d", got, c.values[1])
			}
			// A failed authentication.
			wrong := set.Clone()
			wrong.MAC = key(t, bytes.Repeat([]byte{1}, 16))
			if _, err := scp.Open(t.Context(), l, wrong, hostOptions(x.p, scp.CMAC)); err == nil {
				t.Error("opened with wrong keys")
			}
			if want := 1 + x.asked; c.values[1] != want {
				t.Errorf("after a failure %d, want %d", c.values[1], want)
			}
			// A challenge that the host knows beforehand is its own business; the
			// next session's keys are others.
			first := s.KeyInformation()
			if s, err = scp.Open(t.Context(), l, set, hostOptions(x.p, scp.CMAC)); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(s.KeyInformation().Cryptogram, first.Cryptogram) {
				t.Error("the second session is the first")
			}

			c.values[1] = x.end - 1
			if _, err = scp.Open(t.Context(), l, set, hostOptions(x.p, scp.CMAC)); err != nil {
				t.Errorf("last value: %v", err)
			}
			if _, err = scp.Open(t.Context(), l, set, hostOptions(x.p, scp.CMAC)); !errors.Is(err, iso7816.ErrConditions) || c.values[1] != x.end {
				t.Errorf("after the last value: %v, %d", err, c.values[1])
			}
			c.values[1], c.fail = 5, errors.New("memory")
			if _, err = scp.Open(t.Context(), l, set, hostOptions(x.p, scp.CMAC)); !errors.Is(err, iso7816.ErrMemoryFailure) || l.card.Authenticated() {
				t.Errorf("counter not kept: %v, open %v", err, l.card.Authenticated())
			}
		})
	}
}

// A card that repeats a recorded challenge, or computes it for another
// application, is found out before the host sends anything.
func TestPseudoRandomChallengeIsChecked(t *testing.T) {
	set := testSet(t, 16)
	for _, p := range []scp.Protocol{{Number: 3, I: 0x70}, {Number: 3, I: 0x71}, {Number: 2, I: 0x55}, {Number: 2, I: 0x75}} {
		l, _ := newProtocolLoopback(t, p, set)
		o := hostOptions(p, scp.CMAC)
		o.AID = iso7816.MustAID("A0000001510001")
		if _, err := scp.Open(t.Context(), l, set, o); !errors.Is(err, scp.ErrCardChallenge) || len(l.sent) != 1 {
			t.Errorf("%v: %v, %d commands", p, err, len(l.sent))
		}
		o.AID = iso7816.AID{}
		if _, err := scp.Open(t.Context(), l, set, o); err != nil {
			t.Errorf("%v unchecked: %v", p, err)
		}
	}
}

// The first that the host names decides the length of its challenge; whoever
// answers must be among those named.
func TestProtocolChoice(t *testing.T) {
	set := testSet(t, 16)
	both := []scp.Protocol{scp.SCP03, {Number: 2, I: 0x15}}
	for _, p := range []scp.Protocol{{Number: 3, I: 0x60}, {Number: 3, I: 0x30}, {Number: 2, I: 0x15}} {
		l, _ := newProtocolLoopback(t, p, set)
		s, err := scp.Open(t.Context(), l, set, scp.HostOptions{Level: scp.CDecryption, Protocols: both})
		if err != nil || s.Protocol() != p {
			t.Errorf("%v: %v", p, err)
			continue
		}
		// Without leave no secret goes over SCP02.
		_, err = s.EncryptSensitive(make([]byte, 16))
		if refused := errors.Is(err, scp.ErrDeprecated); refused != (p.Number == 2) || s.AllowsSensitive() == refused {
			t.Errorf("%v: sensitive data: %v", p, err)
		}
	}
	l, _ := newProtocolLoopback(t, scp.SCP03S16, set)
	if _, err := scp.Open(t.Context(), l, set, scp.HostOptions{Protocols: both}); !errors.Is(err, iso7816.ErrWrongLength) {
		t.Errorf("8 bytes to a card with S16: %v", err)
	}
}

func TestTamperedCommand02(t *testing.T) {
	set := testSet(t, 16)
	for _, level := range []scp.Level{scp.CMAC, scp.CDecryption, scp.CDecRMAC} {
		for name, tamper := range map[string]func(iso7816.Command) iso7816.Command{
			"INS":           func(c iso7816.Command) iso7816.Command { c.INS ^= 1; return c },
			"P1":            func(c iso7816.Command) iso7816.Command { c.P1 ^= 0x80; return c },
			"P2":            func(c iso7816.Command) iso7816.Command { c.P2++; return c },
			"first byte":    func(c iso7816.Command) iso7816.Command { c.Data[0] ^= 1; return c },
			"padding":       func(c iso7816.Command) iso7816.Command { c.Data[len(c.Data)-9] ^= 1; return c },
			"last byte":     func(c iso7816.Command) iso7816.Command { c.Data[len(c.Data)-1] ^= 1; return c },
			"no MAC":        func(c iso7816.Command) iso7816.Command { c.Data = c.Data[:len(c.Data)-8]; return c },
			"MAC only":      func(c iso7816.Command) iso7816.Command { c.Data = c.Data[len(c.Data)-8:]; return c },
			"seven bytes":   func(c iso7816.Command) iso7816.Command { c.Data = c.Data[:7]; return c },
			"in the clear":  func(c iso7816.Command) iso7816.Command { return iso7816.Command{CLA: 0x80, INS: c.INS} },
			"another class": func(c iso7816.Command) iso7816.Command { c.CLA = 0x80; return c },
			"twice":         nil,
		} {
			l, _ := newProtocolLoopback(t, scp.Protocol{Number: 2, I: 0x75}, set)
			s, err := scp.Open(t.Context(), l, set, hostOptions(scp.Protocol{Number: 2, I: 0x75}, level))
			if err != nil {
				t.Fatal(err)
			}
			processed := 0
			l.process = func(iso7816.Command) iso7816.Response { processed++; return iso7816.Response{SW: iso7816.OK} }
			c := iso7816.Command{CLA: 0x80, INS: 0xE2, Data: []byte("some data of a command")}
			if _, err := s.Send(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			wire := l.sent[len(l.sent)-1]
			if l.onWire = tamper; tamper == nil { // replay
				l.onWire = func(iso7816.Command) iso7816.Command { return wire }
			}
			if r, err := s.Send(t.Context(), c); err != nil || r.SW != iso7816.ErrSecurityStatus {
				t.Errorf("level %v, %s: %v %v", level, name, r.SW, err)
			}
			if processed != 1 || !l.card.Aborted() {
				t.Errorf("level %v, %s: processed %d, aborted %v", level, name, processed, l.card.Aborted())
			}
		}
	}
}

func TestTamperedResponse02(t *testing.T) {
	set := testSet(t, 16)
	for _, level := range []scp.Level{scp.RMAC, scp.CMACRMAC, scp.CDecRMAC} {
		for name, tamper := range map[string]func(iso7816.Response) iso7816.Response{
			"first byte":      func(r iso7816.Response) iso7816.Response { r.Data[0] ^= 1; return r },
			"last byte":       func(r iso7816.Response) iso7816.Response { r.Data[len(r.Data)-1] ^= 1; return r },
			"status":          func(r iso7816.Response) iso7816.Response { r.SW = 0x6283; return r },
			"error with data": func(r iso7816.Response) iso7816.Response { r.SW = 0x6A88; return r },
			"error with MAC": func(r iso7816.Response) iso7816.Response {
				return iso7816.Response{SW: 0x6A88, Data: r.Data[len(r.Data)-8:]}
			},
			"no data":   func(r iso7816.Response) iso7816.Response { r.Data = nil; return r },
			"seven":     func(r iso7816.Response) iso7816.Response { r.Data = r.Data[:7]; return r },
			"an answer": nil,
		} {
			l, _ := newProtocolLoopback(t, scp.Protocol{Number: 2, I: 0x35}, set)
			s, err := scp.Open(t.Context(), l, set, hostOptions(scp.Protocol{Number: 2, I: 0x35}, level))
			if err != nil {
				t.Fatal(err)
			}
			c := iso7816.Command{CLA: 0x80, INS: 0xCA, Data: []byte("data"), Ne: 256}
			if _, err := s.Send(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			before := l.answered[len(l.answered)-1]
			if l.response = tamper; tamper == nil {
				l.response = func(iso7816.Response) iso7816.Response { return before }
			}
			if r, err := s.Send(t.Context(), c); !errors.Is(err, scp.ErrResponseMAC) || r.Data != nil {
				t.Errorf("level %v, %s: %X %v", level, name, r.Data, err)
			}
			l.response = nil
			if _, err := s.Send(t.Context(), c); !errors.Is(err, scp.ErrSessionOver) {
				t.Errorf("level %v, %s: after it %v", level, name, err)
			}
		}
		// An error's R-MAC may be left out, and counts nevertheless.
		l, _ := newProtocolLoopback(t, scp.Protocol{Number: 2, I: 0x35}, set)
		s, err := scp.Open(t.Context(), l, set, hostOptions(scp.Protocol{Number: 2, I: 0x35}, level))
		if err != nil {
			t.Fatal(err)
		}
		l.process = func(iso7816.Command) iso7816.Response { return iso7816.Response{SW: 0x6A88} }
		l.response = func(r iso7816.Response) iso7816.Response { return iso7816.Response{SW: r.SW} }
		if r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA, Ne: 256}); err != nil || r.SW != 0x6A88 {
			t.Errorf("level %v: %v, %v", level, r.SW, err)
		}
		l.response = nil
		if r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA, Ne: 256}); err != nil || r.SW != 0x6A88 {
			t.Errorf("level %v: after it %v, %v", level, r.SW, err)
		}
	}
}

func TestKeys02(t *testing.T) {
	p := scp.Protocol{Number: 2, I: 0x15}
	for _, size := range []int{24, 32} {
		set := testSet(t, size)
		l, _ := newProtocolLoopback(t, p, set)
		if r := l.card.InitializeUpdate(initializeUpdate()); r.SW != iso7816.ErrDataNotFound {
			t.Errorf("%d bytes: %v", size, r.SW)
		}
		l, _ = newProtocolLoopback(t, p, testSet(t, 16))
		if _, err := scp.Open(t.Context(), l, set, hostOptions(p, scp.CMAC)); !errors.Is(err, scp.ErrKeySet) || len(l.sent) != 1 {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	set := testSet(t, 16)
	set.DEK = keys.Key{}
	l, _ := newProtocolLoopback(t, p, set)
	s, err := scp.Open(t.Context(), l, set, hostOptions(p, scp.CMAC))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.EncryptSensitive(make([]byte, 8)); !errors.Is(err, scp.ErrNoDEK) {
		t.Errorf("without a DEK: %v", err)
	}
	if _, err := s.EncryptSensitive(make([]byte, 8)); !errors.Is(err, scp.ErrNoDEK) {
		t.Errorf("without a DEK: %v", err)
	}
}

// chained is a card that gathers chained commands before its loopback sees
// them, as a Security Domain does.
type chained struct {
	*loopback
	parts    int
	gathered []byte
	refuse   iso7816.SW // of the first part
}

func (c *chained) Send(ctx context.Context, cmd iso7816.Command) (iso7816.Response, error) {
	if cmd.INS != 0xE6 {
		return c.loopback.Send(ctx, cmd)
	}
	cmd = command(c.t, encode(c.t, cmd))
	c.parts++
	c.gathered = append(c.gathered, cmd.Data...)
	if cmd.P1&0x80 != 0 {
		if len(cmd.Data) != 255 || cmd.Ne != 0 {
			c.t.Errorf("part of %d bytes, Ne %d", len(cmd.Data), cmd.Ne)
		}
		if c.refuse != 0 {
			return iso7816.Response{SW: c.refuse}, nil
		}
		return iso7816.Response{SW: iso7816.OK}, nil
	}
	cmd.Data, c.gathered = c.gathered, nil
	return c.loopback.answer(cmd), nil
}

// Chaining (GPCS 11.1.5.1): the protection covers the whole, the card sees
// parts.
func TestSendChained(t *testing.T) {
	set := testSet(t, 16)
	for _, p := range []scp.Protocol{{Number: 3, I: 0x60}, {Number: 3, I: 0x61}, {Number: 2, I: 0x75}} {
		for _, level := range allLevels {
			if !p.Supports(level) {
				continue
			}
			for _, n := range []int{0, 1, 200, 223, 224, 239, 240, 247, 248, 255, 256, 500, 510, 1000} {
				l, _ := newProtocolLoopback(t, p, set)
				card := &chained{loopback: l}
				s, err := scp.Open(t.Context(), card, set, hostOptions(p, level))
				if err != nil {
					t.Fatal(err)
				}
				data := bytes.Repeat([]byte{0xA5, 0x5A, 1}, n)[:n]
				var got []byte
				l.process = func(c iso7816.Command) iso7816.Response {
					got = c.Data
					return iso7816.Response{Data: []byte{7}, SW: iso7816.OK}
				}
				r, err := s.SendChained(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE6, P1: 0x02, Data: data, Ne: 256})
				if err != nil || r.SW != iso7816.OK || !bytes.Equal(r.Data, []byte{7}) || !bytes.Equal(got, data) {
					t.Fatalf("%v, level %v, %d bytes: %v %v, card got %d bytes", p, level, n, r.SW, err, len(got))
				}
				if one := card.parts == 1; one != (n <= s.MaxData()) {
					t.Errorf("%v, level %v, %d bytes: %d commands", p, level, n, card.parts)
				}
				// The session goes on.
				if r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE6, Data: []byte{1}, Ne: 256}); err != nil || r.SW != iso7816.OK {
					t.Errorf("%v, level %v: after it %v %v", p, level, r.SW, err)
				}
			}
			l, _ := newProtocolLoopback(t, p, set)
			s, err := scp.Open(t.Context(), &chained{loopback: l, refuse: iso7816.ErrIncorrectP1P2}, set, hostOptions(p, level))
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.SendChained(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE6, Data: make([]byte, 300)})
			if err != nil || r.SW != iso7816.ErrIncorrectP1P2 {
				t.Errorf("%v, level %v: a card without chaining: %v %v", p, level, r.SW, err)
			}
			if _, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xCA}); !errors.Is(err, scp.ErrSessionOver) {
				t.Errorf("%v, level %v: after it %v", p, level, err)
			}
		}
	}
}
