package jcvm

import (
	"encoding/binary"
)

// step executes one instruction that straight leaves to it, and any that it has
// no case for.
func (vm *VM) step(f *frame, in *instruction) {
	m := f.method
	cs := m.pkg.constants
	st := vm.stack[f.base : f.base+m.frame : f.base+m.frame]
	sp, target := f.sp, 0
	var callee *method
	n, switchTo := 0, noSwitch
	switch in.op {
	case opAaload:
		sp--
		o, i := vm.load(st[sp-1], st[sp])
		if o.kind != kindReference {
			wrongKind()
		}
		st[sp-1] = tagReference | slot(binary.BigEndian.Uint16(o.data[2*i:]))
	case opBaload:
		sp--
		o, i := vm.load(st[sp-1], st[sp])
		if o.kind != kindByte && o.kind != kindBoolean {
			wrongKind()
		}
		st[sp-1] = slot(uint16(int8(o.data[i])))
	case opSaload:
		sp--
		o, i := vm.load(st[sp-1], st[sp])
		if o.kind != kindShort {
			wrongKind()
		}
		st[sp-1] = slot(binary.BigEndian.Uint16(o.data[2*i:]))
	case opIaload:
		o, i := vm.load(st[sp-2], st[sp-1])
		if o.kind != kindInt {
			wrongKind()
		}
		v := binary.BigEndian.Uint32(o.data[4*i:])
		st[sp-2], st[sp-1] = slot(v>>16), slot(uint16(v))
	case opAastore:
		sp -= 3
		vm.storeReference(st[sp], st[sp+1], st[sp+2])
	case opBastore:
		sp -= 3
		o, i := vm.load(st[sp], st[sp+1])
		if o.kind != kindByte && o.kind != kindBoolean {
			wrongKind()
		}
		vm.write1(o, i, byte(st[sp+2]))
	case opSastore:
		sp -= 3
		o, i := vm.load(st[sp], st[sp+1])
		if o.kind != kindShort {
			wrongKind()
		}
		vm.write2(o, 2*i, uint16(st[sp+2]))
	case opIastore:
		sp -= 4
		o, i := vm.load(st[sp], st[sp+1])
		if o.kind != kindInt {
			wrongKind()
		}
		vm.write4(o, 4*i, uint32(int32Of(st[sp+2], st[sp+3])))

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

	case opSdiv:
		sp--
		if int16(st[sp]) == 0 {
			vm.throw("java/lang/ArithmeticException")
		}
		st[sp-1] = slot(uint16(int32(int16(st[sp-1])) / int32(int16(st[sp]))))
	case opSrem:
		sp--
		if int16(st[sp]) == 0 {
			vm.throw("java/lang/ArithmeticException")
		}
		st[sp-1] = slot(uint16(int32(int16(st[sp-1])) % int32(int16(st[sp]))))
	case opIadd, opIsub, opImul, opIdiv, opIrem, opIand, opIor, opIxor:
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

	case opJsr:
		st[sp] = tagReturn | slot(uint16(f.pc+1))
		sp++
		target = int(in.a)
		goto turn
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
		sp--
		vm.storable(st[sp])
		vm.write2(vm.objs[cs[in.n].pkg.root], int(in.a), uint16(st[sp]))
	case opPutstaticB:
		sp--
		vm.write1(vm.objs[cs[in.n].pkg.root], int(in.a), byte(st[sp]))
	case opPutstaticS:
		sp--
		vm.write2(vm.objs[cs[in.n].pkg.root], int(in.a), uint16(st[sp]))
	case opPutstaticI:
		sp -= 2
		vm.write4(vm.objs[cs[in.n].pkg.root], int(in.a), uint32(int32Of(st[sp], st[sp+1])))

	case opGetfieldA:
		o := vm.fieldOf(st[sp-1], &cs[in.n])
		st[sp-1] = tagReference | slot(binary.BigEndian.Uint16(o.data[in.a:]))
	case opGetfieldB:
		o := vm.fieldOf(st[sp-1], &cs[in.n])
		st[sp-1] = slot(uint16(int8(o.data[in.a+1])))
	case opGetfieldS:
		o := vm.fieldOf(st[sp-1], &cs[in.n])
		st[sp-1] = slot(binary.BigEndian.Uint16(o.data[in.a:]))
	case opGetfieldI:
		o := vm.fieldOf(st[sp-1], &cs[in.n])
		v := binary.BigEndian.Uint32(o.data[in.a:])
		st[sp], st[sp-1] = slot(uint16(v)), slot(v>>16)
		sp++
	case opGetfieldAThis:
		o := vm.fieldOf(st[0], &cs[in.n])
		st[sp] = tagReference | slot(binary.BigEndian.Uint16(o.data[in.a:]))
		sp++
	case opGetfieldBThis:
		o := vm.fieldOf(st[0], &cs[in.n])
		st[sp] = slot(uint16(int8(o.data[in.a+1])))
		sp++
	case opGetfieldSThis:
		o := vm.fieldOf(st[0], &cs[in.n])
		st[sp] = slot(binary.BigEndian.Uint16(o.data[in.a:]))
		sp++
	case opGetfieldIThis:
		o := vm.fieldOf(st[0], &cs[in.n])
		v := binary.BigEndian.Uint32(o.data[in.a:])
		st[sp+1], st[sp] = slot(uint16(v)), slot(v>>16)
		sp += 2
	case opPutfieldA:
		sp -= 2
		o := vm.fieldOf(st[sp], &cs[in.n])
		vm.storable(st[sp+1])
		vm.write2(o, int(in.a), uint16(st[sp+1]))
	case opPutfieldB:
		sp -= 2
		o := vm.fieldOf(st[sp], &cs[in.n])
		vm.write2(o, int(in.a), uint16(int8(st[sp+1])))
	case opPutfieldS:
		sp -= 2
		o := vm.fieldOf(st[sp], &cs[in.n])
		vm.write2(o, int(in.a), uint16(st[sp+1]))
	case opPutfieldI:
		sp -= 3
		o := vm.fieldOf(st[sp], &cs[in.n])
		vm.write4(o, int(in.a), uint32(int32Of(st[sp+1], st[sp+2])))
	case opPutfieldAThis:
		sp--
		o := vm.fieldOf(st[0], &cs[in.n])
		vm.storable(st[sp])
		vm.write2(o, int(in.a), uint16(st[sp]))
	case opPutfieldBThis:
		sp--
		o := vm.fieldOf(st[0], &cs[in.n])
		vm.write2(o, int(in.a), uint16(int8(st[sp])))
	case opPutfieldSThis:
		sp--
		o := vm.fieldOf(st[0], &cs[in.n])
		vm.write2(o, int(in.a), uint16(st[sp]))
	case opPutfieldIThis:
		sp -= 2
		o := vm.fieldOf(st[0], &cs[in.n])
		vm.write4(o, int(in.a), uint32(int32Of(st[sp], st[sp+1])))

	case opInvokestatic:
		callee, n = cs[in.n].method, int(in.x)
		goto invoke
	case opInvokevirtual:
		{
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
		st[sp] = vm.newInstance(cs[in.n].class).self.slot()
		sp++
	case opNewarray:
		st[sp-1] = vm.newArray(kind(in.x), int(int16(st[sp-1])), nil).self.slot()
	case opAnewarray:
		st[sp-1] = vm.newArray(kindReference, int(int16(st[sp-1])), cs[in.n].class).self.slot()
	case opArraylength:
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
		if o := vm.object(st[sp-1]); o != nil && !vm.is(o, in, cs) {
			vm.throw("java/lang/ClassCastException")
		}
	case opInstanceof:
		o := vm.object(st[sp-1])
		st[sp-1] = boolean(o != nil && vm.is(o, in, cs))

	case opEntered:
		m.pkg.trace.entered(vm, f)
	case opTraced:
		m.pkg.trace.traced(vm, f, in)
	default:
		vm.fault("bytecode %d", in.op)
	}
	f.sp = sp
	f.pc++
	return
turn:
	if target <= f.pc {
		vm.pay(f.pc + 1 - target)
	}
	f.pc, f.sp = target, sp
	return
invoke:
	f.sp = sp
	vm.invoke(f, callee, n, switchTo)
}

// invoke calls a method whose n arguments are on the stack of a frame, in the
// context of the owner switchTo where that is one.
func (vm *VM) invoke(f *frame, m *method, n int, switchTo ref) {
	if m.native == nil {
		if m.args != n {
			panic(fault{"call with a wrong number of arguments"})
		}
		vm.enter(m)
		if switchTo != noSwitch {
			vm.caller = vm.owner
			vm.owner, vm.group = switchTo, vm.groupOf(switchTo)
		}
		return
	}
	window := vm.stack[f.base : f.base+f.method.frame]
	args := window[f.sp-n : f.sp]
	f.sp -= n
	vm.steps -= costNative
	if t := f.method.pkg.trace; t != nil {
		t.native(vm, m, args)
	}
	// What a native method calls in turn gets its stack beyond this window.
	var result slot
	if switchTo != noSwitch {
		result = vm.inContext(switchTo, func() slot { return m.native(vm, args) })
	} else {
		result = m.native(vm, args)
	}
	if !m.void {
		window[f.sp] = result
		f.sp++
	}
	f.pc++
}
