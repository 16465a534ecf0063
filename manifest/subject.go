package manifest

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// PINDigits is a PIN as the holder chose it. However it is printed or logged,
// it does not show.
type PINDigits string

// Format prints a word in place of the PIN, whatever the verb.
func (p PINDigits) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// String says whether there is a PIN.
func (p PINDigits) String() string {
	if p == "" {
		return "no PIN"
	}
	return "PIN"
}

// LogValue keeps structured logs from printing the PIN.
func (p PINDigits) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText keeps encoders from writing the PIN.
func (p PINDigits) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Reveal returns the digits, for the code that writes them to the card.
func (p PINDigits) Reveal() string { return string(p) }

// Subject is what is written for one holder.
type Subject struct {
	ID string // empty where the scheme draws it and it is not drawn yet
	// Items are values by item name. An item that the holder leaves out has
	// no entry, or an empty value.
	Items map[string]string
	PIN   PINDigits // empty where the service has none
	// KeepPIN says that the card has a PIN of this service already, which is
	// to stay: PIN is empty then.
	KeepPIN bool
}

// SubjectItems returns the names of the items that the subject has a value
// for, in the manifest's order: the item set that a consent must cover.
func (m *Manifest) SubjectItems(s Subject) []string {
	var names []string
	for _, it := range m.Items {
		if s.Items[it.Name] != "" {
			names = append(names, it.Name)
		}
	}
	return names
}

// CheckSubject holds what is to be written for one holder against the
// manifest. The error is a [Faults] with every fault; each names its field
// ("id", "items.department", "pin") and none repeats a value.
func (m *Manifest) CheckSubject(s Subject) error {
	var faults Faults
	fault := func(field string, rule Rule, args ...any) {
		faults = append(faults, Fault{Key: field, Rule: rule, args: args})
	}

	switch err := m.CheckID(s.ID); {
	case s.ID == "" && m.IDScheme.Kind != IDGiven: // yet to be drawn
	case HoldsIndividualNumber(s.ID):
		fault("id", RuleIndividualNumber)
	case err != nil:
		fault("id", RuleSubjectID, idErrorText(err))
	}

	known := map[string]bool{}
	for _, it := range m.Items {
		known[it.Name] = true
		field, value := "items."+it.Name, s.Items[it.Name]
		switch {
		case value == "" && it.Required:
			fault(field, RuleSubjectItemMissing, it.Label)
		case value == "":
		case HoldsIndividualNumber(value):
			fault(field, RuleIndividualNumber)
		case !it.Type.fits(value):
			fault(field, RuleSubjectItemValue, string(it.Type))
		case utf8.RuneCountInString(value) > it.MaxLength:
			fault(field, RuleSubjectItemLength, utf8.RuneCountInString(value), it.MaxLength)
		}
	}
	var unknown []string
	for name := range s.Items {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		// The name was typed by somebody and may be anything, a value too.
		if HoldsIndividualNumber(name) {
			name = "?"
		}
		fault("items."+name, RuleSubjectItemUnknown)
	}

	if m.PIN.Policy != PINRequired || s.PIN != "" || !s.KeepPIN {
		faults = append(faults, m.pinFaults(s.PIN)...)
	}
	if len(faults) == 0 {
		return nil
	}
	return faults
}

// CheckPIN holds a PIN against the manifest, as [Manifest.CheckSubject] does.
func (m *Manifest) CheckPIN(pin PINDigits) error {
	if faults := m.pinFaults(pin); len(faults) > 0 {
		return faults
	}
	return nil
}

func (m *Manifest) pinFaults(digits PINDigits) Faults {
	pin := string(digits)
	fault := func(rule Rule, args ...any) Faults { return Faults{{Key: "pin", Rule: rule, args: args}} }
	switch {
	case m.PIN.Policy != PINRequired && pin != "":
		return fault(RuleSubjectPINUnused)
	case m.PIN.Policy != PINRequired:
		return nil
	case pin == "":
		return fault(RuleSubjectPINMissing, m.PIN.MinDigits, m.PIN.MaxDigits)
	case len(pin) < m.PIN.MinDigits || len(pin) > m.PIN.MaxDigits || !onlyOf(pin, digitChars):
		return fault(RuleSubjectPIN, m.PIN.MinDigits, m.PIN.MaxDigits)
	case HoldsIndividualNumber(pin):
		return fault(RuleIndividualNumber)
	}
	return nil
}

// fits reports whether a value is of the type. Values are UTF-8.
func (t ItemType) fits(value string) bool {
	if !utf8.ValidString(value) {
		return false
	}
	switch t {
	case ItemText:
		return strings.IndexFunc(value, unicode.IsControl) < 0
	case ItemDigits:
		return onlyOf(value, digitChars)
	case ItemAlphanumeric:
		return onlyOf(value, digitChars+letterChars+strings.ToLower(letterChars)+"-")
	case ItemDate:
		_, err := time.Parse(time.DateOnly, value)
		return err == nil
	}
	return false
}

func onlyOf(s, chars string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(chars, r) })
}

// bytesPerCharacter is the most that one character of the type takes.
func (t ItemType) bytesPerCharacter() int {
	if t == ItemText {
		return utf8.UTFMax
	}
	return 1
}

// idErrorText says what is wrong with an ID in both languages.
func idErrorText(err error) Text {
	t := Text{EN: err.Error(), JA: err.Error()}
	for _, x := range []struct {
		err error
		ja  string
	}{
		{ErrIDLength, "長さが違います"},
		{ErrIDPrefix, "接頭辞が違います"},
		{ErrIDAlphabet, "使えない文字を含んでいます"},
		{ErrIDCheck, "検査文字が合いません"},
		{ErrIDNumber, "個人番号の形をしています"},
	} {
		if errors.Is(err, x.err) {
			t.JA = x.ja
		}
	}
	return t
}
