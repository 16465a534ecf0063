package provisioner_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/provisioner"
)

// preparation is everything that an operator can give a card.
func preparation(above iso7816.AID) provisioner.Preparation {
	return provisioner.Preparation{
		Domain:     provisioner.Domain{AID: providerDomain, Key: keys.Ref{Name: "provider"}, Diversification: keys.MethodSP800108},
		Privileges: delegated, Above: above,
		Token: &keys.SchemeKey{AES: tokenKey}, Receipt: &keys.SchemeKey{AES: receiptKey},
	}
}

// prepare does what `operator prepare` does, without a ledger.
func (c *counter) prepare(q provisioner.Preparation) ([]provisioner.PreparationStep, error) {
	p := *c.Provisioner
	p.Ledger = nil
	s, err := p.Connect(c.ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	steps, err := p.PlanPreparation(c.ctx, s, q)
	if err != nil {
		return nil, err
	}
	return steps, p.Prepare(c.ctx, s, steps)
}

// Power is cut before every command of a preparation, before every write and
// after every command; done again, the card is as it should be, and done once
// more, nothing is left.
func TestPreparationPowerCuts(t *testing.T) {
	b := newBook(t)
	q := preparation(providerDomain)
	c := newCounter(t, b)
	c.emulated().CountWrites()
	steps, err := c.prepare(q)
	check(t, err)
	var names []string
	for _, s := range steps {
		names = append(names, string(s.Name))
	}
	if want := "token-key receipt-key create-domain domain-keys set-personalized extradite-domain"; strings.Join(names, " ") != want {
		t.Errorf("steps %v", names)
	}
	var cuts []emulator.Cut
	for i, writes := range c.emulated().Writes() {
		cuts = append(cuts, emulator.Cut{Command: i + 1, Where: emulator.BeforeCommand}, emulator.Cut{Command: i + 1, Where: emulator.AfterCommand})
		for w := range writes {
			cuts = append(cuts, emulator.Cut{Command: i + 1, Where: emulator.BeforeWrite, Write: w + 1})
		}
	}
	for _, cut := range cuts {
		t.Run(cut.String(), func(t *testing.T) {
			c := newCounter(t, b)
			c.emulated().SetCut(cut)
			_, err := c.prepare(q)
			wants(t, err, iso7816.ErrCardRemoved)
			c.emulated().SetCut(emulator.Cut{})
			c.emulated().PowerOn()
			_, err = c.prepare(q)
			check(t, err)
			written := c.wire.written()
			steps, err := c.prepare(q)
			check(t, err)
			if len(steps) != 0 || c.wire.written() != written {
				t.Errorf("a third time: %d steps, %d writes", len(steps), c.wire.written()-written)
			}
			if e := c.entry(providerDomain); e.State != globalplatform.StatePersonalized || e.Privileges != delegated || e.SecurityDomain != providerDomain {
				t.Errorf("the security domain is %+v", e)
			}
		})
	}
}

// A card that is prepared so takes a service by tokens, from end to end.
func TestPreparedCard(t *testing.T) {
	c := newCounter(t, newBook(t))
	_, err := c.prepare(preparation(iso7816.AID{}))
	check(t, err)
	c.Domains = []provisioner.Domain{{AID: providerDomain, Key: keys.Ref{Name: "provider"}, Diversification: keys.MethodSP800108, Manager: providerDomain}}
	c.Home, c.SecurityDomainKey = providerDomain, keys.Ref{}
	c.Receipts, c.CardProfile.ReceiptRequired = globalplatform.AESScheme{Key: receiptKey}, true
	s, err := c.Connect(t.Context())
	check(t, err)
	plan, err := c.PlanRequest(t.Context(), s, office, baseLoadFile)
	check(t, err)
	asked := c.ask(s, plan, office)
	s.Close()
	check(t, provisioner.CheckRequest(asked, office, c.Profiles))
	c.allow(asked)
	result := c.mustIssue(c.request(office))
	c.holds(office, result.ID)
}

func TestPreparationRefused(t *testing.T) {
	c := newCounter(t, newBook(t))
	other := preparation(iso7816.AID{})
	other.Domain.Diversification = keys.MethodVISA2 // of SCP02, which the card does not speak
	_, err := c.prepare(other)
	wants(t, err, keys.ErrDiversifier)
	if n := c.wire.written(); n != 0 {
		t.Errorf("%d commands that write", n)
	}
	_, err = c.prepare(preparation(iso7816.AID{}))
	check(t, err)
	q := preparation(iso7816.AID{})
	q.Privileges = authorized
	_, err = c.prepare(q)
	wants(t, err, provisioner.ErrDomain)
	q = preparation(iso7816.AID{})
	q.Token = &keys.SchemeKey{AES: must(keys.NewKey(bytes.Repeat([]byte{1}, 32)))}
	_, err = c.prepare(q) // another kind of key is there
	wants(t, err, provisioner.ErrForeign)
	q = preparation(iso7816.AID{})
	q.Privileges = globalplatform.DelegatedManagement | globalplatform.AuthorizedManagement
	_, err = c.prepare(q)
	wants(t, err, globalplatform.ErrPrivileges)
	q = preparation(iso7816.AID{})
	q.Domain.Key.Name = "other-manager" // which the card's domain does not have
	if _, err = c.prepare(q); err == nil {
		t.Error("a security domain with other keys passed")
	}
	c.SecurityDomainKey = keys.Ref{}
	_, err = c.prepare(preparation(iso7816.AID{}))
	wants(t, err, provisioner.ErrUnknownDomain)
}

// The operator recomputes every operation from the manifest.
func TestCheckRequest(t *testing.T) {
	c := newCounter(t, newBook(t))
	byTokensBelow(c)
	s, plan, err := c.plan(c.request(office))
	check(t, err)
	defer s.Close()
	for field, change := range map[string]func(*delegation.Request){
		"":                              func(*delegation.Request) {},
		"service":                       func(r *delegation.Request) { r.Service = "other" },
		"manifest":                      func(r *delegation.Request) { r.Manifest = make([]byte, 32) },
		"operations[0].load_file":       func(r *delegation.Request) { r.Operations[0].LoadFile = serviceDomain },
		"operations[0].hash":            func(r *delegation.Request) { r.Operations[0].Hash = make([]byte, 32) },
		"operations[0].security_domain": func(r *delegation.Request) { r.Operations[0].SecurityDomain = serviceDomain },
		"operations[1].module":          func(r *delegation.Request) { r.Operations[1].Module = serviceDomain },
		"operations[1].instance":        func(r *delegation.Request) { r.Operations[1].Instance = serviceDomain },
		"operations[1].parameters":      func(r *delegation.Request) { r.Operations[1].Parameters = []byte{1} },
		"operations[2].object":          func(r *delegation.Request) { r.Operations[2].Object = serviceDomain },
	} {
		asked := c.ask(s, plan, office)
		change(asked)
		err := provisioner.CheckRequest(asked, office, c.Profiles)
		if field == "" {
			check(t, err)
			continue
		}
		wants(t, err, delegation.ErrMismatch)
		if !strings.Contains(err.Error(), field+" is ") {
			t.Errorf("%v, want %s named", err, field)
		}
	}
}
