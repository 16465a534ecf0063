package emulator

import (
	"bytes"
	"slices"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// state is everything persistent of a card.
type state struct {
	profile         Profile
	diversification [10]byte
	restricted      restriction // what no Security Domain may do any more
	cvm             cvm
	historical      []byte // bytes of the ATR that an application set; nil for the profile's
	files           []*loadFile
	entries         []*entry  // in the order of the registry; the first is the Issuer Security Domain
	runtime         []*object // of the linker's runtime, by handle; nil once freed
}

// loadFile is an Executable Load File (GPCS 9.3.5).
type loadFile struct {
	aid            iso7816.AID
	securityDomain iso7816.AID // the one that it is associated with
	version        []byte      // major, minor; empty where it is not known
	modules        []iso7816.AID
	data           []byte // load file data block; empty for what is in immutable memory
	own            bool   // in immutable memory: nobody may change or delete it

	// What the linker made of it, which is not part of the image.
	linked  map[iso7816.AID]oncard.Module // of modules that can be executed
	refused error                         // the linker's, at power on
}

// entry is an application in the registry, Security Domains included.
type entry struct {
	aid            iso7816.AID
	file, module   iso7816.AID // zero for what the card brings itself
	securityDomain iso7816.AID // the one that it is associated with
	privileges     privileges
	implicit       []byte   // implicit selection parameters (GPCS 11.1.7)
	services       services // that it may offer (GPCS 8.1.3)
	registered     services // that it alone offers, as it has said itself
	lifeCycle      byte     // without the lock bit; the Issuer Security Domain's is the card's
	locked         bool
	own            bool // the card's own: nobody may change or delete it

	// Of applications: memory that the instance has taken.
	objects                           []*object // by handle; nil once freed
	transientReset, transientDeselect int       // bytes

	// Of Security Domains; nil for applications. It is replaced whole.
	domain *domain
}

// object is a piece of persistent memory.
type object struct{ data []byte }

// stateByte is the life cycle state as GET STATUS shows it.
func (e *entry) stateByte() byte {
	if e.locked {
		return e.lifeCycle | oncard.Locked
	}
	return e.lifeCycle
}

// selectable reports whether SELECT may choose the entry (GPCS 6.4.2.1.2).
func (e *entry) selectable() bool {
	if e.locked {
		return false
	}
	return e.own || e.lifeCycle >= oncard.Selectable
}

func (s *state) entry(aid iso7816.AID) *entry {
	for _, e := range s.entries {
		if e.aid == aid {
			return e
		}
	}
	return nil
}

func (s *state) file(aid iso7816.AID) *loadFile {
	for _, f := range s.files {
		if f.aid == aid {
			return f
		}
	}
	return nil
}

// taken reports whether an AID names an application or a load file already
// (GPCS 9.3.5, 9.3.6).
func (s *state) taken(aid iso7816.AID) bool { return s.entry(aid) != nil || s.file(aid) != nil }

// instances returns the applications installed from a load file.
func (s *state) instances(file iso7816.AID) []*entry {
	var out []*entry
	for _, e := range s.entries {
		if e.file == file && !file.IsZero() {
			out = append(out, e)
		}
	}
	return out
}

// domain returns the Security Domain with the AID, nil if there is none.
func (s *state) domain(aid iso7816.AID) *entry {
	if e := s.entry(aid); e != nil && e.privileges.securityDomain() {
		return e
	}
	return nil
}

// issuer is the Issuer Security Domain.
func (s *state) issuer() *entry { return s.entries[0] }

// below reports whether something associated with the Security Domain `of` is
// directly or indirectly associated with sd.
func (s *state) below(of iso7816.AID, sd *entry) bool {
	for range s.entries { // a chain is no longer than the registry
		if of == sd.aid {
			return true
		}
		d := s.domain(of)
		if d == nil || d.securityDomain == of {
			return false
		}
		of = d.securityDomain
	}
	return false
}

// module returns what executes an application, nil where nothing can.
func (s *state) module(e *entry) oncard.Module {
	if f := s.file(e.file); f != nil {
		return f.linked[e.module]
	}
	return nil
}

// find returns the selectable entries that a full or partial AID matches, in
// the order of the registry, beginning after the entry `after` (nil: with the
// first); matched also counts those that can't be selected now.
func (s *state) find(aid []byte, after *entry) (candidates []*entry, matched int) {
	entries := s.entries
	if after != nil {
		entries = entries[slices.Index(entries, after)+1:]
	}
	for _, e := range entries {
		if !bytes.HasPrefix(e.aid.Bytes(), aid) {
			continue
		}
		matched++
		if e.selectable() {
			candidates = append(candidates, e)
		}
	}
	return candidates, matched
}
