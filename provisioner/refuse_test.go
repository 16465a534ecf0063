package provisioner_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

// Instruction bytes that tests count.
const (
	insInitializeUpdate     = 0x50
	insExternalAuthenticate = 0x82
	insInstall              = 0xE6
	insLoad                 = 0xE8
)

// changed is a load file data block with one byte of it changed.
func changed(offset int) *capfile.File {
	block := baseLoadFile.LoadFileDataBlock()
	block[offset] ^= 1
	return must(capfile.ParseLoadFileDataBlock(block))
}

// offsetOf finds bytes in the load file data block.
func offsetOf(b []byte) int {
	return strings.Index(string(baseLoadFile.LoadFileDataBlock()), string(b))
}

// otherLoadFile has the base package's AID and modules, and other code.
func otherLoadFile() *capfile.File { return changed(len(baseLoadFile.LoadFileDataBlock()) - 1) }

// otherVersion is version 1.1 of the base package.
func otherVersion() *capfile.File { return changed(offsetOf(applets.BasePackage.Bytes()) - 3) }

// otherModules has another module in the place of type-d's.
func otherModules() *capfile.File {
	return changed(offsetOf(applets.ModuleTypeD.Bytes()) + applets.ModuleTypeD.Len() - 1)
}

// What the request alone tells is refused before the card hears anything, and
// leaves nothing in the ledger.
func TestRefusedBeforeTheCard(t *testing.T) {
	tests := []struct {
		name   string
		change func(c *counter, r *provisioner.Request)
		want   error // nil: any
		text   string
	}{
		{name: "expired consent", want: consent.ErrExpired, change: func(_ *counter, r *provisioner.Request) { r.Now = r.Now.AddDate(0, 0, 100) }},
		{name: "consent of tomorrow", want: consent.ErrNotYet, change: func(_ *counter, r *provisioner.Request) { r.Now = r.Now.Add(-time.Minute) }},
		{name: "consent to another manifest", want: consent.ErrOtherManifest, change: func(c *counter, r *provisioner.Request) {
			r.Consent = c.consent(points, nil)
		}},
		{name: "consent to a manifest that was changed", want: consent.ErrOtherManifest, change: func(c *counter, r *provisioner.Request) {
			m := *r.Manifest
			m.Purpose.EN += " And to sell them."
			r.Manifest = &m
		}},
		{name: "consent to fewer items", want: consent.ErrItems, change: func(c *counter, r *provisioner.Request) {
			r.Consent = c.consent(library, []string{"category"})
		}},
		{name: "consent to more items", want: consent.ErrItems, change: func(_ *counter, r *provisioner.Request) { delete(r.Subject.Items, "home-branch") }},
		{name: "consent that another key signed", want: consent.ErrSignature, change: func(_ *counter, r *provisioner.Request) {
			r.CounterKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
		}},
		{name: "consent that was altered", want: consent.ErrSignature, change: func(_ *counter, r *provisioner.Request) {
			s := *r.Consent
			s.Record.Holder = "H-2"
			r.Consent = &s
		}},
		{name: "withdrawn consent", want: consent.ErrWithdrawn, change: func(c *counter, r *provisioner.Request) {
			check(c.t, c.RecordConsent(c.t.Context(), r.Consent))
			_, err := c.book.Append(c.t.Context(), ledger.Event{Actor: c.Actor, Data: ledger.ConsentWithdrawn{Consent: r.Consent.Record.ID}})
			check(c.t, err)
		}},
		{name: "another load file", want: provisioner.ErrLoadFileHash, change: func(_ *counter, r *provisioner.Request) { r.LoadFile = otherLoadFile() }},
		{name: "another package", want: provisioner.ErrLoadFileHash, change: func(c *counter, r *provisioner.Request) {
			m := *r.Manifest
			m.Application.Package = iso7816.MustAID("F04652454541524599")
			r.Manifest, r.Consent = &m, c.consent(&m, m.SubjectItems(r.Subject))
		}},
		{name: "no ID", want: manifest.RuleSubjectID, change: func(_ *counter, r *provisioner.Request) { r.Subject.ID = "" }},
		{name: "no PIN", want: manifest.RuleSubjectPINMissing, change: func(_ *counter, r *provisioner.Request) { r.Subject.PIN = "" }},
		{name: "card expiry not entered", want: manifest.ErrNoCardExpiry, change: func(_ *counter, r *provisioner.Request) { r.CardExpiry = time.Time{} }},
		{name: "card that has expired since the consent", want: manifest.ErrCardExpired, change: func(_ *counter, r *provisioner.Request) {
			r.CardExpiry, r.Now = r.Now, r.Now.AddDate(0, 0, 1)
		}},
		{name: "term that has ended since the consent", want: provisioner.ErrTermEnded, change: func(c *counter, r *provisioner.Request) {
			m := *r.Manifest
			m.Term = manifest.Term{Days: 1}
			r.Manifest, r.Consent, r.Now = &m, c.consent(&m, m.SubjectItems(r.Subject)), r.Now.AddDate(0, 0, 2)
		}},
		{name: "another security domain", text: "application.security_domain", change: func(c *counter, r *provisioner.Request) {
			m := *r.Manifest
			m.Application.SecurityDomain = iso7816.MustAID("F0465245454152454D")
			r.Manifest, r.Consent = &m, c.consent(&m, m.SubjectItems(r.Subject))
		}},
		{name: "too little memory allowed", text: "application.memory", change: func(c *counter, r *provisioner.Request) {
			m := *r.Manifest
			m.Application.Memory = 100
			r.Manifest, r.Consent = &m, c.consent(&m, m.SubjectItems(r.Subject))
		}},
		{name: "unknown profile", text: `"type-a"`, change: func(c *counter, _ *provisioner.Request) { c.Profiles = applets.Profiles{applets.Base()[0]} }},
		{name: "no consent", text: "consent", change: func(_ *counter, r *provisioner.Request) { r.Consent = nil }},
		{name: "no ledger", want: provisioner.ErrNoLedger, change: func(c *counter, _ *provisioner.Request) { c.Ledger = nil }},
	}
	b := newBook(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCounter(t, b)
			r := c.request(library)
			test.change(c, &r)
			events := b.events
			_, err := c.issue(r)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error is %v, want %v %s", err, test.want, test.text)
			}
			if len(c.wire.commands) > 0 {
				t.Errorf("%d commands went to the card", len(c.wire.commands))
			}
			if b.events != events {
				t.Errorf("%d events were written", b.events-events)
			}
		})
	}
}

// untouched runs f and fails the test when the card was written to by it.
func (c *counter) untouched(f func() error, want error) {
	c.t.Helper()
	registry, written := c.registry(), c.wire.written()
	wants(c.t, f(), want)
	if n := c.wire.written(); n != written {
		c.t.Errorf("%d writes on the card", n-written)
	}
	if now := c.registry(); now != registry {
		c.t.Errorf("registry was\n%s\nand is\n%s", registry, now)
	}
}

func (c *counter) refused(r provisioner.Request, want error) {
	c.t.Helper()
	c.untouched(func() error { _, err := c.issue(r); return err }, want)
}

func TestOtherConsents(t *testing.T) {
	b := newBook(t)
	c, other := newCounter(t, b), newCounter(t, b)
	first := c.request(office)
	c.mustIssue(first)
	c.refused(c.request(office), provisioner.ErrOtherIssue)
	other.refused(first, provisioner.ErrOtherCard)
	_, _, err := other.plan(first) // before anything is carried out
	wants(t, err, provisioner.ErrOtherCard)
	if n := len(events[ledger.IDReserved](t, b, ledger.Filter{})); n != 1 {
		t.Errorf("%d IDs reserved, want 1", n)
	}

	// Two counters plan on one consent before either has bound it.
	r := c.request(points)
	s1, plan1, err := c.plan(r)
	check(t, err)
	defer s1.Close()
	s2, plan2, err := other.plan(r)
	check(t, err)
	defer s2.Close()
	other.untouchedByRun(s2, plan1, nil) // and a plan is for its own card
	_, err = c.Run(t.Context(), s1, plan1)
	check(t, err)
	other.untouchedByRun(s2, plan2, provisioner.ErrOtherCard)

	// The holder changes his mind between plan and run.
	r = other.request(office)
	s3, plan3, err := other.plan(r)
	check(t, err)
	defer s3.Close()
	check(t, other.RecordConsent(t.Context(), r.Consent))
	_, err = b.Append(t.Context(), ledger.Event{Actor: c.Actor, Data: ledger.ConsentWithdrawn{Consent: r.Consent.Record.ID}})
	check(t, err)
	other.untouchedByRun(s3, plan3, ledger.ErrWithdrawn)
}

// untouchedByRun carries a plan out, which must fail without a command.
func (c *counter) untouchedByRun(s *provisioner.Session, plan *provisioner.Plan, want error) {
	c.t.Helper()
	n := len(c.wire.commands)
	_, err := c.Run(c.t.Context(), s, plan)
	if err == nil || want != nil && !errors.Is(err, want) {
		c.t.Errorf("error is %v, want %v", err, want)
	}
	if len(c.wire.commands) != n {
		c.t.Errorf("%d commands went to the card", len(c.wire.commands)-n)
	}
}

func TestAIDOfAnotherService(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	c.mustIssue(c.request(points))
	m := *points
	m.ID = "another-street"
	r := c.request(&m)
	c.refused(r, ledger.ErrAIDTaken)
	_, _, err := c.plan(r)
	wants(t, err, ledger.ErrAIDTaken)
	s, err := c.Connect(t.Context())
	check(t, err)
	defer s.Close()
	_, err = c.PlanWithdraw(t.Context(), s, &m)
	wants(t, err, ledger.ErrAIDTaken)
	c.untouched(func() error { _, err := c.withdraw(&m); return err }, ledger.ErrAIDTaken)
}

// A wrong key costs the card nothing, is counted, and is not tried for ever.
func TestWrongKey(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	right, wrong := c.SecurityDomainKey, keys.Ref{Name: "other-manager"}
	c.SecurityDomainKey = wrong
	connect := func() error {
		s, err := c.Connect(t.Context())
		if err == nil {
			s.Close()
		}
		return err
	}
	var warned []int
	c.Failed = func(failed, limit int) { warned = append(warned, failed, limit) }
	const allowed = 3
	for n := range allowed {
		wants(t, connect(), scp.ErrCardCryptogram)
		if got := len(events[ledger.AuthenticationFailed](t, b, ledger.Filter{})); got != n+1 {
			t.Errorf("%d failures recorded, want %d", got, n+1)
		}
	}
	if want := []int{1, allowed, 2, allowed}; !slices.Equal(warned, want) {
		t.Errorf("warned of %v, want %v", warned, want)
	}
	if n := c.wire.sent(insExternalAuthenticate); n != 0 {
		t.Errorf("%d times EXTERNAL AUTHENTICATE to a card that had proved nothing", n)
	}
	for _, key := range []keys.Ref{wrong, right} {
		c.SecurityDomainKey = key
		n := c.wire.sent(insInitializeUpdate)
		wants(t, connect(), provisioner.ErrTooManyFailures)
		if c.wire.sent(insInitializeUpdate) != n {
			t.Error("INITIALIZE UPDATE was sent once more")
		}
	}
	other := newCounter(t, b) // the count is this card's alone
	check(t, func() error { s, err := other.Connect(t.Context()); s.Close(); return err }())

	c.RetryAfterFailures = true
	c.SecurityDomainKey = wrong
	wants(t, connect(), scp.ErrCardCryptogram)
	c.SecurityDomainKey = right
	check(t, connect())
	c.RetryAfterFailures = false
	check(t, connect())
	c.SecurityDomainKey = wrong
	wants(t, connect(), scp.ErrCardCryptogram) // counting has begun anew
	c.SecurityDomainKey = right
	check(t, connect())
	if n := len(events[ledger.AuthenticationSucceeded](t, b, ledger.Filter{})); n != 2 {
		t.Errorf("%d successes recorded, want one after each row of failures", n)
	}
	e := events[ledger.AuthenticationFailed](t, b, ledger.Filter{})[0]
	if e.Key != "other-manager" || e.Target != globalplatform.IssuerSecurityDomain || e.KeyVersion != 1 {
		t.Errorf("recorded %+v", e)
	}

	// Without its record a failure isn't passed over.
	c.SecurityDomainKey = wrong
	b.fail(1, false)
	err := connect()
	b.fail(0, false)
	wants(t, err, scp.ErrCardCryptogram)
	wants(t, err, errDisk)
}

// A key that a Security Domain has refused is not tried again while the card
// lies there, whatever else is done with the card.
func TestWrongKeyOnce(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	byDomain(c)
	c.mustIssue(c.request(points))
	right := c.Domains[0].Key
	c.Domains[0].Key = keys.Ref{Name: "service"}
	s, err := c.Connect(t.Context())
	check(t, err)
	defer s.Close()
	n := c.wire.sent(insInitializeUpdate)
	for range 2 {
		_, err := c.Wipe(t.Context(), s, points)
		wants(t, err, scp.ErrCardCryptogram)
	}
	if sent := c.wire.sent(insInitializeUpdate) - n; sent != 1 {
		t.Errorf("%d times INITIALIZE UPDATE", sent)
	}
	if n := len(events[ledger.AuthenticationFailed](t, b, ledger.Filter{})); n != 1 {
		t.Errorf("%d failures recorded", n)
	}
	c.Domains[0].Key = right
	_, err = c.withdraw(points) // another session
	check(t, err)
}

// impostor answers GET DATA in the clear with another card's identity.
type impostor struct {
	iso7816.Card
	tag byte
}

func (i impostor) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := i.Card.Transmit(ctx, command)
	if err == nil && command[0]&0x04 == 0 && command[1] == 0xCA && command[3] == i.tag {
		response[len(response)-3] ^= 1
	}
	return response, err
}

func TestIdentityUnderTheChannel(t *testing.T) {
	for _, tag := range []byte{0x42, 0x45} {
		c := newCounter(t, newBook(t))
		c.Card = impostor{c.Card, tag}
		_, err := c.Connect(t.Context())
		wants(t, err, iso7816.ErrProtocol)
	}
}

// anyLinker executes whatever load file comes as something that can do nothing.
type anyLinker struct{}

func (anyLinker) Link(iso7816.AID, []byte, [32]byte) (map[iso7816.AID]oncard.Module, error) {
	return nil, nil
}

// loadOn brings a load file to the card beside the provisioner.
func (c *counter) loadOn(file *capfile.File) {
	c.t.Helper()
	s := c.domain()
	defer s.Close()
	_, err := globalplatform.Load(c.t.Context(), s, file, globalplatform.LoadOptions{}, nil)
	check(c.t, err)
}

// installOn installs an instance of a base module.
func (c *counter) installOn(profile string, instance iso7816.AID, spec applets.InstallSpec, selectable bool) {
	c.t.Helper()
	p, _ := applets.Base().Lookup(profile)
	if p.Traits().MutualAuthentication {
		spec.DiversificationData = [10]byte{7}
	}
	module, _ := applets.BaseModule(profile)
	c.execute(globalplatform.InstallForInstall{
		LoadFile: applets.BasePackage, Module: module, Instance: instance, MakeSelectable: selectable,
		Parameters: globalplatform.InstallParameters{Specific: must(p.InstallParameters(spec))},
	})
}

func TestForeign(t *testing.T) {
	unlinked := func(c *emulator.Config) { c.Linker = anyLinker{} }
	b := newBook(t)
	for name, file := range map[string]*capfile.File{"version": otherVersion(), "modules": otherModules()} {
		t.Run("load file of another "+name, func(t *testing.T) {
			c := newCounter(t, b, unlinked)
			c.loadOn(file)
			c.refused(c.request(office), provisioner.ErrForeign)
		})
	}
	t.Run("load file where the instance should be", func(t *testing.T) {
		c := newCounter(t, b)
		c.loadOn(baseLoadFile)
		m := *points
		m.ID, m.Application.Instance = "street-2", applets.BasePackage
		c.refused(c.request(&m), provisioner.ErrForeign)
		c.untouched(func() error { _, err := c.withdraw(&m); return err }, provisioner.ErrForeign)
	})
	for _, aid := range []string{"D392F000260100000001", "A000000151000000"} {
		t.Run("the card's own "+aid, func(t *testing.T) {
			c := newCounter(t, b)
			m := *points
			m.ID, m.Application.Instance = "street-"+aid[:4], iso7816.MustAID(aid)
			c.refused(c.request(&m), provisioner.ErrForeign)
			c.untouched(func() error { _, err := c.withdraw(&m); return err }, provisioner.ErrForeign)
		})
	}
	t.Run("application where the load file should be", func(t *testing.T) {
		c := newCounter(t, b)
		c.loadOn(baseLoadFile)
		c.installOn("common-ap", points.Application.Instance, applets.InstallSpec{}, true)
		r := c.request(points)
		block := baseLoadFile.LoadFileDataBlock()
		copy(block[offsetOf(applets.BasePackage.Bytes()):], points.Application.Instance.Bytes()[:applets.BasePackage.Len()])
		r.LoadFile = must(capfile.ParseLoadFileDataBlock(block))
		m := *points
		m.ID, m.Application.Package, m.LoadFile.SHA256 = "street-3", r.LoadFile.Package.AID, manifest.Hash(r.LoadFile.Hash())
		m.Application.Instance = iso7816.MustAID("FCFE8F0A6CBE84744A1EA0FD16C247C2")
		c.installOn("common-ap", r.LoadFile.Package.AID, applets.InstallSpec{}, true)
		r.Manifest, r.Consent = &m, c.consent(&m, nil)
		c.refused(r, provisioner.ErrForeign)
	})
	t.Run("instance of another type", func(t *testing.T) {
		c := newCounter(t, b)
		c.loadOn(baseLoadFile)
		c.installOn("type-a", office.Application.Instance, applets.InstallSpec{KeySets: 1}, true)
		c.refused(c.request(office), provisioner.ErrForeign)
	})
	t.Run("instance of another load file", func(t *testing.T) {
		c := newCounter(t, b)
		c.loadOn(baseLoadFile)
		c.installOn("type-d", office.Application.Instance, applets.InstallSpec{KeySets: 1}, true)
		block := baseLoadFile.LoadFileDataBlock()
		block[offsetOf(applets.BasePackage.Bytes())+1] ^= 1
		r := c.request(office)
		r.LoadFile = must(capfile.ParseLoadFileDataBlock(block))
		m := *office
		m.ID, m.Application.Package, m.LoadFile.SHA256 = "pass-2", r.LoadFile.Package.AID, manifest.Hash(r.LoadFile.Hash())
		r.Manifest, r.Consent = &m, c.consent(&m, m.SubjectItems(r.Subject))
		c.refused(r, provisioner.ErrForeign)
		c.untouched(func() error { _, err := c.withdraw(&m); return err }, provisioner.ErrForeign)
	})
	t.Run("instance too small", func(t *testing.T) {
		c := newCounter(t, newBook(t))
		c.mustIssue(c.request(office))
		// Another ledger, another manifest: more items than the instance has room for.
		other := newBook(t)
		c.book, c.wire.book, c.Ledger = other, other, other
		m := *office
		m.Items = append([]manifest.Item{{Name: "floor", Type: manifest.ItemText, MaxLength: 40}}, m.Items...)
		r := c.request(office)
		r.Manifest, r.Consent = &m, c.consent(&m, m.SubjectItems(r.Subject))
		c.refused(r, provisioner.ErrForeign)
	})
}

// TestAnotherBuild: no command tells which build of a load file's version a card
// has. What is there is used, and goes with the last service.
func TestAnotherBuild(t *testing.T) {
	c := newCounter(t, newBook(t), func(c *emulator.Config) { c.Linker = jcvm.Linker{Quirks: jcvm.Quirks{NoLeIsZero: true}} })
	// The same code, and more: another hash.
	c.loadOn(must(capfile.ParseLoadFileDataBlock(append(baseLoadFile.LoadFileDataBlock(), baseLoadFile.Component(capfile.Descriptor)...))))
	before := c.wire.sent(insLoad)
	r := c.request(office)
	c.mustIssue(r)
	if n := c.wire.sent(insLoad) - before; n != 0 {
		t.Errorf("%d LOAD commands to a card that has the load file", n)
	}
	if tap, err := c.read(office, ""); err != nil || tap.ID == "" {
		t.Errorf("tap %+v, %v", tap, err)
	}
	_, err := c.withdraw(office)
	check(t, err)
	s, err := c.Connect(t.Context())
	check(t, err)
	defer s.Close()
	if slices.ContainsFunc(s.LoadFiles, func(e globalplatform.RegistryEntry) bool { return e.AID == applets.BasePackage }) {
		t.Error("the load file stays when its last service is withdrawn")
	}
}

func TestLocked(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	r := c.request(office)
	c.mustIssue(r)
	c.execute(globalplatform.Lock(office.Application.Instance))
	c.refused(r, provisioner.ErrCardState)
	c.untouched(func() error { _, err := c.withdraw(office); return err }, provisioner.ErrCardState)
	c.execute(globalplatform.Unlock(office.Application.Instance))
	if result := c.mustIssue(r); result.Steps != 0 {
		t.Errorf("%d steps on a card that was resumed", result.Steps)
	}

	d, err := c.Desire(t.Context(), c.request(points))
	check(t, err)
	s, err := c.Connect(t.Context())
	check(t, err)
	defer s.Close()
	for _, state := range []byte{globalplatform.CardLocked, globalplatform.CardTerminated} {
		s.Domain.State = state
		_, err := c.PlanIssue(t.Context(), s, d)
		wants(t, err, provisioner.ErrCardState)
		_, err = c.PlanWithdraw(t.Context(), s, office)
		wants(t, err, provisioner.ErrCardState)
	}
}

// A card without room is refused by the plan where it tells its room, and by
// the card itself otherwise. Nothing half installed stays on it.
func TestFullCard(t *testing.T) {
	code := len(baseLoadFile.LoadFileDataBlock())
	for _, profile := range []string{"emulated", "generic"} {
		for _, memory := range []int{0, code / 2, code + 64 + 3*16, code + 600, code + 1000, code + 64 + 3*16 + 64 + 100} {
			t.Run(fmt.Sprintf("%s,%d", profile, memory), func(t *testing.T) {
				c := newCounter(t, newBook(t), withMemory(memory))
				c.CardProfile = cardProfile(profile)
				c.full(c.request(library))
			})
		}
	}
	t.Run("beside another", func(t *testing.T) {
		b := newBook(t)
		c := newCounter(t, b)
		c.mustIssue(c.request(office))
		used := c.emulated().Memory().PersistentUsed
		c = newCounter(t, b, withMemory(used+500))
		r := c.request(office)
		c.mustIssue(r)
		c.full(c.request(library))
		c.holds(office, events[ledger.Issued](t, b, ledger.Filter{Consent: r.Consent.Record.ID})[0].ID)
	})
	// Every size at which the card refuses though its host thought that it fits.
	t.Run("nearly", func(t *testing.T) {
		b := newBook(t)
		c := newCounter(t, b)
		c.mustIssue(c.request(office))
		used := c.emulated().Memory().PersistentUsed
		failed := 0
		for memory := used; memory > used-300; memory -= 10 {
			c := newCounter(t, b, withMemory(memory))
			r := c.request(office)
			if memory == used {
				c.mustIssue(r)
				continue
			}
			c.full(r)
			failed += len(events[ledger.RunFinished](t, b, ledger.Filter{}))
		}
		if failed == 0 {
			t.Error("no card refused by itself")
		}
	})
}

// full issues to a card that has no room.
func (c *counter) full(r provisioner.Request) {
	c.t.Helper()
	registry, used := c.registry(), c.emulated().Memory().PersistentUsed
	_, err := c.issue(r)
	wants(c.t, err, iso7816.ErrNoMemory)
	if now := c.registry(); now != registry {
		c.t.Errorf("registry was\n%s\nand is\n%s", registry, now)
	}
	if now := c.emulated().Memory().PersistentUsed; now != used {
		c.t.Errorf("%d bytes used, %d before", now, used)
	}
	if c.wire.stray != nil {
		c.t.Error(c.wire.stray)
	}
	for _, run := range events[ledger.RunStarted](c.t, c.book, ledger.Filter{Consent: r.Consent.Record.ID}) {
		end := events[ledger.RunFinished](c.t, c.book, ledger.Filter{Run: run.Run})
		if len(end) != 1 || end[0].Outcome != ledger.Failed || !strings.Contains(end[0].Error, "6A84") {
			c.t.Errorf("the run ended with %+v", end)
		}
		refused := events[ledger.StepFailed](c.t, c.book, ledger.Filter{Run: run.Run})
		if len(refused) != 1 || refused[0].Status != "6A84" {
			c.t.Errorf("steps failed: %+v", refused)
		}
	}
	if n := len(events[ledger.Issued](c.t, c.book, ledger.Filter{Consent: r.Consent.Record.ID})); n != 0 {
		c.t.Error("an issue is recorded")
	}
}
