package handover_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/examples"
	"github.com/freearea/freearea/handover"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
	"github.com/freearea/freearea/manifest"
)

const (
	cardA = ledger.CardRef("0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")
	cardB = ledger.CardRef("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b")
)

var (
	start = time.Date(2026, 4, 1, 1, 0, 0, 0, time.UTC)
	clerk = ledger.Actor{Operator: "clerk", Counter: "window-1"}
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// office is a ledger and a keystore, as a counter has them.
type office struct {
	*ledger.Ledger
	t     *testing.T
	store *file.Store
	m     *manifest.Manifest
	fail  bool // to append
	runs  int
}

func newOffice(t *testing.T) *office {
	t.Helper()
	dir := t.TempDir()
	clock := start
	l, err := ledgertest.Open(t.Context(), filepath.Join(dir, "ledger"), clerk.Operator, ledger.Options{Create: true, Clock: func() time.Time {
		clock = clock.Add(time.Second)
		return clock
	}})
	check(t, err)
	t.Cleanup(func() { l.Close() })
	store, err := file.Create(t.Context(), filepath.Join(dir, "keys"), []byte("test"), file.Options{Cost: file.Cost{Time: 1, Memory: 64, Threads: 1}})
	check(t, err)
	_, err = store.Generate(t.Context(), file.New{Name: "counter", Kind: keys.CounterSigning})
	check(t, err)
	text, err := examples.Files.ReadFile("shopping-street.toml")
	check(t, err)
	m, err := manifest.Parse("shopping-street.toml", text)
	check(t, err)
	return &office{Ledger: l, t: t, store: store, m: m}
}

func (o *office) Append(ctx context.Context, events ...ledger.Event) (int64, error) {
	if o.fail {
		return 0, errors.New("the disk is full")
	}
	return o.Ledger.Append(ctx, events...)
}

func (o *office) add(data ...ledger.Data) {
	o.t.Helper()
	var events []ledger.Event
	for _, d := range data {
		events = append(events, ledger.Event{Actor: clerk, Data: d})
	}
	_, err := o.Ledger.Append(o.t.Context(), events...)
	check(o.t, err)
}

// consented records a consent of a holder, bound to a card.
func (o *office) consented(holder string, card ledger.CardRef) string {
	o.t.Helper()
	record, err := consent.New(o.m, consent.Options{
		Language: "en", Format: consent.Text, Given: start, Method: consent.Paper, Holder: holder,
		Asked: consent.Asked{Operator: "clerk", Counter: "window-1"}, Paper: &consent.Form{Reference: "R-1", Scan: consent.Hash{1}},
	})
	check(o.t, err)
	signed, err := consent.Sign(o.t.Context(), o.store, keys.Ref{Name: "counter"}, record)
	check(o.t, err)
	o.add(ledger.ConsentRecorded{
		Consent: record.ID, Service: o.m.ID, Manifest: strings.Repeat("5a", 32), Method: "paper",
		Given: start, Until: start.AddDate(0, 0, 60), Signed: signed.Encode(),
	}, ledger.CardBound{Consent: record.ID, Card: card})
	return record.ID
}

// run records a run with an outcome.
func (o *office) run(card ledger.CardRef, outcome func(run string) []ledger.Data) {
	o.runs++
	run := fmt.Sprint("r", o.runs)
	o.add(ledger.RunStarted{Run: run, Purpose: "issue", Service: o.m.ID, Card: card, Instance: o.m.Application.Instance})
	o.add(append(outcome(run), ledger.RunFinished{Run: run, Outcome: ledger.Done})...)
}

func (o *office) issue(run, consent, id string, card ledger.CardRef, n uint16) ledger.Issued {
	return ledger.Issued{Service: o.m.ID, Card: card, Consent: consent, Run: run, Instance: o.m.Application.Instance,
		ID: id, IssueNumber: n, Expiry: "2029-04-01", Tag: strings.Repeat("7c", 16)}
}

func (o *office) issued(consent, id string, card ledger.CardRef, n uint16) {
	o.run(card, func(run string) []ledger.Data {
		if n == 1 {
			o.add(ledger.IDReserved{Service: o.m.ID, ID: id, Consent: consent, Run: run})
		}
		return []ledger.Data{o.issue(run, consent, id, card, n)}
	})
}

func (o *office) next(f handover.Format) (*handover.Batch, error) {
	return handover.Next(o.t.Context(), o, o.m.ID, handover.Options{Format: f, Actor: clerk})
}

// What was told is not told again; what was decided and not closed is told
// again, byte for byte.
func TestOnce(t *testing.T) {
	o := newOffice(t)
	_, err := o.next(handover.CSV)
	if !errors.Is(err, handover.ErrNothing) {
		t.Fatalf("of an empty ledger: %v", err)
	}
	c1 := o.consented(`A-17,"x"`, cardA)
	o.issued(c1, "MS-1", cardA, 1)
	first, err := o.next(handover.CSV)
	check(t, err)
	want := "seq,at,event,service,id,issue_number,reference,consent,expiry,replaces,cause\r\n" +
		`6,2026-04-01T01:00:04.000Z,issued,shopping-street,MS-1,1,"A-17,""x""",` + c1 + ",2029-04-01,,\r\n"
	if string(first.Body) != want || first.Again || first.Rows != 1 {
		t.Errorf("batch %+v\n%s\nwant\n%s", first.HandoverPrepared, first.Body, want)
	}

	// The program stops here. More happens meanwhile.
	o.issued(c1, "MS-1", cardA, 2)
	again, err := o.next(handover.CSV)
	check(t, err)
	if string(again.Body) != want || !again.Again || again.Batch != first.Batch {
		t.Errorf("the open batch is %+v\n%s", again.HandoverPrepared, again.Body)
	}
	if _, err := o.next(handover.JSONLines); !errors.Is(err, handover.ErrFormat) {
		t.Errorf("in another format: %v", err)
	}
	check(t, handover.Done(t.Context(), o, clerk, again, "here"))

	// The rest of a life: updated, suspended, resumed, carried to another card
	// after a loss, revoked, wiped.
	o.run(cardA, func(run string) []ledger.Data {
		return []ledger.Data{ledger.Suspended{Service: o.m.ID, Card: cardA, Run: run}, ledger.Resumed{Service: o.m.ID, Card: cardA, Run: run}}
	})
	c2 := o.consented("A-17", cardB)
	o.run(cardB, func(run string) []ledger.Data {
		o.add(ledger.IDReserved{Service: o.m.ID, ID: "MS-2", Consent: c2, Run: run})
		return []ledger.Data{
			ledger.CardReplaced{Old: cardA, Card: cardB, Cause: ledger.CauseLost},
			o.issue(run, c2, "MS-2", cardB, 3),
			ledger.Revoked{Service: o.m.ID, Card: cardA, Consent: c1, ID: "MS-1", IssueNumber: 2, Cause: ledger.CauseLost, Run: run},
		}
	})
	o.add(ledger.Revoked{Service: o.m.ID, Card: cardB, Consent: c2, ID: "MS-2", IssueNumber: 3, Cause: ledger.CauseWithdrawn})
	o.run(cardB, func(run string) []ledger.Data {
		return []ledger.Data{ledger.Withdrawn{Service: o.m.ID, Card: cardB, Run: run, Instance: o.m.Application.Instance, Deleted: true}}
	})
	second, err := o.next(handover.JSONLines)
	check(t, err)
	var got []string
	for line := range strings.Lines(string(second.Body)) {
		_, rest, _ := strings.Cut(line, `"event":`)
		rest = strings.ReplaceAll(strings.ReplaceAll(rest, c1, "c1"), c2, "c2")
		got = append(got, rest)
	}
	text := strings.Join(got, "")
	if want := `"updated","service":"shopping-street","id":"MS-1","issue_number":2,"reference":"A-17,\"x\"","consent":"c1","expiry":"2029-04-01","replaces":"","cause":""}
"suspended","service":"shopping-street","id":"MS-1","issue_number":2,"reference":"A-17,\"x\"","consent":"c1","expiry":"2029-04-01","replaces":"","cause":""}
"resumed","service":"shopping-street","id":"MS-1","issue_number":2,"reference":"A-17,\"x\"","consent":"c1","expiry":"2029-04-01","replaces":"","cause":""}
"reissued","service":"shopping-street","id":"MS-2","issue_number":3,"reference":"A-17","consent":"c2","expiry":"2029-04-01","replaces":"MS-1","cause":"lost"}
"revoked","service":"shopping-street","id":"MS-2","issue_number":3,"reference":"A-17","consent":"c2","expiry":"2029-04-01","replaces":"","cause":"withdrawn"}
"withdrawn","service":"shopping-street","id":"MS-2","issue_number":3,"reference":"A-17","consent":"c2","expiry":"2029-04-01","replaces":"","cause":""}
`; text != want {
		t.Errorf("rows\n%s\nwant\n%s", text, want)
	}
	check(t, handover.Done(t.Context(), o, clerk, second, "here"))
	if _, err := o.next(handover.CSV); !errors.Is(err, handover.ErrNothing) {
		t.Errorf("after everything: %v", err)
	}
}

// A business system hears of an ID's end before the ID is erased; of one that
// was erased before its first batch it hears nothing.
func TestErased(t *testing.T) {
	o := newOffice(t)
	ended := func(consent, id string, card ledger.CardRef) {
		o.add(ledger.ConsentWithdrawn{Consent: consent}, ledger.Revoked{Service: o.m.ID, Card: card, Consent: consent, ID: id, IssueNumber: 1, Cause: ledger.CauseWithdrawn})
		o.run(card, func(run string) []ledger.Data {
			return []ledger.Data{ledger.Withdrawn{Service: o.m.ID, Card: card, Run: run, Instance: o.m.Application.Instance, Deleted: true}}
		})
	}
	erase := func(consent string) error {
		_, err := o.Erase(t.Context(), clerk, "", ledger.EraseFilter{Consent: consent})
		return err
	}
	a := o.consented("A", cardA)
	o.issued(a, "MS-1", cardA, 1)
	ended(a, "MS-1", cardA)
	check(t, erase(a))
	if b, err := o.next(handover.CSV); !errors.Is(err, handover.ErrNothing) {
		t.Fatalf("of an erased ID: %v, %v", b, err)
	}
	b := o.consented("B", cardB)
	o.issued(b, "MS-2", cardB, 1)
	batch, err := o.next(handover.CSV)
	check(t, err)
	check(t, handover.Done(t.Context(), o, clerk, batch, "here"))
	if batch.Rows != 1 {
		t.Errorf("%d rows\n%s", batch.Rows, batch.Body)
	}
	ended(b, "MS-2", cardB)
	if err := erase(b); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("before anybody was told: %v", err)
	}
	batch, err = o.next(handover.CSV)
	check(t, err)
	if strings.Count(string(batch.Body), ",MS-2,") != 2 {
		t.Errorf("told\n%s", batch.Body)
	}
	check(t, handover.Done(t.Context(), o, clerk, batch, "here"))
	check(t, erase(b))
}

// A dry run decides nothing; a ledger that can't be written lets nothing out.
func TestNotDecided(t *testing.T) {
	o := newOffice(t)
	o.issued(o.consented("A", cardA), "MS-1", cardA, 1)
	b, err := handover.Next(t.Context(), o, o.m.ID, handover.Options{Format: handover.CSV, DryRun: true})
	check(t, err)
	if b.Batch != "" || b.Rows != 1 {
		t.Errorf("dry run %+v", b.HandoverPrepared)
	}
	if _, _, ok, err := o.LastHandover(t.Context(), o.m.ID); ok || err != nil {
		t.Errorf("it was recorded: %v", err)
	}
	o.fail = true
	if _, err := o.next(handover.CSV); err == nil {
		t.Error("a batch that the ledger does not know")
	}
}

func TestToFile(t *testing.T) {
	o := newOffice(t)
	o.issued(o.consented("A", cardA), "MS-1", cardA, 1)
	b, err := o.next(handover.CSV)
	check(t, err)
	dir := t.TempDir()
	check(t, handover.ToFile(dir, b))
	check(t, handover.ToFile(dir, b)) // interrupted before it was recorded
	entries, err := os.ReadDir(dir)
	check(t, err)
	if len(entries) != 1 || entries[0].Name() != b.Name() {
		t.Errorf("files %v, want %s alone", entries, b.Name())
	}
	check(t, os.WriteFile(filepath.Join(dir, b.Name()), []byte("other"), 0o600))
	if err := handover.ToFile(dir, b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file with another content: %v", err)
	}
	if err := handover.ToFile(filepath.Join(dir, "none"), b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into no directory: %v", err)
	} else if strings.Contains(err.Error(), ".handover") {
		t.Errorf("the error names a file that nobody knows: %v", err)
	}
	check(t, handover.CheckFolder(dir))
	if err := handover.CheckFolder(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory is one: %v", err)
	}
	if err := handover.CheckFolder(filepath.Join(dir, b.Name())); err == nil {
		t.Error("a file is a directory")
	}
}

// Who does not answer is asked again; who can't show to be the receiver is not,
// and gets nothing.
func TestWebhookWithoutAnswer(t *testing.T) {
	o := newOffice(t)
	o.issued(o.consented("A", cardA), "MS-1", cardA, 1)
	b, err := o.next(handover.CSV)
	check(t, err)
	asked := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked++ })
	gone := httptest.NewServer(handler)
	gone.Close()
	stranger := httptest.NewUnstartedServer(handler)
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	defer stranger.Close()
	for _, tt := range []struct {
		name, address string
		waits         int
		want          error
	}{
		{"nobody there", gone.URL, 3, handover.ErrUnreachable},
		{"somebody else", stranger.URL, 0, handover.ErrCertificate},
	} {
		u, err := url.Parse(tt.address + "/ids?token=secret")
		check(t, err)
		waits := 0
		err = handover.Webhook{URL: u, Key: "counter",
			Sign: func(context.Context, []byte) ([]byte, error) { return []byte("signature"), nil },
			Wait: func(context.Context, int) error { waits++; return nil },
		}.Send(t.Context(), b)
		if !errors.Is(err, tt.want) || waits != tt.waits || asked != 0 || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v after %d waits, want %v after %d; %d requests arrived", tt.name, err, waits, tt.want, tt.waits, asked)
		}
	}
}

// The receiver gets what was signed; trouble of its own is waited for, a
// refusal is not.
func TestWebhook(t *testing.T) {
	o := newOffice(t)
	o.issued(o.consented("A", cardA), "MS-1", cardA, 1)
	b, err := o.next(handover.JSONLines)
	check(t, err)
	public, err := o.store.PublicKey(t.Context(), keys.Ref{Name: "counter"})
	check(t, err)
	for _, tt := range []struct {
		name    string
		answers []int // in turn; the last again and again
		tries   int
		want    error
	}{
		{"taken", []int{204}, 1, nil},
		{"after trouble", []int{503, 429, 500, 200}, 4, nil},
		{"refused", []int{422}, 1, handover.ErrRefused},
		{"sent elsewhere", []int{302}, 1, handover.ErrRefused},
		{"trouble without end", []int{503}, 4, handover.ErrRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				signature, _ := base64.StdEncoding.DecodeString(r.Header.Get(handover.HeaderSignature))
				if string(body) != string(b.Body) || r.Header.Get(handover.HeaderBatch) != b.Batch || !ed25519.Verify(public, b.SignedMessage(), signature) {
					t.Errorf("request %v", r.Header)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.answers[min(asked, len(tt.answers)-1)])
				asked++
			}))
			defer server.Close()
			u, err := url.Parse(server.URL + "/ids?token=secret")
			check(t, err)
			waits := 0
			err = handover.Webhook{URL: u, Key: "counter",
				Sign: func(ctx context.Context, m []byte) ([]byte, error) {
					return o.store.Sign(ctx, keys.Ref{Name: "counter"}, keys.CounterSigning, m)
				},
				Wait: func(context.Context, int) error { waits++; return nil },
			}.Send(t.Context(), b)
			if !errors.Is(err, tt.want) || asked != tt.tries || waits != tt.tries-1 {
				t.Errorf("got %v after %d requests and %d waits, want %v after %d", err, asked, waits, tt.want, tt.tries)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the address's query: %v", err)
			}
		})
	}
}

func TestInsecure(t *testing.T) {
	for address, want := range map[string]error{
		"https://ids.example": nil, "http://127.0.0.1:8080": nil, "http://[::1]/x": nil, "http://localhost/": nil,
		"http://ids.example": handover.ErrInsecure, "http://127.0.0.1.example/": handover.ErrInsecure, "ftp://127.0.0.1/": handover.ErrInsecure, "https://": handover.ErrInsecure,
	} {
		u, err := url.Parse(address)
		check(t, err)
		if err := (handover.Webhook{URL: u}).Check(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
	}
}
