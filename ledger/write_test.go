package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
	"github.com/freearea/freearea/staff"
)

// TestTogether has several callers served by one transaction, of whom some
// fail: none has part of another's fate.
func TestTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, ledger.Options{Create: true})
	before := add(t, l, consent("known", "library"), consent("other", "library"))

	cancelled, cancel := context.WithCancel(t.Context())
	draw := func(id string) func(uint64) (string, error) {
		return func(uint64) (string, error) { return id, nil }
	}
	var errs [6]error
	var ids [2]string
	ledger.Together(l,
		func() { _, errs[0] = appendAll(t.Context(), l, consent("a", "library")) },
		// Its first event is good and its second is not.
		func() {
			_, errs[1] = appendAll(t.Context(), l, consent("b", "library"), consent("known", "library"))
		},
		func() {
			_, _, errs[2] = l.ReserveID(cancelled, ledger.Reservation{Actor: clerk, Service: "library", Consent: "known",
				Draw: func(uint64) (string, error) { cancel(); return "never", nil }})
		},
		func() {
			ids[0], _, errs[3] = l.ReserveID(t.Context(), ledger.Reservation{Actor: clerk, Service: "library", Consent: "known", Draw: draw("7")})
		},
		// The ID is taken in the same transaction.
		func() {
			ids[1], _, errs[4] = l.ReserveID(t.Context(), ledger.Reservation{Actor: clerk, Service: "library", Consent: "other", ID: "7"})
		},
		func() { _, errs[5] = appendAll(t.Context(), l, consent("c", "library")) },
	)
	for i, want := range []error{nil, ledger.ErrExists, context.Canceled, nil, ledger.ErrIDTaken, nil} {
		if !errors.Is(errs[i], want) {
			t.Errorf("caller %d: %v, want %v", i, errs[i], want)
		}
	}
	if ids[0] != "7" || ids[1] != "" {
		t.Errorf("IDs %q", ids)
	}
	if n := add(t, l, consent("d", "library")) - before; n != 4 {
		t.Errorf("%d events", n)
	}
	for _, id := range []string{"a", "c"} {
		if _, err := l.Consent(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.Consent(t.Context(), "b"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("of what failed there is a part: %v", err)
	}
	must(t, l.Check(t.Context()))
	must(t, l.Close())
	must(t, open(t, path, ledger.Options{}).Check(t.Context()))
}

// TestFullTogether has the disk fill up under several callers: whoever was told
// that something is recorded finds it, and whoever was told otherwise does not.
func TestFullTogether(t *testing.T) {
	l := fresh(t)
	ledger.LimitPages(t, l)
	full := false
	for part := 0; !full && part < 1000; part++ {
		var errs [5]error
		var writes []func()
		name := func(i int) string { return fmt.Sprintf("c-%d-%d", part, i) }
		for i := range errs {
			c := consent(name(i), "library")
			c.Signed = make([]byte, 3000*i+1) // up to several pages
			writes = append(writes, func() { _, errs[i] = appendAll(t.Context(), l, c) })
		}
		ledger.Together(l, writes...)
		for i, err := range errs {
			full = full || err != nil
			if err != nil && !errors.Is(err, ledger.ErrFull) {
				t.Error(err)
			}
			if _, found := l.Consent(t.Context(), name(i)); (found == nil) != (err == nil) {
				t.Errorf("%s: %v, and then: %v", name(i), err, found)
			}
		}
	}
	if !full {
		t.Error("the disk was never full")
	}
	must(t, l.Check(t.Context()))
}

// TestWaiting has callers wait for a ledger that another process holds.
func TestWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	l := open(t, path, ledger.Options{Create: true, Wait: 300 * time.Millisecond})
	other, err := ledgertest.Open(t.Context(), path, clerk.Operator, ledger.Options{Create: true})
	must(t, err)
	add(t, l, consent("known", "library"))
	held, release := make(chan struct{}), make(chan struct{})
	go other.ReserveID(t.Context(), ledger.Reservation{Actor: clerk, Service: "library", Consent: "known",
		Draw: func(uint64) (string, error) { close(held); <-release; return "", errors.New("none") }})
	<-held
	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	var errs [3]error
	var ended sync.WaitGroup
	for i, ctx := range []context.Context{t.Context(), soon, t.Context()} {
		ended.Go(func() { _, errs[i] = appendAll(ctx, l, consent(fmt.Sprint(i), "library")) })
	}
	ended.Wait()
	close(release)
	for i, want := range []error{ledger.ErrBusy, context.DeadlineExceeded, ledger.ErrBusy} {
		if !errors.Is(errs[i], want) {
			t.Errorf("caller %d: %v, want %v", i, errs[i], want)
		}
	}
	// The other process is done: what waits now succeeds.
	add(t, l, consent("d", "library"))
	must(t, other.Close())
	must(t, l.Check(t.Context()))
}

// TestWriteAfterClose has a caller come too late.
func TestWriteAfterClose(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "l"), ledger.Options{Create: true})
	must(t, l.Close())
	if _, err := appendAll(t.Context(), l, consent("a", "library")); err == nil {
		t.Error("appended to a closed ledger")
	}
}

// TestFailedCommit has the commit of several fail: all are told.
func TestFailedCommit(t *testing.T) {
	l := fresh(t)
	var errs [3]error
	ledger.Together(l,
		func() { _, errs[0] = appendAll(t.Context(), l, consent("a", "library")) },
		func() { errs[1] = ledger.FailCommit(t.Context(), l) },
		func() { _, errs[2] = appendAll(t.Context(), l, consent("b", "library")) },
	)
	for i, err := range errs {
		if err == nil {
			t.Errorf("caller %d was told that it is recorded", i)
		}
	}
	for _, id := range []string{"a", "b"} {
		if _, err := l.Consent(t.Context(), id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
	add(t, l, consent("a", "library"))
	must(t, l.Check(t.Context()))
}

// TestStaffTogether has an operator added by somebody whose other event is
// refused, and then by somebody else.
func TestStaffTogether(t *testing.T) {
	l := ledgertest.MustOpen(t, filepath.Join(t.TempDir(), "l"), "sup", ledger.Options{Create: true})
	added := func(id string) ledger.Event {
		return ledger.Event{Actor: ledger.Actor{Counter: "w"}, Data: ledger.OperatorAdded{Operator: id, Role: staff.Clerk, Key: ledgertest.Operator(id).Public()}}
	}
	var errs [3]error
	ledger.Together(l,
		func() { _, errs[0] = l.Append(t.Context(), added("a")) },
		func() { _, errs[1] = l.Append(t.Context(), added("b"), added("a")) },
		func() { _, errs[2] = l.Append(t.Context(), added("b")) },
	)
	if errs[0] != nil || !errors.Is(errs[1], ledger.ErrExists) || errs[2] != nil {
		t.Error(errs)
	}
	must(t, l.Check(t.Context()))
}
