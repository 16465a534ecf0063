package jcvm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// Member is something outside of a load file that it refers to.
type Member struct {
	Package iso7816.AID
	// Name is class and signature, such as
	// "javacard/framework/Util.makeShort(BB)S", or the class alone. Of packages
	// that aren't the API's it is tokens.
	Name string
	// Known says whether the API here has it; Implemented whether it can be
	// executed.
	Known, Implemented bool
}

// Members lists what a load file refers to in the packages that it imports:
// classes, methods and static fields, each once, in the order of the constant
// pool. What a method of an interface is called by stands in the code and not
// there: only the interface is listed. An error wraps [ErrLoadFile].
func Members(file *capfile.File) (list []Member, err error) {
	defer func() {
		if e := recover(); e != nil {
			l, ok := e.(linkError)
			if !ok {
				panic(e)
			}
			list, err = nil, l.err
		}
	}()
	a := theAPI()
	l := &linking{file: file, pkg: &pkg{}}
	l.parseConstants()
	seen := map[Member]bool{}
	for _, c := range l.raw {
		b := c.b
		if b[0]&0x80 == 0 || c.tag == constField || c.tag == constSuper {
			continue
		}
		n := int(b[0] & 0x7F)
		if n >= len(file.Imports) {
			malformed("a reference to import %d of %d", n, len(file.Imports))
		}
		m := Member{Package: file.Imports[n].AID, Name: fmt.Sprintf("class %d, member %d", b[1], b[2])}
		if p := a.byAID[m.Package]; p != nil {
			m.Name = p.name + ": " + m.Name
			if class := p.classByToken(int(b[1])); class != nil {
				class.describe(&m, c)
			}
		} else {
			m.Known, m.Implemented = true, true // if the package is on the card
		}
		if !seen[m] {
			seen[m] = true
			list = append(list, m)
		}
	}
	return list, nil
}

// describe names the member that a constant means.
func (c *class) describe(m *Member, r rawConstant) {
	var table []*method
	switch r.tag {
	case constClass:
		m.Name, m.Known, m.Implemented = c.name, true, true
		return
	case constStaticMethod:
		table = c.statics
	case constVirtual:
		table = c.virtual
	}
	if token := int(r.b[2]); token < len(table) && table[token] != nil {
		x := table[token]
		m.Name, m.Known, m.Implemented = x.name, true, x.native != nil || overridden(x)
	}
}

// overridden reports whether an abstract method is for applications to
// implement, such as Applet.process.
func overridden(m *method) bool {
	return m.name == "javacard/framework/Applet.process(Ljavacard/framework/APDU;)V"
}

// Missing are those members that a load file can't do without and that are not
// executed here, as an error for people: nil where there are none. It wraps
// [ErrMissing].
func Missing(file *capfile.File) error {
	list, err := Members(file)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range list {
		if !m.Known || !m.Implemented {
			errs = append(errs, fmt.Errorf("%w: %s", ErrMissing, m.Name))
		}
	}
	return errors.Join(errs...)
}

// Unmet are the imports of a load file that the API here does not have in the
// version that is asked for: other load files must bring them.
func Unmet(file *capfile.File) []capfile.Package {
	return slices.DeleteFunc(slices.Clone(file.Imports), func(need capfile.Package) bool {
		p := theAPI().byAID[need.AID]
		return p != nil && p.major == need.Major && p.minor >= need.Minor
	})
}
