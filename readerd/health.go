package readerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Checker is an [Output] that can say, at any time and at once, why what it
// tells would reach nobody: a door without a panel, a broker that is away. nil
// is that it would.
type Checker interface {
	Check() error
}

// Health is how a terminal is.
type Health struct {
	Slots  []string // that are watched and there
	Faults []error  // each with the slot or the output; none is well
}

// Health looks at slots and outputs as they are now.
func (d *Daemon) Health(ctx context.Context) Health {
	var h Health
	slots, err := d.o.Source.Slots(ctx)
	for _, s := range slots {
		h.Slots = append(h.Slots, s.Slot)
	}
	switch {
	case err != nil:
		h.Faults = append(h.Faults, fmt.Errorf("slots: %w", err))
	case len(d.o.Slots) == 0 && len(slots) == 0:
		h.Faults = append(h.Faults, errors.New("no slot is there"))
	default:
		for _, name := range d.o.Slots {
			if !slices.Contains(h.Slots, name) {
				h.Faults = append(h.Faults, fmt.Errorf("slot %q is not there", name))
			}
		}
	}
	for _, out := range d.o.Outputs {
		if c, ok := out.(Checker); ok {
			if err := c.Check(); err != nil {
				h.Faults = append(h.Faults, fmt.Errorf("%s: %w", out.Name(), err))
			}
		}
	}
	return h
}

// MarshalJSON writes it as docs/json.md describes it.
func (h Health) MarshalJSON() ([]byte, error) {
	faults := make([]string, len(h.Faults))
	for i, f := range h.Faults {
		faults[i] = f.Error()
	}
	return json.Marshal(struct {
		V      int      `json:"v"`
		Type   string   `json:"type"`
		OK     bool     `json:"ok"`
		Slots  []string `json:"slots"`
		Faults []string `json:"faults"`
	}{jsonVersion, "health", len(faults) == 0, append([]string{}, h.Slots...), faults})
}
