package globalplatform

import (
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// StatusType is whose life cycle state SET STATUS changes (table 11-86).
type StatusType byte

// The status types.
const (
	StatusCard                  StatusType = 0x80 // the card's, which the Issuer Security Domain has
	StatusApplication           StatusType = 0x40 // an application's or a supplementary Security Domain's
	StatusDomainAndApplications StatusType = 0x60
)

// SetStatus is the SET STATUS command (11.10). The card refuses a transition
// to the present state: read it first.
type SetStatus struct {
	Type  StatusType
	AID   iso7816.AID // of the application; ignored by the card for StatusCard
	State byte        // for another's application only StateLocked counts: set or not
}

// Lock suspends an application, Unlock brings it back to the state before.
func Lock(aid iso7816.AID) SetStatus {
	return SetStatus{Type: StatusApplication, AID: aid, State: StateLocked}
}

// Unlock is the opposite of [Lock].
func Unlock(aid iso7816.AID) SetStatus { return SetStatus{Type: StatusApplication, AID: aid} }

// Command returns the command, which asks for no response data.
func (c SetStatus) Command() (iso7816.Command, error) {
	if c.AID.IsZero() && c.Type != StatusCard {
		return iso7816.Command{}, fmt.Errorf("%w: SET STATUS names no application", ErrCommand)
	}
	cmd, err := command(0xF0, byte(c.Type), c.State, c.AID.Bytes())
	cmd.Ne = 0
	return cmd, err
}

// Delete is DELETE [card content] (11.2.2.3.1).
type Delete struct {
	AID            iso7816.AID // of an instance or a load file
	Related        bool        // of a load file: its instances too
	TokenReference TokenReference
	Token          []byte // for delegated management
}

func (d Delete) fields() ([]byte, byte, error) {
	if d.AID.IsZero() {
		return nil, 0, fmt.Errorf("%w: DELETE names nothing", ErrCommand)
	}
	p2 := byte(0)
	if d.Related {
		p2 = 0x80
	}
	return d.TokenReference.append(iso7816.AppendTLV(nil, tagAID, d.AID.Bytes())), p2, nil
}

// SignedData returns what a delete token is computed over (C.4.6).
func (d Delete) SignedData() ([]byte, error) {
	data, p2, err := d.fields()
	if err != nil {
		return nil, err
	}
	return signedData(0, p2, data)
}

// Command returns the command.
func (d Delete) Command() (iso7816.Command, error) {
	data, p2, err := d.fields()
	if err != nil {
		return iso7816.Command{}, err
	}
	if len(d.Token) > iso7816.MaxTLVLength {
		return iso7816.Command{}, fmt.Errorf("%w: token of %d bytes", ErrCommand, len(d.Token))
	}
	if len(d.Token) > 0 {
		data = iso7816.AppendTLV(data, 0x9E, d.Token)
	}
	return chainable(0xE4, 0, p2, data)
}
