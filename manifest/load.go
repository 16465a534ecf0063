package manifest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// MaxSize is the largest manifest in bytes.
const MaxSize = 64 << 10

// Reader reads manifests. The zero value knows the base profiles; a program
// that adds profiles of its own names them.
type Reader struct {
	Profiles applets.Profiles // nil: applets.Base()
	// Issued leaves the load file alone, which need not be at hand: what cards hold
	// already is read, suspended and withdrawn without it. It is compared when it
	// is opened.
	Issued bool
}

func (r Reader) profiles() applets.Profiles {
	if r.Profiles == nil {
		return applets.Base()
	}
	return r.Profiles
}

// Load reads a manifest and the load file that it names. The error is a
// [Faults] with every fault that was found.
func Load(path string) (*Manifest, error) { return Reader{}.Load(path) }

// Parse reads a manifest from data; name stands in the faults' places. The
// load file is held against the manifest only if it is the built-in one. The
// error is a [Faults].
func Parse(name string, data []byte) (*Manifest, error) { return Reader{}.Parse(name, data) }

// Load is the function Load with the reader's profiles.
func (r Reader) Load(path string) (*Manifest, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, Faults{{File: path, Rule: RuleUnreadable, args: []any{plainError(err)}}}
	}
	c := r.check(path, data)
	if c.m != nil && !r.Issued && c.clean("load_file.path") && !strings.HasPrefix(c.m.LoadFile.Path, builtin) {
		c.externalLoadFile(filepath.Dir(path))
	}
	return c.result()
}

// Parse is the function Parse with the reader's profiles.
func (r Reader) Parse(name string, data []byte) (*Manifest, error) {
	return r.check(name, data).result()
}

// readBounded reads a file up to one byte more than a manifest may have.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// plainError cuts the path off an error that is reported beside it.
func plainError(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// checker collects the faults of one manifest. m is nil where the file could
// not be taken apart.
type checker struct {
	m       *Manifest
	d       *decoder
	index   keyIndex
	profile applets.Profile // nil when unknown
	faults  Faults
	file    string
}

func (r Reader) check(file string, data []byte) *checker {
	m := &Manifest{file: file}
	c := &checker{file: file}
	tree, ok := c.take(data, reflect.ValueOf(m).Elem())
	if !ok {
		return c
	}
	c.m = m
	c.defaults()
	c.individualNumbers("", tree)
	c.service()
	c.operator()
	c.checkProfile(r.profiles())
	c.application()
	c.loadFile()
	if !r.Issued {
		c.builtinLoadFile()
	}
	c.pin()
	c.items()
	c.idScheme()
	c.keys()
	c.terms()
	return c
}

// take takes a file apart, into a struct whose tags are its keys.
func (c *checker) take(data []byte, into reflect.Value) (tree map[string]any, ok bool) {
	if len(data) > MaxSize {
		c.faults = Faults{{File: c.file, Rule: RuleTooLarge, args: []any{MaxSize}}}
		return nil, false
	}
	if _, err := toml.Decode(string(data), &tree); err != nil {
		f := Fault{File: c.file, Rule: RuleSyntax, args: []any{err.Error()}}
		var pe toml.ParseError
		if errors.As(err, &pe) {
			f.Line, f.Column, f.Key = pe.Position.Line, pe.Position.Col, pe.LastKey
			f.args = []any{pe.Message}
		}
		c.faults = Faults{f}
		return nil, false
	}
	c.index = indexKeys(string(data))
	c.d = &decoder{report: c.report, present: map[string]bool{}, faulty: map[string]bool{}, unread: map[string]bool{}}
	c.d.table("", tree, into)
	return tree, true
}

func (c *checker) result() (*Manifest, error) {
	if len(c.faults) == 0 {
		return c.m, nil
	}
	return nil, c.sorted()
}

// sorted returns the faults in the order of the file.
func (c *checker) sorted() Faults {
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return c.faults
}

func (c *checker) report(path string, rule Rule, args ...any) {
	at := c.index.locate(path)
	c.faults = append(c.faults, Fault{File: c.file, Line: at.line, Column: at.column, Key: path, Rule: rule, args: args})
}

// fault reports the first fault of a key; what follows from it is left out.
func (c *checker) fault(path string, rule Rule, args ...any) {
	if c.clean(path) {
		c.d.fault(path, rule, args...)
	}
}

// clean reports whether no fault was found at a key, and every table around
// it was one.
func (c *checker) clean(path string) bool {
	for p := parentPath(path); p != ""; p = parentPath(p) {
		if c.d.unread[p] {
			return false
		}
	}
	return !c.d.faulty[path]
}

func (c *checker) has(path string) bool { return c.d.present[path] }

// File returns the name that the manifest was loaded or parsed under.
func (m *Manifest) File() string { return m.file }

// defaults fills in what the file leaves out.
func (c *checker) defaults() {
	m := c.m
	if m.PIN.Policy == "" && c.clean("pin.policy") && !c.has("pin.policy") {
		m.PIN.Policy = PINNone
	}
	if m.PIN.Policy == PINRequired {
		c.defaultInt("pin.min_digits", &m.PIN.MinDigits, applets.MinPINDigits)
		c.defaultInt("pin.max_digits", &m.PIN.MaxDigits, applets.MaxPINDigits)
		c.defaultInt("pin.tries", &m.PIN.Tries, applets.DefaultPINLimit)
	}
	for i := range m.Items {
		if it := &m.Items[i]; it.Type == ItemDate {
			c.defaultInt(joinIndex("items", i)+".max_length", &it.MaxLength, len("YYYY-MM-DD"))
		}
	}
	if !c.has("id_scheme.alphabet") {
		m.IDScheme.Alphabet = "digits"
	}
	if !c.has("id_scheme.check") {
		m.IDScheme.Check = CheckNone
	}
	if m.IDScheme.Kind == IDGiven {
		c.defaultInt("id_scheme.min_length", &m.IDScheme.MinLength, m.IDScheme.Length)
	}
	c.defaultInt("consent.valid_days", &m.Consent.ValidDays, 90)
	// Only a load file that the toolkit carries is known before it is read.
	pkg, module := applets.BasePackage, iso7816.AID{}
	if x, ok := applets.BaseModule(m.Profile); ok {
		module = x
	} else if m.LoadFile.Path == BuiltinFiles {
		pkg, module = files.Package, files.Module
	} else if m.Profile == Custom && m.LoadFile.Path != BuiltinBase {
		pkg = iso7816.AID{}
	}
	if !c.has("application.package") {
		m.Application.Package = pkg
	}
	if !c.has("application.module") {
		m.Application.Module = module
	}
}

func (c *checker) defaultInt(path string, into *int, n int) {
	if !c.has(path) {
		*into = n
	}
}

// individualNumbers looks into every string of the file, known key or not.
// The digest of the load file is exempt: nobody chooses its digits.
func (c *checker) individualNumbers(path string, v any) {
	switch v := v.(type) {
	case string:
		if path != "load_file.sha256" && (HoldsIndividualNumber(v) || hexHoldsIndividualNumber(v)) {
			c.report(path, RuleIndividualNumber)
			c.d.faulty[path] = true
		}
	case int64:
		if HoldsIndividualNumber(fmt.Sprint(v)) {
			c.report(path, RuleIndividualNumber)
			c.d.faulty[path] = true
		}
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			c.individualNumbers(joinKey(path, name), v[name])
		}
	case []map[string]any:
		for i := range v {
			c.individualNumbers(joinIndex(path, i), v[i])
		}
	case []any:
		for i := range v {
			c.individualNumbers(joinIndex(path, i), v[i])
		}
	}
}

// builtin begins the path of a load file that the toolkit carries.
const builtin = "builtin:"

var builtins = map[string]func() []byte{BuiltinBase: applets.BaseLoadFile, BuiltinFiles: files.LoadFile}

// loadFile checks what can be told without reading another file.
func (c *checker) loadFile() {
	m := c.m
	switch p := m.LoadFile.Path; {
	case p == "":
		c.fault("load_file.path", RuleMissing, `path = "`+BuiltinBase+`"`)
	case builtins[p] != nil:
	case strings.HasPrefix(p, builtin):
		c.fault("load_file.path", RuleChoice, p, BuiltinBase+", "+BuiltinFiles)
	case !filepath.IsLocal(filepath.FromSlash(p)):
		c.fault("load_file.path", RuleLoadFilePath)
	}
	if !c.has("load_file.sha256") {
		c.fault("load_file.sha256", RuleMissing, `sha256 = "…"`)
	}
}

// builtinLoadFile opens the load file where the toolkit carries it.
func (c *checker) builtinLoadFile() {
	carried := builtins[c.m.LoadFile.Path]
	if carried == nil || !c.clean("load_file.path") {
		return
	}
	f, err := capfile.Parse(carried())
	if err != nil {
		c.fault("load_file.path", RuleLoadFile, err)
		return
	}
	c.compareLoadFile(f)
}

// externalLoadFile opens the load file beside the manifest.
func (c *checker) externalLoadFile(dir string) {
	f, err := capfile.ReadFile(filepath.Join(dir, filepath.FromSlash(c.m.LoadFile.Path)))
	if err != nil {
		c.fault("load_file.path", RuleLoadFile, plainError(err))
		return
	}
	c.compareLoadFile(f)
}

func (c *checker) compareLoadFile(f *capfile.File) {
	for _, d := range c.m.differences(f) {
		c.fault(d.Key, d.Rule, d.args...)
	}
}

// differences are what a load file has in another way than the manifest says.
func (m *Manifest) differences(f *capfile.File) (out Faults) {
	differs := func(key string, rule Rule, has any) {
		out = append(out, Fault{File: m.file, Key: key, Rule: rule, args: []any{has}})
	}
	if hash := Hash(f.Hash()); hash != m.LoadFile.SHA256 {
		differs("load_file.sha256", RuleLoadFileHash, hash.String())
	}
	if f.Package.AID != m.Application.Package {
		differs("application.package", RuleLoadFilePackage, f.Package.AID)
	}
	if !slices.Contains(f.Applets, m.Application.Module) && !m.Application.Module.IsZero() {
		names := make([]string, len(f.Applets))
		for i, a := range f.Applets {
			names[i] = a.String()
		}
		differs("application.module", RuleLoadFileModule, strings.Join(names, ", "))
	}
	return out
}

// OpenLoadFile opens the load file that the manifest names, and refuses one
// whose load file data block has another hash, package or modules: the file may
// have changed since the manifest was checked, or was not looked at then. The
// error is a [Faults].
func (m *Manifest) OpenLoadFile() (*capfile.File, error) {
	var f *capfile.File
	var err error
	if carried := builtins[m.LoadFile.Path]; carried != nil {
		f, err = capfile.Parse(carried())
	} else {
		f, err = capfile.ReadFile(filepath.Join(filepath.Dir(m.file), filepath.FromSlash(m.LoadFile.Path)))
	}
	if err != nil {
		return nil, Faults{{File: m.file, Key: "load_file.path", Rule: RuleLoadFile, args: []any{plainError(err)}}}
	}
	if faults := m.differences(f); len(faults) > 0 {
		return nil, faults
	}
	return f, nil
}

// CheckAID asks the ledger whether an instance AID belongs to another service
// already: owner returns the service's id, "" for none. The error is a
// [Faults], or what owner returned.
func (m *Manifest) CheckAID(owner func(instance iso7816.AID) (service string, err error)) error {
	service, err := owner(m.Application.Instance)
	if err != nil {
		return fmt.Errorf("owner of AID %s: %w", m.Application.Instance, err)
	}
	if service == "" || service == m.ID {
		return nil
	}
	return Faults{{File: m.file, Key: "application.instance", Rule: RuleAIDTaken, args: []any{service}}}
}
