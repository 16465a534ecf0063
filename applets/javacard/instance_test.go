package javacard_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/appletstest"
	"github.com/freearea/freearea/applets/javacard"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var instance = iso7816.MustAID("F0465245454152454101")

// contentOf is what an instance of a profile can hold: everything.
func contentOf(t testing.TB, p applets.Profile) (applets.InstallSpec, applets.Content) {
	t.Helper()
	content := applets.Content{Record: applets.Record{Service: "s", ID: "1", IssueNumber: 1}, Tag: [16]byte{1}}
	if !p.Traits().MutualAuthentication {
		return applets.InstallSpec{}, content
	}
	content.ReadKeys = []keys.Set{{Version: 1, ENC: mustKey(t, 0x40), MAC: mustKey(t, 0x50)}}
	content.PIN = &applets.PINSetting{Reference: newPIN("2580"), Limit: 4}
	content.Items = []applets.Item{{Name: "a", Value: "b"}}
	return applets.InstallSpec{DiversificationData: [10]byte{1}, KeySets: 1, ItemsCapacity: 64, PIN: true}, content
}

// TestProfiles holds the executed applications to what every profile must keep.
func TestProfiles(t *testing.T) {
	for _, p := range applets.Base() {
		spec, content := contentOf(t, p)
		update := applets.Content{Record: applets.Record{Service: "s", ID: "2", IssueNumber: 2}, Tag: [16]byte{2}}
		update.KeepKeys, update.KeepPIN = p.Traits().MutualAuthentication, p.Traits().MutualAuthentication
		t.Run(p.Name(), func(t *testing.T) {
			appletstest.RunProfile(t, appletstest.ProfileConfig{
				Profile: p, Spec: spec, Content: content, Update: update,
				New: func(t testing.TB) appletstest.Card { return newCard(t, executed(), nil) },
			})
		})
	}
}

// maxInstance is the aim for the greatest type-d, in bytes.
const maxInstance = 4 << 10

// TestMemory holds PersistentMemory to what an instance takes of the emulated
// card, to the byte where its AID is of the greatest length; and a card without
// that much to 6A84 and nothing half installed.
func TestMemory(t *testing.T) {
	ctx := context.Background()
	longest := iso7816.MustAID("F0465245454152454101020304050607")
	for _, p := range applets.Base() {
		specs := []applets.InstallSpec{{}}
		if p.Traits().MutualAuthentication {
			specs = []applets.InstallSpec{
				{DiversificationData: [10]byte{1}, KeySets: 1, ItemsCapacity: 64, PIN: true},
				{DiversificationData: [10]byte{1}, KeySets: 3, ItemsCapacity: 777},
				{DiversificationData: [10]byte{1}, KeySets: applets.MaxKeySets, ItemsCapacity: applets.MaxItemsFile, PIN: true},
			}
		}
		for _, spec := range specs {
			params, err := p.InstallParameters(spec)
			if err != nil {
				t.Fatal(err)
			}
			c := newCard(t, executed(), nil)
			before := c.Memory()
			if err := c.Install(ctx, p.Name(), longest, params); err != nil {
				t.Fatal(err)
			}
			after := c.Memory()
			n := after.PersistentUsed - before.PersistentUsed
			t.Logf("%s, %d key sets, %d bytes of items, PIN %v: %d bytes persistent, %d cleared on reset, %d on deselection",
				p.Name(), spec.KeySets, spec.ItemsCapacity, spec.PIN, n,
				after.TransientResetUsed-before.TransientResetUsed, after.TransientDeselectUsed-before.TransientDeselectUsed)
			if n >= maxInstance {
				t.Errorf("%s takes %d bytes", p.Name(), n)
			}
			if want := p.PersistentMemory(spec); n != want {
				t.Errorf("%s with %+v takes %d bytes, want %d", p.Name(), spec, n, want)
			}
			for _, short := range []int{1, 200, n - 70} {
				c := newSmallCard(t, executed(), nil, before.PersistentUsed+n-short)
				free := c.Memory().Free()
				if err := c.Install(ctx, p.Name(), longest, params); !errors.Is(err, iso7816.ErrNoMemory) {
					t.Errorf("%s with %d bytes too few: %v", p.Name(), short, err)
				}
				if got := c.Memory().Free(); got != free {
					t.Errorf("%s with %d bytes too few: %d bytes free, %d before", p.Name(), short, got, free)
				}
				if r, err := iso7816.Send(ctx, c, iso7816.Select(longest)); err != nil || r.SW != iso7816.ErrNotFound {
					t.Errorf("%s with %d bytes too few is selected: %v, %v", p.Name(), short, r.SW, err)
				}
			}
			c = newSmallCard(t, executed(), nil, before.PersistentUsed+n)
			if err := c.Install(ctx, p.Name(), longest, params); err != nil {
				t.Errorf("%s with just enough: %v", p.Name(), err)
			}
		}
	}
}

// TestForged: a card whose linker knows the package refuses another load file
// with its AID.
func TestForged(t *testing.T) {
	ctx := context.Background()
	c := newCard(t, oncard.Linkers{oncard.Known{applets.BasePackage: applets.IsBaseLoadFile}, executed()}, nil)
	if err := c.send(ctx, globalplatform.Delete{AID: applets.BasePackage, Related: true}); err != nil {
		t.Fatal(err)
	}
	f := loadFile(t)
	block := f.LoadFileDataBlock()
	pool := f.Component(capfile.ConstantPool)
	block[bytes.Index(block, pool)+len(pool)-1] ^= 1
	forged, err := capfile.ParseLoadFileDataBlock(block)
	if err != nil {
		t.Fatal(err)
	}
	var refused *iso7816.StatusError
	if err := c.load(ctx, forged); !errors.As(err, &refused) {
		t.Errorf("the card loads a forged file: %v", err)
	}
	// Some hosts load the Descriptor component too.
	described, err := capfile.ParseLoadFileDataBlock(append(f.LoadFileDataBlock(), f.Component(capfile.Descriptor)...))
	if err != nil {
		t.Fatal(err)
	}
	for _, genuine := range []*capfile.File{f, described} {
		if err := c.load(ctx, genuine); err != nil {
			t.Fatal(err)
		}
		params, err := applets.Base()[0].InstallParameters(applets.InstallSpec{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Install(ctx, "common-ap", instance, params); err != nil {
			t.Error(err)
		}
		if err := c.send(ctx, globalplatform.Delete{AID: applets.BasePackage, Related: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTornWipe: what was left when power was lost is wiped at the next SELECT,
// and only then does a SELECT write.
func TestTornWipe(t *testing.T) {
	ctx := context.Background()
	for _, p := range applets.Base() {
		spec, content := contentOf(t, p)
		params, err := p.InstallParameters(spec)
		if err != nil {
			t.Fatal(err)
		}
		c := newCard(t, executed(), nil)
		if err := c.Install(ctx, p.Name(), instance, params); err != nil {
			t.Fatal(err)
		}
		wipe := func(cutBefore int) error {
			c.personalize(t, p, content)
			sd, err := c.SecurityDomain(ctx, scp.CDecryption)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: instance}); err != nil {
				t.Fatal(err)
			}
			c.CountWrites()
			c.CutBeforeWrite(cutBefore)
			_, err = iso7816.Do(ctx, sd, iso7816.Command{CLA: 0x80, INS: applets.InsStoreData, P1: 0x88, Data: p.Wipe()[0]})
			return err
		}
		if err := wipe(0); err != nil {
			t.Fatal(err)
		}
		// The last write takes the marks away, the one before wipes the second slot.
		if err := wipe(c.Writes()[0] - 1); !errors.Is(err, iso7816.ErrCardRemoved) {
			t.Fatalf("%s: %v", p.Name(), err)
		}
		if err := c.PowerCycle(ctx); err != nil {
			t.Fatal(err)
		}
		c.CountWrites()
		for range 2 {
			if r, err := iso7816.Send(ctx, c, iso7816.Select(instance)); err != nil || r.SW != iso7816.OK {
				t.Fatalf("%s: %v, %v", p.Name(), r.SW, err)
			}
		}
		if w := c.Writes(); len(w) != 2 || w[0] == 0 || w[1] != 0 {
			t.Errorf("%s: SELECT after a torn wipe, and again, write %v times", p.Name(), w)
		}
	}
}

// TestStatics: independence of the instances rests on there being no static
// fields (docs/card-protocol.md).
func TestStatics(t *testing.T) {
	f, err := capfile.Parse(javacard.LoadFile())
	if err != nil {
		t.Fatal(err)
	}
	// JCVM 6.10: tag and size, then the size of the image and the numbers of
	// references, of initialised arrays, of bytes with default and other values.
	b := f.Component(capfile.StaticField)
	if len(b) != 13 {
		t.Fatalf("StaticField component has %d bytes", len(b))
	}
	for _, v := range b[3:] {
		if v != 0 {
			t.Fatalf("static fields: % X", b)
		}
	}
}

// BenchmarkTap is the card's part of a type-d tap.
func BenchmarkTap(b *testing.B) {
	ctx := context.Background()
	p := applets.Base()[2]
	spec, content := contentOf(b, p)
	spec.PIN, content.PIN = false, nil
	c := newCard(b, executed(), nil)
	params, err := p.InstallParameters(spec)
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Install(ctx, p.Name(), instance, params); err != nil {
		b.Fatal(err)
	}
	c.personalize(b, p, content)
	set := content.ReadKeys[0]
	request := applets.ReadRequest{AID: instance, Keys: func(context.Context, applets.ApplicationInfo) (keys.Set, error) { return set.Clone(), nil }}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Read(ctx, c, request); err != nil {
			b.Fatal(err)
		}
	}
}

// personalize writes content through the Security Domain.
func (c *card) personalize(t testing.TB, p applets.Profile, content applets.Content) {
	t.Helper()
	ctx := context.Background()
	sd, err := c.SecurityDomain(ctx, scp.CDecryption)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: instance}); err != nil {
		t.Fatal(err)
	}
	blocks, err := p.Personalization(content, sd.EncryptSensitive)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := globalplatform.Store(ctx, sd, blocks, globalplatform.StoreOptions{Format: globalplatform.FormatDGI}, nil); err != nil {
		t.Fatal(err)
	}
}
