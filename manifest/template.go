package manifest

import (
	"crypto/rand"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema (draft 2020-12) of manifests, for editors.
// It knows keys, types and ranges; the rules that need more than one key are
// this package's alone.
func Schema() []byte { return append([]byte(nil), schema...) }

//go:embed new.toml.tmpl
var newText string

var newTemplate = template.Must(template.New("manifest").Delims("«", "»").Parse(newText))

// DrawAID draws an instance AID of 16 bytes from the range that needs no
// registration (first nibble F); random nil is crypto/rand. Two services that
// draw theirs have different ones.
func DrawAID(random io.Reader) (iso7816.AID, error) {
	if random == nil {
		random = rand.Reader
	}
	for range 16 {
		var b [16]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return iso7816.AID{}, fmt.Errorf("random source: %w", err)
		}
		b[0] |= 0xF0
		aid, err := iso7816.NewAID(b[:])
		if err != nil {
			return iso7816.AID{}, err
		}
		// Hexadecimal digits that look like an Individual Number would be
		// refused, and so would the beginning of the base load file's AIDs.
		if !HoldsIndividualNumber(aid.String()) && !aid.HasPrefix(applets.BasePackage) {
			return aid, nil
		}
	}
	return iso7816.AID{}, fmt.Errorf("random source gives no usable AID")
}

// New returns the text of a new manifest for a base profile, with an instance
// AID drawn at random (random nil: crypto/rand). It is valid TOML; what only
// its author knows is left as "<fill in …>", which Parse reports as
// [RuleBlank], and nothing else is wrong with it.
func New(profile string, random io.Reader) ([]byte, error) {
	p, ok := applets.Base().Lookup(profile)
	if !ok {
		return nil, fmt.Errorf("profile %q: %w", profile, RuleProfileUnknown)
	}
	aid, err := DrawAID(random)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	err = newTemplate.Execute(&b, map[string]any{
		"Profile":  profile,
		"Traits":   p.Traits(),
		"AID":      aid,
		"Path":     BuiltinBase,
		"Hash":     Hash(applets.BaseLoadFileHash()),
		"Kinds":    operatorKinds(),
		"Bases":    Bases(),
		"MaxItems": applets.MaxItems,
	})
	return []byte(b.String()), err
}
