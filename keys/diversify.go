package keys

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
)

// Method is a diversification method by its name in the field.
type Method string

const (
	// MethodNone uses the stored keys as they are.
	MethodNone Method = "none"
	// MethodSP800108 derives with the KDF of SP 800-108 in counter mode over
	// AES-CMAC; see Diversify for the context.
	MethodSP800108 Method = "sp800-108-cmac"
)

// DiversificationDataSize is the size of diversification data in bytes, both
// in the answer to INITIALIZE UPDATE (AmdD 7.1.1.3) and in the FCI of the base
// applications.
const DiversificationDataSize = 10

// diversifyLabel is the Label of the KDF. Its number changes when the context does.
const diversifyLabel = "FREEAREA-KD1"

// CheckMethod says whether keys of a kind may be diversified by a method:
// Security Domain keys by MethodNone and MethodSP800108, read keys only by
// MethodSP800108, because with MethodNone one opened card would open all of
// them. Everything else wraps ErrDiversifier.
func CheckMethod(kind Kind, method Method) error {
	switch {
	case method != MethodNone && method != MethodSP800108:
		return fmt.Errorf("%w: %q is unknown; %q and %q are known", ErrDiversifier, method, MethodSP800108, MethodNone)
	case kind == Read && method == MethodNone:
		return fmt.Errorf("%w: %q is not allowed for reading keys", ErrDiversifier, method)
	case kind != Read && kind != SecurityDomain:
		return fmt.Errorf("%w: keys of kind %q are not diversified", ErrDiversifier, kind)
	}
	return nil
}

// Diversify returns the keys of one card or one instance, which follow from
// master keys. With MethodNone they are a copy of master. With MethodSP800108
// each key K is derived from the master key of its own purpose, by the KDF in
// counter mode of SP 800-108 with AES-CMAC as the PRF (4.1):
//
//	K(i) = CMAC(master, i ‖ Label ‖ 00 ‖ Context ‖ L), i = 1, 2; K = the first L bits of K(1) ‖ K(2)
//
//	i        1 byte
//	Label    12 bytes: 46524545415245412D4B4431, ASCII "FREEAREA-KD1"
//	00       1 byte
//	Context  purpose  1 byte: 01 ENC, 02 MAC, 03 DEK
//	         kind     1 byte: 01 Security Domain, 02 reading an application
//	         version  1 byte: the key version number, 01 to 7F
//	         length of the instance AID, 1 byte: 05 to 10; 00 for a Security Domain
//	         instance AID, 5 to 16 bytes; none for a Security Domain
//	         length of the diversification data, 1 byte: 0A
//	         diversification data, 10 bytes
//	L        2 bytes, big-endian: bits of K, the size of the master key (0080, 00C0, 0100)
//
// A Security Domain's diversification data is what the card answers to
// INITIALIZE UPDATE; its AID is not in the context, so Security Domains with
// different keys need master keys of different names. An instance's
// diversification data is what its FCI shows.
//
// The error wraps ErrDiversifier as CheckMethod says, or
// ErrDiversificationData when data is not 10 bytes or all zeros, as a card
// answers that was never given any: then every such card would have the same
// keys and nobody would notice.
func Diversify(kind Kind, method Method, master Set, instance iso7816.AID, data []byte) (Set, error) {
	if err := CheckMethod(kind, method); err != nil {
		return Set{}, err
	}
	if err := master.Validate(kind); err != nil {
		return Set{}, err
	}
	if method == MethodNone {
		return master.Clone(), nil
	}
	kindCode := byte(0x01)
	switch {
	case kind == Read && instance.IsZero():
		return Set{}, fmt.Errorf("read keys belong to an instance, and no AID is given")
	case kind == Read:
		kindCode = 0x02
	case !instance.IsZero():
		return Set{}, fmt.Errorf("security domain keys are not diversified by an AID, and %v is given", instance)
	}
	if len(data) != DiversificationDataSize {
		return Set{}, fmt.Errorf("%w: %d bytes, %d expected", ErrDiversificationData, len(data), DiversificationDataSize)
	}
	if bytes.Count(data, []byte{0}) == len(data) {
		return Set{}, fmt.Errorf("%w: all zeros", ErrDiversificationData)
	}

	out := Set{Version: master.Version}
	for _, k := range []struct {
		purpose byte
		from    Key
		to      *Key
	}{
		{0x01, master.ENC, &out.ENC},
		{0x02, master.MAC, &out.MAC},
		{0x03, master.DEK, &out.DEK},
	} {
		if k.from.IsZero() {
			continue
		}
		fixed := append([]byte(diversifyLabel), 0x00)
		fixed = append(fixed, k.purpose, kindCode, master.Version)
		fixed = append(append(fixed, byte(instance.Len())), instance.Bytes()...)
		fixed = append(append(fixed, byte(len(data))), data...)
		fixed = binary.BigEndian.AppendUint16(fixed, uint16(k.from.Len()*8))

		prf, err := sp800.New(k.from.Bytes())
		if err != nil {
			return Set{}, err
		}
		derived := make([]byte, k.from.Len())
		sp800.CounterKDF(prf, nil, fixed, derived)
		*k.to, err = NewKey(derived)
		clear(derived)
		if err != nil {
			return Set{}, err
		}
	}
	return out, nil
}

// Validate reports what keeps s from being a key set of a kind: a Security
// Domain's has ENC, MAC and DEK, one for reading ENC and MAC only, all of one
// size that the kind allows, and a version from 1 to 127.
func (s Set) Validate(kind Kind) error {
	switch {
	case kind != SecurityDomain && kind != Read:
		return fmt.Errorf("%w: %q has no key set", ErrWrongKind, kind)
	case s.Version < 1 || s.Version > MaxVersion:
		return fmt.Errorf("key set version %d: 1 to %d allowed", s.Version, MaxVersion)
	case s.ENC.IsZero() || s.MAC.IsZero():
		return fmt.Errorf("key set version %d lacks ENC or MAC", s.Version)
	case kind == Read && !s.DEK.IsZero():
		return fmt.Errorf("key set version %d for reading has a DEK", s.Version)
	case kind == SecurityDomain && s.DEK.IsZero():
		return fmt.Errorf("key set version %d of a security domain lacks a DEK", s.Version)
	case s.ENC.Len() != s.MAC.Len(), kind == SecurityDomain && s.DEK.Len() != s.ENC.Len():
		return fmt.Errorf("key set version %d has keys of different sizes", s.Version)
	case kind == Read && s.ENC.Len() == 24:
		return fmt.Errorf("key set version %d for reading has keys of 24 bytes: 16 or 32 allowed", s.Version)
	}
	return nil
}
