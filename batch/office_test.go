package batch_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/batch"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/examples"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

var (
	japan = time.FixedZone("JST", 9*60*60)
	start = time.Date(2026, 4, 1, 10, 0, 0, 0, japan)
)

// directory is where the tests' files are, in memory where the system has such
// a place: every event waits for the disk.
var directory string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		base := ""
		if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
			base = "/dev/shm"
		}
		var err error
		if directory, err = os.MkdirTemp(base, "freearea-batch-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(directory)
		return m.Run()
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

var (
	points  = parse("shopping-street.toml") // common-ap, drawn IDs
	library = parse("city-library.toml")    // type-a, given IDs, items, PIN

	loadFile = must(capfile.Parse(applets.BaseLoadFile()))
)

func parse(name string) *manifest.Manifest {
	return must(manifest.Parse(name, must(examples.Files.ReadFile(name))))
}

// store is a keystore with the keys that the services name. Tests only read it.
var store = sync.OnceValue(func() *file.Store {
	ctx := context.Background()
	s := must(file.Create(ctx, filepath.Join(directory, "keys"), []byte("test"), file.Options{Cost: file.Cost{Time: 1, Memory: 64, Threads: 1}}))
	for name, kind := range map[string]keys.Kind{
		"card-manager": keys.SecurityDomain, "counter": keys.CounterSigning, "ledger": keys.Ledger, library.Keys.Read: keys.Read,
		library.Keys.IssuerSigning: keys.IssuerSigning, points.Keys.IssuerSigning: keys.IssuerSigning,
	} {
		must(s.Generate(ctx, file.New{Name: name, Kind: kind}))
	}
	return s
})

// office is where cards are issued: a ledger, a folder with the list's files,
// slots, and a clock.
type office struct {
	t     testing.TB
	dir   string
	book  *ledger.Ledger
	slots *emulator.Slots
	names []string // of the slots
	cards int

	mu  sync.Mutex
	now time.Time
}

func newOffice(t testing.TB, slots int) *office {
	t.Helper()
	o := &office{t: t, dir: must(os.MkdirTemp(directory, "office-")), now: start}
	t.Cleanup(func() { os.RemoveAll(o.dir) })
	o.book = o.open()
	for i := range slots {
		o.names = append(o.names, fmt.Sprintf("slot %02d", i))
	}
	o.slots = emulator.NewSlots(o.names...)
	return o
}

// open opens the office's ledger, as another process does too.
func (o *office) open() *ledger.Ledger {
	o.t.Helper()
	l, err := ledgertest.Open(o.t.Context(), filepath.Join(o.dir, "ledger"), "clerk", ledger.Options{Create: true, Clock: o.clock})
	check(o.t, err)
	o.t.Cleanup(func() { check(o.t, l.Close()) })
	return l
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = o.now.Add(time.Second)
	return o.now
}

func (o *office) write(name, text string) string {
	o.t.Helper()
	check(o.t, os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600))
	return name
}

func sign(t testing.TB, m *manifest.Manifest, given time.Time, items ...string) *consent.Signed {
	t.Helper()
	record, err := consent.New(m, consent.Options{
		Language: manifest.Japanese, Format: consent.HTML, Items: items, Given: given, Method: consent.Paper,
		Asked: consent.Asked{Operator: "clerk", Counter: "window-1"}, Paper: &consent.Form{Reference: "R-1", Scan: consent.Hash{1}},
	})
	check(t, err)
	return must(consent.Sign(t.Context(), store(), keys.Ref{Name: "counter"}, record))
}

// consent writes a fresh consent's file and returns its name.
func (o *office) consent(name string, m *manifest.Manifest, items ...string) string {
	o.t.Helper()
	return o.write(name, string(sign(o.t, m, start, items...).Encode()))
}

// list is a list of n rows of the service whose IDs are drawn, without CINs.
func (o *office) list(n int) string {
	o.t.Helper()
	text := "consent,card-expiry,reference\n"
	for i := range n {
		text += fmt.Sprintf("%s,2031-05-20,M-%03d\n", o.consent(fmt.Sprintf("%03d.json", i), points), i)
	}
	return text
}

func cin(n int) string { return fmt.Sprintf("%08X", n) }

// card makes a card; its CIN is 4 bytes that count.
func (o *office) card() *emulator.Card {
	o.t.Helper()
	o.cards++
	domain := must(store().SecurityDomainKeys(context.Background(), keys.Ref{Name: "card-manager"}, keys.MethodNone, nil))
	defer domain.Erase()
	return must(emulator.New(emulator.Config{
		Profile: must(emulator.LookupProfile("contactless")), Linker: emulatedcard.Linker(), Keys: domain,
		IIN: []byte{0x42}, CIN: binary.BigEndian.AppendUint32(nil, uint32(o.cards)), DiversificationData: [10]byte{9: 1},
	}))
}

func (o *office) options(m *manifest.Manifest, l batch.Ledger) batch.Options {
	return batch.Options{
		Manifest: m, LoadFile: loadFile, Ledger: l, Dir: o.dir, Source: o.slots, Now: o.clock, Poll: 10 * time.Millisecond,
		Provisioner: provisioner.Provisioner{
			CardProfile: must(globalplatform.LookupCardProfile("emulated")), Profiles: applets.Base(),
			Keys: store(), SecurityDomainKey: keys.Ref{Name: "card-manager"}, Diversification: keys.MethodNone,
			LedgerKey: keys.Ref{Name: "ledger"}, Actor: ledger.Actor{Operator: "clerk", Counter: "window-1"},
		},
		CounterKey: func(ctx context.Context, k consent.Key) (ed25519.PublicKey, error) {
			return store().PublicKey(ctx, k.Ref())
		},
		PIN: func(_ context.Context, path string) (manifest.PINDigits, error) {
			data, err := os.ReadFile(path)
			return manifest.PINDigits(bytes.TrimSpace(data)), err
		},
	}
}

// run is a batch that runs beside the test.
type run struct {
	t      testing.TB
	b      *batch.Batch
	stop   context.CancelFunc
	done   chan error
	events chan batch.Event // all but progress
}

// begin starts a batch of the service whose IDs are drawn.
func (o *office) begin(text string, change ...func(*batch.Options)) *run {
	o.t.Helper()
	opts := o.options(points, o.book)
	r := &run{t: o.t, done: make(chan error, 1), events: make(chan batch.Event, 1000)}
	opts.Observe = func(e batch.Event) {
		if e.Kind != batch.Progress {
			r.events <- e
		}
	}
	for _, f := range change {
		f(&opts)
	}
	list, err := batch.Parse("list.csv", []byte(text), opts.Manifest, "")
	check(o.t, err)
	r.b, err = batch.New(o.t.Context(), list, opts)
	check(o.t, err)
	var ctx context.Context
	ctx, r.stop = context.WithCancel(o.t.Context())
	go func() { r.done <- r.b.Run(ctx) }()
	return r
}

// wait returns the next event of one of the kinds.
func (r *run) wait(kinds ...batch.EventKind) batch.Event {
	r.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case e := <-r.events:
			if slices.Contains(kinds, e.Kind) {
				return e
			}
		case <-limit:
			r.t.Fatalf("no event of the kinds %v: %+v", kinds, r.b.Totals())
		}
	}
}

// end waits for the batch's end and returns its report.
func (r *run) end() *batch.Report {
	r.t.Helper()
	select {
	case err := <-r.done:
		check(r.t, err)
	case <-time.After(time.Minute):
		r.t.Fatalf("the batch does not end: %+v", r.b.Totals())
	}
	report, err := r.b.Report(context.Background())
	check(r.t, err)
	return report
}

// states is a report's rows in short: their states, with the code of the error.
func states(r *batch.Report) string {
	var out []string
	for _, e := range r.Rows {
		s := string(e.State)
		if e.Code != "" {
			s += " " + e.Code
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func (o *office) insert(slot int, card iso7816.Card) {
	o.t.Helper()
	check(o.t, o.slots.Insert(o.names[slot], card))
}

func (o *office) remove(slot int) {
	o.t.Helper()
	check(o.t, o.slots.Remove(o.names[slot]))
}

// issues are the issues in the ledger, by consent.
func (o *office) issues() map[string]ledger.Issued {
	o.t.Helper()
	out := map[string]ledger.Issued{}
	for e, err := range o.book.Events(o.t.Context(), ledger.Filter{Kinds: []ledger.Kind{ledger.KindIssued}}) {
		check(o.t, err)
		d := e.Data.(ledger.Issued)
		if have, twice := out[d.Consent]; twice {
			o.t.Errorf("consent %s is issued to card %s and to %s", d.Consent, have.Card, d.Card)
		}
		out[d.Consent] = d
	}
	return out
}
