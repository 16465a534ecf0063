package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/staff"
)

// japan is where dates on cards and in manifests are meant.
var japan = time.FixedZone("JST", 9*60*60)

// reporting is what was done to one card as --json prints it; docs/json.md
// describes the fields.
type reporting struct {
	V           int      `json:"v"`
	Type        string   `json:"type"` // "issue", "update", "withdraw" and so on
	Service     string   `json:"service"`
	Instance    string   `json:"instance"`
	DryRun      bool     `json:"dry_run"`
	NothingToDo bool     `json:"nothing_to_do"`
	Steps       []string `json:"steps"` // planned, or done
	Run         *string  `json:"run"`
	ID          *string  `json:"id"`
	IssueNumber uint16   `json:"issue_number"`
	Expiry      *string  `json:"expiry"`
	KeyVersion  byte     `json:"key_version"`
	Wiped       []string `json:"wiped"`   // revoked services that were erased on the way
	Pending     []string `json:"pending"` // and those that are still to be
	// KeptUntil is the last day of the older read key beside it.
	KeptUntil *string `json:"kept_until"`
}

func (p *program) issueCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "issue",
		Usage:     t(msg.Of("put a service's application on a card, with the holder's consent", "同意に基づき、サービスのアプリケーションをカードに発行する")),
		ArgsUsage: "MANIFEST",
		Flags: []cli.Flag{
			p.cardFlag(),
			p.cutFlag(),
			&cli.StringFlag{Name: "consent", Usage: t(msg.Of("signed consent `FILE`, as `consent record` wrote it", "署名済み同意の `FILE`(`consent record` が書いたもの)"))},
			&cli.StringFlag{Name: "id", Usage: t(msg.Of("the holder's `ID`, where the service's IDs are given", "IDが外部から与えられるサービスでの利用者 `ID`"))},
			p.itemFlag(),
			&cli.StringFlag{Name: "pin-file", Usage: t(msg.Of("read the PIN from `FILE` instead of asking", "PINを `FILE` から読む(既定:画面で尋ねる)"))},
			p.cardExpiryFlag(),
			p.tokensFlag(),
			p.dryRunFlag(),
			p.reasonFlag(),
			p.retryFlag(),
			p.jsonFlag(),
		},
		Action: p.issue,
	}
}

func (p *program) itemFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "item", Usage: p.lang.T(msg.Of(
		"a further item, `NAME=VALUE`; repeat for each", "追加項目 `NAME=VALUE`(項目ごとに繰り返す)"))}
}

func (p *program) cardExpiryFlag() cli.Flag {
	return &cli.StringFlag{Name: "card-expiry", Usage: p.lang.T(msg.Of(
		"expiry `DATE` printed on the card, YYYY-MM-DD", "カード券面の有効期限 `DATE`(YYYY-MM-DD)"))}
}

func (p *program) dryRunFlag() cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Usage: p.lang.T(msg.Of("show the plan and stop", "計画を表示して終了する"))}
}

func (p *program) reasonFlag() cli.Flag {
	return &cli.StringFlag{Name: "reason", Usage: p.lang.T(msg.Of("`TEXT` for the ledger", "台帳に残す理由 `TEXT`"))}
}

func (p *program) retryFlag() cli.Flag {
	return &cli.BoolFlag{Name: "retry-after-failures", Usage: p.lang.T(msg.Of(
		"authenticate once more to a card that has refused before", "認証に失敗したことのあるカードで、もう一度だけ認証を試みる"))}
}

func (p *program) jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: p.lang.T(msg.Of("print JSON (docs/json.md)", "JSONで出力する(docs/json.md)"))}
}

// oneArgument returns the command's only argument.
func oneArgument(c *cli.Context, name string) (string, error) {
	if c.NArg() != 1 {
		return "", usagef(msg.Of("%s takes exactly one %s; %d given", "%s には %s を1つだけ指定してください(%d 個あります)"),
			c.Command.HelpName, name, c.NArg())
	}
	return c.Args().First(), nil
}

// noArguments is for commands that take flags only.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usagef(msg.Of("%s takes no arguments, but there is %q", "%s に引数は要りませんが、%q があります"),
			c.Command.HelpName, c.Args().First())
	}
	return nil
}

func (p *program) issue(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "MANIFEST")
	if err != nil {
		return err
	}
	m, err := p.loadManifest(path)
	if err != nil {
		return err
	}
	if c.String("consent") == "" {
		return &spoken{
			text: msg.Of("no consent is given", "同意記録が指定されていません"),
			hint: msg.Of("record the holder's consent first with `freearea consent record`, then name the file with --consent",
				"先に `freearea consent record` で本人の同意を記録し、そのファイルを --consent で指定してください")}
	}
	signed, err := readConsent(c.String("consent"))
	if err != nil {
		return err
	}
	request := provisioner.Request{Manifest: m, Consent: signed, Now: p.Now().In(japan), Reason: c.String("reason")}
	if request.CardExpiry, err = dateFlag(c, "card-expiry"); err != nil {
		return err
	}
	if request.Subject, err = p.subject(c, m); err != nil {
		return err
	}
	// Before the consent is held against it: an item that was forgotten is
	// not an item that the holder did not agree to.
	if err := m.CheckSubject(request.Subject); err != nil {
		return err
	}
	if request.LoadFile, err = m.OpenLoadFile(); err != nil {
		return err
	}
	office, err := p.openOffice(ctx, c, staff.Cards)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	if request.CounterKey, err = office.keys.PublicKey(ctx, keys.Ref{Name: signed.Key.Name, Version: signed.Key.Version}); err != nil {
		return fmt.Errorf("key %q that signed the consent: %w", signed.Key.Name, err)
	}
	if err := signed.Covers(request.CounterKey, m, m.SubjectItems(request.Subject), request.Now); err != nil {
		return about(c.String("consent"), err)
	}
	pr, err := p.provisioner(c, office)
	if err != nil {
		return err
	}
	// Everything that can be refused is refused before the card is used.
	desired, err := pr.Desire(ctx, request)
	if err != nil {
		return err
	}
	return p.reconcile(c, pr, job{manifest: m, plan: func(s *provisioner.Session) (*provisioner.Plan, error) { return pr.PlanIssue(ctx, s, desired) }})
}

// dateFlag is the day that a flag names; zero without it.
func dateFlag(c *cli.Context, name string) (day time.Time, err error) {
	if s := c.String(name); s != "" {
		if day, err = time.ParseInLocation(time.DateOnly, s, japan); err != nil {
			return day, usagef(msg.Of("--%s %s: a date like 2030-03-31 is expected", "--%s %s: 2030-03-31 のような日付を指定してください"), name, s)
		}
	}
	return day, nil
}

// provisioner wires one for the site's counter; the card comes later.
func (p *program) provisioner(c *cli.Context, o *office) (*provisioner.Provisioner, error) {
	profile, err := globalplatform.LookupCardProfile(p.site.CardProfile)
	if err != nil {
		return nil, err
	}
	pr := &provisioner.Provisioner{
		CardProfile:        profile,
		Profiles:           p.Profiles,
		Keys:               o.keys,
		SecurityDomainKey:  keys.Ref{Name: p.site.Keys.SecurityDomain},
		Diversification:    p.site.Keys.Diversification,
		LedgerKey:          keys.Ref{Name: p.site.Keys.Ledger},
		Actor:              p.actor(),
		RetryAfterFailures: c.Bool("retry-after-failures"),
		Rand:               p.Rand,
		Home:               p.site.SecurityDomain,
		Failed: func(failed, limit int) {
			p.notef(msg.Of("freearea: warning: authentication to this card has failed %d times in a row; after %d the next has to be asked for",
				"freearea: 警告: このカードの認証は続けて %d 回失敗しています。%d 回に達すると、明示的な指定が必要になります"), failed, limit)
		},
	}
	for _, d := range p.site.Domains {
		pr.Domains = append(pr.Domains, provisioner.Domain{
			AID: d.AID, Key: keys.Ref{Name: d.Keys}, Diversification: d.Diversification, Manager: d.Manager,
		})
	}
	// A service provider need not have the issuer's keys.
	if len(pr.Domains) > 0 {
		entries, err := o.keys.Entries(c.Context)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(entries, func(e keys.Entry) bool {
			return e.Name == pr.SecurityDomainKey.Name && e.Retired.IsZero()
		}) {
			pr.SecurityDomainKey = keys.Ref{}
		}
	}
	if pr.Tokens, err = readTokens(c); err != nil {
		return nil, err
	}
	if name := p.site.Keys.Receipt; name != "" {
		key, err := o.keys.SchemeKey(c.Context, keys.Ref{Name: name}, keys.Receipt)
		if err != nil {
			return nil, fmt.Errorf("receipt key %q: %w", name, err)
		}
		if pr.Receipts, err = globalplatform.VerifierOf(key); err != nil {
			return nil, fmt.Errorf("receipt key %q: %w", name, err)
		}
	}
	if o.ledger != nil {
		pr.Ledger = o.ledger
	}
	return pr, nil
}

// job is what a command does with one card.
type job struct {
	manifest *manifest.Manifest
	look     func(iso7816.Card) error // before the counter connects; may be nil
	plan     func(*provisioner.Session) (*provisioner.Plan, error)
	// before is done once it is to be carried out, and more tells that it has
	// something to do, beside the plan. Where the run fails then, recorded says
	// what of the service is done all the same. All may be missing.
	before   func() error
	more     func() bool
	recorded msg.Text
}

// reconcile opens the card, wipes from it what was revoked without it, shows
// the plan, carries it out and says what came of it.
func (p *program) reconcile(c *cli.Context, pr *provisioner.Provisioner, do job) (err error) {
	ctx := c.Context
	card, closeCard, err := p.openCard(ctx, c, iso7816.Exclusive)
	if err != nil {
		return err
	}
	defer closing(&err, closeCard)
	if do.look != nil {
		if err := do.look(card); err != nil {
			return err
		}
	}
	pr.Card = card
	session, err := pr.Connect(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	wiped, pending, err := p.wipePending(c, pr, session, map[string]*manifest.Manifest{do.manifest.ID: do.manifest})
	if err != nil {
		return err
	}
	todo, err := do.plan(session)
	if err != nil {
		return err
	}
	more := do.more != nil && do.more()
	out := reporting{
		V: 1, Type: todo.Purpose, Service: todo.Service, Instance: todo.Instance.String(),
		NothingToDo: todo.NothingToDo() && !more, DryRun: c.Bool("dry-run"), Steps: []string{}, Wiped: wiped, Pending: pending,
	}
	for _, s := range todo.Steps {
		out.Steps = append(out.Steps, string(s.Name))
	}
	if !c.Bool("json") {
		p.showPlan(todo)
	}
	unchanged := msg.Of("nothing to do: the card holds what is wanted", "変更なし: カードは既に求める状態です")
	if todo.Purpose == provisioner.Withdraw {
		unchanged = msg.Of("nothing to do: the card does not hold the service any more", "変更なし: サービスは既にカードから消去されています")
	}
	if out.DryRun {
		switch {
		case c.Bool("json"):
			return p.printJSON(c, out)
		case out.NothingToDo:
			p.printf(unchanged)
		case more:
			p.printf(wouldTakeBack, todo.Service)
		}
		return nil
	}
	if more {
		if err := do.before(); err != nil {
			return err
		}
	}
	done := p.progress(c, pr)
	result, err := pr.Run(ctx, session, todo)
	done()
	if err != nil {
		if more {
			p.notef(do.recorded, todo.Service)
		}
		p.noteErased(todo, err)
		return err
	}
	out.ID, out.IssueNumber, out.KeyVersion = orNull(result.ID), result.IssueNumber, result.KeyVersion
	if !todo.NothingToDo() {
		out.Run = orNull(result.Run)
	}
	if !result.Expiry.IsZero() {
		out.Expiry = orNull(result.Expiry.Format(time.DateOnly))
	}
	kept, keeps, err := pr.Ledger.KeptKey(ctx, todo.Service, session.CardRef)
	if err != nil {
		return err
	}
	if keeps {
		out.KeptUntil = orNull(kept.Until)
	}
	if c.Bool("json") {
		return p.printJSON(c, out)
	}
	switch {
	case out.NothingToDo:
		p.printf(unchanged)
	case todo.NothingToDo():
		p.printf(tookBack, todo.Service)
	default:
		p.sayDone(todo.Purpose, todo.Service, result)
	}
	if keeps && todo.Purpose == provisioner.RekeyRun {
		p.printf(msg.Of("version %d stays on the card beside it until %s; after that `freearea rekey` takes it off", "バージョン %d の鍵も %s までカードに残ります。その後の `freearea rekey` で取り除きます"), kept.KeyVersion, kept.Until)
	}
	return nil
}

// noteErased says of a withdrawal that came to no end that the content is gone
// all the same, where it is.
func (p *program) noteErased(todo *provisioner.Plan, err error) {
	var stopped *provisioner.RunError
	if todo.Purpose == provisioner.Withdraw && errors.As(err, &stopped) && slices.Contains(stopped.Done, provisioner.StepWipe) {
		p.notef(msg.Of("freearea: note: what %s held is erased from the card already; what is left is to delete the empty application",
			"freearea: お知らせ: %s の内容は既にカードから消去しました。空のアプリケーションの削除が残っています"), todo.Service)
	}
}

// sayDone says what a run has led to.
func (p *program) sayDone(purpose, service string, result *provisioner.Result) {
	switch purpose {
	case provisioner.Withdraw:
		p.printf(msg.Of("withdrawn: %s is erased from the card", "取消完了: %s をカードから消去しました"), service)
		return
	case provisioner.Suspend:
		p.printf(msg.Of("suspended: %s answers no terminal until it is resumed", "停止完了: %s は再開するまで端末に応答しません"), service)
		return
	case provisioner.Resume:
		p.printf(msg.Of("resumed: %s answers again", "再開完了: %s は再び使えます"), service)
		return
	case provisioner.ResetPIN:
		p.printf(msg.Of("PIN reset: %s, ID %s", "暗証番号を再設定しました: %s、ID %s"), service, result.ID)
		return
	case provisioner.Update:
		p.printf(msg.Of("updated: %s, ID %s, issue number %d", "更新完了: %s、ID %s、発行番号 %d"), service, result.ID, result.IssueNumber)
	case provisioner.RekeyRun:
		p.printf(msg.Of("rekeyed: %s, ID %s, read key version %d", "鍵更新完了: %s、ID %s、読取鍵バージョン %d"), service, result.ID, result.KeyVersion)
	default:
		p.printf(msg.Of("issued: %s, ID %s, issue number %d", "発行完了: %s、ID %s、発行番号 %d"), service, result.ID, result.IssueNumber)
	}
	if !result.Expiry.IsZero() {
		p.printf(msg.Of("valid until %s", "有効期限 %s"), result.Expiry.Format(time.DateOnly))
	}
}

// printJSON prints v when --json is given.
func (p *program) printJSON(c *cli.Context, v any) error {
	if !c.Bool("json") {
		return nil
	}
	return json.NewEncoder(p.Stdout).Encode(v)
}

func (p *program) showPlan(plan *provisioner.Plan) {
	if len(plan.Steps) == 0 {
		return
	}
	p.printf(msg.Of("plan for %s (%s):", "%s(%s)の計画:"), plan.Service, plan.Instance)
	for i, s := range plan.Steps {
		p.printf(msg.Of("  %d. %s: %s, key set %q", "  %d. %s: %s、鍵セット %q"),
			i+1, p.lang.T(stepText(s.Name)), strings.Join(s.Commands, ", "), s.Key.Name)
	}
}

func stepText(n provisioner.StepName) msg.Text {
	switch n {
	case provisioner.StepLoad:
		return msg.Of("load the load file", "ロードファイルの書込み")
	case provisioner.StepInstall:
		return msg.Of("install the application", "アプリケーションの登録")
	case provisioner.StepExtradite:
		return msg.Of("give the application to its security domain", "アプリケーションをセキュリティドメインへ移管")
	case provisioner.StepTokenKey:
		return msg.Of("put the token key on the card", "トークン鍵の書込み")
	case provisioner.StepReceiptKey:
		return msg.Of("put the receipt key on the card", "受領証鍵の書込み")
	case provisioner.StepCreateDomain:
		return msg.Of("create the security domain", "セキュリティドメインの作成")
	case provisioner.StepDomainKeys:
		return msg.Of("give it its key set", "鍵セットの書込み")
	case provisioner.StepPersonalized:
		return msg.Of("have it prove the keys", "鍵の確認と状態の設定")
	case provisioner.StepExtraditeSelf:
		return msg.Of("place it in the hierarchy", "階層への配置")
	case provisioner.StepPersonalize:
		return msg.Of("write the content", "内容の書込み")
	case provisioner.StepVerify:
		return msg.Of("read back and compare", "読み戻して照合")
	case provisioner.StepLock:
		return msg.Of("lock the application", "アプリケーションの停止")
	case provisioner.StepUnlock:
		return msg.Of("unlock the application", "アプリケーションの停止解除")
	case provisioner.StepWipe:
		return msg.Of("erase the content", "内容の消去")
	case provisioner.StepDelete:
		return msg.Of("delete the application", "アプリケーションの削除")
	case provisioner.StepDeleteLoadFile:
		return msg.Of("delete the load file", "ロードファイルの削除")
	}
	return msg.Text{EN: string(n), JA: string(n)}
}

// progress draws a bar on a terminal, and nothing elsewhere. The result ends it.
func (p *program) progress(c *cli.Context, pr *provisioner.Provisioner) (done func()) {
	f, ok := p.Stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || c.Bool("json") {
		return func() {}
	}
	bars := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
	var bar *mpb.Bar
	step := 0
	pr.Progress = func(n provisioner.Progress) {
		if n.Step != step {
			if bar != nil {
				bar.SetTotal(-1, true)
			}
			step = n.Step
			name := p.lang.T(stepText(provisioner.StepName(n.Name)))
			bar = bars.AddBar(int64(n.Total), mpb.PrependDecorators(
				decor.Name(fmt.Sprintf("%d/%d %s ", n.Step, n.Steps, name)), decor.CountersNoUnit("%d/%d")))
		}
		bar.SetCurrent(int64(n.Commands))
	}
	return func() {
		if bar != nil && !bar.Completed() {
			bar.Abort(false)
		}
		bars.Wait()
	}
}

// subject gathers what is written for this holder.
func (p *program) subject(c *cli.Context, m *manifest.Manifest) (manifest.Subject, error) {
	s := manifest.Subject{ID: c.String("id")}
	var err error
	if s.Items, err = items(c); err != nil {
		return s, err
	}
	if s.ID != "" && m.IDScheme.Kind != manifest.IDGiven {
		return s, usagef(msg.Of("--id %s: the IDs of %s are drawn, not given", "--id %s: %s のIDは自動で決まるため指定できません"), s.ID, m.ID)
	}
	if m.PIN.Policy != manifest.PINRequired {
		return s, nil
	}
	pin, err := p.newPIN(c)
	if err != nil {
		return s, err
	}
	defer clear(pin)
	s.PIN = manifest.PINDigits(pin)
	return s, nil
}

// items are what --item says.
func items(c *cli.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range c.StringSlice("item") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usagef(msg.Of("--item %s: NAME=VALUE is expected", "--item %s: NAME=VALUE の形で指定してください"), name)
		}
		if _, twice := out[name]; twice {
			return nil, usagef(msg.Of("--item %s is given twice", "--item %s が2回指定されています"), name)
		}
		out[name] = value
	}
	return out, nil
}

// pinSource is where the flags say that a PIN comes from; without flags a
// person is asked.
func pinSource(c *cli.Context, flag string) passphrase.Source {
	s := passphrase.Source{File: c.String(flag + "-file")}
	if c.IsSet(flag + "-fd") {
		fd := c.Int(flag + "-fd")
		s.FD = &fd
	}
	return s
}

// newPIN reads the PIN that the holder chose, from a file or twice at the
// terminal without echo.
func (p *program) newPIN(c *cli.Context) ([]byte, error) {
	digits, err := pinSource(c, "pin").ReadNew(c.Context,
		p.lang.T(msg.Of("PIN chosen by the holder: ", "本人が決めた暗証番号: ")),
		p.lang.T(msg.Of("once more: ", "もう一度: ")))
	return digits, pinError(err)
}

func readConsent(path string) (*consent.Signed, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("consent: %w", err)
	}
	s, err := consent.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// pinError says of an error in getting a secret that the secret is the PIN.
func pinError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, passphrase.ErrNoTerminal):
		return &spoken{
			text: msg.Of("no terminal to ask for the PIN", "暗証番号の入力を求める端末がありません"),
			hint: msg.Of("use --pin-file", "--pin-file を使ってください")}
	case errors.Is(err, passphrase.ErrEmpty), errors.Is(err, passphrase.ErrTooLong):
		return &spoken{
			text: msg.Of("this is no PIN", "暗証番号の形式が正しくありません"),
			hint: msg.Of("a PIN is 4 to 12 digits; a file named with --pin-file has nothing else in it", "暗証番号は4〜12桁の数字です。--pin-file のファイルにはそれだけを書いてください"),
			code: err}
	case errors.Is(err, passphrase.ErrMismatch):
		return &spoken{
			text: msg.Of("the two PINs are not the same", "2回の暗証番号が一致しません"),
			hint: msg.Of("run the command again", "もう一度実行してください")}
	}
	return fmt.Errorf("PIN: %w", err)
}
