package readerd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/freearea/freearea/internal/durable"
)

// spool is a queue on disk. What has been put is there until it is removed,
// whatever becomes of the process or of the machine's power. Each entry is a
// file whose name is its number; the lowest is the oldest.
type spool struct {
	dir   string
	limit int
	lock  io.Closer
	grown chan struct{} // holds one while there may be something new

	mu      sync.Mutex
	waiting []uint64 // oldest first
	next    uint64
}

const (
	spoolEntry = "%020d.json"
	spoolLock  = "lock"
)

// openSpool opens the queue of a directory, which it makes if there is none,
// for its owner alone. Another one that has it open is an error.
func openSpool(dir string, limit int) (_ *spool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	if err := durable.SyncDirectory(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	lock, err := durable.Lock(filepath.Join(dir, spoolLock))
	if err != nil {
		return nil, fmt.Errorf("queue %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	s := &spool{dir: dir, limit: limit, lock: lock, grown: make(chan struct{}, 1)}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		var n uint64
		_, err := fmt.Sscanf(f.Name(), spoolEntry, &n)
		switch {
		case err == nil && f.Name() == fmt.Sprintf(spoolEntry, n):
			s.waiting = append(s.waiting, n)
		case strings.HasSuffix(f.Name(), ".new"): // was being written when the service was killed
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(s.waiting)
	if len(s.waiting) > 0 {
		s.next = s.waiting[len(s.waiting)-1] + 1
	}
	return s, nil
}

// Close gives the directory to the next one who opens it.
func (s *spool) Close() error { return s.lock.Close() }

func (s *spool) path(n uint64) string { return filepath.Join(s.dir, fmt.Sprintf(spoolEntry, n)) }

// put adds an entry. Where that makes too many, the oldest are removed; dropped
// is how many.
func (s *spool) put(data []byte) (dropped int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := durable.Replace(s.path(s.next), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}); err != nil {
		return 0, err
	}
	s.waiting = append(s.waiting, s.next)
	s.next++
	for ; len(s.waiting) > s.limit; dropped++ {
		if err := s.removeOldest(); err != nil {
			return dropped, err
		}
	}
	select {
	case s.grown <- struct{}{}:
	default:
	}
	return dropped, nil
}

// oldest returns the entry that has waited longest; ok is false where none
// waits. One whose file somebody has taken away is empty.
func (s *spool) oldest() (n uint64, data []byte, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return 0, nil, false, nil
	}
	n = s.waiting[0]
	if data, err = os.ReadFile(s.path(n)); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return n, data, true, err
}

// remove takes the oldest entry away if it is this one still: put may have
// dropped it meanwhile, and then was is false.
func (s *spool) remove(n uint64) (was bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 || s.waiting[0] != n {
		return false, nil
	}
	return true, s.removeOldest()
}

func (s *spool) removeOldest() error {
	err := os.Remove(s.path(s.waiting[0]))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.waiting = s.waiting[1:]
	return nil
}
