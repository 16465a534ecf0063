package provisioner_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
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
	return append(domainFlows(), []flow{
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
	if f.withdrawing {
		return c.withdraw(f.manifest)
	}
	r.Now = c.now
	return c.issue(r)
}

// torn is a flow that has begun on a card of its own.
type torn struct {
	flow
	*counter
	request  provisioner.Request
	ref      ledger.CardRef
	written  int // writes of the card before the flow
	issued   int // Issued events of the consent before it
	pinTries int // left before it; 0 where there is no PIN
}

func (f flow) begin(t *testing.T, b *book) *torn {
	t.Helper()
	c := newCounter(t, b)
	x := &torn{flow: f, counter: c, request: f.prepare(c), ref: c.cardRef()}
	x.issued = len(events[ledger.Issued](t, b, ledger.Filter{Consent: x.consentID()}))
	if o, _ := c.observe(f.manifest); o.PIN != nil {
		x.pinTries = o.PIN.TriesLeft
	}
	c.wire.commands = nil
	x.written = c.wire.written()
	return x
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
	if o, ok := x.observe(x.manifest); ok && o.PIN != nil && x.pinTries > 0 && o.PIN.TriesLeft > x.pinTries {
		t.Errorf("%d PIN tries are left, %d were", o.PIN.TriesLeft, x.pinTries)
	}
}

// recorded reports whether the ledger has the outcome.
func (x *torn) recorded(t *testing.T) bool {
	if x.withdrawing {
		return len(events[ledger.Withdrawn](t, x.book, ledger.Filter{Card: x.ref, Service: x.manifest.ID})) > 0
	}
	return len(events[ledger.Issued](t, x.book, ledger.Filter{Consent: x.consentID()})) == x.issues
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
	if x.withdrawing && done {
		if !errors.Is(err, provisioner.ErrNotOnCard) {
			t.Fatalf("withdrawing what is withdrawn: %v", err)
		}
	} else if err != nil {
		t.Fatalf("running again: %v", err)
	}
	if x.wire.stray != nil {
		t.Error(x.wire.stray)
	}

	reserved := events[ledger.IDReserved](t, x.book, ledger.Filter{Consent: x.consentID()})
	issued := events[ledger.Issued](t, x.book, ledger.Filter{Consent: x.consentID()})
	if len(reserved) != 1 {
		t.Fatalf("%d IDs reserved, want 1", len(reserved))
	}
	if len(issued) != x.issues {
		t.Fatalf("%d issues recorded, want %d", len(issued), x.issues)
	}
	for i, e := range issued {
		if e.ID != reserved[0].ID || e.Card != x.ref || i > 0 && e.IssueNumber <= issued[i-1].IssueNumber {
			t.Errorf("issue %+v of ID %s", e, reserved[0].ID)
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
		if x.withdrawing && s.Service == x.manifest.ID {
			want = ledger.Ended
		}
		if s.State != want {
			t.Errorf("%s is %s in the ledger, want %s", s.Service, s.State, want)
		}
	}

	if x.withdrawing {
		if n := len(events[ledger.Withdrawn](t, x.book, ledger.Filter{Card: x.ref, Service: x.manifest.ID})); n != 1 {
			t.Errorf("%d withdrawals recorded, want 1", n)
		}
		if _, ok := x.observe(x.manifest); ok {
			t.Error("the instance is still on the card")
		}
	} else {
		if x.pinTries > 0 {
			if o, _ := x.observe(x.manifest); o.PIN == nil || o.PIN.TriesLeft > x.pinTries {
				t.Errorf("PIN is %+v, %d tries were left", o.PIN, x.pinTries)
			}
		}
		if result.ID != reserved[0].ID {
			t.Errorf("ID %s, reserved was %s", result.ID, reserved[0].ID)
		}
		o, _ := x.observe(x.manifest)
		last := issued[len(issued)-1]
		if fmt.Sprintf("%x", o.Tag) != last.Tag || o.IssueNumber != last.IssueNumber {
			t.Errorf("the card holds tag %x, number %d; the ledger says %s, %d", o.Tag, o.IssueNumber, last.Tag, last.IssueNumber)
		}
		x.holds(x.manifest, reserved[0].ID)
		x.settled(t)
	}
	if x.done != nil {
		x.done(t, x.counter)
	}
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

// Power is cut before every command, before every write of every command and
// after every command; the next day the clerk does the same again.
func TestPowerCuts(t *testing.T) {
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			cuts := f.cuts(t, b)
			stride := 1
			if testing.Short() && f.name != "issue type-d" {
				stride = 7
			}
			swept := 0
			for i := 0; i < len(cuts); i += stride {
				swept++
				cut := cuts[i]
				if !t.Run(cut.String(), func(t *testing.T) {
					x := f.begin(t, b)
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
			for n := 1; n <= writes; n++ {
				for _, after := range []bool{false, true} {
					if !t.Run(fmt.Sprintf("%d,%v", n, after), func(t *testing.T) {
						x := f.begin(t, b)
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
			rounds := 40
			if testing.Short() {
				rounds = 6
			}
			for seed := range uint64(rounds) {
				if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
					random := rand.New(rand.NewPCG(seed, 1))
					x := f.begin(t, b)
					for range 1 + random.IntN(5) {
						if random.IntN(3) == 0 {
							b.fail(1+random.IntN(8), random.IntN(2) == 0)
						} else {
							x.emulated().SetCut(cuts[random.IntN(len(cuts))])
						}
						done := x.recorded(t)
						_, err := f.attempt(x.counter, x.request)
						x.emulated().SetCut(emulator.Cut{})
						x.emulated().PowerOff()
						x.emulated().PowerOn()
						b.fail(0, false)
						switch {
						case err == nil, errors.Is(err, errDisk), errors.Is(err, iso7816.ErrCardRemoved):
						case done && errors.Is(err, provisioner.ErrNotOnCard):
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
