package iso7816

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// ErrCardRemoved reports that the card left the slot, or lost power, before
// it had answered. What the card did with the command is then unknown.
var ErrCardRemoved = errors.New("card removed")

// Card is anything that answers command APDUs, one at a time: it is not for
// concurrent use unless it says so.
type Card interface {
	// Transmit sends one command APDU and returns the response APDU, status
	// word included (at least 2 bytes). The error wraps [ErrCardRemoved] when
	// the card went away. A cancelled context ends the wait.
	Transmit(ctx context.Context, command []byte) (response []byte, err error)
}

// Conn is a card that somebody holds open and must close.
type Conn interface {
	Card
	io.Closer
}

// AnswerToReset is offered by cards that have an answer to reset.
type AnswerToReset interface {
	// ATR returns the answer to reset, 2 to 33 bytes (ISO/IEC 7816-3), or nil
	// while it is not known.
	ATR() []byte
}

// Resetter is offered by cards that can be reset without being removed.
type Resetter interface {
	// Reset powers the card off and on; every selection and session is lost.
	Reset(ctx context.Context) error
}

// Transactor is offered by cards that several programs may share.
type Transactor interface {
	// Begin gives the caller the card alone until End. Nobody waits for a
	// person inside a transaction.
	Begin(ctx context.Context) error
	// End gives the card back.
	End() error
}

// ExtendedLength is offered by cards that may be sent extended-length APDUs.
type ExtendedLength interface {
	// ExtendedLength reports whether both the card and its slot take them.
	ExtendedLength() bool
}

// Mode says how a slot's card is shared with other programs.
type Mode int

const (
	// Shared lets other programs use the card between transactions; the
	// application must be selected again in every transaction.
	Shared Mode = iota
	// Exclusive keeps other programs out until the card is closed.
	Exclusive
)

func (m Mode) String() string {
	if m == Exclusive {
		return "exclusive"
	}
	return "shared"
}

// EventKind tells what happened at a slot.
type EventKind int

const (
	// SlotAdded: a slot appeared (or was there when watching began).
	SlotAdded EventKind = iota
	// SlotRemoved: a slot disappeared.
	SlotRemoved
	// CardInserted: a card entered the slot (or was there when watching began).
	CardInserted
	// CardRemoved: the card left the slot.
	CardRemoved
)

func (k EventKind) String() string {
	names := [...]string{"slot added", "slot removed", "card inserted", "card removed"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("event %d", int(k))
	}
	return names[k]
}

// Event is a change at a slot.
type Event struct {
	Kind EventKind
	Slot string
	ATR  []byte // of the card, for CardInserted, where it is known
}

// SlotStatus is a slot as it is now.
type SlotStatus struct {
	Slot        string // name, as events and Open use it
	CardPresent bool
	ATR         []byte // of the card, where it is known
	InUse       bool   // another program holds the card exclusively
	Mute        bool   // a card is there but does not answer
}

// Source is a set of slots: PC/SC devices, or slots in memory.
type Source interface {
	// Slots lists the slots as they are now, sorted by name.
	Slots(ctx context.Context) ([]SlotStatus, error)
	// Events yields what is there now as SlotAdded and CardInserted events,
	// then every change, until the context ends or the caller stops. An error
	// is yielded once and ends the sequence.
	Events(ctx context.Context) iter.Seq2[Event, error]
	// Open connects to the card in a slot.
	Open(ctx context.Context, slot string, mode Mode) (Conn, error)
}
