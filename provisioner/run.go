package provisioner

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
)

// Result is what a run led to.
type Result struct {
	Run         string // id in the ledger; "" when there was nothing to do
	ID          string // issued; "" when withdrawing
	IssueNumber uint16
	Expiry      time.Time
	KeyVersion  byte
	Steps       int // carried out
}

// RunError is a run that did not reach its end. What was done before stays
// done, and running again goes on from there.
type RunError struct {
	Run  string
	Done []StepName // in order
	Step StepName   // that failed
	Err  error
}

// Error names the step that failed and says how far the run came.
func (e *RunError) Error() string {
	return fmt.Sprintf("step %s failed after %d done: %v", e.Step, len(e.Done), e.Err)
}

// Unwrap returns the reason.
func (e *RunError) Unwrap() error { return e.Err }

// Run carries a plan out. Each step's intent is in the ledger before its first
// command is sent, and its outcome before the next begins, also when the
// context has ended. The outcome of one step and the intent of the next are one
// entry, written and synced at once. When a plan of nothing but a missing record
// is run, only the ledger is written.
//
// Without a token that it needs a plan is not begun ([ErrTokenMissing]), except
// that a withdrawal erases what the instance holds first, for which it needs none.
func (p *Provisioner) Run(ctx context.Context, s *Session, plan *Plan) (*Result, error) {
	switch {
	case p.Ledger == nil:
		return nil, ErrNoLedger
	case plan.card != s.CardRef:
		return nil, errors.New("the plan was made for another card")
	}
	steps, missing := plan.Steps, plan.missing()
	if missing != nil {
		if steps = plan.erasing(); len(steps) == 0 {
			return nil, missing
		}
	}
	run, err := p.newID()
	if err != nil {
		return nil, err
	}
	result := &Result{Run: run, IssueNumber: plan.number}
	if plan.desired != nil {
		if err := p.bind(ctx, s, plan.desired, run); err != nil {
			return nil, err
		}
		result.ID, result.Expiry = plan.desired.ID, plan.desired.Expiry
	}
	if plan.NothingToDo() {
		result.Run, result.KeyVersion = "", plan.keyVersion
		return result, nil
	}
	started := ledger.RunStarted{
		Run: run, Purpose: plan.Purpose, Service: plan.Service, Card: s.CardRef, Instance: plan.Instance, Steps: len(plan.Steps),
	}
	if plan.desired != nil {
		started.Consent = plan.desired.Consent.Record.ID
	}
	s.dirty = true
	w := &writer{p: p}
	w.hold(plan.reason(), started)
	var done []StepName
	failed := func(err error) error {
		if !errors.Is(err, errLedger) {
			w.hold("", ledger.RunFinished{Run: run, Outcome: ledger.Failed, Error: short(err)})
			err = errors.Join(err, w.write(ctx))
		}
		return &RunError{Run: run, Done: done, Step: plan.Steps[len(done)].Name, Err: err}
	}
	for i, step := range steps {
		if err := p.step(ctx, s, plan, w, run, i+1); err != nil {
			if errors.Is(err, iso7816.ErrNoMemory) {
				err = errors.Join(err, p.makeRoom(ctx, s, plan, w, run, done))
			}
			s.lost = true // some cards end the channel when they refuse: what comes next opens one
			return nil, failed(err)
		}
		done = append(done, step.Name)
	}
	if missing != nil {
		return nil, failed(missing)
	}
	result.Steps, result.KeyVersion = len(done), plan.keyVersion
	w.hold(plan.reason(), plan.record(run)...)
	if err := w.write(ctx); err != nil {
		return nil, fmt.Errorf("the card is done, but the ledger could not record it; run again: %w", err)
	}
	return result, nil
}

// errLedger marks an outcome that could not be recorded: the run stays open
// in the ledger, which then says what is true, that nobody knows.
var errLedger = errors.New("not recorded")

// writer gathers a run's events until they have to be in the ledger.
type writer struct {
	p    *Provisioner
	held []ledger.Event
}

// hold keeps events for the next write.
func (w *writer) hold(reason string, data ...ledger.Data) {
	w.held = append(w.held, w.p.events(reason, data)...)
}

// write puts into the ledger what is held, all or none of it.
func (w *writer) write(ctx context.Context) error {
	err := w.p.write(ctx, w.held)
	if err == nil {
		w.held = nil
	}
	return err
}

// step carries out one step: its intent is recorded before, with what is held,
// and its outcome is held.
func (p *Provisioner) step(ctx context.Context, s *Session, plan *Plan, w *writer, run string, n int) error {
	step := plan.Steps[n-1]
	if err := ctx.Err(); err != nil {
		return err // before anybody intends anything
	}
	w.hold("", ledger.StepIntended{Run: run, Step: n, Name: string(step.Name)})
	if err := w.write(ctx); err != nil {
		return fmt.Errorf("%w: %w", errLedger, err)
	}
	evidence, err := p.carryOut(ctx, s, plan, n)
	var outcome ledger.Data = ledger.StepDone{Run: run, Step: n, Evidence: evidence}
	if err != nil {
		failed := ledger.StepFailed{Run: run, Step: n, Error: short(err)}
		if status := new(iso7816.StatusError); errors.As(err, &status) {
			failed.Status = status.SW.String()
		}
		outcome = failed
	}
	w.hold("", outcome)
	if step.spared != nil && step.spared(err) {
		return nil
	}
	return err
}

// makeRoom takes the load file away again that a run brought to a card which
// then had no room for the instance: nothing half installed stays.
func (p *Provisioner) makeRoom(ctx context.Context, s *Session, plan *Plan, w *writer, run string, done []StepName) error {
	if !slices.Contains(done, StepLoad) || slices.Contains(done, StepInstall) {
		return nil
	}
	step := p.deleteLoadFile(plan)
	if given, err := p.token(&step); err != nil || plan.delegated && !given {
		return err // the next run goes on from the load file
	}
	plan.Steps = append(plan.Steps, step)
	return p.step(ctx, s, plan, w, run, len(plan.Steps))
}

// short makes an error fit the ledger: 500 bytes of UTF-8 without control
// characters.
func short(err error) string {
	const most = 500
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return ' '
		}
		return r
	}, err.Error())
	if len(text) > most {
		text = text[:most]
	}
	return strings.ToValidUTF8(text, "")
}

func (plan *Plan) reason() string {
	if plan.desired != nil {
		return plan.desired.reason
	}
	return ""
}

// bind records the consent, that it is this card's, and which ID belongs to
// it, as far as the ledger does not know yet.
func (p *Provisioner) bind(ctx context.Context, s *Session, d *Desired, run string) error {
	id := d.Consent.Record.ID
	known, err := p.Ledger.Consent(ctx, id)
	if errors.Is(err, ledger.ErrNotFound) {
		if err := p.RecordConsent(ctx, d.Consent); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	switch known.Card {
	case s.CardRef:
	case "":
		err := p.append(ctx, d.reason, ledger.CardBound{Consent: id, Card: s.CardRef})
		if errors.Is(err, ledger.ErrBound) {
			return fmt.Errorf("%w: %w", ErrOtherCard, err) // meanwhile, at another counter
		}
		if err != nil {
			return err
		}
	default:
		return ErrOtherCard
	}
	return p.reserveID(ctx, d, run)
}

// carryOut sends the commands of one step, and returns the evidence that the
// card gave for what it did with a token.
func (p *Provisioner) carryOut(ctx context.Context, s *Session, plan *Plan, n int) (evidence []byte, err error) {
	step := plan.Steps[n-1]
	if step.look != nil {
		return nil, step.look(ctx, s)
	}
	if err := p.regain(ctx, s, step.domain); err != nil {
		return nil, err
	}
	var commands []globalplatform.Commander
	if step.first != nil {
		first, err := step.first(step.reference, step.token)
		if err != nil {
			return nil, err
		}
		commands = append(commands, first)
	}
	if step.build != nil {
		more, err := step.build(ctx, s)
		if err != nil {
			return nil, err
		}
		commands = append(commands, more...)
	}
	tell := func(sent int) {
		if p.Progress != nil {
			p.Progress(Progress{Step: n, Steps: len(plan.Steps), Name: string(step.Name), Commands: sent, Total: len(commands)})
		}
	}
	tell(0)
	answer, err := s.execute(ctx, commands, tell)
	switch {
	case err != nil:
		return nil, err
	case step.Token != nil:
		return p.confirm(s, step, answer)
	case step.check != nil:
		return nil, step.check(answer)
	}
	return nil, nil
}

// record is the outcome of a run that reached its end.
func (plan *Plan) record(run string) []ledger.Data {
	finished := ledger.RunFinished{Run: run, Outcome: ledger.Done}
	if plan.Recorded {
		return []ledger.Data{finished}
	}
	return append(plan.outcome(run), finished)
}

// RecordConsent writes consents to the ledger, all or none of them. It keeps the
// signed records as they are.
func (p *Provisioner) RecordConsent(ctx context.Context, consents ...*consent.Signed) error {
	var events []ledger.Data
	for _, s := range consents {
		r := s.Record
		events = append(events, ledger.ConsentRecorded{
			Consent: r.ID, Service: r.Service, Manifest: hex.EncodeToString(r.Manifest[:]), Method: string(r.Method),
			Given: r.Given, Until: r.Until, Signed: s.Encode(),
		})
	}
	return p.append(ctx, "", events...)
}
