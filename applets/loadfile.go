package applets

import (
	"crypto/sha256"
	"sync"

	"github.com/freearea/freearea/applets/javacard"
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

// BaseLoadFile returns the CAP file of the base applications for Java Card
// 3.0.4: one package, version 1.0, with three modules. applets/javacard holds
// its source and says what a card must have for it.
func BaseLoadFile() []byte { return javacard.LoadFile() }

var baseFile = sync.OnceValue(func() *capfile.File {
	f, err := capfile.Parse(BaseLoadFile())
	if err != nil {
		panic("applets: base load file: " + err.Error()) // a test reads it
	}
	return f
})

// BaseLoadFileHash returns the SHA-256 of the base load file's load file data
// block (GPCS C.2), by which a card's linker and a host know it.
func BaseLoadFileHash() [sha256.Size]byte { return baseFile().Hash() }

// IsBaseLoadFile reports whether a load file data block with this SHA-256 is
// the base load file's, with or without the Descriptor component.
func IsBaseLoadFile(hash [sha256.Size]byte) bool { return baseFile().HasHash(hash) }
