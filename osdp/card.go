package osdp

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
)

// Format says how the bits of raw card data are meant (SIA OSDP 2.2, osdp_RAW).
type Format byte

// Formats of raw card data.
const (
	Unspecified Format = 0 // bits as agreed with the panel
	Wiegand     Format = 1 // parity, data, parity
)

// CardData is what a panel is told of a card.
type CardData struct {
	code  byte // of the reply
	after []byte
}

// ErrCardData is the reason why an ID can't be given to a panel in a form.
var ErrCardData = errors.New("ID does not fit the form of card data")

// maxCardData leaves room for header, security block, padding, MAC and check.
const maxCardData = 1024

// Raw is card data as count bits, the first of them in the most significant
// bit of data[0]; bits beyond them are ignored. The error wraps [ErrCardData]:
// no bits, more than there are, or more than 8,192.
func Raw(data []byte, count int, f Format) (CardData, error) {
	if count < 1 || count > 8*len(data) || count > 8*maxCardData {
		return CardData{}, fmt.Errorf("%w: %d bits of %d bytes", ErrCardData, count, len(data))
	}
	data = append([]byte(nil), data[:(count+7)/8]...)
	if spare := len(data)*8 - count; spare > 0 {
		data[len(data)-1] &= 0xFF << spare
	}
	return CardData{replyRaw, append([]byte{0, byte(f), byte(count), byte(count >> 8)}, data...)}, nil
}

// Formatted is formatted card data (osdp_FMT, read forwards): 1 to 255 characters of
// printable ASCII. The reply is deprecated since OSDP 2.2.2, and many panels
// know nothing else for an ID with letters.
func Formatted(id string) (CardData, error) {
	if len(id) == 0 || len(id) > 255 {
		return CardData{}, fmt.Errorf("%w: %d characters, 1 to 255 can be formatted", ErrCardData, len(id))
	}
	for _, r := range id {
		if r < ' ' || r > '~' {
			return CardData{}, fmt.Errorf("%w: character %q is not ASCII", ErrCardData, r)
		}
	}
	return CardData{replyFormatted, append([]byte{0, 0, byte(len(id))}, id...)}, nil
}

// Number is the decimal ID as a number of so many bits, most significant first.
func Number(id string, count int) (CardData, error) {
	n, err := number(id, count)
	if err != nil {
		return CardData{}, err
	}
	return Raw(alignLeft(n, count), count, Unspecified)
}

// Wiegand26 is the 26-bit format of access control: even parity over the
// first half, 8 bits of facility code, 16 bits of card number (the decimal ID),
// odd parity over the second half.
func Wiegand26(facility byte, id string) (CardData, error) {
	n, err := number(id, 16)
	if err != nil {
		return CardData{}, err
	}
	body := uint64(facility)<<16 | n
	even := uint64(bits.OnesCount64(body>>12) & 1)
	odd := uint64(^bits.OnesCount64(body&0xFFF) & 1)
	return Raw(alignLeft(even<<25|body<<1|odd, 26), 26, Wiegand)
}

func number(id string, count int) (uint64, error) {
	if count < 1 || count > 64 {
		return 0, fmt.Errorf("%w: number of %d bits, 1 to 64 expected", ErrCardData, count)
	}
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil || bits.Len64(n) > count {
		return 0, fmt.Errorf("%w: it is not a decimal number of %d bits", ErrCardData, count)
	}
	return n, nil
}

// alignLeft puts the count low bits of n at the beginning of bytes.
func alignLeft(n uint64, count int) []byte {
	n <<= 64 - count
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return b
}
