// Package durable holds what files that must not be lost ask of the operating
// system beyond package os: a lock between processes, and directories whose
// changes survive a crash.
package durable

import (
	"errors"
	"io"
	"os"
)

// ErrLocked: another process, or this one, holds the lock.
var ErrLocked = errors.New("locked")

// Lock locks the file of the path, which it makes if there is none, against
// every other process and against this one. It does not wait: the error is
// [ErrLocked] where the lock is taken. Closing gives it back, and so does the
// system when the process ends in whatever way. The file stays: one that is
// removed can be locked twice.
//
// Lock a file beside the one that is meant where that one is replaced while
// the lock is held.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := TryLock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
