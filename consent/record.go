package consent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/freearea/freearea/keys"
)

// MaxSize is the largest encoded record in bytes.
const MaxSize = 32 << 10

// Errors of records.
var (
	ErrMalformed = errors.New("malformed consent record")
	ErrRendering = errors.New("what was shown is not what the manifest says now")
	ErrText      = errors.New("text may not be recorded")
)

// String writes 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes 64 lower-case hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("SHA-256 digest of %d characters: 64 expected", len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Options says how a holder was asked.
type Options struct {
	Language string     // "ja", "en"
	Format   ShowFormat // as it was shown
	// Rendering is what was shown, to the byte; nil is what Render returns
	// now. Where the two differ, New refuses with ErrRendering.
	Rendering []byte
	Items     []string // names of the items agreed to; all required ones are among them
	Asked     Asked
	Method    Method
	Paper     *Form     // method paper only
	Given     time.Time // when the holder agreed
	Until     time.Time // zero: as long as the manifest allows
	Holder    string    // optional reference
	Rand      io.Reader // nil: crypto/rand
}

// New makes the record of a consent that a holder has given. It refuses with
// [ErrMethod] and [ErrItems] what the manifest does not allow, with
// [ErrRendering] what was not shown, with [ErrText] an Individual Number in a
// reference, and with [ErrMalformed] what no record can hold.
func New(s Service, o Options) (Record, error) {
	if !slices.Contains(s.ConsentMethods(), string(o.Method)) {
		return Record{}, fmt.Errorf("consent for service %s: %w %q", s.ServiceID(), ErrMethod, o.Method)
	}
	items, err := inOrder(s, o.Items)
	if err != nil {
		return Record{}, err
	}
	shown, err := Render(s, o.Language, items, o.Format)
	if err != nil {
		return Record{}, err
	}
	if o.Rendering != nil && !bytes.Equal(o.Rendering, shown) {
		return Record{}, fmt.Errorf("consent for service %s: %w", s.ServiceID(), ErrRendering)
	}
	d, err := s.Disclosure(o.Language, items)
	if err != nil {
		return Record{}, err
	}
	var id [16]byte
	random := o.Rand
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return Record{}, fmt.Errorf("random source: %w", err)
	}
	given := o.Given.UTC().Truncate(time.Second)
	longest := given.AddDate(0, 0, s.ConsentDays())
	until := o.Until.UTC().Truncate(time.Second)
	if o.Until.IsZero() {
		until = longest
	}
	if until.After(longest) {
		return Record{}, fmt.Errorf("consent for service %s: %w: it would hold until %s, the manifest allows %d days",
			s.ServiceID(), ErrMalformed, until.Format(time.RFC3339), s.ConsentDays())
	}
	r := Record{
		Format:   Format,
		ID:       hex.EncodeToString(id[:]),
		Service:  s.ServiceID(),
		Manifest: s.Digest(),
		Shown: Shown{
			Language: o.Language, Format: o.Format, Digest: sha256.Sum256(shown),
			Purpose: d.Purpose, Operator: d.Operator, Term: d.Term,
		},
		Items:  items,
		Asked:  o.Asked,
		Method: o.Method,
		Given:  given,
		Until:  until,
		Holder: o.Holder,
	}
	texts := []string{o.Holder, o.Asked.Operator, o.Asked.Counter}
	if o.Paper != nil {
		form := *o.Paper
		r.Paper = &form
		texts = append(texts, form.Reference)
	}
	for _, text := range texts {
		if !s.Permits(text) {
			return Record{}, fmt.Errorf("consent for service %s: %w: a reference or id has the form of an Individual Number", s.ServiceID(), ErrText)
		}
	}
	return r, r.check()
}

// inOrder returns the items in the manifest's order; all required ones must
// be there and no unknown one.
func inOrder(s Service, items []string) ([]string, error) {
	required, optional := s.ItemNames()
	known := append(slices.Clone(required), optional...)
	var missing, extra []string
	for _, name := range required {
		if !slices.Contains(items, name) {
			missing = append(missing, name)
		}
	}
	for i, name := range items {
		if !slices.Contains(known, name) || slices.Contains(items[:i], name) {
			extra = append(extra, name)
		}
	}
	if len(missing)+len(extra) > 0 {
		return nil, Gaps{{Err: ErrItems, Missing: missing, Extra: extra}}
	}
	out := slices.Clone(items)
	slices.SortFunc(out, func(a, b string) int { return slices.Index(known, a) - slices.Index(known, b) })
	if out == nil {
		out = []string{}
	}
	return out, nil
}

// check refuses what no record can be, whoever signed it.
func (r *Record) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	switch {
	case r.Format != Format:
		return bad("format %d, %d expected", r.Format, Format)
	case !isID(r.ID):
		return bad("id is not 32 lower-case hexadecimal digits")
	case !isShort(r.Service, 64):
		return bad("service has no name")
	case r.Shown.Language != "ja" && r.Shown.Language != "en":
		return bad("language %q", r.Shown.Language)
	case r.Shown.Format != Text && r.Shown.Format != HTML:
		return bad("shown in format %q", r.Shown.Format)
	case r.Shown.Purpose == "" || r.Shown.Operator == "" || r.Shown.Term == "":
		return bad("purpose, operator or term is missing")
	case r.Items == nil:
		return bad("items are missing")
	case !isShort(r.Asked.Operator, 64) || !isShort(r.Asked.Counter, 64):
		return bad("operator and counter need ids of 1 to 64 bytes")
	case r.Method != Paper && r.Method != Screen:
		return bad("method %q", r.Method)
	case (r.Method == Paper) != (r.Paper != nil):
		return bad("a paper's reference goes with the method paper, and only with it")
	case r.Paper != nil && (!isShort(r.Paper.Reference, 128) || r.Paper.Scan == Hash{}):
		return bad("a paper needs a reference of 1 to 128 bytes and the digest of its scan")
	case !isInstant(r.Given) || !isInstant(r.Until):
		return bad("times are in UTC and whole seconds")
	case !r.Given.Before(r.Until):
		return bad("it ends before it begins")
	case r.Holder != "" && !isShort(r.Holder, 64):
		return bad("the holder's reference has more than 64 bytes or control characters")
	}
	for i, name := range r.Items {
		if !isShort(name, 64) || slices.Contains(r.Items[:i], name) {
			return bad("item %d has no name or another one's", i+1)
		}
	}
	return nil
}

func isID(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

func isShort(s string, limit int) bool {
	return s != "" && len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// isInstant reports whether a time is in UTC and whole seconds, so that it has
// one encoding.
func isInstant(t time.Time) bool {
	return !t.IsZero() && t.Year() >= 1 && t.Year() <= 9999 && t.Format(time.RFC3339Nano) == t.UTC().Format(time.RFC3339)
}

// Domains keep what is signed here apart from everything else that the same
// key could sign.
const (
	consentDomain    = "freearea consent 1\n"
	withdrawalDomain = "freearea consent withdrawal 1\n"
)

// canonical is the one encoding of a record: JSON without white space, members
// in the order of the struct, a line feed at the end.
func canonical(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("consent: " + err.Error()) // times outside the years 0 to 9999, which check refuses
	}
	return b.Bytes()
}

// decode reads the canonical encoding and nothing else: what it accepts is
// encoded as the same bytes again.
func decode(data []byte, into any) error {
	if len(data) > MaxSize {
		return fmt.Errorf("%w: %d bytes, %d at most", ErrMalformed, len(data), MaxSize)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(canonical(into), data) {
		return fmt.Errorf("%w: not in the canonical encoding, or data behind it", ErrMalformed)
	}
	return nil
}

// SignedMessage is what the counter's key signs: the line "freearea consent 1"
// and a line feed, then the canonical encoding of the record and the key's
// name and version.
func (s *Signed) SignedMessage() []byte {
	return append([]byte(consentDomain), canonical(struct {
		Record Record `json:"consent"`
		Key    Key    `json:"key"`
	}{s.Record, s.Key})...)
}

// Sign signs a record with a counter's key. Version 0 of the key is its newest
// one; the version used stands in the result.
func Sign(ctx context.Context, store keys.Store, ref keys.Ref, r Record) (*Signed, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	s := &Signed{Record: r}
	var err error
	if s.Key, s.Signature, err = sign(ctx, store, ref, func(k Key) []byte { s.Key = k; return s.SignedMessage() }); err != nil {
		return nil, fmt.Errorf("sign consent %s: %w", r.ID, err)
	}
	if n := len(s.Encode()); n > MaxSize {
		return nil, fmt.Errorf("consent %s: %w: %d bytes, %d at most", r.ID, ErrMalformed, n, MaxSize)
	}
	return s, nil
}

func sign(ctx context.Context, store keys.Store, ref keys.Ref, message func(Key) []byte) (Key, []byte, error) {
	if ref.Version == 0 {
		entries, err := store.Entries(ctx)
		if err != nil {
			return Key{}, nil, err
		}
		for _, e := range entries {
			if e.Name == ref.Name && e.Kind == keys.CounterSigning && e.Retired.IsZero() && !e.Public {
				ref.Version = max(ref.Version, e.Version)
			}
		}
		if ref.Version == 0 {
			return Key{}, nil, fmt.Errorf("counter signing key %q: %w", ref.Name, keys.ErrNotFound)
		}
	}
	k := Key{ref.Name, ref.Version}
	if !isShort(k.Name, 64) {
		return Key{}, nil, fmt.Errorf("%w: name of the key", ErrMalformed)
	}
	signature, err := store.Sign(ctx, ref, keys.CounterSigning, message(k))
	if err == nil && len(signature) != ed25519.SignatureSize {
		err = fmt.Errorf("%w: signature of %d bytes", ErrMalformed, len(signature))
	}
	return k, signature, err
}

// Encode returns the canonical encoding: one line of JSON.
func (s *Signed) Encode() []byte { return canonical(s) }

// Parse reads a signed consent. It accepts exactly what Encode writes; whether
// the signature is right, Verify and Covers tell.
func Parse(data []byte) (*Signed, error) {
	var s Signed
	if err := decode(data, &s); err != nil {
		return nil, err
	}
	if err := s.Record.check(); err != nil {
		return nil, err
	}
	if err := checkSignature(s.Key, s.Signature); err != nil {
		return nil, err
	}
	return &s, nil
}

func checkSignature(k Key, signature []byte) error {
	if !isShort(k.Name, 64) || k.Version == 0 || len(signature) != ed25519.SignatureSize {
		return fmt.Errorf("%w: key or signature is missing", ErrMalformed)
	}
	return nil
}

// Verify checks the signature. The error is [ErrSignature].
func (s *Signed) Verify(public ed25519.PublicKey) error {
	return verify(public, s.Key, s.SignedMessage(), s.Signature)
}

func verify(public ed25519.PublicKey, k Key, message, signature []byte) error {
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, message, signature) {
		return fmt.Errorf("%w by key %s version %d", ErrSignature, k.Name, k.Version)
	}
	return nil
}

// Ref names the key that signed, for the key store.
func (k Key) Ref() keys.Ref { return keys.Ref{Name: k.Name, Version: k.Version} }

// NewWithdrawal takes back the consent. Only the ids of who received it are
// recorded beside the time.
func NewWithdrawal(s *Signed, received Asked, at time.Time) (Withdrawal, error) {
	w := Withdrawal{
		Format: Format, Consent: s.Record.ID, Service: s.Record.Service, Asked: received, At: at.UTC().Truncate(time.Second),
	}
	return w, w.check()
}

func (w *Withdrawal) check() error {
	switch {
	case w.Format != Format:
		return fmt.Errorf("%w: withdrawal of format %d, %d expected", ErrMalformed, w.Format, Format)
	case !isID(w.Consent) || !isShort(w.Service, 64):
		return fmt.Errorf("%w: withdrawal names no consent or service", ErrMalformed)
	case !isShort(w.Asked.Operator, 64) || !isShort(w.Asked.Counter, 64):
		return fmt.Errorf("%w: operator and counter of a withdrawal need ids of 1 to 64 bytes", ErrMalformed)
	case !isInstant(w.At):
		return fmt.Errorf("%w: time of a withdrawal is in UTC and whole seconds", ErrMalformed)
	}
	return nil
}

// SignedMessage is what the counter's key signs, as that of a consent but
// with the line "freearea consent withdrawal 1".
func (s *SignedWithdrawal) SignedMessage() []byte {
	return append([]byte(withdrawalDomain), canonical(struct {
		Withdrawal Withdrawal `json:"withdrawal"`
		Key        Key        `json:"key"`
	}{s.Withdrawal, s.Key})...)
}

// SignWithdrawal signs a withdrawal as Sign signs a consent.
func SignWithdrawal(ctx context.Context, store keys.Store, ref keys.Ref, w Withdrawal) (*SignedWithdrawal, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	s := &SignedWithdrawal{Withdrawal: w}
	var err error
	if s.Key, s.Signature, err = sign(ctx, store, ref, func(k Key) []byte { s.Key = k; return s.SignedMessage() }); err != nil {
		return nil, fmt.Errorf("sign withdrawal of consent %s: %w", w.Consent, err)
	}
	return s, nil
}

// Encode returns the canonical encoding: one line of JSON.
func (s *SignedWithdrawal) Encode() []byte { return canonical(s) }

// ParseWithdrawal reads a signed withdrawal as Parse reads a consent.
func ParseWithdrawal(data []byte) (*SignedWithdrawal, error) {
	var s SignedWithdrawal
	if err := decode(data, &s); err != nil {
		return nil, err
	}
	if err := s.Withdrawal.check(); err != nil {
		return nil, err
	}
	return &s, checkSignature(s.Key, s.Signature)
}

// Verify checks the signature. The error is [ErrSignature].
func (s *SignedWithdrawal) Verify(public ed25519.PublicKey) error {
	return verify(public, s.Key, s.SignedMessage(), s.Signature)
}
