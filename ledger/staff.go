package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freearea/freearea/staff"
)

// Errors of what operators may do.
var (
	ErrNoOperator = errors.New("no operator has signed in")             // nothing is recorded in nobody's name
	ErrOperator   = errors.New("the ledger does not know the operator") // or has another key for the id
	ErrNotAllowed = errors.New("the operator may not do this")          // see staff.Rules
	ErrSecond     = errors.New("a second operator is needed")           // see staff.Rules
	ErrDismissed  = errors.New("the operator was withdrawn")            // before the event
)

// Signer signs in the name of an operator; *[staff.Key] is one.
type Signer interface {
	Operator() string
	Public() ed25519.PublicKey
	Sign(message []byte) ([]byte, error)
}

var _ Signer = (*staff.Key)(nil)

// OperatorAdded: an operator works here from now on. An id is used once, for
// ever, and so is a key: who loses a key gets a new id. The first event of a ledger is that its
// first operator, a supervisor, adds himself.
type OperatorAdded struct {
	Operator string     `json:"operator"` // see staff.CheckID
	Role     staff.Role `json:"role"`
	Key      []byte     `json:"key"` // Ed25519, 32 bytes
}

// OperatorWithdrawn: the operator signs no event after this one. The last
// supervisor stays.
type OperatorWithdrawn struct {
	Operator string `json:"operator"`
}

// KeysExchanged: secret keys left the keystore, or keys came in.
type KeysExchanged struct {
	Direction string   `json:"direction"` // "export" or "import"
	Keys      []string `json:"keys"`      // names with versions, 100 at most; none of an import
	// With says to whom they went, or the SHA-256 of the file that they came
	// from; 0 to 200 bytes.
	With string `json:"with"`
}

func (OperatorAdded) Kind() Kind     { return KindOperatorAdded }
func (OperatorWithdrawn) Kind() Kind { return KindOperatorWithdrawn }
func (KeysExchanged) Kind() Kind     { return KindKeysExchanged }

func (d OperatorAdded) check() error {
	_, err := staff.ParseRole(string(d.Role))
	return errors.Join(staff.CheckID(d.Operator), err, size("key", d.Key, ed25519.PublicKeySize, ed25519.PublicKeySize))
}

func (d OperatorWithdrawn) check() error { return staff.CheckID(d.Operator) }

func (d KeysExchanged) check() error {
	var err error
	if d.Direction != "export" && d.Direction != "import" {
		err = fmt.Errorf("direction %q", d.Direction)
	}
	err = errors.Join(err, number("number of keys", len(d.Keys), 0, 100), text("with", d.With, 200))
	for _, k := range d.Keys {
		err = errors.Join(err, name("key", k))
	}
	return err
}

// actionOf says which rule an event falls under.
func actionOf(d Data) staff.Action {
	switch d := d.(type) {
	case ConsentRecorded, ConsentWithdrawn:
		return staff.Consents
	case RunStarted:
		if d.Purpose == "rekey" {
			return staff.Rekey
		}
	case OperatorAdded, OperatorWithdrawn:
		return staff.ChangeStaff
	case KeysExchanged:
		return staff.ExchangeKeys
	case ValuesErased:
		return staff.Erase
	case HandoverPrepared, HandedOver:
		return staff.HandOver
	}
	return staff.Cards
}

// Operator is somebody who works or worked here.
type Operator struct {
	ID        string
	Role      staff.Role
	Key       ed25519.PublicKey
	Added     time.Time
	Withdrawn time.Time // zero while at work
}

// roster is the operators as they stand after some number of events.
type roster map[string]*Operator

// admit tells whether an event may follow: who signs works here and may do
// it, with a second one where the rule asks for one.
func (r roster) admit(e Event) error {
	action := actionOf(e.Data)
	added, addition := e.Data.(OperatorAdded)
	if e.Seq == 1 {
		if !addition || added.Operator != e.Actor.Operator || added.Role != staff.Supervisor || e.Second != "" {
			return fmt.Errorf("%w: the first event of a ledger is its first supervisor's", ErrOrder)
		}
		return nil
	}
	rule := staff.RuleOf(action)
	first, err := r.atWork(e.Actor.Operator)
	if err != nil {
		return err
	}
	if !rule.Allows(first.Role) {
		return fmt.Errorf("%w: %s is %s (%s)", ErrNotAllowed, first.ID, first.Role, action)
	}
	switch {
	case e.Second != "":
		second, err := r.atWork(e.Second)
		if err != nil {
			return err
		}
		if second == first || !rule.AllowsSecond(second.Role) {
			return fmt.Errorf("%w: %s, %s, can't be the second (%s)", ErrSecond, second.ID, second.Role, action)
		}
	case len(rule.Second) > 0 && !(action == staff.ChangeStaff && r.alone(rule, first)):
		return fmt.Errorf("%w (%s)", ErrSecond, action)
	}
	if gone, ok := e.Data.(OperatorWithdrawn); ok {
		return r.mayGo(gone.Operator)
	}
	return nil
}

// alone tells that nobody at work could be the second. Then the first one
// adds somebody without.
func (r roster) alone(rule staff.Rule, first *Operator) bool {
	for _, o := range r {
		if o != first && o.Withdrawn.IsZero() && rule.AllowsSecond(o.Role) {
			return false
		}
	}
	return true
}

func (r roster) atWork(id string) (*Operator, error) {
	o := r[id]
	if o == nil {
		return nil, fmt.Errorf("%w: %s", ErrOperator, id)
	}
	if !o.Withdrawn.IsZero() {
		return nil, fmt.Errorf("%w: %s", ErrDismissed, id)
	}
	return o, nil
}

func (r roster) mayGo(id string) error {
	o, err := r.atWork(id)
	if errors.Is(err, ErrOperator) {
		return fmt.Errorf("operator %s is %w", id, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("withdrawal of operator %s %w", id, ErrExists)
	}
	for _, other := range r {
		if other != o && other.Role == staff.Supervisor && other.Withdrawn.IsZero() {
			return nil
		}
	}
	if o.Role == staff.Supervisor {
		return fmt.Errorf("%w: %s is the last supervisor", ErrNotAllowed, id)
	}
	return nil
}

// apply takes in what an event changes.
func (r roster) apply(e Event) error {
	switch d := e.Data.(type) {
	case OperatorAdded:
		if r[d.Operator] != nil {
			return fmt.Errorf("operator %s %w", d.Operator, ErrExists)
		}
		// One key under two ids would be two operators who are one.
		for _, o := range r {
			if o.Key.Equal(ed25519.PublicKey(d.Key)) {
				return fmt.Errorf("the key of operator %s %w, as %s's", d.Operator, ErrExists, o.ID)
			}
		}
		r[d.Operator] = &Operator{ID: d.Operator, Role: d.Role, Key: d.Key, Added: e.Time}
	case OperatorWithdrawn:
		o, err := r.atWork(d.Operator)
		if err != nil {
			return err
		}
		o.Withdrawn = e.Time
	}
	return nil
}

// verify checks the signatures of an event over its body.
func (r roster) verify(ledger string, e Event, body []byte) error {
	message := signed(ledger, body)
	check := func(id string, signature []byte) error {
		o := r[id]
		if o == nil {
			return fmt.Errorf("%w: %s", ErrOperator, id)
		}
		if !ed25519.Verify(o.Key, message, signature) {
			return fmt.Errorf("signature of %s does not verify", id)
		}
		return nil
	}
	if err := check(e.Actor.Operator, e.seals.Signature); err != nil || e.Second == "" {
		return err
	}
	return check(e.Second, e.seals.Countersignature)
}

// loadRoster reads the operators.
func loadRoster(ctx context.Context, q querier) (roster, error) {
	// In words that SQLite finds the partial indexes for.
	list, err := load(ctx, q, `seq IN (SELECT seq FROM events WHERE kind = 'operator-added'
		UNION ALL SELECT seq FROM events WHERE kind = 'operator-withdrawn') ORDER BY seq`)
	if err != nil {
		return nil, err
	}
	r := roster{}
	for _, e := range list {
		if err := r.apply(e); err != nil {
			return nil, fmt.Errorf("%w: event %d: %w", ErrDamaged, e.Seq, err)
		}
	}
	return r, nil
}

// Operators returns all who work or worked here, sorted by id.
func (l *Ledger) Operators(ctx context.Context) ([]Operator, error) {
	r, err := ask(ctx, l, func() (roster, error) { return loadRoster(ctx, l.read) })
	if err != nil {
		return nil, err
	}
	var out []Operator
	for _, o := range r {
		out = append(out, *o)
	}
	slices.SortFunc(out, func(a, b Operator) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
	return out, nil
}
