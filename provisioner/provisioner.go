// Package provisioner brings a card to the state that a manifest and a consent
// say it should be in. Issuing is reconciling: look at the card, compare with
// what is wanted, plan the difference, carry it out, record every step.
//
//	d, err := p.Desire(ctx, request)          // consent, subject, load file: no card yet
//	s, err := p.Connect(ctx)                  // secure channel, registry
//	plan, err := p.PlanIssue(ctx, s, d)       // what is left to do
//	result, err := p.Run(ctx, s, plan)        // intent, command, outcome
//
// Every step can be interrupted anywhere, by a torn card, a crash or a full
// disk: the card is then in a state that the next run understands, and running
// again goes on from there. Nothing is remembered that can be read from the
// card; the ledger records, it does not decide what the card holds.
package provisioner

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
)

// Errors of a run. Refusals by the card are [*iso7816.StatusError], a card
// that left is [iso7816.ErrCardRemoved], a consent that does not cover is an
// error of package consent.
var (
	// ErrTooManyFailures: the card has refused this key before; every further
	// try could bring it nearer to being blocked for good.
	ErrTooManyFailures = errors.New("authentication to this card has failed before")
	// ErrLoadFileHash: the load file at hand is not the one that the manifest names.
	ErrLoadFileHash = errors.New("load file differs from the manifest's hash")
	// ErrForeign: something else stands on the card under an AID that the
	// manifest uses.
	ErrForeign = errors.New("the AID is used by something else on the card")
	// ErrOtherIssue: the card already holds the service under another consent.
	ErrOtherIssue = errors.New("the card already holds this service")
	// ErrOtherCard: the consent is bound to another card.
	ErrOtherCard = errors.New("the consent is bound to another card")
	// ErrReplaced: what was issued under the consent is on another card by now,
	// under another consent.
	ErrReplaced = errors.New("the consent's card was replaced")
	// ErrOtherInstance: the card has the service under another instance AID than
	// the manifest's, which was changed since.
	ErrOtherInstance = errors.New("the card has the service under another AID")
	// ErrOldCard: the card was replaced itself, and takes no other's place.
	ErrOldCard = errors.New("the card was replaced by another one before")
	// ErrCardState: the card's or the instance's life cycle state forbids it.
	ErrCardState = errors.New("life cycle state forbids it")
	// ErrSuspended: the service is suspended on the card; it has to be resumed
	// before it is written to.
	ErrSuspended = errors.New("the service is suspended on this card")
	// ErrRevoked: what the card holds of the service was revoked without the
	// card; it has to be wiped first, by withdrawing.
	ErrRevoked = errors.New("the service was revoked, and is still on the card")
	// ErrNotOnCard: the service is not on the card.
	ErrNotOnCard = errors.New("the service is not on the card")
	// ErrPINMissing: the service has a PIN, the card has none of it yet, and
	// the request brings none.
	ErrPINMissing = errors.New("the holder has to choose a PIN")
	// ErrTermEnded: the service's term, counted from the consent, is over.
	ErrTermEnded = errors.New("the service's term is over")
	// ErrNoLedger: without a ledger nothing is issued or withdrawn.
	ErrNoLedger = errors.New("no ledger")
	// ErrUnknownDomain: a Security Domain is named of which nothing is known here.
	ErrUnknownDomain = errors.New("unknown security domain")
	// ErrDomain: the card's Security Domain can't do what is asked of it.
	ErrDomain = errors.New("the security domain is not ready")
	// ErrNotVisible: something is on the card, out of sight of the Security
	// Domain that was asked.
	ErrNotVisible = errors.New("on the card, but under another security domain")
	// ErrTokenMissing: a step needs a token that is not at hand.
	ErrTokenMissing = errors.New("a token of the card's operator is needed")
	// ErrReceiptMissing: the card profile demands receipts, and none came.
	ErrReceiptMissing = errors.New("the card gave no receipt")
	// ErrNotVerified: the card did not hold what was written when it was read back.
	ErrNotVerified = errors.New("the card does not hold what was written")
)

// Ledger is what a provisioner asks of the ledger; *[ledger.Ledger] is one,
// and its documentation says what each method does.
type Ledger interface {
	Append(ctx context.Context, events ...ledger.Event) (seq int64, err error)
	ReserveID(ctx context.Context, r ledger.Reservation) (id string, again bool, err error)

	Consent(ctx context.Context, id string) (ledger.Consent, error)
	ReservedID(ctx context.Context, service, consent string) (id string, ok bool, err error)
	ActiveIssue(ctx context.Context, service string, card ledger.CardRef) (issue ledger.Issued, ok bool, err error)
	IssueNumber(ctx context.Context, service string, card ledger.CardRef) (uint16, error)
	IssuesOn(ctx context.Context, card ledger.CardRef) ([]ledger.CardIssue, error)
	IsSuspended(ctx context.Context, service string, card ledger.CardRef) (bool, error)
	Services(ctx context.Context, card ledger.CardRef) ([]ledger.ServiceState, error)
	KeptKey(ctx context.Context, service string, card ledger.CardRef) (kept ledger.KeyKept, ok bool, err error)
	Replaced(ctx context.Context, old, card ledger.CardRef) (bool, error)
	WasReplaced(ctx context.Context, card ledger.CardRef) (bool, error)
	PassedOn(ctx context.Context, consent string) (bool, error)
	UnfinishedRuns(ctx context.Context, card ledger.CardRef) ([]ledger.Run, error)
	AIDOwner(ctx context.Context, aid iso7816.AID) (service string, ok bool, err error)
	FailedAuthentications(ctx context.Context, card ledger.CardRef, target iso7816.AID) (int, error)
}

var _ Ledger = (*ledger.Ledger)(nil)

// Provisioner works for one counter. Its fields are set once before use.
type Provisioner struct {
	Card        iso7816.Card
	CardProfile globalplatform.CardProfile
	Profiles    applets.Profiles

	Keys keys.Store
	// SecurityDomainKey is the key set of the Issuer Security Domain. Without a
	// name it is not at hand: then only Domains manage the card.
	SecurityDomainKey keys.Ref
	Diversification   keys.Method // how its keys follow from the stored ones
	LedgerKey         keys.Ref    // keyed digests and tags

	// Domains are the supplementary Security Domains whose key sets are at hand.
	Domains []Domain
	// Home is the Security Domain of services whose manifest names none; zero
	// is the Issuer Security Domain.
	Home iso7816.AID
	// Tokens are what the card's operator allowed, for a Security Domain with
	// Delegated Management; nil without any.
	Tokens *delegation.Tokens
	// Receipts verifies receipts. Without it they are kept unverified.
	Receipts globalplatform.Verifier

	Ledger Ledger // nil: nothing can be issued, and no failures are counted
	Actor  ledger.Actor

	// RetryAfterFailures tries once more on a card that has failed before.
	RetryAfterFailures bool
	// Failed is told, before an authentication, how many have failed in a row
	// on this card and how many the card profile allows; it may be nil. It is
	// not told when none has failed.
	Failed func(failed, limit int)
	// Progress is told before each step and after each of its commands; it may be nil.
	Progress func(Progress)
	// Rand is the source of challenges and identifiers; nil is crypto/rand.
	Rand io.Reader
}

// Domain is a supplementary Security Domain and how it is reached.
type Domain struct {
	AID             iso7816.AID
	Key             keys.Ref    // its key set
	Diversification keys.Method // how its keys follow from the stored ones
	// Manager is the Security Domain that loads, installs and deletes for it:
	// itself, another one above it, or, zero, the Issuer Security Domain.
	Manager iso7816.AID
}

// issuer is the Issuer Security Domain.
func (p *Provisioner) issuer() Domain {
	return Domain{AID: p.CardProfile.SecurityDomain, Key: p.SecurityDomainKey, Diversification: p.Diversification}
}

// hasIssuer reports whether the Issuer Security Domain's keys are at hand.
func (p *Provisioner) hasIssuer() bool { return p.SecurityDomainKey.Name != "" }

// domain is the Security Domain with an AID; zero is the issuer's.
func (p *Provisioner) domain(aid iso7816.AID) (Domain, error) {
	if aid.IsZero() || aid == p.CardProfile.SecurityDomain {
		if !p.hasIssuer() {
			return Domain{}, fmt.Errorf("%w: the key set of the issuer security domain %v is not at hand", ErrUnknownDomain, p.CardProfile.SecurityDomain)
		}
		return p.issuer(), nil
	}
	for _, d := range p.Domains {
		if d.AID == aid {
			return d, nil
		}
	}
	return Domain{}, fmt.Errorf("%w: no key set is named for %v", ErrUnknownDomain, aid)
}

// place is where on a card a service belongs.
type place struct {
	home    Domain // to which its instance belongs, and which personalises it
	manager Domain // which loads, installs, extradites and deletes
}

// separate reports whether the instance has to be extradited.
func (w place) separate() bool { return w.home.AID != w.manager.AID }

// place finds out where the service belongs: where its manifest says, or else
// the site.
func (p *Provisioner) place(m *manifest.Manifest) (place, error) {
	aid, from := m.Application.SecurityDomain, " (application.security_domain)"
	if aid.IsZero() {
		aid, from = p.Home, ""
	}
	home, err := p.domain(aid)
	if err != nil {
		return place{}, fmt.Errorf("%w%s", err, from)
	}
	manager, err := p.domain(home.Manager)
	if err != nil {
		return place{}, fmt.Errorf("%w, which manages the content of %v", err, home.AID)
	}
	return place{home: home, manager: manager}, nil
}

// Progress says how far a run is.
type Progress struct {
	Step     int // from 1
	Steps    int
	Name     string
	Commands int // sent in this step
	Total    int // commands of this step
}

func (p *Provisioner) random(n int) ([]byte, error) {
	source := p.Rand
	if source == nil {
		source = rand.Reader
	}
	b := make([]byte, n)
	_, err := io.ReadFull(source, b)
	return b, err
}

func (p *Provisioner) newID() (string, error) {
	b, err := p.random(16)
	return hex.EncodeToString(b), err
}

// append writes events to the ledger.
func (p *Provisioner) append(ctx context.Context, reason string, data ...ledger.Data) error {
	return p.write(ctx, p.events(reason, data))
}

// events are this counter's.
func (p *Provisioner) events(reason string, data []ledger.Data) []ledger.Event {
	events := make([]ledger.Event, len(data))
	for i, d := range data {
		events[i] = ledger.Event{Actor: p.Actor, Reason: reason, Data: d}
	}
	return events
}

// write puts events into the ledger even when the context has ended: what
// happened to a card is recorded, whoever gave up waiting.
func (p *Provisioner) write(ctx context.Context, events []ledger.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	_, err := p.Ledger.Append(ctx, events...)
	return err
}
