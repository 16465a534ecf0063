package emulator

import (
	"slices"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// Life cycle states of the card (GPCS table 11-6).
const (
	cardOPReady     = 0x01
	cardInitialized = 0x07
	cardSecured     = 0x0F
	cardLocked      = 0x7F
	cardTerminated  = 0xFF
)

// cardLocked reports whether the card is locked, be it for good.
func (s *state) cardLocked() bool { return s.issuer().lifeCycle >= cardLocked }

// Status types of SET STATUS (GPCS table 11-86).
const (
	statusCard        = 0x80
	statusApplication = 0x40
	statusHierarchy   = 0x60
)

// setStatus is SET STATUS (GPCS 11.10).
func (c *Card) setStatus(sd *entry, cmd iso7816.Command) iso7816.Response {
	kind := cmd.P1 & 0xE0
	if kind == statusCard {
		return c.setCardStatus(sd, cmd.P2)
	}
	if kind != statusApplication && kind != statusHierarchy {
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	aid, err := iso7816.NewAID(cmd.Data)
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	e := c.state.entry(aid)
	switch {
	case e == nil:
		return refuse(iso7816.ErrDataNotFound)
	case e.own:
		return refuse(iso7816.ErrConditions)
	case kind == statusHierarchy:
		return c.setHierarchyStatus(sd, e, cmd.P2&0x80 != 0)
	case e == sd && cmd.P2 == domainPersonalized:
		return c.personalized(sd)
	}
	lock := cmd.P2&0x80 != 0
	if e.locked == lock || !c.mayLock(sd, e, lock) {
		return refuse(iso7816.ErrConditions)
	}
	c.update(e, func(e *entry) { e.locked = lock })
	return iso7816.Response{SW: iso7816.OK}
}

// mayLock reports whether a Security Domain may lock or unlock an application
// (GPCS 9.6.2).
func (c *Card) mayLock(sd, e *entry, lock bool) bool {
	switch {
	case e.privileges.has(privFinalApplication):
		return false
	case e == sd:
		return lock
	}
	return sd.privileges.has(privGlobalLock) || c.state.below(e.securityDomain, sd)
}

// personalized is a Security Domain that sets its own state to PERSONALIZED
// (GPCS 5.3.2.3). It must have a key: otherwise there is nothing that others
// could be associated with.
func (c *Card) personalized(sd *entry) iso7816.Response {
	if sd.lifeCycle != oncard.Selectable || len(sd.domain.keys) == 0 {
		return refuse(iso7816.ErrConditions)
	}
	c.update(sd, func(e *entry) { e.lifeCycle = domainPersonalized })
	return iso7816.Response{SW: iso7816.OK}
}

// setHierarchyStatus locks or unlocks a Security Domain and everything in its
// sub-hierarchy. What is in that state already stays in it.
func (c *Card) setHierarchyStatus(sd, root *entry, lock bool) iso7816.Response {
	if root.domain == nil {
		return refuse(iso7816.ErrDataNotFound)
	}
	var all []*entry
	for _, e := range c.state.entries {
		if e == root || c.state.below(e.securityDomain, root) {
			all = append(all, e)
		}
	}
	if slices.ContainsFunc(all, func(e *entry) bool { return e.own || !c.mayLock(sd, e, lock) }) {
		return refuse(iso7816.ErrConditions)
	}
	err := c.system(func() error {
		for _, e := range all {
			if e.locked != lock {
				c.update(e, func(e *entry) { e.locked = lock })
			}
		}
		return nil
	})
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{SW: iso7816.OK}
}

// setCardStatus makes a transition of the card's life cycle (GPCS 5.1.2,
// 9.6.3, 9.6.4).
func (c *Card) setCardStatus(sd *entry, to byte) iso7816.Response {
	issuer := c.state.issuer()
	from := issuer.lifeCycle
	allowed := false
	switch to {
	case cardInitialized:
		allowed = sd == issuer && from == cardOPReady
	case cardSecured:
		allowed = sd == issuer && from == cardInitialized || from == cardLocked && sd.privileges.has(privCardLock)
	case cardLocked:
		allowed = from == cardSecured && sd.privileges.has(privCardLock)
	case cardTerminated:
		allowed = from != cardTerminated && sd.privileges.has(privCardTerminate)
	case cardOPReady:
	default:
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	if !allowed {
		return refuse(iso7816.ErrConditions)
	}
	c.update(issuer, func(e *entry) { e.lifeCycle = to })
	return iso7816.Response{SW: iso7816.OK}
}
