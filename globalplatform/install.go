package globalplatform

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// Bits of P1 of INSTALL (table 11-41).
const (
	installForLoad            = 0x02
	installForInstall         = 0x04
	installForMakeSelectable  = 0x08
	installForExtradition     = 0x10
	installForPersonalization = 0x20
	installForRegistryUpdate  = 0x40

	installCombined = installForLoad | installForInstall | installForMakeSelectable
)

// TokenReference is the control reference template that stands beside a token
// (tag B6, tables 11-48 to 11-51). Empty fields are left out; without any the
// template is. A token without a Number, and without a card's identity, could
// be used again and on other cards.
type TokenReference struct {
	Identification []byte // tag 42, of the Security Domain that verifies the token
	Image          []byte // tag 45, likewise
	Provider       []byte // tag 5F20, application provider identifier
	Number         []byte // tag 93, token identifier or counter
}

func (t TokenReference) append(dst []byte) []byte {
	var v []byte
	for _, o := range []iso7816.TLV{{Tag: 0x42, Value: t.Identification}, {Tag: 0x45, Value: t.Image}, {Tag: 0x5F20, Value: t.Provider}, {Tag: 0x93, Value: t.Number}} {
		if len(o.Value) > 0 {
			v = iso7816.AppendTLV(v, o.Tag, o.Value)
		}
	}
	if len(v) == 0 {
		return dst
	}
	return iso7816.AppendTLV(dst, 0xB6, v)
}

// appendMemory appends an amount of memory in bytes: 2 bytes up to 32,767, 4
// above (9.7). 0 leaves it out.
func appendMemory(dst []byte, tag iso7816.Tag, n uint32) []byte {
	switch {
	case n == 0:
		return dst
	case n <= 32767:
		return iso7816.AppendTLV(dst, tag, []byte{byte(n >> 8), byte(n)})
	}
	return iso7816.AppendTLV(dst, tag, binary.BigEndian.AppendUint32(nil, n))
}

func appendSystem(dst, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return iso7816.AppendTLV(dst, 0xEF, v)
}

// LoadParameters are the parameters of INSTALL [for load] (table 11-48).
// Memory is in bytes; 0 says nothing.
type LoadParameters struct {
	CodeMemory     uint32 // C6: non-volatile, for code
	VolatileMemory uint32 // C7
	DataMemory     uint32 // C8: non-volatile, for data
	TokenReference TokenReference
}

func (p LoadParameters) encode() []byte {
	var system []byte
	system = appendMemory(system, 0xC6, p.CodeMemory)
	system = appendMemory(system, 0xC7, p.VolatileMemory)
	system = appendMemory(system, 0xC8, p.DataMemory)
	return p.TokenReference.append(appendSystem(nil, system))
}

// InstallParameters are the parameters of INSTALL [for install] (table
// 11-49). Memory is in bytes; 0 says nothing.
type InstallParameters struct {
	Specific            []byte // C9: what the application itself receives; always sent, even when empty
	VolatileQuota       uint32 // C7
	NonVolatileQuota    uint32 // C8
	VolatileReserved    uint32 // D7
	NonVolatileReserved uint32 // D8
	GlobalService       []byte // CB: service parameters of 2 bytes each
	ImplicitSelection   []byte // CF: one byte each (11.1.7); with MakeSelectable only
	UICC                []byte // EA: value of the template of ETSI TS 102 226
	TokenReference      TokenReference
}

func (p InstallParameters) encode() []byte {
	v := iso7816.AppendTLV(nil, 0xC9, p.Specific)
	var system []byte
	system = appendMemory(system, 0xC7, p.VolatileQuota)
	system = appendMemory(system, 0xC8, p.NonVolatileQuota)
	if len(p.GlobalService) > 0 {
		system = iso7816.AppendTLV(system, 0xCB, p.GlobalService)
	}
	system = appendMemory(system, 0xD7, p.VolatileReserved)
	system = appendMemory(system, 0xD8, p.NonVolatileReserved)
	for _, b := range p.ImplicitSelection {
		system = iso7816.AppendTLV(system, 0xCF, []byte{b})
	}
	v = appendSystem(v, system)
	if len(p.UICC) > 0 {
		v = iso7816.AppendTLV(v, 0xEA, p.UICC)
	}
	return p.TokenReference.append(v)
}

// InstallForLoad is INSTALL [for load] (11.5.2.3.1): LOAD commands follow.
type InstallForLoad struct {
	LoadFile       iso7816.AID
	SecurityDomain iso7816.AID // that the load file shall belong to; zero is the one selected
	Hash           []byte      // of the load file data block (C.2), at most 127 bytes; mandatory with a token, a DAP or a ciphered load file
	Parameters     LoadParameters
	Token          []byte // for delegated management
}

// SignedData returns what a load token is computed over, from P1 to the
// parameters (C.4.1).
func (i InstallForLoad) SignedData() ([]byte, error) {
	data, err := i.fields()
	if err != nil {
		return nil, err
	}
	return signedData(installForLoad, 0, data)
}

func (i InstallForLoad) fields() ([]byte, error) {
	if i.LoadFile.IsZero() {
		return nil, fmt.Errorf("%w: INSTALL [for load] names no load file", ErrCommand)
	}
	if len(i.Hash) > 127 {
		return nil, fmt.Errorf("%w: hash of %d bytes, 127 at most", ErrCommand, len(i.Hash))
	}
	data := appendLV(nil, i.LoadFile.Bytes())
	data = appendLV(data, i.SecurityDomain.Bytes())
	data = appendLV(data, i.Hash)
	return appendBERLV(data, i.Parameters.encode()), nil
}

// Command returns the command. Where it is longer than 255 bytes it must be
// chained (11.1.5.1), as [Execute] does.
func (i InstallForLoad) Command() (iso7816.Command, error) {
	return installCommand(installForLoad, 0, i.fields, i.Token)
}

// InstallForInstall is INSTALL [for install], with MakeSelectable INSTALL [for
// install and make selectable] (11.5.2.3.2).
type InstallForInstall struct {
	LoadFile, Module iso7816.AID
	Instance         iso7816.AID // by which it will be selected
	Privileges       Privileges
	Parameters       InstallParameters
	MakeSelectable   bool
	Token            []byte // for delegated management
}

func (i InstallForInstall) p1() byte {
	if i.MakeSelectable {
		return installForInstall | installForMakeSelectable
	}
	return installForInstall
}

func (i InstallForInstall) fields() ([]byte, error) {
	if i.Instance.IsZero() {
		return nil, fmt.Errorf("%w: INSTALL [for install] names no instance", ErrCommand)
	}
	data := appendLV(nil, i.LoadFile.Bytes())
	data = appendLV(data, i.Module.Bytes())
	data = appendLV(data, i.Instance.Bytes())
	data = appendLV(data, i.Privileges.encode())
	return appendBERLV(data, i.Parameters.encode()), nil
}

// SignedData returns what an install token is computed over (C.4.2).
func (i InstallForInstall) SignedData() ([]byte, error) {
	data, err := i.fields()
	if err != nil {
		return nil, err
	}
	return signedData(i.p1(), 0, data)
}

// Command returns the command; see [InstallForLoad.Command].
func (i InstallForInstall) Command() (iso7816.Command, error) {
	return installCommand(i.p1(), 0, i.fields, i.Token)
}

// InstallForMakeSelectable is INSTALL [for make selectable] of an instance
// that was only installed (11.5.2.3.3).
type InstallForMakeSelectable struct {
	Instance          iso7816.AID
	Privileges        Privileges // only CardReset counts
	ImplicitSelection []byte     // CF: one byte each (11.1.7)
	TokenReference    TokenReference
	Token             []byte
}

func (i InstallForMakeSelectable) fields() ([]byte, error) {
	if i.Instance.IsZero() {
		return nil, fmt.Errorf("%w: INSTALL [for make selectable] names no instance", ErrCommand)
	}
	data := appendLV([]byte{0, 0}, i.Instance.Bytes())
	data = appendLV(data, i.Privileges.encode())
	var system []byte
	for _, b := range i.ImplicitSelection {
		system = iso7816.AppendTLV(system, 0xCF, []byte{b})
	}
	return appendBERLV(data, i.TokenReference.append(appendSystem(nil, system))), nil
}

// SignedData returns what a make selectable token is computed over (C.4.3).
func (i InstallForMakeSelectable) SignedData() ([]byte, error) {
	data, err := i.fields()
	if err != nil {
		return nil, err
	}
	return signedData(installForMakeSelectable, 0, data)
}

// Command returns the command; see [InstallForLoad.Command].
func (i InstallForMakeSelectable) Command() (iso7816.Command, error) {
	return installCommand(installForMakeSelectable, 0, i.fields, i.Token)
}

// InstallForExtradition is INSTALL [for extradition] (11.5.2.3.4): it gives an
// application or a load file to another Security Domain.
type InstallForExtradition struct {
	SecurityDomain iso7816.AID // the new one
	AID            iso7816.AID // of the application or load file
	TokenReference TokenReference
	Token          []byte
}

func (i InstallForExtradition) fields() ([]byte, error) {
	if i.SecurityDomain.IsZero() || i.AID.IsZero() {
		return nil, fmt.Errorf("%w: INSTALL [for extradition] names no Security Domain or no object", ErrCommand)
	}
	data := append(appendLV(nil, i.SecurityDomain.Bytes()), 0)
	data = append(appendLV(data, i.AID.Bytes()), 0)
	return appendBERLV(data, i.TokenReference.append(nil)), nil
}

// SignedData returns what an extradition token is computed over (C.4.4).
func (i InstallForExtradition) SignedData() ([]byte, error) {
	data, err := i.fields()
	if err != nil {
		return nil, err
	}
	return signedData(installForExtradition, 0, data)
}

// Command returns the command; see [InstallForLoad.Command].
func (i InstallForExtradition) Command() (iso7816.Command, error) {
	return installCommand(installForExtradition, 0, i.fields, i.Token)
}

// InstallForPersonalization is INSTALL [for personalization] (11.5.2.3.6):
// STORE DATA commands that follow go to the instance. It takes no token.
type InstallForPersonalization struct{ Instance iso7816.AID }

// Command returns the command.
func (i InstallForPersonalization) Command() (iso7816.Command, error) {
	if i.Instance.IsZero() {
		return iso7816.Command{}, fmt.Errorf("%w: INSTALL [for personalization] names no instance", ErrCommand)
	}
	data := append(appendLV([]byte{0, 0}, i.Instance.Bytes()), 0, 0, 0)
	return command(0xE6, installForPersonalization, 0, data)
}

func installCommand(p1, p2 byte, fields func() ([]byte, error), token []byte) (iso7816.Command, error) {
	data, err := fields()
	if err != nil {
		return iso7816.Command{}, err
	}
	if len(token) > 0xFFFF {
		return iso7816.Command{}, fmt.Errorf("%w: token of %d bytes", ErrCommand, len(token))
	}
	return chainable(0xE6, p1, p2, appendBERLV(data, token))
}

// signedData is what tokens are computed over: P1, P2, the length of the data
// without the token, on 3 bytes where it is more than 255, and that data
// (C.4).
func signedData(p1, p2 byte, data []byte) ([]byte, error) {
	if len(data) > maxChain {
		return nil, fmt.Errorf("%w: %d bytes before the token, %d at most", ErrCommand, len(data), maxChain)
	}
	out := []byte{p1, p2, byte(len(data))}
	if n := len(data); n > iso7816.MaxShortData {
		out = []byte{p1, p2, 0, byte(n >> 8), byte(n)}
	}
	return append(out, data...), nil
}

// Commander is a command value of this package.
type Commander interface {
	Command() (iso7816.Command, error)
}

// Execute sends a card content management command, chained where it does not
// fit (11.1.5.1), and returns the
// confirmation that the card answers (11.1.6), nil where there is none (no
// data, or the single byte 00). Only delegated management yields one.
func Execute(ctx context.Context, s iso7816.Sender, c Commander) ([]byte, error) {
	cmd, err := c.Command()
	if err != nil {
		return nil, err
	}
	r, err := send(ctx, s, cmd)
	if err == nil {
		err = r.Err(cmd)
	}
	if err != nil {
		return nil, err
	}
	if len(r.Data) == 0 || len(r.Data) == 1 && r.Data[0] == 0 {
		return nil, nil
	}
	return r.Data, nil
}
