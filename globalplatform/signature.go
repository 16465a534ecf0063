package globalplatform

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/freearea/freearea/internal/ecc"
	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/keys"
)

// Errors of signatures of appendix C.
var (
	// ErrSignatureKey reports a key that no scheme of table C-1 takes.
	ErrSignatureKey = errors.New("key of no GlobalPlatform signature scheme")
	// ErrSignature reports a token, a receipt or a DAP that the key did not
	// make over that data.
	ErrSignature = errors.New("signature does not verify")
)

// Signer makes the signatures of appendix C: tokens, receipts, DAPs.
type Signer interface {
	// Sign returns the signature over the data as it stands; schemes that
	// hash do so themselves.
	Sign(data []byte) ([]byte, error)
}

// Verifier verifies them. Errors wrap [ErrSignature].
type Verifier interface {
	Verify(data, signature []byte) error
}

// AESScheme signs and verifies with an AES key: the whole CMAC of 16 bytes
// (B.2.2).
type AESScheme struct{ Key keys.Key }

// Sign returns the CMAC.
func (s AESScheme) Sign(data []byte) ([]byte, error) {
	if s.Key.IsZero() {
		return nil, fmt.Errorf("%w: there is none", ErrSignatureKey)
	}
	mac, err := sp800.Sum(s.Key.Bytes(), data)
	if err != nil {
		return nil, err
	}
	return mac[:], nil
}

// Verify compares in constant time.
func (s AESScheme) Verify(data, signature []byte) error {
	want, err := s.Sign(data)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, signature) != 1 {
		return fmt.Errorf("%w: AES", ErrSignature)
	}
	return nil
}

// PublicKeyScheme verifies with a public key, by its kind and size (table C-1):
// RSA of 1,024 bits with PKCS #1 v1.5 and SHA-1 (B.3.1.1), longer RSA with PSS
// and SHA-256 (B.3.2.1), and ECDSA on the curves of table B-2 (see
// [ParseECPublicKey]), the signature being r and s one after the other (B.4.3).
//
// ECDSA follows the appendix alone: no vector of it has been found that
// another implementation computed.
type PublicKeyScheme struct{ Key crypto.PublicKey }

// PrivateKeyScheme signs with a private key as [PublicKeyScheme] verifies. The
// key may live in a device.
type PrivateKeyScheme struct {
	Key  crypto.Signer
	Rand io.Reader // nil is crypto/rand
}

// scheme is how a public key is used.
type scheme struct {
	hash   crypto.Hash
	pss    bool
	rsa    *rsa.PublicKey
	verify func(digest []byte, r, s *big.Int) bool // of an EC key
	order  int                                     // of its curve, in bits
}

func schemeOf(key crypto.PublicKey) (scheme, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case bits == 1024:
			return scheme{hash: crypto.SHA1, rsa: k}, nil
		case bits > 1024:
			return scheme{hash: crypto.SHA256, pss: true, rsa: k}, nil
		default:
			return scheme{}, fmt.Errorf("%w: RSA of %d bits, 1024 at least", ErrSignatureKey, bits)
		}
	case *ecdsa.PublicKey:
		name, bits := k.Curve.Params().Name, k.Params().N.BitLen()
		if !slices.Contains(curveNames[:], name) {
			return scheme{}, fmt.Errorf("%w: curve %s", ErrSignatureKey, name)
		}
		verify := func(digest []byte, r, s *big.Int) bool { return ecdsa.Verify(k, digest, r, s) }
		return scheme{hash: curveHash(bits), verify: verify, order: bits}, nil
	case *ecc.PublicKey:
		bits := k.Curve.N.BitLen()
		verify := func(digest []byte, r, s *big.Int) bool { return k.Curve.Verify(k.W, digest, r, s) }
		return scheme{hash: curveHash(bits), verify: verify, order: bits}, nil
	}
	return scheme{}, fmt.Errorf("%w: %T", ErrSignatureKey, key)
}

// curveHash is the hash that goes with an EC key (table B-3).
func curveHash(bits int) crypto.Hash {
	switch {
	case bits >= 512:
		return crypto.SHA512
	case bits >= 384:
		return crypto.SHA384
	}
	return crypto.SHA256
}

func (s scheme) digest(data []byte) []byte {
	switch s.hash {
	case crypto.SHA1: // B.3.1.1 has no other for this size
		d := sha1.Sum(data)
		return d[:]
	case crypto.SHA384:
		d := sha512.Sum384(data)
		return d[:]
	case crypto.SHA512:
		d := sha512.Sum512(data)
		return d[:]
	}
	d := sha256.Sum256(data)
	return d[:]
}

func (s scheme) pssOptions() *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
}

// orderSize is the length of r and of s.
func (s scheme) orderSize() int { return (s.order + 7) / 8 }

// Verify verifies by the scheme of the key.
func (p PublicKeyScheme) Verify(data, signature []byte) error {
	s, err := schemeOf(p.Key)
	if err != nil {
		return err
	}
	digest := s.digest(data)
	switch {
	case s.pss:
		err = rsa.VerifyPSS(s.rsa, s.hash, digest, signature, s.pssOptions())
	case s.rsa != nil:
		err = rsa.VerifyPKCS1v15(s.rsa, s.hash, digest, signature)
	default:
		n := s.orderSize()
		if len(signature) != 2*n || !s.verify(digest, new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])) {
			err = errors.New("ECDSA")
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// Sign signs by the scheme of the key.
func (p PrivateKeyScheme) Sign(data []byte) ([]byte, error) {
	if p.Key == nil {
		return nil, fmt.Errorf("%w: there is none", ErrSignatureKey)
	}
	s, err := schemeOf(p.Key.Public())
	if err != nil {
		return nil, err
	}
	random := p.Rand
	if random == nil {
		random = rand.Reader
	}
	var o crypto.SignerOpts = s.hash
	if s.pss {
		o = s.pssOptions()
	}
	signature, err := p.Key.Sign(random, s.digest(data), o)
	if err != nil || s.verify == nil {
		return signature, err
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &rs); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("ECDSA signature of the key's device: %d bytes after it, %w", len(rest), err)
	}
	n := s.orderSize()
	if rs.R.BitLen() > 8*n || rs.S.BitLen() > 8*n || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 {
		return nil, errors.New("ECDSA signature of the key's device is out of range")
	}
	out := make([]byte, 2*n)
	rs.R.FillBytes(out[:n])
	rs.S.FillBytes(out[n:])
	return out, nil
}

// Verify verifies with the public half.
func (p PrivateKeyScheme) Verify(data, signature []byte) error {
	if p.Key == nil {
		return fmt.Errorf("%w: there is none", ErrSignatureKey)
	}
	return PublicKeyScheme{p.Key.Public()}.Verify(data, signature)
}
