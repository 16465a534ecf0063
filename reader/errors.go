package reader

import (
	"errors"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Errors of a reading, to be told apart with errors.Is; [Code] names them for
// machines. Most are those of package applets under the same identity, so that
// a terminal needs to import this package only. A card that left is
// [iso7816.ErrCardRemoved].
var (
	// ErrNoService: none of the services is on the card.
	ErrNoService = errors.New("no service of ours on the card")
	// ErrExpired: the ID's expiry date has passed.
	ErrExpired = errors.New("ID has expired")
	// ErrOtherService: the instance holds an ID of another service.
	ErrOtherService = errors.New("ID of another service")
	// ErrSignature: the issuer's signature is forged, or another issuer's.
	ErrSignature = applets.ErrSignature
	// ErrNoSignature: the ID is not signed, and the service demands it.
	ErrNoSignature = applets.ErrNoSignature
	// ErrCardProof: the card did not prove to have the read key: a copy, or a
	// wrong key here.
	ErrCardProof = applets.ErrCardProof
	// ErrHostProof: the card refused the terminal's proof: a wrong key here.
	ErrHostProof = applets.ErrHostProof
	// ErrNoReadKey: card and key store have no version of the read key in common.
	ErrNoReadKey = applets.ErrNoReadKey
	// ErrWeakerType: the card's application is of a weaker type than the service's.
	ErrWeakerType = applets.ErrWeakerType
	// ErrNotPersonalized: the service's instance is there and holds nothing.
	ErrNotPersonalized = applets.ErrNotPersonalized
	// ErrPINNeeded: the card wants a PIN, and there is nobody to ask.
	ErrPINNeeded = applets.ErrPINRequired
	// ErrWrongPIN: errors.As with a [*applets.PINError] tells the tries left.
	ErrWrongPIN = applets.ErrWrongPIN
	// ErrPINBlocked: no tries are left; the issuing counter can help.
	ErrPINBlocked = applets.ErrPINBlocked
	// ErrMustChangePIN: the PIN is right, but the holder has to change it first.
	ErrMustChangePIN = applets.ErrMustChangePIN
)

// ServiceError is what went wrong with one service of a card that has it.
type ServiceError struct {
	Service string
	Err     error
}

// Error names the service.
func (e *ServiceError) Error() string { return e.Service + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e *ServiceError) Unwrap() error { return e.Err }

// codes names errors for machines, the more telling ones first.
var codes = []struct {
	err  error
	code string
}{
	{iso7816.ErrCardRemoved, "card-removed"},
	{ErrNoService, "no-service"},
	{ErrExpired, "expired"},
	{ErrOtherService, "other-service"},
	{ErrSignature, "signature"},
	{ErrNoSignature, "no-signature"},
	{ErrCardProof, "card-proof"},
	{ErrHostProof, "host-proof"},
	{ErrNoReadKey, "no-read-key"},
	{ErrWeakerType, "weaker-type"},
	{applets.ErrOtherType, "other-type"},
	{applets.ErrVersion, "version"},
	{ErrNotPersonalized, "not-personalized"},
	{ErrPINNeeded, "pin-needed"},
	{ErrWrongPIN, "wrong-pin"},
	{ErrPINBlocked, "pin-blocked"},
	{ErrMustChangePIN, "pin-change"},
	{applets.ErrMalformedRecord, "malformed"},
	{applets.ErrMalformedItems, "malformed"},
	{iso7816.ErrProtocol, "protocol"},
	{iso7816.ErrMalformedResponse, "protocol"},
	{keys.ErrRetired, "key-store"},
	{keys.ErrWrongKind, "key-store"},
	{keys.ErrNotFound, "key-store"},
	{keys.ErrDiversifier, "key-store"},
}

// Code names the reason of a reading's failure for machines, as docs/json.md
// lists them: "expired", "card-proof", "card-removed" and so on; "refused" for
// a status word that nothing else covers, "error" for anything else.
func Code(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	var status *iso7816.StatusError
	if errors.As(err, &status) {
		return "refused"
	}
	return "error"
}
