package globalplatform

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// Scope is what GET STATUS asks about (table 11-33).
type Scope byte

// The scopes.
const (
	ScopeIssuerSecurityDomain Scope = 0x80
	ScopeApplications         Scope = 0x40 // applications and supplementary Security Domains
	ScopeLoadFiles            Scope = 0x20
	ScopeLoadFilesAndModules  Scope = 0x10
)

func (s Scope) String() string {
	switch s {
	case ScopeIssuerSecurityDomain:
		return "Issuer Security Domain"
	case ScopeApplications:
		return "applications"
	case ScopeLoadFiles:
		return "load files"
	case ScopeLoadFilesAndModules:
		return "load files and modules"
	}
	return fmt.Sprintf("scope %02X", byte(s))
}

// Life cycle states (11.1.1). An application's own states have more bits; a
// locked one has StateLocked on top of others.
const (
	StateLoaded       byte = 0x01 // load file
	StateInstalled    byte = 0x03 // application, Security Domain
	StateSelectable   byte = 0x07
	StatePersonalized byte = 0x0F // Security Domain
	StateLocked       byte = 0x80

	CardOPReady     byte = 0x01
	CardInitialized byte = 0x07
	CardSecured     byte = 0x0F
	CardLocked      byte = 0x7F
	CardTerminated  byte = 0xFF
)

// Tags of registry data (tables 11-35 to 11-37).
const (
	tagRegistryEntry     iso7816.Tag = 0xE3
	tagAID               iso7816.Tag = 0x4F
	tagLifeCycleState    iso7816.Tag = 0x9F70
	tagPrivileges        iso7816.Tag = 0xC5
	tagImplicitSelection iso7816.Tag = 0xCF
	tagLoadFileAID       iso7816.Tag = 0xC4
	tagSecurityDomainAID iso7816.Tag = 0xCC
	tagVersion           iso7816.Tag = 0xCE
	tagModule            iso7816.Tag = 0x84
	tagTagList           iso7816.Tag = 0x5C
)

// RegistryEntry is one application, Security Domain or load file of the
// card's registry (tables 11-36, 11-37). Which fields are filled depends on
// the scope and on the card: only AID and State are certain.
type RegistryEntry struct {
	AID               iso7816.AID
	State             byte
	Privileges        Privileges
	ImplicitSelection []byte // one byte each (11.1.7)
	LoadFile          iso7816.AID
	SecurityDomain    iso7816.AID   // that the entry is associated with
	Version           []byte        // of a load file: major, minor on Java Card
	Modules           []iso7816.AID // of a load file
	Other             []iso7816.TLV // objects that this package doesn't know
}

// Locked reports whether an application or Security Domain is locked.
func (e RegistryEntry) Locked() bool { return e.State&StateLocked != 0 }

// Encode returns the registry data object (tag E3). Fields that are zero are
// left out; privileges are written where the entry has no version and no
// modules, as tables 11-36 and 11-37 have it.
func (e RegistryEntry) Encode() []byte {
	v := iso7816.AppendTLV(nil, tagAID, e.AID.Bytes())
	v = iso7816.AppendTLV(v, tagLifeCycleState, []byte{e.State})
	if e.Version == nil && e.Modules == nil {
		v = iso7816.AppendTLV(v, tagPrivileges, e.Privileges.Bytes())
	}
	for _, b := range e.ImplicitSelection {
		v = iso7816.AppendTLV(v, tagImplicitSelection, []byte{b})
	}
	if !e.LoadFile.IsZero() {
		v = iso7816.AppendTLV(v, tagLoadFileAID, e.LoadFile.Bytes())
	}
	if e.Version != nil {
		v = iso7816.AppendTLV(v, tagVersion, e.Version)
	}
	for _, m := range e.Modules {
		v = iso7816.AppendTLV(v, tagModule, m.Bytes())
	}
	if !e.SecurityDomain.IsZero() {
		v = iso7816.AppendTLV(v, tagSecurityDomainAID, e.SecurityDomain.Bytes())
	}
	v = append(v, encodeAll(e.Other)...)
	return iso7816.AppendTLV(nil, tagRegistryEntry, v)
}

// ParseRegistry reads the data of GET STATUS: registry data objects until b
// is used up. Unknown objects inside one are kept; a known one of a wrong
// length, or twice, is an error that wraps [ErrMalformed].
func ParseRegistry(b []byte) ([]RegistryEntry, error) {
	var out []RegistryEntry
	for len(b) > 0 {
		t, rest, err := iso7816.ParseTLV(b)
		if err != nil {
			return nil, malformed("registry entry %d: %w", len(out)+1, err)
		}
		if t.Tag != tagRegistryEntry {
			return nil, malformed("registry entry %d: tag %v instead of E3", len(out)+1, t.Tag)
		}
		e, err := parseRegistryEntry(t)
		if err != nil {
			return nil, malformed("registry entry %d: %w", len(out)+1, err)
		}
		out = append(out, e)
		b = rest
	}
	return out, nil
}

func parseRegistryEntry(t iso7816.TLV) (RegistryEntry, error) {
	objects, err := t.Children()
	if err != nil {
		return RegistryEntry{}, err
	}
	var e RegistryEntry
	seen := map[iso7816.Tag]bool{}
	for _, o := range objects {
		switch o.Tag {
		case tagModule, tagImplicitSelection:
		default:
			if seen[o.Tag] {
				return RegistryEntry{}, fmt.Errorf("tag %v twice", o.Tag)
			}
		}
		seen[o.Tag] = true
		switch o.Tag {
		case tagAID:
			e.AID, err = iso7816.NewAID(o.Value)
		case tagLifeCycleState:
			// The specification has 1 byte; cards are known that add a second one.
			if len(o.Value) != 1 && len(o.Value) != 2 {
				return RegistryEntry{}, fmt.Errorf("life cycle state of %d bytes", len(o.Value))
			}
			e.State = o.Value[0]
		case tagPrivileges:
			e.Privileges, err = ParsePrivileges(o.Value)
		case tagImplicitSelection:
			if len(o.Value) != 1 {
				return RegistryEntry{}, fmt.Errorf("implicit selection parameter of %d bytes", len(o.Value))
			}
			e.ImplicitSelection = append(e.ImplicitSelection, o.Value[0])
		case tagLoadFileAID:
			e.LoadFile, err = optionalAID(o.Value)
		case tagSecurityDomainAID:
			e.SecurityDomain, err = optionalAID(o.Value)
		case tagVersion:
			e.Version = bytes.Clone(o.Value)
		case tagModule:
			var m iso7816.AID
			if m, err = iso7816.NewAID(o.Value); err == nil {
				e.Modules = append(e.Modules, m)
			}
		default:
			e.Other = append(e.Other, iso7816.TLV{Tag: o.Tag, Value: bytes.Clone(o.Value)})
		}
		if err != nil {
			return RegistryEntry{}, fmt.Errorf("tag %v: %w", o.Tag, err)
		}
	}
	if e.AID.IsZero() || !seen[tagLifeCycleState] {
		return RegistryEntry{}, errors.New("no AID or no life cycle state")
	}
	return e, nil
}

func optionalAID(b []byte) (iso7816.AID, error) {
	if len(b) == 0 {
		return iso7816.AID{}, nil
	}
	return iso7816.NewAID(b)
}

// StatusRequest is the GET STATUS command (11.4).
type StatusRequest struct {
	Scope Scope
	AID   iso7816.AID   // full or partial; zero asks for all
	Tags  []iso7816.Tag // of the objects wanted; none leaves it to the card
	Next  bool          // the next occurrences, after 6310
}

// Command returns the command, asking for the TLV structure (P2 bit 2).
func (r StatusRequest) Command() (iso7816.Command, error) {
	data := iso7816.AppendTLV(nil, tagAID, r.AID.Bytes())
	if len(r.Tags) > 0 {
		var list []byte
		for _, t := range r.Tags {
			if t > 0xFFFF {
				list = append(list, byte(t>>16))
			}
			if t > 0xFF {
				list = append(list, byte(t>>8))
			}
			list = append(list, byte(t))
		}
		data = iso7816.AppendTLV(data, tagTagList, list)
	}
	p2 := byte(0x02)
	if r.Next {
		p2 |= 0x01
	}
	return command(0xF2, byte(r.Scope), p2, data)
}

// StatusTags returns the tag list that asks for all that [RegistryEntry]
// holds in a scope.
func StatusTags(s Scope) []iso7816.Tag {
	switch s {
	case ScopeLoadFiles:
		return []iso7816.Tag{tagAID, tagLifeCycleState, tagVersion, tagSecurityDomainAID}
	case ScopeLoadFilesAndModules:
		return []iso7816.Tag{tagAID, tagLifeCycleState, tagVersion, tagModule, tagSecurityDomainAID}
	}
	return []iso7816.Tag{tagAID, tagLifeCycleState, tagPrivileges, tagLoadFileAID, tagSecurityDomainAID}
}

// Bounds on what one GET STATUS may answer in all.
const (
	maxStatusParts = 256
	maxStatusBytes = 64 << 10
)

// GetStatus lists the registry entries of a scope, all of them where the AID
// is zero, or those whose AIDs begin with it. An empty list is no error. A
// Security Domain sees only its own hierarchy: what is not listed may still
// be there.
//
// The card is asked for every object by a tag list; where it refuses that
// (6A80, 6A86, 6A88), it is asked again without one. Answers in several parts
// (6310) are put together before they are read, because cards split entries.
func GetStatus(ctx context.Context, s iso7816.Sender, scope Scope, aid iso7816.AID) ([]RegistryEntry, error) {
	entries, err := getStatus(ctx, s, StatusRequest{Scope: scope, AID: aid, Tags: StatusTags(scope)})
	if errors.Is(err, iso7816.ErrWrongData) || errors.Is(err, iso7816.ErrIncorrectP1P2) || errors.Is(err, iso7816.ErrDataNotFound) {
		entries, err = getStatus(ctx, s, StatusRequest{Scope: scope, AID: aid})
	}
	if errors.Is(err, iso7816.ErrDataNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("status of %v: %w", scope, err)
	}
	return entries, nil
}

func getStatus(ctx context.Context, s iso7816.Sender, r StatusRequest) ([]RegistryEntry, error) {
	var data []byte
	for range maxStatusParts {
		cmd, err := r.Command()
		if err != nil {
			return nil, err
		}
		answer, err := s.Send(ctx, cmd)
		if err != nil {
			return nil, err
		}
		if r.Next && answer.SW == iso7816.ErrDataNotFound {
			return ParseRegistry(data) // nothing was left after all
		}
		if answer.SW != iso7816.OK && answer.SW != iso7816.SWMoreData {
			return nil, answer.Err(cmd)
		}
		if data = append(data, answer.Data...); len(data) > maxStatusBytes {
			return nil, fmt.Errorf("%w: more than %d bytes of registry", iso7816.ErrProtocol, maxStatusBytes)
		}
		if answer.SW == iso7816.OK {
			return ParseRegistry(data)
		}
		r.Next = true
	}
	return nil, fmt.Errorf("%w: still more data after %d commands", iso7816.ErrProtocol, maxStatusParts)
}
