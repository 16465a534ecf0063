//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package durable

import (
	"errors"
	"os"
)

// TryLock is [Lock] for a file that is open already. Without a lock something
// could be lost, so nothing is written here.
func TryLock(*os.File) error { return errors.ErrUnsupported }

// SyncDirectory does nothing: directories can't be flushed here.
func SyncDirectory(string) error { return nil }
