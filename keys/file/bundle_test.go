package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/keys"
)

func empty(t *testing.T) *Store {
	t.Helper()
	return must[*Store](t)(Create(t.Context(), filepath.Join(t.TempDir(), "other.keys"), []byte("other"), options()))
}

func list(t *testing.T, s *Store) []keys.Entry {
	t.Helper()
	return must[[]keys.Entry](t)(s.Entries(t.Context()))
}

func TestExportImport(t *testing.T) {
	from := full(t)
	ctx := t.Context()
	must[keys.Entry](t)(from.Retire(ctx, keys.Ref{Name: "door", Version: 1}))
	must[keys.Entry](t)(from.AddPublic(ctx, New{Name: "other", Kind: keys.IssuerSigning}, bytes.Repeat([]byte{1}, 32)))
	must[keys.Entry](t)(from.AddDevelopment(ctx, New{Name: "test-isd", Kind: keys.SecurityDomain}))
	id := must[*age.X25519Identity](t)(age.GenerateX25519Identity())
	stranger := must[*age.X25519Identity](t)(age.GenerateX25519Identity())

	var wrapped bytes.Buffer
	exported := must[[]keys.Entry](t)(from.Export(ctx, &wrapped, nil, id.Recipient()))
	if diff := cmp.Diff(list(t, from), exported); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(wrapped.String(), "door") {
		t.Error("the wrapped bundle is in the clear")
	}

	to := empty(t)
	_, err := to.Import(ctx, bytes.NewReader(wrapped.Bytes()), stranger)
	if none := new(age.NoIdentityMatchError); !errors.As(err, &none) {
		t.Errorf("with another identity: %v", err)
	}
	for _, at := range []int{20, wrapped.Len() / 2, wrapped.Len() - 1} {
		bad := slices.Clone(wrapped.Bytes())
		bad[at] ^= 1
		if _, err := to.Import(ctx, bytes.NewReader(bad), id); err == nil {
			t.Errorf("a bundle changed at %d was imported", at)
		}
	}
	if n := len(list(t, to)); n != 0 {
		t.Fatalf("%d entries after refused imports", n)
	}

	var armoured bytes.Buffer
	w := armor.NewWriter(&armoured)
	must[[]keys.Entry](t)(from.Export(ctx, w, []keys.Ref{{Name: "isd"}}, id.Recipient()))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := must[[]keys.Entry](t)(to.Import(ctx, &armoured, id)); len(got) != 1 || got[0].Name != "isd" {
		t.Errorf("imported %+v", got)
	}
	got := must[[]keys.Entry](t)(to.Import(ctx, bytes.NewReader(wrapped.Bytes()), stranger, id))
	if len(got) != len(exported)-1 { // isd is there already
		t.Errorf("%d imported, want %d", len(got), len(exported)-1)
	}
	if diff := cmp.Diff(list(t, from), list(t, to)); diff != "" {
		t.Error(diff)
	}
	a := must[keys.Set](t)(from.ReadKeys(ctx, keys.Ref{Name: "door"}, keys.MethodSP800108, aid, data))
	b := must[keys.Set](t)(to.ReadKeys(ctx, keys.Ref{Name: "door"}, keys.MethodSP800108, aid, data))
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}

	before := read(t, to)
	if got := must[[]keys.Entry](t)(to.Import(ctx, bytes.NewReader(wrapped.Bytes()), id)); len(got) != 0 {
		t.Errorf("imported again: %+v", got)
	}
	if !bytes.Equal(before, read(t, to)) {
		t.Error("importing nothing changed the file")
	}

	_, err = from.Export(ctx, &wrapped, nil)
	if err == nil {
		t.Error("exported to nobody")
	}
	_, err = to.Import(ctx, bytes.NewReader(nil))
	if err == nil {
		t.Error("imported without an identity")
	}
	_, err = from.Export(ctx, &wrapped, []keys.Ref{{Name: "absent"}}, id.Recipient())
	wantErr(t, err, keys.ErrNotFound)
	_, err = empty(t).Export(ctx, &wrapped, nil, id.Recipient())
	wantErr(t, err, keys.ErrNotFound)
}

// All or nothing, and never over another key.
func TestImportConflict(t *testing.T) {
	from, to := full(t), empty(t)
	ctx := t.Context()
	var plain bytes.Buffer
	must[[]keys.Entry](t)(from.ExportPlain(ctx, &plain, nil))
	must[keys.Entry](t)(to.Generate(ctx, New{Name: "tags", Kind: keys.Ledger}))
	before := read(t, to)
	_, err := to.ImportPlain(ctx, bytes.NewReader(plain.Bytes()))
	wantErr(t, err, keys.ErrExists)
	if !bytes.Equal(before, read(t, to)) {
		t.Error("a refused import left something")
	}

	kind := empty(t)
	must[keys.Entry](t)(kind.Generate(ctx, New{Name: "tags", Kind: keys.Read, Version: 7}))
	_, err = kind.ImportPlain(ctx, bytes.NewReader(plain.Bytes()))
	wantErr(t, err, keys.ErrWrongKind)
}

func TestExportPublic(t *testing.T) {
	from, terminal := full(t), empty(t)
	ctx := t.Context()
	var b bytes.Buffer
	must[[]keys.Entry](t)(from.ExportPublic(ctx, &b, nil))
	if strings.Contains(b.String(), `"secret"`) {
		t.Error("a public bundle holds a secret")
	}
	for i := range from.img.entries {
		secret := must[[]byte](t)(from.keys.open(&from.img.entries[i]))
		if bytes.Contains(b.Bytes(), canonical(secret)) {
			t.Errorf("the secret of %s is in the public bundle", from.img.entries[i].Name)
		}
	}
	got := must[[]keys.Entry](t)(terminal.ImportPlain(ctx, bytes.NewReader(b.Bytes())))
	if len(got) != 2 || !got[0].Public || !got[1].Public {
		t.Errorf("imported %+v", got)
	}
	_, err := terminal.Sign(ctx, keys.Ref{Name: "issuer"}, keys.IssuerSigning, nil)
	wantErr(t, err, keys.ErrPublicOnly)
	if _, err := from.PublicKey(ctx, keys.Ref{Name: "issuer"}); err != nil {
		t.Error(err)
	}
	// The public half of a key that is there is nothing new; the secret half
	// does not slip in over a public one.
	if got := must[[]keys.Entry](t)(from.ImportPlain(ctx, bytes.NewReader(b.Bytes()))); len(got) != 0 {
		t.Errorf("imported %+v", got)
	}
	b.Reset()
	must[[]keys.Entry](t)(from.ExportPlain(ctx, &b, []keys.Ref{{Name: "issuer"}}))
	_, err = terminal.ImportPlain(ctx, &b)
	wantErr(t, err, keys.ErrExists)
	_, err = from.ExportPublic(ctx, &b, []keys.Ref{{Name: "door"}})
	wantErr(t, err, keys.ErrWrongKind)
}

func TestMalformedBundle(t *testing.T) {
	from, to := full(t), empty(t)
	ctx := t.Context()
	must[keys.Entry](t)(from.AddDevelopment(ctx, New{Name: "test-isd", Kind: keys.SecurityDomain}))
	var plain bytes.Buffer
	must[[]keys.Entry](t)(from.ExportPlain(ctx, &plain, nil))
	good := plain.String()
	replace := func(old, new string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s in the bundle", old)
		}
		return mend([]byte(strings.Replace(good, old, new, 1)))
	}
	lines := strings.SplitAfter(good, "\n")
	door := lines[2]
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":             {nil, ErrBundle},
		"a keystore":        {read(t, from), ErrBundle},
		"later version":     {replace(`"version":1`, `"version":3`), ErrFormatVersion},
		"version of others": {replace(`"version":1`, `"version":2`), ErrBundle},
		"not mended":        {[]byte(strings.Replace(good, "door", "poor", 1)), ErrBundle},
		"entry less":        {mend([]byte(strings.Replace(good, door, "", 1))), ErrBundle},
		"entry twice":       {mend([]byte(strings.Replace(strings.Replace(good, door, door+door, 1), `"entries":7`, `"entries":8`, 1))), ErrBundle},
		"out of order":      {mend([]byte(strings.Replace(strings.Replace(good, door, "", 1), lines[1], door+lines[1], 1))), ErrBundle},
		"check value":       {replace(from.img.entries[1].Check, "000000/000000"), ErrBundle},
		"kind":              {replace(`"kind":"counter-signing"`, `"kind":"ledger"`), ErrBundle},
		"no secret":         {mend([]byte(strings.Replace(good, door, door[:strings.Index(door, `,"secret"`)]+"}\n", 1))), ErrBundle},
		"unmarked":          {replace(`"development":true,`, ``), ErrBundle},
		"marked":            {replace(`"created":"2025-04-01T05`, `"development":true,"created":"2025-04-01T05`), ErrBundle},
		"date":              {replace(`"created":"2025-04-01T05:00:00Z"`, `"created":"2025-04-01T05:00:00+00:00"`), ErrBundle},
		"unknown field":     {replace(`"name":"door"`, `"x":1,"name":"door"`), ErrBundle},
		"wrapped, as plain": {[]byte("age-encryption.org/v1\n"), ErrBundle},
		"too large":         {append([]byte(good), make([]byte, maxBundle)...), ErrBundle},
		"cut":               {[]byte(good[:len(good)-2]), ErrBundle},
	} {
		_, err := to.ImportPlain(ctx, bytes.NewReader(tt.b))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	id := must[*age.X25519Identity](t)(age.GenerateX25519Identity())
	_, err := to.Import(ctx, strings.NewReader(good), id)
	wantErr(t, err, ErrBundle)
	if n := len(list(t, to)); n != 0 {
		t.Errorf("%d entries from malformed bundles", n)
	}
}

func FuzzBundle(f *testing.F) {
	for _, name := range []string{"testdata/public.bundle", "testdata/plain.bundle"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if _, _, err := parseBundle(b); err != nil {
			f.Fatalf("%s: %v", name, err)
		}
		f.Add(b)
		f.Add(b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1]) // to be changed under a right checksum
	}
	f.Add([]byte(`{"freearea":"key-bundle","version":1,"created":"2025-04-01T00:00:00Z","entries":0}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, appendSum(slices.Clone(b))} {
			h, entries, err := parseBundle(b)
			if err != nil {
				if h != nil || entries != nil {
					t.Fatal("entries beside an error")
				}
				continue
			}
			if again := encodeBundle(h.Created, entries); !bytes.Equal(again, b) {
				t.Fatalf("accepted\n%s\nencoded\n%s", b, again)
			}
		}
	})
}
