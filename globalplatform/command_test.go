package globalplatform_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// Lines without a source are written down from the tables of the Card
// Specification that the command's documentation cites.
func TestCommands(t *testing.T) {
	aid := iso7816.MustAID
	keycard, wallet := aid("53746174757357616C6C6574"), aid("53746174757357616C6C6574417070")
	for _, x := range []struct {
		name    string
		command globalplatform.Commander
		want    string
	}{
		// status-im/keycard-go, globalplatform/commands_test.go; Le added.
		{"keycard-go: install for load", globalplatform.InstallForLoad{LoadFile: keycard, SecurityDomain: globalplatform.IssuerSecurityDomain},
			"80E60200 19 0C53746174757357616C6C6574 08A000000151000000 00 00 00 00"},
		{"keycard-go: install for install", globalplatform.InstallForInstall{LoadFile: keycard, Module: wallet, Instance: wallet, MakeSelectable: true,
			Parameters: globalplatform.InstallParameters{Specific: []byte{0xAA, 0xBB, 0xCC}}},
			"80E60C00 36 0C53746174757357616C6C6574 0F53746174757357616C6C6574417070 0F53746174757357616C6C6574417070 0100 05C903AABBCC 00 00"},
		{"keycard-go: delete", globalplatform.Delete{AID: aid("0102030405")}, "80E40000 07 4F050102030405 00"},
		// kaoh/globalplatform: a log of gpshell with a physical card, quoted by
		// several projects as configure_gpshell_log.txt, lines 43 and 47.
		{"gpshell: install for load", globalplatform.InstallForLoad{LoadFile: aid("A00000030800001000"), SecurityDomain: globalplatform.IssuerSecurityDomain,
			Parameters: globalplatform.LoadParameters{CodeMemory: 0x68F8}},
			"80E602001C09A0000003080000100008A0000001510000000006EF04C60268F80000"},
		// kaoh/globalplatform, scp03Test.c: the clear form of delete_application and get_status_enc_mac.
		{"gpshell: delete related", globalplatform.Delete{AID: aid("A00100015141434C"), Related: true}, "80E400800A4F08A00100015141434C00"},
		{"gpshell: status", globalplatform.StatusRequest{Scope: globalplatform.ScopeLoadFilesAndModules}, "80F21002024F0000"},
		// osmocom/pysim, tests/unittests/test_globalplatform.py: case 3 with Le.
		{"status with a tag list", globalplatform.StatusRequest{Scope: globalplatform.ScopeLoadFiles, Tags: []iso7816.Tag{0x4F, 0x9F70, 0xC5}},
			"80F22002 08 4F00 5C04 4F9F70C5 00"},

		{"status, next, by AID", globalplatform.StatusRequest{Scope: globalplatform.ScopeApplications, AID: aid("F001020304"), Next: true},
			"80F24003 07 4F05F001020304 00"},
		{"install for load with all", globalplatform.InstallForLoad{LoadFile: aid("F001020304"), SecurityDomain: aid("F005060708"), Hash: []byte{1, 2},
			Parameters: globalplatform.LoadParameters{VolatileMemory: 0x10, DataMemory: 0x8000,
				TokenReference: globalplatform.TokenReference{Identification: []byte{0x11}, Image: []byte{0x22}, Provider: []byte{0x33}, Number: []byte{0x44}}},
			Token: []byte{9, 9, 9}},
			"80E60200 2F 05F001020304 05F005060708 020102 1B EF0A C7020010 C80400008000 B60D 420111 450122 5F200133 930144 03090909 00"},
		{"install only", globalplatform.InstallForInstall{LoadFile: aid("F001020304"), Module: aid("F00102030401"), Instance: aid("F00102030402"),
			Privileges: globalplatform.CardReset,
			Parameters: globalplatform.InstallParameters{VolatileQuota: 1, NonVolatileQuota: 2, GlobalService: []byte{0xA0, 0},
				VolatileReserved: 3, NonVolatileReserved: 4, ImplicitSelection: []byte{0x80, 0x41}, UICC: []byte{0x80, 0}}},
			"80E60400 3A 05F001020304 06F00102030401 06F00102030402 0104 22 C900 EF1A C7020001 C8020002 CB02A000 D7020003 D8020004 CF0180 CF0141 EA028000 00 00"},
		{"install a Security Domain", globalplatform.InstallForInstall{LoadFile: aid("F001020304"), Module: aid("F00102030401"), Instance: aid("F00102030402"),
			Privileges: globalplatform.SecurityDomain | globalplatform.DelegatedManagement | globalplatform.TrustedPath, MakeSelectable: true},
			"80E60C00 1C 05F001020304 06F00102030401 06F00102030402 03A08000 02C900 00 00"},
		{"make selectable", globalplatform.InstallForMakeSelectable{Instance: aid("F00102030402"), ImplicitSelection: []byte{0x80}},
			"80E60800 12 00 00 06F00102030402 0100 05EF03CF0180 00 00"},
		{"extradition", globalplatform.InstallForExtradition{SecurityDomain: aid("F005060708"), AID: aid("F001020304")},
			"80E61000 10 05F005060708 00 05F001020304 00 00 00 00"},
		{"personalisation", globalplatform.InstallForPersonalization{Instance: aid("F001020304")}, "80E62000 0B 00 00 05F001020304 00 00 00 00"},
		{"load", globalplatform.LoadBlock{Number: 3, Data: []byte{1, 2}}, "80E80003 02 0102 00"},
		{"load, last", globalplatform.LoadBlock{Number: 255, Last: true, Data: []byte{1, 2}}, "80E880FF 02 0102 00"},
		{"store data", globalplatform.StoreData{Number: 1, Format: globalplatform.FormatDGI, Encryption: globalplatform.EncryptionAll, Data: []byte{1}}, "80E26801 01 01"},
		{"store data, last, case 4", globalplatform.StoreData{Number: 2, Last: true, Format: globalplatform.FormatDGI, Answer: true, Data: []byte{1}}, "80E28902 01 01 00"},
		{"store data, BER-TLV", globalplatform.StoreData{Last: true, Format: globalplatform.FormatBERTLV, Encryption: globalplatform.EncryptionApplication, Data: []byte{1}}, "80E2B000 01 01"},
		{"lock", globalplatform.Lock(aid("F001020304")), "80F04080 05 F001020304"},
		{"unlock", globalplatform.Unlock(aid("F001020304")), "80F04000 05 F001020304"},
		{"card secured", globalplatform.SetStatus{Type: globalplatform.StatusCard, State: globalplatform.CardSecured}, "80F0800F"},
		{"delete with a token", globalplatform.Delete{AID: aid("F001020304"), TokenReference: globalplatform.TokenReference{Number: []byte{7}}, Token: []byte{1, 2}},
			"80E40000 10 4F05F001020304 B603930107 9E020102 00"},
		{"get data", globalplatform.GetDataRequest{Tag: globalplatform.TagExtendedCardResources}, "80CAFF2100"},
		{"get data, short tag", globalplatform.GetDataRequest{Tag: globalplatform.TagCIN}, "80CA004500"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, err := x.command.Command()
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if want := unhex(t, x.want); !bytes.Equal(got, want) {
				t.Errorf("is\n%X, want\n%X", got, want)
			}
		})
	}
}

// A length of more than 127 bytes takes two bytes, of more than 255 three
// (11.1.5): a neighbour writes them as one.
func TestLongLengths(t *testing.T) {
	aid := iso7816.MustAID("F001020304")
	for _, n := range []int{125, 126, 127, 128, 150, 200} {
		i := globalplatform.InstallForInstall{LoadFile: aid, Module: aid, Instance: aid,
			Parameters: globalplatform.InstallParameters{Specific: bytes.Repeat([]byte{7}, n)}}
		c, err := i.Command()
		if err != nil {
			t.Fatal(err)
		}
		tail := c.Data[3*6+2:]
		length, field := int(tail[0]), tail[1:]
		if length == 0x81 {
			length, field = int(tail[1]), tail[2:]
		} else if length >= 0x80 {
			t.Fatalf("%d bytes: length byte %02X", n, length)
		}
		if length < 0x80 && tail[0] == 0x81 {
			t.Errorf("%d bytes: length not minimal", n)
		}
		if len(field) != length+1 || field[length] != 0 {
			t.Fatalf("%d bytes: length says %d, %d follow", n, length, len(field))
		}
		c9, err := iso7816.ParseSingleTLV(field[:length], 0xC9)
		if err != nil || len(c9.Value) != n {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	token := globalplatform.InstallForLoad{LoadFile: aid, Hash: make([]byte, 32), Token: make([]byte, 128)}
	c, err := token.Command()
	if err != nil {
		t.Fatal(err)
	}
	if at := len(c.Data) - 130; c.Data[at] != 0x81 || c.Data[at+1] != 0x80 {
		t.Errorf("token's length is %X", c.Data[at:at+2])
	}
}

func TestCommandsThatHaveNoEncoding(t *testing.T) {
	aid := iso7816.MustAID("F001020304")
	for name, c := range map[string]globalplatform.Commander{
		"load without load file":      globalplatform.InstallForLoad{},
		"hash of 128 bytes":           globalplatform.InstallForLoad{LoadFile: aid, Hash: make([]byte, 128)},
		"token that does not fit":     globalplatform.InstallForLoad{LoadFile: aid, Token: make([]byte, 4096)},
		"install without instance":    globalplatform.InstallForInstall{LoadFile: aid},
		"parameters that do not fit":  globalplatform.InstallForInstall{Instance: aid, Parameters: globalplatform.InstallParameters{Specific: make([]byte, 4090)}},
		"extradition of nothing":      globalplatform.InstallForExtradition{SecurityDomain: aid},
		"extradition to nobody":       globalplatform.InstallForExtradition{AID: aid},
		"make nothing selectable":     globalplatform.InstallForMakeSelectable{},
		"personalise nothing":         globalplatform.InstallForPersonalization{},
		"delete nothing":              globalplatform.Delete{},
		"lock nothing":                globalplatform.SetStatus{Type: globalplatform.StatusApplication},
		"a block of 256 bytes":        globalplatform.LoadBlock{Data: make([]byte, 256)},
		"a store block of 256 bytes":  globalplatform.StoreData{Data: make([]byte, 256)},
		"get data of a 3-byte tag":    globalplatform.GetDataRequest{Tag: 0xDF8101},
		"get data of no tag":          globalplatform.GetDataRequest{},
		"delete token of 64 KiB":      globalplatform.Delete{AID: aid, Token: make([]byte, 65536)},
		"install token of 64 KiB":     globalplatform.InstallForInstall{Instance: aid, Token: make([]byte, 65536)},
		"make selectable of too much": globalplatform.InstallForMakeSelectable{Instance: aid, Token: make([]byte, 4096)},
	} {
		if _, err := c.Command(); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// From kaoh/globalplatform, globalplatform/src/installDataTest.c.
func TestTokenInput(t *testing.T) {
	got, err := globalplatform.InstallForExtradition{
		SecurityDomain: iso7816.MustAID("D4D4D4D4D4010101"), AID: iso7816.MustAID("D0D1D2D3D4D50101"), Token: []byte("not signed"),
	}.SignedData()
	if want := unhex(t, "10001508D4D4D4D4D40101010008D0D1D2D3D4D501010000"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%X, %v", got, err)
	}
	// The source deletes two objects at once; ours is the first of them alone.
	got, err = globalplatform.Delete{AID: iso7816.MustAID("D0D1D2D3D4D501"), Related: true, Token: []byte("not signed")}.SignedData()
	if want := unhex(t, "0080094F07D0D1D2D3D4D501"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%X, %v", got, err)
	}
	// Without its token and the token's length, a command is what is signed.
	load := globalplatform.InstallForLoad{LoadFile: iso7816.MustAID("F001020304"), Hash: []byte{1}}
	install := globalplatform.InstallForInstall{LoadFile: load.LoadFile, Module: load.LoadFile, Instance: load.LoadFile, MakeSelectable: true}
	selectable := globalplatform.InstallForMakeSelectable{Instance: load.LoadFile}
	for _, x := range []interface {
		globalplatform.Commander
		SignedData() ([]byte, error)
	}{load, install, selectable} {
		c, err := x.Command()
		if err != nil {
			t.Fatal(err)
		}
		n := len(c.Data) - 1
		want := append([]byte{c.P1, c.P2, byte(n)}, c.Data[:n]...)
		if got, err := x.SignedData(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%T: %X, %v, want %X", x, got, err, want)
		}
	}
}

func TestPrivileges(t *testing.T) {
	for coded, want := range map[string]globalplatform.Privileges{
		// martinpaljak/GlobalPlatformPro, TestParseTags.java: testPrivileges.
		"80C000": globalplatform.SecurityDomain | globalplatform.TrustedPath | globalplatform.AuthorizedManagement,
		// kaoh/globalplatform, scp03Test.c: get_status_enc_mac, Issuer Security Domain.
		"82FC80": globalplatform.SecurityDomain | globalplatform.CVMManagement | globalplatform.TrustedPath | globalplatform.AuthorizedManagement |
			globalplatform.TokenManagement | globalplatform.GlobalDelete | globalplatform.GlobalLock | globalplatform.GlobalRegistry | globalplatform.ReceiptGeneration,
		"C10000": globalplatform.SecurityDomain | globalplatform.MandatedDAPVerification,
		"04":     globalplatform.CardReset,
		"00":     0,
	} {
		got, err := globalplatform.ParsePrivileges(unhex(t, coded))
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", coded, got, err)
		}
		if len(coded) == 6 && !bytes.Equal(got.Bytes(), unhex(t, coded)) {
			t.Errorf("%s: coded as %X", coded, got.Bytes())
		}
	}
	for _, n := range []int{0, 2, 4} {
		if _, err := globalplatform.ParsePrivileges(make([]byte, n)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if got := (globalplatform.SecurityDomain | globalplatform.TrustedPath).String(); got != "Security Domain, Trusted Path" {
		t.Errorf("in words: %q", got)
	}
}

func TestDGIs(t *testing.T) {
	list := []globalplatform.DGI{{ID: 0x0070, Value: []byte{1}}, {ID: 0x8113, Value: make([]byte, 254)}, {ID: 0xDF00, Value: make([]byte, 255)}, {ID: 1, Value: []byte{}}}
	var b []byte
	for _, d := range list {
		b = globalplatform.AppendDGI(b, d)
	}
	if !bytes.HasPrefix(b, unhex(t, "00700101 8113FE")) || !bytes.Contains(b, unhex(t, "DF00FF00FF")) {
		t.Errorf("coded as %X", b)
	}
	got, err := globalplatform.ParseDGIs(b)
	if err != nil || len(got) != len(list) {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range list {
		if got[i].ID != list[i].ID || !bytes.Equal(got[i].Value, list[i].Value) {
			t.Errorf("%d: %v", i, got[i])
		}
	}
	for _, bad := range []string{"00", "0070", "007002 01", "0070FF", "0070FF00", "0070FF000101", "0070FF00FF01"} {
		if _, err := globalplatform.ParseDGIs(unhex(t, bad)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCardProfiles(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range globalplatform.CardProfiles() {
		if seen[p.Name] || p.Name == "" || p.Description == "" || !p.Level.Valid() || !p.Level.HasCDecryption() || p.SecurityDomain.IsZero() {
			t.Errorf("%+v", p)
		}
		seen[p.Name] = true
		got, err := globalplatform.LookupCardProfile(p.Name)
		if err != nil || got.Name != p.Name {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	if !seen["generic"] || !seen["emulated"] {
		t.Errorf("profiles %v", seen)
	}
	_, err := globalplatform.LookupCardProfile("jcop")
	if !errors.Is(err, globalplatform.ErrUnknownCardProfile) || !strings.Contains(err.Error(), "generic") {
		t.Errorf("unknown name: %v", err)
	}
}
