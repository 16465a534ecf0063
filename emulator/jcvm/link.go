package jcvm

import (
	"encoding/binary"
	"fmt"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// Link implements [oncard.Linker]: it checks and links a load file, and makes
// its static fields if the card meets it for the first time.
func (vm *VM) Link(aid iso7816.AID, loadFile []byte, _ [32]byte) (map[iso7816.AID]oncard.Module, error) {
	vm.sync()
	if p := vm.packages[aid]; p != nil && vm.objs[p.root] == nil {
		vm.forget(p) // a load that was taken back
	}
	file, err := capfile.ParseLoadFileDataBlock(loadFile)
	if err != nil {
		return nil, err
	}
	if file.Package.AID != aid {
		return nil, fmt.Errorf("%w: it is the package %v, not %v", ErrLoadFile, file.Package.AID, aid)
	}
	if vm.packages[aid] != nil || vm.api.byAID[aid] != nil {
		return nil, fmt.Errorf("%w: the package %v is there already", ErrLoadFile, aid)
	}
	p, err := vm.link(file)
	if err != nil {
		return nil, fmt.Errorf("package %v: %w", aid, err)
	}
	if err := vm.attach(p); err != nil {
		return nil, fmt.Errorf("package %v: %w", aid, err)
	}
	modules := map[iso7816.AID]oncard.Module{}
	for _, a := range p.applets {
		modules[a.aid] = &module{vm: vm, pkg: p, install: a.install, aid: a.aid}
	}
	return modules, nil
}

// attach gives a package its object, a new one or that which it has had, and
// makes the classes of objects known.
func (vm *VM) attach(p *pkg) error {
	for r, o := range vm.objs {
		if o != nil && o.kind == kindPackage && len(o.data) >= packageStatics {
			if n := int(o.data[0]); n <= 16 && string(o.data[1:1+n]) == string(p.aid.Bytes()) {
				if len(o.data) != packageStatics+p.staticSize {
					return fmt.Errorf("%w: its static fields have another size than those on the card", ErrLoadFile)
				}
				p.root = ref(r)
			}
		}
	}
	fresh := p.root == 0
	if fresh {
		data := make([]byte, packageStatics+p.staticSize)
		data[0] = byte(p.aid.Len())
		copy(data[1:], p.aid.Bytes())
		copy(data[packageStatics+p.staticSize-len(p.initial.values):], p.initial.values)
		if err := vm.guard(func() { p.root = vm.allocate(kindPackage, 0, 0, 0, data).self }); err != nil {
			return vm.outOfMemory(err)
		}
	}
	for n, c := range p.classes {
		c.id = uint32(p.root)<<16 | uint32(n)
	}
	vm.packages[p.aid], vm.byRoot[p.root] = p, p
	if fresh {
		err := vm.guard(func() {
			for i, a := range p.initial.arrays {
				o := vm.allocate(a.kind, 0, p.root, 0, a.data)
				vm.write2(vm.objs[p.root], packageStatics+2*i, uint16(o.self))
			}
		})
		if err != nil {
			vm.forget(p)
			return vm.outOfMemory(err)
		}
	}
	for _, o := range vm.objs {
		if o != nil && o.stored {
			vm.resolve(o)
		}
	}
	return nil
}

// outOfMemory turns the exception that stands for it into the status word.
func (vm *VM) outOfMemory(err error) error {
	u, ok := err.(*uncaught)
	if !ok || !vm.objs[u.exception].class.extends(vm.api.classes["javacard/framework/SystemException"]) {
		return err
	}
	if r := vm.reason(u.exception); r == systemNoResource || r == systemNoTransientSpace {
		return iso7816.ErrNoMemory
	}
	return err
}

func (vm *VM) forget(p *pkg) {
	delete(vm.packages, p.aid)
	delete(vm.byRoot, p.root)
}

// Unlink implements [oncard.Runtime].
func (vm *VM) Unlink(aid iso7816.AID) error {
	vm.sync()
	p := vm.packages[aid]
	if p == nil {
		return nil
	}
	for _, q := range vm.packages {
		for _, i := range q.imports {
			if i == p && q != p {
				return fmt.Errorf("package %v needs it: %w", q.aid, iso7816.ErrConditions)
			}
		}
	}
	mine := func(o *object) bool {
		return o.self == p.root || o.owner == p.root || o.class != nil && o.class.pkg == p || o.element != nil && o.element.pkg == p
	}
	for r := range vm.mark(func(o *object) bool { return o.self != p.root }) {
		if mine(vm.objs[r]) {
			return fmt.Errorf("another package refers to an object of it: %w", iso7816.ErrConditions)
		}
	}
	for r := firstHandle; r < len(vm.objs); r++ {
		if o := vm.objs[r]; o != nil && mine(o) {
			if err := vm.free(ref(r)); err != nil {
				return err
			}
		}
	}
	vm.forget(p)
	return nil
}

// Data of a package's object: length and bytes of its AID, then the static
// fields as JCVM 6.11 lays them out.
const packageStatics = 17

// staticInit is what the static fields hold at first (JCVM 6.11).
type staticInit struct {
	arrays []arrayInit
	values []byte // of the last fields
}

type arrayInit struct {
	kind kind
	data []byte
}

// linkError unwinds the linker.
type linkError struct{ err error }

func fail(format string, args ...any) { panic(linkError{fmt.Errorf(format, args...)}) }

func malformed(format string, args ...any) {
	fail("%w: %s", ErrLoadFile, fmt.Sprintf(format, args...))
}

// component reads a component's bytes in order.
type component struct {
	name string
	b    []byte
	pos  int
}

func (c *component) bytes(n int) []byte {
	if n < 0 || n > len(c.b)-c.pos {
		malformed("the %s component ends early", c.name)
	}
	b := c.b[c.pos : c.pos+n]
	c.pos += n
	return b
}

func (c *component) u1() int { return int(c.bytes(1)[0]) }
func (c *component) u2() int { return int(binary.BigEndian.Uint16(c.bytes(2))) }
func (c *component) end() {
	if c.pos != len(c.b) {
		malformed("%d bytes too many in the %s component", len(c.b)-c.pos, c.name)
	}
}

// linking is a load file on its way to become a package.
type linking struct {
	vm   *VM
	file *capfile.File
	pkg  *pkg

	methodBytes []byte
	handlers    []rawHandler
	firstMethod int // offset
	decoded     int // instructions, to bound them
	todo        []*method
	raw         []rawConstant

	offsets  []int // of classes in their component, in order
	rawClass map[int]*rawClass
}

func (vm *VM) link(file *capfile.File) (p *pkg, err error) {
	defer func() {
		if e := recover(); e != nil {
			l, ok := e.(linkError)
			if !ok {
				panic(e)
			}
			p, err = nil, l.err
		}
	}()
	l := &linking{vm: vm, file: file, rawClass: map[int]*rawClass{}}
	l.pkg = &pkg{
		aid: file.Package.AID, name: file.Package.Name, major: file.Package.Major, minor: file.Package.Minor,
		library: len(file.Applets) == 0, classes: map[int]*class{}, methods: map[int]*method{},
	}
	l.imports()
	l.statics()
	l.methodComponent()
	l.parseClasses()
	l.parseConstants()
	l.buildClasses()
	l.resolveConstants()
	l.exports()
	l.applets()
	l.reflocation()
	if l.vm.options.Trace.of(l) {
		l.trace()
	}
	for len(l.todo) > 0 {
		m := l.todo[0]
		l.todo = l.todo[1:]
		l.decode(m)
	}
	return l.pkg, nil
}

func (l *linking) component(c capfile.Component) *component {
	b := l.file.Component(c)
	if len(b) < 3 {
		return &component{name: c.String()}
	}
	return &component{name: c.String(), b: b[3:]}
}

// imports finds the packages that are needed (JCVM 6.7, 4.5.2).
func (l *linking) imports() {
	for _, need := range l.file.Imports {
		p := l.vm.api.byAID[need.AID]
		if p == nil {
			p = l.vm.packages[need.AID]
		}
		switch {
		case p == nil:
			fail("%w: package %v", ErrMissing, need.AID)
		case p.major != need.Major || p.minor < need.Minor:
			fail("%w: package %v in version %d.%d, there is %d.%d", ErrMissing, need.AID, need.Major, need.Minor, p.major, p.minor)
		}
		l.pkg.imports = append(l.pkg.imports, p)
	}
}

// statics reads the StaticField component (JCVM 6.11).
func (l *linking) statics() {
	c := l.component(capfile.StaticField)
	p := l.pkg
	p.staticSize, p.staticRefs = c.u2(), c.u2()
	if 2*p.staticRefs > p.staticSize {
		malformed("%d references in static fields of %d bytes", p.staticRefs, p.staticSize)
	}
	arrays := c.u2()
	if arrays > p.staticRefs {
		malformed("%d initialised arrays for %d references", arrays, p.staticRefs)
	}
	for range arrays {
		k, ok := map[int]kind{2: kindBoolean, 3: kindByte, 4: kindShort, 5: kindInt}[c.u1()]
		n := c.u2()
		data := c.bytes(n)
		if !ok || n%k.size() != 0 {
			malformed("an initialised array of an unknown type or size")
		}
		p.initial.arrays = append(p.initial.arrays, arrayInit{k, append([]byte(nil), data...)})
	}
	zero, n := c.u2(), c.u2()
	p.initial.values = append([]byte(nil), c.bytes(n)...)
	c.end()
	if 2*p.staticRefs+zero+n != p.staticSize {
		malformed("static fields of %d bytes are said to have %d", 2*p.staticRefs+zero+n, p.staticSize)
	}
}

// rawHandler is an exception handler by offsets in the Method component.
type rawHandler struct{ from, to, target, class int }

// methodComponent reads the handlers; methods are read when something refers
// to them (JCVM 6.10).
func (l *linking) methodComponent() {
	c := l.component(capfile.Method)
	l.methodBytes = c.b
	for range c.u1() {
		from, active, target, class := c.u2(), c.u2()&0x7FFF, c.u2(), c.u2()
		l.handlers = append(l.handlers, rawHandler{from, from + active, target, class})
	}
	l.firstMethod = c.pos
	for _, h := range l.handlers {
		if h.from < l.firstMethod || h.to > len(c.b) || h.target < l.firstMethod || h.target >= len(c.b) {
			malformed("an exception handler outside of the code")
		}
	}
}

// method returns the method at an offset; its code is decoded later.
func (l *linking) method(offset int) *method {
	if m := l.pkg.methods[offset]; m != nil {
		return m
	}
	c := &component{name: "Method", b: l.methodBytes, pos: offset}
	if offset < l.firstMethod {
		malformed("a method at offset %d, where no method can be", offset)
	}
	m := &method{pkg: l.pkg, offset: offset}
	var stack, locals int
	first := c.u1()
	flags := first >> 4
	if flags&0x8 != 0 {
		stack, m.args, locals = c.u1(), c.u1(), c.u1()
	} else {
		second := c.u1()
		stack, m.args, locals = first&0xF, second>>4, second&0xF
	}
	m.abstract = flags&0x4 != 0
	m.operands = m.args + locals
	m.frame = m.operands + stack
	l.pkg.methods[offset] = m
	if !m.abstract {
		l.todo = append(l.todo, m)
	}
	return m
}

// rawClass is a class or an interface as its component has it (JCVM 6.9).
type rawClass struct {
	iface, shareable         bool
	super                    int
	size, firstRef, refCount int
	publicBase, privateBase  int
	public, private          []int
	interfaces               []rawInterface
	class                    *class
	building, built          bool
}

type rawInterface struct {
	ref    int
	tokens []uint8
}

// parseClasses reads the Class component.
func (l *linking) parseClasses() {
	c := l.component(capfile.Class)
	if l.file.FormatMinor >= 2 {
		c.bytes(c.u2()) // signatures, for remote methods
	}
	for c.pos < len(c.b) {
		offset := c.pos
		if offset >= 0x8000 {
			malformed("a class at offset %d", offset)
		}
		bits := c.u1()
		r := &rawClass{iface: bits&0x80 != 0, shareable: bits&0x40 != 0, super: -1}
		remote, n := bits&0x20 != 0, bits&0xF
		if r.iface {
			for range n {
				r.interfaces = append(r.interfaces, rawInterface{ref: c.u2()})
			}
			if remote {
				c.bytes(c.u1())
			}
		} else {
			if r.super = c.u2(); r.super == 0xFFFF {
				malformed("a class without a superclass")
			}
			r.size, r.firstRef, r.refCount = c.u1(), c.u1(), c.u1()
			r.publicBase = c.u1()
			public := c.u1()
			r.privateBase = c.u1()
			private := c.u1()
			for range public {
				r.public = append(r.public, c.u2())
			}
			for range private {
				r.private = append(r.private, c.u2())
			}
			for range n {
				i := rawInterface{ref: c.u2()}
				i.tokens = append(i.tokens, c.bytes(c.u1())...)
				r.interfaces = append(r.interfaces, i)
			}
			if remote {
				for range c.u1() {
					c.bytes(5)
				}
				c.bytes(c.u1())
				c.bytes(c.u1())
				c.bytes(2 * c.u1())
			}
			if r.refCount > 0 && r.firstRef+r.refCount > r.size {
				malformed("more references than fields in the class at offset %d", offset)
			}
		}
		r.class = &class{pkg: l.pkg, iface: r.iface}
		l.rawClass[offset] = r
		l.pkg.classes[offset] = r.class
		l.offsets = append(l.offsets, offset)
	}
}

// class resolves a class_ref (JCVM 6.8.1).
func (l *linking) class(ref int) *class {
	if ref&0x8000 != 0 {
		p, token := l.imported(ref>>8&0x7F), ref&0xFF
		c := p.classByToken(token)
		if c == nil {
			fail("%w: class %d of package %v", ErrMissing, token, p.aid)
		}
		return c
	}
	r := l.rawClass[ref]
	if r == nil {
		malformed("a reference to a class at offset %d, where none is", ref)
	}
	l.build(r)
	return r.class
}

func (l *linking) imported(n int) *pkg {
	if n >= len(l.pkg.imports) {
		malformed("a reference to import %d of %d", n, len(l.pkg.imports))
	}
	return l.pkg.imports[n]
}

func (l *linking) buildClasses() {
	for _, offset := range l.offsets {
		l.build(l.rawClass[offset])
	}
}

// maxFields bounds the words of an object's fields.
const maxFields = 255 * 16

// build completes a class, after its superclass and interfaces.
func (l *linking) build(r *rawClass) {
	if r.built {
		return
	}
	if r.building {
		malformed("a class that inherits from itself")
	}
	r.building = true
	c := r.class
	if r.iface {
		c.supers = []*class{l.vm.api.object, c}
		c.virtual = l.vm.api.object.virtual
		c.shareable = r.shareable
		for _, i := range r.interfaces {
			s := l.class(i.ref)
			if !s.iface {
				malformed("an interface that extends a class")
			}
			c.interfaces = append(append(c.interfaces, s), s.interfaces...)
			c.shareable = c.shareable || s == l.vm.api.shareable || s.shareable
		}
		r.built = true
		return
	}
	s := l.class(r.super)
	if s.iface || s == l.vm.api.array {
		malformed("a class that extends an interface")
	}
	c.supers = append(append(c.supers, s.supers...), c)
	if len(c.supers) > 64 {
		malformed("a class with more than 64 superclasses")
	}
	c.size = s.size + r.size
	if c.size > maxFields {
		malformed("objects of %d words", c.size)
	}
	c.refs = append(append(c.refs, s.refs...), make([]bool, r.size)...)
	for i := range r.refCount {
		c.refs[s.size+r.firstRef+i] = true
	}
	c.virtual = l.table(s.virtual, r.publicBase, r.public)
	var inherited []*method
	if s.pkg == l.pkg {
		inherited = s.private
	}
	c.private = l.table(inherited, r.privateBase, r.private)
	c.implements = map[*class][]uint8{}
	for _, i := range r.interfaces {
		s := l.class(i.ref)
		if !s.iface {
			malformed("a class that implements a class")
		}
		for _, t := range i.tokens {
			if int(t) >= len(c.virtual) {
				malformed("an interface method that is implemented by none")
			}
		}
		c.interfaces = append(append(c.interfaces, s), s.interfaces...)
		c.implements[s] = i.tokens
	}
	r.built = true
}

// table makes the table of virtual methods from that of the superclass.
func (l *linking) table(inherited []*method, base int, offsets []int) []*method {
	out := append([]*method(nil), inherited...)
	if base > len(out) {
		malformed("a table of methods that begins at %d, after the %d inherited ones", base, len(out))
	}
	for i, offset := range offsets {
		n := base + i
		if offset == 0xFFFF {
			if n >= len(out) {
				malformed("a method that nothing defines")
			}
			continue
		}
		m := l.method(offset)
		switch {
		case m.args == 0:
			malformed("a virtual method without a receiver")
		case n < len(out) && out[n] != nil && out[n].args != m.args:
			malformed("a method that overrides one with other arguments")
		case n < len(out):
			out[n] = m
		default:
			out = append(out, m)
		}
	}
	if len(out) > 128 {
		malformed("%d virtual methods", len(out))
	}
	return out
}

// Tags of the constant pool (JCVM 6.8).
const (
	constClass = iota + 1
	constField
	constVirtual
	constSuper
	constStaticField
	constStaticMethod
)

type rawConstant struct {
	tag byte
	b   [3]byte
}

func (l *linking) parseConstants() {
	c := l.component(capfile.ConstantPool)
	for range c.u2() {
		b := c.bytes(4)
		if b[0] < constClass || b[0] > constStaticMethod {
			malformed("a constant of the type %d", b[0])
		}
		l.raw = append(l.raw, rawConstant{b[0], [3]byte(b[1:])})
	}
	c.end()
}

// resolveConstants resolves all at once: what is missing shows on loading.
func (l *linking) resolveConstants() {
	for _, r := range l.raw {
		l.pkg.constants = append(l.pkg.constants, l.resolve(r))
	}
}

func (l *linking) resolve(r rawConstant) constant {
	out := constant{tag: r.tag, pkg: l.pkg}
	b := r.b
	switch r.tag {
	case constClass:
		out.class = l.class(int(b[0])<<8 | int(b[1]))
	case constField:
		c := l.class(int(b[0])<<8 | int(b[1]))
		base := 0
		if s := c.super(); s != nil {
			base = s.size
		}
		word := base + int(b[2])
		if c.iface || c.pkg.native || word >= c.size {
			malformed("a field %d that its class has not", b[2])
		}
		out.class, out.offset, out.ref = c, 2*word, c.refs[word]
		out.wide = word+1 < c.size && !c.refs[word+1] && !c.refs[word]
	case constVirtual, constSuper:
		c := l.class(int(b[0])<<8 | int(b[1]))
		if r.tag == constSuper {
			if c.pkg != l.pkg {
				malformed("a call of a superclass's method for a class of another package")
			}
			if c = c.super(); c == nil {
				malformed("a call of a superclass's method where there is none")
			}
		}
		table, token := c.virtual, int(b[2])
		if token&0x80 != 0 {
			if c.pkg != l.pkg {
				malformed("a method that is visible in another package only")
			}
			table, token = c.private, token&0x7F
		}
		if token >= len(table) || table[token] == nil {
			if c.pkg.native {
				fail("%w: method %d of %v", ErrMissing, token, c)
			}
			malformed("a virtual method %d that its class has not", b[2])
		}
		out.class, out.token, out.method = c, int(b[2]), table[token]
		out.args = out.method.args
		if c.iface {
			malformed("a virtual method of an interface")
		}
	case constStaticField:
		if b[0]&0x80 != 0 {
			p := l.imported(int(b[0] & 0x7F))
			if p.native {
				fail("%w: static field %d of class %d of %s", ErrMissing, b[2], b[1], p.name)
			}
			if int(b[1]) >= len(p.exports) || int(b[2]) >= len(p.exports[b[1]].fields) {
				fail("%w: static field %d of class %d of %v", ErrMissing, b[2], b[1], p.aid)
			}
			out.pkg, out.offset = p, p.exports[b[1]].fields[b[2]]
		} else {
			out.offset = int(b[1])<<8 | int(b[2])
		}
		if out.offset >= out.pkg.staticSize {
			malformed("a static field at %d of %d bytes", out.offset, out.pkg.staticSize)
		}
		out.ref = out.offset < 2*out.pkg.staticRefs
		if out.ref && out.offset%2 != 0 {
			malformed("a static field in the middle of a reference")
		}
	case constStaticMethod:
		if b[0]&0x80 == 0 {
			out.method = l.method(int(b[1])<<8 | int(b[2]))
		} else {
			p := l.imported(int(b[0] & 0x7F))
			if p.native {
				c := p.classByToken(int(b[1]))
				if c == nil || int(b[2]) >= len(c.statics) || c.statics[b[2]] == nil {
					fail("%w: static method or constructor %d of class %d of %s", ErrMissing, b[2], b[1], p.name)
				}
				out.method = c.statics[b[2]]
			} else {
				if int(b[1]) >= len(p.exports) || int(b[2]) >= len(p.exports[b[1]].methods) {
					fail("%w: static method %d of class %d of %v", ErrMissing, b[2], b[1], p.aid)
				}
				out.method = p.exports[b[1]].methods[b[2]]
			}
		}
		out.args = out.method.args
	}
	return out
}

// exports reads the Export component (JCVM 6.12).
func (l *linking) exports() {
	c := l.component(capfile.Export)
	if len(c.b) == 0 {
		return
	}
	for range c.u1() {
		offset, fields, methods := c.u2(), c.u1(), c.u1()
		r := l.rawClass[offset]
		if r == nil {
			malformed("an export of a class at offset %d, where none is", offset)
		}
		e := exportedClass{class: r.class}
		for range fields {
			f := c.u2()
			if f >= l.pkg.staticSize {
				malformed("an export of a static field that is not there")
			}
			e.fields = append(e.fields, f)
		}
		for range methods {
			e.methods = append(e.methods, l.method(c.u2()))
		}
		l.pkg.exports = append(l.pkg.exports, e)
	}
	c.end()
}

// applets finds the install methods (JCVM 6.6).
func (l *linking) applets() {
	c := l.component(capfile.Applet)
	if len(c.b) == 0 {
		return
	}
	for range c.u1() {
		aid, err := iso7816.NewAID(c.bytes(c.u1()))
		if err != nil {
			malformed("an applet's AID: %v", err)
		}
		m := l.method(c.u2())
		if m.args != 3 || m.abstract {
			malformed("an install method with %d arguments", m.args)
		}
		l.pkg.applets = append(l.pkg.applets, appletEntry{aid, m})
	}
	c.end()
}

// reflocation checks the structure of the RefLocation component (JCVM 6.13).
// Nothing needs it here: instructions are decoded, so that their operands are
// known anyway.
func (l *linking) reflocation() {
	c := l.component(capfile.RefLocation)
	c.bytes(c.u2())
	c.bytes(c.u2())
	c.end()
}
