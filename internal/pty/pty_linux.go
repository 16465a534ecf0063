package pty

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Open opens a pseudo-terminal: its control side, which takes deadlines and
// which the end of the test closes, and the name of the line that looks like a
// terminal.
func Open(t testing.TB) (control *os.File, line string) {
	t.Helper()
	return open(t, func(int) error { return nil })
}

// OpenRaw opens one that looks like a serial line of bytes before anybody opens
// it: a new pseudo-terminal waits for lines of text, and echoes them.
func OpenRaw(t testing.TB) (control *os.File, line string) {
	t.Helper()
	return open(t, func(fd int) error {
		settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		settings.Iflag, settings.Oflag, settings.Lflag = 0, 0, 0
		settings.Cc[unix.VMIN], settings.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, settings)
	})
}

func open(t testing.TB, prepare func(fd int) error) (*os.File, string) {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	raw, err := control.SyscallConn() // Fd would end the deadlines
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = prepare(int(fd)); failed == nil {
			failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
		if failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return control, fmt.Sprintf("/dev/pts/%d", n)
}
