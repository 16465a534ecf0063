package reader_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// The services of these tests.
var (
	aidPoints  = iso7816.MustAID("F0465245454152454101")
	aidLibrary = iso7816.MustAID("F0465245454152454102")
	aidOffice  = iso7816.MustAID("F0465245454152454103")
)

// now is the day of every tap, shortly before midnight in Japan.
var now = time.Date(2026, 4, 1, 14, 59, 0, 0, time.UTC)

func clock() time.Time { return now }

func date(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

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

// set is a key set whose keys follow from a name.
func set(name string, version byte, dek bool) keys.Set {
	k := func(purpose string) keys.Key {
		sum := sha256.Sum256([]byte(name + purpose + string(rune(version))))
		return must(keys.NewKey(sum[:16]))
	}
	s := keys.Set{Version: version, ENC: k("ENC"), MAC: k("MAC")}
	if dek {
		s.DEK = k("DEK")
	}
	return s
}

// store is a key store that has a read key in some versions.
type store struct {
	keys.Store
	name     string
	versions []byte
	wrong    bool // other keys than the cards'

	mu    sync.Mutex
	asked []keys.Ref
}

func (s *store) ReadKeys(_ context.Context, ref keys.Ref, method keys.Method, instance iso7816.AID, data []byte) (keys.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, ref)
	for _, v := range s.versions {
		if s.name == ref.Name && v == ref.Version {
			master := "read"
			if s.wrong {
				master = "other"
			}
			return keys.Diversify(keys.Read, method, set(master, v, false), instance, data)
		}
	}
	return keys.Set{}, fmt.Errorf("%w: %v", keys.ErrNotFound, ref)
}

func terminal(versions ...byte) *store { return &store{name: "read", versions: versions} }

var issuerKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// signed returns the record with the issuer's signature for an instance.
func signed(r applets.Record, instance iso7816.AID, key ed25519.PrivateKey) applets.Record {
	r.Signature = ed25519.Sign(key, must(r.SignedMessage(instance)))
	return r
}

// issue is what one instance of a card holds.
type issue struct {
	profile  string
	instance iso7816.AID
	content  applets.Content
	pin      string // digits, "" for none
	versions []byte // of the read keys
	empty    bool   // installed, not personalised
}

func profile(name string) applets.Profile {
	p, ok := applets.Base().Lookup(name)
	if !ok {
		panic("no profile " + name)
	}
	return p
}

func record(service, id string) applets.Record {
	return applets.Record{Service: service, ID: id, IssueNumber: 1, Expiry: date(2031, 3, 31)}
}

// newCard is an emulated card with the base applications and some issues,
// written through its Security Domain.
func newCard(t testing.TB, issues ...issue) *emulator.Card {
	t.Helper()
	card, err := writeCard(issues...)
	check(t, err)
	return card
}

func writeCard(issues ...issue) (*emulator.Card, error) {
	return writeCardWith(emulatedcard.Linker(), nil, issues...)
}

// writeCardWith makes the card with another linker or source of randomness.
func writeCardWith(linker oncard.Linker, random io.Reader, issues ...issue) (*emulator.Card, error) {
	ctx := context.Background()
	domain := set("isd", 1, true)
	card, err := emulator.New(emulator.Config{
		Profile: must(emulator.LookupProfile("contactless")), IIN: []byte{1}, CIN: []byte{2}, Keys: domain, Linker: linker, Rand: random,
	})
	if err != nil || len(issues) == 0 {
		return card, err
	}
	if _, err := iso7816.Do(ctx, iso7816.Plain(card), iso7816.Select(emulator.IssuerSecurityDomain)); err != nil {
		return nil, err
	}
	channel, err := scp.Open(ctx, iso7816.Plain(card), domain, scp.HostOptions{Level: scp.CDecryption})
	if err != nil {
		return nil, err
	}
	defer channel.Close()
	file, err := capfile.Parse(applets.BaseLoadFile())
	if err != nil {
		return nil, err
	}
	if _, err := globalplatform.Load(ctx, channel, file, globalplatform.LoadOptions{}, nil); err != nil {
		return nil, err
	}
	for _, i := range issues {
		if err := i.write(ctx, channel, file.Package.AID); err != nil {
			return nil, err
		}
	}
	return card, nil
}

func (i issue) write(ctx context.Context, channel *scp.Session, loadFile iso7816.AID) error {
	p, spec := profile(i.profile), applets.InstallSpec{}
	if p.Traits().MutualAuthentication {
		spec = applets.InstallSpec{DiversificationData: [10]byte{1, 2, 3}, KeySets: 2, ItemsCapacity: 200, PIN: i.pin != ""}
	}
	parameters, err := p.InstallParameters(spec)
	if err != nil {
		return err
	}
	module, _ := applets.BaseModule(i.profile)
	if _, err := globalplatform.Execute(ctx, channel, globalplatform.InstallForInstall{
		LoadFile: loadFile, Module: module, Instance: i.instance, MakeSelectable: true,
		Parameters: globalplatform.InstallParameters{Specific: parameters},
	}); err != nil || i.empty {
		return err
	}
	for _, v := range i.versions {
		k, err := keys.Diversify(keys.Read, keys.MethodSP800108, set("read", v, false), i.instance, spec.DiversificationData[:])
		if err != nil {
			return err
		}
		i.content.ReadKeys = append(i.content.ReadKeys, k)
	}
	if i.pin != "" {
		i.content.PIN = &applets.PINSetting{Reference: must(applets.NewPIN(i.pin))}
	}
	if _, err := globalplatform.Execute(ctx, channel, globalplatform.InstallForPersonalization{Instance: i.instance}); err != nil {
		return err
	}
	blocks, err := p.Personalization(i.content, channel.EncryptSensitive)
	if err != nil {
		return err
	}
	_, err = globalplatform.Store(ctx, channel, blocks, globalplatform.StoreOptions{Format: globalplatform.FormatDGI}, nil)
	return err
}

func points(r applets.Record) issue {
	return issue{profile: "common-ap", instance: aidPoints, content: applets.Content{Record: r}}
}

func library(r applets.Record, pin string) issue {
	return issue{profile: "type-a", instance: aidLibrary, versions: []byte{1}, pin: pin, content: applets.Content{
		Record: r, Items: []applets.Item{{Name: "branch", Value: "中央"}, {Name: "class", Value: "adult"}},
	}}
}

func office(r applets.Record) issue {
	return issue{profile: "type-d", instance: aidOffice, versions: []byte{2, 1}, content: applets.Content{Record: r}}
}
