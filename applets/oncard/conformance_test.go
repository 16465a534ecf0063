package oncard_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/appletstest"
	"github.com/freearea/freearea/applets/oncard"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func TestConformance(t *testing.T) {
	appletstest.Run(t, appletstest.Config{New: func(t testing.TB) appletstest.Card { return newCard(t) }})
}

// TestProfiles holds the base profiles to what every profile must keep.
func TestProfiles(t *testing.T) {
	pin, err := applets.NewPIN("2580")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range applets.Base() {
		content := applets.Content{Record: applets.Record{Service: "s", ID: "1", IssueNumber: 1}, Tag: [16]byte{1}}
		update := applets.Content{Record: applets.Record{Service: "s", ID: "2", IssueNumber: 2}, Tag: [16]byte{2}}
		spec := applets.InstallSpec{}
		if p.Traits().MutualAuthentication {
			spec = applets.InstallSpec{DiversificationData: [10]byte{1}, KeySets: 1, ItemsCapacity: 100, PIN: true}
			content.ReadKeys = []keys.Set{{Version: 1, ENC: mustKey(t, 0x40), MAC: mustKey(t, 0x50)}}
			content.PIN = &applets.PINSetting{Reference: pin, Limit: 4}
			content.Items = []applets.Item{{Name: "a", Value: "b"}}
			update.KeepKeys, update.KeepPIN = true, true
		}
		t.Run(p.Name(), func(t *testing.T) {
			appletstest.RunProfile(t, appletstest.ProfileConfig{
				Profile: p, Spec: spec, Content: content, Update: update,
				New: func(t testing.TB) appletstest.Card { return newCard(t) },
			})
		})
	}
}

// card is the emulated card with the base load file on it.
type card struct {
	*emulator.Card
	keys keys.Set
}

var (
	_ appletstest.Locker = (*card)(nil)
	_ appletstest.Cutter = (*card)(nil)
)

func mustKey(t testing.TB, first byte) keys.Key {
	t.Helper()
	b := make([]byte, 16)
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := keys.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newCard(t testing.TB) *card { return newSmallCard(t, 0) }

// newSmallCard is a card with that much persistent memory; 0 is the usual.
func newSmallCard(t testing.TB, persistent int) *card {
	t.Helper()
	profile, err := emulator.LookupProfile("contactless")
	if err != nil {
		t.Fatal(err)
	}
	if persistent > 0 {
		profile.PersistentMemory = persistent
	}
	profile.CommitCapacity = 64 // all that a flip may take
	set := keys.Set{Version: 1, ENC: mustKey(t, 0x10), MAC: mustKey(t, 0x20), DEK: mustKey(t, 0x30)}
	c, err := emulator.New(emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: set, Linker: oncard.Linker{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	x := &card{c, set}
	f, err := capfile.Parse(applets.BaseLoadFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := x.load(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	return x
}

// send sends a command to the Security Domain.
func (c *card) send(ctx context.Context, cmd globalplatform.Commander) error {
	sd, err := c.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	_, err = globalplatform.Execute(ctx, sd, cmd)
	return err
}

func (c *card) load(ctx context.Context, f *capfile.File) error {
	sd, err := c.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	_, err = globalplatform.Load(ctx, sd, f, globalplatform.LoadOptions{}, nil)
	return err
}

func (c *card) Install(ctx context.Context, profile string, instance iso7816.AID, parameters []byte) error {
	module, ok := applets.BaseModule(profile)
	if !ok {
		return fmt.Errorf("no module for %s", profile)
	}
	return c.send(ctx, globalplatform.InstallForInstall{
		LoadFile: applets.BasePackage, Module: module, Instance: instance, MakeSelectable: true,
		Parameters: globalplatform.InstallParameters{Specific: parameters},
	})
}

func (c *card) SecurityDomain(ctx context.Context, level scp.Level) (*scp.Session, error) {
	plain := iso7816.Plain(c)
	if _, err := iso7816.Do(ctx, plain, iso7816.Select(emulator.IssuerSecurityDomain)); err != nil {
		return nil, err
	}
	return scp.Open(ctx, plain, c.keys, scp.HostOptions{Level: level})
}

func (c *card) PowerCycle(ctx context.Context) error { return c.Reset(ctx) }

func (c *card) SetLocked(ctx context.Context, instance iso7816.AID, locked bool) error {
	if locked {
		return c.send(ctx, globalplatform.Lock(instance))
	}
	return c.send(ctx, globalplatform.Unlock(instance))
}

func (c *card) CutBeforeWrite(n int) {
	if n == 0 {
		c.SetCut(emulator.Cut{})
		return
	}
	c.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: n})
}

// TestMemory holds PersistentMemory to what an instance takes of the emulated
// card, which adds 64 bytes for each and 8 for each of its objects; and a card
// without that much to 6A84 and nothing half installed.
func TestMemory(t *testing.T) {
	ctx := context.Background()
	aid := iso7816.MustAID("F0465245454152454101")
	for _, p := range applets.Base() {
		for _, pin := range []bool{false, true} {
			spec, objects := applets.InstallSpec{}, 4
			if p.Traits().MutualAuthentication {
				spec = applets.InstallSpec{DiversificationData: [10]byte{1}, KeySets: 3, ItemsCapacity: 777, PIN: pin}
			}
			if spec.PIN {
				objects++
			}
			params, err := p.InstallParameters(spec)
			if err != nil {
				t.Fatal(err)
			}
			c := newCard(t)
			before := c.Memory()
			if err := c.Install(ctx, p.Name(), aid, params); err != nil {
				t.Fatal(err)
			}
			want := p.PersistentMemory(spec) + 64 + 8*objects
			if got := c.Memory().PersistentUsed - before.PersistentUsed; got != want {
				t.Errorf("%s, PIN %v: takes %d bytes, want %d", p.Name(), pin, got, want)
			}
			for _, short := range []int{1, 200, want - 70} {
				c := newSmallCard(t, before.PersistentUsed+want-short)
				free := c.Memory().Free()
				if err := c.Install(ctx, p.Name(), aid, params); !errors.Is(err, iso7816.ErrNoMemory) {
					t.Errorf("%s with %d bytes too few: %v", p.Name(), short, err)
				}
				if got := c.Memory().Free(); got != free {
					t.Errorf("%s with %d bytes too few: %d bytes free, %d before", p.Name(), short, got, free)
				}
				if r, err := iso7816.Send(ctx, c, iso7816.Select(aid)); err != nil || r.SW != iso7816.ErrNotFound {
					t.Errorf("%s with %d bytes too few is selected: %v, %v", p.Name(), short, r.SW, err)
				}
			}
			c = newSmallCard(t, before.PersistentUsed+want)
			if err := c.Install(ctx, p.Name(), aid, params); err != nil {
				t.Errorf("%s with just enough: %v", p.Name(), err)
			}
		}
	}
}

func TestLinker(t *testing.T) {
	ctx := context.Background()
	f, err := capfile.Parse(applets.BaseLoadFile())
	if err != nil {
		t.Fatal(err)
	}
	good := f.LoadFileDataBlock()
	if m, err := (oncard.Linker{}).Link(applets.BasePackage, good, f.Hash()); err != nil || len(m) != 3 {
		t.Errorf("base load file: %d modules, %v", len(m), err)
	}
	changed := f.Hash()
	changed[31] ^= 1
	if m, err := (oncard.Linker{}).Link(applets.BasePackage, good, changed); !errors.Is(err, oncard.ErrForgedLoadFile) || m != nil {
		t.Errorf("another file with its AID: %v, %v", m, err)
	}
	if m, err := (oncard.Linker{}).Link(iso7816.MustAID("F0465245454152454199"), good, f.Hash()); err != nil || m != nil {
		t.Errorf("another package: %v, %v", m, err)
	}
	// Some hosts load the Descriptor component too.
	described := append(slices.Clone(good), f.Component(capfile.Descriptor)...)
	if m, err := (oncard.Linker{}).Link(applets.BasePackage, described, sha256.Sum256(described)); err != nil || len(m) != 3 {
		t.Errorf("base load file with its Descriptor: %d modules, %v", len(m), err)
	}
	described[len(described)-1] ^= 1
	if m, err := (oncard.Linker{}).Link(applets.BasePackage, described, sha256.Sum256(described)); !errors.Is(err, oncard.ErrForgedLoadFile) || m != nil {
		t.Errorf("with another Descriptor: %v, %v", m, err)
	}
	// On a card: one byte of the install method changed.
	c := newCard(t)
	if err := c.send(ctx, globalplatform.Delete{AID: applets.BasePackage, Related: true}); err != nil {
		t.Fatal(err)
	}
	block := slices.Clone(good)
	block[slices.Index(block, 0x7A)] ^= 1
	forged, err := capfile.ParseLoadFileDataBlock(block)
	if err != nil {
		t.Fatal(err)
	}
	var refused *iso7816.StatusError
	if err := c.load(ctx, forged); !errors.As(err, &refused) {
		t.Errorf("the card loads a forged file: %v", err)
	}
	if err := c.load(ctx, f); err != nil {
		t.Errorf("the base load file after that: %v", err)
	}
}
