// Package capfile reads Java Card CAP files: ZIP archives of components that
// a converter made, and what of them goes to a card. A CAP file comes from
// outside, so everything in it is bounded and checked before it is used;
// reading one never extracts anything to disk.
//
// Open a file, look at its package, applets and hash, and hand it to
// globalplatform.Load:
//
//	f, err := capfile.ReadFile("library.cap")
//	fmt.Println(f.Package.AID, f.Hash())
//
// Sections cited are those of the Java Card Virtual Machine Specification,
// chapter 6 (JCVM), unless another text is named.
package capfile

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/freearea/freearea/iso7816"
)

// Limits of what is read.
const (
	MaxSize       = 4 << 20 // bytes of a CAP file, compressed
	MaxEntries    = 1024    // entries of the archive
	maxComponent  = 3 + 0xFFFF
	maxComponents = 12
)

// Errors that reading a CAP file wraps.
var (
	// ErrMalformed reports a file that is no CAP file, or one whose parts
	// contradict each other.
	ErrMalformed = errors.New("malformed CAP file")
	// ErrTooLarge reports a file beyond the limits of this package.
	ErrTooLarge = errors.New("CAP file too large")
	// ErrUnsupported reports a CAP file of a format that this package does
	// not know, such as the extended one of Java Card 3.1.
	ErrUnsupported = errors.New("CAP file format not supported")
)

// Component is the tag of a component (JCVM 6.1, table 6-2).
type Component byte

// Components by tag.
const (
	Header Component = iota + 1
	Directory
	Applet
	Import
	ConstantPool
	Class
	Method
	StaticField
	RefLocation
	Export
	Descriptor
	Debug
)

var componentNames = [...]string{
	Header: "Header", Directory: "Directory", Applet: "Applet", Import: "Import", ConstantPool: "ConstantPool",
	Class: "Class", Method: "Method", StaticField: "StaticField", RefLocation: "RefLocation", Export: "Export",
	Descriptor: "Descriptor", Debug: "Debug",
}

func (c Component) String() string {
	if c == 0 || int(c) >= len(componentNames) {
		return fmt.Sprintf("component %d", byte(c))
	}
	return componentNames[c]
}

// loadOrder is the order in which components go to a card (JCVM 6.3). The
// Descriptor and Debug components stay outside.
var loadOrder = [...]Component{
	Header, Directory, Import, Applet, Class, Method, StaticField, Export, ConstantPool, RefLocation,
}

func optional(c Component) bool { return c == Applet || c == Export }

// Package names a package: its AID, version and, where the file says it, its
// name in Java with slashes.
type Package struct {
	AID          iso7816.AID
	Major, Minor byte
	Name         string
}

func (p Package) String() string {
	s := fmt.Sprintf("%v version %d.%d", p.AID, p.Major, p.Minor)
	if p.Name != "" {
		s += " (" + p.Name + ")"
	}
	return s
}

// File is a CAP file that was read, or a load file data block.
type File struct {
	Package Package
	// FormatMajor and FormatMinor are the version of the CAP format: 2.1 or 2.2.
	FormatMajor, FormatMinor byte
	Applets                  []iso7816.AID // of the applets that the package defines
	Imports                  []Package     // packages that it needs on the card

	components     [maxComponents + 1][]byte // whole, by tag
	loadDescriptor bool                      // the Descriptor is part of the load file data block
}

// ReadFile reads the CAP file at a path.
func ReadFile(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c, err := Open(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// Parse reads a CAP file from memory.
func Parse(b []byte) (*File, error) { return Open(bytes.NewReader(b), int64(len(b))) }

// Open reads a CAP file of a size in bytes. Errors wrap [ErrMalformed],
// [ErrTooLarge] or [ErrUnsupported], or are the reader's.
func Open(r io.ReaderAt, size int64) (*File, error) {
	if size > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, %d at most", ErrTooLarge, size, MaxSize)
	}
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(archive.File) > MaxEntries {
		return nil, fmt.Errorf("%w: %d entries, %d at most", ErrTooLarge, len(archive.File), MaxEntries)
	}
	names := make(map[string]bool, len(archive.File))
	var f File
	dir := ""
	for _, entry := range archive.File {
		if names[entry.Name] {
			return nil, fmt.Errorf("%w: two entries are named %q", ErrMalformed, entry.Name)
		}
		names[entry.Name] = true
		if path.Ext(entry.Name) == ".capx" {
			return nil, fmt.Errorf("%w: %q is a component of an extended CAP file", ErrUnsupported, entry.Name)
		}
		c, ok := componentOf(path.Base(entry.Name))
		if !ok {
			continue // manifest, class files, export files
		}
		switch {
		case f.components[c] != nil:
			return nil, fmt.Errorf("%w: two %v components", ErrMalformed, c)
		case dir != "" && path.Dir(entry.Name) != dir:
			return nil, fmt.Errorf("%w: components of two packages, in %q and %q", ErrMalformed, dir, path.Dir(entry.Name))
		}
		dir = path.Dir(entry.Name)
		if f.components[c], err = readEntry(entry); err != nil {
			return nil, err
		}
	}
	if err := f.parse(); err != nil {
		return nil, err
	}
	return &f, nil
}

func componentOf(base string) (Component, bool) {
	for c := Header; c <= Debug; c++ {
		if base == c.String()+".cap" {
			return c, true
		}
	}
	return 0, false
}

// readEntry reads at most a component's greatest size, whatever the archive
// claims.
func readEntry(entry *zip.File) ([]byte, error) {
	if entry.UncompressedSize64 > maxComponent {
		return nil, fmt.Errorf("%w: %q has %d bytes, %d at most", ErrTooLarge, entry.Name, entry.UncompressedSize64, maxComponent)
	}
	r, err := entry.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrMalformed, entry.Name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxComponent+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %q: %w", ErrMalformed, entry.Name, err)
	case len(b) > maxComponent:
		return nil, fmt.Errorf("%w: %q has more than %d bytes", ErrTooLarge, entry.Name, maxComponent)
	}
	return b, nil
}

// ParseLoadFileDataBlock reads what a card receives: the components one after
// another, without the archive around them, in the prescribed order. Some
// hosts send the Descriptor too, as the last one (JCVM 6.3). The result's
// LoadFileDataBlock is b again.
func ParseLoadFileDataBlock(b []byte) (*File, error) {
	var f File
	rest := b
	for _, c := range append(loadOrder[:], Descriptor) {
		if len(rest) == 0 || Component(rest[0]) != c {
			continue // parse says if it is missed
		}
		if len(rest) < 3 || len(rest)-3 < u2(rest[1:]) {
			return nil, fmt.Errorf("%w: the %v component is cut short", ErrMalformed, c)
		}
		n := 3 + u2(rest[1:])
		f.components[c], rest = bytes.Clone(rest[:n]), rest[n:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last component that belongs there", ErrMalformed, len(rest))
	}
	f.loadDescriptor = f.components[Descriptor] != nil
	if err := f.parse(); err != nil {
		return nil, err
	}
	return &f, nil
}

// LoadFileDataBlock returns the components in the prescribed order, as they
// go to a card: the value of tag C4 (GPCS table 11-58).
func (f *File) LoadFileDataBlock() []byte {
	var out []byte
	for _, c := range loadOrder {
		out = append(out, f.components[c]...)
	}
	if f.loadDescriptor {
		out = append(out, f.components[Descriptor]...)
	}
	return out
}

// Hash returns the SHA-256 of the load file data block (GPCS C.2), which is
// what identifies the code; a CAP file has other parts that no card sees.
func (f *File) Hash() [sha256.Size]byte { return sha256.Sum256(f.LoadFileDataBlock()) }

// HasHash reports whether a load file data block with that SHA-256 is of this
// file, with or without the Descriptor component, which takes no part in
// execution and which some hosts load too.
func (f *File) HasHash(sum [sha256.Size]byte) bool {
	return sum == f.Hash() || !f.loadDescriptor && sum == sha256.Sum256(append(f.LoadFileDataBlock(), f.components[Descriptor]...))
}

// Component returns a component whole, with tag and size; nil where the file
// has none.
func (f *File) Component(c Component) []byte {
	if c == 0 || int(c) >= len(f.components) {
		return nil
	}
	return bytes.Clone(f.components[c])
}

// parse checks the components and fills in what the file says of itself.
func (f *File) parse() error {
	for c := Header; c <= Debug; c++ {
		b := f.components[c]
		if b == nil {
			if c != Debug && c != Descriptor && !optional(c) {
				return fmt.Errorf("%w: no %v component", ErrMalformed, c)
			}
			continue
		}
		switch {
		case len(b) < 3:
			return fmt.Errorf("%w: the %v component has %d bytes", ErrMalformed, c, len(b))
		case b[0] != byte(c):
			return fmt.Errorf("%w: the %v component has the tag %d", ErrMalformed, c, b[0])
		case u2(b[1:]) != len(b)-3:
			return fmt.Errorf("%w: the %v component says %d bytes and has %d", ErrMalformed, c, u2(b[1:]), len(b)-3)
		}
	}
	for _, step := range []struct {
		c     Component
		parse func(*reader)
	}{
		{Header, f.parseHeader}, {Import, f.parseImport}, {Applet, f.parseApplet}, {Directory, f.parseDirectory},
	} {
		if f.components[step.c] == nil {
			continue
		}
		r := &reader{b: f.components[step.c][3:]}
		step.parse(r)
		switch {
		case r.err != nil:
			return fmt.Errorf("%v component: %w", step.c, r.err)
		case len(r.b) > 0:
			return fmt.Errorf("%w: %d bytes left over in the %v component", ErrMalformed, len(r.b), step.c)
		}
	}
	return nil
}

const magic = 0xDECAFFED

// parseHeader reads JCVM 6.4.
func (f *File) parseHeader(r *reader) {
	if uint32(r.u2())<<16|uint32(r.u2()) != magic {
		r.fail("%w: no magic number", ErrMalformed)
		return
	}
	f.FormatMinor, f.FormatMajor = r.u1(), r.u1()
	if r.err == nil && (f.FormatMajor != 2 || f.FormatMinor < 1 || f.FormatMinor > 2) {
		r.fail("%w: version %d.%d, 2.1 and 2.2 are known", ErrUnsupported, f.FormatMajor, f.FormatMinor)
		return
	}
	r.u1() // flags
	f.Package = r.packageInfo()
	if len(r.b) > 0 { // format 2.2 adds the package's name
		f.Package.Name = string(r.bytes(int(r.u1())))
	}
}

// parseImport reads JCVM 6.7.
func (f *File) parseImport(r *reader) {
	for range r.u1() {
		f.Imports = append(f.Imports, r.packageInfo())
	}
}

// parseApplet reads JCVM 6.6.
func (f *File) parseApplet(r *reader) {
	for range r.u1() {
		aid := r.aid()
		r.u2() // offset of the install method
		for _, other := range f.Applets {
			if other == aid {
				r.fail("%w: two applets have the AID %v", ErrMalformed, aid)
			}
		}
		f.Applets = append(f.Applets, aid)
	}
}

// parseDirectory checks JCVM 6.5 against the components that are there.
func (f *File) parseDirectory(r *reader) {
	sizes := int(Descriptor)
	if f.FormatMinor >= 2 {
		sizes = int(Debug)
	}
	for c := Header; int(c) <= sizes; c++ {
		size, b := r.u2(), f.components[c]
		if r.err != nil {
			return
		}
		switch {
		case b == nil && c != Debug && c != Descriptor && size != 0:
			r.fail("%w: it lists a %v component of %d bytes, which is not there", ErrMalformed, c, size)
		case b != nil && c != Debug && size != len(b)-3:
			r.fail("%w: it says %d bytes for the %v component, which has %d", ErrMalformed, size, c, len(b)-3)
		}
	}
	r.bytes(6) // sizes of the static field image
	imports, applets := int(r.u1()), int(r.u1())
	if r.err == nil && (imports != len(f.Imports) || applets != len(f.Applets)) {
		r.fail("%w: it counts %d imports and %d applets, there are %d and %d", ErrMalformed, imports, applets, len(f.Imports), len(f.Applets))
	}
	for range r.u1() { // custom components stay outside the card
		r.u1()
		r.u2()
		r.aid()
	}
}

func u2(b []byte) int { return int(b[0])<<8 | int(b[1]) }

// reader takes a component apart; after a failure it yields zeros and keeps
// the first error.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.b = nil
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("%w: it is cut short", ErrMalformed)
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u1() byte { return r.bytes(1)[0] }
func (r *reader) u2() int  { return u2(r.bytes(2)) }

func (r *reader) aid() iso7816.AID {
	b := r.bytes(int(r.u1()))
	if r.err != nil {
		return iso7816.AID{}
	}
	aid, err := iso7816.NewAID(b)
	if err != nil {
		r.fail("%w: %w", ErrMalformed, err)
	}
	return aid
}

func (r *reader) packageInfo() Package {
	minor, major := r.u1(), r.u1()
	return Package{AID: r.aid(), Major: major, Minor: minor}
}
