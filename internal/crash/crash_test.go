package crash_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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

// newSite is a copy of ready.
func newSite(t *testing.T) *crash.Site {
	t.Helper()
	s, err := ready()
	must(t, err)
	// Not t.TempDir: a sweep makes too many to keep until the test ends.
	dir, err := os.MkdirTemp(scratch, "")
	must(t, err)
	s, err = s.Copy(dir)
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

// recover holds a site against its cards after a fault in issuing to a holder,
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

// requireTracing makes the tests fail that would be skipped where processes
// can't be traced.
const requireTracing = "FREEAREA_REQUIRE_TRACING"

func skipUntraced(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, crash.ErrNoTracing) && os.Getenv(requireTracing) != "1" && !sweep.Full() {
		t.Skip(err)
	}
	must(t, err)
}

// calls runs the command for a holder to its end and returns the calls that
// change files.
func calls(t *testing.T, holder int) (list []crash.Call) {
	t.Helper()
	s := newSite(t)
	defer remove(t, s)
	c := issue(t, s, holder)
	status, err := crash.Trace(c, crash.Tracer{Before: func(call crash.Call) error { list = append(list, call); return nil }})
	skipUntraced(t, err)
	if status.ExitStatus() != 0 {
		t.Fatalf("status %d: %s", status.ExitStatus(), c.Said())
	}
	return list
}

// few takes some of n places, evenly, and all of them in a sweep. Both ends
// are among them.
func few(n, some int) (out []int) {
	if sweep.Full() || n <= some {
		some = n
	}
	for i := range some {
		out = append(out, 1+i*(n-1)/max(some-1, 1))
	}
	return out
}

// TestKilledAtEveryCall ends the program before each call that changes a file.
func TestKilledAtEveryCall(t *testing.T) {
	for holder := range 2 {
		list := calls(t, holder)
		for _, n := range few(len(list), 12) {
			s := newSite(t)
			c := issue(t, s, holder)
			var at crash.Call
			_, err := crash.Trace(c, crash.Tracer{Before: func(call crash.Call) error {
				if call.N != n {
					return nil
				}
				at = call
				return crash.Kill
			}})
			must(t, err)
			what := fmt.Sprintf("killed at call %d of %d, %s %s", n, len(list), at.Name, filepath.Base(at.Path))
			recoverFrom(t, fmt.Sprint("process: killed at every call, service ", holder), what, s, holder, c.Said())
			remove(t, s)
		}
	}
}
