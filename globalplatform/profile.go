package globalplatform

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// ErrUnknownCardProfile reports a card profile of a name that nobody defined.
var ErrUnknownCardProfile = errors.New("unknown card profile")

// CardProfile is what a kind of card speaks, as far as the card itself can't
// be asked. A site chooses one by its name.
type CardProfile struct {
	Name           string
	Description    string
	SecurityDomain iso7816.AID // selected for card content management
	// Level of the Security Domain's session.
	Level scp.Level
	// Protocols forces the secure channel protocol, the first of them for the
	// host's challenge; nil asks the card (see [Connect]).
	Protocols []scp.Protocol
	// AllowDeprecated lets keys and PINs go over SCP02, for cards that have
	// nothing else.
	AllowDeprecated bool
	// ExtraData are data objects beyond 42, 45, 66, 67 and E0 that GET DATA
	// answers: TagProductionLifeCycle, TagExtendedCardResources.
	ExtraData []iso7816.Tag
	// StoreData says how personalisation of the base applications is marked.
	StoreData StoreOptions
	// LoadHash sends the SHA-256 of the load file data block in INSTALL [for load].
	LoadHash bool
	// BlockSize limits LOAD and STORE DATA, in bytes of data before
	// protection; 0 is what the session carries.
	BlockSize int
	// ReceiptRequired makes the absence of a receipt an error under
	// delegated management.
	ReceiptRequired bool
	// FailureLimit is how many authentications in a row may fail before the
	// next one has to be asked for: well below what blocks such a card. Cards
	// are known to block a key set for good after ten.
	FailureLimit int
}

// HasData reports whether GET DATA answers an extra data object.
func (p CardProfile) HasData(tag iso7816.Tag) bool {
	for _, t := range p.ExtraData {
		if t == tag {
			return true
		}
	}
	return false
}

// CardProfiles returns the card profiles of this package, the default first.
func CardProfiles() []CardProfile {
	return []CardProfile{
		{
			Name:           "emulated",
			Description:    "the card that this toolkit emulates",
			SecurityDomain: IssuerSecurityDomain,
			Level:          scp.Full,
			Protocols:      []scp.Protocol{scp.SCP03},
			ExtraData:      []iso7816.Tag{TagExtendedCardResources},
			StoreData:      StoreOptions{Format: FormatDGI, Encryption: EncryptionApplication},
			LoadHash:       true,
			FailureLimit:   3,
		},
		{
			Name:           "generic",
			Description:    "a GlobalPlatform card of which no more is known",
			SecurityDomain: IssuerSecurityDomain,
			// Every card has this level; R-MAC and R-ENCRYPTION are options.
			Level:        scp.CDecryption,
			StoreData:    StoreOptions{Format: FormatDGI, Encryption: EncryptionApplication},
			FailureLimit: 3,
		},
	}
}

// LookupCardProfile returns the card profile of a name, among those of this
// package. The error wraps [ErrUnknownCardProfile].
func LookupCardProfile(name string) (CardProfile, error) {
	var names []string
	for _, p := range CardProfiles() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return CardProfile{}, fmt.Errorf("%w: %q, known are %q", ErrUnknownCardProfile, name, names)
}
