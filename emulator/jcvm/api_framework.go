package jcvm

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// Reasons of exceptions of javacard.framework.
const (
	systemIllegalValue     = 1
	systemNoTransientSpace = 2
	systemIllegalTransient = 3
	systemIllegalAID       = 4
	systemNoResource       = 5
	systemIllegalUse       = 6

	transactionInProgress    = 1
	transactionNotInProgress = 2
	transactionBufferFull    = 3
)

// exceptions with a reason, all of which have the same methods.
var reasonExceptions = []string{
	"javacard/framework/CardException", "javacard/framework/CardRuntimeException", "javacard/framework/ISOException",
	"javacard/framework/PINException", "javacard/framework/APDUException", "javacard/framework/SystemException",
	"javacard/framework/TransactionException", "javacard/framework/UserException", "javacard/security/CryptoException",
}

// nativesFramework implements javacard.framework but for APDU and the PINs.
var nativesFramework = withExceptions(map[string]native{
	"javacard/framework/UserException.<init>()V": nothing,

	"javacard/framework/Applet.<init>()V":            nothing,
	"javacard/framework/Applet.install([BSB)V":       func(vm *VM, _ []slot) slot { vm.throwISO(uint16(iso7816.ErrUnknown)); return 0 },
	"javacard/framework/Applet.register()V":          func(vm *VM, a []slot) slot { vm.register(a[0], nil); return 0 },
	"javacard/framework/Applet.register([BSB)V":      appletRegister,
	"javacard/framework/Applet.selectingApplet()Z":   func(vm *VM, _ []slot) slot { return boolean(vm.apdu.selecting) },
	"javacard/framework/Applet.reSelectingApplet()Z": func(vm *VM, _ []slot) slot { return boolean(vm.apdu.selecting && vm.current.card.Reselecting()) },
	"javacard/framework/Applet.deselect()V":          nothing,
	"javacard/framework/Applet.select()Z":            func(*VM, []slot) slot { return 1 },
	"javacard/framework/Applet.getShareableInterfaceObject(Ljavacard/framework/AID;B)Ljavacard/framework/Shareable;": func(*VM, []slot) slot {
		return null
	},

	"javacard/framework/AID.<init>([BSB)V":               aidInit,
	"javacard/framework/AID.equals(Ljava/lang/Object;)Z": aidEqualsObject,
	"javacard/framework/AID.equals([BSB)Z":               aidEqualsBytes,
	"javacard/framework/AID.getBytes([BS)B":              aidGetBytes,
	"javacard/framework/AID.partialEquals([BSB)Z":        aidPartialEquals,
	"javacard/framework/AID.getPartialBytes(S[BSB)B":     aidGetPartialBytes,
	"javacard/framework/AID.RIDEquals(Ljavacard/framework/AID;)Z": func(vm *VM, a []slot) slot {
		other := vm.object(a[1])
		if other == nil {
			return 0
		}
		return boolean(bytes.Equal(vm.aidBytes(vm.this(a))[:5], vm.aidBytes(other)[:5]))
	},

	"javacard/framework/Util.makeShort(BB)S": func(_ *VM, a []slot) slot { return slot(uint8(a[0]))<<8 | slot(uint8(a[1])) },
	"javacard/framework/Util.getShort([BS)S": func(vm *VM, a []slot) slot {
		return slot(binary.BigEndian.Uint16(vm.bytes(a[0], a[1], 2)))
	},
	"javacard/framework/Util.setShort([BSS)S": func(vm *VM, a []slot) slot {
		vm.bytes(a[0], a[1], 2)
		vm.store(a[0], int(int16(a[1])), []byte{byte(a[2] >> 8), byte(a[2])})
		return slot(uint16(a[1] + 2))
	},
	"javacard/framework/Util.arrayCopy([BS[BSS)S":          func(vm *VM, a []slot) slot { return vm.arrayCopy(a, true) },
	"javacard/framework/Util.arrayCopyNonAtomic([BS[BSS)S": func(vm *VM, a []slot) slot { return vm.arrayCopy(a, false) },
	"javacard/framework/Util.arrayFill([BSSB)S":            func(vm *VM, a []slot) slot { return vm.arrayFill(a, true) },
	"javacard/framework/Util.arrayFillNonAtomic([BSSB)S":   func(vm *VM, a []slot) slot { return vm.arrayFill(a, false) },
	"javacard/framework/Util.arrayCompare([BS[BSS)B": func(vm *VM, a []slot) slot {
		return short(int16(bytes.Compare(vm.bytes(a[0], a[1], a[4]), vm.bytes(a[2], a[3], a[4]))))
	},

	"javacard/framework/JCSystem.getVersion()S":                                   func(*VM, []slot) slot { return 0x0300 },
	"javacard/framework/JCSystem.getAssignedChannel()B":                           func(vm *VM, _ []slot) slot { return slot(vm.current.card.LogicalChannel()) },
	"javacard/framework/JCSystem.isObjectDeletionSupported()Z":                    func(*VM, []slot) slot { return 1 },
	"javacard/framework/JCSystem.requestObjectDeletion()V":                        func(vm *VM, _ []slot) slot { vm.deletion = true; return 0 },
	"javacard/framework/JCSystem.isTransient(Ljava/lang/Object;)B":                systemIsTransient,
	"javacard/framework/JCSystem.makeTransientBooleanArray(SB)[Z":                 transientOf(kindBoolean),
	"javacard/framework/JCSystem.makeTransientByteArray(SB)[B":                    transientOf(kindByte),
	"javacard/framework/JCSystem.makeTransientShortArray(SB)[S":                   transientOf(kindShort),
	"javacard/framework/JCSystem.makeTransientObjectArray(SB)[Ljava/lang/Object;": transientOf(kindReference),
	"javacard/framework/JCSystem.getAID()Ljavacard/framework/AID;":                func(vm *VM, _ []slot) slot { return vm.aidOf(vm.owner) },
	"javacard/framework/JCSystem.getPreviousContextAID()Ljavacard/framework/AID;": func(vm *VM, _ []slot) slot {
		return vm.aidOf(vm.caller)
	},
	"javacard/framework/JCSystem.lookupAID([BSB)Ljavacard/framework/AID;": func(vm *VM, a []slot) slot {
		if i := vm.lookup(vm.bytes(a[0], a[1], a[2])); i != nil {
			return vm.aidOf(i.root)
		}
		return null
	},
	"javacard/framework/JCSystem.isAppletActive(Ljavacard/framework/AID;)Z": func(vm *VM, a []slot) slot {
		o := vm.object(a[0])
		if o == nil {
			vm.nullPointer()
		}
		i := vm.lookup(vm.aidBytes(o))
		running := i != nil && i == vm.current && vm.selected == i.group()
		return boolean(running || i != nil && vm.current.card.Selected(i.aid()))
	},
	"javacard/framework/JCSystem.getAppletShareableInterfaceObject(Ljavacard/framework/AID;B)Ljavacard/framework/Shareable;": systemShareable,

	"javacard/framework/JCSystem.beginTransaction()V": func(vm *VM, _ []slot) slot {
		if err := vm.begin(); err != nil {
			vm.throwReason("javacard/framework/TransactionException", transactionInProgress)
		}
		return 0
	},
	"javacard/framework/JCSystem.commitTransaction()V": func(vm *VM, _ []slot) slot {
		if !vm.inTx || errors.Is(vm.commit(), oncard.ErrNoTransaction) {
			vm.throwReason("javacard/framework/TransactionException", transactionNotInProgress)
		}
		return 0
	},
	"javacard/framework/JCSystem.abortTransaction()V": func(vm *VM, _ []slot) slot {
		if !vm.inTx {
			vm.throwReason("javacard/framework/TransactionException", transactionNotInProgress)
		}
		vm.abort()
		return 0
	},
	"javacard/framework/JCSystem.getTransactionDepth()B":     func(vm *VM, _ []slot) slot { return boolean(vm.inTx) },
	"javacard/framework/JCSystem.getUnusedCommitCapacity()S": func(vm *VM, _ []slot) slot { return clamp(vm.sys.Room().Commit) },
	"javacard/framework/JCSystem.getMaxCommitCapacity()S":    func(vm *VM, _ []slot) slot { return clamp(vm.sys.Room().CommitCapacity) },
	"javacard/framework/JCSystem.getAvailableMemory(B)S":     func(vm *VM, a []slot) slot { return clamp(vm.available(a[0])) },
	"javacard/framework/JCSystem.getAvailableMemory([SSB)V": func(vm *VM, a []slot) slot {
		o := vm.array(a[0], kindShort)
		at, n := int(int16(a[1])), vm.available(a[2])
		vm.bounds(o, at, 2)
		vm.write4(o, 2*at, uint32(n))
		return 0
	},
	"javacard/framework/JCSystem.makeGlobalArray(BS)Ljava/lang/Object;": func(vm *VM, a []slot) slot {
		return vm.newGlobal(vm.arrayType(a[0]), int(int16(a[1]))).self.slot()
	},
})

func withExceptions(table map[string]native) map[string]native {
	for _, c := range reasonExceptions {
		table[c+".<init>(S)V"] = func(vm *VM, a []slot) slot { vm.setReason(ref(a[0]), uint16(a[1])); return 0 }
		table[c+".throwIt(S)V"] = func(vm *VM, a []slot) slot { vm.throwReason(c, uint16(a[0])); return 0 }
		if c == "javacard/framework/CardException" || c == "javacard/framework/CardRuntimeException" {
			table[c+".getReason()S"] = func(vm *VM, a []slot) slot { return slot(vm.reason(ref(a[0]))) }
			table[c+".setReason(S)V"] = func(vm *VM, a []slot) slot { vm.setReason(ref(a[0]), uint16(a[1])); return 0 }
		}
	}
	return table
}

// setReason sets the reason of an exception. It is kept outside of
// transactions: an abort leaves the exception that tells of it alone.
func (vm *VM) setReason(r ref, reason uint16) {
	if r < firstHandle {
		vm.reasons[r] = reason
		return
	}
	vm.check(vm.sys.WriteOutside(r.handle(), headerSize, []byte{byte(reason >> 8), byte(reason)}))
}

func clamp(n int) slot { return slot(uint16(max(0, min(n, 0x7FFF)))) }

func (vm *VM) available(kind slot) int {
	room := vm.sys.Room()
	switch uint8(kind) {
	case 0:
		return room.Persistent
	case 1:
		return room.TransientReset
	case 2:
		used := 0
		for _, o := range vm.objs {
			if o != nil && o.transient && o.event == oncard.OnDeselect && o.owner == vm.owner {
				used += len(o.data)
			}
		}
		return room.TransientDeselect - used
	}
	vm.throwReason("javacard/framework/SystemException", systemIllegalValue)
	return 0
}

// register makes the instance known (JCRE 3.1). Only the AID that INSTALL
// named can be registered.
func (vm *VM) register(applet slot, aid []byte) {
	in := vm.installing
	if in == nil || in.done || aid != nil && !bytes.Equal(aid, in.instance.aid().Bytes()) {
		vm.throwReason("javacard/framework/SystemException", systemIllegalAID)
	}
	o := vm.object(applet)
	if o.owner != in.instance.root || o.self < firstHandle {
		vm.throwReason("javacard/framework/SystemException", systemIllegalAID)
	}
	vm.write2(in.instance.object(), appletObject, uint16(o.self))
	in.done = true
}

func appletRegister(vm *VM, a []slot) slot {
	b := bytes.Clone(vm.bytes(a[1], a[2], short(int16(int8(a[3])))))
	if len(b) < 5 || len(b) > 16 {
		vm.throwReason("javacard/framework/SystemException", systemIllegalValue)
	}
	vm.register(a[0], b)
	return 0
}

// newAID makes an AID object.
func (vm *VM) newAID(owner ref, aid []byte) *object {
	o := vm.allocate(kindInstance, 0, owner, vm.api.aid.id, make([]byte, 2*vm.api.aid.size))
	b := vm.allocate(kindByte, 0, owner, 0, aid)
	vm.write2(o, 0, uint16(b.self))
	return o
}

// aidBytes are the bytes of an AID object.
func (vm *VM) aidBytes(o *object) []byte {
	if !o.class.extends(vm.api.aid) {
		vm.fault("AID that is none")
	}
	b := vm.objs[o.word(0)]
	if b == nil || b.kind != kindByte || b.length < 5 {
		vm.fault("AID without bytes")
	}
	return b.data
}

// aidOf is the AID object of an instance, null for the JCRE.
func (vm *VM) aidOf(owner ref) slot {
	if i := vm.instances[owner]; i != nil {
		return ref(i.object().word(appletAID)).slot()
	}
	return null
}

func (vm *VM) lookup(aid []byte) *instance {
	for _, i := range vm.instances {
		if i.applet() != 0 && bytes.Equal(i.aid().Bytes(), aid) {
			return i
		}
	}
	return nil
}

func aidInit(vm *VM, a []slot) slot {
	b := vm.bytes(a[1], a[2], short(int16(int8(a[3]))))
	if len(b) < 5 || len(b) > 16 {
		vm.throwReason("javacard/framework/SystemException", systemIllegalValue)
	}
	array := vm.allocate(kindByte, 0, vm.this(a).owner, 0, b)
	vm.setField(vm.this(a), 0, uint16(array.self))
	return 0
}

func aidEqualsObject(vm *VM, a []slot) slot {
	o := vm.object(a[1])
	if o == nil || !o.class.extends(vm.api.aid) {
		return 0
	}
	return boolean(bytes.Equal(vm.aidBytes(vm.this(a)), vm.aidBytes(o)))
}

func aidEqualsBytes(vm *VM, a []slot) slot {
	if vm.object(a[1]) == nil {
		return 0
	}
	return boolean(bytes.Equal(vm.aidBytes(vm.this(a)), vm.bytes(a[1], a[2], short(int16(int8(a[3]))))))
}

func aidPartialEquals(vm *VM, a []slot) slot {
	if vm.object(a[1]) == nil {
		return 0
	}
	return boolean(bytes.HasPrefix(vm.aidBytes(vm.this(a)), vm.bytes(a[1], a[2], short(int16(int8(a[3]))))))
}

func aidGetBytes(vm *VM, a []slot) slot {
	b := vm.aidBytes(vm.this(a))
	vm.store(a[1], int(int16(a[2])), b)
	return slot(len(b))
}

func aidGetPartialBytes(vm *VM, a []slot) slot {
	b := vm.aidBytes(vm.this(a))
	from, n := int(int16(a[1])), int(int8(a[4]))
	if n == 0 {
		n = len(b) - from
	}
	if from < 0 || n < 0 || from+n > len(b) {
		vm.throw("java/lang/ArrayIndexOutOfBoundsException")
	}
	vm.store(a[2], int(int16(a[3])), b[from:from+n])
	return slot(n)
}

func systemIsTransient(vm *VM, a []slot) slot {
	o := vm.object(a[0])
	switch {
	case o == nil || !o.transient:
		return 0
	case o.event == oncard.OnReset:
		return 1
	}
	return 2
}

// transientOf makes arrays of a kind that are cleared on an event.
func transientOf(k kind) native {
	return func(vm *VM, a []slot) slot {
		event := oncard.OnReset
		switch uint8(a[1]) {
		case 1:
		case 2:
			event = oncard.OnDeselect
		default:
			vm.throwReason("javacard/framework/SystemException", systemIllegalValue)
		}
		var element *class
		if k == kindReference {
			element = vm.api.object
		}
		return vm.newTransient(k, int(int16(a[0])), element, event).self.slot()
	}
}

// arrayCopy copies within byte arrays; a part that overlaps is copied as if
// through other memory.
func (vm *VM) arrayCopy(a []slot, atomic bool) slot {
	source := vm.bytes(a[0], a[1], a[4])
	to := int(int16(a[3]))
	vm.bounds(vm.array(a[2], kindByte), to, len(source))
	vm.put(a[2], to, bytes.Clone(source), atomic)
	return slot(uint16(a[3] + a[4]))
}

func (vm *VM) arrayFill(a []slot, atomic bool) slot {
	p := bytes.Clone(vm.bytes(a[0], a[1], a[2]))
	for i := range p {
		p[i] = byte(a[3])
	}
	vm.put(a[0], int(int16(a[1])), p, atomic)
	return slot(uint16(a[1] + a[2]))
}

// put writes bytes into a byte array, atomically or not.
func (vm *VM) put(s slot, offset int, p []byte, atomic bool) {
	o := vm.array(s, kindByte)
	vm.bounds(o, offset, len(p))
	switch {
	case len(p) == 0:
	case o.persistent && !atomic:
		vm.check(vm.sys.WriteNonAtomic(o.self.handle(), headerSize+offset, p))
	default:
		vm.write(o, offset, p)
	}
}

// systemShareable asks the server's applet for the object (JCRE 6.2.4), in its
// context.
func systemShareable(vm *VM, a []slot) slot {
	name := vm.object(a[0])
	if name == nil {
		vm.nullPointer()
	}
	server := vm.lookup(vm.aidBytes(name))
	if server == nil {
		return null
	}
	return vm.shareable(server, a[1])
}

// shareable asks an applet for a shareable interface object, in its context;
// null where it gives none.
func (vm *VM) shareable(server *instance, parameter slot) slot {
	client := vm.aidOf(vm.owner)
	result := null
	err := vm.guard(func() {
		result = vm.inContext(server.root, func() slot {
			return vm.call(server.method(appletShareable), server.this(), client, parameter)
		})
	})
	var f fault
	if errors.As(err, &f) {
		panic(f)
	}
	if err != nil {
		return null // what the server throws isn't the client's, as in the reference implementation
	}
	if o := vm.object(result); o == nil || !o.class.sharing(vm.api.shareable) {
		return null
	}
	return result
}
