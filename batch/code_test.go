package batch

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestCodes holds the codes of refusals to the table in docs/json.md.
func TestCodes(t *testing.T) {
	doc, err := os.ReadFile("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "| code | what helps |\n")
	if !ok {
		t.Fatal("no table of codes")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for _, c := range codes {
		if !strings.Contains(table, "`"+c.code+"`") {
			t.Errorf("docs/json.md does not have %s", c.code)
		}
		if got := Code(fmt.Errorf("wrapped: %w", c.err)); got != c.code {
			t.Errorf("%v has the code %s, not %s", c.err, got, c.code)
		}
	}
}
