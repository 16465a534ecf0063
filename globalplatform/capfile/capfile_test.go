package capfile_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
	"github.com/google/go-cmp/cmp"
)

type entry struct {
	name string
	data []byte
}

func archive(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		f, err := w.Create(e.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func component(c capfile.Component, body []byte) []byte {
	return append([]byte{byte(c), byte(len(body) >> 8), byte(len(body))}, body...)
}

func unhex(s string) []byte {
	var b []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(s, " ", ""), "%x", &b); err != nil && s != "" {
		panic(err)
	}
	return b
}

const (
	goodHeader = "DECAFFED 01 02 04 03 01 05 F001020304"
	goodImport = "02  00 01 07 A0000000620001  02 01 07 A0000000620101"
	goodApplet = "01  08 F001020304000001 0005"
)

// bodies are the components of a good file, format 2.1.
func bodies() map[capfile.Component][]byte {
	m := map[capfile.Component][]byte{
		capfile.Header:       unhex(goodHeader),
		capfile.Import:       unhex(goodImport),
		capfile.Applet:       unhex(goodApplet),
		capfile.Class:        unhex("AA01"),
		capfile.Method:       unhex("AA02"),
		capfile.StaticField:  unhex("AA03"),
		capfile.Export:       unhex("AA04"),
		capfile.ConstantPool: unhex("AA05"),
		capfile.RefLocation:  unhex("AA06"),
		capfile.Descriptor:   unhex("AA07"),
	}
	m[capfile.Directory] = directory(m, int(capfile.Descriptor), 2, 1, nil)
	return m
}

func directory(m map[capfile.Component][]byte, sizes, imports, applets int, custom []byte) []byte {
	var d []byte
	for c := capfile.Component(1); int(c) <= sizes; c++ {
		n := len(m[c])
		if c == capfile.Directory {
			n = 2*sizes + 8 + max(1, len(custom))
		}
		d = append(d, byte(n>>8), byte(n))
	}
	d = append(d, make([]byte, 6)...)
	d = append(d, byte(imports), byte(applets))
	if custom == nil {
		return append(d, 0)
	}
	return append(d, custom...)
}

func entriesOf(m map[capfile.Component][]byte) []entry {
	list := []entry{{"META-INF/MANIFEST.MF", []byte("Manifest-Version: 1.0\n")}}
	for c := capfile.Debug; c >= capfile.Header; c-- { // not the order of loading
		if m[c] != nil {
			list = append(list, entry{"city/library/javacard/" + c.String() + ".cap", component(c, m[c])})
		}
	}
	return append(list, entry{"APPLET-INF/classes/city/library/Card.class", []byte{0xCA, 0xFE}})
}

func TestParse(t *testing.T) {
	f, err := capfile.Parse(archive(t, entriesOf(bodies())))
	if err != nil {
		t.Fatal(err)
	}
	aid := iso7816.MustAID
	if f.Package != (capfile.Package{AID: aid("F001020304"), Major: 1, Minor: 3}) || f.FormatMajor != 2 || f.FormatMinor != 1 {
		t.Errorf("package %v, format %d.%d", f.Package, f.FormatMajor, f.FormatMinor)
	}
	if len(f.Applets) != 1 || f.Applets[0] != aid("F001020304000001") {
		t.Errorf("applets %v", f.Applets)
	}
	want := []string{"A0000000620001 version 1.0", "A0000000620101 version 1.2"}
	var got []string
	for _, p := range f.Imports {
		got = append(got, p.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// The order of JCVM 6.3, whatever the archive's, without the Descriptor.
	block := f.LoadFileDataBlock()
	var order []byte
	for rest := block; len(rest) > 0; rest = rest[3+int(rest[1])<<8+int(rest[2]):] {
		order = append(order, rest[0])
	}
	if !bytes.Equal(order, []byte{1, 2, 4, 3, 6, 7, 8, 10, 5, 9}) {
		t.Errorf("components in the order %d", order)
	}
	if f.Hash() != sha256.Sum256(block) {
		t.Error("hash is not of the load file data block")
	}
	again, err := capfile.ParseLoadFileDataBlock(block)
	if err != nil {
		t.Fatal(err)
	}
	if again.Package != f.Package || again.Hash() != f.Hash() || !bytes.Equal(again.LoadFileDataBlock(), block) {
		t.Error("the load file data block reads differently")
	}
	if got := f.Component(capfile.Descriptor); !bytes.Equal(got, unhex("0B0002AA07")) {
		t.Errorf("descriptor %X", got)
	}
	if f.Component(0) != nil || f.Component(capfile.Debug) != nil || f.Component(200) != nil {
		t.Error("components that are not there")
	}
}

// One changed byte in what is loaded changes the hash; what stays outside the
// card does not.
func TestHashCoversWhatIsLoaded(t *testing.T) {
	good, err := capfile.Parse(archive(t, entriesOf(bodies())))
	if err != nil {
		t.Fatal(err)
	}
	for c := capfile.Class; c <= capfile.Descriptor; c++ {
		m := bodies()
		m[c][1] ^= 1
		f, err := capfile.Parse(archive(t, entriesOf(m)))
		if err != nil {
			t.Fatal(err)
		}
		if changed := f.Hash() != good.Hash(); changed != (c != capfile.Descriptor) {
			t.Errorf("%v: hash changes: %v", c, changed)
		}
	}
	list := entriesOf(bodies())
	list[0].data = []byte("another manifest")
	if f, err := capfile.Parse(archive(t, list)); err != nil || f.Hash() != good.Hash() {
		t.Errorf("the manifest changes the hash: %v", err)
	}
}

func TestFormat22AndLibraries(t *testing.T) {
	m := bodies()
	m[capfile.Header] = append(unhex("DECAFFED 02 02 04 03 01 05 F001020304 0C"), "city/library"...)
	m[capfile.Applet], m[capfile.Export], m[capfile.Descriptor] = nil, nil, nil
	m[capfile.Debug] = unhex("DD")
	m[capfile.Directory] = directory(m, int(capfile.Debug), 2, 0, unhex("01 80 0004 05 F0AABBCCDD"))
	f, err := capfile.Parse(archive(t, entriesOf(m)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Package.Name != "city/library" || f.FormatMinor != 2 || len(f.Applets) != 0 {
		t.Errorf("%+v", f)
	}
	if got := f.Package.String(); got != "F001020304 version 1.3 (city/library)" {
		t.Error(got)
	}
	if bytes.Contains(f.LoadFileDataBlock(), unhex("0C0001DD")) {
		t.Error("the Debug component would be loaded")
	}
}

func TestRefuses(t *testing.T) {
	change := func(f func(map[capfile.Component][]byte)) []byte {
		m := bodies()
		f(m)
		return archive(t, entriesOf(m))
	}
	// resized keeps the directory true to the other components.
	resized := func(f func(map[capfile.Component][]byte)) []byte {
		m := bodies()
		f(m)
		m[capfile.Directory] = directory(m, int(capfile.Descriptor), 2, 1, nil)
		return archive(t, entriesOf(m))
	}
	with := func(e ...entry) []byte { return archive(t, append(entriesOf(bodies()), e...)) }
	replace := func(c capfile.Component, data []byte) []byte {
		list := entriesOf(bodies())
		for i := range list {
			if strings.HasSuffix(list[i].name, "/"+c.String()+".cap") {
				list[i].data = data
			}
		}
		return archive(t, list)
	}
	many := make([]entry, capfile.MaxEntries)
	for i := range many {
		many[i].name = fmt.Sprint("x", i)
	}
	good := archive(t, entriesOf(bodies()))
	cases := map[string]struct {
		data []byte
		want error
	}{
		"nothing":                 {nil, capfile.ErrMalformed},
		"no archive":              {[]byte("just some text that is no archive"), capfile.ErrMalformed},
		"cut archive":             {good[:len(good)/2], capfile.ErrMalformed},
		"empty archive":           {archive(t, nil), capfile.ErrMalformed},
		"too large":               {make([]byte, capfile.MaxSize+1), capfile.ErrTooLarge},
		"too many entries":        {with(many...), capfile.ErrTooLarge},
		"entry twice":             {with(entry{"META-INF/MANIFEST.MF", nil}), capfile.ErrMalformed},
		"component twice":         {with(entry{"city/library/javacard/Method.cap", component(capfile.Method, []byte{1})}), capfile.ErrMalformed},
		"a second package":        {with(entry{"other/javacard/Debug.cap", component(capfile.Debug, []byte{1})}), capfile.ErrMalformed},
		"the second's component":  {with(entry{"other/javacard/Method.cap", component(capfile.Method, []byte{1})}), capfile.ErrMalformed},
		"extended CAP file":       {with(entry{"city/library/javacard/Header.capx", nil}), capfile.ErrUnsupported},
		"component of 70 KB":      {replace(capfile.Method, make([]byte, 70000)), capfile.ErrTooLarge},
		"component of two bytes":  {replace(capfile.Method, []byte{7, 0}), capfile.ErrMalformed},
		"another component's tag": {replace(capfile.Method, component(capfile.Class, []byte{1, 2})), capfile.ErrMalformed},
		"component cut short":     {replace(capfile.Method, []byte{7, 0, 2, 1}), capfile.ErrMalformed},
		"bytes after a component": {replace(capfile.Method, []byte{7, 0, 2, 1, 2, 3}), capfile.ErrMalformed},
		"magic":                   {change(func(m map[capfile.Component][]byte) { m[capfile.Header][0] = 0 }), capfile.ErrMalformed},
		"format 2.3":              {change(func(m map[capfile.Component][]byte) { m[capfile.Header][4] = 3 }), capfile.ErrUnsupported},
		"format 3.1":              {change(func(m map[capfile.Component][]byte) { m[capfile.Header][5] = 3 }), capfile.ErrUnsupported},
		"bytes after the header":  {resized(func(m map[capfile.Component][]byte) { m[capfile.Header] = append(m[capfile.Header], 0, 0) }), capfile.ErrMalformed},
		"package AID of 4 bytes":  {resized(func(m map[capfile.Component][]byte) { m[capfile.Header] = unhex("DECAFFED 01 02 04 03 01 04 F0010203") }), capfile.ErrMalformed},
		"package AID of 17 bytes": {resized(func(m map[capfile.Component][]byte) {
			m[capfile.Header] = append(unhex("DECAFFED 01 02 04 03 01 11"), make([]byte, 17)...)
		}), capfile.ErrMalformed},
		"header without AID": {resized(func(m map[capfile.Component][]byte) { m[capfile.Header] = unhex("DECAFFED 01 02 04 03 01") }), capfile.ErrMalformed},
		"applet twice": {resized(func(m map[capfile.Component][]byte) {
			m[capfile.Applet] = unhex("02 08 F001020304000001 0005 08 F001020304000001 0006")
		}), capfile.ErrMalformed},
		"more applets than said": {resized(func(m map[capfile.Component][]byte) { m[capfile.Applet] = append(m[capfile.Applet], 0) }), capfile.ErrMalformed},
		"fewer imports":          {resized(func(m map[capfile.Component][]byte) { m[capfile.Import][0] = 3 }), capfile.ErrMalformed},
		"directory counts more":  {change(func(m map[capfile.Component][]byte) { m[capfile.Directory] = directory(m, 11, 3, 1, nil) }), capfile.ErrMalformed},
		"directory, other size":  {change(func(m map[capfile.Component][]byte) { m[capfile.Method] = append(m[capfile.Method], 0) }), capfile.ErrMalformed},
		"directory cut short":    {change(func(m map[capfile.Component][]byte) { m[capfile.Directory] = m[capfile.Directory][:10] }), capfile.ErrMalformed},
		"listed, not there":      {change(func(m map[capfile.Component][]byte) { delete(m, capfile.Export) }), capfile.ErrMalformed},
	}
	for _, c := range []capfile.Component{capfile.Header, capfile.Directory, capfile.Import, capfile.Class, capfile.Method, capfile.StaticField, capfile.ConstantPool, capfile.RefLocation} {
		cases["no "+c.String()] = struct {
			data []byte
			want error
		}{change(func(m map[capfile.Component][]byte) { delete(m, c) }), capfile.ErrMalformed}
	}
	for name, x := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := capfile.Parse(x.data); !errors.Is(err, x.want) {
				t.Errorf("error %v, want %v", err, x.want)
			}
		})
	}
}

// A small archive that unpacks to much is read no further than a component
// may be long, whatever size it declares.
func TestBomb(t *testing.T) {
	data := archive(t, append(entriesOf(bodies())[1:], entry{"a/javacard/Debug.cap", make([]byte, 16<<20)}))
	if len(data) > 1<<20 {
		t.Fatalf("no bomb: %d bytes", len(data))
	}
	// Understate the size in the central directory: the last 4-byte number of 16 MiB.
	size := []byte{0, 0, 0, 1}
	at := bytes.LastIndex(data, size)
	if at < 0 {
		t.Fatal("size not found")
	}
	copy(data[at:], []byte{9, 0, 0, 0})
	if _, err := capfile.Parse(data); !errors.Is(err, capfile.ErrMalformed) && !errors.Is(err, capfile.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

func TestDamagedEntry(t *testing.T) {
	data := archive(t, entriesOf(bodies()))
	at := bytes.Index(data, unhex("070002AA02")) // stored or not, the checksum says so
	if at < 0 {
		t.Skip("the entry is compressed beyond recognition")
	}
	data[at+4] ^= 1
	if _, err := capfile.Parse(data); !errors.Is(err, capfile.ErrMalformed) {
		t.Errorf("%v", err)
	}
}

func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "library.cap")
	if _, err := capfile.ReadFile(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(name, archive(t, entriesOf(bodies())), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := capfile.ReadFile(name); err != nil || f.Package.AID.IsZero() {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(name, []byte("not a CAP file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := capfile.ReadFile(name); !errors.Is(err, capfile.ErrMalformed) || !strings.Contains(err.Error(), "library.cap") {
		t.Errorf("damaged: %v", err)
	}
}

func TestLoadFileDataBlockWithDescriptor(t *testing.T) {
	f, err := capfile.Parse(archive(t, entriesOf(bodies())))
	if err != nil {
		t.Fatal(err)
	}
	block := append(f.LoadFileDataBlock(), f.Component(capfile.Descriptor)...)
	got, err := capfile.ParseLoadFileDataBlock(block)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.LoadFileDataBlock(), block) {
		t.Errorf("read back: %X, want %X", got.LoadFileDataBlock(), block)
	}
	if !f.HasHash(f.Hash()) || !f.HasHash(got.Hash()) || !got.HasHash(got.Hash()) || f.HasHash([32]byte{}) {
		t.Error("hashes with and without the Descriptor component are not told from others")
	}
}

func TestLoadFileDataBlockRefuses(t *testing.T) {
	f, err := capfile.Parse(archive(t, entriesOf(bodies())))
	if err != nil {
		t.Fatal(err)
	}
	block := f.LoadFileDataBlock()
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"cut in a size":   block[:2],
		"cut in a body":   block[:len(block)-1],
		"bytes after":     append(bytes.Clone(block), 0),
		"another order":   append(bytes.Clone(f.Component(capfile.Directory)), block...),
		"component twice": append(bytes.Clone(f.Component(capfile.Header)), block...),
	} {
		if _, err := capfile.ParseLoadFileDataBlock(b); !errors.Is(err, capfile.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(archive(f, entriesOf(bodies())))
	f.Add(archive(f, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := capfile.Parse(b)
		check(t, file, err)
	})
}

func FuzzParseLoadFileDataBlock(f *testing.F) {
	file, err := capfile.Parse(archive(f, entriesOf(bodies())))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file.LoadFileDataBlock())
	f.Add([]byte{1, 0, 0, 2, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := capfile.ParseLoadFileDataBlock(b)
		if check(t, file, err) && !bytes.Equal(file.LoadFileDataBlock(), b) {
			t.Errorf("%X changes to %X", b, file.LoadFileDataBlock())
		}
	})
}

func check(t *testing.T, file *capfile.File, err error) bool {
	if err != nil {
		if !errors.Is(err, capfile.ErrMalformed) && !errors.Is(err, capfile.ErrTooLarge) && !errors.Is(err, capfile.ErrUnsupported) {
			t.Errorf("error of no kind: %v", err)
		}
		return false
	}
	if file.Package.AID.IsZero() {
		t.Error("accepted without a package AID")
	}
	again, err := capfile.ParseLoadFileDataBlock(file.LoadFileDataBlock())
	if err != nil || again.Hash() != file.Hash() || len(again.Applets) != len(file.Applets) {
		t.Errorf("its load file data block does not parse alike: %v", err)
	}
	return true
}
