package emulator

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// A Security Domain with Ciphered Load File Data Block takes what is ciphered
// with its key, and others take nothing ciphered.
func TestCipheredLoadFiles(t *testing.T) {
	block := testLoadFile(testPackage, testModuleID, otherModule)
	weak, sum, strong := sha1.Sum(block), sha256.Sum256(block), sha512.Sum512(block)
	aes, des, long := testKey(t, 0xA0), testKey(t, 0xB0), keys.Key{}
	long, err := keys.NewKey(append(testKey(t, 0xC0).Bytes(), testKey(t, 0xD0).Bytes()...))
	if err != nil {
		t.Fatal(err)
	}
	icv := mustHex("F0E1D2C3B4A5968778695A4B3C2D1E0F")
	type cipher = globalplatform.LoadFileCipher
	plain := func() []byte { f, _ := globalplatform.LoadFile(block); return f }
	with := func(c cipher) func() []byte {
		return func() []byte {
			f, err := globalplatform.CipheredLoadFile(block, c)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	byAES, byDES, byLong := cipher{Key: aes, Type: globalplatform.KeyTypeAES}, cipher{Key: des, Type: globalplatform.KeyTypeDES}, cipher{Key: long, Type: globalplatform.KeyTypeAES}
	withICV := byAES
	withICV.ICV = icv
	otherICV := func() []byte { // the data block is another with another ICV
		f := with(withICV)()
		f[2] ^= 1
		return f
	}
	desICV := func() []byte { // an ICV of the wrong cipher's size
		f := with(byAES)()
		return append(mustHex("D3080000000000000000"), f...)
	}
	for name, test := range map[string]struct {
		key  globalplatform.KeyValue
		to   iso7816.AID
		hash []byte
		file func() []byte
		want iso7816.SW
	}{
		"AES":                       {globalplatform.AESKey(aes), domainX, sum[:], with(byAES), iso7816.OK},
		"AES with an ICV":           {globalplatform.AESKey(aes), domainX, sum[:], with(withICV), iso7816.OK},
		"AES-256":                   {globalplatform.AESKey(long), domainX, strong[:], with(byLong), iso7816.OK},
		"Triple DES, SHA-1":         {globalplatform.TripleDESKey(des), domainX, weak[:], with(byDES), iso7816.OK},
		"in the clear":              {globalplatform.AESKey(aes), domainX, sum[:], plain, iso7816.ErrSecurityStatus},
		"no hash":                   {globalplatform.AESKey(aes), domainX, nil, with(byAES), iso7816.ErrWrongData},
		"a hash too short":          {globalplatform.AESKey(aes), domainX, weak[:], with(byAES), iso7816.ErrWrongData},
		"AES-256, a hash too short": {globalplatform.AESKey(long), domainX, sum[:], with(byLong), iso7816.ErrWrongData},
		"another key":               {globalplatform.AESKey(des), domainX, sum[:], with(byAES), iso7816.ErrWrongData},
		"another ICV":               {globalplatform.AESKey(aes), domainX, sum[:], otherICV, iso7816.ErrWrongData},
		"ICV of the wrong size":     {globalplatform.AESKey(aes), domainX, sum[:], desICV, iso7816.ErrWrongData},
		"a hash of something else":  {globalplatform.AESKey(aes), domainX, make([]byte, 32), with(byAES), iso7816.ErrWrongData},
		"no key":                    {globalplatform.KeyValue{}, domainX, sum[:], with(byAES), iso7816.ErrSecurityStatus},
		"a domain that wants it so": {globalplatform.AESKey(aes), IssuerSecurityDomain, sum[:], plain, iso7816.OK},
		"a domain that doesn't":     {globalplatform.AESKey(aes), IssuerSecurityDomain, sum[:], with(byAES), iso7816.ErrWrongData},
	} {
		c := newTestCard(t)
		addDomain(t, c, domainX, "808040", keysX)
		if test.key.Information()[0].Length > 0 {
			putOne(t, openDomain(t, c, domainX, keysX), versionCiphered, test.key)
		}
		s := authenticate(t, c, scp.CMAC)
		if _, err := globalplatform.Execute(t.Context(), s, globalplatform.InstallForLoad{LoadFile: testPackage, SecurityDomain: test.to, Hash: test.hash}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		blocks, err := globalplatform.LoadBlocks(test.file(), 200)
		if err != nil {
			t.Fatal(err)
		}
		var sw iso7816.SW
		for _, b := range blocks {
			cmd, err := b.Command()
			if err != nil {
				t.Fatal(err)
			}
			sw = send(t, s, cmd).SW
		}
		f := c.state.file(testPackage)
		if sw != test.want || (f != nil) != (test.want == iso7816.OK) {
			t.Errorf("%s: %v, want %v", name, sw, test.want)
		}
		if f != nil && (string(f.data) != string(block) || f.linked[testModuleID] == nil) {
			t.Errorf("%s: another load file is on the card", name)
		}
	}
	// What came in the clear doesn't come to it by extradition.
	c := newTestCard(t)
	addDomain(t, c, domainX, "808040", keysX)
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	want(t, s, cmdExtradite(testPackage, domainX), iso7816.ErrConditions)
}
