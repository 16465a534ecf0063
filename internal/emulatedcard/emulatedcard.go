// Package emulatedcard makes emulated cards for the tests of several packages,
// and puts one with one application under the conformance suites of package
// appletstest.
package emulatedcard

import (
	"bytes"
	"context"
	"testing"

	"github.com/freearea/freearea/applets"
	filesoncard "github.com/freearea/freearea/applets/files/oncard"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Linker executes the base applications and the file application, as the
// cards of the command do.
func Linker() oncard.Linker {
	return oncard.Linkers{
		oncard.Known{applets.BasePackage: applets.IsBaseLoadFile},
		filesoncard.Linker{},
		jcvm.Linker{Quirks: jcvm.Quirks{NoLeIsZero: true}},
	}
}

// Card is an emulated card with a load file, from which one module is
// installed.
type Card struct {
	*emulator.Card
	keys        keys.Set
	pkg, module iso7816.AID
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// New makes a card with that load file on it.
func New(t testing.TB, cap []byte, module iso7816.AID) *Card {
	t.Helper()
	profile, err := emulator.LookupProfile("contactless")
	check(t, err)
	key := func(first byte) keys.Key {
		k, err := keys.NewKey(bytes.Repeat([]byte{first}, 16))
		check(t, err)
		return k
	}
	set := keys.Set{Version: 1, ENC: key(1), MAC: key(2), DEK: key(3)}
	c, err := emulator.New(emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: set, Linker: Linker()})
	check(t, err)
	t.Cleanup(func() { c.Close() })
	f, err := capfile.Parse(cap)
	check(t, err)
	x := &Card{c, set, f.Package.AID, module}
	sd, err := x.SecurityDomain(context.Background(), scp.CMAC)
	check(t, err)
	_, err = globalplatform.Load(context.Background(), sd, f, globalplatform.LoadOptions{}, nil)
	check(t, err)
	return x
}

// Install installs an instance of the module and makes it selectable.
func (c *Card) Install(ctx context.Context, _ string, instance iso7816.AID, parameters []byte) error {
	sd, err := c.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		return err
	}
	_, err = globalplatform.Execute(ctx, sd, globalplatform.InstallForInstall{
		LoadFile: c.pkg, Module: c.module, Instance: instance, MakeSelectable: true,
		Parameters: globalplatform.InstallParameters{Specific: parameters},
	})
	return err
}

// SecurityDomain opens a session with the Issuer Security Domain.
func (c *Card) SecurityDomain(ctx context.Context, level scp.Level) (*scp.Session, error) {
	plain := iso7816.Plain(c)
	if _, err := iso7816.Do(ctx, plain, iso7816.Select(emulator.IssuerSecurityDomain)); err != nil {
		return nil, err
	}
	return scp.Open(ctx, plain, c.keys, scp.HostOptions{Level: level})
}

// PowerCycle takes the power away and gives it back.
func (c *Card) PowerCycle(ctx context.Context) error { return c.Reset(ctx) }

// CutBeforeWrite takes the power away before a write of the next command; 0
// takes it back.
func (c *Card) CutBeforeWrite(n int) {
	if n == 0 {
		c.SetCut(emulator.Cut{})
		return
	}
	c.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: n})
}
