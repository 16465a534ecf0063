package applets_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

func TestBaseLoadFile(t *testing.T) {
	f, err := capfile.Parse(applets.BaseLoadFile())
	if err != nil {
		t.Fatal(err)
	}
	if f.Package.AID != applets.BasePackage || f.Package.Major != 1 || f.Package.Minor != 0 {
		t.Errorf("package is %v", f.Package)
	}
	if want := []iso7816.AID{applets.ModuleCommonAP, applets.ModuleTypeA, applets.ModuleTypeD}; !slices.Equal(f.Applets, want) {
		t.Errorf("applets are %v, want %v", f.Applets, want)
	}
	for _, p := range applets.Base() {
		module, ok := applets.BaseModule(p.Name())
		if !ok || !bytes.HasPrefix(module.Bytes(), applets.BasePackage.Bytes()) {
			t.Errorf("module of %s is %v", p.Name(), module)
		}
	}
	if f.Hash() != applets.BaseLoadFileHash() || !applets.IsBaseLoadFile(f.Hash()) {
		t.Errorf("hash is %X, the CAP file's is %X", applets.BaseLoadFileHash(), f.Hash())
	}
	described := append(f.LoadFileDataBlock(), f.Component(capfile.Descriptor)...)
	with, err := capfile.ParseLoadFileDataBlock(described)
	if err != nil {
		t.Fatal(err)
	}
	changed := f.Hash()
	changed[31] ^= 1
	if !applets.IsBaseLoadFile(with.Hash()) || applets.IsBaseLoadFile(changed) {
		t.Error("a load file with its Descriptor is not known, or another one is")
	}
}
