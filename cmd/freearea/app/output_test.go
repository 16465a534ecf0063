package app

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
)

// full is a file on a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestOutputLost has what a command prints not come.
func TestOutputLost(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"staff", "rules"}, {"manifest", "--help"}} {
		var good, errs bytes.Buffer
		o := Options{Args: append([]string{"freearea"}, args...), Stdin: strings.NewReader(""), Stdout: &good, Stderr: &errs, Getenv: func(string) string { return "" }}
		if status := Run(t.Context(), o); status != 0 || good.Len() == 0 {
			t.Errorf("%v: status %d: %s", args, status, errs.String())
		}
		o.Stdout = full{}
		if status := Run(t.Context(), o); status != exitFailed || !strings.Contains(errs.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%v on a full disk: status %d: %s", args, status, errs.String())
		}
	}
}
