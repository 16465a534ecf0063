package ledger_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freearea/freearea/ledger"
)

// TestBackupToFullDisk copies to a disk that is too small.
func TestBackupToFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a small disk takes root: %v", err)
	}
	defer func() { must(t, syscall.Unmount(disk, syscall.MNT_DETACH)) }()
	l := fresh(t)
	var many []ledger.Data // more than SQLite holds in memory
	for i := range 150 {
		c := consent(fmt.Sprint("c", i), "library")
		c.Signed = make([]byte, 32<<10)
		many = append(many, c)
	}
	add(t, l, many...)
	if _, err := l.Backup(t.Context(), filepath.Join(disk, "copy")); !errors.Is(err, ledger.ErrBackupFull) || !strings.Contains(err.Error(), disk) {
		t.Errorf("got %v", err)
	}
	left, err := os.ReadDir(disk)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	must(t, l.Check(t.Context()))
}
