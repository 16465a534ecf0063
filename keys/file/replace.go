package file

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/freearea/freearea/internal/durable"
)

// readFile reads a keystore, if only its owner can.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: no regular file", path, ErrNotKeystore)
	}
	if hasModes && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w: mode %04o, 0600 expected", path, ErrPermissions, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, nil
}

// replaceFile puts data in the place of path, so that a crash at any point
// leaves the old file or the new one. step is called before each system call
// that matters, and stops there if it fails.
func replaceFile(path string, data []byte, step func(string) error) (err error) {
	if step == nil {
		step = func(string) error { return nil }
	}
	old, err := os.Stat(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := step("create"); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if old != nil {
		// An administrator's change must not take the file from its user.
		if err := keepOwner(tmp, old); err != nil {
			return err
		}
	}
	if err := step("write"); err != nil {
		return err
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := step("sync"); err != nil {
		return err
	}
	// Without this the rename may reach the disk before the bytes.
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := step("rename"); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	if err := step("sync directory"); err != nil {
		return err
	}
	return durable.SyncDirectory(dir)
}

// resolve follows symbolic links, so that the file that they name is replaced
// and not the link.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return true, nil
	case os.IsNotExist(err):
		return false, nil
	}
	return false, err
}
