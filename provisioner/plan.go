package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
)

// Purposes of plans, as the ledger names them.
const (
	Issue    = "issue"
	Withdraw = "withdraw"
)

// Plan is what is left to do on a card. Steps are carried out in order; each
// can be repeated.
type Plan struct {
	Purpose  string
	Service  string
	Instance iso7816.AID
	Steps    []Step
	// Recorded tells that the ledger says already what the plan leads to.
	// With no steps there is then nothing to do at all.
	Recorded bool

	desired *Desired // for issuing
	number  uint16   // issue number
	data    [10]byte // diversification data of the instance
	tag     [16]byte // of what the card holds, when nothing is to be written
}

// NothingToDo reports whether the card and the ledger are as they should be.
func (p *Plan) NothingToDo() bool { return len(p.Steps) == 0 && p.Recorded }

// Step is one step of a plan.
type Step struct {
	Name     StepName
	Commands []string // names of the commands that it will send
	Key      keys.Ref // under which they go

	build func(ctx context.Context, s *Session) ([]globalplatform.Commander, error)
	check func(response []byte) error // of the last command's answer; may be nil
}

// StepName names a step, in the ledger too.
type StepName string

// Names of steps.
const (
	StepLoad           StepName = "load"
	StepInstall        StepName = "install"
	StepPersonalize    StepName = "personalize"
	StepVerify         StepName = "verify"
	StepWipe           StepName = "wipe"
	StepDelete         StepName = "delete"
	StepDeleteLoadFile StepName = "delete-load-file"
)

// PlanIssue compares the card with what is wanted. Nothing is written.
func (p *Provisioner) PlanIssue(ctx context.Context, s *Session, d *Desired) (*Plan, error) {
	app := d.Manifest.Application
	plan := &Plan{Purpose: Issue, Service: d.Manifest.ID, Instance: app.Instance, desired: d}
	if err := cardUsable(s); err != nil {
		return nil, err
	}
	active, err := p.checkLedger(ctx, s, d)
	if err != nil {
		return nil, err
	}
	if err := p.planLoad(s, d, plan); err != nil {
		return nil, err
	}
	plan.number, err = p.Ledger.IssueNumber(ctx, d.Manifest.ID, s.CardRef)
	if err != nil {
		return nil, err
	}
	observed, err := p.planInstall(ctx, s, d, plan)
	if err != nil {
		return nil, err
	}
	// The card holds what is wanted if it holds this content under the number
	// of the recorded issue, or under the next one, which a run that was cut
	// off wrote and could not record any more.
	if observed != nil && observed.Personalized() && d.ID != "" {
		for _, next := range []uint16{0, 1} {
			if plan.number+next == 0 {
				continue
			}
			c, err := p.content(ctx, d, plan.number+next, plan.data)
			erase(c)
			if err != nil {
				return nil, err
			}
			if c.Tag == observed.Tag {
				plan.number += next
				plan.tag = c.Tag
				plan.Recorded = active != nil && active.Tag == tagText(c.Tag)
				return plan, nil
			}
		}
	}
	plan.number++
	setPIN := d.spec.PIN && (observed == nil || observed.PIN == nil)
	plan.Steps = append(plan.Steps, p.personalize(plan, setPIN), p.verify(plan))
	return plan, nil
}

// checkLedger refuses what the ledger forbids, and returns the issue that is
// on the card under the same consent, if there is one.
func (p *Provisioner) checkLedger(ctx context.Context, s *Session, d *Desired) (*ledger.Issued, error) {
	owner, ok, err := p.Ledger.AIDOwner(ctx, d.Manifest.Application.Instance)
	if err != nil {
		return nil, err
	}
	if ok && owner != d.Manifest.ID {
		return nil, fmt.Errorf("%w: %v is used by %q", ledger.ErrAIDTaken, d.Manifest.Application.Instance, owner)
	}
	recorded, err := p.Ledger.Consent(ctx, d.Consent.Record.ID)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return nil, err
	}
	if err == nil && recorded.Card != "" && recorded.Card != s.CardRef {
		return nil, ErrOtherCard
	}
	active, ok, err := p.Ledger.ActiveIssue(ctx, d.Manifest.ID, s.CardRef)
	if err != nil || !ok {
		return nil, err
	}
	if active.Consent != d.Consent.Record.ID {
		return nil, fmt.Errorf("%w: issue number %d, under another consent", ErrOtherIssue, active.IssueNumber)
	}
	return &active, nil
}

func cardUsable(s *Session) error {
	if state := s.Domain.State; state == globalplatform.CardLocked || state == globalplatform.CardTerminated {
		return fmt.Errorf("%w: the card's state is %02X", ErrCardState, state)
	}
	return nil
}

// planLoad adds the step that brings the load file, unless it is there.
func (p *Provisioner) planLoad(s *Session, d *Desired, plan *Plan) error {
	app := d.Manifest.Application
	present := find(s.LoadFiles, app.Package)
	if present == nil {
		if other := find(s.Applications, app.Package); other != nil {
			return fmt.Errorf("%w: %v is an application", ErrForeign, app.Package)
		}
		plan.Steps = append(plan.Steps, p.load(d.LoadFile))
		return nil
	}
	// No command returns a loaded file's hash, so what the card tells of it is
	// compared: its modules, its version and its Security Domain.
	if !slices.Contains(present.Modules, app.Module) {
		return fmt.Errorf("%w: load file %v on the card has no module %v", ErrForeign, app.Package, app.Module)
	}
	if v, want := present.Version, d.LoadFile.Package; len(v) == 2 && (v[0] != want.Major || v[1] != want.Minor) {
		return fmt.Errorf("%w: load file %v on the card is version %d.%d, not %d.%d", ErrForeign, app.Package, v[0], v[1], want.Major, want.Minor)
	}
	if sd := present.SecurityDomain; !sd.IsZero() && sd != p.CardProfile.SecurityDomain {
		return fmt.Errorf("%w: load file %v on the card belongs to the security domain %v", ErrForeign, app.Package, sd)
	}
	return nil
}

// planInstall adds the steps that bring the instance, and returns what an
// instance that is there holds.
func (p *Provisioner) planInstall(ctx context.Context, s *Session, d *Desired, plan *Plan) (*applets.Observation, error) {
	app := d.Manifest.Application
	present := find(s.Applications, app.Instance)
	if present != nil {
		if !present.LoadFile.IsZero() && present.LoadFile != app.Package {
			return nil, fmt.Errorf("%w: %v comes from load file %v", ErrForeign, app.Instance, present.LoadFile)
		}
		if find(s.LoadFiles, app.Package) == nil {
			return nil, fmt.Errorf("%w: %v is there without load file %v", ErrForeign, app.Instance, app.Package)
		}
		if present.Locked() {
			return nil, fmt.Errorf("%w: the instance %v is suspended", ErrCardState, app.Instance)
		}
		observed, err := p.observe(ctx, s, d.Profile, app.Instance)
		if err != nil {
			return nil, fmt.Errorf("look into %v: %w", app.Instance, err)
		}
		if fits(observed.Spec, d.spec) {
			plan.data = observed.Spec.DiversificationData
			return &observed, nil
		}
		if observed.Personalized() {
			return nil, fmt.Errorf("%w: the instance %v was installed for another manifest; withdraw it first", ErrForeign, app.Instance)
		}
		plan.Steps = append(plan.Steps, p.deleteObject(StepDelete, app.Instance))
	}
	data, err := p.random(len(plan.data))
	if err != nil {
		return nil, err
	}
	plan.data = [10]byte(data)
	plan.Steps = append(plan.Steps, p.install(d, plan))
	return nil, nil
}

// fits reports whether an instance installed with one specification can hold
// what another asks for.
func fits(have, want applets.InstallSpec) bool {
	return have.KeySets >= min(want.KeySets, 1) && have.ItemsCapacity >= want.ItemsCapacity && have.PIN == want.PIN
}

// PlanWithdraw plans to wipe and delete a service's instance, and the load
// file with it when nothing else uses it. What a torn run has left of that is
// finished.
func (p *Provisioner) PlanWithdraw(ctx context.Context, s *Session, m *manifest.Manifest) (*Plan, error) {
	profile, ok := p.Profiles.Lookup(m.Profile)
	if !ok {
		return nil, fmt.Errorf("profile %q is not known to this program", m.Profile)
	}
	if err := cardUsable(s); err != nil {
		return nil, err
	}
	app := m.Application
	plan := &Plan{Purpose: Withdraw, Service: m.ID, Instance: app.Instance}
	_, active, err := p.Ledger.ActiveIssue(ctx, m.ID, s.CardRef)
	if err != nil {
		return nil, err
	}
	plan.Recorded = !active
	present := find(s.Applications, app.Instance)
	if present != nil {
		if !present.LoadFile.IsZero() && present.LoadFile != app.Package {
			return nil, fmt.Errorf("%w: %v comes from load file %v", ErrForeign, app.Instance, present.LoadFile)
		}
		if present.Locked() {
			return nil, fmt.Errorf("%w: the instance %v is suspended", ErrCardState, app.Instance)
		}
		plan.Steps = append(plan.Steps, p.wipe(profile, app.Instance), p.deleteObject(StepDelete, app.Instance))
	}
	if find(s.LoadFiles, app.Package) != nil && !p.inUse(s, app) {
		plan.Steps = append(plan.Steps, p.deleteObject(StepDeleteLoadFile, app.Package))
	}
	if present == nil && len(plan.Steps) == 0 && plan.Recorded {
		return nil, ErrNotOnCard
	}
	return plan, nil
}

// inUse reports whether an instance other than this one may come from the
// same load file. A card that does not tell where instances come from makes
// it true: a load file too many costs room, one too few a citizen's service.
func (p *Provisioner) inUse(s *Session, app manifest.Application) bool {
	for _, a := range s.Applications {
		if a.AID != app.Instance && (a.LoadFile == app.Package || a.LoadFile.IsZero()) {
			return true
		}
	}
	return false
}
