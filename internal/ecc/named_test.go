package ecc_test

import (
	"crypto/rand"
	"math/big"
	"testing"

	"github.com/freearea/freearea/internal/ecc"
)

// Every named curve is one: its generator is on it and has its order, and the
// r and t curves of one size share field and order (RFC 5639, 3).
func TestNamed(t *testing.T) {
	for _, name := range []string{
		"P-256", "P-384", "P-521",
		"brainpoolP256r1", "brainpoolP256t1", "brainpoolP384r1", "brainpoolP384t1", "brainpoolP512r1", "brainpoolP512t1",
	} {
		c, ok := ecc.Named(name)
		if !ok {
			t.Fatalf("%s is not there", name)
		}
		g := c.Encode(c.G)
		if _, ok := c.Decode(g); !ok || !c.N.ProbablyPrime(20) || !c.P.ProbablyPrime(20) || c.P.BitLen() > 8*c.Size {
			t.Errorf("%s is no curve", name)
		}
		if !c.Multiply(c.G, c.N).Infinite() || c.Multiply(c.G, new(big.Int).Sub(c.N, big.NewInt(1))).Infinite() {
			t.Errorf("%s: the order is another", name)
		}
		d, err := rand.Int(rand.Reader, c.N)
		if err != nil {
			t.Fatal(err)
		}
		k, ok := ecc.ParsePublicKey(name, c.Encode(c.Multiply(c.G, d)))
		if !ok {
			t.Fatalf("%s: a public key is refused", name)
		}
		n, _ := rand.Int(rand.Reader, c.N)
		r, s, ok := c.Sign(d, n, []byte("a digest of some bytes"))
		if !ok || !c.Verify(k.W, []byte("a digest of some bytes"), r, s) || c.Verify(k.W, []byte("another one of some bytes"), r, s) {
			t.Errorf("%s: a signature does not verify as it should", name)
		}
	}
	r, _ := ecc.Named("brainpoolP384r1")
	twisted, _ := ecc.Named("brainpoolP384t1")
	if r.P.Cmp(twisted.P) != 0 || r.N.Cmp(twisted.N) != 0 || r.B.Cmp(twisted.B) == 0 {
		t.Error("brainpoolP384t1 is no twist of brainpoolP384r1")
	}
	if _, ok := ecc.Named("P-224"); ok {
		t.Error("P-224 is there")
	}
	if _, ok := ecc.ParsePublicKey("P-224", nil); ok {
		t.Error("a key on P-224 is there")
	}
}
