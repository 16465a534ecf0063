// Package layers holds the test of the architecture: which package may import
// which. It has no other code.
package layers

import (
	"bytes"
	"fmt"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	modulePath  = "github.com/freearea/freearea"
	pcscBinding = "github.com/ebfe/scard"
)

// layers is the architecture, lowest layer first. A package imports lower
// layers only; a package and its parent directory's package may import each
// other, and so may those of the highest layer. Packages that do not exist yet may stand here; a package that exists
// must. "/..." takes in everything below.
var layers = [][]string{
	1: {"iso7816", "osdp", "internal/sp800", "internal/ecc", "internal/durable"},
	2: {"keys", "keys/file", "keys/pkcs11", "reader/list"},
	3: {"globalplatform", "globalplatform/scp", "globalplatform/capfile"},
	4: {"delegation", "applets", "applets/javacard", "applets/files", "applets/recipe", "emulator/oncard"},
	5: {"applets/files/oncard", "applets/appletstest", "manifest", "consent", "staff"},
	6: {"ledger", "emulator", "emulator/vpcd", "emulator/jcvm", "pcsc"},
	7: {"provisioner", "reader", "reader/policy", "handover", "emulator/timing"},
	8: {"readerd", "batch"},
	9: {"app", "examples", "examples/till", "examples/vendorbinary/...", "cmd/freearea", "cmd/freearea/app", "cmd/freearea/internal/..."},
}

// testSupport is imported by tests only; what it imports is its own affair.
var testSupport = []string{"internal/layers", "internal/docs", "internal/pcscd", "internal/capwrite", "internal/emulatedcard", "internal/hostile", "internal/crash", "internal/sweep", "internal/sweep/run", "ledger/ledgertest", "packaging", "internal/pty"}

// noPlace are names that say nothing of what a package holds.
var noPlace = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "shared"}

// notInReader is what a terminal must not link: databases, PC/SC, the
// emulator, and the stores of issuing keys. "/..." takes in everything below.
var notInReader = []string{
	"database/sql",
	"modernc.org/sqlite/...",
	pcscBinding,
	modulePath + "/pcsc",
	modulePath + "/emulator/...",
	modulePath + "/applets/files/oncard",
	modulePath + "/ledger",
	modulePath + "/keys/file",
	modulePath + "/keys/pkcs11",
}

// pkg is a package's imports over all its files, whatever system they are
// for: the rules hold on every one.
type pkg struct {
	imports     []string // of the package itself
	testImports []string // of its internal tests; external ones are free
}

// violations says how the packages, by their path within the module, break
// the rules that can be seen from imports.
func violations(pkgs map[string]pkg) []string {
	var out []string
	fault := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for name, p := range pkgs {
		for _, part := range strings.Split(name, "/") {
			if slices.Contains(noPlace, part) {
				fault("%s: a package is named for what it holds, not %q", name, part)
			}
		}
		support := slices.Contains(testSupport, name)
		layer := layerOf(name)
		if layer == 0 && !support {
			fault("%s: not in the table of layers", name)
			continue
		}
		check := func(imp string, inTest bool) {
			if imp == pcscBinding && name != "pcsc" {
				fault("%s: imports %s, which only pcsc may", name, imp)
			}
			imp, inside := strings.CutPrefix(imp, modulePath+"/")
			switch {
			case !inside || support || imp == name:
			case slices.Contains(testSupport, imp):
				if !inTest {
					fault("%s: imports %s, which is for tests only", name, imp)
				}
			case path.Dir(imp) == name || path.Dir(name) == imp:
			case layer == len(layers)-1 && layerOf(imp) == layer: // the command is one thing in several packages
			case layerOf(imp) >= layer:
				fault("%s (layer %d): imports %s (layer %d)", name, layer, imp, layerOf(imp))
			}
		}
		for _, imp := range p.imports {
			check(imp, false)
		}
		for _, imp := range p.testImports {
			check(imp, true)
		}
	}
	slices.Sort(out)
	return out
}

// layerOf returns the layer of a package, 0 when it stands in none.
func layerOf(name string) int {
	for i, packages := range layers {
		for _, p := range packages {
			if matches(p, name) {
				return i
			}
		}
	}
	return 0
}

// matches reports whether name is the pattern, or is below one with "/...".
func matches(pattern, name string) bool {
	tree, all := strings.CutSuffix(pattern, "/...")
	return name == tree || all && strings.HasPrefix(name, tree+"/")
}

func TestLayers(t *testing.T) {
	pkgs, err := readModule(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := pkgs["iso7816"]; !ok {
		t.Fatalf("iso7816 was not found among the %d packages read: the walk is broken", len(pkgs))
	}
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
}

// TestReaderLinks looks at what is really linked, other modules' needs
// included, with cgo and without.
func TestReaderLinks(t *testing.T) {
	if _, err := os.Stat(filepath.Join("..", "..", "reader")); err != nil {
		t.Skip("there is no reader yet")
	}
	for _, cgo := range []string{"0", "1"} {
		var stderr bytes.Buffer
		cmd := exec.Command("go", "list", "-deps", modulePath+"/reader")
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
		}
		for _, dep := range forbidden(strings.Fields(string(out))) {
			t.Errorf("reader links %s (CGO_ENABLED=%s)", dep, cgo)
		}
	}
}

// forbidden returns those of deps that a terminal must not link.
func forbidden(deps []string) []string {
	var out []string
	for _, dep := range deps {
		if slices.ContainsFunc(notInReader, func(p string) bool { return matches(p, dep) }) {
			out = append(out, dep)
		}
	}
	return out
}

// readModule reads the imports of every Go package below root.
func readModule(root string) (map[string]pkg, error) {
	pkgs := make(map[string]pkg)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// As the go command does: these hold no packages of the module.
			if n := d.Name(); file != root && (n == "testdata" || n == "vendor" || n[0] == '.' || n[0] == '_') {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && file != root {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				// A generator is a program of its own.
				if x, err := constraint.Parse(c.Text); err == nil && x.String() == "ignore" {
					return nil
				}
			}
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		name := filepath.ToSlash(dir)
		p := pkgs[name]
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			switch {
			case !strings.HasSuffix(file, "_test.go"):
				p.imports = append(p.imports, imp)
			case !strings.HasSuffix(f.Name.Name, "_test"):
				p.testImports = append(p.testImports, imp)
			}
		}
		pkgs[name] = p
		return nil
	})
	return pkgs, err
}

// TestRules shows that each rule can fail.
func TestRules(t *testing.T) {
	in := func(p string) string { return modulePath + "/" + p }
	for _, test := range []struct {
		name string
		pkgs map[string]pkg
		want []string
	}{
		{"lower layers", map[string]pkg{
			"reader": {imports: []string{"context", in("keys"), in("iso7816"), in("applets")}},
		}, nil},
		{"higher layer", map[string]pkg{"keys": {imports: []string{in("reader")}}},
			[]string{"keys (layer 2): imports reader (layer 7)"}},
		{"same layer", map[string]pkg{"manifest": {imports: []string{in("consent")}}},
			[]string{"manifest (layer 5): imports consent (layer 5)"}},
		{"siblings", map[string]pkg{"keys/pkcs11": {imports: []string{in("keys/file")}}},
			[]string{"keys/pkcs11 (layer 2): imports keys/file (layer 2)"}},
		{"child and parent", map[string]pkg{
			"keys/file":      {imports: []string{in("keys")}},
			"globalplatform": {imports: []string{in("globalplatform/scp")}},
			"emulator":       {imports: []string{in("emulator/oncard")}},
		}, nil},
		{"parent of a higher layer", map[string]pkg{"applets/files": {imports: []string{in("applets/files/oncard")}}}, nil},
		{"internal test", map[string]pkg{"ledger": {testImports: []string{in("pcsc")}}},
			[]string{"ledger (layer 6): imports pcsc (layer 6)"}},
		{"unknown package", map[string]pkg{"cards": {}, "emulator/else": {}, ".": {}},
			[]string{".: not in the table of layers", "cards: not in the table of layers", "emulator/else: not in the table of layers"}},
		{"the command", map[string]pkg{
			"cmd/freearea/app":          {imports: []string{in("reader"), in("cmd/freearea/internal/msg")}},
			"cmd/freearea/internal/msg": {imports: []string{in("iso7816")}},
		}, nil},
		{"below the command", map[string]pkg{"reader": {imports: []string{in("cmd/freearea/internal/msg")}}},
			[]string{"reader (layer 7): imports cmd/freearea/internal/msg (layer 9)"}},
		{"no place", map[string]pkg{"cmd/freearea/internal/util": {}},
			[]string{`cmd/freearea/internal/util: a package is named for what it holds, not "util"`}},
		{"binding", map[string]pkg{
			"pcsc":           {imports: []string{pcscBinding}},
			"reader":         {imports: []string{pcscBinding}},
			"internal/pcscd": {imports: []string{pcscBinding}},
		}, []string{
			"internal/pcscd: imports " + pcscBinding + ", which only pcsc may",
			"reader: imports " + pcscBinding + ", which only pcsc may",
		}},
		{"test support", map[string]pkg{
			"pcsc":           {imports: []string{in("internal/pcscd")}, testImports: []string{in("internal/pcscd")}},
			"internal/pcscd": {imports: []string{in("emulator")}},
		}, []string{"pcsc: imports internal/pcscd, which is for tests only"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, violations(test.pkgs)); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForbidden(t *testing.T) {
	got := forbidden([]string{
		"context", "database/sql", "database/sql/driver", "modernc.org/sqlite/lib", modulePath + "/keys",
		modulePath + "/emulator/oncard", modulePath + "/pcsc", pcscBinding, modulePath + "/applets",
	})
	want := []string{
		"database/sql", "modernc.org/sqlite/lib", modulePath + "/emulator/oncard", modulePath + "/pcsc", pcscBinding,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("forbidden (-want +got):\n%s", diff)
	}
}
