package manifest

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

const (
	maxName        = 60   // characters of a name or label
	maxText        = 1000 // characters of a text
	maxItemName    = 16
	maxServiceID   = 32
	maxKeyName     = 64
	maxConsentDays = 3650
	maxKeptDays    = 36500
	// keySets is the room for read keys that an instance is installed with:
	// one set in use and the next one while terminals change over.
	keySets = 2
)

// text checks a text in both languages.
func (c *checker) text(path string, t Text, limit int, lines bool) {
	for _, lang := range []string{Japanese, English} {
		key := path + "." + lang
		s := t.In(lang)
		switch {
		case strings.TrimSpace(s) == "":
			c.fault(key, RuleMissing, lang+` = "…"`)
		case utf8.RuneCountInString(s) > limit:
			c.fault(key, RuleTextLength, limit)
		case strings.IndexFunc(s, func(r rune) bool { return notPrintable(r, lines) }) >= 0:
			c.fault(key, RuleText)
		}
	}
}

// notPrintable also refuses the marks that turn the direction of writing:
// they can make a text read otherwise than it is.
func notPrintable(r rune, lines bool) bool {
	if r == '\n' {
		return !lines
	}
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// choice checks a value out of a fixed list.
func choice[T ~string](c *checker, path string, value T, allowed ...T) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	list := strings.Join(names, ", ")
	if value == "" {
		c.fault(path, RuleMissing, list)
	} else {
		c.fault(path, RuleChoice, string(value), list)
	}
	return false
}

func (c *checker) within(path string, n, low, high int) {
	if n < low || n > high {
		c.fault(path, RuleRange, low, high)
	}
}

// isName reports whether s is a name: 1 to limit of a-z, 0-9 and the extra
// characters, beginning with a letter.
func isName(s string, limit int, extra string) bool {
	if s == "" || len(s) > limit || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(extra, r))
	})
}

func (c *checker) service() {
	m := c.m
	if m.Format != Format {
		c.fault("manifest", RuleFormat, Format)
	}
	if !isName(m.ID, maxServiceID, "-") {
		c.fault("id", RuleServiceID)
	}
	c.text("name", m.Name, maxName, false)
	if !hasJapanese(m.Purpose.JA) {
		c.fault("purpose.ja", RulePurposeJapanese)
	}
	c.text("purpose", m.Purpose, maxText, true)
}

// hasJapanese reports whether a text has kana or kanji.
func hasJapanese(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.Hiragana, unicode.Katakana, unicode.Han)
	})
}

var kinds = []OperatorKind{
	Municipality, AdministrativeOrgan, IndependentAgency, CardOperator, LocalGovernment, LocalIndependentBody, PrivateBusiness,
}

func operatorKinds() string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

func (c *checker) operator() {
	o := c.m.Operator
	c.text("operator.name", o.Name, maxName, false)
	c.text("operator.contact", o.Contact, maxText, true)
	kind := choice(c, "operator.kind", o.Kind, kinds...)
	b, ok := LookupBasis(o.Basis)
	switch {
	case o.Basis == "":
		c.fault("operator.basis", RuleMissing, basisIDs(""))
	case !ok:
		c.fault("operator.basis", RuleBasisUnknown, o.Basis, basisIDs(""))
	case kind && !slices.Contains(b.Covers, o.Kind):
		c.fault("operator.basis", RuleBasisKind, b.Article, string(o.Kind), basisIDs(o.Kind))
	}
	if !ok {
		if o.Kind == PrivateBusiness && o.Notice.JA == "" {
			c.fault("operator.notice.ja", RulePrivateBusinessNotice, Text{JA: "告示", EN: "notice"})
		}
		return
	}
	needed, neededText, rule := "operator.ordinance", o.Ordinance, RuleBasisOrdinance
	other, otherText := "operator.notice", o.Notice
	if b.RestsOn == restsOnNotice {
		needed, neededText, rule, other, otherText = other, otherText, RuleBasisNotice, needed, neededText
	}
	if o.Kind == PrivateBusiness {
		needed, neededText, rule = "operator.notice", o.Notice, RulePrivateBusinessNotice
	}
	if strings.TrimSpace(neededText.JA) == "" {
		c.fault(needed+".ja", rule, b.Article)
	}
	c.text(needed, neededText, maxText, false)
	if other != needed && otherText != (Text{}) {
		c.fault(other, RuleBasisOther, b.Article)
	}
}

func (c *checker) checkProfile(profiles applets.Profiles) {
	if c.m.Profile == Custom {
		c.customProfile()
		return
	}
	if c.has("custom") {
		c.fault("custom", RuleCustomUnused)
	}
	p, ok := profiles.Lookup(c.m.Profile)
	if ok {
		c.profile = p
		c.recipeFits(p)
		return
	}
	names := make([]string, len(profiles), len(profiles)+1)
	for i, p := range profiles {
		names[i] = p.Name()
	}
	names = append(names, Custom)
	list := strings.Join(names, ", ")
	if c.m.Profile == "" {
		c.fault("profile", RuleMissing, list)
	} else {
		c.fault("profile", RuleProfileUnknown, c.m.Profile, list)
	}
}

// cardsOwn are the registered application providers whose applications a card
// comes with, by the first 5 bytes of their AIDs.
var cardsOwn = []struct {
	prefix iso7816.AID
	owner  Text
}{
	{iso7816.MustAID("A000000151"), Text{JA: "GlobalPlatform", EN: "GlobalPlatform"}},
	{iso7816.MustAID("A000000062"), Text{JA: "Java Card", EN: "Java Card"}},
	{iso7816.MustAID("D392F00026"), Text{JA: "公的個人認証", EN: "public key infrastructure for individuals"}},
	{iso7816.MustAID("D392100031"), Text{JA: "住基・券面・券面入力補助", EN: "resident register, face of the card, entry support"}},
	{iso7816.MustAID("A000000231"), Text{JA: "マイナ免許証", EN: "driving licence"}},
}

func (c *checker) application() {
	a := c.m.Application
	for _, x := range []struct {
		key string
		aid iso7816.AID
	}{
		{"instance", a.Instance},
		{"package", a.Package},
		{"module", a.Module},
		{"security_domain", a.SecurityDomain},
	} {
		path := "application." + x.key
		if x.aid.IsZero() {
			// A base profile's package and module have defaults.
			if x.key != "security_domain" && (x.key == "instance" || c.profile != nil) {
				c.fault(path, RuleMissing, x.key+` = "F0…"`)
			}
			continue
		}
		if !strings.Contains("ADF", x.aid.String()[:1]) {
			c.fault(path, RuleAIDCategory)
		}
		// A service may name the card's Security Domain, which is the card's own.
		if x.key == "security_domain" {
			continue
		}
		for _, own := range cardsOwn {
			if x.aid.HasPrefix(own.prefix) {
				c.fault(path, RuleAIDCardsOwn, own.owner)
			}
		}
	}
	if a.Instance.IsZero() {
		return
	}
	for _, other := range []iso7816.AID{a.Package, a.Module, a.SecurityDomain} {
		if !other.IsZero() && (other.HasPrefix(a.Instance) || a.Instance.HasPrefix(other)) {
			c.fault("application.instance", RuleAIDClash, other)
		}
	}
}

func (c *checker) pin() {
	p := c.m.PIN
	if !choice(c, "pin.policy", p.Policy, PINNone, PINRequired) {
		return
	}
	if p.Policy == PINNone {
		for _, key := range []string{"min_digits", "max_digits", "tries", "must_change"} {
			if c.has("pin." + key) {
				c.fault("pin."+key, RulePINSettings)
			}
		}
		return
	}
	if c.profile != nil && !c.profile.Traits().PIN {
		c.fault("pin.policy", RulePINNotAllowed, c.m.Profile)
	}
	c.within("pin.min_digits", p.MinDigits, applets.MinPINDigits, applets.MaxPINDigits)
	c.within("pin.max_digits", p.MaxDigits, applets.MinPINDigits, applets.MaxPINDigits)
	c.within("pin.tries", p.Tries, 1, applets.MaxPINLimit)
	if p.MaxDigits < p.MinDigits && c.clean("pin.min_digits") {
		c.fault("pin.max_digits", RulePINDigits, p.MinDigits, p.MaxDigits)
	}
}

func (c *checker) items() {
	m := c.m
	if len(m.Items) > 0 && c.profile != nil && !c.profile.Traits().Items {
		c.fault("items", RuleMinimumIDOnly, m.Profile)
	}
	if len(m.Items) > applets.MaxItems {
		c.fault("items", RuleItemsCount, applets.MaxItems)
	}
	names := map[string]bool{}
	for i, it := range m.Items {
		path := joinIndex("items", i)
		if !isName(it.Name, maxItemName, "-") {
			c.fault(path+".name", RuleItemName)
		} else if names[it.Name] {
			c.fault(path+".name", RuleItemDuplicate, it.Name)
		}
		names[it.Name] = true
		c.text(path+".label", it.Label, maxName, false)
		choice(c, path+".type", it.Type, ItemText, ItemDigits, ItemAlphanumeric, ItemDate)
		if it.Type == ItemDate {
			c.within(path+".max_length", it.MaxLength, len("YYYY-MM-DD"), len("YYYY-MM-DD"))
		} else {
			c.within(path+".max_length", it.MaxLength, 1, applets.MaxItemsFile)
		}
		if strings.TrimSpace(it.Reason.JA) == "" {
			c.fault(path+".reason.ja", RuleMinimumReason)
		}
		c.text(path+".reason", it.Reason, maxText, true)
	}
	if size := m.itemsSize(); size > applets.MaxItemsFile && c.clean("items") {
		c.fault("items", RuleItemsSize, size, applets.MaxItemsFile)
	}
	c.memory()
}

// itemsSize is the most bytes that EF.ITEMS can take: a list of items, each a
// name and a value (docs/card-protocol.md).
func (m *Manifest) itemsSize() int {
	if len(m.Items) == 0 {
		return 0
	}
	tlv := func(n int) int { // tags of EF.ITEMS have one byte
		switch {
		case n < 0x80:
			return n + 2
		case n < 0x100:
			return n + 3
		}
		return n + 4
	}
	all := 0
	for _, it := range m.Items {
		all += tlv(tlv(len(it.Name)) + tlv(max(0, it.MaxLength)*it.Type.bytesPerCharacter()))
	}
	return tlv(all)
}

// InstallSpec returns what an instance of this service is installed with; the
// diversification data is still to be drawn.
func (m *Manifest) InstallSpec() applets.InstallSpec {
	spec := applets.InstallSpec{ItemsCapacity: m.itemsSize(), PIN: m.PIN.Policy == PINRequired}
	if m.Keys.Read != "" {
		spec.KeySets = keySets
	}
	return spec
}

func (c *checker) memory() {
	m := c.m
	if !c.has("application.memory") {
		return
	}
	c.within("application.memory", m.Application.Memory, 1, 1<<20)
	if c.profile == nil || len(c.faults) > 0 {
		return // what it needs is not known yet
	}
	if need := c.profile.PersistentMemory(m.InstallSpec()); m.Application.Memory < need {
		c.fault("application.memory", RuleMemory, need)
	}
}

func (c *checker) idScheme() {
	s := c.m.IDScheme
	choice(c, "id_scheme.kind", s.Kind, IDGiven, IDSequence, IDRandom)
	if len(s.Prefix) > maxPrefix || strings.ContainsFunc(s.Prefix, func(r rune) bool {
		return r >= 0x80 || !isBare(byte(r)) || r == '_'
	}) {
		c.fault("id_scheme.prefix", RuleIDPrefix)
	}
	alphabet := choice(c, "id_scheme.alphabet", s.Alphabet, alphabetNames...)
	check := choice(c, "id_scheme.check", s.Check, CheckNone, CheckMod3736, CheckMod112, CheckLuhn)
	whole := len(s.Prefix) + s.Length + s.checkLength()
	switch {
	case !c.has("id_scheme.length"):
		c.fault("id_scheme.length", RuleMissing, "length = 8")
	case s.Length < 1 || whole > MaxID:
		c.fault("id_scheme.length", RuleIDLength, whole, MaxID)
	}
	if c.has("id_scheme.min_length") && (s.Kind != IDGiven || s.MinLength < 1 || s.MinLength > s.Length) {
		c.fault("id_scheme.min_length", RuleIDMinLength)
	}
	if !alphabet || !check {
		return
	}
	if covered, ok := checkAlphabets[s.Check]; ok {
		outside := func(r rune) bool { return r != '-' && !strings.ContainsRune(covered, r) }
		if strings.ContainsFunc(s.Prefix+alphabets[s.Alphabet], outside) {
			c.fault("id_scheme.check", RuleIDCheckAlphabet, string(s.Check), spell(covered))
		}
	}
	if c.clean("id_scheme.length") && c.clean("id_scheme.min_length") && s.canBe12Digits() {
		c.fault("id_scheme.length", RuleIDIndividualNumber)
	}
}

// spell names the characters of a check algorithm.
func spell(covered string) string {
	if covered == digitChars {
		return "0-9"
	}
	return "0-9, A-Z"
}

// methods are the diversification methods, by their names in the field.
var methods = []keys.Method{keys.MethodNone, keys.MethodSP800108}

func (c *checker) keys() {
	k := c.m.Keys
	for _, x := range []struct{ key, name string }{{"read", k.Read}, {"issuer_signing", k.IssuerSigning}} {
		if c.has("keys."+x.key) && !isName(x.name, maxKeyName, "-.") {
			c.fault("keys."+x.key, RuleKeyName)
		}
	}
	if k.Read != "" && k.Read == k.IssuerSigning {
		c.fault("keys.issuer_signing", RuleKeysSame)
	}
	method := k.Diversification
	names := make([]string, len(methods))
	for i, m := range methods {
		names[i] = string(m)
	}
	if c.has("keys.diversification") && !slices.Contains(methods, method) {
		c.fault("keys.diversification", RuleDiversification, string(method), strings.Join(names, ", "))
	}
	if c.profile == nil {
		return
	}
	if !c.profile.Traits().MutualAuthentication {
		if c.has("keys.read") {
			c.fault("keys.read", RuleReadKeyUnused, c.m.Profile)
		}
		return
	}
	if !c.has("keys.read") {
		c.fault("keys.read", RuleMutual, c.m.Profile)
	}
	switch {
	case !c.has("keys.diversification"):
		c.fault("keys.diversification", RuleDiversifyMissing, string(keys.MethodSP800108))
	case method == keys.MethodNone:
		c.fault("keys.diversification", RuleDiversifyNone, c.m.Profile, string(method))
	}
}

func (c *checker) terms() {
	t := c.m.Term
	counted := t.Years != 0 || t.Months != 0 || t.Days != 0
	c.within("term.years", t.Years, 0, maxTermYears)
	c.within("term.months", t.Months, 0, maxTermYears*12)
	c.within("term.days", t.Days, 0, maxTermYears*366)
	switch {
	case !c.clean("term.years") || !c.clean("term.months") || !c.clean("term.days") || !c.clean("term.card_expiry"):
	case t.CardExpiry == counted:
		c.fault("term", RuleTerm)
	case t.Years*366+t.Months*31+t.Days > maxTermYears*366:
		c.fault("term", RuleTermLength)
	}

	methods := c.m.Consent.Methods
	bad := len(methods) == 0
	for i, method := range methods {
		choice(c, joinIndex("consent.methods", i), method, "paper", "screen")
		bad = bad || slices.Contains(methods[:i], method)
	}
	if bad {
		c.fault("consent.methods", RuleConsentMethods)
	}
	c.within("consent.valid_days", c.m.Consent.ValidDays, 1, maxConsentDays)

	r := c.m.Retention
	if !c.has("retention.days") {
		c.fault("retention.days", RuleMissing, "days = 365")
	} else {
		c.within("retention.days", r.Days, 0, maxKeptDays)
	}
	c.text("retention.reason", r.Reason, maxText, true)
}
