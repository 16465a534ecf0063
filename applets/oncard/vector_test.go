package oncard

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/freearea/freearea/applets"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// memory is a card of one instance with nothing but memory: the emulated card
// has no way to put the vector's bytes, which are no EF.ID, into a slot.
type memory struct {
	card.Platform // none: base applications ask nothing of it
	card.Registry // nor of this
	objects [][]byte
	random  io.Reader
	state   byte
	events  []string // what happened to the PIN object
}

func (m *memory) AID() iso7816.AID { return iso7816.MustAID("F0465245454152454101") }
func (m *memory) Alloc(n int) (card.Handle, error) {
	m.objects = append(m.objects, make([]byte, n))
	return card.Handle(len(m.objects) - 1), nil
}
func (m *memory) Free(card.Handle) error { return errors.ErrUnsupported }
func (m *memory) Size(h card.Handle) int { return len(m.objects[h]) }
func (m *memory) Read(h card.Handle, at int, p []byte) {
	copy(p, m.objects[h][at:at+len(p)])
	if h == objPIN && at+len(p) > pinBlock {
		m.events = append(m.events, "compare")
	}
}
func (m *memory) Write(h card.Handle, at int, p []byte) error {
	copy(m.objects[h][at:at+len(p)], p)
	return nil
}
func (m *memory) WriteNonAtomic(h card.Handle, at int, p []byte) error { return m.Write(h, at, p) }
func (m *memory) WriteOutside(h card.Handle, at int, p []byte) error {
	m.events = append(m.events, fmt.Sprintf("outside %d = %d", at, p))
	return m.Write(h, at, p)
}
func (m *memory) Begin() error                                       { return nil }
func (m *memory) Commit() error                                      { return nil }
func (m *memory) Abort()                                             {}
func (m *memory) Transient(n int, _ card.ClearEvent) ([]byte, error) { return make([]byte, n), nil }
func (m *memory) Random() io.Reader                                  { return m.random }
func (m *memory) LifeCycle() byte                                    { return m.state }
func (m *memory) SetLifeCycle(s byte) error                          { m.state = s; return nil }

func count(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// The vector stands in docs/card-protocol.md ("Express reading"); it was
// computed by two implementations before this one was written. Expected: the
// card takes exactly this C-MAC and gives exactly this answer.
func TestExpressVector(t *testing.T) {
	params, err := applets.Base()[2].InstallParameters(applets.InstallSpec{DiversificationData: [10]byte{1}, KeySets: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range []bool{false, true} {
		m := &memory{random: bytes.NewReader(count(0xC0, 16)), state: card.Personalized}
		if pin {
			params[len(params)-1] = 1
		}
		typeD := module{applets.TypeD}
		if err := typeD.Install(m, card.InstallParameters{Specific: params}); err != nil {
			t.Fatal(err)
		}
		slot := m.objects[objSlot1]
		slot[slotRecordLen] = 5
		copy(slot[slotRecord:], count(1, 5))
		slot[slotKeySets] = 1
		slot[slotKeys+ksVersion], slot[slotKeys+ksLength] = 1, 16
		copy(slot[slotKeys+ksENC:], count(0x40, 16))
		copy(slot[slotKeys+ksMAC:], count(0x50, 16))
		m.objects[objControl][ctlActive] = 1
		a, err := typeD.Open(m)
		if err != nil {
			t.Fatal(err)
		}
		if r := a.Select(iso7816.Select(m.AID())); r.SW != iso7816.OK {
			t.Fatal(r.SW)
		}
		mac, _ := hex.DecodeString("1FB5FE794B5FB66F")
		r := a.Process(iso7816.Command{CLA: 0x84, INS: 0x54, P1: 1, P2: 0x33, Data: append(count(0xA0, 16), mac...), Ne: 256})
		want, _ := hex.DecodeString("8641F18F616DC7514AB607CF1DCFEAFDC853C55E0FAA0E39")
		if pin {
			if r.SW != iso7816.OK || len(r.Data) != 8 {
				t.Errorf("with a PIN it answers % X, %v", r.Data, r.SW)
			}
		} else if r.SW != iso7816.OK || !bytes.Equal(r.Data, want) {
			t.Errorf("answers % X, %v; want % X", r.Data, r.SW, want)
		}
	}
}

// The try is counted down, outside of any transaction, before the reference
// value is so much as read.
func TestTryCountedFirst(t *testing.T) {
	for _, c := range []struct {
		digits string
		want   []string
	}{
		{"1234", []string{"outside 0 = [2]", "compare", "outside 0 = [3]"}},
		{"9999", []string{"outside 0 = [2]", "compare"}},
	} {
		m := &memory{objects: make([][]byte, objPIN+1)}
		m.objects[objSlot1] = make([]byte, slotKeys)
		m.objects[objPIN] = append([]byte{3, 3, 0}, "1234\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"...)
		a := &application{card: m, typ: applets.TypeD, pin: true, volatile: make([]byte, volSize)}
		block := append([]byte(c.digits), bytes.Repeat([]byte{0xFF}, 8)...)
		r := a.verify(objSlot1, iso7816.Command{P2: 1, Data: block, Ne: 239})
		if !slices.Equal(m.events, c.want) {
			t.Errorf("VERIFY %s: %v and %q, want %q", c.digits, r.SW, m.events, c.want)
		}
		if open := a.volatile[volVerified] == 1; open != (c.digits == "1234") {
			t.Errorf("VERIFY %s: open %v", c.digits, open)
		}
	}
}
