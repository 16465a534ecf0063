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
	"net/url"
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
	Metrics *Metrics // nil has no page
	// Health is asked for /health; nil is always well.
	Health func(ctx context.Context) Health
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
//
// Only accepted taps are handed out with their ID: who asks here acts on it,
// and one that forgets to look at the outcome must have nothing to act on.
type HTTP struct {
	o      HTTPOptions
	port   string
	places chan struct{} // of those who wait

	mu      sync.Mutex
	number  uint64 // of the last event
	recent  []numbered
	changed chan struct{} // closed with the next event
}

// numbered is an event as it is handed out.
type numbered struct {
	Number uint64 `json:"number"`
	Event  Event  `json:"event"`
	at     time.Time
}

const (
	// maxRecent bounds what is kept for pages that come back.
	maxRecent = 100
	// maxWaiting bounds the streams and waiting requests at one time.
	maxWaiting = 32
	// longPoll is for how long a request for the next event waits.
	longPoll = 30 * time.Second
	// heartbeat keeps what stands between browser and service from closing a
	// stream in which nothing happens.
	heartbeat = 15 * time.Second
	// patience is for how long somebody may take to read what is sent.
	patience = 10 * time.Second
	// farewell is for how long the streams may go on when the service ends.
	farewell = time.Second
)

// NewHTTP returns the output. It refuses an address that is not a loopback one,
// and origins that are none.
func NewHTTP(o HTTPOptions) (*HTTP, error) {
	address, err := parseListen(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("HTTP address %w", err)
	}
	for _, origin := range o.Origins {
		if err := checkOrigin(origin); err != nil {
			return nil, fmt.Errorf("HTTP origin %w", err)
		}
	}
	if o.Keep == 0 {
		o.Keep = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &HTTP{
		o: o, port: strconv.Itoa(int(address.Port())), places: make(chan struct{}, maxWaiting),
		// Numbers rise over a restart, so that a page that comes back misses
		// nothing and sees nothing twice.
		number: uint64(max(0, o.Clock().UnixMilli())), changed: make(chan struct{}),
	}, nil
}

// parseListen reads a loopback address with its port.
func parseListen(s string) (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(s)
	if err != nil || !address.Addr().IsLoopback() || address.Port() == 0 {
		return address, fmt.Errorf("%q: a loopback address with its port expected, such as 127.0.0.1:8470", s)
	}
	return address, nil
}

// checkOrigin refuses what no browser sends as its Origin (RFC 6454, 6.2).
func checkOrigin(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Contains(u.Host, "*") ||
		u.Scheme+"://"+u.Host != s || s != strings.ToLower(s) {
		return fmt.Errorf("%q: scheme and host in lower case expected, such as https://till.example", s)
	}
	if port := u.Port(); port == "80" && u.Scheme == "http" || port == "443" && u.Scheme == "https" || strings.HasSuffix(u.Host, ":") {
		return fmt.Errorf("%q: browsers leave the usual port out: so it must be here", s)
	}
	return nil
}

// Name implements [Output].
func (h *HTTP) Name() string { return "http " + h.o.Listen }

// Run serves until the context ends.
func (h *HTTP) Run(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", h.o.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           h.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		if server.Shutdown(ending) != nil {
			server.Close()
		}
	})
	err = server.Serve(listener)
	if stop() { // it ended by itself
		return errors.Join(err, server.Close())
	}
	<-ended
	return nil
}

// Tell implements [Output].
func (h *HTTP) Tell(_ context.Context, e Event) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	h.recent = append(h.recent, numbered{h.number, e.withheld(), h.o.Clock()})
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
		// A number that is yet to come is one of before the clock was put back.
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
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
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
			if r.Method == http.MethodOptions {
				preflight(w, r)
				return
			}
		} else if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
			// Images, scripts and links of a page have no Origin.
			http.Error(w, "page of another origin", http.StatusForbidden)
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

// preflight answers a browser that asks what an allowed page may do (CORS, and
// Private Network Access, which asks for loopback addresses separately).
func preflight(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Headers", "Authorization, Last-Event-ID")
	header.Set("Access-Control-Allow-Methods", http.MethodGet)
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		header.Set("Access-Control-Allow-Private-Network", "true")
	}
	w.WriteHeader(http.StatusNoContent)
}

// ownHost tells whether a request is meant for this service by its name.
func (h *HTTP) ownHost(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "80"
	}
	if port != h.port {
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
	events, last, _ := h.after(0)
	if len(events) == 0 {
		none(w, last)
		return
	}
	writeJSON(w, http.StatusOK, events[len(events)-1])
}

// none says that there is no event, and after which number to ask for one.
func none(w http.ResponseWriter, last uint64) {
	w.Header().Set("Last-Event-ID", strconv.FormatUint(last, 10))
	w.WriteHeader(http.StatusNoContent)
}

func (h *HTTP) next(w http.ResponseWriter, r *http.Request) {
	after, err := h.from(r.URL.Query().Get("after"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !h.enter(w) {
		return
	}
	defer h.leave()
	timeout := time.NewTimer(longPoll)
	defer timeout.Stop()
	for {
		events, last, changed := h.after(after)
		if len(events) > 0 {
			writeJSON(w, http.StatusOK, events[0])
			return
		}
		select {
		case <-changed:
			continue
		case <-timeout.C:
		case <-r.Context().Done():
		}
		none(w, last)
		return
	}
}

// enter takes a place among those who wait, or refuses.
func (h *HTTP) enter(w http.ResponseWriter) bool {
	select {
	case h.places <- struct{}{}:
		return true
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d others wait for events already", maxWaiting), http.StatusServiceUnavailable)
		return false
	}
}

func (h *HTTP) leave() { <-h.places }

// from reads the number of the last event that somebody has; without one, what
// is to come is meant.
func (h *HTTP) from(text string) (uint64, error) {
	if text == "" {
		_, last, _ := h.after(0)
		return last, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q: number of an event expected", text)
	}
	return n, nil
}

func (h *HTTP) stream(w http.ResponseWriter, r *http.Request) {
	after, err := h.from(r.Header.Get("Last-Event-ID"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !h.enter(w) {
		return
	}
	defer h.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	text := []byte("retry: 1000\n\n")
	for ending := false; ; {
		events, _, changed := h.after(after)
		for _, e := range events {
			line, err := json.Marshal(e.Event)
			if err != nil {
				return
			}
			text = fmt.Appendf(text, "id: %d\nevent: tap\ndata: %s\n\n", e.Number, line)
			after = e.Number
		}
		if err := send(w, text); err != nil || ending {
			return
		}
		text = text[:0]
		select {
		case <-changed:
		case <-beat.C:
			text = append(text, ":\n\n"...)
		case <-r.Context().Done():
			ending = true // what has been told meanwhile is still sent
		}
	}
}

// send sends text at once, to somebody who reads.
func send(w http.ResponseWriter, text []byte) error {
	out := http.NewResponseController(w)
	if err := out.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	return out.Flush()
}

func (h *HTTP) health(w http.ResponseWriter, r *http.Request) {
	var state Health
	if h.o.Health != nil {
		state = h.o.Health(r.Context())
	}
	status := http.StatusOK
	if len(state.Faults) > 0 {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, state)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked may have gone
}
