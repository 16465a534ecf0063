package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/google/go-cmp/cmp"
)

func TestIssuerSecurityDomainAnswers(t *testing.T) {
	c := newTestCard(t)
	fci := transmit(t, c, "00A40400 08 A000000151000000 00")
	if fci.SW != iso7816.OK || !bytes.HasPrefix(fci.Data, mustHex("6F")) || !bytes.Contains(fci.Data, mustHex("8408A000000151000000")) {
		t.Fatalf("FCI %X %v", fci.Data, fci.SW)
	}
	for name, hex := range map[string]string{
		"partial AID":         "00A40400 07 A0000001510000 00",
		"no data":             "00A40400 00",
		"four bytes":          "00A40400",
		"no Le":               "00A40400 08 A000000151000000",
		"next from the start": "00A40400 05 A000000151 00",
	} {
		transmit(t, c, "00A40400 0A D392F000260100000001")
		if r := transmit(t, c, hex); r.SW != iso7816.OK || !bytes.Equal(r.Data, fci.Data) {
			t.Errorf("%s: %X %v", name, r.Data, r.SW)
		}
	}
	for hex, want := range map[string]string{
		"80CA0042 00":                          "4204 39200001 9000",
		"00CA0042 00":                          "39200001 9000",
		"80CA0045 00":                          "4508 0102030405060708 9000",
		"80CA00E0 00":                          "E012 C00401308810 C00402308810 C00403308810 9000",
		"80CA0066 00":                          "6631 732F 06072A864886FC6B01 600C060A2A864886FC6B02020301 630906072A864886FC6B03 640B06092A864886FC6B040360 9000",
		"80CA0067 00":                          "6734 A009 800103 810160 820107 8103FFFFF0 82031E0F30 830401020304 84018F 8502FF03 86013C 8702FF03 8809000102030405060708 9000",
		"80CA00D3 00":                          "D301 00 9000",
		"80CA9F7F 00":                          "6A88",
		"00CA0042 01 5C 00":                    "6A80",
		"00A40400 08 A000000151000001 00":      "6A82",
		"00A40402 08 A000000151000000 00":      "6A82", // there is no next one
		"00A4040C 08 A000000151000000":         "9000",
		"00A40404 08 A000000151000000 00":      "6A86",
		"00A40000 02 3F00 00":                  "6A86",
		"01A40400 08 A000000151000000 00":      "6881",
		"0CA40400 08 A000000151000000 00":      "6882",
		"10A40400 08 A000000151000000 00":      "6E00",
		"00A40400 04 A0000001 00":              "6A82", // shorter than an AID
		"80 50 00 00 09 000000000000000000 00": "6700",
		"80 50 7F 00 08 0000000000000000 00":   "6A88",
		"80 CA":                                "6700",
		"80 CA 00 42 05 00":                    "6700",
		"80 D8 00 00":                          "6982",
		"80 D6 00 00":                          "6D00",
		"90 CA 00 42 00":                       "6E00",
		"FF CA 00 42 00":                       "6E00",
		"80 70 00 00 01":                       "6D00",
	} {
		if r := transmit(t, c, hex); !bytes.Equal(r.Encode(), mustHex(strings.ReplaceAll(want, " ", ""))) {
			t.Errorf("%s: %X, want %s", hex, r.Encode(), want)
		}
	}
}

// What the card has from its issuer is there, and nothing that this toolkit can
// send changes it.
func TestCardsOwnApplicationsAreOutOfReach(t *testing.T) {
	c := withInstance(t)
	for _, aid := range append([]iso7816.AID{IssuerSecurityDomain}, residents...) {
		r := send(t, iso7816.Plain(c), iso7816.Select(aid))
		if r.SW != iso7816.OK || !bytes.Contains(r.Data, iso7816.AppendTLV(nil, 0x84, aid.Bytes())) {
			t.Errorf("%v: SELECT answers %X %v", aid, r.Data, r.SW)
		}
		s := authenticate(t, c, scp.Full)
		before := encodeImage(c.state)
		for name, cmd := range map[string]iso7816.Command{
			"DELETE":                        cmdDelete(aid, false),
			"DELETE with related":           cmdDelete(aid, true),
			"SET STATUS locked":             cmdSetStatus(aid, 0x80),
			"SET STATUS unlocked":           cmdSetStatus(aid, 0x00),
			"INSTALL [for install] over it": cmdInstall(aid, specific(1, 0, 0, 0)),
			"INSTALL [for load] over it":    cmdInstallForLoad(aid, nil),
			"INSTALL [for personalization]": cmdPersonalize(aid),
			"INSTALL [for make selectable]": {CLA: 0x80, INS: insInstall, P1: forMakeSelectable, Data: lv(nil, nil, aid.Bytes(), []byte{0}, nil, nil)},
		} {
			if r := send(t, s, cmd); r.SW != iso7816.ErrConditions {
				t.Errorf("%v: %s answers %v, want 6985", aid, name, r.SW)
			}
		}
		want(t, s, iso7816.Command{CLA: 0x80, INS: insStoreData, P1: 0x80, Data: []byte{1}}, iso7816.ErrWrongData)
		if !bytes.Equal(before, encodeImage(c.state)) {
			t.Errorf("%v: the card changed", aid)
		}
		if aid != IssuerSecurityDomain {
			listed := want(t, s, cmdGetStatus(scopeApplications, fmt.Sprintf("4F%02X%v", aid.Len(), aid)), iso7816.OK)
			if !bytes.Contains(listed.Data, aid.Bytes()) {
				t.Errorf("%v is not listed: %X", aid, listed.Data)
			}
		}
	}
	// Nor can an instance shadow one of them: the registry's order decides.
	s := authenticate(t, c, scp.CMAC)
	longer := iso7816.MustAID("D392F00026010000000101")
	want(t, s, cmdInstall(longer, specific(1, 0, 0, 0)), iso7816.OK)
	shorter := iso7816.MustAID("D392F0002601")
	want(t, s, cmdInstall(shorter, specific(1, 0, 0, 0)), iso7816.OK)
	if r := transmit(t, c, "00A40400 0A D392F000260100000001 00"); !bytes.Contains(r.Data, mustHex("840AD392F000260100000001")) || r.SW != iso7816.OK {
		t.Errorf("SELECT JPKI answers %X %v", r.Data, r.SW)
	}
	if r := transmit(t, c, "00200001"); r.SW != iso7816.ErrUnknownINS {
		t.Errorf("VERIFY to JPKI: %v", r.SW)
	}
	if r := transmit(t, c, "00A4000C 02 2F00"); r.SW != iso7816.ErrNotFound {
		t.Errorf("SELECT EF of JPKI: %v", r.SW)
	}
}

func TestContentManagementNeedsChannelWithMAC(t *testing.T) {
	c := withInstance(t)
	before := encodeImage(c.state)
	commands := []iso7816.Command{
		cmdInstallForLoad(iso7816.MustAID("F000000001"), nil), cmdLoads([]byte{1}, 10)[0],
		cmdInstall(instanceB, specific(1, 0, 0, 0)), cmdPersonalize(instanceA),
		{CLA: 0x80, INS: insStoreData, P1: 0x80, Data: []byte{1}},
		cmdSetStatus(instanceA, 0x80), cmdDelete(instanceA, false), cmdDelete(testPackage, true),
		cmdGetStatus(scopeApplications, "4F00"),
	}
	transmit(t, c, "00A40400 00")
	for _, cmd := range commands {
		want(t, iso7816.Plain(c), cmd, iso7816.ErrSecurityStatus)
		s := authenticate(t, c, scp.None)
		want(t, s, cmd, iso7816.ErrSecurityStatus)
		// Inside a session with C-MAC, a command without one ends the session.
		s = authenticate(t, c, scp.CMAC)
		want(t, iso7816.Plain(c), cmd, iso7816.ErrSecurityStatus)
		if r := send(t, s, cmd); r.SW != iso7816.ErrSecurityStatus {
			t.Errorf("%s after an abort: %v", iso7816.InstructionName(cmd.CLA, cmd.INS), r.SW)
		}
	}
	if !bytes.Equal(before, encodeImage(c.state)) {
		t.Error("the card changed")
	}
}

func TestSessionEndsWithSelectionAndPower(t *testing.T) {
	for name, end := range map[string]func(*Card){
		"SELECT":            func(c *Card) { transmit(t, c, "00A40400 00") },
		"other application": func(c *Card) { transmit(t, c, "00A40400 0A D392F000260100000001"); transmit(t, c, "00A40400") },
		"reset":             func(c *Card) { _ = c.Reset(context.Background()) },
		"power":             func(c *Card) { c.PowerOff(); c.PowerOn() },
	} {
		c := newTestCard(t)
		s := authenticate(t, c, scp.CMAC)
		want(t, s, cmdGetStatus(scopeIssuer, "4F00"), iso7816.OK)
		end(c)
		if r := send(t, s, cmdGetStatus(scopeIssuer, "4F00")); r.SW != iso7816.ErrSecurityStatus {
			t.Errorf("%s: %v, want 6982", name, r.SW)
		}
	}
}

func TestSelection(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstall(instanceB, specific(64, 0, 0, 0)), iso7816.OK)
	mute := iso7816.MustAID("F0746573740002B0")
	want(t, s, cmdInstall(mute, specific(64, 0, 0, flagMute)), iso7816.OK)
	installedOnly := cmdInstall(iso7816.MustAID("F0746573740002C0"), specific(1, 0, 0, 0))
	installedOnly.P1 = forInstall
	want(t, s, installedOnly, iso7816.OK)

	name := func(aid iso7816.AID) string { return fmt.Sprintf("84%02X%v", aid.Len(), aid) }
	for _, step := range []struct{ hex, fci, sw string }{
		{"00A40400 07 F0746573740002 00", name(instanceA), "9000"},
		{"00A40402 07 F0746573740002 00", name(instanceB), "9000"},
		{"00A40402 07 F0746573740002 00", "", "6985"}, // the next one refuses, and none is left
		{"00A40402 07 F0746573740002 00", name(instanceA), "9000"},
		{"00A40400 08 F0746573740002C0 00", "", "6A82"},                   // installed, not selectable
		{"80 2A 00 00 01", "", "9000"},                                    // instance A is still selected
		{"00A40400 06 F00000000001 00", "", "6A82"},                       // its own answer (GPCS 6.4.2.1.2)
		{"00A40400 05 A000000003 00", "", "6A82"},                         //
		{"80 2A 00 00 01", "", "9000"},                                    // and it stays selected
		{"00A40400 08 F0746573740002B0 00", "", "6985"},                   // refuses
		{"80CA0042 00", "420439200001", "9000"},                           // the Issuer Security Domain is selected
		{"00A4040C 08 F0746573740002A1", "", "9000"},                      //
		{"00A40400 08 F0746573740002A1", name(instanceA), "9000"},         // no Le, FCI all the same
		{"00A40400 10 F0746573740002A10000000000000000 00", "", "6A82"},   //
		{"00A40400 11 F0746573740002A1000000000000000000 00", "", "6A82"}, // no AID is that long
	} {
		r := transmit(t, c, step.hex)
		if r.SW.String() != step.sw || !bytes.Contains(r.Data, mustHex(step.fci)) || step.fci == "" && len(r.Data) > 1 {
			t.Errorf("%s: %X %v, want %s %s", step.hex, r.Data, r.SW, step.fci, step.sw)
		}
	}

	// A locked application isn't selected; one that is selected stays so until
	// somebody selects.
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
	if r := transmit(t, c, "00A40400 08 F0746573740002A1 00"); r.SW != iso7816.ErrNotFound {
		t.Errorf("SELECT of a locked application: %v", r.SW)
	}
	if r := transmit(t, c, "00A40400 07 F0746573740002 00"); !bytes.Contains(r.Data, mustHex(name(instanceB))) {
		t.Errorf("partial SELECT doesn't pass over the locked application: %X %v", r.Data, r.SW)
	}
}

func TestSetStatus(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	state := func(want byte) {
		t.Helper()
		if got := c.state.entry(instanceA).stateByte(); got != want {
			t.Fatalf("life cycle state %02X, want %02X", got, want)
		}
	}
	state(0x07)
	want(t, s, cmdSetStatus(instanceA, 0x00), iso7816.ErrConditions) // not locked
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
	state(0x87)
	want(t, s, cmdSetStatus(instanceA, 0xFF), iso7816.ErrConditions) // locked already
	want(t, s, cmdPersonalize(instanceA), iso7816.ErrConditions)
	want(t, s, cmdSetStatus(instanceA, 0x0F), iso7816.OK) // only the highest bit counts
	state(0x07)
	want(t, s, cmdSetStatus(instanceB, 0x80), iso7816.ErrDataNotFound)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: 0x40, P2: 0x80, Data: []byte{1}}, iso7816.ErrWrongData)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: 0x00, P2: 0x80, Data: instanceA.Bytes()}, iso7816.ErrIncorrectP1P2)

	// An application's own state survives locking.
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	for hex, sw := range map[string]iso7816.SW{"80220F00": iso7816.OK, "80220300": iso7816.ErrConditions, "80228700": iso7816.ErrConditions} {
		if r := transmit(t, c, hex); r.SW != sw {
			t.Errorf("%s: %v, want %v", hex, r.SW, sw)
		}
	}
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
	state(0x8F)
	want(t, s, cmdSetStatus(instanceA, 0x00), iso7816.OK)
	state(0x0F)
}

// A panic answers 6F00, takes the transaction back, and the card goes on.
func TestPanicInApplication(t *testing.T) {
	c := withInstance(t)
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	before := transmit(t, c, "80120000 40")
	for _, hex := range []string{"801A0000 04 01020304", "80103E00 04 01020304" /* beyond the object */, "80260900" /* no such object */} {
		if r := transmit(t, c, hex); r.SW != iso7816.ErrUnknown {
			t.Errorf("%s: %v, want 6F00", hex, r.SW)
		}
	}
	if after := transmit(t, c, "80120000 40"); !bytes.Equal(before.Data, after.Data) {
		t.Errorf("store %X, want %X", after.Data, before.Data)
	}
	s := authenticate(t, c, scp.CMAC)
	used := c.Memory()
	want(t, s, cmdInstall(instanceB, specific(64, 0, 0, flagPanic)), iso7816.ErrUnknown)
	want(t, s, cmdInstall(instanceB, specific(64, 0, 0, flagFail)), iso7816.ErrFuncNotSupported)
	if diff := cmp.Diff(used, c.Memory()); diff != "" {
		t.Error("memory of a failed installation:\n", diff)
	}
	if c.state.entry(instanceB) != nil {
		t.Error("a failed installation left an entry")
	}
	want(t, s, cmdInstall(instanceB, specific(64, 0, 0, 0)), iso7816.OK)
}

type linkerFunc func(iso7816.AID) (map[iso7816.AID]oncard.Module, error)

func (f linkerFunc) Link(a iso7816.AID, _ []byte, _ [32]byte) (map[iso7816.AID]oncard.Module, error) {
	return f(a)
}

func TestPanicInLinkerRefusesLoadFile(t *testing.T) {
	c := newTestCard(t, func(c *Config) {
		c.Linker = linkerFunc(func(iso7816.AID) (map[iso7816.AID]oncard.Module, error) { panic("linker") })
	})
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstallForLoad(testPackage, nil), iso7816.OK)
	want(t, s, cmdLoads(testLoadFile(testPackage), 200)[0], iso7816.ErrWrongData)
	if c.state.file(testPackage) != nil || c.Memory().PersistentUsed != 0 {
		t.Error("the load file stayed")
	}
}

func TestLengthsOfCommandsAndResponses(t *testing.T) {
	c := withInstance(t)
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	// 300 bytes through a short Le: the rest with GET RESPONSE.
	r := transmit(t, c, "8024012C 00")
	if len(r.Data) != 256 || r.SW != 0x612C {
		t.Fatalf("%d bytes %v, want 256 bytes 612C", len(r.Data), r.SW)
	}
	if r = transmit(t, c, "80C00000 2C"); len(r.Data) != 44 || r.SW != iso7816.OK {
		t.Fatalf("GET RESPONSE: %d bytes %v", len(r.Data), r.SW)
	}
	if r = transmit(t, c, "80C00000 2C"); r.SW != iso7816.ErrUnknownINS {
		t.Fatalf("GET RESPONSE without anything left: %v", r.SW)
	}
	if r = transmit(t, c, "80240010 08"); len(r.Data) != 8 || r.SW != 0x6108 {
		t.Fatalf("short Le: %d bytes %v", len(r.Data), r.SW)
	}
	transmit(t, c, "802A0000 01") // another command forgets the rest
	if r = transmit(t, c, "80C00000 08"); r.SW != iso7816.ErrUnknownINS {
		t.Fatalf("GET RESPONSE after another command: %v", r.SW)
	}
	if r = transmit(t, c, "8024012C 000000"); len(r.Data) != 300 || r.SW != iso7816.OK {
		t.Fatalf("extended Le: %d bytes %v", len(r.Data), r.SW)
	}
	if whole := send(t, iso7816.Plain(c), iso7816.Command{CLA: 0x80, INS: tLong, P1: 0x03, Ne: 256}); len(whole.Data) != 0x300 {
		t.Fatalf("a host that follows 61xx gets %d bytes", len(whole.Data))
	}

	short := newTestCard(t, func(c *Config) { c.Profile.ExtendedLength = false })
	if r := transmit(t, short, "80CA0042 000000"); r.SW != iso7816.ErrWrongLength {
		t.Errorf("extended command to a card without them: %v", r.SW)
	}
}

func TestCardWithoutPower(t *testing.T) {
	c := newTestCard(t)
	c.PowerOff()
	if _, err := c.Transmit(context.Background(), mustHex("00A40400")); !errors.Is(err, iso7816.ErrCardRemoved) {
		t.Errorf("without power: %v", err)
	}
	c.PowerOn()
	transmit(t, c, "00A40400")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Transmit(ctx, mustHex("00A40400")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Transmit(context.Background(), mustHex("00A40400")); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := c.Reset(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("reset after Close: %v", err)
	}
}

func TestConcurrentCommands(t *testing.T) {
	c := withInstance(t)
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 50 {
				b, err := c.Transmit(context.Background(), mustHex(fmt.Sprintf("8014%02X000401020304", 4*i)))
				if err != nil || !bytes.Equal(b, mustHex("9000")) {
					t.Errorf("%X %v", b, err)
					return
				}
				c.Memory()
			}
		}()
	}
	wg.Wait()
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no IIN":      func(c *Config) { c.IIN = nil },
		"long CIN":    func(c *Config) { c.CIN = make([]byte, 33) },
		"no ATR":      func(c *Config) { c.Profile.ATR = nil },
		"no keys":     func(c *Config) { c.Keys.DEK.Erase(); c.Keys.DEK = c.Keys.MAC; c.Keys.MAC = (Config{}).Keys.MAC },
		"version 0":   func(c *Config) { c.Keys.Version = 0 },
		"memory size": func(c *Config) { c.Profile.PersistentMemory = -1 },
	} {
		cfg := testConfig(t)
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := LookupProfile("none"); !errors.Is(err, ErrProfile) {
		t.Errorf("unknown profile: %v", err)
	}
	// The ATRs that were seen of the physical card.
	contactless, _ := LookupProfile("contactless")
	contact, _ := LookupProfile("contact")
	if got := []string{fmt.Sprintf("%X", contactless.ATR), fmt.Sprintf("%X", contact.ATR)}; !slices.Equal(got, []string{
		"3B8880010000" + "05E0B381A1007F", "3BDA13FF8131FB468012392F31C173C601C03B",
	}) {
		t.Error(got)
	}
}

// The card keeps its own copy of the keys it is given.
func TestKeysAreCopied(t *testing.T) {
	cfg := testConfig(t)
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys.Erase()
	authenticate(t, c, scp.Full)
}

func FuzzTransmit(f *testing.F) {
	for _, hex := range []string{
		"00A40400", "00A4040008A000000151000000", "80CA006600", "8050000008000102030405060708", "848201000800000000000000",
		"80F2400002" + "4F0000", "80E60C00", "80E400000A4F08A000000151000000", "80E88000", "00A4040008F0746573740002A100",
		"0070000001", "01A4040000", "80D8008101", "80D8000113708800", "80E2900004" + "42021234", "80E2880007" + "00700442021234", "80E400000" + "3D20130",
		"80E610001C08F07465737400D0010008F0746573740002A1000000", "80E640000F00000400000000000000", "80E60E0105", "80F0800F", "80F0608008F07465737400D001",
		"801400040401020304", "8024FFFF000000", "80C0000000", "801A000001FF", "80E2810003000100",
	} {
		f.Add(mustHex(hex))
	}
	image := encodeImage(withInstance(f).state)
	f.Fuzz(func(t *testing.T, b []byte) {
		state, err := decodeImage(image) // a card of its own: one that is locked stays so
		if err != nil {
			t.Fatal(err)
		}
		c := newCard(state, testLinker{}, &stream{})
		// Through the secure channel, so that it gets past the first door, and
		// as it is.
		if cmd, err := iso7816.ParseCommand(b); err == nil && len(cmd.Data) <= scp.CMAC.MaxData() {
			s := authenticate(t, c, scp.CMAC)
			cmd.CLA, cmd.Extended = 0x80, false
			cmd.Ne = min(cmd.Ne, 256)
			if _, err := s.Send(context.Background(), cmd); err != nil && !errors.Is(err, iso7816.ErrMalformedCommand) && cmd.INS != insGetResponse &&
				cmd.INS != insInitializeUpdate && cmd.INS != insExternalAuthenticate {
				t.Fatal(err)
			}
		}
		response, err := c.Transmit(context.Background(), b)
		if err != nil || len(response) < 2 {
			t.Fatalf("%X: %X %v", b, response, err)
		}
		if got, err := decodeImage(encodeImage(c.state)); err != nil || !bytes.Equal(encodeImage(got), encodeImage(c.state)) {
			t.Fatalf("the card's state has no image: %v", err)
		}
	})
}
