package provisioner

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
)

// Purposes of plans, as the ledger names them.
const (
	Issue    = "issue"
	Update   = "update"
	Reissue  = "reissue"
	ResetPIN = "pin-reset"
	Suspend  = "suspend"
	Resume   = "resume"
	Withdraw = "withdraw"
	RekeyRun = "rekey"
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

	card       ledger.CardRef
	where      place
	delegated  bool        // the manager needs tokens
	desired    *Desired    // for issuing
	loadFile   iso7816.AID // that the instance comes from
	number     uint16      // issue number
	data       [10]byte    // diversification data of the instance
	tag        [16]byte    // of the content that the card holds or is to hold
	keyVersion byte        // of its newest read key, 0 without one
	// outcome is what the ledger is to say once the run is done, beside that it is.
	outcome func(run string) []ledger.Data
}

// holds notes the content that the plan leads to.
func (p *Plan) holds(c applets.Content) {
	p.tag, p.keyVersion = c.Tag, 0
	for _, k := range c.ReadKeys {
		p.keyVersion = max(p.keyVersion, k.Version)
	}
}

// NothingToDo reports whether the card and the ledger are as they should be.
func (p *Plan) NothingToDo() bool { return len(p.Steps) == 0 && p.Recorded }

// Step is one step of a plan.
type Step struct {
	Name     StepName
	Commands []string // names of the commands that it will send
	Domain   iso7816.AID
	Key      keys.Ref // of Domain, under which they go
	// Token is what a token is needed for, under Delegated Management.
	Token *delegation.Operation

	domain    Domain
	reference globalplatform.TokenReference // beside the token
	token     []byte
	receipt   globalplatform.ReceiptData // what its receipt covers
	// first is the command that takes the token, before those of build.
	first func(globalplatform.TokenReference, []byte) (globalplatform.Commander, error)
	build func(ctx context.Context, s *Session) ([]globalplatform.Commander, error)
	// look is what a step does that talks to the instance itself, in place of
	// build and check.
	look  func(ctx context.Context, s *Session) error
	check func(response []byte) error // of the last command's answer; may be nil
	// spared tells a refusal that leaves the card as it should be; may be nil.
	spared func(error) bool
}

// StepName names a step, in the ledger too.
type StepName string

// Names of steps.
const (
	StepLoad           StepName = "load"
	StepInstall        StepName = "install"
	StepExtradite      StepName = "extradite"
	StepPersonalize    StepName = "personalize"
	StepVerify         StepName = "verify"
	StepLock           StepName = "lock"
	StepUnlock         StepName = "unlock"
	StepWipe           StepName = "wipe"
	StepDelete         StepName = "delete"
	StepDeleteLoadFile StepName = "delete-load-file"
)

// PlanIssue compares the card with what is wanted. Nothing is written. The
// error wraps [iso7816.ErrNoMemory] where the card tells that it has no room.
func (p *Provisioner) PlanIssue(ctx context.Context, s *Session, d *Desired) (*Plan, error) {
	app := d.Manifest.Application
	plan := &Plan{
		Purpose: d.purpose(), Service: d.Manifest.ID, Instance: app.Instance,
		card: s.CardRef, desired: d, loadFile: app.Package, where: d.where,
	}
	if err := p.usable(ctx, s, d.where); err != nil {
		return nil, err
	}
	plan.delegated = p.delegated(s, d.where)
	active, err := p.checkLedger(ctx, s, d)
	if err != nil {
		return nil, err
	}
	if err := p.outcomeOfIssue(ctx, s, d, plan); err != nil {
		return nil, err
	}
	if err := p.chooseKeys(ctx, s, d, active); err != nil {
		return nil, err
	}
	if err := p.planLoad(s, d, plan); err != nil {
		return nil, err
	}
	last, err := p.Ledger.IssueNumber(ctx, d.Manifest.ID, s.CardRef)
	if err != nil {
		return nil, err
	}
	if d.carry != nil && d.carry.Cause != "" {
		// Whoever knows the number of the replaced card's issue can tell it
		// from the one that counts, though both have the same ID.
		last = max(last, d.carry.From.IssueNumber)
	}
	observed, err := p.planInstall(ctx, s, d, plan)
	if err != nil {
		return nil, err
	}
	if observed != nil && !observed.SpecUnknown && observed.Spec.KeySets < len(d.versions) {
		return nil, fmt.Errorf("%w: room for %d, and %d versions are to be there", ErrKeyRoom, observed.Spec.KeySets, len(d.versions))
	}
	if d.setPIN {
		return plan, p.planPIN(ctx, d, plan, observed, active)
	}
	if observed != nil && observed.Personalized() {
		done, err := p.holdsAlready(ctx, plan, observed, active, last)
		if done || err != nil {
			return plan, err
		}
		// No number stands for two contents: a run that was cut off may have
		// written this one and not recorded it.
		last = max(last, observed.IssueNumber)
	}
	if last == math.MaxUint16 {
		return nil, fmt.Errorf("issue number %d of %q on this card was the last one", last, d.Manifest.ID)
	}
	plan.number = last + 1
	// The PIN belongs to the issue: a holder who has one keeps it, and what an
	// unrecorded issue left is nobody's.
	setPIN := d.spec.PIN && (observed == nil || observed.PIN == nil || active == nil)
	if setPIN && d.subject.PIN == "" {
		return nil, fmt.Errorf("%w: there is none of %q on the card yet", ErrPINMissing, d.Manifest.ID)
	}
	plan.Steps = append(plan.Steps, p.personalize(plan, setPIN), p.verify(plan))
	if err := p.entrust(s, d.Manifest, plan); err != nil {
		return nil, err
	}
	return plan, p.checkRoom(ctx, s, d, plan)
}

// holdsAlready reports whether the card holds what is wanted: under the
// recorded issue's number, or under a later one, which a run that was cut off
// wrote and could not record any more.
func (p *Provisioner) holdsAlready(ctx context.Context, plan *Plan, observed *applets.Observation, active *ledger.Issued, last uint16) (bool, error) {
	number := observed.IssueNumber
	if plan.desired.ID == "" || number == 0 {
		return false, nil
	}
	c, err := p.content(ctx, plan.desired, number, plan.data)
	defer erase(&c)
	if err != nil || c.Tag != observed.Tag {
		return false, err
	}
	if active != nil && active.Tag == tagText(c.Tag) {
		if active.Consent != plan.desired.Consent.Record.ID {
			return false, nil // an issue stands under one consent: under a new one it is another
		}
		plan.Recorded = true
	}
	if !plan.Recorded && number <= last {
		return false, nil // the ledger has closed this number: a withdrawn card that was brought back
	}
	plan.number = number
	plan.holds(c)
	return true, nil
}

// checkRoom refuses what can't fit, where the card tells how much room it has.
// What the card needs besides only the card knows, so it may still refuse.
func (p *Provisioner) checkRoom(ctx context.Context, s *Session, d *Desired, plan *Plan) error {
	if !p.CardProfile.HasData(globalplatform.TagExtendedCardResources) {
		return nil
	}
	need := 0
	for _, step := range plan.Steps {
		switch step.Name {
		case StepDelete:
			return nil // makes room that nobody knows the size of
		case StepLoad:
			need += len(d.LoadFile.LoadFileDataBlock())
		case StepInstall:
			need += d.Profile.PersistentMemory(d.spec)
		}
	}
	if need == 0 {
		return nil
	}
	if err := p.regain(ctx, s, plan.where.manager); err != nil {
		return err
	}
	has, err := globalplatform.Resources(ctx, s.channel)
	if err != nil {
		return fmt.Errorf("read the card's free memory: %w", err)
	}
	if free := has.FreeNonVolatile; need > free {
		return fmt.Errorf("%w: %d bytes are needed, %d are free", iso7816.ErrNoMemory, need, free)
	}
	return nil
}

// checkLedger refuses what the ledger forbids, and returns the issue that is
// on the card under the same consent, if there is one.
func (p *Provisioner) checkLedger(ctx context.Context, s *Session, d *Desired) (*ledger.Issued, error) {
	if err := errors.Join(p.checkOwner(ctx, d.Manifest), p.checkInstance(ctx, s, d.Manifest)); err != nil {
		return nil, err
	}
	recorded, err := p.Ledger.Consent(ctx, d.Consent.Record.ID)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return nil, err
	}
	replaces := d.carry != nil && d.carry.Cause != ""
	if err == nil && recorded.Card != "" && recorded.Card != s.CardRef {
		return nil, ErrOtherCard
	}
	if replaces && d.carry.From.Card == s.CardRef {
		return nil, fmt.Errorf("%w: the card can't replace itself", ErrOtherCard)
	}
	active, ok, err := p.activeIssue(ctx, d.Manifest.ID, s.CardRef)
	switch {
	case err != nil:
		return nil, err
	case d.update() && (!ok || active.ID != d.carry.From.ID || d.carry.From.Card != s.CardRef):
		return nil, fmt.Errorf("%w: %s", ErrNotOnCard, d.Manifest.ID)
	case !ok:
		return nil, nil
	}
	if held, err := p.Ledger.IsSuspended(ctx, d.Manifest.ID, s.CardRef); err != nil || held {
		return nil, cmp.Or(err, fmt.Errorf("%w: %s", ErrSuspended, d.Manifest.ID))
	}
	if active.Consent != d.Consent.Record.ID && !d.update() {
		return nil, fmt.Errorf("%w: issue number %d, under another consent", ErrOtherIssue, active.IssueNumber)
	}
	return &active, nil
}

// usable brings the session's view of the registry up to date, and refuses a
// card whose content can't be managed.
func (p *Provisioner) usable(ctx context.Context, s *Session, w place) error {
	if p.Ledger == nil {
		return ErrNoLedger
	}
	if s.dirty {
		if err := p.refresh(ctx, s); err != nil {
			return err
		}
	}
	if state := s.Domain.State; state == globalplatform.CardLocked || state == globalplatform.CardTerminated {
		return fmt.Errorf("%w: the card's state is %02X", ErrCardState, state)
	}
	if err := p.ready(s, w); err != nil {
		return err
	}
	if err := p.look(ctx, s, w.manager, w.home); err != nil {
		return err
	}
	return p.ready(s, w)
}

// checkOwner refuses an instance AID that another service has on any card.
func (p *Provisioner) checkOwner(ctx context.Context, m *manifest.Manifest) error {
	owner, ok, err := p.Ledger.AIDOwner(ctx, m.Application.Instance)
	if err == nil && ok && owner != m.ID {
		err = fmt.Errorf("%w: %v is used by %q", ledger.ErrAIDTaken, m.Application.Instance, owner)
	}
	return err
}

// checkInstance refuses a manifest whose instance AID is not the one that the
// card has of the service, from an issue or from a run that was not finished:
// what is done under the one would leave the other behind, unknown to all.
func (p *Provisioner) checkInstance(ctx context.Context, s *Session, m *manifest.Manifest) error {
	refuse := func(has iso7816.AID) error {
		return fmt.Errorf("%w: %s is %v there, and %v in the manifest", ErrOtherInstance, m.ID, has, m.Application.Instance)
	}
	active, ok, err := p.Ledger.ActiveIssue(ctx, m.ID, s.CardRef)
	if err != nil {
		return err
	}
	if ok && active.Instance != m.Application.Instance {
		return refuse(active.Instance)
	}
	runs, err := p.Ledger.UnfinishedRuns(ctx, s.CardRef)
	for _, r := range runs {
		if r.Service == m.ID && r.Instance != m.Application.Instance && find(s.Applications, r.Instance) != nil {
			return refuse(r.Instance)
		}
	}
	return err
}

// planLoad adds the step that brings the load file, unless it is there.
func (p *Provisioner) planLoad(s *Session, d *Desired, plan *Plan) error {
	app := d.Manifest.Application
	present := find(s.LoadFiles, app.Package)
	if present == nil {
		if app.Package == s.Domain.AID || find(s.Applications, app.Package) != nil {
			return fmt.Errorf("%w: %v is an application", ErrForeign, app.Package)
		}
		if !s.Complete && find(s.Applications, app.Instance) != nil {
			return nil // its instance is there, so it is, out of sight
		}
		plan.Steps = append(plan.Steps, p.load(d.LoadFile, plan))
		return nil
	}
	// No command returns a loaded file's hash, so what the card tells of it is
	// compared: its modules, its version and its Security Domain.
	if !sameAIDs(present.Modules, d.LoadFile.Applets) {
		return fmt.Errorf("%w: load file %v on the card has the modules %v, not %v", ErrForeign, app.Package, present.Modules, d.LoadFile.Applets)
	}
	if v, want := present.Version, d.LoadFile.Package; len(v) == 2 && (v[0] != want.Major || v[1] != want.Minor) {
		return fmt.Errorf("%w: load file %v on the card is version %d.%d, not %d.%d", ErrForeign, app.Package, v[0], v[1], want.Major, want.Minor)
	}
	if sd := present.SecurityDomain; !sd.IsZero() && sd != plan.where.manager.AID {
		return fmt.Errorf("%w: load file %v on the card belongs to the security domain %v", ErrForeign, app.Package, sd)
	}
	return nil
}

// sameAIDs compares without regard to order.
func sameAIDs(a, b []iso7816.AID) bool {
	order := func(x, y iso7816.AID) int { return bytes.Compare(x.Bytes(), y.Bytes()) }
	return slices.Equal(slices.SortedFunc(slices.Values(a), order), slices.SortedFunc(slices.Values(b), order))
}

// instance returns the service's instance as the registry lists it and where it
// is, nil where there is none, and refuses anything else that has its AID. What
// the card does not show is looked for by selecting it.
func (p *Provisioner) instance(ctx context.Context, s *Session, w place, app manifest.Application) (*globalplatform.RegistryEntry, Domain, error) {
	fail := func(err error) (*globalplatform.RegistryEntry, Domain, error) { return nil, Domain{}, err }
	if app.Instance == s.Domain.AID || find(s.LoadFiles, app.Instance) != nil {
		return fail(fmt.Errorf("%w: %v is no instance", ErrForeign, app.Instance))
	}
	present := find(s.Applications, app.Instance)
	switch {
	case present == nil && s.Complete:
		return nil, Domain{}, nil
	case present == nil:
		there, err := p.hidden(ctx, s, app.Instance)
		if err == nil && there {
			err = fmt.Errorf("%w: %v answers, and %v doesn't see it", ErrNotVisible, app.Instance, w.manager.AID)
		}
		return fail(err)
	case !present.LoadFile.IsZero() && present.LoadFile != app.Package:
		return fail(fmt.Errorf("%w: %v comes from load file %v", ErrForeign, app.Instance, present.LoadFile))
	case find(s.LoadFiles, app.Package) == nil && s.Complete:
		return fail(fmt.Errorf("%w: %v is there without load file %v", ErrForeign, app.Instance, app.Package))
	}
	at, ok, err := p.homeOf(ctx, s, w, present)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %v belongs to the security domain %v", ErrForeign, app.Instance, present.SecurityDomain)
	}
	return present, at, err
}

// planInstall adds the steps that bring the instance to its Security Domain,
// and returns what an instance that is there holds. What it holds with its
// manager is not what is wanted (see content), and will be written anew.
func (p *Provisioner) planInstall(ctx context.Context, s *Session, d *Desired, plan *Plan) (*applets.Observation, error) {
	app := d.Manifest.Application
	present, at, err := p.instance(ctx, s, d.where, app)
	if err != nil {
		return nil, err
	}
	switch {
	case present == nil:
	case present.Locked():
		return nil, fmt.Errorf("%w: the instance %v is locked", ErrCardState, app.Instance)
	case present.State == globalplatform.StateInstalled: // was never made selectable
		plan.Steps = append(plan.Steps, p.deleteObject(StepDelete, plan, app.Instance))
	default:
		observed, err := p.observe(ctx, s, at, d.Profile, app.Instance)
		for _, other := range []error{applets.ErrOtherType, applets.ErrVersion, applets.ErrMalformedObservation} {
			if errors.Is(err, other) {
				return nil, fmt.Errorf("%w: %v: %w", ErrForeign, app.Instance, err)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("look into %v: %w", app.Instance, err)
		}
		if observed.SpecUnknown || fits(observed.Spec, d.spec) {
			plan.data = observed.Spec.DiversificationData
			if at.AID != d.where.home.AID {
				plan.Steps = append(plan.Steps, p.extradite(plan))
			}
			return &observed, nil
		}
		if observed.Personalized() {
			return nil, fmt.Errorf("%w: the instance %v was installed for another manifest; withdraw it first", ErrForeign, app.Instance)
		}
		plan.Steps = append(plan.Steps, p.deleteObject(StepDelete, plan, app.Instance))
	}
	if plan.data, err = p.installData(plan); err != nil {
		return nil, err
	}
	step, err := p.install(d, plan)
	if err != nil {
		return nil, err
	}
	plan.Steps = append(plan.Steps, step)
	if d.where.separate() {
		plan.Steps = append(plan.Steps, p.extradite(plan))
	}
	return nil, nil
}

// fits reports whether an instance installed with one specification can hold
// what another asks for.
func fits(have, want applets.InstallSpec) bool {
	return have.KeySets >= min(want.KeySets, 1) && have.ItemsCapacity >= want.ItemsCapacity && have.PIN == want.PIN
}

// PlanWithdraw plans to wipe and delete a service's instance, and the load
// file with it when nothing else uses it. What a torn run has left of that is
// finished; where all is done there is nothing to do. A service that was never
// on the card is [ErrNotOnCard].
func (p *Provisioner) PlanWithdraw(ctx context.Context, s *Session, m *manifest.Manifest) (*Plan, error) {
	profile, ok := m.LookupProfile(p.Profiles)
	if !ok {
		return nil, fmt.Errorf("profile %q is not known to this program", m.Profile)
	}
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
	app := m.Application
	plan := &Plan{
		Purpose: Withdraw, Service: m.ID, Instance: app.Instance, card: s.CardRef, loadFile: app.Package,
		where: where, delegated: p.delegated(s, where),
	}
	_, active, err := p.Ledger.ActiveIssue(ctx, m.ID, s.CardRef)
	if err != nil {
		return nil, err
	}
	plan.Recorded = !active
	plan.outcome = func(run string) []ledger.Data {
		return []ledger.Data{ledger.Withdrawn{Service: m.ID, Card: s.CardRef, Run: run, Instance: app.Instance, Deleted: true}}
	}
	present, at, err := p.instance(ctx, s, where, app)
	if err != nil {
		return nil, err
	}
	if present != nil {
		if present.Locked() {
			// A locked instance takes no commands, so that what it holds could
			// not be erased before it is deleted.
			if err := p.checkLock(ctx, s, m); err != nil {
				return nil, err
			}
			plan.Steps = append(plan.Steps, p.setLocked(at, app.Instance, false))
		}
		if present.State != globalplatform.StateInstalled { // what was never selectable takes no commands, and holds nothing
			if len(profile.Wipe()) > 0 {
				plan.Steps = append(plan.Steps, p.wipe(at, profile, app.Instance))
			}
		}
		plan.Steps = append(plan.Steps, p.deleteObject(StepDelete, plan, app.Instance))
	}
	if file := find(s.LoadFiles, app.Package); file != nil && slices.Contains(file.Modules, app.Module) && !inUse(s, app) &&
		(file.SecurityDomain.IsZero() || file.SecurityDomain == where.manager.AID) {
		plan.Steps = append(plan.Steps, p.deleteLoadFile(plan))
	}
	if plan.NothingToDo() {
		states, err := p.Ledger.Services(ctx, s.CardRef)
		if err == nil && !slices.ContainsFunc(states, func(x ledger.ServiceState) bool { return x.Service == m.ID && x.State == ledger.Ended }) {
			err = fmt.Errorf("%w: %s", ErrNotOnCard, m.ID)
		}
		return plan, err
	}
	return plan, p.entrust(s, m, plan)
}

// inUse reports whether an instance other than this one comes from the same
// load file, as far as the card tells where instances come from. Applications
// that the card came with have no load file.
func inUse(s *Session, app manifest.Application) bool {
	return slices.ContainsFunc(s.Applications, func(a globalplatform.RegistryEntry) bool {
		return a.AID != app.Instance && a.LoadFile == app.Package
	})
}
