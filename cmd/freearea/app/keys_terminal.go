package app

import (
	"cmp"
	"io"
	"slices"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
)

func (p *program) keysTerminal() []*cli.Command {
	t := p.lang.T
	return []*cli.Command{{
		Name:      "export-terminal",
		Usage:     t(msg.Of("write what a terminal needs to read services, for that terminal only", "端末がサービスの読み取りに必要とするものだけを、その端末向けに書き出す")),
		ArgsUsage: "MANIFEST…",
		Description: t(msg.Of(
			"The bundle holds read keys and the public halves of issuers' keys, nothing that writes a card. Whoever steals it with the terminal's key can read those cards and imitate them: see docs/security.md.",
			"読取鍵と発行者の公開鍵だけを含み、カードへの書込みはできません。端末の秘密鍵とともに盗まれると、該当カードの読み取りと模倣が可能になります(docs/security.md)。")),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: t(msg.Of("the terminal's age `RECIPIENT` (age1…), as `keys identity` printed it there", "端末の age 受取人 `RECIPIENT`(age1…、端末側の `keys identity` の出力)"))},
			&cli.StringFlag{Name: "group", Usage: t(msg.Of("`NAME` of the terminals that share these key versions", "同じ鍵バージョンを使う端末群の名前 `NAME`"))},
			&cli.IntFlag{Name: "key-version", Usage: t(msg.Of("version `N` of the read keys (the newest in use)", "読取鍵のバージョン `N`(既定:使用中の最新)"))},
			&cli.BoolFlag{Name: "public", Usage: t(msg.Of("no read keys: for terminals whose read keys are in a token, or that read common-ap only", "読取鍵を含めない(トークンに読取鍵がある端末、または common-ap 専用の端末向け)"))},
			&cli.StringFlag{Name: "out", Usage: t(msg.Of("`FILE` to write", "出力 `FILE`"))},
		},
		Action: p.keysExportTerminal,
	}}
}

func (p *program) keysExportTerminal(c *cli.Context) (err error) {
	ctx := c.Context
	if c.NArg() == 0 {
		return usagef(msg.Of("name the manifests of the services that the terminal reads", "端末が読み取るサービスのマニフェストを指定してください"))
	}
	if err := required(c, "to", "out"); err != nil {
		return err
	}
	recipient, err := age.ParseX25519Recipient(c.String("to"))
	if err != nil {
		return usagef(msg.Of("--to %s: no age recipient (age1…)", "--to %s: age の受取人(age1…)ではありません"), c.String("to"))
	}
	version := c.Int("key-version")
	if version < 0 || version > keys.MaxVersion {
		return usagef(msg.Of("--key-version %d: 1 to %d", "--key-version %d: 1〜%d を指定してください"), version, keys.MaxVersion)
	}
	t := file.Terminal{Group: c.String("group")}
	var read, public []keys.Ref
	for _, path := range c.Args().Slice() {
		m, err := p.loadIssued(path)
		if err != nil {
			return err
		}
		digest := m.Digest()
		s := file.TerminalService{ID: m.ID, Manifest: digest[:], IssuerKey: m.Keys.IssuerSigning}
		if m.Keys.IssuerSigning != "" {
			public = append(public, keys.Ref{Name: m.Keys.IssuerSigning})
		}
		if m.Keys.Read != "" && !c.Bool("public") {
			s.ReadKey = m.Keys.Read
			ref := keys.Ref{Name: m.Keys.Read, Version: byte(version)}
			if !slices.Contains(read, ref) {
				read = append(read, ref)
			}
		}
		t.Services = append(t.Services, s)
	}
	slices.SortFunc(t.Services, func(a, b file.TerminalService) int { return cmp.Compare(a.ID, b.ID) })
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	if len(read) > 0 {
		if read, err = p.leave(c, store, read, recipient); err != nil {
			return err
		}
	}
	var from keys.Store = store
	if inToken, ok := store.(token); ok {
		from = inToken.Store
	}
	return p.writeKeys(c.String("out"), func(out io.Writer) ([]keys.Entry, error) {
		return file.ExportTerminal(ctx, out, from, t, read, public, p.Now(), recipient)
	})
}
