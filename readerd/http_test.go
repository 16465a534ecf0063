package readerd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/readerd"
)

const address = "127.0.0.1:8470"

func newHTTP(t *testing.T, o readerd.HTTPOptions) *readerd.HTTP {
	t.Helper()
	if o.Listen == "" {
		o.Listen = address
	}
	h, err := readerd.NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func tell(t *testing.T, o readerd.Output, id string) {
	t.Helper()
	tellEvent(t, o, readerd.Event{Outcome: readerd.Accepted, Tap: &reader.Tap{TapID: "tap of " + id, Service: "library", ID: id, At: morning}})
}

func tellEvent(t *testing.T, o readerd.Output, e readerd.Event) {
	t.Helper()
	if err := o.Tell(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// get asks with header lines of the form "name: value".
func get(h http.Handler, path string, header ...string) *http.Response {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Method" {
			r.Method = value
		} else if name == "Host" {
			r.Host = value
		} else {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// TestWhoMayAsk: programs, pages that are named, and nobody else.
func TestWhoMayAsk(t *testing.T) {
	h := newHTTP(t, readerd.HTTPOptions{Origins: []string{"https://till.example"}})
	tell(t, h, "FA-1")
	for _, test := range []struct {
		name   string
		header []string
		status int
	}{
		{"a program", nil, 200},
		{"by the name localhost", []string{"Host: localhost:8470"}, 200},
		{"by any loopback address", []string{"Host: [::1]:8470"}, 200},
		{"the till", []string{"Origin: https://till.example", "Sec-Fetch-Site: cross-site"}, 200},
		{"the till in clear", []string{"Origin: http://till.example"}, 403},
		{"a longer name", []string{"Origin: https://till.example.evil.example"}, 403},
		{"another page", []string{"Origin: https://evil.example"}, 403},
		{"a file or a frame in a sandbox", []string{"Origin: null"}, 403},
		{"an origin beside its own", []string{"Origin: http://127.0.0.1:8470"}, 403},
		{"an image or script of another page", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"a page of the same site", []string{"Sec-Fetch-Site: same-site"}, 403},
		{"typed into the browser", []string{"Sec-Fetch-Site: none"}, 200},
		{"a page whose name was bound to loopback", []string{"Host: evil.example:8470"}, 421},
		{"another port", []string{"Host: 127.0.0.1:80"}, 421},
		{"no port", []string{"Host: localhost"}, 421},
		{"preflight of the till", []string{"Method: OPTIONS", "Origin: https://till.example"}, 204},
		{"preflight of nobody", []string{"Method: OPTIONS"}, 405},
		{"preflight of another page", []string{"Method: OPTIONS", "Origin: https://evil.example"}, 403},
		{"POST", []string{"Method: POST"}, 405},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := get(h.Handler(), "/v1/events/last", test.header...)
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != test.status {
				t.Errorf("status %d, want %d", r.StatusCode, test.status)
			}
			if got := strings.Contains(string(body), "FA-1"); got != (test.status == 200) {
				t.Errorf("body %s", body)
			}
			allowed := r.Header.Get("Access-Control-Allow-Origin")
			if want := strings.Contains(strings.Join(test.header, "\n"), "Origin: https://till.example") && test.status < 400; (allowed == "https://till.example") != want || !want && allowed != "" {
				t.Errorf("Access-Control-Allow-Origin: %q", allowed)
			}
		})
	}
}

// TestPrivateNetwork: the question for loopback addresses is answered where it
// is asked, and only to pages that may ask.
func TestPrivateNetwork(t *testing.T) {
	h := newHTTP(t, readerd.HTTPOptions{Origins: []string{"https://till.example"}})
	const asks = "Access-Control-Request-Private-Network: true"
	for _, test := range []struct {
		header []string
		want   string
	}{
		{[]string{"Method: OPTIONS", "Origin: https://till.example", asks}, "true"},
		{[]string{"Method: OPTIONS", "Origin: https://till.example"}, ""},
		{[]string{"Method: OPTIONS", "Origin: https://evil.example", asks}, ""},
	} {
		if got := get(h.Handler(), "/v1/events/last", test.header...).Header.Get("Access-Control-Allow-Private-Network"); got != test.want {
			t.Errorf("%q: %q, want %q", test.header, got, test.want)
		}
	}
}

// TestPort80: browsers leave the usual port out.
func TestPort80(t *testing.T) {
	h := newHTTP(t, readerd.HTTPOptions{Listen: "[::1]:80"})
	for host, want := range map[string]int{"[::1]": 204, "localhost": 204, "[::1]:80": 204, "[::1]:81": 421, "evil.example": 421} {
		if r := get(h.Handler(), "/v1/events/last", "Host: "+host); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, r.StatusCode, want)
		}
	}
}

func TestToken(t *testing.T) {
	h := newHTTP(t, readerd.HTTPOptions{Token: "secret"})
	tell(t, h, "FA-1")
	for header, want := range map[string]int{"X: y": 401, "Authorization: Bearer wrong": 401, "Authorization: secret": 401, "Authorization: Bearer secret": 200} {
		if r := get(h.Handler(), "/v1/events/last", header); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", header, r.StatusCode, want)
		}
	}
	if r := get(h.Handler(), "/v1/events/last?access_token=secret"); r.StatusCode != 200 {
		t.Errorf("parameter: %d", r.StatusCode)
	}
}

// handed is what is handed out.
type handed struct {
	Number uint64
	Event  struct {
		Outcome, Reason string
		Tap             struct{ Tap, Slot, ID string }
	}
}

func read(t *testing.T, r *http.Response) handed {
	t.Helper()
	var got handed
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("status %d, %v", r.StatusCode, err)
	}
	return got
}

// TestLast: the last tap, and not one of long ago.
func TestLast(t *testing.T) {
	c := &clock{now: morning}
	h := newHTTP(t, readerd.HTTPOptions{Keep: time.Minute, Clock: c.Now})
	if r := get(h.Handler(), "/v1/events/last"); r.StatusCode != http.StatusNoContent || r.Header.Get("Last-Event-ID") != "1775001600000" {
		t.Errorf("before the first: %d, %v", r.StatusCode, r.Header)
	}
	tell(t, h, "FA-1")
	tell(t, h, "FA-2")
	if got := read(t, get(h.Handler(), "/v1/events/last")); got.Number != 1775001600002 || got.Event.Tap.ID != "FA-2" {
		t.Errorf("%+v", got)
	}
	c.now = c.now.Add(time.Minute + 1)
	if r := get(h.Handler(), "/v1/events/last"); r.StatusCode != http.StatusNoContent {
		t.Errorf("a minute later: %d", r.StatusCode)
	}
}

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// TestRefusedHasNoID: what was not accepted is told without whose card it was.
func TestRefusedHasNoID(t *testing.T) {
	h := newHTTP(t, readerd.HTTPOptions{Clock: (&clock{now: morning}).Now})
	tap := &reader.Tap{
		TapID: "t-1", Slot: "front desk", Service: "library", ID: "FA-1", IssueNumber: 47, Expiry: time.Date(2031, 3, 31, 0, 0, 0, 0, time.UTC),
		Items: []applets.Item{{Name: "branch", Value: "central"}},
	}
	tellEvent(t, h, readerd.Event{Outcome: readerd.Refused, Reason: "denied", Tap: tap})
	r := get(h.Handler(), "/v1/events/last")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"FA-1", "47", "2031", "central"} {
		if strings.Contains(string(body), secret) {
			t.Errorf("%q stands in %s", secret, body)
		}
	}
	for _, want := range []string{"t-1", "front desk", "library", "denied"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if tap.ID != "FA-1" {
		t.Error("other outputs lose the ID too")
	}
}

// TestBounded: old events make room for new ones.
func TestBounded(t *testing.T) {
	c := &clock{now: morning}
	h := newHTTP(t, readerd.HTTPOptions{Clock: c.Now})
	first := uint64(morning.UnixMilli())
	for n := range 1000 {
		tell(t, h, fmt.Sprint("FA-", n+1))
	}
	if got := read(t, get(h.Handler(), fmt.Sprint("/v1/events/next?after=", first))); got.Event.Tap.ID != "FA-901" {
		t.Errorf("the oldest: %+v", got)
	}
}

// TestNext waits for what is to come, and does not lose what came meanwhile.
func TestNext(t *testing.T) {
	c := &clock{now: morning}
	h := newHTTP(t, readerd.HTTPOptions{Clock: c.Now})
	first := uint64(morning.UnixMilli())
	after := func(n uint64) string { return fmt.Sprint("/v1/events/next?after=", n) }
	tell(t, h, "FA-1")
	told := make(chan handed)
	go func() { told <- read(t, get(h.Handler(), after(first+1))) }()
	tell(t, h, "FA-2")
	if got := <-told; got.Number != first+2 || got.Event.Tap.ID != "FA-2" {
		t.Errorf("%+v", got)
	}
	tell(t, h, "FA-3")
	if got := read(t, get(h.Handler(), after(first+1))); got.Event.Tap.ID != "FA-2" {
		t.Errorf("the next but one: %+v", got)
	}
	if got := read(t, get(h.Handler(), after(0))); got.Event.Tap.ID != "FA-1" {
		t.Errorf("a number of before the service was started: %+v", got)
	}
	if got := read(t, get(h.Handler(), after(first+99))); got.Event.Tap.ID != "FA-1" {
		t.Errorf("a number of before the clock was put back: %+v", got)
	}
	if r := get(h.Handler(), "/v1/events/next?after=x"); r.StatusCode != 400 {
		t.Errorf("no number: %d", r.StatusCode)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequestWithContext(gone, http.MethodGet, "http://"+address+"/v1/events/next", nil))
	if w.Code != 204 || w.Header().Get("Last-Event-ID") != fmt.Sprint(first+3) {
		t.Errorf("at the service's end: %d %v", w.Code, w.Header())
	}
}

// TestPlaces: there is an end to those who wait.
func TestPlaces(t *testing.T) {
	h := newHTTP(t, readerd.HTTPOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status := make(chan int)
	ask := func() {
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/events/next", nil))
		status <- w.Code
	}
	const places, more = 32, 3
	for range places + more {
		go ask()
	}
	for range more {
		if got := <-status; got != http.StatusServiceUnavailable {
			t.Fatalf("one too many: %d", got)
		}
	}
	if r := get(h.Handler(), "/v1/events/stream"); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("a stream: %d", r.StatusCode)
	}
	tell(t, h, "FA-1")
	for range places {
		if got := <-status; got != http.StatusOK {
			t.Errorf("one that waited: %d", got)
		}
	}
	go ask()
	tell(t, h, "FA-2")
	if r := get(h.Handler(), "/v1/events/next?after=0"); r.StatusCode != http.StatusOK {
		t.Errorf("places are not given back: %d", r.StatusCode)
	}
	cancel()
	<-status
}

// freePort is a loopback address on which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// running is the output while it serves, and what ends it.
func running(t *testing.T, o readerd.HTTPOptions) (h *readerd.HTTP, end func()) {
	t.Helper()
	h = newHTTP(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()
	return h, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// openStream opens a stream, as soon as somebody listens, and reads its first line.
func openStream(t *testing.T, listen, last string) (lines *bufio.Scanner, hangUp func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/v1/events/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	client := &http.Client{Transport: &http.Transport{}}
	answer, err := client.Do(r)
	for err != nil && ctx.Err() == nil {
		answer, err = client.Do(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	hangUp = func() {
		cancel()
		answer.Body.Close()
		client.CloseIdleConnections()
	}
	if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("type %s", got)
	}
	lines = bufio.NewScanner(answer.Body)
	if !lines.Scan() || lines.Text() != "retry: 1000" {
		t.Fatalf("first line %q", lines.Text())
	}
	return lines, hangUp
}

// eventIn reads until the next event: its number and its data.
func eventIn(t *testing.T, lines *bufio.Scanner) (id, data string) {
	t.Helper()
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			id = n
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			return id, data
		}
	}
	t.Fatal("the stream has ended")
	return "", ""
}

// TestStream: over a real connection, and again after it broke.
func TestStream(t *testing.T) {
	listen := freePort(t)
	h, end := running(t, readerd.HTTPOptions{Listen: listen})
	defer end()
	first, hangUp := openStream(t, listen, "")
	tell(t, h, "FA-1")
	last, data := eventIn(t, first)
	if !strings.Contains(data, "FA-1") {
		t.Error(data)
	}
	hangUp()
	tell(t, h, "FA-2")
	tell(t, h, "FA-3")
	second, hangUp := openStream(t, listen, last)
	defer hangUp()
	for _, want := range []string{"FA-2", "FA-3"} {
		if _, data := eventIn(t, second); !strings.Contains(data, want) {
			t.Errorf("%s, want %s", data, want)
		}
	}
}

// TestStreamOverARestart: a page whose service was started anew misses nothing.
func TestStreamOverARestart(t *testing.T) {
	listen := freePort(t)
	h, end := running(t, readerd.HTTPOptions{Listen: listen, Clock: (&clock{now: morning}).Now})
	lines, hangUp := openStream(t, listen, "")
	tell(t, h, "FA-1")
	last, _ := eventIn(t, lines)
	end() // while a stream is open, which ends in good order
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("stream was cut: %v", err)
	}
	hangUp()
	h, end = running(t, readerd.HTTPOptions{Listen: listen, Clock: (&clock{now: morning.Add(time.Second)}).Now})
	defer end()
	tell(t, h, "FA-2")
	lines, hangUp = openStream(t, listen, last)
	defer hangUp()
	if _, data := eventIn(t, lines); !strings.Contains(data, "FA-2") {
		t.Error(data)
	}
}

func TestAddressTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := newHTTP(t, readerd.HTTPOptions{Listen: listener.Addr().String()}).Run(t.Context()); err == nil {
		t.Error("served")
	}
}

// slots is a source in which nothing ever comes.
type slots struct {
	source
	names []string
	fails error
}

func (s *slots) Slots(context.Context) ([]iso7816.SlotStatus, error) {
	var all []iso7816.SlotStatus
	for _, name := range s.names {
		all = append(all, iso7816.SlotStatus{Slot: name})
	}
	return all, s.fails
}

// checked is an output that can say why it would reach nobody.
type checked struct {
	teller
	wrong error
}

func (c *checked) Check() error { return c.wrong }

// TestHealth: slots and outputs as they are when somebody asks.
func TestHealth(t *testing.T) {
	source := &slots{names: []string{"front desk"}}
	door := &checked{teller: teller{name: "door"}}
	daemon := newDaemon(t, readerd.Options{Reader: newReader(t), Source: source, Outputs: []readerd.Output{door, &teller{name: "till"}}})
	two := newDaemon(t, readerd.Options{Reader: newReader(t), Source: source, Slots: []string{"gate", "front desk"}})
	var h *readerd.HTTP
	ask := func(d *readerd.Daemon, status int, want string) {
		t.Helper()
		h = newHTTP(t, readerd.HTTPOptions{Health: d.Health, Metrics: readerd.NewMetrics()})
		r := get(h.Handler(), "/health")
		if body, err := io.ReadAll(r.Body); r.StatusCode != status || err != nil || strings.TrimSpace(string(body)) != want {
			t.Errorf("%d %s %v, want %d %s", r.StatusCode, body, err, status, want)
		}
	}
	ask(daemon, 200, `{"v":1,"type":"health","ok":true,"slots":["front desk"],"faults":[]}`)
	ask(two, 503, `{"v":1,"type":"health","ok":false,"slots":["front desk"],"faults":["slot \"gate\" is not there"]}`)
	door.wrong = errors.New("no panel")
	ask(daemon, 503, `{"v":1,"type":"health","ok":false,"slots":["front desk"],"faults":["door: no panel"]}`)
	source.names, door.wrong = nil, nil
	ask(daemon, 503, `{"v":1,"type":"health","ok":false,"slots":[],"faults":["no slot is there"]}`)
	source.fails = errors.New("PC/SC service has gone")
	ask(daemon, 503, `{"v":1,"type":"health","ok":false,"slots":[],"faults":["slots: PC/SC service has gone"]}`)
	if r := get(h.Handler(), "/metrics"); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
	if r := get(newHTTP(t, readerd.HTTPOptions{}).Handler(), "/health"); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
}

func TestHTTPRefused(t *testing.T) {
	for _, o := range []readerd.HTTPOptions{
		{Listen: "0.0.0.0:80"}, {Listen: "192.0.2.1:80"}, {Listen: "localhost"}, {Listen: ""},
		{Listen: "127.0.0.1:0"}, {Listen: address, Origins: []string{"null"}}, {Listen: address, Origins: []string{"https://*.example"}},
		{Listen: address, Origins: []string{"https://Till.example"}}, {Listen: address, Origins: []string{"https://till.example:443"}},
		{Listen: address, Origins: []string{"https://user@till.example"}}, {Listen: address, Origins: []string{"https://till.example:"}},
		{Listen: address, Origins: []string{"*"}}, {Listen: address, Origins: []string{"https://till.example/"}}, {Listen: address, Origins: []string{"till.example"}},
	} {
		if _, err := readerd.NewHTTP(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
