package consent

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a consent can fall short of.
var (
	ErrSignature     = errors.New("wrong signature")
	ErrOtherManifest = errors.New("consent is for another manifest")
	ErrNotYet        = errors.New("consent is not given yet")
	ErrExpired       = errors.New("consent has expired")
	ErrItems         = errors.New("consent is for other items")
	ErrMethod        = errors.New("consent was given by a method that the manifest does not allow")
	ErrWithdrawn     = errors.New("consent is withdrawn")
)

// Gap is one thing that a consent falls short of. It wraps its sentinel.
type Gap struct {
	Err     error     // one of the errors above
	Detail  string    // what the consent says; "" where the rest tells
	Time    time.Time // ErrNotYet, ErrExpired and ErrWithdrawn: when it begins or ended
	Missing []string  // ErrItems: items to be written that it does not name
	Extra   []string  // ErrItems: items that it names and that are not to be written
}

// Error says what is missing, with its names.
func (g Gap) Error() string {
	var b strings.Builder
	b.WriteString(g.Err.Error())
	if g.Detail != "" {
		fmt.Fprintf(&b, ": %s", g.Detail)
	}
	if !g.Time.IsZero() {
		fmt.Fprintf(&b, ": %s", g.Time.UTC().Format(time.RFC3339))
	}
	if len(g.Missing) > 0 {
		fmt.Fprintf(&b, ": it lacks %s", strings.Join(g.Missing, ", "))
	}
	if len(g.Extra) > 0 {
		fmt.Fprintf(&b, ": it has %s besides", strings.Join(g.Extra, ", "))
	}
	return b.String()
}

// Unwrap returns the sentinel.
func (g Gap) Unwrap() error { return g.Err }

// Gaps is everything that a consent falls short of; as an error it is never
// empty.
type Gaps []Gap

// Error lists all gaps, one a line.
func (g Gaps) Error() string {
	lines := make([]string, len(g))
	for i := range g {
		lines[i] = g[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the gaps, so that errors.Is finds a sentinel among them.
func (g Gaps) Unwrap() []error {
	errs := make([]error, len(g))
	for i := range g {
		errs[i] = g[i]
	}
	return errs
}

// Covers tells whether a card may be issued on this consent: it is signed by
// the counter's key, for exactly this manifest and exactly these items, by a
// method that the manifest allows, at a time when it holds, and not
// withdrawn. The error is a [Gaps] that names everything that is missing.
//
// A withdrawal that names this consent counts whether its signature is right
// or not: in doubt nothing is written.
func (s *Signed) Covers(public ed25519.PublicKey, service Service, items []string, at time.Time, withdrawals ...Withdrawal) error {
	var gaps Gaps
	gap := func(g Gap) { gaps = append(gaps, g) }
	r := &s.Record
	if err := s.Verify(public); err != nil {
		gap(Gap{Err: ErrSignature, Detail: fmt.Sprintf("key %s version %d", s.Key.Name, s.Key.Version)})
	}
	if err := r.check(); err != nil {
		return append(gaps, Gap{Err: ErrMalformed, Detail: strings.TrimPrefix(err.Error(), ErrMalformed.Error()+": ")})
	}
	if want := Hash(service.Digest()); r.Service != service.ServiceID() || r.Manifest != want {
		gap(Gap{Err: ErrOtherManifest, Detail: fmt.Sprintf("service %s, manifest %s; wanted is service %s, manifest %s",
			r.Service, r.Manifest, service.ServiceID(), want)})
	}

	g := Gap{Err: ErrItems}
	required, _ := service.ItemNames()
	for _, name := range append(slices.Clone(required), items...) {
		if !slices.Contains(r.Items, name) && !slices.Contains(g.Missing, name) {
			g.Missing = append(g.Missing, name)
		}
	}
	for _, name := range r.Items {
		if !slices.Contains(items, name) {
			g.Extra = append(g.Extra, name)
		}
	}
	if len(g.Missing)+len(g.Extra) > 0 {
		gap(g)
	}
	if !slices.Contains(service.ConsentMethods(), string(r.Method)) {
		gap(Gap{Err: ErrMethod, Detail: string(r.Method)})
	}
	if at.Before(r.Given) {
		gap(Gap{Err: ErrNotYet, Time: r.Given})
	}
	if !at.Before(r.Until) || r.Until.After(r.Given.AddDate(0, 0, service.ConsentDays())) {
		gap(Gap{Err: ErrExpired, Time: r.Until})
	}
	for _, w := range withdrawals {
		if w.Consent == r.ID {
			gap(Gap{Err: ErrWithdrawn, Time: w.At})
			break
		}
	}
	if len(gaps) == 0 {
		return nil
	}
	return gaps
}
