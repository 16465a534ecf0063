package manifest

import (
	"github.com/freearea/freearea/applets/recipe"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Format is the version of the manifest format that this package reads.
const Format = 1

// Languages in which every text for people exists.
const (
	Japanese = "ja"
	English  = "en"
)

// Manifest describes one service: what it is for, who offers it and on what
// basis in law, what it writes to a card, and under which terms. The tags are
// the keys of the TOML file; docs/manifest.md describes each.
//
// A Manifest that [Load] or [Parse] returned without error keeps every rule
// of this package, and its defaults are filled in.
type Manifest struct {
	Format      int         `toml:"manifest"`
	ID          string      `toml:"id"`      // 1 to 32 of a-z, 0-9 and hyphen; stands in EF.ID
	Profile     string      `toml:"profile"` // "common-ap", "type-a", "type-d", "custom" or a profile added by the program
	Name        Text        `toml:"name"`
	Purpose     Text        `toml:"purpose"`
	Operator    Operator    `toml:"operator"`
	Application Application `toml:"application"`
	LoadFile    LoadFile    `toml:"load_file"`
	PIN         PIN         `toml:"pin"`
	Items       []Item      `toml:"items"`
	IDScheme    IDScheme    `toml:"id_scheme"`
	Keys        Keys        `toml:"keys"`
	Term        Term        `toml:"term"`
	Consent     Consent     `toml:"consent"`
	Retention   Retention   `toml:"retention"`

	// Custom says how an application of one's own is used, with the profile
	// "custom" only.
	Custom recipe.Recipe `toml:"custom"`

	file       string // as given to Load or Parse
	protection string // key of the table of that name, where it is not the profile
}

// Text is one text in the languages of the holder and the clerk.
type Text struct {
	JA string `toml:"ja"`
	EN string `toml:"en"`
}

// In returns the text in a language, "" for one that there is not.
func (t Text) In(lang string) string {
	switch lang {
	case Japanese:
		return t.JA
	case English:
		return t.EN
	}
	return ""
}

// Operator is the body that offers the service and answers for it.
type Operator struct {
	Name      Text         `toml:"name"`
	Kind      OperatorKind `toml:"kind"`
	Contact   Text         `toml:"contact"`   // where the holder asks, complains and withdraws
	Basis     string       `toml:"basis"`     // id in the table of [Bases]
	Ordinance Text         `toml:"ordinance"` // the ordinance that names the work, where the basis asks for one
	Notice    Text         `toml:"notice"`    // the Minister's notice that names it, where the basis asks for one
}

// OperatorKind is the kind of body an operator is; the basis in law depends on it.
type OperatorKind string

// The kinds of bodies that Individual Number Act art. 18 and its Enforcement
// Order art. 18 know.
const (
	Municipality         OperatorKind = "municipality"                            // an organ of a city, town, village or special ward
	AdministrativeOrgan  OperatorKind = "administrative-organ"                    // of the state
	IndependentAgency    OperatorKind = "independent-administrative-agency"       // 独立行政法人
	CardOperator         OperatorKind = "card-operator"                           // J-LIS
	LocalGovernment      OperatorKind = "local-government"                        // an organ of a prefecture or another local public body
	LocalIndependentBody OperatorKind = "local-independent-administrative-agency" // 地方独立行政法人
	PrivateBusiness      OperatorKind = "private-business"
)

// Application names the application on the card.
type Application struct {
	Instance       iso7816.AID `toml:"instance"`        // what terminals select
	Package        iso7816.AID `toml:"package"`         // Executable Load File; default: the base load file's
	Module         iso7816.AID `toml:"module"`          // Executable Module; default: the base module of the profile
	SecurityDomain iso7816.AID `toml:"security_domain"` // zero: the Issuer Security Domain
	Memory         int         `toml:"memory"`          // persistent memory in bytes that the instance may take; 0: what the profile needs
}

// Paths of the load files that the toolkit carries.
const (
	BuiltinBase  = "builtin:base"  // the base applications
	BuiltinFiles = "builtin:files" // the file application
)

// LoadFile says which load file the application comes from. The hash decides,
// not the path and not the AID.
type LoadFile struct {
	Path   string `toml:"path"`   // relative to the manifest, or BuiltinBase, BuiltinFiles
	SHA256 Hash   `toml:"sha256"` // of the load file data block
}

// Hash is a SHA-256 digest, written as 64 hexadecimal digits.
type Hash [32]byte

// PINPolicy says whether the holder sets a PIN.
type PINPolicy string

// The two policies.
const (
	PINNone     PINPolicy = "none"
	PINRequired PINPolicy = "required"
)

// PIN is the policy for the application's password. All numbers are 0 where
// the policy is none.
type PIN struct {
	Policy     PINPolicy `toml:"policy"`      // default none
	MinDigits  int       `toml:"min_digits"`  // 4 to 12, default 4
	MaxDigits  int       `toml:"max_digits"`  // 4 to 12, default 12
	Tries      int       `toml:"tries"`       // 1 to 15, default 3
	MustChange bool      `toml:"must_change"` // the PIN given at the counter opens only the change to another one
}

// ItemType says what an item's value looks like.
type ItemType string

// The types of items.
const (
	ItemText         ItemType = "text"         // any printable characters
	ItemDigits       ItemType = "digits"       // 0-9
	ItemAlphanumeric ItemType = "alphanumeric" // 0-9, A-Z, a-z and hyphen
	ItemDate         ItemType = "date"         // YYYY-MM-DD
)

// Item is one further item that is recorded beside the ID.
type Item struct {
	Name      string   `toml:"name"`       // 1 to 16 of a-z, 0-9 and hyphen; stands on the card
	Label     Text     `toml:"label"`      // what the holder reads
	Type      ItemType `toml:"type"`       //
	MaxLength int      `toml:"max_length"` // in characters; 10 for a date
	Required  bool     `toml:"required"`   // false: the holder may leave it out
	Reason    Text     `toml:"reason"`     // why the service can't do without it
}

// IDKind says where IDs come from.
type IDKind string

// The kinds of ID schemes.
const (
	IDGiven    IDKind = "given"    // by the business system or a list
	IDSequence IDKind = "sequence" // counted by the ledger
	IDRandom   IDKind = "random"   // drawn
)

// CheckCharacter names an algorithm of check characters.
type CheckCharacter string

// The algorithms, by the names of their standards.
const (
	CheckNone    CheckCharacter = "none"
	CheckMod3736 CheckCharacter = "iso7064-mod-37-36" // ISO/IEC 7064: 0-9 and A-Z, one check character
	CheckMod112  CheckCharacter = "iso7064-mod-11-2"  // ISO/IEC 7064: digits, check character 0-9 or X
	CheckLuhn    CheckCharacter = "iso7812-luhn"      // ISO/IEC 7812-1: digits
)

// IDScheme says what the service's IDs look like: the prefix, Length
// characters of the alphabet, and a check character if there is one. IDs are
// unique within a service; the ledger holds that.
type IDScheme struct {
	Kind      IDKind         `toml:"kind"`
	Prefix    string         `toml:"prefix"`     // 0-9, A-Z, a-z and hyphen
	Length    int            `toml:"length"`     // characters after the prefix, without the check character
	MinLength int            `toml:"min_length"` // kind given only: the shortest; default Length
	Alphabet  string         `toml:"alphabet"`   // "digits", "letters", "alphanumeric", "unambiguous"; default digits
	Check     CheckCharacter `toml:"check"`      // default none
}

// Keys names the keys that the service uses; the keys themselves are in the
// key store.
type Keys struct {
	Read            string      `toml:"read"`           // types A and D: the master of the read keys
	IssuerSigning   string      `toml:"issuer_signing"` // optional: signs EF.ID
	Diversification keys.Method `toml:"diversification"`
}

// Term says how long an application serves. It never outlasts the card.
type Term struct {
	CardExpiry bool `toml:"card_expiry"` // until the card expires; else Years, Months and Days count from the issue
	Years      int  `toml:"years"`
	Months     int  `toml:"months"`
	Days       int  `toml:"days"`
}

// Consent says how consent may be given.
type Consent struct {
	Methods   []string `toml:"methods"`    // "paper", "screen"
	ValidDays int      `toml:"valid_days"` // a card may be issued for so many days after consent was given; default 90
}

// Retention says how long the operator keeps its records after the service
// has ended for a holder.
type Retention struct {
	Days   int  `toml:"days"`
	Reason Text `toml:"reason"`
}
