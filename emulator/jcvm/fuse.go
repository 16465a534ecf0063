package jcvm

// fuse puts one instruction in the place of the first of a sequence that it
// does the work of. The others stay where they are, for jumps into the middle,
// and for what may throw: the fused one either goes on behind them, or does the
// first one's work alone.
func fuse(code []instruction) {
	at := func(i int) instruction {
		if i < len(code) {
			return code[i]
		}
		return instruction{}
	}
	local := func(in instruction) bool { return in.op == opSload && in.n < 256 }
	for i := range code { // forwards: what comes later is still as it was
		a, b, c, d, e := code[i], at(i+1), at(i+2), at(i+3), at(i+4)
		switch {
		case local(a) && local(b) && c.op == opSspush && d.op == opSadd && e.op == opBaload:
			code[i] = instruction{op: opLoadByteAfter, n: a.n | b.n<<8, a: c.a}
		case local(a) && local(b) && arithmetic(c.op):
			code[i] = arith(opArithLocalLocal, c.op, a.n, int32(b.n), d)
		case local(a) && b.op == opSspush && arithmetic(c.op):
			code[i] = arith(opArithLocalConst, c.op, a.n, int32(uint16(b.a)), d)
		case local(a) && local(b) && c.op >= opIfScmpeq && c.op <= opIfScmple:
			code[i] = instruction{op: opCompareLocal, x: c.op, n: a.n | b.n<<8, a: c.a}
		case local(a) && b.op == opSspush && b.a == int32(int8(b.a)) && c.op >= opIfScmpeq && c.op <= opIfScmple:
			code[i] = instruction{op: opCompareConst, x: c.op, n: a.n | uint16(uint8(b.a))<<8, a: c.a}
		case local(a) && local(b) && c.op == opBaload:
			code[i] = instruction{op: opLoadByte, n: a.n | b.n<<8}
		case local(a) && arithmetic(b.op):
			code[i] = arith(opArithStackLocal, b.op, 0, int32(a.n), c)
		case a.op == opSspush && arithmetic(b.op):
			code[i] = arith(opArithStackConst, b.op, 0, int32(uint16(a.a)), c)
		case local(a) && local(b) && !(local(c) && (d.op == opBaload || d.op == opSspush && e.op == opSadd)):
			code[i] = instruction{op: opLoadTwo, n: a.n | b.n<<8}
		case arithmetic(a.op) && b.op == opSstore && b.n < 256:
			code[i] = instruction{op: opArithStackStackStore, x: a.op, n: b.n << 8}
		case a.op == opS2b && b.op == opBastore:
			code[i] = instruction{op: opStoreByte}
		case a.op == opSinc && b.op == opGoto && a.a == int32(int8(a.a)):
			code[i] = instruction{op: opIncGoto, x: uint8(a.a), n: a.n, a: b.a}
		}
	}
}

// arithmetic reports whether a bytecode is one of those over two shorts that
// never throw.
func arithmetic(op uint8) bool {
	switch op {
	case opSadd, opSsub, opSmul, opSand, opSor, opSxor:
		return true
	}
	return false
}

// arith makes the fused instruction, with the next one if that stores the
// result.
func arith(op int, operation uint8, left uint16, right int32, next instruction) instruction {
	out := instruction{op: uint8(op), x: operation, n: left, a: right}
	if next.op == opSstore && next.n < 256 {
		out.op += opArithStackLocalStore - opArithStackLocal
		out.n |= next.n << 8
	}
	return out
}
