package reader_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/emulator/timing"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/reader"
)

// tapKind is a way to read a card: a base type, with a PIN or without, with
// the items or without.
type tapKind struct {
	profile    string
	pin, items bool
}

var tapKinds = []tapKind{
	{"common-ap", false, false},
	{"type-a", false, false}, {"type-a", false, true}, {"type-a", true, false}, {"type-a", true, true},
	{"type-d", false, false}, {"type-d", false, true}, {"type-d", true, false}, {"type-d", true, true},
}

func (k tapKind) String() string {
	s := k.profile
	if k.pin {
		s += ", PIN"
	}
	if k.items {
		s += ", items"
	}
	return s
}

// kindID is the ID on the cards.
const kindID = "0123456789"

// kindItems are 36 bytes of EF.ITEMS.
var kindItems = []applets.Item{{Name: "branch", Value: "中央"}, {Name: "class", Value: "adult"}}

// content is what the card holds: an ID with the issuer's signature, 97 bytes
// of EF.ID, and for a type with items those.
func (k tapKind) content() applets.Content {
	c := applets.Content{Record: signed(record("service", kindID), aidLibrary, issuerKey)}
	if k.profile != "common-ap" {
		c.Items = kindItems
	}
	return c
}

func (k tapKind) issue() issue {
	i := issue{profile: k.profile, instance: aidLibrary, content: k.content()}
	if k.profile != "common-ap" {
		i.versions = []byte{1}
	}
	if k.pin {
		i.pin = "2580"
	}
	return i
}

// service is the service as a terminal looks for it.
func (k tapKind) service() reader.Service {
	s := reader.Service{ID: "service", Profile: profile(k.profile), Instance: aidLibrary, IssuerKey: issuerKey.Public().(ed25519.PublicKey), Items: k.items}
	if k.profile != "common-ap" {
		s.ReadKey, s.Diversification = keys.Ref{Name: "read"}, keys.MethodSP800108
	}
	return s
}

// options are those of a terminal that has the PIN at hand.
func (k tapKind) options() reader.Options {
	o := reader.Options{Services: []reader.Service{k.service()}, Keys: masterKeys{}, Clock: clock, PINAtHand: true}
	if k.pin {
		o.PIN = func(context.Context, reader.PINQuestion) (applets.PIN, error) { return applets.NewPIN("2580") }
	}
	return o
}

// masterKeys has the read keys of all cards and keeps nothing of what it is
// asked.
type masterKeys struct{ keys.Store }

func (masterKeys) ReadKeys(_ context.Context, ref keys.Ref, method keys.Method, instance iso7816.AID, data []byte) (keys.Set, error) {
	if ref != (keys.Ref{Name: "read", Version: 1}) {
		return keys.Set{}, fmt.Errorf("%w: %v", keys.ErrNotFound, ref)
	}
	return keys.Diversify(keys.Read, method, set("read", 1, false), instance, data)
}

// sameBytes is a source of randomness that is none: every tap has the same
// commands.
type sameBytes byte

func (b sameBytes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// measure reads a card of the kind twice and returns the steps of the second
// tap: the first pays for what happens once in a card's life. The card's
// randomness is fixed, and so is what is counted.
func (k tapKind) measure(t testing.TB) []timing.Step {
	t.Helper()
	counter := &timing.Counter{}
	linker := oncard.Linkers{
		oncard.Known{applets.BasePackage: applets.IsBaseLoadFile},
		jcvm.Linker{Quirks: jcvm.Quirks{NoLeIsZero: true}, Trace: counter.Trace(applets.BasePackage)},
	}
	card, err := writeCardWith(linker, rand.NewChaCha8([32]byte{1}), k.issue())
	check(t, err)
	defer card.Close()
	o := k.options()
	o.Rand = sameBytes(0xA5)
	meter := timing.NewMeter(card, counter)
	r := newReader(t, o)
	for range 2 {
		meter.Take()
		if _, err := r.Read(context.Background(), meter); err != nil {
			t.Fatal(err)
		}
	}
	return meter.Take()
}

// replay answers as a card once answered the same commands, for a terminal
// with sameBytes: what is measured is the terminal alone. A card has a processor of its own.
type replay map[string][]byte

func newReplay(steps []timing.Step) replay {
	r := replay{}
	for _, s := range steps {
		r[string(s.Command)] = s.Response
	}
	return r
}

func (r replay) Transmit(_ context.Context, command []byte) ([]byte, error) {
	answer, ok := r[string(command)]
	if !ok {
		return nil, fmt.Errorf("command % X was not recorded", command)
	}
	return slices.Clone(answer), nil
}
