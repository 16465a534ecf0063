package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
	"github.com/freearea/freearea/staff"
)

// hire adds an operator; the first one acts with a second where there is one.
func hire(t testing.TB, path, first, second, id string, role staff.Role) error {
	t.Helper()
	o := ledgertest.Options(first, ledger.Options{})
	if second != "" {
		o.Second = ledgertest.Operator(second)
	}
	l, err := ledger.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = l.Append(t.Context(), ledger.Event{Actor: ledger.Actor{Counter: "w"}, Data: ledger.OperatorAdded{Operator: id, Role: role, Key: ledgertest.Operator(id).Public()}})
	return err
}

// does appends an event in the names of one or two.
func does(t testing.TB, path, first, second string, data ledger.Data) error {
	t.Helper()
	o := ledgertest.Options(first, ledger.Options{})
	if second != "" {
		o.Second = ledgertest.Operator(second)
	}
	l, err := ledger.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = l.Append(t.Context(), ledger.Event{Actor: ledger.Actor{Counter: "w"}, Data: data})
	return err
}

func TestStaff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	must(t, ledgertest.MustOpen(t, path, "sup", ledger.Options{Create: true}).Close())
	expect := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	exported := ledger.KeysExchanged{Direction: "export", Keys: []string{"read/1"}, With: "age1"}
	expect("keys, as supervisor", does(t, path, "sup", "", exported), ledger.ErrNotAllowed)
	expect("a stranger", does(t, path, "stranger", "", consent("c0", "library")), ledger.ErrOperator)
	expect("the first custodian", hire(t, path, "sup", "", "cust", staff.KeyCustodian), nil)
	expect("a clerk, alone", hire(t, path, "sup", "", "clerk", staff.Clerk), ledger.ErrSecond)
	expect("a clerk, with oneself", hire(t, path, "sup", "sup", "clerk", staff.Clerk), ledger.ErrSecond)
	expect("a clerk, with two", hire(t, path, "sup", "cust", "clerk", staff.Clerk), nil)
	expect("the same id again", hire(t, path, "sup", "cust", "clerk", staff.Clerk), ledger.ErrExists)
	_, err := ledgertest.MustOpen(t, path, "sup", ledger.Options{Second: ledgertest.Operator("cust")}).Append(t.Context(), ledger.Event{
		Actor: ledger.Actor{Counter: "w"}, Data: ledger.OperatorAdded{Operator: "twin", Role: staff.Supervisor, Key: ledgertest.Operator("sup").Public()},
	})
	expect("the same key under another id", err, ledger.ErrExists)
	expect("an auditor", hire(t, path, "sup", "cust", "aud", staff.Auditor), nil)
	expect("second who may not be", hire(t, path, "sup", "clerk", "x", staff.Clerk), ledger.ErrSecond)
	expect("a clerk adds", hire(t, path, "clerk", "sup", "x", staff.Clerk), ledger.ErrNotAllowed)
	expect("keys, alone", does(t, path, "cust", "", exported), ledger.ErrSecond)
	expect("keys, with two", does(t, path, "cust", "sup", exported), nil)
	expect("consent by a clerk", does(t, path, "clerk", "", consent("c1", "library")), nil)
	expect("consent by an auditor", does(t, path, "aud", "", consent("c2", "library")), ledger.ErrNotAllowed)
	rekey := runOf("r1", "library", cardA, aidLib)
	rekey.Purpose = "rekey"
	expect("new keys by a clerk", does(t, path, "clerk", "", rekey), ledger.ErrNotAllowed)
	expect("new keys by a supervisor", does(t, path, "sup", "", rekey), nil)
	expect("the last supervisor goes", does(t, path, "sup", "cust", ledger.OperatorWithdrawn{Operator: "sup"}), ledger.ErrNotAllowed)
	expect("nobody goes", does(t, path, "sup", "cust", ledger.OperatorWithdrawn{Operator: "nobody"}), ledger.ErrNotFound)

	// Withdrawn while the key is in use: at once.
	l, err := ledger.Open(t.Context(), path, ledgertest.Options("clerk", ledger.Options{}))
	must(t, err)
	defer l.Close()
	expect("the clerk goes", does(t, path, "sup", "cust", ledger.OperatorWithdrawn{Operator: "clerk"}), nil)
	_, err = l.Append(t.Context(), ledger.Event{Actor: ledger.Actor{Counter: "w"}, Data: consent("c3", "library")})
	expect("the clerk afterwards", err, ledger.ErrDismissed)
	expect("goes twice", does(t, path, "sup", "cust", ledger.OperatorWithdrawn{Operator: "clerk"}), ledger.ErrExists)

	// Another key under a known id.
	o := ledgertest.Options("sup", ledger.Options{})
	impostor, err := staff.NewKey("sup", nil)
	must(t, err)
	o.Operator = impostor
	other, err := ledger.Open(t.Context(), path, o)
	must(t, err)
	defer other.Close()
	_, err = other.Append(t.Context(), ledger.Event{Actor: ledger.Actor{Counter: "w"}, Data: consent("c4", "library")})
	expect("another key", err, ledger.ErrOperator)

	list, err := l.Operators(t.Context())
	must(t, err)
	var got []string
	for _, p := range list {
		got = append(got, fmt.Sprint(p.ID, " ", p.Role, " ", !p.Withdrawn.IsZero()))
	}
	if want := "aud auditor false, clerk clerk true, cust key-custodian false, sup supervisor false"; strings.Join(got, ", ") != want {
		t.Errorf("operators %q", got)
	}
	must(t, l.Check(t.Context()))
}

func TestFirstEvent(t *testing.T) {
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "l"), ledgertest.Options("sup", ledger.Options{Create: true}))
	must(t, err)
	defer l.Close()
	must(t, l.Check(t.Context())) // nothing is in order
	for what, d := range map[string]ledger.Data{
		"a consent":      consent("c", "library"),
		"a clerk":        ledger.OperatorAdded{Operator: "sup", Role: staff.Clerk, Key: ledgertest.Operator("sup").Public()},
		"somebody else":  ledger.OperatorAdded{Operator: "other", Role: staff.Supervisor, Key: ledgertest.Operator("other").Public()},
		"another's key":  ledger.OperatorAdded{Operator: "sup", Role: staff.Supervisor, Key: ledgertest.Operator("other").Public()},
		"half a key":     ledger.OperatorAdded{Operator: "sup", Role: staff.Supervisor, Key: make([]byte, 16)},
		"a role unknown": ledger.OperatorAdded{Operator: "sup", Role: "boss", Key: ledgertest.Operator("sup").Public()},
	} {
		if _, err := l.Append(t.Context(), ledger.Event{Actor: ledger.Actor{Counter: "w"}, Data: d}); err == nil {
			t.Errorf("%s was the first event", what)
		}
	}
	if _, err := l.Checkpoint(t.Context()); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("checkpoint of nothing: %v", err)
	}
}

func TestWithoutKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	must(t, ledgertest.MustOpen(t, path, clerk.Operator, ledger.Options{Create: true}).Close())
	for _, tt := range []struct {
		name string
		less func(*ledger.Options)
		want error
	}{
		{"operator", func(o *ledger.Options) { o.Operator = nil }, ledger.ErrNoOperator},
		{"log key", func(o *ledger.Options) { o.Log = nil }, ledger.ErrNoLogKey},
		{"digest", func(o *ledger.Options) { o.Digest = nil }, ledger.ErrNoDigest},
	} {
		o := ledgertest.Options(clerk.Operator, ledger.Options{})
		tt.less(&o)
		l, err := ledger.Open(t.Context(), path, o)
		must(t, err)
		_, err = appendAll(t.Context(), l, consent("c", "library"), ledger.IDReserved{Service: "library", ID: "x", Consent: "c"})
		if !errors.Is(err, tt.want) {
			t.Errorf("without %s: %v", tt.name, err)
		}
		must(t, l.Close())
	}
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	v, err := ledger.LogVerifier("ledgertest", other.Public().(ed25519.PublicKey))
	must(t, err)
	if l, err := ledger.Open(t.Context(), path, ledger.Options{Known: note.VerifierList(v)}); !errors.Is(err, ledger.ErrDamaged) || !errors.Is(err, ledger.ErrCheckpoint) {
		t.Errorf("a checkpoint of another key: %v %v", l, err)
	}
}

// TestClockPutBack has events follow a clock that goes back.
func TestClockPutBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	now := start
	l := open(t, path, ledger.Options{Create: true, Clock: func() time.Time { return now }})
	add(t, l, consent("c1", "library"))
	now = start.Add(-time.Hour)
	add(t, l, consent("c2", "library"))
	if reached, err := l.Now(t.Context()); err != nil || !reached.Equal(start) {
		t.Errorf("the ledger's time is %v, %v", reached, err)
	}
	for e, err := range l.Events(t.Context(), ledger.Filter{After: 1}) {
		must(t, err)
		if !e.Time.Equal(start) {
			t.Errorf("event %d at %v", e.Seq, e.Time)
		}
	}
	must(t, l.Check(t.Context()))
}

func TestProof(t *testing.T) {
	_, known := ledgertest.Log()
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, ledger.Options{Create: true, Clock: ticking()})
	issued(t, l, 1, "library", "L-1", cardA)
	must(t, hire(t, path, clerk.Operator, "", "cust", staff.KeyCustodian))
	must(t, does(t, path, "cust", clerk.Operator, ledger.KeysExchanged{Direction: "import"}))
	issued(t, l, 2, "job", "J-1", cardB)
	size := int64(0)
	for e, err := range l.Events(t.Context(), ledger.Filter{}) {
		must(t, err)
		size = e.Seq
	}
	for seq := int64(1); seq <= size; seq++ {
		p, err := l.Prove(t.Context(), seq, true)
		must(t, err)
		encoded, err := p.Encode()
		must(t, err)
		proved, err := ledger.CheckProof(encoded, known)
		must(t, err)
		if proved.Event.Seq != seq || len(proved.Event.Erased) != 0 || proved.Checkpoint.Size != size || len(p.Events[0].Hashes) > 5 {
			t.Errorf("event %d: %+v, %d hashes", seq, proved, len(p.Events[0].Hashes))
		}
		if d, ok := proved.Event.Data.(ledger.KeysExchanged); ok && (proved.Second == nil || proved.Second.ID != clerk.Operator || d.Direction != "import") {
			t.Errorf("second %v", proved.Second)
		}
		// Any byte: JSON has no redundancy here, but for base64 of the note's
		// signature line, whose key's hash stands for the key.
		for at := 0; at < len(encoded); at += 7 {
			changed := bytes.Clone(encoded)
			changed[at] ^= 1
			if _, err := ledger.CheckProof(changed, known); !errors.Is(err, ledger.ErrProof) && !errors.Is(err, ledger.ErrCheckpoint) {
				t.Fatalf("event %d: changed at %d: %.40s: %v", seq, at, encoded[at:], err)
			}
		}
	}
	// Another end of the salt leaves the same bytes under the commitment.
	shifted, err := l.Prove(t.Context(), 6, true)
	must(t, err)
	v := &shifted.Events[0].Values[slices.IndexFunc(shifted.Events[0].Values, func(v ledger.ProvedValue) bool { return v.Member == "id" })]
	v.Salt, v.Value = append(v.Salt, v.Value[0]), v.Value[1:]
	encoded, err := shifted.Encode()
	must(t, err)
	if proved, err := ledger.CheckProof(encoded, known); err == nil {
		t.Errorf("a value without its first byte: %+v", proved.Event.Data)
	}
	p, err := l.Prove(t.Context(), 6, false)
	must(t, err)
	encoded, err = p.Encode()
	must(t, err)
	if proved, err := ledger.CheckProof(encoded, known); err != nil || proved.Event.Data.(ledger.Issued).ID != "" || bytes.Contains(encoded, []byte("L-1")) {
		t.Errorf("values that were kept back: %+v, %v", proved, err)
	}
	// An operator who did not sign it, proved as well.
	more, err := l.Prove(t.Context(), 6, false)
	must(t, err)
	signed, err := l.Prove(t.Context(), 9, false) // in the names of two
	must(t, err)
	more.Events = append(more.Events, signed.Events[2])
	if encoded, err = more.Encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.CheckProof(encoded, known); !errors.Is(err, ledger.ErrProof) {
		t.Errorf("an event too many: %v", err)
	}
	// Somebody else's event, with all that belongs to it.
	other, err := l.Prove(t.Context(), 5, false)
	must(t, err)
	p.Events[0].Record = other.Events[0].Record
	if encoded, err = p.Encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.CheckProof(encoded, known); err == nil {
		t.Error("another event with this one's proof")
	}
	for _, n := range []int64{0, -1, size + 1} {
		if _, err := l.Prove(t.Context(), n, false); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("event %d: %v", n, err)
		}
	}
}

func FuzzCheckProof(f *testing.F) {
	_, known := ledgertest.Log()
	l := ledgertest.MustOpen(f, filepath.Join(f.TempDir(), "l"), clerk.Operator, ledger.Options{Create: true})
	p, err := l.Prove(f.Context(), 1, true)
	if err != nil {
		f.Fatal(err)
	}
	encoded, err := p.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte(`{"v":1,"type":"ledger-proof","checkpoint":"","events":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ledger.CheckProof(b, known); err == nil && !bytes.Equal(b, encoded) {
			t.Errorf("proved: %s", b)
		}
	})
}

// TestSince holds a ledger against checkpoints of earlier times.
func TestSince(t *testing.T) {
	_, known := ledgertest.Log()
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, ledger.Options{Create: true})
	var then [][]byte
	for i := range 9 {
		add(t, l, consent(fmt.Sprint("c", i), "library"))
		c, err := l.Checkpoint(t.Context())
		must(t, err)
		then = append(then, c)
		if i == 4 {
			_, err := l.Backup(t.Context(), path+".old")
			must(t, err)
		}
	}
	_, err := l.Verify(t.Context(), ledger.VerifyOptions{Since: then})
	must(t, err)
	old := open(t, path+".old", ledger.Options{})
	for i, c := range then {
		must(t, l.Since(t.Context(), c, known))
		for _, known := range []note.Verifiers{known, nil} {
			if err := old.Since(t.Context(), c, known); (err == nil) != (i <= 4) || i > 4 && !errors.Is(err, ledger.ErrRolledBack) {
				t.Errorf("old copy, checkpoint %d: %v", i, err)
			}
		}
	}
	// It goes its own way.
	for i := range 6 {
		add(t, old, consent(fmt.Sprint("d", i), "library"))
	}
	must(t, old.Check(t.Context()))
	if _, err := old.Verify(t.Context(), ledger.VerifyOptions{Since: then[8:]}); !errors.Is(err, ledger.ErrRolledBack) {
		t.Errorf("another history: %v", err)
	}
	stranger := open(t, path+".other", ledger.Options{Create: true})
	if err := stranger.Since(t.Context(), then[0], known); !errors.Is(err, ledger.ErrCheckpoint) {
		t.Errorf("another ledger: %v", err)
	}
	for name, c := range map[string][]byte{
		"empty": nil, "cut": then[0][:len(then[0])-5], "size": bytes.Replace(then[0], []byte("\n2\n"), []byte("\n1\n"), 1),
	} {
		if err := l.Since(t.Context(), c, known); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	l := open(t, filepath.Join(dir, "l"), ledger.Options{Create: true})
	add(t, l, consent("c1", "library"))
	path := filepath.Join(dir, "copy")
	// Another process writes meanwhile, and its event is in or not.
	done := make(chan error)
	go func() {
		var err error
		for i := range 20 {
			if _, err = appendAll(t.Context(), l, consent(fmt.Sprint("d", i), "library")); err != nil {
				break
			}
		}
		done <- err
	}()
	found, err := l.Backup(t.Context(), path)
	must(t, err)
	must(t, <-done)
	copied := open(t, path, ledger.Options{})
	again, err := copied.Verify(t.Context(), ledger.VerifyOptions{})
	must(t, err)
	if again != found || found.Checkpoint.Size < 2 || !found.Signed {
		t.Errorf("%+v, then %+v", found, again)
	}
	add(t, copied, consent("e", "library"))
	if _, err := l.Backup(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another file: %v", err)
	}
	if left, err := filepath.Glob(path + ".new-*"); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := l.Backup(t.Context(), filepath.Join(dir, "no", "copy")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// TestErase looks for what was erased in the bytes of the files.
func TestErase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	now := start
	l := open(t, path, ledger.Options{Create: true, Clock: func() time.Time { return now }})
	const secret, other, why = "SECRET-ID-0001", "OTHER-ID-0002", "because the holder asked so"
	issued(t, l, 1, "library", secret, cardA)
	issued(t, l, 2, "library", other, cardB)
	failed := runOf("w1", "library", cardA, aidLib)
	failed.Purpose = "withdraw"
	gone := withdrawn("library", cardA)
	gone.Run = "w1"
	erase := func(f ledger.EraseFilter) ([]ledger.Erasable, error) { return l.Erase(t.Context(), clerk, "", f) }

	if _, err := erase(ledger.EraseFilter{Consent: "c1"}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("while it is on the card: %v", err)
	}
	if done, err := erase(ledger.EraseFilter{Service: "library", Before: start.AddDate(10, 0, 0)}); err != nil || len(done) != 0 {
		t.Errorf("while it is on the card: %v, %v", done, err)
	}
	if _, err := erase(ledger.EraseFilter{Consent: "c9"}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a consent that there is not: %v", err)
	}
	if _, err := l.Append(t.Context(), ledger.Event{Actor: clerk, Reason: why, Data: failed}); err != nil {
		t.Fatal(err)
	}
	if _, err := erase(ledger.EraseFilter{Consent: "c1"}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("in the middle of a run: %v", err)
	}
	add(t, l, gone, ledger.RunFinished{Run: "w1", Outcome: ledger.Done})
	if _, err := erase(ledger.EraseFilter{Consent: "c1"}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("before it was withdrawn: %v", err)
	}
	files := func() (out []byte) {
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + suffix)
			must(t, err)
			out = append(out, b...)
		}
		return out
	}
	if b := files(); !bytes.Contains(b, []byte(secret)) || !bytes.Contains(b, []byte(why)) {
		t.Fatal("what is to be erased was never there")
	}
	if list, err := l.Erasable(t.Context(), ledger.EraseFilter{Service: "library", Before: start}); err != nil || len(list) != 0 {
		t.Errorf("before its time: %v, %v", list, err)
	}
	before, err := l.Checkpoint(t.Context())
	must(t, err)
	now = start.AddDate(1, 0, 0)
	done, err := erase(ledger.EraseFilter{Service: "library", Before: start.Add(time.Second)})
	must(t, err)
	if len(done) != 1 || done[0].Consent != "c1" || done[0].Basis != ledger.Retention {
		t.Errorf("erased %+v", done)
	}
	if b := files(); bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(why)) || !bytes.Contains(b, []byte(other)) {
		t.Error("in the files there is still what was erased, or not any more what was not")
	}
	found, err := l.Verify(t.Context(), ledger.VerifyOptions{Since: [][]byte{before}})
	must(t, err)
	if found.Erased != int64(len(done[0].Events)) {
		t.Errorf("%d events erased, %v", found.Erased, done[0].Events)
	}
	// The ID stays taken, by whoever asks.
	add(t, l, consent("c3", "library"), ledger.CardBound{Consent: "c3", Card: cardB})
	if _, _, err := l.ReserveID(t.Context(), ledger.Reservation{Actor: clerk, Service: "library", Consent: "c3", ID: secret}); !errors.Is(err, ledger.ErrIDTaken) {
		t.Errorf("the ID is given out again: %v", err)
	}
	for e, err := range l.Events(t.Context(), ledger.Filter{Consent: "c1", Kinds: []ledger.Kind{ledger.KindIssued}}) {
		must(t, err)
		if d := e.Data.(ledger.Issued); d.ID != "" || len(e.Erased) != 2 {
			t.Errorf("issue %+v, erased %q", d, e.Erased)
		}
	}
	if done, err := erase(ledger.EraseFilter{Service: "library", Before: start.Add(time.Second)}); err != nil || len(done) != 0 {
		t.Errorf("again: %v, %v", done, err)
	}
	// A withdrawal needs no waiting.
	add(t, l, withdrawn("library", cardB), ledger.ConsentWithdrawn{Consent: "c2", Signed: []byte("signed")})
	done, err = erase(ledger.EraseFilter{Consent: "c2"})
	must(t, err)
	if len(done) != 1 || done[0].Basis != ledger.Withdrawal || bytes.Contains(files(), []byte(other)) {
		t.Errorf("withdrawn: %+v", done)
	}
	must(t, l.Check(t.Context()))
}
