package ledger_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
)

const (
	cardA = ledger.CardRef("0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")
	cardB = ledger.CardRef("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b")
)

var (
	clerk  = ledger.Actor{Operator: "op-7", Counter: "window-2"}
	start  = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	aidLib = iso7816.MustAID("F0465245454152454101")
	aidJob = iso7816.MustAID("F0465245454152454102")
	isd    = iso7816.MustAID("A000000151000000")
)

// ticking returns a clock that is one second later each time.
func ticking() func() time.Time {
	now := start
	return func() time.Time { now = now.Add(time.Second); return now }
}

func open(t *testing.T, path string, o ledger.Options) *ledger.Ledger {
	t.Helper()
	return ledgertest.MustOpen(t, path, clerk.Operator, o)
}

func fresh(t *testing.T) *ledger.Ledger {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{Create: true, Clock: ticking()})
}

func add(t *testing.T, l *ledger.Ledger, data ...ledger.Data) int64 {
	t.Helper()
	seq, err := appendAll(t.Context(), l, data...)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func appendAll(ctx context.Context, l *ledger.Ledger, data ...ledger.Data) (int64, error) {
	var events []ledger.Event
	for _, d := range data {
		events = append(events, ledger.Event{Actor: clerk, Reason: "application at the counter", Data: d})
	}
	return l.Append(ctx, events...)
}

func consent(id, service string) ledger.ConsentRecorded {
	return ledger.ConsentRecorded{
		Consent: id, Service: service, Manifest: strings.Repeat("5a", 32), Method: "paper",
		Given: start, Until: start.AddDate(0, 0, 90), Signed: []byte("{}"),
	}
}

func runOf(id, service string, card ledger.CardRef, aid iso7816.AID) ledger.RunStarted {
	return ledger.RunStarted{Run: id, Purpose: "issue", Service: service, Card: card, Instance: aid, Steps: 3}
}

func issue(run, consent, service, id string, card ledger.CardRef, aid iso7816.AID, n uint16) ledger.Issued {
	return ledger.Issued{
		Service: service, Card: card, Consent: consent, Run: run, Instance: aid, ID: id,
		IssueNumber: n, Expiry: "2031-03-31", Tag: strings.Repeat("7c", 16), KeyVersion: 1,
	}
}

func TestModeOfTheFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := t.TempDir()
	l := open(t, filepath.Join(dir, "ledger.db"), ledger.Options{Create: true})
	add(t, l, consent("c1", "library"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name())
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	if want := []string{"ledger.db", "ledger.db-shm", "ledger.db-wal"}; !cmp.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

func TestOpenWithoutCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, err := ledger.Open(t.Context(), path, ledger.Options{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a ledger was made")
	}
}

func TestNameWithSpecialCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "台帳 #1 100%25?mode=memory&x.db")
	if runtime.GOOS == "windows" {
		path = strings.NewReplacer("?", "", "%", "").Replace(path)
	}
	l := open(t, path, ledger.Options{Create: true})
	add(t, l, consent("c1", "library"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path, ledger.Options{})
	if _, err := l.Consent(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
}

// TestFaults damages ledgers in the ways that files are damaged.
func TestFaults(t *testing.T) {
	build := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "ledger.db")
		l := open(t, path, ledger.Options{Create: true, Clock: ticking()})
		for i := range 60 {
			add(t, l, consent(fmt.Sprint("c", i), "library"))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, path string)
		want   error
	}{
		{"empty", func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, ledger.ErrDamaged},
		{"cut within the header", func(t *testing.T, path string) { must(t, os.Truncate(path, 60)) }, ledger.ErrDamaged},
		{"cut after a page", func(t *testing.T, path string) { must(t, os.Truncate(path, 4096)) }, ledger.ErrDamaged},
		{"cut in half", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			must(t, os.Truncate(path, info.Size()/2))
		}, ledger.ErrDamaged},
		{"garbage", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, bytes.Repeat([]byte("garbage "), 2000), 0o600))
		}, ledger.ErrNotLedger},
		{"text", func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("a,b,c\n"), 0o600)) }, ledger.ErrNotLedger},
		{"another program's database", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			raw(t, path, "CREATE TABLE notes (text)")
		}, ledger.ErrNotLedger},
		{"older schema", func(t *testing.T, path string) { raw(t, path, "PRAGMA user_version = 1") }, ledger.ErrOlder},
		{"newer schema", func(t *testing.T, path string) { raw(t, path, "PRAGMA user_version = 3") }, ledger.ErrNewer},
		{"guard against UPDATE removed", func(t *testing.T, path string) { raw(t, path, "DROP TRIGGER events_no_update") }, ledger.ErrDamaged},
		{"guard against DELETE removed", func(t *testing.T, path string) { raw(t, path, "DROP TRIGGER events_no_delete") }, ledger.ErrDamaged},
		{"guard replaced", func(t *testing.T, path string) {
			raw(t, path, "DROP TRIGGER events_no_delete; CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT 1; END")
		}, ledger.ErrDamaged},
		{"uniqueness of IDs removed", func(t *testing.T, path string) { raw(t, path, "DROP INDEX id_once") }, ledger.ErrDamaged},
		{"a trigger too many", func(t *testing.T, path string) {
			raw(t, path, "CREATE TRIGGER x AFTER INSERT ON events BEGIN SELECT 1; END")
		}, ledger.ErrDamaged},
		{"the last event taken out", func(t *testing.T, path string) {
			raw(t, path, "DROP TRIGGER events_no_delete", "DELETE FROM events WHERE seq = 61", guard("DELETE"))
		}, ledger.ErrDamaged},
		// REPLACE takes the older event away without asking the guard against
		// DELETE, unless the program that does it has asked for that.
		{"an event replaced", func(t *testing.T, path string) {
			raw(t, path, `REPLACE INTO events (seq, record) SELECT 62, replace(record, '"seq":7,', '"seq":62,') FROM events WHERE seq = 7`)
		}, ledger.ErrDamaged},
		{"a directory", func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, os.Mkdir(path, 0o700)) }, ledger.ErrNotLedger},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := build(t)
			tt.damage(t, path)
			l, err := ledger.Open(t.Context(), path, ledger.Options{Create: true})
			if err == nil {
				l.Close()
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %v with the file's name", err, tt.want)
			}
		})
	}
}

// guard is the statement that makes a guard again, as the schema has it.
func guard(operation string) string {
	done := map[string]string{"UPDATE": "changed", "DELETE": "deleted"}[operation]
	return "CREATE TRIGGER events_no_" + strings.ToLower(operation) + " BEFORE " + operation +
		" ON events\nBEGIN SELECT RAISE(ABORT, 'the ledger is append-only: events are not " + done + "'); END"
}

// TestAlteredRecord changes an event behind the guards; Open, which reads no
// records, can't see it, Check does.
func TestAlteredRecord(t *testing.T) {
	for name, change := range map[string]string{
		"white space":    `replace(record, '{"v":2,', '{"v":2, ')`,
		"unknown member": `replace(record, '"method"', '"x":1,"method"')`,
		"another order":  `replace(record, '"operator":"op-7","counter":"window-2"', '"counter":"window-2","operator":"op-7"')`,
		"another kind":   `replace(record, '"consent-recorded"', '"consent-lost"')`,
		"no service":     `replace(record, '"service":"library"', '"service":""')`,
		"trailing":       `record || ' '`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			l := open(t, path, ledger.Options{Create: true})
			add(t, l, consent("c1", "library"), consent("c2", "library"))
			must(t, l.Check(t.Context()))
			must(t, l.Close())
			raw(t, path, "DROP TRIGGER events_no_update", "UPDATE events SET record = "+change+" WHERE seq = 2", guard("UPDATE"))
			l = open(t, path, ledger.Options{})
			if err := l.Check(t.Context()); !errors.Is(err, ledger.ErrDamaged) || !strings.Contains(err.Error(), "event 2") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw changes a file with SQLite alone, as another program would.
func raw(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// TestAppendOnly tries to change events with SQLite alone.
func TestAppendOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path, ledger.Options{Create: true})
	add(t, l, consent("c1", "library"), consent("c2", "library"))
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	for _, s := range []string{
		"UPDATE events SET record = record",
		"UPDATE events SET seq = 9 WHERE seq = 2",
		"DELETE FROM events WHERE seq = 2",
		"DELETE FROM events",
		"REPLACE INTO events (seq, record) SELECT seq, record FROM events WHERE seq = 2",
		"INSERT INTO events (seq, record) SELECT 9, replace(replace(record, 'c1', 'c9'), '\"seq\":2', '\"seq\":9') FROM events WHERE seq = 2",
		"INSERT INTO events (seq, record) SELECT 4, replace(record, 'c1', 'c9') FROM events WHERE seq = 2",
		"INSERT INTO events (seq, record) SELECT 4, replace(record, '\"seq\":2', '\"seq\":4') FROM events WHERE seq = 2",
		"INSERT INTO events (seq, record) VALUES (4, 'no record')",
		"UPDATE private SET value = x'00'",
		"DELETE FROM private WHERE seq = 2",
		"UPDATE hashes SET hash = zeroblob(32)",
		"DELETE FROM hashes",
		"INSERT INTO hashes SELECT max(n) + 2, zeroblob(32) FROM hashes",
		"UPDATE log SET id = '0123456789abcdef0123456789abcdef'",
		"DELETE FROM log",
	} {
		if _, err := db.Exec(s); err == nil {
			t.Errorf("%s: done", s)
		}
	}
	must(t, l.Check(t.Context()))
}

func TestReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := ledger.Open(t.Context(), path, ledger.Options{Create: true, ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened for reading what is not there: %v", err)
	}
	w := open(t, path, ledger.Options{Create: true})
	add(t, w, consent("c1", "library"))
	r := open(t, path, ledger.Options{ReadOnly: true})
	if _, err := appendAll(t.Context(), r, consent("c2", "library")); !errors.Is(err, ledger.ErrReadOnly) {
		t.Errorf("appended: %v", err)
	}
	add(t, w, consent("c3", "library"))
	if _, err := r.Consent(t.Context(), "c3"); err != nil {
		t.Errorf("does not see what another process appends: %v", err)
	}
	must(t, r.Check(t.Context()))
	must(t, r.Close())
	must(t, w.Close())
	r = open(t, path, ledger.Options{ReadOnly: true}) // nobody else has it open
	if _, err := r.Consent(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyPlace reads where SQLite can't have a file of its own beside the
// ledger. A link to nowhere in that file's place keeps root out, too.
func TestReadOnlyPlace(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a right")
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	w := open(t, path, ledger.Options{Create: true})
	add(t, w, consent("c1", "library"))
	must(t, w.Close())
	must(t, os.Symlink("nowhere/at/all", path+"-shm"))
	whole, err := os.ReadFile(path)
	must(t, err)
	r, err := ledger.Open(t.Context(), path, ledgertest.Options(clerk.Operator, ledger.Options{ReadOnly: true}))
	must(t, err)
	must(t, r.Check(t.Context()))
	if _, err := r.Consent(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
	_, err = r.Backup(t.Context(), path+".copy")
	must(t, err)
	must(t, r.Close())
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, whole) {
		t.Errorf("reading changed it: %v", err)
	}
	// What a write-ahead log holds is not left out silently.
	must(t, os.WriteFile(path+"-wal", make([]byte, 4096), 0o600))
	if _, err := ledger.Open(t.Context(), path, ledger.Options{ReadOnly: true}); !errors.Is(err, ledger.ErrReadOnly) || !strings.Contains(err.Error(), "ledger.db-wal") {
		t.Errorf("with a write-ahead log: %v", err)
	}
}

func TestFileWithoutWritePermission(t *testing.T) {
	if os.Geteuid() == 0 || runtime.GOOS == "windows" {
		t.Skip("root writes everything")
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	must(t, open(t, path, ledger.Options{Create: true}).Close())
	must(t, os.Chmod(path, 0o400))
	if _, err := ledger.Open(t.Context(), path, ledger.Options{}); !errors.Is(err, ledger.ErrReadOnly) {
		t.Errorf("got %v", err)
	}
}

// TestBusy holds the write lock as a process that hangs would.
func TestBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path, ledger.Options{Create: true, Wait: time.Millisecond})
	db, err := sql.Open("sqlite", path+"?_txlock=immediate")
	must(t, err)
	defer db.Close()
	tx, err := db.Begin()
	must(t, err)
	if _, err := appendAll(t.Context(), l, consent("c1", "library")); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("got %v", err)
	}
	if _, err := l.NextSequence(t.Context(), "library"); err != nil {
		t.Errorf("reading waits for a writer: %v", err)
	}
	must(t, tx.Rollback())
	add(t, l, consent("c1", "library"))
}

func TestCancelledWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path, ledger.Options{Create: true, Wait: time.Hour})
	db, err := sql.Open("sqlite", path+"?_txlock=immediate")
	must(t, err)
	defer db.Close()
	tx, err := db.Begin()
	must(t, err)
	defer tx.Rollback()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := appendAll(ctx, l, consent("c1", "library")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNewerWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path, ledger.Options{Create: true})
	raw(t, path, "PRAGMA user_version = 3")
	if _, err := appendAll(t.Context(), l, consent("c1", "library")); !errors.Is(err, ledger.ErrNewer) {
		t.Errorf("got %v", err)
	}
}

func TestAppendIsAllOrNothing(t *testing.T) {
	l := fresh(t)
	_, err := appendAll(t.Context(), l, consent("c1", "library"), ledger.CardBound{Consent: "c2", Card: cardA})
	if !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	for e, err := range l.Events(t.Context(), ledger.Filter{After: 1}) {
		t.Errorf("there is %v, %v", e, err)
	}
	if seq := add(t, l, consent("c1", "library"), ledger.CardBound{Consent: "c1", Card: cardA}); seq != 3 {
		t.Errorf("last event is %d", seq)
	}
}
