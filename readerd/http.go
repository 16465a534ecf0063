package readerd

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// HTTPOptions are those of the HTTP output.
type HTTPOptions struct {
	// Listen is a loopback address with its port, "127.0.0.1:8470".
	Listen string
	// Origins are the web pages that may ask, "https://till.example"; programs
	// that are no browsers send none and may always.
	Origins []string
	// Token is asked of everybody, as a bearer token or as the parameter
	// access_token; "" asks for none.
	Token string
	// Keep is for how long an event is handed out: a tap of long ago is
	// nobody's any more. 0 is 60 s.
	Keep    time.Duration
	Metrics *Metrics
	// Health says what is wrong with the terminal; nil is nothing.
	Health func() error
	Clock  func() time.Time // nil is time.Now
}

// HTTP tells programs and web pages on the same machine:
//
//	GET /v1/events/last              the last event
//	GET /v1/events/next?after=N      the first event after number N, waiting for it
//	GET /v1/events/stream            server-sent events
//	GET /metrics                     for Prometheus
//	GET /health                      200, or 503 with what is wrong
//
// A web page that is open in the browser of the same machine can send
// requests to loopback addresses, whoever wrote it. So requests are refused that
// come from a page not in Origins, and those whose Host is not this service's,
// which is how a page gets around its origin (DNS rebinding).
type HTTP struct {
	o       HTTPOptions
	address netip.AddrPort

	mu      sync.Mutex
	number  uint64
	recent  []numbered
	changed chan struct{} // closed with the next event
}

// numbered is an event as it is handed out.
type numbered struct {
	Number uint64 `json:"number"`
	Event  Event  `json:"event"`
	at     time.Time
}

// maxRecent bounds what is kept for pages that come back.
const maxRecent = 100

// longPoll is for how long a request for the next event waits.
const longPoll = 30 * time.Second

// heartbeat keeps what stands between browser and service from closing a
// stream in which nothing happens.
const heartbeat = 15 * time.Second

// NewHTTP returns the output. It refuses an address that is not a loopback one,
// and origins that are none.
func NewHTTP(o HTTPOptions) (*HTTP, error) {
	address, err := netip.ParseAddrPort(o.Listen)
	if err != nil || !address.Addr().IsLoopback() {
		return nil, fmt.Errorf("HTTP address %q: a loopback address with its port expected, such as 127.0.0.1:8470", o.Listen)
	}
	for _, origin := range o.Origins {
		scheme, host, ok := strings.Cut(origin, "://")
		if !ok || scheme != "http" && scheme != "https" || host == "" || strings.ContainsAny(host, "/*?#@ ") {
			return nil, fmt.Errorf("HTTP origin %q: scheme and host expected, such as https://till.example", origin)
		}
	}
	if o.Keep == 0 {
		o.Keep = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &HTTP{o: o, address: address, changed: make(chan struct{})}, nil
}

// Name implements [Output].
func (h *HTTP) Name() string { return "http " + h.o.Listen }

// Run serves until the context ends.
func (h *HTTP) Run(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", h.o.Listen)
	if err != nil {
		return err
	}
	return h.serve(ctx, listener)
}

func (h *HTTP) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           h.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Tell implements [Output].
func (h *HTTP) Tell(_ context.Context, e Event) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	h.recent = append(h.recent, numbered{h.number, e, h.o.Clock()})
	if len(h.recent) > maxRecent {
		h.recent = h.recent[1:]
	}
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}

// after returns what is not too old of the events after a number, the number
// of the last event, and what is closed when there is another.
func (h *HTTP) after(n uint64) (events []numbered, last uint64, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.o.Clock()
	h.recent = slices.DeleteFunc(h.recent, func(e numbered) bool { return now.Sub(e.at) > h.o.Keep })
	for _, e := range h.recent {
		// A number that is yet to come is one of before the service was started anew.
		if e.Number > n || n > h.number {
			events = append(events, e)
		}
	}
	return events, h.number, h.changed
}

// Handler answers requests.
func (h *HTTP) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/events/last", h.last)
	mux.HandleFunc("GET /v1/events/next", h.next)
	mux.HandleFunc("GET /v1/events/stream", h.stream)
	mux.HandleFunc("GET /health", h.health)
	if h.o.Metrics != nil {
		mux.Handle("GET /metrics", h.o.Metrics.Handler())
	}
	return h.guard(mux)
}

// guard lets in who may ask.
func (h *HTTP) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "no-store")
		header.Set("Vary", "Origin")
		if !h.ownHost(r.Host) {
			http.Error(w, "wrong host", http.StatusMisdirectedRequest)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			if !slices.Contains(h.o.Origins, origin) {
				http.Error(w, "origin is not allowed: add it to http.origins in the terminal's configuration", http.StatusForbidden)
				return
			}
			header.Set("Access-Control-Allow-Origin", origin)
		} else if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
			http.Error(w, "page of another origin", http.StatusForbidden)
			return
		}
		if r.Method == http.MethodOptions {
			header.Set("Access-Control-Allow-Headers", "Authorization, Last-Event-ID")
			header.Set("Access-Control-Allow-Methods", "GET")
			header.Set("Access-Control-Allow-Private-Network", "true")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if !h.knows(r) {
			header.Set("WWW-Authenticate", "Bearer")
			http.Error(w, "token is missing or wrong", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownHost tells whether a request is meant for this service by its name.
func (h *HTTP) ownHost(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != strconv.Itoa(int(h.address.Port())) {
		return false
	}
	address, err := netip.ParseAddr(name)
	return strings.EqualFold(name, "localhost") || err == nil && address.IsLoopback()
}

func (h *HTTP) knows(r *http.Request) bool {
	if h.o.Token == "" {
		return true
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = r.URL.Query().Get("access_token")
	}
	return subtle.ConstantTimeCompare([]byte(token), []byte(h.o.Token)) == 1
}

func (h *HTTP) last(w http.ResponseWriter, _ *http.Request) {
	events, _, _ := h.after(0)
	if len(events) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	writeJSON(w, events[len(events)-1])
}

func (h *HTTP) next(w http.ResponseWriter, r *http.Request) {
	after, err := h.from(r.URL.Query().Get("after"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	timeout := time.NewTimer(longPoll)
	defer timeout.Stop()
	for {
		events, _, changed := h.after(after)
		if len(events) > 0 {
			writeJSON(w, events[0])
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// from reads the number of the last event that somebody has; without one, what
// is to come is meant.
func (h *HTTP) from(text string) (uint64, error) {
	if text == "" {
		_, last, _ := h.after(0)
		return last, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, errors.New("after: number of an event expected")
	}
	return n, nil
}

func (h *HTTP) stream(w http.ResponseWriter, r *http.Request) {
	after, err := h.from(r.Header.Get("Last-Event-ID"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	if _, err := fmt.Fprint(w, "retry: 1000\n\n"); err != nil {
		return
	}
	for {
		events, _, changed := h.after(after)
		for _, e := range events {
			line, err := json.Marshal(e.Event)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "id: %d\nevent: tap\ndata: %s\n\n", e.Number, line); err != nil {
				return
			}
			after = e.Number
		}
		if out.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
			if _, err := fmt.Fprint(w, ":\n\n"); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (h *HTTP) health(w http.ResponseWriter, _ *http.Request) {
	if h.o.Health != nil {
		if err := h.o.Health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ok")
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked may have gone
}
