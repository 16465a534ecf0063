package oncard

import "github.com/freearea/freearea/iso7816"

// Registry is what the card's registry and its other applications offer an
// application (GPCS chapters 6.5, 8 and 9.6): each [Card] has it. What the
// application's privileges don't allow, and what the life cycle state of the
// card or of an application rules out, is iso7816.ErrConditions and changes
// nothing. During [Module.Install] the application has no privileges yet.
//
// Changes are part of the open transaction if there is one.
type Registry interface {
	// CardState is the card's life cycle state (GPCS table 11-6).
	CardState() byte
	// LockCard takes the card from SECURED to CARD_LOCKED; with Card Lock.
	LockCard() error
	// TerminateCard takes the card to TERMINATED, for good; with Card Terminate.
	TerminateCard() error
	// SetHistoricalBytes changes the historical bytes of the ATR, 15 at most,
	// as the next reset shows it; with Card Reset.
	SetHistoricalBytes(b []byte) error
	// Entry returns the registry entry of an application: the own one (which
	// the zero AID names too), or any with Global Registry.
	Entry(aid iso7816.AID) (Entry, bool)
	// SetLocked locks an application or unlocks it: locks the own one, or any
	// with Global Lock. No other is locked that has Final Application.
	SetLocked(aid iso7816.AID, locked bool) error

	// RegisterService makes a service name the application's alone on the card
	// (GPCS 8.1.1): family and identifier. It needs Global Service, and the name
	// must be one that the registry has for the application, or be of a family
	// that it has; where it has none, any will do.
	RegisterService(name uint16) error
	// DeregisterService gives the name up.
	DeregisterService(name uint16) error
	// Service finds the application that offers a service (GPCS 8.1.2): the one
	// that registered the name, or where provider isn't zero that one, if the
	// registry has the name for it. An identifier of 00 asks for any service of
	// the family. CVM 11, the global PIN, is the card's own and has the Issuer
	// Security Domain for a provider: see GlobalPIN. Locked applications offer
	// nothing.
	Service(provider iso7816.AID, name uint16) (iso7816.AID, bool)
	// GlobalPIN is the card's shared CVM with the identifier 11.
	GlobalPIN() CVM
}

// Entry is what the registry says of an application.
type Entry struct {
	AID, SecurityDomain iso7816.AID
	LifeCycle           byte    // with the lock bit
	Privileges          [3]byte // GPCS 11.1.2
}

// Service names (GPCS 8.1.3, 8.2.2.1).
const (
	ServiceGlobalPIN uint16 = 0x8211
)

// CVM is a cardholder verification method that applications share (GPCS 8.2;
// Card Specification 2.1.1, A.2). Its state VALIDATED or INVALID_SUBMISSION
// ends with the card session. What a transaction takes back is a changed value
// or limit; a try that was counted stays counted.
//
// Update, SetTryLimit, Block and ResetAndUnblock need CVM Management. They and
// Reset report whether they did what they say.
type CVM interface {
	// Active reports whether there is a value and a try limit.
	Active() bool
	// Submitted reports INVALID_SUBMISSION or VALIDATED.
	Submitted() bool
	Verified() bool
	Blocked() bool
	// TriesRemaining is how often a wrong value may still be presented.
	TriesRemaining() byte
	// Verify compares a value, whatever the format it was set in (except that
	// CVMHex only compares with CVMHex).
	Verify(value []byte, format CVMFormat) bool
	// Reset takes VALIDATED and INVALID_SUBMISSION back to ACTIVE.
	Reset() bool
	// Update sets another value, 1 to 32 bytes that fit the format; the try
	// counter begins again.
	Update(value []byte, format CVMFormat) bool
	// SetTryLimit sets the limit, 1 to 127; the try counter begins again.
	SetTryLimit(limit byte) bool
	// Block blocks it, and ResetAndUnblock takes it back from every state to
	// ACTIVE; the try counter begins again.
	Block() bool
	ResetAndUnblock() bool
}

// CVMFormat says how the bytes of a CVM are to be read (GPCS 8.2.2.3).
type CVMFormat byte

// The formats, with the numbers of the API.
const (
	CVMASCII CVMFormat = 1 // 20 to 7E
	CVMBCD   CVMFormat = 2 // two digits in a byte, F after an odd number of them
	CVMHex   CVMFormat = 3 // bytes as they are
)
