// Package crash runs the command as a process of its own, ends it in the
// middle, and holds cards against the ledger. Its tests are the part of the
// sweeps (package sweep) that is about the program and its disk; torn cards
// are package provisioner's.
//
// It ends what it started, by process id, and nothing else.
package crash

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/freearea/freearea/cmd/freearea/app"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/examples"
	"github.com/freearea/freearea/keys/file"
)

// Build builds the command into a directory, as it is delivered.
func Build(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "freearea")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/freearea/freearea/cmd/freearea").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the command: %w\n%s", err, out)
	}
	return program, nil
}

// Site is the directory of a counter that is ready to issue: configuration,
// keystore, ledger, and for each holder a card and a consent.
type Site struct {
	Dir     string
	Program string // the command, as [Build] left it
	Holders int
	// LedgerDir is the directory of the ledger, where that is not Dir.
	LedgerDir string
	// manifests are the examples; copies of a site have them in common.
	manifests string
}

// service is what a holder gets; they take turns.
type service struct {
	id, instance string
	items        []string
}

var services = []service{
	{id: "shopping-street", instance: "FCFE8F0A6CBE84744A1EA0FD16C247C1"},                            // a common-ap, whose IDs are counted
	{id: "office-pass", instance: "F7E2A9BD290B4E6F725713233D54CC20", items: []string{"area=HQ-2F"}}, // a type-d, whose IDs are drawn
}

// baseLoadFile is the load file of both.
const baseLoadFile = "F0465245454152454100"

func serviceOf(holder int) service { return services[holder%len(services)] }

// Names of a site's files.
const (
	Ledger       = "freearea.ledger"
	passphrase   = "passphrase"
	operatorsOwn = "operator-passphrase"
)

// Card is the file name of a holder's card.
func Card(holder int) string { return fmt.Sprintf("card-%d.img", holder) }

func consentFile(holder int) string { return fmt.Sprintf("consent-%d.json", holder) }

// New makes a site for that many holders in a directory. Its keystore opens
// fast; everything else is as at a counter. It is made by the command, in this
// process, with that clock.
func New(ctx context.Context, dir, program string, holders int, now func() time.Time) (*Site, error) {
	s := &Site{Dir: dir, Program: program, Holders: holders, manifests: filepath.Join(dir, "examples")}
	if err := os.CopyFS(s.manifests, examples.Files); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"freearea.toml": "operator_key = \"clerk.operator\"\noperator_passphrase_file = \"" + operatorsOwn + "\"\ncard_profile = \"emulated\"\n",
		"form.pdf":      "the scanned form\n", passphrase: "correct horse battery staple\n", operatorsOwn: "wrong donkey capacitor clip\n",
	} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	lines := []string{
		"keys init",
		"keys add counter --kind counter-signing",
		"keys add ledger --kind ledger",
		"keys add checkpoints --kind ledger-signing",
		"keys add shopping-street-issuer --kind issuer-signing",
		"keys add office-pass-read --kind read",
		"staff init clerk --out " + s.path("clerk.operator") + " --new-passphrase-file " + s.path(operatorsOwn),
	}
	for i := range holders {
		lines = append(lines, "emulate new "+s.path(Card(i)), strings.Join(s.recordConsent(i, s.path(consentFile(i))), " "))
	}
	for _, line := range lines {
		if _, err := s.ask(ctx, now, strings.Fields(line)...); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Site) path(name string) string { return filepath.Join(s.Dir, name) }

// LedgerPath is the ledger's file.
func (s *Site) LedgerPath() string { return filepath.Join(cmp.Or(s.LedgerDir, s.Dir), Ledger) }

func (s *Site) manifest(holder int) string {
	return filepath.Join(s.manifests, serviceOf(holder).id+".toml")
}

// Copy copies the site as it is into a directory, with its ledger. The
// manifests stay with the first.
func (s *Site) Copy(dir string) (*Site, error) {
	files := map[string][]byte{}
	for _, from := range []string{s.Dir, cmp.Or(s.LedgerDir, s.Dir)} {
		entries, err := os.ReadDir(from)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			if files[e.Name()], err = os.ReadFile(filepath.Join(from, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return s.Restore(files, dir)
}

// Restore makes a site of the contents of its files, in a directory.
func (s *Site) Restore(files map[string][]byte, dir string) (*Site, error) {
	out := *s
	out.Dir, out.LedgerDir = dir, ""
	for name, data := range files {
		if err := os.WriteFile(out.path(name), data, 0o600); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// ask runs the command in this process and returns what it prints. A process
// that is being started elsewhere in this program has the lock of a card's image
// that was just closed until it executes: then it is asked again.
func (s *Site) ask(ctx context.Context, now func() time.Time, args ...string) (out string, err error) {
	for range 500 {
		if out, err = s.askOnce(ctx, now, args...); err == nil || !strings.Contains(err.Error(), emulator.ErrImageLocked.Error()) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return out, err
}

func (s *Site) askOnce(ctx context.Context, now func() time.Time, args ...string) (string, error) {
	var out, fault bytes.Buffer
	status := app.Run(ctx, app.Options{
		Args:  append(append([]string{"freearea"}, s.global()...), args...),
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &fault, Now: now,
		Getenv:       func(string) string { return "" },
		KeystoreCost: file.Cost{Time: 1, Memory: 8, Threads: 1}, OperatorKeyWork: 4,
	})
	if status != 0 {
		return out.String(), fmt.Errorf("freearea %s: status %d: %s", strings.Join(args, " "), status, strings.TrimSpace(fault.String()))
	}
	return out.String(), nil
}

// global are the flags before a command.
func (s *Site) global() []string {
	return []string{"--site", s.path("freearea.toml"), "--ledger", s.LedgerPath(), "--passphrase-file", s.path(passphrase)}
}

// expiry is that of every card.
func expiry() string { return time.Now().AddDate(4, 0, 0).Format(time.DateOnly) }

// issue are the arguments that issue to a holder.
func (s *Site) issue(holder int, card string) []string {
	args := []string{"issue", s.manifest(holder), "--consent", s.path(consentFile(holder)),
		"--card-expiry", expiry(), "--card", "image:" + s.path(card), "--json"}
	for _, item := range serviceOf(holder).items {
		args = append(args, "--item", item)
	}
	return args
}

// Issue is the command that issues to a holder, in the site's directory, with
// what it prints in files: a process that is traced has no pipes to wait for.
func (s *Site) Issue(ctx context.Context, holder int) (*Command, error) {
	return s.IssueTo(ctx, holder, Card(holder))
}

// IssueTo is Issue to a card of one's choice.
func (s *Site) IssueTo(ctx context.Context, holder int, card string) (*Command, error) {
	return s.command(ctx, s.issue(holder, card))
}

// RecordConsent is the command that records another consent to a holder's
// service, in a new file.
func (s *Site) RecordConsent(ctx context.Context, holder int, file string) (*Command, error) {
	return s.command(ctx, s.recordConsent(holder, file))
}

func (s *Site) recordConsent(holder int, file string) []string {
	return []string{"consent", "record", s.manifest(holder), "--method", "paper", "--reference", fmt.Sprintf("A-%d", holder),
		"--scan", s.path("form.pdf"), "--out", file}
}

// HandOver is the command that hands a holder's service over to its business
// system, as a file in a directory.
func (s *Site) HandOver(ctx context.Context, holder int, dir string) (*Command, error) {
	return s.command(ctx, []string{"handover", s.manifest(holder), "--dir", dir, "--json"})
}

// Batch is the command that issues to the holders of the first service from a
// list that names their cards, with all of these on the slots.
func (s *Site) Batch(ctx context.Context) (*Command, error) {
	list := "consent,cin,card-expiry\n"
	var cards []string
	for h := 0; h < s.Holders; h += len(services) {
		said, err := s.ask(ctx, nil, "card", "show", "--card", "image:"+s.path(Card(h)), "--json")
		if err != nil {
			return nil, err
		}
		var card struct {
			CIN string `json:"cin"`
		}
		if err := json.Unmarshal([]byte(said), &card); err != nil {
			return nil, err
		}
		list += fmt.Sprintf("%s,%s,%s\n", s.path(consentFile(h)), card.CIN, expiry())
		cards = append(cards, "--card", "image:"+s.path(Card(h)))
	}
	if err := os.WriteFile(s.path("list.csv"), []byte(list), 0o600); err != nil {
		return nil, err
	}
	report := s.path(fmt.Sprintf("report-%d", time.Now().UnixNano())) // of this run
	return s.command(ctx, append([]string{"issue-batch", s.manifest(0), s.path("list.csv"), "--report", report}, cards...))
}

// BatchHolders are those whom [Site.Batch] issues to.
func (s *Site) BatchHolders() (holders []int) {
	for h := 0; h < s.Holders; h += len(services) {
		holders = append(holders, h)
	}
	return holders
}

func (s *Site) command(ctx context.Context, args []string) (*Command, error) {
	// Beside the site, so that its directory holds what a counter's holds.
	said, err := os.CreateTemp("", "freearea-crash-*")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	c := &Command{Cmd: exec.CommandContext(ctx, s.Program, append(s.global(), args...)...), said: said, cancel: cancel}
	c.Dir, c.Stdout, c.Stderr = s.Dir, said, said
	c.Env = []string{"PATH=/usr/bin:/bin", "USER=tester", "HOME=" + s.Dir, "LC_ALL=C.UTF-8", "TMPDIR=" + s.Dir}
	return c, nil
}

// IssueAt issues to a holder in this process, at another time than now.
func (s *Site) IssueAt(ctx context.Context, holder int, now func() time.Time) error {
	_, err := s.ask(ctx, now, s.issue(holder, Card(holder))...)
	return err
}

// Command is a process of the command that is to run.
type Command struct {
	*exec.Cmd
	said   *os.File
	cancel context.CancelFunc
}

// patience is how long a process may take; one that hangs is ended.
const patience = 2 * time.Minute

// Said returns what the process has printed, to either stream.
func (c *Command) Said() string {
	data, err := os.ReadFile(c.said.Name())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Done removes what the command printed. The process must have ended.
func (c *Command) Done() {
	c.cancel()
	_ = errors.Join(c.said.Close(), os.Remove(c.said.Name()))
}

// Complete runs the command for a holder to its end, and returns what it
// printed.
func (s *Site) Complete(ctx context.Context, holder int) (string, error) {
	c, err := s.Issue(ctx, holder)
	if err != nil {
		return "", err
	}
	defer c.Done()
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("issue to holder %d: %w: %s", holder, err, c.Said())
	}
	return c.Said(), nil
}
