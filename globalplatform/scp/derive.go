package scp

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/keys"
)

// Derivation constants (AmdD table 4-1).
const (
	constCardCryptogram byte = 0x00
	constHostCryptogram byte = 0x01
	constENC            byte = 0x04
	constMAC            byte = 0x06
	constRMAC           byte = 0x07
)

// ChallengeSize is the size of a challenge of the host or the card, in bytes,
// in mode S8.
const ChallengeSize = 8

// ErrKeySet reports static keys that SCP03 can't use: one is missing, or their
// lengths differ (AmdD 6.1).
var ErrKeySet = errors.New("key set unusable for SCP03")

// Label is what distinguishes derivations of one protocol from those of
// another that uses the same static keys: the first 11 bytes of the KDF's
// label (AmdD 4.1.5). SCP03's own are all zero.
type Label [11]byte

// SessionKeys are the keys of one session: S-ENC, S-MAC and S-RMAC, as long as
// the static keys (AmdD 6.2.1). Printing them shows check values only.
type SessionKeys struct{ ENC, MAC, RMAC keys.Key }

// Erase overwrites the keys.
func (k *SessionKeys) Erase() {
	k.ENC.Erase()
	k.MAC.Erase()
	k.RMAC.Erase()
}

// DeriveSessionKeys derives the session keys of SCP03 from the static ENC and
// MAC keys and both challenges of 8 bytes (AmdD 6.2.1). The error wraps
// [ErrKeySet].
func DeriveSessionKeys(set keys.Set, hostChallenge, cardChallenge []byte) (SessionKeys, error) {
	return DeriveSessionKeysLabel(Label{}, set, hostChallenge, cardChallenge)
}

// DeriveSessionKeysLabel derives session keys as SCP03 does, under a label of
// another protocol and from challenges of any length.
func DeriveSessionKeysLabel(label Label, set keys.Set, hostChallenge, cardChallenge []byte) (SessionKeys, error) {
	if err := checkSet(set); err != nil {
		return SessionKeys{}, err
	}
	enc, err := sp800.New(set.ENC.Bytes())
	if err != nil {
		return SessionKeys{}, fmt.Errorf("%w: %w", ErrKeySet, err)
	}
	mac, err := sp800.New(set.MAC.Bytes())
	if err != nil {
		return SessionKeys{}, fmt.Errorf("%w: %w", ErrKeySet, err)
	}
	context := make([]byte, 0, 64)
	context = append(append(context, hostChallenge...), cardChallenge...)
	var k SessionKeys
	if k.ENC, err = deriveKey(enc, label, constENC, context, len(set.ENC.Bytes())); err != nil {
		return SessionKeys{}, err
	}
	if k.MAC, err = deriveKey(mac, label, constMAC, context, len(set.MAC.Bytes())); err != nil {
		return SessionKeys{}, err
	}
	if k.RMAC, err = deriveKey(mac, label, constRMAC, context, len(set.MAC.Bytes())); err != nil {
		return SessionKeys{}, err
	}
	return k, nil
}

func checkSet(set keys.Set) error {
	switch e, m := len(set.ENC.Bytes()), len(set.MAC.Bytes()); {
	case e == 0 || m == 0:
		return fmt.Errorf("%w: it has no ENC or no MAC key", ErrKeySet)
	case e != m:
		return fmt.Errorf("%w: ENC has %d bytes and MAC %d", ErrKeySet, e, m)
	}
	return nil
}

func deriveKey(m *sp800.CMAC, label Label, constant byte, context []byte, size int) (keys.Key, error) {
	var out [32]byte
	defer clear(out[:])
	derive(m, label, constant, context, out[:size])
	return keys.NewKey(out[:size])
}

// derive is the data derivation scheme of AmdD 4.1.5.
func derive(m *sp800.CMAC, label Label, constant byte, context, out []byte) {
	var before [15]byte
	copy(before[:], label[:])
	before[11] = constant
	bits := len(out) * 8
	before[13], before[14] = byte(bits>>8), byte(bits) // [12] is the separator 00
	sp800.CounterKDF(m, before[:], context, out)
}

// cryptogram is the card's or the host's authentication cryptogram, computed
// with S-MAC (AmdD 6.2.2.2, 6.2.2.3).
func cryptogram(smac *sp800.CMAC, constant byte, hostChallenge, cardChallenge []byte) (out [8]byte) {
	var context [2 * ChallengeSize]byte
	copy(context[:], hostChallenge)
	copy(context[ChallengeSize:], cardChallenge)
	derive(smac, Label{}, constant, context[:], out[:])
	return out
}
