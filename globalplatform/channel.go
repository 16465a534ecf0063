package globalplatform

import (
	"context"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// maxChannel is the highest logical channel (11.1.4).
const maxChannel = 19

// ManageChannel is the MANAGE CHANNEL command (11.7), sent on the basic
// channel: it opens the next free logical channel, or the one of a number, or
// closes one.
type ManageChannel struct {
	Close  bool
	Number byte // 0 opens the next free one
}

// Command returns the command.
func (m ManageChannel) Command() (iso7816.Command, error) {
	if m.Number > maxChannel || m.Close && m.Number == 0 {
		return iso7816.Command{}, fmt.Errorf("%w: logical channel %d", ErrCommand, m.Number)
	}
	c := iso7816.Command{INS: 0x70, P2: m.Number}
	switch {
	case m.Close:
		c.P1 = 0x80
	case m.Number == 0:
		c.Ne = 1
	}
	return c, nil
}

// OpenChannel opens the next free logical channel and returns its number. A
// card without logical channels, or without a free one, answers with an error
// such as 6881 or 6A81. An answer that is no number of a supplementary channel
// wraps [ErrMalformed].
func OpenChannel(ctx context.Context, s iso7816.Sender) (byte, error) {
	cmd, err := ManageChannel{}.Command()
	if err != nil {
		return 0, err
	}
	data, err := iso7816.Do(ctx, s, cmd)
	if err != nil {
		return 0, err
	}
	if len(data) != 1 || data[0] == 0 || data[0] > maxChannel {
		return 0, malformed("MANAGE CHANNEL answered %X", data)
	}
	return data[0], nil
}

// CloseChannel closes a logical channel. One that was closed already is the
// warning 6200.
func CloseChannel(ctx context.Context, s iso7816.Sender, number byte) error {
	cmd, err := ManageChannel{Close: true, Number: number}.Command()
	if err != nil {
		return err
	}
	_, err = iso7816.Do(ctx, s, cmd)
	return err
}

// OnChannel returns a sender whose commands go to a logical channel, 0 to 19:
// it writes the number into their class bytes (tables 11-11, 11-12). A secure
// channel is opened over it, since no MAC covers the number. It panics on
// higher numbers.
func OnChannel(s iso7816.Sender, number byte) iso7816.Sender {
	if number > maxChannel {
		panic(fmt.Sprintf("globalplatform: logical channel %d", number))
	}
	return onChannel{s, number}
}

type onChannel struct {
	s      iso7816.Sender
	number byte
}

func (o onChannel) Send(ctx context.Context, c iso7816.Command) (iso7816.Response, error) {
	var err error
	if c.CLA, err = ChannelClass(c.CLA, o.number); err != nil {
		return iso7816.Response{}, err
	}
	return o.s.Send(ctx, c)
}

// ChannelClass returns a class byte of the basic channel as it is on another
// one. Secure messaging stays indicated, as does GlobalPlatform's bit 8; ISO/IEC
// 7816-4 secure messaging with an authenticated header (bits 4 and 3 set)
// exists on channels 0 to 3 only.
func ChannelClass(class, number byte) (byte, error) {
	switch {
	case class&0x43 != 0:
		return 0, fmt.Errorf("%w: class byte %02X is of another logical channel", ErrCommand, class)
	case number > maxChannel:
		return 0, fmt.Errorf("%w: logical channel %d", ErrCommand, number)
	case number < 4:
		return class | number, nil
	}
	out := class&0x90 | 0x40 | number - 4
	switch class & 0x0C {
	case 0x00:
	case 0x04, 0x08:
		out |= 0x20
	default:
		return 0, fmt.Errorf("%w: class byte %02X has no form on logical channel %d", ErrCommand, class, number)
	}
	return out, nil
}

// ClassChannel returns the logical channel of a class byte, and the class byte
// as on the basic channel (tables 11-11, 11-12): the card's side of
// [ChannelClass].
func ClassChannel(class byte) (number, basic byte) {
	if class&0x40 == 0 {
		return class & 0x03, class &^ 0x03
	}
	basic = class & 0x90
	if class&0x20 != 0 {
		basic |= 0x04
	}
	return class&0x0F + 4, basic
}
