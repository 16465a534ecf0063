package iso7816

import (
	"errors"
	"fmt"
)

// ErrMalformedTLV reports bytes that are no BER-TLV data object in the one
// form that this package accepts.
var ErrMalformedTLV = errors.New("malformed BER-TLV")

// Tag is a BER-TLV tag of 1 to 3 bytes, as a number: 0x84, 0x9F70, 0xDF8101.
type Tag uint32

// Constructed reports whether the value of the data object is itself BER-TLV.
func (t Tag) Constructed() bool {
	for t > 0xFF {
		t >>= 8
	}
	return t&0x20 != 0
}

func (t Tag) String() string { return fmt.Sprintf("%X", uint32(t)) }

// TLV is one BER-TLV data object (ISO/IEC 8825-1; 5.2.2 of ISO/IEC 7816-4).
type TLV struct {
	Tag   Tag
	Value []byte
}

// MaxTLVLength is the longest value that is read or written, in bytes.
const MaxTLVLength = 65535

// ParseTLV reads one data object from the front of b and returns the rest.
// Tags have 1 to 3 bytes, lengths 1 to 3 bytes and are minimal; anything else
// wraps [ErrMalformedTLV]. The value is a part of b, not a copy.
func ParseTLV(b []byte) (t TLV, rest []byte, err error) {
	tag, n, err := parseTag(b)
	if err != nil {
		return TLV{}, nil, err
	}
	length, m, err := parseLength(b[n:], tag)
	if err != nil {
		return TLV{}, nil, err
	}
	n += m
	if length > len(b)-n {
		return TLV{}, nil, fmt.Errorf("%w: tag %v says %d bytes, %d are there", ErrMalformedTLV, tag, length, len(b)-n)
	}
	return TLV{tag, b[n : n+length : n+length]}, b[n+length:], nil
}

// ParseTLVs reads data objects until b is used up.
func ParseTLVs(b []byte) ([]TLV, error) {
	var out []TLV
	for len(b) > 0 {
		t, rest, err := ParseTLV(b)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
		b = rest
	}
	return out, nil
}

// ParseSingleTLV reads exactly one data object with the given tag that fills b.
func ParseSingleTLV(b []byte, want Tag) (TLV, error) {
	t, rest, err := ParseTLV(b)
	switch {
	case err != nil:
		return TLV{}, err
	case t.Tag != want:
		return TLV{}, fmt.Errorf("%w: tag %v where %v is expected", ErrMalformedTLV, t.Tag, want)
	case len(rest) > 0:
		return TLV{}, fmt.Errorf("%w: %d bytes after tag %v", ErrMalformedTLV, len(rest), want)
	}
	return t, nil
}

// Children reads the value of a constructed data object.
func (t TLV) Children() ([]TLV, error) {
	if !t.Tag.Constructed() {
		return nil, fmt.Errorf("%w: tag %v is primitive", ErrMalformedTLV, t.Tag)
	}
	return ParseTLVs(t.Value)
}

// Find returns the first data object with the tag.
func Find(list []TLV, tag Tag) (TLV, bool) {
	for _, t := range list {
		if t.Tag == tag {
			return t, true
		}
	}
	return TLV{}, false
}

// AppendTLV appends a data object with a minimal length to dst. It panics
// when the tag has no encoding or the value is longer than MaxTLVLength:
// both are mistakes of the program, never of its input.
func AppendTLV(dst []byte, tag Tag, value []byte) []byte {
	dst = appendTag(dst, tag)
	switch n := len(value); {
	case n < 0x80:
		dst = append(dst, byte(n))
	case n <= 0xFF:
		dst = append(dst, 0x81, byte(n))
	case n <= MaxTLVLength:
		dst = append(dst, 0x82, byte(n>>8), byte(n))
	default:
		panic(fmt.Sprintf("iso7816: TLV value of %d bytes", n))
	}
	return append(dst, value...)
}

// Encode returns the bytes of the data object; see AppendTLV.
func (t TLV) Encode() []byte { return AppendTLV(nil, t.Tag, t.Value) }

func appendTag(dst []byte, tag Tag) []byte {
	b := []byte{byte(tag >> 16), byte(tag >> 8), byte(tag)}
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	if got, n, err := parseTag(b); err != nil || got != tag || n != len(b) || tag > 0xFFFFFF {
		panic(fmt.Sprintf("iso7816: no tag: %v", tag))
	}
	return append(dst, b...)
}

func parseTag(b []byte) (Tag, int, error) {
	if len(b) == 0 {
		return 0, 0, fmt.Errorf("%w: no tag", ErrMalformedTLV)
	}
	if b[0]&0x1F != 0x1F {
		if b[0] == 0 {
			return 0, 0, fmt.Errorf("%w: tag 00", ErrMalformedTLV)
		}
		return Tag(b[0]), 1, nil
	}
	tag := Tag(b[0])
	for i := 1; i < 3; i++ {
		if i >= len(b) {
			return 0, 0, fmt.Errorf("%w: tag %v is cut short", ErrMalformedTLV, tag)
		}
		tag = tag<<8 | Tag(b[i])
		if i == 1 && (b[1]&0x7F == 0 || b[1] < 0x1F) {
			return 0, 0, fmt.Errorf("%w: tag %v is not minimal", ErrMalformedTLV, tag)
		}
		if b[i]&0x80 == 0 {
			return tag, i + 1, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: tag %v is longer than 3 bytes", ErrMalformedTLV, tag)
}

func parseLength(b []byte, tag Tag) (length, size int, err error) {
	if len(b) == 0 {
		return 0, 0, fmt.Errorf("%w: tag %v has no length", ErrMalformedTLV, tag)
	}
	switch first := b[0]; {
	case first < 0x80:
		return int(first), 1, nil
	case first == 0x81 && len(b) >= 2:
		length, size = int(b[1]), 2
	case first == 0x82 && len(b) >= 3:
		length, size = int(b[1])<<8|int(b[2]), 3
	case first == 0x81 || first == 0x82:
		return 0, 0, fmt.Errorf("%w: the length of tag %v is cut short", ErrMalformedTLV, tag)
	default:
		return 0, 0, fmt.Errorf("%w: tag %v has the length byte %02X", ErrMalformedTLV, tag, first)
	}
	if length < 0x80 || size == 3 && length <= 0xFF {
		return 0, 0, fmt.Errorf("%w: the length of tag %v is not minimal", ErrMalformedTLV, tag)
	}
	return length, size, nil
}
