//go:build !unix

package file

import (
	"io/fs"
	"os"
)

// hasModes: an access list decides who reads the file, not a mode.
const hasModes = false

// lockReaders: renaming over a file that is being read may fail.
const lockReaders = true

func keepOwner(*os.File, fs.FileInfo) error { return nil }
