package globalplatform

import (
	"context"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// Format says how the data of STORE DATA is structured (table 11-89, bits 5
// and 4 of P1).
type Format byte

// The formats. Which one a card or an application wants can't be asked.
const (
	FormatPlain  Format = 0x00 // the application knows
	FormatDGI    Format = 0x08 // data grouping identifiers
	FormatBERTLV Format = 0x10
)

func (f Format) String() string {
	switch f {
	case FormatPlain:
		return "plain"
	case FormatDGI:
		return "DGI"
	case FormatBERTLV:
		return "BER-TLV"
	}
	return fmt.Sprintf("format %02X", byte(f))
}

// Encryption says what the values of STORE DATA are encrypted with besides the
// secure channel (table 11-89, bits 7 and 6 of P1).
type Encryption byte

// The encryption indicators.
const (
	EncryptionUnknown     Encryption = 0x00 // none, or the application knows
	EncryptionApplication Encryption = 0x20 // some values, the application knows which
	EncryptionAll         Encryption = 0x60 // all values
)

// StoreData is one STORE DATA command (11.11).
type StoreData struct {
	Data       []byte
	Number     byte
	Last       bool
	Format     Format
	Encryption Encryption
	Answer     bool // case 4: response data may come
}

// Command returns the command; without Answer it asks for no response data.
func (d StoreData) Command() (iso7816.Command, error) {
	p1 := byte(d.Format) | byte(d.Encryption)
	if d.Last {
		p1 |= 0x80
	}
	if d.Answer {
		p1 |= 0x01
	}
	c, err := command(0xE2, p1, d.Number, d.Data)
	if !d.Answer {
		c.Ne = 0
	}
	return c, err
}

// DGI is a data grouping identifier with its value (11.1.12).
type DGI struct {
	ID    uint16
	Value []byte
}

// AppendDGI appends the identifier, a length of 1 byte up to 254 or FF and 2
// bytes, and the value. It panics on values longer than 65,535 bytes.
func AppendDGI(dst []byte, d DGI) []byte {
	dst = append(dst, byte(d.ID>>8), byte(d.ID))
	switch n := len(d.Value); {
	case n < 0xFF:
		dst = append(dst, byte(n))
	case n <= 0xFFFF:
		dst = append(dst, 0xFF, byte(n>>8), byte(n))
	default:
		panic(fmt.Sprintf("globalplatform: DGI %04X of %d bytes", d.ID, n))
	}
	return append(dst, d.Value...)
}

// ParseDGIs reads data grouping identifiers until b is used up. Lengths must
// be minimal. The values are parts of b.
func ParseDGIs(b []byte) ([]DGI, error) {
	var out []DGI
	for len(b) > 0 {
		if len(b) < 3 {
			return nil, malformed("DGI %d is cut short", len(out)+1)
		}
		d := DGI{ID: uint16(b[0])<<8 | uint16(b[1])}
		n := int(b[2])
		b = b[3:]
		if n == 0xFF {
			if len(b) < 2 {
				return nil, malformed("DGI %04X has no length", d.ID)
			}
			if n, b = int(b[0])<<8|int(b[1]), b[2:]; n < 0xFF {
				return nil, malformed("the length of DGI %04X is not minimal", d.ID)
			}
		}
		if n > len(b) {
			return nil, malformed("DGI %04X says %d bytes, %d are there", d.ID, n, len(b))
		}
		d.Value, b = b[:n:n], b[n:]
		out = append(out, d)
	}
	return out, nil
}

// StoreOptions say how STORE DATA commands are marked.
type StoreOptions struct {
	Format     Format
	Encryption Encryption
	// Answer marks the last command as case 4, so that it may answer data;
	// the ones before are case 3.
	Answer bool
}

// StoreBlocks makes the STORE DATA commands of one sequence from their data
// fields.
func StoreBlocks(blocks [][]byte, o StoreOptions) ([]StoreData, error) {
	if len(blocks) == 0 || len(blocks) > maxBlocks {
		return nil, fmt.Errorf("%w: STORE DATA in %d blocks, 1 to %d allowed", ErrCommand, len(blocks), maxBlocks)
	}
	out := make([]StoreData, len(blocks))
	for i, b := range blocks {
		last := i == len(blocks)-1
		out[i] = StoreData{Data: b, Number: byte(i), Last: last, Format: o.Format, Encryption: o.Encryption, Answer: o.Answer && last}
	}
	return out, nil
}

// SplitStoreData cuts the data of one structure or several into data fields
// of at most size bytes, as 11.11.2.3 wants it: lengths inside stay as they
// are.
func SplitStoreData(data []byte, size int) ([][]byte, error) {
	parts, err := split(data, size)
	if err != nil {
		return nil, fmt.Errorf("STORE DATA: %w", err)
	}
	return parts, nil
}

// Store sends the blocks of one sequence to the Security Domain, or to the
// instance that INSTALL [for personalization] named, and returns what the
// last one answers. progress, unless nil, is told after each acknowledged
// block. A failure is a [*StoreError].
func Store(ctx context.Context, s iso7816.Sender, blocks [][]byte, o StoreOptions, progress func(done, total int)) ([]byte, error) {
	commands, err := StoreBlocks(blocks, o)
	if err != nil {
		return nil, err
	}
	var answer []byte
	for i, c := range commands {
		cmd, err := c.Command()
		if err == nil {
			answer, err = iso7816.Do(ctx, s, cmd)
		}
		if err != nil {
			return nil, &StoreError{Done: i, Total: len(commands), Err: err}
		}
		if progress != nil {
			progress(i+1, len(commands))
		}
	}
	return answer, nil
}

// StoreError is a STORE DATA sequence that failed.
type StoreError struct {
	Done, Total int // blocks that the card had acknowledged, and all
	Err         error
}

func (e *StoreError) Error() string {
	return fmt.Sprintf("storing data stopped after block %d of %d: %v", e.Done, e.Total, e.Err)
}

func (e *StoreError) Unwrap() error { return e.Err }
