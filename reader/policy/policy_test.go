package policy_test

import (
	"crypto/ed25519"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/reader/list"
	"github.com/freearea/freearea/reader/policy"
)

var japan = time.FixedZone("JST", 9*60*60)

// Wednesday, 1 April 2026, nine in the morning in Japan.
var morning = time.Date(2026, 4, 1, 9, 0, 0, 0, japan)

func ids(ids ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// open makes a list that is fresh until noon.
func open(t *testing.T, service string, kind list.Kind, signed bool, in ...string) *list.List {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	s := list.Spec{Service: service, Kind: kind, Number: 1, Made: morning.Add(-time.Hour), Good: 4 * time.Hour}
	if signed {
		s.Sign = func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil }
	}
	path := filepath.Join(t.TempDir(), "a.list")
	if _, err := list.Create(path, s, ids(in...)); err != nil {
		t.Fatal(err)
	}
	l, err := list.Open(path, list.Options{Key: key.Public().(ed25519.PublicKey), Unsigned: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestDecide(t *testing.T) {
	date := func(d int) time.Time { return time.Date(2026, 4, d, 0, 0, 0, 0, time.UTC) }
	hours := func(from, to float64, days ...time.Weekday) []policy.Hours {
		h := func(f float64) time.Duration { return time.Duration(f * float64(time.Hour)) }
		return []policy.Hours{{Days: days, From: h(from), To: h(to)}}
	}
	deny, allow := open(t, "door", list.Deny, true, "BAD"), open(t, "door", list.Allow, true, "GOOD")
	unsigned := open(t, "door", list.Deny, false, "BAD")
	accepted := policy.Decision{Accepted: true}
	refused := func(r policy.Reason) policy.Decision { return policy.Decision{Reason: r} }
	for _, test := range []struct {
		name string
		rule policy.Rule
		id   string
		at   time.Time
		want policy.Decision
	}{
		{"no condition", policy.Rule{}, "X", morning, accepted},
		{"denied", policy.Rule{Deny: deny}, "BAD", morning, refused(policy.Denied)},
		{"not denied", policy.Rule{Deny: deny}, "X", morning, accepted},
		{"allowed", policy.Rule{Allow: allow}, "GOOD", morning, accepted},
		{"not allowed", policy.Rule{Allow: allow}, "X", morning, refused(policy.NotAllowed)},
		{"denied before allowed", policy.Rule{Deny: open(t, "door", list.Deny, true, "GOOD"), Allow: allow}, "GOOD", morning, refused(policy.Denied)},
		{"last fresh moment", policy.Rule{Deny: deny}, "X", morning.Add(3*time.Hour - 1), accepted},
		{"stale", policy.Rule{Deny: deny}, "X", morning.Add(3 * time.Hour), refused(policy.StaleList)},
		{"stale, warned of", policy.Rule{Deny: deny, Allow: allow, Stale: policy.Warn}, "GOOD", morning.Add(3 * time.Hour),
			policy.Decision{Accepted: true, Warnings: []policy.Reason{policy.StaleList}}},
		{"stale list denies still", policy.Rule{Deny: deny, Stale: policy.Warn}, "BAD", morning.Add(3 * time.Hour),
			policy.Decision{Reason: policy.Denied, Warnings: []policy.Reason{policy.StaleList}}},
		{"unsigned", policy.Rule{Deny: unsigned}, "X", morning, refused(policy.UnsignedList)},
		{"unsigned, warned of", policy.Rule{Deny: unsigned, Unsigned: policy.Warn}, "X", morning,
			policy.Decision{Accepted: true, Warnings: []policy.Reason{policy.UnsignedList}}},
		{"day before the term", policy.Rule{From: date(2)}, "X", morning, refused(policy.NotYet)},
		{"first day", policy.Rule{From: date(1), Until: date(1)}, "X", morning, accepted},
		{"last moment in Japan", policy.Rule{Until: date(1)}, "X", time.Date(2026, 4, 1, 23, 59, 59, 0, japan), accepted},
		{"day after, in Japan", policy.Rule{Until: date(1)}, "X", time.Date(2026, 4, 1, 15, 0, 0, 0, time.UTC), refused(policy.Over)},
		{"in hours", policy.Rule{Hours: hours(9, 17, time.Wednesday)}, "X", morning, accepted},
		{"before hours", policy.Rule{Hours: hours(9, 17)}, "X", morning.Add(-1), refused(policy.OutsideHours)},
		{"after hours", policy.Rule{Hours: hours(8, 9)}, "X", morning, refused(policy.OutsideHours)},
		{"another day's hours", policy.Rule{Hours: hours(9, 17, time.Tuesday)}, "X", morning, refused(policy.OutsideHours)},
		{"over midnight, before it", policy.Rule{Hours: hours(22, 10, time.Wednesday)}, "X", morning.Add(14 * time.Hour), accepted},
		{"over midnight, after it", policy.Rule{Hours: hours(22, 10, time.Tuesday)}, "X", morning, accepted},
		{"over midnight, the wrong one", policy.Rule{Hours: hours(22, 10, time.Wednesday)}, "X", morning, refused(policy.OutsideHours)},
		{"the whole day", policy.Rule{Hours: hours(0, 0, time.Wednesday)}, "X", morning, accepted},
		{"until midnight", policy.Rule{Hours: hours(9, 24)}, "X", morning.Add(15*time.Hour - 1), accepted},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := policy.New(policy.Options{Rules: map[string]policy.Rule{"door": test.rule}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, p.Decide(&reader.Tap{Service: "door", ID: test.id, At: test.at})); diff != "" {
				t.Error(diff)
			}
			if d := p.Decide(&reader.Tap{Service: "till", ID: test.id, At: test.at}); d.Accepted || d.Reason != policy.OtherService {
				t.Errorf("another service: %+v", d)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	date := func(d int) time.Time { return time.Date(2026, 4, d, 0, 0, 0, 0, time.UTC) }
	for want, rule := range map[string]policy.Rule{
		"allow list of door where its deny list": {Deny: open(t, "door", list.Allow, true)},
		"deny list of till":                      {Deny: open(t, "till", list.Deny, true)},
		`"ignore" is neither`:                    {Stale: "ignore"},
		"ends 2026-04-01 and begins 2026-04-02":  {From: date(2), Until: date(1)},
		"from 25h0m0s":                           {Hours: []policy.Hours{{From: 25 * time.Hour}}},
		"no day 7":                               {Hours: []policy.Hours{{Days: []time.Weekday{7}, To: 1}}},
	} {
		if _, err := policy.New(policy.Options{Rules: map[string]policy.Rule{"door": rule}}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "door") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func ExamplePolicy() {
	p, err := policy.New(policy.Options{Rules: map[string]policy.Rule{
		"door": {Hours: []policy.Hours{{Days: []time.Weekday{time.Monday, time.Wednesday}, From: 8 * time.Hour, To: 19 * time.Hour}}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Decide(&reader.Tap{Service: "door", ID: "FA-0001-7", At: morning}))
	fmt.Println(p.Decide(&reader.Tap{Service: "door", ID: "FA-0001-7", At: morning.Add(12 * time.Hour)}))
	// Output:
	// {true  []}
	// {false outside-hours []}
}
