package iso7816

import (
	"context"
	"errors"
	"fmt"
)

// ErrDeviation reports a command that is not the one that a replayed trace
// has at that place.
var ErrDeviation = errors.New("exchange deviates from the trace")

// ErrRedacted reports that a replayed trace can't answer, because what the
// card answered was left out when it was recorded.
var ErrRedacted = errors.New("response was left out of the trace")

// Replay is a card that answers from a trace. Not for concurrent use.
type Replay struct {
	t    *Trace
	next int   // index of the first line that is not yet used
	err  error // first deviation; everything after it fails alike
}

// Card returns a card that expects the trace's commands and resets, in order,
// and answers as the trace does. Redacted command data matches any data of
// its length. The first deviation is an error that wraps [ErrDeviation] and
// names the line; so is everything after it. Every call returns a new card
// that begins at the beginning.
func (t *Trace) Card() *Replay { return &Replay{t: t} }

// ATR returns the trace's answer to reset, nil when it has none.
func (r *Replay) ATR() []byte { return r.t.ATR }

// ExtendedLength reports whether a command of the trace is in the extended
// form: a caller that asks then chooses as the one that was recorded.
func (r *Replay) ExtendedLength() bool {
	for _, l := range r.t.Lines {
		if c, err := ParseCommand(l.APDU); l.Kind == TraceCommand && !l.Malformed && err == nil && c.Extended {
			return true
		}
	}
	return false
}

// Transmit answers as the trace does.
func (r *Replay) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	got := commandLine(command)
	if c, err := ParseCommand(command); err != nil || CarriesSecret(c) {
		got = got.redact() // it may end up in an error
	}
	line, err := r.request(ctx, got, func(l TraceLine) bool { return l.Kind == TraceCommand && l.matches(command) })
	if err != nil {
		return nil, err
	}
	answer, ok := r.skip()
	if !ok {
		r.err = fmt.Errorf("%w: it ends at line %d, before the answer", ErrDeviation, line.Number)
		return nil, r.err
	}
	r.next++
	switch {
	case answer.Kind != TraceResponse:
		return nil, answer.outcome()
	case answer.Redacted:
		r.err = fmt.Errorf("%w: line %d", ErrRedacted, answer.Number)
		return nil, r.err
	}
	return append([]byte(nil), answer.APDU...), nil
}

// Reset succeeds, or fails, as the trace's reset does.
func (r *Replay) Reset(ctx context.Context) error {
	_, err := r.request(ctx, TraceLine{Kind: TraceReset}, func(l TraceLine) bool { return l.Kind == TraceReset })
	if err != nil {
		return err
	}
	if l, ok := r.skip(); ok && (l.Kind == TraceRemoved || l.Kind == TraceError) {
		r.next++
		return l.outcome()
	}
	return nil
}

// Done returns nil when the whole trace was used, and an error that wraps
// [ErrDeviation] and names the first line that was not otherwise.
func (r *Replay) Done() error {
	if r.err != nil {
		return r.err
	}
	if l, ok := r.skip(); ok {
		return fmt.Errorf("%w at line %d: nothing came where the trace has %s", ErrDeviation, l.Number, l.brief())
	}
	return nil
}

// request uses the next line up if it is the one that is asked for.
func (r *Replay) request(ctx context.Context, got TraceLine, is func(TraceLine) bool) (TraceLine, error) {
	if err := ctx.Err(); err != nil {
		return TraceLine{}, err
	}
	if r.err != nil {
		return TraceLine{}, r.err
	}
	want, ok := r.skip()
	switch {
	case !ok:
		r.err = fmt.Errorf("%w: %s after its last line", ErrDeviation, got.brief())
	case !is(want):
		if want.Redacted {
			got = got.redact()
		}
		r.err = fmt.Errorf("%w at line %d: %s where the trace has %s", ErrDeviation, want.Number, got.brief(), want.brief())
	default:
		r.next++
		return want, nil
	}
	return TraceLine{}, r.err
}

// skip returns the next line that means something, without using it up.
func (r *Replay) skip() (TraceLine, bool) {
	for ; r.next < len(r.t.Lines); r.next++ {
		if l := r.t.Lines[r.next]; l.Kind != TraceBlank && l.Kind != TraceComment {
			return l, true
		}
	}
	return TraceLine{}, false
}

// outcome is the error that a line other than a response stands for.
func (l TraceLine) outcome() error {
	if l.Kind == TraceRemoved {
		return ErrCardRemoved
	}
	return errors.New(l.Text)
}

// brief is the line in quotes, cut where it is long.
func (l TraceLine) brief() string {
	s := l.String()
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return `"` + s + `"`
}
