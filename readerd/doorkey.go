package readerd

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/freearea/freearea/internal/durable"
	"github.com/freearea/freearea/osdp"
)

// readKey reads a secure channel's key: 32 hexadecimal digits.
func readKey(path string) (key [osdp.KeySize]byte, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return key, err
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != len(key) {
		return key, fmt.Errorf("%s: no OSDP key: 32 hexadecimal digits expected", path)
	}
	return [osdp.KeySize]byte(b), nil
}

// writeKey keeps a key that a panel has set, before it is used: the old one or
// the new one is there, whatever happens.
func writeKey(path string, key [osdp.KeySize]byte) error {
	return durable.Replace(path, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, hex.EncodeToString(key[:]))
		return err
	})
}
