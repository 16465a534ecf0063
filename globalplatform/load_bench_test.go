package globalplatform_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// agreeable is a card that opens a session and then accepts everything unread,
// so that what is measured is the host.
type agreeable struct {
	session *scp.CardSession
	open    bool
}

func (a *agreeable) Transmit(_ context.Context, command []byte) ([]byte, error) {
	if a.open {
		return []byte{0x90, 0x00}, nil
	}
	cmd, err := iso7816.ParseCommand(command)
	if err != nil {
		return nil, err
	}
	if cmd.INS == 0x50 {
		return a.session.InitializeUpdate(cmd).Encode(), nil
	}
	a.open = true
	return a.session.ExternalAuthenticate(cmd).Encode(), nil
}

// BenchmarkLoad loads 20 KiB and reports the LOAD commands that it takes, the
// fewest that the channel allows, and the host's time as a multiple of that of
// the cryptography in it: the CMAC of each command, and at level 03 its ICV
// and encryption.
func BenchmarkLoad(b *testing.B) {
	loadFile, err := globalplatform.LoadFile(make([]byte, 20<<10))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		level scp.Level
		block int // bytes of load file per command (S8)
	}{{scp.CMAC, 247}, {scp.CDecryption, 239}} {
		b.Run(fmt.Sprintf("level-%02X", byte(c.level)), func(b *testing.B) {
			key, err := keys.NewKey(bytes.Repeat([]byte{0x40}, 16))
			if err != nil {
				b.Fatal(err)
			}
			set := keys.Set{Version: 1, ENC: key, MAC: key, DEK: key}
			ctx := context.Background()
			card := &agreeable{session: scp.NewCardSession(scp.CardOptions{Keys: func(byte) (keys.Set, bool) { return set.Clone(), true }})}
			session, err := scp.Open(ctx, iso7816.Plain(card), set, scp.HostOptions{Level: c.level})
			if err != nil {
				b.Fatal(err)
			}
			blocks, err := globalplatform.LoadBlocks(loadFile, globalplatform.MaxData(session))
			if err != nil {
				b.Fatal(err)
			}
			block, err := aes.NewCipher(key.Bytes())
			if err != nil {
				b.Fatal(err)
			}
			mac := sp800.NewWithCipher(block)
			var host, bare []time.Duration
			for b.Loop() {
				start := time.Now()
				for _, l := range blocks {
					if _, err := globalplatform.Execute(ctx, session, l); err != nil {
						b.Fatal(err)
					}
				}
				host = append(host, time.Since(start))
				start = time.Now()
				for _, l := range blocks {
					bareProtection(block, mac, c.level, len(l.Data))
				}
				bare = append(bare, time.Since(start))
			}
			b.ReportMetric(float64(len(blocks)), "commands")
			b.ReportMetric(float64((len(loadFile)+c.block-1)/c.block), "fewest-commands")
			b.ReportMetric(float64(median(host))/float64(median(bare)), "x-bare-crypto")
		})
	}
}

// bareProtection is the cryptography of one command with n bytes of data and
// nothing else.
func bareProtection(block cipher.Block, mac *sp800.CMAC, level scp.Level, n int) {
	var header [sp800.Size + 5]byte
	var iv [aes.BlockSize]byte
	var data [256]byte
	if level.HasCDecryption() {
		n = (n/aes.BlockSize + 1) * aes.BlockSize
		block.Encrypt(iv[:], iv[:])
		cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(data[:n], data[:n])
	}
	mac.Reset()
	mac.Write(header[:])
	mac.Write(data[:n])
	mac.Sum()
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
