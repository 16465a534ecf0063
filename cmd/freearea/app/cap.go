package app

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform/capfile"
)

func (p *program) capCommand() *cli.Command {
	t := p.lang.T
	return p.group(&cli.Command{
		Name:  "cap",
		Usage: t(msg.Of("Java Card load files (CAP)", "Java Card ロードファイル(CAP)")),
		Subcommands: []*cli.Command{{
			Name:      "show",
			Usage:     t(msg.Of("say what a load file holds, needs, and what the emulated card lacks for it", "ロードファイルの内容、必要なもの、エミュレーションカードに足りないものを示す")),
			ArgsUsage: "FILE",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "profile", Usage: t(msg.Of(
					"say what a kind of card lacks, `NAME`: contactless or contact, as emulated, or javacard- and a release, as in javacard-2.2.2",
					"カードの種類 `NAME` に足りないものを示す: contactless、contact(エミュレーション)、または javacard-2.2.2 のような javacard-リリース名"))},
				p.jsonFlag(),
			},
			Action: p.capShow,
		}},
	})
}

// capListing is what `cap show --json` prints; docs/json.md describes it.
type capListing struct {
	V          int            `json:"v"`
	Type       string         `json:"type"`
	Package    capPackage     `json:"package"`
	Format     string         `json:"format"`
	SHA256     string         `json:"sha256"` // of the load file data block
	Size       int            `json:"size"`   // of the load file data block, in bytes
	Applets    []string       `json:"applets"`
	Imports    []capPackage   `json:"imports"`
	Components []capComponent `json:"components"`
	Members    []capMember    `json:"members"`
	Executable bool           `json:"executable"`
	Profile    *string        `json:"profile"` // of the card that lacks
	Lacks      []capLack      `json:"lacks"`
}

type capPackage struct {
	AID     string  `json:"aid"`
	Version string  `json:"version"`
	Name    *string `json:"name"`
}

type capComponent struct {
	Name string `json:"name"`
	Size int    `json:"size"`
}

type capMember struct {
	Package     string `json:"package"`
	Name        string `json:"name"`
	Known       bool   `json:"known"`       // the emulated card's API has it
	Implemented bool   `json:"implemented"` // and can execute it
}

func (p *program) capShow(c *cli.Context) error {
	path, err := oneArgument(c, "FILE")
	if err != nil {
		return err
	}
	file, err := capfile.ReadFile(path)
	if err != nil {
		return about(path, err)
	}
	members, err := jcvm.Members(file)
	if err != nil {
		return about(path, err)
	}
	out := listCAP(file, members)
	if profile := c.String("profile"); profile != "" {
		out.Profile = &profile
		if out.Lacks, err = lacks(file, members, profile); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return json.NewEncoder(p.Stdout).Encode(out)
	}
	return p.printCAP(out)
}

func listCAP(file *capfile.File, members []jcvm.Member) capListing {
	pack := func(x capfile.Package) capPackage {
		return capPackage{AID: x.AID.String(), Version: fmt.Sprintf("%d.%d", x.Major, x.Minor), Name: orNull(x.Name)}
	}
	block := file.LoadFileDataBlock()
	out := capListing{
		V: 1, Type: "cap", Package: pack(file.Package), Format: fmt.Sprintf("%d.%d", file.FormatMajor, file.FormatMinor),
		SHA256: fmt.Sprintf("%x", file.Hash()), Size: len(block),
		Applets: []string{}, Imports: []capPackage{}, Components: []capComponent{}, Members: []capMember{}, Executable: true, Lacks: []capLack{},
	}
	for _, a := range file.Applets {
		out.Applets = append(out.Applets, a.String())
	}
	for _, i := range file.Imports {
		out.Imports = append(out.Imports, pack(i))
	}
	for component := capfile.Header; component <= capfile.Debug; component++ {
		if b := file.Component(component); b != nil {
			out.Components = append(out.Components, capComponent{component.String(), len(b)})
		}
	}
	for _, m := range members {
		out.Members = append(out.Members, capMember{m.Package.String(), m.Name, m.Known, m.Implemented})
		out.Executable = out.Executable && m.Known && m.Implemented
	}
	return out
}

func (p *program) printCAP(out capListing) error {
	var head, members table
	row := func(t msg.Text, value string) { head.row(p.lang.T(t), value) }
	name := func(x capPackage) string { return x.AID + " " + x.Version + " " + orEmpty(x.Name) }
	row(msg.Of("package", "パッケージ"), name(out.Package))
	row(msg.Of("CAP format", "CAP形式"), out.Format)
	row(msg.Of("load file data block", "ロードファイルデータブロック"), p.lang.T(msg.Of("%s bytes, SHA-256 %s", "%s バイト、SHA-256 %s"), strconv.Itoa(out.Size), out.SHA256))
	for _, a := range out.Applets {
		row(msg.Of("applet", "アプレット"), a)
	}
	for _, i := range out.Imports {
		row(msg.Of("imports", "インポート"), name(i))
	}
	for _, c := range out.Components {
		row(msg.Of("component", "コンポーネント"), fmt.Sprintf("%s %d", c.Name, c.Size))
	}
	if err := head.write(p.Stdout, ""); err != nil {
		return err
	}
	p.printf(msg.Of("uses:", "使用するAPI:"))
	for _, m := range out.Members {
		state := msg.Text{}
		switch {
		case !m.Known:
			state = msg.Of("not in the emulated card's API", "エミュレーションカードのAPIにありません")
		case !m.Implemented:
			state = msg.Of("not executed by the emulated card", "エミュレーションカードでは実行できません")
		}
		members.row(m.Name, p.lang.T(state))
	}
	if err := members.write(p.Stdout, "  "); err != nil {
		return err
	}
	if out.Executable {
		p.printf(msg.Of("the emulated card has everything that it refers to", "参照するものはすべてエミュレーションカードにあります"))
	} else {
		p.printf(msg.Of("the emulated card lacks what is marked; the applet fails where it is used", "印の付いたものがエミュレーションカードにありません。使用した時点で失敗します"))
	}
	if out.Profile != nil {
		return p.printLacks(*out.Profile, out.Lacks)
	}
	return nil
}
