package pcsc_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freearea/freearea/examples"
	"github.com/freearea/freearea/internal/pcscd"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/pcsc"
)

// TestProgram runs the real program, as its users do, against cards that other
// processes of it emulate, over pcscd.
func TestProgram(t *testing.T) {
	if !pcsc.Built {
		pcscd.Unavailable(t, "%v", pcsc.ErrNotBuilt)
	}
	program := build(t)
	t.Run("whole job", func(t *testing.T) { testWholeJob(t, program) })
	t.Run("batch", func(t *testing.T) { testBatch(t, program) })
	t.Run("torn while issuing", func(t *testing.T) { testTornIssue(t, program) })
	t.Run("torn while reading", func(t *testing.T) { testTornRead(t, program) })
	t.Run("taps", func(t *testing.T) { testTaps(t, program) })
	t.Run("reader that waits", func(t *testing.T) { testWaitingReader(t, program) })
	t.Run("doctor", func(t *testing.T) { testDoctor(t, program) })
}

// build builds the program, where every user of this machine can run it.
func build(t testing.TB) (program string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "freearea-program-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "freearea")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "github.com/freearea/freearea/cmd/freearea")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return program
}

// party is one who runs the program, with files of its own in the working
// directory: a counter, a terminal.
type party struct {
	t       testing.TB
	program string
	dir     string
	site    string
}

// outcome is what became of a process.
type outcome struct {
	stdout, stderr string
	status         int
}

// try runs the program and returns what came of it.
func (p party) try(stdin string, args ...string) outcome {
	p.t.Helper()
	cmd := p.command(bounded(p.t), args...)
	cmd.Stdin = strings.NewReader(stdin)
	return finish(p.t, cmd)
}

// finish runs a process to its end.
func finish(t testing.TB, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd, err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// run runs the program, which must succeed, and returns what it printed.
func (p party) run(args ...string) string {
	p.t.Helper()
	return p.answered("", args...)
}

func (p party) answered(stdin string, args ...string) string {
	p.t.Helper()
	o := p.try(stdin, args...)
	if o.status != 0 {
		p.t.Fatalf("freearea %s: exit status %d\n%s", strings.Join(args, " "), o.status, o.stderr)
	}
	return o.stdout
}

func (p party) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"--lang", "en", "--site", p.site, "--passphrase-file", "passphrase"}, args...)
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Dir = p.dir
	return cmd
}

// as decodes what --json printed: one object.
func as[T any](t testing.TB, out string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return v
}

// service is one of the example manifests, and one holder's data.
type service struct {
	file     string
	id       string
	profile  string
	instance iso7816.AID
	manifest *manifest.Manifest
	issue    []string // arguments
	read     []string
}

// office is a set of parties in one directory.
type office struct {
	t                 testing.TB
	dir               string
	counter, terminal party
	services          []service // common-ap, type-a with PIN, type-d
	thorough          bool      // the program makes the keystores
}

const testPassphrase = "for tests only"

// newOffice makes the files, and the counter's keys.
func newOffice(t testing.TB, program string) *office {
	t.Helper()
	dir := t.TempDir()
	site := func(keystore, book string) string {
		return fmt.Sprintf("card_profile = \"emulated\"\nkeystore = %q\nledger = %q\noperator_key = \"clerk.operator\"\noperator_passphrase_file = \"passphrase\"\ncounter = \"counter 1\"\n", keystore, book)
	}
	o := &office{
		t: t, dir: dir,
		counter:  party{t, program, dir, "counter.toml"},
		terminal: party{t, program, dir, "terminal.toml"},
		services: []service{
			{file: "shopping-street.toml"},
			{file: "city-library.toml", read: []string{"--pin-file", "pin"},
				issue: []string{"--pin-file", "pin", "--id", "2045000151", "--item", "category=ADULT", "--item", "home-branch=中央館"}},
			{file: "office-pass.toml", issue: []string{"--item", "area=HQ-2F"}},
		},
	}
	files := map[string]string{
		"passphrase": testPassphrase + "\n", "pin": "2580\n", "scan": "a scanned form\n",
		"counter.toml": site("counter.keys", "ledger.db"), "terminal.toml": site("terminal.keys", "none"),
	}
	for i := range o.services {
		s := &o.services[i]
		data, err := examples.Files.ReadFile(s.file)
		if err != nil {
			t.Fatal(err)
		}
		if s.manifest, err = manifest.Parse(s.file, data); err != nil {
			t.Fatal(err)
		}
		s.id, s.profile, s.instance = s.manifest.ID, s.manifest.Profile, s.manifest.Application.Instance
		files[s.file] = string(data)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// quick is the cost of passphrases in these tests, where every process checks one.
var quick = file.Cost{Time: 1, Memory: 64, Threads: 1}

// makeKeystore makes a party's keystore: with the program where that is what
// is tried.
func (o *office) makeKeystore(p party) {
	o.t.Helper()
	ctx, pass := bounded(o.t), []byte(testPassphrase)
	path := filepath.Join(o.dir, strings.TrimSuffix(p.site, ".toml")+".keys")
	var store *file.Store
	var err error
	if o.thorough {
		p.run("keys", "init")
		if store, err = file.Open(ctx, path, pass, file.Options{}); err == nil {
			err = store.ChangePassphrase(ctx, pass, quick)
		}
	} else {
		store, err = file.Create(ctx, path, pass, file.Options{Cost: quick})
	}
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

// makeKeys makes the counter's keys for some services.
func (o *office) makeKeys(services ...service) {
	o.t.Helper()
	o.makeKeystore(o.counter)
	o.counter.run("keys", "add", "counter", "--kind", "counter-signing")
	o.counter.run("keys", "add", "ledger", "--kind", "ledger")
	for _, s := range services {
		if name := s.manifest.Keys.Read; name != "" {
			o.counter.run("keys", "add", name, "--kind", "read")
		}
		if name := s.manifest.Keys.IssuerSigning; name != "" {
			o.counter.run("keys", "add", name, "--kind", "issuer-signing")
		}
	}
	o.hire()
}

// hire makes the ledger, with a supervisor at the counter and a key custodian.
func (o *office) hire() {
	o.t.Helper()
	o.counter.run("keys", "add", "checkpoints", "--kind", "ledger-signing")
	o.counter.run("staff", "init", "clerk", "--out", "clerk.operator", "--new-passphrase-file", "passphrase")
	o.counter.run("staff", "add", "custodian", "--role", "key-custodian", "--out", "custodian.operator", "--new-passphrase-file", "passphrase")
}

// equipTerminal gives the terminal the read keys and the issuers' public keys,
// and nothing else.
func (o *office) equipTerminal(services ...service) {
	o.t.Helper()
	o.makeKeystore(o.terminal)
	recipient := strings.TrimSpace(o.terminal.run("keys", "identity", "terminal.age"))
	var secret, public []string
	for _, s := range services {
		if name := s.manifest.Keys.Read; name != "" {
			secret = append(secret, name)
		}
		if name := s.manifest.Keys.IssuerSigning; name != "" {
			public = append(public, name)
		}
	}
	if len(secret) > 0 {
		answers := strings.Join(secret, " ") + "\n" + recipient[len(recipient)-6:] + "\n"
		o.counter.answered(answers, append([]string{
			"--operator-key", "custodian.operator", "--second", "clerk.operator", "--second-passphrase-file", "passphrase",
			"keys", "export", "--to", recipient, "--out", "read.age",
		}, secret...)...)
		o.terminal.run("keys", "import", "--identity", "terminal.age", "read.age")
	}
	if len(public) > 0 {
		o.counter.run(append([]string{"keys", "export", "--public", "--out", "issuers.keys"}, public...)...)
		o.terminal.run("keys", "import", "issuers.keys")
	}
}

// consent records a holder's consent and returns its file.
func (o *office) consent(s service, reference string) string {
	o.t.Helper()
	file := reference + ".consent.json"
	args := []string{"consent", "record", s.file, "--method", "paper", "--reference", reference, "--scan", "scan", "--out", file}
	for _, it := range s.manifest.Items {
		args = append(args, "--item", it.Name)
	}
	o.counter.run(args...)
	return file
}

// issued is what `issue --json` and `withdraw --json` print.
type issued struct {
	V           int      `json:"v"`
	Type        string   `json:"type"`
	Service     string   `json:"service"`
	Instance    string   `json:"instance"`
	NothingToDo bool     `json:"nothing_to_do"`
	DryRun      bool     `json:"dry_run"`
	Steps       []string `json:"steps"`
	Run         string   `json:"run"`
	ID          string   `json:"id"`
	IssueNumber uint16   `json:"issue_number"`
	Expiry      string   `json:"expiry"`
	KeyVersion  byte     `json:"key_version"`
}

// issueArgs issues a service on a consent to the card in a slot. The card's
// printed expiry is years away.
func (s service) issueArgs(slot, consent string) []string {
	expiry := time.Now().AddDate(9, 0, 0).Format(time.DateOnly)
	return append([]string{"issue", s.file, "--card", "pcsc:" + slot, "--consent", consent, "--card-expiry", expiry, "--json"}, s.issue...)
}

// tap is what `read --json` prints, and of an error what the tests look at.
type tap struct {
	V              int    `json:"v"`
	Type           string `json:"type"`
	Slot           string `json:"slot"`
	Service        string `json:"service"`
	Profile        string `json:"profile"`
	Instance       string `json:"instance"`
	ID             string `json:"id"`
	IssueNumber    uint16 `json:"issue_number"`
	Expiry         string `json:"expiry"`
	Authentication string `json:"authentication"`
	Signature      string `json:"signature"`
	KeyVersion     byte   `json:"key_version"`
	PIN            bool   `json:"pin"`
	Commands       int    `json:"commands"`

	Code string `json:"code"` // of an error
}

func (s service) readArgs(slot string) []string {
	return append([]string{"read", s.file, "--card", "pcsc:" + slot, "--json"}, s.read...)
}

// process is a running program whose lines are read as they come.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines chan string   // of standard output, or of standard error
	done  chan struct{} // closed when it has ended

	followStderr bool
	other        bytes.Buffer // the stream that is not followed
}

// background starts the program and follows its standard output, or standard error.
func (p party) background(t testing.TB, followStderr bool, args ...string) *process {
	t.Helper()
	cmd := p.command(context.Background(), args...) // interrupted at the end of the test
	r := &process{t: t, cmd: cmd, lines: make(chan string, 100), done: make(chan struct{}), followStderr: followStderr}
	var pipe io.ReadCloser
	var err error
	if followStderr {
		cmd.Stdout = &r.other
		pipe, err = cmd.StderrPipe()
	} else {
		cmd.Stderr = &r.other
		pipe, err = cmd.StdoutPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		scanner := bufio.NewScanner(pipe)
		for scanner.Scan() {
			r.lines <- scanner.Text()
		}
		close(r.lines)
		cmd.Wait()
	}()
	t.Cleanup(func() { r.interrupt() })
	return r
}

// line returns the next line, "" at the end.
func (r *process) line() string {
	r.t.Helper()
	select {
	case line := <-r.lines:
		return line
	case <-time.After(limit):
		r.t.Fatalf("no line within %v from %v", limit, r.cmd)
	}
	return ""
}

// interrupt asks the process to end, if it has not, and returns how it ended:
// its exit status, and what it wrote, without the lines that were taken.
func (r *process) interrupt() outcome {
	r.t.Helper()
	select {
	case <-r.done:
	default:
		r.cmd.Process.Signal(syscall.SIGINT)
	}
	return r.wait()
}

// wait waits for the process to end by itself.
func (r *process) wait() outcome {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(limit):
		r.cmd.Process.Kill()
		<-r.done
		r.t.Errorf("%v did not end", r.cmd)
	}
	var rest []string
	for line := range r.lines {
		rest = append(rest, line)
	}
	o := outcome{strings.Join(rest, "\n"), r.other.String(), r.cmd.ProcessState.ExitCode()}
	if r.followStderr {
		o.stdout, o.stderr = o.stderr, o.stdout
	}
	return o
}

// cardProcess is an emulated card in a process of its own.
type cardProcess struct {
	*process
	addr string // where it waits for a reader
}

var waitsOn = regexp.MustCompile(`waits for a reader on (\S+)$`)

// emulate starts a process for a card image.
func (o *office) emulate(t testing.TB, image string, args ...string) *cardProcess {
	t.Helper()
	p := o.counter.background(t, true, append([]string{"emulate", image, "--listen", "127.0.0.1:0"}, args...)...)
	line := p.line()
	m := waitsOn.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("emulate says %q, %+v", line, p.interrupt())
	}
	return &cardProcess{p, m[1]}
}

// insert puts the card into a reader, and waits until the daemon has seen it.
func (c *cardProcess) insert(t testing.TB, s *pcsc.Source, r *pcscd.Reader) (remove func()) {
	t.Helper()
	remove = r.Relay(c.addr)
	t.Cleanup(remove)
	settle(t, s, r)
	return remove
}

// pulled waits until the process of a card whose power was cut has ended, and
// the daemon has seen that the reader is empty.
func (c *cardProcess) pulled(s *pcsc.Source, r *pcscd.Reader, remove func()) {
	c.t.Helper()
	if o := c.wait(); o.status != 1 || !isRemoved(o) {
		c.t.Errorf("emulate with a cut: %+v", o)
	}
	remove()
	emptied(c.t, s, r)
}

// takeOut ends a card's process, and waits until the daemon has seen that the
// reader is empty.
func (c *cardProcess) takeOut(s *pcsc.Source, r *pcscd.Reader, remove func()) {
	c.t.Helper()
	if o := c.interrupt(); o.status != 0 {
		c.t.Errorf("the card's process ends with %+v", o)
	}
	remove()
	emptied(c.t, s, r)
}

func emptied(t testing.TB, s *pcsc.Source, r *pcscd.Reader) {
	t.Helper()
	if err := r.Emptied(bounded(t)); err != nil {
		t.Fatal(err)
	}
	settleEmpty(t, s, r)
}

// openscTool sends a command to the card with another program than ours.
func openscTool(t testing.TB, slot string, command []byte) (answer []byte) {
	t.Helper()
	tool, err := exec.LookPath("opensc-tool")
	if err != nil {
		pcscd.Unavailable(t, "%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "--reader", slot, "--card-driver", "default", "--send-apdu", fmt.Sprintf("%X", command))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	if answer, err = parseOpensc(string(out)); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return answer
}

var (
	openscStatus = regexp.MustCompile(`^Received \(SW1=0x([0-9A-F]{2}), SW2=0x([0-9A-F]{2})\)`)
	openscBytes  = regexp.MustCompile(`^(?:[0-9A-F]{2} ){1,16}`)
)

// parseOpensc reads a response APDU as opensc-tool prints it: the status word,
// then 16 bytes a line, with their characters behind them.
func parseOpensc(out string) ([]byte, error) {
	lines := strings.Split(out, "\n")
	i := slices.IndexFunc(lines, openscStatus.MatchString)
	if i < 0 {
		return nil, errors.New("no answer")
	}
	hex := ""
	for _, line := range lines[i+1:] {
		hex += openscBytes.FindString(line)
	}
	m := openscStatus.FindStringSubmatch(lines[i])
	hex += m[1] + m[2]
	var answer []byte
	_, err := fmt.Sscanf(strings.ReplaceAll(hex, " ", ""), "%X", &answer)
	return answer, err
}
