package jcvm

import (
	"bytes"

	"github.com/freearea/freearea/iso7816"
)

// nativesGP implements org.globalplatform: GPSystem, and SecureChannel as far
// as an application being personalised through its Security Domain needs it.
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
		if vm.channel == nil {
			return 0
		}
		return short(int16(int8(vm.channel.Level())))
	},
	"org/globalplatform/SecureChannel.resetSecurity()V": nothing,
	"org/globalplatform/SecureChannel.processSecurity(Ljavacard/framework/APDU;)S": func(vm *VM, _ []slot) slot {
		vm.throwISO(uint16(iso7816.ErrConditions)) // only the Security Domain opens channels on this card
		return 0
	},
	// The commands of a channel reach the application without their secure
	// messaging: there is nothing to take off.
	"org/globalplatform/SecureChannel.unwrap([BSS)S": func(vm *VM, a []slot) slot {
		vm.bytes(a[1], a[2], a[3])
		return a[3]
	},
	"org/globalplatform/SecureChannel.wrap([BSS)S": func(vm *VM, a []slot) slot {
		vm.bytes(a[1], a[2], a[3])
		return a[3]
	},
	"org/globalplatform/SecureChannel.decryptData([BSS)S": func(vm *VM, a []slot) slot {
		p := bytes.Clone(vm.bytes(a[1], a[2], a[3]))
		if vm.channel == nil || vm.channel.Level() == 0 {
			vm.throwISO(uint16(iso7816.ErrConditions))
		}
		out, err := vm.channel.DecryptSensitive(p)
		if err != nil {
			vm.throwISO(uint16(iso7816.ErrConditions))
		}
		vm.store(a[1], int(int16(a[2])), out)
		return slot(len(out))
	},
}
