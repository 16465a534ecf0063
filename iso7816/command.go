package iso7816

import (
	"errors"
	"fmt"
)

// Limits of command and response APDUs (5.1).
const (
	MaxShortData    = 255   // bytes of command data in a short APDU
	MaxExtendedData = 65535 // bytes of command data in an extended APDU
	MaxShortNe      = 256   // bytes of response data asked for by a short APDU
	MaxExtendedNe   = 65536 // bytes of response data asked for by an extended APDU
)

// ErrMalformedCommand reports bytes that are no command APDU, or a Command
// that has no encoding.
var ErrMalformedCommand = errors.New("malformed command APDU")

// Command is a command APDU of any of the four cases (5.1): with or without
// command data, with or without response data asked for.
type Command struct {
	CLA, INS, P1, P2 byte
	Data             []byte
	// Ne is the greatest number of response bytes asked for; 0 means that no
	// Le field is sent (cases 1 and 3). 256 is a short Le of 00, 65,536 an
	// extended Le of 0000.
	Ne int
	// Extended forces the extended form where the short one would do.
	Extended bool
}

// NeedsExtended reports whether only the extended form can carry c.
func (c Command) NeedsExtended() bool {
	return len(c.Data) > MaxShortData || c.Ne > MaxShortNe
}

// Header returns the class, instruction and parameter bytes.
func (c Command) Header() [4]byte { return [4]byte{c.CLA, c.INS, c.P1, c.P2} }

// Encode returns the bytes of the command, in the short form unless Extended
// is set or the lengths need the extended one. An extended command of case 1
// has no encoding of its own and is written as a short one.
func (c Command) Encode() ([]byte, error) {
	switch {
	case len(c.Data) > MaxExtendedData:
		return nil, fmt.Errorf("%w: %d data bytes, %d at most", ErrMalformedCommand, len(c.Data), MaxExtendedData)
	case c.Ne < 0 || c.Ne > MaxExtendedNe:
		return nil, fmt.Errorf("%w: Ne %d, 0 to %d allowed", ErrMalformedCommand, c.Ne, MaxExtendedNe)
	}
	out := make([]byte, 0, 4+3+len(c.Data)+2)
	out = append(out, c.CLA, c.INS, c.P1, c.P2)
	if !c.Extended && !c.NeedsExtended() {
		if len(c.Data) > 0 {
			out = append(out, byte(len(c.Data)))
			out = append(out, c.Data...)
		}
		if c.Ne > 0 {
			out = append(out, byte(c.Ne)) // 256 becomes 00
		}
		return out, nil
	}
	if len(c.Data) > 0 {
		out = append(out, 0, byte(len(c.Data)>>8), byte(len(c.Data)))
		out = append(out, c.Data...)
	}
	if c.Ne > 0 {
		if len(c.Data) == 0 {
			out = append(out, 0)
		}
		out = append(out, byte(c.Ne>>8), byte(c.Ne)) // 65,536 becomes 0000
	}
	return out, nil
}

// String names the command and its lengths, never its data: that may be a PIN.
func (c Command) String() string {
	return fmt.Sprintf("%s %X, %d data bytes, Ne %d", InstructionName(c.CLA, c.INS), c.Header(), len(c.Data), c.Ne)
}

// ParseCommand takes a command APDU apart. It accepts exactly what Encode
// produces: the bytes of the result are the bytes given. The data is a part
// of b, not a copy.
func ParseCommand(b []byte) (Command, error) {
	if len(b) < 4 {
		return Command{}, fmt.Errorf("%w: %d bytes, 4 at least", ErrMalformedCommand, len(b))
	}
	c := Command{CLA: b[0], INS: b[1], P1: b[2], P2: b[3]}
	body := b[4:]
	switch {
	case len(body) == 0: // case 1
		return c, nil
	case len(body) == 1: // case 2 short
		c.Ne = ne(int(body[0]), MaxShortNe)
		return c, nil
	case body[0] != 0: // short, with data
		lc := int(body[0])
		switch len(body) {
		case 1 + lc: // case 3
		case 1 + lc + 1: // case 4
			c.Ne = ne(int(body[1+lc]), MaxShortNe)
		default:
			return Command{}, fmt.Errorf("%w: Lc is %d but %d bytes follow", ErrMalformedCommand, lc, len(body)-1)
		}
		c.Data = body[1 : 1+lc : 1+lc]
		return c, nil
	}
	// Extended: the first byte of the body is 00.
	c.Extended = true
	if len(body) < 3 {
		return Command{}, fmt.Errorf("%w: an extended length takes 3 bytes, %d follow", ErrMalformedCommand, len(body))
	}
	n := int(body[1])<<8 | int(body[2])
	if len(body) == 3 { // case 2 extended
		c.Ne = ne(n, MaxExtendedNe)
		return c, nil
	}
	switch {
	case n == 0:
		return Command{}, fmt.Errorf("%w: extended Lc is 0", ErrMalformedCommand)
	case len(body) == 3+n: // case 3 extended
	case len(body) == 3+n+2: // case 4 extended
		c.Ne = ne(int(body[3+n])<<8|int(body[3+n+1]), MaxExtendedNe)
	default:
		return Command{}, fmt.Errorf("%w: extended Lc is %d but %d bytes follow", ErrMalformedCommand, n, len(body)-3)
	}
	c.Data = body[3 : 3+n : 3+n]
	return c, nil
}

func ne(le, whenZero int) int {
	if le == 0 {
		return whenZero
	}
	return le
}
