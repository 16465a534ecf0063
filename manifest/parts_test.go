package manifest

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/keys"
)

// TestRuleTexts: every rule has a message and a hint in both languages, and
// what a verb shows in one it shows in the other.
func TestRuleTexts(t *testing.T) {
	verb := regexp.MustCompile(`%(\[\d\])?[a-z]`)
	verbs := func(s string) []string {
		v := verb.FindAllString(s, -1)
		if strings.Contains(s, "%[") {
			slices.Sort(v) // the languages have orders of their own
		}
		return v
	}
	for rule, text := range ruleTexts {
		for what, x := range map[string]Text{"message": text.message, "hint": text.hint} {
			if strings.TrimSpace(x.JA) == "" || strings.TrimSpace(x.EN) == "" {
				t.Errorf("%s: %s is missing in a language", rule, what)
			}
			if !hasJapanese(x.JA) || hasJapanese(x.EN) {
				t.Errorf("%s: %s is not in its language", rule, what)
			}
			if diff := cmp.Diff(verbs(x.EN), verbs(x.JA)); diff != "" {
				t.Errorf("%s: %s shows other values: %s", rule, what, diff)
			}
		}
	}
}

// TestIndividualNumber: numbers that others publish as examples. They belong
// to nobody that we know of.
func TestIndividualNumber(t *testing.T) {
	published := []string{
		"621498320257", // python-stdnum, doctest of stdnum/jp/in_.py, which also names 621498320258 as wrong
		"123456789018", // the usual example of public validators: eleven digits in sequence
	}
	for _, n := range published {
		wrong := n[:11] + string('0'+(n[11]-'0'+1)%10)
		for _, tt := range []struct {
			text string
			want bool
		}{
			{n, true},
			{wrong, false},
			{n[:4] + " " + n[4:8] + " " + n[8:], true},
			{n[:4] + "-" + n[4:8] + "-" + n[8:], true},
			{n[:4] + " ‐ " + n[4:8] + "−" + n[8:], true},
			{n[:4] + "ー" + n[4:8] + "ｰ" + n[8:], true},
			{n[:4] + "　" + n[4:8] + "・" + n[8:], true},
			{n[:4] + "\u200b" + n[4:8] + "\n" + n[8:], true},
			{n[:4] + "．" + n[4:8] + "_" + n[8:], true},
			{fullWidth(n), true},
			{fullWidth(wrong), false},
			{inScript(n, '٠'), true},
			{inScript(n, '๐'), true},
			{inScript(n, '𝟘'), true},
			{"番号は" + n + "です", true},
			{"A" + n + "B", true},
			{"x" + n, true},
			{n + "1", false}, // 13 digits are another number
			{"1" + n, false}, // and so are these
			{n + " 1", false},
			{n + "1、", false},
			{n + "、1", true},
			{n + "/1", true},
			{"2026/04/01, " + n, true},
			{n[:11], false},
			{n[:6] + "x" + n[6:], false},
			{n[:6] + "/" + n[6:], false},
			{wrong + "、" + n, true},
			{n + n, false},
			{"", false},
		} {
			if got := HoldsIndividualNumber(tt.text); got != tt.want {
				t.Errorf("%q: %v", tt.text, got)
			}
		}
	}
}

func fullWidth(digits string) string { return inScript(digits, '０') }

func inScript(digits string, zero rune) string {
	var b strings.Builder
	for _, d := range digits {
		b.WriteRune(zero + d - '0')
	}
	return b.String()
}

// TestCheckDigitByDefinition works single digits out by hand: with only Pn
// not 0, r is Pn*Qn modulo 11.
func TestCheckDigitByDefinition(t *testing.T) {
	for _, tt := range []struct {
		digits string
		want   int
	}{
		{"00000000000", 0}, // r = 0
		{"00000000001", 9}, // P1 = 1, Q1 = 2
		{"00000000006", 0}, // P1 = 6: r = 12 mod 11 = 1
		{"00000100000", 4}, // P6 = 1, Q6 = 7
		{"00001000000", 9}, // P7 = 1, Q7 = 2
		{"10000000000", 5}, // P11 = 1, Q11 = 6
	} {
		var d [11]int
		for i := range d {
			d[i] = int(tt.digits[i] - '0')
		}
		if got := checkDigit(d); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.digits, got, tt.want)
		}
	}
}

// TestDigitValue: Unicode's tables keep digits in runs of ten.
func TestDigitValue(t *testing.T) {
	count := 0
	for _, r := range unicode.Nd.R16 {
		if r.Stride != 1 || (int(r.Hi)-int(r.Lo)+1)%10 != 0 {
			t.Errorf("range %04X to %04X", r.Lo, r.Hi)
		}
		count++
	}
	for _, r := range unicode.Nd.R32 {
		if r.Stride != 1 || (int(r.Hi)-int(r.Lo)+1)%10 != 0 {
			t.Errorf("range %04X to %04X", r.Lo, r.Hi)
		}
		count++
	}
	if count < 10 {
		t.Errorf("%d ranges", count)
	}
}

// TestCheckCharacters: vectors that others publish.
func TestCheckCharacters(t *testing.T) {
	for _, tt := range []struct {
		algorithm CheckCharacter
		text      string
		want      byte
		source    string
	}{
		{CheckMod3736, "A12425GABC1234002", 'M', "Global Release Identifier standard; python-stdnum, stdnum/iso7064/mod_37_36.py"},
		{CheckMod3736, "A1-2425G-ABC1234002", 'M', "the same with hyphens"},
		{CheckMod112, "0794", '0', "ISO/IEC 7064; python-stdnum, tests/test_iso7064.doctest"},
		{CheckMod112, "079", 'X', "ISO/IEC 7064; python-stdnum, tests/test_iso7064.doctest"},
		{CheckMod112, "000000021825009", '7', "ORCID, structure of the identifier: 0000-0002-1825-0097"},
		{CheckMod112, "000000021694233", 'X', "ORCID, structure of the identifier: 0000-0002-1694-233X"},
		{CheckLuhn, "7992739871", '3', "example of the Luhn algorithm in H. P. Luhn's article in encyclopedias"},
		{CheckLuhn, "7894", '9', "python-stdnum, stdnum/luhn.py"},
	} {
		got, err := checkCharacter(tt.algorithm, tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%s of %s: %c, %v; want %c (%s)", tt.algorithm, tt.text, got, err, tt.want, tt.source)
		}
	}
	if _, err := checkCharacter(CheckLuhn, "12A"); !errors.Is(err, errCheckAlphabet) {
		t.Errorf("a letter under Luhn: %v", err)
	}
	if _, err := checkCharacter("mod-7", "1"); !errors.Is(err, errUnknownAlgorithm) {
		t.Errorf("unknown algorithm: %v", err)
	}
}

// TestCheckCharacterFindsErrors: one wrong character is always found.
func TestCheckCharacterFindsErrors(t *testing.T) {
	for algorithm, alphabet := range checkAlphabets {
		text := alphabet[:1] + alphabet[len(alphabet)-1:] + "0479310582"
		right, err := checkCharacter(algorithm, text)
		if err != nil {
			t.Fatal(err)
		}
		for i := range text {
			for _, c := range []byte(alphabet) {
				if c == text[i] {
					continue
				}
				wrong := text[:i] + string(c) + text[i+1:]
				if got, _ := checkCharacter(algorithm, wrong); got == right {
					t.Errorf("%s: %s and %s have the same check character", algorithm, text, wrong)
				}
			}
		}
	}
}

func TestSequence(t *testing.T) {
	m := &Manifest{IDScheme: IDScheme{Kind: IDSequence, Prefix: "MS-", Length: 3, Alphabet: "digits", Check: CheckMod3736}}
	seen := map[string]bool{}
	for seq := range uint64(1000) {
		id, err := m.NextID(seq)
		if err != nil || seen[id] || m.CheckID(id) != nil || !strings.HasPrefix(id, fmt.Sprintf("MS-%03d", seq)) {
			t.Fatalf("number %d: %q, %v, %v", seq, id, err, m.CheckID(id))
		}
		seen[id] = true
	}
	for _, seq := range []uint64{1000, 1 << 63, ^uint64(0)} {
		if id, err := m.NextID(seq); !errors.Is(err, ErrIDExhausted) {
			t.Errorf("number %d: %q, %v", seq, id, err)
		}
	}
	if _, err := m.RandomID(nil); !errors.Is(err, ErrIDScheme) {
		t.Errorf("a random ID of a sequence: %v", err)
	}
}

func TestRandomID(t *testing.T) {
	m := &Manifest{IDScheme: IDScheme{Kind: IDRandom, Prefix: "TP", Length: 12, Alphabet: "alphanumeric", Check: CheckMod3736}}
	if _, err := m.NextID(0); !errors.Is(err, ErrIDScheme) {
		t.Errorf("a random ID counted: %v", err)
	}
	for range 200 {
		id, err := m.RandomID(nil)
		if err != nil || m.CheckID(id) != nil {
			t.Fatalf("%q: %v, %v", id, err, m.CheckID(id))
		}
	}
	// Bytes that would favour the first characters are not used: 252 and more
	// under 36 characters.
	id, err := m.RandomID(strings.NewReader("\xfc\xff\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x23"))
	if err != nil || id[:14] != "TP0123456789AZ" {
		t.Errorf("%q, %v", id, err)
	}
	if _, err := m.RandomID(strings.NewReader("short")); err == nil {
		t.Error("an ID of a source that ended")
	}
	// 12 digits that are an Individual Number are drawn again.
	number := strings.NewReader("\x06\x02\x01\x04\x09\x08\x03\x02\x00\x02\x05\x07" + "\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a")
	m.IDScheme.Check = CheckNone
	if id, err := m.RandomID(number); err != nil || id != "TPAAAAAAAAAAAA" {
		t.Errorf("%q, %v", id, err)
	}
}

func TestCheckID(t *testing.T) {
	m := &Manifest{IDScheme: IDScheme{Kind: IDGiven, Prefix: "LIB-", Length: 6, MinLength: 4, Alphabet: "digits", Check: CheckMod3736}}
	whole := func(body string) string {
		id, err := m.IDScheme.finish(body)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	good := whole("123456")
	for _, tt := range []struct {
		id   string
		want error
	}{
		{good, nil},
		{whole("1234"), nil},
		{whole("123"), ErrIDLength},
		{whole("1234567"), ErrIDLength},
		{"lib-" + good[4:], ErrIDPrefix},
		{good[4:], ErrIDPrefix},
		{"", ErrIDPrefix},
		{good[:6] + "x" + good[7:], ErrIDAlphabet},
		{good[:6] + "９", ErrIDAlphabet},
		{"１２３４", ErrIDAlphabet}, // not of the wrong length
		{good[:6] + "7" + good[7:], ErrIDCheck},
		{good + "\x00", ErrIDLength},
		{strings.ToLower(whole("123457")), ErrIDPrefix},
	} {
		if err := m.CheckID(tt.id); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%q: %v, want %v", tt.id, err, tt.want)
		}
	}
	m.IDScheme = IDScheme{Kind: IDGiven, Length: 12, MinLength: 12, Alphabet: "digits", Check: CheckNone}
	if err := m.CheckID("621498320257"); !errors.Is(err, ErrIDNumber) {
		t.Errorf("Individual Number as ID: %v", err)
	}
}

// TestNoSchemeCollides: no ID of a scheme that check accepts looks like an
// Individual Number, where IDs are counted or are digits.
func TestNoSchemeCollides(t *testing.T) {
	for _, prefix := range []string{"", "7", "12", "A-", "A1-2", "0-"} {
		for length := 1; length <= 16; length++ {
			for _, check := range []CheckCharacter{CheckNone, CheckMod3736, CheckMod112, CheckLuhn} {
				s := IDScheme{Kind: IDSequence, Prefix: prefix, Length: length, Alphabet: "digits", Check: check}
				if _, err := s.finish(""); err != nil || s.canBe12Digits() {
					continue
				}
				m := &Manifest{IDScheme: s}
				for seq := range uint64(60) {
					id, err := m.NextID(seq)
					if errors.Is(err, ErrIDExhausted) {
						break
					}
					if err != nil || HoldsIndividualNumber(id) {
						t.Errorf("%+v: %q, %v", s, id, err)
					}
				}
			}
		}
	}
}

func TestCheckSubject(t *testing.T) {
	m := &Manifest{
		PIN: PIN{Policy: PINRequired, MinDigits: 4, MaxDigits: 8, Tries: 3},
		Items: []Item{
			{Name: "dept", Label: Text{JA: "所属", EN: "Department"}, Type: ItemText, MaxLength: 4, Required: true},
			{Name: "no", Type: ItemDigits, MaxLength: 12},
			{Name: "code", Type: ItemAlphanumeric, MaxLength: 8},
			{Name: "from", Type: ItemDate, MaxLength: 10},
		},
		IDScheme: IDScheme{Kind: IDGiven, Length: 6, MinLength: 6, Alphabet: "digits", Check: CheckNone},
	}
	good := Subject{ID: "000123", Items: map[string]string{"dept": "𠮷野総務", "no": "0123", "code": "A-1z", "from": "2028-02-29"}, PIN: "1234"}
	if err := m.CheckSubject(good); err != nil {
		t.Errorf("good subject: %v", err)
	}
	if diff := cmp.Diff([]string{"dept", "no", "code", "from"}, m.SubjectItems(good)); diff != "" {
		t.Error(diff)
	}
	if err := m.CheckSubject(Subject{ID: "000123", Items: map[string]string{"dept": "x"}, KeepPIN: true}); err != nil {
		t.Errorf("optional items left out, PIN kept: %v", err)
	}
	type faults map[string]Rule
	for name, tt := range map[string]struct {
		s    Subject
		want faults
	}{
		"everything missing": {Subject{}, faults{"id": RuleSubjectID, "items.dept": RuleSubjectItemMissing, "pin": RuleSubjectPINMissing}},
		"everything wrong": {
			Subject{ID: "12345", PIN: "123", Items: map[string]string{"dept": "あいうえお", "no": "1２", "code": "a b", "from": "2027-02-29", "age": "7"}},
			faults{"id": RuleSubjectID, "pin": RuleSubjectPIN, "items.dept": RuleSubjectItemLength, "items.no": RuleSubjectItemValue,
				"items.code": RuleSubjectItemValue, "items.from": RuleSubjectItemValue, "items.age": RuleSubjectItemUnknown},
		},
		"a wrong character within": {
			Subject{ID: "12x456", PIN: "12 34", Items: map[string]string{"dept": "a\u0007b", "no": "1 2", "code": "aあb"}},
			faults{"id": RuleSubjectID, "pin": RuleSubjectPIN, "items.dept": RuleSubjectItemValue, "items.no": RuleSubjectItemValue, "items.code": RuleSubjectItemValue},
		},
		"not UTF-8": {Subject{ID: "000123", PIN: "1234", Items: map[string]string{"dept": "\xff"}}, faults{"items.dept": RuleSubjectItemValue}},
		"Individual Numbers": {
			Subject{ID: "621498320257", PIN: "621498320257", Items: map[string]string{
				"dept": "６２１４ ９８３２ ０２５７", "no": "621498320257", "code": "x", "from": "6214-9832-0257", "6214-9832-0257": "x"}},
			faults{"id": RuleIndividualNumber, "pin": RuleSubjectPIN, "items.dept": RuleIndividualNumber, "items.no": RuleIndividualNumber,
				"items.from": RuleIndividualNumber, "items.?": RuleSubjectItemUnknown},
		},
	} {
		var list Faults
		err := m.CheckSubject(tt.s)
		if !errors.As(err, &list) {
			t.Fatalf("%s: %v", name, err)
		}
		got := faults{}
		for _, f := range list {
			got[f.Key] = f.Rule
			for _, lang := range []string{"ja", "en"} {
				if s := f.Message(lang) + f.Hint(lang); s == "" || strings.Contains(s, "%!") {
					t.Errorf("%s: %s in %s: %q", name, f.Rule, lang, s)
				}
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || len(list) != len(got) {
			t.Errorf("%s: %s\n%v", name, diff, err)
		}
		if strings.Contains(err.Error(), "621498320257") || strings.Contains(err.Error(), "0257") {
			t.Errorf("%s: the error shows an Individual Number: %v", name, err)
		}
	}
	m.PIN.MaxDigits = 12
	if err := m.CheckSubject(Subject{ID: "000123", PIN: "621498320257", Items: map[string]string{"dept": "x"}}); !errors.Is(err, RuleIndividualNumber) {
		t.Errorf("Individual Number as PIN: %v", err)
	}
	m.PIN = PIN{Policy: PINNone}
	if err := m.CheckSubject(good); !errors.Is(err, RuleSubjectPINUnused) {
		t.Errorf("PIN for a service without one: %v", err)
	}
}

func TestPINNeverShows(t *testing.T) {
	s := Subject{ID: "1", PIN: "9876"}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "pin", s.PIN, "subject", s)
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%q %x %d", s.PIN, s.PIN, s.PIN), log.String(), string(b)} {
		if strings.Contains(out, "9876") || strings.Contains(out, "39383736") {
			t.Error(out)
		}
	}
	m := &Manifest{PIN: PIN{Tries: 5, MustChange: true}}
	want, _ := applets.NewPIN("9876")
	if p, err := m.PINSetting(s); err != nil || !p.Reference.Equal(want) || p.Limit != 5 || !p.MustChange {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := m.PINSetting(Subject{}); p != nil || err != nil {
		t.Errorf("no PIN: %+v, %v", p, err)
	}
}

// TestTermEnd: periods of the Civil Code, arts. 140 and 143.
func TestTermEnd(t *testing.T) {
	for _, tt := range []struct {
		term                 Term
		issued, expiry, want string
	}{
		{Term{Years: 5}, "2026-04-01", "2036-01-01", "2031-04-01"},
		{Term{Years: 1}, "2028-02-28", "2036-01-01", "2029-02-28"},
		{Term{Years: 1}, "2028-02-29", "2036-01-01", "2029-02-28"},
		{Term{Months: 1}, "2026-01-30", "2036-01-01", "2026-02-28"},
		{Term{Months: 1}, "2026-01-31", "2036-01-01", "2026-02-28"},
		{Term{Months: 1}, "2026-02-28", "2036-01-01", "2026-03-31"},
		{Term{Months: 6}, "2026-08-31", "2036-01-01", "2027-02-28"},
		{Term{Days: 1}, "2026-12-31", "2036-01-01", "2027-01-01"},
		{Term{Years: 1, Months: 14, Days: 3}, "2026-01-15", "2036-01-01", "2028-03-18"},
		{Term{Years: 5}, "2026-04-01", "2028-11-03", "2028-11-03"},
		{Term{CardExpiry: true}, "2026-04-01", "2028-11-03", "2028-11-03"},
		{Term{Years: 1}, "2028-11-03", "2028-11-03", "2028-11-03"},
	} {
		m := &Manifest{Term: tt.term}
		got, err := m.TermEnd(date(t, tt.issued), date(t, tt.expiry))
		if err != nil || got.Format(time.DateOnly) != tt.want {
			t.Errorf("%+v from %s, card until %s: %v, %v; want %s", tt.term, tt.issued, tt.expiry, got, err, tt.want)
		}
	}
	m := &Manifest{Term: Term{Years: 1}}
	if _, err := m.TermEnd(date(t, "2026-04-01"), time.Time{}); !errors.Is(err, ErrNoCardExpiry) {
		t.Errorf("no expiry: %v", err)
	}
	if _, err := m.TermEnd(date(t, "2026-04-02"), date(t, "2026-04-01")); !errors.Is(err, ErrCardExpired) {
		t.Errorf("expired card: %v", err)
	}
	// Early in the morning in Tokyo it is still the day before in UTC.
	tokyo := time.FixedZone("JST", 9*60*60)
	got, err := m.TermEnd(time.Date(2026, 4, 1, 1, 0, 0, 0, tokyo), date(t, "2036-01-01"))
	if err != nil || !got.Equal(date(t, "2027-04-01")) {
		t.Errorf("%v, %v", got, err)
	}
}

func date(t *testing.T, s string) time.Time {
	t.Helper()
	d, err := time.Parse(time.DateOnly, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestItemsSize: no values that the manifest allows take more room on the card.
func TestItemsSize(t *testing.T) {
	for _, n := range []int{1, 29, 30, 31, 60, 62, 63, 120, 160, 189} {
		m := &Manifest{Items: []Item{
			{Name: "a", Type: ItemText, MaxLength: n},
			{Name: "birthday", Type: ItemDate, MaxLength: 10},
			{Name: "code", Type: ItemDigits, MaxLength: n},
		}}
		b, err := applets.EncodeItems([]applets.Item{
			{Name: "a", Value: strings.Repeat("𠮷", n)}, {Name: "birthday", Value: "2026-01-01"}, {Name: "code", Value: strings.Repeat("1", n)}})
		if err != nil || len(b) != m.itemsSize() {
			t.Errorf("max_length %d: %d bytes, computed %d: %v", n, len(b), m.itemsSize(), err)
		}
	}
	if (&Manifest{}).itemsSize() != 0 {
		t.Error("no items take room")
	}
}

// TestSchema: the schema and the struct have the same keys and the schema's
// fixed lists are this package's.
func TestSchema(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	defs := root["$defs"].(map[string]any)
	var walk func(path string, node map[string]any, typ reflect.Type)
	walk = func(path string, node map[string]any, typ reflect.Type) {
		if ref, ok := node["$ref"].(string); ok {
			node = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		}
		if strings.Count(path, ".parts") > 3 {
			return // parts within parts, over and over
		}
		_, isText := reflect.New(typ).Interface().(encoding.TextUnmarshaler)
		if typ.Kind() == reflect.Slice && !isText {
			if node["type"] != "array" {
				t.Errorf("%s is no array", path)
				return
			}
			walk(path+"[]", node["items"].(map[string]any), typ.Elem())
			return
		}
		known, fields := []string(nil), map[string]int(nil)
		if typ.Kind() == reflect.Struct && !isText {
			known, fields = fieldKeys(typ)
		}
		if len(known) == 0 {
			want := map[reflect.Kind]string{reflect.Int: "integer", reflect.Bool: "boolean"}[typ.Kind()]
			if want == "" || isText {
				want = "string"
			}
			if node["type"] != want && node["enum"] == nil && node["const"] == nil {
				t.Errorf("%s has type %v, want %s", path, node["type"], want)
			}
			return
		}
		properties, _ := node["properties"].(map[string]any)
		if node["additionalProperties"] != false {
			t.Errorf("%s allows unknown keys", path)
		}
		for name := range properties {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s has %s, the struct has not", path, name)
			}
		}
		for _, name := range known {
			p, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("%s lacks %s", path, name)
				continue
			}
			walk(path+"."+name, p, typ.Field(fields[name]).Type)
		}
		required, _ := node["required"].([]any)
		for _, name := range required {
			if _, ok := fields[name.(string)]; !ok {
				t.Errorf("%s requires %s, which is no key", path, name)
			}
		}
	}
	walk("", root, reflect.TypeFor[Manifest]())

	enum := func(path ...string) (values []string) {
		node := root
		for _, p := range path {
			node = node[p].(map[string]any)
		}
		for _, v := range node["enum"].([]any) {
			values = append(values, v.(string))
		}
		return values
	}
	var wantKinds []string
	for _, k := range kinds {
		wantKinds = append(wantKinds, string(k))
	}
	p := "properties"
	for _, tt := range []struct{ got, want []string }{
		{enum(p, "operator", p, "kind"), wantKinds},
		{enum(p, "operator", p, "basis"), strings.Split(basisIDs(""), ", ")},
		{enum(p, "id_scheme", p, "alphabet"), alphabetNames},
		{enum(p, "keys", p, "diversification"), []string{string(keys.MethodNone), string(keys.MethodSP800108)}},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Error(diff)
		}
	}
	for name := range alphabets {
		if !slices.Contains(alphabetNames, name) {
			t.Errorf("alphabet %s is not listed", name)
		}
	}
}

func TestKeyIndex(t *testing.T) {
	doc := "\ufeffa = 1 # x = 2\n" +
		"b.\"c d\" . e = \"\"\"\n[not.a.table]\nx = 1\"\"\"\"\"\n" +
		"'quoted.key' = 'lit\\'\n" +
		"[t]\n  list = [ 1, # one\n    [2, 3],\n  {x = 1, y.z = '''\n}'''} ]\n" +
		"[[t.a]]\nn = 1\n[[t.a]]\nn = 2\n  [t.a.sub]\n  m = 1979-05-27T07:32:00Z\n" +
		"\"\\u0065\\\"s\" = true\n"
	var tree map[string]any
	if _, err := toml.Decode(doc, &tree); err != nil {
		t.Fatal(err)
	}
	want := keyIndex{
		"a": {1, 1}, "b": {2, 1}, `b."c d"`: {2, 1}, `b."c d".e`: {2, 1},
		`"quoted.key"`: {5, 1},
		"t":            {6, 1}, "t.list": {7, 3}, "t.list[0]": {7, 12}, "t.list[1]": {8, 5}, "t.list[1][0]": {8, 6}, "t.list[1][1]": {8, 9},
		"t.list[2]": {9, 3}, "t.list[2].x": {9, 4}, "t.list[2].y": {9, 11}, "t.list[2].y.z": {9, 11},
		"t.a": {11, 1}, "t.a[0]": {11, 1}, "t.a[0].n": {12, 1}, "t.a[1]": {13, 1}, "t.a[1].n": {14, 1},
		"t.a[1].sub": {15, 3}, "t.a[1].sub.m": {16, 3}, `t.a[1].sub."e\"s"`: {17, 1},
	}
	if diff := cmp.Diff(want, indexKeys(doc), cmp.AllowUnexported(position{})); diff != "" {
		t.Error(diff)
	}
	if p := want.locate(`t.a[1].sub."no such".deep[3]`); p.line != 15 {
		t.Errorf("nearest table is at line %d", p.line)
	}
	if p := want.locate("elsewhere.deep"); p.line != 1 {
		t.Errorf("a key of no table is at line %d", p.line)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"min_digits", "max_digits", "tries", "policy", "ja"}
	for word, want := range map[string]string{
		"min_digit": "min_digits", "mindigits": "min_digits", "Tries": "tries", "tires": "tries", "polcy": "policy", "jp": "ja",
		"colour": "", "x": "", strings.Repeat("tries", 20): "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

// FuzzParse: no input makes the parser panic or give back neither a manifest
// nor a fault, every key of a readable document has a place, and what is
// accepted has a canonical encoding.
func FuzzParse(f *testing.F) {
	for _, profile := range applets.Base() {
		text, err := New(profile.Name(), strings.NewReader(strings.Repeat("0123456789abcdef", 2)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, name := range []string{"shopping-street", "city-library", "office-pass", "driving-record"} {
		text, err := os.ReadFile("../examples/" + name + ".toml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a = [{b = 1}, {b = 2}]\n[[x.y]]\n[x.y.z]\nk.\"l m\" = '''\n'''")
	f.Add("'' = 1\n\"\" .a= 2\n")
	f.Add("a=1979-05-27 07:32:00\nb=[ ]\nc={ }\n\"\\U0001F600\\\\\"=1")
	f.Fuzz(func(t *testing.T, doc string) {
		m, err := Parse("x.toml", []byte(doc))
		if (m == nil) == (err == nil) {
			t.Fatalf("manifest %v, error %v", m, err)
		}
		if m != nil && !json.Valid(m.Canonical()) {
			t.Errorf("canonical encoding is no JSON: %s", m.Canonical())
		}
		var faults Faults
		if err != nil && (!errors.As(err, &faults) || len(faults) == 0 || err.Error() == "") {
			t.Fatalf("error is %v", err)
		}
		var tree map[string]any
		if _, err := toml.Decode(doc, &tree); err != nil || len(doc) > MaxSize {
			return
		}
		index := indexKeys(doc)
		lines := strings.Count(doc, "\n") + 1
		var walk func(path string, v any)
		walk = func(path string, v any) {
			if at, ok := index[path]; path != "" && (!ok || at.line < 1 || at.line > lines || at.column < 1) {
				t.Errorf("no place for %q: %+v", path, at)
			}
			switch v := v.(type) {
			case map[string]any:
				for k, x := range v {
					walk(joinKey(path, k), x)
				}
			case []any:
				for i, x := range v {
					walk(joinIndex(path, i), x)
				}
			case []map[string]any:
				for i, x := range v {
					walk(joinIndex(path, i), x)
				}
			}
		}
		walk("", tree)
	})
}

// TestDocumentation: docs/manifest.md names every rule, every key and every
// basis in law.
func TestDocumentation(t *testing.T) {
	b, err := os.ReadFile("../docs/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, rule := range Rules() {
		if !strings.Contains(text, "`"+string(rule)+"`") {
			t.Errorf("rule %s is not described", rule)
		}
	}
	for _, basis := range Bases() {
		if !strings.Contains(text, "`"+basis.ID+"`") {
			t.Errorf("basis %s is not described", basis.ID)
		}
	}
	top, _ := fieldKeys(reflect.TypeFor[Manifest]())
	for i, key := range top {
		field := reflect.TypeFor[Manifest]().Field(i).Type
		prefix := key
		if field.Kind() == reflect.Slice {
			field, prefix = field.Elem(), key+"[]"
		}
		if field.Kind() != reflect.Struct || field == reflect.TypeFor[Text]() {
			if !strings.Contains(text, "`"+key+"`") {
				t.Errorf("key %s is not described", key)
			}
			continue
		}
		names, _ := fieldKeys(field)
		for _, name := range names {
			if !strings.Contains(text, "`"+prefix+"."+name+"`") && !(key == "term" && strings.Contains(text, "`"+name)) {
				t.Errorf("key %s.%s is not described", prefix, name)
			}
		}
	}
}

// A PIN is held against the manifest also where nothing else is written.
func TestCheckPIN(t *testing.T) {
	with, without := &Manifest{}, &Manifest{}
	with.PIN.Policy, with.PIN.MinDigits, with.PIN.MaxDigits = PINRequired, 4, 12
	for _, tt := range []struct {
		m    *Manifest
		pin  PINDigits
		want Rule
	}{
		{with, "2580", ""},
		{with, "", RuleSubjectPINMissing},
		{with, "258", RuleSubjectPIN},
		{with, "258O", RuleSubjectPIN},
		{with, "123456789018", RuleIndividualNumber},
		{without, "", ""},
		{without, "2580", RuleSubjectPINUnused},
	} {
		err := tt.m.CheckPIN(tt.pin)
		if tt.want == "" && err != nil || tt.want != "" && !errors.Is(err, tt.want) {
			t.Errorf("%d digits, policy %q: %v, want %q", len(tt.pin), tt.m.PIN.Policy, err, tt.want)
		}
	}
}
