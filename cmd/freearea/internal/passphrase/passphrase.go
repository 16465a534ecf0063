// Package passphrase gets a passphrase from a file, a file descriptor or a
// person at the terminal. There is no way to give one as an argument or in the
// environment, where other processes and shell histories would see it.
package passphrase

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
)

// MaxSize is the longest passphrase, in bytes.
const MaxSize = 1024

var (
	// ErrEmpty: there is no passphrase in the file, or nothing was typed.
	ErrEmpty = errors.New("the passphrase is empty")
	// ErrTooLong: more than MaxSize bytes, so probably the wrong file.
	ErrTooLong = fmt.Errorf("the passphrase is longer than %d bytes", MaxSize)
	// ErrPermissions: others than its owner can read the passphrase file.
	ErrPermissions = errors.New("passphrase file can be read or written by others than its owner")
	// ErrMismatch: a new passphrase was typed differently the second time.
	ErrMismatch = errors.New("the two passphrases are not the same")
	// ErrNoTerminal: nothing was given, and there is nobody to ask.
	ErrNoTerminal = errors.New("no terminal to ask for the passphrase")
	// ErrBoth: a file and a descriptor are given.
	ErrBoth = errors.New("a passphrase comes from a file or from a file descriptor, not from both")
)

// Prompter asks a person, without echo. The result is the reader's to erase.
type Prompter interface {
	Ask(ctx context.Context, question string) ([]byte, error)
}

// Source says where a passphrase comes from. The zero value asks at the
// terminal.
type Source struct {
	File string // path of a file that only its owner can read (mode 0600)
	// Credential says that File stands in a directory that a service manager
	// guards. Its mode is not looked at then: an access list that lets the
	// service's user read it shows there as a right of the group.
	Credential bool
	// FD is an open file descriptor, 0 for standard input; nil for none. It is
	// read to its end, so it gives its passphrase once.
	FD *int
	// Prompt asks when neither is given; nil is the terminal.
	Prompt Prompter
}

// Read returns the passphrase, which the caller erases after use. question is
// what a person is asked, for example "passphrase of site.keys". Of a file or
// descriptor, exactly one line ending (LF or CR LF) is taken off the end.
func (s Source) Read(ctx context.Context, question string) ([]byte, error) {
	return s.read(ctx, question, "")
}

// ReadNew is Read for a passphrase that is about to be set: a person is asked
// twice, the second time with again, and ErrMismatch is the answer when the
// two differ.
func (s Source) ReadNew(ctx context.Context, question, again string) ([]byte, error) {
	return s.read(ctx, question, again)
}

func (s Source) read(ctx context.Context, question, again string) ([]byte, error) {
	switch {
	case s.File != "" && s.FD != nil:
		return nil, ErrBoth
	case s.File != "":
		return readPath(s.File, s.Credential)
	case s.FD != nil:
		return readDescriptor(*s.FD)
	}
	prompt := s.Prompt
	if prompt == nil {
		prompt = Terminal{}
	}
	p, err := prompt.Ask(ctx, question)
	if err != nil {
		return nil, err
	}
	if len(p) == 0 {
		return nil, ErrEmpty
	}
	if len(p) > MaxSize {
		clear(p)
		return nil, ErrTooLong
	}
	if again != "" {
		second, err := prompt.Ask(ctx, again)
		defer clear(second)
		if err == nil && !bytes.Equal(p, second) {
			err = ErrMismatch
		}
		if err != nil {
			clear(p)
			return nil, err
		}
	}
	return p, nil
}

func readPath(path string, guarded bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if perm := info.Mode().Perm(); !guarded && runtime.GOOS != "windows" && perm&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w: mode %04o, 0600 expected", path, ErrPermissions, perm)
	}
	return readAll(f, path)
}

func readDescriptor(fd int) ([]byte, error) {
	name := "file descriptor " + strconv.Itoa(fd)
	switch {
	case fd == 0:
		// Not os.NewFile: its cleanup would close standard input.
		return readAll(os.Stdin, "standard input")
	case fd < 3:
		return nil, fmt.Errorf("%s: a passphrase cannot be read from there", name)
	}
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return nil, fmt.Errorf("%s: %w", name, os.ErrInvalid)
	}
	defer f.Close()
	return readAll(f, name)
}

// readAll reads a passphrase to the end of r and takes one line ending off.
func readAll(r io.Reader, name string) ([]byte, error) {
	b := make([]byte, MaxSize+3) // room for CR LF, and to see that there is more
	n, err := io.ReadFull(r, b)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		clear(b)
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	p := b[:n]
	if trimmed, ok := bytes.CutSuffix(p, []byte{'\n'}); ok {
		p = bytes.TrimSuffix(trimmed, []byte{'\r'})
	}
	switch {
	case len(p) == 0:
		err = ErrEmpty
	case len(p) > MaxSize:
		err = ErrTooLong
	default:
		clear(b[len(p):])
		return p, nil
	}
	clear(b)
	return nil, fmt.Errorf("%s: %w", name, err)
}
