package reader

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
)

// section returns the part of docs/json.md under a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/json.md has no section %s", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

// example returns the example of a section, and the names in the first column
// of its tables.
func example(t *testing.T, heading string) (text string, names []string) {
	t.Helper()
	s := section(t, heading)
	m := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindStringSubmatch(s)
	if m == nil {
		t.Fatalf("section %s has no example", heading)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(s, -1) {
		names = append(names, row[1])
	}
	return m[1], names
}

func TestDocumentedTap(t *testing.T) {
	want, names := example(t, "tap")
	got, err := json.Marshal(Tap{
		TapID: "0f1e2d3c4b5a69788796a5b4c3d2e1f0", Slot: "Front desk 00 00",
		At: time.Date(2026, 4, 1, 14, 59, 0, 250e6, time.FixedZone("JST", 9*60*60)), Duration: 181250 * time.Microsecond,
		Service: "library", Profile: "type-a", Instance: iso7816.MustAID("F0465245454152454102"),
		ID: "0000123", IssueNumber: 2, Expiry: time.Date(2031, 3, 31, 0, 0, 0, 0, time.UTC),
		Items:          []applets.Item{{Name: "branch", Value: "中央"}},
		Authentication: applets.Mutual, Signature: Verified, KeyVersion: 1, PIN: true, Commands: 4, Bytes: 412,
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	members(t, want, names)
}

func TestEmptyTap(t *testing.T) {
	got, err := json.Marshal(&Tap{})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"expiry":null`, `"items":[]`, `"authentication":"none"`, `"signature":"none"`, `"instance":""`} {
		if !strings.Contains(string(got), part) {
			t.Errorf("%s is not in %s", part, got)
		}
	}
}

func TestDocumentedError(t *testing.T) {
	want, names := example(t, "error")
	got, err := json.Marshal(&TapError{
		Slot: "Front desk 00 00", At: time.Date(2026, 4, 1, 5, 59, 7, 0, time.UTC),
		Err: &ServiceError{"library", &applets.PINError{TriesLeft: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	// The first table has the members, the second the codes.
	n := slices.Index(names, "card-removed")
	if n < 0 {
		t.Fatalf("no code in %q", names)
	}
	members(t, want, names[:n])
	codesThere := names[n:]
	all := []string{"refused", "error"}
	for _, c := range codes {
		if !slices.Contains(all, c.code) {
			all = append(all, c.code)
		}
	}
	slices.Sort(all)
	slices.Sort(codesThere)
	if d := cmp.Diff(all, codesThere); d != "" {
		t.Errorf("codes: %s", d)
	}

	refused, err := json.Marshal(&TapError{Err: &iso7816.StatusError{SW: iso7816.ErrConditions, Header: [4]byte{0, 0xA4, 4, 0}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"code":"refused"`, `"status":"6985"`, `"service":null`, `"tries_left":null`} {
		if !strings.Contains(string(refused), part) {
			t.Errorf("%s is not in %s", part, refused)
		}
	}
}

// members compares the members of an object with those that are documented,
// in their order.
func members(t *testing.T, object string, want []string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(object))
	var got []string
	depth, key := 0, false
	for {
		token, err := dec.Token()
		if err != nil {
			break
		}
		switch d, ok := token.(json.Delim); {
		case ok && (d == '{' || d == '['):
			depth, key = depth+1, true
			continue
		case ok:
			depth--
		case depth == 1 && key:
			got, key = append(got, token.(string)), false
			continue
		}
		key = depth == 1
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("members: %s", d)
	}
}
