package jcvm

import (
	"strings"
	"sync"

	"github.com/freearea/freearea/iso7816"
)

// Access flags of classes and methods.
const (
	accStatic    = 0x0008
	accInterface = 0x0200
	accAbstract  = 0x0400
	accShareable = 0x0800
)

// class is a class or an interface, of the API or of a loaded package.
type class struct {
	id         uint32 // in headers of objects
	name       string // of the API's, else empty
	pkg        *pkg
	iface      bool
	abstract   bool
	shareable  bool     // an interface that extends Shareable
	supers     []*class // from java.lang.Object to the class itself
	interfaces []*class // all that it implements itself, with their superinterfaces
	// implements maps the methods of an interface to virtual methods, where a
	// loaded class implements it: by token.
	implements map[*class][]uint8

	size int    // of all fields, in words of 2 bytes
	refs []bool // which of them are references

	virtual []*method // public and protected, by token
	private []*method // visible in the package, by token
	named   map[string]*method
	tokens  []string // of the API's interfaces and classes: signature by token
	statics []*method
}

func (c *class) String() string {
	switch {
	case c == nil:
		return "no class"
	case c.name != "":
		return c.name
	}
	return "class of " + c.pkg.aid.String()
}

func (c *class) super() *class {
	if len(c.supers) < 2 {
		return nil
	}
	return c.supers[len(c.supers)-2]
}

// extends reports whether c is the class d or a subclass of it.
func (c *class) extends(d *class) bool {
	if c == d {
		return true
	}
	if c == nil || d == nil {
		return false
	}
	n := len(d.supers) - 1
	return n >= 0 && n < len(c.supers) && c.supers[n] == d
}

// assignable reports whether a reference to a c may stand where a d is wanted
// (JCVM 7.5.10, checkcast).
func (c *class) assignable(d *class) bool {
	if c == nil || d == nil {
		return false
	}
	if !d.iface {
		if c.iface {
			return len(d.supers) == 1 || c == d
		}
		return c.extends(d)
	}
	if c == d {
		return true
	}
	for _, s := range c.supers {
		for _, i := range s.interfaces {
			if i == d {
				return true
			}
		}
	}
	for _, i := range c.interfaces {
		if i == d {
			return true
		}
	}
	return false
}

// find looks a virtual method up by its signature, which only the API's
// classes have.
func (c *class) find(signature string) *method {
	for i := len(c.supers) - 1; i >= 0; i-- {
		if m := c.supers[i].named[signature]; m != nil {
			return m
		}
	}
	return nil
}

// interfaceMethod finds what implements a method of an interface in the class
// of an object.
func (c *class) interfaceMethod(i *class, token int) *method {
	for n := len(c.supers) - 1; n >= 0; n-- {
		s := c.supers[n]
		if tokens, ok := s.implements[i]; ok {
			if token < len(tokens) && int(tokens[token]) < len(c.virtual) {
				return c.virtual[tokens[token]]
			}
			return nil
		}
		if s.pkg.native && token < len(i.tokens) && s.assignable(i) {
			signature := i.tokens[token]
			for t, x := range s.tokens { // a subclass may have overridden it
				if x == signature && t < len(c.virtual) && !s.iface {
					return c.virtual[t]
				}
			}
			return c.find(signature)
		}
	}
	return nil
}

// method is a method in the form in which it is executed.
type method struct {
	pkg      *pkg
	offset   int    // in the Method component
	name     string // of the API's: class and signature
	args     int    // slots, with the receiver
	operands int    // slots of arguments and local variables: the operands begin there
	frame    int    // slots in all, with the operands
	class    *class // of the API's: where it is declared
	abstract bool
	void     bool // of native methods: there is no result

	code     []instruction
	at       []int    // offset of each instruction in the Method component
	texts    []string // of bytecodes, for a trace
	handlers []handler
	switches []switchTable
	native   native
}

// instruction is a decoded bytecode. Which fields mean what depends on op.
type instruction struct {
	op uint8
	x  uint8  // number of arguments, type of array, counts
	n  uint16 // index into the constants, local variable, token
	a  int32  // constant, target of a jump, offset of a field
}

type handler struct {
	from, to, target int // indices of instructions
	class            *class
}

type switchTable struct {
	low, high int32 // of a table switch
	keys      []int32
	targets   []int
	other     int
}

// pkg is a package.
type pkg struct {
	aid          iso7816.AID
	name         string
	major, minor byte
	native       bool // of the API
	library      bool
	root         ref // of loaded ones: the object with the static fields
	imports      []*pkg
	classes      map[int]*class // of loaded ones by offset, of the API by token
	exports      []exportedClass
	constants    []constant
	methods      map[int]*method
	staticRefs   int
	staticSize   int
	applets      []appletEntry
	initial      staticInit
	trace        *tracing // nil where nothing is shown
}

type exportedClass struct {
	class   *class
	fields  []int
	methods []*method
}

type appletEntry struct {
	aid     iso7816.AID
	install *method
}

func (p *pkg) classByToken(n int) *class {
	if p.native {
		return p.classes[n]
	}
	if n < len(p.exports) {
		return p.exports[n].class
	}
	return nil
}

// constant is a resolved entry of the constant pool.
type constant struct {
	tag    byte
	class  *class
	pkg    *pkg // of a static field
	method *method
	offset int // of a field, in bytes
	token  int // of a virtual method
	args   int
	ref    bool // a field that is a reference
	wide   bool // there is room for an int
}

// api is the API: made once, and never changed.
type api struct {
	packages []*pkg
	byAID    map[iso7816.AID]*pkg
	classes  map[string]*class

	object, throwable, array, isoException, appletClass, shareable *class
	multiSelectable, appletEvent, extended, aid                    *class
}

type apiPackage struct {
	name, aid    string
	major, minor byte
	classes      []apiClass
}

type apiClass struct {
	token      int
	name       string
	flags      uint16
	super      string
	interfaces []string
	methods    []apiMethod
}

type apiMethod struct {
	token     int
	flags     uint16
	signature string
}

// theAPI builds the tables of the API; nothing changes them afterwards.
var theAPI = sync.OnceValue(buildAPI)

func buildAPI() *api {
	a := &api{byAID: map[iso7816.AID]*pkg{}, classes: map[string]*class{}}
	natives := map[string]native{}
	for _, table := range []map[string]native{
		nativesLang, nativesFramework, nativesAPDU, nativesPIN, nativesSecurity, nativesCipher, nativesKeys, nativesAsymmetric, nativesGP,
		nativesAPDUUtil, nativesArrays, nativesAEAD, nativesOneShot, nativesResult,
	} {
		for name, f := range table {
			if natives[name] != nil {
				panic("two implementations of " + name)
			}
			natives[name] = f
		}
	}
	used := 0
	for i, ap := range apiPackages {
		p := &pkg{
			aid: iso7816.MustAID(ap.aid), name: ap.name, major: ap.major, minor: ap.minor,
			native: true, library: true, classes: map[int]*class{},
		}
		a.packages = append(a.packages, p)
		a.byAID[p.aid] = p
		for _, ac := range ap.classes {
			c := &class{
				id: uint32(int(apiPackageRef)+i)<<16 | uint32(ac.token), name: ac.name, pkg: p,
				iface: ac.flags&accInterface != 0, abstract: ac.flags&accAbstract != 0, shareable: ac.flags&accShareable != 0,
				named: map[string]*method{},
			}
			p.classes[ac.token], a.classes[ac.name] = c, c
		}
	}
	done := map[*class]bool{}
	var finish func(ac apiClass)
	byName := map[string]apiClass{}
	for _, ap := range apiPackages {
		for _, ac := range ap.classes {
			byName[ac.name] = ac
		}
	}
	finish = func(ac apiClass) {
		c := a.classes[ac.name]
		if done[c] {
			return
		}
		done[c] = true
		if ac.super != "" {
			finish(byName[ac.super])
			s := a.classes[ac.super]
			c.supers = append(c.supers, s.supers...)
			c.size, c.refs = s.size, append(c.refs, s.refs...)
			if !c.iface {
				c.virtual = append(c.virtual, s.virtual...)
			}
		}
		c.supers = append(c.supers, c)
		if !c.iface {
			// The interface that a native object is of, if it has no class of its
			// own in the API: see nativeFields.
			for _, f := range nativeFields[ac.name] {
				c.refs = append(c.refs, f == 'L')
				c.size++
			}
		}
		for _, name := range ac.interfaces {
			finish(byName[name])
			i := a.classes[name]
			c.interfaces = append(c.interfaces, i)
			c.interfaces = append(c.interfaces, i.interfaces...)
		}
		if c.iface {
			// Objects of the machine's own have interfaces as their classes.
			for _, f := range nativeFields[ac.name] {
				c.refs = append(c.refs, f == 'L')
				c.size++
			}
		}
		for _, am := range ac.methods {
			name := ac.name + "." + am.signature
			m := &method{pkg: c.pkg, class: c, name: name, abstract: am.flags&accAbstract != 0 && !c.iface}
			m.args = argumentSlots(am.signature)
			m.void = strings.HasSuffix(am.signature, ")V")
			static := am.flags&accStatic != 0
			if !static {
				m.args++
			}
			m.native = natives[name]
			if result := am.signature[strings.IndexByte(am.signature, ')')+1]; m.native != nil && (sensitiveClasses[ac.name] || sensitiveMethods[name]) && !m.void {
				m.native = recording(m.native, result)
			}
			if m.native != nil {
				used++
				m.abstract = false
			}
			if static || strings.HasPrefix(am.signature, "<init>") {
				for len(c.statics) <= am.token {
					c.statics = append(c.statics, nil)
				}
				c.statics[am.token] = m
				continue
			}
			for len(c.tokens) <= am.token {
				c.tokens = append(c.tokens, "")
			}
			c.tokens[am.token] = am.signature
			if !c.iface {
				for len(c.virtual) <= am.token {
					c.virtual = append(c.virtual, nil)
				}
				if old := c.virtual[am.token]; old != nil && m.native == nil && strings.HasSuffix(old.name, "."+am.signature) {
					m = old // inherited
				}
				c.virtual[am.token] = m
			}
			if m.native != nil {
				c.named[am.signature] = m
			} else if c.iface { // what a superinterface has
				for _, i := range c.interfaces {
					if old := i.named[am.signature]; old != nil {
						c.named[am.signature] = old
					}
				}
			}
		}
		if c.iface {
			c.virtual = append([]*method(nil), a.classes["java/lang/Object"].virtual...)
		}
	}
	for _, ap := range apiPackages {
		for _, ac := range ap.classes {
			finish(ac)
		}
	}
	if used != len(natives) {
		for name := range natives {
			dot := strings.IndexByte(name, '.')
			c := a.classes[name[:dot]]
			if c == nil {
				panic("implementation of what the API doesn't have: " + name)
			}
			found := false
			for _, am := range byName[name[:dot]].methods {
				found = found || am.signature == name[dot+1:]
			}
			if !found {
				panic("implementation of what the API doesn't have: " + name)
			}
		}
	}
	a.object = a.classes["java/lang/Object"]
	a.throwable = a.classes["java/lang/Throwable"]
	a.isoException = a.classes["javacard/framework/ISOException"]
	a.appletClass = a.classes["javacard/framework/Applet"]
	a.shareable = a.classes["javacard/framework/Shareable"]
	a.multiSelectable = a.classes["javacard/framework/MultiSelectable"]
	a.appletEvent = a.classes["javacard/framework/AppletEvent"]
	a.extended = a.classes["javacardx/apdu/ExtendedLength"]
	a.aid = a.classes["javacard/framework/AID"]
	a.array = &class{name: "array", pkg: a.object.pkg, supers: []*class{a.object}, virtual: a.object.virtual}
	return a
}

// argumentSlots counts the slots that a method's arguments take.
func argumentSlots(signature string) int {
	n := 0
	for i := strings.IndexByte(signature, '(') + 1; signature[i] != ')'; i++ {
		for signature[i] == '[' {
			i++
		}
		if signature[i] == 'L' {
			i += strings.IndexByte(signature[i:], ';')
		} else if signature[i] == 'I' && signature[i-1] != '[' {
			n++
		}
		n++
	}
	return n
}

// Supported reports whether a member of the API is implemented, named as in
// "javacard/framework/Util.makeShort(BB)S", and whether the API has it at all.
func Supported(member string) (implemented, exists bool) {
	a := theAPI()
	dot := strings.IndexByte(member, '.')
	if dot < 0 {
		return false, false
	}
	c := a.classes[member[:dot]]
	if c == nil {
		return false, false
	}
	for _, m := range c.statics {
		if m != nil && m.name == member {
			return m.native != nil, true
		}
	}
	for _, signature := range c.tokens {
		if signature == member[dot+1:] {
			m := c.find(signature)
			return m != nil && m.native != nil, true
		}
	}
	return false, false
}
