package batch

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/japanese"

	"github.com/freearea/freearea/manifest"
)

// Columns of a list. An item's column has the name of the item after
// ItemPrefix. They may stand in any order.
const (
	ColumnConsent    = "consent"     // file of a signed record, or id of one in the ledger
	ColumnID         = "id"          // where the service's IDs are given
	ColumnCIN        = "cin"         // of the row's card, or its last digits; hexadecimal
	ColumnCardExpiry = "card-expiry" // printed on the card, YYYY-MM-DD
	ColumnPINFile    = "pin-file"    // where the service has a PIN
	ColumnReference  = "reference"   // the office's own, for reports; never a name
	ItemPrefix       = "item:"
)

// Limits of a list.
const (
	MaxSize      = 16 << 20 // bytes
	MaxRows      = 100_000
	maxCell      = 4096 // bytes
	maxReference = 64   // bytes
	minCIN       = 4    // digits: fewer would name many cards
	maxCIN       = 64   // digits
)

// Encoding is how a list's text is encoded.
type Encoding string

// Encodings of lists.
const (
	UTF8     Encoding = "utf-8"     // with or without a byte order mark
	ShiftJIS Encoding = "shift_jis" // as Windows writes it (code page 932)
)

// List is a list of cards to be issued, as it stands in its file.
type List struct {
	Name     string
	Encoding Encoding // that was found, or forced
	SHA256   [sha256.Size]byte
	Rows     []Row

	cells  []cells // where each row's cells are
	faulty []bool  // whether a row's cells have faults
	faults Faults  // all that were found without the list's files and the ledger
}

// Row is one row: what one holder gets.
type Row struct {
	Line       int
	Reference  string
	CIN        string // upper-case digits, "" where any card will do
	ConsentRef string // as it stands in the list
	PINFile    string // as it stands in the list
	CardExpiry time.Time
	ID         string
	Items      map[string]string
}

// place is a line and a column of the list's text, in characters, both from 1.
type place struct{ line, column int }

// cells are the places of one row's cells by the names of their columns.
type cells map[string]place

// Problem says what is wrong with a list, where no other package has an error
// for it.
type Problem string

// Problems of lists.
const (
	ProblemSize        Problem = "the list is longer than 16 MiB or 100,000 rows"
	ProblemEncoding    Problem = "the text is neither UTF-8 nor Shift_JIS"
	ProblemNotEncoding Problem = "the text is not in the encoding that was asked for"
	ProblemAmbiguous   Problem = "the text could be UTF-8 or Shift_JIS"
	ProblemEmpty       Problem = "there is no row"
	ProblemQuotes      Problem = "the quotes are wrong"
	ProblemOpenQuote   Problem = "a quote is opened and not closed"
	ProblemCells       Problem = "the row has another number of cells than the header"
	ProblemColumn      Problem = "the column is unknown"
	ProblemTwice       Problem = "the column stands there twice"
	ProblemNoColumn    Problem = "a column is missing"
	ProblemDrawnID     Problem = "the service's IDs are drawn, not given"
	ProblemNoPIN       Problem = "the service has no PIN"
	ProblemControl     Problem = "the cell has control characters"
	ProblemSpace       Problem = "the cell begins or ends with a space"
	ProblemLong        Problem = "the cell is too long"
	ProblemMissing     Problem = "the cell is empty"
	ProblemNumber      Problem = "the cell has the form of an Individual Number"
	ProblemCIN         Problem = "a CIN is 4 to 64 hexadecimal digits"
	ProblemDate        Problem = "a date is YYYY-MM-DD"
	ProblemSameID      Problem = "the ID stands in another row too"
	ProblemSameCIN     Problem = "another row's CIN ends alike"
	ProblemSameConsent Problem = "the consent stands in another row too"
	ProblemIDInUse     Problem = "the ID is taken, under another consent"
)

// Fault is one fault of a list.
type Fault struct {
	List    string
	Line    int    // from 1; 0 for the list as a whole
	Column  int    // in characters from 1; 0 for the line as a whole
	Name    string // of the column; "" outside the columns
	Problem Problem
	Other   int   // the other row's line, where there is one
	Err     error // in place of Problem
}

// Place is list:line:column, as far as they are known, and the column's name.
func (f Fault) Place() string {
	s := f.List
	for _, n := range []int{f.Line, f.Column} {
		if n > 0 {
			s += fmt.Sprintf(":%d", n)
		}
	}
	if f.Name != "" {
		s += ": " + f.Name
	}
	return s
}

// Error is the place and what is wrong. No value of a cell is repeated.
func (f Fault) Error() string {
	text := string(f.Problem)
	if f.Err != nil {
		text = f.Err.Error()
	}
	if f.Other > 0 {
		text += fmt.Sprintf(" (line %d)", f.Other)
	}
	return f.Place() + ": " + text
}

// Unwrap returns the other package's error.
func (f Fault) Unwrap() error { return f.Err }

// Faults are all the faults of a list in the order of their places; as an
// error never empty.
type Faults []Fault

// Error lists them, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults.
func (f Faults) Unwrap() []error {
	all := make([]error, len(f))
	for i := range f {
		all[i] = f[i]
	}
	return all
}

// sorted brings faults into the order of their places.
func (f Faults) sorted() Faults {
	slices.SortStableFunc(f, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return f
}

// parser reads one list.
type parser struct {
	list   *List
	m      *manifest.Manifest
	text   string
	starts []int // of the text's lines, and its end
	header []string
	faults Faults
}

func (p *parser) fault(at place, name string, problem Problem) *Fault {
	p.faults = append(p.faults, Fault{List: p.list.Name, Line: at.line, Column: at.column, Name: name, Problem: problem})
	return &p.faults[len(p.faults)-1]
}

// Parse reads a list for a service as far as that can be done without its
// files and the ledger. A forced encoding of "" is found out: a byte order mark
// is UTF-8's, text that is valid UTF-8 is taken for it, other text must be valid
// Shift_JIS; what may be either (half-width kana in pairs, letters with accents)
// has to be forced. The error is [Faults] with every fault; where rows could be
// read, the list is returned with it: [New] adds the faults that the list's files
// and the ledger show.
func Parse(name string, data []byte, m *manifest.Manifest, forced Encoding) (*List, error) {
	p := &parser{list: &List{Name: name, SHA256: sha256.Sum256(data)}, m: m}
	if len(data) > MaxSize {
		p.fault(place{}, "", ProblemSize)
		return nil, p.faults
	}
	text, encoding, at, problem := decode(data, forced)
	if problem != "" {
		p.fault(at, "", problem)
		return nil, p.faults
	}
	p.list.Encoding = encoding
	if !strings.Contains(text, "\n") {
		text = strings.ReplaceAll(text, "\r", "\n") // as spreadsheets once ended lines
	}
	p.text = text
	for start := 0; start < len(text); {
		p.starts = append(p.starts, start)
		n := strings.IndexByte(text[start:], '\n') + 1
		if n == 0 {
			break
		}
		start += n
	}
	p.starts = append(p.starts, len(text))
	p.read()
	p.duplicates()
	if p.list.faults = p.faults.sorted(); len(p.faults) == 0 {
		return p.list, nil
	}
	if len(p.list.Rows) == 0 {
		return nil, p.faults
	}
	return p.list, p.faults
}

// decode makes UTF-8 of a list.
func decode(data []byte, forced Encoding) (text string, found Encoding, at place, problem Problem) {
	marked, hasMark := bytes.CutPrefix(data, []byte("\ufeff"))
	fromUTF8, badUTF8 := invalid(marked, func(line []byte) int {
		for i := 0; i < len(line); {
			r, n := utf8.DecodeRune(line[i:])
			if r == utf8.RuneError && n == 1 {
				return utf8.RuneCount(line[:i])
			}
			i += n
		}
		return -1
	})
	fromShiftJIS, badShiftJIS := invalid(data, func(line []byte) int {
		decoded := fromJapanese(line)
		if i := strings.IndexRune(decoded, utf8.RuneError); i >= 0 {
			return utf8.RuneCountInString(decoded[:i])
		}
		return -1
	})
	switch {
	case forced == UTF8 && badUTF8:
		return "", "", fromUTF8, ProblemNotEncoding
	case forced == ShiftJIS && badShiftJIS:
		return "", "", fromShiftJIS, ProblemNotEncoding
	case forced == ShiftJIS:
		return fromJapanese(data), ShiftJIS, place{}, ""
	case forced == "" && badUTF8 && badShiftJIS:
		return "", "", fromShiftJIS, ProblemEncoding
	case forced == "" && badUTF8:
		return fromJapanese(data), ShiftJIS, place{}, ""
	case forced == "" && !hasMark && !badShiftJIS && onlyPairs(marked):
		return "", "", place{}, ProblemAmbiguous
	}
	return string(marked), UTF8, place{}, ""
}

// invalid finds the first line in which bad finds a character, counted from 0,
// that is none.
func invalid(data []byte, bad func(line []byte) int) (place, bool) {
	n := 0
	for line := range bytes.Lines(data) { // a line feed is no part of a longer character, in either encoding
		n++
		if i := bad(line); i >= 0 {
			return place{n, i + 1}, true
		}
	}
	return place{}, false
}

// fromJapanese decodes Shift_JIS; what is none becomes U+FFFD.
func fromJapanese(data []byte) string {
	out, err := japanese.ShiftJIS.NewDecoder().Bytes(data)
	if err != nil {
		return string(utf8.RuneError)
	}
	return string(out)
}

// onlyPairs reports whether all characters of valid UTF-8 beyond ASCII have two
// bytes, and there are some: no kana or kanji has, and such pairs can be
// half-width kana in Shift_JIS.
func onlyPairs(data []byte) bool {
	some := false
	for _, r := range string(data) {
		if r >= utf8.RuneSelf {
			if utf8.RuneLen(r) != 2 {
				return false
			}
			some = true
		}
	}
	return some
}

// read takes the header and every row.
func (p *parser) read() {
	in, before := p.from(0)
	for n := 0; ; n++ {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if n > MaxRows { // and the header
			p.fault(place{}, "", ProblemSize)
			return
		}
		if wrong := new(csv.ParseError); errors.As(err, &wrong) {
			if wrong.StartLine == wrong.Line {
				p.fault(p.at(before+wrong.Line, wrong.Column), "", ProblemQuotes)
			} else {
				// It swallowed rows, to the next quote or to the end: no cell has
				// a line break, so that they are rows all the same.
				p.fault(place{line: before + wrong.StartLine}, "", ProblemOpenQuote)
				in, before = p.from(before + wrong.StartLine)
			}
			if n == 0 {
				return
			}
			continue
		}
		where := make([]place, len(record))
		for i := range record {
			line, column := in.FieldPos(i)
			where[i] = p.at(before+line, column)
		}
		switch {
		case n == 0:
			if !p.columns(record, where) {
				return
			}
		case len(record) != len(p.header):
			p.fault(place{line: where[0].line}, "", ProblemCells)
		default:
			p.row(record, where)
		}
	}
	if len(p.list.Rows) == 0 && len(p.faults) == 0 {
		p.fault(place{}, "", ProblemEmpty)
	}
}

// from begins to read after so many lines, which it returns.
func (p *parser) from(lines int) (*csv.Reader, int) {
	in := csv.NewReader(strings.NewReader(p.text[p.starts[lines]:]))
	in.FieldsPerRecord = -1 // counted here, so that each row is told by its place
	return in, lines
}

// at makes a place of a line and a column in bytes.
func (p *parser) at(line, column int) place {
	if line < 1 || line >= len(p.starts) {
		return place{line: line}
	}
	s := p.text[p.starts[line-1]:p.starts[line]]
	return place{line, 1 + utf8.RuneCountInString(s[:min(max(column-1, 0), len(s))])}
}

// columns takes the header, and reports whether rows can be read by it.
func (p *parser) columns(record []string, where []place) bool {
	p.header = record
	known := map[string]bool{ColumnConsent: true, ColumnCIN: true, ColumnCardExpiry: true, ColumnReference: true, ColumnID: true, ColumnPINFile: true}
	needed := []string{ColumnConsent}
	if p.m.IDScheme.Kind == manifest.IDGiven {
		needed = append(needed, ColumnID)
	}
	if p.m.PIN.Policy == manifest.PINRequired {
		needed = append(needed, ColumnPINFile)
	}
	for _, it := range p.m.Items {
		known[ItemPrefix+it.Name] = true
		if it.Required {
			needed = append(needed, ItemPrefix+it.Name)
		}
	}
	for i, name := range record {
		switch {
		case !known[name]:
			// Somebody who forgot the header has a holder's data here.
			p.fault(where[i], "", ProblemColumn)
		case slices.Contains(record[:i], name):
			p.fault(where[i], name, ProblemTwice)
		case name == ColumnID && p.m.IDScheme.Kind != manifest.IDGiven:
			p.fault(where[i], name, ProblemDrawnID)
		case name == ColumnPINFile && p.m.PIN.Policy != manifest.PINRequired:
			p.fault(where[i], name, ProblemNoPIN)
		}
	}
	for _, name := range needed {
		if !slices.Contains(record, name) {
			p.fault(place{line: 1}, name, ProblemNoColumn)
		}
	}
	return len(p.faults) == 0
}

// row takes one row. It is kept whatever is wrong with it, for the search for
// duplicates.
func (p *parser) row(record []string, where []place) {
	at, before := cells{}, len(p.faults)
	row := Row{Line: where[0].line, Items: map[string]string{}}
	for i, name := range p.header {
		at[name] = where[i]
		value := record[i]
		if problem := cell(name, value); problem != "" {
			p.fault(where[i], name, problem)
			continue
		}
		switch name {
		case ColumnConsent:
			if row.ConsentRef = value; value == "" {
				p.fault(where[i], name, ProblemMissing)
			}
		case ColumnID:
			row.ID = value
		case ColumnPINFile:
			if row.PINFile = value; value == "" {
				p.fault(where[i], name, ProblemMissing)
			}
		case ColumnReference:
			row.Reference = value
		case ColumnCIN:
			row.CIN = strings.ToUpper(value)
		case ColumnCardExpiry:
			if value == "" {
				break
			}
			day, err := time.ParseInLocation(time.DateOnly, value, japan)
			if row.CardExpiry = day; err != nil {
				p.fault(where[i], name, ProblemDate)
			}
		default:
			if value != "" {
				row.Items[strings.TrimPrefix(name, ItemPrefix)] = value
			}
		}
	}
	// What the manifest says of a subject, each fault in its column. Items that
	// could not be taken are not missing.
	err := p.m.CheckSubject(manifest.Subject{ID: row.ID, Items: row.Items, KeepPIN: true})
	var subject manifest.Faults
	errors.As(err, &subject)
	for _, f := range subject {
		name := f.Key
		if item, ok := strings.CutPrefix(f.Key, "items."); ok {
			name = ItemPrefix + item
		}
		if slices.ContainsFunc(p.faults[before:], func(have Fault) bool { return have.Line == at[name].line && have.Column == at[name].column }) {
			continue
		}
		f.Key = ""
		p.fault(at[name], name, "").Err = f
	}
	p.list.Rows, p.list.cells, p.list.faulty = append(p.list.Rows, row), append(p.list.cells, at), append(p.list.faulty, len(p.faults) > before)
}

// japan is where dates on cards are meant.
var japan = time.FixedZone("JST", 9*60*60)

// cell is what holds for a cell by itself.
func cell(name, value string) Problem {
	limit := maxCell
	if name == ColumnReference {
		limit = maxReference
	}
	switch {
	case len(value) > limit:
		return ProblemLong
	case strings.ContainsFunc(value, unicode.IsControl):
		return ProblemControl
	case strings.TrimSpace(value) != value:
		return ProblemSpace
	case name == ColumnCIN && value != "" && (len(value) < minCIN || len(value) > maxCIN || strings.Trim(value, "0123456789ABCDEFabcdef") != ""):
		return ProblemCIN
	}
	// Digits of a CIN, and of a consent's id, come up by chance. In an item or
	// an ID the manifest's own check finds it.
	free := name == ColumnCIN || name == ColumnID || strings.HasPrefix(name, ItemPrefix) || name == ColumnConsent && isConsentID(value)
	if !free && manifest.HoldsIndividualNumber(value) {
		return ProblemNumber
	}
	return ""
}

// isConsentID reports whether a cell names a consent in the ledger, not a file.
func isConsentID(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// duplicates finds rows that would be one card's or one holder's.
func (p *parser) duplicates() {
	ids := map[string]int{}
	var named []int // rows that name their card
	for i, row := range p.list.Rows {
		if first, twice := ids[row.ID]; row.ID != "" && twice {
			p.fault(p.list.cells[i][ColumnID], ColumnID, ProblemSameID).Other = first
		} else {
			ids[row.ID] = row.Line
		}
		if row.CIN != "" {
			named = append(named, i)
		}
	}
	// Two of them are one card's where one ends with the other: in the order of
	// their reversed digits the shorter stands before the longer.
	reversed := map[int]string{}
	for _, i := range named {
		digits := []byte(p.list.Rows[i].CIN)
		slices.Reverse(digits)
		reversed[i] = string(digits)
	}
	slices.SortStableFunc(named, func(a, b int) int { return strings.Compare(reversed[a], reversed[b]) })
	var shorter []int
	for _, i := range named {
		for len(shorter) > 0 && !strings.HasPrefix(reversed[i], reversed[shorter[len(shorter)-1]]) {
			shorter = shorter[:len(shorter)-1]
		}
		if len(shorter) > 0 {
			other := shorter[len(shorter)-1]
			first, second := min(i, other), max(i, other)
			p.fault(p.list.cells[second][ColumnCIN], ColumnCIN, ProblemSameCIN).Other = p.list.Rows[first].Line
		}
		shorter = append(shorter, i)
	}
}

// Columns returns the columns that a list for the service can have, those that
// it must have first.
func Columns(m *manifest.Manifest) (needed, possible []string) {
	p := parser{m: m, list: &List{}}
	p.columns(nil, nil)
	for _, f := range p.faults {
		needed = append(needed, f.Name)
	}
	all := map[string]bool{ColumnCIN: true, ColumnCardExpiry: true, ColumnReference: true}
	for _, it := range m.Items {
		all[ItemPrefix+it.Name] = true
	}
	for _, name := range needed {
		delete(all, name)
	}
	return needed, slices.Sorted(maps.Keys(all))
}
