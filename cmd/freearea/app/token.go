package app

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/staff"
)

func (p *program) tokenCommand() *cli.Command {
	t := p.lang.T
	out := func() cli.Flag {
		return &cli.StringFlag{Name: "out", Usage: t(msg.Of("`FILE` to write", "出力 `FILE`"))}
	}
	approval := func() cli.Flag {
		return &cli.StringFlag{Name: "approval", Usage: t(msg.Of("`FILE` of the document by which the card's operator allowed the service", "カード運営者の承認文書 `FILE`"))}
	}
	return p.group(&cli.Command{
		Name:  "token",
		Usage: t(msg.Of("ask a card's operator for tokens, and answer", "カード運営者へのトークンの要求と、その回答")),
		Subcommands: []*cli.Command{
			{
				Name:      "request",
				Usage:     t(msg.Of("look at the card and write what tokens are needed", "カードを調べ、必要なトークンの要求書を書く")),
				ArgsUsage: "MANIFEST",
				Flags: []cli.Flag{
					p.cardFlag(), approval(), out(),
					&cli.BoolFlag{Name: "withdraw", Usage: t(msg.Of("for taking the service off the card", "サービスの取消しのための要求"))},
					p.retryFlag(), p.jsonFlag(),
				},
				Action: p.tokenRequest,
			},
			{
				Name:      "issue",
				Usage:     t(msg.Of("the operator: check a request and answer it with tokens", "運営者: 要求書を確認し、トークンで回答する")),
				ArgsUsage: "REQUEST",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "manifest", Usage: t(msg.Of("the service's manifest, `FILE`", "サービスのマニフェスト `FILE`"))},
					approval(),
					&cli.StringFlag{Name: "key", Usage: t(msg.Of("token key, `NAME`", "トークン鍵 `NAME`"))},
					&cli.StringFlag{Name: "security-domain", Usage: t(msg.Of("the provider's Security Domain, `AID`, as the operator knows it", "運営者が把握するサービス提供者のセキュリティドメイン `AID`"))},
					&cli.StringFlag{Name: "cin", Usage: t(msg.Of("the card's image number, `HEX`, as the operator knows it", "運営者が把握するカード識別番号CIN `HEX`"))},
					out(), p.jsonFlag(),
				},
				Action: p.tokenIssue,
			},
			{
				Name:      "show",
				Usage:     t(msg.Of("show a request or tokens", "要求書またはトークンを表示する")),
				ArgsUsage: "FILE",
				Flags:     []cli.Flag{p.jsonFlag()},
				Action:    p.tokenShow,
			},
			{
				Name:      "import",
				Usage:     t(msg.Of("check the answer against the request that was sent, and keep it", "回答を送付した要求書と照合して保存する")),
				ArgsUsage: "TOKENS",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "request", Usage: t(msg.Of("the request that was sent, `FILE`", "送付した要求書 `FILE`"))},
					out(), p.jsonFlag(),
				},
				Action: p.tokenImport,
			},
		},
	})
}

// tokensFlag is for the commands that use tokens.
func (p *program) tokensFlag() cli.Flag {
	return &cli.StringFlag{Name: "tokens", Usage: p.lang.T(msg.Of(
		"tokens of the card's operator, `FILE`, as `token import` wrote it", "カード運営者のトークン `FILE`(`token import` の出力)"))}
}

// readTokens is what --tokens names, nil without it.
func readTokens(c *cli.Context) (*delegation.Tokens, error) {
	path := c.String("tokens")
	if path == "" {
		return nil, nil
	}
	data, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	t, err := delegation.ParseTokens(data)
	return t, about(path, err)
}

func readRequest(path string) (*delegation.Request, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	r, err := delegation.ParseRequest(data)
	return r, about(path, err)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, delegation.MaxFile+1))
}

// fileDigest is the SHA-256 of a document.
func fileDigest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

// tokenReport is what the token commands print with --json; docs/json.md
// describes the fields.
type tokenReport struct {
	V              int                    `json:"v"`
	Type           string                 `json:"type"` // "token-request", "tokens"
	Number         string                 `json:"number"`
	Card           delegation.Card        `json:"card"`
	SecurityDomain iso7816.AID            `json:"security_domain"`
	Service        string                 `json:"service"`
	Manifest       string                 `json:"manifest"`
	Approval       string                 `json:"approval"`
	Operator       *string                `json:"operator"`
	Operations     []delegation.Operation `json:"operations"`
}

// tell prints a request, and who answered it.
func (p *program) tellRequest(c *cli.Context, kind string, r *delegation.Request, operator string) error {
	if c.Bool("json") {
		return p.printJSON(c, tokenReport{
			V: 1, Type: kind, Number: r.Number.String(), Card: r.Card, SecurityDomain: r.SecurityDomain, Service: r.Service,
			Manifest: strings.ToLower(r.Manifest.String()), Approval: strings.ToLower(r.Approval.String()),
			Operator: orNull(operator), Operations: r.Operations,
		})
	}
	if operator == "" {
		p.printf(msg.Of("token request %s of %s", "トークン要求 %s(%s)"), r.Number, r.Created)
	} else {
		p.printf(msg.Of("tokens for request %s of %s, by %s", "トークン(要求 %s、%s)発行者 %s"), r.Number, r.Created, operator)
	}
	p.printf(msg.Of("  card: IIN %s, CIN %s", "  カード: IIN %s、CIN %s"), r.Card.IIN, r.Card.CIN)
	p.printf(msg.Of("  security domain: %s", "  セキュリティドメイン: %s"), r.SecurityDomain)
	p.printf(msg.Of("  service: %s, manifest %s", "  サービス: %s、マニフェスト %s"), r.Service, strings.ToLower(r.Manifest.String()))
	p.printf(msg.Of("  approval: %s", "  承認文書: %s"), strings.ToLower(r.Approval.String()))
	for i, o := range r.Operations {
		p.printf(msg.Of("  %d. %s", "  %d. %s"), i+1, p.operationText(o))
	}
	return nil
}

func (p *program) operationText(o delegation.Operation) string {
	t := p.lang.T
	switch o.Kind {
	case delegation.Load:
		return t(msg.Of("load %s (SHA-256 %s) for %s", "%s(SHA-256 %s)を %s に書込み"), o.LoadFile, strings.ToLower(o.Hash.String()), o.SecurityDomain)
	case delegation.Install:
		return t(msg.Of("install %s from %s", "%s を %s から登録"), o.Instance, o.LoadFile)
	case delegation.Extradite:
		return t(msg.Of("give %s to %s", "%s を %s に移管"), o.Object, o.SecurityDomain)
	}
	return t(msg.Of("delete %s", "%s を削除"), o.Object)
}

func (p *program) tokenRequest(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "MANIFEST")
	if err != nil {
		return err
	}
	if err := required(c, "approval", "out"); err != nil {
		return err
	}
	m, err := p.loadManifest(path)
	if err != nil {
		return err
	}
	file, err := m.OpenLoadFile()
	if err != nil {
		return err
	}
	approval, err := fileDigest(c.String("approval"))
	if err != nil {
		return fmt.Errorf("approval: %w", err)
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
	var plan *provisioner.Plan
	if c.Bool("withdraw") {
		plan, err = pr.PlanWithdraw(ctx, session, m)
	} else {
		plan, err = pr.PlanRequest(ctx, session, m, file)
	}
	if err != nil {
		return err
	}
	operations := plan.Operations()
	if len(operations) == 0 {
		return &spoken{
			text: msg.Of("no tokens are needed for this card", "このカードにトークンは要りません"),
			hint: msg.Of("`freearea issue` and `freearea withdraw` do without", "`freearea issue`・`freearea withdraw` をそのまま実行できます")}
	}
	r, err := delegation.NewRequest(p.Rand, p.Now())
	if err != nil {
		return err
	}
	digest := m.Digest()
	r.Card = delegation.Card{IIN: session.IIN, CIN: session.CIN}
	r.SecurityDomain, r.Service = plan.Manager(), m.ID
	r.Manifest, r.Approval, r.Operations = digest[:], approval, operations
	data, err := r.Encode()
	if err != nil {
		return err
	}
	if err := writeNew(c.String("out"), data); err != nil {
		return err
	}
	return p.tellRequest(c, delegation.TypeRequest, r, "")
}

func (p *program) tokenIssue(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "REQUEST")
	if err != nil {
		return err
	}
	if err := required(c, "manifest", "approval", "key", "out"); err != nil {
		return err
	}
	r, err := readRequest(path)
	if err != nil {
		return err
	}
	m, err := p.loadManifest(c.String("manifest"))
	if err != nil {
		return err
	}
	facts := delegation.Facts{}
	if facts.Approval, err = fileDigest(c.String("approval")); err != nil {
		return fmt.Errorf("approval: %w", err)
	}
	if s := c.String("security-domain"); s != "" {
		if facts.SecurityDomain, err = aidFlag(c, "security-domain"); err != nil {
			return err
		}
	}
	if s := c.String("cin"); s != "" {
		var cin delegation.Hex
		if err := cin.UnmarshalText([]byte(s)); err != nil {
			return usagef(msg.Of("--cin %s: hexadecimal digits are expected", "--cin %s: 16進数で指定してください"), s)
		}
		facts.CIN = cin
	}
	if err := r.Check("", facts); err != nil {
		return about(path, err)
	}
	if err := provisioner.CheckRequest(r, m, p.Profiles); err != nil {
		return about(path, err)
	}
	if err := p.may(c, staff.Cards); err != nil {
		return err
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	key, err := store.SchemeKey(ctx, keys.Ref{Name: c.String("key")}, keys.Token)
	if err != nil {
		return fmt.Errorf("token key %q: %w", c.String("key"), err)
	}
	defer key.Erase()
	signer, err := globalplatform.SignerOf(key)
	if err != nil {
		return fmt.Errorf("token key %q: %w", c.String("key"), err)
	}
	tokens, err := delegation.Issue(r, signer, p.site.Operator, p.Now())
	if err != nil {
		return err
	}
	data, err := tokens.Encode()
	if err != nil {
		return err
	}
	if err := writeNew(c.String("out"), data); err != nil {
		return err
	}
	return p.tellRequest(c, delegation.TypeTokens, r, tokens.Operator)
}

func (p *program) tokenShow(c *cli.Context) error {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	data, err := readBounded(path)
	if err != nil {
		return err
	}
	if delegation.TypeOf(data) == delegation.TypeRequest {
		r, err := delegation.ParseRequest(data)
		if err != nil {
			return about(path, err)
		}
		return p.tellRequest(c, delegation.TypeRequest, r, "")
	}
	t, err := delegation.ParseTokens(data)
	if err != nil {
		return about(path, err)
	}
	return p.tellRequest(c, delegation.TypeTokens, &t.Request, t.Operator)
}

func (p *program) tokenImport(c *cli.Context) error {
	path, err := oneArgument(c, "TOKENS")
	if err != nil {
		return err
	}
	if err := required(c, "request", "out"); err != nil {
		return err
	}
	sent, err := readRequest(c.String("request"))
	if err != nil {
		return err
	}
	data, err := readBounded(path)
	if err != nil {
		return err
	}
	t, err := delegation.ParseTokens(data)
	if err == nil {
		err = t.Answers(sent)
	}
	if err != nil {
		return about(path, err)
	}
	if data, err = t.Encode(); err != nil {
		return err
	}
	if err := writeNew(c.String("out"), data); err != nil {
		return err
	}
	return p.tellRequest(c, delegation.TypeTokens, &t.Request, t.Operator)
}

// aidFlag reads an AID from a flag.
func aidFlag(c *cli.Context, name string) (iso7816.AID, error) {
	aid, err := iso7816.ParseAID(c.String(name))
	if err != nil {
		return aid, usagef(msg.Of("--%s %s: an AID of 5 to 16 bytes in hexadecimal digits is expected", "--%s %s: 5〜16バイトのAIDを16進数で指定してください"), name, c.String(name))
	}
	return aid, nil
}
