package pcsc_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/freearea/freearea/internal/pcscd"
)

// Answers to reset for the cards of these tests: T=1, contactless.
var (
	atrOne = []byte{0x3B, 0x88, 0x80, 0x01, 0x00, 0x00, 0x05, 0xE0, 0xB3, 0x81, 0xA1, 0x00, 0x7F}
	atrTwo = []byte{0x3B, 0x88, 0x80, 0x01, 0x00, 0x00, 0x41, 0xE0, 0xB3, 0x81, 0xA1, 0x00, 0x3B}
	// atrTooLong makes the reader's driver fail to power the card up, though
	// it sees one: a mute card.
	atrTooLong = make([]byte, 40)
)

// Control messages of the virtual reader.
const (
	powerOff = 0
	powerOn  = 1
	reset    = 2
	giveATR  = 4
)

// naiveCard is the simplest card behind a virtual reader. It is not the
// emulator: what goes wrong here is the way to the card, not the card.
type naiveCard struct {
	atr []byte
	// answer gives the whole answer to a command. On ok = false the card is
	// torn out instead.
	answer func(command []byte) (answer []byte, ok bool)
	// frame, if set, replaces the way an answer is sent.
	frame func(conn net.Conn, answer []byte)
	// controls receives what the reader does with the card's power; it may be nil.
	controls chan byte

	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

// echo answers a command with itself and 9000.
func echo(command []byte) ([]byte, bool) {
	return append(append([]byte(nil), command...), 0x90, 0x00), true
}

// insert puts the card into a reader; it is taken out at the end of the test.
func (c *naiveCard) insert(t testing.TB, r *pcscd.Reader) {
	c.serveOn(t, r.Listen())
}

// serveOn makes the card answer whoever dials.
func (c *naiveCard) serveOn(t testing.TB, l net.Listener) {
	if c.answer == nil {
		c.answer = echo
	}
	c.conns = make(map[net.Conn]bool)
	c.listener = l
	c.wg.Go(func() {
		for {
			conn, err := c.listener.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns[conn] = true
			c.mu.Unlock()
			c.wg.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(c.remove)
}

// remove takes the card out, in the middle of a command if there is one.
func (c *naiveCard) remove() {
	c.listener.Close()
	c.mu.Lock()
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
}

func (c *naiveCard) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
	}()
	buf := make([]byte, 2+65535)
	for {
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		// The driver sends the length and the message apart and waits for an
		// acknowledgement in between.
		quickAck(conn)
		n := int(binary.BigEndian.Uint16(buf))
		if _, err := io.ReadFull(conn, buf[2:2+n]); err != nil {
			return
		}
		message := buf[2 : 2+n]
		if n == 1 {
			if message[0] == giveATR {
				send(conn, c.atr)
			} else if c.controls != nil {
				c.controls <- message[0]
			}
			continue
		}
		answer, ok := c.answer(message)
		switch {
		case !ok:
			return
		case c.frame != nil:
			c.frame(conn, answer)
		default:
			send(conn, answer)
		}
	}
}

func send(conn net.Conn, message []byte) {
	out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message)))
	conn.Write(append(out, message...))
}

func quickAck(conn net.Conn) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}
