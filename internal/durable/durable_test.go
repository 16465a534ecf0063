package durable_test

import (
	"errors"
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
