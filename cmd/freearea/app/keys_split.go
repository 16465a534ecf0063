package app

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/pkcs11"
	"github.com/freearea/freearea/ledger"
)

func (p *program) splitCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "split",
		Usage:     t(msg.Of("show a key to several custodians, to each one component, for a copy on paper", "鍵を成分に分け、複数の管理者に1つずつ示して紙の控えを作る")),
		ArgsUsage: "NAME",
		Description: t(msg.Of(
			"Each custodian alone sees a component with its check value, once, writes it on a sheet, and types it back from there, unseen. The sheets of all make the key again (`keys ceremony`); all but one of them tell nothing of it. Keys in a token can't be split.",
			"各管理者は自分の成分とチェック値を一度だけ1人で見て用紙に書き、用紙から(表示されずに)入力し直します。すべての用紙がそろえば `keys ceremony` で鍵を復元でき、1つでも欠けると鍵については何も分かりません。トークン内の鍵は分けられません。")),
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "components", Value: 2, Usage: t(msg.Of("number `N` of components, 2 to 9", "成分の数 `N`、2〜9"))},
			&cli.IntFlag{Name: "key-version", Usage: t(msg.Of("version `N` of the key (the newest in use)", "鍵のバージョン `N`(既定:使用中の最新)"))},
		},
		Action: p.keysSplit,
	}
}

func (p *program) keysSplit(c *cli.Context) (err error) {
	ctx := c.Context
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	count, version, err := componentFlags(c)
	if err != nil {
		return err
	}
	if keys.InToken(p.site.Keystore) {
		return &spoken{
			text: msg.Of("%s is in the token %s, which lets no key out: it can't be split", "%s はトークン %s の中にあり、取り出せないため、成分に分けられません"), args: []any{name, pkcs11.Redact(p.site.Keystore)},
			hint: msg.Of("back the token up as its maker says; a key that is to be on sheets is split in a keystore in a file, and comes into the token by `freearea keys ceremony`",
				"トークンは付属の手順でバックアップしてください。用紙に控える鍵は、ファイルの鍵ストアで分けてから `freearea keys ceremony` でトークンに入れます")}
	}
	if err := p.mayExchangeKeys(c); err != nil {
		return err
	}
	store, err := p.openFileKeystore(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	e, set, err := store.Masters(ctx, keys.Ref{Name: name, Version: version})
	if err != nil {
		return err
	}
	defer set.Erase()
	parts, err := split(p.Rand, set, count)
	if err != nil {
		return err
	}
	defer func() {
		for i := range parts {
			parts[i].Erase()
		}
	}()

	var terminal passphrase.Terminal
	again, err := terminal.AskOpenly(ctx, p.lang.T(msg.Of("The key %s version %d leaves the keystore in %d components. Type its name again: ", "鍵 %s バージョン %d を %d 個の成分に分けて鍵ストアの外に出します。名前をもう一度入力してください: "), e.Name, e.Version, count))
	if err != nil {
		return err
	}
	if strings.TrimSpace(again) != e.Name {
		return &spoken{text: msg.Of("nothing was shown", "何も表示していません"), hint: msg.Of("the question must be answered as it says", "質問に、指示どおりに答えてください")}
	}
	if err := p.recordExchange(c, store, ledger.KeysExchanged{
		Direction: "export", Keys: []string{fmt.Sprintf("%s/%d", e.Name, e.Version)},
		With: fmt.Sprintf("split: %d components, check value %s", count, e.Check),
	}); err != nil {
		return err
	}

	sheets := newCombined(keys.New{Kind: e.Kind, Algorithm: e.Algorithm})
	defer sheets.erase()
	for i, part := range parts {
		p.notef(msg.Of("Component %d of %d: its custodian alone is at the keyboard and sees the screen.", "成分 %d/%d: この成分の管理者だけが入力してください。"), i+1, count)
		if _, err := terminal.AskOpenly(ctx, p.lang.T(msg.Of("Press Enter to see it, once: ", "Enter を押すと一度だけ表示します: "))); err != nil {
			return err
		}
		if err := terminal.Show(ctx, p.sheet(e, i+1, part, sheets.names, count), p.lang.T(msg.Of("Write all of it on your sheet; Enter takes it off the screen. ", "すべてを用紙に書き写してください。Enter で画面から消します。"))); err != nil {
			return err
		}
		if err := p.readComponent(ctx, sheets, part.Keys()); errors.Is(err, errComponent) {
			return errSheet
		} else if err != nil {
			return err
		}
	}
	whole, err := sheets.set(e.Version)
	if err != nil {
		return err
	}
	defer whole.Erase()
	for i, k := range whole.Keys() {
		if !k.Equal(set.Keys()[i]) {
			return errors.New("the components don't make the key")
		}
	}
	p.printf(msg.Of("%s version %d, check value %s: %d sheets make it again by `freearea keys ceremony`", "%s バージョン %d、チェック値 %s: %d 枚の用紙がそろえば `freearea keys ceremony` で復元できます"), e.Name, e.Version, e.Check, count)
	return nil
}

// errSheet: what a custodian typed back is not what was shown.
var errSheet = &spoken{
	text: msg.Of("a sheet does not say what was shown", "用紙の内容が表示した成分と一致しません"),
	hint: msg.Of("destroy the sheets and split the key again: the components will be others", "用紙を破棄してやり直してください。成分は新しく作り直されます")}

// split draws components of a key set whose exclusive or it is. All but the
// last are drawn at random, so that without one of them nothing is known.
func split(rand io.Reader, set keys.Set, count int) (parts []keys.Set, err error) {
	defer func() {
		if err != nil {
			for i := range parts {
				parts[i].Erase()
			}
		}
	}()
	last := set.Clone()
	for range count - 1 {
		part := keys.Set{Version: set.Version}
		drawn := []*keys.Key{&part.ENC, &part.MAC, &part.DEK}
		for j, k := range last.Keys() {
			if *drawn[j], err = keys.GenerateKey(rand, k.Len()); err != nil {
				return append(parts, part, last), err
			}
			subtle.XORBytes(k.Bytes(), k.Bytes(), drawn[j].Bytes())
		}
		parts = append(parts, part)
	}
	return append(parts, last), nil
}

// sheet is what a custodian sees and writes down.
func (p *program) sheet(e keys.Entry, number int, part keys.Set, names []string, count int) string {
	var b strings.Builder
	fmt.Fprintln(&b, p.lang.T(msg.Of("Component %d of %d of %s version %d, %s, %s", "%[3]s バージョン %[4]d(%[5]s、%[6]s)の成分 %[1]d/%[2]d"), number, count, e.Name, e.Version, e.Kind, e.Algorithm))
	for i, k := range part.Keys() {
		digits := fmt.Sprintf("%X", k.Bytes())
		for at := 0; at < len(digits); at += 4 {
			switch {
			case at == 0:
				fmt.Fprintf(&b, "  %-4s", names[i])
			case at%32 == 0:
				b.WriteString("\n      ")
			}
			b.WriteString(" " + digits[at:at+4])
		}
		fmt.Fprintln(&b, p.lang.T(msg.Of("   check value %X", "   チェック値 %X"), k.CheckValue()))
	}
	fmt.Fprintln(&b, p.lang.T(msg.Of("Check value of the whole key: %s", "鍵全体のチェック値: %s"), e.Check))
	return b.String()
}
