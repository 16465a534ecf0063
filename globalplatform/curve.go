package globalplatform

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"slices"

	"github.com/freearea/freearea/internal/ecc"
)

// curveNames are the curves of table B-2, by their key parameter reference.
var curveNames = [...]string{
	"P-256", "P-384", "P-521",
	"brainpoolP256r1", "brainpoolP256t1", "brainpoolP384r1", "brainpoolP384t1", "brainpoolP512r1", "brainpoolP512t1",
}

// CurveName returns the name of the curve that a key parameter reference stands
// for (table B-2): P-256, P-384, P-521, or brainpoolP256r1 to brainpoolP512t1.
func CurveName(reference byte) (string, bool) {
	if int(reference) >= len(curveNames) {
		return "", false
	}
	return curveNames[reference], true
}

// ParseECPublicKey reads an EC public key: an uncompressed point of the curve
// with the name. The result is an [*ecdsa.PublicKey] on the curves of FIPS 186-4
// and a type of this package's own on the Brainpool curves, for [ECPublicKey],
// [PublicKeyScheme] and the signers of others. Otherwise the error wraps
// [ErrKey].
func ParseECPublicKey(curve string, point []byte) (crypto.PublicKey, error) {
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if c.Params().Name != curve {
			continue
		}
		k, err := ecdsa.ParseUncompressedPublicKey(c, point)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		return k, nil
	}
	k, ok := ecc.ParsePublicKey(curve, point)
	if !ok {
		return nil, fmt.Errorf("%w: %d bytes are no point of curve %q", ErrKey, len(point), curve)
	}
	return k, nil
}

// ecPublicKey returns the curve's name and the point of an EC public key.
func ecPublicKey(key crypto.PublicKey) (curve string, point []byte, err error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if curve = k.Curve.Params().Name; !slices.Contains(curveNames[:], curve) {
			return "", nil, fmt.Errorf("curve %s", curve)
		}
		point, err = k.Bytes()
		return curve, point, err
	case *ecc.PublicKey:
		return k.Name, k.Bytes(), nil
	}
	return "", nil, fmt.Errorf("%T is no EC key", key)
}
