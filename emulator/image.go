package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
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
// encodes to the same bytes again.
const (
	imageMagic   = "FRACARD\n"
	imageVersion = 2
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
	if v := binary.BigEndian.Uint16(b[len(imageMagic):]); v != imageVersion {
		return nil, fmt.Errorf("%w: %d, this program knows %d", ErrImageVersion, v, imageVersion)
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
	r := reader{b: signed[imageHeader:]}
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
	w.number(p.CommitCapacity)
	w.number(p.PersistentMemory)
	w.number(p.TransientReset)
	w.number(p.TransientDeselect)
	w.bytes(s.iin)
	w.bytes(s.cin)
	w.bytes(s.diversification[:])
	w.number(len(s.files))
	for _, f := range s.files {
		w.aid(f.aid)
		w.aid(f.securityDomain)
		w.bytes(f.version)
		w.number(len(f.modules))
		for _, m := range f.modules {
			w.aid(m)
		}
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
	w.byte(e.lifeCycle)
	w.bool(e.locked)
	w.bool(e.own)
	w.number(e.transientReset)
	w.number(e.transientDeselect)
	w.objects(e.objects)
	w.number(len(e.keys))
	for _, k := range e.keys {
		w.byte(k.Version)
		w.bytes(k.ENC.Bytes())
		w.bytes(k.MAC.Bytes())
		w.bytes(k.DEK.Bytes())
	}
}

// reader decodes a state. The first error sticks, and everything read after it
// is zero.
type reader struct {
	b   []byte
	err error
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

func (r *reader) key() keys.Key {
	b := r.bytes(16, 32)
	if r.err != nil {
		return keys.Key{}
	}
	k, err := keys.NewKey(b)
	clear(b)
	if err != nil {
		r.fail("%w", err)
	}
	return k
}

func (r *reader) state() *state {
	s := &state{}
	p := &s.profile
	p.Name = string(r.bytes(0, 255))
	p.ATR = r.bytes(0, 33)
	p.Contactless = r.bool()
	p.ExtendedLength = r.bool()
	p.CommitCapacity = r.number(maxMemory)
	p.PersistentMemory = r.number(maxMemory)
	p.TransientReset = r.number(maxMemory)
	p.TransientDeselect = r.number(maxMemory)
	s.iin = r.bytes(1, maxIdentity)
	s.cin = r.bytes(1, maxIdentity)
	copy(s.diversification[:], r.bytes(10, 10))
	for n := r.count(20); n > 0 && r.err == nil; n-- {
		f := &loadFile{aid: r.aid(), securityDomain: r.aid(), version: r.bytes(0, 2)}
		for n := r.number(maxModules); n > 0 && r.err == nil; n-- {
			f.modules = append(f.modules, r.aid())
		}
		f.data = r.bytes(1, iso7816.MaxTLVLength)
		s.files = append(s.files, f)
	}
	for n := r.count(20); n > 0 && r.err == nil; n-- {
		s.entries = append(s.entries, r.entry())
	}
	s.runtime = r.objects()
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

func (r *reader) entry() *entry {
	e := &entry{aid: r.aid(), file: r.aid(), module: r.aid(), securityDomain: r.aid()}
	copy(e.privileges[:], r.bytes(3, 3))
	e.lifeCycle = r.byte()
	e.locked = r.bool()
	e.own = r.bool()
	e.transientReset = r.number(maxMemory)
	e.transientDeselect = r.number(maxMemory)
	e.objects = r.objects()
	for n := r.number(127); n > 0 && r.err == nil; n-- {
		e.keys = append(e.keys, keys.Set{Version: r.byte(), ENC: r.key(), MAC: r.key(), DEK: r.key()})
	}
	return e
}

// check holds a decoded state to what the rest of the package takes for
// granted.
func (s *state) check() error {
	if err := s.profile.check(); err != nil {
		return err
	}
	if len(s.entries) == 0 || s.issuer().aid != IssuerSecurityDomain || !s.issuer().privileges.securityDomain() {
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
		for _, m := range f.modules {
			if m.IsZero() {
				return fmt.Errorf("load file %v has a module without a name", f.aid)
			}
		}
	}
	for _, e := range s.entries {
		if err := name(e.aid); err != nil {
			return err
		}
		switch sd := e.privileges.securityDomain(); {
		case s.domain(e.securityDomain) == nil:
			return fmt.Errorf("application %v has the unknown Security Domain %v", e.aid, e.securityDomain)
		case sd != (len(e.keys) > 0):
			return fmt.Errorf("application %v: keys are for Security Domains", e.aid)
		case e.own != e.file.IsZero() || e.own != e.module.IsZero():
			return fmt.Errorf("application %v is neither the card's own nor of a load file", e.aid)
		case !e.own && s.file(e.file) == nil:
			return fmt.Errorf("application %v has the unknown load file %v", e.aid, e.file)
		case e.own && len(e.objects) > 0:
			return fmt.Errorf("application %v has memory, being the card's own", e.aid)
		case e.lifeCycle&0x80 != 0:
			return fmt.Errorf("application %v has the life cycle state %02X", e.aid, e.lifeCycle)
		}
		for _, k := range e.keys {
			if err := checkKeys(k); err != nil {
				return err
			}
		}
	}
	return nil
}
