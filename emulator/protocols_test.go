package emulator

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Every protocol and option: the card says which one it speaks, is managed over
// it, and takes new keys of its kind.
func TestSecureChannelProtocols(t *testing.T) {
	var all []scp.Protocol
	for _, i := range []byte{0x00, 0x10, 0x20, 0x30, 0x60, 0x70} {
		all = append(all, scp.Protocol{Number: 3, I: i}, scp.Protocol{Number: 3, I: i | 1})
	}
	for _, i := range []byte{0x15, 0x55, 0x35, 0x75} {
		all = append(all, scp.Protocol{Number: 2, I: i})
	}
	ctx := context.Background()
	for _, p := range all {
		t.Run(p.String(), func(t *testing.T) {
			c := newTestCard(t, func(c *Config) { c.SecureChannel = p })
			r, err := globalplatform.Recognition(ctx, iso7816.Plain(c))
			if err != nil || len(r.SecureChannels) != 1 || r.SecureChannels[0] != (globalplatform.SecureChannel{Protocol: p.Number, I: int(p.I)}) {
				t.Fatalf("Card Recognition Data %+v %v", r, err)
			}
			set := testConfig(t).Keys
			open := func(level scp.Level) *scp.Session {
				t.Helper()
				transmit(t, c, "00A40400")
				s, err := scp.Open(ctx, iso7816.Plain(c), set, scp.HostOptions{Level: level, Protocols: []scp.Protocol{p}, AllowDeprecated: true, AID: IssuerSecurityDomain})
				if err != nil {
					t.Fatalf("level %v: %v", level, err)
				}
				return s
			}
			for _, level := range []scp.Level{scp.CMAC, scp.CDecryption, scp.CMACRMAC, scp.CDecRMAC, scp.Full} {
				if !p.Supports(level) {
					continue
				}
				s := open(level)
				loadTestPackage(t, s)
				want(t, s, cmdInstall(instanceA, specific(8, 0, 0, 0)), iso7816.OK)
				if list, _ := all2(t, s, scopeApplications); len(list) < 6*20 {
					t.Errorf("level %v: a list of %d bytes", level, len(list))
				}
				want(t, s, cmdDelete(testPackage, true), iso7816.OK)
			}
			// New keys, with which the session after this one is opened.
			s := open(scp.CMAC)
			kind := globalplatform.AESKey
			if p.Number == 2 {
				kind = globalplatform.TripleDESKey
			}
			next := testSet(0x30, 0x51)
			put := globalplatform.SecureChannelKeys(next, kind)
			put.Replace = 0x30
			if err := globalplatform.PutKeys(ctx, s, put); err != nil {
				t.Fatal(err)
			}
			set = next
			open(scp.CDecryption)
			if p.Number == 2 {
				if r := transmit(t, c, "80CA00E000"); r.SW != iso7816.ErrSecurityStatus {
					t.Errorf("a command without a MAC: %v", r.SW)
				}
				transmit(t, c, "00A40400")
				if r := transmit(t, c, "80CA00E000"); !bytes.Equal(r.Data, mustHex("E012C00401308010C00402308010C00403308010")) {
					t.Errorf("key information %X", r.Data)
				}
			}
		})
	}
}

func all2(t *testing.T, s iso7816.Sender, scope byte) ([]byte, int) {
	t.Helper()
	return all(t, s, scope, "4F00")
}

// Counters survive loss of power and the image, belong to a key version, and
// begin again with new keys.
func TestSequenceCounters(t *testing.T) {
	ctx := context.Background()
	for _, p := range []scp.Protocol{{Number: 2, I: 0x55}, {Number: 3, I: 0x70}} {
		path := filepath.Join(t.TempDir(), "card.img")
		cfg := testConfig(t)
		cfg.SecureChannel = p
		c, err := Create(path, cfg)
		if err != nil {
			t.Fatal(err)
		}
		counter := func(want uint32) {
			t.Helper()
			if got := c.state.issuer().domain.counter(0x30); got != want {
				t.Errorf("%v: counter %d, want %d", p, got, want)
			}
			size := 2
			if p.Number == 3 {
				size = 3
			}
			transmit(t, c, "00A40400")
			if r := transmit(t, c, "80CA00C100"); !bytes.Equal(r.Data, mustHex(fmt.Sprintf("C1%02X%0*X", size, 2*size, want))) {
				t.Errorf("%v: C1 %X", p, r.Data)
			}
		}
		counter(0)
		for n := range uint32(3) {
			if _, err := scp.Open(ctx, iso7816.Plain(c), cfg.Keys, scp.HostOptions{Level: scp.CMAC, Protocols: []scp.Protocol{p}, AllowDeprecated: true, AID: IssuerSecurityDomain}); err != nil {
				t.Fatal(err)
			}
			counter(n + 1)
			_ = c.Reset(ctx)
		}
		c.Close()
		if c, err = Open(path, nil); err != nil {
			t.Fatal(err)
		}
		counter(3)
		// A cut leaves the old number or the new one, never an answer with a
		// number that is forgotten.
		c.SetCut(Cut{Command: 1, Where: BeforeWrite, Write: 1})
		if p.Number == 3 {
			if _, err := c.Transmit(ctx, mustHex("8050000008010203040506070800")); err == nil {
				t.Error("INITIALIZE UPDATE writes no counter")
			}
			c.PowerOn()
			counter(3)
		}
		c.SetCut(Cut{})
		s, err := scp.Open(ctx, iso7816.Plain(c), cfg.Keys, scp.HostOptions{Level: scp.CMAC, Protocols: []scp.Protocol{p}, AllowDeprecated: true, AID: IssuerSecurityDomain})
		if err != nil {
			t.Fatal(err)
		}
		kind := globalplatform.AESKey
		if p.Number == 2 {
			kind = globalplatform.TripleDESKey
		}
		put := globalplatform.SecureChannelKeys(testSet(0x30, 0x51), kind)
		put.Replace = 0x30
		if err := globalplatform.PutKeys(ctx, s, put); err != nil {
			t.Fatal(err)
		}
		counter(0)
		c.Close()
	}
}

// GlobalPlatformPro asks for SCP02 with i = 00, since no answer of the card has
// told it more: what the Issuer Security Domain speaks is meant.
func TestDomainOfUnknownOptions(t *testing.T) {
	p := scp.Protocol{Number: 2, I: 0x55}
	c := newTestCard(t, func(c *Config) { c.SecureChannel = p })
	transmit(t, c, "00A40400")
	s, err := scp.Open(context.Background(), iso7816.Plain(c), testConfig(t).Keys, scp.HostOptions{Level: scp.CMAC, Protocols: []scp.Protocol{p}, AllowDeprecated: true})
	if err != nil {
		t.Fatal(err)
	}
	want(t, s, cmdInstallDomain(domainX, "808000", "81020200"), iso7816.OK)
	if got := c.state.entry(domainX).domain.protocol; got != p {
		t.Errorf("the Security Domain speaks %v", got)
	}
	c = newTestCard(t)
	want(t, authenticate(t, c, scp.CMAC), cmdInstallDomain(domainX, "808000", "81020200"), iso7816.ErrWrongData)
}

// A Security Domain speaks the protocol that its installation says.
func TestDomainsOfOtherProtocols(t *testing.T) {
	ctx := context.Background()
	c := newTestCard(t)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstallDomain(domainX, "808000", "81020370"), iso7816.OK)
	want(t, iso7816.Plain(c), iso7816.Select(domainX), iso7816.OK)
	p := scp.Protocol{Number: 3, I: 0x70}
	x, err := scp.Open(ctx, iso7816.Plain(c), testConfig(t).Keys, scp.HostOptions{Level: scp.CMAC, Protocols: []scp.Protocol{p}, AllowDeprecated: true, AID: domainX})
	if err != nil {
		t.Fatal(err)
	}
	if n := c.state.issuer().domain.counter(0x30); n != 1 {
		t.Errorf("the counter beside the issuer's keys: %d", n)
	}
	want(t, x, cmdPutKeys(t, x, 0, keysX), iso7816.OK)
	want(t, iso7816.Plain(c), iso7816.Select(domainX), iso7816.OK)
	if _, err := scp.Open(ctx, iso7816.Plain(c), keysX, scp.HostOptions{Level: scp.Full, Protocols: []scp.Protocol{p}, AllowDeprecated: true, AID: domainX}); err != nil {
		t.Error(err)
	}
	cfg := testConfig(t)
	for name, change := range map[string]func(*Config){
		"unknown protocol": func(c *Config) { c.SecureChannel = scp.Protocol{Number: 3, I: 0x80} },
		"SCP02 with AES-256": func(c *Config) {
			c.SecureChannel = scp.SCP02
			c.Keys.ENC, c.Keys.MAC, c.Keys.DEK = wide(t), wide(t), wide(t)
		},
		"life cycle": func(c *Config) { c.LifeCycle = cardLocked },
	} {
		cfg := cfg
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func wide(t testing.TB) keys.Key {
	t.Helper()
	k, err := keys.NewKey(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
