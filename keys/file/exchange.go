package file

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/freearea/freearea/keys"
)

// Bundle is what [ReadBundle] has read, to be added to a store.
type Bundle struct {
	// Terminal says what the bundle is for, nil in one that is for no terminal.
	Terminal *Terminal
	entries  []bundleEntry
}

// Erase overwrites the keys.
func (b *Bundle) Erase() { eraseEntries(b.entries) }

// ReadBundle reads a bundle that was wrapped with age (binary or armoured) to
// one of the identities, or without identities one that is not wrapped. Every
// key is checked against its check value. An error wraps ErrBundle when the
// content is not a bundle, and age's error when the wrapping can't be opened.
func ReadBundle(r io.Reader, identities ...age.Identity) (*Bundle, error) {
	if len(identities) > 0 {
		br := bufio.NewReader(io.LimitReader(r, maxWrapped))
		r = br
		if start, _ := br.Peek(len(armor.Header)); string(start) == armor.Header {
			r = armor.NewReader(br)
		}
		if start, _ := br.Peek(1); string(start) == "{" {
			return nil, fmt.Errorf("%w: it is not wrapped", ErrBundle)
		}
		var err error
		if r, err = age.Decrypt(r, identities...); err != nil {
			return nil, fmt.Errorf("opening the wrapped bundle: %w", err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(r, maxBundle+1))
	defer clear(data)
	if err != nil {
		return nil, fmt.Errorf("reading the bundle: %w", err)
	}
	if format, _ := identify(data); format == terminalName {
		if len(identities) == 0 {
			return nil, fmt.Errorf("%w: one for a terminal is always wrapped", ErrBundle)
		}
		return parseTerminal(data)
	}
	_, entries, err := parseBundle(data)
	return &Bundle{entries: entries}, err
}

// Keeper is a store that takes keys in, such as a token.
type Keeper interface {
	Entries(ctx context.Context) ([]keys.Entry, error)
	AddSet(ctx context.Context, n keys.New, set keys.Set) (keys.Entry, error)
	AddDevelopment(ctx context.Context, n keys.New) (keys.Entry, error)
	AddLedger(ctx context.Context, n keys.New, key keys.Key) (keys.Entry, error)
	AddSigning(ctx context.Context, n keys.New, private ed25519.PrivateKey) (keys.Entry, error)
	AddPublic(ctx context.Context, n keys.New, public ed25519.PublicKey) (keys.Entry, error)
	Retire(ctx context.Context, ref keys.Ref) (keys.Entry, error)
}

// AddTo adds the bundle's keys to another store than this package's, one
// after the other, and returns those that were added, also when it fails: a
// token can't be asked to take all or none. A key that is there already, with
// the same check value, is passed over; another under its name and version
// answers keys.ErrExists before anything is added, and so does a kind that is
// for this package's stores only, with keys.ErrWrongKind.
func (b *Bundle) AddTo(ctx context.Context, to Keeper) ([]keys.Entry, error) {
	have, err := to.Entries(ctx)
	if err != nil {
		return nil, err
	}
	var missing []*bundleEntry
	for i := range b.entries {
		e := &b.entries[i]
		if e.formatVersion() > plainVersion {
			return nil, fmt.Errorf("%w: %s version %d (%s) is for keystores in files", keys.ErrWrongKind, e.Name, e.Version, e.Kind)
		}
		at := slices.IndexFunc(have, func(h keys.Entry) bool { return h.Ref() == e.entry().Ref() })
		switch {
		case at < 0:
			missing = append(missing, e)
		case have[at].Kind != e.Kind || have[at].Algorithm != e.Algorithm || have[at].Check != e.Check || have[at].Public && !e.PublicOnly:
			return nil, fmt.Errorf("%w: %s version %d", keys.ErrExists, e.Name, e.Version)
		}
	}
	var added []keys.Entry
	for _, e := range missing {
		entry, err := e.addTo(ctx, to)
		if err == nil && e.Retired != "" {
			entry, err = to.Retire(ctx, entry.Ref())
		}
		if err != nil {
			return added, err
		}
		added = append(added, entry)
	}
	return added, nil
}

func (e *bundleEntry) addTo(ctx context.Context, to Keeper) (keys.Entry, error) {
	n := keys.New{Name: e.Name, Kind: e.Kind, Version: e.Version, Algorithm: e.Algorithm}
	switch {
	case e.PublicOnly:
		return to.AddPublic(ctx, n, e.PublicKey)
	case e.Algorithm == keys.Ed25519:
		private := ed25519.NewKeyFromSeed(e.Secret)
		defer clear(private)
		return to.AddSigning(ctx, n, private)
	case e.Development && keyCount(e.Kind) > 1:
		return to.AddDevelopment(ctx, n)
	case keyCount(e.Kind) == 1:
		key, err := keys.NewKey(e.Secret)
		if err != nil {
			return keys.Entry{}, err
		}
		defer key.Erase()
		return to.AddLedger(ctx, n, key)
	}
	set, err := e.set(e.Secret)
	if err != nil {
		return keys.Entry{}, err
	}
	defer set.Erase()
	return to.AddSet(ctx, n, set)
}

// ExportPublic writes the public halves of the named Ed25519 keys of any store,
// as [Store.ExportPublic] does of this package's.
func ExportPublic(ctx context.Context, w io.Writer, from keys.Store, refs []keys.Ref, now time.Time) ([]keys.Entry, error) {
	entries, err := publicEntries(ctx, from, refs)
	if err != nil {
		return nil, err
	}
	b, list, err := boundedBundle(now, entries)
	if err == nil {
		_, err = w.Write(b)
	}
	return list, err
}

// publicEntries are the public halves of the named keys, sorted, each once.
func publicEntries(ctx context.Context, from keys.Store, refs []keys.Ref) ([]bundleEntry, error) {
	list, err := from.Entries(ctx)
	if err != nil {
		return nil, err
	}
	var out []bundleEntry
	for _, ref := range refs {
		public, err := from.PublicKey(ctx, ref)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(list, func(e keys.Entry) bool {
			return e.Name == ref.Name && e.Check == publicCheck(public) && (ref.Version == 0 && e.Retired.IsZero() || ref.Version == e.Version)
		})
		if at < 0 {
			return nil, fmt.Errorf("%w: %s version %d", keys.ErrNotFound, ref.Name, ref.Version)
		}
		e := list[at]
		m := metadata{
			Name: e.Name, Kind: e.Kind, Version: e.Version, Algorithm: e.Algorithm, Check: e.Check,
			PublicKey: public, PublicOnly: true, Created: formatTime(e.Created),
		}
		if !e.Retired.IsZero() {
			m.Retired = formatTime(e.Retired)
		}
		out = append(out, bundleEntry{metadata: m})
	}
	return sorted(out), nil
}

// sorted puts entries in a bundle's order, each once.
func sorted(entries []bundleEntry) []bundleEntry {
	slices.SortFunc(entries, func(a, b bundleEntry) int { return compare(&a.metadata, &b.metadata) })
	return slices.CompactFunc(entries, func(a, b bundleEntry) bool { return compare(&a.metadata, &b.metadata) == 0 })
}

const (
	terminalName    = "terminal-bundle"
	terminalVersion = 1
	maxServices     = 64
)

// Terminal says what a terminal's bundle is for.
type Terminal struct {
	// Group names the terminals that read with the same versions of the keys;
	// it may be empty.
	Group    string            `json:"group"`
	Services []TerminalService `json:"services"` // 1 to 64
}

// TerminalService is a service that the terminal reads.
type TerminalService struct {
	ID string `json:"id"`
	// Manifest is the digest of the manifest that the terminal is to have, 32
	// bytes (the manifest itself holds no secret and is copied as it is).
	Manifest  []byte `json:"manifest_sha256"`
	ReadKey   string `json:"read_key,omitempty"`   // its name; empty where the bundle has none for it
	IssuerKey string `json:"issuer_key,omitempty"` // its name; empty for a service that signs nothing
}

// terminalLine stands before the key bundle. It needs no checksum of its own,
// since the whole is always wrapped.
type terminalLine struct {
	Format  string `json:"freearea"`
	Version int    `json:"version"`
	Terminal
}

// ExportTerminal writes what a terminal needs to read services, and nothing
// else, wrapped with age to the terminal's recipient: the read keys named by
// read, and the public halves of the issuer's keys named by public. Keys of
// other kinds are refused with keys.ErrWrongKind; read keys from another store
// than this package's, which does not let them out, with keys.ErrMastersStay.
// It returns what it wrote.
func ExportTerminal(ctx context.Context, w io.Writer, from keys.Store, t Terminal, read, public []keys.Ref, now time.Time, recipients ...age.Recipient) ([]keys.Entry, error) {
	if len(recipients) == 0 {
		return nil, errors.New("a terminal's bundle needs a recipient")
	}
	entries, err := publicEntries(ctx, from, public)
	if err != nil {
		return nil, err
	}
	defer func() { eraseEntries(entries) }()
	for _, ref := range read {
		store, ok := from.(*Store)
		if !ok {
			return nil, fmt.Errorf("read key %s: %w", ref.Name, keys.ErrMastersStay)
		}
		m, secret, err := store.secret(ctx, ref, keys.Read)
		if err != nil {
			return nil, err
		}
		entries = append(entries, bundleEntry{*m, secret})
	}
	entries = sorted(entries)
	if err := t.validate(entries); err != nil {
		return nil, err
	}
	b, list, err := boundedBundle(now, entries)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	whole := append(append(canonical(terminalLine{terminalName, terminalVersion, t}), '\n'), b...)
	defer clear(whole)
	return list, wrap(w, whole, recipients)
}

// parseTerminal takes a terminal's bundle apart. Errors wrap ErrBundle or
// ErrFormatVersion.
func parseTerminal(data []byte) (*Bundle, error) {
	line, rest, _ := bytes.Cut(data, []byte{'\n'})
	if _, version := identify(data); version != terminalVersion {
		return nil, fmt.Errorf("%w: %d, this software knows %d", ErrFormatVersion, version, terminalVersion)
	}
	var head terminalLine
	if err := decodeLine(line, &head); err != nil {
		return nil, fmt.Errorf("%w: line 1: %v", ErrBundle, err)
	}
	_, entries, err := parseBundle(rest)
	if err != nil {
		return nil, err
	}
	if err := head.Terminal.validate(entries); err != nil {
		eraseEntries(entries)
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return &Bundle{Terminal: &head.Terminal, entries: entries}, nil
}

// validate holds a terminal's bundle to what a terminal needs: with these keys
// nobody writes a card, and each belongs to a service.
func (t *Terminal) validate(entries []bundleEntry) error {
	if t.Group != "" {
		if err := keys.CheckName(t.Group); err != nil {
			return fmt.Errorf("group: %w", err)
		}
	}
	if len(t.Services) < 1 || len(t.Services) > maxServices {
		return fmt.Errorf("%d services: 1 to %d allowed", len(t.Services), maxServices)
	}
	needed := map[string]keys.Kind{}
	for i, s := range t.Services {
		switch {
		case s.ID == "" || len(s.ID) > keys.MaxName || len(s.Manifest) != sha256.Size:
			return fmt.Errorf("service %d has no id, or no digest of its manifest", i+1)
		case i > 0 && strings.Compare(t.Services[i-1].ID, s.ID) >= 0:
			return fmt.Errorf("service %s stands there twice, or out of order", s.ID)
		}
		for name, kind := range map[string]keys.Kind{s.ReadKey: keys.Read, s.IssuerKey: keys.IssuerSigning} {
			if name == "" {
				continue
			}
			if !slices.ContainsFunc(entries, func(e bundleEntry) bool { return e.Name == name && e.Kind == kind }) {
				return fmt.Errorf("%w: %s of service %s", keys.ErrNotFound, name, s.ID)
			}
			needed[name] = kind
		}
	}
	for _, e := range entries {
		if needed[e.Name] != e.Kind || e.PublicOnly != (e.Kind == keys.IssuerSigning) {
			return fmt.Errorf("%w: %s version %d (%s) is not what a terminal needs", keys.ErrWrongKind, e.Name, e.Version, e.Kind)
		}
	}
	return nil
}
