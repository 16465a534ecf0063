package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// TryLock is [Lock] for a file that is open already.
func TryLock(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) || errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		return ErrLocked
	}
	return err
}

// SyncDirectory does nothing: Windows has no such call, and writes the change
// of a name through its journal.
func SyncDirectory(string) error { return nil }
