package globalplatform_test

import (
	"errors"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Tables 11-11 and 11-12.
func TestChannelClass(t *testing.T) {
	for _, x := range []struct{ class, number, want byte }{
		{0x00, 0, 0x00}, {0x00, 3, 0x03}, {0x80, 2, 0x82}, {0x84, 1, 0x85}, {0x90, 3, 0x93},
		{0x00, 4, 0x40}, {0x80, 4, 0xC0}, {0x84, 4, 0xE0}, {0x84, 19, 0xEF}, {0x00, 19, 0x4F}, {0x10, 5, 0x51},
	} {
		got, err := globalplatform.ChannelClass(x.class, x.number)
		if err != nil || got != x.want {
			t.Errorf("%02X on %d is %02X, %v, want %02X", x.class, x.number, got, err, x.want)
		}
		if number, basic := globalplatform.ClassChannel(got); number != x.number || basic != x.class {
			t.Errorf("%02X is %02X on %d", got, basic, number)
		}
	}
	for _, x := range []struct{ class, number byte }{{0x81, 1}, {0xC0, 1}, {0x00, 20}, {0x8C, 4}} {
		if _, err := globalplatform.ChannelClass(x.class, x.number); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%02X on %d: %v", x.class, x.number, err)
		}
	}
}

// A secure channel over a logical channel: the number is in no MAC.
func TestSessionOnChannel(t *testing.T) {
	for _, number := range []byte{0, 1, 3, 4, 19} {
		set := keys.DevelopmentSet()
		card := scp.NewCardSession(scp.CardOptions{Keys: func(byte) (keys.Set, bool) { return set, true }})
		var classes []byte
		wire := sender(func(c iso7816.Command) iso7816.Response {
			if n, _ := globalplatform.ClassChannel(c.CLA); n != number {
				t.Errorf("class %02X on channel %d", c.CLA, number)
			}
			classes = append(classes, c.CLA)
			switch c.INS {
			case 0x50:
				return card.InitializeUpdate(c)
			case 0x82:
				return card.ExternalAuthenticate(c)
			}
			plain, err := card.Unwrap(c)
			if err != nil {
				t.Fatalf("channel %d: %v", number, err)
			}
			return card.Wrap(iso7816.Response{Data: plain.Data, SW: iso7816.OK})
		})
		s, err := scp.Open(t.Context(), globalplatform.OnChannel(wire, number), set, scp.HostOptions{Level: scp.Full})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Send(t.Context(), iso7816.Command{CLA: 0x80, INS: 0xE2, Data: []byte("data"), Ne: 256})
		if err != nil || string(r.Data) != "data" {
			t.Errorf("channel %d: %q, %v", number, r.Data, err)
		}
	}
}

func TestManageChannel(t *testing.T) {
	for want, m := range map[string]globalplatform.ManageChannel{
		"0070000001": {}, "00700002": {Number: 2}, "00708013": {Close: true, Number: 19},
	} {
		c, err := m.Command()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Encode(); err != nil || string(got) != string(unhex(t, want)) {
			t.Errorf("%X, want %s", got, want)
		}
	}
	for _, m := range []globalplatform.ManageChannel{{Close: true}, {Number: 20}, {Close: true, Number: 20}} {
		if _, err := m.Command(); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	for data, ok := range map[string]bool{"01": true, "13": true, "00": false, "14": false, "": false, "0101": false} {
		n, err := globalplatform.OpenChannel(t.Context(), sender(func(iso7816.Command) iso7816.Response { return answer(t, data, iso7816.OK) }))
		if (err == nil) != ok || err != nil && !errors.Is(err, globalplatform.ErrMalformed) || ok && n != unhex(t, data)[0] {
			t.Errorf("%q: %d, %v", data, n, err)
		}
	}
	err := globalplatform.CloseChannel(t.Context(), sender(func(iso7816.Command) iso7816.Response { return answer(t, "", iso7816.ErrUnchanged) }), 2)
	if !errors.Is(err, iso7816.ErrUnchanged) {
		t.Error(err)
	}
}
