package pcsc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// Lengths of command APDUs, in bytes.
const (
	minCommand = 4
	// maxCommand: header, extended Lc, 65,535 bytes of data, extended Le. A
	// reader may take less (a virtual one 65,535 in all).
	maxCommand = 4 + 3 + iso7816.MaxExtendedData + 2
	minAnswer  = 2
)

// closeWait bounds how long Close and End wait for the PC/SC library. What is
// to be given back is given back later then, when the library returns.
const closeWait = 2 * time.Second

// resumeAttempts bounds how often Begin takes a card up again that others keep
// resetting.
const resumeAttempts = 3

// conn is an open card.
type conn struct {
	source *Source
	slot   string
	mode   iso7816.Mode

	// turn holds one token: whoever has it may call the library. A call that
	// was abandoned keeps it until the library returns.
	turn chan struct{}
	sess session
	h    handle

	mu          sync.Mutex
	atr         []byte
	interrupted bool // an abandoned command: the card's state is unknown
	inside      bool // between Begin and End
	closed      bool
	stuck       int // abandoned calls that the library still has
}

var (
	_ iso7816.Conn           = (*conn)(nil)
	_ iso7816.AnswerToReset  = (*conn)(nil)
	_ iso7816.Resetter       = (*conn)(nil)
	_ iso7816.Transactor     = (*conn)(nil)
	_ iso7816.ExtendedLength = (*conn)(nil)
)

func (s *Source) open(ctx context.Context, slot string, mode iso7816.Mode) (iso7816.Conn, error) {
	c, err := run(ctx, "open", slot, func() (*conn, error) {
		sess, err := s.establish()
		if err != nil {
			return nil, err
		}
		h, err := sess.connect(slot, mode == iso7816.Exclusive)
		if err != nil {
			err = opError("open", slot, err, classify)
			if e := (*Error)(nil); errors.As(err, &e) && serviceInDoubt(e.Code) && s.serviceGone() {
				e.class = ErrNoService
			}
			sess.release()
			return nil, err
		}
		atr, err := h.atr()
		if err != nil {
			h.disconnect(false)
			sess.release()
			return nil, opError("open", slot, err, classifyCard)
		}
		c := &conn{source: s, slot: slot, mode: mode, sess: sess, h: h, atr: atr, turn: make(chan struct{}, 1)}
		c.turn <- struct{}{}
		return c, nil
	}, (*conn).giveBack)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// giveBack ends the connection. The caller has the turn, or is alone.
func (c *conn) giveBack() {
	// An exclusive user may leave an authenticated session behind; the reset
	// ends it before anybody else gets the card.
	c.h.disconnect(c.mode == iso7816.Exclusive)
	c.sess.release()
}

// do calls f when it is its turn. When the context ends first, the caller gets
// its error, and the turn passes on when f returns: after undo, if any; and if
// spoils is set, to nobody but Reset.
func (c *conn) do(ctx context.Context, op string, f func() error, spoils bool, undo func()) error {
	select {
	case <-c.turn:
	default:
		select {
		case <-c.turn:
		case <-ctx.Done():
			return waitError(op, c.slot, ctx.Err())
		}
	}
	if err := c.usable(op); err != nil {
		c.turn <- struct{}{}
		return err
	}
	if err := ctx.Err(); err != nil {
		c.turn <- struct{}{}
		return waitError(op, c.slot, err)
	}
	var (
		mu        sync.Mutex
		returned  bool
		abandoned bool
	)
	done := make(chan error, 1)
	go func() {
		err := f()
		mu.Lock()
		returned = true
		late := abandoned
		mu.Unlock()
		if late {
			if err == nil && undo != nil {
				undo()
			}
			c.mu.Lock()
			c.stuck--
			c.mu.Unlock()
		}
		c.turn <- struct{}{}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	mu.Lock()
	if returned {
		mu.Unlock()
		return <-done
	}
	abandoned = true
	c.mu.Lock()
	c.stuck++
	c.interrupted = c.interrupted || spoils // before the turn can pass on
	c.mu.Unlock()
	mu.Unlock()
	return waitError(op, c.slot, ctx.Err())
}

// usable says why the connection can't be used now, if so.
func (c *conn) usable(op string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return &Error{Op: op, Slot: c.slot, class: ErrClosed}
	case c.interrupted && op != "reset":
		return &Error{Op: op, Slot: c.slot, class: ErrInterrupted}
	}
	return nil
}

// fail turns what a call on the open card ended with into an error, and tells
// a service that is gone from a card that is gone.
func (c *conn) fail(op string, err error) error {
	err = opError(op, c.slot, err, classifyCard)
	var e *Error
	if errors.As(err, &e) && serviceInDoubt(e.Code) && c.source.serviceGone() {
		e.class = ErrNoService
	}
	return err
}

func (c *conn) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if n := len(command); n < minCommand || n > maxCommand {
		return nil, fmt.Errorf("pcsc: transmit %q: %w: %d bytes, %d to %d allowed",
			c.slot, iso7816.ErrMalformedCommand, n, minCommand, maxCommand)
	}
	// The caller may use its buffer again after it has given up waiting.
	command = append([]byte(nil), command...)
	var answer []byte
	err := c.do(ctx, "transmit", func() error {
		got, err := c.h.transmit(command)
		switch {
		case errors.Is(err, CodeResetCard):
			// Take the card up again, so that the connection can be used on;
			// but the caller must know that its selection is lost.
			if again := c.takeUp(false); again != nil {
				return c.fail("transmit", again)
			}
			return c.fail("transmit", err)
		case err != nil:
			return c.fail("transmit", err)
		case len(got) < minAnswer:
			return &Error{Op: "transmit", Slot: c.slot, class: iso7816.ErrCardRemoved}
		}
		answer = got
		return nil
	}, true, nil)
	if err != nil {
		return nil, err // not answer: an abandoned call may still write it
	}
	return answer, nil
}

// takeUp reconnects, with or without a reset, and learns the answer to reset.
func (c *conn) takeUp(reset bool) error {
	if err := c.h.reconnect(c.mode == iso7816.Exclusive, reset); err != nil {
		return err
	}
	atr, err := c.h.atr()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.atr = atr
	c.mu.Unlock()
	return nil
}

// ATR returns the answer to reset, as of the last reset on this connection.
func (c *conn) ATR() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.atr...)
}

// ExtendedLength reports what [Options] said.
func (c *conn) ExtendedLength() bool { return c.source.opts.ExtendedLength }

// Reset powers the card off and on.
func (c *conn) Reset(ctx context.Context) error {
	return c.do(ctx, "reset", func() error {
		if err := c.takeUp(true); err != nil {
			return c.fail("reset", err)
		}
		c.mu.Lock()
		c.interrupted = false
		c.mu.Unlock()
		return nil
	}, true, nil)
}

// Begin waits until no other program is inside a transaction and starts one. A
// card that was reset since is taken up again.
func (c *conn) Begin(ctx context.Context) error {
	return c.do(ctx, "begin transaction", func() error {
		err := c.h.begin()
		for i := 0; i < resumeAttempts && errors.Is(err, CodeResetCard); i++ {
			if err = c.takeUp(false); err == nil {
				err = c.h.begin()
			}
		}
		if err != nil {
			return c.fail("begin transaction", err)
		}
		c.setInside(true)
		return nil
	}, false, func() {
		c.h.end()
		c.setInside(false)
	})
}

func (c *conn) setInside(v bool) {
	c.mu.Lock()
	c.inside = v
	c.mu.Unlock()
}

// End ends the transaction and leaves the card as it is. A card that is gone
// or was reset has no transaction to end, so that is no error; nor is a
// transaction that an abandoned command still holds: it ends with that.
func (c *conn) End() error {
	err := c.lastly(func() error {
		c.mu.Lock()
		inside := c.inside && !c.closed
		c.inside = false
		c.mu.Unlock()
		if !inside {
			return nil
		}
		return c.fail("end transaction", c.h.end())
	})
	if errors.Is(err, iso7816.ErrCardRemoved) || errors.Is(err, ErrReset) {
		return nil
	}
	return err
}

// Close ends the connection, and a transaction with it. When the library is
// still inside an abandoned call, the connection is given back after it, and
// Close does not wait for that. Closing twice is no error.
func (c *conn) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	return c.lastly(func() error {
		c.giveBack()
		return nil
	})
}

// lastly calls f when it is its turn, and waits for it unless an abandoned
// call is in the way or the library takes longer than closeWait.
func (c *conn) lastly(f func() error) error {
	done := make(chan error, 1)
	go func() {
		<-c.turn
		err := f()
		c.turn <- struct{}{}
		done <- err
	}()
	c.mu.Lock()
	stuck := c.stuck > 0
	c.mu.Unlock()
	if stuck {
		return nil
	}
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return nil
	}
}
