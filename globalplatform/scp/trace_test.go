package scp_test

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// TestGoldenTrace plays a session of a physical card, which others recorded,
// back to the host's side: every byte it sends must be the recorded one, and
// the card, which echoes, must be understood.
func TestGoldenTrace(t *testing.T) {
	f, err := os.Open("testdata/kaoh-rmac-renc.trace")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := iso7816.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	var recorded recording
	for _, r := range recordings(t) {
		if r.name == "kaoh-rmac-renc" {
			recorded = r
		}
	}
	card := trace.Card()
	ctx := context.Background()
	session, err := scp.Open(ctx, iso7816.Plain(withoutLe{card}), recorded.set, scp.HostOptions{
		Level: scp.Full, Rand: bytes.NewReader(recorded.hostChallenge),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range recorded.exchanges {
		r, err := session.Send(ctx, e.plain)
		if err != nil {
			t.Fatalf("command %d: %v", i+1, err)
		}
		if !bytes.Equal(r.Data, e.plain.Data) || r.SW != iso7816.OK {
			t.Errorf("command %d: the card said % X %v, not its echo", i+1, r.Data, r.SW)
		}
	}
	if err := card.Done(); err != nil {
		t.Error(err)
	}
	if len(recorded.exchanges) < 3 {
		t.Errorf("only %d exchanges in the recording", len(recorded.exchanges))
	}
}

// withoutLe drops the Le of instruction 40, which the recording host did not
// send: the card answered all the same, and no MAC covers Le.
type withoutLe struct{ iso7816.Card }

func (c withoutLe) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	cmd, err := iso7816.ParseCommand(command)
	if err != nil || cmd.INS != 0x40 {
		return c.Card.Transmit(ctx, command)
	}
	cmd.Ne = 0
	b, err := cmd.Encode()
	if err != nil {
		return nil, err
	}
	return c.Card.Transmit(ctx, b)
}
