package provisioner

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
)

// Session is a card with a secure channel to one of its Security Domains at a
// time.
type Session struct {
	CardRef  ledger.CardRef
	CIN, IIN []byte // card identity; IIN may be missing
	// Domain is the Issuer Security Domain; its AID is zero where its keys are
	// not at hand.
	Domain       globalplatform.RegistryEntry
	Applications []globalplatform.RegistryEntry
	LoadFiles    []globalplatform.RegistryEntry
	// Complete tells that the lists hold everything that is on the card. A
	// Security Domain without Global Registry sees its own hierarchy only.
	Complete bool

	channel *scp.Session
	at      iso7816.AID   // Security Domain at the channel's other end
	lost    bool          // an instance was selected, which ended the channel
	dirty   bool          // the registry may have changed since it was read
	seen    []iso7816.AID // Security Domains that were asked for the registry
	// refused are the authentications that failed, by Security Domain: none is
	// tried again while the card lies there.
	refused map[iso7816.AID]error
	// confirmed is the confirmation counter of the last receipt, -1 before the
	// first.
	confirmed int
}

// Close ends the secure channel on this side.
func (s *Session) Close() {
	if s.channel != nil {
		s.channel.Close()
	}
}

// Connect finds out which card it is, opens the secure channel to the Issuer
// Security Domain and reads what is on the card. Where that one's keys are not
// at hand, the Security Domain of the service is asked later, with the plan;
// the card's identity is then what it says in the clear, and what proves it is
// that Security Domain's key set. Failures to authenticate are recorded per
// card, and after several in a row the next try is refused
// ([ErrTooManyFailures]) until RetryAfterFailures asks for it.
func (p *Provisioner) Connect(ctx context.Context) (*Session, error) {
	plain := iso7816.Plain(p.Card)
	issuer := p.issuer()
	if _, err := globalplatform.Select(ctx, plain, issuer.AID); err != nil {
		return nil, fmt.Errorf("select the security domain %v: %w", issuer.AID, err)
	}
	s := &Session{dirty: true, refused: map[iso7816.AID]error{}, confirmed: -1}
	if err := s.identify(ctx, plain); err != nil {
		return nil, err
	}
	if p.Ledger != nil { // without one nobody needs to know the card by name
		ref, err := p.cardRef(ctx, s.IIN, s.CIN)
		if err != nil {
			return nil, err
		}
		s.CardRef = ref
	}
	if !p.hasIssuer() {
		return s, nil
	}
	if err := p.authenticate(ctx, s, plain, issuer); err != nil {
		return nil, err
	}
	// What was read in the clear decided which failures were counted; what
	// the rest relies on is read again, under the card's proof.
	iin, cin := s.IIN, s.CIN
	if err := s.identify(ctx, s.channel); err != nil {
		s.Close()
		return nil, err
	}
	if !bytes.Equal(iin, s.IIN) || !bytes.Equal(cin, s.CIN) {
		s.Close()
		return nil, fmt.Errorf("%w: the card's identity differs inside and outside the secure channel", iso7816.ErrProtocol)
	}
	if err := p.refresh(ctx, s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// identify reads the card's identity (GPCS H.6: IIN tag 42, CIN tag 45).
func (s *Session) identify(ctx context.Context, sender iso7816.Sender) error {
	var err error
	if s.CIN, err = globalplatform.CIN(ctx, sender); err != nil {
		return fmt.Errorf("read the card's identity: %w", err)
	}
	s.IIN, err = globalplatform.IIN(ctx, sender)
	if errors.Is(err, iso7816.ErrDataNotFound) {
		err = nil
	}
	return err
}

// cardRef is the keyed digest by which the ledger names a card.
func (p *Provisioner) cardRef(ctx context.Context, iin, cin []byte) (ledger.CardRef, error) {
	message := []byte("freearea card 1\x00")
	message = append(append(message, byte(len(iin))), iin...)
	message = append(append(message, byte(len(cin))), cin...)
	digest, err := p.Keys.Digest(ctx, p.LedgerKey, message)
	if err != nil {
		return "", fmt.Errorf("ledger key %q: %w", p.LedgerKey.Name, err)
	}
	return ledger.CardRef(hex.EncodeToString(digest[:])), nil
}

// regain makes the channel one to a Security Domain, where it leads to another
// or an instance was selected. That is the first authentication since one that
// succeeded, not a second try.
func (p *Provisioner) regain(ctx context.Context, s *Session, d Domain) error {
	if !s.lost && s.channel != nil && s.at == d.AID {
		return nil
	}
	s.Close()
	s.channel = nil
	plain := iso7816.Plain(p.Card)
	if _, err := globalplatform.Select(ctx, plain, d.AID); err != nil {
		return fmt.Errorf("select the security domain %v: %w", d.AID, err)
	}
	if err := p.authenticate(ctx, s, plain, d); err != nil {
		return err
	}
	s.lost = false
	return nil
}

// authenticate opens the channel and records the outcome.
func (p *Provisioner) authenticate(ctx context.Context, s *Session, plain iso7816.Sender, d Domain) error {
	if err := s.refused[d.AID]; err != nil {
		return err
	}
	failed := 0
	if p.Ledger != nil {
		var err error
		if failed, err = p.Ledger.FailedAuthentications(ctx, s.CardRef, d.AID); err != nil {
			return err
		}
	}
	if failed >= p.CardProfile.FailureLimit && !p.RetryAfterFailures {
		return fmt.Errorf("%w: %d times in a row", ErrTooManyFailures, failed)
	}
	if failed > 0 && p.Failed != nil {
		p.Failed(failed, p.CardProfile.FailureLimit)
	}
	pending, err := globalplatform.Connect(ctx, plain, p.CardProfile, scp.HostOptions{
		KeyVersion: d.Key.Version, Rand: p.Rand,
	})
	if err != nil {
		return err
	}
	info := pending.KeyInformation()
	// The card's own version, not the newest: a card keeps the one that it was
	// given when the key set has been rotated since.
	ref := d.Key
	ref.Version = info.KeyVersion
	if err := d.Diversification.CheckProtocol(info.Protocol); err != nil {
		return fmt.Errorf("key set %q: %w", d.Key.Name, err)
	}
	set, err := p.Keys.SecurityDomainKeys(ctx, ref, d.Diversification, info.DiversificationData[:])
	if err != nil {
		return fmt.Errorf("key set %q: %w", d.Key.Name, err)
	}
	defer set.Erase()
	s.channel, err = pending.Authenticate(ctx, set)
	s.at = d.AID
	event := ledger.AuthenticationSucceeded{
		Card: s.CardRef, Target: d.AID, Key: d.Key.Name, KeyVersion: info.KeyVersion,
	}
	switch {
	case err == nil:
		if failed == 0 {
			return nil // the run's own events say that it succeeded
		}
		if err = p.append(ctx, "", event); err != nil {
			s.Close()
		}
		return err
	case errors.Is(err, scp.ErrCardCryptogram), errors.Is(err, iso7816.ErrAuthentication), errors.Is(err, iso7816.ErrSecurityStatus):
		err = fmt.Errorf("key set %q, version %d: %w", d.Key.Name, info.KeyVersion, err)
		s.refused[d.AID] = err
		if p.Ledger == nil {
			return err
		}
		return errors.Join(err, p.append(ctx, "", ledger.AuthenticationFailed(event)))
	}
	return err
}

// refresh reads the registry: the Issuer Security Domain's view where its keys
// are at hand, and that of others where this one does not show everything.
func (p *Provisioner) refresh(ctx context.Context, s *Session, others ...Domain) error {
	s.Domain, s.Applications, s.LoadFiles, s.Complete, s.seen = globalplatform.RegistryEntry{}, nil, nil, false, nil
	if p.hasIssuer() {
		if err := p.regain(ctx, s, p.issuer()); err != nil {
			return err
		}
		domains, err := globalplatform.GetStatus(ctx, s.channel, globalplatform.ScopeIssuerSecurityDomain, iso7816.AID{})
		if err != nil {
			return fmt.Errorf("read the card's registry: %w", err)
		}
		if len(domains) != 1 {
			return fmt.Errorf("%w: %d issuer security domains", iso7816.ErrProtocol, len(domains))
		}
		s.Domain = domains[0]
		s.Complete = s.Domain.Privileges.Has(globalplatform.GlobalRegistry)
		if err := s.list(ctx); err != nil {
			return err
		}
		s.seen = append(s.seen, p.issuer().AID)
	}
	s.dirty = false
	return p.look(ctx, s, others...)
}

// look asks Security Domains for what they see, unless everything is known or
// they were asked already.
func (p *Provisioner) look(ctx context.Context, s *Session, domains ...Domain) error {
	for _, d := range domains {
		if s.Complete || slices.Contains(s.seen, d.AID) {
			continue
		}
		if err := p.regain(ctx, s, d); err != nil {
			return err
		}
		if err := s.list(ctx); err != nil {
			return err
		}
		s.seen = append(s.seen, d.AID)
		if own := find(s.Applications, d.AID); own != nil && own.Privileges.Has(globalplatform.GlobalRegistry) {
			s.Complete = true
		}
	}
	return nil
}

// list adds what the Security Domain at the other end sees.
func (s *Session) list(ctx context.Context) error {
	for _, x := range []struct {
		scope globalplatform.Scope
		to    *[]globalplatform.RegistryEntry
	}{{globalplatform.ScopeApplications, &s.Applications}, {globalplatform.ScopeLoadFilesAndModules, &s.LoadFiles}} {
		entries, err := globalplatform.GetStatus(ctx, s.channel, x.scope, iso7816.AID{})
		if err != nil {
			return fmt.Errorf("read the card's registry: %w", err)
		}
		for _, e := range entries {
			if find(*x.to, e.AID) == nil {
				*x.to = append(*x.to, e)
			}
		}
	}
	return nil
}

// hidden reports whether an AID that no Security Domain shows can be selected
// all the same: it then stands in a hierarchy that none of them sees. What is
// not selectable at the moment can't be found out so.
func (p *Provisioner) hidden(ctx context.Context, s *Session, aid iso7816.AID) (bool, error) {
	s.lost = true // whatever comes of it
	fci, err := globalplatform.Select(ctx, iso7816.Plain(p.Card), aid)
	switch {
	case errors.Is(err, iso7816.ErrNotFound), errors.Is(err, globalplatform.ErrOtherApplication):
		return false, nil
	case errors.As(err, new(*iso7816.StatusError)):
		return true, nil // it is there, and something is the matter with it
	case errors.Is(err, globalplatform.ErrMalformed):
		return true, nil // something answered that isn't what ours would
	case err != nil:
		return false, fmt.Errorf("select %v: %w", aid, err)
	}
	return fci.AID == aid, nil
}

func find(list []globalplatform.RegistryEntry, aid iso7816.AID) *globalplatform.RegistryEntry {
	for i := range list {
		if list[i].AID == aid {
			return &list[i]
		}
	}
	return nil
}
