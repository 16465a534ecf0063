package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/freearea/freearea/internal/durable"
)

// lockFile waits for the lock that belongs to a keystore and returns what
// gives it back. The lock is on a file of its own, because the keystore itself
// is replaced while it is held; the system gives it back when the process ends.
// Nobody waits for a person while holding it.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil {
		if err := keepOwner(f, info); err != nil {
			f.Close()
			return nil, err
		}
	}
	for {
		err := durable.TryLock(f)
		if err == nil {
			return func() { f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, durable.ErrLocked) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for another process that writes the keystore (%s): %w", name, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
