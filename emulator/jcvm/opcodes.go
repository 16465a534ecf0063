package jcvm

import "strings"

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

// Instructions that write a trace: see Trace.
const (
	opEntered = 254 // a method
	opTraced  = 255 // before a bytecode
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

// mnemonics are the bytecodes' names, in their order (JCVM 7.5).
var mnemonics = strings.Fields(`
nop aconst_null sconst_m1 sconst_0 sconst_1 sconst_2 sconst_3 sconst_4 sconst_5 iconst_m1 iconst_0 iconst_1
iconst_2 iconst_3 iconst_4 iconst_5 bspush sspush bipush sipush iipush aload sload iload aload_0 aload_1
aload_2 aload_3 sload_0 sload_1 sload_2 sload_3 iload_0 iload_1 iload_2 iload_3 aaload baload saload iaload
astore sstore istore astore_0 astore_1 astore_2 astore_3 sstore_0 sstore_1 sstore_2 sstore_3 istore_0 istore_1
istore_2 istore_3 aastore bastore sastore iastore pop pop2 dup dup2 dup_x swap_x sadd iadd ssub isub smul imul
sdiv idiv srem irem sneg ineg sshl ishl sshr ishr sushr iushr sand iand sor ior sxor ixor sinc iinc s2b s2i
i2b i2s icmp ifeq ifne iflt ifge ifgt ifle ifnull ifnonnull if_acmpeq if_acmpne if_scmpeq if_scmpne if_scmplt
if_scmpge if_scmpgt if_scmple goto jsr ret stableswitch itableswitch slookupswitch ilookupswitch areturn
sreturn ireturn return getstatic_a getstatic_b getstatic_s getstatic_i putstatic_a putstatic_b putstatic_s
putstatic_i getfield_a getfield_b getfield_s getfield_i putfield_a putfield_b putfield_s putfield_i
invokevirtual invokespecial invokestatic invokeinterface new newarray anewarray arraylength athrow checkcast
instanceof sinc_w iinc_w ifeq_w ifne_w iflt_w ifge_w ifgt_w ifle_w ifnull_w ifnonnull_w if_acmpeq_w
if_acmpne_w if_scmpeq_w if_scmpne_w if_scmplt_w if_scmpge_w if_scmpgt_w if_scmple_w goto_w getfield_a_w
getfield_b_w getfield_s_w getfield_i_w getfield_a_this getfield_b_this getfield_s_this getfield_i_this
putfield_a_w putfield_b_w putfield_s_w putfield_i_w putfield_a_this putfield_b_this putfield_s_this
putfield_i_this`)
