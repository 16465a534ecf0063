package crash

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Disk is what is left of a site's directory when the power goes: files as
// they were when they were last synced, under the names that the directory had
// when it was last synced itself, or under those that it has now. Cards are no files of the PC's: they keep what was written.
type Disk struct {
	dir   string
	files map[identity][]byte // synced content
	names map[string]identity // synced directory
	// later counts the files that had an inode after another one.
	later map[uint64]int
	fresh map[int]bool // calls under way that make a new file
}

// identity is one file, whatever its name.
type identity struct {
	inode uint64
	n     int // inodes are used again
}

// NewDisk takes all that is in the directory for synced.
func NewDisk(dir string) (*Disk, error) {
	d := &Disk{dir: dir, files: map[identity][]byte{}, later: map[uint64]int{}, fresh: map[int]bool{}}
	if err := d.syncNames(); err != nil {
		return nil, err
	}
	for name, file := range d.names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		d.files[file] = data
	}
	return d, nil
}

// Before follows a call of a traced process.
func (d *Disk) Before(c Call) error {
	if _, err := os.Lstat(c.Path); c.Name == "create" && errors.Is(err, fs.ErrNotExist) {
		d.fresh[c.N] = true
	}
	return nil
}

// After follows a call of a traced process.
func (d *Disk) After(c Call) error {
	if c.Failed {
		return nil
	}
	if d.fresh[c.N] {
		info, err := os.Stat(c.Path)
		if err == nil {
			d.later[inode(info)]++
		}
		return err
	}
	if c.Name != "fsync" && c.Name != "fdatasync" {
		return nil
	}
	if c.Path == d.dir {
		return d.syncNames()
	}
	data, err := os.ReadFile(c.descriptor) // also of a file that has lost its name
	if err != nil {
		return err
	}
	info, err := os.Stat(c.descriptor)
	if err != nil {
		return err
	}
	d.files[d.identity(info)] = data
	return nil
}

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func (d *Disk) identity(info fs.FileInfo) identity {
	i := inode(info)
	return identity{i, d.later[i]}
}

func (d *Disk) syncNames() (err error) {
	d.names, err = d.list()
	return err
}

// list is the directory as it is now.
func (d *Disk) list() (map[string]identity, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	names := map[string]identity{}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // another thread goes on
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			names[e.Name()] = d.identity(info)
		}
	}
	return names, nil
}

// State is what is left: contents by name. A file system may have written
// names that nobody synced; with latest it has written all of them, and still
// no content.
func (d *Disk) State(latest bool) (_ map[string][]byte, err error) {
	names := d.names
	if latest {
		if names, err = d.list(); err != nil {
			return nil, err
		}
	}
	out := map[string][]byte{}
	for name, file := range names {
		out[name] = d.files[file]
	}
	cards, err := filepath.Glob(filepath.Join(d.dir, "card-*.img"))
	if err != nil {
		return nil, err
	}
	for _, path := range cards {
		if out[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return out, nil
}
