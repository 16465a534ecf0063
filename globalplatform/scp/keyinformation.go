package scp

import (
	"errors"
	"fmt"
)

// Errors about what a card answers to INITIALIZE UPDATE.
var (
	// ErrMalformedKeyInformation reports an answer that has not the form of
	// AmdD table 7-2 or GPCS table E-8.
	ErrMalformedKeyInformation = errors.New("malformed answer to INITIALIZE UPDATE")
	// ErrProtocolNotSupported reports a card that speaks a Secure Channel
	// Protocol that nobody here does, or another one than the host asked for.
	ErrProtocolNotSupported = errors.New("secure channel protocol not supported")
)

// KeyInformation is the answer to INITIALIZE UPDATE (AmdD table 7-2; GPCS
// table E-8).
type KeyInformation struct {
	DiversificationData [10]byte // from which a back end may derive the card's keys
	KeyVersion          byte     // of the key set that the card uses
	Protocol            byte     // 03 or 02
	I                   byte     // "i" parameter; a card with SCP02 does not answer it
	Challenge           []byte   // the card's: 8 bytes, in mode S16 16, in SCP02 6
	Cryptogram          []byte   // the card's proof: 8 bytes, in mode S16 16
	// SequenceCounter has 24 bits and is there where SCP03's challenge is
	// pseudo-random; SCP02's has 16 bits and is always there.
	SequenceCounter uint32
}

// Channel returns the protocol with its options.
func (k KeyInformation) Channel() Protocol { return Protocol{k.Protocol, k.I} }

// PseudoRandom reports whether the card computes its challenge from a
// sequence counter instead of drawing it.
func (k KeyInformation) PseudoRandom() bool { return k.Channel().PseudoRandom() }

// Supports reports whether the card says that it can do what the level asks.
func (k KeyInformation) Supports(l Level) bool { return k.Channel().Supports(l) }

const (
	keyInformation02Size = 10 + 2 + 2 + 6 + 8
	keyInformationSize   = 10 + 3 // without challenge and cryptogram
	sequenceSize         = 3
)

// ParseKeyInformation reads the response data of INITIALIZE UPDATE: of SCP03
// 29 bytes, in mode S16 45, and 3 more where "i" says that a sequence counter
// follows; of SCP02 28. Errors wrap [ErrProtocolNotSupported] or
// [ErrMalformedKeyInformation].
func ParseKeyInformation(b []byte) (KeyInformation, error) {
	if len(b) < 13 {
		return KeyInformation{}, fmt.Errorf("%w: %d bytes", ErrMalformedKeyInformation, len(b))
	}
	k := KeyInformation{DiversificationData: [10]byte(b), KeyVersion: b[10], Protocol: b[11]}
	switch k.Protocol {
	case 2:
		if len(b) != keyInformation02Size {
			return KeyInformation{}, fmt.Errorf("%w: %d bytes where SCP02 takes %d", ErrMalformedKeyInformation, len(b), keyInformation02Size)
		}
		k.SequenceCounter = uint32(b[12])<<8 | uint32(b[13])
		k.Challenge, k.Cryptogram = clone(b[14:20]), clone(b[20:])
		return k, nil
	case 3:
	default:
		return KeyInformation{}, fmt.Errorf("%w: the card speaks SCP%02X", ErrProtocolNotSupported, k.Protocol)
	}
	k.I = b[12]
	if !k.Channel().Valid() {
		return KeyInformation{}, fmt.Errorf("%w: the card speaks %v", ErrProtocolNotSupported, k.Channel())
	}
	size := k.Channel().challengeSize()
	want := keyInformationSize + 2*size
	if k.PseudoRandom() {
		want += sequenceSize
	}
	if len(b) != want {
		return KeyInformation{}, fmt.Errorf("%w: %d bytes where i = %02X takes %d", ErrMalformedKeyInformation, len(b), k.I, want)
	}
	rest := b[keyInformationSize:]
	k.Challenge, k.Cryptogram, rest = clone(rest[:size]), clone(rest[size:2*size]), rest[2*size:]
	if k.PseudoRandom() {
		k.SequenceCounter = uint32(rest[0])<<16 | uint32(rest[1])<<8 | uint32(rest[2])
	}
	return k, nil
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

// Encode returns the response data that k stands for.
func (k KeyInformation) Encode() []byte {
	out := make([]byte, 0, keyInformationSize+2*blockSize+sequenceSize)
	out = append(out, k.DiversificationData[:]...)
	out = append(out, k.KeyVersion, k.Protocol)
	if k.Protocol == 2 {
		out = append(out, byte(k.SequenceCounter>>8), byte(k.SequenceCounter))
		return append(append(out, k.Challenge...), k.Cryptogram...)
	}
	out = append(out, k.I)
	out = append(append(out, k.Challenge...), k.Cryptogram...)
	if k.PseudoRandom() {
		out = append(out, byte(k.SequenceCounter>>16), byte(k.SequenceCounter>>8), byte(k.SequenceCounter))
	}
	return out
}
