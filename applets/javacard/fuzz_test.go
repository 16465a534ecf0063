package javacard_test

import (
	"context"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// FuzzCommands sends a command to an instance in each state, in the clear and
// as STORE DATA: it answers, never with 6F00, and what it serves stays
// readable.
func FuzzCommands(f *testing.F) {
	seed, err := applets.Base()[0].Personalization(applets.Content{Record: applets.Record{Service: "s", ID: "1"}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(0x80), byte(0xE2), byte(0x88), byte(0), seed[0])
	f.Add(byte(0x80), byte(0xE2), byte(0x08), byte(0), append(append([]byte{}, seed[0]...), 1, 2, 5, 0, 0, 0xE1, 1, 0))
	f.Add(byte(0x80), byte(0xE2), byte(0x88), byte(0), []byte("\x0F\x0F\x04WIPE"))
	f.Add(byte(0x80), byte(0xE2), byte(0x89), byte(0), []byte("\x0F\x00\x00"))
	f.Add(byte(0x80), byte(0x50), byte(0), byte(0), make([]byte, 8))
	f.Add(byte(0x84), byte(0x54), byte(1), byte(0x33), make([]byte, 24))
	f.Add(byte(0x84), byte(0x82), byte(0x33), byte(0), make([]byte, 16))
	f.Add(byte(0x00), byte(0xB0), byte(0x82), byte(0xFF), []byte{})
	f.Add(byte(0x00), byte(0xA4), byte(0x04), byte(0), []byte{0xA0, 0, 0, 0, 1})
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, cla, ins, p1, p2 byte, data []byte) {
		data = data[:min(len(data), applets.MaxBlock)]
		command := iso7816.Command{CLA: cla, INS: ins, P1: p1, P2: p2, Data: data, Ne: 256}
		for _, p := range applets.Base() {
			spec, _ := contentOf(t, p)
			params, err := p.InstallParameters(spec)
			if err != nil {
				t.Fatal(err)
			}
			c := newCard(t, executed(), nil)
			if err := c.Install(ctx, p.Name(), instance, params); err != nil {
				t.Fatal(err)
			}
			answered := func(to iso7816.Sender, cmd iso7816.Command) {
				t.Helper()
				r, err := to.Send(ctx, cmd)
				if err != nil {
					t.Fatal(err)
				}
				if r.SW < 0x6000 || r.SW>>8 == 0x6F || len(r.Data) > 256 {
					t.Fatalf("%s answers % X, %v", p.Name(), r.Data, r.SW)
				}
			}
			plain := iso7816.Plain(c)
			for range 2 {
				answered(plain, iso7816.Select(instance))
				answered(plain, command)
				sd, err := c.SecurityDomain(ctx, scp.CDecryption)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: instance}); err != nil {
					t.Fatal(err)
				}
				store := iso7816.Command{CLA: 0x80, INS: applets.InsStoreData, P1: p1, P2: p2, Data: data, Ne: 256}
				answered(sd, store)
				answered(sd, store)
			}
			r, err := plain.Send(ctx, iso7816.Select(instance))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := applets.ParseApplicationInfo(r.Data); r.SW != iso7816.OK || err != nil {
				t.Fatalf("%s: SELECT answers % X, %v: %v", p.Name(), r.Data, r.SW, err)
			}
		}
	})
}
