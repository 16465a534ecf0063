package emulator

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // B.1.2.2
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // its size only
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"math/big"
	"sync"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/internal/ecc"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// The signature schemes of GPCS table C-1 as Card Capability Information names
// them (tables H-9, H-10).
var (
	// RSA 1024, RSA above, Triple DES, AES-128, -192, -256, ECC-256, -384; -512, -521.
	verifiedSchemes = []byte{0xFF, 0x03}
	// Triple DES, AES-128, -192, -256.
	receiptSchemes = []byte{0x3C}
	// Triple DES, AES-128, -192, -256, with an ICV (table H-8).
	loadCiphers = []byte{0x8F}
)

// curves are the names of the curves that come with the card, by key parameter
// reference: those of GPCS table B-2.
var curves = sync.OnceValue(func() (names []string) {
	for ref := byte(0); ; ref++ {
		name, ok := globalplatform.CurveName(ref)
		if !ok {
			return names
		}
		names = append(names, name)
	}
})

// curveReferences is the Key Parameter Reference List (GPCS H.4).
func curveReferences() (list []byte) {
	for ref := range curves() {
		list = append(list, byte(ref))
	}
	return list
}

// find returns the value of a component.
func (k key) find(kind byte) ([]byte, bool) {
	for _, p := range k.components {
		if p.kind == kind {
			return p.value, true
		}
	}
	return nil, false
}

// leastHash is the size in bytes of the shortest load file hash that may stand
// beside the key's signatures (GPCS table C-3): of the hash that they use
// themselves. An AES key's use none; the shortest is SHA-256 there.
func (k key) leastHash() int {
	if _, ok := k.find(keyTypeDES); ok {
		return sha1.Size
	}
	if n, ok := k.find(keyTypeRSAModulus); ok && len(n) <= 128 {
		return sha1.Size
	}
	if point, ok := k.find(keyTypeECPublic); ok {
		switch n := len(point) / 2; { // of a coordinate
		case n >= 64:
			return sha512.Size
		case n >= 48:
			return sha512.Size384
		}
	}
	return sha256.Size
}

// verify checks a signature by the scheme that belongs to the key (GPCS table
// C-1, appendix B).
func (k key) verify(data, signature []byte) bool {
	var v globalplatform.Verifier
	if modulus, ok := k.find(keyTypeRSAModulus); ok {
		exponent, _ := k.find(keyTypeRSAExponent)
		e := new(big.Int).SetBytes(exponent).Int64()
		v = globalplatform.PublicKeyScheme{Key: &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e)}}
	} else if public, ok := k.point(); ok {
		v = globalplatform.PublicKeyScheme{Key: public}
	} else {
		mac, err := k.sign(data)
		return err == nil && subtle.ConstantTimeCompare(mac, signature) == 1
	}
	return v.Verify(data, signature) == nil
}

// curveParameters are a curve's parameters but the cofactor, which is 1, by the
// key type that each has.
func curveParameters(name string) map[byte][]byte {
	c, ok := ecc.Named(name)
	if !ok {
		return nil
	}
	fixed := func(n *big.Int) []byte { return n.FillBytes(make([]byte, c.Size)) }
	return map[byte][]byte{
		keyTypeECField:     fixed(c.P),
		keyTypeECA:         fixed(c.A),
		keyTypeECB:         fixed(c.B),
		keyTypeECGenerator: c.Encode(c.G),
		keyTypeECOrder:     fixed(c.N),
	}
}

// point is an EC public key; false where it is not a point of a curve that the
// card has. Which one it is, the reference says or the generator.
func (k key) point() (crypto.PublicKey, bool) {
	point, ok := k.find(keyTypeECPublic)
	if !ok {
		return nil, false
	}
	ref, byReference := k.find(keyTypeECParameter)
	generator, _ := k.find(keyTypeECGenerator)
	for i, name := range curves() {
		if byReference && bytes.Equal(ref, []byte{byte(i)}) || !byReference && bytes.Equal(generator, curveParameters(name)[keyTypeECGenerator]) {
			public, err := globalplatform.ParseECPublicKey(name, point)
			return public, err == nil
		}
	}
	return nil, false
}

// Sign makes a key a [globalplatform.Signer].
func (k key) Sign(data []byte) ([]byte, error) { return k.sign(data) }

// sign computes a MAC: AES-CMAC (B.2.2), or single DES plus final Triple DES
// (B.1.2.2) over data padded with 80. The card signs with nothing else.
func (k key) sign(data []byte) ([]byte, error) {
	if v, ok := k.find(keyTypeAES); ok {
		secret, err := keys.NewKey(v)
		if err != nil {
			return nil, iso7816.ErrConditions
		}
		return globalplatform.AESScheme{Key: secret}.Sign(data)
	}
	if v, ok := k.find(keyTypeDES); ok && len(v) == 16 {
		return retailMAC(v, data)
	}
	return nil, iso7816.ErrConditions
}

// retailMAC is MAC algorithm 3 of ISO/IEC 9797-1 with padding method 2.
func retailMAC(k, data []byte) ([]byte, error) {
	padded := append(append([]byte(nil), data...), 0x80)
	for len(padded)%des.BlockSize != 0 {
		padded = append(padded, 0)
	}
	return mac3(k, padded)
}

// mac3 is MAC algorithm 3 over whole blocks, which it overwrites.
func mac3(k, blocks []byte) ([]byte, error) {
	one, err := des.NewCipher(k[:8])
	if err != nil {
		return nil, iso7816.ErrUnknown
	}
	two, err := des.NewCipher(k[8:16])
	if err != nil {
		return nil, iso7816.ErrUnknown
	}
	cipher.NewCBCEncrypter(one, make([]byte, des.BlockSize)).CryptBlocks(blocks, blocks)
	mac := blocks[len(blocks)-des.BlockSize:]
	two.Decrypt(mac, mac)
	one.Encrypt(mac, mac)
	return mac, nil
}
