package passphrase

import (
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
// terminal as it was. Without a terminal the error wraps ErrNoTerminal.
func (Terminal) Ask(ctx context.Context, question string) ([]byte, error) {
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
	fmt.Fprintf(out, "%s: ", question)

	type answer struct {
		p   []byte
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer in.Close()
		p, err := term.ReadPassword(fd)
		done <- answer{p, err}
	}()
	defer out.Close()
	select {
	case a := <-done:
		fmt.Fprintln(out) // the person's line feed was not echoed
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
