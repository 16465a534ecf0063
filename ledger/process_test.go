package ledger_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/ledger/ledgertest"
)

// TestMain lets the test program run itself as another process on a ledger.
func TestMain(m *testing.M) {
	if task := os.Getenv("LEDGER_TEST_TASK"); task != "" {
		if err := tasks[task](os.Getenv("LEDGER_TEST_FILE"), os.Getenv("LEDGER_TEST_NAME")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var tasks = map[string]func(path, name string) error{
	// append without end, telling the number of every event answered for
	"append": func(path, _ string) error {
		l, err := ledgertest.Open(context.Background(), path, clerk.Operator, ledger.Options{})
		if err != nil {
			return err
		}
		for i := 0; ; i++ {
			c := consent(fmt.Sprintf("%d-%d", os.Getpid(), i), "library")
			c.Signed = []byte(strings.Repeat("x", 9000)) // over several pages
			seq, err := appendAll(context.Background(), l, c, ledger.CardBound{Consent: c.Consent, Card: cardA})
			if err != nil {
				return err
			}
			fmt.Println(seq)
		}
	},
	// create the ledger unless it is there, reserve 25 IDs, some twice
	"reserve": func(path, name string) error {
		ctx := context.Background()
		l, err := ledgertest.Open(ctx, path, clerk.Operator, ledger.Options{Create: true})
		if err != nil {
			return err
		}
		defer l.Close()
		for i := range 25 {
			c := fmt.Sprintf("%s-%d", name, i)
			if _, err := appendAll(ctx, l, consent(c, "library")); err != nil {
				return err
			}
			r := ledger.Reservation{Actor: clerk, Service: "library", Consent: c, Run: c, Draw: number}
			id, _, err := l.ReserveID(ctx, r)
			if err != nil {
				return err
			}
			if again, ok, err := l.ReserveID(ctx, r); err != nil || !ok || again != id {
				return fmt.Errorf("reserved %s, then %s: %w", id, again, err)
			}
			fmt.Println(id)
			// An ID that all processes want: one gets it.
			if _, err := appendAll(ctx, l, ledger.IDReserved{Service: "library", ID: fmt.Sprint("wanted-", i), Consent: c}); err == nil {
				fmt.Println("wanted-" + strconv.Itoa(i))
			} else if !errors.Is(err, ledger.ErrIDTaken) {
				return err
			}
		}
		return nil
	},
}

func process(t *testing.T, task, path, name string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "LEDGER_TEST_TASK="+task, "LEDGER_TEST_FILE="+path, "LEDGER_TEST_NAME="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestTwoProcesses has processes create and use one ledger at the same time.
func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	const n = 3
	outputs := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		cmd := process(t, "reserve", path, fmt.Sprint("p", i))
		wg.Go(func() {
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("process %d: %v", i, err)
			}
			outputs[i] = string(out)
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, out := range outputs {
		for id := range strings.Lines(out) {
			if seen[id] {
				t.Errorf("%s given out twice", strings.TrimSpace(id))
			}
			seen[id] = true
		}
	}
	for i := range n * 25 {
		if id, _ := number(uint64(i + 1)); !seen[id+"\n"] {
			t.Errorf("%s was never given out", id)
		}
	}
	for i := range 25 {
		if !seen[fmt.Sprintf("wanted-%d\n", i)] {
			t.Errorf("wanted-%d: nobody has it", i)
		}
	}
	l := open(t, path, ledger.Options{})
	must(t, l.Check(t.Context()))
	if left, err := filepath.Glob(path + ".new-*"); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestKilled kills a process in the middle of its appends: what it was told
// of is there, and whole.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	must(t, open(t, path, ledger.Options{Create: true}).Close())
	for round := range 4 {
		cmd := process(t, "append", path, "")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		var told int64
		for range 5 + 3*round {
			if !lines.Scan() {
				t.Fatal("the process ended by itself")
			}
			told, err = strconv.ParseInt(lines.Text(), 10, 64)
			must(t, err)
		}
		must(t, cmd.Process.Kill())
		for lines.Scan() { // what it had said before it died
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				told = n
			}
		}
		_ = cmd.Wait() // killed
		l := open(t, path, ledger.Options{})
		must(t, l.Check(t.Context()))
		var last ledger.Event
		for e, err := range l.Events(t.Context(), ledger.Filter{}) {
			must(t, err)
			last = e
		}
		if last.Seq < told {
			t.Errorf("round %d: told of event %d, the last is %d", round, told, last.Seq)
		}
		if last.Data.Kind() != ledger.KindCardBound {
			t.Errorf("round %d: half an append: the last event is %s", round, last.Data.Kind())
		}
		must(t, l.Close())
	}
}
