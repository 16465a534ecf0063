//go:build !cgo

package pkcs11

// Built reports whether this program can load PKCS#11 libraries.
const Built = false

func load(string) (library, error) { return nil, ErrNotBuilt }
