package file

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/keys"
)

// door is a terminal that reads one service.
func door() Terminal {
	return Terminal{Group: "gates", Services: []TerminalService{
		{ID: "office-pass", Manifest: bytes.Repeat([]byte{7}, 32), ReadKey: "pass-read", IssuerKey: "issuer"},
	}}
}

func terminalKeys(t *testing.T) (*Store, *age.X25519Identity) {
	t.Helper()
	s, ctx := empty(t), t.Context()
	for name, kind := range map[string]keys.Kind{"pass-read": keys.Read, "issuer": keys.IssuerSigning, "isd": keys.SecurityDomain, "ledger": keys.Ledger} {
		must[keys.Entry](t)(s.Generate(ctx, New{Name: name, Kind: kind}))
	}
	must[keys.Entry](t)(s.Generate(ctx, New{Name: "pass-read", Kind: keys.Read}))
	return s, must[*age.X25519Identity](t)(age.GenerateX25519Identity())
}

func TestTerminal(t *testing.T) {
	s, id := terminalKeys(t)
	ctx := t.Context()
	var out bytes.Buffer
	written := must[[]keys.Entry](t)(ExportTerminal(ctx, &out, s, door(),
		[]keys.Ref{{Name: "pass-read", Version: 1}}, []keys.Ref{{Name: "issuer"}}, s.now(), id.Recipient()))
	if len(written) != 2 || !written[0].Public || written[1].Version != 1 {
		t.Errorf("%+v", written)
	}
	for _, name := range []string{"pass-read", "gates"} {
		if strings.Contains(out.String(), name) {
			t.Errorf("%s is in the clear", name)
		}
	}
	b := must[*Bundle](t)(ReadBundle(bytes.NewReader(out.Bytes()), id))
	if diff := cmp.Diff(door(), *b.Terminal); diff != "" {
		t.Error(diff)
	}
	to := empty(t)
	added := must[[]keys.Entry](t)(to.AddBundle(ctx, b))
	if diff := cmp.Diff(written, added); diff != "" {
		t.Error(diff)
	}
	if _, err := to.Sign(ctx, keys.Ref{Name: "issuer"}, keys.IssuerSigning, nil); !errors.Is(err, keys.ErrPublicOnly) {
		t.Errorf("error %v", err)
	}
	stranger := must[*age.X25519Identity](t)(age.GenerateX25519Identity())
	if _, err := ReadBundle(bytes.NewReader(out.Bytes()), stranger); err == nil {
		t.Error("another terminal opens it")
	}
	b.Erase()
	if slices.ContainsFunc(b.entries, func(e bundleEntry) bool { return strings.Trim(string(e.Secret), "\x00") != "" }) {
		t.Error("keys are left after Erase")
	}
}

// A terminal's bundle holds what reads, and nothing that writes.
func TestTerminalGetsNothingElse(t *testing.T) {
	s, id := terminalKeys(t)
	read, public := []keys.Ref{{Name: "pass-read"}}, []keys.Ref{{Name: "issuer"}}
	for name, tt := range map[string]struct {
		change       func(*Terminal)
		read, public []keys.Ref
		want         error
	}{
		"a security domain's keys": {nil, []keys.Ref{{Name: "isd"}}, public, keys.ErrWrongKind},
		"a ledger key":             {nil, []keys.Ref{{Name: "pass-read"}, {Name: "ledger"}}, public, keys.ErrWrongKind},
		"a key that signs":         {nil, []keys.Ref{{Name: "issuer"}}, nil, keys.ErrWrongKind},
		"no key of the service":    {nil, nil, public, keys.ErrNotFound},
		"a key of no service":      {func(x *Terminal) { x.Services[0].IssuerKey = "" }, read, public, keys.ErrWrongKind},
		"no service":               {func(x *Terminal) { x.Services = nil }, read, public, nil},
		"no digest":                {func(x *Terminal) { x.Services[0].Manifest = nil }, read, public, nil},
		"the same service twice":   {func(x *Terminal) { x.Services = append(x.Services, x.Services[0]) }, read, public, nil},
		"a group with a line feed": {func(x *Terminal) { x.Group = "a\nb" }, read, public, nil},
	} {
		d := door()
		if tt.change != nil {
			tt.change(&d)
		}
		var out bytes.Buffer
		_, err := ExportTerminal(t.Context(), &out, s, d, tt.read, tt.public, s.now(), id.Recipient())
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || out.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes written", name, err, out.Len())
		}
	}
	// Nor does one come in by way of a bundle that somebody else wrote.
	plain, _, err := s.bundle(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	forged := append(append(canonical(terminalLine{terminalName, terminalVersion, door()}), '\n'), plain...)
	if _, err := parseTerminal(forged); !errors.Is(err, ErrBundle) || !errors.Is(err, keys.ErrWrongKind) {
		t.Errorf("error %v", err)
	}
	if _, err := ReadBundle(bytes.NewReader(forged)); !errors.Is(err, ErrBundle) {
		t.Errorf("not wrapped: error %v", err)
	}
}

// A bundle added to another store is the same keys there.
func TestAddTo(t *testing.T) {
	from, ctx := full(t), t.Context()
	must[keys.Entry](t)(from.Retire(ctx, keys.Ref{Name: "door", Version: 1}))
	must[keys.Entry](t)(from.AddDevelopment(ctx, New{Name: "test-isd", Kind: keys.SecurityDomain}))
	var refs []keys.Ref
	for _, e := range list(t, from) {
		if e.Kind != keys.Token && e.Kind != keys.Receipt {
			refs = append(refs, e.Ref())
		}
	}
	plain, want, err := from.bundle(ctx, refs, false)
	if err != nil {
		t.Fatal(err)
	}
	b := must[*Bundle](t)(ReadBundle(bytes.NewReader(plain)))
	to := empty(t)
	must[[]keys.Entry](t)(b.AddTo(ctx, to))
	got := list(t, to)
	for i := range got { // dates are the other store's own
		got[i].Created = want[i].Created
		if !got[i].Retired.IsZero() {
			got[i].Retired = want[i].Retired
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again, err := b.AddTo(ctx, to); err != nil || len(again) != 0 {
		t.Errorf("added %v again, %v", again, err)
	}
	clash := empty(t)
	must[keys.Entry](t)(clash.Generate(ctx, New{Name: want[len(want)-1].Name, Kind: keys.Read, Version: want[len(want)-1].Version}))
	if added, err := b.AddTo(ctx, clash); !errors.Is(err, keys.ErrExists) || len(added) != 0 || len(list(t, clash)) != 1 {
		t.Errorf("added %v, %v", added, err)
	}
	scheme := empty(t)
	must[keys.Entry](t)(scheme.Generate(ctx, New{Name: "token", Kind: keys.Token}))
	plain, _, err = scheme.bundle(ctx, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	b = must[*Bundle](t)(ReadBundle(bytes.NewReader(plain)))
	if _, err := b.AddTo(ctx, empty(t)); !errors.Is(err, keys.ErrWrongKind) {
		t.Errorf("error %v", err)
	}
}

// FuzzTerminal: what is accepted holds nothing but what a terminal needs.
func FuzzTerminal(f *testing.F) {
	head := canonical(terminalLine{terminalName, terminalVersion, door()})
	f.Add(append(head, '\n'))
	f.Add([]byte(`{"freearea":"terminal-bundle","version":2}`))
	public := bytes.Repeat([]byte{1}, 32)
	e := bundleEntry{metadata: metadata{Name: "issuer", Kind: keys.IssuerSigning, Version: 1, Algorithm: keys.Ed25519,
		Check: publicCheck(public), PublicKey: public, PublicOnly: true, Created: "2025-04-01T00:00:00Z"}}
	d := door()
	d.Services[0].ReadKey = ""
	f.Add(append(append(canonical(terminalLine{terminalName, terminalVersion, d}), '\n'), encodeBundle("2025-04-01T00:00:00Z", []bundleEntry{e})...))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseTerminal(data)
		if err != nil {
			return
		}
		for _, e := range b.entries {
			if e.Kind != keys.Read && !(e.Kind == keys.IssuerSigning && e.PublicOnly) {
				t.Errorf("accepted %s (%s)", e.Name, e.Kind)
			}
		}
		again := append(append(canonical(terminalLine{terminalName, terminalVersion, *b.Terminal}), '\n'), data[bytes.IndexByte(data, '\n')+1:]...)
		if !bytes.Equal(again, data) {
			t.Errorf("encodes to something else")
		}
	})
}
