package manifest

import (
	_ "embed"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/BurntSushi/toml"
)

//go:embed basis.toml
var basisTable string

// Basis is one basis in law for using the free area of the card. The table
// is basis.toml in this package.
type Basis struct {
	ID       string         `toml:"id"`
	Date     time.Time      `toml:"date"`     // day of promulgation of the instrument
	Covers   []OperatorKind `toml:"covers"`   // bodies that may rely on it
	RestsOn  string         `toml:"rests_on"` // "ordinance" or "notice": what must name the work
	Article  Text           `toml:"article"`  // short form
	Citation Text           `toml:"citation"` // full form
	Subject  Text           `toml:"subject"`  // what it allows to whom, in short
}

// What a basis may rest on.
const (
	restsOnOrdinance = "ordinance"
	restsOnNotice    = "notice"
)

var parseBases = sync.OnceValue(func() []Basis {
	var table struct {
		Basis []Basis `toml:"basis"`
	}
	if _, err := toml.Decode(basisTable, &table); err != nil {
		panic("manifest: basis.toml: " + err.Error())
	}
	return table.Basis
})

// Bases returns the table of bases in law, in its own order.
func Bases() []Basis {
	bases := slices.Clone(parseBases())
	for i := range bases {
		bases[i].Covers = slices.Clone(bases[i].Covers)
	}
	return bases
}

// LookupBasis returns the basis with an id.
func LookupBasis(id string) (Basis, bool) {
	for _, b := range Bases() {
		if b.ID == id {
			return b, true
		}
	}
	return Basis{}, false
}

// basisIDs lists the ids of the bases that cover a kind of body; "" is all.
func basisIDs(kind OperatorKind) string {
	var ids []string
	for _, b := range Bases() {
		if kind == "" || slices.Contains(b.Covers, kind) {
			ids = append(ids, b.ID)
		}
	}
	return strings.Join(ids, ", ")
}
