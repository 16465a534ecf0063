package emulator

import (
	"bytes"

	"github.com/freearea/freearea/iso7816"
)

// held is the response to a command of T=0 that named another length than its
// own: the card gives it when the same header comes again with the right one.
type held struct {
	header   [4]byte
	response iso7816.Response
}

// parseT0 reads a command as T=0 carries it (ISO/IEC 7816-3, 12.2): five bytes,
// of which the last is P3, and as much data as P3 says. Four bytes are a P3 of
// zero; the Le behind the data, which interface devices keep to themselves, is
// dropped. There are no extended-length commands.
func parseT0(command []byte) (iso7816.Command, error) {
	n := len(command)
	if n > 5 {
		p3 := int(command[4])
		if p3 == 0 || n != 5+p3 && n != 5+p3+1 {
			return iso7816.Command{}, iso7816.ErrWrongLength
		}
		command = command[:5+p3]
	}
	return iso7816.ParseCommand(command)
}

// again returns what is held back for a command.
func (l *logicalChannel) again(cmd iso7816.Command) (iso7816.Response, bool) {
	h := l.held
	l.held = nil
	if h == nil || len(cmd.Data) != 0 || h.header != [4]byte{cmd.CLA, cmd.INS, cmd.P1, cmd.P2} || cmd.Ne != len(h.response.Data) {
		return iso7816.Response{}, false
	}
	return h.response, true
}

// fitT0 is fit for T=0 (JCRE 9.4.1; ISO/IEC 7816-3, 12.2): the response to a
// command with data waits for GET RESPONSE, announced by 61xx, and one that is
// shorter than Le for the same command with its own length, 6Cxx.
func (c *Card) fitT0(cmd iso7816.Command, r iso7816.Response) iso7816.Response {
	if r.SW != iso7816.OK && !r.SW.Warning() {
		return iso7816.Response{SW: r.SW}
	}
	n, ne := len(r.Data), cmd.Ne
	if ne == 0 {
		ne = iso7816.MaxShortNe
	}
	switch {
	case n == 0:
		return r
	case len(cmd.Data) > 0:
		c.at.rest, c.at.restSW = r.Data, r.SW
		return iso7816.Response{SW: remaining(0x6100, n)}
	case n < ne:
		c.at.held = &held{[4]byte{cmd.CLA, cmd.INS, cmd.P1, cmd.P2}, iso7816.Response{Data: bytes.Clone(r.Data), SW: r.SW}}
		return iso7816.Response{SW: remaining(0x6C00, n)}
	}
	return c.fit(r, ne)
}

// remaining is a status word that says how many bytes there are: 00 stands for
// 256 and more.
func remaining(sw iso7816.SW, n int) iso7816.SW {
	if n < 256 {
		sw |= iso7816.SW(n)
	}
	return sw
}
