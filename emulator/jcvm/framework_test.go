package jcvm_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
)

// script is commands and the responses that they must get.
type script []struct{ command, want string }

func (s script) run(t *testing.T, card iso7816.Card) {
	t.Helper()
	for _, x := range s {
		if got := exchange(t, card, x.command); got != strings.ReplaceAll(x.want, " ", "") {
			t.Errorf("%s: %s, want %s", x.command, got, x.want)
		}
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "api")
	script{
		{"80FF0000", "6D00"},
		{"8021 6A82", "6A82"},
		{"8022 0000", "6F00"},
		// 256 bytes are there, since no Le was given.
		{"80010000 03 010203", "9000"},
		{"80020004", "01020300 9000"},
		{"801D0005", "0001 9000"}, // fill, equal, and behind the end of the filled part
		{"800F0000", "F000000001 1501 9000"},
		{"801E0000 02 AABB", "0002 02 01 01 9000"},
		{"801F0000 00", "0100 9000"},
		{"801F0000 10", "0010 9000"},
		{"801F0000", "0100 9000"},
		{"801A0000", "6F00"}, // 300 bytes don't fit a short response
		{"801C0017", "17 9000"},
		{"801C0003", "17 9000"}, // cannot be set
		{"80200000", "9000"},    // 40000 bytes, and then no more
		{"80200000", "6F00"},
	}.run(t, card)
	if got := exchange(t, card, "801B0000"); len(got) != 2*202 {
		t.Errorf("a response in two parts has %d digits: %s", len(got), got)
	}
	for n, want := range []string{"0102", "0101", "0103", "0200", "034D", "0401", "0503", "0502", "0602", "0601"} {
		if got := exchange(t, card, fmt.Sprintf("800A%04X", n)); got != want+"9000" {
			t.Errorf("exception %d: %s, want %s", n, got, want)
		}
	}
}

// TestPIN counts tries: also those whose command lost power or whose
// transaction was taken back.
func TestPIN(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "api")
	script{
		{"80060000", "0003 9000"},
		{"80050000 04 01020304", "0103 9000"},
		{"80060000", "0103 9000"},
		{"80050000 04 01020305", "0002 9000"},
		{"80060000", "0002 9000"},
		{"80050000 03 010203", "0001 9000"},
		{"80050000 04 01020305", "0000 9000"},
		{"80050000 04 01020304", "0000 9000"},
		{"80070000", "9000"},
		{"80050000 04 01020304", "0103 9000"},
	}.run(t, card)
	if err := card.Reset(context.Background()); err != nil {
		t.Fatal(err)
	}
	selectApplet(t, card, iso7816.MustAID("F0000000011501"))
	script{{"80060000", "0003 9000"}}.run(t, card)
	// Power lost before the second write of a successful check: the try is
	// gone.
	card.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: 2})
	if _, err := card.Transmit(context.Background(), []byte{0x80, 5, 0, 0, 4, 1, 2, 3, 4}); !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Fatalf("cut: %v", err)
	}
	card.PowerOn()
	selectApplet(t, card, iso7816.MustAID("F0000000011501"))
	script{
		{"80060000", "0002 9000"},
		{"80230000 04 01020305", "0100 9000"}, // the rest of its transaction was taken back
		{"80060000", "0001 9000"},
	}.run(t, card)
}

func TestTransientMemory(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "api")
	full, zero := strings.Repeat("AA", 16), strings.Repeat("00", 16)
	script{
		{"800E0000", "07E803F0 9000"}, // 2048 - 16 - 8 for four references, and 1024 - 16
		{"80030000 10" + full, "9000"},
		{"80040000", full + full + "9000"},
		{"00A4040007 F0000000011501", "6F00 9000"}, // selected again
		{"80040000", full + zero + "9000"},
	}.run(t, card)
	if err := card.Reset(context.Background()); err != nil {
		t.Fatal(err)
	}
	selectApplet(t, card, iso7816.MustAID("F0000000011501"))
	script{{"80040000", zero + zero + "9000"}}.run(t, card)
	if m := card.Memory(); m.TransientResetUsed != 24 || m.TransientDeselectUsed != 16 {
		t.Errorf("memory in use: %+v", m)
	}
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "api")
	state := "80090000" // a, b, head, first byte, object
	script{
		{"80080001", "01 01 01 9000"}, // aborted: new objects are gone from the stack and from memory
		{state, "0001 0000 00 00 00 9000"},
		{"80080003", "9000"}, // left open
		{state, "0001 0000 00 00 00 9000"},
		{"80080002", "6A80"}, // left with an exception
		{state, "0001 0000 00 00 00 9000"},
		{"80080000", "9000"},
		{state, "0002 0002 01 00 01 9000"},
	}.run(t, card)
	// Every cut leaves all of it or nothing.
	outcomes := map[string]int{}
	for write := 1; ; write++ {
		card := withApplet(t, "api")
		card.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: write})
		_, err := card.Transmit(context.Background(), []byte{0x80, 8, 0, 0})
		if err == nil {
			break
		}
		card.PowerOn()
		selectApplet(t, card, iso7816.MustAID("F0000000011501"))
		got := exchange(t, card, state)
		outcomes[got]++
		if got != "0000000000"+"0000"+"9000" && got != "0001000000"+"0000"+"9000" && got != "0002000201"+"0001"+"9000" {
			t.Errorf("cut before write %d: %s", write, got)
		}
		script{{"800B0005", "9000"}, {"800C0000", "000A 9000"}, {"80080000", "9000"}, {state, "00020002 01 00 01 9000"}}.run(t, card)
	}
	if len(outcomes) < 2 {
		t.Errorf("outcomes of the cuts: %v", outcomes)
	}
}

func TestObjectDeletion(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "api")
	script{{"800D0000", "9000"}}.run(t, card) // what install left
	before := card.Memory().PersistentUsed
	script{{"800B0064", "9000"}, {"800C0000", "1356 9000"}}.run(t, card)
	if got := card.Memory().PersistentUsed - before; got != 100*(8+4) {
		t.Errorf("100 objects of two fields take %d bytes", got)
	}
	script{{"800D0000", "9000"}}.run(t, card)
	if got := card.Memory().PersistentUsed; got != before {
		t.Errorf("%d bytes in use after deletion, %d before", got, before)
	}
}

func TestSymmetricCryptography(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "api")
	key := "000102030405060708090A0B0C0D0E0F"
	// FIPS 197, C.1.
	script{
		{"80110001 10 00112233445566778899AABBCCDDEEFF", "6F00"}, // no key yet
		{"80100000 10" + key, "9000"},
		{"80110001 10 00112233445566778899AABBCCDDEEFF", "69C4E0D86A7B0430D8CDB78070B4C55A 9000"},
		{"80110000 10 69C4E0D86A7B0430D8CDB78070B4C55A", "00112233445566778899AABBCCDDEEFF 9000"},
		{"80110001 0F 00112233445566778899AABBCCDDEE", "6F00"},
	}.run(t, card)
	k, _ := hex.DecodeString(key)
	block, err := aes.NewCipher(k)
	if err != nil {
		t.Fatal(err)
	}
	iv, text := []byte("0123456789abcdef"), []byte("sixteen bytes ofand sixteen moreand sixteen more")
	want := make([]byte, len(text))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, text)
	script{
		{fmt.Sprintf("80120001 40 %X%X", iv, text), fmt.Sprintf("%X9000", want)},
		{fmt.Sprintf("80120000 40 %X%X", iv, want), fmt.Sprintf("%X9000", text)},
	}.run(t, card)
	mac := make([]byte, len(text))
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(mac, text)
	script{{fmt.Sprintf("80160000 30 %X", text), fmt.Sprintf("%X9000", mac[32:])}}.run(t, card)
	// FIPS 180-4, "abc".
	one, two := sha1.Sum([]byte("abc")), sha256.Sum256([]byte("abc"))
	script{
		{"80170000 03 616263", fmt.Sprintf("%X9000", one)},
		{"80180000 03 616263", fmt.Sprintf("%X9000", two)},
		// The example of ICAO 9303 part 11, D.4: key, padded data and MAC of
		// EXTERNAL AUTHENTICATE.
		{"80130000 10 7962D9ECE03D1ACD4C76089DCE131543", "9000"},
		{"80150000 20 72C29C2371CC9BDB65B779B8E8D37B29ECC154AA56A8799FAE2F498F76ED92F2", "5F1448EEA8AD90A7 9000"},
	}.run(t, card)
	k, _ = hex.DecodeString("7962D9ECE03D1ACD4C76089DCE1315437962D9ECE03D1ACD")
	if block, err = des.NewTripleDESCipher(k); err != nil {
		t.Fatal(err)
	}
	padded := []byte{1, 2, 3, 4, 5, 0x80, 0, 0}
	cipher.NewCBCEncrypter(block, make([]byte, 8)).CryptBlocks(padded, padded)
	script{
		{"80140001 05 0102030405", fmt.Sprintf("%X9000", padded)},
		{fmt.Sprintf("80140000 08 %X", padded), "0102030405 9000"},
	}.run(t, card)
	a, b := exchange(t, card, "80190020"), exchange(t, card, "80190020")
	if a == b || len(a) != 68 {
		t.Errorf("random data: %s and %s", a, b)
	}
}

// firewallCard has the library, a server and a client.
func firewallCard(t testing.TB) *emulator.Card {
	t.Helper()
	card := newCard(t)
	load(t, card, "lib")
	server, client := load(t, card, "server"), load(t, card, "client")
	installAs(t, card, server, server.Applets[0], iso7816.MustAID("F00000000177"), nil)
	installAs(t, card, client, client.Applets[0], iso7816.MustAID("F00000000188"), []byte{0xF0, 0, 0, 0, 1, 0x77})
	selectApplet(t, card, iso7816.MustAID("F00000000188"))
	return card
}

func TestFirewall(t *testing.T) {
	t.Parallel()
	card := firewallCard(t)
	name := func(s string) string { return s + strings.Repeat("00", 16-len(s)/2) }
	script{
		{"80010005", "0005 9000"},
		{"80010006", "000B 9000"},
		{"80020001", "6985"},      // the server refuses
		{"80030000", "6F53"},      // an array of another context
		{"80040000", "007B 9000"}, // the global one
		{"80050000", "6F53"},
		{"80060000", "0002 9000"},
		{"80070000", "6F53"},
		{"80080000", "6F53"},
		{"80090000", "6F53"},
		{"800A0000", "0006 F00000000188 9000"},
		{"800B0000", "0606" + name("F00000000188") + name("F00000000177") + "9000"},
		{"800C6A88", "6A88"}, // an exception from the other context
		{"800C0000", "6F53"}, // memory that is cleared on deselection, of an applet that isn't selected
		{"800D0003", "0016 9000"},
		{"800E0000", "001B 9000"},
		{"800F0007", "0008 9000"},
		{"80100005", "0008 9000"},
		{"80110000", "6F53"},
		{"80120000", "0005 9000"},
		{"80130000", "6F53"},
		{"80140000", "6F53"},
		{"80010001", "03E8 9000"}, // the failed calls wrote, as nothing took them back
		{"80160000", "6989 F00000000188 9000"},
		{"80170000", "0006 9000"}, // one try used of three
		{"80170001", "6F53"},
		{"80150064", "0000 9000"},
		{"80010001", "03E9 9000"}, // the server's write was part of the client's transaction
	}.run(t, card)
	selectApplet(t, card, iso7816.MustAID("F00000000177"))
	script{{"80000000", "03E9 9000"}}.run(t, card)
}

// TestDeletion looks at what is in whose way.
func TestDeletion(t *testing.T) {
	t.Parallel()
	card := firewallCard(t)
	ctx := context.Background()
	remove := func(aid string, related bool) error {
		s := manage(t, card)
		cmd, err := globalplatform.Delete{AID: iso7816.MustAID(aid), Related: related}.Command()
		if err != nil {
			t.Fatal(err)
		}
		_, err = iso7816.Do(ctx, s, cmd)
		return err
	}
	if err := remove("F00000000112", false); !errors.Is(err, iso7816.ErrConditions) {
		t.Errorf("deletion of a library that others need: %v", err)
	}
	if err := remove("F00000000113", true); err != nil {
		t.Errorf("deletion of the server with its package: %v", err)
	}
	selectApplet(t, card, iso7816.MustAID("F00000000188"))
	script{{"80010001", "6A82"}, {"800D0003", "0016 9000"}}.run(t, card)
	if err := remove("F00000000188", false); err != nil {
		t.Errorf("deletion of the client: %v", err)
	}
	if err := remove("F00000000114", false); err != nil {
		t.Errorf("deletion of its package: %v", err)
	}
	if err := remove("F00000000112", false); err != nil {
		t.Errorf("deletion of the library: %v", err)
	}
	if m := card.Memory(); m.PersistentUsed != 0 || m.TransientDeselectUsed != 0 {
		t.Errorf("memory in use at the end: %+v", m)
	}
	load(t, card, "lib")
}

// TestImage opens a card again from its file.
func TestImage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "card.img")
	card, err := emulator.Create(path, config(t))
	if err != nil {
		t.Fatal(err)
	}
	load(t, card, "lib")
	server, client := load(t, card, "server"), load(t, card, "client")
	installAs(t, card, server, server.Applets[0], iso7816.MustAID("F00000000177"), nil)
	installAs(t, card, client, client.Applets[0], iso7816.MustAID("F00000000188"), []byte{0xF0, 0, 0, 0, 1, 0x77})
	for n := range 5 {
		selectApplet(t, card, iso7816.MustAID("F00000000188"))
		script{{"80010005", fmt.Sprintf("%04X9000", 5*(n+1))}, {"800F0003", fmt.Sprintf("%04X9000", 3*(n+1))}}.run(t, card)
		if err := card.Close(); err != nil {
			t.Fatal(err)
		}
		if card, err = emulator.Open(path, jcvm.Linker{}); err != nil {
			t.Fatal(err)
		}
	}
	card.Close()
}

// TestPersonalization gives STORE DATA to an applet through the Security
// Domain.
func TestPersonalization(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "api")
	ctx := context.Background()
	s := manage(t, card)
	cmd, err := globalplatform.InstallForPersonalization{Instance: iso7816.MustAID("F0000000011501")}.Command()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := iso7816.Do(ctx, s, cmd); err != nil {
		t.Fatal(err)
	}
	secret := []byte("sixteen bytes of")
	sealed, err := s.EncryptSensitive(secret)
	if err != nil {
		t.Fatal(err)
	}
	store := func(p1, p2 byte, data []byte) error {
		_, err := iso7816.Do(ctx, s, iso7816.Command{CLA: 0x80, INS: 0xE2, P1: p1, P2: p2, Data: data})
		return err
	}
	if err := store(0, 0, []byte{0x7F}); !errors.Is(err, iso7816.ErrUnknown) {
		t.Errorf("memory that is cleared on deselection, while the Security Domain is selected: %v", err)
	}
	if err := store(0x60, 0, sealed); err != nil {
		t.Error(err)
	}
	selectApplet(t, card, iso7816.MustAID("F0000000011501"))
	script{
		{"80020010", fmt.Sprintf("%X9000", secret)},
		{"80090000", "FF81 0000 00 73 00 9000"}, // AUTHENTICATED and C-MAC
	}.run(t, card)
}

// TestRestOfAPI takes what must come out from the API's documentation, and of
// the cryptography from Go's own.
func TestRestOfAPI(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "more")
	script{
		{"80010000", "00 01 01 00 01 01 00 02 02 01 0203 0000 9000"},
		// 10 bytes in a transaction take 14 of its capacity.
		{"80020000", "00 01 02 00 01 000E 00 00 01 0300 80 01 01 8090 9000"},
		{"80030000", "00 01 18 0E 18 00 08 01 05 0D 10 9000"},
		{"80050000", "00 03 06 01 07 01 1F 00 17 01 0F 00 00 00 00 6D00 9000"},
		{"80080000", "00 00 00 00 01 00 01 FE FE 9000"},
		{"10080000", "00 01 01 00 01 00 01 FE FE 9000"},
		{"0C080000", "00 00 01 01 01 00 01 FE FE 9000"},
		{"80090000", "02 00 00 0000 9000"},
		{"00A4040007 F0000000011601", "9000"},
		{"80090000", "02 00 00 0001 9000"},
	}.run(t, card)
	for n := range 27 {
		want := n
		switch n {
		case 0:
			want = 0x100
		case 1, 5:
			want = 0x101
		case 2, 3, 6, 7:
			want = 0x102
		case 4:
			want = 0x103
		case 21:
			want = 0
		}
		if got := exchange(t, card, fmt.Sprintf("8006%04X", n)); got != fmt.Sprintf("%04X9000", want) {
			t.Errorf("exception %d: %s, want %04X", n, got, want)
		}
	}
	message, _ := hex.DecodeString("2B7E151628AED2A6ABF7158809CF4F3C")
	mac := hmac.New(sha256.New, message[:4])
	mac.Write(message[4:])
	want := append(mac.Sum(nil), 1, 0, 25, 32)
	c, err := sp800.Sum(message, message)
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, c[:]...)
	block, _ := aes.NewCipher(message)
	padded := append(append([]byte{}, message[:5]...), bytes.Repeat([]byte{11}, 11)...)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(padded, padded)
	want = append(append(want, padded...), 24, 1, 6)
	want = append(binary.BigEndian.AppendUint32(want, crc32.ChecksumIEEE(message)), 2)
	digest := sha512.Sum512(message)
	want = append(append(want, digest[:]...), 6, 64)
	script{{fmt.Sprintf("80040000 10 %X 00", message), fmt.Sprintf("%X9000", want)}}.run(t, card)
}

func TestExtendedLength(t *testing.T) {
	t.Parallel()
	card := withApplet(t, "more")
	data := make([]byte, 500)
	for i := range data {
		data[i] = byte(i)
	}
	script{
		{fmt.Sprintf("80070000 0001F4 %X 0000", data), fmt.Sprintf("04%X9000", data)},
		{fmt.Sprintf("80070000 FF %X", data[:255]), fmt.Sprintf("04%X9000", data[:255])},
	}.run(t, card)
	// An applet that doesn't say that it knows them gets none.
	script{{"80010000 000003 010203", "6700"}}.run(t, withApplet(t, "api"))
}

// TestSharedReferences deletes an instance whose array a static field refers
// to.
func TestSharedReferences(t *testing.T) {
	t.Parallel()
	card := newCard(t)
	load(t, card, "lib")
	server := load(t, card, "server")
	for _, aid := range []string{"F00000000177", "F00000000178"} {
		installAs(t, card, server, server.Applets[0], iso7816.MustAID(aid), nil)
	}
	// The second's array is in a static field: its package keeps it.
	cmd, err := globalplatform.Delete{AID: iso7816.MustAID("F00000000178")}.Command()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := iso7816.Do(context.Background(), manage(t, card), cmd); err != nil {
		t.Fatal(err)
	}
	selectApplet(t, card, iso7816.MustAID("F00000000177"))
	script{{"80000000", "0000 9000"}}.run(t, card)
	installAs(t, card, server, server.Applets[0], iso7816.MustAID("F00000000178"), nil)
}
