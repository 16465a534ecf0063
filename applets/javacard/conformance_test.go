package javacard_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/appletstest"
	"github.com/freearea/freearea/applets/javacard"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func TestConformance(t *testing.T) {
	for name, linker := range map[string]oncard.Linker{
		"usual":         executed(),
		"EmptyIncoming": jcvm.Linker{Quirks: jcvm.Quirks{NoLeIsZero: true, EmptyIncoming: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			appletstest.Run(t, appletstest.Config{New: func(t testing.TB) appletstest.Card { return newCard(t, linker, nil) }})
		})
	}
}

// executed is a virtual machine that tells a command without Le from one with
// Le 00, which two rules of the protocol need.
func executed() oncard.Linker {
	return jcvm.Linker{Quirks: jcvm.Quirks{NoLeIsZero: true}}
}

// host talks to a card's Security Domain.
type host struct {
	iso7816.Card
	keys   keys.Set
	random io.Reader // of its challenges
}

// card is an emulated card with a load file of the base applications on it.
type card struct {
	*emulator.Card
	host
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

// newCard makes a card; random is its generator, nil the usual one.
func newCard(t testing.TB, linker oncard.Linker, random io.Reader) *card {
	return newSmallCard(t, linker, random, 0)
}

// newSmallCard is a card with that much persistent memory; 0 is the usual.
func newSmallCard(t testing.TB, linker oncard.Linker, random io.Reader, persistent int) *card {
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
	c, err := emulator.New(emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: set, Linker: linker, Rand: random})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	x := &card{c, host{c, set, random}}
	if err := x.load(context.Background(), loadFile(t)); err != nil {
		t.Fatal(err)
	}
	return x
}

// loadFile is the load file of the base applications.
func loadFile(t testing.TB) *capfile.File {
	t.Helper()
	f, err := capfile.Parse(javacard.LoadFile())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (h host) load(ctx context.Context, f *capfile.File) error {
	sd, err := h.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	_, err = globalplatform.Load(ctx, sd, f, globalplatform.LoadOptions{}, nil)
	return err
}

func (c *card) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	return c.Card.Transmit(ctx, command)
}

// send sends a command to the Security Domain.
func (h host) send(ctx context.Context, cmd globalplatform.Commander) error {
	sd, err := h.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	_, err = globalplatform.Execute(ctx, sd, cmd)
	return err
}

func (h host) Install(ctx context.Context, profile string, instance iso7816.AID, parameters []byte) error {
	module, ok := applets.BaseModule(profile)
	if !ok {
		return fmt.Errorf("no module for %s", profile)
	}
	return h.send(ctx, globalplatform.InstallForInstall{
		LoadFile: applets.BasePackage, Module: module, Instance: instance, MakeSelectable: true,
		Parameters: globalplatform.InstallParameters{Specific: parameters},
	})
}

func (h host) SecurityDomain(ctx context.Context, level scp.Level) (*scp.Session, error) {
	plain := iso7816.Plain(h)
	if _, err := iso7816.Do(ctx, plain, iso7816.Select(emulator.IssuerSecurityDomain)); err != nil {
		return nil, err
	}
	return scp.Open(ctx, plain, h.keys, scp.HostOptions{Level: level, Rand: h.random})
}

func (h host) SetLocked(ctx context.Context, instance iso7816.AID, locked bool) error {
	if locked {
		return h.send(ctx, globalplatform.Lock(instance))
	}
	return h.send(ctx, globalplatform.Unlock(instance))
}

func (c *card) PowerCycle(ctx context.Context) error { return c.Reset(ctx) }

func (c *card) CutBeforeWrite(n int) {
	if n == 0 {
		c.SetCut(emulator.Cut{})
		return
	}
	c.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: n})
}
