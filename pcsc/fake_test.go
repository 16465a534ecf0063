package pcsc

import (
	stdcmp "cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/freearea/freearea/iso7816"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLibrary is a PC/SC service in memory, for what the real one here can't
// be brought to do: other systems' ways, panics, and calls that never return.
type fakeLibrary struct {
	maxStates int // as the service's own limit; 0 is none
	pnp       bool

	mu       sync.Mutex
	fail     error         // of establish
	block    chan struct{} // establish and connect return when it is closed
	slots    map[string]slotState
	changed  chan struct{}
	sessions int // open ones
	handles  int
	gone     []string
	silent   chan struct{} // transmit returns when it is closed
}

func newFake() *fakeLibrary {
	return &fakeLibrary{slots: make(map[string]slotState), changed: make(chan struct{})}
}

func (l *fakeLibrary) set(name string, flags stateFlags, count int, atr ...byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if flags == 0 {
		delete(l.slots, name)
	} else {
		l.slots[name] = slotState{name: name, flags: flags | stateFlags(count)<<16, atr: atr}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeLibrary) open() (sessions, handles int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions, l.handles
}

func (l *fakeLibrary) establish() (session, error) {
	l.mu.Lock()
	block := l.block
	l.mu.Unlock()
	if block != nil {
		<-block
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	l.sessions++
	return &fakeSession{l}, nil
}

type fakeSession struct{ *fakeLibrary }

func (s *fakeSession) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions--
	return nil
}

func (s *fakeSession) readers() (out []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	for name := range s.slots {
		out = append(out, name)
	}
	out = append(out, s.gone...) // listed once more, though they have gone
	s.gone = nil
	return out, nil
}

func (s *fakeSession) wait(states []slotState, timeout time.Duration) error {
	if s.maxStates > 0 && len(states) > s.maxStates {
		return CodeInvalidParameter
	}
	after := time.NewTimer(timeout)
	defer after.Stop()
	for {
		s.mu.Lock()
		different, changed, fail := false, s.changed, s.fail
		now := slices.Clone(states)
		for i, st := range states {
			cur, ok := s.slots[st.name]
			switch {
			case st.name == pnpReader && s.pnp:
				continue
			case !ok:
				s.mu.Unlock()
				return CodeUnknownReader
			case cur.flags != st.flags:
				different = true
			}
			now[i] = cur
		}
		s.mu.Unlock()
		if fail != nil {
			return fail
		}
		if different {
			copy(states, now)
			return nil
		}
		select {
		case <-changed:
		case <-after.C:
			return CodeTimeout
		}
	}
}

func (s *fakeSession) connect(slot string, exclusive bool) (handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.slots[slot]; !ok || !st.has(statePresent) {
		return nil, CodeNoSmartcard
	}
	s.handles++
	return &fakeHandle{l: s.fakeLibrary}, nil
}

type fakeHandle struct{ l *fakeLibrary }

func (h *fakeHandle) atr() ([]byte, error)                  { return []byte{0x3B, 0x00}, nil }
func (h *fakeHandle) begin() error                          { return nil }
func (h *fakeHandle) end() error                            { return nil }
func (h *fakeHandle) reconnect(exclusive, reset bool) error { return nil }
func (h *fakeHandle) transmit(c []byte) ([]byte, error) {
	if h.l.silent != nil {
		<-h.l.silent
	}
	return append(slices.Clone(c), 0x90, 0x00), nil
}
func (h *fakeHandle) disconnect(reset bool) error {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	h.l.handles--
	return nil
}

func fakeSource(l *fakeLibrary, p platform) *Source {
	return &Source{lib: l, platform: p, installed: func() bool { return true }}
}

// inBubble runs a subtest in which time passes only when everybody waits, and
// at whose end the wait that a watch has abandoned runs out.
func inBubble(t *testing.T, name string, f func(*testing.T)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			defer time.Sleep(waitStep)
			f(t)
		})
	})
}

// collect takes events off a source until there are n.
func collect(t *testing.T, s *Source, n int, change func(i int)) (out []iso7816.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for e, err := range s.Events(ctx) {
		if err != nil {
			t.Fatalf("after %v: %v", out, err)
		}
		out = append(out, e)
		if len(out) == n {
			return out
		}
		change(len(out))
	}
	t.Fatalf("only %v came", out)
	return nil
}

func TestWatchOnEverySystem(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		inBubble(t, goos, func(t *testing.T) {
			p := platformOf(goos)
			l := newFake()
			l.pnp, l.maxStates = p.pnp, p.maxStates
			// As many devices as the service takes: one more state is an error.
			var want []iso7816.Event
			for i := range p.maxStates {
				name := "Device " + string(rune('A'+i))
				l.set(name, stateEmpty, 0)
				want = append(want, iso7816.Event{Kind: iso7816.SlotAdded, Slot: name})
			}
			want = append(want,
				iso7816.Event{Kind: iso7816.CardInserted, Slot: "Device B", ATR: []byte{0x3B, 1}},
				iso7816.Event{Kind: iso7816.CardRemoved, Slot: "Device B"},
				iso7816.Event{Kind: iso7816.CardInserted, Slot: "Device B", ATR: []byte{0x3B, 1}},
				iso7816.Event{Kind: iso7816.CardRemoved, Slot: "Device B"},
				iso7816.Event{Kind: iso7816.SlotRemoved, Slot: "Device B"},
				iso7816.Event{Kind: iso7816.SlotAdded, Slot: "Device B"},
				iso7816.Event{Kind: iso7816.CardInserted, Slot: "Device B", ATR: []byte{0x3B, 2}},
			)
			n := p.maxStates
			got := collect(t, fakeSource(l, p), len(want), func(i int) {
				switch i {
				case n:
					l.set("Device B", statePresent, 1, 0x3B, 1)
				case n + 1: // exchanged for one that looks the same
					l.set("Device B", statePresent, 3, 0x3B, 1)
				case n + 3: // torn off, still in the next list
					l.mu.Lock()
					l.gone = []string{"Device B"}
					l.mu.Unlock()
					l.set("Device B", 0, 0)
				case n + 5:
					l.set("Device B", statePresent, 1, 0x3B, 2)
				}
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// Without any device, macOS has nothing that one could wait for, and Windows
// stops the service.
func TestWatchFromNothing(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		inBubble(t, goos, func(t *testing.T) {
			l := newFake()
			l.pnp = platformOf(goos).pnp
			if goos == "windows" {
				l.fail = CodeNoService
			}
			s := fakeSource(l, platformOf(goos))
			if list, err := s.Slots(t.Context()); err != nil || len(list) != 0 {
				t.Fatalf("slots %v, error %v", list, err)
			}
			time.AfterFunc(20*time.Millisecond, func() {
				l.mu.Lock()
				l.fail = nil
				l.mu.Unlock()
				l.set("Device", stateEmpty, 0)
			})
			got := collect(t, s, 1, nil)
			if diff := cmp.Diff([]iso7816.Event{{Kind: iso7816.SlotAdded, Slot: "Device"}}, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWatchEndsWithTheService(t *testing.T) {
	l := newFake()
	l.pnp = true
	l.set("Device", stateEmpty, 0)
	s := fakeSource(l, platformOf("linux"))
	var errs []error
	for _, err := range s.Events(t.Context()) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.mu.Lock()
		l.fail = CodeSecurityViolation // what pcsc-lite says of a connection that broke off
		l.mu.Unlock()
		l.set("Device", stateEmpty, 1)
	}
	if len(errs) != 1 || !errors.Is(errs[0], ErrNoService) || errors.Is(errs[0], ErrRefused) {
		t.Errorf("errors %v, want one ErrNoService", errs)
	}
}

// A cancelled wait ends at once, though the library's goes on; and what an
// abandoned call obtains later is given back.
func TestAbandonedCallsGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		l.set("Device", statePresent, 1, 0x3B, 0)
		l.block = make(chan struct{})
		s := fakeSource(l, platformOf("linux"))
		var errEvents error
		for name, call := range map[string]func(context.Context) error{
			"open":  func(ctx context.Context) error { _, err := s.Open(ctx, "Device", iso7816.Shared); return err },
			"slots": func(ctx context.Context) error { _, err := s.Slots(ctx); return err },
			"events": func(ctx context.Context) error {
				for _, errEvents = range s.Events(ctx) {
				}
				return stdcmp.Or(errEvents, ctx.Err())
			},
			"diagnose": func(ctx context.Context) error { return s.Diagnose(ctx)[0].Err },
		} {
			const patience = 7 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			begin := time.Now()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(begin); took != patience {
				t.Errorf("%s took %v, the context %v", name, took, patience)
			}
			cancel()
		}
		begin := time.Now()
		if f := s.Diagnose(t.Context()); len(f) != 1 || !errors.Is(f[0].Err, context.DeadlineExceeded) {
			t.Errorf("findings %v", f)
		}
		if took := time.Since(begin); took != diagnoseLimit {
			t.Errorf("a stuck service takes %v to be found", took)
		}
		close(l.block)
		synctest.Wait()
		if sessions, handles := l.open(); sessions != 0 || handles != 0 {
			t.Errorf("%d sessions and %d connections are left over", sessions, handles)
		}
	})
}

// A wait that lasts inside the library does not delay the end of a watch.
func TestCancelledWatch(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		inBubble(t, goos, func(t *testing.T) {
			l := newFake()
			l.pnp = platformOf(goos).pnp
			l.set("Device", stateEmpty, 0)
			const patience = 777 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			begin := time.Now()
			n := 0
			for _, err := range fakeSource(l, platformOf(goos)).Events(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if took := time.Since(begin); took != patience || n != 1 {
				t.Errorf("%d events in %v, want 1 in %v", n, took, patience)
			}
		})
	}
}

// A card that stays silent holds nobody: neither its caller, nor Close.
func TestSilentCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		l.set("Device", statePresent, 1, 0x3B, 0)
		l.silent = make(chan struct{})
		conn, err := fakeSource(l, platformOf("linux")).Open(t.Context(), "Device", iso7816.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(iso7816.Transactor).Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := conn.Transmit(ctx, []byte{0, 0xA4, 4, 0}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("transmit: %v", err)
		}
		if err := conn.(iso7816.Transactor).End(); err != nil {
			t.Errorf("end: %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(begin); took != time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if _, handles := l.open(); handles != 1 {
			t.Error("the connection was given back while the library was inside a call on it")
		}
		close(l.silent)
		synctest.Wait()
		if sessions, handles := l.open(); sessions != 0 || handles != 0 {
			t.Errorf("%d sessions and %d connections are left over", sessions, handles)
		}
	})
}

func TestCloseGivesBack(t *testing.T) {
	l := newFake()
	l.set("Device", statePresent, 1, 0x3B, 0)
	s := fakeSource(l, platformOf("linux"))
	conn, err := s.Open(t.Context(), "Device", iso7816.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	conn.Close()
	if sessions, handles := l.open(); sessions != 0 || handles != 0 {
		t.Errorf("%d sessions and %d connections are left over", sessions, handles)
	}
}

func TestClasses(t *testing.T) {
	classes := []error{iso7816.ErrCardRemoved, ErrNoService, ErrRefused, ErrNoSlot, ErrInUse, ErrMute, ErrReset, ErrProtocol}
	for _, test := range []struct {
		code       Code
		open, card error
	}{
		{CodeNoSmartcard, iso7816.ErrCardRemoved, iso7816.ErrCardRemoved},
		{CodeRemovedCard, iso7816.ErrCardRemoved, iso7816.ErrCardRemoved},
		{CodeNotTransacted, nil, iso7816.ErrCardRemoved},
		{CodeCommError, ErrNoService, iso7816.ErrCardRemoved},
		{CodeReaderUnavailable, ErrNoSlot, iso7816.ErrCardRemoved},
		{CodeUnresponsiveCard, ErrMute, iso7816.ErrCardRemoved},
		{CodeUnpoweredCard, ErrMute, iso7816.ErrCardRemoved},
		{CodeSharingViolation, ErrInUse, ErrInUse},
		{CodeResetCard, ErrReset, ErrReset},
		{CodeNoService, ErrNoService, ErrNoService},
		{CodeSecurityViolation, ErrRefused, ErrNoService},
		{CodeProtoMismatch, ErrProtocol, ErrProtocol},
		{CodeInsufficientBuffer, nil, nil},
		{0x80109999, nil, nil},
	} {
		for name, want := range map[string]error{"open": test.open, "transmit": test.card} {
			class := classify
			if name == "transmit" {
				class = classifyCard
			}
			err := opError(name, "Device", test.code, class)
			if !errors.Is(err, test.code) {
				t.Errorf("%v: the code is not found", err)
			}
			for _, c := range classes {
				if got := errors.Is(err, c); got != (c == want) {
					t.Errorf("%v is %v: %v", err, c, got)
				}
			}
			if text := err.Error(); !strings.HasPrefix(text, `pcsc: `+name+` "Device": `) {
				t.Errorf("text %q", text)
			}
		}
	}
}

func TestDiagnoseStates(t *testing.T) {
	l := newFake()
	l.set("1", stateEmpty, 0)
	l.set("2", statePresent, 1, 0x3B, 0x01)
	l.set("3", statePresent|stateMute, 1)
	l.set("4", statePresent|stateExclusive, 1, 0x3B, 0x01)
	l.set("5", statePresent|stateInUse, 1, 0x3B, 0xAB)
	l.set("6", stateUnavailable, 0)
	want := []Finding{
		{Code: FindingNoCard, Slot: "1"},
		{Code: FindingReady, Slot: "2", Details: map[string]string{"atr": "3B01"}},
		{Code: FindingMute, Slot: "3"},
		{Code: FindingInUse, Slot: "4"},
		{Code: FindingReady, Slot: "5", Details: map[string]string{"atr": "3BAB"}},
		{Code: FindingSlotFailed, Slot: "6"},
	}
	if diff := cmp.Diff(want, fakeSource(l, platformOf("linux")).Diagnose(t.Context())); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestDiagnoseService(t *testing.T) {
	absent := t.TempDir() + "/pcscd.comm"
	for _, test := range []struct {
		name      string
		goos      string
		err       error
		installed bool
		want      FindingCode
	}{
		{"not built", "linux", ErrNotBuilt, true, FindingNotBuilt},
		{"not installed", "linux", CodeNoService, false, FindingNotInstalled},
		{"not running", "linux", CodeNoService, true, FindingNotRunning},
		{"Windows without a device", "windows", CodeNoService, true, FindingNoSlot},
		{"Windows refuses", "windows", CodeNoAccess, true, FindingRefused},
		{"macOS not running", "darwin", CodeNoService, true, FindingNotRunning},
		{"macOS fails", "darwin", CodeInternalError, true, FindingServiceFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PCSCLITE_CSOCK_NAME", absent)
			l := newFake()
			l.fail = test.err
			s := fakeSource(l, platformOf(test.goos))
			s.installed = func() bool { return test.installed }
			got := s.Diagnose(t.Context())
			if len(got) != 1 || got[0].Code != test.want || !errors.Is(got[0].Err, test.err) {
				t.Errorf("findings %+v, want %s", got, test.want)
			}
		})
	}
}

// BenchmarkOverhead is what this package adds to a command: a goroutine that
// can be abandoned, and two copies.
func BenchmarkOverhead(b *testing.B) {
	l := newFake()
	l.set("Device", statePresent, 1, 0x3B, 0)
	conn, err := fakeSource(l, platformOf("linux")).Open(b.Context(), "Device", iso7816.Shared)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	command := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Transmit(b.Context(), command); err != nil {
			b.Fatal(err)
		}
	}
}
