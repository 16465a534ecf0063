package provisioner

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/manifest"
)

// ready refuses a Security Domain that can't do its part, as far as the card
// shows it, before anybody authenticates to it: one without keys of its own
// would answer with those of the Security Domain above it.
func (p *Provisioner) ready(s *Session, w place) error {
	check := func(d Domain, needs func(globalplatform.Privileges) bool, purpose string) error {
		if d.AID == p.CardProfile.SecurityDomain {
			return nil
		}
		entry := find(s.Applications, d.AID)
		switch {
		case entry == nil && s.Complete:
			return fmt.Errorf("%w: the card has no security domain %v", ErrDomain, d.AID)
		case entry == nil:
			return nil // it doesn't show itself
		case !entry.Privileges.Has(globalplatform.SecurityDomain):
			return fmt.Errorf("%w: %v is no security domain", ErrForeign, d.AID)
		case entry.Locked():
			return fmt.Errorf("%w: %v is locked", ErrDomain, d.AID)
		case entry.State != globalplatform.StatePersonalized:
			return fmt.Errorf("%w: %v has no keys of its own yet (state %02X)", ErrDomain, d.AID, entry.State)
		case !needs(entry.Privileges):
			return fmt.Errorf("%w: %v has not the privilege to %s, only: %v", ErrDomain, d.AID, purpose, entry.Privileges)
		}
		return nil
	}
	if err := check(w.manager, func(q globalplatform.Privileges) bool {
		return q.Has(globalplatform.AuthorizedManagement) || q.Has(globalplatform.DelegatedManagement)
	}, "manage content"); err != nil {
		return err
	}
	return check(w.home, func(q globalplatform.Privileges) bool { return q.Has(globalplatform.TrustedPath) }, "personalise")
}

// delegated reports whether the manager needs tokens. One that does not show
// itself is taken to need them where there are some.
func (p *Provisioner) delegated(s *Session, w place) bool {
	if w.manager.AID == p.CardProfile.SecurityDomain {
		return false
	}
	if entry := find(s.Applications, w.manager.AID); entry != nil {
		return entry.Privileges.Has(globalplatform.DelegatedManagement)
	}
	return p.Tokens != nil
}

// home is the Security Domain of the service to which an instance on the card
// belongs now; ok is false where it is none of them.
func (p *Provisioner) homeOf(ctx context.Context, s *Session, w place, present *globalplatform.RegistryEntry) (at Domain, ok bool, err error) {
	switch sd := present.SecurityDomain; {
	case sd == w.home.AID:
		return w.home, true, nil
	case sd == w.manager.AID:
		return w.manager, true, nil
	case !sd.IsZero():
		return Domain{}, false, nil
	case !w.separate():
		return w.home, true, nil
	}
	// The card doesn't tell. What the service's own Security Domain sees, which
	// is below the manager, is its own.
	if err := p.regain(ctx, s, w.home); err != nil {
		return Domain{}, false, err
	}
	list, err := globalplatform.GetStatus(ctx, s.channel, globalplatform.ScopeApplications, present.AID)
	if err != nil {
		return Domain{}, false, fmt.Errorf("read the card's registry: %w", err)
	}
	if find(list, present.AID) != nil {
		return w.home, true, nil
	}
	return w.manager, true, nil
}

// manage is a step by which the service's manager changes what is on the card;
// from is the Security Domain that an extradited object belongs to.
func (p *Provisioner) manage(name StepName, plan *Plan, o delegation.Operation, from iso7816.AID, commands ...string) Step {
	step := Step{Name: name, Domain: plan.where.manager.AID, Key: plan.where.manager.Key, Commands: commands, domain: plan.where.manager}
	step.receipt = o.Receipt(from)
	if plan.delegated {
		step.Token = &o
	}
	step.first = func(reference globalplatform.TokenReference, token []byte) (globalplatform.Commander, error) {
		return o.Command(reference, token)
	}
	return step
}

// entrust gives the steps that need one their tokens. What the tokens are for
// must be this card, this manager and this manifest, and each operation the
// very one that is planned.
func (p *Provisioner) entrust(s *Session, m *manifest.Manifest, plan *Plan) error {
	if !plan.delegated || p.Tokens == nil {
		return nil
	}
	digest := m.Digest()
	if err := p.Tokens.Request.Card.Check(s.IIN, s.CIN); err != nil {
		return err
	}
	if err := p.Tokens.Request.Check("", delegation.Facts{
		SecurityDomain: plan.where.manager.AID, Service: m.ID, Manifest: digest[:],
	}); err != nil {
		return err
	}
	var steps []Step
	for _, step := range plan.Steps {
		given, err := p.token(&step)
		if err != nil {
			return err
		}
		if !given && step.Token != nil && step.spared != nil {
			continue // it need not be
		}
		steps = append(steps, step)
	}
	plan.Steps = steps
	return nil
}

// token gives a step its token, where it needs one and there is one.
func (p *Provisioner) token(step *Step) (given bool, err error) {
	if step.Token == nil || p.Tokens == nil {
		return false, nil
	}
	i := p.Tokens.Find(*step.Token)
	if i < 0 {
		return false, nil
	}
	want := *step.Token
	if err := p.Tokens.Request.Operations[i].Check(fmt.Sprintf("operations[%d]", i), want); err != nil {
		return false, err
	}
	step.reference, step.token = p.Tokens.Request.Reference(i), p.Tokens.Tokens[i]
	return true, nil
}

// installData is the diversification data of an instance that is to be
// installed: the token's, where there is a token for it, or else new.
func (p *Provisioner) installData(plan *Plan) ([10]byte, error) {
	if plan.delegated && p.Tokens != nil {
		if i := p.Tokens.Find(delegation.Operation{Kind: delegation.Install, Instance: plan.Instance}); i >= 0 {
			if data := p.Tokens.Request.Operations[i].Data; len(data) == 10 {
				return [10]byte(data), nil
			}
		}
	}
	data, err := p.random(10)
	if err != nil {
		return [10]byte{}, err
	}
	return [10]byte(data), nil
}

// Operations are the operations of the plan for which tokens are needed, in
// order; none but under Delegated Management.
func (p *Plan) Operations() (list []delegation.Operation) {
	for _, s := range p.Steps {
		if s.Token != nil {
			list = append(list, *s.Token)
		}
	}
	return list
}

// Manager is the Security Domain that loads, installs and deletes.
func (p *Plan) Manager() iso7816.AID { return p.where.manager.AID }

// missing is an error where a step has no token that it needs.
func (p *Plan) missing() error {
	for _, s := range p.Steps {
		if s.Token != nil && s.token == nil {
			return fmt.Errorf("%w: to %v", ErrTokenMissing, s.Token)
		}
	}
	return nil
}

// erasing are the steps of a withdrawal up to the one that erases what the
// instance holds, where no token is needed for them.
func (p *Plan) erasing() []Step {
	last := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Name == StepWipe })
	if p.Purpose != Withdraw || slices.ContainsFunc(p.Steps[:last+1], func(s Step) bool { return s.Token != nil }) {
		return nil
	}
	return p.Steps[:last+1]
}

// Evidence is what the ledger keeps of a step under Delegated Management, as
// JSON: that the card confirmed it, or that it did not.
type Evidence struct {
	V         int             `json:"v"`
	Operation delegation.Kind `json:"operation"`
	Token     delegation.Hex  `json:"token"`    // its number
	Receipt   []byte          `json:"receipt"`  // confirmation as the card gave it (GPCS table 11-13); null: none came
	Verified  bool            `json:"verified"` // against the receipt key
}

// confirm reads what the card answered to a step that took a token. A receipt
// that comes must be the one for this token on this card, and no older than
// the last.
func (p *Provisioner) confirm(s *Session, step Step, answer []byte) ([]byte, error) {
	e := Evidence{V: 1, Operation: step.Token.Kind, Token: step.reference.Number}
	if len(answer) > 0 {
		c, err := globalplatform.ParseConfirmation(answer)
		if err != nil {
			return nil, err
		}
		if len(c.Receipt) > 0 {
			e.Receipt = answer
			if p.Receipts != nil {
				if err := c.Verify(p.Receipts, globalplatform.Expectation{
					Operation: step.receipt, CardData: append(append([]byte{}, s.IIN...), s.CIN...),
					After: s.confirmed, TokenIdentifier: step.reference.Number,
				}); err != nil {
					return nil, fmt.Errorf("receipt for %v: %w", step.Token, err)
				}
				e.Verified = true
			}
			s.confirmed = int(c.Counter)
		}
	}
	if e.Receipt == nil && p.CardProfile.ReceiptRequired {
		return nil, fmt.Errorf("%w for %v", ErrReceiptMissing, step.Token)
	}
	return json.Marshal(e)
}
