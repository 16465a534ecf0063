package globalplatform_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// recognition is Card Recognition Data that offers the protocols.
func recognition(t testing.TB, protocols ...scp.Protocol) []byte {
	const gp = "2A864886FC6B"
	inner := unhex(t, "0607"+gp+"01")
	for _, p := range protocols {
		oid := append(unhex(t, gp+"04"), p.Number, p.I)
		inner = iso7816.AppendTLV(inner, 0x64, iso7816.AppendTLV(nil, 0x06, oid))
	}
	return iso7816.AppendTLV(nil, 0x66, iso7816.AppendTLV(nil, 0x73, inner))
}

// A card speaks one protocol; Card Recognition Data says which ones.
func TestConnect(t *testing.T) {
	i15, i1A := scp.Protocol{Number: 2, I: 0x15}, scp.Protocol{Number: 2, I: 0x1A}
	i00 := scp.Protocol{Number: 3}
	generic, err := globalplatform.LookupCardProfile("generic")
	if err != nil {
		t.Fatal(err)
	}
	forced := generic
	forced.Protocols = []scp.Protocol{i15}
	full := generic
	full.Level = scp.Full
	for name, x := range map[string]struct {
		offers  []scp.Protocol // nil: no such data object
		speaks  scp.Protocol
		profile globalplatform.CardProfile
		want    error
	}{
		"SCP03":                     {[]scp.Protocol{scp.SCP03}, scp.SCP03, generic, nil},
		"SCP03 without options":     {[]scp.Protocol{i00}, i00, generic, nil},
		"SCP03 and SCP02, by SCP03": {[]scp.Protocol{i15, scp.SCP03}, scp.SCP03, generic, nil},
		"SCP03 and SCP02, by SCP02": {[]scp.Protocol{i15, scp.SCP03}, i15, generic, nil},
		"SCP02":                     {[]scp.Protocol{{Number: 0x80}, i1A, i15}, i15, generic, nil},
		"S16":                       {[]scp.Protocol{i15, scp.SCP03S16}, scp.SCP03S16, generic, nil},
		"S8 and S16":                {[]scp.Protocol{scp.SCP03S16, scp.SCP03}, scp.SCP03, generic, nil},
		"S16 for the level":         {[]scp.Protocol{i00, scp.SCP03S16}, scp.SCP03S16, full, nil},
		"nothing said, SCP03":       {nil, scp.SCP03, generic, nil},
		"nothing said, SCP02":       {nil, i15, generic, nil},
		"forced, nothing asked":     {[]scp.Protocol{scp.SCP03}, i15, forced, nil},
		"forced, another speaks":    {[]scp.Protocol{i15}, scp.SCP03, forced, scp.ErrProtocolNotSupported},
		"nothing that is spoken":    {[]scp.Protocol{{Number: 1, I: 5}, i1A}, scp.SCP03, generic, scp.ErrProtocolNotSupported},
		"another than it says":      {[]scp.Protocol{scp.SCP03}, i15, generic, scp.ErrProtocolNotSupported},
		"the level is not there":    {[]scp.Protocol{i15}, i15, full, scp.ErrLevel},
		"an S16 card that says S8":  {[]scp.Protocol{scp.SCP03}, scp.SCP03S16, generic, iso7816.ErrWrongLength},
	} {
		t.Run(name, func(t *testing.T) {
			counter := uint32(0)
			set := keys.DevelopmentSet()
			card := scp.NewCardSession(scp.CardOptions{
				Protocol: x.speaks, AID: globalplatform.IssuerSecurityDomain, Keys: func(byte) (keys.Set, bool) { return set, true },
				Counter: func(byte) (uint32, error) { return counter, nil }, SetCounter: func(_ byte, n uint32) error { counter = n; return nil },
			})
			asked := 0
			wire := sender(func(c iso7816.Command) iso7816.Response {
				switch {
				case c.INS == 0xCA && c.P2 == 0x66:
					asked++
					if x.offers == nil {
						return iso7816.Response{SW: iso7816.ErrDataNotFound}
					}
					return iso7816.Response{Data: recognition(t, x.offers...), SW: iso7816.OK}
				case c.INS == 0x50:
					return card.InitializeUpdate(c)
				}
				return card.ExternalAuthenticate(c)
			})
			s, err := open(t.Context(), wire, x.profile, set)
			if !errors.Is(err, x.want) {
				t.Fatalf("error %v, want %v", err, x.want)
			}
			if x.profile.Protocols != nil && asked != 0 {
				t.Error("asked although the profile says it")
			}
			if err != nil {
				return
			}
			if s.Protocol() != x.speaks || s.Level() != x.profile.Level || s.AllowsSensitive() == (x.speaks.Number == 2) {
				t.Errorf("%v at %v, secrets %v", s.Protocol(), s.Level(), s.AllowsSensitive())
			}
		})
	}
}

func open(ctx context.Context, wire iso7816.Sender, p globalplatform.CardProfile, set keys.Set) (*scp.Session, error) {
	pending, err := globalplatform.Connect(ctx, wire, p, scp.HostOptions{AID: globalplatform.IssuerSecurityDomain})
	if err != nil {
		return nil, err
	}
	return pending.Authenticate(ctx, set)
}

func TestConnectRefusesGarbage(t *testing.T) {
	generic, _ := globalplatform.LookupCardProfile("generic")
	for _, data := range []string{"6600", "660473020000", "66", "", "FFFF"} {
		sent := 0
		_, err := globalplatform.Connect(t.Context(), sender(func(iso7816.Command) iso7816.Response {
			sent++
			return iso7816.Response{Data: unhex(t, data), SW: iso7816.OK}
		}), generic, scp.HostOptions{})
		if !errors.Is(err, globalplatform.ErrMalformed) || sent != 1 {
			t.Errorf("%s: %v after %d commands", data, err, sent)
		}
	}
	_, err := globalplatform.Connect(t.Context(), sender(func(iso7816.Command) iso7816.Response {
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	}), generic, scp.HostOptions{})
	if !errors.Is(err, iso7816.ErrSecurityStatus) {
		t.Error(fmt.Sprint(err))
	}
}

// Selection by partial AID, until there is no next one.
func TestSelectNext(t *testing.T) {
	partial := iso7816.MustAID("F001020304")
	var sent []string
	answers := []iso7816.Response{
		answer(t, "6F0A 8406F00102030401 A500", iso7816.OK), answer(t, "6F0A 8406F00102030402 A500", iso7816.OK),
		answer(t, "6F0A 8406F00102030502 A500", iso7816.OK), answer(t, "", iso7816.ErrNotFound),
	}
	wire := sender(func(c iso7816.Command) iso7816.Response {
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, fmt.Sprintf("%X", b))
		return answers[len(sent)-1]
	})
	for i, want := range []string{"F00102030401", "F00102030402"} {
		f, err := globalplatform.SelectNext(t.Context(), wire, partial)
		if err != nil || f.AID.String() != want || sent[i] != "00A4040205F00102030400" {
			t.Errorf("%v, %v, %s", f.AID, err, sent[i])
		}
	}
	if _, err := globalplatform.SelectNext(t.Context(), wire, partial); !errors.Is(err, globalplatform.ErrOtherApplication) {
		t.Errorf("another AID: %v", err)
	}
	if _, err := globalplatform.SelectNext(t.Context(), wire, partial); !errors.Is(err, iso7816.ErrNotFound) {
		t.Errorf("at the end: %v", err)
	}
}
