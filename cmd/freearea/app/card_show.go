package app

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/pcsc"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/staff"
)

func (p *program) slotsCommand() *cli.Command {
	return &cli.Command{
		Name:   "slots",
		Usage:  p.lang.T(msg.Of("list the card slots and what is in them", "カードスロットと挿入状態の一覧")),
		Flags:  []cli.Flag{p.jsonFlag()},
		Action: p.slots,
	}
}

// slotListing is one line of `slots --json`.
type slotListing struct {
	V           int     `json:"v"`
	Type        string  `json:"type"`
	Slot        string  `json:"slot"`
	CardPresent bool    `json:"card_present"`
	ATR         *string `json:"atr"`
	InUse       bool    `json:"in_use"`
	Mute        bool    `json:"mute"`
}

func (p *program) slots(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	list, err := pcsc.New(pcsc.Options{}).Slots(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		enc := json.NewEncoder(p.Stdout)
		for _, s := range list {
			if err := enc.Encode(slotListing{1, "slot", s.Slot, s.CardPresent, orNull(hexUpper(s.ATR)), s.InUse, s.Mute}); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		p.printf(msg.Of("no card slot is connected", "カードスロットが接続されていません"))
	}
	for _, s := range list {
		state := msg.Of("empty", "空")
		switch {
		case s.Mute:
			state = msg.Of("a card that does not answer", "応答しないカード")
		case s.InUse:
			state = msg.Of("a card, in use by another program", "カードあり(他のプログラムが使用中)")
		case s.CardPresent:
			state = msg.Of("a card", "カードあり")
		}
		fmt.Fprintf(p.Stdout, "pcsc:%s  %s  %s\n", s.Slot, p.lang.T(state), hexUpper(s.ATR))
	}
	return nil
}

func hexUpper(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

func (p *program) cardCommand() *cli.Command {
	t := p.lang.T
	return p.group(&cli.Command{
		Name:  "card",
		Usage: t(msg.Of("look at a card", "カードの内容を調べる")),
		Subcommands: []*cli.Command{{
			Name:      "show",
			Usage:     t(msg.Of("say what is on the card, in words", "カードに何が入っているかを言葉で示す")),
			ArgsUsage: "[MANIFEST…]",
			Description: t(msg.Of(
				"With the card's key set in the keystore the card's registry is read; without it only what the card tells anybody. Manifests give names to the services.",
				"鍵ストアにカードの鍵セットがあればレジストリを読み、なければ誰にでも答える情報だけを示します。マニフェストを指定するとサービス名が付きます。")),
			Flags: []cli.Flag{
				p.cardFlag(),
				p.cutFlag(),
				&cli.BoolFlag{Name: "public", Usage: t(msg.Of("only what the card tells anybody", "誰にでも答える情報だけを示す"))},
				p.retryFlag(),
				p.jsonFlag(),
			},
			Action: p.cardShow,
		}},
	})
}

// cardListing is what `card show --json` prints; docs/json.md describes it.
type cardListing struct {
	V            int           `json:"v"`
	Type         string        `json:"type"`
	ATR          *string       `json:"atr"`
	IIN          *string       `json:"iin"`
	CIN          *string       `json:"cin"`
	Registry     bool          `json:"registry"` // read through a secure channel
	State        *string       `json:"state"`    // of the card; registry only
	Applications []listedEntry `json:"applications"`
	LoadFiles    []listedFile  `json:"load_files"`
}

type listedEntry struct {
	AID      string  `json:"aid"`
	Name     *string `json:"name"` // for people
	State    *string `json:"state"`
	LoadFile *string `json:"load_file"`
}

type listedFile struct {
	AID     string        `json:"aid"`
	Name    *string       `json:"name"`
	Modules []listedEntry `json:"modules"`
}

// orNull is a text that may not be known: nil where it is empty.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (p *program) cardShow(c *cli.Context) (err error) {
	ctx := c.Context
	names := wellKnown()
	for _, path := range c.Args().Slice() {
		m, err := p.loadIssued(path)
		if err != nil {
			return err
		}
		names[m.Application.Instance] = msg.Text{EN: m.Name.EN, JA: m.Name.JA}
	}
	withKeys := !c.Bool("public")
	if withKeys && !p.hasKeystore() {
		withKeys = false
		p.notef(msg.Of("freearea: no keystore %s: only what the card tells anybody is shown", "freearea: 鍵ストア %s がないため、誰にでも答える情報だけを示します"), p.site.Keystore)
	}
	var pr *provisioner.Provisioner
	if withKeys {
		o, err := p.openOffice(ctx, c, staff.Cards)
		if errors.Is(err, fs.ErrNotExist) {
			// Without a ledger nothing has been recorded of any card yet.
			o, err = p.openKeys(ctx, c)
		}
		if err != nil {
			return err
		}
		defer closing(&err, o.Close)
		if pr, err = p.provisioner(c, o); err != nil {
			return err
		}
		if pr.SecurityDomainKey.Name == "" {
			withKeys = false
			p.notef(msg.Of("freearea: the issuer's key set is not at hand: only what the card tells anybody is shown", "freearea: 発行者の鍵セットがないため、誰にでも答える情報だけを示します"))
		}
	}

	mode := iso7816.Shared
	if withKeys {
		mode = iso7816.Exclusive
	}
	card, closeCard, err := p.openCard(ctx, c, mode)
	if err != nil {
		return err
	}
	defer closing(&err, closeCard)
	out := cardListing{V: 1, Type: "card", Registry: withKeys, Applications: []listedEntry{}, LoadFiles: []listedFile{}}
	if a, ok := card.(iso7816.AnswerToReset); ok {
		out.ATR = orNull(hexUpper(a.ATR()))
	}
	if withKeys {
		pr.Card = card
		s, err := pr.Connect(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		p.listRegistry(&out, s, names)
	} else if err := p.listPublic(c, &out, card, names); err != nil {
		return err
	}
	if c.Bool("json") {
		return p.printJSON(c, out)
	}
	return p.printCard(out)
}

func (p *program) listRegistry(out *cardListing, s *provisioner.Session, names map[iso7816.AID]msg.Text) {
	name := func(aid iso7816.AID) *string { return orNull(p.lang.T(names[aid])) }
	out.IIN, out.CIN = orNull(hexUpper(s.IIN)), orNull(hexUpper(s.CIN))
	out.State = orNull(cardState(s.Domain.State))
	for _, e := range s.Applications {
		out.Applications = append(out.Applications, listedEntry{
			AID: e.AID.String(), Name: name(e.AID), State: orNull(applicationState(e)), LoadFile: orNull(e.LoadFile.String()),
		})
	}
	for _, e := range s.LoadFiles {
		l := listedFile{AID: e.AID.String(), Name: name(e.AID), Modules: []listedEntry{}}
		for _, m := range e.Modules {
			l.Modules = append(l.Modules, listedEntry{AID: m.String(), Name: name(m)})
		}
		out.LoadFiles = append(out.LoadFiles, l)
	}
}

// listPublic asks for the applications that are known by name, one by one:
// without keys a card has no list to give.
func (p *program) listPublic(c *cli.Context, out *cardListing, card iso7816.Card, names map[iso7816.AID]msg.Text) error {
	ctx, plain := c.Context, iso7816.Plain(card)
	profile, err := globalplatform.LookupCardProfile(p.site.CardProfile)
	if err != nil {
		return err
	}
	if _, err := globalplatform.Select(ctx, plain, profile.SecurityDomain); err != nil {
		return fmt.Errorf("select the security domain %v: %w", profile.SecurityDomain, err)
	}
	if iin, err := globalplatform.IIN(ctx, plain); err == nil {
		out.IIN = orNull(hexUpper(iin))
	}
	if cin, err := globalplatform.CIN(ctx, plain); err == nil {
		out.CIN = orNull(hexUpper(cin))
	}
	for _, aid := range sortedAIDs(names) {
		_, err := globalplatform.Select(ctx, plain, aid)
		if status := new(iso7816.StatusError); errors.As(err, &status) || errors.Is(err, globalplatform.ErrOtherApplication) {
			continue
		}
		if err != nil {
			return err
		}
		out.Applications = append(out.Applications, listedEntry{AID: aid.String(), Name: orNull(p.lang.T(names[aid]))})
	}
	return nil
}

func (p *program) printCard(out cardListing) error {
	var head, applications, files table
	row := func(t msg.Text, value *string) {
		if value != nil {
			head.row(p.lang.T(t), *value)
		}
	}
	row(msg.Of("answer to reset", "リセット応答(ATR)"), out.ATR)
	row(msg.Of("issuer (IIN)", "発行者番号(IIN)"), out.IIN)
	row(msg.Of("card (CIN)", "カード識別番号(CIN)"), out.CIN)
	row(msg.Of("state", "状態"), p.stateText(out.State))
	for _, e := range out.Applications {
		applications.row(e.AID, orEmpty(e.Name), orEmpty(p.stateText(e.State)))
	}
	for _, e := range out.LoadFiles {
		files.row(e.AID, orEmpty(e.Name))
		for _, m := range e.Modules {
			files.row("  "+m.AID, orEmpty(m.Name))
		}
	}
	if err := head.write(p.Stdout, ""); err != nil {
		return err
	}
	p.printf(msg.Of("applications:", "アプリケーション:"))
	if err := applications.write(p.Stdout, "  "); err != nil || len(out.LoadFiles) == 0 {
		return err
	}
	p.printf(msg.Of("load files:", "ロードファイル:"))
	return files.write(p.Stdout, "  ")
}

// cardState names a card's life cycle state (GPCS table 11-6).
func cardState(state byte) string {
	switch state {
	case globalplatform.CardOPReady:
		return "op-ready"
	case globalplatform.CardInitialized:
		return "initialized"
	case globalplatform.CardSecured:
		return "secured"
	case globalplatform.CardLocked:
		return "card-locked"
	case globalplatform.CardTerminated:
		return "terminated"
	}
	return fmt.Sprintf("%02X", state)
}

// applicationState names an application's life cycle state (GPCS table 11-4).
func applicationState(e globalplatform.RegistryEntry) string {
	switch {
	case e.Locked():
		return "locked"
	case e.State == globalplatform.StateInstalled:
		return "installed"
	case e.State == globalplatform.StateSelectable:
		return "selectable"
	case e.State == globalplatform.StatePersonalized:
		return "personalized"
	}
	return fmt.Sprintf("%02X", e.State)
}

// stateText words a state for people.
func (p *program) stateText(state *string) *string {
	texts := map[string]msg.Text{
		"op-ready":     msg.Of("OP_READY: not yet given to anybody", "OP_READY(発行前)"),
		"initialized":  msg.Of("INITIALIZED: not yet given to anybody", "INITIALIZED(発行前)"),
		"secured":      msg.Of("SECURED: in use", "SECURED(運用中)"),
		"card-locked":  msg.Of("CARD_LOCKED: suspended by its issuer", "CARD_LOCKED(一時停止)"),
		"terminated":   msg.Of("TERMINATED: out of use for good", "TERMINATED(廃止)"),
		"installed":    msg.Of("installed", "登録のみ"),
		"selectable":   msg.Of("selectable", "選択可能"),
		"personalized": msg.Of("personalised", "書込み済み"),
		"locked":       msg.Of("suspended", "一時停止"),
	}
	if t, ok := texts[orEmpty(state)]; ok {
		return orNull(p.lang.T(t))
	}
	return state
}

// wellKnown names what may be on a card without any manifest.
func wellKnown() map[iso7816.AID]msg.Text {
	return map[iso7816.AID]msg.Text{
		iso7816.MustAID("D392F000260100000001"): msg.Of("public key certification service (JPKI)", "公的個人認証サービス(JPKI)"),
		iso7816.MustAID("D3921000310001010401"): msg.Of("basic resident register", "住民基本台帳"),
		iso7816.MustAID("D3921000310001010402"): msg.Of("face of the card", "券面事項確認"),
		iso7816.MustAID("D3921000310001010408"): msg.Of("entry support", "券面事項入力補助"),
		iso7816.MustAID("D3921000310001010100"): msg.Of("open record", "平文レコード"),
		iso7816.MustAID("A0000001515350"):       msg.Of("Security Domains", "セキュリティドメイン"),
		iso7816.MustAID("A000000151535041"):     msg.Of("Security Domain", "セキュリティドメイン"),
		applets.BasePackage:                     msg.Of("freearea base applications", "freearea 基本AP"),
		files.Package:                           msg.Of("freearea file application", "freearea ファイルAP"),
		files.Module:                            msg.Of("file application", "ファイルAP"),
		applets.ModuleCommonAP:                  msg.Of("common-ap", "共通カードAP"),
		applets.ModuleTypeA:                     msg.Of("type-a", "業務タイプA"),
		applets.ModuleTypeD:                     msg.Of("type-d", "業務タイプD"),
	}
}

func sortedAIDs(names map[iso7816.AID]msg.Text) []iso7816.AID {
	return slices.SortedFunc(maps.Keys(names), func(a, b iso7816.AID) int { return strings.Compare(a.String(), b.String()) })
}
