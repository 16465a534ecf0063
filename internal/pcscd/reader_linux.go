package pcscd

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Reader is a virtual reader of a daemon. The daemon dials it several times a
// second to see whether a card is there; whoever listens is the card.
type Reader struct {
	// Name is the reader's name in PC/SC.
	Name string
	// Addr is the address that the daemon dials.
	Addr string

	listener net.Listener
	seen     chan struct{} // closed when the daemon dials for the first time
	ended    chan struct{}

	mu     sync.Mutex
	card   *cardListener // nil: no card
	missed chan struct{} // closed, and replaced, when the daemon finds no card
}

func newReader(name string, l net.Listener) *Reader {
	r := &Reader{Name: name, Addr: l.Addr().String(), listener: l, seen: make(chan struct{}), ended: make(chan struct{}), missed: make(chan struct{})}
	go r.accept()
	return r
}

// accept hands the daemon's connections to the card. Without a card they are
// closed at once; the port stays taken, so that no other program gets it.
func (r *Reader) accept() {
	defer close(r.ended)
	first := sync.OnceFunc(func() { close(r.seen) })
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		first()
		r.mu.Lock()
		card := r.card
		r.mu.Unlock()
		if card == nil || !card.take(conn) {
			conn.Close()
			r.mu.Lock()
			close(r.missed)
			r.missed = make(chan struct{})
			r.mu.Unlock()
		}
	}
}

// Emptied waits until the daemon itself has found the reader empty: it dials
// in vain, and again, which it does when it has drawn its conclusions. That a
// client is told of an empty reader is not enough. When the daemon can't reset
// a card that was torn out, at the end of an exclusive connection, it says so
// at once; but if another card is in by the time of its next look, it has not
// seen the first one go nor the second one come, and shows an empty reader
// until that one is taken out.
func (r *Reader) Emptied(ctx context.Context) error {
	for range 2 {
		r.mu.Lock()
		missed := r.missed
		r.mu.Unlock()
		select {
		case <-missed:
		case <-ctx.Done():
			return fmt.Errorf("the daemon has not looked into the empty reader %q: %w", r.Name, ctx.Err())
		}
	}
	return nil
}

// Listen puts a card into the reader: the connections that the daemon makes
// from now on come out of the listener. Closing it takes the card out, as far
// as new connections are concerned; those that were accepted are the
// caller's. An earlier listener of the same reader is closed.
func (r *Reader) Listen() net.Listener {
	l := &cardListener{reader: r, conns: make(chan net.Conn), closed: make(chan struct{})}
	r.mu.Lock()
	before := r.card
	r.card = l
	r.mu.Unlock()
	if before != nil {
		before.Close()
	}
	return l
}

// Relay puts a card of another process into the reader: each connection that
// the daemon makes is passed on to addr, where that process listens. Until it
// does, the reader is empty. The returned function takes the card out. (The
// process can't listen on Addr itself: the driver takes a refused connection
// for one that it has.)
func (r *Reader) Relay(addr string) (remove func()) {
	l := r.Listen()
	done := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := make(map[net.Conn]bool)
	go func() {
		defer close(done)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			conns[in], conns[out] = true, true
			mu.Unlock()
			pass := func(to, from net.Conn) {
				copyAtOnce(to, from)
				to.Close()
				from.Close()
				mu.Lock()
				delete(conns, to)
				delete(conns, from)
				mu.Unlock()
			}
			wg.Go(func() { pass(out, in) })
			wg.Go(func() { pass(in, out) })
		}
	}()
	return func() {
		l.Close()
		<-done
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	}
}

// copyAtOnce copies from one connection to another until either ends, and
// acknowledges at once what comes: the driver sends a message in two parts and
// waits with the second for the acknowledgement of the first, which the system
// would put off by 40 ms.
func copyAtOnce(to, from net.Conn) {
	raw, err := from.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			raw.Control(func(fd uintptr) {
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
			})
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *Reader) close() {
	r.listener.Close()
	r.mu.Lock()
	card := r.card
	r.mu.Unlock()
	if card != nil {
		card.Close()
	}
	<-r.ended
}

// cardListener is a listener behind which a card sits.
type cardListener struct {
	reader *Reader
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *cardListener) take(conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.closed:
		return false
	}
}

func (l *cardListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *cardListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.reader.mu.Lock()
		if l.reader.card == l {
			l.reader.card = nil
		}
		l.reader.mu.Unlock()
	})
	return nil
}

func (l *cardListener) Addr() net.Addr { return l.reader.listener.Addr() }
