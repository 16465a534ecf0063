package ledger

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// applicationID marks the file as a ledger in SQLite's header: "FrAL".
const applicationID = 0x4672414C

// schemaVersion is the newest schema; schema/N.sql leads from version N-1 to N.
const schemaVersion = 2

//go:embed schema/*.sql
var schema embed.FS

// Open opens the ledger in a file, brings an older schema up to date, and
// checks the file: SQLite's quick check, the schema with its guards, numbers
// without gaps. The error wraps [ErrNotLedger], [ErrDamaged] or [ErrNewer]
// where the content is at fault, and names the file. A new file has mode 0600.
func Open(ctx context.Context, path string, o Options) (*Ledger, error) {
	l := &Ledger{path: path, clock: o.Clock, wait: o.Wait, ro: o.ReadOnly, writer: make(chan struct{}, 1)}
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
	mode := "rw"
	if o.ReadOnly {
		mode = "ro"
	}
	if l.db, err = database(path, mode); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	err = l.patiently(ctx, func() error { return l.examine(ctx) })
	if err == nil && !l.ro {
		// Can it be written? SQLite opens a file that it can't write for
		// reading, and says so late.
		err = l.write(ctx, func(*sql.Conn) error { return nil })
	} else {
		err = l.fail(err)
	}
	if err != nil {
		l.db.Close()
		return nil, err
	}
	return l, nil
}

// database opens the file with SQLite. A page in the write-ahead log is on
// the disk when a transaction ends (synchronous FULL).
func database(path, mode string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	slashed := filepath.ToSlash(abs)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // C:/… becomes file:///C:/…
	}
	q := url.Values{
		"mode":       {mode},
		"_defensive": {"1"},
		"_dqs":       {"0"},
		"_pragma": {
			"busy_timeout(100)", "synchronous(FULL)", "foreign_keys(ON)", "trusted_schema(OFF)",
		},
	}
	connector, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: slashed, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(4)
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
	db, err := database(temp, "rw")
	if err != nil {
		return err
	}
	err = migrate(ctx, db, schemaVersion)
	if err == nil {
		_, err = db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Link(temp, l.path); errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	} else if err != nil { // a file system without hard links
		if _, err := os.Lstat(l.path); err == nil {
			return nil
		}
		if err := os.Rename(temp, l.path); err != nil {
			return err
		}
	}
	return syncDir(dir)
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
		for v := version + 1; v <= to; v++ {
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
	if err := pragmaCheck(ctx, l.db, "quick_check"); err != nil {
		return err
	}
	var count, last int64
	if err := l.db.QueryRowContext(ctx, "SELECT count(*), coalesce(max(seq), 0) FROM events").Scan(&count, &last); err != nil {
		return err
	}
	if count != last {
		return fmt.Errorf("%w: %d events, the last has the number %d", ErrDamaged, count, last)
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
	fresh, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return err
	}
	defer fresh.Close()
	fresh.SetMaxOpenConns(1) // each connection has a memory of its own
	if err := migrate(ctx, fresh, schemaVersion); err != nil {
		return err
	}
	want, err := objects(ctx, fresh)
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

// objects returns the statements of a schema by "type name". Statistics that
// ANALYZE leaves behind are not part of it.
func objects(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, "SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*'")
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

// Check reads the whole ledger: SQLite's integrity check, every record in its
// one encoding and its one place. What it finds wraps [ErrDamaged].
func (l *Ledger) Check(ctx context.Context) error {
	if err := l.patiently(ctx, func() error { return l.examine(ctx) }); err != nil {
		return l.fail(err)
	}
	if err := l.patiently(ctx, func() error { return pragmaCheck(ctx, l.db, "integrity_check") }); err != nil {
		return l.fail(err)
	}
	for _, err := range l.Events(ctx, Filter{}) {
		if err != nil {
			return err
		}
	}
	return nil
}
