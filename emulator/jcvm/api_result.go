package jcvm

// sensitiveResult is what the last method returned whose result
// javacardx.security.SensitiveResult can check: nothing after an exception, or
// when an applet is entered.
type sensitiveResult struct {
	value    slot
	kind     byte // of the signature: Z, B, S, or L for a reference
	assigned bool
}

// sensitiveClasses have methods whose results are kept, and sensitiveMethods are
// those of other classes.
var sensitiveClasses = map[string]bool{
	"javacard/framework/AID": true, "javacard/framework/OwnerPIN": true, "javacard/framework/OwnerPINx": true,
	"javacard/framework/OwnerPINxWithPredecrement": true, "javacard/framework/SensitiveArrays": true,
	"javacard/security/Signature": true, "javacard/security/Checksum": true, "javacard/security/Key": true,
	"javacard/security/KeyAgreement": true, "javacard/security/MessageDigest": true, "javacard/security/RandomData": true,
	"javacard/security/InitializedMessageDigest": true, "javacardx/crypto/Cipher": true, "javacardx/crypto/AEADCipher": true,
}

var sensitiveMethods = map[string]bool{
	"javacard/framework/JCSystem.getAID()Ljavacard/framework/AID;":                                                           true,
	"javacard/framework/JCSystem.lookupAID([BSB)Ljavacard/framework/AID;":                                                    true,
	"javacard/framework/JCSystem.getPreviousContextAID()Ljavacard/framework/AID;":                                            true,
	"javacard/framework/JCSystem.getAppletShareableInterfaceObject(Ljavacard/framework/AID;B)Ljavacard/framework/Shareable;": true,
}

// recording makes a native keep its result.
func recording(f native, kind byte) native {
	return func(vm *VM, a []slot) slot {
		vm.result = sensitiveResult{}
		s := f(vm, a)
		vm.result = sensitiveResult{s, kind, true}
		return s
	}
}

// nativesResult implements SensitiveResult.
var nativesResult = map[string]native{
	"javacardx/security/SensitiveResult.assertEquals(Ljava/lang/Object;)V": func(vm *VM, a []slot) slot {
		return vm.assertResult('L', func(vm *VM) bool { return vm.result.value == a[0] })
	},
	"javacardx/security/SensitiveResult.assertTrue()V": func(vm *VM, _ []slot) slot {
		return vm.assertResult('Z', func(vm *VM) bool { return vm.result.value&0xFF != 0 })
	},
	"javacardx/security/SensitiveResult.assertFalse()V": func(vm *VM, _ []slot) slot {
		return vm.assertResult('Z', func(vm *VM) bool { return vm.result.value&0xFF == 0 })
	},
	"javacardx/security/SensitiveResult.assertNegative()V": func(vm *VM, _ []slot) slot { return vm.assertNumber(func(n int16) bool { return n < 0 }) },
	"javacardx/security/SensitiveResult.assertPositive()V": func(vm *VM, _ []slot) slot { return vm.assertNumber(func(n int16) bool { return n > 0 }) },
	"javacardx/security/SensitiveResult.assertZero()V":     func(vm *VM, _ []slot) slot { return vm.assertNumber(func(n int16) bool { return n == 0 }) },
	"javacardx/security/SensitiveResult.assertEquals(S)V": func(vm *VM, a []slot) slot {
		return vm.assertNumber(func(n int16) bool { return n == int16(a[0]) })
	},
	"javacardx/security/SensitiveResult.assertGreaterThan(S)V": func(vm *VM, a []slot) slot {
		return vm.assertNumber(func(n int16) bool { return n > int16(a[0]) })
	},
	"javacardx/security/SensitiveResult.assertLessThan(S)V": func(vm *VM, a []slot) slot {
		return vm.assertNumber(func(n int16) bool { return n < int16(a[0]) })
	},
	"javacardx/security/SensitiveResult.reset()V": func(vm *VM, _ []slot) slot { vm.result = sensitiveResult{}; return 0 },
}

func (vm *VM) assertResult(kind byte, holds func(*VM) bool) slot {
	if !vm.result.assigned || vm.result.kind != kind || !holds(vm) {
		vm.throw("java/lang/SecurityException")
	}
	return 0
}

// assertNumber is for shorts, and bytes as shorts.
func (vm *VM) assertNumber(holds func(int16) bool) slot {
	n := int16(vm.result.value)
	kind := vm.result.kind
	if kind == 'B' {
		kind, n = 'S', int16(int8(n))
	}
	if !vm.result.assigned || kind != 'S' || !holds(n) {
		vm.throw("java/lang/SecurityException")
	}
	return 0
}
