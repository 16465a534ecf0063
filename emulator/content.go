package emulator

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"slices"
	"sort"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// Reference control parameter P1 of INSTALL (GPCS table 11-41).
const (
	forLoad              = 0x02
	forInstall           = 0x04
	forMakeSelectable    = 0x08
	forInstallSelectable = forInstall | forMakeSelectable
	forPersonalization   = 0x20
)

// confirmed is the response data of INSTALL, LOAD and DELETE: no confirmation.
func confirmed() iso7816.Response {
	return iso7816.Response{Data: []byte{0}, SW: iso7816.OK}
}

// install is INSTALL (GPCS 11.5).
func (c *Card) install(sd *entry, cmd iso7816.Command) iso7816.Response {
	if cmd.P2 != 0 {
		return refuse(iso7816.ErrIncorrectP1P2) // combined loading and installation
	}
	f := &fields{rest: cmd.Data}
	switch cmd.P1 {
	case forLoad:
		return c.installForLoad(sd, f)
	case forInstall, forInstallSelectable:
		return c.installForInstall(sd, f, cmd.P1 == forInstallSelectable)
	case forMakeSelectable:
		return c.installForMakeSelectable(sd, f)
	case forPersonalization:
		return c.installForPersonalization(sd, f)
	}
	return refuse(iso7816.ErrIncorrectP1P2)
}

// loading is a LOAD sequence: what was asked for and the blocks so far. It
// takes persistent memory, but power lost discards it.
type loading struct {
	aid            iso7816.AID
	securityDomain iso7816.AID
	hash           []byte
	block          byte // number that the next LOAD must have
	full           bool // block FF has come
	data           []byte
}

// installForLoad is INSTALL [for load] (GPCS 11.5.2.3.1, 9.3.5).
func (c *Card) installForLoad(sd *entry, f *fields) iso7816.Response {
	aid, domain, hash := f.aid(), f.optionalAID(), f.bytes()
	parameters, token := f.long(), f.long()
	if !f.end() || len(token) > 0 {
		return refuse(iso7816.ErrWrongData)
	}
	need, err := loadParameters(parameters)
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	switch len(hash) {
	case 0, sha256.Size, sha512.Size384, sha512.Size:
	default:
		return refuse(iso7816.ErrWrongData)
	}
	if domain.IsZero() {
		domain = sd.aid
	}
	switch {
	case !sd.privileges.authorizedManagement() || c.state.taken(aid):
		return refuse(iso7816.ErrConditions)
	case c.state.domain(domain) == nil:
		return refuse(iso7816.ErrDataNotFound)
	}
	if err := c.reserve(fileOverhead + need); err != nil {
		return refuse(err)
	}
	c.session.loading = &loading{aid: aid, securityDomain: domain, hash: hash}
	return confirmed()
}

// loadParameters reads the memory that a load file says it needs (GPCS table
// 11-48), in bytes.
func loadParameters(b []byte) (need int, err error) {
	objects, err := iso7816.ParseTLVs(b)
	if err != nil {
		return 0, err
	}
	system, ok := iso7816.Find(objects, 0xEF)
	if !ok {
		return 0, nil
	}
	children, err := system.Children()
	if err != nil {
		return 0, err
	}
	for _, t := range children {
		switch {
		case t.Tag != 0xC6 && t.Tag != 0xC8:
		case len(t.Value) == 2:
			need += int(t.Value[0])<<8 | int(t.Value[1])
		case len(t.Value) == 4 && t.Value[0] < 0x80:
			need += int(t.Value[0])<<24 | int(t.Value[1])<<16 | int(t.Value[2])<<8 | int(t.Value[3])
		default:
			return 0, iso7816.ErrWrongData
		}
	}
	return need, nil
}

// load is LOAD (GPCS 11.6). Any error discards the load file.
func (c *Card) load(_ *entry, cmd iso7816.Command) iso7816.Response {
	l := c.session.loading
	if l == nil {
		return refuse(iso7816.ErrConditions)
	}
	c.session.loading = nil
	if cmd.P2 != l.block || l.full {
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	if len(cmd.Data) == 0 {
		return refuse(iso7816.ErrWrongLength)
	}
	if err := c.reserve(fileOverhead + len(l.data) + len(cmd.Data)); err != nil {
		return refuse(err)
	}
	c.step() // the block is written, though power lost discards it
	l.data = append(l.data, cmd.Data...)
	if cmd.P1&0x80 != 0 {
		if err := c.loaded(l); err != nil {
			return refuse(err)
		}
		return confirmed()
	}
	l.full = l.block == 0xFF
	l.block++
	c.session.loading = l
	return confirmed()
}

// loaded completes the load process (GPCS 9.3.5).
func (c *Card) loaded(l *loading) error {
	data, err := loadFileDataBlock(l.data, len(l.hash) > 0)
	if err != nil {
		return err
	}
	if len(l.hash) > 0 && subtle.ConstantTimeCompare(l.hash, hashOf(data, len(l.hash))) != 1 {
		return iso7816.ErrWrongData
	}
	f := &loadFile{aid: l.aid, securityDomain: l.securityDomain, data: bytes.Clone(data)}
	return c.system(func() error {
		// A runtime may write while it links, so this is part of it.
		if f.linked, err = c.link(l.aid, data); err != nil {
			if errors.Is(err, iso7816.ErrNoMemory) {
				return iso7816.ErrNoMemory
			}
			return iso7816.ErrWrongData
		}
		if err := f.describe(); err != nil {
			return err
		}
		if err := c.reserve(f.size()); err != nil {
			return err
		}
		old := c.state.files
		c.change(
			func() { c.state.files = append(slices.Clone(old), f) },
			func() { c.state.files = old },
		)
		return nil
	})
}

// describe finds out what a load file says of itself: version and modules. One
// that is no CAP in the form that cards load is taken only if the linker knows
// what is in it.
func (f *loadFile) describe() error {
	file, err := capfile.ParseLoadFileDataBlock(f.data)
	switch {
	case err == nil && file.Package.AID != f.aid: // 11.5.2.3.1: the two are consistent
		return iso7816.ErrWrongData
	case err == nil:
		f.version = []byte{file.Package.Major, file.Package.Minor}
		f.modules = file.Applets
	case len(f.linked) > 0:
		f.modules = sortedModules(f.linked)
	default:
		return iso7816.ErrWrongData
	}
	if len(f.modules) > maxModules {
		return iso7816.ErrNoMemory
	}
	return nil
}

// maxModules bounds the modules of a load file.
const maxModules = 255

// sortedModules are the modules of a map in the order of their AIDs.
func sortedModules(m map[iso7816.AID]oncard.Module) []iso7816.AID {
	out := make([]iso7816.AID, 0, len(m))
	for aid := range m {
		out = append(out, aid)
	}
	sort.Slice(out, func(i, j int) bool { return bytes.Compare(out[i].Bytes(), out[j].Bytes()) < 0 })
	return out
}

// loadFileDataBlock takes the Load File apart (GPCS table 11-58). DAP blocks
// are read over: no Security Domain of this card verifies them. A Load File
// with DAP blocks needs a hash (11.5.2.3.1); a ciphered one is not supported.
func loadFileDataBlock(file []byte, hashed bool) ([]byte, error) {
	for {
		t, rest, err := iso7816.ParseTLV(file)
		switch {
		case err != nil:
			return nil, iso7816.ErrWrongData
		case t.Tag == 0xE2 && hashed:
			file = rest
		case t.Tag == 0xC4 && len(rest) == 0 && len(t.Value) > 0:
			return t.Value, nil
		default:
			return nil, iso7816.ErrWrongData
		}
	}
}

func hashOf(data []byte, size int) []byte {
	switch size {
	case sha512.Size384:
		h := sha512.Sum384(data)
		return h[:]
	case sha512.Size:
		h := sha512.Sum512(data)
		return h[:]
	}
	h := sha256.Sum256(data)
	return h[:]
}

func sha256Sum(data []byte) [32]byte { return sha256.Sum256(data) }

// installForInstall is INSTALL [for install], with or without [for make
// selectable] (GPCS 11.5.2.3.2, 9.3.6).
func (c *Card) installForInstall(sd *entry, f *fields, selectable bool) iso7816.Response {
	file, module, aid := f.optionalAID(), f.optionalAID(), f.aid()
	rights := f.bytes()
	parameters, token := f.long(), f.long()
	if !f.end() || file.IsZero() || module.IsZero() || len(rights) != 1 && len(rights) != 3 || len(token) > 0 {
		return refuse(iso7816.ErrWrongData)
	}
	for _, b := range rights {
		if b != 0 {
			return refuse(iso7816.ErrWrongData) // this card assigns none
		}
	}
	specific, err := installParameters(parameters)
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	lf := c.state.file(file)
	switch {
	case lf == nil || !slices.Contains(lf.modules, module):
		return refuse(iso7816.ErrDataNotFound)
	case !sd.privileges.authorizedManagement() || c.state.taken(aid):
		return refuse(iso7816.ErrConditions)
	case lf.linked[module] == nil:
		return refuse(iso7816.ErrFuncNotSupported)
	}
	if err := c.reserve(entryOverhead); err != nil {
		return refuse(err)
	}
	e := &entry{
		aid: aid, file: file, module: module,
		securityDomain: lf.securityDomain, // 9.3.6: inherited from the load file
		lifeCycle:      oncard.Installed,
	}
	var i *instance
	err = c.system(func() error {
		old := c.state.entries
		c.change(
			func() { c.state.entries = append(slices.Clone(old), e) },
			func() { c.state.entries = old },
		)
		var err error
		i, err = c.instantiate(e, lf.linked[module], oncard.InstallParameters{
			Privileges: bytes.Clone(rights), Specific: bytes.Clone(specific),
		})
		if err != nil {
			return err
		}
		if selectable {
			c.change(func() { e.lifeCycle = oncard.Selectable }, func() { e.lifeCycle = oncard.Installed })
		}
		return nil
	})
	if err != nil {
		return refuse(err)
	}
	c.session.running[e] = i
	return confirmed()
}

// instantiate lets the module install itself and attaches its behaviour, which
// tells how much transient memory it takes.
func (c *Card) instantiate(e *entry, m oncard.Module, p oncard.InstallParameters) (*instance, error) {
	err := m.Install(&instance{card: c, entry: e}, p)
	c.abortApplication()
	if err != nil {
		return nil, err
	}
	i := &instance{card: c, entry: e}
	if err := i.start(m); err != nil {
		return nil, err
	}
	c.abortApplication()
	// What a runtime has taken for the instance is there already.
	reset, deselect := e.transientReset, e.transientDeselect
	c.change(
		func() { e.transientReset, e.transientDeselect = reset+i.reset, deselect+i.deselect },
		func() { e.transientReset, e.transientDeselect = reset, deselect },
	)
	return i, nil
}

// installParameters finds the application specific parameters (GPCS table
// 11-49). System specific parameters are read over, as 11.5.2.3.7 allows.
func installParameters(b []byte) ([]byte, error) {
	objects, err := iso7816.ParseTLVs(b)
	if err != nil {
		return nil, err
	}
	var specific []byte
	found := 0
	for _, t := range objects {
		switch t.Tag {
		case 0xC9:
			specific = t.Value
			found++
		case 0xEF, 0xEA, 0xB6:
			if _, err := t.Children(); err != nil {
				return nil, err
			}
		default:
			return nil, iso7816.ErrWrongData
		}
	}
	if found != 1 {
		return nil, iso7816.ErrWrongData
	}
	return specific, nil
}

// installForMakeSelectable is INSTALL [for make selectable] (GPCS 11.5.2.3.3,
// 9.3.7). Privileges in it are ignored.
func (c *Card) installForMakeSelectable(sd *entry, f *fields) iso7816.Response {
	f.empty()
	f.empty()
	aid := f.aid()
	rights := f.bytes()
	parameters, token := f.long(), f.long()
	if !f.end() || len(rights) != 1 && len(rights) != 3 || len(token) > 0 {
		return refuse(iso7816.ErrWrongData)
	}
	if _, err := iso7816.ParseTLVs(parameters); err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	e := c.state.entry(aid)
	switch {
	case e == nil:
		return refuse(iso7816.ErrDataNotFound)
	case e.own || e.lifeCycle != oncard.Installed || e.locked || !sd.privileges.authorizedManagement():
		return refuse(iso7816.ErrConditions)
	}
	c.change(func() { e.lifeCycle = oncard.Selectable }, func() { e.lifeCycle = oncard.Installed })
	return confirmed()
}

// deleteContent is DELETE [card content] (GPCS 11.2, 9.5): an application, or
// a load file, which with P2 = 80 takes its applications with it.
func (c *Card) deleteContent(sd *entry, cmd iso7816.Command) iso7816.Response {
	if cmd.P1 != 0 || cmd.P2&0x7F != 0 {
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	objects, err := iso7816.ParseTLVs(cmd.Data)
	if err != nil || len(objects) == 0 || objects[0].Tag != 0x4F {
		return refuse(iso7816.ErrWrongData) // keys can't be deleted here
	}
	for _, t := range objects[1:] {
		if t.Tag != 0xB6 {
			return refuse(iso7816.ErrWrongData)
		}
	}
	aid, err := iso7816.NewAID(objects[0].Value)
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	file, e := c.state.file(aid), c.state.entry(aid)
	var doomed []*entry
	switch {
	case file != nil:
		doomed = c.state.instances(aid)
		if len(doomed) > 0 && cmd.P2&0x80 == 0 || !c.mayDelete(sd, file.securityDomain) {
			return refuse(iso7816.ErrConditions)
		}
	case e != nil:
		doomed = []*entry{e}
	default:
		return refuse(iso7816.ErrDataNotFound)
	}
	for _, e := range doomed {
		if e.own || !c.mayDelete(sd, e.securityDomain) {
			return refuse(iso7816.ErrConditions)
		}
	}
	err = c.system(func() error {
		for _, e := range doomed {
			if err := c.uninstall(e); err != nil {
				return err
			}
		}
		for _, e := range doomed {
			old := c.state.entries
			c.change(
				func() { c.state.entries = slices.DeleteFunc(slices.Clone(old), func(x *entry) bool { return x == e }) },
				func() { c.state.entries = old },
			)
		}
		if file != nil {
			if r := c.session.runtime; r != nil {
				if err := r.Unlink(file.aid); err != nil {
					return iso7816.ErrConditions
				}
			}
			old := c.state.files
			c.change(
				func() {
					c.state.files = slices.DeleteFunc(slices.Clone(old), func(x *loadFile) bool { return x == file })
				},
				func() { c.state.files = old },
			)
		}
		return nil
	})
	if err != nil {
		return refuse(err)
	}
	for _, e := range doomed {
		delete(c.session.running, e)
	}
	return confirmed()
}

// mayDelete reports whether a Security Domain may delete what is associated
// with another (GPCS 9.5.1).
func (c *Card) mayDelete(sd *entry, of iso7816.AID) bool {
	return sd.privileges.authorizedManagement() && (of == sd.aid || sd.privileges.globalDelete())
}

// uninstall asks the application to agree to its deletion. What can't be
// executed isn't asked.
func (c *Card) uninstall(e *entry) error {
	i, err := c.open(e)
	if err != nil {
		return nil
	}
	u, ok := i.app.(oncard.Uninstaller)
	if !ok {
		return nil
	}
	defer c.abortApplication()
	if err := u.Uninstall(); err != nil {
		if r := refuse(err); r.SW != iso7816.ErrUnknown {
			return r.SW
		}
		return iso7816.ErrConditions
	}
	return nil
}

// fields reads the LV coded data of INSTALL. The first error sticks.
type fields struct {
	rest []byte
	bad  bool
}

// end reports whether all was well-formed and nothing is left.
func (f *fields) end() bool { return !f.bad && len(f.rest) == 0 }

func (f *fields) take(n int) []byte {
	if f.bad || n > len(f.rest) {
		f.bad = true
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

// bytes reads a field with a length of one byte, up to 7F.
func (f *fields) bytes() []byte {
	l := f.take(1)
	if f.bad || l[0] > 0x7F {
		f.bad = true
		return nil
	}
	return f.take(int(l[0]))
}

// empty reads a field that must have the length 00.
func (f *fields) empty() {
	if len(f.bytes()) > 0 {
		f.bad = true
	}
}

// optionalAID reads an AID, or the zero AID from an empty field.
func (f *fields) optionalAID() iso7816.AID {
	b := f.bytes()
	if len(b) == 0 {
		return iso7816.AID{}
	}
	aid, err := iso7816.NewAID(b)
	if err != nil {
		f.bad = true
	}
	return aid
}

func (f *fields) aid() iso7816.AID {
	aid := f.optionalAID()
	if aid.IsZero() {
		f.bad = true
	}
	return aid
}

// long reads a field with a BER-TLV length of 1 to 3 bytes, where the length
// 128 may also be the single byte 80 (GPCS 11.5.2.3.1). A field length of 80
// would otherwise be no length at all, so there is no doubt.
func (f *fields) long() []byte {
	l := f.take(1)
	if f.bad {
		return nil
	}
	switch {
	case l[0] <= 0x80:
		return f.take(int(l[0]))
	case l[0] == 0x81:
		if l = f.take(1); f.bad || l[0] < 0x80 {
			f.bad = true
			return nil
		}
		return f.take(int(l[0]))
	case l[0] == 0x82:
		if l = f.take(2); f.bad || l[0] == 0 {
			f.bad = true
			return nil
		}
		return f.take(int(l[0])<<8 | int(l[1]))
	}
	f.bad = true
	return nil
}
