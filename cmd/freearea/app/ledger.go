package app

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/staff"
)

func (p *program) ledgerCommand() *cli.Command {
	t := p.lang.T
	key := &cli.StringFlag{Name: "key", Usage: t(msg.Of("`KEY` of the checkpoints as `freearea ledger key` prints it, or a file with every version of it, one a line", "チェックポイントの鍵 `KEY`、または各バージョンの鍵を1行ずつ書いたファイル(`freearea ledger key` の出力)"))}
	return p.group(&cli.Command{
		Name:  "ledger",
		Usage: t(msg.Of("the record of what was done: verify, prove, export, copy, erase", "業務記録の検証、証明、書き出し、複製、消去")),
		Subcommands: []*cli.Command{
			{
				Name:  "verify",
				Usage: t(msg.Of("check all events, signatures, hashes and checkpoints", "全イベント、署名、ハッシュ、チェックポイントを検証する")),
				Flags: []cli.Flag{
					&cli.StringSliceFlag{Name: "since", Usage: t(msg.Of("`FILE` with an earlier checkpoint that the ledger must agree with; repeat for each", "以前のチェックポイントの `FILE`(複数可)との整合も確認する"))},
					key, p.jsonFlag(),
				},
				Action: p.ledgerVerify,
			},
			{
				Name:   "key",
				Usage:  t(msg.Of("print the public key of the checkpoints, for auditors: every version, one a line", "監査用に、チェックポイントの公開鍵の全バージョンを1行ずつ表示する")),
				Action: p.ledgerKey,
			},
			{
				Name:   "checkpoint",
				Usage:  t(msg.Of("print the newest checkpoint, to be kept elsewhere", "別の場所で保管するための最新のチェックポイントを表示する")),
				Action: p.ledgerCheckpoint,
			},
			{
				Name:      "prove",
				Usage:     t(msg.Of("write a proof of an event that others can check without the ledger", "台帳なしで検証できる、イベントの証明を書き出す")),
				ArgsUsage: "NUMBER",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "out", Usage: t(msg.Of("`FILE` to write the proof to", "証明の出力 `FILE`"))},
					&cli.BoolFlag{Name: "with-values", Usage: t(msg.Of("show the personal data of the event in it", "イベントの個人データを含める"))},
				},
				Action: p.ledgerProve,
			},
			{
				Name:      "check-proof",
				Usage:     t(msg.Of("check a proof, without ledger and keystore", "台帳と鍵ストアなしで証明を検証する")),
				ArgsUsage: "FILE",
				Flags:     []cli.Flag{key, p.jsonFlag()},
				Action:    p.ledgerCheckProof,
			},
			{
				Name:  "export",
				Usage: t(msg.Of("write all events to standard output, for auditors", "監査用に全イベントを標準出力へ書き出す")),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "format", Value: "json", Usage: t(msg.Of("`FORMAT`: json or csv", "形式 `FORMAT`: json または csv"))},
				},
				Action: p.ledgerExport,
			},
			{
				Name:      "backup",
				Usage:     t(msg.Of("write a verified copy, also while the ledger is in use", "使用中でも、検証済みの複製を作る")),
				ArgsUsage: "FILE",
				Action:    p.ledgerBackup,
			},
			{
				Name:      "erase",
				Usage:     t(msg.Of("erase personal data after the manifest's time of keeping, or of a consent that was withdrawn", "マニフェストの保存期間の経過後、または撤回された同意の個人データを消去する")),
				ArgsUsage: "MANIFEST | --consent ID",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "consent", Usage: t(msg.Of("only the consent with this `ID`, which was withdrawn", "撤回された同意 `ID` のみ"))},
					&cli.BoolFlag{Name: "dry-run", Usage: t(msg.Of("list what would be erased and stop", "消去の対象を一覧して終了する"))},
					&cli.StringFlag{Name: "reason", Usage: t(msg.Of("`WHY`", "理由 `WHY`"))},
					p.jsonFlag(),
				},
				Action: p.ledgerErase,
			},
		},
	})
}

// verifierFlag reads --key: the key, or a file with its versions.
func verifierFlag(c *cli.Context) (note.Verifiers, error) {
	s := c.String("key")
	if v, err := note.NewVerifier(s); err == nil {
		return note.VerifierList(v), nil
	}
	data, err := readBounded(s)
	if err != nil {
		return nil, usagef(msg.Of("--key %s: no key of checkpoints, and no file", "--key %s: チェックポイントの鍵でもファイルでもありません"), s)
	}
	lines := strings.Fields(string(data)) // a key has no white space in it
	slices.Sort(lines)
	var list []note.Verifier
	for _, line := range slices.Compact(lines) {
		var v note.Verifier
		if v, err = note.NewVerifier(line); err != nil {
			break
		}
		list = append(list, v)
	}
	if err != nil || len(list) == 0 {
		return nil, &spoken{
			text: msg.Of("%s: no key of checkpoints", "%s: チェックポイントの鍵ではありません"), args: []any{s}, cause: err,
			hint: msg.Of("name a file with what `freearea ledger key` prints", "`freearea ledger key` の出力を保存したファイルを指定してください"),
		}
	}
	return note.VerifierList(list...), nil
}

// verification is what `ledger verify --json` prints.
type verification struct {
	V          int    `json:"v"`
	Type       string `json:"type"`
	Ledger     string `json:"ledger"`
	Events     int64  `json:"events"`
	Signatures int64  `json:"signatures"`
	Erased     int64  `json:"erased"`
	Hash       string `json:"hash"`
}

func (p *program) ledgerVerify(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	var o ledger.VerifyOptions
	for _, path := range c.StringSlice("since") {
		data, err := readBounded(path)
		if err != nil {
			return err
		}
		o.Since = append(o.Since, data)
	}
	var book *ledger.Ledger
	if c.String("key") != "" {
		// An auditor has the key and no keystore.
		if o.Known, err = verifierFlag(c); err != nil {
			return err
		}
		if book, err = p.openLedgerWith(c.Context, ledger.Options{ReadOnly: true, Known: o.Known}); err != nil {
			return err
		}
		defer closing(&err, book.Close)
	} else {
		office, err := p.openReading(c.Context, c)
		if err != nil {
			return err
		}
		defer closing(&err, office.Close)
		book, o.Known = office.ledger, office.known
	}
	found, err := book.Verify(c.Context, o)
	if err != nil {
		return err
	}
	return p.tellVerified(c, found)
}

func (p *program) tellVerified(c *cli.Context, found ledger.Verified) error {
	if c.Bool("json") {
		return p.printJSON(c, verification{1, "ledger-verification", found.Checkpoint.Ledger, found.Checkpoint.Size, found.Signatures, found.Erased, found.Checkpoint.Hash.String()})
	}
	p.printf(msg.Of("in order: %d events, %d signatures, %d events with erased values; checkpoint %v", "正常です: イベント %d、署名 %d、消去済みの値を持つイベント %d、チェックポイント %v"),
		found.Checkpoint.Size, found.Signatures, found.Erased, found.Checkpoint.Hash)
	return nil
}

func (p *program) ledgerKey(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	store, err := p.openKeystore(c.Context, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	versions, err := p.logKeys(c.Context, store)
	if err != nil {
		return err
	}
	if len(versions) == 0 {
		return fmt.Errorf("key %q that signs the ledger's checkpoints: %w", p.site.Keys.Checkpoints, keys.ErrNotFound)
	}
	for _, public := range versions {
		text, err := note.NewEd25519VerifierKey(logName, public)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(p.Stdout, text); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) ledgerCheckpoint(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	book, err := p.openLedger(c.Context)
	if err != nil {
		return err
	}
	defer closing(&err, book.Close)
	signed, err := book.Checkpoint(c.Context)
	if err != nil {
		return err
	}
	_, err = p.Stdout.Write(signed)
	return err
}

func (p *program) ledgerProve(c *cli.Context) (err error) {
	s, err := oneArgument(c, "NUMBER")
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return usagef(msg.Of("%s: the number of an event is expected", "%s: イベントの番号を指定してください"), s)
	}
	if err := required(c, "out"); err != nil {
		return err
	}
	office, err := p.openFor(c, staff.Read)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	proof, err := office.ledger.Prove(c.Context, n, c.Bool("with-values"))
	if err != nil {
		return err
	}
	data, err := proof.Encode()
	if err != nil {
		return err
	}
	if err := writeNew(c.String("out"), data); err != nil {
		return err
	}
	p.printf(msg.Of("proved: event %d, in %s; it is checked with `freearea ledger check-proof` and the key of `freearea ledger key`",
		"証明しました: イベント %d、出力 %s。`freearea ledger check-proof` と `freearea ledger key` の鍵で検証できます"), n, c.String("out"))
	return nil
}

func (p *program) ledgerCheckProof(c *cli.Context) error {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	if err := required(c, "key"); err != nil {
		return err
	}
	known, err := verifierFlag(c)
	if err != nil {
		return err
	}
	data, err := readBounded(path)
	if err != nil {
		return err
	}
	proved, err := ledger.CheckProof(data, known)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	line, err := exported(proved.Event)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return p.printJSON(c, line)
	}
	var w table
	row := func(t msg.Text, v string) { w.row(p.lang.T(t), v) }
	row(msg.Of("proved", "証明されました"), p.lang.T(msg.Of("event %d of %d of ledger %s", "イベント %d(全 %d)、台帳 %s"), proved.Event.Seq, proved.Checkpoint.Size, proved.Checkpoint.Ledger))
	row(msg.Of("time", "日時"), proved.Event.Time.In(japan).Format(time.DateTime))
	row(msg.Of("kind", "種類"), string(proved.Event.Data.Kind()))
	row(msg.Of("operator", "担当者"), proved.Operator.ID+", "+p.lang.T(roleText(proved.Operator.Role)))
	if proved.Second != nil {
		row(msg.Of("second", "もう1人"), proved.Second.ID+", "+p.lang.T(roleText(proved.Second.Role)))
	}
	row(msg.Of("counter", "窓口"), line.Counter)
	if line.Reason != "" {
		row(msg.Of("reason", "理由"), line.Reason)
	}
	row(msg.Of("data", "内容"), string(line.Data))
	if len(line.Erased) > 0 {
		row(msg.Of("not shown", "非開示"), p.lang.T(msg.Of("%s: erased, or kept back", "%s(消去済み、または開示なし)"), strings.Join(line.Erased, ", ")))
	}
	return w.write(p.Stdout, "")
}

// exportedEvent is one line of `ledger export`.
type exportedEvent struct {
	V        int             `json:"v"`
	Type     string          `json:"type"`
	Seq      int64           `json:"seq"`
	Time     string          `json:"time"`
	Kind     string          `json:"kind"`
	Operator string          `json:"operator"`
	Second   *string         `json:"second"`
	Counter  string          `json:"counter"`
	Reason   string          `json:"reason"`
	Erased   []string        `json:"erased"`
	Data     json.RawMessage `json:"data"`
	Record   string          `json:"record"`
}

func exported(e ledger.Event) (exportedEvent, error) {
	data, err := json.Marshal(e.Data)
	return exportedEvent{
		1, "ledger-event", e.Seq, utc(e.Time), string(e.Data.Kind()), e.Actor.Operator, orNull(e.Second), e.Actor.Counter,
		e.Reason, append([]string{}, e.Erased...), data, string(e.Record()),
	}, err
}

func (p *program) ledgerExport(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	write, finish, err := exporter(c.String("format"), p.Stdout)
	if err != nil {
		return err
	}
	office, err := p.openFor(c, staff.Read)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	for e, err := range office.ledger.Events(c.Context, ledger.Filter{}) {
		if err != nil {
			return err
		}
		line, err := exported(e)
		if err == nil {
			err = write(line)
		}
		if err != nil {
			return err
		}
	}
	return finish()
}

// exporter writes events in a format.
func exporter(format string, to io.Writer) (write func(exportedEvent) error, finish func() error, err error) {
	switch format {
	case "json":
		enc := json.NewEncoder(to)
		enc.SetEscapeHTML(false)
		return func(e exportedEvent) error { return enc.Encode(e) }, func() error { return nil }, nil
	case "csv":
		w := csv.NewWriter(to)
		w.UseCRLF = true // RFC 4180
		head := []string{"seq", "time", "kind", "operator", "second", "counter", "reason", "service", "card", "consent", "run", "id", "erased", "data"}
		write := func(e exportedEvent) error {
			var d struct{ Service, Card, Consent, Run, ID string }
			if err := json.Unmarshal(e.Data, &d); err != nil {
				return err
			}
			row := []string{strconv.FormatInt(e.Seq, 10), e.Time, e.Kind, e.Operator, orEmpty(e.Second), e.Counter, e.Reason,
				d.Service, d.Card, d.Consent, d.Run, d.ID, strings.Join(e.Erased, " "), string(e.Data)}
			for i := range row {
				row[i] = noFormula(row[i])
			}
			return w.Write(row)
		}
		return write, func() error { w.Flush(); return w.Error() }, w.Write(head)
	}
	return nil, nil, usagef(msg.Of("--format %s: json or csv", "--format %s: json または csv を指定してください"), format)
}

// noFormula puts an apostrophe before a cell that a spreadsheet would take for a
// formula: what stands in it is the choice of people whom the auditor audits.
// Of what begins with an apostrophe already there are then two.
func noFormula(cell string) string {
	if first, _ := utf8.DecodeRuneInString(cell); strings.ContainsRune("=+-@\t\r\n'＝＋－＠", first) {
		return "'" + cell
	}
	return cell
}

func (p *program) ledgerBackup(c *cli.Context) (err error) {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	office, err := p.openFor(c, staff.Backup)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	found, err := office.ledger.Backup(c.Context, path)
	if err != nil {
		return err
	}
	p.printf(msg.Of("copied to %s", "複製しました: %s"), path)
	return p.tellVerified(c, found)
}

// erasure is one line of `ledger erase --json`.
type erasure struct {
	V       int     `json:"v"`
	Type    string  `json:"type"`
	DryRun  bool    `json:"dry_run"`
	Consent string  `json:"consent"`
	Service string  `json:"service"`
	Ended   string  `json:"ended"`
	Basis   string  `json:"basis"`
	Events  []int64 `json:"events"`
}

func (p *program) ledgerErase(c *cli.Context) (err error) {
	f := ledger.EraseFilter{Consent: c.String("consent")}
	if (f.Consent == "") == (c.NArg() == 0) || c.NArg() > 1 {
		return usagef(msg.Of("erase takes MANIFEST or --consent ID", "erase には MANIFEST または --consent ID を指定してください"))
	}
	if f.Consent == "" {
		m, err := p.loadIssued(c.Args().First())
		if err != nil {
			return err
		}
		f.Service, f.Before = m.ID, p.Now().AddDate(0, 0, -m.Retention.Days)
	}
	office, err := p.openOffice(c.Context, c, staff.Erase)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	list, err := p.erase(c.Context, c, office, f)
	if err != nil {
		return err
	}
	for _, x := range list {
		if c.Bool("json") {
			err = errors.Join(err, p.printJSON(c, erasure{1, "erasure", c.Bool("dry-run"), x.Consent, x.Service, utc(x.Ended), string(x.Basis), x.Events}))
			continue
		}
		text := msg.Of("erased: consent %s of %s, ended %s, values of %d events", "消去しました: 同意 %s(%s)、終了 %s、%d イベントの値")
		if c.Bool("dry-run") {
			text = msg.Of("would erase: consent %s of %s, ended %s, values of %d events", "消去の対象: 同意 %s(%s)、終了 %s、%d イベントの値")
		}
		p.printf(text, x.Consent, x.Service, x.Ended.In(japan).Format(time.DateTime), len(x.Events))
	}
	if len(list) == 0 && !c.Bool("json") {
		p.printf(msg.Of("nothing to erase", "消去の対象はありません"))
	}
	if f.Consent == "" || c.Bool("dry-run") {
		return err
	}
	left, fault := office.ledger.StillHave(c.Context, f.Consent)
	for _, consent := range left {
		p.notef(msg.Of("freearea: note: consent %s had the ID before, on a card that may still hold it: it keeps its values until that card is wiped or expires; erase again then",
			"freearea: お知らせ: 同じIDを以前に持っていた同意 %s の値は、そのカードが消去されるか期限が切れるまで残ります。その後、もう一度消去してください"), consent)
	}
	return errors.Join(err, fault)
}

func (p *program) erase(ctx context.Context, c *cli.Context, o *office, f ledger.EraseFilter) ([]ledger.Erasable, error) {
	if c.Bool("dry-run") {
		return o.ledger.Erasable(ctx, f)
	}
	return o.ledger.Erase(ctx, p.actor(), c.String("reason"), f)
}
