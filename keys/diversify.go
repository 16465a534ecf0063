package keys

import (
	"bytes"
	"crypto/cipher"
	"crypto/des"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
)

// Method is a diversification method by its name in the field.
type Method string

const (
	// MethodNone uses the stored keys as they are.
	MethodNone Method = "none"
	// MethodSP800108 derives with the KDF of SP 800-108 in counter mode over
	// AES-CMAC, in a context of this module's own. It is the one for new cards.
	MethodSP800108 Method = "sp800-108-cmac"
	// MethodKDF3 is the KDF that GlobalPlatformPro calls kdf3: SP 800-108 as
	// well, in the context that card makers use for SCP03.
	MethodKDF3 Method = "kdf3"
	// MethodVISA2 is the encryption of the card's serial number that
	// GlobalPlatformPro and GPShell call visa2, for the triple DES keys of SCP02.
	MethodVISA2 Method = "visa2"
	// MethodEMV is the same over other bytes of the diversification data, as
	// EMV Card Personalization Specification 4.1 has it, for SCP02.
	MethodEMV Method = "emv"
	// MethodAN10922 is NXP's Application Note 10922 for AES keys.
	MethodAN10922 Method = "an10922"
)

// Methods lists every method.
func Methods() []Method {
	return []Method{MethodSP800108, MethodKDF3, MethodVISA2, MethodEMV, MethodAN10922, MethodNone}
}

// needsCMAC reports a method that computes nothing but AES-CMACs under the
// master keys.
func (m Method) needsCMAC() bool {
	return m == MethodSP800108 || m == MethodKDF3 || m == MethodAN10922
}

// CheckProtocol says whether a card that speaks a Secure Channel Protocol, 2 or
// 3, can have keys of this method: those of triple DES are SCP02's, and those
// whose makers have chosen AES are SCP03's. Another answers ErrDiversifier.
func (m Method) CheckProtocol(scp byte) error {
	var only byte
	switch m {
	case MethodVISA2, MethodEMV:
		only = 2
	case MethodKDF3, MethodAN10922:
		only = 3
	}
	if only != 0 && only != scp {
		return fmt.Errorf("%w: %q is for SCP%02d, and the card speaks SCP%02d", ErrDiversifier, m, only, scp)
	}
	return nil
}

// DiversificationDataSize is the size of diversification data in bytes, both
// in the answer to INITIALIZE UPDATE (AmdD 7.1.1.3) and in the FCI of the base
// applications.
const DiversificationDataSize = 10

// diversifyLabel is the Label of the KDF. Its number changes when the context does.
const diversifyLabel = "FREEAREA-KD1"

// an10922System is the System Identifier, which AN10922 leaves to whoever
// builds a system.
const an10922System = "FREEAREA"

// CheckMethod says whether keys of a kind may be diversified by a method:
// Security Domain keys by every one, read keys only by MethodSP800108. With
// MethodNone one opened card would open all of them, and the others know
// nothing of an instance's AID. Everything else wraps ErrDiversifier.
func CheckMethod(kind Kind, method Method) error {
	switch {
	case !slices.Contains(Methods(), method):
		return fmt.Errorf("%w: %q is unknown; known are %q", ErrDiversifier, method, Methods())
	case kind == Read && method != MethodSP800108:
		return fmt.Errorf("%w: %q is not allowed for reading keys", ErrDiversifier, method)
	case kind != Read && kind != SecurityDomain:
		return fmt.Errorf("%w: keys of kind %q are not diversified", ErrDiversifier, kind)
	}
	return nil
}

// Purpose says which key of a set is meant.
type Purpose byte

const (
	PurposeENC Purpose = 1
	PurposeMAC Purpose = 2
	PurposeDEK Purpose = 3 // Security Domains only
)

// Purposes lists the keys that a set of a kind has: none for kinds without
// sets.
func (k Kind) Purposes() []Purpose {
	switch k {
	case SecurityDomain:
		return []Purpose{PurposeENC, PurposeMAC, PurposeDEK}
	case Read:
		return []Purpose{PurposeENC, PurposeMAC}
	}
	return nil
}

// key returns the key of a purpose.
func (s *Set) key(p Purpose) *Key {
	switch p {
	case PurposeENC:
		return &s.ENC
	case PurposeMAC:
		return &s.MAC
	}
	return &s.DEK
}

// Diversify returns the keys of one card or one instance, which follow from
// master keys. With MethodNone they are a copy of master. With the others each
// key K is derived from the master key of its own purpose, which is a number:
// 01 ENC, 02 MAC, 03 DEK. data is the diversification data, 10 bytes d0 to d9,
// L the size of the master key and of K.
//
// MethodSP800108 is the KDF in counter mode of SP 800-108 with AES-CMAC as the
// PRF (4.1):
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
// MethodKDF3 is the same KDF without a label and L:
//
//	K(i) = CMAC(master, i ‖ 00 00 00 ‖ purpose ‖ 00 ‖ d0 … d9)
//
// MethodVISA2 and MethodEMV encrypt with triple DES (two keys, ECB): the
// 16 bytes of a Key are taken as a DES key of double length, as SCP02 takes
// them, and other sizes are refused. Parity bits are left as they come out.
//
//	visa2: K = 3DES(master, d0 d1 d4 d5 d6 d7 F0 purpose ‖ d0 d1 d4 d5 d6 d7 0F purpose)
//	emv:   K = 3DES(master, d4 d5 d6 d7 d8 d9 F0 purpose ‖ d4 d5 d6 d7 d8 d9 0F purpose)
//
// MethodAN10922 takes M = d0 … d9 ‖ purpose ‖ 4652454541524541, ASCII
// "FREEAREA". In the note's words these are UID, AID and System Identifier; it
// leaves their values to the system, and the purpose is in the place of the
// AID so that equal masters give different keys:
//
//	AES-128: K = CMAC(master, 01 ‖ M)
//	AES-192: A = CMAC(master, 11 ‖ M), B = CMAC(master, 12 ‖ M); K = A1 ‖ (A2 xor B1) ‖ B2, in halves of 8 bytes
//	AES-256: K = CMAC(master, 41 ‖ M) ‖ CMAC(master, 42 ‖ M)
//
// A Security Domain's diversification data is what the card answers to
// INITIALIZE UPDATE; its AID is in no method's input, so Security Domains with
// different keys need master keys of different names. An instance's
// diversification data is what its FCI shows.
//
// The error wraps ErrDiversifier as CheckMethod says, or
// ErrDiversificationData when data is not 10 bytes or its variable part (d4 to
// d7 for MethodVISA2, d4 to d9 for MethodEMV, all for the others) is zeros, as
// a card answers that was never given any: then every such card would have the
// same keys and nobody would notice.
func Diversify(kind Kind, method Method, master Set, instance iso7816.AID, data []byte) (Set, error) {
	if err := CheckMethod(kind, method); err != nil {
		return Set{}, err
	}
	if err := master.Validate(kind); err != nil {
		return Set{}, err
	}
	switch {
	case method == MethodNone:
		return master.Clone(), nil
	case method.needsCMAC():
		return DiversifyWith(kind, method, Masters{
			Version: master.Version,
			Size:    master.ENC.Len(),
			CMAC: func(p Purpose, message []byte) ([16]byte, error) {
				return sp800.Sum(master.key(p).Bytes(), message)
			},
		}, instance, data)
	}
	if err := checkInput(kind, method, instance, data); err != nil {
		return Set{}, err
	}
	return diversifyDES(kind, method, master, data)
}

// Masters are the master keys of one set, in a store that computes with them
// and does not show them.
type Masters struct {
	Version byte
	Size    int // of each key in bytes: 16, 24 or 32
	// CMAC returns the AES-CMAC of the message under the master key of a
	// purpose.
	CMAC func(p Purpose, message []byte) ([16]byte, error)
}

// DiversifyWith is [Diversify] with master keys that stay where they are. What
// can't be computed with CMACs alone (MethodNone, MethodVISA2, MethodEMV)
// wraps ErrMastersStay; an error of Masters.CMAC is returned as it is.
func DiversifyWith(kind Kind, method Method, m Masters, instance iso7816.AID, data []byte) (Set, error) {
	if err := CheckMethod(kind, method); err != nil {
		return Set{}, err
	}
	if !method.needsCMAC() {
		return Set{}, fmt.Errorf("%w: method %q needs them", ErrMastersStay, method)
	}
	if err := checkInput(kind, method, instance, data); err != nil {
		return Set{}, err
	}
	switch {
	case m.Version < 1 || m.Version > MaxVersion:
		return Set{}, fmt.Errorf("key set version %d: 1 to %d allowed", m.Version, MaxVersion)
	case m.Size != 16 && m.Size != 24 && m.Size != 32:
		return Set{}, fmt.Errorf("master keys of %d bytes: 16, 24 or 32 allowed", m.Size)
	case kind == Read && m.Size == 24:
		return Set{}, fmt.Errorf("key set version %d for reading has keys of 24 bytes: 16 or 32 allowed", m.Version)
	}

	out := Set{Version: m.Version}
	for _, p := range kind.Purposes() {
		cmac := func(message []byte) ([16]byte, error) { return m.CMAC(p, message) }
		derived := make([]byte, m.Size)
		var err error
		switch method {
		case MethodSP800108:
			err = counterKDF(cmac, sp800108Input(kind, p, m, instance, data), derived)
		case MethodKDF3:
			err = counterKDF(cmac, append([]byte{0, 0, 0, byte(p), 0}, data...), derived)
		case MethodAN10922:
			err = an10922(cmac, slices.Concat(data, []byte{byte(p)}, []byte(an10922System)), derived)
		}
		if err == nil {
			*out.key(p), err = NewKey(derived)
		}
		clear(derived)
		if err != nil {
			out.Erase()
			return Set{}, err
		}
	}
	return out, nil
}

// checkInput says whether the instance and the diversification data are what
// kind and method need.
func checkInput(kind Kind, method Method, instance iso7816.AID, data []byte) error {
	switch {
	case kind == Read && instance.IsZero():
		return fmt.Errorf("read keys belong to an instance, and no AID is given")
	case kind == SecurityDomain && !instance.IsZero():
		return fmt.Errorf("security domain keys are not diversified by an AID, and %v is given", instance)
	case len(data) != DiversificationDataSize:
		return fmt.Errorf("%w: %d bytes, %d expected", ErrDiversificationData, len(data), DiversificationDataSize)
	}
	// The bytes that tell one card from another.
	serial := data
	switch method {
	case MethodVISA2:
		serial = data[4:8]
	case MethodEMV:
		serial = data[4:]
	}
	if bytes.Count(serial, []byte{0}) == len(serial) {
		return fmt.Errorf("%w: all zeros", ErrDiversificationData)
	}
	return nil
}

// sp800108Input is what follows the counter in MethodSP800108.
func sp800108Input(kind Kind, p Purpose, m Masters, instance iso7816.AID, data []byte) []byte {
	kindCode := byte(0x01)
	if kind == Read {
		kindCode = 0x02
	}
	fixed := append([]byte(diversifyLabel), 0x00)
	fixed = append(fixed, byte(p), kindCode, m.Version)
	fixed = append(append(fixed, byte(instance.Len())), instance.Bytes()...)
	fixed = append(append(fixed, byte(len(data))), data...)
	return binary.BigEndian.AppendUint16(fixed, uint16(m.Size*8))
}

// counterKDF is the KDF in counter mode (SP 800-108, 4.1) with a counter of 8
// bits before the fixed input.
func counterKDF(cmac func([]byte) ([16]byte, error), fixed, out []byte) error {
	message := append([]byte{0}, fixed...)
	for len(out) > 0 {
		message[0]++
		k, err := cmac(message)
		if err != nil {
			return err
		}
		out = out[copy(out, k[:]):]
		clear(k[:])
	}
	return nil
}

// an10922 derives a key of the size of out by AN10922. The note pads every input to 32 bytes, also one that
// plain CMAC would process as a single block, so m has 16 to 31 bytes here:
// then both are the same, and a token that knows CMAC can compute it.
func an10922(cmac func([]byte) ([16]byte, error), m, out []byte) error {
	if len(m) < 16 || len(m) > 31 {
		return fmt.Errorf("diversification input of %d bytes: 16 to 31 allowed", len(m))
	}
	constants := []byte{0x01}
	switch len(out) {
	case 24:
		constants = []byte{0x11, 0x12}
	case 32:
		constants = []byte{0x41, 0x42}
	}
	var k [32]byte
	defer clear(k[:])
	for i, c := range constants {
		sum, err := cmac(append([]byte{c}, m...))
		if err != nil {
			return err
		}
		copy(k[16*i:], sum[:])
		clear(sum[:])
	}
	if len(out) == 24 {
		subtle.XORBytes(k[8:16], k[8:16], k[16:24])
		copy(k[16:], k[24:])
	}
	copy(out, k[:])
	return nil
}

// diversifyDES is MethodVISA2 and MethodEMV.
func diversifyDES(kind Kind, method Method, master Set, data []byte) (Set, error) {
	if n := master.ENC.Len(); n != 16 {
		return Set{}, fmt.Errorf("%w: %q takes DES keys of 16 bytes, and these have %d", ErrDiversifier, method, n)
	}
	input := data[4:10]
	if method == MethodVISA2 {
		input = slices.Concat(data[:2], data[4:8])
	}
	out := Set{Version: master.Version}
	for _, p := range kind.Purposes() {
		block, err := tripleDES(master.key(p).Bytes())
		if err != nil {
			out.Erase()
			return Set{}, err
		}
		derived := slices.Concat(input, []byte{0xF0, byte(p)}, input, []byte{0x0F, byte(p)})
		block.Encrypt(derived[:8], derived[:8])
		block.Encrypt(derived[8:], derived[8:])
		*out.key(p) = newKey(derived)
		clear(derived)
	}
	return out, nil
}

// tripleDES returns triple DES with a key of double length.
func tripleDES(key []byte) (cipher.Block, error) {
	k := slices.Concat(key, key[:8])
	defer clear(k)
	return des.NewTripleDESCipher(k)
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
