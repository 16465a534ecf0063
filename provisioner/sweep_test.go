package provisioner_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/internal/sweep"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

// flow is something that a clerk does with a card, and that can be torn.
type flow struct {
	name     string
	manifest *manifest.Manifest
	// prepare brings a new card to where the flow begins, and returns the
	// request that is to be carried out (its consent alone, when withdrawing).
	prepare     func(c *counter) provisioner.Request
	withdrawing bool
	issues      int // Issued events of the consent in the end
	// act is what the clerk does, where it is neither issuing nor withdrawing.
	act func(c *counter, r provisioner.Request) (*provisioner.Result, error)
	// event is what the ledger records of it, where it is no issue; once.
	event func(ledger.Event) bool
	state ledger.State // of the service in the end; "" is Active
	// between holds what must be true at every moment, beside the rest.
	between func(t *testing.T, x *torn)
	// done holds the card against what is wanted, beside the ID.
	done func(t *testing.T, c *counter)
}

func flows() []flow {
	fresh := func(m *manifest.Manifest) func(*counter) provisioner.Request {
		return func(c *counter) provisioner.Request { return c.request(m) }
	}
	// issued prepares a card that holds the service already.
	issued := func(m *manifest.Manifest) func(*counter) provisioner.Request {
		return func(c *counter) provisioner.Request {
			r := c.request(m)
			c.mustIssue(r)
			return r
		}
	}
	empty := func(t *testing.T, c *counter) {
		if m := c.emulated().Memory(); m.PersistentUsed != 0 {
			t.Errorf("%d bytes of the card are still used", m.PersistentUsed)
		}
	}
	tries := func(n int) func(*testing.T, *counter) {
		return func(t *testing.T, c *counter) {
			if o, _ := c.observe(library); o.PIN == nil || o.PIN.TriesLeft != n {
				t.Errorf("PIN is %+v, want %d tries left", o.PIN, n)
			}
		}
	}
	return append(append(domainFlows(), lifeFlows()...), []flow{
		{name: "issue common-ap", manifest: points, prepare: fresh(points), issues: 1},
		{name: "issue type-a", manifest: library, prepare: fresh(library), issues: 1, done: tries(3)},
		{name: "issue type-d", manifest: office, prepare: fresh(office), issues: 1},
		{name: "issue beside another", manifest: points, issues: 1, prepare: func(c *counter) provisioner.Request {
			c.mustIssue(c.request(office))
			return c.request(points)
		}},
		{name: "update type-a", manifest: library, issues: 2, prepare: func(c *counter) provisioner.Request {
			r := issued(library)(c)
			if _, err := c.read(library, "0000"); !errors.Is(err, applets.ErrWrongPIN) {
				c.t.Fatalf("wrong PIN: %v", err)
			}
			r.Subject.Items = map[string]string{"category": "CHILD", "home-branch": "東館"}
			r.Subject.PIN = "1357" // must not come onto the card
			return r
		}, done: func(t *testing.T, c *counter) {
			// holds has verified the first PIN, which gives the tries back.
			tap, err := c.read(library, "2580")
			check(t, err)
			if len(tap.Items) != 2 || tap.Items[0].Value != "CHILD" || tap.IssueNumber != 2 {
				t.Errorf("tap %+v", tap)
			}
		}},
		{name: "issue by recipe", manifest: record, prepare: fresh(record), issues: 1},
		{name: "update by recipe", manifest: record, issues: 2, prepare: func(c *counter) provisioner.Request {
			r := issued(record)(c)
			r.Subject.Items = map[string]string{"class": "BLUE"}
			r.Subject.PIN = "1357" // must not come onto the card
			return r
		}, done: func(t *testing.T, c *counter) {
			if tap := c.holds(record, must(c.read(record, "2580")).ID); len(tap.Items) != 1 || tap.Items[0].Value != "BLUE" || tap.IssueNumber != 2 {
				t.Errorf("tap %+v", tap)
			}
		}},
		{name: "withdraw by recipe", manifest: record, prepare: issued(record), withdrawing: true, issues: 1, done: empty},
		{name: "withdraw type-d", manifest: office, prepare: issued(office), withdrawing: true, issues: 1, done: empty},
		{name: "withdraw type-a", manifest: library, prepare: issued(library), withdrawing: true, issues: 1, done: empty},
		{name: "withdraw beside another", manifest: library, withdrawing: true, issues: 1, prepare: func(c *counter) provisioner.Request {
			c.mustIssue(c.request(points))
			return issued(library)(c)
		}, done: func(t *testing.T, c *counter) {
			if _, err := c.read(points, ""); err != nil {
				t.Errorf("the service beside it: %v", err)
			}
		}},
		{name: "issue after withdrawal", manifest: office, issues: 1, prepare: func(c *counter) provisioner.Request {
			issued(office)(c)
			_, err := c.withdraw(office)
			check(c.t, err)
			return c.request(office)
		}},
	}...)
}

// attempt carries the flow out once, from the consent on.
func (f flow) attempt(c *counter, r provisioner.Request) (*provisioner.Result, error) {
	r.Now = c.now
	switch {
	case f.withdrawing:
		return c.withdraw(f.manifest)
	case f.act != nil:
		return f.act(c, r)
	}
	return c.issue(r)
}

// wanted is the state of the service in the end.
func (f flow) wanted() ledger.State {
	switch {
	case f.withdrawing:
		return ledger.Ended
	case f.state != "":
		return f.state
	}
	return ledger.Active
}

// torn is a flow that has begun on a card of its own.
type torn struct {
	flow
	*counter
	request  provisioner.Request
	ref      ledger.CardRef
	written  int // writes of the card before the flow
	issued   int // Issued events of the consent before it
	before   int // outcomes before it
	pinTries int // left before it; 0 where there is no PIN
}

func (f flow) begin(t *testing.T, b *book) *torn {
	t.Helper()
	c := newCounter(t, b)
	x := &torn{flow: f, counter: c, request: f.prepare(c), ref: c.cardRef()}
	x.issued = len(events[ledger.Issued](t, b, ledger.Filter{Consent: x.consentID()}))
	if x.locked() {
	} else if o, _ := c.observe(f.manifest); o.PIN != nil {
		x.pinTries = o.PIN.TriesLeft
	}
	x.before = x.outcomes(t)
	c.wire.commands = nil
	x.written = c.wire.written()
	return x
}

// outcomes counts what the flow's event is, on this card.
func (x *torn) outcomes(t *testing.T) (n int) {
	if x.event == nil {
		return 0
	}
	for e, err := range x.book.Events(t.Context(), ledger.Filter{Card: x.ref}) {
		check(t, err)
		if x.event(e) {
			n++
		}
	}
	return n
}

func (x *torn) consentID() string { return x.request.Consent.Record.ID }

// interrupted checks what must be true between a torn run and the next.
func (x *torn) interrupted(t *testing.T) {
	t.Helper()
	runs, err := x.book.UnfinishedRuns(t.Context(), x.ref)
	check(t, err)
	if x.wire.written() != x.written && len(runs) == 0 && !x.recorded(t) {
		t.Error("the card was written to, and the ledger knows of no run")
	}
	if x.wire.stray != nil {
		t.Error(x.wire.stray)
	}
	if x.between != nil {
		x.between(t, x)
	}
	if x.locked() {
		return
	}
	if o, ok := x.observe(x.manifest); ok && o.PIN != nil && x.pinTries > 0 && o.PIN.TriesLeft > x.pinTries {
		t.Errorf("%d PIN tries are left, %d were", o.PIN.TriesLeft, x.pinTries)
	}
}

// recorded reports whether the ledger has the outcome.
func (x *torn) recorded(t *testing.T) bool {
	if x.withdrawing {
		return len(events[ledger.Withdrawn](t, x.book, ledger.Filter{Card: x.ref, Service: x.manifest.ID})) > 0
	}
	if x.event != nil {
		return x.outcomes(t) > x.before
	}
	return len(events[ledger.Issued](t, x.book, ledger.Filter{Consent: x.consentID()})) == x.issues
}

// locked reports whether the instance can't be asked what it holds.
func (x *torn) locked() bool {
	e := x.entry(x.manifest.Application.Instance)
	return e != nil && e.Locked()
}

// finish runs again, the next day, and checks what must be true in the end.
func (x *torn) finish(t *testing.T) {
	t.Helper()
	x.emulated().SetCut(emulator.Cut{})
	x.emulated().PowerOn()
	x.book.fail(0, false)
	x.now = x.now.Add(24 * time.Hour)
	done := x.recorded(t)
	result, err := x.attempt(x.counter, x.request)
	if err != nil {
		t.Fatalf("running again: %v", err)
	}
	if x.withdrawing && done && result.Run != "" {
		t.Fatalf("withdrawing what is withdrawn made the run %s", result.Run)
	}
	if x.wire.stray != nil {
		t.Error(x.wire.stray)
	}

	id, has, err := x.book.ReservedID(t.Context(), x.manifest.ID, x.consentID())
	check(t, err)
	if n := x.outcomes(t) - x.before; x.event != nil && n != 1 && !(x.resets() && n > 1) {
		t.Errorf("%d outcomes are recorded, %d were before", x.outcomes(t), x.before)
	}
	issued := events[ledger.Issued](t, x.book, ledger.Filter{Consent: x.consentID()})
	if !has {
		t.Fatal("the consent has no ID")
	}
	if x.request.Carry == nil {
		if n := len(events[ledger.IDReserved](t, x.book, ledger.Filter{Consent: x.consentID()})); n != 1 {
			t.Fatalf("%d IDs reserved, want 1", n)
		}
	}
	if len(issued) != x.issues {
		t.Fatalf("%d issues recorded, want %d", len(issued), x.issues)
	}
	for i, e := range issued {
		if e.Card != x.ref && x.request.Carry != nil {
			continue // on the card before
		}
		if e.ID != id || e.Card != x.ref || i > 0 && e.IssueNumber <= issued[i-1].IssueNumber {
			t.Errorf("issue %+v of ID %s", e, id)
		}
	}
	runs, err := x.book.UnfinishedRuns(t.Context(), x.ref)
	check(t, err)
	if len(runs) != 0 {
		t.Errorf("unfinished runs %+v", runs)
	}
	states, err := x.book.Services(t.Context(), x.ref)
	check(t, err)
	for _, s := range states {
		want := ledger.Active
		if s.Service == x.manifest.ID {
			want = x.wanted()
		}
		if s.State != want {
			t.Errorf("%s is %s in the ledger, want %s", s.Service, s.State, want)
		}
	}

	switch {
	case x.withdrawing:
		if n := len(events[ledger.Withdrawn](t, x.book, ledger.Filter{Card: x.ref, Service: x.manifest.ID})); n != 1 {
			t.Errorf("%d withdrawals recorded, want 1", n)
		}
		if _, ok := x.observe(x.manifest); ok {
			t.Error("the instance is still on the card")
		}
	case x.wanted() != ledger.Active:
		x.settled(t)
	default:
		if x.pinTries > 0 && x.event == nil {
			if o, _ := x.observe(x.manifest); o.PIN == nil || o.PIN.TriesLeft > x.pinTries {
				t.Errorf("PIN is %+v, %d tries were left", o.PIN, x.pinTries)
			}
		}
		if x.event == nil && result.ID != id {
			t.Errorf("ID %s, reserved was %s", result.ID, id)
		}
		o, _ := x.observe(x.manifest)
		last := issued[len(issued)-1]
		if fmt.Sprintf("%x", o.Tag) != last.Tag || o.IssueNumber != last.IssueNumber {
			t.Errorf("the card holds tag %x, number %d; the ledger says %s, %d", o.Tag, o.IssueNumber, last.Tag, last.IssueNumber)
		}
		if !x.resets() {
			x.holds(x.manifest, id)
			x.settled(t)
		}
	}
	if x.done != nil {
		x.done(t, x.counter)
	}
}

// resets tells a flow that does again what it did, however often.
func (x *torn) resets() bool { return strings.Contains(x.name, "PIN reset") }

// count adds a cut to the sweep's figures, with what the card and the ledger
// say of each other afterwards.
func (x *torn) count(t *testing.T) {
	lost, orphans := x.audit(t)
	if lost+orphans > 0 {
		t.Errorf("%d issues lost, %d orphans on the card", lost, orphans)
	}
	figures.Add(sweep.Figures{Cuts: 1, Converged: sweep.Count(!t.Failed()), Lost: lost, Orphans: orphans}, x.name)
}

// audit holds everything on the card against everything in the ledger. Lost
// is what the ledger says that the card holds and it does not, or what it
// holds and the ledger does not know; an orphan is an instance or a load file
// for which the ledger has no issue.
func (x *torn) audit(t *testing.T) (lost, orphans int) {
	x.emulated().SetCut(emulator.Cut{})
	x.emulated().PowerOn()
	list, err := x.book.IssuesOn(t.Context(), x.ref)
	check(t, err)
	issues := map[string]ledger.CardIssue{}
	for _, i := range list {
		issues[i.Service] = i
	}
	files := map[iso7816.AID]bool{}
	for _, m := range append(all[:len(all):len(all)], record) {
		issue, known := issues[m.ID]
		files[m.Application.Package] = files[m.Application.Package] || known
		e := x.entry(m.Application.Instance)
		switch {
		case e == nil && known:
			lost++
		case e != nil && !known:
			orphans++
		}
		if e == nil || e.Locked() || !known {
			continue
		}
		if o, ok := x.observe(m); !ok || fmt.Sprintf("%x", o.Tag) != issue.Tag || o.IssueNumber != issue.IssueNumber {
			lost++
		}
	}
	for aid, used := range files {
		if !used && x.entry(aid) != nil {
			orphans++
		}
	}
	return lost, orphans
}

// settled runs once more: nothing is left to do.
func (x *torn) settled(t *testing.T) {
	t.Helper()
	written, count := x.wire.written(), x.book.events
	result, err := x.attempt(x.counter, x.request)
	check(t, err)
	if result.Steps != 0 || x.wire.written() != written || x.book.events != count {
		t.Errorf("a third run did %d steps, %d writes on the card, %d in the ledger",
			result.Steps, x.wire.written()-written, x.book.events-count)
	}
}

// cuts are all places where the flow can lose power.
func (f flow) cuts(t *testing.T, b *book) []emulator.Cut {
	t.Helper()
	x := f.begin(t, b)
	x.emulated().CountWrites()
	_, err := f.attempt(x.counter, x.request)
	check(t, err)
	var out []emulator.Cut
	for i, writes := range x.emulated().Writes() {
		out = append(out, emulator.Cut{Command: i + 1, Where: emulator.BeforeCommand})
		for w := range writes {
			out = append(out, emulator.Cut{Command: i + 1, Where: emulator.BeforeWrite, Write: w + 1})
		}
		out = append(out, emulator.Cut{Command: i + 1, Where: emulator.AfterCommand})
	}
	return out
}

// part is the stride at which a sweep that is a part of the tests takes its
// places: all of them take minutes.
func part(places int) int {
	const some = 3
	if sweep.Full() || places <= some {
		return 1
	}
	return (places + some - 1) / some
}

// Power is cut before every command, before every write of every command and
// after every command; the next day the clerk does the same again.
func TestPowerCuts(t *testing.T) {
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			cuts := f.cuts(t, b)
			stride := part(len(cuts))
			if f.name == "issue type-d" {
				stride = 1
			}
			swept := 0
			for i := 0; i < len(cuts); i += stride {
				swept++
				cut := cuts[i]
				if !t.Run(cut.String(), func(t *testing.T) {
					x := f.begin(t, b)
					defer x.count(t)
					x.emulated().SetCut(cut)
					_, err := f.attempt(x.counter, x.request)
					wants(t, err, iso7816.ErrCardRemoved)
					x.emulated().PowerOn()
					x.interrupted(t)
					x.finish(t)
				}) {
					t.FailNow()
				}
			}
			t.Logf("%d of %d cuts", swept, len(cuts))
		})
	}
}

// The program stops before every write to the ledger, and after every one.
func TestCrashes(t *testing.T) {
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			x := f.begin(t, b)
			b.fail(0, false)
			_, err := f.attempt(x.counter, x.request)
			check(t, err)
			writes := b.writes
			for n := 1; n <= writes; n += part(writes) {
				for _, after := range []bool{false, true} {
					if !t.Run(fmt.Sprintf("%d,%v", n, after), func(t *testing.T) {
						x := f.begin(t, b)
						defer x.count(t)
						b.fail(n, after)
						_, err := f.attempt(x.counter, x.request)
						b.fail(0, false)
						if n < writes || !after {
							wants(t, err, errDisk)
						}
						x.emulated().PowerOff()
						x.emulated().PowerOn()
						x.interrupted(t)
						x.finish(t)
					}) {
						t.FailNow()
					}
				}
			}
			t.Logf("%d writes to the ledger", writes)
		})
	}
}

// Cards are torn and programs crash while what the last time left is finished.
func TestRepeatedFaults(t *testing.T) {
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			cuts := f.cuts(t, b)
			rounds := 1
			if sweep.Full() {
				rounds = 12
			}
			for seed := range uint64(rounds) {
				if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
					random := rand.New(rand.NewPCG(seed, 1))
					x := f.begin(t, b)
					defer x.count(t)
					for range 1 + random.IntN(5) {
						if random.IntN(3) == 0 {
							b.fail(1+random.IntN(8), random.IntN(2) == 0)
						} else {
							x.emulated().SetCut(cuts[random.IntN(len(cuts))])
						}
						_, err := f.attempt(x.counter, x.request)
						x.emulated().SetCut(emulator.Cut{})
						x.emulated().PowerOff()
						x.emulated().PowerOn()
						b.fail(0, false)
						switch {
						case err == nil, errors.Is(err, errDisk), errors.Is(err, iso7816.ErrCardRemoved):
						default:
							t.Fatal(err)
						}
						x.interrupted(t)
					}
					x.finish(t)
				}) {
					t.FailNow()
				}
			}
		})
	}
}
