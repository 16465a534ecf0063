//go:build nopcsc || (!cgo && !windows)

package pcsc

import (
	"errors"
	"testing"

	"github.com/freearea/freearea/iso7816"
)

func TestNotBuilt(t *testing.T) {
	s := New(Options{})
	_, errSlots := s.Slots(t.Context())
	_, errOpen := s.Open(t.Context(), "Device", iso7816.Shared)
	var errEvents error
	for _, err := range s.Events(t.Context()) {
		errEvents = err
	}
	for _, err := range []error{errSlots, errOpen, errEvents} {
		if !errors.Is(err, ErrNotBuilt) {
			t.Errorf("error %v, want ErrNotBuilt", err)
		}
	}
	if f := s.Diagnose(t.Context()); len(f) != 1 || f[0].Code != FindingNotBuilt {
		t.Errorf("findings %+v", f)
	}
}
