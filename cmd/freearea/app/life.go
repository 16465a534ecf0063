package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/staff"
)

// bench is what a command on one service works with.
type bench struct {
	*office
	manifest    *manifest.Manifest
	provisioner *provisioner.Provisioner
}

// openBench opens them for the manifest that is the command's argument.
func (p *program) openBench(c *cli.Context, action staff.Action) (*bench, error) {
	path, err := oneArgument(c, "MANIFEST")
	if err != nil {
		return nil, err
	}
	m, err := p.loadIssued(path)
	if err != nil {
		return nil, err
	}
	office, err := p.openOffice(c.Context, c, action)
	if err != nil {
		return nil, err
	}
	pr, err := p.provisioner(c, office)
	if err != nil {
		return nil, errors.Join(err, office.Close())
	}
	return &bench{office, m, pr}, nil
}

// onCard are the flags of all commands that change what is on a card.
func (p *program) onCard(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{p.cardFlag(), p.cutFlag()}, append(more, p.dryRunFlag(), p.reasonFlag(), p.retryFlag(), p.jsonFlag())...)
}

func (p *program) updateCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "update",
		Usage:     t(msg.Of("write other items or another expiry for a service that is on the card; the ID stays", "発行済みサービスの項目や有効期限を書き換える(IDは変わらない)")),
		ArgsUsage: "MANIFEST",
		Description: t(msg.Of(
			"All items are given, as they are to be. The consent under which the card was issued must cover them; where it does not, the holder is asked again and --consent names the new one.",
			"項目はすべて、更新後の内容で指定します。発行時の同意の対象に含まれない場合は、改めて同意を得て --consent で指定してください。")),
		Flags: p.onCard(
			&cli.StringFlag{Name: "consent", Usage: t(msg.Of("a new consent, `FILE`, in place of the one in the ledger", "台帳にある同意に代わる新しい同意 `FILE`"))},
			p.itemFlag(), p.cardExpiryFlag(), p.tokensFlag()),
		Action: p.update,
	}
}

func (p *program) update(c *cli.Context) (err error) {
	b, err := p.openBench(c, staff.Cards)
	if err != nil {
		return err
	}
	defer closing(&err, b.Close)
	expiry, err := dateFlag(c, "card-expiry")
	if err != nil {
		return err
	}
	values, err := items(c)
	if err != nil {
		return err
	}
	return p.change(c, b, nil, func(r *provisioner.Request) error {
		if !expiry.IsZero() {
			r.CardExpiry = expiry
		}
		r.Subject.Items = values
		return nil
	}, b.provisioner.PlanIssue)
}

// change carries out what begins with what the card holds: its issue in the
// ledger, whose consent and expiry go on unless fill says otherwise.
func (p *program) change(c *cli.Context, b *bench, look func(iso7816.Card) error, fill func(*provisioner.Request) error,
	plan func(context.Context, *provisioner.Session, *provisioner.Desired) (*provisioner.Plan, error)) error {
	ctx := c.Context
	file, err := b.manifest.OpenLoadFile()
	if err != nil {
		return err
	}
	return p.reconcile(c, b.provisioner, job{manifest: b.manifest, look: look, plan: func(s *provisioner.Session) (*provisioner.Plan, error) {
		active, ok, err := b.ledger.ActiveIssue(ctx, b.manifest.ID, s.CardRef)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%w: %s", provisioner.ErrNotOnCard, b.manifest.ID)
		}
		if held, err := b.ledger.IsSuspended(ctx, b.manifest.ID, s.CardRef); err != nil {
			return nil, err
		} else if held {
			return nil, fmt.Errorf("%w: %s", provisioner.ErrSuspended, b.manifest.ID)
		}
		r := provisioner.Request{
			Manifest: b.manifest, LoadFile: file, Now: p.Now().In(japan), Reason: c.String("reason"),
			Carry:   &provisioner.Carry{From: active},
			Subject: manifest.Subject{KeepPIN: b.manifest.PIN.Policy == manifest.PINRequired},
		}
		if r.CardExpiry, err = time.ParseInLocation(time.DateOnly, active.Expiry, japan); err != nil {
			return nil, fmt.Errorf("expiry in the ledger: %w", err)
		}
		if path := c.String("consent"); path != "" {
			r.Consent, err = readConsent(path)
		} else {
			r.Consent, err = b.consent(ctx, active.Consent)
		}
		if err != nil {
			return nil, err
		}
		if r.CounterKey, err = b.counterKey(ctx, r.Consent); err != nil {
			return nil, err
		}
		if err := fill(&r); err != nil {
			return nil, err
		}
		// The ledger has the last day of the service, and not what is printed on the card.
		if c.String("card-expiry") == "" && r.Now.Format(time.DateOnly) > active.Expiry {
			return nil, &spoken{
				text: msg.Of("%s on this card has ended: it was good until %s", "このカードの %s は終了しています(%s まで有効)"), args: []any{b.manifest.ID, active.Expiry},
				hint: msg.Of("where the card itself is still valid: ask the holder again, then `freearea update` with the new --consent and with --card-expiry, the date printed on the card; an expired card has to be renewed first",
					"カード自体が有効な場合は、改めて同意を得て、新しい --consent と、券面の日付の --card-expiry を指定して `freearea update` を実行してください。カードの期限が切れている場合は、先にカードの更新が必要です"),
				code: provisioner.ErrTermEnded}
		}
		d, err := b.provisioner.Desire(ctx, r)
		if err != nil {
			return nil, err
		}
		return plan(ctx, s, d)
	}})
}

// consent is a signed consent as the ledger keeps it.
func (o *office) consent(ctx context.Context, id string) (*consent.Signed, error) {
	known, err := o.ledger.Consent(ctx, id)
	if err != nil {
		return nil, err
	}
	s, err := consent.Parse(known.Signed)
	return s, about("consent "+id+" in the ledger", err)
}

// counterKey is the public key that a consent is verified with.
func (o *office) counterKey(ctx context.Context, s *consent.Signed) (public []byte, err error) {
	if public, err = o.keys.PublicKey(ctx, s.Key.Ref()); err != nil {
		return nil, fmt.Errorf("key %q that signed the consent: %w", s.Key.Name, err)
	}
	return public, nil
}

func (p *program) suspendCommand() *cli.Command {
	return &cli.Command{
		Name:      "suspend",
		Usage:     p.lang.T(msg.Of("lock a service on a card, until it is resumed", "カード上のサービスを一時停止する")),
		ArgsUsage: "MANIFEST",
		Flags:     p.onCard(),
		Action:    p.locking((*provisioner.Provisioner).PlanSuspend),
	}
}

func (p *program) resumeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     p.lang.T(msg.Of("unlock a service that was suspended", "一時停止したサービスを再開する")),
		ArgsUsage: "MANIFEST",
		Flags:     p.onCard(),
		Action:    p.locking((*provisioner.Provisioner).PlanResume),
	}
}

func (p *program) locking(plan func(*provisioner.Provisioner, context.Context, *provisioner.Session, *manifest.Manifest) (*provisioner.Plan, error)) cli.ActionFunc {
	return func(c *cli.Context) (err error) {
		b, err := p.openBench(c, staff.Cards)
		if err != nil {
			return err
		}
		defer closing(&err, b.Close)
		return p.reconcile(c, b.provisioner, job{manifest: b.manifest, plan: func(s *provisioner.Session) (*provisioner.Plan, error) {
			return plan(b.provisioner, c.Context, s, b.manifest)
		}})
	}
}

func (p *program) withdrawCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "withdraw",
		Usage:     t(msg.Of("take the consent back and erase a service from a card", "同意の撤回を記録し、サービスをカードから消去する")),
		ArgsUsage: "MANIFEST",
		Description: t(msg.Of(
			"The consent's withdrawal is recorded first, unless --keep-consent says that the holder has not taken it back. Without the card (--without-card) the ID is revoked at once, and the card is wiped when it is seen again.",
			"先に同意の撤回を記録します(--keep-consent の場合を除く)。カードがない場合(--without-card)はIDを直ちに失効させ、次にカードが置かれたときに消去します。")),
		Flags: p.onCard(p.tokensFlag(),
			&cli.BoolFlag{Name: "keep-consent", Usage: t(msg.Of("erase only: the consent holds on", "消去のみ行い、同意は有効のままにする"))},
			&cli.BoolFlag{Name: "without-card", Usage: t(msg.Of("revoke what --id or --consent names; the card is not here", "カードなしで、--id または --consent のものを失効させる"))},
			&cli.StringFlag{Name: "id", Usage: t(msg.Of("with --without-card: the `ID`", "--without-card と併用: 対象の `ID`"))},
			&cli.StringFlag{Name: "consent", Usage: t(msg.Of("with --without-card: the consent, its id or `FILE`", "--without-card と併用: 同意の番号または `FILE`"))},
		),
		Action: p.withdraw,
	}
}

func (p *program) withdraw(c *cli.Context) (err error) {
	without := c.Bool("without-card")
	if without && c.Bool("keep-consent") {
		return usagef(msg.Of("--without-card takes the consent back, and --keep-consent does not", "--without-card は同意の撤回を記録するため、--keep-consent と一緒には使えません"))
	}
	if without == (c.String("id") == "" && c.String("consent") == "") {
		return usagef(msg.Of("--without-card goes with --id or --consent, and they with it", "--without-card は --id または --consent と組み合わせて指定してください"))
	}
	b, err := p.openBench(c, staff.Cards)
	if err != nil {
		return err
	}
	defer closing(&err, b.Close)
	if without {
		return p.withdrawWithoutCard(c, b)
	}
	ctx := c.Context
	// What stands of the holder's consent: the issue that is on the card, or that
	// was taken off it with --keep-consent.
	var stands []ledger.CardIssue
	return p.reconcile(c, b.provisioner, job{manifest: b.manifest,
		plan: func(s *provisioner.Session) (*provisioner.Plan, error) {
			last, err := b.ledger.LastIssuesOn(ctx, s.CardRef)
			if err != nil {
				return nil, err
			}
			for _, i := range last {
				// Revoked is with its consent, or because another card has taken its place.
				if i.Service != b.manifest.ID || i.Revoked || c.Bool("keep-consent") {
					continue
				}
				if known, err := b.ledger.Consent(ctx, i.Consent); err != nil {
					return nil, err
				} else if !i.Ended || known.Withdrawn.IsZero() {
					stands = append(stands, i)
				}
			}
			return b.provisioner.PlanWithdraw(ctx, s, b.manifest)
		},
		more: func() bool { return len(stands) > 0 },
		before: func() error {
			for _, i := range stands {
				var on []ledger.CardIssue
				if !i.Ended {
					on = append(on, i)
				}
				if _, err := p.revoke(c, b, i.Consent, on); err != nil {
					return err
				}
			}
			return nil
		},
		recorded: msg.Of("freearea: note: it is recorded that the consent to %s is taken back, and the ID is good no more; what is left is to take it off the card",
			"freearea: お知らせ: %s の同意の撤回を記録し、IDを失効させました。カードからの取消しが残っています"),
	})
}

// revoke records that a consent was taken back and that what was issued under
// it is good no more.
func (p *program) revoke(c *cli.Context, b *bench, id string, issues []ledger.CardIssue) (int, error) {
	ctx := c.Context
	known, err := b.ledger.Consent(ctx, id)
	if err != nil {
		return 0, err
	}
	var back *consent.SignedWithdrawal
	if known.Withdrawn.IsZero() {
		signed, err := consent.Parse(known.Signed)
		if err != nil {
			return 0, about("consent "+id+" in the ledger", err)
		}
		w, err := consent.NewWithdrawal(signed, consent.Asked{Operator: p.site.Operator, Counter: p.site.Counter}, p.Now())
		if err != nil {
			return 0, err
		}
		if back, err = consent.SignWithdrawal(ctx, b.keys, keys.Ref{Name: p.site.Keys.Counter}, w); err != nil {
			return 0, err
		}
	}
	return b.provisioner.Revoke(ctx, issues, back, c.String("reason"))
}

// revocation is what `withdraw --without-card --json` prints; docs/json.md
// describes the fields.
type revocation struct {
	V           int      `json:"v"`
	Type        string   `json:"type"` // "revocation"
	Service     string   `json:"service"`
	DryRun      bool     `json:"dry_run"`
	NothingToDo bool     `json:"nothing_to_do"`
	Consent     string   `json:"consent"`
	IDs         []string `json:"ids"` // that are revoked
	Cards       int      `json:"cards"`
}

func (p *program) withdrawWithoutCard(c *cli.Context, b *bench) error {
	ctx := c.Context
	id, err := consentID(c.String("consent"))
	if err != nil {
		return err
	}
	all, err := b.ledger.EveryIssueOf(ctx, b.manifest.ID, c.String("id"), id)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: no card has or had %s of %s", ledger.ErrNotFound, cmp.Or(c.String("id"), c.String("consent")), b.manifest.ID)
	}
	// The holder's last card says under which consent the ID is; all cards
	// that have it lose it.
	last := all[len(all)-1]
	var issues []ledger.CardIssue
	for _, i := range all {
		if !i.Ended {
			issues, last = append(issues, i), i
		}
	}
	out := revocation{V: 1, Type: "revocation", Service: b.manifest.ID, DryRun: c.Bool("dry-run"), Consent: last.Consent, IDs: []string{}}
	known, err := b.ledger.Consent(ctx, last.Consent)
	if err != nil {
		return err
	}
	out.NothingToDo = !known.Withdrawn.IsZero()
	for _, i := range issues {
		if !i.Revoked {
			out.NothingToDo = false
			out.Cards++
			out.IDs = append(out.IDs, i.ID)
		}
	}
	if !out.DryRun && !out.NothingToDo {
		if _, err := p.revoke(c, b, last.Consent, issues); err != nil {
			return err
		}
	}
	switch {
	case c.Bool("json"):
		return p.printJSON(c, out)
	case out.NothingToDo:
		p.printf(msg.Of("nothing to do: it is revoked already", "変更なし: 既に失効しています"))
	case len(out.IDs) == 0 && out.DryRun:
		p.printf(wouldTakeBack, out.Service)
	case len(out.IDs) == 0:
		p.printf(tookBack, out.Service)
	case out.DryRun:
		p.printf(msg.Of("would be revoked: %s, ID %s", "失効の対象: %s、ID %s"), out.Service, strings.Join(out.IDs, ", "))
	default:
		p.printf(msg.Of("revoked: %s, ID %s; the card is wiped when it is seen again", "失効しました: %s、ID %s。カードは次に置かれたときに消去します"), out.Service, strings.Join(out.IDs, ", "))
	}
	return nil
}

// What is said where a consent is taken back and no card holds what was issued
// under it.
var (
	wouldTakeBack = msg.Of("would be recorded: the consent to %s is taken back", "記録の対象: %s の同意の撤回")
	tookBack      = msg.Of("recorded: the consent to %s is taken back; the card does not hold the service any more", "記録しました: %s の同意の撤回(サービスは既にカードから消去されています)")
)

// consentID is what names a consent: its id, or the file with the record.
func consentID(s string) (string, error) {
	if len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" || s == "" {
		return s, nil
	}
	signed, err := readConsent(s)
	if err != nil {
		return "", err
	}
	return signed.Record.ID, nil
}

// siteManifests are those of the folder that the site names, by service.
func (p *program) siteManifests() (map[string]*manifest.Manifest, error) {
	out := map[string]*manifest.Manifest{}
	if p.site.Manifests == "" {
		return out, nil
	}
	paths, err := filepath.Glob(filepath.Join(p.site.Manifests, "*.toml"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.site.Manifests); err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	for _, path := range paths {
		m, err := p.loadIssued(path)
		if err != nil {
			return nil, err
		}
		out[m.ID] = m
	}
	return out, nil
}

// wipePending erases what was revoked while the card was elsewhere, as far as
// the services' manifests are at hand, the site's or those given, and tells what
// it can't. The service that the command is about is left to it where it
// withdraws; a dry run only tells.
func (p *program) wipePending(c *cli.Context, pr *provisioner.Provisioner, s *provisioner.Session, given map[string]*manifest.Manifest) (wiped, pending []string, err error) {
	wiped, pending = []string{}, []string{}
	list, err := pr.Pending(c.Context, s)
	if err != nil || len(list) == 0 {
		return wiped, pending, err
	}
	manifests, err := p.siteManifests()
	if err != nil {
		return wiped, pending, err
	}
	maps.Copy(manifests, given)
	for _, issue := range list {
		m := manifests[issue.Service]
		if given[issue.Service] != nil && c.Command.Name == "withdraw" {
			continue
		}
		if m != nil && c.Bool("dry-run") {
			pending = append(pending, issue.Service)
			p.notef(msg.Of("freearea: note: %s was revoked and is still on this card; without --dry-run it is erased first",
				"freearea: お知らせ: 失効済みの %s がこのカードに残っています。--dry-run なしでは先に消去します"), issue.Service)
			continue
		}
		if m == nil {
			pending = append(pending, issue.Service)
			p.notef(msg.Of("freearea: note: %s was revoked and is still on this card; `freearea withdraw` with its manifest erases it",
				"freearea: お知らせ: 失効済みの %s がこのカードに残っています。そのマニフェストで `freearea withdraw` を実行すると消去します"), issue.Service)
			continue
		}
		_, err := pr.Wipe(c.Context, s, m)
		if errors.Is(err, provisioner.ErrTokenMissing) {
			pending = append(pending, issue.Service)
			p.notef(msg.Of("freearea: note: %s was revoked and is still on this card; erasing it takes tokens",
				"freearea: お知らせ: 失効済みの %s がこのカードに残っています。消去にはトークンが必要です"), issue.Service)
			continue
		}
		if errors.Is(err, provisioner.ErrOtherInstance) {
			pending = append(pending, issue.Service)
			p.notef(msg.Of("freearea: note: %s was revoked and is still on this card; erasing it takes the manifest that it was issued with",
				"freearea: お知らせ: 失効済みの %s がこのカードに残っています。消去には発行時のマニフェストが必要です"), issue.Service)
			continue
		}
		if err != nil {
			return wiped, pending, err
		}
		wiped = append(wiped, issue.Service)
		p.notef(msg.Of("freearea: note: %s was revoked; it is erased from this card now", "freearea: お知らせ: 失効済みの %s をこのカードから消去しました"), issue.Service)
	}
	return wiped, pending, nil
}

func (p *program) rekeyCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "rekey",
		Usage:     t(msg.Of("give a card the newest version of a service's read key; the old one is kept for a time", "読取鍵を最新バージョンに更新する(旧鍵は一定期間残す)")),
		ArgsUsage: "MANIFEST",
		Description: t(msg.Of(
			"What the card holds is read with the read key and written again with the new one beside it. Terminals with either version can read it until the term is over; after that, or with --finish, the old one is taken off the next time the command is run. Where the service has a PIN, the holder enters it.",
			"カードの内容を読み取り、新しい鍵を加えて書き直します。期間中はどちらの鍵の端末でも読み取れます。期間後、または --finish で、旧鍵を取り除きます。暗証番号のあるサービスでは、本人が入力します。")),
		Flags: p.onCard(
			&cli.IntFlag{Name: "keep-days", Value: 90, Usage: t(msg.Of("how long terminals may still use the old key, `DAYS`", "旧鍵を残す日数 `DAYS`"))},
			&cli.BoolFlag{Name: "finish", Usage: t(msg.Of("take the old key off now", "旧鍵を直ちに取り除く"))},
			&cli.StringFlag{Name: "pin-file", Usage: t(msg.Of("read the PIN from `FILE` instead of asking", "PINを `FILE` から読む(既定:画面で尋ねる)"))},
		),
		Action: p.rekey,
	}
}

func (p *program) rekey(c *cli.Context) (err error) {
	if days := c.Int("keep-days"); days < 1 || days > 3650 {
		return usagef(msg.Of("--keep-days %d: 1 to 3650; --finish takes the old key off at once", "--keep-days %d: 1〜3650 を指定してください。直ちに取り除くには --finish を使います"), days)
	}
	b, err := p.openBench(c, staff.Rekey)
	if err != nil {
		return err
	}
	defer closing(&err, b.Close)
	if b.manifest.Keys.Read == "" {
		return fmt.Errorf("%w: %s", provisioner.ErrNoReadKey, b.manifest.ID)
	}
	var tap *reader.Tap
	var absent error // why there is no tap; the ledger may know better
	look := func(card iso7816.Card) error {
		service, err := p.service(c.Context, b.manifest, b.keys, true)
		if err != nil {
			return err
		}
		o := reader.Options{Services: []reader.Service{service}, Keys: b.keys, Clock: p.Now, Rand: p.Rand}
		if b.manifest.PIN.Policy == manifest.PINRequired {
			pin, err := p.askPIN(c)(c.Context, reader.PINQuestion{Service: b.manifest.ID})
			if err != nil {
				return err
			}
			o.PINAtHand = true
			o.PIN = func(context.Context, reader.PINQuestion) (applets.PIN, error) { return pin, nil }
		}
		r, err := reader.New(o)
		if err != nil {
			return err
		}
		tap, err = r.Read(c.Context, card)
		if errors.Is(err, reader.ErrNoService) {
			absent, err = err, nil
		}
		return err
	}
	return p.change(c, b, look, func(r *provisioner.Request) error {
		if absent != nil {
			return absent
		}
		r.Rekey = &provisioner.Rekey{}
		if !c.Bool("finish") {
			r.Rekey.KeepUntil = r.Now.AddDate(0, 0, c.Int("keep-days"))
		}
		r.Subject.Items = map[string]string{}
		for _, item := range tap.Items {
			r.Subject.Items[item.Name] = item.Value
		}
		return nil
	}, b.provisioner.PlanIssue)
}
