package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kinds of events in the life of what was issued.
const (
	KindSuspended    Kind = "suspended"
	KindResumed      Kind = "resumed"
	KindRevoked      Kind = "revoked"
	KindCardReplaced Kind = "card-replaced"
	KindIDCarried    Kind = "id-carried"
	KindKeyKept      Kind = "key-kept"
	KindPINReset     Kind = "pin-reset"
)

// Cause says why an issue was revoked, or a card replaced.
type Cause string

// Causes. Only the last three replace a card.
const (
	CauseWithdrawn Cause = "withdrawn" // the holder took the consent back
	CauseRenewed   Cause = "renewed"   // the card was renewed
	CauseLost      Cause = "lost"      // or stolen
	CauseBroken    Cause = "broken"
)

func (c Cause) replaces() bool { return c == CauseRenewed || c == CauseLost || c == CauseBroken }

// Suspended: the service's instance on the card is locked; it keeps what it
// holds and answers nobody. There must be an issue.
type Suspended struct {
	Service string  `json:"service"`
	Card    CardRef `json:"card"`
	Run     string  `json:"run"`
}

// Resumed: the instance answers again.
type Resumed struct {
	Service string  `json:"service"`
	Card    CardRef `json:"card"`
	Run     string  `json:"run"`
}

// Revoked: what the card holds of the service is good no more, from now on,
// wherever the card is. It is to be wiped when the card is seen again;
// [Withdrawn] says that it was. An issue is revoked once: a second time is
// refused with [ErrExists].
type Revoked struct {
	Service     string  `json:"service"`
	Card        CardRef `json:"card"`
	Consent     string  `json:"consent"`
	ID          string  `json:"id" private:"IDDigest"`
	IssueNumber uint16  `json:"issue_number"`
	Cause       Cause   `json:"cause"`
	Run         string  `json:"run,omitempty"` // that issued to the card in its place
	IDDigest    string  `json:"id_digest"`     // as in IDReserved
}

// CardReplaced: a holder has a new card in place of an old one.
type CardReplaced struct {
	Old   CardRef `json:"old"`
	Card  CardRef `json:"card"` // the new one
	Cause Cause   `json:"cause"`
}

// IDCarried: a holder keeps an ID under another consent, on the same card or
// on the one that replaced it.
type IDCarried struct {
	Service string `json:"service"`
	ID      string `json:"id" private:"IDDigest"`
	From    string `json:"from"` // consent that had it
	Consent string `json:"consent"`
	Run     string `json:"run,omitempty"`
	// IDDigest is as in IDReserved.
	IDDigest string `json:"id_digest"`
}

// KeyKept: the issue that the same run recorded has an older version of the
// read key beside its newest.
type KeyKept struct {
	Service    string  `json:"service"`
	Card       CardRef `json:"card"`
	Run        string  `json:"run"`
	KeyVersion byte    `json:"key_version"`
	Until      string  `json:"until"` // last day on which it is needed, "2030-03-31"
}

// PINReset: the counter set the holder's PIN anew. The PIN is not in it.
type PINReset struct {
	Service string  `json:"service"`
	Card    CardRef `json:"card"`
	Run     string  `json:"run"`
}

func (Suspended) Kind() Kind    { return KindSuspended }
func (Resumed) Kind() Kind      { return KindResumed }
func (Revoked) Kind() Kind      { return KindRevoked }
func (CardReplaced) Kind() Kind { return KindCardReplaced }
func (IDCarried) Kind() Kind    { return KindIDCarried }
func (KeyKept) Kind() Kind      { return KindKeyKept }
func (PINReset) Kind() Kind     { return KindPINReset }

func (d Suspended) check() error { return onCard(d.Service, d.Card, d.Run) }
func (d Resumed) check() error   { return onCard(d.Service, d.Card, d.Run) }
func (d PINReset) check() error  { return onCard(d.Service, d.Card, d.Run) }

func onCard(service string, card CardRef, run string) error {
	return errors.Join(name("service", service), card.check(), name("run", run))
}

func (d Revoked) check() error {
	var cause error
	if d.Cause != CauseWithdrawn && !d.Cause.replaces() {
		cause = fmt.Errorf("cause %q", d.Cause)
	}
	return errors.Join(name("service", d.Service), d.Card.check(), name("consent", d.Consent), name("id", d.ID),
		number("issue number", int(d.IssueNumber), 1, 0xFFFF), cause, optional("run", d.Run))
}

func (d CardReplaced) check() error {
	var err error
	switch {
	case !d.Cause.replaces():
		err = fmt.Errorf("cause %q", d.Cause)
	case d.Old == d.Card:
		err = errors.New("a card in place of itself")
	}
	return errors.Join(digits("old card", string(d.Old), 32), d.Card.check(), err)
}

func (d IDCarried) check() error {
	return errors.Join(name("service", d.Service), name("id", d.ID), name("from", d.From), name("consent", d.Consent), optional("run", d.Run))
}

func (d KeyKept) check() error {
	err := onCard(d.Service, d.Card, d.Run)
	if _, bad := time.Parse(time.DateOnly, d.Until); bad != nil {
		err = errors.Join(err, fmt.Errorf("until %q is not a date", d.Until))
	}
	return errors.Join(err, number("key version", int(d.KeyVersion), 1, 127))
}

// admitLife is admit for the events of this file.
func admitLife(ctx context.Context, q querier, data Data) error {
	switch d := data.(type) {
	case Suspended:
		return present(ctx, q, d.Service, d.Card)
	case Resumed:
		return present(ctx, q, d.Service, d.Card)
	case PINReset:
		return present(ctx, q, d.Service, d.Card)
	case KeyKept:
		return present(ctx, q, d.Service, d.Card)
	case Revoked:
		var revoked int
		err := q.QueryRowContext(ctx, `SELECT coalesce(max(revoked IS NOT NULL), -1) FROM issues
			WHERE service = ? AND card = ? AND consent = ? AND id_digest = ? AND issue_number = ? AND ended IS NULL`,
			d.Service, string(d.Card), d.Consent, d.IDDigest, d.IssueNumber).Scan(&revoked)
		switch {
		case err != nil:
			return err
		case revoked < 0:
			return fmt.Errorf("%w: no such issue of %s is on a card", ErrOrder, d.Service)
		case revoked > 0:
			return fmt.Errorf("revocation of issue %d of %s %w", d.IssueNumber, d.Service, ErrExists)
		}
	case CardReplaced:
		switch back, err := replaced(ctx, q, d.Card, d.Old); {
		case err != nil:
			return err
		case back:
			return fmt.Errorf("%w: the new card was replaced by the old one before", ErrOrder)
		}
	case IDCarried:
		if err := mayHaveID(ctx, q, d.Service, d.Consent); err != nil {
			return err
		}
		owner, err := idOwner(ctx, q, d.Service, d.IDDigest)
		if err != nil {
			return err
		}
		if owner != d.From {
			return fmt.Errorf("%w: %s of %s is not of consent %s", ErrOrder, d.ID, d.Service, d.From)
		}
		from, err := consentFor(ctx, q, d.From)
		if err != nil {
			return err
		}
		to, err := consentFor(ctx, q, d.Consent)
		if err != nil || from.card == to.card && from.card != "" {
			return err
		}
		return follows(ctx, q, from.card, to.card)
	}
	return admitHandover(ctx, q, data)
}

// present refuses what is said of an issue that no card holds.
func present(ctx context.Context, q querier, service string, card CardRef) error {
	var n int
	err := q.QueryRowContext(ctx, "SELECT count(*) FROM issues WHERE service = ? AND card = ? AND ended IS NULL", service, string(card)).Scan(&n)
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: no issue of %s is on this card", ErrOrder, service)
	}
	return err
}

// follows refuses to carry something to a card that did not replace the other.
func follows(ctx context.Context, q querier, old, card CardRef) error {
	ok, err := replaced(ctx, q, old, card)
	if err == nil && !ok {
		err = fmt.Errorf("%w: the one card has not replaced the other", ErrOrder)
	}
	return err
}

func replaced(ctx context.Context, q querier, old, card CardRef) (ok bool, err error) {
	err = q.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM replacements WHERE old = ? AND card = ?)", string(old), string(card)).Scan(&ok)
	return ok, err
}

// Replaced reports whether the one card is recorded as the other's
// replacement.
func (l *Ledger) Replaced(ctx context.Context, old, card CardRef) (bool, error) {
	return ask(ctx, l, func() (bool, error) { return replaced(ctx, l.read, old, card) })
}

// WasReplaced reports whether any other card is recorded as the card's
// replacement.
func (l *Ledger) WasReplaced(ctx context.Context, card CardRef) (bool, error) {
	return ask(ctx, l, func() (is bool, err error) {
		err = l.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM replacements WHERE old = ?)", string(card)).Scan(&is)
		return is, err
	})
}

// PassedOn reports whether an issue under the consent was revoked because
// another card took the place of its card: the holder was asked again for that
// one, and nothing is issued under this consent any more.
func (l *Ledger) PassedOn(ctx context.Context, consent string) (bool, error) {
	return ask(ctx, l, func() (is bool, err error) {
		err = l.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM events
			WHERE consent = ? AND kind = 'revoked' AND record ->> '$.data.cause' <> ?)`, consent, string(CauseWithdrawn)).Scan(&is)
		return is, err
	})
}

// IsSuspended reports whether the service was suspended on the card and not
// resumed, issued anew or withdrawn since.
func (l *Ledger) IsSuspended(ctx context.Context, service string, card CardRef) (bool, error) {
	return ask(ctx, l, func() (is bool, err error) {
		err = l.read.QueryRowContext(ctx, `SELECT coalesce((SELECT kind = 'suspended' FROM events
			WHERE service = ? AND card = ? AND kind IN ('issued', 'suspended', 'resumed', 'withdrawn')
			ORDER BY seq DESC LIMIT 1), 0)`, service, string(card)).Scan(&is)
		return is, err
	})
}

// CardIssue is an issue to a card.
type CardIssue struct {
	Issued
	// Revoked tells that it is good no more, and to be wiped when the card is
	// seen; Cause says why.
	Revoked bool
	Cause   Cause
	// Ended tells that the card holds it no more, as far as the ledger knows: it
	// was withdrawn, or another one followed.
	Ended bool
}

// IssuesOf returns what cards hold, by ID or by consent; what is empty is not
// looked at. service may be empty. IDs are found by their digests, also where
// they are erased; without Options.Digest the error is [ErrNoDigest].
func (l *Ledger) IssuesOf(ctx context.Context, service, id, consent string) ([]CardIssue, error) {
	return l.issuesOf(ctx, "issues.ended IS NULL", service, id, consent)
}

// EveryIssueOf is IssuesOf with what cards held once.
func (l *Ledger) EveryIssueOf(ctx context.Context, service, id, consent string) ([]CardIssue, error) {
	return l.issuesOf(ctx, "TRUE", service, id, consent)
}

func (l *Ledger) issuesOf(ctx context.Context, which, service, id, consent string) ([]CardIssue, error) {
	where := []string{which}
	var args []any
	choose := func(column, value string) {
		if value != "" {
			where, args = append(where, "issues."+column+" = ?"), append(args, value)
		}
	}
	choose("service", service)
	choose("consent", consent)
	if id != "" {
		digests, err := l.digestsOf(ctx, service, id)
		if err != nil {
			return nil, l.fail(err)
		}
		where, args = append(where, "issues.id_digest IN (SELECT value FROM json_each(?))"), append(args, digests)
	}
	return l.issues(ctx, strings.Join(where, " AND "), args...)
}

// digestsOf returns the digests of an ID in one service, or in each where none
// is named, as a JSON array.
func (l *Ledger) digestsOf(ctx context.Context, service, id string) (string, error) {
	services := []string{service}
	if service == "" {
		var list string
		err := l.read.QueryRowContext(ctx, "SELECT json_group_array(DISTINCT service) FROM events WHERE kind = 'id-reserved'").Scan(&list)
		if err == nil {
			err = json.Unmarshal([]byte(list), &services)
		}
		if err != nil {
			return "", err
		}
	}
	digests := make([]string, len(services))
	for i, s := range services {
		var err error
		if digests[i], err = l.digestID(ctx, s, id); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(digests)
	return string(list), err
}

// IssuesOn returns what a card holds.
func (l *Ledger) IssuesOn(ctx context.Context, card CardRef) ([]CardIssue, error) {
	return l.issues(ctx, "issues.card = ? AND issues.ended IS NULL", string(card))
}

// LastIssuesOn returns the last issue of each service to a card, whether the
// card holds it or held it once.
func (l *Ledger) LastIssuesOn(ctx context.Context, card CardRef) ([]CardIssue, error) {
	return l.issues(ctx, "issues.card = ?1 AND issues.seq IN (SELECT max(seq) FROM events WHERE card = ?1 AND kind = 'issued' GROUP BY service)", string(card))
}

// issues reads the issues that a condition on the view chooses, by service.
func (l *Ledger) issues(ctx context.Context, where string, args ...any) ([]CardIssue, error) {
	return ask(ctx, l, func() ([]CardIssue, error) {
		var chosen, states string
		err := l.read.QueryRowContext(ctx, `SELECT json_group_array(i.seq), json_group_array(json_object(
				'Revoked', json(iif(i.revoked IS NULL, 'false', 'true')), 'Ended', json(iif(i.ended IS NULL, 'false', 'true')),
				'Cause', (SELECT r.record ->> '$.data.cause' FROM events r WHERE r.seq = i.revoked)))
			FROM (SELECT * FROM issues WHERE `+where+` ORDER BY issues.service, issues.seq) i`, args...).Scan(&chosen, &states)
		if err != nil {
			return nil, err
		}
		var out []CardIssue
		if err := json.Unmarshal([]byte(states), &out); err != nil {
			return nil, err
		}
		list, err := load(ctx, l.read, "seq IN (SELECT value FROM json_each(?)) ORDER BY service, seq", chosen)
		if err != nil {
			return nil, err
		}
		for i, e := range list {
			out[i].Issued = e.Data.(Issued)
		}
		return out, nil
	})
}

// KeptKey returns the older version of the read key that the card's issue of
// the service has beside its newest, and until when; ok is false without one.
func (l *Ledger) KeptKey(ctx context.Context, service string, card CardRef) (kept KeyKept, ok bool, err error) {
	kept, err = ask(ctx, l, func() (d KeyKept, err error) {
		_, d, ok, err = one[KeyKept](ctx, l.read, `kind = 'key-kept' AND service = ?1 AND card = ?2 AND run = (
			SELECT i.run FROM issues JOIN events i ON i.seq = issues.seq
			WHERE issues.service = ?1 AND issues.card = ?2 AND issues.ended IS NULL)`, service, string(card))
		return d, err
	})
	return kept, ok && err == nil, err
}
