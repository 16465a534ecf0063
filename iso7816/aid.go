package iso7816

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrMalformedAID reports an application identifier of a wrong length or of
// characters that are not hexadecimal digits.
var ErrMalformedAID = errors.New("malformed AID")

// AID is an application identifier of 5 to 16 bytes (8.2.1.2). The zero
// value stands for no AID. AIDs can be compared and used as map keys.
type AID struct {
	b [16]byte
	n uint8
}

// NewAID returns the AID of 5 to 16 bytes.
func NewAID(b []byte) (AID, error) {
	if len(b) < 5 || len(b) > 16 {
		return AID{}, fmt.Errorf("%w: %d bytes, 5 to 16 allowed", ErrMalformedAID, len(b))
	}
	var a AID
	a.n = uint8(copy(a.b[:], b))
	return a, nil
}

// ParseAID reads 10 to 32 hexadecimal digits of either case. One space or
// colon may stand between two bytes.
func ParseAID(s string) (AID, error) {
	var b []byte
	for rest := s; rest != ""; {
		if len(b) > 0 && (rest[0] == ' ' || rest[0] == ':') {
			rest = rest[1:]
		}
		if len(b) == 16 {
			return AID{}, fmt.Errorf("%w: longer than 16 bytes", ErrMalformedAID)
		}
		next, err := hex.DecodeString(rest[:min(2, len(rest))])
		if err != nil || len(next) == 0 {
			return AID{}, fmt.Errorf("%w: %.40q is not bytes in hexadecimal digits", ErrMalformedAID, s)
		}
		b, rest = append(b, next[0]), rest[2:]
	}
	return NewAID(b)
}

// MustAID is ParseAID for constants; it panics on a malformed one.
func MustAID(s string) AID {
	a, err := ParseAID(s)
	if err != nil {
		panic(err)
	}
	return a
}

// Bytes returns a copy of the AID's bytes.
func (a AID) Bytes() []byte { return append([]byte(nil), a.b[:a.n]...) }

// Len returns the number of bytes, 0 for the zero AID.
func (a AID) Len() int { return int(a.n) }

// IsZero reports whether a is no AID.
func (a AID) IsZero() bool { return a.n == 0 }

// HasPrefix reports whether a begins with prefix, as every AID does with
// itself and with the zero AID (selection by partial AID).
func (a AID) HasPrefix(prefix AID) bool {
	return a.n >= prefix.n && string(a.b[:prefix.n]) == string(prefix.b[:prefix.n])
}

// String returns the AID in upper-case hexadecimal digits.
func (a AID) String() string { return strings.ToUpper(hex.EncodeToString(a.b[:a.n])) }

// MarshalText writes the AID as String does.
func (a AID) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what ParseAID reads; an empty text is the zero AID.
func (a *AID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = AID{}
		return nil
	}
	v, err := ParseAID(string(text))
	if err != nil {
		return err
	}
	*a = v
	return nil
}
