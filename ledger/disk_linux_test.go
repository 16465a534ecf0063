package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freearea/freearea/ledger"
)

// smallDisk is the directory of a disk with so much room, as mount has it.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small disk takes root: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// TestEraseOnFullDisk leaves no room to rewrite the file.
func TestEraseOnFullDisk(t *testing.T) {
	disk := smallDisk(t, "8m")
	path := filepath.Join(disk, "l")
	l := open(t, path, ledger.Options{Create: true, Clock: ticking()})
	secret := []byte("signed by somebody")
	c := consent("c1", "library")
	c.Signed = secret
	add(t, l, c, ledger.ConsentWithdrawn{Consent: "c1"})
	for i := range 30 {
		c := consent(fmt.Sprint("d", i), "library")
		c.Signed = bytes.Repeat([]byte{byte(i)}, 32<<10)
		add(t, l, c)
	}
	must(t, l.Close())
	l = open(t, path, ledger.Options{})
	var free syscall.Statfs_t
	must(t, syscall.Statfs(disk, &free))
	filler := filepath.Join(disk, "filler")
	must(t, os.WriteFile(filler, make([]byte, int64(free.Bavail)*free.Bsize-(512<<10)), 0o600))
	done, err := l.Erase(t.Context(), clerk, "", ledger.EraseFilter{Consent: "c1"})
	if !errors.Is(err, ledger.ErrUnpurged) || !errors.Is(err, ledger.ErrFull) || len(done) != 1 {
		t.Fatalf("erased %v, %v", done, err)
	}
	must(t, os.Remove(filler))
	if done, err := l.Erase(t.Context(), clerk, "", ledger.EraseFilter{Consent: "c1"}); err != nil || len(done) != 0 {
		t.Errorf("again: %v, %v", done, err)
	}
	must(t, l.Check(t.Context()))
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		must(t, err)
		if bytes.Contains(b, secret) {
			t.Errorf("it is in %q still", suffix)
		}
	}
}

// TestBackupToFullDisk copies to a disk that is too small.
func TestBackupToFullDisk(t *testing.T) {
	disk := smallDisk(t, "1m")
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
