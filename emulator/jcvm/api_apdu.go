package jcvm

import (
	"bytes"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// Reasons of APDUException.
const (
	apduIllegalUse   = 1
	apduBufferBounds = 2
	apduBadLength    = 3
)

// States of an APDU (javacard.framework.APDU.STATE_…).
const (
	apduInitial        = 0
	apduPartialIn      = 1
	apduFullIn         = 2
	apduOutgoing       = 3
	apduOutgoingLength = 4
	apduPartialOut     = 5
	apduFullOut        = 6
)

// apdu is the command that runs, as the class APDU shows it.
type apdu struct {
	active    bool
	selecting bool
	unchained bool // setOutgoingNoChaining
	done      bool // setOutgoingAndSend
	state     int
	channel   int
	cmd       iso7816.Command // with the logical channel in its class
	extended  bool            // the applet says that it knows extended length
	received  int             // bytes of data that were handed over
	length    int             // of the response, as declared
	out       []byte
}

// begin starts a command: its header is in the buffer, and nothing else.
func (a *apdu) begin(cmd iso7816.Command, channel int, extended bool, buffer []byte) {
	if class, err := globalplatform.ChannelClass(cmd.CLA, byte(channel)); err == nil {
		cmd.CLA = class
	}
	*a = apdu{active: true, channel: channel, cmd: cmd, extended: extended}
	clear(buffer)
	copy(buffer, []byte{cmd.CLA, cmd.INS, cmd.P1, cmd.P2})
	switch n := len(cmd.Data); {
	case cmd.Extended:
		buffer[5], buffer[6] = byte(n>>8), byte(n)
	case n > 0:
		buffer[4] = byte(n)
	default:
		buffer[4] = byte(cmd.Ne)
	}
}

// offset is where the data of the command begins in the buffer.
func (a *apdu) offset() int {
	if a.cmd.Extended {
		return 7
	}
	return 5
}

// Sizes of a block with T=1, and what T=0 has in their place: a byte, and a
// response with its status word.
const (
	block      = 254
	outBlockT0 = 258
)

func (vm *VM) outBlock() int {
	if vm.sys.Protocol() == 0 {
		return outBlockT0
	}
	return block
}

// nativesAPDU implements javacard.framework.APDU.
var nativesAPDU = map[string]native{
	"javacard/framework/APDU.getBuffer()[B": func(vm *VM, _ []slot) slot { return refBuffer.slot() },
	"javacard/framework/APDU.getCurrentAPDU()Ljavacard/framework/APDU;": func(vm *VM, _ []slot) slot {
		vm.currentAPDU()
		return refAPDU.slot()
	},
	"javacard/framework/APDU.getCurrentAPDUBuffer()[B": func(vm *VM, _ []slot) slot {
		vm.currentAPDU()
		return refBuffer.slot()
	},
	"javacard/framework/APDU.getInBlockSize()S": func(vm *VM, _ []slot) slot {
		if vm.sys.Protocol() == 0 {
			return 1
		}
		return block
	},
	"javacard/framework/APDU.getOutBlockSize()S": func(vm *VM, _ []slot) slot { return slot(vm.outBlock()) },
	"javacard/framework/APDU.getProtocol()B": func(vm *VM, _ []slot) slot {
		if vm.sys.Contactless() {
			return short(-0x80 | 1) // T=CL, type A
		}
		return slot(vm.sys.Protocol())
	},
	"javacard/framework/APDU.getNAD()B":        func(*VM, []slot) slot { return 0 },
	"javacard/framework/APDU.waitExtension()V": func(vm *VM, _ []slot) slot { vm.apduState(!vm.apdu.unchained); return 0 },
	"javacard/framework/APDU.getCLAChannel()B": func(vm *VM, _ []slot) slot {
		vm.currentAPDU()
		return slot(vm.apdu.channel)
	},
	"javacard/framework/APDU.isCommandChainingCLA()Z":  func(vm *VM, _ []slot) slot { return boolean(chained(vm.apdu.cmd.CLA)) },
	"javacard/framework/APDU.isISOInterindustryCLA()Z": func(vm *VM, _ []slot) slot { return boolean(interindustry(vm.apdu.cmd.CLA)) },
	"javacard/framework/APDU.isValidCLA()Z":            func(vm *VM, _ []slot) slot { return boolean(validClass(vm.apdu.cmd.CLA)) },
	"javacard/framework/APDU.isSecureMessagingCLA()Z": func(vm *VM, _ []slot) slot {
		return boolean(secureMessaging(vm.apdu.cmd.CLA))
	},
	"javacard/framework/APDU.getCurrentState()B": func(vm *VM, _ []slot) slot { return slot(vm.apdu.state) },
	"javacard/framework/APDU.getIncomingLength()S": func(vm *VM, _ []slot) slot {
		vm.apduState(vm.apdu.state == apduPartialIn || vm.apdu.state == apduFullIn)
		return slot(len(vm.apdu.cmd.Data))
	},
	"javacard/framework/APDU.getOffsetCdata()S": func(vm *VM, _ []slot) slot {
		vm.apduState(vm.apdu.state == apduPartialIn || vm.apdu.state == apduFullIn)
		return slot(vm.apdu.offset())
	},
	"javacard/framework/APDU.setIncomingAndReceive()S": func(vm *VM, _ []slot) slot {
		vm.apduState(vm.apdu.state == apduInitial)
		if len(vm.apdu.cmd.Data) == 0 && vm.options.Quirks.EmptyIncoming {
			vm.apduState(false)
		}
		return vm.receive(vm.apdu.offset())
	},
	"javacard/framework/APDU.receiveBytes(S)S": func(vm *VM, a []slot) slot {
		vm.apduState(vm.apdu.state == apduPartialIn || vm.apdu.state == apduFullIn)
		at := int(int16(a[1]))
		if left := min(block, len(vm.apdu.cmd.Data)-vm.apdu.received); at < 0 || left > 0 && at+1 > vm.objs[refBuffer].length {
			vm.throwReason("javacard/framework/APDUException", apduBufferBounds)
		}
		return vm.receive(at)
	},
	"javacard/framework/APDU.setOutgoing()S": func(vm *VM, _ []slot) slot { return vm.setOutgoing() },
	"javacard/framework/APDU.setOutgoingNoChaining()S": func(vm *VM, _ []slot) slot {
		n := vm.setOutgoing()
		vm.apdu.unchained = true
		return n
	},
	"javacard/framework/APDU.setOutgoingLength(S)V": func(vm *VM, a []slot) slot {
		vm.setOutgoingLength(int(int16(a[1])))
		return 0
	},
	"javacard/framework/APDU.sendBytes(SS)V": func(vm *VM, a []slot) slot {
		vm.sendBytes(vm.objs[refBuffer], a[1], a[2])
		return 0
	},
	"javacard/framework/APDU.sendBytesLong([BSS)V": func(vm *VM, a []slot) slot {
		vm.sendBytes(vm.array(a[1], kindByte), a[2], a[3])
		return 0
	},
	"javacard/framework/APDU.setOutgoingAndSend(SS)V": func(vm *VM, a []slot) slot {
		vm.setOutgoing()
		vm.setOutgoingLength(int(int16(a[2])))
		vm.sendBytes(vm.objs[refBuffer], a[1], a[2])
		vm.apdu.done = true
		return 0
	},
}

// nativesAPDUUtil implements javacardx.apdu.util: what a class byte says.
var nativesAPDUUtil = map[string]native{
	"javacardx/apdu/util/APDUUtil.getCLAChannel(B)B": func(_ *VM, a []slot) slot {
		n, _ := globalplatform.ClassChannel(byte(a[0]))
		return slot(n)
	},
	"javacardx/apdu/util/APDUUtil.isSecureMessagingCLA(B)Z":  func(_ *VM, a []slot) slot { return boolean(secureMessaging(byte(a[0]))) },
	"javacardx/apdu/util/APDUUtil.isCommandChainingCLA(B)Z":  func(_ *VM, a []slot) slot { return boolean(chained(byte(a[0]))) },
	"javacardx/apdu/util/APDUUtil.isISOInterindustryCLA(B)Z": func(_ *VM, a []slot) slot { return boolean(interindustry(byte(a[0]))) },
	"javacardx/apdu/util/APDUUtil.isValidCLA(B)Z":            func(_ *VM, a []slot) slot { return boolean(validClass(byte(a[0]))) },
}

// What a class byte says (ISO/IEC 7816-4, 5.1.1).
func chained(class byte) bool       { return class&0x90 == 0x10 }
func interindustry(class byte) bool { return class&0x80 == 0 }
func validClass(class byte) bool    { return class != 0xFF && class>>5 != 1 }

// currentAPDU throws outside of process (JCRE 9.3).
func (vm *VM) currentAPDU() {
	if !vm.apdu.active || vm.current == nil || vm.group != vm.current.group() {
		vm.throw("java/lang/SecurityException")
	}
}

func (vm *VM) apduState(ok bool) {
	if !ok {
		vm.throwReason("javacard/framework/APDUException", apduIllegalUse)
	}
}

// receive hands over what fits of the rest of the data.
func (vm *VM) receive(at int) slot {
	a := &vm.apdu
	n := copy(vm.objs[refBuffer].data[at:], a.cmd.Data[a.received:])
	a.received += n
	a.state = apduPartialIn
	if a.received == len(a.cmd.Data) {
		a.state = apduFullIn
	}
	return slot(n)
}

// setOutgoing returns how much the host expects. With T=0 nobody knows that of
// a command with data: 256 is what GET RESPONSE can ask for (JCRE 9.4.1).
func (vm *VM) setOutgoing() slot {
	a := &vm.apdu
	vm.apduState(a.active && a.state < apduOutgoing)
	a.state = apduOutgoing
	switch {
	case len(a.cmd.Data) > 0 && vm.sys.Protocol() == 0:
		return 256
	case a.cmd.Ne > 0x7FFF:
		return 0x7FFF
	case a.cmd.Ne > 0:
		return slot(a.cmd.Ne)
	case vm.options.Quirks.NoLeIsZero:
		return 0
	}
	return 256
}

func (vm *VM) setOutgoingLength(n int) {
	a := &vm.apdu
	vm.apduState(a.state == apduOutgoing)
	limit := 256
	if a.extended {
		limit = 0x7FFF // whatever the command expects: the rest is fetched
	}
	if a.unchained && vm.options.Quirks.UnchainedBlock {
		limit = vm.outBlock() - 2 // the status word is in the block too
	}
	if n < 0 || n > limit {
		vm.throwReason("javacard/framework/APDUException", apduBadLength)
	}
	a.length, a.state = n, apduOutgoingLength
	if n == 0 {
		a.state = apduFullOut
	}
}

// sendBytes sends a part of the response.
func (vm *VM) sendBytes(o *object, offset, length slot) {
	a := &vm.apdu
	from, n := int(int16(offset)), int(int16(length))
	vm.apduState(!a.done)
	vm.apduState(a.state == apduOutgoingLength || a.state == apduPartialOut || a.state == apduFullOut && n == 0)
	if from < 0 || n < 0 || from+n > o.length {
		vm.throwReason("javacard/framework/APDUException", apduBufferBounds)
	}
	vm.apduState(len(a.out)+n <= a.length)
	a.out = append(a.out, bytes.Clone(o.data[from:from+n])...)
	a.state = apduPartialOut
	if len(a.out) == a.length {
		a.state = apduFullOut
	}
}
