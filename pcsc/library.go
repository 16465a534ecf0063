package pcsc

import (
	"runtime"
	"time"
)

// library is the PC/SC library as the rest of the package uses it. Its calls
// block as long as the library likes; every error that PC/SC gave is a [Code].
type library interface {
	establish() (session, error)
}

// session is one context of the library. Each goroutine that waits has its
// own, because pcsc-lite locks a context for the length of a call.
type session interface {
	// readers lists the names of the devices; none is no error.
	readers() ([]string, error)
	// wait returns when one of the states differs from what it is said to be,
	// with the states brought up to date, or with CodeTimeout.
	wait(states []slotState, timeout time.Duration) error
	connect(slot string, exclusive bool) (handle, error)
	release() error
}

// handle is a connection to a card.
type handle interface {
	atr() ([]byte, error)
	transmit(command []byte) ([]byte, error)
	begin() error
	end() error
	// reconnect takes the card up again after a reset, or resets it.
	reconnect(exclusive, reset bool) error
	disconnect(reset bool) error
}

// stateFlags are the SCARD_STATE_ flags of a slot. The upper half counts
// insertions and removals where the service does so.
type stateFlags uint32

const (
	stateUnaware     stateFlags = 0x0000
	stateIgnore      stateFlags = 0x0001
	stateChanged     stateFlags = 0x0002
	stateUnknown     stateFlags = 0x0004
	stateUnavailable stateFlags = 0x0008
	stateEmpty       stateFlags = 0x0010
	statePresent     stateFlags = 0x0020
	stateExclusive   stateFlags = 0x0080
	stateInUse       stateFlags = 0x0100
	stateMute        stateFlags = 0x0200
)

// slotState is a slot as the library last described it.
type slotState struct {
	name  string
	flags stateFlags
	atr   []byte
}

func (s slotState) has(f stateFlags) bool { return s.flags&f != 0 }

// count is the number of insertions and removals so far, modulo 65,536, or 0
// where the service doesn't count.
func (s slotState) count() uint32 { return uint32(s.flags >> 16) }

// cardATR gives the answer to reset of the card that is there now.
func (s slotState) cardATR() []byte {
	if !s.has(statePresent) || len(s.atr) == 0 {
		return nil
	}
	return append([]byte(nil), s.atr...)
}

// pnpReader is the name under which the service announces devices.
const pnpReader = `\\?PnP?\Notification`

// platform is what PC/SC services differ in.
type platform struct {
	// pnp: a wait on pnpReader ends when a device comes or goes.
	pnp bool
	// maxStates is the number of slots that one wait takes, pnpReader included.
	maxStates int
	// blocking: a wait may last. Otherwise the states are asked for at once
	// and the program waits by itself.
	blocking bool
	// stopsWhenIdle: the service ends when the last device goes, and that it
	// is not there means no more than that there is no device.
	stopsWhenIdle bool
	// socket is where clients find the service, if it has one in the file system.
	socket string
}

func platformOf(goos string) platform {
	switch goos {
	case "windows":
		// The binding does not keep the names of the devices alive during the
		// call, so the call is kept as short as it can be.
		return platform{maxStates: 10, stopsWhenIdle: true}
	case "darwin":
		return platform{maxStates: 16, blocking: true}
	}
	return platform{pnp: true, maxStates: 16, blocking: true, socket: "/run/pcscd/pcscd.comm"}
}

func thisPlatform() platform { return platformOf(runtime.GOOS) }
