package list_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/reader/list"
)

var (
	issuer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	public = issuer.Public().(ed25519.PublicKey)
	made   = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
)

func sign(m []byte) ([]byte, error) { return ed25519.Sign(issuer, m), nil }

// numbers yields IDs of a range of numbers.
func numbers(from, to int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := from; i < to; i++ {
			if !yield("FA-"+strconv.Itoa(i), nil) {
				return
			}
		}
	}
}

func spec(number uint64) list.Spec {
	return list.Spec{Service: "library", Kind: list.Deny, Number: number, Made: made, Good: 24 * time.Hour, Salt: make([]byte, 16), Sign: sign}
}

func create(t testing.TB, s list.Spec, ids iter.Seq2[string, error]) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.list")
	if _, err := list.Create(path, s, ids); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string, o list.Options) *list.List {
	t.Helper()
	l, err := list.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestContains(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 1000, 20000} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			twice := func(yield func(string, error) bool) {
				numbers(0, n)(yield)
				numbers(0, min(n, 5))(yield)
			}
			l := open(t, create(t, spec(1), twice), list.Options{Key: public, Service: "library", After: 1})
			if h := l.Header(); h.Entries != n || !l.Verified() {
				t.Errorf("%+v, verified %v", h, l.Verified())
			}
			for i := range 2 * max(n, 10) {
				if got := l.Contains("FA-" + strconv.Itoa(i)); got != (i < n) {
					t.Fatalf("FA-%d: %v", i, got)
				}
			}
			if l.Stale(made.Add(24*time.Hour-1)) || !l.Stale(made.Add(24*time.Hour)) {
				t.Error("stale at the wrong time")
			}
		})
	}
}

// TestEveryByte: no byte of a list can be changed, added or lost unseen.
func TestEveryByte(t *testing.T) {
	path := create(t, spec(1), numbers(0, 5))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := list.Open(path, list.Options{Key: public}); err == nil {
			l.Close()
			t.Errorf("%s: list is taken", what)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v does not name the file", what, err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		refused(fmt.Sprintf("byte %d changed", i), b)
		refused(fmt.Sprintf("cut to %d bytes", i), good[:i])
	}
	refused("one byte more", append(bytes.Clone(good), 0))
}

func TestOpenRefuses(t *testing.T) {
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	signed := create(t, spec(5), numbers(0, 5))
	s := spec(5)
	s.Sign = nil
	unsigned := create(t, s, numbers(0, 5))
	for _, test := range []struct {
		name, path string
		o          list.Options
		want       error
		verified   bool
	}{
		{"signed", signed, list.Options{Key: public}, nil, true},
		{"unsigned", unsigned, list.Options{Key: public}, list.ErrUnsigned, false},
		{"unsigned, taken", unsigned, list.Options{Key: public, Unsigned: true}, nil, false},
		{"without a key", signed, list.Options{}, nil, false},
		{"another's key", signed, list.Options{Key: other.Public().(ed25519.PublicKey), Unsigned: true}, list.ErrSignature, false},
		{"another service", signed, list.Options{Key: public, Service: "door"}, list.ErrService, false},
		{"an older one", signed, list.Options{Key: public, After: 6}, list.ErrOlder, false},
		{"none", filepath.Join(t.TempDir(), "no.list"), list.Options{}, os.ErrNotExist, false},
		{"a directory", t.TempDir(), list.Options{}, list.ErrMalformed, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := list.Open(test.path, test.o)
			if !errors.Is(err, test.want) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if err == nil {
				if l.Verified() != test.verified {
					t.Errorf("verified %v", l.Verified())
				}
				l.Close()
			}
		})
	}
}

// TestCreateFails: what stood there before stays.
func TestCreateFails(t *testing.T) {
	path := create(t, spec(1), numbers(0, 5))
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("row 3 is cut short")
	for want, change := range map[string]func(*list.Spec){
		`"service"`: func(s *list.Spec) { s.Service = "" },
		`"kind"`:    func(s *list.Spec) { s.Kind = "maybe" },
		`"number"`:  func(s *list.Spec) { s.Number = 0 },
		`"stale"`:   func(s *list.Spec) { s.Good = 0 },
		`"salt"`:    func(s *list.Spec) { s.Salt = s.Salt[:3] },
		"no token":  func(s *list.Spec) { s.Sign = func([]byte) ([]byte, error) { return nil, errors.New("no token") } },
		"row 3":     func(*list.Spec) {},
	} {
		s, ids := spec(2), numbers(0, 9)
		change(&s)
		if want == "row 3" {
			ids = func(yield func(string, error) bool) { yield("", broken) }
		}
		if _, err := list.Create(path, s, ids); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("list is another one", err)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDelta(t *testing.T) {
	for _, test := range []struct{ a, b, c, d int }{{0, 100, 0, 100}, {0, 100, 50, 150}, {0, 100, 100, 200}, {0, 0, 0, 10}, {0, 10, 0, 0}, {0, 3000, 1, 3001}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			from, to := create(t, spec(1), numbers(test.a, test.b)), create(t, spec(2), numbers(test.c, test.d))
			old, next := open(t, from, list.Options{Key: public}), open(t, to, list.Options{Key: public})
			delta := filepath.Join(t.TempDir(), "x.delta")
			if err := list.CreateDelta(delta, old, next); err != nil {
				t.Fatal(err)
			}
			made := filepath.Join(t.TempDir(), "made.list")
			h, err := list.ApplyDelta(made, old, delta, list.Options{Key: public})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(next.Header(), h); diff != "" {
				t.Error(diff)
			}
			want, err := os.ReadFile(to)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(made); err != nil || !bytes.Equal(got, want) {
				t.Errorf("another list comes out: %d bytes, want %d; %v", len(got), len(want), err)
			}
		})
	}
}

// TestDeltaInPlace: the list that is open stays as it is.
func TestDeltaInPlace(t *testing.T) {
	from, to := create(t, spec(1), numbers(0, 10)), create(t, spec(2), numbers(5, 20))
	old, next := open(t, from, list.Options{Key: public}), open(t, to, list.Options{Key: public})
	delta := filepath.Join(t.TempDir(), "x.delta")
	if err := list.CreateDelta(delta, old, next); err != nil {
		t.Fatal(err)
	}
	if _, err := list.ApplyDelta(from, old, delta, list.Options{Key: public}); err != nil {
		t.Fatal(err)
	}
	if again := open(t, from, list.Options{Key: public}); !old.Contains("FA-0") || again.Contains("FA-0") || !again.Contains("FA-19") {
		t.Error("the list that was open has changed, or the new one is wrong")
	}
}

func TestDeltaRefused(t *testing.T) {
	other := spec(2)
	other.Salt = bytes.Repeat([]byte{1}, 16)
	a, b := open(t, create(t, spec(1), numbers(0, 10)), list.Options{}), open(t, create(t, spec(2), numbers(5, 20)), list.Options{})
	path := filepath.Join(t.TempDir(), "x.delta")
	for name, pair := range map[string][2]*list.List{
		"backwards":    {b, a},
		"another salt": {a, open(t, create(t, other, numbers(0, 10)), list.Options{})},
	} {
		if err := list.CreateDelta(path, pair[0], pair[1]); !errors.Is(err, list.ErrBase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := list.CreateDelta(path, a, b); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "made.list")
	for _, test := range []struct {
		name string
		from *list.List
		o    list.Options
		want error
	}{
		{"another list", b, list.Options{Key: public}, list.ErrBase},
		{"another's key", a, list.Options{Key: ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)}, list.ErrSignature},
		{"an older one", a, list.Options{Key: public, After: 3}, list.ErrOlder},
	} {
		if _, err := list.ApplyDelta(made, test.from, path, test.o); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		for _, b := range [][]byte{bad, good[:i], append(bytes.Clone(good), byte(i))} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := list.ApplyDelta(made, a, path, list.Options{Key: public}); err == nil {
				t.Fatalf("delta with byte %d changed, missing or added is taken", i)
			}
		}
	}
	if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) {
		t.Error("a list was made of what was refused", err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, n := range []int{0, 1, 5} {
		b, err := os.ReadFile(create(f, spec(1), numbers(0, n)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "a.list")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := list.Open(path, list.Options{})
		if err != nil {
			return
		}
		defer l.Close()
		l.Contains("FA-1")
		if l.Header().Entries*list.EntrySize > len(b) {
			t.Errorf("%d entries in %d bytes", l.Header().Entries, len(b))
		}
	})
}

// BenchmarkContains looks up beside a map of the same size, half of the IDs in it.
func BenchmarkContains(b *testing.B) {
	const n = 1_000_000
	l := open(b, create(b, spec(1), numbers(0, n)), list.Options{Key: public})
	in := make(map[string]struct{}, n)
	ids := make([]string, 0, 2*n)
	for id := range numbers(0, 2*n) {
		if ids = append(ids, id); len(ids) <= n {
			in[id] = struct{}{}
		}
	}
	measure := func(contains func(string) bool) time.Duration {
		began, found := time.Now(), 0
		for i := range b.N {
			if contains(ids[i*7919%len(ids)]) {
				found++
			}
		}
		fmt.Fprint(io.Discard, found)
		return time.Since(began)
	}
	b.ResetTimer()
	list := measure(l.Contains)
	b.StopTimer()
	bare := measure(func(id string) bool { _, ok := in[id]; return ok })
	b.ReportMetric(float64(list)/float64(bare), "×map")
}
