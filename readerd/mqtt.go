package readerd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// MQTTConfig is a broker that every event is published to.
type MQTTConfig struct {
	// Broker is "mqtts://host:port" (TLS; port 8883 unless given) or
	// "mqtt://host:port" (1883).
	Broker string `toml:"broker"`
	// Clear allows "mqtt" to a host that is not this one: everybody on the way
	// reads the IDs and the password.
	Clear bool `toml:"clear"`
	// ClientID is the terminal's name at the broker: 1 to 64 of A-Z, a-z, 0-9
	// and "._-". The events that wait are kept under it.
	ClientID string `toml:"client_id"`
	// Topic is where to: text with {service}, {slot} and {outcome} in it.
	Topic string `toml:"topic"`

	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"` // mode 0600

	CA          string `toml:"ca"`          // PEM; the system's roots unless given
	Certificate string `toml:"certificate"` // PEM, the terminal's own
	Key         string `toml:"key"`         // PEM, mode 0600

	// Expiry is how old an event may become before a subscriber has it; 0 is
	// any age. Whole seconds.
	Expiry Duration `toml:"expiry"`
	// Queue is how many events wait on disk at most, 10,000 unless given.
	Queue int `toml:"queue"`
}

const (
	defaultMQTTTopic = "freearea/{service}/{outcome}"
	defaultMQTTQueue = 10_000
	maxMQTTQueue     = 1_000_000
)

var (
	mqttClientID = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z._-]{0,63}$`)
	mqttPlace    = regexp.MustCompile(`\{[^{}]*\}`)
)

func (c *MQTTConfig) check(at string, fault func(format string, args ...any)) {
	if c.Topic == "" {
		c.Topic = defaultMQTTTopic
	}
	if c.Queue == 0 {
		c.Queue = defaultMQTTQueue
	}
	if broker, err := parseBroker(c.Broker); err != nil {
		fault("%s.broker: %w", at, err)
	} else {
		secure := broker.Scheme == "mqtts"
		switch {
		case !secure && c.CA+c.Certificate+c.Key != "":
			fault("%s: ca, certificate and key go with mqtts only", at)
		case secure && c.Clear:
			fault("%s: clear goes without mqtts", at)
		case !secure && !c.Clear && !isLoopback(broker.Hostname()):
			fault("%s.broker: mqtt is not encrypted: say mqtts, or clear = true and read what that means", at)
		}
	}
	if !mqttClientID.MatchString(c.ClientID) {
		fault(`%s.client_id: %q, 1 to 64 letters, digits and "._-" expected, no dot first`, at, c.ClientID)
	}
	if err := checkTopic(c.Topic); err != nil {
		fault("%s.topic: %w", at, err)
	}
	if (c.Certificate == "") != (c.Key == "") {
		fault("%s: certificate and key go together", at)
	}
	if c.PasswordFile != "" && c.User == "" {
		fault("%s: password_file goes with user", at)
	}
	if d := time.Duration(c.Expiry); d%time.Second != 0 || d/time.Second > math.MaxUint32 {
		fault("%s.expiry: %s, whole seconds expected, %d at most", at, d, uint32(math.MaxUint32))
	}
	if c.Queue < 1 || c.Queue > maxMQTTQueue {
		fault("%s.queue: %d, 1 to %d expected", at, c.Queue, maxMQTTQueue)
	}
}

// parseBroker reads a broker's address; the port is there afterwards.
func parseBroker(s string) (*url.URL, error) {
	wrong := fmt.Errorf(`%q: "mqtts://host:port" or "mqtt://host:port" expected`, s)
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.TrimPrefix(s, u.Scheme+"://") != u.Host {
		return nil, wrong
	}
	port, known := map[string]string{"mqtts": "8883", "mqtt": "1883"}[u.Scheme]
	if !known {
		return nil, wrong
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// checkTopic refuses what is no name of a topic (MQTT 5, 4.7) and places that
// nothing is known for. An ID has none: brokers log topics.
func checkTopic(topic string) error {
	for _, place := range mqttPlace.FindAllString(topic, -1) {
		if place != "{service}" && place != "{slot}" && place != "{outcome}" {
			return fmt.Errorf("%q: {service}, {slot} or {outcome} expected", place)
		}
	}
	rest := mqttPlace.ReplaceAllString(topic, "")
	if strings.ContainsAny(rest, "+#{}") || strings.ContainsFunc(rest, unicode.IsControl) || strings.HasPrefix(topic, "$") || !utf8.ValidString(topic) || len(topic) > 1024 {
		return fmt.Errorf("%q: 1 to 1024 bytes without + # and control characters, no $ first, expected", topic)
	}
	return nil
}

// topic is where an event is published.
func (c *MQTTConfig) topic(e Event) string {
	level := func(s string) string {
		if s == "" {
			return "none"
		}
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune("/+#", r) || unicode.IsControl(r) || r == utf8.RuneError {
				return '_'
			}
			return r
		}, s)
	}
	return strings.NewReplacer("{service}", level(e.service()), "{slot}", level(e.slot()), "{outcome}", level(string(e.Outcome))).Replace(c.Topic)
}

// MQTTOptions are what an output to a broker has from its service.
type MQTTOptions struct {
	State   string           // directory below which events wait
	Clock   func() time.Time // nil is the system's
	Rand    io.Reader        // nil is crypto/rand
	Log     *slog.Logger     // nil logs nothing
	Metrics *Metrics         // nil counts nothing
	Retry   time.Duration    // longest pause before a broker is tried again; 0 is a minute
}

// MQTT publishes every event to a broker (MQTT 5, QoS 1, not retained). An
// event is told when it is on disk; it leaves the disk when the broker has
// confirmed it. So it arrives at least once, in order, whether the broker or
// the service was away meanwhile; who gets it twice knows it by its id.
type MQTT struct {
	c        MQTTConfig
	o        MQTTOptions
	broker   *url.URL
	tls      *tls.Config // nil for none
	password []byte

	mu    sync.Mutex
	spool *spool // nil until it is needed: the service that this one follows may have it yet
}

// Open reads the files that the configuration names and makes the output. Its
// directory is opened when the output is run or told the first time.
func (c MQTTConfig) Open(o MQTTOptions) (*MQTT, error) {
	broker, err := parseBroker(c.Broker)
	if err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Retry == 0 {
		o.Retry = time.Minute
	}
	m := &MQTT{c: c, o: o, broker: broker}
	var faults []error
	if c.PasswordFile != "" {
		text, err := readSecret(c.PasswordFile)
		m.password = []byte(strings.TrimRight(string(text), "\r\n"))
		faults = append(faults, err)
	}
	if broker.Scheme == "mqtts" {
		var err error
		m.tls, err = c.tls(broker.Hostname())
		faults = append(faults, err)
	}
	return m, errors.Join(faults...)
}

func (c *MQTTConfig) tls(host string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: no certificates in PEM", c.CA)
		}
	}
	if c.Certificate != "" {
		certificate, err := os.ReadFile(c.Certificate)
		if err != nil {
			return nil, err
		}
		key, err := readSecret(c.Key)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", c.Certificate, c.Key, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// readSecret reads a file that nobody else may read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return nil, fmt.Errorf("%s: others can read it: mode %04o, 0600 expected", path, perm)
	}
	return os.ReadFile(path)
}

// Name implements [Output].
func (m *MQTT) Name() string { return "mqtt " + m.c.ClientID + "@" + m.broker.Host }

// queue opens the spool.
func (m *MQTT) queue() (*spool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spool != nil {
		return m.spool, nil
	}
	s, err := openSpool(filepath.Join(m.o.State, "mqtt", m.c.ClientID), m.c.Queue)
	m.spool = s
	return s, err
}

// Close closes the directory. Neither Run nor Tell may be running.
func (m *MQTT) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spool == nil {
		return nil
	}
	err := m.spool.Close()
	m.spool = nil
	return err
}

// message is what waits on disk.
type message struct {
	ID    string          `json:"id"` // the tap's; of a card that was not read, one of the same form
	At    time.Time       `json:"at"`
	Topic string          `json:"topic"`
	Event json.RawMessage `json:"event"`
}

// Tell implements [Output].
func (m *MQTT) Tell(_ context.Context, e Event) error {
	queue, err := m.queue()
	if err != nil {
		return err
	}
	event, err := json.Marshal(e)
	if err != nil {
		return err
	}
	msg := message{At: m.o.Clock(), Topic: m.c.topic(e), Event: event}
	if e.Tap != nil {
		msg.ID = e.Tap.TapID
	} else {
		var id [16]byte
		if _, err := io.ReadFull(m.o.Rand, id[:]); err != nil {
			return err
		}
		msg.ID = hex.EncodeToString(id[:])
	}
	data, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	dropped, err := queue.put(data)
	for range dropped {
		m.lost("the queue is full, its oldest event goes", "waiting", m.c.Queue)
	}
	return err
}

// lost says that an event will not be published, and why.
func (m *MQTT) lost(why string, attributes ...any) {
	m.o.Metrics.lost(m.Name())
	m.o.Log.Error("event lost: "+why, append([]any{"output", m.Name()}, attributes...)...)
}

// Run publishes what waits, until the context ends. A broker that is away is
// tried again; a directory that can't be opened is an error.
func (m *MQTT) Run(ctx context.Context) error {
	queue, err := m.queue()
	if err != nil {
		return err
	}
	pause := time.Second
	for {
		progress, err := m.connected(ctx, queue)
		if ctx.Err() != nil {
			return nil
		}
		m.o.Log.Warn("events wait on disk", "output", m.Name(), "error", err)
		if progress {
			pause = time.Second
		}
		pause = min(pause, m.o.Retry)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.jitter(pause)):
		}
		pause *= 2
	}
}

// jitter is between half of a time and the whole, so that all the terminals of
// a broker that was away do not come back at once.
func (m *MQTT) jitter(d time.Duration) time.Duration {
	var b [1]byte
	if _, err := io.ReadFull(m.o.Rand, b[:]); err != nil {
		return d
	}
	return d/2 + d/2*time.Duration(b[0])/math.MaxUint8
}

const (
	mqttTimeout   = 10 * time.Second // of a connection, and of a confirmation
	mqttKeepAlive = 30               // s
)

// connected publishes over one connection until it breaks, which it always
// does with an error. progress is whether the broker took all there was, or
// something of it.
func (m *MQTT) connected(ctx context.Context, queue *spool) (progress bool, err error) {
	conn, err := m.dial(ctx)
	if err != nil {
		return false, err
	}
	ctx, breaks := context.WithCancelCause(ctx)
	defer breaks(nil)
	client := paho.NewClient(paho.ClientConfig{
		ClientID: m.c.ClientID, Conn: conn, PacketTimeout: mqttTimeout,
		OnClientError: breaks,
		OnServerDisconnect: func(d *paho.Disconnect) {
			breaks(fmt.Errorf("broker ends the connection: %s", (&packets.Disconnect{ReasonCode: d.ReasonCode}).Reason()))
		},
	})
	answer, err := client.Connect(ctx, &paho.Connect{
		ClientID: m.c.ClientID, KeepAlive: mqttKeepAlive,
		// What waits is on our own disk, so the broker has nothing to remember.
		CleanStart:   true,
		UsernameFlag: m.c.User != "", Username: m.c.User,
		PasswordFlag: m.password != nil, Password: m.password,
	})
	if err != nil {
		if answer != nil && answer.ReasonCode != 0 {
			err = fmt.Errorf("broker refuses the connection: %s", (&packets.Connack{ReasonCode: answer.ReasonCode}).Reason())
		}
		return false, err
	}
	// It says good-bye where there is somebody to say it to, and waits for what paho began.
	defer func() { _ = client.Disconnect(&paho.Disconnect{}) }()
	m.o.Log.Info("connected", "output", m.Name())
	for {
		n, data, ok, err := queue.oldest()
		if !ok {
			progress = true
			select {
			case <-ctx.Done():
				return progress, context.Cause(ctx)
			case <-queue.grown:
			}
			continue
		}
		if err != nil {
			return progress, err
		}
		if err := m.publish(ctx, client, queue, n, data); err != nil {
			return progress, err
		}
		progress = true
	}
}

func (m *MQTT) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, mqttTimeout)
	defer cancel()
	if m.tls == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", m.broker.Host)
	}
	conn, err := (&tls.Dialer{Config: m.tls}).DialContext(ctx, "tcp", m.broker.Host)
	if err != nil {
		return nil, err
	}
	return packets.NewThreadSafeConn(conn), nil
}

// publish publishes an entry and removes it when the broker has confirmed it.
// One that no broker will ever take is removed too, and lost.
func (m *MQTT) publish(ctx context.Context, client *paho.Client, queue *spool, n uint64, data []byte) error {
	lost := func(why string) error {
		was, err := queue.remove(n)
		if was {
			m.lost(why)
		}
		return err
	}
	var msg message
	if err := json.Unmarshal(data, &msg); err != nil {
		return lost("its file is damaged")
	}
	p := &paho.Publish{
		QoS: 1, Topic: msg.Topic, Payload: msg.Event,
		Properties: &paho.PublishProperties{
			ContentType: "application/json", PayloadFormat: new(byte), CorrelationData: []byte(msg.ID),
			User: paho.UserProperties{{Key: "tap", Value: msg.ID}},
		},
	}
	*p.Properties.PayloadFormat = 1 // UTF-8
	if expiry := time.Duration(m.c.Expiry); expiry > 0 {
		// The time on our disk counts, and a broker's clock is its own affair.
		left := (expiry - m.o.Clock().Sub(msg.At) + time.Second - 1) / time.Second
		if left <= 0 {
			return lost("it has expired")
		}
		seconds := uint32(min(left, math.MaxUint32))
		p.Properties.MessageExpiry = &seconds
	}
	answer, err := client.Publish(ctx, p)
	if answer != nil && answer.ReasonCode >= 0x80 {
		why := (&packets.Puback{ReasonCode: answer.ReasonCode}).Reason()
		switch answer.ReasonCode {
		case packets.PubackTopicNameInvalid, packets.PubackPayloadFormatInvalid:
			return lost("the broker refuses it: " + why)
		}
		return fmt.Errorf("broker refuses an event: %s", why) // for want of a right or of room: that can change
	}
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx) // why the connection broke
	}
	if err != nil {
		return err
	}
	was, err := queue.remove(n)
	if was {
		m.o.Metrics.delivered(m.Name())
	}
	return err
}
