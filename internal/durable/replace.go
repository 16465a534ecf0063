package durable

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Replace puts what write writes in the place of the file of the path, mode
// 0600: whatever happens, the path names the old file or the whole new one. A
// file that is open, or mapped into memory, stays as it is to those who have it.
func Replace(path string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync() // or the name may reach the disk before the bytes
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDirectory(dir)
}
