package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// The test application keeps two objects: a store of the size that its install
// parameters say, and a counter of one byte that is written outside of
// transactions. Its commands (class 80) each try one thing that a card offers.
const (
	tWrite      = 0x10 // data to the store at P1: one atomic write
	tRead       = 0x12 // Ne bytes of the store from P1
	tCommit     = 0x14 // a transaction: first half of the data at 0, the rest at P1
	tLeaveOpen  = 0x16 // the same, and the counter outside of it; not committed
	tNonAtomic  = 0x18 // data to the store at P1, not atomically
	tPanic      = 0x1A // a write in a transaction, then a panic
	tCapacity   = 0x1C // writes in a transaction until one fails; answers how many bytes fitted
	tAlloc      = 0x1E // allocates P1*256+P2 bytes
	tTransient  = 0x20 // answers both transient memories, and writes the data to both
	tState      = 0x22 // SetLifeCycle(P1)
	tLong       = 0x24 // answers P1*256+P2 bytes
	tFree       = 0x26 // frees object P1
	tSwallow    = 0x28 // two writes; recovers from whatever the card throws in between
	tCounter    = 0x2A // answers the counter
	tAbort      = 0x2E // a write aborted, then another committed
	tUndoneWord = 0x2C // two writes over each other, then WriteOutside of part of the same bytes, all in a transaction left open
)

type testModule struct{}

// installed parameters: size of the store (2), bytes of transient memory reset
// (2) and deselect (2), then flags.
const (
	flagFail  = 1 // Install fails after it has allocated
	flagPanic = 2
	flagStay  = 4 // refuses to be deleted
	flagMute  = 8 // refuses selection
)

func (testModule) Install(card oncard.Card, p oncard.InstallParameters) error {
	if len(p.Specific) != 7 {
		return iso7816.ErrWrongData
	}
	store, err := card.Alloc(int(binary.BigEndian.Uint16(p.Specific)))
	if err != nil {
		return err
	}
	if _, err := card.Alloc(1); err != nil {
		return err
	}
	parameters, err := card.Alloc(7)
	if err != nil {
		return err
	}
	if err := errors.Join(card.Begin(), card.Write(parameters, 0, make([]byte, 7)), card.Write(store, 0, nil), card.WriteOutside(1, 0, []byte{0})); err != nil {
		return err
	}
	if _, err := card.Alloc(1); err != nil {
		return err
	}
	card.Abort() // and with it the object that was allocated last
	if err := card.Begin(); err != nil {
		return err
	}
	if err := card.Write(parameters, 0, p.Specific); err != nil {
		return err
	}
	if err := card.Commit(); err != nil {
		return err
	}
	if n := card.Size(store); n > 0 {
		if err := card.WriteNonAtomic(store, 0, bytes.Repeat([]byte{0xA5}, n)); err != nil {
			return err
		}
	}
	switch {
	case p.Specific[6]&flagFail != 0:
		return iso7816.ErrFuncNotSupported
	case p.Specific[6]&flagPanic != 0:
		panic("test application")
	case card.LifeCycle() != oncard.Installed:
		return fmt.Errorf("life cycle state %02X during Install", card.LifeCycle())
	}
	return nil
}

func (testModule) Open(card oncard.Card) (oncard.Application, error) {
	a := &testApp{card: card}
	p := make([]byte, 7)
	card.Read(2, 0, p)
	var err error
	if a.reset, err = card.Transient(int(binary.BigEndian.Uint16(p[2:])), oncard.OnReset); err != nil {
		return nil, err
	}
	if a.deselect, err = card.Transient(int(binary.BigEndian.Uint16(p[4:])), oncard.OnDeselect); err != nil {
		return nil, err
	}
	a.flags = p[6]
	return a, nil
}

type testApp struct {
	card            oncard.Card
	reset, deselect []byte
	flags           byte
	deselected      int
}

func (a *testApp) Select(iso7816.Command) iso7816.Response {
	if a.flags&flagMute != 0 {
		return iso7816.Response{SW: iso7816.ErrConditions}
	}
	return iso7816.Response{Data: iso7816.AppendTLV(nil, 0x6F, iso7816.AppendTLV(nil, 0x84, a.card.AID().Bytes())), SW: iso7816.OK}
}

// Deselect leaves a transaction open and panics: neither may matter.
func (a *testApp) Deselect() {
	a.deselected++
	_ = a.card.Begin()
	_ = a.card.Write(1, 0, []byte{0xDD})
	panic("test application: deselected")
}

func (a *testApp) Uninstall(bool) error {
	if a.flags&flagStay != 0 {
		return errors.New("stays")
	}
	return nil
}

func (a *testApp) Personalize(cmd iso7816.Command, channel oncard.SecureChannel) iso7816.Response {
	if channel.Level()&0x83 != 0x83 {
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	}
	data := cmd.Data
	if cmd.P1&0x60 == 0x60 {
		var err error
		if data, err = channel.DecryptSensitive(data); err != nil {
			return iso7816.Response{SW: iso7816.ErrWrongData}
		}
	}
	if err := a.card.Write(0, int(cmd.P2), data); err != nil {
		return refuse(err)
	}
	r := iso7816.Response{SW: iso7816.OK}
	if cmd.P1&0x01 != 0 || cmd.P1&0x02 != 0 {
		r.Data = []byte{channel.Level()}
	}
	return r
}

func (a *testApp) Process(cmd iso7816.Command) iso7816.Response {
	data, err := a.process(cmd)
	if err != nil {
		return refuse(err)
	}
	return iso7816.Response{Data: data, SW: iso7816.OK}
}

func (a *testApp) process(cmd iso7816.Command) ([]byte, error) {
	c, at := a.card, int(cmd.P1)
	if cmd.CLA != 0x80 {
		if cmd.INS == insSelect {
			return nil, iso7816.ErrNotFound
		}
		return nil, iso7816.ErrUnknownCLA
	}
	switch cmd.INS {
	case tWrite:
		return nil, c.Write(0, at, cmd.Data)
	case tRead:
		out := make([]byte, cmd.Ne)
		c.Read(0, at, out)
		return out, nil
	case tCommit, tLeaveOpen:
		half := len(cmd.Data) / 2
		err := errors.Join(c.Begin(), c.Write(0, 0, cmd.Data[:half]), c.Write(0, at, cmd.Data[half:]))
		if err != nil {
			return nil, err
		}
		if cmd.INS == tLeaveOpen {
			return nil, c.WriteOutside(1, 0, cmd.Data[:1])
		}
		return nil, c.Commit()
	case tNonAtomic:
		return nil, c.WriteNonAtomic(0, at, cmd.Data)
	case tPanic:
		_ = c.Begin()
		_ = c.Write(0, 0, cmd.Data)
		panic("test application")
	case tCapacity:
		if c.Begin() != nil || !errors.Is(c.Begin(), oncard.ErrInTransaction) {
			return nil, iso7816.ErrUnknown
		}
		n := 0
		for ; c.Write(0, 0, []byte{1}) == nil; n++ {
		}
		c.Abort()
		if !errors.Is(c.Commit(), oncard.ErrNoTransaction) {
			return nil, iso7816.ErrUnknown
		}
		return binary.BigEndian.AppendUint16(nil, uint16(n)), nil
	case tAlloc:
		h, err := c.Alloc(int(cmd.P1)<<8 | int(cmd.P2))
		return []byte{byte(h)}, err
	case tFree:
		return nil, c.Free(oncard.Handle(at))
	case tTransient:
		out := append(bytes.Clone(a.reset), a.deselect...)
		copy(a.reset, cmd.Data)
		copy(a.deselect, cmd.Data)
		return out, nil
	case tState:
		return nil, c.SetLifeCycle(cmd.P1)
	case tLong:
		return make([]byte, int(cmd.P1)<<8|int(cmd.P2)), nil
	case tSwallow:
		func() {
			defer func() { _ = recover() }()
			_ = c.Write(0, 0, []byte{1})
		}()
		_ = c.Write(0, 1, []byte{2})
		return nil, nil
	case tCounter:
		out := make([]byte, 1)
		c.Read(1, 0, out)
		return out, nil
	case tAbort:
		err := errors.Join(c.Begin(), c.Write(0, 0, []byte{7}))
		c.Abort()
		return nil, errors.Join(err, c.Begin(), c.Write(0, 1, []byte{2}), c.Commit())
	case tUndoneWord:
		return nil, errors.Join(c.Begin(), c.Write(0, 0, []byte{1, 2, 3, 4}), c.Write(0, 2, []byte{5, 6, 7, 8}), c.WriteOutside(0, 1, []byte{9, 9}))
	}
	return nil, iso7816.ErrUnknownINS
}

var (
	testPackage  = iso7816.MustAID("F0746573740001")
	testModuleID = iso7816.MustAID("F074657374000101")
	otherModule  = iso7816.MustAID("F074657374000102") // in the load file, but nothing executes it
	instanceA    = iso7816.MustAID("F0746573740002A1")
	instanceB    = iso7816.MustAID("F0746573740002A2")
)

// testLoadFile is a load file data block that is well-formed and holds nothing.
func testLoadFile(pkg iso7816.AID, modules ...iso7816.AID) []byte {
	component := func(tag byte, body ...byte) []byte {
		return append([]byte{tag, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	lv := func(a iso7816.AID) []byte { return append([]byte{byte(a.Len())}, a.Bytes()...) }
	header := component(1, append([]byte{0xDE, 0xCA, 0xFF, 0xED, 1, 2, 4, 3, 1}, lv(pkg)...)...) // version 1.3
	body := []byte{byte(len(modules))}
	for _, m := range modules {
		body = append(append(body, lv(m)...), 0, 1)
	}
	applets := component(3, body...)
	imports := component(4, 0)
	class, method := component(6), component(7, 0)
	static, pool, ref := component(8, make([]byte, 10)...), component(5, 0, 0), component(9, 0, 0, 0, 0)
	size := func(c []byte) []byte { return c[1:3] }
	var dir []byte
	for _, c := range [][]byte{header, nil, applets, imports, pool, class, method, static, ref, nil, nil} {
		if c == nil {
			dir = append(dir, 0, 0)
		} else {
			dir = append(dir, size(c)...)
		}
	}
	dir = append(dir, 0, 0, 0, 0, 0, 0, 0, byte(len(modules)), 0)
	dir[2], dir[3] = 0, byte(len(dir))
	directory := component(2, dir...)
	return bytes.Join([][]byte{header, directory, imports, applets, class, method, static, pool, ref}, nil)
}

// testLinker knows one load file by its hash, as the real one does.
type testLinker struct{}

func (testLinker) Link(pkg iso7816.AID, _ []byte, sum [32]byte) (map[iso7816.AID]oncard.Module, error) {
	switch known := sha256.Sum256(testLoadFile(testPackage, testModuleID, otherModule)); {
	case sum == known:
		return map[iso7816.AID]oncard.Module{testModuleID: testModule{}}, nil
	case pkg == testPackage:
		return nil, errors.New("another load file under this AID")
	}
	return nil, nil
}

// stream is a deterministic random generator: the digests of a counter.
type stream struct{ n uint64 }

func (s *stream) Read(p []byte) (int, error) {
	for i := range p {
		if s.n%8 == 0 || i == 0 {
			s.n++
		}
		d := sha256.Sum256(binary.BigEndian.AppendUint64(nil, s.n))
		p[i] = d[i%32]
	}
	return len(p), nil
}

func testKey(t testing.TB, first byte) keys.Key {
	t.Helper()
	b := make([]byte, 16)
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := keys.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testConfig(t testing.TB) Config {
	t.Helper()
	p, err := LookupProfile("contact")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Profile: p,
		IIN:     []byte{0x39, 0x20, 0x00, 0x01},
		CIN:     []byte{0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08},
		Keys:    keys.Set{Version: 0x30, ENC: testKey(t, 0x40), MAC: testKey(t, 0x50), DEK: testKey(t, 0x60)},
		Linker:  testLinker{},
		Rand:    &stream{},
	}
}

func newTestCard(t testing.TB, change ...func(*Config)) *Card {
	t.Helper()
	cfg := testConfig(t)
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// transmit sends hexadecimal digits and returns the response.
func transmit(t testing.TB, c iso7816.Card, hex string) iso7816.Response {
	t.Helper()
	b, err := c.Transmit(context.Background(), mustHex(strings.ReplaceAll(hex, " ", "")))
	if err != nil {
		t.Fatalf("%s: %v", hex, err)
	}
	r, err := iso7816.ParseResponse(b)
	if err != nil {
		t.Fatalf("%s: %v", hex, err)
	}
	return r
}

// authenticate selects the Issuer Security Domain and opens a channel.
func authenticate(t testing.TB, c iso7816.Card, level scp.Level) *scp.Session {
	t.Helper()
	s, err := tryAuthenticate(t, c, level)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryAuthenticate(t testing.TB, c iso7816.Card, level scp.Level) (*scp.Session, error) {
	t.Helper()
	ctx := context.Background()
	if _, err := iso7816.Plain(c).Send(ctx, iso7816.Select(IssuerSecurityDomain)); err != nil {
		return nil, err // a locked card answers with a warning
	}
	return scp.Open(ctx, iso7816.Plain(c), testConfig(t).Keys, scp.HostOptions{Level: level, Rand: &stream{n: 99}})
}

func send(t testing.TB, s iso7816.Sender, cmd iso7816.Command) iso7816.Response {
	t.Helper()
	r, err := s.Send(context.Background(), cmd)
	if err != nil {
		t.Fatalf("%+v: %v", cmd, err)
	}
	return r
}

// want sends a command and checks its status word.
func want(t testing.TB, s iso7816.Sender, cmd iso7816.Command, sw iso7816.SW) iso7816.Response {
	t.Helper()
	r := send(t, s, cmd)
	if r.SW != sw {
		t.Fatalf("%s %02X %02X: %v, want %v", iso7816.InstructionName(cmd.CLA, cmd.INS), cmd.P1, cmd.P2, r.SW, sw)
	}
	return r
}

func lv(fields ...[]byte) []byte {
	var out []byte
	for _, f := range fields {
		out = append(append(out, byte(len(f))), f...)
	}
	return out
}

func cmdInstallForLoad(aid iso7816.AID, hash []byte) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: insInstall, P1: forLoad, Data: lv(aid.Bytes(), nil, hash, nil, nil), Ne: 256}
}

// cmdLoads cuts a load file data block into LOAD commands.
func cmdLoads(block []byte, size int) []iso7816.Command {
	file := iso7816.AppendTLV(nil, 0xC4, block)
	var out []iso7816.Command
	for n := byte(0); len(file) > 0; n++ {
		k := min(size, len(file))
		c := iso7816.Command{CLA: 0x80, INS: insLoad, P2: n, Data: file[:k], Ne: 256}
		if file = file[k:]; len(file) == 0 {
			c.P1 = 0x80
		}
		out = append(out, c)
	}
	return out
}

// specific are the test application's parameters.
func specific(store, reset, deselect int, flags byte) []byte {
	var b []byte
	for _, n := range []int{store, reset, deselect} {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return append(b, flags)
}

func cmdInstall(instance iso7816.AID, parameters []byte) iso7816.Command {
	return iso7816.Command{
		CLA: 0x80, INS: insInstall, P1: forInstallSelectable, Ne: 256,
		Data: lv(testPackage.Bytes(), testModuleID.Bytes(), instance.Bytes(), []byte{0}, iso7816.AppendTLV(nil, 0xC9, parameters), nil),
	}
}

func cmdPersonalize(instance iso7816.AID) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: insInstall, P1: forPersonalization, Data: lv(nil, nil, instance.Bytes(), nil, nil, nil), Ne: 256}
}

func cmdDelete(aid iso7816.AID, related bool) iso7816.Command {
	c := iso7816.Command{CLA: 0x80, INS: insDelete, Data: iso7816.AppendTLV(nil, 0x4F, aid.Bytes()), Ne: 256}
	if related {
		c.P2 = 0x80
	}
	return c
}

func cmdSetStatus(aid iso7816.AID, state byte) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: 0x40, P2: state, Data: aid.Bytes()}
}

func cmdGetStatus(scope byte, criteria string) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: insGetStatus, P1: scope, P2: 0x02, Data: mustHex(criteria), Ne: 256}
}

// loadTestPackage loads the test load file.
func loadTestPackage(t testing.TB, s iso7816.Sender) {
	t.Helper()
	block := testLoadFile(testPackage, testModuleID, otherModule)
	sum := sha256.Sum256(block)
	want(t, s, cmdInstallForLoad(testPackage, sum[:]), iso7816.OK)
	for _, c := range cmdLoads(block, 100) {
		want(t, s, c, iso7816.OK)
	}
}

// withInstance is a card with the load file and instance A (64 bytes of store,
// transient memory of 4 and 4).
func withInstance(t testing.TB, change ...func(*Config)) *Card {
	t.Helper()
	c := newTestCard(t, change...)
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	want(t, s, cmdInstall(instanceA, specific(64, 4, 4, 0)), iso7816.OK)
	return c
}
