package app

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/staff"
)

func (p *program) pinCommand() *cli.Command {
	t := p.lang.T
	file := &cli.StringFlag{Name: "pin-file", Usage: t(msg.Of("read the new PIN from `FILE` instead of asking", "新しいPINを `FILE` から読む(既定:画面で尋ねる)"))}
	fd := &cli.IntFlag{Name: "pin-fd", Value: -1, Usage: t(msg.Of("read the new PIN from the file descriptor `N`", "新しいPINをファイル記述子 `N` から読む"))}
	return p.group(&cli.Command{
		Name:  "pin",
		Usage: t(msg.Of("the holder's PIN of a service", "サービスの暗証番号")),
		Subcommands: []*cli.Command{
			{
				Name:      "change",
				Usage:     t(msg.Of("the holder changes it, with the old one", "本人が、現在の暗証番号を使って変更する")),
				ArgsUsage: "MANIFEST",
				Flags: []cli.Flag{p.cardFlag(), p.cutFlag(), file, fd,
					&cli.StringFlag{Name: "old-pin-file", Usage: t(msg.Of("read the old PIN from `FILE` instead of asking", "現在のPINを `FILE` から読む(既定:画面で尋ねる)"))},
					&cli.IntFlag{Name: "old-pin-fd", Value: -1, Usage: t(msg.Of("read the old PIN from the file descriptor `N`", "現在のPINをファイル記述子 `N` から読む"))},
					p.dryRunFlag(), p.jsonFlag()},
				Action: p.pinChange,
			},
			{
				Name:      "reset",
				Usage:     t(msg.Of("the counter sets a new one, chosen by the holder", "窓口で、本人が決めた新しい暗証番号を設定する")),
				ArgsUsage: "MANIFEST",
				Description: t(msg.Of(
					"The card takes a PIN together with everything else: the items are given as they are on the card. Where they differ, nothing is written.",
					"暗証番号は他の内容とともに書き込みます。項目はカードにあるとおりに指定してください。異なる場合は何も書き込みません。")),
				Flags:  p.onCard(p.itemFlag(), file, fd),
				Action: p.pinReset,
			},
		},
	})
}

func (p *program) pinReset(c *cli.Context) (err error) {
	b, err := p.openBench(c, staff.Cards)
	if err != nil {
		return err
	}
	defer closing(&err, b.Close)
	if b.manifest.PIN.Policy != manifest.PINRequired {
		return fmt.Errorf("%w: %s", provisioner.ErrNoPIN, b.manifest.ID)
	}
	values, err := items(c)
	if err != nil {
		return err
	}
	pin, err := p.newPIN(c)
	if err != nil {
		return err
	}
	defer clear(pin)
	return p.change(c, b, nil, func(r *provisioner.Request) error {
		r.Subject = manifest.Subject{Items: values, PIN: manifest.PINDigits(pin)}
		return nil
	}, b.provisioner.PlanPIN)
}

// pinChanged is what `pin change --json` prints; docs/json.md describes the
// fields.
type pinChanged struct {
	V        int         `json:"v"`
	Type     string      `json:"type"` // "pin-change"
	Service  string      `json:"service"`
	Instance iso7816.AID `json:"instance"`
	DryRun   bool        `json:"dry_run"`
}

func (p *program) pinChange(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "MANIFEST")
	if err != nil {
		return err
	}
	m, err := p.loadIssued(path)
	if err != nil {
		return err
	}
	profile, _ := m.LookupProfile(p.Profiles)
	changer, ok := profile.(applets.PINChanger)
	if m.PIN.Policy != manifest.PINRequired || !ok {
		return fmt.Errorf("%w: %s", provisioner.ErrNoPIN, m.ID)
	}
	request := applets.ReadRequest{AID: m.Application.Instance, Service: m.ID, Rand: p.Rand}
	if m.Keys.Read != "" {
		store, err := p.openKeystore(ctx, c)
		if err != nil {
			return err
		}
		defer closing(&err, store.Close)
		request.Keys = applets.StoreKeys(store, m.Keys.Read, m.Keys.Diversification)
	}
	before, err := pinSource(c, "old-pin").Read(ctx, p.lang.T(msg.Of("PIN for %s: ", "%s の暗証番号: "), m.ID))
	if err != nil {
		return pinError(err)
	}
	defer clear(before)
	after, err := p.newPIN(c)
	if err != nil {
		return err
	}
	defer clear(after)
	if err := m.CheckPIN(manifest.PINDigits(after)); err != nil {
		return err
	}
	old, err := applets.NewPIN(string(before))
	if err != nil {
		return err
	}
	defer old.Erase()
	replacement, err := applets.NewPIN(string(after))
	if err != nil {
		return err
	}
	defer replacement.Erase()
	out := pinChanged{V: 1, Type: "pin-change", Service: m.ID, Instance: m.Application.Instance, DryRun: c.Bool("dry-run")}
	if out.DryRun {
		p.notef(msg.Of("freearea: note: the card was not asked; a wrong PIN would cost a try", "freearea: お知らせ: カードには問い合わせていません。誤った暗証番号は残り回数を減らします"))
		return p.printJSON(c, out)
	}
	card, closeCard, err := p.openCard(ctx, c, iso7816.Exclusive)
	if err != nil {
		return err
	}
	defer closing(&err, closeCard)
	if err := changer.ChangePIN(ctx, card, request, old, replacement); reader.Missing(err) {
		return fmt.Errorf("%w: %s", reader.ErrNoService, m.ID)
	} else if err != nil {
		return err
	}
	if c.Bool("json") {
		return p.printJSON(c, out)
	}
	p.printf(msg.Of("PIN changed: %s", "暗証番号を変更しました: %s"), m.ID)
	return nil
}
