package batch_test

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freearea/freearea/batch"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
)

// perByte is how long a byte takes to a card and from it at the lowest rate of
// ISO/IEC 14443-3, 106 kbit/s, at which every card answers: 1 etu is 128 periods
// of 13.56 MHz, and a character of type B has 10 etu (7.1.1, without extra guard
// time). Frames, the card's computing and its writes to memory come on top with
// a physical card: what is measured beside the card weighs more here than there.
const perByte = 10 * 128 * time.Second / 13_560_000

// line is a card at the end of a line of that speed.
type line struct{ *emulator.Card }

func (l line) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := l.Card.Transmit(ctx, command)
	time.Sleep(time.Duration(len(command)+len(response)) * perByte)
	return response, err
}

// timed is a ledger that measures how long it is waited for. It has every method
// by itself, so that none is forgotten.
type timed struct {
	book  *ledger.Ledger
	total atomic.Int64
}

func (t *timed) measure() func() {
	begin := time.Now()
	return func() { t.total.Add(int64(time.Since(begin))) }
}

// No card waits for these two: the batch asks them beside.

func (t *timed) Events(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Event, error] {
	return t.book.Events(ctx, f)
}

func (t *timed) Last(ctx context.Context) (int64, error) { return t.book.Last(ctx) }

func (t *timed) ReservedID(ctx context.Context, service, consent string) (string, bool, error) {
	defer t.measure()()
	return t.book.ReservedID(ctx, service, consent)
}

func (t *timed) ActiveIssue(ctx context.Context, service string, card ledger.CardRef) (ledger.Issued, bool, error) {
	defer t.measure()()
	return t.book.ActiveIssue(ctx, service, card)
}

func (t *timed) KeptKey(ctx context.Context, service string, card ledger.CardRef) (ledger.KeyKept, bool, error) {
	defer t.measure()()
	return t.book.KeptKey(ctx, service, card)
}

func (t *timed) AIDOwner(ctx context.Context, aid iso7816.AID) (string, bool, error) {
	defer t.measure()()
	return t.book.AIDOwner(ctx, aid)
}

func (t *timed) ReserveID(ctx context.Context, r ledger.Reservation) (string, bool, error) {
	defer t.measure()()
	return t.book.ReserveID(ctx, r)
}

func (t *timed) Append(ctx context.Context, events ...ledger.Event) (int64, error) {
	defer t.measure()()
	return t.book.Append(ctx, events...)
}

func (t *timed) Consent(ctx context.Context, id string) (ledger.Consent, error) {
	defer t.measure()()
	return t.book.Consent(ctx, id)
}

func (t *timed) IssueNumber(ctx context.Context, service string, card ledger.CardRef) (uint16, error) {
	defer t.measure()()
	return t.book.IssueNumber(ctx, service, card)
}

func (t *timed) IssuesOn(ctx context.Context, card ledger.CardRef) ([]ledger.CardIssue, error) {
	defer t.measure()()
	return t.book.IssuesOn(ctx, card)
}

func (t *timed) IsSuspended(ctx context.Context, service string, card ledger.CardRef) (bool, error) {
	defer t.measure()()
	return t.book.IsSuspended(ctx, service, card)
}

func (t *timed) Services(ctx context.Context, card ledger.CardRef) ([]ledger.ServiceState, error) {
	defer t.measure()()
	return t.book.Services(ctx, card)
}

func (t *timed) Replaced(ctx context.Context, old, card ledger.CardRef) (bool, error) {
	defer t.measure()()
	return t.book.Replaced(ctx, old, card)
}

func (t *timed) WasReplaced(ctx context.Context, card ledger.CardRef) (bool, error) {
	defer t.measure()()
	return t.book.WasReplaced(ctx, card)
}

func (t *timed) PassedOn(ctx context.Context, consent string) (bool, error) {
	defer t.measure()()
	return t.book.PassedOn(ctx, consent)
}

func (t *timed) UnfinishedRuns(ctx context.Context, card ledger.CardRef) ([]ledger.Run, error) {
	defer t.measure()()
	return t.book.UnfinishedRuns(ctx, card)
}

func (t *timed) FailedAuthentications(ctx context.Context, card ledger.CardRef, target iso7816.AID) (int, error) {
	defer t.measure()()
	return t.book.FailedAuthentications(ctx, card, target)
}

func (t *timed) IDOwner(ctx context.Context, service, id string) (string, error) {
	defer t.measure()()
	return t.book.IDOwner(ctx, service, id)
}

// stay are slots whose cards nobody changes.
type stay struct{ iso7816.Source }

// Events yields each slot's card once.
func (s stay) Events(ctx context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		there, err := s.Slots(ctx)
		for _, x := range there {
			if !yield(iso7816.Event{Kind: iso7816.CardInserted, Slot: x.Slot}, err) {
				return
			}
		}
	}
}

// BenchmarkSlots issues one card in each slot, with the ledger on the disk, and
// tells cards per minute, as a multiple of what one slot does in the same run,
// and the part of a card's time that the ledger takes.
func BenchmarkSlots(b *testing.B) {
	one := 0.0
	for _, n := range []int{1, 2, 4, 8, 14} {
		b.Run(fmt.Sprintf("slots=%d", n), func(b *testing.B) {
			kept := directory
			directory = b.TempDir() // the disk, not memory
			defer func() { directory = kept }()
			cards, inLedger, inCards := 0, int64(0), time.Duration(0)
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				o := newOffice(b, n)
				for i := range n {
					o.insert(i, line{o.card()})
				}
				book := &timed{book: o.book}
				x := o.options(points, book)
				x.Source = stay{o.slots}
				list, err := batch.Parse("x.csv", []byte(o.list(n)), points, "")
				check(b, err)
				batches, err := batch.New(b.Context(), list, x)
				check(b, err)
				b.StartTimer()
				begin := time.Now()
				book.total.Store(0)
				check(b, batches.Run(b.Context()))
				inCards += time.Since(begin) * time.Duration(n)
				inLedger += book.total.Load()
				if t := batches.Totals(); t.Issued != n {
					b.Fatalf("%+v", t)
				}
				cards += n
			}
			rate := float64(cards) / b.Elapsed().Minutes()
			if n == 1 {
				one = rate
			}
			b.ReportMetric(rate, "cards/min")
			if one > 0 {
				b.ReportMetric(rate/one, "x-one-slot")
			}
			b.ReportMetric(100*float64(inLedger)/float64(inCards), "%-in-ledger")
		})
	}
}
