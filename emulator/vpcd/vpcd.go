// Package vpcd connects a card in software to a virtual PC/SC reader: the
// "vpcd" of the vsmartcard project, with which pcscd and every program over it
// see the card like any other.
//
// The reader speaks frames of a length (2 bytes, big-endian) and that many
// bytes. A frame of one byte is for the slot: 0 power off, 1 power on, 2
// reset, 4 give the answer to reset. Only the last is answered. Every other
// frame is a command APDU, which the response APDU answers.
//
// Usually the reader waits for cards ([Dial]). In its reverse mode it connects
// to them ([Accept]), so that a card can listen on loopback where the reader
// would listen on every address.
//
// A card whose power is cut in the middle of a command closes the connection:
// that is how a reader sees a card that was pulled out.
package vpcd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/freearea/freearea/iso7816"
)

// DefaultPort is where the first slot of the virtual reader waits for cards in
// Debian's configuration; the second waits on the port after it.
const DefaultPort = 35963

// Card is what can be put into a virtual reader. *emulator.Card is one.
type Card interface {
	iso7816.Card
	iso7816.AnswerToReset
	iso7816.Resetter
	PowerOn()
	PowerOff()
}

// ErrProtocol reports a reader that sends what the protocol doesn't have.
var ErrProtocol = errors.New("reader violates the protocol")

// Controls of a slot.
const (
	powerOff  = 0
	powerOn   = 1
	reset     = 2
	answerATR = 4
)

// maxFrame is the longest frame: what its length can say. An APDU of 65,536
// bytes or more can't be carried.
const maxFrame = 0xFFFF

// Dial puts the card into the reader that waits at a TCP address
// ("127.0.0.1:35963") and serves it as [Serve] does.
func Dial(ctx context.Context, address string, card Card) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("virtual reader: %w", err)
	}
	return Serve(ctx, conn, card)
}

// Accept serves readers in reverse mode: they connect to the listener, one
// after the other, and find the card. It goes on when a reader disconnects or
// breaks off, for pcscd may have been restarted. It ends with the context, with
// an error of the card (its removal among them) and with one of the listener,
// which it closes.
func Accept(ctx context.Context, listener net.Listener, card Card) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	defer listener.Close()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("virtual reader: %w", err)
		}
		err = Serve(ctx, conn, card)
		if r := (*readerError)(nil); err != nil && !errors.As(err, &r) {
			return err
		}
	}
}

// Serve answers one reader on a connection until it disconnects (nil), the
// context ends (its error), or the card is removed (an error that wraps
// [iso7816.ErrCardRemoved]). It closes the connection and takes the card's
// power away.
func Serve(ctx context.Context, conn net.Conn, card Card) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer card.PowerOff()
	defer conn.Close()
	err := serve(ctx, conn, card)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// readerError is an error of the reader or of the way to it.
type readerError struct{ err error }

func (e *readerError) Error() string { return "virtual reader: " + e.err.Error() }
func (e *readerError) Unwrap() error { return e.err }

func serve(ctx context.Context, conn net.Conn, card Card) error {
	for {
		frame, err := read(conn)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &readerError{err}
		}
		var answer []byte
		if len(frame) == 1 {
			switch frame[0] {
			case powerOff:
				card.PowerOff()
				continue
			case powerOn:
				card.PowerOn()
				continue
			case reset:
				if err := card.Reset(ctx); err != nil {
					return err
				}
				continue
			case answerATR:
				answer = card.ATR()
			default:
				return &readerError{fmt.Errorf("%w: control %d", ErrProtocol, frame[0])}
			}
		} else if answer, err = card.Transmit(ctx, frame); err != nil {
			return err
		}
		if err := write(conn, answer); err != nil {
			return &readerError{err}
		}
	}
}

// read reads one frame. io.EOF means that the reader disconnected between two.
func read(conn net.Conn) ([]byte, error) {
	var header [2]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return nil, err
	}
	// The reader sends header and body apart and waits with the body until
	// the header is acknowledged, which the system would put off by 40 ms. It
	// has to be asked again each time: the setting doesn't last.
	acknowledge(conn)
	n := binary.BigEndian.Uint16(header[:])
	if n == 0 {
		return nil, fmt.Errorf("%w: empty frame", ErrProtocol)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(conn, frame); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return frame, nil
}

// write writes one frame in one piece.
func write(conn net.Conn, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("response of %d bytes, %d at most", len(payload), maxFrame)
	}
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(payload)), uint16(len(payload)))
	_, err := conn.Write(append(frame, payload...))
	return err
}
