package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/cmd/freearea/app"
	"github.com/freearea/freearea/examples"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/keys/pkcs11"
	"github.com/freearea/freearea/pcsc"
)

// What the scripts tell the freearea of this test binary. The program itself
// reads neither.
const (
	envNow    = "FREEAREA_TEST_NOW"    // the time at which a command starts, RFC 3339
	envOutput = "FREEAREA_TEST_OUTPUT" // file that gets a copy of everything printed
)

// Secrets that the scripts use. Wherever a script's commands print one of
// them, or leave it in a file that is not secret itself, the script fails. The
// PIN is long, so that it doesn't come up by chance in random digits.
const (
	passphrase = "correct horse battery staple"
	// Of all operators' keys.
	operatorPassphrase = "wrong donkey capacitor clip"
	pin                = "48213967"
	tokenPIN           = "token pin 70315528"
	cardENC            = "5A3C7E91D2B4F60817293A4B5C6D7E8F"
	cardMAC            = "1F2E3D4C5B6A79880716253443526170"
	cardDEK            = "C0FFEE11DECADE22BADCAB33FACADE44"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){"freearea": freearea})
}

// tidy removes what the scripts share, after the last one.
type tidy struct{ *testing.M }

func (t tidy) Run() int {
	dir, err := os.MkdirTemp("", "freearea-counter-")
	if err != nil {
		fatal(err)
	}
	shared = dir
	status := t.M.Run()
	if err := os.RemoveAll(dir); err != nil {
		fatal(err)
	}
	return status
}

// shared is the directory of readyCounter.
var shared string

// freearea is the program with a clock that the script sets, a keystore that
// opens fast, and a copy of its output.
func freearea() {
	o := app.Options{
		Stdout: os.Stdout, Stderr: os.Stderr,
		KeystoreCost: file.Cost{Time: 1, Memory: 8, Threads: 1}, OperatorKeyWork: 4,
	}
	if path := os.Getenv(envOutput); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			fatal(err)
		}
		o.Stdout, o.Stderr = io.MultiWriter(os.Stdout, f), io.MultiWriter(os.Stderr, f)
	}
	if s := os.Getenv(envNow); s != "" {
		from, err := time.Parse(time.RFC3339, s)
		if err != nil {
			fatal(err)
		}
		start := time.Now()
		o.Now = func() time.Time { return from.Add(time.Since(start)) }
	}
	os.Exit(app.Main(o))
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "test binary:", err)
	os.Exit(125)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Condition: func(name string) (bool, error) {
			switch name {
			case "pcsc":
				return pcsc.Built, nil
			case "softhsm":
				return softHSM() != "" || os.Getenv("FREEAREA_REQUIRE_SOFTHSM") == "1", nil
			case "pkcs11":
				return pkcs11.Built, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"counter":     counter,
			"damage":      damage,
			"truncate":    truncate,
			"perm":        perm,
			"field":       field,
			"validtrace":  validTrace,
			"lines":       lines,
			"status":      status,
			"basecap":     baseCAP,
			"softtoken":   softToken,
			"oldkeystore": oldKeystore,
			"benchcard":   benchCard,
			"reader":      reader,
			"freeport":    freePort,
			"ask":         ask,
			"hangup":      hangUp,
			"printed":     printed,
		},
	})
}

// setup gives a script the example manifests, the secrets in files that only
// their owner can read, and a clock.
func setup(e *testscript.Env) error {
	output := filepath.Join(e.WorkDir, ".tmp", "output")
	e.Setenv(envOutput, output)
	e.Setenv(envNow, "2026-04-01T10:00:00+09:00")
	e.Setenv("LC_ALL", "C.UTF-8")
	e.Values[readersKey{}] = readers{}
	e.Setenv("USER", "tester")
	// No PC/SC service: what a script finds must not depend on the machine.
	e.Setenv("PCSCLITE_CSOCK_NAME", filepath.Join(e.WorkDir, "no-such-socket"))
	if err := os.CopyFS(filepath.Join(e.WorkDir, "examples"), examples.Files); err != nil {
		return err
	}
	// Profiles in a folder of their own, and a service that has one.
	for from, to := range map[string]string{"profiles/file-card.toml": "profiles", "profiles/services/stamp-rally.toml": "services"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "examples", filepath.FromSlash(from)))
		if err != nil {
			return err
		}
		dir := filepath.Join(e.WorkDir, to)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(from)), data, 0o600); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"passphrase": passphrase, "operator-passphrase": operatorPassphrase, "pin": pin, "token-pin": tokenPIN,
		"card-keys": "ENC=" + cardENC + "\nMAC=" + cardMAC + "\nDEK=" + cardDEK,
	} {
		if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text+"\n"), 0o600); err != nil {
			return err
		}
	}
	e.Defer(func() {
		for _, leak := range leaks(e.WorkDir, output) {
			e.T().(testing.TB).Error(leak)
		}
	})
	return nil
}

// leaks looks for the scripts' secrets in everything that was printed and in
// every file that is to be kept or sent around.
func leaks(dir, output string) (found []string) {
	secret := [][]byte{[]byte(passphrase), []byte(operatorPassphrase), []byte(pin), []byte(tokenPIN)}
	for _, k := range []string{cardENC, cardMAC, cardDEK} {
		secret = append(secret, []byte(k), bytes.ToLower([]byte(k)))
	}
	files := []string{output}
	for _, pattern := range []string{"*.trace", "*.json", "*.ledger*", "*.keys", "*.operator", "*.checkpoint", "*.age", "*.html"} {
		more, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return []string{err.Error()}
		}
		files = append(files, more...)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			found = append(found, err.Error())
		}
		for _, s := range secret {
			if bytes.Contains(data, s) {
				found = append(found, fmt.Sprintf("%s holds the secret %q", filepath.Base(name), s))
			}
		}
	}
	return found
}

// counter is `counter`: it puts the files of a counter that is ready to issue
// into the working directory, made once by commands as in counter.txtar: site
// configuration, keystore, a new card, and a consent recorded for each example
// service.
func counter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: counter")
	}
	dir, err := readyCounter()
	ts.Check(err)
	files, err := os.ReadDir(dir)
	ts.Check(err)
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(f.Name()), data, 0o600))
	}
}

var site = `operator_key = "clerk-7.operator"
operator_passphrase_file = "operator-passphrase"
counter      = "window-2"
card_profile = "emulated"
card         = "image:card.img"
`

var readyCounter = sync.OnceValues(func() (string, error) {
	dir := shared
	for name, text := range map[string]string{
		"freearea.toml": site, "form.pdf": "the scanned form\n", "passphrase": passphrase + "\n",
		"operator-passphrase": operatorPassphrase + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "examples"), examples.Files); err != nil {
		return "", err
	}
	for _, line := range []string{
		"keys init",
		"keys add counter --kind counter-signing",
		"keys add ledger --kind ledger",
		"keys add checkpoints --kind ledger-signing",
		"keys add shopping-street-issuer --kind issuer-signing",
		"keys add city-library-issuer --kind issuer-signing",
		"keys add city-library-read --kind read",
		"keys add office-pass-read --kind read",
		"staff init clerk-7 --out clerk-7.operator --new-passphrase-file operator-passphrase",
		"staff add custodian-1 --role key-custodian --out custodian-1.operator --new-passphrase-file operator-passphrase",
		"emulate new card.img",
		"consent record examples/shopping-street.toml --method paper --reference A-0001 --scan form.pdf --out shopping.json",
		"consent record examples/city-library.toml --item home-branch --method paper --reference A-0002 --scan form.pdf --out library.json",
		"consent record examples/office-pass.toml --method paper --reference A-0003 --scan form.pdf --out office.json",
	} {
		cmd := exec.Command("freearea", append([]string{"--passphrase-file", "passphrase"}, strings.Fields(line)...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", envNow+"=2026-04-01T10:00:00+09:00")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("freearea %s: %w\n%s", line, err, out)
		}
	}
	for _, name := range []string{"passphrase", "examples"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
})

// softHSM is the library of SoftHSM2, or "" where it can't be used.
func softHSM() string {
	if _, err := exec.LookPath("softhsm2-util"); err != nil || !pkcs11.Built {
		return ""
	}
	for _, name := range []string{
		"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so",
	} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return ""
}

// softToken is `softtoken LABEL VARIABLE`: it makes a token in software, in the
// folder tokens, whose PIN is that of the file token-pin, and puts its URI into
// an environment variable.
func softToken(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: softtoken LABEL VARIABLE")
	}
	uri, conf, err := makeToken(ts.MkAbs("."), args[0])
	ts.Check(err)
	ts.Setenv("SOFTHSM2_CONF", conf)
	ts.Setenv(args[1], uri)
}

// makeToken makes a token in software in the folder tokens of dir, and a
// configuration of SoftHSM2 that knows it.
func makeToken(dir, label string) (uri, conf string, err error) {
	module := softHSM()
	if module == "" {
		return "", "", errors.New("SoftHSM2 is not there, or this binary is built without cgo")
	}
	tokens, conf := filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm2.conf")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return "", "", err
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		return "", "", err
	}
	cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", tokenPIN, "--so-pin", "security officer")
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("softhsm2-util: %v: %s", err, out)
	}
	return "pkcs11:token=" + label + "?module-path=" + module, conf, nil
}

// oldKeystore is `oldkeystore FILE`: it puts a keystore of the first format
// there, whose passphrase is "correct horse".
func oldKeystore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: oldkeystore FILE")
	}
	data, err := os.ReadFile(filepath.Join("..", "..", "keys", "file", "testdata", "python.keys"))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// damage is `damage FILE [OFFSET]`: it changes one byte, in the middle unless
// said; a negative offset counts from the end.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: damage FILE [OFFSET]")
	}
	data := []byte(ts.ReadFile(args[0]))
	at := len(data) / 2
	if len(args) == 2 {
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		if at = n; n < 0 {
			at += len(data)
		}
	}
	data[at] ^= 0x01
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// truncate is `truncate FILE`: it cuts the second half off.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: truncate FILE")
	}
	data := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(data[:len(data)/2]), 0o600))
}

// baseCAP is `basecap FILE [changed]`: it writes the base load file out, or a
// copy of which one byte of a component differs, in a flawless archive.
func baseCAP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: basecap FILE [changed]")
	}
	data := applets.BaseLoadFile()
	in, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	ts.Check(err)
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for _, f := range in.File {
		content, err := fs.ReadFile(in, f.Name)
		ts.Check(err)
		if len(args) == 2 && strings.HasSuffix(f.Name, "Applet.cap") {
			content[len(content)-1] ^= 0x01
		}
		w, err := archive.Create(f.Name)
		ts.Check(err)
		_, err = w.Write(content)
		ts.Check(err)
	}
	ts.Check(archive.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o600))
}

// perm is `perm MODE FILE…`: the files have this mode.
func perm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: perm MODE FILE…")
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, name := range args[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, %s expected", name, got, args[0])
		}
	}
}

// field is `field VARIABLE NAME`: it takes a member of the JSON object that the
// last command printed into an environment variable.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: field VARIABLE NAME")
	}
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &object))
	value, ok := object[args[1]]
	if !ok {
		ts.Fatalf("the output has no member %q", args[1])
	}
	ts.Setenv(args[0], fmt.Sprint(value))
}

// validTrace is `validtrace FILE`: the file is a trace, written the one way.
func validTrace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: validtrace FILE")
	}
	text := ts.ReadFile(args[0])
	trace, err := iso7816.ParseTrace(strings.NewReader(text))
	ts.Check(err)
	if got := string(trace.Encode()); got != text {
		ts.Fatalf("%s is written back differently:\n%s", args[0], got)
	}
}

// status is `status N COMMAND…`: the command ends with this exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND…")
	}
	var code string
	err := ts.Exec(args[1], args[2:]...)
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		code = strconv.Itoa(failed.ExitCode())
	} else if ts.Check(err); err == nil {
		code = "0"
	}
	if code != args[0] {
		ts.Fatalf("exit status %s, %s expected", code, args[0])
	}
}

// lines is `lines N COMMAND…`: it runs a command that goes on until it is
// interrupted, does so after N lines of output, and expects it to end well.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: lines N COMMAND…")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LC_ALL", "PCSCLITE_CSOCK_NAME", "SOFTHSM2_CONF", envNow, envOutput} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Stderr = ts.Stderr()
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	watchdog := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	scan := bufio.NewScanner(out)
	var got []string
	for scan.Scan() {
		if got = append(got, scan.Text()); len(got) == n {
			ts.Check(cmd.Process.Signal(os.Interrupt))
		}
	}
	fmt.Fprintln(ts.Stdout(), strings.Join(got, "\n"))
	if err := cmd.Wait(); err != nil || len(got) != n {
		ts.Fatalf("%d lines, %d expected; ended with: %v", len(got), n, err)
	}
}

// TestBadInputHasAScriptEach keeps a script from getting lost: every kind of
// bad input has one of its own.
func TestBadInputHasAScriptEach(t *testing.T) {
	var have []string
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		have = append(have, strings.TrimSuffix(filepath.Base(f), ".txtar"))
	}
	for _, want := range []string{
		"bad_manifest", "bad_passphrase", "bad_keystore", "bad_image", "bad_ledger", "bad_slot", "bad_card_removed",
		"bad_card_key", "bad_consent_expired", "bad_card_full", "bad_usage",
	} {
		if !slices.Contains(have, want) {
			t.Errorf("no script %s.txtar", want)
		}
	}
}
