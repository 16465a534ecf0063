package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"pgregory.net/rapid"
)

// remember strips from a state what may differ after a torn command: nothing
// but what was written outside of transactions and what was written not
// atomically. It returns the image without the test application's counter and
// store, and both apart.
func remember(c *Card) (image, counter, store []byte) {
	s, err := decodeImage(encodeImage(c.state))
	if err != nil {
		panic(err)
	}
	for _, e := range s.entries {
		if !e.own && len(e.objects) >= 3 {
			store = append(store, e.objects[0].data...)
			counter = append(counter, e.objects[1].data...)
			clear(e.objects[0].data)
			clear(e.objects[1].data)
		}
	}
	return encodeImage(s), counter, store
}

// flow is a whole life of an application on a card: a list of commands that
// each stand alone, so that one can be torn and sent again.
type flow []flowStep

type flowStep struct {
	name    string
	channel bool // through a secure channel to the Issuer Security Domain
	cmds    []iso7816.Command
	// Instead of cmds: to the Security Domain X, with these keys, commands that
	// the session is needed for.
	with keys.Set
	make func(s *scp.Session) []iso7816.Command
}

// sender opens what the step goes through, and returns its commands.
func (f flowStep) sender(t testing.TB, c iso7816.Card) (iso7816.Sender, []iso7816.Command, error) {
	if f.make != nil {
		sd := domainX
		if f.with.Version == testConfig(t).Keys.Version && f.channel {
			sd = IssuerSecurityDomain
		}
		s, err := tryOpenDomain(c, sd, f.with, scp.CDecryption)
		if err != nil {
			return nil, nil, err
		}
		return s, f.make(s), nil
	}
	if f.channel {
		s, err := tryAuthenticate(t, c, scp.CDecryption)
		return s, f.cmds, err
	}
	return iso7816.Plain(c), f.cmds, nil
}

func lifeFlow(t testing.TB) flow {
	issuer := testConfig(t).Keys
	block := testLoadFile(testPackage, testModuleID, otherModule)
	sum := sha256.Sum256(block)
	load := append([]iso7816.Command{cmdInstallForLoad(testPackage, sum[:])}, cmdLoads(block, 60)...)
	app := func(ins, p1 byte, data string) []iso7816.Command {
		return []iso7816.Command{iso7816.Select(instanceA), {CLA: 0x80, INS: ins, P1: p1, Data: mustHex(data)}}
	}
	return flow{
		{name: "load", channel: true, cmds: load},
		{name: "install", channel: true, cmds: []iso7816.Command{cmdInstall(instanceA, specific(16, 2, 2, 0))}},
		{name: "install another", channel: true, cmds: []iso7816.Command{cmdInstall(instanceB, specific(16, 2, 2, 0))}},
		{name: "personalise", channel: true, cmds: []iso7816.Command{
			cmdPersonalize(instanceA),
			{CLA: 0x80, INS: insStoreData, P1: 0x08, P2: 0, Data: []byte{1, 2}},
			{CLA: 0x80, INS: insStoreData, P1: 0x88, P2: 1, Data: []byte{3, 4}},
		}},
		{name: "write", channel: false, cmds: app(tWrite, 4, "0102030405060708")},
		{name: "transaction", channel: false, cmds: app(tCommit, 8, "1112131415161718")},
		{name: "transaction left open", channel: false, cmds: app(tLeaveOpen, 8, "2122232425262728")},
		{name: "not atomically", channel: false, cmds: app(tNonAtomic, 0, "3132333435363738")},
		{name: "panic", channel: false, cmds: app(tPanic, 0, "41424344")},
		{name: "state", channel: false, cmds: app(tState, 0x0F, "")},
		{name: "allocate", channel: false, cmds: app(tAlloc, 0, "")},
		{name: "lock", channel: true, cmds: []iso7816.Command{cmdSetStatus(instanceA, 0x80)}},
		{name: "unlock", channel: true, cmds: []iso7816.Command{cmdSetStatus(instanceA, 0x00)}},
		{name: "delete", channel: true, cmds: []iso7816.Command{cmdDelete(instanceA, false)}},
		{name: "delete all", channel: true, cmds: []iso7816.Command{cmdDelete(testPackage, true)}},

		{name: "install a domain", channel: true, cmds: []iso7816.Command{cmdInstallDomain(domainX, "808000", "")}},
		{name: "its keys", with: issuer, make: func(s *scp.Session) []iso7816.Command { return []iso7816.Command{cmdPutKeys(t, s, 0, keysY)} }},
		{name: "other keys", with: keysY, make: func(s *scp.Session) []iso7816.Command {
			return []iso7816.Command{cmdPutKeys(t, s, keysY.Version, keysX)}
		}},
		{name: "its data", with: keysX, make: func(*scp.Session) []iso7816.Command {
			return []iso7816.Command{
				{CLA: 0x80, INS: insStoreData, P1: 0x10, P2: 0, Data: mustHex("420201024503")},
				{CLA: 0x80, INS: insStoreData, P1: 0x90, P2: 1, Data: mustHex("010203")},
			}
		}},
		{name: "a token key", channel: true, with: issuer, make: func(s *scp.Session) []iso7816.Command {
			return []iso7816.Command{cmdPutKey(0, versionToken, 1, sealed(t, s, receiptKey.Bytes()))}
		}},
		{name: "a receipt key", channel: true, with: issuer, make: func(s *scp.Session) []iso7816.Command {
			return []iso7816.Command{cmdPutKey(0, versionReceipt, 1, sealed(t, s, receiptKey.Bytes()))}
		}},
		{name: "load again", channel: true, cmds: load},
		{name: "extradite the load file", channel: true, cmds: []iso7816.Command{cmdExtradite(testPackage, domainX)}},
		{name: "Delegated Management", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insInstall, P1: forRegistryUpdate, Ne: 256,
			Data: lv(nil, nil, domainX.Bytes(), mustHex("A08000"), mustHex("EF03D90140"), nil)}}},
		{name: "install with a token", with: keysX, make: func(*scp.Session) []iso7816.Command {
			return []iso7816.Command{tokened(t, globalplatform.InstallForInstall{
				LoadFile: testPackage, Module: testModuleID, Instance: instanceA, MakeSelectable: true, Privileges: globalplatform.CardReset | globalplatform.FinalApplication,
				Parameters: globalplatform.InstallParameters{Specific: specific(16, 2, 2, 0), TokenReference: globalplatform.TokenReference{Number: []byte{1}}},
			})}
		}},
		{name: "lock the hierarchy", with: keysX, make: func(*scp.Session) []iso7816.Command {
			return []iso7816.Command{cmdSetStatus(domainX, 0x80)}
		}},
		{name: "unlock the hierarchy", channel: true, cmds: []iso7816.Command{cmdSetStatus(domainX, 0x00)}},
		{name: "delete with a token", with: keysX, make: func(*scp.Session) []iso7816.Command {
			return []iso7816.Command{tokened(t, globalplatform.Delete{AID: testPackage, Related: true, TokenReference: globalplatform.TokenReference{Number: []byte{2}}})}
		}},
		{name: "install it all", channel: true, cmds: combined()},
		{name: "extradite", channel: true, cmds: []iso7816.Command{cmdExtradite(instanceA, domainX)}},
		{name: "lock all", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insSetStatus, P1: statusHierarchy, P2: 0x80, Data: domainX.Bytes()}}},
		{name: "unlock all", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insSetStatus, P1: statusHierarchy, P2: 0x00, Data: domainX.Bytes()}}},
		{name: "delete a key", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insDelete, Data: mustHex("D20170"), Ne: 256}}},
		{name: "restrict the card", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insInstall, P1: forRegistryUpdate, Ne: 256,
			Data: lv(nil, nil, nil, nil, mustHex("EF03D90140"), nil)}}},
		{name: "lock the card", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardLocked}}},
		{name: "unlock the card", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardSecured}}},
		{name: "another name", channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insStoreData, P1: 0x90, Data: mustHex("4F07A0000001515001" + "42021234")}}},
	}
}

// tokened is a command with the token that the flow's token key makes.
func tokened(t testing.TB, c globalplatform.Tokenized) iso7816.Command {
	t.Helper()
	cmd, err := withToken(t, globalplatform.AESScheme{Key: receiptKey}, c).Command()
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// combined is the combined load, install and make selectable.
func combined() []iso7816.Command {
	block := testLoadFile(testPackage, testModuleID, otherModule)
	begin, end := cmdInstallForLoad(testPackage, nil), cmdInstall(instanceA, specific(16, 2, 2, 0))
	begin.P1, begin.P2, end.P1, end.P2 = forAll, combinedBegin, forAll, combinedEnd
	return append(append([]iso7816.Command{begin}, cmdLoads(block, 60)...), end)
}

// run carries out one step; the error is the cut's.
func (f flowStep) run(t testing.TB, c *Card) error {
	ctx := context.Background()
	sender, cmds, err := f.sender(t, c)
	if err != nil {
		return err
	}
	for _, cmd := range cmds {
		r, err := sender.Send(ctx, cmd)
		if err != nil {
			return err
		}
		if r.SW != iso7816.OK && f.name != "panic" {
			return fmt.Errorf("%s: %s answers %v", f.name, iso7816.InstructionName(cmd.CLA, cmd.INS), r.SW)
		}
	}
	return nil
}

// TestEveryCut cuts the power at every point of every command of an
// application's life. After each cut the card holds what it held before the
// command or what it holds after it, and running the step again succeeds.
func TestEveryCut(t *testing.T) {
	cuts := 0
	for i, step := range lifeFlow(t) {
		t.Run(step.name, func(t *testing.T) {
			// prepared is a card on which every step before has run.
			prepared := func() *Card {
				c := newTestCard(t)
				for _, s := range lifeFlow(t)[:i] {
					if err := s.run(t, c); err != nil {
						t.Fatal(err)
					}
				}
				return c
			}
			c := prepared()
			c.CountWrites()
			// States that the card goes through, command by command.
			var images [][]byte
			recorder := recording{c, func() {
				image, _, _ := remember(c)
				images = append(images, image)
			}}
			if err := step.runOver(t, recorder); err != nil {
				t.Fatal(err)
			}
			writes := c.Writes()
			before, _, _ := remember(prepared())
			images = append([][]byte{before}, images...)
			for n, count := range writes {
				points := []Cut{{Command: n + 1, Where: BeforeCommand}, {Command: n + 1, Where: AfterCommand}}
				for k := range count {
					points = append(points, Cut{Command: n + 1, Where: BeforeWrite, Write: k + 1})
				}
				for _, cut := range points {
					cuts++
					c := prepared()
					c.SetCut(cut)
					if err := step.run(t, c); !errors.Is(err, iso7816.ErrCardRemoved) {
						t.Fatalf("cut %v: %v", cut, err)
					}
					if _, err := c.Transmit(context.Background(), mustHex("00A40400")); !errors.Is(err, iso7816.ErrCardRemoved) {
						t.Fatalf("cut %v: the card answers without power: %v", cut, err)
					}
					image, _, _ := remember(c)
					old, new := bytes.Equal(image, images[n]), bytes.Equal(image, images[n+1])
					switch {
					case !old && !new:
						t.Errorf("cut %v: the card holds neither the state before nor after", cut)
					case cut.Where == BeforeCommand && !old, cut.Where == AfterCommand && !new:
						t.Errorf("cut %v: the wrong one of both states", cut)
					}
					c.PowerOn()
					if c.session.channels[0].loading != nil || c.tx.open() {
						t.Errorf("cut %v: something is left open", cut)
					}
					// Whoever comes back looks what is there and goes on.
					if done := bytes.Equal(image, images[len(images)-1]) && !bytes.Equal(image, before); !done {
						if err := step.run(t, c); err != nil {
							t.Errorf("cut %v: again: %v", cut, err)
						}
					}
					if image, _, _ := remember(c); !bytes.Equal(image, images[len(images)-1]) {
						t.Errorf("cut %v: the step does not end where it does uncut", cut)
					}
				}
			}
		})
	}
	if cuts < 300 {
		t.Errorf("%d cuts only", cuts)
	}
}

// recording calls a function after each command.
type recording struct {
	*Card
	after func()
}

func (r recording) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := r.Card.Transmit(ctx, command)
	r.after()
	return response, err
}

func (f flowStep) runOver(t testing.TB, c recording) error {
	ctx := context.Background()
	sender, cmds, err := f.sender(t, c)
	if err != nil {
		return err
	}
	for _, cmd := range cmds {
		if _, err := sender.Send(ctx, cmd); err != nil {
			return err
		}
	}
	return nil
}

// What exactly a torn write leaves, by kind of write.
func TestTornWrites(t *testing.T) {
	for _, test := range []struct {
		name    string
		command string
		write   int
		store   string // the first 8 bytes after the cut
		counter byte
	}{
		{"atomic", "80100000 08 0102030405060708", 1, "A5A5A5A5A5A5A5A5", 0},
		{"not atomic, before the first half", "80180000 08 0102030405060708", 1, "A5A5A5A5A5A5A5A5", 0},
		{"not atomic, in the middle", "80180000 08 0102030405060708", 2, "01020304A5A5A5A5", 0},
		{"transaction, first write", "80140400 08 0102030405060708", 1, "A5A5A5A5A5A5A5A5", 0},
		{"transaction, second write", "80140400 08 0102030405060708", 2, "A5A5A5A5A5A5A5A5", 0},
		{"transaction, commit", "80140400 08 0102030405060708", 3, "A5A5A5A5A5A5A5A5", 0},
		{"outside of an open transaction, before", "80160400 08 0102030405060708", 3, "A5A5A5A5A5A5A5A5", 0},
		{"over bytes of the transaction, before", "802C0000", 2, "A5A5A5A5A5A5A5A5", 0},
		{"application that recovers from it", "80280000", 1, "A5A5A5A5A5A5A5A5", 0},
	} {
		c := withInstance(t)
		transmit(t, c, "00A40400 08 F0746573740002A1 00")
		c.SetCut(Cut{Command: 1, Where: BeforeWrite, Write: test.write})
		if _, err := c.Transmit(context.Background(), mustHex(removeSpaces(test.command))); !errors.Is(err, iso7816.ErrCardRemoved) {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		c.PowerOn()
		transmit(t, c, "00A40400 08 F0746573740002A1 00")
		if got := transmit(t, c, "80120000 08"); !bytes.Equal(got.Data, mustHex(test.store)) {
			t.Errorf("%s: store %X, want %s", test.name, got.Data, test.store)
		}
		if got := transmit(t, c, "802A0000 01"); got.Data[0] != test.counter {
			t.Errorf("%s: counter %d, want %d", test.name, got.Data[0], test.counter)
		}
	}
	// Power lost after a write outside of a transaction keeps it, and takes the
	// transaction back.
	c := withInstance(t)
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	c.SetCut(Cut{Command: 1, Where: AfterCommand})
	_, _ = c.Transmit(context.Background(), mustHex("80160400080102030405060708"))
	c.PowerOn()
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	if counter, store := transmit(t, c, "802A0000 01"), transmit(t, c, "80120000 08"); counter.Data[0] != 1 || store.Data[0] != 0xA5 {
		t.Errorf("counter %X, store %X", counter.Data, store.Data)
	}
}

func removeSpaces(s string) string { return string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)) }

func TestCutText(t *testing.T) {
	for _, s := range []string{"before:1", "after:12", "write:3:4"} {
		c, err := ParseCut(s)
		if err != nil || c.String() != s {
			t.Errorf("%s: %v %v", s, c, err)
		}
	}
	for _, s := range []string{"", "before", "before:0", "before:x", "before:1:1", "write:1", "write:1:0", "during:1"} {
		if c, err := ParseCut(s); err == nil {
			t.Errorf("%q: %v", s, c)
		}
	}
	if s := (Cut{}).String(); s != "none" {
		t.Error(s)
	}
}

// model is what a card should hold: for each instance its store and counter,
// and one Security Domain that instances can belong to.
type model struct {
	loaded bool
	apps   map[iso7816.AID]modelApp
	domain modelDomain
}

type modelApp struct {
	store, counter string
	locked, away   bool // away: it belongs to the Security Domain X
}

type modelDomain struct {
	there, locked bool
	version       byte // of its keys; 0 while it has none
	data          string
}

func (m model) clone() model {
	out := model{m.loaded, map[iso7816.AID]modelApp{}, m.domain}
	for k, v := range m.apps {
		out.apps[k] = v
	}
	return out
}

func (m model) equal(o model) bool {
	if m.loaded != o.loaded || m.domain != o.domain || len(m.apps) != len(o.apps) {
		return false
	}
	for k, v := range m.apps {
		if w, ok := o.apps[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// look reads the card's state into a model.
func look(c *Card) model {
	m := model{loaded: c.state.file(testPackage) != nil, apps: map[iso7816.AID]modelApp{}}
	for _, e := range c.state.entries {
		switch {
		case e.own:
		case e.domain == nil:
			m.apps[e.aid] = modelApp{string(e.objects[0].data), string(e.objects[1].data), e.locked, e.securityDomain == domainX}
		default:
			set, _ := e.domain.set(0)
			data, _ := e.domain.object(tagProprietary)
			m.domain = modelDomain{true, e.locked, set.Version, string(data)}
		}
	}
	return m
}

// TestCutsAgainstModel runs random commands with random cuts against a model
// that knows nothing of undo logs: after each one the card holds what the
// model says before the command or after it. Only what is written outside of
// transactions, and not atomically, may be in between.
func TestCutsAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newTestCard(t)
		now := look(c)
		for range rapid.IntRange(1, 25).Draw(rt, "length") {
			aid := rapid.SampledFrom([]iso7816.AID{instanceA, instanceB}).Draw(rt, "instance")
			data := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(rt, "data")
			app, installed := now.apps[aid]
			next := now.clone()
			between := func(model) bool { return false } // whether a state in the middle is allowed
			set := func(f func(*modelApp)) {
				if installed && !app.locked {
					f(&app)
					next.apps[aid] = app
				}
			}
			var step flowStep
			onApp := func(ins, p1 byte) {
				step.cmds = []iso7816.Command{iso7816.Select(aid), {CLA: 0x80, INS: ins, P1: p1, Data: data}}
			}
			switch op := rapid.SampledFrom([]string{"load", "install", "delete", "delete all", "lock", "unlock", "personalise", "write", "commit", "open", "not atomic", "panic",
				"domain", "domain", "keys", "keys", "data", "extradite", "lock all", "unlock all", "delete domain"}).Draw(rt, "command"); op {
			case "load":
				step = lifeFlow(t)[0]
				next.loaded = true
			case "install":
				step = flowStep{channel: true, cmds: []iso7816.Command{cmdInstall(aid, specific(16, 0, 0, 0))}}
				if now.loaded && !installed {
					next.apps[aid] = modelApp{store: string(bytes.Repeat([]byte{0xA5}, 16)), counter: "\x00"}
				}
			case "delete":
				step = flowStep{channel: true, cmds: []iso7816.Command{cmdDelete(aid, false)}}
				delete(next.apps, aid)
			case "delete all":
				step = flowStep{channel: true, cmds: []iso7816.Command{cmdDelete(testPackage, true)}}
				next.loaded, next.apps = false, map[iso7816.AID]modelApp{}
			case "lock", "unlock":
				state := byte(0x80)
				if op == "unlock" {
					state = 0
				}
				step = flowStep{channel: true, cmds: []iso7816.Command{cmdSetStatus(aid, state)}}
				if installed {
					app.locked = op == "lock"
					next.apps[aid] = app
				}
			case "personalise":
				step = flowStep{channel: true, cmds: []iso7816.Command{
					cmdPersonalize(aid), {CLA: 0x80, INS: insStoreData, P1: 0x88, Data: data},
				}}
				if !app.away { // else X would have to
					set(func(a *modelApp) { a.store = string(data) + a.store[8:] })
				}
			case "domain":
				step = flowStep{channel: true, cmds: []iso7816.Command{cmdInstallDomain(domainX, "80C000", "")}}
				next.domain.there = true
			case "keys":
				with, to := testConfig(t).Keys, keysX
				switch now.domain.version {
				case keysX.Version:
					with, to = keysX, keysY
				case keysY.Version:
					with = keysY
				}
				step = flowStep{with: with, make: func(s *scp.Session) []iso7816.Command {
					return []iso7816.Command{cmdPutKeys(t, s, now.domain.version, to)}
				}}
				if now.domain.there && !now.domain.locked {
					next.domain.version = to.Version
				}
			case "data":
				with := map[byte]keys.Set{0: testConfig(t).Keys, keysX.Version: keysX, keysY.Version: keysY}[now.domain.version]
				step = flowStep{with: with, make: func(*scp.Session) []iso7816.Command {
					object := iso7816.AppendTLV(nil, tagProprietary, data)
					return []iso7816.Command{
						{CLA: 0x80, INS: insStoreData, P1: 0x10, P2: 0, Data: object[:4]},
						{CLA: 0x80, INS: insStoreData, P1: 0x90, P2: 1, Data: object[4:]},
					}
				}}
				if now.domain.there && !now.domain.locked {
					next.domain.data = string(data)
				}
			case "extradite":
				to := domainX
				if app.away {
					to = IssuerSecurityDomain
				}
				step = flowStep{channel: true, cmds: []iso7816.Command{cmdExtradite(aid, to)}}
				if installed && !now.domain.locked && now.domain.version != 0 {
					app.away = !app.away
					next.apps[aid] = app
				}
			case "lock all", "unlock all":
				state := byte(0x80)
				if op == "unlock all" {
					state = 0
				}
				step = flowStep{channel: true, cmds: []iso7816.Command{{CLA: 0x80, INS: insSetStatus, P1: statusHierarchy, P2: state, Data: domainX.Bytes()}}}
				if now.domain.there {
					next.domain.locked = state != 0
					for k, v := range next.apps {
						if v.away {
							v.locked = state != 0
							next.apps[k] = v
						}
					}
				}
			case "delete domain":
				step = flowStep{channel: true, cmds: []iso7816.Command{cmdDelete(domainX, false)}}
				held := false
				for _, v := range now.apps {
					held = held || v.away
				}
				if !held {
					next.domain = modelDomain{}
				}
			case "write":
				onApp(tWrite, 8)
				set(func(a *modelApp) { a.store = a.store[:8] + string(data) })
			case "commit":
				onApp(tCommit, 8)
				set(func(a *modelApp) { a.store = string(data[:4]) + a.store[4:8] + string(data[4:]) + a.store[12:] })
			case "open":
				onApp(tLeaveOpen, 8)
				set(func(a *modelApp) { a.counter = string(data[:1]) })
			case "not atomic":
				onApp(tNonAtomic, 0)
				if installed && !app.locked {
					torn := app
					torn.store = string(data[:4]) + app.store[4:]
					middle := now.clone()
					middle.apps[aid] = torn
					between = middle.equal
				}
				set(func(a *modelApp) { a.store = string(data) + a.store[8:] })
			case "panic":
				onApp(tPanic, 0)
			}
			cut := Cut{
				Command: rapid.IntRange(1, 8).Draw(rt, "cut command"),
				Where:   rapid.SampledFrom([]Where{BeforeCommand, AfterCommand, BeforeWrite}).Draw(rt, "cut where"),
				Write:   rapid.IntRange(1, 7).Draw(rt, "cut write"),
			}
			if rapid.Bool().Draw(rt, "cut") {
				c.SetCut(cut)
			}
			torn := false
			if err := step.sendAll(t, c); errors.Is(err, iso7816.ErrCardRemoved) {
				torn = true
			} else if err != nil && !errors.Is(err, iso7816.ErrNotFound) { // X is not there
				rt.Fatal(err)
			}
			c.SetCut(Cut{})
			c.PowerOn()
			got := look(c)
			switch {
			case !torn && !got.equal(next):
				rt.Fatalf("uncut %v: the card holds %v, want %v", step, got, next)
			case !got.equal(now) && !got.equal(next) && !between(got):
				rt.Fatalf("cut %v of %v: the card holds %v, before %v, after %v", cut, step, got, now, next)
			}
			if s, err := decodeImage(encodeImage(c.state)); err != nil || !bytes.Equal(encodeImage(s), encodeImage(c.state)) {
				rt.Fatalf("image: %v", err)
			}
			if m := c.Memory(); m.PersistentUsed < 0 || m.PersistentUsed > m.Persistent {
				rt.Fatalf("memory %+v", m)
			}
			now = got
		}
	})
}

// sendAll sends everything, whatever the card answers; the error is the cut's.
func (f flowStep) sendAll(t testing.TB, c *Card) error {
	ctx := context.Background()
	sender, cmds, err := f.sender(t, c)
	if err != nil {
		return err
	}
	for _, cmd := range cmds {
		r, err := sender.Send(ctx, cmd)
		if err != nil {
			return err
		}
		if r.SW != iso7816.OK {
			return nil // refused: what follows would go elsewhere
		}
	}
	return nil
}
