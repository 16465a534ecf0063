package batch

import (
	"context"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

// Entry is what has come of one row. It has no items and no PIN.
type Entry struct {
	Line        int
	Reference   string
	State       State
	ID          string // once issued
	IssueNumber uint16
	Expiry      string // last day of the service, "" for none
	KeyVersion  byte
	Consent     string
	Card        string // as the ledger names it, "" while it has none
	Run         string // that issued it
	Slot        string // that had it last in this run
	At          time.Time
	Code        string // of the last error in this run, see [Code]
	Err         error
}

// Refusal is a card that got nothing, or not all of its row, and why.
type Refusal struct {
	Slot      string
	Line      int // of its row, 0 without one
	Reference string
	Card      string // as the ledger names it, "" where it was not identified
	At        time.Time
	Code      string
	Err       error
}

// Report is what has come of a batch.
type Report struct {
	Service  string
	Manifest string // digest, hexadecimal
	List     string // name of the file
	SHA256   string // of the list
	Encoding Encoding
	At       time.Time
	Totals   Totals
	Rows     []Entry
	Refusals []Refusal // cards, in order
	Wipes    []Wipe    // of what was revoked, in order
}

// Report returns what has come of every row, also in other processes until now.
func (b *Batch) Report(ctx context.Context) (*Report, error) {
	if err := b.catchUp(ctx); err != nil {
		return nil, err
	}
	digest := b.o.Manifest.Digest()
	out := &Report{
		Service: b.o.Manifest.ID, Manifest: hex.EncodeToString(digest[:]), List: b.list.Name, SHA256: hex.EncodeToString(b.list.SHA256[:]),
		Encoding: b.list.Encoding, At: b.o.Now(),
	}
	for _, r := range b.rows {
		out.Rows = append(out.Rows, *b.entry(r))
	}
	out.Totals = b.Totals()
	b.mu.Lock()
	out.Refusals, out.Wipes = slices.Clone(b.refusals), slices.Clone(b.wipes)
	b.mu.Unlock()
	return out, nil
}

// entry is a row as it stands now.
func (b *Batch) entry(r *row) *Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &Entry{
		Line: r.Line, Reference: r.Reference, State: r.state, Consent: r.consent.Record.ID, Card: string(r.card), Slot: r.slot, At: r.at,
		Code: Code(r.failed), Err: r.failed,
	}
	if r.state == underWay {
		e.State = Unfinished
	}
	if i := r.issue; i != nil {
		e.ID, e.IssueNumber, e.Expiry, e.KeyVersion, e.Run = i.ID, i.IssueNumber, i.Expiry, i.KeyVersion, i.Run
	}
	return e
}

// codes are the reasons that programs can tell apart; the first that fits counts.
var codes = []struct {
	code string
	err  error
}{
	{"stopped", ErrStopped},
	{"no-row", ErrNoRow},
	{"row-taken", ErrRowTaken},
	{"under-way", ErrUnderWay},
	{"row-revoked", ErrRowRevoked},
	{"consent-withdrawn", consent.ErrWithdrawn},
	{"consent-withdrawn", ledger.ErrWithdrawn},
	{"consent-expired", consent.ErrExpired},
	{"consent", consent.ErrSignature},
	{"consent", consent.ErrItems},
	{"consent", consent.ErrOtherManifest},
	{"consent", consent.ErrNotYet},
	{"term-ended", provisioner.ErrTermEnded},
	{"card-expiry", manifest.ErrNoCardExpiry},
	{"card-expiry", manifest.ErrCardExpired},
	{"id-taken", ledger.ErrIDTaken},
	{"revoked", provisioner.ErrRevoked},
	{"other-issue", provisioner.ErrOtherIssue},
	{"other-card", provisioner.ErrOtherCard},
	{"replaced", provisioner.ErrReplaced},
	{"replaced", provisioner.ErrOldCard},
	{"other-instance", provisioner.ErrOtherInstance},
	{"card-state", provisioner.ErrCardState},
	{"foreign", provisioner.ErrForeign},
	{"foreign", provisioner.ErrNotVisible},
	{"domain", provisioner.ErrDomain},
	{"domain", provisioner.ErrUnknownDomain},
	{"no-manifest", provisioner.ErrNoManifest},
	{"token-missing", provisioner.ErrTokenMissing},
	{"too-many-failures", provisioner.ErrTooManyFailures},
	{"authentication", scp.ErrCardCryptogram},
	{"authentication", iso7816.ErrAuthentication},
	{"not-verified", provisioner.ErrNotVerified},
	{"card-removed", iso7816.ErrCardRemoved},
	{"no-memory", iso7816.ErrNoMemory},
	{"protocol", iso7816.ErrProtocol},
	{"ledger-busy", ledger.ErrBusy},
	{"operator", ledger.ErrOperator},
	{"operator", ledger.ErrDismissed},
	{"operator", ledger.ErrNotAllowed},
}

// Code is the reason of an error for programs, "" for none; docs/json.md has
// the list.
func Code(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	switch {
	case errors.As(err, new(*columnError)), errors.As(err, new(manifest.Faults)):
		return "row"
	case errors.As(err, new(*iso7816.StatusError)):
		return "status"
	}
	return "error"
}

// WriteCSV writes the rows, then the cards that got none, then what was found
// revoked on cards: UTF-8 with a byte
// order mark, without which spreadsheets take it for another encoding. explain
// words an error for people.
func (r *Report) WriteCSV(w io.Writer, explain func(error) string) error {
	if _, err := io.WriteString(w, "\ufeff"); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	out.UseCRLF = true
	write := func(cells ...string) { _ = out.Write(cells) } // kept until Error is asked
	write("line", "reference", "state", "id", "issue_number", "expiry", "key_version", "consent", "card", "run", "slot", "at", "code", "reason", "service")
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	why := func(err error) string {
		if err == nil {
			return ""
		}
		return harmless(explain(err))
	}
	for _, e := range r.Rows {
		write(number(e.Line), harmless(e.Reference), string(e.State), harmless(e.ID), number(int(e.IssueNumber)), e.Expiry, number(int(e.KeyVersion)),
			e.Consent, e.Card, e.Run, harmless(e.Slot), stamp(e.At), e.Code, why(e.Err), r.Service)
	}
	for _, x := range r.Refusals {
		if x.Line == 0 {
			write("", "", "card-refused", "", "", "", "", "", x.Card, "", harmless(x.Slot), stamp(x.At), x.Code, why(x.Err), r.Service)
		}
	}
	for _, w := range r.Wipes {
		write(number(w.Line), harmless(w.Reference), string(w.kind()), harmless(w.Issue.ID), number(int(w.Issue.IssueNumber)), w.Issue.Expiry,
			number(int(w.Issue.KeyVersion)), w.Issue.Consent, string(w.Issue.Card), w.Run, harmless(w.Slot), stamp(w.At), w.Code, why(w.Err), w.Issue.Service)
	}
	out.Flush()
	return out.Error()
}

// harmless keeps a spreadsheet from taking a text for a formula.
func harmless(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if s != "" && strings.Contains("=+-@", s[:1]) {
		return "'" + s
	}
	return s
}

// stamp is a time as the toolkit's machine output has it, "" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// totalsJSON and the other types are what docs/json.md describes.
type totalsJSON struct {
	Rows       int     `json:"rows"`
	Before     int     `json:"issued_before"`
	Issued     int     `json:"issued"`
	Beside     int     `json:"issued_beside"`
	Refused    int     `json:"refused"`
	Unfinished int     `json:"unfinished"`
	Open       int     `json:"open"`
	Wiped      int     `json:"wiped"`
	NotWiped   int     `json:"not_wiped"`
	PerMinute  float64 `json:"cards_per_minute"`
	Left       *int    `json:"seconds_left"`
}

type entryJSON struct {
	Line        int     `json:"line"`
	Reference   *string `json:"reference"`
	State       State   `json:"state"`
	ID          *string `json:"id"`
	IssueNumber uint16  `json:"issue_number"`
	Expiry      *string `json:"expiry"`
	KeyVersion  byte    `json:"key_version"`
	Consent     string  `json:"consent"`
	Card        *string `json:"card"`
	Run         *string `json:"run"`
	Slot        *string `json:"slot"`
	At          *string `json:"at"`
	Code        *string `json:"code"`
	Message     *string `json:"message"`
}

type refusalJSON struct {
	Slot      string  `json:"slot"`
	Line      *int    `json:"line"`
	Reference *string `json:"reference"`
	Card      *string `json:"card"`
	At        string  `json:"at"`
	Code      string  `json:"code"`
	Message   string  `json:"message"`
}

type wipeJSON struct {
	Slot        string    `json:"slot"`
	Line        *int      `json:"line"`
	Reference   *string   `json:"reference"`
	State       EventKind `json:"state"`
	Service     string    `json:"service"`
	ID          *string   `json:"id"`
	IssueNumber uint16    `json:"issue_number"`
	Consent     string    `json:"consent"`
	Card        string    `json:"card"`
	Run         *string   `json:"run"`
	At          string    `json:"at"`
	Code        *string   `json:"code"`
	Message     *string   `json:"message"`
}

func (w Wipe) json() wipeJSON {
	return wipeJSON{
		w.Slot, orNull(w.Line), orNull(w.Reference), w.kind(), w.Issue.Service, orNull(w.Issue.ID), w.Issue.IssueNumber, w.Issue.Consent,
		string(w.Issue.Card), orNull(w.Run), stamp(w.At), orNull(w.Code), orNull(message(w.Err)),
	}
}

func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func (t Totals) json() totalsJSON {
	out := totalsJSON{
		Rows: t.Rows, Before: t.Before, Issued: t.Issued, Beside: t.Beside, Refused: t.Refused, Unfinished: t.Unfinished, Open: t.Open,
		Wiped: t.Wiped, NotWiped: t.NotWiped, PerMinute: float64(int(t.PerMinute*10+0.5)) / 10,
	}
	if t.PerMinute > 0 {
		left := int(t.Left.Seconds() + 0.5)
		out.Left = &left
	}
	return out
}

func (e Entry) json() entryJSON {
	return entryJSON{
		e.Line, orNull(e.Reference), e.State, orNull(e.ID), e.IssueNumber, orNull(e.Expiry), e.KeyVersion, e.Consent, orNull(e.Card),
		orNull(e.Run), orNull(e.Slot), orNull(stamp(e.At)), orNull(e.Code), orNull(message(e.Err)),
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// MarshalJSON writes the report as docs/json.md describes it.
func (r *Report) MarshalJSON() ([]byte, error) {
	rows, cards, wipes := make([]entryJSON, len(r.Rows)), make([]refusalJSON, len(r.Refusals)), make([]wipeJSON, len(r.Wipes))
	for i, e := range r.Rows {
		rows[i] = e.json()
	}
	for i, x := range r.Refusals {
		cards[i] = refusalJSON{x.Slot, orNull(x.Line), orNull(x.Reference), orNull(x.Card), stamp(x.At), x.Code, message(x.Err)}
	}
	for i, w := range r.Wipes {
		wipes[i] = w.json()
	}
	return json.Marshal(struct {
		V        int           `json:"v"`
		Type     string        `json:"type"`
		Service  string        `json:"service"`
		Manifest string        `json:"manifest"`
		List     string        `json:"list"`
		SHA256   string        `json:"sha256"`
		Encoding Encoding      `json:"encoding"`
		At       string        `json:"at"`
		Totals   totalsJSON    `json:"totals"`
		Rows     []entryJSON   `json:"rows"`
		Refusals []refusalJSON `json:"refusals"`
		Wipes    []wipeJSON    `json:"wipes"`
	}{1, "batch", r.Service, r.Manifest, r.List, r.SHA256, r.Encoding, stamp(r.At), r.Totals.json(), rows, cards, wipes})
}

// MarshalJSON writes the event as docs/json.md describes it.
func (e Event) MarshalJSON() ([]byte, error) {
	type progress struct {
		Step     int    `json:"step"`
		Steps    int    `json:"steps"`
		Name     string `json:"name"`
		Commands int    `json:"commands"`
		Total    int    `json:"total"`
	}
	out := struct {
		V         int        `json:"v"`
		Type      string     `json:"type"`
		Kind      EventKind  `json:"kind"`
		At        string     `json:"at"`
		Slot      string     `json:"slot"`
		Line      *int       `json:"line"`
		Reference *string    `json:"reference"`
		Service   *string    `json:"service"`
		Progress  *progress  `json:"progress"`
		Row       *entryJSON `json:"row"`
		Wipe      *wipeJSON  `json:"wipe"`
		Code      *string    `json:"code"`
		Message   *string    `json:"message"`
		Totals    totalsJSON `json:"totals"`
	}{
		1, "batch-event", e.Kind, stamp(e.At), e.Slot, orNull(e.Line), orNull(e.Reference), orNull(e.Service), nil, nil, nil, orNull(Code(e.Err)), orNull(message(e.Err)),
		e.Totals.json(),
	}
	if e.Kind == Progress {
		out.Progress = &progress{e.Progress.Step, e.Progress.Steps, e.Progress.Name, e.Progress.Commands, e.Progress.Total}
	}
	if e.Row != nil {
		row := e.Row.json()
		out.Row = &row
	}
	if e.Wipe != nil {
		wipe := e.Wipe.json()
		out.Wipe = &wipe
	}
	return json.Marshal(out)
}
