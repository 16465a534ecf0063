package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/pcsc"
)

// cardFlag names the card, in every command that uses one in the same way.
func (p *program) cardFlag() cli.Flag {
	return &cli.StringFlag{Name: "card", Usage: p.lang.T(msg.Of(
		"the card: `pcsc:NAME` (or pcsc: for the only slot) or image:FILE",
		"カード: `pcsc:スロット名`(スロットが1つなら pcsc:)または image:ファイル"))}
}

// cutFlag rehearses a torn card in the commands that use one.
func (p *program) cutFlag() cli.Flag {
	return &cli.StringFlag{Name: "cut", Usage: p.lang.T(msg.Of(
		"image only, to rehearse a torn card: take the power away once, `WHEN` is before:N, after:N or write:N:K",
		"イメージのみ、途中で離れたカードの練習用: 一度だけ電源を断つ `WHEN`: before:N、after:N、write:N:K"))}
}

// cut is what --cut says; without it the zero Cut, which never comes.
func cut(c *cli.Context) (cut emulator.Cut, err error) {
	if s := c.String("cut"); s != "" {
		if cut, err = emulator.ParseCut(s); err != nil {
			return cut, usagef(msg.Of("--cut: %s", "--cut: %s"), err.Error())
		}
	}
	return cut, nil
}

// cardOf is what --card or the site says.
func (p *program) cardOf(c *cli.Context) string {
	for _, s := range []string{c.String("card"), p.site.Card} {
		if s != "" {
			return s
		}
	}
	return "pcsc:"
}

// splitCard takes the name of a card apart.
func splitCard(s string) (kind, name string, err error) {
	kind, name, ok := strings.Cut(s, ":")
	if !ok || kind != "pcsc" && kind != "image" || kind == "image" && name == "" {
		return "", "", usagef(msg.Of(
			"--card %s: pcsc:NAME or image:FILE is expected",
			"--card %s: pcsc:スロット名 または image:ファイル の形で指定してください"), s)
	}
	return kind, name, nil
}

// source opens what --card names as slots. For an image it is one slot with
// the emulated card in it. close ends the emulated card.
func (p *program) source(c *cli.Context) (source iso7816.Source, slot string, close func() error, err error) {
	torn, err := cut(c)
	if err != nil {
		return nil, "", nil, err
	}
	return p.sourceOf(p.cardOf(c), torn)
}

// sourceOf opens a named card as source does; torn is when it loses power.
func (p *program) sourceOf(card string, torn emulator.Cut) (source iso7816.Source, slot string, close func() error, err error) {
	kind, name, err := splitCard(card)
	if err != nil {
		return nil, "", nil, err
	}
	if kind == "image" {
		card, err := p.openImage(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, "", nil, &spoken{
				text: msg.Of("there is no card image %s", "カードイメージ %s がありません"), args: []any{name}, hint: noImage}
		}
		if err != nil {
			return nil, "", nil, err
		}
		card.SetCut(torn)
		slots := emulator.NewSlots("image:" + name)
		if err := slots.Insert("image:"+name, card); err != nil {
			return nil, "", nil, errors.Join(err, card.Close())
		}
		return slots, "image:" + name, card.Close, nil
	}
	if torn != (emulator.Cut{}) {
		return nil, "", nil, usagef(msg.Of("--cut goes with --card image:FILE; tear a real card by hand", "--cut は --card image:ファイル と使います。実物のカードは手で離してください"))
	}
	if p.appletTrace != nil {
		return nil, "", nil, usagef(msg.Of("--trace-applet goes with --card image:FILE; a real card does not show what it executes", "--trace-applet は --card image:ファイル と使います。実物のカードの実行内容は見えません"))
	}
	return pcsc.New(pcsc.Options{}), name, func() error { return nil }, nil
}

// openImage opens the emulated card in an image. One with base applications
// that this version does not have is refused whole: to a host it looks like any
// other, and nothing on it would answer.
func (p *program) openImage(path string) (*emulator.Card, error) {
	card, err := emulator.Open(path, p.Linker, emulator.WithRand(p.Rand))
	if err != nil {
		return nil, err
	}
	if err := card.Refused(); errors.Is(err, oncard.ErrForgedLoadFile) {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), card.Close())
	}
	return card, nil
}

// openCard connects to the card that --card names. Without a name it takes
// the only slot with a card in it, never one of several.
func (p *program) openCard(ctx context.Context, c *cli.Context, mode iso7816.Mode) (card iso7816.Card, close func() error, err error) {
	source, slot, closeSource, err := p.source(c)
	if err != nil {
		return nil, nil, err
	}
	conn, err := p.connect(ctx, source, slot, mode)
	if err != nil {
		return nil, nil, errors.Join(err, closeSource())
	}
	traced, closeTrace, err := p.traced(c, conn)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close(), closeSource())
	}
	return traced, func() error { return errors.Join(closeTrace(), conn.Close(), closeSource()) }, nil
}

// connect connects to a slot of a source, or without a name to the only one
// with a card in it.
func (p *program) connect(ctx context.Context, source iso7816.Source, slot string, mode iso7816.Mode) (conn iso7816.Conn, err error) {
	if slot == "" {
		if slot, err = p.onlySlot(ctx, source); err != nil {
			return nil, err
		}
	}
	return source.Open(ctx, slot, mode)
}

// openNamed connects to a card beside the one of --card, exclusively.
func (p *program) openNamed(c *cli.Context, card string) (iso7816.Card, func() error, error) {
	source, slot, closeSource, err := p.sourceOf(card, emulator.Cut{})
	if err != nil {
		return nil, nil, err
	}
	conn, err := p.connect(c.Context, source, slot, iso7816.Exclusive)
	if err != nil {
		return nil, nil, errors.Join(err, closeSource())
	}
	return conn, func() error { return errors.Join(conn.Close(), closeSource()) }, nil
}

func (p *program) onlySlot(ctx context.Context, source iso7816.Source) (string, error) {
	slots, err := source.Slots(ctx)
	if err != nil {
		return "", err
	}
	var names []string
	for _, s := range slots {
		if s.CardPresent {
			names = append(names, s.Slot)
		}
	}
	switch {
	case len(slots) == 0:
		return "", &spoken{
			text: msg.Of("no card slot is connected", "カードスロットが接続されていません"),
			hint: msg.Of("connect a card reader, or run `freearea doctor`; an emulated card is --card image:FILE",
				"カードリーダーを接続するか `freearea doctor` を実行してください。エミュレーションカードは --card image:ファイル です")}
	case len(names) == 0:
		return "", &spoken{
			text: msg.Of("no card in any slot", "どのスロットにもカードがありません"),
			hint: msg.Of("put a card on the reader and run the command again", "カードをリーダーに置いて、もう一度実行してください")}
	case len(names) > 1:
		return "", &spoken{
			text: msg.Of("several slots have a card: %s", "複数のスロットにカードがあります: %s"), args: []any{strings.Join(names, ", ")},
			hint: msg.Of("name one with --card pcsc:NAME", "--card pcsc:スロット名 で 1 つ指定してください")}
	}
	return names[0], nil
}

// traced records the exchange to the file of --trace.
func (p *program) traced(c *cli.Context, card iso7816.Card) (iso7816.Card, func() error, error) {
	path := c.String("trace")
	if path == "" {
		return card, func() error { return nil }, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("trace: %w", err)
	}
	recorder := iso7816.NewRecorder(card, f, iso7816.RecorderOptions{Source: "freearea " + version(), SecretResponse: holdersData})
	if err := p.appletTrace.to(f); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("trace: %w", err), f.Close())
	}
	return recorder, func() error { return errors.Join(recorder.Err(), f.Close()) }, nil
}

// holdersData tells which answers hold what was recorded for the holder. (The
// ID of a common-ap also stands in the answer to SELECT, which every reader
// can ask for.)
func holdersData(c iso7816.Command) bool {
	switch c.INS {
	case files.InsReadBinary, files.InsReadRecord, files.InsVerify, applets.InsExpress:
		return true
	case files.InsGetData:
		return c.CLA&0x80 == 0 // of an application; the card's own is GlobalPlatform's, with the class 8X
	}
	return false
}
