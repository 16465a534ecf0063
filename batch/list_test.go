package batch_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freearea/freearea/batch"
	"github.com/freearea/freearea/ledger"
)

// "中央館" in Shift_JIS, by Python's codecs: "中央館".encode("cp932").
const chuokan = "\x92\x86\x89\x9b\x8a\xd9"

const libraryHeader = "id,consent,pin-file,item:category,item:home-branch,card-expiry,cin,reference\r\n"

func TestParse(t *testing.T) {
	want := []batch.Row{
		{Line: 2, ID: "2045000151", ConsentRef: "a.json", PINFile: "a.pin", CIN: "0A1B", Reference: "K-1",
			Items: map[string]string{"category": "ADULT", "home-branch": "中央館"}, CardExpiry: time.Date(2031, 5, 20, 0, 0, 0, 0, japan)},
		{Line: 3, ID: "2045000169", ConsentRef: "00112233445566778899aabbccddeeff", PINFile: "b, c.pin", Items: map[string]string{"category": "CHILD"}},
	}
	text := libraryHeader + "2045000151,a.json,a.pin,ADULT,%s,2031-05-20,0a1b,K-1\r\n" +
		"2045000169,00112233445566778899aabbccddeeff,\"b, c.pin\",CHILD,,,,\r\n"
	for _, test := range []struct {
		name, data string
		forced     batch.Encoding
		found      batch.Encoding
	}{
		{"UTF-8", fmt.Sprintf(text, "中央館"), "", batch.UTF8},
		{"with a mark", "\ufeff" + fmt.Sprintf(text, "中央館"), "", batch.UTF8},
		{"carriage returns", strings.ReplaceAll(fmt.Sprintf(text, "中央館"), "\r\n", "\r"), "", batch.UTF8},
		{"line feeds", strings.ReplaceAll(fmt.Sprintf(text, "中央館"), "\r\n", "\n"), "", batch.UTF8},
		{"Shift_JIS", fmt.Sprintf(text, chuokan), "", batch.ShiftJIS},
		{"Shift_JIS, forced", fmt.Sprintf(text, chuokan), batch.ShiftJIS, batch.ShiftJIS},
		{"UTF-8, forced", fmt.Sprintf(text, "中央館"), batch.UTF8, batch.UTF8},
	} {
		t.Run(test.name, func(t *testing.T) {
			list, err := batch.Parse("x.csv", []byte(test.data), library, test.forced)
			check(t, err)
			if diff := cmp.Diff(want, list.Rows, cmpopts.EquateApproxTime(0)); diff != "" || list.Encoding != test.found {
				t.Errorf("encoding %s, rows (-want +got):\n%s", list.Encoding, diff)
			}
		})
	}
}

// Every fault has its line and its column.
func TestFaults(t *testing.T) {
	row := func(cells string) string { return libraryHeader + cells + "\r\n" }
	for _, test := range []struct{ name, data, want string }{
		{"nothing", "", "x.csv: there is no row"},
		{"no rows", libraryHeader, "x.csv: there is no row"},
		{"neither encoding", row("2045000151,a.json,p,ADULT,中\xff,,,"), "x.csv:2:29: the text is neither UTF-8 nor Shift_JIS"},
		{"either encoding", row("2045000151,a.json,p,ADULT,\xc3\xb1,,,"), "x.csv: the text could be UTF-8 or Shift_JIS"},
		{"columns", "id,氏名,id,item:category,pin-file,pin\n", "x.csv:1: consent: a column is missing\nx.csv:1:4: the column is unknown\nx.csv:1:7: id: the column stands there twice\nx.csv:1:33: the column is unknown"},
		{"cells", row("2045000151,a.json"), "x.csv:2: the row has another number of cells than the header"},
		{"quotes", row("2045000151,a\"b.json,p,ADULT,,,,"), "x.csv:2:13: the quotes are wrong"},
		{"quotes, then another row", row("2045000151,a\"b.json,p,ADULT,,,,\r\n1,a.json"), "x.csv:2:13: the quotes are wrong\nx.csv:3: the row has another number of cells than the header"},
		{"a quote without end", row("2045000151,\"a.json,p,ADULT,,,,"), "x.csv:2:32: the quotes are wrong"},
		{"a quote that swallows rows", row("2045000151,a.json,\"p,ADULT,,,,\r\n2045000169,b.json,p,ADULT,,,,\r\n1,c.json\r\n2045000177,d.json,\"p\",ADULT,,2031,,"),
			"x.csv:2: a quote is opened and not closed\nx.csv:4: the row has another number of cells than the header\nx.csv:5:30: card-expiry: a date is YYYY-MM-DD"},
		{"a quote that swallows all", row("2045000151,a.json,\"p,ADULT,,,,\r\n2045000169,b.json,p,ADULT,,,,\r\n1,c.json"),
			"x.csv:2: a quote is opened and not closed\nx.csv:4: the row has another number of cells than the header"},
		{"wide characters before", row("2045000151,a.json,p,ADULT,中央館,2031-02-29,,"), "x.csv:2:31: card-expiry: a date is YYYY-MM-DD"},
		{"line break", row("2045000151,\"a\n.json\",p,ADULT,,,,"), "x.csv:2:12: consent: the cell has control characters"},
		{"ideographic space", row("2045000151,a.json,p,ADULT,\u3000中央館,,,"), "x.csv:2:27: item:home-branch: the cell begins or ends with a space"},
		{"empty cells", row(",,,,,,,"), "x.csv:2:2: consent: the cell is empty\nx.csv:2:3: pin-file: the cell is empty\nx.csv:2:1: id: the ID does not fit"},
		{"an Individual Number", row("2045000151,a.json,p,ADULT,123456789018,,,1234-5678-9018"), "x.csv:2:27: item:home-branch: holds an Individual Number\nx.csv:2:42: reference: the cell has the form of an Individual Number"},
		{"a CIN", row("2045000151,a.json,p,ADULT,,,12G4,"), "x.csv:2:29: cin: a CIN is 4 to 64 hexadecimal digits"},
		{"a short CIN", row("2045000151,a.json,p,ADULT,,,123,"), "x.csv:2:29: cin: a CIN is"},
		{"the same ID", row("2045000151,a.json,p,ADULT,,,,\r\n2045000151,b.json,p,ADULT,,,,"), "x.csv:3:1: id: the ID stands in another row too (line 2)"},
		{"the same card", row("2045000151,a.json,p,ADULT,,,00112233,\r\n2045000177,c.json,p,ADULT,,,AAAA,\r\n2045000169,b.json,p,ADULT,,,2233,"), "x.csv:4:29: cin: another row's CIN ends alike (line 2)"},
		{"too long", row("2045000151,a.json,p,ADULT,,,," + strings.Repeat("x", 65)), "x.csv:2:30: reference: the cell is too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := batch.Parse("x.csv", []byte(test.data), library, "")
			var faults batch.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error %v, want faults", err)
			}
			for want := range strings.SplitSeq(test.want, "\n") {
				if !strings.Contains(err.Error(), want) && !(strings.Contains(want, "holds an") && strings.Contains(err.Error(), want[:30])) {
					t.Errorf("faults:\n%v\nwant among them %q", err, want)
				}
			}
			if n := len(strings.Split(test.want, "\n")); len(faults) < n || test.name != "empty cells" && len(faults) != n {
				t.Errorf("%d faults, want %d:\n%v", len(faults), n, err)
			}
			if strings.Contains(err.Error(), "9018") {
				t.Errorf("a value is repeated: %v", err)
			}
		})
	}
	drawn := "id,consent,pin-file\nx,y,z\n"
	if _, err := batch.Parse("x.csv", []byte(drawn), points, ""); err == nil ||
		!strings.Contains(err.Error(), "x.csv:1:1: id: the service's IDs are drawn") || !strings.Contains(err.Error(), "x.csv:1:12: pin-file: the service has no PIN") {
		t.Errorf("an ID and a PIN where there are none: %v", err)
	}
	if _, err := batch.Parse("x.csv", make([]byte, batch.MaxSize+1), points, ""); err == nil {
		t.Error("a list of more than 16 MiB is accepted")
	}
	// Rows count whatever is in them, so that faults are bounded too.
	long := "consent\n" + strings.Repeat("a,b\n", batch.MaxRows+10)
	_, err := batch.Parse("x.csv", []byte(long), points, "")
	var faults batch.Faults
	if !errors.As(err, &faults) || len(faults) != batch.MaxRows+1 || faults[0].Problem != batch.ProblemSize {
		t.Errorf("%d faults in a list of more than %d rows", len(faults), batch.MaxRows)
	}
}

// A list that is at fault in itself is held against its files and the ledger
// all the same: everything is told at once.
func TestAllFaultsAtOnce(t *testing.T) {
	o := newOffice(t, 0)
	o.write("pin", "2580\n")
	text := "id,consent,pin-file,item:category,card-expiry\n" +
		"2045000151," + o.consent("good.json", library, "category") + ",pin,,2031-05-20\n" +
		"2045000152,none.json,none,ADULT,2031-05-20\n" +
		"2045000169," + o.consent("bad.json", library, "category") + ",none,ADULT,2031/05/20\n" +
		"2045000177,good.json,pin,ADULT,2031-05-20\n" +
		"2045000185," + o.consent("items.json", library, "category", "home-branch") + ",pin,ADULT,2031-05-20\n"
	list, err := batch.Parse("x.csv", []byte(text), library, "")
	if err == nil || list == nil {
		t.Fatalf("list %v, error %v", list, err)
	}
	_, err = batch.New(t.Context(), list, o.options(library, o.book))
	var faults batch.Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	var places []string
	for _, f := range faults {
		places = append(places, f.Place())
	}
	want := []string{
		"x.csv:2:26: item:category", "x.csv:3:1: id", "x.csv:3:12: consent", "x.csv:4:21: pin-file", "x.csv:4:32: card-expiry", "x.csv:5:12: consent", "x.csv:6:12: consent",
	}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Errorf("places of faults (-want +got):\n%s\n%v", diff, err)
	}
}

// What needs the list's files and the ledger: all faults at once, and nothing
// is written.
func TestNewFaults(t *testing.T) {
	o := newOffice(t, 0)
	o.write("pin", "2580\n")
	o.write("letters", "abcd\n")
	taken := sign(t, library, start, "category")
	actor := ledger.Actor{Operator: "clerk", Counter: "window-1"}
	x := o.options(library, o.book)
	p := x.Provisioner
	p.Ledger = o.book
	check(t, p.RecordConsent(t.Context(), taken))
	_, _, err := o.book.ReserveID(t.Context(), ledger.Reservation{Actor: actor, Service: library.ID, Consent: taken.Record.ID, ID: "2045000185"})
	check(t, err)
	text := "id,consent,pin-file,item:category,card-expiry\n" +
		"2045000151," + o.consent("good.json", library, "category") + ",pin,ADULT,2031-05-20\n" +
		"2045000169," + o.consent("bad.json", library, "category") + ",letters,ADULT,2026-03-31\n" +
		"2045000177," + o.consent("items.json", library, "category", "home-branch") + ",none,ADULT,2031-05-20\n" +
		"2045000185," + o.consent("same-id.json", library, "category") + ",pin,ADULT,\n"
	list, err := batch.Parse("x.csv", []byte(text), library, "")
	check(t, err)
	_, err = batch.New(t.Context(), list, x)
	for _, want := range []string{
		"x.csv:3:21: pin-file: ", "x.csv:4:23: pin-file: open ", "x.csv:5:35: card-expiry: ", "x.csv:5:1: id: the ID is taken, under another consent",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("faults:\n%v\nwant among them %q", err, want)
		}
	}
	n := 0 // the operator, the consent and the ID are there from before
	for _, err := range o.book.Events(t.Context(), ledger.Filter{}) {
		check(t, err)
		n++
	}
	if n != 3 {
		t.Errorf("%d events in the ledger, 3 were there before", n)
	}
}

// The reports say what came of each row, in both forms alike, and no PIN; a
// spreadsheet can't take what stands in them for a formula.
func TestReport(t *testing.T) {
	const pin = "73195284"
	o := newOffice(t, 1)
	o.write("pin", pin+"\n")
	text := "id,consent,pin-file,item:category,card-expiry,reference\n" +
		"2045000151," + o.consent("a.json", library, "category") + ",pin,ADULT,2031-05-20,=HYPERLINK(1)\n" +
		"2045000169," + o.consent("b.json", library, "category") + ",gone,ADULT,2031-05-20,K-2\n"
	o.write("gone", pin+"\n")
	r := o.begin(text, func(x *batch.Options) {
		x.Manifest = library
		x.Source = o.slots
	})
	check(t, os.Remove(filepath.Join(o.dir, "gone")))
	for range 2 {
		o.insert(0, o.card())
		e := r.wait(batch.Done, batch.Refused)
		if line, err := json.Marshal(e); err != nil || bytes.Contains(line, []byte(pin)) {
			t.Errorf("event %s: %v", line, err)
		}
		o.remove(0)
	}
	report := r.end()
	if got := states(report); got != "issued, refused row" {
		t.Fatal(got)
	}
	var table bytes.Buffer
	check(t, report.WriteCSV(&table, func(err error) string { return err.Error() }))
	object, err := json.Marshal(report)
	check(t, err)
	for _, data := range [][]byte{table.Bytes(), object} {
		if bytes.Contains(data, []byte(pin)) {
			t.Errorf("the PIN is in the report:\n%s", data)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(table.String(), "\ufeff"))).ReadAll()
	check(t, err)
	if len(rows) != 3 || rows[1][1] != "'=HYPERLINK(1)" || rows[1][2] != "issued" || rows[1][3] != "2045000151" || rows[2][2] != "refused" || rows[2][13] == "" {
		t.Errorf("table %q", rows)
	}
	var back struct {
		Totals struct{ Rows, Issued, Refused, Open int }
		Rows   []struct {
			State, Code string
			ID          *string
		}
	}
	check(t, json.Unmarshal(object, &back))
	if back.Totals.Rows != 2 || back.Totals.Issued != 1 || back.Totals.Refused != 1 || back.Rows[1].Code != "row" || back.Rows[1].ID != nil || *back.Rows[0].ID != "2045000151" {
		t.Errorf("object %s", object)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(libraryHeader + "2045000151,a.json,p,ADULT,中央館,2031-05-20,0A1B,K\r\n"))
	f.Add([]byte("\ufeff" + libraryHeader + "2045000151,a.json,\"p\",ADULT,,,,\n\n2045000169,b.json,p,CHILD,,,,\n"))
	f.Add([]byte(libraryHeader + "2045000151,a.json,p,ADULT," + chuokan + ",,,\r\n"))
	f.Add([]byte("consent\n\"a\n\"b,\n"))
	f.Add([]byte("id,consent\n\xff,\x81"))
	f.Add([]byte(libraryHeader + "2045000151,a.json,\"p,ADULT,,,,\r\n2045000169,b.json,\"p\",ADULT,,,,\r\n\"\"\"\r\n"))
	f.Add([]byte("consent\ra\rb\r"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := batch.Parse("x", data, library, "")
		if err != nil {
			var faults batch.Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("error %v", err)
			}
			lines := max(bytes.Count(data, []byte("\n")), bytes.Count(data, []byte("\r"))) + 1
			for _, f := range faults {
				if f.Line > lines+1 || f.Column < 0 || f.Error() == "" {
					t.Errorf("fault %+v in %d lines", f, lines)
				}
			}
			return
		}
		again, err := batch.Parse("x", data, library, list.Encoding)
		if err != nil || !reflect.DeepEqual(again, list) {
			t.Errorf("with its own encoding the list is another one: %v", err)
		}
		for _, r := range list.Rows {
			if r.ConsentRef == "" || library.CheckID(r.ID) != nil || r.Line < 2 {
				t.Errorf("row %+v", r)
			}
		}
	})
}
