package emulator

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// sharedModule makes the test application multiselectable.
type sharedModule struct{ testModule }

func (m sharedModule) Open(card oncard.Card) (oncard.Application, error) {
	a, err := m.testModule.Open(card)
	if err != nil {
		return nil, err
	}
	return sharedApp{a.(*testApp)}, nil
}

type sharedApp struct{ *testApp }

func (sharedApp) MultiSelectable() {}

func sharing(c *Config) {
	c.Linker = linkerFunc(func(iso7816.AID) (map[iso7816.AID]oncard.Module, error) {
		return map[iso7816.AID]oncard.Module{testModuleID: sharedModule{}}, nil
	})
}

func TestManageChannel(t *testing.T) {
	c := newTestCard(t)
	for _, step := range []struct{ hex, want string }{
		{"00700000 01", "019000"},
		{"00700000 01", "029000"},
		{"00700003", "039000"},      // named by the host
		{"00700000 01", "6A81"},     // there are four
		{"00700002 01", "6A81"},     // open already
		{"00700004 01", "6A86"},     //
		{"00708002", "9000"},        //
		{"00708002", "6200"},        // closed already
		{"00708000", "6A86"},        // never the basic one
		{"00708004", "6A86"},        //
		{"00704000", "6A86"},        //
		{"02700000 01", "6881"},     // from a closed one
		{"03700000 01", "029000"},   // from another than the basic one
		{"04700000 01", "6882"},     //
		{"00700000 01 00", "6700"},  //
		{"02A40400 00", ""},         //
		{"02CA0042 00", "39200001"}, //
		{"82CA0042 00", "420439200001"},
		{"01708001", "9000"}, // a channel closes itself
		{"01CA0042 00", "6881"},
		{"C0CA0042 00", "6881"}, // channel 4
	} {
		r := transmit(t, c, step.hex)
		if got := fmt.Sprintf("%X", r.Encode()); step.want != "" && got != step.want && got != step.want+"9000" {
			t.Errorf("%s: %s, want %s", step.hex, got, step.want)
		}
	}
	_ = c.Reset(context.Background())
	if r := transmit(t, c, "02CA0042 00"); r.SW != iso7816.ErrLogicalChannel {
		t.Errorf("after a reset: %v", r.SW)
	}
	if _, err := New(func() Config { cfg := testConfig(t); cfg.Profile.LogicalChannels = 21; return cfg }()); err == nil {
		t.Error("a card with 21 channels")
	}
}

// All twenty, those beyond the third with the further interindustry class.
func TestEveryChannel(t *testing.T) {
	c := withInstance(t, func(c *Config) { c.Profile.LogicalChannels = 20; sharing(c) })
	ctx := context.Background()
	for n := byte(1); n < 20; n++ {
		got, err := globalplatform.OpenChannel(ctx, iso7816.Plain(c))
		if err != nil || got != n {
			t.Fatalf("channel %d: %d %v", n, got, err)
		}
	}
	if _, err := globalplatform.OpenChannel(ctx, iso7816.Plain(c)); err == nil {
		t.Error("a 21st channel")
	}
	for n := range byte(20) {
		on := globalplatform.OnChannel(iso7816.Plain(c), n)
		want(t, on, iso7816.Select(IssuerSecurityDomain), iso7816.OK)
		s, err := scp.Open(ctx, on, testConfig(t).Keys, scp.HostOptions{Level: scp.Full, Rand: &stream{}})
		if err != nil {
			t.Fatalf("channel %d: %v", n, err)
		}
		want(t, s, cmdGetStatus(scopeApplications, "4F00"), iso7816.OK)
		want(t, on, iso7816.Select(instanceA), iso7816.OK)
		want(t, on, iso7816.Command{CLA: 0x80, INS: tWrite, P1: n, Data: []byte{n}}, iso7816.OK)
	}
	transmit(t, c, "00A40400 08 F0746573740002A1")
	if r := transmit(t, c, "80120000 14"); !bytes.Equal(r.Data, mustHex("000102030405060708090A0B0C0D0E0F10111213")) {
		t.Errorf("store %X", r.Data)
	}
	// What is left of a response waits on its own channel.
	transmit(t, c, "8024012C 00")
	transmit(t, c, "81120000 01")
	if r := transmit(t, c, "80C00000 2C"); len(r.Data) != 44 || r.SW != iso7816.OK {
		t.Errorf("GET RESPONSE: %d bytes %v", len(r.Data), r.SW)
	}
}

func TestSelectionOnChannels(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstall(instanceB, specific(8, 0, 0, 0)), iso7816.OK)
	for _, step := range []struct{ hex, want string }{
		{"00700000 01", "019000"},
		{"00700000 01", "029000"},
		{"00A40400 08 F0746573740002A1", "9000"},
		{"01A40400 08 F0746573740002A1", "6985"}, // on the basic channel already
		{"01A40400 08 F0746573740002A2", "6985"}, // the same load file: one context
		{"01A40400 07 F0746573740002", "6985"},
		{"01A40402 07 F0746573740002", "6985"},
		{"01A40400 0A D392F000260100000001", "9000"},
		{"02A40400 0A D392F000260100000001", "6985"},
		{"02A40400 0A D3921000310001010401", "9000"},
		{"01708001", "9000"},
		{"02A40400 0A D392F000260100000001", "9000"},
		{"80120000 02", "A5A59000"}, // A is there all the time
		{"02A40400 08 F0746573740009A1", "6A82"},
		{"02700000 01", "6985"}, // what is selected on 2 can't be on 1 too
		{"00A40400", "9000"},
		{"02A40400 08 F0746573740002A1", "9000"},
		{"82120000 02", "A5A59000"},
	} {
		r := transmit(t, c, step.hex)
		if got := fmt.Sprintf("%X", r.Encode()); got != step.want && r.SW.String() != step.want {
			t.Errorf("%s: %s, want %s", step.hex, got, step.want)
		}
	}
	// In use on channel 2: not personalised, not deleted.
	s = authenticate(t, c, scp.CDecryption)
	want(t, s, cmdPersonalize(instanceA), iso7816.ErrConditions)
	want(t, s, cmdDelete(instanceA, false), iso7816.ErrConditions)
	want(t, s, cmdDelete(testPackage, true), iso7816.ErrConditions)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK) // it goes on until its session ends
	if r := transmit(t, c, "82120000 02"); r.SW != iso7816.OK {
		t.Errorf("a locked application in its session: %v", r.SW)
	}
	if r := transmit(t, c, "02A40400 08 F0746573740002A1"); r.SW != iso7816.ErrNotFound {
		t.Errorf("a locked application is selected: %v", r.SW)
	}
	if r := transmit(t, c, "82CA0042 00"); r.SW != iso7816.OK {
		t.Errorf("what follows a locked application: %v", r.SW)
	}
	s = authenticate(t, c, scp.CDecryption)
	want(t, s, cmdSetStatus(instanceA, 0x00), iso7816.OK)
	// Personalisation that was begun ends when the application is selected elsewhere.
	want(t, s, cmdPersonalize(instanceA), iso7816.OK)
	transmit(t, c, "02A40400 08 F0746573740002A1")
	want(t, s, iso7816.Command{CLA: 0x80, INS: insStoreData, P1: 0x88, Data: []byte{1}}, iso7816.ErrConditions)
	transmit(t, c, "02A40400")
	want(t, s, cmdDelete(testPackage, true), iso7816.OK)
}

// A multiselectable application runs on several channels; its memory is
// cleared and it is told when the last of them is left.
func TestMultiselectable(t *testing.T) {
	c := withInstance(t, sharing)
	transmit(t, c, "00700000 01")
	transmit(t, c, "00A40400 08 F0746573740002A1")
	transmit(t, c, "01A40400 08 F0746573740002A1")
	app := c.session.running[c.state.entry(instanceA)].app.(sharedApp)
	transmit(t, c, "80200000 04 01020304 00")
	transmit(t, c, "00A40400")
	if r := transmit(t, c, "81200000 04 01020304 00"); !bytes.Equal(r.Data, mustHex("0102030401020304")) || app.deselected != 0 {
		t.Errorf("transient memory %X, told %d times", r.Data, app.deselected)
	}
	transmit(t, c, "01700000 01") // channel 2, with the same application
	transmit(t, c, "01708001")
	if app.deselected != 0 {
		t.Error("told too early")
	}
	if r := transmit(t, c, "82200000 04 01020304 00"); !bytes.Equal(r.Data, mustHex("0102030401020304")) {
		t.Errorf("transient memory %X", r.Data)
	}
	transmit(t, c, "00708002")
	if app.deselected != 1 {
		t.Errorf("told %d times", app.deselected)
	}
	transmit(t, c, "00A40400 08 F0746573740002A1")
	if r := transmit(t, c, "80200000 04 01020304 00"); !bytes.Equal(r.Data, mustHex("0102030400000000")) {
		t.Errorf("transient memory %X", r.Data)
	}
}

// One secure channel per Security Domain; each channel has its own sequence of
// commands.
func TestSecureChannelsOnChannels(t *testing.T) {
	c := newTestCard(t)
	addDomain(t, c, domainX, "80C000", keysX)
	ctx := context.Background()
	s := authenticate(t, c, scp.CMAC)
	transmit(t, c, "00700001")
	on := globalplatform.OnChannel(iso7816.Plain(c), 1)
	want(t, on, iso7816.Select(IssuerSecurityDomain), iso7816.OK)
	want(t, on, iso7816.Command{CLA: 0x80, INS: insInitializeUpdate, Data: make([]byte, 8), Ne: 256}, iso7816.ErrConditions)
	want(t, s, cmdGetStatus(scopeIssuer, "4F00"), iso7816.OK) // the session is untouched
	want(t, on, cmdGetStatus(scopeIssuer, "4F00"), iso7816.ErrSecurityStatus)
	// Another Security Domain's is its own.
	want(t, on, iso7816.Select(domainX), iso7816.OK)
	x, err := scp.Open(ctx, on, keysX, scp.HostOptions{Level: scp.CMAC, Rand: &stream{}})
	if err != nil {
		t.Fatal(err)
	}
	block := testLoadFile(testPackage, testModuleID, otherModule)
	loads := cmdLoads(block, 100)
	want(t, s, cmdInstallForLoad(testPackage, nil), iso7816.OK)
	want(t, x, cmdInstallForLoad(testPackage, nil), iso7816.OK)
	for i, l := range loads {
		want(t, s, l, iso7816.OK)
		sw := iso7816.OK
		if i == len(loads)-1 {
			sw = iso7816.ErrConditions // the other one was first
		}
		want(t, x, l, sw)
	}
	if m := c.Memory(); m.PersistentUsed != c.state.file(testPackage).size()+c.state.entry(domainX).size() {
		t.Errorf("%d bytes used", m.PersistentUsed)
	}
	// A Security Domain that is selected elsewhere isn't deleted.
	want(t, s, cmdDelete(domainX, false), iso7816.ErrConditions)
	transmit(t, c, "00A40400")
	want(t, on, iso7816.Select(IssuerSecurityDomain), iso7816.OK)
	if _, err := scp.Open(ctx, on, testConfig(t).Keys, scp.HostOptions{Level: scp.CMAC, Rand: &stream{}}); err != nil {
		t.Errorf("after the session ended: %v", err)
	}
	want(t, iso7816.Plain(c), iso7816.Command{CLA: 0x80, INS: insInitializeUpdate, Data: make([]byte, 8), Ne: 256}, iso7816.ErrConditions)
	transmit(t, c, "00708001")
	want(t, iso7816.Plain(c), iso7816.Command{CLA: 0x80, INS: insInitializeUpdate, Data: make([]byte, 8), Ne: 256}, iso7816.OK)
}

// A locked card loses its supplementary channels one by one.
func TestChannelsOfALockedCard(t *testing.T) {
	c := withInstance(t)
	transmit(t, c, "00700001")
	transmit(t, c, "01A40400 08 F0746573740002A1")
	s := authenticate(t, c, scp.CMAC)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardLocked}, iso7816.OK)
	if r := transmit(t, c, "81120000 02"); r.SW != iso7816.OK {
		t.Errorf("its session goes on: %v", r.SW)
	}
	if r := transmit(t, c, "01A40400 08 F0746573740002A1"); r.SW != iso7816.ErrFuncNotSupported {
		t.Errorf("SELECT: %v", r.SW)
	}
	if r := transmit(t, c, "81120000 02"); r.SW != iso7816.ErrLogicalChannel {
		t.Errorf("the channel is still open: %v", r.SW)
	}
}
