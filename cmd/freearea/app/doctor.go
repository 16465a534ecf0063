package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/pcsc"
)

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: p.lang.T(msg.Of("look for what keeps cards from being issued or read, and say what to do", "発行や読み取りの妨げを調べ、対処方法を示す")),
		Flags: []cli.Flag{
			p.cardFlag(),
			p.jsonFlag(),
		},
		Action: p.doctor,
	}
}

// finding is one line of `doctor --json`.
type finding struct {
	V      int    `json:"v"`
	Type   string `json:"type"`
	Check  string `json:"check"` // "pcsc", "image", "keystore", "ledger"
	Code   string `json:"code"`
	OK     bool   `json:"ok"`
	Thing  string `json:"thing"`  // slot or file; may be empty
	Detail string `json:"detail"` // in English, for a log; may be empty

	what, todo msg.Text
}

func (p *program) doctor(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	var all []finding
	kind, name, err := splitCard(p.cardOf(c))
	if err != nil {
		return err
	}
	if kind == "image" {
		all = append(all, p.checkImage(name))
	} else {
		all = slotFindings(pcsc.New(pcsc.Options{}).Diagnose(c.Context), name)
	}
	all = append(all, p.checkKeystore(c.Context), p.checkLedger(c.Context))
	ok := true
	enc := json.NewEncoder(p.Stdout)
	for _, f := range all {
		f.V, f.Type = 1, "finding"
		ok = ok && f.OK
		if c.Bool("json") {
			if err := enc.Encode(f); err != nil {
				return err
			}
			continue
		}
		mark := msg.Of("ok  ", "正常")
		if !f.OK {
			mark = msg.Of("!!  ", "要対処")
		}
		line := fmt.Sprintf("%s %s: %s", p.lang.T(mark), f.Check, p.lang.T(f.what))
		if f.Thing != "" {
			line += " (" + f.Thing + ")"
		}
		fmt.Fprintln(p.Stdout, line)
		if f.Detail != "" {
			fmt.Fprintln(p.Stdout, "      "+f.Detail)
		}
		if f.todo.EN != "" {
			fmt.Fprintln(p.Stdout, "      -> "+p.lang.T(f.todo))
		}
	}
	if !ok {
		return &spoken{text: msg.Of("something needs to be done", "対処が必要な項目があります"), hint: msg.Of("the lines with !! say what", "「要対処」の行を参照してください")}
	}
	return nil
}

// slotFindings says what was found of the one slot that has a name, or of all
// when the name is empty. Then an empty slot beside a card that answers is no
// fault: many devices have a slot for each kind of card.
func slotFindings(found []pcsc.Finding, name string) (out []finding) {
	ready := slices.ContainsFunc(found, pcsc.Finding.OK)
	for _, f := range found {
		if name != "" && f.Slot != "" && f.Slot != name {
			continue
		}
		line := slotFinding(f)
		if name == "" && ready && f.Code == pcsc.FindingNoCard {
			line.OK, line.todo = true, msg.Text{}
		}
		out = append(out, line)
	}
	if len(out) == 0 {
		line := slotFinding(pcsc.Finding{Code: pcsc.FindingNoSlot, Slot: name})
		line.what = msg.Of("there is no such slot", "指定したスロットがありません")
		line.todo = msg.Of("`freearea slots` lists them", "`freearea slots` で確認してください")
		out = append(out, line)
	}
	return out
}

func slotFinding(f pcsc.Finding) finding {
	out := finding{Check: "pcsc", Code: string(f.Code), OK: f.OK(), Thing: f.Slot}
	if f.Err != nil {
		out.Detail = f.Err.Error()
	}
	switch f.Code {
	case pcsc.FindingNotBuilt:
		out.what = msg.Of("this program was built without PC/SC", "このプログラムはPC/SCなしで作られています")
		out.todo = msg.Of("install libpcsclite-dev and run `make build` (`make setup` installs it)", "libpcsclite-dev をインストールして `make build` を実行してください(`make setup` で入ります)")
	case pcsc.FindingNotInstalled:
		out.what = msg.Of("the PC/SC service is not installed", "PC/SCサービスがインストールされていません")
		out.todo = msg.Of("install it: apt-get install pcscd", "インストールしてください: apt-get install pcscd")
	case pcsc.FindingNotRunning:
		out.what = msg.Of("the PC/SC service is not running", "PC/SCサービスが動いていません")
		out.todo = msg.Of("start it: systemctl enable --now pcscd.socket", "起動してください: systemctl enable --now pcscd.socket")
	case pcsc.FindingRefused:
		out.what = msg.Of("the PC/SC service refuses this user", "PC/SCサービスがこの利用者を拒否しています")
		out.todo = msg.Of("have the administrator allow it: a polkit rule for org.debian.pcsc-lite.access_pcsc and access_card", "管理者に許可を依頼してください(polkit の org.debian.pcsc-lite.access_pcsc と access_card)")
	case pcsc.FindingServiceFailed:
		out.what = msg.Of("the PC/SC service does not answer", "PC/SCサービスが応答しません")
		out.todo = msg.Of("restart it: systemctl restart pcscd", "再起動してください: systemctl restart pcscd")
	case pcsc.FindingNoSlot:
		out.what = msg.Of("no card slot is connected", "カードスロットが接続されていません")
		out.todo = msg.Of("connect a card reader, or install its driver", "カードリーダーを接続するか、ドライバーをインストールしてください")
	case pcsc.FindingSlotFailed:
		out.what = msg.Of("the slot does not work", "スロットが動作しません")
		out.todo = msg.Of("unplug it and plug it in again", "いったん抜いて、接続し直してください")
	case pcsc.FindingNoCard:
		out.what = msg.Of("no card in the slot", "スロットにカードがありません")
		out.todo = msg.Of("put the card on the reader", "カードをリーダーに置いてください")
	case pcsc.FindingMute:
		out.what = msg.Of("a card that does not answer", "カードが応答しません")
		out.todo = msg.Of("turn it round, clean its contacts, or try another card", "向きを変える、接点を拭く、または別のカードで試してください")
	case pcsc.FindingInUse:
		out.what = msg.Of("another program holds the card", "他のプログラムがカードを使用中です")
		out.todo = msg.Of("end that program", "そのプログラムを終了してください")
	case pcsc.FindingReady:
		out.what = msg.Of("a card that answers", "カードは応答しています")
	default:
		out.what = msg.Text{EN: string(f.Code), JA: string(f.Code)}
	}
	return out
}

func (p *program) checkImage(path string) finding {
	f := finding{Check: "image", Thing: path}
	card, err := p.openImage(path)
	if err == nil {
		err = card.Close()
	}
	if err == nil {
		f.Code, f.OK, f.what = "ok", true, msg.Of("an emulated card", "エミュレーションカードです")
		return f
	}
	f.Code, f.what, f.todo, f.Detail = "damaged", msg.Of("can't be used", "使用できません"), hintFor(err), err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Code, f.what, f.todo = "missing", msg.Of("there is none", "ありません"), noImage
	case errors.Is(err, emulator.ErrImageLocked):
		f.Code, f.what = "in-use", msg.Of("another program uses it", "他のプログラムが使用中です")
	}
	return f
}

func (p *program) checkKeystore(ctx context.Context) finding {
	if keys.InToken(p.site.Keystore) {
		return p.checkToken(ctx)
	}
	f := finding{Check: "keystore", Thing: p.site.Keystore}
	info, err := file.Inspect(ctx, p.site.Keystore)
	switch {
	case err == nil:
		f.Code, f.OK = "ok", true
		f.what = msg.Of("can be read; its passphrase is checked when it is opened", "読み取れます(パスフレーズは使用時に確認します)")
		f.Detail = fmt.Sprintf("%d keys", len(info.Entries))
		return f
	case errors.Is(err, fs.ErrNotExist):
		f.Code, f.what = "missing", msg.Of("there is none", "ありません")
		f.todo = noKeystore
	case errors.Is(err, file.ErrPermissions):
		f.Code, f.what = "permissions", msg.Of("others can read it", "他の利用者が読める状態です")
		f.todo = hintFor(err)
	default:
		f.Code, f.what = "damaged", msg.Of("can't be read", "読み取れません")
		f.todo = hintFor(err)
	}
	f.Detail = err.Error()
	return f
}

func (p *program) checkLedger(ctx context.Context) finding {
	f := finding{Check: "ledger", Thing: p.site.Ledger}
	book, err := p.openToAsk(ctx, ledger.Options{}) // whether it can be written, too
	if err == nil {
		err = errors.Join(book.Check(ctx), book.Close())
	}
	switch {
	case err == nil:
		f.Code, f.OK, f.what = "ok", true, msg.Of("is whole", "正常です")
		return f
	case errors.Is(err, fs.ErrNotExist) && p.sawLedger():
		f.Code, f.what, f.todo = "missing", msg.Of("is missing", "ありません"), noLedger
	case errors.Is(err, fs.ErrNotExist):
		f.Code, f.OK, f.what = "missing", true, msg.Of("none yet: `freearea staff init` makes it", "まだありません(`freearea staff init` で作成します)")
		return f
	default:
		f.Code, f.what, f.todo = "damaged", msg.Of("can't be used", "使用できません"), hintFor(err)
	}
	f.Detail = err.Error()
	return f
}
