// Package docs holds tests of what the project says about itself. It has no
// other code.
package docs

import (
	"encoding"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/readerd"
)

var (
	// In prose a target stands in code, so that "make sure" is none.
	namedTarget   = regexp.MustCompile("(?m)(?:`|^[ \\t]*(?:\\$ )?)make ([a-z]+)")
	definedTarget = regexp.MustCompile(`(?m)^([a-z]+):.*## `)
)

func targets(t *testing.T, name string, pattern *regexp.Regexp) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	if os.IsNotExist(err) {
		t.Skipf("there is no %s yet", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return targetsIn(text, pattern)
}

func targetsIn(text []byte, pattern *regexp.Regexp) []string {
	var out []string
	for _, m := range pattern.FindAllSubmatch(text, -1) {
		out = append(out, string(m[1]))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Both READMEs name the same make targets, and those exist.
func TestMakeTargets(t *testing.T) {
	defined := targets(t, "Makefile", definedTarget)
	english := targets(t, "README.md", namedTarget)
	japanese := targets(t, "README.ja.md", namedTarget)
	if len(english) == 0 {
		t.Error("README.md names no make target")
	}
	if diff := cmp.Diff(english, japanese); diff != "" {
		t.Errorf("make targets (-README.md +README.ja.md):\n%s", diff)
	}
	for _, target := range english {
		if !slices.Contains(defined, target) {
			t.Errorf("README.md names make %s, which the Makefile does not have", target)
		}
	}
}

// The tests that docs/security.md names as an answer to a threat exist.
func TestNamedTestsExist(t *testing.T) {
	named := targets(t, filepath.Join("docs", "security.md"), regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`"))
	if len(named) == 0 {
		t.Error("docs/security.md names no test")
	}
	defined := map[string]bool{}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range targetsIn(text, regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9]*)\(`)) {
			defined[name] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range named {
		if !defined[name] {
			t.Errorf("docs/security.md names %s, which does not exist", name)
		}
	}
}

// docs/operations.md names every key of a terminal's configuration.
func TestConfigurationKeys(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range tomlKeys(reflect.TypeFor[readerd.Config](), "") {
		section, leaf, _ := strings.Cut(key, ".")
		short := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(section) + "\\.[^|]*`\\." + leaf + "`[^|]*\\|")
		if !strings.Contains(string(text), "`"+key+"`") && !short.Match(text) {
			t.Errorf("docs/operations.md does not name %s", key)
		}
	}
}

// tomlKeys lists the keys of a table as the documentation writes them:
// "log.format", "service[].manifest".
func tomlKeys(table reflect.Type, prefix string) (keys []string) {
	for f := range table.Fields() {
		inner, name := f.Type, prefix+f.Tag.Get("toml")
		several := inner.Kind() == reflect.Slice
		if several || inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		isTable := inner.Kind() == reflect.Struct && !reflect.PointerTo(inner).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
		if isTable && several {
			name += "[]"
		}
		if isTable {
			keys = append(keys, tomlKeys(inner, name+".")...)
		} else {
			keys = append(keys, name)
		}
	}
	return keys
}

func TestTargetPatterns(t *testing.T) {
	text := []byte("Run `make demo`, or make sure.\n\n```\nmake test\n$ make bench\n```\n`make demo`で始めます。\n")
	if diff := cmp.Diff([]string{"bench", "demo", "test"}, targetsIn(text, namedTarget)); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
	makefile := []byte("all: help ## nothing\nhelp: ## list\n.PHONY: x\nlint:\n\tmake y\n")
	if diff := cmp.Diff([]string{"all", "help"}, targetsIn(makefile, definedTarget)); diff != "" {
		t.Errorf("defined (-want +got):\n%s", diff)
	}
}
