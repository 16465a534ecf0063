package emulator

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Profile says what kind of card is emulated. Sizes are in bytes.
type Profile struct {
	Name        string
	ATR         []byte // 2 to 33 bytes (ISO/IEC 7816-3)
	Contactless bool
	// ExtendedLength says whether extended-length commands are accepted;
	// otherwise they get 6700.
	ExtendedLength bool
	// LogicalChannels is how many logical channels can be open at a time, the
	// basic one included: 1 to 20.
	LogicalChannels int
	// CommitCapacity bounds what one transaction of an application can hold:
	// the bytes written plus 4 for each write.
	CommitCapacity int
	// PersistentMemory is what load files and instances may use together.
	PersistentMemory int
	// TransientReset is the memory cleared on reset, shared by all instances.
	TransientReset int
	// TransientDeselect is the memory cleared on deselect, which each instance
	// may use whole.
	TransientDeselect int
}

// ErrProfile reports a profile that doesn't exist or that no card can have.
var ErrProfile = errors.New("no such card profile")

// Sizes of the profiles below. The physical card's are not public: these are
// what cards of its kind have.
const (
	defaultLogicalChannels   = 4
	defaultCommitCapacity    = 512
	defaultPersistentMemory  = 64 << 10
	defaultTransientReset    = 2 << 10
	defaultTransientDeselect = 1 << 10
)

// Profiles returns the profiles that come with this package, in the order in
// which they are shown to people.
func Profiles() []Profile {
	base := Profile{
		LogicalChannels:   defaultLogicalChannels,
		CommitCapacity:    defaultCommitCapacity,
		PersistentMemory:  defaultPersistentMemory,
		TransientReset:    defaultTransientReset,
		TransientDeselect: defaultTransientDeselect,
	}
	contactless, contact := base, base
	contactless.Name, contactless.Contactless = "contactless", true
	contactless.ATR = mustHex("3B8880010000" + "05E0B381A1" + "007F")
	contact.Name, contact.ExtendedLength = "contact", true
	contact.ATR = mustHex("3BDA13FF8131FB468012392F31C173C601C03B")
	return []Profile{contactless, contact}
}

// LookupProfile returns the profile with the name; the error wraps
// [ErrProfile].
func LookupProfile(name string) (Profile, error) {
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("%w: %q; there are %q and %q", ErrProfile, name, "contactless", "contact")
}

// Protocol is the transmission protocol of a card with contacts: the one that
// the ATR offers first (ISO/IEC 7816-3, 8.2.3), 0 for T=0. Cards without
// contacts carry whole commands and responses, as with T=1.
func (p Profile) Protocol() byte {
	switch {
	case p.Contactless:
		return 1
	case len(p.ATR) < 2 || p.ATR[1]&0x80 == 0:
		return 0
	}
	at := 2
	for bit := byte(0x10); bit < 0x80; bit <<= 1 { // TA1, TB1, TC1
		if p.ATR[1]&bit != 0 {
			at++
		}
	}
	if at >= len(p.ATR) {
		return 0
	}
	return p.ATR[at] & 0x0F
}

// maxMemory bounds every size of a profile, in bytes.
const maxMemory = 16 << 20

func (p Profile) check() error {
	if len(p.ATR) < 2 || len(p.ATR) > 33 {
		return fmt.Errorf("%w: %q has an ATR of %d bytes, 2 to 33 allowed", ErrProfile, p.Name, len(p.ATR))
	}
	if len(p.Name) > 255 {
		return fmt.Errorf("%w: name of %d bytes, 255 at most", ErrProfile, len(p.Name))
	}
	if p.LogicalChannels < 1 || p.LogicalChannels > maxChannels {
		return fmt.Errorf("%w: %q has %d logical channels, 1 to %d allowed", ErrProfile, p.Name, p.LogicalChannels, maxChannels)
	}
	for _, size := range []int{p.CommitCapacity, p.PersistentMemory, p.TransientReset, p.TransientDeselect} {
		if size < 0 || size > maxMemory {
			return fmt.Errorf("%w: %q has a memory of %d bytes, 0 to %d allowed", ErrProfile, p.Name, size, maxMemory)
		}
	}
	return nil
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
