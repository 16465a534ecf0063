package jcvm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// ErrNames reports a CAP file that can't name anything in a trace: it has no
// Debug component.
var ErrNames = errors.New("CAP file without the Debug component that names are in")

// Trace shows what one package executes: the calls of its methods, of the API
// by them, and exceptions; every bytecode where Bytecode says so. It is for
// their developers.
//
// A package that is traced is linked in another form, with instructions in it
// that write the lines; for all others, and without a trace, there is nothing
// to look at while code runs. The form is slower, and what writes counts as a
// bytecode too ([Linker.Steps]).
//
// Without Values a trace tells which way code went, and nothing that it worked
// on: no argument, result or operand.
type Trace struct {
	// AID chooses the package: its own, that of an applet in it, or that of an
	// instance that is on the card when it gets power.
	AID iso7816.AID
	// Bytecode adds the bytecodes.
	Bytecode bool
	// Values adds arguments, results and the operand stack. There are keys and
	// PINs among them, a byte at a time.
	Values bool
	// Names has the names and source lines. It is not used for a package whose
	// code is different.
	Names *Names
	// W takes the lines: comments in the sense of the trace format, each with
	// its newline, one a call. The first error ends the trace.
	W io.Writer

	err error
}

// Names are the names of a package, from the Debug component of its CAP file.
type Names struct {
	pkg     iso7816.AID
	code    []byte // the Method component
	methods map[int]methodNames
}

type methodNames struct {
	name, source string
	code         int // offset of the first bytecode
	lines        []capfile.DebugLine
}

// ReadNames takes the names out of a CAP file; errors are [ErrNames] and those
// of [capfile.File.Debug].
func ReadNames(file *capfile.File) (*Names, error) {
	d, err := file.Debug()
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, ErrNames
	}
	n := &Names{pkg: file.Package.AID, code: file.Component(capfile.Method), methods: map[int]methodNames{}}
	for _, c := range d.Classes {
		for _, m := range c.Methods {
			if m.Location != 0 {
				n.methods[m.Location] = methodNames{c.Name + "." + m.Name + m.Descriptor, c.Source, m.Location + m.Header, m.Lines}
			}
		}
	}
	return n, nil
}

// of reports whether a trace is of a package that is being linked.
func (t *Trace) of(l *linking) bool {
	if t == nil {
		return false
	}
	if t.AID == l.file.Package.AID {
		return true
	}
	for _, a := range l.file.Applets {
		if t.AID == a {
			return true
		}
	}
	i := l.vm.instanceOf(t.AID)
	if i == nil {
		return false
	}
	p := l.vm.objs[i.group()]
	return p != nil && p.kind == kindPackage && bytes.HasPrefix(p.data[1:], l.file.Package.AID.Bytes()) && int(p.data[0]) == l.file.Package.AID.Len()
}

// tracing is a package that is traced.
type tracing struct {
	*Trace
	names   map[int]methodNames // nil without
	methods map[*method]string  // where it has no names
}

// trace prepares a package for its trace.
func (l *linking) trace() {
	t := &tracing{Trace: l.vm.options.Trace, methods: map[*method]string{}}
	if n := t.Names; n != nil && n.pkg == l.pkg.aid {
		if bytes.Equal(n.code, l.file.Component(capfile.Method)) {
			t.names = n.methods
		} else {
			t.line(0, "the names of %v are those of other code than the card's, and are not used", l.pkg.aid)
		}
	}
	offsets := make([]int, 0, len(l.pkg.classes))
	for offset := range l.pkg.classes {
		offsets = append(offsets, offset)
	}
	sort.Ints(offsets) // superclasses come first
	for _, offset := range offsets {
		c := l.pkg.classes[offset]
		for _, list := range [][]*method{c.virtual, c.private} {
			for _, m := range list {
				if m != nil && m.pkg == l.pkg && t.methods[m] == "" {
					t.methods[m] = fmt.Sprintf("%v:class@%04X.method@%04X", l.pkg.aid, offset, m.offset)
				}
			}
		}
	}
	l.pkg.trace = t
}

func (t *tracing) method(m *method) string {
	if m.name != "" {
		return m.name
	}
	if n, ok := t.names[m.offset]; ok {
		return n.name
	}
	if s := t.methods[m]; s != "" {
		return s
	}
	return fmt.Sprintf("%v:method@%04X", m.pkg.aid, m.offset)
}

// place is an offset in the Method component, with its source line.
func (t *tracing) place(m *method, offset int) string {
	if n, ok := t.names[m.offset]; ok {
		for _, l := range n.lines {
			if at := offset - n.code; at >= l.From && at <= l.To {
				return fmt.Sprintf("%04X %s:%d", offset, n.source, l.Line)
			}
		}
	}
	return fmt.Sprintf("%04X", offset)
}

// line writes one line, indented for the depth of calls.
func (t *Trace) line(depth int, format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.W, "# %s%s\n", strings.Repeat("  ", depth), fmt.Sprintf(format, args...))
	}
}

// depth is how deep in calls the last frame is; every call from outside has a
// frame of its own.
func (vm *VM) depth() int { return max(len(vm.frames)-2, 0) }

// values are slots in brackets, where a trace shows them.
func (t *tracing) values(brackets string, slots []slot) string {
	if !t.Values {
		return ""
	}
	text := make([]string, len(slots))
	for i, s := range slots {
		switch {
		case s == null:
			text[i] = "null"
		case s>>16 == 1:
			text[i] = fmt.Sprintf("@%04X", uint16(s))
		case s>>16 == 2:
			text[i] = fmt.Sprintf("return:%d", uint16(s))
		default:
			text[i] = fmt.Sprintf("%04X", uint16(s))
		}
	}
	return " " + brackets[:1] + strings.Join(text, " ") + brackets[1:]
}

// entered is opEntered: a method begins.
func (t *tracing) entered(vm *VM, f *frame) {
	t.line(vm.depth(), "call %s%s", t.method(f.method), t.values("()", vm.stack[f.base:f.base+f.method.args]))
}

// traced is opTraced, before a bytecode.
func (t *tracing) traced(vm *VM, f *frame, in *instruction) {
	operands := vm.stack[f.base+f.method.operands : max(f.base+f.sp, f.base+f.method.operands)]
	if t.Bytecode {
		t.line(vm.depth()+1, "%s %s%s", t.place(f.method, f.method.at[f.pc]), f.method.texts[in.a], t.values("[]", operands))
	}
	switch int(in.n) {
	case opReturn:
		t.line(vm.depth(), "return")
	case opAreturn, opSreturn, opIreturn:
		t.line(vm.depth(), "return%s", t.values("()", operands))
	}
}

// native is a call of the API.
func (t *tracing) native(vm *VM, m *method, args []slot) {
	t.line(vm.depth()+1, "api %s%s", t.method(m), t.values("()", args))
}

// caught and left are an exception in a method that has a handler for it, and
// in one that has not.
func (t *tracing) caught(vm *VM, f *frame, target int) {
	t.line(vm.depth()+1, "caught %s at %s, goes on at %s", vm.exceptionName(), t.place(f.method, f.method.at[f.pc]), t.place(f.method, f.method.at[target]))
}

func (t *tracing) left(vm *VM, f *frame) {
	t.line(vm.depth(), "thrown %s at %s", vm.exceptionName(), t.place(f.method, f.method.at[f.pc]))
}

// exceptionName is the pending exception, with the status word that it stands
// for.
func (vm *VM) exceptionName() string {
	o := vm.objs[vm.pending]
	switch {
	case o == nil || o.class == nil:
		return "exception"
	case o.class.extends(vm.api.isoException):
		return fmt.Sprintf("%v %04X", o.class, vm.reason(vm.pending))
	}
	return o.class.String()
}

// shows reports whether a bytecode gets an instruction before it that writes.
func (t *tracing) shows(op int) bool {
	return t.Bytecode || op >= opAreturn && op <= opReturn
}

// text is a bytecode as a trace shows it: operands in decimal, jumps as offsets.
func (in rawInstruction) text() string {
	var b strings.Builder
	b.WriteString(mnemonics[in.op])
	for i, form := range strings.Map(func(r rune) rune {
		if strings.ContainsRune("bsilncC", r) {
			return r
		}
		return -1
	}, operands[in.op]) {
		if form == 'c' || form == 'C' {
			b.WriteString(" #") // into the constant pool
		} else {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, in.values[i])
	}
	for i, target := range in.targets {
		if i == 8 {
			fmt.Fprintf(&b, " … %d in all", len(in.targets))
			break
		}
		fmt.Fprintf(&b, " %04X", target)
	}
	return b.String()
}
