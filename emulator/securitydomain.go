package emulator

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// The card's own load file, from which Security Domains are installed. Its AID
// and its module's are those that cards in the field commonly use.
var (
	domainPackage = iso7816.MustAID("A0000001515350")
	domainModule  = iso7816.MustAID("A000000151535041")
)

// Life cycle states of a Security Domain (GPCS table 11-5) beyond an
// application's.
const domainPersonalized = 0x0F

// domain is what a Security Domain has beyond other applications. A value is
// never changed once it is in the registry: changes are made to a copy, which
// takes its place in one write.
type domain struct {
	protocol      scp.Protocol
	keys          []key         // in the order in which they came
	data          []iso7816.TLV // stored data objects, by tag
	counters      []sequence    // of secure channels, by key version
	confirmations uint16        // Confirmation Counter
	tokens        [][]byte      // identifiers of the tokens that were used, in their order
	restricted    restriction
}

// sequence is a sequence counter of a key set (AmdD 5.1; GPCS E.1.2.1).
type sequence struct {
	version byte
	next    uint32
}

// What one Security Domain can hold.
const (
	maxDomainKeys   = 64
	maxDomainData   = 2048 // bytes of stored data objects
	maxDomainTokens = 1024
)

// clone is a copy that can be changed without changing d, as long as elements
// are replaced and not written into.
func (d *domain) clone() *domain {
	n := *d
	n.keys, n.data = slices.Clone(d.keys), slices.Clone(d.data)
	n.counters, n.tokens = slices.Clone(d.counters), slices.Clone(d.tokens)
	return &n
}

// size is what a Security Domain's content takes of the persistent memory.
func (d *domain) size() int {
	n := 0
	for _, k := range d.keys {
		n += objectOverhead
		for _, p := range k.components {
			n += len(p.value)
		}
	}
	for _, t := range d.data {
		n += objectOverhead + len(t.Value)
	}
	for _, t := range d.tokens {
		n += objectOverhead + len(t)
	}
	return n
}

// fits reports 6A84 where a Security Domain holds more than it can.
func (d *domain) fits() error {
	n := 0
	for _, t := range d.data {
		n += len(t.Value)
	}
	if len(d.keys) > maxDomainKeys || n > maxDomainData || len(d.tokens) > maxDomainTokens {
		return iso7816.ErrNoMemory
	}
	return nil
}

// object returns the value of a stored data object.
func (d *domain) object(tag iso7816.Tag) ([]byte, bool) {
	t, ok := iso7816.Find(d.data, tag)
	return t.Value, ok
}

// put stores a data object; an empty value takes it away.
func (d *domain) put(tag iso7816.Tag, value []byte) {
	i, found := slices.BinarySearchFunc(d.data, tag, func(t iso7816.TLV, tag iso7816.Tag) int { return cmp.Compare(t.Tag, tag) })
	t := iso7816.TLV{Tag: tag, Value: bytes.Clone(value)}
	switch {
	case found && len(value) == 0:
		d.data = slices.Delete(d.data, i, i+1)
	case found:
		d.data[i] = t
	case len(value) > 0:
		d.data = slices.Insert(d.data, i, t)
	}
}

// key is one key of a Security Domain (GPCS 7.5.1).
type key struct {
	version, id byte
	components  []component
	// As PUT KEY in the extended format or STORE DATA gave them; empty
	// otherwise.
	usage, access []byte
}

// component is a part of a key: a symmetric key has one.
type component struct {
	kind  byte // GPCS table 11-16
	value []byte
}

// Key types (GPCS table 11-16).
const (
	keyTypeDES         = 0x80
	keyTypeAES         = 0x88
	keyTypeRSAExponent = 0xA0
	keyTypeRSAModulus  = 0xA1
	keyTypeECPublic    = 0xB0
	keyTypeECField     = 0xB2
	keyTypeECA         = 0xB3
	keyTypeECB         = 0xB4
	keyTypeECGenerator = 0xB5
	keyTypeECOrder     = 0xB6
	keyTypeECCofactor  = 0xB7
	keyTypeECParameter = 0xF0
)

// Key usage qualifiers (GPCS 11.1.9).
const (
	usageToken   = 0x81
	usageReceipt = 0x44
	usageDAP     = 0x84
)

// Versions that token, receipt, DAP and load file keys have by custom, all with
// the identifier 01. GPCS leaves it to configurations (7.5.1, C.1).
const (
	versionToken    = 0x70
	versionReceipt  = 0x71
	versionDAP      = 0x73
	versionCiphered = 0x75
)

// find returns the index of a key, -1 if there is none.
func (d *domain) find(version, id byte) int {
	return slices.IndexFunc(d.keys, func(k key) bool { return k.version == version && k.id == id })
}

// purpose returns the key for a purpose: the newest one that says so itself,
// or the one with the version that is customary.
func (d *domain) purpose(usage, version byte) (key, bool) {
	for _, k := range slices.Backward(d.keys) {
		if len(k.usage) > 0 && k.usage[0]&usage == usage {
			return k, true
		}
	}
	if i := d.find(version, 1); i >= 0 && len(d.keys[i].usage) == 0 {
		return d.keys[i], true
	}
	return key{}, false
}

// loadFileKey returns what deciphers load files. Only the customary version
// tells: the usage of such a key, 48, is a secure channel's DEK's too.
func (d *domain) loadFileKey() (globalplatform.LoadFileCipher, bool) {
	i := d.find(versionCiphered, 1)
	if i < 0 {
		return globalplatform.LoadFileCipher{}, false
	}
	p := d.keys[i].components[0]
	if p.kind != keyTypeAES && p.kind != keyTypeDES {
		return globalplatform.LoadFileCipher{}, false
	}
	k, err := keys.NewKey(p.value)
	return globalplatform.LoadFileCipher{Key: k, Type: globalplatform.KeyType(p.kind)}, err == nil
}

// set returns the secure channel keys of a version, of the newest version for
// 0: identifiers 01 to 03, all of the one type that the protocol uses.
func (d *domain) set(version byte) (keys.Set, bool) {
	kind := byte(keyTypeAES)
	if d.protocol.Number == 2 {
		kind = keyTypeDES
	}
	for _, k := range slices.Backward(d.keys) {
		if version != 0 && k.version != version || k.id != 1 {
			continue
		}
		set := keys.Set{Version: k.version}
		complete := true
		for id, to := range map[byte]*keys.Key{1: &set.ENC, 2: &set.MAC, 3: &set.DEK} {
			i := d.find(k.version, id)
			if i < 0 || len(d.keys[i].components) != 1 || d.keys[i].components[0].kind != kind {
				complete = false
				break
			}
			var err error
			if *to, err = keys.NewKey(d.keys[i].components[0].value); err != nil {
				complete = false
				break
			}
		}
		if complete && set.ENC.Len() == set.MAC.Len() && set.ENC.Len() == set.DEK.Len() {
			return set, true
		}
	}
	return keys.Set{}, false
}

// channelKeys is a key set as keys of a Security Domain.
func channelKeys(set keys.Set, kind byte) []key {
	var out []key
	for i, k := range []keys.Key{set.ENC, set.MAC, set.DEK} {
		out = append(out, key{version: set.Version, id: byte(i + 1), components: []component{{kind, bytes.Clone(k.Bytes())}}})
	}
	return out
}

// update makes one persistent change of a registry entry. f may replace
// fields and must not write into what they refer to.
func (c *Card) update(e *entry, f func(*entry)) {
	before, after := *e, *e
	f(&after)
	c.change(func() { *e = after }, func() { *e = before })
}

// updateDomain makes one persistent change of what a Security Domain has.
func (c *Card) updateDomain(e *entry, f func(*domain)) {
	next := e.domain.clone()
	f(next)
	c.update(e, func(e *entry) { e.domain = next })
}

// associated returns the Security Domain that an entry is associated with.
func (s *state) associated(e *entry) *entry { return s.domain(e.securityDomain) }

// keeper returns the Security Domain whose secure channel keys sd uses: its
// own, or, until it has some, its associated Security Domain's (GPCS 7.3.1).
func (s *state) keeper(sd *entry) *entry {
	for range s.entries {
		if _, ok := sd.domain.set(0); ok {
			return sd
		}
		up := s.associated(sd)
		if up == nil || up == sd {
			break
		}
		sd = up
	}
	return sd
}

// ready reports whether a Security Domain can serve: it manages content, and
// things can be associated with it (GPCS 5.3.2).
func (s *state) ready(sd *entry) bool {
	return !sd.locked && (sd == s.issuer() || sd.lifeCycle == domainPersonalized)
}
