//go:build !linux

package readerd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// openUinput: only Linux has keyboards in software in this way.
func openUinput(string, []uint16) (*os.File, error) {
	return nil, fmt.Errorf("keyboard: %s has no uinput: %w", runtime.GOOS, errors.ErrUnsupported)
}
