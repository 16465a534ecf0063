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

// maxGetResponse bounds the GET RESPONSE commands after one command: 64 KiB
// in parts of 256 bytes.
const maxGetResponse = 256

// Send sends one command and gathers the whole response. 6Cxx repeats the
// command once with the length that the card names; 61xx fetches the rest
// with GET RESPONSE, whose class byte is the command's (7.6.1), up to 65,536
// bytes in all. Commands are short unless they need the extended form.
func Send(ctx context.Context, card Card, c Command) (Response, error) {
	if c.NeedsExtended() || c.Extended {
		if x, ok := card.(ExtendedLength); !ok || !x.ExtendedLength() {
			return Response{}, fmt.Errorf("%s: %w", InstructionName(c.CLA, c.INS), ErrExtendedLength)
		}
	}
	r, err := transmit(ctx, card, c)
	if err != nil {
		return Response{}, err
	}
	if r.SW>>8 == 0x6C {
		c.Ne = ne(int(r.SW&0xFF), MaxShortNe)
		if r, err = transmit(ctx, card, c); err != nil {
			return Response{}, err
		}
		if r.SW>>8 == 0x6C {
			return Response{}, fmt.Errorf("%w: %v after the length it asked for", ErrProtocol, r.SW)
		}
	}
	if r.SW>>8 != 0x61 {
		return r, nil
	}
	data := append([]byte(nil), r.Data...)
	for range maxGetResponse {
		next := Command{CLA: c.CLA, INS: 0xC0, Ne: ne(int(r.SW&0xFF), MaxShortNe)}
		if r, err = transmit(ctx, card, next); err != nil {
			return Response{}, err
		}
		if r.SW>>8 == 0x6C {
			next.Ne = ne(int(r.SW&0xFF), MaxShortNe)
			if r, err = transmit(ctx, card, next); err != nil {
				return Response{}, err
			}
		}
		data = append(data, r.Data...)
		if len(data) > MaxExtendedNe {
			return Response{}, fmt.Errorf("%w: more than %d response bytes", ErrProtocol, MaxExtendedNe)
		}
		if r.SW>>8 != 0x61 {
			return Response{Data: data, SW: r.SW}, nil
		}
		if len(r.Data) == 0 {
			return Response{}, fmt.Errorf("%w: GET RESPONSE answered no data and %v", ErrProtocol, r.SW)
		}
	}
	return Response{}, fmt.Errorf("%w: still %v after %d GET RESPONSE commands", ErrProtocol, r.SW, maxGetResponse)
}

func transmit(ctx context.Context, card Card, c Command) (Response, error) {
	b, err := c.Encode()
	if err != nil {
		return Response{}, err
	}
	answer, err := card.Transmit(ctx, b)
	if err != nil {
		return Response{}, fmt.Errorf("%s: %w", InstructionName(c.CLA, c.INS), err)
	}
	r, err := ParseResponse(answer)
	if err != nil {
		return Response{}, fmt.Errorf("%s: %w", InstructionName(c.CLA, c.INS), err)
	}
	return r, nil
}

// Do sends c and returns the response data; a status word other than 9000 is
// a [*StatusError].
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
