package jcvm

import (
	"encoding/binary"
	"sort"
)

// rawInstruction is a bytecode as it stands in the Method component.
type rawInstruction struct {
	op      int
	size    int
	values  [3]int // operands in order
	targets []int  // offsets that it may jump to
	keys    []int32
	low     int32
	high    int32
	falls   bool // the next instruction may follow

}

// count bounds what is decoded of the Method component, in instructions, by its
// size: methods don't share code.
func (l *linking) count() {
	if l.decoded++; l.decoded > len(l.methodBytes) {
		malformed("methods that overlap")
	}
}

// fetch reads the instruction at an offset.
func (l *linking) fetch(offset int) rawInstruction {
	c := &component{name: "Method", b: l.methodBytes, pos: offset}
	if offset < l.firstMethod {
		malformed("code at offset %d, where none can be", offset)
	}
	in := rawInstruction{op: c.u1(), falls: true}
	if in.op >= opcodes {
		malformed("bytecode %d", in.op)
	}
	s2 := func() int { return int(int16(c.u2())) }
	s4 := func() int32 { return int32(binary.BigEndian.Uint32(c.bytes(4))) }
	n := 0
	value := func(v int) { in.values[n] = v; n++ }
	jump := func(by int) { in.targets = append(in.targets, offset+by) }
	for _, form := range operands[in.op] {
		switch form {
		case 'b':
			value(int(int8(c.u1())))
		case 's':
			value(s2())
		case 'i':
			value(int(s4()))
		case 'l', 'n', 'c':
			value(c.u1())
		case 'C':
			value(c.u2())
		case 'o':
			jump(int(int8(c.u1())))
		case 'O':
			jump(s2())
		case 't', 'T':
			jump(s2())
			if form == 't' {
				in.low, in.high = int32(s2()), int32(s2())
			} else {
				in.low, in.high = s4(), s4()
			}
			count := int64(in.high) - int64(in.low) + 1
			if count < 0 || count > int64(len(l.methodBytes))/2 {
				malformed("a switch of %d cases", count)
			}
			for range count {
				jump(s2())
			}
		case 'k', 'K':
			jump(s2())
			for range c.u2() {
				if form == 'k' {
					in.keys = append(in.keys, int32(s2()))
				} else {
					in.keys = append(in.keys, s4())
				}
				jump(s2())
			}
		}
	}
	switch in.op {
	case opGoto, opGotoW, opStableswitch, opItableswitch, opSlookupswitch, opIlookupswitch,
		opRet, opAreturn, opSreturn, opIreturn, opReturn, opAthrow:
		in.falls = false
	}
	in.size = c.pos - offset
	return in
}

// decode turns a method's code into its internal form, following it from its
// first instruction along every path.
func (l *linking) decode(m *method) {
	start := m.offset + 2
	if l.methodBytes[m.offset]&0x80 != 0 {
		start += 2
	}
	seen := map[int]rawInstruction{}
	queue := []int{start}
	used := make([]bool, len(l.handlers))
	for len(queue) > 0 {
		offset := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if _, ok := seen[offset]; ok {
			continue
		}
		in := l.fetch(offset)
		l.count()
		seen[offset] = in
		if in.falls {
			queue = append(queue, offset+in.size)
		}
		queue = append(queue, in.targets...)
		for i, h := range l.handlers {
			if !used[i] && offset >= h.from && offset < h.to {
				used[i] = true
				queue = append(queue, h.target)
			}
		}
	}
	offsets := make([]int, 0, len(seen))
	for offset := range seen {
		offsets = append(offsets, offset)
	}
	sort.Ints(offsets)
	for i, offset := range offsets {
		in := seen[offset]
		last := i == len(offsets)-1
		switch {
		case !last && offsets[i+1] < offset+in.size:
			malformed("instructions that overlap at offset %d", offset)
		case in.falls && (last || offsets[i+1] != offset+in.size):
			malformed("code at offset %d that goes on nowhere", offset)
		}
	}
	if offsets[0] != start {
		malformed("code before the method at offset %d", m.offset)
	}
	index := l.layout(m, offsets, seen)
	t := l.pkg.trace
	m.code = make([]instruction, 0, len(m.at))
	if t != nil {
		m.code = append(m.code, instruction{op: opEntered})
	}
	for _, offset := range offsets {
		in := seen[offset]
		if t != nil && t.shows(in.op) {
			m.code = append(m.code, instruction{op: opTraced, n: uint16(in.op), a: int32(len(m.texts))})
			m.texts = append(m.texts, in.text())
		}
		m.code = append(m.code, l.instruction(m, in, index))
	}
	if t == nil && !l.vm.plain {
		fuse(m.code)
	}
	for i, h := range l.handlers {
		if !used[i] {
			continue
		}
		out := handler{
			from: sort.SearchInts(m.at, h.from), to: sort.SearchInts(m.at, h.to), target: index[h.target],
		}
		if h.class != 0 {
			out.class = l.constant(h.class, constClass).class
			if !out.class.extends(l.vm.api.throwable) {
				malformed("a handler for what is no exception")
			}
		}
		m.handlers = append(m.handlers, out)
	}
}

// layout decides where a method's bytecodes will stand: one behind the other,
// in a trace behind what writes a line. It returns the indices that jumps go to,
// by offset.
func (l *linking) layout(m *method, offsets []int, code map[int]rawInstruction) map[int]int {
	t := l.pkg.trace
	if t != nil {
		m.at = append(m.at, offsets[0]) // the entry, which no jump goes to
	}
	index := make(map[int]int, len(offsets))
	for _, offset := range offsets {
		index[offset] = len(m.at)
		if t != nil && t.shows(code[offset].op) {
			m.at = append(m.at, offset)
		}
		m.at = append(m.at, offset)
	}
	return index
}

// constant returns an entry of the constant pool that must be of a type.
func (l *linking) constant(n int, tag byte) *constant {
	if n >= len(l.pkg.constants) || l.pkg.constants[n].tag != tag {
		malformed("the constant %d is not of the type that an instruction needs", n)
	}
	return &l.pkg.constants[n]
}

// instruction gives an instruction its internal form: bytecodes that differ
// only in how operands are written become one.
func (l *linking) instruction(m *method, in rawInstruction, index map[int]int) instruction {
	op, v := in.op, in.values
	out := instruction{op: uint8(op)}
	if len(in.targets) > 0 {
		out.a = int32(index[in.targets[0]])
	}
	set := func(op int, n uint16, a int) instruction { return instruction{op: uint8(op), n: n, a: int32(a)} }
	jump := func(op int) instruction { return instruction{op: uint8(op), a: out.a} }
	switch {
	case op >= opSconstM1 && op <= opSconst5:
		return set(opSspush, 0, op-opSconst0)
	case op >= opIconstM1 && op <= opIconst5:
		return set(opIipush, 0, op-opIconst0)
	case op == opBspush || op == opSspush:
		return set(opSspush, 0, v[0])
	case op == opBipush || op == opSipush || op == opIipush:
		return set(opIipush, 0, v[0])
	case op == opAload || op == opSload:
		return set(opSload, uint16(v[0]), 0)
	case op == opIload:
		return set(opIload, uint16(v[0]), 0)
	case op >= opAload0 && op <= opAload3:
		return set(opSload, uint16(op-opAload0), 0)
	case op >= opSload0 && op <= opSload3:
		return set(opSload, uint16(op-opSload0), 0)
	case op >= opIload0 && op <= opIload3:
		return set(opIload, uint16(op-opIload0), 0)
	case op == opAstore || op == opSstore:
		return set(opSstore, uint16(v[0]), 0)
	case op == opIstore:
		return set(opIstore, uint16(v[0]), 0)
	case op >= opAstore0 && op <= opAstore3:
		return set(opSstore, uint16(op-opAstore0), 0)
	case op >= opSstore0 && op <= opSstore3:
		return set(opSstore, uint16(op-opSstore0), 0)
	case op >= opIstore0 && op <= opIstore3:
		return set(opIstore, uint16(op-opIstore0), 0)
	case op == opSinc || op == opSincW:
		return set(opSinc, uint16(v[0]), v[1])
	case op == opIinc || op == opIincW:
		return set(opIinc, uint16(v[0]), v[1])
	case op == opDupX || op == opSwapX:
		high, low := v[0]>>4, v[0]&0xF
		switch {
		case op == opDupX && (high < 1 || high > 4 || low != 0 && low < high || low > high+4):
			malformed("dup_x with %02X", v[0])
		case op == opSwapX && (high < 1 || high > 2 || low < 1 || low > 2):
			malformed("swap_x with %02X", v[0])
		}
		return instruction{op: uint8(op), x: uint8(high), n: uint16(low)}
	case op >= opIfeqW && op <= opGotoW:
		return jump(op - opIfeqW + opIfeq)
	case op == opRet:
		return set(opRet, uint16(v[0]), 0)
	case op == opStableswitch || op == opItableswitch || op == opSlookupswitch || op == opIlookupswitch:
		t := switchTable{low: in.low, high: in.high, keys: in.keys, other: index[in.targets[0]]}
		for _, target := range in.targets[1:] {
			t.targets = append(t.targets, index[target])
		}
		m.switches = append(m.switches, t)
		return set(op, 0, len(m.switches)-1)
	case op >= opGetstaticA && op <= opPutstaticI:
		c := l.constant(v[0], constStaticField)
		form := (op - opGetstaticA) % 4
		size := [4]int{2, 1, 2, 4}[form]
		if c.ref != (form == 0) || c.offset+size > c.pkg.staticSize {
			malformed("a static field of another type")
		}
		return set(op, uint16(v[0]), packageStatics+c.offset)
	case op >= opGetfieldA && op <= opPutfieldI, op >= opGetfieldAW && op <= opPutfieldIThis:
		c := l.constant(v[0], constField)
		base := op
		switch {
		case op >= opPutfieldAThis:
			base = op - opPutfieldAThis + opPutfieldA
			op = base - opPutfieldA + opPutfieldAThis
		case op >= opPutfieldAW:
			base = op - opPutfieldAW + opPutfieldA
			op = base
		case op >= opGetfieldAThis:
			base = op - opGetfieldAThis + opGetfieldA
		case op >= opGetfieldAW:
			base = op - opGetfieldAW + opGetfieldA
			op = base
		}
		form := (base - opGetfieldA) % 4
		if c.ref != (form == 0) || form == 3 && !c.wide {
			malformed("a field of another type")
		}
		return set(op, uint16(v[0]), c.offset)
	case op == opInvokevirtual:
		c := l.constant(v[0], constVirtual)
		return instruction{op: uint8(op), x: uint8(c.args), n: uint16(v[0])}
	case op == opInvokespecial:
		if v[0] < len(l.pkg.constants) && l.pkg.constants[v[0]].tag == constSuper {
			c := l.constant(v[0], constSuper)
			return instruction{op: uint8(op), x: uint8(c.args), n: uint16(v[0])}
		}
		c := l.constant(v[0], constStaticMethod)
		if c.args == 0 {
			malformed("a call of a method on an object, without the object")
		}
		return instruction{op: uint8(op), x: uint8(c.args), n: uint16(v[0])}
	case op == opInvokestatic:
		c := l.constant(v[0], constStaticMethod)
		return instruction{op: uint8(op), x: uint8(c.args), n: uint16(v[0])}
	case op == opInvokeinterface:
		c := l.constant(v[1], constClass)
		if !c.class.iface || v[0] == 0 {
			malformed("a call of an interface's method on what is no interface")
		}
		return instruction{op: uint8(op), x: uint8(v[0]), n: uint16(v[1]), a: int32(v[2])}
	case op == opNew:
		c := l.constant(v[0], constClass)
		if c.class.iface || c.class.abstract {
			malformed("an object of an abstract class")
		}
		return set(op, uint16(v[0]), 0)
	case op == opAnewarray:
		l.constant(v[0], constClass)
		return set(op, uint16(v[0]), 0)
	case op == opNewarray:
		if v[0] < 10 || v[0] > 13 {
			malformed("an array of the type %d", v[0])
		}
		return instruction{op: uint8(op), x: uint8(arrayKind(v[0]))}
	case op == opCheckcast || op == opInstanceof:
		switch {
		case v[0] == 0 || v[0] == 14:
			l.constant(v[1], constClass)
		case v[0] < 10 || v[0] > 13:
			malformed("a cast to the type %d", v[0])
		}
		return instruction{op: uint8(op), x: uint8(v[0]), n: uint16(v[1])}
	}
	return out
}

// arrayKind is the kind of an array of primitive values by its number in
// newarray (JCVM table 7-1).
func arrayKind(t int) kind { return kindBoolean + kind(t-10) }
