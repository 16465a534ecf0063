package osdp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Framing (SIA OSDP 2.2, 5.9): a packet begins with SOM, the address and its own
// length, and ends with a checksum or a CRC. An idle line may be marked with FF
// before it.
const (
	mark = 0xFF
	som  = 0x53

	headerSize = 5 // SOM, address, length (2), control
	macSize    = 4

	controlSequence = 0x03
	controlCRC      = 0x04
	controlSecurity = 0x08
	controlReserved = 0xF0

	addressReply = 0x80 // in packets of a device
)

// MaxPacket is the largest packet that a device takes or sends, in bytes without the mark.
const MaxPacket = 1440

// Types of security blocks (SIA OSDP 2.2, annex D). Commands are odd, replies even.
const (
	scsChallenge  = 0x11
	scsClient     = 0x12
	scsServer     = 0x13
	scsInitial    = 0x14
	scsMAC        = 0x15
	scsMACReply   = 0x16
	scsEncrypted  = 0x17
	scsEncryptedR = 0x18
)

var errPacket = errors.New("malformed packet")

// packet is a packet taken apart. Its slices point into what was parsed.
type packet struct {
	address  byte // without the bit of a reply
	reply    bool
	sequence byte
	crc      bool
	security []byte // type and data of the security block, nil without one
	code     byte   // of the command or reply
	data     []byte // after the code, still encrypted where the block says so
	mac      []byte // 4 bytes, or nil
	covered  []byte // what the MAC covers
	raw      []byte // the whole packet, of one that was parsed
}

// parsePacket takes a whole packet apart, from SOM to the last byte of its check.
func parsePacket(b []byte) (packet, error) {
	if len(b) < headerSize+2 || b[0] != som || int(binary.LittleEndian.Uint16(b[2:])) != len(b) {
		return packet{}, fmt.Errorf("%w: %d bytes", errPacket, len(b))
	}
	if b[4]&controlReserved != 0 {
		return packet{}, fmt.Errorf("%w: control %02X", errPacket, b[4])
	}
	p := packet{raw: b, address: b[1] &^ addressReply, reply: b[1]&addressReply != 0, sequence: b[4] & controlSequence, crc: b[4]&controlCRC != 0}
	body := b[:len(b)-checkSize(p.crc)]
	if string(appendCheck(nil, body, p.crc)) != string(b[len(body):]) {
		return packet{}, fmt.Errorf("%w: wrong check", errPacket)
	}
	rest := body[headerSize:]
	if b[4]&controlSecurity != 0 {
		if len(rest) < 2 || rest[0] < 2 || int(rest[0]) > len(rest) {
			return packet{}, fmt.Errorf("%w: security block", errPacket)
		}
		p.security, rest = rest[1:rest[0]], rest[rest[0]:]
		if p.security[0] >= scsMAC {
			if len(rest) < 1+macSize {
				return packet{}, fmt.Errorf("%w: no MAC", errPacket)
			}
			p.mac, rest = rest[len(rest)-macSize:], rest[:len(rest)-macSize]
			p.covered = body[:len(body)-macSize]
		}
	}
	if len(rest) == 0 {
		return packet{}, fmt.Errorf("%w: no code", errPacket)
	}
	p.code, p.data = rest[0], rest[1:]
	return p, nil
}

// bytes puts the packet together; mac computes the MAC over what stands before
// it, nil for a packet without one.
func (p packet) bytes(mac func(covered []byte) []byte) []byte {
	control := p.sequence
	if p.crc {
		control |= controlCRC
	}
	address := p.address
	if p.reply {
		address |= addressReply
	}
	size := headerSize + 1 + len(p.data) + checkSize(p.crc)
	if p.security != nil {
		control |= controlSecurity
		size += 1 + len(p.security)
	}
	if mac != nil {
		size += macSize
	}
	b := make([]byte, 0, size)
	b = append(b, som, address, byte(size), byte(size>>8), control)
	if p.security != nil {
		b = append(b, byte(1+len(p.security)))
		b = append(b, p.security...)
	}
	b = append(b, p.code)
	b = append(b, p.data...)
	if mac != nil {
		b = append(b, mac(b)...)
	}
	return appendCheck(b, b, p.crc)
}

func checkSize(crc bool) int {
	if crc {
		return 2
	}
	return 1
}

// appendCheck appends the CRC or the checksum of a packet.
func appendCheck(to, b []byte, crc bool) []byte {
	if crc {
		return binary.LittleEndian.AppendUint16(to, crc16(b))
	}
	var sum byte
	for _, x := range b {
		sum += x
	}
	return append(to, -sum)
}

// crc16 is CRC-16/SPI-FUJITSU: polynomial 1021, not reflected, with initial value 1D0F
// (SIA OSDP 2.2, annex C).
func crc16(b []byte) uint16 {
	crc := uint16(0x1D0F)
	for _, x := range b {
		crc ^= uint16(x) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// splitter finds packets in the bytes of a line. Noise, and packets whose check
// fails, are skipped up to the next SOM, so that a packet that was cut short
// does not swallow the one after it.
type splitter struct{ buf []byte }

// next takes more bytes and returns the packets that are now whole. They are
// good until the next call.
func (s *splitter) next(more []byte) (packets []packet) {
	s.buf = append(s.buf, more...)
	at := 0
	for {
		for at < len(s.buf) && s.buf[at] != som {
			at++
		}
		rest := s.buf[at:]
		if len(rest) < headerSize {
			break
		}
		size := int(binary.LittleEndian.Uint16(rest[2:]))
		if size < headerSize+2 || size > MaxPacket {
			at++
			continue
		}
		if len(rest) < size {
			break
		}
		p, err := parsePacket(rest[:size])
		if err != nil {
			at++
			continue
		}
		packets = append(packets, p)
		at += size
	}
	s.buf = append([]byte(nil), s.buf[at:]...)
	return packets
}
