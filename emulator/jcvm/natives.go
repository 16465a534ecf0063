package jcvm

import (
	"encoding/binary"

	"github.com/freearea/freearea/emulator/oncard"
)

// native is a method of the API in Go. It gets its arguments as slots, the
// receiver of a virtual method first, which is never null and of the class that
// the method is declared for; nothing else is checked. Its result is ignored
// for a method without one. It runs in the caller's context: vm.owner and
// vm.group say whose. To throw it calls vm.throw or vm.throwReason, which don't
// return; an argument that breaks the rules of types calls for vm.fault.
//
// Implementations stand in tables by class and signature, one table for each
// family of classes (nativesLang, nativesFramework, …), which buildAPI joins.
// State that survives the loss of power belongs into the object's fields
// ([nativeFields]); what a card holds in RAM may be kept in object.native.
type native func(vm *VM, args []slot) slot

// nativeFields are the fields of objects of the API: S for a short, L for a
// reference, one word each. Objects that the API only knows by an interface
// (keys) have that interface as their class here.
var nativeFields = map[string]string{
	"javacard/framework/CardException":             "S", // reason
	"javacard/framework/CardRuntimeException":      "S",
	"javacard/framework/AID":                       "L", // byte array
	"javacard/framework/OwnerPIN":                  "SSSSL",
	"javacard/framework/OwnerPINx":                 "SSSSL",
	"javacard/framework/OwnerPINxWithPredecrement": "SSSSL",
	"javacard/security/MessageDigest":              "S", // algorithm
	"javacard/security/RandomData":                 "S",
	"javacard/security/Checksum":                   "S",
	"javacard/security/Signature":                  "SLSL", // see cipherAlgorithm
	"javacardx/crypto/Cipher":                      "SLSL",
	"javacard/security/DESKey":                     "SSL", // see keyType
	"javacard/security/AESKey":                     "SSL",
	"javacard/security/HMACKey":                    "SSL",
	"javacard/security/RSAPublicKey":               "SSL", // the data: see components
	"javacard/security/RSAPrivateKey":              "SSL",
	"javacard/security/RSAPrivateCrtKey":           "SSL",
	"javacard/security/ECPublicKey":                "SSL",
	"javacard/security/ECPrivateKey":               "SSL",
	"javacard/security/KeyPair":                    "LL",
	"javacard/security/KeyAgreement":               "SL",
	"org/globalplatform/GPRegistryEntry":           "L", // byte array
}

// throw throws an exception of the API that the JCRE owns.
func (vm *VM) throw(name string) {
	vm.throwClass(vm.api.classes[name], 0)
}

// throwReason throws one with a reason.
func (vm *VM) throwReason(name string, reason uint16) {
	vm.throwClass(vm.api.classes[name], reason)
}

func (vm *VM) throwClass(c *class, reason uint16) {
	r, ok := vm.system[c]
	if !ok {
		vm.fault("no exception of %v", c)
	}
	vm.reasons[r] = reason
	vm.pending = r
	panic(thrown{})
}

// throwISO throws an ISOException with a status word.
func (vm *VM) throwISO(sw uint16) { vm.throwClass(vm.api.isoException, sw) }

// reason is that of a CardException or CardRuntimeException.
func (vm *VM) reason(r ref) uint16 {
	if r < firstHandle {
		return vm.reasons[r]
	}
	if o := vm.objs[r]; len(o.data) >= 2 {
		return o.word(0)
	}
	return 0
}

// The machine's own objects.
const (
	refAPDU ref = iota + 1
	refBuffer
	refSecureChannel
	refGlobalPIN
	refGlobalService
	refExceptions // and above: one for each class of exception

	// refGlobals and above are what ends with the command: arrays of
	// JCSystem.makeGlobalArray, and the objects of OneShot classes.
	refGlobals ref = 128
)

// Sizes of the APDU buffer: a header and 256 bytes, or what an extended length
// command of applications usually has.
const (
	shortBuffer = 5 + 256
	longBuffer  = 7 + 2048
)

// makeSystemObjects makes the JCRE's objects (JCRE 6.2.1): entry points and
// the global array.
func (vm *VM) makeSystemObjects() {
	vm.objs = make([]*object, firstHandle)
	vm.system = map[*class]ref{}
	put := func(r ref, o *object) {
		o.self = r
		vm.objs[r] = o
	}
	size := longBuffer
	if vm.options.Quirks.ShortBuffer {
		size = shortBuffer
	}
	put(refAPDU, &object{kind: kindInstance, class: vm.api.classes["javacard/framework/APDU"], entry: temporary, checked: true})
	put(refBuffer, &object{kind: kindByte, class: vm.api.array, data: make([]byte, size), length: size, global: true, group: everyone})
	put(refSecureChannel, &object{kind: kindInstance, class: vm.api.classes["org/globalplatform/SecureChannelx2"], entry: permanent, checked: true})
	put(refGlobalPIN, &object{kind: kindInstance, class: vm.api.classes["org/globalplatform/CVM"], entry: permanent, checked: true})
	put(refGlobalService, &object{kind: kindInstance, class: vm.api.classes["org/globalplatform/GlobalService"], entry: permanent, checked: true})
	next := refExceptions
	for _, p := range vm.api.packages {
		for t := range len(p.classes) {
			if c := p.classes[t]; c != nil && c.extends(vm.api.throwable) {
				if next == refGlobals {
					panic("more classes of exceptions than there is room for")
				}
				put(next, &object{kind: kindInstance, class: c, entry: temporary, data: make([]byte, 2*c.size), checked: true})
				vm.system[c] = next
				next++
			}
		}
	}
}

// this is the receiver.
func (vm *VM) this(args []slot) *object { return vm.objs[uint16(args[0])] }

// array returns an array that an argument refers to, and throws where it is
// null or the caller has no access to it.
func (vm *VM) array(s slot, k kind) *object {
	o := vm.object(s)
	if o == nil {
		vm.throw("java/lang/NullPointerException")
	}
	if o.kind != k {
		vm.fault("array of another type as an argument")
	}
	vm.access(o)
	return o
}

// bytes returns n bytes of a byte array at an offset, to be read; it throws
// where they aren't there.
func (vm *VM) bytes(s, offset, n slot) []byte {
	o := vm.array(s, kindByte)
	from, count := int(int16(offset)), int(int16(n))
	vm.bounds(o, from, count)
	vm.steps -= int64(count) / 8 // native code takes its time too
	return o.data[from : from+count : from+count]
}

func (vm *VM) bounds(o *object, from, count int) {
	if from < 0 || count < 0 || from+count > o.length {
		vm.throw("java/lang/ArrayIndexOutOfBoundsException")
	}
}

// store writes bytes into a byte array, atomically where it is persistent.
func (vm *VM) store(s slot, offset int, p []byte) {
	o := vm.array(s, kindByte)
	vm.bounds(o, offset, len(p))
	if len(p) > 0 {
		vm.write(o, offset, p)
	}
}

// access throws where the firewall forbids the running context the elements or
// fields of an object (JCRE 6.2.8).
func (vm *VM) access(o *object) {
	if o.group != vm.group || o.checked {
		vm.accessChecked(o)
	}
}

func (vm *VM) accessChecked(o *object) {
	if o.transient && o.event == oncard.OnDeselect && vm.group != vm.selected && vm.group != 0 {
		vm.throw("java/lang/SecurityException")
	}
	if o.group == vm.group || o.group == everyone || vm.group == 0 || o.global {
		return
	}
	vm.throw("java/lang/SecurityException")
}

// storable throws where a reference must not be stored (JCRE 6.2.8.10: JCRE
// objects that are temporary, and global arrays).
func (vm *VM) storable(s slot) {
	if o := vm.object(s); o != nil && (o.entry == temporary || o.global) {
		vm.throw("java/lang/SecurityException")
	}
}

// setField writes a field of an API object, by the number of its word.
func (vm *VM) setField(o *object, n int, v uint16) { vm.write2(o, 2*n, v) }

func (o *object) field(n int) uint16 { return binary.BigEndian.Uint16(o.data[2*n:]) }
