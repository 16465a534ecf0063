package staff_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/freearea/freearea/staff"
)

// TestTableInDocs holds docs/security.md against the table.
func TestTableInDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	list := func(roles []staff.Role) string {
		var names []string
		for _, r := range roles {
			names = append(names, string(r))
		}
		return strings.Join(names, ", ")
	}
	var want strings.Builder
	for _, r := range staff.Rules() {
		fmt.Fprintf(&want, "| %s | %s | %s |\n", r.Means, list(r.By), list(r.Second))
	}
	table := strings.ReplaceAll(want.String(), "|  |", "| |")
	if !strings.Contains(string(text), table) {
		t.Errorf("docs/security.md does not have the table\n%s", table)
	}
}
