//go:build linux

package till_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/readerd"
)

// service is the terminal's service on a port of its own, and what it
// answered to whom.
type service struct {
	*readerd.HTTP
	url string

	mu       sync.Mutex
	answered []string // "GET /path: 200"
}

func startService(t *testing.T, listener net.Listener, origins ...string) *service {
	t.Helper()
	h, err := readerd.NewHTTP(readerd.HTTPOptions{Listen: listener.Addr().String(), Origins: origins})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{HTTP: h, url: "http://" + listener.Addr().String()}
	handler := h.Handler()
	serve(t, listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noted := &noting{ResponseWriter: w, note: func(status int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.answered = append(s.answered, fmt.Sprintf("%s %s: %d", r.Method, r.URL.Path, status))
		}}
		handler.ServeHTTP(noted, r)
	}))
	return s
}

// took gives what the service answered since it was asked last.
func (s *service) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.answered
	s.answered = nil
	return all
}

// noting notes the status of an answer.
type noting struct {
	http.ResponseWriter
	note func(status int)
	once sync.Once
}

func (n *noting) WriteHeader(status int) {
	n.once.Do(func() { n.note(status) })
	n.ResponseWriter.WriteHeader(status)
}

func (n *noting) Write(b []byte) (int, error) {
	n.once.Do(func() { n.note(http.StatusOK) })
	return n.ResponseWriter.Write(b)
}

func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serve(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
}

// startPages serves the example's files, with the address of the service in
// its place, and an empty page, and gives their port.
func startPages(t *testing.T, address string) (port int) {
	t.Helper()
	pages := http.NewServeMux()
	pages.Handle("/", http.FileServer(http.Dir(".")))
	pages.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		text, err := os.ReadFile("index.html")
		if err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, strings.ReplaceAll(string(text), "http://127.0.0.1:8470", address))
	})
	pages.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<!DOCTYPE html><title>empty</title>")
	})
	l := listen(t)
	serve(t, l, pages)
	return l.Addr().(*net.TCPAddr).Port
}

func (s *service) tell(t *testing.T, e readerd.Event) {
	t.Helper()
	if err := s.Tell(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func tapOf(id string) *reader.Tap {
	return &reader.Tap{TapID: "0f1e2d3c4b5a69788796a5b4c3d2e1f0", Service: "points", ID: id, At: time.Now()}
}

// watch has the page keep all that it shows: what it shows passes.
const watch = `
	seen = [];
	look = () => {};
	note = () => { seen.push({...document.body.dataset, text: document.querySelector("main").innerText}); look() };
	new MutationObserver(note).observe(document.body, {attributes: true, childList: true, characterData: true, subtree: true});
	note();
	""`

// shown waits until the page has shown something, and gives all its words.
const shown = `new Promise(done => {
	look = () => { const s = seen.find(s => s.%s === %q); if (s) done(s.text) };
	look();
})`

// TestTill: the page shows what happens at the reader.
func TestTill(t *testing.T) {
	listener := listen(t)
	address := "http://" + listener.Addr().String()
	port := startPages(t, address)
	till := fmt.Sprintf("http://till.example:%d", port)
	s := startService(t, listener, till)
	b := startBrowser(t)
	b.visit(till)
	b.eval(watch)
	if got := b.eval(shown, "sign", "waiting"); !strings.Contains(got, "カードをかざしてください。") || !strings.Contains(got, "Please present your card.") {
		t.Errorf("before the first card: %s", got)
	}
	b.eval(shown, "service", "there")
	for _, e := range []readerd.Event{
		{Outcome: readerd.Accepted, Tap: tapOf("MS-00000000P"), Feedback: readerd.Feedback{Sign: readerd.SignAccepted, JA: "読み取りました。", EN: "Accepted."}},
		{Outcome: readerd.Refused, Reason: "denied", Tap: tapOf("MS-00000001N"), Feedback: readerd.Feedback{Sign: readerd.SignRefused, JA: "利用停止中です。", EN: "Stopped."}},
		{Outcome: readerd.Failed, Reason: "card-removed", Err: &reader.TapError{Err: fmt.Errorf("gone")}, Feedback: readerd.Feedback{Sign: readerd.SignHoldStill, JA: "離さず", EN: "Hold <b>still</b>."}},
		{Outcome: readerd.Failed, Reason: "protocol", Err: &reader.TapError{Err: fmt.Errorf("noise")}, Feedback: readerd.Feedback{Sign: readerd.SignTakeAway, JA: "一度離して", EN: "Take it away."}},
	} {
		s.tell(t, e)
		got := b.eval(shown, "sign", string(e.Feedback.Sign))
		if !strings.Contains(got, e.Feedback.JA) || !strings.Contains(got, e.Feedback.EN) {
			t.Errorf("%s: %s", e.Feedback.Sign, got)
		}
		if strings.Contains(got, "MS-") != (e.Outcome == readerd.Accepted) || e.Outcome == readerd.Accepted && !strings.Contains(got, e.Tap.ID) {
			t.Errorf("%s: %s", e.Outcome, got)
		}
	}
}

// probes are how a page can ask a service on the visitor's machine. Each comes
// to what the page has learnt, or to "nothing".
var probes = []struct {
	name, script string
	allowed      bool // an allowed page learns something
}{
	{"fetch", `fetch("%s/v1/events/last").then(r => r.text(), () => "nothing")`, true},
	{"fetch with a header", `fetch("%s/v1/events/last", {headers: {Authorization: "Bearer x"}}).then(r => r.text(), () => "nothing")`, true},
	{"fetch without CORS", `fetch("%s/v1/events/last", {mode: "no-cors"}).then(r => r.text(), () => "").then(text => text || "nothing")`, false},
	{"EventSource", `new Promise(done => {
		const s = new EventSource("%s/v1/events/stream");
		s.onopen = () => { s.close(); done("open") };
		s.onerror = () => { s.close(); done("nothing") };
	})`, true},
	{"image", `new Promise(done => {
		const i = new Image();
		i.onload = () => done("loaded");
		i.onerror = () => done("nothing");
		i.src = "%s/v1/events/last";
	})`, false},
	{"script", `new Promise(done => {
		const s = document.createElement("script");
		s.onload = () => done("loaded");
		s.onerror = () => done("nothing");
		s.src = "%s/v1/events/last";
		document.head.append(s);
	})`, false},
	{"frame", `new Promise(done => {
		const f = document.createElement("iframe");
		f.onload = () => done(f.contentDocument ? f.contentDocument.body.innerText : "nothing");
		f.src = "%s/v1/events/last";
		document.body.append(f);
	})`, false},
}

// TestConfig: the example's configuration is good, and its page asks where it listens.
func TestConfig(t *testing.T) {
	c, err := readerd.LoadConfig("readerd.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Services[0].Manifest); err != nil {
		t.Error(err)
	}
	page, err := os.ReadFile("index.html")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(page), `http://`+c.HTTP.Listen); n != 2 {
		t.Errorf("the page names http://%s %d times, once for the script and once for the browser expected", c.HTTP.Listen, n)
	}
}

// TestPages: a page that is named learns of a tap, and no other page, by
// whatever way; the service does not even answer it.
func TestPages(t *testing.T) {
	port := startPages(t, "")
	till := fmt.Sprintf("http://till.example:%d", port)
	s := startService(t, listen(t), till)
	b := startBrowser(t)
	s.tell(t, readerd.Event{Outcome: readerd.Accepted, Tap: tapOf("MS-00000000P")})

	for _, page := range []struct {
		origin  string
		allowed bool
	}{
		{till, true},
		{fmt.Sprintf("http://evil.example:%d", port), false},
		{fmt.Sprintf("http://127.0.0.1:%d", port), false}, // the same host
		{fmt.Sprintf("http://localhost:%d", port), false},
	} {
		for _, probe := range probes {
			t.Run(page.origin+" "+probe.name, func(t *testing.T) {
				b.t = t
				b.visit(page.origin + "/empty")
				s.took()
				learnt := b.eval(probe.script, s.url)
				if want := page.allowed && probe.allowed; (learnt != "nothing") != want || want && learnt != "open" && !strings.Contains(learnt, "MS-00000000P") {
					t.Errorf("page learns: %s", learnt)
				}
				answered := s.took()
				if len(answered) == 0 {
					t.Error("the service was never asked")
				}
				for _, a := range answered {
					if !page.allowed && !strings.HasSuffix(a, ": 403") {
						t.Errorf("answered: %s", a)
					}
				}
			})
		}
	}
}

// TestRebinding: a page whose own name is bound to the visitor's machine is of
// the service's origin to the browser, and learns nothing all the same.
func TestRebinding(t *testing.T) {
	listener := listen(t)
	s := startService(t, listener)
	s.tell(t, readerd.Event{Outcome: readerd.Accepted, Tap: tapOf("MS-00000000P")})
	b := startBrowser(t)
	origin := fmt.Sprintf("http://rebound.example:%d", listener.Addr().(*net.TCPAddr).Port)
	b.visit(origin + "/health")
	if got := b.eval("location.origin"); got != origin {
		t.Fatalf("the page is of %s", got)
	}
	if got := b.eval(`fetch("/v1/events/last").then(async r => r.status + " " + await r.text())`); strings.Contains(got, "MS-") || !strings.HasPrefix(got, "421 ") {
		t.Errorf("page learns: %s", got)
	}
	for _, a := range s.took() {
		if !strings.HasSuffix(a, ": 421") {
			t.Errorf("answered: %s", a)
		}
	}
}
