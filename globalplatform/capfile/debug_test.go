package capfile_test

import (
	"errors"
	"os"
	"testing"

	"github.com/freearea/freearea/globalplatform/capfile"
)

// benchCAP was made by Oracle's converter, with its option -debug.
const benchCAP = "../../emulator/jcvm/testdata/bench.cap"

func TestDebug(t *testing.T) {
	f, err := capfile.ReadFile(benchCAP)
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.Debug()
	if err != nil {
		t.Fatal(err)
	}
	if d.Package != "bench" || len(d.Classes) != 1 {
		t.Fatalf("%+v", d)
	}
	c := d.Classes[0]
	if c.Name != "bench/BenchApplet" || c.Source != "BenchApplet.java" || len(c.Methods) != 9 {
		t.Fatalf("%+v", c)
	}
	// The method at its place in the Method component, and its lines in the
	// source beside the CAP file.
	m := c.Methods[5]
	if m.Name != "calls" || m.Descriptor != "(S)S" {
		t.Fatalf("%+v", m)
	}
	if b := f.Component(capfile.Method)[3:]; m.Location+m.Header+m.Body > len(b) || b[m.Location+m.Header+m.Body-1] != 0x78 {
		t.Errorf("%+v does not end with sreturn", m)
	}
	if first, last := m.Lines[0], m.Lines[len(m.Lines)-1]; first.Line != 38 || last.Line != 42 {
		t.Errorf("lines %+v", m.Lines)
	}

	without, err := capfile.ReadFile("../../emulator/jcvm/testdata/ops.cap")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := without.Debug(); d != nil || err != nil {
		t.Errorf("a file without the component: %v, %v", d, err)
	}
}

// withDebug is a CAP file with that component in the place of its own.
func withDebug(t testing.TB, content []byte) *capfile.File {
	t.Helper()
	m := bodies()
	m[capfile.Debug] = content
	f, err := capfile.Parse(archive(t, entriesOf(m)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDebugMalformed(t *testing.T) {
	f, err := capfile.ReadFile(benchCAP)
	if err != nil {
		t.Fatal(err)
	}
	good := f.Component(capfile.Debug)[3:]
	if _, err := withDebug(t, good).Debug(); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := withDebug(t, good[:n]).Debug(); !errors.Is(err, capfile.ErrMalformed) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := withDebug(t, append(good, 0)).Debug(); !errors.Is(err, capfile.ErrMalformed) {
		t.Errorf("with a byte too many: %v", err)
	}
	for name, content := range map[string]string{
		"no such name":    "0000 0000 0000",
		"not UTF-8":       "0001 0001 FF 0000 0000",
		"line beyond end": "0001 0001 61 0000 0001 0000 0001 0002 0000 0000 00 0000 0001  0000 0000 0001 0001 02 0004 0000 0001 0000 0004 0001",
	} {
		if _, err := withDebug(t, unhex(content)).Debug(); !errors.Is(err, capfile.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDebug(f *testing.F) {
	b, err := os.ReadFile(benchCAP)
	if err != nil {
		f.Fatal(err)
	}
	bench, err := capfile.Parse(b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bench.Component(capfile.Debug)[3:])
	f.Add(unhex("0000"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 0xFFFF {
			return
		}
		d, err := withDebug(t, content).Debug()
		switch {
		case err != nil && !errors.Is(err, capfile.ErrMalformed):
			t.Fatal(err)
		case err == nil && d == nil:
			t.Fatal("no information and no error")
		}
	})
}
