package main_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// TestProgress has the program itself work at a terminal, where a bar shows
// how far a run is, and away from one, where there is none.
func TestProgress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs the command script of util-linux")
	}
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "freearea")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	// The demo leaves a site and a card with two services.
	if out, err := exec.Command(program, "demo", "--keep", dir).CombinedOutput(); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	withdraw := func(service string) []string {
		return []string{program, "--lang", "en", "--site", filepath.Join(dir, "counter.toml"), "--passphrase-file", filepath.Join(dir, "passphrase"),
			"withdraw", filepath.Join(dir, service+".toml"), "--card", "image:" + filepath.Join(dir, "card.img")}
	}
	bar := regexp.MustCompile(`\d/\d (erase the content|delete the application|delete the load file) \d/\d \[=+\]`)

	args := withdraw("office-pass")
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil || bar.Match(out) || !strings.Contains(string(out), "withdrawn: office-pass") {
		t.Errorf("away from a terminal: %v\n%s", err, out)
	}
	out, err = exec.Command("script", "-qec", "stty cols 100 rows 30; "+strings.Join(withdraw("shopping-street"), " "), "/dev/null").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "withdrawn: shopping-street") {
		t.Fatalf("at a terminal: %v\n%s", err, out)
	}
	seen := map[string]bool{}
	for _, m := range bar.FindAllStringSubmatch(string(out), -1) {
		seen[m[1]] = true
	}
	if len(seen) != 3 {
		t.Errorf("bars of %v, want one for each of the three steps\n%s", seen, out)
	}
}
