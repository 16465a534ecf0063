package globalplatform

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"  //nolint:gosec // B.1.1.1
	"crypto/sha1" //nolint:gosec // its size only
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// LoadFileCipher enciphers load file data blocks for a Security Domain with the
// Ciphered Load File Data Block privilege, which deciphers them (C.6): CBC over
// the block padded with 80 and zeros.
type LoadFileCipher struct {
	Key  keys.Key
	Type KeyType // KeyTypeAES, or KeyTypeDES for a Triple DES key of 16 bytes
	// ICV is the initial chaining value, of the size of the cipher's block: 16
	// bytes, 8 for Triple DES. It should be random; nil is zero, for cards that
	// know no other (tag 84 of Card Capability Information).
	ICV []byte
}

// mode returns the cipher with its ICV.
func (c LoadFileCipher) mode() (cipher.Block, []byte, error) {
	if err := (KeyValue{secret: c.Key, typ: c.Type}).check(); err != nil {
		return nil, nil, err
	}
	var b cipher.Block
	var err error
	k := c.Key.Bytes()
	switch c.Type {
	case KeyTypeAES:
		b, err = aes.NewCipher(k)
	case KeyTypeDES:
		b, err = des.NewTripleDESCipher(append(bytes.Clone(k), k[:8]...)) //nolint:gosec // B.1.1.1
	default:
		err = fmt.Errorf("%w: %v for a load file", ErrKey, c.Type)
	}
	if err != nil {
		return nil, nil, err
	}
	icv := c.ICV
	if icv == nil {
		icv = make([]byte, b.BlockSize())
	}
	if len(icv) != b.BlockSize() {
		return nil, nil, fmt.Errorf("%w: ICV of %d bytes, %d wanted", ErrCommand, len(icv), b.BlockSize())
	}
	return b, icv, nil
}

// Encrypt returns the ciphered load file data block.
func (c LoadFileCipher) Encrypt(dataBlock []byte) ([]byte, error) {
	b, icv, err := c.mode()
	if err != nil {
		return nil, err
	}
	out := append(bytes.Clone(dataBlock), 0x80)
	for len(out)%b.BlockSize() != 0 {
		out = append(out, 0)
	}
	cipher.NewCBCEncrypter(b, icv).CryptBlocks(out, out)
	return out, nil
}

// Decrypt returns the load file data block that Encrypt was given. What can't
// be one wraps [ErrMalformed].
func (c LoadFileCipher) Decrypt(ciphered []byte) ([]byte, error) {
	b, icv, err := c.mode()
	if err != nil {
		return nil, err
	}
	if len(ciphered) == 0 || len(ciphered)%b.BlockSize() != 0 {
		return nil, malformed("ciphered load file data block of %d bytes, in blocks of %d", len(ciphered), b.BlockSize())
	}
	out := make([]byte, len(ciphered))
	cipher.NewCBCDecrypter(b, icv).CryptBlocks(out, ciphered)
	end := len(bytes.TrimRight(out, "\x00")) - 1
	if end < 1 || out[end] != 0x80 || len(out)-end > b.BlockSize() {
		return nil, malformed("ciphered load file data block: no padding under this key")
	}
	return out[:end], nil
}

// LeastHash is the size in bytes of the shortest load file data block hash that
// may stand beside a block under this key (table C-3): 20 is SHA-1.
func (c LoadFileCipher) LeastHash() int {
	if c.Type == KeyTypeDES {
		return sha1.Size
	}
	switch c.Key.Len() {
	case 24:
		return sha512.Size384
	case 32:
		return sha512.Size
	}
	return sha256.Size
}

// CipheredLoadFile is [LoadFile] with the load file data block enciphered,
// under tag D4, after its ICV under D3 unless that is zero.
func CipheredLoadFile(dataBlock []byte, c LoadFileCipher, daps ...DAPBlock) ([]byte, error) {
	if err := checkDataBlock(dataBlock); err != nil {
		return nil, err
	}
	ciphered, err := c.Encrypt(dataBlock)
	if err != nil {
		return nil, err
	}
	if err := checkDataBlock(ciphered); err != nil {
		return nil, err
	}
	out := appendDAPs(nil, daps)
	if c.ICV != nil {
		out = iso7816.AppendTLV(out, tagLoadFileICV, c.ICV)
	}
	return iso7816.AppendTLV(out, tagCipheredBlock, ciphered), nil
}

// Tags of a load file (table 11-58).
const (
	tagDataBlock     iso7816.Tag = 0xC4
	tagLoadFileICV   iso7816.Tag = 0xD3
	tagCipheredBlock iso7816.Tag = 0xD4
)

// LoadFileContent is what a load file is made of (table 11-58).
type LoadFileContent struct {
	DAPs      []DAPBlock
	DataBlock []byte // ciphered, where Ciphered
	Ciphered  bool
	ICV       []byte // of a ciphered block; nil where there is none
}

// ParseLoadFile takes a load file apart, as a card does. Anything that isn't in
// its place wraps [ErrMalformed].
func ParseLoadFile(b []byte) (c LoadFileContent, err error) {
	for {
		o, rest, err := iso7816.ParseTLV(b)
		if err != nil {
			return LoadFileContent{}, malformed("load file: %w", err)
		}
		switch {
		case o.Tag == 0xE2 && c.ICV == nil:
			d, err := parseDAP(o)
			if err != nil {
				return LoadFileContent{}, malformed("load file, DAP block %d: %w", len(c.DAPs)+1, err)
			}
			c.DAPs = append(c.DAPs, d)
		case o.Tag == tagLoadFileICV && c.ICV == nil:
			if n := len(o.Value); n != aes.BlockSize && n != des.BlockSize {
				return LoadFileContent{}, malformed("load file: ICV of %d bytes", n)
			}
			c.ICV = bytes.Clone(o.Value)
		case o.Tag == tagDataBlock && c.ICV == nil, o.Tag == tagCipheredBlock:
			if len(rest) > 0 || len(o.Value) == 0 {
				return LoadFileContent{}, malformed("load file: data block of %d bytes, %d after it", len(o.Value), len(rest))
			}
			c.DataBlock, c.Ciphered = o.Value, o.Tag == tagCipheredBlock
			return c, nil
		default:
			return LoadFileContent{}, malformed("load file: tag %v", o.Tag)
		}
		b = rest
	}
}
