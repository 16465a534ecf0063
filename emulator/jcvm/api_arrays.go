package jcvm

import "github.com/freearea/freearea/emulator/oncard"

// nativesArrays implements javacard.framework.SensitiveArrays. Nothing can
// disturb the memory of an emulated card, so an array's integrity always holds.
var nativesArrays = map[string]native{
	"javacard/framework/SensitiveArrays.isIntegritySensitiveArraysSupported()Z":    func(*VM, []slot) slot { return 1 },
	"javacard/framework/SensitiveArrays.isIntegritySensitive(Ljava/lang/Object;)Z": func(vm *VM, a []slot) slot { return boolean(vm.accessible(a[0]).sensitive) },
	"javacard/framework/SensitiveArrays.assertIntegrity(Ljava/lang/Object;)V":      func(vm *VM, a []slot) slot { vm.sensitiveArray(a[0]); return 0 },
	"javacard/framework/SensitiveArrays.makeIntegritySensitiveArray(BBS)Ljava/lang/Object;": func(vm *VM, a []slot) slot {
		k, n := vm.arrayType(a[0]), int(int16(a[2]))
		var element *class
		if k == kindReference {
			element = vm.api.object
		}
		switch uint8(a[1]) { // JCSystem.MEMORY_TYPE_…
		case 0:
			return vm.newArrayWith(k, n, element, sensitiveArray).self.slot()
		case 1:
			return vm.newTransientWith(k, n, element, oncard.OnReset, sensitiveArray).self.slot()
		case 2:
			return vm.newTransientWith(k, n, element, oncard.OnDeselect, sensitiveArray).self.slot()
		}
		vm.throwReason("javacard/framework/SystemException", systemIllegalValue)
		return 0
	},
	"javacard/framework/SensitiveArrays.clearArray(Ljava/lang/Object;)S": func(vm *VM, a []slot) slot {
		o := vm.sensitiveArray(a[0])
		if len(o.data) > 0 {
			vm.write(o, 0, make([]byte, len(o.data)))
		}
		return slot(o.length)
	},
}

// accessible is the object of an argument, to which the caller must have
// access.
func (vm *VM) accessible(s slot) *object {
	o := vm.object(s)
	if o == nil {
		vm.nullPointer()
	}
	vm.access(o)
	return o
}

func (vm *VM) sensitiveArray(s slot) *object {
	o := vm.accessible(s)
	if !o.sensitive {
		vm.throwReason("javacard/framework/SystemException", systemIllegalValue)
	}
	return o
}
