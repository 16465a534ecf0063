package crash_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freearea/freearea/internal/crash"
	"github.com/freearea/freearea/internal/sweep"
)

// holders of the site that all tests begin with. The first two get the two
// services.
const holders = 6

var (
	tally   sweep.Tally
	scratch string // removed at the end
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "freearea-crash-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		status := m.Run()
		if err := tally.Report(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return status
	}())
}

// ready is a site on which nothing has been issued.
var ready = sync.OnceValues(func() (*crash.Site, error) {
	program, err := crash.Build(context.Background(), scratch)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(scratch, "site")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return crash.New(context.Background(), dir, program, holders, nil)
})

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copied is a copy of ready. It is not in t.TempDir: a sweep makes too many to
// keep until its test ends.
func copied() (*crash.Site, error) {
	s, err := ready()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		return nil, err
	}
	return s.Copy(dir)
}

func newSite(t *testing.T) *crash.Site {
	t.Helper()
	s, err := copied()
	must(t, err)
	return s
}

func remove(t *testing.T, s *crash.Site) {
	t.Helper()
	must(t, os.RemoveAll(s.Dir))
}

func issue(t *testing.T, s *crash.Site, holder int) *crash.Command {
	t.Helper()
	c, err := s.Issue(t.Context(), holder)
	must(t, err)
	t.Cleanup(c.Done)
	return c
}

// count adds findings to figures, and tells the test of each.
func count(t *testing.T, f *sweep.Figures, what string, found []crash.Finding, err error) {
	t.Helper()
	if err != nil {
		found = append(found, crash.Finding{Lost: true, What: err.Error()})
	}
	for _, x := range found {
		t.Errorf("%s: %s", what, x.What)
		f.Lost += sweep.Count(x.Lost)
		f.Orphans += sweep.Count(x.Orphan)
	}
}

// recoverFrom holds a site against its cards after a fault in issuing to a holder,
// issues again, and holds it against them once more. What had been printed
// before the fault is said: who was told of an issue must find it recorded.
func recoverFrom(t *testing.T, flow, what string, s *crash.Site, holder int, said string) {
	t.Helper()
	f := sweep.Figures{Cuts: 1}
	what = flow + ", " + what
	found, err := s.Inspect(t.Context())
	count(t, &f, what, found, err)
	if strings.Contains(said, `"type":"issue"`) {
		found, err := s.Converged(t.Context(), holder)
		count(t, &f, what+", after it had said so", found, err)
	}
	_, err = s.Complete(t.Context(), holder)
	if err != nil {
		t.Errorf("%s: again: %v", what, err)
	} else {
		found, err = s.Converged(t.Context(), holder)
		count(t, &f, what+", again", found, err)
	}
	f.Converged = sweep.Count(err == nil && f.Lost == 0 && f.Orphans == 0)
	tally.Add(f, flow)
}

// requireTracing makes the tests fail that would be skipped where the system
// does not let processes be traced.
const requireTracing = "FREEAREA_REQUIRE_TRACING"

func skipUntraced(t *testing.T, err error) {
	t.Helper()
	required := os.Getenv(requireTracing) == "1" && runtime.GOOS == "linux" && runtime.GOARCH == "amd64"
	if errors.Is(err, crash.ErrNoTracing) && !required && !sweep.Full() {
		t.Skipf("%v; %s=1 makes this an error", err, requireTracing)
	}
	must(t, err)
}

// calls returns the calls that change files when the command runs to its end
// for a holder.
func calls(t *testing.T, holder int) []crash.Call {
	t.Helper()
	list, err := allCalls[holder]()
	skipUntraced(t, err)
	return list
}

var allCalls = [...]func() ([]crash.Call, error){
	sync.OnceValues(func() ([]crash.Call, error) { return record(0) }),
	sync.OnceValues(func() ([]crash.Call, error) { return record(1) }),
}

func record(holder int) (list []crash.Call, err error) {
	s, err := copied()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.Dir)
	c, err := s.Issue(context.Background(), holder)
	if err != nil {
		return nil, err
	}
	defer c.Done()
	status, err := crash.Trace(c, crash.Tracer{Before: func(call crash.Call) error { list = append(list, call); return nil }})
	if err == nil && status.ExitStatus() != 0 {
		err = fmt.Errorf("status %d: %s", status.ExitStatus(), c.Said())
	}
	return list, err
}

// few takes some of n places, evenly, both ends among them; in a sweep more.
func few(n, some, swept int) (out []int) {
	if sweep.Full() {
		some = swept
	}
	some = min(some, n)
	for i := range some {
		out = append(out, 1+i*(n-1)/max(some-1, 1))
	}
	return out
}

// all is every place.
const all = 1 << 30

// telling are places that no selection leaves out: around each time that a card
// changes, where card and ledger could disagree.
func telling(list []crash.Call) (out []int) {
	for _, c := range list {
		if c.Name == "rename" && strings.HasPrefix(filepath.Base(c.Path), "card-") {
			out = append(out, c.N, c.N+1)
		}
	}
	return out
}

// TestKilledAtEveryCall ends the program before each call that changes a file.
func TestKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	for holder := range 2 {
		list := calls(t, holder)
		places := append(few(len(list), 5, all), telling(list)...)
		slices.Sort(places)
		for _, n := range slices.Compact(places) {
			s := newSite(t)
			c := issue(t, s, holder)
			var at crash.Call
			_, err := crash.Trace(c, crash.Tracer{Before: func(call crash.Call) error {
				if call.N != n {
					return nil
				}
				at = call
				return crash.ErrKill
			}})
			must(t, err)
			what := fmt.Sprintf("killed at call %d of %d, %s %s", n, len(list), at.Name, filepath.Base(at.Path))
			recoverFrom(t, fmt.Sprint("process: killed at every call, service ", holder), what, s, holder, c.Said())
			remove(t, s)
		}
	}
}

// TestDiskErrors has the disk fail at each call: full from there on, read-only
// from there on, or once with an error of its own. The program says so and
// ends by itself.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	writes := []string{"create", "write", "pwrite64", "writev", "ftruncate", "fallocate", "link"}
	for _, fault := range []struct {
		errno syscall.Errno
		once  bool
		calls []string // that fail; all of them without any
	}{
		{errno: syscall.ENOSPC, calls: writes},
		{errno: syscall.EROFS, calls: append([]string{"rename", "unlink"}, writes...)},
		{errno: syscall.EIO, once: true},
	} {
		for holder := range 2 {
			for _, n := range few(len(calls(t, holder)), 2, 40) {
				s := newSite(t)
				c := issue(t, s, holder)
				var at string
				status, err := crash.Trace(c, crash.Tracer{Before: func(call crash.Call) error {
					if call.Prints || call.N < n || fault.once && at != "" || fault.calls != nil && !slices.Contains(fault.calls, call.Name) {
						return nil
					}
					at = cmp.Or(at, fmt.Sprintf("call %d, %s %s", call.N, call.Name, filepath.Base(call.Path)))
					return fault.errno
				}})
				must(t, err)
				what := fmt.Sprintf("%v at %s", fault.errno, at)
				said := c.Said()
				if !status.Exited() || status.ExitStatus() > 1 || strings.Contains(said, "goroutine ") {
					t.Errorf("%s: the program ended with %#x: %s", what, status, said)
				}
				if status.ExitStatus() == 1 && !strings.Contains(said, "freearea: error: ") {
					t.Errorf("%s: it failed and did not say why: %q", what, said)
				}
				recoverFrom(t, "process: disk fails, "+fault.errno.Error(), what, s, holder, said)
				remove(t, s)
			}
		}
	}
}

// TestKilledAtRandom goes through the list of holders and ends the program at
// random moments, at most three times in a row for each holder.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	const flow = "process: killed at random moments"
	kills := 8
	if sweep.Full() {
		kills = 500
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	s := newSite(t)
	began := time.Now()
	_, err := s.Complete(t.Context(), 0)
	must(t, err)
	whole := time.Since(began)
	holder := 1
	for done, lists := 0, 0; done < kills; {
		if holder == holders {
			remove(t, s)
			s, holder = newSite(t), 0
			if lists++; lists > kills {
				t.Fatalf("%d of %d processes lived until they were killed", done, kills)
			}
		}
		for range 3 {
			c := issue(t, s, holder)
			must(t, c.Start())
			moment := time.Duration(random.Int64N(int64(whole)))
			watch := time.AfterFunc(moment, func() { _ = c.Process.Kill() }) // its own process, not waited for yet
			err := c.Wait()
			watch.Stop()
			if err == nil { // faster than the clock
				continue
			}
			if !strings.Contains(err.Error(), "killed") {
				t.Fatalf("seed %d, %v: %v: %s", seed, moment, err, c.Said())
			}
			if done++; random.IntN(2) == 0 {
				f := sweep.Figures{Cuts: 1}
				found, err := s.Inspect(t.Context())
				count(t, &f, fmt.Sprintf("%s (seed %d), after %v", flow, seed, moment), found, err)
				f.Converged = sweep.Count(f.Lost == 0 && f.Orphans == 0 && err == nil)
				tally.Add(f, flow)
				continue // and killed again
			}
			recoverFrom(t, flow, fmt.Sprintf("seed %d, after %v", seed, moment), s, holder, c.Said())
			break
		}
		_, err := s.Complete(t.Context(), holder)
		must(t, err)
		holder++
	}
	remove(t, s)
}

// TestBatchKilledAtRandom: a list with several cards on the slots at once. What
// a killed batch left, the same command finishes.
func TestBatchKilledAtRandom(t *testing.T) {
	t.Parallel()
	const flow = "process: batch killed at random moments"
	kills := 4
	if sweep.Full() {
		kills = 100
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	batch := func(s *crash.Site) *crash.Command {
		t.Helper()
		c, err := s.Batch(t.Context())
		must(t, err)
		t.Cleanup(c.Done)
		return c
	}
	s := newSite(t)
	began := time.Now()
	first := batch(s)
	if err := first.Run(); err != nil {
		t.Fatalf("%v: %s", err, first.Said())
	}
	whole := time.Since(began)
	remove(t, s)
	for done, sites := 0, 0; done < kills; sites++ {
		if sites > kills {
			t.Fatalf("%d of %d processes lived until they were killed", done, kills)
		}
		s := newSite(t)
		finished := false
		for tries := 0; tries < 3 && !finished; tries++ {
			c := batch(s)
			must(t, c.Start())
			moment := time.Duration(random.Int64N(int64(whole)))
			watch := time.AfterFunc(moment, func() { _ = c.Process.Kill() }) // its own process, not waited for yet
			err := c.Wait()
			watch.Stop()
			what := fmt.Sprintf("%s (seed %d), after %v", flow, seed, moment)
			switch {
			case err == nil: // faster than the clock
				finished = true
				continue
			case !strings.Contains(err.Error(), "killed"):
				t.Fatalf("%s: %v: %s", what, err, c.Said())
			}
			done++
			f := sweep.Figures{Cuts: 1}
			found, err := s.Inspect(t.Context())
			count(t, &f, what, found, err)
			f.Converged = sweep.Count(f.Lost == 0 && f.Orphans == 0 && err == nil)
			tally.Add(f, flow)
		}
		last := batch(s)
		if err := last.Run(); err != nil {
			t.Fatalf("seed %d: the batch does not end: %v: %s", seed, err, last.Said())
		}
		var f sweep.Figures
		found, err := s.Converged(t.Context(), s.BatchHolders()...)
		count(t, &f, fmt.Sprintf("%s (seed %d), at the end", flow, seed), found, err)
		tally.Add(f, flow)
		remove(t, s)
	}
}

// TestClockBack issues after a ledger whose last event is in ten days.
func TestClockBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	defer remove(t, s)
	must(t, s.IssueAt(t.Context(), 0, func() time.Time { return time.Now().AddDate(0, 0, 10) }))
	f := sweep.Figures{Cuts: 1}
	for holder := range 3 {
		_, err := s.Complete(t.Context(), holder)
		count(t, &f, fmt.Sprintf("holder %d", holder), nil, err)
	}
	found, err := s.Converged(t.Context(), 0, 1, 2)
	count(t, &f, "clock put back", found, err)
	f.Converged = sweep.Count(f.Lost == 0 && f.Orphans == 0)
	tally.Add(f, "process: clock put back")
}

// TestTwoProcesses has two processes at one ledger: with two holders, one of
// them killed; and with one holder's consent and two cards, of which one gets
// it.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	rounds := 2
	if sweep.Full() {
		rounds = 20
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	run := func(a, b *crash.Command) (first, second error) {
		must(t, a.Start())
		must(t, b.Start())
		return a.Wait(), b.Wait()
	}
	for round := range rounds {
		what := fmt.Sprintf("seed %d, round %d", seed, round)
		s := newSite(t)
		a, b := issue(t, s, 0), issue(t, s, 2) // IDs counted by one sequence
		must(t, a.Start())
		must(t, b.Start())
		watch := time.AfterFunc(time.Duration(random.Int64N(int64(time.Second/2))), func() { _ = a.Process.Kill() })
		_ = a.Wait()
		watch.Stop()
		if err := b.Wait(); err != nil {
			t.Errorf("%s: beside a process that was killed: %v: %s", what, err, b.Said())
		}
		recoverFrom(t, "process: two on one ledger", what, s, 0, a.Said())
		remove(t, s)

		s = newSite(t)
		f := sweep.Figures{Cuts: 1}
		other, err := s.IssueTo(t.Context(), 0, crash.Card(2))
		must(t, err)
		t.Cleanup(other.Done)
		own := issue(t, s, 0)
		first, second := run(own, other)
		if (first == nil) == (second == nil) {
			f.Lost++
			t.Errorf("%s: one consent, two cards: %v and %v: %s%s", what, first, second, own.Said(), other.Said())
		}
		holds, err := s.Holding(t.Context(), 0)
		count(t, &f, what, nil, err)
		if len(holds) != 1 {
			f.Lost++
			t.Errorf("%s: one consent is on the cards %v", what, holds)
		}
		f.Converged = sweep.Count(f.Lost == 0)
		tally.Add(f, "process: one consent, two cards")
		remove(t, s)
	}
}

// TestLedgerCutShort issues with a ledger of which the end is missing: it is
// refused, and the card is not touched.
func TestLedgerCutShort(t *testing.T) {
	t.Parallel()
	const flow = "process: ledger cut short"
	s := newSite(t)
	defer remove(t, s)
	_, err := s.Complete(t.Context(), 0)
	must(t, err)
	path, card := s.LedgerPath(), filepath.Join(s.Dir, crash.Card(1))
	whole, err := os.ReadFile(path)
	must(t, err)
	before, err := os.ReadFile(card)
	must(t, err)
	for _, n := range few(len(whole), 8, 100) {
		f := sweep.Figures{Cuts: 1}
		must(t, os.WriteFile(path, whole[:n-1], 0o600))
		if said, err := s.Complete(t.Context(), 1); err == nil {
			f.Lost++
			t.Errorf("cut to %d of %d bytes: issued all the same: %s", n-1, len(whole), said)
		}
		after, err := os.ReadFile(card)
		must(t, err)
		if !bytes.Equal(before, after) {
			f.Lost++
			t.Errorf("cut to %d of %d bytes: the card was written", n-1, len(whole))
		}
		for _, more := range []string{"-wal", "-shm"} {
			must(t, os.RemoveAll(path+more))
		}
		must(t, os.WriteFile(path, whole, 0o600))
		f.Converged = sweep.Count(f.Lost == 0)
		tally.Add(f, flow)
	}
	recoverFrom(t, flow, "restored", s, 1, "")
}
