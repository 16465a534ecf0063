package globalplatform_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

var cardStates = []byte{globalplatform.CardOPReady, globalplatform.CardInitialized, globalplatform.CardSecured, globalplatform.CardLocked, globalplatform.CardTerminated}

// Section 5.1, written down as the pairs that exist.
func TestCardTransitions(t *testing.T) {
	allowed := "01>07 07>0F 0F>7F 7F>0F 01>FF 07>FF 0F>FF 7F>FF"
	for _, from := range append(cardStates, 0x03) {
		for _, to := range append(cardStates, 0x00, 0x80) {
			want := strings.Contains(allowed, fmt.Sprintf("%02X>%02X", from, to)) || from == 0x03 && to == 0xFF
			if err := globalplatform.CheckCardTransition(from, to); (err == nil) != want || err != nil && !errors.Is(err, globalplatform.ErrTransition) {
				t.Errorf("%02X to %02X: %v", from, to, err)
			}
		}
	}
}

func TestTransitions(t *testing.T) {
	for _, x := range []struct {
		from, to    byte
		domain, own bool
		want        bool
	}{
		// By itself.
		{0x07, 0x0F, false, true, true}, {0x0F, 0x1F, false, true, true}, {0x1F, 0x0F, false, true, true}, {0x07, 0x87, false, true, true},
		{0x03, 0x07, false, true, false}, {0x03, 0x0F, false, true, false}, {0x03, 0x83, false, true, true}, {0x0F, 0x0F, false, true, false},
		{0x0F, 0x07, false, true, false}, {0x0F, 0x0B, false, true, false}, {0x8F, 0x0F, false, true, false}, {0x87, 0x87, false, true, false},
		{0x07, 0x0F, true, true, true}, {0x0F, 0x8F, true, true, true}, {0x07, 0x1F, true, true, false}, {0x0F, 0x07, true, true, false}, {0x03, 0x0F, true, true, false},
		// By another: bit 8 is all that counts.
		{0x07, 0x80, false, false, true}, {0x87, 0x00, false, false, true}, {0x07, 0x0F, false, false, false}, {0x87, 0x80, false, false, false},
		{0x0F, 0x80, true, false, true}, {0x8F, 0x0F, true, false, true}, {0x03, 0x80, true, false, true},
	} {
		if err := globalplatform.CheckTransition(x.from, x.to, x.domain, x.own); (err == nil) != x.want {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

// registryCard answers GET STATUS with one entry and takes SET STATUS.
func registryCard(t *testing.T, e globalplatform.RegistryEntry, set *[]string) sender {
	return func(c iso7816.Command) iso7816.Response {
		if c.INS == 0xF2 {
			return iso7816.Response{Data: e.Encode(), SW: iso7816.OK}
		}
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		*set = append(*set, fmt.Sprintf("%X", b))
		return iso7816.Response{SW: iso7816.OK}
	}
}

// The state is read first; what is there already is left alone, and what
// can't be is not asked for.
func TestSetCardStatus(t *testing.T) {
	for _, x := range []struct {
		name string
		do   func(s iso7816.Sender) error
		want map[byte]string // sent from each state; "" nothing, "-" refused
	}{
		{"lock", func(s iso7816.Sender) error { return globalplatform.LockCard(t.Context(), s) },
			map[byte]string{0x01: "-", 0x07: "-", 0x0F: "80F0807F08A000000151000000", 0x7F: "", 0xFF: "-"}},
		{"unlock", func(s iso7816.Sender) error { return globalplatform.UnlockCard(t.Context(), s) },
			map[byte]string{0x01: "-", 0x07: "-", 0x0F: "", 0x7F: "80F0800F08A000000151000000", 0xFF: "-"}},
		{"terminate", func(s iso7816.Sender) error { return globalplatform.TerminateCard(t.Context(), s) },
			map[byte]string{0x01: "80F080FF08A000000151000000", 0x07: "80F080FF08A000000151000000", 0x0F: "80F080FF08A000000151000000", 0x7F: "80F080FF08A000000151000000", 0xFF: ""}},
		{"initialize", func(s iso7816.Sender) error {
			return globalplatform.SetCardStatus(t.Context(), s, globalplatform.CardInitialized)
		}, map[byte]string{0x01: "80F0800708A000000151000000", 0x07: "", 0x0F: "-", 0x7F: "-", 0xFF: "-"}},
	} {
		for _, from := range cardStates {
			var sent []string
			err := x.do(registryCard(t, globalplatform.RegistryEntry{AID: globalplatform.IssuerSecurityDomain, State: from}, &sent))
			got := strings.Join(sent, " ")
			if errors.Is(err, globalplatform.ErrTransition) {
				got += "-"
			} else if err != nil {
				t.Fatal(err)
			}
			if got != x.want[from] {
				t.Errorf("%s from %02X: %q, want %q", x.name, from, got, x.want[from])
			}
		}
	}
}

func TestSetLocked(t *testing.T) {
	aid, longer := iso7816.MustAID("F001020304"), iso7816.MustAID("F00102030405")
	for _, x := range []struct {
		state  byte
		locked bool
		want   string
	}{
		{0x0F, true, "80F0408005F001020304"}, {0x8F, true, ""}, {0x8F, false, "80F0400005F001020304"}, {0x0F, false, ""},
	} {
		var sent []string
		if err := globalplatform.SetLocked(t.Context(), registryCard(t, globalplatform.RegistryEntry{AID: aid, State: x.state}, &sent), aid, x.locked); err != nil || strings.Join(sent, " ") != x.want {
			t.Errorf("%02X, %v: %q, %v", x.state, x.locked, sent, err)
		}
	}
	// Only an entry whose AID begins so: not the one that was meant.
	var sent []string
	err := globalplatform.SetLocked(t.Context(), registryCard(t, globalplatform.RegistryEntry{AID: longer, State: 0x0F}, &sent), aid, true)
	if !errors.Is(err, iso7816.ErrDataNotFound) || len(sent) != 0 {
		t.Errorf("%v, %q", err, sent)
	}
	for locked, want := range map[bool]string{true: "80F0608005F001020304", false: "80F0600005F001020304"} {
		sent = nil
		if err := globalplatform.SetDomainLocked(t.Context(), registryCard(t, globalplatform.RegistryEntry{}, &sent), aid, locked); err != nil || strings.Join(sent, " ") != want {
			t.Errorf("domain, %v: %q, %v", locked, sent, err)
		}
	}
}

// Table 6-1 and 6.6.2.
func TestPrivilegesCheck(t *testing.T) {
	const (
		sd  = globalplatform.SecurityDomain
		dm  = globalplatform.DelegatedManagement
		isd = 0x9EFE80 // what the Issuer Security Domain has at first (6.6.2), as cards code it
	)
	for p, ok := range map[globalplatform.Privileges]bool{
		0: true, isd: true, sd: true, sd | dm | globalplatform.TrustedPath: true, globalplatform.TrustedPath: true,
		globalplatform.CardReset | globalplatform.FinalApplication: true, globalplatform.GlobalDelete | globalplatform.GlobalLock: true,
		sd | globalplatform.DAPVerification: true, sd | globalplatform.MandatedDAPVerification: true, sd | globalplatform.CipheredLoadFileDataBlock: true,
		sd | globalplatform.DAPVerification | dm: true,
		dm:                                       false, globalplatform.DAPVerification: false, globalplatform.AuthorizedManagement: false, globalplatform.CipheredLoadFileDataBlock: false,
		globalplatform.MandatedDAPVerification: false, sd | 0x010000: false, 0x010000: false,
		sd | dm | globalplatform.AuthorizedManagement: false, sd | dm | globalplatform.TokenManagement: false, sd | dm | globalplatform.ReceiptGeneration: false,
		sd | 1: false, sd | 8: false, sd | 1<<24: false,
	} {
		if err := p.Check(); (err == nil) != ok || err != nil && !errors.Is(err, globalplatform.ErrPrivileges) {
			t.Errorf("%v (%06X): %v", p, uint32(p), err)
		}
	}
	for _, x := range []struct {
		p, issuer globalplatform.Privileges
		ok        bool
	}{
		{globalplatform.CardReset, isd, true}, {globalplatform.CardReset, isd &^ globalplatform.CardReset, false},
		{globalplatform.FinalApplication, isd | globalplatform.FinalApplication, true}, {globalplatform.FinalApplication, isd &^ globalplatform.FinalApplication, false},
		{sd, 0, true}, {dm, isd, false},
	} {
		if err := x.p.CheckAssignment(x.issuer); (err == nil) != x.ok {
			t.Errorf("%v from %v: %v", x.p, x.issuer, err)
		}
	}
}
