// Package ledgertest gives tests what a ledger asks of an office: operators
// who sign, and the keys of checkpoints and digests.
package ledgertest

import (
	"context"
	"crypto/aes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/staff"
)

// seeded gives a key's seed from its name, so that all processes of a test
// have the same keys.
type seeded string

func (s seeded) Read(b []byte) (int, error) {
	sum := sha256.Sum256([]byte("ledgertest " + s))
	return copy(b, sum[:]), nil
}

// Operator returns the key of an operator, always the same one for an id.
func Operator(id string) *staff.Key {
	k, err := staff.NewKey(id, seeded(id))
	if err != nil {
		panic(err)
	}
	return k
}

// Log returns the key of checkpoints.
func Log() (note.Signer, note.Verifiers) {
	var seed [ed25519.SeedSize]byte
	_, _ = seeded("log").Read(seed[:])
	private := ed25519.NewKeyFromSeed(seed[:])
	signer, err := ledger.LogSigner("ledgertest", private.Public().(ed25519.PublicKey), func(m []byte) ([]byte, error) {
		return ed25519.Sign(private, m), nil
	})
	if err != nil {
		panic(err)
	}
	return signer, note.VerifierList(signer.(note.Verifier))
}

// Digest is a keyed digest of IDs.
func Digest(_ context.Context, message []byte) (d [16]byte, err error) {
	sum := sha256.Sum256(append([]byte("ledgertest digest"), message...))
	return [16]byte(sum[:aes.BlockSize]), nil
}

// Options completes options with a supervisor who signs and the keys.
func Options(operator string, o ledger.Options) ledger.Options {
	o.Operator = Operator(operator)
	o.Log, o.Known = Log()
	o.Digest = Digest
	return o
}

// Open opens a ledger as a supervisor, who is the first one in a new one. The
// event that says so has a time before all others.
func Open(ctx context.Context, path, operator string, o ledger.Options) (*ledger.Ledger, error) {
	o = Options(operator, o)
	if o.Create && !o.ReadOnly {
		early := o
		early.Clock = func() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }
		l, err := ledger.Open(ctx, path, early)
		if err != nil {
			return nil, err
		}
		people, err := l.Operators(ctx)
		if err == nil && len(people) == 0 {
			_, err = l.Append(ctx, ledger.Event{Actor: ledger.Actor{Counter: "test"}, Data: ledger.OperatorAdded{
				Operator: operator, Role: staff.Supervisor, Key: o.Operator.Public(),
			}})
			if errors.Is(err, ledger.ErrExists) || errors.Is(err, ledger.ErrNotAllowed) || errors.Is(err, ledger.ErrSecond) {
				err = nil // another process was faster
			}
		}
		if err = errors.Join(err, l.Close()); err != nil {
			return nil, err
		}
	}
	return ledger.Open(ctx, path, o)
}

// MustOpen is Open for a test, which it closes with.
func MustOpen(t testing.TB, path, operator string, o ledger.Options) *ledger.Ledger {
	t.Helper()
	l, err := Open(t.Context(), path, operator, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
