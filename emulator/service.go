package emulator

import (
	"bytes"
	"slices"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// services are the names of Global Services (GPCS 8.1.3): of each the family,
// and the identifier or 00 for the family.
type services []uint16

// maxServices bounds the service names of an application.
const maxServices = 32

// parseServices reads Global Service Parameters (tag CB).
func parseServices(b []byte) (services, error) {
	if len(b) == 0 || len(b)%2 != 0 || len(b) > 2*maxServices {
		return nil, iso7816.ErrWrongData
	}
	var out services
	for ; len(b) > 0; b = b[2:] {
		name := uint16(b[0])<<8 | uint16(b[1])
		if !serviceName(name) || slices.Contains(out, name) {
			return nil, iso7816.ErrWrongData
		}
		out = append(out, name)
	}
	return out, nil
}

func (s services) bytes() []byte {
	var out []byte
	for _, name := range s {
		out = append(out, byte(name>>8), byte(name))
	}
	return out
}

// serviceName reports whether a name is of a family that there can be.
func serviceName(name uint16) bool { return name>>8 != 0x80 && name>>8 != 0xFF }

// family is the name that stands for the whole family.
func family(name uint16) uint16 { return name & 0xFF00 }

// offers reports whether names include one: it itself, or its family.
func (s services) offers(name uint16) bool {
	return slices.Contains(s, name) || slices.Contains(s, family(name))
}

// answers reports whether one of the names is what is asked for: the identifier
// 00 asks for any of the family.
func (s services) answers(name uint16) bool {
	return s.offers(name) ||
		family(name) == name && slices.ContainsFunc(s, func(n uint16) bool { return family(n) == name })
}

// mayServe holds the service names of an application to its privileges, and
// what it has registered to the names.
func (e *entry) mayServe() bool {
	if !e.privileges.has(privGlobalService) {
		return len(e.services) == 0 && len(e.registered) == 0
	}
	return len(e.services) == 0 || !slices.ContainsFunc(e.registered, func(name uint16) bool { return !e.services.offers(name) })
}

func (i *instance) RegisterService(name uint16) error {
	c, e := i.card, i.entry
	switch {
	case !e.privileges.has(privGlobalService) || !serviceName(name) || len(e.services) > 0 && !e.services.offers(name):
		return iso7816.ErrConditions
	case name == oncard.ServiceGlobalPIN:
		return iso7816.ErrConditions // the card's own
	case slices.Contains(e.registered, name):
		return nil
	case len(e.registered) >= maxServices:
		return iso7816.ErrNoMemory
	}
	for _, o := range c.state.entries {
		if slices.Contains(o.registered, name) {
			return iso7816.ErrConditions
		}
	}
	return i.setRegistered(append(slices.Clone(e.registered), name))
}

func (i *instance) DeregisterService(name uint16) error {
	k := slices.Index(i.entry.registered, name)
	if k < 0 {
		return iso7816.ErrConditions
	}
	return i.setRegistered(slices.Delete(slices.Clone(i.entry.registered), k, k+1))
}

func (i *instance) setRegistered(names services) error {
	c, e := i.card, i.entry
	if err := c.tx.capacity(2, c.state.profile.CommitCapacity); err != nil {
		return err
	}
	old := e.registered
	c.change(func() { e.registered = names }, func() { e.registered = old })
	return nil
}

func (i *instance) Service(provider iso7816.AID, name uint16) (iso7816.AID, bool) {
	s := i.card.state
	if !serviceName(name) {
		return iso7816.AID{}, false
	}
	own := provider.IsZero() || provider == s.issuer().aid
	if own && (services{oncard.ServiceGlobalPIN}).answers(name) {
		return s.issuer().aid, true
	}
	for _, e := range s.entries {
		offered := e.registered
		if !provider.IsZero() {
			offered = append(slices.Clone(e.services), e.registered...)
		}
		if (provider.IsZero() || provider == e.aid) && e.selectable() && e.privileges.has(privGlobalService) && offered.answers(name) {
			return e.aid, true
		}
	}
	return iso7816.AID{}, false
}

func (i *instance) GlobalPIN() oncard.CVM { return globalPIN{i} }

func (i *instance) CardState() byte { return i.card.state.issuer().lifeCycle }

func (i *instance) LockCard() error {
	if i.CardState() != cardSecured {
		return iso7816.ErrConditions
	}
	return i.setCardState(privCardLock, cardLocked)
}

func (i *instance) TerminateCard() error { return i.setCardState(privCardTerminate, cardTerminated) }

func (i *instance) setCardState(q privilege, to byte) error {
	c, issuer := i.card, i.card.state.issuer()
	if !i.entry.privileges.has(q) || issuer.lifeCycle == cardTerminated {
		return iso7816.ErrConditions
	}
	if err := c.tx.capacity(1, c.state.profile.CommitCapacity); err != nil {
		return err
	}
	c.update(issuer, func(e *entry) { e.lifeCycle = to })
	return nil
}

// SetHistoricalBytes is refused where the profile's ATR is not one with
// historical bytes at its end.
func (i *instance) SetHistoricalBytes(b []byte) error {
	c := i.card
	if _, ok := withHistoricalBytes(c.state.profile.ATR, b); !ok || !i.entry.privileges.has(privCardReset) {
		return iso7816.ErrConditions
	}
	if err := c.tx.capacity(len(b), c.state.profile.CommitCapacity); err != nil {
		return err
	}
	old, next := c.state.historical, append([]byte{}, b...)
	c.change(func() { c.state.historical = next }, func() { c.state.historical = old })
	return nil
}

func (i *instance) Entry(aid iso7816.AID) (oncard.Entry, bool) {
	e := i.entry
	if !aid.IsZero() && aid != e.aid {
		if e = i.card.state.entry(aid); e == nil || !i.entry.privileges.has(privGlobalRegistry) {
			return oncard.Entry{}, false
		}
	}
	return oncard.Entry{AID: e.aid, SecurityDomain: e.securityDomain, LifeCycle: e.stateByte(), Privileges: e.privileges}, true
}

func (i *instance) SetLocked(aid iso7816.AID, locked bool) error {
	c := i.card
	e := c.state.entry(aid)
	if e == nil || e.own || e.locked == locked || !c.mayLock(i.entry, e, locked) {
		return iso7816.ErrConditions
	}
	if err := c.tx.capacity(1, c.state.profile.CommitCapacity); err != nil {
		return err
	}
	c.update(e, func(e *entry) { e.locked = locked })
	return nil
}

// withHistoricalBytes is an ATR with other historical bytes (ISO/IEC 7816-3,
// 8.2): T0 says how many there are, and TCK, where there is one, makes the
// exclusive or of all after TS zero.
func withHistoricalBytes(atr, historical []byte) ([]byte, bool) {
	if len(historical) > 15 || len(atr) < 2 {
		return nil, false
	}
	at, check := 2, 0
	for y := atr[1] >> 4; y != 0; {
		for bit := byte(1); bit <= 8; bit <<= 1 {
			if y&bit == 0 {
				continue
			}
			if at >= len(atr) {
				return nil, false
			}
			at++
		}
		if y&8 == 0 {
			break
		}
		d := atr[at-1]
		if d&0x0F != 0 {
			check = 1 // a protocol other than T=0
		}
		y = d >> 4
	}
	if len(atr) != at+int(atr[1]&0x0F)+check {
		return nil, false
	}
	out := append(bytes.Clone(atr[:at]), historical...)
	out[1] = out[1]&0xF0 | byte(len(historical))
	if check == 0 {
		return out, true
	}
	var tck byte
	for _, b := range out[1:] {
		tck ^= b
	}
	return append(out, tck), true
}
