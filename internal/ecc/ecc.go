// Package ecc is the arithmetic of elliptic curves over prime fields whose
// parameters the standard library doesn't have: those that an application on a
// card gives, and the Brainpool curves. It is that of math/big and does not
// take constant time; what signs with it is an emulated card, or a test.
package ecc

import "math/big"

// Curve is an elliptic curve y² = x³ + ax + b over a prime field.
type Curve struct {
	P, A, B *big.Int // the field's prime, and the coefficients
	N       *big.Int // order of G
	G       Point
	Size    int // of the field in bytes
}

// Point has Jacobian coordinates: (x/z², y/z³), and at infinity z = 0.
type Point struct{ X, Y, Z *big.Int }

// Infinite reports the point at infinity.
func (p Point) Infinite() bool { return p.Z.Sign() == 0 }

// Decode reads an uncompressed point, which must be on the curve.
func (c *Curve) Decode(b []byte) (Point, bool) {
	if c.P.Cmp(big.NewInt(3)) <= 0 || c.P.Bit(0) == 0 || len(b) != 2*c.Size+1 || b[0] != 4 {
		return Point{}, false
	}
	p := Point{new(big.Int).SetBytes(b[1 : 1+c.Size]), new(big.Int).SetBytes(b[1+c.Size:]), big.NewInt(1)}
	if p.X.Cmp(c.P) >= 0 || p.Y.Cmp(c.P) >= 0 {
		return Point{}, false
	}
	left := c.mul(p.Y, p.Y)
	right := new(big.Int).Add(c.mul(p.X, p.X), c.A)
	right.Add(c.mul(right, p.X), c.B)
	return p, left.Cmp(right.Mod(right, c.P)) == 0
}

// Encode gives the uncompressed form of a point that isn't at infinity.
func (c *Curve) Encode(p Point) []byte {
	x, y := c.Affine(p)
	b := make([]byte, 1+2*c.Size)
	b[0] = 4
	x.FillBytes(b[1 : 1+c.Size])
	y.FillBytes(b[1+c.Size:])
	return b
}

// Affine are a point's coordinates. What has none, since the field is none, is
// at (0, 0).
func (c *Curve) Affine(p Point) (x, y *big.Int) {
	i := new(big.Int).ModInverse(p.Z, c.P)
	if i == nil {
		return new(big.Int), new(big.Int)
	}
	i2 := c.mul(i, i)
	return c.mul(p.X, i2), c.mul(p.Y, c.mul(i2, i))
}

func (c *Curve) mul(a, b *big.Int) *big.Int {
	r := new(big.Int).Mul(a, b)
	return r.Mod(r, c.P)
}

func (c *Curve) sub(a, b *big.Int) *big.Int {
	r := new(big.Int).Sub(a, b)
	return r.Mod(r, c.P)
}

func (c *Curve) times(n int64, a *big.Int) *big.Int {
	r := new(big.Int).Mul(a, big.NewInt(n))
	return r.Mod(r, c.P)
}

// Double is p + p.
func (c *Curve) Double(p Point) Point {
	if p.Infinite() || p.Y.Sign() == 0 {
		return Point{big.NewInt(1), big.NewInt(1), new(big.Int)}
	}
	yy, zz := c.mul(p.Y, p.Y), c.mul(p.Z, p.Z)
	s := c.times(4, c.mul(p.X, yy))
	m := c.times(3, c.mul(p.X, p.X))
	m.Add(m, c.mul(c.A, c.mul(zz, zz)))
	x := c.sub(c.mul(m, m), c.times(2, s))
	y := c.sub(c.mul(m, c.sub(s, x)), c.times(8, c.mul(yy, yy)))
	return Point{x, y, c.times(2, c.mul(p.Y, p.Z))}
}

// Add is p + q.
func (c *Curve) Add(p, q Point) Point {
	if p.Infinite() {
		return q
	}
	if q.Infinite() {
		return p
	}
	pp, qq := c.mul(p.Z, p.Z), c.mul(q.Z, q.Z)
	u1, u2 := c.mul(p.X, qq), c.mul(q.X, pp)
	s1, s2 := c.mul(p.Y, c.mul(q.Z, qq)), c.mul(q.Y, c.mul(p.Z, pp))
	h, r := c.sub(u2, u1), c.sub(s2, s1)
	if h.Sign() == 0 {
		if r.Sign() == 0 {
			return c.Double(p)
		}
		return Point{big.NewInt(1), big.NewInt(1), new(big.Int)}
	}
	hh := c.mul(h, h)
	hhh, v := c.mul(h, hh), c.mul(u1, hh)
	x := c.sub(c.sub(c.mul(r, r), hhh), c.times(2, v))
	y := c.sub(c.mul(r, c.sub(v, x)), c.mul(s1, hhh))
	return Point{x, y, c.mul(h, c.mul(p.Z, q.Z))}
}

// Multiply is p taken k times.
func (c *Curve) Multiply(p Point, k *big.Int) Point {
	r := Point{big.NewInt(1), big.NewInt(1), new(big.Int)}
	for i := k.BitLen() - 1; i >= 0; i-- {
		if r = c.Double(r); k.Bit(i) == 1 {
			r = c.Add(r, p)
		}
	}
	return r
}

// representative is a hash as a number: its leftmost bits, as many as the
// order has (FIPS 186-5, 6.4.1).
func (c *Curve) representative(sum []byte) *big.Int {
	e := new(big.Int).SetBytes(sum)
	if extra := 8*len(sum) - c.N.BitLen(); extra > 0 {
		e.Rsh(e, uint(extra))
	}
	return e
}

// Sign is ECDSA (FIPS 186-5, 6.4.1) with a random number; false where another
// one must be taken.
func (c *Curve) Sign(d, k *big.Int, sum []byte) (r, s *big.Int, ok bool) {
	x, _ := c.Affine(c.Multiply(c.G, k))
	r = x.Mod(x, c.N)
	inverse := new(big.Int).ModInverse(k, c.N)
	if r.Sign() == 0 || inverse == nil {
		return nil, nil, false
	}
	s = new(big.Int).Mul(r, d)
	s.Add(s, c.representative(sum))
	s.Mul(s, inverse)
	s.Mod(s, c.N)
	return r, s, s.Sign() != 0
}

// Verify is ECDSA's verification (FIPS 186-5, 6.4.2).
func (c *Curve) Verify(w Point, sum []byte, r, s *big.Int) bool {
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(c.N) >= 0 || s.Cmp(c.N) >= 0 {
		return false
	}
	i := new(big.Int).ModInverse(s, c.N)
	if i == nil {
		return false
	}
	u := new(big.Int).Mul(c.representative(sum), i)
	v := new(big.Int).Mul(r, i)
	p := c.Add(c.Multiply(c.G, u.Mod(u, c.N)), c.Multiply(w, v.Mod(v, c.N)))
	if p.Infinite() {
		return false
	}
	x, _ := c.Affine(p)
	return x.Mod(x, c.N).Cmp(r) == 0
}
