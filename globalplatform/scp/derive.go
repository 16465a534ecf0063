package scp

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Derivation constants (AmdD table 4-1).
const (
	constCardCryptogram byte = 0x00
	constHostCryptogram byte = 0x01
	constCardChallenge  byte = 0x02
	constENC            byte = 0x04
	constMAC            byte = 0x06
	constRMAC           byte = 0x07
)

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
// MAC keys and both challenges of 8 bytes, in mode S16 of 16 (AmdD 6.2.1). The
// error wraps [ErrKeySet].
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
// with S-MAC (AmdD 6.2.2.2, 6.2.2.3), as long as a challenge.
func cryptogram(smac *sp800.CMAC, constant byte, hostChallenge, cardChallenge []byte) []byte {
	var context [2 * blockSize]byte
	out := make([]byte, len(hostChallenge))
	derive(smac, Label{}, constant, append(append(context[:0], hostChallenge...), cardChallenge...), out)
	return out
}

// pseudoRandomChallenge is the card's challenge that follows from its static
// ENC key, its sequence counter and the AID of the application that opens the
// channel (AmdD 6.2.2.1).
func pseudoRandomChallenge(set keys.Set, counter uint32, aid iso7816.AID, size int) ([]byte, error) {
	enc, err := sp800.New(set.ENC.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeySet, err)
	}
	context := append([]byte{byte(counter >> 16), byte(counter >> 8), byte(counter)}, aid.Bytes()...)
	out := make([]byte, size)
	derive(enc, Label{}, constCardChallenge, context, out)
	return out, nil
}
