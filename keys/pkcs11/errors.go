package pkcs11

import (
	"errors"
	"fmt"
)

// Errors of this package, beside those of URIs and of package keys.
var (
	// ErrNotBuilt: this program was built without PKCS#11.
	ErrNotBuilt = errors.New("this program was built without PKCS#11: it needs cgo")
	// ErrModule: the library can't be loaded or initialised.
	ErrModule = errors.New("PKCS#11 library can't be used")
	// ErrNoToken: no token is there that the URI matches.
	ErrNoToken = errors.New("no such token")
	// ErrSeveralTokens: the URI matches more than one. Add its serial.
	ErrSeveralTokens = errors.New("more than one token matches")
	// ErrTokenInUse: this process has the token open already. A second login
	// would not verify the PIN.
	ErrTokenInUse = errors.New("this process has the token open already")
	// ErrTokenRemoved: the token was taken away, or its login has ended, since
	// it was opened. Open it again.
	ErrTokenRemoved = errors.New("token was removed")
	// ErrPIN: the PIN is wrong. It is not tried again by itself.
	ErrPIN = errors.New("wrong PIN")
	// ErrPINLocked: too many wrong PINs. Only the token's security officer
	// can set a new one.
	ErrPINLocked = errors.New("PIN is locked")
	// ErrPINNotSet: the token's user has no PIN yet, or must change it first.
	ErrPINNotSet = errors.New("PIN must be set first")
	// ErrFinalTry: one try is left, and Options.FinalTry does not allow it.
	ErrFinalTry = errors.New("one try is left for the PIN")
	// ErrMechanism: the token can't compute what the key is for.
	ErrMechanism = errors.New("token lacks a mechanism")
	// ErrExposed: a key can be read out of the token, so it is not used.
	ErrExposed = errors.New("key can leave the token")
	// ErrDamaged: what is in the token makes no key.
	ErrDamaged = errors.New("key in the token is unusable")
	// ErrNotRetired: only a retired key can be removed.
	ErrNotRetired = errors.New("key is not retired")
	// ErrToken: the token or its library failed; the text has its code.
	ErrToken = errors.New("token failed")
	// ErrClosed: the Store was closed.
	ErrClosed = errors.New("token is closed")
)

// Tries is what a token tells of the tries left for its PIN. PKCS#11 knows no
// number (CK_TOKEN_INFO).
type Tries byte

const (
	TriesFull   Tries = iota // no wrong PIN since the last right one
	TriesLow                 // at least one wrong PIN since
	TriesFinal               // one try is left
	TriesLocked              // none is left
)

// String says it in words.
func (t Tries) String() string {
	switch t {
	case TriesLow:
		return "fewer tries left than before"
	case TriesFinal:
		return "one try left"
	case TriesLocked:
		return "no try left"
	}
	return "the token does not tell of tries used up"
}

// PINError is a PIN that a token refused. It wraps ErrPIN or ErrPINLocked.
type PINError struct {
	Token string // label
	Tries Tries  // after the refusal
	err   error
}

func (e *PINError) Error() string { return fmt.Sprintf("token %q: %v (%v)", e.Token, e.err, e.Tries) }

// Unwrap returns ErrPIN or ErrPINLocked.
func (e *PINError) Unwrap() error { return e.err }

// code is a return value of a PKCS#11 function, CKR_….
type code uint

func (c code) Error() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("CKR %#x", uint(c))
}

// fail puts an error of the library into words, with the token's label.
func (s *Store) fail(err error) error {
	var c code
	if !errors.As(err, &c) {
		return err
	}
	switch c {
	case ckrDeviceRemoved, ckrTokenNotPresent, ckrSessionHandleInvalid, ckrSessionClosed, ckrUserNotLoggedIn,
		ckrSlotIDInvalid, ckrTokenNotRecognized:
		s.gone.Store(true)
		return fmt.Errorf("%w: %q (%v)", ErrTokenRemoved, s.token.Label, err)
	case ckrMechanismInvalid:
		return fmt.Errorf("%w: %q (%v)", ErrMechanism, s.token.Label, err)
	}
	return fmt.Errorf("%w: %q: %w", ErrToken, s.token.Label, err)
}
