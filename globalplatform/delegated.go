package globalplatform

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// Tokenized is a command that delegated management authorises with a token:
// its data without the token is what is signed (C.4).
type Tokenized interface {
	Commander
	SignedData() ([]byte, error)
}

// Token computes the token of a command; whatever token the command has
// already does not count.
func Token(s Signer, c Tokenized) ([]byte, error) {
	data, err := c.SignedData()
	if err != nil {
		return nil, err
	}
	return s.Sign(data)
}

// VerifyToken verifies the token of a command, as a Security Domain with the
// Token Verification privilege does. Errors wrap [ErrSignature].
func VerifyToken(v Verifier, c Tokenized, token []byte) error {
	data, err := c.SignedData()
	if err != nil {
		return err
	}
	return v.Verify(data, token)
}

// InstallForRegistryUpdate is INSTALL [for registry update] (11.5.2.3.5):
// privileges, implicit selection, services or functions of an application
// change, and it may go to another Security Domain at the same time.
type InstallForRegistryUpdate struct {
	SecurityDomain    iso7816.AID // to which the application goes; zero leaves it
	Application       iso7816.AID // zero is the card itself, with Restrict
	Privileges        *Privileges // nil leaves them
	ImplicitSelection []byte      // CF: one byte each (11.1.7)
	GlobalService     []byte      // CB: service parameters of 2 bytes each
	Restrict          byte        // D9: functions that are disabled for good (table 11-53)
	TokenReference    TokenReference
	Token             []byte
}

func (i InstallForRegistryUpdate) fields() ([]byte, error) {
	if i.Application.IsZero() && (i.Restrict == 0 || i.Privileges != nil || !i.SecurityDomain.IsZero()) {
		return nil, fmt.Errorf("%w: INSTALL [for registry update] names no application", ErrCommand)
	}
	data := append(appendLV(nil, i.SecurityDomain.Bytes()), 0)
	data = append(data, i.parameters()...)
	return data, nil
}

// parameters is the application, its privileges and the registry update
// parameters, each with its length.
func (i InstallForRegistryUpdate) parameters() []byte {
	return appendBERLV(i.privileges(appendLV(nil, i.Application.Bytes())), i.updates())
}

func (i InstallForRegistryUpdate) privileges(dst []byte) []byte {
	if i.Privileges == nil {
		return append(dst, 0)
	}
	return appendLV(dst, i.Privileges.Bytes())
}

// updates is the value of the registry update parameters (table 11-52).
func (i InstallForRegistryUpdate) updates() []byte {
	var system []byte
	for _, b := range i.ImplicitSelection {
		system = iso7816.AppendTLV(system, 0xCF, []byte{b})
	}
	if len(i.GlobalService) > 0 {
		system = iso7816.AppendTLV(system, 0xCB, i.GlobalService)
	}
	if i.Restrict != 0 {
		system = iso7816.AppendTLV(system, 0xD9, []byte{i.Restrict})
	}
	return i.TokenReference.append(appendSystem(nil, system))
}

// SignedData returns what a registry update token is computed over (C.4.5).
func (i InstallForRegistryUpdate) SignedData() ([]byte, error) {
	data, err := i.fields()
	if err != nil {
		return nil, err
	}
	return signedData(installForRegistryUpdate, 0, data)
}

// Command returns the command; see [InstallForLoad.Command].
func (i InstallForRegistryUpdate) Command() (iso7816.Command, error) {
	return installCommand(installForRegistryUpdate, 0, i.fields, i.Token)
}

// CombinedInstall is the combined load, install and make selectable process
// (9.3.8): Begin, the LOAD commands, End. One token, in End, covers both
// INSTALL commands. P1 of both is 0E, as 9.3.8 and 11.5.2.2 have it; figure
// C-9 calls the first one INSTALL [for load].
type CombinedInstall struct {
	Load    InstallForLoad    // its token is not used
	Install InstallForInstall // MakeSelectable and its token are not used
	Token   []byte
}

// The values of P2 (11.5.2.2).
const (
	combinedBegin = 0x01
	combinedEnd   = 0x03
)

// Begin is the first INSTALL command of the process.
func (c CombinedInstall) Begin() Commander { return combinedCommand{c, true} }

// End is the last one, after LOAD.
func (c CombinedInstall) End() Commander { return combinedCommand{c, false} }

// Command is End's, so that the process is [Tokenized] as one.
func (c CombinedInstall) Command() (iso7816.Command, error) { return c.End().Command() }

// SignedData returns what the combined token is computed over (C.4.7).
func (c CombinedInstall) SignedData() ([]byte, error) {
	load, err := c.Load.fields()
	if err != nil {
		return nil, err
	}
	first, err := signedData(installCombined, combinedBegin, load)
	if err != nil {
		return nil, err
	}
	install, err := c.Install.fields()
	if err != nil {
		return nil, err
	}
	second, err := signedData(installCombined, combinedEnd, install)
	if err != nil {
		return nil, err
	}
	return append(first, second...), nil
}

type combinedCommand struct {
	c     CombinedInstall
	begin bool
}

func (x combinedCommand) Command() (iso7816.Command, error) {
	if x.begin {
		return installCommand(installCombined, combinedBegin, x.c.Load.fields, nil)
	}
	return installCommand(installCombined, combinedEnd, x.c.Install.fields, x.c.Token)
}

// Confirmation is what the card answers to a command of delegated management
// (tables 11-13, 11-14): the receipt, which may be missing, and the
// confirmation data that it covers.
type Confirmation struct {
	Receipt []byte
	Counter uint16 // confirmation counter
	// CardData is the provider's identification number (tag 42) and the image
	// number (tag 45) of the Security Domain that issued the receipt, one
	// after the other.
	CardData        []byte
	TokenIdentifier []byte // of the token, where it had one
	TokenDigest     []byte // where the issuer's policy wants it
	HasDigest       bool   // the digest's length stands there, even if 0
	HasIdentifier   bool
}

// ErrReceipt reports a receipt that is not the one for what was done: another
// card's, of another operation, or one that was seen before.
var ErrReceipt = errors.New("receipt is not the one expected")

// ParseConfirmation reads the response data of INSTALL, the last LOAD or
// DELETE, as [Execute] returns it: a length, and the confirmation that fills
// it. Errors wrap [ErrMalformed].
func ParseConfirmation(b []byte) (Confirmation, error) {
	fail := func(format string, args ...any) (Confirmation, error) {
		return Confirmation{}, malformed("confirmation: "+format, args...)
	}
	body, rest, ok := cutBERLV(b)
	if !ok || len(rest) > 0 {
		return fail("its length does not fit %d bytes", len(b))
	}
	var c Confirmation
	receipt, body, ok := cutBERLV(body)
	if !ok {
		return fail("the receipt's length does not fit")
	}
	c.Receipt = bytes.Clone(receipt)
	counter, body, ok := cutLV(body)
	if !ok || len(counter) != 2 {
		return fail("no confirmation counter of 2 bytes")
	}
	c.Counter = uint16(counter[0])<<8 | uint16(counter[1])
	unique, body, ok := cutLV(body)
	if !ok || len(unique) == 0 {
		return fail("no card unique data")
	}
	c.CardData = bytes.Clone(unique)
	for i, field := range []*[]byte{&c.TokenIdentifier, &c.TokenDigest} {
		if len(body) == 0 {
			break
		}
		var v []byte
		if v, body, ok = cutLV(body); !ok {
			return fail("field %d after the card unique data does not fit", i+1)
		}
		*field = bytes.Clone(v)
		if i == 0 {
			c.HasIdentifier = true
		} else {
			c.HasDigest = true
		}
	}
	if len(body) > 0 {
		return fail("%d bytes after it", len(body))
	}
	return c, nil
}

// Data returns the confirmation data, which receipts cover.
func (c Confirmation) Data() []byte {
	out := []byte{2, byte(c.Counter >> 8), byte(c.Counter)}
	out = appendLV(out, c.CardData)
	if c.HasIdentifier || c.HasDigest || len(c.TokenIdentifier) > 0 || len(c.TokenDigest) > 0 {
		out = appendLV(out, c.TokenIdentifier)
	}
	if c.HasDigest || len(c.TokenDigest) > 0 {
		out = appendLV(out, c.TokenDigest)
	}
	return out
}

// Encode returns the response data that c stands for.
func (c Confirmation) Encode() []byte {
	return appendBERLV(nil, append(appendBERLV(nil, c.Receipt), c.Data()...))
}

// cutLV cuts a value with a length of one byte, at most 127.
func cutLV(b []byte) (value, rest []byte, ok bool) {
	if len(b) == 0 || b[0] > 0x7F || int(b[0]) >= len(b) && b[0] > 0 {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n:n], b[n:], true
}

// cutBERLV cuts a value with a minimal length of one to three bytes.
func cutBERLV(b []byte) (value, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	n, at := int(b[0]), 1
	switch {
	case n < 0x80:
	case n == 0x81 && len(b) > 1 && b[1] >= 0x80:
		n, at = int(b[1]), 2
	case n == 0x82 && len(b) > 2 && b[1] != 0:
		n, at = int(b[1])<<8|int(b[2]), 3
	default:
		return nil, nil, false
	}
	if n > len(b)-at {
		return nil, nil, false
	}
	return b[at : at+n : at+n], b[at+n:], true
}

// ReceiptData is what an operation adds to the confirmation data in what its
// receipt is computed over (C.5).
type ReceiptData []byte

func lvAIDs(aids ...iso7816.AID) ReceiptData {
	var out []byte
	for _, a := range aids {
		out = appendLV(out, a.Bytes())
	}
	return out
}

// LoadReceipt is of a load, with the Security Domain that the load file
// belongs to (C.5.1).
func LoadReceipt(loadFile, domain iso7816.AID) ReceiptData { return lvAIDs(loadFile, domain) }

// InstallReceipt is of an installation, or of making selectable (C.5.2).
func InstallReceipt(loadFile, instance iso7816.AID) ReceiptData { return lvAIDs(loadFile, instance) }

// ExtraditionReceipt is of an extradition (C.5.3).
func ExtraditionReceipt(from, object, to iso7816.AID) ReceiptData { return lvAIDs(from, object, to) }

// RegistryUpdateReceipt is of a registry update (C.5.4); from is the Security
// Domain that the application belonged to, and counts only where it goes to
// another.
func RegistryUpdateReceipt(from iso7816.AID, u InstallForRegistryUpdate) ReceiptData {
	if u.SecurityDomain.IsZero() {
		from = iso7816.AID{}
	}
	return appendBERLV(u.privileges(lvAIDs(from, u.Application, u.SecurityDomain)), u.updates())
}

// DeleteReceipt is of a deletion; of a load file and its instances it names
// the load file only (C.5.5).
func DeleteReceipt(deleted iso7816.AID) ReceiptData { return lvAIDs(deleted) }

// CombinedReceipt is of a combined load, install and make selectable (C.5.6).
func CombinedReceipt(loadFile, instance, domain iso7816.AID) ReceiptData {
	return lvAIDs(loadFile, instance, domain)
}

// SignReceipt computes the receipt, as a Security Domain with the Receipt
// Generation privilege does, and puts it into the confirmation.
func (c *Confirmation) SignReceipt(s Signer, d ReceiptData) error {
	receipt, err := s.Sign(append(c.Data(), d...))
	if err != nil {
		return err
	}
	c.Receipt = receipt
	return nil
}

// Expectation is what a receipt must fit besides its signature.
type Expectation struct {
	Operation ReceiptData
	CardData  []byte // IIN and CIN of the issuing Security Domain, one after the other; nil is not compared
	// After is the last confirmation counter that was seen from that card, -1
	// before the first: a receipt must count on, or it is a replayed one.
	After           int
	TokenIdentifier []byte // of the token that was presented; nil is not compared
}

// Verify verifies the receipt. One that is missing, of another card or token,
// or no newer than the last wraps [ErrReceipt]; one whose signature is wrong,
// which is all that another operation's would show, wraps [ErrSignature].
func (c Confirmation) Verify(v Verifier, e Expectation) error {
	switch {
	case len(c.Receipt) == 0:
		return fmt.Errorf("%w: the confirmation has none", ErrReceipt)
	case e.CardData != nil && !bytes.Equal(e.CardData, c.CardData):
		return fmt.Errorf("%w: it is of card %X instead of %X", ErrReceipt, c.CardData, e.CardData)
	case int(c.Counter) <= e.After:
		return fmt.Errorf("%w: confirmation counter %d after %d", ErrReceipt, c.Counter, e.After)
	case e.TokenIdentifier != nil && !bytes.Equal(e.TokenIdentifier, c.TokenIdentifier):
		return fmt.Errorf("%w: token identifier %X instead of %X", ErrReceipt, c.TokenIdentifier, e.TokenIdentifier)
	}
	return v.Verify(append(c.Data(), e.Operation...), c.Receipt)
}

// ConfirmationCounter returns the confirmation counter of the selected
// Security Domain (tag C2; C.5), 16 bits.
func ConfirmationCounter(ctx context.Context, s iso7816.Sender) (uint16, error) {
	n, err := counter(ctx, s, TagConfirmationCounter, 2)
	return uint16(n), err
}

// SequenceCounter returns the sequence counter of the default key version (tag
// C1; 11.3.2.1), of SCP02 16 bits, of SCP03 with pseudo-random challenges 24.
func SequenceCounter(ctx context.Context, s iso7816.Sender) (uint32, error) {
	return counter(ctx, s, TagSequenceCounter, 3)
}

// counter returns a data object of 2 bytes up to most.
func counter(ctx context.Context, s iso7816.Sender, tag iso7816.Tag, most int) (uint32, error) {
	value, err := GetData(ctx, s, tag)
	if err != nil {
		return 0, err
	}
	if len(value) < 2 || len(value) > most {
		return 0, malformed("data object %v: counter of %d bytes", tag, len(value))
	}
	var n uint32
	for _, b := range value {
		n = n<<8 | uint32(b)
	}
	return n, nil
}

// SignDAP makes the DAP block of a Security Domain: its signature over the hash
// of the load file data block, as INSTALL [for load] has it (C.3).
func SignDAP(s Signer, domain iso7816.AID, hash []byte) (DAPBlock, error) {
	if domain.IsZero() {
		return DAPBlock{}, fmt.Errorf("%w: DAP of no Security Domain", ErrCommand)
	}
	if err := checkHash(hash); err != nil {
		return DAPBlock{}, err
	}
	signature, err := s.Sign(hash)
	if err != nil {
		return DAPBlock{}, err
	}
	return DAPBlock{SecurityDomain: domain, Signature: signature}, nil
}

// Verify verifies the block, as the Security Domain that it names does.
// Errors wrap [ErrSignature].
func (d DAPBlock) Verify(v Verifier, hash []byte) error {
	if err := checkHash(hash); err != nil {
		return err
	}
	return v.Verify(hash, d.Signature)
}

// checkHash finds values that no hash algorithm of table C-3 gives.
func checkHash(hash []byte) error {
	switch len(hash) {
	case 20, 32, 48, 64:
		return nil
	}
	return fmt.Errorf("%w: load file data block hash of %d bytes", ErrCommand, len(hash))
}

func parseDAP(o iso7816.TLV) (d DAPBlock, err error) {
	inner, err := o.Children()
	if err != nil {
		return d, err
	}
	if len(inner) != 2 || inner[0].Tag != tagAID || inner[1].Tag != 0xC3 || len(inner[1].Value) == 0 {
		return d, errors.New("it is not an AID and a signature")
	}
	if d.SecurityDomain, err = iso7816.NewAID(inner[0].Value); err != nil {
		return d, err
	}
	d.Signature = bytes.Clone(inner[1].Value)
	return d, nil
}
