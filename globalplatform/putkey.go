package globalplatform

import (
	"bytes"
	"context"
	"crypto"
	"crypto/des"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Errors of putting keys.
var (
	// ErrKey reports a key that can't be put: of a kind or size that the
	// specification has not, or one that the card's present keys rule out.
	// Nothing has been sent.
	ErrKey = errors.New("key can't be put on the card")
	// ErrKeyCheck reports a card whose answer to PUT KEY is not the new key
	// version and the check values of the keys: what it stored is unknown.
	ErrKeyCheck = errors.New("the card confirms other keys than were put")
)

// KeyValue is a key as PUT KEY carries it. Its secret part, if any, is
// encrypted when the command is made.
type KeyValue struct {
	secret     keys.Key // of typ; a public key has none
	typ        KeyType
	components []keyComponent // of a public key, in order
}

type keyComponent struct {
	typ   KeyType
	value []byte
}

// AESKey is an AES key of 16, 24 or 32 bytes.
func AESKey(k keys.Key) KeyValue { return KeyValue{secret: k, typ: KeyTypeAES} }

// TripleDESKey is a double length DES key: a key of 16 bytes. The card's check
// value of it is another than that of [keys.Key]; see CheckValue.
func TripleDESKey(k keys.Key) KeyValue { return KeyValue{secret: k, typ: KeyTypeDES} }

// RSAPublicKey is the public half of an RSA key of 1,024 bits or more (table
// 11-75).
func RSAPublicKey(k *rsa.PublicKey) KeyValue {
	return KeyValue{components: []keyComponent{
		{KeyTypeRSAModulus, k.N.Bytes()},
		{KeyTypeRSAPublic, big.NewInt(int64(k.E)).Bytes()},
	}}
}

// ECPublicKey is the public half of a key on a curve of table B-2, with the
// reference of the curve (table 11-73): an [*ecdsa.PublicKey], or what
// [ParseECPublicKey] returned. Of anything else the error wraps [ErrKey].
func ECPublicKey(k crypto.PublicKey) (KeyValue, error) {
	curve, point, err := ecPublicKey(k)
	if err != nil {
		return KeyValue{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	reference := byte(slices.Index(curveNames[:], curve))
	return KeyValue{components: []keyComponent{{KeyTypeECPublic, point}, {KeyTypeECParam, []byte{reference}}}}, nil
}

// Information returns the components as the card's key information will show
// them.
func (v KeyValue) Information() []KeyComponent {
	if v.components == nil {
		return []KeyComponent{{v.typ, v.secret.Len()}}
	}
	var out []KeyComponent
	for _, c := range v.components {
		n := len(c.value)
		if c.typ == KeyTypeECParam {
			n = int(c.value[0])
		}
		out = append(out, KeyComponent{c.typ, n})
	}
	return out
}

// check finds keys that PUT KEY can't carry.
func (v KeyValue) check() error {
	switch {
	case v.components == nil && v.typ == KeyTypeDES && v.secret.Len() != 16:
		return fmt.Errorf("%w: DES key of %d bytes, 16 allowed", ErrKey, v.secret.Len())
	case v.components == nil && v.secret.IsZero():
		return fmt.Errorf("%w: there is none", ErrKey)
	case len(v.components) > 0 && v.components[0].typ == KeyTypeRSAModulus && len(v.components[0].value) < 128:
		return fmt.Errorf("%w: RSA key of %d bits, 1024 at least (table C-1)", ErrKey, len(v.components[0].value)*8)
	}
	return nil
}

// CheckValue is the key check value of B.6: 3 bytes of a secret key, none of a
// public one.
func (v KeyValue) CheckValue() []byte {
	switch {
	case v.components != nil || v.check() != nil:
		return nil
	case v.typ == KeyTypeDES:
		kcv := DESCheckValue(v.secret)
		return kcv[:]
	}
	kcv := v.secret.CheckValue()
	return kcv[:]
}

// DESCheckValue is the key check value of a double length DES key: the first 3
// bytes of the encryption of 8 bytes of 00 (B.6); zeros where it is none.
func DESCheckValue(k keys.Key) [3]byte {
	b := k.Bytes()
	if len(b) != 16 {
		return [3]byte{}
	}
	long := append(bytes.Clone(b), b[:8]...)
	defer clear(long)
	block, err := des.NewTripleDESCipher(long)
	if err != nil {
		return [3]byte{}
	}
	var out [des.BlockSize]byte
	block.Encrypt(out[:], out[:])
	return [3]byte(out[:3])
}

// append appends the key data field in the basic format (table 11-68). Sealed
// AES keys carry their length (table 11-70; AmdD 7.2.1 wants it); DES keys
// don't, as they always have been (table 11-71).
func (v KeyValue) append(dst []byte, seal func([]byte) ([]byte, error)) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	if v.components != nil {
		for _, c := range v.components {
			dst = appendBERLV(append(dst, byte(c.typ)), c.value)
		}
		return append(dst, 0), nil
	}
	if seal == nil {
		return nil, fmt.Errorf("%w: nothing to encrypt it with", ErrKey)
	}
	value := bytes.Clone(v.secret.Bytes())
	defer clear(value)
	block := value
	if v.typ == KeyTypeAES && len(value)%16 != 0 {
		block = make([]byte, (len(value)/16+1)*16)
		defer clear(block)
		block[copy(block, value)] = 0x80 // any padding will do (11.8.2.3.2)
	}
	sealed, err := seal(block)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if v.typ == KeyTypeAES {
		sealed = append([]byte{byte(len(value))}, sealed...)
	}
	dst = appendBERLV(append(dst, byte(v.typ)), sealed)
	return appendLV(dst, v.CheckValue()), nil
}

// PutKey is the PUT KEY command (11.8) for keys of one version.
type PutKey struct {
	Replace byte // key version that is replaced, 0 to add one
	Version byte // of the new keys, 1 to 127
	ID      byte // of the first key; the others follow it
	Keys    []KeyValue
	// Seal encrypts secret keys under the DEK, such as
	// [scp.Session.EncryptSensitive].
	Seal func([]byte) ([]byte, error)
}

// SecureChannelKeys are the three keys of a secure channel key set, ENC, MAC
// and DEK with the identifiers 1 to 3.
func SecureChannelKeys(set keys.Set, kind func(keys.Key) KeyValue) PutKey {
	return PutKey{Version: set.Version, ID: 1, Keys: []KeyValue{kind(set.ENC), kind(set.MAC), kind(set.DEK)}}
}

// Command returns the command. Where it is longer than 255 bytes it must be
// chained, as [Execute] does.
func (p PutKey) Command() (iso7816.Command, error) {
	switch {
	case p.Replace > keys.MaxVersion || p.Version == 0 || p.Version > keys.MaxVersion:
		return iso7816.Command{}, fmt.Errorf("%w: key version %02X for %02X", ErrCommand, p.Version, p.Replace)
	case len(p.Keys) == 0 || int(p.ID)+len(p.Keys)-1 > 0x7F:
		return iso7816.Command{}, fmt.Errorf("%w: %d keys from identifier %02X", ErrCommand, len(p.Keys), p.ID)
	}
	data := []byte{p.Version}
	p2 := p.ID
	if len(p.Keys) > 1 {
		p2 |= 0x80
	}
	for i, k := range p.Keys {
		var err error
		if data, err = k.append(data, p.Seal); err != nil {
			return iso7816.Command{}, fmt.Errorf("key %02X: %w", int(p.ID)+i, err)
		}
	}
	return chainable(0xD8, p.Replace, p2, data)
}

// verify compares what the card answers: the version, and after it the check
// values without lengths (11.8.3.1). There are cards that leave out the check
// values, or send zeros; they did not confirm what they stored.
func (p PutKey) verify(answer []byte) error {
	want := []byte{p.Version}
	for _, k := range p.Keys {
		want = append(want, k.CheckValue()...)
	}
	if !bytes.Equal(answer, want) {
		return fmt.Errorf("%w: %X instead of %X", ErrKeyCheck, answer, want)
	}
	return nil
}

// checkAgainst compares with the keys that the card has: one that is added
// must not be there, one that is replaced must be, with the same type and size
// (11.8.2.3.3).
func (p PutKey) checkAgainst(present []KeyInformation) error {
	for i, k := range p.Keys {
		id := p.ID + byte(i)
		var old, taken *KeyInformation
		for j := range present {
			if present[j].ID != id {
				continue
			}
			if p.Replace != 0 && present[j].Version == p.Replace {
				old = &present[j]
			} else if present[j].Version == p.Version {
				taken = &present[j]
			}
		}
		switch {
		case taken != nil:
			return fmt.Errorf("%w: the card has a key %02X of version %02X already", ErrKey, id, p.Version)
		case p.Replace == 0:
		case old == nil:
			return fmt.Errorf("%w: the card has no key %02X of version %02X to replace", ErrKey, id, p.Replace)
		case old.Undecoded == nil && !sameComponents(old.Components, k.Information()):
			return fmt.Errorf("%w: key %02X of version %02X is %v on the card, %v is new", ErrKey, id, p.Replace, old.Components, k.Information())
		}
	}
	return nil
}

// sameComponents compares types and sizes, in any order; a size of 0 stands
// for one that the basic form can't say.
func sameComponents(a, b []KeyComponent) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		found := false
		for _, y := range b {
			found = found || x.Type == y.Type && (x.Length == y.Length || x.Length == y.Length&0xFF && y.Length > 0xFF)
		}
		if !found {
			return false
		}
	}
	return true
}

// PutKeys reads the key information of the selected Security Domain, puts the
// keys, and verifies what the card confirms. Secret keys are encrypted by the
// channel. A card without key information (6A88) has no keys to compare with.
//
// When the error wraps [ErrKeyCheck], or the answer was lost, which keys the
// card now has is unknown: it must not be locked or let go before a session
// with one of them.
func PutKeys(ctx context.Context, s scp.Channel, p PutKey) error {
	present, err := Keys(ctx, s)
	if err != nil && !errors.Is(err, iso7816.ErrDataNotFound) {
		return err
	}
	if err := p.checkAgainst(present); err != nil {
		return err
	}
	p.Seal = s.EncryptSensitive
	cmd, err := p.Command()
	if err != nil {
		return err
	}
	r, err := send(ctx, s, cmd)
	if err == nil {
		err = r.Err(cmd)
	}
	if err != nil {
		return err
	}
	return p.verify(r.Data)
}

// DeleteKey is DELETE [key] (11.2.2.3.2): all keys of an identifier, of a
// version, or the one of both; zero is any.
type DeleteKey struct{ ID, Version byte }

// Command returns the command.
func (d DeleteKey) Command() (iso7816.Command, error) {
	if d.ID == 0 && d.Version == 0 || d.ID > 0x7F || d.Version > keys.MaxVersion {
		return iso7816.Command{}, fmt.Errorf("%w: DELETE of key %02X, version %02X", ErrCommand, d.ID, d.Version)
	}
	var data []byte
	if d.ID != 0 {
		data = iso7816.AppendTLV(data, 0xD0, []byte{d.ID})
	}
	if d.Version != 0 {
		data = iso7816.AppendTLV(data, 0xD2, []byte{d.Version})
	}
	return command(0xE4, 0, 0, data)
}
