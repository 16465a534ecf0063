package jcvm

import (
	"encoding/binary"
	"errors"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// kind says what an object is.
type kind uint8

const (
	kindInstance kind = iota + 1
	kindBoolean
	kindByte
	kindShort
	kindInt
	kindReference // array of references
	kindPackage   // what a package has: its AID and static fields
	kindApplet    // what an installed instance has: its AID and applet object
)

// size is the size of an array's element in bytes.
func (k kind) size() int {
	switch k {
	case kindBoolean, kindByte:
		return 1
	case kindShort, kindReference:
		return 2
	case kindInt:
		return 4
	}
	return 0
}

func (k kind) array() bool { return k >= kindBoolean && k <= kindReference }

// A persistent object is a header and its data, all numbers big-endian:
//
//	kind (1) | event of transient data + 1, or 0; 80 for a sensitive array (1) | owner (2) | package (2) | class (2) | data
//
// The class is that of an instance, or of the elements of an array of
// references: by its package's root object, or FF00 and above for the API's,
// and within it by offset or token. The data of a transient array is its
// length in 2 bytes. A reference takes 2 bytes, a short or byte field 2, an int
// field 4.
const (
	headerSize = 8
	headKind   = 0
	headEvent  = 1
	headOwner  = 2
	headClass  = 4
)

// sensitiveArray marks an integrity-sensitive array in the byte of the event.
const sensitiveArray = 0x80

// object is what the machine knows of an object. The fields of a persistent
// one are the card's memory itself, read directly and written through the card.
type object struct {
	head       []byte // the persistent header, where there is one
	data       []byte // fields or elements, without the header
	class      *class // of an instance; of any array the class for arrays
	element    *class // of the elements of an array of references
	length     int    // of an array
	kind       kind
	persistent bool // data is in persistent memory
	stored     bool // the object has a handle
	checked    bool // access needs more than a look at the owner's package
	entry      entryPoint
	global     bool // global array
	event      oncard.ClearEvent
	transient  bool
	sensitive  bool // integrity-sensitive array
	owner      ref
	group      ref // package of the owner: its context
	self       ref
	native     any // state of an API object that is lost with power
}

type entryPoint uint8

const (
	noEntryPoint entryPoint = iota
	temporary
	permanent
)

// everyone is the group of objects that any context may use.
const everyone ref = 0xFFFF

func (r ref) handle() oncard.Handle { return oncard.Handle(r) - firstHandle }

// object returns what a slot refers to, nil for null.
func (vm *VM) object(s slot) *object {
	if s>>16 != 1 {
		panic(fault{"value that is no reference used as one"})
	}
	return vm.objs[uint16(s)]
}

// scan reads all headers. It follows power on, and whatever made objects come
// or go behind the machine's back.
func (vm *VM) scan() {
	n := vm.sys.Handles() + firstHandle
	if n > maxRef {
		n = maxRef + 1
	}
	for len(vm.objs) < n {
		vm.objs = append(vm.objs, nil)
	}
	for r := firstHandle; r < len(vm.objs); r++ {
		b := vm.sys.View(ref(r).handle())
		switch {
		case b == nil:
			vm.objs[r] = nil
		case vm.objs[r] == nil || len(b) < headerSize || &vm.objs[r].head[0] != &b[0]:
			vm.objs[r] = vm.decode(ref(r), b)
		}
	}
	for root := range vm.instances {
		if o := vm.objs[root]; o == nil || o.kind != kindApplet {
			delete(vm.instances, root)
		}
	}
	for r := firstHandle; r < len(vm.objs); r++ {
		if o := vm.objs[r]; o != nil && o.kind == kindApplet && vm.instances[ref(r)] == nil {
			vm.instances[ref(r)] = &instance{vm: vm, root: ref(r)}
		}
	}
	for _, o := range vm.objs {
		if o != nil && o.stored {
			vm.resolve(o)
		}
	}
	vm.undone = vm.sys.Undone()
}

// sync makes the table right again after the card took writes back.
func (vm *VM) sync() {
	if vm.undone != vm.sys.Undone() {
		vm.scan()
	}
}

// decode makes an object of a header. What makes no sense becomes an object
// without a kind, which nothing refers to.
func (vm *VM) decode(r ref, b []byte) *object {
	o := &object{self: r, stored: true, head: b}
	if len(b) < headerSize {
		return o
	}
	o.kind = kind(b[headKind])
	o.owner = ref(binary.BigEndian.Uint16(b[headOwner:]))
	o.data, o.persistent = b[headerSize:], true
	size := o.kind.size()
	o.sensitive = b[headEvent]&sensitiveArray != 0
	if event := b[headEvent] &^ sensitiveArray; event != 0 && size > 0 && len(o.data) == 2 {
		o.length = int(binary.BigEndian.Uint16(o.data))
		o.data, o.persistent = make([]byte, o.length*size), false
		o.event, o.transient = oncard.ClearEvent(event-1), true
	} else if size > 0 {
		o.length = len(o.data) / size
	}
	o.checked = o.transient && o.event == oncard.OnDeselect
	return o
}

// resolve finds the classes and the context of an object again, when packages
// or instances have come.
func (vm *VM) resolve(o *object) {
	b := o.head
	if len(b) < headerSize {
		return
	}
	o.owner = ref(binary.BigEndian.Uint16(b[headOwner:]))
	o.group = vm.groupOf(o.owner)
	c := vm.classByID(binary.BigEndian.Uint32(b[headClass:]))
	switch {
	case o.kind == kindInstance:
		o.class = c
		if c != nil && len(o.data) < 2*c.size {
			o.class = nil
		}
	case o.kind.array():
		o.class, o.element = vm.api.array, c
	}
	if o.kind == kindInstance && o.owner == 0 {
		o.entry = permanent
	}
}

// groupOf is the context of an owner: the package of an instance, or the
// package itself; the arrays that a library's initialisers make are
// everyone's.
func (vm *VM) groupOf(owner ref) ref {
	if int(owner) >= len(vm.objs) || owner == 0 {
		return 0
	}
	o := vm.objs[owner]
	switch {
	case o == nil:
		return 0
	case o.kind == kindApplet:
		return ref(binary.BigEndian.Uint16(o.data[appletPackage:]))
	case o.kind == kindPackage:
		if p := vm.byRoot[owner]; p != nil && p.library {
			return everyone
		}
		return owner
	}
	return 0
}

// classByID finds the class of a header.
func (vm *VM) classByID(id uint32) *class {
	r, n := ref(id>>16), int(id&0xFFFF)
	if r >= apiPackageRef {
		if i := int(r - apiPackageRef); i < len(vm.api.packages) {
			return vm.api.packages[i].classByToken(n)
		}
		return nil
	}
	if p := vm.byRoot[r]; p != nil {
		return p.classes[n]
	}
	return nil
}

// allocate makes a persistent object with the data. Nothing may go wrong in
// the middle: it is one write.
func (vm *VM) allocate(k kind, event byte, owner ref, class uint32, data []byte) *object {
	vm.steps -= costObject + int64(len(data))/8
	b := make([]byte, headerSize, headerSize+len(data))
	b[headKind], b[headEvent] = byte(k), event
	binary.BigEndian.PutUint16(b[headOwner:], uint16(owner))
	binary.BigEndian.PutUint32(b[headClass:], class)
	b = append(b, data...)
	h, err := vm.sys.Alloc(b)
	if err == nil && int(h)+firstHandle > maxRef {
		vm.check(vm.sys.Free(h))
		err = iso7816.ErrNoMemory
	}
	if err != nil {
		vm.check(err)
	}
	r := ref(h) + firstHandle
	for len(vm.objs) <= int(r) {
		vm.objs = append(vm.objs, nil)
	}
	o := vm.decode(r, vm.sys.View(h))
	vm.objs[r] = o
	vm.resolve(o)
	if vm.inTx {
		vm.fresh = append(vm.fresh, r)
	}
	return o
}

// check throws what a failed write means to an application.
func (vm *VM) check(err error) {
	switch {
	case err == nil:
	case errors.Is(err, oncard.ErrCommitCapacity):
		vm.throwReason("javacard/framework/TransactionException", transactionBufferFull)
	case errors.Is(err, iso7816.ErrNoMemory):
		vm.throwReason("javacard/framework/SystemException", systemNoResource)
	default:
		vm.fault("%v", err)
	}
}

// newInstance makes an instance of a class for the running context.
func (vm *VM) newInstance(c *class) *object {
	return vm.allocate(kindInstance, 0, vm.owner, c.id, make([]byte, 2*c.size))
}

// newArray makes a persistent array; element is the class of the elements of
// an array of references.
func (vm *VM) newArray(k kind, n int, element *class) *object {
	return vm.newArrayWith(k, n, element, 0)
}

// newArrayWith is newArray with more in the byte of the event.
func (vm *VM) newArrayWith(k kind, n int, element *class, mark byte) *object {
	if n < 0 {
		vm.throw("java/lang/NegativeArraySizeException")
	}
	var id uint32
	if element != nil {
		id = element.id
	}
	return vm.allocate(k, mark, vm.owner, id, make([]byte, n*k.size()))
}

// newTransient makes an array that is cleared on an event, accounted to the
// running instance.
func (vm *VM) newTransient(k kind, n int, element *class, event oncard.ClearEvent) *object {
	return vm.newTransientWith(k, n, element, event, 0)
}

// newTransientWith is newTransient with more in the byte of the event.
func (vm *VM) newTransientWith(k kind, n int, element *class, event oncard.ClearEvent, mark byte) *object {
	if n < 0 {
		vm.throw("java/lang/NegativeArraySizeException")
	}
	if event == oncard.OnDeselect && vm.group != vm.selected {
		vm.throwReason("javacard/framework/SystemException", systemIllegalTransient)
	}
	if err := vm.takeTransient(vm.owner, event, n*k.size()); err != nil {
		if errors.Is(err, iso7816.ErrNoMemory) {
			vm.throwReason("javacard/framework/SystemException", systemNoTransientSpace)
		}
		vm.check(err)
	}
	var id uint32
	if element != nil {
		id = element.id
	}
	return vm.allocate(k, byte(event)+1|mark, vm.owner, id, []byte{byte(n >> 8), byte(n)})
}

// newGlobal makes a global array that lasts until the command ends: nothing can
// keep a reference to it (JCRE 6.2.2). Its memory is what transient objects
// leave.
func (vm *VM) newGlobal(k kind, n int) *object {
	if n < 0 {
		vm.throw("java/lang/NegativeArraySizeException")
	}
	used := n * k.size()
	for r := refGlobals; r < firstHandle; r++ {
		if o := vm.objs[r]; o != nil {
			used += len(o.data)
		}
	}
	if used > vm.sys.Room().TransientReset {
		vm.throwReason("javacard/framework/SystemException", systemNoTransientSpace)
	}
	o := &object{
		kind: k, class: vm.api.array, length: n, data: make([]byte, n*k.size()),
		global: true, group: everyone, transient: true, event: oncard.OnReset,
	}
	if k == kindReference {
		o.element = vm.api.object
	}
	return vm.addGlobal(o)
}

// addGlobal gives an object that lasts until the command ends its reference.
func (vm *VM) addGlobal(o *object) *object {
	for r := refGlobals; r < firstHandle; r++ {
		if vm.objs[r] == nil {
			o.self, vm.objs[r], vm.globals = r, o, true
			return o
		}
	}
	vm.throwReason("javacard/framework/SystemException", systemNoResource)
	return nil
}

// dropGlobals ends what addGlobal made.
func (vm *VM) dropGlobals() {
	if vm.globals {
		clear(vm.objs[refGlobals:firstHandle])
		vm.globals = false
	}
}

// arrayType is the kind of an array by its JCSystem.ARRAY_TYPE_….
func (vm *VM) arrayType(s slot) kind {
	switch uint8(s) {
	case 1:
		return kindBoolean
	case 2:
		return kindByte
	case 3:
		return kindShort
	case 4:
		return kindInt
	case 5:
		return kindReference
	}
	vm.throwReason("javacard/framework/SystemException", systemIllegalValue)
	return 0
}

// takeTransient accounts more bytes of transient memory to an instance. What
// it has is counted in its objects, so that nothing can drift.
func (vm *VM) takeTransient(owner ref, event oncard.ClearEvent, more int) error {
	i := vm.instances[owner]
	if i == nil {
		return nil
	}
	total := more
	for _, o := range vm.objs {
		if o != nil && o.transient && o.owner == owner && o.event == event && o.stored {
			total += len(o.data)
		}
	}
	return vm.sys.SetTransient(i.aid(), event, total)
}

// clearOnDeselect clears an application's memory of that kind.
func (vm *VM) clearOnDeselect(group ref) {
	for _, o := range vm.objs {
		if o != nil && o.transient && o.event == oncard.OnDeselect && o.group == group {
			clear(o.data)
		}
	}
}

// write writes into an object's data, atomically and as part of the open
// transaction where it is persistent.
func (vm *VM) write(o *object, offset int, p []byte) {
	if !o.persistent {
		copy(o.data[offset:], p)
		return
	}
	if err := vm.sys.Write(o.self.handle(), headerSize+offset, p); err != nil {
		vm.check(err)
	}
}

func (vm *VM) write1(o *object, offset int, v byte) {
	if !o.persistent {
		o.data[offset] = v
		return
	}
	vm.scratch[0] = v
	vm.write(o, offset, vm.scratch[:1])
}

func (vm *VM) write2(o *object, offset int, v uint16) {
	if !o.persistent {
		binary.BigEndian.PutUint16(o.data[offset:], v)
		return
	}
	binary.BigEndian.PutUint16(vm.scratch[:], v)
	vm.write(o, offset, vm.scratch[:2])
}

func (vm *VM) write4(o *object, offset int, v uint32) {
	if !o.persistent {
		binary.BigEndian.PutUint32(o.data[offset:], v)
		return
	}
	binary.BigEndian.PutUint32(vm.scratch[:], v)
	vm.write(o, offset, vm.scratch[:4])
}

// word reads 16 bits of an object's data.
func (o *object) word(offset int) uint16 { return binary.BigEndian.Uint16(o.data[offset:]) }

// begin, commit and abort are the transaction of JCSystem.
func (vm *VM) begin() error {
	err := vm.sys.Begin()
	if err == nil {
		vm.inTx, vm.fresh = true, vm.fresh[:0]
	}
	return err
}

func (vm *VM) commit() error {
	err := vm.sys.Commit()
	if err == nil {
		vm.inTx, vm.fresh = false, vm.fresh[:0]
	}
	return err
}

// abort takes the open transaction back. Fields have their old values again;
// what else refers to objects that never were becomes null (JCRE 7.6.3).
func (vm *VM) abort() {
	if !vm.inTx {
		return
	}
	gone := map[ref]bool{}
	for _, r := range vm.fresh {
		gone[r] = true
	}
	vm.inTx, vm.fresh = false, vm.fresh[:0]
	vm.sys.Abort()
	vm.scan()
	if len(gone) == 0 {
		return
	}
	for i, s := range vm.stack {
		if s>>16 == 1 && gone[ref(s)] {
			vm.stack[i] = null
		}
	}
	if gone[vm.pending] {
		vm.pending = 0
	}
	for _, o := range vm.objs {
		if o == nil || o.kind != kindReference || !o.transient {
			continue
		}
		for i := range o.length {
			if gone[ref(o.word(2*i))] {
				binary.BigEndian.PutUint16(o.data[2*i:], 0)
			}
		}
	}
	for owner := range vm.instances {
		for _, event := range []oncard.ClearEvent{oncard.OnDeselect, oncard.OnReset} {
			vm.check(vm.takeTransient(owner, event, 0))
		}
	}
}

// references calls f for every reference in an object.
func (vm *VM) references(o *object, f func(ref)) {
	switch o.kind {
	case kindReference:
		for i := range o.length {
			f(ref(o.word(2 * i)))
		}
	case kindInstance:
		if o.class == nil {
			return
		}
		for i, is := range o.class.refs {
			if is && 2*i+2 <= len(o.data) {
				f(ref(o.word(2 * i)))
			}
		}
	case kindPackage:
		if p := vm.byRoot[o.self]; p != nil {
			for i := range p.staticRefs {
				f(ref(o.word(packageStatics + 2*i)))
			}
		}
	case kindApplet:
		f(ref(o.word(appletObject)))
		f(ref(o.word(appletAID)))
	}
}

// mark follows references from the roots for which pick says so.
func (vm *VM) mark(pick func(*object) bool) map[ref]bool {
	seen := map[ref]bool{}
	var queue []ref
	reach := func(r ref) {
		if r >= firstHandle && int(r) < len(vm.objs) && vm.objs[r] != nil && !seen[r] {
			seen[r] = true
			queue = append(queue, r)
		}
	}
	for r, o := range vm.objs {
		if o != nil && (o.kind == kindApplet || o.kind == kindPackage) && pick(o) {
			reach(ref(r))
		}
	}
	for len(queue) > 0 {
		r := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		vm.references(vm.objs[r], reach)
	}
	return seen
}

// collect frees what nothing refers to (JCRE 7.6, object deletion).
func (vm *VM) collect() error {
	seen := vm.mark(func(*object) bool { return true })
	if vm.inTx {
		return nil
	}
	for r := firstHandle; r < len(vm.objs); r++ {
		if o := vm.objs[r]; o != nil && !seen[ref(r)] {
			if err := vm.free(ref(r)); err != nil {
				return err
			}
		}
	}
	for owner := range vm.instances {
		for _, event := range []oncard.ClearEvent{oncard.OnDeselect, oncard.OnReset} {
			if err := vm.takeTransient(owner, event, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (vm *VM) free(r ref) error {
	if err := vm.sys.Free(r.handle()); err != nil {
		return err
	}
	vm.objs[r] = nil
	return nil
}
