package provisioner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
)

// Errors of what happens to an application after it was issued.
var (
	// ErrKeyRoom: the instance was installed with room for fewer read keys.
	ErrKeyRoom = errors.New("the application has no room for another read key")
	// ErrNoReadKey: the service's applications have no read keys.
	ErrNoReadKey = errors.New("the service has no read key")
	// ErrNoPIN: the service has no PIN.
	ErrNoPIN = errors.New("the service has no PIN")
	// ErrNoManifest: the manifest of a service that was revoked is not at hand.
	ErrNoManifest = errors.New("the service's manifest is not at hand")
	// ErrOtherContent: what was given is not what the card holds.
	ErrOtherContent = errors.New("the card holds something else")
)

func (d *Desired) purpose() string {
	switch {
	case d.setPIN:
		return ResetPIN
	case d.rekey != nil:
		return RekeyRun
	case d.update():
		return Update
	case d.carry != nil:
		return Reissue
	}
	return Issue
}

// activeIssue is what the card holds of a service and what is good. One that
// was revoked is an error.
func (p *Provisioner) activeIssue(ctx context.Context, service string, card ledger.CardRef) (issue ledger.Issued, ok bool, err error) {
	list, err := p.Ledger.IssuesOn(ctx, card)
	for _, i := range list {
		if i.Service == service {
			if i.Revoked {
				return issue, false, fmt.Errorf("%w: issue number %d of %q", ErrRevoked, i.IssueNumber, service)
			}
			issue, ok = i.Issued, true
		}
	}
	return issue, ok, err
}

// outcomeOfIssue says what the ledger is to record of an issue: that the ID
// passes on, the issue itself, the key that it keeps, and that
// the replaced card's issue is good no more. It is one record, so that no
// crash leaves a holder without an ID that is good, nor with two.
func (p *Provisioner) outcomeOfIssue(ctx context.Context, s *Session, d *Desired, plan *Plan) error {
	var before []ledger.Data
	var revoked []ledger.Revoked
	if c := d.carry; c != nil {
		id := d.Consent.Record.ID
		if c.Cause != "" {
			linked, err := p.Ledger.Replaced(ctx, c.From.Card, s.CardRef)
			if err != nil {
				return err
			}
			if !linked {
				// Before anything is written: the ledger could not record it.
				if was, err := p.Ledger.WasReplaced(ctx, s.CardRef); err != nil {
					return err
				} else if was {
					return ErrOldCard
				}
				before = append(before, ledger.CardReplaced{Old: c.From.Card, Card: s.CardRef, Cause: c.Cause})
			}
			on, err := p.Ledger.IssuesOn(ctx, c.From.Card)
			if err != nil {
				return err
			}
			for _, i := range on {
				if i.Service == d.Manifest.ID && !i.Revoked {
					revoked = append(revoked, ledger.Revoked{Service: i.Service, Card: i.Card, Consent: i.Consent, ID: i.ID, IssueNumber: i.IssueNumber, Cause: c.Cause})
				}
			}
		}
		if !c.NewID && c.From.Consent != id {
			has, _, err := p.Ledger.ReservedID(ctx, d.Manifest.ID, id)
			if err != nil {
				return err
			}
			if has != c.From.ID {
				before = append(before, ledger.IDCarried{Service: d.Manifest.ID, ID: c.From.ID, From: c.From.Consent, Consent: id})
			}
		}
	}
	plan.outcome = func(run string) []ledger.Data {
		issued := ledger.Issued{
			Service: plan.Service, Card: s.CardRef, Consent: d.Consent.Record.ID, Run: run, Instance: plan.Instance,
			ID: d.ID, IssueNumber: plan.number, Tag: tagText(plan.tag), KeyVersion: plan.keyVersion,
		}
		if !d.Expiry.IsZero() {
			issued.Expiry = d.Expiry.Format(time.DateOnly)
		}
		out := append(before[:len(before):len(before)], issued)
		if len(d.versions) == 2 {
			out = append(out, ledger.KeyKept{Service: plan.Service, Card: s.CardRef, Run: run, KeyVersion: d.versions[1], Until: d.kept})
		}
		for _, r := range revoked {
			r.Run = run
			out = append(out, r)
		}
		return out
	}
	return nil
}

// chooseKeys decides which versions of the read key the card is to have. One
// that holds the service keeps what it has until it is rekeyed, or until the
// term of an older version is over.
func (p *Provisioner) chooseKeys(ctx context.Context, s *Session, d *Desired, active *ledger.Issued) error {
	d.versions, d.kept = nil, ""
	mutual := d.Profile.Traits().MutualAuthentication
	switch {
	case d.rekey != nil && !mutual:
		return fmt.Errorf("%w: %q", ErrNoReadKey, d.Manifest.ID)
	case !mutual || active == nil:
		return nil
	}
	entries, err := p.Keys.Entries(ctx)
	if err != nil {
		return err
	}
	var newest byte
	usable := map[byte]bool{}
	for _, e := range entries {
		if e.Name == d.Manifest.Keys.Read && e.Retired.IsZero() {
			newest, usable[e.Version] = max(newest, e.Version), true
		}
	}
	version, older := active.KeyVersion, byte(0)
	kept, ok, err := p.Ledger.KeptKey(ctx, d.Manifest.ID, s.CardRef)
	if err != nil {
		return err
	}
	today := d.now.Format(time.DateOnly)
	if ok && kept.Until >= today {
		older, d.kept = kept.KeyVersion, kept.Until
	}
	if r := d.rekey; r != nil {
		switch {
		case r.KeepUntil.IsZero():
			older, d.kept = 0, ""
		case newest != version:
			older, d.kept = version, r.KeepUntil.Format(time.DateOnly)
		}
		version = newest
	}
	if !usable[version] {
		version = newest // it was taken out of use
	}
	d.versions = []byte{version}
	if older != 0 && older != version && usable[older] {
		d.versions = append(d.versions, older)
	}
	return nil
}

// PlanPIN plans to set the holder's PIN anew, with the content that the card
// holds: d is what [Provisioner.Desire] made of it, with the new PIN. What the
// card holds is not changed otherwise: other content is [ErrOtherContent].
func (p *Provisioner) PlanPIN(ctx context.Context, s *Session, d *Desired) (*Plan, error) {
	switch {
	case !d.spec.PIN:
		return nil, fmt.Errorf("%w: %q", ErrNoPIN, d.Manifest.ID)
	case d.subject.PIN == "":
		return nil, ErrPINMissing
	case !d.update():
		return nil, errors.New("a PIN is set anew for what is on the card")
	}
	d.setPIN = true
	return p.PlanIssue(ctx, s, d)
}

// planPIN writes the served content once more, under its own number, and the
// PIN with it: the card takes a PIN with a whole content only.
func (p *Provisioner) planPIN(ctx context.Context, d *Desired, plan *Plan, observed *applets.Observation, active *ledger.Issued) error {
	if observed == nil || !observed.Personalized() {
		return fmt.Errorf("%w: %s", ErrNotOnCard, d.Manifest.ID)
	}
	c, err := p.content(ctx, d, observed.IssueNumber, plan.data)
	defer erase(&c)
	switch {
	case err != nil:
		return err
	case c.Tag != observed.Tag || active.Tag != tagText(c.Tag):
		return fmt.Errorf("%w than the items given, or an update of it was not finished", ErrOtherContent)
	}
	plan.number = observed.IssueNumber
	plan.holds(c)
	plan.outcome = func(run string) []ledger.Data {
		return []ledger.Data{ledger.PINReset{Service: plan.Service, Card: plan.card, Run: run}}
	}
	plan.Steps = append(plan.Steps, p.personalize(plan, true), p.verify(plan))
	return nil
}

// PlanSuspend plans to lock the service's instance on the card, so that no
// terminal can select it, and PlanResume to unlock it again. What it holds
// stays. Neither takes a token.
func (p *Provisioner) PlanSuspend(ctx context.Context, s *Session, m *manifest.Manifest) (*Plan, error) {
	return p.planLock(ctx, s, m, true)
}

// PlanResume is the other direction of [Provisioner.PlanSuspend]. An instance
// that somebody else has locked is [ErrCardState].
func (p *Provisioner) PlanResume(ctx context.Context, s *Session, m *manifest.Manifest) (*Plan, error) {
	return p.planLock(ctx, s, m, false)
}

func (p *Provisioner) planLock(ctx context.Context, s *Session, m *manifest.Manifest, lock bool) (*Plan, error) {
	where, err := p.place(m)
	if err != nil {
		return nil, err
	}
	if err := p.usable(ctx, s, where); err != nil {
		return nil, err
	}
	if err := errors.Join(p.checkOwner(ctx, m), p.checkInstance(ctx, s, m)); err != nil {
		return nil, err
	}
	_, ok, err := p.activeIssue(ctx, m.ID, s.CardRef)
	if err != nil {
		return nil, err
	}
	present, at, err := p.instance(ctx, s, where, m.Application)
	switch {
	case err != nil:
		return nil, err
	case !ok || present == nil:
		return nil, fmt.Errorf("%w: %s", ErrNotOnCard, m.ID)
	}
	held, err := p.Ledger.IsSuspended(ctx, m.ID, s.CardRef)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Purpose: Resume, Service: m.ID, Instance: m.Application.Instance, card: s.CardRef, where: where, Recorded: held == lock}
	plan.outcome = func(run string) []ledger.Data {
		return []ledger.Data{ledger.Resumed{Service: m.ID, Card: s.CardRef, Run: run}}
	}
	if lock {
		plan.Purpose = Suspend
		plan.outcome = func(run string) []ledger.Data {
			return []ledger.Data{ledger.Suspended{Service: m.ID, Card: s.CardRef, Run: run}}
		}
	}
	if present.Locked() == lock {
		return plan, nil
	}
	if !lock {
		if err := p.checkLock(ctx, s, m); err != nil {
			return nil, err
		}
	}
	plan.Steps = []Step{p.setLocked(at, plan.Instance, lock)}
	return plan, nil
}

// checkLock refuses to unlock what was not locked here: it may be the card's
// issuer who wants it so.
func (p *Provisioner) checkLock(ctx context.Context, s *Session, m *manifest.Manifest) error {
	held, err := p.Ledger.IsSuspended(ctx, m.ID, s.CardRef)
	if err != nil || held {
		return err
	}
	runs, err := p.Ledger.UnfinishedRuns(ctx, s.CardRef)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.Service == m.ID && r.Purpose == Suspend {
			return nil // it was torn before it could be recorded
		}
	}
	return fmt.Errorf("%w: the instance %v is locked, and not by this counter", ErrCardState, m.Application.Instance)
}

// setLocked locks an instance, or unlocks it (GPCS 11.10). The card refuses
// a transition to the state that is there: the plan knows it.
func (p *Provisioner) setLocked(at Domain, instance iso7816.AID, lock bool) Step {
	name, command := StepUnlock, globalplatform.Unlock(instance)
	if lock {
		name, command = StepLock, globalplatform.Lock(instance)
	}
	return through(at, Step{
		Name: name, Commands: []string{"SET STATUS"},
		build: func(context.Context, *Session) ([]globalplatform.Commander, error) {
			return []globalplatform.Commander{command}, nil
		},
	})
}

// Revoke records, without any card, that issues are good no more, and the
// withdrawal of the consent under which they were made. What is recorded
// already is left alone; it returns how many issues it has revoked.
func (p *Provisioner) Revoke(ctx context.Context, issues []ledger.CardIssue, withdrawal *consent.SignedWithdrawal, reason string) (int, error) {
	if p.Ledger == nil {
		return 0, ErrNoLedger
	}
	var events []ledger.Data
	if withdrawal != nil {
		id := withdrawal.Withdrawal.Consent
		known, err := p.Ledger.Consent(ctx, id)
		if err != nil {
			return 0, err
		}
		if known.Withdrawn.IsZero() {
			events = append(events, ledger.ConsentWithdrawn{Consent: id, Signed: withdrawal.Encode()})
		}
	}
	n := 0
	for _, i := range issues {
		if !i.Revoked {
			n++
			events = append(events, ledger.Revoked{
				Service: i.Service, Card: i.Card, Consent: i.Consent, ID: i.ID, IssueNumber: i.IssueNumber, Cause: ledger.CauseWithdrawn,
			})
		}
	}
	if len(events) == 0 {
		return 0, nil
	}
	return n, p.append(ctx, reason, events...)
}

// Pending are the issues on the card that were revoked without it, and are to
// be wiped now that it is here ([Provisioner.Wipe]).
func (p *Provisioner) Pending(ctx context.Context, s *Session) (list []ledger.Issued, err error) {
	if p.Ledger == nil {
		return nil, nil
	}
	on, err := p.Ledger.IssuesOn(ctx, s.CardRef)
	for _, i := range on {
		if i.Revoked {
			list = append(list, i.Issued)
		}
	}
	return list, err
}

// Wipe erases a service that [Provisioner.Pending] names, and returns the run
// that did. m is the service's manifest, nil where it is not at hand: that is
// [ErrNoManifest], and [ErrTokenMissing] where erasing it takes tokens. One that
// fails keeps the card from nothing else, and is finished the next time.
func (p *Provisioner) Wipe(ctx context.Context, s *Session, m *manifest.Manifest) (run string, err error) {
	if m == nil {
		return "", ErrNoManifest
	}
	plan, err := p.PlanWithdraw(ctx, s, m)
	if err != nil {
		return "", err
	}
	result, err := p.Run(ctx, s, plan)
	if err != nil {
		return "", err
	}
	return result.Run, nil
}
