package scp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

const blockSize = aes.BlockSize

// coding is one protocol's protection of commands and responses in a session,
// of which host and card keep the same state. Each uses its half.
type coding interface {
	// protect returns the command that goes over the wire and moves the
	// state on. The data has been found to fit.
	protect(c iso7816.Command) iso7816.Command
	// unprotect verifies a response and returns what the card meant.
	unprotect(r iso7816.Response) (iso7816.Response, error)

	// unwrap verifies a command and returns what the host meant; false is a
	// security error.
	unwrap(c iso7816.Command) (iso7816.Command, bool)
	// wrap protects the response to the command unwrapped last.
	wrap(r iso7816.Response) iso7816.Response

	// encryptSensitive and decryptSensitive work under the DEK.
	encryptSensitive(data []byte) ([]byte, error)
	decryptSensitive(data []byte) ([]byte, error)

	erase()
}

// channel is the coding of SCP03.
type channel struct {
	level     Level
	protocol  Protocol
	macSize   int // of a C-MAC and an R-MAC on the wire
	enc       cipher.Block
	mac, rmac *sp800.CMAC
	dek       keys.Key         // static; none in sessions without one
	chaining  [sp800.Size]byte // MAC chaining value (AmdD 5.3)
	next      uint32           // encryption counter of the next command (AmdD 6.2.6)
	counter   [blockSize]byte  // padded counter block of the present command
	iv        [blockSize]byte
}

func newChannel(p Protocol, k SessionKeys, level Level, chaining [sp800.Size]byte, counter uint32) (*channel, error) {
	enc, err := aes.NewCipher(k.ENC.Bytes())
	if err != nil {
		return nil, err
	}
	mac, err := sp800.New(k.MAC.Bytes())
	if err != nil {
		return nil, err
	}
	c := &channel{level: level, protocol: p, macSize: p.macSize(), enc: enc, mac: mac, chaining: chaining, next: counter}
	if level.HasRMAC() {
		if c.rmac, err = sp800.New(k.RMAC.Bytes()); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *channel) erase() {
	c.dek.Erase()
	c.dek = keys.Key{}
}

func (c *channel) protect(cmd iso7816.Command) iso7816.Command {
	if !c.level.HasCMAC() {
		return cmd
	}
	out := cmd
	out.CLA = secureClass(cmd.CLA)
	out.Ne = c.protocol.wireNe(c.level, cmd.Ne, cmd.Extended)
	c.count()
	data := make([]byte, 0, paddedSize(len(cmd.Data))+c.macSize)
	if c.level.HasCDecryption() && len(cmd.Data) > 0 {
		data = appendPadded(data, cmd.Data, blockSize)
		c.icv(false)
		encryptCBC(c.enc, &c.iv, data)
	} else {
		data = append(data, cmd.Data...)
	}
	mac := c.commandMAC(cmd.CLA, cmd.INS, cmd.P1, cmd.P2, data, out.Extended || out.Ne > iso7816.MaxShortNe)
	c.chaining = mac
	out.Data = append(data, mac[:c.macSize]...)
	return out
}

func (c *channel) unprotect(r iso7816.Response) (iso7816.Response, error) {
	if !c.level.HasRMAC() {
		return r, nil
	}
	if !protects(r.SW) {
		return iso7816.Response{SW: r.SW}, nil
	}
	n := len(r.Data) - c.macSize
	if n < 0 {
		return iso7816.Response{}, fmt.Errorf("%w: %d bytes of data with %v", ErrResponseMAC, len(r.Data), r.SW)
	}
	data := r.Data[:n:n]
	mac := c.responseMAC(data, r.SW)
	if subtle.ConstantTimeCompare(mac[:c.macSize], r.Data[n:]) != 1 {
		return iso7816.Response{}, ErrResponseMAC
	}
	if !c.level.HasREncryption() || n == 0 {
		return iso7816.Response{Data: data, SW: r.SW}, nil
	}
	plain, ok := c.decrypt(data, true)
	if !ok {
		return iso7816.Response{}, fmt.Errorf("%w: encrypted data of %d bytes is not padded", ErrResponseMAC, n)
	}
	return iso7816.Response{Data: plain, SW: r.SW}, nil
}

func (c *channel) unwrap(cmd iso7816.Command) (iso7816.Command, bool) {
	if !c.level.HasCMAC() {
		return cmd, isPlainClass(cmd.CLA)
	}
	n := len(cmd.Data) - c.macSize
	if !hasSecureClass(cmd.CLA) || n < 0 {
		return iso7816.Command{}, false
	}
	data := cmd.Data[:n:n]
	mac := c.commandMAC(cmd.CLA, cmd.INS, cmd.P1, cmd.P2, data, cmd.Extended)
	if subtle.ConstantTimeCompare(mac[:c.macSize], cmd.Data[n:]) != 1 {
		return iso7816.Command{}, false
	}
	c.chaining = mac
	c.count()
	if c.level.HasCDecryption() && n > 0 {
		var ok bool
		if data, ok = c.decrypt(data, false); !ok {
			return iso7816.Command{}, false
		}
	}
	return iso7816.Command{
		CLA: plainClass(cmd.CLA), INS: cmd.INS, P1: cmd.P1, P2: cmd.P2,
		Data: data, Ne: c.protocol.plainNe(c.level, cmd.Ne), Extended: cmd.Extended,
	}, true
}

func (c *channel) wrap(r iso7816.Response) iso7816.Response {
	if !c.level.HasRMAC() {
		return r
	}
	if !protects(r.SW) {
		return iso7816.Response{SW: r.SW}
	}
	out := make([]byte, 0, c.protocol.protectedNe(c.level, len(r.Data)))
	if c.level.HasREncryption() && len(r.Data) > 0 {
		out = appendPadded(out, r.Data, blockSize)
		c.icv(true)
		encryptCBC(c.enc, &c.iv, out)
	} else {
		out = append(out, r.Data...)
	}
	mac := c.responseMAC(out, r.SW)
	return iso7816.Response{Data: append(out, mac[:c.macSize]...), SW: r.SW}
}

// decrypt returns the plain data of a command or a response; false where the
// length or the padding is wrong, or where nothing but padding was encrypted
// (AmdD 6.2.6, 6.2.7: no data, no encryption).
func (c *channel) decrypt(data []byte, response bool) ([]byte, bool) {
	if len(data)%blockSize != 0 {
		return nil, false
	}
	plain := append([]byte(nil), data...)
	c.icv(response)
	decryptCBC(c.enc, &c.iv, plain)
	plain, ok := unpad(plain, blockSize)
	return plain, ok && len(plain) > 0
}

func (c *channel) encryptSensitive(data []byte) ([]byte, error) {
	return sensitive(c.dek, data, encryptCBC)
}

func (c *channel) decryptSensitive(data []byte) ([]byte, error) {
	return sensitive(c.dek, data, decryptCBC)
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
	var header [7]byte
	c.mac.Reset()
	c.mac.Write(c.chaining[:])
	c.mac.Write(appendHeader(header[:0], macClass(cla), ins, p1, p2, len(data)+c.macSize, extended))
	c.mac.Write(data)
	return c.mac.Sum()
}

// appendHeader appends a command's header as a MAC covers it. An Lc of more
// than 255, which a chained command has too, is coded on 3 bytes (GPCS
// 11.1.5.1), and so is a shorter one of an extended command.
func appendHeader(dst []byte, cla, ins, p1, p2 byte, lc int, extended bool) []byte {
	dst = append(dst, cla, ins, p1, p2)
	if extended || lc > iso7816.MaxShortData {
		dst = append(dst, 0, byte(lc>>8))
	}
	return append(dst, byte(lc))
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

// appendPadded appends data and the padding to whole blocks (AmdD 4.1.4; GPCS
// B.1.3).
func appendPadded(dst, data []byte, block int) []byte {
	dst = append(append(dst, data...), 0x80)
	for n := len(data) + 1; n%block != 0; n++ {
		dst = append(dst, 0)
	}
	return dst
}

// unpad takes the padding off; false where there is none.
func unpad(b []byte, block int) ([]byte, bool) {
	n := len(b) - 1
	for n >= 0 && len(b)-n < block && b[n] == 0 {
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
