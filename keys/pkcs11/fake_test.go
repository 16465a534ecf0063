package pkcs11

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// fakeToken is a token that does what SoftHSM2 does not: lock its PIN, be
// taken away, lack mechanisms, hang. It has one ledger key and one key set for
// reading, all with the same bytes.
type fakeToken struct {
	mu        sync.Mutex
	flags     uint
	missing   uint  // a mechanism that it lacks
	refuse    error // answer to a login
	fail      error // answer to everything after it
	logins    int
	in        bool
	sessions  map[uint]bool
	next      uint
	released  int
	made      []keys.Purpose
	full      int // the key for which it has no room
	destroyed []uint
	created   map[uint]fakeObject
	given     [][]byte      // values of keys, as createObject got them and not copied
	garbles   bool          // keeps another key than it is given
	readable  bool          // keeps every key so that it can be read
	hang      chan struct{} // sign waits for it
	began     chan struct{}
}

// fakeObject is one that was made by createObject.
type fakeObject struct {
	label string
	id    objectID
	value []byte
}

var fakeKey = []byte("0123456789abcdef")

var fakeObjects = []objectID{
	{kind: keys.Ledger, version: 1},
	{kind: keys.Read, version: 1, purpose: keys.PurposeENC},
	{kind: keys.Read, version: 1, purpose: keys.PurposeMAC},
}

func newFake() *fakeToken {
	return &fakeToken{flags: ckfTokenInitialized | ckfUserPINInitialized, sessions: map[uint]bool{}, created: map[uint]fakeObject{}}
}

func (f *fakeToken) info() (libraryInfo, error)               { return libraryInfo{"maker", "library", 2, 40}, nil }
func (f *fakeToken) slots() ([]uint, error)                   { return []uint{1}, nil }
func (f *fakeToken) slotInfo(uint) (slotInfo, error)          { return slotInfo{}, nil }
func (f *fakeToken) release()                                 { f.released++ }
func (f *fakeToken) setAttribute(uint, uint, attribute) error { return f.fail }

func (f *fakeToken) createObject(_ uint, template []attribute) (uint, error) {
	handle, err := f.generateKey(0, 0, template)
	var o fakeObject
	for _, a := range template {
		switch a.typ {
		case ckaLabel:
			o.label = a.value.(string)
		case ckaID:
			o.id, _ = parseID(a.value.([]byte))
		case ckaValue:
			f.given = append(f.given, a.value.([]byte))
			o.value = slices.Clone(a.value.([]byte))
		}
	}
	if f.garbles {
		o.value[0] ^= 1
	}
	if err == nil {
		f.created[handle] = o
	}
	return handle, err
}

func (f *fakeToken) tokenInfo(uint) (tokenInfo, error) {
	return tokenInfo{"fake", "maker", "model", "serial", f.flags}, nil
}

func (f *fakeToken) mechanism(_, m uint) (uint, error) {
	if m == f.missing {
		return 0, nil
	}
	return ckfSign | ckfEncrypt, nil
}

func (f *fakeToken) openSession(uint, bool) (uint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return 0, f.fail
	}
	f.next++
	f.sessions[f.next] = true
	return f.next, nil
}

func (f *fakeToken) closeSession(session uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.sessions[session] {
		return ckrSessionHandleInvalid
	}
	delete(f.sessions, session)
	if len(f.sessions) == 0 {
		f.in = false
	}
	return nil
}

func (f *fakeToken) loggedIn(uint) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.in, f.fail
}

func (f *fakeToken) login(_ uint, pin []byte) error {
	f.logins++
	if f.refuse != nil {
		f.flags |= ckfUserPINCountLow
		return f.refuse
	}
	f.in = true
	return nil
}

func (f *fakeToken) find(_ uint, template []attribute) (out []uint, err error) {
	for _, a := range template {
		if a.typ == ckaClass && a.value != uint(ckoSecretKey) {
			return nil, f.fail
		}
	}
	for _, a := range template {
		if a.typ != ckaLabel {
			continue
		}
		for i, id := range fakeObjects {
			if a.value == string(id.kind) {
				out = append(out, uint(i))
			}
		}
		for handle, o := range f.created {
			if a.value == o.label {
				out = append(out, handle)
			}
		}
	}
	return out, f.fail
}

func (f *fakeToken) attribute(_, object, typ uint) ([]byte, error) {
	number := func(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }
	o, made := f.created[object]
	if !made {
		o = fakeObject{string(fakeObjects[object].kind), fakeObjects[object], fakeKey}
	}
	switch typ {
	case ckaID:
		return o.id.bytes(), f.fail
	case ckaLabel:
		return []byte(o.label), f.fail
	case ckaKeyType:
		return number(ckkAES), f.fail
	case ckaValueLen:
		return number(16), f.fail
	case ckaSensitive, ckaSign:
		return []byte{1}, f.fail
	case ckaExtractable:
		if f.readable {
			return []byte{1}, f.fail
		}
		return []byte{0}, f.fail
	case ckaEncrypt:
		return []byte{1}, f.fail
	}
	return nil, ckrAttributeTypeInvalid
}

func (f *fakeToken) destroy(_, object uint) error {
	f.destroyed = append(f.destroyed, object)
	delete(f.created, object)
	return f.fail
}

func (f *fakeToken) generateKey(_, _ uint, template []attribute) (uint, error) {
	for _, a := range template {
		if a.typ == ckaID {
			id, _ := parseID(a.value.([]byte))
			f.made = append(f.made, id.purpose)
		}
	}
	if len(f.made) == f.full {
		return 0, code(0x31)
	}
	return 100 + uint(len(f.made)), f.fail
}

func (f *fakeToken) generateKeyPair(uint, uint, []attribute, []attribute) (uint, uint, error) {
	return 0, 0, f.fail
}

// value is that of an AES key.
func (f *fakeToken) value(object uint) []byte {
	if o, ok := f.created[object]; ok {
		return o.value
	}
	return fakeKey
}

func (f *fakeToken) sign(_, _, object uint, message []byte) ([]byte, error) {
	if f.hang != nil {
		f.began <- struct{}{}
		<-f.hang
	}
	mac, err := sp800.Sum(f.value(object), message)
	if err == nil {
		err = f.fail
	}
	return mac[:], err
}

func (f *fakeToken) encrypt(_, _, object uint, data []byte) ([]byte, error) {
	out := make([]byte, len(data))
	block, err := aes.NewCipher(f.value(object))
	if err != nil {
		return nil, err
	}
	block.Encrypt(out, data)
	return out, f.fail
}

func openFake(t *testing.T, f *fakeToken, o Options) (*Store, error) {
	t.Helper()
	u, err := ParseURI("pkcs11:token=fake;library-version=2.40")
	if err != nil {
		t.Fatal(err)
	}
	return open(t.Context(), f, u, "", o)
}

func right(context.Context, Token) ([]byte, error) { return []byte("1234"), nil }

func mustOpen(t *testing.T, f *fakeToken) *Store {
	t.Helper()
	s, err := openFake(t, f, Options{PIN: right, Now: func() time.Time { return time.Unix(1, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each refusal of a PIN is an error of its own; none costs more than one try,
// and those that are clear beforehand none.
func TestPINRefusals(t *testing.T) {
	const ready = ckfTokenInitialized | ckfUserPINInitialized
	for _, tt := range []struct {
		name   string
		flags  uint
		refuse error
		o      Options
		want   error
		logins int
		tries  Tries
	}{
		{"wrong", ready, ckrPINIncorrect, Options{PIN: right}, ErrPIN, 1, TriesLow},
		{"too short", ready, ckrPINLenRange, Options{PIN: right}, ErrPIN, 1, TriesLow},
		{"locked just now", ready, ckrPINLocked, Options{PIN: right}, ErrPINLocked, 1, TriesLocked},
		{"locked before", ready | ckfUserPINLocked, nil, Options{PIN: right}, ErrPINLocked, 0, TriesLocked},
		{"expired", ready, ckrPINExpired, Options{PIN: right}, ErrPINNotSet, 1, 0},
		{"not set", ckfTokenInitialized, nil, Options{PIN: right}, ErrPINNotSet, 0, 0},
		{"to be changed", ready | ckfUserPINToBeChanged, nil, Options{PIN: right}, ErrPINNotSet, 0, 0},
		{"final try", ready | ckfUserPINFinalTry, nil, Options{PIN: right}, ErrFinalTry, 0, 0},
		{"wrong final try", ready | ckfUserPINFinalTry, ckrPINIncorrect, Options{PIN: right, FinalTry: true}, ErrPIN, 1, TriesFinal},
		{"in use", ready, ckrUserAlreadyLoggedIn, Options{PIN: right}, ErrTokenInUse, 1, 0},
		{"removed", ready, ckrTokenNotPresent, Options{PIN: right}, ErrTokenRemoved, 1, 0},
		{"pad", ready | ckfProtectedPath, nil, Options{PIN: right}, ErrUnsupportedURI, 0, 0},
		{"empty", ready, nil, Options{PIN: func(context.Context, Token) ([]byte, error) { return nil, nil }}, ErrPIN, 0, 0},
		{"not answered", ready, nil, Options{PIN: func(context.Context, Token) ([]byte, error) { return nil, context.Canceled }}, context.Canceled, 0, 0},
		{"not initialised", 0, nil, Options{PIN: right}, ErrNoToken, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			f.flags, f.refuse = tt.flags, tt.refuse
			s, err := openFake(t, f, tt.o)
			if !errors.Is(err, tt.want) || s != nil || f.logins != tt.logins {
				t.Errorf("error %v, want %v; %d logins", err, tt.want, f.logins)
			}
			var refused *PINError
			if errors.As(err, &refused) && (refused.Tries != tt.tries || !strings.Contains(err.Error(), tt.tries.String())) || refused == nil && tt.tries != 0 {
				t.Errorf("error %v", err)
			}
			if len(f.sessions) != 0 {
				t.Errorf("%d sessions left", len(f.sessions))
			}
		})
	}
	f := newFake()
	f.flags |= ckfUserPINFinalTry
	s, err := openFake(t, f, Options{FinalTry: true, PIN: func(_ context.Context, token Token) ([]byte, error) {
		if token.Tries != TriesFinal {
			t.Errorf("tries %v", token.Tries)
		}
		return []byte("1234"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// In a process that is logged in already a token may take any PIN.
func TestSecondLogin(t *testing.T) {
	f := newFake()
	f.in = true
	if _, err := openFake(t, f, Options{PIN: right}); !errors.Is(err, ErrTokenInUse) || f.logins != 0 {
		t.Errorf("error %v after %d logins", err, f.logins)
	}
}

func TestPINIsErased(t *testing.T) {
	pin := []byte("1234")
	s, err := openFake(t, newFake(), Options{PIN: func(context.Context, Token) ([]byte, error) { return pin, nil }})
	if err != nil || !bytes.Equal(pin, make([]byte, 4)) {
		t.Errorf("PIN %q, error %v", pin, err)
	}
	s.Close()
}

func TestRemovedToken(t *testing.T) {
	for _, c := range []code{ckrDeviceRemoved, ckrTokenNotPresent, ckrSessionHandleInvalid, ckrSessionClosed, ckrUserNotLoggedIn} {
		f := newFake()
		s := mustOpen(t, f)
		ref := keys.Ref{Name: "ledger"}
		if _, err := s.Digest(t.Context(), ref, nil); err != nil {
			t.Fatal(err)
		}
		f.fail = c
		if _, err := s.Digest(t.Context(), ref, nil); !errors.Is(err, ErrTokenRemoved) {
			t.Errorf("%v: error %v", c, err)
		}
		// Put back, it has forgotten the login.
		f.fail, f.in = nil, false
		if _, err := s.Digest(t.Context(), ref, nil); !errors.Is(err, ErrTokenRemoved) {
			t.Errorf("%v, put back: error %v", c, err)
		}
		s.Close()
		if f.released != 1 || len(f.sessions) != 0 {
			t.Errorf("%v: released %d times, %d sessions left", c, f.released, len(f.sessions))
		}
	}
	// Taken out and put back between two calls: an empty token would answer
	// that there is no such key.
	f := newFake()
	s := mustOpen(t, f)
	f.in = false
	if _, err := s.Digest(t.Context(), keys.Ref{Name: "ledger"}, nil); !errors.Is(err, ErrTokenRemoved) {
		t.Errorf("without login: error %v", err)
	}
	s.Close()
}

func TestMissingMechanism(t *testing.T) {
	f := newFake()
	f.missing = ckmAESCMAC
	s := mustOpen(t, f)
	defer s.Close()
	_, errDigest := s.Digest(t.Context(), keys.Ref{Name: "ledger"}, nil)
	_, errRead := s.ReadKeys(t.Context(), keys.Ref{Name: "read"}, keys.MethodSP800108, iso7816.MustAID("F000000001"), []byte("0123456789"))
	for _, err := range []error{errDigest, errRead} {
		if !errors.Is(err, ErrMechanism) || !strings.Contains(err.Error(), "CKM_AES_CMAC") {
			t.Errorf("error %v", err)
		}
	}
	f = newFake()
	f.missing = ckmAESKeyGen
	s2 := mustOpen(t, f)
	defer s2.Close()
	if _, err := s2.Generate(t.Context(), New{Name: "x", Kind: keys.Ledger}); !errors.Is(err, ErrMechanism) {
		t.Errorf("error %v", err)
	}
}

// ENC is what makes a set, so it is made last; and what was made before the
// token is full is taken away again.
func TestFailedGeneration(t *testing.T) {
	f := newFake()
	f.full = 3
	s := mustOpen(t, f)
	defer s.Close()
	_, err := s.Generate(t.Context(), New{Name: "sd", Kind: keys.SecurityDomain})
	if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "CKR_DEVICE_MEMORY") {
		t.Errorf("error %v", err)
	}
	if want := []keys.Purpose{keys.PurposeDEK, keys.PurposeMAC, keys.PurposeENC}; !slices.Equal(f.made, want) {
		t.Errorf("made %v, want %v", f.made, want)
	}
	if want := []uint{101, 102}; !slices.Equal(f.destroyed, want) {
		t.Errorf("took away %v, want %v", f.destroyed, want)
	}
}

// A key that is taken in is compared by computing with it in the token; one that
// is not the same, or can be read there, is taken away again. Whatever comes of
// it, the copy that was made of the key is erased.
func TestTakenIn(t *testing.T) {
	set := func() keys.Set {
		var set keys.Set
		for i, k := range []*keys.Key{&set.ENC, &set.MAC, &set.DEK} {
			*k, _ = keys.NewKey(bytes.Repeat([]byte{byte(i + 1)}, 16))
		}
		return set
	}
	for _, tt := range []struct {
		name  string
		f     func(*fakeToken)
		want  error
		left  int
		given int // keys that the token got to see
	}{
		{"whole", func(*fakeToken) {}, nil, 3, 3},
		{"by CMAC", func(f *fakeToken) { f.missing = ckmAESECB }, nil, 3, 3},
		{"another key", func(f *fakeToken) { f.garbles = true }, ErrToken, 0, 1},
		{"another key, by CMAC", func(f *fakeToken) { f.garbles, f.missing = true, ckmAESECB }, ErrToken, 0, 1},
		{"can be read", func(f *fakeToken) { f.readable = true }, ErrExposed, 0, 3},
		{"no room", func(f *fakeToken) { f.full = 3 }, ErrToken, 0, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			tt.f(f)
			s := mustOpen(t, f)
			defer s.Close()
			given := set()
			e, err := s.AddSet(t.Context(), New{Name: "sd", Kind: keys.SecurityDomain}, given)
			if !errors.Is(err, tt.want) || err == nil && f.missing == 0 && e.Check != given.Check() {
				t.Errorf("%+v, error %v, want %v", e, err, tt.want)
			}
			if len(f.created) != tt.left || len(f.given) != tt.given {
				t.Errorf("%d keys left, %d given", len(f.created), len(f.given))
			}
			for _, b := range f.given {
				if !bytes.Equal(b, make([]byte, 16)) {
					t.Errorf("not erased: %x", b)
				}
			}
		})
	}
	// The token never comes to it.
	f := newFake()
	s := mustOpen(t, f)
	defer s.Close()
	own := &given{parts: map[keys.Purpose][]byte{0: []byte("0123456789abcdef")}}
	_, err := s.addGiven(t.Context(), New{Name: "ledger", Kind: keys.Ledger, Algorithm: keys.AES128, Version: 1}, own, func(uint, templates) error {
		t.Error("made")
		return nil
	})
	if !errors.Is(err, keys.ErrExists) || !bytes.Equal(own.parts[0], make([]byte, 16)) {
		t.Errorf("error %v, the key is %q", err, own.parts[0])
	}
	// It comes to it when nobody waits any more: the key is gone.
	own = &given{parts: map[keys.Purpose][]byte{0: []byte("0123456789abcdef")}}
	own.taken.Store(true)
	if _, err := s.addGiven(t.Context(), New{Name: "late", Kind: keys.Ledger, Algorithm: keys.AES128}, own, func(uint, templates) error {
		t.Error("made")
		return nil
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// A signing key's seed.
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.given = nil
	s.AddSigning(t.Context(), New{Name: "issuer", Kind: keys.IssuerSigning}, private) // the fake shows no such keys
	if len(f.given) == 0 || !bytes.Equal(f.given[0], make([]byte, 32)) {
		t.Errorf("%x", f.given)
	}
}

func TestOtherFailures(t *testing.T) {
	f := newFake()
	s := mustOpen(t, f)
	defer s.Close()
	f.fail = code(5)
	_, err := s.Digest(t.Context(), keys.Ref{Name: "ledger"}, nil)
	if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "CKR_GENERAL_ERROR") {
		t.Errorf("error %v", err)
	}
	f.fail = nil
	if _, err := s.Digest(t.Context(), keys.Ref{Name: "ledger"}, nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A token that hangs does not hang who asks, and Close waits for it.
func TestCancelled(t *testing.T) {
	f := newFake()
	f.hang, f.began = make(chan struct{}), make(chan struct{}, 1)
	s := mustOpen(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error)
	go func() {
		_, err := s.Digest(ctx, keys.Ref{Name: "ledger"}, nil)
		asked <- err
	}()
	<-f.began
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Digest(ctx, keys.Ref{Name: "ledger"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("closed while the token was at work")
	default:
	}
	close(f.hang)
	<-closed
	if f.released != 1 || len(f.sessions) != 0 {
		t.Errorf("released %d times, %d sessions left", f.released, len(f.sessions))
	}
	if err := s.Close(); err != nil || f.released != 1 {
		t.Errorf("closed twice: %v, released %d times", err, f.released)
	}
}

// An operation that failed may have left its session in the middle of
// something: the session is not used again.
func TestSessionsAreNotReusedAfterFailure(t *testing.T) {
	f := newFake()
	s := mustOpen(t, f)
	defer s.Close()
	for range 3 {
		if _, err := s.Digest(t.Context(), keys.Ref{Name: "ledger"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if f.next != 2 {
		t.Errorf("%d sessions opened, 2 expected", f.next)
	}
	if _, err := s.Digest(t.Context(), keys.Ref{Name: "none"}, nil); !errors.Is(err, keys.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := s.Digest(t.Context(), keys.Ref{Name: "ledger"}, nil); err != nil || f.next != 3 {
		t.Errorf("%d sessions opened, 3 expected; error %v", f.next, err)
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []objectID{
		{kind: keys.Ledger, version: 127}, {kind: keys.SecurityDomain, version: 1, purpose: keys.PurposeDEK, created: 1, retired: 1<<40 - 1},
	} {
		if got, ok := parseID(id.bytes()); !ok || got != id {
			t.Errorf("%+v became %+v", id, got)
		}
	}
	for _, bad := range []string{
		"", "FA", "FA\x01\x05\x01", "FA\x02\x05\x01\x00", "FA\x01\x00\x01\x00", "FA\x01\x07\x01\x00", "FA\x01\x05\x00\x00", "FA\x01\x05\x80\x00",
		"FA\x01\x05\x01\x01", "FA\x01\x02\x01\x00", "FA\x01\x02\x01\x03", "FA\x01\x05\x01\x00\x00", "FA\x01\x05\x01\x00" + "12345678901",
	} {
		if id, ok := parseID([]byte(bad)); ok {
			t.Errorf("%q became %+v", bad, id)
		}
	}
	point := strings.Repeat("p", 32)
	for b, ok := range map[string]bool{
		point: true, "\x04\x20" + point: true, "\x03\x21\x00" + point: true,
		"": false, "\x04\x20" + point[1:]: false, "\x04\x21" + point: false, point + "pp": false,
	} {
		if got := publicPoint([]byte(b)); (string(got) == point) != ok {
			t.Errorf("%q became %q", b, got)
		}
	}
}
