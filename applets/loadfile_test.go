package applets_test

import (
	"archive/zip"
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

var update = flag.Bool("update", false, "write base.cap anew")

// u2 is a 16-bit number as CAP files write it.
func u2(n int) []byte { return []byte{byte(n >> 8), byte(n)} }

func lengthAndAID(a iso7816.AID) []byte { return append([]byte{byte(a.Len())}, a.Bytes()...) }

// buildBaseCAP makes base.cap: JCVM specification, chapter 6, format 2.1. It
// writes the archive without compression, so that its bytes don't depend on a
// version of the compressor.
func buildBaseCAP(t *testing.T) []byte {
	t.Helper()
	modules := []iso7816.AID{applets.ModuleCommonAP, applets.ModuleTypeA, applets.ModuleTypeD}
	packageInfo := func(minor, major byte, aid iso7816.AID) []byte {
		return append([]byte{minor, major}, lengthAndAID(aid)...)
	}
	const installOffset = 1 // in the Method component, after the number of exception handlers
	applet := []byte{byte(len(modules))}
	for _, m := range modules {
		applet = append(append(applet, lengthAndAID(m)...), u2(installOffset)...)
	}
	components := map[capfile.Component][]byte{
		// 6.4: magic, format 2.1, ACC_APPLET, this package
		capfile.Header: append([]byte{0xDE, 0xCA, 0xFF, 0xED, 0x01, 0x02, 0x04}, packageInfo(0, 1, applets.BasePackage)...),
		capfile.Applet: applet, // 6.6
		// 6.7: javacard.framework and java.lang, version 1.0
		capfile.Import: bytes.Join([][]byte{{2},
			packageInfo(0, 1, iso7816.MustAID("A0000000620101")),
			packageInfo(0, 1, iso7816.MustAID("A0000000620001"))}, nil),
		capfile.ConstantPool: u2(0), // 6.8
		capfile.Class:        {},    // 6.9: format 2.1 has no signature pool
		// 6.10: no exception handlers; install: no flags, no stack, three
		// words of parameters, no locals; return
		capfile.Method:      {0x00, 0x00, 0x30, 0x7A},
		capfile.StaticField: make([]byte, 10),            // 6.11
		capfile.RefLocation: make([]byte, 4),             // 6.12
		capfile.Descriptor:  append([]byte{0}, u2(0)...), // 6.14
	}
	// 6.5: the sizes of eleven components, its own included; no static image;
	// the number of imports, applets and custom components.
	directory := make([]byte, 0, 31)
	for c := capfile.Header; c <= capfile.Descriptor; c++ {
		n := len(components[c])
		if c == capfile.Directory {
			n = 11*2 + 6 + 3
		}
		directory = append(directory, u2(n)...)
	}
	components[capfile.Directory] = append(directory, 0, 0, 0, 0, 0, 0, 2, byte(len(modules)), 0)

	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for c := capfile.Header; c <= capfile.Descriptor; c++ {
		data, present := components[c]
		if !present {
			continue
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: "freearea/base/javacard/" + c.String() + ".cap", Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		f.Write([]byte{byte(c)})
		f.Write(u2(len(data)))
		f.Write(data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
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
