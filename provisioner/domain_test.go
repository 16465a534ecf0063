package provisioner_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

// The service provider's Security Domains, and where they come from.
var (
	providerDomain = iso7816.MustAID("F046524545415245415344")
	serviceDomain  = iso7816.MustAID("F04652454541524541534401")
	domainPackage  = iso7816.MustAID("A0000001515350")
	domainModule   = iso7816.MustAID("A000000151535041")
)

const (
	authorized = globalplatform.SecurityDomain | globalplatform.TrustedPath | globalplatform.AuthorizedManagement
	delegated  = globalplatform.SecurityDomain | globalplatform.TrustedPath | globalplatform.DelegatedManagement
	plain      = globalplatform.SecurityDomain | globalplatform.TrustedPath
)

// Keys of the card's operator.
var (
	tokenKey   = must(keys.NewKey([]byte("token key of all")))
	receiptKey = must(keys.NewKey([]byte("receipt key here")))
)

// channel opens a channel to a Security Domain with a key set, beside the
// provisioner.
func (c *counter) channel(aid iso7816.AID, set keys.Set) *scp.Session {
	c.t.Helper()
	plain := iso7816.Plain(c.emulated())
	_, err := globalplatform.Select(c.t.Context(), plain, aid)
	check(c.t, err)
	s, err := scp.Open(c.t.Context(), plain, set, scp.HostOptions{Level: scp.Full})
	check(c.t, err)
	return s
}

// domainKeys is the key set of a Security Domain on this card.
func (c *counter) domainKeys(d provisioner.Domain) keys.Set {
	return must(store().SecurityDomainKeys(c.t.Context(), d.Key, d.Diversification, []byte{9: 1}))
}

// addDomain gives the card a Security Domain, as its operator does, and tells
// the counter of it.
func (c *counter) addDomain(aid iso7816.AID, privileges globalplatform.Privileges, key string, manager iso7816.AID) provisioner.Domain {
	c.t.Helper()
	d := provisioner.Domain{AID: aid, Key: keys.Ref{Name: key}, Diversification: keys.MethodSP800108, Manager: manager}
	c.execute(globalplatform.InstallForInstall{
		LoadFile: domainPackage, Module: domainModule, Instance: aid, Privileges: privileges, MakeSelectable: true,
	})
	issuer := must(store().SecurityDomainKeys(c.t.Context(), keys.Ref{Name: "card-manager"}, keys.MethodNone, nil))
	s := c.channel(aid, issuer)
	check(c.t, globalplatform.PutKeys(c.t.Context(), s, globalplatform.SecureChannelKeys(c.domainKeys(d), globalplatform.AESKey)))
	s.Close()
	c.Domains = append(c.Domains, d)
	return d
}

// operatorKeys puts the token and receipt keys on the card.
func (c *counter) operatorKeys() {
	c.t.Helper()
	s := c.domain()
	defer s.Close()
	for _, k := range []struct {
		version byte
		key     keys.Key
	}{{0x70, tokenKey}, {0x71, receiptKey}} {
		check(c.t, globalplatform.PutKeys(c.t.Context(), s, globalplatform.PutKey{
			Version: k.version, ID: 1, Keys: []globalplatform.KeyValue{globalplatform.AESKey(k.key)},
		}))
	}
}

// The places that a service can have.

// inDomain: the issuer installs and extradites.
func inDomain(c *counter) {
	c.Home = c.addDomain(providerDomain, plain, "provider", iso7816.AID{}).AID
}

// byDomain: the Security Domain manages its own content, and nobody asks the
// issuer.
func byDomain(c *counter) {
	c.Home = c.addDomain(providerDomain, authorized, "provider", providerDomain).AID
	c.SecurityDomainKey = keys.Ref{}
}

// byTokens: it does so with the operator's leave.
func byTokens(c *counter) {
	c.operatorKeys()
	c.Home = c.addDomain(providerDomain, delegated, "provider", providerDomain).AID
	c.Receipts = globalplatform.AESScheme{Key: receiptKey}
	c.SecurityDomainKey = keys.Ref{}
}

// byTokensBelow: and it gives the instance to one below it.
func byTokensBelow(c *counter) {
	byTokens(c)
	c.Home = c.addDomain(serviceDomain, plain, "service", providerDomain).AID
	c.execute(globalplatform.InstallForExtradition{AID: serviceDomain, SecurityDomain: providerDomain})
}

// ask makes the request for a plan.
func (c *counter) ask(s *provisioner.Session, plan *provisioner.Plan, m *manifest.Manifest) *delegation.Request {
	r := must(delegation.NewRequest(strings.NewReader(fmt.Sprintf("%08d", c.book.events)), c.now))
	digest := m.Digest()
	r.Card, r.SecurityDomain, r.Service = delegation.Card{IIN: s.IIN, CIN: s.CIN}, plan.Manager(), m.ID
	r.Manifest, r.Approval, r.Operations = digest[:], make([]byte, 32), plan.Operations()
	return r
}

// allow has the operator answer the request, by mail.
func (c *counter) allow(r *delegation.Request) {
	c.t.Helper()
	r = must(delegation.ParseRequest(must(r.Encode())))
	tokens := must(delegation.Issue(r, globalplatform.AESScheme{Key: tokenKey}, "operator", c.now))
	c.Tokens = must(delegation.ParseTokens(must(tokens.Encode())))
}

// allowIssue gets the tokens that issuing takes.
func (c *counter) allowIssue(r provisioner.Request) {
	c.t.Helper()
	c.Tokens = nil
	s, plan, err := c.plan(r)
	check(c.t, err)
	defer s.Close()
	if len(plan.Operations()) > 0 {
		c.allow(c.ask(s, plan, r.Manifest))
	}
}

// allowWithdraw gets the tokens that withdrawing takes.
func (c *counter) allowWithdraw(m *manifest.Manifest) {
	c.t.Helper()
	c.Tokens = nil
	s, err := c.Connect(c.t.Context())
	check(c.t, err)
	defer s.Close()
	plan, err := c.PlanWithdraw(c.t.Context(), s, m)
	check(c.t, err)
	if len(plan.Operations()) > 0 {
		c.allow(c.ask(s, plan, m))
	}
}

// domainFlows are flows with services in Security Domains of their own.
func domainFlows() []flow {
	fresh := func(where func(*counter), m *manifest.Manifest) func(*counter) provisioner.Request {
		return func(c *counter) provisioner.Request {
			where(c)
			r := c.request(m)
			c.allowIssue(r)
			return r
		}
	}
	issued := func(where func(*counter), m *manifest.Manifest) func(*counter) provisioner.Request {
		return func(c *counter) provisioner.Request {
			r := fresh(where, m)(c)
			c.mustIssue(r)
			c.allowWithdraw(m)
			return r
		}
	}
	at := func(aid iso7816.AID) func(*testing.T, *counter) {
		return func(t *testing.T, c *counter) {
			if e := c.entry(office.Application.Instance); e == nil || e.SecurityDomain != aid {
				t.Errorf("the instance is %+v, want it under %v", e, aid)
			}
		}
	}
	gone := func(t *testing.T, c *counter) {
		for _, aid := range []iso7816.AID{office.Application.Instance, office.Application.Package} {
			if e := c.entry(aid); e != nil {
				t.Errorf("%v is still there: %+v", aid, e)
			}
		}
	}
	return []flow{
		{name: "domain/issue", manifest: office, prepare: fresh(inDomain, office), issues: 1, done: at(providerDomain)},
		{name: "domain/withdraw", manifest: office, prepare: issued(inDomain, office), withdrawing: true, issues: 1, done: gone},
		{name: "domain/issue by itself", manifest: office, prepare: fresh(byDomain, office), issues: 1, done: at(providerDomain)},
		{name: "domain/move", manifest: office, issues: 2, prepare: func(c *counter) provisioner.Request {
			r := c.request(office)
			c.mustIssue(r)
			inDomain(c)
			return r
		}, done: at(providerDomain)},
		{name: "delegated/issue", manifest: office, prepare: fresh(byTokens, office), issues: 1, done: at(providerDomain)},
		{name: "delegated/withdraw", manifest: office, prepare: issued(byTokens, office), withdrawing: true, issues: 1, done: gone},
		{name: "delegated/issue below", manifest: office, prepare: fresh(byTokensBelow, office), issues: 1, done: at(serviceDomain)},
		{name: "delegated/withdraw below", manifest: office, prepare: issued(byTokensBelow, office), withdrawing: true, issues: 1, done: gone},
	}
}

// entry is what the issuer sees of an AID.
func (c *counter) entry(aid iso7816.AID) *globalplatform.RegistryEntry {
	c.t.Helper()
	s := c.domain()
	defer s.Close()
	for _, scope := range []globalplatform.Scope{globalplatform.ScopeApplications, globalplatform.ScopeLoadFilesAndModules} {
		list := must(globalplatform.GetStatus(c.t.Context(), s, scope, aid))
		if i := slices.IndexFunc(list, func(e globalplatform.RegistryEntry) bool { return e.AID == aid }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// evidence is what the ledger keeps of the steps.
func (c *counter) evidence() (list []provisioner.Evidence) {
	c.t.Helper()
	for _, d := range events[ledger.StepDone](c.t, c.book, ledger.Filter{}) {
		if d.Evidence == nil {
			continue
		}
		var e provisioner.Evidence
		check(c.t, json.Unmarshal(d.Evidence, &e))
		list = append(list, e)
	}
	return list
}

// Every receipt that the card gives is verified and in the ledger.
func TestReceipts(t *testing.T) {
	c := newCounter(t, newBook(t))
	byTokensBelow(c)
	c.CardProfile.ReceiptRequired = true
	r := c.request(office)
	c.allowIssue(r)
	c.mustIssue(r)
	c.allowWithdraw(office)
	_, err := c.withdraw(office)
	check(t, err)
	var got []string
	last := -1
	for _, e := range c.evidence() {
		confirmation, err := globalplatform.ParseConfirmation(e.Receipt)
		check(t, err)
		if !e.Verified || int(confirmation.Counter) <= last || len(e.Token) != 9 {
			t.Errorf("evidence %+v, counter %d after %d", e, confirmation.Counter, last)
		}
		last = int(confirmation.Counter)
		got = append(got, string(e.Operation))
	}
	if want := "load install extradite delete delete"; strings.Join(got, " ") != want {
		t.Errorf("receipts of %v, want %s", got, want)
	}
}

// A card without a receipt key gives none: recorded, and an error only where
// its profile demands them.
func TestNoReceipt(t *testing.T) {
	setup := func(t *testing.T) (*counter, provisioner.Request) {
		c := newCounter(t, newBook(t))
		byTokens(c)
		s := c.domain()
		_, err := globalplatform.Execute(t.Context(), s, globalplatform.DeleteKey{ID: 1, Version: 0x71})
		check(t, err)
		s.Close()
		r := c.request(office)
		c.allowIssue(r)
		return c, r
	}
	c, r := setup(t)
	c.mustIssue(r)
	for _, e := range c.evidence() {
		if e.Receipt != nil || e.Verified {
			t.Errorf("evidence %+v of a card that gives none", e)
		}
	}
	if n := len(c.evidence()); n != 2 {
		t.Errorf("%d pieces of evidence, want 2", n)
	}
	c, r = setup(t)
	c.CardProfile.ReceiptRequired = true
	_, err := c.issue(r)
	wants(t, err, provisioner.ErrReceiptMissing)
}

// A receipt that another key made is refused, and told in the ledger.
func TestForgedReceipt(t *testing.T) {
	c := newCounter(t, newBook(t))
	byTokens(c)
	c.Receipts = globalplatform.AESScheme{Key: tokenKey}
	r := c.request(office)
	c.allowIssue(r)
	_, err := c.issue(r)
	wants(t, err, globalplatform.ErrSignature)
	failed := events[ledger.StepFailed](t, c.book, ledger.Filter{})
	if len(failed) != 1 || !strings.Contains(failed[0].Error, "receipt") {
		t.Errorf("failed steps %+v", failed)
	}
}

// What a Security Domain does not see is not absent: it is asked for by name.
func TestNotVisible(t *testing.T) {
	for name, where := range map[string]func(*counter){"by itself": byDomain, "delegated": byTokens} {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t, newBook(t))
			c.mustIssue(c.request(office)) // under the issuer
			where(c)
			written := c.wire.written()
			_, _, err := c.plan(c.request(office))
			if !errors.Is(err, provisioner.ErrOtherIssue) { // the ledger knew
				t.Errorf("with the ledger that knows: %v", err)
			}
			c.book = newBook(t)
			c.Ledger = c.book
			_, _, err = c.plan(c.request(office))
			wants(t, err, provisioner.ErrNotVisible)
			_, err = c.withdraw(office)
			wants(t, err, provisioner.ErrNotVisible)
			if n := c.wire.written(); n != written {
				t.Errorf("%d writes", n-written)
			}
			// With the issuer's keys at hand the answer is definite.
			c.SecurityDomainKey = keys.Ref{Name: "card-manager"}
			_, _, err = c.plan(c.request(office))
			wants(t, err, provisioner.ErrForeign)
		})
	}
}

// Tokens of something else are refused with the field's name, before the card
// is changed.
func TestTokensDoNotFit(t *testing.T) {
	other := iso7816.MustAID("F0465245454152454153440F")
	for _, x := range []struct {
		field  string
		change func(*delegation.Request)
	}{
		{"card.cin", func(r *delegation.Request) { r.Card.CIN = delegation.Hex{1, 2} }},
		{"card.iin", func(r *delegation.Request) { r.Card.IIN = nil }},
		{"security_domain", func(r *delegation.Request) { r.SecurityDomain = other }},
		{"service", func(r *delegation.Request) { r.Service = "other" }},
		{"manifest", func(r *delegation.Request) { r.Manifest = make([]byte, 32) }},
		{"operations[0].hash", func(r *delegation.Request) { r.Operations[0].Hash = make([]byte, 32) }},
		{"operations[0].security_domain", func(r *delegation.Request) { r.Operations[0].SecurityDomain = other }},
		{"operations[1].module", func(r *delegation.Request) { r.Operations[1].Module = other }},
		{"operations[1].parameters", func(r *delegation.Request) { r.Operations[1].Parameters = []byte{0} }},
		{"operations[1].parameters", func(r *delegation.Request) { r.Operations[1].Data = delegation.Hex("other data") }},
	} {
		t.Run(x.field, func(t *testing.T) {
			c := newCounter(t, newBook(t))
			byTokens(c)
			r := c.request(office)
			s, plan, err := c.plan(r)
			check(t, err)
			asked := c.ask(s, plan, office)
			s.Close()
			x.change(asked)
			c.allow(asked)
			written := c.wire.written()
			_, err = c.issue(r)
			var mismatch *delegation.MismatchError
			if !errors.As(err, &mismatch) || mismatch.Field != x.field {
				t.Errorf("error %v, want a mismatch of %s", err, x.field)
			}
			if n := c.wire.written(); n != written {
				t.Errorf("%d writes", n-written)
			}
		})
	}
}

// Without tokens nothing is begun; a token that was used is refused by the
// card; so is one of another operator.
func TestTokensRefused(t *testing.T) {
	c := newCounter(t, newBook(t))
	byTokens(c)
	r := c.request(office)
	events, written := c.book.events, c.wire.written()
	_, err := c.issue(r)
	wants(t, err, provisioner.ErrTokenMissing)
	if c.wire.written() != written || c.book.events != events {
		t.Error("a run without tokens has begun")
	}

	c.allowIssue(r)
	first := c.Tokens
	forged := *first
	forged.Tokens = slices.Clone(first.Tokens)
	forged.Tokens[0] = slices.Clone(first.Tokens[0])
	forged.Tokens[0][3] ^= 1
	c.Tokens = &forged
	_, err = c.issue(r)
	wants(t, err, iso7816.ErrSecurityStatus)

	c.Tokens = first
	c.mustIssue(r)
	c.allowWithdraw(office)
	_, err = c.withdraw(office)
	check(t, err)
	c.Tokens = first
	_, err = c.issue(c.request(office))
	wants(t, err, iso7816.ErrConditions)
}

// Without a token to delete the instance, what it holds is erased all the same;
// with one the rest follows.
func TestErasedWithoutToken(t *testing.T) {
	c := newCounter(t, newBook(t))
	byTokens(c)
	r := c.request(office)
	c.allowIssue(r)
	c.mustIssue(r)
	if _, err := c.read(office, ""); err != nil {
		t.Fatal(err)
	}
	for _, c.Tokens = range []*delegation.Tokens{c.Tokens, nil} {
		_, err := c.withdraw(office)
		wants(t, err, provisioner.ErrTokenMissing)
		var stopped *provisioner.RunError
		if !errors.As(err, &stopped) || !slices.Equal(stopped.Done, []provisioner.StepName{provisioner.StepWipe}) || stopped.Step != provisioner.StepDelete {
			t.Errorf("%#v", stopped)
		}
		if tap, err := c.read(office, ""); err == nil {
			t.Errorf("read after that: %+v", tap)
		}
		s, err := c.Connect(t.Context())
		check(t, err)
		states := must(c.Ledger.Services(t.Context(), s.CardRef))
		s.Close()
		if len(states) != 1 || states[0].State != ledger.Uncertain {
			t.Errorf("the ledger says %+v", states)
		}
	}
	c.allowWithdraw(office)
	result, err := c.withdraw(office)
	check(t, err)
	if result.Steps == 0 {
		t.Error("nothing was left to do")
	}
	c.allowIssue(r)
	c.mustIssue(c.request(office))
}

// A Security Domain that is not ready is refused before anybody authenticates
// to it.
func TestDomainNotReady(t *testing.T) {
	c := newCounter(t, newBook(t))
	c.Domains = []provisioner.Domain{{AID: providerDomain, Key: keys.Ref{Name: "provider"}, Diversification: keys.MethodNone}}
	c.Home = providerDomain
	_, _, err := c.plan(c.request(office))
	wants(t, err, provisioner.ErrDomain)
	c.execute(globalplatform.InstallForInstall{
		LoadFile: domainPackage, Module: domainModule, Instance: providerDomain, Privileges: plain, MakeSelectable: true,
	})
	_, _, err = c.plan(c.request(office))
	wants(t, err, provisioner.ErrDomain)
	if n := len(events[ledger.AuthenticationFailed](t, c.book, ledger.Filter{})); n != 0 {
		t.Errorf("%d failed authentications", n)
	}
	c.Home = serviceDomain
	_, _, err = c.plan(c.request(office))
	wants(t, err, provisioner.ErrUnknownDomain)
}
