package jcvm_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

func TestMembers(t *testing.T) {
	t.Parallel()
	list, err := jcvm.Members(readCAP(t, "api"))
	if err != nil {
		t.Fatal(err)
	}
	framework := iso7816.MustAID("A0000000620101")
	for _, want := range []jcvm.Member{
		{framework, "javacard/framework/Util.arrayCopy([BS[BSS)S", true, true},
		{framework, "javacard/framework/APDU.setIncomingAndReceive()S", true, true},
		{framework, "javacard/framework/OwnerPIN", true, true},
		{iso7816.MustAID("A00000015100"), "org/globalplatform/GPSystem.getSecureChannel()Lorg/globalplatform/SecureChannel;", true, true},
	} {
		if !slices.Contains(list, want) {
			t.Errorf("%+v is not among the %d members", want, len(list))
		}
	}
	files, _ := filepath.Glob("testdata/*.cap")
	for _, name := range files {
		f, err := capfile.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := jcvm.Missing(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, test := range []struct {
		member      string
		implemented bool
		exists      bool
	}{
		{"javacard/framework/Util.makeShort(BB)S", true, true},
		{"javacard/security/AESKey.setKey([BS)V", true, true},
		{"javacard/security/Key.getSize()S", true, true},
		{"javacard/framework/AID.getBytes([BS)B", true, true},
		{"javacardx/crypto/KeyEncryption.getKeyCipher()Ljavacardx/crypto/Cipher;", false, true},
		{"javacard/framework/Util.nothing()V", false, false},
		{"nothing", false, false},
	} {
		if implemented, exists := jcvm.Supported(test.member); implemented != test.implemented || exists != test.exists {
			t.Errorf("%s: implemented %v, exists %v", test.member, implemented, exists)
		}
	}
}

// TestLinkers puts the machine beside another linker.
func TestLinkers(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Linker = oncard.Linkers{nothing{}, jcvm.Linker{}}
	card, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := load(t, card, "api")
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	selectApplet(t, card, f.Applets[0])
	script{{"80010000 03 010203", "9000"}}.run(t, card)
}

// nothing is a linker that knows no load file.
type nothing struct{}

func (nothing) Link(iso7816.AID, []byte, [32]byte) (map[iso7816.AID]oncard.Module, error) {
	return nil, nil
}
