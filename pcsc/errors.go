package pcsc

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// Classes of failure, to match with errors.Is. Besides these, a card that went
// away is [iso7816.ErrCardRemoved].
var (
	// ErrNotBuilt: this program holds no PC/SC implementation.
	ErrNotBuilt = errors.New("this binary was built without PC/SC; build it with cgo and the header files of pcsc-lite (libpcsclite-dev)")
	// ErrNoService: the PC/SC service is not there, not running, or broke off.
	ErrNoService = errors.New("the PC/SC service is not available")
	// ErrRefused: the PC/SC service refuses this user (polkit, or access rights).
	ErrRefused = errors.New("the PC/SC service refuses access")
	// ErrNoSlot: there is no slot of that name, or its device is gone.
	ErrNoSlot = errors.New("no such slot")
	// ErrInUse: another program holds the card.
	ErrInUse = errors.New("card in use by another program")
	// ErrMute: a card is there but does not answer to reset.
	ErrMute = errors.New("card does not answer")
	// ErrReset: another program reset the card, or it lost power in between.
	// Every selection and session is lost; the connection can be used on.
	ErrReset = errors.New("card was reset by another program")
	// ErrInterrupted: an earlier command on this connection was abandoned when
	// its context ended. Reset the card, or close the connection.
	ErrInterrupted = errors.New("an earlier command was abandoned")
	// ErrClosed: the connection is closed.
	ErrClosed = errors.New("connection is closed")
	// ErrProtocol: the card speaks neither T=0 nor T=1.
	ErrProtocol = errors.New("card speaks neither T=0 nor T=1")
)

// Code is a PC/SC return code. It is an error, so that errors.Is can look for
// one.
type Code uint32

// The codes that this package tells apart, by the names of the PC/SC
// specification.
const (
	CodeInternalError      Code = 0x80100001
	CodeCancelled          Code = 0x80100002
	CodeInvalidHandle      Code = 0x80100003
	CodeInvalidParameter   Code = 0x80100004
	CodeInsufficientBuffer Code = 0x80100008
	CodeUnknownReader      Code = 0x80100009
	CodeTimeout            Code = 0x8010000A
	CodeSharingViolation   Code = 0x8010000B
	CodeNoSmartcard        Code = 0x8010000C
	CodeProtoMismatch      Code = 0x8010000F
	CodeNotReady           Code = 0x80100010
	CodeInvalidValue       Code = 0x80100011
	CodeSystemCancelled    Code = 0x80100012
	CodeCommError          Code = 0x80100013
	CodeUnknownError       Code = 0x80100014
	CodeNotTransacted      Code = 0x80100016
	CodeReaderUnavailable  Code = 0x80100017
	CodeShutdown           Code = 0x80100018
	CodeCardUnsupported    Code = 0x8010001C
	CodeNoService          Code = 0x8010001D
	CodeServiceStopped     Code = 0x8010001E
	CodeUnsupportedFeature Code = 0x8010001F
	CodeNoAccess           Code = 0x80100027
	CodeNoReaders          Code = 0x8010002E
	CodeCommDataLost       Code = 0x8010002F
	CodeServerTooBusy      Code = 0x80100031
	CodeUnsupportedCard    Code = 0x80100065
	CodeUnresponsiveCard   Code = 0x80100066
	CodeUnpoweredCard      Code = 0x80100067
	CodeResetCard          Code = 0x80100068
	CodeRemovedCard        Code = 0x80100069
	CodeSecurityViolation  Code = 0x8010006A
)

// The texts are ours and not the library's: they are the same on every system,
// and there without the library.
var codeText = map[Code]string{
	CodeInternalError:      "SCARD_F_INTERNAL_ERROR, internal error",
	CodeCancelled:          "SCARD_E_CANCELLED, cancelled",
	CodeInvalidHandle:      "SCARD_E_INVALID_HANDLE, invalid handle",
	CodeInvalidParameter:   "SCARD_E_INVALID_PARAMETER, invalid parameter",
	CodeInsufficientBuffer: "SCARD_E_INSUFFICIENT_BUFFER, message too long",
	CodeUnknownReader:      "SCARD_E_UNKNOWN_READER, unknown reader",
	CodeTimeout:            "SCARD_E_TIMEOUT, time is over",
	CodeSharingViolation:   "SCARD_E_SHARING_VIOLATION, sharing violation",
	CodeNoSmartcard:        "SCARD_E_NO_SMARTCARD, no card inserted",
	CodeProtoMismatch:      "SCARD_E_PROTO_MISMATCH, no common protocol",
	CodeNotReady:           "SCARD_E_NOT_READY, not ready",
	CodeInvalidValue:       "SCARD_E_INVALID_VALUE, invalid value",
	CodeSystemCancelled:    "SCARD_E_SYSTEM_CANCELLED, cancelled by the system",
	CodeCommError:          "SCARD_F_COMM_ERROR, communication failed",
	CodeUnknownError:       "SCARD_F_UNKNOWN_ERROR, unknown error",
	CodeNotTransacted:      "SCARD_E_NOT_TRANSACTED, transaction failed",
	CodeReaderUnavailable:  "SCARD_E_READER_UNAVAILABLE, reader unavailable",
	CodeShutdown:           "SCARD_P_SHUTDOWN, shut down",
	CodeCardUnsupported:    "SCARD_E_CARD_UNSUPPORTED, card not supported",
	CodeNoService:          "SCARD_E_NO_SERVICE, service not available",
	CodeServiceStopped:     "SCARD_E_SERVICE_STOPPED, service stopped",
	CodeUnsupportedFeature: "SCARD_E_UNSUPPORTED_FEATURE, not supported",
	CodeNoAccess:           "SCARD_E_NO_ACCESS, access denied",
	CodeNoReaders:          "SCARD_E_NO_READERS_AVAILABLE, no reader",
	CodeCommDataLost:       "SCARD_E_COMM_DATA_LOST, communication failed",
	CodeServerTooBusy:      "SCARD_E_SERVER_TOO_BUSY, service too busy",
	CodeUnsupportedCard:    "SCARD_W_UNSUPPORTED_CARD, card not supported",
	CodeUnresponsiveCard:   "SCARD_W_UNRESPONSIVE_CARD, card does not answer",
	CodeUnpoweredCard:      "SCARD_W_UNPOWERED_CARD, card has no power",
	CodeResetCard:          "SCARD_W_RESET_CARD, card was reset",
	CodeRemovedCard:        "SCARD_W_REMOVED_CARD, card was removed",
	CodeSecurityViolation:  "SCARD_W_SECURITY_VIOLATION, access denied",
}

// Error gives the name and the meaning of the code.
func (c Code) Error() string {
	if text, ok := codeText[c]; ok {
		return text
	}
	return fmt.Sprintf("PC/SC code %08X", uint32(c))
}

// Error is a failure of PC/SC: what was being done at which slot, the code, and
// the class that errors.Is finds.
type Error struct {
	Op   string // "open", "transmit", …
	Slot string // name of the slot; empty where none is concerned
	Code Code   // 0 where the library reported success and yet failed

	class error // one of the classes above, or nil
}

// Error names the action, the slot, the class and the code.
func (e *Error) Error() string {
	s := "pcsc: " + e.Op
	if e.Slot != "" {
		s += fmt.Sprintf(" %q", e.Slot)
	}
	if e.class != nil {
		s += ": " + e.class.Error()
	}
	if e.Code != 0 {
		s += ": " + e.Code.Error()
	}
	return s
}

// Unwrap gives the class and the code.
func (e *Error) Unwrap() []error {
	var out []error
	if e.class != nil {
		out = append(out, e.class)
	}
	if e.Code != 0 {
		out = append(out, e.Code)
	}
	return out
}

// classify gives the class of a code that came from the service as a whole or
// from opening a card.
func classify(c Code) error {
	switch c {
	case CodeNoService, CodeServiceStopped, CodeShutdown, CodeCommError:
		return ErrNoService
	case CodeNoAccess, CodeSecurityViolation:
		return ErrRefused
	case CodeUnknownReader, CodeReaderUnavailable, CodeNoReaders:
		return ErrNoSlot
	case CodeNoSmartcard, CodeRemovedCard:
		return iso7816.ErrCardRemoved
	case CodeSharingViolation:
		return ErrInUse
	case CodeUnresponsiveCard, CodeUnpoweredCard:
		return ErrMute
	case CodeProtoMismatch, CodeUnsupportedCard, CodeCardUnsupported:
		return ErrProtocol
	case CodeResetCard:
		return ErrReset
	}
	return nil
}

// classifySession gives the class of a code that came from a service that had
// admitted us before: what reads as a refusal then is a connection that the
// service closed.
func classifySession(c Code) error {
	switch c {
	case CodeSecurityViolation, CodeNoAccess:
		return ErrNoService
	}
	return classify(c)
}

// classifyCard gives the class of a code that an open card's command ended
// with. More of them mean a removed card here: a card that has answered to
// its reset and then can't be talked to left the field or lost its power.
func classifyCard(c Code) error {
	switch c {
	case CodeNotTransacted, CodeCommError, CodeCommDataLost, CodeReaderUnavailable,
		CodeUnknownReader, CodeUnresponsiveCard, CodeUnpoweredCard:
		return iso7816.ErrCardRemoved
	}
	return classifySession(c)
}

// serviceInDoubt reports whether a code seen on an open connection may also
// mean that the service itself is gone.
func serviceInDoubt(c Code) bool {
	switch c {
	case CodeCommError, CodeSecurityViolation, CodeInvalidHandle, CodeInternalError, CodeNoAccess:
		return true
	}
	return false
}

// opError turns what a call of the library ended with into an *Error; errors
// that carry no code stay what they are.
func opError(op, slot string, err error, class func(Code) error) error {
	var c Code
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return err
	case errors.As(err, &c):
		return &Error{Op: op, Slot: slot, Code: c, class: class(c)}
	case slot == "":
		return fmt.Errorf("pcsc: %s: %w", op, err)
	}
	return fmt.Errorf("pcsc: %s %q: %w", op, slot, err)
}
