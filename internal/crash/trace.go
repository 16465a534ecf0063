package crash

import (
	"errors"
	"syscall"
)

// ErrNoTracing: processes can't be traced here: another system than Linux on
// amd64, or one that forbids it.
var ErrNoTracing = errors.New("processes can't be traced here")

// ErrKill as the answer of [Tracer.Before] ends the process before the call, as
// SIGKILL does: nothing of it runs on.
var ErrKill = errors.New("kill")

// Call is a system call that changes a file.
type Call struct {
	N      int    // from 1, over all threads
	Name   string // "write", "fsync", "rename", …; "create" for what opens a new file
	Path   string // of the file, or of the first that is named
	Prints bool   // to standard output or error, and no file of the site
	Failed bool   // After only

	descriptor string // path by which the open file is reached while the process is stopped
	errno      syscall.Errno
}

// Tracer is told of the calls of a traced process, which stands still
// meanwhile. Either may be nil.
type Tracer struct {
	// Before answers nil to let the call happen, [ErrKill], or a [syscall.Errno]
	// with which the call fails without having done anything. Any other error
	// ends the trace and the process.
	Before func(Call) error
	// After is told of a call that was let happen.
	After func(Call) error
}
