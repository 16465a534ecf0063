package applets

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"slices"
	"strings"
	"testing"
	"time"

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

// typeDTap prepares a type-d tap without PIN and items: EF.ID of 111 bytes, its
// signature included, which is not verified.
func typeDTap(t testing.TB) (card *replay, req ReadRequest) {
	t.Helper()
	key := func(first byte) keys.Key {
		k, err := keys.NewKey(bytes.Repeat([]byte{first}, 16))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	// Read erases the keys that it is given, so each tap gets a copy; making
	// it is part of what is measured, as it is part of every tap.
	static := keys.Set{Version: 1, ENC: key(1), MAC: key(2)}
	set := static.Clone
	aid := iso7816.MustAID("F0465245454152454101")
	host, challenge := [16]byte{1}, [16]byte{2}
	record := Record{Service: "office-pass", ID: strings.Repeat("7", 20), Expiry: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC), Signature: make([]byte, 64)}
	data, err := record.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(data) != 111 {
		t.Fatalf("EF.ID has %d bytes", len(data))
	}
	k, err := ExpressKeys(set(), host, challenge)
	if err != nil {
		t.Fatal(err)
	}
	chaining, err := ExpressMAC(k.MAC, aid, 1, scp.Full, host)
	if err != nil {
		t.Fatal(err)
	}
	answer := scp.ResumeCard(scp.CardOptions{}, k, scp.Full, chaining, 1).Wrap(iso7816.Response{Data: data, SW: iso7816.OK})
	own := iso7816.AppendTLV(nil, TagType, []byte{TypeD, ProtocolVersion})
	own = iso7816.AppendTLV(own, TagChallenge, challenge[:])
	own = iso7816.AppendTLV(own, TagDiversification, make([]byte, 10))
	own = iso7816.AppendTLV(own, TagKeyVersions, []byte{1})
	fci := iso7816.AppendTLV(iso7816.AppendTLV(nil, TagAID, aid.Bytes()), TagProprietary, own)
	card = &replay{}
	card.answers[0] = iso7816.Response{Data: iso7816.AppendTLV(nil, TagFCI, fci), SW: iso7816.OK}.Encode()
	card.answers[1] = answer.Encode()
	return card, ReadRequest{
		AID:  aid,
		Rand: fixed{host[:]},
		Keys: func(context.Context, ApplicationInfo) (keys.Set, error) { return set(), nil },
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

// BenchmarkTapHostTypeD reports how many times longer than the bare AES work
// in it the terminal's part of a type-d tap takes, in one run: the
// cryptography (EXPRESS and its answer: x-bare-aes), and all of it with what is
// parsed around it (x-bare-aes-whole).
func BenchmarkTapHostTypeD(b *testing.B) {
	card, req := typeDTap(b)
	ctx := context.Background()
	info, err := SelectInfo(ctx, card, req.AID)
	if err != nil {
		b.Fatal(err)
	}
	answer := &replay{answers: [2][]byte{card.answers[1], card.answers[1]}}
	card.next = 0
	key, buf := make([]byte, 16), make([]byte, 16)
	b.ReportAllocs()
	// They are measured in turns, and the medians compared: what else the
	// machine does hits a few turns, not the result.
	const turn = 16
	var whole, crypto, bare []time.Duration
	for b.Loop() {
		start := time.Now()
		for range turn {
			if _, err := typeD.Read(ctx, card, req); err != nil {
				b.Fatal(err)
			}
		}
		whole = append(whole, time.Since(start))
		set, err := req.Keys(ctx, info)
		if err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		for range turn {
			if _, _, err := express(ctx, answer, &info, set, scp.Full, req.Rand); err != nil {
				b.Fatal(err)
			}
		}
		crypto = append(crypto, time.Since(start))
		start = time.Now()
		for range turn {
			bareAES(key, buf)
		}
		bare = append(bare, time.Since(start))
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2])
	}
	b.ReportMetric(median(crypto)/median(bare), "x-bare-aes")
	b.ReportMetric(median(whole)/median(bare), "x-bare-aes-whole")
	b.ReportMetric(median(whole)/turn, "ns/tap")
}

// TestTapAllocations holds the terminal's part of a type-d tap to fewer than
// 64 allocations.
func TestTapAllocations(t *testing.T) {
	card, req := typeDTap(t)
	n := testing.AllocsPerRun(100, func() {
		r, err := typeD.Read(context.Background(), card, req)
		if err != nil || r.Record.Service != "office-pass" || r.Authentication != MutualEncrypted {
			t.Fatalf("%+v, %v", r, err)
		}
	})
	t.Logf("%v allocations", n)
	if n >= 64 {
		t.Errorf("%v allocations in a tap, fewer than 64 allowed", n)
	}
}
