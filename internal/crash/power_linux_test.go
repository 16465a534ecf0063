package crash_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/freearea/freearea/internal/crash"
)

// TestPowerCut takes the power away before each call that changes a file: what
// was not synced is gone, what the card was told is not.
func TestPowerCut(t *testing.T) {
	for holder := range 2 {
		type moment struct {
			call  crash.Call
			state map[string][]byte
			said  string
		}
		var moments []moment
		s := newSite(t)
		disk, err := crash.NewDisk(s.Dir)
		must(t, err)
		c := issue(t, s, holder)
		look := func(call crash.Call) error {
			state, err := disk.State()
			if err != nil {
				return err
			}
			if len(moments) == 0 || !maps.EqualFunc(moments[len(moments)-1].state, state, bytes.Equal) {
				moments = append(moments, moment{call, state, c.Said()})
			}
			return disk.Before(call)
		}
		status, err := crash.Trace(c, crash.Tracer{Before: look, After: disk.After})
		skipUntraced(t, err)
		if status.ExitStatus() != 0 {
			t.Fatalf("status %d: %s", status.ExitStatus(), c.Said())
		}
		must(t, look(crash.Call{Name: "end"}))
		moments[len(moments)-1].said = c.Said()
		for _, i := range few(len(moments), 12) {
			m := moments[i-1]
			dir, err := os.MkdirTemp(scratch, "")
			must(t, err)
			after, err := s.Restore(m.state, dir)
			must(t, err)
			what := fmt.Sprintf("no power at call %d, %s %s", m.call.N, m.call.Name, filepath.Base(m.call.Path))
			recoverFrom(t, fmt.Sprint("process: power cut, service ", holder), what, after, holder, m.said)
			remove(t, after)
		}
		remove(t, s)
	}
}
