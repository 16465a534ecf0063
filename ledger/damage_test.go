package ledger_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
)

// behind changes a table behind its guards, as somebody does who has the file
// and knows the schema.
func behind(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	rows, err := db.Query("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
	must(t, err)
	guards := map[string]string{}
	for rows.Next() {
		var name, statement string
		must(t, rows.Scan(&name, &statement))
		guards[name] = statement
	}
	must(t, errors.Join(rows.Err(), rows.Close()))
	for name := range guards {
		statements = append([]string{"DROP TRIGGER " + name}, statements...)
	}
	statements = append([]string{"PRAGMA ignore_check_constraints = ON"}, statements...)
	for _, statement := range guards {
		statements = append(statements, statement)
	}
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// grown makes a ledger with all sorts of events, and returns one of the same
// size of another office's with the same operators.
func grown(t *testing.T) (path, other string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"l", "other"} {
		path := filepath.Join(dir, name)
		l := open(t, path, ledger.Options{Create: true, Clock: ticking()})
		for i := range 8 {
			issued(t, l, i+1, "library", fmt.Sprint("L-", i), cardA)
		}
		must(t, l.Check(t.Context()))
		must(t, l.Close())
	}
	return filepath.Join(dir, "l"), filepath.Join(dir, "other")
}

// TestDamage changes each table in the ways that it can be changed. What is at
// the end of the log is found when the ledger is opened, the rest by Verify.
func TestDamage(t *testing.T) {
	const last = 49 // events
	tests := []struct {
		name   string
		opened bool // found when it is opened
		change func(other string) []string
	}{
		{"an event's operator", false, func(string) []string {
			return []string{`UPDATE events SET record = replace(record, '"window-2"', '"window-3"') WHERE seq = 9`}
		}},
		{"the last event", true, func(string) []string {
			return []string{fmt.Sprintf(`UPDATE events SET record = replace(record, '"done"', '"failed"') WHERE seq = %d`, last)}
		}},
		{"an event taken out", false, func(string) []string {
			return []string{"DELETE FROM private WHERE seq = 9", "DELETE FROM events WHERE seq = 9"}
		}},
		{"an event of another ledger", false, func(other string) []string {
			return []string{"ATTACH '" + other + "' AS o", "UPDATE events SET record = (SELECT record FROM o.events e WHERE e.seq = events.seq) WHERE seq = 9", "DETACH o"}
		}},
		{"the last event cut off", true, func(string) []string {
			return []string{fmt.Sprintf("DELETE FROM private WHERE seq = %d", last), fmt.Sprintf("DELETE FROM events WHERE seq = %d", last)}
		}},
		{"a value", false, func(string) []string {
			return []string{"UPDATE private SET value = CAST('L-9' AS BLOB) WHERE member = 'id' AND seq = 5"}
		}},
		// The same bytes under the commitment, with another end of the salt.
		{"a value's first byte in its salt", false, func(string) []string {
			return []string{"UPDATE private SET salt = CAST(salt || substr(value, 1, 1) AS BLOB), value = substr(value, 2) WHERE member = 'id' AND seq = 5"}
		}},
		{"an event before the first", true, func(string) []string {
			// What the views would take for a withdrawal of the consent.
			return []string{`INSERT INTO events (seq, record) SELECT -1,
				json_set(record, '$.seq', -1, '$.kind', 'consent-withdrawn', '$.data', json_object('consent', 'c1')) FROM events WHERE seq = 2`}
		}},
		{"a salt", false, func(string) []string { return []string{"UPDATE private SET salt = zeroblob(16) WHERE seq = 9"} }},
		{"a value taken out", false, func(string) []string { return []string{"DELETE FROM private WHERE member = 'id' AND seq = 5"} }},
		{"a value too many", false, func(string) []string {
			return []string{"INSERT INTO private VALUES (5, 'extra', zeroblob(16), x'00')"}
		}},
		{"a value of no event", true, func(string) []string {
			return []string{"INSERT INTO private VALUES (500, 'reason', zeroblob(16), x'00')"}
		}},
		{"a value of the last number there is", true, func(string) []string {
			return []string{"INSERT INTO private VALUES (9223372036854775807, 'reason', zeroblob(16), x'00')"}
		}},
		{"a value before the first event", true, func(string) []string {
			return []string{"INSERT INTO private VALUES (0, 'reason', zeroblob(16), x'00')"}
		}},
		{"a hash before the first", true, func(string) []string {
			return []string{"INSERT INTO hashes VALUES (-1, zeroblob(32))"}
		}},
		{"a hash", false, func(string) []string { return []string{"UPDATE hashes SET hash = zeroblob(32) WHERE n = 20"} }},
		{"a hash of the end", true, func(string) []string {
			return []string{"UPDATE hashes SET hash = zeroblob(32) WHERE n = (SELECT max(n) FROM hashes)"}
		}},
		{"a hash taken out", false, func(string) []string { return []string{"DELETE FROM hashes WHERE n = 20"} }},
		{"a hash too many", true, func(string) []string {
			return []string{"INSERT INTO hashes SELECT max(n) + 1, zeroblob(32) FROM hashes"}
		}},
		{"another id", true, func(string) []string {
			return []string{"UPDATE log SET id = '0123456789abcdef0123456789abcdef'"}
		}},
		{"no checkpoint", true, func(string) []string { return []string{"UPDATE log SET checkpoint = ''"} }},
		{"another's checkpoint", true, func(other string) []string {
			return []string{"ATTACH '" + other + "' AS o", "UPDATE log SET checkpoint = (SELECT checkpoint FROM o.log)", "DETACH o"}
		}},
		{"the checkpoint's signature", true, func(string) []string {
			return []string{"UPDATE log SET checkpoint = substr(checkpoint, 1, length(checkpoint) - 5) || 'AA==' || char(10)"}
		}},
		{"no row of the log", true, func(string) []string { return []string{"DELETE FROM log"} }},
		{"two rows of the log", true, func(string) []string { return []string{"INSERT INTO log SELECT 2, id, checkpoint FROM log"} }},
		{"the log's row under another number", true, func(string) []string { return []string{"UPDATE log SET only = 2"} }},
		// Somebody who writes the schema itself can give an object a name that
		// SQLite keeps for its own tables.
		{"a trigger in the name of statistics", true, func(string) []string {
			return []string{"PRAGMA writable_schema = ON", `INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('trigger', 'sqlite_stat_x', 'events', 0,
				'CREATE TRIGGER sqlite_stat_x AFTER INSERT ON events BEGIN DELETE FROM hashes; END')`}
		}},
		{"a guard dropped", true, func(string) []string { return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, other := grown(t)
			if tt.name == "a guard dropped" {
				raw(t, path, "DROP TRIGGER private_only_erased")
			} else {
				behind(t, path, tt.change(other)...)
			}
			// An auditor opens it for reading: SQLite then checks less by itself.
			for _, o := range []ledger.Options{{}, {ReadOnly: true}} {
				l, err := ledger.Open(t.Context(), path, ledgertest.Options(clerk.Operator, o))
				if tt.opened != (err != nil) || err != nil && !errors.Is(err, ledger.ErrDamaged) {
					t.Errorf("opened, read only %v: %v", o.ReadOnly, err)
				}
				if err != nil {
					continue
				}
				if err := l.Check(t.Context()); !errors.Is(err, ledger.ErrDamaged) {
					t.Errorf("verified, read only %v: %v", o.ReadOnly, err)
				}
				must(t, l.Close())
			}
		})
	}
}

// TestEveryPage overwrites each page of the file in turn.
func TestEveryPage(t *testing.T) {
	path, _ := grown(t)
	whole, err := os.ReadFile(path)
	must(t, err)
	const page = 4096
	for at := 0; at < len(whole); at += page {
		broken := bytes.Clone(whole)
		copy(broken[at:at+page], bytes.Repeat([]byte{0xA5}, page))
		must(t, os.WriteFile(path, broken, 0o600))
		l, err := ledger.Open(t.Context(), path, ledgertest.Options(clerk.Operator, ledger.Options{}))
		if err == nil {
			err = errors.Join(l.Check(t.Context()), l.Close())
		}
		if !errors.Is(err, ledger.ErrDamaged) && !errors.Is(err, ledger.ErrNotLedger) {
			t.Errorf("page %d of %d: %v", at/page+1, len(whole)/page, err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(path + suffix)
		}
	}
}

// TestErasedAndStillThere puts back a value that an event says was erased.
func TestErasedAndStillThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, ledger.Options{Create: true, Clock: ticking()})
	add(t, l, consent("c1", "library"), ledger.ConsentWithdrawn{Consent: "c1"})
	must(t, l.Close())
	raw(t, path, "ATTACH '"+path+".kept' AS k", "CREATE TABLE k.kept AS SELECT * FROM private WHERE seq = 2")
	l = open(t, path, ledger.Options{})
	if done, err := l.Erase(t.Context(), clerk, "", ledger.EraseFilter{Consent: "c1"}); err != nil || len(done) != 1 {
		t.Fatal(done, err)
	}
	must(t, l.Check(t.Context()))
	must(t, l.Close())
	raw(t, path, "ATTACH '"+path+".kept' AS k", "INSERT INTO private SELECT * FROM k.kept")
	l = open(t, path, ledger.Options{})
	if err := l.Check(t.Context()); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// TestDiskFull has SQLite refuse to grow the file.
func TestDiskFull(t *testing.T) {
	l := fresh(t)
	ledger.LimitPages(t, l)
	var err error
	n := 0
	for ; err == nil && n < 10000; n++ {
		_, err = appendAll(t.Context(), l, consent(fmt.Sprint("c", n), "library"))
	}
	if !errors.Is(err, ledger.ErrFull) {
		t.Errorf("after %d: %v", n, err)
	}
	must(t, l.Check(t.Context()))
	if _, err := l.Consent(t.Context(), fmt.Sprint("c", n-2)); err != nil {
		t.Errorf("what was answered for: %v", err)
	}
}

// liar signs something else than it is asked to.
type liar struct {
	ledger.Signer
	sign func(message []byte) ([]byte, error)
}

func (s liar) Sign(message []byte) ([]byte, error) { return s.sign(message) }

// TestForgedSignature has somebody with the key of checkpoints, and without
// the operator's, append in the operator's name: the log is consistent, and
// only the signatures tell.
func TestForgedSignature(t *testing.T) {
	honest := ledgertest.Operator(clerk.Operator)
	for name, sign := range map[string]func([]byte) ([]byte, error){
		"another key": ledgertest.Operator("other").Sign,
		"no key":      func([]byte) ([]byte, error) { return make([]byte, 64), nil },
		// What the operator signed for another ledger: its id is in the second line.
		"another ledger": func(m []byte) ([]byte, error) {
			lines := bytes.SplitN(m, []byte("\n"), 3)
			return honest.Sign(bytes.Join([][]byte{lines[0], bytes.Repeat([]byte("0"), 32), lines[2]}, []byte("\n")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "l")
			l := open(t, path, ledger.Options{Create: true})
			add(t, l, consent("c1", "library"))
			must(t, l.Check(t.Context()))
			must(t, l.Close())
			o := ledgertest.Options(clerk.Operator, ledger.Options{})
			o.Operator = liar{honest, sign}
			l, err := ledger.Open(t.Context(), path, o)
			must(t, err)
			defer l.Close()
			add(t, l, consent("c2", "library"))
			if err := l.Check(t.Context()); !errors.Is(err, ledger.ErrDamaged) {
				t.Errorf("verified: %v", err)
			}
			if _, err := l.Prove(t.Context(), 3, false); !errors.Is(err, ledger.ErrDamaged) {
				t.Errorf("a proof of it: %v", err)
			}
			known := o.Known
			o.Known = nil
			blind, err := ledger.Open(t.Context(), path, o)
			must(t, err)
			defer blind.Close()
			p, err := blind.Prove(t.Context(), 3, false)
			must(t, err)
			encoded, err := p.Encode()
			must(t, err)
			if _, err := ledger.CheckProof(encoded, known); err == nil {
				t.Error("proved")
			}
		})
	}
}
