package manifest

import (
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/recipe"
)

// Custom is the profile of a manifest that says itself, in its table custom,
// how the application is used.
const Custom = "custom"

// RecipeFormat is the version of profile files that this package reads.
const RecipeFormat = 1

// recipeFile is a profile in a file of its own.
type recipeFile struct {
	Format int           `toml:"recipe"`
	Custom recipe.Recipe `toml:"custom"`
}

// LookupProfile returns the manifest's application profile: its own, or one of
// those that are known.
func (m *Manifest) LookupProfile(known applets.Profiles) (applets.Profile, bool) {
	if m.Profile != Custom {
		return known.Lookup(m.Profile)
	}
	p, err := recipe.New(Custom, m.Custom)
	return p, err == nil
}

// LoadProfiles reads the profiles of a folder: every file NAME.toml is one, a
// recipe. A name that is among known is refused. The error is a [Faults] with
// every fault of every file.
func LoadProfiles(dir string, known applets.Profiles) (applets.Profiles, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, Faults{{File: dir, Rule: RuleUnreadable, args: []any{plainError(err)}}}
	}
	var out applets.Profiles
	var faults Faults
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".toml")
		if !ok || e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := readBounded(path)
		if err != nil {
			faults = append(faults, Fault{File: path, Rule: RuleUnreadable, args: []any{plainError(err)}})
			continue
		}
		p, found := parseProfile(path, name, data, known)
		faults = append(faults, found...)
		if p != nil {
			out = append(out, p)
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return out, nil
}

// ParseProfile reads the profile of that name from data; file stands in the
// faults' places. The error is a [Faults].
func ParseProfile(file, name string, data []byte) (applets.Profile, error) {
	p, faults := parseProfile(file, name, data, applets.Base())
	if len(faults) > 0 {
		return nil, faults
	}
	return p, nil
}

func parseProfile(file, name string, data []byte, known applets.Profiles) (applets.Profile, Faults) {
	c := &checker{file: file}
	var f recipeFile
	tree, ok := c.take(data, reflect.ValueOf(&f).Elem())
	if !ok {
		return nil, c.faults
	}
	if _, taken := known.Lookup(name); taken || name == Custom || !isName(name, maxServiceID, "-") {
		c.faults = append(c.faults, Fault{File: file, Rule: RuleRecipeFile})
	}
	if f.Format != RecipeFormat {
		c.fault("recipe", RuleRecipeFormat, RecipeFormat)
	}
	c.individualNumbers("", tree)
	c.recipeProblems(f.Custom.Check())
	if len(c.faults) > 0 {
		return nil, c.sorted()
	}
	p, err := recipe.New(name, f.Custom)
	if err != nil {
		return nil, Faults{{File: file, Key: "custom", Rule: RuleSyntax, args: []any{err}}}
	}
	return p, nil
}

// customProfile checks the table custom and makes a profile of it.
func (c *checker) customProfile() {
	if !c.has("custom") {
		c.fault("custom", RuleMissing, "[custom.install], [custom.personalize], …")
		return
	}
	c.recipeProblems(c.m.Custom.Check())
	c.recipeProblems(c.m.Custom.CheckService(c.needs()))
	p, err := recipe.New(Custom, c.m.Custom)
	if err != nil {
		return // Check has said why
	}
	c.profile = p
	c.m.protection = recipeProtection(p)
}

func recipeProtection(p applets.Profile) string {
	if p.Traits().PIN {
		return protectionRecipePIN
	}
	return protectionRecipe
}

// needs is what the service wants of an application.
func (c *checker) needs() recipe.Needs {
	m := c.m
	n := recipe.Needs{PIN: m.PIN.Policy == PINRequired, MustChange: m.PIN.MustChange, Signed: m.Keys.IssuerSigning != ""}
	for _, it := range m.Items {
		n.Items = append(n.Items, it.Name)
	}
	return n
}

// recipeFits holds a profile that is a recipe against the service; the recipe
// stands in another file, so what does not fit is the profile.
func (c *checker) recipeFits(p applets.Profile) {
	r, ok := recipe.Of(p)
	if !ok {
		return
	}
	c.m.protection = recipeProtection(p)
	for _, x := range r.CheckService(c.needs()) {
		c.d.fault("profile", Rule(x.Rule), x.Args...)
	}
}

// recipeProblems reports what is wrong with the table custom, but not what
// follows from a fault that was found within the same key.
func (c *checker) recipeProblems(problems recipe.Problems) {
	before := slices.Collect(maps.Keys(c.d.faulty))
	for _, x := range problems {
		path := "custom." + x.Path
		within := func(key string) bool {
			rest, ok := strings.CutPrefix(key, path)
			return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
		}
		if slices.ContainsFunc(before, within) {
			continue
		}
		c.fault(path, Rule(x.Rule), x.Args...)
	}
}

// hexHoldsIndividualNumber looks into a constant: bytes can spell what digits
// may not.
func hexHoldsIndividualNumber(s string) bool {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	return err == nil && HoldsIndividualNumber(string(b))
}
