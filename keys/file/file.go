package file

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Errors of this package, beside those of package keys.
var (
	// ErrPassphrase: the passphrase is not this keystore's. (Somebody who
	// changed the salt, the cost or the check in the header and mended the
	// checksum gets this error too: the passphrase then cannot be checked.)
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrEmptyPassphrase: a keystore needs a passphrase.
	ErrEmptyPassphrase = errors.New("the passphrase is empty")
	// ErrDamaged: the file is not what was written, by accident or intent.
	ErrDamaged = errors.New("keystore is damaged")
	// ErrNotKeystore: the file is something else.
	ErrNotKeystore = errors.New("not a keystore")
	// ErrFormatVersion: a later version of this software wrote the file.
	ErrFormatVersion = errors.New("unknown format version")
	// ErrCost: the file asks for more memory or time than allowed.
	ErrCost = errors.New("argon2id parameters out of bounds")
	// ErrPermissions: others than the owner can read or write the file.
	ErrPermissions = errors.New("file can be read or written by others than its owner")
	// ErrRolledBack: the file is older than what this Store has seen of it.
	ErrRolledBack = errors.New("keystore was replaced by an older one")
	// ErrPassphraseChanged: another process has changed the passphrase since
	// this Store was opened. Open it again.
	ErrPassphraseChanged = errors.New("the keystore's passphrase was changed by another process")
	// ErrNotRetired: only a retired key can be removed.
	ErrNotRetired = errors.New("key is not retired")
	// ErrOldFormat: the file is of a version that has no such keys. Changing its
	// passphrase makes it one of the newest.
	ErrOldFormat = errors.New("keystore is of an older format")
	// ErrBundle: what should be imported is no bundle, or a damaged one.
	ErrBundle = errors.New("malformed key bundle")
	// ErrClosed: the Store was closed.
	ErrClosed = errors.New("keystore is closed")
)

// Cost is the cost of guessing a passphrase: the parameters of argon2id
// (RFC 9106).
type Cost struct {
	Time    uint32 // passes, 1 to 10
	Memory  uint32 // KiB, 8 times Threads to 262144
	Threads uint8  // 1 to 16
}

// DefaultCost returns the cost of new keystores: RFC 9106's second recommended
// option, 3 passes over 64 MiB with 4 lanes.
func DefaultCost() Cost { return Cost{Time: 3, Memory: 64 << 10, Threads: 4} }

// Options are for Create and Open. The zero value is right outside of tests.
type Options struct {
	Now  func() time.Time // nil is time.Now
	Rand io.Reader        // nil is crypto/rand
	// Cost is for Create; an opened keystore keeps its own. Zero is DefaultCost.
	Cost Cost
}

// Store is an open keystore. It implements [keys.Store] and is safe for
// concurrent use. Several processes may have the same file open: what they
// write is seen after Reload, or after a change of one's own.
type Store struct {
	path string
	now  func() time.Time
	rand io.Reader
	// step is called before each system call that replaces the file, so that
	// tests can stop there. nil outside of tests.
	step func(name string) error

	mu   sync.RWMutex
	keys *fileKeys // nil after Close
	img  *image    // the file as last read or written
}

var (
	_ keys.Store      = (*Store)(nil)
	_ keys.SchemeKeys = (*Store)(nil)
)

// New says what key is to be added.
type New = keys.New

func (o Options) store(path string) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	src := &source{o: o}
	return &Store{path: path, now: src.now, rand: src}
}

// source lets a Store, which is safe for concurrent use, use a clock and
// randomness that are not.
type source struct {
	mu sync.Mutex
	o  Options
}

func (s *source) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Now()
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Rand.Read(p)
}

// Create makes a keystore without entries. An existing file is left alone and
// answers fs.ErrExist. The passphrase stays the caller's, to be erased.
func Create(ctx context.Context, path string, passphrase []byte, o Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := o.store(path)
	if o.Cost == (Cost{}) {
		o.Cost = DefaultCost()
	}
	h, fk, err := newHeader(passphrase, o.Cost, s.rand)
	if err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	there, err := exists(path)
	if err == nil && there {
		err = &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	if err != nil {
		return nil, err
	}
	s.keys, s.img = fk, &image{header: *h, generation: 1}
	data, err := fk.encode(s.img)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(path, data, nil); err != nil {
		return nil, err
	}
	return s, nil
}

// Open opens a keystore. Errors wrap ErrPermissions, ErrNotKeystore,
// ErrFormatVersion, ErrCost, ErrPassphrase or ErrDamaged, or are those of the
// file system. The passphrase stays the caller's, to be erased.
func Open(ctx context.Context, path string, passphrase []byte, o Options) (*Store, error) {
	if len(passphrase) == 0 {
		return nil, ErrEmptyPassphrase
	}
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	s := o.store(path)
	img, err := load(ctx, path)
	if err != nil {
		return nil, err
	}
	fk, err := img.header.unwrap(passphrase)
	if err == nil {
		err = fk.verify(img)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.keys, s.img = fk, img
	return s, nil
}

// Info is what a keystore shows without its passphrase. None of it is
// authenticated: it is for diagnosis.
type Info struct {
	Cost       Cost
	Generation uint64 // counts the changes
	Entries    []keys.Entry
}

// Inspect reads a keystore without its passphrase. Errors are those of Open,
// but for ErrPassphrase.
func Inspect(ctx context.Context, path string) (Info, error) {
	path, err := resolve(path)
	if err != nil {
		return Info{}, err
	}
	img, err := load(ctx, path)
	if err != nil {
		return Info{}, err
	}
	return Info{Cost: img.header.cost(), Generation: img.generation, Entries: img.list()}, nil
}

// load reads and parses the file, where the system wants it under the lock.
func load(ctx context.Context, path string) (*image, error) {
	if lockReaders {
		unlock, err := lockFile(ctx, path)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	return loadLocked(path)
}

func loadLocked(path string) (*image, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	img, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

func (img *image) list() []keys.Entry {
	list := make([]keys.Entry, len(img.entries))
	for i := range img.entries {
		list[i] = img.entries[i].entry()
	}
	return list
}

// Path returns the file's absolute path, symbolic links resolved.
func (s *Store) Path() string { return s.path }

// Close erases the file key from memory. The Store answers ErrClosed from then on.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys != nil {
		s.keys.erase()
		s.keys, s.img = nil, nil
	}
	return nil
}

// Reload reads the file again, to see what other processes have changed.
func (s *Store) Reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return ErrClosed
	}
	img, err := load(ctx, s.path)
	if err == nil {
		err = s.newer(img)
	}
	if err != nil {
		return err
	}
	s.img = img
	return nil
}

// newer says whether img, just read, may take the place of s.img.
func (s *Store) newer(img *image) error {
	err := s.keys.verify(img)
	switch {
	case err != nil && !bytes.Equal(canonical(img.header), canonical(s.img.header)):
		err = ErrPassphraseChanged
	case err == nil && img.generation < s.img.generation:
		err = ErrRolledBack
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return nil
}

// errUnchanged is for a change that found nothing to do.
var errUnchanged = errors.New("nothing to change")

// update carries out a change: under the lock it reads the file anew, lets
// change alter that image, and puts the result in the file's place. After an
// error nothing has changed.
func (s *Store) update(ctx context.Context, change func(*image) error) error {
	unlock, err := lockFile(ctx, s.path)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return ErrClosed
	}
	img, err := loadLocked(s.path)
	if err != nil {
		return err
	}
	if err := s.newer(img); err != nil {
		return err
	}
	switch err := change(img); err {
	case nil:
		return s.write(s.keys, img)
	case errUnchanged:
		s.img = img
		return nil
	default:
		return err
	}
}

func (s *Store) write(fk *fileKeys, img *image) error {
	img.generation++
	data, err := fk.encode(img)
	if err != nil {
		return err
	}
	// What is written must be what can be read: a fault here must not cost
	// the keys.
	if _, err := parse(data); err != nil {
		return fmt.Errorf("refusing to write %s: %w", s.path, err)
	}
	if err := replaceFile(s.path, data, s.step); err != nil {
		return fmt.Errorf("writing the keystore: %w", err)
	}
	s.img = img
	return nil
}

// find returns the index of the entry that ref names.
func (img *image) find(ref keys.Ref) (int, error) {
	found := -1
	for i := range img.entries {
		m := &img.entries[i].metadata
		if m.Name != ref.Name {
			continue
		}
		if ref.Version == m.Version || ref.Version == 0 && m.Retired == "" {
			found = i // versions ascend: the last is the newest
		}
	}
	if found < 0 {
		if ref.Version == 0 {
			return 0, fmt.Errorf("%w: %s", keys.ErrNotFound, ref.Name)
		}
		return 0, fmt.Errorf("%w: %s version %d", keys.ErrNotFound, ref.Name, ref.Version)
	}
	return found, nil
}

// secret opens an entry for use. The caller erases the secret.
func (s *Store) secret(ctx context.Context, ref keys.Ref, kind keys.Kind) (*metadata, []byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return nil, nil, ErrClosed
	}
	i, err := s.img.find(ref)
	if err != nil {
		return nil, nil, err
	}
	e := &s.img.entries[i]
	fail := func(err error) error { return fmt.Errorf("%w: %s version %d", err, e.Name, e.Version) }
	switch {
	case e.Kind != kind:
		return nil, nil, fmt.Errorf("%w (%s, %s wanted)", fail(keys.ErrWrongKind), e.Kind, kind)
	case e.Retired != "":
		return nil, nil, fail(keys.ErrRetired)
	case e.PublicOnly:
		return nil, nil, fail(keys.ErrPublicOnly)
	}
	b, err := s.keys.open(e)
	if err != nil {
		return nil, nil, err
	}
	return &e.metadata, b, nil
}

// Entries lists all keys, sorted by name and version.
func (s *Store) Entries(ctx context.Context) ([]keys.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return nil, ErrClosed
	}
	return s.img.list(), nil
}

// SecurityDomainKeys returns the key set of a Security Domain; see
// [keys.Store] and [keys.Diversify].
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
	m, secret, err := s.secret(ctx, ref, kind)
	if err != nil {
		return keys.Set{}, err
	}
	defer clear(secret)
	master, err := m.set(secret)
	if err != nil {
		return keys.Set{}, err
	}
	defer master.Erase()
	set, err := keys.Diversify(kind, method, master, instance, data)
	if err != nil {
		return keys.Set{}, fmt.Errorf("key %s version %d: %w", m.Name, m.Version, err)
	}
	return set, nil
}

// set takes the secret of a key set apart.
func (m *metadata) set(secret []byte) (keys.Set, error) {
	if len(secret) != m.secretSize() {
		return keys.Set{}, fmt.Errorf("%w: key %s version %d has a wrong size", ErrDamaged, m.Name, m.Version)
	}
	set := keys.Set{Version: m.Version}
	size := keySize(m.Algorithm)
	for i, k := range []*keys.Key{&set.ENC, &set.MAC, &set.DEK}[:keyCount(m.Kind)] {
		var err error
		if *k, err = keys.NewKey(secret[i*size : (i+1)*size]); err != nil {
			return keys.Set{}, err
		}
	}
	return set, nil
}

// Sign signs with Ed25519; kind must be the key's.
func (s *Store) Sign(ctx context.Context, ref keys.Ref, kind keys.Kind, message []byte) ([]byte, error) {
	if !kind.Signs() {
		return nil, fmt.Errorf("%w: keys of kind %q do not sign", keys.ErrWrongKind, kind)
	}
	_, seed, err := s.secret(ctx, ref, kind)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	private := ed25519.NewKeyFromSeed(seed)
	defer clear(private)
	return ed25519.Sign(private, message), nil
}

// PublicKey returns the public half of a signing key, also of a retired one
// whose version is named.
func (s *Store) PublicKey(ctx context.Context, ref keys.Ref) (ed25519.PublicKey, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return nil, ErrClosed
	}
	i, err := s.img.find(ref)
	if err != nil {
		return nil, err
	}
	e := &s.img.entries[i]
	if e.Algorithm != keys.Ed25519 {
		return nil, fmt.Errorf("%w: %s version %d (%s) has no public half", keys.ErrWrongKind, e.Name, e.Version, e.Kind)
	}
	return slices.Clone(e.PublicKey), nil
}

// Digest returns the AES-CMAC of the message under a ledger key.
func (s *Store) Digest(ctx context.Context, ref keys.Ref, message []byte) ([16]byte, error) {
	_, key, err := s.secret(ctx, ref, keys.Ledger)
	if err != nil {
		return [16]byte{}, err
	}
	defer clear(key)
	return sp800.Sum(key, message)
}

// Generate draws a new key, or for a key set new keys.
func (s *Store) Generate(ctx context.Context, n New) (keys.Entry, error) {
	if n.Algorithm == "" {
		if a := n.Kind.Algorithms(); len(a) > 0 {
			n.Algorithm = a[0]
		}
	}
	m := metadata{Kind: n.Kind, Algorithm: n.Algorithm}
	if !slices.Contains(n.Kind.Algorithms(), n.Algorithm) {
		return keys.Entry{}, fmt.Errorf("kind %q does not go with algorithm %q", n.Kind, n.Algorithm)
	}
	secret := make([]byte, m.secretSize())
	defer clear(secret)
	if size := publicSize(m.Algorithm); size > ed25519.PublicKeySize {
		private, err := rsa.GenerateKey(s.rand, size*8)
		if err != nil {
			return keys.Entry{}, fmt.Errorf("drawing a key: %w", err)
		}
		private.Primes[0].FillBytes(secret[:size/2])
		private.Primes[1].FillBytes(secret[size/2:])
	} else if _, err := io.ReadFull(s.rand, secret); err != nil {
		return keys.Entry{}, fmt.Errorf("drawing a key: %w", err)
	}
	return s.add(ctx, n, m, secret)
}

// rsaExponent is the public exponent of every RSA key.
const rsaExponent = 65537

// rsaKey is the RSA key with these primes, one after the other.
func rsaKey(primes []byte) (*rsa.PrivateKey, error) {
	half := len(primes) / 2
	p, q := new(big.Int).SetBytes(primes[:half]), new(big.Int).SetBytes(primes[half:])
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(big.NewInt(rsaExponent), phi)
	if d == nil {
		return nil, errors.New("RSA key has no private exponent")
	}
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: rsaExponent}, D: d, Primes: []*big.Int{p, q},
	}
	if k.N.BitLen() != len(primes)*8 {
		return nil, fmt.Errorf("RSA key of %d bits: %d expected", k.N.BitLen(), len(primes)*8)
	}
	if err := k.Validate(); err != nil {
		return nil, err
	}
	k.Precompute()
	return k, nil
}

// SchemeKey returns a key for tokens or receipts; see [keys.SchemeKeys].
func (s *Store) SchemeKey(ctx context.Context, ref keys.Ref, kind keys.Kind) (keys.SchemeKey, error) {
	if kind != keys.Token && kind != keys.Receipt {
		return keys.SchemeKey{}, fmt.Errorf("%w: keys of kind %q are of no signature scheme", keys.ErrWrongKind, kind)
	}
	m, secret, err := s.secret(ctx, ref, kind)
	if errors.Is(err, keys.ErrPublicOnly) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if s.keys == nil {
			return keys.SchemeKey{}, ErrClosed
		}
		i, err := s.img.find(ref)
		if err != nil {
			return keys.SchemeKey{}, err
		}
		modulus := new(big.Int).SetBytes(s.img.entries[i].PublicKey)
		return keys.SchemeKey{Public: &rsa.PublicKey{N: modulus, E: rsaExponent}}, nil
	}
	if err != nil {
		return keys.SchemeKey{}, err
	}
	defer clear(secret)
	if publicSize(m.Algorithm) == 0 {
		k, err := keys.NewKey(secret)
		return keys.SchemeKey{AES: k}, err
	}
	private, err := rsaKey(secret)
	if err != nil {
		return keys.SchemeKey{}, fmt.Errorf("%w: key %s version %d: %w", ErrDamaged, m.Name, m.Version, err)
	}
	return keys.SchemeKey{Public: &private.PublicKey, Private: private}, nil
}

// Masters returns an AES key set as it is stored, of a Security Domain or for
// reading, or as ENC a ledger key, for who splits it into components of several
// custodians. A retired one is returned when its version is named. The caller
// erases it. Keys of other kinds answer keys.ErrWrongKind, and the well-known
// development key, which nobody has to keep, keys.ErrDevelopmentKey.
func (s *Store) Masters(ctx context.Context, ref keys.Ref) (keys.Entry, keys.Set, error) {
	if err := ctx.Err(); err != nil {
		return keys.Entry{}, keys.Set{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return keys.Entry{}, keys.Set{}, ErrClosed
	}
	i, err := s.img.find(ref)
	if err != nil {
		return keys.Entry{}, keys.Set{}, err
	}
	e := &s.img.entries[i]
	switch {
	case e.Kind != keys.SecurityDomain && e.Kind != keys.Read && e.Kind != keys.Ledger:
		return keys.Entry{}, keys.Set{}, fmt.Errorf("%w: %s version %d is of kind %s, and there are components of %s, %s and %s", keys.ErrWrongKind,
			e.Name, e.Version, e.Kind, keys.SecurityDomain, keys.Read, keys.Ledger)
	case e.Development:
		return keys.Entry{}, keys.Set{}, fmt.Errorf("%w: %s version %d", keys.ErrDevelopmentKey, e.Name, e.Version)
	}
	secret, err := s.keys.open(e)
	if err != nil {
		return keys.Entry{}, keys.Set{}, err
	}
	defer clear(secret)
	set, err := e.set(secret)
	return e.entry(), set, err
}

// AddSet adds a given key set, of a Security Domain or for reading. The
// version is n's, or the set's where n has none. The well-known development key
// is refused with ErrDevelopmentKey; see AddDevelopment.
func (s *Store) AddSet(ctx context.Context, n New, set keys.Set) (keys.Entry, error) {
	n, err := n.Set(set)
	if err != nil {
		return keys.Entry{}, err
	}
	return s.addSet(ctx, n, set)
}

// AddDevelopment adds the well-known development key set as a Security
// Domain's or as one for reading, and marks the entry.
func (s *Store) AddDevelopment(ctx context.Context, n New) (keys.Entry, error) {
	n, set, err := n.DevelopmentSet()
	if err != nil {
		return keys.Entry{}, err
	}
	return s.addSet(ctx, n, set)
}

func (s *Store) addSet(ctx context.Context, n New, set keys.Set) (keys.Entry, error) {
	secret := slices.Concat(set.ENC.Bytes(), set.MAC.Bytes(), set.DEK.Bytes())
	defer clear(secret)
	return s.add(ctx, n, metadata{Kind: n.Kind, Algorithm: n.Algorithm}, secret)
}

// AddLedger adds a given ledger key.
func (s *Store) AddLedger(ctx context.Context, n New, key keys.Key) (keys.Entry, error) {
	n, err := n.Ledger(key)
	if err != nil {
		return keys.Entry{}, err
	}
	return s.add(ctx, n, metadata{Kind: n.Kind, Algorithm: n.Algorithm}, key.Bytes())
}

// AddSigning adds a given Ed25519 key.
func (s *Store) AddSigning(ctx context.Context, n New, private ed25519.PrivateKey) (keys.Entry, error) {
	if len(private) != ed25519.PrivateKeySize {
		return keys.Entry{}, fmt.Errorf("Ed25519 key of %d bytes: %d expected", len(private), ed25519.PrivateKeySize)
	}
	seed := private.Seed()
	defer clear(seed)
	if again := ed25519.NewKeyFromSeed(seed); !again.Equal(private) {
		return keys.Entry{}, errors.New("the halves of the Ed25519 key do not belong together")
	}
	return s.add(ctx, n, metadata{Kind: n.Kind, Algorithm: keys.Ed25519}, seed)
}

// AddPublic adds the public half of a signing key: it verifies, and Sign
// answers ErrPublicOnly.
func (s *Store) AddPublic(ctx context.Context, n New, public ed25519.PublicKey) (keys.Entry, error) {
	if len(public) != ed25519.PublicKeySize {
		return keys.Entry{}, fmt.Errorf("Ed25519 public key of %d bytes: %d expected", len(public), ed25519.PublicKeySize)
	}
	m := metadata{Kind: n.Kind, Algorithm: keys.Ed25519, PublicKey: slices.Clone(public), PublicOnly: true}
	return s.add(ctx, n, m, nil)
}

// add puts an entry into the file. m holds what is known of it besides n.
func (s *Store) add(ctx context.Context, n New, m metadata, secret []byte) (keys.Entry, error) {
	if n.Algorithm != "" && n.Algorithm != m.Algorithm {
		return keys.Entry{}, fmt.Errorf("key %s: algorithm %s wanted, %s given", n.Name, n.Algorithm, m.Algorithm)
	}
	if !slices.Contains(m.Kind.Algorithms(), m.Algorithm) {
		return keys.Entry{}, fmt.Errorf("%w: %q does not go with %s", keys.ErrWrongKind, m.Kind, m.Algorithm)
	}
	if err := keys.CheckName(n.Name); err != nil {
		return keys.Entry{}, err
	}
	m.Name, m.Version = n.Name, n.Version
	m.Created = formatTime(s.now())
	err := s.update(ctx, func(img *image) error {
		if m.Version == 0 {
			highest := byte(0)
			for _, e := range img.entries {
				if e.Name == m.Name {
					highest = e.Version
				}
			}
			if highest == keys.MaxVersion {
				return fmt.Errorf("key %s has reached version %d, the last", m.Name, keys.MaxVersion)
			}
			m.Version = highest + 1
		}
		if err := m.describe(secret); err != nil {
			return err
		}
		return img.insert(s.keys, m, secret, s.rand)
	})
	if err != nil {
		return keys.Entry{}, err
	}
	return m.entry(), nil
}

// describe fills in what follows from the secret: check value, public key, and
// whether it is the development key.
func (m *metadata) describe(secret []byte) error {
	if len(secret) != m.secretSize() {
		return fmt.Errorf("key %s version %d of %d bytes: %d expected", m.Name, m.Version, len(secret), m.secretSize())
	}
	switch {
	case m.Algorithm == keys.Ed25519:
		if !m.PublicOnly {
			private := ed25519.NewKeyFromSeed(secret)
			m.PublicKey = slices.Clone(private.Public().(ed25519.PublicKey))
			clear(private)
		}
		m.Check = publicCheck(m.PublicKey)
	case publicSize(m.Algorithm) > 0:
		if !m.PublicOnly {
			private, err := rsaKey(secret)
			if err != nil {
				return fmt.Errorf("key %s version %d: %w", m.Name, m.Version, err)
			}
			m.PublicKey = private.N.Bytes()
		}
		m.Check = publicCheck(m.PublicKey)
	case keyCount(m.Kind) == 1:
		k, err := keys.NewKey(secret)
		if err != nil {
			return err
		}
		defer k.Erase()
		m.Check = fmt.Sprintf("%X", k.CheckValue())
		m.Development = keys.Set{ENC: k}.IsDevelopment()
	default:
		set, err := m.set(secret)
		if err != nil {
			return err
		}
		defer set.Erase()
		m.Check = set.Check()
		m.Development = set.IsDevelopment()
	}
	return nil
}

// insert adds an entry at its place.
func (img *image) insert(fk *fileKeys, m metadata, secret []byte, rand io.Reader) error {
	if img.header.Version < m.formatVersion() {
		return fmt.Errorf("%w: version %d has no keys of kind %q", ErrOldFormat, img.header.Version, m.Kind)
	}
	for i := range img.entries {
		other := &img.entries[i].metadata
		if other.Name != m.Name {
			continue
		}
		if other.Version == m.Version {
			return fmt.Errorf("%w: %s version %d", keys.ErrExists, m.Name, m.Version)
		}
		if other.Kind != m.Kind {
			return fmt.Errorf("%w: %s is of kind %s", keys.ErrWrongKind, m.Name, other.Kind)
		}
	}
	e, err := fk.seal(m, secret, rand)
	if err != nil {
		return err
	}
	i, _ := slices.BinarySearchFunc(img.entries, &m, func(e entryLine, m *metadata) int { return compare(&e.metadata, m) })
	img.entries = slices.Insert(img.entries, i, e)
	return nil
}

// Retire takes a key out of use: from then on only its public half answers.
// With version 0 it is the newest; retiring a retired key answers ErrRetired.
func (s *Store) Retire(ctx context.Context, ref keys.Ref) (keys.Entry, error) {
	return s.alter(ctx, ref, func(m *metadata) error {
		if m.Retired != "" {
			return fmt.Errorf("%w: %s version %d", keys.ErrRetired, m.Name, m.Version)
		}
		m.Retired = formatTime(s.now())
		return nil
	})
}

// Reinstate puts a retired key back into use, for a card that turns up after
// its keys were given up. The version must be named.
func (s *Store) Reinstate(ctx context.Context, ref keys.Ref) (keys.Entry, error) {
	return s.alter(ctx, ref, func(m *metadata) error {
		if m.Retired == "" {
			return fmt.Errorf("%w: %s version %d", ErrNotRetired, m.Name, m.Version)
		}
		m.Retired = ""
		return nil
	})
}

// alter changes one entry's metadata and seals that entry again.
func (s *Store) alter(ctx context.Context, ref keys.Ref, change func(*metadata) error) (keys.Entry, error) {
	var m metadata
	err := s.update(ctx, func(img *image) error {
		i, err := img.find(ref)
		if err != nil {
			return err
		}
		secret, err := s.keys.open(&img.entries[i])
		if err != nil {
			return err
		}
		defer clear(secret)
		m = img.entries[i].metadata
		if err := change(&m); err != nil {
			return err
		}
		img.entries[i], err = s.keys.seal(m, secret, s.rand)
		return err
	})
	if err != nil {
		return keys.Entry{}, err
	}
	return m.entry(), nil
}

// Remove deletes a retired key for good; another answers ErrNotRetired. The
// version must be named. Cards that still hold keys of that version can no
// longer be read or managed, so export it first.
func (s *Store) Remove(ctx context.Context, ref keys.Ref) error {
	if ref.Version == 0 {
		return fmt.Errorf("removing key %s: name the version", ref.Name)
	}
	return s.update(ctx, func(img *image) error {
		i, err := img.find(ref)
		if err != nil {
			return err
		}
		if img.entries[i].Retired == "" {
			return fmt.Errorf("%w: %s version %d", ErrNotRetired, ref.Name, ref.Version)
		}
		img.entries = slices.Delete(img.entries, i, i+1)
		return nil
	})
}

// ChangePassphrase draws a new file key, wraps it under the new passphrase and
// seals every entry again, so that the old passphrase, with an old copy of the
// file, opens nothing written later. The zero cost keeps the file's. Other
// processes that have the file open get ErrPassphraseChanged at their next
// change.
func (s *Store) ChangePassphrase(ctx context.Context, passphrase []byte, cost Cost) error {
	if cost == (Cost{}) {
		s.mu.RLock()
		if s.keys != nil {
			cost = s.img.header.cost()
		}
		s.mu.RUnlock()
		if cost == (Cost{}) {
			return ErrClosed
		}
	}
	h, fk, err := newHeader(passphrase, cost, s.rand) // slow, so before the lock
	if err != nil {
		return err
	}
	unlock, err := lockFile(ctx, s.path)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return ErrClosed
	}
	img, err := loadLocked(s.path)
	if err == nil {
		err = s.newer(img)
	}
	if err != nil {
		return err
	}
	for i := range img.entries {
		secret, err := s.keys.open(&img.entries[i])
		if err != nil {
			return err
		}
		img.entries[i], err = fk.seal(img.entries[i].metadata, secret, s.rand)
		clear(secret)
		if err != nil {
			return err
		}
	}
	img.header = *h
	old := s.keys
	if err := s.write(fk, img); err != nil {
		return err
	}
	s.keys = fk
	old.erase()
	return nil
}
