package emulator

import (
	"bytes"
	"slices"
	"testing"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// hooked is a test application whose test does its work: process 80 00 runs
// what the test has put there.
type hooked struct {
	testModule
	do map[iso7816.AID]func(oncard.Card) error
}

func (h *hooked) Open(card oncard.Card) (oncard.Application, error) {
	a, err := h.testModule.Open(card)
	if err != nil {
		return nil, err
	}
	return hookedApp{a.(*testApp), h}, nil
}

type hookedApp struct {
	*testApp
	h *hooked
}

func (a hookedApp) Process(cmd iso7816.Command) iso7816.Response {
	if cmd.CLA != 0x80 || cmd.INS != 0 {
		return a.testApp.Process(cmd)
	}
	if err := a.h.do[a.card.AID()](a.card); err != nil {
		return refuse(err)
	}
	return iso7816.Response{SW: iso7816.OK}
}

// run selects an application and runs f in it.
func (h *hooked) run(t *testing.T, c *Card, aid iso7816.AID, f func(oncard.Card) error) iso7816.SW {
	t.Helper()
	h.do[aid] = f
	want(t, iso7816.Plain(c), iso7816.Select(aid), iso7816.OK)
	return transmit(t, c, "80000000").SW
}

// withHooked is a card with applications of the privileges, in three bytes.
func withHooked(t *testing.T, rights map[iso7816.AID]string, change ...func(*Config)) (*Card, *hooked) {
	t.Helper()
	h := &hooked{do: map[iso7816.AID]func(oncard.Card) error{}}
	c := newTestCard(t, append(change, func(cfg *Config) {
		cfg.Linker = linkerFunc(func(iso7816.AID) (map[iso7816.AID]oncard.Module, error) {
			return map[iso7816.AID]oncard.Module{testModuleID: h}, nil
		})
	})...)
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	for _, aid := range []iso7816.AID{instanceA, instanceB} {
		want(t, s, cmdRights(aid, rights[aid]), iso7816.OK)
	}
	return c, h
}

// cmdServices is INSTALL [for registry update] of privileges and Global Service
// Parameters.
func cmdServices(aid iso7816.AID, rights, names string) iso7816.Command {
	var parameters []byte
	if names != "" {
		parameters = iso7816.AppendTLV(nil, 0xEF, iso7816.AppendTLV(nil, 0xCB, mustHex(names)))
	}
	return iso7816.Command{
		CLA: 0x80, INS: insInstall, P1: forRegistryUpdate, Ne: 256,
		Data: lv(nil, nil, aid.Bytes(), mustHex(rights), parameters, nil),
	}
}

func TestGlobalServices(t *testing.T) {
	c, h := withHooked(t, map[iso7816.AID]string{instanceA: "000100", instanceB: "000100"})
	register := func(aid iso7816.AID, name uint16) iso7816.SW {
		return h.run(t, c, aid, func(card oncard.Card) error { return card.RegisterService(name) })
	}
	deregister := func(aid iso7816.AID, name uint16) iso7816.SW {
		return h.run(t, c, aid, func(card oncard.Card) error { return card.DeregisterService(name) })
	}
	update := func(cmd iso7816.Command) iso7816.SW { return send(t, authenticate(t, c, scp.CMAC), cmd).SW }
	find := func(provider iso7816.AID, name uint16) (aid iso7816.AID) {
		h.run(t, c, instanceB, func(card oncard.Card) error {
			var ok bool
			if aid, ok = card.Service(provider, name); ok == aid.IsZero() {
				t.Errorf("service %04X: %v, %v", name, aid, ok)
			}
			return nil
		})
		return aid
	}
	none := iso7816.AID{}
	for i, step := range []struct {
		got, want any
	}{
		{find(none, 0xA001), none},
		{register(instanceA, 0xA001), iso7816.OK},   // no names recorded: any
		{register(instanceA, 0xA001), iso7816.OK},   // again
		{register(instanceB, 0xA001), conditions},   // another has it
		{register(instanceB, 0xA002), iso7816.OK},   // of the same family
		{register(instanceB, 0x8001), conditions},   // no such family
		{register(instanceB, 0xFF01), conditions},   //
		{register(instanceB, 0x8211), conditions},   // the card's own
		{find(none, 0xA001), instanceA},             //
		{find(none, 0xA002), instanceB},             //
		{find(none, 0xA000), instanceA},             // any of the family
		{find(none, 0xA003), none},                  //
		{find(instanceB, 0xA002), instanceB},        //
		{find(instanceB, 0xA001), none},             //
		{find(none, 0x8211), IssuerSecurityDomain},  //
		{find(none, 0x8200), IssuerSecurityDomain},  //
		{find(instanceA, 0x8211), none},             //
		{deregister(instanceB, 0xA001), conditions}, // it is another's
		{deregister(instanceA, 0xA001), iso7816.OK}, //
		{deregister(instanceA, 0xA001), conditions}, // no more
		{find(none, 0xA001), none},                  //
		{register(instanceB, 0xA001), iso7816.OK},   // free again
		{deregister(instanceB, 0xA001), iso7816.OK}, //
		{deregister(instanceB, 0xA002), iso7816.OK}, //
		{update(cmdServices(instanceA, "", "A001A300")), iso7816.OK},
		{update(cmdServices(instanceB, "", "A001")), iso7816.OK}, // names needn't be unique
		{find(instanceA, 0xA001), instanceA},                     // as the registry has it
		{find(instanceA, 0xA305), instanceA},                     // a family
		{find(none, 0xA001), none},                               // but nobody registered it
		{register(instanceA, 0xA002), conditions},                // not of its names
		{register(instanceA, 0xA305), iso7816.OK},                // of its family
		{register(instanceA, 0xA001), iso7816.OK},                //
		{update(cmdServices(instanceA, "", "A300")), conditions}, // it has registered A001
		{update(cmdServices(instanceA, "", "A3")), iso7816.ErrWrongData},
		{update(cmdServices(instanceA, "", "A300A300")), iso7816.ErrWrongData},
		{update(cmdServices(instanceA, "", "8000")), iso7816.ErrWrongData},
		{update(cmdServices(instanceA, "000000", "A300")), iso7816.ErrWrongData}, // names without the privilege
		{update(cmdSetStatus(instanceA, 0x80)), iso7816.OK},
		{find(none, 0xA001), none}, // locked
		{find(instanceA, 0xA001), none},
		{update(cmdSetStatus(instanceA, 0x00)), iso7816.OK},
		{find(none, 0xA001), instanceA},
		{update(cmdServices(instanceA, "000000", "")), iso7816.OK}, // and what it had registered is gone
		{register(instanceA, 0xA001), conditions},
		{register(instanceB, 0xA001), iso7816.OK},
		{update(cmdServices(instanceA, "000100", "")), iso7816.OK},
		{find(instanceA, 0xA305), none},
		{update(cmdDelete(instanceA, false)), iso7816.OK},
		{find(instanceA, 0xA305), none},
		{find(none, 0xA001), instanceB},
	} {
		if step.got != step.want {
			t.Errorf("step %d: %v, want %v", i, step.got, step.want)
		}
	}
}

const conditions = iso7816.ErrConditions

// INSTALL [for install] takes the names too, and what an abort takes back of a
// registration is gone.
func TestGlobalServiceParameters(t *testing.T) {
	c, h := withHooked(t, map[iso7816.AID]string{instanceA: "000100", instanceB: "000000"})
	s := authenticate(t, c, scp.CMAC)
	third := iso7816.MustAID("F0746573740002A3")
	cmd := cmdRights(third, "000100")
	with := func(rights, names string) iso7816.Command {
		cmd.Data = lv(testPackage.Bytes(), testModuleID.Bytes(), third.Bytes(), mustHex(rights),
			append(iso7816.AppendTLV(nil, 0xC9, specific(8, 0, 0, 0)), iso7816.AppendTLV(nil, 0xEF, iso7816.AppendTLV(nil, 0xCB, mustHex(names)))...), nil)
		return cmd
	}
	want(t, s, with("000000", "A001"), iso7816.ErrWrongData)
	want(t, s, with("000100", "FF01"), iso7816.ErrWrongData)
	want(t, s, with("000100", ""), iso7816.ErrWrongData)
	want(t, s, with("000100", "A001A100"), iso7816.OK)
	if e := c.state.entry(third); !slices.Equal(e.services, services{0xA001, 0xA100}) {
		t.Errorf("names %04X", e.services)
	}
	h.run(t, c, instanceA, func(card oncard.Card) error {
		if err := card.Begin(); err != nil {
			return err
		}
		if err := card.RegisterService(0xA002); err != nil {
			return err
		}
		card.Abort()
		if aid, ok := card.Service(iso7816.AID{}, 0xA002); ok {
			t.Errorf("%v offers what was taken back", aid)
		}
		return nil
	})
	// What the registry holds is in the image.
	if h.run(t, c, third, func(card oncard.Card) error { return card.RegisterService(0xA105) }) != iso7816.OK {
		t.Error("a name of a recorded family was refused")
	}
	again, err := decodeImage(encodeImage(c.state))
	if err != nil {
		t.Fatal(err)
	}
	if e := again.entry(third); !slices.Equal(e.services, services{0xA001, 0xA100}) || !slices.Equal(e.registered, services{0xA105}) {
		t.Errorf("the image has %04X, %04X", e.services, e.registered)
	}
}

func TestGlobalPIN(t *testing.T) {
	c, h := withHooked(t, map[iso7816.AID]string{instanceA: "020000", instanceB: "000000"})
	in := func(aid iso7816.AID, f func(oncard.CVM, oncard.Card)) {
		t.Helper()
		if sw := h.run(t, c, aid, func(card oncard.Card) error { f(card.GlobalPIN(), card); return nil }); sw != iso7816.OK {
			t.Fatal(sw)
		}
	}
	state := func(what string, active, submitted, verified, blocked bool, tries byte) {
		t.Helper()
		in(instanceB, func(p oncard.CVM, _ oncard.Card) {
			if p.Active() != active || p.Submitted() != submitted || p.Verified() != verified || p.Blocked() != blocked || p.TriesRemaining() != tries {
				t.Errorf("%s: %v %v %v %v %d", what, p.Active(), p.Submitted(), p.Verified(), p.Blocked(), p.TriesRemaining())
			}
		})
	}
	hold := func(what string, ok, want bool) {
		t.Helper()
		if ok != want {
			t.Errorf("%s: %v", what, ok)
		}
	}
	state("at first", false, false, false, false, 0)
	in(instanceB, func(p oncard.CVM, _ oncard.Card) {
		hold("update without the privilege", p.Update([]byte("1234"), oncard.CVMASCII), false)
		hold("limit without the privilege", p.SetTryLimit(3), false)
		hold("verify of nothing", p.Verify([]byte("1234"), oncard.CVMASCII), false)
	})
	in(instanceA, func(p oncard.CVM, _ oncard.Card) {
		hold("block of nothing", p.Block(), false)
		hold("value", p.Update([]byte{0x12, 0x34, 0x5F}, oncard.CVMBCD), true)
		hold("active without a limit", p.Active(), false)
		for _, n := range []byte{0, 0x80, 0xFF} {
			hold("limit", p.SetTryLimit(n), false)
		}
		hold("limit", p.SetTryLimit(3), true)
		for _, v := range []struct {
			value  []byte
			format oncard.CVMFormat
		}{{nil, oncard.CVMHex}, {make([]byte, 33), oncard.CVMHex}, {[]byte{0x1A}, oncard.CVMBCD}, {[]byte{0x1F, 0x11}, oncard.CVMBCD}, {[]byte{0xF1}, oncard.CVMBCD}, {[]byte{0x1F}, oncard.CVMASCII}, {[]byte{0x7F}, oncard.CVMASCII}, {[]byte{0x31}, 0}, {[]byte{0x31}, 4}} {
			hold("value of no format", p.Update(v.value, v.format), false)
		}
	})
	state("set", true, false, false, false, 3)
	in(instanceB, func(p oncard.CVM, _ oncard.Card) {
		hold("reset of what nobody tried", p.Reset(), false)
		hold("as ASCII", p.Verify([]byte("12345"), oncard.CVMASCII), true)
		hold("as BCD", p.Verify([]byte{0x12, 0x34, 0x5F}, oncard.CVMBCD), true)
	})
	state("right", true, true, true, false, 3)
	in(instanceB, func(p oncard.CVM, _ oncard.Card) {
		hold("as bytes", p.Verify([]byte{0x12, 0x34, 0x5F}, oncard.CVMHex), false)
	})
	state("wrong", true, true, false, false, 2)
	in(instanceB, func(p oncard.CVM, card oncard.Card) {
		_ = card.Begin()
		hold("beginning of it", p.Verify([]byte("1234"), oncard.CVMASCII), false)
		card.Abort()
	})
	state("wrong in a transaction", true, true, false, false, 1)
	in(instanceB, func(p oncard.CVM, _ oncard.Card) { hold("reset", p.Reset(), true) })
	state("reset", true, false, false, false, 1)
	in(instanceB, func(p oncard.CVM, _ oncard.Card) { hold("last", p.Verify([]byte("0"), oncard.CVMASCII), false) })
	state("blocked", true, false, false, true, 0)
	c.PowerOff()
	c.PowerOn()
	state("next session", true, false, false, true, 0)
	in(instanceB, func(p oncard.CVM, _ oncard.Card) {
		hold("blocked", p.Verify([]byte("12345"), oncard.CVMASCII), false)
		hold("reset of what is blocked", p.Reset(), false)
		hold("unblock without the privilege", p.ResetAndUnblock(), false)
	})
	again, err := decodeImage(encodeImage(c.state))
	if err != nil || !again.cvm.blocked || !bytes.Equal(again.cvm.value, c.state.cvm.value) {
		t.Errorf("image: %+v, %v", again.cvm, err)
	}
	in(instanceA, func(p oncard.CVM, _ oncard.Card) { hold("unblock", p.ResetAndUnblock(), true) })
	state("unblocked", true, false, false, false, 3)
	// What a transaction takes back is the value, not the tries.
	in(instanceA, func(p oncard.CVM, card oncard.Card) {
		_ = card.Begin()
		hold("other value", p.Update([]byte("9"), oncard.CVMASCII), true)
		hold("wrong", p.Verify([]byte("8"), oncard.CVMASCII), false)
		card.Abort()
		hold("old value", p.Verify([]byte("12345"), oncard.CVMASCII), true)
		_ = card.Begin()
		hold("other limit", p.SetTryLimit(9), true)
		for range 9 {
			hold("wrong", p.Verify([]byte("8"), oncard.CVMASCII), false)
		}
		card.Abort()
		hold("nine tries used up", p.Blocked(), true)
		hold("value unblocks", p.Update([]byte{1, 2}, oncard.CVMHex), true)
		hold("bytes", p.Verify([]byte{1, 2}, oncard.CVMHex), true)
		hold("bytes as BCD", p.Verify([]byte{1, 2}, oncard.CVMBCD), false)
		hold("value in ASCII", p.Update([]byte("77"), oncard.CVMASCII), true)
		hold("its bytes", p.Verify([]byte("77"), oncard.CVMHex), false)
		hold("block", p.Block(), true)
	})
	state("at last", true, false, false, true, 0)
}

// A try counts even if the power goes while it is compared.
func TestGlobalPINUnderCuts(t *testing.T) {
	c, h := withHooked(t, map[iso7816.AID]string{instanceA: "020000", instanceB: "000000"})
	h.run(t, c, instanceA, func(card oncard.Card) error {
		p := card.GlobalPIN()
		p.Update([]byte("1234"), oncard.CVMASCII)
		p.SetTryLimit(5)
		return nil
	})
	for _, value := range []string{"1234", "4321"} {
		h.do[instanceB] = func(card oncard.Card) error {
			card.GlobalPIN().Verify([]byte(value), oncard.CVMASCII)
			return nil
		}
		want(t, iso7816.Plain(c), iso7816.Select(instanceB), iso7816.OK)
		before := c.state.cvm.left
		c.SetCut(Cut{Command: 1, Where: AfterCommand})
		_, err := c.Transmit(t.Context(), mustHex("80000000"))
		if err == nil {
			t.Fatal("no cut")
		}
		after := c.state.cvm.left
		c.PowerOn()
		want(t, iso7816.Plain(c), iso7816.Select(instanceB), iso7816.OK)
		if value == "1234" {
			c.SetCut(Cut{Command: 1, Where: BeforeWrite, Write: 2})
			if _, err := c.Transmit(t.Context(), mustHex("80000000")); err == nil {
				t.Fatal("no cut")
			}
			if c.state.cvm.left != after-1 {
				t.Errorf("%d tries are left of %d though the power went before the answer was known", c.state.cvm.left, after)
			}
			c.PowerOn()
		} else if after != before-1 {
			t.Errorf("%d tries are left of %d after a wrong value", after, before)
		}
	}
}

func TestPrivilegedApplications(t *testing.T) {
	c, h := withHooked(t, map[iso7816.AID]string{instanceA: "1C0C00", instanceB: "000000"})
	for name, f := range map[string]func(oncard.Card) error{
		"LockCard":           oncard.Card.LockCard,
		"TerminateCard":      oncard.Card.TerminateCard,
		"SetHistoricalBytes": func(card oncard.Card) error { return card.SetHistoricalBytes([]byte{0x80}) },
		"lock of another":    func(card oncard.Card) error { return card.SetLocked(instanceA, true) },
		"unlock of itself":   func(card oncard.Card) error { return card.SetLocked(instanceB, false) },
		"GlobalService":      func(card oncard.Card) error { return card.RegisterService(0xA001) },
	} {
		before := encodeImage(c.state)
		if sw := h.run(t, c, instanceB, f); sw != conditions || !bytes.Equal(before, encodeImage(c.state)) {
			t.Errorf("%s without a privilege: %v", name, sw)
		}
	}
	entries := func(aid iso7816.AID) (own, other bool) {
		h.run(t, c, aid, func(card oncard.Card) error {
			e, ok := card.Entry(iso7816.AID{})
			own = ok && e.AID == aid && e.SecurityDomain == IssuerSecurityDomain && e.LifeCycle == oncard.Selectable && e.Privileges == c.state.entry(aid).privileges
			_, other = card.Entry(IssuerSecurityDomain)
			return nil
		})
		return own, other
	}
	if own, other := entries(instanceA); !own || !other {
		t.Errorf("with Global Registry: %v %v", own, other)
	}
	if own, other := entries(instanceB); !own || other {
		t.Errorf("without Global Registry: %v %v", own, other)
	}
	// Global Lock, and the lock of itself that everybody may.
	if sw := h.run(t, c, instanceA, func(card oncard.Card) error { return card.SetLocked(instanceB, true) }); sw != iso7816.OK || !c.state.entry(instanceB).locked {
		t.Errorf("lock: %v", sw)
	}
	if sw := h.run(t, c, instanceA, func(card oncard.Card) error { return card.SetLocked(instanceB, false) }); sw != iso7816.OK {
		t.Errorf("unlock: %v", sw)
	}
	if sw := h.run(t, c, instanceB, func(card oncard.Card) error { return card.SetLocked(instanceB, true) }); sw != iso7816.OK || !c.state.entry(instanceB).locked {
		t.Errorf("lock of itself: %v", sw)
	}
	// Card Reset: the next ATR has other historical bytes.
	atr := c.ATR()
	if sw := h.run(t, c, instanceA, func(card oncard.Card) error { return card.SetHistoricalBytes(mustHex("8073C0210940")) }); sw != iso7816.OK {
		t.Fatal(sw)
	}
	if sw := h.run(t, c, instanceA, func(card oncard.Card) error { return card.SetHistoricalBytes(make([]byte, 16)) }); sw != conditions {
		t.Errorf("16 historical bytes: %v", sw)
	}
	if !bytes.Equal(c.ATR(), atr) {
		t.Error("the ATR changed before the reset")
	}
	if err := c.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	// T0 D6: TA1, TC1, TD1 and 6 historical bytes; TCK makes the sum zero.
	if got := c.ATR(); !bytes.HasPrefix(got, mustHex("3BD613FF8131FB468073C0210940")) || len(got) != 15 || xor(got[1:]) != 0 {
		t.Errorf("ATR %X", got)
	}
	if again, err := decodeImage(encodeImage(c.state)); err != nil || !bytes.Equal(again.historical, c.state.historical) {
		t.Errorf("image: %v", err)
	}
	if sw := h.run(t, c, instanceA, oncard.Card.LockCard); sw != iso7816.OK || c.state.issuer().lifeCycle != cardLocked {
		t.Errorf("lock of the card: %v", sw)
	}
	if sw := transmit(t, c, "80000000").SW; sw != conditions { // it is locked
		t.Errorf("second lock of the card: %v", sw)
	}
	h.do[instanceA] = oncard.Card.TerminateCard
	if sw := transmit(t, c, "80000000").SW; sw != iso7816.OK || c.state.issuer().lifeCycle != cardTerminated {
		t.Errorf("termination: %v", sw)
	}
}

func xor(b []byte) (x byte) {
	for _, v := range b {
		x ^= v
	}
	return x
}

func TestHistoricalBytes(t *testing.T) {
	for _, test := range []struct{ atr, historical, want string }{
		{"3B8880010000" + "05E0B381A1" + "007F", "01", "3B8180010101"}, // T=1 with TCK
		{"3B60AA55", "8001", "3B62AA558001"},                           // T=0, without
		{"3B00", "", "3B00"},                                           //
		{"3B021122", "", "3B00"},                                       //
		{"3B80", "01", ""},                                             // TD1 is missing
		{"3B0211", "01", ""},                                           // a historical byte is
		{"3B8001", "01", ""},                                           // TCK is
		{"3B00", "000102030405060708090A0B0C0D0E0F", ""},               // too many
	} {
		got, ok := withHistoricalBytes(mustHex(test.atr), mustHex(test.historical))
		if ok != (test.want != "") || ok && !bytes.Equal(got, mustHex(test.want)) {
			t.Errorf("%s with %s: %X, %v, want %s", test.atr, test.historical, got, ok, test.want)
		}
	}
}
