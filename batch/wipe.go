package batch

import (
	"context"
	"errors"
	"time"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/provisioner"
)

// Wipe is what came of a service that was revoked while its card was
// elsewhere, and was still on a card that was presented.
type Wipe struct {
	Slot      string
	Line      int // of the card's row, 0 without one
	Reference string
	Issue     ledger.Issued // that was revoked
	Run       string        // that erased it, "" without one
	At        time.Time
	Code      string
	Err       error // nil once it is erased
}

// Failed reports whether erasing was tried and came to no end: presented again,
// the card is tried again. What lacks a manifest or a token has to be erased
// elsewhere.
func (w Wipe) Failed() bool {
	return w.Err != nil && !errors.Is(w.Err, provisioner.ErrNoManifest) && !errors.Is(w.Err, provisioner.ErrTokenMissing)
}

// kind says in one word what came of it.
func (w Wipe) kind() EventKind {
	if w.Err == nil {
		return Wiped
	}
	return NotWiped
}

// wipe erases from a card what was revoked while it was elsewhere. Nobody is
// asked: the holder has asked for it, and the ledger has recorded that. What
// fails is told, and stops neither the card nor its row.
func (b *Batch) wipe(ctx context.Context, pr *provisioner.Provisioner, s *provisioner.Session, slot string, r *row, on []ledger.CardIssue) {
	w := Wipe{Slot: slot}
	if r != nil {
		w.Line, w.Reference = r.Line, r.Reference
	}
	for _, issue := range on {
		if !issue.Revoked {
			continue
		}
		w.Issue = issue.Issued
		pr.Progress = func(p provisioner.Progress) {
			b.tell(Event{Kind: Progress, Slot: slot, Line: w.Line, Reference: w.Reference, Service: issue.Service, Progress: p})
		}
		w.Run, w.Err = pr.Wipe(ctx, s, b.o.Manifests[issue.Service])
		w.Code, w.At = Code(w.Err), b.o.Now()
		b.noteWipe(w)
	}
}

// issueKey names an issue.
type issueKey struct {
	card    ledger.CardRef
	service string
	number  uint16
}

// noteWipe keeps the last outcome for each issue, and tells it.
func (b *Batch) noteWipe(w Wipe) {
	b.mu.Lock()
	key := issueKey{w.Issue.Card, w.Issue.Service, w.Issue.IssueNumber}
	i, again := b.wipeOf[key]
	if !again {
		i = len(b.wipes)
		b.wipeOf[key], b.wipes = i, append(b.wipes, w)
	}
	b.wipes[i] = w
	if w.Err == nil {
		b.wiped++
	}
	b.mu.Unlock()
	b.tell(Event{Kind: w.kind(), Slot: w.Slot, Line: w.Line, Reference: w.Reference, Service: w.Issue.Service, Wipe: &w, Err: w.Err})
}

// holds reports whether an issue is that of a row.
func (b *Batch) holds(r *row, i ledger.Issued) bool {
	return i.Service == b.o.Manifest.ID && i.Consent == r.consent.Record.ID
}

// revoked notes a card whose row was issued to it and is good no more. The row
// stays issued: it is done with, and nothing of it goes to another card.
func (b *Batch) revoked(slot string, r *row, card ledger.CardRef) {
	b.mu.Lock()
	r.slot, r.at, r.failed = slot, b.o.Now(), ErrRowRevoked
	b.mu.Unlock()
	b.refuse(slot, r, card, ErrRowRevoked)
}
