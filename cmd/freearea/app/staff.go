package app

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/staff"
)

// logName stands in the signature line of the ledger's checkpoints.
const logName = "freearea-ledger"

// signIn opens the operator's key, once; from then on the operator is known
// by the key's id.
func (p *program) signIn(ctx context.Context, c *cli.Context) (*staff.Key, error) {
	if p.operator != nil {
		return p.operator, nil
	}
	if p.site.OperatorKey == "" {
		return nil, ledger.ErrNoOperator
	}
	k, err := p.openOperatorKey(ctx, p.site.OperatorKey, p.site.OperatorPassphraseFile)
	if err != nil {
		return nil, err
	}
	p.operator, p.site.Operator = k, k.Operator()
	return k, nil
}

// second opens the key of the second operator; nil without one.
func (p *program) second(ctx context.Context, c *cli.Context) (ledger.Signer, error) {
	if c.String("second") == "" {
		return nil, nil
	}
	if p.colleague == nil {
		k, err := p.openOperatorKey(ctx, c.String("second"), c.String("second-passphrase-file"))
		if err != nil {
			return nil, err
		}
		p.colleague = k
	}
	return p.colleague, nil
}

func (p *program) openOperatorKey(ctx context.Context, path, passphraseFile string) (*staff.Key, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("operator's key: %w", err)
	}
	secret, err := passphrase.Source{File: passphraseFile}.Read(ctx, p.lang.T(msg.Of("Passphrase of %s: ", "%s のパスフレーズ: "), path))
	if err != nil {
		return nil, passphraseError(err)
	}
	defer clear(secret)
	return staff.Open(path, secret)
}

// logSigner signs checkpoints with the site's key.
func (p *program) logSigner(ctx context.Context, store keystore) (note.Signer, error) {
	ref := keys.Ref{Name: p.site.Keys.Checkpoints}
	public, err := store.PublicKey(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("key %q that signs the ledger's checkpoints: %w", ref.Name, err)
	}
	return ledger.LogSigner(logName, public, func(message []byte) ([]byte, error) {
		return store.Sign(context.WithoutCancel(ctx), ref, keys.LedgerSigning, message)
	})
}

// logKeys returns every version of the site's key of checkpoints, also those
// that sign no more: what they signed stays good.
func (p *program) logKeys(ctx context.Context, store keystore) (list []ed25519.PublicKey, err error) {
	entries, err := store.Entries(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name != p.site.Keys.Checkpoints || e.Kind != keys.LedgerSigning {
			continue
		}
		public, err := store.PublicKey(ctx, e.Ref())
		if err != nil {
			return nil, err
		}
		list = append(list, public)
	}
	return list, nil
}

// logVerifiers knows every version of the site's key of checkpoints.
func (p *program) logVerifiers(ctx context.Context, store keystore) (note.Verifiers, error) {
	versions, err := p.logKeys(ctx, store)
	if err != nil {
		return nil, err
	}
	var list []note.Verifier
	for _, public := range versions {
		v, err := ledger.LogVerifier(logName, public)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return note.VerifierList(list...), nil
}

func (p *program) staffCommand() *cli.Command {
	t := p.lang.T
	out := &cli.StringFlag{Name: "out", Usage: t(msg.Of("`FILE` to write the operator's key to", "担当者の鍵の出力 `FILE`"))}
	fresh := &cli.StringFlag{Name: "new-passphrase-file", Usage: t(msg.Of("read the new key's passphrase from `FILE`", "新しい鍵のパスフレーズを `FILE` から読む"))}
	return p.group(&cli.Command{
		Name:  "staff",
		Usage: t(msg.Of("who works here: operators, their roles and keys", "窓口の担当者、役割、署名鍵")),
		Subcommands: []*cli.Command{
			{
				Name:      "init",
				Usage:     t(msg.Of("make the ledger, with its first operator: a supervisor", "台帳と最初の担当者(責任者)を作る")),
				ArgsUsage: "ID",
				Flags:     []cli.Flag{out, fresh},
				Action:    p.staffInit,
			},
			{
				Name:      "add",
				Usage:     t(msg.Of("add an operator, who types a passphrase of his own", "担当者を追加する(パスフレーズは本人が入力)")),
				ArgsUsage: "ID",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "role", Usage: t(msg.Of("`ROLE`: clerk, supervisor, auditor or key-custodian", "役割 `ROLE`: clerk(窓口)、supervisor(責任者)、auditor(監査)、key-custodian(鍵管理)"))},
					out, fresh,
				},
				Action: p.staffAdd,
			},
			{
				Name:   "list",
				Usage:  t(msg.Of("list who works and worked here", "担当者を一覧する")),
				Flags:  []cli.Flag{p.jsonFlag()},
				Action: p.staffList,
			},
			{
				Name:      "withdraw",
				Usage:     t(msg.Of("withdraw an operator: nothing signed afterwards counts", "担当者を外す(以後の署名は無効)")),
				ArgsUsage: "ID",
				Flags:     []cli.Flag{&cli.StringFlag{Name: "reason", Usage: t(msg.Of("`WHY`", "理由 `WHY`"))}},
				Action:    p.staffWithdraw,
			},
			{
				Name:   "rules",
				Usage:  t(msg.Of("show what each role may do", "役割ごとの権限を表示する")),
				Action: p.staffRules,
			},
		},
	})
}

// newOperator draws a key and writes it to the file of --out.
func (p *program) newOperator(c *cli.Context, id string) (*staff.Key, error) {
	k, err := staff.NewKey(id, p.Rand)
	if err != nil {
		return nil, err
	}
	secret, err := passphrase.Source{File: c.String("new-passphrase-file")}.ReadNew(c.Context,
		p.lang.T(msg.Of("New passphrase of operator %s: ", "担当者 %s の新しいパスフレーズ: "), id),
		p.lang.T(msg.Of("once more: ", "もう一度: ")))
	if err != nil {
		return nil, passphraseError(err)
	}
	defer clear(secret)
	return k, k.Write(c.String("out"), secret, staff.FileOptions{Work: p.OperatorKeyWork})
}

func (p *program) staffInit(c *cli.Context) (err error) {
	id, err := oneArgument(c, "ID")
	if err != nil {
		return err
	}
	if err := required(c, "out"); err != nil {
		return err
	}
	// One that is there without an operator was begun, and not finished.
	switch begun, err := p.staffOf(c.Context); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case len(begun) > 0:
		return &spoken{text: msg.Of("there is a ledger %s already", "台帳 %s は既にあります"), args: []any{p.site.Ledger},
			hint: msg.Of("its supervisors add operators with `freearea staff add`", "担当者の追加は責任者が `freearea staff add` で行います")}
	}
	if p.sawLedger() {
		return &spoken{text: msg.Of("there was a ledger here: %s has its newest checkpoint", "以前の台帳のチェックポイント %s があります"), args: []any{p.checkpointFile()},
			hint: msg.Of("restore it from a backup: with a new one IDs may be given out twice. docs/operations.md says what to do when it is lost for good",
				"台帳をバックアップから復元してください。新しい台帳ではIDが重複するおそれがあります。失われた場合は docs/operations.md を参照してください")}
	}
	return p.addOperator(c, id, staff.Supervisor, ledger.Options{Create: true})
}

// staffOf lists who works here.
func (p *program) staffOf(ctx context.Context) (list []ledger.Operator, err error) {
	book, err := p.openLedger(ctx)
	if err != nil {
		return nil, err
	}
	defer closing(&err, book.Close)
	return book.Operators(ctx)
}

func (p *program) staffAdd(c *cli.Context) error {
	id, err := oneArgument(c, "ID")
	if err != nil {
		return err
	}
	if err := required(c, "role", "out"); err != nil {
		return err
	}
	role, err := staff.ParseRole(c.String("role"))
	if err != nil {
		return usagef(msg.Of("--role %s: clerk, supervisor, auditor or key-custodian", "--role %s: clerk、supervisor、auditor、key-custodian のいずれかを指定してください"), c.String("role"))
	}
	return p.addOperator(c, id, role, ledger.Options{})
}

// addOperator adds one with a new key; with Create, one who adds himself.
func (p *program) addOperator(c *cli.Context, id string, role staff.Role, o ledger.Options) (err error) {
	k, err := p.newOperator(c, id)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil { // a key that no ledger knows is of no use
			err = errors.Join(err, os.Remove(c.String("out")))
		}
	}()
	if o.Create {
		o.Operator, p.site.Operator = k, id
	}
	office, err := p.openOfficeWith(c.Context, c, o, true)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	if _, err := office.ledger.Append(c.Context, ledger.Event{Actor: p.actor(), Data: ledger.OperatorAdded{Operator: id, Role: role, Key: k.Public()}}); err != nil {
		return err
	}
	p.printf(msg.Of("added: operator %s, %s; the key is in %s", "追加しました: 担当者 %s(%s)、鍵は %s"), id, p.lang.T(roleText(role)), c.String("out"))
	return nil
}

func (p *program) staffWithdraw(c *cli.Context) (err error) {
	id, err := oneArgument(c, "ID")
	if err != nil {
		return err
	}
	office, err := p.openOffice(c.Context, c, staff.ChangeStaff)
	if err != nil {
		return err
	}
	defer closing(&err, office.Close)
	if _, err := office.ledger.Append(c.Context, ledger.Event{Actor: p.actor(), Reason: c.String("reason"), Data: ledger.OperatorWithdrawn{Operator: id}}); err != nil {
		return err
	}
	p.printf(msg.Of("withdrawn: operator %s; destroy the key file", "外しました: 担当者 %s。鍵のファイルは破棄してください"), id)
	return nil
}

// listedOperator is one line of `staff list --json`.
type listedOperator struct {
	V         int     `json:"v"`
	Type      string  `json:"type"`
	Operator  string  `json:"operator"`
	Role      string  `json:"role"`
	Key       string  `json:"key"` // public, hexadecimal digits
	Added     string  `json:"added"`
	Withdrawn *string `json:"withdrawn"`
}

func (p *program) staffList(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	list, err := p.staffOf(c.Context)
	if err != nil {
		return err
	}
	var w table
	enc := json.NewEncoder(p.Stdout)
	for _, o := range list {
		line := listedOperator{1, "operator", o.ID, string(o.Role), fmt.Sprintf("%x", []byte(o.Key)), utc(o.Added), nil}
		state := p.lang.T(msg.Of("at work", "在任"))
		if !o.Withdrawn.IsZero() {
			line.Withdrawn = orNull(utc(o.Withdrawn))
			state = p.lang.T(msg.Of("withdrawn %s", "解任 %s"), o.Withdrawn.In(japan).Format(time.DateTime))
		}
		if c.Bool("json") {
			if err := enc.Encode(line); err != nil {
				return err
			}
			continue
		}
		w.row(o.ID, p.lang.T(roleText(o.Role)), line.Key[:16], o.Added.In(japan).Format(time.DateTime), state)
	}
	return w.write(p.Stdout, "")
}

// utc is a time as machine output has it.
func utc(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func roleText(r staff.Role) msg.Text {
	switch r {
	case staff.Clerk:
		return msg.Of("clerk", "窓口担当")
	case staff.Supervisor:
		return msg.Of("supervisor", "責任者")
	case staff.Auditor:
		return msg.Of("auditor", "監査担当")
	case staff.KeyCustodian:
		return msg.Of("key custodian", "鍵管理担当")
	}
	return msg.Text{EN: string(r), JA: string(r)}
}

func actionText(a staff.Action) msg.Text {
	switch a {
	case staff.Consents:
		return msg.Of("record consents and their withdrawal", "同意とその撤回の記録")
	case staff.Cards:
		return msg.Of("issue, update, suspend, resume, reissue, revoke, withdraw; PINs; prepare cards and issue tokens for service providers", "発行、更新、停止、再開、再発行、失効、取消、PIN、サービス提供者のためのカードの準備とトークンの発行")
	case staff.Rekey:
		return msg.Of("give cards a new key version", "カードの鍵の更新")
	case staff.HandOver:
		return msg.Of("hand IDs over to business systems, make lists of IDs", "業務システムへの引渡し、IDリストの作成")
	case staff.Read:
		return msg.Of("prove and export the ledger", "台帳の証明、書き出し")
	case staff.Backup:
		return msg.Of("copy the ledger", "台帳の複製")
	case staff.Erase:
		return msg.Of("erase personal data", "個人データの消去")
	case staff.ChangeStaff:
		return msg.Of("add and withdraw operators", "担当者の追加と解任")
	case staff.ManageKeys:
		return msg.Of("make and retire keys", "鍵の作成と使用停止")
	case staff.ExchangeKeys:
		return msg.Of("export secret keys, import keys", "秘密鍵の書き出し、鍵の取り込み")
	}
	return msg.Text{EN: string(a), JA: string(a)}
}

func (p *program) staffRules(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	roles := func(list []staff.Role) string {
		var names []string
		for _, r := range list {
			names = append(names, p.lang.T(roleText(r)))
		}
		return strings.Join(names, ", ")
	}
	var w table
	for _, r := range staff.Rules() {
		second := ""
		if len(r.Second) > 0 {
			second = p.lang.T(msg.Of("with a second: %s", "2人目: %s"), roles(r.Second))
		}
		w.row(p.lang.T(actionText(r.Action)), roles(r.By), second)
	}
	return w.write(p.Stdout, "")
}

// openFor opens the office to an operator for something that leaves no event
// behind.
func (p *program) openFor(c *cli.Context, action staff.Action) (*office, error) {
	k, err := p.signIn(c.Context, c)
	if err != nil {
		return nil, err
	}
	office, err := p.openReading(c.Context, c)
	if err != nil {
		return nil, err
	}
	if err := allowed(c.Context, office.ledger, k, action); err != nil {
		return nil, errors.Join(err, office.Close())
	}
	return office, nil
}

// hasStaff tells whether there is a ledger to ask. A keystore beside none is a
// new counter's, or a terminal's, unless the checkpoint beside it tells that
// there was one.
func (p *program) hasStaff() (bool, error) {
	_, err := os.Stat(p.site.Ledger)
	if !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	if p.sawLedger() {
		return false, p.missingLedger(err)
	}
	return false, nil
}

// mayManageKeys tells whether who has signed in may make and retire keys.
func (p *program) mayManageKeys(c *cli.Context) error { return p.may(c, staff.ManageKeys) }

// mayExchangeKeys tells whether the two who have signed in may let keys in or
// out, before people are asked for anything. recordExchange holds them to it.
func (p *program) mayExchangeKeys(c *cli.Context) error { return p.may(c, staff.ExchangeKeys) }

// may tells whether who has signed in may do something that leaves no event
// behind, where there is a staff.
func (p *program) may(c *cli.Context, action staff.Action) (err error) {
	if staffed, err := p.hasStaff(); err != nil || !staffed {
		return err
	}
	book, err := p.openLedger(c.Context)
	if err != nil {
		return err
	}
	defer closing(&err, book.Close)
	k, err := p.signIn(c.Context, c)
	if err != nil {
		return err
	}
	if err := allowed(c.Context, book, k, action); err != nil {
		return err
	}
	rule := staff.RuleOf(action)
	if len(rule.Second) == 0 {
		return nil
	}
	if _, err := p.second(c.Context, c); err != nil {
		return err
	}
	if p.colleague == nil {
		return fmt.Errorf("%w (%s)", ledger.ErrSecond, action)
	}
	second, err := atWork(c.Context, book, p.colleague)
	if err == nil && (second.ID == k.Operator() || !rule.AllowsSecond(second.Role)) {
		err = fmt.Errorf("%w: %s, %s, can't be the second (%s)", ledger.ErrSecond, second.ID, second.Role, action)
	}
	return err
}

// recordExchange records, in the names of two, that keys leave or come, before
// they do.
func (p *program) recordExchange(c *cli.Context, store keystore, d ledger.KeysExchanged) (err error) {
	if staffed, err := p.hasStaff(); err != nil || !staffed {
		return err
	}
	var o ledger.Options
	if o.Operator, err = p.signIn(c.Context, c); err != nil {
		return err
	}
	if o.Second, err = p.second(c.Context, c); err != nil {
		return err
	}
	office, err := p.furnish(c.Context, c, store, o, true)
	if err != nil {
		return err
	}
	defer closing(&err, office.closeLedger)
	_, err = office.ledger.Append(c.Context, ledger.Event{Actor: p.actor(), Data: d})
	return err
}

func allowed(ctx context.Context, book *ledger.Ledger, k *staff.Key, action staff.Action) error {
	operator, err := atWork(ctx, book, k)
	if err == nil && !staff.RuleOf(action).Allows(operator.Role) {
		err = fmt.Errorf("%w: %s is %s (%s)", ledger.ErrNotAllowed, operator.ID, operator.Role, action)
	}
	return err
}

// atWork finds the operator whose key it is, who must not be withdrawn.
func atWork(ctx context.Context, book *ledger.Ledger, k *staff.Key) (ledger.Operator, error) {
	list, err := book.Operators(ctx)
	if err != nil {
		return ledger.Operator{}, err
	}
	operator := k.Operator()
	at := slices.IndexFunc(list, func(x ledger.Operator) bool { return x.ID == operator && x.Key.Equal(k.Public()) })
	switch {
	case at < 0:
		return ledger.Operator{}, fmt.Errorf("%w: %s", ledger.ErrOperator, operator)
	case !list[at].Withdrawn.IsZero():
		return ledger.Operator{}, fmt.Errorf("%w: %s", ledger.ErrDismissed, operator)
	}
	return list[at], nil
}
