// Package sp800 holds the two NIST primitives that the field's secure
// channels are made of: AES-CMAC (SP 800-38B) and the key derivation function
// in counter mode with CMAC as its PRF (SP 800-108, 4.1).
package sp800

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// Size is the size of a full CMAC, in bytes.
const Size = aes.BlockSize

// CMAC computes AES-CMAC with one key over any number of messages. It is not
// safe for concurrent use.
type CMAC struct {
	block  cipher.Block
	k1, k2 [Size]byte // subkeys (SP 800-38B, 6.1)
	x      [Size]byte // chaining value
	buf    [Size]byte // the last, possibly partial, block
	n      int        // bytes in buf
	last   [Size]byte // scratch of Sum
}

// New returns a CMAC with an AES key of 16, 24 or 32 bytes.
func New(key []byte) (*CMAC, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return NewWithCipher(block), nil
}

// NewWithCipher returns a CMAC over a cipher with blocks of 16 bytes; it
// panics on any other.
func NewWithCipher(block cipher.Block) *CMAC {
	if block.BlockSize() != Size {
		panic("sp800: CMAC needs a cipher with blocks of 16 bytes")
	}
	m := &CMAC{block: block}
	block.Encrypt(m.buf[:], m.buf[:])
	double(&m.k1, &m.buf)
	double(&m.k2, &m.k1)
	m.Reset()
	return m
}

// double multiplies by x in GF(2^128) (SP 800-38B, 6.1 steps 2 and 3).
func double(dst, src *[Size]byte) {
	hi, lo := binary.BigEndian.Uint64(src[:8]), binary.BigEndian.Uint64(src[8:])
	carry := -(hi >> 63) & 0x87
	binary.BigEndian.PutUint64(dst[:8], hi<<1|lo>>63)
	binary.BigEndian.PutUint64(dst[8:], lo<<1^carry)
}

// Reset begins a new message.
func (m *CMAC) Reset() {
	clear(m.x[:])
	clear(m.buf[:])
	m.n = 0
}

// Write adds to the message; it never fails.
func (m *CMAC) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if m.n == Size { // more follows, so the held block is not the last
			subtle.XORBytes(m.x[:], m.x[:], m.buf[:])
			m.block.Encrypt(m.x[:], m.x[:])
			m.n = 0
		}
		k := copy(m.buf[m.n:], p)
		m.n += k
		p = p[k:]
	}
	return written, nil
}

// Sum returns the CMAC of the message so far. The message can go on.
func (m *CMAC) Sum() [Size]byte {
	// The last block is made up in the struct, because what is handed to the
	// cipher would otherwise be allocated each time.
	last := &m.last
	*last = m.buf
	if m.n == Size {
		subtle.XORBytes(last[:], last[:], m.k1[:])
	} else {
		clear(last[m.n:])
		last[m.n] = 0x80
		subtle.XORBytes(last[:], last[:], m.k2[:])
	}
	subtle.XORBytes(last[:], last[:], m.x[:])
	m.block.Encrypt(last[:], last[:])
	return *last
}

// Sum returns the AES-CMAC of the parts, taken as one message.
func Sum(key []byte, parts ...[]byte) ([Size]byte, error) {
	m, err := New(key)
	if err != nil {
		return [Size]byte{}, err
	}
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(), nil
}
