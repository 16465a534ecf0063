package ledger

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxProofFile bounds what is read as a proof, in bytes.
const maxProofFile = 1 << 20

// Proof proves that an event is in the ledger that a checkpoint is of, to
// somebody who has neither the ledger nor its keystore. As JSON it is what
// docs/json.md describes.
type Proof struct {
	V          int    `json:"v"`
	Type       string `json:"type"`
	Checkpoint string `json:"checkpoint"` // signed note
	// Events are the one that is proved, and after it those that added the
	// operators who signed it.
	Events []ProvedEvent `json:"events"`
}

// ProvedEvent is an event with its place in the log.
type ProvedEvent struct {
	Record string `json:"record"`
	// Hashes lead from the record to the checkpoint's hash (RFC 6962, 2.1.1),
	// at most one for each doubling of the ledger.
	Hashes tlog.RecordProof `json:"hashes"`
	// Values open commitments in the record; empty where they are kept back.
	Values []ProvedValue `json:"values"`
}

// ProvedValue opens the commitment to an erasable member: its SHA-256 over
// salt and value.
type ProvedValue struct {
	Member string `json:"member"`
	Salt   []byte `json:"salt"`
	Value  []byte `json:"value"`
}

const proofType = "ledger-proof"

// ErrProof: a file proves nothing, since it was changed, or is something else.
var ErrProof = errors.New("not a proof of an event")

// Prove makes a proof of an event, in O(log n). With values it opens the
// commitments to personal data as far as they are not erased. With Options.Known
// a proof that would not be accepted is an error that wraps [ErrDamaged].
func (l *Ledger) Prove(ctx context.Context, seq int64, values bool) (*Proof, error) {
	return ask(ctx, l, func() (*Proof, error) {
		conn, err := l.db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		// One state of the ledger: the checkpoint and the hashes belong together.
		if err := exec(ctx, conn, "BEGIN"); err != nil {
			return nil, err
		}
		defer func() { _ = exec(context.WithoutCancel(ctx), conn, "ROLLBACK") }()
		p, err := prove(ctx, conn, seq, values)
		if err != nil || l.known == nil {
			return p, err
		}
		// Where the ledger is damaged, that is told here and not to the third party.
		encoded, err := p.Encode()
		if err == nil {
			_, err = CheckProof(encoded, l.known)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: what it has of event %d proves nothing: %w", ErrDamaged, seq, err)
		}
		return p, nil
	})
}

func prove(ctx context.Context, q querier, seq int64, values bool) (*Proof, error) {
	_, c, signed, err := newest(ctx, q)
	if err != nil {
		return nil, err
	}
	if seq < 1 || seq > c.Size {
		return nil, fmt.Errorf("event %d is %w: it has %d", seq, ErrNotFound, c.Size)
	}
	out := &Proof{V: 1, Type: proofType, Checkpoint: string(signed)}
	add := func(where string, args ...any) (Event, error) {
		list, err := load(ctx, q, where, args...)
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("%w: %d events for a proof, not 1", ErrDamaged, len(list))
		}
		if err != nil {
			return Event{}, err
		}
		e := list[0]
		hashes, err := tlog.ProveRecord(c.Size, e.Seq-1, &tree{ctx, q, nil})
		if err != nil {
			return Event{}, err
		}
		if hashes == nil {
			hashes = tlog.RecordProof{}
		}
		out.Events = append(out.Events, ProvedEvent{Record: string(e.record), Hashes: hashes, Values: []ProvedValue{}})
		return e, nil
	}
	e, err := add("seq = ?", seq)
	if err != nil {
		return nil, err
	}
	if values {
		open, err := openings(ctx, q, "seq = ?", seq)
		if err != nil {
			return nil, err
		}
		for _, o := range open[seq] {
			out.Events[0].Values = append(out.Events[0].Values, ProvedValue(o))
		}
	}
	for _, id := range e.signers() {
		if _, err := add("kind = 'operator-added' AND person = ?", id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Encode returns the proof as JSON.
func (p *Proof) Encode() ([]byte, error) {
	b, err := marshal(p)
	return append(b, '\n'), err
}

// Proved is what a proof has proved.
type Proved struct {
	Event      Event      // members whose values were kept back stand in Erased
	Operator   Operator   // who signed
	Second     *Operator  // who signed beside, nil where one was enough
	Checkpoint Checkpoint // of the ledger that has the event
}

// CheckProof verifies a proof, with nothing but the keys of checkpoints that
// are known: the checkpoint's signature, the way from each record to it, the
// operators' signatures, and the values that are shown. It does not tell
// whether the operator was withdrawn before the event: that takes the whole
// ledger. The error wraps [ErrCheckpoint] or [ErrProof].
func CheckProof(encoded []byte, known note.Verifiers) (*Proved, error) {
	if len(encoded) > maxProofFile {
		return nil, fmt.Errorf("%w: %d bytes, %d at most", ErrProof, len(encoded), maxProofFile)
	}
	var p Proof
	if err := strict(encoded, &p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if again, err := p.Encode(); p.V != 1 || p.Type != proofType || len(p.Events) == 0 || err != nil || string(again) != string(encoded) {
		return nil, fmt.Errorf("%w in its one form", ErrProof)
	}
	c, err := ParseCheckpoint([]byte(p.Checkpoint), known)
	if err != nil {
		return nil, err
	}
	e, body, err := p.Events[0].check(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	// It is signed by those whose keys follow it. Theirs are in the log, which is
	// why they are good.
	signers := e.signers()
	if len(p.Events) != 1+len(signers) {
		return nil, fmt.Errorf("%w: %d events, %d expected", ErrProof, len(p.Events), 1+len(signers))
	}
	keys := roster{}
	for i, id := range signers {
		added, _, err := p.Events[1+i].check(c)
		if err == nil {
			if d, ok := added.Data.(OperatorAdded); !ok || d.Operator != id {
				err = fmt.Errorf("event %d does not add operator %s", added.Seq, id)
			} else {
				err = keys.apply(added)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProof, err)
		}
	}
	if err := keys.verify(c.Ledger, e, body); err != nil {
		return nil, fmt.Errorf("%w: event %d: %w", ErrProof, e.Seq, err)
	}
	out := &Proved{Event: e, Operator: *keys[e.Actor.Operator], Checkpoint: c}
	if e.Second != "" {
		out.Second = keys[e.Second]
	}
	return out, nil
}

// check leads an event to the checkpoint.
func (p ProvedEvent) check(c Checkpoint) (e Event, body []byte, err error) {
	if e, body, err = decode([]byte(p.Record)); err != nil {
		return Event{}, nil, err
	}
	if e.Seq < 1 || e.Seq > c.Size {
		return Event{}, nil, fmt.Errorf("event %d is not among the checkpoint's %d", e.Seq, c.Size)
	}
	if err = tlog.CheckRecord(p.Hashes, c.Size, c.Hash, e.Seq-1, tlog.RecordHash([]byte(p.Record))); err == nil {
		err = e.unseal(p.openings())
	}
	if err != nil {
		return Event{}, nil, fmt.Errorf("event %d: %w", e.Seq, err)
	}
	return e, body, nil
}

func (p ProvedEvent) openings() (out []opening) {
	for _, v := range p.Values {
		out = append(out, opening(v))
	}
	return out
}
