package ledger

import (
	"os"
	"path/filepath"
	"testing"
)

// A ledger of every older schema is brought up to date when it is opened, and
// keeps what is in it.
func TestOlderSchema(t *testing.T) {
	for version := 1; version < schemaVersion; version++ {
		ctx := t.Context()
		path := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := database(path, "rw")
		if err != nil {
			t.Fatal(err)
		}
		if err := migrate(ctx, db, version); err != nil {
			t.Fatal(err)
		}
		first := samples()[0]
		record, err := first.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO events (seq, record) VALUES (1, ?)", string(record)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		l, err := Open(ctx, path, Options{})
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if c, err := l.Consent(ctx, "c-1"); err != nil || c.Service != "library" {
			t.Errorf("version %d: consent %+v, %v", version, c, err)
		}
		if err := l.Check(ctx); err != nil {
			t.Errorf("version %d: %v", version, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
