package jcvm_test

import (
	"context"
	"encoding/hex"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// sweep cuts the power before every write of every command of an action, each
// on a card of its own that prepare has made ready, and lets after look at the
// card; the action must then succeed or be done already.
func sweep(t *testing.T, prepare func(card *emulator.Card), action func(card *emulator.Card) error, after func(card *emulator.Card)) {
	t.Helper()
	card := newCard(t)
	prepare(card)
	card.CountWrites()
	if err := action(card); err != nil {
		t.Fatal(err)
	}
	counts := card.Writes()
	after(card)
	cuts := 0
	for command, writes := range counts {
		for write := 1; write <= writes; write++ {
			card := newCard(t)
			prepare(card)
			card.SetCut(emulator.Cut{Command: command + 1, Where: emulator.BeforeWrite, Write: write})
			if err := action(card); err == nil {
				t.Fatalf("the cut before write %d of command %d did not come", write, command+1)
			}
			card.PowerOn()
			used := card.Memory().PersistentUsed
			if err := action(card); err != nil {
				t.Errorf("cut before write %d of command %d: again: %v (%d bytes in use)", write, command+1, err, used)
			}
			after(card)
			cuts++
		}
	}
	if cuts < 2 {
		t.Errorf("%d cuts", cuts)
	}
}

// TestCuts loses power before every write of loading, installing and deleting.
func TestCuts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	open := func(card *emulator.Card) (*scp.Session, error) {
		if _, err := globalplatform.Select(ctx, iso7816.Plain(card), globalplatform.IssuerSecurityDomain); err != nil {
			return nil, err
		}
		return scp.Open(ctx, iso7816.Plain(card), testKeys(t), scp.HostOptions{Level: scp.CMAC})
	}
	do := func(card *emulator.Card, command func() (iso7816.Command, error)) error {
		s, err := open(card)
		if err != nil {
			return err
		}
		c, err := command()
		if err != nil {
			return err
		}
		_, err = iso7816.Do(ctx, s, c)
		return err
	}
	server, instance := readCAP(t, "server"), iso7816.MustAID("F00000000177")
	install := func(card *emulator.Card) error {
		return do(card, globalplatform.InstallForInstall{
			LoadFile: server.Package.AID, Module: server.Applets[0], Instance: instance, MakeSelectable: true,
		}.Command)
	}
	use := func(card *emulator.Card) {
		t.Helper()
		selectApplet(t, card, instance)
		script{{"80000000", "0000 9000"}}.run(t, card)
	}
	t.Run("load", func(t *testing.T) {
		sweep(t, func(card *emulator.Card) { load(t, card, "lib") }, func(card *emulator.Card) error {
			s, err := open(card)
			if err != nil {
				return err
			}
			_, err = globalplatform.Load(ctx, s, server, globalplatform.LoadOptions{}, nil)
			return err
		}, func(card *emulator.Card) {
			if err := install(card); err != nil {
				t.Error(err)
			}
			use(card)
		})
	})
	ready := func(card *emulator.Card) {
		load(t, card, "lib")
		load(t, card, "server")
	}
	want := 0
	t.Run("install", func(t *testing.T) {
		sweep(t, ready, install, func(card *emulator.Card) {
			use(card)
			if used := card.Memory().PersistentUsed; want == 0 {
				want = used
			} else if used != want {
				t.Errorf("%d bytes in use, without a cut %d", used, want)
			}
		})
	})
	t.Run("delete", func(t *testing.T) {
		sweep(t, func(card *emulator.Card) {
			ready(card)
			if err := install(card); err != nil {
				t.Fatal(err)
			}
		}, func(card *emulator.Card) error {
			return do(card, globalplatform.Delete{AID: server.Package.AID, Related: true}.Command)
		}, func(card *emulator.Card) {
			if err := do(card, globalplatform.Delete{AID: iso7816.MustAID("F00000000112")}.Command); err != nil {
				t.Error(err)
			}
			if used := card.Memory().PersistentUsed; used != 0 {
				t.Errorf("%d bytes in use when everything is deleted", used)
			}
		})
	})
}

// TestProcessCuts loses power in a command that makes objects without a
// transaction: the card goes on working, and deletion finds what was left.
func TestProcessCuts(t *testing.T) {
	t.Parallel()
	aid := iso7816.MustAID("F0000000011501")
	command, _ := hex.DecodeString("800B0003")
	for write := 1; ; write++ {
		card := withApplet(t, "api")
		script{{"800D0000", "9000"}}.run(t, card)
		before := card.Memory().PersistentUsed
		card.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: write})
		_, err := card.Transmit(context.Background(), command)
		if err == nil {
			break
		}
		card.PowerOn()
		selectApplet(t, card, aid)
		script{{"800C0000", "0000 9000"}, {"800D0000", "9000"}}.run(t, card)
		if used := card.Memory().PersistentUsed; used != before {
			t.Errorf("cut before write %d: %d bytes in use, %d before", write, used, before)
		}
	}
}
