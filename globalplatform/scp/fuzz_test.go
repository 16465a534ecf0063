package scp

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"testing"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func FuzzParseKeyInformation(f *testing.F) {
	s8, s16 := make([]byte, 8), make([]byte, 16)
	f.Add(KeyInformation{KeyVersion: 1, Protocol: 3, I: 0x60, Challenge: s8, Cryptogram: s8}.Encode())
	f.Add(KeyInformation{KeyVersion: 0x30, Protocol: 3, I: 0x70, Challenge: s8, Cryptogram: s8, SequenceCounter: 2}.Encode())
	f.Add(KeyInformation{KeyVersion: 0x30, Protocol: 3, I: 0x71, Challenge: s16, Cryptogram: s16, SequenceCounter: 2}.Encode())
	f.Add(KeyInformation{KeyVersion: 0x20, Protocol: 2, Challenge: s8[:6], Cryptogram: s8, SequenceCounter: 2}.Encode())
	f.Add([]byte("00000000000000000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKeyInformation(b)
		if err != nil {
			if !errors.Is(err, ErrMalformedKeyInformation) && !errors.Is(err, ErrProtocolNotSupported) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		if !bytes.Equal(k.Encode(), b) {
			t.Errorf("%X re-encodes as %X", b, k.Encode())
		}
	})
}

// recorder takes down what the host sends.
type recorder struct{ sent iso7816.Command }

func (r *recorder) Send(_ context.Context, c iso7816.Command) (iso7816.Response, error) {
	r.sent = c
	return iso7816.Response{SW: iso7816.ErrUnknown}, nil
}

// fuzzProtocols are the codings that the fuzz tests go through.
var fuzzProtocols = []Protocol{SCP03, SCP03S16, {2, 0x75}}

// fuzzCoding returns the coding of a session, in the same state with every
// call.
func fuzzCoding(t testing.TB, p Protocol, level Level) coding {
	key, err := keys.NewKey(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	challenge := make([]byte, p.challengeSize())
	h, err := newHandshake(p, keys.Set{ENC: key, MAC: key, DEK: key}, challenge, KeyInformation{Challenge: challenge})
	if err != nil {
		t.Fatal(err)
	}
	ch, err := h.open(level, h.mac(iso7816.Command{}))
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// signed appends the right C-MAC to data that may be anything.
func signed(p Protocol, ch coding, cmd iso7816.Command) iso7816.Command {
	data := bytes.Clone(cmd.Data)
	switch ch := ch.(type) {
	case *channel:
		mac := ch.commandMAC(cmd.CLA, cmd.INS, cmd.P1, cmd.P2, data, cmd.Extended)
		cmd.Data = append(data, mac[:p.macSize()]...)
	case *channel02: // whose C-MAC covers what the data decrypts to
		plain := cmd
		if ch.level.HasCDecryption() && len(data) > 0 && len(data)%desBlock == 0 {
			plain.Data = bytes.Clone(data)
			var iv [desBlock]byte
			cipher.NewCBCDecrypter(ch.enc, iv[:]).CryptBlocks(plain.Data, plain.Data)
			if b, ok := unpad(plain.Data, desBlock); ok {
				plain.Data = b
			}
		}
		mac := ch.commandMAC(plain)
		cmd.Data = append(data, mac[:]...)
	}
	return cmd
}

// FuzzUnwrap gives the card commands of any form, with a MAC of whoever or a
// right one, so that what lies behind the MAC is reached too. What the card
// accepts is what a host would have sent.
func FuzzUnwrap(f *testing.F) {
	for protocol := range byte(len(fuzzProtocols)) {
		f.Add([]byte{0x84, 0xE2, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}, byte(1), protocol, false)
		f.Add([]byte{0x84, 0xE2, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0}, byte(5), protocol, true)
		f.Add([]byte{0x84, 0xE2, 0, 0}, byte(2), protocol, true)
		f.Add([]byte{0x80, 0xE2, 0, 0, 0}, byte(3), protocol, true)
		f.Add([]byte{0xE1, 0xE2, 0, 0, 0, 0, 2, 1, 2, 0, 0}, byte(4), protocol, true)
	}
	// Eight bytes that decrypt to padding under the keys of fuzzCoding.
	if c, ok := fuzzCoding(f, fuzzProtocols[2], CDecryption).(*channel02); ok {
		b := []byte{0x84, 0xE2, 0, 0, 8, 0x80, 0, 0, 0, 0, 0, 0, 0}
		c.enc.Encrypt(b[5:], b[5:])
		f.Add(b, byte(2), byte(2), true)
	}
	levels := []Level{None, CMAC, CDecryption, CMACRMAC, CDecRMAC, Full, RMAC}
	f.Fuzz(func(t *testing.T, b []byte, l, protocol byte, sign bool) {
		p, level := fuzzProtocols[int(protocol)%len(fuzzProtocols)], levels[int(l)%len(levels)]
		cmd, err := iso7816.ParseCommand(b)
		if err != nil || !p.Supports(level) {
			return
		}
		if sign {
			cmd = signed(p, fuzzCoding(t, p, level), cmd)
			if !cmd.Extended && len(cmd.Data) > iso7816.MaxShortData {
				return
			}
		}
		card := NewCardSession(CardOptions{})
		card.ch, card.level = fuzzCoding(t, p, level), level
		plain, err := card.Unwrap(cmd)
		if err != nil {
			var sw iso7816.SW
			if !errors.As(err, &sw) {
				t.Errorf("error of no status word: %v", err)
			}
			return
		}
		card.Wrap(iso7816.Response{Data: plain.Data, SW: iso7816.OK})
		if !level.HasCMAC() {
			return
		}
		if !sign {
			t.Fatalf("accepted without the key: %X", b)
		}
		if p.Number == 2 && len(plain.Data) == 0 && len(cmd.Data) > desBlock {
			return // encrypted padding alone, which ours does not send
		}
		host := &recorder{}
		s := &Session{card: host, ch: fuzzCoding(t, p, level), protocol: p, level: level}
		if _, err := s.Send(context.Background(), plain); err != nil && !errors.Is(err, ErrResponseMAC) {
			t.Fatalf("%+v can't be sent: %v", plain, err)
		}
		if !bytes.Equal(host.sent.Data, cmd.Data) || host.sent.Extended != cmd.Extended || macClass(host.sent.CLA) != macClass(cmd.CLA) {
			t.Errorf("accepted %+v, a host sends %+v", cmd, host.sent)
		}
	})
}

// FuzzUnprotect gives the host responses of any form, with a right MAC or
// without.
func FuzzUnprotect(f *testing.F) {
	for protocol := range byte(len(fuzzProtocols)) {
		f.Add([]byte{0x90, 0x00}, byte(2), protocol, false)
		f.Add(append(make([]byte, 16), 0x90, 0x00), byte(2), protocol, true)
		f.Add([]byte{0x90, 0x00}, byte(0), protocol, true)
		f.Add(append(make([]byte, 7), 0x63, 0x10), byte(1), protocol, true)
		f.Add([]byte{0x6A, 0x88}, byte(1), protocol, true)
	}
	levels := []Level{CMACRMAC, CDecRMAC, Full, RMAC}
	f.Fuzz(func(t *testing.T, b []byte, l, protocol byte, sign bool) {
		p, level := fuzzProtocols[int(protocol)%len(fuzzProtocols)], levels[int(l)%len(levels)]
		r, err := iso7816.ParseResponse(b)
		if err != nil || !p.Supports(level) {
			return
		}
		host, card := fuzzCoding(t, p, level), fuzzCoding(t, p, level)
		command := iso7816.Command{CLA: 0x80, INS: 0xCA, Ne: iso7816.MaxShortNe}
		if _, ok := card.unwrap(host.protect(command)); !ok {
			t.Fatal("the card refuses the command")
		}
		if sign {
			switch ch := fuzzCoding(t, p, level).(type) {
			case *channel:
				ch.protect(command)
				mac := ch.responseMAC(r.Data, r.SW)
				r.Data = append(bytes.Clone(r.Data), mac[:p.macSize()]...)
			case *channel02:
				ch.protect(command)
				mac := ch.responseMAC(r.Data, r.SW)
				r.Data = append(bytes.Clone(r.Data), mac[:]...)
			}
		}
		plain, err := host.unprotect(r)
		if err != nil {
			if !errors.Is(err, ErrResponseMAC) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if !protects(r.SW) {
			if len(plain.Data) > 0 {
				t.Errorf("%X beside %v", plain.Data, r.SW)
			}
			return
		}
		if !sign {
			t.Fatalf("accepted without the key: %X", b)
		}
		if got := card.wrap(plain); !bytes.Equal(got.Data, r.Data) {
			t.Errorf("accepted %X, a card sends %X", r.Data, got.Data)
		}
	})
}
