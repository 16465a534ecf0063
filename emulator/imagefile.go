package emulator

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/freearea/freearea/internal/durable"
)

// imageFile is an image file that this process alone has open.
type imageFile struct {
	path  string
	files files
	lock  io.Closer
	saved [sha256.Size]byte // digest of what the file holds
}

// files is what saving an image asks of the file system.
type files interface {
	// Remove removes a file; it is no error if there is none.
	Remove(path string) error
	// Create makes a new file with mode 0600.
	Create(path string) (file, error)
	// Rename puts a file in the place of another.
	Rename(from, to string) error
	// SyncDirectory makes renames in a directory survive a crash.
	SyncDirectory(path string) error
}

type file interface {
	io.WriteCloser
	Sync() error
}

// lockImage locks the image file of the path. The lock lies on a file beside
// it, which stays there: the image itself is replaced whenever it is saved, and
// a lock file that is removed can be locked twice.
func lockImage(path string) (*imageFile, error) {
	lock, err := durable.Lock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		err = ErrImageLocked
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &imageFile{path: path, files: disk{}, lock: lock}, nil
}

func (f *imageFile) close() error { return f.lock.Close() }

// load reads the state.
func (f *imageFile) load() (*state, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("card image: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxImage+1))
	if err != nil {
		return nil, fmt.Errorf("card image: %w", err)
	}
	if len(b) > maxImage {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", f.path, ErrNotImage, maxImage)
	}
	s, err := decodeImage(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	f.saved = sha256.Sum256(b)
	return s, nil
}

// save writes the state, unless the file holds it already. A crash at any
// point leaves the file as it was or as it is to be: the new bytes go to a
// file beside it, are on the disk before that one takes the place of the old,
// and the directory is on the disk before save returns.
func (f *imageFile) save(s *state) error {
	b := encodeImage(s)
	sum := sha256.Sum256(b)
	if sum == f.saved {
		return nil
	}
	if err := replace(f.files, f.path, b); err != nil {
		return err
	}
	f.saved = sum
	return nil
}

// replace writes a whole file in one step.
func replace(fs files, path string, content []byte) error {
	temporary := path + ".new" // one is enough: who saves has the lock
	if err := fs.Remove(temporary); err != nil {
		return err
	}
	w, err := fs.Create(temporary)
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	if err == nil {
		// Before the rename: otherwise the name may reach the disk and the
		// bytes may not.
		err = w.Sync()
	}
	err = errors.Join(err, w.Close())
	if err == nil {
		err = fs.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, fs.Remove(temporary))
	}
	return fs.SyncDirectory(filepath.Dir(path))
}

// disk is the operating system's file system.
type disk struct{}

func (disk) Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (disk) Create(path string) (file, error) {
	// O_EXCL: never through a link that somebody put there.
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (disk) Rename(from, to string) error { return os.Rename(from, to) }

func (disk) SyncDirectory(path string) error { return durable.SyncDirectory(path) }
