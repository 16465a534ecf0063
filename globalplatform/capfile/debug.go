package capfile

import (
	"fmt"
	"unicode/utf8"
)

// DebugInfo is what a Debug component says (JCVM 6.14): the names and source
// lines of a package's methods. It stays outside of cards.
type DebugInfo struct {
	Package string // with slashes
	Classes []DebugClass
}

// DebugClass is a class or an interface.
type DebugClass struct {
	Name     string // with the package and slashes
	Source   string // name of the source file; may be empty
	Location int    // offset in the Class component
	Methods  []DebugMethod
}

// DebugMethod is a method.
type DebugMethod struct {
	Name       string
	Descriptor string // types of arguments and result, as in (SS)S
	// Location is the offset of the method's header in the Method component, 0
	// for one without code; Header and Body are the sizes of header and code.
	Location, Header, Body int
	Lines                  []DebugLine
}

// DebugLine says where the code of a source line is, in offsets from the
// method's first bytecode, both included.
type DebugLine struct{ From, To, Line int }

const (
	accAbstract = 0x0400
	accNative   = 0x0100
)

// Debug reads the Debug component; the result is nil where the file has none.
// Errors wrap [ErrMalformed].
func (f *File) Debug() (*DebugInfo, error) {
	if f.components[Debug] == nil {
		return nil, nil
	}
	r := &reader{b: f.components[Debug][3:]}
	d := r.debugInfo()
	switch {
	case r.err != nil:
		return nil, fmt.Errorf("%v component: %w", Debug, r.err)
	case len(r.b) > 0:
		return nil, fmt.Errorf("%w: %d bytes left over in the %v component", ErrMalformed, len(r.b), Debug)
	}
	return d, nil
}

// debugInfo reads JCVM 6.14. Counts are bounded by what is there: a failure
// ends every loop, and each turn takes bytes.
func (r *reader) debugInfo() *DebugInfo {
	var names []string
	for n := r.u2(); n > 0 && r.err == nil; n-- {
		b := r.bytes(r.u2())
		if r.err == nil && !utf8.Valid(b) {
			r.fail("%w: a name is not in UTF-8", ErrMalformed)
		}
		names = append(names, string(b))
	}
	name := func() string {
		i := r.u2()
		if r.err == nil && i >= len(names) {
			r.fail("%w: it has %d names and refers to number %d", ErrMalformed, len(names), i)
		}
		if r.err != nil {
			return ""
		}
		return names[i]
	}
	d := &DebugInfo{Package: name()}
	for n := r.u2(); n > 0 && r.err == nil; n-- {
		var c DebugClass
		c.Name = name()
		r.u2() // access flags
		c.Location = r.u2()
		name() // of the superclass
		c.Source = name()
		interfaces, fields, methods := int(r.u1()), r.u2(), r.u2()
		for ; interfaces > 0 && r.err == nil; interfaces-- {
			name()
		}
		for ; fields > 0 && r.err == nil; fields-- {
			name()
			name()     // descriptor
			r.bytes(6) // access flags; token, location or value
		}
		for ; methods > 0 && r.err == nil; methods-- {
			c.Methods = append(c.Methods, r.debugMethod(name))
		}
		d.Classes = append(d.Classes, c)
	}
	return d
}

func (r *reader) debugMethod(name func() string) DebugMethod {
	m := DebugMethod{Name: name(), Descriptor: name()}
	flags := r.u2()
	m.Location, m.Header, m.Body = r.u2(), int(r.u1()), r.u2()
	if flags&(accAbstract|accNative) != 0 {
		m.Location = 0
	}
	variables, lines := r.u2(), r.u2()
	for ; variables > 0 && r.err == nil; variables-- {
		r.u1() // number
		name()
		name() // descriptor
		r.bytes(4)
	}
	for ; lines > 0 && r.err == nil; lines-- {
		l := DebugLine{r.u2(), r.u2(), r.u2()}
		if r.err == nil && (l.From > l.To || l.To >= m.Body) {
			r.fail("%w: a line beyond the code of %s", ErrMalformed, m.Name)
		}
		m.Lines = append(m.Lines, l)
	}
	return m
}
