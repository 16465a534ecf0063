// Package app is the freearea command as a package, so that a vendor can
// build a binary of its own with application profiles of its own:
//
//	func main() {
//		os.Exit(app.Main(app.Options{Profiles: append(applets.Base(), mine.Profile{})}))
//	}
//
// The package reads flags and the site configuration, wires the other
// packages together and speaks to people; what it does stands in them.
package app

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	filesoncard "github.com/freearea/freearea/applets/files/oncard"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/staff"
)

// Version is the toolkit's version.
const Version = "0.1.0"

// Exit statuses of the command.
const (
	exitFailed = 1 // what was asked for was not done, or not wholly
	exitUsage  = 2 // the command line says something that does not exist
)

// Options is what a binary brings along. Zero values mean the process's own
// arguments, streams, clock and randomness, and the base applications.
type Options struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time
	Rand           io.Reader
	Profiles       applets.Profiles // application profiles by name
	Linker         oncard.Linker    // what emulated cards can execute
	// KeystoreCost is what guessing the passphrase of a new keystore costs;
	// zero is the default. A smaller one is for tests.
	KeystoreCost file.Cost
	// OperatorKeyWork is the same for operators' key files (staff.FileOptions).
	OperatorKeyWork int
}

// Linker returns what emulated cards execute unless [Options] say otherwise:
// the base applications and other load files by a Java Card virtual machine,
// and the file application. What has the base package's AID and is another load
// file is refused. A binary with applications of its own asks both, with
// [oncard.Linkers].
func Linker() oncard.Linker {
	return oncard.Linkers{
		oncard.Known{applets.BasePackage: applets.IsBaseLoadFile},
		filesoncard.Linker{},
		jcvm.Linker{Quirks: jcvm.Quirks{NoLeIsZero: true}}, // which the base applications' refusals of a missing Le need
	}
}

func (o Options) withDefaults() Options {
	if o.Args == nil {
		o.Args = os.Args
	}
	if o.Stdin == nil {
		o.Stdin = os.Stdin
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Profiles == nil {
		o.Profiles = applets.Base()
	}
	if o.Linker == nil {
		o.Linker = Linker()
	}
	return o
}

// Main runs the command and returns its exit status. An interrupt cancels
// what is under way; a second one ends the process at once.
func Main(o Options) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return Run(ctx, o)
}

// Run is Main with a context instead of signals.
func Run(ctx context.Context, o Options) int {
	o = o.withDefaults()
	p := &program{Options: o, lang: languageOf(o), out: &output{Writer: o.Stdout}}
	p.Stdout = p.out
	app := p.cli()
	var args []string
	args, p.command = arrange(app, o.Args)
	err := app.RunContext(ctx, args)
	if err == nil {
		err = p.out.err
	}
	if err == nil {
		return 0
	}
	p.report(err)
	if errors.As(err, new(*usageError)) {
		return exitUsage
	}
	return exitFailed
}

// languageOf decides the language before the command line is parsed, since
// help and usage errors have one too: --lang, then the locale. The site's
// choice joins in later, unless --lang was given.
func languageOf(o Options) msg.Lang {
	if l, ok := langFlag(o.Args); ok {
		return l
	}
	return msg.FromLocale(o.Getenv)
}

// output remembers what kept it from being written: what was asked for and did
// not come, such as on a full disk, is no success.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// program is one run of the command.
type program struct {
	Options
	lang msg.Lang
	out  *output // is Stdout
	site site
	// operator and colleague have signed in, once they are asked for.
	operator, colleague *staff.Key
	// command is what the arguments ask for; without Name, nothing yet.
	command chosen
	answers *bufio.Reader // of people, from standard input
	// appletTrace is where an emulated card writes, with --trace-applet.
	appletTrace *appletTrace
}

// printf writes a line for people to standard output.
func (p *program) printf(t msg.Text, args ...any) {
	fmt.Fprintln(p.Stdout, p.lang.T(t, args...))
}

// notef writes a line for people to standard error, beside the result.
func (p *program) notef(t msg.Text, args ...any) {
	fmt.Fprintln(p.Stderr, p.lang.T(t, args...))
}

func (p *program) cli() *cli.App {
	t := p.lang.T
	app := &cli.App{
		Name:    "freearea",
		Version: version(),
		Usage: t(msg.Of(
			"applications in the free area of the Individual Number Card: issue them, read them, emulate the card",
			"個人番号カードの空き領域アプリケーションの発行・読み取り・カードエミュレーション")),
		HideHelpCommand:        true,
		EnableBashCompletion:   true,
		Suggest:                true,
		Reader:                 p.Stdin,
		Writer:                 p.Stdout,
		ErrWriter:              p.Stderr,
		ExitErrHandler:         func(*cli.Context, error) {},
		OnUsageError:           p.onUsageError,
		UseShortOptionHandling: false,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "site", Usage: t(msg.Of("site configuration `FILE` (freearea.toml in the working directory)", "サイト設定 `FILE`(既定:作業ディレクトリの freearea.toml)"))},
			&cli.StringFlag{Name: "lang", Usage: t(msg.Of("language of messages, `ja` or en (the system's locale)", "メッセージの言語 `ja` または en(既定:システムのロケール)"))},
			&cli.StringFlag{Name: "keystore", Usage: t(msg.Of("keystore `FILE`, or pkcs11: and the URI of a token", "鍵ストア `FILE`、または pkcs11: で始まるトークンのURI"))},
			&cli.StringFlag{Name: "ledger", Usage: t(msg.Of("ledger `FILE`", "台帳 `FILE`"))},
			&cli.StringFlag{Name: "passphrase-file", Usage: t(msg.Of("read the keystore's passphrase, or the token's PIN, from `FILE`", "鍵ストアのパスフレーズまたはトークンのPINを `FILE` から読む"))},
			&cli.IntFlag{Name: "passphrase-fd", Value: -1, Usage: t(msg.Of("read the keystore's passphrase, or the token's PIN, from the file descriptor `N`", "鍵ストアのパスフレーズまたはトークンのPINをファイル記述子 `N` から読む"))},
			&cli.BoolFlag{Name: "final-try", Usage: t(msg.Of("use the token's last try for its PIN", "トークンのPINの最後の1回を使う"))},
			&cli.StringFlag{Name: "operator-key", Usage: t(msg.Of("`FILE` with the signing key of the operator", "担当者の署名鍵の `FILE`"))},
			&cli.StringFlag{Name: "operator-passphrase-file", Usage: t(msg.Of("read the passphrase of the operator's key from `FILE`", "担当者の鍵のパスフレーズを `FILE` から読む"))},
			&cli.StringFlag{Name: "second", Usage: t(msg.Of("`FILE` with the signing key of the second operator, for what two do together", "2人で行う操作のための、もう1人の担当者の署名鍵 `FILE`"))},
			&cli.StringFlag{Name: "second-passphrase-file", Usage: t(msg.Of("read the passphrase of the second operator's key from `FILE`", "もう1人の担当者の鍵のパスフレーズを `FILE` から読む"))},
		}, p.traceFlags()...),
		Before: p.before,
		Commands: []*cli.Command{
			p.issueCommand(),
			p.issueBatchCommand(),
			p.updateCommand(),
			p.suspendCommand(),
			p.resumeCommand(),
			p.withdrawCommand(),
			p.reissueCommand(),
			p.rekeyCommand(),
			p.pinCommand(),
			p.readCommand(),
			p.readerdCommand(),
			p.listCommand(),
			p.consentCommand(),
			p.handoverCommand(),
			p.tokenCommand(),
			p.operatorCommand(),

			p.staffCommand(),
			p.ledgerCommand(),
			p.manifestCommand(),
			p.keysCommand(),
			p.slotsCommand(),
			p.cardCommand(),
			p.capCommand(),
			p.doctorCommand(),
			p.emulateCommand(),
			p.demoCommand(),
			p.manCommand(),
		},
	}
	app.Action = func(c *cli.Context) error {
		if c.Args().Present() {
			return p.unknownCommand(c)
		}
		return cli.ShowAppHelp(c)
	}
	settle(app.Flags)
	p.settle(app.Commands)
	return app
}

// settle gives every command what the library does not hand down: how wrong
// flags are answered, and no hidden command "help", which would take a key or
// a file of that name for itself.
func (p *program) settle(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = p.onUsageError
		c.HideHelpCommand = true
		settle(c.Flags)
		p.settle(c.Subcommands)
	}
}

// settle keeps zero values out of the help: what happens without a flag is
// told in its text.
func settle(flags []cli.Flag) {
	for _, f := range flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true
		}
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return Version + " (" + s.Value[:min(12, len(s.Value))] + ")"
			}
		}
	}
	return Version
}

// before reads the site configuration; flags win over it.
func (p *program) before(c *cli.Context) error {
	s, err := loadSite(c.String("site"))
	if err != nil {
		return err
	}
	if c.IsSet("keystore") {
		s.Keystore = c.String("keystore")
	}
	if c.IsSet("ledger") {
		s.Ledger = c.String("ledger")
	}
	if c.IsSet("operator-key") {
		s.OperatorKey = c.String("operator-key")
	}
	if c.IsSet("operator-passphrase-file") {
		s.OperatorPassphraseFile = c.String("operator-passphrase-file")
	}
	p.site = s
	switch {
	case c.IsSet("lang"):
		if _, ok := msg.Parse(c.String("lang")); !ok {
			return usagef(msg.Of("--lang %s: ja or en", "--lang %s: ja または en を指定してください"), c.String("lang"))
		}
	case s.Language != "":
		l, ok := msg.Parse(s.Language)
		if !ok {
			return fmt.Errorf("%s: language %q: ja or en", s.path, s.Language)
		}
		p.lang = l
	}
	if err := p.traceApplet(c); err != nil {
		return err
	}
	if s.Profiles == "" {
		return nil
	}
	own, err := manifest.LoadProfiles(s.Profiles, p.Profiles)
	p.Profiles = slices.Concat(p.Profiles, own)
	return err
}
