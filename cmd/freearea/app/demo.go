package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/examples"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

func (p *program) demoCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:  "demo",
		Usage: t(msg.Of("the whole job on an embedded card: issue three services, read them back, withdraw one", "組込みカードでの一連の流れ: 3つのサービスを発行し、読み取り、1つを取り消す")),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "keep", Usage: t(msg.Of("work in `DIR` and leave the files there", "`DIR` で実行し、ファイルを残す"))},
			p.jsonFlag(),
		},
		Action: p.demo,
	}
}

// demoReport is what `demo --json` prints.
type demoReport struct {
	Services  []demoService `json:"services"`
	Withdrawn string        `json:"withdrawn"` // service id
	OK        bool          `json:"ok"`
}

// demoService is one service of the demo. Issued is what the issuing process
// printed, Read what another process, with the read keys only, got from the card.
type demoService struct {
	Manifest    string `json:"manifest"`
	Profile     string `json:"profile"`
	Issued      string `json:"issued"`
	Read        string `json:"read"`
	TapCommands int    `json:"tap_commands"`
	TapBytes    int    `json:"tap_bytes"`

	authentication string
	issueArgs      []string // beside those that every service has
	pin            string
}

const demoPassphrase = "demonstration only"

// demoServices are the example manifests with one holder's data each.
func demoServices() []demoService {
	return []demoService{
		{Manifest: "shopping-street.toml"},
		{Manifest: "city-library.toml", pin: "2580", issueArgs: []string{"--id", "2045000151", "--item", "category=ADULT", "--item", "home-branch=中央館"}},
		{Manifest: "office-pass.toml", issueArgs: []string{"--item", "area=HQ-2F"}},
	}
}

// demo plays every part: the counter and the terminal are separate processes
// of this program, each with a keystore of its own, over one card image.
func (p *program) demo(c *cli.Context) (err error) {
	if c.Args().Present() {
		return usagef(msg.Of("demo takes no arguments", "demo に引数は要りません"))
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir := c.String("keep")
	if dir == "" {
		if dir, err = os.MkdirTemp("", "freearea-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d := &demonstration{program: p, ctx: c.Context, self: self, dir: dir, out: p.Stdout}
	if c.Bool("json") {
		d.out = io.Discard
	}
	report, err := d.run()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := json.NewEncoder(p.Stdout).Encode(report); err != nil {
			return err
		}
	} else if err := d.table(report); err != nil {
		return err
	}
	if !report.OK {
		return &spoken{text: msg.Of("an ID read differs from the ID issued", "読み取ったIDが発行したIDと一致しません")}
	}
	return nil
}

type demonstration struct {
	*program
	ctx       context.Context
	self, dir string
	out       io.Writer
}

func (d *demonstration) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demonstration) say(t msg.Text, args ...any) { fmt.Fprintln(d.out, d.lang.T(t, args...)) }

// freearea runs this program as one of the parties: "counter" or "terminal".
// What it prints goes to the person watching, unless it is asked for.
func (d *demonstration) freearea(party, stdin string, capture bool, args ...string) (string, error) {
	all := append([]string{"--site", d.path(party + ".toml"), "--lang", string(d.lang), "--passphrase-file", d.path("passphrase")}, args...)
	cmd := exec.CommandContext(d.ctx, d.self, all...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	err := cmd.Run()
	if !capture {
		for line := range strings.Lines(out.String()) {
			fmt.Fprint(d.out, "    "+line)
		}
	}
	if err != nil {
		return out.String(), fmt.Errorf("freearea %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(fault.String()))
	}
	return out.String(), nil
}

// counter and terminal run a command whose output people see.
func (d *demonstration) counter(args ...string) error {
	_, err := d.freearea("counter", "", false, args...)
	return err
}

func (d *demonstration) run() (*demoReport, error) {
	services := demoServices()
	card := "image:" + d.path("card.img")
	for _, step := range []func() error{
		func() error { return d.prepare(services) },
		func() error { return d.makeKeys(services) },
		d.hire,
		func() error {
			d.say(msg.Of("\na new card, before anything is issued:", "\n発行前の新しいカード:"))
			if err := d.counter(d.as("supervisor", "", "emulate", "new", d.path("card.img"))...); err != nil {
				return err
			}
			return d.counter(append([]string{"card", "show", "--card", card}, d.manifests(services)...)...)
		},
		func() error { return d.issueAll(services, card) },
		func() error { return d.equipTerminal(services) },
		func() error { return d.readAll(services, card) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	library := services[1]
	m, err := d.loadManifest(d.path(library.Manifest))
	if err != nil {
		return nil, err
	}
	d.say(msg.Of("\nthe counter withdraws %s; the card afterwards:", "\n窓口で %s を取り消した後のカード:"), d.lang.Choose(m.Name.EN, m.Name.JA))
	if err := d.counter("withdraw", d.path(library.Manifest), "--card", card); err != nil {
		return nil, err
	}
	if err := d.counter(append([]string{"card", "show", "--card", card}, d.manifests(services)...)...); err != nil {
		return nil, err
	}
	gone, err := d.gone(m, card)
	if err != nil {
		return nil, err
	}
	report := &demoReport{Services: services, Withdrawn: m.ID, OK: gone}
	for _, s := range services {
		report.OK = report.OK && s.Issued != "" && s.Read == s.Issued
	}
	return report, nil
}

// gone reports whether a withdrawn service's instance is off the card.
func (d *demonstration) gone(m *manifest.Manifest, card string) (bool, error) {
	out, err := d.freearea("counter", "", true, "card", "show", "--card", card, "--json")
	if err != nil {
		return false, err
	}
	var listing cardListing
	if err := json.Unmarshal([]byte(out), &listing); err != nil {
		return false, fmt.Errorf("freearea card show --json printed %q: %w", out, err)
	}
	return listing.Registry && !slices.ContainsFunc(listing.Applications, func(e listedEntry) bool {
		return e.AID == m.Application.Instance.String()
	}), nil
}

func (d *demonstration) manifests(services []demoService) []string {
	var paths []string
	for _, s := range services {
		paths = append(paths, d.path(s.Manifest))
	}
	return paths
}

// prepare writes what a site has at hand: manifests, site files, a passphrase.
func (d *demonstration) prepare(services []demoService) error {
	const site = `card_profile = "emulated"
keystore = %q
counter = "demo-counter"
`
	const staffed = `ledger = "ledger.db"
operator_key = "clerk.operator"
operator_passphrase_file = "passphrase"
`
	files := map[string]string{
		"passphrase":    demoPassphrase + "\n",
		"counter.toml":  fmt.Sprintf(site, "counter.keys") + staffed,
		"terminal.toml": fmt.Sprintf(site, "terminal.keys"),
		"scan":          "the scanned consent form would stand here\n",
	}
	for _, s := range services {
		data, err := examples.Files.ReadFile(s.Manifest)
		if err != nil {
			return err
		}
		files[s.Manifest] = string(data)
		if s.pin != "" {
			files["pin"] = s.pin + "\n"
		}
	}
	for name, content := range files {
		if err := os.WriteFile(d.path(name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	d.say(msg.Of("the services:", "サービス:"))
	return d.counter(append([]string{"manifest", "check"}, d.manifests(services)...)...)
}

// makeKeys makes the counter's keystore with all that the manifests name.
func (d *demonstration) makeKeys(services []demoService) error {
	d.say(msg.Of("\nthe counter's keys:", "\n窓口の鍵:"))
	commands := [][]string{
		{"keys", "init"},
		{"keys", "add", "counter", "--kind", "counter-signing"},
		{"keys", "add", "ledger", "--kind", "ledger"},
		{"keys", "add", "checkpoints", "--kind", "ledger-signing"},
	}
	for _, s := range services {
		m, err := d.loadManifest(d.path(s.Manifest))
		if err != nil {
			return err
		}
		if m.Keys.Read != "" {
			commands = append(commands, []string{"keys", "add", m.Keys.Read, "--kind", "read"})
		}
		if m.Keys.IssuerSigning != "" {
			commands = append(commands, []string{"keys", "add", m.Keys.IssuerSigning, "--kind", "issuer-signing"})
		}
	}
	for _, c := range commands {
		if err := d.counter(c...); err != nil {
			return err
		}
	}
	return nil
}

// hire makes the ledger and its operators: a supervisor, who adds a key
// custodian, and with him a clerk.
func (d *demonstration) hire() error {
	d.say(msg.Of("\nthe counter's operators, each with a signing key:", "\n窓口の担当者(それぞれに署名鍵):"))
	fresh := []string{"--new-passphrase-file", d.path("passphrase"), "--out"}
	for _, c := range [][]string{
		append([]string{"staff", "init", "demo-supervisor"}, append(fresh, d.path("supervisor.operator"))...),
		append(d.as("supervisor", "", "staff", "add", "demo-custodian", "--role", "key-custodian"), append(fresh, d.path("custodian.operator"))...),
		append(d.as("supervisor", "custodian", "staff", "add", "demo-clerk", "--role", "clerk"), append(fresh, d.path("clerk.operator"))...),
	} {
		if err := d.counter(c...); err != nil {
			return err
		}
	}
	return nil
}

// as is a command of somebody else than the clerk, perhaps with a second one.
func (d *demonstration) as(first, second string, args ...string) []string {
	all := []string{"--operator-key", d.path(first + ".operator")}
	if second != "" {
		all = append(all, "--second", d.path(second+".operator"), "--second-passphrase-file", d.path("passphrase"))
	}
	return append(all, args...)
}

// issueAll records each consent and issues on it.
func (d *demonstration) issueAll(services []demoService, card string) error {
	for i := range services {
		s := &services[i]
		m, err := d.loadManifest(d.path(s.Manifest))
		if err != nil {
			return err
		}
		s.Profile = m.Profile
		d.say(msg.Of("\nthe holder consents to %s, and the counter issues it:", "\n本人が %s に同意し、窓口で発行:"), d.lang.Choose(m.Name.EN, m.Name.JA))
		consent := d.path(m.ID + ".consent.json")
		record := []string{"consent", "record", d.path(s.Manifest), "--method", "paper", "--reference", "DEMO-" + m.ID,
			"--scan", d.path("scan"), "--out", consent}
		issue := []string{"issue", d.path(s.Manifest), "--card", card, "--consent", consent, "--card-expiry", d.cardExpiry(), "--json"}
		for _, it := range m.Items {
			record = append(record, "--item", it.Name)
		}
		issue = append(issue, s.issueArgs...)
		if s.pin != "" {
			issue = append(issue, "--pin-file", d.path("pin"))
		}
		if err := d.counter(record...); err != nil {
			return err
		}
		out, err := d.freearea("counter", "", true, issue...)
		if err != nil {
			return err
		}
		var done reporting
		if err := json.Unmarshal([]byte(out), &done); err != nil {
			return fmt.Errorf("freearea issue --json printed %q: %w", out, err)
		}
		s.Issued = orEmpty(done.ID)
		var steps []string
		for _, name := range done.Steps {
			steps = append(steps, d.lang.T(stepText(provisioner.StepName(name))))
		}
		d.say(msg.Of("    issued: ID %s, valid until %s (%s)", "    発行: ID %s、有効期限 %s(%s)"), s.Issued, orEmpty(done.Expiry), strings.Join(steps, ", "))
	}
	return nil
}

// cardExpiry is what would be printed on the card: its tenth birthday.
func (d *demonstration) cardExpiry() string {
	return d.Now().In(japan).AddDate(9, 0, 0).Format("2006-01-02")
}

// equipTerminal gives the terminal's keystore the read keys, wrapped for it,
// and the public halves of the issuers' keys.
func (d *demonstration) equipTerminal(services []demoService) error {
	d.say(msg.Of("\nthe terminal receives the read keys and the issuers' public keys:", "\n端末が読取鍵と発行者の公開鍵を受け取る:"))
	if _, err := d.freearea("terminal", "", false, "keys", "init"); err != nil {
		return err
	}
	out, err := d.freearea("terminal", "", true, "keys", "identity", d.path("terminal.age"))
	if err != nil {
		return err
	}
	recipient := strings.TrimSpace(out)
	var secret, public []string
	for _, s := range services {
		m, err := d.loadManifest(d.path(s.Manifest))
		if err != nil {
			return err
		}
		if m.Keys.Read != "" {
			secret = append(secret, m.Keys.Read)
		}
		if m.Keys.IssuerSigning != "" {
			public = append(public, m.Keys.IssuerSigning)
		}
	}
	answers := strings.Join(secret, " ") + "\n" + recipient[len(recipient)-6:] + "\n"
	if _, err := d.freearea("counter", answers, true, append(d.as("custodian", "supervisor", "keys", "export", "--to", recipient, "--out", d.path("read.age")), secret...)...); err != nil {
		return err
	}
	if _, err := d.freearea("terminal", "", false, "keys", "import", "--identity", d.path("terminal.age"), d.path("read.age")); err != nil {
		return err
	}
	if len(public) == 0 {
		return nil
	}
	if _, err := d.freearea("counter", "", true, append([]string{"keys", "export", "--public", "--out", d.path("issuers.keys")}, public...)...); err != nil {
		return err
	}
	_, err = d.freearea("terminal", "", false, "keys", "import", d.path("issuers.keys"))
	return err
}

// demoTap is the part of a tap that the demo compares.
type demoTap struct {
	ID             string `json:"id"`
	Authentication string `json:"authentication"`
	Commands       int    `json:"commands"`
	Bytes          int    `json:"bytes"`
}

func (d *demonstration) readAll(services []demoService, card string) error {
	d.say(msg.Of("\nthe terminal reads:", "\n端末の読み取り:"))
	for i := range services {
		s := &services[i]
		args := []string{"read", d.path(s.Manifest), "--card", card, "--json"}
		if s.pin != "" {
			args = append(args, "--pin-file", d.path("pin"))
		}
		out, err := d.freearea("terminal", "", true, args...)
		if err != nil {
			return err
		}
		var tap demoTap
		if err := json.Unmarshal([]byte(out), &tap); err != nil {
			return fmt.Errorf("freearea read --json printed %q: %w", out, err)
		}
		s.Read, s.TapCommands, s.TapBytes, s.authentication = tap.ID, tap.Commands, tap.Bytes, tap.Authentication
		d.say(msg.Of("    %s: %s", "    %s: %s"), s.Manifest, tap.ID)
	}
	return nil
}

// table is the end of the demo for people.
func (d *demonstration) table(r *demoReport) error {
	fmt.Fprintln(d.Stdout)
	var w table
	w.row(strings.Split(d.lang.T(msg.Of("SERVICE|PROFILE|ISSUED|READ|AUTHENTICATION|COMMANDS|BYTES", "サービス|プロファイル|発行したID|読み取ったID|認証|コマンド数|バイト数")), "|")...)
	for _, s := range r.Services {
		w.row(strings.TrimSuffix(s.Manifest, ".toml"), s.Profile, s.Issued, s.Read, s.authentication, strconv.Itoa(s.TapCommands), strconv.Itoa(s.TapBytes))
	}
	if err := w.write(d.Stdout, ""); err != nil {
		return err
	}
	d.printf(msg.Of("withdrawn: %s", "取消: %s"), r.Withdrawn)
	if r.OK {
		d.printf(msg.Of("every ID read equals the ID issued", "読み取ったIDはすべて発行したIDと一致しました"))
	}
	return nil
}
