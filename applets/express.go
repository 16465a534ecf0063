package applets

import (
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// ExpressLabel takes the place of the zeros in the label of SCP03's key
// derivation, so that no session key of one is ever one of the other.
var ExpressLabel = scp.Label([]byte("FREEAREA-X1"))

const (
	challengeSize = 16
	macSize       = 8
)

// ExpressKeys derives the session keys of express reading from the static ENC
// and MAC keys and the challenges of host and card.
func ExpressKeys(set keys.Set, host, card [16]byte) (scp.SessionKeys, error) {
	return scp.DeriveSessionKeysLabel(ExpressLabel, set, host[:], card[:])
}

// ExpressMAC returns the full CMAC of the EXPRESS command: its first 8 bytes
// are the C-MAC, all 16 the MAC chaining value of what follows.
func ExpressMAC(smac keys.Key, instance iso7816.AID, version byte, level scp.Level, host [16]byte) ([16]byte, error) {
	m, err := sp800.New(smac.Bytes())
	if err != nil {
		return [16]byte{}, err
	}
	var message [16 + 5 + challengeSize]byte
	copy(message[:16], instance.Bytes())
	copy(message[16:], []byte{0x84, InsExpress, version, byte(level), challengeSize + macSize})
	copy(message[21:], host[:])
	m.Write(message[:])
	return m.Sum(), nil
}

// expressSession is express reading on the terminal's side, after the card
// has proved itself.
type expressSession struct {
	level    scp.Level
	keys     scp.SessionKeys
	chaining [16]byte
}

// resume goes on with SCP03.
func (x *expressSession) resume(card iso7816.Card) *scp.Session {
	return scp.ResumeHost(iso7816.Plain(card), x.keys, x.level, x.chaining, 1)
}

// express sends EXPRESS and returns what it answered once the card's proof is
// verified.
func express(ctx context.Context, card iso7816.Card, info *ApplicationInfo, set keys.Set, level scp.Level, random io.Reader) (*expressSession, []byte, error) {
	if random == nil {
		random = rand.Reader
	}
	var data [challengeSize + macSize]byte
	host := (*[challengeSize]byte)(data[:])
	if _, err := io.ReadFull(random, host[:]); err != nil {
		return nil, nil, fmt.Errorf("host challenge: %w", err)
	}
	k, err := ExpressKeys(set, *host, info.Challenge)
	if err != nil {
		return nil, nil, err
	}
	x := &expressSession{level: level, keys: k}
	if x.chaining, err = ExpressMAC(k.MAC, info.AID, set.Version, level, *host); err != nil {
		return nil, nil, err
	}
	copy(data[challengeSize:], x.chaining[:macSize])
	cmd := iso7816.Command{CLA: 0x84, INS: InsExpress, P1: set.Version, P2: byte(level), Data: data[:], Ne: iso7816.MaxShortNe}
	r, err := iso7816.Send(ctx, card, cmd)
	if err != nil {
		x.keys.Erase()
		return nil, nil, err
	}
	if r.SW != iso7816.OK {
		x.keys.Erase()
		if r.SW == iso7816.ErrSecurityStatus {
			return nil, nil, fmt.Errorf("%w: key version %d: %w", ErrHostProof, set.Version, r.Err(cmd))
		}
		return nil, nil, r.Err(cmd)
	}
	plain, err := x.open(r.Data)
	if err != nil {
		x.keys.Erase()
		return nil, nil, err
	}
	return x, plain, nil
}

// open verifies the R-MAC and only then decrypts.
func (x *expressSession) open(answer []byte) ([]byte, error) {
	n := len(answer) - macSize
	if n < 0 {
		return nil, fmt.Errorf("%w: answer of %d bytes", ErrCardProof, len(answer))
	}
	m, err := sp800.New(x.keys.RMAC.Bytes())
	if err != nil {
		return nil, err
	}
	m.Write(x.chaining[:])
	m.Write(answer[:n])
	m.Write([]byte{0x90, 0x00})
	mac := m.Sum()
	if subtle.ConstantTimeCompare(mac[:macSize], answer[n:]) != 1 {
		return nil, ErrCardProof
	}
	if !x.level.HasREncryption() || n == 0 {
		return answer[:n:n], nil
	}
	if n%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%w: encrypted answer of %d bytes", ErrCardProof, n)
	}
	block, err := aes.NewCipher(x.keys.ENC.Bytes())
	if err != nil {
		return nil, err
	}
	iv := [aes.BlockSize]byte{0x80}
	block.Encrypt(iv[:], iv[:])
	// CBC by hand: crypto/cipher copies the key schedule for its mode, which
	// costs as much as all of these blocks.
	plain := make([]byte, n)
	for at, previous := 0, iv[:]; at < n; at += aes.BlockSize {
		block.Decrypt(plain[at:], answer[at:])
		subtle.XORBytes(plain[at:], plain[at:at+aes.BlockSize], previous)
		previous = answer[at : at+aes.BlockSize]
	}
	for n--; n >= 0 && plain[n] == 0; n-- {
	}
	if n <= 0 || plain[n] != 0x80 || len(plain)-n > aes.BlockSize {
		return nil, fmt.Errorf("%w: encrypted answer is not padded", ErrCardProof)
	}
	return plain[:n:n], nil
}
