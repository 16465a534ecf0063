package emulator

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"sync"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/ecc"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// signer is a key with what the card is given of it.
type signer struct {
	globalplatform.Signer
	globalplatform.KeyValue
}

// signers are keys of the schemes of GPCS table C-1.
var signers = sync.OnceValue(func() map[string]signer {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	out := map[string]signer{}
	for name, size := range map[string]int{"AES-128": 16, "AES-256": 32} {
		k, err := keys.NewKey(bytes.Repeat([]byte{3}, size))
		must(err)
		out[name] = signer{globalplatform.AESScheme{Key: k}, globalplatform.AESKey(k)}
	}
	for name, bits := range map[string]int{"RSA-1024": 1024, "RSA-2048": 2048} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		must(err)
		out[name] = signer{globalplatform.PrivateKeyScheme{Key: k}, globalplatform.RSAPublicKey(&k.PublicKey)}
	}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		must(err)
		v, err := globalplatform.ECPublicKey(&k.PublicKey)
		must(err)
		out[name] = signer{globalplatform.PrivateKeyScheme{Key: k}, v}
	}
	for _, name := range []string{"brainpoolP256r1", "brainpoolP256t1", "brainpoolP384r1", "brainpoolP512t1"} {
		c, _ := ecc.Named(name)
		d, err := rand.Int(rand.Reader, c.N)
		must(err)
		k, err := globalplatform.ParseECPublicKey(name, c.Encode(c.Multiply(c.G, d)))
		must(err)
		v, err := globalplatform.ECPublicKey(k)
		must(err)
		out[name] = signer{globalplatform.PrivateKeyScheme{Key: brainpoolKey{c, d, k}}, v}
	}
	return out
})

// brainpoolKey signs as the devices of issuers do.
type brainpoolKey struct {
	curve  *ecc.Curve
	d      *big.Int
	public crypto.PublicKey
}

func (k brainpoolKey) Public() crypto.PublicKey { return k.public }

func (k brainpoolKey) Sign(random io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	n, err := rand.Int(random, k.curve.N)
	if err != nil {
		return nil, err
	}
	r, s, ok := k.curve.Sign(k.d, n, digest)
	if !ok {
		return nil, errors.New("another random number is needed")
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

// The hash of a load file is no shorter than the one that the token's signature
// uses (GPCS table C-3). The hash is looked at when the token has been found
// right, and nothing is loaded here.
func TestHashesBesideTokens(t *testing.T) {
	for name, least := range map[string]int{
		"RSA-1024": 20, "RSA-2048": 32, "AES-128": 32, "AES-256": 32, "P-256": 32, "P-384": 48, "P-521": 64,
		"brainpoolP256r1": 32, "brainpoolP256t1": 32, "brainpoolP384r1": 48, "brainpoolP512t1": 64,
	} {
		c := delegated(t, signers()[name].KeyValue)
		s := openDomain(t, c, domainX, keysX)
		for _, size := range []int{0, 20, 32, 48, 64} {
			_, err := globalplatform.Execute(context.Background(), s, withToken(t, signers()[name].Signer, globalplatform.InstallForLoad{LoadFile: testPackage, Hash: make([]byte, size)}))
			if size < least && !errors.Is(err, iso7816.ErrWrongData) || size >= least && err != nil {
				t.Errorf("%s beside a hash of %d bytes: %v", name, size, err)
			}
		}
	}
}

func putOne(t testing.TB, s scp.Channel, version byte, v globalplatform.KeyValue) {
	t.Helper()
	if err := globalplatform.PutKeys(context.Background(), s, globalplatform.PutKey{ID: 1, Version: version, Keys: []globalplatform.KeyValue{v}}); err != nil {
		t.Fatal(err)
	}
}

var receiptKey = testSet(versionReceipt, 0x33).ENC

// delegated is a card on which X has Delegated Management below the issuer,
// which verifies tokens and issues receipts.
func delegated(t testing.TB, token globalplatform.KeyValue) *Card {
	t.Helper()
	c := newTestCard(t)
	addDomain(t, c, domainX, "A08000", keysX)
	s := authenticate(t, c, scp.CDecryption)
	putOne(t, s, versionToken, token)
	putOne(t, s, versionReceipt, globalplatform.AESKey(receiptKey))
	return c
}

// withToken signs a command and puts the token into it.
func withToken(t testing.TB, s globalplatform.Signer, c globalplatform.Tokenized) globalplatform.Commander {
	t.Helper()
	token, err := globalplatform.Token(s, c)
	if err != nil {
		t.Fatal(err)
	}
	switch c := c.(type) {
	case globalplatform.InstallForLoad:
		c.Token = token
		return c
	case globalplatform.InstallForInstall:
		c.Token = token
		return c
	case globalplatform.InstallForMakeSelectable:
		c.Token = token
		return c
	case globalplatform.InstallForExtradition:
		c.Token = token
		return c
	case globalplatform.InstallForRegistryUpdate:
		c.Token = token
		return c
	case globalplatform.Delete:
		c.Token = token
		return c
	}
	t.Fatalf("%T", c)
	return nil
}

// The whole life of an application under Delegated Management, by every
// scheme: each operation is refused without a token, with another operation's
// and with a changed one, allowed once with its own, and confirmed.
func TestDelegatedManagement(t *testing.T) {
	block := testLoadFile(testPackage, testModuleID, otherModule)
	sum := sha512.Sum512(block) // which goes beside every scheme
	ctx := context.Background()
	for name, signer := range signers() {
		t.Run(name, func(t *testing.T) {
			c := delegated(t, signer.KeyValue)
			addDomain(t, c, domainY, "808000", keysY)
			want(t, authenticate(t, c, scp.CMAC), cmdExtradite(domainY, domainX), iso7816.OK)
			s := openDomain(t, c, domainX, keysX)
			number := byte(0)
			reference := func() globalplatform.TokenReference {
				number++
				return globalplatform.TokenReference{
					Identification: []byte{0x39, 0x20, 0x00, 0x01}, Image: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Number: []byte{number},
				}
			}
			stranger := globalplatform.AESScheme{Key: testSet(1, 0x66).ENC}
			last := -1
			confirmed := func(answer []byte, covers globalplatform.ReceiptData) {
				t.Helper()
				confirmation, err := globalplatform.ParseConfirmation(answer)
				if err == nil {
					err = confirmation.Verify(globalplatform.AESScheme{Key: receiptKey}, globalplatform.Expectation{
						Operation: covers, CardData: []byte{0x39, 0x20, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}, After: last, TokenIdentifier: []byte{number},
					})
				}
				if err != nil || int(confirmation.Counter) != last+1 {
					t.Fatalf("receipt %X: %v", answer, err)
				}
				last++
			}
			do := func(cmd globalplatform.Tokenized, covers globalplatform.ReceiptData) {
				t.Helper()
				before := encodeImage(c.state)
				plain, err := cmd.Command()
				if err != nil {
					t.Fatal(err)
				}
				if r := send(t, s, plain); r.SW != iso7816.ErrConditions {
					t.Errorf("%T without a token: %v", cmd, r.SW)
				}
				if _, err := globalplatform.Execute(ctx, s, withToken(t, stranger, cmd)); !errors.Is(err, iso7816.ErrSecurityStatus) {
					t.Errorf("%T with a stranger's token: %v", cmd, err)
				}
				if !bytes.Equal(before, encodeImage(c.state)) {
					t.Fatalf("%T without a right token changed the card", cmd)
				}
				answer, err := globalplatform.Execute(ctx, s, withToken(t, signer.Signer, cmd))
				if err != nil {
					t.Fatalf("%T: %v", cmd, err)
				}
				if covers != nil {
					confirmed(answer, covers)
				}
			}
			do(globalplatform.InstallForLoad{LoadFile: testPackage, Hash: sum[:], Parameters: globalplatform.LoadParameters{TokenReference: reference()}}, nil)
			var r iso7816.Response
			for _, l := range cmdLoads(block, 200) {
				r = want(t, s, l, iso7816.OK)
			}
			confirmed(r.Data, globalplatform.LoadReceipt(testPackage, domainX))
			install := globalplatform.InstallForInstall{LoadFile: testPackage, Module: testModuleID, Instance: instanceA,
				Parameters: globalplatform.InstallParameters{Specific: specific(8, 0, 0, 0), TokenReference: reference()}}
			do(install, globalplatform.InstallReceipt(testPackage, instanceA))
			do(globalplatform.InstallForMakeSelectable{Instance: instanceA, TokenReference: reference()}, globalplatform.InstallReceipt(testPackage, instanceA))
			rights := globalplatform.CardReset
			update := globalplatform.InstallForRegistryUpdate{Application: instanceA, Privileges: &rights, TokenReference: reference()}
			do(update, globalplatform.RegistryUpdateReceipt(domainX, update))
			do(globalplatform.InstallForExtradition{AID: instanceA, SecurityDomain: domainY, TokenReference: reference()}, globalplatform.ExtraditionReceipt(domainX, instanceA, domainY))
			update = globalplatform.InstallForRegistryUpdate{Application: instanceA, SecurityDomain: domainX, TokenReference: reference()}
			do(update, globalplatform.RegistryUpdateReceipt(domainY, update))
			remove := globalplatform.Delete{AID: instanceA, TokenReference: reference()}
			do(remove, globalplatform.DeleteReceipt(instanceA))
			// A token of a number is used once, whatever it is for.
			install.MakeSelectable = true
			if _, err := globalplatform.Execute(ctx, s, withToken(t, signer.Signer, install)); !errors.Is(err, iso7816.ErrConditions) {
				t.Errorf("a used token: %v", err)
			}
			install.Parameters.TokenReference = reference()
			do(install, globalplatform.InstallReceipt(testPackage, instanceA))
			do(globalplatform.Delete{AID: testPackage, Related: true, TokenReference: reference()}, globalplatform.DeleteReceipt(testPackage))
			if counter := transmit(t, c, "00A40400"); counter.SW == iso7816.OK {
				if r := transmit(t, c, "80CA00C200"); r.Data[3] != byte(last+1) {
					t.Errorf("confirmation counter %X, want %d", r.Data, last+1)
				}
			}
		})
	}
}

// What else a token must be.
func TestTokensThatAreRefused(t *testing.T) {
	signer := signers()["AES-128"]
	ctx := context.Background()
	load := globalplatform.InstallForLoad{LoadFile: testPackage, Hash: make([]byte, 32)}
	c := delegated(t, signer.KeyValue)
	try := func(name string, cmd globalplatform.Tokenized, want iso7816.SW) {
		t.Helper()
		s := openDomain(t, c, domainX, keysX)
		_, err := globalplatform.Execute(ctx, s, withToken(t, signer.Signer, cmd))
		if want == iso7816.OK && err != nil || want != iso7816.OK && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	other := load
	other.Parameters.TokenReference.Identification = []byte{9}
	try("another issuer's", other, iso7816.ErrSecurityStatus)
	other.Parameters.TokenReference.Identification, other.Parameters.TokenReference.Image = nil, []byte{9}
	try("another card's", other, iso7816.ErrSecurityStatus)
	other = load
	other.Hash = nil
	try("of no hash", other, iso7816.ErrWrongData)
	other.Hash = make([]byte, sha1.Size)
	try("of a hash weaker than it", other, iso7816.ErrWrongData)
	try("right", load, iso7816.OK)
	// Where the owner manages, a token is out of place.
	s := authenticate(t, c, scp.CMAC)
	cmd, err := withToken(t, signer.Signer, load).Command()
	if err != nil {
		t.Fatal(err)
	}
	want(t, s, cmd, iso7816.ErrWrongData)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insDelete, Data: mustHex("D20170"), Ne: 256}, iso7816.OK)
	try("without a token key", load, iso7816.ErrSecurityStatus)
	// Without a receipt key there is no confirmation, and the counter stands.
	c = newTestCard(t)
	addDomain(t, c, domainX, "A08000", keysX)
	putOne(t, authenticate(t, c, scp.CMAC), versionToken, signer.KeyValue)
	want(t, authenticate(t, c, scp.CMAC), cmdInstallDomain(domainY, "808000", ""), iso7816.OK)
	want(t, authenticate(t, c, scp.CMAC), cmdExtradite(domainY, domainX), iso7816.OK)
	s = openDomain(t, c, domainX, keysX)
	if answer, err := globalplatform.Execute(ctx, s, withToken(t, signer.Signer, globalplatform.Delete{AID: domainY})); err != nil || answer != nil {
		t.Errorf("without a receipt key: %X %v", answer, err)
	}
	if n := c.state.issuer().domain.confirmations; n != 0 {
		t.Errorf("confirmation counter %d", n)
	}
	// At its end the counter stays, and so does everything else.
	putOne(t, authenticate(t, c, scp.CDecryption), versionReceipt, globalplatform.AESKey(receiptKey))
	want(t, authenticate(t, c, scp.CMAC), cmdInstallDomain(domainY, "808000", ""), iso7816.OK)
	want(t, authenticate(t, c, scp.CMAC), cmdExtradite(domainY, domainX), iso7816.OK)
	c.updateDomain(c.state.issuer(), func(d *domain) { d.confirmations = maxConfirmations })
	before := encodeImage(c.state)
	s = openDomain(t, c, domainX, keysX)
	if _, err := globalplatform.Execute(ctx, s, withToken(t, signer.Signer, globalplatform.Delete{AID: domainY})); !errors.Is(err, iso7816.ErrConditions) || !bytes.Equal(before, encodeImage(c.state)) {
		t.Errorf("a counter at its end: %v", err)
	}
	// The nearest one with Authorized Management decides who verifies.
	c = newTestCard(t)
	addDomain(t, c, domainX, "80E000", keysX) // Authorized Management, Token Verification
	addDomain(t, c, domainY, "A08000", keysY)
	if e := c.state.authority(c.state.entry(domainY), privTokenVerification); e != c.state.issuer() {
		t.Errorf("%v verifies tokens", e.aid)
	}
	want(t, authenticate(t, c, scp.CMAC), cmdExtradite(domainY, domainX), iso7816.OK)
	if e := c.state.authority(c.state.entry(domainY), privTokenVerification); e != c.state.entry(domainX) {
		t.Errorf("%v verifies tokens", e.aid)
	}
	if e := c.state.authority(c.state.entry(domainY), privReceiptGeneration); e != nil {
		t.Errorf("%v issues receipts", e.aid)
	}
	want(t, authenticate(t, c, scp.CMAC), cmdSetStatus(domainX, 0x80), iso7816.OK)
	if e := c.state.authority(c.state.entry(domainY), privTokenVerification); e != nil {
		t.Errorf("%v verifies tokens, being locked", e.aid)
	}
}

func TestCombinedInstallation(t *testing.T) {
	signer := signers()["RSA-1024"]
	block := testLoadFile(testPackage, testModuleID, otherModule)
	sum := sha256.Sum256(block)
	ctx := context.Background()
	combined := globalplatform.CombinedInstall{
		Load:    globalplatform.InstallForLoad{LoadFile: testPackage, Hash: sum[:]},
		Install: globalplatform.InstallForInstall{Module: testModuleID, Instance: instanceA, Parameters: globalplatform.InstallParameters{Specific: specific(8, 0, 0, 0)}},
	}
	begin := func(s iso7816.Sender) {
		t.Helper()
		if _, err := globalplatform.Execute(ctx, s, combined.Begin()); err != nil {
			t.Fatal(err)
		}
		for _, l := range cmdLoads(block, 100) {
			if r := want(t, s, l, iso7816.OK); !bytes.Equal(r.Data, []byte{0}) {
				t.Errorf("LOAD answers %X", r.Data)
			}
		}
	}
	// By the owner: no token.
	c := newTestCard(t)
	s := authenticate(t, c, scp.CMAC)
	begin(s)
	if c.state.file(testPackage) != nil {
		t.Error("the load file is there before its application")
	}
	want(t, s, cmdLoads([]byte{1}, 100)[0], iso7816.ErrConditions)
	if _, err := globalplatform.Execute(ctx, s, combined.End()); err != nil {
		t.Fatal(err)
	}
	if r := send(t, iso7816.Plain(c), iso7816.Select(instanceA)); r.SW != iso7816.OK {
		t.Errorf("SELECT: %v", r.SW)
	}
	// What goes wrong at the end leaves nothing.
	for name, change := range map[string]func(*globalplatform.CombinedInstall){
		"unknown module":          func(i *globalplatform.CombinedInstall) { i.Install.Module = instanceB },
		"another load file":       func(i *globalplatform.CombinedInstall) { i.Install.LoadFile = instanceB },
		"the load file's AID":     func(i *globalplatform.CombinedInstall) { i.Install.Instance = testPackage },
		"what the applet refuses": func(i *globalplatform.CombinedInstall) { i.Install.Parameters.Specific = nil },
	} {
		c := newTestCard(t)
		s := authenticate(t, c, scp.CMAC)
		begin(s)
		bad := combined
		change(&bad)
		if _, err := globalplatform.Execute(ctx, s, bad.End()); err == nil {
			t.Errorf("%s: installed", name)
		}
		if c.Memory().PersistentUsed != 0 || c.state.file(testPackage) != nil {
			t.Errorf("%s: something is left", name)
		}
		if _, err := globalplatform.Execute(ctx, s, combined.End()); !errors.Is(err, iso7816.ErrConditions) {
			t.Errorf("%s: it goes on: %v", name, err)
		}
	}
	// Delegated: one token over both commands.
	c = delegated(t, signer.KeyValue)
	s = openDomain(t, c, domainX, keysX)
	begin(s)
	if _, err := globalplatform.Execute(ctx, s, combined.End()); !errors.Is(err, iso7816.ErrConditions) {
		t.Errorf("without a token: %v", err)
	}
	begin(s)
	token, err := globalplatform.Token(signer.Signer, combined)
	if err != nil {
		t.Fatal(err)
	}
	wrong := combined
	if wrong.Token, err = globalplatform.Token(signer.Signer, combined.Install); err != nil {
		t.Fatal(err)
	}
	if _, err := globalplatform.Execute(ctx, s, wrong.End()); !errors.Is(err, iso7816.ErrSecurityStatus) {
		t.Errorf("with the token of a part: %v", err)
	}
	begin(s)
	combined.Token = token
	answer, err := globalplatform.Execute(ctx, s, combined.End())
	if err != nil {
		t.Fatal(err)
	}
	confirmation, err := globalplatform.ParseConfirmation(answer)
	if err == nil {
		err = confirmation.Verify(globalplatform.AESScheme{Key: receiptKey}, globalplatform.Expectation{Operation: globalplatform.CombinedReceipt(testPackage, instanceA, domainX), After: -1})
	}
	if err != nil {
		t.Error(err)
	}
}

func TestDAPs(t *testing.T) {
	block := testLoadFile(testPackage, testModuleID, otherModule)
	sum, short := sha256.Sum256(block), sha1.Sum(block)
	all := signers()
	verifier := all["RSA-2048"]
	other := all["AES-128"]
	ctx := context.Background()
	newCard := func(t *testing.T) *Card {
		c := newTestCard(t)
		addDomain(t, c, domainX, "C08000", keysX) // DAP Verification
		putOne(t, openDomain(t, c, domainX, keysX), versionDAP, verifier.KeyValue)
		addDomain(t, c, domainY, "C18000", keysY) // Mandated
		putOne(t, openDomain(t, c, domainY, keysY), versionDAP, other.KeyValue)
		return c
	}
	sign := func(s globalplatform.Signer, by iso7816.AID, hash []byte) globalplatform.DAPBlock {
		d, err := globalplatform.SignDAP(s, by, hash)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	x, y := sign(verifier.Signer, domainX, sum[:]), sign(other.Signer, domainY, sum[:])
	broken := y
	broken.Signature = bytes.Clone(y.Signature)
	broken.Signature[0] ^= 1
	for name, test := range map[string]struct {
		to   iso7816.AID
		hash []byte
		daps []globalplatform.DAPBlock
		want iso7816.SW
	}{
		"both":                           {domainX, sum[:], []globalplatform.DAPBlock{x, y}, iso7816.OK},
		"the mandated one for another":   {IssuerSecurityDomain, sum[:], []globalplatform.DAPBlock{y}, iso7816.OK},
		"none":                           {IssuerSecurityDomain, sum[:], nil, iso7816.ErrSecurityStatus},
		"no hash":                        {IssuerSecurityDomain, nil, nil, iso7816.ErrSecurityStatus},
		"the mandated one is missing":    {domainX, sum[:], []globalplatform.DAPBlock{x}, iso7816.ErrSecurityStatus},
		"the domain's own is missing":    {domainX, sum[:], []globalplatform.DAPBlock{y}, iso7816.ErrSecurityStatus},
		"a wrong signature":              {IssuerSecurityDomain, sum[:], []globalplatform.DAPBlock{broken}, iso7816.ErrSecurityStatus},
		"one of another's key":           {IssuerSecurityDomain, sum[:], []globalplatform.DAPBlock{sign(verifier.Signer, domainY, sum[:])}, iso7816.ErrSecurityStatus},
		"a wrong one more":               {IssuerSecurityDomain, sum[:], []globalplatform.DAPBlock{y, sign(other.Signer, domainX, sum[:])}, iso7816.ErrSecurityStatus},
		"one of nobody here":             {IssuerSecurityDomain, sum[:], []globalplatform.DAPBlock{y, sign(other.Signer, instanceB, sum[:])}, iso7816.OK},
		"over a hash weaker than itself": {IssuerSecurityDomain, short[:], []globalplatform.DAPBlock{sign(other.Signer, domainY, short[:])}, iso7816.ErrWrongData},
	} {
		c := newCard(t)
		s := authenticate(t, c, scp.CMAC)
		if _, err := globalplatform.Execute(ctx, s, globalplatform.InstallForLoad{LoadFile: testPackage, SecurityDomain: test.to, Hash: test.hash}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		file, err := globalplatform.LoadFile(block, test.daps...)
		if err != nil {
			t.Fatal(err)
		}
		var r iso7816.Response
		for n := byte(0); len(file) > 0; n++ {
			k := min(200, len(file))
			cmd := iso7816.Command{CLA: 0x80, INS: insLoad, P2: n, Data: file[:k], Ne: 256}
			if file = file[k:]; len(file) == 0 {
				cmd.P1 = 0x80
			}
			r = send(t, s, cmd)
		}
		if r.SW != test.want || (c.state.file(testPackage) != nil) != (test.want == iso7816.OK) {
			t.Errorf("%s: %v, want %v", name, r.SW, test.want)
		}
	}
	// A load file does not come to a Security Domain with DAP Verification by
	// extradition, and a mandated one that can't verify stops every load.
	c := newCard(t)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdSetStatus(domainY, 0x80), iso7816.OK)
	loadTestPackage(t, s) // a locked one mandates nothing
	want(t, s, cmdExtradite(testPackage, domainX), iso7816.ErrConditions)
	want(t, s, cmdDelete(testPackage, false), iso7816.OK)
	want(t, s, cmdSetStatus(domainY, 0x00), iso7816.OK)
	s = openDomain(t, c, domainY, keysY)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insDelete, Data: mustHex("D20173"), Ne: 256}, iso7816.OK)
	s = authenticate(t, c, scp.CMAC)
	if _, err := globalplatform.Execute(ctx, s, globalplatform.InstallForLoad{LoadFile: testPackage, Hash: sum[:]}); err != nil {
		t.Fatal(err)
	}
	file, _ := globalplatform.LoadFile(block, y)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insLoad, P1: 0x80, Data: file, Ne: 256}, iso7816.ErrSecurityStatus)
}

// The MAC of old token and receipt keys: Bouncy Castle's vector of MAC
// algorithm 3 (ISO9797Alg3MacTest), and the padding that GPCS B.1.3 adds.
func TestRetailMAC(t *testing.T) {
	k := mustHex("7CA110454A1A6E570131D9619DC1376E")
	mac, err := mac3(k, []byte("Hello World !!!!"))
	if err != nil || !bytes.Equal(mac, mustHex("F09B856213BAB83B")) {
		t.Errorf("%X %v", mac, err)
	}
	padded, err := retailMAC(k, []byte("Hello World !"))
	if err != nil {
		t.Fatal(err)
	}
	if mac, _ = mac3(k, append([]byte("Hello World !"), 0x80, 0, 0)); !bytes.Equal(mac, padded) {
		t.Errorf("%X, want %X", padded, mac)
	}
}
