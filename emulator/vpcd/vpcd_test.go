package vpcd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/vpcd"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"go.uber.org/goleak"
)

func newCard(t *testing.T) *emulator.Card {
	t.Helper()
	p, err := emulator.LookupProfile("contactless")
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.NewKey(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	c, err := emulator.New(emulator.Config{
		Profile: p, IIN: []byte{1}, CIN: []byte{2}, Keys: keys.Set{Version: 1, ENC: k, MAC: k, DEK: k},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// reader is the other side: what vpcd does on its socket.
type reader struct {
	t    *testing.T
	conn net.Conn
}

// send sends a frame as vpcd does, header and body apart.
func (r reader) send(h string) {
	r.t.Helper()
	b := unhex(r.t, h)
	if _, err := r.conn.Write(binary.BigEndian.AppendUint16(nil, uint16(len(b)))); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r reader) receive() ([]byte, error) {
	var header [2]byte
	if _, err := io.ReadFull(r.conn, header[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(header[:]))
	_, err := io.ReadFull(r.conn, b)
	return b, err
}

func (r reader) want(command, response string) {
	r.t.Helper()
	r.send(command)
	got, err := r.receive()
	if err != nil || !bytes.Equal(got, unhex(r.t, response)) {
		r.t.Fatalf("%s: %X %v, want %s", command, got, err, response)
	}
}

func unhex(t *testing.T, h string) []byte {
	t.Helper()
	b, err := hex.DecodeString(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	atr      = "3B888001000005E0B381A1007F"
	getData  = "80CA004200"
	iin      = "4201019000"
	selectAP = "00A4040C0AD392F000260100000001"
)

// pair connects a reader and a card over TCP on loopback, either way round.
func pair(t *testing.T, reverse bool, serve func(ctx context.Context, address string, listener net.Listener) error) (reader, context.CancelFunc, <-chan error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, listener.Addr().String(), listener) }()
	var conn net.Conn
	if reverse {
		conn, err = net.Dial("tcp", listener.Addr().String())
	} else {
		conn, err = listener.Accept()
		listener.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); conn.Close(); listener.Close() })
	return reader{t, conn}, cancel, done
}

func TestProtocol(t *testing.T) {
	for name, reverse := range map[string]bool{"dial": false, "accept": true} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			card := newCard(t)
			r, cancel, done := pair(t, reverse, func(ctx context.Context, address string, l net.Listener) error {
				if reverse {
					return vpcd.Accept(ctx, l, card)
				}
				return vpcd.Dial(ctx, address, card)
			})
			r.want("04", atr)
			r.send("01")
			r.want("04", atr)
			r.want(getData, iin)
			r.want(selectAP, "9000")
			r.want(getData, "6D00")
			r.send("02") // reset forgets the selection
			r.want(getData, iin)
			r.want(selectAP, "9000")
			r.send("00") // a power cycle does, too
			r.want("04", atr)
			r.send("01")
			r.want(getData, iin)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
			if _, err := r.receive(); err == nil {
				t.Error("the connection is still open")
			}
		})
	}
}

func TestDialEndsWithReader(t *testing.T) {
	card := newCard(t)
	r, _, done := pair(t, false, func(ctx context.Context, address string, _ net.Listener) error {
		return vpcd.Dial(ctx, address, card)
	})
	r.want("04", atr)
	r.conn.Close()
	if err := <-done; err != nil {
		t.Errorf("the reader went: %v", err)
	}
	if _, err := card.Transmit(context.Background(), unhex(t, getData)); !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Errorf("out of the reader the card has power: %v", err)
	}
}

// In reverse mode the next reader finds the card, whatever the last one did.
func TestAcceptGoesOn(t *testing.T) {
	defer goleak.VerifyNone(t)
	card := newCard(t)
	r, cancel, done := pair(t, true, func(ctx context.Context, _ string, l net.Listener) error {
		return vpcd.Accept(ctx, l, card)
	})
	address := r.conn.RemoteAddr().String()
	for name, leave := range map[string]func(r reader){
		"closes":             func(r reader) { r.conn.Close() },
		"breaks off a frame": func(r reader) { _, _ = r.conn.Write([]byte{0, 9, 1}); r.conn.Close() },
		"unknown control":    func(r reader) { r.send("07") },
		"empty frame":        func(r reader) { r.send("") },
	} {
		r.want("04", atr)
		r.send("01")
		r.want(getData, iin)
		leave(r)
		if _, err := r.receive(); err == nil {
			t.Errorf("%s: the connection is still open", name)
		}
		r.conn.Close()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r = reader{t, conn}
		defer conn.Close()
	}
	r.want("04", atr)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A cut closes the connection in the middle of the command.
func TestTear(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		card := newCard(t)
		r, _, done := pair(t, reverse, func(ctx context.Context, address string, l net.Listener) error {
			if reverse {
				return vpcd.Accept(ctx, l, card)
			}
			return vpcd.Dial(ctx, address, card)
		})
		r.send("01")
		r.want(getData, iin)
		card.SetCut(emulator.Cut{Command: 1, Where: emulator.AfterCommand})
		r.send(getData)
		if b, err := r.receive(); err == nil {
			t.Errorf("a torn card answers %X", b)
		}
		if err := <-done; !errors.Is(err, iso7816.ErrCardRemoved) {
			t.Errorf("torn: %v", err)
		}
	}
}

// A card that fails for another reason ends the service, too, instead of
// letting reader after reader in.
func TestAcceptEndsWithTheCard(t *testing.T) {
	card := newCard(t)
	r, _, done := pair(t, true, func(ctx context.Context, _ string, l net.Listener) error {
		return vpcd.Accept(ctx, l, card)
	})
	r.send("01")
	r.want(getData, iin)
	card.Close()
	r.send(getData)
	if err := <-done; !errors.Is(err, emulator.ErrClosed) {
		t.Error(err)
	}
}

func TestDialWithoutReader(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	if err := vpcd.Dial(context.Background(), address, newCard(t)); err == nil {
		t.Error("nobody is there")
	}
}
