package jcvm

import (
	"bytes"
	"crypto/sha1"
	"encoding/asn1"
	"hash"
	"io"
	"math/big"
)

// Ciphers of Signature (SIG_CIPHER_…) and of Cipher (CIPHER_…), and paddings
// of both.
const (
	signRSA        = 3
	signECDSA      = 5
	signECDSAPlain = 9
	cipherRSA      = 7

	padNull    = 0
	padPKCS1v1 = 7
	padPSSv1   = 8
	padOAEPv1  = 9

	hashNone = 0 // the application hashes
)

// scheme is an asymmetric algorithm of Signature.
type scheme struct{ cipher, hash, padding uint8 }

// schemes are those that have a number of their own (ALG_…).
var schemes = map[uint8]scheme{
	10: {signRSA, 1, padPKCS1v1}, 11: {signRSA, 2, padPKCS1v1},
	39: {signRSA, 7, padPKCS1v1}, 40: {signRSA, 4, padPKCS1v1}, 41: {signRSA, 5, padPKCS1v1}, 42: {signRSA, 6, padPKCS1v1},
	21: {signRSA, 1, padPSSv1}, 22: {signRSA, 2, padPSSv1},
	43: {signRSA, 7, padPSSv1}, 44: {signRSA, 4, padPSSv1}, 45: {signRSA, 5, padPSSv1}, 46: {signRSA, 6, padPSSv1},
	17: {signECDSA, 1, padNull}, 37: {signECDSA, 7, padNull}, 33: {signECDSA, 4, padNull}, 34: {signECDSA, 5, padNull}, 38: {signECDSA, 6, padNull},
}

// composed marks the field of an algorithm that has no number of its own:
// cipher, hash and padding have 4 bits each, or, of a Cipher, the padding is
// all.
const composed = 0x8000

// symmetricParts are the parts of the symmetric algorithms of Signature.
var symmetricParts = map[scheme]uint8{
	{1, 0, padNone}: 1, {2, 0, padNone}: 2, {1, 0, padM1}: 3, {2, 0, padM1}: 4, {1, 0, padM2}: 5, {2, 0, padM2}: 6,
	{1, 0, padPKCS5}: 7, {2, 0, padPKCS5}: 8, {1, 0, 5}: 19, {2, 0, 5}: 20, {1, 0, 4}: 47, {2, 0, 4}: 48,
	{6, 0, padNone}: 18, {10, 0, padNull}: 49,
	{7, 1, padNull}: 24, {7, 4, padNull}: 25, {7, 5, padNull}: 26, {7, 6, padNull}: 27, {7, 2, padNull}: 28,
}

// parts are those of a Signature's algorithm.
func parts(field uint16) scheme {
	if field&composed != 0 {
		return scheme{uint8(field >> 8 & 15), uint8(field >> 4 & 15), uint8(field & 15)}
	}
	if s, ok := schemes[uint8(field)]; ok {
		return s
	}
	for s, n := range symmetricParts {
		if n == uint8(field) {
			return s
		}
	}
	return scheme{6, 0, padNone} // AES with longer keys
}

// asymmetric is a Signature's algorithm if it is an asymmetric one.
func asymmetric(o *object) (scheme, bool) {
	s := parts(o.field(cipherAlgorithm))
	return s, s.cipher == signRSA || s.cipher == signECDSA || s.cipher == signECDSAPlain
}

// number is what getAlgorithm says: 0 where there is no number.
func number(field uint16) slot {
	if field&composed != 0 {
		return 0
	}
	return slot(field)
}

var rsaPrivateKeys = []string{classRSAPrivate, classRSAPrivateCRT}

// nativesAsymmetric implements what Signature has of asymmetric algorithms, and
// KeyAgreement.
var nativesAsymmetric = map[string]native{
	"javacard/security/Signature.getInstance(BBBZ)Ljavacard/security/Signature;": func(vm *VM, a []slot) slot {
		return vm.newCipherObject("javacard/security/Signature", vm.signatureOf(uint8(a[0]), uint8(a[1]), uint8(a[2])))
	},
	"javacard/security/Signature.getMessageDigestAlgorithm()B": func(vm *VM, a []slot) slot { return slot(parts(vm.this(a).field(cipherAlgorithm)).hash) },
	"javacard/security/Signature.getCipherAlgorithm()B":        func(vm *VM, a []slot) slot { return slot(parts(vm.this(a).field(cipherAlgorithm)).cipher) },
	"javacard/security/Signature.getPaddingAlgorithm()B":       func(vm *VM, a []slot) slot { return slot(parts(vm.this(a).field(cipherAlgorithm)).padding) },
	"javacard/security/Signature.signPreComputedHash([BSS[BS)S": func(vm *VM, a []slot) slot {
		return vm.signAsymmetric(a, vm.precomputed)
	},
	"javacard/security/Signature.verifyPreComputedHash([BSS[BSS)Z": func(vm *VM, a []slot) slot {
		return vm.verifyAsymmetric(a, vm.precomputed)
	},

	"javacard/security/KeyAgreement.<init>()V": nothing,
	"javacard/security/KeyAgreement.getInstance(BZ)Ljavacard/security/KeyAgreement;": func(vm *VM, a []slot) slot {
		switch uint8(a[0]) {
		case agreeDH, agreeDHC, agreeDHPlain, agreeDHCPlain, agreeDHPlainXY:
		default:
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		o := vm.newInstance(vm.api.classes["javacard/security/KeyAgreement"])
		vm.setField(o, agreementAlgorithm, uint16(uint8(a[0])))
		return o.self.slot()
	},
	"javacard/security/KeyAgreement.getAlgorithm()B": func(vm *VM, a []slot) slot { return slot(vm.this(a).field(agreementAlgorithm)) },
	"javacard/security/KeyAgreement.init(Ljavacard/security/PrivateKey;)V": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		key := vm.usableKey(vm.object(a[1]), classECPrivate)
		if t := o.field(agreementAlgorithm); t == agreeDHC || t == agreeDHCPlain {
			vm.mustComponent(key, ecK)
		}
		if o.field(agreementKey) != uint16(key.self) {
			vm.setField(o, agreementKey, uint16(key.self))
		}
		return 0
	},
	"javacard/security/KeyAgreement.generateSecret([BSS[BS)S": generateSecret,
}

// signatureOf is the algorithm of a Signature by its parts.
func (vm *VM) signatureOf(digest, cipher, padding uint8) uint16 {
	s := scheme{hash: digest, cipher: cipher, padding: padding}
	if n, ok := symmetricParts[s]; ok {
		return uint16(n)
	}
	for n, known := range schemes {
		if known == s {
			return uint16(n)
		}
	}
	ok := newHash(s.hash) != nil
	switch s.cipher {
	case signRSA:
		ok = ok && (s.padding == padPKCS1v1 || s.padding == padPSSv1)
	case signECDSA, signECDSAPlain:
		ok = (ok || s.hash == hashNone) && s.padding == padNull
	default:
		ok = false
	}
	if !ok {
		vm.cryptoError(cryptoNoSuchAlgorithm)
	}
	return composed | uint16(s.cipher)<<8 | uint16(s.hash)<<4 | uint16(s.padding)
}

// Fields of a KeyAgreement. What init was told survives the loss of power.
const (
	agreementAlgorithm = iota
	agreementKey
)

// Algorithms of KeyAgreement: the secret is SHA-1 of the coordinate x, or x
// itself, or the point; two multiply by the cofactor.
const (
	agreeDH        = 1
	agreeDHC       = 2
	agreeDHPlain   = 3
	agreeDHCPlain  = 4
	agreeDHPlainXY = 6
)

// generateSecret is IEEE 1363's ECSVDP-DH or -DHC.
func generateSecret(vm *VM, a []slot) slot {
	o := vm.this(a)
	key := vm.objs[o.field(agreementKey)]
	if key == nil {
		vm.cryptoError(cryptoInvalidInit)
	}
	vm.usableKey(key, classECPrivate)
	c := vm.curve(key)
	w, ok := c.Decode(vm.bytes(a[1], a[2], a[3]))
	if !ok {
		vm.cryptoError(cryptoIllegalValue)
	}
	vm.charge(cost(c))
	algorithm := o.field(agreementAlgorithm)
	if algorithm == agreeDHC || algorithm == agreeDHCPlain {
		w = c.Multiply(w, vm.number(key, ecK))
	}
	z := c.Multiply(w, vm.number(key, ecValue))
	if z.Infinite() {
		vm.cryptoError(cryptoIllegalValue)
	}
	secret := c.Encode(z)
	switch algorithm {
	case agreeDHPlain, agreeDHCPlain:
		secret = secret[1 : 1+c.Size]
	case agreeDH, agreeDHC:
		sum := sha1.Sum(secret[1 : 1+c.Size])
		secret = sum[:]
	}
	vm.store(a[4], int(int16(a[5])), secret)
	return slot(len(secret))
}

// asymmetricInit is Signature.init.
func (vm *VM) asymmetricInit(o *object, s scheme, key *object, mode uint8) {
	classes := []string{classECPrivate}
	switch {
	case s.cipher == signRSA && mode == 1:
		classes = rsaPrivateKeys
	case s.cipher == signRSA:
		classes = []string{classRSAPublic}
	case mode == 2:
		classes = []string{classECPublic}
	}
	vm.usableKey(key, classes...)
	// A hash that the modulus has no room for.
	if bits, h := int(key.field(keyBits)), newHash(s.hash); s.cipher == signRSA &&
		(s.padding == padPKCS1v1 && len(digestInfo[s.hash])+h.Size() > bits/8-11 || s.padding == padPSSv1 && 2*h.Size()+2 > (bits+6)/8) {
		vm.cryptoError(cryptoIllegalValue)
	}
	vm.remember(o, key, mode, nil)
}

// hashing is the state of an asymmetric Signature.
func (vm *VM) hashing(o *object, s scheme) hash.Hash {
	if h, ok := o.native.(hash.Hash); ok {
		return h
	}
	if o.field(cipherMode) == 0 {
		vm.cryptoError(cryptoInvalidInit)
	}
	h := newHash(s.hash)
	if h == nil {
		vm.cryptoError(cryptoIllegalUse)
	}
	o.native = h
	return h
}

// hashed is the hash of what was given before and of an argument; the
// Signature is as init left it afterwards.
func (vm *VM) hashed(a []slot, s scheme) []byte {
	h := vm.hashing(vm.this(a), s)
	h.Write(vm.bytes(a[1], a[2], a[3]))
	sum := h.Sum(nil)
	h.Reset()
	return sum
}

// precomputed is a hash that the application gives.
func (vm *VM) precomputed(a []slot, s scheme) []byte {
	sum := bytes.Clone(vm.bytes(a[1], a[2], a[3]))
	if s.hash == hashNone {
		return sum
	}
	h := vm.hashing(vm.this(a), s)
	if len(sum) != h.Size() {
		vm.cryptoError(cryptoIllegalUse)
	}
	h.Reset()
	return sum
}

// signatureKey is the key of an initialised Signature.
func (vm *VM) signatureKey(o *object, mode uint16, classes ...string) *object {
	if o.field(cipherMode) != mode {
		vm.cryptoError(cryptoInvalidInit)
	}
	return vm.usableKey(vm.objs[o.field(cipherKey)], classes...)
}

// signAsymmetric is sign and signPreComputedHash.
func (vm *VM) signAsymmetric(a []slot, sum func([]slot, scheme) []byte) slot {
	o := vm.this(a)
	s, ok := asymmetric(o)
	if !ok {
		vm.cryptoError(cryptoIllegalUse)
	}
	to, at := vm.array(a[4], kindByte), int(int16(a[5]))
	var out []byte
	if s.cipher == signRSA {
		key := vm.signatureKey(o, 1, rsaPrivateKeys...)
		size := int(key.field(keyBits)) / 8
		vm.bounds(to, at, size)
		n := vm.modulus(key)
		digest := sum(a, s)
		var block []byte
		var err error
		if s.padding == padPSSv1 {
			salt := make([]byte, len(digest))
			if _, err = io.ReadFull(vm.sys.Random(), salt); err == nil {
				block = padPSS(newHash(s.hash), digest, salt, n.BitLen())
			}
		} else {
			block, err = padPKCS1(nil, 1, append([]byte(digestInfo[s.hash]), digest...), size)
		}
		if err != nil {
			vm.fault("random generator: %v", err)
		}
		if block == nil {
			vm.cryptoError(cryptoIllegalValue)
		}
		if out, ok = vm.rsa(key, block); !ok {
			vm.cryptoError(cryptoIllegalValue)
		}
	} else {
		key := vm.signatureKey(o, 1, classECPrivate)
		c := vm.curve(key)
		d := vm.number(key, ecValue)
		digest := sum(a, s)
		var r, x *big.Int
		for ok := false; !ok; {
			r, x, ok = c.Sign(d, vm.scalar(c), digest)
		}
		if s.cipher == signECDSAPlain {
			n := len(c.N.Bytes())
			out = append(r.FillBytes(make([]byte, n)), x.FillBytes(make([]byte, n))...)
		} else {
			out, _ = asn1.Marshal(ecdsaSignature{r, x})
		}
	}
	vm.store(a[4], at, out)
	return slot(len(out))
}

// ecdsaSignature is the form of signatures in DER (RFC 3279, 2.2.3).
type ecdsaSignature struct{ R, S *big.Int }

// verifyAsymmetric is verify and verifyPreComputedHash.
func (vm *VM) verifyAsymmetric(a []slot, sum func([]slot, scheme) []byte) slot {
	o := vm.this(a)
	s, ok := asymmetric(o)
	if !ok {
		vm.cryptoError(cryptoIllegalUse)
	}
	given := bytes.Clone(vm.bytes(a[4], a[5], a[6]))
	if s.cipher == signRSA {
		key := vm.signatureKey(o, 2, classRSAPublic)
		size := int(key.field(keyBits)) / 8
		digest := sum(a, s)
		if len(given) != size {
			return 0
		}
		block, ok := vm.rsa(key, given)
		if !ok {
			return 0
		}
		if s.padding == padPSSv1 {
			bits := vm.modulus(key).BitLen()
			return boolean(verifyPSS(newHash(s.hash), digest, block[size-(bits+7)/8:], bits))
		}
		want, _ := padPKCS1(nil, 1, append([]byte(digestInfo[s.hash]), digest...), size)
		return boolean(want != nil && bytes.Equal(want, block))
	}
	key := vm.signatureKey(o, 2, classECPublic)
	c := vm.curve(key)
	w, ok := c.Decode(vm.mustComponent(key, ecValue))
	if !ok {
		vm.cryptoError(cryptoIllegalValue)
	}
	vm.charge(2 * cost(c))
	digest := sum(a, s)
	var v ecdsaSignature
	if s.cipher == signECDSAPlain {
		n := len(c.N.Bytes())
		if len(given) != 2*n {
			return 0
		}
		v.R, v.S = new(big.Int).SetBytes(given[:n]), new(big.Int).SetBytes(given[n:])
	} else if rest, err := asn1.Unmarshal(given, &v); err != nil || len(rest) > 0 {
		return 0
	}
	return boolean(c.Verify(w, digest, v.R, v.S))
}

// asymmetricLength is the length of signatures, of ECDSA's in DER the longest.
func (vm *VM) asymmetricLength(o *object, s scheme) slot {
	if o.field(cipherMode) == 0 {
		vm.cryptoError(cryptoInvalidInit)
	}
	key := vm.objs[o.field(cipherKey)]
	if s.cipher == signRSA {
		vm.usableKey(key, classRSAPublic, classRSAPrivate, classRSAPrivateCRT)
		return slot(key.field(keyBits) / 8)
	}
	vm.usableKey(key, classECPublic, classECPrivate)
	bits := vm.number(key, ecR).BitLen()
	if s.cipher == signECDSAPlain {
		return slot(2 * ((bits + 7) / 8))
	}
	n := 2 * (2 + bits/8 + 1)
	if n > 127 {
		n++
	}
	return slot(2 + n)
}

// modulus is that of a key for RSA.
func (vm *VM) modulus(key *object) *big.Int {
	if key.class.name == classRSAPrivateCRT {
		return new(big.Int).Mul(vm.number(key, crtP), vm.number(key, crtQ))
	}
	return vm.number(key, rsaModulus)
}

// rsa raises a block to the power of a key's exponent; false where the block
// isn't less than the modulus, or the key is none.
func (vm *VM) rsa(key *object, block []byte) ([]byte, bool) {
	bits := int64(key.field(keyBits))
	m, n := new(big.Int).SetBytes(block), vm.modulus(key)
	if m.Cmp(n) >= 0 {
		return nil, false
	}
	out := make([]byte, bits/8)
	if key.class.name != classRSAPrivateCRT {
		e := vm.number(key, rsaExponent)
		vm.charge(bits * bits * int64(e.BitLen()) / 4096)
		return m.Exp(m, e, n).FillBytes(out), true
	}
	vm.charge(bits * bits * bits / 16384)
	p, q := vm.number(key, crtP), vm.number(key, crtQ) // neither is 0, as their product isn't
	x := new(big.Int).Exp(m, vm.number(key, crtDP1), p)
	y := new(big.Int).Exp(m, vm.number(key, crtDQ1), q)
	x.Sub(x, y)
	x.Mul(x, vm.number(key, crtPQ))
	x.Mod(x, p)
	x.Mul(x, q)
	return x.Add(x, y).FillBytes(out), true
}

// oaepHashes are the hashes of PAD_PKCS1_OAEP….
var oaepHashes = map[uint8]uint8{padOAEPv1: 1, 13: 7, 14: 4, 15: 5, 16: 6, 17: 8, 18: 9, 19: 10, 20: 11}

// rsaCipher is the padding of a Cipher for RSA.
func rsaCipher(field uint16) (padding uint8, ok bool) {
	if field&composed != 0 {
		return uint8(field), true
	}
	padding, ok = map[uint8]uint8{10: padPKCS1v1, 12: padNone, 15: padOAEPv1}[uint8(field)]
	return padding, ok
}

// rsaCipherOf is the algorithm of a Cipher for RSA with a padding.
func (vm *VM) rsaCipherOf(padding uint8) uint16 {
	n := map[uint8]uint16{padPKCS1v1: 10, padNone: 12, padOAEPv1: 15}[padding]
	if n == 0 {
		if oaepHashes[padding] == 0 {
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		n = composed | uint16(padding)
	}
	return n
}

// rsaCipherInit is Cipher.init. With PKCS #1 v1.5 and without a padding either
// key does for either direction, as on cards.
func (vm *VM) rsaCipherInit(o, key *object, mode, padding uint8) {
	vm.usableKey(key, classRSAPublic, classRSAPrivate, classRSAPrivateCRT)
	if h := oaepHashes[padding]; h != 0 {
		if (mode == 2) != (key.class.name == classRSAPublic) || 2*newHash(h).Size()+2 > int(key.field(keyBits))/8 {
			vm.cryptoError(cryptoIllegalValue)
		}
	}
	vm.remember(o, key, mode, nil)
}

// rsaCrypt is update and doFinal of a Cipher for RSA: nothing comes before the
// end.
func (vm *VM) rsaCrypt(a []slot, padding uint8, final bool) slot {
	o := vm.this(a)
	mode := o.field(cipherMode)
	if mode == 0 {
		vm.cryptoError(cryptoInvalidInit)
	}
	key := vm.usableKey(vm.objs[o.field(cipherKey)], classRSAPublic, classRSAPrivate, classRSAPrivateCRT)
	size := int(key.field(keyBits)) / 8
	before, _ := o.native.([]byte)
	p := append(bytes.Clone(before), vm.bytes(a[1], a[2], a[3])...)
	to, at := vm.array(a[4], kindByte), int(int16(a[5]))
	fail := func() {
		o.native = nil
		vm.cryptoError(cryptoIllegalUse)
	}
	if len(p) > size {
		fail()
	}
	if !final {
		o.native = p
		return 0
	}
	block := p
	public := key.class.name == classRSAPublic
	h := oaepHashes[padding]
	if mode == 2 {
		vm.bounds(to, at, size)
		var err error
		switch {
		case padding == padPKCS1v1 && public:
			block, err = padPKCS1(vm.sys.Random(), 2, p, size)
		case padding == padPKCS1v1:
			block, err = padPKCS1(nil, 1, p, size)
		case h != 0:
			seed := make([]byte, newHash(h).Size())
			if _, err = io.ReadFull(vm.sys.Random(), seed); err == nil {
				block = padOAEP(newHash(h), seed, p, size)
			}
		}
		if err != nil {
			vm.fault("random generator: %v", err)
		}
	}
	if len(block) != size {
		fail()
	}
	out, ok := vm.rsa(key, block)
	if ok && mode == 1 {
		switch {
		case padding == padPKCS1v1 && public:
			out, ok = unpadPKCS1(1, out)
		case padding == padPKCS1v1:
			out, ok = unpadPKCS1(2, out)
		case h != 0:
			out, ok = unpadOAEP(newHash(h), out)
		}
	}
	if !ok {
		fail()
	}
	vm.bounds(to, at, len(out))
	o.native = nil
	vm.store(a[4], at, out)
	return slot(len(out))
}
