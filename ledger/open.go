package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// applicationID marks the file as a ledger in SQLite's header: "FrAL".
const applicationID = 0x4672414C

// schemaVersion is the newest schema; schema/N.sql leads from version N-1 to
// N, and schema/2.sql from an empty file: events of version 1 were not signed,
// and no release wrote them.
const (
	schemaVersion = 2
	firstSchema   = 2
)

//go:embed schema/*.sql
var schema embed.FS

// Open opens the ledger in a file, brings an older schema up to date, and
// checks what can be checked without reading it all: that it is whole in
// SQLite's eyes, the schema with its guards, and that its end is the one the
// checkpoint is of. [Ledger.Verify] checks the rest. The error wraps
// [ErrNotLedger], [ErrDamaged], [ErrOlder] or [ErrNewer] where the content is
// at fault, and names the file. A new file has mode 0600.
//
// With Options.ReadOnly a ledger that nobody has open can be read from where
// nothing can be written, such as a copy on a disc.
func Open(ctx context.Context, path string, o Options) (*Ledger, error) {
	l := &Ledger{
		path: path, clock: o.Clock, wait: o.Wait, ro: o.ReadOnly,
		operator: o.Operator, second: o.Second, digest: o.Digest, known: o.Known, rand: o.Rand,
	}
	if l.rand == nil {
		l.rand = rand.Reader
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	if l.wait == 0 {
		l.wait = 10 * time.Second
	}
	// The file is looked at, never opened, but by SQLite: closing another
	// descriptor of it would drop SQLite's locks (POSIX locks belong to the
	// process), and with them the protection from other processes.
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && o.Create && !o.ReadOnly {
		if err = l.create(ctx); err == nil {
			info, err = os.Stat(path)
		}
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("ledger: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w: no regular file", path, ErrNotLedger)
	case info.Size() == 0:
		return nil, fmt.Errorf("%s: %w: the file is empty", path, ErrDamaged)
	}
	options := url.Values{"mode": {"rw"}}
	if o.ReadOnly {
		options.Set("mode", "ro")
	}
	err = l.connect(ctx, options)
	if l.ro && unwritable(err) {
		// Beside a write-ahead log SQLite needs a file of its own, also to read.
		// Where it can't make one, a file without such a log is whole by itself.
		if log, fault := os.Stat(path + "-wal"); fault == nil && log.Size() > 0 {
			err = fmt.Errorf("%w, and %s-wal has yet to be taken in: copy both to a directory where you may write", ErrReadOnly, filepath.Base(path))
		} else {
			options.Set("immutable", "1")
			err = errors.Join(l.db.Close(), l.connect(ctx, options))
		}
	}
	if err == nil && !l.ro {
		err = l.openWriter(ctx, o.Log)
	}
	if err != nil {
		if l.db != nil {
			err = errors.Join(err, l.db.Close())
		}
		return nil, l.fail(l.blocked(err))
	}
	return l, nil
}

// blocked says why SQLite can't open a file that is there, where the reason is
// its directory: the write-ahead log and its index stand beside it, also for
// those who only read. SQLite says no more than that it could not.
func (l *Ledger) blocked(err error) error {
	e := new(sqlite.Error)
	if !errors.As(err, &e) || e.Code()&0xFF != sqlite3.SQLITE_CANTOPEN && e.Code() != sqlite3.SQLITE_IOERR_SHMSIZE {
		return err
	}
	const index = 32 << 10 // bytes of the index that SQLite begins with
	f, why := os.CreateTemp(filepath.Dir(l.path), ".freearea-*")
	if why == nil {
		_, why = f.Write(make([]byte, index))
		why = errors.Join(why, f.Close(), os.Remove(f.Name()))
	}
	switch {
	case errors.Is(why, syscall.ENOSPC), errors.Is(why, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(why, syscall.EROFS), errors.Is(why, fs.ErrPermission):
		return fmt.Errorf("%w, in a directory that can't be written: %w", ErrReadOnly, err)
	}
	return err
}

// openWriter makes the writer, and sees that it can write: SQLite opens a file
// that it can't write for reading, and says so late.
func (l *Ledger) openWriter(ctx context.Context, log note.Signer) error {
	w, err := newWriter(ctx, l.db, log)
	if err != nil {
		return err
	}
	if err := l.patiently(ctx, func() error { return w.exec(ctx, "BEGIN IMMEDIATE") }); err != nil {
		return errors.Join(err, w.close())
	}
	l.writer = make(chan *writer, 1)
	l.writer <- w
	return w.exec(ctx, "ROLLBACK")
}

// connect opens the file with SQLite and looks at it.
func (l *Ledger) connect(ctx context.Context, options url.Values) (err error) {
	if l.db, err = database(l.path, options); err != nil {
		return err
	}
	l.read = &pool{db: l.db, statements: map[string]*sql.Stmt{}}
	return l.patiently(ctx, func() error { return l.examine(ctx) })
}

// unwritable tells that SQLite could not make what it needs beside the file.
func unwritable(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xFF == sqlite3.SQLITE_READONLY || e.Code()&0xFF == sqlite3.SQLITE_CANTOPEN)
}

// database opens the file with SQLite. A page in the write-ahead log is on
// the disk when a transaction ends (synchronous FULL).
func database(path string, options url.Values) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	slashed := filepath.ToSlash(abs)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // C:/… becomes file:///C:/…
	}
	q := maps.Clone(options)
	q.Set("_defensive", "1")
	q.Set("_dqs", "0")
	q["_pragma"] = []string{"busy_timeout(100)", "synchronous(FULL)", "secure_delete(ON)", "foreign_keys(ON)", "trusted_schema(OFF)"}
	connector, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: slashed, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(5) // one of them writes
	return db, nil
}

// create makes an empty ledger under another name and links it to its own, so
// that there is a whole ledger or none, whenever the program or the machine
// stops, and that of two processes one wins.
func (l *Ledger) create(ctx context.Context) error {
	dir := filepath.Dir(l.path)
	f, err := os.CreateTemp(dir, filepath.Base(l.path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	temp := f.Name()
	defer os.Remove(temp)
	if err := f.Close(); err != nil {
		return err
	}
	db, err := database(temp, url.Values{"mode": {"rw"}})
	if err != nil {
		return err
	}
	err = migrate(ctx, db, schemaVersion)
	if err == nil {
		id := make([]byte, 16)
		if _, err = io.ReadFull(l.rand, id); err == nil {
			_, err = db.ExecContext(ctx, "INSERT INTO log (only, id, checkpoint) VALUES (1, ?, '')", hex.EncodeToString(id))
		}
	}
	if err == nil {
		_, err = db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := place(temp, l.path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil // another process was faster
}

// place gives a whole file its name, unless there is one of that name.
func place(temp, path string) error {
	err := os.Link(temp, path)
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	if err != nil { // a file system without hard links
		if _, err := os.Lstat(path); err == nil {
			return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		}
		if err := os.Rename(temp, path); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

// syncDir brings the new name to the disk. Windows can't, and needs not.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	if err := d.Sync(); err != nil && filepath.Separator == '/' {
		return err
	}
	return nil
}

// migrate brings a database from its schema version to another, in one
// transaction.
func migrate(ctx context.Context, db *sql.DB, to int) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := exec(ctx, conn, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err = func() error {
		var version int
		if err := conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		for v := max(version+1, firstSchema); v <= to; v++ {
			statements, err := schema.ReadFile(fmt.Sprintf("schema/%d.sql", v))
			if err != nil {
				return err
			}
			if err := exec(ctx, conn, string(statements)); err != nil {
				return fmt.Errorf("schema version %d: %w", v, err)
			}
		}
		return exec(ctx, conn, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", applicationID, to))
	}()
	if err != nil {
		_ = exec(context.WithoutCancel(ctx), conn, "ROLLBACK")
	}
	return err
}

// examine checks an existing file and migrates it.
func (l *Ledger) examine(ctx context.Context) error {
	var id, version int
	if err := l.db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id != applicationID {
		return fmt.Errorf("%w: an SQLite database of another program", ErrNotLedger)
	}
	if err := l.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version > schemaVersion:
		return newer(version)
	case version < 1:
		return fmt.Errorf("%w: schema version %d", ErrDamaged, version)
	case version < firstSchema:
		return fmt.Errorf("%w: schema version %d, whose events are not signed", ErrOlder, version)
	case version < schemaVersion && !l.ro:
		if err := migrate(ctx, l.db, schemaVersion); err != nil {
			return err
		}
	case version < schemaVersion:
		return fmt.Errorf("%w: schema version %d must be brought to %d first", ErrReadOnly, version, schemaVersion)
	}
	if err := compareSchema(ctx, l.db); err != nil {
		return err
	}
	// One state of the ledger: another process may be appending.
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(examineLog(ctx, tx, l.known), tx.Rollback()); err != nil {
		return err
	}
	if l.ro {
		return nil
	}
	var mode string
	return l.db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
}

func newer(version int) error {
	return fmt.Errorf("%w: schema version %d, this program knows %d", ErrNewer, version, schemaVersion)
}

// compareSchema compares tables, indexes, triggers and views with those of a
// fresh ledger: without its guards a ledger is none.
func compareSchema(ctx context.Context, db *sql.DB) error {
	want, err := ourSchema()
	if err != nil {
		return err
	}
	got, err := objects(ctx, db)
	if err != nil {
		return err
	}
	for object, statement := range want {
		switch found, ok := got[object]; {
		case !ok:
			return fmt.Errorf("%w: %s is missing", ErrDamaged, object)
		case found != statement:
			return fmt.Errorf("%w: %s is altered", ErrDamaged, object)
		}
	}
	for object := range got {
		if _, ok := want[object]; !ok {
			return fmt.Errorf("%w: %s is not ours", ErrDamaged, object)
		}
	}
	return nil
}

// ourSchema is the schema of a fresh ledger.
var ourSchema = sync.OnceValues(func() (map[string]string, error) {
	ctx := context.Background()
	fresh, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer fresh.Close()
	fresh.SetMaxOpenConns(1) // each connection has a memory of its own
	if err := migrate(ctx, fresh, schemaVersion); err != nil {
		return nil, err
	}
	return objects(ctx, fresh)
})

// objects returns the statements of a schema by "type name". The tables of
// statistics that ANALYZE leaves behind are not part of it; anything else of such
// a name is.
func objects(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, "SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema WHERE type <> 'table' OR name NOT IN ('sqlite_stat1', 'sqlite_stat4')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var object, statement string
		if err := rows.Scan(&object, &statement); err != nil {
			return nil, err
		}
		out[object] = statement
	}
	return out, rows.Err()
}

// pragmaCheck runs quick_check or integrity_check.
func pragmaCheck(ctx context.Context, db *sql.DB, pragma string) error {
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA "+pragma+"(1)").Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, strings.ReplaceAll(result, "\n", "; "))
	}
	return nil
}
