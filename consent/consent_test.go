package consent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"html"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/manifest"
)

// store holds counter keys, as a key store does.
type store map[keys.Ref]ed25519.PrivateKey

func newStore() store {
	s := store{}
	for v := byte(1); v <= 2; v++ {
		s[keys.Ref{Name: "counter-1", Version: v}] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{v}, 32))
	}
	s[keys.Ref{Name: "counter-1", Version: 3}] = nil // retired
	return s
}

func (s store) Entries(context.Context) (entries []keys.Entry, err error) {
	for ref, key := range s {
		e := keys.Entry{Name: ref.Name, Kind: keys.CounterSigning, Version: ref.Version}
		if key == nil {
			e.Retired = noon
		}
		entries = append(entries, e)
	}
	return append(entries, keys.Entry{Name: "counter-1", Kind: keys.Read, Version: 9}), nil
}

func (s store) Sign(_ context.Context, ref keys.Ref, kind keys.Kind, message []byte) ([]byte, error) {
	key, ok := s[ref]
	switch {
	case !ok:
		return nil, keys.ErrNotFound
	case kind != keys.CounterSigning:
		return nil, keys.ErrWrongKind
	case key == nil:
		return nil, keys.ErrRetired
	}
	return ed25519.Sign(key, message), nil
}

func (s store) PublicKey(_ context.Context, ref keys.Ref) (ed25519.PublicKey, error) {
	return s[ref].Public().(ed25519.PublicKey), nil
}

func (store) SecurityDomainKeys(context.Context, keys.Ref, keys.Method, []byte) (keys.Set, error) {
	return keys.Set{}, keys.ErrNotFound
}

func (store) ReadKeys(context.Context, keys.Ref, keys.Method, iso7816.AID, []byte) (keys.Set, error) {
	return keys.Set{}, keys.ErrNotFound
}

func (store) Digest(context.Context, keys.Ref, []byte) ([16]byte, error) {
	return [16]byte{}, keys.ErrNotFound
}

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

func load(t testing.TB, name string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Load(filepath.Join("..", "examples", name+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func options() consent.Options {
	return consent.Options{
		Language: "ja",
		Format:   consent.HTML,
		Items:    []string{"home-branch", "category"},
		Asked:    consent.Asked{Operator: "clerk-7", Counter: "counter-1"},
		Method:   consent.Paper,
		Paper:    &consent.Form{Reference: "2026-0001", Scan: sha256.Sum256([]byte("scan"))},
		Given:    noon.Add(300 * time.Millisecond),
		Holder:   "A-17",
		Rand:     strings.NewReader("0123456789abcdef"),
	}
}

func signed(t testing.TB, m *manifest.Manifest, o consent.Options) (*consent.Signed, ed25519.PublicKey) {
	t.Helper()
	r, err := consent.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	keystore := newStore()
	s, err := consent.Sign(t.Context(), keystore, keys.Ref{Name: "counter-1"}, r)
	if err != nil {
		t.Fatal(err)
	}
	public, err := keystore.PublicKey(t.Context(), s.Key.Ref())
	if err != nil {
		t.Fatal(err)
	}
	return s, public
}

func TestRender(t *testing.T) {
	for _, name := range []string{"shopping-street", "city-library", "office-pass"} {
		m := load(t, name)
		required, optional := m.ItemNames()
		items := append(required, optional...)
		for _, lang := range []string{"ja", "en"} {
			d, err := m.Disclosure(lang, items)
			if err != nil {
				t.Fatal(err)
			}
			for _, format := range []consent.ShowFormat{consent.Text, consent.HTML} {
				out, err := consent.Render(m, lang, items, format)
				if err != nil {
					t.Fatal(err)
				}
				slices.Reverse(items)
				again, err := consent.Render(m, lang, items, format)
				if err != nil || !bytes.Equal(out, again) {
					t.Errorf("%s %s %s: two renderings differ (%v)", name, lang, format, err)
				}
				slices.Reverse(items)
				want := []string{d.Service, d.Operator, d.Term, d.PIN, d.Protection}
				for _, text := range []string{d.Purpose, d.Contact, d.Basis, d.Retention} {
					want = append(want, strings.Split(strings.TrimSpace(text), "\n")...)
				}
				for _, it := range d.Items {
					want = append(want, it[0], it[1])
				}
				for _, text := range want {
					if format == consent.HTML {
						text = html.EscapeString(text)
					}
					if !bytes.Contains(out, []byte(text)) {
						t.Errorf("%s %s %s: %q is not shown", name, lang, format, text)
					}
				}
			}
		}
	}
	m := load(t, "city-library")
	for _, tt := range []struct {
		lang   string
		format consent.ShowFormat
		items  []string
	}{
		{"fr", consent.Text, []string{"category"}},
		{"ja", "pdf", []string{"category"}},
		{"ja", consent.Text, nil},
		{"ja", consent.Text, []string{"category", "category"}},
		{"ja", consent.Text, []string{"category", "age"}},
	} {
		if _, err := consent.Render(m, tt.lang, tt.items, tt.format); err == nil {
			t.Errorf("%+v is rendered", tt)
		}
	}
	// An item that the holder leaves out is not in the notice.
	out, err := consent.Render(m, "en", []string{"category"}, consent.Text)
	if err != nil || bytes.Contains(out, []byte("Branch for reservations")) || !bytes.Contains(out, []byte("Borrower category")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRenderEscapes: a manifest comes from somebody else; it can't put markup
// into the page that a holder signs.
func TestRenderEscapes(t *testing.T) {
	m := load(t, "office-pass")
	evil := `<script>alert(1)</script>"'&`
	m.Name.JA, m.Purpose.JA, m.Operator.Contact.JA, m.Items[0].Label.JA = evil, evil, evil, evil
	out, err := consent.Render(m, "ja", []string{"area"}, consent.HTML)
	if err != nil || bytes.Contains(out, []byte("<script")) || bytes.Count(out, []byte("&lt;script&gt;")) < 5 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRenderGolden pins the wording: a change of one word makes another
// rendering, and consents refer to it by digest. A change here belongs into
// the changelog.
func TestRenderGolden(t *testing.T) {
	m := load(t, "shopping-street")
	out, err := consent.Render(m, "en", nil, consent.Text)
	if err != nil {
		t.Fatal(err)
	}
	digest := consent.Hash(m.Digest()).String()
	want := `Use of the Free Area of the Individual Number Card: Notice and Consent

For the service below, information is recorded in the free area of your Individual Number Card (My Number Card). Please read this notice. Nothing is recorded unless you agree.
You are free to agree or not. If you don't, everything else on your card works as before.

■ Service
  Minatozaka Shopping Street Point Card

■ Purpose of use
  To read your point card number when you shop at a member of the Minatozaka shopping street, so that points can be credited to you or used by you.

■ Operator
  Minatozaka Shopping Street Promotion Association

■ What is recorded on the card
  - Number (ID): a number that this service gives in sequence
  Nothing besides the number is recorded.

■ What is not recorded
  Your Individual Number (My Number) is neither recorded nor read. Nothing else on the card is touched.

■ Reading and protection
  Any reader that the card is held to can read the number, without a key or a PIN. No reader can change it.

■ Term
  3 years from the day of issue, or until the Individual Number Card expires if that comes first

■ Records kept by the operator
  400 days after the service has ended for you
  To pay out points that are left, and for the audit of the accounts

■ Basis in law
  Enforcement Order of the Act on the Use of Numbers to Identify a Specific Individual in Administrative Procedures (Cabinet Order No. 155 of 2014), art. 18, par. 2, item 4
  Notice No. 901 of 2026 on the work for which private businesses use the free area of the card (fictional)

■ Withdrawing your consent
  You can withdraw your consent at any time at the contact below. What was recorded on the card is then erased. When your card is renewed or replaced, you are asked again before anything is recorded.

■ Contact
  Association office, Minatozaka Hall, ground floor, weekdays 10:00 to 17:00, telephone 0000-00-0001

Service manifest SHA-256: ` + digest + "\n"
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Error(diff)
	}
}

func TestNew(t *testing.T) {
	m := load(t, "city-library")
	r, err := consent.New(m, options())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := consent.Render(m, "ja", []string{"category", "home-branch"}, consent.HTML)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Disclosure("ja", []string{"category", "home-branch"})
	if err != nil {
		t.Fatal(err)
	}
	want := consent.Record{
		Format:   1,
		ID:       "30313233343536373839616263646566",
		Service:  "city-library",
		Manifest: m.Digest(),
		Shown:    consent.Shown{Language: "ja", Format: "html", Digest: sha256.Sum256(shown), Purpose: d.Purpose, Operator: d.Operator, Term: d.Term},
		Items:    []string{"category", "home-branch"},
		Asked:    consent.Asked{Operator: "clerk-7", Counter: "counter-1"},
		Method:   "paper",
		Paper:    &consent.Form{Reference: "2026-0001", Scan: sha256.Sum256([]byte("scan"))},
		Given:    noon,
		Until:    noon.AddDate(0, 0, 90),
		Holder:   "A-17",
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}

	for name, tt := range map[string]struct {
		change func(*consent.Options)
		want   error
	}{
		"another rendering":             {func(o *consent.Options) { o.Rendering = append(shown, ' ') }, consent.ErrRendering},
		"unknown item":                  {func(o *consent.Options) { o.Items = []string{"category", "age"} }, consent.ErrItems},
		"required item is missing":      {func(o *consent.Options) { o.Items = []string{"home-branch"} }, consent.ErrItems},
		"item twice":                    {func(o *consent.Options) { o.Items = []string{"category", "category"} }, consent.ErrItems},
		"method unknown":                {func(o *consent.Options) { o.Method = "telephone" }, consent.ErrMethod},
		"paper without reference":       {func(o *consent.Options) { o.Paper = nil }, consent.ErrMalformed},
		"paper without scan":            {func(o *consent.Options) { o.Paper = &consent.Form{Reference: "x"} }, consent.ErrMalformed},
		"screen with paper":             {func(o *consent.Options) { o.Method = consent.Screen }, consent.ErrMalformed},
		"no clerk":                      {func(o *consent.Options) { o.Asked.Operator = "" }, consent.ErrMalformed},
		"no counter":                    {func(o *consent.Options) { o.Asked.Counter = "a\nb" }, consent.ErrMalformed},
		"no time":                       {func(o *consent.Options) { o.Given = time.Time{} }, consent.ErrMalformed},
		"year 10000":                    {func(o *consent.Options) { o.Given = time.Date(9999, 12, 1, 0, 0, 0, 0, time.UTC) }, consent.ErrMalformed},
		"ends before it begins":         {func(o *consent.Options) { o.Until = noon }, consent.ErrMalformed},
		"longer than allowed":           {func(o *consent.Options) { o.Until = noon.AddDate(0, 0, 90).Add(time.Second) }, consent.ErrMalformed},
		"Individual Number as holder":   {func(o *consent.Options) { o.Holder = "6214 9832 0257" }, consent.ErrText},
		"Individual Number on the form": {func(o *consent.Options) { o.Paper.Reference = "６２１４９８３２０２５７" }, consent.ErrText},
		"long reference of the holder":  {func(o *consent.Options) { o.Holder = strings.Repeat("x", 65) }, consent.ErrMalformed},
	} {
		o := options()
		tt.change(&o)
		if _, err := consent.New(m, o); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	o := options()
	o.Rendering, o.Rand = shown, strings.NewReader("short")
	if _, err := consent.New(m, o); err == nil {
		t.Error("an id of a source that ended")
	}
	m.Consent.Methods = []string{"screen"}
	if _, err := consent.New(m, options()); !errors.Is(err, consent.ErrMethod) {
		t.Errorf("paper where only the screen is allowed: %v", err)
	}
}

func TestSign(t *testing.T) {
	m := load(t, "city-library")
	s, public := signed(t, m, options())
	if s.Key != (consent.Key{Name: "counter-1", Version: 2}) {
		t.Errorf("signed by %+v", s.Key)
	}
	if err := s.Verify(public); err != nil {
		t.Error(err)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)).Public().(ed25519.PublicKey)
	for name, key := range map[string]ed25519.PublicKey{"another key": other, "no key": nil, "half a key": public[:16]} {
		if err := s.Verify(key); !errors.Is(err, consent.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is signed is told apart from whatever else the key signs.
	if !bytes.HasPrefix(s.SignedMessage(), []byte("freearea consent 1\n{\"consent\":{\"format\":1,")) {
		t.Errorf("signed is %.60q", s.SignedMessage())
	}
	// Nothing in the record can change, nor the key's name.
	for name, change := range map[string]func(*consent.Signed){
		"items":    func(s *consent.Signed) { s.Record.Items = s.Record.Items[:1] },
		"manifest": func(s *consent.Signed) { s.Record.Manifest[0] ^= 1 },
		"shown":    func(s *consent.Signed) { s.Record.Shown.Digest[31] ^= 1 },
		"until":    func(s *consent.Signed) { s.Record.Until = s.Record.Until.Add(time.Hour) },
		"scan":     func(s *consent.Signed) { s.Record.Paper = &consent.Form{Reference: "2026-0001"} },
		"holder":   func(s *consent.Signed) { s.Record.Holder = "" },
		"key":      func(s *consent.Signed) { s.Key.Version = 1 },
	} {
		forged := *s
		change(&forged)
		if err := forged.Verify(public); !errors.Is(err, consent.ErrSignature) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
	for _, ref := range []keys.Ref{{Name: "counter-2"}, {Name: "counter-1", Version: 3}, {Name: "counter-1", Version: 7}} {
		if _, err := consent.Sign(t.Context(), newStore(), ref, s.Record); !errors.Is(err, keys.ErrNotFound) && !errors.Is(err, keys.ErrRetired) {
			t.Errorf("%+v: %v", ref, err)
		}
	}
}

func TestParse(t *testing.T) {
	s, public := signed(t, load(t, "city-library"), options())
	data := s.Encode()
	got, err := consent.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got); diff != "" {
		t.Error(diff)
	}
	if err := got.Verify(public); err != nil {
		t.Error(err)
	}
	edit := func(old, replacement string) []byte {
		t.Helper()
		if !bytes.Contains(data, []byte(old)) {
			t.Fatalf("%q is not in %s", old, data)
		}
		return bytes.Replace(data, []byte(old), []byte(replacement), 1)
	}
	for name, bad := range map[string][]byte{
		"empty":                 nil,
		"cut":                   data[:len(data)-1],
		"data behind it":        append(bytes.Clone(data), "{}"...),
		"a second line feed":    append(bytes.Clone(data), '\n'),
		"a space":               edit(`{"consent"`, `{ "consent"`),
		"unknown member":        edit(`"format":1`, `"format":1,"name":"x"`),
		"member twice":          edit(`"format":1`, `"format":1,"format":1`),
		"member in capitals":    edit(`"holder"`, `"Holder"`),
		"format 2":              edit(`"format":1`, `"format":2`),
		"id in capitals":        edit(`616263646566"`, `61626364656F"`),
		"id is no digest":       edit(`"id":"30`, `"id":"zz`),
		"digest is short":       edit(`"manifest":"`, `"manifest":"00`),
		"no items":              edit(`["category","home-branch"]`, `null`),
		"item twice":            edit(`["category","home-branch"]`, `["category","category"]`),
		"method":                edit(`"method":"paper"`, `"method":"phone"`),
		"screen with paper":     edit(`"method":"paper"`, `"method":"screen"`),
		"language":              edit(`"language":"ja"`, `"language":"jp"`),
		"time with an offset":   edit(`T12:00:00Z"`, `T21:00:00+09:00"`),
		"time with a fraction":  edit(`T12:00:00Z"`, `T12:00:00.5Z"`),
		"ends before it begins": edit(`"until":"2027`, `"until":"2025`),
		"key version 0":         edit(`"version":2`, `"version":0`),
		"escaped differently":   edit(`"A-17"`, `"\u0041-17"`),
		"no UTF-8":              edit(`"A-17"`, "\"A\xff17\""),
		"too large":             bytes.Repeat([]byte(" "), consent.MaxSize+1),
	} {
		if _, err := consent.Parse(bad); !errors.Is(err, consent.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	short := *s
	short.Signature = short.Signature[:63]
	if _, err := consent.Parse(short.Encode()); !errors.Is(err, consent.ErrMalformed) {
		t.Errorf("short signature: %v", err)
	}
}

func TestCovers(t *testing.T) {
	m := load(t, "city-library")
	s, public := signed(t, m, options())
	both := []string{"home-branch", "category"}
	if err := s.Covers(public, m, both, noon); err != nil {
		t.Errorf("at the moment it is given: %v", err)
	}
	last := noon.AddDate(0, 0, 90).Add(-time.Second)
	if err := s.Covers(public, m, both, last.In(time.FixedZone("JST", 9*3600))); err != nil {
		t.Errorf("at the last second: %v", err)
	}

	changed := *m
	changed.Purpose.EN += "!"
	noPaper := *m
	noPaper.Consent.Methods = []string{"screen"}
	shorter := *m
	shorter.Consent.ValidDays = 30
	other := load(t, "office-pass")
	otherKey := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)).Public().(ed25519.PublicKey)
	unrelated := consent.Withdrawal{Consent: strings.Repeat("0", 32), At: noon}
	if err := s.Covers(public, m, both, noon, unrelated); err != nil {
		t.Errorf("another consent is withdrawn: %v", err)
	}
	withdrawn := consent.Withdrawal{Consent: s.Record.ID, At: noon}

	for name, tt := range map[string]struct {
		err  error
		want []error
		says []string
	}{
		"another key":         {s.Covers(otherKey, m, both, noon), []error{consent.ErrSignature}, []string{"counter-1 version 2"}},
		"no key":              {s.Covers(nil, m, both, noon), []error{consent.ErrSignature}, nil},
		"changed manifest":    {s.Covers(public, &changed, both, noon), []error{consent.ErrOtherManifest}, []string{"city-library", consent.Hash(m.Digest()).String()}},
		"fewer items":         {s.Covers(public, m, both[1:], noon), []error{consent.ErrItems}, []string{"it has home-branch besides"}},
		"more items":          {s.Covers(public, m, append(both, "age", "name"), noon), []error{consent.ErrItems}, []string{"it lacks age, name"}},
		"a second early":      {s.Covers(public, m, both, noon.Add(-time.Second)), []error{consent.ErrNotYet}, []string{"2026-11-02T12:00:00Z"}},
		"at its end":          {s.Covers(public, m, both, noon.AddDate(0, 0, 90)), []error{consent.ErrExpired}, []string{"2027-01-31T12:00:00Z"}},
		"method not allowed":  {s.Covers(public, &noPaper, both, noon), []error{consent.ErrOtherManifest, consent.ErrMethod}, []string{"paper"}},
		"longer than allowed": {s.Covers(public, &shorter, both, noon), []error{consent.ErrOtherManifest, consent.ErrExpired}, nil},
		"withdrawn":           {s.Covers(public, m, both, noon, unrelated, withdrawn), []error{consent.ErrWithdrawn}, []string{"2026-11-02"}},
		"another service":     {s.Covers(public, other, []string{"area"}, noon), []error{consent.ErrOtherManifest, consent.ErrItems, consent.ErrExpired}, []string{"office-pass", "it lacks area", "it has category, home-branch besides"}},
		"everything is missing": {
			s.Covers(otherKey, other, []string{"area"}, noon.AddDate(1, 0, 0), withdrawn),
			[]error{consent.ErrSignature, consent.ErrOtherManifest, consent.ErrItems, consent.ErrExpired, consent.ErrWithdrawn}, nil,
		},
	} {
		var gaps consent.Gaps
		if !errors.As(tt.err, &gaps) {
			t.Errorf("%s: %v", name, tt.err)
			continue
		}
		var got []error
		for _, g := range gaps {
			got = append(got, g.Err)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		for _, want := range tt.want {
			if !errors.Is(tt.err, want) {
				t.Errorf("%s: %v is not found", name, want)
			}
		}
		for _, text := range tt.says {
			if !strings.Contains(tt.err.Error(), text) {
				t.Errorf("%s: %q does not say %q", name, tt.err, text)
			}
		}
	}

	// A required item can't be left out on both sides.
	forged := *s
	forged.Record.Items = []string{}
	if err := forged.Covers(public, m, nil, noon); !errors.Is(err, consent.ErrItems) || !strings.Contains(err.Error(), "category") {
		t.Errorf("without the required item: %v", err)
	}
	// A record that Parse would refuse covers nothing, signed or not.
	broken := *s
	broken.Record.Paper = nil
	if err := broken.Covers(public, m, both, noon); !errors.Is(err, consent.ErrMalformed) {
		t.Errorf("malformed record: %v", err)
	}
}

func TestScreenWithoutItems(t *testing.T) {
	m := load(t, "shopping-street")
	o := options()
	o.Language, o.Format, o.Method, o.Paper, o.Items, o.Holder = "en", consent.Text, consent.Screen, nil, nil, ""
	s, public := signed(t, m, o)
	if bytes.Contains(s.Encode(), []byte(`"holder"`)) || !bytes.Contains(s.Encode(), []byte(`"items":[]`)) {
		t.Errorf("%s", s.Encode())
	}
	back, err := consent.Parse(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Covers(public, m, nil, noon); err != nil {
		t.Error(err)
	}
}

func TestWithdrawal(t *testing.T) {
	s, public := signed(t, load(t, "city-library"), options())
	w, err := consent.NewWithdrawal(s, consent.Asked{Operator: "clerk-8", Counter: "counter-2"}, noon.AddDate(0, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	sw, err := consent.SignWithdrawal(t.Context(), newStore(), keys.Ref{Name: "counter-1", Version: 2}, w)
	if err != nil {
		t.Fatal(err)
	}
	back, err := consent.ParseWithdrawal(sw.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sw, back); diff != "" {
		t.Error(diff)
	}
	if err := back.Verify(public); err != nil {
		t.Error(err)
	}
	back.Withdrawal.Consent = strings.Repeat("0", 32)
	if err := back.Verify(public); !errors.Is(err, consent.ErrSignature) {
		t.Errorf("withdrawal of another consent: %v", err)
	}
	if !bytes.HasPrefix(sw.SignedMessage(), []byte("freearea consent withdrawal 1\n{")) {
		t.Errorf("signed is %.60q", sw.SignedMessage())
	}
	if err := s.Covers(public, load(t, "city-library"), s.Record.Items, noon, sw.Withdrawal); !errors.Is(err, consent.ErrWithdrawn) {
		t.Errorf("after the withdrawal: %v", err)
	}
	// The one kind of record is not the other.
	if _, err := consent.Parse(sw.Encode()); !errors.Is(err, consent.ErrMalformed) {
		t.Errorf("a withdrawal as a consent: %v", err)
	}
	if _, err := consent.ParseWithdrawal(s.Encode()); !errors.Is(err, consent.ErrMalformed) {
		t.Errorf("a consent as a withdrawal: %v", err)
	}
	for _, bad := range []string{"", "{}\n", string(sw.Encode()) + "\n", strings.Replace(string(sw.Encode()), `"format":1`, `"format":2`, 1)} {
		if _, err := consent.ParseWithdrawal([]byte(bad)); !errors.Is(err, consent.ErrMalformed) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	if _, err := consent.NewWithdrawal(s, consent.Asked{}, noon); !errors.Is(err, consent.ErrMalformed) {
		t.Errorf("nobody received it: %v", err)
	}
}

// TestNoName: a record of a holder says what its struct says and no more, so
// that nobody adds a name in passing.
func TestNoName(t *testing.T) {
	s, _ := signed(t, load(t, "city-library"), options())
	var members []string
	for i, part := range strings.Split(string(s.Encode()), `":`) {
		if i == 0 {
			members = append(members, part[strings.LastIndex(part, `"`)+1:])
			continue
		}
		if j := strings.LastIndex(part, `"`); j >= 0 {
			members = append(members, part[j+1:])
		}
	}
	members = members[:len(members)-1]
	want := strings.Fields("consent format id service manifest shown language format digest purpose operator term items asked operator counter " +
		"method paper reference scan given until holder key name version signature")
	if diff := cmp.Diff(want, members); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	m := load(f, "city-library")
	s, _ := signed(f, m, options())
	f.Add(s.Encode())
	o := options()
	o.Format, o.Method, o.Paper, o.Items, o.Holder, o.Language = consent.Text, consent.Screen, nil, []string{"category"}, "", "en"
	s, _ = signed(f, m, o)
	f.Add(s.Encode())
	w, err := consent.NewWithdrawal(s, o.Asked, noon)
	if err != nil {
		f.Fatal(err)
	}
	sw, err := consent.SignWithdrawal(f.Context(), newStore(), keys.Ref{Name: "counter-1"}, w)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sw.Encode())
	f.Add([]byte(`{"consent":null,"key":null,"signature":null}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := consent.Parse(data); err == nil {
			if !bytes.Equal(s.Encode(), data) {
				t.Errorf("encoded otherwise: %q", data)
			}
		} else if !errors.Is(err, consent.ErrMalformed) {
			t.Errorf("error is %v", err)
		}
		if w, err := consent.ParseWithdrawal(data); err == nil && !bytes.Equal(w.Encode(), data) {
			t.Errorf("encoded otherwise: %q", data)
		}
	})
}
