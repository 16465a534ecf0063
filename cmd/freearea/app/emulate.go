package app

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/vpcd"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/keys"
)

func (p *program) emulateCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:  "emulate",
		Usage: t(msg.Of("a card in software, in a virtual PC/SC reader", "ソフトウェアのカードを仮想PC/SCリーダーに入れる")),
		Description: t(msg.Of(
			"Without --listen or --connect the card is for --card image:FILE of the other commands.",
			"--listen も --connect も使わない場合、カードは他のコマンドの --card image:FILE で使います。")),
		ArgsUsage: "IMAGE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "connect", Usage: t(msg.Of("`ADDRESS` of a virtual reader that waits for a card (127.0.0.1:35963)", "カードを待つ仮想リーダーの `ADDRESS`(127.0.0.1:35963)"))},
			&cli.StringFlag{Name: "listen", Usage: t(msg.Of("`ADDRESS` on which a virtual reader in reverse mode finds the card", "逆接続モードの仮想リーダーを待つ `ADDRESS`"))},
			&cli.StringFlag{Name: "cut", Usage: t(msg.Of("take the power away once: `WHEN` is before:N, after:N or write:N:K", "一度だけ電源を断つ: `WHEN` は before:N、after:N、write:N:K"))},
		},
		Subcommands: []*cli.Command{{
			Name:      "new",
			Usage:     t(msg.Of("make the image of a new card", "新しいカードのイメージを作る")),
			ArgsUsage: "IMAGE",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "profile", Value: "contactless", Usage: t(msg.Of("kind of card, `NAME`: contactless or contact", "カードの種類 `NAME`: contactless または contact"))},
				&cli.StringFlag{Name: "key", Usage: t(msg.Of("key set of the card in the keystore, `NAME`; made at random if missing", "鍵ストア内のカード鍵セット `NAME`(なければ乱数から作る)"))},
				&cli.BoolFlag{Name: "development-key", Usage: t(msg.Of("give the card the well-known development key, and the keystore too", "カードと鍵ストアに公知の開発用鍵を使う"))},
				&cli.StringFlag{Name: "cin", Usage: t(msg.Of("card image number, `HEX`, 1 to 16 bytes (random)", "カード識別番号CIN `HEX`、1〜16バイト(既定:乱数)"))},
				&cli.StringFlag{Name: "secure-channel", Value: "scp03-60", Usage: t(msg.Of("`PROTOCOL` and its options, as in scp03-70 or scp02-55", "セキュアチャネルの `PROTOCOL` とオプション(scp03-70、scp02-55 など)"))},
				&cli.IntFlag{Name: "memory", Usage: t(msg.Of("persistent memory in `BYTES` (the profile's)", "不揮発メモリのバイト数 `BYTES`(既定:種類による)"))},
				&cli.IntFlag{Name: "transient-memory", Usage: t(msg.Of("memory that is cleared on reset, and as much on deselection, in `BYTES` (the profile's)", "リセットで消えるメモリと選択解除で消えるメモリ、それぞれのバイト数 `BYTES`(既定:種類による)"))},
			},
			Action: p.emulateNew,
		}},
		Action: p.emulate,
	}
}

// issuerIIN is the issuer identification number of emulated cards: it begins
// with 9, which ISO/IEC 7812-1 leaves to national use.
var issuerIIN = []byte{0x99, 0x00, 0x00}

func (p *program) emulateNew(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "IMAGE")
	if err != nil {
		return err
	}
	profile, err := emulator.LookupProfile(c.String("profile"))
	if err != nil {
		return err
	}
	if c.IsSet("memory") {
		profile.PersistentMemory = c.Int("memory")
	}
	if c.IsSet("transient-memory") {
		profile.TransientReset, profile.TransientDeselect = c.Int("transient-memory"), c.Int("transient-memory")
	}
	cfg := emulator.Config{Profile: profile, IIN: issuerIIN, Linker: p.Linker, Rand: p.Rand}
	if cfg.SecureChannel, err = secureChannel(c.String("secure-channel")); err != nil {
		return err
	}
	if s := c.String("cin"); s != "" {
		if cfg.CIN, err = hex.DecodeString(s); err != nil || len(cfg.CIN) > 16 {
			return usagef(msg.Of("--cin %s: up to 16 bytes in hexadecimal digits are expected", "--cin %s: 16バイト以内の16進数を指定してください"), s)
		}
	} else {
		cfg.CIN = make([]byte, 8)
		if _, err := io.ReadFull(p.Rand, cfg.CIN); err != nil {
			return err
		}
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, store.Close)
	name := c.String("key")
	if name == "" {
		name = p.site.Keys.SecurityDomain
	}
	if err := p.cardKey(ctx, c, store, name, c.Bool("development-key")); err != nil {
		return err
	}
	if _, err := io.ReadFull(p.Rand, cfg.DiversificationData[:]); err != nil {
		return err
	}
	if err := p.site.Keys.Diversification.CheckProtocol(cfg.SecureChannel.Number); err != nil {
		return err
	}
	if cfg.Keys, err = store.SecurityDomainKeys(ctx, keys.Ref{Name: name}, p.site.Keys.Diversification, cfg.DiversificationData[:]); err != nil {
		return fmt.Errorf("key set %q: %w", name, err)
	}
	defer cfg.Keys.Erase()
	card, err := emulator.Create(path, cfg)
	if err != nil {
		return err
	}
	p.printf(msg.Of("made the card %s: %s, CIN %s, key set %q version %d (%s)", "カード %s を作成しました: %s、CIN %s、鍵セット %q バージョン %d(%s)"),
		path, profile.Name, strings.ToUpper(hex.EncodeToString(cfg.CIN)), name, cfg.Keys.Version, cfg.Keys.Check())
	return card.Close()
}

// secureChannel reads a protocol with its "i" parameter: scp03-60.
func secureChannel(s string) (scp.Protocol, error) {
	var p scp.Protocol
	var rest string
	if n, _ := fmt.Sscanf(strings.ToLower(s)+" ", "scp%02x-%02x%s", &p.Number, &p.I, &rest); n != 2 || !p.Valid() {
		return p, usagef(msg.Of("--secure-channel %s: scp03-60, scp02-55 and the like are expected; see docs/globalplatform.md", "--secure-channel %s: scp03-60、scp02-55 などを指定してください(docs/globalplatform.md)"), s)
	}
	return p, nil
}

// cardKey makes sure that the keystore has the card's key set.
func (p *program) cardKey(ctx context.Context, c *cli.Context, store keystore, name string, development bool) error {
	entries, err := store.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name != name || !e.Retired.IsZero() {
			continue
		}
		if e.Development != development {
			return &spoken{text: msg.Of("the keystore has a key set %q already", "鍵ストアには鍵セット %q が既にあります"), args: []any{name},
				hint: msg.Of("name another one with --key", "--key で別の名前を指定してください")}
		}
		return nil
	}
	if err := p.mayManageKeys(c); err != nil {
		return err
	}
	n := keys.New{Name: name, Kind: keys.SecurityDomain}
	if development {
		p.notef(msg.Of(
			"freearea: warning: the development key is public; this card is for tests only",
			"freearea: 警告: 開発用鍵は公知です。このカードは試験専用です"))
		_, err = store.AddDevelopment(ctx, n)
	} else {
		_, err = store.Generate(ctx, n)
	}
	return err
}

func (p *program) emulate(c *cli.Context) (err error) {
	ctx := c.Context
	path, err := oneArgument(c, "IMAGE")
	if err != nil {
		return err
	}
	if c.IsSet("connect") == c.IsSet("listen") {
		return usagef(msg.Of("one of --connect and --listen is needed", "--connect と --listen のどちらか1つを指定してください"))
	}
	torn, err := cut(c)
	if err != nil {
		return err
	}
	card, err := p.openImage(path)
	if err != nil {
		return err
	}
	defer closing(&err, card.Close)
	card.SetCut(torn)
	traced, closeTrace, err := p.traced(c, card)
	if err != nil {
		return err
	}
	defer closing(&err, closeTrace)
	link := tracedCard{card, traced}
	if address := c.String("connect"); address != "" {
		p.notef(msg.Of("%s is in the reader at %s", "%s を %s のリーダーに入れました"), path, address)
		err = vpcd.Dial(ctx, address, link)
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", c.String("listen")); err != nil {
			return err
		}
		p.notef(msg.Of("%s waits for a reader on %s", "%s は %s でリーダーを待っています"), path, l.Addr().String())
		err = vpcd.Accept(ctx, l, link)
	}
	if errors.Is(err, context.Canceled) {
		return nil // an interrupt is how it ends
	}
	return err
}

// tracedCard is an emulated card whose commands go through a recorder.
type tracedCard struct {
	*emulator.Card
	transmit interface {
		Transmit(context.Context, []byte) ([]byte, error)
	}
}

func (t tracedCard) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	return t.transmit.Transmit(ctx, command)
}
