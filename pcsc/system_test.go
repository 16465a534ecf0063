//go:build !nopcsc && (cgo || windows)

package pcsc

import (
	"errors"
	"strings"
	"testing"

	"github.com/ebfe/scard"
)

// The binding panics on these; here they are errors.
func TestBindingPanics(t *testing.T) {
	var h scardHandle
	h.card = new(scard.Card) // no protocol
	if _, err := h.transmit([]byte{0, 0xA4, 0, 0}); !errors.Is(err, CodeProtoMismatch) {
		t.Errorf("undefined protocol: %v", err)
	}
	if _, err := h.transmit(nil); !errors.Is(err, CodeInvalidParameter) {
		t.Errorf("empty command: %v", err)
	}
	s := &scardSession{ctx: new(scard.Context)}
	if err := s.wait(nil, 0); !errors.Is(err, CodeTimeout) {
		t.Errorf("no states: %v", err)
	}
	h.card = nil
	if err := h.begin(); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("a panic in the binding: %v", err)
	}
}

func TestMarks(t *testing.T) {
	var p markPool
	a, b := p.take(), p.take()
	if a == b {
		t.Errorf("two sessions have the mark %d", a)
	}
	p.give(a)
	if c := p.take(); c != a {
		t.Errorf("mark %d after %d was given back", c, a)
	}
}
