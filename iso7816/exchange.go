package iso7816

import (
	"context"
	"errors"
	"fmt"
)

// ErrProtocol reports a card that breaks the rules of the protocol: neither
// removed nor refusing, but not to be trusted further.
var ErrProtocol = errors.New("card violates the protocol")

// ErrExtendedLength reports a command that needs the extended form on a card
// or slot that does not take it.
var ErrExtendedLength = errors.New("extended length not supported by this card and slot")

// Sender sends commands: a card in the clear (see [Plain]), or a secure
// channel to one.
type Sender interface {
	// Send sends c and returns the whole answer. A status word other than
	// 9000 is no error here.
	Send(ctx context.Context, c Command) (Response, error)
}

// Plain returns a Sender that sends to the card without secure messaging,
// through [Send].
func Plain(card Card) Sender { return plain{card} }

type plain struct{ card Card }

func (p plain) Send(ctx context.Context, c Command) (Response, error) { return Send(ctx, p.card, c) }

const insGetResponse = 0xC0

// maxGetResponse bounds the GET RESPONSE commands after one command: 64 KiB
// in parts of 256 bytes.
const maxGetResponse = 256

// Send sends one command and gathers the whole response. 6Cxx repeats a
// command that asks for data once, with the length that the card names (any
// other, such as VERIFY and EXTERNAL AUTHENTICATE, has no wrong length and is
// never repeated, whatever the card says); 61xx fetches the rest
// with GET RESPONSE, whose class byte is the command's (7.6.1), up to 65,536
// bytes in all. Commands are short unless they need the extended form.
//
// A card that answers otherwise than the protocol allows, or without end, is
// an error that wraps [ErrProtocol]; an error of the card's Transmit is
// wrapped, with the name of the command.
func Send(ctx context.Context, card Card, c Command) (Response, error) {
	if c.NeedsExtended() || c.Extended && (len(c.Data) > 0 || c.Ne > 0) {
		if x, ok := card.(ExtendedLength); !ok || !x.ExtendedLength() {
			return Response{}, fmt.Errorf("%s: %w", InstructionName(c.CLA, c.INS), ErrExtendedLength)
		}
	}
	r, err := transmit(ctx, card, c)
	if err != nil || r.SW>>8 != 0x61 {
		return r, err
	}
	data := append([]byte(nil), r.Data...)
	for range maxGetResponse {
		r, err = transmit(ctx, card, Command{CLA: c.CLA, INS: insGetResponse, Ne: ne(int(r.SW&0xFF), MaxShortNe)})
		if err != nil {
			return Response{}, fmt.Errorf("%s: %w", InstructionName(c.CLA, c.INS), err)
		}
		data = append(data, r.Data...)
		switch {
		case len(data) > MaxExtendedNe:
			return Response{}, violation(c, "more than %d response bytes", MaxExtendedNe)
		case r.SW>>8 != 0x61:
			return Response{Data: data, SW: r.SW}, nil
		case len(r.Data) == 0:
			return Response{}, violation(c, "GET RESPONSE answered no data and %v", r.SW)
		}
	}
	return Response{}, violation(c, "still %v after %d GET RESPONSE commands", r.SW, maxGetResponse)
}

// transmit sends c, and once more with the right length if the card answers
// 6Cxx: it has then not carried the command out (5.6).
func transmit(ctx context.Context, card Card, c Command) (Response, error) {
	r, err := transmitOnce(ctx, card, c)
	if err != nil || r.SW>>8 != 0x6C || c.Ne == 0 {
		return r, err
	}
	c.Ne = ne(int(r.SW&0xFF), MaxShortNe)
	r, err = transmitOnce(ctx, card, c)
	if err == nil && r.SW>>8 == 0x6C {
		return Response{}, violation(c, "%v after the length it asked for", r.SW)
	}
	return r, err
}

func transmitOnce(ctx context.Context, card Card, c Command) (Response, error) {
	b, err := c.Encode()
	if err != nil {
		return Response{}, fmt.Errorf("%s: %w", InstructionName(c.CLA, c.INS), err)
	}
	answer, err := card.Transmit(ctx, b)
	if err != nil {
		return Response{}, fmt.Errorf("%s: %w", InstructionName(c.CLA, c.INS), err)
	}
	r, err := ParseResponse(answer)
	if err != nil {
		return Response{}, fmt.Errorf("%s: %w: %w", InstructionName(c.CLA, c.INS), ErrProtocol, err)
	}
	return r, nil
}

func violation(c Command, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", InstructionName(c.CLA, c.INS), ErrProtocol, fmt.Sprintf(format, args...))
}

// Do sends c and returns the response data; a status word other than 9000 is
// a [*StatusError], beside which the data is whatever the card sent with it.
func Do(ctx context.Context, s Sender, c Command) ([]byte, error) {
	r, err := s.Send(ctx, c)
	if err != nil {
		return nil, err
	}
	return r.Data, r.Err(c)
}

// Select returns SELECT by AID (7.1.1; GPCS 11.9), first or only occurrence,
// asking for the file control information.
func Select(aid AID) Command {
	return Command{INS: 0xA4, P1: 0x04, Data: aid.Bytes(), Ne: MaxShortNe}
}
