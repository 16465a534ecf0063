package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Kinds of events of the hand-over to a business system.
const (
	KindHandoverPrepared Kind = "handover-prepared"
	KindHandedOver       Kind = "handed-over"
)

// HandoverPrepared: what a service's business system is to be told next is
// decided: everything from after one event to another, which no batch before
// has told. The next one can be prepared only when this one was handed over,
// so that nothing is told twice and nothing is left out.
type HandoverPrepared struct {
	Batch   string `json:"batch"` // id of the batch, used once
	Service string `json:"service"`
	After   int64  `json:"after"`   // number of the last event of the batch before, 0 for the first
	Through int64  `json:"through"` // number of the last event
	Rows    int    `json:"rows"`
	Format  string `json:"format"` // "csv", "jsonl"
	// Digest is the SHA-256 of what goes out, 64 hexadecimal digits. IDs are few
	// enough to be tried against it, so it is erased with the first of them.
	Digest string `json:"digest" private:""`
}

// HandedOver: the batch is with the business system.
type HandedOver struct {
	Batch   string `json:"batch"`
	Service string `json:"service"`
	To      string `json:"to"` // name of the file, or address without its query; 500 bytes at most
}

// HandoverKinds are the kinds of events that a business system is told of.
func HandoverKinds() []Kind {
	return []Kind{KindIssued, KindRevoked, KindSuspended, KindResumed, KindWithdrawn}
}

// untold tells that a service's business system was told before, and has yet to
// be told what happened on a card since: it is told by the ID.
func untold(ctx context.Context, q querier, service, card string, last HandoverPrepared) (is bool, err error) {
	kinds, err := json.Marshal(HandoverKinds())
	if err == nil {
		err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM events WHERE card = ? AND service = ? AND seq > ?
			AND kind IN (SELECT value FROM json_each(?)))`, card, service, last.Through, string(kinds)).Scan(&is)
	}
	return is, err
}

func (HandoverPrepared) Kind() Kind { return KindHandoverPrepared }
func (HandedOver) Kind() Kind       { return KindHandedOver }

func (d HandoverPrepared) check() error {
	var err error
	switch {
	case d.Format != "csv" && d.Format != "jsonl":
		err = fmt.Errorf("format %q", d.Format)
	case d.After < 0 || d.Through <= d.After:
		err = fmt.Errorf("events after %d through %d", d.After, d.Through)
	case d.Rows < 1:
		err = errors.New("no rows")
	}
	return errors.Join(name("batch", d.Batch), name("service", d.Service), err, digits("digest", d.Digest, 64))
}

func (d HandedOver) check() error {
	err := text("to", d.To, maxError)
	if d.To == "" || strings.ContainsAny(d.To, "\n\t") {
		err = errors.New("nowhere to")
	}
	return errors.Join(name("batch", d.Batch), name("service", d.Service), err)
}

// admitHandover is admit for the events of this file.
func admitHandover(ctx context.Context, q querier, data Data) error {
	switch d := data.(type) {
	case HandoverPrepared:
		last, open, ok, err := lastHandover(ctx, q, d.Service)
		var seq int64
		if err == nil {
			err = q.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM events").Scan(&seq)
		}
		switch {
		case err != nil:
			return err
		case open:
			return fmt.Errorf("%w: batch %s of %s was not handed over yet", ErrOrder, last.Batch, d.Service)
		case ok && d.After != last.Through || !ok && d.After != 0:
			return fmt.Errorf("%w: the last batch of %s went through event %d", ErrOrder, d.Service, last.Through)
		case d.Through > seq:
			return fmt.Errorf("%w: there is no event %d yet", ErrOrder, d.Through)
		}
	case HandedOver:
		last, _, ok, err := lastHandover(ctx, q, d.Service)
		if err == nil && (!ok || last.Batch != d.Batch) {
			err = fmt.Errorf("%w: batch %s of %s was not prepared last", ErrOrder, d.Batch, d.Service)
		}
		return err
	}
	return nil
}

// lastHandover is the last batch of a service; open tells that it was not
// handed over yet.
func lastHandover(ctx context.Context, q querier, service string) (last HandoverPrepared, open, ok bool, err error) {
	e, last, ok, err := one[HandoverPrepared](ctx, q, "kind = 'handover-prepared' AND service = ? ORDER BY seq DESC LIMIT 1", service)
	if err != nil || !ok {
		return last, false, false, err
	}
	var done int
	err = q.QueryRowContext(ctx, "SELECT 1 FROM events WHERE kind = 'handed-over' AND service = ? AND seq > ? LIMIT 1", service, e.Seq).Scan(&done)
	if errors.Is(err, sql.ErrNoRows) {
		return last, true, true, nil
	}
	return last, false, true, err
}

// LastHandover returns the last batch that was prepared for a service; open
// tells that it was not handed over yet, ok is false where there is none.
func (l *Ledger) LastHandover(ctx context.Context, service string) (last HandoverPrepared, open, ok bool, err error) {
	last, err = ask(ctx, l, func() (d HandoverPrepared, err error) {
		d, open, ok, err = lastHandover(ctx, l.read, service)
		return d, err
	})
	return last, open && err == nil, ok && err == nil, err
}
