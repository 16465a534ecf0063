package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/freearea/freearea/batch"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/internal/durable"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/pcsc"
	"github.com/freearea/freearea/staff"
)

func (p *program) issueBatchCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "issue-batch",
		Usage:     t(msg.Of("issue a service to the cards of a list, in any number of slots at once", "リストに従い、複数のスロットで同時にサービスを発行する")),
		ArgsUsage: "MANIFEST LIST.csv",
		Description: t(msg.Of(
			"A card that is presented gets the row that names its CIN, or else the next row. What was revoked while the card was elsewhere is erased first. Ctrl-C finishes the cards under way; the same command goes on where it stopped. docs/operations.md says what a list holds.",
			"置かれたカードには、そのCINを指定した行、なければ次の行を発行します。カードがないまま失効させたサービスは、先に消去します。Ctrl-C で処理中のカードを終えて停止し、同じコマンドで続きから再開します。リストの内容は docs/operations.md にあります。")),
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "card", Usage: t(msg.Of(
				"slots to use: `pcsc:NAME`, or pcsc: for all; or image:FILE; repeat for each",
				"使うスロット: `pcsc:スロット名`、すべてなら pcsc:、または image:ファイル(スロットごとに繰り返す)"))},
			p.cutFlag(),
			&cli.StringFlag{Name: "encoding", Usage: t(msg.Of("the list's encoding, `utf-8` or shift_jis (found out)", "リストの文字コード `utf-8` または shift_jis(既定:自動判定)"))},
			&cli.StringFlag{Name: "card-expiry", Usage: t(msg.Of("expiry `DATE` of the cards whose rows have none, YYYY-MM-DD", "行に記載のないカードの有効期限 `DATE`(YYYY-MM-DD)"))},
			&cli.StringFlag{Name: "report", Usage: t(msg.Of("write the reports `NAME`.csv and NAME.json (beside the list, with the time)", "報告書 `NAME`.csv と NAME.json を書く(既定:リストと同じ場所、日時付き)"))},
			&cli.BoolFlag{Name: "dry-run", Usage: t(msg.Of("check the list and stop", "リストを検査して終了する"))},
			&cli.StringFlag{Name: "reason", Usage: t(msg.Of("`TEXT` for the ledger", "台帳に残す理由 `TEXT`"))},
			p.retryFlag(),
			&cli.BoolFlag{Name: "json", Usage: t(msg.Of("print JSON Lines (docs/json.md)", "JSON Linesで出力する(docs/json.md)"))},
		},
		Action: p.issueBatch,
	}
}

func (p *program) issueBatch(c *cli.Context) (err error) {
	ctx := c.Context
	if c.NArg() != 2 {
		return usagef(msg.Of("issue-batch takes a MANIFEST and a LIST", "issue-batch には MANIFEST と LIST を指定してください"))
	}
	if c.String("trace") != "" {
		return usagef(msg.Of("--trace goes with one card; `freearea issue` has one", "--trace はカード1枚の記録用です。`freearea issue` で使ってください"))
	}
	m, err := p.loadManifest(c.Args().First())
	if err != nil {
		return err
	}
	o := batch.Options{Manifest: m, Reason: c.String("reason"), Now: func() time.Time { return p.Now().In(japan) }}
	if s := c.String("card-expiry"); s != "" {
		if o.CardExpiry, err = time.ParseInLocation(time.DateOnly, s, japan); err != nil {
			return usagef(msg.Of("--card-expiry %s: a date like 2030-03-31 is expected", "--card-expiry %s: 2030-03-31 のような日付を指定してください"), s)
		}
	}
	if o.Manifests, err = p.siteManifests(); err != nil {
		return err
	}
	path := c.Args().Get(1)
	o.Dir = filepath.Dir(path)
	list, faulty, err := p.readList(c, path, m)
	if err != nil {
		return err
	}
	// The list's own faults are told with those that its files and the ledger
	// show, or with what keeps those from being looked at.
	checked := false
	defer func() {
		if !checked {
			err = errors.Join(p.listFaults(m, faulty), err)
		}
	}()
	if list == nil {
		return nil
	}
	report, err := reportName(c, path, o.Now())
	if err != nil {
		return err
	}
	if o.LoadFile, err = m.OpenLoadFile(); err != nil {
		return err
	}
	office, err := p.openOffice(ctx, c, staff.Cards)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	pr, err := p.provisioner(c, office)
	if err != nil {
		return err
	}
	o.Provisioner, o.Ledger = *pr, office.ledger
	o.CounterKey = func(ctx context.Context, k consent.Key) (ed25519.PublicKey, error) {
		return office.keys.PublicKey(ctx, k.Ref())
	}
	o.PIN = func(ctx context.Context, path string) (manifest.PINDigits, error) {
		digits, err := passphrase.Source{File: path}.Read(ctx, "")
		defer clear(digits)
		return manifest.PINDigits(digits), pinError(err)
	}
	show := p.batchDisplay(c)
	o.Observe = show.event
	if !c.Bool("dry-run") && faulty == nil {
		var closeSource func() error
		if o.Source, o.Slots, closeSource, err = p.batchSource(c); err != nil {
			return err
		}
		defer closing(&err, closeSource)
	}
	b, err := batch.New(ctx, list, o)
	checked = true
	if err != nil {
		show.end()
		return p.listFaults(m, err)
	}
	show.start(list, b.Totals())
	if c.Bool("dry-run") {
		show.end()
		return nil
	}
	defer context.AfterFunc(ctx, show.stopping)()
	failed := b.Run(ctx)
	show.end()
	done, err := b.Report(context.WithoutCancel(ctx))
	if err != nil {
		return errors.Join(failed, err)
	}
	if err := p.writeReport(report, done); err != nil {
		return errors.Join(failed, err)
	}
	if failed != nil {
		return failed
	}
	return p.batchEnd(c, report, done)
}

// readList reads and checks a list without keystore and ledger. A list that is
// at fault can be checked further, unless it is nil.
func (p *program) readList(c *cli.Context, path string, m *manifest.Manifest) (list *batch.List, faulty batch.Faults, err error) {
	encoding := batch.Encoding(strings.ToLower(c.String("encoding")))
	if encoding != "" && encoding != batch.UTF8 && encoding != batch.ShiftJIS {
		return nil, nil, usagef(msg.Of("--encoding %s: utf-8 or shift_jis", "--encoding %s: utf-8 または shift_jis を指定してください"), encoding)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, batch.MaxSize+1))
	if err != nil {
		return nil, nil, err
	}
	if list, err = batch.Parse(path, data, m, encoding); errors.As(err, &faulty) {
		err = nil
	}
	return list, faulty, err
}

// reportName is where the reports go, without their endings. Both must be new:
// that is told before the first card.
func reportName(c *cli.Context, list string, now time.Time) (string, error) {
	name := c.String("report")
	if name == "" {
		name = strings.TrimSuffix(list, filepath.Ext(list)) + now.Format("-report-20060102-150405")
	}
	for _, ending := range reportEndings {
		if _, err := os.Lstat(name + ending); err == nil {
			return "", fmt.Errorf("report %s: %w", name+ending, fs.ErrExist)
		}
	}
	if info, err := os.Stat(filepath.Dir(name)); err != nil {
		return "", fmt.Errorf("report: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("report: %s is no directory", filepath.Dir(name))
	}
	return name, nil
}

var reportEndings = []string{".csv", ".json"}

// writeReport writes both forms, each new and on the disk.
func (p *program) writeReport(name string, r *batch.Report) error {
	var table, object bytes.Buffer
	if err := r.WriteCSV(&table, func(err error) string { return oneLine(p.explain(err)) }); err != nil {
		return err
	}
	if err := json.NewEncoder(&object).Encode(r); err != nil {
		return err
	}
	for i, data := range [][]byte{table.Bytes(), object.Bytes()} {
		if err := writeNew(name+reportEndings[i], data); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return durable.SyncDirectory(filepath.Dir(name))
}

// batchEnd says what has come of it. Rows that are left, and what was revoked and
// could not be erased, make the exit status 1.
func (p *program) batchEnd(c *cli.Context, report string, r *batch.Report) error {
	t := r.Totals
	if c.Bool("json") {
		if err := p.printJSON(c, r); err != nil {
			return err
		}
	} else {
		p.printf(msg.Of("issued: %d of %d rows (now %d, before %d, by other processes %d)", "発行済み: %[2]d 行中 %[1]d 行(今回 %[3]d、以前 %[4]d、他のプロセス %[5]d)"),
			t.Issued+t.Before+t.Beside, t.Rows, t.Issued, t.Before, t.Beside)
		if t.Wiped+t.NotWiped > 0 {
			p.printf(msg.Of("revoked services found on cards: %d erased, %d still there", "カードに残っていた失効済みサービス: 消去 %d、未消去 %d"), t.Wiped, t.NotWiped)
		}
		p.printf(msg.Of("report: %s.csv, %s.json", "報告書: %s.csv、%s.json"), report, report)
	}
	var all []error
	if left := t.Open + t.Unfinished + t.Refused; left > 0 {
		all = append(all, &spoken{
			text: msg.Of("rows not issued: %d (%d refused, %d unfinished on their cards, %d without a card)",
				"未発行の行: %d(拒否 %d、カード上で未完了 %d、カード待ち %d)"), args: []any{left, t.Refused, t.Unfinished, t.Open},
			hint: msg.Of("the report says why; run the same command again: it goes on where it stopped, an unfinished card in any slot",
				"理由は報告書にあります。同じコマンドをもう一度実行すると続きから再開します。未完了のカードはどのスロットに置いてもかまいません")})
	}
	failed := 0
	for _, w := range r.Wipes {
		if w.Failed() {
			failed++
		}
	}
	if failed > 0 {
		all = append(all, &spoken{
			text: msg.Of("revoked services that could not be erased from their cards: %d", "カードから消去できなかった失効済みサービス: %d"), args: []any{failed},
			hint: msg.Of("the report says which and why; with such a card `freearea withdraw` finishes it, or any command that sees the card",
				"対象と理由は報告書にあります。そのカードで `freearea withdraw` を実行するか、次にカードを使うコマンドが消去を完了します")})
	}
	return errors.Join(all...)
}

// batchSource opens what --card names: slots of PC/SC, or images, each in a slot
// of its own. Images are presented once: the batch then ends with the last.
func (p *program) batchSource(c *cli.Context) (source iso7816.Source, slots []string, closeAll func() error, err error) {
	names := c.StringSlice("card")
	if len(names) == 0 {
		names = []string{cmp.Or(p.site.Card, "pcsc:")}
	}
	torn, err := cut(c)
	if err != nil {
		return nil, nil, nil, err
	}
	var open []func() error
	closeAll = func() (err error) {
		for _, f := range open {
			err = errors.Join(err, f())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	images := emulator.NewSlots()
	all := false
	for _, s := range names {
		kind, name, _ := strings.Cut(s, ":")
		switch {
		case kind == "pcsc" && strings.Contains(s, ":"):
			all = all || name == ""
			slots = append(slots, name)
		case kind == "image" && name != "":
			card, err := p.openImage(name)
			if err != nil {
				return nil, nil, nil, err
			}
			open = append(open, card.Close)
			card.SetCut(torn)
			torn = emulator.Cut{} // the first one's
			// In the order of --card, whatever the names.
			slot := fmt.Sprintf("%02d image:%s", len(open), name)
			if err := errors.Join(images.Add(slot), images.Insert(slot, card)); err != nil {
				return nil, nil, nil, err
			}
		default:
			return nil, nil, nil, usagef(msg.Of(
				"--card %s: pcsc:NAME or image:FILE is expected",
				"--card %s: pcsc:スロット名 または image:ファイル の形で指定してください"), s)
		}
	}
	switch {
	case len(open) > 0 && len(slots) > 0:
		return nil, nil, nil, usagef(msg.Of("--card names images and PC/SC slots; a batch has one or the other", "--card にイメージとPC/SCのスロットを混ぜて指定することはできません"))
	case len(open) > 0:
		return presentedOnce{images}, nil, closeAll, nil
	case torn != emulator.Cut{}:
		return nil, nil, nil, usagef(msg.Of("--cut goes with --card image:FILE; tear a real card by hand", "--cut は --card image:ファイル と使います。実物のカードは手で離してください"))
	case all:
		slots = nil
	}
	return pcsc.New(pcsc.Options{}), slots, closeAll, nil
}

// presentedOnce are slots whose cards nobody changes: their events end.
type presentedOnce struct{ iso7816.Source }

// Events yields what is there.
func (s presentedOnce) Events(ctx context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		there, err := s.Slots(ctx)
		if err != nil {
			yield(iso7816.Event{}, err)
			return
		}
		for _, slot := range there {
			if !yield(iso7816.Event{Kind: iso7816.CardInserted, Slot: slot.Slot, ATR: slot.ATR}, nil) {
				return
			}
		}
	}
}

// listFaults words the faults of a list; another error stays as it is.
func (p *program) listFaults(m *manifest.Manifest, err error) error {
	var faults batch.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		return err
	}
	needed, possible := batch.Columns(m)
	columns := strings.Join(needed, ", ") + " (" + strings.Join(possible, ", ") + ")"
	var all []error
	for _, f := range faults {
		var text string
		var hint msg.Text
		var args []any
		if rule := (manifest.Fault{}); errors.As(f.Err, &rule) {
			text = rule.Message(string(p.lang))
			hint = msg.Text{EN: rule.Hint("en"), JA: rule.Hint("ja")}
		} else if f.Err != nil {
			text, hint = p.explain(f.Err), hintFor(f.Err)
		} else {
			words := problemTexts[f.Problem]
			text, hint = p.lang.T(words.text), words.hint
			if words.columns {
				args = []any{columns}
			}
		}
		if f.Other > 0 {
			text += p.lang.T(msg.Of(" (line %d)", "(%d行目)"), f.Other)
		}
		all = append(all, &spoken{text: msg.Text{EN: "%s: %s", JA: "%s: %s"}, args: []any{f.Place(), text}, hint: hint, hintArgs: args})
	}
	if len(all) > manyFaults { // the first have left the screen
		all = append(all, &spoken{
			text: msg.Of("faults in the list: %d; no card was used", "リストの誤り: %d 件。カードは使っていません"), args: []any{len(all)}})
	}
	return errors.Join(all...)
}

const manyFaults = 20

// problemTexts words what only lists have.
var problemTexts = map[batch.Problem]struct {
	text, hint msg.Text
	columns    bool // the hint names them
}{
	batch.ProblemSize: {text: msg.Of("the list is longer than 16 MiB or 100,000 rows", "リストが16 MiBまたは10万行を超えています"),
		hint: msg.Of("divide it; a ledger takes any number of lists", "分割してください。1つの台帳で複数のリストを扱えます")},
	batch.ProblemEncoding:    {text: msg.Of("the text is neither UTF-8 nor Shift_JIS", "文字コードがUTF-8でもShift_JISでもありません"), hint: saveAsUTF8},
	batch.ProblemNotEncoding: {text: msg.Of("the text is not in the encoding of --encoding", "--encoding の文字コードではありません"), hint: saveAsUTF8},
	batch.ProblemAmbiguous: {text: msg.Of("the text could be UTF-8 or Shift_JIS", "文字コードがUTF-8かShift_JISか判定できません"),
		hint: msg.Of("say which with --encoding", "--encoding で指定してください")},
	batch.ProblemEmpty:       {text: msg.Of("there is no row", "行がありません"), hint: listHint},
	batch.ProblemQuotes:      {text: msg.Of("the quotes are wrong", "引用符の使い方が正しくありません"), hint: msg.Of("a quote within quotes is doubled: \"\"", "引用符の中の引用符は \"\" と2つ重ねてください")},
	batch.ProblemOpenQuote:   {text: msg.Of("a quote is opened and not closed", "引用符が閉じられていません"), hint: msg.Of("a cell has no line breaks; a quote within quotes is doubled: \"\"", "セルの中で改行は使えません。引用符の中の引用符は \"\" と2つ重ねてください")},
	batch.ProblemCells:       {text: msg.Of("the row has another number of cells than the header", "列の数が見出しと異なります"), hint: listHint},
	batch.ProblemColumn:      {text: msg.Of("the column is unknown", "不明な列です"), hint: columnsHint, columns: true},
	batch.ProblemTwice:       {text: msg.Of("the column stands there twice", "同じ列が2つあります"), hint: columnsHint, columns: true},
	batch.ProblemNoColumn:    {text: msg.Of("the column is missing", "列がありません"), hint: columnsHint, columns: true},
	batch.ProblemDrawnID:     {text: msg.Of("the service's IDs are drawn, not given", "このサービスのIDは自動で決まるため指定できません"), hint: columnsHint, columns: true},
	batch.ProblemNoPIN:       {text: msg.Of("the service has no PIN", "このサービスに暗証番号はありません"), hint: columnsHint, columns: true},
	batch.ProblemControl:     {text: msg.Of("the cell has control characters or line breaks", "制御文字または改行が含まれています"), hint: listHint},
	batch.ProblemSpace:       {text: msg.Of("the cell begins or ends with a space", "先頭または末尾に空白があります"), hint: msg.Of("take the space out", "空白を取り除いてください")},
	batch.ProblemLong:        {text: msg.Of("the cell is too long", "長すぎます"), hint: listHint},
	batch.ProblemMissing:     {text: msg.Of("the cell is empty", "空欄です"), hint: listHint},
	batch.ProblemNumber:      {text: msg.Of("the cell has the form of an Individual Number", "個人番号の形をしています"), hint: msg.Of("an Individual Number must not be used here; take it out of the list", "個人番号は使えません。リストから削除してください")},
	batch.ProblemCIN:         {text: msg.Of("a CIN, or its last digits, is 4 to 64 hexadecimal digits", "CIN(または末尾の数桁)は4〜64桁の16進数です"), hint: msg.Of("`freearea card show` prints a card's CIN", "CINは `freearea card show` で確認できます")},
	batch.ProblemDate:        {text: msg.Of("this is no date like 2030-03-31", "2030-03-31 のような日付ではありません"), hint: msg.Of("spreadsheets change dates: format the column as text", "表計算ソフトが日付の形式を変えることがあります。列を文字列にしてください")},
	batch.ProblemSameID:      {text: msg.Of("the ID stands in another row too", "同じIDが別の行にあります"), hint: listHint},
	batch.ProblemSameCIN:     {text: msg.Of("another row's CIN ends alike", "CINの末尾が別の行と同じです"), hint: msg.Of("give more of their digits", "桁数を増やしてください")},
	batch.ProblemSameConsent: {text: msg.Of("the consent stands in another row too", "同じ同意記録が別の行にあります"), hint: msg.Of("each card needs its holder's own consent", "カードごとに本人の同意が必要です")},
	batch.ProblemIDInUse:     {text: msg.Of("the ID is taken, under another consent", "IDは別の同意で使用中です"), hint: msg.Of("give the holder another ID, or withdraw the service from the other card first", "別のIDを指定するか、先に別のカードから取り消してください")},
}

var (
	saveAsUTF8  = msg.Of("save the list as CSV in UTF-8", "リストをUTF-8のCSVで保存してください")
	listHint    = msg.Of("docs/operations.md says what a list holds; nothing was done yet", "リストの内容は docs/operations.md にあります。まだ何も行っていません")
	columnsHint = msg.Of("columns of this service, in any order (and those that may be left out): %s", "このサービスの列(順不同、括弧内は省略可): %s")
)

// isTerminal returns the file that a stream is, where that is a terminal.
func isTerminal(w io.Writer) (*os.File, bool) {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}
