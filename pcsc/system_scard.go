//go:build !nopcsc && (cgo || windows)

package pcsc

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ebfe/scard"
)

// Built reports whether this program holds a PC/SC implementation.
const Built = true

// system is the PC/SC library of this machine.
type system struct{}

func (system) establish() (sess session, err error) {
	defer guard(&err)
	ctx, err := scard.EstablishContext()
	if err != nil {
		return nil, coded(err)
	}
	return &scardSession{ctx: ctx, mark: marks.take()}, nil
}

// scardSession is a context of the binding.
type scardSession struct {
	ctx  *scard.Context
	mark int
}

func (s *scardSession) release() (err error) {
	defer guard(&err)
	defer marks.give(s.mark)
	return coded(s.ctx.Release())
}

func (s *scardSession) readers() (names []string, err error) {
	defer guard(&err)
	// The list is read in two steps, and a device may come between them.
	for range 3 {
		names, err = s.ctx.ListReaders()
		if err != scard.ErrInsufficientBuffer {
			break
		}
	}
	switch err {
	case nil:
		return names, nil
	case scard.ErrNoReadersAvailable:
		return nil, nil
	}
	return nil, coded(err)
}

func (s *scardSession) wait(states []slotState, timeout time.Duration) (err error) {
	defer guard(&err)
	if len(states) == 0 { // the binding panics
		return CodeTimeout
	}
	asked := make([]scard.ReaderState, len(states))
	for i, st := range states {
		asked[i] = scard.ReaderState{
			Reader:       markName(st.name, s.mark),
			CurrentState: scard.StateFlag(st.flags),
		}
	}
	if err := s.ctx.GetStatusChange(asked, timeout); err != nil {
		return coded(err)
	}
	for i := range asked {
		states[i].flags = stateFlags(asked[i].EventState)
		states[i].atr = asked[i].Atr
	}
	return nil
}

func (s *scardSession) connect(slot string, exclusive bool) (h handle, err error) {
	defer guard(&err)
	card, err := s.ctx.Connect(slot, shareMode(exclusive), scard.ProtocolAny)
	if err != nil {
		return nil, coded(err)
	}
	out := &scardHandle{card: card}
	if err := out.checkProtocol(); err != nil {
		card.Disconnect(scard.LeaveCard)
		return nil, err
	}
	return out, nil
}

func shareMode(exclusive bool) scard.ShareMode {
	if exclusive {
		return scard.ShareExclusive
	}
	return scard.ShareShared
}

func disposition(reset bool) scard.Disposition {
	if reset {
		return scard.ResetCard
	}
	return scard.LeaveCard
}

// scardHandle is a connection of the binding to a card.
type scardHandle struct{ card *scard.Card }

// checkProtocol refuses what the binding panics on when it transmits.
func (h *scardHandle) checkProtocol() error {
	if p := h.card.ActiveProtocol(); p != scard.ProtocolT0 && p != scard.ProtocolT1 {
		return CodeProtoMismatch
	}
	return nil
}

func (h *scardHandle) atr() (atr []byte, err error) {
	defer guard(&err)
	status, err := h.card.Status()
	if err != nil {
		return nil, coded(err)
	}
	return append([]byte(nil), status.Atr...), nil
}

func (h *scardHandle) transmit(command []byte) (answer []byte, err error) {
	defer guard(&err)
	if len(command) == 0 { // the binding panics
		return nil, CodeInvalidParameter
	}
	if err := h.checkProtocol(); err != nil {
		return nil, err
	}
	got, err := h.card.Transmit(command)
	if err != nil {
		return nil, coded(err)
	}
	// The binding's buffer has 64 KiB; what is kept of it is a copy.
	return append(make([]byte, 0, len(got)), got...), nil
}

func (h *scardHandle) begin() (err error) {
	defer guard(&err)
	return coded(h.card.BeginTransaction())
}

func (h *scardHandle) end() (err error) {
	defer guard(&err)
	return coded(h.card.EndTransaction(scard.LeaveCard))
}

func (h *scardHandle) reconnect(exclusive, reset bool) (err error) {
	defer guard(&err)
	if err := h.card.Reconnect(shareMode(exclusive), scard.ProtocolAny, disposition(reset)); err != nil {
		return coded(err)
	}
	return h.checkProtocol()
}

func (h *scardHandle) disconnect(reset bool) (err error) {
	defer guard(&err)
	return coded(h.card.Disconnect(disposition(reset)))
}

// coded makes the binding's error one of ours.
func coded(err error) error {
	var e scard.Error
	if errors.As(err, &e) {
		return Code(e)
	}
	return err
}

// guard turns a panic of the binding into an error. The panics that are known
// are avoided where they arise; but a call that runs in a goroutine of ours
// must not end the program on what a driver answers (the binding indexes the
// library's answers unchecked).
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the PC/SC binding panicked: %v", p)
	}
}

// marks hands out small numbers to sessions.
//
// On systems other than Windows the binding keeps the names given to
// GetStatusChange alive in a map by name: of two sessions that wait for the
// same device at once, the first one's name may be collected while the C
// library still reads it. Each session therefore appends a number of its own
// behind the NUL that ends the name in C. The numbers are used again, since
// the binding's map never shrinks. This state belongs to the process because
// the binding's does.
var marks markPool

type markPool struct {
	mu   sync.Mutex
	used []bool
}

func (p *markPool) take() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, used := range p.used {
		if !used {
			p.used[i] = true
			return i
		}
	}
	p.used = append(p.used, true)
	return len(p.used) - 1
}

func (p *markPool) give(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[i] = false
}
