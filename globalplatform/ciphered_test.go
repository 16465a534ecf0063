package globalplatform_test

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// The ciphered blocks are OpenSSL 3.0's, of "a load file data block" padded
// with 80 and zeros: openssl enc -aes-128-cbc (and so on) -K KEY -iv ICV -nopad.
func TestLoadFileCipher(t *testing.T) {
	const key = "404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F"
	block := []byte("a load file data block")
	for _, test := range []struct {
		typ       globalplatform.KeyType
		size      int
		icv, want string
		leastHash int
	}{
		{globalplatform.KeyTypeAES, 16, "000102030405060708090A0B0C0D0E0F", "0BC6BC53ED44EAA7FE4A984037F34445C43AC4E6FB2D20F337F157B1D26FA8F5", 32},
		{globalplatform.KeyTypeAES, 24, "", "7BACB4EF4E1880CC03AF008F3C040674BA00FF25A0965FAAE5B91CA95FFEFF37", 48},
		{globalplatform.KeyTypeAES, 32, "", "2E157B6A8FB35D6ACE4BC9CBEAEA6D611E12DFB1B931A7D50DC7934DFBC36076", 64},
		{globalplatform.KeyTypeDES, 16, "0001020304050607", "7F7BBC27DC583EB4A05B674A2070D333A0785ED9692EAFE6", 20},
	} {
		c := globalplatform.LoadFileCipher{Key: loadFileKey(t, key, test.size), Type: test.typ}
		if test.icv != "" {
			c.ICV = unhex(t, test.icv)
		}
		got, err := c.Encrypt(block)
		if err != nil || !bytes.Equal(got, unhex(t, test.want)) || c.LeastHash() != test.leastHash {
			t.Errorf("%v of %d bytes: %X, %v, hash of %d bytes at least", test.typ, test.size, got, err, c.LeastHash())
		}
		plain, err := c.Decrypt(got)
		if err != nil || !bytes.Equal(plain, block) {
			t.Errorf("%v of %d bytes: deciphered as %q, %v", test.typ, test.size, plain, err)
		}
		dap := globalplatform.DAPBlock{SecurityDomain: globalplatform.IssuerSecurityDomain, Signature: []byte{1}}
		file, err := globalplatform.CipheredLoadFile(block, c, dap)
		if err != nil {
			t.Fatal(err)
		}
		want := "E20D 4F08A000000151000000 C30101"
		if test.icv != "" {
			want += "D3" + hexByte(len(test.icv)/2) + test.icv
		}
		want += "D4" + hexByte(len(test.want)/2) + test.want
		if !bytes.Equal(file, unhex(t, want)) {
			t.Errorf("load file %X, want %s", file, want)
		}
		parsed, err := globalplatform.ParseLoadFile(file)
		if err != nil || !parsed.Ciphered || len(parsed.DAPs) != 1 || !bytes.Equal(parsed.ICV, c.ICV) || !bytes.Equal(parsed.DataBlock, got) {
			t.Errorf("read as %+v, %v", parsed, err)
		}
		// What no key has made.
		for name, bad := range map[string][]byte{"nothing": nil, "part of a block": got[1:], "without its end": got[:len(got)-len(got)/len(unhex(t, test.want))*8]} {
			if _, err := c.Decrypt(bad); !errors.Is(err, globalplatform.ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		c.Key = loadFileKey(t, "50"+key[2:], test.size)
		if _, err := c.Decrypt(got); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("under another key: %v", err)
		}
	}
	for name, c := range map[string]globalplatform.LoadFileCipher{
		"no key":              {Type: globalplatform.KeyTypeAES},
		"DES of 24 bytes":     {Type: globalplatform.KeyTypeDES, Key: loadFileKey(t, key, 24)},
		"an RSA key":          {Type: globalplatform.KeyTypeRSAModulus, Key: loadFileKey(t, key, 16)},
		"ICV of another size": {Type: globalplatform.KeyTypeAES, Key: loadFileKey(t, key, 16), ICV: make([]byte, 8)},
	} {
		if _, err := globalplatform.CipheredLoadFile(block, c); !errors.Is(err, globalplatform.ErrKey) && !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Decrypt(make([]byte, 16)); err == nil {
			t.Errorf("%s: deciphered", name)
		}
	}
	ok := globalplatform.LoadFileCipher{Type: globalplatform.KeyTypeAES, Key: loadFileKey(t, key, 16)}
	for _, n := range []int{0, iso7816.MaxTLVLength} { // no room for the padding
		if _, err := globalplatform.CipheredLoadFile(make([]byte, n), ok); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("block of %d bytes: %v", n, err)
		}
	}
}

func hexByte(n int) string {
	return string("0123456789ABCDEF"[n>>4]) + string("0123456789ABCDEF"[n&0xF])
}

func loadFileKey(t *testing.T, hex string, size int) keys.Key {
	t.Helper()
	k, err := keys.NewKey(unhex(t, hex)[:size])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestLoadCiphered(t *testing.T) {
	file := testCAP(t, 600)
	c := globalplatform.LoadFileCipher{Type: globalplatform.KeyTypeAES, Key: loadFileKey(t, "404142434445464748494A4B4C4D4E4F5051525354555657", 24), ICV: make([]byte, 16)}
	hash := sha512.Sum384(file.LoadFileDataBlock())
	d, s := openDomain(t, scp.Full)
	if _, err := globalplatform.Load(t.Context(), s, file, globalplatform.LoadOptions{Hash: hash[:], Cipher: &c}, nil); err != nil {
		t.Fatal(err)
	}
	var loaded []byte
	for _, cmd := range d.got[1:] {
		loaded = append(loaded, cmd.Data...)
	}
	parsed, err := globalplatform.ParseLoadFile(loaded)
	if err != nil || !parsed.Ciphered {
		t.Fatalf("%+v, %v", parsed, err)
	}
	if block, err := c.Decrypt(parsed.DataBlock); err != nil || !bytes.Equal(block, file.LoadFileDataBlock()) {
		t.Errorf("another block arrives: %v", err)
	}
	// Without a hash, and with one that is too short for the key, nothing is sent.
	for _, hash := range [][]byte{nil, make([]byte, 32)} {
		d, s := openDomain(t, scp.Full)
		if _, err := globalplatform.Load(t.Context(), s, file, globalplatform.LoadOptions{Hash: hash, Cipher: &c}, nil); !errors.Is(err, globalplatform.ErrCommand) || len(d.got) != 0 {
			t.Errorf("hash of %d bytes: %v after %d commands", len(hash), err, len(d.got))
		}
	}
}
