package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// What can be wrong with an image file. The errors that wrap these name the
// file.
var (
	// ErrNotImage reports a file that is no card image at all.
	ErrNotImage = errors.New("not a card image")
	// ErrImageVersion reports an image of a version that this program doesn't
	// know: a newer one wrote it.
	ErrImageVersion = errors.New("card image of an unknown version")
	// ErrImageTruncated reports an image that is shorter than it says.
	ErrImageTruncated = errors.New("card image is cut short")
	// ErrImageChecksum reports an image whose bytes have changed.
	ErrImageChecksum = errors.New("card image is damaged: its checksum is wrong")
	// ErrImageContent reports an image that no card can have written, though
	// its checksum is right.
	ErrImageContent = errors.New("card image makes no sense")
	// ErrImageLocked reports an image that another process, or another card of
	// this one, has open.
	ErrImageLocked = errors.New("card image is in use")
)

// An image file is
//
//	magic (8) | version (2) | length of the content (4) | content | SHA-256 of all before (32)
//
// Numbers are big-endian. There is one encoding of a state: what is read
// encodes to the same bytes again, as long as it is of the present version.
const (
	imageMagic = "FRACARD\n"
	// imageVersion is what is written. Version 1 had no Security Domains but
	// the Issuer's, and is read as the card that it would have been with them;
	// version 2 had no Global Services and no global PIN.
	imageVersion = 3
	imageHeader  = len(imageMagic) + 2 + 4
	// maxImage bounds an image file, in bytes.
	maxImage = 64 << 20
)

// encodeImage returns the bytes of an image file.
func encodeImage(s *state) []byte {
	var content writer
	content.state(s)
	b := make([]byte, 0, imageHeader+len(content.b)+sha256.Size)
	b = append(b, imageMagic...)
	b = binary.BigEndian.AppendUint16(b, imageVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content.b)))
	b = append(b, content.b...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeImage reads the bytes of an image file.
func decodeImage(b []byte) (*state, error) {
	n := min(len(b), len(imageMagic))
	if string(b[:n]) != imageMagic[:n] || n == 0 {
		return nil, ErrNotImage
	}
	if len(b) < imageHeader {
		return nil, fmt.Errorf("%w: %d bytes, the header has %d", ErrImageTruncated, len(b), imageHeader)
	}
	version := binary.BigEndian.Uint16(b[len(imageMagic):])
	if version < 1 || version > imageVersion {
		return nil, fmt.Errorf("%w: %d, this program knows 1 to %d", ErrImageVersion, version, imageVersion)
	}
	length := int64(binary.BigEndian.Uint32(b[len(imageMagic)+2:]))
	switch want := int64(imageHeader) + length + sha256.Size; {
	case int64(len(b)) < want:
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrImageTruncated, len(b), want)
	case int64(len(b)) > want:
		return nil, fmt.Errorf("%w: %d bytes after its end", ErrImageChecksum, int64(len(b))-want)
	}
	signed := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(signed); !bytes.Equal(sum[:], b[len(signed):]) {
		return nil, ErrImageChecksum
	}
	r := reader{b: signed[imageHeader:], version: int(version)}
	s := r.state()
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes after its content", len(r.b))
	}
	if r.err == nil {
		r.err = s.check()
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImageContent, r.err)
	}
	return s, nil
}

// writer encodes a state.
type writer struct{ b []byte }

func (w *writer) byte(v byte) { w.b = append(w.b, v) }

func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
	} else {
		w.byte(0)
	}
}

func (w *writer) number(n int) { w.b = binary.BigEndian.AppendUint32(w.b, uint32(n)) }

func (w *writer) bytes(b []byte) {
	w.number(len(b))
	w.b = append(w.b, b...)
}

func (w *writer) aid(a iso7816.AID) { w.bytes(a.Bytes()) }

func (w *writer) state(s *state) {
	p := s.profile
	w.bytes([]byte(p.Name))
	w.bytes(p.ATR)
	w.bool(p.Contactless)
	w.bool(p.ExtendedLength)
	w.number(p.LogicalChannels)
	w.number(p.CommitCapacity)
	w.number(p.PersistentMemory)
	w.number(p.TransientReset)
	w.number(p.TransientDeselect)
	w.bytes(s.diversification[:])
	w.byte(byte(s.restricted))
	w.byte(byte(s.cvm.format))
	w.bytes(s.cvm.value)
	w.byte(s.cvm.limit)
	w.byte(s.cvm.left)
	w.bool(s.cvm.blocked)
	w.bool(s.historical != nil)
	w.bytes(s.historical)
	w.number(len(s.files))
	for _, f := range s.files {
		w.aid(f.aid)
		w.aid(f.securityDomain)
		w.bytes(f.version)
		w.number(len(f.modules))
		for _, m := range f.modules {
			w.aid(m)
		}
		w.bool(f.own)
		w.bytes(f.data)
	}
	w.number(len(s.entries))
	for _, e := range s.entries {
		w.entry(e)
	}
	w.objects(s.runtime)
}

func (w *writer) objects(list []*object) {
	w.number(len(list))
	for _, o := range list {
		w.bool(o != nil)
		if o != nil {
			w.bytes(o.data)
		}
	}
}

func (w *writer) entry(e *entry) {
	w.aid(e.aid)
	w.aid(e.file)
	w.aid(e.module)
	w.aid(e.securityDomain)
	w.bytes(e.privileges[:])
	w.bytes(e.implicit)
	w.bytes(e.services.bytes())
	w.bytes(e.registered.bytes())
	w.byte(e.lifeCycle)
	w.bool(e.locked)
	w.bool(e.own)
	w.number(e.transientReset)
	w.number(e.transientDeselect)
	w.objects(e.objects)
	w.bool(e.domain != nil)
	if e.domain != nil {
		w.domain(e.domain)
	}
}

func (w *writer) domain(d *domain) {
	w.byte(d.protocol.Number)
	w.byte(d.protocol.I)
	w.number(len(d.keys))
	for _, k := range d.keys {
		w.byte(k.version)
		w.byte(k.id)
		w.bytes(k.usage)
		w.bytes(k.access)
		w.number(len(k.components))
		for _, p := range k.components {
			w.byte(p.kind)
			w.bytes(p.value)
		}
	}
	w.number(len(d.data))
	for _, t := range d.data {
		w.number(int(t.Tag))
		w.bytes(t.Value)
	}
	w.number(len(d.counters))
	for _, s := range d.counters {
		w.byte(s.version)
		w.number(int(s.next))
	}
	w.number(int(d.confirmations))
	w.number(len(d.tokens))
	for _, t := range d.tokens {
		w.bytes(t)
	}
	w.byte(byte(d.restricted))
}

// reader decodes a state. The first error sticks, and everything read after it
// is zero.
type reader struct {
	b       []byte
	version int // of the image
	err     error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail("a field of %d bytes, %d are left", n, len(r.b))
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail("a truth value of %d", v)
	}
	return v == 1
}

// number reads a number up to max.
func (r *reader) number(max int) int {
	b := r.take(4)
	if b == nil {
		return 0
	}
	n := binary.BigEndian.Uint32(b)
	if int64(n) > int64(max) {
		r.fail("a number of %d, %d at most", n, max)
		return 0
	}
	return int(n)
}

// count reads how many elements follow; each takes at least size bytes.
func (r *reader) count(size int) int { return r.number(len(r.b) / size) }

// bytes reads a copy of min to max bytes.
func (r *reader) bytes(min, max int) []byte {
	n := r.number(max)
	if r.err == nil && n < min {
		r.fail("a field of %d bytes, %d at least", n, min)
	}
	return bytes.Clone(r.take(n))
}

func (r *reader) aid() iso7816.AID {
	b := r.bytes(0, 16)
	if len(b) == 0 {
		return iso7816.AID{}
	}
	a, err := iso7816.NewAID(b)
	if err != nil {
		r.fail("%w", err)
	}
	return a
}

func (r *reader) state() *state {
	s := &state{}
	p := &s.profile
	p.Name = string(r.bytes(0, 255))
	p.ATR = r.bytes(0, 33)
	p.Contactless = r.bool()
	p.ExtendedLength = r.bool()
	p.LogicalChannels = defaultLogicalChannels
	if r.version > 1 {
		p.LogicalChannels = r.number(maxChannels)
	}
	p.CommitCapacity = r.number(maxMemory)
	p.PersistentMemory = r.number(maxMemory)
	p.TransientReset = r.number(maxMemory)
	p.TransientDeselect = r.number(maxMemory)
	var iin, cin []byte
	if r.version == 1 {
		iin, cin = r.bytes(1, maxIdentity), r.bytes(1, maxIdentity)
	}
	copy(s.diversification[:], r.bytes(10, 10))
	if r.version > 1 {
		s.restricted = restriction(r.byte())
	}
	if r.version > 2 {
		s.cvm = cvm{
			format: oncard.CVMFormat(r.byte()), value: r.bytes(0, maxCVM),
			limit: r.byte(), left: r.byte(), blocked: r.bool(),
		}
		changed := r.bool()
		if s.historical = r.bytes(0, 15); !changed {
			s.historical = nil
		}
	}
	for n := r.count(20); n > 0 && r.err == nil; n-- {
		s.files = append(s.files, r.file())
	}
	for n := r.count(20); n > 0 && r.err == nil; n-- {
		s.entries = append(s.entries, r.entry())
	}
	if r.version > 1 {
		s.runtime = r.objects()
	}
	if r.version == 1 && r.err == nil {
		s.upgrade(iin, cin)
	}
	return s
}

func (r *reader) objects() (list []*object) {
	for n := r.count(1); n > 0 && r.err == nil; n-- {
		var o *object
		if r.bool() {
			o = &object{data: r.bytes(0, maxMemory)}
		}
		list = append(list, o)
	}
	return list
}

// upgrade makes of what a version 1 image holds what such a card is today.
func (s *state) upgrade(iin, cin []byte) {
	if len(s.entries) == 0 || s.issuer().domain == nil {
		return // check says so
	}
	s.issuer().domain.put(tagIIN, iin)
	s.issuer().domain.put(tagCIN, cin)
	if s.issuer().privileges == (privileges{0x9E, 0xDE, 0x00}) {
		s.issuer().privileges = issuerPrivileges
	}
	if !s.taken(domainPackage) {
		s.addDomainPackage()
	}
}

func (r *reader) file() *loadFile {
	f := &loadFile{aid: r.aid(), securityDomain: r.aid(), version: r.bytes(0, 2)}
	for n := r.number(maxModules); n > 0 && r.err == nil; n-- {
		f.modules = append(f.modules, r.aid())
	}
	if r.version > 1 {
		f.own = r.bool()
	}
	f.data = r.bytes(0, iso7816.MaxTLVLength)
	return f
}

func (r *reader) entry() *entry {
	e := &entry{aid: r.aid(), file: r.aid(), module: r.aid(), securityDomain: r.aid()}
	copy(e.privileges[:], r.bytes(3, 3))
	if r.version > 1 {
		e.implicit = r.bytes(0, 255)
	}
	if r.version > 2 {
		e.services, e.registered = r.services(), r.services()
	}
	e.lifeCycle = r.byte()
	e.locked = r.bool()
	e.own = r.bool()
	e.transientReset = r.number(maxMemory)
	e.transientDeselect = r.number(maxMemory)
	e.objects = r.objects()
	switch {
	case r.version == 1:
		e.domain = r.domainVersion1()
	case r.bool():
		e.domain = r.domain()
	}
	return e
}

// services reads names of Global Services.
func (r *reader) services() services {
	b := r.bytes(0, 2*maxServices)
	if len(b) == 0 {
		return nil
	}
	names, err := parseServices(b)
	if err != nil {
		r.fail("service names %X", b)
	}
	return names
}

// domainVersion1 reads key sets, which only a Security Domain had.
func (r *reader) domainVersion1() *domain {
	d := &domain{protocol: scp.SCP03}
	n := r.number(maxDomainKeys / 3)
	if n == 0 {
		return nil
	}
	for ; n > 0 && r.err == nil; n-- {
		version := r.byte()
		for id := byte(1); id <= 3; id++ {
			d.keys = append(d.keys, key{version: version, id: id, components: []component{{keyTypeAES, r.bytes(16, 32)}}})
		}
	}
	return d
}

func (r *reader) domain() *domain {
	d := &domain{protocol: scp.Protocol{Number: r.byte(), I: r.byte()}}
	for n := r.number(maxDomainKeys); n > 0 && r.err == nil; n-- {
		k := key{version: r.byte(), id: r.byte(), usage: r.bytes(0, 2), access: r.bytes(0, 1)}
		for n := r.number(2); n > 0 && r.err == nil; n-- {
			k.components = append(k.components, component{r.byte(), r.bytes(1, 512)})
		}
		d.keys = append(d.keys, k)
	}
	for n := r.number(maxDomainData); n > 0 && r.err == nil; n-- {
		d.data = append(d.data, iso7816.TLV{Tag: iso7816.Tag(r.number(0xFFFF)), Value: r.bytes(1, maxDomainData)})
	}
	for n := r.number(127); n > 0 && r.err == nil; n-- {
		d.counters = append(d.counters, sequence{r.byte(), uint32(r.number(0xFFFFFF))})
	}
	d.confirmations = uint16(r.number(maxConfirmations))
	for n := r.number(maxDomainTokens); n > 0 && r.err == nil; n-- {
		d.tokens = append(d.tokens, r.bytes(1, 0x7F))
	}
	d.restricted = restriction(r.byte())
	return d
}

// check holds a decoded state to what the rest of the package takes for
// granted.
func (s *state) check() error {
	if err := s.profile.check(); err != nil {
		return err
	}
	if s.restricted&^restrictions != 0 {
		return fmt.Errorf("restrictions %02X", byte(s.restricted))
	}
	if err := s.cvm.check(); err != nil {
		return err
	}
	if _, ok := withHistoricalBytes(s.profile.ATR, s.historical); s.historical != nil && !ok {
		return fmt.Errorf("historical bytes %X", s.historical)
	}
	if len(s.entries) == 0 || s.issuer().domain == nil || !s.issuer().own {
		return errors.New("no Issuer Security Domain")
	}
	seen := map[iso7816.AID]bool{}
	name := func(aid iso7816.AID) error {
		if aid.IsZero() || seen[aid] {
			return fmt.Errorf("AID %q is missing or there twice", aid)
		}
		seen[aid] = true
		return nil
	}
	for _, f := range s.files {
		if err := name(f.aid); err != nil {
			return err
		}
		if s.domain(f.securityDomain) == nil {
			return fmt.Errorf("load file %v has the unknown Security Domain %v", f.aid, f.securityDomain)
		}
		if f.own != (len(f.data) == 0) || f.own && f.aid != domainPackage {
			return fmt.Errorf("load file %v is neither the card's own nor was it loaded", f.aid)
		}
		for _, m := range f.modules {
			if m.IsZero() {
				return fmt.Errorf("load file %v has a module without a name", f.aid)
			}
		}
	}
	held, names := privileges{}, services{}
	for i, e := range s.entries {
		if err := name(e.aid); err != nil {
			return err
		}
		if err := s.checkEntry(e, i == 0); err != nil {
			return fmt.Errorf("application %v: %w", e.aid, err)
		}
		for _, name := range e.registered {
			if slices.Contains(names, name) {
				return fmt.Errorf("application %v has a service %04X that another has", e.aid, name)
			}
			names = append(names, name)
		}
		for _, q := range single {
			if e.privileges.has(q) && held.has(q) {
				return fmt.Errorf("application %v has a privilege that another has", e.aid)
			}
			if e.privileges.has(q) {
				held = held.with(q)
			}
		}
	}
	for _, q := range single {
		if !held.has(q) {
			return errors.New("nobody has Card Reset or Final Application")
		}
	}
	return nil
}

// checkEntry holds one entry to the same.
func (s *state) checkEntry(e *entry, issuer bool) error {
	file := s.file(e.file)
	switch {
	case e.privileges.securityDomain() != (e.domain != nil):
		return errors.New("a Security Domain's content is for Security Domains")
	case s.domain(e.securityDomain) == nil:
		return fmt.Errorf("unknown Security Domain %v", e.securityDomain)
	case e.own != e.file.IsZero() || e.own != e.module.IsZero():
		return errors.New("neither the card's own nor of a load file")
	case !e.own && file == nil:
		return fmt.Errorf("unknown load file %v", e.file)
	case e.domain != nil && !issuer && (e.own || !file.own):
		return errors.New("not of the load file of Security Domains")
	case (e.own || e.domain != nil) && len(e.objects) > 0:
		return errors.New("it has memory, being the card's own")
	case issuer && !slices.Contains([]byte{cardOPReady, cardInitialized, cardSecured, cardLocked, cardTerminated}, e.lifeCycle),
		!issuer && e.lifeCycle&0x80 != 0,
		e.domain != nil && !issuer && !slices.Contains([]byte{oncard.Installed, oncard.Selectable, domainPersonalized}, e.lifeCycle):
		return fmt.Errorf("life cycle state %02X", e.lifeCycle)
	case issuer && (e.locked || e.securityDomain != e.aid):
		return errors.New("it is the Issuer Security Domain")
	case !e.mayServe():
		return errors.New("it has services that it may not offer")
	case e.domain == nil:
		return nil
	}
	return e.domain.check(issuer)
}

// check holds the content of a Security Domain to the same.
func (d *domain) check(issuer bool) error {
	if !d.protocol.Valid() {
		return fmt.Errorf("secure channel protocol %v", d.protocol)
	}
	if err := d.fits(); err != nil {
		return errors.New("it has more than it can")
	}
	for i, k := range d.keys {
		if k.version < 1 || k.version > 0x7F || k.id > 0x7F || d.find(k.version, k.id) != i {
			return fmt.Errorf("key %02X of version %02X can't be, or is there twice", k.id, k.version)
		}
		if len(k.components) == 0 || (newKey{key: k}).valid(false) != nil {
			return fmt.Errorf("key %02X of version %02X is of no type", k.id, k.version)
		}
	}
	if _, ok := d.set(0); issuer && !ok {
		return errors.New("it has no secure channel keys")
	}
	for i, t := range d.data {
		if t.Tag > 0xFFFF || i > 0 && d.data[i-1].Tag >= t.Tag || !storable(t.Tag) {
			return fmt.Errorf("data object %v can't be, or is out of order", t.Tag)
		}
	}
	for _, tag := range []iso7816.Tag{tagIIN, tagCIN} {
		if v, _ := d.object(tag); len(v) > maxIdentity || issuer && len(v) == 0 {
			return fmt.Errorf("data object %v of %d bytes", tag, len(v))
		}
	}
	if v, ok := d.object(tagManagementData); ok {
		if _, err := iso7816.ParseSingleTLV(v, 0x73); err != nil {
			return err
		}
	}
	for i, s := range d.counters {
		if s.next == 0 || slices.ContainsFunc(d.counters[:i], func(o sequence) bool { return o.version == s.version }) {
			return fmt.Errorf("sequence counter of version %02X can't be, or is there twice", s.version)
		}
	}
	if d.restricted&^restrictions != 0 {
		return fmt.Errorf("restrictions %02X", byte(d.restricted))
	}
	return nil
}
