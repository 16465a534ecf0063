package app

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
)

func (p *program) keysCommand() *cli.Command {
	t := p.lang.T
	return p.group(&cli.Command{
		Name:  "keys",
		Usage: t(msg.Of("the keystore: master keys, card keys, signing keys", "鍵ストア: マスター鍵、カード鍵、署名鍵")),
		Subcommands: slices.Concat([]*cli.Command{
			{
				Name:   "init",
				Usage:  t(msg.Of("make a new, empty keystore", "新しい空の鍵ストアを作る")),
				Action: p.keysInit,
			},
			{
				Name:      "add",
				Usage:     t(msg.Of("add a key: drawn at random unless given", "鍵を追加する(指定がなければ乱数から生成)")),
				ArgsUsage: "NAME",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "kind", Usage: t(msg.Of("`KIND`: security-domain, read, issuer-signing, counter-signing, ledger, ledger-signing, token or receipt", "種類 `KIND`: security-domain, read, issuer-signing, counter-signing, ledger, token, receipt"))},
					&cli.IntFlag{Name: "key-version", Usage: t(msg.Of("version `N`, 1 to 127 (the next one)", "バージョン `N`、1〜127(既定:次の番号)"))},
					&cli.StringFlag{Name: "algorithm", Usage: t(msg.Of("`NAME`: aes-128, aes-192, aes-256, ed25519, rsa-2048 or rsa-3072", "アルゴリズム `NAME`: aes-128, aes-192, aes-256, ed25519, rsa-2048, rsa-3072"))},
					&cli.StringFlag{Name: "set-file", Usage: t(msg.Of("take the key set from `FILE`: lines ENC=, MAC= and DEK= in hexadecimal digits", "鍵セットを `FILE` から読む(ENC=、MAC=、DEK= の行、16進)"))},
					&cli.StringFlag{Name: "public", Usage: t(msg.Of("only the public half of a signing key, `HEX`", "署名鍵の公開部分のみ `HEX`"))},
					&cli.BoolFlag{Name: "development-key", Usage: t(msg.Of("the well-known key 404142…4F: for tests only, everybody has it", "公知の開発用鍵 404142…4F(試験専用、誰でも知っている)"))},
				},
				Action: p.keysAdd,
			},
			{
				Name:   "list",
				Usage:  t(msg.Of("list the keys by name, with check values", "鍵の一覧(名前とチェック値)")),
				Flags:  []cli.Flag{p.jsonFlag()},
				Action: p.keysList,
			},
			{
				Name:      "export",
				Usage:     t(msg.Of("write keys to a file for somebody else", "鍵を他者に渡すファイルに書き出す")),
				ArgsUsage: "NAME…",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "to", Usage: t(msg.Of("wrap for the age `RECIPIENT` (age1…)", "age の受取人 `RECIPIENT`(age1…)だけが開ける形にする"))},
					&cli.BoolFlag{Name: "plain", Usage: t(msg.Of("write the keys unprotected", "保護せずに書き出す"))},
					&cli.BoolFlag{Name: "public", Usage: t(msg.Of("public halves of signing keys only", "署名鍵の公開部分だけを書き出す"))},
					&cli.StringFlag{Name: "out", Usage: t(msg.Of("`FILE` to write", "出力 `FILE`"))},
				},
				Action: p.keysExport,
			},
			{
				Name:      "import",
				Usage:     t(msg.Of("add the keys of an exported file", "書き出されたファイルの鍵を取り込む")),
				ArgsUsage: "FILE",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "identity", Usage: t(msg.Of("`FILE` with the age identity of the recipient", "受取人の age 秘密鍵 `FILE`"))},
				},
				Action: p.keysImport,
			},
			{
				Name:      "identity",
				Usage:     t(msg.Of("make an age identity to receive keys with, and print its recipient", "鍵を受け取るための age 秘密鍵を作り、受取人名を表示する")),
				ArgsUsage: "FILE",
				Action:    p.keysIdentity,
			},
		}, p.keysLife(), p.keysTerminal(), p.keysCeremonies()),
	})
}

// group makes a command that only holds others answer for unknown names.
func (p *program) group(c *cli.Command) *cli.Command {
	c.Action = func(ctx *cli.Context) error {
		if ctx.Args().Present() {
			return p.unknownCommand(ctx)
		}
		return cli.ShowSubcommandHelp(ctx)
	}
	c.HideHelpCommand = true
	return c
}

func (p *program) keysInit(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	if keys.InToken(p.site.Keystore) {
		return p.notInFile()
	}
	if _, err := os.Stat(p.site.Keystore); err == nil {
		return p.keystoreExists() // before a passphrase is asked for
	}
	secret, err := p.newPassphrase(c)
	if err != nil {
		return err
	}
	defer clear(secret)
	store, err := file.Create(c.Context, p.site.Keystore, secret, file.Options{Now: p.Now, Rand: p.Rand, Cost: p.KeystoreCost})
	if errors.Is(err, fs.ErrExist) {
		return p.keystoreExists()
	}
	if err != nil {
		return err
	}
	p.printf(msg.Of("made the keystore %s", "鍵ストア %s を作成しました"), p.site.Keystore)
	return store.Close()
}

func (p *program) keystoreExists() error {
	return &spoken{
		text: msg.Of("the keystore %s is there already", "鍵ストア %s は既にあります"), args: []any{p.site.Keystore},
		hint: msg.Of("nothing was changed; name another one with --keystore", "何も変更していません。別のものは --keystore で指定してください")}
}

// kinds are the kinds of keys, as --kind names them.
var kinds = keys.Kinds()

func (p *program) keysAdd(c *cli.Context) (err error) {
	name, err := oneArgument(c, "NAME")
	if err != nil {
		return err
	}
	if err := required(c, "kind"); err != nil {
		return err
	}
	if kind := keys.Kind(c.String("kind")); !slices.Contains(kinds, kind) {
		return usagef(msg.Of("--kind %s: security-domain, read, issuer-signing, counter-signing, ledger, token or receipt",
			"--kind %s: security-domain、read、issuer-signing、counter-signing、ledger、ledger-signing、token、receipt のいずれかを指定してください"), string(kind))
	}
	if kind := keys.Kind(c.String("kind")); (c.IsSet("set-file") || c.IsSet("development-key")) && kind != keys.SecurityDomain && kind != keys.Read {
		return usagef(msg.Of("--set-file and --development-key are for key sets, which --kind %s is not", "--set-file と --development-key は鍵セット用で、--kind %s には使えません"), string(kind))
	}
	n := keys.New{Name: name, Kind: keys.Kind(c.String("kind")), Algorithm: c.String("algorithm")}
	if v := c.Int("key-version"); v != 0 {
		if v < 1 || v > keys.MaxVersion {
			return usagef(msg.Of("--key-version %d: 1 to %d", "--key-version %d: 1〜%d を指定してください"), v, keys.MaxVersion)
		}
		n.Version = byte(v)
	}
	sources := 0
	for _, f := range []string{"set-file", "public", "development-key"} {
		if c.IsSet(f) {
			sources++
		}
	}
	if sources > 1 {
		return usagef(msg.Of("only one of --set-file, --public and --development-key", "--set-file、--public、--development-key は1つだけ指定できます"))
	}
	// A key that somebody knows outside comes in, as by `keys import`.
	given := c.IsSet("set-file") || c.IsSet("public")
	may := p.mayManageKeys
	if given {
		may = p.mayExchangeKeys
	}
	if err := may(c); err != nil {
		return err
	}
	store, err := p.openKeystore(c.Context, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	if given {
		if err := free(c.Context, store, n); err != nil {
			return err
		}
	}
	record := func(check string) error {
		return p.recordExchange(c, store, ledger.KeysExchanged{
			Direction: "import", With: fmt.Sprintf("keys add: %s, check value %s", name, check),
		})
	}
	var entry keys.Entry
	switch {
	case c.IsSet("set-file"):
		var set keys.Set
		if set, err = readSet(c.String("set-file")); err != nil {
			return err
		}
		defer set.Erase()
		if err := record(set.Check()); err != nil {
			return err
		}
		entry, err = store.AddSet(c.Context, n, set)
	case c.IsSet("public"):
		var public []byte
		if public, err = hex.DecodeString(c.String("public")); err != nil || len(public) != ed25519.PublicKeySize {
			return usagef(msg.Of("--public: %d bytes in hexadecimal digits are expected", "--public: 16進数で %d バイトを指定してください"), ed25519.PublicKeySize)
		}
		if err := record(fmt.Sprintf("%X", public[:8])); err != nil {
			return err
		}
		entry, err = store.AddPublic(c.Context, n, public)
	case c.Bool("development-key"):
		p.notef(msg.Of(
			"freearea: warning: the development key is public; never put it on a holder's card",
			"freearea: 警告: 開発用鍵は公知です。利用者のカードには決して使わないでください"))
		entry, err = store.AddDevelopment(c.Context, n)
	default:
		entry, err = store.Generate(c.Context, n)
	}
	if err != nil {
		return err
	}
	p.printf(msg.Of("added %s version %d, %s, check value %s", "追加しました: %s バージョン %d、%s、チェック値 %s"),
		entry.Name, entry.Version, entry.Algorithm, entry.Check)
	return nil
}

// readSet reads a key set that a card's operator handed over. The file is as
// secret as the keys.
func readSet(path string) (set keys.Set, err error) {
	f, err := os.Open(path)
	if err != nil {
		return set, err
	}
	defer f.Close()
	into := map[string]*keys.Key{"ENC": &set.ENC, "MAC": &set.MAC, "DEK": &set.DEK}
	lines := bufio.NewScanner(io.LimitReader(f, 4096))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, digits, _ := strings.Cut(line, "=")
		key, ok := into[strings.ToUpper(strings.TrimSpace(name))]
		if !ok || !key.IsZero() {
			return set, fmt.Errorf("%s:%d: one line each of ENC=, MAC= and DEK= is expected", path, n)
		}
		b, err := hex.DecodeString(strings.TrimSpace(digits))
		if err != nil {
			return set, fmt.Errorf("%s:%d: the key is not in hexadecimal digits", path, n)
		}
		if *key, err = keys.NewKey(b); err != nil {
			return set, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		clear(b)
	}
	return set, lines.Err()
}

// jsonTime is how machine output writes times, in UTC.
const jsonTime = "2006-01-02T15:04:05.000Z"

// keyListing is one line of `keys list --json`.
type keyListing struct {
	V           int       `json:"v"`
	Type        string    `json:"type"`
	Name        string    `json:"name"`
	Kind        keys.Kind `json:"kind"`
	Version     byte      `json:"version"`
	Algorithm   string    `json:"algorithm"`
	Check       string    `json:"check"`
	Created     string    `json:"created"`
	Retired     *string   `json:"retired"`
	Public      bool      `json:"public_only"`
	Development bool      `json:"development"`
}

func listingOf(e keys.Entry) keyListing {
	l := keyListing{1, "key", e.Name, e.Kind, e.Version, e.Algorithm, e.Check, e.Created.UTC().Format(jsonTime), nil, e.Public, e.Development}
	if !e.Retired.IsZero() {
		l.Retired = orNull(e.Retired.UTC().Format(jsonTime))
	}
	return l
}

func (p *program) keysList(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	store, err := p.openKeystore(c.Context, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	entries, err := store.Entries(c.Context)
	if err != nil {
		return err
	}
	if err := p.listKeys(c, entries); err != nil {
		return err
	}
	return p.tokenProblems(c, store)
}

// listKeys prints entries, sorted by name and version.
func (p *program) listKeys(c *cli.Context, entries []keys.Entry) error {
	if c.Bool("json") {
		enc := json.NewEncoder(p.Stdout)
		for _, e := range entries {
			if err := enc.Encode(listingOf(e)); err != nil {
				return err
			}
		}
		return nil
	}
	var w table
	w.row(strings.Split(p.lang.T(msg.Of("NAME|KIND|VERSION|ALGORITHM|CHECK VALUE|CREATED|STATE", "名前|種類|バージョン|アルゴリズム|チェック値|作成日|状態")), "|")...)
	for i, e := range entries {
		state := msg.Of("in use", "使用中")
		newer := func(later keys.Entry) bool { return later.Name == e.Name && later.Retired.IsZero() }
		switch {
		case !e.Retired.IsZero():
			state = msg.Of("retired", "使用停止")
		case e.Development:
			state = msg.Of("DEVELOPMENT KEY", "開発用鍵")
		case e.Public:
			state = msg.Of("public half", "公開部分のみ")
		case slices.ContainsFunc(entries[i+1:], newer):
			state = msg.Of("kept for cards", "発行済みカード用")
			if e.Kind.Signs() {
				state = msg.Of("kept", "保持")
			}
		}
		w.row(e.Name, string(e.Kind), strconv.Itoa(int(e.Version)), e.Algorithm, e.Check,
			e.Created.In(japan).Format(time.DateOnly), p.lang.T(state))
	}
	return w.write(p.Stdout, "")
}

func (p *program) keysExport(c *cli.Context) (err error) {
	ctx := c.Context
	if c.NArg() == 0 {
		return usagef(msg.Of("name the keys to export", "書き出す鍵の名前を指定してください"))
	}
	if err := required(c, "out"); err != nil {
		return err
	}
	ways := 0
	for _, f := range []string{"to", "plain", "public"} {
		if c.IsSet(f) {
			ways++
		}
	}
	if ways != 1 {
		return usagef(msg.Of("exactly one of --to, --public and --plain", "--to、--public、--plain のいずれか1つを指定してください"))
	}
	var recipient *age.X25519Recipient
	if s := c.String("to"); s != "" {
		if recipient, err = age.ParseX25519Recipient(s); err != nil {
			return usagef(msg.Of("--to %s: no age recipient (age1…)", "--to %s: age の受取人(age1…)ではありません"), s)
		}
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	var refs []keys.Ref
	for _, name := range c.Args().Slice() {
		refs = append(refs, keys.Ref{Name: name})
	}
	if !c.Bool("public") {
		if refs, err = p.leave(c, store, refs, recipient); err != nil {
			return err
		}
	}
	return p.writeKeys(c.String("out"), func(out io.Writer) ([]keys.Entry, error) {
		switch {
		case c.Bool("public"):
			return store.ExportPublic(ctx, out, refs)
		case c.Bool("plain"):
			return store.ExportPlain(ctx, out, refs)
		}
		return store.Export(ctx, out, refs, recipient)
	})
}

// leave has the person say which secret keys leave the keystore and to whom
// (nil: unprotected), and records it, before they do. It returns them with the
// versions that it has recorded, which are those that may leave.
func (p *program) leave(c *cli.Context, store keystore, refs []keys.Ref, recipient *age.X25519Recipient) ([]keys.Ref, error) {
	if keys.InToken(p.site.Keystore) {
		return nil, keys.ErrMastersStay // and nobody signs for what does not leave
	}
	if _, err := os.Lstat(c.String("out")); err == nil {
		return nil, &fs.PathError{Op: "create", Path: c.String("out"), Err: fs.ErrExist}
	}
	entries, err := store.Entries(c.Context)
	if err != nil {
		return nil, err
	}
	var names []string
	var out []keys.Ref
	d := ledger.KeysExchanged{Direction: "export"}
	for _, r := range refs {
		var found keys.Ref
		for _, e := range entries { // of one name the newest is the last
			if e.Name == r.Name && (e.Version == r.Version || r.Version == 0 && e.Retired.IsZero()) {
				found = e.Ref()
			}
		}
		switch {
		case found.Version == 0 && r.Version == 0:
			return nil, fmt.Errorf("%w: %s", keys.ErrNotFound, r.Name)
		case found.Version == 0:
			return nil, fmt.Errorf("%w: %s version %d", keys.ErrNotFound, r.Name, r.Version)
		}
		names, out = append(names, r.Name), append(out, found)
		d.Keys = append(d.Keys, fmt.Sprintf("%s/%d", found.Name, found.Version))
	}
	if recipient != nil {
		d.With = recipient.String()
	}
	if err := p.askTwice(strings.Join(names, " "), recipient); err != nil {
		return nil, err
	}
	return out, p.recordExchange(c, store, d)
}

// writeKeys writes a new file, or none when that fails, and says what is in it.
func (p *program) writeKeys(path string, export func(io.Writer) ([]keys.Entry, error)) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	entries, err := export(out)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	for _, e := range entries {
		p.printf(msg.Of("exported %s version %d, check value %s", "書き出しました: %s バージョン %d、チェック値 %s"), e.Name, e.Version, e.Check)
	}
	return nil
}

// askTwice has the person say what leaves the keystore, and to whom.
func (p *program) askTwice(names string, recipient *age.X25519Recipient) error {
	in := bufio.NewReader(p.Stdin)
	ask := func(t msg.Text, want string, args ...any) error {
		fmt.Fprint(p.Stderr, p.lang.T(t, args...))
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.TrimSpace(line) != want {
			return &spoken{text: msg.Of("nothing was exported", "何も書き出していません"),
				hint: msg.Of("both questions must be answered as they say", "2つの質問に、指示どおりに答えてください")}
		}
		return nil
	}
	if err := ask(msg.Of("Secret keys leave the keystore. Type their names again (%s): ", "秘密鍵を鍵ストアの外に出します。名前をもう一度入力してください(%s): "), names, names); err != nil {
		return err
	}
	if recipient == nil {
		return ask(msg.Of("They will not be protected. Type \"plain\": ", "鍵は保護されません。「plain」と入力してください: "), "plain")
	}
	s := recipient.String()
	return ask(msg.Of("For %s. Type its last 6 characters: ", "受取人 %s。最後の6文字を入力してください: "), s[len(s)-6:], s)
}

func (p *program) keysImport(c *cli.Context) (err error) {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	if err := p.mayExchangeKeys(c); err != nil {
		return err
	}
	store, err := p.openKeystore(c.Context, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	var ids []age.Identity
	if name := c.String("identity"); name != "" {
		if ids, err = readIdentities(name); err != nil {
			return err
		}
	}
	// What is recorded is what was read, and it is not recorded unless it can be.
	digest := sha256.New()
	whole := io.TeeReader(in, digest)
	bundle, err := file.ReadBundle(whole, ids...)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer bundle.Erase()
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return err
	}
	if err := p.recordExchange(c, store, ledger.KeysExchanged{Direction: "import", With: fmt.Sprintf("sha256:%x", digest.Sum(nil))}); err != nil {
		return err
	}
	entries, err := store.AddBundle(c.Context, bundle)
	for _, e := range entries {
		p.printf(msg.Of("imported %s version %d, check value %s", "取り込みました: %s バージョン %d、チェック値 %s"), e.Name, e.Version, e.Check)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if t := bundle.Terminal; t != nil {
		for _, s := range t.Services {
			p.printf(msg.Of("for service %s, whose manifest has the digest %x", "サービス %s 用(マニフェストのダイジェスト %x)"), s.ID, s.Manifest)
		}
	}
	return nil
}

func readIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ids, err := age.ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ids, nil
}

func (p *program) keysIdentity(c *cli.Context) error {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "# %s\n%s\n", id.Recipient(), id)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	fmt.Fprintln(p.Stdout, id.Recipient())
	return nil
}
