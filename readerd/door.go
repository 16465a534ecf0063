package readerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/freearea/freearea/osdp"
)

// CardFormat is how a door's control panel is given an ID.
type CardFormat struct {
	Name     string // see [CardFormats]
	Bits     int    // of "number": 1 to 64
	Facility byte   // of "wiegand26"
}

// CardFormats lists the names of formats: the ID's characters as formatted
// card data, its characters as raw data of 8 bits each, a decimal ID as a
// number, a decimal ID up to 65535 as 26-bit Wiegand.
func CardFormats() []string { return []string{"text", "characters", "number", "wiegand26"} }

// encode gives the ID in the format.
func (f CardFormat) encode(id string) (osdp.CardData, error) {
	switch f.Name {
	case "text":
		return osdp.Formatted(id)
	case "characters":
		return osdp.Raw([]byte(id), 8*len(id), osdp.Unspecified)
	case "number":
		return osdp.Number(id, f.Bits)
	case "wiegand26":
		return osdp.Wiegand26(f.Facility, id)
	}
	return osdp.CardData{}, fmt.Errorf("card format %q: one of %q expected", f.Name, CardFormats())
}

// Door is a reader at a door: an OSDP device on the line of a control panel.
// The panel decides about the door; it is told accepted taps only.
type Door struct {
	name   string
	device *osdp.Device
	open   func() (io.ReadWriteCloser, error)
	format CardFormat
	retry  time.Duration

	mu   sync.Mutex
	line error // why the line is down, nil while it is up
}

// NewDoor returns the output. Open opens the serial line, and is called again
// when the line has failed, after the time of retry.
func NewDoor(name string, device *osdp.Device, format CardFormat, open func() (io.ReadWriteCloser, error), retry time.Duration) *Door {
	return &Door{name: name, device: device, format: format, open: open, retry: retry, line: errors.New("line is not open yet")}
}

// Name implements [Output].
func (d *Door) Name() string { return "door " + d.name }

// Run answers the panel until the context ends. A line that fails, because an
// adapter was pulled out, is opened again.
func (d *Door) Run(ctx context.Context) error {
	for {
		line, err := d.open()
		d.setLine(err)
		if err == nil {
			err = d.device.Serve(ctx, line)
			d.setLine(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(d.retry):
		}
	}
}

func (d *Door) setLine(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.line = err
}

// Tell implements [Output].
func (d *Door) Tell(_ context.Context, e Event) error {
	if e.Outcome != Accepted {
		return nil
	}
	card, err := d.format.encode(e.Tap.ID)
	if err != nil {
		return err
	}
	if err := d.Check(); err != nil {
		return err
	}
	return d.device.Present(card)
}

// Check implements [Checker]: the line is down, or nobody speaks on it.
func (d *Door) Check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.line != nil {
		return fmt.Errorf("line to the control panel is down: %w", d.line)
	}
	if !d.device.Online() {
		return osdp.ErrNoPanel
	}
	return nil
}
