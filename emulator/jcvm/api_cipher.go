package jcvm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
)

// Paddings of javacardx.crypto.Cipher (PAD_…).
const (
	padNone  = 1
	padM1    = 2
	padM2    = 3
	padPKCS5 = 6
)

// Fields of a Cipher or Signature. What init was told survives the loss of
// power, what was processed since does not.
const (
	cipherAlgorithm = iota
	cipherKey
	cipherMode
	cipherInitial // byte array: length, then the initial vector
)

type cipherKind struct {
	family  uint8 // type of keys: 3 DES, 15 AES
	cbc     bool
	padding uint8
	ctr     bool
}

// cipherAlgorithms are those of Cipher (ALG_…).
var cipherAlgorithms = map[uint8]cipherKind{
	1: {3, true, padNone, false}, 2: {3, true, padM1, false}, 3: {3, true, padM2, false}, 4: {3, true, padPKCS5, false},
	5: {3, false, padNone, false}, 6: {3, false, padM1, false}, 7: {3, false, padM2, false}, 8: {3, false, padPKCS5, false},
	13: {15, true, padNone, false}, 14: {15, false, padNone, false},
	18: {15, true, padNone, false}, 19: {15, false, padNone, false}, 20: {15, true, padNone, false}, 21: {15, false, padNone, false},
	22: {15, true, padM1, false}, 23: {15, true, padM2, false}, 24: {15, true, padPKCS5, false},
	25: {15, false, padM1, false}, 26: {15, false, padM2, false}, 27: {15, false, padPKCS5, false},
	algorithmCTR: {15, false, padNone, true},
}

// nativesCipher implements javacardx.crypto.Cipher.
var nativesCipher = map[string]native{
	"javacardx/crypto/Cipher.<init>()V": nothing,
	"javacardx/crypto/Cipher.getInstance(BZ)Ljavacardx/crypto/Cipher;": func(vm *VM, a []slot) slot {
		n := uint16(uint8(a[0]))
		if _, ok := cipherAlgorithms[uint8(n)]; !ok && n != algorithmGCM && n != algorithmCCM {
			if _, ok = rsaCipher(n); !ok {
				vm.cryptoError(cryptoNoSuchAlgorithm)
			}
		}
		return vm.newCipher(n)
	},
	"javacardx/crypto/Cipher.getInstance(BBZ)Ljavacardx/crypto/Cipher;": func(vm *VM, a []slot) slot {
		return vm.newCipher(vm.cipherOf(uint8(a[0]), uint8(a[1])))
	},
	"javacardx/crypto/Cipher.getAlgorithm()B": func(vm *VM, a []slot) slot { return number(vm.this(a).field(cipherAlgorithm)) },
	"javacardx/crypto/Cipher.getCipherAlgorithm()B": func(vm *VM, a []slot) slot {
		if _, ok := rsaCipher(vm.this(a).field(cipherAlgorithm)); ok {
			return cipherRSA
		}
		switch vm.this(a).field(cipherAlgorithm) {
		case algorithmGCM:
			return short(cipherGCM - 0x100)
		case algorithmCCM:
			return short(cipherCCM - 0x100)
		case algorithmCTR:
			return 0 // it has no name among the ciphers
		}
		switch c := cipherAlgorithms[uint8(vm.this(a).field(cipherAlgorithm))]; {
		case c.family == 15 && c.cbc:
			return 1
		case c.family == 15:
			return 2
		case c.cbc:
			return 3
		}
		return 4
	},
	"javacardx/crypto/Cipher.getPaddingAlgorithm()B": func(vm *VM, a []slot) slot {
		if padding, ok := rsaCipher(vm.this(a).field(cipherAlgorithm)); ok {
			return slot(padding)
		}
		return slot(cipherAlgorithms[uint8(vm.this(a).field(cipherAlgorithm))].padding)
	},
	"javacardx/crypto/Cipher.init(Ljavacard/security/Key;B)V":     cipherInit,
	"javacardx/crypto/Cipher.init(Ljavacard/security/Key;B[BSS)V": cipherInit,
	"javacardx/crypto/Cipher.update([BSS[BS)S":                    func(vm *VM, a []slot) slot { return vm.crypt(a, false) },
	"javacardx/crypto/Cipher.doFinal([BSS[BS)S":                   func(vm *VM, a []slot) slot { return vm.crypt(a, true) },
}

// cipherOf is the algorithm of a Cipher by its parts.
func (vm *VM) cipherOf(cipher, padding uint8) uint16 {
	switch {
	case cipher == cipherRSA:
		return vm.rsaCipherOf(padding)
	case cipher == cipherGCM && padding == padNull:
		return algorithmGCM
	case cipher == cipherCCM && padding == padNull:
		return algorithmCCM
	}
	want, ok := map[uint8]cipherKind{1: {family: 15, cbc: true}, 2: {family: 15}, 3: {family: 3, cbc: true}, 4: {family: 3}}[cipher]
	want.padding = padding
	for n := range uint8(28) { // the first that fits
		if ok && cipherAlgorithms[n] == want {
			return uint16(n)
		}
	}
	vm.cryptoError(cryptoNoSuchAlgorithm)
	return 0
}

func (vm *VM) newCipher(algorithm uint16) slot {
	if algorithm == algorithmGCM || algorithm == algorithmCCM {
		return vm.newCipherObject("javacardx/crypto/AEADCipher", algorithm)
	}
	return vm.newCipherObject("javacardx/crypto/Cipher", algorithm)
}

// newCipherObject makes a Cipher or a Signature.
func (vm *VM) newCipherObject(class string, algorithm uint16) slot {
	o := vm.newInstance(vm.api.classes[class])
	iv := vm.newArray(kindByte, 17, nil)
	vm.setField(o, cipherAlgorithm, algorithm)
	vm.setField(o, cipherInitial, uint16(iv.self))
	return o.self.slot()
}

// remember keeps what init said, and writes only what is new.
func (vm *VM) remember(o, key *object, mode uint8, iv []byte) {
	o.native = nil
	if o.field(cipherKey) != uint16(key.self) {
		vm.setField(o, cipherKey, uint16(key.self))
	}
	if o.field(cipherMode) != uint16(mode) {
		vm.setField(o, cipherMode, uint16(mode))
	}
	b := make([]byte, 17)
	b[0] = byte(copy(b[1:], iv))
	if old := vm.objs[o.field(cipherInitial)]; old != nil && !bytes.Equal(old.data, b) {
		vm.write(old, 0, b)
	}
}

// initial is the initial vector: zero where init gave none.
func (vm *VM) initial(o *object, size int) []byte {
	iv := make([]byte, size)
	if b := vm.objs[o.field(cipherInitial)]; b != nil && b.data[0] > 0 {
		copy(iv, b.data[1:1+b.data[0]])
	}
	return iv
}

func blockSize(family uint8) int {
	if family == 15 {
		return aes.BlockSize
	}
	return des.BlockSize
}

// keyOf returns the bytes of a key that must be of a family, and set.
func (vm *VM) keyOf(o *object, family uint8) []byte {
	if o == nil {
		vm.cryptoError(cryptoUninitializedKey)
	}
	vm.access(o)
	want := map[uint8]string{3: "javacard/security/DESKey", 15: "javacard/security/AESKey", 21: "javacard/security/HMACKey"}[family]
	if o.kind != kindInstance || o.class == nil || o.class.name != want {
		vm.cryptoError(cryptoIllegalValue)
	}
	if data := vm.objs[o.field(keyData)]; data != nil {
		vm.access(data)
	}
	b := vm.keyBytes(o)
	if b == nil {
		vm.cryptoError(cryptoUninitializedKey)
	}
	return b
}

func (vm *VM) blockCipher(family uint8, key []byte) cipher.Block {
	var b cipher.Block
	var err error
	switch {
	case family == 15:
		b, err = aes.NewCipher(key)
	case len(key) == 8:
		b, err = des.NewCipher(key)
	case len(key) == 16:
		b, err = des.NewTripleDESCipher(append(bytes.Clone(key), key[:8]...))
	default:
		b, err = des.NewTripleDESCipher(key)
	}
	if err != nil {
		vm.cryptoError(cryptoIllegalValue)
	}
	return b
}

// retail are the ciphers of ISO 9797-1 algorithm 3: single DES for all blocks,
// and the rest of the key for the last.
func (vm *VM) retail(key []byte) (cipher.Block, func([]byte)) {
	if len(key) < 16 {
		vm.cryptoError(cryptoIllegalValue)
	}
	one, two, three := vm.blockCipher(3, key[:8]), vm.blockCipher(3, key[8:16]), vm.blockCipher(3, key[len(key)-8:])
	if len(key) == 16 {
		three = one
	}
	return one, func(b []byte) {
		two.Decrypt(b, b)
		three.Encrypt(b, b)
	}
}

func cipherInit(vm *VM, a []slot) slot {
	o := vm.this(a)
	mode := uint8(a[2])
	if padding, ok := rsaCipher(o.field(cipherAlgorithm)); ok {
		if mode != 1 && mode != 2 || len(a) > 3 {
			vm.cryptoError(cryptoIllegalValue)
		}
		vm.rsaCipherInit(o, vm.object(a[1]), mode, padding)
		return 0
	}
	alg, ok := cipherAlgorithms[uint8(o.field(cipherAlgorithm))]
	if !ok || mode != 1 && mode != 2 {
		vm.cryptoError(cryptoIllegalValue)
	}
	var iv []byte
	if len(a) > 3 {
		iv = vm.bytes(a[3], a[4], a[5])
		if !alg.cbc && !alg.ctr || len(iv) != blockSize(alg.family) {
			vm.cryptoError(cryptoIllegalValue)
		}
	}
	vm.keyOf(vm.object(a[1]), alg.family)
	vm.remember(o, vm.object(a[1]), mode, iv)
	return 0
}

// crypter is the state of a Cipher.
type crypter struct {
	block   cipher.Block
	mode    cipher.BlockMode // nil for ECB
	stream  cipher.Stream    // of CTR
	decrypt bool
	padding uint8
	pending []byte // less than a block; with padding to take off, up to one block
}

func (vm *VM) crypter(o *object) *crypter {
	if c, ok := o.native.(*crypter); ok {
		return c
	}
	alg, ok := cipherAlgorithms[uint8(o.field(cipherAlgorithm))]
	if mode := o.field(cipherMode); !ok || mode == 0 {
		vm.cryptoError(cryptoInvalidInit)
	}
	c := &crypter{decrypt: o.field(cipherMode) == 1, padding: alg.padding}
	c.block = vm.blockCipher(alg.family, vm.keyOf(vm.objs[o.field(cipherKey)], alg.family))
	if alg.ctr {
		c.stream = cipher.NewCTR(c.block, vm.initial(o, c.block.BlockSize()))
	}
	if alg.cbc {
		iv := vm.initial(o, c.block.BlockSize())
		if c.decrypt {
			c.mode = cipher.NewCBCDecrypter(c.block, iv)
		} else {
			c.mode = cipher.NewCBCEncrypter(c.block, iv)
		}
	}
	o.native = c
	return c
}

// run processes whole blocks.
func (c *crypter) run(p []byte) []byte {
	out := make([]byte, len(p))
	n := c.block.BlockSize()
	switch {
	case c.mode != nil:
		c.mode.CryptBlocks(out, p)
	case c.decrypt:
		for i := 0; i < len(p); i += n {
			c.block.Decrypt(out[i:i+n], p[i:i+n])
		}
	default:
		for i := 0; i < len(p); i += n {
			c.block.Encrypt(out[i:i+n], p[i:i+n])
		}
	}
	return out
}

// crypt is update and doFinal.
func (vm *VM) crypt(a []slot, final bool) slot {
	o := vm.this(a)
	if padding, ok := rsaCipher(o.field(cipherAlgorithm)); ok {
		return vm.rsaCrypt(a, padding, final)
	}
	c := vm.crypter(o)
	p := append(bytes.Clone(c.pending), vm.bytes(a[1], a[2], a[3])...)
	to := vm.array(a[4], kindByte)
	at := int(int16(a[5]))
	if c.stream != nil {
		vm.bounds(to, at, len(p))
		c.stream.XORKeyStream(p, p)
		if final {
			o.native = nil
		}
		vm.store(a[4], at, p)
		return slot(len(p))
	}
	n := c.block.BlockSize()
	if !final {
		take := len(p) / n * n
		if c.decrypt && c.padding != padNone && take == len(p) && take > 0 {
			take -= n // the last block may have padding
		}
		vm.bounds(to, at, take)
		out := c.run(p[:take])
		c.pending = p[take:]
		vm.store(a[4], at, out)
		return slot(len(out))
	}
	if !c.decrypt {
		padded, ok := pad(p, c.padding, n)
		if !ok {
			o.native = nil
			vm.cryptoError(cryptoIllegalUse)
		}
		p = padded
	} else if len(p)%n != 0 {
		o.native = nil
		vm.cryptoError(cryptoIllegalUse)
	}
	if !c.decrypt {
		vm.bounds(to, at, len(p))
	}
	out := c.run(p)
	if c.decrypt {
		var ok bool
		if out, ok = unpad(out, c.padding, n); !ok {
			o.native = nil
			vm.cryptoError(cryptoIllegalUse)
		}
		vm.bounds(to, at, len(out))
	}
	o.native = nil // as init left it
	vm.store(a[4], at, out)
	return slot(len(out))
}

// pad fills up the last block.
func pad(p []byte, padding uint8, n int) ([]byte, bool) {
	fill := n - len(p)%n
	switch padding {
	case padNone:
		return p, len(p)%n == 0
	case padM1:
		if fill == n && len(p) > 0 {
			fill = 0
		}
		return append(p, make([]byte, fill)...), true
	case padM2:
		return append(append(p, 0x80), make([]byte, fill-1)...), true
	case padPKCS5:
		return append(p, bytes.Repeat([]byte{byte(fill)}, fill)...), true
	}
	return nil, false
}

func unpad(p []byte, padding uint8, n int) ([]byte, bool) {
	switch padding {
	case padM1:
		return bytes.TrimRight(p, "\x00"), true
	case padM2:
		p = bytes.TrimRight(p, "\x00")
		return bytes.TrimSuffix(p, []byte{0x80}), bytes.HasSuffix(p, []byte{0x80})
	case padPKCS5:
		if len(p) == 0 || p[len(p)-1] == 0 || int(p[len(p)-1]) > n || int(p[len(p)-1]) > len(p) {
			return nil, false
		}
		fill := int(p[len(p)-1])
		return p[:len(p)-fill], bytes.Equal(p[len(p)-fill:], bytes.Repeat([]byte{byte(fill)}, fill))
	}
	return p, true
}

// cbcMAC is ISO 9797-1 algorithm 1, or 3 with what follows the last block.
type cbcMAC struct {
	block     cipher.Block
	final     func([]byte)
	padding   uint8
	size      int
	iv, state []byte
	pending   []byte
}

func (m *cbcMAC) write(p []byte) {
	n := m.block.BlockSize()
	m.pending = append(m.pending, p...)
	// The last whole block is kept: padding may add nothing to it.
	for len(m.pending) > n {
		m.step(m.pending[:n])
		m.pending = m.pending[n:]
	}
}

func (m *cbcMAC) step(b []byte) {
	for i := range m.state {
		m.state[i] ^= b[i]
	}
	m.block.Encrypt(m.state, m.state)
}

func (m *cbcMAC) sum() ([]byte, bool) {
	n := m.block.BlockSize()
	last, ok := pad(m.pending, m.padding, n)
	m.pending = nil
	if ok {
		for i := 0; i < len(last); i += n {
			m.step(last[i : i+n])
		}
		if m.final != nil {
			m.final(m.state)
		}
	}
	out := append([]byte(nil), m.state[:m.size]...)
	copy(m.state, m.iv)
	return out, ok
}
