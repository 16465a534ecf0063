package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
)

// issued records a consent, a run and an issue as a counter does.
func issued(t *testing.T, l *ledger.Ledger, n int, service, id string, card ledger.CardRef) {
	t.Helper()
	c, run, aid := fmt.Sprint("c", n), fmt.Sprint("r", n), aidLib
	if service != "library" {
		aid = aidJob
	}
	last, err := l.IssueNumber(t.Context(), service, card)
	must(t, err)
	add(t, l, consent(c, service), ledger.CardBound{Consent: c, Card: card}, runOf(run, service, card, aid))
	if _, _, err := l.ReserveID(t.Context(), ledger.Reservation{Actor: clerk, Service: service, Consent: c, Run: run, ID: id}); err != nil {
		t.Fatal(err)
	}
	add(t, l, issue(run, c, service, id, card, aid, last+1), ledger.RunFinished{Run: run, Outcome: ledger.Done})
}

func withdrawn(service string, card ledger.CardRef) ledger.Withdrawn {
	aid := aidLib
	if service != "library" {
		aid = aidJob
	}
	return ledger.Withdrawn{Service: service, Card: card, Run: "r", Instance: aid, Deleted: true}
}

func TestConsent(t *testing.T) {
	l := fresh(t)
	if _, err := l.Consent(t.Context(), "c1"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	recorded := consent("c1", "library")
	add(t, l, recorded, consent("c2", "library"))
	want := ledger.Consent{ConsentRecorded: recorded, Actor: clerk, Recorded: start.Add(time.Second)}
	check := func() {
		t.Helper()
		got, err := l.Consent(t.Context(), "c1")
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	check()
	add(t, l, ledger.CardBound{Consent: "c1", Card: cardA})
	want.Card, want.Bound = cardA, start.Add(2*time.Second)
	check()
	add(t, l, ledger.ConsentWithdrawn{Consent: "c1"})
	want.Withdrawn = start.Add(3 * time.Second)
	check()
}

func TestServicesOfACard(t *testing.T) {
	l := fresh(t)
	states := func() (out []string) {
		t.Helper()
		list, err := l.Services(t.Context(), cardA)
		must(t, err)
		for _, s := range list {
			id := "-"
			if s.Issue != nil {
				id = s.Issue.ID
			}
			out = append(out, fmt.Sprintf("%s %s %s %d", s.Service, s.State, id, int(s.Since.Sub(start).Seconds())))
		}
		return out
	}
	expect := func(want ...string) {
		t.Helper()
		if got := states(); !cmp.Equal(got, want, cmpopts.EquateEmpty()) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	active := func(service, want string) {
		t.Helper()
		issue, ok, err := l.ActiveIssue(t.Context(), service, cardA)
		must(t, err)
		if ok != (want != "") || issue.ID != want {
			t.Errorf("active issue of %s: %v %v, want %q", service, ok, issue, want)
		}
	}
	expect()
	issued(t, l, 1, "library", "L-1", cardA) // seconds 1 to 3
	issued(t, l, 2, "library", "L-2", cardB) // 4 to 6
	issued(t, l, 3, "job", "J-1", cardA)     // 7 to 9
	expect("job active J-1 9", "library active L-1 3")
	active("library", "L-1")
	add(t, l, withdrawn("library", cardA)) // 10
	expect("job active J-1 9", "library withdrawn L-1 10")
	active("library", "")
	active("job", "J-1")
	add(t, l, runOf("r4", "job", cardA, aidJob)) // 11
	expect("job uncertain J-1 11", "library withdrawn L-1 10")
	active("job", "J-1")
	add(t, l, ledger.RunFinished{Run: "r4", Outcome: ledger.Failed}) // 12
	expect("job uncertain J-1 11", "library withdrawn L-1 10")
	add(t, l, runOf("r5", "job", cardA, aidJob), issue("r5", "c3", "job", "J-1", cardA, aidJob, 2),
		ledger.RunFinished{Run: "r5", Outcome: ledger.Done}) // 13
	expect("job active J-1 13", "library withdrawn L-1 10")
	if n, err := l.IssueNumber(t.Context(), "job", cardA); n != 2 || err != nil {
		t.Errorf("issue number %d, %v", n, err)
	}
	issued(t, l, 6, "library", "L-3", cardA)
	if n, err := l.IssueNumber(t.Context(), "library", cardA); n != 2 || err != nil {
		t.Errorf("issue number %d, %v: it goes on after a withdrawal", n, err)
	}
	active("library", "L-3")
}

func TestUnfinishedRuns(t *testing.T) {
	l := fresh(t)
	step := func(run string, n int) ledger.StepIntended {
		return ledger.StepIntended{Run: run, Step: n, Name: fmt.Sprint("step ", n)}
	}
	unfinished := func(want ...ledger.Run) {
		t.Helper()
		got, err := l.UnfinishedRuns(t.Context(), cardA)
		must(t, err)
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(iso7816.AID{})); d != "" {
			t.Error(d)
		}
	}
	unfinished()
	r1 := runOf("r1", "library", cardA, aidLib)
	add(t, l, r1)
	unfinished(ledger.Run{RunStarted: r1, Started: start.Add(time.Second)})
	add(t, l, step("r1", 1), ledger.StepDone{Run: "r1", Step: 1, Evidence: []byte{1, 2}}, step("r1", 2))
	torn := ledger.Run{RunStarted: r1, Started: start.Add(time.Second), Last: &ledger.StepState{Step: 2, Name: "step 2"}}
	unfinished(torn)

	r2 := runOf("r2", "job", cardA, aidJob)
	add(t, l, r2, step("r2", 1), ledger.StepFailed{Run: "r2", Step: 1, Error: "memory", Status: "6A84"},
		ledger.RunFinished{Run: "r2", Outcome: ledger.Failed, Error: "memory"})
	failed := ledger.Run{
		RunStarted: r2, Started: start.Add(3 * time.Second), Outcome: ledger.Failed,
		Last: &ledger.StepState{Step: 1, Name: "step 1", Ended: true},
	}
	unfinished(torn, failed)

	// Done for the same service on another card, or for another service: no help.
	add(t, l, runOf("r3", "library", cardB, aidLib), ledger.RunFinished{Run: "r3", Outcome: ledger.Done})
	unfinished(torn, failed)
	add(t, l, runOf("r4", "library", cardA, aidLib), ledger.RunFinished{Run: "r4", Outcome: ledger.Done})
	unfinished(failed)

	// What was locked and unlocked since may hold what a torn update wrote, or
	// what was there before.
	purpose := func(run, purpose string) ledger.RunStarted {
		r := runOf(run, "library", cardA, aidLib)
		r.Purpose = purpose
		return r
	}
	names := func(want ...string) {
		t.Helper()
		var got []string
		runs, err := l.UnfinishedRuns(t.Context(), cardA)
		must(t, err)
		for _, r := range runs {
			got = append(got, r.Run)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	add(t, l, purpose("r5", "update"), purpose("r6", "suspend"), ledger.RunFinished{Run: "r6", Outcome: ledger.Done})
	names("r2", "r5")
	add(t, l, purpose("r7", "suspend"))
	names("r2", "r5", "r7")
	add(t, l, purpose("r8", "resume"), ledger.RunFinished{Run: "r8", Outcome: ledger.Done})
	names("r2", "r5")
	add(t, l, purpose("r9", "rekey"), ledger.RunFinished{Run: "r9", Outcome: ledger.Done})
	names("r2")
}

func TestFailedAuthentications(t *testing.T) {
	l := fresh(t)
	failed := ledger.AuthenticationFailed{Card: cardA, Target: isd, Key: "isd", KeyVersion: 1}
	other, application := failed, failed
	other.Card, application.Target = cardB, aidLib
	expect := func(want int) {
		t.Helper()
		if n, err := l.FailedAuthentications(t.Context(), cardA, isd); n != want || err != nil {
			t.Errorf("%d failures, %v; want %d", n, err, want)
		}
	}
	expect(0)
	add(t, l, failed, other, application, failed)
	expect(2)
	add(t, l, ledger.AuthenticationSucceeded{Card: cardA, Target: aidLib, Key: "read", KeyVersion: 1})
	expect(2)
	add(t, l, ledger.AuthenticationSucceeded{Card: cardB, Target: isd, Key: "isd", KeyVersion: 1})
	expect(2)
	add(t, l, ledger.AuthenticationSucceeded{Card: cardA, Target: isd, Key: "isd", KeyVersion: 1}, failed)
	expect(1)
}

func TestAIDOwner(t *testing.T) {
	l := fresh(t)
	if s, ok, err := l.AIDOwner(t.Context(), aidLib); ok || err != nil {
		t.Errorf("%q %v", s, err)
	}
	add(t, l, runOf("r1", "library", cardA, aidLib), withdrawn("job", cardA))
	if s, ok, err := l.AIDOwner(t.Context(), aidLib); s != "library" || !ok || err != nil {
		t.Errorf("%q %v %v", s, ok, err)
	}
	if _, err := appendAll(t.Context(), l, runOf("r2", "job", cardA, aidLib)); !errors.Is(err, ledger.ErrAIDTaken) {
		t.Errorf("got %v", err)
	}
	if s, ok, err := l.AIDOwner(t.Context(), aidJob); ok || err != nil {
		t.Errorf("%q %v", s, err)
	}
}

// TestOrder appends what does not follow from the events before.
func TestOrder(t *testing.T) {
	ctx := t.Context()
	l := fresh(t)
	issued(t, l, 1, "library", "L-1", cardA)
	add(t, l, consent("c2", "library"), consent("c3", "library"), ledger.ConsentWithdrawn{Consent: "c3"},
		runOf("r2", "library", cardA, aidLib), ledger.StepIntended{Run: "r2", Step: 1, Name: "install"})
	again := issue("r9", "c1", "library", "L-1", cardA, aidLib, 2)
	change := func(f func(*ledger.Issued)) ledger.Issued { d := again; f(&d); return d }
	tests := []struct {
		name string
		data ledger.Data
		want error
	}{
		{"consent twice", consent("c1", "library"), ledger.ErrExists},
		{"by pointer", &ledger.CardBound{Consent: "c1", Card: cardB}, ledger.ErrBound},
		{"withdrawal twice", ledger.ConsentWithdrawn{Consent: "c3"}, ledger.ErrExists},
		{"withdrawal of nothing", ledger.ConsentWithdrawn{Consent: "c9"}, ledger.ErrNotFound},
		{"bound twice", ledger.CardBound{Consent: "c1", Card: cardA}, ledger.ErrExists},
		{"bound to two cards", ledger.CardBound{Consent: "c1", Card: cardB}, ledger.ErrBound},
		{"withdrawn consent bound", ledger.CardBound{Consent: "c3", Card: cardA}, ledger.ErrWithdrawn},
		{"unknown consent bound", ledger.CardBound{Consent: "c9", Card: cardA}, ledger.ErrNotFound},
		{"run twice", runOf("r1", "library", cardA, aidLib), ledger.ErrExists},
		{"run ends twice", ledger.RunFinished{Run: "r1", Outcome: ledger.Failed}, ledger.ErrExists},
		{"unknown run ends", ledger.RunFinished{Run: "r9", Outcome: ledger.Done}, ledger.ErrNotFound},
		{"step of an ended run", ledger.StepIntended{Run: "r1", Step: 1, Name: "load"}, ledger.ErrOrder},
		{"step of an unknown run", ledger.StepIntended{Run: "r9", Step: 1, Name: "load"}, ledger.ErrNotFound},
		{"step done, not intended", ledger.StepDone{Run: "r2", Step: 2}, ledger.ErrOrder},
		{"step failed, not intended", ledger.StepFailed{Run: "r2", Step: 2, Error: "x"}, ledger.ErrOrder},
		{"run for another service's consent", func() ledger.Data {
			r := runOf("r9", "job", cardA, aidJob)
			r.Consent = "c1"
			return r
		}(), ledger.ErrOrder},
		{"ID twice", ledger.IDReserved{Service: "library", ID: "L-1", Consent: "c2"}, ledger.ErrIDTaken},
		{"ID for a withdrawn consent", ledger.IDReserved{Service: "library", ID: "L-9", Consent: "c3"}, ledger.ErrWithdrawn},
		{"ID for another service's consent", ledger.IDReserved{Service: "job", ID: "J-9", Consent: "c2"}, ledger.ErrOrder},
		{"ID passed on without a card", ledger.IDReassigned{Service: "library", ID: "L-1", Consent: "c2"}, ledger.ErrIDTaken},
		{"issued on an unknown consent", change(func(d *ledger.Issued) { d.Consent = "c9" }), ledger.ErrNotFound},
		{"issued to another card", change(func(d *ledger.Issued) { d.Card = cardB }), ledger.ErrOrder},
		{"issued with a free ID", change(func(d *ledger.Issued) { d.ID = "L-7" }), ledger.ErrOrder},
		{"issue number again", change(func(d *ledger.Issued) { d.IssueNumber = 1 }), ledger.ErrOrder},
		{"issued under another's AID", change(func(d *ledger.Issued) { d.Instance = aidJob }), ledger.ErrAIDTaken},
	}
	add(t, l, runOf("r3", "job", cardB, aidJob))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := appendAll(ctx, l, tt.data); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	add(t, l, again) // what the others are changed from is right
	// A fact is recorded though the consent was withdrawn meanwhile.
	add(t, l, ledger.ConsentWithdrawn{Consent: "c1"}, issue("r9", "c1", "library", "L-1", cardA, aidLib, 3))
}

func TestInvalidEvents(t *testing.T) {
	l := fresh(t)
	tests := []struct {
		name string
		e    ledger.Event
		say  string
	}{
		{"nothing", ledger.Event{Actor: clerk}, "no data"},
		{"another operator", ledger.Event{Actor: ledger.Actor{Operator: "o", Counter: "w"}, Data: consent("c", "s")}, "in the name of o"},
		{"no counter", ledger.Event{Actor: ledger.Actor{Operator: clerk.Operator}, Data: consent("c", "s")}, "no counter"},
		{"long reason", ledger.Event{Actor: clerk, Reason: strings.Repeat("長", 334), Data: consent("c", "s")}, "reason of 1002 bytes"},
		{"reason not UTF-8", ledger.Event{Actor: clerk, Reason: "\xff", Data: consent("c", "s")}, "reason is not UTF-8"},
		{"bell", ledger.Event{Actor: clerk, Reason: "\a", Data: consent("c", "s")}, "control characters"},
		{"line feed in an id", ledger.Event{Actor: clerk, Data: consent("c\n", "s")}, "consent has control characters"},
		{"long id", ledger.Event{Actor: clerk, Data: consent(strings.Repeat("c", 65), "s")}, "consent of 65 bytes"},
		{"several faults", ledger.Event{Actor: clerk, Data: consent("", "")}, "no consent; no service"},
		{"local time", ledger.Event{Actor: clerk, Data: func() ledger.Data {
			c := consent("c", "s")
			c.Given = c.Given.In(time.FixedZone("JST", 9*3600))
			return c
		}()}, "given is not a time in UTC"},
		{"upper-case card", ledger.Event{Actor: clerk, Data: ledger.CardBound{Consent: "c", Card: ledger.CardRef(strings.ToUpper(string(cardA)))}}, "card is not 32 lower-case"},
		{"short card", ledger.Event{Actor: clerk, Data: ledger.CardBound{Consent: "c", Card: "0a"}}, "card is not 32 lower-case"},
		{"step 0", ledger.Event{Actor: clerk, Data: ledger.StepIntended{Run: "r", Name: "n"}}, "step 0"},
		{"outcome", ledger.Event{Actor: clerk, Data: ledger.RunFinished{Run: "r", Outcome: "maybe"}}, `outcome "maybe"`},
		{"status", ledger.Event{Actor: clerk, Data: ledger.StepFailed{Run: "r", Step: 1, Status: "6a82"}}, "status"},
		{"expiry", ledger.Event{Actor: clerk, Data: func() ledger.Data {
			d := issue("r", "c", "s", "i", cardA, aidLib, 1)
			d.Expiry = "2031-02-29"
			return d
		}()}, "expiry"},
		{"values of an event to come", ledger.Event{Actor: clerk, Data: ledger.ValuesErased{Consent: "c", Basis: ledger.Retention, Events: []int64{1, 2}}}, "values of event 2"},
		{"issue number 0", ledger.Event{Actor: clerk, Data: issue("r", "c", "s", "i", cardA, aidLib, 0)}, "issue number 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := l.Append(t.Context(), tt.e)
			if !errors.Is(err, ledger.ErrInvalid) || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("got %v, want it to say %q", err, tt.say)
			}
		})
	}
	if _, err := l.Append(t.Context()); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("no events: %v", err)
	}
}

func TestEventsFilter(t *testing.T) {
	l := fresh(t)
	issued(t, l, 1, "library", "L-1", cardA) // after the operator: 2 consent, 3 bound, 4 run, 5 reserved, 6 issued, 7 finished
	issued(t, l, 2, "job", "J-1", cardB)     // 8 to 13
	all := []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}
	tests := []struct {
		name string
		f    ledger.Filter
		want []int64
	}{
		{"all", ledger.Filter{}, all},
		{"after", ledger.Filter{After: 11}, []int64{12, 13}},
		{"limit", ledger.Filter{Limit: 3}, all[:3]},
		{"kinds", ledger.Filter{Kinds: []ledger.Kind{ledger.KindIssued, ledger.KindCardBound}}, []int64{3, 6, 9, 12}},
		{"service", ledger.Filter{Service: "job"}, []int64{8, 10, 11, 12}},
		{"card", ledger.Filter{Card: cardA}, []int64{3, 4, 6}},
		{"consent", ledger.Filter{Consent: "c2"}, []int64{8, 9, 11, 12}},
		{"run", ledger.Filter{Run: "r1", After: 4}, []int64{5, 6, 7}},
		{"nothing", ledger.Filter{Service: "job", Card: cardA}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int64
			for e, err := range l.Events(t.Context(), tt.f) {
				must(t, err)
				got = append(got, e.Seq)
			}
			if !cmp.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestAppendWhileReading appends inside the loop over more events than one
// page holds.
func TestAppendWhileReading(t *testing.T) {
	l := fresh(t)
	var batch []ledger.Data
	for i := range 300 {
		batch = append(batch, consent(fmt.Sprint("c", i), "library"))
	}
	add(t, l, batch...)
	n := 0
	for e, err := range l.Events(t.Context(), ledger.Filter{}) {
		must(t, err)
		if n++; e.Seq != int64(n) {
			t.Fatalf("event %d is the %dth", e.Seq, n)
		}
		if n == 10 {
			add(t, l, consent(fmt.Sprint("d", n), "library"))
		}
	}
	if n != 302 {
		t.Errorf("%d events", n)
	}
}

func TestReadKeyUse(t *testing.T) {
	l := fresh(t)
	day := time.Date(2027, 1, 1, 23, 0, 0, 0, time.FixedZone("", 9*60*60)) // 14:00 of that day in UTC
	check := func(what string, version byte, now time.Time, want ...ledger.ReadKeyUse) {
		t.Helper()
		got, err := l.ReadKeyUse(t.Context(), version, now)
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", what, d)
		}
	}
	// rekeyed records that the card has the newest version, and keeps older
	// ones of "library" until their days; the ledger's run is r and a number.
	n := 3
	rekeyed := func(card ledger.CardRef, newest, older byte, until string) {
		t.Helper()
		n++
		run := fmt.Sprint("r", n)
		number, err := l.IssueNumber(t.Context(), "library", card)
		must(t, err)
		c, id := "c1", "L-1"
		if card == cardB {
			c, id = "c2", "L-2"
		}
		i := issue(run, c, "library", id, card, aidLib, number+1)
		i.KeyVersion = newest
		events := []ledger.Data{runOf(run, "library", card, aidLib), i}
		if older != 0 {
			events = append(events, ledger.KeyKept{Service: "library", Card: card, Run: run, KeyVersion: older, Until: until})
		}
		add(t, l, append(events, ledger.RunFinished{Run: run, Outcome: ledger.Done})...)
	}
	issued(t, l, 1, "library", "L-1", cardA)
	issued(t, l, 2, "library", "L-2", cardB)
	issued(t, l, 3, "job", "J-1", cardA)
	job := ledger.ReadKeyUse{Service: "job", Newest: 1}
	check("issued", 1, day, job, ledger.ReadKeyUse{Service: "library", Newest: 2})
	check("issued", 2, day)

	rekeyed(cardA, 2, 1, "2027-01-01")
	check("one rekeyed", 1, day, job, ledger.ReadKeyUse{Service: "library", Newest: 1, Kept: 1, KeptUntil: "2027-01-01"})
	check("one rekeyed", 2, day, ledger.ReadKeyUse{Service: "library", Newest: 1})
	rekeyed(cardB, 2, 1, "2027-02-01")
	check("both rekeyed", 1, day, job, ledger.ReadKeyUse{Service: "library", Kept: 2, KeptUntil: "2027-02-01"})
	check("the first one's time is over", 1, day.Add(time.Hour), job, ledger.ReadKeyUse{Service: "library", Kept: 1, KeptUntil: "2027-02-01"})
	check("both times are over", 1, day.AddDate(0, 2, 0), job)
	check("kept, not newest", 2, day, ledger.ReadKeyUse{Service: "library", Newest: 2})
	check("never there", 3, day)

	// A later issue says anew what the card has: this, or nothing.
	rekeyed(cardB, 2, 1, "2027-02-01") // an update
	check("updated", 1, day, job, ledger.ReadKeyUse{Service: "library", Kept: 2, KeptUntil: "2027-02-01"})
	rekeyed(cardB, 3, 2, "2027-03-01")
	check("another one kept", 1, day, job, ledger.ReadKeyUse{Service: "library", Kept: 1, KeptUntil: "2027-01-01"})
	check("another one kept", 2, day, ledger.ReadKeyUse{Service: "library", Newest: 1, Kept: 1, KeptUntil: "2027-03-01"})
	rekeyed(cardB, 3, 0, "")
	check("finished", 2, day, ledger.ReadKeyUse{Service: "library", Newest: 1})

	// An issue that is not good any more, or over, needs no key.
	number, err := l.IssueNumber(t.Context(), "library", cardB)
	must(t, err)
	add(t, l, revoked(cardB, "c2", "L-2", number))
	check("revoked", 3, day)
	add(t, l, withdrawn("library", cardA))
	check("withdrawn", 1, day, job)
	check("withdrawn", 2, day)
}
