// Package list holds signed lists of IDs by which a terminal decides without a
// network: who is refused (deny), or who alone is let in (allow).
//
//	l, err := list.Open("library.list", list.Options{Key: issuer})
//	if err != nil { … }
//	defer l.Close()
//	if l.Contains(tap.ID) { … }
//
// A list of a million IDs is 16 MB, mapped into memory and not read into it;
// a look-up is one hash and a few probes. The list holds no ID in the clear, but
// salted digests. Who has the file can still try out IDs, so that short or
// numbered ones are found: a list is for the terminals, not for the public.
//
// # Format of a list
//
// Two lines of text and then the entries:
//
//	{"v":1,"service":"library","kind":"deny","number":7,"made":"2026-04-01T00:00:00Z","stale":"2026-04-08T00:00:00Z","salt":"…","entries":1000000,"digest":"…"}
//	base64 of the signature, or an empty line
//	entries, 16 bytes each, rising
//
// The header is one JSON object in exactly this encoding; digest is the SHA-256
// of the entries. The signature is Ed25519 over the text "freearea ID list v1",
// a line feed, and the header's bytes. An entry is the first 16 bytes of the
// SHA-256 of salt (16 bytes) and ID.
//
// A delta carries one list into the next: a line
//
//	{"v":1,"base":"…","removed":3,"added":5}
//
// with the digest of the list that it changes, the next list's two lines, the
// entries removed, and those added, each rising. It needs no signature of its
// own: what comes out is the next list to the byte, or is refused.
package list

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"os"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/edsrzf/mmap-go"

	"github.com/freearea/freearea/internal/durable"
)

// Errors of lists. They name the file.
var (
	ErrMalformed = errors.New("not a list of IDs")
	ErrDamaged   = errors.New("list of IDs is damaged")                 // its entries are not those of its header
	ErrUnsigned  = errors.New("list of IDs is not signed")              // and must be
	ErrSignature = errors.New("list of IDs has a wrong signature")      // another's, or it was changed
	ErrBase      = errors.New("delta belongs to another list of IDs")   // than the one that is there
	ErrOlder     = errors.New("list of IDs is older than the last one") // an old list put back
	ErrService   = errors.New("list of IDs is another service's")
)

// Kind says what it means that an ID is in a list.
type Kind string

// Kinds of lists.
const (
	Deny  Kind = "deny"  // what is in it is refused
	Allow Kind = "allow" // what is not in it is refused
)

// EntrySize is what an ID takes in a list, in bytes.
const EntrySize = 16

// MaxEntries is how many IDs a list can hold: 1.6 GB.
const MaxEntries = 100_000_000

// maxLine bounds the lines of text.
const maxLine = 1024

const (
	version       = 1
	signedPrefix  = "freearea ID list v1\n"
	saltSize      = 16
	maxServiceLen = 64
)

// Header says what a list is.
type Header struct {
	V       int       `json:"v"`
	Service string    `json:"service"`
	Kind    Kind      `json:"kind"`
	Number  uint64    `json:"number"` // of the service's list, rising: an older one is not taken again
	Made    time.Time `json:"made"`   // UTC, whole seconds
	Stale   time.Time `json:"stale"`  // from when on it is too old to be trusted
	Salt    Hex       `json:"salt"`   // 16 bytes
	Entries int       `json:"entries"`
	Digest  Hex       `json:"digest"` // SHA-256
}

// Hex is bytes as lower-case hexadecimal digits.
type Hex []byte

// MarshalText writes the digits.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads them.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// encode gives the header's one encoding.
func (h Header) encode() []byte {
	b, err := json.Marshal(h)
	if err != nil {
		panic(err) // no value of the fields' types can't be encoded
	}
	return b
}

func parseHeader(line []byte) (Header, error) {
	var h Header
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case h.V != version:
		return h, fmt.Errorf("%w: version %d, %d expected", ErrMalformed, h.V, version)
	case !bytes.Equal(h.encode(), line):
		return h, fmt.Errorf("%w: header is not in its one encoding", ErrMalformed)
	}
	return h, h.check()
}

// check says what is wrong with the fields that have bounds.
func (h Header) check() error {
	fault := ""
	switch {
	case h.Service == "" || len(h.Service) > maxServiceLen || !utf8.ValidString(h.Service):
		fault = "service"
	case h.Kind != Deny && h.Kind != Allow:
		fault = "kind"
	case h.Number == 0:
		fault = "number"
	case h.Made.IsZero() || h.Made.Nanosecond() != 0 || h.Made.Location() != time.UTC:
		fault = "made"
	case !h.Stale.After(h.Made) || h.Stale.Nanosecond() != 0 || h.Stale.Location() != time.UTC:
		fault = "stale"
	case len(h.Salt) != saltSize:
		fault = "salt"
	case h.Entries < 0 || h.Entries > MaxEntries:
		fault = "entries"
	case len(h.Digest) != sha256.Size:
		fault = "digest"
	default:
		return nil
	}
	return fmt.Errorf("%w: its header has no good %q", ErrMalformed, fault)
}

type entry [EntrySize]byte

func (e entry) compare(other entry) int { return bytes.Compare(e[:], other[:]) }

// digest is what stands for an ID.
func digest(salt []byte, id string) entry {
	var room [128]byte
	sum := sha256.Sum256(append(append(room[:0], salt...), id...))
	return entry(sum[:EntrySize])
}

// Spec is what a new list is to be.
type Spec struct {
	Service string
	Kind    Kind
	Number  uint64        // greater than the last list's
	Made    time.Time     // now
	Good    time.Duration // for how long the list is fresh: 1 s and more
	// Salt is that of the list before, so that a delta between the two is
	// small; nil draws one.
	Salt []byte
	// Sign signs with the issuer's Ed25519 key; nil leaves the list unsigned.
	Sign func(message []byte) ([]byte, error)
	Rand io.Reader // nil is crypto/rand
}

// Create writes a list of IDs, each of which counts once, to a new file or in
// the place of an old one, which stays whole until then.
func Create(path string, s Spec, ids iter.Seq2[string, error]) (Header, error) {
	if s.Rand == nil {
		s.Rand = rand.Reader
	}
	if s.Salt == nil {
		s.Salt = make([]byte, saltSize)
		if _, err := io.ReadFull(s.Rand, s.Salt); err != nil {
			return Header{}, err
		}
	}
	var entries []entry
	for id, err := range ids {
		if err != nil {
			return Header{}, err
		}
		if len(entries) == MaxEntries {
			return Header{}, fmt.Errorf("more than %d IDs", MaxEntries)
		}
		entries = append(entries, digest(s.Salt, id))
	}
	slices.SortFunc(entries, entry.compare)
	entries = slices.Compact(entries)
	h := Header{V: version, Service: s.Service, Kind: s.Kind, Number: s.Number,
		Made: s.Made.UTC().Truncate(time.Second), Salt: s.Salt, Entries: len(entries)}
	h.Stale = h.Made.Add(s.Good.Truncate(time.Second))
	sum := sha256.New()
	for _, e := range entries {
		sum.Write(e[:])
	}
	h.Digest = sum.Sum(nil)
	if err := h.check(); err != nil {
		return Header{}, err
	}
	text, err := signed(h, s.Sign)
	if err != nil {
		return Header{}, err
	}
	return h, durable.Replace(path, func(w io.Writer) error {
		_, err := w.Write(text)
		for _, e := range entries {
			if err != nil {
				return err
			}
			_, err = w.Write(e[:])
		}
		return err
	})
}

// signed gives a list's two lines.
func signed(h Header, sign func([]byte) ([]byte, error)) ([]byte, error) {
	header := h.encode()
	text := append(bytes.Clone(header), '\n')
	if sign != nil {
		signature, err := sign(message(header))
		if err != nil {
			return nil, fmt.Errorf("signing the list of %s: %w", h.Service, err)
		}
		text = base64.StdEncoding.AppendEncode(text, signature)
	}
	return append(text, '\n'), nil
}

func message(header []byte) []byte { return append([]byte(signedPrefix), header...) }

// Options of opening a list.
type Options struct {
	// Key is the issuer's public key. Without one no signature is checked, and
	// [List.Verified] says so.
	Key ed25519.PublicKey
	// Unsigned takes a list without a signature although there is a key.
	Unsigned bool
	// Service is whose list it has to be; "" takes any.
	Service string
	// After is the number of the last list that was used: an older one is
	// refused with [ErrOlder]. 0 takes any.
	After uint64
}

// List is an open list. Its methods can be called from several goroutines, but
// for Close.
type List struct {
	header   Header
	verified bool
	text     []byte // the two lines
	file     *os.File
	mapped   mmap.MMap
	entries  []byte
}

// Open maps a list into memory and checks it whole: header, signature, digest
// and order of its entries. Its file must not be written into meanwhile; lists
// are replaced by renaming.
func Open(path string, o Options) (l *List, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l = &List{file: f}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), l.Close())
			l = nil
		}
	}()
	in := bufio.NewReaderSize(f, maxLine)
	var signature []byte
	if l.header, l.text, signature, err = readText(in); err != nil {
		return l, err
	}
	if l.verified, err = verify(l.text, signature, o); err != nil {
		return l, err
	}
	switch h := l.header; {
	case o.Service != "" && h.Service != o.Service:
		return l, fmt.Errorf("%w: it is of %s, not %s", ErrService, h.Service, o.Service)
	case h.Number < o.After:
		return l, fmt.Errorf("%w: number %d after %d", ErrOlder, h.Number, o.After)
	}
	info, err := f.Stat()
	if err != nil {
		return l, err
	}
	if info.Size() != int64(len(l.text)+l.header.Entries*EntrySize) {
		return l, fmt.Errorf("%w: %d bytes, %d expected", ErrDamaged, info.Size(), len(l.text)+l.header.Entries*EntrySize)
	}
	if l.mapped, err = mmap.Map(f, mmap.RDONLY, 0); err != nil {
		return l, err
	}
	l.entries = l.mapped[len(l.text):]
	return l, l.check()
}

// check reads the entries once.
func (l *List) check() error {
	if sum := sha256.Sum256(l.entries); !bytes.Equal(sum[:], l.header.Digest) {
		return fmt.Errorf("%w: its entries have another digest than its header says", ErrDamaged)
	}
	for i := range l.header.Entries - 1 {
		if bytes.Compare(l.at(i), l.at(i+1)) >= 0 {
			return fmt.Errorf("%w: entry %d does not rise", ErrDamaged, i+1)
		}
	}
	return nil
}

// readText reads the two lines of a list.
func readText(in *bufio.Reader) (h Header, text, signature []byte, err error) {
	header, err := line(in)
	if err != nil {
		return h, nil, nil, err
	}
	encoded, err := line(in)
	if err != nil {
		return h, nil, nil, err
	}
	if signature, err = base64.StdEncoding.Strict().DecodeString(string(encoded)); err != nil || len(signature) != 0 && len(signature) != ed25519.SignatureSize {
		return h, nil, nil, fmt.Errorf("%w: second line is no signature", ErrMalformed)
	}
	h, err = parseHeader(header)
	return h, slices.Concat(header, []byte{'\n'}, encoded, []byte{'\n'}), signature, err
}

func line(in *bufio.Reader) ([]byte, error) {
	b, err := in.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: line without an end", ErrMalformed)
	}
	return bytes.Clone(b[:len(b)-1]), nil
}

func verify(text, signature []byte, o Options) (bool, error) {
	header, _, _ := bytes.Cut(text, []byte{'\n'})
	switch {
	case o.Key == nil:
		return false, nil
	case len(signature) == 0 && o.Unsigned:
		return false, nil
	case len(signature) == 0:
		return false, ErrUnsigned
	case !ed25519.Verify(o.Key, message(header), signature):
		return false, ErrSignature
	}
	return true, nil
}

// Header says what the list is.
func (l *List) Header() Header { return l.header }

// Verified tells that the issuer's signature was checked.
func (l *List) Verified() bool { return l.verified }

// Stale tells whether the list is too old at a time.
func (l *List) Stale(at time.Time) bool { return !at.Before(l.header.Stale) }

// Contains tells whether the ID is in the list.
func (l *List) Contains(id string) bool {
	want := digest(l.header.Salt, id)
	return l.find(want)
}

func (l *List) at(i int) []byte { return l.entries[i*EntrySize:][:EntrySize] }

func (l *List) prefix(i int) uint64 { return binary.BigEndian.Uint64(l.entries[i*EntrySize:]) }

// find searches by interpolation: digests lie evenly, so that a few probes are
// enough. Every second step halves, which bounds the search whatever lies there.
func (l *List) find(want entry) bool {
	x := binary.BigEndian.Uint64(want[:])
	low, high := 0, l.header.Entries-1
	for step := 0; low <= high; step++ {
		middle := low + (high-low)/2
		if a, b := l.prefix(low), l.prefix(high); step%2 == 0 && a <= x && x <= b && a < b {
			hi, lo := bits.Mul64(x-a, uint64(high-low))
			q, _ := bits.Div64(hi, lo, b-a) // hi < b-a, since the quotient is at most high-low
			middle = low + int(q)
		}
		switch bytes.Compare(l.at(middle), want[:]) {
		case 0:
			return true
		case -1:
			low = middle + 1
		default:
			high = middle - 1
		}
	}
	return false
}

// Close gives the memory back. The list can't be used after.
func (l *List) Close() error {
	var err error
	if l.mapped != nil {
		err = l.mapped.Unmap()
		l.entries = nil
	}
	return errors.Join(err, l.file.Close())
}
