package scp

import (
	"crypto/cipher"
	"crypto/des"
	"crypto/subtle"
	"fmt"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

const desBlock = des.BlockSize

// Constants of session key derivation (GPCS E.4.1).
const (
	const02MAC  uint16 = 0x0101
	const02RMAC uint16 = 0x0102
	const02DEK  uint16 = 0x0181
	const02ENC  uint16 = 0x0182
)

// tripleDES returns triple DES with a double length key.
func tripleDES(key []byte) (cipher.Block, error) {
	var k [24]byte
	defer clear(k[:])
	copy(k[copy(k[:], key):], key)
	return des.NewTripleDESCipher(k[:])
}

// derive02 encrypts the derivation data with a static key (GPCS E.4.1).
func derive02(static keys.Key, constant, counter uint16) (out [16]byte, err error) {
	block, err := tripleDES(static.Bytes())
	if err != nil {
		return out, err
	}
	out[0], out[1], out[2], out[3] = byte(constant>>8), byte(constant), byte(counter>>8), byte(counter)
	var iv [desBlock]byte
	cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(out[:], out[:])
	return out, nil
}

// retailMAC is the single DES plus final triple DES MAC (GPCS B.1.2.2).
type retailMAC struct{ first, second cipher.Block }

func newRetailMAC(key [16]byte) (m retailMAC, err error) {
	if m.first, err = des.NewCipher(key[:8]); err != nil {
		return m, err
	}
	m.second, err = des.NewCipher(key[8:])
	return m, err
}

// sum returns the MAC of the data, which it pads (GPCS B.1.3), from an ICV.
func (m retailMAC) sum(icv [desBlock]byte, data []byte) [desBlock]byte {
	icv = macCBC(m.first, icv, data)
	m.second.Decrypt(icv[:], icv[:])
	m.first.Encrypt(icv[:], icv[:])
	return icv
}

// macCBC returns the last block of the encryption of the padded data.
func macCBC(block cipher.Block, icv [desBlock]byte, data []byte) [desBlock]byte {
	padded := appendPadded(make([]byte, 0, len(data)+desBlock), data, desBlock)
	for ; len(padded) > 0; padded = padded[desBlock:] {
		subtle.XORBytes(icv[:], icv[:], padded[:desBlock])
		block.Encrypt(icv[:], icv[:])
	}
	return icv
}

// checkSet02 finds keys that SCP02 can't use: it takes double length DES keys
// (GPCS E.2), whose parity bits nobody looks at.
func checkSet02(set keys.Set) error {
	if e, m := set.ENC.Len(), set.MAC.Len(); e != 16 || m != 16 {
		return fmt.Errorf("%w: SCP02 takes keys of 16 bytes, ENC has %d and MAC %d", ErrKeySet, e, m)
	}
	if n := set.DEK.Len(); n != 0 && n != 16 {
		return fmt.Errorf("%w: SCP02 takes keys of 16 bytes, DEK has %d", ErrKeySet, n)
	}
	return nil
}

type handshake02 struct {
	protocol Protocol
	ch       *channel02 // no level yet
	host     []byte
	counter  uint16
	card     []byte
}

func newHandshake02(p Protocol, set keys.Set, hostChallenge []byte, counter uint16, cardChallenge []byte) (*handshake02, error) {
	if err := checkSet02(set); err != nil {
		return nil, err
	}
	c := &channel02{protocol: p}
	for _, x := range []struct {
		static   keys.Key
		constant uint16
		use      func([16]byte) error
	}{
		{set.MAC, const02MAC, func(k [16]byte) (err error) { c.mac, err = newRetailMAC(k); return }},
		{set.MAC, const02RMAC, func(k [16]byte) (err error) { c.rmac, err = newRetailMAC(k); return }},
		{set.ENC, const02ENC, func(k [16]byte) (err error) { c.enc, err = tripleDES(k[:]); return }},
		{set.DEK, const02DEK, func(k [16]byte) (err error) { c.dek, err = tripleDES(k[:]); return }},
	} {
		if x.static.IsZero() {
			continue // no DEK
		}
		k, err := derive02(x.static, x.constant, counter)
		if err == nil {
			err = x.use(k)
		}
		clear(k[:])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeySet, err)
		}
	}
	return &handshake02{protocol: p, ch: c, host: hostChallenge, counter: counter, card: cardChallenge}, nil
}

// challenge is the pseudo-random card challenge for an application (GPCS
// E.4.2.3).
func (h *handshake02) challenge(aid iso7816.AID) []byte {
	mac := h.ch.mac.sum([desBlock]byte{}, aid.Bytes())
	return mac[:6]
}

func (h *handshake02) cryptogram(parts ...[]byte) []byte {
	var data []byte
	for _, p := range parts {
		data = append(data, p...)
	}
	mac := macCBC(h.ch.enc, [desBlock]byte{}, data)
	return mac[:]
}

func (h *handshake02) sequence() []byte { return []byte{byte(h.counter >> 8), byte(h.counter)} }

func (h *handshake02) cardCryptogram() []byte { return h.cryptogram(h.host, h.sequence(), h.card) }
func (h *handshake02) hostCryptogram() []byte { return h.cryptogram(h.sequence(), h.card, h.host) }

func (h *handshake02) mac(c iso7816.Command) []byte {
	mac := h.ch.mac.sum([desBlock]byte{}, h.ch.command(macClass(c.CLA), c, len(c.Data)+desBlock))
	return mac[:]
}

func (h *handshake02) open(level Level, mac []byte) (coding, error) {
	ch := h.ch
	ch.level = level
	ch.icv, ch.ricv = [desBlock]byte(mac), [desBlock]byte(mac)
	return ch, nil
}

func (h *handshake02) erase() {}

// channel02 is the coding of SCP02 with the options that [Protocol.Valid]
// lets through.
type channel02 struct {
	level     Level
	protocol  Protocol
	mac, rmac retailMAC
	enc, dek  cipher.Block
	icv       [desBlock]byte // the C-MAC before (GPCS E.4.4)
	ricv      [desBlock]byte // the R-MAC before, at first the C-MAC of EXTERNAL AUTHENTICATE (GPCS E.3.2)
	sent      []byte         // under R-MAC, the command that the response answers, without protection
}

func (c *channel02) erase() { *c = channel02{} }

// command is what a MAC covers of a command whose data is in the clear.
func (c *channel02) command(cla byte, cmd iso7816.Command, lc int) []byte {
	out := make([]byte, 0, 7+len(cmd.Data))
	return append(appendHeader(out, cla, cmd.INS, cmd.P1, cmd.P2, lc, cmd.Extended), cmd.Data...)
}

// commandMAC returns the C-MAC of a command whose data is in the clear, on the
// modified APDU (GPCS E.4.4), under the encrypted ICV (E.3.4).
func (c *channel02) commandMAC(cmd iso7816.Command) [desBlock]byte {
	icv := c.icv
	c.mac.first.Encrypt(icv[:], icv[:])
	return c.mac.sum(icv, c.command(macClass(cmd.CLA), cmd, len(cmd.Data)+desBlock))
}

// stripped keeps a command for the R-MAC of its response: without protection
// and logical channel, Lc always there (GPCS E.4.5).
func (c *channel02) stripped(cmd iso7816.Command) {
	if c.level.HasRMAC() {
		c.sent = c.command(macClass(cmd.CLA)&^0x04, cmd, len(cmd.Data))
	}
}

func (c *channel02) protect(cmd iso7816.Command) iso7816.Command {
	c.stripped(cmd)
	out := cmd
	out.Ne = c.protocol.wireNe(c.level, cmd.Ne, cmd.Extended)
	if !c.level.HasCMAC() {
		return out
	}
	out.CLA = secureClass(cmd.CLA)
	out.Extended = cmd.Extended || out.Ne > iso7816.MaxShortNe
	covered := cmd
	covered.Extended = out.Extended
	c.icv = c.commandMAC(covered)
	data := make([]byte, 0, len(cmd.Data)+2*desBlock)
	if c.level.HasCDecryption() && len(cmd.Data) > 0 {
		data = appendPadded(data, cmd.Data, desBlock)
		var iv [desBlock]byte
		cipher.NewCBCEncrypter(c.enc, iv[:]).CryptBlocks(data, data)
	} else {
		data = append(data, cmd.Data...)
	}
	out.Data = append(data, c.icv[:]...)
	return out
}

func (c *channel02) unwrap(cmd iso7816.Command) (iso7816.Command, bool) {
	plain := cmd
	plain.CLA, plain.Ne = plainClass(cmd.CLA), c.protocol.plainNe(c.level, cmd.Ne)
	if !c.level.HasCMAC() {
		c.stripped(plain)
		return plain, isPlainClass(cmd.CLA)
	}
	n := len(cmd.Data) - desBlock
	if !hasSecureClass(cmd.CLA) || n < 0 {
		return iso7816.Command{}, false
	}
	plain.Data = cmd.Data[:n:n]
	padded := true
	if c.level.HasCDecryption() && n > 0 {
		if n%desBlock != 0 {
			return iso7816.Command{}, false
		}
		data := clone(plain.Data)
		var iv [desBlock]byte
		cipher.NewCBCDecrypter(c.enc, iv[:]).CryptBlocks(data, data)
		// Decryption comes before the C-MAC (GPCS E.4.6), which makes wrong
		// padding an oracle for whoever can tell it from a wrong MAC. So the
		// MAC is computed, and the answer the same, in either case. Nothing
		// but padding is taken as no data: widely used hosts encrypt that.
		if plain.Data, padded = unpad(data, desBlock); !padded {
			plain.Data = data
		}
	}
	mac := c.commandMAC(plain)
	if subtle.ConstantTimeCompare(mac[:], cmd.Data[n:]) != 1 || !padded {
		return iso7816.Command{}, false
	}
	c.icv = mac
	c.stripped(plain)
	return plain, true
}

// responseMAC returns the R-MAC of a response, with which the next one begins
// whether the command succeeded or not (GPCS E.4.5).
func (c *channel02) responseMAC(data []byte, sw iso7816.SW) [desBlock]byte {
	b := append(append(c.sent, byte(len(data))), data...)
	c.ricv = c.rmac.sum(c.ricv, append(b, byte(sw>>8), byte(sw)))
	return c.ricv
}

func (c *channel02) wrap(r iso7816.Response) iso7816.Response {
	if !c.level.HasRMAC() {
		return r
	}
	if !protects(r.SW) {
		r.Data = nil
	}
	mac := c.responseMAC(r.Data, r.SW)
	return iso7816.Response{Data: append(clone(r.Data), mac[:]...), SW: r.SW}
}

func (c *channel02) unprotect(r iso7816.Response) (iso7816.Response, error) {
	if !c.level.HasRMAC() {
		return r, nil
	}
	if !protects(r.SW) && len(r.Data) == 0 {
		// The specification leaves open whether the R-MAC of an error is
		// sent; computed it is.
		c.responseMAC(nil, r.SW)
		return iso7816.Response{SW: r.SW}, nil
	}
	n := len(r.Data) - desBlock
	if n < 0 || !protects(r.SW) && n > 0 {
		return iso7816.Response{}, fmt.Errorf("%w: %d bytes of data with %v", ErrResponseMAC, len(r.Data), r.SW)
	}
	mac := c.responseMAC(r.Data[:n], r.SW)
	if subtle.ConstantTimeCompare(mac[:], r.Data[n:]) != 1 {
		return iso7816.Response{}, ErrResponseMAC
	}
	return iso7816.Response{Data: r.Data[:n:n], SW: r.SW}, nil
}

func (c *channel02) encryptSensitive(data []byte) ([]byte, error) {
	return c.sensitive(data, cipher.Block.Encrypt)
}

func (c *channel02) decryptSensitive(data []byte) ([]byte, error) {
	return c.sensitive(data, cipher.Block.Decrypt)
}

// sensitive works under the session's DEK in ECB mode (GPCS E.4.7, B.1.1.2).
func (c *channel02) sensitive(data []byte, crypt func(block cipher.Block, dst, src []byte)) ([]byte, error) {
	if c.dek == nil {
		return nil, ErrNoDEK
	}
	if len(data) == 0 || len(data)%desBlock != 0 {
		return nil, fmt.Errorf("%w of 8 bytes", ErrSensitiveLength)
	}
	out := make([]byte, len(data))
	for i := 0; i < len(data); i += desBlock {
		crypt(c.dek, out[i:i+desBlock], data[i:i+desBlock])
	}
	return out, nil
}
