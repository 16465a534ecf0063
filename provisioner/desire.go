package provisioner

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
)

// Request is what somebody at the counter asks for.
type Request struct {
	Manifest   *manifest.Manifest
	LoadFile   *capfile.File
	Consent    *consent.Signed
	CounterKey ed25519.PublicKey // whose consents are accepted
	Subject    manifest.Subject  // ID only where the scheme says that it is given
	CardExpiry time.Time         // as printed on the card; the clerk enters it
	Now        time.Time         // in the counter's time zone, where days begin and end
	Reason     string            // for the ledger, optional

	// Carry is what the holder has already: an issue on this card, which is
	// updated, or one on the card that this one replaces. nil for a first issue.
	Carry *Carry
	// Rekey gives the card the newest version of the read key. It goes with a
	// Carry on the same card.
	Rekey *Rekey
}

// Carry names an issue whose ID the holder keeps.
type Carry struct {
	From ledger.Issued
	// Cause says why another card takes the place of From.Card, whose issue is
	// then revoked; "" on the same card. For another card the holder is asked
	// again: the consent is not that of From.
	Cause ledger.Cause
	// NewID gives the holder another ID all the same.
	NewID bool
}

// Rekey says what becomes of the version of the read key that the card has.
type Rekey struct {
	// KeepUntil is the last day on which terminals may still use it; with the
	// zero time it is taken off the card at once.
	KeepUntil time.Time
}

// Desired is what the card should hold: everything about a [Request] that was
// checked and computed before the card is used.
type Desired struct {
	Manifest *manifest.Manifest
	Profile  applets.Profile
	LoadFile *capfile.File
	Consent  *consent.Signed
	Expiry   time.Time // last day of the service, zero for none

	ID      string // "" until the ledger reserves one
	subject manifest.Subject
	items   []applets.Item
	spec    applets.InstallSpec // diversification data is drawn when installing
	where   place
	reason  string
	now     time.Time
	carry   *Carry
	rekey   *Rekey
	// versions are the read keys that the card is to have, newest first; nil is
	// the newest alone. kept is the last day of the older one.
	versions []byte
	kept     string
	setPIN   bool // also where the card has one
}

// update reports whether it is the issue on the card that is to change.
func (d *Desired) update() bool { return d.carry != nil && d.carry.Cause == "" }

// Desire checks a request as far as that can be done without the card: the
// consent must cover exactly this manifest, these items and this moment, the
// subject must fit the manifest, and the load file must be the one that the
// manifest names. Nothing is written.
func (p *Provisioner) Desire(ctx context.Context, r Request) (*Desired, error) {
	m := r.Manifest
	switch {
	case p.Ledger == nil:
		return nil, ErrNoLedger
	case m == nil || r.LoadFile == nil || r.Consent == nil:
		return nil, errors.New("a request needs manifest, load file and consent")
	}
	profile, ok := m.LookupProfile(p.Profiles)
	if !ok {
		return nil, fmt.Errorf("profile %q is not known to this program", m.Profile)
	}
	if r.Rekey != nil && (r.Carry == nil || r.Carry.Cause != "") {
		return nil, errors.New("only what is on the card is given other read keys")
	}
	if c := r.Carry; c != nil {
		if c.From.Service != m.ID {
			return nil, fmt.Errorf("an issue of %q is no issue of %q", c.From.Service, m.ID)
		}
		if m.IDScheme.Kind == manifest.IDGiven && r.Subject.ID == "" && !c.NewID {
			r.Subject.ID = c.From.ID
		}
	}
	// Before the consent: an item that was forgotten, or misspelt, is not one that
	// the holder did not agree to.
	if err := m.CheckSubject(r.Subject); err != nil {
		return nil, err
	}
	if err := p.checkConsent(ctx, r); err != nil {
		return nil, err
	}
	if got := r.LoadFile.Hash(); got != [sha256.Size]byte(m.LoadFile.SHA256) {
		return nil, fmt.Errorf("%w: load file data block has SHA-256 %x, the manifest says %v", ErrLoadFileHash, got, m.LoadFile.SHA256)
	}
	if r.LoadFile.Package.AID != m.Application.Package {
		return nil, fmt.Errorf("%w: the load file holds package %v, the manifest says %v", ErrLoadFileHash, r.LoadFile.Package.AID, m.Application.Package)
	}
	where, err := p.place(m)
	if err != nil {
		return nil, err
	}
	if _, err := m.TermEnd(r.Now, r.CardExpiry); err != nil {
		return nil, err
	}
	// The term counts from the consent, so that a run repeated on another day
	// wants the same content.
	expiry, err := m.TermEnd(r.Consent.Record.Given.In(r.Now.Location()), r.CardExpiry)
	if err != nil {
		return nil, err
	}
	if (applets.Record{Expiry: expiry}).Expired(r.Now) {
		return nil, fmt.Errorf("%w since %s", ErrTermEnded, expiry.Format(time.DateOnly))
	}
	d := &Desired{
		Manifest: m, Profile: profile, LoadFile: r.LoadFile, Consent: r.Consent, Expiry: expiry,
		subject: r.Subject, reason: r.Reason, where: where, now: r.Now, carry: r.Carry, rekey: r.Rekey,
	}
	for _, it := range m.Items {
		if value := r.Subject.Items[it.Name]; value != "" {
			d.items = append(d.items, applets.Item{Name: it.Name, Value: value})
		}
	}
	d.spec = m.InstallSpec()
	if limit := m.Application.Memory; limit > 0 && profile.PersistentMemory(d.spec) > limit {
		return nil, fmt.Errorf("an instance takes %d bytes of the card, the manifest allows %d (application.memory)", profile.PersistentMemory(d.spec), limit)
	}
	d.ID, err = p.knownID(ctx, d)
	return d, err
}

// checkConsent holds the record against the manifest and against what the
// ledger knows of it.
func (p *Provisioner) checkConsent(ctx context.Context, r Request) error {
	at := r.Now
	// The days of a consent are those in which a card may be issued on it. What
	// was issued then is kept up under it, as long as it is not withdrawn.
	if c := r.Carry; c != nil && c.Cause == "" && c.From.Consent == r.Consent.Record.ID && !at.Before(r.Consent.Record.Until) {
		at = r.Consent.Record.Until.Add(-time.Second)
	}
	if err := r.Consent.Covers(r.CounterKey, r.Manifest, r.Manifest.SubjectItems(r.Subject), at); err != nil {
		return err
	}
	state, err := p.Ledger.Consent(ctx, r.Consent.Record.ID)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil // recorded with the first run
	case err != nil:
		return err
	case !state.Withdrawn.IsZero():
		return fmt.Errorf("%w: on %s", consent.ErrWithdrawn, state.Withdrawn.Format(time.RFC3339))
	case r.Carry != nil && r.Carry.Cause == "":
		return nil // the plan knows whether what is on the card is good
	}
	passed, err := p.Ledger.PassedOn(ctx, r.Consent.Record.ID)
	if err == nil && passed {
		err = fmt.Errorf("%w: consent %s", ErrReplaced, r.Consent.Record.ID)
	}
	return err
}

// knownID is the ID that the consent's holder has already, or that was given.
func (p *Provisioner) knownID(ctx context.Context, d *Desired) (string, error) {
	if d.carry != nil && !d.carry.NewID {
		return d.carry.From.ID, nil
	}
	if d.Manifest.IDScheme.Kind == manifest.IDGiven {
		return d.subject.ID, nil
	}
	id, _, err := p.Ledger.ReservedID(ctx, d.Manifest.ID, d.Consent.Record.ID)
	return id, err
}

// reserveID makes the ID this consent's for ever.
func (p *Provisioner) reserveID(ctx context.Context, d *Desired, run string) error {
	if d.carry != nil && !d.carry.NewID {
		return nil // it is the holder's, and passes on with the record of the issue
	}
	r := ledger.Reservation{
		Actor: p.Actor, Reason: d.reason, Service: d.Manifest.ID, Consent: d.Consent.Record.ID, Run: run,
	}
	switch d.Manifest.IDScheme.Kind {
	case manifest.IDGiven:
		r.ID = d.subject.ID
	case manifest.IDSequence:
		r.Draw = func(number uint64) (string, error) { return d.Manifest.NextID(number - 1) }
	default:
		r.Draw = func(uint64) (string, error) { return d.Manifest.RandomID(p.Rand) }
	}
	id, _, err := p.Ledger.ReserveID(ctx, r)
	if err != nil {
		return err
	}
	d.ID = id
	return nil
}

// content is everything that personalisation writes, for one issue number and
// one instance. The tag covers all of it but the PIN.
func (p *Provisioner) content(ctx context.Context, d *Desired, number uint16, data [10]byte) (applets.Content, error) {
	instance := d.Manifest.Application.Instance
	c := applets.Content{
		Record: applets.Record{Service: d.Manifest.ID, ID: d.ID, IssueNumber: number, Expiry: d.Expiry},
		Items:  d.items,
	}
	if name := d.Manifest.Keys.IssuerSigning; name != "" {
		message, err := c.Record.SignedMessage(instance)
		if err != nil {
			return c, err
		}
		c.Record.Signature, err = p.Keys.Sign(ctx, keys.Ref{Name: name}, keys.IssuerSigning, message)
		if err != nil {
			return c, fmt.Errorf("issuer signing key %q: %w", name, err)
		}
	}
	record, err := c.Record.Encode()
	if err != nil {
		return c, err
	}
	items, err := applets.EncodeItems(c.Items)
	if err != nil {
		return c, err
	}
	digest := sha256.New()
	field := func(b []byte) { fmt.Fprintf(digest, "%d:%s,", len(b), b) }
	field([]byte("freearea content 1"))
	field([]byte(d.Manifest.Profile))
	if x, ok := d.Profile.(applets.Digester); ok {
		sum := x.Digest()
		field(sum[:])
	}
	field(instance.Bytes())
	// An instance that moves to another Security Domain is written anew: a run
	// that was torn in between then shows.
	if home := d.where.home.AID; home != p.CardProfile.SecurityDomain {
		field([]byte("security domain"))
		field(home.Bytes())
	}
	field(record)
	field(items)
	if d.Profile.Traits().MutualAuthentication {
		field(data[:])
		versions := d.versions
		if versions == nil {
			versions = []byte{0}
		}
		for _, v := range versions {
			set, err := p.Keys.ReadKeys(ctx, keys.Ref{Name: d.Manifest.Keys.Read, Version: v}, d.Manifest.Keys.Diversification, instance, data[:])
			if err != nil {
				return c, fmt.Errorf("read key %q: %w", d.Manifest.Keys.Read, err)
			}
			c.ReadKeys = append(c.ReadKeys, set)
			field([]byte{set.Version})
			field([]byte(set.Check()))
		}
	}
	c.Tag, err = p.Keys.Digest(ctx, p.LedgerKey, digest.Sum([]byte("freearea tag 1\x00")))
	if err != nil {
		return c, fmt.Errorf("ledger key %q: %w", p.LedgerKey.Name, err)
	}
	return c, nil
}

// erase overwrites the secrets of a content.
func erase(c *applets.Content) {
	for _, k := range c.ReadKeys {
		k.Erase()
	}
	if c.PIN != nil {
		c.PIN.Reference.Erase()
	}
}

func tagText(tag [16]byte) string { return hex.EncodeToString(tag[:]) }

// observe asks an instance what it holds: through its Security Domain, unless the
// profile asks by commands of its own.
func (p *Provisioner) observe(ctx context.Context, s *Session, d Domain, profile applets.Profile, instance iso7816.AID) (applets.Observation, error) {
	if x, ok := profile.(applets.Observer); ok {
		s.lost = true // whatever comes of it
		return x.Observe(ctx, p.Card, instance)
	}
	commands, err := p.observation(profile, instance)
	if err != nil {
		return applets.Observation{}, err
	}
	if err := p.regain(ctx, s, d); err != nil {
		return applets.Observation{}, err
	}
	answer, err := s.execute(ctx, commands, func(int) {})
	if err != nil {
		return applets.Observation{}, err
	}
	return profile.ParseObservation(answer)
}
