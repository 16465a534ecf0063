// Package appletstest is a conformance suite for the base applications over
// any card: the emulated one, a physical one, or another implementation.
//
// It checks what docs/card-protocol.md says, the table of bad input included,
// and what goes over the air. A card is asked through [Card]; what it offers
// besides ([Locker], [WriteCounter], [Cutter]) opens further tests.
package appletstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Card is a card under test on which the load file of the profiles is.
type Card interface {
	iso7816.Card
	// Install installs an instance of the profile's module with the
	// application specific parameters (value of C9) and makes it selectable.
	// Refusals match their [iso7816.SW].
	Install(ctx context.Context, profile string, instance iso7816.AID, parameters []byte) error
	// SecurityDomain selects the Security Domain that instances belong to and
	// opens a session.
	SecurityDomain(ctx context.Context, level scp.Level) (*scp.Session, error)
	// PowerCycle takes the power away and gives it back.
	PowerCycle(ctx context.Context) error
}

// Locker is offered by a Card whose instances can be suspended.
type Locker interface {
	// SetLocked suspends an instance or resumes it (SET STATUS).
	SetLocked(ctx context.Context, instance iso7816.AID, locked bool) error
}

// WriteCounter is offered by a Card that counts its persistent writes.
type WriteCounter interface {
	// CountWrites begins to count.
	CountWrites()
	// Writes returns the number of persistent writes of each command since.
	Writes() []int
}

// Cutter is offered by a Card whose power can be cut between writes.
type Cutter interface {
	WriteCounter
	// CutBeforeWrite takes the power away before a write of the next command,
	// counted from 1; it fails with [iso7816.ErrCardRemoved]. 0 takes it back.
	// Power comes back with PowerCycle.
	CutBeforeWrite(n int)
}

// Config says what is tested.
type Config struct {
	// New returns a card for one test, with room for three instances of
	// every kind and none installed.
	New func(t testing.TB) Card
}

// Run runs the suite.
func Run(t *testing.T, cfg Config) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"InstallParameters", installParameters},
		{"BeforePersonalization", beforePersonalization},
		{"ReadBack", readBack},
		{"TapCost", tapCost},
		{"OverTheAir", overTheAir},
		{"Tampered", tampered},
		{"KeyVersions", keyVersions},
		{"Levels", levels},
		{"LongItems", longItems},
		{"EveryLength", everyLength},
		{"ReadBinary", readBinaryRules},
		{"BadInput", badInput},
		{"BrokenChannel", brokenChannel},
		{"Challenge", challenge},
		{"PIN", pinRules},
		{"MustChangePIN", mustChange},
		{"SecurityDomainChannel", securityDomainChannel},
		{"PersonalizationRefused", personalizationRefused},
		{"Update", update},
		{"Wipe", wipe},
		{"Independence", independence},
		{"SessionEnds", sessionEnds},
		{"Locked", locked},
		{"Writes", writes},
		{"PowerCuts", powerCuts},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(&suite{T: t, cfg: cfg, ctx: context.Background()})
		})
	}
}

type suite struct {
	*testing.T
	cfg Config
	ctx context.Context
}

// sub runs f as a subtest.
func (s *suite) sub(name string, f func(*suite)) {
	s.Run(name, func(t *testing.T) { f(&suite{T: t, cfg: s.cfg, ctx: s.ctx}) })
}

var (
	firstAID  = iso7816.MustAID("F0465245454152454101")
	secondAID = iso7816.MustAID("F046524545415245410102030405")
	thirdAID  = iso7816.MustAID("F0111213141516")
)

// keySet makes a read key set; the same arguments make the same one.
func keySet(version byte, size int) keys.Set {
	b := make([]byte, 2*size)
	for i := range b {
		b[i] = version ^ byte(0x40+i)
	}
	enc, err1 := keys.NewKey(b[:size])
	mac, err2 := keys.NewKey(b[size:])
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
	return keys.Set{Version: version, ENC: enc, MAC: mac}
}

// variant is an instance of some kind.
type variant struct {
	profile string
	pin     bool
	keySize int
}

func (v variant) String() string {
	return fmt.Sprintf("%s,pin=%v,aes=%d", v.profile, v.pin, v.keySize*8)
}

var variants = []variant{
	{"common-ap", false, 0}, {"type-a", false, 16}, {"type-a", true, 32}, {"type-d", false, 32}, {"type-d", true, 16},
}

func (v variant) get() applets.Profile {
	p, _ := applets.Base().Lookup(v.profile)
	return p
}

func (v variant) secured() bool { return v.get().Traits().MutualAuthentication }

const theID = "利用者-20251101-0042"

func (v variant) spec() applets.InstallSpec {
	if !v.secured() {
		return applets.InstallSpec{}
	}
	return applets.InstallSpec{DiversificationData: [10]byte{9, 8, 7, 6, 5, 4, 3, 2, 1}, KeySets: 2, ItemsCapacity: 1024, PIN: v.pin}
}

func newPIN(digits string) applets.PIN {
	p, err := applets.NewPIN(digits)
	if err != nil {
		panic(err)
	}
	return p
}

func (v variant) content() applets.Content {
	c := applets.Content{
		Record: applets.Record{Service: "library", ID: theID, IssueNumber: 3, Expiry: time.Date(2031, 3, 31, 0, 0, 0, 0, time.UTC)},
		Tag:    [16]byte{0xA, 0xB, 0xC},
	}
	if v.secured() {
		c.Items = []applets.Item{{Name: "branch", Value: "中央図書館-item"}, {Name: "class", Value: "adult"}}
		c.ReadKeys = []keys.Set{keySet(1, v.keySize)}
	}
	if v.pin {
		c.PIN = &applets.PINSetting{Reference: newPIN("48151623")}
	}
	return c
}

// subject is one instance on a card under test.
type subject struct {
	*suite
	variant
	card Card
	aid  iso7816.AID
}

// install installs an instance on a card, which is new where it is nil.
func (s *suite) install(v variant, card Card, aid iso7816.AID) *subject {
	s.Helper()
	if card == nil {
		card = s.cfg.New(s)
	}
	x := &subject{suite: s, variant: v, card: card, aid: aid}
	params, err := v.get().InstallParameters(v.spec())
	if err != nil {
		s.Fatal(err)
	}
	if err := card.Install(s.ctx, v.profile, aid, params); err != nil {
		s.Fatalf("install %v: %v", v, err)
	}
	return x
}

// issue installs and personalises.
func (s *suite) issue(v variant) *subject {
	s.Helper()
	x := s.install(v, nil, firstAID)
	x.mustPersonalize(v.content())
	return x
}

// store is a Security Domain session with INSTALL [for personalization] sent.
func (x *subject) store(level scp.Level) *scp.Session {
	x.Helper()
	sd, err := x.card.SecurityDomain(x.ctx, level)
	if err != nil {
		x.Fatal(err)
	}
	if _, err := globalplatform.Execute(x.ctx, sd, globalplatform.InstallForPersonalization{Instance: x.aid}); err != nil {
		x.Fatal(err)
	}
	return sd
}

func storeData(p1, p2 byte, data []byte) iso7816.Command {
	c := iso7816.Command{CLA: 0x80, INS: applets.InsStoreData, P1: p1, P2: p2, Data: data}
	if p1&1 != 0 {
		c.Ne = 256
	}
	return c
}

// send sends blocks, the last one marked; it stops at the first refusal.
func (x *subject) send(sd iso7816.Sender, blocks [][]byte) error {
	for i, b := range blocks {
		p1 := byte(0x08)
		if i == len(blocks)-1 {
			p1 |= 0x80
		}
		if _, err := iso7816.Do(x.ctx, sd, storeData(p1, byte(i), b)); err != nil {
			return err
		}
	}
	return nil
}

func (x *subject) personalize(c applets.Content) error {
	x.Helper()
	sd := x.store(scp.CDecryption)
	blocks, err := x.get().Personalization(c, sd.EncryptSensitive)
	if err != nil {
		x.Fatal(err)
	}
	return x.send(sd, blocks)
}

func (x *subject) mustPersonalize(c applets.Content) {
	x.Helper()
	if err := x.personalize(c); err != nil {
		x.Fatal(err)
	}
}

func (x *subject) observe() applets.Observation {
	x.Helper()
	sd := x.store(scp.Full)
	data, err := iso7816.Do(x.ctx, sd, storeData(0x89, 0, x.get().ObservationRequest()))
	if err != nil {
		x.Fatal(err)
	}
	o, err := x.get().ParseObservation(data)
	if err != nil {
		x.Fatalf("% X: %v", data, err)
	}
	return o
}

// request reads with whatever key version of 1 and 2 the card shows.
func (x *subject) request() applets.ReadRequest {
	r := applets.ReadRequest{AID: x.aid, WantItems: true}
	r.Keys = func(_ context.Context, info applets.ApplicationInfo) (keys.Set, error) {
		return keySet(info.KeyVersions[0], x.keySize), nil
	}
	if x.pin {
		r.PIN = pinIs("48151623")
	}
	return r
}

func pinIs(digits string) func(context.Context) (applets.PIN, error) {
	return func(context.Context) (applets.PIN, error) { return newPIN(digits), nil }
}

func (x *subject) read(card iso7816.Card, r applets.ReadRequest) (*applets.Reading, error) {
	return x.get().Read(x.ctx, card, r)
}

// check reads and compares with what was written.
func (x *subject) check(c applets.Content, r applets.ReadRequest) {
	x.Helper()
	got, err := x.read(x.card, r)
	if err != nil {
		x.Fatalf("read: %v", err)
	}
	if d := cmp.Diff(c.Record, got.Record); d != "" {
		x.Error(d)
	}
	if d := cmp.Diff(c.Items, got.Items); d != "" {
		x.Error(d)
	}
	want := applets.None
	switch {
	case x.profile == "type-a":
		want = applets.Mutual
	case x.profile == "type-d":
		want = applets.MutualEncrypted
	}
	if r.Level == scp.Full {
		want = applets.MutualEncrypted
	}
	if got.Authentication != want || got.PINVerified != x.pin {
		x.Errorf("authentication %v, PIN verified %v", got.Authentication, got.PINVerified)
	}
}

// transmit sends bytes in the clear.
func (x *subject) transmit(c iso7816.Command) iso7816.Response {
	x.Helper()
	r, err := iso7816.Send(x.ctx, x.card, c)
	if err != nil {
		x.Fatal(err)
	}
	return r
}

// want sends a command through a sender and compares the status word.
func (x *subject) want(what string, to iso7816.Sender, c iso7816.Command, sw iso7816.SW) []byte {
	x.Helper()
	r, err := to.Send(x.ctx, c)
	if err != nil {
		x.Errorf("%s: %v", what, err)
		return nil
	}
	if r.SW != sw {
		x.Errorf("%s: %v, want %v", what, r.SW, sw)
	}
	if r.SW != iso7816.OK && len(r.Data) > 0 {
		x.Errorf("%s: % X comes with %v", what, r.Data, r.SW)
	}
	return r.Data
}

func (x *subject) plain() iso7816.Sender { return iso7816.Plain(x.card) }

func (x *subject) selectInfo() applets.ApplicationInfo {
	x.Helper()
	info, err := applets.SelectInfo(x.ctx, x.card, x.aid)
	if err != nil {
		x.Fatal(err)
	}
	return info
}

// express builds EXPRESS for what SELECT said last.
func (x *subject) express(info applets.ApplicationInfo, set keys.Set, level scp.Level) (iso7816.Command, scp.SessionKeys, [16]byte) {
	x.Helper()
	host := [16]byte{1, 2, 3, 4, 5, 6, 7, 8}
	k, err := applets.ExpressKeys(set, host, info.Challenge)
	if err != nil {
		x.Fatal(err)
	}
	mac, err := applets.ExpressMAC(k.MAC, info.AID, set.Version, level, host)
	if err != nil {
		x.Fatal(err)
	}
	return iso7816.Command{
		CLA: 0x84, INS: applets.InsExpress, P1: set.Version, P2: byte(level), Data: slices.Concat(host[:], mac[:8]), Ne: 256,
	}, k, mac
}

// open selects, authenticates by EXPRESS and returns the session and the
// answer as it came.
func (x *subject) open(level scp.Level) (*scp.Session, []byte) {
	x.Helper()
	c, k, mac := x.express(x.selectInfo(), keySet(1, x.keySize), level)
	data := x.want("EXPRESS", x.plain(), c, iso7816.OK)
	return scp.ResumeHost(x.plain(), k, level, mac, 1), data
}

// standard selects and opens SCP03.
func (x *subject) standard(level scp.Level) (*scp.Session, error) {
	x.selectInfo()
	return scp.Open(x.ctx, x.plain(), keySet(1, x.keySize), scp.HostOptions{Level: level})
}

func readFile(file byte, offset int) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: applets.InsReadBinary, P1: 0x80 | file, P2: byte(offset), Ne: 256}
}

func block(digits string) []byte {
	return append([]byte(digits), bytes.Repeat([]byte{0xFF}, 12-len(digits))...)
}

func verify(digits string) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: applets.InsVerify, P2: 1, Data: block(digits), Ne: 256}
}

func changePIN(old, replacement string) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: applets.InsChangeReference, P2: 1, Data: append(block(old), block(replacement)...)}
}

// recorder keeps what goes over the air.
type recorder struct {
	iso7816.Card
	commands, responses [][]byte
}

func (r *recorder) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := r.Card.Transmit(ctx, command)
	r.commands = append(r.commands, bytes.Clone(command))
	r.responses = append(r.responses, bytes.Clone(response))
	return response, err
}

func (r *recorder) all() []byte {
	return append(bytes.Join(r.commands, nil), bytes.Join(r.responses, nil)...)
}

// eachSecured runs f for a fresh issued instance of every variant with keys.
func (s *suite) eachSecured(f func(*subject)) {
	for _, v := range variants {
		if v.secured() {
			s.sub(v.String(), func(s *suite) { f(s.issue(v)) })
		}
	}
}

func installParameters(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			good, err := v.get().InstallParameters(v.spec())
			if err != nil {
				s.Fatal(err)
			}
			card := s.cfg.New(s)
			bad := [][]byte{{}, good[:len(good)-1], append(bytes.Clone(good), 0), {0x80, 1, 2}, {0x81, 1, 1}}
			if v.secured() {
				bad = append(bad,
					[]byte{0x80, 1, 1},
					bytes.Replace(good, []byte{0x82, 1, 2}, []byte{0x82, 1, 0}, 1),
					bytes.Replace(good, []byte{0x82, 1, 2}, []byte{0x82, 1, 5}, 1),
					bytes.Replace(good, []byte{0x83, 2, 4, 0}, []byte{0x83, 2, 4, 1}, 1),
					append(bytes.Clone(good[:len(good)-1]), 2))
			} else {
				bad = append(bad, append(bytes.Clone(good), 0x84, 1, 0))
			}
			for _, params := range bad {
				if err := card.Install(s.ctx, v.profile, firstAID, params); !errors.Is(err, iso7816.ErrWrongData) {
					s.Errorf("% X: %v, want 6A80", params, err)
				}
			}
			if r, err := iso7816.Send(s.ctx, card, iso7816.Select(firstAID)); err != nil || r.SW != iso7816.ErrNotFound {
				s.Errorf("a refused installation left something behind: %v, %v", r.SW, err)
			}
			x := s.install(v, card, firstAID) // there is room for what was refused
			if o := x.observe(); o.Spec != v.spec() || o.Personalized() || o.State != 0x07 || o.PIN != nil || o.Tag != [16]byte{} {
				x.Errorf("observed %+v", o)
			}
		})
	}
}

func beforePersonalization(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.install(v, nil, firstAID)
			info := x.selectInfo()
			if info.Record != nil || info.KeyVersions != nil || info.DiversificationData != v.spec().DiversificationData {
				x.Errorf("SELECT says %+v", info)
			}
			for _, c := range []iso7816.Command{
				readFile(1, 0), verify("1234"), {CLA: 0x84, INS: 0x54, P1: 1, P2: 0x33, Data: make([]byte, 24), Ne: 256},
				{CLA: 0x80, INS: 0x50, Data: make([]byte, 8), Ne: 256}, {CLA: 0x84, INS: 0x82, P1: 0x33, Data: make([]byte, 16)},
				{CLA: 0x80, INS: 0x99},
			} {
				x.want(iso7816.InstructionName(c.CLA, c.INS), x.plain(), c, iso7816.ErrConditions)
			}
			if _, err := x.read(x.card, x.request()); !errors.Is(err, applets.ErrNotPersonalized) {
				x.Errorf("read: %v", err)
			}
		})
	}
}

func readBack(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.issue(v)
			x.check(v.content(), x.request())
			o := x.observe()
			want := applets.Observation{
				Type: o.Type, Version: applets.ProtocolVersion, State: 0x0F, Slot: 1, Spec: v.spec(),
				Tag: v.content().Tag, IssueNumber: 3,
			}
			if v.secured() {
				want.KeyVersions = []byte{1}
			}
			if v.pin {
				want.PIN = &applets.PINState{TriesLeft: 3, Limit: 3}
			}
			if d := cmp.Diff(want, o); d != "" {
				x.Error(d)
			}
			if err := x.card.PowerCycle(x.ctx); err != nil {
				x.Fatal(err)
			}
			x.check(v.content(), x.request())
			for _, other := range applets.Base() {
				if other.Name() == v.profile {
					continue
				}
				r := x.request()
				_, err := other.Read(x.ctx, x.card, r)
				stronger := other.Name() == "type-d" || v.profile == "common-ap"
				if stronger && !errors.Is(err, applets.ErrWeakerType) || !stronger && !errors.Is(err, applets.ErrOtherType) {
					x.Errorf("read as %s: %v", other.Name(), err)
				}
			}
			if !v.secured() {
				return
			}
			r := x.request()
			r.Standard = true
			x.check(v.content(), r)
			r = x.request()
			r.Level = scp.Full
			x.check(v.content(), r)
			r.Keys = func(context.Context, applets.ApplicationInfo) (keys.Set, error) {
				set := keySet(1, x.keySize)
				set.MAC.Bytes()[0] ^= 1
				return set, nil
			}
			if _, err := x.read(x.card, r); !errors.Is(err, applets.ErrHostProof) {
				x.Errorf("read with a wrong key: %v", err)
			}
			r.Standard = true
			if _, err := x.read(x.card, r); !errors.Is(err, applets.ErrCardProof) {
				x.Errorf("read with a wrong key through SCP03: %v", err)
			}
			x.check(v.content(), x.request())
		})
	}
}

func tapCost(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.issue(v)
			want := 1
			if v.secured() {
				want++
			}
			if v.pin {
				want++
			}
			r := x.request()
			r.WantItems = false
			rec := &recorder{Card: x.card}
			if _, err := x.read(rec, r); err != nil {
				x.Fatal(err)
			}
			if len(rec.commands) != want {
				x.Errorf("a tap takes %d commands, want %d", len(rec.commands), want)
			}
		})
	}
}

func overTheAir(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.issue(v)
			for _, standard := range []bool{false, true} {
				r := x.request()
				r.Standard = standard
				first, second := &recorder{Card: x.card}, &recorder{Card: x.card}
				for _, rec := range []*recorder{first, second} {
					if _, err := x.read(rec, r); err != nil {
						x.Fatal(err)
					}
				}
				air := first.all()
				clear := v.profile != "type-d"
				for _, text := range []string{theID, "20310331"} {
					b := []byte(text)
					if text != theID {
						b = []byte{0x20, 0x31, 0x03, 0x31}
					}
					if bytes.Contains(air, b) != clear {
						x.Errorf("%s over the air: %v, want %v", text, !clear, clear)
					}
				}
				if v.secured() && bytes.Contains(air, []byte("-item")) != clear {
					x.Errorf("items over the air: %v", !clear)
				}
				if bytes.Contains(air, []byte("48151623")) {
					x.Error("the PIN goes over the air")
				}
				if !v.secured() {
					continue
				}
				for i := range first.responses {
					if len(first.responses[i]) > 2 && bytes.Equal(first.responses[i], second.responses[i]) {
						x.Errorf("answer %d to % X is the same in both taps", i, first.commands[i][:4])
					}
				}
				if set := keySet(1, v.keySize); bytes.Contains(air, set.ENC.Bytes()) || bytes.Contains(air, set.MAC.Bytes()) {
					x.Error("a key goes over the air")
				}
			}
			// What the counter's commands show: neither keys nor PIN.
			sd := x.store(scp.CDecryption)
			blocks, err := v.get().Personalization(v.content(), sd.EncryptSensitive)
			if err != nil {
				x.Fatal(err)
			}
			all := bytes.Join(blocks, nil)
			if v.secured() && bytes.Contains(all, keySet(1, v.keySize).ENC.Bytes()) || bytes.Contains(all, []byte("48151623")) {
				x.Error("a key or PIN stands in a block")
			}
		})
	}
}

// tamper changes a bit of one answer, on its way to the terminal.
type tamper struct {
	iso7816.Card
	answer, bit int
	sent        int
}

func (c *tamper) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	response, err := c.Card.Transmit(ctx, command)
	if c.sent++; c.sent-1 == c.answer && err == nil && len(response) > 2 {
		response = bytes.Clone(response)
		response[c.bit/8%(len(response)-2)] ^= 1 << (c.bit % 8)
	}
	return response, err
}

// tampered: what the card did not prove is not used, whichever answer it is.
func tampered(s *suite) {
	s.eachSecured(func(x *subject) {
		rec := &recorder{Card: x.card}
		if _, err := x.read(rec, x.request()); err != nil {
			x.Fatal(err)
		}
		for answer := 1; answer < len(rec.responses); answer++ {
			for bit := 0; bit < 8*(len(rec.responses[answer])-2); bit += 5 {
				got, err := x.read(&tamper{Card: x.card, answer: answer, bit: bit}, x.request())
				if !errors.Is(err, applets.ErrCardProof) || got != nil {
					x.Fatalf("bit %d of answer %d changed: %+v, %v", bit, answer, got, err)
				}
			}
		}
		// A challenge that is not the card's.
		if _, err := x.read(&tamper{Card: x.card, answer: 0, bit: 8 * 30}, x.request()); err == nil {
			x.Error("read with a changed SELECT answer")
		}
	})
}

func keyVersions(s *suite) {
	for _, v := range variants {
		if !v.secured() {
			continue
		}
		s.sub(v.String(), func(s *suite) {
			x := s.install(v, nil, firstAID)
			c := v.content()
			c.ReadKeys = []keys.Set{keySet(7, 16), keySet(2, 32)}
			x.mustPersonalize(c)
			info := x.selectInfo()
			if !bytes.Equal(info.KeyVersions, []byte{7, 2}) {
				x.Fatalf("key versions % X", info.KeyVersions)
			}
			for version, size := range map[byte]int{7: 16, 2: 32} {
				for _, standard := range []bool{false, true} {
					r := x.request()
					r.Standard = standard
					r.Keys = func(context.Context, applets.ApplicationInfo) (keys.Set, error) { return keySet(version, size), nil }
					got, err := x.read(x.card, r)
					if err != nil || got.KeyVersion != version {
						x.Errorf("version %d: %+v, %v", version, got, err)
					}
				}
			}
			r := x.request()
			r.Keys = func(context.Context, applets.ApplicationInfo) (keys.Set, error) { return keySet(3, 16), nil }
			if _, err := x.read(x.card, r); !errors.Is(err, applets.ErrNoReadKey) {
				x.Errorf("a version that the card has not: %v", err)
			}
			x.selectInfo()
			initialize := iso7816.Command{CLA: 0x80, INS: 0x50, Data: make([]byte, 8), Ne: 256}
			if data := x.want("INITIALIZE UPDATE 00", x.plain(), initialize, iso7816.OK); len(data) != 29 || data[10] != 7 ||
				!bytes.Equal(data[:10], info.DiversificationData[:]) || data[12] != 0x60 {
				x.Errorf("INITIALIZE UPDATE answers % X", data)
			}
			initialize.P1 = 3
			x.want("INITIALIZE UPDATE of an unknown version", x.plain(), initialize, iso7816.ErrDataNotFound)
			for _, version := range []byte{0, 3} {
				set := keySet(7, 16)
				set.Version = version
				cmd, _, _ := x.express(x.selectInfo(), set, scp.Full)
				x.want(fmt.Sprint("EXPRESS with version ", version), x.plain(), cmd, iso7816.ErrDataNotFound)
			}
		})
	}
}

func levels(s *suite) {
	s.eachSecured(func(x *subject) {
		accepted := map[scp.Level]bool{
			scp.Full: true, scp.CDecRMAC: x.profile == "type-a", scp.CMACRMAC: x.profile == "type-a" && !x.pin,
		}
		for _, level := range []scp.Level{scp.None, scp.CMAC, scp.CDecryption, scp.CMACRMAC, scp.CDecRMAC, scp.Full, 0x02, 0x10, 0x30, 0x31, 0x23, 0xFF} {
			sw := iso7816.ErrSecurityStatus
			if accepted[level] {
				sw = iso7816.OK
			}
			cmd, _, _ := x.express(x.selectInfo(), keySet(1, x.keySize), level)
			x.want(fmt.Sprintf("EXPRESS at level %02X", byte(level)), x.plain(), cmd, sw)
			if !level.Valid() {
				continue
			}
			_, err := x.standard(level)
			if accepted[level] && err != nil || !accepted[level] && !errors.Is(err, iso7816.ErrSecurityStatus) {
				x.Errorf("EXTERNAL AUTHENTICATE at level %v: %v", level, err)
			}
		}
	})
}

func longItems(s *suite) {
	s.eachSecured(func(x *subject) {
		c := x.content()
		c.Items = nil
		for i := range 16 {
			c.Items = append(c.Items, applets.Item{Name: fmt.Sprintf("n%02d", i), Value: strings.Repeat("x", 53)})
		}
		file, err := applets.EncodeItems(c.Items)
		if err != nil || len(file) < 900 {
			x.Fatalf("%d bytes, %v", len(file), err)
		}
		x.mustPersonalize(c)
		for _, standard := range []bool{false, true} {
			r := x.request()
			r.Standard = standard
			x.check(c, r)
		}
		c.Items = []applets.Item{{Name: "all", Value: strings.Repeat("y", 1024-17)}}
		x.mustPersonalize(c)
		if file, _ := applets.EncodeItems(c.Items); len(file) != 1024 {
			x.Fatalf("greatest file has %d bytes", len(file))
		}
		x.check(c, x.request())
		c.Items = nil
		x.mustPersonalize(c)
		x.check(c, x.request())
	})
}

// everyLength sends commands and asks for answers of every length that their
// protection leaves, so that a MAC is made over every number of bytes.
func everyLength(s *suite) {
	for _, test := range []struct {
		variant
		level            scp.Level
		answer, commands int // greatest lengths of data
	}{
		{variant{"type-a", false, 16}, scp.CMACRMAC, 248, 247}, {variant{"type-a", false, 32}, scp.CMACRMAC, 248, 247},
		{variant{"type-d", false, 16}, scp.Full, 239, 239}, {variant{"type-d", false, 32}, scp.Full, 239, 239},
	} {
		s.sub(test.String(), func(s *suite) {
			x := s.issue(test.variant)
			c := x.content()
			c.Items = []applets.Item{{Name: "all", Value: strings.Repeat("y", 300)}}
			x.mustPersonalize(c)
			file, err := applets.EncodeItems(c.Items)
			if err != nil {
				x.Fatal(err)
			}
			session, _ := x.open(test.level)
			x.want("READ BINARY of EF.ITEMS", session, readFile(2, 0), iso7816.OK)
			for n := range test.answer + 1 {
				offset := len(file) - n
				read := iso7816.Command{CLA: 0x80, INS: applets.InsReadBinary, P1: byte(offset >> 8), P2: byte(offset), Ne: 256}
				if data := x.want(fmt.Sprintf("READ BINARY of the last %d bytes", n), session, read, iso7816.OK); !bytes.Equal(data, file[offset:]) {
					x.Errorf("the last %d bytes are % X, want % X", n, data, file[offset:])
				}
			}
			for n := range test.commands {
				with := readFile(2, 0)
				with.Data = make([]byte, n+1)
				x.want(fmt.Sprintf("READ BINARY with %d bytes", n+1), session, with, iso7816.ErrWrongLength)
			}
		})
	}
}

func readBinaryRules(s *suite) {
	s.sub("common-ap", func(s *suite) {
		x := s.issue(variant{"common-ap", false, 0})
		info := x.selectInfo()
		cmd := readFile(1, 0)
		cmd.CLA = 0
		if data := x.want("READ BINARY", x.plain(), cmd, iso7816.OK); !bytes.Equal(data, info.Record) {
			x.Errorf("EF.ID is % X by READ BINARY, % X in the FCI", data, info.Record)
		}
		cmd.P2, cmd.Ne = 4, 7
		if data := x.want("READ BINARY, part", x.plain(), cmd, iso7816.OK); !bytes.Equal(data, info.Record[4:11]) {
			x.Errorf("part is % X", data)
		}
		x.want("READ BINARY of EF.ITEMS", x.plain(), readFile(2, 0), iso7816.ErrNotFound)
		x.want("READ BINARY of SFI 3", x.plain(), readFile(3, 0), iso7816.ErrNotFound)
		x.want("READ BINARY beyond the end", x.plain(), readFile(1, len(info.Record)+1), iso7816.ErrWrongOffset)
		x.want("READ BINARY without a current file", x.plain(), iso7816.Command{INS: 0xB0, Ne: 256}, iso7816.ErrNotAllowed)
		x.want("READ BINARY with P1 = A1", x.plain(), iso7816.Command{INS: 0xB0, P1: 0xA1, Ne: 256}, iso7816.ErrIncorrectP1P2)
		x.want("READ BINARY with secure messaging", x.plain(), iso7816.Command{CLA: 0x04, INS: 0xB0, P1: 0x81, Ne: 256}, iso7816.ErrSecureMessaging)
		x.want("EXPRESS", x.plain(), iso7816.Command{CLA: 0x80, INS: 0x54, P1: 1, P2: 0x33, Data: make([]byte, 24), Ne: 256}, iso7816.ErrUnknownINS)
		x.want("INITIALIZE UPDATE", x.plain(), iso7816.Command{CLA: 0x80, INS: 0x50, Data: make([]byte, 8), Ne: 256}, iso7816.ErrUnknownINS)
	})
	s.eachSecured(func(x *subject) {
		session, _ := x.open(scp.Full)
		if x.pin {
			x.want("READ BINARY before VERIFY", session, readFile(1, 0), iso7816.ErrSecurityStatus)
			x.want("VERIFY", session, verify("48151623"), iso7816.OK)
		}
		x.want("READ BINARY without a current file", session, iso7816.Command{CLA: 0x80, INS: 0xB0, Ne: 256}, iso7816.ErrNotAllowed)
		want, _ := x.content().Record.Encode()
		if data := x.want("READ BINARY", session, readFile(1, 0), iso7816.OK); !bytes.Equal(data, want) {
			x.Errorf("EF.ID is % X, want % X", data, want)
		}
		next := iso7816.Command{INS: 0xB0, P2: 5, Ne: 256}
		if data := x.want("READ BINARY in the current file", session, next, iso7816.OK); !bytes.Equal(data, want[5:]) {
			x.Errorf("EF.ID from 5 on is % X", data)
		}
		x.want("READ BINARY at the end", session, readFile(1, len(want)), iso7816.OK)
		x.want("READ BINARY beyond the end", session, readFile(1, len(want)+1), iso7816.ErrWrongOffset)
		x.want("READ BINARY of SFI 3", session, readFile(3, 0), iso7816.ErrNotFound)
		x.want("READ BINARY with P1 = E1", session, iso7816.Command{CLA: 0x80, INS: 0xB0, P1: 0xE1, Ne: 256}, iso7816.ErrIncorrectP1P2)
		x.want("READ BINARY with data", session, iso7816.Command{CLA: 0x80, INS: 0xB0, P1: 0x81, Data: []byte{1}, Ne: 256}, iso7816.ErrWrongLength)
		x.want("an unknown instruction", session, iso7816.Command{CLA: 0x80, INS: 0xB2, Ne: 256}, iso7816.ErrUnknownINS)
		x.want("UPDATE BINARY", session, iso7816.Command{CLA: 0x80, INS: 0xD6, P1: 0x81, Data: []byte{1}}, iso7816.ErrUnknownINS)
		x.want("STORE DATA from a terminal", session, storeData(0x88, 0, x.get().Wipe()[0]), iso7816.ErrUnknownINS)
		x.want("READ BINARY afterwards", session, readFile(2, 0), iso7816.OK)
	})
}

func badInput(s *suite) {
	s.eachSecured(func(x *subject) {
		x.selectInfo()
		for _, c := range []struct {
			name string
			cmd  iso7816.Command
			sw   iso7816.SW
		}{
			{"READ BINARY without a channel", readFile(1, 0), iso7816.ErrSecurityStatus},
			{"READ BINARY with a MAC from nowhere", iso7816.Command{CLA: 0x84, INS: 0xB0, P1: 0x81, Data: make([]byte, 8), Ne: 256}, iso7816.ErrSecurityStatus},
			{"VERIFY without a channel", verify("48151623"), iso7816.ErrSecurityStatus},
			{"CHANGE without a channel", changePIN("48151623", "1111"), iso7816.ErrSecurityStatus},
			{"INITIALIZE UPDATE of 7 bytes", iso7816.Command{CLA: 0x80, INS: 0x50, Data: make([]byte, 7), Ne: 256}, iso7816.ErrWrongLength},
			{"INITIALIZE UPDATE without data", iso7816.Command{CLA: 0x80, INS: 0x50, Ne: 256}, iso7816.ErrWrongLength},
			{"EXPRESS of 23 bytes", iso7816.Command{CLA: 0x84, INS: 0x54, P1: 1, P2: 0x33, Data: make([]byte, 23), Ne: 256}, iso7816.ErrWrongLength},
			{"EXPRESS without Le", iso7816.Command{CLA: 0x84, INS: 0x54, P1: 1, P2: 0x33, Data: make([]byte, 24)}, iso7816.ErrWrongLength},
			{"EXPRESS with class 80", iso7816.Command{CLA: 0x80, INS: 0x54, P1: 1, P2: 0x33, Data: make([]byte, 24), Ne: 256}, iso7816.ErrUnknownCLA},
			{"EXTERNAL AUTHENTICATE first", iso7816.Command{CLA: 0x84, INS: 0x82, P1: 0x33, Data: make([]byte, 16)}, iso7816.ErrConditions},
			{"class FF", iso7816.Command{CLA: 0xFF, INS: 0xB0, Ne: 256}, iso7816.ErrUnknownCLA},
			{"class 90", iso7816.Command{CLA: 0x90, INS: 0xB0, Ne: 256}, iso7816.ErrUnknownCLA},
			{"an unknown instruction", iso7816.Command{CLA: 0x80, INS: 0x10}, iso7816.ErrUnknownINS},
			{"a write", iso7816.Command{CLA: 0, INS: 0xD6, P1: 0x81, Data: []byte{1}}, iso7816.ErrUnknownINS},
			{"a SELECT that matches nothing", iso7816.Select(iso7816.MustAID("F099999999")), iso7816.ErrNotFound},
		} {
			x.want(c.name, x.plain(), c.cmd, c.sw)
		}
		// Nothing of that has counted as a try.
		x.check(x.content(), x.request())
		if x.pin {
			if o := x.observe(); o.PIN.TriesLeft != 3 {
				x.Errorf("%d tries left", o.PIN.TriesLeft)
			}
		}
		x.selectInfo()
		initialize := iso7816.Command{CLA: 0x80, INS: 0x50, P1: 1, Data: make([]byte, 8), Ne: 256}
		authenticate := iso7816.Command{CLA: 0x84, INS: 0x82, P1: 0x33, Data: make([]byte, 16)}
		x.want("INITIALIZE UPDATE", x.plain(), initialize, iso7816.OK)
		x.want("a wrong host cryptogram", x.plain(), authenticate, iso7816.ErrAuthentication)
		x.want("EXTERNAL AUTHENTICATE again", x.plain(), authenticate, iso7816.ErrConditions)
		x.want("READ BINARY", x.plain(), readFile(1, 0), iso7816.ErrSecurityStatus)
		x.want("INITIALIZE UPDATE", x.plain(), initialize, iso7816.OK)
		x.want("READ BINARY before EXTERNAL AUTHENTICATE", x.plain(), readFile(1, 0), iso7816.ErrSecurityStatus)
		x.check(x.content(), x.request())
	})
}

// damage changes one bit of the last data byte of the next command.
type damage struct {
	iso7816.Sender
	on     bool
	last   iso7816.Command
	answer iso7816.Response
}

func (d *damage) Send(ctx context.Context, c iso7816.Command) (iso7816.Response, error) {
	if d.on {
		c.Data = bytes.Clone(c.Data)
		c.Data[len(c.Data)-1] ^= 1
		d.on = false
	}
	d.last = c
	var err error
	d.answer, err = d.Sender.Send(ctx, c)
	return d.answer, err
}

func brokenChannel(s *suite) {
	s.eachSecured(func(x *subject) {
		open := func(standard bool) (*damage, iso7816.Sender) {
			x.Helper()
			d := &damage{Sender: x.plain()}
			var session *scp.Session
			if standard {
				x.selectInfo()
				var err error
				if session, err = scp.Open(x.ctx, d, keySet(1, x.keySize), scp.HostOptions{Level: scp.Full}); err != nil {
					x.Fatal(err)
				}
			} else {
				c, k, mac := x.express(x.selectInfo(), keySet(1, x.keySize), scp.Full)
				x.want("EXPRESS", x.plain(), c, iso7816.OK)
				session = scp.ResumeHost(d, k, scp.Full, mac, 1)
			}
			if x.pin {
				x.want("VERIFY", session, verify("48151623"), iso7816.OK)
			}
			return d, session
		}
		for _, standard := range []bool{false, true} {
			// A wrong C-MAC ends the channel.
			d, session := open(standard)
			x.want("READ BINARY", session, readFile(1, 0), iso7816.OK)
			d.on = true
			x.want("a wrong C-MAC", session, readFile(1, 0), iso7816.ErrSecurityStatus)
			x.want("the session afterwards", session, readFile(1, 0), iso7816.ErrSecurityStatus)
			x.want("READ BINARY in the clear afterwards", x.plain(), readFile(1, 0), iso7816.ErrSecurityStatus)

			// So does a replay.
			d, session = open(standard)
			x.want("READ BINARY", session, readFile(1, 0), iso7816.OK)
			x.want("a replay", x.plain(), d.last, iso7816.ErrSecurityStatus)
			x.want("the session afterwards", session, readFile(1, 0), iso7816.ErrSecurityStatus)

			// And a command without a C-MAC.
			_, session = open(standard)
			x.want("READ BINARY in the clear", x.plain(), readFile(1, 0), iso7816.ErrSecurityStatus)
			x.want("the session afterwards", session, readFile(1, 0), iso7816.ErrSecurityStatus)

			// Only SELECT or INITIALIZE UPDATE mends it, without a SELECT.
			session2, err := scp.Open(x.ctx, x.plain(), keySet(1, x.keySize), scp.HostOptions{Level: scp.Full})
			if err != nil {
				x.Fatalf("INITIALIZE UPDATE after an aborted channel: %v", err)
			}
			if x.pin {
				x.want("READ BINARY: the PIN is to be verified again", session2, readFile(1, 0), iso7816.ErrSecurityStatus)
				x.want("VERIFY", session2, verify("48151623"), iso7816.OK)
			}
			x.want("READ BINARY in the new channel", session2, readFile(1, 0), iso7816.OK)
		}
		// A changed EXTERNAL AUTHENTICATE: the cryptogram is right, the MAC is not.
		x.selectInfo()
		d := &damage{Sender: x.plain()}
		pending, err := scp.Initialize(x.ctx, d, scp.HostOptions{Level: scp.Full})
		if err != nil {
			x.Fatal(err)
		}
		d.on = true
		if _, err := pending.Authenticate(x.ctx, keySet(1, x.keySize)); !errors.Is(err, iso7816.ErrSecurityStatus) {
			x.Errorf("EXTERNAL AUTHENTICATE with a wrong C-MAC: %v", err)
		}
	})
}

func challenge(s *suite) {
	s.eachSecured(func(x *subject) {
		first, second := x.selectInfo(), x.selectInfo()
		if first.Challenge == second.Challenge || first.Challenge == [16]byte{} {
			x.Errorf("challenges % X and % X", first.Challenge, second.Challenge)
		}
		// One challenge, one try; a wrong one too.
		for _, wrong := range []bool{false, true} {
			c, _, _ := x.express(x.selectInfo(), keySet(1, x.keySize), scp.Full)
			bad := c
			bad.Data = bytes.Clone(c.Data)
			sw := iso7816.OK
			if wrong {
				bad.Data[23] ^= 0x80
				sw = iso7816.ErrSecurityStatus
			}
			x.want("EXPRESS", x.plain(), bad, sw)
			x.want("EXPRESS again", x.plain(), c, iso7816.ErrSecurityStatus)
			none, _, _ := x.express(applets.ApplicationInfo{AID: x.aid}, keySet(1, x.keySize), scp.Full)
			x.want("EXPRESS for a challenge of zeros", x.plain(), none, iso7816.ErrSecurityStatus)
			x.want("READ BINARY afterwards", x.plain(), readFile(1, 0), iso7816.ErrSecurityStatus)
		}
		// Every byte of the C-MAC and of the header counts.
		for i := 16; i < 24; i++ {
			c, _, _ := x.express(x.selectInfo(), keySet(1, x.keySize), scp.Full)
			c.Data[i] ^= 1
			x.want(fmt.Sprint("EXPRESS with byte ", i, " changed"), x.plain(), c, iso7816.ErrSecurityStatus)
		}
		if x.profile == "type-a" {
			c, _, _ := x.express(x.selectInfo(), keySet(1, x.keySize), scp.Full)
			c.P2 = byte(scp.CDecRMAC)
			x.want("EXPRESS with its level lowered", x.plain(), c, iso7816.ErrSecurityStatus)
		}
		// An old challenge is none.
		old := x.selectInfo()
		x.selectInfo()
		c, _, _ := x.express(old, keySet(1, x.keySize), scp.Full)
		x.want("EXPRESS for an old challenge", x.plain(), c, iso7816.ErrSecurityStatus)
		// INITIALIZE UPDATE erases it.
		c, _, _ = x.express(x.selectInfo(), keySet(1, x.keySize), scp.Full)
		x.want("INITIALIZE UPDATE", x.plain(), iso7816.Command{CLA: 0x80, INS: 0x50, Data: make([]byte, 8), Ne: 256}, iso7816.OK)
		x.want("EXPRESS after INITIALIZE UPDATE", x.plain(), c, iso7816.ErrSecurityStatus)
		// Failures lock nothing.
		for range 20 {
			c, _, _ := x.express(x.selectInfo(), keySet(2, x.keySize), scp.Full)
			c.P1 = 1
			x.want("EXPRESS with another key", x.plain(), c, iso7816.ErrSecurityStatus)
		}
		x.check(x.content(), x.request())
	})
}

func pinRules(s *suite) {
	for _, v := range variants {
		if !v.secured() || v.pin {
			continue
		}
		s.sub("none,"+v.String(), func(s *suite) {
			x := s.issue(v)
			session, _ := x.open(scp.Full)
			x.want("VERIFY without a PIN", session, verify("48151623"), iso7816.ErrDataNotFound)
			x.want("CHANGE without a PIN", session, changePIN("48151623", "1111"), iso7816.ErrDataNotFound)
			x.want("READ BINARY", session, readFile(1, 0), iso7816.OK)
		})
	}
	s.eachSecured(func(x *subject) {
		if !x.pin {
			return
		}
		session, answer := x.open(scp.Full)
		if len(answer) != 8 {
			x.Errorf("EXPRESS answers %d bytes before the PIN, want 8", len(answer))
		}
		tries := func(want int) {
			x.Helper()
			if o := x.observe(); o.PIN == nil || o.PIN.TriesLeft != want {
				x.Errorf("PIN is %+v, want %d tries left", o.PIN, want)
			}
		}
		short := verify("48151623")
		short.Data = short.Data[:11]
		long := verify("48151623")
		long.Data = append(long.Data, 0xFF)
		for name, c := range map[string]struct {
			cmd iso7816.Command
			sw  iso7816.SW
		}{
			"11 bytes":           {short, iso7816.ErrWrongLength},
			"13 bytes":           {long, iso7816.ErrWrongLength},
			"no data":            {iso7816.Command{CLA: 0x80, INS: 0x20, P2: 1, Ne: 256}, iso7816.ErrWrongLength},
			"3 digits":           {verify("481"), iso7816.ErrWrongData},
			"a letter":           {verify("48151X23"), iso7816.ErrWrongData},
			"digits after FF":    {verify("4815\xFF1623"), iso7816.ErrWrongData},
			"P1":                 {iso7816.Command{CLA: 0x80, INS: 0x20, P1: 1, P2: 1, Data: block("1234"), Ne: 256}, iso7816.ErrIncorrectP1P2},
			"another qualifier":  {iso7816.Command{CLA: 0x80, INS: 0x20, P2: 2, Data: block("1234"), Ne: 256}, iso7816.ErrDataNotFound},
			"CHANGE of 12 bytes": {iso7816.Command{CLA: 0x80, INS: 0x24, P2: 1, Data: block("48151623")}, iso7816.ErrWrongLength},
			"CHANGE to 3 digits": {changePIN("48151623", "123"), iso7816.ErrWrongData},
			"CHANGE to the same": {changePIN("48151623", "48151623"), iso7816.ErrWrongData},
		} {
			x.want(name, session, c.cmd, c.sw)
		}
		tries(3)
		session, _ = x.open(scp.Full)
		x.want("a wrong PIN", session, verify("1234"), 0x63C2)
		x.want("READ BINARY after a wrong PIN", session, readFile(1, 0), iso7816.ErrSecurityStatus)
		tries(2)
		session, _ = x.open(scp.Full)
		x.want("the right PIN", session, verify("48151623"), iso7816.OK)
		tries(3)
		// A wrong PIN takes back what the right one opened.
		session, _ = x.open(scp.Full)
		want, _ := x.content().Record.Encode()
		if got := x.want("the right PIN", session, verify("48151623"), iso7816.OK); !bytes.Equal(got, want) {
			x.Errorf("VERIFY answers % X, want % X", got, want)
		}
		x.want("a wrong PIN", session, verify("48151624"), 0x63C2)
		x.want("READ BINARY", session, readFile(1, 0), iso7816.ErrSecurityStatus)
		x.want("a wrong PIN in CHANGE", session, changePIN("9999", "48151623"), 0x63C1)
		tries(1)
		session, _ = x.open(scp.Full)
		x.want("CHANGE", session, changePIN("48151623", "271828182845"), iso7816.OK)
		x.want("READ BINARY after CHANGE", session, readFile(1, 0), iso7816.OK)
		tries(3)
		// The host's view, down to the block.
		r := x.request()
		for left := 2; left >= 0; left-- {
			_, err := x.read(x.card, r)
			var wrong *applets.PINError
			if !errors.As(err, &wrong) || !errors.Is(err, applets.ErrWrongPIN) || wrong.TriesLeft != left {
				x.Errorf("wrong PIN: %v, want %d tries left", err, left)
			}
		}
		r.PIN = pinIs("271828182845")
		if _, err := x.read(x.card, r); !errors.Is(err, applets.ErrPINBlocked) {
			x.Errorf("a blocked PIN: %v", err)
		}
		r.PIN = nil
		if _, err := x.read(x.card, r); !errors.Is(err, applets.ErrPINRequired) {
			x.Errorf("no PIN: %v", err)
		}
		changer := x.get().(applets.PINChanger)
		if err := changer.ChangePIN(x.ctx, x.card, x.request(), newPIN("271828182845"), newPIN("1111")); !errors.Is(err, applets.ErrPINBlocked) {
			x.Errorf("CHANGE of a blocked PIN: %v", err)
		}
		if err := x.card.PowerCycle(x.ctx); err != nil {
			x.Fatal(err)
		}
		tries(0)
		// At the counter: new content leaves the PIN alone, a new PIN unblocks.
		c := x.content()
		c.PIN = nil
		x.mustPersonalize(c)
		tries(0)
		c.PIN = &applets.PINSetting{Reference: newPIN("31415"), Limit: 15}
		x.mustPersonalize(c)
		tries(15)
		r.PIN = pinIs("31415")
		x.check(c, r)
		if err := changer.ChangePIN(x.ctx, x.card, x.request(), newPIN("31415"), newPIN("1111")); err != nil {
			x.Errorf("CHANGE: %v", err)
		}
		r.PIN = pinIs("1111")
		x.check(c, r)
	})
}

func mustChange(s *suite) {
	s.eachSecured(func(x *subject) {
		if !x.pin {
			return
		}
		c := x.content()
		c.PIN.MustChange = true
		x.mustPersonalize(c)
		if o := x.observe(); o.PIN == nil || !o.PIN.MustChange {
			x.Errorf("PIN is %+v", o.PIN)
		}
		session, _ := x.open(scp.Full)
		x.want("VERIFY", session, verify("48151623"), iso7816.ErrDataInvalid)
		x.want("READ BINARY", session, readFile(1, 0), iso7816.ErrSecurityStatus)
		x.want("a wrong PIN", session, verify("1111"), 0x63C2)
		if _, err := x.read(x.card, x.request()); !errors.Is(err, applets.ErrMustChangePIN) {
			x.Errorf("read: %v", err)
		}
		if err := x.get().(applets.PINChanger).ChangePIN(x.ctx, x.card, x.request(), newPIN("48151623"), newPIN("2222")); err != nil {
			x.Fatal(err)
		}
		r := x.request()
		r.PIN = pinIs("2222")
		x.check(c, r)
	})
}

func securityDomainChannel(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.install(v, nil, firstAID)
			for _, level := range []scp.Level{scp.CMAC, scp.CMACRMAC} {
				sd := x.store(level)
				blocks, err := v.get().Personalization(v.content(), sd.EncryptSensitive)
				if err != nil {
					x.Fatal(err)
				}
				if err := x.send(sd, blocks); !errors.Is(err, iso7816.ErrSecurityStatus) {
					x.Errorf("personalisation at level %v: %v", level, err)
				}
				x.want("observation", x.store(level), storeData(0x89, 0, v.get().ObservationRequest()), iso7816.ErrSecurityStatus)
				x.want("wipe", x.store(level), storeData(0x88, 0, v.get().Wipe()[0]), iso7816.ErrSecurityStatus)
			}
			for _, level := range []scp.Level{scp.CDecryption, scp.CDecRMAC, scp.Full} {
				sd := x.store(level)
				blocks, err := v.get().Personalization(v.content(), sd.EncryptSensitive)
				if err != nil {
					x.Fatal(err)
				}
				if err := x.send(sd, blocks); err != nil {
					x.Errorf("personalisation at level %v: %v", level, err)
				}
			}
			x.check(v.content(), x.request())
		})
	}
}

// group encodes one data group.
func group(id uint16, data ...byte) []byte {
	return append([]byte{byte(id >> 8), byte(id), byte(len(data))}, data...)
}

func personalizationRefused(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.issue(v)
			other := v.content()
			other.Record.ID = "another"
			other.Tag = [16]byte{0xFF}
			type attempt struct {
				name   string
				change func(seal func([]byte) ([]byte, error), blocks [][]byte) [][]byte
				sw     iso7816.SW
			}
			begin := group(applets.DGIBegin, 0)
			record, _ := other.Record.Encode()
			recordGroup := group(applets.DGIRecord, record...)
			tag := group(applets.DGITag, other.Tag[:]...)
			only := func(blocks ...[]byte) func(func([]byte) ([]byte, error), [][]byte) [][]byte {
				return func(func([]byte) ([]byte, error), [][]byte) [][]byte { return blocks }
			}
			attempts := []attempt{
				{"empty block", only([]byte{}), iso7816.ErrWrongData},
				{"cut data group", only(begin[:3]), iso7816.ErrWrongData},
				{"trailing byte", only(append(bytes.Clone(begin), 1)), iso7816.ErrWrongData},
				{"long form of a length", only([]byte{1, 0, 0xFF, 0, 1, 0}), iso7816.ErrWrongData},
				{"no beginning", only(recordGroup), iso7816.ErrWrongData},
				{"unknown flag", only(group(applets.DGIBegin, 0x80)), iso7816.ErrWrongData},
				{"unknown data group", only(slices.Concat(begin, group(0x0777, 1))), iso7816.ErrDataNotFound},
				{"no EF.ID", only(slices.Concat(begin, tag)), iso7816.ErrConditions},
				{"no tag", only(slices.Concat(begin, recordGroup)), iso7816.ErrConditions},
				{"EF.ID twice", only(slices.Concat(begin, recordGroup, recordGroup)), iso7816.ErrWrongData},
				{"EF.ID malformed", only(slices.Concat(begin, group(applets.DGIRecord, 0xC1, 5, 1))), iso7816.ErrWrongData},
				{"EF.ID too long", only(slices.Concat(begin, group(applets.DGIRecord, make([]byte, 225)...))), iso7816.ErrNoMemory},
				{"short tag", only(slices.Concat(begin, group(applets.DGITag, 1))), iso7816.ErrWrongData},
				{"wipe without its word", only(group(applets.DGIWipe, []byte("WIPF")...)), iso7816.ErrWrongData},
				{"wipe and more", only(slices.Concat(group(applets.DGIWipe, []byte("WIPE")...), tag)), iso7816.ErrWrongData},
			}
			items := group(applets.DGIItems, 0, 0, 0xE1, 0x07, 0xE2, 0x05, 0xC1, 1, 0x61, 0xC2, 0)
			wrongKey := func(id uint16, at int) func(func([]byte) ([]byte, error), [][]byte) [][]byte {
				return func(_ func([]byte) ([]byte, error), blocks [][]byte) [][]byte {
					for _, b := range blocks {
						for i := 0; i+3 <= len(b); i += 3 + int(b[i+2]) {
							if uint16(b[i])<<8|uint16(b[i+1]) == id {
								b[i+3+at] ^= 1
								return blocks
							}
						}
					}
					x.Fatalf("no data group %04X", id)
					return nil
				}
			}
			if v.secured() {
				attempts = append(attempts,
					attempt{"no keys", only(slices.Concat(begin, recordGroup, tag)), iso7816.ErrConditions},
					attempt{"wrong check value of ENC", wrongKey(applets.DGIKeys, 2), iso7816.ErrSecurityStatus},
					attempt{"wrong check value of MAC", wrongKey(applets.DGIKeys, 7), iso7816.ErrSecurityStatus},
					attempt{"wrong key", wrongKey(applets.DGIKeys, 8), iso7816.ErrSecurityStatus},
					attempt{"key length", wrongKey(applets.DGIKeys, 1), iso7816.ErrWrongData},
					attempt{"key version 0", wrongKey(applets.DGIKeys, 0), iso7816.ErrWrongData},
					attempt{"items not at their place", only(slices.Concat(begin, group(applets.DGIItems, 0, 1, 0xE1))), iso7816.ErrWrongData},
					attempt{"items cut short", func(_ func([]byte) ([]byte, error), blocks [][]byte) [][]byte {
						blocks[0] = bytes.Replace(blocks[0], group(applets.DGIRecord, mustEncode(other)...), nil, 1)
						return [][]byte{slices.Concat(group(applets.DGIBegin, 1), recordGroup, items[:len(items)-1][:2], []byte{items[2] - 1}, items[3:len(items)-1], tag)}
					}, iso7816.ErrWrongData},
					attempt{"keys kept and given", func(_ func([]byte) ([]byte, error), blocks [][]byte) [][]byte {
						blocks[0][3] = applets.FlagKeepKeys
						return blocks
					}, iso7816.ErrConditions},
				)
			} else {
				attempts = append(attempts,
					attempt{"keys kept", only(group(applets.DGIBegin, 1)), iso7816.ErrWrongData},
					attempt{"items", only(slices.Concat(begin, items)), iso7816.ErrDataNotFound})
			}
			if v.pin {
				attempts = append(attempts,
					attempt{"wrong PIN block", wrongKey(applets.DGIPIN, 17), iso7816.ErrSecurityStatus},
					attempt{"PIN limit 0", func(seal func([]byte) ([]byte, error), blocks [][]byte) [][]byte {
						sealed, err := seal([]byte("1234\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF" + applets.PINPadding))
						if err != nil {
							x.Fatal(err)
						}
						return [][]byte{slices.Concat(begin, group(applets.DGIPIN, append([]byte{0, 0}, sealed...)...))}
					}, iso7816.ErrWrongData})
			} else if v.secured() {
				attempts = append(attempts, attempt{"a PIN where none is", only(slices.Concat(begin, group(applets.DGIPIN, make([]byte, 18)...))), iso7816.ErrDataNotFound})
			}
			for _, a := range attempts {
				sd := x.store(scp.CDecryption)
				blocks, err := v.get().Personalization(other, sd.EncryptSensitive)
				if err != nil {
					x.Fatal(err)
				}
				if err := x.send(sd, a.change(sd.EncryptSensitive, blocks)); !errors.Is(err, a.sw) {
					x.Errorf("%s: %v, want %v", a.name, err, a.sw)
				}
			}
			// P1 must say DGI; RFU bits are none.
			for _, p1 := range []byte{0x80, 0x90, 0x98, 0x8A, 0x8C} {
				x.want(fmt.Sprintf("P1 = %02X", p1), x.store(scp.CDecryption), storeData(p1, 0, begin), iso7816.ErrIncorrectP1P2)
			}
			x.want("observation of something else", x.store(scp.CDecryption), storeData(0x89, 0, begin), iso7816.ErrDataNotFound)
			// A later block without the first, and one left out.
			for _, numbers := range [][]byte{{1}, {0, 2}} {
				sd := x.store(scp.CDecryption)
				for i, n := range numbers {
					b := begin
					if n > 0 {
						b = tag
					}
					r, err := sd.Send(x.ctx, storeData(0x08, n, b))
					if err != nil || (r.SW == iso7816.OK) != (i < len(numbers)-1) {
						x.Errorf("block %d of %v: %v, %v", n, numbers, r.SW, err)
					}
				}
			}
			// After all of that, what was there is there.
			x.check(v.content(), x.request())
			if o := x.observe(); o.Tag != v.content().Tag || o.Slot != 1 {
				x.Errorf("observed %+v", o)
			}
			x.mustPersonalize(other)
			x.check(other, x.request())
		})
	}
}

func mustEncode(c applets.Content) []byte {
	b, err := c.Record.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func update(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.issue(v)
			c := v.content()
			c.Record.ID, c.Record.IssueNumber, c.Tag = "second", 4, [16]byte{2}
			c.PIN = nil
			if v.secured() {
				c.Items = []applets.Item{{Name: "class", Value: "senior"}}
				c.ReadKeys, c.KeepKeys = nil, true
			}
			// Staged but not finished: the old slot is served, also after
			// power is lost.
			sd := x.store(scp.CDecryption)
			blocks, err := v.get().Personalization(c, sd.EncryptSensitive)
			if err != nil {
				x.Fatal(err)
			}
			x.want("block 00", sd, storeData(0x08, 0, blocks[0]), iso7816.OK)
			x.check(v.content(), x.request())
			x.want("block 00", x.store(scp.CDecryption), storeData(0x08, 0, blocks[0]), iso7816.OK)
			if err := x.card.PowerCycle(x.ctx); err != nil {
				x.Fatal(err)
			}
			x.check(v.content(), x.request())

			for slot := byte(2); slot >= 1; slot-- {
				x.mustPersonalize(c)
				x.check(c, x.request())
				if o := x.observe(); o.Slot != slot || o.IssueNumber != 4 || o.Tag != c.Tag || o.State != 0x0F {
					x.Errorf("observed %+v, want slot %d", o, slot)
				}
			}
			if !v.secured() {
				return
			}
			// New keys: the old ones open nothing any more.
			c.KeepKeys, c.ReadKeys = false, []keys.Set{keySet(2, 32)}
			x.mustPersonalize(c)
			r := x.request()
			r.Keys = func(context.Context, applets.ApplicationInfo) (keys.Set, error) { return keySet(2, 32), nil }
			x.check(c, r)
			cmd, _, _ := x.express(x.selectInfo(), keySet(1, v.keySize), scp.Full)
			x.want("EXPRESS with the old keys", x.plain(), cmd, iso7816.ErrDataNotFound)
			c.ReadKeys = []keys.Set{keySet(3, 16), keySet(2, 16), keySet(1, 16)}
			if err := x.personalize(c); !errors.Is(err, iso7816.ErrNoMemory) {
				x.Errorf("three key sets where two fit: %v", err)
			}
			x.check(c, r)
		})
	}
}

func wipe(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.issue(v)
			for range 2 { // wiping what is empty is the same
				if err := x.send(x.store(scp.CDecryption), v.get().Wipe()); err != nil {
					x.Fatal(err)
				}
				if _, err := x.read(x.card, x.request()); !errors.Is(err, applets.ErrNotPersonalized) {
					x.Errorf("read after wipe: %v", err)
				}
				x.want("READ BINARY after wipe", x.plain(), readFile(1, 0), iso7816.ErrConditions)
				if o := x.observe(); o.Personalized() || o.Tag != [16]byte{} || o.State != 0x07 || o.PIN != nil || o.Spec != v.spec() {
					x.Errorf("observed %+v", o)
				}
			}
			if v.secured() {
				c := v.content()
				c.ReadKeys, c.KeepKeys = nil, true
				if err := x.personalize(c); !errors.Is(err, iso7816.ErrConditions) {
					x.Errorf("keys kept after wipe: %v", err)
				}
			}
			if v.pin {
				c := v.content()
				c.PIN = nil
				if err := x.personalize(c); !errors.Is(err, iso7816.ErrConditions) {
					x.Errorf("no PIN after wipe: %v", err)
				}
			}
			x.mustPersonalize(v.content())
			x.check(v.content(), x.request())
		})
	}
}

func independence(s *suite) {
	card := s.cfg.New(s)
	v := variant{"type-d", true, 16}
	first, second := s.install(v, card, firstAID), s.install(v, card, secondAID)
	open := s.install(variant{"common-ap", false, 0}, card, thirdAID)
	first.mustPersonalize(v.content())
	if _, err := second.read(card, second.request()); !errors.Is(err, applets.ErrNotPersonalized) {
		s.Errorf("the second instance: %v", err)
	}
	c := v.content()
	c.Record.ID, c.ReadKeys, c.PIN.Reference = "second", []keys.Set{keySet(2, 16)}, newPIN("2222")
	second.mustPersonalize(c)
	open.mustPersonalize(open.content())
	first.check(v.content(), first.request())
	r := second.request()
	r.PIN = pinIs("2222")
	second.check(c, r)
	open.check(open.content(), open.request())
	// Keys, PINs, challenges and sessions of one are nothing to the other.
	cmd, _, _ := second.express(second.selectInfo(), keySet(1, 16), scp.Full)
	second.want("EXPRESS with the first's keys", second.plain(), cmd, iso7816.ErrDataNotFound)
	cmd, _, _ = first.express(first.selectInfo(), keySet(1, 16), scp.Full)
	second.selectInfo()
	first.selectInfo()
	first.want("EXPRESS for a challenge before another selection", first.plain(), cmd, iso7816.ErrSecurityStatus)
	session, _ := first.open(scp.Full)
	first.want("VERIFY", session, verify("48151623"), iso7816.OK)
	second.selectInfo()
	first.want("the session in the other instance", session, readFile(1, 0), iso7816.ErrSecurityStatus)
	session, _ = first.open(scp.Full)
	first.want("a wrong PIN", session, verify("2222"), 0x63C2)
	if o := second.observe(); o.PIN.TriesLeft != 3 {
		s.Errorf("the second's PIN lost a try")
	}
	if err := first.send(first.store(scp.CDecryption), v.get().Wipe()); err != nil {
		s.Fatal(err)
	}
	second.check(c, r)
	open.check(open.content(), open.request())
	// A staging in one is no beginning in the other.
	sd := first.store(scp.CDecryption)
	first.want("block 00", sd, storeData(0x08, 0, group(applets.DGIBegin, 0)), iso7816.OK)
	if r, err := second.store(scp.CDecryption).Send(s.ctx, storeData(0x88, 1, group(applets.DGITag, make([]byte, 16)...))); err != nil || r.SW == iso7816.OK {
		s.Errorf("block 01 of another instance's staging: %v, %v", r.SW, err)
	}
}

func sessionEnds(s *suite) {
	s.eachSecured(func(x *subject) {
		for name, end := range map[string]func(){
			"selection of the instance": func() { x.selectInfo() },
			"selection of another application": func() {
				if _, err := x.card.SecurityDomain(x.ctx, scp.CMAC); err != nil {
					x.Fatal(err)
				}
				x.selectInfo()
			},
			"loss of power": func() {
				if err := x.card.PowerCycle(x.ctx); err != nil {
					x.Fatal(err)
				}
				x.selectInfo()
			},
		} {
			session, _ := x.open(scp.Full)
			if x.pin {
				x.want("VERIFY", session, verify("48151623"), iso7816.OK)
			}
			x.want("READ BINARY", session, readFile(1, 0), iso7816.OK)
			end()
			x.want("the session after "+name, session, readFile(1, 0), iso7816.ErrSecurityStatus)
			if x.pin {
				session, _ = x.open(scp.Full)
				x.want("READ BINARY without VERIFY after "+name, session, readFile(1, 0), iso7816.ErrSecurityStatus)
			}
			cmd, _, _ := x.express(x.selectInfo(), keySet(1, x.keySize), scp.Full)
			end()
			x.want("EXPRESS for a challenge before "+name, x.plain(), cmd, iso7816.ErrSecurityStatus)
		}
		// A SELECT that matches nothing ends nothing.
		session, _ := x.open(scp.Full)
		x.want("SELECT of nothing", x.plain(), iso7816.Select(iso7816.MustAID("F099999999")), iso7816.ErrNotFound)
		if !x.pin {
			x.want("READ BINARY", session, readFile(1, 0), iso7816.OK)
		}
	})
}

func locked(s *suite) {
	x := s.issue(variant{"type-d", true, 16})
	l, ok := x.card.(Locker)
	if !ok {
		s.Skip("this card's instances can't be suspended")
	}
	if err := l.SetLocked(s.ctx, x.aid, true); err != nil {
		s.Fatal(err)
	}
	if r := x.transmit(iso7816.Select(x.aid)); r.SW == iso7816.OK {
		s.Error("a suspended instance is selected")
	}
	if err := l.SetLocked(s.ctx, x.aid, false); err != nil {
		s.Fatal(err)
	}
	x.check(x.content(), x.request())
	if o := x.observe(); o.State != 0x0F {
		s.Errorf("state %02X after resuming", o.State)
	}
}

func writes(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			x := s.issue(v)
			counter, ok := x.card.(WriteCounter)
			if !ok {
				s.Skip("this card does not count its writes")
			}
			for _, standard := range []bool{false, true} {
				r := x.request()
				r.Standard = standard
				counter.CountWrites()
				if _, err := x.read(x.card, r); err != nil {
					x.Fatal(err)
				}
				total := 0
				for _, n := range counter.Writes() {
					total += n
				}
				want := 0
				if v.pin {
					want = 2 // the try, and its return
				}
				if total != want {
					x.Errorf("a tap writes %d times, want %d", total, want)
				}
			}
		})
	}
}
