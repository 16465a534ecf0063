package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrBackupFull: the copy found no room. The ledger is as it was.
var ErrBackupFull = errors.New("no room left on the disk of the copy")

// Backup writes a copy of the ledger as it is now to a new file, while others
// use it, and verifies the copy before it gets its name. There is a whole copy
// under the name or none. It does not overwrite: the error then wraps
// fs.ErrExist. Where the process is killed, a file stays whose name goes on
// with ".new-": it holds what the ledger holds.
func (l *Ledger) Backup(ctx context.Context, path string) (Verified, error) {
	if _, err := os.Lstat(path); err == nil {
		return Verified{}, fmt.Errorf("backup: %w", &os.PathError{Op: "create", Path: path, Err: os.ErrExist})
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return Verified{}, fmt.Errorf("backup: %w", err)
	}
	for _, name := range []string{f.Name(), f.Name() + "-journal"} { // SQLite leaves the second where the disk is full
		defer os.Remove(name)
	}
	defer f.Close()
	// SQLite writes into an empty file.
	if err := l.patiently(ctx, func() error {
		_, err := l.db.ExecContext(ctx, "VACUUM INTO ?", f.Name())
		return err
	}); err != nil {
		if err = l.fail(err); errors.Is(err, ErrFull) {
			err = ErrBackupFull
		}
		return Verified{}, fmt.Errorf("backup %s: %w", path, err)
	}
	found, err := verifyFile(ctx, f.Name(), Options{ReadOnly: true, Known: l.known})
	if err != nil {
		return Verified{}, fmt.Errorf("backup: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return Verified{}, fmt.Errorf("backup: %w", err)
	}
	if err := place(f.Name(), path); err != nil {
		return Verified{}, fmt.Errorf("backup: %w", err)
	}
	return found, nil
}

func verifyFile(ctx context.Context, path string, o Options) (Verified, error) {
	l, err := Open(ctx, path, o)
	if err != nil {
		return Verified{}, err
	}
	found, err := l.Verify(ctx, VerifyOptions{})
	return found, errors.Join(err, l.Close())
}
