package readerd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
	e := readerd.Event{Outcome: readerd.Accepted, Tap: &reader.Tap{TapID: "tap of " + id, Service: "library", ID: id, At: morning}}
	if err := o.Tell(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// get asks with header lines of the form "name: value".
func get(h http.Handler, path string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "http://"+address+path, nil)
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
		{"by another loopback address", []string{"Host: [::1]:8470"}, 200},
		{"the till", []string{"Origin: https://till.example", "Sec-Fetch-Site: cross-site"}, 200},
		{"the till in clear", []string{"Origin: http://till.example"}, 403},
		{"a longer name", []string{"Origin: https://till.example.evil.example"}, 403},
		{"another page", []string{"Origin: https://evil.example"}, 403},
		{"a file", []string{"Origin: null"}, 403},
		{"an image or script of another page", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"a page of the same site", []string{"Sec-Fetch-Site: same-site"}, 403},
		{"typed into the browser", []string{"Sec-Fetch-Site: none"}, 200},
		{"a page whose name was bound to loopback", []string{"Host: evil.example:8470"}, 421},
		{"another port", []string{"Host: 127.0.0.1:80"}, 421},
		{"no port", []string{"Host: localhost"}, 421},
		{"preflight of the till", []string{"Method: OPTIONS", "Origin: https://till.example"}, 204},
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

// TestLast: the last tap, and not one of long ago.
func TestLast(t *testing.T) {
	c := &clock{now: morning}
	h := newHTTP(t, readerd.HTTPOptions{Keep: time.Minute, Clock: c.Now})
	if r := get(h.Handler(), "/v1/events/last"); r.StatusCode != http.StatusNoContent {
		t.Errorf("before the first: %d", r.StatusCode)
	}
	tell(t, h, "FA-1")
	tell(t, h, "FA-2")
	var got struct {
		Number int
		Event  struct{ Tap struct{ ID string } }
	}
	if err := json.NewDecoder(get(h.Handler(), "/v1/events/last").Body).Decode(&got); err != nil || got.Number != 2 || got.Event.Tap.ID != "FA-2" {
		t.Errorf("%+v, %v", got, err)
	}
	c.now = c.now.Add(time.Minute + 1)
	if r := get(h.Handler(), "/v1/events/last"); r.StatusCode != http.StatusNoContent {
		t.Errorf("a minute later: %d", r.StatusCode)
	}
}

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// TestNext waits for what is to come, and does not lose what came meanwhile.
func TestNext(t *testing.T) {
	h := newHTTP(t, readerd.HTTPOptions{})
	tell(t, h, "FA-1")
	body := func(path string) string {
		b, err := io.ReadAll(get(h.Handler(), path).Body)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	told := make(chan string)
	go func() { told <- body("/v1/events/next?after=1") }()
	tell(t, h, "FA-2")
	if got := <-told; !strings.Contains(got, `"number":2`) || !strings.Contains(got, "FA-2") {
		t.Error(got)
	}
	tell(t, h, "FA-3")
	if got := body("/v1/events/next?after=1"); !strings.Contains(got, "FA-2") {
		t.Errorf("the next but one: %s", got)
	}
	if got := body("/v1/events/next?after=99"); !strings.Contains(got, "FA-1") {
		t.Errorf("a number of before the service was started: %s", got)
	}
	if r := get(h.Handler(), "/v1/events/next?after=x"); r.StatusCode != 400 {
		t.Errorf("no number: %d", r.StatusCode)
	}
}

// TestStream: over a real connection, and again after it broke.
func TestStream(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	h := newHTTP(t, readerd.HTTPOptions{Listen: listen})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()
	connect := func(last string) (*bufio.Scanner, func()) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/v1/events/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		client := &http.Client{Transport: &http.Transport{}}
		var answer *http.Response
		for answer, err = client.Do(r); err != nil && ctx.Err() == nil; answer, err = client.Do(r) { // until it listens
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("type %s", got)
		}
		return bufio.NewScanner(answer.Body), func() { answer.Body.Close(); client.CloseIdleConnections() }
	}
	data := func(s *bufio.Scanner) string {
		for s.Scan() {
			if text, ok := strings.CutPrefix(s.Text(), "data: "); ok {
				return text
			}
		}
		return "ended"
	}
	first, disconnect := connect("")
	if !first.Scan() || first.Text() != "retry: 1000" { // it listens from here on
		t.Fatal(first.Text())
	}
	tell(t, h, "FA-1")
	if got := data(first); !strings.Contains(got, "FA-1") {
		t.Error(got)
	}
	disconnect()
	tell(t, h, "FA-2")
	tell(t, h, "FA-3")
	second, disconnect := connect("1")
	if got := data(second); !strings.Contains(got, "FA-2") {
		t.Error(got)
	}
	if got := data(second); !strings.Contains(got, "FA-3") {
		t.Error(got)
	}
	disconnect()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	var wrong error
	h := newHTTP(t, readerd.HTTPOptions{Health: func() error { return wrong }, Metrics: readerd.NewMetrics()})
	if r := get(h.Handler(), "/health"); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
	wrong = errors.New("door: no panel")
	r := get(h.Handler(), "/health")
	if b, err := io.ReadAll(r.Body); r.StatusCode != 503 || err != nil || !strings.Contains(string(b), "no panel") {
		t.Errorf("%d %s %v", r.StatusCode, b, err)
	}
	if r := get(h.Handler(), "/metrics"); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
}

func TestHTTPRefused(t *testing.T) {
	for _, o := range []readerd.HTTPOptions{
		{Listen: "0.0.0.0:80"}, {Listen: "192.0.2.1:80"}, {Listen: "localhost"}, {Listen: ""},
		{Listen: address, Origins: []string{"*"}}, {Listen: address, Origins: []string{"https://till.example/"}}, {Listen: address, Origins: []string{"till.example"}},
	} {
		if _, err := readerd.NewHTTP(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
