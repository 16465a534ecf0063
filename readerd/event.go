package readerd

import (
	"encoding/json"
	"errors"

	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/reader/policy"
)

// Outcome is what became of a card.
type Outcome string

// Outcomes.
const (
	Accepted Outcome = "accepted"
	Refused  Outcome = "refused" // read, and refused by the policy
	Failed   Outcome = "failed"  // not read, or not to be believed
)

// Event is one presentation of a card.
type Event struct {
	Outcome  Outcome
	Reason   string // why it is not accepted: a policy's reason or a reader's code; "" when it is
	Feedback Feedback
	Warnings []policy.Reason
	Tap      *reader.Tap      // unless it failed
	Err      *reader.TapError // when it failed
}

// tapped is the event of a tap and what was decided about it.
func tapped(t *reader.Tap, d policy.Decision) Event {
	e := Event{Outcome: Accepted, Warnings: d.Warnings, Tap: t}
	if !d.Accepted {
		e.Outcome, e.Reason = Refused, string(d.Reason)
	}
	e.Feedback = feedback(e.Outcome, e.Reason)
	return e
}

// failed is the event of a card that was not read.
func failed(err *reader.TapError) Event {
	e := Event{Outcome: Failed, Reason: reader.Code(err), Err: err}
	e.Feedback = feedback(e.Outcome, e.Reason)
	return e
}

// withheld is the event without the ID, and all that belongs to it, of a tap
// that was not accepted: where and when, and nothing of whose card it was.
func (e Event) withheld() Event {
	if e.Outcome == Accepted || e.Tap == nil {
		return e
	}
	t := e.Tap
	e.Tap = &reader.Tap{TapID: t.TapID, Slot: t.Slot, At: t.At, Service: t.Service, Profile: t.Profile, Instance: t.Instance}
	return e
}

// slot and service say where and of what it is; "" is unknown.
func (e Event) slot() string {
	if e.Tap != nil {
		return e.Tap.Slot
	}
	return e.Err.Slot
}

func (e Event) service() string {
	if e.Tap != nil {
		return e.Tap.Service
	}
	if s := new(reader.ServiceError); errors.As(e.Err, &s) {
		return s.Service
	}
	return ""
}

// jsonVersion is the "v" of what docs/json.md describes.
const jsonVersion = 1

// MarshalJSON writes the event as docs/json.md describes it.
func (e Event) MarshalJSON() ([]byte, error) {
	warnings := e.Warnings
	if warnings == nil {
		warnings = []policy.Reason{}
	}
	return json.Marshal(struct {
		V        int              `json:"v"`
		Type     string           `json:"type"`
		Outcome  Outcome          `json:"outcome"`
		Reason   string           `json:"reason"`
		Feedback Feedback         `json:"feedback"`
		Warnings []policy.Reason  `json:"warnings"`
		Tap      *reader.Tap      `json:"tap"`
		Error    *reader.TapError `json:"error"`
	}{jsonVersion, "event", e.Outcome, e.Reason, e.Feedback, warnings, e.Tap, e.Err})
}
