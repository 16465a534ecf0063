// Package docs holds tests of what the project says about itself. It has no
// other code.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
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
