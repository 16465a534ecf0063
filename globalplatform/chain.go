package globalplatform

import (
	"context"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// moreCommands is P1.b8 of DELETE, INSTALL and PUT KEY: the command goes on.
const moreCommands = 0x80

// maxChain bounds a chained command: what a token, an RSA key and generous
// parameters take.
const maxChain = 4096

// Chainer is offered by senders that can send a command too long for one as a
// sequence (11.1.5.1), such as a session of package scp, whose protection
// covers the whole.
type Chainer interface {
	SendChained(ctx context.Context, c iso7816.Command) (iso7816.Response, error)
}

// chainable builds a command that may be longer than 255 bytes.
func chainable(ins, p1, p2 byte, data []byte) (iso7816.Command, error) {
	if len(data) > maxChain {
		return iso7816.Command{}, fmt.Errorf("%w: %s takes %d data bytes, %d at most",
			ErrCommand, iso7816.InstructionName(cla, ins), len(data), maxChain)
	}
	return iso7816.Command{CLA: cla, INS: ins, P1: p1, P2: p2, Data: data, Ne: iso7816.MaxShortNe}, nil
}

// send sends a command, chained where it does not fit.
func send(ctx context.Context, s iso7816.Sender, c iso7816.Command) (iso7816.Response, error) {
	if len(c.Data) <= MaxData(s) {
		return s.Send(ctx, c)
	}
	if x, ok := s.(Chainer); ok {
		return x.SendChained(ctx, c)
	}
	for len(c.Data) > iso7816.MaxShortData {
		part := c
		part.P1, part.Data, part.Ne = c.P1|moreCommands, c.Data[:iso7816.MaxShortData], 0
		if r, err := s.Send(ctx, part); err != nil || r.SW != iso7816.OK {
			return r, err
		}
		c.Data = c.Data[iso7816.MaxShortData:]
	}
	return s.Send(ctx, c)
}

// Chain gathers a chained command (11.1.5.1) on the card's side. The zero
// value is ready.
type Chain struct {
	cmd  iso7816.Command
	open bool
}

// Add takes the next command, as it came over the wire. When it is one of
// DELETE, INSTALL or PUT KEY and says that more follow, it is kept and the
// result is no command: the card answers 9000 and nothing else, without R-MAC.
// When it is the last, or was never part of a chain, the result is the whole
// command, over which the secure channel's protection goes.
//
// A command that does not go on with the one before, with the same header, is
// the error 6985, and one too long 6A86; in either case the chain is over and
// the command not carried out.
func (c *Chain) Add(cmd iso7816.Command) (*iso7816.Command, error) {
	if !isChainable(cmd) {
		if c.open {
			c.Reset()
			return nil, iso7816.ErrConditions
		}
		return &cmd, nil
	}
	more := cmd.P1&moreCommands != 0
	cmd.P1 &^= moreCommands
	if !c.open {
		if !more {
			return &cmd, nil
		}
		c.cmd, c.open = cmd, true
		c.cmd.Data = append([]byte(nil), cmd.Data...)
		return nil, nil
	}
	switch {
	case cmd.Header() != c.cmd.Header():
		c.Reset()
		return nil, iso7816.ErrConditions
	case len(c.cmd.Data)+len(cmd.Data) > maxChain:
		c.Reset()
		return nil, iso7816.ErrIncorrectP1P2
	}
	c.cmd.Data = append(c.cmd.Data, cmd.Data...)
	if more {
		return nil, nil
	}
	whole := c.cmd
	whole.Ne = cmd.Ne
	c.Reset()
	return &whole, nil
}

// Reset forgets a chain that was begun: selection, loss of power.
func (c *Chain) Reset() { *c = Chain{} }

func isChainable(c iso7816.Command) bool {
	return c.CLA&0x80 != 0 && (c.INS == 0xE4 || c.INS == 0xE6 || c.INS == 0xD8)
}
