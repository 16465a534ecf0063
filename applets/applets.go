package applets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Limits of what an instance holds.
const (
	MaxRecord       = 224  // bytes of EF.ID
	MaxItemsFile    = 1024 // bytes of EF.ITEMS
	MaxItems        = 16   // items in EF.ITEMS
	MaxKeySets      = 4    // key sets for reading
	MaxBlock        = 239  // bytes of one STORE DATA block: what C-MAC and C-DECRYPTION (S8) leave of 255
	DefaultPINLimit = 3    // wrong PINs in a row until the PIN is blocked
	MaxPINLimit     = 15
)

// Types, as tag 80 of the FCI says them, from the weakest to the strongest.
const (
	TypeCommonAP byte = 0x01
	TypeA        byte = 0x0A
	TypeD        byte = 0x0D
)

// ProtocolVersion is the second byte of tag 80: the version of
// docs/card-protocol.md that an instance speaks.
const ProtocolVersion byte = 0x01

// Errors of reading. Each says one thing that a terminal tells its user
// differently; a refusal by status word that none of them covers stays an
// [*iso7816.StatusError].
var (
	// ErrWrongApplication: what answered the SELECT is not the application
	// that was asked for.
	ErrWrongApplication = errors.New("another application answered")
	// ErrNotPersonalized: the instance is there but holds nothing yet, or
	// nothing any more.
	ErrNotPersonalized = errors.New("application is not personalised")
	// ErrWeakerType: the instance is of a weaker type than asked for.
	ErrWeakerType = errors.New("application is of a weaker type")
	// ErrOtherType: the instance is of another type than asked for, and not
	// of a weaker one.
	ErrOtherType = errors.New("application is of another type")
	// ErrVersion: the instance speaks a version of the protocol that this
	// package does not know.
	ErrVersion = errors.New("unknown version of the application")
	// ErrNoReadKey: no read key of the terminal's is on the card.
	ErrNoReadKey = errors.New("no common read key")
	// ErrAuthentication is what ErrCardProof and ErrHostProof have in common:
	// a wrong key on one side, or a card that is a copy.
	ErrAuthentication = errors.New("authentication failed")
	// ErrCardProof: the card did not prove that it has the key. Nothing of
	// what it said was used.
	ErrCardProof = fmt.Errorf("card's proof is wrong: %w", ErrAuthentication)
	// ErrHostProof: the card refused the terminal's proof.
	ErrHostProof = fmt.Errorf("card refuses the terminal's proof: %w", ErrAuthentication)
	// ErrPINRequired: the application has a PIN and the request gave none.
	ErrPINRequired = errors.New("PIN required")
	// ErrWrongPIN is matched by a [*PINError].
	ErrWrongPIN = errors.New("wrong PIN")
	// ErrPINBlocked: no tries are left; only the issuing counter can help.
	ErrPINBlocked = errors.New("PIN is blocked")
	// ErrMustChangePIN: the PIN is right but has to be changed before it
	// opens anything.
	ErrMustChangePIN = errors.New("PIN must be changed first")
)

// PINError is a wrong PIN; errors.Is(err, ErrWrongPIN) finds it.
type PINError struct {
	TriesLeft int // 0: the PIN is blocked now
}

func (e *PINError) Error() string {
	switch e.TriesLeft {
	case 0:
		return "wrong PIN, no tries left: it is blocked"
	case 1:
		return "wrong PIN, 1 try left"
	}
	return fmt.Sprintf("wrong PIN, %d tries left", e.TriesLeft)
}

// Unwrap returns [ErrWrongPIN].
func (e *PINError) Unwrap() error { return ErrWrongPIN }

// Traits says what a profile demands and allows.
type Traits struct {
	MutualAuthentication bool // needs read keys
	Encryption           bool // what is read is encrypted over the air
	PIN                  bool // may have a PIN
	Items                bool // may hold items beside the ID
}

// InstallSpec is what is fixed when an instance is installed.
type InstallSpec struct {
	// DiversificationData is drawn at random by whoever installs (10 bytes);
	// never anything that names the card or its holder. The instance shows it
	// to every terminal and never changes it. Not for common-ap.
	DiversificationData [10]byte
	// KeySets is the number of read key sets that there is room for, 1 to
	// MaxKeySets. 0 for common-ap.
	KeySets int
	// ItemsCapacity is the room for EF.ITEMS in bytes, 0 to MaxItemsFile.
	ItemsCapacity int
	// PIN says whether the instance has a PIN.
	PIN bool
}

// PINSetting is a PIN to be set by the issuer.
type PINSetting struct {
	Reference  PIN
	Limit      byte // wrong PINs in a row, 1 to MaxPINLimit; 0 is DefaultPINLimit
	MustChange bool // opens nothing until the holder has changed it
}

// Content is everything that personalisation writes.
type Content struct {
	Record Record
	Items  []Item
	// ReadKeys are the key sets for reading, newest (highest version) first;
	// ENC and MAC of AES-128 or AES-256, no DEK.
	ReadKeys []keys.Set
	// KeepKeys keeps the read keys that the instance has; ReadKeys is empty.
	KeepKeys bool
	// PIN is set where it is not nil. nil leaves the PIN and its tries alone.
	PIN *PINSetting
	// KeepPIN tells that the instance has a PIN, which stays; PIN is nil then.
	// The base applications need not be told.
	KeepPIN bool
	// Tag comes back in an [Observation]: how a later run knows what the card
	// holds. It is the caller's to compute.
	Tag [16]byte
}

// PINState is what an instance says of its PIN to its Security Domain.
type PINState struct {
	TriesLeft  int
	Limit      int
	MustChange bool
}

// Observation is what an instance says of itself to its Security Domain.
// There is no secret in it, nor the ID.
type Observation struct {
	Type, Version byte
	State         byte        // life cycle state without the lock bit: 07 or 0F (GPCS table 11-4)
	Slot          byte        // 1 or 2: which slot is served; 0: none
	Spec          InstallSpec // as installed
	SpecUnknown   bool        // the instance does not tell Spec, and whatever it is will do
	KeyVersions   []byte      // newest first; nil unless personalised
	Tag           [16]byte    // zero unless personalised
	IssueNumber   uint16      // zero unless personalised
	PIN           *PINState   // nil where there is no PIN, or none set yet
}

// Personalized reports whether the instance holds something.
func (o Observation) Personalized() bool { return o.Slot != 0 }

// ApplicationInfo is what an instance says of itself to anybody who selects
// it. Nothing in it is proven.
type ApplicationInfo struct {
	AID                 iso7816.AID
	Type, Version       byte
	DiversificationData [10]byte // zero for common-ap
	KeyVersions         []byte   // newest first; nil for common-ap and before personalisation
	Challenge           [16]byte // the card's, for express reading; zero where KeyVersions is nil
	Record              []byte   // EF.ID of a common-ap; nil before personalisation
}

// Authentication is how card and terminal made sure of each other.
type Authentication int

const (
	// None: anybody can read this ID and anybody can copy it.
	None Authentication = iota
	// Mutual: both proved to have the read key.
	Mutual
	// MutualEncrypted: besides, what was read was encrypted over the air.
	MutualEncrypted
)

func (a Authentication) String() string {
	switch a {
	case None:
		return "none"
	case Mutual:
		return "mutual"
	case MutualEncrypted:
		return "mutual-encrypted"
	}
	return fmt.Sprintf("Authentication(%d)", int(a))
}

// ReadRequest says what a tap asks for.
type ReadRequest struct {
	AID iso7816.AID
	// Service is the service whose instance it is. An application that does
	// not hold the service's identifier is taken to be this one's.
	Service string
	// Keys returns the read keys for this instance: the newest version that
	// is among info.KeyVersions and held by the terminal (see [StoreKeys]),
	// or an error that wraps [ErrNoReadKey]. Read erases what it returns. Not
	// asked for a common-ap.
	Keys func(ctx context.Context, info ApplicationInfo) (keys.Set, error)
	// PIN is asked once, only after the card has proved itself and only if the
	// application has a PIN. Where a person has to be asked, ask before the
	// tap: a card should not be kept waiting.
	PIN func(ctx context.Context) (PIN, error)
	// WantItems also reads EF.ITEMS, with further commands.
	WantItems bool
	// Level is the security level of the session; 0 is the type's own: 13 for
	// type-a, 33 for type-d.
	Level scp.Level
	// Rand draws the host's challenge; nil is crypto/rand.
	Rand io.Reader
	// Standard reads through plain SCP03 in place of express reading.
	Standard bool
}

// Reading is what a tap brought.
type Reading struct {
	Info           ApplicationInfo
	RawRecord      []byte // EF.ID as read
	Record         Record
	Items          []Item // nil unless asked for
	Authentication Authentication
	Level          scp.Level // 0 for common-ap
	KeyVersion     byte      // 0 for common-ap
	PINVerified    bool
}

// Profile is a kind of application: how it is installed, written and read.
// The base ones are returned by [Base]; anybody can write another. A Profile
// holds no state and may be used concurrently.
type Profile interface {
	// Name is the profile's name in manifests: "type-d".
	Name() string
	// Traits says what the profile demands and allows.
	Traits() Traits
	// InstallParameters returns the application specific parameters (value of
	// tag C9, GPCS 11.5.2.3.7) of INSTALL [for install].
	InstallParameters(InstallSpec) ([]byte, error)
	// PersistentMemory is what an instance takes at most of the emulated card's
	// persistent memory, in bytes. Other cards count otherwise, not by much: it
	// is for the check, before anything is sent, whether a card has room.
	PersistentMemory(InstallSpec) int
	// Personalization returns the data fields of the STORE DATA commands that
	// write the content, in order; each at most MaxBlock bytes, in DGI format
	// (GPCS 11.11), numbered from 00, the last one marked as the last.
	// seal encrypts under the Security Domain's data encryption key. See
	// [StoreFormatter] for other formats.
	Personalization(c Content, seal func([]byte) ([]byte, error)) ([][]byte, error)
	// Wipe returns the data fields of the STORE DATA commands that erase all
	// that was written; none where deleting the instance is what erases it.
	Wipe() [][]byte
	// ObservationRequest is the data field of the STORE DATA command of case 4
	// (P1 b1 = 1) that is answered by what ParseObservation reads.
	ObservationRequest() []byte
	// ParseObservation reads the answer to ObservationRequest.
	ParseObservation(response []byte) (Observation, error)
	// Read selects the instance and reads it: one tap.
	Read(ctx context.Context, card iso7816.Card, req ReadRequest) (*Reading, error)
}

// PINChanger is offered by profiles whose applications can have a PIN.
type PINChanger interface {
	// ChangePIN selects the instance, authenticates as Read does and changes
	// the PIN. Errors are those of Read. A wrong old PIN costs a try.
	ChangePIN(ctx context.Context, card iso7816.Card, req ReadRequest, old, replacement PIN) error
}

// Observer is offered by profiles whose instances are asked what they hold by
// commands of their own, with the instance selected, in place of
// ObservationRequest and ParseObservation. Whoever calls Observe has lost the
// Security Domain's channel afterwards.
type Observer interface {
	// Observe selects the instance and asks it. An instance that holds nothing
	// is no error.
	Observe(ctx context.Context, card iso7816.Card, instance iso7816.AID) (Observation, error)
}

// StoreFormatter is offered by profiles whose blocks are not of the format
// that is usual on the card.
type StoreFormatter interface {
	// StoreFormat says how STORE DATA is marked (GPCS table 11-89).
	StoreFormat() (globalplatform.Format, globalplatform.Encryption)
}

// Digester is offered by profiles that are data and can change under their
// name. What a card holds depends on the digest as it does on the content.
type Digester interface {
	Digest() [32]byte
}

// Profiles is a set of profiles by name.
type Profiles []Profile

// Lookup returns the profile of that name.
func (p Profiles) Lookup(name string) (Profile, bool) {
	for _, x := range p {
		if x.Name() == name {
			return x, true
		}
	}
	return nil, false
}

// Base returns the three base applications: common-ap, type-a, type-d.
func Base() Profiles { return Profiles{commonAP, typeA, typeD} }

// Expired reports whether the calendar day of now, in now's own location, is
// later than the day of expiry. The day of expiry itself still counts.
func (r Record) Expired(now time.Time) bool {
	if r.Expiry.IsZero() {
		return false
	}
	y, m, d := now.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).After(r.Expiry)
}
