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
	pc     int // of the running instruction; for callers that of the call
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
	if n := len(vm.frames); n > 0 {
		f := &vm.frames[n-1]
		base = f.base + f.method.frame
	}
	if len(args) != m.args || base+len(args)+m.frame+2 > len(vm.stack) {
		vm.fault("no stack for a call")
	}
	if m.native != nil {
		return m.native(vm, args)
	}
	pc := vm.pc
	vm.nested++
	depth := len(vm.frames)
	// A frame of no method, to take the result: two slots of stack.
	outer := &method{frame: len(args) + 2, pkg: m.pkg}
	copy(vm.stack[base:], args)
	vm.frames = append(vm.frames, frame{method: outer, base: base, sp: len(args), owner: vm.owner, group: vm.group, caller: vm.caller})
	vm.enter(m)
	caught := vm.run(depth + 1)
	f := vm.frames[depth]
	vm.pop()
	vm.nested--
	vm.pc = pc
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
			vm.frames[len(vm.frames)-1].pc = vm.pc
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
			f.sp = f.method.operands
			vm.stack[f.base : f.base+f.method.frame][f.sp] = vm.pending.slot()
			f.sp++
			f.pc = h.target
			vm.pending = 0
			return true
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

// execute is the interpreter. Indices that leave the window of the stack
// panic, and guard makes a fault of it.
func (vm *VM) execute(depth int) {
	f := &vm.frames[len(vm.frames)-1]
	m := f.method
	code, cs := m.code, m.pkg.constants
	st := vm.stack[f.base : f.base+m.frame : f.base+m.frame] // window of the running frame
	pc, sp := f.pc, f.sp
	target := 0
	var l, r slot // operands of a fused instruction
	var callee *method
	n, base, switchTo := 0, 0, noSwitch
	for {
		in := &code[pc]
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

		case opAaload:
			vm.pc = pc - 1
			sp--
			o, i := vm.load(st[sp-1], st[sp])
			if o.kind != kindReference {
				wrongKind()
			}
			st[sp-1] = tagReference | slot(binary.BigEndian.Uint16(o.data[2*i:]))
		case opBaload:
			sp--
			if s := st[sp-1]; s>>16 == 1 {
				// The usual case without calls: one's own array.
				if o := vm.objs[uint16(s)]; o != nil && o.kind == kindByte && o.group == vm.group && !o.checked {
					if i := int(uint16(st[sp])); i < len(o.data) {
						st[sp-1] = slot(uint16(int8(o.data[i])))
						continue
					}
				}
			}
			vm.pc = pc - 1
			o, i := vm.load(st[sp-1], st[sp])
			if o.kind != kindByte && o.kind != kindBoolean {
				wrongKind()
			}
			st[sp-1] = slot(uint16(int8(o.data[i])))
		case opSaload:
			vm.pc = pc - 1
			sp--
			o, i := vm.load(st[sp-1], st[sp])
			if o.kind != kindShort {
				wrongKind()
			}
			st[sp-1] = slot(binary.BigEndian.Uint16(o.data[2*i:]))
		case opIaload:
			vm.pc = pc - 1
			o, i := vm.load(st[sp-2], st[sp-1])
			if o.kind != kindInt {
				wrongKind()
			}
			v := binary.BigEndian.Uint32(o.data[4*i:])
			st[sp-2], st[sp-1] = slot(v>>16), slot(uint16(v))
		case opAastore:
			vm.pc = pc - 1
			sp -= 3
			vm.storeReference(st[sp], st[sp+1], st[sp+2])
		case opBastore, opStoreByte:
			if in.op == opStoreByte {
				pc++ // what is stored is a byte anyway
			}
			sp -= 3
			if s := st[sp]; s>>16 == 1 {
				if o := vm.objs[uint16(s)]; o != nil && o.kind == kindByte && o.group == vm.group && !o.checked && !o.persistent {
					if i := int(uint16(st[sp+1])); i < len(o.data) {
						o.data[i] = byte(st[sp+2])
						continue
					}
				}
			}
			vm.pc = pc - 1
			o, i := vm.load(st[sp], st[sp+1])
			switch {
			case o.kind != kindByte && o.kind != kindBoolean:
				wrongKind()
			case o.persistent:
				vm.write1(o, i, byte(st[sp+2]))
			default:
				o.data[i] = byte(st[sp+2])
			}
		case opSastore:
			vm.pc = pc - 1
			sp -= 3
			o, i := vm.load(st[sp], st[sp+1])
			if o.kind != kindShort {
				wrongKind()
			}
			vm.write2(o, 2*i, uint16(st[sp+2]))
		case opIastore:
			vm.pc = pc - 1
			sp -= 4
			o, i := vm.load(st[sp], st[sp+1])
			if o.kind != kindInt {
				wrongKind()
			}
			vm.write4(o, 4*i, uint32(int32Of(st[sp+2], st[sp+3])))

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
		case opDupX:
			high, low := int(in.x), int(in.n)
			if low == 0 {
				copy(st[sp:sp+high], st[sp-high:sp])
			} else {
				// The top words go below the n topmost ones as well.
				_ = st[sp+high-1]
				copy(st[sp-low+high:sp+high], st[sp-low:sp])
				copy(st[sp-low:sp-low+high], st[sp:sp+high])
			}
			sp += high
		case opSwapX:
			high, low := int(in.x), int(in.n)
			var top [4]slot
			part := st[sp-high-low : sp]
			copy(top[:], part[low:])
			copy(part[high:], part[:low])
			copy(part, top[:high])

		case opSadd:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] + st[sp]))
		case opSsub:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] - st[sp]))
		case opSmul:
			sp--
			st[sp-1] = slot(uint16(st[sp-1] * st[sp]))
		case opSdiv:
			vm.pc = pc - 1
			sp--
			if int16(st[sp]) == 0 {
				vm.throw("java/lang/ArithmeticException")
			}
			st[sp-1] = slot(uint16(int32(int16(st[sp-1])) / int32(int16(st[sp]))))
		case opSrem:
			vm.pc = pc - 1
			sp--
			if int16(st[sp]) == 0 {
				vm.throw("java/lang/ArithmeticException")
			}
			st[sp-1] = slot(uint16(int32(int16(st[sp-1])) % int32(int16(st[sp]))))
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

		case opIadd, opIsub, opImul, opIdiv, opIrem, opIand, opIor, opIxor:
			vm.pc = pc - 1
			sp -= 2
			a, b := int32Of(st[sp-2], st[sp-1]), int32Of(st[sp], st[sp+1])
			switch in.op {
			case opIadd:
				a += b
			case opIsub:
				a -= b
			case opImul:
				a *= b
			case opIand:
				a &= b
			case opIor:
				a |= b
			case opIxor:
				a ^= b
			default:
				if b == 0 {
					vm.throw("java/lang/ArithmeticException")
				}
				if in.op == opIdiv {
					a = int32(int64(a) / int64(b))
				} else {
					a = int32(int64(a) % int64(b))
				}
			}
			st[sp-2], st[sp-1] = slot(uint32(a)>>16), slot(uint16(a))
		case opIneg:
			a := -int32Of(st[sp-2], st[sp-1])
			st[sp-2], st[sp-1] = slot(uint32(a)>>16), slot(uint16(a))
		case opIshl, opIshr, opIushr:
			sp -= 2
			a, b := int32Of(st[sp-2], st[sp-1]), st[sp+1]&0x1F
			switch in.op {
			case opIshl:
				a <<= b
			case opIshr:
				a >>= b
			default:
				a = int32(uint32(a) >> b)
			}
			st[sp-2], st[sp-1] = slot(uint32(a)>>16), slot(uint16(a))
		case opIinc:
			a := int32Of(st[in.n], st[in.n+1]) + in.a
			st[in.n], st[in.n+1] = slot(uint32(a)>>16), slot(uint16(a))
		case opS2b:
			st[sp-1] = slot(uint16(int8(st[sp-1])))
		case opS2i:
			a := int32(int16(st[sp-1]))
			st[sp], st[sp-1] = slot(uint16(a)), slot(uint32(a)>>16)
			sp++
		case opI2b:
			sp--
			st[sp-1] = slot(uint16(int8(st[sp])))
		case opI2s:
			sp--
			st[sp-1] = slot(uint16(st[sp]))
		case opIcmp:
			a, b := int32Of(st[sp-4], st[sp-3]), int32Of(st[sp-2], st[sp-1])
			sp -= 3
			switch {
			case a < b:
				st[sp-1] = 0xFFFF
			case a > b:
				st[sp-1] = 1
			default:
				st[sp-1] = 0
			}

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
		case opJsr:
			st[sp] = tagReturn | slot(uint16(pc))
			sp++
			goto jump
		case opRet:
			if st[in.n]>>16 != 2 {
				panic(fault{"return of a subroutine to what is no address"})
			}
			target = int(uint16(st[in.n]))
			goto turn
		case opStableswitch:
			sp--
			target = m.switches[in.a].table(int32(int16(st[sp])))
			goto turn
		case opItableswitch:
			sp -= 2
			target = m.switches[in.a].table(int32Of(st[sp], st[sp+1]))
			goto turn
		case opSlookupswitch:
			sp--
			target = m.switches[in.a].lookup(int32(int16(st[sp])))
			goto turn
		case opIlookupswitch:
			sp -= 2
			target = m.switches[in.a].lookup(int32Of(st[sp], st[sp+1]))
			goto turn

		case opAreturn, opSreturn, opIreturn, opReturn:
			var a, b slot
			size := 0
			switch in.op {
			case opAreturn, opSreturn:
				a, size = st[sp-1], 1
			case opIreturn:
				a, b, size = st[sp-2], st[sp-1], 2
			}
			if vm.steps -= int64(pc); vm.steps < 0 {
				panic(fault{"too many bytecodes in one command"})
			}
			vm.pop()
			f = &vm.frames[len(vm.frames)-1]
			window := vm.stack[f.base : f.base+f.method.frame]
			if size > 0 {
				window[f.sp] = a
				if size > 1 {
					window[f.sp+1] = b
				}
				f.sp += size
			}
			if len(vm.frames) <= depth {
				return
			}
			m = f.method
			code, cs = m.code, m.pkg.constants
			st = vm.stack[f.base : f.base+m.frame : f.base+m.frame]
			pc, sp = f.pc+1, f.sp

		case opGetstaticA, opGetstaticB, opGetstaticS, opGetstaticI:
			data := vm.objs[cs[in.n].pkg.root].data[in.a:]
			switch in.op {
			case opGetstaticA:
				st[sp] = tagReference | slot(binary.BigEndian.Uint16(data))
			case opGetstaticB:
				st[sp] = slot(uint16(int8(data[0])))
			case opGetstaticS:
				st[sp] = slot(binary.BigEndian.Uint16(data))
			default:
				v := binary.BigEndian.Uint32(data)
				st[sp+1], st[sp] = slot(uint16(v)), slot(v>>16)
				sp++
			}
			sp++
		case opPutstaticA:
			vm.pc = pc - 1
			sp--
			vm.storable(st[sp])
			vm.write2(vm.objs[cs[in.n].pkg.root], int(in.a), uint16(st[sp]))
		case opPutstaticB:
			vm.pc = pc - 1
			sp--
			vm.write1(vm.objs[cs[in.n].pkg.root], int(in.a), byte(st[sp]))
		case opPutstaticS:
			vm.pc = pc - 1
			sp--
			vm.write2(vm.objs[cs[in.n].pkg.root], int(in.a), uint16(st[sp]))
		case opPutstaticI:
			vm.pc = pc - 1
			sp -= 2
			vm.write4(vm.objs[cs[in.n].pkg.root], int(in.a), uint32(int32Of(st[sp], st[sp+1])))

		case opGetfieldA:
			vm.pc = pc - 1
			o := vm.fieldOf(st[sp-1], &cs[in.n])
			st[sp-1] = tagReference | slot(binary.BigEndian.Uint16(o.data[in.a:]))
		case opGetfieldB:
			vm.pc = pc - 1
			o := vm.fieldOf(st[sp-1], &cs[in.n])
			st[sp-1] = slot(uint16(int8(o.data[in.a+1])))
		case opGetfieldS:
			vm.pc = pc - 1
			o := vm.fieldOf(st[sp-1], &cs[in.n])
			st[sp-1] = slot(binary.BigEndian.Uint16(o.data[in.a:]))
		case opGetfieldI:
			vm.pc = pc - 1
			o := vm.fieldOf(st[sp-1], &cs[in.n])
			v := binary.BigEndian.Uint32(o.data[in.a:])
			st[sp], st[sp-1] = slot(uint16(v)), slot(v>>16)
			sp++
		case opGetfieldAThis:
			vm.pc = pc - 1
			o := vm.fieldOf(st[0], &cs[in.n])
			st[sp] = tagReference | slot(binary.BigEndian.Uint16(o.data[in.a:]))
			sp++
		case opGetfieldBThis:
			vm.pc = pc - 1
			o := vm.fieldOf(st[0], &cs[in.n])
			st[sp] = slot(uint16(int8(o.data[in.a+1])))
			sp++
		case opGetfieldSThis:
			vm.pc = pc - 1
			o := vm.fieldOf(st[0], &cs[in.n])
			st[sp] = slot(binary.BigEndian.Uint16(o.data[in.a:]))
			sp++
		case opGetfieldIThis:
			vm.pc = pc - 1
			o := vm.fieldOf(st[0], &cs[in.n])
			v := binary.BigEndian.Uint32(o.data[in.a:])
			st[sp+1], st[sp] = slot(uint16(v)), slot(v>>16)
			sp += 2
		case opPutfieldA:
			vm.pc = pc - 1
			sp -= 2
			o := vm.fieldOf(st[sp], &cs[in.n])
			vm.storable(st[sp+1])
			vm.write2(o, int(in.a), uint16(st[sp+1]))
		case opPutfieldB:
			vm.pc = pc - 1
			sp -= 2
			o := vm.fieldOf(st[sp], &cs[in.n])
			vm.write2(o, int(in.a), uint16(int8(st[sp+1])))
		case opPutfieldS:
			vm.pc = pc - 1
			sp -= 2
			o := vm.fieldOf(st[sp], &cs[in.n])
			vm.write2(o, int(in.a), uint16(st[sp+1]))
		case opPutfieldI:
			vm.pc = pc - 1
			sp -= 3
			o := vm.fieldOf(st[sp], &cs[in.n])
			vm.write4(o, int(in.a), uint32(int32Of(st[sp+1], st[sp+2])))
		case opPutfieldAThis:
			vm.pc = pc - 1
			sp--
			o := vm.fieldOf(st[0], &cs[in.n])
			vm.storable(st[sp])
			vm.write2(o, int(in.a), uint16(st[sp]))
		case opPutfieldBThis:
			vm.pc = pc - 1
			sp--
			o := vm.fieldOf(st[0], &cs[in.n])
			vm.write2(o, int(in.a), uint16(int8(st[sp])))
		case opPutfieldSThis:
			vm.pc = pc - 1
			sp--
			o := vm.fieldOf(st[0], &cs[in.n])
			vm.write2(o, int(in.a), uint16(st[sp]))
		case opPutfieldIThis:
			vm.pc = pc - 1
			sp -= 2
			o := vm.fieldOf(st[0], &cs[in.n])
			vm.write4(o, int(in.a), uint32(int32Of(st[sp], st[sp+1])))

		case opInvokestatic:
			callee, n = cs[in.n].method, int(in.x)
			goto invoke
		case opInvokevirtual:
			{
				vm.pc = pc - 1
				c := &cs[in.n]
				n = int(in.x)
				o := vm.object(st[sp-n])
				if o == nil {
					vm.nullPointer()
				}
				if o.class != c.class && !o.class.extends(c.class) {
					panic(fault{"method of an object of another class"})
				}
				if c.token&0x80 != 0 {
					callee = o.class.within(c.class.pkg).private[c.token&0x7F]
				} else {
					callee = o.class.virtual[c.token]
				}
				if o.group != vm.group || o.checked {
					vm.invocable(o, nil)
				}
			}
			goto invoke
		case opInvokeinterface:
			{
				vm.pc = pc - 1
				c := &cs[in.n]
				n = int(in.x)
				o := vm.object(st[sp-n])
				if o == nil {
					vm.nullPointer()
				}
				callee = o.class.interfaceMethod(c.class, int(in.a))
				if callee == nil {
					vm.fault("method %d of %v, which %v has not", in.a, c.class, o.class)
				}
				if callee.args != n {
					panic(fault{"call with a wrong number of arguments"})
				}
				if (o.group != vm.group || o.checked) && vm.invocable(o, c.class) {
					switchTo = o.owner
				}
			}
			goto invoke
		case opInvokespecial:
			{
				vm.pc = pc - 1
				c := &cs[in.n]
				callee, n = c.method, int(in.x)
				o := vm.object(st[sp-n])
				if o == nil {
					vm.nullPointer()
				}
				if c.tag == constSuper && !o.class.extends(c.class) || callee.native != nil && !o.class.extends(callee.class) {
					panic(fault{"method of an object of another class"})
				}
			}
			goto invoke

		case opNew:
			vm.pc = pc - 1
			st[sp] = vm.newInstance(cs[in.n].class).self.slot()
			sp++
		case opNewarray:
			vm.pc = pc - 1
			st[sp-1] = vm.newArray(kind(in.x), int(int16(st[sp-1])), nil).self.slot()
		case opAnewarray:
			vm.pc = pc - 1
			st[sp-1] = vm.newArray(kindReference, int(int16(st[sp-1])), cs[in.n].class).self.slot()
		case opArraylength:
			vm.pc = pc - 1
			o := vm.object(st[sp-1])
			if o == nil {
				vm.nullPointer()
			}
			if !o.kind.array() {
				wrongKind()
			}
			if o.group != vm.group || o.checked {
				vm.accessChecked(o)
			}
			st[sp-1] = slot(uint16(o.length))
		case opAthrow:
			vm.pc = pc - 1
			o := vm.object(st[sp-1])
			if o == nil {
				vm.nullPointer()
			}
			if !o.class.extends(vm.api.throwable) {
				panic(fault{"throw of what is no exception"})
			}
			if o.entry == noEntryPoint {
				vm.access(o)
			}
			vm.pending = o.self
			panic(thrown{})
		case opCheckcast:
			vm.pc = pc - 1
			if o := vm.object(st[sp-1]); o != nil && !vm.is(o, in, cs) {
				vm.throw("java/lang/ClassCastException")
			}
		case opInstanceof:
			vm.pc = pc - 1
			o := vm.object(st[sp-1])
			st[sp-1] = boolean(o != nil && vm.is(o, in, cs))

		// Fused instructions: see fuse.
		case opLoadTwo:
			st[sp+1] = st[in.n>>8]
			st[sp] = st[in.n&0xFF]
			sp += 2
			pc++
		case opLoadByte:
			if s := st[in.n&0xFF]; s>>16 == 1 {
				if o := vm.objs[uint16(s)]; o != nil && o.kind == kindByte && o.group == vm.group && !o.checked {
					if i := int(uint16(st[in.n>>8])); i < len(o.data) {
						st[sp] = slot(uint16(int8(o.data[i])))
						sp++
						pc += 2
						continue
					}
				}
			}
			vm.pc = pc + 1
			o, i := vm.load(st[in.n&0xFF], st[in.n>>8])
			if o.kind != kindByte && o.kind != kindBoolean {
				wrongKind()
			}
			st[sp] = slot(uint16(int8(o.data[i])))
			sp++
			pc += 2
		case opIncGoto:
			st[in.n] = slot(uint16(uint32(st[in.n]) + uint32(int8(in.x))))
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
			vm.fault("bytecode %d", in.op)
		}
		continue
	invoke:
		f = &vm.frames[len(vm.frames)-1]
		f.pc = pc - 1
		vm.pc = pc - 1
		if callee.native != nil {
			sp -= n
			f.sp = sp
			vm.steps -= costNative
			// What a native method calls in turn gets its stack beyond this window.
			if switchTo != noSwitch {
				native, args := callee.native, st[sp:sp+n]
				l = vm.inContext(switchTo, func() slot { return native(vm, args) })
				switchTo = noSwitch
			} else {
				l = callee.native(vm, st[sp:sp+n])
			}
			if !callee.void {
				st[sp] = l
				sp++
			}
			continue
		}
		f.sp = sp
		if callee.code == nil {
			vm.fault("%s is not implemented", callee.name)
		}
		if len(vm.frames) >= maxFrames {
			panic(fault{"methods call each other too deeply"})
		}
		base = f.base + sp - n
		if sp < n || base+callee.frame > len(vm.stack) {
			panic(fault{"stack overflow"})
		}
		f.sp = sp - n
		st = vm.stack[base : base+callee.frame : base+callee.frame]
		clear(st[n:])
		vm.frames = append(vm.frames, frame{method: callee, base: base, owner: vm.owner, group: vm.group, caller: vm.caller})
		if switchTo != noSwitch {
			vm.caller = vm.owner
			vm.owner, vm.group = switchTo, vm.groupOf(switchTo)
			switchTo = noSwitch
		}
		m = callee
		code, cs = m.code, m.pkg.constants
		pc, sp = 0, callee.operands
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
	jump:
		target = int(in.a)
	turn:
		// Every bytecode is paid for: on the way back of a loop, or on return.
		if target < pc {
			if vm.steps -= int64(pc - target); vm.steps < 0 {
				panic(fault{"too many bytecodes in one command"})
			}
		}
		pc = target
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
