package passphrase

import "golang.org/x/sys/unix"

// quiet stops the echo, so that nothing is seen of what is typed between the
// question and the moment at which the answer is read.
func quiet(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
