package iso7816_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/iso7816"
)

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parseTrace(t testing.TB, text string) *iso7816.Trace {
	t.Helper()
	trace, err := iso7816.ParseTrace(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// The page that describes the format shows a trace: it is the file that the
// tests read.
func TestTraceDocumentation(t *testing.T) {
	_, rest, _ := strings.Cut(string(readFile(t, "../docs/trace.md")), "```\n")
	block, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/trace.md shows no trace")
	}
	if diff := cmp.Diff(string(readFile(t, "testdata/example.trace")), block); diff != "" {
		t.Errorf("testdata/example.trace and docs/trace.md differ (-file +page):\n%s", diff)
	}
}

func TestParseTrace(t *testing.T) {
	text := readFile(t, "testdata/example.trace")
	trace := parseTrace(t, string(text))
	if trace.Source != "written by hand after ISO/IEC 7816-4 and GPCS 2.3.1" ||
		trace.Expect != "PIN wrong once, then right; card pulled out while reading" ||
		fmt.Sprintf("%X", trace.ATR) != "3B8880010000000000718100F9" {
		t.Errorf("header: %q, %q, %X", trace.Source, trace.Expect, trace.ATR)
	}
	want := []iso7816.TraceLine{
		{Kind: iso7816.TraceBlank, Number: 5},
		{Kind: iso7816.TraceComment, Number: 6, Text: "SELECT"},
		{Kind: iso7816.TraceCommand, Number: 7, APDU: unhex("00A4040009F0465245415245410100")},
		{Kind: iso7816.TraceResponse, Number: 8, APDU: unhex("6F0B8409F046524541524541019000")},
		{Kind: iso7816.TraceComment, Number: 9, Text: "VERIFY"},
		{Kind: iso7816.TraceCommand, Number: 10, APDU: append(unhex("002000010C"), make([]byte, 12)...), Redacted: true},
		{Kind: iso7816.TraceResponse, Number: 11, APDU: unhex("63C2")},
		{Kind: iso7816.TraceComment, Number: 12, Text: "63C2 wrong PIN, 2 tries left"},
		{Kind: iso7816.TraceReset, Number: 13},
	}
	if diff := cmp.Diff(want, trace.Lines[:len(want)]); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if last := trace.Lines[len(trace.Lines)-1]; last.Kind != iso7816.TraceRemoved {
		t.Errorf("last line: %v", last)
	}
	if diff := cmp.Diff(string(text), string(trace.Encode())); diff != "" {
		t.Errorf("written again (-want +got):\n%s", diff)
	}
}

func TestParseTraceForms(t *testing.T) {
	long := strings.Repeat("AB", 256)
	for _, body := range []string{
		"",
		"source: s\n",
		"expect: e\natr: 3B00\n\n",
		"#\n# text: with a colon\n#  indented\n",
		"> 00200001\n< 9000\n",
		"> 00B00000 10\n< 0102 9000\n",
		"> 00B00000 000100\n< 9000\n",
		"> 00D60000 000100 " + long + "\n< 9000\n",
		"> 00D60000 000100 " + long + " 0000\n< 9000\n",
		"> 00D60000 000001 AB\n< 9000\n", // extended although it need not be
		"> 00D60000 000100 [256 bytes] 0000\n< [1 bytes] 9000\n",
		"> raw\n< raw\n",
		"> raw 00A4\n< raw 90\n",
		"> raw 00A40400 0501\n< 6700\n",
		"> raw 00200001 [3 bytes]\n< 6700\n",
		"> 00A40000\n! error \"no \\\"card\\\"\"\n",
		"> 00A40000\n# between\n\n! removed\n",
		"! reset\n! reset\n! removed\n",
		"! reset\n# and\n! error \"\"\n",
		"> 00A40000\n", // the recording stopped there
	} {
		text := "freearea-trace 1\n" + body
		trace, err := iso7816.ParseTrace(strings.NewReader(text))
		if err != nil {
			t.Errorf("%.80q: %v", body, err)
			continue
		}
		if diff := cmp.Diff(text, string(trace.Encode())); diff != "" {
			t.Errorf("%.80q written again (-want +got):\n%s", body, diff)
		}
	}
}

func TestParseTraceRefuses(t *testing.T) {
	const head = "freearea-trace 1\n"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "line 1"},
		{"other version", "freearea-trace 2\n", "line 1"},
		{"no newline at the end", head + "# x", "line 2: does not end"},
		{"carriage return", head + "# x\r\n", "line 2: a control character"},
		{"not UTF-8", head + "# \xff\n", "line 2"},
		{"order of the header", head + "expect: e\nsource: s\n", "line 3: source is out of order"},
		{"twice", head + "source: s\nsource: s\n", "line 3: source is out of order"},
		{"empty source", head + "source: \n", "line 2"},
		{"header below", head + "\nsource: s\n", "line 3"},
		{"short ATR", head + "atr: 3B\n", "line 2: answer to reset of 1 bytes"},
		{"long ATR", head + "atr: " + strings.Repeat("3B", 34) + "\n", "line 2: answer to reset of 34 bytes"},
		{"unknown line", head + "? 00\n", `line 2: "? 00"`},
		{"lower case", head + "> 00a40400\n", "line 2"},
		{"half a byte", head + "> 00A4040\n", "line 2"},
		{"no groups", head + "> 00A4040002ABCD\n", `line 2: not in the one form that is accepted, which is "> 00A40400 02 ABCD"`},
		{"spaces", head + "> 00A40400  02 ABCD\n", "line 2"},
		{"trailing space", head + "> 00A40400 \n", "line 2"},
		{"comment with trailing space", head + "# x \n", "line 2"},
		{"comment without space", head + "#x\n", "line 2"},
		{"wrong Lc", head + "> 00A40400 03 ABCD\n", `which is "> raw 00A40400 03ABCD"`},
		{"raw but well formed", head + "> raw 00A40400\n", "line 2"},
		{"raw response but well formed", head + "> 00A40400\n< raw 9000\n", "line 3"},
		{"wildcard of another length", head + "> 00200001 0C [11 bytes]\n", "line 2"},
		{"wildcard in the header", head + "> [4 bytes]\n", "line 2"},
		{"wildcard of none", head + "> 00200001 [0 bytes]\n", "line 2"},
		{"wildcard with a sign", head + "> 00200001 0C [+12 bytes]\n", "line 2"},
		{"wildcard too long", head + "> 00200001 0C [99999999999 bytes]\n", "line 2"},
		{"two wildcards", head + "> 00200001 0C [6 bytes] [6 bytes]\n", "line 2"},
		{"half a wildcard", head + "> 00200001 0C [12\n", "line 2"},
		{"status word left out", head + "> 00200001\n< [2 bytes]\n", "line 3"},
		{"answer to nothing", head + "< 9000\n", "line 2: an answer to no command"},
		{"two answers", head + "> 00200001\n< 9000\n< 9000\n", "line 4: an answer to no command"},
		{"no answer", head + "> 00200001\n> 00200001\n", "line 3: the command before has no answer"},
		{"reset instead of an answer", head + "> 00200001\n! reset\n", "line 3: the command before has no answer"},
		{"answer to a reset", head + "! reset\n< 9000\n", "line 3: an answer to no command"},
		{"removed out of nothing", head + "! removed\n", "line 2: an outcome of nothing"},
		{"unquoted error", head + "> 00200001\n! error no card\n", "line 3"},
		{"quoted in another way", head + "> 00200001\n! error `no card`\n", "line 3"},
		{"too long", head + strings.Repeat("# 0123456789\n", iso7816.MaxTraceSize/13+1), "longer than"},
		{"too many lines", head + strings.Repeat("\n", iso7816.MaxTraceLines), "more than 262144 lines"},
		// 300 short lines that stand for 64 KiB each.
		{"too much left out", head + strings.Repeat("> 00200001 00FFFF [65535 bytes]\n< 9000\n", 300), "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := iso7816.ParseTrace(strings.NewReader(test.text))
			if !errors.Is(err, iso7816.ErrMalformedTrace) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
	broken := errors.New("broken pipe")
	if _, err := iso7816.ParseTrace(io.MultiReader(strings.NewReader(head), failingReader{broken})); !errors.Is(err, broken) {
		t.Errorf("error of the reader: %v", err)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func FuzzParseTrace(f *testing.F) {
	f.Add(readFile(f, "testdata/example.trace"))
	f.Add([]byte("freearea-trace 1\natr: 3B00\n> raw 00200001 [3 bytes]\n< raw\n! reset\n! error \"\\x00\"\n"))
	f.Add([]byte("freearea-trace 1\n> 00D60000 000100 [256 bytes] 0000\n< [1 bytes] 9000\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		trace, err := iso7816.ParseTrace(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, iso7816.ErrMalformedTrace) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again := trace.Encode(); !bytes.Equal(again, text) {
			t.Fatalf("accepted %q, writes %q", text, again)
		}
		// What a trace has, its card answers.
		card := trace.Card()
		for i, l := range trace.Lines {
			var err error
			switch l.Kind {
			case iso7816.TraceCommand:
				_, err = card.Transmit(context.Background(), l.APDU)
			case iso7816.TraceReset:
				err = card.Reset(context.Background())
			}
			if errors.Is(err, iso7816.ErrRedacted) {
				return
			}
			unanswered := !slices.ContainsFunc(trace.Lines[i+1:], func(l iso7816.TraceLine) bool {
				return l.Kind != iso7816.TraceBlank && l.Kind != iso7816.TraceComment
			})
			if errors.Is(err, iso7816.ErrDeviation) && !unanswered {
				t.Fatalf("line %d: %v", l.Number, err)
			}
		}
	})
}

func TestReplay(t *testing.T) {
	ctx := context.Background()
	trace := parseTrace(t, string(readFile(t, "testdata/example.trace")))
	card := trace.Card()
	if !bytes.Equal(card.ATR(), trace.ATR) || card.ExtendedLength() {
		t.Errorf("ATR %X, extended length %v", card.ATR(), card.ExtendedLength())
	}
	aid := iso7816.MustAID("F04652454152454101")
	wrong, right := []byte("0000\xff\xff\xff\xff\xff\xff\xff\xff"), []byte("1234\xff\xff\xff\xff\xff\xff\xff\xff")
	sel, verify := iso7816.Select(aid), iso7816.Command{INS: 0x20, P2: 1}
	for i, pin := range [][]byte{wrong, right} {
		if _, err := iso7816.Do(ctx, iso7816.Plain(card), sel); err != nil {
			t.Fatal(err)
		}
		verify.Data = pin
		_, err := iso7816.Do(ctx, iso7816.Plain(card), verify)
		if i == 0 {
			if !errors.Is(err, iso7816.SW(0x63C2)) {
				t.Fatalf("first VERIFY: %v", err)
			}
			if err := card.Reset(ctx); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := card.Done(); !errors.Is(err, iso7816.ErrDeviation) || !strings.Contains(err.Error(), "line 21") {
		t.Errorf("Done before the end: %v", err)
	}
	_, err := iso7816.Do(ctx, iso7816.Plain(card), iso7816.Command{INS: 0xB0, P1: 0x81, Ne: 256})
	if !errors.Is(err, iso7816.ErrCardRemoved) || errors.Is(err, iso7816.ErrDeviation) {
		t.Errorf("last command: %v", err)
	}
	if err := card.Done(); err != nil {
		t.Error(err)
	}
	if _, err := card.Transmit(ctx, []byte{0, 0xA4, 4, 0}); !errors.Is(err, iso7816.ErrDeviation) {
		t.Errorf("after the end: %v", err)
	}
}

func TestReplayDeviation(t *testing.T) {
	ctx := context.Background()
	const text = "freearea-trace 1\n# SELECT\n> 00A40400\n< 9000\n> 80200001 04 [4 bytes]\n< 9000\n> 80F60000 02 [2 bytes]\n< 9000\n" +
		"! reset\n! error \"stuck\"\n> 00B00000 01\n< [1 bytes] 9000\n"
	sel, verify := unhex("00A40400"), unhex("8020000104")
	pin := []byte("4711")
	for _, test := range []struct {
		name string
		do   func(c *iso7816.Replay) error
		want string
	}{
		{"other command", func(c *iso7816.Replay) error { return transmit(c, unhex("00A4040C")) },
			`at line 3: "> 00A4040C" where the trace has "> 00A40400"`},
		{"reset instead of a command", func(c *iso7816.Replay) error { return c.Reset(ctx) },
			`at line 3: "! reset" where the trace has "> 00A40400"`},
		{"other length", func(c *iso7816.Replay) error {
			return transmit(c, sel, append(unhex("8020000105"), "47110"...))
		}, `at line 5: "> 80200001 05 [5 bytes]" where the trace has "> 80200001 04 [4 bytes]"`},
		{"shorter", func(c *iso7816.Replay) error { return transmit(c, sel, unhex("80200001")) },
			`at line 5: "> 80200001" where the trace has "> 80200001 04 [4 bytes]"`},
		{"other header", func(c *iso7816.Replay) error {
			return transmit(c, sel, append(unhex("8020000204"), pin...))
		}, `at line 5: "> 80200002 04 [4 bytes]"`},
		{"other Le", func(c *iso7816.Replay) error {
			return transmit(c, sel, append(append(unhex("8020000104"), pin...), 0))
		}, `at line 5: "> 80200001 04 [4 bytes] 00"`},
		// Left out by the recorder's own choice: not shown here either.
		{"secret of another kind", func(c *iso7816.Replay) error {
			return transmit(c, sel, append(verify, pin...), unhex("80F6000003343731"))
		}, `at line 7: "> 80F60000 03 [3 bytes]" where`},
		{"malformed secret", func(c *iso7816.Replay) error {
			return transmit(c, sel, unhex("80200001063437"))
		}, `at line 5: "> raw 80200001 [3 bytes]"`},
		{"command instead of a reset", func(c *iso7816.Replay) error {
			return transmit(c, sel, append(verify, pin...), unhex("80F60000023437"), sel)
		}, `at line 9: "> 00A40400" where the trace has "! reset"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := parseTrace(t, text).Card()
			err := test.do(card)
			if !errors.Is(err, iso7816.ErrDeviation) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %s", err, test.want)
			}
			if strings.Contains(fmt.Sprint(err), "34373") {
				t.Errorf("the error holds the PIN: %v", err)
			}
			// After a deviation there is no way back.
			if again := transmit(card, sel); !errors.Is(again, iso7816.ErrDeviation) || again.Error() != err.Error() {
				t.Errorf("afterwards: %v", again)
			}
			if done := card.Done(); done == nil || done.Error() != err.Error() {
				t.Errorf("Done: %v", done)
			}
		})
	}

	card := parseTrace(t, text).Card()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := card.Transmit(cancelled, sel); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := transmit(card, sel, append(verify, pin...), unhex("80F60000023437")); err != nil {
		t.Fatal(err)
	}
	if err := card.Reset(ctx); err == nil || err.Error() != "stuck" {
		t.Errorf("reset: %v", err)
	}
	if err := transmit(card, unhex("00B0000001")); !errors.Is(err, iso7816.ErrRedacted) || !strings.Contains(err.Error(), "line 12") {
		t.Errorf("response that was left out: %v", err)
	}

	card = parseTrace(t, "freearea-trace 1\n> 00A40400\n").Card()
	if err := transmit(card, sel); !errors.Is(err, iso7816.ErrDeviation) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("command without an answer: %v", err)
	}
	if !parseTrace(t, "freearea-trace 1\n> 00B00000 000100\n< 9000\n").Card().ExtendedLength() {
		t.Error("a trace with an extended command is one of a card that takes them")
	}
}

func transmit(c iso7816.Card, commands ...[]byte) error {
	for _, b := range commands {
		if _, err := c.Transmit(context.Background(), b); err != nil {
			return err
		}
	}
	return nil
}

// fullCard has every optional companion and answers from a function.
type fullCard struct {
	answer func(command []byte) ([]byte, error)
	calls  []string
}

func (c *fullCard) Transmit(_ context.Context, b []byte) ([]byte, error) { return c.answer(b) }
func (c *fullCard) ATR() []byte                                          { return []byte{0x3B, 0x00} }
func (c *fullCard) ExtendedLength() bool                                 { return true }
func (c *fullCard) Reset(context.Context) error                          { c.calls = append(c.calls, "reset"); return nil }
func (c *fullCard) Begin(context.Context) error                          { c.calls = append(c.calls, "begin"); return nil }
func (c *fullCard) End() error                                           { c.calls = append(c.calls, "end"); return nil }
func (c *fullCard) Close() error                                         { c.calls = append(c.calls, "close"); return nil }

func always(answer string) func([]byte) ([]byte, error) {
	return func([]byte) ([]byte, error) { return unhex(answer), nil }
}

func TestRecorder(t *testing.T) {
	ctx := context.Background()
	var script []string
	card := &fullCard{answer: func([]byte) ([]byte, error) {
		next := script[0]
		script = script[1:]
		switch next {
		case "removed":
			return nil, fmt.Errorf("reading: %w", iso7816.ErrCardRemoved)
		case "error":
			return nil, errors.New("bad\nnews")
		}
		return unhex(next), nil
	}}
	var out bytes.Buffer
	rec := iso7816.NewRecorder(card, &out, iso7816.RecorderOptions{
		Source:         "a card\nin memory",
		Expect:         " all of it ",
		SecretResponse: func(c iso7816.Command) bool { return c.INS == 0xCA },
	})
	send := func(command, answer string) {
		script = append(script, answer)
		rec.Transmit(ctx, unhex(command))
	}
	send("00A4040002F000", "6F009000")
	send("00200001083132333435363738", "63C1")
	send("8424000108313233343536373800", "9000")
	send("002C000102AABB", "6982")
	send("80D80081020102", "9000")
	send("80E290000000020102", "9000") // extended
	send("00200001", "63C3")           // asks for the tries: nothing to leave out
	send("002000010831", "6700")       // malformed
	send("0020", "")                   // shorter than a header
	send("00CA004200", "0102036102")   // a response that is left out
	send("00C0000002", "04056C01")     // and its rest
	send("00C0000001", "069000")
	send("00C0000001", "079000") // another response
	send("00A40400", "error")
	rec.(iso7816.Resetter).Reset(ctx)
	send("00A40400", "removed")
	want := `freearea-trace 1
source: a card in memory
expect: all of it
atr: 3B00

# SELECT
> 00A40400 02 F000
< 6F00 9000
# VERIFY
> 00200001 08 [8 bytes]
< 63C1
# 63C1 wrong PIN, 1 try left
# CHANGE REFERENCE DATA
> 84240001 08 [8 bytes] 00
< 9000
# RESET RETRY COUNTER
> 002C0001 02 [2 bytes]
< 6982
# 6982 security status not satisfied
# PUT KEY
> 80D80081 02 [2 bytes]
< 9000
# STORE DATA
> 80E29000 000002 [2 bytes]
< 9000
# VERIFY
> 00200001
< 63C3
# 63C3 wrong PIN, 3 tries left
# VERIFY
> raw 00200001 [2 bytes]
< 6700
# 6700 wrong length
# instruction 00
> raw 0020
< raw
# GET DATA
> 00CA0042 00
< [3 bytes] 6102
# GET RESPONSE
> 00C00000 02
< [2 bytes] 6C01
# GET RESPONSE
> 00C00000 01
< [1 bytes] 9000
# GET RESPONSE
> 00C00000 01
< 07 9000
# SELECT
> 00A40400
! error "bad\nnews"
! reset
# SELECT
> 00A40400
! removed
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
	if err := rec.Err(); err != nil {
		t.Error(err)
	}
	if got := string(parseTrace(t, out.String()).Encode()); got != out.String() {
		t.Errorf("read and written again: %s", got)
	}
}

// A recorded replay of a trace is the trace, comments and all.
func TestRecorderOverReplay(t *testing.T) {
	ctx := context.Background()
	text := string(readFile(t, "testdata/example.trace"))
	trace := parseTrace(t, text)
	var out bytes.Buffer
	card := trace.Card()
	rec := iso7816.NewRecorder(card, &out, iso7816.RecorderOptions{Source: trace.Source, Expect: trace.Expect})
	for _, l := range trace.Lines {
		switch l.Kind {
		case iso7816.TraceCommand:
			rec.Transmit(ctx, l.APDU)
		case iso7816.TraceReset:
			rec.(iso7816.Resetter).Reset(ctx)
		}
	}
	if err := card.Done(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(text, out.String()); diff != "" {
		t.Errorf("recorded again (-want +got):\n%s", diff)
	}
}

func TestRecorderOptions(t *testing.T) {
	var out bytes.Buffer
	rec := iso7816.NewRecorder(&fullCard{answer: always("9000")}, &out, iso7816.RecorderOptions{
		Secret: func(iso7816.Command) bool { return false },
		Now:    func() time.Time { return time.Date(2025, 4, 1, 18, 0, 0, 5e8, time.FixedZone("JST", 9*3600)) },
	})
	if err := transmit(rec, unhex("002000010431323334")); err != nil {
		t.Fatal(err)
	}
	want := "freearea-trace 1\natr: 3B00\n\n# VERIFY 2025-04-01T09:00:00.5Z\n> 00200001 04 31323334\n< 9000\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
}

// A recorder offers what the card offers, no more and no less.
func TestRecorderCompanions(t *testing.T) {
	ctx := context.Background()
	for i := range 8 {
		full := &fullCard{answer: always("9000")}
		var card iso7816.Card
		switch bare := (onlyCard{full}); i {
		case 0:
			card = bare
		case 1:
			card = struct {
				onlyCard
				iso7816.Resetter
			}{bare, full}
		case 2:
			card = struct {
				onlyCard
				iso7816.Transactor
			}{bare, full}
		case 3:
			card = struct {
				onlyCard
				iso7816.Resetter
				iso7816.Transactor
			}{bare, full, full}
		case 4:
			card = struct {
				onlyCard
				io.Closer
			}{bare, full}
		case 5:
			card = struct {
				onlyCard
				iso7816.Resetter
				io.Closer
			}{bare, full, full}
		case 6:
			card = struct {
				onlyCard
				iso7816.Transactor
				io.Closer
			}{bare, full, full}
		case 7:
			card = full
		}
		rec := iso7816.NewRecorder(card, io.Discard, iso7816.RecorderOptions{})
		var want []string
		r, canReset := rec.(iso7816.Resetter)
		if canReset != (i&1 != 0) {
			t.Errorf("card %d: reset offered: %v", i, canReset)
		} else if canReset {
			r.Reset(ctx)
			want = append(want, "reset")
		}
		x, canTransact := rec.(iso7816.Transactor)
		if canTransact != (i&2 != 0) {
			t.Errorf("card %d: transactions offered: %v", i, canTransact)
		} else if canTransact {
			x.Begin(ctx)
			x.End()
			want = append(want, "begin", "end")
		}
		c, canClose := rec.(io.Closer)
		if canClose != (i&4 != 0) {
			t.Errorf("card %d: close offered: %v", i, canClose)
		} else if canClose {
			c.Close()
			want = append(want, "close")
		}
		if diff := cmp.Diff(want, full.calls); diff != "" {
			t.Errorf("card %d: calls (-want +got):\n%s", i, diff)
		}
		if rec.ExtendedLength() != (i == 7) || (rec.ATR() != nil) != (i == 7) {
			t.Errorf("card %d: extended length %v, ATR %X", i, rec.ExtendedLength(), rec.ATR())
		}
	}
}

type onlyCard struct{ card iso7816.Card }

func (c onlyCard) Transmit(ctx context.Context, b []byte) ([]byte, error) {
	return c.card.Transmit(ctx, b)
}

// fullDisk takes some writes, fails once, and has room again: a trace with a
// hole in it is no better than none.
type fullDisk struct{ room, after int }

var errFull = errors.New("no space left on device")

func (d *fullDisk) Write(p []byte) (int, error) {
	d.room--
	switch {
	case d.room == -1:
		return 0, errFull
	case d.room < -1:
		d.after++
	}
	return len(p), nil
}

func TestRecorderWriterFails(t *testing.T) {
	for room := range 4 {
		sent := 0
		card := &fullCard{answer: func([]byte) ([]byte, error) { sent++; return unhex("9000"), nil }}
		disk := &fullDisk{room: room}
		rec := iso7816.NewRecorder(card, disk, iso7816.RecorderOptions{})
		first, second := transmit(rec, unhex("00A40400")), transmit(rec, unhex("00A40400"))
		// The header, the command, the answer: one write each.
		if wantFirst := room < 2; errors.Is(first, errFull) != wantFirst || (first == nil) == wantFirst {
			t.Errorf("room for %d writes: first command: %v", room, first)
		}
		if !errors.Is(second, errFull) {
			t.Errorf("room for %d writes: second command: %v", room, second)
		}
		if want := max(0, room-1); sent != min(want, 1) {
			t.Errorf("room for %d writes: %d commands reached the card", room, sent)
		}
		if !errors.Is(rec.Err(), errFull) || !errors.Is(rec.(io.Closer).Close(), errFull) {
			t.Errorf("room for %d writes: Err %v", room, rec.Err())
		}
		if err := rec.(iso7816.Resetter).Reset(context.Background()); !errors.Is(err, errFull) {
			t.Errorf("room for %d writes: reset: %v", room, err)
		}
		if disk.after != 0 {
			t.Errorf("room for %d writes: %d more after the one that failed", room, disk.after)
		}
	}
}
