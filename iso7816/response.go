package iso7816

import (
	"errors"
	"fmt"
)

// ErrMalformedResponse reports bytes that are no response APDU.
var ErrMalformedResponse = errors.New("malformed response APDU")

// Response is a response APDU.
type Response struct {
	Data []byte
	SW   SW
}

// ParseResponse splits a response APDU into data and status word. Fewer than
// 2 bytes, or more than 65,536 of data, are an error that wraps
// [ErrMalformedResponse]. The data is a part of b, not a copy.
func ParseResponse(b []byte) (Response, error) {
	n := len(b) - 2
	if n < 0 || n > MaxExtendedNe {
		return Response{}, fmt.Errorf("%w: %d bytes, 2 to %d allowed", ErrMalformedResponse, len(b), MaxExtendedNe+2)
	}
	return Response{Data: b[:n:n], SW: SW(b[n])<<8 | SW(b[n+1])}, nil
}

// Encode returns the bytes of the response: data, then status word.
func (r Response) Encode() []byte {
	out := make([]byte, 0, len(r.Data)+2)
	out = append(out, r.Data...)
	return append(out, byte(r.SW>>8), byte(r.SW))
}

// Err returns nil for 9000 and a [*StatusError] that names cmd otherwise.
func (r Response) Err(cmd Command) error {
	if r.SW == OK {
		return nil
	}
	return &StatusError{SW: r.SW, Header: cmd.Header()}
}

// SW is a status word (5.6). It is an error, so that errors.Is can look for
// one: errors.Is(err, iso7816.ErrSecurityStatus).
type SW uint16

// Status words by name. Those that end a command as wanted, or want another
// command, are called SW…; refusals are called Err….
const (
	OK SW = 0x9000

	SWMoreData SW = 0x6310 // GET STATUS: more data available (GPCS 11.4.3.1)

	ErrUnchanged        SW = 0x6200 // warning, nothing changed
	ErrAuthentication   SW = 0x6300 // authentication of the host cryptogram failed (AmdD 7.1.2)
	ErrMemoryFailure    SW = 0x6581
	ErrWrongLength      SW = 0x6700
	ErrLogicalChannel   SW = 0x6881
	ErrSecureMessaging  SW = 0x6882
	ErrSecurityStatus   SW = 0x6982
	ErrBlocked          SW = 0x6983 // authentication method blocked
	ErrDataInvalid      SW = 0x6984
	ErrConditions       SW = 0x6985 // conditions of use not satisfied
	ErrNotAllowed       SW = 0x6986 // command not allowed (no current EF)
	ErrWrongData        SW = 0x6A80
	ErrFuncNotSupported SW = 0x6A81
	ErrNotFound         SW = 0x6A82 // file or application not found
	ErrRecordNotFound   SW = 0x6A83
	ErrNoMemory         SW = 0x6A84
	ErrIncorrectP1P2    SW = 0x6A86
	ErrDataNotFound     SW = 0x6A88 // referenced data not found
	ErrWrongOffset      SW = 0x6B00
	ErrUnknownINS       SW = 0x6D00
	ErrUnknownCLA       SW = 0x6E00
	ErrUnknown          SW = 0x6F00 // no precise diagnosis
)

var swText = map[SW]string{
	OK:                  "normal end",
	SWMoreData:          "more data available",
	ErrUnchanged:        "warning, nothing changed",
	ErrAuthentication:   "authentication of the host failed",
	ErrMemoryFailure:    "memory failure",
	ErrWrongLength:      "wrong length",
	ErrLogicalChannel:   "logical channel not supported",
	ErrSecureMessaging:  "secure messaging not supported",
	ErrSecurityStatus:   "security status not satisfied",
	ErrBlocked:          "authentication method blocked",
	ErrDataInvalid:      "referenced data not usable",
	ErrConditions:       "conditions of use not satisfied",
	ErrNotAllowed:       "command not allowed",
	ErrWrongData:        "incorrect data",
	ErrFuncNotSupported: "function not supported",
	ErrNotFound:         "file or application not found",
	ErrRecordNotFound:   "record not found",
	ErrNoMemory:         "not enough memory on the card",
	ErrIncorrectP1P2:    "incorrect P1 or P2",
	ErrDataNotFound:     "referenced data not found",
	ErrWrongOffset:      "wrong offset",
	ErrUnknownINS:       "instruction not supported",
	ErrUnknownCLA:       "class not supported",
	ErrUnknown:          "no precise diagnosis",
}

func (sw SW) String() string { return fmt.Sprintf("%04X", uint16(sw)) }

// Error gives the status word and what it means.
func (sw SW) Error() string {
	if text, ok := swText[sw]; ok {
		return sw.String() + " " + text
	}
	if n, ok := sw.TriesLeft(); ok {
		tries := "tries"
		if n == 1 {
			tries = "try"
		}
		return fmt.Sprintf("%s wrong PIN, %d %s left", sw.String(), n, tries)
	}
	return sw.String()
}

// TriesLeft returns the counter of a 63Cx status word.
func (sw SW) TriesLeft() (int, bool) {
	return int(sw & 0xF), sw&0xFFF0 == 0x63C0
}

// Warning reports whether the card carried the command out with a warning
// (62xx, 63xx). Such a response still carries an R-MAC (AmdD 6.2.5).
func (sw SW) Warning() bool { return sw>>8 == 0x62 || sw>>8 == 0x63 }

// StatusError is a card's refusal: the status word and the command it
// answered.
type StatusError struct {
	SW     SW
	Header [4]byte // class, instruction and parameter bytes of the command
}

// Error names the command and the status word; command data never stands in it.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s (% X) refused: %v", InstructionName(e.Header[0], e.Header[1]), e.Header[:], e.SW)
}

// Unwrap makes errors.Is(err, SW) true for the status word it carries.
func (e *StatusError) Unwrap() error { return e.SW }

// InstructionName names a command by its class and instruction bytes as the
// specifications do, or says which instruction byte it is.
func InstructionName(cla, ins byte) string {
	if cla&0x80 != 0 && ins == 0x54 {
		return "EXPRESS"
	}
	if name, ok := instructionNames[ins]; ok {
		return name
	}
	return fmt.Sprintf("instruction %02X", ins)
}

var instructionNames = map[byte]string{
	0x20: "VERIFY",
	0x24: "CHANGE REFERENCE DATA",
	0x2A: "PERFORM SECURITY OPERATION",
	0x2C: "RESET RETRY COUNTER",
	0x50: "INITIALIZE UPDATE",
	0x70: "MANAGE CHANNEL",
	0x82: "EXTERNAL AUTHENTICATE",
	0x84: "GET CHALLENGE",
	0x88: "INTERNAL AUTHENTICATE",
	0xA4: "SELECT",
	0xB0: "READ BINARY",
	0xB2: "READ RECORD",
	0xC0: "GET RESPONSE",
	0xCA: "GET DATA",
	0xCB: "GET DATA",
	0xD8: "PUT KEY",
	0xE2: "STORE DATA",
	0xE4: "DELETE",
	0xE6: "INSTALL",
	0xE8: "LOAD",
	0xF0: "SET STATUS",
	0xF2: "GET STATUS",
}
