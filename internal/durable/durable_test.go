package durable_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/freearea/freearea/internal/durable"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	first, err := durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.Lock(path); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("taken: %v, want ErrLocked", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := durable.Lock(path)
	if err != nil {
		t.Fatalf("given back: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := durable.Lock(filepath.Join(path, "no", "directory")); err == nil || errors.Is(err, durable.ErrLocked) {
		t.Errorf("no directory: %v", err)
	}
}

func TestSyncDirectory(t *testing.T) {
	if err := durable.SyncDirectory(t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	write := func(text string, err error) error {
		return durable.Replace(path, func(w io.Writer) error {
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
			return err
		})
	}
	read := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := write("old", nil); err != nil || read() != "old" {
		t.Fatalf("%v, %q", err, read())
	}
	open, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	broken := errors.New("broken off")
	if err := write("half of the n", broken); !errors.Is(err, broken) || read() != "old" {
		t.Errorf("broken off: %v, %q", err, read())
	}
	if err := write("new", nil); err != nil || read() != "new" {
		t.Errorf("%v, %q", err, read())
	}
	if b, err := io.ReadAll(open); err != nil || string(b) != "old" {
		t.Errorf("who had the old file now reads %q, %v", b, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
