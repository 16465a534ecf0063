package file

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	crand "crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var (
	pass  = []byte("correct horse")
	aid   = iso7816.MustAID("F0465245454152454101")
	data  = []byte("0123456789")
	start = time.Date(2025, 4, 1, 9, 0, 0, 999, time.FixedZone("JST", 9*3600))
)

// cheap is a cost for tests only.
var cheap = Cost{Time: 1, Memory: 8, Threads: 1}

func options() Options {
	now := start
	return Options{Cost: cheap, Now: func() time.Time { now = now.Add(time.Hour); return now }}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func create(t *testing.T) *Store {
	t.Helper()
	s := must[*Store](t)(Create(t.Context(), filepath.Join(t.TempDir(), "site.keys"), pass, options()))
	t.Cleanup(func() { s.Close() })
	return s
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	again := must[*Store](t)(Open(t.Context(), s.Path(), pass, options()))
	t.Cleanup(func() { again.Close() })
	return again
}

// full has a key of every kind.
func full(t *testing.T) *Store {
	t.Helper()
	s := create(t)
	for _, n := range []New{
		{Name: "isd", Kind: keys.SecurityDomain, Version: 48},
		{Name: "door", Kind: keys.Read},
		{Name: "door", Kind: keys.Read},
		{Name: "issuer", Kind: keys.IssuerSigning},
		{Name: "counter", Kind: keys.CounterSigning},
		{Name: "tags", Kind: keys.Ledger},
	} {
		must[keys.Entry](t)(s.Generate(t.Context(), n))
	}
	return s
}

func read(t *testing.T, s *Store) []byte {
	t.Helper()
	return must[[]byte](t)(os.ReadFile(s.Path()))
}

// put writes a file as an attacker would.
func put(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "put.keys")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mend gives a changed file a right checksum.
func mend(b []byte) []byte {
	b = b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1]
	return appendSum(slices.Clone(b))
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestEntries(t *testing.T) {
	s := full(t)
	for _, s := range []*Store{s, reopen(t, s)} {
		got := must[[]keys.Entry](t)(s.Entries(t.Context()))
		for i := range got {
			if got[i].Check == "" {
				t.Errorf("%s has no check value", got[i].Name)
			}
			got[i].Check = ""
		}
		at := func(h int) time.Time { return time.Date(2025, 4, 1, h, 0, 0, 0, time.UTC) }
		want := []keys.Entry{
			{Name: "counter", Kind: keys.CounterSigning, Version: 1, Algorithm: keys.Ed25519, Created: at(5)},
			{Name: "door", Kind: keys.Read, Version: 1, Algorithm: keys.AES128, Created: at(2)},
			{Name: "door", Kind: keys.Read, Version: 2, Algorithm: keys.AES128, Created: at(3)},
			{Name: "isd", Kind: keys.SecurityDomain, Version: 48, Algorithm: keys.AES128, Created: at(1)},
			{Name: "issuer", Kind: keys.IssuerSigning, Version: 1, Algorithm: keys.Ed25519, Created: at(4)},
			{Name: "tags", Kind: keys.Ledger, Version: 1, Algorithm: keys.AES256, Created: at(6)},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	info := must[Info](t)(Inspect(t.Context(), s.Path()))
	if len(info.Entries) != 6 || info.Cost != cheap || info.Generation != 7 {
		t.Errorf("Inspect says %d entries, cost %v, generation %d", len(info.Entries), info.Cost, info.Generation)
	}
}

// What goes in must come out: each operation against a computation of its own.
func TestUse(t *testing.T) {
	s := create(t)
	ctx := t.Context()
	key := func(b byte, n int) keys.Key {
		return must[keys.Key](t)(keys.NewKey(bytes.Repeat([]byte{b}, n)))
	}
	sd := keys.Set{Version: 3, ENC: key(1, 24), MAC: key(2, 24), DEK: key(3, 24)}
	rd := keys.Set{ENC: key(4, 32), MAC: key(5, 32)}
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{6}, 32))
	ledger := key(7, 16)

	must[keys.Entry](t)(s.AddSet(ctx, New{Name: "isd", Kind: keys.SecurityDomain}, sd))
	must[keys.Entry](t)(s.AddSet(ctx, New{Name: "door", Kind: keys.Read}, rd))
	must[keys.Entry](t)(s.AddSigning(ctx, New{Name: "issuer", Kind: keys.IssuerSigning}, private))
	must[keys.Entry](t)(s.AddLedger(ctx, New{Name: "tags", Kind: keys.Ledger}, ledger))
	rd.Version = 1

	for _, s := range []*Store{s, reopen(t, s)} {
		if diff := cmp.Diff(sd, must[keys.Set](t)(s.SecurityDomainKeys(ctx, keys.Ref{Name: "isd"}, keys.MethodNone, nil))); diff != "" {
			t.Error(diff)
		}
		want := must[keys.Set](t)(keys.Diversify(keys.SecurityDomain, keys.MethodSP800108, sd, iso7816.AID{}, data))
		if diff := cmp.Diff(want, must[keys.Set](t)(s.SecurityDomainKeys(ctx, keys.Ref{Name: "isd", Version: 3}, keys.MethodSP800108, data))); diff != "" {
			t.Error(diff)
		}
		want = must[keys.Set](t)(keys.Diversify(keys.Read, keys.MethodSP800108, rd, aid, data))
		if diff := cmp.Diff(want, must[keys.Set](t)(s.ReadKeys(ctx, keys.Ref{Name: "door"}, keys.MethodSP800108, aid, data))); diff != "" {
			t.Error(diff)
		}
		sig := must[[]byte](t)(s.Sign(ctx, keys.Ref{Name: "issuer"}, keys.IssuerSigning, []byte("message")))
		pub := must[ed25519.PublicKey](t)(s.PublicKey(ctx, keys.Ref{Name: "issuer"}))
		if !pub.Equal(private.Public()) || !ed25519.Verify(pub, []byte("message"), sig) {
			t.Error("the signature does not verify")
		}
		wantSum, _ := sp800.Sum(ledger.Bytes(), []byte("message"))
		if got := must[[16]byte](t)(s.Digest(ctx, keys.Ref{Name: "tags"}, []byte("message"))); got != wantSum {
			t.Errorf("digest %x, want %x", got, wantSum)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := full(t)
	ctx := t.Context()
	pub := ed25519.PublicKey(bytes.Repeat([]byte{9}, 32))
	must[keys.Entry](t)(s.AddPublic(ctx, New{Name: "other-issuer", Kind: keys.IssuerSigning}, pub))

	_, err := s.ReadKeys(ctx, keys.Ref{Name: "door"}, keys.MethodNone, aid, data)
	wantErr(t, err, keys.ErrDiversifier)
	_, err = s.ReadKeys(ctx, keys.Ref{Name: "door"}, "sp800-108", aid, data)
	wantErr(t, err, keys.ErrDiversifier)
	_, err = s.SecurityDomainKeys(ctx, keys.Ref{Name: "isd"}, "", data)
	wantErr(t, err, keys.ErrDiversifier)
	_, err = s.SecurityDomainKeys(ctx, keys.Ref{Name: "isd"}, keys.MethodSP800108, make([]byte, 10))
	wantErr(t, err, keys.ErrDiversificationData)
	_, err = s.ReadKeys(ctx, keys.Ref{Name: "isd"}, keys.MethodSP800108, aid, data)
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.SecurityDomainKeys(ctx, keys.Ref{Name: "door"}, keys.MethodNone, data)
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.Sign(ctx, keys.Ref{Name: "issuer"}, keys.CounterSigning, nil)
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.Sign(ctx, keys.Ref{Name: "tags"}, keys.Ledger, nil)
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.Digest(ctx, keys.Ref{Name: "door"}, nil)
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.PublicKey(ctx, keys.Ref{Name: "door"})
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.Sign(ctx, keys.Ref{Name: "other-issuer"}, keys.IssuerSigning, nil)
	wantErr(t, err, keys.ErrPublicOnly)
	_, err = s.Digest(ctx, keys.Ref{Name: "absent"}, nil)
	wantErr(t, err, keys.ErrNotFound)
	_, err = s.ReadKeys(ctx, keys.Ref{Name: "door", Version: 3}, keys.MethodSP800108, aid, data)
	wantErr(t, err, keys.ErrNotFound)

	before := read(t, s)
	_, err = s.Generate(ctx, New{Name: "door", Kind: keys.Read, Version: 2})
	wantErr(t, err, keys.ErrExists)
	_, err = s.Generate(ctx, New{Name: "door", Kind: keys.Ledger})
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.AddPublic(ctx, New{Name: "x", Kind: keys.Read}, pub)
	wantErr(t, err, keys.ErrWrongKind)
	for _, n := range []New{
		{Name: "", Kind: keys.Read}, {Name: "-x", Kind: keys.Read}, {Name: "a b", Kind: keys.Read}, {Name: "a\n", Kind: keys.Read},
		{Name: "鍵", Kind: keys.Read}, {Name: strings.Repeat("x", 65), Kind: keys.Read}, {Name: "x/y", Kind: keys.Read},
		{Name: "x", Kind: "other"}, {Name: "x"}, {Name: "x", Kind: keys.Read, Version: 128},
		{Name: "x", Kind: keys.Read, Algorithm: keys.AES192}, {Name: "x", Kind: keys.Read, Algorithm: keys.Ed25519},
		{Name: "x", Kind: keys.IssuerSigning, Algorithm: keys.AES128},
	} {
		if e, err := s.Generate(ctx, n); err == nil {
			t.Errorf("%+v gave %+v", n, e)
		}
	}
	short := must[keys.Key](t)(keys.NewKey(make([]byte, 16)))
	for name, set := range map[string]keys.Set{
		"no keys": {}, "no MAC": {ENC: short}, "a DEK": {ENC: short, MAC: short, DEK: short}, "other version": {Version: 9, ENC: short, MAC: short},
	} {
		if _, err := s.AddSet(ctx, New{Name: "x", Kind: keys.Read, Version: 4}, set); err == nil {
			t.Errorf("a read set with %s was accepted", name)
		}
	}
	broken := slices.Clone(ed25519.NewKeyFromSeed(make([]byte, 32)))
	broken[63] ^= 1
	if _, err := s.AddSigning(ctx, New{Name: "x", Kind: keys.IssuerSigning}, broken); err == nil {
		t.Error("a signing key with another's public half was accepted")
	}
	if !bytes.Equal(read(t, s), before) {
		t.Error("a refusal changed the file")
	}
}

func TestDevelopmentKeyOnlyByName(t *testing.T) {
	s := create(t)
	ctx := t.Context()
	_, err := s.AddSet(ctx, New{Name: "isd", Kind: keys.SecurityDomain}, keys.DevelopmentSet())
	wantErr(t, err, keys.ErrDevelopmentKey)
	_, err = s.AddLedger(ctx, New{Name: "tags", Kind: keys.Ledger}, keys.DevelopmentSet().ENC)
	wantErr(t, err, keys.ErrDevelopmentKey)
	must[keys.Entry](t)(s.AddDevelopment(ctx, New{Name: "isd", Kind: keys.SecurityDomain}))
	must[keys.Entry](t)(s.AddDevelopment(ctx, New{Name: "door", Kind: keys.Read}))
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "isd", Kind: keys.SecurityDomain}))
	var marked []string
	for _, e := range must[[]keys.Entry](t)(reopen(t, s).Entries(ctx)) {
		if e.Development {
			marked = append(marked, fmt.Sprint(e.Name, e.Version, e.Check))
		}
	}
	if want := []string{"door1504A77/504A77", "isd1504A77/504A77/504A77"}; !slices.Equal(marked, want) {
		t.Errorf("marked as development keys: %v, want %v", marked, want)
	}
	set := must[keys.Set](t)(s.SecurityDomainKeys(ctx, keys.Ref{Name: "isd", Version: 1}, keys.MethodNone, nil))
	if !set.IsDevelopment() {
		t.Error("the development set is not the development key")
	}
}

func TestRetire(t *testing.T) {
	s := full(t)
	ctx := t.Context()
	e := must[keys.Entry](t)(s.Retire(ctx, keys.Ref{Name: "door"}))
	if e.Version != 2 || e.Retired.IsZero() {
		t.Errorf("retired %+v", e)
	}
	must[keys.Entry](t)(s.Retire(ctx, keys.Ref{Name: "issuer"}))
	s = reopen(t, s)
	if set := must[keys.Set](t)(s.ReadKeys(ctx, keys.Ref{Name: "door"}, keys.MethodSP800108, aid, data)); set.Version != 1 {
		t.Errorf("the newest in use is %d", set.Version)
	}
	_, err := s.ReadKeys(ctx, keys.Ref{Name: "door", Version: 2}, keys.MethodSP800108, aid, data)
	wantErr(t, err, keys.ErrRetired)
	_, err = s.Sign(ctx, keys.Ref{Name: "issuer", Version: 1}, keys.IssuerSigning, nil)
	wantErr(t, err, keys.ErrRetired)
	_, err = s.Sign(ctx, keys.Ref{Name: "issuer"}, keys.IssuerSigning, nil)
	wantErr(t, err, keys.ErrNotFound)
	must[ed25519.PublicKey](t)(s.PublicKey(ctx, keys.Ref{Name: "issuer", Version: 1}))
	_, err = s.Retire(ctx, keys.Ref{Name: "door", Version: 2})
	wantErr(t, err, keys.ErrRetired)

	// A number is not given out again while the key is there.
	if e := must[keys.Entry](t)(s.Generate(ctx, New{Name: "door", Kind: keys.Read})); e.Version != 3 {
		t.Errorf("the next version is %d", e.Version)
	}
	wantErr(t, s.Remove(ctx, keys.Ref{Name: "door", Version: 1}), ErrNotRetired)
	if err := s.Remove(ctx, keys.Ref{Name: "door"}); err == nil {
		t.Error("removed without a version")
	}
	if e := must[keys.Entry](t)(s.Reinstate(ctx, keys.Ref{Name: "door", Version: 2})); !e.Retired.IsZero() {
		t.Errorf("reinstated %+v", e)
	}
	must[keys.Set](t)(s.ReadKeys(ctx, keys.Ref{Name: "door", Version: 2}, keys.MethodSP800108, aid, data))
	_, err = s.Reinstate(ctx, keys.Ref{Name: "door", Version: 2})
	wantErr(t, err, ErrNotRetired)
	must[keys.Entry](t)(s.Retire(ctx, keys.Ref{Name: "door", Version: 2}))
	if err := s.Remove(ctx, keys.Ref{Name: "door", Version: 2}); err != nil {
		t.Error(err)
	}
	_, err = s.Retire(ctx, keys.Ref{Name: "door", Version: 2})
	wantErr(t, err, keys.ErrNotFound)
}

// A key that another process retired must not go on being used by this one
// once this one has looked again.
func TestReload(t *testing.T) {
	a := full(t)
	b := reopen(t, a)
	must[keys.Entry](t)(a.Retire(t.Context(), keys.Ref{Name: "tags"}))
	must[[16]byte](t)(b.Digest(t.Context(), keys.Ref{Name: "tags"}, nil))
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := b.Digest(t.Context(), keys.Ref{Name: "tags", Version: 1}, nil)
	wantErr(t, err, keys.ErrRetired)
}

func TestSinglyUpdated(t *testing.T) {
	s := full(t)
	before := bytes.Split(read(t, s), []byte("\n"))
	must[keys.Entry](t)(s.Retire(t.Context(), keys.Ref{Name: "isd"}))
	after := bytes.Split(read(t, s), []byte("\n"))
	var changed []int
	for i := range before {
		if !bytes.Equal(before[i], after[i]) {
			changed = append(changed, i)
		}
	}
	// The entry, the generation, the MAC and the checksum.
	if want := []int{4, 7, 8, 9}; !slices.Equal(changed, want) {
		t.Errorf("lines %v changed, want %v", changed, want)
	}
}

func TestWrongPassphrase(t *testing.T) {
	s := full(t)
	for _, p := range []string{"correct hors", "correct horse ", "Correct horse", "correct horse\n"} {
		_, err := Open(t.Context(), s.Path(), []byte(p), Options{})
		wantErr(t, err, ErrPassphrase)
		if errors.Is(err, ErrDamaged) {
			t.Errorf("%q: also damaged: %v", p, err)
		}
	}
	_, err := Open(t.Context(), s.Path(), nil, Options{})
	wantErr(t, err, ErrEmptyPassphrase)
	_, err = Create(t.Context(), filepath.Join(t.TempDir(), "k"), nil, Options{Cost: cheap})
	wantErr(t, err, ErrEmptyPassphrase)
}

func TestCreateLeavesExistingFile(t *testing.T) {
	s := full(t)
	before := read(t, s)
	_, err := Create(t.Context(), s.Path(), pass, options())
	wantErr(t, err, fs.ErrExist)
	if !bytes.Equal(before, read(t, s)) {
		t.Error("the existing keystore was touched")
	}
	_, err = Open(t.Context(), s.Path()+"-not", pass, options())
	wantErr(t, err, fs.ErrNotExist)
}

// Every single byte of the file matters, with and without the checksum mended.
func TestDamage(t *testing.T) {
	s := create(t)
	must[keys.Entry](t)(s.Generate(t.Context(), New{Name: "door", Kind: keys.Read}))
	must[keys.Entry](t)(s.AddPublic(t.Context(), New{Name: "issuer", Kind: keys.IssuerSigning}, bytes.Repeat([]byte{1}, 32)))
	good := read(t, s)
	try := func(b []byte) error { // what Open does, without the disk
		img, err := parse(b)
		if err != nil {
			return err
		}
		fk, err := img.header.unwrap(pass)
		if err != nil {
			return err
		}
		return fk.verify(img)
	}
	if err := try(good); err != nil {
		t.Fatal(err)
	}
	known := []error{ErrDamaged, ErrNotKeystore, ErrFormatVersion}
	is := func(err error, any ...error) bool {
		return slices.ContainsFunc(any, func(want error) bool { return errors.Is(err, want) })
	}
	for i := range good {
		for _, flip := range []byte{0x01, 0x20} {
			bad := slices.Clone(good)
			bad[i] ^= flip
			if err := try(bad); !is(err, known...) {
				t.Fatalf("byte %d (%q) flipped: %v", i, good[i], err)
			}
			if i >= bytes.LastIndexByte(good[:len(good)-1], '\n') {
				continue // the checksum itself, or the line feed before it
			}
			if err := try(mend(bad)); !is(err, append(known, ErrPassphrase, ErrCost)...) {
				t.Fatalf("byte %d (%q) flipped and checksum mended: %v", i, good[i], err)
			}
		}
	}
	for n := range good {
		if err := try(good[:n]); !is(err, known...) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	for _, more := range []string{"\n", " ", "{}\n", string(good)} {
		if err := try(append(slices.Clone(good), more...)); !is(err, known...) {
			t.Fatalf("with %.10q appended: %v", more, err)
		}
	}
}

// An attacker who can write the file, and knows the format, but not the
// passphrase.
func TestTampering(t *testing.T) {
	s := full(t)
	ctx := t.Context()
	older := strings.SplitAfter(string(read(t, s)), "\n")
	must[keys.Entry](t)(s.Retire(ctx, keys.Ref{Name: "issuer"}))
	must[keys.Entry](t)(s.AddPublic(ctx, New{Name: "z", Kind: keys.IssuerSigning}, bytes.Repeat([]byte{1}, 32)))
	// 0 header, 1 counter, 2 door 1, 3 door 2, 4 isd, 5 issuer, 6 tags, 7 z, 8 list, 9 mac, 10 sum
	now := strings.SplitAfter(string(read(t, s)), "\n")
	sealed := func(line string) string { return line[strings.Index(line, `"nonce"`):] }
	for name, change := range map[string]func(l []string) []string{
		"entry removed": func(l []string) []string {
			l[8] = strings.Replace(l[8], `"entries":7`, `"entries":6`, 1)
			return slices.Delete(l, 2, 3)
		},
		"last entry removed": func(l []string) []string {
			l[8] = strings.Replace(l[8], `"entries":7`, `"entries":6`, 1)
			return slices.Delete(l, 7, 8)
		},
		"entry from an older file": func(l []string) []string { l[5] = older[5]; return l },
		"retirement undone": func(l []string) []string {
			i := strings.Index(l[5], `,"retired"`)
			l[5] = l[5][:i] + "," + sealed(l[5])
			return l
		},
		"sealed keys swapped": func(l []string) []string {
			a, b := sealed(l[2]), sealed(l[3])
			l[2], l[3] = strings.Replace(l[2], a, b, 1), strings.Replace(l[3], b, a, 1)
			return l
		},
		"versions swapped": func(l []string) []string {
			l[2], l[3] = strings.Replace(l[3], `"version":2`, `"version":1`, 1), strings.Replace(l[2], `"version":1`, `"version":2`, 1)
			return l
		},
		"public key replaced": func(l []string) []string {
			mine := bytes.Repeat([]byte{2}, 32)
			l[7] = strings.Replace(l[7], base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32)), base64.StdEncoding.EncodeToString(mine), 1)
			l[7] = strings.Replace(l[7], "0101010101010101", "0202020202020202", 1)
			return l
		},
		"kind changed": func(l []string) []string { l[1] = strings.Replace(l[1], "counter-s", "issuer-s", 1); return l },
		"renamed":      func(l []string) []string { l[1] = strings.Replace(l[1], `"counter"`, `"countes"`, 1); return l },
		"generation changed": func(l []string) []string {
			l[8] = strings.Replace(l[8], `"generation":9`, `"generation":8`, 1)
			return l
		},
		"older list and MAC": func(l []string) []string { l[8], l[9] = older[7], older[8]; return l },
		"older MAC":          func(l []string) []string { l[9] = older[8]; return l },
	} {
		t.Run(name, func(t *testing.T) {
			lines := change(slices.Clone(now))
			b := mend([]byte(strings.Join(lines, "")))
			if bytes.Equal(b, read(t, s)) {
				t.Fatal("the test changed nothing")
			}
			if name != "older list and MAC" {
				// The attack must be one that only the secrets stop.
				if _, err := parse(b); err != nil {
					t.Fatalf("the test made a malformed file: %v", err)
				}
			}
			_, err := Open(ctx, put(t, b), pass, Options{})
			wantErr(t, err, ErrDamaged)
			if errors.Is(err, ErrPassphrase) {
				t.Errorf("also a wrong passphrase: %v", err)
			}
		})
	}
}

// The metadata is bound to the secret by the seal too, not only by the MAC
// over the list: here the MAC is right.
func TestSealBindsMetadata(t *testing.T) {
	s := full(t)
	for name, change := range map[string]func(a, b *entryLine){
		"version":     func(a, _ *entryLine) { a.Version = 9 },
		"name":        func(a, _ *entryLine) { a.Name = "doos" },
		"created":     func(a, _ *entryLine) { a.Created = "2020-01-01T00:00:00Z" },
		"retired":     func(a, _ *entryLine) { a.Retired = a.Created },
		"check value": func(a, _ *entryLine) { a.Check = "000000/000000" },
		"development": func(a, _ *entryLine) { a.Development = true },
		"swap": func(a, b *entryLine) {
			a.Nonce, b.Nonce = b.Nonce, a.Nonce
			a.Sealed, b.Sealed = b.Sealed, a.Sealed
		},
	} {
		t.Run(name, func(t *testing.T) {
			img := must[*image](t)(parse(read(t, s)))
			a, b := &img.entries[1], &img.entries[2]
			if a.Name != "door" || b.Name != "door" {
				t.Fatal("the test looks at other entries")
			}
			if secret, err := s.keys.open(a); err != nil || len(secret) != 32 {
				t.Fatalf("the unchanged entry does not open: %v", err)
			}
			change(a, b)
			_, err := s.keys.open(a)
			wantErr(t, err, ErrDamaged)
		})
	}
}

// The wrapped file key is bound to every field of the header.
func TestWrapBindsHeader(t *testing.T) {
	s := create(t)
	img := must[*image](t)(parse(read(t, s)))
	must[*fileKeys](t)(img.header.unwrap(pass))
	for name, change := range map[string]func(*headerLine){
		"format":  func(h *headerLine) { h.Format = "other" },
		"version": func(h *headerLine) { h.Version = 1 },
		"kdf":     func(h *headerLine) { h.KDF = "argon2i" },
	} {
		h := img.header
		change(&h)
		_, err := h.unwrap(pass)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s changed: %v, want %v", name, err, ErrDamaged)
		}
	}
	for name, change := range map[string]func(*headerLine){
		"time":    func(h *headerLine) { h.Time++ },
		"memory":  func(h *headerLine) { h.Memory++ },
		"threads": func(h *headerLine) { h.Threads++; h.Memory = 16 },
		"salt":    func(h *headerLine) { h.Salt = make([]byte, saltSize) },
		"check":   func(h *headerLine) { h.Check = make([]byte, checkSize) },
	} {
		h := img.header
		change(&h)
		_, err := h.unwrap(pass)
		if !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s changed: %v, want %v", name, err, ErrPassphrase)
		}
	}
}

// A hostile header must cost neither memory nor time.
func TestHostileCost(t *testing.T) {
	good := read(t, create(t))
	for _, c := range []Cost{
		{1, 1 << 31, 1}, {1, maxMemory + 1, 1}, {11, 8, 1}, {1<<32 - 1, 8, 1}, {0, 8, 1}, {1, 7, 1}, {1, 8, 0}, {1, 8, 2}, {1, 1 << 10, 17}, {1, 0, 1},
	} {
		bad := bytes.Replace(good, []byte(`"time":1,"memory_kib":8,"threads":1`),
			fmt.Appendf(nil, `"time":%d,"memory_kib":%d,"threads":%d`, c.Time, c.Memory, c.Threads), 1)
		_, err := Open(t.Context(), put(t, mend(bad)), pass, Options{})
		if !errors.Is(err, ErrCost) {
			t.Errorf("%+v: %v", c, err)
		}
		if _, err := Create(t.Context(), filepath.Join(t.TempDir(), "k"), pass, Options{Cost: c}); !errors.Is(err, ErrCost) {
			t.Errorf("Create with %+v: %v", c, err)
		}
	}
	if err := DefaultCost().validate(); err != nil {
		t.Error(err)
	}
	big := put(t, append(slices.Clone(good), make([]byte, maxFile)...))
	_, err := Open(t.Context(), big, pass, Options{})
	wantErr(t, err, ErrNotKeystore)
}

func TestOtherFiles(t *testing.T) {
	good := read(t, create(t))
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":         {nil, ErrNotKeystore},
		"text":          {[]byte("hello\n"), ErrNotKeystore},
		"age":           {[]byte("age-encryption.org/v1\n"), ErrNotKeystore},
		"a bundle":      {[]byte(`{"freearea":"key-bundle","version":1}` + "\n"), ErrNotKeystore},
		"later version": {mend(bytes.Replace(good, []byte(`"version":2`), []byte(`"version":3`), 1)), ErrFormatVersion},
		"other order":   {mend(bytes.Replace(good, []byte(`"time":1,"memory_kib":8`), []byte(`"memory_kib":8,"time":1`), 1)), ErrDamaged},
		"white space":   {mend(bytes.Replace(good, []byte(`"time":1`), []byte(`"time": 1`), 1)), ErrDamaged},
		"unknown field": {mend(bytes.Replace(good, []byte(`"time":1`), []byte(`"x":1,"time":1`), 1)), ErrDamaged},
		"field twice":   {mend(bytes.Replace(good, []byte(`"time":1`), []byte(`"time":1,"time":1`), 1)), ErrDamaged},
		"other case":    {mend(bytes.Replace(good, []byte(`"time"`), []byte(`"Time"`), 1)), ErrDamaged},
		"CR LF":         {mend(bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))), ErrDamaged},
	} {
		_, err := Open(t.Context(), put(t, tt.b), pass, Options{})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	_, err := Open(t.Context(), t.TempDir(), pass, Options{})
	if err == nil {
		t.Error("a directory was opened")
	}
}

func TestFileMode(t *testing.T) {
	if !hasModes {
		t.Skip("no file modes on " + runtime.GOOS)
	}
	s := full(t)
	mode := func() fs.FileMode { return must[fs.FileInfo](t)(os.Stat(s.Path())).Mode() }
	if mode() != 0o600 {
		t.Errorf("mode %v", mode())
	}
	for _, m := range []fs.FileMode{0o640, 0o604, 0o620, 0o644, 0o610} {
		if err := os.Chmod(s.Path(), m); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), s.Path(), pass, Options{})
		wantErr(t, err, ErrPermissions)
		_, err = s.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger})
		wantErr(t, err, ErrPermissions)
	}
	os.Chmod(s.Path(), 0o400)
	must[keys.Entry](t)(s.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger}))
}

func TestSymbolicLinkStays(t *testing.T) {
	s := full(t)
	link := filepath.Join(t.TempDir(), "link.keys")
	if err := os.Symlink(s.Path(), link); err != nil {
		t.Skip(err)
	}
	l := must[*Store](t)(Open(t.Context(), link, pass, options()))
	must[keys.Entry](t)(l.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger}))
	if info := must[fs.FileInfo](t)(os.Lstat(link)); info.Mode().Type() != fs.ModeSymlink {
		t.Error("the link was replaced")
	}
	if n := len(must[[]keys.Entry](t)(reopen(t, s).Entries(t.Context()))); n != 7 {
		t.Errorf("%d entries behind the link", n)
	}
}

// Whoever has the old file open keeps the old file, whole.
func TestReplacedNotOverwritten(t *testing.T) {
	s := full(t)
	before := read(t, s)
	old := must[*os.File](t)(os.Open(s.Path()))
	defer old.Close()
	must[keys.Entry](t)(s.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger}))
	held := make([]byte, len(before)+1)
	n, _ := old.ReadAt(held, 0)
	if !bytes.Equal(held[:n], before) {
		t.Error("the keystore was written in place")
	}
	if bytes.Equal(read(t, s), before) {
		t.Error("the keystore was not written")
	}
}

// A crash at any step leaves the old file or the new one, and the next change
// goes through.
func TestCrash(t *testing.T) {
	crash := errors.New("crash")
	var steps []string
	for k := 0; ; k++ {
		s := full(t)
		before := read(t, s)
		n := 0
		steps = steps[:0]
		s.step = func(name string) error {
			steps = append(steps, name)
			// What is on the disk at this moment is what a crash would leave.
			if _, err := Open(t.Context(), s.path, pass, Options{}); err != nil {
				t.Errorf("before %s the file does not open: %v", name, err)
			}
			if n++; n > k {
				return crash
			}
			return nil
		}
		_, err := s.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger})
		if err == nil {
			break
		}
		wantErr(t, err, crash)
		last := steps[len(steps)-1]
		if same := bytes.Equal(read(t, s), before); same != (last != "sync directory") {
			t.Errorf("stopped before %s: file unchanged %v", last, same)
		}
		for _, f := range must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(s.Path()))) {
			if strings.Contains(f.Name(), ".tmp-") {
				t.Errorf("stopped before %s: %s is left", last, f.Name())
			}
		}
		s.step = nil
		must[keys.Entry](t)(s.Generate(t.Context(), New{Name: "y", Kind: keys.Ledger}))
		must[[16]byte](t)(reopen(t, s).Digest(t.Context(), keys.Ref{Name: "y"}, nil))
	}
	if want := []string{"create", "write", "sync", "rename", "sync directory"}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
}

func TestTwoStores(t *testing.T) {
	a := create(t)
	b := reopen(t, a)
	var wg sync.WaitGroup
	for i, s := range []*Store{a, b, a, b} {
		wg.Go(func() {
			for j := range 5 {
				if _, err := s.Generate(t.Context(), New{Name: fmt.Sprintf("key-%d-%d", i, j), Kind: keys.Ledger}); err != nil {
					t.Error(err)
				}
				s.Entries(t.Context())
			}
		})
	}
	wg.Wait()
	if n := len(must[[]keys.Entry](t)(reopen(t, a).Entries(t.Context()))); n != 20 {
		t.Errorf("%d of 20 entries are there", n)
	}
}

// The test binary again, as a second process that adds keys.
func TestMain(m *testing.M) {
	if path := os.Getenv("KEYSTORE_TEST_ADD_TO"); path != "" {
		s, err := Open(context.Background(), path, pass, Options{})
		for i := 0; err == nil && i < 8; i++ {
			_, err = s.Generate(context.Background(), New{Name: fmt.Sprintf("%s-%d", os.Args[1], i), Kind: keys.Ledger})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestProcesses(t *testing.T) {
	s := create(t)
	var running []*exec.Cmd
	for i := range 3 {
		cmd := exec.Command(os.Args[0], fmt.Sprintf("process%d", i))
		cmd.Env = append(os.Environ(), "KEYSTORE_TEST_ADD_TO="+s.Path())
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if n := len(must[[]keys.Entry](t)(reopen(t, s).Entries(t.Context()))); n != 24 {
		t.Errorf("%d of 24 entries are there", n)
	}
}

func TestLockWaitEnds(t *testing.T) {
	s := create(t)
	unlock := must[func()](t)(lockFile(t.Context(), s.Path()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Generate(ctx, New{Name: "x", Kind: keys.Ledger})
	wantErr(t, err, context.Canceled)
	unlock()
	must[keys.Entry](t)(s.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger}))
}

func TestChangePassphrase(t *testing.T) {
	s := full(t)
	ctx := t.Context()
	other := reopen(t, s)
	old := read(t, s)
	oldSet := must[keys.Set](t)(s.SecurityDomainKeys(ctx, keys.Ref{Name: "isd"}, keys.MethodNone, nil))
	wantErr(t, s.ChangePassphrase(ctx, nil, Cost{}), ErrEmptyPassphrase)
	if err := s.ChangePassphrase(ctx, []byte("battery staple"), Cost{Time: 2, Memory: 16, Threads: 2}); err != nil {
		t.Fatal(err)
	}
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "x", Kind: keys.Ledger}))

	_, err := Open(ctx, s.Path(), pass, Options{})
	wantErr(t, err, ErrPassphrase)
	n := must[*Store](t)(Open(ctx, s.Path(), []byte("battery staple"), options()))
	if diff := cmp.Diff(oldSet, must[keys.Set](t)(n.SecurityDomainKeys(ctx, keys.Ref{Name: "isd"}, keys.MethodNone, nil))); diff != "" {
		t.Error(diff)
	}
	if got := must[Info](t)(Inspect(ctx, s.Path())).Cost; got != (Cost{2, 16, 2}) {
		t.Errorf("cost %+v", got)
	}
	if err := n.ChangePassphrase(ctx, []byte("third"), Cost{}); err != nil {
		t.Fatal(err)
	}
	if got := must[Info](t)(Inspect(ctx, s.Path())).Cost; got != (Cost{2, 16, 2}) {
		t.Errorf("cost %+v after a change that keeps it", got)
	}

	_, err = other.Generate(ctx, New{Name: "y", Kind: keys.Ledger})
	wantErr(t, err, ErrPassphraseChanged)
	wantErr(t, other.Reload(ctx), ErrPassphraseChanged)

	// The old header, and so the old passphrase, must not open the new entries.
	oldLines, newLines := bytes.SplitAfter(old, []byte("\n")), bytes.SplitAfter(read(t, s), []byte("\n"))
	newLines[0] = oldLines[0]
	_, err = Open(ctx, put(t, mend(bytes.Join(newLines, nil))), pass, Options{})
	wantErr(t, err, ErrDamaged)
	img := must[*image](t)(parse(read(t, s)))
	oldKeys := must[*fileKeys](t)(must[*image](t)(parse(old)).header.unwrap(pass))
	for i := range img.entries {
		if _, err := oldKeys.open(&img.entries[i]); err == nil {
			t.Errorf("the old file key opens %s", img.entries[i].Name)
		}
	}
}

func TestRolledBack(t *testing.T) {
	s := full(t)
	old := read(t, s)
	must[keys.Entry](t)(s.Retire(t.Context(), keys.Ref{Name: "isd"}))
	if err := os.WriteFile(s.Path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.Reload(t.Context()), ErrRolledBack)
	_, err := s.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger})
	wantErr(t, err, ErrRolledBack)
}

func TestClosed(t *testing.T) {
	s := full(t)
	fk := s.keys
	s.Close()
	if !bytes.Equal(fk.entryKey, make([]byte, 32)) || !bytes.Equal(fk.listKey, make([]byte, 32)) {
		t.Error("Close left the file key in memory")
	}
	ctx := t.Context()
	_, err := s.Entries(ctx)
	wantErr(t, err, ErrClosed)
	_, err = s.Digest(ctx, keys.Ref{Name: "tags"}, nil)
	wantErr(t, err, ErrClosed)
	_, err = s.PublicKey(ctx, keys.Ref{Name: "issuer"})
	wantErr(t, err, ErrClosed)
	_, err = s.Generate(ctx, New{Name: "x", Kind: keys.Ledger})
	wantErr(t, err, ErrClosed)
	wantErr(t, s.Reload(ctx), ErrClosed)
	wantErr(t, s.ChangePassphrase(ctx, pass, Cost{}), ErrClosed)
	wantErr(t, s.ChangePassphrase(ctx, pass, cheap), ErrClosed)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// No secret may stand in the file, in whatever spelling.
func TestSecretsSealed(t *testing.T) {
	s := full(t)
	file := string(read(t, s))
	for i := range s.img.entries {
		e := &s.img.entries[i]
		secret := must[[]byte](t)(s.keys.open(e))
		for n := 0; n+8 <= len(secret); n += 8 {
			part := secret[n : n+8]
			for _, form := range []string{string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part))} {
				if strings.Contains(file, form) {
					t.Errorf("part of %s stands in the file", e.Name)
				}
			}
		}
		if strings.Contains(file, base64.StdEncoding.EncodeToString(secret)[:16]) {
			t.Errorf("%s stands in the file", e.Name)
		}
	}
	// The same key twice is not seen to be the same.
	a := must[entryLine](t)(s.keys.seal(s.img.entries[1].metadata, make([]byte, 32), s.rand))
	b := must[entryLine](t)(s.keys.seal(s.img.entries[1].metadata, make([]byte, 32), s.rand))
	if bytes.Equal(a.Sealed, b.Sealed) {
		t.Error("two seals of one key are the same")
	}
}

// With time and randomness injected, two runs write the same file: there is
// no other source of either.
func TestInjected(t *testing.T) {
	var files [2][]byte
	for i := range files {
		o := options()
		o.Rand = rand.NewChaCha8([32]byte{1})
		s := must[*Store](t)(Create(t.Context(), filepath.Join(t.TempDir(), "k"), pass, o))
		for _, kind := range keys.Kinds() {
			must[keys.Entry](t)(s.Generate(t.Context(), New{Name: string(kind), Kind: kind}))
		}
		files[i] = read(t, s)
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("two runs with the same time and randomness differ")
	}
	o := options()
	o.Rand = bytes.NewReader(make([]byte, 100))
	s := must[*Store](t)(Create(t.Context(), filepath.Join(t.TempDir(), "k"), pass, o))
	before := read(t, s)
	if e, err := s.Generate(t.Context(), New{Name: "x", Kind: keys.SecurityDomain}); err == nil {
		t.Errorf("%+v was made of too little randomness", e)
	}
	if !bytes.Equal(before, read(t, s)) {
		t.Error("the file was changed")
	}
}

func TestVersionsEnd(t *testing.T) {
	s := create(t)
	must[keys.Entry](t)(s.Generate(t.Context(), New{Name: "k", Kind: keys.Ledger, Version: 127}))
	if e, err := s.Generate(t.Context(), New{Name: "k", Kind: keys.Ledger}); err == nil {
		t.Errorf("version %d after the last", e.Version)
	}
	must[keys.Entry](t)(s.Generate(t.Context(), New{Name: "k", Kind: keys.Ledger, Version: 5}))
}

// The file in testdata was written by an independent implementation of
// docs/keys.md in Python (testdata/keystore.py).
func TestIndependentFile(t *testing.T) {
	b := must[[]byte](t)(os.ReadFile("testdata/python.keys"))
	s := must[*Store](t)(Open(t.Context(), put(t, b), pass, options()))
	ctx := t.Context()
	var got []string
	for _, e := range must[[]keys.Entry](t)(s.Entries(ctx)) {
		got = append(got, fmt.Sprintf("%s/%d %s %s public=%v development=%v retired=%v", e.Name, e.Version, e.Kind, e.Algorithm, e.Public, e.Development, !e.Retired.IsZero()))
	}
	want := []string{
		"door/1 read aes-128 public=false development=true retired=false",
		"isd/48 security-domain aes-256 public=false development=false retired=false",
		"issuer/1 issuer-signing ed25519 public=false development=false retired=true",
		"issuer/2 issuer-signing ed25519 public=true development=false retired=false",
		"tags/1 ledger aes-128 public=false development=false retired=false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// The sets' check values were computed there from the keys.
	set := must[keys.Set](t)(s.SecurityDomainKeys(ctx, keys.Ref{Name: "isd"}, keys.MethodNone, nil))
	if set.Check() != "AE9506/6D38C0/583F4E" || set.Version != 48 {
		t.Errorf("isd is %v", set)
	}
	sum := must[[16]byte](t)(s.Digest(ctx, keys.Ref{Name: "tags"}, nil))
	if sum == ([16]byte{}) {
		t.Error("no digest")
	}
	// RFC 8032 has another seed; 00…1F and its public key are those of the file.
	pub := must[ed25519.PublicKey](t)(s.PublicKey(ctx, keys.Ref{Name: "issuer", Version: 2}))
	must[keys.Entry](t)(s.Reinstate(ctx, keys.Ref{Name: "issuer", Version: 1}))
	sig := must[[]byte](t)(s.Sign(ctx, keys.Ref{Name: "issuer", Version: 1}, keys.IssuerSigning, []byte("m")))
	if !ed25519.Verify(pub, []byte("m"), sig) {
		t.Error("the signature does not verify with the independent public key")
	}
	img := must[*image](t)(parse(b))
	if again := must[[]byte](t)(s.keys.encode(img)); !bytes.Equal(again, b) {
		t.Error("the file does not encode to the same bytes")
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/python.keys")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	lines := bytes.SplitAfter(b, []byte("\n"))
	f.Add(bytes.Join(lines[:len(lines)-2], nil)) // to be changed under a right checksum
	f.Add(appendSum(bytes.Join(slices.Concat(lines[:1], lines[6:8]), nil)))
	f.Add(appendSum([]byte(`{"freearea":"keystore","version":1}` + "\n")))
	fk := newFileKeys(make([]byte, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Fuzzing does not find checksums, so it gets a right one.
		for _, b := range [][]byte{b, appendSum(slices.Clone(b))} {
			img, err := parse(b)
			if err != nil {
				if img != nil {
					t.Fatal("an image beside an error")
				}
				continue
			}
			mac, covered := img.mac, img.covered
			again, err := fk.encode(img)
			if err != nil {
				t.Fatal(err)
			}
			// All but the MAC, which is of another key, and the checksum.
			if !bytes.Equal(img.covered, covered) || len(again) != len(b) || len(mac) != len(img.mac) {
				t.Fatalf("accepted\n%s\nencoded\n%s", b, again)
			}
		}
	})
}

// Keys for tokens and receipts: what comes out signs what its public half
// verifies, and a bundle carries it from keystore to keystore.
func TestSchemeKeys(t *testing.T) {
	ctx := t.Context()
	s := create(t)
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "aes", Kind: keys.Token, Version: 112}))
	e := must[keys.Entry](t)(s.Generate(ctx, New{Name: "rsa", Kind: keys.Token, Algorithm: keys.RSA2048}))
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "receipt", Kind: keys.Receipt, Algorithm: keys.AES256}))
	s = reopen(t, s)
	a := must[keys.SchemeKey](t)(s.SchemeKey(ctx, keys.Ref{Name: "aes"}, keys.Token))
	if a.AES.Len() != 16 || a.Private != nil {
		t.Errorf("AES key %v", a)
	}
	r := must[keys.SchemeKey](t)(s.SchemeKey(ctx, keys.Ref{Name: "rsa"}, keys.Token))
	digest := make([]byte, 32)
	signature := must[[]byte](t)(rsa.SignPSS(crand.Reader, r.Private, crypto.SHA256, digest, nil))
	if r.Public.N.BitLen() != 2048 || !strings.HasSuffix(r.String(), e.Check) || len(e.Check) != 16 {
		t.Errorf("RSA key %v, check value %s", r, e.Check)
	}
	_, err := s.SchemeKey(ctx, keys.Ref{Name: "receipt"}, keys.Token)
	wantErr(t, err, keys.ErrWrongKind)
	_, err = s.SchemeKey(ctx, keys.Ref{Name: "aes"}, keys.Ledger)
	wantErr(t, err, keys.ErrWrongKind)

	var public, all bytes.Buffer
	must[[]keys.Entry](t)(s.ExportPublic(ctx, &public, []keys.Ref{{Name: "rsa"}}))
	must[[]keys.Entry](t)(s.ExportPlain(ctx, &all, nil))
	_, err = s.ExportPublic(ctx, io.Discard, []keys.Ref{{Name: "aes"}})
	wantErr(t, err, keys.ErrWrongKind)
	other := create(t)
	must[[]keys.Entry](t)(other.ImportPlain(ctx, &public))
	half := must[keys.SchemeKey](t)(other.SchemeKey(ctx, keys.Ref{Name: "rsa"}, keys.Token))
	if half.Private != nil {
		t.Error("the public half brings a private one")
	}
	if err := rsa.VerifyPSS(half.Public, crypto.SHA256, digest, signature, nil); err != nil {
		t.Error(err)
	}
	third := create(t)
	must[[]keys.Entry](t)(third.ImportPlain(ctx, bytes.NewReader(all.Bytes())))
	if k := must[keys.SchemeKey](t)(third.SchemeKey(ctx, keys.Ref{Name: "rsa"}, keys.Token)); !k.Private.Equal(r.Private) {
		t.Error("another key came out of the bundle")
	}
}

// A keystore of version 1, from before there were such keys, says so, and takes
// them once its passphrase was changed.
func TestFirstVersion(t *testing.T) {
	ctx := t.Context()
	data := must[[]byte](t)(os.ReadFile("testdata/python.keys"))
	s := must[*Store](t)(Open(ctx, put(t, data), pass, options()))
	t.Cleanup(func() { s.Close() })
	_, err := s.Generate(ctx, New{Name: "t", Kind: keys.Token})
	wantErr(t, err, ErrOldFormat)
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "l", Kind: keys.Ledger}))
	if v := must[*image](t)(parse(read(t, s))).header.Version; v != 1 {
		t.Errorf("version %d", v)
	}
	if err := s.ChangePassphrase(ctx, pass, Cost{}); err != nil {
		t.Fatal(err)
	}
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "t", Kind: keys.Token}))
	if v := must[*image](t)(parse(read(t, s))).header.Version; v != 2 {
		t.Errorf("version %d", v)
	}
}

// What Masters lets out is what was put in, of the kinds that have components.
func TestMasters(t *testing.T) {
	ctx := t.Context()
	s := create(t)
	in := keys.Set{}
	for i, k := range []*keys.Key{&in.ENC, &in.MAC} {
		*k = must[keys.Key](t)(keys.NewKey(bytes.Repeat([]byte{byte(i + 1)}, 16)))
	}
	must[keys.Entry](t)(s.AddSet(ctx, New{Name: "read", Kind: keys.Read}, in))
	must[keys.Entry](t)(s.AddLedger(ctx, New{Name: "ledger", Kind: keys.Ledger}, in.MAC))
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "issuer", Kind: keys.IssuerSigning}))
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "token", Kind: keys.Token}))
	must[keys.Entry](t)(s.AddDevelopment(ctx, New{Name: "practice", Kind: keys.Read}))

	e, out, err := s.Masters(ctx, keys.Ref{Name: "read"})
	if err != nil || e.Name != "read" || e.Check != in.Check() || !out.ENC.Equal(in.ENC) || !out.MAC.Equal(in.MAC) || !out.DEK.IsZero() {
		t.Errorf("%+v, %v, error %v", e, out, err)
	}
	out.Erase()
	if _, out, err = s.Masters(ctx, keys.Ref{Name: "ledger"}); err != nil || !out.ENC.Equal(in.MAC) || len(out.Keys()) != 1 {
		t.Errorf("%v, error %v", out, err)
	}
	for name, want := range map[string]error{"issuer": keys.ErrWrongKind, "token": keys.ErrWrongKind, "practice": keys.ErrDevelopmentKey, "none": keys.ErrNotFound} {
		_, out, err := s.Masters(ctx, keys.Ref{Name: name})
		if !errors.Is(err, want) || len(out.Keys()) != 0 {
			t.Errorf("%s: %v, error %v", name, out, err)
		}
	}
	// A retired one is still on cards: it is kept on sheets, too.
	must[keys.Entry](t)(s.Retire(ctx, keys.Ref{Name: "read"}))
	if _, _, err := s.Masters(ctx, keys.Ref{Name: "read"}); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if _, out, err := s.Masters(ctx, keys.Ref{Name: "read", Version: 1}); err != nil || !out.ENC.Equal(in.ENC) {
		t.Errorf("%v, error %v", out, err)
	}
	s.Close()
	if _, _, err := s.Masters(ctx, keys.Ref{Name: "ledger"}); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
}
