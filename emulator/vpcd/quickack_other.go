//go:build !linux

package vpcd

import "net"

// acknowledge does nothing: the setting is Linux's.
func acknowledge(net.Conn) {}
