// Package oncard is the boundary between a card in software and an
// application that runs on it. The card owns everything that must survive or
// be forgotten: persistent memory, transient memory, transactions, life cycle
// states. An application owns behaviour only. After power off the card drops
// the [Application] and later makes a new one with [Module.Open], so what an
// application keeps in Go variables is at best a cache of handles, and
// volatile like a card's RAM.
//
// Native Go applications are one user of this boundary; a virtual machine
// that executes load files is another.
package oncard

import (
	"errors"
	"io"

	"github.com/freearea/freearea/iso7816"
)

// Linker makes a load file executable: it finds the modules that a card can
// run in it.
type Linker interface {
	// Link looks at a load file data block (GPCS C.2) that the card has
	// received whole, with its SHA-256. It returns the modules by AID that it
	// can execute. A load file that it knows nothing of is (nil, nil): the
	// file is kept but nothing in it can be installed. An error refuses the
	// load file.
	Link(pkg iso7816.AID, loadFile []byte, sha256 [32]byte) (map[iso7816.AID]Module, error)
}

// Module is an executable module: what makes application instances.
type Module interface {
	// Install allocates all that the instance will ever need and writes its
	// first content. It runs inside a transaction of the card's own, which no
	// commit capacity bounds: an error (an [iso7816.SW] where the application
	// chose one) or a panic leaves nothing behind. The application may still
	// use Begin, Commit and Abort within it; Commit then becomes final with
	// the installation.
	Install(card Card, p InstallParameters) error
	// Open attaches behaviour to an installed instance, after power on or
	// after Install. It allocates nothing persistent.
	Open(card Card) (Application, error)
}

// InstallParameters is what INSTALL [for install] says to the application
// (GPCS 11.5.2.3.2).
type InstallParameters struct {
	Privileges []byte // 1 or 3 bytes, as in the command
	Specific   []byte // value of tag C9, application specific parameters
}

// Application is an instance's behaviour. The card calls it from one
// goroutine at a time.
//
// The class byte of a command that it is given has no logical channel number:
// it reads as on the basic logical channel, with 04 for secure messaging.
type Application interface {
	// Select handles the SELECT command that chose this instance. A status
	// word other than 9000, 62xx and 63xx refuses the selection, unless the
	// application is [Selective].
	Select(cmd iso7816.Command) iso7816.Response
	// Process handles every further command while the instance is selected.
	// A SELECT by AID that matches no application of the card comes here too
	// (GPCS 6.4.2.1.2).
	Process(cmd iso7816.Command) iso7816.Response
	// Deselect tells that another application is about to be selected. It is
	// not called when power is lost.
	Deselect()
}

// Selective is offered by applications whose selection doesn't hang on the
// status word that answers SELECT.
type Selective interface {
	// Selected reports, right after Select, whether the instance let itself be
	// selected.
	Selected() bool
}

// Personalizable is offered by applications that take STORE DATA through
// their Security Domain (GPCS 7.3.3, 11.11).
type Personalizable interface {
	// Personalize handles one STORE DATA command after INSTALL [for
	// personalization]. cmd is the command with secure messaging taken off.
	Personalize(cmd iso7816.Command, channel SecureChannel) iso7816.Response
}

// MultiSelectable is offered by applications that can be selected on several
// logical channels at once. Without it, the card refuses to select an
// application while it, or another of the same load file, is selected on
// another channel. Deselect then comes with the last of the channels only.
type MultiSelectable interface {
	// MultiSelectable says that the application can be.
	MultiSelectable()
}

// ChannelSelectable is offered by applications that want to hear of each
// channel, as Java Card's MultiSelectable has it (JCRE 4.2, 4.6). The card calls
// its methods in the place of Select and Deselect while the application, or
// another of the same load file, is selected on another channel too; the flag
// says whether it is the application itself.
type ChannelSelectable interface {
	MultiSelectable
	SelectShared(cmd iso7816.Command, already bool) iso7816.Response
	DeselectShared(still bool)
}

// Uninstaller is offered by applications that must agree to their deletion.
type Uninstaller interface {
	// Uninstall is called before DELETE; an error refuses it. withFile says that
	// the load file goes too, with all of its instances.
	Uninstall(withFile bool) error
}

// SecureChannel is the Security Domain's channel as an application sees it.
type SecureChannel interface {
	// Level is the security level of the session (AmdD table 7-5: 01 C-MAC,
	// 02 C-DECRYPTION, 10 R-MAC, 20 R-ENCRYPTION) with 80 for AUTHENTICATED;
	// 0 without a session.
	Level() byte
	// DecryptSensitive decrypts data under the Security Domain's data
	// encryption key (AmdD 6.2.8), a multiple of 16 bytes.
	DecryptSensitive(data []byte) ([]byte, error)
}

// Life cycle states of an application (GPCS table 11-4).
const (
	Installed    byte = 0x03 // during Install, and until it is made selectable
	Selectable   byte = 0x07
	Personalized byte = 0x0F // application specific
	Locked       byte = 0x80 // a bit on top of the state before
)

// Errors of the transaction.
var (
	// ErrCommitCapacity reports a write that no longer fits the card's commit
	// capacity. The transaction is still open: the application aborts it.
	ErrCommitCapacity = errors.New("commit capacity used up")
	// ErrInTransaction reports Begin inside a transaction.
	ErrInTransaction = errors.New("a transaction is open already")
	// ErrNoTransaction reports Commit outside of one.
	ErrNoTransaction = errors.New("no transaction is open")
)

// Handle names an object in persistent memory within one instance. Handles
// are given out in order of allocation, from 0.
type Handle int

// Card is what the card offers one instance.
//
// A persistent write is atomic by itself: after power is lost it has happened
// whole or not at all. Several become one through a transaction, which can't
// outlive the command that began it: the card aborts it at the command's end
// and when power is lost.
type Card interface {
	Platform
	Registry
	// AID is the instance's.
	AID() iso7816.AID
	// Alloc reserves persistent memory of n bytes, all zero. Without room the
	// error is iso7816.ErrNoMemory.
	Alloc(n int) (Handle, error)
	// Free gives an object's memory back.
	Free(h Handle) error
	// Size returns the object's size in bytes.
	Size(h Handle) int
	// Read copies from the object at the offset into p. A range outside the
	// object panics: the card answers 6F00.
	Read(h Handle, offset int, p []byte)
	// Write writes p into the object at the offset, as part of the open
	// transaction if there is one. Inside a transaction it fails with
	// ErrCommitCapacity once the commit capacity is used up.
	Write(h Handle, offset int, p []byte) error
	// WriteNonAtomic writes p outside of any open transaction; power lost in
	// the middle leaves some bytes old and some new.
	WriteNonAtomic(h Handle, offset int, p []byte) error
	// WriteOutside writes atomically but outside of any open transaction: an
	// abort does not bring the old bytes back. PIN try counters use it.
	WriteOutside(h Handle, offset int, p []byte) error
	// Begin, Commit and Abort are the transaction. Begin inside one fails with
	// ErrInTransaction, Commit outside of one with ErrNoTransaction; Abort
	// outside of one does nothing.
	Begin() error
	Commit() error
	Abort()
	// Transient returns n bytes of memory, all zero, that the card clears when
	// the event occurs; without room the error is iso7816.ErrNoMemory. It may
	// be called in Open only, and an instance asks for the same amounts every
	// time: what the first Open after Install took is what the instance has.
	Transient(n int, event ClearEvent) ([]byte, error)
	// Random is the card's secure random generator.
	Random() io.Reader
	// LifeCycle is the instance's life cycle state, without the lock bit.
	LifeCycle() byte
	// SetLifeCycle changes it, as part of the open transaction if there is one.
	// Only states of Table 11-4 from SELECTABLE on (0XXXX111) can be set, and
	// none before the instance is selectable; the error is iso7816.ErrConditions.
	SetLifeCycle(state byte) error
}

// ClearEvent says when transient memory is cleared.
type ClearEvent int

const (
	// OnDeselect: when an application is selected, be it the same one again,
	// and on reset.
	OnDeselect ClearEvent = iota
	// OnReset: when the card is reset or loses power.
	OnReset
)
