package emulator

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// Every privilege of GPCS table 6-1 with what it needs beside it: whether an
// application can have it, and whether only those give it away who have it
// themselves.
func TestEveryPrivilege(t *testing.T) {
	const withDomain = globalplatform.SecurityDomain
	for name, test := range map[string]struct {
		p           globalplatform.Privileges
		with        globalplatform.Privileges
		application bool
		guarded     bool
	}{
		"DAP Verification":              {globalplatform.DAPVerification, withDomain, false, false},
		"Delegated Management":          {globalplatform.DelegatedManagement, withDomain, false, false},
		"Card Lock":                     {globalplatform.CardLock, 0, true, true},
		"Card Terminate":                {globalplatform.CardTerminate, 0, true, true},
		"Card Reset":                    {globalplatform.CardReset, 0, true, true},
		"CVM Management":                {globalplatform.CVMManagement, 0, true, true},
		"Mandated DAP Verification":     {globalplatform.MandatedDAPVerification, withDomain, false, true},
		"Trusted Path":                  {globalplatform.TrustedPath, withDomain, false, false},
		"Authorized Management":         {globalplatform.AuthorizedManagement, withDomain, false, false},
		"Token Verification":            {globalplatform.TokenManagement, withDomain, false, false},
		"Global Delete":                 {globalplatform.GlobalDelete, withDomain, false, true},
		"Global Lock":                   {globalplatform.GlobalLock, 0, true, true},
		"Global Registry":               {globalplatform.GlobalRegistry, 0, true, true},
		"Final Application":             {globalplatform.FinalApplication, 0, true, true},
		"Global Service":                {globalplatform.GlobalService, 0, true, false},
		"Receipt Generation":            {globalplatform.ReceiptGeneration, withDomain, false, false},
		"Ciphered Load File Data Block": {globalplatform.CipheredLoadFileDataBlock, withDomain, false, false},
		"Contactless Activation":        {globalplatform.ContactlessActivation, 0, true, true},
		"Contactless Self-Activation":   {globalplatform.ContactlessSelfActivation, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := withInstance(t)
			addDomain(t, c, domainY, "80C000", keysY) // Authorized Management, for whom the card is another's
			s := authenticate(t, c, scp.CMAC)
			rights := test.p | withDomain
			cmd := cmdInstallDomain(domainX, "00", "")
			cmd.Data = bytes.Replace(cmd.Data, append(domainX.Bytes(), 1, 0), append(append(domainX.Bytes(), 3), rights.Bytes()...), 1)
			want(t, s, cmd, iso7816.OK)
			if got := c.state.entry(domainX).privileges; !bytes.Equal(got[:], rights.Bytes()) {
				t.Errorf("the Security Domain has %X, want %X", got, rights.Bytes())
			}
			want(t, s, cmdDelete(domainX, false), iso7816.OK)
			// To an application: at its installation, and later; 6A80 where it can't have it.
			sw := iso7816.OK
			if !test.application {
				sw = iso7816.ErrWrongData
			}
			before := encodeImage(c.state)
			want(t, s, cmdServices(instanceA, hexOf(test.p), ""), sw)
			if (sw == iso7816.OK) == bytes.Equal(before, encodeImage(c.state)) {
				t.Errorf("registry update %v", sw)
			}
			want(t, s, cmdServices(instanceA, "000000", ""), iso7816.OK)
			want(t, s, cmdRights(instanceB, hexOf(test.p)), sw)
			// By another Security Domain: only what it has, where that is power over the card.
			if !test.application {
				return
			}
			want(t, s, cmdDelete(instanceB, false), iso7816.OK)
			want(t, s, cmdExtradite(instanceA, domainY), iso7816.OK)
			if sw = iso7816.OK; test.guarded {
				sw = iso7816.ErrConditions
			}
			want(t, openDomain(t, c, domainY, keysY), cmdServices(instanceA, hexOf(test.p), ""), sw)
		})
	}
	// What only one has isn't given twice, and comes back (6.6.2).
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	for _, p := range []globalplatform.Privileges{globalplatform.CardReset, globalplatform.FinalApplication} {
		want(t, s, cmdServices(instanceA, hexOf(p), ""), iso7816.OK)
		want(t, s, cmdRights(instanceB, hexOf(p)), iso7816.ErrConditions)
		want(t, s, cmdServices(instanceA, "000000", ""), iso7816.OK)
		want(t, s, cmdRights(instanceB, hexOf(p)), iso7816.OK)
		want(t, s, cmdDelete(instanceB, false), iso7816.OK)
		if got := c.state.issuer().privileges; got != issuerPrivileges {
			t.Errorf("the issuer has %X after %v", got, p)
		}
	}
}

func hexOf(p globalplatform.Privileges) string { return fmt.Sprintf("%X", p.Bytes()) }
