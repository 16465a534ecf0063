package emulator

import (
	"testing"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// SCP02's R-MAC sessions of their own (GPCS E.5.3, E.5.4) and its implicit
// initiation are refused on purpose.
func TestRMACSessionsAreRefused(t *testing.T) {
	c := newTestCard(t)
	transmit(t, c, "00A40400 00")
	for _, ins := range []byte{0x7A, 0x78} {
		cmd := iso7816.Command{CLA: 0x80, INS: ins, P1: 0x10, P2: 0x01, Data: []byte{0}}
		want(t, iso7816.Plain(c), cmd, iso7816.ErrUnknownINS)
		want(t, authenticate(t, c, scp.Full), cmd, iso7816.ErrUnknownINS)
		transmit(t, c, "00A40400 00")
	}
	// A first command with a C-MAC, of whatever keys.
	want(t, iso7816.Plain(c), iso7816.Command{CLA: 0x84, INS: 0xF2, P1: 0x40, Data: make([]byte, 10)}, iso7816.ErrSecurityStatus)
}
