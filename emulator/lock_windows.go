package emulator

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile locks a file against every other process, and against this one. The
// system gives it back when the process ends in whatever way.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	if err != nil {
		f.Close()
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
			err = ErrImageLocked
		}
		return nil, err
	}
	return f, nil
}

// syncDirectory does nothing: Windows has no such call, and writes the change
// of a name through its journal.
func syncDirectory(string) error { return nil }
