package pkcs11

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Entries lists all keys, sorted by name and version. What
// can't be used is left out: see Problems. The check value of a key with
// CKA_ENCRYPT not set is empty, as the token can't compute it.
func (s *Store) Entries(ctx context.Context) ([]keys.Entry, error) {
	return do(ctx, s, false, func(session uint) ([]keys.Entry, error) {
		list, err := s.list(session, "")
		if err != nil {
			return nil, err
		}
		out := []keys.Entry{}
		for _, k := range list {
			if k.usable() != nil {
				continue
			}
			e, err := s.entry(session, k)
			if err != nil {
				return nil, fmt.Errorf("key %s version %d: %w", k.name, k.id.version, err)
			}
			out = append(out, e)
		}
		return out, nil
	})
}

// entry describes a usable key.
func (s *Store) entry(session uint, k *key) (keys.Entry, error) {
	e := k.entry()
	if k.signing() {
		e.Check = fmt.Sprintf("%X", k.public.public[:8])
		return e, nil
	}
	var parts []string
	for _, p := range purposes(k.id.kind) {
		check, development, err := s.check(session, k.secret[p])
		if err != nil {
			return e, err
		}
		if check == "" {
			parts = nil
			break
		}
		parts = append(parts, check)
		e.Development = e.Development || development
	}
	e.Check = strings.Join(parts, "/")
	return e, nil
}

// check computes the key check value of an AES key (GPCS B.6) in the token,
// and whether it is the well-known development key.
func (s *Store) check(session uint, o *object) (string, bool, error) {
	if !o.encrypts || s.mechanisms[ckmAESECB]&ckfEncrypt == 0 {
		return "", false, nil
	}
	b, err := s.lib.encrypt(session, ckmAESECB, o.handle, bytes.Repeat([]byte{1}, 16))
	if err != nil {
		return "", false, fmt.Errorf("key check value: %w", err)
	}
	if len(b) != 16 {
		return "", false, fmt.Errorf("%w: %d bytes encrypted to %d", ErrToken, 16, len(b))
	}
	set := keys.DevelopmentSet()
	defer set.Erase()
	known := set.ENC.CheckValue()
	if !bytes.Equal(b[:3], known[:]) || o.size != 16 || s.mechanisms[ckmAESCMAC]&ckfSign == 0 {
		return fmt.Sprintf("%X", b[:3]), false, nil
	}
	// Three bytes may be equal by chance.
	message := []byte("development")
	mac, err := s.cmac(session, o, message)
	if err != nil {
		return "", false, err
	}
	want, err := sp800.Sum(set.ENC.Bytes(), message)
	return fmt.Sprintf("%X", b[:3]), mac == want, err
}

// cmac computes an AES-CMAC in the token.
func (s *Store) cmac(session uint, o *object, message []byte) (out [16]byte, err error) {
	b, err := s.lib.sign(session, ckmAESCMAC, o.handle, message)
	if err != nil {
		return out, fmt.Errorf("AES-CMAC: %w", err)
	}
	defer clear(b)
	if len(b) != len(out) {
		return out, fmt.Errorf("%w: an AES-CMAC of %d bytes", ErrToken, len(b))
	}
	copy(out[:], b)
	return out, nil
}

// SecurityDomainKeys returns the key set of a Security Domain; see
// [keys.Store] and [keys.Diversify]. The master keys don't leave the token, so
// that MethodNone, and what it has no mechanism for here (MethodVISA2,
// MethodEMV), wrap [keys.ErrMastersStay].
func (s *Store) SecurityDomainKeys(ctx context.Context, ref keys.Ref, method keys.Method, cardData []byte) (keys.Set, error) {
	return s.diversified(ctx, ref, keys.SecurityDomain, method, iso7816.AID{}, cardData)
}

// ReadKeys returns the key set for reading one instance; see [keys.Store] and
// [keys.Diversify].
func (s *Store) ReadKeys(ctx context.Context, ref keys.Ref, method keys.Method, instance iso7816.AID, data []byte) (keys.Set, error) {
	return s.diversified(ctx, ref, keys.Read, method, instance, data)
}

func (s *Store) diversified(ctx context.Context, ref keys.Ref, kind keys.Kind, method keys.Method, instance iso7816.AID, data []byte) (keys.Set, error) {
	if err := keys.CheckMethod(kind, method); err != nil {
		return keys.Set{}, fmt.Errorf("key %s: %w", ref.Name, err)
	}
	data = slices.Clone(data) // the caller may be gone before the token is done
	return do(ctx, s, false, func(session uint) (keys.Set, error) {
		k, err := s.use(session, ref, kind)
		if err != nil {
			return keys.Set{}, err
		}
		set, err := keys.DiversifyWith(kind, method, keys.Masters{
			Version: k.id.version,
			Size:    int(k.size()),
			CMAC: func(p keys.Purpose, message []byte) ([16]byte, error) {
				if err := s.need(ckmAESCMAC, ckfSign, "CKM_AES_CMAC", "derive keys"); err != nil {
					return [16]byte{}, err
				}
				return s.cmac(session, k.secret[p], message)
			},
		}, instance, data)
		if err != nil {
			return keys.Set{}, fmt.Errorf("key %s version %d: %w", k.name, k.id.version, err)
		}
		return set, nil
	})
}

// Sign signs with Ed25519 in the token; kind must be the key's. The signature
// is verified before it is returned.
func (s *Store) Sign(ctx context.Context, ref keys.Ref, kind keys.Kind, message []byte) ([]byte, error) {
	if !kind.Signs() {
		return nil, fmt.Errorf("%w: keys of kind %q do not sign", keys.ErrWrongKind, kind)
	}
	message = slices.Clone(message)
	return do(ctx, s, false, func(session uint) ([]byte, error) {
		k, err := s.use(session, ref, kind)
		if err != nil {
			return nil, err
		}
		if err := s.need(ckmEDDSA, ckfSign, "CKM_EDDSA", "sign"); err != nil {
			return nil, err
		}
		signature, err := s.lib.sign(session, ckmEDDSA, k.secret[0].handle, message)
		if err != nil {
			return nil, fmt.Errorf("signing with key %s version %d: %w", k.name, k.id.version, err)
		}
		if !ed25519.Verify(k.public.public, message, signature) {
			return nil, fmt.Errorf("%w: %s version %d: its halves do not belong together", ErrDamaged, k.name, k.id.version)
		}
		return signature, nil
	})
}

// PublicKey returns the public half of a signing key, also of a retired one
// whose version is named.
func (s *Store) PublicKey(ctx context.Context, ref keys.Ref) (ed25519.PublicKey, error) {
	return do(ctx, s, false, func(session uint) (ed25519.PublicKey, error) {
		k, err := s.find(session, ref)
		if err != nil {
			return nil, err
		}
		if !k.signing() {
			return nil, fmt.Errorf("%w: %s version %d (%s) has no public half", keys.ErrWrongKind, k.name, k.id.version, k.id.kind)
		}
		if err := k.usable(); err != nil {
			return nil, err
		}
		return k.public.public, nil
	})
}

// Digest returns the AES-CMAC of the message under a ledger key, computed in
// the token.
func (s *Store) Digest(ctx context.Context, ref keys.Ref, message []byte) ([16]byte, error) {
	message = slices.Clone(message)
	return do(ctx, s, false, func(session uint) ([16]byte, error) {
		k, err := s.use(session, ref, keys.Ledger)
		if err != nil {
			return [16]byte{}, err
		}
		if err := s.need(ckmAESCMAC, ckfSign, "CKM_AES_CMAC", "compute digests"); err != nil {
			return [16]byte{}, err
		}
		return s.cmac(session, k.secret[0], message)
	})
}

// Retire takes a key out of use: from then on only its public half answers.
// With version 0 it is the newest; retiring a retired key answers ErrRetired.
func (s *Store) Retire(ctx context.Context, ref keys.Ref) (keys.Entry, error) {
	return s.setRetired(ctx, ref, s.seconds(), func(k *key) error {
		if k.retired() && !k.halfRetired() {
			return fmt.Errorf("%w: %s version %d", keys.ErrRetired, k.name, k.id.version)
		}
		return nil
	})
}

// Reinstate puts a retired key back into use, for a card that turns up after
// its keys were given up. The version must be named.
func (s *Store) Reinstate(ctx context.Context, ref keys.Ref) (keys.Entry, error) {
	return s.setRetired(ctx, ref, 0, func(k *key) error {
		if !k.retired() {
			return fmt.Errorf("%w: %s version %d", ErrNotRetired, k.name, k.id.version)
		}
		return nil
	})
}

func (s *Store) setRetired(ctx context.Context, ref keys.Ref, when uint64, allow func(*key) error) (keys.Entry, error) {
	return do(ctx, s, true, func(session uint) (keys.Entry, error) {
		k, err := s.find(session, ref)
		if err != nil {
			return keys.Entry{}, err
		}
		if err := k.usable(); err != nil {
			return keys.Entry{}, err
		}
		if err := allow(k); err != nil {
			return keys.Entry{}, err
		}
		for _, o := range k.objects() {
			id := o.id
			id.retired = when
			if err := s.lib.setAttribute(session, o.handle, attribute{ckaID, id.bytes()}); err != nil {
				return keys.Entry{}, fmt.Errorf("key %s version %d: %w", k.name, k.id.version, err)
			}
		}
		if k, err = s.find(session, k.ref()); err != nil {
			return keys.Entry{}, err
		}
		return s.entry(session, k)
	})
}

func (k *key) ref() keys.Ref { return keys.Ref{Name: k.name, Version: k.id.version} }

// Remove deletes a retired key for good, or one that can't be used; another
// answers ErrNotRetired. The version must be named. Nothing brings it back:
// cards that still hold keys of that version can no longer be read or managed.
func (s *Store) Remove(ctx context.Context, ref keys.Ref) error {
	if ref.Version == 0 {
		return fmt.Errorf("removing key %s: name the version", ref.Name)
	}
	_, err := do(ctx, s, true, func(session uint) (struct{}, error) {
		k, err := s.find(session, ref)
		if err != nil {
			return struct{}{}, err
		}
		if !k.retired() && !errors.Is(k.usable(), ErrDamaged) {
			return struct{}{}, fmt.Errorf("%w: %s version %d", ErrNotRetired, k.name, k.id.version)
		}
		for _, o := range k.objects() {
			if err := s.lib.destroy(session, o.handle); err != nil {
				return struct{}{}, fmt.Errorf("key %s version %d: %w", k.name, k.id.version, err)
			}
		}
		return struct{}{}, nil
	})
	return err
}
