package globalplatform

import (
	"errors"
	"fmt"
	"strings"
)

// Privileges are the privileges of an application or a Security Domain, as a
// set of 24 bits: byte 1 of the coding is the highest (11.1.2).
type Privileges uint32

// The privileges (tables 11-7 to 11-9).
const (
	SecurityDomain            Privileges = 1 << (23 - iota)
	DAPVerification                      // with SecurityDomain
	DelegatedManagement                  // with SecurityDomain
	CardLock                             //
	CardTerminate                        //
	CardReset                            //
	CVMManagement                        //
	mandatedDAP                          // MandatedDAPVerification is two bits
	TrustedPath                          //
	AuthorizedManagement                 //
	TokenManagement                      // verification of tokens
	GlobalDelete                         //
	GlobalLock                           //
	GlobalRegistry                       //
	FinalApplication                     //
	GlobalService                        //
	ReceiptGeneration                    //
	CipheredLoadFileDataBlock            //
	ContactlessActivation                //
	ContactlessSelfActivation            //

	MandatedDAPVerification = DAPVerification | mandatedDAP
)

var privilegeNames = []string{
	"Security Domain", "DAP Verification", "Delegated Management", "Card Lock", "Card Terminate", "Card Reset",
	"CVM Management", "Mandated DAP Verification", "Trusted Path", "Authorized Management", "Token Management",
	"Global Delete", "Global Lock", "Global Registry", "Final Application", "Global Service", "Receipt Generation",
	"Ciphered Load File Data Block", "Contactless Activation", "Contactless Self-Activation",
}

// ParsePrivileges reads 1 or 3 bytes.
func ParsePrivileges(b []byte) (Privileges, error) {
	switch len(b) {
	case 1:
		return Privileges(b[0]) << 16, nil
	case 3:
		return Privileges(b[0])<<16 | Privileges(b[1])<<8 | Privileges(b[2]), nil
	}
	return 0, malformed("privileges of %d bytes, 1 or 3 allowed", len(b))
}

// Has reports whether p has all of the privileges.
func (p Privileges) Has(all Privileges) bool { return p&all == all }

// Bytes returns the 3 bytes.
func (p Privileges) Bytes() []byte { return []byte{byte(p >> 16), byte(p >> 8), byte(p)} }

// encode returns the coding for INSTALL: 1 byte where it says all, since old
// cards know no other; but 3 for a Security Domain, because the card would
// fill in defaults (11.5.2.3.2).
func (p Privileges) encode() []byte {
	if p&0xFFFF == 0 && !p.Has(SecurityDomain) {
		return p.Bytes()[:1]
	}
	return p.Bytes()
}

// String names the privileges.
func (p Privileges) String() string {
	var names []string
	for i, name := range privilegeNames {
		if p&(1<<(23-i)) != 0 {
			names = append(names, name)
		}
	}
	if rest := p & 0xF; rest != 0 {
		names = append(names, fmt.Sprintf("RFU %X", uint32(rest)))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// ErrPrivileges reports privileges that exclude each other or lack one that
// they need.
var ErrPrivileges = errors.New("privileges that can't be together")

// Check reports whether an application or a Security Domain can have these
// privileges (table 6-1; 6.6.2). Errors wrap [ErrPrivileges]. Host and card
// use it.
func (p Privileges) Check() error {
	const domainOnly = DAPVerification | DelegatedManagement | AuthorizedManagement | mandatedDAP | CipheredLoadFileDataBlock
	switch rest := p & domainOnly; {
	case p&^(1<<24-1) != 0 || p&0xF != 0:
		return fmt.Errorf("%w: reserved bits in %06X", ErrPrivileges, uint32(p))
	case rest != 0 && !p.Has(SecurityDomain):
		return fmt.Errorf("%w: %v without Security Domain", ErrPrivileges, rest)
	case p.Has(mandatedDAP) && !p.Has(DAPVerification):
		return fmt.Errorf("%w: Mandated DAP Verification without DAP Verification", ErrPrivileges)
	}
	for _, other := range []Privileges{AuthorizedManagement, TokenManagement, ReceiptGeneration} {
		if p.Has(DelegatedManagement | other) {
			return fmt.Errorf("%w: Delegated Management and %v", ErrPrivileges, other)
		}
	}
	return nil
}

// CheckAssignment is Check, and for privileges that only one application on
// the card has, Card Reset and Final Application, whether the Issuer Security
// Domain still has them to give away (6.6.2).
func (p Privileges) CheckAssignment(issuer Privileges) error {
	if err := p.Check(); err != nil {
		return err
	}
	if taken := p & (CardReset | FinalApplication) &^ issuer; taken != 0 {
		return fmt.Errorf("%w: another application has %v", ErrPrivileges, taken)
	}
	return nil
}
