package jcvm

import (
	"fmt"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// Data of an instance's object: the applet, its AID object, its package, then
// length and bytes of its AID.
const (
	appletObject  = 0
	appletAID     = 2
	appletPackage = 4
	appletName    = 6
	appletSize    = appletName + 17
)

// module is an applet of a package that can be installed.
type module struct {
	vm      *VM
	pkg     *pkg
	install *method
	aid     iso7816.AID
}

// instance is an installed applet.
type instance struct {
	vm   *VM
	root ref
	card oncard.Card // nil until it is opened
	pkg  *pkg
}

var (
	_ oncard.Module      = (*module)(nil)
	_ oncard.Application = (*application)(nil)
	_ oncard.Selective   = (*application)(nil)
	_ oncard.Uninstaller = (*instance)(nil)
)

func (i *instance) object() *object { return i.vm.objs[i.root] }
func (i *instance) applet() ref     { return ref(i.object().word(appletObject)) }

func (i *instance) aid() iso7816.AID {
	b := i.object().data[appletName:]
	aid, _ := iso7816.NewAID(b[1 : 1+min(b[0], 16)])
	return aid
}

func (i *instance) group() ref { return ref(i.object().word(appletPackage)) }

// installation is what register needs to know while install runs.
type installation struct {
	instance *instance
	done     bool
}

// instanceOf finds an installed instance.
func (vm *VM) instanceOf(aid iso7816.AID) *instance {
	for _, i := range vm.instances {
		if i.aid() == aid {
			return i
		}
	}
	return nil
}

// Install implements [oncard.Module]: it runs the install method (JCRE 3.1).
func (m *module) Install(card oncard.Card, p oncard.InstallParameters) error {
	vm := m.vm
	vm.sync()
	aid := card.AID()
	if vm.instanceOf(aid) != nil {
		return iso7816.ErrConditions
	}
	var parameters []byte
	for _, part := range [][]byte{aid.Bytes(), p.Privileges, p.Specific} {
		if len(part) > 127 {
			return iso7816.ErrWrongData
		}
		parameters = append(append(parameters, byte(len(part))), part...)
	}
	var i *instance
	err := vm.guard(func() {
		data := make([]byte, appletSize)
		data[appletPackage], data[appletPackage+1] = byte(m.pkg.root>>8), byte(m.pkg.root)
		data[appletName] = byte(aid.Len())
		copy(data[appletName+1:], aid.Bytes())
		root := vm.allocate(kindApplet, 0, 0, 0, data)
		i = &instance{vm: vm, root: root.self, card: card, pkg: m.pkg}
		vm.instances[root.self] = i
		vm.write2(root, appletAID, uint16(vm.newAID(0, aid.Bytes()).self))
	})
	if err != nil {
		return vm.refused(err)
	}
	vm.installing = &installation{instance: i}
	buffer := vm.objs[refBuffer]
	clear(buffer.data)
	copy(buffer.data, parameters)
	err = vm.enterApplet(i, i.group(), func() {
		vm.call(m.install, refBuffer.slot(), 0, short(int16(len(parameters))))
	})
	registered := vm.installing.done
	vm.installing = nil
	if err == nil && !registered {
		err = iso7816.ErrConditions
	}
	if err != nil {
		delete(vm.instances, i.root)
		return vm.refused(err)
	}
	return nil
}

// refused is the status word for an error, so that the card can tell it.
func (vm *VM) refused(err error) error {
	if sw := vm.outOfMemory(err); sw == iso7816.ErrNoMemory {
		return sw
	}
	return vm.status(err)
}

// Open implements [oncard.Module].
func (m *module) Open(card oncard.Card) (oncard.Application, error) {
	m.vm.sync()
	i := m.vm.instanceOf(card.AID())
	if i == nil || i.group() != m.pkg.root || i.applet() == 0 {
		return nil, fmt.Errorf("application %v: %w", card.AID(), iso7816.ErrConditions)
	}
	i.card, i.pkg = card, m.pkg
	a := &application{instance: i}
	switch shared := i.class().assignable(m.vm.api.multiSelectable); {
	case shared && i.personalizable():
		return struct {
			*application
			personalization
			sharing
		}{a, personalization{i}, sharing{a}}, nil
	case shared:
		return struct {
			*application
			sharing
		}{a, sharing{a}}, nil
	case i.personalizable():
		return struct {
			*application
			personalization
		}{a, personalization{i}}, nil
	}
	return a, nil
}

// personalization is what an application has that takes STORE DATA, and
// sharing what one has that is multiselectable: the card asks which it is by
// its methods.
type (
	personalization struct{ i *instance }
	sharing         struct{ a *application }
)

var (
	_ oncard.Personalizable    = personalization{}
	_ oncard.ChannelSelectable = sharing{}
)

// application is an instance's behaviour.
type application struct {
	*instance
	selected bool // what select said
}

// Selected implements [oncard.Selective]: whatever process answers to SELECT,
// the applet stays selected (JCRE 4.5).
func (a *application) Selected() bool { return a.selected }

// enterApplet runs code in the context of an instance, with the transaction
// and object deletion that follow. selected is the package of the instance that
// counts as selected.
func (vm *VM) enterApplet(i *instance, selected ref, f func()) error {
	vm.sync()
	vm.frames, vm.nested, vm.pending = vm.frames[:0], 0, 0
	vm.steps = vm.options.Steps
	vm.owner, vm.group, vm.caller, vm.selected, vm.current = i.root, i.group(), 0, selected, i
	vm.inTx, vm.result = false, sensitiveResult{}
	err := vm.guard(f)
	var sw error
	if err != nil {
		sw = vm.status(err)
		if u, ok := err.(*uncaught); ok {
			if vm.outOfMemory(u) == iso7816.ErrNoMemory && vm.installing != nil {
				sw = iso7816.ErrNoMemory
			}
		}
	}
	if vm.inTx {
		if e := vm.guard(vm.abort); e != nil && sw == nil {
			sw = iso7816.ErrUnknown
		}
	}
	vm.owner, vm.group, vm.selected, vm.current = 0, 0, 0, nil
	vm.dropGlobals()
	clear(vm.stack[:min(len(vm.stack), 64)])
	if vm.deletion && vm.installing == nil {
		vm.deletion = false
		if e := vm.collect(); e != nil && sw == nil {
			sw = iso7816.ErrUnknown
		}
	}
	return sw
}

// method finds a virtual method of the applet by its token in
// javacard.framework.Applet.
func (i *instance) method(token int) *method { return i.class().virtual[token] }

// Tokens of javacard.framework.Applet.
const (
	appletDeselect  = 4
	appletShareable = 5
	appletSelect    = 6
	appletProcess   = 7
)

func (i *instance) class() *class { return i.vm.objs[i.applet()].class }

func (i *instance) this() slot { return i.applet().slot() }

// Select implements [oncard.Application]: select, and then process with the
// SELECT command (JCRE 4.5).
func (a *application) Select(cmd iso7816.Command) iso7816.Response {
	r := a.selectBy(cmd, func() slot { return a.vm.call(a.method(appletSelect), a.this()) })
	if !a.selected {
		a.vm.clearOnDeselect(a.group())
	}
	return r
}

// selectBy asks the applet by one of its methods, and then lets it process the
// command.
func (a *application) selectBy(cmd iso7816.Command, ask func() slot) iso7816.Response {
	a.selected = false
	err := a.vm.enterApplet(a.instance, a.group(), func() { a.selected = ask()&0xFF != 0 })
	if err != nil || !a.selected {
		a.selected = false
		return iso7816.Response{SW: 0x6999}
	}
	return a.process(cmd, true)
}

// Tokens of javacard.framework.MultiSelectable.
const (
	sharedSelect   = 0
	sharedDeselect = 1
)

func (s sharing) MultiSelectable() {}

// SelectShared implements [oncard.ChannelSelectable] (JCRE 4.2): memory that is
// cleared on deselection belongs to the package, which another channel has.
func (s sharing) SelectShared(cmd iso7816.Command, already bool) iso7816.Response {
	return s.a.selectBy(cmd, func() slot { return s.call(sharedSelect, already) })
}

// DeselectShared implements [oncard.ChannelSelectable].
func (s sharing) DeselectShared(still bool) {
	// What it throws changes nothing.
	_ = s.a.vm.enterApplet(s.a.instance, s.a.group(), func() { s.call(sharedDeselect, still) })
}

func (s sharing) call(token int, flag bool) slot {
	m := s.a.class().interfaceMethod(s.a.vm.api.multiSelectable, token)
	return s.a.vm.call(m, s.a.this(), boolean(flag))
}

// Process implements [oncard.Application].
func (a *application) Process(cmd iso7816.Command) iso7816.Response { return a.process(cmd, false) }

func (a *application) process(cmd iso7816.Command, selecting bool) iso7816.Response {
	vm := a.vm
	extended := a.class().assignable(vm.api.extended)
	if cmd.Extended && !extended {
		return iso7816.Response{SW: iso7816.ErrWrongLength}
	}
	vm.apdu.begin(cmd, a.card.LogicalChannel(), extended, vm.objs[refBuffer].data)
	vm.apdu.selecting = selecting
	err := vm.enterApplet(a.instance, a.group(), func() {
		vm.call(a.method(appletProcess), a.this(), refAPDU.slot())
	})
	r := iso7816.Response{Data: vm.apdu.out, SW: iso7816.OK}
	vm.apdu = apdu{}
	if err != nil {
		// What it sent before stays sent, unless its code failed.
		if r.SW = vm.status(err); r.SW == iso7816.ErrUnknown {
			r.Data = nil
		}
	}
	return r
}

// Deselect implements [oncard.Application] (JCRE 4.6).
func (a *application) Deselect() {
	// What it throws changes nothing.
	_ = a.vm.enterApplet(a.instance, a.group(), func() { a.vm.call(a.method(appletDeselect), a.this()) })
	a.vm.clearOnDeselect(a.group())
}

// personalizable reports whether the applet takes STORE DATA.
func (i *instance) personalizable() bool {
	c := i.class()
	return c.assignable(i.vm.api.classes["org/globalplatform/Application"]) ||
		c.assignable(i.vm.api.classes["org/globalplatform/Personalization"])
}

// Personalize implements [oncard.Personalizable]: the STORE DATA command goes
// to processData whole (GPCS 7.3.3), header and data. The Security Domain is
// selected, so memory that is cleared on deselection is out of reach.
func (p personalization) Personalize(cmd iso7816.Command, _ oncard.SecureChannel) iso7816.Response {
	i, vm := p.i, p.i.vm
	data := append([]byte{cmd.CLA, cmd.INS, cmd.P1, cmd.P2, byte(len(cmd.Data))}, cmd.Data...)
	if len(data) > shortBuffer {
		return iso7816.Response{SW: iso7816.ErrWrongLength}
	}
	c := i.class()
	buffer := vm.objs[refBuffer]
	clear(buffer.data)
	copy(buffer.data, data)
	var out []byte
	err := vm.enterApplet(i, 0, func() {
		if p := vm.api.classes["org/globalplatform/Personalization"]; c.assignable(p) {
			m := c.interfaceMethod(p, 0)
			n := vm.call(m, i.this(), refBuffer.slot(), 0, short(int16(len(data))), refBuffer.slot(), 0)
			if count := int(int16(n)); count > 0 {
				out = append(out, buffer.data[:count]...)
			}
			return
		}
		m := c.interfaceMethod(vm.api.classes["org/globalplatform/Application"], 0)
		vm.call(m, i.this(), refBuffer.slot(), 0, short(int16(len(data))))
	})
	if err != nil {
		return iso7816.Response{SW: vm.status(err)}
	}
	return iso7816.Response{Data: out, SW: iso7816.OK}
}

// Uninstall implements [oncard.Uninstaller] (JCRE 11.3.4): it asks the applet
// and looks for other instances that refer to its objects. What static fields
// refer to stays, as the package's own, or holds the instance: see [Quirks].
func (i *instance) Uninstall(withFile bool) error {
	vm := i.vm
	vm.sync()
	if c := i.class(); c.assignable(vm.api.appletEvent) {
		// An exception changes nothing (JCRE 11.3.4).
		_ = vm.enterApplet(i, i.group(), func() {
			vm.call(c.interfaceMethod(vm.api.appletEvent, 0), i.this())
		})
	}
	mine := func(r ref) bool { return vm.objs[r].owner == i.root }
	holds := func(o *object) bool {
		if o.kind == kindPackage {
			return vm.options.Quirks.StaticsHold && !(withFile && o.self == i.group())
		}
		return o.self != i.root
	}
	for r := range vm.mark(holds) {
		if mine(r) {
			return iso7816.ErrConditions
		}
	}
	name := vm.objs[i.object().word(appletAID)]
	kept := vm.mark(func(o *object) bool { return o.kind == kindPackage })
	used := vm.mark(func(o *object) bool { return o.self != i.root })
	c := vm.api.classes["org/globalplatform/GPRegistryEntry"]
	for r := firstHandle; r < len(vm.objs); r++ {
		o := vm.objs[r]
		if o != nil && o.class == c && !used[ref(r)] && vm.entryAID(o) == i.aid() {
			for _, r := range []ref{ref(o.field(0)), o.self} {
				if err := vm.free(r); err != nil {
					return err
				}
			}
			continue
		}
		switch {
		case o == nil || !mine(ref(r)):
		case kept[ref(r)]:
			owner := i.group()
			if err := vm.sys.Write(ref(r).handle(), headOwner, []byte{byte(owner >> 8), byte(owner)}); err != nil {
				return err
			}
			vm.resolve(o)
		default:
			if err := vm.free(ref(r)); err != nil {
				return err
			}
		}
	}
	// The AID object is the JCRE's: others may know it.
	if name != nil && name.class == vm.api.aid && !used[name.self] {
		if b := ref(name.word(0)); b != 0 {
			if err := vm.free(b); err != nil {
				return err
			}
		}
		if err := vm.free(name.self); err != nil {
			return err
		}
	}
	if err := vm.free(i.root); err != nil {
		return err
	}
	delete(vm.instances, i.root)
	return nil
}
