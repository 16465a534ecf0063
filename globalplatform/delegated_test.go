package globalplatform_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func publicKey(t testing.TB, text string) globalplatform.PublicKeyScheme {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return globalplatform.PublicKeyScheme{Key: k}
}

// Public halves of test keys that GlobalPlatformPro publishes, at commit
// 236a610a63385e9171247485c000d0a96c5aff00 under library/src/test/resources.
const (
	dmRSA1k  = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCweHHNANr7knZY8c+vfdurFmFzAsLHQfnpr57HF6d7DvUddQiCEdl2iJWRKKZRDA0jJt5M6rk6Fn8juWujI3zwDSy9vOKygiqpNzeRRUz57JObzgUYAldoZCajs9wQssszvF229jDCgv9Z02IQqiwPP4W9Gy+Dx8tap0FwcA7STQIDAQAB"
	dmRSA2k  = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsse0wZD6u5UKRKSokz4N15T3iddHcGD4TxvHW/DjfPGXybR3/3nFx+Jz3I4nOq62q0BbF97zmYqkY5L/8FusGDJo9Q+l2DxC41eCXfLwPh08IMtiq4Br6rS/Mn2OVLIog6IJOYpS1hchIfjwjoCZGwt5Cfb0XEgk1BaO7WW8vcHWNtgFpGilpv0bpd1xXku6ABzjcaw56lLT2nYEeZUkCENBztJSovd/rgP7c2XHiNouMZvv43dc2i8lG9yk+n1+hfgtuS5tuykRtjtFzzUqg6IuFwFANifaBNzk2wDxmKuvrHfTItbX90C8Z0P3LRoZEEvSTBCyb1ju8Lh1QgG8XwIDAQAB"
	dapP256  = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFItx09t29oGk7lPK/i8Pju8KYkI/xGzStk8hDqmjNuMygg4ivOwK6fJlFc8tZhwwel+qW4N9sj0zSovEtECycw=="
	kaohRSA1 = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCuOGaYHLh8VraU2hjXzqpFzFpa5a/D9aLHMMPFdx3ALrwOCSI68eQ547tJuANYA/c7Ya/kXTFFQcDr3jgqHK/o/i9Od/vie3bOc2/Wqdh1W9ra+1uDtFDOzU+TIBRtutpKcWq0nNIt1jGnHQQwTZ2zNQYE21UOjAxvbpbhVgJe3wIDAQAB"
)

// The load token of kaoh/globalplatform, globalplatformTest.c at commit
// 8dd2f1bfe35c2db643e37da44d25c71d302e2352, function
// test_GP211_calculate_load_token_rsa1024_known_vector.
func TestLoadTokenVector(t *testing.T) {
	load := globalplatform.InstallForLoad{
		LoadFile: iso7816.MustAID("D0D1D2D3D4D501"), SecurityDomain: iso7816.MustAID("020202020202"),
		Hash: unhex(t, "9C8E7F3DA89B91426B0F4293A23DDB639CABFF9F68BF8C3E8EB8C9BB4F71F6A4"),
	}
	token := unhex(t, "0AD0701C8C9FA0AFA16E46A20406E062EDD1C9C1BAC20098DBACA15B81C67B7AB6300C39D3F751AC42BC719F61010904C2066E521446B125145525F6E1939BCE"+
		"3843A65D033328ACB741D8A6AB87E258D4F99CCF3E11D8C8FCE6536969EA598E50B425D225A619D4D94FE6A74E366D2821CAAFE28843CFB714B1FDB971CC985D")
	if err := globalplatform.VerifyToken(publicKey(t, kaohRSA1), load, token); err != nil {
		t.Error(err)
	}
	load.Parameters.CodeMemory = 1
	if err := globalplatform.VerifyToken(publicKey(t, kaohRSA1), load, token); !errors.Is(err, globalplatform.ErrSignature) {
		t.Errorf("of another command: %v", err)
	}
}

// Tokens over DELETE of D0D1D2D3D4D501 and what is related to it, computed by
// OpenSSL 3.0 (dgst, mac) with the keys above. What they are computed over is
// that of kaoh/globalplatform, installDataTest.c (see TestTokenInput).
var deleteTokens = map[string]string{
	"RSA-1024": "423FF51ECDDD37E78F97565D6DB7B05FED6241D07985142329E50C0BE7DCC847E62DD23CA274797E3209A036D3027F8431C02B860579ABAB2CC9B06DF476F98396B175D2AF2AC3D2AA107306C1D887AD62F6BAFBC09312783B0E5D098DA38CD7E558AD0A8C4F4C75A12AB35A04AB6661805F8CB3C5D6F1A178DBEC58131E9445",
	"RSA-2048": "5859A828E1440D41F8FA1DA94265E81BA6218E9FDFA1897D78933AE7B6C249B185BAE9DAF472D303D59022782C7F9D082E8D4999B1CFD50551D0C387EA6ED10BB0BF5B4D642C46BBDF8B60E3D004FCFA25386798E1600B8FE9540494C36A9F8D172008587827BD5124C2CC2743786D975F6C125663FDB158660221FCD43322606E93371C35EF65664145C93040CC93ACA533CA0457E3DE4CAE34EFF98A42CC2BFD3F076D663730976317DB166045FB1EB8B02BDBF11608434D816A11ED4B13F64BC6C59C0045E84B8DE1D70C12B3223B96A77829DAF007CF17D0A496561F730B4F6C72D04A0D205D9D41438B7AC2625125973FC2479EB8E4B02E7D272292B5A2",
	"P-256":    "E9B7FB1EEEB5E29480B7CC4184A5CEA7B3E77C9AF9AB7AD78CB2DEF608A5838C08A98F19EC42D7C747E65C54D9F22ADAF15FBEE9F00066478899BE641B48FF96",
	"AES":      "3F34E01B77F47AEDDE81B15F73CD626E",
}

func TestTokenSchemes(t *testing.T) {
	d := globalplatform.Delete{AID: iso7816.MustAID("D0D1D2D3D4D501"), Related: true}
	aes := globalplatform.AESScheme{Key: keys.DevelopmentSet().ENC}
	for name, v := range map[string]globalplatform.Verifier{
		"RSA-1024": publicKey(t, dmRSA1k), "RSA-2048": publicKey(t, dmRSA2k), "P-256": publicKey(t, dapP256), "AES": aes,
	} {
		token := unhex(t, deleteTokens[name])
		if err := globalplatform.VerifyToken(v, d, token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// Any other command, any other token.
		other := d
		other.Related = false
		if err := globalplatform.VerifyToken(v, other, token); !errors.Is(err, globalplatform.ErrSignature) {
			t.Errorf("%s: another P2: %v", name, err)
		}
		other = d
		other.TokenReference.Number = []byte{1}
		if err := globalplatform.VerifyToken(v, other, token); !errors.Is(err, globalplatform.ErrSignature) {
			t.Errorf("%s: another reference: %v", name, err)
		}
		for _, bad := range [][]byte{nil, token[:len(token)-1], append(bytes.Clone(token), 0), append([]byte{token[0] ^ 1}, token[1:]...)} {
			if err := globalplatform.VerifyToken(v, d, bad); !errors.Is(err, globalplatform.ErrSignature) {
				t.Errorf("%s: a token of %d bytes: %v", name, len(bad), err)
			}
		}
		for other, token := range deleteTokens {
			if err := globalplatform.VerifyToken(v, d, unhex(t, token)); (err == nil) != (other == name) {
				t.Errorf("%s with the token of %s: %v", name, other, err)
			}
		}
	}
	if got, err := globalplatform.Token(aes, d); err != nil || !bytes.Equal(got, unhex(t, deleteTokens["AES"])) {
		t.Errorf("AES token %X, %v", got, err)
	}
}

// What is signed here verifies here, for every size that table C-1 has; and
// the other half of each key is refused everything else.
func TestSignAndVerify(t *testing.T) {
	data := []byte("some data of a command")
	var all []globalplatform.PrivateKeyScheme
	for _, bits := range []int{1024, 2048} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, globalplatform.PrivateKeyScheme{Key: k})
	}
	for curve, size := range map[elliptic.Curve]int{elliptic.P256(): 64, elliptic.P384(): 96, elliptic.P521(): 132} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s := globalplatform.PrivateKeyScheme{Key: k}
		all = append(all, s)
		if signature, err := s.Sign(data); err != nil || len(signature) != size {
			t.Errorf("%s: %d bytes, %v", curve.Params().Name, len(signature), err)
		}
	}
	for i, s := range all {
		signature, err := s.Sign(data)
		if err != nil {
			t.Fatal(err)
		}
		for j, v := range all {
			if err := v.Verify(data, signature); (err == nil) != (i == j) {
				t.Errorf("signature of %T with %T: %v", s.Key, v.Key, err)
			}
		}
		if err := s.Verify([]byte("some data of a c0mmand"), signature); !errors.Is(err, globalplatform.ErrSignature) {
			t.Errorf("%T, other data: %v", s.Key, err)
		}
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]globalplatform.Signer{
		"P-224": globalplatform.PrivateKeyScheme{Key: small}, "none": globalplatform.PrivateKeyScheme{}, "no AES key": globalplatform.AESScheme{},
		"Ed25519": globalplatform.PrivateKeyScheme{Key: ed25519Key{}},
	} {
		if _, err := s.Sign(data); !errors.Is(err, globalplatform.ErrSignatureKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	device := globalplatform.PrivateKeyScheme{Key: brokenDevice{small: all[2].Key}}
	if signature, err := device.Sign(data); err == nil {
		t.Errorf("a device that answers no signature: %X", signature)
	}
}

type ed25519Key struct{ crypto.Signer }

func (ed25519Key) Public() crypto.PublicKey { return "no such key" }

type brokenDevice struct{ small crypto.Signer }

func (b brokenDevice) Public() crypto.PublicKey { return b.small.Public() }
func (brokenDevice) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte{0x30, 0x06, 0x02, 0x01, 0xFF, 0x02, 0x01, 0x01}, nil // r = -1
}

// Tables C-8 and C-10, and lengths of more than 255 bytes (C.4).
func TestTokenInputOfOtherCommands(t *testing.T) {
	sd, app := iso7816.MustAID("F005060708"), iso7816.MustAID("F001020304")
	privileges := globalplatform.CardLock
	for name, x := range map[string]struct {
		command globalplatform.Tokenized
		signed  string
		wire    string
	}{
		"registry update": {globalplatform.InstallForRegistryUpdate{SecurityDomain: sd, Application: app, Privileges: &privileges, ImplicitSelection: []byte{0x81}, Token: []byte{9}},
			"40 00 17 05F005060708 00 05F001020304 03100000 05 EF03CF0181", "80E64000 19 05F005060708 00 05F001020304 03100000 05 EF03CF0181 0109 00"},
		"registry update of nothing but a service": {globalplatform.InstallForRegistryUpdate{Application: app, GlobalService: []byte{0xA0, 0}},
			"40 00 10 00 00 05F001020304 00 06 EF04CB02A000", "80E64000 11 00 00 05F001020304 00 06 EF04CB02A000 00 00"},
		"restriction of the card": {globalplatform.InstallForRegistryUpdate{Restrict: 0x04}, "40 00 0A 00 00 00 00 05 EF03D90104", "80E64000 0B 00 00 00 00 05 EF03D90104 00 00"},
		"combined": {globalplatform.CombinedInstall{
			Load:    globalplatform.InstallForLoad{LoadFile: app, SecurityDomain: sd, Hash: []byte{1, 2}},
			Install: globalplatform.InstallForInstall{Module: app, Instance: app}, Token: []byte{9, 9},
		}, "0E 01 10 05F001020304 05F005060708 020102 00  0E 03 12 00 05F001020304 05F001020304 0100 02C900",
			"80E60E03 15 00 05F001020304 05F001020304 0100 02C900 020909 00"},
	} {
		signed, err := x.command.SignedData()
		if err != nil || !bytes.Equal(signed, unhex(t, x.signed)) {
			t.Errorf("%s: signed\n%X, want\n%X (%v)", name, signed, unhex(t, x.signed), err)
		}
		c, err := x.command.Command()
		if err != nil {
			t.Fatal(err)
		}
		if wire, err := c.Encode(); err != nil || !bytes.Equal(wire, unhex(t, x.wire)) {
			t.Errorf("%s: is\n%X, want\n%X", name, wire, unhex(t, x.wire))
		}
	}
	combined := globalplatform.CombinedInstall{Load: globalplatform.InstallForLoad{LoadFile: app, Token: []byte{1}}, Install: globalplatform.InstallForInstall{Instance: app}}
	c, err := combined.Begin().Command()
	if err != nil {
		t.Fatal(err)
	}
	if wire, err := c.Encode(); err != nil || !bytes.Equal(wire, unhex(t, "80E60E01 0A 05F001020304 00 00 00 00 00")) {
		t.Errorf("begin: %X", wire)
	}
	long := globalplatform.InstallForInstall{Instance: app, Parameters: globalplatform.InstallParameters{Specific: make([]byte, 300)}}
	signed, err := long.SignedData()
	if err != nil || !bytes.HasPrefix(signed, unhex(t, "0400 00013D")) || len(signed) != 5+0x13D {
		t.Errorf("long: %X of %d bytes, %v", signed[:8], len(signed), err)
	}
	for _, bad := range []globalplatform.InstallForRegistryUpdate{{}, {SecurityDomain: sd, Restrict: 1}, {Privileges: &privileges, Restrict: 1}} {
		if _, err := bad.Command(); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// The receipts are CMACs that OpenSSL 3.0 computed over the confirmation data
// and the AID that was deleted. The order of both is GlobalPlatformPro's
// (class ReceiptVerifier) and table C-15's.
func TestReceiptVectors(t *testing.T) {
	aes256, err := keys.NewKey(unhex(t, "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"))
	if err != nil {
		t.Fatal(err)
	}
	card := unhex(t, "0102030405060708")
	operation := globalplatform.DeleteReceipt(iso7816.MustAID("D0D1D2D3D4D501"))
	for _, x := range []struct {
		key     keys.Key
		receipt string
	}{
		{keys.DevelopmentSet().ENC, "81D5C98F6A76F9E7F1C90DE6A50FFAE1"},
		{aes256, "986B960329377B42BB37741A986B160E"},
	} {
		c, err := globalplatform.ParseConfirmation(unhex(t, "1D 10"+x.receipt+"020005 08 0102030405060708"))
		if err != nil {
			t.Fatal(err)
		}
		key := globalplatform.AESScheme{Key: x.key}
		if err := c.Verify(key, globalplatform.Expectation{Operation: operation, CardData: card, After: 4}); err != nil {
			t.Error(err)
		}
		made := c
		made.Receipt = nil
		if err := made.SignReceipt(key, operation); err != nil || !bytes.Equal(made.Encode(), c.Encode()) {
			t.Errorf("%X, %v", made.Encode(), err)
		}
		for name, y := range map[string]struct {
			change func(*globalplatform.Confirmation, *globalplatform.Expectation)
			want   error
		}{
			"another operation": {func(_ *globalplatform.Confirmation, e *globalplatform.Expectation) {
				e.Operation = globalplatform.DeleteReceipt(iso7816.MustAID("D0D1D2D3D4D502"))
			}, globalplatform.ErrSignature},
			"another card":  {func(_ *globalplatform.Confirmation, e *globalplatform.Expectation) { e.CardData = []byte{1} }, globalplatform.ErrReceipt},
			"replayed":      {func(_ *globalplatform.Confirmation, e *globalplatform.Expectation) { e.After = 5 }, globalplatform.ErrReceipt},
			"another token": {func(_ *globalplatform.Confirmation, e *globalplatform.Expectation) { e.TokenIdentifier = []byte{1} }, globalplatform.ErrReceipt},
			"no receipt":    {func(c *globalplatform.Confirmation, _ *globalplatform.Expectation) { c.Receipt = nil }, globalplatform.ErrReceipt},
			"counted up":    {func(c *globalplatform.Confirmation, _ *globalplatform.Expectation) { c.Counter++ }, globalplatform.ErrSignature},
			"card data forged": {func(c *globalplatform.Confirmation, e *globalplatform.Expectation) {
				c.CardData, e.CardData = []byte{7}, nil
			}, globalplatform.ErrSignature},
			"cut": {func(c *globalplatform.Confirmation, _ *globalplatform.Expectation) { c.Receipt = c.Receipt[:8] }, globalplatform.ErrSignature},
		} {
			c, e := c, globalplatform.Expectation{Operation: operation, CardData: card, After: 4}
			y.change(&c, &e)
			if err := c.Verify(key, e); !errors.Is(err, y.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Tables C-11 to C-16.
func TestReceiptData(t *testing.T) {
	file, app, from, to := iso7816.MustAID("F000000001"), iso7816.MustAID("F000000002"), iso7816.MustAID("F000000003"), iso7816.MustAID("F000000004")
	privileges := globalplatform.CardReset
	for name, x := range map[string]struct {
		got  globalplatform.ReceiptData
		want string
	}{
		"load":               {globalplatform.LoadReceipt(file, to), "05F000000001 05F000000004"},
		"install":            {globalplatform.InstallReceipt(file, app), "05F000000001 05F000000002"},
		"extradition":        {globalplatform.ExtraditionReceipt(from, app, to), "05F000000003 05F000000002 05F000000004"},
		"delete":             {globalplatform.DeleteReceipt(app), "05F000000002"},
		"combined":           {globalplatform.CombinedReceipt(file, app, to), "05F000000001 05F000000002 05F000000004"},
		"update":             {globalplatform.RegistryUpdateReceipt(from, globalplatform.InstallForRegistryUpdate{Application: app, Privileges: &privileges}), "00 05F000000002 00 03040000 00"},
		"update, extradited": {globalplatform.RegistryUpdateReceipt(from, globalplatform.InstallForRegistryUpdate{Application: app, SecurityDomain: to, ImplicitSelection: []byte{1}}), "05F000000003 05F000000002 05F000000004 00 05EF03CF0101"},
	} {
		if !bytes.Equal(x.got, unhex(t, x.want)) {
			t.Errorf("%s: %X, want %s", name, x.got, x.want)
		}
	}
}

func TestConfirmationRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"nothing": "", "a single zero": "00", "no receipt's length": "01", "length too long": "08 00 020005 01AA", "length too short": "05 00 020005 01AA 00",
		"counter of 3 bytes": "07 00 03000005 01AA", "no counter": "01 00", "no card data": "04 00 020005", "empty card data": "05 00 020005 00",
		"card data too long": "06 00 020005 02AA", "identifier too long": "08 00 020005 01AA 05 01", "something after": "0C 00 020005 01AA 0101 0102 00 00",
		"length not minimal": "8106 00 020005 01AA", "receipt's length not minimal": "07 8100 020005 01AA", "indefinite": "80 00 020005 01AA", "length of 3 bytes": "83000006 00 020005 01AA",
	} {
		if _, err := globalplatform.ParseConfirmation(unhex(t, data)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, data := range map[string]string{
		"least": "06 00 020005 01AA", "with an identifier": "08 00 020005 01AA 0107", "with an empty identifier and a digest": "09 00 020005 01AA 00 0108",
		"with both": "0A 00 020005 01AA 0107 0108", "with an empty identifier": "07 00 020005 01AA 00",
	} {
		c, err := globalplatform.ParseConfirmation(unhex(t, data))
		if err != nil || !bytes.Equal(c.Encode(), unhex(t, data)) || c.Counter != 5 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func FuzzParseConfirmation(f *testing.F) {
	f.Add([]byte{6, 0, 2, 0, 5, 1, 0xAA})
	f.Add([]byte{10, 0, 2, 0, 5, 1, 0xAA, 1, 7, 1, 8})
	f.Add(append([]byte{0x81, 0x88, 0x81, 0x80}, append(make([]byte, 128), 2, 0, 5, 2, 1, 2)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := globalplatform.ParseConfirmation(b)
		if err != nil {
			if !errors.Is(err, globalplatform.ErrMalformed) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		if !bytes.Equal(c.Encode(), b) {
			t.Errorf("%X re-encodes as %X", b, c.Encode())
		}
	})
}

func TestCounters(t *testing.T) {
	for data, want := range map[string]int{"C2020102": 0x0102, "C20101": -1, "C203010203": -1, "C1020102": -1} {
		got, err := globalplatform.ConfirmationCounter(t.Context(), sender(func(iso7816.Command) iso7816.Response { return answer(t, data, iso7816.OK) }))
		if want < 0 && !errors.Is(err, globalplatform.ErrMalformed) || want >= 0 && (err != nil || int(got) != want) {
			t.Errorf("confirmation counter %s: %d, %v", data, got, err)
		}
	}
	for data, want := range map[string]int{"C1020102": 0x0102, "C103010203": 0x010203, "C10101": -1, "C10401020304": -1, "C2020102": -1} {
		got, err := globalplatform.SequenceCounter(t.Context(), sender(func(iso7816.Command) iso7816.Response { return answer(t, data, iso7816.OK) }))
		if want < 0 && !errors.Is(err, globalplatform.ErrMalformed) || want >= 0 && (err != nil || int(got) != want) {
			t.Errorf("sequence counter %s: %d, %v", data, got, err)
		}
	}
}

func TestDAP(t *testing.T) {
	domain := iso7816.MustAID("F005060708")
	block := []byte("a load file data block")
	hash := sha256.Sum256(block)
	for name, s := range map[string]interface {
		globalplatform.Signer
		globalplatform.Verifier
	}{"AES": globalplatform.AESScheme{Key: keys.DevelopmentSet().MAC}, "P-256": generated(t)} {
		d, err := globalplatform.SignDAP(s, domain, hash[:])
		if err != nil {
			t.Fatal(err)
		}
		file, err := globalplatform.LoadFile(block, d, globalplatform.DAPBlock{SecurityDomain: globalplatform.IssuerSecurityDomain, Signature: []byte{1}})
		if err != nil {
			t.Fatal(err)
		}
		content, err := globalplatform.ParseLoadFile(file)
		daps, got := content.DAPs, content.DataBlock
		if err != nil || len(daps) != 2 || !bytes.Equal(got, block) {
			t.Fatalf("%s: %d blocks, %q, %v", name, len(daps), got, err)
		}
		if diff := cmp.Diff(d, daps[0], cmp.Comparer(func(a, b iso7816.AID) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		if err := daps[0].Verify(s, hash[:]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		other := sha256.Sum256([]byte("another load file data block"))
		if err := daps[0].Verify(s, other[:]); !errors.Is(err, globalplatform.ErrSignature) {
			t.Errorf("%s, another file: %v", name, err)
		}
		if err := daps[1].Verify(s, hash[:]); !errors.Is(err, globalplatform.ErrSignature) {
			t.Errorf("%s, another block: %v", name, err)
		}
		for _, n := range []int{0, 16, 31, 65} {
			if _, err := globalplatform.SignDAP(s, domain, make([]byte, n)); !errors.Is(err, globalplatform.ErrCommand) {
				t.Errorf("%s, hash of %d bytes: %v", name, n, err)
			}
			if err := d.Verify(s, make([]byte, n)); !errors.Is(err, globalplatform.ErrCommand) {
				t.Errorf("%s, verified against %d bytes: %v", name, n, err)
			}
		}
	}
	if _, err := globalplatform.SignDAP(globalplatform.AESScheme{Key: keys.DevelopmentSet().MAC}, iso7816.AID{}, hash[:]); !errors.Is(err, globalplatform.ErrCommand) {
		t.Errorf("of nobody: %v", err)
	}
}

func generated(t testing.TB) globalplatform.PrivateKeyScheme {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return globalplatform.PrivateKeyScheme{Key: k}
}

func TestLoadFileRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"nothing": "", "no data block": "E20A4F05F001020304C30109", "empty data block": "C400", "something after": "C40101C40101", "empty ciphered block": "D400", "ICV of 7 bytes": "D30701020304050607D40101",
		"ICV of a plain block": "D3080102030405060708C40101", "two ICVs": "D3080102030405060708D3080102030405060708D40101", "ICV only": "D3080102030405060708",
		"DAP after the ICV": "D3080102030405060708E20A4F05F001020304C30109D40101", "something after the ciphered block": "D40101C40101",
		"DAP without signature": "E2074F05F001020304C40101", "DAP with more": "E20C4F05F001020304C30109C400C40101", "DAP with an empty signature": "E2094F05F001020304C300C40101",
		"DAP of a short AID": "E2094F04F0010203C30109C40101", "cut short": "C40501", "order": "E20AC301094F05F001020304C40101",
	} {
		if _, err := globalplatform.ParseLoadFile(unhex(t, data)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseLoadFile(f *testing.F) {
	f.Add([]byte{0xC4, 1, 1})
	f.Add([]byte{0xD3, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0xD4, 2, 1, 2})
	f.Add([]byte{0xE2, 10, 0x4F, 5, 0xF0, 1, 2, 3, 4, 0xC3, 1, 9, 0xC4, 2, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := globalplatform.ParseLoadFile(b)
		if err != nil {
			if !errors.Is(err, globalplatform.ErrMalformed) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		if c.Ciphered {
			if !bytes.HasSuffix(b, c.DataBlock) || c.ICV != nil && !bytes.Contains(b, c.ICV) {
				t.Errorf("%X is read as %+v", b, c)
			}
			return
		}
		again, err := globalplatform.LoadFile(c.DataBlock, c.DAPs...)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%X re-encodes as %X, %v", b, again, err)
		}
	})
}

func TestLoadCombined(t *testing.T) {
	file := testCAP(t, 600)
	c := globalplatform.CombinedInstall{
		Load:    globalplatform.InstallForLoad{LoadFile: file.Package.AID, Hash: make([]byte, 32)},
		Install: globalplatform.InstallForInstall{LoadFile: file.Package.AID, Module: file.Package.AID, Instance: iso7816.MustAID("F00102030499")},
		Token:   make([]byte, 256), // two INSTALL commands at the end
	}
	var sent []string
	wire := sender(func(cmd iso7816.Command) iso7816.Response {
		sent = append(sent, fmt.Sprintf("%02X%02X%02X", cmd.INS, cmd.P1, cmd.P2))
		if cmd.P2 == 3 && cmd.P1 == 0x0E {
			return answer(t, "06 00 020005 01AA", iso7816.OK)
		}
		return answer(t, "00", iso7816.OK)
	})
	got, err := globalplatform.LoadCombined(t.Context(), wire, file, c, globalplatform.LoadOptions{BlockSize: 200}, nil)
	if err != nil || !bytes.Equal(got, unhex(t, "06 00 020005 01AA")) {
		t.Fatalf("%X, %v", got, err)
	}
	if want := []string{"E60E01", "E80000", "E80001", "E80002", "E88003", "E68E03", "E60E03"}; !slices.Equal(sent, want) {
		t.Errorf("sent %v, want %v", sent, want)
	}
	sent = nil
	other := c
	other.Load.LoadFile = iso7816.MustAID("F00102030401")
	incomplete := c
	incomplete.Install.Instance = iso7816.AID{}
	for name, c := range map[string]globalplatform.CombinedInstall{"another package": other, "no instance": incomplete} {
		if _, err := globalplatform.LoadCombined(t.Context(), wire, file, c, globalplatform.LoadOptions{}, nil); !errors.Is(err, globalplatform.ErrCommand) || len(sent) != 0 {
			t.Errorf("%s: %v, sent %v", name, err, sent)
		}
	}
}
