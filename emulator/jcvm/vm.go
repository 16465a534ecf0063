package jcvm

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// Errors that refuse a load file.
var (
	// ErrLoadFile reports a load file that breaks the rules of its format.
	ErrLoadFile = errors.New("load file can't be linked")
	// ErrMissing reports a load file that needs a package, or a member of one,
	// that is not on the card.
	ErrMissing = errors.New("load file needs what the card has not")
)

// Linker makes a card execute load files: the value for emulator.Config.
// The zero value is ready to use. It holds no state: every card gets a machine
// of its own, each time that it is given power.
type Linker struct {
	// Steps bounds the bytecodes that one command may execute; 0 stands for
	// [DefaultSteps]. Code that is jumped over counts too.
	Steps int64
	// Quirks are the ways in which cards differ; the zero value is the common
	// one.
	Quirks Quirks
	// Trace shows what one package executes; nil shows nothing.
	Trace *Trace
}

// DefaultSteps bounds the bytecodes of one command.
const DefaultSteps = 200_000_000

// Quirks name behaviour in which cards differ.
type Quirks struct {
	// NoLe is what APDU.setOutgoing returns for a command without an expected
	// length: false 256, as most cards do, true 0.
	NoLeIsZero bool
	// EmptyIncoming throws APDUException from setIncomingAndReceive for a
	// command without data, as the reference implementation of 2.2.2 does.
	EmptyIncoming bool
	// ShortBuffer makes the APDU buffer hold 261 bytes instead of 2,055, so
	// that a longer command comes in parts. Some applications count on a
	// larger one, as newer cards have it.
	ShortBuffer bool
	// UnchainedBlock bounds a response after setOutgoingNoChaining to one block,
	// as the API's text has it: longer ones throw APDUException.BAD_LENGTH. Cards
	// chain blocks all the same.
	UnchainedBlock bool
	// StaticsHold refuses to delete an instance while a static field of a package
	// that stays refers to an object of it, as JCRE 11.3.4 has it. Otherwise such
	// objects become the package's own, which many cards allow: an applet that
	// keeps a buffer in a static field could not be deleted by itself.
	StaticsHold bool
}

var _ oncard.RuntimeLinker = Linker{}

// Link implements [oncard.Linker] for a card that knows no runtimes: nothing
// can be executed on it.
func (Linker) Link(iso7816.AID, []byte, [32]byte) (map[iso7816.AID]oncard.Module, error) {
	return nil, nil
}

// PowerOn implements [oncard.RuntimeLinker].
func (l Linker) PowerOn(sys oncard.System) (oncard.Runtime, error) {
	vm := &VM{
		sys:       sys,
		options:   l,
		api:       theAPI(),
		stack:     make([]slot, maxStack),
		frames:    make([]frame, 0, maxFrames),
		packages:  map[iso7816.AID]*pkg{},
		byRoot:    map[ref]*pkg{},
		instances: map[ref]*instance{},
	}
	if vm.options.Steps <= 0 {
		vm.options.Steps = DefaultSteps
	}
	vm.makeSystemObjects()
	vm.scan()
	return vm, nil
}

// Bounds of a machine.
const (
	maxStack  = 8192 // slots, over all frames
	maxFrames = 256
	maxNested = 16 // calls from native code back into bytecode
)

// slot is an element of the operand stack or a local variable: 16 bits of
// value, and above them what the value is. A short and each half of an int has
// no tag.
type slot uint32

const (
	tagReference slot = 1 << 16 // the value is a reference
	tagReturn    slot = 2 << 16 // the value is where a subroutine returns to
	null         slot = tagReference
)

// short makes a slot of a short.
func short(v int16) slot { return slot(uint16(v)) }

// boolean makes a slot of a boolean.
func boolean(v bool) slot {
	if v {
		return 1
	}
	return 0
}

// ref names an object: an index into the table of objects. 0 is null, up to
// firstHandle are the machine's own objects, from there on persistent ones, by
// their handle.
type ref uint16

const (
	firstHandle   = 256
	maxRef        = 0xFEFF
	apiPackageRef = 0xFF00 // and above: packages of the API, in headers of objects
)

func (r ref) slot() slot { return tagReference | slot(r) }

// VM is a machine: what one card needs to execute load files while it has
// power. It is used by one goroutine at a time, the card's.
type VM struct {
	sys     oncard.System
	options Linker
	api     *api
	plain   bool // no instructions are fused

	packages  map[iso7816.AID]*pkg // loaded ones
	byRoot    map[ref]*pkg
	instances map[ref]*instance // by their root object

	objs     []*object // by reference
	undone   int       // of sys, when objs was last right
	system   map[*class]ref
	fresh    []ref // made in the open transaction
	inTx     bool
	deletion bool // requestObjectDeletion was called

	stack   []slot
	frames  []frame
	nested  int
	steps   int64
	pending ref // exception that is on its way
	reasons [firstHandle]uint16
	scratch [8]byte

	// Contexts (JCRE 6.1): whose the running code is, and whose turn it is.
	owner    ref // instance that new objects will belong to; 0 is the JCRE
	group    ref // package of owner
	selected ref // package of the selected instance
	caller   ref // owner before the last switch of contexts
	current  *instance

	installing *installation
	apdu       apdu
	globals    bool // there are objects that end with the command
	result     sensitiveResult
}

// thrown is what unwinds to the handler of a Java exception; the exception
// itself is in VM.pending.
type thrown struct{}

// fault is what unwinds when code breaks the rules: the command ends with
// 6F00.
type fault struct{ reason string }

func (f fault) Error() string { return f.reason }

func (vm *VM) fault(format string, args ...any) {
	panic(fault{fmt.Sprintf(format, args...)})
}

// guard runs f and turns what it throws into an error: an *uncaught, a fault,
// or a fault for an index out of the range of a stack window, which is how the
// interpreter notices code that uses more stack than it said. Anything else,
// such as the loss of power, goes on.
func (vm *VM) guard(f func()) (err error) {
	frames, nested := len(vm.frames), vm.nested
	owner, group, caller := vm.owner, vm.group, vm.caller
	defer func() {
		e := recover()
		if e == nil {
			return
		}
		vm.frames, vm.nested = vm.frames[:frames], nested
		vm.owner, vm.group, vm.caller = owner, group, caller
		switch e := e.(type) {
		case thrown:
			err = &uncaught{vm: vm, exception: vm.pending}
			vm.pending = 0
		case fault:
			err = e
		case runtime.Error:
			err = fault{e.Error()}
		default:
			panic(e)
		}
	}()
	f()
	return nil
}

// uncaught is an exception that nothing caught.
type uncaught struct {
	vm        *VM
	exception ref
}

func (u *uncaught) Error() string {
	o := u.vm.objs[u.exception]
	if o == nil || o.class == nil {
		return "uncaught exception"
	}
	return "uncaught " + o.class.String()
}

// status is the status word of an error that ended an application's code
// (JCRE 3.3): the reason of an ISOException, 6F00 for everything else.
func (vm *VM) status(err error) iso7816.SW {
	var u *uncaught
	if errors.As(err, &u) {
		if o := vm.objs[u.exception]; o != nil && o.class.extends(vm.api.isoException) {
			return iso7816.SW(vm.reason(u.exception))
		}
	}
	var sw iso7816.SW
	if errors.As(err, &sw) {
		return sw
	}
	return iso7816.ErrUnknown
}
