// Package handover tells a service's business system, once and provably, what
// happened to the service's IDs: which was issued under which reference, which
// took another's place, and which is good no more.
//
//	batch, err := handover.Next(ctx, book, service, handover.Options{…}) // decided and recorded, or found open
//	err = handover.ToFile(dir, batch)                                    // or Webhook.Send
//	err = handover.Done(ctx, book, actor, batch, to)
//
// A batch is decided in the ledger before it goes out and closed after it. One
// that was interrupted in between goes out again, byte for byte, under the same
// number: the receiver knows it by that.
package handover

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/ledger"
)

// Errors of a hand-over.
var (
	// ErrNothing: there is nothing that the business system was not told.
	ErrNothing = errors.New("nothing to hand over")
	// ErrChanged: the ledger no longer leads to what was decided.
	ErrChanged = errors.New("the batch can't be made again as it was")
	// ErrFormat: an interrupted batch is of another format.
	ErrFormat = errors.New("the open batch is of another format")
	// ErrRefused: the receiver did not take the batch.
	ErrRefused = errors.New("the receiver did not take the batch")
	// ErrUnreachable: there was no answer, so nobody knows whether the receiver
	// has the batch.
	ErrUnreachable = errors.New("the receiver can't be reached")
	// ErrCertificate: who answered could not show to be the receiver, and was sent
	// nothing.
	ErrCertificate = errors.New("the receiver's certificate is not good")
	// ErrInsecure: the address is neither HTTPS nor this machine's own.
	ErrInsecure = errors.New("the address is not secure")
)

// Format is how a batch is written.
type Format string

// The formats: a table with a header line, or one JSON object a line.
const (
	CSV       Format = "csv"
	JSONLines Format = "jsonl"
)

// Row is one thing that happened to an ID; docs/json.md describes the members.
type Row struct {
	V           int    `json:"v"`
	Type        string `json:"type"` // "handover"
	Seq         int64  `json:"seq"`  // number of the event in the ledger
	At          string `json:"at"`
	Event       string `json:"event"`
	Service     string `json:"service"`
	ID          string `json:"id"`
	IssueNumber uint16 `json:"issue_number"`
	Reference   string `json:"reference"` // as the consent has it; may be empty
	Consent     string `json:"consent"`
	Expiry      string `json:"expiry"`
	Replaces    string `json:"replaces"` // ID that this one takes the place of
	Cause       string `json:"cause"`
}

// Ledger is what this package asks of the ledger.
type Ledger interface {
	Append(ctx context.Context, events ...ledger.Event) (seq int64, err error)
	Events(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Event, error]
	Consent(ctx context.Context, id string) (ledger.Consent, error)
	LastHandover(ctx context.Context, service string) (last ledger.HandoverPrepared, open, ok bool, err error)
}

// Options of a batch.
type Options struct {
	Format Format
	Actor  ledger.Actor
	Rand   io.Reader // of the batch's number; nil is crypto/rand
	DryRun bool      // decide nothing: the batch has no number
}

// Batch is what goes out at once.
type Batch struct {
	ledger.HandoverPrepared
	Body  []byte
	Again bool // it was decided before, and may have gone out
}

// Next returns the batch of a service that is to go out: the one that was
// interrupted, or a new one with everything that no batch has told, which is
// recorded. With nothing to tell the error is [ErrNothing].
func Next(ctx context.Context, book Ledger, service string, o Options) (*Batch, error) {
	last, open, ok, err := book.LastHandover(ctx, service)
	if err != nil {
		return nil, err
	}
	if open {
		if Format(last.Format) != o.Format {
			return nil, fmt.Errorf("%w: %s is %s", ErrFormat, last.Batch, last.Format)
		}
		return again(ctx, book, last)
	}
	p := ledger.HandoverPrepared{Service: service, Format: string(o.Format)}
	if ok {
		p.After = last.Through
	}
	list, through, err := rows(ctx, book, service, p.After, 0)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNothing
	}
	body, err := encode(list, o.Format)
	if err != nil {
		return nil, err
	}
	p.Through, p.Rows, p.Digest = through, len(list), digest(body)
	if o.DryRun {
		return &Batch{p, body, false}, nil
	}
	source := o.Rand
	if source == nil {
		source = rand.Reader
	}
	var id [16]byte
	if _, err := io.ReadFull(source, id[:]); err != nil {
		return nil, fmt.Errorf("random source: %w", err)
	}
	p.Batch = hex.EncodeToString(id[:])
	if _, err := book.Append(ctx, ledger.Event{Actor: o.Actor, Data: p}); err != nil {
		return nil, err
	}
	return &Batch{p, body, false}, nil
}

// again makes a batch once more, as it was.
func again(ctx context.Context, book Ledger, p ledger.HandoverPrepared) (*Batch, error) {
	list, _, err := rows(ctx, book, p.Service, p.After, p.Through)
	if err != nil {
		return nil, err
	}
	body, err := encode(list, Format(p.Format))
	if err != nil {
		return nil, err
	}
	if digest(body) != p.Digest {
		return nil, fmt.Errorf("%w: %s has the SHA-256 %s, %s was recorded", ErrChanged, p.Batch, digest(body), p.Digest)
	}
	return &Batch{p, body, true}, nil
}

// Done records that the batch is with the business system, and where.
func Done(ctx context.Context, book Ledger, actor ledger.Actor, b *Batch, to string) error {
	_, err := book.Append(ctx, ledger.Event{Actor: actor, Data: ledger.HandedOver{Batch: b.Batch, Service: b.Service, To: to}})
	return err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// rows reads what happened after one event through another; 0 is the last. It
// returns the number of the last event that it has looked at, which need not have
// a row.
func rows(ctx context.Context, book Ledger, service string, after, through int64) (out []Row, last int64, err error) {
	// What was issued last to each card, also before the batch begins: other
	// events name the card only.
	held := map[ledger.CardRef]ledger.Issued{}
	replaced := map[string]ledger.Revoked{} // by run
	var events []ledger.Event
	for e, err := range book.Events(ctx, ledger.Filter{Service: service, Kinds: ledger.HandoverKinds()}) {
		if err != nil {
			return nil, 0, err
		}
		if through > 0 && e.Seq > through {
			break
		}
		last = e.Seq
		if d, ok := e.Data.(ledger.Revoked); ok && d.Run != "" {
			replaced[d.Run] = d
		}
		events = append(events, e)
	}
	for _, e := range events {
		r := Row{V: 1, Type: "handover", Seq: e.Seq, At: e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), Event: string(e.Data.Kind()), Service: service}
		var issue ledger.Issued
		switch d := e.Data.(type) {
		case ledger.Issued:
			if _, there := held[d.Card]; there {
				r.Event = "updated"
			}
			issue, held[d.Card] = d, d
			if old, ok := replaced[d.Run]; ok {
				r.Event, r.Replaces, r.Cause = "reissued", old.ID, string(old.Cause)
			}
		case ledger.Revoked:
			if d.Run != "" {
				continue // the row of the new issue says it
			}
			issue, r.Cause = held[d.Card], string(d.Cause)
		case ledger.Suspended:
			issue = held[d.Card]
		case ledger.Resumed:
			issue = held[d.Card]
		case ledger.Withdrawn:
			issue = held[d.Card]
			delete(held, d.Card)
		}
		if e.Seq <= after {
			continue
		}
		if issue.ID == "" {
			continue // erased before the service's first batch: nobody was told of it
		}
		r.ID, r.IssueNumber, r.Consent, r.Expiry = issue.ID, issue.IssueNumber, issue.Consent, issue.Expiry
		if r.Reference, err = reference(ctx, book, issue.Consent); err != nil {
			return nil, 0, err
		}
		out = append(out, r)
	}
	return out, last, nil
}

// reference is what the holder is called in the business system; empty where
// it is erased.
func reference(ctx context.Context, book Ledger, id string) (string, error) {
	known, err := book.Consent(ctx, id)
	if err != nil {
		return "", err
	}
	if len(known.Signed) == 0 {
		return "", nil
	}
	signed, err := consent.Parse(known.Signed)
	if err != nil {
		return "", fmt.Errorf("consent %s in the ledger: %w", id, err)
	}
	return signed.Record.Holder, nil
}

// header are the columns of the table.
var header = []string{"seq", "at", "event", "service", "id", "issue_number", "reference", "consent", "expiry", "replaces", "cause"}

func encode(list []Row, f Format) ([]byte, error) {
	var b bytes.Buffer
	switch f {
	case CSV:
		w := csv.NewWriter(&b)
		w.UseCRLF = true // RFC 4180
		table := [][]string{header}
		for _, r := range list {
			table = append(table, []string{
				strconv.FormatInt(r.Seq, 10), r.At, r.Event, r.Service, r.ID, strconv.Itoa(int(r.IssueNumber)),
				r.Reference, r.Consent, r.Expiry, r.Replaces, r.Cause,
			})
		}
		if err := w.WriteAll(table); err != nil {
			return nil, err
		}
	case JSONLines:
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		for _, r := range list {
			if err := e.Encode(r); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("format %q", f)
	}
	return b.Bytes(), nil
}

// Formats lists the formats.
func Formats() []Format { return []Format{CSV, JSONLines} }

// Known reports whether it is a format.
func (f Format) Known() bool { return slices.Contains(Formats(), f) }

// timeout of one try to reach a receiver.
const timeout = 30 * time.Second
