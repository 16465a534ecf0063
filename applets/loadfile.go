package applets

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"sync"

	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// AIDs of the base load file and its modules, from the unregistered
// proprietary range (first nibble F). Instances have AIDs of their own, which
// their service names.
var (
	BasePackage    = iso7816.MustAID("F0465245454152454100")
	ModuleCommonAP = iso7816.MustAID("F046524545415245410001")
	ModuleTypeA    = iso7816.MustAID("F04652454541524541000A")
	ModuleTypeD    = iso7816.MustAID("F04652454541524541000D")
)

//go:embed base.cap
var baseLoadFile []byte

// BaseLoadFile returns the CAP file of the base applications: one package,
// version 1.0, with three modules.
//
// It has the structure of a CAP file but none of the applications' bytecode
// yet: its install method returns without registering an instance. A physical
// card can load it and will refuse to install from it; the emulated card knows
// it by its hash and runs the applications natively.
func BaseLoadFile() []byte { return bytes.Clone(baseLoadFile) }

var baseFile = sync.OnceValue(func() *capfile.File {
	f, err := capfile.Parse(baseLoadFile)
	if err != nil {
		panic("applets: base.cap: " + err.Error()) // a test reads it
	}
	return f
})

// BaseLoadFileHash returns the SHA-256 of the base load file's load file data
// block (GPCS C.2), by which a card's linker and a host know it.
func BaseLoadFileHash() [sha256.Size]byte { return baseFile().Hash() }

// IsBaseLoadFile reports whether a load file data block with this SHA-256 is
// the base load file's, with or without the Descriptor component.
func IsBaseLoadFile(hash [sha256.Size]byte) bool { return baseFile().HasHash(hash) }
