package javacard_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freearea/freearea/applets/javacard"
	"github.com/freearea/freearea/globalplatform/capfile"
)

// TestSources: whoever changes the source builds the load file anew.
func TestSources(t *testing.T) {
	list, err := os.ReadFile("base.cap.sources")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(list)); s.Scan(); {
		digest, name, ok := strings.Cut(s.Text(), "  ")
		if !ok {
			t.Fatalf("base.cap.sources: %q", s.Text())
		}
		listed[name] = digest
	}
	want := []string{"base.cap", "build.sh"}
	err = filepath.WalkDir("src", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			want = append(want, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range want {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != listed[name] {
			t.Errorf("%s is not the one that base.cap was built with: run build.sh", name)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("base.cap was built with %s: run build.sh", name)
	}
}

// maxLoadFile is the aim for the load file data block, in bytes.
const maxLoadFile = 10 << 10

func TestSize(t *testing.T) {
	f, err := capfile.Parse(javacard.LoadFile())
	if err != nil {
		t.Fatal(err)
	}
	n := len(f.LoadFileDataBlock())
	t.Logf("load file data block: %d bytes", n)
	if n >= maxLoadFile {
		t.Errorf("load file data block has %d bytes, %d at most", n, maxLoadFile)
	}
}
