//go:build cgo

package pkcs11_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	binding "github.com/miekg/pkcs11"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/keys/pkcs11"
)

// The tests of this file run against SoftHSM2, in a directory of their own.
// Its tokens must be there before it is initialised, and each is open once at
// a time: every test takes the next one.
const (
	pin    = "correct horse"
	tokens = 8
)

var softHSM = struct {
	module string
	dir    string
	reason string   // why it can't be used
	free   chan int // numbers of tokens without keys
}{free: make(chan int, tokens)}

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	for _, name := range []string{
		"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so",
	} {
		if _, err := os.Stat(name); err == nil {
			softHSM.module = name
			break
		}
	}
	dir, err := os.MkdirTemp("", "softhsm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	softHSM.dir = dir
	if softHSM.reason = prepare(); softHSM.reason != "" && os.Getenv("FREEAREA_REQUIRE_SOFTHSM") == "1" {
		fmt.Fprintln(os.Stderr, "FREEAREA_REQUIRE_SOFTHSM=1, but:", softHSM.reason)
		return 1
	}
	return m.Run()
}

// prepare makes the tokens, and says why it could not.
func prepare() string {
	if softHSM.module == "" {
		return "SoftHSM2 is not installed"
	}
	conf := filepath.Join(softHSM.dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", softHSM.dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err.Error()
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return err.Error()
	}
	for i := range tokens {
		out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label(i), "--pin", pin, "--so-pin", "security officer").CombinedOutput()
		if err != nil {
			return fmt.Sprintf("softhsm2-util: %v: %s", err, out)
		}
		softHSM.free <- i
	}
	return ""
}

func label(i int) string { return fmt.Sprintf("Test token #%d", i) }

// uri names a token that no other test has, for the length of the test.
func uri(t *testing.T) pkcs11.URI {
	t.Helper()
	if softHSM.reason != "" {
		t.Skip(softHSM.reason)
	}
	n := <-softHSM.free
	u := parse(t, fmt.Sprintf("pkcs11:token=Test%%20token%%20%%23%d;model=SoftHSM%%20v2?module-path=%s", n, softHSM.module))
	t.Cleanup(func() { // runs after what closes the test's Stores
		s, err := pkcs11.Open(context.Background(), u, pkcs11.Options{PIN: always(pin)})
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		r := newRaw(t, s)
		defer r.close()
		for _, o := range r.objects() {
			if err := r.ctx.DestroyObject(r.session, o); err != nil {
				t.Error(err)
			}
		}
		softHSM.free <- n
	})
	return u
}

func parse(t *testing.T, s string) pkcs11.URI {
	t.Helper()
	u, err := pkcs11.ParseURI(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func always(pin string) func(context.Context, pkcs11.Token) ([]byte, error) {
	return func(context.Context, pkcs11.Token) ([]byte, error) { return []byte(pin), nil }
}

func noon() time.Time { return time.Date(2025, 4, 1, 12, 0, 0, 0, time.UTC) }

func openToken(t *testing.T, u pkcs11.URI) *pkcs11.Store {
	t.Helper()
	s, err := pkcs11.Open(t.Context(), u, pkcs11.Options{PIN: always(pin), Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// raw is a session beside the Store's, as another program would have it. The
// login is the process's.
type raw struct {
	t       *testing.T
	ctx     *binding.Ctx
	session binding.SessionHandle
	closed  *bool
}

// close ends the session. The login lasts while one is open.
func (r raw) close() {
	if *r.closed {
		return
	}
	*r.closed = true
	r.ctx.CloseSession(r.session)
	r.ctx.Destroy()
}

// objects lists what is in the token.
func (r raw) objects() []binding.ObjectHandle {
	r.t.Helper()
	if err := r.ctx.FindObjectsInit(r.session, []*binding.Attribute{binding.NewAttribute(binding.CKA_TOKEN, true)}); err != nil {
		r.t.Fatal(err)
	}
	defer r.ctx.FindObjectsFinal(r.session)
	objects, _, err := r.ctx.FindObjects(r.session, 200)
	if err != nil {
		r.t.Fatal(err)
	}
	return objects
}

func newRaw(t *testing.T, s *pkcs11.Store) raw {
	t.Helper()
	ctx := binding.New(softHSM.module)
	if ctx == nil {
		t.Fatal("the library can't be loaded")
	}
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil {
			t.Fatal(err)
		}
		if info.SerialNumber != s.Token().Serial {
			continue
		}
		session, err := ctx.OpenSession(slot, binding.CKF_SERIAL_SESSION|binding.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		r := raw{t: t, ctx: ctx, session: session, closed: new(bool)}
		t.Cleanup(r.close)
		return r
	}
	t.Fatal("the token is not there")
	return raw{}
}

// id is CKA_ID as the package's documentation has it.
func id(kind, version, purpose byte) []byte { return []byte{'F', 'A', 1, kind, version, purpose} }

func (r raw) create(attributes ...*binding.Attribute) binding.ObjectHandle {
	r.t.Helper()
	o, err := r.ctx.CreateObject(r.session, attributes)
	if err != nil {
		r.t.Fatal(err)
	}
	return o
}

// aes imports an AES key; change alters its attributes.
func (r raw) aes(name string, id, value []byte, change ...*binding.Attribute) binding.ObjectHandle {
	r.t.Helper()
	attributes := []*binding.Attribute{
		binding.NewAttribute(binding.CKA_CLASS, uint(binding.CKO_SECRET_KEY)),
		binding.NewAttribute(binding.CKA_KEY_TYPE, uint(binding.CKK_AES)),
		binding.NewAttribute(binding.CKA_TOKEN, true),
		binding.NewAttribute(binding.CKA_PRIVATE, true),
		binding.NewAttribute(binding.CKA_SENSITIVE, true),
		binding.NewAttribute(binding.CKA_EXTRACTABLE, false),
		binding.NewAttribute(binding.CKA_SIGN, true),
		binding.NewAttribute(binding.CKA_ENCRYPT, true),
		binding.NewAttribute(binding.CKA_LABEL, name),
		binding.NewAttribute(binding.CKA_ID, id),
		binding.NewAttribute(binding.CKA_VALUE, value),
	}
	for _, c := range change {
		for i, a := range attributes {
			if a.Type == c.Type {
				attributes[i] = c
			}
		}
	}
	return r.create(attributes...)
}

// set imports a key set.
func (r raw) set(name string, kind byte, set keys.Set) {
	r.t.Helper()
	for i, k := range []keys.Key{set.ENC, set.MAC, set.DEK} {
		if !k.IsZero() {
			r.aes(name, id(kind, set.Version, byte(i+1)), k.Bytes())
		}
	}
}

// ed25519 imports a signing key, or with a nil key its public half.
func (r raw) ed25519(name string, id []byte, private ed25519.PrivateKey, public ed25519.PublicKey) {
	r.t.Helper()
	common := func(class uint) []*binding.Attribute {
		return []*binding.Attribute{
			binding.NewAttribute(binding.CKA_CLASS, class),
			binding.NewAttribute(binding.CKA_KEY_TYPE, uint(0x40)), // CKK_EC_EDWARDS
			binding.NewAttribute(binding.CKA_TOKEN, true),
			binding.NewAttribute(binding.CKA_LABEL, name),
			binding.NewAttribute(binding.CKA_ID, id),
			binding.NewAttribute(binding.CKA_EC_PARAMS, []byte{6, 3, 0x2B, 0x65, 0x70}), // 1.3.101.112, RFC 8410
		}
	}
	r.create(append(common(binding.CKO_PUBLIC_KEY),
		binding.NewAttribute(binding.CKA_EC_POINT, append([]byte{4, 32}, public...)))...)
	if private != nil {
		r.create(append(common(binding.CKO_PRIVATE_KEY),
			binding.NewAttribute(binding.CKA_PRIVATE, true),
			binding.NewAttribute(binding.CKA_SENSITIVE, true),
			binding.NewAttribute(binding.CKA_EXTRACTABLE, false),
			binding.NewAttribute(binding.CKA_SIGN, true),
			binding.NewAttribute(binding.CKA_VALUE, private.Seed()))...)
	}
}

func newSet(t *testing.T, version byte, size int, kind keys.Kind) keys.Set {
	t.Helper()
	set := keys.Set{Version: version}
	for i, k := range []*keys.Key{&set.ENC, &set.MAC, &set.DEK}[:len(kind.Purposes())] {
		b := make([]byte, size)
		for j := range b {
			b[j] = 0x60 + version + byte(16*i+j)
		}
		var err error
		if *k, err = keys.NewKey(b); err != nil {
			t.Fatal(err)
		}
	}
	return set
}

// The same masters in the encrypted file and in the token answer everything
// alike.
func TestAnswersAsTheFileDoes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := openToken(t, uri(t))
	r := newRaw(t, s)
	f, err := file.Create(ctx, filepath.Join(t.TempDir(), "keys"), []byte("x"),
		file.Options{Cost: file.Cost{Time: 1, Memory: 8, Threads: 1}, Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, size := range []int{16, 24, 32} {
		version := byte(i + 1)
		set := newSet(t, version, size, keys.SecurityDomain)
		r.set("sd", 1, set)
		if _, err := f.AddSet(ctx, file.New{Name: "sd", Kind: keys.SecurityDomain}, set); err != nil {
			t.Fatal(err)
		}
		if size != 24 {
			set := newSet(t, version, size, keys.Read)
			r.set("read", 2, set)
			if _, err := f.AddSet(ctx, file.New{Name: "read", Kind: keys.Read}, set); err != nil {
				t.Fatal(err)
			}
		}
		k := newSet(t, version+0x20, size, keys.Read).ENC
		r.aes("ledger", id(5, version, 0), k.Bytes())
		if _, err := f.AddLedger(ctx, file.New{Name: "ledger", Kind: keys.Ledger, Version: version}, k); err != nil {
			t.Fatal(err)
		}
	}
	for kind, name := range map[byte]string{3: "issuer", 4: "counter"} {
		private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{kind}, 32))
		r.ed25519(name, id(kind, 1, 0), private, private.Public().(ed25519.PublicKey))
		n := file.New{Name: name, Kind: map[byte]keys.Kind{3: keys.IssuerSigning, 4: keys.CounterSigning}[kind]}
		if _, err := f.AddSigning(ctx, n, private); err != nil {
			t.Fatal(err)
		}
	}
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)).Public().(ed25519.PublicKey)
	r.ed25519("public", id(3, 7, 0), nil, public)
	if _, err := f.AddPublic(ctx, file.New{Name: "public", Kind: keys.IssuerSigning, Version: 7}, public); err != nil {
		t.Fatal(err)
	}

	// What is asked of both. Errors are compared by what they wrap.
	sentinels := []error{keys.ErrNotFound, keys.ErrWrongKind, keys.ErrPublicOnly, keys.ErrDiversifier, keys.ErrDiversificationData}
	same := func(what string, ask func(keys.Store) (any, error)) {
		t.Helper()
		want, errFile := ask(f)
		got, errToken := ask(s)
		if (errFile == nil) != (errToken == nil) {
			t.Errorf("%s: file %v, token %v", what, errFile, errToken)
			return
		}
		for _, sentinel := range sentinels {
			if errors.Is(errFile, sentinel) != errors.Is(errToken, sentinel) {
				t.Errorf("%s: file %v, token %v", what, errFile, errToken)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-file +token):\n%s", what, diff)
		}
	}
	same("entries", func(s keys.Store) (any, error) {
		list, err := s.Entries(ctx)
		for i := range list {
			list[i].Created = time.Time{} // imported without a date
		}
		return list, err
	})
	data, zeros := []byte("0123456789"), make([]byte, 10)
	aid := iso7816.MustAID("F0465245454152454101")
	for _, name := range []string{"sd", "read", "ledger", "issuer", "counter", "public", "none"} {
		for version := range byte(5) {
			ref := keys.Ref{Name: name, Version: version}
			for _, d := range [][]byte{data, zeros, nil} {
				for _, m := range []keys.Method{keys.MethodSP800108, keys.MethodKDF3, keys.MethodAN10922, "other"} {
					same(fmt.Sprintf("security domain %v %s %x", ref, m, d), func(s keys.Store) (any, error) {
						return s.SecurityDomainKeys(ctx, ref, m, d)
					})
					same(fmt.Sprintf("read %v %s %x", ref, m, d), func(s keys.Store) (any, error) {
						return s.ReadKeys(ctx, ref, m, aid, d)
					})
				}
			}
			same(fmt.Sprintf("digest %v", ref), func(s keys.Store) (any, error) { return s.Digest(ctx, ref, data) })
			same(fmt.Sprintf("empty digest %v", ref), func(s keys.Store) (any, error) { return s.Digest(ctx, ref, nil) })
			same(fmt.Sprintf("public key %v", ref), func(s keys.Store) (any, error) { return s.PublicKey(ctx, ref) })
			for _, kind := range keys.Kinds() {
				same(fmt.Sprintf("sign %v %s", ref, kind), func(s keys.Store) (any, error) { return s.Sign(ctx, ref, kind, data) })
			}
		}
	}
	if problems, err := s.Problems(ctx); err != nil || len(problems) != 0 {
		t.Errorf("problems %v, %v", problems, err)
	}
}

func TestMastersStay(t *testing.T) {
	t.Parallel()
	s := openToken(t, uri(t))
	r := newRaw(t, s)
	r.set("sd", 1, newSet(t, 1, 16, keys.SecurityDomain))
	for _, m := range []keys.Method{keys.MethodNone, keys.MethodVISA2, keys.MethodEMV} {
		set, err := s.SecurityDomainKeys(t.Context(), keys.Ref{Name: "sd"}, m, []byte("0123456789"))
		if !errors.Is(err, keys.ErrMastersStay) || !bytes.Contains([]byte(err.Error()), []byte(m)) || !set.ENC.IsZero() {
			t.Errorf("%s: %v, error %v", m, set, err)
		}
	}
}

// A key that can be read out of the token is not used, even for what would be
// possible.
func TestExposedKeysAreRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := openToken(t, uri(t))
	r := newRaw(t, s)
	value := bytes.Repeat([]byte{7}, 16)
	r.aes("extractable", id(5, 1, 0), value, binding.NewAttribute(binding.CKA_EXTRACTABLE, true))
	r.aes("readable", id(5, 1, 0), value, binding.NewAttribute(binding.CKA_SENSITIVE, false))
	for _, name := range []string{"extractable", "readable"} {
		if _, err := s.Digest(ctx, keys.Ref{Name: name}, nil); !errors.Is(err, pkcs11.ErrExposed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if list, err := s.Entries(ctx); err != nil || len(list) != 0 {
		t.Errorf("entries %v, %v", list, err)
	}
	problems, err := s.Problems(ctx)
	if err != nil || len(problems) != 2 || !errors.Is(problems[0], pkcs11.ErrExposed) {
		t.Errorf("problems %v, %v", problems, err)
	}
	// It is not this module's to be deleted while it is in use elsewhere.
	if err := s.Remove(ctx, keys.Ref{Name: "readable", Version: 1}); !errors.Is(err, pkcs11.ErrNotRetired) {
		t.Errorf("removing: %v", err)
	}
}

func TestDamagedKeys(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := openToken(t, uri(t))
	r := newRaw(t, s)
	value := bytes.Repeat([]byte{7}, 16)
	r.aes("no-mac", id(2, 1, 1), value)
	r.aes("unfinished", id(1, 2, 2), value)
	r.aes("unfinished", id(1, 2, 3), value)
	r.aes("twice", id(5, 1, 0), value)
	r.aes("twice", id(5, 1, 0), value)
	r.aes("sizes", id(2, 1, 1), value)
	r.aes("sizes", id(2, 1, 2), append(value, value...))
	r.aes("two-kinds", id(5, 1, 0), value)
	r.aes("two-kinds", id(2, 2, 1), value)
	r.aes("two-kinds", id(2, 2, 2), value)
	r.aes("no-sign", id(5, 1, 0), value, binding.NewAttribute(binding.CKA_SIGN, false))
	r.aes("read-24", id(2, 1, 1), append(value, value[:8]...))
	r.aes("read-24", id(2, 1, 2), append(value, value[:8]...))
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)).Public().(ed25519.PublicKey)
	r.ed25519("halves", id(3, 1, 0), private, other)
	// Not this module's.
	r.aes("foreign", []byte{1}, value)
	r.aes("foreign", id(7, 1, 0), value)
	r.aes("foreign", id(5, 0, 0), value)
	r.aes("foreign", id(5, 1, 1), value)
	r.aes("foreign key", id(5, 1, 0), value)

	read := func(name string, version byte) error {
		_, err := s.ReadKeys(ctx, keys.Ref{Name: name, Version: version}, keys.MethodSP800108, iso7816.MustAID("F000000001"), []byte("0123456789"))
		return err
	}
	digest := func(name string) error {
		_, err := s.Digest(ctx, keys.Ref{Name: name}, nil)
		return err
	}
	_, errSD := s.SecurityDomainKeys(ctx, keys.Ref{Name: "unfinished", Version: 2}, keys.MethodKDF3, []byte("0123456789"))
	_, errSign := s.Sign(ctx, keys.Ref{Name: "halves"}, keys.IssuerSigning, nil)
	for what, err := range map[string]error{
		"no MAC": read("no-mac", 1), "unfinished": errSD, "twice": digest("twice"), "sizes": read("sizes", 1),
		"two kinds": read("two-kinds", 2), "no sign": digest("no-sign"), "24 bytes": read("read-24", 1), "halves": errSign,
	} {
		if !errors.Is(err, pkcs11.ErrDamaged) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if err := digest("foreign"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("a foreign key was used: %v", err)
	}
	list, err := s.Entries(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "halves" { // the token can't tell
		t.Errorf("entries %v, %v", list, err)
	}
	problems, err := s.Problems(ctx)
	if err != nil || len(problems) != 8 {
		t.Errorf("%d problems %v, %v", len(problems), problems, err)
	}
	// An unfinished set is no key, so the next one may be asked for without a
	// version; and it can be taken away.
	if _, err := s.SecurityDomainKeys(ctx, keys.Ref{Name: "unfinished"}, keys.MethodKDF3, []byte("0123456789")); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("unfinished set without version: %v", err)
	}
	if e, err := s.Generate(ctx, pkcs11.New{Name: "unfinished", Kind: keys.SecurityDomain}); err != nil || e.Version != 3 {
		t.Errorf("generated %v, %v", e, err)
	}
	if err := s.Remove(ctx, keys.Ref{Name: "unfinished", Version: 2}); err != nil {
		t.Error(err)
	}
	if problems, err := s.Problems(ctx); err != nil || len(problems) != 7 {
		t.Errorf("%d problems %v, %v", len(problems), problems, err)
	}
}

func TestDevelopmentKeyIsMarked(t *testing.T) {
	t.Parallel()
	s := openToken(t, uri(t))
	r := newRaw(t, s)
	set := keys.DevelopmentSet()
	r.set("sd", 1, set)
	list, err := s.Entries(t.Context())
	if err != nil || len(list) != 1 || !list[0].Development || list[0].Check != set.Check() {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestLifeOfKeys(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	u := uri(t)
	s := openToken(t, u)
	data := []byte("0123456789")
	for _, kind := range keys.Kinds() {
		if kind == keys.Token || kind == keys.Receipt {
			if e, err := s.Generate(ctx, pkcs11.New{Name: string(kind), Kind: kind}); !errors.Is(err, keys.ErrWrongKind) {
				t.Errorf("%s: %+v, %v", kind, e, err)
			}
			continue
		}
		for i, algorithm := range append([]string{""}, kind.Algorithms()...) {
			e, err := s.Generate(ctx, pkcs11.New{Name: string(kind), Kind: kind, Algorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			if algorithm == "" {
				algorithm = kind.Algorithms()[0]
			}
			want := keys.Entry{Name: string(kind), Kind: kind, Version: byte(i + 1), Algorithm: algorithm, Check: e.Check, Created: noon()}
			if diff := cmp.Diff(want, e); diff != "" {
				t.Error(diff)
			}
			if e.Check == "" {
				t.Errorf("%s: no check value", kind)
			}
		}
	}
	list, err := s.Entries(ctx)
	if err != nil || len(list) != 4+3+2+2+4+2 {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	// What the token holds can't be read out of it.
	r := newRaw(t, s)
	objects := r.objects()
	if len(objects) != 4*3+3*2+2*2+2*2+4+2*2 {
		t.Fatalf("%d objects", len(objects))
	}
	secret := 0
	for _, o := range objects {
		a, err := r.ctx.GetAttributeValue(r.session, o, []*binding.Attribute{binding.NewAttribute(binding.CKA_CLASS, nil)})
		if err != nil {
			t.Fatal(err)
		}
		if a[0].Value[0] == binding.CKO_PUBLIC_KEY {
			continue
		}
		secret++
		_, err = r.ctx.GetAttributeValue(r.session, o, []*binding.Attribute{binding.NewAttribute(binding.CKA_VALUE, nil)})
		if !errors.Is(err, binding.Error(binding.CKR_ATTRIBUTE_SENSITIVE)) {
			t.Errorf("reading a key: error %v", err)
		}
	}
	if secret != 28 {
		t.Errorf("%d secret objects", secret)
	}

	signing := keys.Ref{Name: string(keys.IssuerSigning)}
	signature, err := s.Sign(ctx, signing, keys.IssuerSigning, data)
	if err != nil {
		t.Fatal(err)
	}
	public, err := s.PublicKey(ctx, signing)
	if err != nil || !ed25519.Verify(public, data, signature) {
		t.Errorf("public key %X, %v", public, err)
	}
	// The newest retired, the one before is used; retired, it verifies.
	e, err := s.Retire(ctx, signing)
	if err != nil || e.Version != 2 || !e.Retired.Equal(noon()) {
		t.Errorf("retired %+v, %v", e, err)
	}
	newest := keys.Ref{Name: signing.Name, Version: 2}
	if _, err := s.Retire(ctx, newest); !errors.Is(err, keys.ErrRetired) {
		t.Errorf("retired twice: %v", err)
	}
	if _, err := s.Sign(ctx, newest, keys.IssuerSigning, data); !errors.Is(err, keys.ErrRetired) {
		t.Errorf("signed with a retired key: %v", err)
	}
	if got, err := s.PublicKey(ctx, newest); err != nil || !got.Equal(public) {
		t.Errorf("retired public key %X, %v", got, err)
	}
	if got, err := s.PublicKey(ctx, signing); err != nil || got.Equal(public) {
		t.Errorf("newest public key %X, %v", got, err)
	}
	if e, err = s.Reinstate(ctx, newest); err != nil || !e.Retired.IsZero() {
		t.Errorf("reinstated %+v, %v", e, err)
	}
	if _, err := s.Reinstate(ctx, newest); !errors.Is(err, pkcs11.ErrNotRetired) {
		t.Errorf("reinstated twice: %v", err)
	}
	if err := s.Remove(ctx, newest); !errors.Is(err, pkcs11.ErrNotRetired) {
		t.Errorf("removed: %v", err)
	}
	if err := s.Remove(ctx, signing); err == nil {
		t.Error("removed without a version")
	}

	set := keys.Ref{Name: string(keys.SecurityDomain), Version: 4}
	if _, err := s.Retire(ctx, set); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SecurityDomainKeys(ctx, set, keys.MethodSP800108, data); !errors.Is(err, keys.ErrRetired) {
		t.Errorf("derived from a retired key: %v", err)
	}
	if got, err := s.SecurityDomainKeys(ctx, keys.Ref{Name: set.Name}, keys.MethodSP800108, data); err != nil || got.Version != 3 {
		t.Errorf("newest %v, %v", got, err)
	}
	if err := s.Remove(ctx, set); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SecurityDomainKeys(ctx, set, keys.MethodSP800108, data); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("removed key: %v", err)
	}

	for what, tt := range map[string]struct {
		n    pkcs11.New
		want error // nil: any
	}{
		"there":     {pkcs11.New{Name: "ledger", Kind: keys.Ledger, Version: 2}, keys.ErrExists},
		"kind":      {pkcs11.New{Name: "ledger", Kind: keys.Read}, keys.ErrWrongKind},
		"algorithm": {pkcs11.New{Name: "x", Kind: keys.Read, Algorithm: keys.AES192}, nil},
		"no kind":   {pkcs11.New{Name: "x"}, nil},
		"name":      {pkcs11.New{Name: "x y", Kind: keys.Ledger}, nil},
		"version":   {pkcs11.New{Name: "x", Kind: keys.Ledger, Version: 128}, nil},
	} {
		if _, err := s.Generate(ctx, tt.n); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if _, err := s.Generate(ctx, pkcs11.New{Name: "last", Kind: keys.Ledger, Version: 127}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Generate(ctx, pkcs11.New{Name: "last", Kind: keys.Ledger}); err == nil {
		t.Error("a version after the last")
	}

	// It is all there when the token is opened again.
	before, err := s.Entries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Entries(ctx); !errors.Is(err, pkcs11.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	after, err := openToken(t, u).Entries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
}

func TestWrongPIN(t *testing.T) {
	t.Parallel()
	u := uri(t)
	asked := 0
	_, err := pkcs11.Open(t.Context(), u, pkcs11.Options{PIN: func(_ context.Context, token pkcs11.Token) ([]byte, error) {
		if asked++; token.Tries != pkcs11.TriesFull {
			t.Errorf("tries %v", token.Tries)
		}
		return []byte("wrong"), nil
	}})
	var refused *pkcs11.PINError
	if !errors.Is(err, pkcs11.ErrPIN) || !errors.As(err, &refused) || refused.Tries != pkcs11.TriesLow || asked != 1 {
		t.Errorf("asked %d times, error %v", asked, err)
	}
	// The next to be asked is told.
	s, err := pkcs11.Open(t.Context(), u, pkcs11.Options{PIN: func(_ context.Context, token pkcs11.Token) ([]byte, error) {
		if token.Tries != pkcs11.TriesLow {
			t.Errorf("tries %v", token.Tries)
		}
		return []byte(pin), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// A second login of the process would be let in with any PIN.
	if _, err := pkcs11.Open(t.Context(), u, pkcs11.Options{PIN: always("wrong")}); !errors.Is(err, pkcs11.ErrTokenInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := s.Entries(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConcurrency(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := openToken(t, uri(t))
	r := newRaw(t, s)
	set := newSet(t, 1, 32, keys.Read)
	r.set("read", 2, set)
	aid := iso7816.MustAID("F000000001")
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			data := []byte(fmt.Sprintf("%010d", i+1))
			want, err := keys.Diversify(keys.Read, keys.MethodSP800108, set, aid, data)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := s.ReadKeys(ctx, keys.Ref{Name: "read"}, keys.MethodSP800108, aid, data)
			if err != nil {
				t.Error(err)
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if i%8 == 0 {
				// Each gets a version of its own.
				if _, err := s.Generate(ctx, pkcs11.New{Name: "ledger", Kind: keys.Ledger}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if list, err := s.Entries(ctx); err != nil || len(list) != 5 {
		t.Errorf("%d entries, %v", len(list), err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	u := uri(t)
	s := openToken(t, u)
	list, err := pkcs11.Tokens(t.Context(), softHSM.module)
	if err != nil || len(list) != tokens {
		t.Fatalf("%d tokens, %v", len(list), err)
	}
	s.Close()
	// Each names itself.
	for _, token := range list {
		if token.Serial != s.Token().Serial {
			continue
		}
		if got := openToken(t, parse(t, token.URI(softHSM.module).String())).Token(); got.Serial != token.Serial {
			t.Errorf("opened %+v, want %+v", got, token)
		}
	}
	for what, tt := range map[string]struct {
		uri  string
		want error
	}{
		"several":    {"pkcs11:model=SoftHSM%20v2?module-path=" + softHSM.module, pkcs11.ErrSeveralTokens},
		"none":       {"pkcs11:token=none?module-path=" + softHSM.module, pkcs11.ErrNoToken},
		"empty":      {"pkcs11:serial=?module-path=" + softHSM.module, pkcs11.ErrNoToken},
		"version":    {"pkcs11:library-version=99.1?module-path=" + softHSM.module, pkcs11.ErrNoToken},
		"library":    {"pkcs11:library-manufacturer=other?module-path=" + softHSM.module, pkcs11.ErrNoToken},
		"slot":       {"pkcs11:slot-id=4294967295?module-path=" + softHSM.module, pkcs11.ErrNoToken},
		"missing":    {"pkcs11:?module-path=/no/such/library.so", pkcs11.ErrModule},
		"no library": {"pkcs11:?module-path=" + filepath.Join(softHSM.dir, "softhsm2.conf"), pkcs11.ErrModule},
	} {
		if _, err := pkcs11.Open(t.Context(), parse(t, tt.uri), pkcs11.Options{PIN: always("wrong")}); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// Keys that are given to the token answer as the same keys in the file do, and
// can't be read out of it afterwards.
func TestGivenKeys(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := openToken(t, uri(t))
	f, err := file.Create(ctx, filepath.Join(t.TempDir(), "keys"), []byte("x"),
		file.Options{Cost: file.Cost{Time: 1, Memory: 8, Threads: 1}, Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, private, err := ed25519.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	type store interface {
		keys.Store
		AddSet(context.Context, keys.New, keys.Set) (keys.Entry, error)
		AddDevelopment(context.Context, keys.New) (keys.Entry, error)
		AddLedger(context.Context, keys.New, keys.Key) (keys.Entry, error)
		AddSigning(context.Context, keys.New, ed25519.PrivateKey) (keys.Entry, error)
		AddPublic(context.Context, keys.New, ed25519.PublicKey) (keys.Entry, error)
	}
	sd, read := newSet(t, 3, 16, keys.SecurityDomain), newSet(t, 0, 32, keys.Read)
	var entries [2][]keys.Entry
	for i, to := range []store{f, s} {
		for _, add := range []func() (keys.Entry, error){
			func() (keys.Entry, error) {
				return to.AddSet(ctx, keys.New{Name: "sd", Kind: keys.SecurityDomain}, sd)
			},
			func() (keys.Entry, error) { return to.AddSet(ctx, keys.New{Name: "read", Kind: keys.Read}, read) },
			func() (keys.Entry, error) { return to.AddSet(ctx, keys.New{Name: "read", Kind: keys.Read}, read) },
			func() (keys.Entry, error) {
				return to.AddDevelopment(ctx, keys.New{Name: "practice", Kind: keys.Read})
			},
			func() (keys.Entry, error) {
				return to.AddLedger(ctx, keys.New{Name: "ledger", Kind: keys.Ledger}, read.ENC)
			},
			func() (keys.Entry, error) {
				return to.AddSigning(ctx, keys.New{Name: "issuer", Kind: keys.IssuerSigning}, private)
			},
			func() (keys.Entry, error) {
				return to.AddPublic(ctx, keys.New{Name: "theirs", Kind: keys.IssuerSigning}, private.Public().(ed25519.PublicKey))
			},
		} {
			if _, err := add(); err != nil {
				t.Fatal(err)
			}
		}
		for name, n := range map[string]keys.New{
			"version": {Name: "sd", Kind: keys.SecurityDomain, Version: 3}, "kind": {Name: "sd", Kind: keys.Read}, "algorithm": {Name: "x", Kind: keys.SecurityDomain, Algorithm: keys.AES256},
		} {
			if e, err := to.AddSet(ctx, n, sd); err == nil {
				t.Errorf("%s: added %+v", name, e)
			}
		}
		if _, err := to.AddSet(ctx, keys.New{Name: "x", Kind: keys.SecurityDomain}, keys.DevelopmentSet()); !errors.Is(err, keys.ErrDevelopmentKey) {
			t.Errorf("error %v", err)
		}
		if _, err := to.Sign(ctx, keys.Ref{Name: "theirs"}, keys.IssuerSigning, nil); !errors.Is(err, keys.ErrPublicOnly) {
			t.Errorf("error %v", err)
		}
		if entries[i], err = to.Entries(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(entries[0], entries[1]); diff != "" {
		t.Error(diff)
	}
	a, errA := f.ReadKeys(ctx, keys.Ref{Name: "read"}, keys.MethodSP800108, iso7816.MustAID("F0465245454152454101"), []byte("0123456789"))
	b, errB := s.ReadKeys(ctx, keys.Ref{Name: "read"}, keys.MethodSP800108, iso7816.MustAID("F0465245454152454101"), []byte("0123456789"))
	if errA != nil || errB != nil || !a.ENC.Equal(b.ENC) || !a.MAC.Equal(b.MAC) {
		t.Errorf("%v and %v; errors %v, %v", a, b, errA, errB)
	}
	x, errX := f.Sign(ctx, keys.Ref{Name: "issuer"}, keys.IssuerSigning, []byte("message"))
	y, errY := s.Sign(ctx, keys.Ref{Name: "issuer"}, keys.IssuerSigning, []byte("message"))
	if errX != nil || errY != nil || !bytes.Equal(x, y) {
		t.Errorf("%x and %x; errors %v, %v", x, y, errX, errY)
	}
	r := newRaw(t, s)
	for _, o := range r.objects() {
		got, err := r.ctx.GetAttributeValue(r.session, o, []*binding.Attribute{binding.NewAttribute(binding.CKA_VALUE, nil)})
		if err == nil && len(got[0].Value) > 0 {
			t.Errorf("object %d gives its value away", o)
		}
		want := []*binding.Attribute{
			binding.NewAttribute(binding.CKA_TOKEN, true), binding.NewAttribute(binding.CKA_PRIVATE, true),
			binding.NewAttribute(binding.CKA_SENSITIVE, true), binding.NewAttribute(binding.CKA_EXTRACTABLE, false),
		}
		if class, err := r.ctx.GetAttributeValue(r.session, o, []*binding.Attribute{binding.NewAttribute(binding.CKA_CLASS, nil)}); err != nil || class[0].Value[0] == binding.CKO_PUBLIC_KEY {
			continue
		}
		for _, a := range want {
			if got, err := r.ctx.GetAttributeValue(r.session, o, []*binding.Attribute{binding.NewAttribute(a.Type, nil)}); err != nil || !bytes.Equal(got[0].Value, a.Value) {
				t.Errorf("object %d: attribute %#x is %v, error %v", o, a.Type, got, err)
			}
		}
	}
	if _, err := s.SchemeKey(ctx, keys.Ref{Name: "token"}, keys.Token); !errors.Is(err, keys.ErrWrongKind) {
		t.Errorf("error %v", err)
	}
}
