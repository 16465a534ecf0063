package app

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/staff"
)

func (p *program) operatorCommand() *cli.Command {
	t := p.lang.T
	return p.group(&cli.Command{
		Name:  "operator",
		Usage: t(msg.Of("what a card's operator does for service providers", "カード運営者がサービス提供者のために行う操作")),
		Subcommands: []*cli.Command{{
			Name:  "prepare",
			Usage: t(msg.Of("give a card a service provider's Security Domain", "サービス提供者のセキュリティドメインをカードに作る")),
			Flags: []cli.Flag{
				p.cardFlag(),
				&cli.StringFlag{Name: "security-domain", Usage: t(msg.Of("`AID` of the Security Domain", "セキュリティドメインの `AID`"))},
				&cli.StringFlag{Name: "keys", Usage: t(msg.Of("its first key set, `NAME` in the keystore", "最初の鍵セット(鍵ストア内の `NAME`)"))},
				&cli.StringFlag{Name: "diversification", Value: string(keys.MethodNone), Usage: t(msg.Of("how its keys follow from the stored ones, `METHOD`: none or sp800-108-cmac", "保存された鍵からの導出方法 `METHOD`: none または sp800-108-cmac"))},
				&cli.StringFlag{Name: "management", Value: "none", Usage: t(msg.Of("what it may do with content, `KIND`: none, delegated or authorized", "コンテンツ管理の権限 `KIND`: none、delegated(トークンが必要)、authorized"))},
				&cli.StringFlag{Name: "above", Usage: t(msg.Of("Security Domain to which it is given, `AID`; its own for a hierarchy of its own", "上位のセキュリティドメイン `AID`(自身を指定すると独立した階層)"))},
				&cli.StringFlag{Name: "token-key", Usage: t(msg.Of("token key for the Issuer Security Domain, `NAME`", "発行者セキュリティドメインに置くトークン鍵 `NAME`"))},
				&cli.StringFlag{Name: "receipt-key", Usage: t(msg.Of("receipt key for the Issuer Security Domain, `NAME`", "発行者セキュリティドメインに置く受領証鍵 `NAME`"))},
				&cli.BoolFlag{Name: "dry-run", Usage: t(msg.Of("show the plan and stop", "計画を表示して終了する"))},
				p.jsonFlag(),
			},
			Action: p.operatorPrepare,
		}},
	})
}

// preparation is what `operator prepare --json` prints; docs/json.md describes
// the fields.
type preparation struct {
	V              int         `json:"v"`
	Type           string      `json:"type"` // "preparation"
	IIN            *string     `json:"iin"`
	CIN            *string     `json:"cin"`
	SecurityDomain iso7816.AID `json:"security_domain"`
	Keys           string      `json:"keys"`
	Privileges     string      `json:"privileges"` // 6 hexadecimal digits
	DryRun         bool        `json:"dry_run"`
	NothingToDo    bool        `json:"nothing_to_do"`
	Steps          []string    `json:"steps"` // planned, or done
}

func (p *program) operatorPrepare(c *cli.Context) (err error) {
	ctx := c.Context
	if err := noArguments(c); err != nil {
		return err
	}
	if err := required(c, "security-domain", "keys"); err != nil {
		return err
	}
	q := provisioner.Preparation{Domain: provisioner.Domain{
		Key: keys.Ref{Name: c.String("keys")}, Diversification: keys.Method(c.String("diversification")),
	}, Privileges: globalplatform.SecurityDomain | globalplatform.TrustedPath}
	if q.Domain.AID, err = aidFlag(c, "security-domain"); err != nil {
		return err
	}
	if err := keys.CheckMethod(keys.SecurityDomain, q.Domain.Diversification); err != nil {
		return usagef(msg.Of("--diversification %s: none or sp800-108-cmac", "--diversification %s: none または sp800-108-cmac を指定してください"), c.String("diversification"))
	}
	switch s := c.String("management"); s {
	case "none":
	case "delegated":
		q.Privileges |= globalplatform.DelegatedManagement
	case "authorized":
		q.Privileges |= globalplatform.AuthorizedManagement
	default:
		return usagef(msg.Of("--management %s: none, delegated or authorized", "--management %s: none、delegated、authorized のいずれかを指定してください"), s)
	}
	if c.IsSet("above") {
		if q.Above, err = aidFlag(c, "above"); err != nil {
			return err
		}
	}
	if err := p.may(c, staff.Cards); err != nil {
		return err
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	if err := heldKeySet(ctx, store, q.Domain.Key.Name); err != nil {
		return err // before a card is given a domain without keys
	}
	for _, k := range []struct {
		flag string
		kind keys.Kind
		to   **keys.SchemeKey
	}{{"token-key", keys.Token, &q.Token}, {"receipt-key", keys.Receipt, &q.Receipt}} {
		name := c.String(k.flag)
		if name == "" {
			continue
		}
		key, err := store.SchemeKey(ctx, keys.Ref{Name: name}, k.kind)
		if err != nil {
			return fmt.Errorf("--%s %q: %w", k.flag, name, err)
		}
		defer key.Erase()
		*k.to = &key
	}
	pr, err := p.provisioner(c, &office{keys: store})
	if err != nil {
		return err
	}
	card, closeCard, err := p.openCard(ctx, c, iso7816.Exclusive)
	if err != nil {
		return err
	}
	defer closing(&err, closeCard)
	pr.Card = card
	session, err := pr.Connect(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	steps, err := pr.PlanPreparation(ctx, session, q)
	if err != nil {
		return err
	}
	out := preparation{
		V: 1, Type: "preparation", IIN: orNull(hexUpper(session.IIN)), CIN: orNull(hexUpper(session.CIN)),
		SecurityDomain: q.Domain.AID, Keys: q.Domain.Key.Name, Privileges: hexUpper(q.Privileges.Bytes()),
		DryRun: c.Bool("dry-run"), NothingToDo: len(steps) == 0, Steps: []string{},
	}
	for i, s := range steps {
		out.Steps = append(out.Steps, string(s.Name))
		if !c.Bool("json") {
			p.printf(msg.Of("  %d. %s: %s, through %s", "  %d. %s: %s(%s 経由)"), i+1, p.lang.T(stepText(s.Name)), strings.Join(s.Commands, ", "), s.Domain)
		}
	}
	if out.DryRun {
		return p.printJSON(c, out)
	}
	if err := pr.Prepare(ctx, session, steps); err != nil {
		return err
	}
	if c.Bool("json") {
		return p.printJSON(c, out)
	}
	if len(steps) == 0 {
		p.printf(msg.Of("nothing to do: the card has the security domain %s", "変更なし: カードには既にセキュリティドメイン %s があります"), q.Domain.AID)
		return nil
	}
	p.printf(msg.Of("prepared: security domain %s, key set %q, on the card with CIN %s", "準備完了: セキュリティドメイン %s、鍵セット %q、カードのCIN %s"), q.Domain.AID, q.Domain.Key.Name, hexUpper(session.CIN))
	return nil
}

// heldKeySet refuses a name that is no Security Domain's key set in use.
func heldKeySet(ctx context.Context, store keystore, name string) error {
	entries, err := store.Entries(ctx)
	if err != nil {
		return err
	}
	fault := fmt.Errorf("key set %q: %w", name, keys.ErrNotFound)
	for _, e := range entries {
		switch {
		case e.Name != name:
		case e.Kind != keys.SecurityDomain:
			return fmt.Errorf("key set %q: %w: %s", name, keys.ErrWrongKind, e.Kind)
		case e.Retired.IsZero():
			return nil
		default:
			fault = fmt.Errorf("key set %q: %w", name, keys.ErrRetired)
		}
	}
	return fault
}
