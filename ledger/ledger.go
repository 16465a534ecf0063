package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
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
	ErrNoDigest  = errors.New("no key for the digests of IDs")         // Options.Digest
	ErrOlder     = errors.New("ledger is of an older version")         // that this program can't bring up to date
	ErrFull      = errors.New("no room left on the ledger's disk")     // nothing was recorded
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
	// Operator signs what is appended, Log the checkpoint after it. Without them
	// nothing can be appended.
	Operator Signer
	Log      note.Signer
	// Second is the other operator, for what two do together (staff.Rules).
	Second Signer
	// Digest is the keyed digest (keys.Store.Digest) that IDs are found by once
	// they are erased. Without it no ID can be reserved or issued. It is called
	// while other processes wait.
	Digest func(ctx context.Context, message []byte) ([16]byte, error)
	// Known verifies the checkpoint when the ledger is opened; nil leaves its
	// signature to [Ledger.Verify].
	Known note.Verifiers
	// Rand gives salts; nil is crypto/rand.
	Rand io.Reader
	// Wait is how long to wait for another process; 0 is 10 seconds.
	Wait time.Duration
}

// Ledger is an open ledger. Its methods can be called from several goroutines.
type Ledger struct {
	path  string
	db    *sql.DB
	read  *pool // db for questions
	clock func() time.Time
	wait  time.Duration
	ro    bool

	operator, second Signer
	log              note.Signer
	digest           func(context.Context, []byte) ([16]byte, error)
	known            note.Verifiers
	rand             io.Reader

	writer chan struct{} // holds one token: goroutines queue here, processes at SQLite's lock
}

// Close closes the ledger.
func (l *Ledger) Close() error { return l.fail(errors.Join(l.read.close(), l.db.Close())) }

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
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%s: %w: %w", l.path, ErrFull, err)
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

// pool is a database that prepares each question once per connection: a view
// takes SQLite longer to prepare than to answer. There are as many as this
// package has words for.
type pool struct {
	db         *sql.DB
	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

func (p *pool) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.statements[query]
	if s == nil {
		var err error
		if s, err = p.db.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		p.statements[query] = s
	}
	return s, nil
}

func (p *pool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := p.prepare(ctx, query)
	if err != nil {
		return p.db.QueryRowContext(ctx, query, args...)
	}
	return s.QueryRowContext(ctx, args...)
}

func (p *pool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := p.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

func (p *pool) close() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.statements {
		err = errors.Join(err, s.Close())
	}
	return err
}

// write runs f in a transaction that holds the ledger's only write lock, and
// commits to the disk.
func (l *Ledger) write(ctx context.Context, f func(*cached) error) error {
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
	q := &cached{conn: conn, statements: map[string]*sql.Stmt{}}
	if err = errors.Join(f(q), q.close()); err == nil {
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

// cached is a connection that prepares each statement once.
type cached struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
}

func (c *cached) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	s := c.statements[query]
	if s == nil {
		var err error
		if s, err = c.conn.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		c.statements[query] = s
	}
	return s, nil
}

// QueryRowContext prepares and asks. What can't be prepared fails again in the
// connection, which has a way to say so.
func (c *cached) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return c.conn.QueryRowContext(ctx, query, args...)
	}
	return s.QueryRowContext(ctx, args...)
}

func (c *cached) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

func (c *cached) exec(ctx context.Context, statement string, args ...any) error {
	s, err := c.prepare(ctx, statement)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx, args...)
	return err
}

func (c *cached) close() (err error) {
	for _, s := range c.statements {
		err = errors.Join(err, s.Close())
	}
	return err
}

func exec(ctx context.Context, conn *sql.Conn, statement string, args ...any) error {
	_, err := conn.ExecContext(ctx, statement, args...)
	return err
}
