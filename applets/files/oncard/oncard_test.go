package oncard_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/applets/files/oncard"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var instance = iso7816.MustAID("F0465245454152454302")

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// card is an emulated card with an instance of the file application.
type card struct {
	*emulator.Card
	t    testing.TB
	keys keys.Set
}

func newCard(t testing.TB, parameters []byte) *card {
	t.Helper()
	profile, err := emulator.LookupProfile("contactless")
	check(t, err)
	profile.CommitCapacity = 64 // all that a flip may take
	key := func(first byte) keys.Key {
		k, err := keys.NewKey(bytes.Repeat([]byte{first}, 16))
		check(t, err)
		return k
	}
	set := keys.Set{Version: 1, ENC: key(1), MAC: key(2), DEK: key(3)}
	c, err := emulator.New(emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: set, Linker: oncard.Linker{}})
	check(t, err)
	t.Cleanup(func() { c.Close() })
	x := &card{c, t, set}
	f, err := capfile.Parse(files.LoadFile())
	check(t, err)
	sd := x.domain(scp.CMAC)
	_, err = globalplatform.Load(context.Background(), sd, f, globalplatform.LoadOptions{}, nil)
	check(t, err)
	check(t, x.install(instance, parameters))
	return x
}

func (c *card) install(aid iso7816.AID, parameters []byte) error {
	_, err := globalplatform.Execute(context.Background(), c.domain(scp.CMAC), globalplatform.InstallForInstall{
		LoadFile: files.Package, Module: files.Module, Instance: aid, MakeSelectable: true,
		Parameters: globalplatform.InstallParameters{Specific: parameters},
	})
	return err
}

func (c *card) domain(level scp.Level) *scp.Session {
	c.t.Helper()
	plain := iso7816.Plain(c)
	_, err := iso7816.Do(context.Background(), plain, iso7816.Select(emulator.IssuerSecurityDomain))
	check(c.t, err)
	s, err := scp.Open(context.Background(), plain, c.keys, scp.HostOptions{Level: level})
	check(c.t, err)
	return s
}

// store personalises with blocks.
func (c *card) store(format globalplatform.Format, blocks ...[]byte) error {
	ctx, sd := context.Background(), c.domain(scp.CDecryption)
	if _, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: instance}); err != nil {
		return err
	}
	_, err := globalplatform.Store(ctx, sd, blocks, globalplatform.StoreOptions{Format: format}, nil)
	return err
}

func (c *card) selectIt() {
	c.t.Helper()
	_, err := iso7816.Do(context.Background(), iso7816.Plain(c), iso7816.Select(instance))
	check(c.t, err)
}

// say sends a command APDU and compares the answer, both in hexadecimal.
func (c *card) say(command, want string) {
	c.t.Helper()
	got, err := c.Transmit(context.Background(), unhex(c.t, command))
	check(c.t, err)
	if !bytes.Equal(got, unhex(c.t, want)) {
		c.t.Errorf("%s\nis answered by %X\nwant           %s", command, got, want)
	}
}

// sealPIN encrypts a reference block under the Security Domain's DEK.
func (c *card) sealPIN(digits string) string {
	block := append([]byte(digits), bytes.Repeat([]byte{0xFF}, files.PINBlock-len(digits))...)
	sealed, err := c.domain(scp.CDecryption).EncryptSensitive(append(block, files.PINPadding...))
	check(c.t, err)
	return hex.EncodeToString(sealed)
}

const (
	begin = "DF21 01 00"
	pin0  = "DF24 15 0006 06 0A 00"    // then the sealed PIN
	set   = "DF22 05 001A 1A 01 00"    // free
	data  = "DF22 05 001B 1B 01 06"    // behind the PIN with SFI 6
	list  = "DF22 05 0010 10 02 00"    // records
	never = "DF22 05 0011 11 01 FF"    // nobody reads
	tag   = "DF22 05 DF10 00 04 00"    // data object DF10
	no    = "DF23 03 C10101"           // content
	value = "DF23 07 E1 05 C203414243" // content
)

func (c *card) personalize() {
	c.t.Helper()
	check(c.t, c.store(globalplatform.FormatDGI, unhex(c.t, begin+pin0+c.sealPIN("1234")+set+no+data+value+
		list+"DF23 02 AABB"+"DF23 01 CC"+never+no+tag+"DF23 04 01020304")))
}

func TestCommands(t *testing.T) {
	c := newCard(t, files.InstallParameters(200, 1))
	c.selectIt()
	c.say("00B09A0000", "6985") // holds nothing yet
	c.personalize()
	c.say("00A404000AF046524545415245430200", "6F11840AF0465245454152454302A503800101 9000")
	for _, x := range [][2]string{
		// READ BINARY
		{"00B0000000", "6986"}, // no current file
		{"00B09A0000", "C10101 9000"},
		{"00B0000100", "0101 9000"},
		{"00B09A0302", "9000"},
		{"00B09A0400", "6B00"},
		{"00B09A0002", "C101 9000"},
		{"00B09A00", "6700"},
		{"00B09B0000", "6982"}, // behind the PIN
		{"00B0910000", "6982"}, // nobody
		{"00B0850000", "6A82"},
		{"00B0BA0000", "6A86"},
		{"00B0860000", "6981"}, // a PIN is no transparent file
		{"00B0900000", "6981"}, // nor are records
		// SELECT
		{"00A4020C02001A", "9000"},
		{"00B0000000", "C10101 9000"},
		{"00A4020402001B00", "620E 80020007 820101 8302001B 8801D8 9000"},
		{"00A4000402000600", "620E 80020000 820108 83020006 880130 9000"},
		{"00A4020C020099", "6A82"},
		{"00A4020C02DF10", "6A82"}, // a data object is no file
		{"00A4010C02001A", "6A86"},
		{"00A4020C01001A", "6700"},
		{"00A4040006F0111213141500", "6A82"},
		// READ RECORD
		{"00B2018400", "AABB 9000"},
		{"00B2020400", "CC 9000"}, // the current file
		{"00B2030400", "6A83"},
		{"00B2018401", "6700"},
		{"00B2008400", "6A86"},
		{"00B2018500", "6A86"},
		{"00B201D400", "6981"},
		// GET DATA
		{"00CADF1000", "01020304 9000"},
		{"00CADF1100", "6A88"},
		{"00CADF1003", "6700"},
		// others
		{"80B09A0000", "6E00"}, {"01B09A0000", "6881"}, {"04B09A0000", "6882"}, {"0084000008", "6D00"},
	} {
		c.say(x[0], x[1])
	}
}

const (
	right   = "31323334FFFFFFFFFFFFFFFF"
	wrong   = "31323335FFFFFFFFFFFFFFFF"
	another = "3938373635FFFFFFFFFFFFFF"
)

func TestPIN(t *testing.T) {
	c := newCard(t, files.InstallParameters(200, 1))
	c.personalize()
	c.selectIt()
	for _, x := range [][2]string{
		{"00200086", "63CA"}, // asks, spends nothing
		{"002000860C" + wrong, "63C9"},
		{"00B09B0000", "6982"},
		{"002000860C" + right, "9000"},
		{"00200086", "9000"},
		{"00B09B0000", "E105C203414243 9000"},
		{"002000860C" + wrong, "63C9"}, // what was open is closed
		{"00B09B0000", "6982"},
		{"002000860431323334", "6700"},
		{"002000860C3132333FFFFFFFFFFFFFFFFF", "6A80"},
		{"002000050C" + right, "6A88"},
		{"002000850C" + right, "6A88"},
		{"0020009A0C" + right, "6A88"}, // no PIN file
		{"002001860C" + right, "6A86"},
		{"00200086", "63C9"},           // none of these spent a try
		{"002000800C" + right, "6A88"}, // the current file is another one
		{"00A4020C020006", "9000"},
		{"002000800C" + right, "9000"},
		{"0024008018" + right + right, "6A80"},
		{"0024008018" + wrong + another, "63C9"},
		{"0024008018" + right + another, "9000"},
		{"002000860C" + right, "63C9"},
		{"002000860C" + another, "9000"},
	} {
		c.say(x[0], x[1])
	}
	c.selectIt()
	c.say("00B09B0000", "6982") // a new session
	for tries := range 10 {
		c.say("002000860C"+wrong, "63C"+string("9876543210"[tries]))
	}
	c.say("002000860C"+another, "6983")
	c.say("00200086", "6983")

	// The counter's PIN opens nothing but its change.
	check(t, c.store(globalplatform.FormatDGI, unhex(t, begin+"DF24 15 0006 06 03 01"+c.sealPIN("1234")+data+value)))
	c.selectIt()
	c.say("002000860C"+right, "6984")
	c.say("00B09B0000", "6982")
	c.say("0024008618"+right+another, "9000")
	c.say("00B09B0000", "E105C203414243 9000")

	// New content leaves PIN and tries alone.
	c.say("002000860C"+wrong, "63C2")
	check(t, c.store(globalplatform.FormatDGI, unhex(t, begin+data+no)))
	c.selectIt()
	c.say("00200086", "63C2")
	c.say("002000860C"+another, "9000")
	c.say("00B09B0000", "C10101 9000")
}

// A try is spent before the comparison, whatever becomes of the power.
func TestPINPowerCut(t *testing.T) {
	c := newCard(t, files.InstallParameters(200, 1))
	c.personalize()
	c.selectIt()
	c.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: 2})
	if _, err := c.Transmit(context.Background(), unhex(t, "002000860C"+right)); !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Fatalf("cut: %v", err)
	}
	check(t, c.Reset(context.Background()))
	c.selectIt()
	c.say("00200086", "63C9")
}

func TestPersonalizationRefused(t *testing.T) {
	c := newCard(t, files.InstallParameters(60, 1))
	sealed := c.sealPIN("1234")
	file := set + no
	for name, x := range map[string]struct {
		block string
		sw    iso7816.SW
	}{
		"no begin":             {file, iso7816.ErrWrongData},
		"flags":                {"DF21 01 01" + file, iso7816.ErrWrongData},
		"nothing":              {begin, iso7816.ErrConditions},
		"no file":              {begin + no, iso7816.ErrConditions},
		"unknown group":        {begin + file + "DF30 00", iso7816.ErrDataNotFound},
		"cut short":            {begin + file + "DF23 05 00", iso7816.ErrWrongData},
		"long length":          {begin + set + "DF23 FF0003 C10101", iso7816.ErrWrongData},
		"file header":          {begin + "DF22 04 001A1A01", iso7816.ErrWrongData},
		"identifier 0000":      {begin + "DF22 05 00001A0100", iso7816.ErrWrongData},
		"SFI 31":               {begin + "DF22 05 001A1F0100", iso7816.ErrWrongData},
		"kind":                 {begin + "DF22 05 001A1A0300", iso7816.ErrWrongData},
		"SFI of a data object": {begin + "DF22 05 DF10010400", iso7816.ErrWrongData},
		"file twice":           {begin + file + "DF22 05 001A000100", iso7816.ErrWrongData},
		"SFI twice":            {begin + file + "DF22 05 001B1A0100", iso7816.ErrWrongData},
		"no such PIN":          {begin + "DF22 05 001A1A0106", iso7816.ErrConditions},
		"empty record":         {begin + list + "DF23 00", iso7816.ErrWrongData},
		"too large":            {begin + set + "DF23 36" + strings.Repeat("00", 0x36), iso7816.ErrNoMemory},
		"PIN and file":         {begin + pin0 + sealed + "DF22 05 0006000100", iso7816.ErrWrongData},
		"PIN twice":            {begin + pin0 + sealed + pin0 + sealed + file, iso7816.ErrWrongData},
		"two PINs":             {begin + pin0 + sealed + "DF24 15 0007070300" + sealed + file, iso7816.ErrNoMemory},
		"PIN in the clear":     {begin + pin0 + right + "80000000" + file, iso7816.ErrSecurityStatus},
		"PIN limit":            {begin + "DF24 15 0006061000" + sealed, iso7816.ErrWrongData},
		"wipe":                 {"DF2F 04 57495046", iso7816.ErrWrongData},
	} {
		err := c.store(globalplatform.FormatDGI, unhex(t, x.block))
		if !errors.Is(err, x.sw) {
			t.Errorf("%s: %v, want %v", name, err, x.sw)
		}
	}
	if err := c.store(globalplatform.FormatPlain, unhex(t, begin+file)); !errors.Is(err, iso7816.ErrIncorrectP1P2) {
		t.Errorf("no format: %v", err)
	}
	c.selectIt()
	c.say("00B09A0000", "6985")
	check(t, c.store(globalplatform.FormatDGI, unhex(t, begin+set+"DF23 35"+strings.Repeat("00", 0x35)))) // fills it
	for name, parameters := range map[string]string{
		"none": "", "version": "800102810200108201 00", "no room": "800101810200008201 00", "three PINs": "800101810200108201 03",
		"order": "8102001080010182 0100", "too much": "8001018102200182 0100",
	} {
		if err := c.install(iso7816.MustAID("F0465245454152454303"), unhex(t, parameters)); err == nil {
			t.Errorf("parameters: %s: installed", name)
		}
	}
	sd := c.domain(scp.CMAC) // no C-DECRYPTION
	ctx := context.Background()
	_, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: instance})
	check(t, err)
	_, err = globalplatform.Store(ctx, sd, [][]byte{unhex(t, begin+file)}, globalplatform.StoreOptions{Format: globalplatform.FormatDGI}, nil)
	if !errors.Is(err, iso7816.ErrSecurityStatus) {
		t.Errorf("without C-DECRYPTION: %v", err)
	}
}

// Content may go on over blocks, in both formats, and BER-TLV says the same as
// DGI.
func TestSpanningContent(t *testing.T) {
	content := bytes.Repeat([]byte{1, 2, 3, 4, 5}, 100)
	for format, length := range map[globalplatform.Format]string{globalplatform.FormatDGI: "FF01F4", globalplatform.FormatBERTLV: "8201F4"} {
		c := newCard(t, files.InstallParameters(600, 0))
		stream := append(unhex(t, begin+set+"DF23"+length), content...)
		blocks, err := globalplatform.SplitStoreData(stream, 200)
		check(t, err)
		check(t, c.store(format, blocks...))
		c.selectIt()
		c.say("00B09AFF00", hex.EncodeToString(content[255:])+"9000")
		c.say("00B0010000", hex.EncodeToString(content[256:])+"9000")
	}
	c := newCard(t, files.InstallParameters(600, 0))
	if err := c.store(globalplatform.FormatDGI, unhex(t, begin+set+"DF23 02 01")); !errors.Is(err, iso7816.ErrWrongData) {
		t.Errorf("content that never ends: %v", err)
	}
}

// Wherever power is lost in an update or a wipe, the files are those from
// before or those from after.
func TestPowerCuts(t *testing.T) {
	old, fresh := "C10101 9000", "C10100 9000"
	for name, x := range map[string]struct{ block, after string }{
		"update": {begin + set + "DF23 03 C10100", fresh},
		"wipe":   {"DF2F 04 57495045", "6985"},
	} {
		t.Run(name, func(t *testing.T) {
			saw := map[string]bool{}
			for write := 1; ; write++ {
				c := newCard(t, files.InstallParameters(100, 1))
				c.personalize()
				sd := c.domain(scp.CDecryption)
				ctx := context.Background()
				_, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: instance})
				check(t, err)
				c.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: write})
				_, err = globalplatform.Store(ctx, sd, [][]byte{unhex(t, x.block)}, globalplatform.StoreOptions{Format: globalplatform.FormatDGI}, nil)
				if err == nil {
					if write < 5 {
						t.Fatalf("only %d writes", write-1)
					}
					break
				}
				check(t, c.Reset(ctx))
				c.selectIt()
				got, err := c.Transmit(ctx, unhex(t, "00B09A0000"))
				check(t, err)
				switch {
				case bytes.Equal(got, unhex(t, old)):
					saw["old"] = true
				case bytes.Equal(got, unhex(t, x.after)):
					saw["new"] = true
				default:
					t.Fatalf("cut before write %d: %X", write, got)
				}
				check(t, c.store(globalplatform.FormatDGI, unhex(t, x.block))) // again, to its end
				c.selectIt()
				c.say("00B09A0000", x.after)
			}
			if len(saw) != 2 {
				t.Errorf("saw %v, want old and new", saw)
			}
		})
	}
}

func FuzzPersonalize(f *testing.F) {
	for _, s := range []string{begin + set + no, begin + list + "DF23 02 AABB", "DF2F 04 57495045", begin + data + value, begin + tag + "DF23 FF0100"} {
		f.Add(unhex(f, s), true)
		f.Add(unhex(f, s), false)
	}
	f.Fuzz(func(t *testing.T, block []byte, dgi bool) {
		if len(block) == 0 || len(block) > 239 {
			return
		}
		c := newCard(t, files.InstallParameters(100, 1))
		format := globalplatform.FormatBERTLV
		if dgi {
			format = globalplatform.FormatDGI
		}
		if err := c.store(format, block); errors.Is(err, iso7816.ErrUnknown) || errors.Is(err, iso7816.ErrCardRemoved) {
			t.Fatal(err)
		}
		c.selectIt()
		for sfi := range 30 {
			got, err := c.Transmit(context.Background(), []byte{0, 0xB0, 0x80 | byte(sfi), 0, 0})
			if err != nil || bytes.HasSuffix(got, []byte{0x6F, 0x00}) {
				t.Fatalf("%X, %v", got, err)
			}
		}
	})
}

// TestWorkedExample runs what docs/file-application.md shows.
func TestWorkedExample(t *testing.T) {
	text, err := os.ReadFile("../../../docs/file-application.md")
	check(t, err)
	_, example, found := strings.Cut(string(text), "## Worked example\n")
	if !found {
		t.Fatal("no worked example")
	}
	c := newCard(t, unhex(t, "800101 81020064 820100"))
	answers := 0
	for line := range strings.Lines(example) {
		if block, ok := strings.CutPrefix(line, "    80E2 88 00 12"); ok {
			block, _, _ = strings.Cut(block, "(")
			b := unhex(t, strings.TrimSpace(block))
			if len(b) != 0x12 {
				t.Errorf("the block has %d bytes", len(b))
			}
			check(t, c.store(globalplatform.FormatDGI, b))
		}
		if command, answer, ok := strings.Cut(line, "→"); ok {
			c.say(strings.TrimSpace(command), strings.TrimSpace(answer))
			answers++
		}
	}
	if answers != 4 {
		t.Errorf("%d answers", answers)
	}
}

func TestForgedLoadFile(t *testing.T) {
	if m, err := (oncard.Linker{}).Link(files.Package, nil, [32]byte{}); m != nil || !errors.Is(err, oncard.ErrForgedLoadFile) {
		t.Errorf("%v, %v", m, err)
	}
	if m, err := (oncard.Linker{}).Link(instance, nil, files.LoadFileHash()); m != nil || err != nil {
		t.Errorf("another package: %v, %v", m, err)
	}
}

// Some hosts load the Descriptor component too.
func TestLoadFileWithDescriptor(t *testing.T) {
	f, err := capfile.Parse(files.LoadFile())
	check(t, err)
	block := append(f.LoadFileDataBlock(), f.Component(capfile.Descriptor)...)
	m, err := (oncard.Linker{}).Link(files.Package, block, sha256.Sum256(block))
	check(t, err)
	if m[files.Module] == nil {
		t.Error("no module")
	}
}
