package jcvm

import (
	"bytes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// Algorithms of AEADCipher, and what they are called as ciphers without
// padding.
const (
	algorithmGCM = 0xF3
	algorithmCCM = 0xF4
	cipherGCM    = 0xF1
	cipherCCM    = 0xF2
	algorithmCTR = 0xF0
)

// aead is the state of an AEADCipher between init and the tag. What was
// processed is kept whole: a card's commands are short.
type aead struct {
	block    cipher.Block
	decrypt  bool
	ccm      bool
	nonce    []byte
	aad      []byte
	text     []byte // what was given so far
	finished bool   // the tag is there
	tag      []byte
	// As init of CCM said.
	aadSize, textSize, tagSize int
}

// nativesAEAD implements javacardx.crypto.AEADCipher: GCM (SP 800-38D) and CCM
// (RFC 3610) with AES. What init said is lost with power.
var nativesAEAD = map[string]native{
	"javacardx/crypto/AEADCipher.<init>()V": nothing,
	"javacardx/crypto/AEADCipher.init(Ljavacard/security/Key;B)V": func(vm *VM, a []slot) slot {
		return vm.gcmInit(a, make([]byte, 12))
	},
	"javacardx/crypto/AEADCipher.init(Ljavacard/security/Key;B[BSS)V": func(vm *VM, a []slot) slot {
		return vm.gcmInit(a, bytes.Clone(vm.bytes(a[3], a[4], a[5])))
	},
	"javacardx/crypto/AEADCipher.init(Ljavacard/security/Key;B[BSSSSS)V": ccmInit,
	"javacardx/crypto/AEADCipher.updateAAD([BSS)V": func(vm *VM, a []slot) slot {
		s := vm.aead(a)
		p := vm.bytes(a[1], a[2], a[3])
		s.begin()
		if len(s.text) > 0 {
			vm.cryptoError(cryptoIllegalUse)
		}
		if s.ccm && len(s.aad)+len(p) > s.aadSize {
			vm.cryptoError(cryptoIllegalValue)
		}
		s.aad = append(s.aad, p...)
		return 0
	},
	"javacardx/crypto/AEADCipher.update([BSS[BS)S":  func(vm *VM, a []slot) slot { return vm.seal(a, false) },
	"javacardx/crypto/AEADCipher.doFinal([BSS[BS)S": func(vm *VM, a []slot) slot { return vm.seal(a, true) },
	"javacardx/crypto/AEADCipher.retrieveTag([BSS)S": func(vm *VM, a []slot) slot {
		s := vm.aead(a)
		if !s.finished || s.decrypt {
			vm.cryptoError(cryptoIllegalUse)
		}
		n := int(int16(a[3]))
		if !s.tagLength(n) {
			vm.cryptoError(cryptoIllegalValue)
		}
		vm.store(a[1], int(int16(a[2])), s.tag[:n])
		return slot(n)
	},
	"javacardx/crypto/AEADCipher.verifyTag([BSSS)Z": func(vm *VM, a []slot) slot {
		s := vm.aead(a)
		if !s.finished || !s.decrypt {
			vm.cryptoError(cryptoIllegalUse)
		}
		got, n := vm.bytes(a[1], a[2], a[3]), int(int16(a[4]))
		if !s.tagLength(n) {
			vm.cryptoError(cryptoIllegalValue)
		}
		return boolean(len(got) >= n && subtle.ConstantTimeCompare(got[:n], s.tag[:n]) == 1)
	},
}

// begin begins anew, with what init said, once a tag is there.
func (s *aead) begin() {
	if s.finished {
		s.finished, s.tag, s.aad, s.text = false, nil, nil, nil
	}
}

// tagLength reports whether a tag can have n bytes (SP 800-38D, 5.2.1.2; of CCM
// what init said).
func (s *aead) tagLength(n int) bool {
	if s.ccm {
		return n == s.tagSize
	}
	return n == 4 || n == 8 || n >= 12 && n <= 16
}

// aead is the state that init left.
func (vm *VM) aead(a []slot) *aead {
	s, ok := vm.this(a).native.(*aead)
	if !ok {
		vm.cryptoError(cryptoInvalidInit)
	}
	return s
}

// aeadInit is what both kinds of init have in common.
func (vm *VM) aeadInit(a []slot, ccm bool, nonce []byte) *aead {
	o := vm.this(a)
	if ccm != (o.field(cipherAlgorithm) == algorithmCCM) {
		vm.cryptoError(cryptoInvalidInit)
	}
	mode := uint8(a[2])
	if mode != 1 && mode != 2 {
		vm.cryptoError(cryptoIllegalValue)
	}
	s := &aead{ccm: ccm, decrypt: mode == 1, nonce: nonce}
	s.block = vm.blockCipher(15, vm.keyOf(vm.object(a[1]), 15))
	o.native = s
	return s
}

func (vm *VM) gcmInit(a []slot, nonce []byte) slot {
	if len(nonce) == 0 {
		vm.cryptoError(cryptoIllegalValue)
	}
	vm.aeadInit(a, false, nonce)
	return 0
}

func ccmInit(vm *VM, a []slot) slot {
	nonce := bytes.Clone(vm.bytes(a[3], a[4], a[5]))
	aad, text, tag := int(int16(a[6])), int(int16(a[7])), int(int16(a[8]))
	fits := len(nonce) >= 7 && len(nonce) <= 13 && (len(nonce) < 13 || text <= 0xFFFF)
	if !fits || aad < 0 || text < 0 || tag < 4 || tag > 16 || tag%2 != 0 {
		vm.cryptoError(cryptoIllegalValue)
	}
	s := vm.aeadInit(a, true, nonce)
	s.aadSize, s.textSize, s.tagSize = aad, text, tag
	return 0
}

// seal is update and doFinal: it gives as many bytes as it takes, and with the
// last of them the tag.
func (vm *VM) seal(a []slot, final bool) slot {
	s := vm.aead(a)
	p := bytes.Clone(vm.bytes(a[1], a[2], a[3]))
	s.begin()
	to, at := vm.array(a[4], kindByte), int(int16(a[5]))
	vm.bounds(to, at, len(p))
	if n := len(s.text) + len(p); s.ccm && (len(s.aad) != s.aadSize || n > s.textSize || final && n != s.textSize) {
		vm.cryptoError(cryptoIllegalUse)
	}
	done := len(s.text)
	s.text = append(s.text, p...)
	vm.steps -= int64(len(s.text)) // all of it is processed again
	var out, tag []byte
	if s.ccm {
		out, tag = s.sealCCM()
	} else {
		out, tag = s.sealGCM()
	}
	if final {
		s.finished, s.tag = true, tag
	}
	vm.store(a[4], at, out[done:])
	return slot(len(p))
}

// sealGCM returns what all the text becomes, and the tag. Decryption is the
// same stream; the tag covers what is encrypted.
func (s *aead) sealGCM() (out, tag []byte) {
	g, err := cipher.NewGCMWithNonceSize(s.block, len(s.nonce))
	if err != nil {
		panic(fault{err.Error()})
	}
	n := len(s.text)
	sealed := g.Seal(nil, s.nonce, s.text, s.aad)
	out, tag = sealed[:n], sealed[n:]
	if s.decrypt {
		tag = g.Seal(nil, s.nonce, out, s.aad)[n:]
	}
	return out, tag
}

// sealCCM is RFC 3610, 2.2 and 2.3.
func (s *aead) sealCCM() (out, tag []byte) {
	const size = 16
	l := 15 - len(s.nonce)
	counter := make([]byte, size)
	counter[0] = byte(l - 1)
	copy(counter[1:], s.nonce)
	stream := cipher.NewCTR(s.block, counter)
	first := make([]byte, size)
	stream.XORKeyStream(first, first)
	out = make([]byte, len(s.text))
	stream.XORKeyStream(out, s.text)
	plain := s.text
	if s.decrypt {
		plain = out
	}
	b := make([]byte, size)
	b[0] = byte((s.tagSize-2)/2<<3 | (l - 1))
	copy(b[1:], s.nonce)
	binary.BigEndian.PutUint16(b[14:], uint16(len(plain))) // no more than a short can say
	if len(s.aad) > 0 {
		b[0] |= 0x40
		b = binary.BigEndian.AppendUint16(b, uint16(len(s.aad))) // below FF00
		b = append(b, s.aad...)
		b = append(b, make([]byte, -len(b)&(size-1))...)
	}
	b = append(b, plain...)
	b = append(b, make([]byte, -len(b)&(size-1))...)
	mac := make([]byte, size)
	for ; len(b) > 0; b = b[size:] {
		subtle.XORBytes(mac, mac, b[:size])
		s.block.Encrypt(mac, mac)
	}
	subtle.XORBytes(mac, mac, first)
	return out, mac[:s.tagSize]
}
