package pcscd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// SocketVariable is the environment variable by which libpcsclite finds the
// daemon.
const SocketVariable = "PCSCLITE_CSOCK_NAME"

// requireVariable, when 1, makes missing prerequisites fail a test.
const requireVariable = "FREEAREA_REQUIRE_PCSC"

const (
	startLimit = 20 * time.Second // for the daemon to answer and to see all its readers
	stopLimit  = 5 * time.Second  // for the daemon to end when asked to
	retryEvery = 5 * time.Millisecond

	slotsPerDriver = 2 // of the virtual reader's driver, as it is built
	maxReaders     = 16
)

// Options say what daemon to start.
type Options struct {
	// Readers is the number of virtual readers, 0 to 16. The driver makes them
	// in pairs: of an odd number, the daemon shows one more, which stays empty.
	Readers int
	// Name begins the readers' names; "Freearea" when empty.
	Name string
	// Waiting makes the readers wait for cards, as the driver does where nobody
	// configured it, instead of dialling them: a card connects to Reader.Addr,
	// and Listen and Relay have no effect. The driver is the machine's,
	// unchanged, and waits on every address of the machine.
	Waiting bool
	// Debug makes the log show everything, APDUs included. It slows the daemon down.
	Debug bool
}

// Daemon is a running pcscd.
type Daemon struct {
	// Readers are the virtual readers, as many as asked for.
	Readers []*Reader
	// Socket is the path where clients find the daemon.
	Socket string

	dir  string
	pid  int
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
}

// Unavailable skips the test with the reason, or fails it where the machine
// is required to have everything.
func Unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(requireVariable) == "1" {
		t.Fatalf(format+" (and "+requireVariable+" is 1)", args...)
	}
	t.Skipf(format, args...)
}

// Reserve points PC/SC clients, this process included, at the place where
// Start puts the daemon's socket, and returns its path. Nothing is there yet.
// A test that wants no daemon, or one of its own making, calls it; Start does
// so by itself. It must come before the process first uses PC/SC.
func Reserve(t testing.TB) (socket string) {
	t.Helper()
	inst, err := installed()
	if err != nil {
		Unavailable(t, "%v", err)
	}
	if !inst.private {
		if err := inst.clearStale(); err != nil {
			Unavailable(t, "%v", err)
		}
		t.Setenv(SocketVariable, inst.socket())
		return inst.socket()
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("freearea-pcscd-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			t.Fatalf("%v: one daemon at a time in a process", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "pcscd.comm")
	t.Setenv(SocketVariable, socket)
	return socket
}

// Start starts a daemon and waits until it answers and has seen all its
// readers. It ends with the test; when the test failed, its log is shown.
func Start(t testing.TB, o Options) *Daemon {
	t.Helper()
	if o.Readers < 0 || o.Readers > maxReaders {
		t.Fatalf("%d readers: 0 to %d", o.Readers, maxReaders)
	}
	if o.Name == "" {
		o.Name = "Freearea"
	}
	inst, err := installed()
	if err != nil {
		Unavailable(t, "%v", err)
	}
	d := &Daemon{Socket: Reserve(t), done: make(chan struct{})}
	// The test's own temporary directory may be too deep, and closed to others.
	d.dir, err = os.MkdirTemp("", "pcscd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d.dir) })

	readers, config, err := virtualReaders(t, inst, o, d.dir)
	if err != nil {
		t.Fatal(err)
	}
	d.Readers = readers[:o.Readers]
	args := []string{inst.daemon, "--foreground", "--config", config}
	if o.Debug {
		args = append(args, "--debug", "--apdu")
	} else {
		args = append(args, "--error")
	}
	cmd := inst.command(filepath.Dir(d.Socket), d.dir, args)
	log, err := os.Create(d.logFile())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := d.run(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Stop()
		if t.Failed() {
			t.Logf("log of pcscd:\n%s", d.Log())
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := d.ready(ctx, readers); err != nil {
		t.Fatalf("pcscd: %v; its log:\n%s", err, d.Log())
	}
	return d
}

// run starts the process. The goroutine stays on its thread until the process
// ends, because the kernel ends the process with the thread that started it:
// so it never outlives a test that was killed.
func (d *Daemon) run(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			d.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			d.err = cmd.Wait()
			close(d.done)
		}
	}()
	return <-started
}

// ready waits until the socket takes a client and every reader has dialled.
func (d *Daemon) ready(ctx context.Context, readers []*Reader) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", d.Socket)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-tick.C:
		case <-d.done:
			return fmt.Errorf("it ended at once: %v", d.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", startLimit, err)
		}
	}
	for _, r := range readers {
		select {
		case <-r.seen:
		case <-d.done:
			return fmt.Errorf("it ended at once: %v", d.err)
		case <-ctx.Done():
			return fmt.Errorf("the reader %q did not look for a card within %v", r.Name, startLimit)
		}
	}
	return nil
}

// Stop ends the daemon, and with it every connection of its clients. It may be
// called more than once.
func (d *Daemon) Stop() {
	signal := func(sig syscall.Signal) bool {
		select {
		case <-d.done:
			return true
		default:
		}
		syscall.Kill(-d.pid, sig) // the process and whatever it started
		timer := time.NewTimer(stopLimit)
		defer timer.Stop()
		select {
		case <-d.done:
			return true
		case <-timer.C:
			return false
		}
	}
	if !signal(syscall.SIGTERM) {
		signal(syscall.SIGKILL)
	}
}

// Kill ends the daemon without giving it the time to clean up: its socket stays.
func (d *Daemon) Kill() {
	syscall.Kill(-d.pid, syscall.SIGKILL)
	<-d.done
}

// Env is what the environment of a client needs besides; this process has it.
func (d *Daemon) Env() []string { return []string{SocketVariable + "=" + d.Socket} }

// Log returns what the daemon has written so far.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.logFile())
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b))
}

func (d *Daemon) logFile() string { return filepath.Join(d.dir, "log") }

// installation is what this machine has.
type installation struct {
	daemon  string // path of pcscd
	driver  string // path of the virtual reader's driver
	ipcdir  string // where the daemon puts its socket
	usbdir  string // where it looks for drivers of devices
	private bool   // mount namespaces can be had
	asRoot  bool   // without a user namespace
}

func (i *installation) socket() string { return filepath.Join(i.ipcdir, "pcscd.comm") }

var installed = sync.OnceValues(func() (*installation, error) {
	i := &installation{asRoot: os.Geteuid() == 0}
	for _, path := range []string{"pcscd", "/usr/sbin/pcscd", "/sbin/pcscd", "/usr/local/sbin/pcscd"} {
		if found, err := exec.LookPath(path); err == nil {
			i.daemon = found
			break
		}
	}
	if i.daemon == "" {
		return nil, errors.New("pcscd is not installed")
	}
	version, err := exec.Command(i.daemon, "--version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("pcscd --version: %w", err)
	}
	i.ipcdir = feature(version, "ipcdir", "/run/pcscd")
	i.usbdir = feature(version, "usbdropdir", "/usr/lib/pcsc/drivers")
	for _, dir := range []string{i.usbdir, "/usr/lib/pcsc/drivers", "/usr/local/lib/pcsc/drivers"} {
		path := filepath.Join(dir, "serial", "libifdvpcd.so")
		if _, err := os.Stat(path); err == nil {
			i.driver = path
			break
		}
	}
	if i.driver == "" {
		return nil, errors.New("the driver of the virtual reader (vsmartcard-vpcd) is not installed")
	}
	i.private = i.tryNamespace()
	return i, nil
})

func feature(version []byte, name, otherwise string) string {
	m := regexp.MustCompile(name + `=(\S+)`).FindSubmatch(version)
	if m == nil {
		return otherwise
	}
	return string(m[1])
}

// inside lays directory $1 over the daemon's directory $2, and the empty
// directory $4 over the directory of device drivers $3, so that the daemon
// takes no real device away from the system's, and then becomes the daemon.
// Who may not create $2 gets a private parent of it.
const inside = `set -e
if mkdir -p "$2" 2>/dev/null; then
	mount --bind "$1" "$2"
else
	over=$(dirname "$2")
	while [ ! -d "$over" ]; do over=$(dirname "$over"); done
	mount -t tmpfs none "$over"
	mkdir -p "$2"
	mount --bind "$1" "$2"
fi
if [ -d "$3" ]; then mount --bind "$4" "$3"; fi
shift 4
exec "$@"
`

// command prepares the daemon; socketDir is where its socket is to appear, and
// dir is its own.
func (i *installation) command(socketDir, dir string, args []string) *exec.Cmd {
	var cmd *exec.Cmd
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if i.private {
		none := filepath.Join(dir, "none")
		os.Mkdir(none, 0o755)
		cmd = exec.Command("/bin/sh", append([]string{"-c", inside, "sh", socketDir, i.ipcdir, i.usbdir, none}, args...)...)
		attr.Unshareflags = syscall.CLONE_NEWNS
		if !i.asRoot {
			attr.Cloneflags = syscall.CLONE_NEWUSER
			attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
	} else {
		cmd = exec.Command(args[0], args[1:]...)
	}
	cmd.SysProcAttr = attr
	return cmd
}

func (i *installation) tryNamespace() bool {
	dir, err := os.MkdirTemp("", "pcscd-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	i.private = true
	return i.command(dir, dir, []string{"/bin/true"}).Run() == nil
}

// clearStale removes what a daemon that no longer runs left in the system's
// directory: pcscd takes it for another daemon.
func (i *installation) clearStale() error {
	if conn, err := net.Dial("unix", i.socket()); err == nil {
		conn.Close()
		return fmt.Errorf("no mount namespace can be had here, and a pcscd runs already at %s", i.socket())
	}
	for _, name := range []string{"pcscd.comm", "pcscd.pid"} {
		if err := os.Remove(filepath.Join(i.ipcdir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no mount namespace can be had here, and the system's directory can't be used: %w", err)
		}
	}
	return nil
}

// virtualReaders takes ports for the readers and writes the daemon's configuration.
func virtualReaders(t testing.TB, inst *installation, o Options, dir string) (readers []*Reader, config string, err error) {
	config = filepath.Join(dir, "conf")
	if err := os.Mkdir(config, 0o755); err != nil {
		return nil, "", err
	}
	driver, err := os.ReadFile(inst.driver)
	if err == nil && !o.Waiting {
		driver, err = mended(driver)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", inst.driver, err)
	}
	for n := 0; len(readers) < o.Readers; n++ {
		// The driver has static memory for its slots only, so each pair gets a
		// copy under a name of its own.
		lib := filepath.Join(dir, fmt.Sprintf("driver%d.so", n))
		if err := os.WriteFile(lib, driver, 0o755); err != nil {
			return nil, "", err
		}
		listeners, port, err := listen(slotsPerDriver)
		if err != nil {
			return nil, "", err
		}
		name := o.Name + " " + strconv.Itoa(n)
		host := "127.0.0.1"
		if o.Waiting {
			host = "/dev/null" // how the driver is told to wait
		}
		entry := fmt.Sprintf("FRIENDLYNAME %q\nDEVICENAME %s:%d\nLIBPATH %s\nCHANNELID %d\n", name, host, port, lib, port)
		if err := os.WriteFile(filepath.Join(config, fmt.Sprintf("reader%02d", n)), []byte(entry), 0o644); err != nil {
			return nil, "", err
		}
		for slot, l := range listeners {
			r := newReader(fmt.Sprintf("%s 00 %02X", name, slot), l)
			if o.Waiting {
				r.close() // the port is the driver's from now on
				close(r.seen)
			} else {
				t.Cleanup(r.close)
			}
			readers = append(readers, r)
		}
	}
	return readers, config, nil
}

// listen takes n ports in a row on the loopback interface.
func listen(n int) (listeners []net.Listener, first int, err error) {
	const attempts = 100
	for range attempts {
		listeners = nil
		port := 0
		for i := range n {
			var l net.Listener
			l, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				break
			}
			listeners = append(listeners, l)
			if i == 0 {
				first = l.Addr().(*net.TCPAddr).Port
			}
			port = first + i + 1
		}
		if err == nil {
			return listeners, first, nil
		}
		for _, l := range listeners {
			l.Close()
		}
		if !strings.Contains(err.Error(), "address already in use") && !strings.Contains(err.Error(), "invalid port") {
			break
		}
	}
	return nil, 0, fmt.Errorf("no %d free ports in a row: %w", n, err)
}
