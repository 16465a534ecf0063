package jcvm

import (
	"bytes"
	"errors"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// nativesGP implements org.globalplatform: GPSystem, and SecureChannel.
var nativesGP = map[string]native{
	"org/globalplatform/GPSystem.<init>()V": nothing,
	"org/globalplatform/GPSystem.getCardState()B": func(vm *VM, _ []slot) slot {
		return short(int16(int8(vm.platform().CardState())))
	},
	"org/globalplatform/GPSystem.getCardContentState()B": func(vm *VM, _ []slot) slot {
		own, _ := vm.platform().Entry(iso7816.AID{})
		return short(int16(int8(own.LifeCycle)))
	},
	"org/globalplatform/GPSystem.setCardContentState(B)Z": func(vm *VM, a []slot) slot {
		own, _ := vm.platform().Entry(iso7816.AID{})
		return vm.setRegistered(own, byte(a[0]))
	},
	"org/globalplatform/GPSystem.getSecureChannel()Lorg/globalplatform/SecureChannel;": func(*VM, []slot) slot {
		return refSecureChannel.slot()
	},
	"org/globalplatform/GPSystem.getRegistryEntry(Ljavacard/framework/AID;)Lorg/globalplatform/GPRegistryEntry;": func(vm *VM, a []slot) slot {
		e, ok := vm.platform().Entry(vm.optionalAID(a[0]))
		if !ok {
			return null
		}
		return vm.registryEntry(e.AID)
	},
	"org/globalplatform/GPSystem.getCVM(B)Lorg/globalplatform/CVM;": func(vm *VM, a []slot) slot {
		return vm.getCVM(familyCVM | uint16(uint8(a[0])))
	},
	"org/globalplatform/GPSystem.getService(Ljavacard/framework/AID;S)Lorg/globalplatform/GlobalService;": func(vm *VM, a []slot) slot {
		service, _ := vm.globalService(vm.optionalAID(a[0]), uint16(a[1]))
		return service
	},
	"org/globalplatform/GPSystem.lockCard()Z":      func(vm *VM, _ []slot) slot { return boolean(vm.platform().LockCard() == nil) },
	"org/globalplatform/GPSystem.terminateCard()Z": func(vm *VM, _ []slot) slot { return boolean(vm.platform().TerminateCard() == nil) },
	"org/globalplatform/GPSystem.setATRHistBytes([BSB)Z": func(vm *VM, a []slot) slot {
		b := vm.bytes(a[0], a[1], short(int16(int8(a[2]))))
		return boolean(len(b) > 0 && vm.platform().SetHistoricalBytes(b) == nil)
	},

	"org/globalplatform/GPRegistryEntry.getAID()Ljavacard/framework/AID;": func(vm *VM, a []slot) slot {
		i := vm.lookup(vm.registered(a).AID.Bytes())
		if i == nil {
			return null // not an application of this machine: it has no AID object
		}
		return vm.aidOf(i.root)
	},
	"org/globalplatform/GPRegistryEntry.getState()B": func(vm *VM, a []slot) slot {
		return short(int16(int8(vm.registered(a).LifeCycle)))
	},
	"org/globalplatform/GPRegistryEntry.setState(B)Z": func(vm *VM, a []slot) slot {
		return vm.setRegistered(vm.registered(a), byte(a[1]))
	},
	"org/globalplatform/GPRegistryEntry.isPrivileged(B)Z": func(vm *VM, a []slot) slot {
		n, p := uint8(a[1]), vm.registered(a).Privileges
		return boolean(int(n) < 8*len(p) && p[n/8]&(0x80>>(n%8)) != 0)
	},
	"org/globalplatform/GPRegistryEntry.getPrivileges([BS)S": func(vm *VM, a []slot) slot {
		p := vm.registered(a).Privileges
		vm.store(a[1], int(int16(a[2])), p[:])
		return slot(uint16(a[2] + 3))
	},
	"org/globalplatform/GPRegistryEntry.isAssociated(Ljavacard/framework/AID;)Z": func(vm *VM, a []slot) slot {
		sd := vm.optionalAID(a[1])
		return boolean(!sd.IsZero() && vm.registered(a).SecurityDomain == sd)
	},
	"org/globalplatform/GPRegistryEntry.registerService(S)V": func(vm *VM, a []slot) slot {
		return vm.changeService(a, oncard.Card.RegisterService)
	},
	"org/globalplatform/GPRegistryEntry.deregisterService(S)V": func(vm *VM, a []slot) slot {
		return vm.changeService(a, oncard.Card.DeregisterService)
	},

	// The card's own service: the global PIN.
	"org/globalplatform/GlobalService.getServiceInterface(Lorg/globalplatform/GPRegistryEntry;S[BSS)Ljavacard/framework/Shareable;": func(vm *VM, a []slot) slot {
		if name := uint16(a[2]); name != oncard.ServiceGlobalPIN && name != familyCVM {
			vm.throwISO(uint16(iso7816.ErrDataNotFound))
		}
		return refGlobalPIN.slot()
	},
	"org/globalplatform/CVM.isActive()Z":          func(vm *VM, _ []slot) slot { return boolean(vm.platform().GlobalPIN().Active()) },
	"org/globalplatform/CVM.isSubmitted()Z":       func(vm *VM, _ []slot) slot { return boolean(vm.platform().GlobalPIN().Submitted()) },
	"org/globalplatform/CVM.isVerified()Z":        func(vm *VM, _ []slot) slot { return boolean(vm.platform().GlobalPIN().Verified()) },
	"org/globalplatform/CVM.isBlocked()Z":         func(vm *VM, _ []slot) slot { return boolean(vm.platform().GlobalPIN().Blocked()) },
	"org/globalplatform/CVM.getTriesRemaining()B": func(vm *VM, _ []slot) slot { return slot(vm.platform().GlobalPIN().TriesRemaining()) },
	"org/globalplatform/CVM.resetState()Z":        func(vm *VM, _ []slot) slot { return boolean(vm.platform().GlobalPIN().Reset()) },
	"org/globalplatform/CVM.blockState()Z":        func(vm *VM, _ []slot) slot { return boolean(vm.platform().GlobalPIN().Block()) },
	"org/globalplatform/CVM.resetAndUnblockState()Z": func(vm *VM, _ []slot) slot {
		return boolean(vm.platform().GlobalPIN().ResetAndUnblock())
	},
	"org/globalplatform/CVM.setTryLimit(B)Z": func(vm *VM, a []slot) slot {
		return boolean(vm.platform().GlobalPIN().SetTryLimit(byte(a[1])))
	},
	"org/globalplatform/CVM.update([BSBB)Z": func(vm *VM, a []slot) slot {
		return boolean(vm.platform().GlobalPIN().Update(vm.submitted(a), oncard.CVMFormat(a[4])))
	},
	"org/globalplatform/CVM.verify([BSBB)S": func(vm *VM, a []slot) slot {
		if vm.platform().GlobalPIN().Verify(vm.submitted(a), oncard.CVMFormat(a[4])) {
			return 0
		}
		return short(-1)
	},

	"org/globalplatform/SecureChannel.getSecurityLevel()B": func(vm *VM, _ []slot) slot {
		return short(int16(int8(vm.secureChannel().Level())))
	},
	"org/globalplatform/SecureChannel.resetSecurity()V":                            func(vm *VM, _ []slot) slot { vm.secureChannel().Reset(); return 0 },
	"org/globalplatform/SecureChannel.processSecurity(Ljavacard/framework/APDU;)S": processSecurity,
	"org/globalplatform/SecureChannelx2.processSecurity([BSSS)S": func(vm *VM, a []slot) slot {
		return vm.processProtocol(vm.command(a[1], a[2], a[3]), a[1], int(int16(a[4])))
	},
	"org/globalplatform/SecureChannel.unwrap([BSS)S": secureUnwrap,
	"org/globalplatform/SecureChannel.wrap([BSS)S":   secureWrap,
	"org/globalplatform/SecureChannel.decryptData([BSS)S": func(vm *VM, a []slot) slot {
		return vm.sensitive(a, vm.secureChannel().DecryptSensitive)
	},
	"org/globalplatform/SecureChannel.encryptData([BSS)S": func(vm *VM, a []slot) slot {
		return vm.sensitive(a, vm.secureChannel().EncryptSensitive)
	},
}

// platform is the card of the instance whose code runs. One that is called
// through a shareable interface may not have been opened yet.
func (vm *VM) platform() oncard.Card {
	i := vm.instances[vm.owner]
	if i == nil {
		vm.fault("a call of the platform outside of any application")
	}
	if i.card == nil && vm.sys.Open(i.aid()) != nil || i.card == nil {
		vm.fault("application %v can't be opened", i.aid())
	}
	return i.card
}

// optionalAID is the AID of an AID object, zero for null.
func (vm *VM) optionalAID(s slot) iso7816.AID {
	o := vm.object(s)
	if o == nil {
		return iso7816.AID{}
	}
	aid, _ := iso7816.NewAID(vm.aidBytes(o))
	return aid
}

// registryEntry is the object for an entry of the registry: an entry point that
// anyone may keep, so it is made once, and found again by its AID.
func (vm *VM) registryEntry(aid iso7816.AID) slot {
	c := vm.api.classes["org/globalplatform/GPRegistryEntry"]
	for _, o := range vm.objs {
		if o != nil && o.stored && o.class == c && vm.entryAID(o) == aid {
			return o.self.slot()
		}
	}
	name := vm.allocate(kindByte, 0, 0, 0, aid.Bytes())
	o := vm.allocate(kindInstance, 0, 0, c.id, make([]byte, 2*c.size))
	vm.setField(o, 0, uint16(name.self))
	return o.self.slot()
}

func (vm *VM) entryAID(o *object) iso7816.AID {
	var aid iso7816.AID
	if name := vm.objs[o.field(0)]; name != nil {
		aid, _ = iso7816.NewAID(name.data)
	}
	return aid
}

// registered is what an entry's object says of its application. Who has got
// the object may ask it.
func (vm *VM) registered(a []slot) oncard.Entry {
	aid := vm.entryAID(vm.this(a))
	e, ok := vm.platform().Entry(aid)
	if i := vm.lookup(aid.Bytes()); !ok && i != nil {
		vm.inContext(i.root, func() slot { e, ok = vm.platform().Entry(iso7816.AID{}); return 0 })
	}
	if !ok {
		vm.throwISO(uint16(iso7816.ErrDataNotFound)) // deleted since
	}
	return e
}

// setRegistered is setState: b8 locks; without it a locked application is
// unlocked, and one that isn't changes its own state.
func (vm *VM) setRegistered(e oncard.Entry, state byte) slot {
	p := vm.platform()
	var err error
	switch lock := state&oncard.Locked != 0; {
	case e.SecurityDomain == e.AID && state == cardLocked: // the Issuer Security Domain
		err = p.LockCard()
	case e.SecurityDomain == e.AID && state == cardTerminated:
		err = p.TerminateCard()
	case lock || e.LifeCycle&oncard.Locked != 0:
		err = p.SetLocked(e.AID, lock)
	case e.AID != p.AID():
		err = iso7816.ErrConditions
	default:
		err = p.SetLifeCycle(state)
	}
	return boolean(err == nil)
}

// changeService registers a service or gives it up: for the caller's own entry.
func (vm *VM) changeService(a []slot, change func(oncard.Card, uint16) error) slot {
	p := vm.platform()
	err := error(iso7816.ErrConditions)
	if vm.entryAID(vm.this(a)) == p.AID() {
		err = change(p, uint16(a[1]))
	}
	if err != nil {
		vm.throwSW(err)
	}
	return 0
}

// familyCVM is the family of services that CVMs are (GPCS 8.1.3).
const familyCVM = 0x8200

// shareableGlobalService is the byte 80 that the OPEN asks an application for.
const shareableGlobalService slot = 0xFF80

// globalService is the GlobalService of who offers a service, with its
// application: nil for the card's own, null where there is none.
func (vm *VM) globalService(provider iso7816.AID, name uint16) (slot, *instance) {
	aid, ok := vm.platform().Service(provider, name)
	if !ok {
		return null, nil
	}
	i := vm.lookup(aid.Bytes())
	if i == nil {
		return refGlobalService.slot(), nil
	}
	s := vm.shareable(i, shareableGlobalService)
	if o := vm.object(s); o == nil || !o.class.assignable(vm.api.classes["org/globalplatform/GlobalService"]) {
		return null, nil
	}
	return s, i
}

func (vm *VM) getCVM(name uint16) slot {
	service, i := vm.globalService(iso7816.AID{}, name)
	if service == null {
		return null
	}
	if i == nil {
		return refGlobalPIN.slot()
	}
	entry := vm.registryEntry(vm.platform().AID())
	m := vm.object(service).class.interfaceMethod(vm.api.classes["org/globalplatform/GlobalService"], 0)
	cvm := vm.inContext(i.root, func() slot { return vm.call(m, service, entry, slot(name), null, 0, 0) })
	if o := vm.object(cvm); o == nil || !o.class.assignable(vm.api.classes["org/globalplatform/CVM"]) || !o.class.sharing(vm.api.shareable) {
		return null
	}
	return cvm
}

// submitted are the bytes of a CVM, which must be in a global array.
func (vm *VM) submitted(a []slot) []byte {
	if o := vm.array(a[1], kindByte); !o.global {
		vm.throw("java/lang/SecurityException")
	}
	return bytes.Clone(vm.bytes(a[1], a[2], short(int16(int8(a[3])))))
}

func (vm *VM) secureChannel() oncard.SecureMessaging { return vm.platform().SecureChannel() }

// throwSW throws an ISOException for an error of the card.
func (vm *VM) throwSW(err error) {
	sw := iso7816.ErrConditions
	errors.As(err, &sw)
	vm.throwISO(uint16(sw))
}

// processSecurity receives the data of a command that it knows, and answers in
// the buffer.
func processSecurity(vm *VM, a []slot) slot {
	if a[1] != refAPDU.slot() {
		vm.nullPointer()
	}
	vm.currentAPDU()
	cmd := vm.apdu.cmd
	if _, cmd.CLA = globalplatform.ClassChannel(cmd.CLA); cmd.INS == insInitializeUpdate || cmd.INS == insExternalAuthenticate {
		if vm.apdu.state == apduInitial {
			vm.receive(vm.apdu.offset())
		}
	}
	return vm.processProtocol(cmd, refBuffer.slot(), 5)
}

// Life cycle states of the card (GPCS table 11-6).
const (
	cardLocked     = 0x7F
	cardTerminated = 0xFF
)

const (
	insInitializeUpdate     = 0x50
	insExternalAuthenticate = 0x82
)

func (vm *VM) processProtocol(cmd iso7816.Command, to slot, at int) slot {
	r := vm.secureChannel().Process(cmd)
	if r.SW != iso7816.OK {
		vm.throwISO(uint16(r.SW))
	}
	vm.store(to, at, r.Data)
	return slot(len(r.Data))
}

// command reads a command from a byte array, header, Lc and data. The class is
// as on the basic logical channel.
func (vm *VM) command(array, offset, length slot) iso7816.Command {
	b := bytes.Clone(vm.bytes(array, offset, length))
	if len(b) < 4 {
		vm.throwISO(uint16(iso7816.ErrWrongLength))
	}
	cmd := iso7816.Command{INS: b[1], P1: b[2], P2: b[3], Ne: iso7816.MaxShortNe}
	_, cmd.CLA = globalplatform.ClassChannel(b[0])
	var n int
	switch rest := b[4:]; {
	case len(rest) == 0:
		return cmd
	case rest[0] == 0 && len(rest) > 3:
		n, cmd.Data, cmd.Extended = int(rest[1])<<8|int(rest[2]), rest[3:], true
	default:
		n, cmd.Data = int(rest[0]), rest[1:]
	}
	if n != len(cmd.Data) {
		vm.throwISO(uint16(iso7816.ErrWrongLength))
	}
	return cmd
}

// secureUnwrap takes the secure messaging off a command. Commands without any
// stay as they are: whether they should have had some the application knows
// from the security level.
func secureUnwrap(vm *VM, a []slot) slot {
	b := vm.bytes(a[1], a[2], a[3])
	s := vm.secureChannel()
	if s.Aborted() {
		vm.throwISO(uint16(iso7816.ErrConditions))
	}
	if len(b) < 4 {
		vm.throwISO(uint16(iso7816.ErrWrongLength))
	}
	class := b[0]
	switch level := scp.Level(s.Level() & 0x7F); {
	case level == scp.RMAC && !secureMessaging(class):
		// The command goes into the response's MAC as it is.
		if _, err := s.Unwrap(vm.command(a[1], a[2], a[3])); err != nil {
			vm.throwSW(err)
		}
		return a[3]
	case level == scp.None || !secureMessaging(class):
		return a[3]
	}
	plain, err := s.Unwrap(vm.command(a[1], a[2], a[3]))
	if err != nil {
		vm.throwSW(err)
	}
	channel, _ := globalplatform.ClassChannel(class)
	if c, err := globalplatform.ChannelClass(plain.CLA, channel); err == nil {
		plain.CLA = c
	}
	out := []byte{plain.CLA, plain.INS, plain.P1, plain.P2}
	if n := len(plain.Data); plain.Extended {
		out = append(out, 0, byte(n>>8), byte(n))
	} else {
		out = append(out, byte(n))
	}
	out = append(out, plain.Data...)
	vm.store(a[1], int(int16(a[2])), out)
	return slot(len(out))
}

// secureMessaging reports whether a class byte says that there is some
// (ISO/IEC 7816-4, 5.1.1).
func secureMessaging(class byte) bool {
	if class&0x40 != 0 {
		return class&0x20 != 0
	}
	return class&0x0C != 0
}

// secureWrap protects a response that ends with its status word, which it
// takes off.
func secureWrap(vm *VM, a []slot) slot {
	b := bytes.Clone(vm.bytes(a[1], a[2], a[3]))
	s := vm.secureChannel()
	if s.Aborted() {
		vm.throwISO(uint16(iso7816.ErrConditions))
	}
	n := len(b) - 2
	if n < 0 {
		vm.throwISO(uint16(iso7816.ErrWrongLength))
	}
	r := s.Wrap(iso7816.Response{Data: b[:n], SW: iso7816.SW(b[n])<<8 | iso7816.SW(b[n+1])})
	vm.store(a[1], int(int16(a[2])), r.Data)
	return slot(len(r.Data))
}

// sensitive encrypts or decrypts in place.
func (vm *VM) sensitive(a []slot, crypt func([]byte) ([]byte, error)) slot {
	p := bytes.Clone(vm.bytes(a[1], a[2], a[3]))
	if vm.secureChannel().Level() == 0 {
		vm.throwISO(uint16(iso7816.ErrConditions))
	}
	out, err := crypt(p)
	switch {
	case errors.Is(err, scp.ErrSensitiveLength):
		vm.throwISO(uint16(iso7816.ErrWrongLength))
	case err != nil:
		vm.throwISO(uint16(iso7816.ErrConditions))
	}
	vm.store(a[1], int(int16(a[2])), out)
	return slot(len(out))
}
