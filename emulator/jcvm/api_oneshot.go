package jcvm

import (
	"encoding"
	"encoding/binary"
	"hash"
)

// nativesOneShot implements the classes OneShot: objects of the machine's own
// that an application may use within one command, and the digests that go on
// from another one's state.
var nativesOneShot = map[string]native{
	"javacard/security/MessageDigest$OneShot.open(B)Ljavacard/security/MessageDigest$OneShot;": func(vm *VM, a []slot) slot {
		return vm.openDigest("javacard/security/MessageDigest$OneShot", a[0])
	},
	"javacard/security/MessageDigest$OneShot.close()V":            closeOneShot,
	"javacard/security/MessageDigest$OneShot.reset()V":            illegalUse,
	"javacard/security/MessageDigest$OneShot.update([BSS)V":       illegalUse,
	"javacard/security/InitializedMessageDigest.<init>()V":        nothing,
	"javacard/security/InitializedMessageDigest$OneShot.close()V": closeOneShot,
	"javacard/security/InitializedMessageDigest$OneShot.open(B)Ljavacard/security/InitializedMessageDigest$OneShot;": func(vm *VM, a []slot) slot {
		return vm.openDigest("javacard/security/InitializedMessageDigest$OneShot", a[0])
	},
	"javacard/security/InitializedMessageDigest$OneShot.reset()V":      illegalUse,
	"javacard/security/InitializedMessageDigest$OneShot.update([BSS)V": illegalUse,
	"javacard/security/InitializedMessageDigest.setInitialDigest([BSS[BSS)V": func(vm *VM, a []slot) slot {
		h := vm.digest(a)
		vm.resume(h, uint8(vm.this(a).field(0)), vm.bytes(a[1], a[2], a[3]), vm.bytes(a[4], a[5], a[6]))
		return 0
	},
	"javacard/security/Signature.setInitialDigest([BSS[BSS)V": func(vm *VM, a []slot) slot {
		s, ok := asymmetric(vm.this(a))
		if !ok {
			vm.cryptoError(cryptoIllegalUse)
		}
		vm.resume(vm.hashing(vm.this(a), s), s.hash, vm.bytes(a[1], a[2], a[3]), vm.bytes(a[4], a[5], a[6]))
		return 0
	},

	"javacard/security/RandomData$OneShot.open(B)Ljavacard/security/RandomData$OneShot;": func(vm *VM, a []slot) slot {
		if !randomAlgorithm(uint8(a[0])) {
			vm.cryptoError(cryptoNoSuchAlgorithm)
		}
		o := vm.newTemporary("javacard/security/RandomData$OneShot")
		vm.setField(o, 0, uint16(uint8(a[0])))
		return o.self.slot()
	},
	"javacard/security/RandomData$OneShot.close()V":            closeOneShot,
	"javacard/security/RandomData$OneShot.generateData([BSS)V": illegalUse, // deprecated
	"javacard/security/Signature$OneShot.open(BBB)Ljavacard/security/Signature$OneShot;": func(vm *VM, a []slot) slot {
		return vm.openCipher("javacard/security/Signature$OneShot", vm.signatureOf(uint8(a[0]), uint8(a[1]), uint8(a[2])))
	},
	"javacard/security/Signature$OneShot.close()V":                    closeOneShot,
	"javacard/security/Signature$OneShot.update([BSS)V":               illegalUse,
	"javacard/security/Signature$OneShot.setInitialDigest([BSS[BSS)V": illegalUse,
	"javacardx/crypto/Cipher$OneShot.open(BB)Ljavacardx/crypto/Cipher$OneShot;": func(vm *VM, a []slot) slot {
		n := vm.cipherOf(uint8(a[0]), uint8(a[1]))
		if n == algorithmGCM || n == algorithmCCM {
			vm.cryptoError(cryptoNoSuchAlgorithm) // nothing to ask for a tag
		}
		return vm.openCipher("javacardx/crypto/Cipher$OneShot", n)
	},
	"javacardx/crypto/Cipher$OneShot.close()V":         closeOneShot,
	"javacardx/crypto/Cipher$OneShot.update([BSS[BS)S": illegalUse,
}

// newTemporary makes an object of the machine's own for the running command:
// nothing can keep a reference to it.
func (vm *VM) newTemporary(class string) *object {
	c := vm.api.classes[class]
	return vm.addGlobal(&object{kind: kindInstance, class: c, data: make([]byte, 2*c.size), entry: temporary, checked: true})
}

func (vm *VM) openDigest(class string, algorithm slot) slot {
	if newHash(uint8(algorithm)) == nil {
		vm.cryptoError(cryptoNoSuchAlgorithm)
	}
	o := vm.newTemporary(class)
	vm.setField(o, 0, uint16(uint8(algorithm)))
	return o.self.slot()
}

func (vm *VM) openCipher(class string, algorithm uint16) slot {
	o := vm.newTemporary(class)
	iv := vm.addGlobal(&object{kind: kindByte, class: vm.api.array, data: make([]byte, 17), length: 17, group: 0, checked: true})
	vm.setField(o, cipherAlgorithm, algorithm)
	vm.setField(o, cipherInitial, uint16(iv.self))
	return o.self.slot()
}

// closeOneShot gives the object back.
func closeOneShot(vm *VM, a []slot) slot {
	o := vm.this(a)
	if o.class.size > cipherInitial {
		vm.objs[o.field(cipherInitial)] = nil
	}
	vm.objs[o.self] = nil
	return 0
}

// resume sets a digest to the state after some blocks: the chaining value and
// how many bytes went into it.
func (vm *VM) resume(h hash.Hash, algorithm uint8, state, count []byte) {
	var n uint64
	for _, b := range count {
		if n>>56 != 0 {
			vm.cryptoError(cryptoIllegalValue)
		}
		n = n<<8 | uint64(b)
	}
	blob, ok := digestState(h, algorithm, state, n)
	if !ok || len(count) == 0 || n == 0 || n%uint64(h.BlockSize()) != 0 {
		vm.cryptoError(cryptoIllegalValue)
	}
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(blob); err != nil {
		vm.cryptoError(cryptoIllegalValue)
	}
}

// digestState is the state of a digest as the standard library writes it: it
// begins with a name, goes on with the chaining value and an empty block, and
// ends with the number of bytes. SHA-3 has no chaining value to speak of.
func digestState(h hash.Hash, algorithm uint8, state []byte, n uint64) ([]byte, bool) {
	size := map[uint8]int{1: 20, 2: 16, 4: 32, 5: 64, 6: 64, 7: 32}[algorithm]
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok || size == 0 || len(state) != size {
		return nil, false
	}
	h.Reset()
	blob, err := m.MarshalBinary()
	if err != nil || len(blob) != 4+size+h.BlockSize()+8 {
		return nil, false
	}
	copy(blob[4:], state)
	binary.BigEndian.PutUint64(blob[len(blob)-8:], n)
	return blob, true
}
