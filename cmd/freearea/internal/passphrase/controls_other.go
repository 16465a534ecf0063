//go:build !windows

package passphrase

import "os"

// obeyControls does nothing: terminals do what control sequences say.
func obeyControls(*os.File) error { return nil }
