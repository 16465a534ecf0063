package ledger

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// LimitPages leaves the ledger room for a few more pages.
func LimitPages(t *testing.T, l *Ledger) {
	t.Helper()
	w := <-l.writer
	defer func() { l.writer <- w }()
	var pages int
	if err := w.conn.QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := w.conn.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages+10)); err != nil {
		t.Fatal(err)
	}
}

// Together has what the functions write done in one transaction, in their
// order: the writer is kept from them until all wait for it. None may give up.
func Together(l *Ledger, writes ...func()) {
	w := <-l.writer
	var ended sync.WaitGroup
	for n, write := range writes {
		ended.Go(write)
		for waiting(l) <= n {
			runtime.Gosched()
		}
	}
	l.writer <- w
	ended.Wait()
}

func waiting(l *Ledger) int {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	return len(l.queue.waiting)
}

// FailCommit writes what SQLite refuses only when the transaction is to be
// committed.
func FailCommit(ctx context.Context, l *Ledger) error {
	return l.write(ctx, func(w *writer) error {
		if err := w.exec(ctx, "PRAGMA defer_foreign_keys = ON"); err != nil {
			return err
		}
		return w.exec(ctx, "INSERT INTO private (seq, member, salt, value) VALUES (?, 'x', ?, ?)", 1<<40, make([]byte, 16), []byte("x"))
	})
}
