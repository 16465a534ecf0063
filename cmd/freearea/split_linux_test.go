package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
)

// onSheet is a line of a sheet: name of the key, component, check value.
var onSheet = regexp.MustCompile(`(?m)^  (\S*) +((?:[0-9A-F]{4}\s+)+)check value ([0-9A-F]{6})\r?$`)

// lastSheet is what the sheet that is on the screen now says: of each key its
// component and check value.
func lastSheet(t *testing.T, screen string) (lines [][2]string) {
	t.Helper()
	at := strings.LastIndex(screen, "Component ")
	for _, m := range onSheet.FindAllStringSubmatch(screen[at:], -1) {
		lines = append(lines, [2]string{strings.Join(strings.Fields(m[2]), ""), m[3]})
	}
	if len(lines) == 0 {
		t.Errorf("no sheet on the screen:\n%s", screen)
		return make([][2]string, 3)
	}
	return lines
}

// splitting is the dialogue of `keys split NAME` with a number of custodians,
// each with a component of some keys, and where their sheets are kept.
func splitting(t *testing.T, name string, custodians int, names []string) (script []turn, sheets *[][][2]string) {
	say := func(answer string) func(string) string { return func(string) string { return answer } }
	sheets = new([][][2]string)
	script = []turn{{"Type its name again: ", say(name)}}
	for i := range custodians {
		script = append(script, turn{"Press Enter to see it, once: ", say("")},
			turn{"Enter takes it off the screen. ", func(screen string) string {
				*sheets = append(*sheets, lastSheet(t, screen))
				return ""
			}})
		for j, key := range names {
			script = append(script,
				turn{"hexadecimal digits" + strings.TrimRight(" "+key, " ") + ": ", func(string) string { return (*sheets)[i][j][0] }},
				turn{"Check value on the sheet: ", func(string) string { return (*sheets)[i][j][1] }})
		}
	}
	return script, sheets
}

// A key goes on sheets and comes back from them, in another keystore.
func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		kind       keys.Kind
		algorithm  string
		components int
		names      []string
	}{
		{keys.Read, keys.AES128, 2, []string{"ENC", "MAC"}},
		{keys.SecurityDomain, keys.AES256, 3, []string{"ENC", "MAC", "DEK"}},
		{keys.Ledger, keys.AES192, 2, []string{""}},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			dir, other := newKeystore(t), newKeystore(t)
			s := openKeystore(t, dir)
			e, err := s.Generate(t.Context(), keys.New{Name: "master", Kind: tt.kind, Algorithm: tt.algorithm})
			if err != nil {
				t.Fatal(err)
			}
			script, sheets := splitting(t, "master", tt.components, tt.names)
			count := fmt.Sprint(tt.components)
			screen, err := converse(t, dir, []string{"keys", "split", "master", "--components", count, "--passphrase-file", "passphrase"}, script...)
			if err != nil || len(*sheets) != tt.components || !strings.Contains(screen, "master version 1, check value "+e.Check+": "+count+" sheets") {
				t.Fatalf("%v\n%s", err, screen)
			}
			// Each is shown once, and off the screen before the next person comes.
			const cleared = "\x1b[H\x1b[2J\x1b[3J"
			for i, part := range strings.SplitAfter(screen, cleared) {
				shown := 0
				for _, sheet := range *sheets {
					digits := sheet[0][0]
					shown += strings.Count(strings.ReplaceAll(part, " ", ""), digits[:32])
				}
				if want := min(1, max(0, tt.components-i)); shown != want {
					t.Errorf("%d components between two cleared screens, %d expected:\n%q", shown, want, part)
				}
			}
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var answers [][2]string
			for _, sheet := range *sheets {
				for j, line := range sheet {
					if len(line[0])/2 != map[string]int{keys.AES128: 16, keys.AES192: 24, keys.AES256: 32}[tt.algorithm] || line[1] != check(t, line[0]) {
						t.Errorf("on the sheet %v", line)
					}
					for _, f := range files {
						if data, err := os.ReadFile(filepath.Join(dir, f.Name())); err != nil || strings.Contains(strings.ToUpper(string(data)), line[0][:12]) {
							t.Errorf("%s holds a component, or %v", f.Name(), err)
						}
					}
					answers = append(answers,
						[2]string{"hexadecimal digits" + strings.TrimRight(" "+tt.names[j], " ") + ": ", line[0]},
						[2]string{"Check value on the sheet: ", line[1]})
				}
			}
			screen, err = dialogue(t, other, []string{"keys", "ceremony", "master", "--kind", string(tt.kind), "--algorithm", tt.algorithm, "--components", count, "--check", e.Check, "--passphrase-file", "passphrase"}, answers...)
			if err != nil {
				t.Fatalf("%v\n%s", err, screen)
			}
			if a, b := fingerprint(t, s), fingerprint(t, openKeystore(t, other)); a != b {
				t.Errorf("computes %s, and from the sheets %s", a, b)
			}
		})
	}
}

// fingerprint is something that only the whole key makes.
func fingerprint(t *testing.T, s *file.Store) string {
	t.Helper()
	list, err := s.Entries(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	data, ref := []byte("0123456789"), keys.Ref{Name: "master"}
	if list[0].Kind == keys.Ledger {
		b, err := s.Digest(t.Context(), ref, data)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%X", b)
	}
	set, err := s.SecurityDomainKeys(t.Context(), ref, keys.MethodSP800108, data)
	if list[0].Kind == keys.Read {
		set, err = s.ReadKeys(t.Context(), ref, keys.MethodSP800108, iso7816.MustAID("F0465245454152454101"), data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%X %X %X", set.ENC.Bytes(), set.MAC.Bytes(), set.DEK.Bytes())
}

func openKeystore(t *testing.T, dir string) *file.Store {
	t.Helper()
	s, err := file.Open(t.Context(), filepath.Join(dir, "freearea.keys"), []byte(passphrase), file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSplitRefused(t *testing.T) {
	dir := newKeystore(t)
	s := openKeystore(t, dir)
	for name, kind := range map[string]keys.Kind{"read": keys.Read, "counter": keys.CounterSigning} {
		if _, err := s.Generate(t.Context(), keys.New{Name: name, Kind: kind}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.AddDevelopment(t.Context(), keys.New{Name: "practice", Kind: keys.Read}); err != nil {
		t.Fatal(err)
	}
	split := func(name string, more ...string) []string {
		return append([]string{"keys", "split", name, "--passphrase-file", "passphrase"}, more...)
	}
	wrong, _ := splitting(t, "read", 1, nil)
	mistyped := turn{"hexadecimal digits ENC: ", func(string) string { return components[0][0] }}
	sheet := turn{"Check value on the sheet: ", func(string) string { return check(t, components[0][0]) }}
	for what, tt := range map[string]struct {
		args   []string
		script []turn
		says   string
	}{
		"another name":    {split("read"), []turn{{"Type its name again: ", func(string) string { return "red" }}}, "nothing was shown"},
		"no such key":     {split("red"), nil, "no such key: red"},
		"no such version": {split("read", "--key-version", "2"), nil, "no such key: read version 2"},
		"signing key":     {split("counter"), nil, "counter version 1 is of kind counter-signing"},
		"development key": {split("practice"), nil, "well-known development key"},
		"one component":   {split("read", "--components", "1"), nil, "--components 1: 2 to 9"},
		"in a token":      {split("read", "--keystore", "pkcs11:token=Office?module-path=/nowhere.so"), nil, "read is in the token pkcs11:token=Office?module-path=/nowhere.so, which lets no key out: it can't be split"},
		// With its own check value, but not what was shown.
		"a wrong sheet": {split("read"), append(wrong, mistyped, sheet, mistyped, sheet, mistyped, sheet), "a sheet does not say what was shown"},
	} {
		t.Run(what, func(t *testing.T) {
			screen, err := converse(t, dir, tt.args, tt.script...)
			if err == nil || !strings.Contains(screen, tt.says) {
				t.Errorf("%v\n%s", err, screen)
			}
		})
	}
}

// counterDir is a directory of a test's own with a counter that is ready to issue.
func counterDir(t *testing.T) string {
	t.Helper()
	ready, err := readyCounter()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, err := os.ReadDir(ready)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(ready, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, f.Name()), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "passphrase"), []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// exported is the counter's ledger.
func exported(t *testing.T, dir string) string {
	t.Helper()
	export := exec.Command("freearea", "--passphrase-file", "passphrase", "ledger", "export", "--format", "json")
	export.Dir = dir
	events, err := export.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(events)
}

// byTwo is a command in the names of two operators.
func byTwo(args ...string) []string {
	return append([]string{"--passphrase-file", "passphrase", "--operator-key", "custodian-1.operator",
		"--second", "clerk-7.operator", "--second-passphrase-file", "operator-passphrase"}, args...)
}

// At a counter it takes two operators, and the ledger has it before anything is
// shown.
func TestSplitByTwo(t *testing.T) {
	dir := counterDir(t)
	script, sheets := splitting(t, "city-library-read", 2, []string{"ENC", "MAC"})
	screen, err := converse(t, dir, []string{"--passphrase-file", "passphrase", "--operator-key", "custodian-1.operator", "keys", "split", "city-library-read"}, script...)
	if err == nil || len(*sheets) != 0 || !strings.Contains(screen, "a second operator is needed (key-exchange)") {
		t.Errorf("%v\n%s", err, screen)
	}
	// Whoever goes away when he has seen his component has seen it: it is recorded.
	script, sheets = splitting(t, "city-library-read", 2, []string{"ENC", "MAC"})
	screen, err = converse(t, dir, byTwo("keys", "split", "city-library-read"),
		append(script[:3:3], turn{"hexadecimal digits ENC: ", func(string) string { return "\x03" }})...)
	if err == nil || len(*sheets) != 1 {
		t.Fatalf("%v, %d sheets\n%s", err, len(*sheets), screen)
	}
	events := exported(t, dir)
	want := regexp.MustCompile(`"second":"clerk-7".*"keys":\["city-library-read/1"\],"with":"split: 2 components, check value [0-9A-F]{6}/[0-9A-F]{6}"`)
	if !want.MatchString(events) || strings.Contains(strings.ToUpper(events), (*sheets)[0][0][0][:12]) {
		t.Errorf("%s", events)
	}
}

// The ledger has of a ceremony who held it and which key it made, once the key
// is the expected one.
func TestCeremonyByTwo(t *testing.T) {
	dir := counterDir(t)
	whole := check(t, wholeENC) + "/" + check(t, wholeMAC)
	for _, expected := range []string{"000000/000000", whole} {
		_, err := dialogue(t, dir, byTwo("keys", "ceremony", "joint-read", "--kind", "read", "--components", "3", "--check", expected), custodians(t, 3)...)
		events := exported(t, dir)
		recorded := regexp.MustCompile(`"operator":"custodian-1","second":"clerk-7".*"direction":"import",.*"with":"ceremony: joint-read, 3 components, check value ` + whole + `"`).MatchString(events)
		if done := expected == whole; done != (err == nil) || done != recorded || done != strings.Contains(events, "ceremony: ") {
			t.Errorf("%s expected: error %v, recorded: %v\n%s", expected, err, recorded, events)
		}
		unseen(t, dir, events)
	}
}
