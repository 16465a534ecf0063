//go:build nopcsc || (!cgo && !windows)

package pcsc

// Built reports whether this program holds a PC/SC implementation.
const Built = false

// system stands where the PC/SC library would be.
type system struct{}

func (system) establish() (session, error) { return nil, ErrNotBuilt }
