package jcvm

import (
	"encoding/binary"
	"math/big"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/internal/ecc"
)

// asymmetricKind is a family of asymmetric keys (KeyBuilder.TYPE_…).
type asymmetricKind struct {
	class string
	event *oncard.ClearEvent // nil: persistent
}

var (
	onReset    = oncard.OnReset
	onDeselect = oncard.OnDeselect
)

const (
	classRSAPublic     = "javacard/security/RSAPublicKey"
	classRSAPrivate    = "javacard/security/RSAPrivateKey"
	classRSAPrivateCRT = "javacard/security/RSAPrivateCrtKey"
	classECPublic      = "javacard/security/ECPublicKey"
	classECPrivate     = "javacard/security/ECPrivateKey"
)

var asymmetricKinds = map[uint8]asymmetricKind{
	4:  {classRSAPublic, nil},
	5:  {classRSAPrivate, nil},
	6:  {classRSAPrivateCRT, nil},
	11: {classECPublic, nil},
	12: {classECPrivate, nil},
	22: {classRSAPrivate, &onReset},
	23: {classRSAPrivate, &onDeselect},
	24: {classRSAPrivateCRT, &onReset},
	25: {classRSAPrivateCRT, &onDeselect},
	30: {classECPrivate, &onReset},
	31: {classECPrivate, &onDeselect},
}

// asymmetricTypes are KeyBuilder's TYPE_… by its ALG_TYPE_… and
// JCSystem.MEMORY_TYPE_….
var asymmetricTypes = map[uint8]map[uint8]uint8{
	7:  {0: 11},
	8:  {0: 12, 1: 30, 2: 31},
	11: {0: 4},
	12: {0: 5, 1: 22, 2: 23},
	13: {0: 6, 1: 24, 2: 25},
}

// Components of keys, in the order in which they are stored.
const (
	rsaModulus = iota
	rsaExponent
)

const (
	crtP = iota
	crtQ
	crtPQ
	crtDP1
	crtDQ1
)

const (
	ecField = iota
	ecA
	ecB
	ecG
	ecR
	ecK
	ecValue // S or W
)

// components are the sizes of a key's parts in bytes. Each has 2 bytes more
// for the length that it has, 0 while it isn't set. A group order may be one
// bit longer than the field.
func components(class string, bits int) []int {
	n := (bits + 7) / 8
	switch class {
	case classRSAPublic, classRSAPrivate:
		return []int{n, n}
	case classRSAPrivateCRT:
		return []int{n / 2, n / 2, n / 2, n / 2, n / 2}
	case classECPublic:
		return []int{n, n, n, 2*n + 1, n + 1, 2, 2*n + 1}
	case classECPrivate:
		return []int{n, n, n, 2*n + 1, n + 1, 2, n + 1}
	}
	return nil
}

// rsaLength and ecLength are the sizes of keys that there are: what
// KeyBuilder has constants for, and what cards have beyond.
func rsaLength(bits int) bool { return bits >= 512 && bits <= 4096 && bits%32 == 0 }

func ecLength(bits int) bool {
	switch bits {
	case 112, 128, 160, 192, 224, 256, 320, 384, 512, 521:
		return true
	}
	return false
}

// nativesKeys implements the asymmetric keys of javacard.security, and
// KeyPair.
var nativesKeys = withComponents(map[string]native{
	"javacard/security/KeyPair.<init>(BS)V": func(vm *VM, a []slot) slot {
		types := map[uint8][2]slot{1: {4, 5}, 2: {4, 6}, 5: {11, 12}}
		t, ok := types[uint8(a[1])]
		if !ok {
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		public := buildKey(vm, []slot{slot(t[0]), a[2], 0})
		private := buildKey(vm, []slot{slot(t[1]), a[2], 0})
		o := vm.this(a)
		vm.setField(o, pairPublic, uint16(public))
		vm.setField(o, pairPrivate, uint16(private))
		return 0
	},
	"javacard/security/KeyPair.<init>(Ljavacard/security/PublicKey;Ljavacard/security/PrivateKey;)V": func(vm *VM, a []slot) slot {
		public, private := vm.asymmetricKey(vm.object(a[1])), vm.asymmetricKey(vm.object(a[2]))
		of := map[string]string{classRSAPrivate: classRSAPublic, classRSAPrivateCRT: classRSAPublic, classECPrivate: classECPublic}
		if public.class.name != of[private.class.name] || public.field(keyBits) != private.field(keyBits) {
			vm.cryptoError(cryptoIllegalValue)
		}
		o := vm.this(a)
		vm.setField(o, pairPublic, uint16(public.self))
		vm.setField(o, pairPrivate, uint16(private.self))
		return 0
	},
	"javacard/security/KeyPair.getPublic()Ljavacard/security/PublicKey;":   func(vm *VM, a []slot) slot { return ref(vm.this(a).field(pairPublic)).slot() },
	"javacard/security/KeyPair.getPrivate()Ljavacard/security/PrivateKey;": func(vm *VM, a []slot) slot { return ref(vm.this(a).field(pairPrivate)).slot() },
	"javacard/security/KeyPair.genKeyPair()V":                              genKeyPair,

	"javacard/security/ECKey.setFieldF2M(S)V":   illegalValue,
	"javacard/security/ECKey.setFieldF2M(SSS)V": illegalValue,
	"javacard/security/ECKey.setK(S)V": func(vm *VM, a []slot) slot {
		if int16(a[1]) <= 0 {
			vm.cryptoError(cryptoIllegalValue)
		}
		vm.setComponent(vm.this(a), ecK, []byte{byte(a[1] >> 8), byte(a[1])})
		return 0
	},
	"javacard/security/ECKey.getK()S": func(vm *VM, a []slot) slot {
		return slot(binary.BigEndian.Uint16(vm.mustComponent(vm.this(a), ecK)))
	},
	"javacard/security/ECKey.copyDomainParametersFrom(Ljavacard/security/ECKey;)V": func(vm *VM, a []slot) slot {
		to, from := vm.this(a), vm.object(a[1])
		if from == nil {
			vm.throw("java/lang/NullPointerException")
		}
		vm.asymmetricKey(from)
		if from.class.name != classECPublic && from.class.name != classECPrivate || from.field(keyBits) != to.field(keyBits) {
			vm.cryptoError(cryptoIllegalValue)
		}
		vm.copyDomain(to, from)
		return 0
	},
})

// copyDomain copies the parameters of a curve between keys of one size.
func (vm *VM) copyDomain(to, from *object) {
	values := make([][]byte, ecValue)
	for i := range values {
		if values[i] = vm.component(from, i); values[i] == nil && i != ecK {
			vm.cryptoError(cryptoUninitializedKey)
		}
	}
	vm.setComponents(to, values)
}

// Fields of a KeyPair.
const (
	pairPublic = iota
	pairPrivate
)

func illegalValue(vm *VM, _ []slot) slot { vm.cryptoError(cryptoIllegalValue); return 0 }

// withComponents adds the setters and getters of components to a table, and
// repeats what all keys and all keys over curves have for their classes.
func withComponents(table map[string]native) map[string]native {
	for name, f := range table {
		const ec = "javacard/security/ECKey."
		if len(name) > len(ec) && name[:len(ec)] == ec {
			table[classECPublic+"."+name[len(ec):]] = f
			table[classECPrivate+"."+name[len(ec):]] = f
		}
	}
	for _, c := range []struct {
		class string
		names []string
	}{
		{classRSAPublic, []string{"Modulus", "Exponent"}},
		{classRSAPrivate, []string{"Modulus", "Exponent"}},
		{classRSAPrivateCRT, []string{"P", "Q", "PQ", "DP1", "DQ1"}},
		{"javacard/security/ECKey", []string{"Field", "A", "B", "G", "R"}},
		{classECPublic, []string{"Field", "A", "B", "G", "R", "", "W"}},
		{classECPrivate, []string{"Field", "A", "B", "G", "R", "", "S"}},
	} {
		for i, name := range c.names {
			if name == "" {
				continue
			}
			setter := name
			if name == "Field" {
				setter = "FieldFP"
			}
			table[c.class+".set"+setter+"([BSS)V"] = func(vm *VM, a []slot) slot {
				o := vm.this(a)
				vm.setComponent(o, i, vm.normal(o, i, vm.bytes(a[1], a[2], a[3])))
				return 0
			}
			table[c.class+".get"+name+"([BS)S"] = func(vm *VM, a []slot) slot {
				b := vm.mustComponent(vm.this(a), i)
				vm.store(a[1], int(int16(a[2])), b)
				return slot(len(b))
			}
		}
	}
	return table
}

// buildAsymmetricKey makes a key of a type that asymmetricKinds lists.
func (vm *VM) buildAsymmetricKey(t uint8, kind asymmetricKind, bits int) slot {
	ok := rsaLength(bits)
	if kind.class == classECPublic || kind.class == classECPrivate {
		ok = ecLength(bits)
	}
	if !ok {
		vm.cryptoError(cryptoNoSuchAlgorithm)
	}
	size := 0
	for _, n := range components(kind.class, bits) {
		size += 2 + n
	}
	var data *object
	if kind.event != nil {
		data = vm.newTransient(kindByte, size, nil, *kind.event)
	} else {
		data = vm.newArray(kindByte, size, nil)
	}
	o := vm.newInstance(vm.api.classes[kind.class])
	vm.setField(o, keyType, uint16(t))
	vm.setField(o, keyBits, uint16(bits))
	vm.setField(o, keyData, uint16(data.self))
	return o.self.slot()
}

// asymmetricKey checks that an object is such a key and that the running
// context may use it.
func (vm *VM) asymmetricKey(o *object) *object {
	if o == nil {
		vm.cryptoError(cryptoUninitializedKey)
	}
	if o.kind != kindInstance || o.class == nil || !o.class.pkg.native || components(o.class.name, 0) == nil {
		vm.cryptoError(cryptoIllegalValue)
	}
	vm.access(o)
	data := vm.objs[o.field(keyData)]
	if data == nil {
		vm.cryptoError(cryptoUninitializedKey)
	}
	vm.access(data)
	return o
}

// place is where a component stands in a key's data.
func place(o *object, n int) (offset, size int) {
	sizes := components(o.class.name, int(o.field(keyBits)))
	for _, s := range sizes[:n] {
		offset += 2 + s
	}
	return offset, sizes[n]
}

// component is a part of a key, nil while it isn't set.
func (vm *VM) component(o *object, n int) []byte {
	data := vm.objs[o.field(keyData)]
	if data == nil {
		return nil
	}
	vm.access(data)
	offset, size := place(o, n)
	length := int(binary.BigEndian.Uint16(data.data[offset:]))
	if length == 0 || length > size {
		return nil
	}
	return data.data[offset+2 : offset+2+length]
}

func (vm *VM) mustComponent(o *object, n int) []byte {
	b := vm.component(o, n)
	if b == nil {
		vm.cryptoError(cryptoUninitializedKey)
	}
	return b
}

func (vm *VM) number(o *object, n int) *big.Int {
	return new(big.Int).SetBytes(vm.mustComponent(o, n))
}

// setComponent writes a part of a key at once.
func (vm *VM) setComponent(o *object, n int, value []byte) {
	values := make([][]byte, n+1)
	values[n] = value
	vm.setComponents(o, values)
}

// setComponents writes some parts of a key, in one write: those that aren't
// nil. An empty one is cleared.
func (vm *VM) setComponents(o *object, values [][]byte) {
	data := vm.objs[o.field(keyData)]
	vm.access(data)
	first, last := -1, 0
	b := append([]byte(nil), data.data...)
	for i, v := range values {
		if v == nil {
			continue
		}
		offset, size := place(o, i)
		if len(v) > size {
			vm.cryptoError(cryptoIllegalValue)
		}
		binary.BigEndian.PutUint16(b[offset:], uint16(len(v)))
		clear(b[offset+2 : offset+2+size])
		copy(b[offset+2:], v)
		if first < 0 {
			first = offset
		}
		last = offset + 2 + size
	}
	if first >= 0 {
		vm.write(data, first, b[first:last])
	}
}

// normal checks a component that an application gives and brings numbers to
// the length that the key has them in: all of it, but for a public exponent
// and the order of a group.
func (vm *VM) normal(o *object, n int, p []byte) []byte {
	_, size := place(o, n)
	if o.class.name == classECPublic || o.class.name == classECPrivate {
		field := (int(o.field(keyBits)) + 7) / 8
		switch {
		case n == ecG || n == ecValue && o.class.name == classECPublic:
			if len(p) != 2*field+1 || p[0] != 4 { // uncompressed points only
				vm.cryptoError(cryptoIllegalValue)
			}
			return p
		case n == ecR || n == ecValue:
			if size = len(new(big.Int).SetBytes(p).Bytes()); size < field {
				size = field
			}
		case n == ecField:
			v := new(big.Int).SetBytes(p)
			if v.BitLen() > int(o.field(keyBits)) || v.Bit(0) == 0 {
				vm.cryptoError(cryptoIllegalValue)
			}
		}
	} else if n == rsaExponent && o.class.name == classRSAPublic {
		size = 0
	}
	b := new(big.Int).SetBytes(p).Bytes()
	_, most := place(o, n)
	if len(b) > most || len(p) == 0 {
		vm.cryptoError(cryptoIllegalValue)
	}
	if size < len(b) {
		size = len(b)
	}
	if size == 0 {
		size = 1 // the number zero
	}
	return new(big.Int).SetBytes(b).FillBytes(make([]byte, size))
}

// complete reports whether all parts are set that a key needs; the cofactor
// isn't one of them.
func (vm *VM) complete(o *object) bool {
	for i := range components(o.class.name, int(o.field(keyBits))) {
		if vm.component(o, i) == nil && (i != ecK || o.class.name != classECPublic && o.class.name != classECPrivate) {
			return false
		}
	}
	return true
}

// usableKey is an asymmetric key that must be of one of the classes, and
// complete.
func (vm *VM) usableKey(o *object, classes ...string) *object {
	vm.asymmetricKey(o)
	for _, c := range classes {
		if o.class.name == c {
			if !vm.complete(o) {
				vm.cryptoError(cryptoUninitializedKey)
			}
			return o
		}
	}
	vm.cryptoError(cryptoIllegalValue)
	return nil
}

// curve is that of a key. Parameters that make none are refused: a point G
// that isn't on it, or numbers that are too large.
func (vm *VM) curve(o *object) *ecc.Curve {
	c := &ecc.Curve{
		P: vm.number(o, ecField), A: vm.number(o, ecA), B: vm.number(o, ecB), N: vm.number(o, ecR),
		Size: (int(o.field(keyBits)) + 7) / 8,
	}
	g, ok := c.Decode(vm.mustComponent(o, ecG))
	if !ok || c.N.Cmp(big.NewInt(3)) <= 0 {
		vm.cryptoError(cryptoIllegalValue)
	}
	c.G = g
	return c
}

// genKeyPair makes new keys. The public one is unusable while the other is
// written, so that the loss of power leaves no pair that doesn't belong
// together. An exponent of RSA that is set is kept, and so are the parameters
// of a curve, which must be set in one of the keys.
func genKeyPair(vm *VM, a []slot) slot {
	o := vm.this(a)
	public, private := vm.objs[o.field(pairPublic)], vm.objs[o.field(pairPrivate)]
	if public == nil || private == nil {
		vm.cryptoError(cryptoUninitializedKey)
	}
	vm.asymmetricKey(public)
	vm.asymmetricKey(private)
	bits := int(public.field(keyBits))
	if public.class.name == classECPublic {
		from := public
		parameters := func(o *object) bool {
			for i := ecField; i <= ecR; i++ {
				if vm.component(o, i) == nil {
					return false
				}
			}
			return true
		}
		if !parameters(from) {
			if from = private; !parameters(from) {
				vm.cryptoError(cryptoIllegalValue)
			}
		}
		c := vm.curve(from)
		d := vm.scalar(c)
		w := c.Multiply(c.G, d)
		values := make([][]byte, ecValue+1)
		for i := range ecValue {
			if v := vm.component(from, i); v != nil {
				values[i] = append([]byte(nil), v...)
			}
		}
		if w.Infinite() {
			vm.cryptoError(cryptoIllegalValue)
		}
		vm.setComponent(public, ecValue, []byte{})
		values[ecValue] = d.FillBytes(make([]byte, max(c.Size, len(c.N.Bytes()))))
		vm.setComponents(private, values)
		values[ecValue] = c.Encode(w)
		vm.setComponents(public, values)
		return 0
	}
	e := big.NewInt(65537)
	if vm.component(public, rsaExponent) != nil {
		e = vm.number(public, rsaExponent)
	}
	if e.Bit(0) == 0 || e.Cmp(big.NewInt(3)) < 0 || e.BitLen() > bits/2 {
		vm.cryptoError(cryptoIllegalValue)
	}
	k, err := generateRSA(vm.sys.Random(), bits, e, vm.charge)
	if err != nil {
		vm.fault("random generator: %v", err)
	}
	n := bits / 8
	fill := func(v *big.Int, size int) []byte { return v.FillBytes(make([]byte, size)) }
	vm.setComponent(public, rsaModulus, []byte{})
	if private.class.name == classRSAPrivate {
		vm.setComponents(private, [][]byte{rsaModulus: fill(k.n, n), rsaExponent: fill(k.d, n)})
	} else {
		vm.setComponents(private, [][]byte{
			crtP: fill(k.p, n/2), crtQ: fill(k.q, n/2), crtPQ: fill(k.pq, n/2), crtDP1: fill(k.dp, n/2), crtDQ1: fill(k.dq, n/2),
		})
	}
	vm.setComponents(public, [][]byte{rsaModulus: fill(k.n, n), rsaExponent: e.Bytes()})
	return 0
}

// charge counts work outside of the interpreter as bytecodes, and ends a
// command that does too much of it.
func (vm *VM) charge(n int64) {
	if vm.steps -= n; vm.steps < 0 {
		vm.fault("too many bytecodes")
	}
}

// scalar is a random number from 1 to the order of a curve, exclusive.
func (vm *VM) scalar(c *ecc.Curve) *big.Int {
	vm.charge(cost(c))
	for {
		k, err := randomBits(vm.sys.Random(), c.N.BitLen())
		if err != nil {
			vm.fault("random generator: %v", err)
		}
		if k.Sign() > 0 && k.Cmp(c.N) < 0 {
			return k
		}
	}
}
