// Package keys names the keys of an issuing system and defines what can be
// asked of a store that keeps them.
//
// A store derives, signs and computes MACs; it does not hand out a master key,
// so that a store in hardware (package keys/pkcs11) fits the same interface as
// the encrypted file of package keys/file. The one exception is in the open:
// SecurityDomainKeys with [MethodNone] returns the stored keys, because they
// are the card's keys. A store in hardware refuses that with [ErrMastersStay].
//
// A [Key] and a [Set] never show their bytes when printed, logged or
// marshalled. How the keys of one instance follow from a service's master keys
// is said at [Diversify].
package keys

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// Kind says what a key is for. A store refuses to use a key for another kind.
type Kind string

const (
	SecurityDomain Kind = "security-domain" // ENC, MAC and DEK of a Security Domain
	Read           Kind = "read"            // masters of ENC and MAC for reading an application
	IssuerSigning  Kind = "issuer-signing"  // Ed25519: signs what EF.ID holds
	CounterSigning Kind = "counter-signing" // Ed25519: signs consent records
	Ledger         Kind = "ledger"          // AES: keyed digests and tags
	LedgerSigning  Kind = "ledger-signing"  // Ed25519: signs the ledger's checkpoints
	Token          Kind = "token"           // AES or RSA: tokens of delegated management (GPCS C.4)
	Receipt        Kind = "receipt"         // AES or RSA: receipts of delegated management (GPCS C.5)
)

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{SecurityDomain, Read, IssuerSigning, CounterSigning, Ledger, LedgerSigning, Token, Receipt}
}

// Algorithms of stored keys, as Entry names them.
const (
	AES128  = "aes-128"
	AES192  = "aes-192"
	AES256  = "aes-256"
	Ed25519 = "ed25519"
	RSA2048 = "rsa-2048" // exponent 65537
	RSA3072 = "rsa-3072" // exponent 65537
)

// Algorithms lists the algorithms that a kind allows, the default first. It is
// empty for an unknown kind. The base applications take read keys of 16 or 32
// bytes only.
func (k Kind) Algorithms() []string {
	switch k {
	case SecurityDomain:
		return []string{AES128, AES192, AES256}
	case Read:
		return []string{AES128, AES256}
	case IssuerSigning, CounterSigning, LedgerSigning:
		return []string{Ed25519}
	case Ledger:
		return []string{AES256, AES192, AES128}
	case Token, Receipt:
		return []string{AES128, AES192, AES256, RSA2048, RSA3072}
	}
	return nil
}

// Signs reports whether keys of the kind sign with Ed25519.
func (k Kind) Signs() bool { return slices.Contains(k.Algorithms(), Ed25519) }

// MaxVersion is the highest version of a key (GPCS 11.8.2.3: a key version
// number is 01 to 7F).
const MaxVersion = 127

// MaxName is the greatest length of a key's name.
const MaxName = 64

// CheckName says what keeps name from being a key's name: 1 to 64 of a–z, A–Z,
// 0–9, '.', '_', '-', the first a letter or digit.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= MaxName
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && (c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("key name %q: 1 to %d letters, digits, '.', '_' or '-', the first a letter or digit", name, MaxName)
	}
	return nil
}

// Errors of stores. They wrap no key material.
var (
	// ErrNotFound: the store holds no key of that name and version, or, for
	// version 0, none that is not retired.
	ErrNotFound = errors.New("no such key")
	// ErrWrongKind: the key is there, but for another purpose.
	ErrWrongKind = errors.New("key is of another kind")
	// ErrRetired: the key was taken out of use.
	ErrRetired = errors.New("key is retired")
	// ErrExists: a key of that name and version is there already.
	ErrExists = errors.New("key exists already")
	// ErrPublicOnly: the operation needs the secret half, and the store holds
	// the public one.
	ErrPublicOnly = errors.New("only the public half of the key is stored")
	// ErrDiversifier: the diversification method is unknown, or not allowed
	// for that kind of key.
	ErrDiversifier = errors.New("diversification method refused")
	// ErrDiversificationData: the data that a card or an instance answered
	// cannot tell it from others.
	ErrDiversificationData = errors.New("diversification data refused")
	// ErrMastersStay: the diversification method needs the master keys
	// themselves, and the store does not let them out.
	ErrMastersStay = errors.New("the store does not let master keys out")
	// ErrDevelopmentKey: the well-known development key came in without being
	// asked for by name.
	ErrDevelopmentKey = errors.New("this is the well-known development key, which must be asked for by name")
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
	Version   byte   // 1 to 127
	Algorithm string // "aes-128", "aes-192", "aes-256", "ed25519", "rsa-2048", "rsa-3072"
	// Check is the key check value as 6 hexadecimal digits; of a key set those
	// of its keys, separated by slashes (see Set.Check); of an Ed25519 key the
	// first 8 bytes of the public half as 16 digits, and of an RSA key those of
	// its modulus.
	Check       string
	Created     time.Time
	Retired     time.Time // zero while in use
	Public      bool      // only the public half is stored (Ed25519, RSA)
	Development bool      // made from the well-known development key
}

// Ref names the entry, with its version.
func (e Entry) Ref() Ref { return Ref{Name: e.Name, Version: e.Version} }

// Store answers for the keys it holds. Implementations are safe for
// concurrent use. Except for PublicKey, a retired key answers ErrRetired.
type Store interface {
	// Entries lists all keys, sorted by name and version.
	Entries(ctx context.Context) ([]Entry, error)
	// SecurityDomainKeys returns the key set of a Security Domain. method
	// and cardData (the 10 bytes of diversification data that INITIALIZE
	// UPDATE answers) say how a card's keys follow from the stored ones, as
	// [Diversify] does; [MethodNone] uses the stored ones as they are and
	// cardData not at all. A store that does not let its keys out answers
	// ErrMastersStay to the methods that need them.
	SecurityDomainKeys(ctx context.Context, ref Ref, method Method, cardData []byte) (Set, error)
	// ReadKeys returns the key set for reading one instance, derived by
	// [Diversify] from its AID and its 10 bytes of diversification data.
	// [MethodNone] is refused with ErrDiversifier.
	ReadKeys(ctx context.Context, ref Ref, method Method, instance iso7816.AID, data []byte) (Set, error)
	// Sign signs with Ed25519. kind is one that signs
	// (IssuerSigning, CounterSigning, LedgerSigning), and
	// must be the key's.
	Sign(ctx context.Context, ref Ref, kind Kind, message []byte) ([]byte, error)
	// PublicKey returns the public half. A retired key answers too when its
	// version is named, since what it signed stays to be verified.
	PublicKey(ctx context.Context, ref Ref) (ed25519.PublicKey, error)
	// Digest returns the AES-CMAC of the message under a ledger key.
	Digest(ctx context.Context, ref Ref, message []byte) ([16]byte, error)
}

// SchemeKey is a key of one of GlobalPlatform's signature schemes (GPCS
// appendix C): an AES key, or an RSA key of which Private is nil where only the
// public half is stored. Erase it after use.
type SchemeKey struct {
	AES     Key
	Public  *rsa.PublicKey
	Private *rsa.PrivateKey
}

// Erase overwrites the AES key. What Go has copied of an RSA key stays until
// its memory is used again.
func (k *SchemeKey) Erase() { k.AES.Erase() }

// String shows what kind of key it is and its check value.
func (k SchemeKey) String() string {
	if k.Public != nil {
		return fmt.Sprintf("RSA-%d %X", k.Public.N.BitLen(), k.Public.N.Bytes()[:8])
	}
	return k.AES.String()
}

// GoString keeps %#v from printing the key.
func (k SchemeKey) GoString() string { return "keys.SchemeKey{" + k.String() + "}" }

// Format keeps every verb from printing the key.
func (k SchemeKey) Format(f fmt.State, verb rune) { format(f, verb, k.String(), k.GoString()) }

// LogValue keeps structured logs from printing the key.
func (k SchemeKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText writes what String shows; there is no way back.
func (k SchemeKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// SchemeKeys is offered by stores that keep the keys of tokens and receipts.
type SchemeKeys interface {
	// SchemeKey returns a key of kind Token or Receipt, which the caller
	// erases. An AES key leaves the store, because the card has the same one.
	SchemeKey(ctx context.Context, ref Ref, kind Kind) (SchemeKey, error)
}
