// Package staff says who works at an issuing office: operators with an id, a
// role and a signing key, and what each role may do. It holds no list of
// people: the ledger does, as events.
//
// The card's operator of GlobalPlatform, who issues tokens, is somebody else;
// see package delegation.
package staff

import (
	"fmt"
	"slices"
)

// Role is what an operator is employed for. An operator has one.
type Role string

// Roles.
const (
	Clerk        Role = "clerk"         // works with holders and cards
	Supervisor   Role = "supervisor"    // answers for the counter
	Auditor      Role = "auditor"       // reads
	KeyCustodian Role = "key-custodian" // looks after keys, not after holders
)

// Roles lists all roles.
func Roles() []Role { return []Role{Clerk, Supervisor, Auditor, KeyCustodian} }

// ParseRole returns the role of a name.
func ParseRole(s string) (Role, error) {
	if r := Role(s); slices.Contains(Roles(), r) {
		return r, nil
	}
	return "", fmt.Errorf("role %q: clerk, supervisor, auditor or key-custodian", s)
}

// Action is something that not everybody may do.
type Action string

// Actions.
const (
	Consents     Action = "consents"
	Cards        Action = "cards"
	Rekey        Action = "rekey"
	HandOver     Action = "handover"
	Read         Action = "read"
	Backup       Action = "backup"
	Erase        Action = "erase"
	ChangeStaff  Action = "staff"
	ManageKeys   Action = "keys"
	ExchangeKeys Action = "key-exchange"
)

// Rule says who may do something.
type Rule struct {
	Action Action
	Means  string // in English, for documents
	By     []Role
	// Second lists the roles of the other operator without whom it is not done;
	// empty where one operator is enough.
	Second []Role
}

// rules is the one table. What an event of the ledger needs is enforced when
// it is appended and again whenever the ledger is verified; the rest is up to
// the program, since whoever has a file can read it.
var rules = []Rule{
	{Consents, "record consents and their withdrawal", []Role{Clerk, Supervisor}, nil},
	{Cards, "issue, update, suspend, resume, reissue, revoke, withdraw; PINs; prepare cards and issue tokens for service providers", []Role{Clerk, Supervisor}, nil},
	{Rekey, "give cards a new key version", []Role{Supervisor}, nil},
	{HandOver, "hand IDs over to business systems, make lists of IDs", []Role{Clerk, Supervisor}, nil},
	{Read, "prove and export the ledger", []Role{Clerk, Supervisor, Auditor}, nil},
	{Backup, "copy the ledger", []Role{Supervisor, Auditor, KeyCustodian}, nil},
	{Erase, "erase personal data", []Role{Supervisor}, nil},
	{ChangeStaff, "add and withdraw operators", []Role{Supervisor}, []Role{Supervisor, KeyCustodian}},
	{ManageKeys, "make and retire keys", []Role{Supervisor, KeyCustodian}, nil},
	{ExchangeKeys, "export secret keys, import keys", []Role{KeyCustodian}, []Role{Supervisor, KeyCustodian}},
}

// Rules returns the table of who may do what.
func Rules() []Rule { return slices.Clone(rules) }

// RuleOf returns the rule for an action; nobody may do an unknown one.
func RuleOf(a Action) Rule {
	for _, r := range rules {
		if r.Action == a {
			return r
		}
	}
	return Rule{Action: a}
}

// Allows reports whether an operator of the role may do it, together with a
// second one where the rule says so.
func (r Rule) Allows(role Role) bool { return slices.Contains(r.By, role) }

// AllowsSecond reports whether an operator of the role may be the second.
func (r Rule) AllowsSecond(role Role) bool { return slices.Contains(r.Second, role) }
