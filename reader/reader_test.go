package reader_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/reader"
)

func pointsService() reader.Service {
	return reader.Service{ID: "points", Profile: profile("common-ap"), Instance: aidPoints}
}

func libraryService() reader.Service {
	return reader.Service{
		ID: "library", Profile: profile("type-a"), Instance: aidLibrary,
		ReadKey: keys.Ref{Name: "read"}, Diversification: keys.MethodSP800108,
	}
}

func officeService() reader.Service {
	return reader.Service{
		ID: "office", Profile: profile("type-d"), Instance: aidOffice,
		ReadKey: keys.Ref{Name: "read"}, Diversification: keys.MethodSP800108,
	}
}

func newReader(t testing.TB, o reader.Options) *reader.Reader {
	t.Helper()
	if o.Clock == nil {
		o.Clock = clock
	}
	if o.Keys == nil {
		o.Keys = terminal(1, 2)
	}
	r, err := reader.New(o)
	check(t, err)
	return r
}

// always answers with a PIN at once, and counts how often.
func always(digits string, asked *int) func(context.Context, reader.PINQuestion) (applets.PIN, error) {
	return func(context.Context, reader.PINQuestion) (applets.PIN, error) {
		*asked++
		return applets.NewPIN(digits)
	}
}

func TestRead(t *testing.T) {
	asked := 0
	card := newCard(t, points(record("points", "P-1")), library(record("library", "L-1"), "1234"), office(record("office", "O-1")))
	items := []applets.Item{{Name: "branch", Value: "中央"}, {Name: "class", Value: "adult"}}
	withItems := libraryService()
	withItems.Items = true
	tests := []struct {
		name     string
		service  reader.Service
		standard bool
		want     reader.Tap
	}{
		{"common-ap", pointsService(), false, reader.Tap{
			Service: "points", Profile: "common-ap", Instance: aidPoints, ID: "P-1", Commands: 1,
		}},
		{"type-a with PIN", libraryService(), false, reader.Tap{
			Service: "library", Profile: "type-a", Instance: aidLibrary, ID: "L-1", Commands: 3,
			Authentication: applets.Mutual, KeyVersion: 1, PIN: true,
		}},
		{"type-a with PIN and items", withItems, false, reader.Tap{
			Service: "library", Profile: "type-a", Instance: aidLibrary, ID: "L-1", Commands: 4,
			Authentication: applets.Mutual, KeyVersion: 1, PIN: true, Items: items,
		}},
		{"type-d", officeService(), false, reader.Tap{
			Service: "office", Profile: "type-d", Instance: aidOffice, ID: "O-1", Commands: 2,
			Authentication: applets.MutualEncrypted, KeyVersion: 2,
		}},
		{"type-d by SCP03", officeService(), true, reader.Tap{
			Service: "office", Profile: "type-d", Instance: aidOffice, ID: "O-1", Commands: 4,
			Authentication: applets.MutualEncrypted, KeyVersion: 2,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader(t, reader.Options{Services: []reader.Service{tt.service}, PIN: always("1234", &asked), Standard: tt.standard})
			counted := &counter{Card: card}
			got, err := r.Read(t.Context(), counted)
			check(t, err)
			if len(got.TapID) != 32 {
				t.Errorf("tap id %q", got.TapID)
			}
			tt.want.TapID, tt.want.At, tt.want.IssueNumber, tt.want.Expiry = got.TapID, now, 1, date(2031, 3, 31)
			tt.want.Bytes = counted.bytes
			if d := cmp.Diff(&tt.want, got, cmpopts.EquateComparable(iso7816.AID{})); d != "" {
				t.Error(d)
			}
			if counted.commands != got.Commands {
				t.Errorf("%d commands were sent, %d told", counted.commands, got.Commands)
			}
		})
	}
}

// counter counts for itself what the reader tells.
type counter struct {
	iso7816.Card
	commands, bytes int
}

func (c *counter) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := c.Card.Transmit(ctx, command)
	c.commands++
	c.bytes += len(command) + len(response)
	return response, err
}

func TestEveryTapHasItsOwnID(t *testing.T) {
	card := newCard(t, points(record("points", "P-1")))
	r := newReader(t, reader.Options{Services: []reader.Service{pointsService()}})
	a, err := r.Read(t.Context(), card)
	check(t, err)
	b, err := r.Read(t.Context(), card)
	check(t, err)
	if a.TapID == b.TapID {
		t.Errorf("twice %s", a.TapID)
	}
}

func TestPriority(t *testing.T) {
	both := newCard(t, points(record("points", "P-1")), office(record("office", "O-1")))
	empty := newCard(t, issue{profile: "type-d", instance: aidOffice, empty: true, versions: nil}, points(record("points", "P-1")))
	onlyEmpty := newCard(t, issue{profile: "type-d", instance: aidOffice, empty: true})
	tests := []struct {
		name     string
		card     iso7816.Card
		services []reader.Service
		want     string
		err      error
	}{
		{"first of two", both, []reader.Service{officeService(), pointsService()}, "O-1", nil},
		{"the other way round", both, []reader.Service{pointsService(), officeService()}, "P-1", nil},
		{"the first is not there", both, []reader.Service{libraryService(), officeService()}, "O-1", nil},
		{"none is there", both, []reader.Service{libraryService()}, "", reader.ErrNoService},
		{"the first holds nothing", empty, []reader.Service{officeService(), pointsService()}, "P-1", nil},
		{"the only one holds nothing", onlyEmpty, []reader.Service{libraryService(), officeService()}, "", reader.ErrNotPersonalized},
		{"an empty card", newCard(t), []reader.Service{pointsService(), officeService()}, "", reader.ErrNoService},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tap, err := newReader(t, reader.Options{Services: tt.services}).Read(t.Context(), tt.card)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if err == nil && tap.ID != tt.want {
				t.Errorf("got %s, want %s", tap.ID, tt.want)
			}
		})
	}
}

// TestFailureIsNotPassedOver has a service of higher priority fail: the next
// one, which would do, is not tried.
func TestFailureIsNotPassedOver(t *testing.T) {
	card := newCard(t, office(record("office", "O-1")), points(record("points", "P-1")))
	wrong := terminal(1, 2)
	wrong.wrong = true
	r := newReader(t, reader.Options{Services: []reader.Service{officeService(), pointsService()}, Keys: wrong})
	counted := &counter{Card: card}
	tap, err := r.Read(t.Context(), counted)
	if tap != nil || !errors.Is(err, reader.ErrHostProof) {
		t.Errorf("got %v, %v", tap, err)
	}
	if counted.commands != 2 {
		t.Errorf("%d commands: SELECT and one EXPRESS are enough", counted.commands)
	}
}

// tamper changes what a card answers to one instruction.
type tamper struct {
	iso7816.Card
	ins    byte
	change func(response []byte) ([]byte, error)
	seen   int
}

func (c *tamper) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := c.Card.Transmit(ctx, command)
	if err == nil && command[1] == c.ins {
		c.seen++
		return c.change(bytes.Clone(response))
	}
	return response, err
}

func TestErrors(t *testing.T) {
	flip := func(b []byte) ([]byte, error) { b[0] ^= 1; return b, nil }
	gone := func([]byte) ([]byte, error) { return nil, fmt.Errorf("slot: %w", iso7816.ErrCardRemoved) }
	status := func(sw ...byte) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return sw, nil }
	}
	wrong := terminal(1, 2)
	wrong.wrong = true
	_, otherIssuer, err := ed25519.GenerateKey(nil)
	check(t, err)
	checked := pointsService()
	checked.IssuerKey = issuerKey.Public().(ed25519.PublicKey)
	weaker := officeService()
	weaker.Instance = aidLibrary
	otherType := libraryService()
	otherType.Instance = aidOffice
	pinned := officeService()
	pinned.ReadKey.Version = 9
	expired := record("points", "P-1")
	expired.Expiry = date(2026, 3, 31)
	moved := signed(record("points", "P-1"), aidOffice, issuerKey)

	good := points(record("points", "P-1"))
	tests := []struct {
		name    string
		card    iso7816.Card
		service reader.Service
		keys    keys.Store
		want    error
		code    string
	}{
		{"not there", newCard(t, good), libraryService(), nil, reader.ErrNoService, "no-service"},
		{"a card without SELECT", &tamper{newCard(t), 0xA4, status(0x6D, 0x00), 0}, pointsService(), nil, reader.ErrNoService, "no-service"},
		{"another application's FCI", &tamper{newCard(t, good), 0xA4, status(0x6F, 0x00, 0x90, 0x00), 0}, pointsService(), nil, reader.ErrNoService, "no-service"},
		{"SELECT refused", &tamper{newCard(t, good), 0xA4, status(0x69, 0x85), 0}, pointsService(), nil, iso7816.ErrConditions, "refused"},
		{"wrong read key here", newCard(t, office(record("office", "O-1"))), officeService(), wrong, reader.ErrHostProof, "host-proof"},
		{"card without the read key", &tamper{newCard(t, office(record("office", "O-1"))), 0x54, flip, 0}, officeService(), nil, reader.ErrCardProof, "card-proof"},
		{"no common version", newCard(t, office(record("office", "O-1"))), officeService(), terminal(7), reader.ErrNoReadKey, "no-read-key"},
		{"version that the card lacks", newCard(t, office(record("office", "O-1"))), pinned, terminal(1, 2, 9), reader.ErrNoReadKey, "no-read-key"},
		{"weaker type", newCard(t, library(record("office", "L-1"), "")), weaker, nil, reader.ErrWeakerType, "weaker-type"},
		{"other type", newCard(t, office(record("library", "O-1"))), otherType, nil, applets.ErrOtherType, "other-type"},
		{"not signed", newCard(t, good), checked, nil, reader.ErrNoSignature, "no-signature"},
		{"signed by another", newCard(t, points(signed(record("points", "P-1"), aidPoints, otherIssuer))), checked, nil, reader.ErrSignature, "signature"},
		{"signed for another instance", newCard(t, points(moved)), checked, nil, reader.ErrSignature, "signature"},
		{"expired", newCard(t, points(expired)), pointsService(), nil, reader.ErrExpired, "expired"},
		{"another service's", newCard(t, points(record("ponits", "P-1"))), pointsService(), nil, reader.ErrOtherService, "other-service"},
		{"malformed", &tamper{newCard(t, good), 0xA4, func(b []byte) ([]byte, error) {
			return bytes.Replace(b, []byte("points"), []byte("poi\x00ts"), 1), nil
		}, 0}, pointsService(), nil, applets.ErrMalformedRecord, "malformed"},
		{"left at SELECT", &tamper{newCard(t, good), 0xA4, gone, 0}, pointsService(), nil, iso7816.ErrCardRemoved, "card-removed"},
		{"left at EXPRESS", &tamper{newCard(t, office(record("office", "O-1"))), 0x54, gone, 0}, officeService(), nil, iso7816.ErrCardRemoved, "card-removed"},
		{"half a response", &tamper{newCard(t, good), 0xA4, status(0x90), 0}, pointsService(), nil, iso7816.ErrMalformedResponse, "protocol"},
		{"PIN, nobody to ask", newCard(t, library(record("library", "L-1"), "1234")), libraryService(), nil, reader.ErrPINNeeded, "pin-needed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader(t, reader.Options{Services: []reader.Service{tt.service}, Keys: tt.keys})
			tap, err := r.Read(t.Context(), tt.card)
			if tap != nil || !errors.Is(err, tt.want) {
				t.Fatalf("got %v, %v; want %v", tap, err, tt.want)
			}
			if code := reader.Code(err); code != tt.code {
				t.Errorf("code %s, want %s", code, tt.code)
			}
			for _, other := range tests {
				if other.want != tt.want && errors.Is(err, other.want) {
					t.Errorf("%v is also %v", err, other.want)
				}
			}
			var named *reader.ServiceError
			if has := errors.As(err, &named); has != (tt.want != reader.ErrNoService) || has && named.Service != tt.service.ID {
				t.Errorf("%v names the service %v", err, named)
			}
			if c, ok := tt.card.(*tamper); ok && c.seen != 1 {
				t.Errorf("the command was sent %d times", c.seen)
			}
		})
	}
}

func TestSignature(t *testing.T) {
	card := newCard(t, points(signed(record("points", "P-1"), aidPoints, issuerKey)))
	s := pointsService()
	for _, tt := range []struct {
		key  ed25519.PublicKey
		want reader.Signature
	}{{nil, reader.Unchecked}, {issuerKey.Public().(ed25519.PublicKey), reader.Verified}} {
		s.IssuerKey = tt.key
		tap, err := newReader(t, reader.Options{Services: []reader.Service{s}}).Read(t.Context(), card)
		check(t, err)
		if tap.Signature != tt.want {
			t.Errorf("got %v, want %v", tap.Signature, tt.want)
		}
	}
}

// TestExpiry: the day of expiry is good until it ends in Japan.
func TestExpiry(t *testing.T) {
	r := record("points", "P-1")
	r.Expiry = date(2026, 4, 1)
	card := newCard(t, points(r))
	for _, tt := range []struct {
		at       time.Time
		location *time.Location
		expired  bool
	}{
		{now, nil, false}, // 23:59 in Japan
		{now.Add(time.Minute), nil, true},
		{now.Add(time.Minute), time.UTC, false},
		{date(2026, 4, 2), time.UTC, true},
	} {
		rd := newReader(t, reader.Options{
			Services: []reader.Service{pointsService()}, Clock: func() time.Time { return tt.at }, Location: tt.location,
		})
		if _, err := rd.Read(t.Context(), card); errors.Is(err, reader.ErrExpired) != tt.expired || err != nil && !tt.expired {
			t.Errorf("%v in %v: %v", tt.at, tt.location, err)
		}
	}
}

func TestKeyVersions(t *testing.T) {
	card := newCard(t, office(record("office", "O-1"))) // versions 2 and 1
	for _, tt := range []struct {
		ref   byte
		store *store
		want  byte
	}{
		{0, terminal(1, 2), 2},
		{0, terminal(1), 1}, // a terminal that has not got the new key yet
		{0, terminal(2, 3), 2},
		{1, terminal(1, 2), 1},
	} {
		s := officeService()
		s.ReadKey.Version = tt.ref
		tap, err := newReader(t, reader.Options{Services: []reader.Service{s}, Keys: tt.store}).Read(t.Context(), card)
		check(t, err)
		if tap.KeyVersion != tt.want {
			t.Errorf("version %d asked for, store has %v: got %d, want %d", tt.ref, tt.store.versions, tap.KeyVersion, tt.want)
		}
	}
}

func TestPIN(t *testing.T) {
	card := newCard(t, library(record("library", "L-1"), "1234"))
	for _, tt := range []struct {
		pin   string
		want  error
		code  string
		tries int
	}{
		{"0000", reader.ErrWrongPIN, "wrong-pin", 2},
		{"1234", nil, "", 0}, // counts from the beginning again
		{"0000", reader.ErrWrongPIN, "wrong-pin", 2},
		{"123456789012", reader.ErrWrongPIN, "wrong-pin", 1},
		{"9999", reader.ErrWrongPIN, "wrong-pin", 0},
		{"1234", reader.ErrPINBlocked, "pin-blocked", 0},
	} {
		asked := 0
		_, err := newReader(t, reader.Options{Services: []reader.Service{libraryService()}, PIN: always(tt.pin, &asked)}).Read(t.Context(), card)
		if !errors.Is(err, tt.want) {
			t.Fatalf("%s: got %v, want %v", tt.pin, err, tt.want)
		}
		var pin *applets.PINError
		if errors.As(err, &pin) && pin.TriesLeft != tt.tries {
			t.Errorf("%s: %d tries left, want %d", tt.pin, pin.TriesLeft, tt.tries)
		}
		if err != nil && reader.Code(err) != tt.code {
			t.Errorf("%s: code %s", tt.pin, reader.Code(err))
		}
		if asked != 1 {
			t.Errorf("%s: asked %d times", tt.pin, asked)
		}
	}
}

// sharedCard is a card that other programs may use, and writes down what
// happens to it.
type sharedCard struct {
	iso7816.Card
	log   []string
	alone bool
}

func (c *sharedCard) Begin(context.Context) error {
	c.log, c.alone = append(c.log, "begin"), true
	return nil
}

func (c *sharedCard) End() error {
	c.log, c.alone = append(c.log, "end"), false
	return errors.New("the card has left")
}

func (c *sharedCard) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	what := iso7816.InstructionName(command[0], command[1])
	if !c.alone {
		what += " outside of a transaction"
	}
	c.log = append(c.log, what)
	return c.Card.Transmit(ctx, command)
}

func TestTransaction(t *testing.T) {
	good := library(record("library", "L-1"), "1234")
	tests := []struct {
		name    string
		card    iso7816.Card
		service reader.Service
		atHand  bool
		want    string
		err     error
	}{
		{"no PIN", newCard(t, office(record("office", "O-1"))), officeService(), false, "begin SELECT EXPRESS end", nil},
		{"nobody waits inside", newCard(t, good), libraryService(), false,
			"begin SELECT EXPRESS end ask begin SELECT EXPRESS VERIFY end", nil},
		{"PIN at hand", newCard(t, good), libraryService(), true, "begin SELECT EXPRESS ask VERIFY end", nil},
		{"failure", newCard(t), pointsService(), false, "begin SELECT end", reader.ErrNoService},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			card := &sharedCard{Card: tt.card}
			r := newReader(t, reader.Options{
				Services: []reader.Service{tt.service}, PINAtHand: tt.atHand,
				PIN: func(_ context.Context, q reader.PINQuestion) (applets.PIN, error) {
					card.log = append(card.log, "ask")
					if q != (reader.PINQuestion{Service: "library"}) {
						t.Errorf("question %+v", q)
					}
					return applets.NewPIN("1234")
				},
			})
			if _, err := r.Read(t.Context(), card); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			if got := strings.Join(card.log, " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestDuration leaves the time out that a person took.
func TestDuration(t *testing.T) {
	for _, shared := range []bool{false, true} {
		at := now
		var card iso7816.Card = newCard(t, library(record("library", "L-1"), "1234"))
		card = &tamper{card, 0xA4, func(b []byte) ([]byte, error) { at = at.Add(30 * time.Millisecond); return b, nil }, 0}
		if shared {
			card = &sharedCard{Card: card}
		}
		r := newReader(t, reader.Options{
			Services: []reader.Service{libraryService()}, Clock: func() time.Time { return at },
			PIN: func(context.Context, reader.PINQuestion) (applets.PIN, error) {
				at = at.Add(7 * time.Second)
				return applets.NewPIN("1234")
			},
		})
		tap, err := r.Read(t.Context(), card)
		check(t, err)
		want := 30 * time.Millisecond
		if shared {
			want *= 2
		}
		if tap.Duration != want || !tap.At.Equal(at) {
			t.Errorf("shared %v: took %v, at %v", shared, tap.Duration, tap.At)
		}
	}
}

// TestPINIsErased looks at the PIN after the tap.
func TestPINIsErased(t *testing.T) {
	for _, card := range []iso7816.Card{
		newCard(t, library(record("library", "L-1"), "1234")),
		&sharedCard{Card: newCard(t, library(record("library", "L-1"), "1234"))},
	} {
		pin := must(applets.NewPIN("1234"))
		r := newReader(t, reader.Options{
			Services: []reader.Service{libraryService()},
			PIN:      func(context.Context, reader.PINQuestion) (applets.PIN, error) { return pin, nil },
		})
		_, err := r.Read(t.Context(), card)
		check(t, err)
		if !pin.IsZero() {
			t.Errorf("%T: the PIN is still there", card)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	change := func(s reader.Service, f func(*reader.Service)) []reader.Service { f(&s); return []reader.Service{s} }
	for name, o := range map[string]reader.Options{
		"no services":       {},
		"no id":             {Services: change(pointsService(), func(s *reader.Service) { s.ID = "" })},
		"no profile":        {Services: change(pointsService(), func(s *reader.Service) { s.Profile = nil })},
		"no instance":       {Services: change(pointsService(), func(s *reader.Service) { s.Instance = iso7816.AID{} })},
		"instance twice":    {Services: []reader.Service{pointsService(), pointsService()}},
		"issuer's key":      {Services: change(pointsService(), func(s *reader.Service) { s.IssuerKey = []byte{1} })},
		"no store":          {Services: []reader.Service{officeService()}},
		"no read key":       {Services: change(officeService(), func(s *reader.Service) { s.ReadKey.Name = "" }), Keys: terminal(1)},
		"no method":         {Services: change(officeService(), func(s *reader.Service) { s.Diversification = "" }), Keys: terminal(1)},
		"unknown method":    {Services: change(officeService(), func(s *reader.Service) { s.Diversification = "visa2" }), Keys: terminal(1)},
		"undiversified key": {Services: change(officeService(), func(s *reader.Service) { s.Diversification = keys.MethodNone }), Keys: terminal(1)},
	} {
		if r, err := reader.New(o); err == nil {
			t.Errorf("%s: got %v", name, r)
		}
	}
}

// TestImports holds that a terminal links no database, no PC/SC, no emulator.
func TestImports(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/freearea/freearea/reader").Output()
	check(t, err)
	for pkg := range strings.Lines(string(out)) {
		for _, no := range []string{"sqlite", "database/sql", "scard", "pcsc", "emulator", "freearea/ledger", "freearea/manifest", "keys/file", "keys/pkcs11"} {
			if strings.Contains(pkg, no) {
				t.Errorf("links %s", pkg)
			}
		}
	}
	if !strings.Contains(string(out), "freearea/applets\n") {
		t.Errorf("go list answered %q", out)
	}
}
