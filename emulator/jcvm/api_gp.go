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
	"org/globalplatform/GPSystem.<init>()V":       nothing,
	"org/globalplatform/GPSystem.getCardState()B": func(*VM, []slot) slot { return 0x0F }, // SECURED
	"org/globalplatform/GPSystem.getCardContentState()B": func(vm *VM, _ []slot) slot {
		if i := vm.instances[vm.owner]; i != nil && i.card != nil {
			return slot(i.card.LifeCycle())
		}
		return 0
	},
	"org/globalplatform/GPSystem.setCardContentState(B)Z": func(vm *VM, a []slot) slot {
		i := vm.instances[vm.owner]
		return boolean(i != nil && i.card != nil && i.card.SetLifeCycle(byte(a[0])) == nil)
	},
	"org/globalplatform/GPSystem.getSecureChannel()Lorg/globalplatform/SecureChannel;": func(*VM, []slot) slot {
		return refSecureChannel.slot()
	},
	"org/globalplatform/GPSystem.getRegistryEntry(Ljavacard/framework/AID;)Lorg/globalplatform/GPRegistryEntry;": func(vm *VM, a []slot) slot {
		if o := vm.object(a[0]); o != nil && vm.lookup(vm.aidBytes(o)) != vm.instances[vm.owner] {
			return null // what others are is not the application's business
		}
		return refRegistryEntry.slot()
	},
	"org/globalplatform/GPSystem.getCVM(B)Lorg/globalplatform/CVM;": func(*VM, []slot) slot { return null },
	"org/globalplatform/GPSystem.getService(Ljavacard/framework/AID;S)Lorg/globalplatform/GlobalService;": func(*VM, []slot) slot {
		return null
	},
	"org/globalplatform/GPSystem.lockCard()Z":            func(*VM, []slot) slot { return 0 },
	"org/globalplatform/GPSystem.terminateCard()Z":       func(*VM, []slot) slot { return 0 },
	"org/globalplatform/GPSystem.setATRHistBytes([BSB)Z": func(*VM, []slot) slot { return 0 },

	"org/globalplatform/GPRegistryEntry.getAID()Ljavacard/framework/AID;": func(vm *VM, _ []slot) slot { return vm.aidOf(vm.owner) },
	"org/globalplatform/GPRegistryEntry.getState()B": func(vm *VM, _ []slot) slot {
		if i := vm.instances[vm.owner]; i != nil && i.card != nil {
			return slot(i.card.LifeCycle())
		}
		return 0
	},
	"org/globalplatform/GPRegistryEntry.setState(B)Z": func(vm *VM, a []slot) slot {
		i := vm.instances[vm.owner]
		return boolean(i != nil && i.card != nil && i.card.SetLifeCycle(byte(a[1])) == nil)
	},
	"org/globalplatform/GPRegistryEntry.isPrivileged(B)Z": func(*VM, []slot) slot { return 0 },
	"org/globalplatform/GPRegistryEntry.getPrivileges([BS)S": func(vm *VM, a []slot) slot {
		vm.store(a[1], int(int16(a[2])), make([]byte, 3))
		return slot(uint16(a[2] + 3))
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
	if !secureMessaging(class) || s.Level()&0x7F == 0 {
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
