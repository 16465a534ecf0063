package readerd_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/reader/policy"
	"github.com/freearea/freearea/readerd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what comes at once, on a machine that
// has other things to do.
const patience = 30 * time.Second

var morning = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC) // nine in Japan

// profile reads cards that answer everything with their ID. What a card really
// says is package reader's affair and tested there.
type profile struct{ applets.Profile }

func (profile) Name() string           { return "common-ap" }
func (profile) Traits() applets.Traits { return applets.Traits{} }
func (profile) Read(ctx context.Context, c iso7816.Card, _ applets.ReadRequest) (*applets.Reading, error) {
	id, err := c.Transmit(ctx, []byte{0})
	if err != nil {
		return nil, err
	}
	return &applets.Reading{Record: applets.Record{Service: "library", ID: string(id), IssueNumber: 1}}, nil
}

// card answers with its ID, or fails.
type card struct {
	id  string
	err error
}

func (c card) Transmit(context.Context, []byte) ([]byte, error) { return []byte(c.id), c.err }
func (card) Close() error                                       { return nil }

// source presents cards one after the other, each in a slot of its own, and
// fails when it has no more.
type source chan card

func (source) Slots(context.Context) ([]iso7816.SlotStatus, error) { return nil, nil }

func (s source) Events(ctx context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				return
			case c, ok := <-s:
				if !ok {
					yield(iso7816.Event{}, errNoMore)
					return
				}
				slot, err := json.Marshal([]string{c.id, fmt.Sprint(c.err), fmt.Sprint(n)})
				if err != nil || !yield(iso7816.Event{Kind: iso7816.CardInserted, Slot: hex.EncodeToString(slot)}, nil) {
					return
				}
			}
		}
	}
}

var errNoMore = errors.New("PC/SC service has gone")

func (source) Open(_ context.Context, slot string, _ iso7816.Mode) (iso7816.Conn, error) {
	text, err := hex.DecodeString(slot)
	if err != nil {
		return nil, err
	}
	var said []string
	if err := json.Unmarshal(text, &said); err != nil {
		return nil, err
	}
	switch said[1] {
	case "<nil>":
		return card{id: said[0]}, nil
	case iso7816.ErrCardRemoved.Error():
		return card{err: iso7816.ErrCardRemoved}, nil
	}
	return card{err: errors.New(said[1])}, nil
}

func newReader(t *testing.T) *reader.Reader {
	t.Helper()
	r, err := reader.New(reader.Options{
		Services: []reader.Service{{ID: "library", Profile: profile{}, Instance: iso7816.MustAID("F0465245454152454101")}},
		Clock:    func() time.Time { return morning },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// teller is an output that hands on what it is told.
type teller struct {
	name   string
	events chan readerd.Event
	run    func(ctx context.Context) error
	fail   error
}

func (o *teller) Name() string { return o.name }
func (o *teller) Run(ctx context.Context) error {
	if o.run == nil {
		return nil
	}
	return o.run(ctx)
}
func (o *teller) Tell(ctx context.Context, e readerd.Event) error {
	select {
	case o.events <- e:
		return o.fail
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newDaemon(t *testing.T, o readerd.Options) *readerd.Daemon {
	t.Helper()
	d, err := readerd.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestEvents: what becomes of cards, and what the person is told.
func TestEvents(t *testing.T) {
	rules, err := policy.New(policy.Options{Rules: map[string]policy.Rule{"library": {Hours: []policy.Hours{{From: 9 * time.Hour, To: 10 * time.Hour}}}}})
	if err != nil {
		t.Fatal(err)
	}
	closed, err := policy.New(policy.Options{Rules: map[string]policy.Rule{"library": {Hours: []policy.Hours{{From: 10 * time.Hour, To: 11 * time.Hour}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		policy  *policy.Policy
		card    card
		outcome readerd.Outcome
		reason  string
		sign    readerd.Sign
	}{
		{"accepted", rules, card{id: "FA-1"}, readerd.Accepted, "", readerd.SignAccepted},
		{"no policy", nil, card{id: "FA-1"}, readerd.Accepted, "", readerd.SignAccepted},
		{"refused", closed, card{id: "FA-1"}, readerd.Refused, "outside-hours", readerd.SignRefused},
		{"left too early", rules, card{err: iso7816.ErrCardRemoved}, readerd.Failed, "card-removed", readerd.SignHoldStill},
		{"anything else", rules, card{err: errors.New("noise")}, readerd.Failed, "error", readerd.SignRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			cards := make(source)
			out := &teller{name: "till", events: make(chan readerd.Event)}
			d := newDaemon(t, readerd.Options{Reader: newReader(t), Source: cards, Policy: test.policy, Outputs: []readerd.Output{out}})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- d.Run(ctx) }()
			cards <- test.card
			e := <-out.events
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
			if e.Outcome != test.outcome || e.Reason != test.reason || e.Feedback.Sign != test.sign || e.Feedback.JA == "" || e.Feedback.EN == "" {
				t.Errorf("%+v", e)
			}
			if (e.Tap != nil) != (e.Outcome != readerd.Failed) || (e.Err != nil) != (e.Outcome == readerd.Failed) {
				t.Errorf("tap %v, error %v", e.Tap, e.Err)
			}
		})
	}
}

// events is a source of these and no others.
type events struct {
	source
	said []iso7816.Event
}

func (s events) Events(context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		for _, e := range s.said {
			if !yield(e, nil) {
				return
			}
		}
		yield(iso7816.Event{}, errNoMore)
	}
}

// TestSeen: a card that lies in its slot while the daemon is started anew is
// one tap; the next one in the slot is another.
func TestSeen(t *testing.T) {
	slot := func(id string) string { return hex.EncodeToString([]byte(`["` + id + `","<nil>","0"]`)) }
	for _, test := range []struct {
		name string
		said []iso7816.Event
		want []string
	}{
		{"lies there", []iso7816.Event{
			{Kind: iso7816.SlotAdded, Slot: slot("FA-1")}, {Kind: iso7816.CardInserted, Slot: slot("FA-1")},
			{Kind: iso7816.SlotAdded, Slot: slot("FA-2")}, {Kind: iso7816.CardInserted, Slot: slot("FA-2")},
		}, []string{"FA-2"}},
		{"comes back", []iso7816.Event{
			{Kind: iso7816.CardInserted, Slot: slot("FA-1")}, {Kind: iso7816.CardRemoved, Slot: slot("FA-1")}, {Kind: iso7816.CardInserted, Slot: slot("FA-1")},
		}, []string{"FA-1"}},
		{"left meanwhile", []iso7816.Event{
			{Kind: iso7816.CardRemoved, Slot: slot("FA-1")}, {Kind: iso7816.CardInserted, Slot: slot("FA-1")},
		}, []string{"FA-1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			d := newDaemon(t, readerd.Options{
				Reader: newReader(t), Source: events{said: test.said}, Seen: []string{slot("FA-1")}, Outputs: []readerd.Output{readerd.NewLines("-", &out)},
			})
			if err := d.Run(t.Context()); !errors.Is(err, errNoMore) {
				t.Error(err)
			}
			var got []string
			for line := range strings.Lines(out.String()) {
				var e struct{ Tap struct{ ID string } }
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatal(err)
				}
				got = append(got, e.Tap.ID)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOutputsAreApart: one that fails, and one that hangs, cost the others nothing.
func TestOutputsAreApart(t *testing.T) {
	cards := make(source)
	var log bytes.Buffer
	metrics := readerd.NewMetrics()
	good := &teller{name: "good", events: make(chan readerd.Event)}
	failing := &teller{name: "failing", events: make(chan readerd.Event, 1), fail: errors.New("broker is away")}
	hanging := &teller{name: "hanging", events: make(chan readerd.Event)}
	d := newDaemon(t, readerd.Options{
		Reader: newReader(t), Source: cards, Outputs: []readerd.Output{hanging, failing, good}, Metrics: metrics,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	ended := make(chan error)
	go func() { ended <- d.Run(t.Context()) }()
	const n = 300 // more than wait for an output
	for i := range n {
		cards <- card{id: fmt.Sprintf("FA-%d", i)}
		if e := <-good.events; e.Tap.ID != fmt.Sprintf("FA-%d", i) {
			t.Fatalf("told of %s", e.Tap.ID)
		}
		<-failing.events // in step, so that none waits
	}
	close(cards)
	go func() {
		for range hanging.events {
		}
	}()
	if err := <-ended; !errors.Is(err, errNoMore) {
		t.Errorf("ended with %v", err)
	}
	close(hanging.events)
	if !strings.Contains(log.String(), "output=failing error=\"broker is away\"") {
		t.Error("the log does not say that an output failed")
	}
	page := httptest.NewRecorder()
	metrics.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`freearea_taps_total{outcome="accepted",reason="",service="library"} 300`,
		`freearea_output_events_total{output="failing",result="failed"} 300`,
		`freearea_output_events_total{output="good",result="told"} 300`,
		`freearea_output_events_total{output="hanging",result="lost"} 43`, // 300 but for 256 that wait and 1 that is being told
	} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	if strings.Contains(log.String()+page.Body.String(), "FA-") {
		t.Error("an ID stands in the log or in the metrics")
	}
}

func TestLogIDs(t *testing.T) {
	cards := make(source, 1)
	cards <- card{id: "FA-7"}
	close(cards)
	var log bytes.Buffer
	d := newDaemon(t, readerd.Options{Reader: newReader(t), Source: cards, Log: slog.New(slog.NewTextHandler(&log, nil)), LogIDs: true})
	if err := d.Run(t.Context()); !errors.Is(err, errNoMore) {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "id=FA-7") {
		t.Error(log.String())
	}
}

func TestOutputFails(t *testing.T) {
	broken := errors.New("address is taken")
	out := &teller{name: "http", run: func(context.Context) error { return broken }}
	err := newDaemon(t, readerd.Options{Reader: newReader(t), Source: make(source), Outputs: []readerd.Output{out}}).Run(t.Context())
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "http") {
		t.Errorf("ended with %v", err)
	}
	if _, err := readerd.New(readerd.Options{Outputs: []readerd.Output{out, out}}); err == nil || !strings.Contains(err.Error(), `"http"`) {
		t.Errorf("twice: %v", err)
	}
}

// TestLines: one JSON object a line, as docs/json.md has it.
func TestLines(t *testing.T) {
	cards := make(source, 2)
	cards <- card{id: "FA-7"}
	close(cards)
	var out bytes.Buffer
	d := newDaemon(t, readerd.Options{Reader: newReader(t), Source: cards, Outputs: []readerd.Output{readerd.NewLines("-", &out)}})
	if err := d.Run(t.Context()); !errors.Is(err, errNoMore) {
		t.Error(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("%v: %s", err, out.String())
	}
	delete(got, "tap")
	want := map[string]any{
		"v": 1.0, "type": "event", "outcome": "accepted", "reason": "", "warnings": []any{}, "error": nil,
		"feedback": map[string]any{"sign": "accepted", "ja": "読み取りました。カードをお取りください。", "en": "Accepted. Please take your card."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
