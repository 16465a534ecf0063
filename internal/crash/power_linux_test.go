package crash_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/freearea/freearea/internal/crash"
)

// TestPowerCut takes the power away before each call that changes a file: what
// was not synced is gone, what the card was told is not.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for holder := range 2 {
		type moment struct {
			call  crash.Call
			state map[string][]byte
			said  string
		}
		var moments []moment
		var changed []int // the first moments with another content of the card, never left out
		s := newSite(t)
		disk, err := crash.NewDisk(s.Dir)
		must(t, err)
		c := issue(t, s, holder)
		look := func(call crash.Call) error {
			for _, latest := range []bool{false, true} {
				state, err := disk.State(latest)
				if err != nil {
					return err
				}
				same := func(m moment) bool { return maps.EqualFunc(m.state, state, bytes.Equal) }
				if i := slices.IndexFunc(moments, same); i < 0 {
					if card := crash.Card(holder); len(moments) > 0 && !bytes.Equal(moments[len(moments)-1].state[card], state[card]) {
						changed = append(changed, len(moments)+1)
					}
					moments = append(moments, moment{call, state, c.Said()})
				} else {
					moments[i].said = c.Said() // it may be as late as that
				}
			}
			return disk.Before(call)
		}
		status, err := crash.Trace(c, crash.Tracer{Before: look, After: disk.After})
		skipUntraced(t, err)
		if status.ExitStatus() != 0 {
			t.Fatalf("status %d: %s", status.ExitStatus(), c.Said())
		}
		must(t, look(crash.Call{Name: "end"}))
		places := append(few(len(moments), 5, all), changed...)
		slices.Sort(places)
		for _, i := range slices.Compact(places) {
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
