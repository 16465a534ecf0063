package oncard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/appletstest"
	"github.com/freearea/freearea/applets/oncard"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func TestConformance(t *testing.T) {
	appletstest.Run(t, appletstest.Config{New: func(t testing.TB) appletstest.Card { return newCard(t) }})
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

func newCard(t testing.TB) *card {
	t.Helper()
	profile, err := emulator.LookupProfile("contactless")
	if err != nil {
		t.Fatal(err)
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
	if err := x.load(context.Background(), applets.BasePackage, f.LoadFileDataBlock()); err != nil {
		t.Fatal(err)
	}
	return x
}

func lv(b []byte) []byte { return append([]byte{byte(len(b))}, b...) }

// load loads a load file data block (GPCS 11.5.2.3.1, 11.6).
func (c *card) load(ctx context.Context, pkg iso7816.AID, block []byte) error {
	sd, err := c.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	data := slices.Concat(lv(pkg.Bytes()), []byte{0, 0, 0, 0})
	if _, err := iso7816.Do(ctx, sd, iso7816.Command{CLA: 0x80, INS: 0xE6, P1: 0x02, Data: data, Ne: 256}); err != nil {
		return err
	}
	file := iso7816.AppendTLV(nil, 0xC4, block)
	parts := slices.Collect(slices.Chunk(file, sd.MaxData()))
	for i, part := range parts {
		p1 := byte(0)
		if i == len(parts)-1 {
			p1 = 0x80
		}
		if _, err := iso7816.Do(ctx, sd, iso7816.Command{CLA: 0x80, INS: 0xE8, P1: p1, P2: byte(i), Data: part, Ne: 256}); err != nil {
			return err
		}
	}
	return nil
}

func (c *card) Install(ctx context.Context, profile string, instance iso7816.AID, parameters []byte) error {
	module, ok := applets.BaseModule(profile)
	if !ok {
		return fmt.Errorf("no module for %s", profile)
	}
	sd, err := c.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	data := slices.Concat(lv(applets.BasePackage.Bytes()), lv(module.Bytes()), lv(instance.Bytes()), []byte{1, 0},
		lv(iso7816.AppendTLV(nil, 0xC9, parameters)), []byte{0})
	_, err = iso7816.Do(ctx, sd, iso7816.Command{CLA: 0x80, INS: 0xE6, P1: 0x0C, Data: data, Ne: 256})
	return err
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
	sd, err := c.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	state := byte(0)
	if locked {
		state = 0x80
	}
	_, err = iso7816.Do(ctx, sd, iso7816.Command{CLA: 0x80, INS: 0xF0, P1: 0x40, P2: state, Data: instance.Bytes()})
	return err
}

func (c *card) CutBeforeWrite(n int) {
	if n == 0 {
		c.SetCut(emulator.Cut{})
		return
	}
	c.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: n})
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
	// On a card: one byte of the install method changed.
	c := newCard(t)
	sd, err := c.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		t.Fatal(err)
	}
	remove := iso7816.AppendTLV(nil, 0x4F, applets.BasePackage.Bytes())
	if _, err := iso7816.Do(ctx, sd, iso7816.Command{CLA: 0x80, INS: 0xE4, P2: 0x80, Data: remove, Ne: 256}); err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(good)
	at := slices.Index(forged, 0x7A)
	forged[at] ^= 1
	var refused *iso7816.StatusError
	if err := c.load(ctx, applets.BasePackage, forged); !errors.As(err, &refused) {
		t.Errorf("the card loads a forged file: %v", err)
	}
	if err := c.load(ctx, applets.BasePackage, good); err != nil {
		t.Errorf("the base load file after that: %v", err)
	}
}
