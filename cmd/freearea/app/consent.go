package app

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/staff"
)

func (p *program) consentCommand() *cli.Command {
	t := p.lang.T
	itemFlag := &cli.StringSliceFlag{Name: "item", Usage: t(msg.Of("an optional item that the holder agrees to, `NAME`; repeat for each", "本人が同意する任意項目 `NAME`(項目ごとに繰り返す)"))}
	return p.group(&cli.Command{
		Name:  "consent",
		Usage: t(msg.Of("what the holder was shown, asked and answered", "本人に示し、尋ね、答えを得た記録")),
		Subcommands: []*cli.Command{
			{
				Name:      "show",
				Usage:     t(msg.Of("print what the holder is to be shown", "本人に示す内容を出力する")),
				ArgsUsage: "MANIFEST",
				Flags: []cli.Flag{
					itemFlag,
					&cli.BoolFlag{Name: "html", Usage: t(msg.Of("a page to print, with room for a signature", "署名欄のある印刷用ページ"))},
				},
				Action: p.consentShow,
			},
			{
				Name:      "record",
				Usage:     t(msg.Of("record a consent that was given, signed by the counter's key", "得られた同意を窓口の鍵で署名して記録する")),
				ArgsUsage: "MANIFEST",
				Description: t(msg.Of(
					"The language is that of the messages (--lang): the holder was shown what `consent show` prints in it. On paper that is the printed page, on screen the text, which is shown once more before the question.",
					"言語はメッセージの言語(--lang)です。本人には、その言語で `consent show` が出力する内容を示したものとします。紙の場合は印刷用ページ、画面の場合はここで表示する文です。")),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "method", Usage: t(msg.Of("`METHOD`: paper or screen", "方法 `METHOD`: paper(書面)または screen(画面)"))},
					&cli.StringFlag{Name: "reference", Usage: t(msg.Of("paper: `WHERE` the form is filed", "書面の場合: 用紙の整理番号 `WHERE`"))},
					&cli.StringFlag{Name: "scan", Usage: t(msg.Of("paper: `FILE` with the scan; its SHA-256 is recorded", "書面の場合: スキャン `FILE`(SHA-256 を記録)"))},
					itemFlag,
					&cli.StringFlag{Name: "holder", Usage: t(msg.Of("a `REFERENCE` of your own to the holder; never a name", "利用者を指す独自の番号 `REFERENCE`(氏名は不可)"))},
					&cli.StringFlag{Name: "out", Usage: t(msg.Of("`FILE` to write the signed record to", "署名済み記録の出力 `FILE`"))},
				},
				Action: p.consentRecord,
			},
			{
				Name:      "verify",
				Usage:     t(msg.Of("check a record: signature, ledger, and against a manifest if named", "記録を検証する: 署名、台帳、指定があればマニフェスト")),
				ArgsUsage: "FILE [MANIFEST]",
				Flags:     []cli.Flag{itemFlag},
				Action:    p.consentVerify,
			},
			{
				Name:      "withdraw",
				Usage:     t(msg.Of("record that the holder takes a consent back", "同意の撤回を記録する")),
				ArgsUsage: "FILE",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "out", Usage: t(msg.Of("`FILE` to write the signed withdrawal to", "署名済み撤回記録の出力 `FILE`"))},
				},
				Action: p.consentWithdraw,
			},
		},
	})
}

// agreedItems are the items that every holder of the service agrees to, and
// the optional ones that this holder chose.
func agreedItems(c *cli.Context, m *manifest.Manifest) []string {
	items, _ := m.ItemNames()
	for _, name := range c.StringSlice("item") {
		if !slices.Contains(items, name) {
			items = append(items, name)
		}
	}
	return items
}

func (p *program) consentShow(c *cli.Context) error {
	path, err := oneArgument(c, "MANIFEST")
	if err != nil {
		return err
	}
	m, err := p.loadManifest(path)
	if err != nil {
		return err
	}
	format := consent.Text
	if c.Bool("html") {
		format = consent.HTML
	}
	page, err := consent.Render(m, string(p.lang), agreedItems(c, m), format)
	if err != nil {
		return err
	}
	_, err = p.Stdout.Write(page)
	return err
}

func (p *program) consentRecord(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "MANIFEST")
	if err != nil {
		return err
	}
	if err := required(c, "method", "out"); err != nil {
		return err
	}
	m, err := p.loadManifest(path)
	if err != nil {
		return err
	}
	o := consent.Options{
		Language: string(p.lang), Items: agreedItems(c, m), Method: consent.Method(c.String("method")),
		Given: p.Now(), Holder: c.String("holder"), Rand: p.Rand,
	}
	if !slices.Contains([]consent.Method{consent.Paper, consent.Screen}, o.Method) {
		return usagef(msg.Of("--method %s: paper or screen", "--method %s: paper または screen を指定してください"), c.String("method"))
	}
	// Refused before the holder is asked, not after.
	if !slices.Contains(m.Consent.Methods, string(o.Method)) {
		return fmt.Errorf("%s: %w: %s", path, consent.ErrMethod, o.Method)
	}
	if _, err := p.signIn(ctx, c); err != nil {
		return err
	}
	o.Asked = consent.Asked{Operator: p.site.Operator, Counter: p.site.Counter}
	switch o.Method {
	case consent.Paper:
		o.Format = consent.HTML
		form, err := readForm(c)
		if err != nil {
			return err
		}
		o.Paper = form
	case consent.Screen:
		o.Format = consent.Text
		if err := p.askHolder(m, o); err != nil {
			return err
		}
	}
	record, err := consent.New(m, o)
	if err != nil {
		return err
	}
	office, err := p.openOffice(ctx, c, staff.Consents)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	signed, err := consent.Sign(ctx, office.keys, keys.Ref{Name: p.site.Keys.Counter}, record)
	if err != nil {
		return err
	}
	// The file first: a consent in the ledger whose file could not be written
	// would be in the way of recording it again.
	if err := writeNew(c.String("out"), signed.Encode()); err != nil {
		return err
	}
	pr := &provisioner.Provisioner{Ledger: office.ledger, Actor: p.actor()}
	if err := pr.RecordConsent(ctx, signed); err != nil {
		return errors.Join(err, os.Remove(c.String("out")))
	}
	p.printf(msg.Of("recorded: consent %s to %s, good for issuing until %s", "記録しました: 同意 %s(%s)、発行できる期限 %s"),
		record.ID, record.Service, record.Until.In(japan).Format(time.DateTime))
	return nil
}

// readForm takes the digest of the scanned form.
func readForm(c *cli.Context) (*consent.Form, error) {
	if c.String("reference") == "" || c.String("scan") == "" {
		return nil, usagef(msg.Of("--method paper needs --reference and --scan", "--method paper には --reference と --scan が必要です"))
	}
	f, err := os.Open(c.String("scan"))
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	return &consent.Form{Reference: c.String("reference"), Scan: consent.Hash(h.Sum(nil))}, nil
}

// askHolder shows the text on the screen and takes the answer.
func (p *program) askHolder(m *manifest.Manifest, o consent.Options) error {
	page, err := consent.Render(m, o.Language, o.Items, o.Format)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "%s\n%s", page, p.lang.T(msg.Of("Do you agree? Type \"yes\": ", "同意しますか。「はい」と入力してください: ")))
	if p.answers == nil {
		p.answers = bufio.NewReader(p.Stdin) // one for all questions: it reads ahead
	}
	line, err := p.answers.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.TrimSpace(line) {
	case "yes", "はい":
		return nil
	}
	return &spoken{text: msg.Of("the holder did not agree", "本人の同意が得られませんでした"),
		hint: msg.Of("nothing was recorded, and nothing may be issued", "何も記録していません。発行はできません")}
}

// writeNew writes a file that must not exist yet, durably.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (p *program) consentVerify(c *cli.Context) (err error) {
	ctx := c.Context
	if c.NArg() < 1 || c.NArg() > 2 {
		return usagef(msg.Of("verify takes FILE and perhaps MANIFEST", "verify には FILE と、必要なら MANIFEST を指定してください"))
	}
	signed, err := readConsent(c.Args().First())
	if err != nil {
		return err
	}
	office, err := p.openReading(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	public, err := office.keys.PublicKey(ctx, signed.Key.Ref())
	if err != nil {
		return fmt.Errorf("key %q that signed the consent: %w", signed.Key.Name, err)
	}
	if err := signed.Verify(public); err != nil {
		return fmt.Errorf("%s: %w", c.Args().First(), err)
	}
	state, err := office.ledger.Consent(ctx, signed.Record.ID)
	if err != nil {
		return err
	}
	if !state.Withdrawn.IsZero() {
		return fmt.Errorf("%s: %w: on %s", c.Args().First(), consent.ErrWithdrawn, state.Withdrawn.Format(time.RFC3339))
	}
	if c.NArg() == 2 {
		m, err := p.loadIssued(c.Args().Get(1))
		if err != nil {
			return err
		}
		items := signed.Record.Items
		if c.IsSet("item") {
			items = agreedItems(c, m)
		}
		if err := signed.Covers(public, m, items, p.Now()); err != nil {
			return about(c.Args().First(), err)
		}
	}
	r := signed.Record
	var w table
	row := func(t msg.Text, v string) { w.row(p.lang.T(t), v) }
	row(msg.Of("consent", "同意"), r.ID)
	row(msg.Of("service", "サービス"), r.Service)
	row(msg.Of("given", "同意日時"), r.Given.In(japan).Format(time.DateTime))
	row(msg.Of("for issuing until", "発行できる期限"), r.Until.In(japan).Format(time.DateTime))
	row(msg.Of("items", "項目"), strings.Join(r.Items, ", "))
	row(msg.Of("method", "方法"), string(r.Method))
	row(msg.Of("asked by", "窓口"), r.Asked.Operator+", "+r.Asked.Counter)
	row(msg.Of("signature", "署名"), p.lang.T(msg.Of("verified, key %s version %d", "検証済み(鍵 %s バージョン %d)"), signed.Key.Name, signed.Key.Version))
	return w.write(p.Stdout, "")
}

func (p *program) consentWithdraw(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	signed, err := readConsent(path)
	if err != nil {
		return err
	}
	office, err := p.openOffice(ctx, c, staff.Consents)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	id, service := signed.Record.ID, signed.Record.Service
	known, err := office.ledger.Consent(ctx, id)
	if err != nil {
		return err
	}
	if !known.Withdrawn.IsZero() {
		p.printf(msg.Of("nothing to do: consent %s was taken back on %s", "変更なし: 同意 %s は %s に撤回済みです"), id, known.Withdrawn.In(japan).Format(time.DateOnly))
		return nil
	}
	issues, err := office.ledger.IssuesOf(ctx, service, "", id)
	if err != nil {
		return err
	}
	w, err := consent.NewWithdrawal(signed, consent.Asked{Operator: p.site.Operator, Counter: p.site.Counter}, p.Now())
	if err != nil {
		return err
	}
	back, err := consent.SignWithdrawal(ctx, office.keys, keys.Ref{Name: p.site.Keys.Counter}, w)
	if err != nil {
		return err
	}
	if out := c.String("out"); out != "" {
		if err := writeNew(out, back.Encode()); err != nil {
			return err
		}
	}
	pr := &provisioner.Provisioner{Ledger: office.ledger, Actor: p.actor()}
	revoked, err := pr.Revoke(ctx, issues, back, "")
	switch {
	case err != nil:
		return err
	case revoked == 0:
		p.printf(msg.Of("withdrawn: consent %s; no card holds %s under it", "撤回を記録しました: 同意 %s。この同意による %s のカードはありません"), id, service)
	default:
		p.printf(msg.Of("withdrawn: consent %s, and its ID is good no more; now erase %s from the card with `freearea withdraw`", "撤回を記録し、IDを失効させました: 同意 %s。続いて `freearea withdraw` でカードの %s を消去してください"), id, service)
	}
	return nil
}
