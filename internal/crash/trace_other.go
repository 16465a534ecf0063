//go:build !(linux && amd64)

package crash

import "syscall"

// Trace is for Linux on amd64: see there.
func Trace(*Command, Tracer) (status syscall.WaitStatus, err error) { return status, ErrNoTracing }
