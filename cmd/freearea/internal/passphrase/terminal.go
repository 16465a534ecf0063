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
	return ask(ctx, question, func(in *os.File) ([]byte, error) { return term.ReadPassword(int(in.Fd())) }, true)
}

// AskOpenly is Ask for what is no secret: it is seen as it is typed.
func (Terminal) AskOpenly(ctx context.Context, question string) (string, error) {
	line, err := ask(ctx, question, readLine, false)
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

func ask(ctx context.Context, question string, read func(*os.File) ([]byte, error), hidden bool) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in, out, err := open()
	if err != nil {
		return nil, err
	}
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("%w: %v", ErrNoTerminal, err)
	}
	if hidden {
		if err := quiet(fd); err != nil {
			in.Close()
			out.Close()
			return nil, fmt.Errorf("%w: %v", ErrNoTerminal, err)
		}
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
	defer out.Close()
	select {
	case a := <-done:
		if hidden {
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

// open opens the controlling terminal for reading and writing.
func open() (in, out *os.File, err error) {
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
