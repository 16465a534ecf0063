package emulator

import (
	"errors"
	"fmt"
	"io"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// runtimeMemory is what the card shows to its linker's runtime:
// [oncard.System] over the card's own memory. It lives as long as the card has
// power.
type runtimeMemory struct{ card *Card }

var _ oncard.System = (*runtimeMemory)(nil)

// startRuntime links all load files, with a new runtime where the linker has
// one. A runtime that can't start leaves nothing executable.
func (c *Card) startRuntime() {
	c.session.linker = c.linker
	if l, ok := c.linker.(oncard.RuntimeLinker); ok {
		r, err := l.PowerOn(&runtimeMemory{card: c})
		if err != nil {
			c.session.linker, c.session.runtime = nil, nil
		} else {
			c.session.linker, c.session.runtime = r, r
		}
	}
	for _, f := range c.state.files {
		f.linked, f.refused = c.link(f.aid, f.data)
	}
}

// Refused names the load files that are on the card and were refused by the
// linker when the card last got power, with the linker's errors; it is nil
// where there are none. What they hold can't be selected.
func (c *Card) Refused() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, f := range c.state.files {
		if f.refused != nil && !f.own {
			errs = append(errs, fmt.Errorf("load file %v: %w", f.aid, f.refused))
		}
	}
	return errors.Join(errs...)
}

func (m *runtimeMemory) Alloc(content []byte) (oncard.Handle, error) {
	c := m.card
	if len(content) > maxMemory {
		return 0, iso7816.ErrNoMemory
	}
	if err := c.reserve(len(content)); err != nil {
		return 0, err
	}
	if err := c.tx.capacity(0, c.state.profile.CommitCapacity); err != nil {
		return 0, err
	}
	o := &object{data: append([]byte(nil), content...)}
	s := c.state
	for h, old := range s.runtime {
		if old == nil {
			c.change(func() { s.runtime[h] = o }, func() { s.runtime[h] = nil })
			return oncard.Handle(h), nil
		}
	}
	h := len(s.runtime)
	c.change(func() { s.runtime = append(s.runtime, o) }, func() { s.runtime = s.runtime[:h] })
	return oncard.Handle(h), nil
}

func (m *runtimeMemory) Free(h oncard.Handle) error {
	c := m.card
	o := m.object(h)
	if err := c.tx.capacity(0, c.state.profile.CommitCapacity); err != nil {
		return err
	}
	s := c.state
	c.change(func() { s.runtime[h] = nil }, func() { s.runtime[h] = o })
	return nil
}

func (m *runtimeMemory) Handles() int { return len(m.card.state.runtime) }

func (m *runtimeMemory) View(h oncard.Handle) []byte {
	if h < 0 || int(h) >= len(m.card.state.runtime) || m.card.state.runtime[h] == nil {
		return nil
	}
	b := m.card.state.runtime[h].data
	return b[:len(b):len(b)]
}

func (m *runtimeMemory) object(h oncard.Handle) *object {
	if m.View(h) == nil {
		panic("runtime: no such object")
	}
	return m.card.state.runtime[h]
}

func (m *runtimeMemory) part(h oncard.Handle, offset, n int) []byte {
	b := m.object(h).data
	if offset < 0 || n > len(b)-offset {
		panic("runtime: a write outside of its object")
	}
	return b[offset : offset+n : offset+n]
}

func (m *runtimeMemory) Write(h oncard.Handle, offset int, p []byte) error {
	c := m.card
	to := m.part(h, offset, len(p))
	if c.tx.open() {
		if err := c.tx.capacity(len(p), c.state.profile.CommitCapacity); err != nil {
			return err
		}
	}
	c.step()
	if c.tx.open() {
		c.tx.record(&undoBytes{m.object(h), offset, append([]byte(nil), to...)})
	}
	c.dirty = true
	copy(to, p)
	return nil
}

func (m *runtimeMemory) WriteNonAtomic(h oncard.Handle, offset int, p []byte) error {
	m.part(h, offset, len(p)) // the whole range must be there before anything is written
	half := (len(p) + 1) / 2
	m.writeThrough(h, offset, p[:half])
	if half < len(p) {
		m.writeThrough(h, offset+half, p[half:])
	}
	return nil
}

func (m *runtimeMemory) WriteOutside(h oncard.Handle, offset int, p []byte) error {
	m.writeThrough(h, offset, p)
	return nil
}

func (m *runtimeMemory) writeThrough(h oncard.Handle, offset int, p []byte) {
	c := m.card
	to := m.part(h, offset, len(p))
	c.step()
	c.dirty = true
	copy(to, p)
	c.tx.keep(m.object(h), offset, p)
}

func (m *runtimeMemory) Begin() error  { return (&instance{card: m.card}).Begin() }
func (m *runtimeMemory) Commit() error { return (&instance{card: m.card}).Commit() }
func (m *runtimeMemory) Abort()        { m.card.abortApplication() }
func (m *runtimeMemory) Undone() int   { return m.card.undone }

func (m *runtimeMemory) SetTransient(aid iso7816.AID, event oncard.ClearEvent, n int) error {
	c := m.card
	e := c.state.entry(aid)
	if e == nil || e.own || n < 0 {
		return iso7816.ErrConditions
	}
	taken, limit := &e.transientDeselect, c.state.profile.TransientDeselect
	if event == oncard.OnReset {
		used := c.memory()
		taken, limit = &e.transientReset, used.TransientReset-used.TransientResetUsed+e.transientReset
	}
	old := *taken
	if n > old && n > limit {
		return iso7816.ErrNoMemory
	}
	if n != old {
		c.change(func() { *taken = n }, func() { *taken = old })
	}
	return nil
}

func (m *runtimeMemory) Open(aid iso7816.AID) error {
	e := m.card.state.entry(aid)
	if e == nil || e.own {
		return iso7816.ErrConditions
	}
	_, err := m.card.open(e)
	return err
}

func (m *runtimeMemory) Room() oncard.Room {
	c := m.card
	used, p := c.memory(), c.state.profile
	r := oncard.Room{
		Persistent:        used.Free(),
		TransientReset:    used.TransientReset - used.TransientResetUsed,
		TransientDeselect: used.TransientDeselect,
		Commit:            p.CommitCapacity,
		CommitCapacity:    p.CommitCapacity,
	}
	if c.tx.app {
		r.Commit = max(0, p.CommitCapacity-c.tx.used)
	}
	return r
}

func (m *runtimeMemory) Random() io.Reader { return m.card.rand }
func (m *runtimeMemory) Protocol() byte    { return m.card.state.profile.Protocol() }
func (m *runtimeMemory) Extended() bool    { return m.card.state.profile.ExtendedLength }
func (m *runtimeMemory) Contactless() bool { return m.card.state.profile.Contactless }
