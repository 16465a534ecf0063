// Package policy decides about taps without a network: by signed lists of IDs,
// by the term of a service, and by the hours of the week.
//
//	p, err := policy.New(policy.Options{Rules: map[string]policy.Rule{"library": {Deny: denied, Hours: hours}}})
//	if err != nil { … }
//	if d := p.Decide(tap); !d.Accepted { … d.Reason … }
package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/reader/list"
)

// Reason is why a tap is refused, or what is wrong although it is accepted.
type Reason string

// Reasons of refusals and warnings. The empty reason is none.
const (
	OtherService Reason = "other-service" // there is no rule for the service
	Denied       Reason = "denied"        // the deny list has the ID
	NotAllowed   Reason = "not-allowed"   // the allow list does not
	StaleList    Reason = "stale-list"    // a list is too old to be trusted
	UnsignedList Reason = "unsigned-list" // nobody vouches for a list
	NotYet       Reason = "not-yet"       // the term has not begun
	Over         Reason = "over"          // the term has ended
	OutsideHours Reason = "outside-hours"
)

// Handling says what becomes of a tap when a list is stale or unsigned.
type Handling string

// Handlings.
const (
	Refuse Handling = "refuse" // the default
	Warn   Handling = "warn"
)

// Rule is what holds for one service. The zero rule accepts every tap.
type Rule struct {
	Deny, Allow     *list.List
	Stale, Unsigned Handling // "" is Refuse
	// From and Until are the first and the last day of the term; zero is no
	// bound.
	From, Until time.Time
	// Hours are the times of the week at which taps are accepted; none is
	// always.
	Hours []Hours
}

// Options of a policy.
type Options struct {
	Rules map[string]Rule // by id of the service
	// Location is where days and hours are meant; nil is Japan (UTC+9).
	Location *time.Location
}

// Policy decides about taps. Its methods can be called from several goroutines.
type Policy struct{ o Options }

// New returns a policy. It refuses lists of other services or kinds than
// the rule's place says, hours that are none, and a term that ends before it
// begins.
func New(o Options) (*Policy, error) {
	o.Rules = maps.Clone(o.Rules)
	if o.Location == nil {
		o.Location = time.FixedZone("JST", 9*60*60)
	}
	for _, service := range slices.Sorted(maps.Keys(o.Rules)) {
		r := o.Rules[service]
		for _, place := range []struct {
			kind list.Kind
			l    *list.List
		}{{list.Deny, r.Deny}, {list.Allow, r.Allow}} {
			if place.l == nil {
				continue
			}
			if h := place.l.Header(); h.Service != service || h.Kind != place.kind {
				return nil, fmt.Errorf("rule of service %s: %s list of %s where its %s list should be", service, h.Kind, h.Service, place.kind)
			}
		}
		for _, h := range []Handling{r.Stale, r.Unsigned} {
			if h != "" && h != Refuse && h != Warn {
				return nil, fmt.Errorf("rule of service %s: %q is neither %q nor %q", service, h, Refuse, Warn)
			}
		}
		if !r.From.IsZero() && !r.Until.IsZero() && day(r.Until).Before(day(r.From)) {
			return nil, fmt.Errorf("rule of service %s: its term ends %s and begins %s", service, r.Until.Format(time.DateOnly), r.From.Format(time.DateOnly))
		}
		for _, h := range r.Hours {
			if err := h.check(); err != nil {
				return nil, fmt.Errorf("rule of service %s: %w", service, err)
			}
		}
	}
	return &Policy{o}, nil
}

// Decision is what becomes of a tap.
type Decision struct {
	Accepted bool
	Reason   Reason   // why it is refused, "" when it is accepted
	Warnings []Reason // what somebody should see to, in the order in which it was found
}

// Decide decides about a tap by the time at which it was made.
func (p *Policy) Decide(t *reader.Tap) Decision {
	r, ok := p.o.Rules[t.Service]
	if !ok {
		return Decision{Reason: OtherService}
	}
	var d Decision
	if d.Reason = r.reason(t, t.At.In(p.o.Location), &d.Warnings); d.Reason == "" {
		d.Accepted = true
	}
	return d
}

// reason is the first reason to refuse.
func (r Rule) reason(t *reader.Tap, at time.Time, warnings *[]Reason) Reason {
	if !r.From.IsZero() && day(at).Before(day(r.From)) {
		return NotYet
	}
	if !r.Until.IsZero() && day(at).After(day(r.Until)) {
		return Over
	}
	if len(r.Hours) > 0 && !slices.ContainsFunc(r.Hours, func(h Hours) bool { return h.contain(at) }) {
		return OutsideHours
	}
	for _, l := range []*list.List{r.Deny, r.Allow} {
		if l == nil {
			continue
		}
		for _, trouble := range []struct {
			there    bool
			reason   Reason
			handling Handling
		}{{!l.Verified(), UnsignedList, r.Unsigned}, {l.Stale(at), StaleList, r.Stale}} {
			switch {
			case !trouble.there:
			case trouble.handling != Warn:
				return trouble.reason
			case !slices.Contains(*warnings, trouble.reason):
				*warnings = append(*warnings, trouble.reason)
			}
		}
	}
	switch {
	case r.Deny != nil && r.Deny.Contains(t.ID):
		return Denied
	case r.Allow != nil && !r.Allow.Contains(t.ID):
		return NotAllowed
	}
	return ""
}

// day is the date alone, comparable whatever the location.
func day(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// Hours are times of day on days of the week. Hours that end before they begin
// end on the next day; From and To the same are the whole day.
type Hours struct {
	Days     []time.Weekday // none is every day
	From, To time.Duration  // after midnight, 0 to 24 hours; From is in it, To is not
}

// ErrHours: hours that no clock shows.
var ErrHours = errors.New("hours of the week")

func (h Hours) check() error {
	const day = 24 * time.Hour
	for _, d := range h.Days {
		if d < time.Sunday || d > time.Saturday {
			return fmt.Errorf("%w: no day %d", ErrHours, d)
		}
	}
	if h.From < 0 || h.From >= day || h.To < 0 || h.To > day {
		return fmt.Errorf("%w: from %v to %v, 0 to 24 hours expected", ErrHours, h.From, h.To)
	}
	return nil
}

func (h Hours) contain(at time.Time) bool {
	on := func(d time.Weekday) bool { return len(h.Days) == 0 || slices.Contains(h.Days, d) }
	// What the clock shows counts: on a day with a change of time hours are
	// not those since midnight.
	now := time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute +
		time.Duration(at.Second())*time.Second + time.Duration(at.Nanosecond())
	today, yesterday := at.Weekday(), (at.Weekday()+6)%7
	switch {
	case h.From < h.To:
		return on(today) && h.From <= now && now < h.To
	case h.From == h.To:
		return on(today)
	}
	return on(today) && h.From <= now || on(yesterday) && now < h.To
}
