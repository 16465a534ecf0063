package emulator

import (
	"slices"

	"github.com/freearea/freearea/iso7816"
)

// installForExtradition is INSTALL [for extradition] (GPCS 11.5.2.3.4, 9.4.1):
// an application or a load file goes to another Security Domain.
func (c *Card) installForExtradition(r *request) iso7816.Response {
	to := r.aid()
	r.empty()
	aid := r.aid()
	r.empty()
	parameters := r.long()
	r.token()
	if !r.end() {
		return refuse(iso7816.ErrWrongData)
	}
	s, err := parseUpdateParameters(parameters)
	if err == nil {
		err = r.readReference(parameters)
	}
	if err != nil || s.implicit != nil || s.services != nil || s.restricted != nil {
		return refuse(iso7816.ErrWrongData)
	}
	file, e, target := c.state.file(aid), c.state.entry(aid), c.state.domain(to)
	if file == nil && e == nil || target == nil {
		return refuse(iso7816.ErrDataNotFound)
	}
	var from iso7816.AID
	switch {
	case !c.manages(r.sd, noExtradition):
		return refuse(iso7816.ErrConditions)
	case e != nil:
		from = e.securityDomain
		if e.own || !c.mayExtradite(r.sd, e, target) {
			return refuse(iso7816.ErrConditions)
		}
	default:
		from = file.securityDomain
		// What a Security Domain wants verified or ciphered can't come without.
		guarded := target.privileges.has(privDAPVerification) || target.privileges.has(privCiphered)
		if file.own || from == to || !c.accepts(from, r.sd) || !c.state.ready(target) || guarded {
			return refuse(iso7816.ErrConditions)
		}
	}
	p, err := c.authorize(r)
	if err != nil {
		return refuse(err)
	}
	var confirmation []byte
	err = c.system(func() error {
		if e != nil {
			c.update(e, func(e *entry) { e.securityDomain = to })
		} else {
			c.change(func() { file.securityDomain = to }, func() { file.securityDomain = from })
		}
		var err error
		confirmation, err = c.confirm(p, from.Bytes(), aid.Bytes(), to.Bytes())
		return err
	})
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}
}

// mayExtradite reports whether an application may go to a Security Domain:
// the one that it leaves lets it, the one that it comes to can serve, and no
// Security Domain ends below itself except as the root of its own hierarchy,
// for which it must have keys.
func (c *Card) mayExtradite(by, e, to *entry) bool {
	if e.securityDomain == to.aid || !c.accepts(e.securityDomain, by) || !c.state.ready(to) {
		return false
	}
	if e.domain == nil {
		return true
	}
	if to == e {
		_, ok := e.domain.set(0)
		return ok
	}
	return !c.state.below(to.aid, e)
}

// installForRegistryUpdate is INSTALL [for registry update] (GPCS 11.5.2.3.5,
// 9.4.2): privileges, implicit selection and restrictions of an application,
// and extradition with them; or restrictions of the whole card.
func (c *Card) installForRegistryUpdate(r *request) iso7816.Response {
	to := r.optionalAID()
	r.empty()
	aid := r.optionalAID()
	rights := r.bytes()
	parameters := r.long()
	r.token()
	if !r.end() {
		return refuse(iso7816.ErrWrongData)
	}
	s, err := parseUpdateParameters(parameters)
	if err == nil {
		err = r.readReference(parameters)
	}
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	if aid.IsZero() {
		if !to.IsZero() || len(rights) > 0 || len(s.implicit) > 0 || s.services != nil || s.restricted == nil {
			return refuse(iso7816.ErrWrongData)
		}
		return c.restrictCard(r, parameters, *s.restricted)
	}
	e := c.state.entry(aid)
	if e == nil {
		return refuse(iso7816.ErrDataNotFound)
	}
	wanted := e.privileges
	if len(rights) > 0 {
		if wanted, err = parsePrivileges(rights); err == nil {
			err = wanted.check()
		}
		if err != nil || wanted.securityDomain() != (e.domain != nil) {
			return refuse(iso7816.ErrWrongData)
		}
	}
	nothing := to.IsZero() && len(rights) == 0 && len(s.implicit) == 0 && s.services == nil && s.restricted == nil
	if nothing || s.restricted != nil && e.domain == nil || s.services != nil && !wanted.has(privGlobalService) {
		return refuse(iso7816.ErrWrongData)
	}
	var target *entry
	if !to.IsZero() {
		if target = c.state.domain(to); target == nil {
			return refuse(iso7816.ErrDataNotFound)
		}
	}
	what := noRegistryUpdate
	if target != nil {
		what |= noExtradition
	}
	switch {
	case e.own || e == r.sd || !c.manages(r.sd, what) || !c.accepts(e.securityDomain, r.sd):
		return refuse(iso7816.ErrConditions)
	case target != nil && !c.mayExtradite(r.sd, e, target):
		return refuse(iso7816.ErrConditions)
	case !c.mayAssign(r.sd, wanted) || !c.state.assignable(wanted, e) || !c.state.implicitFree(s.implicit, e):
		return refuse(iso7816.ErrConditions)
	case s.services != nil && !(&entry{privileges: wanted, services: s.services, registered: e.registered}).mayServe():
		return refuse(iso7816.ErrConditions) // it has registered others
	}
	p, err := c.authorize(r)
	if err != nil {
		return refuse(err)
	}
	from := iso7816.AID{}
	if target != nil {
		from = e.securityDomain
	}
	var confirmation []byte
	err = c.system(func() error {
		c.assign(e, wanted)
		c.update(e, func(e *entry) {
			e.implicit = append(slices.Clone(e.implicit), s.implicit...)
			if s.services != nil {
				e.services = s.services
			}
			if target != nil {
				e.securityDomain = to
			}
		})
		if s.restricted != nil {
			c.updateDomain(e, func(d *domain) { d.restricted = *s.restricted })
		}
		var err error
		confirmation, err = c.confirmData(p, registryReceipt(from, aid, to, rights, parameters))
		return err
	})
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}
}

// restrictCard takes functions from every Security Domain, for good.
func (c *Card) restrictCard(r *request, parameters []byte, all restriction) iso7816.Response {
	if !c.manages(r.sd, noRegistryUpdate) || !r.sd.privileges.has(privGlobalLock) {
		return refuse(iso7816.ErrConditions)
	}
	p, err := c.authorize(r)
	if err != nil {
		return refuse(err)
	}
	var confirmation []byte
	err = c.system(func() error {
		old := c.state.restricted
		c.change(func() { c.state.restricted |= all }, func() { c.state.restricted = old })
		var err error
		confirmation, err = c.confirmData(p, registryReceipt(iso7816.AID{}, iso7816.AID{}, iso7816.AID{}, nil, parameters))
		return err
	})
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: confirmation, SW: iso7816.OK}
}

// registryReceipt is what a Registry Update Receipt covers besides the
// confirmation data (GPCS table C-14).
func registryReceipt(from, aid, to iso7816.AID, rights, parameters []byte) []byte {
	var b []byte
	for _, f := range [][]byte{from.Bytes(), aid.Bytes(), to.Bytes(), rights} {
		b = append(append(b, byte(len(f))), f...)
	}
	return append(b, berLV(parameters)...)
}
