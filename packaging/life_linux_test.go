package packaging

import (
	"bufio"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/cmd/freearea/app"
)

// startLimit is for a service to say something.
const startLimit = 60 * time.Second

// machine is this machine's file system with a layer over it that takes every
// change, in a mount namespace of its own: what is installed there is
// installed nowhere else. Nothing of systemd runs in it.
type machine struct {
	t     *testing.T
	pid   string // of the process that holds the namespace
	layer string // what was changed, seen from here
	path  string // the file system, seen from here
}

// layers makes the machine in the directory $1 and holds it until standard
// input ends.
const layers = `set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay -o lowerdir=/,upperdir="$1/changes",workdir="$1/work" overlay "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
echo ready
cat`

func newMachine(t *testing.T) *machine {
	t.Helper()
	need(t, "unshare", "nsenter", "chroot", "setpriv", "dpkg", "adduser", "deluser")
	if os.Getuid() != 0 {
		unavailable(t, "only root can install a package")
	}
	if exec.Command("dpkg-query", "--status", "freearea").Run() == nil {
		unavailable(t, "the package is installed on this machine: what it leaves could not be told from what is here")
	}
	// Not below a directory of the test's, which others can't enter.
	dir, err := os.MkdirTemp("", "freearea-machine-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", layers, "sh", dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		os.Remove(dir)
	})
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		unavailable(t, "no layer over the file system can be had: %s", &stderr)
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	inside := filepath.Join("/proc", pid, "root", dir)
	return &machine{t, pid, filepath.Join(inside, "changes"), filepath.Join(inside, "root")}
}

// command is a command in the machine, with root's rights.
func (m *machine) command(args ...string) *exec.Cmd {
	root := strings.TrimPrefix(m.path, filepath.Join("/proc", m.pid, "root"))
	cmd := exec.Command("nsenter", append([]string{"--target", m.pid, "--mount", "--", "chroot", root}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"}
	return cmd
}

func (m *machine) run(args ...string) string {
	m.t.Helper()
	return run(m.t, m.command(args...))
}

func (m *machine) write(path, text string, mode fs.FileMode) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.path, path), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// copyIn puts a file of this machine into the root of that one.
func (m *machine) copyIn(path string) string {
	m.t.Helper()
	to := "/" + filepath.Base(path)
	m.write(to, read(m.t, path), 0o644)
	return to
}

// wants says what there must be, or must not be with a "!" before it.
func (m *machine) wants(when string, paths ...string) {
	m.t.Helper()
	for _, p := range paths {
		name, not := strings.CutPrefix(p, "!")
		if isMissing(filepath.Join(m.path, name)) != not {
			m.t.Errorf("%s: %s: there must be %s", when, name, map[bool]string{true: "nothing", false: "something"}[not])
		}
	}
}

// leftovers are the changes that are still there, besides what is gone when
// the machine starts anew, the package manager's own records, and the copies that
// changing users makes.
func (m *machine) leftovers() []string {
	m.t.Helper()
	var out []string
	err := filepath.WalkDir(m.layer, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, m.layer)
		switch {
		case slices.Contains([]string{"/var/lib/dpkg", "/var/log", "/run"}, name):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case slices.Contains([]string{"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-", "/etc/.pwd.lock"}, name), name == "":
			return nil
		}
		before, errBefore := os.Lstat(filepath.Join("/", name))
		switch {
		case errBefore != nil:
			out = append(out, "new: "+name)
		case d.IsDir() && before.IsDir():
		case d.Type().IsRegular() && before.Mode().IsRegular():
			if read(m.t, path) != read(m.t, "/", name) {
				out = append(out, "changed: "+name)
			}
		default: // a file that is deleted shows as a device
			out = append(out, "gone or another kind: "+name)
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// unit is what the tests carry out of the systemd unit, as systemd would.
type unit map[string]string

func (m *machine) unit() unit {
	m.t.Helper()
	u := unit{}
	for _, f := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(read(m.t, m.path, "/usr/lib/systemd/system/freearea-readerd.service"), -1) {
		u[f[1]] = f[2]
	}
	return u
}

// as is a command of the unit as its user, without capabilities, with the
// credential handed over by an access list, which shows as a right of the group.
func (m *machine) as(u unit, command string, more ...string) *exec.Cmd {
	m.t.Helper()
	const credentials = "/run/credentials/freearea-readerd.service"
	id, path, _ := strings.Cut(u["LoadCredential"], ":")
	m.run("install", "-d", "-m", "0550", "-o", "root", "-g", u["User"], credentials)
	if isMissing(filepath.Join(m.path, path)) {
		path = "/dev/null" // SetCredential gives an empty one
	}
	m.run("install", "-m", "0440", "-o", "root", "-g", u["User"], path, credentials+"/"+id)
	args := append([]string{"setpriv", "--reuid", u["User"], "--regid", u["User"], "--init-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all",
		"env", "--chdir", u["WorkingDirectory"], "CREDENTIALS_DIRECTORY=" + credentials}, strings.Fields(command)...)
	return m.command(append(args, more...)...)
}

// withVersion returns the same package as another version.
func withVersion(t *testing.T, pkg, version string) string {
	t.Helper()
	dir := t.TempDir()
	tree, out := filepath.Join(dir, "tree"), filepath.Join(dir, "next.deb")
	run(t, exec.Command("dpkg-deb", "--raw-extract", pkg, tree))
	control := filepath.Join(tree, "DEBIAN", "control")
	text := regexp.MustCompile("(?m)^Version: .*$").ReplaceAllString(read(t, control), "Version: "+version)
	if err := os.WriteFile(control, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command("dpkg-deb", "--build", "-Znone", tree, out))
	return out
}

// TestLife follows the package through its life: installed, configured,
// started without systemd, upgraded while it runs, removed and purged.
func TestLife(t *testing.T) {
	m := newMachine(t)
	pkg := deb(release(t), app.Version, runtime.GOARCH)
	const nextVersion = "999.0.0-1"
	first, next := m.copyIn(pkg), m.copyIn(withVersion(t, pkg, nextVersion))
	install := func(path string) { m.run("dpkg", "--no-triggers", "--install", path) }
	status := func() string {
		return m.run("dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${Version}", "freearea")
	}

	install(first)
	if got := status(); !strings.HasPrefix(got, "ii ") {
		t.Fatalf("status %q", got)
	}
	u := m.unit()
	const enabled = "/etc/systemd/system/multi-user.target.wants/freearea-readerd.service"
	m.wants("installed", "/usr/bin/freearea", "/etc/freearea/readerd.toml", "!"+enabled)
	for path, want := range map[string]string{
		"/etc/freearea": "750 root:_freearea", "/etc/freearea/readerd.toml": "644 root:root", "/var/lib/freearea": "700 _freearea:_freearea",
	} {
		if got := strings.TrimSpace(m.run("stat", "-c", "%a %U:%G", path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if got := m.run("getent", "passwd", "_freearea"); !strings.HasSuffix(got, ":/var/lib/freearea:/usr/sbin/nologin\n") {
		t.Errorf("user: %s", got)
	}
	m.verifyUnit()

	// What is installed is an example: the service does not start from it.
	out, err := m.as(u, u["ExecStartPre"]).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("no [[service]]: say which services are read")) {
		t.Errorf("unconfigured: %v\n%s", err, out)
	}

	config := m.configure(u)
	run(t, m.as(u, u["ExecStartPre"]))
	stop := m.start(u)
	m.systemctl("enable")

	install(next)
	if got, want := status(), "ii "+nextVersion; got != want {
		t.Errorf("after the upgrade: %q, want %q", got, want)
	}
	if diff := cmp.Diff(config, read(t, m.path, "/etc/freearea/readerd.toml")); diff != "" {
		t.Errorf("the upgrade changed the configuration (-before +after):\n%s", diff)
	}
	stop()
	run(t, m.as(u, u["ExecStartPre"]))

	m.run("dpkg", "--no-triggers", "--remove", "freearea")
	m.wants("removed", "!/usr/bin/freearea", "!/usr/lib/systemd/system/freearea-readerd.service", "!"+enabled,
		"/etc/freearea/readerd.toml", "/etc/freearea/passphrase", "/var/lib/freearea/terminal.keys")
	m.run("getent", "passwd", "_freearea")

	// Installed again, what was there is used again.
	install(next)
	run(t, m.as(u, u["ExecStartPre"]))

	m.run("dpkg", "--no-triggers", "--purge", "freearea")
	m.run("rm", "-rf", first, next, "/root/demo", "/run/credentials")
	if diff := cmp.Diff([]string(nil), m.leftovers()); diff != "" {
		t.Errorf("after purging (-want +left):\n%s", diff)
	}
}

// verifyUnit asks systemd's own tools, where they are.
func (m *machine) verifyUnit() {
	m.t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		m.t.Log("there is no systemd-analyze: the unit was not verified")
		return
	}
	const path = "/usr/lib/systemd/system/freearea-readerd.service"
	out, err := m.command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		m.t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// In tenths: 2.0 is "OK", and what systemd calls safe.
	m.run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", path)
}

// systemctl changes what starts with the machine, where there is systemd.
func (m *machine) systemctl(verb string) {
	m.t.Helper()
	if _, err := exec.LookPath("systemctl"); err != nil {
		m.t.Logf("there is no systemctl: %s was not tried", verb)
		return
	}
	m.run("systemctl", "--quiet", verb, "freearea-readerd.service")
}

// configure makes the machine a terminal for the services of the demo, as
// docs/operations.md says, with a card image for a slot.
func (m *machine) configure(u unit) (config string) {
	m.t.Helper()
	m.run("freearea", "demo", "--keep", "/root/demo")
	m.run("install", "-m", "0600", "-o", u["User"], "-g", u["User"], "/root/demo/terminal.keys", "/root/demo/card.img", "/var/lib/freearea")
	m.run("install", "-m", "0644", "/root/demo/shopping-street.toml", "/root/demo/office-pass.toml", "/etc/freearea")
	m.run("install", "-m", "0600", "/root/demo/passphrase", "/etc/freearea/passphrase")
	config = `keystore = "/var/lib/freearea/terminal.keys"
[[service]]
manifest = "office-pass.toml"
[[service]]
manifest = "shopping-street.toml"
[[lines]]
path = "-"
`
	m.write("/etc/freearea/readerd.toml", config, 0o644)
	return config
}

// start starts the service, waits for a card to be read, reloads it, and
// returns what ends it.
func (m *machine) start(u unit) (stop func()) {
	m.t.Helper()
	cmd := m.as(u, u["ExecStart"], "--card", "image:/var/lib/freearea/card.img")
	events, eventsIn := io.Pipe()
	log, logIn := io.Pipe()
	cmd.Stdout, cmd.Stderr = eventsIn, logIn
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		eventsIn.Close()
		logIn.Close()
		ended <- err
	}()
	m.t.Cleanup(func() { cmd.Process.Kill() })
	logged := linesOf(log)
	m.await("an event", linesOf(events), `"type":"event","outcome":"accepted".*"service":"office-pass"`)
	m.await("the log", logged, `msg=card .*outcome=accepted`)
	if strings.Contains(u["ExecReload"], "-HUP") {
		cmd.Process.Signal(syscall.SIGHUP)
	}
	m.await("the log", logged, `configuration is read anew`)
	return func() {
		m.t.Helper()
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				m.t.Errorf("the service ended with: %v", err)
			}
		case <-time.After(startLimit):
			m.t.Error("the service does not end")
		}
	}
}

// linesOf reads to the end, whoever listens.
func linesOf(r io.Reader) <-chan string {
	out := make(chan string, 1000)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(r); s.Scan(); {
			select {
			case out <- s.Text():
			default:
			}
		}
	}()
	return out
}

// await waits for a line.
func (m *machine) await(what string, lines <-chan string, pattern string) {
	m.t.Helper()
	re, limit := regexp.MustCompile(pattern), time.After(startLimit)
	var seen []string
	for {
		select {
		case line, more := <-lines:
			seen = append(seen, line)
			if re.MatchString(line) {
				return
			}
			if !more {
				m.t.Fatalf("%s has no %q:\n%s", what, pattern, strings.Join(seen, "\n"))
			}
		case <-limit:
			m.t.Fatalf("%s has no %q in %v:\n%s", what, pattern, startLimit, strings.Join(seen, "\n"))
		}
	}
}
