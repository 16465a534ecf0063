package jcvm

import "crypto/subtle"

// Reasons of PINException.
const (
	pinIllegalValue = 1
	pinIllegalState = 2
)

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
		vm.initPIN(vm.this(a), a[1], a[2])
		return 0
	},
	"javacard/framework/OwnerPINBuilder.buildOwnerPIN(BBB)Ljavacard/framework/PIN;": func(vm *VM, a []slot) slot {
		class, ok := map[uint8]string{
			1: "javacard/framework/OwnerPIN", 2: "javacard/framework/OwnerPINx", 3: "javacard/framework/OwnerPINxWithPredecrement",
		}[uint8(a[2])]
		if !ok {
			vm.throwReason("javacard/framework/PINException", pinIllegalValue)
		}
		vm.checkPIN(a[0], a[1])
		o := vm.newInstance(vm.api.classes[class])
		vm.initPIN(o, a[0], a[1])
		return o.self.slot()
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
	"javacard/framework/OwnerPIN.reset()V": pinReset,
	"javacard/framework/OwnerPIN.resetAndUnblock()V": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		o.native = false
		vm.setTries(o, o.field(pinLimit))
		return 0
	},
	"javacard/framework/OwnerPIN.update([BSB)V": pinUpdate,

	"javacard/framework/OwnerPINx.check([BSB)Z":         pinCheck,
	"javacard/framework/OwnerPINx.getTriesRemaining()B": func(vm *VM, a []slot) slot { return slot(vm.this(a).field(pinTries)) },
	"javacard/framework/OwnerPINx.isValidated()Z":       func(vm *VM, a []slot) slot { return boolean(validated(vm.this(a))) },
	"javacard/framework/OwnerPINx.update([BSB)V":        pinUpdate,
	"javacard/framework/OwnerPINx.getTryLimit()B":       func(vm *VM, a []slot) slot { return slot(vm.this(a).field(pinLimit)) },
	"javacard/framework/OwnerPINx.setTryLimit(B)V": func(vm *VM, a []slot) slot {
		o, limit := vm.this(a), int8(a[1])
		if limit < 1 {
			vm.throwReason("javacard/framework/PINException", pinIllegalValue)
		}
		vm.setField(o, pinLimit, uint16(limit))
		vm.setField(o, pinTries, uint16(limit))
		o.native = nil
		return 0
	},
	"javacard/framework/OwnerPINx.setTriesRemaining(B)V": func(vm *VM, a []slot) slot {
		o, n := vm.this(a), int8(a[1])
		if n < 0 || int(n) > int(o.field(pinLimit)) {
			vm.throwReason("javacard/framework/PINException", pinIllegalValue)
		}
		vm.setField(o, pinTries, uint16(n))
		o.native = nil
		return 0
	},
	"javacard/framework/OwnerPINx.reset()V": pinReset,

	"javacard/framework/OwnerPINxWithPredecrement.decrementTriesRemaining()B": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		n := o.field(pinTries)
		o.native = predecremented{blocked: n == 0}
		if n > 0 {
			vm.setTries(o, n-1)
		}
		return slot(o.field(pinTries))
	},
	"javacard/framework/OwnerPINxWithPredecrement.check([BSB)Z": func(vm *VM, a []slot) slot {
		o := vm.this(a)
		state, ok := o.native.(predecremented)
		o.native = nil
		p := vm.bytes(a[1], a[2], short(int16(int8(a[3]))))
		if !ok {
			vm.throwReason("javacard/framework/PINException", pinIllegalState)
		}
		if state.blocked {
			return 0
		}
		return vm.comparePIN(o, p)
	},
}

// predecremented is the volatile state of a PIN that check may be asked of: the
// try is counted already, unless there was none left.
type predecremented struct{ blocked bool }

func (vm *VM) checkPIN(limit, size slot) {
	if int8(limit) < 1 || int8(size) < 1 {
		vm.throwReason("javacard/framework/PINException", pinIllegalValue)
	}
}

// initPIN gives a new PIN its limits.
func (vm *VM) initPIN(o *object, limit, size slot) {
	vm.checkPIN(limit, size)
	value := vm.allocate(kindByte, 0, o.owner, 0, make([]byte, uint8(size)))
	vm.setField(o, pinLimit, uint16(uint8(limit)))
	vm.setField(o, pinTries, uint16(uint8(limit)))
	vm.setField(o, pinMax, uint16(uint8(size)))
	vm.setField(o, pinValue, uint16(value.self))
}

func pinUpdate(vm *VM, a []slot) slot {
	o := vm.this(a)
	p := vm.bytes(a[1], a[2], short(int16(int8(a[3]))))
	value := vm.objs[o.field(pinValue)]
	if len(p) > value.length {
		vm.throwReason("javacard/framework/PINException", pinIllegalValue)
	}
	vm.write(value, 0, append([]byte(nil), p...))
	vm.setField(o, pinLength, uint16(len(p)))
	vm.setField(o, pinTries, o.field(pinLimit))
	o.native = nil
	return 0
}

func pinReset(vm *VM, a []slot) slot {
	o := vm.this(a)
	if validated(o) {
		vm.setTries(o, o.field(pinLimit))
	}
	o.native = nil
	return 0
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
	return vm.comparePIN(o, p)
}

func (vm *VM) comparePIN(o *object, p []byte) slot {
	value := vm.objs[o.field(pinValue)].data[:o.field(pinLength)]
	if len(p) != len(value) || subtle.ConstantTimeCompare(p, value) != 1 {
		return 0
	}
	vm.setTries(o, o.field(pinLimit))
	o.native = true
	return 1
}
