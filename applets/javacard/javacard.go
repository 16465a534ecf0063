// Package javacard holds the base applications as a load file for Java Card:
// the source in src, what its build makes of it, and tests that run it on an
// emulated card. README.md says what a card must have for it.
package javacard

import (
	"bytes"
	_ "embed"
)

//go:embed base.cap
var loadFile []byte

// LoadFile returns the CAP file that build.sh makes of src, for Java Card
// 3.0.4: one package, version 1.0, with three modules. Package applets names
// them.
func LoadFile() []byte { return bytes.Clone(loadFile) }
