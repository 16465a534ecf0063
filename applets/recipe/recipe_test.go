package recipe_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/recipe"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/manifest"
)

var aid = iso7816.MustAID("F0465245454152454305")

// script is a card that answers as it is told: a command in hexadecimal, its
// answer; anything else is 6F00.
type script struct {
	answers map[string]string
	sent    []string
}

func (s *script) Transmit(_ context.Context, command []byte) ([]byte, error) {
	c := fmt.Sprintf("%X", command)
	s.sent = append(s.sent, c)
	answer, ok := s.answers[c]
	if !ok {
		answer = "6F00"
	}
	return hex.DecodeString(strings.ReplaceAll(answer, " ", ""))
}

const (
	selectIt = "00A404000AF046524545415245430500"
	fci      = "6F0C840AF04652454541524543059000"
)

// reading is a recipe with these steps and locations, and nothing much else.
func reading(t testing.TB, steps string) applets.Profile {
	t.Helper()
	pin := ""
	if strings.Contains(steps, "'verify'") {
		pin = `{ encrypt = true, parts = [{ value = "pin" }] },`
	}
	p, err := manifest.ParseProfile("x.toml", "x", []byte(`
recipe = 1
[custom]
absent = ["6A88"]
[custom.install]
memory = 1
[custom.personalize]
format = "dgi"
groups = [{ id = "0101", parts = [{ value = "id" }, { value = "tag" }, `+pin+` { value = "issue-number" }] }]
[custom.wipe]
by = "delete"
[custom.observe]
tag = { from = "t", path = ["C1"] }
issue_number = { from = "t", path = ["C2"] }
[[custom.observe.steps]]
name = "t"
command = "get-data"
tag = "5F20"
[custom.read]
`+steps))
	check(t, err)
	return p
}

const (
	wholeFile = "id = { from = 'f' }\n[[custom.read.steps]]\nname = 'f'\ncommand = 'read-binary'\nsfi = 1\n"
	withPIN   = "id = { from = 'f' }\n[[custom.read.steps]]\ncommand = 'verify'\nsfi = 6\nlength = 12\nfill = 'FF'\n" +
		"[[custom.read.steps]]\nname = 'f'\ncommand = 'read-binary'\nsfi = 1\n"
)

func TestRead(t *testing.T) {
	block := hex.EncodeToString(bytes.Repeat([]byte{'a'}, 64))
	verify := "002000860C32353830FFFFFFFFFFFFFFFF"
	for name, x := range map[string]struct {
		steps string
		card  map[string]string
		id    string
		err   error
	}{
		"whole file":         {wholeFile, map[string]string{"00B0810000": "4B31 9000"}, "K1", nil},
		"end of file 6282":   {wholeFile, map[string]string{"00B0810000": "4B31 6282"}, "K1", nil},
		"exact length":       {wholeFile + "length = 2", map[string]string{"00B0810002": "4B31 9000"}, "K1", nil},
		"too short":          {wholeFile + "length = 3", map[string]string{"00B0810003": "4B31 9000"}, "", recipe.ErrNotThere},
		"more than asked":    {wholeFile + "length = 1", map[string]string{"00B0810001": "4B31 9000"}, "", iso7816.ErrProtocol},
		"another status":     {wholeFile + "status = ['9100']", map[string]string{"00B0810000": "4B31 9100"}, "K1", nil},
		"9000 not expected":  {wholeFile + "status = ['9100']", map[string]string{"00B0810000": "4B31 9000"}, "", iso7816.ErrProtocol},
		"refused":            {wholeFile, map[string]string{"00B0810000": "6982"}, "", iso7816.ErrSecurityStatus},
		"holds nothing":      {wholeFile, map[string]string{"00B0810000": "6A88"}, "", applets.ErrNotPersonalized},
		"empty file":         {wholeFile, map[string]string{"00B0810000": "9000"}, "", applets.ErrNotPersonalized},
		"no UTF-8":           {wholeFile, map[string]string{"00B0810000": "FFFE 9000"}, "", applets.ErrMalformedRecord},
		"not selected":       {wholeFile, map[string]string{selectIt: "6A82"}, "", iso7816.ErrNotFound},
		"other application":  {wholeFile, map[string]string{selectIt: "6F0C840AF0465245454152454306 9000"}, "", applets.ErrWrongApplication},
		"no FCI":             {wholeFile, map[string]string{selectIt: "9000"}, "", applets.ErrWrongApplication},
		"class and file":     {"id = { from = 'f' }\n[[custom.read.steps]]\nname = 'f'\ncommand = 'read-binary'\nfile = '001B'\nclass = '80'", map[string]string{"80A4020C02001B": "9000", "80B0000000": "4B31 9000"}, "K1", nil},
		"record":             {"id = { from = 'f' }\n[[custom.read.steps]]\nname = 'f'\ncommand = 'read-record'\nsfi = 3\nrecord = 2", map[string]string{"00B2021C00": "4B31 9000"}, "K1", nil},
		"data object":        {"id = { from = 'f', path = ['DF21'] }\n[[custom.read.steps]]\nname = 'f'\ncommand = 'get-data'\ntag = 'DF21'", map[string]string{"00CADF2100": "DF21024B31 9000"}, "K1", nil},
		"object of one byte": {"id = { from = 'f' }\n[[custom.read.steps]]\nname = 'f'\ncommand = 'get-data'\ntag = '42'", map[string]string{"00CA004200": "4B31 9000"}, "K1", nil},
		"rest of the file":   {strings.Replace(wholeFile, "'f' }", "'f', path = ['E1', 'C1'] }", 1), map[string]string{"00B0810000": "E104C1024B31FFFFFF 9000"}, "K1", nil},
		"rest that is none":  {strings.Replace(wholeFile, "'f' }", "'f', path = ['E1', 'C1'] }", 1), map[string]string{"00B0810000": "E104C1024B31FFFF01 9000"}, "", iso7816.ErrMalformedTLV},
		"not on the path":    {strings.Replace(wholeFile, "'f' }", "'f', path = ['E1', 'C1'] }", 1), map[string]string{"00B0810000": "E104C2024B31 9000"}, "", recipe.ErrNotThere},
		"TLV too long":       {strings.Replace(wholeFile, "'f' }", "'f', path = ['C1'] }", 1), map[string]string{"00B0810000": "C1034B31 9000"}, "", iso7816.ErrMalformedTLV},
		"issue number":       {"issue_number = { from = 'f' }\n" + wholeFile, map[string]string{"00B0810000": "4B3131 9000"}, "", applets.ErrMalformedRecord},
		"expiry":             {"expiry = { from = 'f' }\n" + wholeFile, map[string]string{"00B0810000": "20261301 9000"}, "", applets.ErrMalformedRecord},
		"when not":           {strings.Replace(withPIN, "fill = 'FF'\n", "fill = 'FF'\nwhen = { from = 'select', path = ['6F', '85'], equals = '01' }\n", 1), map[string]string{"00B0810000": "4B31 9000"}, "K1", nil},
		"PIN":                {withPIN, map[string]string{"00B0810000": "4B31 9000", verify: "9000"}, "K1", nil},
		"wrong PIN":          {withPIN, map[string]string{verify: "63C2"}, "", applets.ErrWrongPIN},
		"blocked":            {withPIN, map[string]string{verify: "6983"}, "", applets.ErrPINBlocked},
		"must change":        {withPIN, map[string]string{verify: "6984"}, "", applets.ErrMustChangePIN},
		"VERIFY refused":     {withPIN, map[string]string{verify: "6700"}, "", iso7816.ErrWrongLength},
		"long ID":            {wholeFile, map[string]string{"00B0810000": block + "9000"}, strings.Repeat("a", 64), nil},
		"256 bytes":          {wholeFile, map[string]string{"00B0810000": block + block + block + block + "9000", "00B0010000": "6B00"}, "", applets.ErrMalformedRecord},
	} {
		t.Run(name, func(t *testing.T) {
			card := &script{answers: map[string]string{selectIt: fci}}
			for c, a := range x.card {
				card.answers[c] = a
			}
			got, err := reading(t, x.steps).Read(context.Background(), card, applets.ReadRequest{
				AID: aid, Service: "demo", PIN: func(context.Context) (applets.PIN, error) { return applets.NewPIN("2580") },
			})
			switch {
			case !errors.Is(err, x.err) || x.err == nil && err != nil:
				t.Fatalf("%v, want %v (%s)", err, x.err, card.sent)
			case err == nil && (got.Record.ID != x.id || got.Record.Service != "demo" || got.PINVerified != (name == "PIN")):
				t.Errorf("%+v", got)
			}
		})
	}
}

// endless answers every READ BINARY with as much as was asked for.
type endless struct{ commands int }

func (e *endless) Transmit(_ context.Context, command []byte) ([]byte, error) {
	if e.commands++; command[1] == 0xA4 {
		return hex.DecodeString(fci)
	}
	return append(make([]byte, 256), 0x90, 0x00), nil
}

func TestEndlessFile(t *testing.T) {
	card := &endless{}
	_, err := reading(t, wholeFile).Read(context.Background(), card, applets.ReadRequest{AID: aid})
	if !errors.Is(err, iso7816.ErrProtocol) || card.commands != 1+64 {
		t.Errorf("%v after %d commands", err, card.commands)
	}
}

func TestObserve(t *testing.T) {
	p := reading(t, wholeFile).(applets.Observer)
	tag := "000102030405060708090A0B0C0D0E0F"
	for answer, want := range map[string]error{
		"C110" + tag + "C2020007 9000":     nil,
		"6A88":                             nil,
		"9000":                             nil,
		"C110" + tag + "9000":              applets.ErrMalformedRecord,
		"C10F" + tag[2:] + "C2020007 9000": applets.ErrMalformedObservation,
		"C110" + tag[2:] + "9000":          applets.ErrMalformedObservation,
		"6982":                             iso7816.ErrSecurityStatus,
	} {
		o, err := p.Observe(context.Background(), &script{answers: map[string]string{selectIt: fci, "00CA5F2000": answer}}, aid)
		switch {
		case !errors.Is(err, want) || want == nil && err != nil:
			t.Errorf("%s: %v, want %v", answer, err, want)
		case err == nil && o.Personalized() != (len(answer) > 10), o.Personalized() && (o.IssueNumber != 7 || o.Tag[15] != 15):
			t.Errorf("%s: %+v", answer, o)
		}
	}
}

// Groups: what is packed, split and left out; bytes worked out by hand.
func TestPersonalization(t *testing.T) {
	parse := func(groups string) applets.Profile {
		t.Helper()
		text := `
recipe = 1
[custom.install]
memory = 1
parameters = "0102"
[custom.wipe]
by = "delete"
[custom.observe]
tag = { from = "select" }
issue_number = { from = "select" }
[custom.read]
record = { from = "select" }
all_items = { from = "select" }
[custom.personalize]
` + groups
		if strings.Contains(groups, `"pin"`) {
			text += "\n[[custom.read.steps]]\ncommand = 'verify'\nsfi = 1\nlength = 12\nfill = '00'\n"
		}
		p, err := manifest.ParseProfile("x.toml", "x", []byte(text))
		check(t, err)
		return p
	}
	xor := func(b []byte) ([]byte, error) {
		out := bytes.Clone(b)
		for i := range out {
			out[i] ^= 0xFF
		}
		return out, nil
	}
	content := applets.Content{Record: applets.Record{Service: "s", ID: "K1", IssueNumber: 0x0102}, Tag: [16]byte{0xAA}}
	const tag = "AA000000000000000000000000000000"
	rest := `{ id = "0110", parts = [{ value = "tag" }] }, { id = "0111", parts = [{ value = "record" }] }]`
	const restBytes = "011010" + tag + "01110B" + "C10173C2024B31C3020102"
	pin := content
	pin.PIN = &applets.PINSetting{Reference: newPIN(t, "2580")}
	keep := content
	keep.KeepPIN = true
	items := content
	items.Items = []applets.Item{{Name: "a", Value: "x"}}
	for name, x := range map[string]struct {
		groups  string
		content applets.Content
		want    string
	}{
		"constants":   {`groups = [{ id = "0101", parts = [{ hex = "01" }, { hex = "02 03" }] }, ` + rest, content, "010103010203" + restBytes},
		"tree":        {`groups = [{ id = "0101", parts = [{ tag = "E1", parts = [{ tag = "C1", parts = [{ value = "id" }] }, { tag = "5F20", parts = [{ value = "issue-number" }] }] }] }, ` + rest, content, "01010BE109C1024B315F20020102" + restBytes},
		"filled":      {`groups = [{ id = "0101", parts = [{ value = "id", length = 4, fill = "20" }] }, ` + rest, content, "0101044B312020" + restBytes},
		"encrypted":   {`groups = [{ id = "0101", parts = [{ encrypt = true, parts = [{ value = "id" }] }] }, ` + rest, content, "010110B4CE7FFFFFFFFFFFFFFFFFFFFFFFFFFF" + restBytes},
		"no expiry":   {`groups = [{ id = "0101", parts = [{ hex = "01" }, { value = "expiry" }] }, ` + rest, content, restBytes},
		"item absent": {`groups = [{ id = "0101", parts = [{ value = "id" }, { tag = "C1", parts = [{ item = "a" }] }] }, ` + rest, content, "0101024B31" + restBytes},
		"item":        {`groups = [{ id = "0101", parts = [{ value = "id" }, { tag = "C1", parts = [{ item = "a" }] }] }, ` + rest, items, "0101054B31C10178" + restBytes},
		"PIN":         {`groups = [{ id = "0101", parts = [{ value = "pin-limit" }, { value = "pin-must-change" }, { encrypt = true, parts = [{ value = "pin" }] }] }, { id = "0102", parts = [{ value = "pin-set" }] }, ` + rest, pin, "0101120300CDCAC7CF7FFFFFFFFFFFFFFFFFFFFFFF01020101" + restBytes},
		"PIN kept":    {`groups = [{ id = "0101", parts = [{ value = "pin-limit" }, { encrypt = true, parts = [{ value = "pin" }] }] }, { id = "0102", parts = [{ value = "pin-set" }] }, ` + rest, keep, "01020101" + restBytes},
		"no PIN":      {`groups = [{ id = "0101", parts = [{ value = "pin-limit" }, { encrypt = true, parts = [{ value = "pin" }] }] }, { id = "0102", parts = [{ value = "pin-set" }] }, ` + rest, content, "01020100" + restBytes},
	} {
		blocks, err := parse("format = 'dgi'\n"+x.groups).Personalization(x.content, xor)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fmt.Sprintf("%X", bytes.Join(blocks, nil)); got != x.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, x.want)
		}
	}
	// 300 bytes in one group: 239 in a block, the rest in the next, which the
	// groups that follow join.
	big := `groups = [{ id = "DF21", parts = [{ hex = "` + strings.Repeat("00", 300) + `" }] }, { id = "DF22", parts = [{ value = "tag" }] }, { id = "DF23", parts = [{ value = "record" }] }]`
	for format, head := range map[string]string{"dgi": "DF21FF012C", "ber-tlv": "DF2182012C"} {
		p := parse("format = '" + format + "'\n" + big)
		blocks, err := p.Personalization(content, nil)
		if err != nil || len(blocks) != 2 || len(blocks[0]) != 239 || !strings.HasPrefix(fmt.Sprintf("%X", blocks[0]), head) || len(blocks[1]) != 305-239+3+16+3+11 {
			t.Errorf("%s: %d blocks, %v", format, len(blocks), err)
		}
		f, e := p.(applets.StoreFormatter).StoreFormat()
		if (f == globalplatform.FormatDGI) != (format == "dgi") || e != globalplatform.EncryptionUnknown {
			t.Errorf("%s: %v, %02X", format, f, e)
		}
	}
	// What can't be written is refused.
	p := parse("format = 'dgi'\n" + `groups = [{ id = "0101", parts = [{ value = "id", length = 1, fill = "20" }] }, ` + rest)
	if _, err := p.Personalization(content, nil); !errors.Is(err, applets.ErrContent) {
		t.Errorf("no room: %v", err)
	}
	for name, c := range map[string]applets.Content{"PIN": pin, "items": items, "keys": {Record: content.Record, KeepKeys: true}} {
		if _, err := p.Personalization(c, xor); !errors.Is(err, applets.ErrContent) {
			t.Errorf("%s without a place: %v", name, err)
		}
	}
	if _, err := p.Personalization(applets.Content{}, xor); !errors.Is(err, applets.ErrMalformedRecord) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := p.InstallParameters(applets.InstallSpec{PIN: true}); !errors.Is(err, applets.ErrSpec) {
		t.Errorf("PIN: %v", err)
	}
	if b, err := p.InstallParameters(applets.InstallSpec{}); err != nil || !bytes.Equal(b, []byte{1, 2}) {
		t.Errorf("%X, %v", b, err)
	}
	p = parse("format = 'dgi'\n" + `groups = [{ id = "0101", parts = [{ encrypt = true, padding = "none", parts = [{ value = "id" }] }] }, ` + rest)
	if _, err := p.Personalization(content, xor); !errors.Is(err, applets.ErrContent) {
		t.Errorf("2 bytes without padding: %v", err)
	}
}

// Two recipes have one digest when they say the same.
func TestDigest(t *testing.T) {
	digest := func(text string) [32]byte {
		p, err := manifest.ParseProfile("x.toml", "x", []byte(text))
		check(t, err)
		return p.(applets.Digester).Digest()
	}
	first := digest(commonAP)
	if digest("# a comment\n"+strings.Replace(commonAP, "80 01 01", "800101", 1)) != first {
		t.Error("a comment or a space changes it")
	}
	seen := map[[32]byte]string{first: ""}
	for _, x := range [][2]string{
		{"80 01 01", "80 01 02"}, {"506", "507"}, {`hex = "00"`, `hex = "01"`}, {`"0110"`, `"0111"`}, {`["84"]`, `["83"]`}, {`"A5", "85"`, `"A585"`},
	} {
		text := strings.Replace(commonAP, x[0], x[1], 1)
		if x[1] == `"A585"` {
			text = strings.Replace(commonAP, x[0], `"85", "A5"`, 1)
		}
		d := digest(text)
		if was, ok := seen[d]; ok {
			t.Errorf("%s has the digest of %q", x[1], was)
		}
		seen[d] = x[1]
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := recipe.New("x", recipe.Recipe{})
	var problems recipe.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	var paths []string
	for _, p := range problems {
		paths = append(paths, p.Path)
	}
	want := []string{"install.memory", "personalize.format", "personalize.groups", "wipe.by", "observe.tag.from", "observe.issue_number.from", "read.id.from"}
	if d := cmp.Diff(want, paths); d != "" {
		t.Error(d)
	}
}

// What can never be encoded is refused, and not found out when a card is wiped.
func TestWipeTooLong(t *testing.T) {
	p, err := manifest.ParseProfile("x.toml", "x", []byte(commonAP))
	check(t, err)
	r, _ := recipe.Of(p)
	var parts []recipe.Part
	for range 64 {
		parts = append(parts, recipe.Part{Hex: make([]byte, recipe.MaxHex)})
	}
	r.Wipe.Groups = []recipe.Group{{ID: recipe.Hex{1, 1}, Parts: parts}}
	problems := r.Check()
	if len(problems) != 1 || problems[0].Path != "wipe.groups" || problems[0].Rule != recipe.RuleSize {
		t.Errorf("%v", problems)
	}
}

// FuzzRead: whatever a card answers, a reading ends, and what it accepts has
// an encoding.
func FuzzRead(f *testing.F) {
	p, err := manifest.ParseProfile("x.toml", "x", []byte(commonAP))
	check(f, err)
	m, err := manifest.Load("../../examples/driving-record.toml")
	check(f, err)
	record, _ := m.LookupProfile(nil)
	f.Add([]byte{}, []byte{0xC1, 1, 1}, []byte{0xE1, 0})
	f.Add([]byte("\x6F\x02\xA5\x00"), []byte{0xC1, 1, 0}, []byte("\xE1\x04\xC2\x02K1"))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		card := &fuzzed{answers: [][]byte{a, b, c}}
		for _, p := range []applets.Profile{p, record} {
			got, err := p.Read(context.Background(), card, applets.ReadRequest{AID: aid, Service: "x", WantItems: true,
				PIN: func(context.Context) (applets.PIN, error) { return applets.NewPIN("2580") }})
			if err != nil {
				continue
			}
			if _, err := got.Record.Encode(); err != nil {
				t.Error(err)
			}
		}
	})
}

type fuzzed struct {
	answers [][]byte
	n       int
}

func (c *fuzzed) Transmit(_ context.Context, command []byte) ([]byte, error) {
	if command[1] == 0xA4 && command[2] == 4 && c.n%2 == 0 {
		c.n++
		return hex.DecodeString(fci)
	}
	c.n++
	return append(bytes.Clone(c.answers[c.n%3]), 0x90, 0x00), nil
}
