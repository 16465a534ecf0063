package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// changes are the system calls that change files, with which of their
// arguments names the file: a descriptor, or a path.
var changes = map[uint64]struct {
	name       string
	descriptor int // index of the argument, or -1
	path       int
}{
	unix.SYS_WRITE:     {"write", 0, -1},
	unix.SYS_PWRITE64:  {"pwrite64", 0, -1},
	unix.SYS_WRITEV:    {"writev", 0, -1},
	unix.SYS_FTRUNCATE: {"ftruncate", 0, -1},
	unix.SYS_FALLOCATE: {"fallocate", 0, -1},
	unix.SYS_FSYNC:     {"fsync", 0, -1},
	unix.SYS_FDATASYNC: {"fdatasync", 0, -1},
	unix.SYS_OPEN:      {"create", -1, 0},
	unix.SYS_OPENAT:    {"create", -1, 1},
	unix.SYS_RENAME:    {"rename", -1, 0},
	unix.SYS_RENAMEAT:  {"rename", -1, 1},
	unix.SYS_RENAMEAT2: {"rename", -1, 1},
	unix.SYS_LINK:      {"link", -1, 0},
	unix.SYS_LINKAT:    {"link", -1, 1},
	unix.SYS_UNLINK:    {"unlink", -1, 0},
	unix.SYS_UNLINKAT:  {"unlink", -1, 1},
}

// creating is the argument with the flags of a call that opens a file.
var creating = map[uint64]int{unix.SYS_OPEN: 1, unix.SYS_OPENAT: 2}

// Trace starts the command and stops it before and after every system call
// that changes a file of its directory, or writes what it prints, whichever
// thread makes it. A call that changes nothing there is not stopped at.
//
// strace(1) can inject the same faults, but it counts the calls of each
// thread and of each name by themselves, and the Go runtime moves its work
// between threads: "the 17th write of the program" can't be said to it.
//
// It returns how the process ended. The error wraps [ErrNoTracing] where the
// system does not let processes be traced.
func Trace(c *Command, t Tracer) (_ syscall.WaitStatus, err error) {
	// All requests have to come from the thread that started the process. It
	// ends with its goroutine, so that nothing else inherits the relation.
	type outcome struct {
		status syscall.WaitStatus
		err    error
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread()
		status, err := trace(c, t)
		done <- outcome{status, err}
	}()
	o := <-done
	return o.status, o.err
}

// exitKill and the rest of the options: the process dies with the tracer, its
// threads are traced too, and stops at calls can be told from signals.
const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESYSGOOD

func trace(c *Command, t Tracer) (status syscall.WaitStatus, err error) {
	// A group of its own, which is waited for: the thread may have children
	// that were started from it before it was the tracer's.
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoTracing, err)
	}
	pid := c.Process.Pid
	defer c.Process.Release()
	ended := false
	defer func() {
		if ended {
			return
		}
		// Only ever the process started above, which nobody has waited for. It
		// is the last of its threads to be reported.
		_ = syscall.Kill(pid, syscall.SIGKILL)
		for tid, err := 0, error(nil); err == nil && tid != pid; {
			tid, err = wait(-pid, &status)
		}
	}()
	if _, err := wait(pid, &status); err != nil {
		return status, err
	}
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		return status, fmt.Errorf("%w: %w", ErrNoTracing, err)
	}
	if err := syscall.PtraceSyscall(pid, 0); err != nil {
		return status, fmt.Errorf("%w: %w", ErrNoTracing, err)
	}
	p := &traced{Command: c, Tracer: t, pid: pid, inside: map[int]*Call{}}
	for {
		tid, err := wait(-pid, &status)
		if err != nil {
			return status, fmt.Errorf("wait for a traced process: %w", err)
		}
		if status.Exited() || status.Signaled() {
			if tid == pid {
				ended = true
				return status, nil
			}
			continue
		}
		signal := 0
		switch s := status.StopSignal(); {
		case s == syscall.SIGTRAP|0x80:
			if err := p.stopped(tid); err != nil && !errors.Is(err, syscall.ESRCH) {
				return status, err
			}
		case s == syscall.SIGTRAP, s == syscall.SIGSTOP: // a new thread
		default:
			signal = int(s)
		}
		// ESRCH: the thread was killed meanwhile; its end is reported, too.
		if err := syscall.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return status, err
		}
	}
}

// wait waits for a process that this thread traces, or the threads of a group.
func wait(pid int, status *syscall.WaitStatus) (int, error) {
	for {
		tid, err := syscall.Wait4(pid, status, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, syscall.EINTR) {
			return tid, err
		}
	}
}

type traced struct {
	*Command
	Tracer
	pid    int
	calls  int
	inside map[int]*Call // by thread
}

// stopped tells the tracer of a stop, and does what it asks for.
func (p *traced) stopped(tid int) error {
	info, err := syscallInfo(tid)
	if err != nil {
		return err
	}
	if info.op == unix.PTRACE_SYSCALL_INFO_EXIT {
		c := p.inside[tid]
		if c == nil {
			return nil
		}
		delete(p.inside, tid)
		if c.errno == 0 {
			if c.Failed = info.values[0] < 0; p.After != nil {
				return p.After(*c)
			}
			return nil
		}
		var regs syscall.PtraceRegs
		if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
			return err
		}
		regs.Rax = uint64(-int64(c.errno))
		return syscall.PtraceSetRegs(tid, &regs)
	}
	c, ok := p.call(tid, info)
	if !ok {
		return nil
	}
	p.calls++
	c.N = p.calls
	if p.Before == nil {
		p.inside[tid] = c
		return nil
	}
	switch err := p.Before(*c); {
	case err == nil:
	case errors.Is(err, ErrKill):
		return syscall.Kill(p.pid, syscall.SIGKILL)
	case errors.As(err, &c.errno):
		var regs syscall.PtraceRegs
		if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
			return err
		}
		regs.Orig_rax = ^uint64(0) // no such call
		if err := syscall.PtraceSetRegs(tid, &regs); err != nil {
			return err
		}
	default:
		return err
	}
	p.inside[tid] = c
	return nil
}

// call says what call a thread is about to make, if it is one that changes a
// file of the site.
func (p *traced) call(tid int, info callInfo) (*Call, bool) {
	nr := uint64(info.values[0])
	kind, ok := changes[nr]
	if !ok {
		return nil, false
	}
	argument := func(i int) uint64 { return uint64(info.values[1+i]) }
	if i, opens := creating[nr]; opens && argument(i)&(unix.O_CREAT|unix.O_TRUNC) == 0 {
		return nil, false
	}
	c := &Call{Name: kind.name}
	if kind.descriptor >= 0 {
		c.descriptor = fmt.Sprintf("/proc/%d/fd/%d", tid, argument(kind.descriptor))
		path, err := os.Readlink(c.descriptor)
		if err != nil {
			return nil, false
		}
		c.Path = path
	} else {
		c.Path = text(tid, argument(kind.path))
		if !filepath.IsAbs(c.Path) {
			c.Path = filepath.Join(p.Dir, c.Path)
		}
	}
	c.Prints = c.Path == p.said.Name()
	return c, c.Prints || c.Path == p.Dir || strings.HasPrefix(c.Path, p.Dir+"/")
}

// text reads a path from a process's memory.
func text(tid int, at uint64) string {
	b := make([]byte, unix.PathMax)
	n, err := syscall.PtracePeekData(tid, uintptr(at), b)
	for err != nil && n == 0 && len(b) > 8 { // to the end of what is mapped
		b = b[:len(b)/2]
		n, err = syscall.PtracePeekData(tid, uintptr(at), b)
	}
	path, _, _ := bytes.Cut(b[:n], []byte{0})
	return string(path)
}

// callInfo is Linux's struct ptrace_syscall_info: at the entrance, values are
// the number of the call and its arguments; at the exit, the result.
type callInfo struct {
	op     byte
	_      [3]byte
	_      uint32 // architecture
	_      [2]uint64
	values [8]int64
}

func syscallInfo(tid int) (info callInfo, err error) {
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, fmt.Errorf("%w: PTRACE_GET_SYSCALL_INFO: %w", ErrNoTracing, errno)
	}
	return info, nil
}
