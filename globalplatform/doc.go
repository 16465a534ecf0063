// Package globalplatform speaks to the Security Domains of a GlobalPlatform
// card: what is on the card, and loading, installing, personalising, locking
// and deleting what is on it.
//
// Every command is a Go value with a Command method that gives its bytes;
// functions named after what they do send one or several of them through an
// [iso7816.Sender]: a card in the clear, or a session of package scp. No
// function here opens a channel, chooses a Security Domain or retries
// anything that changes the card. Which Security Domain answers is whichever
// the caller selected; which one a load file or an instance shall belong to is
// a field of the command.
//
// What kinds of card want differs; [CardProfile] is that difference as data.
//
// Sections cited are those of GlobalPlatform Card Specification 2.3.1 (GPCS).
package globalplatform

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// IssuerSecurityDomain is the default AID of the Issuer Security Domain (H.1.3).
var IssuerSecurityDomain = iso7816.MustAID("A000000151000000")

// Errors of this package. Refusals of the card are [*iso7816.StatusError].
var (
	// ErrMalformed reports response data, or a file, that has not the form
	// that the specification prescribes.
	ErrMalformed = errors.New("malformed GlobalPlatform data")
	// ErrOtherApplication reports a SELECT that another application answered
	// (6.4.2.1.2 passes an unknown AID to the one selected before).
	ErrOtherApplication = errors.New("another application answered SELECT")
	// ErrCommand reports a command that has no encoding: a field is missing
	// or too long.
	ErrCommand = errors.New("command can't be encoded")
)

const cla = 0x80

// command builds a command that answers at most 256 bytes (11.1.5: Le is 00).
func command(ins, p1, p2 byte, data []byte) (iso7816.Command, error) {
	if len(data) > iso7816.MaxShortData {
		return iso7816.Command{}, fmt.Errorf("%w: %s takes %d data bytes, %d at most",
			ErrCommand, iso7816.InstructionName(cla, ins), len(data), iso7816.MaxShortData)
	}
	return iso7816.Command{CLA: cla, INS: ins, P1: p1, P2: p2, Data: data, Ne: iso7816.MaxShortNe}, nil
}

// appendLV appends a length of one byte and the value.
func appendLV(dst, value []byte) []byte { return append(append(dst, byte(len(value))), value...) }

// appendBERLV appends a length of one to three bytes (11.1.5) and the value.
func appendBERLV(dst, value []byte) []byte {
	switch n := len(value); {
	case n < 0x80:
		dst = append(dst, byte(n))
	case n <= 0xFF:
		dst = append(dst, 0x81, byte(n))
	default:
		dst = append(dst, 0x82, byte(n>>8), byte(n))
	}
	return append(dst, value...)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}
