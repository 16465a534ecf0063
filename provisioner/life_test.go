package provisioner_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/reader"
)

func stepNames(plan *provisioner.Plan) []provisioner.StepName {
	var out []provisioner.StepName
	for _, s := range plan.Steps {
		out = append(out, s.Name)
	}
	return out
}

// planned plans an issue and holds its steps against what is wanted.
func (c *counter) planned(r provisioner.Request, want ...provisioner.StepName) {
	c.t.Helper()
	s, plan, err := c.plan(r)
	check(c.t, err)
	s.Close()
	if got := stepNames(plan); !slices.Equal(got, want) {
		c.t.Errorf("plan is %v, want %v", got, want)
	}
}

// The applications that the card came with stay as they are, from a card
// without anything of ours to one without anything of ours again.
func TestResidentsUntouched(t *testing.T) {
	residents := []string{"D392F000260100000001", "D3921000310001010401", "D3921000310001010402", "D3921000310001010408", "D3921000310001010100"}
	c := newCounter(t, newBook(t))
	answers := func() string {
		out := ""
		for _, aid := range residents {
			r, err := c.emulated().Transmit(t.Context(), must(iso7816.Select(iso7816.MustAID(aid)).Encode()))
			check(t, err)
			out += fmt.Sprintf("%s: % X\n", aid, r)
		}
		return out
	}
	registry, memory, selected := c.registry(), c.emulated().Memory(), answers()
	for _, aid := range residents {
		if !strings.Contains(registry, aid) || !strings.Contains(selected, aid) {
			t.Fatalf("no application %s on the card", aid)
		}
	}
	for _, m := range all {
		c.mustIssue(c.request(m))
		// A registry with ours taken out of it is what it was.
		if listing := c.registry(); !strings.Contains(listing, strings.TrimSuffix(strings.Split(registry, "\n")[0], "]")) {
			t.Errorf("after %s the registry is\n%s\nand was\n%s", m.ID, listing, registry)
		}
		if answers() != selected {
			t.Errorf("after %s the applications answer\n%s", m.ID, answers())
		}
	}
	for _, m := range all {
		_, err := c.withdraw(m)
		check(t, err)
	}
	if now := c.registry(); now != registry {
		t.Errorf("registry was\n%s\nand is\n%s", registry, now)
	}
	if now := c.emulated().Memory(); now != memory {
		t.Errorf("memory was %+v and is %+v", memory, now)
	}
	if answers() != selected {
		t.Errorf("the applications answer\n%s", answers())
	}
}

// A plan that isn't carried out changes nothing.
func TestDryRun(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	issued := c.request(office)
	c.mustIssue(issued)
	issued.Subject.Items = map[string]string{"area": "HQ-3F"}
	events := b.events
	c.untouched(func() error {
		c.planned(c.request(library), provisioner.StepInstall, provisioner.StepPersonalize, provisioner.StepVerify)
		c.planned(issued, provisioner.StepPersonalize, provisioner.StepVerify)
		s, err := c.Connect(t.Context())
		check(t, err)
		defer s.Close()
		plan, err := c.PlanWithdraw(t.Context(), s, office)
		check(t, err)
		if got := stepNames(plan); !slices.Equal(got, []provisioner.StepName{provisioner.StepWipe, provisioner.StepDelete, provisioner.StepDeleteLoadFile}) {
			t.Errorf("plan is %v", got)
		}
		return nil
	}, nil)
	if b.events != events {
		t.Errorf("%d events were written", b.events-events)
	}
	c = newCounter(t, b)
	c.planned(c.request(points), provisioner.StepLoad, provisioner.StepInstall, provisioner.StepPersonalize, provisioner.StepVerify)
}

// What others, or a torn run, have left is finished by one run.
func TestHalfInstalled(t *testing.T) {
	spec := office.InstallSpec()
	tests := []struct {
		name  string
		leave func(c *counter)
		want  []provisioner.StepName
	}{
		{"load file", func(c *counter) {}, []provisioner.StepName{provisioner.StepInstall, provisioner.StepPersonalize, provisioner.StepVerify}},
		{"instance", func(c *counter) { c.installOn("type-d", office.Application.Instance, spec, true) },
			[]provisioner.StepName{provisioner.StepPersonalize, provisioner.StepVerify}},
		{"instance that can't be selected", func(c *counter) { c.installOn("type-d", office.Application.Instance, spec, false) },
			[]provisioner.StepName{provisioner.StepDelete, provisioner.StepInstall, provisioner.StepPersonalize, provisioner.StepVerify}},
		{"instance that is too small", func(c *counter) {
			c.installOn("type-d", office.Application.Instance, applets.InstallSpec{KeySets: 1}, true)
		}, []provisioner.StepName{provisioner.StepDelete, provisioner.StepInstall, provisioner.StepPersonalize, provisioner.StepVerify}},
	}
	b := newBook(t)
	for _, test := range tests {
		for _, withdrawing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", test.name, withdrawing), func(t *testing.T) {
				c := newCounter(t, b)
				c.loadOn(baseLoadFile)
				test.leave(c)
				if withdrawing {
					_, err := c.withdraw(office)
					check(t, err)
					if n := c.emulated().Memory().PersistentUsed; n != 0 {
						t.Errorf("%d bytes of the card are still used", n)
					}
					if n := len(events[ledger.Withdrawn](t, b, ledger.Filter{})); n != 0 {
						t.Errorf("%d withdrawals of what was never issued", n)
					}
					_, err = c.withdraw(office)
					wants(t, err, provisioner.ErrNotOnCard)
					return
				}
				r := c.request(office)
				c.planned(r, test.want...)
				c.holds(office, c.mustIssue(r).ID)
			})
		}
	}
}

func TestWithdraw(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	_, err := c.withdraw(library)
	wants(t, err, provisioner.ErrNotOnCard)
	registry, memory := c.registry(), c.emulated().Memory()
	requests := map[*manifest.Manifest]provisioner.Request{}
	for _, m := range all {
		requests[m] = c.request(m)
		c.mustIssue(requests[m])
	}
	result, err := c.withdraw(library)
	check(t, err)
	if result.Steps != 2 || result.ID != "" {
		t.Errorf("result %+v, want two steps", result)
	}
	if _, err := c.read(library, "2580"); !errors.Is(err, reader.ErrNoService) {
		t.Errorf("reading what is withdrawn: %v", err)
	}
	if _, err := c.read(points, ""); err != nil {
		t.Error(err)
	}
	w := events[ledger.Withdrawn](t, b, ledger.Filter{})
	if len(w) != 1 || !w[0].Deleted || w[0].Service != library.ID || w[0].Run != result.Run {
		t.Errorf("recorded %+v", w)
	}
	if again, err := c.withdraw(library); err != nil || again.Run != "" {
		t.Errorf("withdrawn once more: %+v, %v", again, err)
	}

	// One that is wiped and not deleted, by other hands.
	profile, _ := applets.Base().Lookup(office.Profile)
	blocks := must(globalplatform.StoreBlocks(profile.Wipe(), globalplatform.StoreOptions{Format: globalplatform.FormatDGI}))
	c.execute(globalplatform.InstallForPersonalization{Instance: office.Application.Instance}, blocks[0])
	if o, ok := c.observe(office); !ok || o.Personalized() {
		t.Fatalf("the instance is not wiped: %+v", o)
	}
	_, err = c.withdraw(office)
	check(t, err)
	_, err = c.withdraw(points)
	check(t, err)
	if now := c.registry(); now != registry {
		t.Errorf("registry was\n%s\nand is\n%s", registry, now)
	}
	if now := c.emulated().Memory(); now != memory {
		t.Errorf("memory was %+v and is %+v", memory, now)
	}

	// Again on the same consent, and on another.
	last := requests[office]
	first := events[ledger.Issued](t, b, ledger.Filter{Consent: last.Consent.Record.ID})[0]
	again := c.mustIssue(last)
	if again.ID != first.ID || again.IssueNumber != 2 {
		t.Errorf("issued again %+v, first was %+v", again, first)
	}
	c.holds(office, again.ID)
	_, err = c.withdraw(office)
	check(t, err)
	other := c.mustIssue(c.request(office))
	if other.ID == first.ID || other.IssueNumber != 3 {
		t.Errorf("issued on another consent %+v, first was %+v", other, first)
	}
	// The library's ID is the holder's: it goes with the card to a new consent.
	r := c.request(library)
	r.Subject.ID = requests[library].Subject.ID
	if result := c.mustIssue(r); result.ID != r.Subject.ID || result.IssueNumber != 2 {
		t.Errorf("issued with the ID of before: %+v", result)
	}
	c.holds(library, r.Subject.ID)
	stranger := newCounter(t, b)
	taken := stranger.request(library)
	taken.Subject.ID = r.Subject.ID
	_, err = stranger.issue(taken)
	wants(t, err, ledger.ErrIDTaken)
	if n := stranger.wire.written(); n != 0 {
		t.Errorf("%d writes on a card for an ID that is another's", n)
	}
}

// The registry may not show all: a Security Domain sees its own hierarchy. The
// card itself refuses to delete a load file that is in use, and that is no failure.
func TestLoadFileInUseBySomebodyUnseen(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	c.mustIssue(c.request(office))
	c.mustIssue(c.request(points))
	s, err := c.Connect(t.Context())
	check(t, err)
	defer s.Close()
	s.Applications = slices.DeleteFunc(s.Applications, func(e globalplatform.RegistryEntry) bool { return e.AID == points.Application.Instance })
	plan, err := c.PlanWithdraw(t.Context(), s, office)
	check(t, err)
	if _, err := c.Run(t.Context(), s, plan); err != nil {
		t.Fatalf("the card's refusal to delete a load file in use: %v", err)
	}
	if _, err := c.read(points, ""); err != nil {
		t.Error(err)
	}
	failed := events[ledger.StepFailed](t, b, ledger.Filter{})
	if len(failed) != 1 || failed[0].Status != "6985" {
		t.Errorf("recorded %+v", failed)
	}
	if n := len(events[ledger.Withdrawn](t, b, ledger.Filter{})); n != 1 {
		t.Errorf("%d withdrawals recorded", n)
	}
}

// The content was flipped, the power went before anybody knew, and it is
// another day: nothing is written but the ledger.
func TestRecognisedTheNextDay(t *testing.T) {
	for _, m := range all {
		t.Run(m.ID, func(t *testing.T) {
			b := newBook(t)
			c := newCounter(t, b)
			r := c.request(m)
			stores := 0 // the last STORE DATA but the one of case 4 that reads back
			c.wire.before = func(command []byte) {
				if command[1] == 0xE2 && command[2]&0x80 != 0 {
					if stores++; stores == 1 {
						c.emulated().SetCut(emulator.Cut{Command: 1, Where: emulator.AfterCommand})
					}
				}
			}
			_, err := c.issue(r)
			wants(t, err, iso7816.ErrCardRemoved)
			c.wire.before = nil
			c.emulated().PowerOn()
			o, _ := c.observe(m)
			if !o.Personalized() {
				t.Fatal("the content was not flipped")
			}
			if n := len(events[ledger.Issued](t, b, ledger.Filter{})); n != 0 {
				t.Fatal("the issue is recorded")
			}
			c.now = c.now.Add(26 * time.Hour)
			r.Now = c.now
			s, plan, err := c.plan(r)
			check(t, err)
			defer s.Close()
			if len(plan.Steps) != 0 || plan.Recorded || plan.NothingToDo() {
				t.Errorf("plan %v, recorded %v", stepNames(plan), plan.Recorded)
			}
			written := c.wire.written()
			result, err := c.Run(t.Context(), s, plan)
			check(t, err)
			if c.wire.written() != written {
				t.Error("the card was written to")
			}
			issued := events[ledger.Issued](t, b, ledger.Filter{})
			if len(issued) != 1 || issued[0].Tag != fmt.Sprintf("%x", o.Tag) || issued[0].ID != result.ID || issued[0].KeyVersion != result.KeyVersion {
				t.Errorf("recorded %+v, result %+v", issued, result)
			}
			if plan, err = c.PlanIssue(t.Context(), s, must(c.Desire(t.Context(), r))); err != nil || !plan.NothingToDo() {
				t.Errorf("there is still something to do, or %v", err)
			}
			c.holds(m, result.ID)
		})
	}
}

// What a torn issue left of another consent, its PIN included, is overwritten.
func TestTornIssueOfAnotherConsent(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	b.fail(8, false) // the record of the issue
	_, err := c.issue(c.request(library))
	wants(t, err, errDisk)
	b.fail(0, false)
	if o, _ := c.observe(library); !o.Personalized() || o.PIN == nil {
		t.Fatalf("the content was not flipped: %+v", o)
	}
	if _, err := c.read(library, "0000"); !errors.Is(err, applets.ErrWrongPIN) {
		t.Fatal(err)
	}
	r := c.request(library)
	r.Subject.PIN = "1357"
	result := c.mustIssue(r)
	if result.IssueNumber != 2 {
		t.Errorf("issue number %d stands for two contents", result.IssueNumber)
	}
	tap, err := c.read(library, "1357")
	check(t, err)
	if tap.ID != r.Subject.ID {
		t.Errorf("ID %s, want %s", tap.ID, r.Subject.ID)
	}
	if _, err := c.read(library, "2580"); !errors.Is(err, applets.ErrWrongPIN) {
		t.Errorf("the torn issue's PIN: %v", err)
	}
}

// A holder keeps the PIN without telling it; a first one must be chosen.
func TestKeepPIN(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	r := c.request(library)
	r.Subject.PIN, r.Subject.KeepPIN = "", true
	c.refused(r, provisioner.ErrPINMissing)
	r.Subject.PIN, r.Subject.KeepPIN = "2580", false
	c.mustIssue(r)
	if _, err := c.read(library, "0000"); !errors.Is(err, applets.ErrWrongPIN) {
		t.Fatal(err)
	}
	r.Subject.PIN, r.Subject.KeepPIN = "", true
	r.Subject.Items = map[string]string{"category": "CHILD", "home-branch": "東館"}
	c.mustIssue(r)
	if o, _ := c.observe(library); o.PIN == nil || o.PIN.TriesLeft != 2 {
		t.Errorf("PIN is %+v, want the 2 tries that were left", o.PIN)
	}
	c.holds(library, r.Subject.ID)
}

// Cancelled before, within and after every command: what happened is recorded.
func TestCancelled(t *testing.T) {
	b := newBook(t)
	whole := newCounter(t, b)
	whole.mustIssue(whole.request(office))
	commands := len(whole.wire.commands)
	outcomes := map[ledger.Outcome]int{}
	for n := 1; n <= commands; n++ {
		c := newCounter(t, b)
		r := c.request(office)
		ctx, cancel := context.WithCancel(t.Context())
		sent := 0
		c.Card = transmitter(func(ctx context.Context, command []byte) ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			response, err := c.wire.Transmit(context.WithoutCancel(ctx), command)
			if sent++; sent == n {
				cancel()
			}
			return response, err
		})
		d, err := c.Desire(ctx, r)
		check(t, err)
		s, err := c.Connect(ctx)
		if err != nil {
			wants(t, err, context.Canceled)
			continue
		}
		plan, err := c.PlanIssue(ctx, s, d)
		if err != nil {
			wants(t, err, context.Canceled)
			continue
		}
		result, err := c.Run(ctx, s, plan)
		s.Close()
		started := events[ledger.RunStarted](t, b, ledger.Filter{Consent: r.Consent.Record.ID})
		if len(started) == 0 {
			wants(t, err, context.Canceled)
			if c.wire.written() > 0 {
				t.Errorf("cancelled at command %d: the card was written to, and no run recorded", n)
			}
			continue
		}
		end := events[ledger.RunFinished](t, b, ledger.Filter{Run: started[0].Run})
		if len(end) != 1 {
			t.Fatalf("cancelled at command %d: the end of the run is not recorded", n)
		}
		outcomes[end[0].Outcome]++
		if (err == nil) != (end[0].Outcome == ledger.Done) || err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at command %d: error %v, recorded as %s", n, err, end[0].Outcome)
		}
		c.Card = c.wire
		again := c.mustIssue(r)
		c.holds(office, again.ID)
		if result != nil && again.ID != result.ID {
			t.Errorf("cancelled at command %d: IDs %s and %s", n, result.ID, again.ID)
		}
	}
	if outcomes[ledger.Failed] < 4 || outcomes[ledger.Done] != 1 {
		t.Errorf("outcomes %v, want the last command's run done and those before failed", outcomes)
	}
}

type transmitter func(context.Context, []byte) ([]byte, error)

func (f transmitter) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	return f(ctx, command)
}

// spy is a profile that keeps what is written, or fails with an error.
type spy struct {
	applets.Profile
	content *applets.Content
	fail    error
}

func (s spy) Personalization(c applets.Content, seal func([]byte) ([]byte, error)) ([][]byte, error) {
	*s.content = c
	if c.PIN == nil || c.PIN.Reference.IsZero() || len(c.ReadKeys) != 1 || c.ReadKeys[0].ENC.IsZero() {
		return nil, errors.New("no PIN or no keys to write")
	}
	if s.fail != nil {
		return nil, s.fail
	}
	return s.Profile.Personalization(c, seal)
}

func TestSecretsAreErased(t *testing.T) {
	var content applets.Content
	for _, fail := range []error{nil, errors.New("no")} {
		c := newCounter(t, newBook(t))
		profile, _ := applets.Base().Lookup("type-a")
		c.Profiles = applets.Profiles{spy{profile, &content, fail}}
		_, err := c.issue(c.request(library))
		wants(t, err, fail)
		if !content.PIN.Reference.IsZero() {
			t.Error("the PIN is still there")
		}
		if k := content.ReadKeys[0]; !k.ENC.IsZero() || !k.MAC.IsZero() {
			t.Error("the read keys are still there")
		}
	}
}

// Whatever an error says, the outcome is recorded.
func TestErrorsAreRecorded(t *testing.T) {
	for name, text := range map[string]string{
		"long": strings.Repeat("長い", 400), "control": "a\x00b\x1b[31m\x7fc\u0085", "not UTF-8": "\xff\xfe", "lines": "a\nb\tc",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			c := newCounter(t, b)
			profile, _ := applets.Base().Lookup("type-a")
			fail := errors.New(text)
			c.Profiles = applets.Profiles{spy{profile, new(applets.Content), fail}}
			_, err := c.issue(c.request(library))
			wants(t, err, fail)
			run := new(provisioner.RunError)
			if !errors.As(err, &run) || run.Step != provisioner.StepPersonalize ||
				!slices.Equal(run.Done, []provisioner.StepName{provisioner.StepLoad, provisioner.StepInstall}) {
				t.Fatalf("error %#v", err)
			}
			end := events[ledger.RunFinished](t, b, ledger.Filter{Run: run.Run})
			if len(end) != 1 || end[0].Outcome != ledger.Failed {
				t.Errorf("recorded %+v", end)
			}
			if n := len(events[ledger.StepFailed](t, b, ledger.Filter{Run: run.Run})); n != 1 {
				t.Errorf("%d failed steps recorded", n)
			}
		})
	}
}

// liar answers that the instance holds another tag than it does.
type liar struct{ applets.Profile }

func (l liar) ParseObservation(b []byte) (applets.Observation, error) {
	o, err := l.Profile.ParseObservation(b)
	o.Tag[0] ^= 1
	return o, err
}

// What was written is read back before it counts.
func TestVerified(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	profile, _ := applets.Base().Lookup("type-d")
	c.Profiles = applets.Profiles{liar{profile}}
	r := c.request(office)
	_, err := c.issue(r)
	wants(t, err, provisioner.ErrNotVerified)
	if n := len(events[ledger.Issued](t, b, ledger.Filter{})); n != 0 {
		t.Error("an issue is recorded that the card does not hold")
	}
	c.Profiles = applets.Base()
	c.holds(office, c.mustIssue(r).ID)
}

// A withdrawn card that somebody brought back from a copy is written anew,
// under a number of its own.
func TestCardBroughtBack(t *testing.T) {
	ctx := t.Context()
	b := newBook(t)
	c := newCounter(t, b)
	dir := must(os.MkdirTemp(directory, "card-"))
	path, kept := filepath.Join(dir, "card"), filepath.Join(dir, "copy")
	domain := must(store().SecurityDomainKeys(ctx, c.SecurityDomainKey, c.Diversification, nil))
	card, err := emulator.Create(path, emulator.Config{
		Profile: c.profile, IIN: []byte{1}, CIN: []byte{2}, Keys: domain, Linker: emulatedcard.Linker(),
	})
	check(t, err)
	use := func(card *emulator.Card) {
		card.CountWrites()
		c.wire = &wire{Card: card, book: b}
		c.Provisioner.Card = c.wire
	}
	use(card)
	r := c.request(office)
	first := c.mustIssue(r)
	check(t, os.WriteFile(kept, must(os.ReadFile(path)), 0o600))
	_, err = c.withdraw(office)
	check(t, err)
	check(t, card.Close())
	card, err = emulator.Open(kept, emulatedcard.Linker())
	check(t, err)
	defer card.Close()
	use(card)
	again := c.mustIssue(r)
	if again.ID != first.ID || again.IssueNumber != 2 || again.Steps == 0 {
		t.Errorf("issued %+v, first was %+v", again, first)
	}
	if c.holds(office, first.ID).IssueNumber != 2 {
		t.Error("the card holds the old number")
	}
}

// A session goes on after a run: what it knows of the card is read again.
func TestSessionGoesOn(t *testing.T) {
	ctx := t.Context()
	c := newCounter(t, newBook(t))
	var seen []provisioner.Progress
	c.Progress = func(p provisioner.Progress) { seen = append(seen, p) }
	s, err := c.Connect(ctx)
	check(t, err)
	defer s.Close()
	for i, m := range all {
		plan, err := c.PlanIssue(ctx, s, must(c.Desire(ctx, c.request(m))))
		check(t, err)
		if slices.Contains(stepNames(plan), provisioner.StepLoad) != (i == 0) {
			t.Errorf("%s: plan %v", m.ID, stepNames(plan))
		}
		seen = nil
		_, err = c.Run(ctx, s, plan)
		check(t, err)
		last := seen[len(seen)-1]
		if last.Step != len(plan.Steps) || last.Steps != len(plan.Steps) || last.Commands != last.Total || last.Name != "verify" {
			t.Errorf("progress ends with %+v", last)
		}
	}
	for _, m := range all {
		plan, err := c.PlanWithdraw(ctx, s, m)
		check(t, err)
		_, err = c.Run(ctx, s, plan)
		check(t, err)
	}
	if n := c.emulated().Memory().PersistentUsed; n != 0 {
		t.Errorf("%d bytes of the card are still used", n)
	}
}
