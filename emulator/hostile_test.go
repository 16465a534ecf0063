package emulator

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/hostile"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// lies says how many lies and mutations of a session are tried.
var lies = flag.Int("lies", 0, "try hostile cards' lies and hosts' mutations: one of so many, 1 for every one; 0 for a few")

// management is a host that does all it can with a card: one session with the
// Issuer Security Domain, and one with X, which manages by tokens.
type management struct {
	protocol scp.Protocol
	level    scp.Level
	hosts    stream
}

var errIncomplete = errors.New("the registry lacks what was installed")

func (m management) open(ctx context.Context, card iso7816.Card, domain iso7816.AID, set keys.Set) (*scp.Session, error) {
	plain := iso7816.Plain(card)
	if _, err := globalplatform.Select(ctx, plain, domain); err != nil {
		return nil, err
	}
	pending, err := globalplatform.Connect(ctx, plain, globalplatform.CardProfile{SecurityDomain: domain},
		scp.HostOptions{Level: m.level, Rand: &m.hosts, Protocols: []scp.Protocol{m.protocol}, AllowDeprecated: true, AID: domain})
	if err != nil {
		return nil, err
	}
	return pending.Authenticate(ctx, set)
}

// run is the whole of it.
func (m management) run(ctx context.Context, card iso7816.Card, set keys.Set) error {
	s, err := m.open(ctx, card, IssuerSecurityDomain, set)
	if err != nil {
		return err
	}
	file, err := capfile.ParseLoadFileDataBlock(testLoadFile(testPackage, testModuleID, otherModule))
	if err != nil {
		return err
	}
	execute := func(c globalplatform.Commander) error { _, err := globalplatform.Execute(ctx, s, c); return err }
	install := globalplatform.InstallForInstall{LoadFile: testPackage, Module: testModuleID, Instance: instanceA, MakeSelectable: true,
		Parameters: globalplatform.InstallParameters{Specific: specific(8, 0, 0, 0)}}
	kind := globalplatform.AESKey
	if m.protocol.Number == 2 {
		kind = globalplatform.TripleDESKey
	}
	for _, step := range []func() error{
		func() error { _, err := globalplatform.IIN(ctx, s); return err },
		func() error { _, err := globalplatform.CIN(ctx, s); return err },
		func() error { _, err := globalplatform.Keys(ctx, s); return err },
		func() error { _, err := globalplatform.Resources(ctx, s); return err },
		func() error { _, err := globalplatform.Capabilities(ctx, s); return err },
		func() error {
			_, err := globalplatform.Load(ctx, s, file, globalplatform.LoadOptions{BlockSize: 100}, nil)
			return err
		},
		func() error { return execute(install) },
		func() error {
			list, err := globalplatform.GetStatus(ctx, s, globalplatform.ScopeApplications, instanceA)
			if err == nil && (len(list) != 1 || list[0].AID != instanceA) {
				err = errIncomplete
			}
			return err
		},
		func() error {
			_, err := globalplatform.GetStatus(ctx, s, globalplatform.ScopeLoadFilesAndModules, iso7816.AID{})
			return err
		},
		func() error { return globalplatform.SetLocked(ctx, s, instanceA, true) },
		func() error { return globalplatform.SetLocked(ctx, s, instanceA, false) },
		func() error { return execute(globalplatform.InstallForPersonalization{Instance: instanceA}) },
		func() error {
			_, err := globalplatform.Store(ctx, s, [][]byte{{1}, {2}}, globalplatform.StoreOptions{Format: globalplatform.FormatDGI}, nil)
			return err
		},
		func() error {
			return globalplatform.PutKeys(ctx, s, globalplatform.SecureChannelKeys(keysY, kind))
		},
		func() error { return execute(globalplatform.DeleteKey{Version: keysY.Version}) },
		func() error { return execute(globalplatform.Delete{AID: testPackage, Related: true}) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return m.delegate(ctx, card, file)
}

// delegate manages by tokens and verifies the receipts.
func (m management) delegate(ctx context.Context, card iso7816.Card, file *capfile.File) error {
	s, err := m.open(ctx, card, domainX, keysX)
	if err != nil {
		return err
	}
	signer := signers()["AES-128"].Signer
	last := -1
	confirmed := func(answer []byte, covers globalplatform.ReceiptData) error {
		confirmation, err := globalplatform.ParseConfirmation(answer)
		if err != nil {
			return err
		}
		err = confirmation.Verify(globalplatform.AESScheme{Key: receiptKey}, globalplatform.Expectation{Operation: covers, After: last})
		last = int(confirmation.Counter)
		return err
	}
	hash := file.Hash()
	load := globalplatform.InstallForLoad{LoadFile: testPackage, Hash: hash[:]}
	if load.Token, err = globalplatform.Token(signer, load); err != nil {
		return err
	}
	if _, err := globalplatform.Execute(ctx, s, load); err != nil {
		return err
	}
	blocks, err := globalplatform.LoadFile(file.LoadFileDataBlock())
	if err != nil {
		return err
	}
	parts, err := globalplatform.LoadBlocks(blocks, 100)
	if err != nil {
		return err
	}
	var answer []byte
	for _, b := range parts {
		if answer, err = globalplatform.Execute(ctx, s, b); err != nil {
			return err
		}
	}
	if err := confirmed(answer, globalplatform.LoadReceipt(testPackage, domainX)); err != nil {
		return err
	}
	remove := globalplatform.Delete{AID: testPackage}
	if remove.Token, err = globalplatform.Token(signer, remove); err != nil {
		return err
	}
	if answer, err = globalplatform.Execute(ctx, s, remove); err != nil {
		return err
	}
	return confirmed(answer, globalplatform.DeleteReceipt(testPackage))
}

// managed is the image of a card that the management begins with, and the keys
// of its Issuer Security Domain.
func managed(t *testing.T, p scp.Protocol) ([]byte, keys.Set) {
	t.Helper()
	c := newTestCard(t, func(c *Config) { c.SecureChannel = p })
	set := testConfig(t).Keys
	kind := globalplatform.AESKey
	if p.Number == 2 {
		kind = globalplatform.TripleDESKey
	}
	m := management{protocol: p, level: scp.CDecryption}
	s, err := m.open(t.Context(), c, IssuerSecurityDomain, set)
	if err != nil {
		t.Fatal(err)
	}
	want(t, s, cmdInstallDomain(domainX, "A08000", ""), iso7816.OK)
	putOne(t, s, versionToken, signers()["AES-128"].KeyValue)
	putOne(t, s, versionReceipt, globalplatform.AESKey(receiptKey))
	if s, err = m.open(t.Context(), c, domainX, set); err != nil {
		t.Fatal(err)
	}
	if err := globalplatform.PutKeys(t.Context(), s, globalplatform.SecureChannelKeys(keysX, kind)); err != nil {
		t.Fatal(err)
	}
	return encodeImage(c.state), set
}

func fromImage(t *testing.T, image []byte) *Card {
	t.Helper()
	state, err := decodeImage(image)
	if err != nil {
		t.Fatal(err)
	}
	return newCard(state, testLinker{}, &stream{n: 7})
}

// content is the card's image without the sequence counters: an INITIALIZE
// UPDATE that was asked for again (6Cxx) has taken a number.
func content(t *testing.T, c *Card) []byte {
	t.Helper()
	state := fromImage(t, encodeImage(c.state)).state
	for _, e := range state.entries {
		if e.domain != nil {
			e.domain.counters = nil
		}
	}
	return encodeImage(state)
}

// mistrust is what the errors are that a host may have of a card that lies.
var mistrust = []error{
	scp.ErrCardCryptogram, scp.ErrResponseMAC, scp.ErrSessionOver, scp.ErrLevel, scp.ErrKeyVersion, scp.ErrCardChallenge, scp.ErrMalformedKeyInformation,
	scp.ErrProtocolNotSupported, globalplatform.ErrMalformed, globalplatform.ErrOtherApplication, globalplatform.ErrKey, globalplatform.ErrKeyCheck,
	globalplatform.ErrSignature, globalplatform.ErrReceipt, globalplatform.ErrTransition, errIncomplete,
}

// sessions are every protocol at its highest level, and one without R-MAC,
// which has to rely on what the answers say.
func sessions() []management {
	var out []management
	for _, p := range []scp.Protocol{
		{Number: 3, I: 0x00}, {Number: 3, I: 0x10}, {Number: 3, I: 0x20}, {Number: 3, I: 0x30}, {Number: 3, I: 0x60}, {Number: 3, I: 0x70},
		{Number: 3, I: 0x61}, {Number: 3, I: 0x71}, {Number: 2, I: 0x15}, {Number: 2, I: 0x35}, {Number: 2, I: 0x55}, {Number: 2, I: 0x75},
	} {
		for _, l := range []scp.Level{scp.Full, scp.CDecRMAC, scp.CDecryption} {
			if p.Supports(l) {
				out = append(out, management{protocol: p, level: l, hosts: stream{n: 99}})
				break
			}
		}
	}
	return append(out, management{protocol: scp.Protocol{Number: 3, I: 0x60}, level: scp.CDecryption, hosts: stream{n: 99}})
}

func stride(all, few int) int {
	if *lies > 0 {
		return *lies
	}
	return max(1, all/few) | 1
}

// A host that manages a card which lies, over every secure channel protocol:
// what it believes done is done, where answers have a MAC.
func TestHostsAgainstHostileCards(t *testing.T) {
	for _, m := range sessions() {
		t.Run(fmt.Sprintf("%v at %v", m.protocol, m.level), func(t *testing.T) {
			image, set := managed(t, m.protocol)
			run := func(ctx context.Context, card iso7816.Card) error { return m.run(ctx, card, set) }
			c := fromImage(t, image)
			honest := hostile.Measure(t, c, run)
			done := content(t, c)
			attacks := hostile.Attacks(*lies == 1)
			told := 0
			tell := func(at int, a hostile.Attack) {
				told++
				t.Run(fmt.Sprintf("%s to command %d", a.Name, at), func(t *testing.T) {
					c := fromImage(t, image)
					card := &hostile.Card{Card: c, Attack: a, At: at}
					err := hostile.Run(t, honest, card, mistrust, run)
					switch authentic := m.level&scp.CMACRMAC == scp.CMACRMAC; {
					case err == nil && authentic && !bytes.Equal(content(t, c), done):
						t.Error("the host believes all done, and the card is another")
					case err == nil && authentic && a.Forged && card.Lied && card.Protected:
						t.Error("the host does not see that the answer is forged")
					}
				})
			}
			for i := 0; i < honest.Commands*len(attacks); i += stride(honest.Commands*len(attacks), 100) {
				tell(i/len(attacks)+1, attacks[i%len(attacks)])
			}
			for _, a := range attacks[:10] {
				for at := 1; at <= honest.Commands && a.Forged && *lies != 1; at++ {
					tell(at, a) // a bit of every answer, whatever the sample
				}
			}
			t.Logf("%d of %d lies", told, honest.Commands*len(attacks))
		})
	}
}

// tape keeps the commands.
type tape struct {
	*Card
	commands [][]byte
}

func (c *tape) Transmit(ctx context.Context, b []byte) ([]byte, error) {
	c.commands = append(c.commands, bytes.Clone(b))
	return c.Card.Transmit(ctx, b)
}

// A mutation is what a hostile host, or somebody between, makes of a command.
type mutation struct {
	name string
	make func(b []byte) []byte
}

func mutations(n int) []mutation {
	var out []mutation
	for i := range n {
		out = append(out,
			mutation{fmt.Sprintf("byte %d changed", i), func(b []byte) []byte { b = bytes.Clone(b); b[i] ^= 1 << (i % 8); return b }},
			mutation{fmt.Sprintf("cut to %d bytes", i), func(b []byte) []byte { return bytes.Clone(b[:i]) }},
			mutation{fmt.Sprintf("byte %d twice", i), func(b []byte) []byte { return append(bytes.Clone(b[:i+1]), b[i:]...) }})
	}
	return append(out,
		mutation{"garbage behind it", func(b []byte) []byte { return append(bytes.Clone(b), bytes.Repeat([]byte{0xA5}, 300)...) }},
		mutation{"64 KiB behind it", func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 1<<16)...) }})
}

// sameButLe reports whether two commands differ at most in Le, which no MAC
// covers.
func sameButLe(a, b []byte) bool {
	x, err := iso7816.ParseCommand(a)
	y, err2 := iso7816.ParseCommand(b)
	x.Ne, y.Ne = 0, 0
	return err == nil && err2 == nil && x.CLA == y.CLA && x.INS == y.INS && x.P1 == y.P1 && x.P2 == y.P2 && bytes.Equal(x.Data, y.Data)
}

// A card refuses a protected command that was changed in any byte, and stays
// as it is; a command that is said twice, or left out, ends the session.
func TestCardAgainstHostileHosts(t *testing.T) {
	for _, m := range sessions() {
		t.Run(fmt.Sprintf("%v at %v", m.protocol, m.level), func(t *testing.T) {
			image, set := managed(t, m.protocol)
			recorded := &tape{Card: fromImage(t, image)}
			if err := m.run(t.Context(), recorded, set); err != nil {
				t.Fatal(err)
			}
			say := func(c *Card, b []byte) iso7816.SW {
				t.Helper()
				answer, err := c.Transmit(t.Context(), b)
				if err != nil || len(answer) < 2 || len(answer) > 65_538 {
					t.Fatalf("%X: %d bytes, %v", b[:min(8, len(b))], len(answer), err)
				}
				return iso7816.SW(answer[len(answer)-2])<<8 | iso7816.SW(answer[len(answer)-1])
			}
			const secured, authentication = 0x84, 0x82
			tried := 0
			for n, original := range recorded.commands {
				protected := original[0]&secured == secured
				c := fromImage(t, image)
				for _, b := range recorded.commands[:n] {
					say(c, b)
				}
				before := encodeImage(c.state)
				all := mutations(len(original))
				for i := n % 7; i < len(all); i += stride(len(all), 3) {
					c := fromImage(t, image)
					for _, b := range recorded.commands[:n] {
						say(c, b)
					}
					tried++
					b := all[i].make(original)
					sw := say(c, b)
					if protected && !sameButLe(b, original) && (sw == iso7816.OK || original[1] != authentication && !bytes.Equal(encodeImage(c.state), before)) {
						t.Errorf("command %d, %s: %v", n, all[i].name, sw)
					}
					if protected && original[1] != authentication && sw == iso7816.ErrSecurityStatus {
						now := encodeImage(c.state)
						if sw := say(c, original); sw == iso7816.OK || !bytes.Equal(encodeImage(c.state), now) {
							t.Errorf("command %d after %s: the session goes on with %v", n, all[i].name, sw)
						}
					}
					for _, b := range recorded.commands[n+1:] {
						say(c, b)
					}
					if got, err := decodeImage(encodeImage(c.state)); err != nil || !bytes.Equal(encodeImage(got), encodeImage(c.state)) {
						t.Errorf("command %d, %s: the card's state has no image: %v", n, all[i].name, err)
					}
				}
				if !protected || original[1] == authentication {
					continue
				}
				say(c, original)
				after := encodeImage(c.state)
				if sw := say(c, original); sw != iso7816.ErrSecurityStatus || !bytes.Equal(encodeImage(c.state), after) {
					t.Errorf("command %d said twice: %v", n, sw)
				}
				if n+1 == len(recorded.commands) || recorded.commands[n+1][0]&secured != secured {
					continue
				}
				c = fromImage(t, image)
				for _, b := range recorded.commands[:n] {
					say(c, b)
				}
				if sw := say(c, recorded.commands[n+1]); sw != iso7816.ErrSecurityStatus || !bytes.Equal(encodeImage(c.state), before) {
					t.Errorf("command %d left out: %v to the next", n, sw)
				}
			}
			t.Logf("%d commands, %d mutations", len(recorded.commands), tried)
		})
	}
}
