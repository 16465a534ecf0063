package app

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform/capfile"
)

// capLack is something that a kind of card lacks for a load file.
type capLack struct {
	What string `json:"what"` // package, member, memory or extended-length
	Name string `json:"name"` // of it; memory: the bytes that are needed
}

// releasePrefix stands before the release of Java Card in --profile.
const releasePrefix = "javacard-"

// lacks says what a kind of card lacks for a load file: one that is emulated, or
// any of a release of Java Card.
func lacks(file *capfile.File, members []jcvm.Member, profile string) ([]capLack, error) {
	out := []capLack{}
	packages := func(list []capfile.Package) {
		for _, p := range list {
			out = append(out, capLack{"package", fmt.Sprintf("%v %d.%d", p.AID, p.Major, p.Minor)})
		}
	}
	if release, ok := strings.CutPrefix(profile, releasePrefix); ok {
		unmet, err := file.Unmet(release)
		packages(unmet)
		return out, err
	}
	card, err := emulator.LookupProfile(profile)
	if err != nil {
		return nil, err
	}
	packages(jcvm.Unmet(file))
	for _, m := range members {
		if !m.Known || !m.Implemented {
			out = append(out, capLack{"member", m.Name})
		}
		if m.Name == "javacardx/apdu/ExtendedLength" && !card.ExtendedLength {
			out = append(out, capLack{"extended-length", m.Name})
		}
	}
	if n := len(file.LoadFileDataBlock()); n > card.PersistentMemory {
		out = append(out, capLack{"memory", strconv.Itoa(n)})
	}
	return out, nil
}

// printLacks is lacks for people.
func (p *program) printLacks(profile string, list []capLack) error {
	if len(list) == 0 {
		p.printf(msg.Of("%s has all that can be told from the load file", "%s には、ロードファイルから分かる範囲で必要なものがすべてあります"), profile)
		return nil
	}
	what := map[string]msg.Text{
		"package":         msg.Of("package", "パッケージ"),
		"member":          msg.Of("API", "API"),
		"memory":          msg.Of("memory, bytes", "メモリ(バイト)"),
		"extended-length": msg.Of("extended length", "拡張長"),
	}
	p.printf(msg.Of("%s lacks:", "%s に足りないもの:"), profile)
	var rows table
	for _, l := range list {
		rows.row(p.lang.T(what[l.What]), l.Name)
	}
	return rows.write(p.Stdout, "  ")
}
