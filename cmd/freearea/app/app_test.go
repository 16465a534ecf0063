package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
)

// run runs the command with an environment of its own.
func run(t *testing.T, env map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return runContext(t.Context(), env, args...)
}

func runContext(ctx context.Context, env map[string]string, args ...string) (status int, stdout, stderr string) {
	var out, fault bytes.Buffer
	status = Run(ctx, Options{
		Args: append([]string{"freearea"}, args...), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &fault,
		Getenv: func(name string) string { return env[name] },
	})
	return status, out.String(), fault.String()
}

func testProgram(lang msg.Lang, stderr *bytes.Buffer) *program {
	o := Options{Stderr: stderr, Stdout: new(bytes.Buffer), Stdin: strings.NewReader(""), Getenv: func(string) string { return "" }}
	return &program{Options: o.withDefaults(), lang: lang}
}

func TestArrange(t *testing.T) {
	app := testProgram(msg.English, new(bytes.Buffer)).cli()
	for _, c := range []struct{ in, want, path string }{
		{"issue m.toml --card image:x", "issue --card image:x m.toml", "issue"},
		{"issue m.toml --lang ja --dry-run", "--lang ja issue --dry-run m.toml", "issue"},
		{"issue --lang=ja m.toml", "--lang=ja issue m.toml", "issue"},
		{"--dry-run issue m.toml", "issue --dry-run m.toml", "issue"},
		{"keys add name --kind read --keystore k", "--keystore k keys add --kind read name", "keys add"},
		{"keys --kind read add name", "keys add --kind read name", "keys add"},
		// A flag's value is never a command, an argument never a flag's value.
		{"--keystore keys keys list", "--keystore keys keys list", "keys list"},
		{"read --json issue", "read --json issue", "read"},
		{"manifest check keys", "manifest check keys", "manifest check"},
		{"emulate new new", "emulate new new", "emulate new"},
		{"issue m.toml --item a=1 --item b=2", "issue --item a=1 --item b=2 m.toml", "issue"},
		// What comes after -- is left alone.
		{"manifest check -- --lang ja", "manifest check -- --lang ja", "manifest check"},
		{"read - --json", "read --json -", "read"},
		// Unknown things stay for the library to refuse.
		{"issue m.toml --frob", "issue --frob m.toml", "issue"},
		{"isue m.toml", "isue m.toml", ""},
		// A value that is missing is not found in what follows.
		{"manifest new m.toml --profile", "manifest new --profile", "manifest new"},
		{"issue m.toml --trace", "--trace", "issue"},
		// What shells ask for completions stays the last.
		{"issue m.toml --con --generate-bash-completion", "issue --con m.toml --generate-bash-completion", "issue"},
		{"", "", ""},
	} {
		args, command := arrange(app, append([]string{"freearea"}, strings.Fields(c.in)...))
		if got := strings.Join(args[1:], " "); got != c.want || command.path != c.path {
			t.Errorf("%q: %q of command %q, want %q of %q", c.in, got, command.path, c.want, c.path)
		}
	}
	if got, _ := arrange(app, nil); len(got) != 0 {
		t.Errorf("no arguments became %q", got)
	}
}

// FuzzArrange: arguments are moved, never added, changed or,
// unless a value is missing, dropped.
func FuzzArrange(f *testing.F) {
	for _, s := range []string{"issue m --card x", "--lang ja keys add n --kind read", "read -- a b", "- -- --", "--site"} {
		f.Add(s)
	}
	app := testProgram(msg.English, new(bytes.Buffer)).cli()
	f.Fuzz(func(t *testing.T, line string) {
		args := append([]string{"freearea"}, strings.Fields(line)...)
		before := strings.Join(args, " ")
		got, _ := arrange(app, args)
		if strings.Join(args, " ") != before {
			t.Fatalf("the caller's arguments %q became %q", before, args)
		}
		have := map[string]int{}
		for _, a := range args {
			have[a]++
		}
		for _, a := range got {
			if have[a]--; have[a] < 0 {
				t.Errorf("%q: %q is in %q more often", line, a, got)
			}
		}
	})
}

func TestLanguage(t *testing.T) {
	const english, japanese = "freearea: error: ", "freearea: エラー: "
	for _, c := range []struct {
		env  map[string]string
		args string
		want string
	}{
		{nil, "frob", english},
		{map[string]string{"LANG": "ja_JP.UTF-8"}, "frob", japanese},
		{map[string]string{"LANG": "ja_JP.UTF-8"}, "frob --lang en", english},
		{map[string]string{"LC_ALL": "C", "LANG": "ja_JP.UTF-8"}, "frob", english},
		{nil, "--lang ja frob", japanese},
		{nil, "frob --lang=ja", japanese},
		{nil, "--lang", english},
	} {
		if _, _, stderr := run(t, c.env, strings.Fields(c.args)...); !strings.HasPrefix(stderr, c.want) {
			t.Errorf("%v %q: %q, want %q…", c.env, c.args, stderr, c.want)
		}
	}
}

func TestUsageErrorsEndWithStatus2(t *testing.T) {
	for _, c := range []struct{ args, text, hint string }{
		{"isue", `"isue" is no command`, "did you mean freearea issue?"},
		{"card shwo", `"shwo" is no command`, "did you mean freearea card show?"},
		{"card dance", `"dance" is no command`, "see `freearea card --help`"},
		{"issue --crad x", "unknown flag --crad", "did you mean --card?"},
		{"issue --pasphrase-file x m", "unknown flag --pasphrase-file", "did you mean --passphrase-file?"},
		{"issue --zzz", "unknown flag --zzz", "see `freearea issue --help`"},
		{"keys identity a b", "freearea keys identity takes exactly one FILE; 2 given", "see `freearea keys identity --help`"},
		{"keys export", "name the keys to export", "see `freearea keys export --help`"},
		{"emulate new --memory 1k x", `--memory: "1k" is no value for it`, "see `freearea emulate new --help`"},
		{"slots now", `freearea slots takes no arguments, but there is "now"`, "see `freearea slots --help`"},
	} {
		status, stdout, stderr := run(t, nil, strings.Fields(c.args)...)
		want := "freearea: error: " + c.text + "\nfreearea: hint: " + c.hint + "\n"
		if status != exitUsage || stdout != "" || stderr != want {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want status 2, nothing, %q", c.args, status, stdout, stderr, want)
		}
	}
}

func TestResultsGoToStdoutAndErrorsToStderr(t *testing.T) {
	for _, args := range []string{"--version", "--help", "", "keys", "manifest schema", "issue --help"} {
		status, stdout, stderr := run(t, nil, strings.Fields(args)...)
		if status != 0 || stdout == "" || stderr != "" {
			t.Errorf("%q: status %d, %d bytes of output, stderr %q", args, status, len(stdout), stderr)
		}
	}
	status, stdout, stderr := run(t, nil, "--site", filepath.Join(t.TempDir(), "none.toml"), "slots")
	if status != exitFailed || stdout != "" || !strings.HasPrefix(stderr, "freearea: error: site configuration: ") {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

// TestPlaceholders: what a flag's value is called comes first among what stands
// in backquotes, in both languages; a command's name there would be taken for it.
func TestPlaceholders(t *testing.T) {
	japanese := testProgram(msg.Japanese, new(bytes.Buffer)).cli()
	look := func(path string, english, japanese []cli.Flag) {
		for i, f := range english {
			name := path + " --" + f.Names()[0]
			var has [2]bool
			for l, f := range []cli.Flag{f, japanese[i]} {
				_, rest, found := strings.Cut(f.(cli.DocGenerationFlag).GetUsage(), "`")
				value, _, _ := strings.Cut(rest, "`")
				has[l] = found
				if strings.Contains(value, " ") {
					t.Errorf("%s: its value is called %q", name, value)
				}
			}
			if has[0] != has[1] {
				t.Errorf("%s: its value has a name in one language only", name)
			}
		}
	}
	var walk func(path string, english, japanese []*cli.Command)
	walk = func(path string, english, japanese []*cli.Command) {
		for i, c := range english {
			look(path+" "+c.Name, c.Flags, japanese[i].Flags)
			walk(path+" "+c.Name, c.Subcommands, japanese[i].Subcommands)
		}
	}
	english := testProgram(msg.English, new(bytes.Buffer)).cli()
	look("freearea", english.Flags, japanese.Flags)
	walk("freearea", english.Commands, japanese.Commands)
}

func TestClosest(t *testing.T) {
	names := []string{"issue", "withdraw", "read", "list", "--consent"}
	for given, want := range map[string]string{
		"isue": "issue", "issuse": "issue", "raed": "read", "lsit": "list", "--consnet": "--consent",
		"frobnicate": "", "x": "", "": "", "発行": "",
	} {
		if got := closest(given, names); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	removed := fmt.Errorf("step load failed: %w", iso7816.ErrCardRemoved)
	closed := errors.New("close card.img: disk full")
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{"one", removed, []string{
			"freearea: error: step load failed: card removed",
			"freearea: hint: put the card back and run the command again: it goes on where it stopped",
		}},
		{"what failed first comes first, closing afterwards", errors.Join(errors.Join(removed, nil), closed), []string{
			"freearea: error: step load failed: card removed",
			"freearea: hint: put the card back and run the command again: it goes on where it stopped",
			"freearea: error: close card.img: disk full",
		}},
		{"a hint once", errors.Join(removed, removed), []string{
			"freearea: error: step load failed: card removed",
			"freearea: hint: put the card back and run the command again: it goes on where it stopped",
			"freearea: error: step load failed: card removed",
		}},
		{"joined errors inside of one stay one line", fmt.Errorf("run 7: %w", errors.Join(removed, closed)), []string{
			"freearea: error: run 7: step load failed: card removed; close card.img: disk full",
			"freearea: hint: put the card back and run the command again: it goes on where it stopped",
		}},
		{"own words", &spoken{text: msg.Of("%s is gone", "%s がありません"), args: []any{"x"}, hint: msg.Of("look", "探す"), cause: fs.ErrNotExist}, []string{
			"freearea: error: x is gone: file does not exist", "freearea: hint: look",
		}},
		{"own words, hint of the cause", &spoken{text: msg.Of("here", "ここ"), cause: file.ErrPassphrase}, []string{
			"freearea: error: here: wrong passphrase", "freearea: hint: try again; nothing was changed",
		}},
		{"nearest cause first", fmt.Errorf("%w: %w", ledger.ErrDamaged, fs.ErrNotExist), []string{
			"freearea: error: ledger is damaged: file does not exist",
			"freearea: hint: restore it from a backup; do not issue until then, or IDs may be given out twice",
		}},
	} {
		var out bytes.Buffer
		testProgram(msg.English, &out).report(c.err)
		if diff := cmp.Diff(strings.Join(c.want, "\n")+"\n", out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	var out bytes.Buffer
	testProgram(msg.Japanese, &out).report(removed)
	want := "freearea: エラー: カードが外されました (step load failed: card removed)\n" +
		"freearea: ヒント: カードを置き直して、もう一度実行してください。続きから再開します\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// TestKnownErrors: each coded error is looked up once, and says what to do.
func TestKnownErrors(t *testing.T) {
	for i, k := range known {
		if k.summary.JA == "" || k.hint.EN == "" || k.hint.JA == "" {
			t.Errorf("%v: a Japanese summary and a hint in both languages are needed", k.code)
		}
		for _, before := range known[:i] {
			if errors.Is(k.code, before.code) {
				t.Errorf("%v is never found: %v stands before it", k.code, before.code)
			}
		}
	}
}

func TestSiteFile(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "site.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s, err := loadSite(write(`
card         = "pcsc:"
card_profile = "emulated"
keystore     = "secret/site.keys"
ledger       = "/var/lib/site.ledger"
operator     = "clerk-7"
counter      = "window-2"
language     = "ja"
[keys]
security_domain = "cards"
counter         = "window"
`))
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "secret/site.keys"); s.Keystore != want {
		t.Errorf("keystore %s, want %s: relative to the site file", s.Keystore, want)
	}
	if s.Ledger != "/var/lib/site.ledger" || s.Card != "pcsc:" || s.CardProfile != "emulated" || s.Operator != "clerk-7" ||
		s.Counter != "window-2" || s.Language != "ja" || s.Keys.SecurityDomain != "cards" || s.Keys.Counter != "window" {
		t.Errorf("read %+v", s)
	}
	if s.Keys.Ledger != "ledger" || s.Keys.Diversification != "none" {
		t.Errorf("what the file leaves out has its default: %+v", s.Keys)
	}
	for _, c := range []struct{ text, want string }{
		{"keystor = \"x\"", `unknown key "keystor"`},
		{"[keys]\nreader = \"x\"", `unknown key "keys.reader"`},
		{"operator = \"a\"\ncounter = b", "site.toml:2: "},
		{"operator = 7", "site.toml"},
		{"[keys]\ndiversification = \"homemade\"", "keys.diversification: "},
	} {
		if _, err := loadSite(write(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := loadSite(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is named must be there: %v", err)
	}
	t.Chdir(t.TempDir())
	if s, err := loadSite(""); err != nil || s.Keystore != "freearea.keys" || s.Ledger != "freearea.ledger" {
		t.Errorf("without a file: %+v, %v", s, err)
	}
}

func TestTable(t *testing.T) {
	var w table
	w.row("name", "種類", "end")
	w.row("カード", "a", "")
	w.row("x", "読取鍵", "z")
	var out bytes.Buffer
	if err := w.write(&out, "  "); err != nil {
		t.Fatal(err)
	}
	want := "  name    種類    end\n" +
		"  カード  a\n" +
		"  x       読取鍵  z\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	testProgram(msg.English, &out).report(fmt.Errorf("wait for a card: %w", ctx.Err()))
	if want := "freearea: hint: run the command again: it goes on where it stopped\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("%q, want %q at the end", out.String(), want)
	}
}

// An image whose base applications are of another version is refused in words,
// by whatever opens it.
func TestImageOfAnotherVersion(t *testing.T) {
	ctx := t.Context()
	key := func(first byte) keys.Key {
		k, err := keys.NewKey(bytes.Repeat([]byte{first}, 16))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	set := keys.Set{Version: 1, ENC: key(1), MAC: key(2), DEK: key(3)}
	profile, err := emulator.LookupProfile("contactless")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "card.img")
	card, err := emulator.Create(image, emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: set, Linker: jcvm.Linker{}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := capfile.Parse(applets.BaseLoadFile())
	if err != nil {
		t.Fatal(err)
	}
	block := f.LoadFileDataBlock()
	block[10]++ // in the Header component, which comes first: the package's minor version
	if f, err = capfile.ParseLoadFileDataBlock(block); err != nil {
		t.Fatal(err)
	}
	plain := iso7816.Plain(card)
	if _, err := iso7816.Do(ctx, plain, iso7816.Select(emulator.IssuerSecurityDomain)); err != nil {
		t.Fatal(err)
	}
	sd, err := scp.Open(ctx, plain, set, scp.HostOptions{Level: scp.CMAC})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := globalplatform.Load(ctx, sd, f, globalplatform.LoadOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := card.Close(); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(ctx)
	end() // or emulate would wait for a reader where it should refuse
	for _, args := range [][]string{{"card", "show", "--card", "image:" + image}, {"emulate", image, "--listen", "127.0.0.1:0"}} {
		status, _, stderr := runContext(ended, nil, args...)
		if status != exitFailed || !strings.Contains(stderr, "load file F0465245454152454100") || !strings.Contains(stderr, "hint: make a new one with `freearea emulate new`") {
			t.Errorf("%s: status %d, %s", args, status, stderr)
		}
	}
	if f := testProgram(msg.English, new(bytes.Buffer)).checkImage(image); f.OK {
		t.Errorf("doctor finds %+v", f)
	}
}
