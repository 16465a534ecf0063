package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
)

// Key is an AES key of 16, 24 or 32 bytes. However it is printed, logged or
// marshalled, it shows its key check value and nothing else. Copies of a Key
// are the same key: erasing one erases all.
type Key struct {
	_ [0]func() // not comparable with ==, which would not be constant time
	// The bytes stand behind two pointers, because fmt asks no method of a
	// value in an unexported field of somebody else's struct. It follows one
	// pointer when the verb does not suit a pointer, and prints the second as
	// an address.
	h *handle
}

type handle struct{ s *secret }

type secret struct {
	n int
	b [32]byte
}

// NewKey copies an AES key of 16, 24 or 32 bytes.
func NewKey(b []byte) (Key, error) {
	switch len(b) {
	case 16, 24, 32:
		return newKey(b), nil
	}
	return Key{}, fmt.Errorf("AES key of %d bytes: 16, 24 or 32 allowed", len(b))
}

func newKey(b []byte) Key {
	both := new(struct {
		h handle
		s secret
	})
	both.h.s = &both.s
	both.s.n = copy(both.s.b[:], b)
	return Key{h: &both.h}
}

// GenerateKey draws an AES key of 16, 24 or 32 bytes from rand.
func GenerateKey(rand io.Reader, size int) (Key, error) {
	b := make([]byte, size)
	defer clear(b)
	if _, err := io.ReadFull(rand, b); err != nil {
		return Key{}, fmt.Errorf("drawing a key: %w", err)
	}
	return NewKey(b)
}

// Bytes returns the key itself, for the code that computes with it. The slice
// is the key's own: it is all zeros after Erase.
func (k Key) Bytes() []byte {
	if k.h == nil {
		return nil
	}
	s := k.h.s
	return s.b[:s.n:s.n]
}

// Len returns the size in bytes, 0 when there is no key.
func (k Key) Len() int { return len(k.Bytes()) }

// IsZero reports whether there is no key, or no longer one.
func (k Key) IsZero() bool { return k.Len() == 0 }

// Equal compares in constant time.
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k.Bytes(), other.Bytes()) == 1 }

// Erase overwrites the key. After that it is no key, so that nothing can be
// computed with zeros by mistake.
func (k Key) Erase() {
	if k.h != nil {
		clear(k.h.s.b[:])
		k.h.s.n = 0
	}
}

// clone returns a key of its own with the same bytes.
func (k Key) clone() Key {
	if k.IsZero() {
		return Key{}
	}
	return newKey(k.Bytes())
}

// CheckValue is the key check value of an AES key: the first 3 bytes of the
// encryption of 16 bytes of 01 (GPCS B.6).
func (k Key) CheckValue() [3]byte {
	block, err := aes.NewCipher(k.Bytes())
	if err != nil {
		return [3]byte{}
	}
	var b [16]byte
	for i := range b {
		b[i] = 1
	}
	block.Encrypt(b[:], b[:])
	return [3]byte(b[:3])
}

// check is the key check value in hexadecimal digits, empty without a key.
func (k Key) check() string {
	if k.IsZero() {
		return ""
	}
	kcv := k.CheckValue()
	return strings.ToUpper(hex.EncodeToString(kcv[:]))
}

// String shows the key check value.
func (k Key) String() string {
	if k.IsZero() {
		return "no key"
	}
	return "AES-" + strconv.Itoa(k.Len()*8) + " KCV " + k.check()
}

// GoString keeps %#v from printing the key.
func (k Key) GoString() string { return "keys.Key{" + k.String() + "}" }

// Format keeps every verb from printing the key: fmt consults String only for
// the verbs that are meant for strings.
func (k Key) Format(f fmt.State, verb rune) { format(f, verb, k.String(), k.GoString()) }

func format(f fmt.State, verb rune, text, goText string) {
	if verb == 'v' && f.Flag('#') {
		text = goText
	}
	io.WriteString(f, text)
}

// LogValue keeps structured logs from printing the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText writes what String shows; there is no way back.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Set is the static keys of one secure channel key set. DEK is empty for
// read keys. Erase it after use. Printed, logged or marshalled, it shows key
// check values only.
type Set struct {
	Version       byte // key version number on the card, 1 to 127
	ENC, MAC, DEK Key
}

// Erase overwrites the keys.
func (s *Set) Erase() { s.ENC.Erase(); s.MAC.Erase(); s.DEK.Erase() }

// Keys are the keys of the set that there are, in the order ENC, MAC, DEK.
func (s Set) Keys() []Key {
	list := []Key{s.ENC, s.MAC, s.DEK}
	return slices.DeleteFunc(list, Key.IsZero)
}

// Clone returns a set with keys of its own, which Erase of s leaves alone.
func (s Set) Clone() Set {
	return Set{Version: s.Version, ENC: s.ENC.clone(), MAC: s.MAC.clone(), DEK: s.DEK.clone()}
}

// Check is the key check values of ENC, MAC and (where there is one) DEK, each
// 6 hexadecimal digits, separated by slashes.
func (s Set) Check() string {
	check := s.ENC.check() + "/" + s.MAC.check()
	if !s.DEK.IsZero() {
		check += "/" + s.DEK.check()
	}
	return check
}

// String shows the version and the key check values.
func (s Set) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "key set version %02X: ENC %v, MAC %v", s.Version, s.ENC, s.MAC)
	if !s.DEK.IsZero() {
		fmt.Fprintf(&b, ", DEK %v", s.DEK)
	}
	return b.String()
}

// GoString keeps %#v from printing the keys.
func (s Set) GoString() string { return "keys.Set{" + s.String() + "}" }

// Format keeps every verb from printing the keys.
func (s Set) Format(f fmt.State, verb rune) { format(f, verb, s.String(), s.GoString()) }

// LogValue keeps structured logs from printing the keys.
func (s Set) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText writes what String shows; there is no way back.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// developmentKey is the key that card makers and GlobalPlatform's own examples
// use for cards under development. Everybody knows it.
var developmentKey = []byte{
	0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x4B, 0x4C, 0x4D, 0x4E, 0x4F,
}

// DevelopmentSet returns the well-known key set of cards under development:
// 404142…4F three times, version 1. It protects nothing. No function of this
// module uses it unless its caller asks for it by this name.
func DevelopmentSet() Set {
	var s Set
	s.Version = 1
	for _, k := range []*Key{&s.ENC, &s.MAC, &s.DEK} {
		*k, _ = NewKey(developmentKey)
	}
	return s
}

// IsDevelopment reports whether the set holds the development key, or a longer
// key that begins with it.
func (s Set) IsDevelopment() bool {
	return s.ENC.isDevelopment() || s.MAC.isDevelopment() || s.DEK.isDevelopment()
}

func (k Key) isDevelopment() bool { return bytes.HasPrefix(k.Bytes(), developmentKey) }
