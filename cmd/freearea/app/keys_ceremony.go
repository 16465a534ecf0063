package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
)

// maxComponents is how many custodians a key can have.
const maxComponents = 9

func (p *program) keysCeremonies() []*cli.Command {
	t := p.lang.T
	return []*cli.Command{{
		Name:      "ceremony",
		Usage:     t(msg.Of("put a key together from the components of several custodians", "複数の管理者が持つ成分から鍵を組み立てる")),
		ArgsUsage: "NAME",
		Description: t(msg.Of(
			"Each custodian types a component at the terminal, unseen, and compares its check value. The key is the exclusive or of all; no component is written anywhere, and all but one of them tell nothing of it.",
			"各管理者が自分の成分を端末から(表示されずに)入力し、チェック値を照合します。鍵はすべての成分の排他的論理和です。成分はどこにも保存されず、1つでも欠けると鍵については何も分かりません。")),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kind", Usage: t(msg.Of("`KIND`: security-domain, read or ledger", "種類 `KIND`: security-domain, read, ledger"))},
			&cli.IntFlag{Name: "components", Value: 2, Usage: t(msg.Of("number `N` of components, 2 to 9", "成分の数 `N`、2〜9"))},
			&cli.StringFlag{Name: "algorithm", Usage: t(msg.Of("`NAME`: aes-128, aes-192 or aes-256", "アルゴリズム `NAME`: aes-128, aes-192, aes-256"))},
			&cli.IntFlag{Name: "key-version", Usage: t(msg.Of("version `N`, 1 to 127 (the next one)", "バージョン `N`、1〜127(既定:次の番号)"))},
			&cli.StringFlag{Name: "check", Usage: t(msg.Of("expected check value `HEX` of the whole key, of a key set separated by slashes; asked for unless given", "鍵全体のチェック値 `HEX`(鍵セットでは / 区切り。既定:画面で尋ねる)"))},
		},
		Action: p.keysCeremony,
	}, p.splitCommand()}
}

func (p *program) keysCeremony(c *cli.Context) (err error) {
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	if err := required(c, "kind"); err != nil {
		return err
	}
	n := keys.New{Name: name, Kind: keys.Kind(c.String("kind")), Algorithm: c.String("algorithm")}
	if !slices.Contains([]keys.Kind{keys.SecurityDomain, keys.Read, keys.Ledger}, n.Kind) {
		return usagef(msg.Of("--kind %s: security-domain, read or ledger", "--kind %s: security-domain、read、ledger のいずれかを指定してください"), string(n.Kind))
	}
	if n.Algorithm == "" {
		n.Algorithm = n.Kind.Algorithms()[0]
	}
	if !slices.Contains(n.Kind.Algorithms(), n.Algorithm) {
		return usagef(msg.Of("--algorithm %s does not go with --kind %s", "--algorithm %s は --kind %s には使えません"), n.Algorithm, string(n.Kind))
	}
	count, version, err := componentFlags(c)
	if err != nil {
		return err
	}
	n.Version = version
	if err := p.mayExchangeKeys(c); err != nil {
		return err
	}
	store, err := p.openKeystore(c.Context, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	if err := free(c.Context, store, n); err != nil {
		return err // before the custodians have typed everything
	}

	parts := newCombined(n)
	defer parts.erase()
	for i := range count {
		p.notef(msg.Of("Component %d of %d: its custodian alone is at the keyboard and sees the screen.", "成分 %d/%d: この成分の管理者だけが入力してください。"), i+1, count)
		if err := p.readComponent(c.Context, parts, nil); err != nil {
			return err
		}
	}
	set, err := parts.set(n.Version)
	if err != nil {
		return err
	}
	defer set.Erase()
	check := set.Check()
	if n.Kind == keys.Ledger {
		check = fmt.Sprintf("%X", set.ENC.CheckValue())
	}
	if err := p.confirmCheck(c, check); err != nil {
		return err
	}
	if err := p.recordExchange(c, store, ledger.KeysExchanged{
		Direction: "import", With: fmt.Sprintf("ceremony: %s, %d components, check value %s", name, count, check),
	}); err != nil {
		return err
	}
	var e keys.Entry
	if n.Kind == keys.Ledger {
		e, err = store.AddLedger(c.Context, n, set.ENC)
	} else {
		e, err = store.AddSet(c.Context, n, set)
	}
	if err != nil {
		return err
	}
	// As the keystore computes it from what it holds now; a token may not be
	// able to, and has shown by other means that it holds the key.
	p.printf(msg.Of("added %s version %d, %s, check value %s", "追加しました: %s バージョン %d、%s、チェック値 %s"), e.Name, e.Version, e.Algorithm, cmp.Or(e.Check, check))
	return nil
}

// componentFlags reads --components and --key-version.
func componentFlags(c *cli.Context) (count int, version byte, err error) {
	if v := c.Int("key-version"); v < 0 || v > keys.MaxVersion {
		return 0, 0, usagef(msg.Of("--key-version %d: 1 to %d", "--key-version %d: 1〜%d を指定してください"), v, keys.MaxVersion)
	}
	if count = c.Int("components"); count < 2 || count > maxComponents {
		return 0, 0, usagef(msg.Of("--components %d: 2 to %d", "--components %d: 2〜%d を指定してください"), count, maxComponents)
	}
	return count, byte(c.Int("key-version")), nil
}

// free says whether the store could take the key.
func free(ctx context.Context, store keys.Store, n keys.New) error {
	entries, err := store.Entries(ctx)
	if err != nil {
		return err
	}
	if err := keys.CheckName(n.Name); err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case e.Name != n.Name:
		case e.Kind != n.Kind:
			return fmt.Errorf("%w: %s is of kind %s", keys.ErrWrongKind, n.Name, e.Kind)
		case e.Version == n.Version:
			return fmt.Errorf("%w: %s version %d", keys.ErrExists, n.Name, n.Version)
		}
	}
	return nil
}

// combined is the exclusive or of the components so far.
type combined struct {
	names []string // of the keys: "ENC", "MAC", "DEK", or one without a name
	sums  [][]byte
	seen  map[[sha256.Size]byte]bool // components cancel each other out when they are equal
}

func newCombined(n keys.New) *combined {
	names := []string{"ENC", "MAC", "DEK"}[:max(1, len(n.Kind.Purposes()))]
	if n.Kind == keys.Ledger {
		names = []string{""}
	}
	size := map[string]int{keys.AES128: 16, keys.AES192: 24, keys.AES256: 32}[n.Algorithm]
	k := &combined{names: names, seen: map[[sha256.Size]byte]bool{}}
	for range names {
		k.sums = append(k.sums, make([]byte, size))
	}
	return k
}

func (k *combined) erase() {
	for _, b := range k.sums {
		clear(b)
	}
	clear(k.seen)
}

// add takes a component of the i-th key in.
func (k *combined) add(i int, part []byte) error {
	tagged := append([]byte{byte(i)}, part...)
	digest := sha256.Sum256(tagged)
	clear(tagged)
	zero := make([]byte, len(part))
	switch {
	case subtle.ConstantTimeCompare(part, zero) == 1:
		return fmt.Errorf("a component of zeros adds nothing")
	case k.seen[digest]:
		return fmt.Errorf("this component was entered before: the two would cancel each other out")
	}
	k.seen[digest] = true
	subtle.XORBytes(k.sums[i], k.sums[i], part)
	return nil
}

// set is the key set that the components make; of a single key ENC alone.
func (k *combined) set(version byte) (keys.Set, error) {
	set := keys.Set{Version: version}
	for i, to := range []*keys.Key{&set.ENC, &set.MAC, &set.DEK}[:len(k.sums)] {
		if subtle.ConstantTimeCompare(k.sums[i], make([]byte, len(k.sums[i]))) == 1 {
			set.Erase()
			return keys.Set{}, fmt.Errorf("the components cancel each other out")
		}
		var err error
		if *to, err = keys.NewKey(k.sums[i]); err != nil {
			return keys.Set{}, err
		}
	}
	return set, nil
}

// componentTries is how often a component may be mistyped.
const componentTries = 3

// readComponent has one custodian type a component of each key and confirm its
// check value, which is no secret and stands on the custodian's sheet.
// Where it is known what stands there, that is what must be typed.
func (p *program) readComponent(ctx context.Context, k *combined, known []keys.Key) error {
	var terminal passphrase.Terminal
	for i, name := range k.names {
		size := len(k.sums[i])
		for try := 1; ; try++ {
			part, err := p.askComponent(ctx, name, size)
			if err == nil {
				var key keys.Key
				key, err = keys.NewKey(part)
				check := fmt.Sprintf("%X", key.CheckValue())
				key.Erase()
				var typed string
				if err == nil {
					typed, err = terminal.AskOpenly(ctx, p.lang.T(msg.Of("Check value on the sheet: ", "用紙のチェック値: ")))
				}
				if err != nil {
					clear(part)
					return err
				}
				if strings.EqualFold(strings.TrimSpace(typed), check) && (known == nil || subtle.ConstantTimeCompare(part, known[i].Bytes()) == 1) {
					err = k.add(i, part)
					clear(part)
					if err != nil {
						return err
					}
					p.notef(msg.Of("%s is right", "%s は一致しました"), check)
					break
				}
				clear(part)
				err = errComponent
			}
			if err != errComponent || try == componentTries {
				return err
			}
			p.notef(msg.Of("What was typed is not %d hexadecimal digits with that check value. Type it again.", "入力が %d 桁の16進数でないか、チェック値が一致しません。もう一度入力してください。"), 2*size)
		}
	}
	return nil
}

// errComponent: what was typed is not what stands on the sheet.
var errComponent = &spoken{
	text: msg.Of("a component does not have the check value on its sheet", "成分が用紙のチェック値と一致しません"),
	hint: msg.Of("no key was made; begin again when the sheets are in order", "鍵は作成していません。用紙を確認してからやり直してください")}

// askComponent reads a component without showing it. Blanks between digits
// are for reading, and nothing else.
func (p *program) askComponent(ctx context.Context, name string, size int) ([]byte, error) {
	digits, err := passphrase.Terminal{}.Ask(ctx, strings.TrimSpace(p.lang.T(msg.Of("Component, %d hexadecimal digits %s", "成分(16進 %d 桁) %s"), 2*size, name))+": ")
	if err != nil {
		return nil, err
	}
	defer clear(digits)
	digits = slices.DeleteFunc(digits, func(b byte) bool { return b == ' ' })
	part := make([]byte, size)
	if len(digits) != 2*size {
		return nil, errComponent
	}
	if _, err := hex.Decode(part, digits); err != nil {
		clear(part)
		return nil, errComponent
	}
	return part, nil
}

// confirmCheck holds the whole key's check value against the expected one.
func (p *program) confirmCheck(c *cli.Context, check string) error {
	want := c.String("check")
	if want == "" {
		p.notef(msg.Of("The key's check value is %s.", "鍵のチェック値は %s です。"), check)
		var err error
		if want, err = (passphrase.Terminal{}).AskOpenly(c.Context, p.lang.T(msg.Of("Type the expected check value, or \"new\" if there is none yet: ", "予定のチェック値を入力してください(まだない場合は「new」): "))); err != nil {
			return err
		}
		if want = strings.TrimSpace(want); want == "new" {
			return nil
		}
	}
	if !strings.EqualFold(want, check) {
		return &spoken{text: msg.Of("the key has the check value %s, not %s", "鍵のチェック値は %s で、予定の %s と一致しません"), args: []any{check, want},
			hint: msg.Of("no key was made: a component is another key's", "鍵は作成していません。別の鍵の成分が含まれています")}
	}
	return nil
}
