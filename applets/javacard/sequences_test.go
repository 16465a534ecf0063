package javacard_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var record = flag.Bool("record", false, "write the digests of TestSequences anew")

// TestSequences sends random sequences of commands, whose answers must be the
// recorded ones to the byte: testdata/sequences.txt has a digest of each
// sequence's commands and answers. They were recorded from an independent
// implementation of the applications, in Go, which the emulated cards had
// before they executed the load file. Every change of what the sequences send,
// or of the random numbers that a card draws, needs new ones (-record): with
// the load file and the virtual machine as they were when the old ones passed.
func TestSequences(t *testing.T) {
	const file, count = "testdata/sequences.txt", 160
	var digests strings.Builder
	seen := map[iso7816.SW]int{}
	for seed := range uint64(count) {
		w := random(t, seed, 100)
		fmt.Fprintf(&digests, "%x\n", w.digest.Sum(nil))
		for sw, n := range w.seen {
			seen[sw] += n
		}
	}
	t.Logf("%d sequences: %v", count, seen)
	// The sequences reach what there is to reach.
	for _, sw := range []iso7816.SW{
		0x6300, 0x63C2, 0x63C1, 0x63C0, 0x6700, 0x6881, 0x6882, 0x6982, 0x6983, 0x6984, 0x6985, 0x6986, 0x6A80, 0x6A82, 0x6A84, 0x6A86, 0x6A88, 0x6B00, 0x6D00, 0x6E00, 0x9000,
	} {
		if seen[sw] == 0 {
			t.Errorf("no answer was %04X", uint16(sw))
		}
	}
	if *record {
		if err := os.WriteFile(file, []byte(digests.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	recorded, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, want := strings.Fields(digests.String()), strings.Fields(string(recorded))
	if len(want) != count {
		t.Fatalf("%s has %d digests", file, len(want))
	}
	for seed := range want {
		if got[seed] != want[seed] {
			t.Errorf("sequence %d is not the recorded one", seed)
		}
	}
}

// wire is the way to a card, where what passes is noted.
type wire struct {
	*card
	t      testing.TB
	digest hash.Hash
	spoil  func([]byte) []byte // changes the next command, once
	seen   map[iso7816.SW]int
}

func (w *wire) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if w.spoil != nil {
		command, w.spoil = w.spoil(command), nil
	}
	answer, err := w.card.Transmit(ctx, bytes.Clone(command))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range [][]byte{command, answer} {
		w.digest.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		w.digest.Write(b)
	}
	if r, err := iso7816.ParseResponse(answer); err == nil {
		w.seen[r.SW]++
	}
	return answer, nil
}

// generator makes what is random.
type generator struct {
	*rand.Rand
}

func pick[T any](g generator, of ...T) T { return of[g.IntN(len(of))] }

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// damage changes, drops or adds a byte.
func (g generator) damage(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) == 0 {
		return []byte{0}
	}
	i := g.IntN(len(b))
	switch g.IntN(4) {
	case 0:
		return append(b[:i], b[i+1:]...)
	case 1:
		return append(b[:i:i], append([]byte{byte(g.Uint32())}, b[i:]...)...)
	case 2:
		b[i] = pick[byte](g, 0, 1, 0x10, 0x20, 0x7F, 0x80, 0x81, 0x82, 0xC3, 0xE1, 0xFF)
	default:
		b[i] ^= 1 << g.IntN(8)
	}
	return b
}

func (g generator) key(version byte, size int) keys.Set {
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

func newPIN(digits string) applets.PIN {
	p, err := applets.NewPIN(digits)
	if err != nil {
		panic(err)
	}
	return p
}

// pinBlock is mostly the PIN that was set first.
func (g generator) pinBlock() []byte {
	digits := pick(g, "1234", "1234", "1234", "1234", "1234", "48151623", "123456789012", "123", "12a4")
	b := append([]byte(digits), bytes.Repeat([]byte{0xFF}, 12-len(digits))...)
	if g.chance(5) {
		return g.damage(b)
	}
	return b
}

// content is what an instance may hold, and sometimes may not.
func (g generator) content(p applets.Profile, spec applets.InstallSpec) applets.Content {
	c := applets.Content{
		Record: applets.Record{Service: "s", ID: string(bytes.Repeat([]byte{'x'}, 1+g.IntN(64))), IssueNumber: uint16(g.Uint32())},
		Tag:    [16]byte(g.bytes(16)),
	}
	if g.chance(50) {
		c.Record.Expiry = time.Date(2031, 3, 31, 0, 0, 0, 0, time.UTC)
	}
	if g.chance(50) {
		c.Record.Signature = g.bytes(64)
	}
	if !p.Traits().MutualAuthentication {
		return c
	}
	if g.chance(70) {
		for i := range 1 + g.IntN(4) {
			c.Items = append(c.Items, applets.Item{Name: fmt.Sprint(i), Value: string(bytes.Repeat([]byte{'y'}, g.IntN(200)))})
		}
	}
	if g.chance(30) {
		c.KeepKeys = true
	} else {
		for v := 1 + g.IntN(spec.KeySets); v > 0; v-- {
			c.ReadKeys = append(c.ReadKeys, g.key(byte(v), pick(g, 16, 32)))
		}
	}
	if spec.PIN && g.chance(70) {
		c.PIN = &applets.PINSetting{Reference: newPIN(pick(g, "1234", "1234", "48151623")), Limit: byte(g.IntN(5)), MustChange: g.chance(20)}
	} else {
		c.KeepPIN = true
	}
	return c
}

// sequence is one run.
type sequence struct {
	generator
	ctx  context.Context
	t    testing.TB
	wire *wire
	host
	profile applets.Profile
	spec    applets.InstallSpec
	aid     iso7816.AID
	session iso7816.Sender // with the instance, nil for none
	info    applets.ApplicationInfo
	sizes   map[byte]int // of key versions
}

// random runs one sequence.
func random(t testing.TB, seed uint64, commands int) *wire {
	var chacha [32]byte
	binary.BigEndian.PutUint64(chacha[:], seed)
	c := newCard(t, executed(), rand.NewChaCha8(chacha))
	w := &wire{card: c, t: t, digest: sha256.New(), seen: map[iso7816.SW]int{}}
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	s := &sequence{generator: g, ctx: context.Background(), t: t, wire: w, host: host{w, c.keys, nil}}
	s.host.random = s
	s.profile = applets.Base()[g.IntN(3)]
	s.aid = iso7816.MustAID(pick(g, "F0465245454152454101", "F046524545415245410102030405AABB", "F011121314"))
	if s.profile.Traits().MutualAuthentication {
		s.spec = applets.InstallSpec{DiversificationData: [10]byte(g.bytes(10)), KeySets: 1 + g.IntN(4), ItemsCapacity: pick(g, 0, 64, 300, 1024), PIN: g.chance(60)}
	}
	params, err := s.profile.InstallParameters(s.spec)
	if err != nil {
		t.Fatal(err)
	}
	if g.chance(30) {
		_ = s.Install(s.ctx, s.profile.Name(), s.aid, g.damage(params)) // refused, or not
	}
	_ = s.Install(s.ctx, s.profile.Name(), s.aid, params)
	if g.chance(90) {
		s.personalize(0)
	}
	for range commands {
		s.step()
	}
	return w
}

func (s *sequence) step() {
	switch s.IntN(24) {
	case 0:
		s.personalize(s.IntN(100))
	case 1:
		s.storeAnything()
	case 2:
		s.observe()
	case 3:
		if s.chance(30) {
			s.store(func(sd *scp.Session) { s.blocks(sd, s.profile.Wipe()) })
		}
	case 4:
		if err := s.wire.PowerCycle(s.ctx); err != nil {
			s.t.Fatal(err)
		}
		s.session = nil
	case 5:
		_ = s.SetLocked(s.ctx, s.aid, s.chance(15))
		s.session = nil
	case 6, 7, 8:
		s.anything()
	case 9, 10, 11:
		if s.chance(70) || s.session == nil {
			s.open()
		}
		s.inSession()
	default:
		if s.session == nil {
			s.open()
		}
		s.inSession()
	}
}

// choose selects the instance and looks at what it says.
func (s *sequence) choose() bool {
	s.session = nil
	info, err := applets.SelectInfo(s.ctx, s.Card, s.aid)
	s.info = info
	return err == nil && len(info.KeyVersions) > 0
}

// open opens a session with the instance in one way or the other, or tries to.
func (s *sequence) open() {
	if !s.choose() {
		return
	}
	version := pick(s.generator, s.info.KeyVersions...)
	set := s.key(version, pick(s.generator, 16, 32))
	if n := s.sizes[version]; n != 0 && s.chance(95) {
		set = s.key(version, n)
	}
	level := pick(s.generator, scp.Full, scp.Full, scp.Full, scp.CDecRMAC, scp.CMACRMAC, scp.CMAC, scp.None, scp.Level(s.Uint32()))
	plain := iso7816.Plain(s.Card)
	if s.chance(40) && level.Valid() {
		session, err := scp.Open(s.ctx, plain, set, scp.HostOptions{Level: level, KeyVersion: version, Rand: s})
		if err == nil {
			s.session = session
		}
		return
	}
	challenge := [16]byte(s.bytes(16))
	if s.chance(10) {
		s.anything()
	}
	if s.chance(5) {
		s.info.Challenge = [16]byte{}
	}
	k, err := applets.ExpressKeys(set, challenge, s.info.Challenge)
	if err != nil {
		s.t.Fatal(err)
	}
	mac, err := applets.ExpressMAC(k.MAC, s.aid, version, level, challenge)
	if err != nil {
		s.t.Fatal(err)
	}
	c := iso7816.Command{CLA: 0x84, INS: applets.InsExpress, P1: version, P2: byte(level), Data: append(challenge[:], mac[:8]...), Ne: 256}
	if s.chance(5) {
		c.Data = s.damage(c.Data)
	}
	if r, err := plain.Send(s.ctx, c); err == nil && r.SW == iso7816.OK {
		s.session = scp.ResumeHost(plain, k, level, mac, 1)
	}
}

// Read makes the sequence a source of the host's challenges.
func (s *sequence) Read(p []byte) (int, error) { return copy(p, s.bytes(len(p))), nil }

func (s *sequence) inSession() {
	if s.session == nil {
		return
	}
	c := iso7816.Command{CLA: 0x80, Ne: pick(s.generator, 0, 1, 17, 100, 239, 248, 256, 256, 256)}
	switch s.IntN(10) {
	case 0, 1, 2, 3:
		c.INS, c.P1, c.P2 = applets.InsReadBinary, pick[byte](s.generator, 0x81, 0x81, 0x82, 0x82, 0x83, 0xA1, 0x00, 0x01, 0x80), pick[byte](s.generator, 0, 0, 0, 1, 5, 50, 224, 255)
		if s.chance(5) {
			c.Data = s.bytes(1)
		}
	case 4, 5, 6:
		c.INS, c.P2, c.Data = applets.InsVerify, 1, s.pinBlock()
	case 7:
		c.INS, c.P2, c.Data = applets.InsChangeReference, 1, append(s.pinBlock(), s.pinBlock()...)
	case 8:
		c.INS, c.P1, c.P2, c.Data = pick[byte](s.generator, 0xB2, 0xD6, 0xE2, 0x54, 0x82, 0x20, 0x24), byte(s.IntN(3)), byte(s.IntN(3)), s.bytes(s.IntN(40))
	case 9:
		s.anything()
		return
	}
	if s.chance(8) {
		s.wire.spoil = s.damage
	}
	r, err := s.session.Send(s.ctx, c)
	if err != nil || r.SW == iso7816.ErrSecurityStatus && s.chance(70) {
		s.session = nil
	}
}

// anything sends a command as a stranger would.
func (s *sequence) anything() {
	c := iso7816.Command{
		CLA: pick[byte](s.generator, 0x00, 0x80, 0x80, 0x84, 0x84, 0x04, 0x0C, 0x90, 0x20, 0xC0, 0xFF),
		INS: pick[byte](s.generator, 0xB0, 0xB0, 0x20, 0x24, 0x54, 0x54, 0x50, 0x50, 0x82, 0xE2, 0xD6, 0x99, 0xA4),
		P1:  pick[byte](s.generator, 0, 1, 2, 0x33, 0x13, 0x10, 0x81, 0x82, 0xA0, byte(s.Uint32())),
		P2:  pick[byte](s.generator, 0, 0, 1, 0x33, 0x11, byte(s.Uint32())),
		Ne:  pick(s.generator, 0, 1, 8, 200, 256, 256, 256),
	}
	if s.chance(70) {
		c.Data = s.bytes(pick(s.generator, 1, 7, 8, 8, 12, 16, 16, 20, 24, 24, 25, 40, 255))
	}
	if c.INS == 0xA4 && s.chance(50) {
		c.CLA, c.P1, c.P2, c.Data = 0, 4, 0, s.aid.Bytes()
		s.session = nil
	}
	if c.INS == 0x50 && s.chance(50) {
		c.CLA, c.P1, c.P2, c.Data = 0x80, 0, 0, s.bytes(8)
		s.session = nil
	}
	_, _ = iso7816.Send(s.ctx, s.Card, c)
	if c.INS == 0x50 && s.chance(50) {
		_, _ = iso7816.Send(s.ctx, s.Card, iso7816.Command{CLA: 0x84, INS: 0x82, P1: 0x33, Data: s.bytes(16)})
	}
}

// store opens a Security Domain session for the instance.
func (s *sequence) store(f func(*scp.Session)) {
	s.session = nil
	sd, err := s.SecurityDomain(s.ctx, pick(s.generator, scp.CDecryption, scp.CDecryption, scp.Full, scp.Full, scp.CMAC))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := globalplatform.Execute(s.ctx, sd, globalplatform.InstallForPersonalization{Instance: s.aid}); err != nil {
		return // it is locked
	}
	f(sd)
}

func (s *sequence) observe() {
	s.store(func(sd *scp.Session) {
		_, _ = sd.Send(s.ctx, iso7816.Command{CLA: 0x80, INS: 0xE2, P1: 0x89, Data: s.profile.ObservationRequest(), Ne: 256})
	})
}

func (s *sequence) blocks(sd *scp.Session, blocks [][]byte) {
	for i, b := range blocks {
		p1 := byte(0x08)
		if i == len(blocks)-1 && s.chance(85) { // otherwise it stays open
			p1 |= 0x80
		}
		if len(b) > 239 {
			b = b[:239]
		}
		if r, err := sd.Send(s.ctx, iso7816.Command{CLA: 0x80, INS: 0xE2, P1: p1, P2: byte(i), Data: b}); err != nil || r.SW != iso7816.OK && s.chance(50) {
			return
		}
	}
}

// personalize sends content, with something wrong in it as often as said.
func (s *sequence) personalize(wrong int) {
	s.store(func(sd *scp.Session) {
		c := s.content(s.profile, s.spec)
		blocks, err := s.profile.Personalization(c, sd.EncryptSensitive)
		if err != nil {
			return // the channel can't decrypt
		}
		for _, set := range c.ReadKeys {
			if s.sizes == nil {
				s.sizes = map[byte]int{}
			}
			s.sizes[set.Version] = len(set.ENC.Bytes())
		}
		if s.chance(wrong) {
			i := s.IntN(len(blocks))
			whole := blocks[i]
			blocks[i] = s.damage(whole)
			if s.chance(50) { // and then as if nothing had been
				blocks = append(append(blocks[:i+1:i+1], whole[min(4, len(whole)):]), blocks[i+1:]...)
			}
		}
		if s.chance(wrong / 4) {
			blocks = blocks[:len(blocks)-1]
		}
		s.blocks(sd, blocks)
	})
}

// storeAnything sends data groups of all kinds in an order that is none.
func (s *sequence) storeAnything() {
	s.store(func(sd *scp.Session) {
		record, err := s.content(s.profile, s.spec).Record.Encode()
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range 1 + s.IntN(3) {
			var b []byte
			for n := range 1 + s.IntN(4) {
				id := pick[uint16](s.generator, 0x0100, 0x0101, 0x0101, 0x0102, 0x0110, 0x8101, 0x8201, 0x0F00, 0x0F0F, 0x0777)
				if i == 0 && n == 0 && s.chance(80) {
					id = 0x0100
				}
				var data []byte
				switch id {
				case 0x0100:
					data = []byte{pick[byte](s.generator, 0, 0, 0, 1, 2)}
				case 0x0101:
					data = pick(s.generator, s.damage(record), record, []byte{0xC3, 1, 1}, []byte{0xC1, 0, 0xC3, 3, 1, 2, 3}, []byte{0x5F, 0x20, 0, 0xC3, 2, 1, 2})
				case 0x0102:
					data = append([]byte{0, byte(s.IntN(2) * 5)}, pick(s.generator, []byte{0xE1, 3, 0xC1, 1, 0}, []byte{0xE1, 0}, s.bytes(5))...)
				case 0x0110:
					data = s.bytes(16)
				case 0x8101, 0x8201:
					data = s.bytes(pick(s.generator, 18, 40, 72))
				case 0x0F0F:
					data = []byte("WIPE")
				}
				if s.chance(5) {
					data = s.damage(data)
				}
				b = append(append(b, byte(id>>8), byte(id), byte(len(data))), data...)
			}
			b = b[:min(len(b), 239)]
			p1 := pick[byte](s.generator, 0x08, 0x08, 0x08, 0x88, 0x88, 0x89, 0x68, 0x80, 0x0A)
			c := iso7816.Command{CLA: 0x80, INS: 0xE2, P1: p1, P2: byte(i), Data: b}
			if p1&1 != 0 {
				c.Ne = 256
			}
			if _, err := sd.Send(s.ctx, c); err != nil {
				return
			}
		}
	})
}
