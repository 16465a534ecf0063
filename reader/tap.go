package reader

import (
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
)

// Tap is what a card said, and how far it can be believed.
type Tap struct {
	TapID    string // random, 32 hexadecimal digits: this tap and no other
	Slot     string // where, "" when the card was given by itself
	At       time.Time
	Duration time.Duration // from the first command to the last answer, waiting for a PIN left out

	Service     string // id of the service
	Profile     string // "common-ap", "type-a", "type-d", …
	Instance    iso7816.AID
	ID          string
	IssueNumber uint16
	Expiry      time.Time // date; zero without one
	Items       []applets.Item

	Authentication applets.Authentication // none, mutual, mutual and encrypted
	Signature      Signature
	KeyVersion     byte // of the read key, 0 without authentication
	PIN            bool // the card verified a PIN

	Commands int // command APDUs sent
	Bytes    int // in both directions
}

// Signature says what is known of the issuer's signature over the ID.
type Signature int

const (
	// Unsigned: the card holds no signature.
	Unsigned Signature = iota
	// Unchecked: the card holds one, and the reader no key to check it.
	Unchecked
	// Verified: the issuer signed this ID for this instance.
	Verified
)

func (s Signature) String() string {
	return [...]string{"none", "unchecked", "verified"}[s]
}

// TapError is a card that could not be read, or an ID that was refused.
type TapError struct {
	Slot string
	At   time.Time
	Err  error
}

// Error names the slot.
func (e *TapError) Error() string { return e.Slot + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e *TapError) Unwrap() error { return e.Err }
