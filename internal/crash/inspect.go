package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/ledger"
)

// Finding is something that must not be.
type Finding struct {
	Lost   bool // card and ledger say different things, or one of them is gone
	Orphan bool // on a card, and the ledger knows nothing of it
	What   string
}

// card is what stands on a holder's card.
type card struct {
	loadFile, instance bool
	id                 string // that its service answers with; "" is none yet
	unread             error  // why it has none
}

// record is what the ledger says of a holder.
type record struct {
	card     ledger.CardRef  // that the consent is bound to
	intended map[string]bool // steps, by name
	reserved []string        // IDs
	issued   []ledger.Issued
}

// Inspect holds cards and ledger against each other at any moment, also
// between a crash and the next run. It looks at a copy, so that the next run
// finds what the crash left. What it can't do is an error: that is a finding,
// too, unless the caller knows better.
func (s *Site) Inspect(ctx context.Context) (found []Finding, err error) {
	dir, err := os.MkdirTemp("", "freearea-inspect-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, err := s.Copy(dir)
	if err != nil {
		return nil, err
	}
	found, _, err = c.inspect(ctx)
	return found, err
}

// Converged is Inspect when all of these holders' commands have run to their
// end: each card holds what the ledger says was issued, once.
func (s *Site) Converged(ctx context.Context, holders ...int) (found []Finding, err error) {
	found, records, err := s.inspect(ctx)
	if err != nil {
		return found, err
	}
	for _, h := range holders {
		if n := len(records[h].issued); n != 1 {
			found = append(found, Finding{Lost: true, What: fmt.Sprintf("holder %d: issued %d times", h, n)})
		}
	}
	return found, nil
}

func (s *Site) inspect(ctx context.Context) (found []Finding, records []record, err error) {
	lost := func(format string, args ...any) {
		found = append(found, Finding{Lost: true, What: fmt.Sprintf(format, args...)})
	}
	orphan := func(format string, args ...any) {
		found = append(found, Finding{Orphan: true, What: fmt.Sprintf(format, args...)})
	}
	if _, err := s.ask(ctx, nil, "ledger", "verify", "--json"); err != nil {
		return nil, nil, err
	}
	if records, err = s.records(ctx); err != nil {
		return nil, nil, err
	}
	owners := map[string]int{} // of IDs
	for h, r := range records {
		c, err := s.look(ctx, h)
		if err != nil {
			return found, records, err
		}
		if len(r.reserved) > 1 {
			lost("holder %d has %d IDs: %v", h, len(r.reserved), r.reserved)
		}
		for _, id := range r.reserved {
			id = serviceOf(h).id + " " + id
			if other, taken := owners[id]; taken {
				lost("holders %d and %d have the same ID %s", other, h, id)
			}
			owners[id] = h
		}
		// What is on the card was intended before.
		if c.loadFile && !r.intended["load"] {
			orphan("card %d: a load file that nobody intended to load", h)
		}
		if c.instance && !r.intended["install"] {
			orphan("card %d: an instance that nobody intended to install", h)
		}
		if c.id != "" && !r.intended["personalize"] {
			orphan("card %d: content that nobody intended to write", h)
		}
		if c.id != "" && !slices.Contains(r.reserved, c.id) {
			lost("card %d: ID %s, which is reserved for nobody or another", h, c.id)
		}
		// What is recorded as issued is on the card.
		for _, i := range r.issued {
			if i.ID != c.id {
				lost("holder %d: ID %s is issued, the card has %q (%v)", h, i.ID, c.id, c.unread)
			}
			if i.Card != r.card {
				lost("holder %d: issued to another card", h)
			}
		}
	}
	return found, records, nil
}

// records reads the ledger. Which card is whose it says itself, by the
// holder's consent.
func (s *Site) records(ctx context.Context) (_ []record, err error) {
	book, err := ledger.Open(ctx, s.LedgerPath(), ledger.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	out := make([]record, s.Holders)
	holder := map[string]*record{} // by consent, then by run
	for h := range out {
		id, err := consentID(s.path(consentFile(h)))
		if err != nil {
			return nil, err
		}
		out[h].intended = map[string]bool{}
		holder[id] = &out[h]
	}
	for e, err := range book.Events(ctx, ledger.Filter{}) {
		if err != nil {
			return nil, err
		}
		switch d := e.Data.(type) {
		case ledger.CardBound:
			holder[d.Consent].card = d.Card
		case ledger.RunStarted:
			holder[d.Run] = holder[d.Consent]
		case ledger.StepIntended:
			holder[d.Run].intended[d.Name] = true
		case ledger.IDReserved:
			holder[d.Consent].reserved = append(holder[d.Consent].reserved, d.ID)
		case ledger.Issued:
			holder[d.Consent].issued = append(holder[d.Consent].issued, d)
		}
	}
	return out, nil
}

func consentID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	c, err := consent.Parse(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return c.Record.ID, nil
}

// look reads a holder's card: the registry, and what a reader gets.
func (s *Site) look(ctx context.Context, holder int) (c card, err error) {
	slot := "image:" + s.path(Card(holder))
	text, err := s.ask(ctx, nil, "card", "show", "--json", "--card", slot)
	if err != nil {
		return c, err
	}
	var shown struct {
		Registry     bool
		Applications []struct{ AID string }
		LoadFiles    []struct{ AID string } `json:"load_files"`
	}
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		return c, err
	}
	if !shown.Registry {
		return c, fmt.Errorf("card %d: the registry could not be read", holder)
	}
	for _, f := range shown.LoadFiles {
		c.loadFile = c.loadFile || f.AID == baseLoadFile
	}
	for _, a := range shown.Applications {
		c.instance = c.instance || a.AID == serviceOf(holder).instance
	}
	text, err = s.ask(ctx, nil, "read", s.manifest(holder), "--json", "--card", slot)
	if err != nil {
		c.unread = err // nothing that a reader would take for an issue
		return c, nil
	}
	var tap struct{ ID string }
	err = json.Unmarshal([]byte(text), &tap)
	c.id = tap.ID
	return c, err
}

// Holding returns the holders whose cards hold the ID that the ledger has for
// one holder's consent, whosever cards they are.
func (s *Site) Holding(ctx context.Context, holder int) (cards []int, err error) {
	records, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	for h := range s.Holders {
		c, err := s.look(ctx, h)
		if err != nil {
			return nil, err
		}
		if c.id != "" && slices.Contains(records[holder].reserved, c.id) {
			cards = append(cards, h)
		}
	}
	return cards, nil
}
