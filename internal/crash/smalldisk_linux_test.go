package crash_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/freearea/freearea/internal/crash"
	"github.com/freearea/freearea/internal/sweep"
	"github.com/freearea/freearea/ledger"
)

const (
	// requireMounting makes the tests fail that would be skipped where no file
	// system can be mounted.
	requireMounting = "FREEAREA_REQUIRE_MOUNTING"
	// mountsPrivately tells a process of the tests that its mounts are its own.
	mountsPrivately = "FREEAREA_CRASH_MOUNTS"
)

// apart makes a command's mounts its own.
func apart(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// withOwnMounts runs a test in a process whose mounts nobody else sees, which
// end with it.
func withOwnMounts(t *testing.T, test func(*testing.T)) {
	t.Helper()
	if os.Getenv(mountsPrivately) != "" {
		test(t)
		return
	}
	t.Parallel()
	out, err := apart(exec.Command("mount", "-t", "tmpfs", "tmpfs", t.TempDir())).CombinedOutput()
	if err != nil {
		reason := fmt.Sprintf("no file system can be mounted here: %v %s", err, out)
		if os.Getenv(requireMounting) == "1" || sweep.Full() {
			t.Fatal(reason)
		}
		t.Skipf("%s; %s=1 makes this an error", reason, requireMounting)
	}
	cmd := apart(exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v"))
	cmd.Env = append(os.Environ(), mountsPrivately+"=1")
	out, err = cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("with mounts of its own: %v\n%s", err, out)
	}
}

// disk is a file system in memory, on which a site has its ledger.
type disk struct {
	t   *testing.T
	dir string
}

// page is what a file takes at least, in bytes.
const page = 4096

// newDisk mounts one of so many bytes, and moves the site's ledger there.
func newDisk(t *testing.T, s *crash.Site, size int) disk {
	t.Helper()
	d := disk{t, filepath.Join(s.Dir, "disk")}
	must(t, os.Mkdir(d.dir, 0o700))
	must(t, syscall.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)))
	data, err := os.ReadFile(s.LedgerPath())
	must(t, err)
	must(t, os.Remove(s.LedgerPath()))
	s.LedgerDir = d.dir
	must(t, os.WriteFile(s.LedgerPath(), data, 0o600))
	return d
}

// gone unmounts it.
func (d disk) gone() {
	d.t.Helper()
	must(d.t, syscall.Unmount(d.dir, 0))
}

// fill leaves so many pages free, and returns what gives the rest back.
func (d disk) fill(free int) (empty func()) {
	d.t.Helper()
	var stat syscall.Statfs_t
	must(d.t, syscall.Statfs(d.dir, &stat))
	name := filepath.Join(d.dir, "filling")
	must(d.t, os.WriteFile(name, make([]byte, (int(stat.Bavail)*int(stat.Bsize)/page-free)*page), 0o600))
	return func() { d.t.Helper(); must(d.t, os.Remove(name)) }
}

// remount makes it one that can only be read, or back.
func (d disk) remount(flags uintptr) {
	d.t.Helper()
	must(d.t, syscall.Mount("", d.dir, "", syscall.MS_REMOUNT|flags, ""))
}

// run runs a command to its end, and holds what it says against how it ends:
// it may fail, with an error of its own that wraps words of want.
func run(t *testing.T, c *crash.Command, err error, want string) (said string, ok bool) {
	t.Helper()
	must(t, err)
	defer c.Done()
	err = c.Run()
	said = c.Said()
	if err == nil {
		return said, true
	}
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || strings.Contains(said, "goroutine ") {
		t.Errorf("%v: %v: %s", c.Args[1:], err, said)
	}
	if !regexp.MustCompile(`(?m)^freearea: error: .*(` + want + `)`).MatchString(said) {
		t.Errorf("%v does not say %s: %s", c.Args[1:], want, said)
	}
	return said, false
}

const noRoom = "no room left on the ledger's disk|no space left on device"

// TestSmallDisk has the ledger on a disk of its own, which no fault is
// injected into.
func TestSmallDisk(t *testing.T) {
	withOwnMounts(t, func(t *testing.T) {
		t.Run("fills up", fillsUp)
		t.Run("can only be read", onlyRead)
	})
}

// fillsUp fills the disk up at one place after the other, until there is room
// enough: issuing, recording a consent and handing over stop, say why, and go on
// when there is room.
func fillsUp(t *testing.T) {
	step := 11
	if sweep.Full() {
		step = 1
	}
	enough := map[string]bool{}
	stopped := map[string]int{} // how often
	for free := 0; len(enough) < 3; free += step {
		if free > 1000 {
			t.Fatalf("%d KiB are not enough but for %v", free*page/1024, enough)
		}
		holder := free % 2
		what := fmt.Sprintf("%d KiB free", free*page/1024)
		s := newSite(t)
		d := newDisk(t, s, 8<<20)
		try := func(name string, c *crash.Command, err error) (said string, ok bool) {
			t.Helper()
			if said, ok = run(t, c, err, noRoom); ok {
				enough[name] = true
			} else {
				stopped[name]++
			}
			return said, ok
		}

		empty := d.fill(free)
		c, err := s.Issue(t.Context(), holder)
		said, _ := try("issue", c, err)
		empty()
		recoverFrom(t, "process: ledger on a full disk", what, s, holder, said)

		consents := recorded(t, s)
		file := filepath.Join(d.dir, "consent.json")
		empty = d.fill(free)
		c, err = s.RecordConsent(t.Context(), holder, file)
		_, ok := try("consent", c, err)
		empty()
		if _, err := os.Stat(file); ok != (err == nil) {
			t.Errorf("%s: consent recorded: %v, its file: %v", what, ok, err)
		}
		if !ok {
			c, err = s.RecordConsent(t.Context(), holder, file)
			if said, ok := run(t, c, err, "nothing"); !ok {
				t.Errorf("%s: consent, again: %s", what, said)
			}
		}
		if n := recorded(t, s) - consents; n != 1 {
			t.Errorf("%s: %d consents recorded", what, n)
		}

		out := filepath.Join(d.dir, "out")
		must(t, os.Mkdir(out, 0o700))
		empty = d.fill(free)
		c, err = s.HandOver(t.Context(), holder, out)
		_, ok = try("handover", c, err)
		empty()
		for again := range 2 {
			c, err = s.HandOver(t.Context(), holder, out)
			said, done := run(t, c, err, "nothing")
			if nothing := strings.Contains(said, `"nothing_to_do":true`); !done || nothing != (ok || again > 0) {
				t.Errorf("%s: handed over: %v; again: %s", what, ok, said)
			}
		}
		if left, err := os.ReadDir(out); err != nil || len(left) != 1 {
			t.Errorf("%s: handed over as %v, %v", what, left, err)
		}
		found, err := s.Converged(t.Context(), holder)
		count(t, &sweep.Figures{}, what+", at the end", found, err)
		d.gone()
		remove(t, s)
	}
	for _, name := range []string{"issue", "consent", "handover"} {
		if stopped[name] == 0 {
			t.Errorf("there was always room for %s", name)
		}
	}
}

// recorded counts the consents in a site's ledger.
func recorded(t *testing.T, s *crash.Site) (n int) {
	t.Helper()
	book, err := ledger.Open(t.Context(), s.LedgerPath(), ledger.Options{ReadOnly: true})
	must(t, err)
	for _, err := range book.Events(t.Context(), ledger.Filter{Kinds: []ledger.Kind{ledger.KindConsentRecorded}}) {
		must(t, err)
		n++
	}
	must(t, book.Close())
	return n
}

// onlyRead makes the disk one that can only be read: nothing is issued, the
// card is as it was, and when the disk can be written all goes on. A copy of the
// ledger can be read there.
func onlyRead(t *testing.T) {
	const why = "ledger can only be read"
	for holder := range 2 {
		s := newSite(t)
		d := newDisk(t, s, 8<<20)
		card := filepath.Join(s.Dir, crash.Card(holder))
		before, err := os.ReadFile(card)
		must(t, err)
		out := filepath.Join(d.dir, "out")
		must(t, os.Mkdir(out, 0o700))
		refused := func() {
			t.Helper()
			d.remount(syscall.MS_RDONLY)
			for _, command := range []func() (*crash.Command, error){
				func() (*crash.Command, error) { return s.Issue(t.Context(), holder) },
				func() (*crash.Command, error) {
					return s.RecordConsent(t.Context(), holder, filepath.Join(s.Dir, "refused.json"))
				},
				func() (*crash.Command, error) { return s.HandOver(t.Context(), holder, out) },
			} {
				c, err := command()
				if said, ok := run(t, c, err, why); ok {
					t.Errorf("on a disk that can't be written: %s", said)
				}
			}
			if _, err := os.Stat(filepath.Join(s.Dir, "refused.json")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a consent's file that is recorded nowhere: %v", err)
			}
			d.remount(0)
		}
		refused()
		after, err := os.ReadFile(card)
		must(t, err)
		if !bytes.Equal(before, after) {
			t.Error("the card was written")
		}
		recoverFrom(t, "process: ledger on a disk that can't be written", "writable again", s, holder, "")
		refused()
		c, err := s.HandOver(t.Context(), holder, out)
		if said, ok := run(t, c, err, "nothing"); !ok || !strings.Contains(said, `"rows":1`) {
			t.Error(said)
		}
		copied := filepath.Join(d.dir, "copy.ledger")
		book, err := ledger.Open(t.Context(), s.LedgerPath(), ledger.Options{ReadOnly: true})
		must(t, err)
		_, err = book.Backup(t.Context(), copied)
		must(t, errors.Join(err, book.Close()))
		d.remount(syscall.MS_RDONLY)
		book, err = ledger.Open(t.Context(), copied, ledger.Options{ReadOnly: true})
		must(t, err)
		must(t, errors.Join(book.Check(t.Context()), book.Close()))
		d.gone()
		remove(t, s)
	}
}
