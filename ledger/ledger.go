package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors of a ledger. All name the file.
var (
	ErrNotLedger = errors.New("not a ledger")                          // another kind of file
	ErrDamaged   = errors.New("ledger is damaged")                     // truncated, overwritten or tampered with
	ErrNewer     = errors.New("ledger is of a newer version")          // written by a newer program
	ErrReadOnly  = errors.New("ledger can only be read")               // opened so, or its file is
	ErrBusy      = errors.New("ledger is in use by another process")   // for longer than Options.Wait
	ErrNotFound  = errors.New("not in the ledger")                     // what was asked for
	ErrInvalid   = errors.New("invalid event")                         // a field is missing, too long or malformed
	ErrExists    = errors.New("is in the ledger already")              // what is recorded once only
	ErrIDTaken   = errors.New("ID is taken")                           // by another consent of the service
	ErrBound     = errors.New("consent is bound to another card")      // than the one that is to be bound
	ErrWithdrawn = errors.New("consent is withdrawn")                  // and nothing new may rest on it
	ErrAIDTaken  = errors.New("AID belongs to another service")        // that ran or issued with it
	ErrOrder     = errors.New("event does not follow from the ledger") // e.g. an ID issued that was not reserved
)

// Options of a ledger. The zero value opens an existing one for reading and
// writing.
type Options struct {
	// Clock gives the time of events; nil is time.Now.
	Clock func() time.Time
	// Create makes a new, empty ledger where there is no file. Without it a
	// missing file is an error that wraps fs.ErrNotExist: an empty ledger in
	// the place of a lost one would give the same IDs out again.
	Create bool
	// ReadOnly refuses to append.
	ReadOnly bool
	// Wait is how long to wait for another process; 0 is 10 seconds.
	Wait time.Duration
}

// Ledger is an open ledger. Its methods can be called from several goroutines.
type Ledger struct {
	path   string
	db     *sql.DB
	clock  func() time.Time
	wait   time.Duration
	ro     bool
	writer chan struct{} // holds one token: goroutines queue here, processes at SQLite's lock
}

// Close closes the ledger.
func (l *Ledger) Close() error { return l.fail(l.db.Close()) }

// fail turns an error of SQLite into one of this package's, and names the file.
func (l *Ledger) fail(err error) error {
	if err == nil {
		return nil
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	switch e.Code() & 0xFF {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%s: %w: no SQLite database", l.path, ErrNotLedger)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT:
		return fmt.Errorf("%s: %w: %w", l.path, ErrDamaged, err)
	case sqlite3.SQLITE_READONLY:
		return fmt.Errorf("%s: %w", l.path, ErrReadOnly)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("%s: %w", l.path, ErrBusy)
	case sqlite3.SQLITE_IOERR:
		if e.Code() == sqlite3.SQLITE_IOERR_SHORT_READ {
			return fmt.Errorf("%s: %w: %w", l.path, ErrDamaged, err)
		}
	}
	return fmt.Errorf("%s: %w", l.path, err)
}

func busy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xFF == sqlite3.SQLITE_BUSY || e.Code()&0xFF == sqlite3.SQLITE_LOCKED)
}

func unique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}

// patiently repeats f while another process is in the way. SQLite itself
// waits a tenth of a second at a time (see dsn), during which it does not look
// at the context.
func (l *Ledger) patiently(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(l.wait)
	for {
		err := f()
		if !busy(err) || time.Now().After(deadline) {
			return err
		}
		select { // SQLite does not wait in every case by itself
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// querier is a connection or the pool.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// write runs f in a transaction that holds the ledger's only write lock, and
// commits to the disk.
func (l *Ledger) write(ctx context.Context, f func(*sql.Conn) error) error {
	if l.ro {
		return fmt.Errorf("%s: %w", l.path, ErrReadOnly)
	}
	select {
	case l.writer <- struct{}{}:
		defer func() { <-l.writer }()
	case <-ctx.Done():
		return l.fail(ctx.Err())
	}
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return l.fail(err)
	}
	defer conn.Close()
	if err := l.patiently(ctx, func() error { return exec(ctx, conn, "BEGIN IMMEDIATE") }); err != nil {
		return l.fail(err)
	}
	if err = f(conn); err == nil {
		// A commit is not interrupted: nobody could tell what it had done.
		err = exec(context.WithoutCancel(ctx), conn, "COMMIT")
	}
	if err != nil {
		// What fails in here can only be a transaction that SQLite has ended
		// by itself.
		_ = exec(context.WithoutCancel(ctx), conn, "ROLLBACK")
		return l.fail(err)
	}
	return nil
}

func exec(ctx context.Context, conn *sql.Conn, statement string, args ...any) error {
	_, err := conn.ExecContext(ctx, statement, args...)
	return err
}
