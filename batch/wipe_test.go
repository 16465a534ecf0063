package batch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freearea/freearea/batch"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

// revokedCard is a card with the points service, issued under a consent of that
// name and revoked by telephone.
func (o *office) revokedCard(name string) *emulator.Card {
	o.t.Helper()
	card := o.card()
	r := o.begin("consent,card-expiry\n" + o.consent(name, points) + ",2031-05-20\n")
	o.insert(0, card)
	if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done {
		o.t.Fatal(e.Err)
	}
	o.remove(0)
	r.end()
	o.revoke(points, name)
	return card
}

// revoke takes back the consent in a file, and what was issued under it.
func (o *office) revoke(m *manifest.Manifest, name string) {
	o.t.Helper()
	ctx := o.t.Context()
	signed := must(consent.Parse(must(os.ReadFile(filepath.Join(o.dir, name)))))
	w := must(consent.NewWithdrawal(signed, consent.Asked{Operator: "clerk", Counter: "window-1"}, o.clock()))
	back := must(consent.SignWithdrawal(ctx, store(), keys.Ref{Name: "counter"}, w))
	issues := must(o.book.IssuesOf(ctx, m.ID, "", signed.Record.ID))
	pr := o.options(points, o.book).Provisioner
	pr.Ledger = o.book
	if n := must(pr.Revoke(ctx, issues, back, "")); n != 1 {
		o.t.Fatalf("%d issues are revoked", n)
	}
}

// instances are the services that are on a card, as its registry says.
func (o *office) instances(card *emulator.Card) (names []string) {
	o.t.Helper()
	card.PowerOn()
	defer card.PowerOff()
	pr := o.options(points, o.book).Provisioner
	pr.Card, pr.Ledger = card, o.book
	s, err := pr.Connect(o.t.Context())
	check(o.t, err)
	defer s.Close()
	for _, a := range s.Applications {
		for _, m := range []*manifest.Manifest{points, library} {
			if a.AID == m.Application.Instance {
				names = append(names, m.ID)
			}
		}
	}
	return names
}

// libraryList is a list of one row of the library's, whose card is not named.
func (o *office) libraryList() string {
	o.t.Helper()
	o.write("pin", "2580")
	return "id,consent,pin-file,item:category,card-expiry\n" +
		"2045000151," + o.consent("library.json", library, "category") + ",pin,ADULT,2031-05-20\n"
}

// ofLibrary makes a batch one of the library's, with these manifests at hand.
func ofLibrary(others ...*manifest.Manifest) func(*batch.Options) {
	return func(x *batch.Options) {
		x.Manifest, x.Manifests = library, map[string]*manifest.Manifest{}
		for _, m := range others {
			x.Manifests[m.ID] = m
		}
	}
}

// What was revoked without its card is erased when the card comes by, whatever
// the batch is about, and told; then the card gets its row.
func TestRevokedIsErased(t *testing.T) {
	locked := *points // its instance on the card is not from this load file
	locked.Application.Package = iso7816.MustAID("F0000000010203")
	for _, test := range []struct {
		name   string
		others []*manifest.Manifest
		want   batch.EventKind
		err    error
		failed bool
		left   string // on the card
	}{
		{"with its manifest", []*manifest.Manifest{points}, batch.Wiped, nil, false, "city-library"},
		{"without", nil, batch.NotWiped, provisioner.ErrNoManifest, false, "shopping-street city-library"},
		{"something else on the card", []*manifest.Manifest{&locked}, batch.NotWiped, provisioner.ErrForeign, true, "shopping-street city-library"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOffice(t, 1)
			card := o.revokedCard("points.json")
			r := o.begin(o.libraryList(), ofLibrary(test.others...))
			o.insert(0, card)
			e := r.wait(batch.Wiped, batch.NotWiped, batch.Done, batch.Refused)
			if e.Kind != test.want || !errors.Is(e.Err, test.err) || e.Service != "shopping-street" || e.Line != 2 || e.Wipe == nil {
				t.Fatalf("%+v", e)
			}
			if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done {
				t.Fatalf("its row: %v", e.Err)
			}
			report := r.end()
			if got := states(report); got != "issued" {
				t.Error(got)
			}
			o.remove(0)
			if got := strings.Join(o.instances(card), " "); got != test.left {
				t.Errorf("on the card: %s", got)
			}
			if len(report.Wipes) != 1 {
				t.Fatalf("%+v", report.Wipes)
			}
			w := report.Wipes[0]
			if (w.Run != "") != (test.err == nil) || w.Failed() != test.failed || w.Issue.ID == "" || w.Line != 2 || w.Code != batch.Code(test.err) {
				t.Errorf("%+v", w)
			}
			if totals := report.Totals; totals.Wiped+totals.NotWiped != 1 || (totals.Wiped == 1) != (test.err == nil) {
				t.Errorf("%+v", totals)
			}
			var table bytes.Buffer
			check(t, report.WriteCSV(&table, error.Error))
			line := fmt.Sprintf("2,,%s,%s,1,2029-04-01,,%s,%s,%s,slot 00,", test.want, w.Issue.ID, w.Issue.Consent, w.Issue.Card, w.Run)
			if !strings.Contains(table.String(), line) || !strings.HasSuffix(strings.TrimSpace(table.String()), ",shopping-street") {
				t.Errorf("no line %s… in\n%s", line, table.String())
			}
			var object struct{ Wipes []map[string]any }
			check(t, json.Unmarshal(must(json.Marshal(report)), &object))
			if len(object.Wipes) != 1 || object.Wipes[0]["state"] != string(test.want) || object.Wipes[0]["service"] != "shopping-street" {
				t.Errorf("%v", object.Wipes)
			}
		})
	}
}

// A holder who gave the same service back by telephone and is on the list again
// gets it anew, under the new consent.
func TestRevokedAndIssuedAgain(t *testing.T) {
	o := newOffice(t, 1)
	card := o.revokedCard("old.json")
	r := o.begin(o.list(1))
	o.insert(0, card)
	if e := r.wait(batch.Wiped, batch.NotWiped, batch.Done, batch.Refused); e.Kind != batch.Wiped {
		t.Fatalf("%+v: %v", e, e.Err)
	}
	if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done || e.Row.IssueNumber != 2 {
		t.Fatalf("%+v: %v", e.Row, e.Err)
	}
	if got := states(r.end()); got != "issued" {
		t.Error(got)
	}
}

// The same where IDs are given: the holder keeps the number, under the new
// consent.
func TestRevokedAndIssuedAgainWithItsID(t *testing.T) {
	o := newOffice(t, 1)
	card := o.card()
	list := func(name string) string {
		return strings.ReplaceAll(o.libraryList(), "library.json", o.consent(name, library, "category"))
	}
	r := o.begin(list("old.json"), ofLibrary())
	o.insert(0, card)
	r.wait(batch.Done)
	o.remove(0)
	r.end()
	o.revoke(library, "old.json")
	r = o.begin(list("new.json"), ofLibrary())
	o.insert(0, card)
	r.wait(batch.Wiped)
	if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done || e.Row.ID != "2045000151" || e.Row.IssueNumber != 2 {
		t.Fatalf("%+v: %v", e.Row, e.Err)
	}
	r.end()
}

// Cards that get no row are erased too, and nothing else is done to them: one
// of no row, and one whose row was issued to it and revoked since.
func TestRevokedWithoutRow(t *testing.T) {
	o := newOffice(t, 1)
	stray := o.revokedCard("stray.json")
	list := "consent,cin,card-expiry\n" +
		o.consent("a.json", points) + "," + cin(2) + ",2031-05-20\n" +
		o.consent("b.json", points) + "," + cin(3) + ",2031-05-20\n"
	r := o.begin(list)
	o.insert(0, stray)
	if e := r.wait(batch.Wiped, batch.Refused); e.Kind != batch.Wiped || e.Line != 0 {
		t.Fatalf("%+v", e)
	}
	if e := r.wait(batch.Refused, batch.Done); !errors.Is(e.Err, batch.ErrNoRow) {
		t.Fatalf("%+v: %v", e, e.Err)
	}
	o.remove(0)
	if got := o.instances(stray); got != nil {
		t.Errorf("on the card: %v", got)
	}
	card := o.card()
	o.insert(0, card)
	r.wait(batch.Done)
	o.remove(0)
	o.revoke(points, "a.json")
	o.insert(0, card)
	if e := r.wait(batch.Wiped, batch.Recognised, batch.Refused); e.Kind != batch.Wiped || e.Line != 2 {
		t.Fatalf("%+v", e)
	}
	if e := r.wait(batch.Recognised, batch.Refused); !errors.Is(e.Err, batch.ErrRowRevoked) || e.Line != 2 {
		t.Fatalf("%+v: %v", e, e.Err)
	}
	o.remove(0)
	if got := o.instances(card); got != nil {
		t.Errorf("on the card: %v", got)
	}
	r.stop()
	report := r.end()
	if got := states(report); got != "issued row-revoked, open" || len(report.Wipes) != 2 {
		t.Errorf("%s, %d erased", got, len(report.Wipes))
	}
}

// refusing is a card that refuses one command, by its instruction, and ends its
// secure channel over it.
type refusing struct {
	*emulator.Card
	ins byte
}

func (r *refusing) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if command[1] == r.ins {
		r.ins = 0
		return []byte{0x69, 0x85}, nil
	}
	return r.Card.Transmit(ctx, command)
}

// A card that refuses to be erased gets its row all the same; presented again,
// it is erased. It is written once.
func TestRefusedErasure(t *testing.T) {
	o := newOffice(t, 1)
	card := o.revokedCard("points.json")
	text := o.libraryList()
	r := o.begin(text+"2045000169,"+o.consent("l2.json", library, "category")+",pin,ADULT,2031-05-20\n", ofLibrary(points))
	o.insert(0, &refusing{card, 0xE4})
	if e := r.wait(batch.Wiped, batch.NotWiped, batch.Done); e.Kind != batch.NotWiped || batch.Code(e.Err) != "status" {
		t.Fatalf("%+v: %v", e, e.Err)
	}
	if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done || e.Line != 2 {
		t.Fatalf("%+v: %v", e, e.Err)
	}
	o.remove(0)
	o.insert(0, card)
	if e := r.wait(batch.Wiped, batch.NotWiped, batch.Recognised); e.Kind != batch.Wiped {
		t.Fatalf("%+v: %v", e, e.Err)
	}
	r.wait(batch.Recognised)
	o.remove(0)
	r.stop()
	report := r.end()
	if got := states(report); got != "issued, open" || len(report.Wipes) != 1 || report.Totals.Wiped != 1 || report.Totals.NotWiped != 0 {
		t.Errorf("%s, %+v", got, report.Totals)
	}
	if got := strings.Join(o.instances(card), " "); got != "city-library" {
		t.Errorf("on the card: %s", got)
	}
}

// Torn at each command of being erased, a card loses neither its row nor what
// was begun: put in again, it is erased and gets the row, once. The next card
// gets the row where the torn one stays away.
func TestTornErasure(t *testing.T) {
	commands := func() int {
		o := newOffice(t, 1)
		card := &counted{Card: o.revokedCard("points.json")}
		n := 0
		r := o.begin(o.libraryList(), ofLibrary(points), func(x *batch.Options) {
			tell := x.Observe
			x.Observe = func(e batch.Event) {
				if e.Kind == batch.Wiped {
					n = card.n
				}
				tell(e)
			}
		})
		o.insert(0, card)
		r.wait(batch.Done)
		r.end()
		return n
	}()
	if commands < 8 {
		t.Fatalf("%d commands until it was erased", commands)
	}
	for n := 1; n <= commands; n++ {
		for _, where := range []emulator.Where{emulator.BeforeCommand, emulator.AfterCommand} {
			o := newOffice(t, 1)
			torn := o.revokedCard("points.json")
			text := o.libraryList()
			r := o.begin(text, ofLibrary(points))
			torn.SetCut(emulator.Cut{Command: n, Where: where})
			what := fmt.Sprintf("torn at command %d (%v)", n, where)
			o.insert(0, torn)
			if e := r.wait(batch.Refused, batch.Done); !errors.Is(e.Err, iso7816.ErrCardRemoved) || e.Row != nil && e.Row.State != batch.Open {
				t.Fatalf("%s: %+v: %v", what, e, e.Err)
			}
			o.remove(0)
			card := torn
			if n%2 == 0 { // it stays away
				card = o.card()
			}
			o.insert(0, card)
			if e := r.wait(batch.Done, batch.Refused); e.Kind != batch.Done || e.Line != 2 {
				t.Fatalf("%s: again: %v", what, e.Err)
			}
			o.remove(0)
			report := r.end()
			if got := states(report); got != "issued" {
				t.Errorf("%s: %s", what, got)
			}
			if card == torn {
				if got := strings.Join(o.instances(card), " "); got != "city-library" || report.Totals.NotWiped != 0 {
					t.Errorf("%s: on the card: %s; %+v", what, got, report.Totals)
				}
			}
			o.issues() // none twice
			kinds := map[ledger.Kind]int{}
			for e, err := range o.book.Events(t.Context(), ledger.Filter{Service: points.ID}) {
				check(t, err)
				kinds[e.Data.Kind()]++
			}
			if card == torn && kinds[ledger.KindWithdrawn] != 1 {
				t.Errorf("%s: %v", what, slices.Sorted(maps.Keys(kinds)))
			}
		}
	}
}

// counted is a card that counts its commands.
type counted struct {
	*emulator.Card
	n int
}

func (c *counted) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	c.n++
	return c.Card.Transmit(ctx, command)
}
