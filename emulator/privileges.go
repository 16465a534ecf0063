package emulator

import (
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// privileges are the three bytes of GPCS 11.1.2.
type privileges [3]byte

// The privileges of GPCS tables 11-7 to 11-9: number of the byte and bit.
type privilege struct{ i, bit byte }

var (
	privSecurityDomain        = privilege{0, 0x80}
	privDAPVerification       = privilege{0, 0x40}
	privDelegatedManagement   = privilege{0, 0x20}
	privCardLock              = privilege{0, 0x10}
	privCardTerminate         = privilege{0, 0x08}
	privCardReset             = privilege{0, 0x04}
	privCVMManagement         = privilege{0, 0x02}
	privMandatedDAP           = privilege{0, 0x01}
	privTrustedPath           = privilege{1, 0x80}
	privAuthorizedManagement  = privilege{1, 0x40}
	privTokenVerification     = privilege{1, 0x20}
	privGlobalDelete          = privilege{1, 0x10}
	privGlobalLock            = privilege{1, 0x08}
	privGlobalRegistry        = privilege{1, 0x04}
	privFinalApplication      = privilege{1, 0x02}
	privGlobalService         = privilege{1, 0x01}
	privReceiptGeneration     = privilege{2, 0x80}
	privCiphered              = privilege{2, 0x40}
	privContactlessActivation = privilege{2, 0x20}
)

// Which privileges this card assigns: all of GPCS table 6-1 to Security
// Domains; to applications those that 6.6 and 9.6 give a meaning for them, and
// not the ones that only say what a Security Domain does (9.1.3, 6.7). Of the
// contactless ones the card keeps a record: what they allow is Amendment C's.
var (
	domainPrivileges      = privileges{0xFF, 0xFF, 0xF0}
	applicationPrivileges = privileges{0x1E, 0x0F, 0x30}
)

func (p privileges) has(q privilege) bool { return p[q.i]&q.bit != 0 }

func (p privileges) with(q privilege) privileges { p[q.i] |= q.bit; return p }

func (p privileges) without(q privilege) privileges { p[q.i] &^= q.bit; return p }

func (p privileges) securityDomain() bool { return p.has(privSecurityDomain) }

// parsePrivileges reads 1 or 3 bytes. One byte stands for the defaults of GPCS
// table 6-2. Two are taken as well, the third being zero: GPCS has no such
// length, but GPShell sends it.
func parsePrivileges(b []byte) (privileges, error) {
	switch len(b) {
	case 1:
	case 2:
		return privileges{b[0], b[1]}, nil
	case 3:
		return privileges(b), nil
	default:
		return privileges{}, iso7816.ErrWrongData
	}
	p := privileges{b[0]}
	if p.securityDomain() {
		p = p.with(privTrustedPath)
	}
	return p, nil
}

// check holds privileges that are to be assigned to the rules of GPCS table
// 6-1, 6.6.2 and 11.1.2.
func (p privileges) check() error {
	allowed := applicationPrivileges
	if p.securityDomain() {
		allowed = domainPrivileges
	}
	for i := range p {
		if p[i]&^allowed[i] != 0 {
			return iso7816.ErrWrongData
		}
	}
	q, err := globalplatform.ParsePrivileges(p[:])
	if err != nil || q.Check() != nil {
		return iso7816.ErrWrongData
	}
	return nil
}

// single are the privileges that one application of the card has at a time
// (GPCS 6.6.2).
var single = []privilege{privCardReset, privFinalApplication}

// assignable reports whether an entry, nil for a new one, may get privileges:
// those that only one application has must be with the Issuer Security Domain
// or the entry itself.
func (s *state) assignable(p privileges, e *entry) bool {
	for _, q := range single {
		if p.has(q) && !s.issuer().privileges.has(q) && (e == nil || !e.privileges.has(q)) {
			return false
		}
	}
	return true
}

// assign gives an entry privileges. What only one application has is taken
// from the Issuer Security Domain, or goes back to it.
func (c *Card) assign(e *entry, p privileges) {
	for _, q := range single {
		issuer := c.state.issuer()
		switch {
		case p.has(q) && issuer.privileges.has(q):
			c.update(issuer, func(e *entry) { e.privileges = e.privileges.without(q) })
		case !p.has(q) && e.privileges.has(q):
			c.update(issuer, func(e *entry) { e.privileges = e.privileges.with(q) })
		}
	}
	if p != e.privileges {
		c.update(e, func(e *entry) {
			if e.privileges = p; !p.has(privGlobalService) {
				e.services, e.registered = nil, nil
			}
		})
	}
}

// holder is the application that has one of the privileges that only one has.
func (s *state) holder(q privilege) *entry {
	for _, e := range s.entries {
		if e.privileges.has(q) {
			return e
		}
	}
	return s.issuer()
}
