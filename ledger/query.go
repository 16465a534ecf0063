package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// Filter chooses events; zero fields choose all.
type Filter struct {
	After   int64 // events with a greater number only
	Kinds   []Kind
	Service string
	Card    CardRef
	Consent string
	Run     string
	Limit   int // at most so many
}

// page is how many events are read at a time: a reader that rests between
// pages never holds up the write-ahead log.
const page = 256

// Events yields the chosen events in the order of their numbers. The ledger
// may be appended to meanwhile. An error is yielded once and ends the sequence.
//
// The filter compares what stands in the event itself: a StepDone names its
// run but no card.
func (l *Ledger) Events(ctx context.Context, f Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		after, left := f.After, f.Limit
		for {
			n := page
			if f.Limit > 0 {
				n = min(n, left)
			}
			events, err := ask(ctx, l, func() ([]Event, error) { return events(ctx, l.read, f, after, n) })
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range events {
				after = e.Seq
				if !yield(e, nil) {
					return
				}
			}
			left -= len(events)
			if len(events) < n || f.Limit > 0 && left == 0 {
				return
			}
		}
	}
}

func events(ctx context.Context, q querier, f Filter, after int64, n int) ([]Event, error) {
	where, args := []string{"seq > ?"}, []any{after}
	for _, c := range []struct{ column, value string }{
		{"service", f.Service}, {"card", string(f.Card)}, {"consent", f.Consent}, {"run", f.Run},
	} {
		if c.value != "" {
			where, args = append(where, c.column+" = ?"), append(args, c.value)
		}
	}
	if len(f.Kinds) > 0 {
		where = append(where, "kind IN (?"+strings.Repeat(", ?", len(f.Kinds)-1)+")")
		for _, k := range f.Kinds {
			args = append(args, string(k))
		}
	}
	return load(ctx, q, strings.Join(where, " AND ")+" ORDER BY seq LIMIT ?", append(args, n)...)
}

// load reads the events that the end of a query chooses, with their values.
func load(ctx context.Context, q querier, where string, args ...any) ([]Event, error) {
	rows, err := q.QueryContext(ctx, "SELECT seq, record FROM events WHERE "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Event
	var numbers []string
	for rows.Next() {
		e, _, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out, numbers = append(out, e), append(numbers, strconv.FormatInt(e.Seq, 10))
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(out) == 0 {
		return nil, err
	}
	values, err := openings(ctx, q, "seq IN (SELECT value FROM json_each(?))", "["+strings.Join(numbers, ",")+"]")
	if err != nil {
		return nil, err
	}
	for i := range out {
		if err := out[i].unseal(values[out[i].Seq]); err != nil {
			return nil, fmt.Errorf("%w: event %d: %w", ErrDamaged, out[i].Seq, err)
		}
	}
	return out, nil
}

// openings reads the values of the events that a condition chooses, by the
// numbers of the events.
func openings(ctx context.Context, q querier, where string, args ...any) (map[int64][]opening, error) {
	rows, err := q.QueryContext(ctx, "SELECT seq, member, salt, value FROM private WHERE "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[int64][]opening{}
	for rows.Next() {
		var seq int64
		var o opening
		if err := rows.Scan(&seq, &o.Member, &o.Salt, &o.Value); err != nil {
			return nil, err
		}
		out[seq] = append(out[seq], o)
	}
	return out, rows.Err()
}

// scan reads one row of number and record. The event is sealed.
func scan(rows *sql.Rows) (e Event, body []byte, err error) {
	var seq int64
	var record string
	if err := rows.Scan(&seq, &record); err != nil {
		return Event{}, nil, err
	}
	e, body, err = decode([]byte(record))
	if err == nil && e.Seq != seq {
		err = fmt.Errorf("record is of event %d", e.Seq)
	}
	if err != nil {
		return Event{}, nil, fmt.Errorf("%w: event %d: %w", ErrDamaged, seq, err)
	}
	return e, body, nil
}

// one reads the only event that a query chooses; ok is false when it chooses
// none.
func one[T Data](ctx context.Context, q querier, query string, args ...any) (e Event, data T, ok bool, err error) {
	list, err := load(ctx, q, query, args...)
	if err != nil || len(list) == 0 {
		return Event{}, data, false, err
	}
	e = list[0]
	data, ok = e.Data.(T)
	if !ok {
		return Event{}, data, false, fmt.Errorf("%w: event %d is of kind %s", ErrDamaged, e.Seq, e.Data.Kind())
	}
	return e, data, true, nil
}

// ask answers a question to the ledger.
func ask[T any](ctx context.Context, l *Ledger, f func() (T, error)) (T, error) {
	var out T
	err := l.patiently(ctx, func() (err error) { out, err = f(); return err })
	if err != nil {
		var zero T
		return zero, l.fail(err)
	}
	return out, nil
}

// Last returns the number of the last event, 0 before the first.
func (l *Ledger) Last(ctx context.Context) (seq int64, err error) {
	return ask(ctx, l, func() (seq int64, err error) {
		err = l.read.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM events").Scan(&seq)
		return seq, err
	})
}

// Now returns the time that the ledger has reached: that of its last event,
// before which none comes after; zero in a ledger without events.
func (l *Ledger) Now(ctx context.Context) (time.Time, error) {
	return ask(ctx, l, func() (time.Time, error) {
		var last string
		err := l.read.QueryRowContext(ctx, "SELECT time FROM events ORDER BY seq DESC LIMIT 1").Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		return time.Parse(timeForm, last)
	})
}

// Consent is a consent as it stands now.
type Consent struct {
	ConsentRecorded
	Actor     Actor     // who recorded it
	Recorded  time.Time // when
	Card      CardRef   // that it is bound to, "" while it is not
	Bound     time.Time // when
	Withdrawn time.Time // zero while it holds
}

// Consent returns a consent by its id. The error wraps [ErrNotFound].
func (l *Ledger) Consent(ctx context.Context, id string) (Consent, error) {
	return ask(ctx, l, func() (c Consent, err error) {
		found := false
		list, err := events(ctx, l.read, Filter{
			Consent: id, Kinds: []Kind{KindConsentRecorded, KindCardBound, KindConsentWithdrawn},
		}, 0, 3)
		if err != nil {
			return c, err
		}
		for _, e := range list {
			switch d := e.Data.(type) {
			case ConsentRecorded:
				c.ConsentRecorded, c.Actor, c.Recorded, found = d, e.Actor, e.Time, true
			case CardBound:
				c.Card, c.Bound = d.Card, e.Time
			case ConsentWithdrawn:
				c.Withdrawn = e.Time
			}
		}
		if !found {
			return c, fmt.Errorf("consent %s is %w", id, ErrNotFound)
		}
		return c, nil
	})
}

// State says what a card holds of a service, as far as the ledger knows.
type State string

// States of a service on a card.
const (
	Active    State = "active"    // issued
	OnHold    State = "suspended" // issued, and locked
	Void      State = "revoked"   // issued, revoked, and to be wiped when the card is seen
	Ended     State = "withdrawn" // issued once, then withdrawn
	Uncertain State = "uncertain" // a run began and was not done, see [Ledger.UnfinishedRuns]
)

// ServiceState is a service on a card.
type ServiceState struct {
	Service string
	State   State
	Since   time.Time // of the event that made it so
	Issue   *Issued   // the last issue, nil when there was none
}

// Services returns the services that the card holds or held, sorted by name.
func (l *Ledger) Services(ctx context.Context, card CardRef) ([]ServiceState, error) {
	return ask(ctx, l, func() ([]ServiceState, error) {
		// The last issue, withdrawal and unfinished run of each service.
		list, err := load(ctx, l.read, `seq IN (
				SELECT max(seq) FROM events WHERE card = ?1 AND kind IN ('issued', 'suspended', 'resumed', 'revoked', 'withdrawn') GROUP BY service, kind
				UNION SELECT max(seq) FROM runs WHERE card = ?1 AND outcome IS NOT 'done' AND NOT superseded GROUP BY service
			) ORDER BY service, kind = 'run-started', seq`, string(card))
		if err != nil {
			return nil, err
		}
		var out []ServiceState
		state := func(service string) *ServiceState {
			if n := len(out); n == 0 || out[n-1].Service != service {
				out = append(out, ServiceState{Service: service})
			}
			return &out[len(out)-1]
		}
		for _, e := range list {
			switch d := e.Data.(type) {
			case Issued:
				s := state(d.Service)
				s.State, s.Since, s.Issue = Active, e.Time, &d
			case Withdrawn:
				s := state(d.Service)
				s.State, s.Since = Ended, e.Time
			case Suspended:
				s := state(d.Service)
				s.State, s.Since = OnHold, e.Time
			case Resumed:
				s := state(d.Service)
				s.State, s.Since = Active, e.Time
			case Revoked:
				s := state(d.Service)
				s.State, s.Since = Void, e.Time
			case RunStarted:
				s := state(d.Service)
				s.State, s.Since = Uncertain, e.Time
			}
		}
		return out, nil
	})
}

// ActiveIssue returns the issue of a service that is on the card and not
// withdrawn; ok is false when there is none.
func (l *Ledger) ActiveIssue(ctx context.Context, service string, card CardRef) (issue Issued, ok bool, err error) {
	issue, err = ask(ctx, l, func() (d Issued, err error) {
		_, d, ok, err = one[Issued](ctx, l.read,
			"seq = (SELECT seq FROM issues WHERE service = ? AND card = ? AND ended IS NULL)", service, string(card))
		return d, err
	})
	return issue, ok && err == nil, err
}

// IssueNumber returns the number of the card's last issue of the service,
// withdrawn or not; 0 when there was none. The next issue has one more.
func (l *Ledger) IssueNumber(ctx context.Context, service string, card CardRef) (uint16, error) {
	return ask(ctx, l, func() (uint16, error) { return issueNumber(ctx, l.read, service, card) })
}

func issueNumber(ctx context.Context, q querier, service string, card CardRef) (n uint16, err error) {
	err = q.QueryRowContext(ctx, "SELECT coalesce(max(issue_number), 0) FROM issues WHERE service = ? AND card = ?", service, string(card)).Scan(&n)
	return n, err
}

// ReservedID returns the newest ID reserved for a consent of a service; ok is
// false when there is none.
func (l *Ledger) ReservedID(ctx context.Context, service, consent string) (id string, ok bool, err error) {
	id, err = ask(ctx, l, func() (id string, err error) {
		id, ok, err = reservedID(ctx, l.read, service, consent)
		return id, err
	})
	return id, ok && err == nil, err
}

func reservedID(ctx context.Context, q querier, service, consent string) (id string, ok bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT CAST(p.value AS TEXT) FROM events o JOIN private p ON p.seq = o.seq AND p.member = 'id'
		WHERE consent = ? AND service = ? AND kind IN ('id-reserved', 'id-reassigned', 'id-carried') AND NOT EXISTS (
			SELECT 1 FROM events l WHERE l.service = o.service AND l.id_digest = o.id_digest AND l.kind IN ('id-reassigned', 'id-carried') AND l.seq > o.seq)
		ORDER BY o.seq DESC LIMIT 1`, consent, service).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return id, err == nil, err
}

// IDOwner returns the consent that an ID of the service belongs to, "" where
// nobody has it. Without Options.Digest the error is [ErrNoDigest].
func (l *Ledger) IDOwner(ctx context.Context, service, id string) (consent string, err error) {
	return ask(ctx, l, func() (string, error) {
		digest, err := l.digestID(ctx, service, id)
		if err != nil {
			return "", err
		}
		return idOwner(ctx, l.read, service, digest)
	})
}

// NextSequence returns the number that the next draw of the service will get,
// to show it; only ReserveID takes it.
func (l *Ledger) NextSequence(ctx context.Context, service string) (uint64, error) {
	return ask(ctx, l, func() (uint64, error) { return nextSequence(ctx, l.read, service) })
}

func nextSequence(ctx context.Context, q querier, service string) (n uint64, err error) {
	err = q.QueryRowContext(ctx, "SELECT coalesce(max(sequence), 0) + 1 FROM events WHERE service = ? AND sequence IS NOT NULL", service).Scan(&n)
	return n, err
}

// AIDOwner returns the service that runs or issues have used the instance AID
// for; ok is false when none has.
func (l *Ledger) AIDOwner(ctx context.Context, aid iso7816.AID) (service string, ok bool, err error) {
	service, err = ask(ctx, l, func() (service string, err error) {
		service, ok, err = aidOwner(ctx, l.read, aid)
		return service, err
	})
	return service, ok && err == nil, err
}

func aidOwner(ctx context.Context, q querier, aid iso7816.AID) (service string, ok bool, err error) {
	err = q.QueryRowContext(ctx, "SELECT service FROM events WHERE instance = ? AND kind IN ('run-started', 'issued') ORDER BY seq LIMIT 1", aid.String()).Scan(&service)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return service, err == nil, err
}

// FailedAuthentications returns how often the authentication to a target (a
// Security Domain or an instance) on the card failed since it last succeeded.
func (l *Ledger) FailedAuthentications(ctx context.Context, card CardRef, target iso7816.AID) (int, error) {
	return ask(ctx, l, func() (n int, err error) {
		err = l.read.QueryRowContext(ctx, `SELECT count(*) FROM events
			WHERE card = ?1 AND target = ?2 AND kind = 'authentication-failed' AND seq > (
				SELECT coalesce(max(seq), 0) FROM events
				WHERE card = ?1 AND target = ?2 AND kind = 'authentication-succeeded')`,
			string(card), target.String()).Scan(&n)
		return n, err
	})
}

// Run is a run as it stands now.
type Run struct {
	RunStarted
	Started time.Time
	Outcome Outcome    // "" while it has not ended
	Last    *StepState // the last step that was begun, nil when none was
}

// StepState is a step of a run.
type StepState struct {
	Step  int
	Name  string
	Ended bool // done or failed; otherwise what it did to the card is unknown
}

// UnfinishedRuns returns the runs on a card that began and were not done, torn
// or failed, oldest first, leaving out those after which a run for the same
// service was done.
func (l *Ledger) UnfinishedRuns(ctx context.Context, card CardRef) ([]Run, error) {
	return ask(ctx, l, func() ([]Run, error) {
		rows, err := l.read.QueryContext(ctx, `SELECT run FROM runs
			WHERE card = ? AND outcome IS NOT 'done' AND NOT superseded ORDER BY seq`, string(card))
		if err != nil {
			return nil, err
		}
		var ids []string
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				rows.Close()
				return nil, err
			}
			ids = append(ids, id)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
		var out []Run
		for _, id := range ids {
			r, err := run(ctx, l.read, id)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
		return out, nil
	})
}

// run gathers a run from its events.
func run(ctx context.Context, q querier, id string) (r Run, err error) {
	list, err := events(ctx, q, Filter{Run: id}, 0, -1)
	if err != nil {
		return r, err
	}
	for _, e := range list {
		switch d := e.Data.(type) {
		case RunStarted:
			r.RunStarted, r.Started = d, e.Time
		case StepIntended:
			r.Last = &StepState{Step: d.Step, Name: d.Name}
		case StepDone:
			r.Last.end(d.Step)
		case StepFailed:
			r.Last.end(d.Step)
		case RunFinished:
			r.Outcome = d.Outcome
		}
	}
	return r, nil
}

func (s *StepState) end(step int) {
	if s != nil && s.Step == step {
		s.Ended = true
	}
}

// IDs yields the IDs of a service that are good now, or those that were issued
// and are not: suspended, revoked or withdrawn, and on no other card. Each comes
// once. erased counts those of them that are erased, which nobody can tell.
func (l *Ledger) IDs(ctx context.Context, service string, good bool) (ids iter.Seq2[string, error], erased int, err error) {
	chosen, err := ask(ctx, l, func() (seqs []int64, err error) {
		erased = 0
		rows, err := l.read.QueryContext(ctx, `SELECT max(CASE WHEN EXISTS (SELECT 1 FROM private p WHERE p.seq = i.seq AND p.member = 'id') THEN i.seq END)
			FROM issues i WHERE i.service = ?1 GROUP BY i.id_digest
			HAVING max(i.ended IS NULL AND i.revoked IS NULL AND 'suspended' IS NOT (SELECT e.kind FROM events e
				WHERE e.card = i.card AND e.service = i.service AND e.kind IN ('issued', 'suspended', 'resumed', 'withdrawn')
				ORDER BY e.seq DESC LIMIT 1)) = ?2`, service, good)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var seq sql.NullInt64
			if err := rows.Scan(&seq); err != nil {
				return nil, err
			}
			if seq.Valid {
				seqs = append(seqs, seq.Int64)
			} else {
				erased++
			}
		}
		return seqs, rows.Err()
	})
	if err != nil {
		return nil, 0, err
	}
	return func(yield func(string, error) bool) {
		for some := range slices.Chunk(chosen, page) {
			numbers, err := json.Marshal(some)
			if err != nil {
				yield("", err)
				return
			}
			list, err := ask(ctx, l, func() ([]Event, error) {
				return load(ctx, l.read, "seq IN (SELECT value FROM json_each(?)) ORDER BY seq", string(numbers))
			})
			if err != nil {
				yield("", err)
				return
			}
			for _, e := range list {
				id := e.Data.(Issued).ID
				if id == "" {
					err = l.fail(fmt.Errorf("ID of event %d is %w: it was erased meanwhile", e.Seq, ErrNotFound))
				}
				if !yield(id, err) || err != nil {
					return
				}
			}
		}
	}, erased, nil
}
