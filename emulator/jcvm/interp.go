package jcvm

import (
	"encoding/binary"
)

// frame is a method that runs. Its window of the stack holds the arguments and
// local variables, then the operands; arguments lie where the caller pushed
// them.
type frame struct {
	method *method
	base   int // of the window
	sp     int // within the window
	pc     int // index of the instruction that runs next; for callers that of the call
	// What was before the call.
	owner, group, caller ref
}

// call runs a method with arguments and returns its result, from native code
// or from outside. What it throws unwinds as thrown.
func (vm *VM) call(m *method, args ...slot) slot {
	if vm.nested >= maxNested {
		vm.fault("calls nested too deeply")
	}
	base := 0
	n := len(vm.frames)
	if n > 0 {
		f := &vm.frames[n-1]
		base = f.base + f.method.frame
	}
	if len(args) != m.args || base+len(args)+m.frame+2 > len(vm.stack) {
		vm.fault("no stack for a call")
	}
	if m.native != nil {
		return m.native(vm, args)
	}
	if n >= maxFrames {
		vm.fault("more than %d methods deep", maxFrames)
	}
	vm.nested++
	// A frame of no method, to take the result: two slots of stack.
	outer := &method{frame: len(args) + 2, pkg: m.pkg}
	copy(vm.stack[base:], args)
	vm.frames = append(vm.frames, frame{method: outer, base: base, sp: len(args), owner: vm.owner, group: vm.group, caller: vm.caller})
	vm.enter(m)
	caught := vm.run(n + 1)
	f := vm.frames[n]
	vm.pop()
	vm.nested--
	if !caught {
		panic(thrown{})
	}
	if f.sp == 0 {
		return 0
	}
	return vm.stack[base]
}

// enter pushes the frame of a method whose arguments are on the stack of the
// last frame.
func (vm *VM) enter(m *method) {
	f := &vm.frames[len(vm.frames)-1]
	if m.code == nil {
		vm.fault("call of a method without code: %s", m.name)
	}
	if len(vm.frames) >= maxFrames {
		vm.fault("more than %d methods deep", maxFrames)
	}
	f.sp -= m.args
	base := f.base + f.sp
	if f.sp < 0 || base+m.frame > len(vm.stack) {
		vm.fault("no stack for a call")
	}
	window := vm.stack[base : base+m.frame]
	clear(window[m.args:])
	vm.frames = append(vm.frames, frame{method: m, base: base, sp: m.operands, owner: vm.owner, group: vm.group, caller: vm.caller})
}

// run executes until the frames are no more than depth. It reports whether
// every exception found its handler.
func (vm *VM) run(depth int) bool {
	for !vm.attempt(depth) {
		if !vm.unwind(depth) {
			return false
		}
	}
	return true
}

// inContext runs f in the context of an instance, called from the running one
// (JCRE 6.1.2).
func (vm *VM) inContext(owner ref, f func() slot) slot {
	before, group, caller := vm.owner, vm.group, vm.caller
	defer func() { vm.owner, vm.group, vm.caller = before, group, caller }()
	vm.owner, vm.group, vm.caller = owner, vm.groupOf(owner), before
	return f()
}

// attempt executes until the frames are no more than depth, or an exception
// wants a handler.
func (vm *VM) attempt(depth int) (done bool) {
	nested := vm.nested
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(thrown); !ok {
				panic(e)
			}
			vm.nested = nested
			done = false
		}
	}()
	vm.execute(depth)
	return true
}

// unwind finds the handler for the pending exception (JCVM 3.6).
func (vm *VM) unwind(depth int) bool {
	for len(vm.frames) > depth {
		f := &vm.frames[len(vm.frames)-1]
		if vm.steps -= int64(f.pc) + costThrow; vm.steps < 0 {
			panic(fault{"too many bytecodes in one command"})
		}
		o := vm.objs[vm.pending]
		for _, h := range f.method.handlers {
			if f.pc < h.from || f.pc >= h.to || h.class != nil && (o == nil || !o.class.extends(h.class)) {
				continue
			}
			if t := f.method.pkg.trace; t != nil {
				t.caught(vm, f, h.target)
			}
			f.sp = f.method.operands
			vm.stack[f.base : f.base+f.method.frame][f.sp] = vm.pending.slot()
			f.sp++
			f.pc = h.target
			vm.pending = 0
			return true
		}
		if t := f.method.pkg.trace; t != nil {
			t.left(vm, f)
		}
		vm.pop()
	}
	return false
}

// pop drops the last frame and goes back to the context of its caller.
func (vm *VM) pop() {
	f := &vm.frames[len(vm.frames)-1]
	vm.owner, vm.group, vm.caller = f.owner, f.group, f.caller
	vm.frames = vm.frames[:len(vm.frames)-1]
}

// What takes more time than a bytecode, in bytecodes.
const (
	costThrow  = 100
	costNative = 10
	costObject = 50
)

func (vm *VM) nullPointer() { vm.throw("java/lang/NullPointerException") }

// load returns an array and checks the index into it.
func (vm *VM) load(array, index slot) (*object, int) {
	o := vm.object(array)
	if o == nil {
		vm.nullPointer()
	}
	if o.group != vm.group || o.checked {
		vm.accessChecked(o)
	}
	i := int(int16(index))
	if uint(i) >= uint(o.length) {
		vm.throw("java/lang/ArrayIndexOutOfBoundsException")
	}
	return o, i
}

// fieldOf returns the object whose field an instruction wants.
func (vm *VM) fieldOf(s slot, c *constant) *object {
	o := vm.object(s)
	if o == nil {
		vm.nullPointer()
	}
	if o.class != c.class && !o.class.extends(c.class) {
		vm.fault("field of an object of another class")
	}
	if o.group != vm.group || o.checked {
		vm.accessChecked(o)
	}
	return o
}

func wrongKind() { panic(fault{"array of another type"}) }

func int32Of(high, low slot) int32 { return int32(uint32(high)<<16 | uint32(uint16(low))) }

// execute runs until the frames are no more than depth.
func (vm *VM) execute(depth int) {
	for {
		in := vm.straight(depth)
		if in == nil {
			return
		}
		vm.step(&vm.frames[len(vm.frames)-1], in)
	}
}

// open returns an object that the running context may use without a closer look.
func (vm *VM) open(s slot) *object {
	if s>>16 == 1 {
		if o := vm.objs[uint16(s)]; o != nil && (o.group == vm.group || o.group == everyone) && !o.checked {
			return o
		}
	}
	return nil
}

// straight executes what stays within windows of the stack and in volatile
// memory: most of what methods do. It returns the first instruction that does
// more, with the last frame on it, for step: also one that it does have a case
// for, where the object isn't the running context's own, an index is out of
// range or a write persistent. It returns nil when the frames are no more than
// depth.
//
// Nothing is live across a call in here, so that Go keeps the state in
// registers: where there is a call, the frame is read anew after it. An index
// that leaves the window of the stack panics, and guard makes a fault of it.
func (vm *VM) straight(depth int) *instruction {
	var (
		f      *frame
		code   []instruction
		cs     []constant
		st     []slot // window of the running frame
		pc, sp int
		in     *instruction
		l, r   slot // operands of a fused instruction
		target int
		callee *method
	)
frame:
	f = &vm.frames[len(vm.frames)-1]
	code, cs = f.method.code, f.method.pkg.constants
	st = vm.stack[f.base : f.base+f.method.frame]
	pc, sp = f.pc, f.sp
	for {
		in = &code[pc]
		pc++
		switch in.op {
		case opNop:
		case opAconstNull:
			st[sp] = null
			sp++
		case opSspush:
			st[sp] = slot(uint16(in.a))
			sp++
		case opIipush:
			st[sp], st[sp+1] = slot(uint32(in.a)>>16), slot(uint16(in.a))
			sp += 2
		case opSload:
			st[sp] = st[in.n]
			sp++
		case opIload:
			st[sp+1], st[sp] = st[in.n+1], st[in.n]
			sp += 2
		case opSstore:
			sp--
			st[in.n] = st[sp]
		case opIstore:
			sp -= 2
			st[in.n], st[in.n+1] = st[sp], st[sp+1]

		case opBaload:
			if o := vm.open(st[sp-2]); o != nil && o.kind == kindByte {
				if i := int(uint16(st[sp-1])); i < len(o.data) {
					sp--
					st[sp-1] = slot(uint16(int8(o.data[i])))
					continue
				}
			}
			goto leave
		case opSaload:
			if o := vm.open(st[sp-2]); o != nil && o.kind == kindShort {
				if i := 2 * int(uint16(st[sp-1])); i < len(o.data) {
					sp--
					st[sp-1] = slot(binary.BigEndian.Uint16(o.data[i:]))
					continue
				}
			}
			goto leave
		case opBastore:
			if o := vm.open(st[sp-3]); o != nil && o.kind == kindByte && !o.persistent {
				if i := int(uint16(st[sp-2])); i < len(o.data) {
					o.data[i] = byte(st[sp-1])
					sp -= 3
					continue
				}
			}
			goto leave
		case opSastore:
			if o := vm.open(st[sp-3]); o != nil && o.kind == kindShort && !o.persistent {
				if i := 2 * int(uint16(st[sp-2])); i < len(o.data) {
					binary.BigEndian.PutUint16(o.data[i:], uint16(st[sp-1]))
					sp -= 3
					continue
				}
			}
			goto leave
		case opPop:
			sp--
		case opPop2:
			sp -= 2
		case opDup:
			st[sp] = st[sp-1]
			sp++
		case opDup2:
			st[sp+1] = st[sp-1]
			st[sp] = st[sp-2]
			sp += 2
		case opSadd:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] + st[sp]))
		case opSsub:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] - st[sp]))
		case opSmul:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] * st[sp]))
		case opSneg:
			st[sp-1] = slot(uint16(-st[sp-1]))
		case opSshl:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] << (st[sp] & 0x1F)))
		case opSshr:
			sp--
			st[sp-1] = slot(uint16(int16(st[sp-1]) >> (st[sp] & 0x1F)))
		case opSushr:
			sp--
			// Shifted as an int (JCVM 7.5): a negative short stays negative.
			st[sp-1] = slot(uint16(uint32(int32(int16(st[sp-1]))) >> (st[sp] & 0x1F)))
		case opSand:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] & st[sp]))
		case opSor:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] | st[sp]))
		case opSxor:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] ^ st[sp]))
		case opSinc:
			st[in.n] = slot(uint16(uint32(st[in.n]) + uint32(in.a)))

		case opS2b:
			st[sp-1] = slot(uint16(int8(st[sp-1])))
		case opS2i:
			a := int32(int16(st[sp-1]))
			st[sp], st[sp-1] = slot(uint16(a)), slot(uint32(a)>>16)
			sp++
		case opIfeq:
			sp--
			if uint16(st[sp]) == 0 {
				goto jump
			}
		case opIfne:
			sp--
			if uint16(st[sp]) != 0 {
				goto jump
			}
		case opIflt:
			sp--
			if int16(st[sp]) < 0 {
				goto jump
			}
		case opIfge:
			sp--
			if int16(st[sp]) >= 0 {
				goto jump
			}
		case opIfgt:
			sp--
			if int16(st[sp]) > 0 {
				goto jump
			}
		case opIfle:
			sp--
			if int16(st[sp]) <= 0 {
				goto jump
			}
		case opIfnull:
			sp--
			if uint16(st[sp]) == 0 {
				goto jump
			}
		case opIfnonnull:
			sp--
			if uint16(st[sp]) != 0 {
				goto jump
			}
		case opIfAcmpeq, opIfScmpeq:
			sp -= 2
			if uint16(st[sp]) == uint16(st[sp+1]) {
				goto jump
			}
		case opIfAcmpne, opIfScmpne:
			sp -= 2
			if uint16(st[sp]) != uint16(st[sp+1]) {
				goto jump
			}
		case opIfScmplt:
			sp -= 2
			if int16(st[sp]) < int16(st[sp+1]) {
				goto jump
			}
		case opIfScmpge:
			sp -= 2
			if int16(st[sp]) >= int16(st[sp+1]) {
				goto jump
			}
		case opIfScmpgt:
			sp -= 2
			if int16(st[sp]) > int16(st[sp+1]) {
				goto jump
			}
		case opIfScmple:
			sp -= 2
			if int16(st[sp]) <= int16(st[sp+1]) {
				goto jump
			}
		case opGoto:
			goto jump

		case opInvokestatic:
			callee = cs[in.n].method
			goto invoke
		case opInvokevirtual:
			if o := vm.open(st[sp-int(in.x)]); o != nil && o.class == cs[in.n].class {
				if t := cs[in.n].token; t&0x80 != 0 {
					callee = o.class.private[t&0x7F]
				} else {
					callee = o.class.virtual[t]
				}
				goto invoke
			}
			goto leave
		case opAreturn, opSreturn:
			l = st[sp-1]
			vm.pay(pc)
			f = vm.back()
			vm.stack[f.base : f.base+f.method.frame][f.sp] = l
			f.sp++
			goto back
		case opIreturn:
			l, r = st[sp-2], st[sp-1]
			vm.pay(pc)
			f = vm.back()
			st = vm.stack[f.base : f.base+f.method.frame]
			st[f.sp], st[f.sp+1] = l, r
			f.sp += 2
			goto back
		case opReturn:
			vm.pay(pc)
			vm.back()
			goto back

		case opGetfieldAThis:
			if o := vm.open(st[0]); o != nil && o.class == cs[in.n].class {
				st[sp] = tagReference | slot(binary.BigEndian.Uint16(o.data[in.a:]))
				sp++
				continue
			}
			goto leave
		case opGetfieldBThis:
			if o := vm.open(st[0]); o != nil && o.class == cs[in.n].class {
				st[sp] = slot(uint16(int8(o.data[in.a+1])))
				sp++
				continue
			}
			goto leave
		case opGetfieldSThis:
			if o := vm.open(st[0]); o != nil && o.class == cs[in.n].class {
				st[sp] = slot(binary.BigEndian.Uint16(o.data[in.a:]))
				sp++
				continue
			}
			goto leave

		// Fused instructions: see fuse. One that can't do its work does that of the
		// first of its sequence, and leaves the rest to those that follow.
		case opLoadTwo:
			st[sp+1] = st[in.n>>8]
			st[sp] = st[in.n&0xFF]
			sp += 2
			pc++
		case opLoadByte:
			if o := vm.open(st[in.n&0xFF]); o != nil && o.kind == kindByte {
				if i := int(uint16(st[in.n>>8])); i < len(o.data) {
					st[sp] = slot(uint16(int8(o.data[i])))
					sp++
					pc += 2
					continue
				}
			}
			st[sp] = st[in.n&0xFF]
			sp++
		case opLoadByteAfter:
			if o := vm.open(st[in.n&0xFF]); o != nil && o.kind == kindByte {
				if i := int(uint16(st[in.n>>8] + slot(in.a))); i < len(o.data) {
					st[sp] = slot(uint16(int8(o.data[i])))
					sp++
					pc += 4
					continue
				}
			}
			st[sp] = st[in.n&0xFF]
			sp++
		case opStoreByte:
			if o := vm.open(st[sp-3]); o != nil && o.kind == kindByte && !o.persistent {
				if i := int(uint16(st[sp-2])); i < len(o.data) {
					o.data[i] = byte(st[sp-1])
					sp -= 3
					pc++
					continue
				}
			}
			st[sp-1] = slot(uint16(int8(st[sp-1])))
		case opIncGoto:
			st[in.n] = slot(uint16(uint32(st[in.n]) + uint32(int8(in.x))))
			pc++
			goto jump
		case opArithStackLocal, opArithStackLocalStore:
			sp--
			l, r = st[sp], st[in.a]
			goto alu
		case opArithStackStackStore:
			sp -= 2
			l, r = st[sp], st[sp+1]
			pc--
			goto alu
		case opArithStackConst, opArithStackConstStore:
			sp--
			l, r = st[sp], slot(in.a)
			goto alu
		case opArithLocalLocal, opArithLocalLocalStore:
			l, r = st[in.n&0xFF], st[in.a]
			pc++
			goto alu
		case opArithLocalConst, opArithLocalConstStore:
			l, r = st[in.n&0xFF], slot(in.a)
			pc++
			goto alu
		case opCompareLocal:
			l, r = st[in.n&0xFF], st[in.n>>8]
			goto compare
		case opCompareConst:
			l, r = st[in.n&0xFF], slot(uint16(int8(in.n>>8)))
			goto compare
		default:
			goto leave
		}
		continue
	alu:
		switch in.x {
		case opSadd:
			l += r
		case opSsub:
			l -= r
		case opSmul:
			l *= r
		case opSand:
			l &= r
		case opSor:
			l |= r
		default:
			l ^= r
		}
		if in.op >= opArithStackLocalStore {
			st[in.n>>8] = slot(uint16(l))
			pc += 2
		} else {
			st[sp] = slot(uint16(l))
			sp++
			pc++
		}
		continue
	compare:
		pc += 2
		switch in.x {
		case opIfScmpeq:
			if uint16(l) == uint16(r) {
				goto jump
			}
		case opIfScmpne:
			if uint16(l) != uint16(r) {
				goto jump
			}
		case opIfScmplt:
			if int16(l) < int16(r) {
				goto jump
			}
		case opIfScmpge:
			if int16(l) >= int16(r) {
				goto jump
			}
		case opIfScmpgt:
			if int16(l) > int16(r) {
				goto jump
			}
		default:
			if int16(l) <= int16(r) {
				goto jump
			}
		}
		continue
	invoke:
		if callee.native != nil || callee.args != int(in.x) {
			goto leave
		}
		f.pc, f.sp = pc-1, sp
		vm.enter(callee)
		goto frame
	back:
		if len(vm.frames) <= depth {
			return nil
		}
		goto frame
	jump:
		target = int(in.a)
		if target < pc {
			vm.pay(pc - target)
		}
		pc = target
	}
leave:
	f.pc, f.sp = pc-1, sp
	return &code[pc-1]
}

// back drops the frame of a method that returns, and is its caller's, past the
// call.
func (vm *VM) back() *frame {
	vm.pop()
	f := &vm.frames[len(vm.frames)-1]
	f.pc++
	return f
}

// pay takes bytecodes from what the command may execute. Every one is paid for:
// on the way back of a loop, on return, or when an exception leaves the method.
func (vm *VM) pay(n int) {
	if vm.steps -= int64(n); vm.steps < 0 {
		panic(fault{"too many bytecodes in one command"})
	}
}

// noSwitch is no owner: the context stays.
const noSwitch ref = 0xFFFF

// table and lookup find the case of a switch.
func (t *switchTable) table(v int32) int {
	if v < t.low || v > t.high {
		return t.other
	}
	return t.targets[int64(v)-int64(t.low)]
}

func (t *switchTable) lookup(v int32) int {
	for i, k := range t.keys {
		if k == v {
			return t.targets[i]
		}
	}
	return t.other
}

// storeReference is aastore (JCVM 7.5.2): what is stored must fit the type of
// the array's elements.
func (vm *VM) storeReference(array, index, value slot) {
	o, i := vm.load(array, index)
	if o.kind != kindReference {
		wrongKind()
	}
	if v := vm.object(value); v != nil {
		fits := v.class.assignable(o.element)
		if v.kind.array() {
			fits = o.element == vm.api.object
		}
		if !fits {
			vm.throw("java/lang/ArrayStoreException")
		}
		vm.storable(value)
	}
	vm.write2(o, 2*i, uint16(value))
}

// is decides checkcast and instanceof (JCVM 7.5.10), and whether the running
// context may ask (JCRE 6.2.8.7).
func (vm *VM) is(o *object, in *instruction, cs []constant) bool {
	var c *class
	if in.x == 0 || in.x == 14 {
		c = cs[in.n].class
	}
	if o.group != vm.group || o.checked {
		switch {
		case o.entry != noEntryPoint, o.global, vm.group == 0, o.group == everyone, o.group == vm.group:
		case in.x == 0 && c.iface && c.shareable && o.class.sharing(vm.api.shareable):
		default:
			vm.throw("java/lang/SecurityException")
		}
	}
	switch {
	case in.x == 0 && o.kind == kindInstance:
		return o.class.assignable(c)
	case in.x == 0:
		return o.kind.array() && c == vm.api.object
	case in.x == 14 && o.kind == kindReference:
		return o.element.assignable(c)
	case in.x == 14:
		return false
	}
	return o.kind == arrayKind(int(in.x))
}

// within is the class itself, or the nearest superclass that is in a package:
// what is visible in that package only, other packages' classes don't override.
func (c *class) within(p *pkg) *class {
	for i := len(c.supers) - 1; i > 0; i-- {
		if c.supers[i].pkg == p {
			return c.supers[i]
		}
	}
	return c
}

// sharing reports whether a class implements an interface that extends
// Shareable.
func (c *class) sharing(shareable *class) bool { return c.assignable(shareable) }

// invocable decides whether the running context may call a method of an object
// of another one (JCRE 6.2.8.4, 6.2.8.5), and throws if not. It reports whether
// the call goes over to the object's context.
func (vm *VM) invocable(o *object, iface *class) bool {
	switch {
	case o.entry != noEntryPoint, o.group == vm.group, o.group == everyone, vm.group == 0 && o.group == 0:
		return false
	case vm.group == 0:
		return true
	case o.kind.array() && o.global:
		return false
	case iface != nil && iface.shareable && o.class.sharing(vm.api.shareable):
		return true
	}
	vm.throw("java/lang/SecurityException")
	return false
}
