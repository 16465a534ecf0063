package applets_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/internal/capwrite"
	"github.com/freearea/freearea/iso7816"
)

var update = flag.Bool("update", false, "write base.cap anew")

// buildBaseCAP makes base.cap.
func buildBaseCAP(t *testing.T) []byte {
	t.Helper()
	b, err := capwrite.Write("freearea/base", applets.BasePackage, applets.ModuleCommonAP, applets.ModuleTypeA, applets.ModuleTypeD)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBaseLoadFile(t *testing.T) {
	built := buildBaseCAP(t)
	if *update {
		if err := os.WriteFile("base.cap", built, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(built, applets.BaseLoadFile()) {
		t.Error("base.cap is not what this test builds; go test -run TestBaseLoadFile -update writes it anew")
	}
	f, err := capfile.Parse(built)
	if err != nil {
		t.Fatal(err)
	}
	if f.Package.AID != applets.BasePackage || f.Package.Major != 1 || f.Package.Minor != 0 {
		t.Errorf("package is %v", f.Package)
	}
	want := []iso7816.AID{applets.ModuleCommonAP, applets.ModuleTypeA, applets.ModuleTypeD}
	if d := cmp.Diff(want, f.Applets, cmp.Comparer(func(a, b iso7816.AID) bool { return a == b })); d != "" {
		t.Error(d)
	}
	for _, p := range applets.Base() {
		module, ok := applets.BaseModule(p.Name())
		if !ok || !bytes.HasPrefix(module.Bytes(), applets.BasePackage.Bytes()) {
			t.Errorf("module of %s is %v", p.Name(), module)
		}
	}
	if !*update && f.Hash() != applets.BaseLoadFileHash() {
		t.Errorf("hash is %X, the CAP file's is %X", applets.BaseLoadFileHash(), f.Hash())
	}
}
