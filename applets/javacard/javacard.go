// Package javacard holds the base applications as a load file for Java Card:
// the source in src, what its build makes of it, and tests that run it on an
// emulated card. README.md says in which state it is.
package javacard

import (
	"bytes"
	_ "embed"
)

//go:embed base.cap
var loadFile []byte

// LoadFile returns the CAP file that build.sh makes of src: one package of
// version 1.0 with the AIDs of [applets.BasePackage] and its modules, for Java
// Card 3.0.4.
//
// [applets.BasePackage]: https://pkg.go.dev/github.com/freearea/freearea/applets#BasePackage
func LoadFile() []byte { return bytes.Clone(loadFile) }
