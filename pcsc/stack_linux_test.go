package pcsc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/freearea/freearea/internal/pcscd"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/pcsc"
)

// limit bounds every wait of these tests; nothing waits that long unless it
// fails.
const limit = 20 * time.Second

// start starts a daemon with n readers and checks at the end of the test that
// no goroutine is left. Cards are put in after it, so that they are taken out
// before.
func start(t testing.TB, n int) (*pcscd.Daemon, *pcsc.Source) {
	t.Helper()
	if !pcsc.Built {
		pcscd.Unavailable(t, "%v", pcsc.ErrNotBuilt)
	}
	noLeaks(t)
	return pcscd.Start(t, pcscd.Options{Readers: n}), pcsc.New(pcsc.Options{})
}

func noLeaks(t testing.TB) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// events lets a test ask for one event after the other.
type events struct {
	t    testing.TB
	next func() (iso7816.Event, error, bool)
}

func watch(t testing.TB, ctx context.Context, s *pcsc.Source) *events {
	t.Helper()
	next, stop := iter.Pull2(s.Events(ctx))
	t.Cleanup(stop)
	return &events{t, next}
}

func (e *events) want(want ...iso7816.Event) {
	e.t.Helper()
	for _, w := range want {
		got, err, ok := e.next()
		if err != nil || !ok {
			e.t.Fatalf("waiting for %v at %s: %v (more: %v)", w.Kind, w.Slot, err, ok)
		}
		if diff := cmp.Diff(w, got); diff != "" {
			e.t.Fatalf("event %v (-want +got):\n%s", got.Kind, diff)
		}
	}
}

func (e *events) wantError(target error) {
	e.t.Helper()
	got, err, ok := e.next()
	if !errors.Is(err, target) {
		e.t.Fatalf("got event %+v and error %v (more: %v), want the error %v", got, err, ok, target)
	}
	if _, _, ok := e.next(); ok {
		e.t.Fatal("the sequence goes on after its error")
	}
}

// settle waits until the daemon has seen the card in each of the readers.
func settle(t testing.TB, s *pcsc.Source, readers ...*pcscd.Reader) {
	t.Helper()
	open := make(map[string]bool)
	for _, r := range readers {
		open[r.Name] = true
	}
	for e, err := range s.Events(bounded(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == iso7816.CardInserted {
			delete(open, e.Slot)
		}
		if len(open) == 0 {
			return
		}
	}
	t.Fatalf("no card seen in %v", open)
}

// settleEmpty waits until the daemon has seen that the reader is empty.
func settleEmpty(t testing.TB, s *pcsc.Source, r *pcscd.Reader) {
	t.Helper()
	for _, err := range s.Events(bounded(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if !present(t, s, r.Name) {
			return
		}
	}
	t.Fatalf("the card in %s is not seen to be removed", r.Name)
}

func present(t testing.TB, s *pcsc.Source, slot string) bool {
	t.Helper()
	list, err := s.Slots(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(s iso7816.SlotStatus) bool { return s.Slot == slot })
	return i >= 0 && list[i].CardPresent
}

func open(t testing.TB, s *pcsc.Source, slot string, mode iso7816.Mode) iso7816.Conn {
	t.Helper()
	conn, err := s.Open(bounded(t), slot, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func wantAnswer(t testing.TB, conn iso7816.Card, command, want []byte) {
	t.Helper()
	got, err := conn.Transmit(bounded(t), command)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("answer % X, want % X", got, want)
	}
}

func wantError(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("error %v, want %v", err, target)
		}
	}
}

var (
	selectSomething = []byte{0x00, 0xA4, 0x04, 0x00, 0x05, 0xF0, 0x01, 0x02, 0x03, 0x04}
	echoed          = append(append([]byte(nil), selectSomething...), 0x90, 0x00)
)

func TestSlotsAndEvents(t *testing.T) {
	d, s := start(t, 2)
	one, two := d.Readers[0], d.Readers[1]
	ctx := bounded(t)

	list, err := s.Slots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]iso7816.SlotStatus{{Slot: one.Name}, {Slot: two.Name}}, list); diff != "" {
		t.Errorf("empty slots (-want +got):\n%s", diff)
	}

	first := &naiveCard{atr: atrOne}
	first.insert(t, one)
	settle(t, s, one)

	e := watch(t, ctx, s)
	e.want(
		iso7816.Event{Kind: iso7816.SlotAdded, Slot: one.Name},
		iso7816.Event{Kind: iso7816.CardInserted, Slot: one.Name, ATR: atrOne},
		iso7816.Event{Kind: iso7816.SlotAdded, Slot: two.Name},
	)
	second := &naiveCard{atr: atrTwo}
	second.insert(t, two)
	e.want(iso7816.Event{Kind: iso7816.CardInserted, Slot: two.Name, ATR: atrTwo})
	list, err = s.Slots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]iso7816.SlotStatus{
		{Slot: one.Name, CardPresent: true, ATR: atrOne},
		{Slot: two.Name, CardPresent: true, ATR: atrTwo},
	}, list); diff != "" {
		t.Errorf("slots with cards (-want +got):\n%s", diff)
	}
	first.remove()
	e.want(iso7816.Event{Kind: iso7816.CardRemoved, Slot: one.Name})
	second.remove()
	e.want(iso7816.Event{Kind: iso7816.CardRemoved, Slot: two.Name})
	first = &naiveCard{atr: atrTwo}
	first.insert(t, one)
	e.want(iso7816.Event{Kind: iso7816.CardInserted, Slot: one.Name, ATR: atrTwo})
}

// A card that is exchanged while the caller is busy is two events, not none.
func TestExchangedWhileBusy(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	card := &naiveCard{atr: atrOne}
	card.insert(t, slot)
	settle(t, s, slot)
	busy := watch(t, bounded(t), s)
	other := watch(t, bounded(t), s)
	for _, e := range []*events{busy, other} {
		e.want(iso7816.Event{Kind: iso7816.SlotAdded, Slot: slot.Name},
			iso7816.Event{Kind: iso7816.CardInserted, Slot: slot.Name, ATR: atrOne})
	}
	// The pulled sequence stands still until its next event is asked for. The
	// pair's second slot is announced first, which is what it is busy with.
	card.remove()
	other.want(iso7816.Event{Kind: iso7816.SlotAdded, Slot: neighbour(slot)},
		iso7816.Event{Kind: iso7816.CardRemoved, Slot: slot.Name})
	again := &naiveCard{atr: atrOne}
	again.insert(t, slot)
	other.want(iso7816.Event{Kind: iso7816.CardInserted, Slot: slot.Name, ATR: atrOne})
	busy.want(iso7816.Event{Kind: iso7816.SlotAdded, Slot: neighbour(slot)},
		iso7816.Event{Kind: iso7816.CardRemoved, Slot: slot.Name},
		iso7816.Event{Kind: iso7816.CardInserted, Slot: slot.Name, ATR: atrOne})
}

// neighbour names the second slot of a pair of which only the first was asked for.
func neighbour(r *pcscd.Reader) string { return strings.TrimSuffix(r.Name, "00") + "01" }

func TestTransmit(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	card := &naiveCard{atr: atrOne}
	card.insert(t, slot)
	settle(t, s, slot)
	conn := open(t, s, slot.Name, iso7816.Shared)

	if got := conn.(iso7816.AnswerToReset).ATR(); !bytes.Equal(got, atrOne) {
		t.Errorf("ATR % X, want % X", got, atrOne)
	}
	wantAnswer(t, conn, selectSomething, echoed)
	for _, n := range []int{4, 5, 260, 4096, 65533} { // the answer takes 2 bytes more, the driver 65,535 in all
		command := bytes.Repeat([]byte{0xA5}, n)
		wantAnswer(t, conn, command, append(bytes.Clone(command), 0x90, 0x00))
	}
	for _, command := range [][]byte{nil, {}, {0}, {0, 0xA4, 4}, make([]byte, 65545)} {
		_, err := conn.Transmit(bounded(t), command)
		wantError(t, err, iso7816.ErrMalformedCommand)
	}
	if x := conn.(iso7816.ExtendedLength); x.ExtendedLength() {
		t.Error("extended length though nobody asked for it")
	}
	extended, err := pcsc.New(pcsc.Options{ExtendedLength: true}).Open(bounded(t), slot.Name, iso7816.Shared)
	if err != nil {
		t.Fatal(err)
	}
	if x := extended.(iso7816.ExtendedLength); !x.ExtendedLength() {
		t.Error("no extended length though it was asked for")
	}
	for range 2 {
		if err := extended.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err = extended.Transmit(bounded(t), selectSomething)
	wantError(t, err, pcsc.ErrClosed)
	wantAnswer(t, conn, selectSomething, echoed)
}

func TestOpenFails(t *testing.T) {
	d, s := start(t, 2)
	mute := &naiveCard{atr: atrTooLong}
	mute.insert(t, d.Readers[1])
	settle(t, s, d.Readers[1])
	for _, mode := range []iso7816.Mode{iso7816.Shared, iso7816.Exclusive} {
		_, err := s.Open(bounded(t), "No such slot 00 00", mode)
		wantError(t, err, pcsc.ErrNoSlot, pcsc.CodeUnknownReader)
		_, err = s.Open(bounded(t), d.Readers[0].Name, mode)
		wantError(t, err, iso7816.ErrCardRemoved, pcsc.CodeNoSmartcard)
		_, err = s.Open(bounded(t), d.Readers[1].Name, mode)
		wantError(t, err, pcsc.ErrMute, pcsc.CodeUnpoweredCard)
	}
}

func TestExclusiveAndShared(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	card := &naiveCard{atr: atrOne, controls: make(chan byte, 1000)}
	card.insert(t, slot)
	settle(t, s, slot)

	issuing := open(t, s, slot.Name, iso7816.Exclusive)
	for _, mode := range []iso7816.Mode{iso7816.Shared, iso7816.Exclusive} {
		_, err := s.Open(bounded(t), slot.Name, mode)
		wantError(t, err, pcsc.ErrInUse, pcsc.CodeSharingViolation)
	}
	list, err := s.Slots(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if !list[0].InUse {
		t.Errorf("%+v: not seen to be in use", list[0])
	}
	wantAnswer(t, issuing, selectSomething, echoed)
	drain(card.controls)
	issuing.Close()
	if got := drain(card.controls); !slices.Equal(got, []byte{reset}) {
		t.Errorf("closing an exclusive connection sent %v to the card, want a reset", got)
	}

	one, two := open(t, s, slot.Name, iso7816.Shared), open(t, s, slot.Name, iso7816.Shared)
	_, err = s.Open(bounded(t), slot.Name, iso7816.Exclusive)
	wantError(t, err, pcsc.ErrInUse)
	wantAnswer(t, one, selectSomething, echoed)
	wantAnswer(t, two, selectSomething, echoed)
	drain(card.controls)
	two.Close()
	wantAnswer(t, one, selectSomething, echoed)
	if got := drain(card.controls); len(got) != 0 {
		t.Errorf("closing a shared connection sent %v to the card", got)
	}
}

func drain(c chan byte) (out []byte) {
	for {
		select {
		case b := <-c:
			out = append(out, b)
		default:
			return out
		}
	}
}

func TestTransactions(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	card := &naiveCard{atr: atrOne}
	card.insert(t, slot)
	settle(t, s, slot)
	one, two := open(t, s, slot.Name, iso7816.Shared), open(t, s, slot.Name, iso7816.Shared)
	begin := func(ctx context.Context, c iso7816.Conn) error { return c.(iso7816.Transactor).Begin(ctx) }
	end := func(c iso7816.Conn) {
		t.Helper()
		if err := c.(iso7816.Transactor).End(); err != nil {
			t.Fatal(err)
		}
	}

	if err := begin(bounded(t), one); err != nil {
		t.Fatal(err)
	}
	// Another one waits in vain, as long as its context lasts; and so does who
	// wants to open the card.
	soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	wantError(t, begin(soon, two), context.DeadlineExceeded)
	soon, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Open(soon, slot.Name, iso7816.Shared)
	wantError(t, err, context.DeadlineExceeded)
	wantAnswer(t, one, selectSomething, echoed)
	end(one)

	// What the abandoned calls obtained now has been given back: the card is
	// free for a transaction of either, and for another program.
	if err := begin(bounded(t), two); err != nil {
		t.Fatal(err)
	}
	end(two)
	if err := begin(bounded(t), one); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() { waiting <- begin(bounded(t), two) }()
	end(one)
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, two, selectSomething, echoed)
	end(two)
	end(two) // nothing to end is no error
	one.Close()
	two.Close()
	// Now nobody has it: exclusive access proves that nothing is left over.
	deadline := bounded(t)
	for {
		conn, err := s.Open(deadline, slot.Name, iso7816.Exclusive)
		if err == nil {
			conn.Close()
			break
		}
		if !errors.Is(err, pcsc.ErrInUse) { // the abandoned Open gives its connection back by itself
			t.Fatal(err)
		}
	}
}

func TestReset(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	card := &naiveCard{atr: atrOne, controls: make(chan byte, 1000)}
	card.insert(t, slot)
	settle(t, s, slot)
	one, two := open(t, s, slot.Name, iso7816.Shared), open(t, s, slot.Name, iso7816.Shared)
	wantAnswer(t, one, selectSomething, echoed)
	drain(card.controls)
	if err := two.(iso7816.Resetter).Reset(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if got := drain(card.controls); !slices.Equal(got, []byte{reset}) {
		t.Errorf("the card got %v, want a reset", got)
	}
	wantAnswer(t, two, selectSomething, echoed)
	// The other one learns that its selection is lost, once.
	_, err := one.Transmit(bounded(t), selectSomething)
	wantError(t, err, pcsc.ErrReset, pcsc.CodeResetCard)
	wantAnswer(t, one, selectSomething, echoed)
	// A transaction begins with no selection anyway: a reset before it is not
	// reported.
	if err := two.(iso7816.Resetter).Reset(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := one.(iso7816.Transactor).Begin(bounded(t)); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, one, selectSomething, echoed)
	if err := one.(iso7816.Transactor).End(); err != nil {
		t.Fatal(err)
	}
}

// A card that nobody uses loses its power; the next one who opens it does not
// notice.
func TestPowerCycleAfterIdle(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	card := &naiveCard{atr: atrOne, controls: make(chan byte, 1000)}
	card.insert(t, slot)
	settle(t, s, slot)
	for range 2 {
		conn := open(t, s, slot.Name, iso7816.Shared)
		wantAnswer(t, conn, selectSomething, echoed)
		conn.Close()
		timeout := time.After(limit)
		for off := false; !off; {
			select {
			case c := <-card.controls:
				off = c == powerOff
			case <-timeout:
				t.Fatal("the card is not powered off")
			}
		}
	}
	conn := open(t, s, slot.Name, iso7816.Exclusive)
	wantAnswer(t, conn, selectSomething, echoed)
	if got := drain(card.controls); !slices.Contains(got, powerOn) {
		t.Errorf("the card got %v, want power", got)
	}
}

func TestCancelWaitingForCard(t *testing.T) {
	d, s := start(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e := watch(t, ctx, s)
	e.want(iso7816.Event{Kind: iso7816.SlotAdded, Slot: d.Readers[0].Name},
		iso7816.Event{Kind: iso7816.SlotAdded, Slot: neighbour(d.Readers[0])})
	time.AfterFunc(10*time.Millisecond, cancel)
	if got, err, ok := e.next(); ok {
		t.Fatalf("got %v, %v from a cancelled wait", got, err)
	}
}

// A silent card blocks SCardTransmit for good. The caller is free all the same,
// and so are Close and the other slot.
func TestCancelSilentCard(t *testing.T) {
	d, s := start(t, 2)
	asked := make(chan struct{}, 1)
	release := make(chan struct{})
	silent := &naiveCard{atr: atrOne, answer: func(command []byte) ([]byte, bool) {
		if command[1] != 0xCA {
			return echo(command)
		}
		asked <- struct{}{}
		<-release
		return echo(command)
	}}
	silent.insert(t, d.Readers[0])
	lively := &naiveCard{atr: atrTwo}
	lively.insert(t, d.Readers[1])
	settle(t, s, d.Readers[0], d.Readers[1])

	conn := open(t, s, d.Readers[0].Name, iso7816.Shared)
	if err := conn.(iso7816.Transactor).Begin(bounded(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-asked; cancel() }()
	_, err := conn.Transmit(ctx, []byte{0x00, 0xCA, 0x00, 0x42, 0x00})
	wantError(t, err, context.Canceled)
	if errors.Is(err, iso7816.ErrCardRemoved) {
		t.Errorf("%v: the card is not removed", err)
	}
	// Nobody gets at the card now, and nobody waits for it longer than he likes.
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = conn.Transmit(short, selectSomething)
	wantError(t, err, context.DeadlineExceeded)
	short, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err = s.Open(short, d.Readers[0].Name, iso7816.Exclusive); err == nil {
		t.Fatal("the silent card was opened exclusively")
	}
	other := open(t, s, d.Readers[1].Name, iso7816.Exclusive)
	wantAnswer(t, other, selectSomething, echoed)
	if err := conn.(iso7816.Transactor).End(); err != nil {
		t.Error(err)
	}

	// When the card speaks again the connection is free, but not to be trusted
	// before a reset.
	close(release)
	_, err = conn.Transmit(bounded(t), selectSomething)
	wantError(t, err, pcsc.ErrInterrupted)
	if err := conn.(iso7816.Resetter).Reset(bounded(t)); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, conn, selectSomething, echoed)
}

// Close does not wait for a card that never answers; what it has is given back
// when the card is pulled.
func TestCloseSilentCard(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	asked, release := make(chan struct{}, 1), make(chan struct{})
	silent := &naiveCard{atr: atrOne, answer: func([]byte) ([]byte, bool) {
		asked <- struct{}{}
		<-release
		return nil, false
	}}
	silent.insert(t, slot)
	settle(t, s, slot)
	conn := open(t, s, slot.Name, iso7816.Exclusive)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-asked; cancel() }()
	_, err := conn.Transmit(ctx, selectSomething)
	wantError(t, err, context.Canceled)
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	e := watch(t, bounded(t), s)
	e.want(iso7816.Event{Kind: iso7816.SlotAdded, Slot: slot.Name},
		iso7816.Event{Kind: iso7816.CardInserted, Slot: slot.Name, ATR: atrOne},
		iso7816.Event{Kind: iso7816.SlotAdded, Slot: neighbour(slot)})
	silent.listener.Close()
	close(release)
	e.want(iso7816.Event{Kind: iso7816.CardRemoved, Slot: slot.Name})
	// noLeaks checks that the abandoned goroutine is gone.
}

func TestTornCard(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	for _, mode := range []iso7816.Mode{iso7816.Exclusive, iso7816.Shared} {
		card := &naiveCard{atr: atrOne}
		card.answer = func(command []byte) ([]byte, bool) {
			if command[1] == 0xE8 {
				card.listener.Close()
				return nil, false
			}
			return echo(command)
		}
		card.insert(t, slot)
		settle(t, s, slot)
		conn := open(t, s, slot.Name, mode)
		if mode == iso7816.Shared {
			if err := conn.(iso7816.Transactor).Begin(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}
		wantAnswer(t, conn, selectSomething, echoed)
		// In the middle of a command: an empty answer and no error, from PC/SC.
		_, err := conn.Transmit(bounded(t), []byte{0x80, 0xE8, 0x00, 0x00, 0x01, 0xFF})
		wantError(t, err, iso7816.ErrCardRemoved)
		// And ever after.
		for range 2 {
			_, err = conn.Transmit(bounded(t), selectSomething)
			wantError(t, err, iso7816.ErrCardRemoved)
			var e *pcsc.Error
			if !errors.As(err, &e) || e.Code == 0 {
				t.Errorf("%v: without the code that PC/SC gave", err)
			}
		}
		settleEmpty(t, s, slot)
		_, err = conn.Transmit(bounded(t), selectSomething)
		wantError(t, err, iso7816.ErrCardRemoved)
		wantError(t, conn.(iso7816.Resetter).Reset(bounded(t)), iso7816.ErrCardRemoved)
		wantError(t, conn.(iso7816.Transactor).Begin(bounded(t)), iso7816.ErrCardRemoved)
		if err := conn.(iso7816.Transactor).End(); err != nil {
			t.Errorf("End after the card was removed: %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The reader's driver hands on a part of an answer as if it were whole. Fewer
// than 2 bytes are a removed card; more can't be told from an answer here,
// which is why only a MAC proves an answer.
func TestPartialFrame(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	for _, test := range []struct {
		arrives int
		removed bool
	}{{0, true}, {1, true}, {2, false}, {5, false}} {
		t.Run(fmt.Sprint(test.arrives), func(t *testing.T) {
			card := &naiveCard{atr: atrOne}
			card.frame = func(conn net.Conn, answer []byte) {
				card.listener.Close()
				conn.Write(append([]byte{0, byte(len(answer))}, answer[:test.arrives]...))
				conn.Close()
			}
			card.insert(t, slot)
			settle(t, s, slot)
			conn := open(t, s, slot.Name, iso7816.Shared)
			got, err := conn.Transmit(bounded(t), selectSomething)
			if test.removed {
				wantError(t, err, iso7816.ErrCardRemoved)
			} else if err != nil {
				t.Fatal(err)
			} else if len(got) < 2 || bytes.Equal(got, echoed) {
				t.Errorf("answer % X", got)
			}
			_, err = conn.Transmit(bounded(t), selectSomething)
			wantError(t, err, iso7816.ErrCardRemoved)
			conn.Close()
			settleEmpty(t, s, slot)
		})
	}
}

func TestDaemonGoesAway(t *testing.T) {
	for name, end := range map[string]func(*pcscd.Daemon){"ends": (*pcscd.Daemon).Stop, "dies": (*pcscd.Daemon).Kill} {
		t.Run(name, func(t *testing.T) {
			d, s := start(t, 1)
			slot := d.Readers[0]
			card := &naiveCard{atr: atrOne}
			card.insert(t, slot)
			settle(t, s, slot)
			conn := open(t, s, slot.Name, iso7816.Exclusive)
			wantAnswer(t, conn, selectSomething, echoed)
			e := watch(t, bounded(t), s)
			e.want(iso7816.Event{Kind: iso7816.SlotAdded, Slot: slot.Name},
				iso7816.Event{Kind: iso7816.CardInserted, Slot: slot.Name, ATR: atrOne},
				iso7816.Event{Kind: iso7816.SlotAdded, Slot: neighbour(slot)})
			end(d)
			e.wantError(pcsc.ErrNoService)
			_, err := conn.Transmit(bounded(t), selectSomething)
			wantError(t, err, pcsc.ErrNoService)
			if errors.Is(err, iso7816.ErrCardRemoved) {
				t.Errorf("%v: nobody removed the card", err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			_, err = s.Slots(bounded(t))
			wantError(t, err, pcsc.ErrNoService)
			_, err = s.Open(bounded(t), slot.Name, iso7816.Shared)
			wantError(t, err, pcsc.ErrNoService)
		})
	}
	t.Run("in the middle of a command", func(t *testing.T) {
		d, s := start(t, 1)
		asked, release := make(chan struct{}), make(chan struct{})
		card := &naiveCard{atr: atrOne, answer: func([]byte) ([]byte, bool) {
			close(asked)
			<-release
			return nil, false
		}}
		card.insert(t, d.Readers[0])
		t.Cleanup(func() { close(release) })
		settle(t, s, d.Readers[0])
		conn := open(t, s, d.Readers[0].Name, iso7816.Exclusive)
		go func() { <-asked; d.Kill() }()
		_, err := conn.Transmit(bounded(t), selectSomething)
		wantError(t, err, pcsc.ErrNoService)
		if errors.Is(err, iso7816.ErrCardRemoved) {
			t.Errorf("%v: nobody removed the card", err)
		}
	})
	t.Run("comes back", func(t *testing.T) {
		d, s := start(t, 1)
		card := &naiveCard{atr: atrOne}
		card.insert(t, d.Readers[0])
		settle(t, s, d.Readers[0])
		wantAnswer(t, open(t, s, d.Readers[0].Name, iso7816.Shared), selectSomething, echoed)
	})
}

// A card in another process is reached through its own address.
func TestRelay(t *testing.T) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	card := &naiveCard{atr: atrOne}
	card.serveOn(t, elsewhere)
	remove := slot.Relay(elsewhere.Addr().String())
	t.Cleanup(remove)
	settle(t, s, slot)
	conn := open(t, s, slot.Name, iso7816.Shared)
	wantAnswer(t, conn, selectSomething, echoed)
	remove()
	_, err = conn.Transmit(bounded(t), selectSomething)
	wantError(t, err, iso7816.ErrCardRemoved)
	settleEmpty(t, s, slot)
}

// Sixteen devices are what the service takes, and one more than it takes in a
// wait that also asks for the announcement of devices.
func TestSixteenReaders(t *testing.T) {
	d, s := start(t, 16)
	for i, r := range d.Readers {
		if i%5 == 0 {
			card := &naiveCard{atr: atrOne}
			card.insert(t, r)
		}
	}
	settle(t, s, d.Readers[0], d.Readers[5], d.Readers[10], d.Readers[15])
	list, err := s.Slots(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	var want []iso7816.SlotStatus
	for i, r := range d.Readers {
		st := iso7816.SlotStatus{Slot: r.Name}
		if i%5 == 0 {
			st.CardPresent, st.ATR = true, atrOne
		}
		want = append(want, st)
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
}

// A third-party client sees the same readers and gets the same answers.
func TestOpensc(t *testing.T) {
	tool, err := exec.LookPath("opensc-tool")
	if err != nil {
		pcscd.Unavailable(t, "%v", err)
	}
	d, s := start(t, 2)
	slot := d.Readers[1]
	card := &naiveCard{atr: atrOne, answer: func(command []byte) ([]byte, bool) {
		if bytes.Equal(command, selectSomething) {
			return []byte{0x6F, 0x03, 0x84, 0x01, 0x2A, 0x90, 0x00}, true
		}
		return []byte{0x6D, 0x00}, true
	}}
	card.insert(t, slot)
	settle(t, s, slot)
	ctx := bounded(t)
	cmd := exec.CommandContext(ctx, tool, "--reader", slot.Name, "--card-driver", "default",
		"--send-apdu", fmt.Sprintf("%x", selectSomething))
	cmd.Env = append(cmd.Environ(), d.Env()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	for _, want := range []string{"Received (SW1=0x90, SW2=0x00)", "6F 03 84 01 2A"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("opensc-tool did not print %q:\n%s", want, out)
		}
	}
}
