package provisioner

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
)

// Session is a card with an open secure channel to its Security Domain.
type Session struct {
	CardRef      ledger.CardRef
	CIN, IIN     []byte // card identity; IIN may be missing
	Domain       globalplatform.RegistryEntry
	Applications []globalplatform.RegistryEntry
	LoadFiles    []globalplatform.RegistryEntry

	channel *scp.Session
	lost    bool // an instance was selected, which ended the channel
	dirty   bool // the registry may have changed since it was read
}

// Close ends the secure channel on this side.
func (s *Session) Close() {
	if s.channel != nil {
		s.channel.Close()
	}
}

// Connect opens the secure channel and reads what is on the card. Failures to
// authenticate are recorded per card, and after several in a row the next try
// is refused ([ErrTooManyFailures]) until RetryAfterFailures asks for it.
func (p *Provisioner) Connect(ctx context.Context) (*Session, error) {
	plain := iso7816.Plain(p.Card)
	target := p.CardProfile.SecurityDomain
	if _, err := globalplatform.Select(ctx, plain, target); err != nil {
		return nil, fmt.Errorf("select the security domain %v: %w", target, err)
	}
	s := &Session{}
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
	if err := p.authenticate(ctx, s, plain, target); err != nil {
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
	if err := s.refresh(ctx); err != nil {
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

// regain opens the channel again after an instance was selected. It is the
// first authentication since one that succeeded, not a second try.
func (p *Provisioner) regain(ctx context.Context, s *Session) error {
	if !s.lost {
		return nil
	}
	s.Close()
	s.channel = nil
	plain, target := iso7816.Plain(p.Card), p.CardProfile.SecurityDomain
	if _, err := globalplatform.Select(ctx, plain, target); err != nil {
		return fmt.Errorf("select the security domain %v: %w", target, err)
	}
	if err := p.authenticate(ctx, s, plain, target); err != nil {
		return err
	}
	s.lost = false
	return nil
}

// authenticate opens the channel and records the outcome.
func (p *Provisioner) authenticate(ctx context.Context, s *Session, plain iso7816.Sender, target iso7816.AID) error {
	failed := 0
	if p.Ledger != nil {
		var err error
		if failed, err = p.Ledger.FailedAuthentications(ctx, s.CardRef, target); err != nil {
			return err
		}
	}
	if failed >= maxFailures && !p.RetryAfterFailures {
		return fmt.Errorf("%w: %d times in a row", ErrTooManyFailures, failed)
	}
	pending, err := globalplatform.Connect(ctx, plain, p.CardProfile, scp.HostOptions{
		KeyVersion: p.SecurityDomainKey.Version, Rand: p.Rand,
	})
	if err != nil {
		return err
	}
	info := pending.KeyInformation()
	set, err := p.Keys.SecurityDomainKeys(ctx, p.SecurityDomainKey, p.Diversification, info.DiversificationData[:])
	if err != nil {
		return fmt.Errorf("key set %q: %w", p.SecurityDomainKey.Name, err)
	}
	defer set.Erase()
	s.channel, err = pending.Authenticate(ctx, set)
	event := ledger.AuthenticationSucceeded{
		Card: s.CardRef, Target: target, Key: p.SecurityDomainKey.Name, KeyVersion: info.KeyVersion,
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
		err = fmt.Errorf("key set %q, version %d: %w", p.SecurityDomainKey.Name, info.KeyVersion, err)
		if p.Ledger == nil {
			return err
		}
		return errors.Join(err, p.append(ctx, "", ledger.AuthenticationFailed(event)))
	}
	return err
}

// refresh reads the registry.
func (s *Session) refresh(ctx context.Context) error {
	domains, err := globalplatform.GetStatus(ctx, s.channel, globalplatform.ScopeIssuerSecurityDomain, iso7816.AID{})
	if err != nil {
		return fmt.Errorf("read the card's registry: %w", err)
	}
	if len(domains) != 1 {
		return fmt.Errorf("%w: %d issuer security domains", iso7816.ErrProtocol, len(domains))
	}
	s.Domain = domains[0]
	if s.Applications, err = globalplatform.GetStatus(ctx, s.channel, globalplatform.ScopeApplications, iso7816.AID{}); err != nil {
		return fmt.Errorf("read the card's registry: %w", err)
	}
	if s.LoadFiles, err = globalplatform.GetStatus(ctx, s.channel, globalplatform.ScopeLoadFilesAndModules, iso7816.AID{}); err != nil {
		return fmt.Errorf("read the card's registry: %w", err)
	}
	s.dirty = false
	return nil
}

func find(list []globalplatform.RegistryEntry, aid iso7816.AID) *globalplatform.RegistryEntry {
	for i := range list {
		if list[i].AID == aid {
			return &list[i]
		}
	}
	return nil
}
