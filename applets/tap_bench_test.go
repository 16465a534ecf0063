package applets_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// replay answers a type-d tap as a card did once: what is measured is the
// terminal alone.
type replay struct {
	answers [2][]byte
	next    int
}

func (r *replay) Transmit(context.Context, []byte) ([]byte, error) {
	a := r.answers[r.next]
	r.next = 1 - r.next
	return a, nil
}

type fixed struct{ b []byte }

func (f fixed) Read(p []byte) (int, error) { return copy(p, f.b), nil }

// tap prepares a type-d tap without PIN and items: EF.ID of 111 bytes, its
// signature included, which is not verified.
func tap(t testing.TB) (card *replay, req applets.ReadRequest) {
	t.Helper()
	key := func(first byte) keys.Key {
		k, err := keys.NewKey(bytes.Repeat([]byte{first}, 16))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	set := func() keys.Set { return keys.Set{Version: 1, ENC: key(1), MAC: key(2)} }
	aid := iso7816.MustAID("F0465245454152454101")
	host, challenge := [16]byte{1}, [16]byte{2}
	record := applets.Record{Service: "office-pass", ID: strings.Repeat("7", 20), Expiry: date(2031, 1, 1), Signature: make([]byte, 64)}
	data, err := record.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(data) != 111 {
		t.Fatalf("EF.ID has %d bytes", len(data))
	}
	k, err := applets.ExpressKeys(set(), host, challenge)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := applets.ExpressMAC(k.MAC, aid, 1, scp.Full, host)
	if err != nil {
		t.Fatal(err)
	}
	answer := scp.ResumeCard(scp.CardOptions{}, k, scp.Full, mac, 1).Wrap(iso7816.Response{Data: data, SW: iso7816.OK})
	own := iso7816.AppendTLV(nil, applets.TagType, []byte{applets.TypeD, applets.ProtocolVersion})
	own = iso7816.AppendTLV(own, applets.TagChallenge, challenge[:])
	own = iso7816.AppendTLV(own, applets.TagDiversification, make([]byte, 10))
	own = iso7816.AppendTLV(own, applets.TagKeyVersions, []byte{1})
	fci := iso7816.AppendTLV(iso7816.AppendTLV(nil, applets.TagAID, aid.Bytes()), applets.TagProprietary, own)
	card = &replay{}
	card.answers[0] = iso7816.Response{Data: iso7816.AppendTLV(nil, applets.TagFCI, fci), SW: iso7816.OK}.Encode()
	card.answers[1] = answer.Encode()
	return card, applets.ReadRequest{
		AID:  aid,
		Rand: fixed{host[:]},
		Keys: func(context.Context, applets.ApplicationInfo) (keys.Set, error) { return set(), nil },
	}
}

// bareAES is the AES work of that tap and nothing else: key schedules of
// static ENC and MAC, S-ENC, S-MAC and S-RMAC; the CMAC subkeys of four of
// them; three derivations of 3 blocks, the C-MAC of 3 and the R-MAC of 9; the
// ICV; 7 blocks to decrypt.
func bareAES(key, buf []byte) {
	var block cipher.Block
	for range 5 {
		block, _ = aes.NewCipher(key)
	}
	for range 4 + 3*3 + 3 + 9 + 1 {
		block.Encrypt(buf, buf)
	}
	for range 7 {
		block.Decrypt(buf, buf)
	}
}

// BenchmarkTapHostTypeD reports how many times longer the terminal's part of a
// type-d tap takes than the bare AES work in it, in one run.
func BenchmarkTapHostTypeD(b *testing.B) {
	card, req := tap(b)
	p, _ := applets.Base().Lookup("type-d")
	ctx := context.Background()
	key, buf := make([]byte, 16), make([]byte, 16)
	b.ReportAllocs()
	var taps, bare time.Duration
	for b.Loop() {
		start := time.Now()
		for range 16 {
			if _, err := p.Read(ctx, card, req); err != nil {
				b.Fatal(err)
			}
		}
		middle := time.Now()
		for range 16 {
			bareAES(key, buf)
		}
		taps += middle.Sub(start)
		bare += time.Since(middle)
	}
	b.ReportMetric(float64(taps)/float64(bare), "x-bare-aes")
	b.ReportMetric(float64(taps.Nanoseconds())/float64(16*b.N), "ns/tap")
}

// TestTapAllocations holds the terminal's part of a type-d tap to fewer than
// 64 allocations.
func TestTapAllocations(t *testing.T) {
	card, req := tap(t)
	p, _ := applets.Base().Lookup("type-d")
	n := testing.AllocsPerRun(100, func() {
		r, err := p.Read(context.Background(), card, req)
		if err != nil || r.Record.Service != "office-pass" || r.Authentication != applets.MutualEncrypted {
			t.Fatalf("%+v, %v", r, err)
		}
	})
	t.Logf("%v allocations", n)
	if n >= 64 {
		t.Errorf("%v allocations in a tap, fewer than 64 allowed", n)
	}
}
