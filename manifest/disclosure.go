package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/freearea/freearea/applets"
)

// ServiceID returns the service's short name.
func (m *Manifest) ServiceID() string { return m.ID }

// ItemNames returns the names of the items that must be recorded and of those
// that the holder may leave out, in the manifest's order.
func (m *Manifest) ItemNames() (required, optional []string) {
	for _, it := range m.Items {
		if it.Required {
			required = append(required, it.Name)
		} else {
			optional = append(optional, it.Name)
		}
	}
	return required, optional
}

// ConsentMethods returns the methods allowed: "paper", "screen".
func (m *Manifest) ConsentMethods() []string { return slices.Clone(m.Consent.Methods) }

// ConsentDays is the number of days after a consent was given during which a
// card may be issued on it.
func (m *Manifest) ConsentDays() int { return m.Consent.ValidDays }

// Disclosure is what the holder is told before the card is used, in one
// language. It is the type of the same name in package consent; neither
// package imports the other.
type Disclosure = struct {
	Service    string
	Purpose    string
	Operator   string
	Contact    string
	Basis      string      // basis in law, with the ordinance or notice
	ID         string      // what the ID is
	Items      [][2]string // label and reason of each further item
	PIN        string      // "" where there is none
	Protection string      // who can read what is recorded
	Term       string
	Retention  string
}

// Disclosure words what the holder is told in a language ("ja", "en") when
// these items are to be recorded beside the ID. An unknown language, item or
// missing required item is an error.
func (m *Manifest) Disclosure(lang string, items []string) (Disclosure, error) {
	if lang != Japanese && lang != English {
		return Disclosure{}, fmt.Errorf("disclosure of service %s: unknown language %q", m.ID, lang)
	}
	say := func(t Text, args ...any) string { return fill(t.In(lang), lang, args) }
	d := Disclosure{
		Service:  m.Name.In(lang),
		Purpose:  m.Purpose.In(lang),
		Operator: m.Operator.Name.In(lang),
		Contact:  m.Operator.Contact.In(lang),
	}
	if b, ok := LookupBasis(m.Operator.Basis); ok {
		d.Basis = b.Citation.In(lang)
		for _, t := range []Text{m.Operator.Ordinance, m.Operator.Notice} {
			if t.In(lang) != "" {
				d.Basis += "\n" + t.In(lang)
			}
		}
	}
	switch m.IDScheme.Kind {
	case IDGiven:
		d.ID = say(Text{JA: "運営主体があなたに割り当てた番号", EN: "the number that the operator has given you"})
	case IDSequence:
		d.ID = say(Text{JA: "このサービスで順に割り当てる番号", EN: "a number that this service gives in sequence"})
	case IDRandom:
		d.ID = say(Text{JA: "このサービスのために無作為に作る番号", EN: "a number drawn at random for this service"})
	}
	known := map[string]bool{}
	for _, it := range m.Items {
		known[it.Name] = true
		chosen := slices.Contains(items, it.Name)
		if it.Required && !chosen {
			return Disclosure{}, fmt.Errorf("disclosure of service %s: required item %q is missing", m.ID, it.Name)
		}
		if chosen {
			d.Items = append(d.Items, [2]string{it.Label.In(lang), it.Reason.In(lang)})
		}
	}
	for i, name := range items {
		if !known[name] || slices.Contains(items[:i], name) {
			return Disclosure{}, fmt.Errorf("disclosure of service %s: item %q is unknown or named twice", m.ID, name)
		}
	}
	if m.PIN.Policy == PINRequired {
		d.PIN = say(Text{
			JA: "読み取りには、あなたが決める%[1]d桁から%[2]d桁の暗証番号が必要です。続けて%[3]d回誤ると使えなくなり、窓口での手続きが必要になります。",
			EN: "Reading needs a PIN of %[1]d to %[2]d digits that you choose. After %[3]d wrong entries in a row it is blocked, and the counter must reset it.",
		}, m.PIN.MinDigits, m.PIN.MaxDigits, m.PIN.Tries)
		if m.PIN.MinDigits == m.PIN.MaxDigits {
			d.PIN = say(Text{
				JA: "読み取りには、あなたが決める%[1]d桁の暗証番号が必要です。続けて%[2]d回誤ると使えなくなり、窓口での手続きが必要になります。",
				EN: "Reading needs a PIN of %[1]d digits that you choose. After %[2]d wrong entries in a row it is blocked, and the counter must reset it.",
			}, m.PIN.MinDigits, m.PIN.Tries)
		}
	}
	kind := m.protection
	if kind == "" {
		kind = m.Profile
	}
	d.Protection = say(protection[kind])
	d.Term = m.Term.words(lang)
	days := say(Text{JA: "利用終了後%d日間", EN: "%d days after the service has ended for you"}, m.Retention.Days)
	if m.Retention.Days == 0 {
		days = say(Text{JA: "利用終了後は保存しません", EN: "not kept after the service has ended for you"})
	}
	d.Retention = days + "\n" + m.Retention.Reason.In(lang)
	return d, nil
}

// Keys of protection for profiles that are recipes.
const (
	protectionRecipe    = "recipe"
	protectionRecipePIN = "recipe with a PIN"
)

// protection says per base profile who can read what is recorded, and what
// can be said of a recipe. The manifest of a profile in Go says it in its
// purpose.
var protection = map[string]Text{
	protectionRecipe: {
		JA: "カードをかざした読取装置であれば、鍵や暗証番号なしで読み取れます。通信は暗号化されません。",
		EN: "Any reader that the card is held to can read what is recorded, without a key or a PIN. It is not encrypted on its way.",
	},
	protectionRecipePIN: {
		JA: "読取装置は鍵を持たず、暗証番号の入力を受けて読み取ります。暗証番号も記録も、通信では暗号化されません。",
		EN: "Readers have no key; they read after your PIN was entered. Neither the PIN nor what is recorded is encrypted on its way.",
	},
	"common-ap": {
		JA: "番号は、カードをかざした読取装置であれば鍵や暗証番号なしで読み取れます。書き換えることはできません。",
		EN: "Any reader that the card is held to can read the number, without a key or a PIN. No reader can change it.",
	},
	"type-a": {
		JA: "このサービスの鍵を持つ読取装置だけが読み取れます。書き換えることはできません。",
		EN: "Only readers that have this service's key can read what is recorded. No reader can change it.",
	},
	"type-d": {
		JA: "このサービスの鍵を持つ読取装置だけが読み取れ、通信は暗号化されます。書き換えることはできません。",
		EN: "Only readers that have this service's key can read what is recorded, and it is encrypted on its way. No reader can change it.",
	},
}

// words says how long an application serves.
func (t Term) words(lang string) string {
	if t.CardExpiry {
		return Text{JA: "個人番号カードの有効期間の満了まで", EN: "until the Individual Number Card expires"}.In(lang)
	}
	var parts []string
	for _, x := range []struct {
		n              int
		ja, one, other string
	}{
		{t.Years, "年", "year", "years"},
		{t.Months, "か月", "month", "months"},
		{t.Days, "日", "day", "days"},
	} {
		switch {
		case x.n == 0:
		case lang == Japanese:
			parts = append(parts, fmt.Sprintf("%d%s", x.n, x.ja))
		case x.n == 1:
			parts = append(parts, "1 "+x.one)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.other))
		}
	}
	if lang == Japanese {
		return "登録の日から" + strings.Join(parts, "と") + "（個人番号カードの有効期間の満了が先に来る場合はその日まで）"
	}
	return strings.Join(parts, ", ") + " from the day of issue, or until the Individual Number Card expires if that comes first"
}

// PINSetting turns a subject's PIN into what is written to the card; nil where
// the subject brings none. The error does not show the PIN.
func (m *Manifest) PINSetting(s Subject) (*applets.PINSetting, error) {
	if s.PIN == "" {
		return nil, nil
	}
	pin, err := applets.NewPIN(s.PIN.Reveal())
	if err != nil {
		return nil, err
	}
	return &applets.PINSetting{Reference: pin, Limit: byte(m.PIN.Tries), MustChange: m.PIN.MustChange}, nil
}

// Permits reports whether a text may be recorded with the service: it holds
// no Individual Number.
func (m *Manifest) Permits(text string) bool { return !HoldsIndividualNumber(text) }
