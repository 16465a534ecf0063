//go:build unix

package file

import (
	"io/fs"
	"os"
	"syscall"
)

// hasModes says that file modes keep other users out.
const hasModes = true

// lockReaders: a file can be renamed over one that is being read.
const lockReaders = false

// keepOwner gives a new file to the owner of the old one.
func keepOwner(f *os.File, old fs.FileInfo) error {
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
