package ledger

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/staff"
)

// Append adds events, all or none, and returns the number of the last. They
// are on the disk when it returns. Seq and Time of what is given are ignored:
// all get the same time. See the event types for what is refused with which
// error.
func (l *Ledger) Append(ctx context.Context, events ...Event) (seq int64, err error) {
	if len(events) == 0 {
		return 0, fmt.Errorf("%s: %w: none given", l.path, ErrInvalid)
	}
	err = l.write(ctx, func(q *writer) error {
		seq, err = l.add(ctx, q, events...)
		return err
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// add writes events within a transaction, which ends with the checkpoint after them.
func (l *Ledger) add(ctx context.Context, q *writer, events ...Event) (seq int64, err error) {
	if l.operator == nil {
		return 0, ErrNoOperator
	}
	if q.log == nil {
		return 0, ErrNoLogKey
	}
	t, err := q.end(ctx)
	if err != nil {
		return 0, err
	}
	// A clock that was put back does not put the events out of order.
	if now := l.clock().UTC().Truncate(time.Millisecond); now.After(t.time) {
		t.time = now
	}
	for _, e := range events {
		if err := l.addOne(ctx, t, e); err != nil {
			return 0, err
		}
	}
	return t.seq, nil
}

func (l *Ledger) addOne(ctx context.Context, t *tail, e Event) error {
	if e.Data == nil {
		return fmt.Errorf("%w: no data", ErrInvalid)
	}
	t.seq++
	e.Seq, e.Time = t.seq, t.time
	if err := l.sign(&e); err != nil {
		return err
	}
	if err := e.digestIDs(func(id string) (string, error) { return l.digestID(ctx, serviceOf(e.Data), id) }); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	values, err := e.seal(l.rand)
	if err != nil {
		return err
	}
	record, err := l.record(t.ledger, e)
	if err != nil {
		return err
	}
	// What is held against the other events is what will be read: Go types
	// allow values that have no encoding of their own, and pointers.
	e, _, err = decode(record)
	if err == nil {
		err = e.unseal(values)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := t.roster.admit(e); err != nil {
		return err
	}
	if err := admit(ctx, t, e.Data); err != nil {
		return err
	}
	err = t.exec(ctx, "INSERT INTO events (seq, record) VALUES (?, ?)", e.Seq, string(record))
	if unique(err) {
		return twice(e.Data)
	}
	for _, v := range values {
		if err == nil {
			err = t.exec(ctx, "INSERT INTO private (seq, member, salt, value) VALUES (?, ?, ?, ?)", e.Seq, v.Member, v.Salt, v.Value)
		}
	}
	if err != nil {
		return err
	}
	if err := t.roster.apply(e); err != nil {
		return err
	}
	// Another key under the same id would make events that nobody can verify.
	for _, s := range []Signer{l.operator, l.second} {
		if s == nil || s == l.second && e.Second == "" {
			continue
		}
		if o := t.roster[s.Operator()]; o == nil || !s.Public().Equal(o.Key) {
			return fmt.Errorf("%w: %s has another key", ErrOperator, s.Operator())
		}
	}
	return t.grow(ctx, record)
}

// sign says in whose names the event is.
func (l *Ledger) sign(e *Event) error {
	if id := l.operator.Operator(); e.Actor.Operator != "" && e.Actor.Operator != id {
		return fmt.Errorf("%w: the event is in the name of %s, and %s has signed in", ErrInvalid, e.Actor.Operator, id)
	}
	e.Actor.Operator, e.Second = l.operator.Operator(), ""
	if l.second != nil && len(staff.RuleOf(actionOf(e.Data)).Second) > 0 && e.Seq > 1 {
		e.Second = l.second.Operator()
	}
	return nil
}

// record encodes and signs a sealed event.
func (l *Ledger) record(ledger string, e Event) ([]byte, error) {
	body, err := e.body()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	message := signed(ledger, body)
	if e.seals.Signature, err = l.operator.Sign(message); err != nil {
		return nil, fmt.Errorf("signature of %s: %w", e.Actor.Operator, err)
	}
	if e.Second != "" {
		if e.seals.Countersignature, err = l.second.Sign(message); err != nil {
			return nil, fmt.Errorf("signature of %s: %w", e.Second, err)
		}
	}
	return e.seals.close(body)
}

// digestID is the keyed digest of a service's ID. It stays when the ID is
// erased, so that the ID is not given out again.
func (l *Ledger) digestID(ctx context.Context, service, id string) (string, error) {
	if l.digest == nil {
		return "", ErrNoDigest
	}
	d, err := l.digest(ctx, []byte("freearea id 1\x00"+service+"\x00"+id))
	return hex.EncodeToString(d[:]), err
}

func serviceOf(d Data) string {
	switch d := d.(type) {
	case IDReserved:
		return d.Service
	case IDReassigned:
		return d.Service
	case Issued:
		return d.Service
	case Revoked:
		return d.Service
	case IDCarried:
		return d.Service
	}
	return ""
}

// twice is the error for what the indexes of the schema allow once.
func twice(data Data) error {
	switch d := data.(type) {
	case ConsentRecorded:
		return fmt.Errorf("consent %s %w", d.Consent, ErrExists)
	case ConsentWithdrawn:
		return fmt.Errorf("withdrawal of consent %s %w", d.Consent, ErrExists)
	case CardBound:
		return fmt.Errorf("binding of consent %s %w", d.Consent, ErrExists)
	case RunStarted:
		return fmt.Errorf("run %s %w", d.Run, ErrExists)
	case RunFinished:
		return fmt.Errorf("end of run %s %w", d.Run, ErrExists)
	case IDReserved:
		return taken(d.Service, d.ID)
	case CardReplaced:
		return fmt.Errorf("replacement of the card %w", ErrExists)
	case OperatorAdded:
		return fmt.Errorf("operator %s %w", d.Operator, ErrExists)
	case OperatorWithdrawn:
		return fmt.Errorf("withdrawal of operator %s %w", d.Operator, ErrExists)
	}
	return fmt.Errorf("%s %w", data.Kind(), ErrExists)
}

func taken(service, id string) error { return fmt.Errorf("%w: %s of %s", ErrIDTaken, id, service) }

// admit holds an event against those before it. What the indexes of the
// schema hold (see twice) is not repeated here.
//
// An event that says what a card holds is admitted even where the consent has
// been withdrawn meanwhile: a fact that is not recorded helps nobody.
func admit(ctx context.Context, q querier, data Data) error {
	switch d := data.(type) {
	case ConsentWithdrawn:
		_, err := consentFor(ctx, q, d.Consent)
		return err
	case CardBound:
		c, err := consentFor(ctx, q, d.Consent)
		switch {
		case err != nil:
			return err
		case c.withdrawn:
			return fmt.Errorf("%w: %s", ErrWithdrawn, d.Consent)
		case c.card != "" && c.card != d.Card:
			return fmt.Errorf("%w: %s", ErrBound, d.Consent)
		}
	case RunStarted:
		if d.Consent != "" {
			if c, err := consentFor(ctx, q, d.Consent); err != nil {
				return err
			} else if c.service != d.Service {
				return fmt.Errorf("%w: consent %s is for %s, not for %s", ErrOrder, d.Consent, c.service, d.Service)
			}
		}
		return ownAID(ctx, q, d.Instance, d.Service)
	case RunFinished:
		_, err := runFor(ctx, q, d.Run)
		return err
	case StepIntended:
		finished, err := runFor(ctx, q, d.Run)
		if err == nil && finished {
			err = fmt.Errorf("%w: run %s has ended", ErrOrder, d.Run)
		}
		return err
	case StepDone:
		return intended(ctx, q, d.Run, d.Step)
	case StepFailed:
		return intended(ctx, q, d.Run, d.Step)
	case IDReserved:
		return mayHaveID(ctx, q, d.Service, d.Consent)
	case IDReassigned:
		if err := mayHaveID(ctx, q, d.Service, d.Consent); err != nil {
			return err
		}
		if ok, err := mayPass(ctx, q, d.Service, d.IDDigest, d.Consent); err != nil {
			return err
		} else if !ok {
			return taken(d.Service, d.ID)
		}
	case Issued:
		c, err := consentFor(ctx, q, d.Consent)
		if err != nil {
			return err
		}
		if c.card != d.Card {
			return fmt.Errorf("%w: consent %s is not bound to this card", ErrOrder, d.Consent)
		}
		owner, err := idOwner(ctx, q, d.Service, d.IDDigest)
		if err != nil {
			return err
		}
		if owner != d.Consent {
			return fmt.Errorf("%w: %s of %s is not reserved for consent %s", ErrOrder, d.ID, d.Service, d.Consent)
		}
		last, err := issueNumber(ctx, q, d.Service, d.Card)
		if err != nil {
			return err
		}
		if d.IssueNumber <= last {
			return fmt.Errorf("%w: issue number %d of %s after %d", ErrOrder, d.IssueNumber, d.Service, last)
		}
		return ownAID(ctx, q, d.Instance, d.Service)
	}
	return admitLife(ctx, q, data)
}

type consentState struct {
	service   string
	card      CardRef
	withdrawn bool
}

// consentFor looks up a consent that an event rests on.
func consentFor(ctx context.Context, q querier, id string) (consentState, error) {
	var c consentState
	err := q.QueryRowContext(ctx, "SELECT service, coalesce(card, ''), withdrawn IS NOT NULL FROM consents WHERE consent = ?", id).
		Scan(&c.service, &c.card, &c.withdrawn)
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("consent %s is %w", id, ErrNotFound)
	}
	return c, err
}

func runFor(ctx context.Context, q querier, id string) (finished bool, err error) {
	err = q.QueryRowContext(ctx, "SELECT outcome IS NOT NULL FROM runs WHERE run = ?", id).Scan(&finished)
	if errors.Is(err, sql.ErrNoRows) {
		return false, fmt.Errorf("run %s is %w", id, ErrNotFound)
	}
	return finished, err
}

func intended(ctx context.Context, q querier, run string, step int) error {
	var n int
	err := q.QueryRowContext(ctx, `SELECT count(*) FROM events
		WHERE run = ? AND kind = 'step-intended' AND record ->> '$.data.step' = ?`, run, step).Scan(&n)
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: step %d of run %s was not intended", ErrOrder, step, run)
	}
	return err
}

// mayHaveID tells whether a consent can be given an ID of the service.
func mayHaveID(ctx context.Context, q querier, service, consent string) error {
	c, err := consentFor(ctx, q, consent)
	switch {
	case err != nil:
		return err
	case c.service != service:
		return fmt.Errorf("%w: consent %s is for %s, not for %s", ErrOrder, consent, c.service, service)
	case c.withdrawn:
		return fmt.Errorf("%w: %s", ErrWithdrawn, consent)
	}
	return nil
}

// mayPass tells whether an ID can pass from the consent that has it to
// another: both are bound to one card, and no card holds the ID now.
func mayPass(ctx context.Context, q querier, service, digest, to string) (ok bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (
		SELECT 1 FROM ids
		JOIN consents old ON old.consent = ids.consent
		JOIN consents new ON new.consent = ? AND new.card = old.card
		WHERE ids.service = ? AND ids.id_digest = ?
	) AND NOT EXISTS (
		SELECT 1 FROM issues WHERE service = ? AND id_digest = ? AND ended IS NULL
	)`, to, service, digest, service, digest).Scan(&ok)
	return ok, err
}

// idOwner returns the consent that has an ID, "" when it is free.
func idOwner(ctx context.Context, q querier, service, digest string) (consent string, err error) {
	err = q.QueryRowContext(ctx, "SELECT consent FROM ids WHERE service = ? AND id_digest = ?", service, digest).Scan(&consent)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return consent, err
}

func ownAID(ctx context.Context, q querier, aid iso7816.AID, service string) error {
	owner, ok, err := aidOwner(ctx, q, aid)
	if err == nil && ok && owner != service {
		err = fmt.Errorf("%w: %v is used by %s", ErrAIDTaken, aid, owner)
	}
	return err
}

// Reservation asks for an ID.
type Reservation struct {
	Actor   Actor
	Reason  string
	Service string
	Consent string // recorded, for this service, not withdrawn
	Run     string // may be empty
	// ID is the ID that was given, for services whose IDs come from outside.
	ID string
	// Draw makes an ID where none is given, from the number of the draw: 1 for
	// the service's first. It is called again, with the next number, while the
	// ID that it made is taken, 1,000 times at most. It runs while other
	// processes wait: it must not wait for anything.
	Draw func(number uint64) (string, error)
}

// maxDraws bounds the draws for one reservation: a service that runs out of
// IDs ends with an error.
const maxDraws = 1000

// ReserveID returns the ID of a service for a consent, reserved for it for
// ever; again tells that it had been reserved before. Exactly one of ID and
// Draw is set.
//
// With Draw, the reservation that the consent has already is returned, so that a
// run that was interrupted neither burns an ID nor gives out two. With ID, an
// ID that belongs to another consent is refused with [ErrIDTaken], unless
// that consent is bound to the same card as this one and the card's issue of
// the ID has ended (withdrawn): then the ID passes to this consent.
func (l *Ledger) ReserveID(ctx context.Context, r Reservation) (id string, again bool, err error) {
	if (r.ID == "") == (r.Draw == nil) {
		return "", false, fmt.Errorf("%s: %w: a reservation has an ID or draws one", l.path, ErrInvalid)
	}
	err = l.write(ctx, func(conn *writer) error {
		if err := mayHaveID(ctx, conn, r.Service, r.Consent); err != nil {
			return err
		}
		if r.Draw == nil {
			id = r.ID
			again, err = l.reserveGiven(ctx, conn, r)
			return err
		}
		id, again, err = reservedID(ctx, conn, r.Service, r.Consent)
		if err == nil && !again {
			id, err = l.reserveDrawn(ctx, conn, r)
		}
		return err
	})
	if err != nil {
		return "", false, err
	}
	return id, again, nil
}

func (l *Ledger) reserveGiven(ctx context.Context, conn *writer, r Reservation) (again bool, err error) {
	digest, err := l.digestID(ctx, r.Service, r.ID)
	if err != nil {
		return false, err
	}
	owner, err := idOwner(ctx, conn, r.Service, digest)
	if err != nil || owner == r.Consent {
		return owner == r.Consent, err
	}
	var data Data = IDReserved{Service: r.Service, ID: r.ID, Consent: r.Consent, Run: r.Run}
	if owner != "" {
		data = IDReassigned{Service: r.Service, ID: r.ID, Consent: r.Consent, Run: r.Run}
	}
	_, err = l.add(ctx, conn, Event{Actor: r.Actor, Reason: r.Reason, Data: data})
	return false, err
}

func (l *Ledger) reserveDrawn(ctx context.Context, conn *writer, r Reservation) (string, error) {
	number, err := nextSequence(ctx, conn, r.Service)
	if err != nil {
		return "", err
	}
	for range maxDraws {
		id, err := r.Draw(number)
		if err != nil {
			return "", fmt.Errorf("draw an ID of %s: %w", r.Service, err)
		}
		digest, err := l.digestID(ctx, r.Service, id)
		if err != nil {
			return "", err
		}
		owner, err := idOwner(ctx, conn, r.Service, digest)
		if err != nil {
			return "", err
		}
		if owner == "" {
			_, err = l.add(ctx, conn, Event{Actor: r.Actor, Reason: r.Reason, Data: IDReserved{
				Service: r.Service, ID: id, Consent: r.Consent, Run: r.Run, Sequence: number,
			}})
			return id, err
		}
		number++
	}
	return "", fmt.Errorf("%w: %d draws for %s, all of them", ErrIDTaken, maxDraws, r.Service)
}
