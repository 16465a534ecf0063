// Package recipe makes an application profile out of data: how an application
// that somebody else wrote is installed, personalised, observed and read is
// said by a [Recipe], and [New] makes an [applets.Profile] of it. Recipes stand
// in manifests with profile = "custom" and in files of their own; package
// manifest reads both, and docs/manifest.md describes the keys.
//
// What a recipe can say is bounded on purpose: commands of ISO/IEC 7816-4
// without secure messaging, one PIN, data objects in BER-TLV. An application
// that authenticates the terminal needs Go code that implements
// [applets.Profile].
package recipe

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/freearea/freearea/iso7816"
)

// Recipe says how an application is used. The tags are the keys of the TOML
// table.
type Recipe struct {
	Install     Install     `toml:"install"`
	Personalize Personalize `toml:"personalize"`
	Wipe        Wipe        `toml:"wipe"`
	Select      Select      `toml:"select"`
	Absent      []Status    `toml:"absent"` // by which the application says that it holds nothing
	Observe     Observe     `toml:"observe"`
	Read        Read        `toml:"read"`
}

// Install is what INSTALL [for install] says to the application.
type Install struct {
	Parameters Hex `toml:"parameters"` // value of tag C9 (GPCS 11.5.2.3.7)
	Memory     int `toml:"memory"`     // persistent memory that an instance takes, in bytes
}

// Personalize is what STORE DATA writes.
type Personalize struct {
	Format string  `toml:"format"` // "dgi" or "ber-tlv"
	Groups []Group `toml:"groups"` // in this order
}

// Wipe says how everything that was written is erased.
type Wipe struct {
	By     string  `toml:"by"`     // "groups", or "delete": deleting the instance erases it
	Groups []Group `toml:"groups"` // in the format of personalisation, constants only
}

// Group is a data grouping identifier (GPCS 11.1.12) or a data object with its
// value. It is left out when it has values and none of them is to be written.
type Group struct {
	ID    Hex    `toml:"id"` // 2 bytes of a DGI, 1 to 3 of a tag
	Parts []Part `toml:"parts"`
}

// Part is a piece of a group's value: exactly one of Hex, Value, Item and
// Parts. Parts stand for themselves, or in a data object with Tag, or
// encrypted. A Part with parts is left out as a group is.
type Part struct {
	Hex   Hex    `toml:"hex"`   // constant bytes
	Value string `toml:"value"` // see Values
	Item  string `toml:"item"`  // an item's value, UTF-8
	Parts []Part `toml:"parts"`

	Tag     Tag    `toml:"tag"`     // of the data object around Parts
	Encrypt bool   `toml:"encrypt"` // Parts under the Security Domain's DEK (AES-CBC, ICV zero)
	Padding string `toml:"padding"` // before encryption: "80" (default: 80 and zeros to whole blocks) or "none"

	Length int `toml:"length"` // a value or an item is filled up to so many bytes
	Fill   Hex `toml:"fill"`   // with this byte
}

// Values that a Part can name.
const (
	ValueID            = "id"              // the ID, UTF-8
	ValueService       = "service"         // the service's identifier, ASCII
	ValueIssueNumber   = "issue-number"    // 2 bytes
	ValueExpiry        = "expiry"          // 4 bytes, YYYYMMDD in BCD; none without expiry
	ValueSignature     = "signature"       // 64 bytes; none unless the manifest names a signing key
	ValueRecord        = "record"          // EF.ID as the base applications hold it
	ValueItems         = "items"           // EF.ITEMS as the base applications hold it; none without items
	ValueTag           = "tag"             // 16 bytes by which a run knows the content again
	ValuePIN           = "pin"             // ASCII digits; none unless a PIN is being set
	ValuePINLimit      = "pin-limit"       // 1 byte; as pin
	ValuePINMustChange = "pin-must-change" // 1 byte, 01 or 00; as pin
	ValuePINSet        = "pin-set"         // 1 byte: 01 where there is or will be a PIN, 00 otherwise
)

// Values lists them.
var values = []string{
	ValueID, ValueService, ValueIssueNumber, ValueExpiry, ValueSignature, ValueRecord, ValueItems, ValueTag,
	ValuePIN, ValuePINLimit, ValuePINMustChange, ValuePINSet,
}

// Select says what the answer to SELECT by AID looks like.
type Select struct {
	FCI    string   `toml:"fci"`    // "required" (default): an FCI whose tag 84 is the AID; "none": not looked at
	Status []Status `toml:"status"` // default 9000
}

// Observe says how a run learns what an instance holds.
type Observe struct {
	Via         string   `toml:"via"`     // "commands" (default), or "store-data": through the Security Domain
	Request     Hex      `toml:"request"` // for store-data: the data field of a STORE DATA of case 4
	Steps       []Step   `toml:"steps"`   // for commands
	Tag         Location `toml:"tag"`     // where the tag stands; from "answer" for store-data
	IssueNumber Location `toml:"issue_number"`
}

// Read says how a terminal reads.
type Read struct {
	Steps       []Step         `toml:"steps"`
	Record      Location       `toml:"record"` // an EF.ID; then none of the next five
	ID          Location       `toml:"id"`
	Service     Location       `toml:"service"`
	IssueNumber Location       `toml:"issue_number"`
	Expiry      Location       `toml:"expiry"`
	Signature   Location       `toml:"signature"`
	AllItems    Location       `toml:"all_items"` // an EF.ITEMS; then no items
	Items       []ItemLocation `toml:"items"`
}

// Commands of steps.
const (
	ReadBinary = "read-binary" // a transparent file from its beginning: sfi, or file (SELECT by identifier first)
	ReadRecord = "read-record" // sfi and record
	GetData    = "get-data"    // tag
	Verify     = "verify"      // the PIN: sfi (P2 = 80 + sfi), or file (SELECT, then P2 = 80)
)

// Step is a command to the selected application, and what is expected of it.
type Step struct {
	Name    string   `toml:"name"` // by which locations and conditions refer to the answer
	Command string   `toml:"command"`
	Class   Hex      `toml:"class"` // default 00
	SFI     int      `toml:"sfi"`   // short EF identifier, 1 to 30
	File    Hex      `toml:"file"`  // EF identifier, 2 bytes
	Record  int      `toml:"record"`
	Tag     Tag      `toml:"tag"`
	Length  int      `toml:"length"` // read-binary: exactly so many bytes; default: to the end. verify: of the reference block
	Fill    Hex      `toml:"fill"`   // verify: what follows the digits
	Change  bool     `toml:"change"` // verify: CHANGE REFERENCE DATA is there, old block and new block
	Status  []Status `toml:"status"` // default 9000
	When    When     `toml:"when"`
}

// When makes a step depend on what an earlier one read.
type When struct {
	From   string `toml:"from"`
	Path   []Tag  `toml:"path"`
	Equals Hex    `toml:"equals"`
}

// Location is a place in what was read: down the path of tags in the answer
// of a step, or of SELECT ("select"). An empty path is the whole answer.
type Location struct {
	From string `toml:"from"`
	Path []Tag  `toml:"path"`
}

func (l Location) given() bool { return l.From != "" || len(l.Path) > 0 }

// ItemLocation is where an item stands; nothing there means that the holder
// left it out.
type ItemLocation struct {
	Name string `toml:"name"`
	From string `toml:"from"`
	Path []Tag  `toml:"path"`
}

// Errors of reading texts.
var (
	ErrHex    = errors.New("not bytes in hexadecimal digits")
	ErrTag    = errors.New("not a BER-TLV tag of 1 to 3 bytes")
	ErrStatus = errors.New("not a status word of 4 hexadecimal digits")
)

// Hex is bytes, written as hexadecimal digits with or without spaces.
type Hex []byte

// MarshalText writes upper-case digits.
func (h Hex) MarshalText() ([]byte, error) { return []byte(fmt.Sprintf("%X", []byte(h))), nil }

// UnmarshalText reads digits and spaces. The error is [ErrHex].
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(strings.ReplaceAll(string(text), " ", ""))
	if err != nil || len(b) == 0 {
		return ErrHex
	}
	*h = b
	return nil
}

// Tag is a BER-TLV tag.
type Tag iso7816.Tag

// MarshalText writes upper-case digits.
func (t Tag) MarshalText() ([]byte, error) {
	s := fmt.Sprintf("%X", uint32(t))
	if len(s)%2 != 0 {
		s = "0" + s
	}
	return []byte(s), nil
}

// UnmarshalText reads hexadecimal digits. The error is [ErrTag].
func (t *Tag) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return ErrTag
	}
	x, err := tagOf(b)
	if err == nil {
		*t = Tag(x)
	}
	return err
}

// tagOf reads bytes that are a tag and nothing else.
func tagOf(b []byte) (iso7816.Tag, error) {
	x, rest, err := iso7816.ParseTLV(append(append([]byte(nil), b...), 0))
	if err != nil || len(rest) > 0 {
		return 0, ErrTag
	}
	return x.Tag, nil
}

// Status is a status word.
type Status iso7816.SW

// MarshalText writes 4 upper-case digits.
func (s Status) MarshalText() ([]byte, error) { return []byte(fmt.Sprintf("%04X", uint16(s))), nil }

// UnmarshalText reads 4 hexadecimal digits. The error is [ErrStatus].
func (s *Status) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != 2 || b[0]>>4 != 6 && b[0]>>4 != 9 {
		return ErrStatus
	}
	*s = Status(b[0])<<8 | Status(b[1])
	return nil
}
