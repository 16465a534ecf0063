package jcvm

// Bytecodes (JCVM 7.5).
const (
	opNop = iota
	opAconstNull
	opSconstM1
	opSconst0
	opSconst1
	opSconst2
	opSconst3
	opSconst4
	opSconst5
	opIconstM1
	opIconst0
	opIconst1
	opIconst2
	opIconst3
	opIconst4
	opIconst5
	opBspush
	opSspush
	opBipush
	opSipush
	opIipush
	opAload
	opSload
	opIload
	opAload0
	opAload1
	opAload2
	opAload3
	opSload0
	opSload1
	opSload2
	opSload3
	opIload0
	opIload1
	opIload2
	opIload3
	opAaload
	opBaload
	opSaload
	opIaload
	opAstore
	opSstore
	opIstore
	opAstore0
	opAstore1
	opAstore2
	opAstore3
	opSstore0
	opSstore1
	opSstore2
	opSstore3
	opIstore0
	opIstore1
	opIstore2
	opIstore3
	opAastore
	opBastore
	opSastore
	opIastore
	opPop
	opPop2
	opDup
	opDup2
	opDupX
	opSwapX
	opSadd
	opIadd
	opSsub
	opIsub
	opSmul
	opImul
	opSdiv
	opIdiv
	opSrem
	opIrem
	opSneg
	opIneg
	opSshl
	opIshl
	opSshr
	opIshr
	opSushr
	opIushr
	opSand
	opIand
	opSor
	opIor
	opSxor
	opIxor
	opSinc
	opIinc
	opS2b
	opS2i
	opI2b
	opI2s
	opIcmp
	opIfeq
	opIfne
	opIflt
	opIfge
	opIfgt
	opIfle
	opIfnull
	opIfnonnull
	opIfAcmpeq
	opIfAcmpne
	opIfScmpeq
	opIfScmpne
	opIfScmplt
	opIfScmpge
	opIfScmpgt
	opIfScmple
	opGoto
	opJsr
	opRet
	opStableswitch
	opItableswitch
	opSlookupswitch
	opIlookupswitch
	opAreturn
	opSreturn
	opIreturn
	opReturn
	opGetstaticA
	opGetstaticB
	opGetstaticS
	opGetstaticI
	opPutstaticA
	opPutstaticB
	opPutstaticS
	opPutstaticI
	opGetfieldA
	opGetfieldB
	opGetfieldS
	opGetfieldI
	opPutfieldA
	opPutfieldB
	opPutfieldS
	opPutfieldI
	opInvokevirtual
	opInvokespecial
	opInvokestatic
	opInvokeinterface
	opNew
	opNewarray
	opAnewarray
	opArraylength
	opAthrow
	opCheckcast
	opInstanceof
	opSincW
	opIincW
	opIfeqW
	opIfneW
	opIfltW
	opIfgeW
	opIfgtW
	opIfleW
	opIfnullW
	opIfnonnullW
	opIfAcmpeqW
	opIfAcmpneW
	opIfScmpeqW
	opIfScmpneW
	opIfScmpltW
	opIfScmpgeW
	opIfScmpgtW
	opIfScmpleW
	opGotoW
	opGetfieldAW
	opGetfieldBW
	opGetfieldSW
	opGetfieldIW
	opGetfieldAThis
	opGetfieldBThis
	opGetfieldSThis
	opGetfieldIThis
	opPutfieldAW
	opPutfieldBW
	opPutfieldSW
	opPutfieldIW
	opPutfieldAThis
	opPutfieldBThis
	opPutfieldSThis
	opPutfieldIThis

	opcodes // how many there are
)

// Fused instructions, which fuse makes of sequences that are common.
const (
	opLoadTwo = opcodes + iota
	opLoadByte
	opLoadByteAfter
	opIncGoto
	opStoreByte
	opCompareLocal
	opCompareConst
	opArithStackLocal
	opArithStackConst
	opArithLocalLocal
	opArithLocalConst
	opArithStackLocalStore // from here on the result goes to a local variable
	opArithStackConstStore
	opArithLocalLocalStore
	opArithLocalConstStore
	opArithStackStackStore
)

// operands is the form of each bytecode's operands: b, s and i a signed number
// of 1, 2 and 4 bytes, l a local variable, c and C a constant in 1 and 2 bytes,
// o and O a jump in 1 and 2 bytes, n a byte, t and T a table switch over shorts
// and ints, k and K a lookup switch.
var operands = [opcodes]string{
	opBspush: "b", opSspush: "s", opBipush: "b", opSipush: "s", opIipush: "i",
	opAload: "l", opSload: "l", opIload: "l", opAstore: "l", opSstore: "l", opIstore: "l",
	opDupX: "n", opSwapX: "n",
	opSinc: "lb", opIinc: "lb", opSincW: "ls", opIincW: "ls",
	opIfeq: "o", opIfne: "o", opIflt: "o", opIfge: "o", opIfgt: "o", opIfle: "o", opIfnull: "o", opIfnonnull: "o",
	opIfAcmpeq: "o", opIfAcmpne: "o", opIfScmpeq: "o", opIfScmpne: "o", opIfScmplt: "o", opIfScmpge: "o",
	opIfScmpgt: "o", opIfScmple: "o", opGoto: "o", opJsr: "O", opRet: "l",
	opStableswitch: "t", opItableswitch: "T", opSlookupswitch: "k", opIlookupswitch: "K",
	opGetstaticA: "C", opGetstaticB: "C", opGetstaticS: "C", opGetstaticI: "C",
	opPutstaticA: "C", opPutstaticB: "C", opPutstaticS: "C", opPutstaticI: "C",
	opGetfieldA: "c", opGetfieldB: "c", opGetfieldS: "c", opGetfieldI: "c",
	opPutfieldA: "c", opPutfieldB: "c", opPutfieldS: "c", opPutfieldI: "c",
	opInvokevirtual: "C", opInvokespecial: "C", opInvokestatic: "C", opInvokeinterface: "nCn",
	opNew: "C", opNewarray: "n", opAnewarray: "C", opCheckcast: "nC", opInstanceof: "nC",
	opIfeqW: "O", opIfneW: "O", opIfltW: "O", opIfgeW: "O", opIfgtW: "O", opIfleW: "O", opIfnullW: "O", opIfnonnullW: "O",
	opIfAcmpeqW: "O", opIfAcmpneW: "O", opIfScmpeqW: "O", opIfScmpneW: "O", opIfScmpltW: "O", opIfScmpgeW: "O",
	opIfScmpgtW: "O", opIfScmpleW: "O", opGotoW: "O",
	opGetfieldAW: "C", opGetfieldBW: "C", opGetfieldSW: "C", opGetfieldIW: "C",
	opGetfieldAThis: "c", opGetfieldBThis: "c", opGetfieldSThis: "c", opGetfieldIThis: "c",
	opPutfieldAW: "C", opPutfieldBW: "C", opPutfieldSW: "C", opPutfieldIW: "C",
	opPutfieldAThis: "c", opPutfieldBThis: "c", opPutfieldSThis: "c", opPutfieldIThis: "c",
}
