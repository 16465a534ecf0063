package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// New says what key is to be added to a store.
type New struct {
	Name string // as CheckName says
	Kind Kind
	// Version 0 is the one after the highest of that name, or 1.
	Version byte
	// Algorithm "" is the kind's default, or that of the key given.
	Algorithm string
}

// Set returns n for a given key set, whose version and algorithm it takes over
// where n has none. A set that is not of n's kind, version or algorithm is
// refused, and so is the well-known development key, with ErrDevelopmentKey:
// stores have a function of its own for it.
func (n New) Set(set Set) (New, error) {
	if set.IsDevelopment() {
		return n, ErrDevelopmentKey
	}
	return n.set(set)
}

// DevelopmentSet returns the well-known development key set for n's kind and
// version, and n with its algorithm.
func (n New) DevelopmentSet() (New, Set, error) {
	set := DevelopmentSet()
	set.Version = n.Version
	if n.Kind == Read {
		set.DEK = Key{}
	}
	n, err := n.set(set)
	return n, set, err
}

func (n New) set(set Set) (New, error) {
	if n.Version == 0 {
		n.Version = set.Version
	}
	if set.Version == 0 {
		set.Version = n.Version
	}
	if n.Version != set.Version {
		return n, fmt.Errorf("key set version %d given as version %d", set.Version, n.Version)
	}
	if set.Version == 0 {
		set.Version = 1 // to be chosen
	}
	if err := set.Validate(n.Kind); err != nil {
		return n, err
	}
	return n.algorithm(set.ENC.Algorithm())
}

// Ledger returns n for a given ledger key, as Set does for a set.
func (n New) Ledger(key Key) (New, error) {
	switch {
	case key.IsZero():
		return n, errors.New("no ledger key given")
	case n.Kind != Ledger:
		return n, fmt.Errorf("%w: a ledger key given as %q", ErrWrongKind, n.Kind)
	case key.isDevelopment():
		return n, ErrDevelopmentKey
	}
	return n.algorithm(key.Algorithm())
}

// algorithm returns n with the algorithm of the key that is given.
func (n New) algorithm(given string) (New, error) {
	if n.Algorithm != "" && n.Algorithm != given {
		return n, fmt.Errorf("key %s: algorithm %s wanted, %s given", n.Name, n.Algorithm, given)
	}
	if !slices.Contains(n.Kind.Algorithms(), given) {
		return n, fmt.Errorf("%w: %q does not go with %s", ErrWrongKind, n.Kind, given)
	}
	n.Algorithm = given
	return n, nil
}

// Algorithm names the algorithm of the key: [AES128], [AES192] or [AES256].
func (k Key) Algorithm() string {
	switch k.Len() {
	case 16:
		return AES128
	case 24:
		return AES192
	}
	return AES256
}

// InToken reports whether the location of a store, as configurations give it,
// names a PKCS#11 token (RFC 7512) and not a file.
func InToken(location string) bool {
	scheme, _, ok := strings.Cut(location, ":")
	return ok && strings.EqualFold(scheme, "pkcs11")
}
