package applets

// What goes over the wire, shared with the card's side. docs/card-protocol.md
// has the same tables.

// Instructions of the applications beside those of SCP03 and SELECT.
const (
	InsVerify          byte = 0x20
	InsChangeReference byte = 0x24
	InsExpress         byte = 0x54
	InsReadBinary      byte = 0xB0
	InsStoreData       byte = 0xE2
)

// Short identifiers of the files (SFI).
const (
	FileRecord byte = 1
	FileItems  byte = 2
)

// QualifierPIN is P2 of VERIFY and CHANGE REFERENCE DATA.
const QualifierPIN byte = 0x01

// Tags of the FCI (ISO/IEC 7816-4, 7.4).
const (
	TagFCI             = 0x6F
	TagAID             = 0x84
	TagProprietary     = 0xA5
	TagType            = 0x80 // type and version
	TagChallenge       = 0x81
	TagDiversification = 0x82
	TagKeyVersions     = 0x83
	TagRecord          = 0x85
)

// Tags of the install parameters (value of C9), in the order in which they
// stand. common-ap has the first alone.
const (
	TagParamVersion         = 0x80
	TagParamDiversification = 0x81
	TagParamKeySets         = 0x82
	TagParamItems           = 0x83
	TagParamPIN             = 0x84
)

// Data groups of STORE DATA (GPCS 11.11): two bytes of identifier, one of
// length, the data.
const (
	DGIBegin   uint16 = 0x0100 // flags; first in block 00
	DGIRecord  uint16 = 0x0101 // EF.ID, whole
	DGIItems   uint16 = 0x0102 // offset (2), a part of EF.ITEMS
	DGITag     uint16 = 0x0110 // tag (16)
	DGIObserve uint16 = 0x0F00 // empty; alone in a command of case 4
	DGIWipe    uint16 = 0x0F0F // WipeWord; alone
	DGIKeys    uint16 = 0x8101 // version, key length, two key check values, ENC and MAC under the DEK
	DGIPIN     uint16 = 0x8201 // limit, flags, PIN under the DEK
)

// WipeWord stands in DGIWipe, so that no other block can be taken for it.
const WipeWord = "WIPE"

// FlagKeepKeys in DGIBegin keeps the read keys of the slot that is served.
const FlagKeepKeys byte = 0x01

// FlagMustChange in DGIPIN and in an observation.
const FlagMustChange byte = 0x01

// Tags of the answer to DGIObserve.
const (
	TagObservedType            = 0x80 // type and version
	TagObservedState           = 0x81 // life cycle state, slot
	TagObservedDiversification = 0x82
	TagObservedKeyVersions     = 0x83
	TagObservedTag             = 0x84
	TagObservedIssueNumber     = 0x85
	TagObservedSpec            = 0x86 // key sets, capacity of EF.ITEMS (2), PIN
	TagObservedPIN             = 0x87 // tries left, limit, flags
)

// PINPadding follows the 12 bytes of a PIN's reference block before they are
// encrypted. It is what tells a PIN that was encrypted under another key; a
// check value computed from the PIN would give the PIN away.
const PINPadding = "\x80\x00\x00\x00"

// What an instance takes of persistent memory, in bytes, as the emulated card
// counts it: each object 8 bytes more than its content. A physical card counts
// in its own way.
const (
	SizeSlotHeader = 20 // of each of the two slots, before EF.ID, key sets and EF.ITEMS
	SizeKeySet     = 66
	SizePIN        = 8 + 15

	// Everything else: the entry in the registry, an AID of 16 bytes, the
	// applet's fields, the slots' own headers, and the objects of the API, which
	// types A and D have more of.
	SizeCommonAP = 195
	SizeKeyed    = 489
)
