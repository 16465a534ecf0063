package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/staff"
)

func (p *program) reissueCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "reissue",
		Usage:     t(msg.Of("carry what a renewed, lost or broken card held to the holder's new card", "更新・紛失・破損したカードのサービスを新しいカードへ引き継ぐ")),
		ArgsUsage: "[MANIFEST…]",
		Description: t(msg.Of(
			"The ledger says what the old card held. For each service the holder is asked again, as the consent notice has promised (--consent, or --ask to ask on the screen); then it is issued to the new card and the old card's issue is revoked. The ID stays, except after a loss, where it is drawn anew unless the service's IDs are given. Manifests are the arguments and those in the site's folder. Running it again goes on where it stopped.",
			"旧カードのサービスを台帳から調べ、同意文で約束したとおり改めて同意を得て(--consent、または画面で尋ねる --ask)新カードへ発行し、旧カードの発行を失効させます。IDは引き継ぎます。紛失の場合は新しいIDになります(IDが外部から与えられるサービスを除く)。マニフェストは引数とサイトのフォルダーのものを使います。もう一度実行すると続きから再開します。")),
		Flags: p.onCard(
			&cli.StringFlag{Name: "cause", Usage: t(msg.Of("`CAUSE`: renewed, lost or broken", "理由 `CAUSE`: renewed(更新)、lost(紛失)、broken(破損)"))},
			&cli.StringFlag{Name: "old-id", Usage: t(msg.Of("an `ID` of the old card, or SERVICE:ID", "旧カードの `ID`、またはサービス:ID"))},
			&cli.StringFlag{Name: "old-consent", Usage: t(msg.Of("a consent of the old card, its id or `FILE`", "旧カードの同意の番号または `FILE`"))},
			&cli.StringFlag{Name: "old-card", Usage: t(msg.Of("the old card itself, in another slot: `pcsc:NAME` or image:FILE; it is wiped in the end", "別のスロットにある旧カード `pcsc:スロット名` または image:ファイル(最後に消去する)"))},
			p.cardExpiryFlag(),
			&cli.StringSliceFlag{Name: "consent", Usage: t(msg.Of("a new consent, `FILE`; repeat for each service", "新しい同意 `FILE`(サービスごとに繰り返す)"))},
			&cli.BoolFlag{Name: "ask", Usage: t(msg.Of("ask the holder on the screen, for services that allow it", "必要な同意を画面で本人に尋ねる"))},
			&cli.StringSliceFlag{Name: "item", Usage: t(msg.Of("an item, `SERVICE.NAME=VALUE`; repeat for each", "項目 `サービス.項目名=値`(項目ごとに繰り返す)"))},
			&cli.StringSliceFlag{Name: "id", Usage: t(msg.Of("another ID for a service whose IDs are given, `SERVICE=ID`", "IDが外部から与えられるサービスの新しいID `サービス=ID`"))},
			&cli.StringFlag{Name: "pin-file", Usage: t(msg.Of("read the PINs from `FILE` instead of asking", "PINを `FILE` から読む(既定:画面で尋ねる)"))},
			p.tokensFlag(),
		),
		Action: p.reissue,
	}
}

// reissued is what `reissue --json` prints; docs/json.md describes the fields.
type reissued struct {
	V        int           `json:"v"`
	Type     string        `json:"type"` // "reissue"
	Cause    string        `json:"cause"`
	DryRun   bool          `json:"dry_run"`
	Services []*carriedOne `json:"services"`
	Wiped    []string      `json:"wiped"` // from the old card
}

// carriedOne is one service of the old card.
type carriedOne struct {
	Service     string   `json:"service"`
	OldID       string   `json:"old_id"`
	Outcome     string   `json:"outcome"` // see the constants
	Consent     *string  `json:"consent"` // under which it is issued
	Reason      *string  `json:"reason"`  // why it is not carried, in English
	Steps       []string `json:"steps"`
	ID          *string  `json:"id"`
	IssueNumber uint16   `json:"issue_number"`
	Expiry      *string  `json:"expiry"`

	issue    ledger.CardIssue
	manifest *manifest.Manifest
	request  provisioner.Request
	why      msg.Text
	whyArgs  []any
	err      error
}

// Outcomes of a service.
const (
	outReady   = "ready"   // can be carried
	outDone    = "done"    // is on the new card
	outWaiting = "waiting" // something is missing: a consent, an item, a manifest
	outLeft    = "left"    // is not carried: suspended, withdrawn
)

// waits notes what is missing. An error among the arguments is worded for
// people when it is shown.
func (x *carriedOne) waits(outcome string, why msg.Text, args ...any) {
	x.Outcome, x.why, x.whyArgs = outcome, why, args
	x.Reason = orNull(oneLine(msg.English.T(why, args...)))
}

// reason is what [carriedOne.waits] noted, for people.
func (p *program) reason(x *carriedOne) string {
	args := slices.Clone(x.whyArgs)
	for i, a := range args {
		if err, ok := a.(error); ok {
			args[i] = p.inWords(err)
		}
	}
	return p.lang.T(x.why, args...)
}

func (p *program) reissue(c *cli.Context) (err error) {
	ctx := c.Context
	if err := required(c, "cause"); err != nil {
		return err
	}
	cause := ledger.Cause(c.String("cause"))
	switch cause {
	case ledger.CauseRenewed, ledger.CauseLost, ledger.CauseBroken:
	default:
		return usagef(msg.Of("--cause %s: renewed, lost or broken", "--cause %s: renewed、lost、broken のいずれかを指定してください"), string(cause))
	}
	named := 0
	for _, f := range []string{"old-id", "old-consent", "old-card"} {
		if c.String(f) != "" {
			named++
		}
	}
	if named != 1 {
		return usagef(msg.Of("one of --old-id, --old-consent and --old-card says which card it was", "旧カードを --old-id、--old-consent、--old-card のいずれか1つで指定してください"))
	}
	if c.Bool("ask") && c.Bool("json") {
		return usagef(msg.Of("--ask shows a text to the holder, and does not go with --json", "--ask は本人に文面を示すため、--json と一緒には使えません"))
	}
	manifests, err := p.siteManifests()
	if err != nil {
		return err
	}
	for _, path := range c.Args().Slice() {
		m, err := p.loadIssued(path)
		if err != nil {
			return err
		}
		manifests[m.ID] = m
	}
	expiry, err := dateFlag(c, "card-expiry")
	if err != nil {
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
	var oldRef ledger.CardRef
	if c.String("old-card") != "" {
		if oldRef, err = p.withOldCard(c, pr, nil); err != nil {
			return fmt.Errorf("the old card: %w", err)
		}
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
	if oldRef == "" {
		if oldRef, err = office.oldCard(ctx, c, session.CardRef); err != nil {
			return err
		}
	}
	if old, err := office.isOld(ctx, oldRef, session.CardRef); err != nil || old {
		return cmp.Or[error](err, errOldCardHere)
	}
	// Whatever was revoked without this card makes room for what is carried.
	if _, _, err := p.wipePending(c, pr, session, manifests); err != nil {
		return err
	}
	out := reissued{V: 1, Type: "reissue", Cause: string(cause), DryRun: c.Bool("dry-run"), Services: []*carriedOne{}, Wiped: []string{}}
	if out.Services, err = p.carried(c, office, manifests, oldRef, session.CardRef, cause, expiry); err != nil {
		return err
	}
	for _, x := range out.Services {
		if x.Outcome == outReady {
			p.carry(c, pr, session, x)
		}
		if x.err != nil && !out.DryRun {
			break // the next run goes on from here
		}
	}
	if c.String("old-card") != "" && !out.DryRun {
		if _, err := p.withOldCard(c, pr, func(old *provisioner.Provisioner, s *provisioner.Session) (err error) {
			out.Wiped, _, err = p.wipePending(c, old, s, manifests)
			return err
		}); err != nil {
			p.notef(msg.Of("freearea: note: the old card could not be wiped: %s", "freearea: お知らせ: 旧カードを消去できませんでした: %s"), err.Error())
		}
	}
	return p.reportReissue(c, out)
}

// errOldCardHere: the new card is not on its slot.
var errOldCardHere = &spoken{text: msg.Of("the card on the slot is the old one", "置かれているのは旧カードです"),
	hint: msg.Of("put the holder's new card on it; an old card that is at hand is named with --old-card, in another slot", "新しいカードを置いてください。旧カードが手元にある場合は、別のスロットに置いて --old-card で指定します")}

// withOldCard connects to the old card, and does something with it; do may be
// nil.
func (p *program) withOldCard(c *cli.Context, pr *provisioner.Provisioner, do func(*provisioner.Provisioner, *provisioner.Session) error) (ref ledger.CardRef, err error) {
	card, closeCard, err := p.openNamed(c, c.String("old-card"))
	if err != nil {
		return "", err
	}
	defer closing(&err, closeCard)
	old := *pr
	old.Card, old.Progress = card, nil
	session, err := old.Connect(c.Context)
	if err != nil {
		return "", err
	}
	defer session.Close()
	if do != nil {
		err = do(&old, session)
	}
	return session.CardRef, err
}

// isOld reports whether the card that is to take the other's place is an old one
// itself.
func (o *office) isOld(ctx context.Context, old, card ledger.CardRef) (bool, error) {
	if old == card {
		return true, nil
	}
	if linked, err := o.ledger.Replaced(ctx, old, card); err != nil || linked {
		return false, err
	}
	return o.ledger.WasReplaced(ctx, card)
}

// oldCard finds the card by an ID or a consent that it has or had. A run that
// is repeated finds the new card with them too, and finds the old one also when
// nothing is left on it.
func (o *office) oldCard(ctx context.Context, c *cli.Context, card ledger.CardRef) (ledger.CardRef, error) {
	service, id, ok := strings.Cut(c.String("old-id"), ":")
	if !ok {
		service, id = "", service
	}
	consent, err := consentID(c.String("old-consent"))
	if err != nil {
		return "", err
	}
	issues, err := o.ledger.EveryIssueOf(ctx, service, id, consent)
	if err != nil {
		return "", err
	}
	var found, replaced []ledger.CardRef
	here := false
	for _, i := range issues {
		if i.Card == card {
			here = here || !i.Revoked && !i.Ended
			continue
		}
		is, err := o.ledger.Replaced(ctx, i.Card, card)
		if err != nil {
			return "", err
		}
		switch {
		case is:
			replaced = append(replaced, i.Card)
		case !i.Revoked && !i.Ended:
			found = append(found, i.Card)
		}
	}
	if len(replaced) > 0 {
		return replaced[len(replaced)-1], nil
	}
	switch {
	case len(found) == 0 && here:
		return "", errOldCardHere
	case len(found) == 0:
		return "", fmt.Errorf("%w: no other card holds %s", ledger.ErrNotFound, cmp.Or(c.String("old-id"), c.String("old-consent")))
	case len(found) > 1:
		return "", &spoken{text: msg.Of("several cards have that ID", "そのIDのカードが複数あります"),
			hint: msg.Of("name the service with it: --old-id SERVICE:ID", "--old-id サービス:ID のように、サービスも指定してください")}
	}
	return found[0], nil
}

// carried finds out for each service of the old card whether it can be carried,
// and what is missing.
func (p *program) carried(c *cli.Context, o *office, manifests map[string]*manifest.Manifest, old, card ledger.CardRef, cause ledger.Cause, expiry time.Time) ([]*carriedOne, error) {
	ctx := c.Context
	issues, err := o.ledger.LastIssuesOn(ctx, old)
	if err != nil {
		return nil, err
	}
	// What was withdrawn is no more; what was carried stays on the list when it
	// is wiped.
	issues = slices.DeleteFunc(issues, func(i ledger.CardIssue) bool { return i.Ended && !passedOn(i) })
	consents, err := givenConsents(c, issues)
	if err != nil {
		return nil, err
	}
	out := []*carriedOne{}
	for _, i := range issues {
		x := &carriedOne{Service: i.Service, OldID: i.ID, Outcome: outReady, Steps: []string{}, issue: i, manifest: manifests[i.Service]}
		out = append(out, x)
		active, ok, err := o.ledger.ActiveIssue(ctx, i.Service, card)
		if err != nil {
			return nil, err
		}
		held, err := o.ledger.IsSuspended(ctx, i.Service, old)
		if err != nil {
			return nil, err
		}
		switch {
		case passedOn(i) && ok:
			x.Outcome, x.ID, x.IssueNumber, x.Consent = outDone, orNull(active.ID), active.IssueNumber, orNull(active.Consent)
			x.Expiry = orNull(active.Expiry)
			continue
		case i.Revoked:
			x.waits(outLeft, msg.Of("it was revoked", "失効済みです"))
			continue
		case held:
			x.waits(outLeft, msg.Of("it is suspended", "停止中です"))
			continue
		case x.manifest == nil:
			x.waits(outWaiting, msg.Of("its manifest is needed", "マニフェストが必要です"))
			continue
		}
		if err := p.prepareCarried(c, o, x, consents[i.Service], card, cause, expiry); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// passedOn reports whether another card has taken the place of the one with
// the issue.
func passedOn(i ledger.CardIssue) bool { return i.Revoked && i.Cause != ledger.CauseWithdrawn }

// givenConsents are those of the command line, by service. What is said there of
// a service that the old card does not hold is a mistake, most often of writing.
func givenConsents(c *cli.Context, issues []ledger.CardIssue) (map[string]*consent.Signed, error) {
	holds := func(service string) bool {
		return slices.ContainsFunc(issues, func(i ledger.CardIssue) bool { return i.Service == service })
	}
	for flag, mark := range map[string]string{"item": ".", "id": "="} {
		for _, pair := range c.StringSlice(flag) {
			if service, _, _ := strings.Cut(pair, mark); len(issues) > 0 && !holds(service) {
				return nil, usagef(msg.Of("--%s %s: the old card has no such service", "--%s %s: 旧カードにこのサービスはありません"), flag, service)
			}
		}
	}
	consents := map[string]*consent.Signed{}
	for _, path := range c.StringSlice("consent") {
		s, err := readConsent(path)
		if err != nil {
			return nil, err
		}
		service := s.Record.Service
		switch {
		case len(issues) > 0 && !holds(service):
			return nil, usagef(msg.Of("--consent %s: it is for %s, and the old card has no such service", "--consent %s: %s の同意ですが、旧カードにこのサービスはありません"), path, service)
		case consents[service] != nil:
			return nil, usagef(msg.Of("--consent %s: another one is for %s too", "--consent %s: %s の同意が2つ指定されています"), path, service)
		}
		consents[service] = s
	}
	return consents, nil
}

// prepareCarried makes the request for one service.
func (p *program) prepareCarried(c *cli.Context, o *office, x *carriedOne, given *consent.Signed, card ledger.CardRef, cause ledger.Cause, expiry time.Time) error {
	ctx, m := c.Context, x.manifest
	subject, err := subjectOf(c, m)
	if err != nil {
		return err
	}
	subject.KeepPIN = m.PIN.Policy == manifest.PINRequired // until the holder is asked
	newID := subject.ID != "" && subject.ID != x.issue.ID || cause == ledger.CauseLost && m.IDScheme.Kind != manifest.IDGiven
	if m.IDScheme.Kind == manifest.IDGiven && subject.ID == "" {
		subject.ID = x.issue.ID
	}
	if err := m.CheckSubject(subject); err != nil {
		x.waits(outWaiting, msg.Of("an item or the ID is missing or wrong: %s", "項目またはIDに不足か誤りがあります: %s"), err)
		return nil
	}
	now := p.Now().In(japan)
	signed := given
	if signed == nil { // a run that was torn has one
		if signed, err = o.begun(ctx, x.Service, card); err != nil {
			return err
		}
	}
	// The holder was told: when the card is renewed or replaced, you are asked
	// again before anything is recorded.
	if signed == nil {
		if !c.Bool("ask") || c.Bool("dry-run") || !slices.Contains(m.Consent.Methods, string(consent.Screen)) {
			x.waits(outWaiting, msg.Of("the holder is to be asked again (--consent FILE)", "改めて同意が必要です(--consent FILE)"))
			return nil
		}
		signed, err = p.askAgain(c, o, m, m.SubjectItems(subject))
		if errors.As(err, new(*spoken)) {
			x.waits(outWaiting, msg.Of("the holder did not agree", "本人の同意が得られませんでした"))
			return nil
		}
		if err != nil {
			return err
		}
	}
	public, err := o.counterKey(ctx, signed)
	if err == nil {
		err = signed.Covers(public, m, m.SubjectItems(subject), now)
	}
	if err != nil {
		x.waits(outWaiting, msg.Of("the consent can't be used: %s", "この同意は使えません: %s"), err)
		return nil
	}
	file, err := m.OpenLoadFile()
	if err != nil {
		return err
	}
	x.Consent = orNull(signed.Record.ID)
	x.request = provisioner.Request{
		Manifest: m, LoadFile: file, Consent: signed, Subject: subject, CardExpiry: expiry, Now: now, Reason: c.String("reason"),
		Carry: &provisioner.Carry{From: x.issue.Issued, Cause: cause, NewID: newID}, CounterKey: public,
	}
	return nil
}

// begun is the consent under which a run on the card has begun for a service
// and was not done, nil without one.
func (o *office) begun(ctx context.Context, service string, card ledger.CardRef) (*consent.Signed, error) {
	runs, err := o.ledger.UnfinishedRuns(ctx, card)
	for _, r := range slices.Backward(runs) {
		if r.Service == service && r.Purpose == provisioner.Reissue {
			return o.consent(ctx, r.Consent)
		}
	}
	return nil, err
}

// subjectOf takes from the flags what is this service's.
func subjectOf(c *cli.Context, m *manifest.Manifest) (manifest.Subject, error) {
	s := manifest.Subject{Items: map[string]string{}}
	for _, pair := range c.StringSlice("item") {
		name, value, ok := strings.Cut(pair, "=")
		service, item, dotted := strings.Cut(name, ".")
		if !ok || !dotted {
			return s, usagef(msg.Of("--item %s: SERVICE.NAME=VALUE is expected", "--item %s: サービス.項目名=値 の形で指定してください"), name)
		}
		if service == m.ID {
			s.Items[item] = value
		}
	}
	for _, pair := range c.StringSlice("id") {
		service, id, ok := strings.Cut(pair, "=")
		if !ok {
			return s, usagef(msg.Of("--id %s: SERVICE=ID is expected", "--id %s: サービス=ID の形で指定してください"), service)
		}
		if service == m.ID {
			s.ID = id
		}
	}
	return s, nil
}

// askAgain asks the holder on the screen, and records the answer.
func (p *program) askAgain(c *cli.Context, o *office, m *manifest.Manifest, items []string) (*consent.Signed, error) {
	options := consent.Options{
		Language: string(p.lang), Items: items, Method: consent.Screen, Format: consent.Text,
		Asked: consent.Asked{Operator: p.site.Operator, Counter: p.site.Counter}, Given: p.Now(), Rand: p.Rand,
	}
	record, err := consent.New(m, options) // refuses before the holder is asked
	if err != nil {
		return nil, err
	}
	if err := p.askHolder(m, options); err != nil {
		return nil, err
	}
	signed, err := consent.Sign(c.Context, o.keys, keys.Ref{Name: p.site.Keys.Counter}, record)
	if err != nil {
		return nil, err
	}
	pr := &provisioner.Provisioner{Ledger: o.ledger, Actor: p.actor()}
	return signed, pr.RecordConsent(c.Context, signed)
}

// carry issues one service to the new card.
func (p *program) carry(c *cli.Context, pr *provisioner.Provisioner, s *provisioner.Session, x *carriedOne) {
	ctx := c.Context
	plan := func() (*provisioner.Plan, error) {
		d, err := pr.Desire(ctx, x.request)
		if err != nil {
			return nil, err
		}
		return pr.PlanIssue(ctx, s, d)
	}
	todo, err := plan()
	// The holder chooses a PIN only where the card has none of the service yet.
	if errors.Is(err, provisioner.ErrPINMissing) && !c.Bool("dry-run") {
		var pin []byte
		if !c.Bool("json") && c.String("pin-file") == "" {
			p.notef(msg.Of("%s:", "%s:"), x.Service)
		}
		if pin, err = p.newPIN(c); err == nil {
			defer clear(pin)
			x.request.Subject.PIN, x.request.Subject.KeepPIN = manifest.PINDigits(pin), false
			todo, err = plan()
		}
	}
	var result *provisioner.Result
	if err == nil {
		for _, step := range todo.Steps {
			x.Steps = append(x.Steps, string(step.Name))
		}
		if c.Bool("dry-run") {
			return
		}
		done := p.progress(c, pr)
		result, err = pr.Run(ctx, s, todo)
		done()
	}
	switch {
	case errors.Is(err, provisioner.ErrPINMissing) && c.Bool("dry-run"):
		x.why = msg.Of("the holder chooses a PIN", "本人が暗証番号を決めます")
		return
	case err != nil:
		x.err = err
		x.waits(outWaiting, msg.Of("it failed: %s", "実行できませんでした: %s"), err)
		return
	}
	x.Outcome, x.ID, x.IssueNumber = outDone, orNull(result.ID), result.IssueNumber
	if !result.Expiry.IsZero() {
		x.Expiry = orNull(result.Expiry.Format(time.DateOnly))
	}
}

// reportReissue is the one screen: every service, where it is and what is
// missing.
func (p *program) reportReissue(c *cli.Context, out reissued) error {
	waiting := 0
	var failed error
	var w table
	for _, x := range out.Services {
		if x.Outcome == outWaiting || x.Outcome == outReady && !out.DryRun {
			waiting++
		}
		failed = errors.Join(failed, x.err)
		state, detail := p.lang.T(outcomeText(x.Outcome)), ""
		switch {
		case x.ID != nil && *x.ID == x.OldID:
			detail = p.lang.T(msg.Of("issue number %d", "発行番号 %d"), x.IssueNumber)
		case x.ID != nil:
			detail = p.lang.T(msg.Of("new ID %s, issue number %d", "新しいID %s、発行番号 %d"), *x.ID, x.IssueNumber)
		case x.why != (msg.Text{}):
			detail = p.reason(x)
		case len(x.Steps) > 0:
			detail = strings.Join(x.Steps, ", ")
		}
		w.row(x.Service, x.OldID, state, detail)
	}
	if c.Bool("json") {
		if err := p.printJSON(c, out); err != nil {
			return err
		}
	} else if err := w.write(p.Stdout, ""); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return failed
	case len(out.Services) == 0:
		return fmt.Errorf("%w: the old card holds no service any more", ledger.ErrNotFound)
	case waiting > 0 && !out.DryRun:
		return &spoken{text: msg.Of("services that are not carried over yet: %d of %d", "まだ引き継いでいないサービス: %d 件(全 %d 件)"), args: []any{waiting, len(out.Services)},
			hint: msg.Of("give what is missing and run the same command again; what is done stays done", "不足しているものを指定して、同じコマンドをもう一度実行してください。完了したものはそのままです")}
	}
	return nil
}

func outcomeText(outcome string) msg.Text {
	switch outcome {
	case outReady:
		return msg.Of("ready", "引継ぎ可能")
	case outDone:
		return msg.Of("carried over", "引継ぎ完了")
	case outWaiting:
		return msg.Of("waiting", "要対応")
	}
	return msg.Of("left", "対象外")
}
