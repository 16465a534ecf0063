package emulator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"sync"

	"github.com/freearea/freearea/iso7816"
)

// Errors of Slots. A slot without a card gives an error that wraps
// [iso7816.ErrCardRemoved].
var (
	ErrNoSlot = errors.New("no such slot")
	ErrInUse  = errors.New("card in use by another program")
	// ErrSlotTaken reports a card put into a slot that has one, or a slot of a
	// name that exists.
	ErrSlotTaken = errors.New("slot is taken")
)

// Slots is a set of slots in memory: an [iso7816.Source] for tests and
// demonstrations, with the sharing rules of PC/SC. It is safe for concurrent
// use.
type Slots struct {
	mu       sync.Mutex
	slots    map[string]*inserted // nil: the slot is empty
	watchers map[*watcher]bool
}

var _ iso7816.Source = (*Slots)(nil)

// inserted is a card in a slot, from insertion to removal.
type inserted struct {
	card    iso7816.Card
	removed chan struct{} // closed on removal
	turn    chan struct{} // holds a token while somebody has the card alone

	// Under the mutex of Slots.
	shared    int
	exclusive bool
}

type watcher struct {
	pending []iso7816.Event // under the mutex of Slots
	wake    chan struct{}
}

// Powered is offered by cards that a slot can give power to and take it from.
type Powered interface {
	PowerOn()
	PowerOff()
}

// NewSlots returns empty slots.
func NewSlots(names ...string) *Slots {
	s := &Slots{slots: map[string]*inserted{}, watchers: map[*watcher]bool{}}
	for _, n := range names {
		s.slots[n] = nil
	}
	return s
}

// Add adds an empty slot. The error wraps [ErrSlotTaken] where there is one of
// that name.
func (s *Slots) Add(slot string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.slots[slot]; ok {
		return fmt.Errorf("%w: %s", ErrSlotTaken, slot)
	}
	s.slots[slot] = nil
	s.announce(iso7816.Event{Kind: iso7816.SlotAdded, Slot: slot})
	return nil
}

// Drop takes a slot away, as when a device is unplugged, and the card in it.
func (s *Slots) Drop(slot string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.slots[slot]; !ok {
		return fmt.Errorf("%w: %s", ErrNoSlot, slot)
	}
	s.eject(slot)
	delete(s.slots, slot)
	s.announce(iso7816.Event{Kind: iso7816.SlotRemoved, Slot: slot})
	return nil
}

// Insert puts a card into a slot and gives it power.
func (s *Slots) Insert(slot string, card iso7816.Card) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.slots[slot]
	switch {
	case !ok:
		return fmt.Errorf("%w: %s", ErrNoSlot, slot)
	case in != nil:
		return fmt.Errorf("%w: %s has a card", ErrSlotTaken, slot)
	}
	if p, ok := card.(Powered); ok {
		p.PowerOn()
	}
	s.slots[slot] = &inserted{card: card, removed: make(chan struct{}), turn: make(chan struct{}, 1)}
	s.announce(iso7816.Event{Kind: iso7816.CardInserted, Slot: slot, ATR: atr(card)})
	return nil
}

// Remove takes the card out of a slot; a command that it is carrying out ends
// first, but its answer is lost. An empty slot stays as it is.
func (s *Slots) Remove(slot string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.slots[slot]; !ok {
		return fmt.Errorf("%w: %s", ErrNoSlot, slot)
	}
	s.eject(slot)
	return nil
}

func (s *Slots) eject(slot string) {
	in := s.slots[slot]
	if in == nil {
		return
	}
	close(in.removed)
	s.slots[slot] = nil
	if p, ok := in.card.(Powered); ok {
		p.PowerOff()
	}
	s.announce(iso7816.Event{Kind: iso7816.CardRemoved, Slot: slot})
}

func (s *Slots) announce(e iso7816.Event) {
	for w := range s.watchers {
		w.pending = append(w.pending, e)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Slots lists the slots, sorted by name.
func (s *Slots) Slots(ctx context.Context) ([]iso7816.SlotStatus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []iso7816.SlotStatus
	for _, name := range s.names() {
		status := iso7816.SlotStatus{Slot: name}
		if in := s.slots[name]; in != nil {
			status.CardPresent, status.ATR, status.InUse = true, atr(in.card), in.exclusive
		}
		out = append(out, status)
	}
	return out, nil
}

func (s *Slots) names() []string {
	var out []string
	for name := range s.slots {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// Events yields what is there and then every change, until the context ends.
func (s *Slots) Events(ctx context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		w := &watcher{wake: make(chan struct{}, 1)}
		s.mu.Lock()
		for _, name := range s.names() {
			w.pending = append(w.pending, iso7816.Event{Kind: iso7816.SlotAdded, Slot: name})
			if in := s.slots[name]; in != nil {
				w.pending = append(w.pending, iso7816.Event{Kind: iso7816.CardInserted, Slot: name, ATR: atr(in.card)})
			}
		}
		s.watchers[w] = true
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			delete(s.watchers, w)
			s.mu.Unlock()
		}()
		for {
			s.mu.Lock()
			events := w.pending
			w.pending = nil
			s.mu.Unlock()
			for _, e := range events {
				if ctx.Err() != nil || !yield(e, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
		}
	}
}

// Open connects to the card in a slot. The errors wrap [ErrNoSlot],
// [iso7816.ErrCardRemoved] for an empty slot, and [ErrInUse] where somebody
// holds the card in a mode that doesn't go with this one.
//
// The connection offers [iso7816.AnswerToReset], [iso7816.Resetter],
// [iso7816.Transactor] and [iso7816.ExtendedLength]. Closing an exclusive one
// resets the card.
func (s *Slots) Open(ctx context.Context, slot string, mode iso7816.Mode) (iso7816.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.slots[slot]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %s", ErrNoSlot, slot)
	case in == nil:
		return nil, fmt.Errorf("%s: %w: the slot is empty", slot, iso7816.ErrCardRemoved)
	case in.exclusive || mode == iso7816.Exclusive && in.shared > 0:
		return nil, fmt.Errorf("%s: %w", slot, ErrInUse)
	}
	if mode == iso7816.Exclusive {
		in.exclusive = true
	} else {
		in.shared++
	}
	return &slotConn{slots: s, in: in, mode: mode}, nil
}

// slotConn is an open connection. Like one of PC/SC it belongs to one caller,
// who may close it while a command waits.
type slotConn struct {
	slots *Slots
	in    *inserted
	mode  iso7816.Mode

	mu     sync.Mutex
	alone  bool // inside Begin and End
	closed bool
}

var errConnClosed = errors.New("connection to the card is closed")

// use runs f while nobody else uses the card.
func (c *slotConn) use(ctx context.Context, f func() error) error {
	c.mu.Lock()
	alone, closed := c.alone, c.closed
	c.mu.Unlock()
	if closed {
		return errConnClosed
	}
	if !alone {
		if err := c.acquire(ctx); err != nil {
			return err
		}
		defer c.release()
	}
	if c.gone() {
		return removed()
	}
	err := f()
	if c.gone() {
		return removed() // whatever came back: nobody can have seen it
	}
	return err
}

func (c *slotConn) gone() bool {
	select {
	case <-c.in.removed:
		return true
	default:
		return false
	}
}

func removed() error { return fmt.Errorf("%w from its slot", iso7816.ErrCardRemoved) }

func (c *slotConn) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.gone() {
		return removed()
	}
	select {
	case c.in.turn <- struct{}{}:
		return nil
	case <-c.in.removed:
		return removed()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *slotConn) release() { <-c.in.turn }

func (c *slotConn) Transmit(ctx context.Context, command []byte) (response []byte, err error) {
	err = c.use(ctx, func() error {
		var err error
		response, err = c.in.card.Transmit(ctx, command)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// Reset resets the card, for everybody who is connected to it.
func (c *slotConn) Reset(ctx context.Context) error {
	return c.use(ctx, func() error {
		if r, ok := c.in.card.(iso7816.Resetter); ok {
			return r.Reset(ctx)
		}
		return nil
	})
}

// Begin waits until nobody else has the card alone.
func (c *slotConn) Begin(ctx context.Context) error {
	c.mu.Lock()
	alone, closed := c.alone, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return errConnClosed
	case alone:
		return errors.New("transaction has begun already")
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.alone = true
	closed = c.closed
	c.mu.Unlock()
	if closed {
		_ = c.End()
		return errConnClosed
	}
	return nil
}

// End gives the card back.
func (c *slotConn) End() error {
	c.mu.Lock()
	alone := c.alone
	c.alone = false
	c.mu.Unlock()
	if !alone {
		return errors.New("no transaction has begun")
	}
	c.release()
	return nil
}

func (c *slotConn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return nil
	}
	if r, ok := c.in.card.(iso7816.Resetter); ok && c.mode == iso7816.Exclusive && !c.gone() {
		_ = r.Reset(context.Background()) // a card that can't be reset is gone, or will say so itself
	}
	c.mu.Lock()
	alone := c.alone
	c.mu.Unlock()
	if alone {
		_ = c.End()
	}
	c.slots.mu.Lock()
	defer c.slots.mu.Unlock()
	if c.mode == iso7816.Exclusive {
		c.in.exclusive = false
	} else {
		c.in.shared--
	}
	return nil
}

func (c *slotConn) ATR() []byte { return atr(c.in.card) }

func (c *slotConn) ExtendedLength() bool {
	x, ok := c.in.card.(iso7816.ExtendedLength)
	return ok && x.ExtendedLength()
}

func atr(card iso7816.Card) []byte {
	if a, ok := card.(iso7816.AnswerToReset); ok {
		return slices.Clone(a.ATR())
	}
	return nil
}
