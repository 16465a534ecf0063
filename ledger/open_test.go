package ledger

import (
	"path/filepath"
	"testing"
)

// TestDurability asks SQLite what it was told: no test can pull the plug.
func TestDurability(t *testing.T) {
	l, err := Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for pragma, want := range map[string]string{
		"synchronous":  "2", // FULL
		"journal_mode": "wal",
		"foreign_keys": "1",
	} {
		var got string
		if err := l.db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", pragma, got, err, want)
		}
	}
}
