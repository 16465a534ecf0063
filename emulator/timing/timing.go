// Package timing computes how long a tap takes where the emulator can't tell:
// on the way between a terminal and a physical card, and inside the card. It
// counts, it does not wait: what goes over the link is taken apart into the
// frames of ISO/IEC 14443 ([TypeB]) or the characters of ISO/IEC 7816-3
// ([Contact]), and what the card executes is counted by operations ([Counter])
// which a [Chip] has prices for. The same tap costs the same every time.
//
// Every constant names its source: a clause of a standard, or a published
// measurement. What has neither is marked "assumed", here and where a result
// that rests on it is shown. The model has no radio: no bit is lost, no frame
// is sent twice. Time that a terminal takes to hand a command to its reader
// chip is not in it either; that is the host's share, and can be measured.
package timing

import (
	"context"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// Link is the way to a card.
type Link interface {
	// Exchange returns how long the link is in use for one command, its
	// response, and whatever must pass before the next command, where the card
	// takes busy to compute the response. busy itself is not in the result; what
	// it makes necessary is (requests for more time).
	Exchange(command, response []byte, busy time.Duration) time.Duration
}

// Step is one command of a tap.
type Step struct {
	Command, Response []byte
	Work              Work
}

// Meter is a card of which it is recorded what goes to and from it, and what
// it executes. It is for one goroutine.
type Meter struct {
	card    iso7816.Card
	counter *Counter
	steps   []Step
}

// writeCounter is what a card offers that counts its persistent writes
// (emulator.Card does).
type writeCounter interface {
	CountWrites()
	Writes() []int
}

// NewMeter returns a meter over a card. What the card executes is written to
// the counter by its machine; nil counts nothing.
func NewMeter(card iso7816.Card, counter *Counter) *Meter {
	return &Meter{card: card, counter: counter}
}

// Transmit implements [iso7816.Card].
func (m *Meter) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	writes, counted := m.card.(writeCounter)
	if counted {
		writes.CountWrites()
	}
	if m.counter != nil {
		m.counter.Take()
	}
	response, err := m.card.Transmit(ctx, command)
	if err != nil {
		return nil, err
	}
	s := Step{Command: append([]byte(nil), command...), Response: append([]byte(nil), response...)}
	if m.counter != nil {
		s.Work = m.counter.Take()
	}
	if counted {
		for _, n := range writes.Writes() {
			s.Work.Calls[Write] += n
		}
	}
	m.steps = append(m.steps, s)
	return response, nil
}

// ExtendedLength implements [iso7816.ExtendedLength].
func (m *Meter) ExtendedLength() bool {
	x, ok := m.card.(iso7816.ExtendedLength)
	return ok && x.ExtendedLength()
}

// Take returns the steps since it was last called.
func (m *Meter) Take() []Step {
	s := m.steps
	m.steps = nil
	return s
}

// Cost is what steps cost in all.
type Cost struct {
	Commands int
	Bytes    int // of command and response APDUs
	Link     time.Duration
	Card     time.Duration
}

// Total is the time of link and card.
func (c Cost) Total() time.Duration { return c.Link + c.Card }

// Sum prices steps on a link with a chip. What comes before the first command
// ([TypeB.Activation], [Contact.Activation]) is not in it.
func Sum(steps []Step, link Link, chip Chip) Cost {
	c := Cost{Commands: len(steps)}
	for _, s := range steps {
		busy := chip.Time(s.Work)
		c.Bytes += len(s.Command) + len(s.Response)
		c.Card += busy
		c.Link += link.Exchange(s.Command, s.Response, busy)
	}
	return c
}
