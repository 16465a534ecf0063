package emulator

import "github.com/freearea/freearea/emulator/oncard"

// commitOverhead is what each write takes of the commit capacity beyond its
// bytes.
const commitOverhead = 4

// transaction is the undo log of one command. There are two levels: the
// card's own transaction around INSTALL, the last LOAD and DELETE, and the
// application's, alone or inside of it.
type transaction struct {
	log    []undo
	system bool
	app    bool
	mark   int // length of the log when the application's began
	used   int // commit capacity used by the application's
}

// undo takes one write back.
type undo interface{ revert() }

// undoBytes are bytes of an object before a write.
type undoBytes struct {
	object *object
	offset int
	old    []byte
}

func (u *undoBytes) revert() { copy(u.object.data[u.offset:], u.old) }

// undoFunc is any other change.
type undoFunc func()

func (u undoFunc) revert() { u() }

func (t *transaction) open() bool { return t.system || t.app }

// record keeps how to take back a write that is about to happen.
func (t *transaction) record(u undo) {
	if t.open() {
		t.log = append(t.log, u)
	}
}

// capacity fails when n more bytes do not fit the application's transaction.
func (t *transaction) capacity(n, limit int) error {
	if !t.app {
		return nil
	}
	if t.used+n+commitOverhead > limit {
		return oncard.ErrCommitCapacity
	}
	t.used += n + commitOverhead
	return nil
}

// revertTo takes back what was written since the log had n records.
func (t *transaction) revertTo(n int) {
	for i := len(t.log) - 1; i >= n; i-- {
		t.log[i].revert()
	}
	t.log = t.log[:n]
}

// keep makes a write outside of the transaction outlive its abort: what the
// log remembers of the same bytes becomes what they are now.
func (t *transaction) keep(o *object, offset int, p []byte) {
	for _, u := range t.log {
		b, ok := u.(*undoBytes)
		if !ok || b.object != o {
			continue
		}
		from, to := max(offset, b.offset), min(offset+len(p), b.offset+len(b.old))
		if from < to {
			copy(b.old[from-b.offset:], p[from-offset:to-offset])
		}
	}
}

// change makes one persistent change that is no write into an object, as part
// of the open transaction if there is one.
func (c *Card) change(apply, revert func()) {
	c.step()
	c.tx.record(undoFunc(revert))
	c.dirty = true
	apply()
}

// system runs f in the card's own transaction: what f changed stays only if f
// returns no error, and neither power is lost nor anything panics before the
// commit, which is a write of its own.
func (c *Card) system(f func() error) (err error) {
	c.tx.system = true
	committed := false
	defer func() {
		if !committed && !c.lost {
			c.rollback()
		}
	}()
	if err := f(); err != nil {
		return err
	}
	c.abortApplication()
	c.step()
	committed = true
	c.tx = transaction{}
	return nil
}

// rollback takes back everything that is open.
func (c *Card) rollback() {
	if len(c.tx.log) > 0 {
		c.undone++
	}
	c.tx.revertTo(0)
	c.tx = transaction{}
}

// abortApplication takes back the application's transaction, if one is open:
// none outlives the call that began it.
func (c *Card) abortApplication() {
	if !c.tx.app {
		return
	}
	if len(c.tx.log) > c.tx.mark {
		c.undone++
	}
	c.tx.revertTo(c.tx.mark)
	c.tx.app, c.tx.used = false, 0
}
