package manifest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/recipe"
	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/manifest"
	"github.com/google/go-cmp/cmp"
)

// A manifest is what package consent asks for, without either importing the
// other.
var _ consent.Service = (*manifest.Manifest)(nil)

const examples = "../examples"

var exampleNames = []string{"shopping-street", "city-library", "office-pass", "driving-record"}

func load(t *testing.T, name string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Load(filepath.Join(examples, name+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(examples, name+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.toml"))
	if err != nil || len(files) != len(exampleNames) {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	profiles := map[string]string{}
	instances := map[iso7816.AID]bool{}
	for _, name := range exampleNames {
		m := load(t, name)
		profiles[m.ID] = m.Profile
		instances[m.Application.Instance] = true
		f, err := m.OpenLoadFile()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if f.Package.AID != m.Application.Package {
			t.Errorf("%s: package %v, manifest says %v", name, f.Package.AID, m.Application.Package)
		}
		for _, lang := range []string{"ja", "en"} {
			required, optional := m.ItemNames()
			d, err := m.Disclosure(lang, append(required, optional...))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for field, text := range map[string]string{
				"service": d.Service, "purpose": d.Purpose, "operator": d.Operator, "contact": d.Contact, "basis": d.Basis,
				"id": d.ID, "protection": d.Protection, "term": d.Term, "retention": d.Retention,
			} {
				if text == "" || strings.Contains(text, "%!") {
					t.Errorf("%s: %s: %s is %q", name, lang, field, text)
				}
			}
			if len(d.Items) != len(m.Items) || (d.PIN != "") != (m.PIN.Policy == manifest.PINRequired) {
				t.Errorf("%s: %s: %d items, PIN %q", name, lang, len(d.Items), d.PIN)
			}
		}
	}
	want := map[string]string{"shopping-street": "common-ap", "city-library": "type-a", "office-pass": "type-d", "driving-record": "custom"}
	if diff := cmp.Diff(want, profiles); diff != "" {
		t.Error(diff)
	}
	if len(instances) != len(exampleNames) {
		t.Error("two examples have the same instance AID")
	}
}

func TestDefaults(t *testing.T) {
	m := load(t, "shopping-street")
	if m.Application.Package != applets.BasePackage || m.Application.Module != applets.ModuleCommonAP ||
		m.PIN.Policy != manifest.PINNone || !m.Application.SecurityDomain.IsZero() {
		t.Errorf("defaults: %+v, PIN %q", m.Application, m.PIN.Policy)
	}
	text := strings.NewReplacer("min_digits  = 4\n", "", "max_digits  = 8\n", "", "tries       = 3\n", "", "valid_days = 90\n", "").
		Replace(read(t, "city-library"))
	m, err := manifest.Parse("x.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := manifest.PIN{Policy: manifest.PINRequired, MinDigits: 4, MaxDigits: 12, Tries: 3}
	if m.PIN != want || m.Consent.ValidDays != 90 || m.IDScheme.MinLength != m.IDScheme.Length {
		t.Errorf("%+v, valid for %d days, min_length %d", m.PIN, m.Consent.ValidDays, m.IDScheme.MinLength)
	}
}

// edit replaces the first occurrence of old, which must be there, and returns
// the line that it stood on.
func edit(t *testing.T, text, old, replacement string) (string, int) {
	t.Helper()
	before, after, ok := strings.Cut(text, old)
	if !ok {
		t.Fatalf("%q is not in the manifest", old)
	}
	return before + replacement + after, strings.Count(before, "\n") + 1
}

// TestRules breaks one thing of an example at a time: each rule must name the
// key, and the line where it stands.
func TestRules(t *testing.T) {
	const street, library, office, record = "shopping-street", "city-library", "office-pass", "driving-record"
	const anywhere = 1000 // the fault stands at a key far from what was changed
	tests := []struct {
		rule     manifest.Rule
		example  string
		old, new string
		key      string
		lines    int // from the line of old to that of the fault
	}{
		{manifest.RuleSyntax, street, `years = 3`, `years = = 3`, "term.years", 0},
		{manifest.RuleSyntax, street, `years = 3`, "years = 3\nyears = 4", "term.years", 1},
		{manifest.RuleUnknownKeyNear, street, "[purpose]", "[purpos]", "purpos", 0},
		{manifest.RuleUnknownKeyNear, library, "tries       = 3", "tires       = 3", "pin.tires", 0},
		{manifest.RuleUnknownKey, library, "tries       = 3", "colour = 3", "pin.colour", 0},
		{manifest.RuleUnknownKey, library, "tries       = 3", `"b c".d = 3`, `pin."b c"`, 0},
		{manifest.RuleWrongType, library, "tries       = 3", `tries = "3"`, "pin.tries", 0},
		{manifest.RuleWrongType, library, "tries       = 3", `tries = 3.0`, "pin.tries", 0},
		{manifest.RuleWrongType, library, "must_change = false", `must_change = "no"`, "pin.must_change", 0},
		{manifest.RuleWrongType, library, `methods    = ["paper", "screen"]`, `methods = "paper"`, "consent.methods", 0},
		{manifest.RuleWrongType, library, `label      = { ja = "利用者区分", en = "Borrower category" }`, `label = "利用者区分"`, "items[0].label", 0},
		{manifest.RuleWrongType, street, `"screen", "paper"`, `"screen",` + "\n" + `5`, "consent.methods[1]", 1},
		{manifest.RuleTooMany, street, `"screen", "paper"`, strings.Repeat(`"screen",`, 65), "consent.methods", 0},
		{manifest.RuleFormat, street, "manifest = 1", "manifest = 2", "manifest", 0},
		{manifest.RuleFormat, street, "manifest = 1", "", "manifest", -6},
		{manifest.RuleMissing, street, `en = "Minatozaka Shopping Street Point Card"`, "", "name.en", -2},
		{manifest.RuleMissing, street, `kind     = "sequence"`, "", "id_scheme.kind", -1},
		{manifest.RuleBlank, street, `"shopping-street-issuer"`, `"<fill in: a name>"`, "keys.issuer_signing", 0},
		{manifest.RuleChoice, street, `"private-business"`, `"company"`, "operator.kind", 0},
		{manifest.RuleChoice, street, `"screen", "paper"`, `"screen", "telephone"`, "consent.methods[1]", 0},
		{manifest.RuleChoice, library, `"alphanumeric"`, `"number"`, "items[0].type", 0},
		{manifest.RuleChoice, street, `"iso7064-mod-37-36"`, `"mod37"`, "id_scheme.check", 0},
		{manifest.RuleChoice, street, `"builtin:base"`, `"builtin:other"`, "load_file.path", 0},
		{manifest.RuleRange, library, "tries       = 3", "tries = 16", "pin.tries", 0},
		{manifest.RuleRange, library, "tries       = 3", "tries = 0", "pin.tries", 0},
		{manifest.RuleRange, library, "tries       = 3", "tries = 4294967299", "pin.tries", 0},
		{manifest.RuleRange, library, "min_digits  = 4", "min_digits = 3", "pin.min_digits", 0},
		{manifest.RuleRange, library, "max_digits  = 8", "max_digits = 13", "pin.max_digits", 0},
		{manifest.RuleRange, library, "max_length = 20", "max_length = 0", "items[1].max_length", 0},
		{manifest.RuleRange, library, `type       = "alphanumeric"`, `type = "date"`, "items[0].max_length", 1},
		{manifest.RuleText, street, `ja = "みなと坂商店街ポイントカード"`, `ja = "みなと坂\u0007"`, "name.ja", 0},
		{manifest.RuleText, street, `ja = "みなと坂商店街ポイントカード"`, `ja = "みなと坂\u202Eカード"`, "name.ja", 0},
		{manifest.RuleTextLength, street, `ja = "みなと坂商店街ポイントカード"`, `ja = "` + strings.Repeat("坂", 61) + `"`, "name.ja", 0},
		{manifest.RuleServiceID, street, `"shopping-street"`, `"Shopping Street"`, "id", 0},
		{manifest.RuleServiceID, street, `"shopping-street"`, `"shopping_street"`, "id", 0},

		{manifest.RulePurposeJapanese, street, "[purpose]\nja = ", "[purpose]\nja = 'For points.'\nen = 'For points.'\n[name2]\nja = ", "purpose.ja", 1},
		{manifest.RuleIndividualNumber, street, `ja = "みなと坂商店街ポイントカード"`, `ja = "番号 ６２１４－９８３２－０２５７"`, "name.ja", 0},
		{manifest.RuleIndividualNumber, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"FC621498320257FD16C247C1"`, "application.instance", 0},
		{manifest.RuleIndividualNumber, street, "years = 3", "years = 621498320257", "term.years", 0},
		{manifest.RuleBasisUnknown, street, `"order-18-2-4"`, `"order-18-9"`, "operator.basis", 0},
		{manifest.RuleBasisKind, street, `"order-18-2-4"`, `"order-18-2-1"`, "operator.basis", 0},
		{manifest.RuleBasisOrdinance, library, "[operator.ordinance]\nja =", "[operator.ordinance]\nj =", "operator.ordinance.ja", 0},
		{manifest.RuleBasisNotice, library, "kind  = \"municipality\"\nbasis = \"act-18-1\"", "kind = \"administrative-organ\"\nbasis = \"order-18-2-1\"", "operator.notice.ja", -1},
		{manifest.RuleBasisOther, street, "[operator.notice]", "[operator.ordinance]\nja = '条例'\nen = 'Ordinance'\n[operator.notice]", "operator.ordinance", 0},
		{manifest.RulePrivateBusinessNotice, street, "[operator.notice]", "[operator.ordinance]", "operator.notice.ja", -12},

		{manifest.RuleMinimumReason, office, "ja = \"通信が切れていても、扉が入室の可否を判定するため\"", `ja = ""`, "items[0].reason.ja", 0},
		{manifest.RuleMinimumIDOnly, office, `"type-d"`, `"common-ap"`, "items", 40},
		{manifest.RuleProfileUnknown, street, `"common-ap"`, `"type-z"`, "profile", 0},
		{manifest.RulePINNotAllowed, library, `"type-a"`, `"common-ap"`, "pin.policy", 38},
		{manifest.RulePINSettings, office, `policy = "none"`, "policy = \"none\"\ntries = 3", "pin.tries", 1},
		{manifest.RulePINDigits, library, "min_digits  = 4", "min_digits = 9", "pin.max_digits", 1},
		{manifest.RuleMutual, library, `read            = "city-library-read"`, "", "keys.read", -1},
		{manifest.RuleMutual, office, `read            = "office-pass-read"`, "", "keys.read", -1},
		{manifest.RuleReadKeyUnused, street, "[keys]", "[keys]\nread = \"k\"", "keys.read", 1},
		{manifest.RuleKeyName, street, `"shopping-street-issuer"`, `"the issuer"`, "keys.issuer_signing", 0},
		{manifest.RuleKeysSame, library, `"city-library-issuer"`, `"city-library-read"`, "keys.issuer_signing", 0},
		{manifest.RuleDiversification, library, `"sp800-108-cmac"`, `"sp800-108"`, "keys.diversification", 0},
		{manifest.RuleDiversification, street, `[keys]`, "[keys]\ndiversification = 'x'", "keys.diversification", 1},
		{manifest.RuleDiversifyNone, library, `"sp800-108-cmac"`, `"none"`, "keys.diversification", 0},
		{manifest.RuleDiversifyNone, office, `"sp800-108-cmac"`, `"none"`, "keys.diversification", 0},
		{manifest.RuleDiversifyMissing, office, `diversification = "sp800-108-cmac"`, "", "keys.diversification", -2},

		{manifest.RuleAIDMalformed, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"FCFE8F0A"`, "application.instance", 0},
		{manifest.RuleAIDMalformed, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"point-card"`, "application.instance", 0},
		{manifest.RuleAIDCategory, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"B0112233445566"`, "application.instance", 0},
		{manifest.RuleAIDCardsOwn, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"A0000001510000"`, "application.instance", 0},
		{manifest.RuleAIDCardsOwn, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"A000000151000000"`, "application.instance", 0},
		{manifest.RuleAIDCardsOwn, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"D392F000260100000001"`, "application.instance", 0},
		{manifest.RuleAIDCardsOwn, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"D3921000310001010401"`, "application.instance", 0},
		{manifest.RuleAIDCardsOwn, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"D3921000310001010100"`, "application.instance", 0},
		{manifest.RuleAIDCardsOwn, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"A0000002310600000000000000000000"`, "application.instance", 0},
		{manifest.RuleAIDClash, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"F046524545"`, "application.instance", 0},
		{manifest.RuleAIDClash, street, `"FCFE8F0A6CBE84744A1EA0FD16C247C1"`, `"F046524545415245410001"`, "application.instance", 0},
		{manifest.RuleHashMalformed, street, `sha256 = "d2`, `sha256 = "d`, "load_file.sha256", 0},
		{manifest.RuleLoadFileHash, street, `sha256 = "d2`, `sha256 = "d3`, "load_file.sha256", 0},
		{manifest.RuleLoadFilePath, street, `"builtin:base"`, `"../base.cap"`, "load_file.path", 0},
		{manifest.RuleLoadFilePath, street, `"builtin:base"`, `"/base.cap"`, "load_file.path", 0},
		{manifest.RuleLoadFilePackage, street, `[load_file]`, "package = \"F04652454541524541FF\"\n[load_file]", "application.package", 0},
		{manifest.RuleLoadFileModule, street, `[load_file]`, "module = \"F04652454541524541FFFF\"\n[load_file]", "application.module", 0},
		{manifest.RuleMemory, office, `[load_file]`, "memory = 16\n[load_file]", "application.memory", 0},
		{manifest.RuleRange, office, `[load_file]`, "memory = -1\n[load_file]", "application.memory", 0},

		{manifest.RuleItemsCount, office, "[[items]]", strings.Repeat("[[items]]\n", 17), "items", 0},
		{manifest.RuleItemsSize, library, "max_length = 20", "max_length = 256", "items", -13},
		{manifest.RuleItemName, office, `name       = "area"`, `name = "Area"`, "items[0].name", 0},
		{manifest.RuleItemDuplicate, library, `name       = "home-branch"`, `name = "category"`, "items[1].name", 0},

		{manifest.RuleCustomUnused, record, `profile  = "custom"`, `profile  = "common-ap"`, "custom", anywhere},
		{manifest.RuleMissing, street, `profile  = "common-ap"`, `profile  = "custom"`, "custom", -8},
		{manifest.RuleHexMalformed, record, `"001A 1A 01 00"`, `"001A 1A 01 0"`, "custom.personalize.groups[2].parts[0].hex", 0},
		{manifest.RuleHexMalformed, record, `"001A 1A 01 00"`, `""`, "custom.personalize.groups[2].parts[0].hex", 0},
		{manifest.RuleTagMalformed, record, `tag     = "DF40"`, `tag = "DF10"`, "custom.observe.steps[0].tag", 0},
		{manifest.RuleTagMalformed, record, `path = ["E1", "C2"]`, `path = ["E1", "1F"]`, "custom.read.id.path[1]", 0},
		{manifest.RuleStatusMalformed, record, `absent = ["6985"]`, `absent = ["5985"]`, "custom.absent[0]", 0},
		{manifest.RuleWrongType, record, `sfi     = 26`, `sfi = "26"`, "custom.read.steps[0].sfi", 0},
		{manifest.RuleUnknownKeyNear, record, `sfi     = 26`, `sfl = 26`, "custom.read.steps[0].sfl", 0},
		{manifest.RuleRange, record, `sfi     = 26`, `sfi = 31`, "custom.read.steps[0].sfi", 0},
		{manifest.RuleRange, record, `memory     = 1052`, `memory = 0`, "custom.install.memory", 0},
		{manifest.RuleMemory, record, `memory   = 1200`, `memory = 1000`, "application.memory", 0},
		{manifest.RuleChoice, record, `format = "dgi"`, `format = "tlv"`, "custom.personalize.format", 0},
		{manifest.RuleChoice, record, `{ value = "pin-limit" }`, `{ value = "limit" }`, "custom.personalize.groups[1].parts[1].value", 0},
		{manifest.RuleMissing, record, `by = "groups"`, ``, "custom.wipe.by", -1},
		{manifest.RuleMissing, record, `tag          = { from = "written", path = ["C1"] }`, ``, "custom.observe.tag.from", -1},
		{manifest.RuleIndividualNumber, record, `"001A 1A 01 00"`, `"363231343938333230323537"`, "custom.personalize.groups[2].parts[0].hex", 0},
		{manifest.RuleRecipeOneOf, record, `{ hex = "001A 1A 01 00" }`, `{ hex = "00", value = "id" }`, "custom.personalize.groups[2].parts[0]", 0},
		{manifest.RuleRecipeOneOf, record, `sfi     = 27`, "sfi = 27\nfile = '001B'", "custom.read.steps[2]", -3},
		{manifest.RuleRecipeNotHere, record, `{ hex = "001A 1A 01 00" }`, `{ hex = "00", encrypt = true }`, "custom.personalize.groups[2].parts[0].encrypt", 0},
		{manifest.RuleRecipeNotHere, record, `sfi     = 26`, "sfi = 26\nrecord = 1", "custom.read.steps[0].record", 1},
		{manifest.RuleRecipeNotHere, record, `by = "groups"`, `by = "delete"`, "custom.wipe.groups", 1},
		{manifest.RuleRecipeSize, record, `file    = "001C"`, `file = "1C"`, "custom.read.steps[3].file", 0},
		{manifest.RuleRecipeIdentifier, record, `id    = "DF21"`, `id = "21"`, "custom.personalize.groups[0].id", 0},
		{manifest.RuleRecipeDepth, record, `{ value = "pin-set" }`, `{ parts = [{ parts = [{ parts = [{ parts = [{ value = "pin-set" }] }] }] }] }`,
			"custom.personalize.groups[3].parts[0].parts[0].parts[0].parts[0].parts", 0},
		{manifest.RuleRecipeDepth, record, `path = ["E1", "C2"]`, `path = ["E1", "E2", "E3", "E4", "C1"]`, "custom.read.id.path", 0},
		{manifest.RuleRecipeCount, record, `[[custom.observe.steps]]`, strings.Repeat("[[custom.observe.steps]]\ncommand = 'get-data'\n", 16) + "[[custom.observe.steps]]", "custom.observe.steps", 0},
		{manifest.RuleRecipePINInClear, record, `{ encrypt = true, parts =`, `{ parts =`, "custom.personalize.groups[1].parts[3].parts[0].value", 0},
		{manifest.RuleRecipeConstant, record, `{ hex = "57 49 50 45" }`, `{ value = "id" }`, "custom.wipe.groups[0].parts[0]", 0},
		{manifest.RuleRecipeConstant, record, `{ hex = "57 49 50 45" }`, `{ encrypt = true, parts = [{ hex = "00" }] }`, "custom.wipe.groups[0].parts[0]", 0},
		{manifest.RuleRecipeSource, record, `signature    = { from = "signature" }`, `signature = { from = "sign" }`, "custom.read.signature.from", 0},
		{manifest.RuleRecipeSource, record, `when    = { from = "pin-set"`, `when = { from = "data"`, "custom.read.steps[1].when.from", 0},
		{manifest.RuleRecipeName, record, `name    = "data"`, `name = "Data"`, "custom.read.steps[2].name", 0},
		{manifest.RuleRecipeNameTwice, record, `name    = "data"`, `name = "pin-set"`, "custom.read.steps[2].name", 0},
		{manifest.RuleRecipeNotWritten, record, `{ value = "tag" }`, `{ hex = "00" }`, "custom.personalize.groups", anywhere},
		{manifest.RuleRecipeNotWritten, record, `{ item = "class" }`, `{ hex = "00" }`, "custom.personalize.groups", anywhere},
		{manifest.RuleRecipeNotWritten, record, `tries      = 10`, "tries = 10\nmust_change = true", "custom.personalize.groups", anywhere},
		{manifest.RuleRecipeNotRead, record, "signature    = { from = \"signature\" }", "", "custom.read.signature", anywhere},
		{manifest.RuleRecipeNotRead, record, "command = \"verify\"", "command = \"read-binary\"\nname = \"x\"", "custom.read.steps", anywhere},
		{manifest.RuleRecipeNotRead, record, "[[custom.read.items]]\nname = \"class\"\nfrom = \"data\"\npath = [\"E1\", \"C5\"]\n", "", "custom.read.items", anywhere},
		{manifest.RuleRecipeItemUnknown, record, `{ item = "conditions" }`, `{ item = "eyes" }`, "custom.personalize.groups[5].parts[0].parts[4].parts[0].item", 0},
		{manifest.RuleRecipePINPolicy, record, `policy     = "required"`, `policy = "none"`, "custom.personalize.groups", anywhere},
		{manifest.RuleRecipeObject, record, `tag     = "DF40"`, ``, "custom.observe.steps[0].tag", -3},
		{manifest.RuleRecipeVerifyTwice, record, `[[custom.read.items]]`, "[[custom.read.steps]]\ncommand = 'verify'\nsfi = 6\nlength = 12\nfill = 'FF'\n[[custom.read.items]]", "custom.read.steps[4]", 0},

		{manifest.RuleIDPrefix, street, `"MS-"`, `"MS_"`, "id_scheme.prefix", 0},
		{manifest.RuleIDPrefix, street, `"MS-"`, `"みなと"`, "id_scheme.prefix", 0},
		{manifest.RuleIDLength, street, "length   = 8", "length = 61", "id_scheme.length", 0},
		{manifest.RuleIDLength, street, "length   = 8", "length = 0", "id_scheme.length", 0},
		{manifest.RuleIDMinLength, street, "length   = 8", "length = 8\nmin_length = 7", "id_scheme.min_length", 1},
		{manifest.RuleIDMinLength, library, "length   = 9", "length = 9\nmin_length = 10", "id_scheme.min_length", 1},
		{manifest.RuleIDCheckAlphabet, street, `"iso7064-mod-37-36"`, `"iso7812-luhn"`, "id_scheme.check", 0},
		{manifest.RuleIDCheckAlphabet, office, `prefix   = "TP"`, `prefix = "tp"`, "id_scheme.check", 3},
		{manifest.RuleIDIndividualNumber, street, "length   = 8", "length = 11", "id_scheme.length", 0},
		{manifest.RuleIDIndividualNumber, street, "length   = 8", "length = 12", "id_scheme.length", 0},
		{manifest.RuleIDIndividualNumber, office, `prefix   = "TP"`, `prefix = ""`, "id_scheme.length", 1},
		{manifest.RuleIDIndividualNumber, street, "length   = 8\nalphabet = \"digits\"", "length = 13\nalphabet = \"alphanumeric\"", "id_scheme.length", 0},
		{manifest.RuleIDIndividualNumber, library, "length   = 9", "length = 11", "id_scheme.length", 0},
		{manifest.RuleIDIndividualNumber, library, "length   = 9", "length = 13\nmin_length = 9", "id_scheme.length", 0},

		{manifest.RuleTerm, street, "years = 3", "years = 3\ncard_expiry = true", "term", -1},
		{manifest.RuleTerm, street, "years = 3", "", "term", -1},
		{manifest.RuleTerm, street, "[term]\nyears = 3\n", "", "term", -58},
		{manifest.RuleRange, street, "years = 3", "years = 11", "term.years", 0},
		{manifest.RuleTermLength, street, "years = 3", "years = 10\ndays = 1", "term", -1},
		{manifest.RuleConsentMethods, street, `["screen", "paper"]`, `[]`, "consent.methods", 0},
		{manifest.RuleConsentMethods, street, `["screen", "paper"]`, `["paper", "paper"]`, "consent.methods", 0},
	}
	covered := map[manifest.Rule]bool{}
	for _, tt := range tests {
		covered[tt.rule] = true
		t.Run(fmt.Sprintf("%s/%s", tt.rule, tt.new), func(t *testing.T) {
			text, line := edit(t, read(t, tt.example), tt.old, tt.new)
			_, err := manifest.Parse("x.toml", []byte(text))
			var faults manifest.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error is %v", err)
			}
			if !errors.Is(err, tt.rule) {
				t.Fatalf("other faults:\n%v", err)
			}
			i := slices.IndexFunc(faults, func(f manifest.Fault) bool { return f.Rule == tt.rule && f.Key == tt.key })
			if i < 0 {
				t.Fatalf("no fault at %s:\n%v", tt.key, err)
			}
			if f := faults[i]; tt.lines != anywhere && f.Line != line+tt.lines || f.Line < 1 || f.Column < 1 && f.Line > 1 || f.File != "x.toml" {
				t.Errorf("place is %s, line %d expected", f.Place(), line+tt.lines)
			}
		})
	}
	elsewhere := []manifest.Rule{ // tested by functions of their own
		manifest.RuleRecipeFile, manifest.RuleRecipeFormat,
		manifest.RuleUnreadable, manifest.RuleTooLarge, manifest.RuleLoadFile, manifest.RuleAIDTaken,
		manifest.RuleSubjectID, manifest.RuleSubjectItemUnknown, manifest.RuleSubjectItemMissing, manifest.RuleSubjectItemValue,
		manifest.RuleSubjectItemLength, manifest.RuleSubjectPINMissing, manifest.RuleSubjectPINUnused, manifest.RuleSubjectPIN,
	}
	for _, r := range manifest.Rules() {
		if !covered[r] && !slices.Contains(elsewhere, r) {
			t.Errorf("rule %s has no test", r)
		}
	}
}

// TestEveryFaultAtOnce: one run reports all, in the order of the file.
func TestEveryFaultAtOnce(t *testing.T) {
	text := read(t, "city-library")
	want := []string{}
	for _, e := range [][3]string{
		{`"type-a"`, `"type-q"`, "profile profile-unknown"},
		{"[purpose]\nja = ", "[purpose]\njp = ", "purpose.jp unknown-key-near"},
		{`"municipality"`, `"city"`, "operator.kind choice"},
		{"tries       = 3", `tries = "3"`, "pin.tries wrong-type"},
		{"max_length = 20", "max_length = -1", "items[1].max_length range"},
		{`"iso7812-luhn"`, `"luhn"`, "id_scheme.check choice"},
		{"years = 5", "", "term term"},
		{"days = 90\n[retention", "days = -1\n[retention", "retention.days range"},
	} {
		text, _ = edit(t, text, e[0], e[1])
		want = append(want, e[2])
	}
	want = slices.Insert(want, 1, "purpose.ja purpose-japanese")
	_, err := manifest.Parse("x.toml", []byte(text))
	var faults manifest.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error is %v", err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.Key+" "+string(f.Rule))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%v", diff, err)
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(faults) {
		t.Errorf("%d lines for %d faults", len(lines), len(faults))
	}
}

func TestLoadFaults(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := manifest.Load(filepath.Join(dir, "none.toml")); !errors.Is(err, manifest.RuleUnreadable) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := manifest.Load(write("large.toml", bytes.Repeat([]byte("#"), manifest.MaxSize+1))); !errors.Is(err, manifest.RuleTooLarge) {
		t.Errorf("large file: %v", err)
	}

	text, line := edit(t, read(t, "shopping-street"), `"builtin:base"`, `"base.cap"`)
	path := write("m.toml", []byte(text))
	_, err := manifest.Load(path)
	var faults manifest.Faults
	if !errors.As(err, &faults) || !errors.Is(err, manifest.RuleLoadFile) || faults[0].Line != line {
		t.Errorf("load file is missing: %v", err)
	}
	write("base.cap", applets.BaseLoadFile())
	m, err := manifest.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenLoadFile(); err != nil {
		t.Error(err)
	}
	write("base.cap", []byte("PK"))
	if _, err := manifest.Load(path); !errors.Is(err, manifest.RuleLoadFile) {
		t.Errorf("load file is no CAP file: %v", err)
	}

	// The hash decides, also when the file is changed after the check.
	m.LoadFile.SHA256[0] ^= 1
	write("base.cap", applets.BaseLoadFile())
	if _, err := m.OpenLoadFile(); !errors.Is(err, manifest.RuleLoadFileHash) {
		t.Errorf("load file of another hash: %v", err)
	}
	text, _ = edit(t, text, `sha256 = "d2`, `sha256 = "d3`)
	write("m.toml", []byte(text))
	if _, err := manifest.Load(path); !errors.Is(err, manifest.RuleLoadFileHash) {
		t.Errorf("load file of another hash: %v", err)
	}
	// What was issued is looked after without it, until it is opened.
	if m, err = (manifest.Reader{Issued: true}).Load(path); err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenLoadFile(); !errors.Is(err, manifest.RuleLoadFileHash) {
		t.Errorf("load file of another hash, opened later: %v", err)
	}
	text, _ = edit(t, text, `"base.cap"`, `"builtin:base"`)
	write("m.toml", []byte(text))
	if _, err := (manifest.Reader{Issued: true}).Load(path); err != nil {
		t.Errorf("issued with another build: %v", err)
	}
	if _, err := manifest.Load(path); !errors.Is(err, manifest.RuleLoadFileHash) {
		t.Errorf("to be issued with another build: %v", err)
	}
	m.LoadFile.SHA256[0] ^= 1
	m.Application.Module = iso7816.MustAID("F04652454541524541000F")
	if _, err := m.OpenLoadFile(); !errors.Is(err, manifest.RuleLoadFileModule) {
		t.Errorf("load file without the module: %v", err)
	}
}

func TestCheckAID(t *testing.T) {
	m := load(t, "office-pass")
	owner := map[iso7816.AID]string{}
	lookup := func(aid iso7816.AID) (string, error) { return owner[aid], nil }
	if err := m.CheckAID(lookup); err != nil {
		t.Error(err)
	}
	owner[m.Application.Instance] = "office-pass"
	if err := m.CheckAID(lookup); err != nil {
		t.Errorf("the service's own AID: %v", err)
	}
	owner[m.Application.Instance] = "other"
	if err := m.CheckAID(lookup); !errors.Is(err, manifest.RuleAIDTaken) || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("AID of another service: %v", err)
	}
	broken := errors.New("ledger is closed")
	if err := m.CheckAID(func(iso7816.AID) (string, error) { return "", broken }); !errors.Is(err, broken) {
		t.Errorf("error of the ledger: %v", err)
	}
}

// TestDigest holds the canonical encoding against one that another program
// computed: testdata/digest.py reads the TOML with Python's tomllib and writes
// sorted JSON. The example states every default that the file has a key for.
func TestDigest(t *testing.T) {
	m, err := manifest.Load("testdata/digest.toml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/digest.txt")
	if err != nil {
		t.Fatal(err)
	}
	canonical, digest, _ := strings.Cut(strings.TrimSpace(string(want)), "\n")
	if diff := cmp.Diff(canonical, string(m.Canonical())); diff != "" {
		t.Error(diff)
	}
	if d := m.Digest(); hex.EncodeToString(d[:]) != digest {
		t.Errorf("digest %x, want %s", d, digest)
	}
	if sum := sha256.Sum256(m.Canonical()); m.Digest() == sum {
		t.Error("digest is not kept apart from a plain SHA-256")
	}
}

// TestDigestCoversEveryKey: no key of a manifest can change without the
// digest, and what is no key can.
func TestDigestCoversEveryKey(t *testing.T) {
	text, err := os.ReadFile("testdata/digest.toml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse("a.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	same, err := manifest.Parse("b.toml", append([]byte("# another comment\n\n"), text...))
	if err != nil {
		t.Fatal(err)
	}
	if m.Digest() != same.Digest() {
		t.Error("a comment or the file's name changes the digest")
	}
	seen := map[[32]byte]string{m.Digest(): "the manifest"}
	changed := func(name string, change func(m *manifest.Manifest)) {
		other := *m
		other.Items = slices.Clone(m.Items)
		other.Consent.Methods = slices.Clone(m.Consent.Methods)
		change(&other)
		if was, ok := seen[other.Digest()]; ok {
			t.Errorf("a changed %s has the digest of %s", name, was)
		}
		seen[other.Digest()] = name
	}
	changed("id", func(m *manifest.Manifest) { m.ID += "x" })
	changed("purpose", func(m *manifest.Manifest) { m.Purpose.EN += "x" })
	changed("operator", func(m *manifest.Manifest) { m.Operator.Contact.JA += "x" })
	changed("notice", func(m *manifest.Manifest) { m.Operator.Notice.JA += "x" })
	changed("instance", func(m *manifest.Manifest) { m.Application.Instance = applets.BasePackage })
	changed("hash", func(m *manifest.Manifest) { m.LoadFile.SHA256[31] ^= 1 })
	changed("pin", func(m *manifest.Manifest) { m.PIN.Tries++ })
	changed("must-change", func(m *manifest.Manifest) { m.PIN.MustChange = !m.PIN.MustChange })
	changed("item", func(m *manifest.Manifest) { m.Items[1].Required = !m.Items[1].Required })
	changed("items", func(m *manifest.Manifest) { m.Items = m.Items[:1] })
	changed("scheme", func(m *manifest.Manifest) { m.IDScheme.Length++ })
	changed("key", func(m *manifest.Manifest) { m.Keys.Read += "x" })
	changed("term", func(m *manifest.Manifest) { m.Term.Years++ })
	changed("methods", func(m *manifest.Manifest) { slices.Reverse(m.Consent.Methods) })
	changed("recipe", func(m *manifest.Manifest) { m.Custom.Install.Memory++ })
	changed("a part of the recipe", func(m *manifest.Manifest) {
		m.Custom.Personalize.Groups = []recipe.Group{{ID: recipe.Hex{1, 2}, Parts: []recipe.Part{{Value: "id", Tag: 0xC2}}}}
	})
	changed("a step of the recipe", func(m *manifest.Manifest) {
		m.Custom.Read.Steps = []recipe.Step{{SFI: 1, Status: []recipe.Status{0x9000}}}
	})
	changed("retention", func(m *manifest.Manifest) { m.Retention.Days++ })
}

func TestNew(t *testing.T) {
	for _, p := range applets.Base() {
		t.Run(p.Name(), func(t *testing.T) {
			text, err := manifest.New(p.Name(), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = manifest.Parse("new.toml", text)
			var faults manifest.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("blanks are not reported: %v", err)
			}
			blanks := bytes.Count(text, []byte(`"<fill in`))
			if len(faults) != blanks {
				t.Errorf("%d faults for %d blanks", len(faults), blanks)
			}
			for _, f := range faults {
				if f.Rule != manifest.RuleBlank || f.Line == 0 {
					t.Error(f)
				}
			}
			// Filled in, it passes.
			filled := string(text)
			for _, v := range []string{
				"a-service", "名称", "name", "利用目的", "purpose", "private-business", "order-18-2-4", "事業者", "operator",
				"窓口", "counter", "告示第1号", "Notice No. 1",
			} {
				filled = fillBlank(filled, v)
			}
			if p.Traits().MutualAuthentication {
				filled = fillBlank(filled, "a-service-read")
			}
			filled = fillBlank(fillBlank(filled, "監査のため"), "for the audit")
			m, err := manifest.Parse("new.toml", []byte(filled))
			if err != nil {
				t.Fatal(err)
			}
			if aid := m.Application.Instance; aid.Len() != 16 || aid.Bytes()[0]>>4 != 0xF {
				t.Errorf("instance AID %v", aid)
			}
		})
	}
	if _, err := manifest.New("type-z", nil); !errors.Is(err, manifest.RuleProfileUnknown) {
		t.Errorf("unknown profile: %v", err)
	}
}

func fillBlank(text, v string) string {
	before, rest, _ := strings.Cut(text, `"<fill in`)
	_, after, _ := strings.Cut(rest, `>"`)
	return before + `"` + v + `"` + after
}

func TestDrawAID(t *testing.T) {
	// The first 16 bytes would be F6 21 49 83 20 25 7A...: an Individual Number
	// between letters. They must be drawn again.
	source := append([]byte{0xF6, 0x21, 0x49, 0x83, 0x20, 0x25, 0x7A}, bytes.Repeat([]byte{0xAA}, 9)...)
	source = append(source, bytes.Repeat([]byte{0x0B}, 16)...)
	aid, err := manifest.DrawAID(bytes.NewReader(source))
	if err != nil || aid.String() != "FB"+strings.Repeat("0B", 15) {
		t.Errorf("%v, %v", aid, err)
	}
	if _, err := manifest.DrawAID(bytes.NewReader(source[:20])); err == nil {
		t.Error("an AID of a source that ended")
	}
}

// TestTexts: every rule speaks both languages, and both say the same values.
func TestTexts(t *testing.T) {
	if len(manifest.Rules()) < 60 {
		t.Errorf("%d rules", len(manifest.Rules()))
	}
	for _, b := range manifest.Bases() {
		for _, text := range []manifest.Text{b.Article, b.Citation, b.Subject} {
			if text.JA == "" || text.EN == "" {
				t.Errorf("basis %s: a text is missing", b.ID)
			}
		}
		if b.Date.IsZero() || len(b.Covers) == 0 || b.RestsOn != "ordinance" && b.RestsOn != "notice" {
			t.Errorf("basis %s: date %v, covers %v, rests on %q", b.ID, b.Date, b.Covers, b.RestsOn)
		}
	}
	text := read(t, "city-library")
	for _, e := range [][2]string{
		{`"type-a"`, `"common-ap"`}, {"tries       = 3", `tries = "3"`}, {`"act-18-1"`, `"order-18-2-4"`},
		{"min_digits  = 4", "min_digits = 9"}, {"max_length = 20", "max_length = -1"}, {`"sp800-108-cmac"`, `"x"`},
	} {
		text, _ = edit(t, text, e[0], e[1])
	}
	_, err := manifest.Parse("x.toml", []byte(text))
	var faults manifest.Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	for _, f := range faults {
		for _, lang := range []string{"ja", "en"} {
			for _, s := range []string{f.Message(lang), f.Hint(lang)} {
				if s == "" || strings.Contains(s, "%!") {
					t.Errorf("%s in %s: %q", f.Rule, lang, s)
				}
			}
		}
	}
}

func TestSchemaIsJSON(t *testing.T) {
	if !json.Valid(manifest.Schema()) {
		t.Error("schema.json is not JSON")
	}
}
