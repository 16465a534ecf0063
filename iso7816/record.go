package iso7816

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// CarriesSecret reports whether the data field of a command is a PIN, a key
// or personal data as it is written to a card: VERIFY, CHANGE REFERENCE DATA,
// RESET RETRY COUNTER, PUT KEY and STORE DATA, whatever the class byte. The
// data is taken as secret even under a secure channel.
func CarriesSecret(c Command) bool {
	switch c.INS {
	case 0x20, 0x21, 0x24, 0x25, 0x2C, 0x2D, 0xD8, 0xE2:
		return true
	}
	return false
}

// RecorderOptions says what a recorder writes beside commands and responses.
// The zero value is a good one.
type RecorderOptions struct {
	// Source and Expect stand in the trace's header. Control characters
	// become spaces.
	Source, Expect string
	// Secret chooses the commands whose data is left out; nil is
	// [CarriesSecret]. A function that always returns false writes down every
	// PIN and key: for cards that hold nothing real.
	Secret func(Command) bool
	// SecretResponse chooses the commands whose response data is left out,
	// wherever GET RESPONSE fetches it; nil is none.
	SecretResponse func(Command) bool
	// Now adds the time of every command, as a comment; nil writes no times,
	// so that the same exchange gives the same bytes.
	Now func() time.Time
}

// Recorder is a card that writes down what is said to it.
type Recorder interface {
	Card
	AnswerToReset
	ExtendedLength
	// Err returns the first error of the writer.
	Err() error
}

// NewRecorder returns a card that passes everything on to card and writes it
// to w in the trace format, a line at a time. It offers [Resetter],
// [Transactor] and [io.Closer] exactly where card does.
//
// Once w has failed nothing more is sent: Transmit fails before the card sees
// the command, so nothing happens to a card that is not in the trace. An
// answer that has come is always returned; when writing just that failed, the
// next command says so, and Err and Close do.
func NewRecorder(card Card, w io.Writer, o RecorderOptions) Recorder {
	if o.Secret == nil {
		o.Secret = CarriesSecret
	}
	r := &recorder{card: card, w: w, o: o}
	head := Trace{Source: o.Source, Expect: o.Expect, ATR: r.ATR()}
	r.write(head.header() + "\n")

	resetter, canReset := card.(Resetter)
	transactor, canTransact := card.(Transactor)
	closer, canClose := card.(io.Closer)
	reset, closing := recordedReset{r, resetter}, recordedClose{r, closer}
	switch {
	case canReset && canTransact && canClose:
		return struct {
			*recorder
			recordedReset
			Transactor
			recordedClose
		}{r, reset, transactor, closing}
	case canReset && canTransact:
		return struct {
			*recorder
			recordedReset
			Transactor
		}{r, reset, transactor}
	case canReset && canClose:
		return struct {
			*recorder
			recordedReset
			recordedClose
		}{r, reset, closing}
	case canTransact && canClose:
		return struct {
			*recorder
			Transactor
			recordedClose
		}{r, transactor, closing}
	case canReset:
		return struct {
			*recorder
			recordedReset
		}{r, reset}
	case canTransact:
		return struct {
			*recorder
			Transactor
		}{r, transactor}
	case canClose:
		return struct {
			*recorder
			recordedClose
		}{r, closing}
	}
	return r
}

type recorder struct {
	card Card
	w    io.Writer
	o    RecorderOptions
	rest bool // GET RESPONSE would fetch the rest of a secret response

	mu  sync.Mutex // Close and Err may come from another goroutine
	err error
}

func (r *recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *recorder) write(text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		if _, err := io.WriteString(r.w, text); err != nil {
			r.err = fmt.Errorf("writing the trace: %w", err)
		}
	}
	return r.err
}

func (r *recorder) ATR() []byte {
	if a, ok := r.card.(AnswerToReset); ok {
		return a.ATR()
	}
	return nil
}

func (r *recorder) ExtendedLength() bool {
	x, ok := r.card.(ExtendedLength)
	return ok && x.ExtendedLength()
}

func (r *recorder) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	line := commandLine(command)
	c, err := ParseCommand(command)
	if err != nil && len(command) >= 4 {
		c = Command{CLA: command[0], INS: command[1], P1: command[2], P2: command[3]}
	}
	if r.o.Secret(c) {
		line = line.redact()
	}
	name := InstructionName(c.CLA, c.INS)
	if r.o.Now != nil {
		name += " " + r.o.Now().UTC().Format(time.RFC3339Nano)
	}
	comment := TraceLine{Kind: TraceComment, Text: name}
	if err := r.write(comment.String() + "\n" + line.String() + "\n"); err != nil {
		return nil, err
	}
	answer, err := r.card.Transmit(ctx, command)
	if err != nil {
		r.write(outcome(err))
		return answer, err
	}
	line = responseLine(answer)
	secret := r.o.SecretResponse != nil && r.o.SecretResponse(c) || r.rest && c.INS == insGetResponse
	if secret {
		line = line.redact()
	}
	text := line.String() + "\n"
	a, err := ParseResponse(answer)
	r.rest = err == nil && secret && (a.SW>>8 == 0x61 || a.SW>>8 == 0x6C)
	if meaning := a.SW.Error(); err == nil && a.SW != OK && meaning != a.SW.String() {
		text += TraceLine{Kind: TraceComment, Text: meaning}.String() + "\n"
	}
	r.write(text)
	return answer, nil
}

func outcome(err error) string {
	line := TraceLine{Kind: TraceError, Text: err.Error()}
	if errors.Is(err, ErrCardRemoved) {
		line = TraceLine{Kind: TraceRemoved}
	}
	return line.String() + "\n"
}

type recordedReset struct {
	r    *recorder
	card Resetter
}

func (x recordedReset) Reset(ctx context.Context) error {
	if err := x.r.write(TraceLine{Kind: TraceReset}.String() + "\n"); err != nil {
		return err
	}
	err := x.card.Reset(ctx)
	if err != nil {
		x.r.write(outcome(err))
	}
	return err
}

type recordedClose struct {
	r    *recorder
	card io.Closer
}

func (x recordedClose) Close() error { return errors.Join(x.card.Close(), x.r.Err()) }
