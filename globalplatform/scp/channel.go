package scp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

const (
	blockSize = aes.BlockSize
	macSize   = 8 // of a C-MAC and an R-MAC on the wire, mode S8
)

// channel is the state that host and card keep alike once they are
// authenticated, and the coding over it.
type channel struct {
	level     Level
	enc       cipher.Block
	mac, rmac *sp800.CMAC
	chaining  [sp800.Size]byte // MAC chaining value (AmdD 5.3)
	next      uint32           // encryption counter of the next command (AmdD 6.2.6)
	counter   [blockSize]byte  // padded counter block of the present command
	iv        [blockSize]byte
}

func newChannel(k SessionKeys, level Level, chaining [sp800.Size]byte, counter uint32) (*channel, error) {
	enc, err := aes.NewCipher(k.ENC.Bytes())
	if err != nil {
		return nil, err
	}
	mac, err := sp800.New(k.MAC.Bytes())
	if err != nil {
		return nil, err
	}
	c := &channel{level: level, enc: enc, mac: mac, chaining: chaining, next: counter}
	if level.HasRMAC() {
		if c.rmac, err = sp800.New(k.RMAC.Bytes()); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// count takes the next value of the encryption counter. It counts commands
// without data too (AmdD 6.2.6).
func (c *channel) count() {
	binary.BigEndian.PutUint32(c.counter[blockSize-4:], c.next)
	c.next++
}

// icv computes the initial chaining value for the present command into c.iv,
// or for its response (AmdD 6.2.6, 6.2.7).
func (c *channel) icv(response bool) {
	c.iv = c.counter
	if response {
		c.iv[0] = 0x80
	}
	c.enc.Encrypt(c.iv[:], c.iv[:])
}

// commandMAC returns the CMAC over a command whose data is as on the wire but
// without its C-MAC (AmdD 6.2.4).
func (c *channel) commandMAC(cla, ins, p1, p2 byte, data []byte, extended bool) [sp800.Size]byte {
	header := [7]byte{macClass(cla), ins, p1, p2}
	lc := len(data) + macSize
	n := 5
	if extended { // GPCS 11.1.5.1 codes a long Lc like this
		header[5], header[6] = byte(lc>>8), byte(lc)
		n = 7
	} else {
		header[4] = byte(lc)
	}
	c.mac.Reset()
	c.mac.Write(c.chaining[:])
	c.mac.Write(header[:n])
	c.mac.Write(data)
	return c.mac.Sum()
}

// responseMAC returns the CMAC over response data as on the wire but without
// its R-MAC, and the status word (AmdD 6.2.5).
func (c *channel) responseMAC(data []byte, sw iso7816.SW) [sp800.Size]byte {
	c.rmac.Reset()
	c.rmac.Write(c.chaining[:])
	c.rmac.Write(data)
	c.rmac.Write([]byte{byte(sw >> 8), byte(sw)})
	return c.rmac.Sum()
}

// protects reports whether a response with the status word is protected at
// all: errors are not (AmdD 6.2.5).
func protects(sw iso7816.SW) bool { return sw == iso7816.OK || sw.Warning() }

// macClass is the class byte as a C-MAC covers it: on logical channel 0, with
// secure messaging (AmdD 6.2.4).
func macClass(cla byte) byte {
	if cla&0x40 != 0 { // logical channels 4 to 19
		return cla&0x80 | 0x04
	}
	return cla&0xF0 | 0x04
}

// secureClass sets the indication of GlobalPlatform's secure messaging
// (GPCS tables 11-11 and 11-12); plainClass takes it away.
func secureClass(cla byte) byte {
	if cla&0x40 != 0 {
		return cla | 0x20
	}
	return cla&^0x08 | 0x04
}

func plainClass(cla byte) byte {
	if cla&0x40 != 0 {
		return cla &^ 0x20
	}
	return cla &^ 0x0C
}

// hasSecureClass is GlobalPlatform's indication; ISO/IEC 7816-4 has others,
// which isPlainClass refuses too.
func hasSecureClass(cla byte) bool {
	if cla&0x40 != 0 {
		return cla&0x20 != 0
	}
	return cla&0x0C == 0x04
}

func isPlainClass(cla byte) bool { return cla == plainClass(cla) }

// paddedSize is the length of n bytes with the padding of AmdD 4.1.4.
func paddedSize(n int) int { return (n/blockSize + 1) * blockSize }

// appendPadded appends data and its padding.
func appendPadded(dst, data []byte) []byte {
	dst = append(append(dst, data...), 0x80)
	for n := len(data) + 1; n%blockSize != 0; n++ {
		dst = append(dst, 0)
	}
	return dst
}

// unpad takes the padding off; false where there is none.
func unpad(b []byte) ([]byte, bool) {
	n := len(b) - 1
	for n >= 0 && len(b)-n < blockSize && b[n] == 0 {
		n--
	}
	if n < 0 || b[n] != 0x80 {
		return nil, false
	}
	return b[:n:n], true
}

// encryptCBC and decryptCBC work in place on whole blocks, without the
// allocations of crypto/cipher's modes; iv is left changed.
func encryptCBC(block cipher.Block, iv *[blockSize]byte, b []byte) {
	for ; len(b) > 0; b = b[blockSize:] {
		subtle.XORBytes(b[:blockSize], b[:blockSize], iv[:])
		block.Encrypt(b[:blockSize], b[:blockSize])
		copy(iv[:], b)
	}
}

func decryptCBC(block cipher.Block, iv *[blockSize]byte, b []byte) {
	var previous [blockSize]byte
	for ; len(b) > 0; b = b[blockSize:] {
		copy(previous[:], b)
		block.Decrypt(b[:blockSize], b[:blockSize])
		subtle.XORBytes(b[:blockSize], b[:blockSize], iv[:])
		*iv = previous
	}
}

// sensitive encrypts or decrypts under the static DEK with a zero ICV
// (AmdD 6.2.8).
func sensitive(dek keys.Key, data []byte, crypt func(cipher.Block, *[blockSize]byte, []byte)) ([]byte, error) {
	if dek.IsZero() {
		return nil, ErrNoDEK
	}
	if len(data) == 0 || len(data)%blockSize != 0 {
		return nil, ErrSensitiveLength
	}
	block, err := aes.NewCipher(dek.Bytes())
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), data...)
	var iv [blockSize]byte
	crypt(block, &iv, out)
	return out, nil
}
