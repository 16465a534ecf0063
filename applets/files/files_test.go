package files_test

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/internal/capwrite"
	"github.com/freearea/freearea/iso7816"
)

var update = flag.Bool("update", false, "write files.cap anew")

func TestLoadFile(t *testing.T) {
	built, err := capwrite.Write("freearea/files", files.Package, files.Module)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("files.cap", built, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(built, files.LoadFile()) {
		t.Error("files.cap is not what this test builds; go test -run TestLoadFile -update writes it anew")
	}
	f, err := capfile.Parse(built)
	if err != nil {
		t.Fatal(err)
	}
	if f.Package.AID != files.Package || !slices.Equal(f.Applets, []iso7816.AID{files.Module}) {
		t.Errorf("package %v with modules %v", f.Package, f.Applets)
	}
	if f.Hash() != files.LoadFileHash() {
		t.Errorf("hash is %X, the CAP file's is %X", files.LoadFileHash(), f.Hash())
	}
}
