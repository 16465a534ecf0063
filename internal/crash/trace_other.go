//go:build !(linux && amd64)

package crash

import "syscall"

// Trace is for Linux on amd64: see there.
func Trace(*Command, Tracer) (syscall.WaitStatus, error) { return 0, ErrNoTracing }
