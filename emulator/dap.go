package emulator

import (
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// verifyDAPs verifies every DAP that names a Security Domain with DAP
// Verification, and wants one of the load file's own Security Domain, where it
// has that privilege, and of each with Mandated DAP Verification (GPCS 9.3.5).
// The DAPs of others are read over. A missing or wrong one is 6982.
func (c *Card) verifyDAPs(l *loading, daps []globalplatform.DAPBlock) error {
	wanted := map[*entry]bool{}
	for _, e := range c.state.entries {
		mandated := e.privileges.has(privMandatedDAP) && c.state.ready(e)
		if mandated || e.aid == l.securityDomain && e.privileges.has(privDAPVerification) {
			wanted[e] = true
		}
	}
	for _, d := range daps {
		sd := c.state.domain(d.SecurityDomain)
		if sd == nil || !sd.privileges.has(privDAPVerification) {
			continue
		}
		k, ok := sd.domain.purpose(usageDAP, versionDAP)
		if !ok || !c.state.ready(sd) || !k.verify(l.hash, d.Signature) {
			return iso7816.ErrSecurityStatus
		}
		if len(l.hash) < k.leastHash() {
			return iso7816.ErrWrongData // C.2
		}
		delete(wanted, sd)
	}
	if len(wanted) > 0 {
		return iso7816.ErrSecurityStatus
	}
	return nil
}
