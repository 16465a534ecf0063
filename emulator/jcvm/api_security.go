package jcvm

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/internal/sp800"
)

// Reasons of CryptoException.
const (
	cryptoIllegalValue     = 1
	cryptoUninitializedKey = 2
	cryptoNoSuchAlgorithm  = 3
	cryptoInvalidInit      = 4
	cryptoIllegalUse       = 5
)

func (vm *VM) cryptoError(reason uint16) {
	vm.throwReason("javacard/security/CryptoException", reason)
}

// nativesSecurity implements javacard.security: keys for DES, AES and HMAC,
// digests, random data, checksums and symmetric signatures. What is asymmetric
// stands in nativesKeys and nativesAsymmetric.
var nativesSecurity = map[string]native{
	"javacard/security/KeyBuilder.buildKey(BSZ)Ljavacard/security/Key;": buildKey,
	"javacard/security/KeyBuilder.buildKey(BBSZ)Ljavacard/security/Key;": func(vm *VM, a []slot) slot {
		if types, ok := asymmetricTypes[uint8(a[0])]; ok {
			t, ok := types[uint8(a[1])]
			if !ok {
				vm.cryptoError(cryptoNoSuchAlgorithm)
			}
			return buildKey(vm, []slot{slot(t), a[2], a[3]})
		}
		kinds := map[uint8]uint8{1: 3, 2: 15, 9: 21} // ALG_TYPE_… to TYPE_… in persistent memory
		t, ok := kinds[uint8(a[0])]
		if !ok {
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		switch uint8(a[1]) { // JCSystem.MEMORY_TYPE_…
		case 0:
		case 1:
			t -= 2
		case 2:
			t--
		default:
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		return buildKey(vm, []slot{slot(t), a[2], a[3]})
	},
	// The key gets a copy of the parameters, so that what becomes of the other
	// key is nothing to it.
	"javacard/security/KeyBuilder.buildKeyWithSharedDomain(BBLjavacard/security/Key;Z)Ljavacard/security/Key;": func(vm *VM, a []slot) slot {
		from := vm.object(a[2])
		if from == nil {
			vm.nullPointer()
		}
		t, ok := asymmetricTypes[uint8(a[0])][uint8(a[1])]
		if !ok || asymmetricKinds[t].class != classECPublic && asymmetricKinds[t].class != classECPrivate {
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		vm.asymmetricKey(from)
		if from.class.name != classECPublic && from.class.name != classECPrivate {
			vm.cryptoError(cryptoIllegalValue)
		}
		key := buildKey(vm, []slot{slot(t), slot(from.field(keyBits)), a[3]})
		vm.copyDomain(vm.object(key), from)
		return key
	},

	"javacard/security/Key.clearKey()V": func(vm *VM, a []slot) slot { vm.clearKey(vm.this(a)); return 0 },
	"javacard/security/Key.getSize()S":  func(vm *VM, a []slot) slot { return slot(vm.this(a).field(keyBits)) },
	"javacard/security/Key.getType()B":  func(vm *VM, a []slot) slot { return slot(vm.this(a).field(keyType)) },
	"javacard/security/Key.isInitialized()Z": func(vm *VM, a []slot) slot {
		if o := vm.this(a); components(o.class.name, 0) != nil {
			return boolean(vm.complete(o))
		}
		return boolean(vm.keyBytes(vm.this(a)) != nil)
	},
	"javacard/security/DESKey.setKey([BS)V": setKey,
	"javacard/security/DESKey.getKey([BS)B": getKey,
	"javacard/security/AESKey.setKey([BS)V": setKey,
	"javacard/security/AESKey.getKey([BS)B": getKey,
	"javacard/security/HMACKey.setKey([BSS)V": func(vm *VM, a []slot) slot {
		vm.setKeyBytes(vm.this(a), vm.bytes(a[1], a[2], a[3]))
		return 0
	},
	"javacard/security/HMACKey.getKey([BS)B": getKey,

	"javacard/security/MessageDigest.<init>()V": nothing,
	"javacard/security/MessageDigest.getInstance(BZ)Ljavacard/security/MessageDigest;": func(vm *VM, a []slot) slot {
		return vm.newDigest("javacard/security/MessageDigest", a[0])
	},
	"javacard/security/MessageDigest.getInitializedMessageDigestInstance(BZ)Ljavacard/security/InitializedMessageDigest;": func(vm *VM, a []slot) slot {
		return vm.newDigest("javacard/security/InitializedMessageDigest", a[0])
	},
	"javacard/security/MessageDigest.getAlgorithm()B": func(vm *VM, a []slot) slot { return slot(vm.this(a).field(0)) },
	"javacard/security/MessageDigest.getLength()B":    func(vm *VM, a []slot) slot { return slot(vm.digest(a).Size()) },
	"javacard/security/MessageDigest.reset()V":        func(vm *VM, a []slot) slot { vm.digest(a).Reset(); return 0 },
	"javacard/security/MessageDigest.update([BSS)V": func(vm *VM, a []slot) slot {
		vm.digest(a).Write(vm.bytes(a[1], a[2], a[3]))
		return 0
	},
	"javacard/security/MessageDigest.doFinal([BSS[BS)S": func(vm *VM, a []slot) slot {
		h := vm.digest(a)
		p := vm.bytes(a[1], a[2], a[3])
		vm.bounds(vm.array(a[4], kindByte), int(int16(a[5])), h.Size())
		h.Write(p)
		sum := h.Sum(nil)
		h.Reset()
		vm.store(a[4], int(int16(a[5])), sum)
		return slot(len(sum))
	},

	"javacard/security/RandomData.<init>()V": nothing,
	"javacard/security/RandomData.getInstance(B)Ljavacard/security/RandomData;": func(vm *VM, a []slot) slot {
		if !randomAlgorithm(uint8(a[0])) {
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		o := vm.newInstance(vm.api.classes["javacard/security/RandomData"])
		vm.setField(o, 0, uint16(uint8(a[0])))
		return o.self.slot()
	},
	"javacard/security/RandomData.getAlgorithm()B":     func(vm *VM, a []slot) slot { return slot(vm.this(a).field(0)) },
	"javacard/security/RandomData.generateData([BSS)V": func(vm *VM, a []slot) slot { vm.random(a); return 0 },
	"javacard/security/RandomData.nextBytes([BSS)S":    func(vm *VM, a []slot) slot { return vm.random(a) },
	// The card's generator needs no seed.
	"javacard/security/RandomData.setSeed([BSS)V": func(vm *VM, a []slot) slot { vm.bytes(a[1], a[2], a[3]); return 0 },

	"javacard/security/Checksum.<init>()V": nothing,
	"javacard/security/Checksum.getInstance(BZ)Ljavacard/security/Checksum;": func(vm *VM, a []slot) slot {
		if t := uint8(a[0]); t != 1 && t != 2 {
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		o := vm.newInstance(vm.api.classes["javacard/security/Checksum"])
		vm.setField(o, 0, uint16(uint8(a[0])))
		return o.self.slot()
	},
	"javacard/security/Checksum.getAlgorithm()B": func(vm *VM, a []slot) slot { return slot(vm.this(a).field(0)) },
	"javacard/security/Checksum.init([BSS)V": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		p := vm.bytes(a[1], a[2], a[3])
		var state uint32
		switch {
		case o.field(0) == 1 && len(p) == 2:
			state = uint32(binary.BigEndian.Uint16(p))
		case o.field(0) == 2 && len(p) == 4:
			state = binary.BigEndian.Uint32(p)
		default:
			vm.cryptoError(cryptoIllegalValue)
		}
		o.native = state
		return 0
	},
	"javacard/security/Checksum.update([BSS)V": func(vm *VM, a []slot) slot {
		vm.checksum(vm.this(a), vm.bytes(a[1], a[2], a[3]))
		return 0
	},
	"javacard/security/Checksum.doFinal([BSS[BS)S": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		state := vm.checksum(o, vm.bytes(a[1], a[2], a[3]))
		out := []byte{byte(state >> 8), byte(state)}
		if o.field(0) == 2 {
			out = binary.BigEndian.AppendUint32(nil, ^state)
		}
		o.native = nil
		vm.store(a[4], int(int16(a[5])), out)
		return slot(len(out))
	},

	"javacard/security/Signature.<init>()V":                                    nothing,
	"javacard/security/Signature.getInstance(BZ)Ljavacard/security/Signature;": signatureInstance,
	"javacard/security/Signature.getAlgorithm()B":                              func(vm *VM, a []slot) slot { return number(vm.this(a).field(cipherAlgorithm)) },
	"javacard/security/Signature.getLength()S": func(vm *VM, a []slot) slot {
		if s, ok := asymmetric(vm.this(a)); ok {
			return vm.asymmetricLength(vm.this(a), s)
		}
		return slot(vm.signature(a).size)
	},
	"javacard/security/Signature.init(Ljavacard/security/Key;B)V":     signatureInit,
	"javacard/security/Signature.init(Ljavacard/security/Key;B[BSS)V": signatureInit,
	"javacard/security/Signature.update([BSS)V": func(vm *VM, a []slot) slot {
		if s, ok := asymmetric(vm.this(a)); ok {
			vm.hashing(vm.this(a), s).Write(vm.bytes(a[1], a[2], a[3]))
			return 0
		}
		vm.signature(a).mac.write(vm.bytes(a[1], a[2], a[3]))
		return 0
	},
	"javacard/security/Signature.sign([BSS[BS)S": func(vm *VM, a []slot) slot {
		if _, ok := asymmetric(vm.this(a)); ok {
			return vm.signAsymmetric(a, vm.hashed)
		}
		s := vm.signature(a)
		if s.mode != 1 {
			vm.cryptoError(cryptoInvalidInit)
		}
		p := vm.bytes(a[1], a[2], a[3])
		vm.bounds(vm.array(a[4], kindByte), int(int16(a[5])), s.size)
		s.mac.write(p)
		sum := vm.finish(s)
		vm.store(a[4], int(int16(a[5])), sum)
		return slot(len(sum))
	},
	"javacard/security/Signature.verify([BSS[BSS)Z": func(vm *VM, a []slot) slot {
		if _, ok := asymmetric(vm.this(a)); ok {
			return vm.verifyAsymmetric(a, vm.hashed)
		}
		s := vm.signature(a)
		if s.mode != 2 {
			vm.cryptoError(cryptoInvalidInit)
		}
		s.mac.write(vm.bytes(a[1], a[2], a[3]))
		want := vm.bytes(a[4], a[5], a[6])
		return boolean(subtle.ConstantTimeCompare(vm.finish(s), want) == 1)
	},
}

// randomAlgorithm reports whether RandomData has an algorithm: all are the
// card's generator.
func randomAlgorithm(n uint8) bool { return n >= 1 && n <= 6 }

func (vm *VM) newDigest(class string, algorithm slot) slot {
	if newHash(uint8(algorithm)) == nil {
		vm.cryptoError(cryptoNoSuchAlgorithm)
	}
	o := vm.newInstance(vm.api.classes[class])
	vm.setField(o, 0, uint16(uint8(algorithm)))
	return o.self.slot()
}

func illegalUse(vm *VM, _ []slot) slot { vm.cryptoError(cryptoIllegalUse); return 0 }

// Fields of a key. The bytes have one more, which is 1 once they are set: so
// it is cleared with them.
const (
	keyType = iota
	keyBits
	keyData
)

// buildKey makes a key (KeyBuilder): three types each for DES, AES and HMAC,
// cleared on reset, on deselection, and persistent.
func buildKey(vm *VM, a []slot) slot {
	t, bits := uint8(a[0]), int(int16(a[1]))
	if a[2]&0xFF != 0 { // no key here is a javacardx.crypto.KeyEncryption
		vm.cryptoError(cryptoNoSuchAlgorithm)
	}
	if kind, ok := asymmetricKinds[t]; ok {
		return vm.buildAsymmetricKey(t, kind, bits)
	}
	var name string
	var family uint8
	ok := false
	size := bits / 8
	switch {
	case t >= 1 && t <= 3:
		name, family, ok = "javacard/security/DESKey", 1, bits == 64 || bits == 128 || bits == 192
	case t >= 13 && t <= 15:
		name, family, ok = "javacard/security/AESKey", 13, bits == 128 || bits == 192 || bits == 256
	case t >= 19 && t <= 21:
		name, family, ok = "javacard/security/HMACKey", 19, bits == 64 || bits == 128
		size = 128 + 1 // any length up to a block
	}
	if !ok {
		vm.cryptoError(cryptoNoSuchAlgorithm)
	}
	var data *object
	switch t - family {
	case 0:
		data = vm.newTransient(kindByte, size+1, nil, oncard.OnReset)
	case 1:
		data = vm.newTransient(kindByte, size+1, nil, oncard.OnDeselect)
	default:
		data = vm.newArray(kindByte, size+1, nil)
	}
	o := vm.newInstance(vm.api.classes[name])
	vm.setField(o, keyType, uint16(t))
	vm.setField(o, keyBits, uint16(bits))
	vm.setField(o, keyData, uint16(data.self))
	return o.self.slot()
}

// keyBytes are a key's bytes, nil while they aren't set.
func (vm *VM) keyBytes(o *object) []byte {
	if o == nil || o.kind != kindInstance || !o.class.assignable(vm.api.classes["javacard/security/SecretKey"]) || !o.class.pkg.native {
		return nil
	}
	data := vm.objs[o.field(keyData)]
	if data == nil || data.length < 2 {
		return nil
	}
	n := data.length - 1
	if data.data[n] == 0 {
		return nil
	}
	if o.class.name == "javacard/security/HMACKey" { // one byte of length before the flag
		return data.data[:data.data[n-1]]
	}
	return data.data[:n]
}

func (vm *VM) setKeyBytes(o *object, p []byte) {
	data := vm.objs[o.field(keyData)]
	b := make([]byte, data.length)
	if copy(b[:len(b)-1], p) != len(p) {
		vm.cryptoError(cryptoIllegalValue)
	}
	b[len(b)-1] = 1
	if o.class.name == "javacard/security/HMACKey" {
		if len(p) > len(b)-2 || len(p) == 0 {
			vm.cryptoError(cryptoIllegalValue)
		}
		b[len(b)-2] = byte(len(p))
	}
	vm.access(data)
	vm.write(data, 0, b)
}

func (vm *VM) clearKey(o *object) {
	data := vm.objs[o.field(keyData)]
	vm.access(data)
	vm.write(data, 0, make([]byte, data.length))
}

func setKey(vm *VM, a []slot) slot {
	o := vm.this(a)
	vm.setKeyBytes(o, vm.bytes(a[1], a[2], slot(o.field(keyBits)/8)))
	return 0
}

func getKey(vm *VM, a []slot) slot {
	b := vm.keyBytes(vm.this(a))
	if b == nil {
		vm.cryptoError(cryptoUninitializedKey)
	}
	vm.store(a[1], int(int16(a[2])), b)
	return slot(len(b))
}

// newHash makes the digest of an algorithm of MessageDigest, nil for one that
// is missing.
func newHash(algorithm uint8) hash.Hash {
	switch algorithm {
	case 1:
		return sha1.New()
	case 2:
		return md5.New()
	case 4:
		return sha256.New()
	case 5:
		return sha512.New384()
	case 6:
		return sha512.New()
	case 7:
		return sha256.New224()
	case 8:
		return sha3.New224()
	case 9:
		return sha3.New256()
	case 10:
		return sha3.New384()
	case 11:
		return sha3.New512()
	}
	return nil
}

// digest is a MessageDigest's state.
func (vm *VM) digest(a []slot) hash.Hash {
	o := vm.this(a)
	if h, ok := o.native.(hash.Hash); ok {
		return h
	}
	h := newHash(uint8(o.field(0)))
	if h == nil {
		vm.cryptoError(cryptoInvalidInit)
	}
	o.native = h
	return h
}

func (vm *VM) random(a []slot) slot {
	n := int(int16(a[3]))
	vm.bytes(a[1], a[2], a[3])
	if n == 0 {
		vm.cryptoError(cryptoIllegalValue)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(vm.sys.Random(), p); err != nil {
		vm.fault("random generator: %v", err)
	}
	vm.store(a[1], int(int16(a[2])), p)
	return slot(uint16(a[2] + a[3]))
}

// checksum goes on with CRC-16 (ISO 3309, polynomial 1021, most significant
// bit first, as cards do) or CRC-32.
func (vm *VM) checksum(o *object, p []byte) uint32 {
	state, ok := o.native.(uint32)
	if o.field(0) == 1 {
		for _, b := range p {
			state ^= uint32(b) << 8
			for range 8 {
				if state <<= 1; state&0x10000 != 0 {
					state ^= 0x11021
				}
			}
		}
	} else {
		if !ok {
			state = 0xFFFFFFFF
		}
		state = ^crc32.Update(^state, crc32.IEEETable, p)
	}
	o.native = state
	return state
}

// signer is the state of a Signature.
type signer struct {
	mac  mac
	mode uint8 // 1 sign, 2 verify
	size int   // of the signature
}

// mac is a message authentication code.
type mac interface {
	write(p []byte)
	// sum gives the code, and begins anew; false where the padding forbids the
	// length of what was written.
	sum() ([]byte, bool)
}

// Algorithms of Signature.
type signatureAlgorithm struct {
	family  uint8 // type of keys: 3 DES, 15 AES, 21 HMAC
	padding uint8
	retail  bool // ISO 9797-1 algorithm 3
	size    int
	hash    uint8 // of HMAC, as in MessageDigest
	cmac    bool
}

var signatureAlgorithms = map[uint8]signatureAlgorithm{
	1: {family: 3, padding: padNone, size: 4}, 2: {family: 3, padding: padNone, size: 8},
	3: {family: 3, padding: padM1, size: 4}, 4: {family: 3, padding: padM1, size: 8},
	5: {family: 3, padding: padM2, size: 4}, 6: {family: 3, padding: padM2, size: 8},
	7: {family: 3, padding: padPKCS5, size: 4}, 8: {family: 3, padding: padPKCS5, size: 8},
	19: {family: 3, padding: padM2, retail: true, size: 4}, 20: {family: 3, padding: padM2, retail: true, size: 8},
	47: {family: 3, padding: padM1, retail: true, size: 4}, 48: {family: 3, padding: padM1, retail: true, size: 8},
	18: {family: 15, padding: padNone, size: 16}, 35: {family: 15, padding: padNone, size: 16}, 36: {family: 15, padding: padNone, size: 16},
	49: {family: 15, cmac: true, size: 16},
	24: {family: 21, hash: 1, size: 20}, 25: {family: 21, hash: 4, size: 32}, 26: {family: 21, hash: 5, size: 48}, 27: {family: 21, hash: 6, size: 64},
	28: {family: 21, hash: 2, size: 16},
}

func signatureInstance(vm *VM, a []slot) slot {
	n := uint8(a[0])
	if _, ok := signatureAlgorithms[n]; !ok && schemes[n] == (scheme{}) {
		vm.cryptoError(cryptoNoSuchAlgorithm)
	}
	return vm.newCipherObject("javacard/security/Signature", uint16(n))
}

// signatureInit is init, with initial data or without.
func signatureInit(vm *VM, a []slot) slot {
	o := vm.this(a)
	mode := uint8(a[2])
	if s, ok := asymmetric(o); ok {
		if mode != 1 && mode != 2 || len(a) > 3 {
			vm.cryptoError(cryptoIllegalValue)
		}
		vm.asymmetricInit(o, s, vm.object(a[1]), mode)
		return 0
	}
	alg, ok := signatureAlgorithms[uint8(o.field(cipherAlgorithm))]
	if !ok || mode != 1 && mode != 2 {
		vm.cryptoError(cryptoIllegalValue)
	}
	var iv []byte
	if len(a) > 3 {
		iv = vm.bytes(a[3], a[4], a[5])
		if alg.family == 21 || alg.cmac || len(iv) != blockSize(alg.family) {
			vm.cryptoError(cryptoIllegalValue)
		}
	}
	vm.keyOf(vm.object(a[1]), alg.family)
	vm.remember(o, vm.object(a[1]), mode, iv)
	return 0
}

// signature is the state of an initialised Signature.
func (vm *VM) signature(a []slot) *signer {
	o := vm.this(a)
	if s, ok := o.native.(*signer); ok {
		return s
	}
	alg, ok := signatureAlgorithms[uint8(o.field(cipherAlgorithm))]
	mode := uint8(o.field(cipherMode))
	if !ok || mode == 0 {
		vm.cryptoError(cryptoInvalidInit)
	}
	key := vm.keyOf(vm.objs[o.field(cipherKey)], alg.family)
	s := &signer{mode: mode, size: alg.size}
	switch {
	case alg.family == 21:
		h := hmac.New(func() hash.Hash { return newHash(alg.hash) }, key)
		s.mac = hashMAC{h}
	case alg.cmac:
		c, err := sp800.New(key)
		if err != nil {
			vm.cryptoError(cryptoIllegalValue)
		}
		s.mac = cmac{c}
	default:
		m := &cbcMAC{padding: alg.padding, size: alg.size}
		m.block, m.final = vm.blockCipher(alg.family, key), nil
		if alg.retail {
			m.block, m.final = vm.retail(key)
		}
		m.iv = append(make([]byte, 0, 16), vm.initial(o, m.block.BlockSize())...)
		m.state = append([]byte(nil), m.iv...)
		s.mac = m
	}
	o.native = s
	return s
}

func (vm *VM) finish(s *signer) []byte {
	sum, ok := s.mac.sum()
	if !ok {
		vm.cryptoError(cryptoIllegalUse)
	}
	return sum
}

type hashMAC struct{ h hash.Hash }

func (m hashMAC) write(p []byte) { m.h.Write(p) }
func (m hashMAC) sum() ([]byte, bool) {
	b := m.h.Sum(nil)
	m.h.Reset()
	return b, true
}

type cmac struct{ c *sp800.CMAC }

func (m cmac) write(p []byte) { m.c.Write(p) }
func (m cmac) sum() ([]byte, bool) {
	b := m.c.Sum()
	m.c.Reset()
	return b[:], true
}
