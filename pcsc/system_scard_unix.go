//go:build !nopcsc && cgo && !windows

package pcsc

import "strconv"

// markName makes a name that is the same in C and another one in Go; see marks.
func markName(name string, mark int) string { return name + "\x00" + strconv.Itoa(mark) }
