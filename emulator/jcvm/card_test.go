package jcvm_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"math/rand"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// testKeys are the keys of the cards here.
func testKeys(t testing.TB) keys.Set {
	t.Helper()
	k := func(b byte) keys.Key {
		key, err := keys.NewKey(bytes.Repeat([]byte{b}, 16))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	return keys.Set{Version: 1, ENC: k(1), MAC: k(2), DEK: k(3)}
}

func config(t testing.TB) emulator.Config {
	t.Helper()
	profile, err := emulator.LookupProfile("contact")
	if err != nil {
		t.Fatal(err)
	}
	return emulator.Config{
		Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: testKeys(t), Linker: jcvm.Linker{},
		Rand: rand.New(rand.NewSource(1)),
	}
}

func newCard(t testing.TB) *emulator.Card {
	t.Helper()
	card, err := emulator.New(config(t))
	if err != nil {
		t.Fatal(err)
	}
	return card
}

// manage opens a secure channel with the Issuer Security Domain.
func manage(t testing.TB, card iso7816.Card) *scp.Session {
	t.Helper()
	ctx := context.Background()
	if _, err := globalplatform.Select(ctx, iso7816.Plain(card), globalplatform.IssuerSecurityDomain); err != nil {
		t.Fatal(err)
	}
	s, err := scp.Open(ctx, iso7816.Plain(card), testKeys(t), scp.HostOptions{Level: scp.CMAC, Rand: rand.New(rand.NewSource(2))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readCAP(t testing.TB, name string) *capfile.File {
	t.Helper()
	f, err := capfile.ReadFile(filepath.Join("testdata", name+".cap"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// load puts a load file on the card.
func load(t testing.TB, card iso7816.Card, name string) *capfile.File {
	t.Helper()
	f := readCAP(t, name)
	if _, err := globalplatform.Load(context.Background(), manage(t, card), f, globalplatform.LoadOptions{}, nil); err != nil {
		t.Fatalf("load of %s: %v", name, err)
	}
	return f
}

// installAs makes an instance of an applet of a load file.
func installAs(t testing.TB, card iso7816.Card, f *capfile.File, module, instance iso7816.AID, parameters []byte) {
	t.Helper()
	if err := tryInstall(t, card, f, module, instance, parameters); err != nil {
		t.Fatalf("install of %v: %v", instance, err)
	}
}

func tryInstall(t testing.TB, card iso7816.Card, f *capfile.File, module, instance iso7816.AID, parameters []byte) error {
	t.Helper()
	cmd, err := globalplatform.InstallForInstall{
		LoadFile: f.Package.AID, Module: module, Instance: instance,
		Parameters: globalplatform.InstallParameters{Specific: parameters}, MakeSelectable: true,
	}.Command()
	if err != nil {
		t.Fatal(err)
	}
	_, err = iso7816.Do(context.Background(), manage(t, card), cmd)
	return err
}

// withApplet is a card with the only applet of a load file, selected.
func withApplet(t testing.TB, name string, parameters ...byte) *emulator.Card {
	t.Helper()
	card := newCard(t)
	f := load(t, card, name)
	installAs(t, card, f, f.Applets[0], f.Applets[0], parameters)
	selectApplet(t, card, f.Applets[0])
	return card
}

func selectApplet(t testing.TB, card iso7816.Card, aid iso7816.AID) {
	t.Helper()
	if sw := exchange(t, card, "00A40400"+hex.EncodeToString(append([]byte{byte(aid.Len())}, aid.Bytes()...))); !strings.HasSuffix(sw, "9000") {
		t.Fatalf("selection of %v: %s", aid, sw)
	}
}

// exchange sends a command in hexadecimal and returns the response likewise.
func exchange(t testing.TB, card iso7816.Card, command string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(command, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	r, err := card.Transmit(context.Background(), b)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.ToUpper(hex.EncodeToString(r))
}
