package batch

import (
	"time"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/provisioner"
)

// EventKind says what happened in a batch.
type EventKind string

// Kinds of events.
const (
	// Before any card, in no slot: how many rows are checked, and how many
	// consents recorded, of how many. Not each is told.
	Checking  EventKind = "checking"
	Recording EventKind = "recording"

	SlotAdded   EventKind = "slot-added"
	SlotRemoved EventKind = "slot-removed"
	CardRemoved EventKind = "card-removed"
	Presented   EventKind = "presented"  // a card was
	Matched     EventKind = "matched"    // to a row
	Progress    EventKind = "progress"   // before each step and after each command
	Done        EventKind = "issued"     // the card can be taken away
	Recognised  EventKind = "recognised" // the card has its row's content already
	Refused     EventKind = "refused"    // the card can be taken away, and got nothing or not all
	// What was revoked while the card was elsewhere is erased now, or is not:
	// the card stays in its slot, its row is next.
	Wiped    EventKind = "wiped"
	NotWiped EventKind = "not-wiped"
)

var slotEvents = map[iso7816.EventKind]EventKind{
	iso7816.SlotAdded: SlotAdded, iso7816.SlotRemoved: SlotRemoved, iso7816.CardRemoved: CardRemoved,
}

// Event is something that happened in a slot.
type Event struct {
	Kind      EventKind
	At        time.Time
	Slot      string
	Line      int // of the row, 0 while there is none
	Reference string
	Service   string               // of kinds Wiped, NotWiped, and Progress where one is erased that was revoked
	Progress  provisioner.Progress // of kind Progress; of Checking and Recording, its Commands and Total
	Row       *Entry               // of kinds Done and Refused, where there is a row
	Wipe      *Wipe                // of kinds Wiped and NotWiped
	Err       error                // of kinds Refused and NotWiped
	Totals    Totals
}

// Totals is how far a batch is.
type Totals struct {
	Rows       int
	Before     int // issued before this run
	Issued     int // in this run
	Beside     int // by another process, during this run
	Refused    int
	Unfinished int // begun, and waiting for their own cards
	Open       int // waiting for a card, or under way
	Wiped      int // revoked services that were erased from cards in this run
	NotWiped   int // and those found in this run that are still on their cards
	// PerMinute is how many cards were issued in a minute since the first one
	// was presented, and Left how long the rest will take at that; 0 before the
	// first.
	PerMinute float64
	Left      time.Duration
}

// tell tells an event, one at a time.
func (b *Batch) tell(e Event) {
	b.observing.Lock()
	defer b.observing.Unlock()
	e.At, e.Totals = b.o.Now(), b.Totals()
	b.o.Observe(e)
}

// prepared tells how far what comes before the cards is.
func (b *Batch) prepared(kind EventKind, done, total int) {
	b.tell(Event{Kind: kind, Progress: provisioner.Progress{Step: 1, Steps: 1, Name: string(kind), Commands: done, Total: total}})
}

// Totals says how far the batch is now.
func (b *Batch) Totals() Totals {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := Totals{
		Rows: len(b.rows), Before: b.count[IssuedBefore], Issued: b.count[Issued], Beside: b.count[IssuedBeside], Refused: b.count[RefusedRow],
		Unfinished: b.count[Unfinished], Open: b.count[Open] + b.count[underWay],
		Wiped: b.wiped, NotWiped: len(b.wipes) - b.wiped,
	}
	if past := b.o.Now().Sub(b.started); t.Issued > 0 && past > 0 {
		t.PerMinute = float64(t.Issued) / past.Minutes()
		t.Left = time.Duration(float64(t.Open+t.Unfinished) / t.PerMinute * float64(time.Minute))
	}
	return t
}
