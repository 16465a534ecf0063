package scp

import (
	"errors"
	"fmt"
)

// Errors about what a card answers to INITIALIZE UPDATE.
var (
	// ErrMalformedKeyInformation reports an answer that has not the form of
	// AmdD table 7-2.
	ErrMalformedKeyInformation = errors.New("malformed answer to INITIALIZE UPDATE")
	// ErrProtocolNotSupported reports a card that speaks another Secure
	// Channel Protocol, or SCP03 in mode S16.
	ErrProtocolNotSupported = errors.New("secure channel protocol not supported")
)

// Bits of the "i" parameter (AmdD table 5-1; S16 by Amendment D 1.2).
const (
	iS16          = 0x01
	iPseudoRandom = 0x10
	iRMAC         = 0x20
	iREncryption  = 0x40
)

// KeyInformation is the answer to INITIALIZE UPDATE (AmdD table 7-2).
type KeyInformation struct {
	DiversificationData [10]byte // from which a back end may derive the card's keys
	KeyVersion          byte     // of the key set that the card uses
	Protocol            byte     // 03
	I                   byte     // "i" parameter: which of the protocol's options the card has
	Challenge           [8]byte  // the card's
	Cryptogram          [8]byte  // the card's proof
	SequenceCounter     uint32   // 24 bits, where the challenge is pseudo-random
}

// PseudoRandom reports whether the card computes its challenge from a
// sequence counter instead of drawing it.
func (k KeyInformation) PseudoRandom() bool { return k.I&iPseudoRandom != 0 }

// Supports reports whether the card says that it can do what the level asks.
func (k KeyInformation) Supports(l Level) bool {
	return (!l.HasRMAC() || k.I&iRMAC != 0) && (!l.HasREncryption() || k.I&iREncryption != 0)
}

const (
	keyInformationSize = 10 + 3 + 8 + 8
	sequenceSize       = 3
)

// ParseKeyInformation reads the response data of INITIALIZE UPDATE: 29
// bytes, or 32 where "i" says that a sequence counter follows. Errors wrap
// [ErrProtocolNotSupported] or [ErrMalformedKeyInformation].
func ParseKeyInformation(b []byte) (KeyInformation, error) {
	if len(b) < 13 {
		return KeyInformation{}, fmt.Errorf("%w: %d bytes", ErrMalformedKeyInformation, len(b))
	}
	k := KeyInformation{DiversificationData: [10]byte(b), KeyVersion: b[10], Protocol: b[11], I: b[12]}
	switch {
	case k.Protocol != 3:
		return KeyInformation{}, fmt.Errorf("%w: the card speaks SCP%02X", ErrProtocolNotSupported, k.Protocol)
	case k.I&iS16 != 0:
		return KeyInformation{}, fmt.Errorf("%w: the card speaks SCP03 with 16-byte MACs (i = %02X)", ErrProtocolNotSupported, k.I)
	}
	want := keyInformationSize
	if k.PseudoRandom() {
		want += sequenceSize
	}
	if len(b) != want {
		return KeyInformation{}, fmt.Errorf("%w: %d bytes where i = %02X takes %d", ErrMalformedKeyInformation, len(b), k.I, want)
	}
	k.Challenge, k.Cryptogram = [8]byte(b[13:]), [8]byte(b[21:])
	if k.PseudoRandom() {
		k.SequenceCounter = uint32(b[29])<<16 | uint32(b[30])<<8 | uint32(b[31])
	}
	return k, nil
}

// Encode returns the response data that k stands for.
func (k KeyInformation) Encode() []byte {
	out := make([]byte, 0, keyInformationSize+sequenceSize)
	out = append(out, k.DiversificationData[:]...)
	out = append(out, k.KeyVersion, k.Protocol, k.I)
	out = append(out, k.Challenge[:]...)
	out = append(out, k.Cryptogram[:]...)
	if k.PseudoRandom() {
		out = append(out, byte(k.SequenceCounter>>16), byte(k.SequenceCounter>>8), byte(k.SequenceCounter))
	}
	return out
}
