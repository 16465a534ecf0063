// Package files is what host and card share of the file application: an
// application in the manner of ISO/IEC 7816-4 whose files, records, PINs and
// access conditions are what personalisation writes. docs/file-application.md
// describes every byte.
//
// It is for services whose card format is given by somebody else, and a stand-in
// for other people's applications while one writes a recipe for them; see
// package recipe.
package files

import (
	"bytes"
	_ "embed"
	"sync"

	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// AIDs of the load file and its module, from the unregistered proprietary
// range. Instances have AIDs of their own.
var (
	Package = iso7816.MustAID("F0465245454152454200")
	Module  = iso7816.MustAID("F046524545415245420001")
)

//go:embed files.cap
var loadFile []byte

// LoadFile returns the CAP file of the file application: one package, version
// 1.0, with one module. There is no bytecode in it:
// the emulated card knows it by its hash and runs the application natively.
func LoadFile() []byte { return bytes.Clone(loadFile) }

var parsed = sync.OnceValue(func() *capfile.File {
	f, err := capfile.Parse(loadFile)
	if err != nil {
		panic("applets/files: files.cap: " + err.Error()) // a test reads it
	}
	return f
})

// LoadFileHash returns the SHA-256 of the load file data block (GPCS C.2).
func LoadFileHash() [32]byte { return parsed().Hash() }

// IsLoadFile reports whether a load file data block with this SHA-256 is the
// file application's, with or without the Descriptor component.
func IsLoadFile(hash [32]byte) bool { return parsed().HasHash(hash) }

// Version is the version of docs/file-application.md that an instance speaks.
const Version byte = 0x01

// Limits.
const (
	MaxCapacity   = 8192 // bytes of files, their headers included
	MaxPINs       = 2    // PIN files
	MaxPINLimit   = 15   // wrong PINs in a row
	MaxSFI        = 30   // short EF identifiers are 1 to 30 (ISO/IEC 7816-4, 7.3.1.2)
	MaxRecordSize = 254  // bytes of a record
	MaxDataObject = 255  // bytes that GET DATA answers
	PINBlock      = 12   // bytes of a reference block: ASCII digits, then FF
)

// Instructions.
const (
	InsVerify          byte = 0x20
	InsChangeReference byte = 0x24
	InsSelect          byte = 0xA4
	InsReadBinary      byte = 0xB0
	InsReadRecord      byte = 0xB2
	InsGetData         byte = 0xCA
	InsStoreData       byte = 0xE2
)

// Tags of the install parameters (value of C9), in this order.
const (
	TagParamVersion  = 0x80
	TagParamCapacity = 0x81 // 2 bytes
	TagParamPINs     = 0x82 // 1 byte
)

// Groups of STORE DATA. The identifiers are also BER-TLV tags, so that they
// are the same in both formats.
const (
	GroupBegin   = 0xDF21 // flags (1); first in block 00
	GroupFile    = 0xDF22 // EF identifier (2), SFI (1), kind (1), read access (1)
	GroupContent = 0xDF23 // content of the file before, or one record of it
	GroupPIN     = 0xDF24 // EF identifier (2), SFI (1), limit (1), flags (1), block and padding under the DEK (16)
	GroupWipe    = 0xDF2F // WipeWord; alone
)

// Kinds of files.
const (
	KindTransparent byte = 0x01
	KindRecords     byte = 0x02 // linear, of variable size
	KindDataObject  byte = 0x04 // answered by GET DATA; its EF identifier is the tag
)

// Read access beside a PIN file's SFI.
const (
	AccessFree  byte = 0x00
	AccessNever byte = 0xFF
)

// FlagMustChange in GroupPIN: the PIN opens nothing but its change.
const FlagMustChange byte = 0x01

// WipeWord stands in GroupWipe.
const WipeWord = "WIPE"

// PINPadding follows the reference block before both are encrypted.
const PINPadding = "\x80\x00\x00\x00"

// Sizes of persistent objects on the card, in bytes.
const (
	SizeConfig     = 4
	SizeControl    = 2
	SizeSlotHeader = 2
	SizeFileHeader = 7
	SizePIN        = 18
)

// Memory is what an instance takes of persistent memory, in bytes, without the
// card's own overhead.
func Memory(capacity, pins int) int {
	return SizeConfig + SizeControl + 2*(SizeSlotHeader+capacity) + pins*SizePIN
}

// InstallParameters returns the value of C9.
func InstallParameters(capacity, pins int) []byte {
	b := iso7816.AppendTLV(nil, TagParamVersion, []byte{Version})
	b = iso7816.AppendTLV(b, TagParamCapacity, []byte{byte(capacity >> 8), byte(capacity)})
	return iso7816.AppendTLV(b, TagParamPINs, []byte{byte(pins)})
}
