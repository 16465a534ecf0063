package jcvm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/iso7816"
)

// The expectations come from crypto/rsa, crypto/ecdsa and crypto/ecdh, which
// the machine doesn't use, and from published vectors.

// asymCard is a card with the applet that has one call of the API for each
// instruction; 66xx is a CryptoException, 67xx a TransactionException.
type asymCard struct {
	t    *testing.T
	card *emulator.Card
}

func newAsymCard(t *testing.T) asymCard {
	t.Helper()
	return asymCard{t, withApplet(t, "asym")}
}

// try sends a command of extended length.
func (c asymCard) try(ins, p1, p2 byte, data []byte) (response []byte, sw string) {
	c.t.Helper()
	b := []byte{0x80, ins, p1, p2, 0}
	if len(data) > 0 {
		b = append(append(b, byte(len(data)>>8), byte(len(data))), data...)
	}
	r, err := c.card.Transmit(context.Background(), append(b, 0, 0))
	if err != nil {
		c.t.Fatal(err)
	}
	return r[:len(r)-2], strings.ToUpper(hex.EncodeToString(r[len(r)-2:]))
}

func (c asymCard) do(ins, p1, p2 byte, data ...byte) []byte {
	c.t.Helper()
	r, sw := c.try(ins, p1, p2, data)
	if sw != "9000" {
		c.t.Fatalf("instruction %02X %02X %02X: %s", ins, p1, p2, sw)
	}
	return r
}

// fails wants a status word.
func (c asymCard) fails(want string, ins, p1, p2 byte, data ...byte) {
	c.t.Helper()
	if _, sw := c.try(ins, p1, p2, data); sw != want {
		c.t.Errorf("instruction %02X %02X %02X: %s, want %s", ins, p1, p2, sw, want)
	}
}

func (c asymCard) build(key, kind byte, bits int) {
	c.t.Helper()
	c.do(1, key, 0, kind, byte(bits>>8), byte(bits))
}

func (c asymCard) set(key, first byte, parts ...[]byte) {
	c.t.Helper()
	for i, p := range parts {
		if p != nil {
			c.do(3, key, first+byte(i), p...)
		}
	}
}

// verify asks whether a signature is right.
func (c asymCard) verify(signature, message []byte) bool {
	c.t.Helper()
	return c.do(0x14, 0, 0, append(append([]byte{byte(len(signature) >> 8), byte(len(signature))}, signature...), message...)...)[0] == 1
}

// rsaKeys puts a key of Go's into the keys 0 (public), 1 (private) and 2 (CRT).
func (c asymCard) rsaKeys(k *rsa.PrivateKey) {
	c.t.Helper()
	bits := k.N.BitLen()
	e := big.NewInt(int64(k.E)).Bytes()
	c.build(0, 4, bits)
	c.build(1, 5, bits)
	c.build(2, 6, bits)
	c.set(0, 0x10, k.N.Bytes(), e)
	c.set(1, 0x10, k.N.Bytes(), k.D.Bytes())
	c.set(2, 0x20, k.Primes[0].Bytes(), k.Primes[1].Bytes(), k.Precomputed.Qinv.Bytes(), k.Precomputed.Dp.Bytes(), k.Precomputed.Dq.Bytes())
}

var hashes = map[string]crypto.Hash{"SHA": crypto.SHA1, "224": crypto.SHA224, "256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func sum(h crypto.Hash, message []byte) []byte {
	x := h.New()
	x.Write(message)
	return x.Sum(nil)
}

func newRSA(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRSASignatures(t *testing.T) {
	t.Parallel()
	for _, bits := range []int{1024, 2048} {
		k := newRSA(t, bits)
		c := newAsymCard(t)
		c.rsaKeys(k)
		message := []byte("a message of some length")
		for name, numbers := range map[string][2]byte{"SHA": {10, 21}, "224": {39, 43}, "256": {40, 44}, "384": {41, 45}, "512": {42, 46}} {
			h := hashes[name]
			for i, alg := range numbers {
				if bits == 1024 && alg == 46 {
					c.do(0x10, alg, 0)
					c.fails("6601", 0x11, 0, 2) // 1024 bits have no room for two hashes
					continue
				}
				check := func(signature []byte) error {
					if i == 0 {
						return rsa.VerifyPKCS1v15(&k.PublicKey, h, sum(h, message), signature)
					}
					return rsa.VerifyPSS(&k.PublicKey, h, sum(h, message), signature, &rsa.PSSOptions{SaltLength: h.Size()})
				}
				for _, private := range []byte{1, 2} {
					c.do(0x10, alg, 0)
					c.do(0x11, private, 1)
					c.do(0x12, 0, 0, message[:5]...)
					if err := check(c.do(0x13, 0, 0, message[5:]...)); err != nil {
						t.Errorf("%d bits, algorithm %d, key %d: %v", bits, alg, private, err)
					}
					if err := check(c.do(0x15, 0, 0, sum(h, message)...)); err != nil {
						t.Errorf("%d bits, algorithm %d, of a hash: %v", bits, alg, err)
					}
				}
				var signature []byte
				var err error
				if i == 0 {
					signature, err = rsa.SignPKCS1v15(nil, k, h, sum(h, message))
				} else {
					signature, err = rsa.SignPSS(rand.Reader, k, h, sum(h, message), &rsa.PSSOptions{SaltLength: h.Size()})
				}
				if err != nil {
					t.Fatal(err)
				}
				c.do(0x11, 0, 2)
				if !c.verify(signature, message) {
					t.Errorf("%d bits, algorithm %d: a signature of Go's is refused", bits, alg)
				}
				if c.verify(signature, message[1:]) {
					t.Errorf("%d bits, algorithm %d: another message's is accepted", bits, alg)
				}
				// The padding's last byte.
				block := new(big.Int).Exp(new(big.Int).SetBytes(signature), big.NewInt(int64(k.E)), k.N)
				nearly := new(big.Int).Exp(block.Xor(block, big.NewInt(4)), k.D, k.N)
				if c.verify(nearly.FillBytes(make([]byte, bits/8)), message) {
					t.Errorf("%d bits, algorithm %d: another padding is accepted", bits, alg)
				}
				signature[20] ^= 1
				if c.verify(signature, message) || c.verify(signature[1:], message) {
					t.Errorf("%d bits, algorithm %d: a wrong one is accepted", bits, alg)
				}
			}
		}
	}
}

func TestRSACipher(t *testing.T) {
	t.Parallel()
	k := newRSA(t, 1024)
	c := newAsymCard(t)
	c.rsaKeys(k)
	message := []byte("sixteen bytes of")
	oaep := map[byte]crypto.Hash{9: crypto.SHA1, 13: crypto.SHA224, 14: crypto.SHA256, 15: crypto.SHA384}
	for _, padding := range []byte{7, 9, 13, 14, 15} {
		h := oaep[padding]
		c.do(0x20, 0, 0, 7, padding)
		c.do(0x21, 0, 2) // encrypt
		c.do(0x22, 0, 0, message[:3]...)
		sealed := c.do(0x23, 0, 0, message[3:]...)
		var got []byte
		var err error
		if h == 0 {
			//lint:ignore SA1019 what is tested is what cards have
			got, err = rsa.DecryptPKCS1v15(nil, k, sealed)
		} else {
			got, err = rsa.DecryptOAEP(h.New(), nil, k, sealed, nil)
		}
		if err != nil || !bytes.Equal(got, message) {
			t.Errorf("padding %d: %q, %v", padding, got, err)
		}
		if h == 0 {
			//lint:ignore SA1019 what is tested is what cards have
			sealed, err = rsa.EncryptPKCS1v15(rand.Reader, &k.PublicKey, message)
		} else {
			sealed, err = rsa.EncryptOAEP(h.New(), rand.Reader, &k.PublicKey, message, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, private := range []byte{1, 2} {
			c.do(0x21, private, 1)
			if got := c.do(0x23, 0, 0, sealed...); !bytes.Equal(got, message) {
				t.Errorf("padding %d, key %d: %q", padding, private, got)
			}
			c.fails("6605", 0x23, 0, 0, sealed[1:]...)
			bad := bytes.Clone(sealed)
			bad[7] ^= 4
			c.fails("6605", 0x23, 0, 0, bad...)
			if got := c.do(0x23, 0, 0, sealed...); !bytes.Equal(got, message) {
				t.Errorf("padding %d, after failures: %q", padding, got)
			}
		}
	}
	// No padding, and the padding of signatures.
	block := append(make([]byte, 100), bytes.Repeat([]byte{7}, 28)...)
	want := new(big.Int).Exp(new(big.Int).SetBytes(block), k.D, k.N).FillBytes(make([]byte, 128))
	c.do(0x20, 12, 0)
	c.do(0x21, 2, 1)
	if got := c.do(0x23, 0, 0, block...); !bytes.Equal(got, want) {
		t.Errorf("no padding: %X", got)
	}
	c.fails("6605", 0x23, 0, 0, bytes.Repeat([]byte{0xFF}, 128)...) // not less than the modulus
	c.fails("6605", 0x23, 0, 0, block[1:]...)
	c.do(0x20, 10, 0)
	c.do(0x21, 1, 2)
	signed, err := rsa.SignPKCS1v15(nil, k, 0, message)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.do(0x23, 0, 0, message...); !bytes.Equal(got, signed) {
		t.Errorf("encrypted with the private key: %X", got)
	}
	c.do(0x21, 0, 1)
	if got := c.do(0x23, 0, 0, signed...); !bytes.Equal(got, message) {
		t.Errorf("decrypted with the public key: %q", got)
	}
	c.do(0x21, 0, 2)
	c.fails("6605", 0x23, 0, 0, make([]byte, 118)...)
	// Blocks that differ from right ones in one byte.
	c.do(0x21, 2, 1)
	for _, change := range []struct {
		at    int
		value byte
		sw    string
	}{{0, 0, "9000"}, {0, 1, "6605"}, {1, 1, "6605"}, {1, 3, "6605"}, {9, 0, "6605"}, {10, 0, "9000"}} {
		block := append(bytes.Repeat([]byte{5}, 120), 0, 1, 2, 3, 4, 5, 6, 7)
		block[0], block[1] = 0, 2
		block[change.at] = change.value
		x := new(big.Int).Exp(new(big.Int).SetBytes(block), big.NewInt(int64(k.E)), k.N)
		c.fails(change.sw, 0x23, 0, 0, x.FillBytes(make([]byte, 128))...)
	}
	c.do(0x20, 0, 0, 7, 14)
	c.fails("6601", 0x21, 1, 2) // OAEP with the wrong key
}

func TestRSAKeyPairs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		algorithm byte
		bits      int
	}{{1, 512}, {2, 736}, {1, 1024}, {2, 1984}} {
		c := newAsymCard(t)
		c.do(8, 0, 1, test.algorithm, byte(test.bits>>8), byte(test.bits))
		if got := c.do(5, 0, 0); got[0] != 0 {
			t.Error("keys are set before they are made")
		}
		if test.bits == 736 {
			c.do(3, 0, 0x11, 3)
		}
		c.do(0x0A, 0, 0)
		n, e := new(big.Int).SetBytes(c.do(4, 0, 0x10)), new(big.Int).SetBytes(c.do(4, 0, 0x11))
		want := int64(65537)
		if test.bits == 736 {
			want = 3
		}
		if n.BitLen() != test.bits || e.Int64() != want {
			t.Errorf("%d bits: modulus of %d, exponent %v", test.bits, n.BitLen(), e)
		}
		m := big.NewInt(1234567)
		x := new(big.Int).Exp(m, e, n).FillBytes(make([]byte, test.bits/8))
		c.do(0x20, 12, 0)
		c.do(0x21, 1, 1)
		if got := c.do(0x23, 0, 0, x...); new(big.Int).SetBytes(got).Cmp(m) != 0 {
			t.Errorf("%d bits: the keys don't belong together", test.bits)
		}
		if test.algorithm == 2 {
			p, q := new(big.Int).SetBytes(c.do(4, 1, 0x20)), new(big.Int).SetBytes(c.do(4, 1, 0x21))
			if !p.ProbablyPrime(20) || !q.ProbablyPrime(20) || new(big.Int).Mul(p, q).Cmp(n) != 0 {
				t.Errorf("%d bits: the factors are none", test.bits)
			}
		}
	}
}

// prime is a curve with its parameters: p, a, b, G, r.
type prime struct {
	name       string
	bits       int
	parameters [5]string
}

// Curves of RFC 5639, and P-192 of FIPS 186-4.
var (
	p192 = prime{"P-192", 192, [5]string{
		"fffffffffffffffffffffffffffffffeffffffffffffffff", "fffffffffffffffffffffffffffffffefffffffffffffffc", "64210519e59c80e70fa7e9ab72243049feb8deecc146b9b1",
		"04188da80eb03090f67cbf20eb43a18800f4ff0afd82ff101207192b95ffc8da78631011ed6b24cdd573f977a11e794811", "ffffffffffffffffffffffff99def836146bc9b1b4d22831",
	}}
	brainpool256 = prime{"brainpoolP256r1", 256, [5]string{
		"a9fb57dba1eea9bc3e660a909d838d726e3bf623d52620282013481d1f6e5377", "7d5a0975fc2c3057eef67530417affe7fb8055c126dc5c6ce94a4b44f330b5d9", "26dc5c6ce94a4b44f330b5d9bbd77cbf958416295cf7e1ce6bccdc18ff8c07b6",
		"048bd2aeb9cb7e57cb2c4b482ffc81b7afb9de27e1e3bd23c23a4453bd9ace3262547ef835c3dac4fd97f8461a14611dc9c27745132ded8e545c1d54c72f046997", "a9fb57dba1eea9bc3e660a909d838d718c397aa3b561a6f7901e0e82974856a7",
	}}
	brainpool384 = prime{"brainpoolP384r1", 384, [5]string{
		"8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b412b1da197fb71123acd3a729901d1a71874700133107ec53", "7bc382c63d8c150c3c72080ace05afa0c2bea28e4fb22787139165efba91f90f8aa5814a503ad4eb04a8c7dd22ce2826", "04a8c7dd22ce28268b39b55416f0447c2fb77de107dcd2a62e880ea53eeb62d57cb4390295dbc9943ab78696fa504c11",
		"041d1c64f068cf45ffa2a63a81b7c13f6b8847a3e77ef14fe3db7fcafe0cbd10e8e826e03436d646aaef87b2e247d4af1e8abe1d7520f9c2a45cb1eb8e95cfd55262b70b29feec5864e19c054ff99129280e4646217791811142820341263c5315", "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b31f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565",
	}}
	brainpool512 = prime{"brainpoolP512r1", 512, [5]string{
		"aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca703308717d4d9b009bc66842aecda12ae6a380e62881ff2f2d82c68528aa6056583a48f3", "7830a3318b603b89e2327145ac234cc594cbdd8d3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94ca", "3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94cadc083e67984050b75ebae5dd2809bd638016f723",
		"0481aee4bdd82ed9645a21322e9c4c6a9385ed9f70b5d916c1b43b62eef4d0098eff3b1f78e2d0d48d50d1687b93b97d5f7c6d5047406a5e688b352209bcb9f8227dde385d566332ecc0eabfa9cf7822fdf209f70024a57b1aa000c55b881f8111b2dcde494a5f485e5bca4bd88a2763aed1ca2b2fa8f0540678cd1e0f3ad80892", "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870553e5c414ca92619418661197fac10471db1d381085ddaddb58796829ca90069",
	}}
)

// ofGo are the parameters of one of Go's curves.
func ofGo(c elliptic.Curve) prime {
	p := c.Params()
	size := 2 * ((p.BitSize + 7) / 8)
	x := func(v *big.Int) string { return fmt.Sprintf("%0*x", size, v) }
	return prime{p.Name, p.BitSize, [5]string{x(p.P), x(new(big.Int).Sub(p.P, big.NewInt(3))), x(p.B), "04" + x(p.Gx) + x(p.Gy), x(p.N)}}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// curve builds a public and a private key with a curve's parameters.
func (c asymCard) curve(public, private byte, p prime) {
	c.t.Helper()
	c.build(public, 11, p.bits)
	c.build(private, 12, p.bits)
	for i, s := range p.parameters {
		c.do(3, public, 0x30+byte(i), unhex(c.t, s)...)
	}
	c.do(7, private, public)
}

func TestECDSA(t *testing.T) {
	t.Parallel()
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		c := newAsymCard(t)
		c.curve(0, 1, ofGo(curve))
		c.do(9, 0, 1)
		c.do(0x0A, 0, 0)
		public, err := ecdsa.ParseUncompressedPublicKey(curve, c.do(4, 0, 0x36))
		if err != nil {
			t.Fatal(err)
		}
		other, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		w, err := other.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		c.build(2, 11, curve.Params().BitSize)
		c.do(7, 2, 0)
		c.do(3, 2, 0x36, w...)
		message := []byte("a message of some length")
		for name, alg := range map[string]byte{"SHA": 17, "224": 37, "256": 33, "384": 34, "512": 38} {
			h := hashes[name]
			c.do(0x10, alg, 0)
			c.do(0x11, 1, 1)
			longest := int(c.do(0x18, 0, 0)[1])
			signature := c.do(0x13, 0, 0, message...)
			if !ecdsa.VerifyASN1(public, sum(h, message), signature) || len(signature) > longest {
				t.Errorf("%s with %s: Go refuses %X", curve.Params().Name, name, signature)
			}
			if signature, err = ecdsa.SignASN1(rand.Reader, other, sum(h, message)); err != nil {
				t.Fatal(err)
			}
			c.do(0x11, 2, 2)
			if !c.verify(signature, message) {
				t.Errorf("%s with %s: a signature of Go's is refused", curve.Params().Name, name)
			}
			if c.verify(signature, message[1:]) || c.verify(signature[:len(signature)-1], message) || c.verify(append(signature, 0), message) {
				t.Errorf("%s with %s: a wrong signature is accepted", curve.Params().Name, name)
			}
			// Numbers out of range; the last one is right but for the order added.
			var numbers struct{ R, S *big.Int }
			if _, err := asn1.Unmarshal(signature, &numbers); err != nil {
				t.Fatal(err)
			}
			numbers.S.Add(numbers.S, curve.Params().N)
			if larger, _ := asn1.Marshal(numbers); c.verify(larger, message) {
				t.Errorf("%s with %s: a number larger than the order is accepted", curve.Params().Name, name)
			}
			zero, _ := asn1.Marshal([]*big.Int{new(big.Int), new(big.Int)})
			order, _ := asn1.Marshal([]*big.Int{curve.Params().N, curve.Params().N})
			if c.verify(zero, message) || c.verify(order, message) {
				t.Errorf("%s with %s: numbers out of range are accepted", curve.Params().Name, name)
			}
		}
		// SHA3-256 in DER and two numbers side by side have no constants.
		c.do(0x10, 0, 0, 9, 9, 0)
		if got := c.do(0x17, 0, 0); !bytes.Equal(got, []byte{0, 9, 9, 0}) {
			t.Errorf("algorithm: %X", got)
		}
		c.do(0x11, 1, 1)
		b := c.do(0x13, 0, 0, message...)
		if !ecdsa.Verify(public, sum(crypto.SHA3_256, message), new(big.Int).SetBytes(b[:len(b)/2]), new(big.Int).SetBytes(b[len(b)/2:])) {
			t.Errorf("%s with SHA3: Go refuses %X", curve.Params().Name, b)
		}
	}
}

// TestRFC6979 verifies signatures of RFC 6979, A.2.3 and A.2.5.
func TestRFC6979(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		curve      prime
		w          string
		r, s       string
		algorithm  byte
		privateKey string
	}{
		{p192, "04AC2C77F529F91689FEA0EA5EFEC7F210D8EEA0B9E047ED563BC723E57670BD4887EBC732C523063D0A7C957BC97C1C43", "4B0B8CE98A92866A2820E20AA6B75B56382E0F9BFD5ECB55", "CCDB006926EA9565CBADC840829D8C384E06DE1F1E381B85", 33, "6FAB034934E4C0FC9AE67F5B5659A9D7D1FEFD187EE09FD4"},
		{ofGo(elliptic.P256()), "0460FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB67903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299", "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8", 33, "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"},
	} {
		c := newAsymCard(t)
		c.curve(0, 1, test.curve)
		c.do(3, 0, 0x36, unhex(t, test.w)...)
		signature, err := asn1.Marshal([]*big.Int{new(big.Int).SetBytes(unhex(t, test.r)), new(big.Int).SetBytes(unhex(t, test.s))})
		if err != nil {
			t.Fatal(err)
		}
		c.do(0x10, test.algorithm, 0)
		c.do(0x11, 0, 2)
		if !c.verify(signature, []byte("sample")) || c.verify(signature, []byte("simple")) {
			t.Errorf("%s: wrong result", test.curve.name)
		}
		// What the private key signs, the public key verifies.
		c.do(3, 1, 0x37, unhex(t, test.privateKey)...)
		c.do(0x11, 1, 1)
		signature = c.do(0x13, 0, 0, []byte("test")...)
		c.do(0x11, 0, 2)
		if !c.verify(signature, []byte("test")) {
			t.Errorf("%s: own signature refused", test.curve.name)
		}
	}
}

// TestECDH takes RFC 5903, 8.1 (P-256), RFC 7027, A.1 to A.3 (Brainpool), and
// crypto/ecdh for the rest.
func TestECDH(t *testing.T) {
	t.Parallel()
	type vector struct {
		curve      prime
		d, w, x, y string
	}
	vectors := []vector{
		{ofGo(elliptic.P256()), "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433", "04D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF6356FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB", "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE", ""},
		{brainpool256, "81DB1EE100150FF2EA338D708271BE38300CB54241D79950F77B063039804F1D", "048D2D688C6CF93E1160AD04CC4429117DC2C41825E1E9FCA0ADDD34E6F1B39F7B990C57520812BE512641E47034832106BC7D3E8DD0E4C7F1136D7006547CEC6A", "89AFC39D41D3B327814B80940B042590F96556EC91E6AE7939BCE31F3A18BF2B", "49C27868F4ECA2179BFD7D59B1E3BF34C1DBDE61AE12931648F43E59632504DE"},
		{brainpool384, "1E20F5E048A5886F1F157C74E91BDE2B98C8B52D58E5003D57053FC4B0BD65D6F15EB5D1EE1610DF870795143627D042", "044D44326F269A597A5B58BBA565DA5556ED7FD9A8A9EB76C25F46DB69D19DC8CE6AD18E404B15738B2086DF37E71D1EB462D692136DE56CBE93BF5FA3188EF58BC8A3A0EC6C1E151A21038A42E9185329B5B275903D192F8D4E1F32FE9CC78C48", "0BD9D3A7EA0B3D519D09D8E48D0785FB744A6B355E6304BC51C229FBBCE239BBADF6403715C35D4FB2A5444F575D4F42", "0DF213417EBE4D8E40A5F76F66C56470C489A3478D146DECF6DF0D94BAE9E598157290F8756066975F1DB34B2324B7BD"},
		{brainpool512, "16302FF0DBBB5A8D733DAB7141C1B45ACBC8715939677F6A56850A38BD87BD59B09E80279609FF333EB9D4C061231FB26F92EEB04982A5F1D1764CAD57665422", "049D45F66DE5D67E2E6DB6E93A59CE0BB48106097FF78A081DE781CDB31FCE8CCBAAEA8DD4320C4119F1E9CD437A2EAB3731FA9668AB268D871DEDA55A5473199F2FDC313095BCDD5FB3A91636F07A959C8E86B5636A1E930E8396049CB481961D365CC11453A06C719835475B12CB52FC3C383BCE35E27EF194512B71876285FA", "A7927098655F1F9976FA50A9D566865DC530331846381C87256BAF3226244B76D36403C024D7BBF0AA0803EAFF405D3D24F11A9B5C0BEF679FE1454B21C4CD1F", "7DB71C3DEF63212841C463E881BDCF055523BD368240E6C3143BD8DEF8B3B3223B95E0F53082FF5E412F4222537A43DF1C6D25729DDB51620A832BE6A26680A2"},
	}
	for curve, params := range map[ecdh.Curve]prime{ecdh.P384(): ofGo(elliptic.P384()), ecdh.P521(): ofGo(elliptic.P521())} {
		a, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		x, err := a.ECDH(b.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		vectors = append(vectors, vector{params, hex.EncodeToString(a.Bytes()), hex.EncodeToString(b.PublicKey().Bytes()), hex.EncodeToString(x), ""})
	}
	for _, v := range vectors {
		c := newAsymCard(t)
		c.curve(0, 1, v.curve)
		c.do(3, 1, 0x37, unhex(t, v.d)...)
		w, x := unhex(t, v.w), unhex(t, v.x)
		hashed := sha1.Sum(x)
		c.do(0x30, 2, 0)
		c.fails("6602", 0x31, 1, 0) // no cofactor
		c.do(3, 1, 0x35, 0, 1)
		for algorithm, want := range map[byte][]byte{1: hashed[:], 2: hashed[:], 3: x, 4: x, 6: append(append([]byte{4}, x...), unhex(t, v.y)...)} {
			c.do(0x30, algorithm, 0)
			c.fails("6604", 0x32, 0, 0, w...)
			c.do(0x31, 1, 0)
			got := c.do(0x32, 0, 0, w...)
			if algorithm == 6 && v.y == "" {
				got = got[:len(want)]
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s, algorithm %d: %X", v.curve.name, algorithm, got)
			}
			off := bytes.Clone(w)
			off[len(off)-1] ^= 1
			c.fails("6601", 0x32, 0, 0, off...)
			c.fails("6601", 0x32, 0, 0, w[1:]...)
		}
		c.build(2, 5, 512)
		c.fails("6601", 0x31, 2, 0) // a key for RSA
	}
}

// TestAsymmetricKeys looks at what happens to keys: memory, power, transactions
// and misuse.
func TestAsymmetricKeys(t *testing.T) {
	t.Parallel()
	c := newAsymCard(t)
	p256 := ofGo(elliptic.P256())
	before := c.card.Memory()
	c.build(2, 12, 256)
	// An object of three fields, and an array of seven parts with their lengths.
	if got, want := c.card.Memory().PersistentUsed-before.PersistentUsed, 8+6+8+7*2+32+32+32+65+33+2+33; got != want {
		t.Errorf("a private key takes %d bytes, want %d", got, want)
	}
	c.do(2, 3, 0, 8, 1, 1, 0) // ALG_TYPE_EC_FP_PRIVATE, transient until reset
	if got := c.card.Memory().TransientResetUsed - before.TransientResetUsed; got != 7*2+32+32+32+65+33+2+33 {
		t.Errorf("a transient key takes %d bytes", got)
	}
	if got := c.do(5, 3, 0); !bytes.Equal(got, []byte{0, 30, 1, 0}) {
		t.Errorf("transient key: %X", got)
	}
	c.curve(0, 1, p256)
	c.do(9, 0, 1)
	c.fails("6602", 4, 1, 0x37) // not set
	c.do(0x10, 33, 0)
	c.fails("6604", 0x12, 0, 0, 1) // no init
	c.fails("6604", 0x18, 0, 0)
	c.fails("6602", 0x11, 1, 1) // key not complete
	c.fails("6602", 0x11, 7, 1) // null
	c.do(0x0A, 0, 0)
	s, w := c.do(4, 1, 0x37), c.do(4, 0, 0x36)
	c.fails("6601", 0x11, 0, 1) // signed with a public key
	c.fails("6601", 0x11, 1, 2)
	c.fails("6601", 0x11, 1, 3)
	c.fails("6601", 0x19, 1, 1, 1, 2, 3) // parameters that the algorithm doesn't have
	c.do(0x11, 1, 1)
	c.fails("6604", 0x14, 0, 0, 0, 1, 1) // verified while it signs
	c.fails("6605", 0x15, 0, 0, 1, 2, 3) // not the length of a hash
	c.do(7, 3, 0)
	c.do(3, 3, 0x37, s...)
	// A transaction that is taken back.
	c.do(0x40, 1, 0x37, bytes.Repeat([]byte{1}, 32)...)
	if got := c.do(4, 1, 0x37); !bytes.Equal(got, s) {
		t.Errorf("a key after an aborted transaction: %X", got)
	}
	c.do(0x40, 3, 0x37, bytes.Repeat([]byte{1}, 32)...) // transient data stays
	if got := c.do(4, 3, 0x37); got[0] != 1 {
		t.Errorf("a transient key after an aborted transaction: %X", got)
	}
	c.build(4, 5, 4096)
	c.fails("6703", 0x40, 4, 0x10, bytes.Repeat([]byte{0xFF}, 512)...) // more than a transaction holds
	if err := c.card.Reset(context.Background()); err != nil {
		t.Fatal(err)
	}
	selectApplet(t, c.card, iso7816.MustAID("F0000000011701"))
	if got := c.do(5, 3, 0); got[0] != 0 {
		t.Error("a transient key is set after a reset")
	}
	if got := c.do(4, 0, 0x36); !bytes.Equal(got, w) {
		t.Errorf("the public key after a reset: %X", got)
	}
	// The signature object knows its key.
	signature := c.do(0x13, 0, 0, []byte("message")...)
	c.do(0x11, 0, 2)
	if !c.verify(signature, []byte("message")) {
		t.Error("signature after a reset refused")
	}
	c.do(6, 0, 0)
	c.fails("6602", 0x14, 0, 0, 0, 1, 1)
	if got := c.do(5, 0, 0); got[0] != 0 {
		t.Error("a key is set after it was cleared")
	}
	// Parameters that make no curve.
	c.do(9, 0, 1)
	c.do(3, 1, 0x32, 1)
	c.fails("6601", 0x0A, 0, 0)
	for _, x := range []struct {
		part byte
		data []byte
	}{
		{0x30, bytes.Repeat([]byte{0xFF}, 33)}, {0x30, []byte{4}}, {0x31, nil}, {0x33, bytes.Repeat([]byte{2}, 33)}, {0x37, bytes.Repeat([]byte{1}, 34)}, {0x38, nil},
	} {
		c.fails("6601", 3, 1, x.part, x.data...)
	}
	for _, zero := range []byte{0x31, 0x34, 0x37} { // nothing of it may stop the machine
		c.do(3, 1, zero, 0)
		if _, sw := c.try(0x0A, 0, 0, nil); sw != "6601" {
			t.Errorf("keys with part %02X zero: %s", zero, sw)
		}
	}
	c.set(4, 0x10, []byte{0}, []byte{0})
	c.do(0x20, 12, 0)
	c.do(0x21, 4, 1)
	c.fails("6605", 0x23, 0, 0, make([]byte, 512)...)
	// What doesn't exist.
	for _, x := range [][]byte{{4, 0, 100}, {4, 16, 32}, {11, 1, 1}, {7, 4, 0}, {32, 4, 0}} {
		c.fails("6603", 1, 5, 0, x...)
	}
	for _, x := range [][]byte{{3, 4, 0}, {6, 4, 0}, {1, 0, 64}} {
		c.fails("6603", 8, 5, 6, x...)
	}
	c.fails("6603", 2, 5, 0, 7, 1, 1, 0) // no public keys in transient memory
	c.fails("6603", 0x10, 9, 0)
	c.fails("6603", 0x10, 0, 0, 3, 3, 7)
	c.fails("6603", 0x20, 9, 0)
	c.fails("6603", 0x20, 0, 0, 7, 10)
	c.fails("6603", 0x30, 5, 0)
	// Keys that aren't a pair.
	c.build(5, 4, 1024)
	c.fails("6601", 9, 5, 1)
	c.build(6, 5, 2048)
	c.fails("6601", 9, 5, 6)
	// By parts and by number it is the same.
	for _, x := range [][]byte{{40, 4, 3, 7}, {44, 4, 3, 8}, {33, 4, 5, 0}, {25, 4, 7, 0}, {20, 0, 2, 5}, {18, 0, 6, 1}, {49, 0, 10, 0}} {
		c.do(0x10, 0, 0, x[1:]...)
		if got := c.do(0x17, 0, 0); !bytes.Equal(got, x) {
			t.Errorf("parts %X: %X", x[1:], got)
		}
		c.do(0x10, x[0], 0)
		if got := c.do(0x17, 0, 0); !bytes.Equal(got, x) {
			t.Errorf("number %d: %X", x[0], got)
		}
	}
	for _, x := range [][]byte{{10, 7, 7}, {12, 7, 1}, {15, 7, 9}, {0, 7, 14}} {
		c.do(0x20, 0, 0, x[1:]...)
		if got := c.do(0x24, 0, 0); !bytes.Equal(got, x) {
			t.Errorf("cipher %X: %X", x[1:], got)
		}
	}
}

// TestKeyPairCuts loses power before every write of the making of keys: those
// that say that they are set belong together.
func TestKeyPairCuts(t *testing.T) {
	t.Parallel()
	old, cuts := 0, 0
	for write := 1; ; write++ {
		c := newAsymCard(t)
		c.curve(0, 1, ofGo(elliptic.P256()))
		c.do(9, 0, 1)
		c.do(0x0A, 0, 0)
		c.card.SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeWrite, Write: write})
		_, err := c.card.Transmit(context.Background(), []byte{0x80, 0x0A, 0, 0})
		if err == nil {
			break
		}
		cuts++
		c.card.PowerOn()
		selectApplet(t, c.card, iso7816.MustAID("F0000000011701"))
		if c.do(5, 0, 0)[0] == 1 {
			old++
			c.do(0x10, 33, 0)
			c.do(0x11, 1, 1)
			signature := c.do(0x13, 0, 0, []byte("message")...)
			c.do(0x11, 0, 2)
			if !c.verify(signature, []byte("message")) {
				t.Errorf("cut before write %d: the keys don't belong together", write)
			}
		}
		c.do(0x0A, 0, 0)
	}
	if cuts < 3 || old == 0 || old == cuts {
		t.Errorf("%d cuts, %d of which left keys", cuts, old)
	}
}

// TestAsymmetricImage opens a card again from its file.
func TestAsymmetricImage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "card.img")
	card, err := emulator.Create(path, config(t))
	if err != nil {
		t.Fatal(err)
	}
	f := load(t, card, "asym")
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	selectApplet(t, card, f.Applets[0])
	k := newRSA(t, 1024)
	c := asymCard{t, card}
	c.rsaKeys(k)
	c.do(0x10, 40, 0)
	c.do(0x11, 2, 1)
	if err := card.Close(); err != nil {
		t.Fatal(err)
	}
	if card, err = emulator.Open(path, jcvm.Linker{}); err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	selectApplet(t, card, f.Applets[0])
	c = asymCard{t, card}
	signature := c.do(0x13, 0, 0, []byte("message")...)
	if err := rsa.VerifyPKCS1v15(&k.PublicKey, crypto.SHA256, sum(crypto.SHA256, []byte("message")), signature); err != nil {
		t.Error(err)
	}
}
