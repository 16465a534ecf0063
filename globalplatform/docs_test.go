package globalplatform_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/globalplatform.md names exists.
func TestDocumentedTests(t *testing.T) {
	text, err := os.ReadFile("../docs/globalplatform.md")
	if err != nil {
		t.Fatal(err)
	}
	directories := map[string]string{"globalplatform": ".", "scp": "scp", "capfile": "capfile", "iso7816": "../iso7816", "emulator": "../emulator", "jcvm": "../emulator/jcvm", "provisioner": "../provisioner", "delegation": "../delegation"}
	source := map[string]string{}
	for name, dir := range directories {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source[name] += string(b)
		}
	}
	named := regexp.MustCompile("`([a-z0-9]+)\\.(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 50 {
		t.Fatalf("%d tests named", len(named))
	}
	for _, n := range named {
		if !strings.Contains(source[n[1]], "\nfunc "+n[2]+"(") {
			t.Errorf("%s does not exist", n[0])
		}
	}
	for i, line := range strings.Split(string(text), "\n") {
		// Who says yes says where.
		if cells := strings.Split(line, "|"); len(cells) > 4 && strings.Contains(line, "| yes |") && !strings.Contains(line, "`") {
			t.Errorf("line %d has no test: %s", i+1, line)
		}
	}
}
