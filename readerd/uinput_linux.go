package readerd

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of linux/uinput.h, as x86, ARM and RISC-V number them.
const (
	uiDevCreate = 0x5501
	uiDevSetup  = 0x405c5503
	uiSetEvBit  = 0x40045564
	uiSetKeyBit = 0x40045565
)

// uinputSetup is struct uinput_setup.
type uinputSetup struct {
	busType, vendor, product, version uint16
	name                              [80]byte
	forceFeedback                     uint32
}

const busVirtual = 0x06

// keyboardName is what the system calls the keyboard.
const keyboardName = "freearea card reader"

// openUinput makes a keyboard that has just the keys given. Closing takes it
// away, and with it any key that is down.
func openUinput(path string, keys []uint16) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("keyboard: %w (kernel module uinput, and the right to write to its device)", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fd := int(f.Fd())
	set := func(what string, request uint, value int) {
		if err != nil {
			return
		}
		if e := unix.IoctlSetInt(fd, request, value); e != nil {
			err = fmt.Errorf("keyboard %s: %s: %w", path, what, e)
		}
	}
	set("UI_SET_EVBIT", uiSetEvBit, evKey)
	for _, code := range keys {
		set("UI_SET_KEYBIT", uiSetKeyBit, int(code))
	}
	if err != nil {
		return nil, err
	}
	setup := uinputSetup{busType: busVirtual, version: 1}
	copy(setup.name[:], keyboardName)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uiDevSetup, uintptr(unsafe.Pointer(&setup))); e != 0 {
		return nil, fmt.Errorf("keyboard %s: UI_DEV_SETUP: %w", path, e)
	}
	set("UI_DEV_CREATE", uiDevCreate, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}
