package applets

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// Limits of a PIN.
const (
	MinPINDigits = 4
	MaxPINDigits = 12
	pinBlock     = 12 // bytes of a reference block
)

// ErrMalformedPIN reports a PIN that is not 4 to 12 ASCII digits. The error
// does not show it.
var ErrMalformedPIN = errors.New("malformed PIN")

// PIN is a PIN. However it is printed or logged, it does not show.
type PIN struct{ b []byte } // reference block: digits padded with FF to 12 bytes

// NewPIN returns the PIN of 4 to 12 ASCII digits.
func NewPIN(digits string) (PIN, error) {
	if len(digits) < MinPINDigits || len(digits) > MaxPINDigits {
		return PIN{}, fmt.Errorf("%w: %d characters, %d to %d digits allowed", ErrMalformedPIN, len(digits), MinPINDigits, MaxPINDigits)
	}
	b := make([]byte, pinBlock)
	for i := range b {
		b[i] = 0xFF
		if i < len(digits) {
			if digits[i] < '0' || digits[i] > '9' {
				clear(b)
				return PIN{}, fmt.Errorf("%w: character %d is no ASCII digit", ErrMalformedPIN, i+1)
			}
			b[i] = digits[i]
		}
	}
	return PIN{b}, nil
}

// IsZero reports whether there is no PIN, or no more.
func (p PIN) IsZero() bool { return len(p.b) == 0 || p.b[0] == 0 }

// Reveal returns the digits in ASCII, for the code that sends them to a card
// and erases them.
func (p PIN) Reveal() []byte {
	n := 0
	for n < len(p.b) && p.b[n] != 0xFF && p.b[n] != 0 {
		n++
	}
	return append([]byte(nil), p.b[:n]...)
}

// Equal compares in constant time.
func (p PIN) Equal(other PIN) bool { return subtle.ConstantTimeCompare(p.b, other.b) == 1 }

// Erase overwrites the PIN.
func (p PIN) Erase() { clear(p.b) }

// Format prints a word in place of the PIN, whatever the verb.
func (p PIN) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// String says whether there is a PIN.
func (p PIN) String() string {
	if p.IsZero() {
		return "no PIN"
	}
	return "PIN"
}

// LogValue keeps structured logs from printing the PIN.
func (p PIN) LogValue() slog.Value { return slog.StringValue(p.String()) }
