package vpcd

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// acknowledge makes the system acknowledge what has come at once. Where that
// fails the connection is only slower.
func acknowledge(conn net.Conn) {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	})
}
