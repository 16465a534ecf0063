// Package sweep counts what fault sweeps find. A sweep is a set of tests that
// cut cards, kill programs and fill disks, run the same again, and hold what
// is on the card against the ledger. In `go test` they take a part of all
// places; under `make sweep` (package run below this one) all of them, and
// their figures are added up.
package sweep

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// Environment names the file to which the tests append their [Figures], one
// JSON object a line. Where it is set, they sweep all places.
const Environment = "FREEAREA_SWEEP"

// Full reports whether all places are to be swept.
func Full() bool { return os.Getenv(Environment) != "" }

// Figures are what a sweep counts.
type Figures struct {
	Flows     int `json:"flows"`     // that were swept
	Cuts      int `json:"cuts"`      // faults that were made
	Converged int `json:"converged"` // after which running again led to the wanted state
	Lost      int `json:"lost"`      // issues of which card and ledger say different things, or that are gone
	Orphans   int `json:"orphans"`   // instances and load files on cards without an issue in the ledger
}

// Add returns the sum.
func (f Figures) Add(g Figures) Figures {
	return Figures{f.Flows + g.Flows, f.Cuts + g.Cuts, f.Converged + g.Converged, f.Lost + g.Lost, f.Orphans + g.Orphans}
}

// Bad reports whether something was lost, left behind or did not converge.
func (f Figures) Bad() bool {
	return f.Lost > 0 || f.Orphans > 0 || f.Converged < f.Cuts || f.Cuts == 0
}

// Count is 1 for true.
func Count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Tally adds up the figures of the tests of one package. The zero Tally is
// ready; tests that run at once may use it together.
type Tally struct {
	mu    sync.Mutex
	sum   Figures
	flows map[string]bool
}

// Add adds what was counted in a flow, whose name counts once.
func (t *Tally) Add(f Figures, flow string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows == nil {
		t.flows = map[string]bool{}
	}
	t.flows[flow] = true
	t.sum = t.sum.Add(f)
	t.sum.Flows = len(t.flows)
}

// Report appends the sum to the file that [Environment] names; without one it
// does nothing. A package calls it when its tests are done.
func (t *Tally) Report() error {
	path := os.Getenv(Environment)
	if path == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	line, err := json.Marshal(t.sum)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("figures of the sweep: %w", err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		f.Close()
		return fmt.Errorf("figures of the sweep: %w", err)
	}
	return f.Close()
}
