package pkcs11

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/keys"
)

// New says what key is to be made, or taken in.
type New = keys.New

// Generate has the token draw a new key, or for a key set new keys, that can't
// be read out of it.
func (s *Store) Generate(ctx context.Context, n New) (keys.Entry, error) {
	algorithms := n.Kind.Algorithms()
	if n.Algorithm == "" && len(algorithms) > 0 {
		n.Algorithm = algorithms[0]
	}
	mechanism, name := uint(ckmAESKeyGen), "CKM_AES_KEY_GEN"
	if n.Algorithm == keys.Ed25519 {
		mechanism, name = ckmECEdwardsKeyPairGen, "CKM_EC_EDWARDS_KEY_PAIR_GEN"
	}
	return s.add(ctx, n, func(session uint, t templates) error {
		if s.mechanisms[mechanism] == 0 {
			return s.need(mechanism, 1, name, "make such a key")
		}
		if n.Algorithm == keys.Ed25519 {
			return s.generatePair(session, t)
		}
		size := map[string]uint{keys.AES128: 16, keys.AES192: 24, keys.AES256: 32}[n.Algorithm]
		return s.makeSet(session, n.Kind, func(p keys.Purpose) (uint, error) {
			return s.lib.generateKey(session, ckmAESKeyGen, append(t.aes(p), attribute{ckaValueLen, size}))
		})
	})
}

// AddSet has the token take in a given key set, of a Security Domain or for
// reading, which then can't be read out of it. What the host knew of it before
// is not the token's affair; what the Store has copied of it is erased. The token
// then computes with the keys, and ErrToken is the answer when they are not those
// it was given: none is left. The version is n's, or the set's where n has none.
// The well-known development key is refused with keys.ErrDevelopmentKey; see
// AddDevelopment. A token that takes no keys in answers ErrToken.
func (s *Store) AddSet(ctx context.Context, n New, set keys.Set) (keys.Entry, error) {
	n, err := n.Set(set)
	if err != nil {
		return keys.Entry{}, err
	}
	return s.addSet(ctx, n, set)
}

// AddDevelopment adds the well-known development key set as a Security
// Domain's or as one for reading; Entries tells it by what it computes.
func (s *Store) AddDevelopment(ctx context.Context, n New) (keys.Entry, error) {
	n, set, err := n.DevelopmentSet()
	if err != nil {
		return keys.Entry{}, err
	}
	return s.addSet(ctx, n, set)
}

func (s *Store) addSet(ctx context.Context, n New, set keys.Set) (keys.Entry, error) {
	return s.addAES(ctx, n, map[keys.Purpose]keys.Key{keys.PurposeENC: set.ENC, keys.PurposeMAC: set.MAC, keys.PurposeDEK: set.DEK})
}

// AddLedger has the token take in a given ledger key, as AddSet does.
func (s *Store) AddLedger(ctx context.Context, n New, key keys.Key) (keys.Entry, error) {
	n, err := n.Ledger(key)
	if err != nil {
		return keys.Entry{}, err
	}
	return s.addAES(ctx, n, map[keys.Purpose]keys.Key{0: key})
}

func (s *Store) addAES(ctx context.Context, n New, parts map[keys.Purpose]keys.Key) (keys.Entry, error) {
	own := &given{parts: make(map[keys.Purpose][]byte)}
	for p, k := range parts {
		own.parts[p] = slices.Clone(k.Bytes())
	}
	return s.addGiven(ctx, n, own, func(session uint, t templates) error {
		return s.makeSet(session, n.Kind, func(p keys.Purpose) (uint, error) {
			o, err := s.lib.createObject(session, append(t.aes(p), attribute{ckaValue, own.parts[p]}))
			if err != nil {
				return 0, err
			}
			if err := s.same(session, o, own.parts[p]); err != nil {
				return 0, errors.Join(err, s.lib.destroy(session, o))
			}
			return o, nil
		})
	})
}

// same has the token compute with an AES key that it took in, and compares:
// what it holds must be what it was given.
func (s *Store) same(session, object uint, value []byte) error {
	block, err := aes.NewCipher(value)
	if err != nil {
		return err
	}
	message := bytes.Repeat([]byte{1}, aes.BlockSize) // the key check value's
	want := make([]byte, aes.BlockSize)
	var got []byte
	if s.mechanisms[ckmAESECB]&ckfEncrypt != 0 {
		block.Encrypt(want, message)
		got, err = s.lib.encrypt(session, ckmAESECB, object, message)
	} else if err = s.need(ckmAESCMAC, ckfSign, "CKM_AES_CMAC", "show which key it has taken in"); err == nil {
		var mac [16]byte
		if mac, err = sp800.Sum(value, message); err == nil {
			want = mac[:]
			got, err = s.lib.sign(session, ckmAESCMAC, object, message)
		}
	}
	if err != nil {
		return fmt.Errorf("key check value: %w", err)
	}
	if subtle.ConstantTimeCompare(got, want) != 1 {
		return fmt.Errorf("%w: it computes with another key than it was given", ErrToken)
	}
	return nil
}

// given is key material in copies of the Store's own: who gave it may be gone,
// and have erased his, before the token is done. The operation that uses it
// erases it, or addGiven when that never came to it.
type given struct {
	parts map[keys.Purpose][]byte
	taken atomic.Bool
}

func (g *given) erase() {
	for _, b := range g.parts {
		clear(b)
	}
}

// addGiven is add for key material, which is erased in every case.
func (s *Store) addGiven(ctx context.Context, n New, g *given, make func(session uint, t templates) error) (keys.Entry, error) {
	e, err := s.add(ctx, n, func(session uint, t templates) error {
		if !g.taken.CompareAndSwap(false, true) {
			return context.Canceled // nobody waits for it
		}
		defer g.erase()
		return make(session, t)
	})
	if g.taken.CompareAndSwap(false, true) {
		g.erase()
	}
	return e, err
}

// AddSigning has the token take in a given Ed25519 key, as AddSet does a set.
func (s *Store) AddSigning(ctx context.Context, n New, private ed25519.PrivateKey) (keys.Entry, error) {
	if len(private) != ed25519.PrivateKeySize {
		return keys.Entry{}, fmt.Errorf("Ed25519 key of %d bytes: %d expected", len(private), ed25519.PrivateKeySize)
	}
	n.Algorithm = keys.Ed25519
	seed, point := private.Seed(), publicPointDER(private[ed25519.SeedSize:])
	own := &given{parts: map[keys.Purpose][]byte{0: seed}}
	return s.addGiven(ctx, n, own, func(session uint, t templates) error {
		return t.curves(func(curve attribute) error {
			// The private half first: without it the other would be a whole key.
			o, err := s.lib.createObject(session, append(kept(t.common(ckoPrivateKey, ckkECEdwards, 0)), curve, attribute{ckaValue, seed}))
			if err != nil {
				return err
			}
			if _, err = s.lib.createObject(session, append(t.public(), curve, attribute{ckaECPoint, point})); err != nil {
				s.lib.destroy(session, o)
			}
			return err
		})
	})
}

// publicPointDER encodes a public key as CKA_EC_POINT has it, a DER OCTET STRING.
func publicPointDER(public []byte) []byte {
	return append([]byte{0x04, ed25519.PublicKeySize}, public...)
}

// AddPublic adds the public half of a signing key: it verifies, and Sign
// answers keys.ErrPublicOnly.
func (s *Store) AddPublic(ctx context.Context, n New, public ed25519.PublicKey) (keys.Entry, error) {
	if len(public) != ed25519.PublicKeySize {
		return keys.Entry{}, fmt.Errorf("Ed25519 public key of %d bytes: %d expected", len(public), ed25519.PublicKeySize)
	}
	n.Algorithm = keys.Ed25519
	point := publicPointDER(public)
	return s.add(ctx, n, func(session uint, t templates) error {
		return t.curves(func(curve attribute) error {
			_, err := s.lib.createObject(session, append(t.public(), curve, attribute{ckaECPoint, point}))
			return err
		})
	})
}

// add makes the objects of a key that is not there yet, under its version.
func (s *Store) add(ctx context.Context, n New, make func(session uint, t templates) error) (keys.Entry, error) {
	if err := keys.CheckName(n.Name); err != nil {
		return keys.Entry{}, err
	}
	algorithms := n.Kind.Algorithms()
	switch {
	case kindCodes[n.Kind] == 0 && len(algorithms) > 0:
		return keys.Entry{}, notInToken(n.Kind)
	case !slices.Contains(algorithms, n.Algorithm):
		return keys.Entry{}, fmt.Errorf("kind %q does not go with algorithm %q", n.Kind, n.Algorithm)
	case n.Version > keys.MaxVersion:
		return keys.Entry{}, fmt.Errorf("key version %d: 1 to %d allowed", n.Version, keys.MaxVersion)
	}
	return do(ctx, s, true, func(session uint) (keys.Entry, error) {
		list, err := s.list(session, n.Name)
		if err != nil {
			return keys.Entry{}, err
		}
		highest := byte(0)
		for _, k := range list {
			switch {
			case k.id.kind != n.Kind:
				return keys.Entry{}, fmt.Errorf("%w: %s is of kind %s", keys.ErrWrongKind, n.Name, k.id.kind)
			case k.id.version == n.Version:
				return keys.Entry{}, fmt.Errorf("%w: %s version %d", keys.ErrExists, n.Name, n.Version)
			}
			highest = max(highest, k.id.version)
		}
		if n.Version == 0 {
			if highest == keys.MaxVersion {
				return keys.Entry{}, fmt.Errorf("key %s has reached version %d, the last", n.Name, keys.MaxVersion)
			}
			n.Version = highest + 1
		}
		if err := make(session, templates{n, s.seconds()}); err != nil {
			return keys.Entry{}, fmt.Errorf("making key %s version %d: %w", n.Name, n.Version, err)
		}
		k, err := s.find(session, keys.Ref{Name: n.Name, Version: n.Version})
		if err != nil {
			return keys.Entry{}, err
		}
		if err := k.usable(); err != nil {
			// A token that keeps its keys otherwise than it was asked to, so
			// that they could be read, does not keep this one.
			for _, o := range k.objects() {
				s.lib.destroy(session, o.handle)
			}
			return keys.Entry{}, err
		}
		return s.entry(session, k)
	})
}

func notInToken(kind keys.Kind) error {
	return fmt.Errorf("%w: keys of kind %q are not kept in hardware by this version", keys.ErrWrongKind, kind)
}

// SchemeKey answers keys.ErrWrongKind: the keys of tokens and receipts are not
// kept in hardware by this version.
func (s *Store) SchemeKey(_ context.Context, _ keys.Ref, kind keys.Kind) (keys.SchemeKey, error) {
	return keys.SchemeKey{}, notInToken(kind)
}

// templates are the attributes of a key's objects.
type templates struct {
	New
	created uint64
}

func (t templates) common(class, keyType uint, p keys.Purpose) []attribute {
	id := objectID{kind: t.Kind, version: t.Version, purpose: p, created: t.created}
	return []attribute{
		{ckaClass, class}, {ckaKeyType, keyType}, {ckaToken, true},
		{ckaLabel, t.Name}, {ckaID, id.bytes()},
	}
}

// kept says that the token keeps the key to itself.
func kept(template []attribute) []attribute {
	return append(template, attribute{ckaPrivate, true}, attribute{ckaSensitive, true}, attribute{ckaExtractable, false}, attribute{ckaSign, true})
}

func (t templates) aes(p keys.Purpose) []attribute {
	return append(kept(t.common(ckoSecretKey, ckkAES, p)),
		attribute{ckaEncrypt, true}, // for the key check value
		attribute{ckaDecrypt, false}, attribute{ckaVerify, false}, attribute{ckaDerive, false},
		attribute{ckaWrap, false}, attribute{ckaUnwrap, false})
}

func (t templates) public() []attribute {
	return append(t.common(ckoPublicKey, ckkECEdwards, 0), attribute{ckaPrivate, false}, attribute{ckaVerify, true})
}

// curves tries the names of the curve one after the other: tokens differ in how
// they want it named (PKCS#11 3.0, 2.3.10: its OID or its name), and a refusal
// makes nothing.
func (t templates) curves(make func(curve attribute) error) (err error) {
	for _, curve := range []string{"\x06\x03\x2B\x65\x70", "\x13\x0Cedwards25519"} {
		err = make(attribute{ckaECParams, []byte(curve)})
		if !errors.Is(err, ckrAttributeValue) && !errors.Is(err, ckrDomainParamsInvalid) && !errors.Is(err, ckrCurveNotSupported) {
			break
		}
	}
	return err
}

func (s *Store) generatePair(session uint, t templates) error {
	return t.curves(func(curve attribute) error {
		_, _, err := s.lib.generateKeyPair(session, ckmECEdwardsKeyPairGen, append(t.public(), curve), kept(t.common(ckoPrivateKey, ckkECEdwards, 0)))
		return err
	})
}

// makeSet makes the objects of an AES key or key set, all or none, as far as
// the token goes along.
func (s *Store) makeSet(session uint, kind keys.Kind, make func(keys.Purpose) (uint, error)) (err error) {
	var made []uint
	defer func() {
		if err != nil {
			for _, o := range made {
				s.lib.destroy(session, o)
			}
		}
	}()
	// ENC comes last: without it, what a crash leaves is no key.
	for _, p := range slices.Backward(purposes(kind)) {
		o, err := make(p)
		if err != nil {
			return err
		}
		made = append(made, o)
	}
	return nil
}
