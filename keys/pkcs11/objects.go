package pkcs11

import (
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freearea/freearea/keys"
)

// objectID is CKA_ID, decoded.
type objectID struct {
	kind    keys.Kind
	version byte
	purpose keys.Purpose // 0 outside of key sets
	// Seconds since 1970, 0 for unknown and for not retired.
	created, retired uint64
}

// idPrefix marks the objects of this module, "FA", and the format of what
// follows.
const idPrefix = "FA\x01"

// kindCodes are the kinds' numbers in CKA_ID.
var kindCodes = map[keys.Kind]byte{
	keys.SecurityDomain: 1, keys.Read: 2, keys.IssuerSigning: 3, keys.CounterSigning: 4, keys.Ledger: 5,
	keys.LedgerSigning: 6,
}

func (id objectID) bytes() []byte {
	b := append([]byte(idPrefix), kindCodes[id.kind], id.version, byte(id.purpose))
	return append(append(b, seconds(id.created)...), seconds(id.retired)...)
}

// seconds encodes a time in 5 bytes, big-endian.
func seconds(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n)[3:] }

// parseID decodes a CKA_ID, with or without dates; false where it is not one
// of this module's.
func parseID(b []byte) (objectID, bool) {
	rest, ok := strings.CutPrefix(string(b), idPrefix)
	if !ok || len(rest) != 3 && len(rest) != 13 {
		return objectID{}, false
	}
	id := objectID{version: rest[1], purpose: keys.Purpose(rest[2])}
	for kind, code := range kindCodes {
		if code == rest[0] {
			id.kind = kind
		}
	}
	if id.kind == "" || id.version < 1 || id.version > keys.MaxVersion {
		return objectID{}, false
	}
	if len(rest) == 13 {
		id.created = binary.BigEndian.Uint64([]byte("\x00\x00\x00" + rest[3:8]))
		id.retired = binary.BigEndian.Uint64([]byte("\x00\x00\x00" + rest[8:]))
	}
	return id, slices.Contains(purposes(id.kind), id.purpose)
}

// purposes lists what objects a key of a kind has: one each.
func purposes(kind keys.Kind) []keys.Purpose {
	if p := kind.Purposes(); p != nil {
		return p
	}
	return []keys.Purpose{0}
}

// object is one in the token, as far as it matters.
type object struct {
	handle   uint
	class    uint
	id       objectID
	exposed  bool
	encrypts bool
	size     uint   // of an AES key
	public   []byte // of a public key
	err      error  // what makes it useless
}

// key is the objects of one name and version.
type key struct {
	name    string
	id      objectID // kind and version only
	secret  map[keys.Purpose]*object
	public  *object
	damages []error
}

func (k *key) compare(b *key) int {
	return cmp.Or(strings.Compare(k.name, b.name), cmp.Compare(k.id.version, b.id.version), strings.Compare(string(k.id.kind), string(b.id.kind)))
}

// list reads the token's keys of a name, or all with none, sorted by name and
// version. Objects that are not this module's are passed over.
func (s *Store) list(session uint, name string) ([]*key, error) {
	type identity struct {
		name    string
		kind    keys.Kind
		version byte
	}
	found := map[identity]*key{}
	for _, class := range []uint{ckoSecretKey, ckoPrivateKey, ckoPublicKey} {
		template := []attribute{{ckaToken, true}, {ckaClass, class}}
		if name != "" {
			template = append(template, attribute{ckaLabel, name})
		}
		handles, err := s.lib.find(session, template)
		if err != nil {
			return nil, fmt.Errorf("searching objects: %w", err)
		}
		for _, h := range handles {
			rawID, err := s.lib.attribute(session, h, ckaID)
			if err != nil {
				return nil, fmt.Errorf("reading CKA_ID: %w", err)
			}
			id, ok := parseID(rawID)
			if !ok {
				continue
			}
			label, err := s.lib.attribute(session, h, ckaLabel)
			if err != nil {
				return nil, fmt.Errorf("reading CKA_LABEL: %w", err)
			}
			if keys.CheckName(string(label)) != nil || name != "" && string(label) != name {
				continue
			}
			o, err := s.describe(session, h, class, id)
			if err != nil {
				return nil, fmt.Errorf("key %s version %d: %w", label, id.version, err)
			}
			which := identity{string(label), id.kind, id.version}
			k := found[which]
			if k == nil {
				k = &key{name: string(label), id: objectID{kind: id.kind, version: id.version}, secret: map[keys.Purpose]*object{}}
				found[which] = k
			}
			k.add(o)
		}
	}
	var out []*key
	for _, k := range found {
		out = append(out, k)
	}
	sortKeys(out)
	for i, k := range out {
		if i > 0 && out[i-1].name == k.name && out[i-1].id.kind != k.id.kind {
			err := fmt.Errorf("%s and %s stand under one name", out[i-1].id.kind, k.id.kind)
			out[i-1].damages, k.damages = append(out[i-1].damages, err), append(k.damages, err)
		}
	}
	return out, nil
}

func (k *key) add(o *object) {
	p := o.id.purpose
	switch {
	case o.class == ckoPublicKey && k.public == nil:
		k.public = o
	case o.class != ckoPublicKey && k.secret[p] == nil:
		k.secret[p] = o
	default:
		k.damages = append(k.damages, errors.New("there are two objects of the same label and id"))
		return
	}
	if o.err != nil {
		k.damages = append(k.damages, o.err)
	}
}

// describe reads what there is to know of one object. The error is that of
// the token; what is wrong with the object stands in it.
func (s *Store) describe(session, handle, class uint, id objectID) (*object, error) {
	o := &object{handle: handle, class: class, id: id}
	damage := func(format string, args ...any) {
		if o.err == nil {
			o.err = fmt.Errorf(format, args...)
		}
	}
	// An attribute that the token does not have is no error: what follows
	// from that is said below.
	read := func(typ uint) ([]byte, error) {
		b, err := s.lib.attribute(session, handle, typ)
		if errors.Is(err, ckrAttributeTypeInvalid) {
			return nil, nil
		}
		return b, err
	}
	flag := func(typ uint) (bool, error) {
		b, err := read(typ)
		return len(b) == 1 && b[0] != 0, err
	}

	raw, err := read(ckaKeyType)
	if err != nil {
		return nil, err
	}
	signing := id.kind.Signs()
	want := uint(ckkAES)
	if signing {
		want = ckkECEdwards
	}
	if typ, err := ulong(raw); err != nil || typ != want || signing == (class == ckoSecretKey) {
		damage("an object is of the wrong class or key type for %s", id.kind)
	}

	if class == ckoPublicKey {
		point, err := read(ckaECPoint)
		if err != nil {
			return nil, err
		}
		if o.public = publicPoint(point); o.public == nil && o.err == nil {
			damage("the public key is not one of Ed25519")
		}
		return o, nil
	}
	sensitive, err := flag(ckaSensitive)
	if err != nil {
		return nil, err
	}
	// A token that does not answer is not trusted to keep the key.
	extractable, err := s.lib.attribute(session, handle, ckaExtractable)
	if err != nil && !errors.Is(err, ckrAttributeTypeInvalid) {
		return nil, err
	}
	o.exposed = !sensitive || len(extractable) != 1 || extractable[0] != 0
	signs, err := flag(ckaSign)
	if err != nil {
		return nil, err
	}
	if !signs {
		damage("CKA_SIGN is not set")
	}
	if class != ckoSecretKey {
		return o, nil
	}
	if o.encrypts, err = flag(ckaEncrypt); err != nil {
		return nil, err
	}
	raw, err = read(ckaValueLen)
	if err != nil {
		return nil, err
	}
	if o.size, err = ulong(raw); err != nil || algorithm(o.size) == "" {
		damage("an AES key is not of 16, 24 or 32 bytes")
	}
	return o, nil
}

// publicPoint takes the public key out of CKA_EC_POINT: the 32 bytes in a DER
// OCTET STRING (PKCS#11 2.40), a BIT STRING, or bare (3.0), as tokens differ.
func publicPoint(b []byte) []byte {
	for _, prefix := range []string{"", "\x04\x20", "\x03\x21\x00"} {
		if rest, ok := strings.CutPrefix(string(b), prefix); ok && len(rest) == ed25519.PublicKeySize {
			return []byte(rest)
		}
	}
	return nil
}

// algorithm names an AES key by its size in bytes, empty for other sizes.
func algorithm(size uint) string {
	switch size {
	case 16:
		return keys.AES128
	case 24:
		return keys.AES192
	case 32:
		return keys.AES256
	}
	return ""
}

func (k *key) signing() bool { return k.id.kind.Algorithms()[0] == keys.Ed25519 }

// finished reports whether making the key came to its end: the object that
// is made last is there.
func (k *key) finished() bool {
	return k.public != nil || k.secret[purposes(k.id.kind)[0]] != nil
}

// usable says what keeps the key from being used at all.
func (k *key) usable() error {
	fail := func(sentinel error, format string, args ...any) error {
		return fmt.Errorf("%w: %s version %d: %s", sentinel, k.name, k.id.version, fmt.Sprintf(format, args...))
	}
	if len(k.damages) > 0 {
		return fail(ErrDamaged, "%v", k.damages[0])
	}
	for _, p := range purposes(k.id.kind) {
		o := k.secret[p]
		switch {
		case k.signing() && k.public == nil:
			return fail(ErrDamaged, "its public half is missing")
		case k.signing() && o == nil: // the public half alone
		case o == nil:
			return fail(ErrDamaged, "one of its keys is missing")
		case o.exposed:
			return fail(ErrExposed, "CKA_SENSITIVE must be true and CKA_EXTRACTABLE false")
		case o.size != k.size():
			return fail(ErrDamaged, "its keys are of different sizes")
		}
	}
	if a := k.algorithm(); !slices.Contains(k.id.kind.Algorithms(), a) {
		return fail(ErrDamaged, "kind %s does not go with %s", k.id.kind, a)
	}
	return nil
}

// size is that of the key's AES keys in bytes, 0 for signing keys. Where they
// differ it is that of the first.
func (k *key) size() uint {
	if objects := k.objects(); len(objects) > 0 {
		return objects[0].size
	}
	return 0
}

func (k *key) algorithm() string {
	if k.signing() {
		return keys.Ed25519
	}
	return algorithm(k.size())
}

// objects lists the key's, in the order in which they are taken away: the one
// that makes it a key first.
func (k *key) objects() []*object {
	var out []*object
	for _, p := range purposes(k.id.kind) {
		if o := k.secret[p]; o != nil {
			out = append(out, o)
		}
	}
	if k.public != nil {
		out = append(out, k.public)
	}
	return out
}

// retired reports whether the key is out of use. Where retiring it was cut
// off, it is.
func (k *key) retired() bool {
	return slices.ContainsFunc(k.objects(), func(o *object) bool { return o.id.retired != 0 })
}

// halfRetired reports that retiring or reinstating it was cut off.
func (k *key) halfRetired() bool {
	return k.retired() && slices.ContainsFunc(k.objects(), func(o *object) bool { return o.id.retired == 0 })
}

// entry returns the key as callers see it, without check value.
func (k *key) entry() keys.Entry {
	e := keys.Entry{Name: k.name, Kind: k.id.kind, Version: k.id.version, Algorithm: k.algorithm()}
	for _, o := range k.objects() {
		// Of several, those of the object that was made last.
		if o.id.created != 0 && e.Created.IsZero() {
			e.Created = time.Unix(int64(o.id.created), 0).UTC()
		}
		if o.id.retired != 0 && e.Retired.IsZero() {
			e.Retired = time.Unix(int64(o.id.retired), 0).UTC()
		}
	}
	e.Public = k.signing() && k.secret[0] == nil
	return e
}

// find returns the key that ref names. Version 0 is the newest that is not
// retired and was finished.
func (s *Store) find(session uint, ref keys.Ref) (*key, error) {
	if ref.Name == "" {
		return nil, fmt.Errorf("%w: no name given", keys.ErrNotFound)
	}
	list, err := s.list(session, ref.Name)
	if err != nil {
		return nil, err
	}
	var found *key
	for _, k := range list {
		if ref.Version == k.id.version || ref.Version == 0 && k.finished() && !k.retired() {
			found = k
		}
	}
	switch {
	case found != nil:
		return found, nil
	case ref.Version == 0:
		return nil, fmt.Errorf("%w: %s", keys.ErrNotFound, ref.Name)
	}
	return nil, fmt.Errorf("%w: %s version %d", keys.ErrNotFound, ref.Name, ref.Version)
}

// use returns the key that ref names, for a secret operation.
func (s *Store) use(session uint, ref keys.Ref, kind keys.Kind) (*key, error) {
	k, err := s.find(session, ref)
	if err != nil {
		return nil, err
	}
	fail := func(err error) error { return fmt.Errorf("%w: %s version %d", err, k.name, k.id.version) }
	if k.id.kind != kind {
		return nil, fmt.Errorf("%w (%s, %s wanted)", fail(keys.ErrWrongKind), k.id.kind, kind)
	}
	if k.retired() {
		return nil, fail(keys.ErrRetired)
	}
	if err := k.usable(); err != nil {
		return nil, err
	}
	if k.signing() && k.secret[0] == nil {
		return nil, fail(keys.ErrPublicOnly)
	}
	return k, nil
}
