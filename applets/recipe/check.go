package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// Limits of a recipe.
const (
	MaxSteps  = 16   // of observing, and of reading
	MaxDepth  = 4    // of parts within parts
	MaxHex    = 1024 // bytes of a constant
	MaxMemory = 1 << 20
	maxFill   = 255 // bytes that a value is filled up to
	maxRead   = 16 << 10
	maxPIN    = 64 // bytes of a PIN's reference block
)

// Rules of recipes, as a [Problem] names them. Where another rule of manifests
// says the same, its name is used: missing, choice, range.
const (
	RuleMissing     = "missing"            // args: what to write
	RuleChoice      = "choice"             // args: the value, the values allowed
	RuleRange       = "range"              // args: low, high
	RuleOneOf       = "recipe-one-of"      // args: the keys of which exactly one is to be there
	RuleNotHere     = "recipe-not-here"    // args: what the key does not go with
	RuleSize        = "recipe-size"        // args: bytes allowed
	RuleIdentifier  = "recipe-identifier"  // args: none; a group's
	RuleDepth       = "recipe-depth"       // args: levels allowed
	RuleCount       = "recipe-count"       // args: number allowed
	RulePINInClear  = "recipe-pin-clear"   // args: none
	RuleConstant    = "recipe-constant"    // args: none; erasing writes constants only
	RuleSource      = "recipe-source"      // args: the name, the names there are
	RuleName        = "recipe-name"        // args: none
	RuleNameTwice   = "recipe-name-twice"  // args: the name
	RuleNotWritten  = "recipe-not-written" // args: the value
	RuleNotRead     = "recipe-not-read"    // args: what
	RuleItemUnknown = "recipe-item"        // args: the item's name
	RulePINPolicy   = "recipe-pin-policy"  // args: none
	RuleObject      = "recipe-object"      // args: none; the tag of GET DATA
	RuleVerifyTwice = "recipe-verify"      // args: none
)

// Rules lists the rules that are of recipes alone.
func Rules() []string {
	return []string{
		RuleOneOf, RuleNotHere, RuleSize, RuleIdentifier, RuleDepth, RuleCount, RulePINInClear, RuleConstant, RuleSource,
		RuleName, RuleNameTwice, RuleNotWritten, RuleNotRead, RuleItemUnknown, RulePINPolicy, RuleObject, RuleVerifyTwice,
	}
}

// Problem is something wrong with a recipe.
type Problem struct {
	Path string // of the key, as in TOML: read.steps[0].sfi
	Rule string
	Args []any
}

func (p Problem) Error() string { return fmt.Sprintf("%s: %s %v", p.Path, p.Rule, p.Args) }

// Problems is what New returns for a recipe that Check finds fault with.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return "recipe: " + strings.Join(lines, "; ")
}

type checker struct{ problems Problems }

func (c *checker) fault(path, rule string, args ...any) {
	c.problems = append(c.problems, Problem{path, rule, args})
}

// choice checks a value out of a list.
func (c *checker) choice(path, value string, allowed ...string) bool {
	switch list := strings.Join(allowed, ", "); {
	case slices.Contains(allowed, value):
		return true
	case value == "":
		c.fault(path, RuleMissing, list)
	default:
		c.fault(path, RuleChoice, value, list)
	}
	return false
}

func (c *checker) within(path string, n, low, high int) {
	if n < low || n > high {
		c.fault(path, RuleRange, low, high)
	}
}

func (c *checker) size(path string, h Hex, most int) {
	if len(h) > most {
		c.fault(path, RuleSize, most)
	}
}

// oneOf asks for exactly one of the keys, as they stand in given.
func (c *checker) oneOf(path string, keys []string, given ...bool) {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	if n != 1 {
		c.fault(path, RuleOneOf, strings.Join(keys, ", "))
	}
}

// notHere refuses keys that mean nothing where they are.
func (c *checker) notHere(path, with string, keys []string, given ...bool) {
	for i, g := range given {
		if g {
			c.fault(path+"."+keys[i], RuleNotHere, with)
		}
	}
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// Check says what is wrong with a recipe by itself; nil is a good one.
func (r Recipe) Check() Problems {
	c := &checker{}
	c.size("install.parameters", r.Install.Parameters, 127)
	c.within("install.memory", r.Install.Memory, 1, MaxMemory)
	c.choice("personalize.format", r.Personalize.Format, "dgi", "ber-tlv")
	if len(r.Personalize.Groups) == 0 {
		c.fault("personalize.groups", RuleMissing, "[[personalize.groups]]")
	}
	for i, g := range r.Personalize.Groups {
		c.group(at("personalize.groups", i), r.Personalize.Format, g, false)
	}
	if c.choice("wipe.by", r.Wipe.By, "groups", "delete") {
		if r.Wipe.By == "delete" {
			c.notHere("wipe", `by = "delete"`, []string{"groups"}, len(r.Wipe.Groups) > 0)
		} else if len(r.Wipe.Groups) == 0 {
			c.fault("wipe.groups", RuleMissing, "[[wipe.groups]]")
		}
	}
	for i, g := range r.Wipe.Groups {
		c.group(at("wipe.groups", i), r.Personalize.Format, g, true)
	}
	if len(c.problems) == 0 { // constants either have an encoding or never will
		if _, err := (&Profile{r: r}).blocks(r.Wipe.Groups, &writer{}); err != nil {
			c.fault("wipe.groups", RuleSize, iso7816.MaxTLVLength)
		}
	}
	if r.Select.FCI != "" {
		c.choice("select.fci", r.Select.FCI, "required", "none")
	}
	c.observe(r.Observe)
	c.read(r.Read)
	written := r.written()
	for _, v := range []string{ValueTag, ValueID, ValueIssueNumber} {
		if len(r.Personalize.Groups) > 0 && !written[v] && !(v != ValueTag && written[ValueRecord]) {
			c.fault("personalize.groups", RuleNotWritten, v)
		}
	}
	if r.verifies() != written[ValuePIN] {
		if written[ValuePIN] {
			c.fault("read.steps", RuleNotRead, Verify)
		} else {
			c.fault("personalize.groups", RuleNotWritten, ValuePIN)
		}
	}
	return c.problems
}

func (c *checker) group(path, format string, g Group, constant bool) {
	switch {
	case len(g.ID) == 0:
		c.fault(path+".id", RuleMissing, `id = "…"`)
	case format == "dgi" && len(g.ID) != 2:
		c.fault(path+".id", RuleIdentifier)
	case format == "ber-tlv":
		if _, err := tagOf(g.ID); err != nil {
			c.fault(path+".id", RuleIdentifier)
		}
	}
	c.parts(path+".parts", g.Parts, 1, false, constant)
}

func (c *checker) parts(path string, list []Part, depth int, encrypted, constant bool) {
	if depth > MaxDepth {
		c.fault(path, RuleDepth, MaxDepth)
		return
	}
	for i, p := range list {
		path := at(path, i)
		isValue := p.Value != "" || p.Item != ""
		c.oneOf(path, []string{"hex", "value", "item", "parts"}, len(p.Hex) > 0, p.Value != "", p.Item != "", len(p.Parts) > 0)
		c.size(path+".hex", p.Hex, MaxHex)
		if p.Value != "" {
			c.choice(path+".value", p.Value, values...)
		}
		if constant && (isValue || p.Encrypt) {
			c.fault(path, RuleConstant)
		}
		if p.Value == ValuePIN && !encrypted {
			c.fault(path+".value", RulePINInClear)
		}
		if len(p.Parts) == 0 {
			c.notHere(path, "parts", []string{"tag", "encrypt"}, p.Tag != 0, p.Encrypt)
		}
		if p.Tag != 0 && p.Encrypt {
			c.fault(path, RuleOneOf, "tag, encrypt")
		}
		if p.Padding != "" {
			c.choice(path+".padding", p.Padding, "80", "none")
			c.notHere(path, "encrypt", []string{"padding"}, !p.Encrypt)
		}
		c.fill(path, p.Length, p.Fill, isValue)
		if len(p.Parts) > 0 {
			c.parts(path+".parts", p.Parts, depth+1, encrypted || p.Encrypt, constant)
		}
	}
}

// fill checks the length that something is filled up to, and with what.
func (c *checker) fill(path string, length int, fill Hex, allowed bool) {
	if !allowed {
		c.notHere(path, "value, item", []string{"length", "fill"}, length != 0, len(fill) > 0)
		return
	}
	if length == 0 && len(fill) == 0 {
		return
	}
	c.within(path+".length", length, 1, maxFill)
	if len(fill) != 1 {
		c.fault(path+".fill", RuleMissing, `fill = "FF"`)
	}
}

func (c *checker) observe(o Observe) {
	if o.Via != "" && !c.choice("observe.via", o.Via, "commands", "store-data") {
		return
	}
	if o.Via == "store-data" {
		if len(o.Request) == 0 {
			c.fault("observe.request", RuleMissing, `request = "…"`)
		}
		c.size("observe.request", o.Request, applets.MaxBlock)
		c.notHere("observe", `via = "store-data"`, []string{"steps"}, len(o.Steps) > 0)
		c.location("observe.tag", o.Tag, []string{"answer"}, true)
		c.location("observe.issue_number", o.IssueNumber, []string{"answer"}, true)
		return
	}
	c.notHere("observe", `via = "commands"`, []string{"request"}, len(o.Request) > 0)
	names := c.steps("observe.steps", o.Steps, false)
	c.location("observe.tag", o.Tag, names, true)
	c.location("observe.issue_number", o.IssueNumber, names, true)
}

func (c *checker) read(r Read) {
	names := c.steps("read.steps", r.Steps, true)
	c.location("read.record", r.Record, names, false)
	whole := r.Record.given()
	for _, x := range []struct {
		key string
		l   Location
	}{{"id", r.ID}, {"service", r.Service}, {"issue_number", r.IssueNumber}, {"expiry", r.Expiry}, {"signature", r.Signature}} {
		if whole && x.l.given() {
			c.fault("read."+x.key, RuleNotHere, "record")
			continue
		}
		c.location("read."+x.key, x.l, names, x.key == "id" && !whole)
	}
	c.location("read.all_items", r.AllItems, names, false)
	seen := map[string]bool{}
	for i, it := range r.Items {
		path := at("read.items", i)
		if r.AllItems.given() {
			c.fault(path, RuleNotHere, "all_items")
		}
		if it.Name == "" {
			c.fault(path+".name", RuleMissing, `name = "…"`)
		} else if seen[it.Name] {
			c.fault(path+".name", RuleNameTwice, it.Name)
		}
		seen[it.Name] = true
		c.location(path, Location{it.From, it.Path}, names, true)
	}
}

// location checks where something stands.
func (c *checker) location(path string, l Location, names []string, needed bool) {
	switch {
	case l.From == "" && (needed || len(l.Path) > 0):
		c.fault(path+".from", RuleMissing, `from = "…"`)
	case l.From != "" && !slices.Contains(names, l.From):
		c.fault(path+".from", RuleSource, l.From, strings.Join(names, ", "))
	}
	if len(l.Path) > MaxDepth {
		c.fault(path+".path", RuleDepth, MaxDepth)
	}
}

// steps checks steps and returns the names that locations can refer to.
func (c *checker) steps(path string, list []Step, pin bool) []string {
	names := []string{"select"}
	if len(list) > MaxSteps {
		c.fault(path, RuleCount, MaxSteps)
	}
	verified := false
	for i, s := range list {
		path := at(path, i)
		commands := []string{ReadBinary, ReadRecord, GetData}
		if pin {
			commands = append(commands, Verify)
		}
		if !c.choice(path+".command", s.Command, commands...) {
			continue
		}
		c.step(path, s)
		if len(s.Class) > 0 && (len(s.Class) != 1 || s.Class[0]&0x0F != 0) {
			c.fault(path+".class", RuleChoice, fmt.Sprintf("%X", []byte(s.Class)), "00, 80, 90, …")
		}
		if w := s.When; w.From != "" || len(w.Path) > 0 || len(w.Equals) > 0 {
			c.location(path+".when", Location{w.From, w.Path}, names, true)
			if len(w.Equals) == 0 {
				c.fault(path+".when.equals", RuleMissing, `equals = "…"`)
			}
		}
		switch {
		case s.Command == Verify:
			if verified {
				c.fault(path, RuleVerifyTwice)
			}
			verified = true
			c.notHere(path, Verify, []string{"name"}, s.Name != "")
		case s.Name == "":
			c.fault(path+".name", RuleMissing, `name = "…"`)
		case slices.Contains(names, s.Name):
			c.fault(path+".name", RuleNameTwice, s.Name)
		case !isName(s.Name) || s.Name == "answer":
			c.fault(path+".name", RuleName)
		default:
			names = append(names, s.Name)
		}
	}
	return names
}

func isName(s string) bool {
	return len(s) <= 16 && s[0] >= 'a' && s[0] <= 'z' && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	})
}

// step checks the keys that belong to one command or another.
func (c *checker) step(path string, s Step) {
	binary, record, object, verify := s.Command == ReadBinary, s.Command == ReadRecord, s.Command == GetData, s.Command == Verify
	if s.SFI != 0 {
		c.within(path+".sfi", s.SFI, 1, 30)
	}
	if len(s.File) > 0 && len(s.File) != 2 {
		c.fault(path+".file", RuleSize, 2)
	}
	if object {
		c.notHere(path, GetData, []string{"sfi", "file"}, s.SFI != 0, len(s.File) > 0)
	} else {
		c.oneOf(path, []string{"sfi", "file"}, s.SFI != 0, len(s.File) > 0)
	}
	if record {
		c.within(path+".record", s.Record, 1, 254)
	} else {
		c.notHere(path, s.Command, []string{"record"}, s.Record != 0)
	}
	switch {
	case object && (s.Tag == 0 || s.Tag > 0xFFFF):
		c.fault(path+".tag", RuleObject)
	case !object:
		c.notHere(path, s.Command, []string{"tag"}, s.Tag != 0)
	}
	switch {
	case verify:
		c.within(path+".length", s.Length, applets.MaxPINDigits, maxPIN)
		if len(s.Fill) != 1 {
			c.fault(path+".fill", RuleMissing, `fill = "FF"`)
		}
	case binary && s.Length != 0:
		c.within(path+".length", s.Length, 1, maxRead)
	case !binary:
		c.notHere(path, s.Command, []string{"length"}, s.Length != 0)
	}
	if !verify {
		c.notHere(path, s.Command, []string{"fill", "change"}, len(s.Fill) > 0, s.Change)
	}
}

// Needs is what a service wants of an application.
type Needs struct {
	Items                   []string
	PIN, MustChange, Signed bool
}

// CheckService says where the recipe does not do what a service needs.
func (r Recipe) CheckService(n Needs) Problems {
	c := &checker{}
	written := r.written()
	var walk func(path string, list []Part)
	walk = func(path string, list []Part) {
		for i, p := range list {
			if p.Item != "" && !slices.Contains(n.Items, p.Item) {
				c.fault(at(path, i)+".item", RuleItemUnknown, p.Item)
			}
			walk(at(path, i)+".parts", p.Parts)
		}
	}
	for i, g := range r.Personalize.Groups {
		walk(at("personalize.groups", i)+".parts", g.Parts)
	}
	read := map[string]bool{}
	for i, it := range r.Read.Items {
		read[it.Name] = true
		if it.Name != "" && !slices.Contains(n.Items, it.Name) {
			c.fault(at("read.items", i)+".name", RuleItemUnknown, it.Name)
		}
	}
	for _, name := range n.Items {
		if !written["item:"+name] && !written[ValueItems] {
			c.fault("personalize.groups", RuleNotWritten, name)
		}
		if !read[name] && !r.Read.AllItems.given() {
			c.fault("read.items", RuleNotRead, name)
		}
	}
	if n.PIN != written[ValuePIN] {
		c.fault("personalize.groups", RulePINPolicy)
	}
	if n.MustChange && !written[ValuePINMustChange] {
		c.fault("personalize.groups", RuleNotWritten, ValuePINMustChange)
	}
	if n.Signed && !written[ValueRecord] {
		if !written[ValueSignature] {
			c.fault("personalize.groups", RuleNotWritten, ValueSignature)
		}
		// The signature covers issue number and expiry.
		for _, x := range []struct {
			key string
			l   Location
		}{{"signature", r.Read.Signature}, {"issue_number", r.Read.IssueNumber}, {"expiry", r.Read.Expiry}} {
			if !x.l.given() && !r.Read.Record.given() {
				c.fault("read."+x.key, RuleNotRead, x.key)
			}
		}
	}
	return c.problems
}

// written names the values and, as "item:NAME", the items that
// personalisation writes.
func (r Recipe) written() map[string]bool {
	out := map[string]bool{}
	var walk func([]Part)
	walk = func(list []Part) {
		for _, p := range list {
			switch {
			case p.Value != "":
				out[p.Value] = true
			case p.Item != "":
				out["item:"+p.Item] = true
			}
			walk(p.Parts)
		}
	}
	for _, g := range r.Personalize.Groups {
		walk(g.Parts)
	}
	return out
}

func (r Recipe) verifies() bool {
	return slices.ContainsFunc(r.Read.Steps, func(s Step) bool { return s.Command == Verify })
}

func (r Recipe) format() globalplatform.Format {
	if r.Personalize.Format == "ber-tlv" {
		return globalplatform.FormatBERTLV
	}
	return globalplatform.FormatDGI
}
