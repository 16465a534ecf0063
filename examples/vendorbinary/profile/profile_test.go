package profile_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/appletstest"
	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/examples/vendorbinary/profile"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/iso7816"
)

func TestProfile(t *testing.T) {
	record := func(id string, number uint16) applets.Record {
		return applets.Record{Service: "demo", ID: id, IssueNumber: number, Expiry: time.Date(2031, 3, 31, 0, 0, 0, 0, time.UTC)}
	}
	content := applets.Content{Record: record("N-1", 1), Tag: [16]byte{1}}
	content.Record.ID, content.Record.Signature = strings.Repeat("x", 60), bytes.Repeat([]byte{7}, 64) // nearly a block by itself
	appletstest.RunProfile(t, appletstest.ProfileConfig{
		Profile: profile.Numbered{}, Content: content, Update: applets.Content{Record: record("N-2", 2), Tag: [16]byte{2}},
		New: func(t testing.TB) appletstest.Card { return emulatedcard.New(t, files.LoadFile(), files.Module) },
	})
}

// forger answers READ BINARY with an ID of its own.
type forger struct{}

func (forger) Transmit(_ context.Context, command []byte) ([]byte, error) {
	if command[1] == 0xA4 {
		return hex.DecodeString("6F0A84085346524545415245" + "9000")
	}
	record, err := applets.Record{Service: "demo", ID: "N-9"}.Encode()
	return append(record, 1, 2, 3, 4, 0x90, 0x00), err
}

func TestChecksum(t *testing.T) {
	_, err := profile.Numbered{}.Read(context.Background(), forger{}, applets.ReadRequest{AID: iso7816.MustAID("5346524545415245")})
	if !errors.Is(err, profile.ErrChecksum) {
		t.Error(err)
	}
}
