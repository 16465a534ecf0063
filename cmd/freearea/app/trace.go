package app

import (
	"bytes"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// traceFlags are those of every command that uses a card.
func (p *program) traceFlags() []cli.Flag {
	t := p.lang.T
	return []cli.Flag{
		&cli.StringFlag{Name: "trace", Usage: t(msg.Of("write what goes to and from the card to `FILE`, secrets redacted", "カードとの通信を `FILE` に記録する(秘密情報は伏せる)"))},
		&cli.StringFlag{Name: "trace-applet", Usage: t(msg.Of(
			"let --trace show what the package with this `AID`, or that of an applet or instance of it, executes on an emulated card",
			"エミュレーションカードで、この `AID` のパッケージ(またはそのアプレット・インスタンス)の実行を --trace に加える"))},
		&cli.StringFlag{Name: "trace-level", Value: "calls", Usage: t(msg.Of("`LEVEL` of --trace-applet: calls or bytecode", "--trace-applet の詳しさ `LEVEL`: calls(呼び出し)または bytecode(バイトコード)"))},
		&cli.StringFlag{Name: "trace-names", Usage: t(msg.Of("take names and source lines for --trace-applet from the Debug component of the CAP `FILE`", "--trace-applet の名前と行番号をCAP `FILE` のDebugコンポーネントから取る"))},
		&cli.BoolFlag{Name: "trace-values", Usage: t(msg.Of(
			"let --trace-applet show arguments, results and the operand stack: KEYS AND PINS among them",
			"--trace-applet に引数・結果・オペランドスタックも示す(鍵やPINも含まれる)"))},
	}
}

// appletTrace takes the lines of --trace-applet until the file of --trace is
// there, then hands them on.
type appletTrace struct {
	early bytes.Buffer
	w     io.Writer
}

func (a *appletTrace) Write(b []byte) (int, error) {
	if a.w == nil {
		return a.early.Write(b)
	}
	return a.w.Write(b)
}

// to gives the file that lines go to from now on.
func (a *appletTrace) to(w io.Writer) error {
	if a == nil {
		return nil
	}
	a.w = w
	_, err := a.early.WriteTo(w)
	return err
}

// traceApplet lets emulated cards show what they execute, with --trace-applet.
func (p *program) traceApplet(c *cli.Context) error {
	if !c.IsSet("trace-applet") {
		for _, name := range []string{"trace-level", "trace-names", "trace-values"} {
			if c.IsSet(name) {
				return usagef(msg.Of("--%s goes with --trace-applet", "--%s は --trace-applet と使います"), name)
			}
		}
		return nil
	}
	if c.String("trace") == "" {
		return usagef(msg.Of("--trace-applet goes with --trace, which names the file", "--trace-applet はファイルを指定する --trace と使います"))
	}
	aid, err := iso7816.ParseAID(c.String("trace-applet"))
	if err != nil {
		return usagef(msg.Of("--trace-applet %s: an AID is expected, 5 to 16 bytes in hexadecimal digits", "--trace-applet %s: AID(5〜16バイトの16進数)を指定してください"), c.String("trace-applet"))
	}
	p.appletTrace = &appletTrace{}
	t := &jcvm.Trace{AID: aid, Values: c.Bool("trace-values"), W: p.appletTrace}
	switch level := c.String("trace-level"); level {
	case "calls":
	case "bytecode":
		t.Bytecode = true
	default:
		return usagef(msg.Of("--trace-level %s: there are calls and bytecode", "--trace-level %s: calls または bytecode を指定してください"), level)
	}
	if path := c.String("trace-names"); path != "" {
		file, err := capfile.ReadFile(path)
		if err != nil {
			return about(path, err)
		}
		if t.Names, err = jcvm.ReadNames(file); err != nil {
			return about(path, err)
		}
	}
	if t.Values {
		p.notef(msg.Of("freearea: warning: --trace-values writes keys and PINs to %s", "freearea: 警告: --trace-values により鍵やPINが %s に記録されます"), strings.TrimSpace(c.String("trace")))
	}
	p.Linker = withTrace(p.Linker, t)
	return nil
}

// withTrace gives a trace to the virtual machine among linkers.
func withTrace(l oncard.Linker, t *jcvm.Trace) oncard.Linker {
	switch l := l.(type) {
	case jcvm.Linker:
		l.Trace = t
		return l
	case oncard.Linkers:
		out := make(oncard.Linkers, len(l))
		for i, x := range l {
			out[i] = withTrace(x, t)
		}
		return out
	}
	return l
}
