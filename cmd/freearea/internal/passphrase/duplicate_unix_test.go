//go:build unix

package passphrase

import (
	"os"
	"syscall"
	"testing"
)

func duplicate(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
