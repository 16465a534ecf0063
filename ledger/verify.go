package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifyOptions says what a ledger is held against.
type VerifyOptions struct {
	// Known verifies checkpoints; nil is Options.Known. Without either the
	// checkpoint's signature is left unverified, and Since can't be used.
	Known note.Verifiers
	// Since are checkpoints of earlier times, kept outside the ledger.
	Since [][]byte
	// Workers is how many events are checked at a time; 0 is one per processor.
	Workers int
	// Progress is told now and then how many events have been checked; it may be nil.
	Progress func(done, total int64)
}

// Verified is what was found to be in order.
type Verified struct {
	Checkpoint Checkpoint // of all events
	Signed     bool       // its signature was verified
	Signatures int64      // of operators
	Erased     int64      // events whose values are erased
}

// Verify reads the whole ledger and checks everything: SQLite's integrity
// check; every record in its one encoding; the signatures of its operators,
// who worked here then and were allowed to; its commitments to values that
// are there, and an event that says so of values that are not; times that do
// not go back; the hashes of the log; and the checkpoints. What it finds wraps
// [ErrDamaged], [ErrRolledBack] or [ErrCheckpoint].
//
// It sees the ledger as it is at the beginning; others can append meanwhile.
func (l *Ledger) Verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	if o.Known == nil {
		o.Known = l.known
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if err := l.patiently(ctx, func() error { return l.examine(ctx) }); err != nil {
		return Verified{}, l.fail(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	structure := make(chan error, 1)
	go func() {
		structure <- l.patiently(ctx, func() error { return pragmaCheck(ctx, l.db, "integrity_check") })
	}()
	found, err := ask(ctx, l, func() (Verified, error) { return l.verify(ctx, o) })
	if err != nil {
		cancel()
		<-structure
		return Verified{}, err
	}
	if err := <-structure; err != nil {
		return Verified{}, l.fail(err)
	}
	return found, nil
}

// Check is Verify for a yes or a no.
func (l *Ledger) Check(ctx context.Context) error {
	_, err := l.Verify(ctx, VerifyOptions{})
	return err
}

// verify works in a transaction, which sees one state of the ledger.
func (l *Ledger) verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return Verified{}, err
	}
	defer conn.Close()
	if err := exec(ctx, conn, "BEGIN"); err != nil {
		return Verified{}, err
	}
	defer func() { _ = exec(context.WithoutCancel(ctx), conn, "ROLLBACK") }()
	return verifyState(ctx, conn, o)
}

func verifyState(ctx context.Context, conn *sql.Conn, o VerifyOptions) (Verified, error) {
	// Nothing before the first event and behind the last: the walk below goes from
	// the one to the other.
	if err := examineLog(ctx, conn, nil); err != nil {
		return Verified{}, err
	}
	ledger, checkpoint, signed, err := newest(ctx, conn)
	if err != nil {
		return Verified{}, err
	}
	a := &audit{ledger: ledger, roster: roster{}, recent: map[int64]tlog.Hash{}, missing: map[int64]bool{}, erased: map[int64]bool{}}
	if a.presumed, err = loadRoster(ctx, conn); err != nil {
		return Verified{}, err
	}
	if err := a.run(ctx, conn, o, checkpoint.Size); err != nil {
		return Verified{}, err
	}
	stored := &tree{ctx, conn, nil}
	hash, err := tlog.TreeHash(a.seq, stored)
	if err != nil {
		return Verified{}, err
	}
	switch {
	case a.seq != checkpoint.Size:
		return Verified{}, mismatch(a.seq, checkpoint)
	case hash != checkpoint.Hash:
		return Verified{}, fmt.Errorf("%w: the log's hash is not the checkpoint's", ErrDamaged)
	}
	out := Verified{Checkpoint: checkpoint, Signatures: a.signatures, Erased: int64(len(a.erased))}
	if o.Known != nil && a.seq > 0 {
		if _, err := ParseCheckpoint(signed, o.Known); err != nil {
			return Verified{}, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		out.Signed = true
	}
	for _, s := range o.Since {
		if o.Known == nil {
			return Verified{}, fmt.Errorf("%w: no key to verify it with", ErrCheckpoint)
		}
		earlier, err := ParseCheckpoint(s, o.Known)
		if err != nil {
			return Verified{}, err
		}
		if err := since(earlier, ledger, a.seq, stored); err != nil {
			return Verified{}, err
		}
	}
	return out, nil
}

// audit is the state of a verification. Events are taken apart and their
// signatures verified by several workers; what depends on the order is done
// by one.
type audit struct {
	ledger     string
	presumed   roster // for the workers: keys never change
	roster     roster // as it follows from the events
	seq        int64
	time       time.Time
	recent     map[int64]tlog.Hash // the newest hash of each level
	missing    map[int64]bool      // events with values that are not there
	erased     map[int64]bool      // events whose values are said to be erased
	present    []int64             // erased events that had values: kept until the end
	signatures int64
}

// batch is some events as they are stored, and what the workers make of them.
type batch struct {
	first   int64
	records []string
	values  map[int64][]opening
	hashes  []tlog.Hash

	events []Event // sealed
	leaves []tlog.Hash
	err    error
	done   chan struct{}
}

const batchSize = 512

func (a *audit) run(ctx context.Context, conn *sql.Conn, o VerifyOptions, total int64) error {
	ctx, cancel := context.WithCancel(ctx)
	work := make(chan *batch, o.Workers)
	ordered := make(chan *batch, 2*o.Workers)
	var workers sync.WaitGroup
	for range o.Workers {
		workers.Go(func() {
			for b := range work {
				if ctx.Err() == nil {
					b.check(a.ledger, a.presumed)
				}
				close(b.done)
			}
		})
	}
	var readError error
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(ordered)
		defer close(work)
		for first := int64(1); ; first += batchSize {
			b, err := readBatch(ctx, conn, first)
			if err != nil || len(b.records) == 0 {
				readError = err
				return
			}
			select {
			case ordered <- b:
				work <- b
			case <-ctx.Done():
				readError = ctx.Err()
				return
			}
		}
	})
	var fault error
	for b := range ordered {
		<-b.done
		if fault != nil {
			continue
		}
		if fault = b.err; fault == nil {
			fault = a.take(b)
		}
		if fault != nil {
			cancel()
		} else if o.Progress != nil {
			o.Progress(a.seq, total)
		}
	}
	workers.Wait()
	reader.Wait()
	cancel()
	if fault != nil {
		return fault
	}
	if readError != nil {
		return readError
	}
	return a.finish()
}

func readBatch(ctx context.Context, conn *sql.Conn, first int64) (*batch, error) {
	b := &batch{first: first, done: make(chan struct{})}
	rows, err := conn.QueryContext(ctx, "SELECT seq, record FROM events WHERE seq >= ? ORDER BY seq LIMIT ?", first, batchSize)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var record string
		if err := rows.Scan(&seq, &record); err != nil {
			return nil, err
		}
		if want := first + int64(len(b.records)); seq != want {
			return nil, fmt.Errorf("%w: event %d is missing", ErrDamaged, want)
		}
		b.records = append(b.records, record)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	after := first + int64(len(b.records))
	if b.values, err = openings(ctx, conn, "seq >= ? AND seq < ?", first, after); err != nil {
		return nil, err
	}
	low, high := tlog.StoredHashCount(first-1), tlog.StoredHashCount(after-1)
	hashes, err := conn.QueryContext(ctx, "SELECT n, hash FROM hashes WHERE n >= ? AND n < ? ORDER BY n", low, high)
	if err != nil {
		return nil, err
	}
	defer hashes.Close()
	for hashes.Next() {
		var n int64
		var h sql.RawBytes
		if err := hashes.Scan(&n, &h); err != nil {
			return nil, err
		}
		if want := low + int64(len(b.hashes)); n != want || len(h) != tlog.HashSize {
			return nil, fmt.Errorf("%w: hash %d of the log is missing", ErrDamaged, want)
		}
		b.hashes = append(b.hashes, tlog.Hash(h))
	}
	if err := errors.Join(hashes.Err(), hashes.Close()); err != nil {
		return nil, err
	}
	if want := high - low; int64(len(b.hashes)) != want {
		return nil, fmt.Errorf("%w: hash %d of the log is missing", ErrDamaged, low+int64(len(b.hashes)))
	}
	return b, nil
}

// check does what needs no other event.
func (b *batch) check(ledger string, keys roster) {
	for i, record := range b.records {
		seq := b.first + int64(i)
		e, body, err := decode([]byte(record))
		if err == nil && e.Seq != seq {
			err = fmt.Errorf("record is of event %d", e.Seq)
		}
		if err == nil {
			err = keys.verify(ledger, e, body)
		}
		if err == nil {
			open := e
			if err = open.unseal(b.values[seq]); err == nil {
				e.Erased = open.Erased
			}
		}
		if err != nil {
			b.err = damaged(seq, err)
			return
		}
		b.events = append(b.events, e)
		b.leaves = append(b.leaves, tlog.RecordHash([]byte(record)))
	}
}

func damaged(seq int64, err error) error {
	return fmt.Errorf("%w: event %d: %w", ErrDamaged, seq, err)
}

// take does what depends on the events before.
func (a *audit) take(b *batch) error {
	stored := tlog.StoredHashCount(b.first - 1)
	for i, e := range b.events {
		a.seq++
		if e.Time.Before(a.time) {
			return damaged(a.seq, errors.New("it is earlier than the event before"))
		}
		a.time = e.Time
		err := a.roster.admit(e)
		if err == nil {
			err = a.roster.apply(e)
		}
		if err == nil {
			err = a.sameKeys(e)
		}
		if err != nil {
			return damaged(a.seq, err)
		}
		if d, ok := e.Data.(ValuesErased); ok {
			for _, n := range d.Events {
				a.erased[n] = true
			}
		}
		if len(e.Erased) > 0 {
			a.missing[a.seq] = true
		}
		if len(b.values[a.seq]) > 0 {
			a.present = append(a.present, a.seq)
		}
		hashes, err := tlog.StoredHashesForRecordHash(a.seq-1, b.leaves[i], tlog.HashReaderFunc(a.hash))
		if err != nil {
			return err
		}
		for _, h := range hashes {
			if b.hashes[stored-tlog.StoredHashCount(b.first-1)] != h {
				return damaged(a.seq, errors.New("it is not the one that the log has the hash of"))
			}
			a.recent[stored] = h
			stored++
		}
		if a.seq%batchSize == 0 {
			a.forget()
		}
	}
	return nil
}

// sameKeys tells that the workers had the keys that the events give.
func (a *audit) sameKeys(e Event) error {
	for _, id := range e.signers() {
		a.signatures++
		if o, p := a.roster[id], a.presumed[id]; o == nil || p == nil || !bytes.Equal(o.Key, p.Key) {
			return fmt.Errorf("%w: %s", ErrOperator, id)
		}
	}
	return nil
}

func (a *audit) hash(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		h, ok := a.recent[n]
		if !ok {
			return nil, fmt.Errorf("%w: hash %d of the log is missing", ErrDamaged, n)
		}
		out[i] = h
	}
	return out, nil
}

// forget drops the hashes that no later one is made of: all but those that
// the tree of so many events is made of.
func (a *audit) forget() {
	keep := map[int64]tlog.Hash{}
	for level, n := 0, a.seq; n > 0; level, n = level+1, n/2 {
		if n%2 == 1 {
			index := tlog.StoredHashIndex(level, n-1)
			keep[index] = a.recent[index]
		}
	}
	a.recent = keep
}

// finish compares what is missing with what is said to be erased.
func (a *audit) finish() error {
	for seq := range a.missing {
		if !a.erased[seq] {
			return damaged(seq, errors.New("a value is missing, and no event says that it was erased"))
		}
	}
	for _, seq := range a.present {
		if a.erased[seq] {
			return damaged(seq, errors.New("its values are there, and an event says that they were erased"))
		}
	}
	return nil
}
