package globalplatform_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func aesKey(t testing.TB, s string) keys.Key {
	t.Helper()
	k, err := keys.NewKey(unhex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keyDomain is a Security Domain that speaks a protocol with the development
// keys, gathers chained commands, and answers as it is told.
type keyDomain struct {
	t       testing.TB
	channel *scp.CardSession
	counter uint32
	chain   globalplatform.Chain
	got     []iso7816.Command
	answers func(iso7816.Command) iso7816.Response
}

func (d *keyDomain) Send(_ context.Context, c iso7816.Command) (iso7816.Response, error) {
	b, err := c.Encode()
	if err != nil {
		return iso7816.Response{}, err
	}
	if c, err = iso7816.ParseCommand(b); err != nil || c.Extended {
		d.t.Fatalf("%X: %v", b, err)
	}
	switch c.INS {
	case 0x50:
		return d.channel.InitializeUpdate(c), nil
	case 0x82:
		return d.channel.ExternalAuthenticate(c), nil
	}
	whole, err := d.chain.Add(c)
	if err != nil || whole == nil {
		return iso7816.Response{SW: status(err)}, nil
	}
	plain, err := d.channel.Unwrap(*whole)
	if err != nil {
		return iso7816.Response{SW: status(err)}, nil
	}
	d.got = append(d.got, plain)
	return d.channel.Wrap(d.answers(plain)), nil
}

func status(err error) iso7816.SW {
	var sw iso7816.SW
	if !errors.As(err, &sw) {
		return iso7816.OK
	}
	return sw
}

// keyInformation is what a card with the development key set has.
const keyInformation = "E012 C00401018810 C00402018810 C00403018810"

func openKeyDomain(t testing.TB, p scp.Protocol, counter uint32, answers map[byte]string) (*keyDomain, *scp.Session) {
	t.Helper()
	set := keys.DevelopmentSet()
	d := &keyDomain{t: t, counter: counter, answers: func(c iso7816.Command) iso7816.Response {
		a, ok := answers[c.INS]
		if !ok {
			return iso7816.Response{SW: iso7816.ErrDataNotFound}
		}
		return iso7816.Response{Data: unhex(t, a), SW: iso7816.OK}
	}}
	d.channel = scp.NewCardSession(scp.CardOptions{
		Protocol: p, AID: globalplatform.IssuerSecurityDomain,
		Keys:       func(byte) (keys.Set, bool) { return set, true },
		Counter:    func(byte) (uint32, error) { return d.counter, nil },
		SetCounter: func(_ byte, n uint32) error { d.counter = n; return nil },
	})
	s, err := scp.Open(t.Context(), d, set, scp.HostOptions{
		Level: scp.CDecryption, Protocols: []scp.Protocol{p}, AllowDeprecated: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, s
}

// The data fields are those of velikodniy/jcexpress, class
// GPSessionKeyManagementTest, whose key sets are 11…66 (DES) and 00…2F (AES),
// under the DEK of SCP02 at sequence counter 009B, and of SCP03; and of
// GlobalPlatformPro, TestPlaintextKeys (40…4F at counter 0). What a card
// answers is its check values, which these sources have too.
func TestPutKeyVectors(t *testing.T) {
	des := keys.Set{ENC: aesKey(t, "11111111111111112222222222222222"), MAC: aesKey(t, "33333333333333334444444444444444"), DEK: aesKey(t, "55555555555555556666666666666666")}
	aes := keys.Set{ENC: aesKey(t, "000102030405060708090A0B0C0D0E0F"), MAC: aesKey(t, "101112131415161718191A1B1C1D1E1F"), DEK: aesKey(t, "202122232425262728292A2B2C2D2E2F")}
	with := func(set keys.Set, version, replace byte, kind func(keys.Key) globalplatform.KeyValue) globalplatform.PutKey {
		set.Version = version
		p := globalplatform.SecureChannelKeys(set, kind)
		p.Replace = replace
		return p
	}
	for name, x := range map[string]struct {
		protocol scp.Protocol
		counter  uint32
		put      globalplatform.PutKey
		has      string // key information
		want     string
		answer   string
	}{
		"DES keys over SCP02": {scp.SCP02, 0x9B, with(des, 1, 0, globalplatform.TripleDESKey), "",
			"80D8008143 01 80107213DEBAC6A31AEBF4740A011783C7AC03D2B91C 801006A3B3E1B86274ECB85DA909AF7E0B8E03E18DE2 801069A8BE9FB1F50FCDF1567A20C1DF94E303DDB736 00",
			"01 D2B91C E18DE2 DDB736"},
		"AES keys over SCP02": {scp.SCP02, 0x9B, with(aes, 2, 1, globalplatform.AESKey), keyInformation,
			"80D8018146 02 881110 6EB7D8F3988B58B91AC852DBEE5F3580 03C35280 881110 88C3AC7A8E83F89E2BACFC5D7F4C5865 03013808 881110 124162F18BE7DA3044EF3099215AEDE6 03840DE5 00",
			"02 C35280 013808 840DE5"},
		"AES keys over SCP03": {scp.SCP03, 0, with(aes, 3, 1, globalplatform.AESKey), keyInformation,
			"80D8018146 03 881110 3D0FA4B855D2A5AA4954B8B5DF582A3A 03C35280 881110 790ACCDA858B997029FA9AE50C9CD028 03013808 881110 8CAA7F589AA0CEB6350A45E70A6E435B 03840DE5 00",
			"03 C35280 013808 840DE5"},
		"AES-192": {scp.SCP03, 0, globalplatform.PutKey{Version: 4, ID: 1, Keys: []globalplatform.KeyValue{globalplatform.AESKey(aesKey(t, "000102030405060708090A0B0C0D0E0F1011121314151617"))}}, keyInformation,
			"80D8000128 04 882118 3D0FA4B855D2A5AA4954B8B5DF582A3A091178493F68BAFFEC01366CE60189E2 0338FCB6 00", "04 38FCB6"},
		"DES keys over SCP03": {scp.SCP03, 0, with(des, 5, 1, globalplatform.TripleDESKey), "E012 C00401018010 C00402018010 C00403018010",
			"80D8018143 05 801031E6A4F24C33D66CAEEEF57762EC698003D2B91C 8010ACCCBDCEC4C193AF6282B22628E335E103E18DE2 80100BCA2A8E8246AB1B0D859407D17D7A3603DDB736 00",
			"05 D2B91C E18DE2 DDB736"},
		"GlobalPlatformPro": {scp.SCP02, 0, globalplatform.PutKey{Version: 1, ID: 1, Keys: []globalplatform.KeyValue{globalplatform.TripleDESKey(keys.DevelopmentSet().ENC)}}, "",
			"80D8000117 01 8010EFBEE6C6D99D7B70BDE9D7E927F020AF038BAF47 00", "01 8BAF47"},
	} {
		t.Run(name, func(t *testing.T) {
			answers := map[byte]string{0xD8: x.answer}
			if x.has != "" {
				answers[0xCA] = x.has
			}
			d, s := openKeyDomain(t, x.protocol, x.counter, answers)
			if err := globalplatform.PutKeys(t.Context(), s, x.put); err != nil {
				t.Fatal(err)
			}
			if len(d.got) != 2 || d.got[0].INS != 0xCA || d.got[0].P2 != 0xE0 {
				t.Fatalf("commands %+v", d.got)
			}
			if got, err := d.got[1].Encode(); err != nil || !bytes.Equal(got, unhex(t, x.want)) {
				t.Errorf("is\n%X, want\n%s", got, x.want)
			}
		})
	}
}

// Tables 11-73 and 11-75. RSA keys of 2,048 bits take two commands.
func TestPutPublicKeys(t *testing.T) {
	modulus := new(big.Int).SetBytes(append([]byte{0xC1}, bytes.Repeat([]byte{0x5B}, 255)...))
	long := &rsa.PublicKey{N: modulus, E: 65537}
	short := &rsa.PublicKey{N: new(big.Int).Rsh(modulus, 1024), E: 3}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ec, err := globalplatform.ECPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		key  globalplatform.KeyValue
		want []byte
		info string
	}{
		"RSA-2048": {globalplatform.RSAPublicKey(long), append(append(unhex(t, "70A1820100"), long.N.Bytes()...), unhex(t, "A00301000100")...), "[{RSA public modulus 256} {RSA public exponent 3}]"},
		"RSA-1024": {globalplatform.RSAPublicKey(short), append(append(unhex(t, "70A18180"), short.N.Bytes()...), unhex(t, "A0010300")...), "[{RSA public modulus 128} {RSA public exponent 1}]"},
		"P-256":    {ec, append(append(unhex(t, "70B041"), point...), unhex(t, "F0010000")...), "[{ECC public key 65} {ECC parameters reference 0}]"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range []scp.Protocol{scp.SCP03, scp.SCP02} {
				d, s := openKeyDomain(t, p, 0, map[byte]string{0xCA: keyInformation, 0xD8: "70"})
				if err := globalplatform.PutKeys(t.Context(), s, globalplatform.PutKey{Version: 0x70, ID: 1, Keys: []globalplatform.KeyValue{x.key}}); err != nil {
					t.Fatal(err)
				}
				got := d.got[len(d.got)-1]
				if got.P1 != 0 || got.P2 != 1 || !bytes.Equal(got.Data, x.want) {
					t.Errorf("%v: P1 %02X, P2 %02X, data\n%X, want\n%X", p, got.P1, got.P2, got.Data, x.want)
				}
			}
		})
	}
	if _, err := globalplatform.ECPublicKey(&ecdsa.PublicKey{Curve: elliptic.P224()}); !errors.Is(err, globalplatform.ErrKey) {
		t.Errorf("P-224: %v", err)
	}
	if _, err := globalplatform.ECPublicKey(private); !errors.Is(err, globalplatform.ErrKey) {
		t.Errorf("a private key: %v", err)
	}
}

func TestPutKeysRefuses(t *testing.T) {
	key := globalplatform.AESKey(aesKey(t, "000102030405060708090A0B0C0D0E0F"))
	long := globalplatform.AESKey(aesKey(t, "000102030405060708090A0B0C0D0E0F000102030405060708090A0B0C0D0E0F"))
	des := globalplatform.TripleDESKey(aesKey(t, "000102030405060708090A0B0C0D0E0F"))
	put := func(replace, version, id byte, k ...globalplatform.KeyValue) globalplatform.PutKey {
		return globalplatform.PutKey{Replace: replace, Version: version, ID: id, Keys: k}
	}
	for name, x := range map[string]struct {
		put    globalplatform.PutKey
		answer string
		want   error
		sent   int
	}{
		"there already":         {put(0, 1, 1, key), "", globalplatform.ErrKey, 1},
		"one of three there":    {put(0, 1, 0, key, key), "", globalplatform.ErrKey, 1},
		"nothing to replace":    {put(2, 3, 1, key), "", globalplatform.ErrKey, 1},
		"another size":          {put(1, 2, 1, long), "", globalplatform.ErrKey, 1},
		"another algorithm":     {put(1, 2, 1, des), "", globalplatform.ErrKey, 1},
		"version 0":             {put(0, 0, 1, key), "", globalplatform.ErrCommand, 1},
		"version 80":            {put(0, 0x80, 1, key), "", globalplatform.ErrCommand, 1},
		"replaces 80":           {put(0x80, 2, 1, key), "", globalplatform.ErrKey, 1},
		"identifier 80":         {put(0, 2, 0x7F, key, key), "", globalplatform.ErrCommand, 1},
		"no key":                {put(0, 2, 1), "", globalplatform.ErrCommand, 1},
		"an erased key":         {put(0, 2, 1, globalplatform.AESKey(keys.Key{})), "", globalplatform.ErrKey, 1},
		"DES of 32 bytes":       {put(0, 2, 1, globalplatform.TripleDESKey(aesKey(t, strings.Repeat("01", 32)))), "", globalplatform.ErrKey, 1},
		"RSA of 512 bits":       {put(0, 2, 1, globalplatform.RSAPublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 511), E: 3})), "", globalplatform.ErrKey, 1},
		"wrong check value":     {put(0, 2, 1, key), "02C35281", globalplatform.ErrKeyCheck, 2},
		"another version":       {put(0, 2, 1, key), "03C35280", globalplatform.ErrKeyCheck, 2},
		"no check value":        {put(0, 2, 1, key), "02", globalplatform.ErrKeyCheck, 2},
		"check value and more":  {put(0, 2, 1, key), "02C3528000", globalplatform.ErrKeyCheck, 2},
		"of two, one confirmed": {put(0, 2, 1, key, key), "02C35280", globalplatform.ErrKeyCheck, 2},
		"as it should be":       {put(1, 1, 1, key), "01C35280", nil, 2},
		"another version of it": {put(0, 2, 1, key), "02C35280", nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			d, s := openKeyDomain(t, scp.SCP03, 0, map[byte]string{0xCA: keyInformation, 0xD8: x.answer})
			if err := globalplatform.PutKeys(t.Context(), s, x.put); !errors.Is(err, x.want) {
				t.Errorf("error %v, want %v", err, x.want)
			}
			if len(d.got) != x.sent {
				t.Errorf("%d commands", len(d.got))
			}
		})
	}
	// Without leave no key goes over SCP02.
	d, _ := openKeyDomain(t, scp.SCP02, 0, map[byte]string{0xCA: keyInformation, 0xD8: "02C35280"})
	s, err := scp.Open(t.Context(), d, keys.DevelopmentSet(), scp.HostOptions{Level: scp.CDecryption, Protocols: []scp.Protocol{scp.SCP02}})
	if err != nil {
		t.Fatal(err)
	}
	if err := globalplatform.PutKeys(t.Context(), s, put(0, 2, 1, key)); !errors.Is(err, scp.ErrDeprecated) || d.got[len(d.got)-1].INS != 0xCA {
		t.Errorf("over SCP02: %v", err)
	}
}

// From osmocom/pysim, test_globalplatform.py (AES), and the default key of
// GlobalPlatformPro's documentation (DES).
func TestCheckValues(t *testing.T) {
	for s, want := range map[string]string{
		"000102030405060708090A0B0C0D0E0F": "C35280", "101112131415161718191A1B1C1D1E1F": "013808", "202122232425262728292A2B2C2D2E2F": "840DE5",
	} {
		if got := globalplatform.AESKey(aesKey(t, s)).CheckValue(); !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%s: %X", s, got)
		}
	}
	if got := globalplatform.DESCheckValue(keys.DevelopmentSet().ENC); !bytes.Equal(got[:], unhex(t, "8BAF47")) {
		t.Errorf("DES: %X", got)
	}
	if got := globalplatform.DESCheckValue(aesKey(t, strings.Repeat("01", 32))); got != [3]byte{} {
		t.Errorf("no DES key: %X", got)
	}
}

func TestDeleteKey(t *testing.T) {
	for want, d := range map[string]globalplatform.DeleteKey{
		"80E4000006D00101D2013000": {ID: 1, Version: 0x30}, "80E4000003D2013000": {Version: 0x30}, "80E4000003D0010100": {ID: 1},
	} {
		c, err := d.Command()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Encode(); err != nil || !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%X, want %s", got, want)
		}
	}
	for _, d := range []globalplatform.DeleteKey{{}, {ID: 0x80}, {Version: 0x80}} {
		if _, err := d.Command(); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

// INSTALL with a token that does not fit goes out in parts, in the clear and
// in a session (11.1.5.1).
func TestExecuteChains(t *testing.T) {
	aid := iso7816.MustAID("F001020304")
	for _, n := range []int{1, 190, 230, 256, 512} {
		install := globalplatform.InstallForLoad{LoadFile: aid, Hash: make([]byte, 32), Token: bytes.Repeat([]byte{7}, n)}
		cmd, err := install.Command()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []scp.Protocol{scp.SCP03, scp.SCP03S16, scp.SCP02} {
			d, s := openKeyDomain(t, p, 0, map[byte]string{0xE6: "00"})
			if _, err := globalplatform.Execute(t.Context(), s, install); err != nil {
				t.Fatalf("%v, %d: %v", p, n, err)
			}
			if got := d.got[0]; !bytes.Equal(got.Data, cmd.Data) || got.P1 != 2 {
				t.Errorf("%v, %d: %X", p, n, got.Data)
			}
		}
		var chain globalplatform.Chain
		var whole *iso7816.Command
		_, err = globalplatform.Execute(t.Context(), sender(func(c iso7816.Command) iso7816.Response {
			if len(c.Data) > 255 {
				t.Fatalf("%d bytes at once", len(c.Data))
			}
			if whole, err = chain.Add(c); err != nil {
				t.Fatal(err)
			}
			return answer(t, "", iso7816.OK)
		}), install)
		if err != nil || whole == nil || !bytes.Equal(whole.Data, cmd.Data) || whole.Header() != cmd.Header() || whole.Ne != cmd.Ne {
			t.Errorf("in the clear, %d: %+v, %v", n, whole, err)
		}
	}
}

func TestChainRefuses(t *testing.T) {
	first := iso7816.Command{CLA: 0x84, INS: 0xE6, P1: 0x82, Data: make([]byte, 255)}
	with := func(f func(*iso7816.Command)) iso7816.Command { c := first; f(&c); return c }
	for name, x := range map[string]struct {
		next iso7816.Command
		want iso7816.SW
	}{
		"another P1":    {with(func(c *iso7816.Command) { c.P1 = 0x04 }), iso7816.ErrConditions},
		"another P2":    {with(func(c *iso7816.Command) { c.P2 = 1 }), iso7816.ErrConditions},
		"another class": {with(func(c *iso7816.Command) { c.CLA = 0x80 }), iso7816.ErrConditions},
		"PUT KEY":       {with(func(c *iso7816.Command) { c.INS = 0xD8 }), iso7816.ErrConditions},
		"GET DATA":      {iso7816.Command{CLA: 0x80, INS: 0xCA}, iso7816.ErrConditions},
	} {
		var c globalplatform.Chain
		if whole, err := c.Add(first); whole != nil || err != nil {
			t.Fatalf("%v, %v", whole, err)
		}
		if whole, err := c.Add(x.next); whole != nil || !errors.Is(err, x.want) {
			t.Errorf("%s: %v, %v", name, whole, err)
		}
		// The chain is over.
		last := with(func(c *iso7816.Command) { c.P1, c.Data = 0x02, []byte{1} })
		if whole, err := c.Add(last); err != nil || whole == nil || len(whole.Data) != 1 {
			t.Errorf("%s: after it %v, %v", name, whole, err)
		}
	}
	var c globalplatform.Chain
	n := 0
	for ; n < 100; n++ {
		if _, err := c.Add(first); err != nil {
			if !errors.Is(err, iso7816.ErrIncorrectP1P2) {
				t.Error(err)
			}
			break
		}
	}
	if n == 100 {
		t.Error("a chain without end is gathered")
	}
	if whole, err := c.Add(iso7816.Command{CLA: 0x80, INS: 0xE2, P1: 0x80}); err != nil || whole == nil || whole.P1 != 0x80 {
		t.Errorf("STORE DATA is no chain: %v, %v", whole, err)
	}
}
