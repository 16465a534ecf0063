package pcsc_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testBatch issues to fourteen cards in fourteen readers of one pcscd, from a
// list, in one run of the program.
func testBatch(t *testing.T, program string) {
	const n = 14
	d, s := start(t, n)
	o := newOffice(t, program)
	points := o.services[0]
	o.makeKeys(points)
	expiry := time.Now().AddDate(9, 0, 0).Format(time.DateOnly)
	list := "reference,consent,card-expiry\r\n"
	for i, slot := range d.Readers {
		image := fmt.Sprintf("card-%02d.img", i)
		o.counter.run("emulate", "new", image)
		t.Cleanup(slot.Relay(o.emulate(t, image).addr))
		reference := fmt.Sprintf("P-%03d", i)
		list += fmt.Sprintf("%s,%s,%s\r\n", reference, o.consent(points, reference), expiry)
	}
	for _, slot := range d.Readers { // together: the daemon looks at each now and then
		settle(t, s, slot)
	}
	if err := os.WriteFile(filepath.Join(o.dir, "list.csv"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(o.counter.run("issue-batch", points.file, "list.csv", "--report", "report", "--json")), "\n")
	var end struct {
		Type string `json:"type"`
		Rows []struct {
			State string `json:"state"`
			ID    string `json:"id"`
			Slot  string `json:"slot"`
		} `json:"rows"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &end); err != nil || end.Type != "batch" || len(end.Rows) != n {
		t.Fatalf("the last line is %s (%v)", lines[len(lines)-1], err)
	}
	seen := map[string]bool{}
	for _, row := range end.Rows {
		if row.State != "issued" || row.ID == "" || seen[row.ID] || seen[row.Slot] {
			t.Errorf("row %+v", row)
		}
		seen[row.ID], seen[row.Slot] = true, true
	}
	// What the ledger says of a slot's card, the card says too.
	o.equipTerminal(points)
	first, last := end.Rows[0], end.Rows[n-1]
	for _, row := range []struct{ slot, id string }{{first.Slot, first.ID}, {last.Slot, last.ID}} {
		if got := as[tap](t, o.terminal.run(points.readArgs(row.slot)...)); got.ID != row.id {
			t.Errorf("%s: ID %s, %s was issued", row.slot, got.ID, row.id)
		}
	}
}
