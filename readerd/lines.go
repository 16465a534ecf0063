package readerd

import (
	"context"
	"encoding/json"
	"io"
)

// Lines writes every event as a line of JSON (JSON Lines): to standard output,
// a pseudo-terminal, a named pipe or a file.
type Lines struct {
	name string
	w    io.Writer
}

// NewLines returns the output. The writer is the caller's to close.
func NewLines(name string, w io.Writer) *Lines { return &Lines{name, w} }

// Name implements [Output].
func (l *Lines) Name() string { return "lines " + l.name }

// Run implements [Output].
func (*Lines) Run(context.Context) error { return nil }

// Tell implements [Output].
func (l *Lines) Tell(_ context.Context, e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = l.w.Write(append(line, '\n'))
	return err
}
