package osdp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"slices"
)

// KeySize is the size of a secure channel base key (SCBK), in bytes.
const KeySize = 16

// defaultKey is SCBK-D, which everybody knows (SIA OSDP 2.2, annex D): it is for
// giving a device its first key, and for nothing else.
var defaultKey = [KeySize]byte{0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F}

var errChannel = errors.New("wrong proof or MAC in the secure channel")

// channel is a secure channel's keys and chaining values (SIA OSDP 2.2, annex D).
type channel struct {
	enc, mac1, mac2      cipher.Block
	hostRandom, ownPart  [8]byte
	commandMAC, replyMAC [16]byte // the last of each direction
	defaultKey           bool     // SCBK-D
	open                 bool     // both sides have proved themselves
}

// newChannel derives the session keys from the base key and the panel's random
// number; own is the device's.
func newChannel(key [KeySize]byte, host, own [8]byte) *channel {
	base := block(key[:])
	derive := func(purpose byte) cipher.Block {
		b := [16]byte{0x01, purpose}
		copy(b[2:8], host[:6])
		base.Encrypt(b[:], b[:])
		return block(b[:])
	}
	return &channel{enc: derive(0x82), mac1: derive(0x01), mac2: derive(0x02), hostRandom: host, ownPart: own, defaultKey: key == defaultKey}
}

func block(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key's size is fixed
	}
	return b
}

func (c *channel) cryptogram(first, second [8]byte) (b [16]byte) {
	copy(b[:8], first[:])
	copy(b[8:], second[:])
	c.enc.Encrypt(b[:], b[:])
	return b
}

// clientCryptogram is the device's proof.
func (c *channel) clientCryptogram() [16]byte { return c.cryptogram(c.hostRandom, c.ownPart) }

// accept checks the panel's proof and returns the initial R-MAC, with which
// the channel is open.
func (c *channel) accept(proof []byte) ([16]byte, error) {
	want := c.cryptogram(c.ownPart, c.hostRandom)
	if subtle.ConstantTimeCompare(want[:], proof) != 1 {
		return [16]byte{}, errChannel
	}
	c.mac1.Encrypt(c.replyMAC[:], want[:])
	c.mac2.Encrypt(c.replyMAC[:], c.replyMAC[:])
	c.open = true
	return c.replyMAC, nil
}

// mac is the MAC over a packet, chained to the last one of the other direction.
func (c *channel) mac(chain [16]byte, message []byte) [16]byte {
	padded := message
	if len(message)%16 != 0 || len(message) == 0 {
		padded = pad(slices.Clone(message))
	}
	for len(padded) > 16 {
		subtle.XORBytes(chain[:], chain[:], padded[:16])
		c.mac1.Encrypt(chain[:], chain[:])
		padded = padded[16:]
	}
	subtle.XORBytes(chain[:], chain[:], padded)
	c.mac2.Encrypt(chain[:], chain[:])
	return chain
}

// unwrap checks a command's MAC and returns its data in the clear.
func (c *channel) unwrap(p packet) ([]byte, error) {
	chain := c.mac(c.replyMAC, p.covered)
	if subtle.ConstantTimeCompare(chain[:macSize], p.mac) != 1 {
		return nil, errChannel
	}
	iv := inverted(c.replyMAC)
	c.commandMAC = chain
	if p.security[0] != scsEncrypted || len(p.data) == 0 {
		return p.data, nil
	}
	if len(p.data)%16 != 0 {
		return nil, errChannel
	}
	clear := make([]byte, len(p.data))
	cipher.NewCBCDecrypter(c.enc, iv[:]).CryptBlocks(clear, p.data)
	return unpad(clear)
}

// wrap finishes a reply: data, where there is any, is encrypted.
func (c *channel) wrap(p packet) []byte {
	p.security = []byte{scsMACReply}
	if len(p.data) > 0 {
		p.security[0] = scsEncryptedR
		iv := inverted(c.commandMAC)
		data := pad(slices.Clone(p.data))
		cipher.NewCBCEncrypter(c.enc, iv[:]).CryptBlocks(data, data)
		p.data = data
	}
	return p.bytes(func(covered []byte) []byte {
		c.replyMAC = c.mac(c.commandMAC, covered)
		return c.replyMAC[:macSize]
	})
}

func inverted(b [16]byte) [16]byte {
	for i := range b {
		b[i] = ^b[i]
	}
	return b
}

// pad appends 80 and zeros up to a whole block.
func pad(b []byte) []byte {
	b = append(b, 0x80)
	for len(b)%16 != 0 {
		b = append(b, 0)
	}
	return b
}

func unpad(b []byte) ([]byte, error) {
	for i := len(b) - 1; i >= 0; i-- {
		switch b[i] {
		case 0:
		case 0x80:
			return b[:i], nil
		default:
			return nil, errChannel
		}
	}
	return nil, errChannel
}
