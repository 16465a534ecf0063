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
	digest           func(context.Context, []byte) ([16]byte, error)
	known            note.Verifiers
	rand             io.Reader

	queue  queue
	writer chan *writer // holds the only one: goroutines wait here, processes at SQLite's lock
}

// Close closes the ledger, after a transaction that is under way.
func (l *Ledger) Close() error {
	err := l.read.close()
	if !l.ro {
		w := <-l.writer
		err = errors.Join(err, w.close())
		l.writer <- w // which refuses what comes now
	}
	return l.fail(errors.Join(err, l.db.Close()))
}

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
	return until(ctx, time.Now().Add(l.wait), f)
}

func until(ctx context.Context, deadline time.Time, f func() error) error {
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
