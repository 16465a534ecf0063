package file

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/freearea/freearea/keys"
)

const (
	bundleName = "key-bundle"
	maxBundle  = 4 << 20
	// maxWrapped leaves room for age's header, its overhead and armour.
	maxWrapped = 2*maxBundle + 1<<20
)

// A bundle is what leaves a keystore. Like the keystore it is lines of JSON in
// canonical form:
//
//	{"freearea":"key-bundle","version":1 or 2,"created":…,"entries":N}
//	an entry's metadata as in the keystore, and "secret":… unless public_only, N times
//	{"sha256":32 bytes}
//
// A bundle is of version 2 if it holds a key for tokens or receipts, or else
// of version 1.
type bundleHeader struct {
	Format  string `json:"freearea"`
	Version int    `json:"version"`
	Created string `json:"created"`
	Entries int    `json:"entries"`
}

type bundleEntry struct {
	metadata
	Secret []byte `json:"secret,omitempty"`
}

// Export writes the named keys, wrapped with age, so that only the recipients
// can import them. Without refs it writes all, retired ones too. It returns
// what it wrote.
func (s *Store) Export(ctx context.Context, w io.Writer, refs []keys.Ref, recipients ...age.Recipient) ([]keys.Entry, error) {
	if len(recipients) == 0 {
		return nil, errors.New("a bundle needs a recipient")
	}
	b, list, err := s.bundle(ctx, refs, false)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return list, wrap(w, b, recipients)
}

// wrap writes a bundle that only the recipients can open.
func wrap(w io.Writer, b []byte, recipients []age.Recipient) error {
	wrapped, err := age.Encrypt(w, recipients...)
	if err == nil {
		_, err = wrapped.Write(b)
	}
	if err == nil {
		err = wrapped.Close()
	}
	if err != nil {
		return fmt.Errorf("wrapping the bundle: %w", err)
	}
	return nil
}

// ExportPlain writes the named keys as Export does, but unprotected: whoever
// reads the bundle has the keys.
func (s *Store) ExportPlain(ctx context.Context, w io.Writer, refs []keys.Ref) ([]keys.Entry, error) {
	return s.exportPlain(ctx, w, refs, false)
}

// ExportPublic writes the public halves of the named signing keys, without
// refs of all of them. The bundle holds no secret; it is for terminals that
// verify. ImportPlain reads it.
func (s *Store) ExportPublic(ctx context.Context, w io.Writer, refs []keys.Ref) ([]keys.Entry, error) {
	return s.exportPlain(ctx, w, refs, true)
}

func (s *Store) exportPlain(ctx context.Context, w io.Writer, refs []keys.Ref, public bool) ([]keys.Entry, error) {
	b, list, err := s.bundle(ctx, refs, public)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("writing the bundle: %w", err)
	}
	return list, nil
}

// bundle encodes entries; public leaves the secrets out.
func (s *Store) bundle(ctx context.Context, refs []keys.Ref, public bool) ([]byte, []keys.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return nil, nil, ErrClosed
	}
	var chosen []int
	for _, ref := range refs {
		i, err := s.img.find(ref)
		if err != nil {
			return nil, nil, err
		}
		if m := &s.img.entries[i].metadata; public && publicSize(m.Algorithm) == 0 {
			return nil, nil, fmt.Errorf("%w: %s version %d (%s) has no public half", keys.ErrWrongKind, m.Name, m.Version, m.Kind)
		}
		chosen = append(chosen, i)
	}
	if len(refs) == 0 {
		for i := range s.img.entries {
			if !public || publicSize(s.img.entries[i].Algorithm) > 0 {
				chosen = append(chosen, i)
			}
		}
	}
	slices.Sort(chosen)
	chosen = slices.Compact(chosen)
	if len(chosen) == 0 {
		return nil, nil, fmt.Errorf("%w: nothing to export", keys.ErrNotFound)
	}

	var entries []bundleEntry
	defer func() { eraseEntries(entries) }()
	for _, i := range chosen {
		e := &s.img.entries[i]
		out := bundleEntry{metadata: e.metadata}
		if public {
			out.PublicOnly = true
		} else {
			secret, err := s.keys.open(e)
			if err != nil {
				return nil, nil, err
			}
			if len(secret) > 0 {
				out.Secret = secret
			}
		}
		entries = append(entries, out)
	}
	return boundedBundle(s.now(), entries)
}

// boundedBundle encodes a bundle that can be imported, and lists it.
func boundedBundle(now time.Time, entries []bundleEntry) ([]byte, []keys.Entry, error) {
	b := encodeBundle(formatTime(now), entries)
	if len(b) > maxBundle {
		return nil, nil, fmt.Errorf("bundle of %d bytes: %d allowed; export fewer keys at once", len(b), maxBundle)
	}
	var list []keys.Entry
	for _, e := range entries {
		list = append(list, e.entry())
	}
	return b, list, nil
}

func eraseEntries(entries []bundleEntry) {
	for _, e := range entries {
		clear(e.Secret)
	}
}

// bundleVersion is the version of a bundle with these entries.
func bundleVersion(entries []bundleEntry) int {
	v := plainVersion
	for _, e := range entries {
		v = max(v, e.formatVersion())
	}
	return v
}

func encodeBundle(created string, entries []bundleEntry) []byte {
	b := append(canonical(bundleHeader{bundleName, bundleVersion(entries), created, len(entries)}), '\n')
	for _, e := range entries {
		b = append(append(b, canonical(e)...), '\n')
	}
	return appendSum(b)
}

// Import adds the keys of a bundle that was wrapped with age, as [ReadBundle]
// and [Store.AddBundle] do.
func (s *Store) Import(ctx context.Context, r io.Reader, identities ...age.Identity) ([]keys.Entry, error) {
	if len(identities) == 0 {
		return nil, errors.New("a wrapped bundle needs an identity")
	}
	return s.importBundle(ctx, r, identities)
}

// ImportPlain adds the keys of a bundle that is not wrapped, as Import does.
func (s *Store) ImportPlain(ctx context.Context, r io.Reader) ([]keys.Entry, error) {
	return s.importBundle(ctx, r, nil)
}

func (s *Store) importBundle(ctx context.Context, r io.Reader, identities []age.Identity) ([]keys.Entry, error) {
	b, err := ReadBundle(r, identities...)
	if err != nil {
		return nil, err
	}
	defer b.Erase()
	return s.AddBundle(ctx, b)
}

// AddBundle adds the keys of a bundle. All are added or none. A key that is
// there already, with the same secret, is passed over; another key of its name
// and version answers keys.ErrExists. It returns what was added.
func (s *Store) AddBundle(ctx context.Context, b *Bundle) ([]keys.Entry, error) {
	var added []keys.Entry
	err := s.update(ctx, func(img *image) error {
		for i := range b.entries {
			e := &b.entries[i]
			same, err := s.holds(img, e)
			if err != nil {
				return err
			}
			if same {
				continue
			}
			if err := img.insert(s.keys, e.metadata, e.Secret, s.rand); err != nil {
				return err
			}
			added = append(added, e.entry())
		}
		if len(added) == 0 {
			return errUnchanged
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return added, nil
}

// holds reports whether the keystore has the entry's key already, or its
// secret where the bundle has the public half only.
func (s *Store) holds(img *image, e *bundleEntry) (bool, error) {
	i, err := img.find(keys.Ref{Name: e.Name, Version: e.Version})
	if err != nil {
		return false, nil // not there
	}
	have := &img.entries[i]
	if have.Kind != e.Kind || have.Algorithm != e.Algorithm {
		return false, nil // insert says why not
	}
	if e.PublicOnly {
		return bytes.Equal(have.PublicKey, e.PublicKey), nil
	}
	secret, err := s.keys.open(have)
	if err != nil {
		return false, err
	}
	defer clear(secret)
	return subtle.ConstantTimeCompare(secret, e.Secret) == 1, nil
}

// parseBundle takes a bundle apart and checks every key against its check
// value. What it accepts, encodeBundle produces again. Errors wrap ErrBundle
// or ErrFormatVersion.
func parseBundle(b []byte) (*bundleHeader, []bundleEntry, error) {
	bad := func(place string, err error) error { return fmt.Errorf("%w: %s: %v", ErrBundle, place, err) }
	if len(b) > maxBundle {
		return nil, nil, fmt.Errorf("%w: larger than %d bytes", ErrBundle, maxBundle)
	}
	switch format, version := identify(b); {
	case format != bundleName:
		return nil, nil, fmt.Errorf("%w: this is something else", ErrBundle)
	case version < plainVersion || version > formatVersion:
		return nil, nil, fmt.Errorf("%w: %d, this software knows %d to %d", ErrFormatVersion, version, plainVersion, formatVersion)
	}
	lines, err := splitSum(b)
	if err != nil {
		return nil, nil, bad("end", err)
	}
	if len(lines) < 1 {
		return nil, nil, bad("end", errors.New("lines are missing"))
	}
	var h bundleHeader
	if err := decodeLine(lines[0], &h); err != nil {
		return nil, nil, bad("line 1", err)
	}
	if _, err := parseTime(h.Created); err != nil {
		return nil, nil, bad("line 1", err)
	}
	if h.Entries != len(lines)-1 || h.Entries < 1 || h.Entries > maxEntries {
		return nil, nil, bad("line 1", fmt.Errorf("%d entries announced, %d there", h.Entries, len(lines)-1))
	}
	var entries []bundleEntry
	for i, line := range lines[1:] {
		var e bundleEntry
		err := decodeLine(line, &e)
		if err == nil {
			err = e.validate()
		}
		if err == nil && i > 0 {
			err = follows(&entries[i-1].metadata, &e.metadata)
		}
		if err != nil {
			return nil, nil, bad(fmt.Sprintf("line %d", i+2), err)
		}
		entries = append(entries, e)
	}
	if v := bundleVersion(entries); h.Version != v {
		return nil, nil, bad("line 1", fmt.Errorf("version %d with keys of version %d", h.Version, v))
	}
	return &h, entries, nil
}

func (e *bundleEntry) validate() error {
	if err := e.metadata.validate(); err != nil {
		return err
	}
	again := e.metadata
	if err := again.describe(e.Secret); err != nil {
		return err
	}
	if again.Development != e.Development {
		return fmt.Errorf("key %s version %d: %w", e.Name, e.Version, keys.ErrDevelopmentKey)
	}
	if again.Check != e.Check || !bytes.Equal(again.PublicKey, e.PublicKey) {
		return fmt.Errorf("key %s version %d does not have the check value that it is said to have", e.Name, e.Version)
	}
	return nil
}
