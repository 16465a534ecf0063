package iso7816

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrMalformedTrace reports a text that is not in the trace format. The error
// names the line.
var ErrMalformedTrace = errors.New("malformed trace")

// Limits of a trace that is read.
const (
	// MaxTraceSize bounds both the text and the APDUs it stands for, in bytes.
	MaxTraceSize = 16 << 20
	// MaxTraceLines bounds the lines.
	MaxTraceLines = 1 << 18

	traceVersion = "freearea-trace 1"
)

// Trace is what was said to a card, and what it answered: the lines of a file
// in the trace format, in order.
//
//	freearea-trace 1
//	source: where this comes from
//	expect: what a reader of it should find
//	atr: 3B8880010000000000718100F9
//
//	# SELECT
//	> 00A40400 09 F04652454152454101 00
//	< 6F0B8409F04652454152454101 9000
//	# VERIFY
//	> 00200001 0C [12 bytes]
//	< 63C2
//	# 63C2 wrong PIN, 2 tries left
//	! reset
//
// There is one way to write each thing, so a trace that was read is written
// back as the same bytes. [NewRecorder] writes one while a card is used,
// [Trace.Card] is a card that answers from one. docs/trace.md is the full
// description.
type Trace struct {
	Source string // where the trace comes from; one line, may be empty
	Expect string // what is expected of it; one line, may be empty
	ATR    []byte // answer to reset of the card, nil when it is not known
	Lines  []TraceLine
}

// TraceKind says what a line of a trace is.
type TraceKind int

const (
	TraceBlank    TraceKind = iota // an empty line
	TraceComment                   // # Text
	TraceCommand                   // > APDU
	TraceResponse                  // < APDU
	TraceReset                     // ! reset: the card was reset
	TraceRemoved                   // ! removed: the card went away before it answered
	TraceError                     // ! error "Text": sending failed in another way
)

// TraceLine is one line of a trace, below its header.
type TraceLine struct {
	Kind TraceKind
	// Number is the line's number in the file it was read from, from 1.
	Number int
	// Text is the comment, of one line, or the error's text.
	Text string
	// APDU is the whole command or response, whether or not it is well formed.
	APDU []byte
	// Malformed says that APDU is no command, or no response.
	Malformed bool
	// Redacted says that the data field of APDU is not written down: its
	// bytes, zeros in a line that was read, stand for any bytes. In a malformed command that is
	// everything after the header.
	Redacted bool
}

// commandLine returns the line for a command APDU.
func commandLine(apdu []byte) TraceLine {
	_, err := ParseCommand(apdu)
	return TraceLine{Kind: TraceCommand, APDU: apdu, Malformed: err != nil}
}

// responseLine returns the line for a response APDU.
func responseLine(apdu []byte) TraceLine {
	_, err := ParseResponse(apdu)
	return TraceLine{Kind: TraceResponse, APDU: apdu, Malformed: err != nil}
}

// redacted returns the range of the APDU that Redacted is about.
func (l TraceLine) redacted() (from, to int) {
	switch l.Kind {
	case TraceCommand:
		if l.Malformed {
			return min(4, len(l.APDU)), len(l.APDU)
		}
		c, err := ParseCommand(l.APDU)
		switch {
		case err != nil || len(c.Data) == 0:
			return 0, 0
		case c.Extended:
			return 7, 7 + len(c.Data)
		}
		return 5, 5 + len(c.Data)
	case TraceResponse:
		if l.Malformed {
			return 0, len(l.APDU)
		}
		return 0, max(0, len(l.APDU)-2)
	}
	return 0, 0
}

// redact takes the data field out of the line, if it has one.
func (l TraceLine) redact() TraceLine {
	from, to := l.redacted()
	l.Redacted = from < to
	return l
}

// matches reports whether the APDU is the line's, redacted bytes aside.
func (l TraceLine) matches(apdu []byte) bool {
	if !l.Redacted {
		return bytes.Equal(l.APDU, apdu)
	}
	from, to := l.redacted()
	return len(apdu) == len(l.APDU) && bytes.Equal(apdu[:from], l.APDU[:from]) && bytes.Equal(apdu[to:], l.APDU[to:])
}

// String returns the line as it stands in a file, without the newline.
func (l TraceLine) String() string {
	switch l.Kind {
	case TraceComment:
		return strings.TrimRight("# "+withoutControls(l.Text), " ")
	case TraceCommand:
		c, err := ParseCommand(l.APDU)
		if l.Malformed || err != nil {
			return "> raw" + l.groups(0, 4, len(l.APDU))
		}
		lc := 5
		if c.Extended {
			lc = 7
		}
		if len(c.Data) == 0 {
			lc = 4
		}
		return ">" + l.groups(0, 4, lc, lc+len(c.Data), len(l.APDU))
	case TraceResponse:
		if l.Malformed || len(l.APDU) < 2 {
			return "< raw" + l.groups(0, len(l.APDU))
		}
		return "<" + l.groups(0, len(l.APDU)-2, len(l.APDU))
	case TraceReset:
		return "! reset"
	case TraceRemoved:
		return "! removed"
	case TraceError:
		return "! error " + strconv.QuoteToGraphic(l.Text)
	}
	return ""
}

// groups writes the parts of the APDU between the offsets, each after a space.
func (l TraceLine) groups(offsets ...int) string {
	var out strings.Builder
	from, to := l.redacted()
	for i, end := range offsets[1:] {
		begin, end := min(offsets[i], len(l.APDU)), min(end, len(l.APDU))
		switch {
		case begin == end:
		case l.Redacted && begin == from && end == to:
			fmt.Fprintf(&out, " [%d bytes]", end-begin)
		default:
			fmt.Fprintf(&out, " %X", l.APDU[begin:end])
		}
	}
	return out.String()
}

// Encode returns the trace as the bytes of a file.
func (t *Trace) Encode() []byte {
	var out bytes.Buffer
	out.WriteString(t.header())
	for _, l := range t.Lines {
		out.WriteString(l.String())
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func (t *Trace) header() string {
	var out strings.Builder
	out.WriteString(traceVersion + "\n")
	if s := strings.TrimSpace(withoutControls(t.Source)); s != "" {
		out.WriteString("source: " + s + "\n")
	}
	if s := strings.TrimSpace(withoutControls(t.Expect)); s != "" {
		out.WriteString("expect: " + s + "\n")
	}
	if len(t.ATR) > 0 {
		fmt.Fprintf(&out, "atr: %X\n", t.ATR)
	}
	return out.String()
}

// ParseTrace reads a trace. It accepts exactly what [Trace.Encode] writes, up
// to MaxTraceSize bytes and MaxTraceLines lines; anything else wraps
// [ErrMalformedTrace] and names the line.
func ParseTrace(r io.Reader) (*Trace, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxTraceSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading a trace: %w", err)
	}
	if len(text) > MaxTraceSize {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformedTrace, MaxTraceSize)
	}
	p := traceParser{budget: MaxTraceSize}
	rest := string(text)
	for number := 1; rest != ""; number++ {
		if number > MaxTraceLines {
			return nil, fmt.Errorf("%w: more than %d lines", ErrMalformedTrace, MaxTraceLines)
		}
		line, after, ok := strings.Cut(rest, "\n")
		if err := p.line(line, number); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrMalformedTrace, number, err)
		}
		if !ok {
			return nil, fmt.Errorf("%w: line %d: does not end in a newline", ErrMalformedTrace, number)
		}
		rest = after
	}
	if p.next == expectVersion {
		return nil, fmt.Errorf("%w: line 1: empty, %q expected", ErrMalformedTrace, traceVersion)
	}
	return &p.t, nil
}

// traceParser is fed line by line.
type traceParser struct {
	t       Trace
	next    traceSection
	pending TraceKind // TraceCommand or TraceReset while it may be answered, or TraceBlank
	budget  int       // bytes of APDUs that may still be read
}

// traceSection is what may come next; the header's fields stand in this order.
type traceSection int

const (
	expectVersion traceSection = iota
	expectSource
	expectExpect
	expectATR
	expectBody
)

func (p *traceParser) line(line string, number int) error {
	if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
		return errors.New("a control character, or not UTF-8 (lines end in a newline alone)")
	}
	if p.next == expectVersion {
		if line != traceVersion {
			return fmt.Errorf("%.40q where %q is expected", line, traceVersion)
		}
		p.next = expectSource
		return nil
	}
	if p.next < expectBody {
		if ok, err := p.field(line); ok || err != nil {
			return err
		}
		p.next = expectBody
	}
	l, err := p.body(line)
	if err != nil {
		return err
	}
	if want := l.String(); want != line {
		return fmt.Errorf("not in the one form that is accepted, which is %.200q", want)
	}
	switch l.Kind {
	case TraceCommand, TraceReset:
		if p.pending == TraceCommand {
			return errors.New("the command before has no answer")
		}
		p.pending = l.Kind
	case TraceResponse:
		if p.pending != TraceCommand {
			return errors.New("an answer to no command")
		}
		p.pending = TraceBlank
	case TraceRemoved, TraceError:
		if p.pending == TraceBlank {
			return errors.New("an outcome of nothing: it follows a command or a reset")
		}
		p.pending = TraceBlank
	}
	l.Number = number
	p.t.Lines = append(p.t.Lines, l)
	return nil
}

// field reads a line of the header; it reports whether the line is one.
func (p *traceParser) field(line string) (bool, error) {
	name, value, ok := strings.Cut(line, ": ")
	if !ok {
		return false, nil
	}
	var section traceSection
	switch name {
	case "source":
		section, p.t.Source = expectSource, value
	case "expect":
		section, p.t.Expect = expectExpect, value
	case "atr":
		section = expectATR
		b, err := upperHex(value)
		if err != nil {
			return false, err
		}
		if len(b) < 2 || len(b) > 33 {
			return false, fmt.Errorf("answer to reset of %d bytes, 2 to 33 allowed", len(b))
		}
		p.t.ATR = b
	default:
		return false, nil
	}
	if p.next > section {
		return false, fmt.Errorf("%s is out of order: source, expect, atr, each once", name)
	}
	if value != strings.TrimSpace(value) || value == "" {
		return false, fmt.Errorf("%s is empty, or has spaces around it", name)
	}
	p.next = section + 1
	return true, nil
}

func (p *traceParser) body(line string) (TraceLine, error) {
	switch {
	case line == "":
		return TraceLine{Kind: TraceBlank}, nil
	case line[0] == '#':
		return TraceLine{Kind: TraceComment, Text: strings.TrimPrefix(line[1:], " ")}, nil
	case line[0] == '>':
		return p.apdu(TraceCommand, line[1:])
	case line[0] == '<':
		return p.apdu(TraceResponse, line[1:])
	case line == "! reset":
		return TraceLine{Kind: TraceReset}, nil
	case line == "! removed":
		return TraceLine{Kind: TraceRemoved}, nil
	}
	if quoted, ok := strings.CutPrefix(line, "! error "); ok {
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return TraceLine{}, errors.New("the error's text is not a quoted string")
		}
		return TraceLine{Kind: TraceError, Text: text}, nil
	}
	return TraceLine{}, fmt.Errorf("%.40q is no line of a trace", line)
}

// apdu reads groups of hexadecimal digits and at most one redacted part. That
// the groups are the right ones is seen when the line is written again.
func (p *traceParser) apdu(kind TraceKind, groups string) (TraceLine, error) {
	l := TraceLine{Kind: kind, APDU: []byte{}}
	groups, l.Malformed = strings.CutPrefix(groups, " raw")
	for groups != "" {
		var group string
		groups = strings.TrimPrefix(groups, " ")
		if !strings.HasPrefix(groups, "[") {
			if i := strings.IndexByte(groups, ' '); i >= 0 {
				group, groups = groups[:i], groups[i:]
			} else {
				group, groups = groups, ""
			}
			b, err := upperHex(group)
			if err != nil {
				return l, err
			}
			l.APDU = append(l.APDU, b...)
			continue
		}
		number, after, ok := strings.Cut(groups[1:], " bytes]")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 1 || l.Redacted {
			return l, errors.New("a part that was left out is written as [12 bytes], once")
		}
		if n > p.budget { // before the memory is taken
			return l, fmt.Errorf("more than %d bytes in all", MaxTraceSize)
		}
		l.Redacted = true
		l.APDU = append(l.APDU, make([]byte, n)...)
		groups = after
	}
	if p.budget -= len(l.APDU); p.budget < 0 {
		return l, fmt.Errorf("more than %d bytes in all", MaxTraceSize)
	}
	if l.Redacted {
		return l, nil // whether it is malformed can't be seen any more
	}
	if kind == TraceCommand {
		return commandLine(l.APDU), nil
	}
	return responseLine(l.APDU), nil
}

// withoutControls replaces what would end a line, or is not UTF-8.
func withoutControls(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// upperHex reads what %X writes.
func upperHex(s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || strings.ToUpper(s) != s {
		return nil, fmt.Errorf("%.40q is not bytes in upper-case hexadecimal digits", s)
	}
	return b, nil
}
