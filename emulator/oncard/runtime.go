package oncard

import (
	"io"

	"github.com/freearea/freearea/iso7816"
)

// RuntimeLinker is a [Linker] whose load files need a runtime system that
// several applications share: a virtual machine has one heap for all of them,
// since objects of one package refer to each other whichever instance made
// them, and static fields belong to packages. [Card] alone offers memory by
// instance only.
//
// A card whose linker is a RuntimeLinker calls PowerOn each time that it gets
// power, and asks the result for everything that it would ask the linker for.
// With the loss of power it drops the runtime, and what it held in Go variables
// with it.
type RuntimeLinker interface {
	Linker
	// PowerOn starts a runtime over what sys holds. It writes nothing. The card
	// then calls Link for every load file that it has, in the order in which
	// they were loaded, so that packages come before those that import them.
	PowerOn(sys System) (Runtime, error)
}

// Runtime is a runtime system between power on and the loss of power.
//
// Link is called for load files that the runtime has met before, after power
// on, and for new ones inside the card's transaction around the last LOAD: an
// error takes back what Link wrote.
type Runtime interface {
	Linker
	// Unlink is called inside the card's transaction when a load file is being
	// deleted, after its instances are gone; an error refuses the deletion.
	Unlink(pkg iso7816.AID) error
}

// System is what the card offers a runtime: memory of its own, separate from
// that of the instances, with the same transactions as [Card]. There is one
// transaction at a time on a card.
//
// Handles of freed objects are given out again.
type System interface {
	// Alloc reserves memory that holds a copy of content, in one write. Without
	// room the error is iso7816.ErrNoMemory.
	Alloc(content []byte) (Handle, error)
	// Free gives an object's memory back.
	Free(h Handle) error
	// Handles is one more than the highest handle that was ever given out.
	Handles() int
	// View returns the object's bytes as they are in memory, nil for a free
	// handle. The caller must not change them; writes, and whatever takes
	// writes back, show in them for as long as the object exists.
	View(h Handle) []byte
	// Write, WriteNonAtomic and WriteOutside are as in Card. A range outside
	// the object panics.
	Write(h Handle, offset int, p []byte) error
	WriteNonAtomic(h Handle, offset int, p []byte) error
	WriteOutside(h Handle, offset int, p []byte) error
	// Begin, Commit and Abort are as in Card.
	Begin() error
	Commit() error
	Abort()
	// Undone counts how often the card has taken writes back: when it changes,
	// objects may have vanished or come back.
	Undone() int
	// SetTransient says how much transient memory an instance takes in all,
	// in bytes, as part of the open transaction; without room the error is
	// iso7816.ErrNoMemory. The runtime provides and clears the memory itself.
	SetTransient(instance iso7816.AID, event ClearEvent, n int) error
	// Open opens an installed instance, if it isn't: Module.Open has its card.
	Open(instance iso7816.AID) error
	// Room is what is left of the card's memories, in bytes.
	Room() Room
	// Random is the card's secure random generator.
	Random() io.Reader
	// Protocol is the transmission protocol: 0 for T=0, where commands and
	// responses go as ISO/IEC 7816-3 splits them, and 1 for T=1 and for cards
	// without contacts.
	Protocol() byte
	// Extended reports whether the card takes extended-length commands, and
	// Contactless whether it is one that is read without contacts.
	Extended() bool
	Contactless() bool
}

// Room is what is left of a card's memories, in bytes.
type Room struct {
	Persistent        int
	TransientReset    int
	TransientDeselect int // of the whole; each instance may take all of it
	Commit            int // capacity that the open transaction still has, or a new one would have
	CommitCapacity    int // the capacity of a transaction
}
