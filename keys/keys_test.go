package keys_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t *testing.T, b []byte) keys.Key {
	t.Helper()
	k, err := keys.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// filled is a key set whose bytes are easily recognised in any base.
func filled(t *testing.T, size int) keys.Set { return filledWith(t, 0xB7, size) }

func filledWith(t *testing.T, b byte, size int) keys.Set {
	t.Helper()
	var s keys.Set
	s.Version = 1
	for _, k := range []*keys.Key{&s.ENC, &s.MAC, &s.DEK} {
		*k = newKey(t, bytes.Repeat([]byte{b}, size))
	}
	return s
}

type holder struct {
	Set keys.Set
	Key keys.Key
	// fmt asks no method of what stands in an unexported field.
	set keys.Set
	key keys.Key
}

var verbs = []string{"%v", "%+v", "%#v", "%x", "%X", "% x", "%#x", "%s", "%q", "%d", "%o", "%b", "%c", "%U", "%e", "%t",
	"%08d", "%w"}

func TestNothingPrintsKeys(t *testing.T) {
	// One that is no text, one that is, since marshallers treat them differently.
	for _, b := range []byte{0xB7, 'Z'} {
		set := filledWith(t, b, 16)
		h := holder{set, set.ENC, set, set.ENC}
		values := map[string]any{
			"key": set.ENC, "pointer to key": &set.ENC, "set": set, "pointer to set": &set,
			"holder": h, "pointer to holder": &h, "slice": []keys.Key{set.ENC}, "map": map[string]keys.Set{"s": set},
			"interface": []any{set, set.ENC, h}, "pointer in struct": struct{ p *keys.Set }{&set},
		}
		// Two bytes in a row, in every way that fmt and the marshallers spell
		// bytes, and what base64 makes of three.
		leaks := []string{string([]byte{b, b}), base64.StdEncoding.EncodeToString([]byte{b, b, b}), "\ufffd\ufffd", `\ufffd`}
		for _, f := range []string{"%d %[1]d", "%d,%[1]d", "%x%[1]x", "%X%[1]X", "%x %[1]x", "%#x", "%#X", "%o %[1]o", "%b %[1]b", "%c%[1]c", `\x%x`, `\u%04x`, "%U"} {
			leaks = append(leaks, fmt.Sprintf(f, b))
		}
		check := func(how, out string) {
			t.Helper()
			for _, leak := range leaks {
				if strings.Contains(out, leak) {
					t.Errorf("%s shows the key (%q): %q", how, leak, out)
				}
			}
		}
		for name, v := range values {
			for _, verb := range verbs {
				check(name+" "+verb, fmt.Sprintf(verb, v))
			}
			check(name+" Errorf", fmt.Errorf("key: %v", v).Error())
			if b, err := json.Marshal(v); err == nil {
				check(name+" json", string(b))
			}
			if b, err := xml.Marshal(v); err == nil {
				check(name+" xml", string(b))
			}
			var b bytes.Buffer
			slog.New(slog.NewTextHandler(&b, nil)).Info("m", "v", v)
			slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "v", v)
			check(name+" slog", b.String())
		}
	}
}

// What is shown instead is useful, and the same for every verb: no addresses.
func TestPrintsCheckValues(t *testing.T) {
	set := filled(t, 16)
	read := filled(t, 32)
	read.DEK = keys.Key{}
	key := "AES-128 KCV " + hex24(set.ENC)
	for _, tt := range []struct {
		v    fmt.Stringer
		want string
	}{
		{set.ENC, key},
		{keys.Key{}, "no key"},
		{set, "key set version 01: ENC " + key + ", MAC " + key + ", DEK " + key},
		{read, "key set version 01: ENC AES-256 KCV " + hex24(read.ENC) + ", MAC AES-256 KCV " + hex24(read.MAC)},
	} {
		if got := tt.v.String(); got != tt.want {
			t.Errorf("String %q, want %q", got, tt.want)
		}
		for _, verb := range verbs {
			want := tt.want
			if verb == "%#v" {
				want = tt.v.(fmt.GoStringer).GoString()
			}
			if got := fmt.Sprintf(verb, tt.v); got != want && verb != "%w" {
				t.Errorf("%s prints %q, want %q", verb, got, want)
			}
		}
		if b, err := json.Marshal(tt.v); err != nil || string(b) != `"`+tt.want+`"` {
			t.Errorf("JSON %s (%v), want %q", b, err, tt.want)
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "v", tt.v)
		if !strings.Contains(b.String(), `v="`+tt.want+`"`) {
			t.Errorf("logged as %s, want %q", b.String(), tt.want)
		}
	}
}

func hex24(k keys.Key) string {
	v := k.CheckValue()
	return strings.ToUpper(hex.EncodeToString(v[:]))
}

func TestKey(t *testing.T) {
	for _, n := range []int{0, 1, 8, 15, 17, 31, 33, 64} {
		if _, err := keys.NewKey(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was accepted", n)
		}
	}
	in := bytes.Repeat([]byte{7}, 24)
	k := newKey(t, in)
	in[0] = 8
	if k.Bytes()[0] != 7 {
		t.Error("the key is not a copy")
	}
	if !k.Equal(newKey(t, bytes.Repeat([]byte{7}, 24))) || k.Equal(newKey(t, bytes.Repeat([]byte{7}, 16))) || k.Equal(keys.Key{}) {
		t.Error("Equal is wrong")
	}
	held, other := k.Bytes(), k
	k.Erase()
	if !bytes.Equal(held, make([]byte, 24)) {
		t.Error("Erase left the bytes")
	}
	if !k.IsZero() || !other.IsZero() || len(other.Bytes()) != 0 {
		t.Error("an erased key can still be computed with")
	}
	keys.Key{}.Erase()
}

func TestGenerateKey(t *testing.T) {
	k, err := keys.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{3}, 32)), 32)
	if err != nil || !k.Equal(newKey(t, bytes.Repeat([]byte{3}, 32))) {
		t.Errorf("GenerateKey = %v, %v", k, err)
	}
	if _, err := keys.GenerateKey(bytes.NewReader(make([]byte, 31)), 32); err == nil {
		t.Error("a key was made of too little randomness")
	}
}

type diversifyVectors struct {
	Source         string
	DevelopmentKCV string `json:"development_kcv"`
	Vectors        []struct {
		Kind          keys.Kind
		Version       byte
		AID, Data     string
		ENC, MAC, DEK struct{ Master, Key, KCV string }
	}
}

func loadVectors(t *testing.T) diversifyVectors {
	t.Helper()
	b, err := os.ReadFile("testdata/diversify.json")
	if err != nil {
		t.Fatal(err)
	}
	var v diversifyVectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Vectors) < 6 {
		t.Fatalf("%d vectors", len(v.Vectors))
	}
	return v
}

// The vectors come from pyca/cryptography; see testdata/diversify.py.
func TestDiversifyVectors(t *testing.T) {
	for i, v := range loadVectors(t).Vectors {
		t.Run(fmt.Sprintf("%d %s", i, v.Kind), func(t *testing.T) {
			master := keys.Set{Version: v.Version, ENC: newKey(t, unhex(t, v.ENC.Master)), MAC: newKey(t, unhex(t, v.MAC.Master))}
			want := keys.Set{Version: v.Version, ENC: newKey(t, unhex(t, v.ENC.Key)), MAC: newKey(t, unhex(t, v.MAC.Key))}
			check := v.ENC.KCV + "/" + v.MAC.KCV
			if v.DEK.Master != "" {
				master.DEK, want.DEK = newKey(t, unhex(t, v.DEK.Master)), newKey(t, unhex(t, v.DEK.Key))
				check += "/" + v.DEK.KCV
			}
			var aid iso7816.AID
			if v.AID != "" {
				aid = iso7816.MustAID(v.AID)
			}
			got, err := keys.Diversify(v.Kind, keys.MethodSP800108, master, aid, unhex(t, v.Data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if got.Check() != check {
				t.Errorf("check values %s, want %s", got.Check(), check)
			}
		})
	}
}

// Every part of the context must matter.
func TestDiversifySeparates(t *testing.T) {
	master := keys.Set{Version: 1}
	same := newKey(t, bytes.Repeat([]byte{1}, 16))
	master.ENC, master.MAC = same, same
	aid, data := iso7816.MustAID("F000000001"), []byte("0123456789")
	derive := func(kind keys.Kind, m keys.Set, aid iso7816.AID, data []byte) keys.Set {
		t.Helper()
		s, err := keys.Diversify(kind, keys.MethodSP800108, m, aid, data)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	version2, sd := master, master
	version2.Version = 2
	sd.DEK = same
	seen := map[string]string{}
	for name, s := range map[string]keys.Set{
		"base":            derive(keys.Read, master, aid, data),
		"version":         derive(keys.Read, version2, aid, data),
		"AID":             derive(keys.Read, master, iso7816.MustAID("F000000002"), data),
		"longer AID":      derive(keys.Read, master, iso7816.MustAID("F00000000130"), data),
		"data":            derive(keys.Read, master, aid, []byte("0123456780")),
		"security domain": derive(keys.SecurityDomain, sd, iso7816.AID{}, data),
	} {
		for purpose, k := range map[string]keys.Key{"ENC": s.ENC, "MAC": s.MAC, "DEK": s.DEK} {
			if k.IsZero() {
				continue
			}
			name := name + " " + purpose
			if other, ok := seen[string(k.Bytes())]; ok {
				t.Errorf("%s and %s have the same key", name, other)
			}
			seen[string(k.Bytes())] = name
		}
	}
	if len(seen) != 13 {
		t.Errorf("%d keys derived, want 13", len(seen))
	}
}

func TestDiversifyRefuses(t *testing.T) {
	read := filled(t, 16)
	read.DEK = keys.Key{}
	sd := filled(t, 16)
	aid, data := iso7816.MustAID("F000000001"), []byte("0123456789")
	version := func(s keys.Set, v byte) keys.Set { s.Version = v; return s }
	mixed := filled(t, 16)
	mixed.MAC = newKey(t, make([]byte, 32))
	read24 := filled(t, 24)
	read24.DEK = keys.Key{}
	for _, tt := range []struct {
		name   string
		kind   keys.Kind
		method keys.Method
		set    keys.Set
		aid    iso7816.AID
		data   []byte
		want   error // nil: any
	}{
		{"none for reading", keys.Read, keys.MethodNone, read, aid, data, keys.ErrDiversifier},
		{"unknown method", keys.Read, "emv", read, aid, data, keys.ErrDiversifier},
		{"empty method", keys.SecurityDomain, "", sd, iso7816.AID{}, data, keys.ErrDiversifier},
		{"upper case", keys.SecurityDomain, "NONE", sd, iso7816.AID{}, data, keys.ErrDiversifier},
		{"ledger key", keys.Ledger, keys.MethodSP800108, read, aid, data, keys.ErrDiversifier},
		{"no AID", keys.Read, keys.MethodSP800108, read, iso7816.AID{}, data, nil},
		{"AID of a security domain", keys.SecurityDomain, keys.MethodSP800108, sd, aid, data, nil},
		{"no data", keys.Read, keys.MethodSP800108, read, aid, nil, keys.ErrDiversificationData},
		{"short data", keys.Read, keys.MethodSP800108, read, aid, data[:9], keys.ErrDiversificationData},
		{"long data", keys.Read, keys.MethodSP800108, read, aid, append(data, 1), keys.ErrDiversificationData},
		{"data of zeros", keys.SecurityDomain, keys.MethodSP800108, sd, iso7816.AID{}, make([]byte, 10), keys.ErrDiversificationData},
		{"version 0", keys.Read, keys.MethodSP800108, version(read, 0), aid, data, nil},
		{"version 128", keys.Read, keys.MethodSP800108, version(read, 128), aid, data, nil},
		{"DEK for reading", keys.Read, keys.MethodSP800108, sd, aid, data, nil},
		{"no DEK", keys.SecurityDomain, keys.MethodNone, read, iso7816.AID{}, data, nil},
		{"no keys", keys.Read, keys.MethodSP800108, keys.Set{Version: 1}, aid, data, nil},
		{"sizes mixed", keys.SecurityDomain, keys.MethodNone, mixed, iso7816.AID{}, data, nil},
		{"24 bytes for reading", keys.Read, keys.MethodSP800108, read24, aid, data, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := keys.Diversify(tt.kind, tt.method, tt.set, tt.aid, tt.data)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if !got.ENC.IsZero() || !got.MAC.IsZero() || !got.DEK.IsZero() {
				t.Error("keys beside an error")
			}
		})
	}
}

func TestDiversifyNoneCopies(t *testing.T) {
	master := filled(t, 32)
	got, err := keys.Diversify(keys.SecurityDomain, keys.MethodNone, master, iso7816.AID{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(master, got); diff != "" {
		t.Error(diff)
	}
	got.Erase()
	if master.ENC.IsZero() || master.DEK.IsZero() {
		t.Error("erasing the card's keys erased the stored ones")
	}
}

func TestDevelopmentSet(t *testing.T) {
	s := keys.DevelopmentSet()
	want := unhex(t, "404142434445464748494A4B4C4D4E4F")
	for _, k := range []keys.Key{s.ENC, s.MAC, s.DEK} {
		if !bytes.Equal(k.Bytes(), want) {
			t.Errorf("development key %v", k)
		}
	}
	if kcv := loadVectors(t).DevelopmentKCV; hex24(s.ENC) != kcv {
		t.Errorf("KCV %s, want %s", hex24(s.ENC), kcv)
	}
	if !s.IsDevelopment() || filled(t, 16).IsDevelopment() {
		t.Error("IsDevelopment is wrong")
	}
	longer := filled(t, 32)
	longer.DEK = newKey(t, append(want, want...))
	if !longer.IsDevelopment() {
		t.Error("a longer development key was not recognised")
	}
	s.Erase()
	if again := keys.DevelopmentSet(); again.ENC.IsZero() || !again.IsDevelopment() {
		t.Error("erasing one development set damaged the next")
	}
}

func TestKindsHaveAlgorithms(t *testing.T) {
	for _, k := range keys.Kinds() {
		if len(k.Algorithms()) == 0 {
			t.Errorf("kind %s has no algorithm", k)
		}
	}
	if len(keys.Kind("other").Algorithms()) != 0 {
		t.Error("an unknown kind has algorithms")
	}
}
