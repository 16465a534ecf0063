package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
)

// keysLife are the commands for what becomes of keys.
func (p *program) keysLife() []*cli.Command {
	t := p.lang.T
	return []*cli.Command{
		{
			Name:      "rotate",
			Usage:     t(msg.Of("make the next version of a key, and keep the one before for the cards that have it", "鍵の次のバージョンを作り、発行済みカード用に前のバージョンも残す")),
			ArgsUsage: "NAME",
			Flags:     []cli.Flag{p.jsonFlag()},
			Action:    p.keysRotate,
		},
		{
			Name:      "retire",
			Usage:     t(msg.Of("take a key version out of use", "鍵のバージョンを使用停止にする")),
			ArgsUsage: "NAME VERSION",
			Flags:     []cli.Flag{p.jsonFlag()},
			Action:    p.keysRetire,
		},
		{
			Name:      "reinstate",
			Usage:     t(msg.Of("put a retired key version back into use", "使用停止にした鍵のバージョンを再び使えるようにする")),
			ArgsUsage: "NAME VERSION",
			Action:    p.keysReinstate,
		},
		{
			Name:  "change-passphrase",
			Usage: t(msg.Of("give the keystore another passphrase, and the newest format", "鍵ストアのパスフレーズを変更し、最新の形式にする")),
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "new-passphrase-file", Usage: t(msg.Of("read the new passphrase from `FILE`", "新しいパスフレーズを `FILE` から読む"))},
			},
			Action: p.keysChangePassphrase,
		},
	}
}

func (p *program) keysRotate(c *cli.Context) (err error) {
	ctx := c.Context
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	if err := p.mayManageKeys(c); err != nil {
		return err
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	entries, err := versions(store.Entries(ctx))(name)
	if err != nil {
		return err
	}
	newest := entries[len(entries)-1]
	switch {
	case newest.Kind == keys.Ledger:
		return &spoken{
			text: msg.Of("%s is a ledger key, which is not rotated as a matter of course", "%s は台帳の鍵で、定期的な更新の対象ではありません"), args: []any{name},
			hint: msg.Of("cards and tags would not be found under another one; after a leak add a version with `freearea keys add` (docs/keys.md)",
				"別の鍵ではカードや内容の照合ができなくなります。漏えいの後は `freearea keys add` でバージョンを追加してください(docs/keys.md)")}
	case newest.Public:
		return fmt.Errorf("%w: %s version %d", keys.ErrPublicOnly, name, newest.Version)
	case newest.Development:
		return fmt.Errorf("%w: %s version %d", keys.ErrDevelopmentKey, name, newest.Version)
	}
	made, err := store.Generate(ctx, keys.New{Name: name, Kind: newest.Kind, Algorithm: newest.Algorithm})
	if err != nil {
		return err
	}
	if entries, err = versions(store.Entries(ctx))(name); err != nil {
		return err
	}
	if err := p.listKeys(c, entries); err != nil || c.Bool("json") {
		return err
	}
	next := msg.Of("version %d signs from now on; give its public half to who verifies", "今後はバージョン %d で署名します。公開部分を検証者に配ってください")
	switch newest.Kind {
	case keys.Read:
		next = msg.Of("new cards get version %d; bring it to the terminals, then `freearea rekey` gives it to the cards that have an older one",
			"新しいカードにはバージョン %d が書き込まれます。先に端末に配り、その後 `freearea rekey` で発行済みカードを更新してください")
	case keys.SecurityDomain:
		next = msg.Of("a card is spoken to under the version that it names; version %d is for cards that are given it", "カードとはカードが示すバージョンで通信します。バージョン %d は今後カードに設定するためのものです")
	case keys.Token:
		next = msg.Of("tokens are made with version %d from now on; cards take them that were given that key", "今後はバージョン %d でトークンを作ります。この鍵を設定したカードだけが受け付けます")
	case keys.Receipt:
		next = msg.Of("version %d is for cards that are given it; others make receipts with the key that they have", "バージョン %d は今後カードに設定するためのものです。ほかのカードは設定済みの鍵で受領証を作ります")
	}
	p.printf(next, made.Version)
	return nil
}

// versions returns what finds the versions of a name among entries, oldest
// first.
func versions(all []keys.Entry, err error) func(name string) ([]keys.Entry, error) {
	return func(name string) ([]keys.Entry, error) {
		if err != nil {
			return nil, err
		}
		out := slices.DeleteFunc(slices.Clone(all), func(e keys.Entry) bool { return e.Name != name })
		if len(out) == 0 {
			return nil, fmt.Errorf("%w: %s", keys.ErrNotFound, name)
		}
		return out, nil
	}
}

// keyVersion reads NAME and VERSION.
func keyVersion(c *cli.Context) (ref keys.Ref, err error) {
	if c.NArg() != 2 {
		return ref, usagef(msg.Of("%s takes NAME and VERSION", "%s には NAME と VERSION を指定してください"), c.Command.Name)
	}
	version, err := strconv.ParseUint(c.Args().Get(1), 10, 7)
	if err != nil || version == 0 {
		return ref, usagef(msg.Of("VERSION %s: 1 to %d", "VERSION %s: 1〜%d を指定してください"), c.Args().Get(1), keys.MaxVersion)
	}
	return keys.Ref{Name: c.Args().First(), Version: byte(version)}, nil
}

// retirement is what `keys retire --json` prints; docs/json.md describes it.
type retirement struct {
	V        int             `json:"v"`
	Type     string          `json:"type"`
	Key      keyListing      `json:"key"`
	Services []versionNeeded `json:"services"` // null where no ledger knows
}

// versionNeeded counts a service's cards that need a version of its read key.
type versionNeeded struct {
	Service   string  `json:"service"`
	Newest    int     `json:"newest"`
	Kept      int     `json:"kept"`
	KeptUntil *string `json:"kept_until"`
}

func (p *program) keysRetire(c *cli.Context) error {
	e, err := p.changeKey(c, keystore.Retire)
	if err != nil {
		return err
	}
	var use []ledger.ReadKeyUse
	known := true
	if e.Kind == keys.Read {
		if use, known, err = p.readKeyUse(c, e.Version); err != nil {
			return err
		}
	}
	p.warnOfCards(e, use)
	if !c.Bool("json") {
		p.printf(msg.Of("retired %s version %d", "使用停止にしました: %s バージョン %d"), e.Name, e.Version)
		return nil
	}
	r := retirement{V: 1, Type: "retirement", Key: listingOf(e)}
	if known {
		r.Services = []versionNeeded{}
	}
	for _, u := range use {
		r.Services = append(r.Services, versionNeeded{u.Service, u.Newest, u.Kept, orNull(u.KeptUntil)})
	}
	return p.printJSON(c, r)
}

// changeKey changes the version of a key that the command names.
func (p *program) changeKey(c *cli.Context, change func(keystore, context.Context, keys.Ref) (keys.Entry, error)) (e keys.Entry, err error) {
	ref, err := keyVersion(c)
	if err != nil {
		return e, err
	}
	if err := p.mayManageKeys(c); err != nil {
		return e, err
	}
	store, err := p.openKeystore(c.Context, c)
	if err != nil {
		return e, err
	}
	defer closing(&err, store.Close)
	return change(store, c.Context, ref)
}

// readKeyUse asks the ledger which cards need a version of a read key, false
// where there is none. It knows versions and services, not the names of their
// keys.
func (p *program) readKeyUse(c *cli.Context, version byte) (use []ledger.ReadKeyUse, known bool, err error) {
	book, err := p.openLedger(c.Context)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer closing(&err, book.Close)
	use, err = book.ReadKeyUse(c.Context, version, p.Now().In(japan))
	return use, true, err
}

// warnOfCards warns of cards that need a version of a read key that was
// retired: of those that have no newer one, and of those that keep it beside
// a newer one for the terminals that don't have that yet.
func (p *program) warnOfCards(e keys.Entry, use []ledger.ReadKeyUse) {
	var newest, kept []string
	for _, u := range use {
		if u.Newest > 0 {
			newest = append(newest, fmt.Sprintf("%s (%d)", u.Service, u.Newest))
		}
		if u.Kept > 0 {
			kept = append(kept, p.lang.T(msg.Of("%s (%d, until %s)", "%s(%d枚、%s まで)"), u.Service, u.Kept, u.KeptUntil))
		}
	}
	if newest != nil {
		p.notef(msg.Of("freearea: warning: cards hold a read key of version %d: %s; those whose key is %s can't be read until they are rekeyed or `freearea keys reinstate %s %d`",
			"freearea: 警告: バージョン %d の読取鍵を持つカードがあります: %s。鍵が %s のサービスのカードは、rekey で更新するか `freearea keys reinstate %s %d` を実行するまで読み取れません"),
			e.Version, strings.Join(newest, ", "), e.Name, e.Name, e.Version)
	}
	if kept != nil {
		p.notef(msg.Of("freearea: warning: cards keep a read key of version %d beside a newer one: %s; those whose key is %s lose it when they are next written, and terminals without the newer one can't read them then; `freearea keys reinstate %s %d` lets them keep it",
			"freearea: 警告: 新しい読取鍵とともにバージョン %d を残しているカードがあります: %s。鍵が %s のサービスのカードからは次の書込みで取り除かれ、新しい鍵のない端末では読み取れなくなります。残すには `freearea keys reinstate %s %d` を実行してください"),
			e.Version, strings.Join(kept, ", "), e.Name, e.Name, e.Version)
	}
}

func (p *program) keysReinstate(c *cli.Context) error {
	e, err := p.changeKey(c, keystore.Reinstate)
	if err != nil {
		return err
	}
	p.printf(msg.Of("%s version %d is in use again", "再び使用できます: %s バージョン %d"), e.Name, e.Version)
	return nil
}

func (p *program) keysChangePassphrase(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	if err := p.mayManageKeys(c); err != nil {
		return err
	}
	store, err := p.openFileKeystore(c.Context, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	secret, err := passphrase.Source{File: c.String("new-passphrase-file")}.ReadNew(c.Context, p.lang.T(newPassphrase), p.lang.T(onceMore))
	if err != nil {
		return passphraseError(err)
	}
	defer clear(secret)
	if err := store.ChangePassphrase(c.Context, secret, file.Cost{}); err != nil {
		return err
	}
	p.printf(msg.Of("%s has its new passphrase; the old one opens older copies of the file only", "%s のパスフレーズを変更しました。古いパスフレーズで開けるのは、以前の写しだけです"), store.Path())
	return nil
}
