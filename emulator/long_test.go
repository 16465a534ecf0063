package emulator

import (
	"context"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// An answer that no response carries whole comes in several (GPCS 11.1.5.2):
// R-MAC and R-ENCRYPTION go over all of it, 61xx and GET RESPONSE carry it.
func TestChainedResponses(t *testing.T) {
	for _, level := range []scp.Level{scp.CMAC, scp.CMACRMAC, scp.Full} {
		c := newTestCard(t)
		s := authenticate(t, c, level)
		for v := byte(1); v <= 40; v++ {
			putOne(t, s, v, globalplatform.AESKey(testKey(t, v)))
		}
		counted := &counting{Card: c}
		s = authenticate(t, counted, level)
		counted.more = 0
		got, err := globalplatform.Keys(t.Context(), s)
		if err != nil || len(got) != 43 {
			t.Errorf("level %v: %d keys, %v", level, len(got), err)
		}
		if counted.more != 1 {
			t.Errorf("level %v: %d commands GET RESPONSE", level, counted.more)
		}
		// The session goes on after it.
		if _, err := globalplatform.Keys(t.Context(), s); err != nil {
			t.Errorf("level %v: again: %v", level, err)
		}
	}
}

// counting counts GET RESPONSE.
type counting struct {
	iso7816.Card
	more int
}

func (c *counting) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if command[1] == insGetResponse {
		c.more++
	}
	return c.Card.Transmit(ctx, command)
}
