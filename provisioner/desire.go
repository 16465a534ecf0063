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
	reason  string
}

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
	if err := p.checkConsent(ctx, r); err != nil {
		return nil, err
	}
	if err := m.CheckSubject(r.Subject); err != nil {
		return nil, err
	}
	if got := r.LoadFile.Hash(); got != [sha256.Size]byte(m.LoadFile.SHA256) {
		return nil, fmt.Errorf("%w: load file data block has SHA-256 %x, the manifest says %v", ErrLoadFileHash, got, m.LoadFile.SHA256)
	}
	if r.LoadFile.Package.AID != m.Application.Package {
		return nil, fmt.Errorf("%w: the load file holds package %v, the manifest says %v", ErrLoadFileHash, r.LoadFile.Package.AID, m.Application.Package)
	}
	if sd := m.Application.SecurityDomain; !sd.IsZero() && sd != p.CardProfile.SecurityDomain {
		return nil, fmt.Errorf("the manifest wants the security domain %v, the card profile %q works with %v (application.security_domain)",
			sd, p.CardProfile.Name, p.CardProfile.SecurityDomain)
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
		subject: r.Subject, reason: r.Reason,
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
	if err := r.Consent.Covers(r.CounterKey, r.Manifest, r.Manifest.SubjectItems(r.Subject), r.Now); err != nil {
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
	}
	return nil
}

// knownID is the ID that the consent's holder has already, or that was given.
func (p *Provisioner) knownID(ctx context.Context, d *Desired) (string, error) {
	if d.Manifest.IDScheme.Kind == manifest.IDGiven {
		return d.subject.ID, nil
	}
	id, _, err := p.Ledger.ReservedID(ctx, d.Manifest.ID, d.Consent.Record.ID)
	return id, err
}

// reserveID makes the ID this consent's for ever.
func (p *Provisioner) reserveID(ctx context.Context, d *Desired, run string) error {
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
	field(record)
	field(items)
	if d.Profile.Traits().MutualAuthentication {
		set, err := p.Keys.ReadKeys(ctx, keys.Ref{Name: d.Manifest.Keys.Read}, d.Manifest.Keys.Diversification, instance, data[:])
		if err != nil {
			return c, fmt.Errorf("read key %q: %w", d.Manifest.Keys.Read, err)
		}
		c.ReadKeys = []keys.Set{set}
		field(data[:])
		field([]byte{set.Version})
		field([]byte(set.Check()))
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
func (p *Provisioner) observe(ctx context.Context, s *Session, profile applets.Profile, instance iso7816.AID) (applets.Observation, error) {
	if x, ok := profile.(applets.Observer); ok {
		s.lost = true // whatever comes of it
		return x.Observe(ctx, p.Card, instance)
	}
	commands, err := p.observation(profile, instance)
	if err != nil {
		return applets.Observation{}, err
	}
	answer, err := s.execute(ctx, commands, func(int) {})
	if err != nil {
		return applets.Observation{}, err
	}
	return profile.ParseObservation(answer)
}
