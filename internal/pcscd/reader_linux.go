package pcscd

import (
	"io"
	"net"
	"sync"
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

	mu   sync.Mutex
	card *cardListener // nil: no card
}

func newReader(name string, l net.Listener) *Reader {
	r := &Reader{Name: name, Addr: l.Addr().String(), listener: l, seen: make(chan struct{}), ended: make(chan struct{})}
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
		}
	}
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
// does, the reader is empty. The returned function takes the card out. (The process can't listen on Addr itself: the driver takes a refused
// connection for one that it has.)
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
				io.Copy(to, from)
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
