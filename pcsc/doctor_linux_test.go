package pcsc_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/internal/pcscd"
	"github.com/freearea/freearea/iso7816"
)

// finding is one line of `doctor --json`, as far as it is compared.
type finding struct {
	Check string `json:"check"`
	Code  string `json:"code"`
	OK    bool   `json:"ok"`
	Thing string `json:"thing"`
}

var (
	keystoreOK = finding{"keystore", "ok", true, "counter.keys"}
	noLedger   = finding{"ledger", "missing", true, "ledger.db"}
)

// testDoctor makes every fault that the doctor knows, as far as a machine can,
// and looks at what it says and at its exit status: 1 when something needs
// doing.
func testDoctor(t *testing.T, program string) {
	o := newOffice(t, program)
	o.makeKeystore(o.counter)
	o.counter.run("emulate", "new", "card.img")
	healthy := []finding{keystoreOK, noLedger}
	// wantOf checks one run of the doctor in both forms.
	wantOf := func(t *testing.T, prepare func(*exec.Cmd), args []string, status int, want ...finding) {
		t.Helper()
		run := func(args ...string) outcome {
			cmd := o.counter.command(bounded(t), args...)
			if prepare != nil {
				prepare(cmd)
			}
			return finish(t, cmd)
		}
		machine := run(append([]string{"doctor", "--json"}, args...)...)
		var got []finding
		for line := range strings.Lines(machine.stdout) {
			got = append(got, as[finding](t, line))
		}
		if diff := cmp.Diff(want, got); diff != "" || machine.status != status {
			t.Errorf("exit status %d, want %d; findings (-want +got):\n%s%s", machine.status, status, diff, machine.stderr)
		}
		people := run(append([]string{"doctor"}, args...)...)
		if people.status != status {
			t.Errorf("without --json: exit status %d", people.status)
		}
		if wrong, advice := strings.Count(people.stdout, "!!  "), strings.Count(people.stdout, "      -> "); status == 1 && (wrong == 0 || advice < wrong) {
			t.Errorf("faults without advice:\n%s", people.stdout)
		}
	}
	want := func(t *testing.T, args []string, status int, want ...finding) {
		t.Helper()
		wantOf(t, nil, args, status, want...)
	}
	wantImage := func(t *testing.T, args []string, status int, want ...finding) {
		t.Helper()
		wantOf(t, nil, append([]string{"--card", "image:card.img"}, args...), status, append([]finding{{"image", "ok", true, "card.img"}}, want...)...)
	}
	slotFinding := func(code string, r *pcscd.Reader) finding {
		return finding{"pcsc", code, code == "card-ready", r.Name}
	}
	service := func(code string) []finding { return append([]finding{{Check: "pcsc", Code: code}}, healthy...) }

	t.Run("cards", func(t *testing.T) {
		d, s := start(t, 4)
		(&naiveCard{atr: atrOne}).insert(t, d.Readers[1])
		(&naiveCard{atr: atrTooLong}).insert(t, d.Readers[2])
		(&naiveCard{atr: atrTwo}).insert(t, d.Readers[3])
		settle(t, s, d.Readers[1], d.Readers[2], d.Readers[3])
		conn := open(t, s, d.Readers[3].Name, iso7816.Exclusive)
		defer conn.Close()
		empty := slotFinding("no-card", d.Readers[0])
		empty.OK = true // since there is a card that is ready
		want(t, nil, 1, append([]finding{
			empty, slotFinding("card-ready", d.Readers[1]),
			slotFinding("card-mute", d.Readers[2]), slotFinding("card-in-use", d.Readers[3]),
		}, healthy...)...)
		// One slot by its name: the others don't matter.
		for i, code := range []string{"no-card", "card-ready", "card-mute", "card-in-use"} {
			status := 1
			if code == "card-ready" {
				status = 0
			}
			want(t, []string{"--card", "pcsc:" + d.Readers[i].Name}, status, append([]finding{slotFinding(code, d.Readers[i])}, healthy...)...)
		}
		want(t, []string{"--card", "pcsc:Nobody's 00 00"}, 1, append([]finding{{Check: "pcsc", Code: "no-slot", Thing: "Nobody's 00 00"}}, healthy...)...)
		// An image needs no PC/SC.
		wantImage(t, nil, 0, healthy...)
	})
	t.Run("one card and an empty slot", func(t *testing.T) {
		d, s := start(t, 2)
		want(t, nil, 1, append([]finding{slotFinding("no-card", d.Readers[0]), slotFinding("no-card", d.Readers[1])}, healthy...)...)
		(&naiveCard{atr: atrOne}).insert(t, d.Readers[0])
		settle(t, s, d.Readers[0])
		// Many devices have a slot for each kind of card; one card is enough.
		empty := slotFinding("no-card", d.Readers[1])
		empty.OK = true
		want(t, nil, 0, append([]finding{slotFinding("card-ready", d.Readers[0]), empty}, healthy...)...)
	})
	t.Run("no slot", func(t *testing.T) {
		start(t, 0)
		want(t, nil, 1, service("no-slot")...)
	})
	t.Run("not running", func(t *testing.T) {
		reserve(t)
		want(t, nil, 1, service("service-not-running")...)
	})
	t.Run("died", func(t *testing.T) {
		d, _ := start(t, 0)
		d.Kill()
		want(t, nil, 1, service("service-not-running")...)
	})
	t.Run("not installed", func(t *testing.T) {
		reserve(t)
		hide := hidingDaemon(t)
		wantOf(t, hide, nil, 1, service("service-not-installed")...)
	})
	t.Run("refused by the service", func(t *testing.T) {
		socket, _ := reserve(t)
		listenAs(t, socket, func(conn net.Conn) {
			io.ReadFull(conn, make([]byte, 8+1))
			conn.Close()
		})
		want(t, nil, 1, service("service-refused")...)
	})
	t.Run("refused by the socket", func(t *testing.T) {
		socket, _ := reserve(t)
		listenAs(t, socket, func(conn net.Conn) { conn.Close() })
		if err := os.Chmod(socket, 0); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() != 0 {
			want(t, nil, 1, service("service-refused")...)
			return
		}
		// Access rights don't bind root: become somebody else, who has no files.
		nobody := func(cmd *exec.Cmd) {
			cmd.Dir = "/"
			cmd.Args = append([]string{program, "--lang", "en"}, cmd.Args[7:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		wantOf(t, nobody, nil, 1, finding{Check: "pcsc", Code: "service-refused"},
			finding{"keystore", "missing", false, "freearea.keys"}, finding{"ledger", "missing", true, "freearea.ledger"})
	})

	// The files, in a machine whose PC/SC is not asked.
	copyOf := func(t *testing.T, name string, change func([]byte) []byte, mode os.FileMode) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, change(b), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("keystore missing", func(t *testing.T) {
		wantImage(t, []string{"--keystore", "none.keys"}, 1, finding{"keystore", "missing", false, "none.keys"}, noLedger)
	})
	t.Run("keystore damaged", func(t *testing.T) {
		half := copyOf(t, "counter.keys", func(b []byte) []byte { return b[:len(b)/2] }, 0o600)
		wantImage(t, []string{"--keystore", half}, 1, finding{"keystore", "damaged", false, half}, noLedger)
		none := copyOf(t, "scan", bytes.Clone, 0o600)
		wantImage(t, []string{"--keystore", none}, 1, finding{"keystore", "damaged", false, none}, noLedger)
	})
	t.Run("keystore open to others", func(t *testing.T) {
		path := copyOf(t, "counter.keys", bytes.Clone, 0o600)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		wantImage(t, []string{"--keystore", path}, 1, finding{"keystore", "permissions", false, path}, noLedger)
	})
	t.Run("ledger", func(t *testing.T) {
		o.counter.run("keys", "add", "counter", "--kind", "counter-signing")
		o.counter.run("keys", "add", "ledger", "--kind", "ledger")
		o.hire()
		o.consent(o.services[0], "one")
		wantImage(t, nil, 0, keystoreOK, finding{"ledger", "ok", true, "ledger.db"})
		for name, change := range map[string]func([]byte) []byte{
			"half":        func(b []byte) []byte { return b[:len(b)/2] },
			"overwritten": overwritten,
			"no ledger":   func([]byte) []byte { return []byte("no ledger at all\n") },
		} {
			path := copyOf(t, "ledger.db", change, 0o600)
			t.Log(name)
			wantImage(t, []string{"--ledger", path}, 1, keystoreOK, finding{"ledger", "damaged", false, path})
		}
	})
}

// overwritten damages a file behind its header everywhere.
func overwritten(b []byte) []byte {
	b = bytes.Clone(b)
	for i := 512; i < len(b); i++ {
		b[i] ^= 0xFF
	}
	return b
}

// hidingDaemon returns what makes a command run where pcscd is not installed:
// in a mount namespace in which something that can't be executed lies over it.
func hidingDaemon(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	unshare := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	const script = `for f in /usr/sbin/pcscd /usr/local/sbin/pcscd /sbin/pcscd "$(command -v pcscd || true)"; do
	if [ -x "$f" ]; then mount --bind /dev/null "$f" || exit 99; fi
done
exec "$@"
`
	wrap := func(args []string) []string {
		return append(append(append([]string{}, unshare...), "sh", "-c", script, "sh"), args...)
	}
	if out, err := exec.Command(unshare[0], wrap([]string{"true"})[1:]...).CombinedOutput(); err != nil {
		t.Skipf("no mount namespace can be had here, so that pcscd can't be hidden: %v %s", err, out)
	}
	path, err := exec.LookPath(unshare[0])
	if err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		cmd.Args = wrap(cmd.Args)
		cmd.Path = path
	}
}
