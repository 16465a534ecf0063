package applets

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/freearea/freearea/iso7816"
)

// Limits of the fields of EF.ID, in bytes.
const (
	MaxService = 32
	MaxID      = 64
)

// Errors of EF.ID.
var (
	// ErrMalformedRecord: the bytes are no EF.ID, or the Record has no encoding.
	ErrMalformedRecord = errors.New("malformed EF.ID")
	// ErrNoSignature: EF.ID is not signed.
	ErrNoSignature = errors.New("EF.ID is not signed")
	// ErrSignature: EF.ID is not signed by that issuer for that instance.
	ErrSignature = errors.New("issuer's signature of EF.ID is wrong")
)

// Tags of EF.ID, in the order in which they stand.
const (
	tagService   iso7816.Tag = 0xC1
	tagID        iso7816.Tag = 0xC2
	tagIssue     iso7816.Tag = 0xC3
	tagExpiry    iso7816.Tag = 0xC4
	tagSignature iso7816.Tag = 0xC5
)

// signatureDomain keeps a signature of EF.ID from being one of anything else.
const signatureDomain = "FREEAREA EF.ID 1"

// Record is what EF.ID says.
type Record struct {
	// Service is the service's identifier: 1 to 32 printable ASCII characters
	// without spaces.
	Service string
	// ID is the holder's ID in the service: 1 to 64 bytes of UTF-8 without
	// control characters.
	ID string
	// IssueNumber counts the cards that were issued for this ID.
	IssueNumber uint16
	// Expiry is the last day on which the ID is good: midnight UTC of that
	// day, years 1 to 9999; zero for none.
	Expiry time.Time
	// Signature is the issuer's Ed25519 signature over SignedMessage; nil
	// where there is none.
	Signature []byte
}

// check refuses what has no encoding.
func (r Record) check() error {
	if len(r.Service) < 1 || len(r.Service) > MaxService {
		return fmt.Errorf("%w: service identifier of %d bytes, 1 to %d allowed", ErrMalformedRecord, len(r.Service), MaxService)
	}
	for i := range len(r.Service) {
		if c := r.Service[i]; c < 0x21 || c > 0x7E {
			return fmt.Errorf("%w: byte %02X in the service identifier", ErrMalformedRecord, c)
		}
	}
	if len(r.ID) < 1 || len(r.ID) > MaxID {
		return fmt.Errorf("%w: ID of %d bytes, 1 to %d allowed", ErrMalformedRecord, len(r.ID), MaxID)
	}
	if err := checkText(r.ID); err != nil {
		return fmt.Errorf("%w: ID %v", ErrMalformedRecord, err)
	}
	if !r.Expiry.IsZero() {
		y, m, d := r.Expiry.Date()
		if y < 1 || y > 9999 || !r.Expiry.Equal(time.Date(y, m, d, 0, 0, 0, 0, time.UTC)) {
			return fmt.Errorf("%w: expiry %v is not midnight UTC of a day in the years 1 to 9999", ErrMalformedRecord, r.Expiry)
		}
	}
	if r.Signature != nil && len(r.Signature) != ed25519.SignatureSize {
		return fmt.Errorf("%w: signature of %d bytes, %d expected", ErrMalformedRecord, len(r.Signature), ed25519.SignatureSize)
	}
	return nil
}

// checkText says what is wrong with a text that is to be shown to people.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return fmt.Errorf("has the control character %U", c)
		}
	}
	return nil
}

// Encode returns EF.ID, at most MaxRecord bytes.
func (r Record) Encode() ([]byte, error) {
	b, err := r.unsigned(nil)
	if err != nil {
		return nil, err
	}
	if r.Signature != nil {
		b = iso7816.AppendTLV(b, tagSignature, r.Signature)
	}
	return b, nil
}

// unsigned appends EF.ID without the signature.
func (r Record) unsigned(b []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b = iso7816.AppendTLV(b, tagService, []byte(r.Service))
	b = iso7816.AppendTLV(b, tagID, []byte(r.ID))
	b = iso7816.AppendTLV(b, tagIssue, []byte{byte(r.IssueNumber >> 8), byte(r.IssueNumber)})
	if !r.Expiry.IsZero() {
		y, m, d := r.Expiry.Date()
		b = iso7816.AppendTLV(b, tagExpiry, []byte{bcd(y / 100), bcd(y % 100), bcd(int(m)), bcd(d)})
	}
	return b, nil
}

func bcd(n int) byte { return byte(n/10<<4 | n%10) }

// ParseRecord reads EF.ID. Its fields stand in one order; what it accepts,
// Encode writes as the same bytes.
func ParseRecord(b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("%w: %d bytes, %d at most", ErrMalformedRecord, len(b), MaxRecord)
	}
	var r Record
	last, numbered := iso7816.Tag(0), false
	for len(b) > 0 {
		t, rest, err := iso7816.ParseTLV(b)
		if err != nil {
			return Record{}, fmt.Errorf("%w: %w", ErrMalformedRecord, err)
		}
		if t.Tag <= last {
			return Record{}, fmt.Errorf("%w: tag %v after tag %v", ErrMalformedRecord, t.Tag, last)
		}
		last, b = t.Tag, rest
		switch t.Tag {
		case tagService:
			r.Service = string(t.Value)
		case tagID:
			r.ID = string(t.Value)
		case tagIssue:
			if len(t.Value) != 2 {
				return Record{}, fmt.Errorf("%w: issue number of %d bytes, 2 expected", ErrMalformedRecord, len(t.Value))
			}
			numbered = true
			r.IssueNumber = uint16(t.Value[0])<<8 | uint16(t.Value[1])
		case tagExpiry:
			if r.Expiry, err = parseDate(t.Value); err != nil {
				return Record{}, err
			}
		case tagSignature:
			r.Signature = append([]byte{}, t.Value...)
		default:
			return Record{}, fmt.Errorf("%w: unknown tag %v", ErrMalformedRecord, t.Tag)
		}
	}
	if r.Service == "" || r.ID == "" || !numbered {
		return Record{}, fmt.Errorf("%w: service identifier, ID or issue number is missing", ErrMalformedRecord)
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

func parseDate(b []byte) (time.Time, error) {
	if len(b) != 4 {
		return time.Time{}, fmt.Errorf("%w: expiry of %d bytes, 4 expected", ErrMalformedRecord, len(b))
	}
	var n [4]int
	for i, x := range b {
		if x>>4 > 9 || x&0xF > 9 {
			return time.Time{}, fmt.Errorf("%w: expiry % X is not decimal", ErrMalformedRecord, b)
		}
		n[i] = int(x>>4)*10 + int(x&0xF)
	}
	y, m, d := n[0]*100+n[1], time.Month(n[2]), n[3]
	t := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	if ty, tm, td := t.Date(); y < 1 || ty != y || tm != m || td != d || t.IsZero() {
		return time.Time{}, fmt.Errorf("%w: expiry % X is no date", ErrMalformedRecord, b)
	}
	return t, nil
}

// SignedMessage returns what the issuer signs: a string that stands for EF.ID
// alone, the length and the bytes of the instance's AID, and all of EF.ID that
// stands before the signature.
func (r Record) SignedMessage(instance iso7816.AID) ([]byte, error) {
	b := append([]byte(signatureDomain), byte(instance.Len()))
	return r.unsigned(append(b, instance.Bytes()...))
}

// Verify checks the issuer's signature for an instance. The error wraps
// [ErrNoSignature] or [ErrSignature]. A good signature does not show that the
// card is the one it was issued to: only types A and D do.
func (r Record) Verify(issuer ed25519.PublicKey, instance iso7816.AID) error {
	if r.Signature == nil {
		return ErrNoSignature
	}
	if len(issuer) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: public key of %d bytes, %d expected", ErrSignature, len(issuer), ed25519.PublicKeySize)
	}
	m, err := r.SignedMessage(instance)
	if err != nil {
		return err
	}
	if !ed25519.Verify(issuer, m, r.Signature) {
		return ErrSignature
	}
	return nil
}
