package emulator

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // GPCS table C-3 allows it beside keys of its time
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"slices"
	"sort"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// Reference control parameter P1 of INSTALL (GPCS table 11-41), and P2 of the
// combined form.
const (
	forLoad              = 0x02
	forInstall           = 0x04
	forMakeSelectable    = 0x08
	forInstallSelectable = forInstall | forMakeSelectable
	forAll               = forLoad | forInstallSelectable
	forExtradition       = 0x10
	forPersonalization   = 0x20
	forRegistryUpdate    = 0x40

	combinedBegin = 0x01
	combinedEnd   = 0x03
)

// confirmed is the response data of INSTALL, LOAD and DELETE: no confirmation.
func confirmed() iso7816.Response {
	return iso7816.Response{Data: []byte{0}, SW: iso7816.OK}
}

// install is INSTALL (GPCS 11.5).
func (c *Card) install(sd *entry, cmd iso7816.Command) iso7816.Response {
	r := &request{cmd: cmd, sd: sd, fields: fields{rest: cmd.Data}}
	if cmd.P1 == forAll {
		switch cmd.P2 {
		case combinedBegin:
			return c.installForLoad(r)
		case combinedEnd:
			return c.installLoaded(r)
		}
	}
	if cmd.P2 != 0 {
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	switch cmd.P1 {
	case forLoad:
		return c.installForLoad(r)
	case forInstall, forInstallSelectable:
		return c.installForInstall(r)
	case forMakeSelectable:
		return c.installForMakeSelectable(r)
	case forExtradition:
		return c.installForExtradition(r)
	case forRegistryUpdate:
		return c.installForRegistryUpdate(r)
	case forPersonalization:
		return c.installForPersonalization(sd, &r.fields)
	}
	return refuse(iso7816.ErrIncorrectP1P2)
}

// restriction is a set of functions that a Security Domain, or all of them, may
// not perform any more (GPCS table 11-53).
type restriction byte

const (
	noRegistryUpdate  restriction = 0x40
	noPersonalization restriction = 0x20
	noExtradition     restriction = 0x10
	noMakeSelectable  restriction = 0x08
	noInstall         restriction = 0x04
	noLoad            restriction = 0x02
	noDelete          restriction = 0x01
	restrictions      restriction = 0x7F
)

// manages reports whether a Security Domain may manage content in a way (GPCS
// 9.3 to 9.5).
func (c *Card) manages(sd *entry, all restriction) bool {
	return c.state.ready(sd) && (c.state.restricted|sd.domain.restricted)&all == 0 &&
		(sd.privileges.has(privAuthorizedManagement) || sd.privileges.has(privDelegatedManagement))
}

// accepts reports whether the Security Domain with the AID lets another one do
// something to what is associated with it: itself, and those above it.
func (c *Card) accepts(aid iso7816.AID, by *entry) bool {
	sd := c.state.domain(aid)
	return sd != nil && !sd.locked && c.state.below(aid, by)
}

// loading is a LOAD sequence: what was asked for and the blocks so far. It
// takes persistent memory, but power lost discards it.
type loading struct {
	aid            iso7816.AID
	securityDomain iso7816.AID
	hash           []byte
	permission     *permission
	combined       []byte // of the combined form: what its token is computed over so far
	block          byte   // number that the next LOAD must have
	full           bool   // block FF has come
	data           []byte
	file           *loadFile // of the combined form, once it is all there
}

// installForLoad is INSTALL [for load], and the beginning of the combined form
// (GPCS 11.5.2.3.1, 9.3.5, 9.3.8).
func (c *Card) installForLoad(r *request) iso7816.Response {
	aid, domain, hash := r.aid(), r.optionalAID(), r.bytes()
	parameters := r.long()
	r.token()
	combined := r.cmd.P1 == forAll
	if !r.end() || combined && len(r.presented) > 0 {
		return refuse(iso7816.ErrWrongData)
	}
	need, err := loadParameters(parameters)
	if err == nil {
		err = r.readReference(parameters)
	}
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	switch len(hash) {
	case 0, sha1.Size, sha256.Size, sha512.Size384, sha512.Size:
	default:
		return refuse(iso7816.ErrWrongData)
	}
	if domain.IsZero() {
		domain = r.sd.aid
	}
	what := noLoad
	if combined {
		what |= noInstall | noMakeSelectable
	}
	switch {
	case !c.manages(r.sd, what) || c.state.taken(aid):
		return refuse(iso7816.ErrConditions)
	case c.state.domain(domain) == nil:
		return refuse(iso7816.ErrDataNotFound)
	case !c.mayReceive(c.state.domain(domain), r.sd):
		return refuse(iso7816.ErrConditions)
	}
	l := &loading{aid: aid, securityDomain: domain, hash: hash}
	if combined {
		l.combined = r.signed()
	} else if l.permission, err = c.authorize(r); err != nil {
		return refuse(err)
	}
	if l.permission != nil && !l.permission.covers(hash) {
		return refuse(iso7816.ErrWrongData)
	}
	if err := c.reserve(fileOverhead + need); err != nil {
		return refuse(err)
	}
	c.at.loading = l
	return confirmed()
}

// mayReceive reports whether a load file can be loaded for a Security Domain by
// another: by itself, or by one above it.
func (c *Card) mayReceive(sd, by *entry) bool {
	return c.state.ready(sd) && (sd == by || c.accepts(sd.aid, by))
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
func (c *Card) load(sd *entry, cmd iso7816.Command) iso7816.Response {
	l := c.at.loading
	if l == nil || l.file != nil {
		return refuse(iso7816.ErrConditions)
	}
	c.at.loading = nil
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
		r, err := c.loaded(sd, l)
		if err != nil {
			return refuse(err)
		}
		return r
	}
	l.full = l.block == 0xFF
	l.block++
	c.at.loading = l
	return confirmed()
}

// loaded completes the load process (GPCS 9.3.5). The combined form goes on
// with its last INSTALL.
func (c *Card) loaded(sd *entry, l *loading) (iso7816.Response, error) {
	// A Load File with DAP blocks and a ciphered one need a hash (C.2).
	content, err := globalplatform.ParseLoadFile(l.data)
	if err != nil || (len(content.DAPs) > 0 || content.Ciphered) && len(l.hash) == 0 {
		return iso7816.Response{}, iso7816.ErrWrongData
	}
	data, err := c.deciphered(l, content)
	if err != nil {
		return iso7816.Response{}, err
	}
	if len(l.hash) > 0 && subtle.ConstantTimeCompare(l.hash, hashOf(data, len(l.hash))) != 1 {
		return iso7816.Response{}, iso7816.ErrWrongData
	}
	if err := c.verifyDAPs(l, content.DAPs); err != nil {
		return iso7816.Response{}, err
	}
	f := &loadFile{aid: l.aid, securityDomain: l.securityDomain, data: bytes.Clone(data)}
	if l.combined != nil {
		// Whether it is accepted is said now; what linking it wrote is taken
		// back until the last INSTALL.
		var refused error
		_ = c.system(func() error {
			refused = c.accept(f)
			return errTried
		})
		if refused != nil {
			return iso7816.Response{}, refused
		}
		l.data, l.file = l.data[:0], f
		c.at.loading = l
		return confirmed(), nil
	}
	var confirmation []byte
	err = c.system(func() error {
		if err := c.register(sd, f, noLoad); err != nil {
			return err
		}
		var err error
		confirmation, err = c.confirm(l.permission, f.aid.Bytes(), f.securityDomain.Bytes())
		return err
	})
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}, err
}

// deciphered is the load file data block in the clear (GPCS C.6). The load
// file's Security Domain says whether it comes ciphered; its key missing, or a
// block in the clear, is 6982.
func (c *Card) deciphered(l *loading, content globalplatform.LoadFileContent) ([]byte, error) {
	sd := c.state.domain(l.securityDomain)
	if sd == nil {
		return nil, iso7816.ErrConditions // deleted since
	}
	if !sd.privileges.has(privCiphered) {
		if content.Ciphered {
			return nil, iso7816.ErrWrongData
		}
		return content.DataBlock, nil
	}
	k, ok := sd.domain.loadFileKey()
	if !ok || !content.Ciphered {
		return nil, iso7816.ErrSecurityStatus
	}
	if len(l.hash) < k.LeastHash() {
		return nil, iso7816.ErrWrongData // C.2
	}
	k.ICV = content.ICV
	data, err := k.Decrypt(content.DataBlock)
	if err != nil {
		return nil, iso7816.ErrWrongData
	}
	return data, nil
}

// errTried ends a transaction that was only a trial.
var errTried = errors.New("taken back")

// accept links a load file and looks whether there is room for it. A runtime
// may write while it links, so it is part of a transaction of the card's.
func (c *Card) accept(f *loadFile) (err error) {
	if f.linked, err = c.link(f.aid, f.data); err != nil {
		if errors.Is(err, iso7816.ErrNoMemory) {
			return iso7816.ErrNoMemory
		}
		return iso7816.ErrWrongData
	}
	if err := f.describe(); err != nil {
		return err
	}
	return c.reserve(f.size())
}

// register adds a load file to the registry. On another logical channel much
// may have happened since it was asked for.
func (c *Card) register(sd *entry, f *loadFile, what restriction) error {
	to := c.state.domain(f.securityDomain)
	if !c.manages(sd, what) || c.state.taken(f.aid) || to == nil || !c.mayReceive(to, sd) {
		return iso7816.ErrConditions
	}
	if err := c.accept(f); err != nil {
		return err
	}
	old := c.state.files
	c.change(
		func() { c.state.files = append(slices.Clone(old), f) },
		func() { c.state.files = old },
	)
	return nil
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

func hashOf(data []byte, size int) []byte {
	switch size {
	case sha1.Size:
		h := sha1.Sum(data)
		return h[:]
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

// installation is what INSTALL [for install] asks for.
type installation struct {
	file       *loadFile
	module     iso7816.AID
	aid        iso7816.AID
	rights     []byte // as in the command
	privileges privileges
	parameters installParameters
	selectable bool
}

// readInstallation reads INSTALL [for install] (GPCS 11.5.2.3.2).
func (c *Card) readInstallation(r *request) (file iso7816.AID, i installation, err error) {
	file, i.module, i.aid = r.optionalAID(), r.optionalAID(), r.aid()
	i.rights = r.bytes()
	parameters := r.long()
	r.token()
	i.selectable = r.cmd.P1&forMakeSelectable != 0
	if !r.end() || i.module.IsZero() {
		return file, i, iso7816.ErrWrongData
	}
	if i.privileges, err = parsePrivileges(i.rights); err == nil {
		err = i.privileges.check()
	}
	if err == nil {
		i.parameters, err = parseInstallParameters(parameters)
	}
	if err == nil {
		err = r.readReference(parameters)
	}
	if err != nil {
		return file, i, iso7816.ErrWrongData
	}
	if !i.selectable && (i.privileges.has(privCardReset) || len(i.parameters.implicit) > 0) {
		return file, i, iso7816.ErrWrongData
	}
	if len(i.parameters.services) > 0 && !i.privileges.has(privGlobalService) {
		return file, i, iso7816.ErrWrongData
	}
	return file, i, nil
}

// installForInstall is INSTALL [for install], with or without [for make
// selectable] (GPCS 11.5.2.3.2, 9.3.6).
func (c *Card) installForInstall(r *request) iso7816.Response {
	file, i, err := c.readInstallation(r)
	if err != nil || file.IsZero() {
		return refuse(iso7816.ErrWrongData)
	}
	i.file = c.state.file(file)
	switch {
	case i.file == nil || !slices.Contains(i.file.modules, i.module):
		return refuse(iso7816.ErrDataNotFound)
	case !c.accepts(i.file.securityDomain, r.sd):
		return refuse(iso7816.ErrConditions)
	}
	if err := c.installable(r.sd, i); err != nil {
		return refuse(err)
	}
	p, err := c.authorize(r)
	if err != nil {
		return refuse(err)
	}
	var confirmation []byte
	err = c.installing(i, func() error {
		var err error
		confirmation, err = c.confirm(p, i.file.aid.Bytes(), i.aid.Bytes())
		return err
	})
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}
}

// installLoaded is the end of the combined form (GPCS 9.3.8): the load file
// comes into being with its application, or neither does.
func (c *Card) installLoaded(r *request) iso7816.Response {
	l := c.at.loading
	c.at.loading = nil
	if l == nil || l.file == nil {
		return refuse(iso7816.ErrConditions)
	}
	file, i, err := c.readInstallation(r)
	if err != nil || !file.IsZero() && file != l.aid {
		return refuse(iso7816.ErrWrongData)
	}
	i.file = l.file
	if !slices.Contains(i.file.modules, i.module) {
		return refuse(iso7816.ErrDataNotFound)
	}
	if i.aid == l.aid {
		return refuse(iso7816.ErrConditions)
	}
	if err := c.installable(r.sd, i); err != nil {
		return refuse(err)
	}
	r.before = l.combined
	p, err := c.authorize(r)
	if err != nil {
		return refuse(err)
	}
	if !p.covers(l.hash) {
		return refuse(iso7816.ErrWrongData)
	}
	var confirmation []byte
	err = c.system(func() error {
		if err := c.register(r.sd, l.file, noLoad|noInstall|noMakeSelectable); err != nil {
			return err
		}
		if err := c.create(i); err != nil {
			return err
		}
		var err error
		confirmation, err = c.confirm(p, i.file.aid.Bytes(), i.aid.Bytes(), i.file.securityDomain.Bytes())
		return err
	})
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}
}

// installable holds an installation to the rules that do not depend on the
// load file's Security Domain.
func (c *Card) installable(sd *entry, i installation) error {
	what := noInstall
	if i.selectable {
		what |= noMakeSelectable
	}
	isDomain := i.file.own && i.module == domainModule
	switch {
	case !c.manages(sd, what) || c.state.taken(i.aid):
		return iso7816.ErrConditions
	case !isDomain && i.file.linked[i.module] == nil:
		return iso7816.ErrFuncNotSupported
	case i.privileges.securityDomain() != isDomain:
		return iso7816.ErrWrongData
	case !c.mayAssign(sd, i.privileges) || !c.state.assignable(i.privileges, nil) || !c.state.implicitFree(i.parameters.implicit, nil):
		return iso7816.ErrConditions
	}
	if isDomain {
		if _, err := c.domainProtocol(i.parameters.specific); err != nil {
			return err
		}
	}
	return c.reserve(entryOverhead)
}

// mayAssign reports whether a Security Domain may give privileges away. GPCS
// leaves it to policies; this card's is that the issuer may, that a token says
// so itself, and that who manages his own content may give nobody power over
// the whole card that he doesn't have.
func (c *Card) mayAssign(sd *entry, p privileges) bool {
	if sd == c.state.issuer() || sd.privileges.has(privDelegatedManagement) {
		return true
	}
	for _, q := range []privilege{
		privCardLock, privCardTerminate, privCardReset, privCVMManagement, privMandatedDAP,
		privGlobalDelete, privGlobalLock, privGlobalRegistry, privFinalApplication, privContactlessActivation,
	} {
		if p.has(q) && !sd.privileges.has(q) {
			return false
		}
	}
	return true
}

// installing installs in a transaction of its own, in which after runs too.
func (c *Card) installing(i installation, after func() error) error {
	return c.system(func() error {
		if err := c.create(i); err != nil {
			return err
		}
		return after()
	})
}

// create installs an application, as part of the card's transaction.
func (c *Card) create(i installation) error {
	e := &entry{
		aid: i.aid, file: i.file.aid, module: i.module,
		securityDomain: i.file.securityDomain, // 9.3.6: inherited from the load file
		lifeCycle:      oncard.Installed,
	}
	module := i.file.linked[i.module]
	if i.privileges.securityDomain() {
		protocol, err := c.domainProtocol(i.parameters.specific)
		if err != nil {
			return err
		}
		e.domain = &domain{protocol: protocol}
		e.privileges = privileges{}.with(privSecurityDomain)
	}
	old := c.state.entries
	c.change(
		func() { c.state.entries = append(slices.Clone(old), e) },
		func() { c.state.entries = old },
	)
	if e.domain == nil {
		running, err := c.instantiate(e, module, oncard.InstallParameters{
			Privileges: bytes.Clone(i.rights), Specific: bytes.Clone(i.parameters.specific),
		})
		if err != nil {
			return err
		}
		c.session.running[e] = running
		c.tx.record(undoFunc(func() { delete(c.session.running, e) }))
	}
	c.assign(e, i.privileges)
	if len(i.parameters.services) > 0 {
		c.update(e, func(e *entry) { e.services = i.parameters.services })
	}
	if i.selectable {
		c.update(e, func(e *entry) { e.lifeCycle, e.implicit = oncard.Selectable, i.parameters.implicit })
	}
	return nil
}

// domainProtocol is the secure channel protocol of a Security Domain that is
// being installed: what tag 81 of its parameters says (two bytes, protocol and
// "i", as the UICC Configuration has it), or the Issuer Security Domain's. Of
// SCP02, i = 00 is no option set of this card's, and what hosts say that can't
// know it, GlobalPlatformPro among them: then it is the Issuer Security Domain's too.
func (c *Card) domainProtocol(specific []byte) (scp.Protocol, error) {
	p := c.state.issuer().domain.protocol
	objects, err := iso7816.ParseTLVs(specific)
	if err != nil {
		return p, iso7816.ErrWrongData
	}
	if t, ok := iso7816.Find(objects, 0x81); ok {
		if len(t.Value) != 2 {
			return p, iso7816.ErrWrongData
		}
		asked := scp.Protocol{Number: t.Value[0], I: t.Value[1]}
		if asked == (scp.Protocol{Number: 2}) && p.Number == 2 {
			return p, nil
		}
		if p = asked; !p.Valid() {
			return p, iso7816.ErrWrongData
		}
	}
	return p, nil
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

// installParameters are the parameters of INSTALL [for install] that this card
// looks at.
type installParameters struct {
	specific []byte   // application specific, tag C9
	implicit []byte   // implicit selection parameters, tag CF
	services services // Global Service Parameters, tag CB
}

// parseInstallParameters reads the Install Parameters (GPCS table 11-49).
// Other system specific parameters are read over, as 11.5.2.3.7 allows.
func parseInstallParameters(b []byte) (p installParameters, err error) {
	objects, err := iso7816.ParseTLVs(b)
	if err != nil {
		return p, err
	}
	found := 0
	for _, t := range objects {
		switch t.Tag {
		case 0xC9:
			p.specific = t.Value
			found++
		case 0xEF:
			s, err := systemParameters(t)
			if err != nil {
				return p, err
			}
			p.implicit, p.services = s.implicit, s.services
		case 0xEA, 0xB6:
			if _, err := t.Children(); err != nil {
				return p, err
			}
		default:
			return p, iso7816.ErrWrongData
		}
	}
	if found != 1 {
		return p, iso7816.ErrWrongData
	}
	return p, nil
}

// system parameters of INSTALL (GPCS tables 11-49, 11-50, 11-52) that this
// card looks at.
type system struct {
	implicit   []byte
	services   services
	restricted *restriction
}

// systemParameters reads a template EF.
func systemParameters(t iso7816.TLV) (s system, err error) {
	children, err := t.Children()
	if err != nil {
		return s, err
	}
	for _, t := range children {
		switch t.Tag {
		case 0xCF:
			if len(t.Value) != 1 || t.Value[0]&0x20 != 0 || int(t.Value[0]&0x1F) >= maxChannels {
				return s, iso7816.ErrWrongData
			}
			s.implicit = append(s.implicit, t.Value[0])
		case 0xCB:
			if s.services != nil {
				return s, iso7816.ErrWrongData
			}
			if s.services, err = parseServices(t.Value); err != nil {
				return s, err
			}
		case 0xD9:
			if len(t.Value) != 1 || restriction(t.Value[0])&^restrictions != 0 {
				return s, iso7816.ErrWrongData
			}
			r := restriction(t.Value[0])
			s.restricted = &r
		}
	}
	return s, nil
}

// parseUpdateParameters reads the parameters of INSTALL [for make selectable],
// [for extradition] and [for registry update] (GPCS tables 11-50 to 11-52).
func parseUpdateParameters(b []byte) (s system, err error) {
	objects, err := iso7816.ParseTLVs(b)
	if err != nil {
		return s, err
	}
	for _, t := range objects {
		switch t.Tag {
		case 0xEF:
			if s, err = systemParameters(t); err != nil {
				return s, err
			}
		case 0xB6:
			if _, err := t.Children(); err != nil {
				return s, err
			}
		default:
			return s, iso7816.ErrWrongData
		}
	}
	return s, nil
}

// implicitFree reports whether an entry, nil for a new one, may become
// implicitly selectable: no other but the Issuer Security Domain is (GPCS
// 6.4.1).
func (s *state) implicitFree(parameters []byte, e *entry) bool {
	for _, b := range parameters {
		for _, o := range s.entries {
			if o == e {
				continue
			}
			for _, taken := range o.implicit {
				if taken&0x1F == b&0x1F && taken&b&0xC0 != 0 {
					return false
				}
			}
		}
	}
	return true
}

// installForMakeSelectable is INSTALL [for make selectable] (GPCS 11.5.2.3.3,
// 9.3.7). Of the privileges only Card Reset counts. An application that is
// selectable already can be given that, or implicit selection.
func (c *Card) installForMakeSelectable(r *request) iso7816.Response {
	r.empty()
	r.empty()
	aid := r.aid()
	rights := r.bytes()
	parameters := r.long()
	r.token()
	if !r.end() {
		return refuse(iso7816.ErrWrongData)
	}
	p, err := parsePrivileges(rights)
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	s, err := parseUpdateParameters(parameters)
	if err == nil {
		err = r.readReference(parameters)
	}
	if err != nil || s.restricted != nil || s.services != nil {
		return refuse(iso7816.ErrWrongData)
	}
	e := c.state.entry(aid)
	if e == nil {
		return refuse(iso7816.ErrDataNotFound)
	}
	wanted := e.privileges
	if p.has(privCardReset) {
		wanted = wanted.with(privCardReset)
	}
	switch {
	case e.own || e.locked || !c.manages(r.sd, noMakeSelectable) || !c.accepts(e.securityDomain, r.sd):
		return refuse(iso7816.ErrConditions)
	case e.lifeCycle != oncard.Installed && wanted == e.privileges && len(s.implicit) == 0:
		return refuse(iso7816.ErrConditions)
	case !c.mayAssign(r.sd, wanted) || !c.state.assignable(wanted, e) || !c.state.implicitFree(s.implicit, e):
		return refuse(iso7816.ErrConditions)
	}
	allowed, err := c.authorize(r)
	if err != nil {
		return refuse(err)
	}
	var confirmation []byte
	err = c.system(func() error {
		c.assign(e, wanted)
		c.update(e, func(e *entry) {
			e.lifeCycle = max(e.lifeCycle, oncard.Selectable)
			e.implicit = append(slices.Clone(e.implicit), s.implicit...)
		})
		var err error
		confirmation, err = c.confirm(allowed, e.file.Bytes(), e.aid.Bytes())
		return err
	})
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}
}

// delete is DELETE (GPCS 11.2).
func (c *Card) delete(sd *entry, cmd iso7816.Command) iso7816.Response {
	if cmd.P1 != 0 || cmd.P2&0x7F != 0 {
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	objects, err := iso7816.ParseTLVs(cmd.Data)
	if err != nil || len(objects) == 0 {
		return refuse(iso7816.ErrWrongData)
	}
	if objects[0].Tag == 0xD0 || objects[0].Tag == 0xD2 {
		return c.deleteKey(sd, objects)
	}
	return c.deleteContent(sd, cmd, objects)
}

// deleteContent is DELETE [card content] (GPCS 11.2.2.3.1, 9.5): an
// application, or a load file, which with P2 = 80 takes its applications with
// it.
func (c *Card) deleteContent(sd *entry, cmd iso7816.Command, objects []iso7816.TLV) iso7816.Response {
	if objects[0].Tag != tagAID {
		return refuse(iso7816.ErrWrongData)
	}
	aid, err := iso7816.NewAID(objects[0].Value)
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	r := &request{cmd: cmd, sd: sd, length: len(cmd.Data)}
	for i, t := range objects[1:] {
		switch {
		case t.Tag == 0xB6 && i == 0:
			err = r.readReference(t.Encode())
		case t.Tag == 0x9E && i == len(objects)-2:
			r.presented = t.Value
			r.length -= len(t.Encode())
		default:
			err = iso7816.ErrWrongData
		}
		if err != nil {
			return refuse(iso7816.ErrWrongData)
		}
	}
	file, e := c.state.file(aid), c.state.entry(aid)
	var doomed []*entry
	switch {
	case file != nil:
		doomed = c.state.instances(aid)
		if file.own || len(doomed) > 0 && cmd.P2&0x80 == 0 || !c.mayDelete(sd, file.securityDomain) {
			return refuse(iso7816.ErrConditions)
		}
	case e != nil:
		doomed = []*entry{e}
	default:
		return refuse(iso7816.ErrDataNotFound)
	}
	for _, e := range doomed {
		if e.own || !c.mayDelete(sd, e.securityDomain) || c.selectedAnywhere(e) || c.state.serves(e, doomed) {
			return refuse(iso7816.ErrConditions)
		}
	}
	if !c.manages(sd, noDelete) {
		return refuse(iso7816.ErrConditions)
	}
	p, err := c.authorize(r)
	if err != nil {
		return refuse(err)
	}
	var confirmation []byte
	err = c.system(func() error {
		for _, e := range doomed {
			if err := c.uninstall(e, file != nil); err != nil {
				return err
			}
		}
		for _, e := range doomed {
			c.remove(e)
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
		var err error
		confirmation, err = c.confirm(p, aid.Bytes())
		return err
	})
	if err != nil {
		return refuse(err)
	}
	for _, e := range doomed {
		delete(c.session.running, e)
	}
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}
}

// remove takes an entry out of the registry. What only one application has goes
// back to the Issuer Security Domain.
func (c *Card) remove(e *entry) {
	for _, q := range single {
		if e.privileges.has(q) {
			c.update(c.state.issuer(), func(e *entry) { e.privileges = e.privileges.with(q) })
		}
	}
	old := c.state.entries
	c.change(
		func() { c.state.entries = slices.DeleteFunc(slices.Clone(old), func(x *entry) bool { return x == e }) },
		func() { c.state.entries = old },
	)
}

// serves reports whether an entry is a Security Domain with which something is
// associated that is not going away with it.
func (s *state) serves(e *entry, going []*entry) bool {
	if e.domain == nil {
		return false
	}
	return slices.ContainsFunc(s.files, func(f *loadFile) bool { return f.securityDomain == e.aid }) ||
		slices.ContainsFunc(s.entries, func(o *entry) bool { return o != e && o.securityDomain == e.aid && !slices.Contains(going, o) })
}

// mayDelete reports whether a Security Domain may delete what is associated
// with another (GPCS 9.5.1).
func (c *Card) mayDelete(sd *entry, of iso7816.AID) bool {
	return of == sd.aid || sd.privileges.has(privGlobalDelete) || c.accepts(of, sd)
}

// uninstall asks the application to agree to its deletion. What can't be
// executed isn't asked.
func (c *Card) uninstall(e *entry, withFile bool) error {
	i, err := c.open(e)
	if err != nil {
		return nil
	}
	u, ok := i.app.(oncard.Uninstaller)
	if !ok {
		return nil
	}
	defer c.abortApplication()
	if err := u.Uninstall(withFile); err != nil {
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
