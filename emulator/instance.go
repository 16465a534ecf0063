package emulator

import (
	"fmt"
	"io"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// instance is what the card shows to one application: [oncard.Card] over its
// registry entry. It lives as long as the card has power.
type instance struct {
	card  *Card
	entry *entry
	app   oncard.Application // nil while being installed

	opening         bool
	limited         bool // transient memory is bounded by what the entry has
	reset, deselect int  // bytes of transient memory taken
	clear           [][]byte
}

var _ oncard.Card = (*instance)(nil)

func (i *instance) AID() iso7816.AID { return i.entry.aid }

func (i *instance) Alloc(n int) (oncard.Handle, error) {
	c, e := i.card, i.entry
	switch {
	case n < 0:
		return 0, fmt.Errorf("object of %d bytes: %w", n, iso7816.ErrWrongData)
	case n > maxMemory:
		return 0, iso7816.ErrNoMemory
	}
	if err := c.reserve(objectOverhead + n); err != nil {
		return 0, err
	}
	if err := c.tx.capacity(0, c.state.profile.CommitCapacity); err != nil {
		return 0, err
	}
	h := len(e.objects)
	c.change(
		func() { e.objects = append(e.objects, &object{data: make([]byte, n)}) },
		func() { e.objects = e.objects[:h] },
	)
	return oncard.Handle(h), nil
}

func (i *instance) Free(h oncard.Handle) error {
	c, e := i.card, i.entry
	o := i.object(h)
	if err := c.tx.capacity(0, c.state.profile.CommitCapacity); err != nil {
		return err
	}
	c.change(
		func() { e.objects[h] = nil },
		func() { e.objects[h] = o },
	)
	return nil
}

func (i *instance) Size(h oncard.Handle) int { return len(i.object(h).data) }

func (i *instance) Read(h oncard.Handle, offset int, p []byte) {
	copy(p, i.part(h, offset, len(p)))
}

func (i *instance) Write(h oncard.Handle, offset int, p []byte) error {
	c := i.card
	to := i.part(h, offset, len(p))
	if err := c.tx.capacity(len(p), c.state.profile.CommitCapacity); err != nil {
		return err
	}
	c.step()
	c.tx.record(&undoBytes{i.object(h), offset, append([]byte(nil), to...)})
	c.dirty = true
	copy(to, p)
	return nil
}

func (i *instance) WriteNonAtomic(h oncard.Handle, offset int, p []byte) error {
	i.part(h, offset, len(p)) // the whole range must be there before anything is written
	half := (len(p) + 1) / 2
	i.writeThrough(h, offset, p[:half])
	if half < len(p) {
		i.writeThrough(h, offset+half, p[half:])
	}
	return nil
}

func (i *instance) WriteOutside(h oncard.Handle, offset int, p []byte) error {
	i.writeThrough(h, offset, p)
	return nil
}

// writeThrough writes in one step and outside of any transaction.
func (i *instance) writeThrough(h oncard.Handle, offset int, p []byte) {
	c := i.card
	to := i.part(h, offset, len(p))
	c.step()
	c.dirty = true
	copy(to, p)
	c.tx.keep(i.object(h), offset, p)
}

func (i *instance) Begin() error {
	t := &i.card.tx
	if t.app {
		return oncard.ErrInTransaction
	}
	t.app, t.mark, t.used = true, len(t.log), 0
	return nil
}

func (i *instance) Commit() error {
	t := &i.card.tx
	if !t.app {
		return oncard.ErrNoTransaction
	}
	if t.mark < len(t.log) {
		i.card.step() // power lost here still takes everything back
	}
	t.app, t.used = false, 0
	if !t.system {
		t.log = nil
	}
	return nil
}

func (i *instance) Abort() { i.card.abortApplication() }

func (i *instance) Transient(n int, event oncard.ClearEvent) ([]byte, error) {
	if !i.opening || n < 0 {
		return nil, iso7816.ErrConditions
	}
	taken, limit := &i.deselect, i.card.state.profile.TransientDeselect
	if event == oncard.OnReset {
		m := i.card.memory()
		taken, limit = &i.reset, m.TransientReset-m.TransientResetUsed
	}
	if i.limited {
		limit = i.entry.transientDeselect
		if event == oncard.OnReset {
			limit = i.entry.transientReset
		}
	}
	if n > limit-*taken {
		return nil, iso7816.ErrNoMemory
	}
	*taken += n
	b := make([]byte, n)
	if event == oncard.OnDeselect {
		i.clear = append(i.clear, b)
	}
	return b, nil
}

func (i *instance) Random() io.Reader { return i.card.rand }

func (i *instance) LifeCycle() byte { return i.entry.lifeCycle }

func (i *instance) SetLifeCycle(state byte) error {
	c, e := i.card, i.entry
	if state&0x87 != oncard.Selectable || e.lifeCycle < oncard.Selectable {
		return iso7816.ErrConditions
	}
	if err := c.tx.capacity(1, c.state.profile.CommitCapacity); err != nil {
		return err
	}
	old := e.lifeCycle
	c.change(func() { e.lifeCycle = state }, func() { e.lifeCycle = old })
	return nil
}

// object panics for a handle that names nothing: the application is at fault,
// and the card answers 6F00.
func (i *instance) object(h oncard.Handle) *object {
	if h < 0 || int(h) >= len(i.entry.objects) || i.entry.objects[h] == nil {
		panic(fmt.Sprintf("application %v: no object %d", i.entry.aid, h))
	}
	return i.entry.objects[h]
}

// part panics where the range is not inside the object, as object does.
func (i *instance) part(h oncard.Handle, offset, n int) []byte {
	o := i.object(h)
	if offset < 0 || n > len(o.data)-offset {
		panic(fmt.Sprintf("application %v: %d bytes at %d of object %d, which has %d", i.entry.aid, n, offset, h, len(o.data)))
	}
	return o.data[offset : offset+n : offset+n]
}

// deselected clears what is cleared when an application is selected.
func (i *instance) deselected() {
	for _, b := range i.clear {
		clear(b)
	}
}

// open returns the running instance of an entry, and begins to run it where it
// isn't. Something that can't be executed gives iso7816.ErrFuncNotSupported.
func (c *Card) open(e *entry) (*instance, error) {
	if i := c.session.running[e]; i != nil {
		return i, nil
	}
	if e.own {
		i := &instance{card: c, entry: e, app: resident{e.aid}}
		c.session.running[e] = i
		return i, nil
	}
	m := c.state.module(e)
	if m == nil {
		return nil, iso7816.ErrFuncNotSupported
	}
	i := &instance{card: c, entry: e, limited: true}
	if err := i.start(m); err != nil {
		return nil, err
	}
	c.session.running[e] = i
	return i, nil
}

// start attaches the module's behaviour.
func (i *instance) start(m oncard.Module) error {
	i.opening = true
	app, err := m.Open(i)
	i.opening = false
	if err == nil && app == nil {
		err = iso7816.ErrUnknown
	}
	i.app = app
	return err
}
