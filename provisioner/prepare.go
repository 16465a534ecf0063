package provisioner

import (
	"context"
	"errors"
	"fmt"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Versions that token and receipt keys have by custom, with the identifier 01;
// GPCS leaves it to configurations (7.5.1, C.1).
const (
	TokenKeyVersion   = 0x70
	ReceiptKeyVersion = 0x71
)

// The load file and module from which Security Domains are installed, by the
// AIDs that cards commonly use.
var (
	DomainPackage = iso7816.MustAID("A0000001515350")
	DomainModule  = iso7816.MustAID("A000000151535041")
)

// Preparation is what a card's operator gives a card for a service provider.
type Preparation struct {
	// Domain is the Security Domain to be there, with the key set that it
	// starts with. Its Manager counts for nothing.
	Domain     Domain
	Privileges globalplatform.Privileges
	// Above is the Security Domain to which it is extradited: another one, or
	// itself for a hierarchy of its own. Zero leaves it where it is.
	Above           iso7816.AID
	Package, Module iso7816.AID // zero: DomainPackage, DomainModule
	// Token and Receipt are keys for the Issuer Security Domain; nil puts none.
	Token, Receipt *keys.SchemeKey
}

// Names of the steps of a preparation.
const (
	StepTokenKey      StepName = "token-key"
	StepReceiptKey    StepName = "receipt-key"
	StepCreateDomain  StepName = "create-domain"
	StepDomainKeys    StepName = "domain-keys"
	StepPersonalized  StepName = "set-personalized"
	StepExtraditeSelf StepName = "extradite-domain"
)

// PreparationStep is one step of a preparation; it can be repeated.
type PreparationStep struct {
	Name     StepName
	Commands []string
	Domain   iso7816.AID // through which it goes
	do       func(ctx context.Context, s *Session) error
}

// PlanPreparation compares the card with what it is to have. Nothing is
// written. A Security Domain that is there with other privileges, or that does
// not prove the key set, is an error. Keys for tokens and receipts that are
// there can't be compared, only their kind.
func (p *Provisioner) PlanPreparation(ctx context.Context, s *Session, q Preparation) ([]PreparationStep, error) {
	if !p.hasIssuer() {
		return nil, fmt.Errorf("%w: only the issuer security domain prepares a card", ErrUnknownDomain)
	}
	q.Privileges |= globalplatform.SecurityDomain
	if err := q.Privileges.Check(); err != nil {
		return nil, err
	}
	if q.Package.IsZero() {
		q.Package, q.Module = DomainPackage, DomainModule
	}
	var steps []PreparationStep
	if err := p.regain(ctx, s, p.issuer()); err != nil {
		return nil, err
	}
	// What is given the card's new domain has to open it again.
	if err := q.Domain.Diversification.CheckProtocol(s.channel.KeyInformation().Protocol); err != nil {
		return nil, fmt.Errorf("key set %q: %w", q.Domain.Key.Name, err)
	}
	for _, k := range []struct {
		name    StepName
		version byte
		key     *keys.SchemeKey
	}{{StepTokenKey, TokenKeyVersion, q.Token}, {StepReceiptKey, ReceiptKeyVersion, q.Receipt}} {
		if k.key == nil {
			continue
		}
		if k.name == StepReceiptKey && k.key.Public != nil {
			return nil, errors.New("a card makes receipts with an AES key: of an RSA key it can be given the public half only")
		}
		value := globalplatform.SchemeKeyValue(*k.key)
		there, err := p.hasKey(ctx, s, k.version, 1, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		if there {
			continue
		}
		steps = append(steps, PreparationStep{
			Name: k.name, Commands: []string{"PUT KEY"}, Domain: p.issuer().AID,
			do: func(ctx context.Context, s *Session) error {
				if err := p.regain(ctx, s, p.issuer()); err != nil {
					return err
				}
				return globalplatform.PutKeys(ctx, s.channel, globalplatform.PutKey{Version: k.version, ID: 1, Keys: []globalplatform.KeyValue{value}})
			},
		})
	}
	more, err := p.planDomain(ctx, s, q)
	return append(steps, more...), err
}

// planDomain plans the Security Domain itself.
func (p *Provisioner) planDomain(ctx context.Context, s *Session, q Preparation) (steps []PreparationStep, err error) {
	d := q.Domain
	if s.dirty {
		if err := p.refresh(ctx, s); err != nil {
			return nil, err
		}
	}
	if d.AID == s.Domain.AID || find(s.LoadFiles, d.AID) != nil {
		return nil, fmt.Errorf("%w: %v", ErrForeign, d.AID)
	}
	present := find(s.Applications, d.AID)
	if present == nil && !s.Complete {
		there, err := p.hidden(ctx, s, d.AID)
		if err == nil && there {
			err = fmt.Errorf("%w: %v", ErrNotVisible, d.AID)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case present == nil:
		steps = append(steps, PreparationStep{
			Name: StepCreateDomain, Commands: []string{"INSTALL [for install and make selectable]"}, Domain: p.issuer().AID,
			do: func(ctx context.Context, s *Session) error {
				return p.asIssuer(ctx, s, globalplatform.InstallForInstall{
					LoadFile: q.Package, Module: q.Module, Instance: d.AID, Privileges: q.Privileges, MakeSelectable: true,
				})
			},
		})
	case present.Locked():
		return nil, fmt.Errorf("%w: %v is locked", ErrDomain, d.AID)
	case present.State == globalplatform.StateInstalled:
		return nil, fmt.Errorf("%w: %v was installed and never made selectable; delete it first", ErrDomain, d.AID)
	case present.Privileges != q.Privileges:
		return nil, fmt.Errorf("%w: %v has the privileges %v, not %v", ErrDomain, d.AID, present.Privileges, q.Privileges)
	}
	if present != nil && present.State == globalplatform.StatePersonalized {
		if err := p.regain(ctx, s, d); err != nil { // it must prove the keys
			return nil, err
		}
	} else {
		steps = append(steps,
			PreparationStep{
				Name: StepDomainKeys, Commands: []string{"PUT KEY"}, Domain: d.AID,
				do: func(ctx context.Context, s *Session) error { return p.putDomainKeys(ctx, s, d) },
			},
			PreparationStep{
				Name: StepPersonalized, Commands: []string{"SET STATUS"}, Domain: d.AID,
				do: func(ctx context.Context, s *Session) error { return p.setPersonalized(ctx, s, d) },
			})
	}
	if !q.Above.IsZero() && (present == nil || present.SecurityDomain != q.Above) {
		steps = append(steps, PreparationStep{
			Name: StepExtraditeSelf, Commands: []string{"INSTALL [for extradition]"}, Domain: p.issuer().AID,
			do: func(ctx context.Context, s *Session) error {
				return p.asIssuer(ctx, s, globalplatform.InstallForExtradition{AID: d.AID, SecurityDomain: q.Above})
			},
		})
	}
	return steps, nil
}

// asIssuer sends one command to the Issuer Security Domain.
func (p *Provisioner) asIssuer(ctx context.Context, s *Session, c globalplatform.Commander) error {
	if err := p.regain(ctx, s, p.issuer()); err != nil {
		return err
	}
	_, err := globalplatform.Execute(ctx, s.channel, c)
	return err
}

// hasKey reports whether the Security Domain at the other end has a key, and
// refuses one of another kind.
func (p *Provisioner) hasKey(ctx context.Context, s *Session, version, id byte, want globalplatform.KeyValue) (bool, error) {
	list, err := globalplatform.Keys(ctx, s.channel)
	if errors.Is(err, iso7816.ErrDataNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the key information: %w", err)
	}
	for _, k := range list {
		if k.Version != version || k.ID != id {
			continue
		}
		if fmt.Sprint(k.Components) != fmt.Sprint(basic(want.Information())) && fmt.Sprint(k.Components) != fmt.Sprint(want.Information()) {
			return false, fmt.Errorf("%w: key %02X of version %02X is %v, not %v", ErrForeign, id, version, k.Components, want.Information())
		}
		return true, nil
	}
	return false, nil
}

// basic is key information as the form of one byte shows it: a component of
// 256 bytes or more has the length 0.
func basic(list []globalplatform.KeyComponent) []globalplatform.KeyComponent {
	out := make([]globalplatform.KeyComponent, len(list))
	for i, c := range list {
		if out[i] = c; c.Length > 0xFF {
			out[i].Length = 0
		}
	}
	return out
}

// putDomainKeys gives a Security Domain its key set, through its own channel
// under the issuer's keys, which it has until it has some of its own (GPCS
// 7.3.1). A card that was torn may have them already.
func (p *Provisioner) putDomainKeys(ctx context.Context, s *Session, d Domain) error {
	borrowed := p.issuer()
	borrowed.AID = d.AID
	s.Close()
	s.channel = nil
	plain := iso7816.Plain(p.Card)
	if _, err := globalplatform.Select(ctx, plain, d.AID); err != nil {
		return fmt.Errorf("select the security domain %v: %w", d.AID, err)
	}
	present, err := globalplatform.Keys(ctx, plain)
	if err != nil && !errors.Is(err, iso7816.ErrDataNotFound) {
		return fmt.Errorf("read the key information: %w", err)
	}
	if len(present) > 0 {
		return p.regain(ctx, s, d)
	}
	if err := p.authenticate(ctx, s, plain, borrowed); err != nil {
		return err
	}
	s.lost = true // under keys that nobody else shall go on with
	info := s.channel.KeyInformation()
	set, err := p.Keys.SecurityDomainKeys(ctx, d.Key, d.Diversification, info.DiversificationData[:])
	if err != nil {
		return fmt.Errorf("key set %q: %w", d.Key.Name, err)
	}
	defer set.Erase()
	return globalplatform.PutKeys(ctx, s.channel, globalplatform.SecureChannelKeys(set, globalplatform.AESKey))
}

// setPersonalized has the Security Domain prove its keys, and brings it to
// PERSONALIZED where the card did not do so itself.
func (p *Provisioner) setPersonalized(ctx context.Context, s *Session, d Domain) error {
	if err := p.regain(ctx, s, d); err != nil {
		return err
	}
	list, err := globalplatform.GetStatus(ctx, s.channel, globalplatform.ScopeApplications, d.AID)
	if err != nil {
		return fmt.Errorf("read the card's registry: %w", err)
	}
	if e := find(list, d.AID); e != nil && e.State == globalplatform.StatePersonalized {
		return nil
	}
	_, err = globalplatform.Execute(ctx, s.channel, globalplatform.SetStatus{
		Type: globalplatform.StatusApplication, AID: d.AID, State: globalplatform.StatePersonalized,
	})
	return err
}

// Prepare carries the steps out. The error is a [*RunError] that says what was
// done.
func (p *Provisioner) Prepare(ctx context.Context, s *Session, steps []PreparationStep) error {
	s.dirty = true
	var done []StepName
	for i, step := range steps {
		if p.Progress != nil {
			p.Progress(Progress{Step: i + 1, Steps: len(steps), Name: string(step.Name), Total: 1})
		}
		err := ctx.Err()
		if err == nil {
			err = step.do(ctx, s)
		}
		if err != nil {
			return &RunError{Done: done, Step: step.Name, Err: err}
		}
		done = append(done, step.Name)
	}
	return nil
}
