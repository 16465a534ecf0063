package oncard

import (
	"crypto/rand"
	"testing"

	"github.com/freearea/freearea/applets"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// openDomain is a Security Domain's channel that encrypts nothing.
type openDomain struct{}

func (openDomain) Level() byte                               { return channelNeeds }
func (openDomain) DecryptSensitive(b []byte) ([]byte, error) { return append([]byte(nil), b...), nil }

// FuzzCommands sends a command to an instance in each state, in the clear and
// as STORE DATA: it answers, and what it serves stays readable.
func FuzzCommands(f *testing.F) {
	content := applets.Content{Record: applets.Record{Service: "s", ID: "1"}}
	common := applets.Base()[0]
	seed, err := common.Personalization(content, nil)
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
	f.Fuzz(func(t *testing.T, cla, ins, p1, p2 byte, data []byte) {
		for _, p := range applets.Base() {
			spec := applets.InstallSpec{}
			if p.Traits().MutualAuthentication {
				spec = applets.InstallSpec{DiversificationData: [10]byte{1}, KeySets: 2, ItemsCapacity: 100, PIN: true}
			}
			params, err := p.InstallParameters(spec)
			if err != nil {
				t.Fatal(err)
			}
			aid, _ := applets.BaseModule(p.Name())
			m := &memory{random: rand.Reader, state: card.Selectable}
			if err := Modules()[aid].Install(m, card.InstallParameters{Specific: params}); err != nil {
				t.Fatal(err)
			}
			opened, err := Modules()[aid].Open(m)
			if err != nil {
				t.Fatal(err)
			}
			a := opened.(*application)
			cmd := iso7816.Command{CLA: cla, INS: ins, P1: p1, P2: p2, Data: data, Ne: 256}
			for _, r := range []iso7816.Response{
				a.Process(cmd), a.Personalize(cmd, openDomain{}), a.Personalize(cmd, openDomain{}),
				a.Select(iso7816.Select(m.AID())), a.Process(cmd), a.Personalize(cmd, openDomain{}),
			} {
				if r.SW < 0x6000 || r.SW>>8 == 0x6F || len(r.Data) > 256 || r.SW != iso7816.OK && len(r.Data) > 0 {
					t.Fatalf("%s answers % X, %v", p.Name(), r.Data, r.SW)
				}
			}
			r := a.Select(iso7816.Select(m.AID()))
			if _, err := applets.ParseApplicationInfo(r.Data); r.SW != iso7816.OK || err != nil {
				t.Fatalf("%s: SELECT answers % X, %v: %v", p.Name(), r.Data, r.SW, err)
			}
		}
	})
}
