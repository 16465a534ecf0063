package reader

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
)

// Tap is what a card said, and how far it can be believed.
type Tap struct {
	TapID    string        // random, 32 hexadecimal digits: this tap and no other
	Slot     string        // where; "" when the card was given by itself
	At       time.Time     // when the ID had been read
	Duration time.Duration // from the first command until then, waiting for a PIN left out

	Service     string // id of the service
	Profile     string // "common-ap", "type-a", "type-d", …
	Instance    iso7816.AID
	ID          string
	IssueNumber uint16
	Expiry      time.Time // date, midnight UTC; zero without one
	Items       []applets.Item

	Authentication applets.Authentication // none, mutual, mutual and encrypted
	Signature      Signature
	KeyVersion     byte // of the read key, 0 without authentication
	PIN            bool // the card verified a PIN

	Commands int // command APDUs sent, those for services that the card lacks included
	Bytes    int // of commands and responses
}

// Signature says what is known of the issuer's signature over the ID.
type Signature int

const (
	// Unsigned: the card holds no signature.
	Unsigned Signature = iota
	// Unchecked: the card holds one, and the reader no key to check it.
	Unchecked
	// Verified: the issuer signed this ID for this instance.
	Verified
)

func (s Signature) String() string {
	switch s {
	case Unsigned:
		return "none"
	case Unchecked:
		return "unchecked"
	case Verified:
		return "verified"
	}
	return fmt.Sprintf("Signature(%d)", int(s))
}

// TapError is a card that could not be read, or an ID that was refused.
type TapError struct {
	Slot string
	At   time.Time
	Err  error
}

// Error names the slot.
func (e *TapError) Error() string { return e.Slot + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e *TapError) Unwrap() error { return e.Err }

// jsonVersion is the "v" of what docs/json.md describes.
const jsonVersion = 1

const jsonTime = "2006-01-02T15:04:05.000Z"

type jsonItem struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// MarshalJSON writes the tap as docs/json.md describes it.
func (t Tap) MarshalJSON() ([]byte, error) {
	var expiry *string
	if !t.Expiry.IsZero() {
		s := t.Expiry.Format(time.DateOnly)
		expiry = &s
	}
	items := make([]jsonItem, len(t.Items))
	for i, it := range t.Items {
		items[i] = jsonItem(it)
	}
	return json.Marshal(struct {
		V              int         `json:"v"`
		Type           string      `json:"type"`
		Tap            string      `json:"tap"`
		At             string      `json:"at"`
		Slot           string      `json:"slot"`
		Service        string      `json:"service"`
		Profile        string      `json:"profile"`
		Instance       iso7816.AID `json:"instance"`
		ID             string      `json:"id"`
		IssueNumber    uint16      `json:"issue_number"`
		Expiry         *string     `json:"expiry"`
		Items          []jsonItem  `json:"items"`
		Authentication string      `json:"authentication"`
		Signature      string      `json:"signature"`
		KeyVersion     byte        `json:"key_version"`
		PIN            bool        `json:"pin"`
		Commands       int         `json:"commands"`
		Bytes          int         `json:"bytes"`
		Microseconds   int64       `json:"duration_us"`
	}{
		jsonVersion, "tap", t.TapID, t.At.UTC().Format(jsonTime), t.Slot, t.Service, t.Profile, t.Instance,
		t.ID, t.IssueNumber, expiry, items, t.Authentication.String(), t.Signature.String(), t.KeyVersion,
		t.PIN, t.Commands, t.Bytes, t.Duration.Microseconds(),
	})
}

// MarshalJSON writes the error as docs/json.md describes it.
func (e *TapError) MarshalJSON() ([]byte, error) {
	out := struct {
		V         int     `json:"v"`
		Type      string  `json:"type"`
		At        string  `json:"at"`
		Slot      string  `json:"slot"`
		Service   *string `json:"service"`
		Code      string  `json:"code"`
		Message   string  `json:"message"`
		TriesLeft *int    `json:"tries_left"`
		Status    *string `json:"status"`
	}{V: jsonVersion, Type: "error", At: e.At.UTC().Format(jsonTime), Slot: e.Slot, Code: Code(e.Err), Message: e.Err.Error()}
	var service *ServiceError
	if errors.As(e.Err, &service) {
		out.Service = &service.Service
	}
	var pin *applets.PINError
	if errors.As(e.Err, &pin) {
		out.TriesLeft = &pin.TriesLeft
	}
	var status *iso7816.StatusError
	if errors.As(e.Err, &status) {
		s := status.SW.String()
		out.Status = &s
	}
	return json.Marshal(out)
}
