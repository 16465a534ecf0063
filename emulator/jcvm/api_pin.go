package jcvm

import "crypto/subtle"

// Reasons of PINException.
const pinIllegalValue = 1

// Fields of an OwnerPIN. The validated flag is lost with power.
const (
	pinLimit = iota
	pinTries
	pinMax
	pinLength
	pinValue // byte array
)

// nativesPIN implements the PINs of javacard.framework.
var nativesPIN = map[string]native{
	"javacard/framework/OwnerPIN.<init>(BB)V": func(vm *VM, a []slot) slot {
		limit, size := int(int8(a[1])), int(int8(a[2]))
		if limit < 1 || size < 1 {
			vm.throwReason("javacard/framework/PINException", pinIllegalValue)
		}
		o := vm.this(a)
		value := vm.allocate(kindByte, 0, o.owner, 0, make([]byte, size))
		vm.setField(o, pinLimit, uint16(limit))
		vm.setField(o, pinTries, uint16(limit))
		vm.setField(o, pinMax, uint16(size))
		vm.setField(o, pinValue, uint16(value.self))
		return 0
	},
	"javacard/framework/OwnerPIN.check([BSB)Z": pinCheck,
	"javacard/framework/OwnerPIN.getTriesRemaining()B": func(vm *VM, a []slot) slot {
		return slot(vm.this(a).field(pinTries))
	},
	"javacard/framework/OwnerPIN.isValidated()Z":      func(vm *VM, a []slot) slot { return boolean(validated(vm.this(a))) },
	"javacard/framework/OwnerPIN.getValidatedFlag()Z": func(vm *VM, a []slot) slot { return boolean(validated(vm.this(a))) },
	"javacard/framework/OwnerPIN.setValidatedFlag(Z)V": func(vm *VM, a []slot) slot {
		vm.this(a).native = a[1]&0xFF != 0
		return 0
	},
	"javacard/framework/OwnerPIN.reset()V": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		if validated(o) {
			o.native = false
			vm.setTries(o, o.field(pinLimit))
		}
		return 0
	},
	"javacard/framework/OwnerPIN.resetAndUnblock()V": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		o.native = false
		vm.setTries(o, o.field(pinLimit))
		return 0
	},
	"javacard/framework/OwnerPIN.update([BSB)V": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		p := vm.bytes(a[1], a[2], short(int16(int8(a[3]))))
		value := vm.objs[o.field(pinValue)]
		if len(p) > value.length {
			vm.throwReason("javacard/framework/PINException", pinIllegalValue)
		}
		vm.write(value, 0, append([]byte(nil), p...))
		vm.setField(o, pinLength, uint16(len(p)))
		vm.setField(o, pinTries, o.field(pinLimit))
		o.native = false
		return 0
	},
}

func validated(o *object) bool { v, _ := o.native.(bool); return v }

// setTries writes the try counter outside of any transaction: no abort brings
// a try back (OwnerPIN.check).
func (vm *VM) setTries(o *object, n uint16) {
	vm.check(vm.sys.WriteOutside(o.self.handle(), headerSize+2*pinTries, []byte{byte(n >> 8), byte(n)}))
}

// pinCheck counts the try before it compares, so that a loss of power costs
// it.
func pinCheck(vm *VM, a []slot) slot {
	o := vm.this(a)
	o.native = false
	tries := o.field(pinTries)
	if tries == 0 {
		return 0
	}
	vm.setTries(o, tries-1)
	p := vm.bytes(a[1], a[2], short(int16(int8(a[3]))))
	value := vm.objs[o.field(pinValue)].data[:o.field(pinLength)]
	if len(p) != len(value) || subtle.ConstantTimeCompare(p, value) != 1 {
		return 0
	}
	vm.setTries(o, o.field(pinLimit))
	o.native = true
	return 1
}
