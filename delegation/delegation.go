// Package delegation is the procedure between a card's operator and a service
// provider whose Security Domain has Delegated Management (GPCS 9.2.3): what
// the provider's Security Domain is to do on a card is asked for in a
// [Request], and allowed in [Tokens], one token for each [Operation]. Both are
// files of JSON that can travel by mail or on a USB stick.
//
//	request (provider)  →  Issue (operator, who has the token key)  →  Tokens (provider)
//
// Neither file is secret, and neither is trusted for where it comes from: a
// token is a signature over the very command that it allows, over the card's
// identity and over a number that the card takes once. Whoever changes
// anything else in a file is found out by the digest over the request, or by
// [MismatchError] when the file is held against what the reader knows.
package delegation

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// Version is the version of both files.
const Version = 1

// Types of files, as they say themselves.
const (
	TypeRequest = "token-request"
	TypeTokens  = "tokens"
)

// Limits of the files.
const (
	MaxFile       = 1 << 20 // bytes
	MaxOperations = 64
	maxField      = 1024 // bytes of a hexadecimal field
	maxText       = 128  // bytes of a text
	numberSize    = 8    // bytes of a request's number
)

// Errors of this package.
var (
	// ErrMalformed: the file is no request or no tokens, or was altered.
	ErrMalformed = errors.New("malformed token file")
	// ErrVersion: a later version of this software wrote the file.
	ErrVersion = errors.New("unknown version of a token file")
	// ErrMismatch: the file is about something else; see [MismatchError].
	ErrMismatch = errors.New("the token file does not match")
)

// MismatchError names the field of a file that is not what it has to be. It
// wraps [ErrMismatch].
type MismatchError struct {
	Field string // as the file has it: "card.cin", "operations[0].hash"
	Want  string
	Got   string // what the file says
}

// Error names the field and both values.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s is %s, %s is expected", ErrMismatch, e.Field, quoted(e.Got), quoted(e.Want))
}

func quoted(s string) string {
	if s == "" {
		return "missing"
	}
	return s
}

// Unwrap returns ErrMismatch.
func (e *MismatchError) Unwrap() error { return ErrMismatch }

func differ(field, want, got string) error {
	if want == got {
		return nil
	}
	return &MismatchError{Field: field, Want: want, Got: got}
}

// Hex is bytes that JSON shows as upper-case hexadecimal digits.
type Hex []byte

// String returns the digits.
func (h Hex) String() string { return fmt.Sprintf("%X", []byte(h)) }

// MarshalText returns the digits.
func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads digits.
func (h *Hex) UnmarshalText(b []byte) error {
	if len(b) > 2*maxField {
		return fmt.Errorf("%d digits, %d at most", len(b), 2*maxField)
	}
	v, err := hex.DecodeString(string(b))
	*h = v
	return err
}

// Card is the card that tokens are for, as the Security Domain that verifies
// them says it (GPCS H.6).
type Card struct {
	IIN Hex `json:"iin,omitempty"` // tag 42
	CIN Hex `json:"cin"`           // tag 45
}

// Check compares with another card's identity.
func (c Card) Check(iin, cin []byte) error {
	if err := differ("card.cin", Hex(cin).String(), c.CIN.String()); err != nil {
		return err
	}
	return differ("card.iin", Hex(iin).String(), c.IIN.String())
}

// Kind says what an operation does.
type Kind string

// Kinds of operations that take tokens.
const (
	Load      Kind = "load"
	Install   Kind = "install" // and make selectable
	Extradite Kind = "extradite"
	Delete    Kind = "delete"
)

// Operation is one operation on the card, which one token allows.
type Operation struct {
	Kind Kind `json:"operation"`
	// LoadFile is loaded, or the instance comes from it.
	LoadFile iso7816.AID `json:"load_file,omitzero"`
	// SecurityDomain gets the load file or the extradited object.
	SecurityDomain iso7816.AID `json:"security_domain,omitzero"`
	// Hash is the SHA-256 of the load file data block.
	Hash   Hex         `json:"hash,omitempty"`
	Module iso7816.AID `json:"module,omitzero"`
	// Instance is installed.
	Instance iso7816.AID `json:"instance,omitzero"`
	// Parameters are what the instance itself gets (value of tag C9).
	Parameters Hex `json:"parameters,omitempty"`
	// Data is the diversification data that stands in Parameters. It is for the
	// run that uses the token, and part of no command.
	Data Hex `json:"diversification_data,omitempty"`
	// Object is extradited or deleted.
	Object iso7816.AID `json:"object,omitzero"`
}

// String names the operation and what it is done to.
func (o Operation) String() string {
	switch o.Kind {
	case Load:
		return fmt.Sprintf("load %v for %v", o.LoadFile, o.SecurityDomain)
	case Install:
		return fmt.Sprintf("install %v from %v", o.Instance, o.LoadFile)
	case Extradite:
		return fmt.Sprintf("extradite %v to %v", o.Object, o.SecurityDomain)
	}
	return fmt.Sprintf("%s %v", o.Kind, o.Object)
}

// field is one field of an operation.
type field struct {
	name  string
	value string
	need  string // kinds that must have it, by their initials
	may   string // that can
}

func (o Operation) fields() []field {
	return []field{
		{"load_file", o.LoadFile.String(), "li", ""},
		{"security_domain", o.SecurityDomain.String(), "le", ""},
		{"hash", o.Hash.String(), "l", ""},
		{"module", o.Module.String(), "i", ""},
		{"instance", o.Instance.String(), "i", ""},
		{"parameters", o.Parameters.String(), "", "i"},
		{"diversification_data", o.Data.String(), "", "i"},
		{"object", o.Object.String(), "ed", ""},
	}
}

// Check compares with the operation that is expected; field is its place in
// the file. The error is a [*MismatchError].
func (o Operation) Check(place string, want Operation) error {
	if err := differ(place+".operation", string(want.Kind), string(o.Kind)); err != nil {
		return err
	}
	w := want.fields()
	for i, f := range o.fields() {
		if err := differ(place+"."+f.name, w[i].value, f.value); err != nil {
			return err
		}
	}
	return nil
}

func (o Operation) validate() error {
	initial := ""
	switch o.Kind {
	case Load, Install, Extradite, Delete:
		initial = string(o.Kind[:1])
	default:
		return fmt.Errorf("operation %q", o.Kind)
	}
	for _, f := range o.fields() {
		there := f.value != ""
		need, may := strings.Contains(f.need, initial), strings.Contains(f.may, initial)
		switch {
		case need && !there:
			return fmt.Errorf("operation %s lacks %s", o.Kind, f.name)
		case there && !need && !may:
			return fmt.Errorf("operation %s has %s", o.Kind, f.name)
		}
	}
	if o.Kind == Load && len(o.Hash) != sha256.Size {
		return fmt.Errorf("hash of %d bytes, %d expected", len(o.Hash), sha256.Size)
	}
	return nil
}

// Command returns the command that carries the operation out. Under Authorized
// Management the reference is zero and there is no token.
func (o Operation) Command(reference globalplatform.TokenReference, token []byte) (globalplatform.Tokenized, error) {
	switch o.Kind {
	case Load:
		return globalplatform.InstallForLoad{
			LoadFile: o.LoadFile, SecurityDomain: o.SecurityDomain, Hash: o.Hash,
			Parameters: globalplatform.LoadParameters{TokenReference: reference}, Token: token,
		}, nil
	case Install:
		return globalplatform.InstallForInstall{
			LoadFile: o.LoadFile, Module: o.Module, Instance: o.Instance, MakeSelectable: true,
			Parameters: globalplatform.InstallParameters{Specific: o.Parameters, TokenReference: reference}, Token: token,
		}, nil
	case Extradite:
		return globalplatform.InstallForExtradition{
			SecurityDomain: o.SecurityDomain, AID: o.Object, TokenReference: reference, Token: token,
		}, nil
	case Delete:
		return globalplatform.Delete{AID: o.Object, TokenReference: reference, Token: token}, nil
	}
	return nil, fmt.Errorf("operation %q", o.Kind)
}

// Receipt is what the card's receipt of the operation covers besides the
// confirmation data (GPCS C.5); from is the Security Domain that an extradited
// object belonged to.
func (o Operation) Receipt(from iso7816.AID) globalplatform.ReceiptData {
	switch o.Kind {
	case Load:
		return globalplatform.LoadReceipt(o.LoadFile, o.SecurityDomain)
	case Install:
		return globalplatform.InstallReceipt(o.LoadFile, o.Instance)
	case Extradite:
		return globalplatform.ExtraditionReceipt(from, o.Object, o.SecurityDomain)
	}
	return globalplatform.DeleteReceipt(o.Object)
}

// Request is what a service provider asks a card's operator to allow.
type Request struct {
	V       int    `json:"v"`
	Type    string `json:"type"`
	Number  Hex    `json:"number"`  // drawn by the provider, 8 bytes; a token's is this and its place, 1 byte
	Created string `json:"created"` // UTC, RFC 3339, whole seconds
	Card    Card   `json:"card"`
	// SecurityDomain is the one with Delegated Management, which will present
	// the tokens.
	SecurityDomain iso7816.AID `json:"security_domain"`
	Service        string      `json:"service"`
	Manifest       Hex         `json:"manifest"` // the manifest's digest
	// Approval is the SHA-256 of the document by which the operator allowed the
	// service.
	Approval   Hex         `json:"approval"`
	Operations []Operation `json:"operations"`
}

// NewRequest makes a request. rand draws its number; the caller fills in what
// it asks for before encoding it.
func NewRequest(rand io.Reader, now time.Time) (*Request, error) {
	r := &Request{V: Version, Type: TypeRequest, Number: make(Hex, numberSize), Created: now.UTC().Truncate(time.Second).Format(time.RFC3339)}
	if _, err := io.ReadFull(rand, r.Number); err != nil {
		return nil, fmt.Errorf("drawing a number: %w", err)
	}
	return r, nil
}

func (r *Request) validate() error {
	switch {
	case r.V != Version || r.Type != TypeRequest:
		return fmt.Errorf("type %q", r.Type)
	case len(r.Number) != numberSize:
		return fmt.Errorf("number of %d bytes, %d expected", len(r.Number), numberSize)
	case len(r.Card.CIN) == 0 || len(r.Card.CIN) > 64 || len(r.Card.IIN) > 64:
		return errors.New("card.cin or card.iin is of a wrong size")
	case r.SecurityDomain.IsZero():
		return errors.New("no security_domain")
	case !isText(r.Service):
		return errors.New("service is missing, too long or holds what can't be printed")
	case len(r.Manifest) != sha256.Size:
		return errors.New("manifest is no SHA-256")
	case len(r.Approval) != sha256.Size:
		return errors.New("approval is no SHA-256")
	case len(r.Operations) == 0 || len(r.Operations) > MaxOperations:
		return fmt.Errorf("%d operations, 1 to %d allowed", len(r.Operations), MaxOperations)
	}
	if err := checkTime("created", r.Created); err != nil {
		return err
	}
	for i, o := range r.Operations {
		if err := o.validate(); err != nil {
			return fmt.Errorf("operations[%d]: %w", i, err)
		}
	}
	return nil
}

// isText keeps what a terminal would obey out of what it is to show.
func isText(s string) bool {
	return s != "" && len(s) <= maxText && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func checkTime(name, s string) error {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UTC().Format(time.RFC3339) != s {
		return fmt.Errorf("%s is no time in UTC to the second", name)
	}
	return nil
}

// Digest is the SHA-256 of the request in its shortest form.
func (r *Request) Digest() [sha256.Size]byte { return sha256.Sum256(compact(r)) }

// Reference is what stands beside the token of operation i: the card's
// identity and a number that the card takes once.
func (r *Request) Reference(i int) globalplatform.TokenReference {
	number := append(bytes.Clone(r.Number), byte(i))
	return globalplatform.TokenReference{Identification: r.Card.IIN, Image: r.Card.CIN, Number: number}
}

// Command returns the command of operation i with its token.
func (r *Request) Command(i int, token []byte) (globalplatform.Tokenized, error) {
	return r.Operations[i].Command(r.Reference(i), token)
}

// Encode returns the file.
func (r *Request) Encode() ([]byte, error) { return encode(r, r.validate()) }

// ParseRequest reads a request. Errors wrap [ErrMalformed] or [ErrVersion].
func ParseRequest(b []byte) (*Request, error) {
	r := &Request{}
	if err := decode(b, TypeRequest, r); err != nil {
		return nil, err
	}
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return r, nil
}

// Tokens is the operator's answer: the request itself and a token for each of
// its operations, in their order.
type Tokens struct {
	V        int     `json:"v"`
	Type     string  `json:"type"`
	Issued   string  `json:"issued"`   // UTC, RFC 3339, whole seconds
	Operator string  `json:"operator"` // who allowed it
	Digest   Hex     `json:"digest"`   // of the request
	Request  Request `json:"request"`
	Tokens   []Hex   `json:"tokens"`
}

// Issue answers a request: the operator has checked it before.
func Issue(r *Request, key globalplatform.Signer, operator string, now time.Time) (*Tokens, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	digest := r.Digest()
	t := &Tokens{
		V: Version, Type: TypeTokens, Issued: now.UTC().Truncate(time.Second).Format(time.RFC3339),
		Operator: operator, Digest: digest[:], Request: *r,
	}
	for i := range r.Operations {
		c, err := r.Command(i, nil)
		if err != nil {
			return nil, err
		}
		token, err := globalplatform.Token(key, c)
		if err != nil {
			return nil, fmt.Errorf("token of operation %d: %w", i+1, err)
		}
		t.Tokens = append(t.Tokens, token)
	}
	return t, nil
}

func (t *Tokens) validate() error {
	if err := t.Request.validate(); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	switch {
	case t.V != Version || t.Type != TypeTokens:
		return fmt.Errorf("type %q", t.Type)
	case !isText(t.Operator):
		return errors.New("operator is missing, too long or holds what can't be printed")
	case len(t.Tokens) != len(t.Request.Operations):
		return fmt.Errorf("%d tokens for %d operations", len(t.Tokens), len(t.Request.Operations))
	}
	for i, token := range t.Tokens {
		if len(token) == 0 || len(token) > maxField {
			return fmt.Errorf("tokens[%d] of %d bytes, 1 to %d allowed", i, len(token), maxField)
		}
	}
	if d := t.Request.Digest(); !bytes.Equal(d[:], t.Digest) {
		return errors.New("digest is not the request's")
	}
	return checkTime("issued", t.Issued)
}

// Encode returns the file.
func (t *Tokens) Encode() ([]byte, error) { return encode(t, t.validate()) }

// ParseTokens reads tokens. Errors wrap [ErrMalformed] or [ErrVersion].
func ParseTokens(b []byte) (*Tokens, error) {
	t := &Tokens{}
	if err := decode(b, TypeTokens, t); err != nil {
		return nil, err
	}
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return t, nil
}

// Answers compares with the request that was sent. The error is a
// [*MismatchError] that names the first field which is not the same.
func (t *Tokens) Answers(sent *Request) error {
	got := &t.Request
	for _, f := range []struct{ name, want, got string }{
		{"number", sent.Number.String(), got.Number.String()},
		{"created", sent.Created, got.Created},
	} {
		if err := differ("request."+f.name, f.want, f.got); err != nil {
			return err
		}
	}
	if err := got.Check("request.", Facts{
		IIN: sent.Card.IIN, CIN: sent.Card.CIN, SecurityDomain: sent.SecurityDomain,
		Service: sent.Service, Manifest: sent.Manifest, Approval: sent.Approval,
	}); err != nil {
		return err
	}
	if err := differ("request.operations", fmt.Sprint(len(sent.Operations)), fmt.Sprint(len(got.Operations))); err != nil {
		return err
	}
	for i, o := range got.Operations {
		if err := o.Check(fmt.Sprintf("request.operations[%d]", i), sent.Operations[i]); err != nil {
			return err
		}
	}
	return nil
}

// Facts are what a reader of a request knows without it. What is nil or zero
// is not compared.
type Facts struct {
	IIN, CIN       []byte
	SecurityDomain iso7816.AID
	Service        string
	Manifest       []byte
	Approval       []byte
}

// Check compares a request with facts; prefix stands before the field names of
// the error, a [*MismatchError].
func (r *Request) Check(prefix string, f Facts) error {
	for _, x := range []struct {
		name, want, got string
		compare         bool
	}{
		{"card.cin", Hex(f.CIN).String(), r.Card.CIN.String(), f.CIN != nil},
		{"card.iin", Hex(f.IIN).String(), r.Card.IIN.String(), f.IIN != nil},
		{"security_domain", f.SecurityDomain.String(), r.SecurityDomain.String(), !f.SecurityDomain.IsZero()},
		{"service", f.Service, r.Service, f.Service != ""},
		{"manifest", Hex(f.Manifest).String(), r.Manifest.String(), f.Manifest != nil},
		{"approval", Hex(f.Approval).String(), r.Approval.String(), f.Approval != nil},
	} {
		if !x.compare {
			continue
		}
		if err := differ(prefix+x.name, x.want, x.got); err != nil {
			return err
		}
	}
	return nil
}

// Find returns the operation of this kind on these objects and its place, -1
// where the tokens have none.
func (t *Tokens) Find(o Operation) int {
	for i, have := range t.Request.Operations {
		if have.Kind != o.Kind {
			continue
		}
		switch o.Kind {
		case Load:
			if have.LoadFile == o.LoadFile {
				return i
			}
		case Install:
			if have.Instance == o.Instance {
				return i
			}
		default:
			if have.Object == o.Object {
				return i
			}
		}
	}
	return -1
}

// TypeOf returns the type that a file says it is, "" where it says none.
func TypeOf(b []byte) string {
	var id struct {
		Type string `json:"type"`
	}
	if len(b) > MaxFile || json.Unmarshal(b, &id) != nil {
		return ""
	}
	return id.Type
}

// encode writes a file for people to read as well.
func encode(v any, invalid error) ([]byte, error) {
	if invalid != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, invalid)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// compact is the shortest form. The types here cannot fail to encode.
func compact(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// decode reads what encode writes, with any white space between: another order
// or spelling, unknown and repeated fields do not encode to the same again.
func decode(b []byte, kind string, v any) error {
	fail := func(err error) error { return fmt.Errorf("%w: %w", ErrMalformed, err) }
	if len(b) > MaxFile {
		return fail(fmt.Errorf("larger than %d bytes", MaxFile))
	}
	var id struct {
		V    int    `json:"v"`
		Type string `json:"type"`
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return fail(err)
	}
	switch {
	case id.Type != kind:
		return fail(fmt.Errorf("type is %q, %q is expected", id.Type, kind))
	case id.V != Version:
		return fmt.Errorf("%w: %d, this software knows %d", ErrVersion, id.V, Version)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fail(err)
	}
	var short bytes.Buffer
	if err := json.Compact(&short, b); err != nil {
		return fail(err)
	}
	if !bytes.Equal(short.Bytes(), compact(v)) {
		return fail(errors.New("not in the form in which it is written"))
	}
	return nil
}
