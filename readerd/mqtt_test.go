package readerd_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/readerd"
)

// broker is a mosquitto of the test's own, on loopback. It remembers sessions
// while it is stopped.
type broker struct {
	t    *testing.T
	dir  string
	addr string
	sub  []string // arguments that mosquitto_sub needs besides

	cmd     *exec.Cmd
	drained chan struct{}
}

// program finds one of mosquitto's, or ends the test.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	if os.Getenv("FREEAREA_REQUIRE_MOSQUITTO") == "1" {
		t.Fatalf("%s is not installed, and FREEAREA_REQUIRE_MOSQUITTO is 1", name)
	}
	t.Skipf(`%s is not installed: "make setup" installs the Debian packages mosquitto and mosquitto-clients`, name)
	return ""
}

// newBroker makes a broker that runs when it is started. The lines are of
// mosquitto.conf(5).
func newBroker(t *testing.T, lines ...string) *broker {
	t.Helper()
	program(t, "mosquitto")
	program(t, "mosquitto_sub")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	b := &broker{t: t, dir: t.TempDir(), addr: free.Addr().String()}
	_, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	config := append([]string{
		"user root", // where the test is run by root, else it has no effect
		"persistence true", "persistence_location " + b.dir + "/", "log_dest stderr", "log_type all",
		"listener " + port + " 127.0.0.1",
	}, lines...)
	if len(lines) == 0 {
		config = append(config, "allow_anonymous true")
	}
	b.write("mosquitto.conf", strings.Join(config, "\n")+"\n")
	t.Cleanup(b.stop)
	return b
}

func (b *broker) write(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *broker) start() {
	b.t.Helper()
	b.cmd = exec.Command(program(b.t, "mosquitto"), "-c", filepath.Join(b.dir, "mosquitto.conf"))
	log, err := b.cmd.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	var said strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		if strings.HasSuffix(lines.Text(), " running") {
			b.drained = make(chan struct{})
			go func() {
				_, _ = io.Copy(io.Discard, log)
				close(b.drained)
			}()
			return
		}
	}
	err = b.cmd.Wait()
	b.cmd = nil
	b.t.Fatalf("mosquitto: %v\n%s", err, said.String())
}

func (b *broker) stop() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	<-b.drained
	_ = b.cmd.Wait()
	b.cmd = nil
}

// received is a message as mosquitto_sub, a client that others wrote, has it.
type received struct {
	Topic, QoS, Retained, ContentType, Expiry, Correlation, User string
	Payload                                                      string
}

// subscribe begins a session for which the broker keeps what is published;
// collect gets n messages of it.
func (b *broker) subscribe() {
	b.t.Helper()
	b.mosquittoSub("-E")
}

func (b *broker) collect(n int) []received {
	b.t.Helper()
	var all []received
	for line := range strings.Lines(b.mosquittoSub("-C", fmt.Sprint(n), "-F", "%t|%q|%r|%C|%E|%D|%P|%p")) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 8)
		if len(f) != 8 {
			b.t.Fatalf("mosquitto_sub: %q", line)
		}
		all = append(all, received{f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]})
	}
	return all
}

// example is what the subscriber of examples/mqtt prints when it has had three
// messages; with no lines expected it only begins its session.
func (b *broker) example(lines int) []string {
	b.t.Helper()
	host, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	arguments := []string{"-h", host, "-p", port, "-i", "example", "-W", "60", "-E"}
	if lines > 0 {
		arguments = append(arguments[:len(arguments)-1], "-C", "3")
	}
	out, err := exec.Command("../examples/mqtt/subscribe.sh", arguments...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func (b *broker) mosquittoSub(arguments ...string) string {
	b.t.Helper()
	host, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	arguments = append(arguments, "-V", "5", "-c", "-x", "3600", "-i", "till", "-q", "1", "-t", "#", "-h", host, "-p", port, "-W", "60")
	cmd := exec.Command(program(b.t, "mosquitto_sub"), append(arguments, b.sub...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("mosquitto_sub: %v\n%s%s", err, out, stderr.String())
	}
	return string(out)
}

// logged is a log that can be waited for.
type logged struct {
	mu   sync.Mutex
	more *sync.Cond
	text strings.Builder
}

func newLogged() *logged {
	l := &logged{}
	l.more = sync.NewCond(&l.mu)
	return l
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.more.Broadcast()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// limit ends a wait in vain.
const limit = 20 * time.Second

// wait returns when the log has n times the text.
func (l *logged) wait(t *testing.T, text string, n int) {
	t.Helper()
	late := false
	defer time.AfterFunc(limit, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		late = true
		l.more.Broadcast()
	}).Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for strings.Count(l.text.String(), text) < n {
		if late {
			t.Fatalf("the log has not %d times %q:\n%s", n, text, l.text.String())
		}
		l.more.Wait()
	}
}

// terminal is an output under test.
type terminal struct {
	t       *testing.T
	mqtt    *readerd.MQTT
	log     *logged
	metrics *readerd.Metrics
	stop    func()
}

func openMQTT(t *testing.T, c readerd.MQTTConfig, state string, clock func() time.Time) *terminal {
	t.Helper()
	if c.ClientID == "" {
		c.ClientID = "terminal-3"
	}
	if c.Topic == "" {
		c.Topic = "freearea/{service}/{outcome}"
	}
	if c.Queue == 0 {
		c.Queue = 100
	}
	o := &terminal{t: t, log: newLogged(), metrics: readerd.NewMetrics(), stop: func() {}}
	m, err := c.Open(readerd.MQTTOptions{
		State: state, Clock: clock, Metrics: o.metrics, Retry: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(o.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	o.mqtt = m
	t.Cleanup(func() {
		o.stop()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func (o *terminal) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.mqtt.Run(ctx) }()
	o.stop = func() {
		o.stop = func() {}
		cancel()
		if err := <-ended; err != nil {
			o.t.Error(err)
		}
	}
}

func (o *terminal) tell(events ...readerd.Event) {
	o.t.Helper()
	for _, e := range events {
		if err := o.mqtt.Tell(o.t.Context(), e); err != nil {
			o.t.Fatal(err)
		}
	}
}

// count is a result's counter.
func (o *terminal) count(result string) string {
	page := httptest.NewRecorder()
	o.metrics.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if rest, ok := strings.CutPrefix(line, `freearea_output_events_total{output="`+o.mqtt.Name()+`",result="`+result+`"} `); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "0"
}

// delivered waits until the broker has confirmed n events.
func (o *terminal) delivered(n int) {
	o.t.Helper()
	for end := time.Now().Add(limit); o.count("delivered") != fmt.Sprint(n); {
		if time.Now().After(end) {
			o.t.Fatalf("%s events are delivered, %d expected:\n%s", o.count("delivered"), n, o.log)
		}
		time.Sleep(time.Millisecond)
	}
}

// waiting are the events on disk.
func waiting(t *testing.T, state string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(state, "mqtt", "terminal-3", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// tap is an accepted tap whose id is known by its number.
func tap(n int) readerd.Event {
	e := accepted(fmt.Sprintf("FA-%d", n))
	e.Tap.TapID = tapID(n)
	return e
}

func tapID(n int) string { return fmt.Sprintf("%032x", n) }

func ids(messages []received) []string {
	var all []string
	for _, m := range messages {
		all = append(all, strings.TrimLeft(m.Correlation, "0"))
	}
	return all
}

// TestMQTTMessage: what a subscriber gets.
func TestMQTTMessage(t *testing.T) {
	b := newBroker(t)
	b.start()
	b.subscribe()
	o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + b.addr, Topic: "hall/{slot}/{service}/{outcome}", Expiry: readerd.Duration(time.Hour)}, t.TempDir(), func() time.Time { return morning })
	o.run()
	refused := tap(2)
	refused.Outcome, refused.Reason, refused.Tap.Slot = readerd.Refused, "denied", "a/b+#\n"
	failed := readerd.Event{Outcome: readerd.Failed, Reason: "error", Err: &reader.TapError{Err: errors.New("noise")}}
	events := []readerd.Event{tap(1), refused, failed}
	o.tell(events...)
	got := b.collect(3)
	for i, topic := range []string{"hall/Reader 0/library/accepted", "hall/a_b___/library/refused", "hall/none/none/failed"} {
		payload, err := json.Marshal(events[i])
		if err != nil {
			t.Fatal(err)
		}
		id := tapID(i + 1)
		if i == 2 { // of no tap: drawn
			if id = got[i].Correlation; len(id) != 32 {
				t.Errorf("id %q", id)
			}
		}
		want := received{topic, "1", "0", "application/json", "3600", id, "tap:" + id, string(payload)}
		if diff := cmp.Diff(want, got[i]); diff != "" {
			t.Error(diff)
		}
	}
	o.delivered(3)
	if strings.Contains(o.log.String(), "FA-") {
		t.Error("an ID stands in the log")
	}
}

// TestMQTTBrokerAway: nothing is lost, and the order is kept, while the broker
// is away at the beginning and in the middle.
func TestMQTTBrokerAway(t *testing.T) {
	b := newBroker(t)
	b.start()
	b.subscribe()
	b.stop()
	state := t.TempDir()
	o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + b.addr}, state, nil)
	o.run()
	o.log.wait(t, "events wait on disk", 2)
	o.tell(tap(1), tap(2), tap(3))
	if n := len(waiting(t, state)); n != 3 {
		t.Errorf("%d events wait", n)
	}
	if info, err := os.Stat(filepath.Join(state, "mqtt", "terminal-3")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	b.start()
	o.delivered(3)
	b.stop()
	o.tell(tap(4))
	b.start()
	o.delivered(4)
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, ids(b.collect(4))); diff != "" {
		t.Error(diff)
	}
	if left := waiting(t, state); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
}

// TestMQTTTwice: a confirmation that is lost makes the event come twice, under
// the same id.
func TestMQTTTwice(t *testing.T) {
	b := newBroker(t)
	b.start()
	b.subscribe()
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections sync.WaitGroup
	connections.Go(func() {
		for cut := true; ; cut = false {
			near, err := proxy.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", b.addr)
			if err != nil {
				t.Error(err)
				return
			}
			end := func() { near.Close(); far.Close() }
			connections.Go(func() {
				defer end()
				_, _ = io.Copy(far, near)
			})
			connections.Go(func() {
				defer end()
				relay(near, far, cut)
			})
		}
	})
	b.example(0)
	o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + proxy.Addr().String()}, t.TempDir(), nil)
	o.run()
	o.tell(tap(1), tap(2))
	o.delivered(2)
	if diff := cmp.Diff([]string{"1", "1", "2"}, ids(b.collect(3))); diff != "" {
		t.Error(diff)
	}
	o.stop()
	once := b.example(2)
	if len(once) != 2 || !strings.Contains(once[0], `"id":"FA-1"`) || !strings.Contains(once[1], `"id":"FA-2"`) {
		t.Errorf("the example's subscriber prints %q", once)
	}
	proxy.Close()
	connections.Wait()
}

// relay hands on packets of less than 128 bytes. Where it cuts, it stops
// before the first PUBACK (MQTT 5, 2.1.2: type 4).
func relay(to io.Writer, from io.Reader, cut bool) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(from, head[:]); err != nil || cut && head[0]>>4 == 4 {
			return
		}
		rest := make([]byte, head[1])
		if _, err := io.ReadFull(from, rest); err != nil {
			return
		}
		if _, err := to.Write(append(head[:], rest...)); err != nil {
			return
		}
	}
}

// TestMQTTKilled: an event that was told is published by the next service,
// although the one that was told was killed.
func TestMQTTKilled(t *testing.T) {
	const variable = "FREEAREA_TEST_KILLED"
	if said := os.Getenv(variable); said != "" {
		address, state, _ := strings.Cut(said, " ")
		o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + address}, state, nil)
		o.run()
		o.tell(tap(1), tap(2))
		fmt.Println("told")
		select {} // until it is killed
	}
	b := newBroker(t)
	b.start()
	b.subscribe()
	b.stop()
	state := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMQTTKilled$")
	cmd.Env = append(os.Environ(), variable+"="+b.addr+" "+state)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if killed := cmd.Process.Kill(); err != nil || line != "told\n" || killed != nil {
		t.Fatal(line, err, killed)
	}
	_ = cmd.Wait()
	half := filepath.Join(state, "mqtt", "terminal-3", "00000000000000000002.json.123.new")
	if err := os.WriteFile(half, []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + b.addr}, state, nil)
	o.tell(tap(3))
	o.run()
	if diff := cmp.Diff([]string{"1", "2", "3"}, ids(b.collect(3))); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was half written: %v", err)
	}
}

// TestMQTTReload: two services at the same queue would publish everything
// twice; the next one has it when the one before has closed it.
func TestMQTTReload(t *testing.T) {
	state := t.TempDir()
	c := readerd.MQTTConfig{Broker: "mqtt://127.0.0.1:1"}
	before := openMQTT(t, c, state, nil)
	before.tell(tap(1))
	next := openMQTT(t, c, state, nil)
	if err := next.mqtt.Tell(t.Context(), tap(2)); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("both have it: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := next.mqtt.Run(ctx); err == nil {
		t.Error("both run")
	}
	if err := before.mqtt.Close(); err != nil {
		t.Fatal(err)
	}
	next.tell(tap(2))
	if n := len(waiting(t, state)); n != 2 {
		t.Errorf("%d events wait", n)
	}
}

// TestMQTTBound: the oldest give way, are counted and logged.
func TestMQTTBound(t *testing.T) {
	b := newBroker(t)
	b.start()
	b.subscribe()
	o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + b.addr, Queue: 3}, t.TempDir(), nil)
	o.tell(tap(1), tap(2), tap(3), tap(4), tap(5))
	if n := o.count("lost"); n != "2" {
		t.Errorf("lost: %s", n)
	}
	if n := strings.Count(o.log.String(), "the queue is full"); n != 2 {
		t.Errorf("logged %d times: %s", n, o.log)
	}
	o.run()
	if diff := cmp.Diff([]string{"3", "4", "5"}, ids(b.collect(3))); diff != "" {
		t.Error(diff)
	}
}

// TestMQTTExpiry: the time on disk counts. What has expired, or was damaged, is
// lost and holds up nothing.
func TestMQTTExpiry(t *testing.T) {
	b := newBroker(t)
	b.start()
	b.subscribe()
	var now atomic.Int64
	state := t.TempDir()
	o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + b.addr, Expiry: readerd.Duration(time.Hour)}, state, func() time.Time {
		return morning.Add(time.Duration(now.Load()))
	})
	o.tell(tap(1))
	now.Store(int64(30 * time.Minute))
	o.tell(tap(2), tap(3), tap(4))
	now.Store(int64(time.Hour))
	files := waiting(t, state)
	if err := os.WriteFile(files[1], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(files[2]); err != nil {
		t.Fatal(err)
	}
	o.run()
	got := b.collect(1)
	if diff := cmp.Diff([]string{"4"}, ids(got)); diff != "" || got[0].Expiry != "1800" {
		t.Errorf("%s, expires in %s s", diff, got[0].Expiry)
	}
	if n := o.count("lost"); n != "3" || strings.Count(o.log.String(), "it has expired") != 1 || strings.Count(o.log.String(), "its file is damaged") != 2 {
		t.Errorf("lost: %s\n%s", n, o.log)
	}
}

// TestMQTTPassword: with a wrong password events wait.
func TestMQTTPassword(t *testing.T) {
	b := newBroker(t, "allow_anonymous false", "password_file PASSWORDS")
	config := filepath.Join(b.dir, "mosquitto.conf")
	passwords := b.write("passwords", "")
	for _, user := range []string{"terminal", "till"} {
		if out, err := exec.Command(program(t, "mosquitto_passwd"), "-b", passwords, user, "sesame "+user).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	b.write("mosquitto.conf", strings.Replace(string(text), "PASSWORDS", passwords, 1))
	b.sub = []string{"-u", "till", "-P", "sesame till"}
	b.start()
	b.subscribe()
	state := t.TempDir()
	secret := b.write("secret", "open sesame\n")
	c := readerd.MQTTConfig{Broker: "mqtt://" + b.addr, User: "terminal", PasswordFile: secret}
	o := openMQTT(t, c, state, nil)
	o.run()
	o.tell(tap(1))
	o.log.wait(t, "broker refuses the connection: ", 2)
	o.stop()
	if err := o.mqtt.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(o.log.String(), "sesame") || len(waiting(t, state)) != 1 {
		t.Errorf("%d events wait; log:\n%s", len(waiting(t, state)), o.log)
	}
	b.write("secret", "sesame terminal\n")
	openMQTT(t, c, state, nil).run()
	if diff := cmp.Diff([]string{"1"}, ids(b.collect(1))); diff != "" {
		t.Error(diff)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(secret, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(readerd.MQTTOptions{}); err == nil || !strings.Contains(err.Error(), "mode 0640, 0600 expected") {
		t.Errorf("others can read the password: %v", err)
	}
}

// TestMQTTNotAllowed: a terminal without the right to publish keeps its events.
func TestMQTTNotAllowed(t *testing.T) {
	b := newBroker(t, "allow_anonymous true", "acl_file ACL")
	config := filepath.Join(b.dir, "mosquitto.conf")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	b.write("mosquitto.conf", strings.Replace(string(text), "ACL", b.write("acl", "topic read #\n"), 1))
	b.start()
	state := t.TempDir()
	o := openMQTT(t, readerd.MQTTConfig{Broker: "mqtt://" + b.addr}, state, nil)
	o.run()
	o.tell(tap(1))
	o.log.wait(t, "broker refuses an event: ", 2)
	o.stop()
	if n := len(waiting(t, state)); n != 1 {
		t.Errorf("%d events wait", n)
	}
}

// authority is a certification authority of a test's.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.file, _ = a.issue("ca", nil)
	return a
}

// issue makes a certificate and a key; without a parent, the authority's own.
func (a *authority) issue(name string, parent *x509.Certificate) (certificate, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer := a.key
	if parent == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		parent, signer = template, k
		a.key = k
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &k.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if template.IsCA {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	save := func(suffix, kind string, der []byte) string {
		path := filepath.Join(a.dir, name+suffix)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	return save(".pem", "CERTIFICATE", der), save(".key", "PRIVATE KEY", private)
}

// TestMQTTTLS: both sides show certificates. A broker of another authority, and
// a terminal without its certificate, publish nothing.
func TestMQTTTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	certificate, key := ca.issue("broker", ca.cert)
	b := newBroker(t, "allow_anonymous true", "cafile "+ca.file, "certfile "+certificate, "keyfile "+key, "require_certificate true")
	certificate, key = ca.issue("terminal", ca.cert)
	b.sub = []string{"--cafile", ca.file, "--cert", certificate, "--key", key}
	b.start()
	b.subscribe()
	state := t.TempDir()
	good := readerd.MQTTConfig{Broker: "mqtts://" + b.addr, CA: ca.file, Certificate: certificate, Key: key}
	for _, test := range []struct {
		name   string
		change func(*readerd.MQTTConfig)
		want   string
	}{
		{"the broker of another authority", func(c *readerd.MQTTConfig) { c.CA = other.file }, "certificate signed by unknown authority"},
		{"the system's roots", func(c *readerd.MQTTConfig) { c.CA = "" }, "certificate signed by unknown authority"},
		{"another name", func(c *readerd.MQTTConfig) { c.Broker = strings.Replace(c.Broker, "127.0.0.1", "localhost", 1) }, "localhost"},
		{"no certificate", func(c *readerd.MQTTConfig) { c.Certificate, c.Key = "", "" }, "events wait on disk"},
	} {
		c := good
		test.change(&c)
		o := openMQTT(t, c, state, nil)
		o.run()
		o.log.wait(t, "events wait on disk", 2)
		o.stop()
		if err := o.mqtt.Close(); err != nil {
			t.Fatal(err)
		}
		if log := o.log.String(); !strings.Contains(log, test.want) || strings.Contains(log, "msg=connected") {
			t.Errorf("%s: %s", test.name, log)
		}
	}
	o := openMQTT(t, good, state, nil)
	o.run()
	o.tell(tap(1))
	if diff := cmp.Diff([]string{"1"}, ids(b.collect(1))); diff != "" {
		t.Error(diff)
	}
	for _, c := range []readerd.MQTTConfig{
		{Broker: good.Broker, CA: key},
		{Broker: good.Broker, CA: filepath.Join(t.TempDir(), "none")},
		{Broker: good.Broker, Certificate: ca.file, Key: key},
	} {
		if _, err := c.Open(readerd.MQTTOptions{}); err == nil || !strings.Contains(err.Error(), c.CA+c.Certificate) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
