package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Basis is why values were erased.
type Basis string

// Bases of erasure.
const (
	Retention  Basis = "retention"  // the manifest's time of keeping is over
	Withdrawal Basis = "withdrawal" // the holder took the consent back
)

// ValuesErased: the erasable values of events were erased. The events stay,
// and so do the commitments in them, which tell nothing any more.
type ValuesErased struct {
	Consent string  `json:"consent"`
	Basis   Basis   `json:"basis"`
	Events  []int64 `json:"events"` // whose values are gone: 1 to 5,000 numbers, rising
}

// Kind is [KindValuesErased].
func (ValuesErased) Kind() Kind { return KindValuesErased }

func (d ValuesErased) check() error {
	var err error
	if d.Basis != Retention && d.Basis != Withdrawal {
		err = fmt.Errorf("basis %q", d.Basis)
	}
	for i, n := range d.Events {
		if n < 1 || i > 0 && n <= d.Events[i-1] {
			err = errors.Join(err, errors.New("numbers of events do not rise"))
			break
		}
	}
	return errors.Join(err, name("consent", d.Consent), number("number of events", len(d.Events), 1, 5000))
}

// ErrInUse: values that are still needed are not erased.
var ErrInUse = errors.New("the service is still on the card or may be, or its business system has yet to be told")

// ErrUnpurged: values were erased and recorded to be, and their bytes may still
// be in the ledger's files. Erasing again, also with nothing left to erase,
// removes them.
var ErrUnpurged = errors.New("values are erased, and their bytes may still be in the ledger's files")

// Erasable is a consent whose events hold values that can be erased.
type Erasable struct {
	Consent string
	Service string
	Ended   time.Time // when the service ended for the holder, or the consent ran out unused
	Basis   Basis
	Events  []int64 // whose values go
}

// EraseFilter chooses consents.
type EraseFilter struct {
	// Service and Before choose the consents of a service that ended before a
	// time: after the manifest's time of keeping.
	Service string
	Before  time.Time
	// Consent chooses one by its id, once the holder has taken it back, and with
	// it those that had its ID before, on cards that it was carried over from.
	Consent string
}

// Erasable lists what can be erased, oldest first. Consents of which the
// service is still on the card, or may be after a run that was torn, are left
// out, and so are all of a service while a batch of it is being handed over, and
// those whose card has something that a service's next batch will tell; where one
// is asked for by its id, the error is [ErrInUse].
//
// What was revoked and not wiped ends when it expires: until then terminals are
// told by its ID to refuse it, and a counter that sees the card wipes it.
func (l *Ledger) Erasable(ctx context.Context, f EraseFilter) ([]Erasable, error) {
	return ask(ctx, l, func() ([]Erasable, error) { return erasable(ctx, l.read, f, l.clock()) })
}

func erasable(ctx context.Context, q querier, f EraseFilter, now time.Time) ([]Erasable, error) {
	type state struct {
		Erasable
		seq       int64
		card      string
		withdrawn string
		until     string
	}
	where, value := "c.service = ?1", f.Service
	if f.Consent != "" {
		where, value = "c.consent = ?1 OR c.consent IN ("+hadItsID+")", f.Consent
	}
	rows, err := q.QueryContext(ctx, `SELECT c.consent, c.service, c.seq, coalesce(c.card, ''), coalesce(c.withdrawn, ''), e.record ->> '$.data.until'
		FROM consents c JOIN events e ON e.seq = c.seq WHERE `+where+` ORDER BY c.seq`, value)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []state
	for rows.Next() {
		var s state
		if err := rows.Scan(&s.Consent, &s.Service, &s.seq, &s.card, &s.withdrawn, &s.until); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	if f.Consent != "" && len(all) == 0 {
		return nil, fmt.Errorf("consent %s is %w", f.Consent, ErrNotFound)
	}
	var out []Erasable
	for _, s := range all {
		var used bool
		var ended, void string
		if err := q.QueryRowContext(ctx, `SELECT
				EXISTS (SELECT 1 FROM issues i JOIN events e ON e.seq = i.seq WHERE i.service = ?1 AND i.card = ?2 AND i.consent = ?3
					AND i.ended IS NULL AND (i.revoked IS NULL OR e.record ->> '$.data.expiry' = ''))
				OR EXISTS (SELECT 1 FROM runs WHERE service = ?1 AND card = ?2 AND outcome IS NOT 'done' AND NOT superseded),
				coalesce((SELECT max(e.time) FROM issues i JOIN events e ON e.seq = i.ended WHERE i.card = ?2 AND i.service = ?1 AND i.consent = ?3), ''),
				coalesce((SELECT max(e.record ->> '$.data.expiry') || 'T23:59:59.999Z' FROM issues i JOIN events e ON e.seq = i.seq
					WHERE i.card = ?2 AND i.service = ?1 AND i.consent = ?3 AND i.ended IS NULL), '')`,
			s.Service, s.card, s.Consent).Scan(&used, &ended, &void); err != nil {
			return nil, err
		}
		last, open, told, err := lastHandover(ctx, q, s.Service)
		if err == nil && told && !open {
			open, err = untold(ctx, q, s.Service, s.card, last)
		}
		if err != nil {
			return nil, err
		}
		if open || void > now.UTC().Format(timeForm) {
			used = true
		}
		// Times of one form compare as they stand; a consent that nothing was
		// issued on ends when it runs out.
		end := max(ended, void, s.withdrawn)
		if end == "" {
			end = s.until
		}
		if s.Ended, err = time.Parse(time.RFC3339, end); err != nil {
			return nil, fmt.Errorf("%w: consent %s: time %q", ErrDamaged, s.Consent, end)
		}
		asked := s.Consent == f.Consent
		switch {
		case used && asked:
			return nil, fmt.Errorf("%w: consent %s", ErrInUse, s.Consent)
		case used:
			continue
		case asked && s.withdrawn == "":
			return nil, fmt.Errorf("%w: consent %s was not withdrawn", ErrInUse, s.Consent)
		case f.Consent != "":
			s.Basis = Withdrawal
		case s.Ended.Before(f.Before):
			s.Basis = Retention
		default:
			continue
		}
		if s.Events, err = valuesOf(ctx, q, s.Consent, s.Service, s.card, s.seq); err != nil {
			return nil, err
		}
		if len(s.Events) > 0 {
			out = append(out, s.Erasable)
		}
	}
	return out, nil
}

// hadItsID chooses the consents that had an ID of the consent ?1 before it. They
// are the same holder's: an ID passes to nobody else.
const hadItsID = `SELECT b.consent FROM events i JOIN events b ON b.service = i.service AND b.id_digest = i.id_digest AND b.seq < i.seq
	WHERE i.consent = ?1 AND i.kind IN ('id-reserved', 'id-reassigned', 'id-carried') AND b.kind IN ('id-reserved', 'id-reassigned', 'id-carried')`

// StillHave returns the consents that had the ID of another before it and still
// have values: their cards may hold the ID, and terminals are told to refuse it.
func (l *Ledger) StillHave(ctx context.Context, consent string) (list []string, err error) {
	return ask(ctx, l, func() ([]string, error) {
		var chosen string
		err := l.read.QueryRowContext(ctx, `SELECT json_group_array(DISTINCT c.consent) FROM consents c WHERE c.consent IN (`+hadItsID+`)
			AND EXISTS (SELECT 1 FROM private p WHERE p.seq = c.seq)`, consent).Scan(&chosen)
		if err == nil {
			err = json.Unmarshal([]byte(chosen), &list)
		}
		return list, err
	})
}

// valuesOf returns the events with values that are about a consent: its own,
// those of the runs for its service on its card until the next consent, and the
// batches that told of them.
func valuesOf(ctx context.Context, q querier, consent, service, card string, recorded int64) (out []int64, err error) {
	kinds, err := json.Marshal(HandoverKinds())
	if err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, `WITH
		after AS (SELECT min(seq) AS seq FROM consents WHERE card = ?3 AND service = ?2 AND seq > ?4),
		about AS (
			SELECT run FROM events WHERE kind = 'run-started' AND consent = ?1
			UNION SELECT run FROM events WHERE kind = 'run-started' AND card = ?3 AND service = ?2 AND consent IS NULL
				AND seq > ?4 AND seq < coalesce((SELECT seq FROM after), 1 << 62)),
		own AS (
			SELECT seq, kind FROM events WHERE consent = ?1 AND kind <> 'values-erased'
			UNION SELECT e.seq, e.kind FROM about JOIN events e ON e.run = about.run),
		chosen AS (
			SELECT seq FROM own
			UNION SELECT b.seq FROM events b WHERE b.service = ?2 AND b.kind = 'handover-prepared' AND EXISTS (
				SELECT 1 FROM own WHERE own.kind IN (SELECT value FROM json_each(?5)) AND own.seq > b.record ->> '$.data.after' AND own.seq <= b.record ->> '$.data.through'))
		SELECT seq FROM chosen WHERE EXISTS (SELECT 1 FROM private p WHERE p.seq = chosen.seq) ORDER BY seq`,
		consent, service, card, recorded, string(kinds))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

// Erase erases what [Ledger.Erasable] lists for the filter, as it is now, and
// returns it. An event says so for each consent. When Erase returns without an
// error, the values are neither in the file nor in its write-ahead log;
// backups still have them. It rewrites the file, and others wait meanwhile.
//
// A purge that was interrupted, or that others ([ErrBusy]) or a full disk
// ([ErrFull]) stood in the way of, which is [ErrUnpurged], is made up for by
// calling Erase again, also with nothing left to erase.
func (l *Ledger) Erase(ctx context.Context, actor Actor, reason string, f EraseFilter) (done []Erasable, err error) {
	err = l.write(ctx, func(q *writer) error {
		if done, err = erasable(ctx, q, f, l.clock()); err != nil || len(done) == 0 {
			return err
		}
		var events []Event
		for _, d := range done {
			events = append(events, Event{Actor: actor, Reason: reason, Data: ValuesErased{Consent: d.Consent, Basis: d.Basis, Events: d.Events}})
		}
		if _, err := l.add(ctx, q, events...); err != nil {
			return err
		}
		for _, d := range done {
			for _, n := range d.Events {
				if err := q.exec(ctx, "DELETE FROM private WHERE seq = ?", n); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := l.patiently(ctx, func() error { return l.purge(ctx) }); err != nil {
		return done, fmt.Errorf("%w: %w", ErrUnpurged, l.fail(err))
	}
	return done, nil
}

// purge rewrites the file, so that no page holds what was deleted, and empties
// the write-ahead log.
func (l *Ledger) purge(ctx context.Context) error {
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := exec(ctx, conn, "VACUUM"); err != nil {
		return err
	}
	var busy, pages, moved int
	if err := conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved); err != nil {
		return err
	}
	if busy != 0 {
		return ErrBusy
	}
	return nil
}
