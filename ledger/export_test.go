package ledger

import (
	"fmt"
	"testing"
)

// LimitPages leaves the ledger room for a few more pages, on the one
// connection that it has from now on.
func LimitPages(t *testing.T, l *Ledger) {
	t.Helper()
	l.db.SetMaxOpenConns(1)
	var pages int
	if err := l.db.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := l.db.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+10)); err != nil {
		t.Fatal(err)
	}
}
