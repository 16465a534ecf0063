package scp

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func FuzzParseKeyInformation(f *testing.F) {
	f.Add(KeyInformation{KeyVersion: 1, Protocol: 3, I: 0x60, Challenge: [8]byte{1}}.Encode())
	f.Add(KeyInformation{KeyVersion: 0x30, Protocol: 3, I: 0x70, SequenceCounter: 2}.Encode())
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

// FuzzUnwrap gives the card commands of any form, with a MAC of whoever or a
// right one, so that what lies behind the MAC is reached too. What the card
// accepts is what a host would have sent.
func FuzzUnwrap(f *testing.F) {
	f.Add([]byte{0x84, 0xE2, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}, byte(1), false)
	f.Add([]byte{0x84, 0xE2, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0}, byte(5), true)
	f.Add([]byte{0x84, 0xE2, 0, 0}, byte(2), true)
	f.Add([]byte{0x80, 0xE2, 0, 0, 0}, byte(3), true)
	f.Add([]byte{0xE1, 0xE2, 0, 0, 0, 0, 2, 1, 2, 0, 0}, byte(4), true)
	levels := []Level{None, CMAC, CDecryption, CMACRMAC, CDecRMAC, Full}
	key, err := keys.NewKey(make([]byte, 16))
	if err != nil {
		f.Fatal(err)
	}
	k := SessionKeys{ENC: key, MAC: key, RMAC: key}
	f.Fuzz(func(t *testing.T, b []byte, l byte, sign bool) {
		level := levels[int(l)%len(levels)]
		card := ResumeCard(CardOptions{}, k, level, [16]byte{}, 1)
		cmd, err := iso7816.ParseCommand(b)
		if err != nil {
			return
		}
		if sign {
			cmd.Data = bytes.Clone(cmd.Data)
			mac := card.ch.commandMAC(cmd.CLA, cmd.INS, cmd.P1, cmd.P2, cmd.Data, cmd.Extended)
			cmd.Data = append(cmd.Data, mac[:macSize]...)
			if !cmd.Extended && len(cmd.Data) > iso7816.MaxShortData {
				return
			}
		}
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
		host := &recorder{}
		if _, err := ResumeHost(host, k, level, [16]byte{}, 1).Send(context.Background(), plain); err != nil {
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
	f.Add([]byte{0x90, 0x00}, byte(2), false)
	f.Add(append(make([]byte, 16), 0x90, 0x00), byte(2), true)
	f.Add([]byte{0x90, 0x00}, byte(0), true)
	f.Add(append(make([]byte, 7), 0x63, 0x10), byte(1), true)
	levels := []Level{CMACRMAC, CDecRMAC, Full}
	key, err := keys.NewKey(make([]byte, 16))
	if err != nil {
		f.Fatal(err)
	}
	k := SessionKeys{ENC: key, MAC: key, RMAC: key}
	f.Fuzz(func(t *testing.T, b []byte, l byte, sign bool) {
		r, err := iso7816.ParseResponse(b)
		if err != nil {
			return
		}
		level := levels[int(l)%len(levels)]
		s := ResumeHost(nil, k, level, [16]byte{}, 1)
		card := ResumeCard(CardOptions{}, k, level, [16]byte{}, 1)
		s.ch.count()
		card.ch.count()
		if sign {
			mac := s.ch.responseMAC(r.Data, r.SW)
			r.Data = append(bytes.Clone(r.Data), mac[:macSize]...)
		}
		plain, err := s.unprotect(r)
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
		if got := card.Wrap(plain); !bytes.Equal(got.Data, r.Data) {
			t.Errorf("accepted %X, a card sends %X", r.Data, got.Data)
		}
	})
}
