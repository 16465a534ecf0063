package provisioner

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
)

// Result is what a run led to.
type Result struct {
	Run         string // id in the ledger
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
// command is sent, and its outcome before the next begins. When a plan of
// nothing but a missing record is run, only the ledger is written.
func (p *Provisioner) Run(ctx context.Context, s *Session, plan *Plan) (*Result, error) {
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
		return result, nil
	}
	started := ledger.RunStarted{
		Run: run, Purpose: plan.Purpose, Service: plan.Service, Card: s.CardRef, Instance: plan.Instance, Steps: len(plan.Steps),
	}
	if plan.desired != nil {
		started.Consent = plan.desired.Consent.Record.ID
	}
	if err := p.append(ctx, plan.reason(), started); err != nil {
		return nil, err
	}
	var done []StepName
	for i, step := range plan.Steps {
		n := i + 1
		err := p.append(ctx, "", ledger.StepIntended{Run: run, Step: n, Name: string(step.Name)})
		if err == nil {
			if err = p.carryOut(ctx, s, plan, n); err == nil {
				err = p.append(ctx, "", ledger.StepDone{Run: run, Step: n})
			} else {
				failed := ledger.StepFailed{Run: run, Step: n, Error: short(err)}
				if sw := new(iso7816.StatusError); errors.As(err, &sw) {
					failed.Status = sw.SW.String()
				}
				err = errors.Join(err, p.append(ctx, "", failed, ledger.RunFinished{Run: run, Outcome: ledger.Failed, Error: short(err)}))
			}
		}
		if err != nil {
			return nil, &RunError{Run: run, Done: done, Step: step.Name, Err: err}
		}
		done = append(done, step.Name)
	}
	result.Steps = len(done)
	if result.KeyVersion, err = p.record(ctx, s, plan, run); err != nil {
		return nil, fmt.Errorf("the card is done, but the ledger could not record it; run again: %w", err)
	}
	return result, nil
}

// short bounds an error for the ledger.
func short(err error) string {
	const most = 500
	text := err.Error()
	if len(text) > most {
		text = text[:most]
	}
	return text
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
	if known.Card == "" {
		if err := p.append(ctx, d.reason, ledger.CardBound{Consent: id, Card: s.CardRef}); err != nil {
			return err
		}
	}
	return p.reserveID(ctx, d, run)
}

// carryOut sends the commands of one step.
func (p *Provisioner) carryOut(ctx context.Context, s *Session, plan *Plan, n int) error {
	step := plan.Steps[n-1]
	commands, err := step.build(ctx, s)
	if err != nil {
		return err
	}
	tell := func(sent int) {
		if p.Progress != nil {
			p.Progress(Progress{Step: n, Steps: len(plan.Steps), Name: string(step.Name), Commands: sent, Total: len(commands)})
		}
	}
	tell(0)
	answer, err := s.execute(ctx, commands, tell)
	if err != nil || step.check == nil {
		return err
	}
	return step.check(answer)
}

// record writes the outcome of a run that reached its end.
func (p *Provisioner) record(ctx context.Context, s *Session, plan *Plan, run string) (keyVersion byte, err error) {
	finished := ledger.RunFinished{Run: run, Outcome: ledger.Done}
	if plan.Purpose == Withdraw {
		if plan.Recorded {
			return 0, p.append(ctx, "", finished)
		}
		return 0, p.append(ctx, "", ledger.Withdrawn{
			Service: plan.Service, Card: s.CardRef, Run: run, Instance: plan.Instance, Deleted: true,
		}, finished)
	}
	d := plan.desired
	c, err := p.content(ctx, d, plan.number, plan.data)
	if err != nil {
		return 0, err
	}
	for _, k := range c.ReadKeys {
		keyVersion = max(keyVersion, k.Version)
	}
	erase(c)
	issued := ledger.Issued{
		Service: plan.Service, Card: s.CardRef, Consent: d.Consent.Record.ID, Run: run, Instance: plan.Instance,
		ID: d.ID, IssueNumber: plan.number, Tag: tagText(plan.tag), KeyVersion: keyVersion,
	}
	if !d.Expiry.IsZero() {
		issued.Expiry = d.Expiry.Format(time.DateOnly)
	}
	return keyVersion, p.append(ctx, d.reason, issued, finished)
}

// RecordConsent writes a consent to the ledger, which keeps the signed record
// as it is.
func (p *Provisioner) RecordConsent(ctx context.Context, s *consent.Signed) error {
	r := s.Record
	return p.append(ctx, "", ledger.ConsentRecorded{
		Consent: r.ID, Service: r.Service, Manifest: hex.EncodeToString(r.Manifest[:]), Method: string(r.Method),
		Given: r.Given, Until: r.Until, Signed: s.Encode(),
	})
}
