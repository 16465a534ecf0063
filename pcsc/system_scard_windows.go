//go:build !nopcsc

package pcsc

// markName leaves the name alone: the binding keeps no map on Windows, and
// refuses a NUL.
func markName(name string, _ int) string { return name }
