//go:build !cgo

package pkcs11

import (
	"errors"
	"testing"
)

func TestNotBuilt(t *testing.T) {
	u, err := ParseURI("pkcs11:?module-path=/usr/lib/softhsm/libsofthsm2.so")
	if err != nil {
		t.Fatal(err)
	}
	_, errOpen := Open(t.Context(), u, Options{})
	_, errTokens := Tokens(t.Context(), "/usr/lib/softhsm/libsofthsm2.so")
	if Built || !errors.Is(errOpen, ErrNotBuilt) || !errors.Is(errTokens, ErrNotBuilt) {
		t.Errorf("built %v, errors %v, %v", Built, errOpen, errTokens)
	}
}
