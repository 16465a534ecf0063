package emulator

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var (
	domainX = iso7816.MustAID("F07465737400D001")
	domainY = iso7816.MustAID("F07465737400D002")
	keysX   = testSet(0x20, 0x70)
	keysY   = testSet(0x21, 0x90)
)

func testSet(version, first byte) keys.Set {
	var k [3]keys.Key
	for i := range k {
		k[i], _ = keys.NewKey(bytes.Repeat([]byte{first + byte(i)}, 16))
	}
	return keys.Set{Version: version, ENC: k[0], MAC: k[1], DEK: k[2]}
}

// cmdInstallDomain installs a Security Domain and makes it selectable.
func cmdInstallDomain(aid iso7816.AID, rights string, specific string) iso7816.Command {
	return iso7816.Command{
		CLA: 0x80, INS: insInstall, P1: forInstallSelectable, Ne: 256,
		Data: lv(domainPackage.Bytes(), domainModule.Bytes(), aid.Bytes(), mustHex(rights), iso7816.AppendTLV(nil, 0xC9, mustHex(specific)), nil),
	}
}

// sealed is a key as PUT KEY carries it, with its check value.
func sealed(t testing.TB, s *scp.Session, k []byte) []byte {
	t.Helper()
	b, err := s.EncryptSensitive(k)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		t.Fatal(err)
	}
	check := bytes.Repeat([]byte{1}, 16)
	block.Encrypt(check, check)
	out := append([]byte{keyTypeAES, byte(len(b) + 1), byte(len(k))}, b...)
	return append(append(out, 3), check[:3]...)
}

// cmdPutKeys adds a secure channel key set, or puts it in the place of another.
func cmdPutKeys(t testing.TB, s *scp.Session, old byte, set keys.Set) iso7816.Command {
	t.Helper()
	data := []byte{set.Version}
	for _, k := range []keys.Key{set.ENC, set.MAC, set.DEK} {
		data = append(data, sealed(t, s, k.Bytes())...)
	}
	return iso7816.Command{CLA: 0x80, INS: insPutKey, P1: old, P2: 0x81, Data: data, Ne: 256}
}

// cmdPutKey adds one key, or puts it in the place of another.
func cmdPutKey(old, version, id byte, field []byte) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: insPutKey, P1: old, P2: id, Data: append([]byte{version}, field...), Ne: 256}
}

func tryOpenDomain(c iso7816.Card, aid iso7816.AID, set keys.Set, level scp.Level) (*scp.Session, error) {
	ctx := context.Background()
	if _, err := iso7816.Do(ctx, iso7816.Plain(c), iso7816.Select(aid)); err != nil {
		return nil, err
	}
	return scp.Open(ctx, iso7816.Plain(c), set, scp.HostOptions{Level: level, KeyVersion: set.Version, Rand: &stream{n: 7}})
}

func openDomain(t testing.TB, c iso7816.Card, aid iso7816.AID, set keys.Set) *scp.Session {
	t.Helper()
	s, err := tryOpenDomain(c, aid, set, scp.CDecryption)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addDomain installs a Security Domain and gives it keys.
func addDomain(t testing.TB, c *Card, aid iso7816.AID, rights string, set keys.Set) {
	t.Helper()
	want(t, authenticate(t, c, scp.CMAC), cmdInstallDomain(aid, rights, ""), iso7816.OK)
	first := testConfig(t).Keys
	s := openDomain(t, c, aid, first)
	want(t, s, cmdPutKeys(t, s, 0, set), iso7816.OK)
}

func cmdExtradite(aid, to iso7816.AID) iso7816.Command {
	return iso7816.Command{CLA: 0x80, INS: insInstall, P1: forExtradition, Ne: 256, Data: lv(to.Bytes(), nil, aid.Bytes(), nil, nil, nil)}
}

// listed are the AIDs that GET STATUS shows of applications, and their states.
func listed(t testing.TB, s iso7816.Sender) map[string]byte {
	t.Helper()
	out := map[string]byte{}
	cmd := cmdGetStatus(scopeApplications, "4F00")
	var data []byte
	for {
		r := send(t, s, cmd)
		data = append(data, r.Data...)
		if r.SW == iso7816.ErrDataNotFound {
			return out
		}
		if r.SW == iso7816.OK {
			break
		}
		cmd.P2 |= 1
	}
	templates, err := iso7816.ParseTLVs(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e3 := range templates {
		children, err := e3.Children()
		if err != nil {
			t.Fatal(err)
		}
		aid, _ := iso7816.Find(children, tagAID)
		state, _ := iso7816.Find(children, 0x9F70)
		out[fmt.Sprintf("%X", aid.Value)] = state.Value[0]
	}
	return out
}

func TestDomainLife(t *testing.T) {
	c := newTestCard(t)
	s := authenticate(t, c, scp.CMAC)
	install := cmdInstallDomain(domainX, "808000", "")
	install.P1 = forInstall
	want(t, s, install, iso7816.OK)
	state := func(want byte) {
		t.Helper()
		if got := c.state.entry(domainX).stateByte(); got != want {
			t.Fatalf("state %02X, want %02X", got, want)
		}
	}
	state(0x03)
	want(t, iso7816.Plain(c), iso7816.Select(domainX), iso7816.ErrNotFound)
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdPersonalize(domainX), iso7816.ErrConditions)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insInstall, P1: forMakeSelectable, Data: lv(nil, nil, domainX.Bytes(), []byte{0}, nil, nil), Ne: 256}, iso7816.OK)
	state(0x07)
	fci := want(t, iso7816.Plain(c), iso7816.Select(domainX), iso7816.OK)
	if !bytes.HasPrefix(fci.Data, mustHex("6F418408F07465737400D001A535732F")) {
		t.Errorf("FCI %X", fci.Data)
	}
	for hex, want := range map[string]string{"80CA00E000": "E0009000", "80CA004200": "6A88", "80CA004500": "6A88", "80CA006700": "6A88", "80CA00C200": "6A88", "80CA00C100": "6A88"} {
		if r := transmit(t, c, hex); !bytes.Equal(r.Encode(), mustHex(want)) {
			t.Errorf("%s: %X, want %s", hex, r.Encode(), want)
		}
	}
	// Without keys of its own it speaks with its Security Domain's. It serves
	// nobody yet.
	s = openDomain(t, c, domainX, testConfig(t).Keys)
	want(t, s, cmdSetStatus(domainX, domainPersonalized), iso7816.ErrConditions)
	want(t, s, install, iso7816.ErrConditions)
	if r := want(t, s, cmdPutKeys(t, s, 0, keysX), iso7816.OK); len(r.Data) != 10 || r.Data[0] != keysX.Version {
		t.Errorf("PUT KEY answers %X", r.Data)
	}
	state(0x0F)
	want(t, s, cmdSetStatus(domainX, domainPersonalized), iso7816.ErrConditions) // its present state
	want(t, s, cmdSetStatus(domainX, 0x00), iso7816.ErrConditions)
	if _, err := tryOpenDomain(c, domainX, testConfig(t).Keys, scp.CMAC); err == nil {
		t.Error("the issuer still opens a channel to it")
	}
	s = openDomain(t, c, domainX, keysX)
	if r := want(t, s, iso7816.Command{CLA: 0x80, INS: insGetData, P2: 0xE0, Ne: 256}, iso7816.OK); !bytes.Equal(r.Data, mustHex("E012C00401208810C00402208810C00403208810")) {
		t.Errorf("key information %X", r.Data)
	}
	if got := listed(t, s); len(got) != 1 || got["F07465737400D001"] != 0x0F {
		t.Errorf("it sees %v", got)
	}
	want(t, s, cmdGetStatus(scopeIssuer, "4F00"), iso7816.ErrDataNotFound)
	want(t, s, cmdGetStatus(scopeFiles, "4F00"), iso7816.ErrDataNotFound)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardLocked}, iso7816.ErrConditions)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardTerminated}, iso7816.ErrConditions)
	// It locks itself, and rejects everything from then on.
	want(t, s, cmdSetStatus(domainX, 0x80), iso7816.OK)
	state(0x8F)
	want(t, s, cmdSetStatus(domainX, 0x00), iso7816.ErrConditions)
	want(t, iso7816.Plain(c), iso7816.Command{CLA: 0x80, INS: insGetData, P2: 0xE0, Ne: 256}, iso7816.ErrConditions)
	want(t, iso7816.Plain(c), iso7816.Select(domainX), iso7816.ErrNotFound)
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdSetStatus(domainX, 0x00), iso7816.OK)
	state(0x0F)
	want(t, s, cmdDelete(domainX, false), iso7816.OK)
	if c.state.entry(domainX) != nil || c.Memory().PersistentUsed != 0 {
		t.Error("something of it is left")
	}
	for name, cmd := range map[string]iso7816.Command{
		"DELETE":                    cmdDelete(domainPackage, false),
		"DELETE with related":       cmdDelete(domainPackage, true),
		"INSTALL [for load]":        cmdInstallForLoad(domainPackage, nil),
		"INSTALL [for extradition]": cmdExtradite(domainPackage, IssuerSecurityDomain),
	} {
		if r := send(t, s, cmd); r.SW != iso7816.ErrConditions {
			t.Errorf("%s of the card's own load file: %v", name, r.SW)
		}
	}
}

func TestDomainInstallation(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	before := encodeImage(c.state)
	other := cmdInstall(instanceB, specific(8, 0, 0, 0))
	asDomain := lv(testPackage.Bytes(), testModuleID.Bytes(), instanceB.Bytes(), []byte{0x80}, iso7816.AppendTLV(nil, 0xC9, specific(8, 0, 0, 0)), nil)
	other.Data = asDomain
	for name, test := range map[string]struct {
		cmd  iso7816.Command
		want iso7816.SW
	}{
		"no Security Domain privilege":        {cmdInstallDomain(domainX, "00", ""), iso7816.ErrWrongData},
		"another module":                      {other, iso7816.ErrWrongData},
		"Authorized and Delegated":            {cmdInstallDomain(domainX, "A0C000", ""), iso7816.ErrWrongData},
		"Token Verification and Delegated":    {cmdInstallDomain(domainX, "A0A000", ""), iso7816.ErrWrongData},
		"Receipt Generation and Delegated":    {cmdInstallDomain(domainX, "A08080", ""), iso7816.ErrWrongData},
		"Mandated DAP without DAP":            {cmdInstallDomain(domainX, "818000", ""), iso7816.ErrWrongData},
		"Ciphered Load File of an applet":     {cmdRights(instanceB, "000040"), iso7816.ErrWrongData},
		"privileges of 4 bytes":               {cmdInstallDomain(domainX, "80800000", ""), iso7816.ErrWrongData},
		"RFU":                                 {cmdInstallDomain(domainX, "808001", ""), iso7816.ErrWrongData},
		"parameters that are no TLV":          {cmdInstallDomain(domainX, "80", "8103"), iso7816.ErrWrongData},
		"a protocol that nobody speaks":       {cmdInstallDomain(domainX, "80", "81020355"), iso7816.ErrWrongData},
		"an AID that is there":                {cmdInstallDomain(instanceA, "80", ""), iso7816.ErrConditions},
		"Delegated Management of an applet":   {cmdRights(instanceB, "200000"), iso7816.ErrWrongData},
		"Global Delete of an applet":          {cmdRights(instanceB, "001000"), iso7816.ErrWrongData},
		"Card Reset of what isn't selectable": {func() iso7816.Command { r := cmdRights(instanceB, "040000"); r.P1 = forInstall; return r }(), iso7816.ErrWrongData},
	} {
		if r := send(t, s, test.cmd); r.SW != test.want {
			t.Errorf("%s: %v, want %v", name, r.SW, test.want)
		}
		if !bytes.Equal(before, encodeImage(c.state)) {
			t.Fatalf("%s: the card changed", name)
		}
	}
	// One byte of privileges: Trusted Path comes with them (GPCS table 6-2).
	want(t, s, cmdInstallDomain(domainX, "80", "8102030087012082012045020102"), iso7816.OK)
	if e := c.state.entry(domainX); e.privileges != (privileges{0x80, 0x80, 0}) || e.domain.protocol != (scp.Protocol{Number: 3}) {
		t.Errorf("privileges %X, %v", e.privileges, e.domain.protocol)
	}
	want(t, s, cmdInstallDomain(domainY, "8040", ""), iso7816.OK)
	if e := c.state.entry(domainY); e.privileges != (privileges{0x80, 0x40, 0}) {
		t.Errorf("privileges %X", e.privileges)
	}
}

func cmdRights(aid iso7816.AID, rights string) iso7816.Command {
	c := cmdInstall(aid, nil)
	c.Data = lv(testPackage.Bytes(), testModuleID.Bytes(), aid.Bytes(), mustHex(rights), iso7816.AppendTLV(nil, 0xC9, specific(8, 0, 0, 0)), nil)
	return c
}

func TestPutKey(t *testing.T) {
	c := newTestCard(t)
	s := authenticate(t, c, scp.CMAC)
	k16, k32 := bytes.Repeat([]byte{5}, 16), bytes.Repeat([]byte{6}, 32)
	token := sealed(t, s, k16)
	wrongCheck := bytes.Clone(token)
	wrongCheck[len(wrongCheck)-1] ^= 1
	noCheck := append(bytes.Clone(token[:len(token)-4]), 0)
	aligned := append(append([]byte{keyTypeAES, 16}, token[3:19]...), token[19:]...) // without its length
	modulus := append([]byte{0xC0}, bytes.Repeat([]byte{1}, 127)...)
	rsa := append(append(append([]byte{0xA1, 0x81, 0x80}, modulus...), 0xA0, 3, 1, 0, 1), 0)
	point := mustHex("046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C2964FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5") // the generator of P-256
	ec := append(append([]byte{0xB0, 65}, point...), 0xF0, 1, 0, 0)
	offCurve := bytes.Clone(ec)
	offCurve[40] ^= 1
	extended := append(append([]byte{0xFF}, token...), 1, usageToken, 1, 0x01)
	for _, test := range []struct {
		name string
		cmd  iso7816.Command
		want iso7816.SW
	}{
		{"wrong check value", cmdPutKey(0, 0x70, 1, wrongCheck), iso7816.ErrSecurityStatus},
		{"no check value", cmdPutKey(0, 0x70, 1, noCheck), iso7816.ErrWrongData},
		{"version 0", cmdPutKey(0, 0, 1, token), iso7816.ErrWrongData},
		{"version 80", cmdPutKey(0, 0x80, 1, token), iso7816.ErrWrongData},
		{"no key", cmdPutKey(0, 0x70, 1, nil), iso7816.ErrWrongData},
		{"no data", iso7816.Command{CLA: 0x80, INS: insPutKey, P2: 1, Ne: 256}, iso7816.ErrWrongData},
		{"cut short", cmdPutKey(0, 0x70, 1, token[:10]), iso7816.ErrWrongData},
		{"two keys in a command for one", cmdPutKey(0, 0x70, 1, append(bytes.Clone(token), token...)), iso7816.ErrWrongData},
		{"key type", cmdPutKey(0, 0x70, 1, append([]byte{0x90}, token[1:]...)), iso7816.ErrWrongData},
		{"point off the curve", cmdPutKey(0, 0x70, 1, offCurve), iso7816.ErrWrongData},
		{"point without parameters", cmdPutKey(0, 0x70, 1, append(bytes.Clone(ec[:67]), 0)), iso7816.ErrWrongData},
		{"reference of no curve", cmdPutKey(0, 0x70, 1, append(bytes.Clone(ec[:67]), 0xF0, 1, 9, 0)), iso7816.ErrWrongData},
		{"reference of another curve", cmdPutKey(0, 0x70, 1, append(bytes.Clone(ec[:67]), 0xF0, 1, 3, 0)), iso7816.ErrWrongData},
		{"EC private key", cmdPutKey(0, 0x70, 1, append([]byte{0xB1}, token[1:]...)), iso7816.ErrWrongData},
		{"RSA private exponent", cmdPutKey(0, 0x70, 1, append([]byte{0xA3}, token[1:]...)), iso7816.ErrWrongData},
		{"modulus without exponent", cmdPutKey(0, 0x70, 1, append(bytes.Clone(rsa[:131]), 0)), iso7816.ErrWrongData},
		{"RSA with a check value", cmdPutKey(0, 0x70, 1, append(bytes.Clone(rsa[:len(rsa)-1]), 1, 9)), iso7816.ErrWrongData},
		{"replacing what isn't there", cmdPutKey(0x70, 0x70, 1, token), iso7816.ErrDataNotFound},
		{"adding what is there", cmdPutKey(0, 0x30, 1, token), iso7816.ErrWrongData},
		{"replacing by another size", cmdPutKey(0x30, 0x30, 1, sealed(t, s, k32)), iso7816.ErrWrongData},
		{"replacing by another type", cmdPutKey(0x30, 0x30, 1, ec), iso7816.ErrWrongData},
		{"replacing a part of a set", cmdPutKeys(t, s, 0x31, keysX), iso7816.ErrDataNotFound},
	} {
		before := encodeImage(c.state)
		if r := send(t, s, test.cmd); r.SW != test.want {
			t.Errorf("%s: %v, want %v", test.name, r.SW, test.want)
		}
		if !bytes.Equal(before, encodeImage(c.state)) {
			t.Fatalf("%s: the card changed", test.name)
		}
	}
	want(t, s, cmdPutKey(0, 0x70, 1, rsa), iso7816.OK)
	want(t, s, cmdPutKey(0, 0x73, 1, ec), iso7816.OK)
	want(t, s, cmdPutKey(0, 0x74, 1, aligned), iso7816.OK)
	want(t, s, cmdPutKey(0, 0x71, 1, extended), iso7816.OK)
	want(t, s, cmdPutKey(0, 0x72, 5, sealed(t, s, k32)), iso7816.OK)
	want(t, s, cmdPutKey(0x72, 0x75, 5, sealed(t, s, bytes.Repeat([]byte{8}, 32))), iso7816.OK) // of another version now
	want(t, s, cmdPutKeys(t, s, 0, keysX), iso7816.OK)
	parameters := func(point []byte, curve string) []byte {
		own := append([]byte{keyTypeECPublic, 65}, point...)
		for kind := byte(keyTypeECField); kind <= keyTypeECOrder; kind++ {
			v := curveParameters(curve)[kind]
			own = append(append(own, kind, byte(len(v))), v...)
		}
		return own
	}
	own, brainpool := parameters(point, "P-256"), curveParameters("brainpoolP256t1")[keyTypeECGenerator]
	other := bytes.Clone(own)
	other[70] ^= 1
	for name, test := range map[string]struct {
		field []byte
		want  iso7816.SW
	}{
		"changed parameters":   {append(other, 0), iso7816.ErrWrongData},
		"a parameter missing":  {append(bytes.Clone(own[:len(own)-34]), 0), iso7816.ErrWrongData},
		"a cofactor of 2":      {append(bytes.Clone(own), keyTypeECCofactor, 1, 2, 0), iso7816.ErrWrongData},
		"its own parameters":   {append(bytes.Clone(own), 0), iso7816.OK},
		"a Brainpool curve's":  {append(parameters(brainpool, "brainpoolP256t1"), 0), iso7816.OK},
		"of another curve":     {append(parameters(brainpool, "brainpoolP256r1"), 0), iso7816.ErrWrongData},
		"and its cofactor too": {append(bytes.Clone(own), keyTypeECCofactor, 1, 1, 0), iso7816.OK},
	} {
		c := newTestCard(t)
		s := authenticate(t, c, scp.CMAC)
		r, err := s.SendChained(context.Background(), cmdPutKey(0, 0x73, 1, test.field))
		if err != nil || r.SW != test.want {
			t.Errorf("%s: %v %v, want %v", name, r.SW, err, test.want)
		}
		if test.want == iso7816.OK {
			if info, err := globalplatform.Keys(context.Background(), s); err != nil || len(info) != 4 || len(info[3].Components) != 1 {
				t.Errorf("%s: %+v %v", name, info, err)
			}
			if _, err := decodeImage(encodeImage(c.state)); err != nil {
				t.Error(err)
			}
		}
	}
	info := transmit(t, c, "00A40400")
	info = transmit(t, c, "80CA00E000")
	if want := "E04C" + "C00401308810C00402308810C00403308810" + "C0060170A180A003" + "C0060173B040F000" + "C00401748810" + "C00A0171FF88001001810101" + "C00405758820" +
		"C00401208810C00402208810C00403208810"; fmt.Sprintf("%X", info.Data) != want {
		t.Errorf("key information\n%X, want\n%s", info.Data, want)
	}
	// 0 asks for the newest set, a version for itself.
	if r := transmit(t, c, "8050000008"+"0102030405060708"+"00"); r.Data[10] != keysX.Version {
		t.Errorf("the newest key set is %02X", r.Data[10])
	}
	authenticateWith := func(set keys.Set) *scp.Session { t.Helper(); return openDomain(t, c, IssuerSecurityDomain, set) }
	s = authenticateWith(keysX)
	delete := func(data string, sw iso7816.SW) {
		t.Helper()
		want(t, s, iso7816.Command{CLA: 0x80, INS: insDelete, Data: mustHex(data), Ne: 256}, sw)
	}
	delete("D00101D20130", iso7816.OK) // one key of the older set
	delete("D20130", iso7816.OK)
	delete("D20130", iso7816.ErrDataNotFound)
	delete("D20120", iso7816.ErrConditions) // the last set
	delete("D00101D20120", iso7816.ErrConditions)
	delete("D20120D20120", iso7816.ErrWrongData)
	delete("D2020120", iso7816.ErrWrongData)
	delete("D00105", iso7816.OK)
	want(t, s, cmdPutKeys(t, s, 0x20, keysY), iso7816.OK) // the session goes on
	want(t, s, cmdGetStatus(scopeIssuer, "4F00"), iso7816.OK)
	authenticateWith(keysY)
}

// A key that no command can carry whole comes in a chain (GPCS 11.1.5.1), over
// all of which secure messaging goes.
func TestChainedCommands(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range []scp.Level{scp.CMAC, scp.Full} {
		c := newTestCard(t)
		s := authenticate(t, c, level)
		put := globalplatform.PutKey{ID: 1, Version: 0x70, Keys: []globalplatform.KeyValue{globalplatform.RSAPublicKey(&private.PublicKey)}}
		if err := globalplatform.PutKeys(context.Background(), s, put); err != nil {
			t.Fatalf("level %v: %v", level, err)
		}
		k, _ := c.state.issuer().domain.purpose(usageToken, versionToken)
		if n, _ := k.find(keyTypeRSAModulus); !bytes.Equal(n, private.N.Bytes()) {
			t.Errorf("level %v: another modulus", level)
		}
		if k, err := globalplatform.Keys(context.Background(), s); err != nil || k[3].Components[0].Length != 0 {
			t.Errorf("key information %v %v", k, err)
		}
	}
	// Something else in between ends the chain, and so does too much of it.
	c := newTestCard(t)
	plain := iso7816.Plain(c)
	part := func(p1 byte) iso7816.Command {
		return iso7816.Command{CLA: 0x80, INS: insPutKey, P1: p1, P2: 1, Data: make([]byte, 200), Ne: 256}
	}
	if r := want(t, plain, part(0x80), iso7816.OK); len(r.Data) != 0 {
		t.Errorf("the first part answers %X", r.Data)
	}
	want(t, plain, iso7816.Command{CLA: 0x80, INS: insGetData, P2: 0x66, Ne: 256}, iso7816.ErrConditions)
	want(t, plain, iso7816.Command{CLA: 0x80, INS: insGetData, P2: 0x66, Ne: 256}, iso7816.OK)
	want(t, plain, part(0x00), iso7816.ErrSecurityStatus)
	want(t, plain, part(0x80), iso7816.OK)
	want(t, plain, part(0x81), iso7816.ErrConditions) // another header
	for n := 0; ; n++ {
		if r := send(t, plain, part(0x80)); r.SW == iso7816.ErrIncorrectP1P2 {
			break
		} else if r.SW != iso7816.OK || n == 100 {
			t.Fatalf("part %d: %v", n, r.SW)
		}
	}
	want(t, plain, part(0x80), iso7816.OK)
	transmit(t, c, "00A40400")
	want(t, plain, part(0x00), iso7816.ErrSecurityStatus)
}

func TestHierarchy(t *testing.T) {
	c := withInstance(t)
	addDomain(t, c, domainX, "80C000", keysX) // Authorized Management
	addDomain(t, c, domainY, "808000", keysY)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstall(instanceB, specific(8, 0, 0, 0)), iso7816.OK)
	want(t, s, cmdExtradite(domainY, domainX), iso7816.OK)   // X above Y
	want(t, s, cmdExtradite(instanceA, domainY), iso7816.OK) // and Y above A
	all := listed(t, s)
	if len(all) != 5+4 {
		t.Errorf("the issuer sees %v", all)
	}
	sees := func(sd iso7816.AID, set keys.Set, want ...string) {
		t.Helper()
		got := listed(t, openDomain(t, c, sd, set))
		if len(got) != len(want) {
			t.Errorf("%v sees %v, want %v", sd, got, want)
		}
		for _, w := range want {
			if _, ok := got[w]; !ok {
				t.Errorf("%v does not see %s", sd, w)
			}
		}
	}
	sees(domainX, keysX, domainX.String(), domainY.String(), instanceA.String())
	sees(domainY, keysY, domainY.String(), instanceA.String())
	// Personalised through Y's channel, and through no other.
	s = authenticate(t, c, scp.CDecryption)
	want(t, s, cmdPersonalize(instanceA), iso7816.ErrConditions)
	s = openDomain(t, c, domainX, keysX)
	want(t, s, cmdPersonalize(instanceA), iso7816.ErrConditions)
	want(t, s, cmdPersonalize(domainY), iso7816.ErrConditions) // it has keys of its own
	s = openDomain(t, c, domainY, keysY)
	want(t, s, cmdPersonalize(instanceB), iso7816.ErrConditions)
	want(t, s, cmdPersonalize(instanceA), iso7816.OK)
	secret, err := s.EncryptSensitive(bytes.Repeat([]byte{7}, 16))
	if err != nil {
		t.Fatal(err)
	}
	want(t, s, iso7816.Command{CLA: 0x80, INS: insStoreData, P1: 0xE8, Data: secret}, iso7816.OK)
	if got := c.state.entry(instanceA).objects[0].data[:16]; !bytes.Equal(got, bytes.Repeat([]byte{7}, 16)) {
		t.Errorf("store %X", got)
	}
	// Y may not manage content; it locks what is its own.
	want(t, s, cmdDelete(instanceA, false), iso7816.ErrConditions)
	want(t, s, cmdExtradite(instanceA, domainX), iso7816.ErrConditions)
	want(t, s, cmdInstall(iso7816.MustAID("F000000009"), specific(8, 0, 0, 0)), iso7816.ErrConditions)
	want(t, s, cmdInstallForLoad(iso7816.MustAID("F000000009"), nil), iso7816.ErrConditions)
	want(t, s, cmdSetStatus(instanceB, 0x80), iso7816.ErrConditions)
	want(t, s, cmdSetStatus(domainX, 0x80), iso7816.ErrConditions)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
	// X manages what is below it, and nothing else.
	s = openDomain(t, c, domainX, keysX)
	want(t, s, cmdSetStatus(instanceA, 0x00), iso7816.OK)
	want(t, s, cmdDelete(instanceB, false), iso7816.ErrConditions)
	want(t, s, cmdDelete(testPackage, true), iso7816.ErrConditions)
	want(t, s, cmdInstall(iso7816.MustAID("F000000009"), specific(8, 0, 0, 0)), iso7816.ErrConditions) // the issuer's load file
	want(t, s, cmdExtradite(instanceB, domainX), iso7816.ErrConditions)
	want(t, s, cmdExtradite(domainX, domainY), iso7816.ErrConditions) // not X's to give
	want(t, s, cmdExtradite(instanceA, domainY), iso7816.ErrConditions)
	want(t, s, cmdExtradite(instanceA, instanceB), iso7816.ErrDataNotFound)
	want(t, s, cmdExtradite(iso7816.MustAID("F000000009"), domainX), iso7816.ErrDataNotFound)
	want(t, s, cmdDelete(domainY, false), iso7816.ErrConditions) // A belongs to it
	want(t, s, cmdDelete(domainX, false), iso7816.ErrConditions)
	want(t, s, cmdExtradite(instanceA, domainX), iso7816.OK)
	want(t, s, cmdDelete(domainY, false), iso7816.OK)
	// Who has not received power over the card can't pass it on.
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdExtradite(domainPackage, domainX), iso7816.ErrConditions)
	want(t, s, cmdExtradite(testPackage, domainX), iso7816.OK)
	s = openDomain(t, c, domainX, keysX)
	want(t, s, cmdRights(iso7816.MustAID("F000000009"), "000200"), iso7816.ErrConditions)
	want(t, s, cmdRights(iso7816.MustAID("F000000009"), "000000"), iso7816.OK)
	if got := c.state.entry(iso7816.MustAID("F000000009")).securityDomain; got != domainX {
		t.Errorf("an application of X's load file belongs to %v", got)
	}
	want(t, s, cmdDelete(iso7816.MustAID("F000000009"), false), iso7816.OK)
	// X becomes the root of its own hierarchy: the issuer has no say in it,
	// though it sees all.
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdExtradite(domainX, domainX), iso7816.OK)
	want(t, s, cmdExtradite(instanceA, IssuerSecurityDomain), iso7816.ErrConditions)
	want(t, s, cmdPersonalize(instanceA), iso7816.ErrConditions)
	if len(listed(t, s)) != 5+3 {
		t.Errorf("the issuer sees %v", listed(t, s))
	}
	s = openDomain(t, c, domainX, keysX)
	raise := iso7816.Command{CLA: 0x80, INS: insInstall, P1: forRegistryUpdate, Ne: 256, Data: lv(nil, nil, domainX.Bytes(), mustHex("A08000"), nil, nil)}
	want(t, s, raise, iso7816.ErrConditions) // not even there does one change one's own privileges
	want(t, s, cmdInstallForLoad(iso7816.MustAID("F000000009"), nil), iso7816.OK)
	l := cmdInstallForLoad(iso7816.MustAID("F000000009"), nil)
	l.Data = lv(mustHex("F000000009"), IssuerSecurityDomain.Bytes(), nil, nil, nil)
	want(t, s, l, iso7816.ErrConditions)
}

// No Security Domain comes to lie below itself.
func TestNoLoopsInHierarchy(t *testing.T) {
	c := newTestCard(t)
	addDomain(t, c, domainX, "808000", keysX)
	addDomain(t, c, domainY, "808000", keysY)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdExtradite(domainY, domainX), iso7816.OK)
	want(t, s, cmdExtradite(domainX, domainY), iso7816.ErrConditions)
	bare := iso7816.MustAID("F07465737400D003")
	want(t, s, cmdInstallDomain(bare, "80", ""), iso7816.OK)
	want(t, s, cmdExtradite(domainY, bare), iso7816.ErrConditions) // it can't serve yet
	want(t, s, cmdExtradite(bare, bare), iso7816.ErrConditions)    // it would have no keys
	want(t, s, cmdDelete(domainX, false), iso7816.ErrConditions)
	want(t, s, cmdSetStatus(domainX, 0x80), iso7816.OK)
	want(t, s, cmdExtradite(domainY, IssuerSecurityDomain), iso7816.ErrConditions) // a locked one lets nothing go
	want(t, s, cmdExtradite(bare, domainX), iso7816.ErrConditions)                 // and takes nothing
}

func TestHierarchyIsLockedTogether(t *testing.T) {
	c := withInstance(t)
	addDomain(t, c, domainX, "808000", keysX)
	addDomain(t, c, domainY, "808000", keysY)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdExtradite(domainY, domainX), iso7816.OK)
	want(t, s, cmdExtradite(instanceA, domainY), iso7816.OK)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
	all := func(aid iso7816.AID, p2 byte) iso7816.Command {
		return iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusHierarchy, P2: p2, Data: aid.Bytes()}
	}
	states := func(want ...byte) {
		t.Helper()
		for i, aid := range []iso7816.AID{domainX, domainY, instanceA} {
			if got := c.state.entry(aid).stateByte(); got != want[i] {
				t.Errorf("%v in state %02X, want %02X", aid, got, want[i])
			}
		}
	}
	want(t, s, all(domainX, 0x80), iso7816.OK) // A is locked already
	states(0x8F, 0x8F, 0x87)
	want(t, s, all(domainX, 0x80), iso7816.OK)
	want(t, s, all(domainX, 0x00), iso7816.OK)
	states(0x0F, 0x0F, 0x07)
	want(t, s, all(instanceA, 0x80), iso7816.ErrDataNotFound)
	want(t, s, all(IssuerSecurityDomain, 0x80), iso7816.ErrConditions)
	want(t, s, all(iso7816.MustAID("F000000009"), 0x80), iso7816.ErrDataNotFound)
	s = openDomain(t, c, domainY, keysY)
	want(t, s, all(domainX, 0x80), iso7816.ErrConditions)
	want(t, s, all(domainY, 0x80), iso7816.OK)
	states(0x0F, 0x8F, 0x87)
}

// A Security Domain is personalised through the one that it belongs to, data
// and keys with STORE DATA.
func TestDomainPersonalisedByStoreData(t *testing.T) {
	c := newTestCard(t)
	s := authenticate(t, c, scp.CDecryption)
	want(t, s, cmdInstallDomain(domainX, "808000", ""), iso7816.OK)
	var crts, values []byte
	for i, k := range []keys.Key{keysX.ENC, keysX.MAC, keysX.DEK} {
		kcv := k.CheckValue()
		crt := fmt.Sprintf("B914950138800188810110820101830120%s", "8403"+hex.EncodeToString(kcv[:]))
		crt = strings.Replace(crt, "820101", fmt.Sprintf("8201%02X", i+1), 1)
		b := mustHex(crt)
		b[1] = byte(len(b) - 2)
		crts = append(crts, b...)
		secret, err := s.EncryptSensitive(k.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		values = append(append(values, 0x81, 0x13, 16), secret...)
	}
	data := append(mustHex("00700B"+"420439200002"+"4503010203"), append([]byte{0x00, 0xB9, byte(len(crts))}, append(crts, values...)...)...)
	want(t, s, cmdPersonalize(domainX), iso7816.OK)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insStoreData, P1: 0x08, P2: 0, Data: data[:70]}, iso7816.OK)
	before := encodeImage(c.state)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insStoreData, P1: 0x88, P2: 1, Data: data[70:]}, iso7816.OK)
	if bytes.Equal(before, encodeImage(c.state)) || c.state.entry(domainX).lifeCycle != domainPersonalized {
		t.Error("not personalised")
	}
	s = openDomain(t, c, domainX, keysX)
	if r := want(t, s, iso7816.Command{CLA: 0x80, INS: insGetData, P2: 0x45, Ne: 256}, iso7816.OK); !bytes.Equal(r.Data, mustHex("4503010203")) {
		t.Errorf("image number %X", r.Data)
	}
	if r := transmit(t, c, "00A40400"); r.SW != iso7816.OK {
		t.Error(r.SW)
	}
	s = authenticate(t, c, scp.CDecryption)
	want(t, s, cmdPersonalize(domainX), iso7816.ErrConditions) // it is its owner's now
}

func TestStoreDataInDomain(t *testing.T) {
	c := newTestCard(t)
	addDomain(t, c, domainX, "808000", keysX)
	const crt = "00B914B91295018180018881011082010183017084" // cut short on purpose
	for _, test := range []struct {
		name  string
		sd    iso7816.AID
		p1    byte
		data  string
		want  iso7816.SW
		tag   uint16
		value string
	}{
		{"BER-TLV", IssuerSecurityDomain, 0x90, "42021234", iso7816.OK, 0x42, "1234"},
		{"plain", IssuerSecurityDomain, 0x80, "45021234", iso7816.OK, 0x45, "1234"},
		{"DGI", IssuerSecurityDomain, 0x88, "00700342021235", iso7816.ErrWrongData, 0x42, "1234"}, // the template's length
		{"DGI right", IssuerSecurityDomain, 0x88, "007004" + "42021235", iso7816.OK, 0x42, "1235"},
		{"application dependent encryption", IssuerSecurityDomain, 0xA8, "007004" + "42021236", iso7816.OK, 0x42, "1236"},
		{"all encrypted, in the clear", IssuerSecurityDomain, 0xE8, "007004" + "42021237", iso7816.ErrWrongData, 0x42, "1236"},
		{"RFU encryption", IssuerSecurityDomain, 0xD0, "42021237", iso7816.ErrIncorrectP1P2, 0x42, "1236"},
		{"RFU format", IssuerSecurityDomain, 0x98, "42021237", iso7816.ErrIncorrectP1P2, 0x42, "1236"},
		{"two objects, one wrong", IssuerSecurityDomain, 0x90, "42021237" + "D30100", iso7816.ErrWrongData, 0x42, "1236"},
		{"unknown object", IssuerSecurityDomain, 0x90, "9F7F0100", iso7816.ErrDataNotFound, 0x42, "1236"},
		{"unknown group", IssuerSecurityDomain, 0x88, "01010100", iso7816.ErrDataNotFound, 0x42, "1236"},
		{"the issuer's number taken away", IssuerSecurityDomain, 0x90, "4200", iso7816.ErrWrongData, 0x42, "1236"},
		{"no data", IssuerSecurityDomain, 0x90, "", iso7816.OK, 0x42, "1236"},
		{"internal: confirmation counter", IssuerSecurityDomain, 0x90, "C2020001", iso7816.ErrWrongData, 0xC2, "0000"},
		{"Card Data", IssuerSecurityDomain, 0x90, "6604" + "73020601", iso7816.OK, 0x66, "73020601"},
		{"Card Data that is none", IssuerSecurityDomain, 0x90, "6603" + "740101", iso7816.ErrWrongData, 0x66, "73020601"},
		{"capabilities", IssuerSecurityDomain, 0x90, "6703" + "A00100", iso7816.OK, 0x67, "A00100"},
		{"key without its value", IssuerSecurityDomain, 0x88, crt, iso7816.ErrWrongData, 0x42, "1236"},
		{"proprietary", domainX, 0x90, "FE03DE0101", iso7816.OK, 0xFE, "DE0101"},
		{"URL", domainX, 0x90, "5F5003616263", iso7816.OK, 0x5F50, "616263"},
		{"URL taken away", domainX, 0x90, "5F5000", iso7816.OK, 0x5F50, ""},
		{"AID of a supplementary one", domainX, 0x90, "4F05F000000001", iso7816.ErrDataNotFound, 0x42, ""},
		{"capabilities of a supplementary one", domainX, 0x90, "6700", iso7816.ErrDataNotFound, 0x67, ""},
	} {
		set := testConfig(t).Keys
		if test.sd == domainX {
			set = keysX
		}
		s := openDomain(t, c, test.sd, set)
		if r := send(t, s, iso7816.Command{CLA: 0x80, INS: insStoreData, P1: test.p1, Data: mustHex(test.data)}); r.SW != test.want {
			t.Errorf("%s: %v, want %v", test.name, r.SW, test.want)
		}
		want := iso7816.ErrDataNotFound
		if test.value != "" {
			want = iso7816.OK
		}
		r := transmit(t, c, "00A40400 08"+test.sd.String())
		r = transmit(t, c, fmt.Sprintf("00CA%04X00", test.tag))
		if r.SW != want || !bytes.Equal(r.Data, mustHex(test.value)) {
			t.Errorf("%s: GET DATA %X %v, want %s", test.name, r.Data, r.SW, test.value)
		}
	}
	// Blocks: an object longer than one of them; nothing before the last.
	s := authenticate(t, c, scp.CMAC)
	long := iso7816.AppendTLV(nil, tagProprietary, bytes.Repeat([]byte{9}, 300))
	store := func(p1, p2 byte, data []byte) iso7816.Command {
		return iso7816.Command{CLA: 0x80, INS: insStoreData, P1: p1, P2: p2, Data: data}
	}
	want(t, s, store(0x10, 0, long[:200]), iso7816.OK)
	want(t, s, store(0x00, 1, long[200:]), iso7816.ErrIncorrectP1P2) // another format
	want(t, s, store(0x10, 0, long[:200]), iso7816.OK)
	want(t, s, store(0x90, 2, long[200:]), iso7816.ErrIncorrectP1P2) // out of turn
	want(t, s, store(0x10, 0, long[:200]), iso7816.OK)
	if _, there := c.state.issuer().domain.object(tagProprietary); there {
		t.Error("stored before the last block")
	}
	want(t, s, store(0x90, 1, long[200:]), iso7816.OK)
	if v, _ := c.state.issuer().domain.object(tagProprietary); len(v) != 300 {
		t.Errorf("%d bytes stored", len(v))
	}
	want(t, s, store(0x10, 0, iso7816.AppendTLV(nil, tagProprietaryGroup, make([]byte, 4000))[:240]), iso7816.OK)
	for i := range byte(40) {
		r := send(t, s, store(0x10, i+1, make([]byte, 240)))
		if r.SW == iso7816.ErrNoMemory {
			break
		}
		if r.SW != iso7816.OK || i == 39 {
			t.Fatalf("block %d: %v", i+1, r.SW)
		}
	}
	// Another AID of the Issuer Security Domain: everything goes with it.
	name := iso7816.MustAID("A000000003000000")
	want(t, s, store(0x90, 0, iso7816.AppendTLV(nil, tagAID, domainX.Bytes())), iso7816.ErrWrongData)
	want(t, s, store(0x90, 0, iso7816.AppendTLV(nil, tagAID, name.Bytes())), iso7816.OK)
	if r := want(t, iso7816.Plain(c), iso7816.Select(name), iso7816.OK); !bytes.Contains(r.Data, name.Bytes()) {
		t.Errorf("FCI %X", r.Data)
	}
	want(t, iso7816.Plain(c), iso7816.Select(IssuerSecurityDomain), iso7816.ErrNotFound)
	if e := c.state.entry(domainX); e.securityDomain != name {
		t.Errorf("X belongs to %v", e.securityDomain)
	}
	if _, err := decodeImage(encodeImage(c.state)); err != nil {
		t.Error(err)
	}
}

func TestRegistryUpdate(t *testing.T) {
	c := withInstance(t)
	addDomain(t, c, domainX, "80C000", keysX)
	s := authenticate(t, c, scp.CMAC)
	update := func(to, aid iso7816.AID, rights, parameters string) iso7816.Command {
		return iso7816.Command{CLA: 0x80, INS: insInstall, P1: forRegistryUpdate, Ne: 256,
			Data: lv(to.Bytes(), nil, aid.Bytes(), mustHex(rights), mustHex(parameters), nil)}
	}
	none := iso7816.AID{}
	for _, test := range []struct {
		name string
		cmd  iso7816.Command
		want iso7816.SW
	}{
		{"nothing", update(none, instanceA, "", ""), iso7816.ErrWrongData},
		{"unknown application", update(none, instanceB, "00", ""), iso7816.ErrDataNotFound},
		{"the issuer's", update(none, IssuerSecurityDomain, "80", ""), iso7816.ErrConditions},
		{"the card's own", update(none, residents[0], "04", ""), iso7816.ErrConditions},
		{"an applet becomes a domain", update(none, instanceA, "80", ""), iso7816.ErrWrongData},
		{"a domain becomes an applet", update(none, domainX, "000000", ""), iso7816.ErrWrongData},
		{"exclusive ones", update(none, domainX, "A0C000", ""), iso7816.ErrWrongData},
		{"Global Service parameters", update(none, instanceA, "", "EF04CB020101"), iso7816.ErrWrongData},
		{"restricting an applet", update(none, instanceA, "", "EF03D90101"), iso7816.ErrWrongData},
		{"restricting RFU", update(none, domainX, "", "EF03D90180"), iso7816.ErrWrongData},
		{"unknown new domain", update(instanceB, instanceA, "", ""), iso7816.ErrDataNotFound},
	} {
		before := encodeImage(c.state)
		if r := send(t, s, test.cmd); r.SW != test.want {
			t.Errorf("%s: %v, want %v", test.name, r.SW, test.want)
		}
		if !bytes.Equal(before, encodeImage(c.state)) {
			t.Fatalf("%s: the card changed", test.name)
		}
	}
	want(t, s, update(none, domainX, "80D800", ""), iso7816.OK)
	if got := c.state.entry(domainX).privileges; got != (privileges{0x80, 0xD8, 0}) {
		t.Errorf("privileges %X", got)
	}
	// Privileges, implicit selection and extradition, together or not at all.
	want(t, s, update(domainX, instanceA, "040000", "EF03CF0143"), iso7816.OK)
	e := c.state.entry(instanceA)
	if e.securityDomain != domainX || e.privileges != (privileges{0x04, 0, 0}) || !bytes.Equal(e.implicit, []byte{0x43}) || c.state.issuer().privileges.has(privCardReset) {
		t.Errorf("%+v", e)
	}
	want(t, s, cmdRights(instanceB, "040000"), iso7816.ErrConditions)          // A has it
	want(t, s, update(none, instanceA, "", "EF03CF0143"), iso7816.OK)          // its own
	want(t, s, update(none, domainX, "", "EF03CF0143"), iso7816.ErrConditions) // taken
	want(t, s, cmdInstall(instanceB, specific(8, 0, 0, 0)), iso7816.OK)
	s = openDomain(t, c, domainX, keysX)
	want(t, s, update(none, domainX, "80DC00", ""), iso7816.ErrConditions) // nobody raises himself
	want(t, s, update(none, instanceB, "00", ""), iso7816.ErrConditions)   // not its own
	want(t, s, update(none, instanceA, "000000", ""), iso7816.OK)
	if !c.state.issuer().privileges.has(privCardReset) {
		t.Error("Card Reset did not return to the issuer")
	}
	want(t, s, update(none, none, "", "EF03D90102"), iso7816.OK) // with Global Lock: no loading for anybody
	want(t, s, cmdInstallForLoad(iso7816.MustAID("F000000009"), nil), iso7816.ErrConditions)
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstallForLoad(iso7816.MustAID("F000000009"), nil), iso7816.ErrConditions)
	want(t, s, update(none, none, "", "EF03D90100"), iso7816.OK) // takes nothing back
	want(t, s, cmdInstallForLoad(iso7816.MustAID("F000000009"), nil), iso7816.ErrConditions)
	want(t, s, update(none, domainX, "", "EF03D90141"), iso7816.OK)
	s = openDomain(t, c, domainX, keysX)
	want(t, s, cmdDelete(instanceA, false), iso7816.ErrConditions)
	want(t, s, update(none, instanceA, "00", ""), iso7816.ErrConditions)
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdDelete(instanceA, false), iso7816.OK)
	for bit, cmd := range map[string]iso7816.Command{
		"04": cmdInstall(instanceA, specific(8, 0, 0, 0)), "08": cmdInstall(instanceA, specific(8, 0, 0, 0)),
		"10": cmdExtradite(instanceB, domainX), "20": cmdPersonalize(instanceB), "01": cmdDelete(instanceB, false),
		"40": update(none, instanceB, "00", ""),
	} {
		c := withInstance(t)
		s := authenticate(t, c, scp.CMAC)
		want(t, s, cmdDelete(instanceA, false), iso7816.OK)
		want(t, s, cmdInstall(instanceB, specific(8, 0, 0, 0)), iso7816.OK)
		addDomain(t, c, domainX, "808000", keysX)
		s = authenticate(t, c, scp.CMAC)
		want(t, s, update(none, none, "", "EF03D901"+bit), iso7816.OK)
		if r := send(t, s, cmd); r.SW != iso7816.ErrConditions {
			t.Errorf("restriction %s: %v", bit, r.SW)
		}
	}
}

// selectedNow is the application that answers on the basic logical channel.
func selectedNow(t testing.TB, c *Card) iso7816.AID {
	t.Helper()
	_, _ = c.Transmit(context.Background(), mustHex("80CA9F7F00"))
	return c.session.channels[0].selected.aid
}

func TestImplicitSelection(t *testing.T) {
	c := withInstance(t)
	if got := selectedNow(t, c); got != IssuerSecurityDomain {
		t.Errorf("%v is selected", got)
	}
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdRights(instanceB, "040000"), iso7816.OK)
	want(t, s, cmdRights(iso7816.MustAID("F000000009"), "040000"), iso7816.ErrConditions) // one at a time
	_ = c.Reset(context.Background())
	if got := selectedNow(t, c); got != instanceB {
		t.Errorf("%v is selected with Card Reset", got)
	}
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdSetStatus(instanceB, 0x80), iso7816.OK)
	_ = c.Reset(context.Background())
	if got := selectedNow(t, c); got != IssuerSecurityDomain {
		t.Errorf("%v is selected instead of a locked one", got)
	}
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdDelete(instanceB, false), iso7816.OK)
	if !c.state.issuer().privileges.has(privCardReset) {
		t.Error("Card Reset did not return")
	}
	// By parameter: this card has contacts, channel 0.
	with := func(aid iso7816.AID, cf string) iso7816.Command {
		cmd := cmdRights(aid, "00")
		cmd.Data = lv(testPackage.Bytes(), testModuleID.Bytes(), aid.Bytes(), []byte{0}, append(iso7816.AppendTLV(nil, 0xC9, specific(8, 0, 0, 0)), mustHex(cf)...), nil)
		return cmd
	}
	want(t, s, with(instanceB, "EF03CF0180"), iso7816.OK) // contactless only
	_ = c.Reset(context.Background())
	if got := selectedNow(t, c); got != IssuerSecurityDomain {
		t.Errorf("%v is selected on the wrong interface", got)
	}
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdDelete(instanceB, false), iso7816.OK)
	want(t, s, with(instanceB, "EF03CF0160"), iso7816.ErrWrongData)
	want(t, s, with(instanceB, "EF03CF0140"), iso7816.OK)
	want(t, s, with(iso7816.MustAID("F000000009"), "EF03CF01C0"), iso7816.ErrConditions)
	if r := want(t, s, cmdGetStatus(scopeApplications, "4F08"+instanceB.String()), iso7816.OK); !bytes.Contains(r.Data, mustHex("CF0140")) {
		t.Errorf("GET STATUS %X", r.Data)
	}
	_ = c.Reset(context.Background())
	if got := selectedNow(t, c); got != instanceB {
		t.Errorf("%v is selected by parameter", got)
	}
	// One that refuses leaves the issuer's.
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdDelete(instanceB, false), iso7816.OK)
	mute := with(instanceB, "EF03CF0140")
	mute.Data = bytes.Replace(mute.Data, specific(8, 0, 0, 0), specific(8, 0, 0, flagMute), 1)
	want(t, s, mute, iso7816.OK)
	_ = c.Reset(context.Background())
	if got := selectedNow(t, c); got != IssuerSecurityDomain {
		t.Errorf("%v is selected though it refuses", got)
	}
	// GlobalPlatformPro's way: make selectable again, with Card Reset.
	s = authenticate(t, c, scp.CMAC)
	again := iso7816.Command{CLA: 0x80, INS: insInstall, P1: forMakeSelectable, Data: lv(nil, nil, instanceA.Bytes(), mustHex("040000"), nil, nil), Ne: 256}
	want(t, s, again, iso7816.OK)
	want(t, s, again, iso7816.ErrConditions)
}

func TestCardLifeCycle(t *testing.T) {
	c := newTestCard(t, func(c *Config) { c.LifeCycle = cardOPReady })
	status := func(p2 byte) iso7816.Command {
		return iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: p2}
	}
	state := func(want byte) {
		t.Helper()
		if got := c.state.issuer().stateByte(); got != want {
			t.Fatalf("card in state %02X, want %02X", got, want)
		}
	}
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	want(t, s, cmdInstall(instanceA, specific(8, 0, 0, 0)), iso7816.OK)
	for _, step := range []struct {
		to   byte
		want iso7816.SW
	}{
		{cardOPReady, iso7816.ErrConditions}, {cardSecured, iso7816.ErrConditions}, {cardLocked, iso7816.ErrConditions}, {0x1F, iso7816.ErrIncorrectP1P2},
		{cardInitialized, iso7816.OK}, {cardInitialized, iso7816.ErrConditions}, {cardOPReady, iso7816.ErrConditions}, {cardLocked, iso7816.ErrConditions},
		{cardSecured, iso7816.OK}, {cardSecured, iso7816.ErrConditions}, {cardInitialized, iso7816.ErrConditions},
		{cardLocked, iso7816.OK}, {cardLocked, iso7816.ErrConditions}, {cardInitialized, iso7816.ErrConditions},
	} {
		want(t, s, status(step.to), step.want)
	}
	state(cardLocked)
	// Locked: nothing is changed, nothing but the Final Application selected.
	before := encodeImage(c.state)
	for name, cmd := range map[string]iso7816.Command{
		"INSTALL": cmdInstall(instanceB, specific(8, 0, 0, 0)), "DELETE": cmdDelete(instanceA, false), "PUT KEY": cmdPutKeys(t, s, 0, keysX),
		"STORE DATA": {CLA: 0x80, INS: insStoreData, P1: 0x90, Data: mustHex("42020102")}, "INSTALL [for load]": cmdInstallForLoad(iso7816.MustAID("F000000009"), nil),
		"DELETE [key]": {CLA: 0x80, INS: insDelete, Data: mustHex("D20130"), Ne: 256},
	} {
		if r := send(t, s, cmd); r.SW != iso7816.ErrConditions {
			t.Errorf("%s on a locked card: %v", name, r.SW)
		}
	}
	want(t, s, cmdGetStatus(scopeApplications, "4F00"), iso7816.OK)
	transmit(t, c, "00A40400")
	for hex, sw := range map[string]iso7816.SW{
		"00A40400 08 F0746573740002A1 00": iso7816.ErrFuncNotSupported, "00A40400": swCardLocked, "00A40400 08 A000000151000000 00": swCardLocked,
		"00700000 01": iso7816.ErrFuncNotSupported, "80CA0066 00": iso7816.OK,
	} {
		if r := transmit(t, c, hex); r.SW != sw {
			t.Errorf("%s on a locked card: %v, want %v", hex, r.SW, sw)
		}
	}
	if !bytes.Equal(before, encodeImage(c.state)) {
		t.Error("the card changed")
	}
	_ = c.Reset(context.Background())
	s = mustOpen(t, c)
	want(t, s, status(cardSecured), iso7816.OK)
	state(cardSecured)
	if r := transmit(t, c, "00A40400 08 F0746573740002A1 00"); r.SW != iso7816.OK {
		t.Errorf("SELECT after unlocking: %v", r.SW)
	}
	s = authenticate(t, c, scp.CMAC)
	want(t, s, status(cardTerminated), iso7816.OK)
	for hex, sw := range map[string]iso7816.SW{
		"00A40400 08 F0746573740002A1 00": iso7816.ErrFuncNotSupported, "00A40400": iso7816.ErrFuncNotSupported, "00700000 01": iso7816.ErrFuncNotSupported,
		"80500000 08 0102030405060708 00": iso7816.ErrConditions, "80F28002 02 4F00 00": iso7816.ErrConditions, "80CA0042 00": iso7816.OK,
	} {
		if r := transmit(t, c, hex); r.SW != sw {
			t.Errorf("%s on a terminated card: %v, want %v", hex, r.SW, sw)
		}
	}
	_ = c.Reset(context.Background())
	if r := transmit(t, c, "80CA0045 00"); r.SW != iso7816.OK {
		t.Errorf("GET DATA on a terminated card: %v", r.SW)
	}
	if s, err := decodeImage(encodeImage(c.state)); err != nil || s.issuer().lifeCycle != cardTerminated {
		t.Errorf("image of a terminated card: %v", err)
	}
}

// mustOpen opens a channel to what is selected.
func mustOpen(t testing.TB, c *Card) *scp.Session {
	t.Helper()
	s, err := scp.Open(context.Background(), iso7816.Plain(c), testConfig(t).Keys, scp.HostOptions{Level: scp.CMAC, Rand: &stream{n: 9}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whoever has the privilege locks and terminates the card; the Final
// Application alone answers then, and can't be locked itself.
func TestPrivilegedDomains(t *testing.T) {
	c := withInstance(t)
	addDomain(t, c, domainX, "908000", keysX) // Card Lock
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdRights(instanceB, "000200"), iso7816.OK) // Final Application
	want(t, s, cmdSetStatus(instanceB, 0x80), iso7816.ErrConditions)
	s = openDomain(t, c, domainX, keysX)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardTerminated}, iso7816.ErrConditions)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardLocked}, iso7816.OK)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardSecured}, iso7816.OK)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insSetStatus, P1: statusCard, P2: cardLocked}, iso7816.OK)
	_ = c.Reset(context.Background())
	if got := selectedNow(t, c); got != instanceB {
		t.Errorf("%v answers on the locked card", got)
	}
	if r := transmit(t, c, "00A40400 08 A000000151000000 00"); r.SW != iso7816.ErrFuncNotSupported {
		t.Errorf("SELECT of the issuer's: %v", r.SW)
	}
	if r := transmit(t, c, "00A40400 08 F0746573740002A2 00"); r.SW != swCardLocked {
		t.Errorf("SELECT of the Final Application: %v", r.SW)
	}
	if r := transmit(t, c, "802A0000 01"); r.SW != iso7816.OK {
		t.Errorf("its command: %v", r.SW)
	}
	// Global Lock, Global Delete and Global Registry reach everything.
	c = withInstance(t)
	addDomain(t, c, domainX, "80DC00", keysX)
	s = openDomain(t, c, domainX, keysX)
	if len(listed(t, s)) != 5+2 {
		t.Errorf("with Global Registry it sees %v", listed(t, s))
	}
	want(t, s, cmdGetStatus(scopeIssuer, "4F00"), iso7816.OK)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
	want(t, s, cmdSetStatus(instanceA, 0x00), iso7816.OK)
	want(t, s, cmdExtradite(instanceA, domainX), iso7816.ErrConditions)
	want(t, s, cmdDelete(instanceA, false), iso7816.OK)
	want(t, s, cmdDelete(residents[0], false), iso7816.ErrConditions)
}

// Trusted Path is what lets data through to applications.
func TestPersonalizationNeedsTrustedPath(t *testing.T) {
	c := withInstance(t)
	addDomain(t, c, domainX, "800000", keysX)
	want(t, authenticate(t, c, scp.CMAC), cmdExtradite(instanceA, domainX), iso7816.OK)
	want(t, openDomain(t, c, domainX, keysX), cmdPersonalize(instanceA), iso7816.ErrConditions)
}

func TestListOfApplications(t *testing.T) {
	c := withInstance(t)
	addDomain(t, c, domainX, "808000", keysX)
	transmit(t, c, "00A40400")
	r := transmit(t, c, "00CB2F00 02 5C00 00")
	if list, err := iso7816.ParseTLVs(r.Data); err != nil || len(list) != 1+5+2 || list[0].Tag != 0x61 {
		t.Errorf("the issuer lists %X %v", r.Data, r.SW)
	}
	transmit(t, c, "00A40400 08 F07465737400D001")
	if r := transmit(t, c, "80CA2F00 02 5C00 00"); !bytes.Equal(r.Data, mustHex("610A4F08F07465737400D001")) {
		t.Errorf("a Security Domain lists %X %v", r.Data, r.SW)
	}
	if list, err := globalplatform.Applications(t.Context(), iso7816.Plain(c)); err != nil || len(list) != 1 || list[0] != domainX {
		t.Errorf("the host reads %v, %v", list, err)
	}
	for hex, sw := range map[string]iso7816.SW{"80CA2F00 00": iso7816.ErrWrongData, "00CA2F00 02 5C00 00": iso7816.ErrUnknownINS, "80CB2F00 02 5C00 00": iso7816.ErrUnknownINS, "00CB0042 00": iso7816.ErrUnknownINS} {
		if r := transmit(t, c, hex); r.SW != sw {
			t.Errorf("%s: %v, want %v", hex, r.SW, sw)
		}
	}
}

// Where P1 says that all values are encrypted, those of a Security Domain are
// under its data encryption key, padded as GPCS B.1.3 and B.2.3 say.
func TestEncryptedValues(t *testing.T) {
	for _, p := range []scp.Protocol{scp.SCP03, {Number: 2, I: 0x55}} {
		c := newTestCard(t, func(cfg *Config) { cfg.SecureChannel = p })
		s, err := scp.Open(t.Context(), iso7816.Plain(c), testConfig(t).Keys, scp.HostOptions{Level: scp.CDecryption, Protocols: []scp.Protocol{p}, AllowDeprecated: true, AID: IssuerSecurityDomain})
		if err != nil {
			t.Fatal(err)
		}
		size := 16
		if p.Number == 2 {
			size = 8
		}
		raw := func(plain []byte) []byte {
			b, err := s.EncryptSensitive(plain)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		seal := func(v string) []byte {
			b := append(mustHex(v), 0x80)
			return raw(append(b, make([]byte, (size-len(b)%size)%size)...))
		}
		group := func(id string, v []byte) []byte { return append(append(mustHex(id), byte(len(v))), v...) }
		object := func(tag iso7816.Tag, v []byte) []byte { return iso7816.AppendTLV(nil, tag, v) }
		check := keysX.ENC.CheckValue()
		newKey := append(group("00B9", append(mustHex("B914"+"950138"+"800188"+"810110"+"820101"+"830120"+"8403"), check[:]...)), group("8113", raw(keysX.ENC.Bytes()))...)
		for i, step := range []struct {
			p1   byte
			data []byte
			want iso7816.SW
			cin  string
		}{
			{0xE8, group("0070", seal("45021234")), iso7816.OK, "1234"},
			{0xF0, object(0x45, seal("1235")), iso7816.OK, "1235"},
			{0xF0, append(object(0x45, seal("1236")), object(tagManagerURL, seal("616263"))...), iso7816.OK, "1236"},
			{0xE0, object(0x45, seal("112233445566778899AABBCCDDEEFF0011")), iso7816.OK, "112233445566778899AABBCCDDEEFF0011"},
			{0xF0, object(0x45, mustHex("1237")), iso7816.ErrWrongData, ""},
			{0xF0, object(0x45, nil), iso7816.ErrWrongData, ""},
			{0xF0, object(0x45, raw(make([]byte, size))), iso7816.ErrWrongData, ""},                                           // no padding
			{0xF0, object(0x45, raw(append([]byte{1, 0x80}, make([]byte, 2*size-2)...))), iso7816.ErrWrongData, ""},           // too much of it
			{0xF0, append(object(0x45, seal("1238")), object(tagManagerURL, mustHex("616263"))...), iso7816.ErrWrongData, ""}, // one in the clear
			{0xE8, newKey, iso7816.ErrWrongData, ""},                                                                          // the description of keys is never encrypted
			{0xF0, object(tagManagerURL, seal("")), iso7816.OK, ""},                                                           // taken away
			{0x70, object(0x45, seal("4501"))[:5], iso7816.OK, ""},                                                            // more follows
			{0x90, nil, iso7816.ErrIncorrectP1P2, ""},                                                                         // in the clear suddenly
		} {
			cmd := iso7816.Command{CLA: 0x80, INS: insStoreData, P1: step.p1, Data: step.data}
			if step.p1 == 0x90 {
				cmd.P2 = 1
			}
			if r := send(t, s, cmd); r.SW != step.want {
				t.Errorf("%v, step %d: %v, want %v", p, i, r.SW, step.want)
			}
			if step.cin == "" {
				step.cin = "112233445566778899AABBCCDDEEFF0011"
			}
			if v, _ := c.state.issuer().domain.object(tagCIN); !bytes.Equal(v, mustHex(step.cin)) {
				t.Errorf("%v, step %d: image number %X", p, i, v)
			}
		}
		if _, there := c.state.issuer().domain.object(tagManagerURL); there {
			t.Errorf("%v: the URL is still there", p)
		}
	}
}
