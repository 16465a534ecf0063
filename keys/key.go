package keys

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
)

// Key is an AES key of 16, 24 or 32 bytes. Printing or logging one shows its
// key check value and nothing else.
type Key struct{ b []byte }

// NewKey copies an AES key of 16, 24 or 32 bytes.
func NewKey(b []byte) (Key, error) {
	switch len(b) {
	case 16, 24, 32:
		return Key{append([]byte(nil), b...)}, nil
	}
	return Key{}, fmt.Errorf("AES key of %d bytes: 16, 24 or 32 allowed", len(b))
}

// Bytes returns the key itself, for the code that computes with it. The slice
// is the key's own: it is gone after Erase.
func (k Key) Bytes() []byte { return k.b }

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return len(k.b) == 0 }

// Equal compares in constant time.
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k.b, other.b) == 1 }

// Erase overwrites the key.
func (k Key) Erase() { clear(k.b) }

// CheckValue is the key check value of an AES key: the first 3 bytes of the
// encryption of 16 bytes of 01 (GPCS B.6).
func (k Key) CheckValue() [3]byte {
	block, err := aes.NewCipher(k.b)
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

// String shows the key check value.
func (k Key) String() string {
	if k.IsZero() {
		return "no key"
	}
	kcv := k.CheckValue()
	return fmt.Sprintf("AES-%d KCV %s", len(k.b)*8, strings.ToUpper(hex.EncodeToString(kcv[:])))
}

// GoString keeps %#v from printing the key.
func (k Key) GoString() string { return "keys.Key{" + k.String() + "}" }

// LogValue keeps structured logs from printing the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
