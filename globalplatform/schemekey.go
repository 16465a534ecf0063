package globalplatform

import (
	"fmt"

	"github.com/freearea/freearea/keys"
)

// SignerOf returns what signs with a stored key; without its secret half the
// error wraps [ErrSignatureKey].
func SignerOf(k keys.SchemeKey) (Signer, error) {
	switch {
	case k.Private != nil:
		return PrivateKeyScheme{Key: k.Private}, nil
	case !k.AES.IsZero():
		return AESScheme{Key: k.AES}, nil
	}
	return nil, fmt.Errorf("%w: %v can't sign", ErrSignatureKey, k)
}

// VerifierOf returns what verifies with a stored key.
func VerifierOf(k keys.SchemeKey) (Verifier, error) {
	switch {
	case k.Public != nil:
		return PublicKeyScheme{Key: k.Public}, nil
	case !k.AES.IsZero():
		return AESScheme{Key: k.AES}, nil
	}
	return nil, fmt.Errorf("%w: there is none", ErrSignatureKey)
}

// SchemeKeyValue is what a card gets of a stored key: of an RSA key its public
// half.
func SchemeKeyValue(k keys.SchemeKey) KeyValue {
	if k.Public != nil {
		return RSAPublicKey(k.Public)
	}
	return AESKey(k.AES)
}
