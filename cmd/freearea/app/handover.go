package app

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/handover"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/staff"
)

func (p *program) handoverCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "handover",
		Usage:     t(msg.Of("tell a service's business system, once, what was issued, changed and revoked", "発行・変更・失効したIDを業務システムへ一度だけ引き渡す")),
		ArgsUsage: "MANIFEST",
		Description: t(msg.Of(
			"Everything since the last hand-over of the service goes out as one batch, to a new file in a folder or as a signed request. The ledger records the batch before it goes out and its end after it: one that was interrupted goes out again unchanged, under the same number.",
			"前回の引渡し以降のすべてを1つの束として、フォルダー内の新しいファイル、または署名付きリクエストで引き渡します。束は送る前と後に台帳へ記録します。中断した場合は、同じ番号で同じ内容をもう一度送ります。")),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: t(msg.Of("folder for the file, `DIR`", "ファイルを置くフォルダー `DIR`"))},
			&cli.StringFlag{Name: "webhook", Usage: t(msg.Of("address that takes the batch, https `URL`; signed with the counter's key", "束を受け取るアドレス(https)`URL`。窓口の鍵で署名する"))},
			&cli.StringFlag{Name: "format", Value: string(handover.CSV), Usage: t(msg.Of("`FORMAT`: csv or jsonl", "形式 `FORMAT`: csv または jsonl"))},
			p.dryRunFlag(),
			p.jsonFlag(),
		},
		Action: p.handover,
	}
}

// handedOver is what `handover --json` prints; docs/json.md describes the
// fields.
type handedOver struct {
	V           int     `json:"v"`
	Type        string  `json:"type"` // "handed-over"
	Service     string  `json:"service"`
	DryRun      bool    `json:"dry_run"`
	NothingToDo bool    `json:"nothing_to_do"`
	Batch       *string `json:"batch"`
	Again       bool    `json:"again"`
	Rows        int     `json:"rows"`
	SHA256      *string `json:"sha256"`
	To          *string `json:"to"`
}

func (p *program) handover(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "MANIFEST")
	if err != nil {
		return err
	}
	if (c.String("dir") == "") == (c.String("webhook") == "") {
		return usagef(msg.Of("one of --dir and --webhook says where to", "--dir または --webhook のいずれか1つを指定してください"))
	}
	format := handover.Format(c.String("format"))
	if !format.Known() {
		return usagef(msg.Of("--format %s: csv or jsonl", "--format %s: csv または jsonl を指定してください"), string(format))
	}
	m, err := p.loadIssued(path)
	if err != nil {
		return err
	}
	hook := handover.Webhook{Key: p.site.Keys.Counter}
	if s := c.String("webhook"); s != "" {
		if hook.URL, err = url.Parse(s); err != nil {
			return usagef(msg.Of("--webhook is no address", "--webhook の値がアドレスではありません"))
		}
		if err := hook.Check(); err != nil {
			return err
		}
	}
	if dir := c.String("dir"); dir != "" {
		if err := handover.CheckFolder(dir); err != nil {
			return err
		}
	}
	var office *office
	if c.Bool("dry-run") {
		office, err = p.openFor(c, staff.HandOver) // no event asks who it is
	} else {
		office, err = p.openOffice(ctx, c, staff.HandOver)
	}
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	out := handedOver{V: 1, Type: "handed-over", Service: m.ID, DryRun: c.Bool("dry-run")}
	batch, err := handover.Next(ctx, office.ledger, m.ID, handover.Options{Format: format, Actor: p.actor(), Rand: p.Rand, DryRun: out.DryRun})
	switch {
	case errors.Is(err, handover.ErrNothing):
		out.NothingToDo = true
		if !c.Bool("json") {
			p.printf(msg.Of("nothing to hand over: %s", "引き渡すものはありません: %s"), m.ID)
		}
		return p.printJSON(c, out)
	case err != nil:
		return err
	}
	out.Batch, out.Again, out.Rows, out.SHA256 = orNull(batch.Batch), batch.Again, batch.Rows, orNull(batch.Digest)
	if out.DryRun {
		if !c.Bool("json") {
			_, err := p.Stdout.Write(batch.Body)
			return err
		}
		return p.printJSON(c, out)
	}
	var to string
	if hook.URL != nil {
		hook.Sign = func(ctx context.Context, message []byte) ([]byte, error) {
			return office.keys.Sign(ctx, keys.Ref{Name: hook.Key}, keys.CounterSigning, message)
		}
		to, err = hook.Where(), hook.Send(ctx, batch)
	} else {
		to, err = batch.Name(), handover.ToFile(c.String("dir"), batch)
	}
	if err != nil {
		return err
	}
	if err := handover.Done(ctx, office.ledger, p.actor(), batch, to); err != nil {
		return err
	}
	if hook.URL == nil {
		to = filepath.Join(c.String("dir"), to)
	}
	out.To = orNull(to)
	if c.Bool("json") {
		return p.printJSON(c, out)
	}
	p.printf(msg.Of("handed over: %s, %d rows, to %s", "引渡し完了: %s、%d 件、%s"), m.ID, batch.Rows, to)
	return nil
}
