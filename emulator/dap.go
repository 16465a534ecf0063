package emulator

import (
	"crypto/sha1" //nolint:gosec // its size only

	"github.com/freearea/freearea/iso7816"
)

// dap is a DAP block: a Security Domain's signature of a load file (GPCS table
// 11-58).
type dap struct {
	by        iso7816.AID
	signature []byte
}

func parseDAP(t iso7816.TLV) (dap, error) {
	objects, err := t.Children()
	if err != nil || len(objects) != 2 || objects[0].Tag != tagAID || objects[1].Tag != 0xC3 {
		return dap{}, iso7816.ErrWrongData
	}
	aid, err := iso7816.NewAID(objects[0].Value)
	if err != nil {
		return dap{}, iso7816.ErrWrongData
	}
	return dap{aid, objects[1].Value}, nil
}

// verifyDAPs verifies every DAP that names a Security Domain with DAP
// Verification, and wants one of the load file's own Security Domain, where it
// has that privilege, and of each with Mandated DAP Verification (GPCS 9.3.5).
// The DAPs of others are read over. A missing or wrong one is 6982.
func (c *Card) verifyDAPs(l *loading, daps []dap) error {
	wanted := map[*entry]bool{}
	for _, e := range c.state.entries {
		mandated := e.privileges.has(privMandatedDAP) && c.state.ready(e)
		if mandated || e.aid == l.securityDomain && e.privileges.has(privDAPVerification) {
			wanted[e] = true
		}
	}
	for _, d := range daps {
		sd := c.state.domain(d.by)
		if sd == nil || !sd.privileges.has(privDAPVerification) {
			continue
		}
		k, ok := sd.domain.purpose(usageDAP, versionDAP)
		if !ok || !c.state.ready(sd) || !k.verify(l.hash, d.signature) {
			return iso7816.ErrSecurityStatus
		}
		if len(l.hash) == sha1.Size && !k.weak() {
			return iso7816.ErrWrongData // C.2
		}
		delete(wanted, sd)
	}
	if len(wanted) > 0 {
		return iso7816.ErrSecurityStatus
	}
	return nil
}
