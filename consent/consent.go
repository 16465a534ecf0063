// Package consent keeps what a holder was shown, asked and answered before a
// card is used (Individual Number Act Enforcement Order art. 18-1), as a
// record that the counter's key signs, and its withdrawal.
//
// A record names no holder: which card it belongs to is bound by the ledger.
package consent

import (
	"crypto/sha256"
	"time"
)

// Service is what this package asks of a service manifest. The type
// *manifest.Manifest is one; the two packages don't import each other.
type Service interface {
	// ServiceID is the service's short name.
	ServiceID() string
	// Digest identifies exactly this manifest.
	Digest() [sha256.Size]byte
	// ItemNames lists the items that must be recorded and those that the
	// holder may leave out, in the manifest's order.
	ItemNames() (required, optional []string)
	// ConsentMethods lists the methods allowed: "paper", "screen".
	ConsentMethods() []string
	// ConsentDays is the number of days after consent was given during which
	// a card may be issued on it.
	ConsentDays() int
	// Permits reports whether a text may stand in a record: it holds no
	// Individual Number.
	Permits(text string) bool
	// Disclosure is what the holder is told in a language ("ja", "en") when
	// these items are to be recorded.
	Disclosure(lang string, items []string) (Disclosure, error)
}

// Disclosure is what a holder is told, in one language. It is an alias of an
// unnamed type so that a manifest can return it without importing this
// package.
type Disclosure = struct {
	Service    string
	Purpose    string
	Operator   string
	Contact    string
	Basis      string      // basis in law, with the ordinance or notice
	ID         string      // what the ID is
	Items      [][2]string // label and reason of each further item
	PIN        string      // "" where there is none
	Protection string      // who can read what is recorded
	Term       string
	Retention  string
}

// Format is the version of the records that this package writes.
const Format = 1

// Method is how consent was given.
type Method string

// The methods.
const (
	Paper  Method = "paper"
	Screen Method = "screen"
)

// Hash is a SHA-256 digest, in JSON 64 lower-case hexadecimal digits.
type Hash [sha256.Size]byte

// Record is a consent. Times are in UTC and whole seconds.
type Record struct {
	Format   int       `json:"format"`
	ID       string    `json:"id"` // 32 hexadecimal digits, random
	Service  string    `json:"service"`
	Manifest Hash      `json:"manifest"` // digest of the manifest
	Shown    Shown     `json:"shown"`
	Items    []string  `json:"items"` // names of the items agreed to, in the manifest's order; empty: the ID only
	Asked    Asked     `json:"asked"`
	Method   Method    `json:"method"`
	Paper    *Form     `json:"paper,omitempty"` // method paper only
	Given    time.Time `json:"given"`
	Until    time.Time `json:"until"`            // a card may be issued before this instant
	Holder   string    `json:"holder,omitempty"` // a reference of the operator's own; never a name
}

// Shown says what the holder saw.
type Shown struct {
	Language string     `json:"language"` // "ja", "en"
	Format   ShowFormat `json:"format"`
	Digest   Hash       `json:"digest"` // of the exact bytes that Render returned
	Purpose  string     `json:"purpose"`
	Operator string     `json:"operator"`
	Term     string     `json:"term"`
}

// ShowFormat is the form in which a consent notice is rendered.
type ShowFormat string

// The forms.
const (
	Text ShowFormat = "text"
	HTML ShowFormat = "html"
)

// Asked says who asked for consent, and where.
type Asked struct {
	Operator string `json:"operator"` // id of the clerk
	Counter  string `json:"counter"`  // id of the counter
}

// Form is the paper that the holder signed.
type Form struct {
	Reference string `json:"reference"` // where it is filed
	Scan      Hash   `json:"scan"`      // digest of its scan
}

// Key names the key that signed.
type Key struct {
	Name    string `json:"name"`
	Version byte   `json:"version"`
}

// Signed is a consent with the signature of the counter's key.
type Signed struct {
	Record    Record `json:"consent"`
	Key       Key    `json:"key"`
	Signature []byte `json:"signature"` // Ed25519 over SignedMessage
}

// Withdrawal takes a consent back. It has no reason: a holder need not give one.
type Withdrawal struct {
	Format  int       `json:"format"`
	Consent string    `json:"consent"` // ID of the consent
	Service string    `json:"service"`
	Asked   Asked     `json:"asked"` // who received it
	At      time.Time `json:"at"`    // UTC, whole seconds
}

// SignedWithdrawal is a withdrawal with the signature of the counter's key.
type SignedWithdrawal struct {
	Withdrawal Withdrawal `json:"withdrawal"`
	Key        Key        `json:"key"`
	Signature  []byte     `json:"signature"`
}
