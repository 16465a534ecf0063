package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Errors of the log.
var (
	ErrNoLogKey   = errors.New("no key to sign the ledger's checkpoint with")                      // Options.Log
	ErrRolledBack = errors.New("ledger does not hold what a checkpoint says")                      // an older copy, or another history
	ErrCheckpoint = errors.New("not a checkpoint of this ledger signed by one of the site's keys") // forged, damaged, or another ledger's
)

// Checkpoint is the state of the log at some time: so many events, under one
// hash.
type Checkpoint struct {
	Ledger string // id of the ledger
	Size   int64  // number of events
	Hash   tlog.Hash
}

// text is the checkpoint as it is signed: the checksum database's tree
// description, and a line with the ledger's id.
func (c Checkpoint) text() string {
	return string(tlog.FormatTree(tlog.Tree{N: c.Size, Hash: c.Hash})) + "ledger " + c.Ledger + "\n"
}

// ParseCheckpoint reads a signed checkpoint and verifies it with one of the
// known keys. The error wraps [ErrCheckpoint].
func ParseCheckpoint(signed []byte, known note.Verifiers) (Checkpoint, error) {
	n, err := note.Open(signed, known)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	return parseCheckpoint(n.Text)
}

// parseCheckpoint accepts what text writes.
func parseCheckpoint(text string) (Checkpoint, error) {
	tree, err := tlog.ParseTree([]byte(text))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	c := Checkpoint{Size: tree.N, Hash: tree.Hash}
	if at := strings.LastIndex(strings.TrimSuffix(text, "\n"), "\nledger "); at >= 0 {
		c.Ledger = strings.TrimSuffix(text[at+len("\nledger "):], "\n")
	}
	if err := digits("ledger", c.Ledger, 32); err != nil || c.text() != text {
		return Checkpoint{}, fmt.Errorf("%w: its text is malformed", ErrCheckpoint)
	}
	return c, nil
}

// unverified reads a checkpoint without knowing any key.
func unverified(signed []byte) (Checkpoint, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok {
		return Checkpoint{}, fmt.Errorf("%w: it is not signed", ErrCheckpoint)
	}
	return parseCheckpoint(text + "\n")
}

// LogSigner signs checkpoints with an Ed25519 key that stays where it is. The
// name is the one in the signature line; it has no white space and no plus.
func LogSigner(name string, public ed25519.PublicKey, sign func(message []byte) ([]byte, error)) (note.Signer, error) {
	v, err := LogVerifier(name, public)
	if err != nil {
		return nil, err
	}
	return &logSigner{v, sign}, nil
}

type logSigner struct {
	note.Verifier
	sign func([]byte) ([]byte, error)
}

func (s *logSigner) Sign(message []byte) ([]byte, error) { return s.sign(message) }

// LogVerifier verifies what [LogSigner] signs.
func LogVerifier(name string, public ed25519.PublicKey) (note.Verifier, error) {
	key, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(key)
}

// tree reads the log's hashes. What was read and added within a transaction
// is kept, so that many events in one append read few.
type tree struct {
	ctx    context.Context
	q      querier
	recent map[int64]tlog.Hash
}

// ReadHashes is tlog's HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		h, ok := t.recent[n]
		if !ok {
			var b []byte
			err := t.q.QueryRowContext(t.ctx, "SELECT hash FROM hashes WHERE n = ?", n).Scan(&b)
			if errors.Is(err, sql.ErrNoRows) || err == nil && len(b) != tlog.HashSize {
				return nil, fmt.Errorf("%w: hash %d of the log is missing", ErrDamaged, n)
			}
			if err != nil {
				return nil, err
			}
			h = tlog.Hash(b)
			if t.recent != nil {
				t.recent[n] = h
			}
		}
		out[i] = h
	}
	return out, nil
}

// tail is the end of the log within a transaction that appends.
type tail struct {
	*writer
	ledger string // its id
	seq    int64
	time   time.Time
	roster roster
	tree   tree
	hashes int64 // how many there are
}

// end returns where the log ends. It is read once for a transaction, whose
// jobs then move it on.
func (w *writer) end(ctx context.Context) (*tail, error) {
	if w.tail != nil {
		return w.tail, nil
	}
	// Another process may have brought the file to a newer schema since it
	// was opened.
	var version int
	if err := w.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return nil, err
	}
	if version != schemaVersion {
		return nil, newer(version)
	}
	t := &tail{writer: w, tree: tree{context.WithoutCancel(ctx), w, map[int64]tlog.Hash{}}}
	var err error
	var checkpoint Checkpoint
	if t.ledger, checkpoint, _, err = newest(ctx, w); err != nil {
		return nil, err
	}
	if t.roster, err = loadRoster(ctx, w); err != nil {
		return nil, err
	}
	var last sql.NullString
	if err := w.QueryRowContext(ctx, "SELECT seq, time FROM events ORDER BY seq DESC LIMIT 1").Scan(&t.seq, &last); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if last.Valid {
		if t.time, err = time.Parse(timeForm, last.String); err != nil {
			return nil, fmt.Errorf("%w: event %d: time %q", ErrDamaged, t.seq, last.String)
		}
	}
	if checkpoint.Size != t.seq {
		return nil, mismatch(t.seq, checkpoint)
	}
	t.hashes = tlog.StoredHashCount(t.seq)
	w.tail = t
	return t, nil
}

// back takes the log's end back to where it was before a job whose events are
// not there. Their hashes in the tree are written over before they are read.
func (t *tail) back(ctx context.Context, seq int64, at time.Time) (err error) {
	t.seq, t.time, t.hashes = seq, at, tlog.StoredHashCount(seq)
	t.roster, err = loadRoster(ctx, t.writer)
	return err
}

func mismatch(events int64, c Checkpoint) error {
	return fmt.Errorf("%w: there are %d events, the checkpoint is of %d", ErrDamaged, events, c.Size)
}

// newest returns the ledger's id and its newest checkpoint, whose signature
// has not been verified; signed is empty in a ledger without events.
func newest(ctx context.Context, q querier) (ledger string, c Checkpoint, signed []byte, err error) {
	if err := q.QueryRowContext(ctx, "SELECT id, checkpoint FROM log WHERE only = 1").Scan(&ledger, &signed); errors.Is(err, sql.ErrNoRows) {
		return "", c, nil, fmt.Errorf("%w: it has no id", ErrDamaged)
	} else if err != nil {
		return "", c, nil, err
	}
	if err := digits("id", ledger, 32); err != nil {
		return "", c, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(signed) == 0 {
		c = Checkpoint{Ledger: ledger}
		c.Hash, err = tlog.TreeHash(0, nil)
		return ledger, c, nil, err
	}
	if c, err = unverified(signed); err == nil && c.Ledger != ledger {
		err = fmt.Errorf("%w: its checkpoint is another ledger's", ErrDamaged)
	} else if err != nil {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return ledger, c, signed, err
}

// grow adds a record to the tree.
func (t *tail) grow(ctx context.Context, record []byte) error {
	hashes, err := tlog.StoredHashes(t.seq-1, record, &t.tree)
	if err != nil {
		return err
	}
	for _, h := range hashes {
		if err := t.exec(ctx, "INSERT INTO hashes (n, hash) VALUES (?, ?)", t.hashes, h[:]); err != nil {
			return err
		}
		t.tree.recent[t.hashes] = h
		t.hashes++
	}
	return nil
}

// sign writes the checkpoint of what there is now.
func (t *tail) sign(ctx context.Context) error {
	hash, err := tlog.TreeHash(t.seq, &t.tree)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: Checkpoint{t.ledger, t.seq, hash}.text()}, t.log)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return t.exec(ctx, "UPDATE log SET checkpoint = ?", string(signed))
}

// Checkpoint returns the newest checkpoint as it was signed. Kept elsewhere, it
// tells later whether the ledger still has this history, see [Ledger.Since].
// The error wraps [ErrNotFound] in a ledger without events.
func (l *Ledger) Checkpoint(ctx context.Context) ([]byte, error) {
	return ask(ctx, l, func() ([]byte, error) {
		_, _, signed, err := newest(ctx, l.db)
		if err == nil && len(signed) == 0 {
			err = fmt.Errorf("a checkpoint is %w", ErrNotFound)
		}
		return signed, err
	})
}

// Since tells whether the ledger still has the history that an earlier
// checkpoint is of: it reads O(log n) hashes. The error wraps [ErrRolledBack]
// when events are missing or others than then, and [ErrCheckpoint] when the
// checkpoint is not this ledger's. With nil for known its signature is left
// unverified, where whoever could forge it could as well take it away.
func (l *Ledger) Since(ctx context.Context, signed []byte, known note.Verifiers) error {
	read := unverified
	if known != nil {
		read = func(signed []byte) (Checkpoint, error) { return ParseCheckpoint(signed, known) }
	}
	earlier, err := read(signed)
	if err != nil {
		return l.fail(err)
	}
	_, err = ask(ctx, l, func() (struct{}, error) {
		ledger, now, _, err := newest(ctx, l.db)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, since(earlier, ledger, now.Size, &tree{ctx, l.db, nil})
	})
	return err
}

func since(earlier Checkpoint, ledger string, size int64, hashes tlog.HashReader) error {
	if earlier.Ledger != ledger {
		return fmt.Errorf("%w: it is ledger %s, the checkpoint is of %s", ErrCheckpoint, ledger, earlier.Ledger)
	}
	if earlier.Size > size {
		return fmt.Errorf("%w: %d events, there were %d", ErrRolledBack, size, earlier.Size)
	}
	hash, err := tlog.TreeHash(earlier.Size, hashes)
	if err != nil {
		return err
	}
	if hash != earlier.Hash {
		return fmt.Errorf("%w: the first %d events are not those of then", ErrRolledBack, earlier.Size)
	}
	return nil
}

// edges returns the number of the last event and how many hashes the log has,
// and refuses what stands before the first, or beside them. What is there in
// between, only a walk tells.
func edges(ctx context.Context, q querier) (last, hashes int64, err error) {
	var rows, event, value, lastValue, hash int64
	if err := q.QueryRowContext(ctx, `SELECT
			(SELECT count(*) FROM log),
			(SELECT coalesce(min(seq), 1) FROM events), (SELECT coalesce(max(seq), 0) FROM events),
			(SELECT coalesce(min(seq), 1) FROM private), (SELECT coalesce(max(seq), 0) FROM private),
			(SELECT coalesce(min(n), 0) FROM hashes), (SELECT coalesce(max(n) + 1, 0) FROM hashes)`).
		Scan(&rows, &event, &last, &value, &lastValue, &hash, &hashes); err != nil {
		return 0, 0, err
	}
	switch {
	case rows != 1:
		err = fmt.Errorf("%w: %d rows with an id and a checkpoint", ErrDamaged, rows)
	case event < 1:
		err = fmt.Errorf("%w: an event with the number %d; the first one has 1", ErrDamaged, event)
	case value < 1:
		err = fmt.Errorf("%w: a value of event %d, which there is not", ErrDamaged, value)
	case lastValue > last:
		err = fmt.Errorf("%w: a value of event %d, which there is not", ErrDamaged, lastValue)
	case hash < 0:
		err = fmt.Errorf("%w: a hash of the log with the number %d; the first one has 0", ErrDamaged, hash)
	}
	return last, hashes, err
}

// examineLog checks the ends of the log in O(log n): as many events as the
// checkpoint says, nothing before and beside them, the hash of the last one, and
// the hash of all.
func examineLog(ctx context.Context, q querier, known note.Verifiers) error {
	_, c, signed, err := newest(ctx, q)
	if err != nil {
		return err
	}
	if known != nil && len(signed) > 0 {
		if _, err := ParseCheckpoint(signed, known); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	last, hashes, err := edges(ctx, q)
	if err != nil {
		return err
	}
	if last != c.Size {
		return mismatch(last, c)
	}
	if want := tlog.StoredHashCount(last); hashes != want {
		return fmt.Errorf("%w: %d hashes of the log, %d expected", ErrDamaged, hashes, want)
	}
	stored := &tree{ctx, q, nil}
	if last > 0 {
		var record string
		if err := q.QueryRowContext(ctx, "SELECT record FROM events WHERE seq = ?", last).Scan(&record); err != nil {
			return err
		}
		leaf, err := stored.ReadHashes([]int64{tlog.StoredHashIndex(0, last-1)})
		if err != nil {
			return err
		}
		if leaf[0] != tlog.RecordHash([]byte(record)) {
			return fmt.Errorf("%w: event %d is not the one that was recorded", ErrDamaged, last)
		}
	}
	hash, err := tlog.TreeHash(last, stored)
	if err != nil {
		return err
	}
	if !bytes.Equal(hash[:], c.Hash[:]) {
		return fmt.Errorf("%w: the log's hash is not the checkpoint's", ErrDamaged)
	}
	return nil
}
