package provisioner_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/examples"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/internal/sweep"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/reader"
)

var japan = time.FixedZone("JST", 9*60*60)

// start is when a test begins, shortly before midnight in Japan: a run that is
// repeated is repeated on another day.
var start = time.Date(2026, 4, 1, 23, 59, 0, 0, japan)

// figures are what the sweeps of this package count.
var figures sweep.Tally

// directory is where the tests' files are. In memory where the system has
// such a place: thousands of runs are recorded, and each event waits for the
// disk.
var directory string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		base := ""
		if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
			base = "/dev/shm"
		}
		var err error
		if directory, err = os.MkdirTemp(base, "freearea-provisioner-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(directory)
		status := m.Run()
		if err := figures.Report(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return status
	}())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails the test unless err wraps target.
func wants(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}

// The example services.
var (
	points  = parse("shopping-street.toml") // common-ap
	library = parse("city-library.toml")    // type-a with PIN
	office  = parse("office-pass.toml")     // type-d
	all     = []*manifest.Manifest{points, library, office}

	record = parse("driving-record.toml") // by recipe, with PIN
)

func parse(name string) *manifest.Manifest {
	return must(manifest.Parse(name, must(examples.Files.ReadFile(name))))
}

var baseLoadFile = must(capfile.Parse(applets.BaseLoadFile()))

// store is a keystore with every key that the examples name. Tests only read it.
var store = sync.OnceValue(func() *file.Store {
	ctx := context.Background()
	s := must(file.Create(ctx, filepath.Join(directory, "keys"), []byte("test"), file.Options{Cost: file.Cost{Time: 1, Memory: 64, Threads: 1}}))
	add := func(name string, kind keys.Kind) {
		must(s.Generate(ctx, file.New{Name: name, Kind: kind}))
	}
	add("card-manager", keys.SecurityDomain)
	add("other-manager", keys.SecurityDomain)
	add("provider", keys.SecurityDomain)
	add("service", keys.SecurityDomain)
	add("counter", keys.CounterSigning)
	add("ledger", keys.Ledger)
	for _, m := range []*manifest.Manifest{library, office} {
		for version := byte(1); version <= 2; version++ {
			must(s.Generate(ctx, file.New{Name: m.Keys.Read, Kind: keys.Read, Version: version}))
		}
	}
	for _, m := range append(all, record) {
		if m.Keys.IssuerSigning != "" {
			add(m.Keys.IssuerSigning, keys.IssuerSigning)
		}
	}
	return s
})

// firstKeys is a store before there was a second version of the read keys.
type firstKeys struct{ *file.Store }

func (s firstKeys) Entries(ctx context.Context) ([]keys.Entry, error) {
	list, err := s.Store.Entries(ctx)
	return slices.DeleteFunc(list, func(e keys.Entry) bool { return e.Kind == keys.Read && e.Version > 1 }), err
}

func (s firstKeys) ReadKeys(ctx context.Context, ref keys.Ref, method keys.Method, instance iso7816.AID, data []byte) (keys.Set, error) {
	ref.Version = 1
	return s.Store.ReadKeys(ctx, ref, method, instance, data)
}

func publicKey(name string) ed25519.PublicKey {
	return must(store().PublicKey(context.Background(), keys.Ref{Name: name}))
}

// book is a ledger that can fail, as a full disk and a crash do, and that
// knows whether a step is intended right now.
type book struct {
	*ledger.Ledger
	writes   int // so far
	failAt   int // which write from now on fails; 0 is none
	after    bool
	intended bool
	events   int // that were written
	cards    int // that were made for it
	ids      int // that the library has given
}

var errDisk = errors.New("the disk is full")

func (b *book) write(f func() error) error {
	b.writes++
	if b.failAt > 0 && b.writes >= b.failAt {
		if b.after && b.writes == b.failAt {
			if err := f(); err != nil { // written, and nobody was told
				return err
			}
		}
		return errDisk
	}
	return f()
}

func (b *book) Append(ctx context.Context, events ...ledger.Event) (seq int64, err error) {
	err = b.write(func() (err error) {
		if seq, err = b.Ledger.Append(ctx, events...); err == nil {
			b.events += len(events)
		}
		return err
	})
	if err == nil {
		for _, e := range events {
			switch e.Data.(type) {
			case ledger.StepIntended:
				b.intended = true
			case ledger.StepDone, ledger.StepFailed, ledger.RunFinished:
				b.intended = false
			}
		}
	}
	return seq, err
}

func (b *book) ReserveID(ctx context.Context, r ledger.Reservation) (id string, again bool, err error) {
	err = b.write(func() (err error) {
		if id, again, err = b.Ledger.ReserveID(ctx, r); err == nil && !again {
			b.events++
		}
		return err
	})
	return id, again, err
}

// fail arranges for the n-th write from now on, and all after it, to fail: the
// program has crashed.
func (b *book) fail(n int, after bool) { b.writes, b.failAt, b.after, b.intended = 0, n, after, false }

func newBook(t testing.TB) *book {
	t.Helper()
	dir := must(os.MkdirTemp(directory, "ledger-"))
	clock := start
	l, err := ledgertest.Open(t.Context(), filepath.Join(dir, "ledger"), "clerk", ledger.Options{
		Create: true, Clock: func() time.Time { clock = clock.Add(time.Second); return clock },
	})
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()); os.RemoveAll(dir) })
	return &book{Ledger: l}
}

// wire is the connection to a card. It counts commands, and notes what the
// card wrote without an intention in the ledger.
type wire struct {
	*emulator.Card
	book     *book
	commands [][]byte
	stray    error
	before   func(command []byte) // called before each command
}

func (w *wire) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	w.commands = append(w.commands, command)
	if w.before != nil {
		w.before(command)
	}
	intended, n := w.book.intended, w.written()
	response, err := w.Card.Transmit(ctx, command)
	if w.written() != n && !intended && w.stray == nil {
		w.stray = fmt.Errorf("command % X wrote to the card, and no step was intended", command[:4])
	}
	return response, err
}

// written is how many writes the card has made.
func (w *wire) written() int {
	n := 0
	for _, x := range w.Card.Writes() {
		n += x
	}
	return n
}

// sent counts the commands with an instruction byte.
func (w *wire) sent(ins byte) int {
	n := 0
	for _, c := range w.commands {
		if c[1] == ins {
			n++
		}
	}
	return n
}

// counter is a clerk with one holder's card.
type counter struct {
	t    testing.TB
	ctx  context.Context // of issuing and withdrawing
	now  time.Time
	wire *wire
	*provisioner.Provisioner
	book    *book
	profile emulator.Profile
}

type option func(*emulator.Config)

func withMemory(n int) option {
	return func(c *emulator.Config) { c.Profile.PersistentMemory = n }
}

func newCounter(t testing.TB, b *book, options ...option) *counter {
	t.Helper()
	ctx := t.Context()
	b.cards++
	domain := must(store().SecurityDomainKeys(ctx, keys.Ref{Name: "card-manager"}, keys.MethodNone, nil))
	defer domain.Erase()
	cfg := emulator.Config{
		Profile: must(emulator.LookupProfile("contactless")), Linker: emulatedcard.Linker(), Keys: domain,
		IIN: []byte{0x42}, CIN: binary.BigEndian.AppendUint32(nil, uint32(b.cards)), DiversificationData: [10]byte{9: 1},
	}
	for _, o := range options {
		o(&cfg)
	}
	c := &counter{t: t, ctx: ctx, now: start, book: b, wire: &wire{Card: must(emulator.New(cfg)), book: b}, profile: cfg.Profile}
	c.emulated().CountWrites()
	c.Provisioner = &provisioner.Provisioner{
		Card: c.wire, CardProfile: must(globalplatform.LookupCardProfile("emulated")), Profiles: applets.Base(),
		Keys: firstKeys{store()}, SecurityDomainKey: keys.Ref{Name: "card-manager"}, Diversification: keys.MethodNone,
		LedgerKey: keys.Ref{Name: "ledger"}, Ledger: b, Actor: ledger.Actor{Operator: "clerk", Counter: "window-1"},
	}
	return c
}

// Card is the emulated card: the provisioner's is the wire to it.
func (c *counter) emulated() *emulator.Card { return c.wire.Card }

// givenID is an ID as the library's own system gives them.
func (b *book) givenID() string {
	for {
		b.ids++
		for digit := range 10 {
			if id := fmt.Sprintf("%09d%d", 204500000+b.ids, digit); library.CheckID(id) == nil {
				return id
			}
		}
	}
}

// request is a request with a fresh consent, signed at the counter.
func (c *counter) request(m *manifest.Manifest) provisioner.Request {
	c.t.Helper()
	r := provisioner.Request{
		Manifest: m, LoadFile: baseLoadFile, CounterKey: publicKey("counter"), Now: c.now,
		CardExpiry: time.Date(2034, 7, 10, 0, 0, 0, 0, japan),
	}
	switch m {
	case library:
		r.Subject = manifest.Subject{ID: c.book.givenID(), Items: map[string]string{"category": "ADULT", "home-branch": "中央館"}, PIN: "2580"}
	case record:
		r.LoadFile = must(m.OpenLoadFile())
		c.book.ids++
		r.Subject = manifest.Subject{ID: fmt.Sprintf("DR%010d", c.book.ids), Items: map[string]string{"class": "GOLD"}, PIN: "2580"}
	case office:
		r.Subject = manifest.Subject{Items: map[string]string{"area": "HQ-2F"}}
	}
	r.Consent = c.consent(m, m.SubjectItems(r.Subject))
	return r
}

func (c *counter) consent(m *manifest.Manifest, items []string) *consent.Signed {
	c.t.Helper()
	record, err := consent.New(m, consent.Options{
		Language: manifest.Japanese, Format: consent.Text, Items: items, Given: c.now, Method: consent.Paper,
		Asked: consent.Asked{Operator: "clerk", Counter: "window-1"}, Paper: &consent.Form{Reference: "R-1", Scan: consent.Hash{1}},
	})
	check(c.t, err)
	return must(consent.Sign(c.t.Context(), store(), keys.Ref{Name: "counter"}, record))
}

// plan checks a request, connects and plans, as the command line does.
func (c *counter) plan(r provisioner.Request) (*provisioner.Session, *provisioner.Plan, error) {
	ctx := c.ctx
	d, err := c.Desire(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	s, err := c.Connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	plan, err := c.PlanIssue(ctx, s, d)
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, plan, nil
}

func (c *counter) issue(r provisioner.Request) (*provisioner.Result, error) {
	s, plan, err := c.plan(r)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return c.Run(c.ctx, s, plan)
}

func (c *counter) mustIssue(r provisioner.Request) *provisioner.Result {
	c.t.Helper()
	result, err := c.issue(r)
	check(c.t, err)
	return result
}

func (c *counter) withdraw(m *manifest.Manifest) (*provisioner.Result, error) {
	s, err := c.Connect(c.ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	plan, err := c.PlanWithdraw(c.ctx, s, m)
	if err != nil {
		return nil, err
	}
	return c.Run(c.ctx, s, plan)
}

// read reads the card as a terminal of the service does.
func (c *counter) read(m *manifest.Manifest, pin string) (*reader.Tap, error) {
	c.t.Helper()
	return c.tap(c.t.Context(), c.emulated(), m, pin)
}

// tap does so with any card.
func (c *counter) tap(ctx context.Context, card iso7816.Card, m *manifest.Manifest, pin string) (*reader.Tap, error) {
	c.t.Helper()
	profile, _ := m.LookupProfile(c.Profiles)
	s := reader.Service{
		ID: m.ID, Profile: profile, Instance: m.Application.Instance, Items: len(m.Items) > 0,
		ReadKey: keys.Ref{Name: m.Keys.Read}, Diversification: m.Keys.Diversification,
	}
	if m.Keys.IssuerSigning != "" {
		s.IssuerKey = publicKey(m.Keys.IssuerSigning)
	}
	r := must(reader.New(reader.Options{
		Services: []reader.Service{s}, Keys: store(), Clock: func() time.Time { return c.now }, PINAtHand: true,
		PIN: func(context.Context, reader.PINQuestion) (applets.PIN, error) { return applets.NewPIN(pin) },
	}))
	return r.Read(ctx, card)
}

// holds fails the test unless the card answers this ID.
func (c *counter) holds(m *manifest.Manifest, id string) *reader.Tap {
	c.t.Helper()
	tap, err := c.read(m, "2580")
	if err != nil {
		c.t.Fatalf("read %s: %v", m.ID, err)
	}
	if tap.ID != id {
		c.t.Fatalf("%s: the card answers ID %q, %q was issued", m.ID, tap.ID, id)
	}
	return tap
}

// domain opens a channel to the Security Domain beside the provisioner.
func (c *counter) domain() *scp.Session {
	c.t.Helper()
	ctx := c.t.Context()
	plain := iso7816.Plain(c.emulated())
	_, err := globalplatform.Select(ctx, plain, globalplatform.IssuerSecurityDomain)
	check(c.t, err)
	set := must(store().SecurityDomainKeys(ctx, keys.Ref{Name: "card-manager"}, keys.MethodNone, nil))
	defer set.Erase()
	s, err := scp.Open(ctx, plain, set, scp.HostOptions{Level: scp.Full})
	check(c.t, err)
	return s
}

// execute sends commands to the Security Domain beside the provisioner.
func (c *counter) execute(commands ...globalplatform.Commander) {
	c.t.Helper()
	s := c.domain()
	defer s.Close()
	for _, x := range commands {
		_, err := globalplatform.Execute(c.t.Context(), s, x)
		check(c.t, err)
	}
}

// observe asks the service's instance what it holds; ok is false where there
// is no instance.
func (c *counter) observe(m *manifest.Manifest) (o applets.Observation, ok bool) {
	c.t.Helper()
	ctx := c.t.Context()
	s := c.domain()
	_, err := globalplatform.Execute(ctx, s, globalplatform.InstallForPersonalization{Instance: m.Application.Instance})
	for _, d := range c.Domains {
		if !errors.Is(err, iso7816.ErrConditions) {
			break
		}
		s.Close()
		s = c.channel(d.AID, c.domainKeys(d))
		_, err = globalplatform.Execute(ctx, s, globalplatform.InstallForPersonalization{Instance: m.Application.Instance})
	}
	defer s.Close()
	if errors.Is(err, iso7816.ErrDataNotFound) {
		return o, false
	}
	check(c.t, err)
	profile, _ := m.LookupProfile(c.Profiles)
	if x, is := profile.(applets.Observer); is {
		o, err = x.Observe(ctx, c.emulated(), m.Application.Instance)
		check(c.t, err)
		return o, true
	}
	blocks := must(globalplatform.StoreBlocks([][]byte{profile.ObservationRequest()}, globalplatform.StoreOptions{Format: globalplatform.FormatDGI, Answer: true}))
	answer, err := iso7816.Do(ctx, s, must(blocks[0].Command()))
	check(c.t, err)
	o, err = profile.ParseObservation(answer)
	check(c.t, err)
	return o, true
}

// registry is everything that the card lists.
func (c *counter) registry() string {
	c.t.Helper()
	ctx := c.t.Context()
	s := c.domain()
	defer s.Close()
	apps := must(globalplatform.GetStatus(ctx, s, globalplatform.ScopeApplications, iso7816.AID{}))
	files := must(globalplatform.GetStatus(ctx, s, globalplatform.ScopeLoadFilesAndModules, iso7816.AID{}))
	return fmt.Sprintf("%v\n%v", apps, files)
}

// events returns the data of all events of one kind that a filter chooses.
func events[T ledger.Data](t testing.TB, b *book, f ledger.Filter) []T {
	t.Helper()
	var out []T
	for e, err := range b.Events(t.Context(), f) {
		check(t, err)
		if d, ok := e.Data.(T); ok {
			out = append(out, d)
		}
	}
	return out
}

// cardRef is how the ledger names the card.
func (c *counter) cardRef() ledger.CardRef {
	c.t.Helper()
	s, err := c.Connect(c.t.Context())
	check(c.t, err)
	defer s.Close()
	return s.CardRef
}

func cardProfile(name string) globalplatform.CardProfile {
	return must(globalplatform.LookupCardProfile(name))
}
