package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/manifest"
)

// loadManifest reads a manifest with this binary's profiles.
func (p *program) loadManifest(path string) (*manifest.Manifest, error) {
	return manifest.Reader{Profiles: p.Profiles}.Load(path)
}

// loadIssued loads the manifest of a service that cards hold already, for what
// needs no load file, or opens it later.
func (p *program) loadIssued(path string) (*manifest.Manifest, error) {
	return manifest.Reader{Profiles: p.Profiles, Issued: true}.Load(path)
}

func (p *program) manifestCommand() *cli.Command {
	t := p.lang.T
	return p.group(&cli.Command{
		Name:  "manifest",
		Usage: t(msg.Of("service manifests: what is issued, by whom, on what basis", "サービスマニフェスト: 何を、誰が、何を根拠に発行するか")),
		Subcommands: []*cli.Command{
			{
				Name:      "new",
				Usage:     t(msg.Of("begin a manifest, with an AID drawn at random", "乱数から作ったAIDでマニフェストを作り始める")),
				ArgsUsage: "FILE",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "profile", Value: "common-ap", Usage: t(msg.Of("`NAME`: common-ap, type-a or type-d", "プロファイル `NAME`: common-ap, type-a, type-d"))},
				},
				Action: p.manifestNew,
			},
			{
				Name:      "check",
				Usage:     t(msg.Of("report every fault, with its place and what to do", "すべての誤りを、場所と対処方法とともに報告する")),
				ArgsUsage: "FILE…",
				Action:    p.manifestCheck,
			},
			{
				Name:      "show",
				Usage:     t(msg.Of("say in words what a manifest provides", "マニフェストの内容を言葉で示す")),
				ArgsUsage: "FILE",
				Action:    p.manifestShow,
			},
			{
				Name:   "schema",
				Usage:  t(msg.Of("print the JSON Schema for editors", "エディター用の JSON Schema を出力する")),
				Action: p.manifestSchema,
			},
		},
	})
}

func (p *program) manifestSchema(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	_, err := p.Stdout.Write(manifest.Schema())
	return err
}

func (p *program) manifestNew(c *cli.Context) error {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	data, err := manifest.New(c.String("profile"), p.Rand)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	p.printf(msg.Of("made %s; fill in what `freearea manifest check %s` names", "%s を作成しました。`freearea manifest check %s` が示す箇所を記入してください"), path, path)
	return nil
}

// manifestCheck reads all files before it fails, so that one run shows all.
func (p *program) manifestCheck(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef(msg.Of("name the manifests to check", "確認するマニフェストを指定してください"))
	}
	owner, closeLedger, err := p.aidOwner(c.Context)
	if err != nil {
		return err
	}
	defer closeLedger()
	var all manifest.Faults
	for _, path := range c.Args().Slice() {
		m, err := p.loadManifest(path)
		if err == nil {
			err = m.CheckAID(owner)
		}
		var faults manifest.Faults
		switch {
		case err == nil:
			p.printf(msg.Of("%s: in order (%s, %s, instance %v)", "%s: 問題ありません(%s、%s、インスタンス %v)"),
				path, p.lang.Choose(m.Name.EN, m.Name.JA), m.Profile, m.Application.Instance)
		case errors.As(err, &faults):
			all = append(all, faults...)
		default:
			return err
		}
	}
	if len(all) > 0 {
		return all
	}
	return nil
}

// aidOwner looks an AID up in the ledger; without a ledger nobody owns any.
func (p *program) aidOwner(ctx context.Context) (func(iso7816.AID) (string, error), func() error, error) {
	book, err := p.openLedger(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return func(iso7816.AID) (string, error) { return "", nil }, func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return func(aid iso7816.AID) (string, error) {
		service, _, err := book.AIDOwner(ctx, aid)
		return service, err
	}, book.Close, nil
}

func (p *program) manifestShow(c *cli.Context) error {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	m, err := p.loadManifest(path)
	if err != nil {
		return err
	}
	required, optional := m.ItemNames()
	told, err := m.Disclosure(string(p.lang), append(required, optional...))
	if err != nil {
		return err
	}
	var w table
	row := func(t msg.Text, value string) {
		name := p.lang.T(t)
		for line := range strings.Lines(value) {
			w.row(name, strings.TrimSpace(line))
			name = ""
		}
	}
	row(msg.Of("service", "サービス"), m.ID+", "+told.Service)
	row(msg.Of("purpose", "利用目的"), told.Purpose)
	row(msg.Of("operator", "運営者"), told.Operator)
	row(msg.Of("basis in law", "法的根拠"), told.Basis)
	row(msg.Of("profile", "プロファイル"), m.Profile)
	row(msg.Of("instance", "インスタンスAID"), m.Application.Instance.String())
	row(msg.Of("load file", "ロードファイル"), fmt.Sprintf("%s, SHA-256 %v", m.LoadFile.Path, m.LoadFile.SHA256))
	row(msg.Of("ID", "ID"), told.ID)
	for _, it := range told.Items {
		row(msg.Of("item", "項目"), it[0]+": "+it[1])
	}
	row(msg.Of("PIN", "暗証番号"), told.PIN)
	row(msg.Of("protection", "保護"), told.Protection)
	row(msg.Of("term", "有効期間"), told.Term)
	row(msg.Of("records kept", "記録の保存"), told.Retention)
	digest := m.Digest()
	row(msg.Of("digest", "ダイジェスト"), fmt.Sprintf("%x", digest))
	return w.write(p.Stdout, "")
}
