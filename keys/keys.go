// Package keys names the keys of an issuing system and defines what can be
// asked of a store that keeps them. A store never hands out a master key: it
// derives, signs and computes MACs, so that a store in hardware fits the same
// interface as an encrypted file.
package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// Kind says what a key is for. A store refuses to use a key for another kind.
type Kind string

const (
	SecurityDomain Kind = "security-domain" // ENC, MAC and DEK of a Security Domain
	Read           Kind = "read"            // master of ENC and MAC for reading an application
	IssuerSigning  Kind = "issuer-signing"  // Ed25519: signs what EF.ID holds
	CounterSigning Kind = "counter-signing" // Ed25519: signs consent records
	Ledger         Kind = "ledger"          // AES: keyed digests and tags
)

// Errors of stores. They wrap no key material.
var (
	ErrNotFound    = errors.New("no such key")
	ErrWrongKind   = errors.New("key is of another kind")
	ErrRetired     = errors.New("key is retired")
	ErrExists      = errors.New("key exists already")
	ErrDiversifier = errors.New("unknown diversification method")
)

// Ref names a key. Version 0 is the newest that is not retired; the version of a
// Security Domain or read key set is the key version number on the card (1 to 127).
type Ref struct {
	Name    string
	Version byte
}

// Entry describes a stored key; the key itself is not in it.
type Entry struct {
	Name      string
	Kind      Kind
	Version   byte
	Algorithm string // "aes-128", "aes-192", "aes-256", "ed25519"
	Check     string // key check value, or the public key's first bytes, in hexadecimal digits
	Created   time.Time
	Retired   time.Time // zero while in use
	Public    bool      // only the public half is stored (ed25519)
}

// Set is the static keys of one secure channel key set. DEK is empty for
// read keys. Erase it after use.
type Set struct {
	Version       byte
	ENC, MAC, DEK Key
}

// Erase overwrites the keys.
func (s *Set) Erase() { s.ENC.Erase(); s.MAC.Erase(); s.DEK.Erase() }

// Store answers for the keys it holds. Implementations are safe for
// concurrent use.
type Store interface {
	// Entries lists all keys, sorted by name and version.
	Entries(ctx context.Context) ([]Entry, error)
	// SecurityDomainKeys returns the key set of a Security Domain. method
	// and cardData (the diversification data that INITIALIZE UPDATE answers)
	// say how a card's keys follow from the stored ones; [MethodNone] uses
	// the stored ones as they are.
	SecurityDomainKeys(ctx context.Context, ref Ref, method Method, cardData []byte) (Set, error)
	// ReadKeys returns the key set for reading one instance.
	ReadKeys(ctx context.Context, ref Ref, method Method, instance iso7816.AID, data []byte) (Set, error)
	// Sign signs with Ed25519.
	Sign(ctx context.Context, ref Ref, kind Kind, message []byte) ([]byte, error)
	// PublicKey returns the public half.
	PublicKey(ctx context.Context, ref Ref) (ed25519.PublicKey, error)
	// Digest returns the AES-CMAC of the message under a ledger key.
	Digest(ctx context.Context, ref Ref, message []byte) ([16]byte, error)
}
