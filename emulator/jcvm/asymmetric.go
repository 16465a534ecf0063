package jcvm

import (
	"crypto/subtle"
	"hash"
	"io"
	"math/big"

	"github.com/freearea/freearea/internal/ecc"
)

// The arithmetic of the asymmetric algorithms is that of math/big: any modulus
// from 512 bits on and any curve whose parameters an application gives, with
// the card's own source of randomness, none of which the standard library
// offers; that of curves is in internal/ecc. It doesn't take constant time. An
// emulator keeps no secrets that its owner doesn't have.

// cost is what a multiplication takes of a command's budget of bytecodes.
func cost(c *ecc.Curve) int64 { return int64(c.Size) * int64(c.Size) * 100 }

// randomBits is a random number of up to n bits.
func randomBits(rand io.Reader, n int) (*big.Int, error) {
	b := make([]byte, (n+7)/8)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, err
	}
	if n%8 != 0 {
		b[0] &= 1<<(n%8) - 1
	}
	return new(big.Int).SetBytes(b), nil
}

// rsaKey is a new key.
type rsaKey struct{ n, d, p, q, pq, dp, dq *big.Int }

// generateRSA makes a key whose modulus has exactly that many bits (FIPS
// 186-5, A.1.3, but for the distance between the primes). charge counts the
// work.
func generateRSA(rand io.Reader, bits int, e *big.Int, charge func(int64)) (rsaKey, error) {
	one := big.NewInt(1)
	prime := func() (*big.Int, error) {
		for {
			charge(int64(bits) / 8)
			p, err := randomBits(rand, bits/2)
			if err != nil {
				return nil, err
			}
			// The two highest bits make the product of two as long as it must be.
			p.SetBit(p, bits/2-1, 1).SetBit(p, bits/2-2, 1).SetBit(p, 0, 1)
			less := new(big.Int).Sub(p, one)
			if new(big.Int).GCD(nil, nil, less, e).Cmp(one) != 0 || !plausible(p) {
				continue
			}
			charge(8 * int64(bits))
			if p.ProbablyPrime(8) {
				return p, nil
			}
		}
	}
	p, err := prime()
	if err != nil {
		return rsaKey{}, err
	}
	q := p
	for q.Cmp(p) == 0 {
		if q, err = prime(); err != nil {
			return rsaKey{}, err
		}
	}
	if p.Cmp(q) < 0 {
		p, q = q, p
	}
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	phi := new(big.Int).Mul(p1, q1)
	d := new(big.Int).ModInverse(e, phi)
	return rsaKey{
		n: new(big.Int).Mul(p, q), d: d, p: p, q: q, pq: new(big.Int).ModInverse(q, p),
		dp: new(big.Int).Mod(d, p1), dq: new(big.Int).Mod(d, q1),
	}, nil
}

// smallPrimes have a product that fits a word, so that a single division tells
// of all of them.
var smallPrimes = [][]uint64{
	{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53},
	{59, 61, 67, 71, 73, 79, 83, 89, 97},
	{101, 103, 107, 109, 113, 127, 131, 137, 139},
	{149, 151, 157, 163, 167, 173, 179, 181},
	{191, 193, 197, 199, 211, 223, 227, 229},
}

// plausible tells most numbers that are no primes.
func plausible(p *big.Int) bool {
	m := new(big.Int)
	for _, group := range smallPrimes {
		product := uint64(1)
		for _, q := range group {
			product *= q
		}
		rest := m.Mod(p, new(big.Int).SetUint64(product)).Uint64()
		for _, q := range group {
			if rest%q == 0 {
				return false
			}
		}
	}
	return true
}

// digestInfo are the DER prefixes of a hash in PKCS #1 v1.5 (RFC 8017, 9.2),
// by the algorithm of MessageDigest.
var digestInfo = map[uint8]string{
	1:  "\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
	2:  "\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10",
	4:  "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
	5:  "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
	6:  "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
	7:  "\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c",
	8:  "\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x07\x05\x00\x04\x1c",
	9:  "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x08\x05\x00\x04\x20",
	10: "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x09\x05\x00\x04\x30",
	11: "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x0a\x05\x00\x04\x40",
}

// padPKCS1 is a block of type 1 or 2 (RFC 8017, 7.2.1 and 9.2); nil where the
// message is too long.
func padPKCS1(rand io.Reader, block byte, message []byte, size int) ([]byte, error) {
	if len(message) > size-11 {
		return nil, nil
	}
	b := make([]byte, size)
	b[1] = block
	fill := b[2 : size-len(message)-1]
	for i := range fill {
		fill[i] = 0xFF
		for block == 2 {
			if _, err := io.ReadFull(rand, fill[i:i+1]); err != nil {
				return nil, err
			}
			if fill[i] != 0 {
				break
			}
		}
	}
	copy(b[size-len(message):], message)
	return b, nil
}

func unpadPKCS1(block byte, b []byte) ([]byte, bool) {
	if len(b) < 11 || b[0] != 0 || b[1] != block {
		return nil, false
	}
	for i := 2; i < len(b); i++ {
		if b[i] == 0 {
			return b[i+1:], i >= 10
		}
		if block == 1 && b[i] != 0xFF {
			return nil, false
		}
	}
	return nil, false
}

// mask applies MGF1 (RFC 8017, B.2.1) of a seed.
func mask(h hash.Hash, seed, to []byte) {
	for n, at := uint32(0), 0; at < len(to); n++ {
		h.Reset()
		h.Write(seed)
		h.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		for _, b := range h.Sum(nil) {
			if at < len(to) {
				to[at] ^= b
				at++
			}
		}
	}
	h.Reset()
}

func hashOf(h hash.Hash, parts ...[]byte) []byte {
	h.Reset()
	for _, p := range parts {
		h.Write(p)
	}
	sum := h.Sum(nil)
	h.Reset()
	return sum
}

// padPSS is EMSA-PSS (RFC 8017, 9.1.1) for a modulus of that many bits, with a
// salt as long as the hash; nil where it doesn't fit.
func padPSS(h hash.Hash, sum, salt []byte, bits int) []byte {
	n := (bits - 1 + 7) / 8
	if n < len(sum)+len(salt)+2 {
		return nil
	}
	b := make([]byte, n)
	db := b[:n-len(sum)-1]
	copy(b[len(db):], hashOf(h, make([]byte, 8), sum, salt))
	b[n-1] = 0xBC
	db[len(db)-len(salt)-1] = 1
	copy(db[len(db)-len(salt):], salt)
	mask(h, b[len(db):n-1], db)
	b[0] &= 0xFF >> (8*n - (bits - 1))
	return b
}

// verifyPSS is the other direction (RFC 8017, 9.1.2).
func verifyPSS(h hash.Hash, sum, b []byte, bits int) bool {
	n := (bits - 1 + 7) / 8
	salt := h.Size()
	if len(b) > n {
		if b[0] != 0 {
			return false
		}
		b = b[1:]
	}
	if len(b) != n || n < len(sum)+salt+2 || b[n-1] != 0xBC || b[0]&^(0xFF>>(8*n-(bits-1))) != 0 {
		return false
	}
	db := append([]byte(nil), b[:n-len(sum)-1]...)
	mask(h, b[len(db):n-1], db)
	db[0] &= 0xFF >> (8*n - (bits - 1))
	for i, x := range db[:len(db)-salt] {
		if i < len(db)-salt-1 && x != 0 || i == len(db)-salt-1 && x != 1 {
			return false
		}
	}
	return subtle.ConstantTimeCompare(hashOf(h, make([]byte, 8), sum, db[len(db)-salt:]), b[len(db):n-1]) == 1
}

// padOAEP is EME-OAEP (RFC 8017, 7.1.1) with an empty label; nil where the
// message is too long.
func padOAEP(h hash.Hash, seed, message []byte, size int) []byte {
	n := h.Size()
	if len(message) > size-2*n-2 {
		return nil
	}
	b := make([]byte, size)
	s, db := b[1:1+n], b[1+n:]
	copy(s, seed)
	copy(db, hashOf(h))
	db[len(db)-len(message)-1] = 1
	copy(db[len(db)-len(message):], message)
	mask(h, s, db)
	mask(h, db, s)
	return b
}

func unpadOAEP(h hash.Hash, b []byte) ([]byte, bool) {
	n := h.Size()
	if len(b) < 2*n+2 || b[0] != 0 {
		return nil, false
	}
	s, db := b[1:1+n], b[1+n:]
	mask(h, db, s)
	mask(h, s, db)
	if subtle.ConstantTimeCompare(db[:n], hashOf(h)) != 1 {
		return nil, false
	}
	for i, x := range db[n:] {
		switch x {
		case 0:
		case 1:
			return db[n+i+1:], true
		default:
			return nil, false
		}
	}
	return nil, false
}
