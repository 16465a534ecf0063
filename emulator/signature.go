package emulator

import (
	"crypto"
	"crypto/cipher"
	"crypto/des"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"math/big"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
)

// The signature schemes of GPCS table C-1 as Card Capability Information names
// them (tables H-9, H-10).
var (
	// RSA 1024, RSA above, Triple DES, AES-128, -192, -256, P-256, P-384; P-521.
	verifiedSchemes = []byte{0xFF, 0x02}
	// Triple DES, AES-128, -192, -256.
	receiptSchemes = []byte{0x3C}
)

// find returns the value of a component.
func (k key) find(kind byte) ([]byte, bool) {
	for _, p := range k.components {
		if p.kind == kind {
			return p.value, true
		}
	}
	return nil, false
}

// weak reports a key whose signatures allow SHA-1 beside them (GPCS table C-3).
func (k key) weak() bool {
	if _, ok := k.find(keyTypeDES); ok {
		return true
	}
	n, ok := k.find(keyTypeRSAModulus)
	return ok && len(n) <= 128
}

// verify checks a signature by the scheme that belongs to the key (GPCS table
// C-1, appendix B).
func (k key) verify(data, signature []byte) bool {
	if modulus, ok := k.find(keyTypeRSAModulus); ok {
		return k.verifyRSA(modulus, data, signature)
	}
	if point, ok := k.find(keyTypeECPublic); ok {
		return k.verifyEC(point, data, signature)
	}
	mac, err := k.sign(data)
	return err == nil && subtle.ConstantTimeCompare(mac, signature) == 1
}

// verifyRSA is scheme 1 for keys of 1024 bits and scheme 2 above (B.3).
func (k key) verifyRSA(modulus, data, signature []byte) bool {
	exponent, ok := k.find(keyTypeRSAExponent)
	if !ok || len(exponent) > 4 {
		return false
	}
	e := int(new(big.Int).SetBytes(exponent).Int64())
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: e}
	if public.N.BitLen() <= 1024 {
		sum := sha1.Sum(data) //nolint:gosec // B.3.1.1
		return rsa.VerifyPKCS1v15(public, crypto.SHA1, sum[:], signature) == nil
	}
	sum := sha256.Sum256(data)
	return rsa.VerifyPSS(public, crypto.SHA256, sum[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

// curves are the curves that come with the card, by key parameter reference
// (GPCS table B-2).
var curves = []struct {
	curve elliptic.Curve
	hash  func([]byte) []byte
}{
	{elliptic.P256(), func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }},
	{elliptic.P384(), func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }},
	{elliptic.P521(), func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }},
}

// verifyEC is ECDSA with the signature in plain format (B.4.3).
func (k key) verifyEC(point, data, signature []byte) bool {
	ref, ok := k.find(keyTypeECParameter)
	if !ok || len(ref) != 1 || int(ref[0]) >= len(curves) {
		return false
	}
	c := curves[ref[0]]
	public, err := ecdsa.ParseUncompressedPublicKey(c.curve, point)
	n := (c.curve.Params().N.BitLen() + 7) / 8
	if err != nil || len(signature) != 2*n {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])
	return ecdsa.Verify(public, c.hash(data), r, s)
}

// onCurve reports whether an EC public key is a point of a curve that the card
// has.
func (k key) onCurve() bool {
	point, _ := k.find(keyTypeECPublic)
	ref, _ := k.find(keyTypeECParameter)
	if len(ref) != 1 || int(ref[0]) >= len(curves) {
		return false
	}
	_, err := ecdsa.ParseUncompressedPublicKey(curves[ref[0]].curve, point)
	return err == nil
}

// sign computes a MAC: AES-CMAC (B.2.2), or single DES plus final Triple DES
// (B.1.2.2) over data padded with 80.
func (k key) sign(data []byte) ([]byte, error) {
	if v, ok := k.find(keyTypeAES); ok {
		mac, err := sp800.New(v)
		if err != nil {
			return nil, iso7816.ErrUnknown
		}
		mac.Write(data)
		sum := mac.Sum()
		return sum[:], nil
	}
	if v, ok := k.find(keyTypeDES); ok && len(v) == 16 {
		return retailMAC(v, data)
	}
	return nil, iso7816.ErrConditions
}

// retailMAC is MAC algorithm 3 of ISO/IEC 9797-1 with padding method 2.
func retailMAC(k, data []byte) ([]byte, error) {
	one, err := des.NewCipher(k[:8]) //nolint:gosec // B.1.2.2
	if err != nil {
		return nil, iso7816.ErrUnknown
	}
	two, err := des.NewCipher(k[8:16]) //nolint:gosec // B.1.2.2
	if err != nil {
		return nil, iso7816.ErrUnknown
	}
	padded := append(append([]byte(nil), data...), 0x80)
	for len(padded)%des.BlockSize != 0 {
		padded = append(padded, 0)
	}
	cipher.NewCBCEncrypter(one, make([]byte, des.BlockSize)).CryptBlocks(padded, padded)
	mac := padded[len(padded)-des.BlockSize:]
	two.Decrypt(mac, mac)
	one.Encrypt(mac, mac)
	return mac, nil
}
