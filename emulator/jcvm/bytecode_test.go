package jcvm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// memory is a card's memory for a machine without a card.
type memory struct {
	objects [][]byte
	used    int
}

const memorySize = 1 << 20

func (m *memory) Alloc(content []byte) (oncard.Handle, error) {
	if m.used+len(content) > memorySize {
		return 0, iso7816.ErrNoMemory
	}
	m.used += len(content)
	m.objects = append(m.objects, bytes.Clone(content))
	return oncard.Handle(len(m.objects) - 1), nil
}

func (m *memory) Free(h oncard.Handle) error {
	m.used -= len(m.objects[h])
	m.objects[h] = nil
	return nil
}

func (m *memory) Handles() int { return len(m.objects) }

func (m *memory) View(h oncard.Handle) []byte {
	if h < 0 || int(h) >= len(m.objects) {
		return nil
	}
	return m.objects[h]
}

func (m *memory) Write(h oncard.Handle, offset int, p []byte) error {
	copy(m.objects[h][offset:offset+len(p)], p)
	return nil
}

func (m *memory) WriteNonAtomic(h oncard.Handle, offset int, p []byte) error {
	return m.Write(h, offset, p)
}
func (m *memory) WriteOutside(h oncard.Handle, offset int, p []byte) error {
	return m.Write(h, offset, p)
}
func (m *memory) Begin() error                                           { return oncard.ErrInTransaction }
func (m *memory) Commit() error                                          { return oncard.ErrNoTransaction }
func (m *memory) Abort()                                                 {}
func (m *memory) Undone() int                                            { return 0 }
func (m *memory) SetTransient(iso7816.AID, oncard.ClearEvent, int) error { return nil }
func (m *memory) Open(iso7816.AID) error                                 { return iso7816.ErrConditions }
func (m *memory) Room() oncard.Room                                      { return oncard.Room{} }
func (m *memory) Random() io.Reader                                      { return bytes.NewReader(nil) }
func (m *memory) Extended() bool                                         { return false }
func (m *memory) Contactless() bool                                      { return false }
func (m *memory) Protocol() byte                                         { return 1 }

func newMachine(t testing.TB, l Linker) *VM {
	t.Helper()
	r, err := l.PowerOn(&memory{})
	if err != nil {
		t.Fatal(err)
	}
	return r.(*VM)
}

// code is a method written by hand.
type code struct {
	stack, args, locals int
	bytes               []byte
}

// image is a load file written by hand: a library with methods, one class, and
// constants.
type image struct {
	methods   []code
	handlers  []rawHandler // offsets within method 0's code
	constants [][]byte     // after those for the methods
	class     []byte       // the Class component, in the format 2.1
	statics   []byte       // the StaticField component
}

var testPackage = iso7816.MustAID("F00000000200")

func sized(tag capfile.Component, b ...byte) []byte {
	return append([]byte{byte(tag), byte(len(b) >> 8), byte(len(b))}, b...)
}

// build makes the load file data block. Constant n is method n.
func (im image) build() []byte {
	method := []byte{byte(len(im.handlers))}
	at := 1 + 8*len(im.handlers)
	first := at + 4
	for _, h := range im.handlers {
		for _, v := range []int{first + h.from, h.to - h.from, first + h.target, h.class} {
			method = append(method, byte(v>>8), byte(v))
		}
	}
	var constants []byte
	for _, m := range im.methods {
		constants = append(constants, constStaticMethod, 0, byte(len(method)>>8), byte(len(method)))
		method = append(method, 0x80, byte(m.stack), byte(m.args), byte(m.locals))
		method = append(method, m.bytes...)
	}
	n := len(im.methods) + len(im.constants)
	for _, c := range im.constants {
		constants = append(constants, c...)
	}
	statics := im.statics
	if statics == nil {
		statics = make([]byte, 10)
	}
	aid := testPackage.Bytes()
	header := append([]byte{0xDE, 0xCA, 0xFF, 0xED, 1, 2, 1, 0, 1, byte(len(aid))}, aid...)
	lang := iso7816.MustAID("A0000000620001").Bytes()
	parts := map[capfile.Component][]byte{
		capfile.Header:       sized(capfile.Header, header...),
		capfile.Import:       sized(capfile.Import, append([]byte{1, 0, 1, byte(len(lang))}, lang...)...),
		capfile.Class:        sized(capfile.Class, im.class...),
		capfile.Method:       sized(capfile.Method, method...),
		capfile.StaticField:  sized(capfile.StaticField, statics...),
		capfile.ConstantPool: sized(capfile.ConstantPool, append([]byte{byte(n >> 8), byte(n)}, constants...)...),
		capfile.RefLocation:  sized(capfile.RefLocation, 0, 0, 0, 0),
	}
	directory := make([]byte, 0, 31)
	for c := capfile.Header; c <= capfile.Descriptor; c++ {
		size := 0
		switch {
		case c == capfile.Directory:
			size = 31
		case parts[c] != nil:
			size = len(parts[c]) - 3
		}
		directory = append(directory, byte(size>>8), byte(size))
	}
	directory = append(directory, statics[:6]...)
	directory = append(directory, 1, 0, 0)
	parts[capfile.Directory] = sized(capfile.Directory, directory...)
	var out []byte
	for _, c := range []capfile.Component{
		capfile.Header, capfile.Directory, capfile.Import, capfile.Class, capfile.Method, capfile.StaticField,
		capfile.ConstantPool, capfile.RefLocation,
	} {
		out = append(out, parts[c]...)
	}
	return out
}

// run links an image and calls its first method.
func (im image) run(t testing.TB, args ...slot) (slot, error) {
	t.Helper()
	vm := newMachine(t, Linker{Steps: 100000})
	if _, err := vm.Link(testPackage, im.build(), [32]byte{}); err != nil {
		return 0, err
	}
	p := vm.packages[testPackage]
	vm.group, vm.owner, vm.steps = p.root, p.root, vm.options.Steps
	var v slot
	err := vm.guard(func() { v = vm.call(p.constants[0].method, args...) })
	return v, err
}

// TestBytecodeByHand runs what compilers don't make: subroutines, the variants
// of dup_x and swap_x, wide forms. What must come out follows from JCVM 7.5.
func TestBytecodeByHand(t *testing.T) {
	t.Parallel()
	// pack makes one short of four small numbers on the stack.
	pack := []byte{
		opSstore3, opSstore2, opSstore1, opSstore0,
		opSload0, opSconst4, opSshl, opSload1, opSor, opSconst4, opSshl, opSload2, opSor, opSconst4, opSshl, opSload3, opSor, opSreturn,
	}
	with := func(front []byte, back ...byte) code {
		return code{12, 0, 6, append(append([]byte(nil), front...), back...)}
	}
	pushes := []byte{opSconst1, opSconst2, opSconst3, opSconst4}
	class := []byte{
		0x00, 0x80, 0x00, 5, 3, 1, 1, 0, 0, 0, // extends Object; words 0..4, of which 3 is a reference
	}
	constants := [][]byte{{constClass, 0, 0, 0}, {constField, 0, 0, 0}, {constField, 0, 0, 1}, {constField, 0, 0, 3}, {constField, 0, 0, 4}, {constStaticMethod, 0x80, 0, 0}}
	object := []byte{opNew, 0, 1, opDup, opInvokespecial, 0, 6}
	for name, test := range map[string]struct {
		image image
		want  int
	}{
		"nop":         {image{methods: []code{{1, 0, 0, []byte{opNop, opNop, opSconst5, opSreturn}}}}, 5},
		"jsr and ret": {image{methods: []code{{2, 0, 2, []byte{opSconst1, opJsr, 0, 7, opSconst2, opSadd, opSreturn, opNop, opAstore0, opSconst3, opSadd, opRet, 0}}}}, 6},
		"jsr twice":   {image{methods: []code{{2, 0, 2, []byte{opSconst0, opJsr, 0, 7, opJsr, 0, 4, opSreturn, opAstore, 1, opSconst5, opSadd, opRet, 1}}}}, 10},
		"dup_x 10":    {image{methods: []code{with(pushes, append([]byte{opDupX, 0x10, opPop, opDupX, 0x10, opSstore, 5}, pack...)...)}}, 0x1234},
		"dup_x 11":    {image{methods: []code{with([]byte{opSconst1, opSconst2, opSconst3, opDupX, 0x11}, pack...)}}, 0x1233},
		"dup_x 12":    {image{methods: []code{with([]byte{opSconst1, opSconst2, opSconst3, opDupX, 0x12}, pack...)}}, 0x1323},
		"dup_x 13":    {image{methods: []code{with([]byte{opSconst1, opSconst2, opSconst3, opDupX, 0x13}, pack...)}}, 0x3123},
		"dup_x 20":    {image{methods: []code{with([]byte{opSconst1, opSconst2, opDupX, 0x20}, pack...)}}, 0x1212},
		"dup_x 23":    {image{methods: []code{with([]byte{opSconst1, opSconst2, opSconst3, opDupX, 0x23, opSstore, 4}, pack...)}}, 0x2312},
		"dup_x 24":    {image{methods: []code{with([]byte{opSconst1, opSconst2, opSconst3, opSconst4, opDupX, 0x24, opPop2}, pack...)}}, 0x3412},
		"dup_x 40":    {image{methods: []code{with(pushes, append([]byte{opDupX, 0x40}, pack...)...)}}, 0x1234},
		"dup2":        {image{methods: []code{with([]byte{opSconst1, opSconst2, opDup2}, pack...)}}, 0x1212},
		"pop2":        {image{methods: []code{with(append(append([]byte{}, pushes...), opSconst5, opSconst5, opPop2), pack...)}}, 0x1234},
		"swap_x 11":   {image{methods: []code{with(append(append([]byte{}, pushes...), opSwapX, 0x11), pack...)}}, 0x1243},
		"swap_x 12":   {image{methods: []code{with(append(append([]byte{}, pushes...), opSwapX, 0x12), pack...)}}, 0x1423},
		"swap_x 21":   {image{methods: []code{with(append(append([]byte{}, pushes...), opSwapX, 0x21), pack...)}}, 0x1342},
		"swap_x 22":   {image{methods: []code{with(append(append([]byte{}, pushes...), opSwapX, 0x22), pack...)}}, 0x3412},
		"sinc_w":      {image{methods: []code{{1, 0, 1, []byte{opSconst1, opSstore0, opSincW, 0, 0x7F, 0xFF, opSload0, opSreturn}}}}, 0x8000},
		"iinc_w":      {image{methods: []code{{2, 0, 2, []byte{opIconst0, opIstore0, opIincW, 0, 0x80, 0x00, opIload0, opI2s, opSreturn}}}}, 0x8000},
		"iinc_w high": {image{methods: []code{{4, 0, 2, []byte{opIconst0, opIstore0, opIincW, 0, 0x80, 0x00, opIload0, opBipush, 16, opIshr, opI2s, opSreturn}}}}, 0xFFFF},
		"goto_w":      {image{methods: []code{{1, 0, 0, []byte{opGotoW, 0, 5, opSconst1, opSreturn, opSconst2, opSreturn}}}}, 2},
		"wide jumps":  {image{methods: []code{{2, 0, 1, wideJumps()}}}, 0xFFFF},
		"wide fields": {image{class: class, constants: constants, methods: []code{{4, 0, 1, append(append([]byte{}, object...),
			opAstore0,
			opAload0, opSspush, 0x12, 0x34, opPutfieldSW, 0, 2,
			opAload0, opIipush, 0, 1, 0, 2, opPutfieldIW, 0, 3,
			opAload0, opAload0, opPutfieldAW, 0, 4,
			opAload0, opSconstM1, opPutfieldBW, 0, 5,
			opAload0, opGetfieldAW, 0, 4, opGetfieldSW, 0, 2, // 1234
			opAload0, opGetfieldIW, 0, 3, opI2s, opSadd, // 2
			opAload0, opGetfieldBW, 0, 5, opSadd, // -1
			opSreturn)}}}, 0x1235},
		"fields of this": {image{class: class, constants: [][]byte{{constClass, 0, 0, 0}, {constField, 0, 0, 1}, {constStaticMethod, 0x80, 0, 0}}, methods: []code{
			{4, 0, 0, []byte{opNew, 0, 2, opDup, opInvokespecial, 0, 4, opInvokestatic, 0, 1, opSreturn}},
			{4, 1, 0, []byte{opSspush, 0x12, 0x85, opPutfieldBThis, 3, opGetfieldBThis, 3, opSreturn}},
		}}, 0xFF85},
		"istore":    {image{methods: []code{{4, 0, 5, []byte{opIconst3, opIstore1, opIconst4, opIstore2, opIload1, opI2s, opIload2, opI2s, opSadd, opSreturn}}}}, 4},
		"if_acmpeq": {image{methods: []code{{2, 0, 0, []byte{opAconstNull, opAconstNull, opIfAcmpeq, 4, opSconst1, opSreturn, opSconst2, opSreturn}}}}, 2},
		"handler":   {image{methods: []code{{2, 0, 0, []byte{opSconst1, opSconst0, opSdiv, opSreturn, opPop, opSconst4, opSreturn}}}, handlers: []rawHandler{{0, 3, 4, 0}}}, 4},
	} {
		got, err := test.image.run(t)
		if err != nil || int(got) != test.want {
			t.Errorf("%s: %04X, %v; want %04X", name, int(got), err, test.want)
		}
	}
}

// wideJumps takes every wide conditional jump, and returns -1 where one goes
// wrong.
func wideJumps() []byte {
	var b []byte
	jump := func(op byte, push ...byte) {
		b = append(append(b, push...), op, 0, 5, opSconst0, opSreturn) // taken: over the return
	}
	stay := func(op byte, push ...byte) {
		b = append(append(b, push...), op, 0, 5, opGoto, 4, opSconst0, opSreturn)
	}
	for _, x := range []struct{ op, taken, not byte }{
		{opIfeqW, opSconst0, opSconst1}, {opIfneW, opSconst1, opSconst0}, {opIfltW, opSconstM1, opSconst0},
		{opIfgeW, opSconst0, opSconstM1}, {opIfgtW, opSconst1, opSconst0}, {opIfleW, opSconst0, opSconst1},
	} {
		jump(x.op, x.taken)
		stay(x.op, x.not)
	}
	jump(opIfnullW, opAconstNull)
	stay(opIfnonnullW, opAconstNull)
	jump(opIfAcmpeqW, opAconstNull, opAconstNull)
	stay(opIfAcmpneW, opAconstNull, opAconstNull)
	for _, x := range []struct{ op, a, b byte }{
		{opIfScmpeqW, opSconst1, opSconst1}, {opIfScmpneW, opSconst1, opSconst2}, {opIfScmpltW, opSconst1, opSconst2},
		{opIfScmpgeW, opSconst2, opSconst2}, {opIfScmpgtW, opSconst2, opSconst1}, {opIfScmpleW, opSconst2, opSconst2},
	} {
		jump(x.op, x.a, x.b)
	}
	stay(opIfScmpeqW, opSconst1, opSconst2)
	stay(opIfScmpneW, opSconst1, opSconst1)
	stay(opIfScmpltW, opSconst2, opSconst2)
	stay(opIfScmpgeW, opSconst1, opSconst2)
	stay(opIfScmpgtW, opSconst1, opSconst1)
	stay(opIfScmpleW, opSconst2, opSconst1)
	return append(b, opSconstM1, opSreturn)
}

// TestEveryBytecode counts the bytecodes in what the tests execute.
func TestEveryBytecode(t *testing.T) {
	t.Parallel()
	have := map[int]string{}
	files, err := filepath.Glob("testdata/*.cap")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		f, err := capfile.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b := f.Component(capfile.Method)[3:]
		vm := newMachine(t, Linker{})
		for _, need := range []string{"lib"} {
			if lib, err := capfile.ReadFile("testdata/" + need + ".cap"); err == nil && lib.Package.AID != f.Package.AID {
				if _, err := vm.Link(lib.Package.AID, lib.LoadFileDataBlock(), [32]byte{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := vm.Link(f.Package.AID, f.LoadFileDataBlock(), [32]byte{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, m := range vm.packages[f.Package.AID].methods {
			for _, at := range m.at {
				have[int(b[at])] = name
			}
		}
	}
	source, err := os.ReadFile("bytecode_test.go")
	if err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadFile("opcodes.go")
	if err != nil {
		t.Fatal(err)
	}
	op := 0
	for line := range strings.Lines(string(names)) {
		name := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "= iota"))
		if !strings.HasPrefix(name, "op") || strings.HasPrefix(name, "opcodes") {
			if op == opcodes {
				break
			}
			continue
		}
		if have[op] == "" && !bytes.Contains(source, []byte(name+",")) && !bytes.Contains(source, []byte(name+")")) {
			t.Errorf("%s (%d) is in no test", name, op)
		}
		op++
	}
	if op != opcodes || opcodes != 185 {
		t.Errorf("%d bytecodes found, of %d", op, opcodes)
	}
}

// TestFaults runs code that breaks the rules.
func TestFaults(t *testing.T) {
	t.Parallel()
	class := []byte{0x00, 0x80, 0x00, 2, 1, 1, 0, 0, 0, 0}
	constants := [][]byte{{constClass, 0, 0, 0}, {constField, 0, 0, 0}, {constField, 0, 0, 1}, {constStaticMethod, 0x80, 0, 0}}
	deep := make([]byte, 0, 100)
	for range 50 {
		deep = append(deep, opSconst1)
	}
	for name, test := range map[string]image{
		"short as reference":          {methods: []code{{2, 0, 0, []byte{opSspush, 1, 0, opArraylength, opSreturn}}}},
		"short as array":              {methods: []code{{3, 0, 0, []byte{opSspush, 0, 2, opSconst0, opBaload, opSreturn}}}},
		"short into reference field":  {class: class, constants: constants, methods: []code{{4, 0, 0, []byte{opNew, 0, 1, opSspush, 1, 2, opPutfieldA, 3, opSconst0, opSreturn}}}},
		"short thrown":                {methods: []code{{2, 0, 0, []byte{opSspush, 1, 0, opAthrow}}}},
		"reference as return address": {methods: []code{{2, 0, 1, []byte{opAconstNull, opAstore0, opRet, 0}}}},
		"stack overflow":              {methods: []code{{3, 0, 0, append(deep, opSreturn)}}},
		"stack underflow":             {methods: []code{{3, 0, 0, []byte{opPop, opPop, opPop, opSconst1, opSreturn}}}},
		"local variable too high":     {methods: []code{{3, 0, 1, []byte{opSload, 200, opSreturn}}}},
		"endless loop":                {methods: []code{{3, 0, 1, []byte{opGoto, 0}}}},
		"endless recursion":           {methods: []code{{3, 0, 1, []byte{opInvokestatic, 0, 0, opSreturn}}}},
		"endless exceptions":          {methods: []code{{3, 0, 1, []byte{opAconstNull, opAthrow}}}, handlers: []rawHandler{{0, 2, 0, 0}}},
		"wrong type of array":         {methods: []code{{3, 0, 1, []byte{opSconst5, opNewarray, 11, opSconst0, opSaload, opSreturn}}}},
		"nothing returned":            {methods: []code{{1, 0, 0, []byte{opInvokestatic, 0, 1, opSreturn}}, {0, 0, 0, []byte{opReturn}}}},
		"field of a short":            {class: class, constants: constants, methods: []code{{4, 0, 0, []byte{opSconst1, opGetfieldS, 2, opSreturn}}}},
		"endless allocation":          {methods: []code{{4, 0, 0, []byte{opSspush, 0x7F, 0xFF, opNewarray, 13, opPop, opGoto, 0xFA}}}},
	} {
		_, err := test.run(t)
		var f fault
		var u *uncaught
		if errors.Is(err, ErrLoadFile) || !errors.As(err, &f) && !errors.As(err, &u) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRefused links what must not be linked.
func TestRefused(t *testing.T) {
	t.Parallel()
	ret := code{2, 0, 0, []byte{opSconst1, opSreturn}}
	class := []byte{0x00, 0x80, 0x00, 2, 1, 1, 0, 0, 0, 0}
	fields := [][]byte{{constField, 0, 0, 0}, {constField, 0, 0, 1}}
	in := func(b ...byte) []code { return []code{{4, 0, 1, b}} }
	for name, test := range map[string]image{
		"unknown bytecode":              {methods: in(200)},
		"code that ends":                {methods: in(opSconst1)},
		"jump out of the code":          {methods: in(opGoto, 100)},
		"jump before the code":          {methods: in(opGoto, 0xF0)},
		"jump into an instruction":      {methods: in(opSspush, opSconst1, opSreturn, opGoto, 0xFE)},
		"constant out of range":         {methods: in(opInvokestatic, 0, 9, opSreturn)},
		"constant of another type":      {methods: in(opNew, 0, 0, opAreturn)},
		"reference read as a short":     {methods: in(opAconstNull, opGetfieldS, 2, opSreturn), class: class, constants: fields},
		"short read as a reference":     {methods: in(opAconstNull, opGetfieldA, 1, opSreturn), class: class, constants: fields},
		"int beside a reference":        {methods: in(opAconstNull, opGetfieldI, 1, opReturn), class: class, constants: fields},
		"field that the class lacks":    {methods: []code{ret}, class: class, constants: [][]byte{{constField, 0, 0, 2}}},
		"class at no class":             {methods: []code{ret}, class: class, constants: [][]byte{{constClass, 0, 1, 0}}},
		"class of no import":            {methods: []code{ret}, constants: [][]byte{{constClass, 0x81, 0, 0}}},
		"class that the import lacks":   {methods: []code{ret}, constants: [][]byte{{constClass, 0x80, 99, 0}}},
		"method that the import lacks":  {methods: []code{ret}, constants: [][]byte{{constStaticMethod, 0x80, 0, 9}}},
		"method beyond the component":   {methods: []code{ret}, constants: [][]byte{{constStaticMethod, 0, 0x70, 0}}},
		"static field beyond":           {methods: []code{ret}, constants: [][]byte{{constStaticField, 0, 0, 0}}},
		"class that is its superclass":  {methods: []code{ret}, class: []byte{0x00, 0x00, 0x00, 0, 0, 0, 0, 0, 0, 0}},
		"class cut short":               {methods: []code{ret}, class: class[:7]},
		"more references than fields":   {methods: []code{ret}, class: []byte{0x00, 0x80, 0x00, 2, 1, 2, 0, 0, 0, 0}},
		"method table with a gap":       {methods: []code{ret}, class: []byte{0x00, 0x80, 0x00, 0, 0, 0, 5, 0, 0, 0}},
		"virtual method without object": {methods: []code{ret}, class: []byte{0x00, 0x80, 0x00, 0, 0, 0, 1, 1, 0, 0, 0, 1}},
		"static references beyond":      {methods: []code{ret}, statics: []byte{0, 2, 0, 2, 0, 0, 0, 0, 0, 0}},
		"static sizes that differ":      {methods: []code{ret}, statics: []byte{0, 2, 0, 0, 0, 0, 0, 1, 0, 0}},
		"array of an unknown type":      {methods: []code{ret}, statics: []byte{0, 2, 0, 1, 0, 1, 9, 0, 0, 0, 0, 0, 0}},
		"handler outside of the code":   {methods: []code{ret}, handlers: []rawHandler{{0, 100, 0, 0}}},
		"dup_x of too much":             {methods: in(opDupX, 0x53, opSreturn)},
		"array type":                    {methods: in(opSconst1, opNewarray, 9, opAreturn)},
	} {
		_, err := test.run(t)
		if !errors.Is(err, ErrLoadFile) && !errors.Is(err, ErrMissing) && !errors.Is(err, capfile.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLoadFile links mutated load files, and runs every method of those that
// can be linked.
func FuzzLoadFile(f *testing.F) {
	files, err := filepath.Glob("testdata/*.cap")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		c, err := capfile.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.LoadFileDataBlock())
	}
	f.Add(image{methods: []code{{3, 0, 1, []byte{opSconst1, opJsr, 0, 7, opSconst2, opSadd, opSreturn, opNop, opAstore0, opSconst3, opSadd, opRet, 0}}}}.build())
	var lib []byte
	if c, err := capfile.ReadFile("testdata/lib.cap"); err == nil {
		lib = c.LoadFileDataBlock()
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		defer time.AfterFunc(time.Minute, func() { panic("a load file that hangs") }).Stop()
		file, err := capfile.ParseLoadFileDataBlock(b)
		if err != nil {
			return
		}
		vm := newMachine(t, Linker{})
		if file.Package.AID != iso7816.MustAID("F00000000112") {
			if _, err := vm.Link(iso7816.MustAID("F00000000112"), lib, [32]byte{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := vm.Link(file.Package.AID, b, [32]byte{}); err != nil {
			return
		}
		exercise(vm, vm.packages[file.Package.AID])
	})
}

// generated is a method of bytecodes that an input chooses, each with operands
// of its form: variables and constants that there are, and jumps to beginnings
// of instructions. It is good enough to be linked, and nothing more.
func generated(input []byte, locals, constants int) []byte {
	next := func() (b byte) {
		if len(input) > 0 {
			b, input = input[0], input[1:]
		}
		return b
	}
	var out []byte
	var starts []int
	type jump struct{ at, from, size, target int }
	var jumps []jump
	for len(input) > 0 && len(out) < 1000 {
		op := int(next()) % opcodes
		if strings.ContainsAny(operands[op], "tTkK") {
			op = opNop
		}
		from := len(out)
		starts = append(starts, from)
		out = append(out, byte(op))
		for _, form := range operands[op] {
			switch form {
			case 'l':
				out = append(out, next()%byte(locals))
			case 'c':
				out = append(out, next()%byte(constants))
			case 'C':
				out = append(out, 0, next()%byte(constants))
			case 'o', 'O':
				size := 1
				if form == 'O' {
					size = 2
				}
				jumps = append(jumps, jump{len(out), from, size, int(next())})
				out = append(out, make([]byte, size)...)
			case 's':
				out = append(out, next(), next())
			case 'i':
				out = append(out, next(), next(), next(), next())
			default:
				out = append(out, next())
			}
		}
	}
	for _, j := range jumps {
		distance := starts[j.target%len(starts)] - j.from
		if j.size == 1 {
			if distance < -128 || distance > 127 {
				distance = 0
			}
			out[j.at] = byte(distance)
		} else {
			out[j.at], out[j.at+1] = byte(distance>>8), byte(distance)
		}
	}
	return append(out, opGoto, 0)
}

// FuzzBytecode runs generated code: whatever it does ends with a fault, an
// exception or the budget of bytecodes, and the machine goes on.
func FuzzBytecode(f *testing.F) {
	f.Add(byte(20), byte(4), []byte{opSconst1, opSconst2, opSadd, opSstore, 1, opNew, 2, opDup, opInvokespecial, 7, opAstore, 2})
	f.Add(byte(10), byte(2), []byte{opSspush, 0, 9, opNewarray, 11, opAstore, 1, opAload, 1, opSconst0, opSconst5, opBastore})
	f.Add(byte(9), byte(2), []byte{opIipush, 1, 2, 3, 4, opDup2, opImul, opIstore0, opJsr, 0, opIfeq, 1, opRet, 1})
	class := []byte{0x00, 0x80, 0x00, 5, 3, 1, 1, 0, 0, 0} // as in TestBytecodeByHand
	constants := [][]byte{{constClass, 0, 0, 0}, {constField, 0, 0, 0}, {constField, 0, 0, 1}, {constField, 0, 0, 3}, {constField, 0, 0, 4}, {constStaticMethod, 0x80, 0, 0}}
	f.Fuzz(func(t *testing.T, stack, locals byte, input []byte) {
		defer time.AfterFunc(time.Minute, func() { panic("code that hangs") }).Stop()
		n := 1 + int(locals)%32
		im := image{
			methods: []code{
				{int(stack), 1, n, generated(input, n, 2+len(constants))},
				{4, 2, 1, []byte{opSload1, opSreturn}},
			},
			class: class, constants: constants,
		}
		vm := newMachine(t, Linker{})
		if _, err := vm.Link(testPackage, im.build(), [32]byte{}); err != nil {
			return
		}
		exercise(vm, vm.packages[testPackage])
	})
}

// TestFused runs every method of the load files at hand with instructions fused
// and as they are: the same results, bytecodes paid for, and memory. (That
// holds for code that keeps to the stack it says it uses, as a verifier makes
// sure; other code is only stopped.)
func TestFused(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.cap")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range append([]string{"testdata/lib.cap", "testdata/server.cap", "../../applets/javacard/base.cap"}, files...) {
		var done [2]string
		for i := range done {
			vm := newMachine(t, Linker{})
			vm.plain = i == 1
			for _, file := range slices.Compact([]string{"testdata/lib.cap", "testdata/server.cap", name}) {
				c, err := capfile.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				aid := c.Package.AID
				if vm.packages[aid] == nil {
					if _, err := vm.Link(aid, c.LoadFileDataBlock(), [32]byte{}); err != nil {
						t.Fatal(file, err)
					}
				}
				if file == name {
					done[i] = exercise(vm, vm.packages[aid])
				}
			}
		}
		if diff := cmp.Diff(done[1], done[0]); diff != "" {
			t.Errorf("%s, plain and fused:\n%s", name, diff)
		}
	}
}

// exercise calls all methods of a package with arguments of all kinds, and
// returns what came of it: results, the bytecodes left, and the memory. The
// machine's own recovery is tested: nothing may get past it.
func exercise(vm *VM, p *pkg) string {
	var done strings.Builder
	call := func(m *method, args []slot) {
		var result slot
		err := vm.guard(func() { result = vm.call(m, args...) })
		fmt.Fprintln(&done, m.offset, args, result, err, vm.steps)
	}
	for _, offset := range slices.Sorted(maps.Keys(p.methods)) {
		m := p.methods[offset]
		if m.abstract {
			continue
		}
		for kind := range 3 {
			vm.group, vm.owner, vm.selected = p.root, p.root, p.root
			vm.frames, vm.nested = vm.frames[:0], 0
			vm.steps = 3000
			args := make([]slot, m.args)
			for i := range args {
				switch (kind + i) % 4 {
				case 0:
					args[i] = refBuffer.slot()
				case 1:
					args[i] = slot(uint16(i * 1000))
				case 2:
					args[i] = null
				default:
					args[i] = refAPDU.slot()
				}
			}
			vm.apdu.begin(iso7816.Command{INS: byte(kind), Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}}, 0, false, vm.objs[refBuffer].data)
			call(m, args)
		}
	}
	for _, offset := range slices.Sorted(maps.Keys(p.classes)) {
		c := p.classes[offset]
		if c.iface || c.abstract {
			continue
		}
		vm.group, vm.owner = p.root, p.root
		_ = vm.guard(func() {
			o := vm.newInstance(c)
			for _, m := range c.virtual {
				vm.frames, vm.nested, vm.steps = vm.frames[:0], 0, 3000
				args := make([]slot, m.args)
				args[0] = o.self.slot()
				for i := 1; i < len(args); i++ {
					args[i] = refBuffer.slot()
				}
				call(m, args)
			}
		})
	}
	if err := vm.collect(); err != nil {
		panic(fmt.Sprint("collect: ", err))
	}
	for _, o := range vm.sys.(*memory).objects {
		fmt.Fprintf(&done, "%x\n", o)
	}
	return done.String()
}

// TestNamesOfOtherCode: names go with the code that they were made for.
func TestNamesOfOtherCode(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	names := &Names{pkg: testPackage, code: []byte{1}, methods: map[int]methodNames{1: {name: "wrong"}, 5: {name: "wrong"}}}
	vm := newMachine(t, Linker{Trace: &Trace{AID: testPackage, Names: names, W: &out}})
	if _, err := vm.Link(testPackage, image{methods: []code{{1, 0, 0, []byte{opSconst1, opSreturn}}}}.build(), [32]byte{}); err != nil {
		t.Fatal(err)
	}
	exercise(vm, vm.packages[testPackage])
	if text := out.String(); strings.Contains(text, "wrong") || !strings.HasPrefix(text, "# the names of F00000000200 are those of other code than the card's, and are not used\n# call F00000000200:method@0001\n") {
		t.Errorf("%s", text)
	}
}
