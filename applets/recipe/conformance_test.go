package recipe_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/appletstest"
	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/applets/recipe"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/manifest"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newPIN(t testing.TB, digits string) applets.PIN {
	t.Helper()
	p, err := applets.NewPIN(digits)
	check(t, err)
	return p
}

func record(id string, number uint16) applets.Record {
	return applets.Record{Service: "demo", ID: id, IssueNumber: number, Expiry: time.Date(2031, 3, 31, 0, 0, 0, 0, time.UTC)}
}

// TestDrivingRecord holds the example's recipe to what every profile must keep.
func TestDrivingRecord(t *testing.T) {
	m, err := manifest.Load("../../examples/driving-record.toml")
	check(t, err)
	p, ok := m.LookupProfile(nil)
	if !ok {
		t.Fatal("no profile")
	}
	content := applets.Content{
		Record: record("DR2045000151", 1), Tag: [16]byte{1, 2},
		Items: []applets.Item{{Name: "class", Value: "GOLD"}, {Name: "conditions", Value: "眼鏡等"}},
		PIN:   &applets.PINSetting{Reference: newPIN(t, "2580"), Limit: 10},
	}
	content.Record.Signature = bytes.Repeat([]byte{0x5A}, 64)
	update := applets.Content{
		Record: record("DR2045000152", 2), Tag: [16]byte{3}, KeepPIN: true,
		Items: []applets.Item{{Name: "class", Value: "BLUE"}},
	}
	appletstest.RunProfile(t, appletstest.ProfileConfig{
		Profile: p, Spec: applets.InstallSpec{PIN: true, ItemsCapacity: 100}, Content: content, Update: update,
		New: func(t testing.TB) appletstest.Card { return emulatedcard.New(t, files.LoadFile(), files.Module) },
	})
}

// commonAP describes a base application from outside: observed through the
// Security Domain, read from the answer to SELECT.
const commonAP = `
recipe = 1
[custom.install]
parameters = "80 01 01"
memory = 506
[custom.personalize]
format = "dgi"
[[custom.personalize.groups]]
id = "0100"
parts = [{ hex = "00" }]
[[custom.personalize.groups]]
id = "0101"
parts = [{ value = "record" }]
[[custom.personalize.groups]]
id = "0110"
parts = [{ value = "tag" }]
[custom.wipe]
by = "groups"
[[custom.wipe.groups]]
id = "0F0F"
parts = [{ hex = "57495045" }]
[custom.observe]
via = "store-data"
request = "0F0000"
tag = { from = "answer", path = ["84"] }
issue_number = { from = "answer", path = ["85"] }
[custom.read]
record = { from = "select", path = ["6F", "A5", "85"] }
`

func TestCommonAPByRecipe(t *testing.T) {
	p, err := manifest.ParseProfile("x.toml", "outside", []byte(commonAP))
	check(t, err)
	content := applets.Content{Record: record("K-1042", 1), Tag: [16]byte{1, 2}}
	update := applets.Content{Record: record("K-1043", 2), Tag: [16]byte{3}}
	appletstest.RunProfile(t, appletstest.ProfileConfig{
		Profile: p, Content: content, Update: update,
		New: func(t testing.TB) appletstest.Card {
			return emulatedcard.New(t, applets.BaseLoadFile(), applets.ModuleCommonAP)
		},
	})
	if _, ok := p.(applets.Observer); ok {
		t.Error("asks by commands of its own")
	}
	// The same bytes as the profile in Go.
	want, _ := applets.Base().Lookup("common-ap")
	for _, c := range []applets.Content{content, update} {
		a, err1 := p.Personalization(c, nil)
		b, err2 := want.Personalization(c, nil)
		if err1 != nil || err2 != nil || !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
			t.Errorf("% X, %v\n% X, %v", a, err1, b, err2)
		}
	}
	if _, ok := recipe.Of(want); ok {
		t.Error("a profile in Go is a recipe")
	}
}

// blob is as much as a recipe can say of files: BER-TLV, content over several
// blocks and several READ BINARYs, records, a PIN file selected by identifier.
const blob = `
recipe = 1
[custom]
absent = ["6985"]
[custom.install]
parameters = "80 01 01 81 02 0800 82 01 01"
memory = 4130
[custom.personalize]
format = "ber-tlv"
[[custom.personalize.groups]]
id = "DF21"
parts = [{ hex = "00" }]
[[custom.personalize.groups]]
id = "DF24"
parts = [{ hex = "0006 06" }, { value = "pin-limit" }, { value = "pin-must-change" }, { encrypt = true, padding = "none", parts = [{ value = "pin", length = 12, fill = "FF" }, { hex = "80000000" }] }]
[[custom.personalize.groups]]
id = "DF22"
parts = [{ hex = "0101 00 01 06" }]
[[custom.personalize.groups]]
id = "DF23"
parts = [{ value = "items" }, { hex = "FFFFFF" }]
[[custom.personalize.groups]]
id = "DF22"
parts = [{ hex = "0102 02 02 06" }]
[[custom.personalize.groups]]
id = "DF23"
parts = [{ value = "id", length = 40, fill = "20" }]
[[custom.personalize.groups]]
id = "DF23"
parts = [{ value = "record" }]
[[custom.personalize.groups]]
id = "DF22"
parts = [{ hex = "0103 03 01 00" }]
[[custom.personalize.groups]]
id = "DF23"
parts = [{ tag = "E0", parts = [{ tag = "C1", parts = [{ value = "tag" }] }, { tag = "C2", parts = [{ value = "issue-number" }] }] }]
[custom.wipe]
by = "delete"
[custom.observe]
tag = { from = "tag", path = ["E0", "C1"] }
issue_number = { from = "tag", path = ["E0", "C2"] }
[[custom.observe.steps]]
name = "tag"
command = "read-binary"
file = "0103"
length = 24
[custom.read]
record = { from = "record" }
all_items = { from = "items", path = [] }
[[custom.read.steps]]
command = "verify"
file = "0006"
length = 12
fill = "FF"
change = true
[[custom.read.steps]]
name = "record"
command = "read-record"
sfi = 2
record = 2
[[custom.read.steps]]
name = "items"
command = "read-binary"
file = "0101"
`

func TestFilesByRecipe(t *testing.T) {
	// What stands after EF.ITEMS would be part of it.
	text := bytes.Replace([]byte(blob), []byte(`, { hex = "FFFFFF" }]`), []byte("]"), 1)
	p, err := manifest.ParseProfile("x.toml", "blob", text)
	check(t, err)
	long := string(bytes.Repeat([]byte("あ"), 80))
	content := applets.Content{
		Record: record("B-1", 1), Tag: [16]byte{1, 2}, PIN: &applets.PINSetting{Reference: newPIN(t, "258025"), Limit: 3},
		Items: []applets.Item{{Name: "one", Value: long}, {Name: "two", Value: long}},
	}
	update := applets.Content{Record: record("B-2", 2), Tag: [16]byte{3}, KeepPIN: true}
	appletstest.RunProfile(t, appletstest.ProfileConfig{
		Profile: p, Spec: applets.InstallSpec{PIN: true, ItemsCapacity: 1000}, Content: content, Update: update,
		New: func(t testing.TB) appletstest.Card { return emulatedcard.New(t, files.LoadFile(), files.Module) },
	})
}
