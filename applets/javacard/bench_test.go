package javacard_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// image makes the image of a card with the load file, the instance of type-d
// that others tap, and more of them: none for count 0, not even the load file.
// It returns its path, and what reads the first.
func image(t testing.TB, count int) (path string, read applets.ReadRequest) {
	t.Helper()
	ctx := context.Background()
	profile, err := emulator.LookupProfile("contactless")
	if err != nil {
		t.Fatal(err)
	}
	set := keys.Set{Version: 1, ENC: mustKey(t, 0x10), MAC: mustKey(t, 0x20), DEK: mustKey(t, 0x30)}
	path = filepath.Join(t.TempDir(), "card.img")
	c, err := emulator.Create(path, emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: set, Linker: executed()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if count == 0 {
		return path, read
	}
	x := &card{c, host{Card: c, keys: set}}
	f, err := capfile.ReadFile("base.cap")
	if err != nil {
		t.Fatal(err)
	}
	sd, err := x.SecurityDomain(ctx, scp.CMAC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = globalplatform.Load(ctx, sd, f, globalplatform.LoadOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	p := applets.Base()[2]
	spec, content := contentOf(t, p)
	spec.PIN, content.PIN = false, nil
	params, err := p.InstallParameters(spec)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		aid := instance
		if i > 0 {
			aid = iso7816.MustAID("F04652454152454102" + string("0123456789"[i]) + "0")
		}
		if err := x.Install(ctx, p.Name(), aid, params); err != nil {
			t.Fatal(err)
		}
	}
	x.personalize(t, p, content)
	return path, applets.ReadRequest{AID: instance, Keys: func(context.Context, applets.ApplicationInfo) (keys.Set, error) {
		return content.ReadKeys[0].Clone(), nil
	}}
}

// timed is a card that adds up the time that it takes.
type timed struct {
	*emulator.Card
	took time.Duration
}

func (c *timed) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	start := time.Now()
	answer, err := c.Card.Transmit(ctx, command)
	c.took += time.Since(start)
	return answer, err
}

// BenchmarkTapCard reports how long the card takes for a type-d tap, and how
// many times longer that is than what the terminal does for the same tap, which
// is the same cryptography and some parsing, in Go. The allocations are those of
// both.
func BenchmarkTapCard(b *testing.B) {
	path, request := image(b, 1)
	c, err := emulator.Open(path, executed())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p := applets.Base()[2]
	// The fastest of many turns: what else the machine does makes one slower,
	// never faster.
	card, terminal := time.Hour, time.Hour
	b.ReportAllocs()
	for b.Loop() {
		x := &timed{Card: c}
		start := time.Now()
		if _, err := p.Read(context.Background(), x, request); err != nil {
			b.Fatal(err)
		}
		card, terminal = min(card, x.took), min(terminal, time.Since(start)-x.took)
	}
	b.ReportMetric(float64(card.Nanoseconds()), "ns/tap-card")
	b.ReportMetric(card.Seconds()/terminal.Seconds(), "x-terminal")
}

// BenchmarkStart reports how much longer a card with ten applets takes to start
// from its image than an empty one, in milliseconds.
func BenchmarkStart(b *testing.B) {
	full, _ := image(b, 10)
	empty, _ := image(b, 0)
	start := func(path string) time.Duration {
		begin := time.Now()
		c, err := emulator.Open(path, executed())
		took := time.Since(begin)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		return took
	}
	var ten, none []time.Duration
	for b.Loop() {
		ten, none = append(ten, start(full)), append(none, start(empty))
	}
	slices.Sort(ten)
	slices.Sort(none)
	middle := len(ten) / 2
	b.ReportMetric((ten[middle]-none[middle]).Seconds()*1e3, "ms-more")
	b.ReportMetric(none[middle].Seconds()*1e3, "ms-empty")
}
