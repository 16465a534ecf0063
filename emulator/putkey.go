package emulator

import (
	"bytes"
	"crypto/aes"
	"crypto/des"
	"slices"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// newKey is a key as it came: its values in the clear, and its check value.
type newKey struct {
	key
	check []byte
}

// putKey is PUT KEY (GPCS 11.8): one key or several are added, or take the
// place of others, whole or not at all.
func (c *Card) putKey(sd *entry, cmd iso7816.Command) iso7816.Response {
	replaced, several := cmd.P1&0x7F, cmd.P2&0x80 != 0
	f := &fields{rest: cmd.Data}
	version := f.take(1)
	if f.bad || version[0] < 1 || version[0] > 0x7F {
		return refuse(iso7816.ErrWrongData)
	}
	var list []newKey
	for id := int(cmd.P2 & 0x7F); len(f.rest) > 0; id++ {
		if id > 0x7F || len(list) > 0 && !several {
			return refuse(iso7816.ErrWrongData)
		}
		k, err := c.readKey(f)
		if err != nil {
			return refuse(err)
		}
		k.version, k.id = version[0], byte(id)
		list = append(list, k)
	}
	if f.bad || len(list) == 0 {
		return refuse(iso7816.ErrWrongData)
	}
	next := sd.domain.clone()
	answer := []byte{version[0]}
	for _, k := range list {
		if replaced != 0 {
			i := next.find(replaced, k.id)
			switch {
			case i < 0:
				return refuse(iso7816.ErrDataNotFound)
			case !next.keys[i].alike(k.key):
				return refuse(iso7816.ErrWrongData) // 11.8.2.3.3
			}
			next.keys = slices.Delete(next.keys, i, i+1)
		}
		if next.find(k.version, k.id) >= 0 {
			return refuse(iso7816.ErrWrongData)
		}
		next.keys = append(next.keys, k.key)
		answer = append(answer, k.check...)
	}
	next.setCounter(replaced, 0) // a new key begins a new sequence
	if err := c.put(sd, next); err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: answer, SW: iso7816.OK}
}

// put gives a Security Domain other content, in one write. With its first set
// of secure channel keys it becomes PERSONALIZED.
func (c *Card) put(e *entry, next *domain) error {
	if err := next.fits(); err != nil {
		return err
	}
	if !e.own {
		if err := c.reserve(next.size() - e.domain.size()); err != nil {
			return err
		}
	}
	_, complete := next.set(0)
	c.update(e, func(e *entry) {
		e.domain = next
		if complete && !e.own && e.lifeCycle == oncard.Selectable {
			e.lifeCycle = domainPersonalized
		}
	})
	return nil
}

// alike reports whether two keys have the same type and size.
func (k key) alike(other key) bool {
	return slices.EqualFunc(k.components, other.components, func(a, b component) bool {
		return a.kind == b.kind && len(a.value) == len(b.value)
	})
}

// readKey reads one key data field (GPCS tables 11-68, 11-69) and decrypts what
// is secret in it.
func (c *Card) readKey(f *fields) (k newKey, err error) {
	extended := len(f.rest) > 0 && f.rest[0] == 0xFF
	for first := true; first || len(f.rest) > 0 && f.rest[0] >= 0x80; first = false {
		if extended && !bytes.Equal(f.take(1), []byte{0xFF}) {
			return k, iso7816.ErrWrongData
		}
		kind, block := f.take(1), f.long()
		if f.bad {
			return k, iso7816.ErrWrongData
		}
		value, err := c.componentValue(kind[0], block)
		if err != nil {
			return k, err
		}
		k.components = append(k.components, component{kind[0], value})
	}
	k.check = bytes.Clone(f.bytes())
	if extended {
		k.usage, k.access = bytes.Clone(f.bytes()), bytes.Clone(f.bytes())
	}
	if f.bad || len(k.usage) > 2 || len(k.access) > 1 {
		return k, iso7816.ErrWrongData
	}
	if err := k.recogniseCurve(); err != nil {
		return k, err
	}
	return k, k.valid(true)
}

// recogniseCurve looks at the curve parameters that come with an EC key (GPCS
// table 11-74): they must be those of a curve that the card has. Of them the
// generator is kept, which says which one.
func (k *newKey) recogniseCurve() error {
	if _, ok := k.find(keyTypeECField); !ok {
		return nil
	}
	own := map[byte][]byte{}
	var rest []component
	for _, p := range k.components {
		if p.kind < keyTypeECField || p.kind > keyTypeECCofactor {
			rest = append(rest, p)
			continue
		}
		if own[p.kind] != nil {
			return iso7816.ErrWrongData
		}
		own[p.kind] = p.value
	}
	if h, ok := own[keyTypeECCofactor]; ok && !bytes.Equal(h, []byte{1}) {
		return iso7816.ErrWrongData
	}
	for _, c := range curves() {
		if parameters := curveParameters(c); included(parameters, own) {
			k.components = append(rest, component{keyTypeECGenerator, parameters[keyTypeECGenerator]})
			return nil
		}
	}
	return iso7816.ErrWrongData
}

// included reports whether all of a is in b.
func included(a, b map[byte][]byte) bool {
	for kind, v := range a {
		if !bytes.Equal(v, b[kind]) {
			return false
		}
	}
	return true
}

// componentValue is the value in a key component block (GPCS tables 11-70,
// 11-71): in the clear for what is public, decrypted for what is secret.
func (c *Card) componentValue(kind byte, block []byte) ([]byte, error) {
	switch kind {
	case keyTypeRSAExponent, keyTypeRSAModulus, keyTypeECPublic, keyTypeECParameter,
		keyTypeECField, keyTypeECA, keyTypeECB, keyTypeECGenerator, keyTypeECOrder, keyTypeECCofactor:
		return bytes.Clone(block), nil
	case keyTypeDES, keyTypeAES:
	default:
		return nil, iso7816.ErrWrongData
	}
	size := aes.BlockSize
	if c.at.selected.domain.protocol.Number == 2 {
		size = des.BlockSize
	}
	length := len(block)
	if length%size != 0 {
		f := &fields{rest: block}
		if l := f.take(1); f.bad || int(l[0]) > len(f.rest) {
			return nil, iso7816.ErrWrongData
		}
		length, block = int(block[0]), f.rest
	}
	if len(block) == 0 || len(block)%size != 0 {
		return nil, iso7816.ErrWrongData
	}
	value, err := c.at.secure.DecryptSensitive(block)
	if err != nil {
		return nil, iso7816.ErrWrongData
	}
	return value[:length:length], nil
}

// valid holds a key to the types and sizes of GPCS table C-1 and B.4; where it
// is new also to its check value: symmetric keys must have one, the others must
// not.
func (k newKey) valid(isNew bool) error {
	kinds := make([]byte, 0, 2)
	for _, p := range k.components {
		kinds = append(kinds, p.kind)
	}
	slices.Sort(kinds)
	first := k.components[0].value
	switch string(kinds) {
	case string([]byte{keyTypeAES}):
		if n := len(first); n != 16 && n != 24 && n != 32 {
			return iso7816.ErrWrongData
		}
		return k.checked(isNew)
	case string([]byte{keyTypeDES}):
		if len(first) != 16 {
			return iso7816.ErrWrongData
		}
		return k.checked(isNew)
	case string([]byte{keyTypeRSAExponent, keyTypeRSAModulus}):
		n, _ := k.find(keyTypeRSAModulus)
		e, _ := k.find(keyTypeRSAExponent)
		if len(n) < 128 || len(n) > 512 || n[0]&0x80 == 0 || n[len(n)-1]&1 == 0 || len(e) < 1 || len(e) > 4 || e[0] == 0 || e[len(e)-1]&1 == 0 {
			return iso7816.ErrWrongData
		}
	case string([]byte{keyTypeECPublic, keyTypeECParameter}), string([]byte{keyTypeECPublic, keyTypeECGenerator}):
		if _, ok := k.point(); !ok {
			return iso7816.ErrWrongData
		}
	default:
		return iso7816.ErrWrongData
	}
	if isNew && len(k.check) != 0 {
		return iso7816.ErrWrongData
	}
	return nil
}

// checked compares the check value of a symmetric key (GPCS B.6).
func (k newKey) checked(isNew bool) error {
	if !isNew {
		return nil
	}
	var want []byte
	p := k.components[0]
	if p.kind == keyTypeAES {
		block, err := aes.NewCipher(p.value)
		if err != nil {
			return iso7816.ErrWrongData
		}
		want = bytes.Repeat([]byte{1}, aes.BlockSize)
		block.Encrypt(want, want)
	} else {
		block, err := des.NewTripleDESCipher(append(bytes.Clone(p.value), p.value[:8]...)) //nolint:gosec // B.6
		if err != nil {
			return iso7816.ErrWrongData
		}
		want = make([]byte, des.BlockSize)
		block.Encrypt(want, want)
	}
	switch {
	case len(k.check) == 0:
		return iso7816.ErrWrongData
	case !bytes.Equal(k.check, want[:3]):
		return iso7816.ErrSecurityStatus
	}
	return nil
}

// deleteKey is DELETE [key] (GPCS 11.2.2.3.2): one key, or all of an
// identifier or a version. A Security Domain that had secure channel keys keeps
// a set: otherwise nobody, or the wrong one, could speak to it.
func (c *Card) deleteKey(sd *entry, objects []iso7816.TLV) iso7816.Response {
	var id, version []byte
	for _, t := range objects {
		switch {
		case t.Tag == 0xD0 && id == nil && len(t.Value) == 1:
			id = t.Value
		case t.Tag == 0xD2 && version == nil && len(t.Value) == 1:
			version = t.Value
		default:
			return refuse(iso7816.ErrWrongData)
		}
	}
	next := sd.domain.clone()
	next.keys = slices.DeleteFunc(next.keys, func(k key) bool {
		return (id == nil || k.id == id[0]) && (version == nil || k.version == version[0])
	})
	if len(next.keys) == len(sd.domain.keys) {
		return refuse(iso7816.ErrDataNotFound)
	}
	_, before := sd.domain.set(0)
	if _, after := next.set(0); before && !after {
		return refuse(iso7816.ErrConditions)
	}
	next.counters = slices.DeleteFunc(next.counters, func(s sequence) bool { return next.find(s.version, 1) < 0 })
	c.update(sd, func(e *entry) { e.domain = next })
	return confirmed()
}
