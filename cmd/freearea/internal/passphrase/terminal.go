package passphrase

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/term"
)

// Terminal asks at the controlling terminal, whatever standard input and
// output are, and echoes nothing.
type Terminal struct{}

// Ask implements Prompter. A cancelled context ends the wait and leaves the
// terminal as it was. Without a terminal the error wraps ErrNoTerminal. The
// question is shown as it is.
func (Terminal) Ask(ctx context.Context, question string) ([]byte, error) {
	return ask(ctx, question, func(in *os.File) ([]byte, error) { return term.ReadPassword(int(in.Fd())) }, unseen)
}

// Show shows text that one person alone is to see, with a question below it,
// and takes it off the screen when that person has pressed Enter, or ctx ends:
// the screen is cleared, and what a terminal keeps of lines that have scrolled
// away. What records the terminal has it all the same.
func (Terminal) Show(ctx context.Context, text, question string) error {
	_, err := ask(ctx, text+"\n"+question, readLine, shown)
	return err
}

// AskOpenly is Ask for what is no secret: it is seen as it is typed.
func (Terminal) AskOpenly(ctx context.Context, question string) (string, error) {
	line, err := ask(ctx, question, readLine, open)
	return string(line), err
}

// readLine reads a line byte by byte, so that none of the next is taken.
func readLine(in *os.File) ([]byte, error) {
	var line []byte
	for b := make([]byte, 1); len(line) <= MaxSize; {
		if _, err := in.Read(b); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		line = append(line, b[0])
	}
	return nil, ErrTooLong
}

// manner is what is seen of a question and its answer.
type manner int

const (
	open   manner = iota // both
	unseen               // the question alone
	shown                // the question, and not when it is answered
)

// clearScreen moves to the first line, clears the screen, and what has scrolled
// away (ECMA-48 CUP and ED; 3 is xterm's, which others understand).
const clearScreen = "\x1b[H\x1b[2J\x1b[3J"

func ask(ctx context.Context, question string, read func(*os.File) ([]byte, error), how manner) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in, out, err := terminal()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err == nil && how != open {
		err = quiet(fd)
	}
	if err == nil && how == shown {
		err = obeyControls(out)
	}
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("%w: %v", ErrNoTerminal, err)
	}
	if how == shown {
		defer fmt.Fprint(out, clearScreen)
	}
	fmt.Fprint(out, question)

	type answer struct {
		p   []byte
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer in.Close()
		p, err := read(in)
		term.Restore(fd, before)
		done <- answer{p, err}
	}()
	select {
	case a := <-done:
		if how == unseen {
			fmt.Fprintln(out) // the person's line feed was not echoed
		}
		if a.err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", a.err)
		}
		return a.p, nil
	case <-ctx.Done():
		// The goroutine stays in its read, which nothing interrupts. It closes
		// the descriptor itself, or another file could be given its number.
		term.Restore(fd, before)
		fmt.Fprintln(out)
		return nil, ctx.Err()
	}
}

// terminal opens the controlling terminal for reading and writing.
func terminal() (in, out *os.File, err error) {
	if runtime.GOOS == "windows" {
		if in, err = os.OpenFile("CONIN$", os.O_RDWR, 0); err == nil {
			if out, err = os.OpenFile("CONOUT$", os.O_RDWR, 0); err != nil {
				in.Close()
			}
		}
	} else if in, err = os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		if out, err = os.OpenFile("/dev/tty", os.O_WRONLY, 0); err != nil {
			in.Close()
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %v", ErrNoTerminal, err)
	}
	return in, out, nil
}
