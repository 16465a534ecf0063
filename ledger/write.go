package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// job is what one caller wants done within a transaction.
type job struct {
	do   func(*writer) error
	err  error
	done chan struct{} // closed when err tells how it ended
}

// queue holds the jobs that wait for a transaction.
type queue struct {
	mu      sync.Mutex
	waiting []*job
}

func (q *queue) enter(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, j)
}

// leave takes a job out; false tells that a transaction has it.
func (q *queue) leave(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, j)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	return i >= 0
}

// take takes all jobs out.
func (q *queue) take() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}

// write runs f in a transaction that holds the ledger's only write lock, and
// commits to the disk. It is the disk that takes the time: whoever has the
// writer does in one transaction what all wait for. Each job succeeds or fails
// by itself; f may run on another goroutine than the caller's.
func (l *Ledger) write(ctx context.Context, f func(*writer) error) error {
	if l.ro {
		return fmt.Errorf("%s: %w", l.path, ErrReadOnly)
	}
	deadline := time.Now().Add(l.wait)
	j := &job{do: f, done: make(chan struct{})}
	l.queue.enter(j)
	select {
	case <-j.done:
	case w := <-l.writer:
		// Now the job either waits still or is done.
		if l.queue.leave(j) {
			l.lead(ctx, w, j, deadline)
		}
		l.writer <- w
	case <-ctx.Done():
		if l.queue.leave(j) {
			j.err = ctx.Err()
		} else {
			<-j.done
		}
	}
	return l.fail(j.err)
}

// lead begins a transaction for a job and does the others that wait with it.
// They go on waiting where it can't be begun.
func (l *Ledger) lead(ctx context.Context, w *writer, j *job, deadline time.Time) {
	if j.err = until(ctx, deadline, func() error { return w.exec(ctx, "BEGIN IMMEDIATE") }); j.err != nil {
		return
	}
	w.transaction(j, l.queue.take)
}

// writer is the connection that writes. It prepares each statement once.
type writer struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
	log        note.Signer // of checkpoints
	tail       *tail       // of the transaction under way, nil while nothing is appended
}

// newWriter takes a connection out of the pool.
func newWriter(ctx context.Context, db *sql.DB, log note.Signer) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// What a savepoint would give back stays out of the directory of temporary files.
	if err := exec(ctx, conn, "PRAGMA temp_store = MEMORY"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &writer{conn: conn, statements: map[string]*sql.Stmt{}, log: log}, nil
}

// transaction does a job and those that come while it is at it, and commits,
// with one checkpoint over the events of all.
func (w *writer) transaction(first *job, more func() []*job) {
	// Nobody could tell what an interrupted commit had done.
	ctx := context.Background()
	jobs := []*job{first}
	w.tail = nil
	var err error
	for i := 0; i < len(jobs) && err == nil; i++ {
		if err = w.one(ctx, jobs[i]); i == len(jobs)-1 {
			jobs = append(jobs, more()...)
		}
	}
	if err == nil && w.tail != nil {
		err = w.tail.sign(ctx)
	}
	if err == nil {
		err = w.exec(ctx, "COMMIT")
	}
	if err != nil {
		// What fails in here can only be a transaction that SQLite has ended
		// by itself.
		_ = w.exec(ctx, "ROLLBACK")
	}
	for _, j := range jobs {
		if j.err == nil {
			j.err = err
		}
		close(j.done)
	}
}

// one does a job, and takes back what it wrote when it fails. The error tells
// why SQLite has ended the whole transaction, as it does on a full disk.
func (w *writer) one(ctx context.Context, j *job) error {
	if err := w.exec(ctx, "SAVEPOINT job"); err != nil {
		return err
	}
	before := w.tail
	var seq int64
	var at time.Time
	if before != nil {
		seq, at = before.seq, before.time
	}
	if j.err = j.do(w); j.err != nil {
		if err := w.exec(ctx, "ROLLBACK TO job"); err != nil {
			return j.err
		}
		if w.tail = before; before != nil {
			if err := before.back(ctx, seq, at); err != nil {
				return err
			}
		}
	}
	return w.exec(ctx, "RELEASE job")
}

// prepare looks at the context itself and keeps it from SQLite, which would end
// the transaction of all where it is interrupted.
func (w *writer) prepare(ctx context.Context, statement string) (context.Context, *sql.Stmt, error) {
	if err := ctx.Err(); err != nil {
		return ctx, nil, err
	}
	ctx = context.WithoutCancel(ctx)
	s := w.statements[statement]
	if s == nil {
		var err error
		if s, err = w.conn.PrepareContext(ctx, statement); err != nil {
			return ctx, nil, err
		}
		w.statements[statement] = s
	}
	return ctx, s, nil
}

// QueryRowContext prepares and asks. What can't be prepared fails again in the
// connection, which has a way to say so.
func (w *writer) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	ctx, s, err := w.prepare(ctx, query)
	if err != nil {
		return w.conn.QueryRowContext(ctx, query, args...)
	}
	return s.QueryRowContext(ctx, args...)
}

func (w *writer) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ctx, s, err := w.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

func (w *writer) exec(ctx context.Context, statement string, args ...any) error {
	ctx, s, err := w.prepare(ctx, statement)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx, args...)
	return err
}

func (w *writer) close() (err error) {
	for _, s := range w.statements {
		err = errors.Join(err, s.Close())
	}
	return errors.Join(err, w.conn.Close())
}

func exec(ctx context.Context, conn *sql.Conn, statement string, args ...any) error {
	_, err := conn.ExecContext(ctx, statement, args...)
	return err
}
