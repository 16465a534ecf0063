package emulator

import "github.com/freearea/freearea/iso7816"

// What registry entries, load files and objects take of the persistent memory
// beyond their bytes.
const (
	entryOverhead  = 64 // an installed application
	fileOverhead   = 64 // a load file
	moduleOverhead = 16 // each module of a load file
	objectOverhead = 8  // each object of an application
)

// Memory is how much memory a card has and how much of it is used, in bytes.
// An installed application uses 64 bytes and its objects, an object 8 bytes
// more than its size; a load file uses 64 bytes, 16 for each module and the
// bytes of its load file data block. The same is used while the blocks of a
// load file come in. Objects of a linker's runtime use their bytes. A Security
// Domain uses 64 bytes and, for each key, stored data object and used token, 8
// bytes more than its size. What the card itself came with uses nothing, nor
// does what its Issuer Security Domain is given: that has a limit of its own.
type Memory struct {
	Persistent, PersistentUsed               int
	TransientReset, TransientResetUsed       int
	TransientDeselect, TransientDeselectUsed int // used: by the instance that uses most
}

// Free is the persistent memory that is not used.
func (m Memory) Free() int { return m.Persistent - m.PersistentUsed }

// Memory returns the use of the card's memory.
func (c *Card) Memory() Memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memory()
}

func (c *Card) memory() Memory {
	p := c.state.profile
	m := Memory{Persistent: p.PersistentMemory, TransientReset: p.TransientReset, TransientDeselect: p.TransientDeselect}
	for _, f := range c.state.files {
		m.PersistentUsed += f.size()
	}
	for _, o := range c.state.runtime {
		if o != nil {
			m.PersistentUsed += len(o.data)
		}
	}
	for _, e := range c.state.entries {
		m.PersistentUsed += e.size()
		m.TransientResetUsed += e.transientReset
		m.TransientDeselectUsed = max(m.TransientDeselectUsed, e.transientDeselect)
	}
	if c.session != nil {
		for _, l := range c.session.channels {
			if l != nil && l.loading != nil {
				m.PersistentUsed += fileOverhead + len(l.loading.data)
			}
		}
	}
	return m
}

// reserve reports 6A84 where n more bytes of persistent memory are not there.
func (c *Card) reserve(n int) error {
	if n > c.memory().Free() {
		return iso7816.ErrNoMemory
	}
	return nil
}

func (f *loadFile) size() int {
	if f.own {
		return 0
	}
	return fileOverhead + moduleOverhead*len(f.modules) + len(f.data)
}

func (e *entry) size() int {
	if e.own {
		return 0
	}
	n := entryOverhead
	if e.domain != nil {
		n += e.domain.size()
	}
	for _, o := range e.objects {
		if o != nil {
			n += objectOverhead + len(o.data)
		}
	}
	return n
}
