package pcsc_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/vpcd"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/internal/pcscd"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// benchmarkCards are measured against a bare echo card on the same stack. insert
// puts the card into the reader until the end of the benchmark; commands are
// sent to it in turn, after setup (which may be nil).
var benchmarkCards = []struct {
	name     string
	insert   func(b *testing.B, r *pcscd.Reader)
	setup    func(b *testing.B, card iso7816.Card)
	commands [][]byte
}{
	{
		name:     "echo",
		insert:   func(b *testing.B, r *pcscd.Reader) { (&naiveCard{atr: atrTwo}).insert(b, r) },
		commands: [][]byte{benchmarkCommand},
	},
	{
		// What a terminal and a counter ask first, a service's ID among it.
		name:   "emulated",
		insert: insertEmulated,
		commands: [][]byte{
			selectCommand(benchmarkService),
			{0x00, 0xB0, 0x81, 0x00, 0x00}, // READ BINARY of EF.ID
			selectCommand(emulator.IssuerSecurityDomain),
			{0x80, 0xCA, 0x00, 0x45, 0x00}, // GET DATA of the CIN
		},
	},
	{
		name:     "emulated-select",
		insert:   insertEmulated,
		commands: [][]byte{selectCommand(benchmarkService)},
	},
}

var benchmarkService = iso7816.MustAID("F0465245454152454101")

// insertEmulated puts an emulated card with a common-ap service into the
// reader, as `freearea emulate` does but in this process, where the echo card
// is too.
func insertEmulated(b *testing.B, r *pcscd.Reader) {
	card := serviceCard(b)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	listener := r.Listen()
	go func() { done <- vpcd.Accept(ctx, listener, card) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
		card.Close()
	})
}

// serviceCard makes an emulated card with one service on it.
func serviceCard(b *testing.B) *emulator.Card {
	b.Helper()
	ctx := context.Background()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	key := func(first byte) keys.Key {
		k, err := keys.NewKey(bytes.Repeat([]byte{first}, 16))
		must(err)
		return k
	}
	domain := keys.Set{Version: 1, ENC: key(1), MAC: key(2), DEK: key(3)}
	profile, err := emulator.LookupProfile("contactless")
	must(err)
	card, err := emulator.New(emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: domain, Linker: emulatedcard.Linker()})
	must(err)
	file, err := capfile.Parse(applets.BaseLoadFile())
	must(err)
	plain := iso7816.Plain(card)
	_, err = globalplatform.Select(ctx, plain, emulator.IssuerSecurityDomain)
	must(err)
	channel, err := scp.Open(ctx, plain, domain, scp.HostOptions{Level: scp.CDecryption})
	must(err)
	defer channel.Close()
	_, err = globalplatform.Load(ctx, channel, file, globalplatform.LoadOptions{}, nil)
	must(err)
	application, _ := applets.Base().Lookup("common-ap")
	parameters, err := application.InstallParameters(applets.InstallSpec{})
	must(err)
	module, _ := applets.BaseModule("common-ap")
	_, err = globalplatform.Execute(ctx, channel, globalplatform.InstallForInstall{
		LoadFile: file.Package.AID, Module: module, Instance: benchmarkService, MakeSelectable: true,
		Parameters: globalplatform.InstallParameters{Specific: parameters},
	})
	must(err)
	_, err = globalplatform.Execute(ctx, channel, globalplatform.InstallForPersonalization{Instance: benchmarkService})
	must(err)
	blocks, err := application.Personalization(applets.Content{Record: applets.Record{
		Service: "points", ID: "P-000123", IssueNumber: 1, Signature: make([]byte, 64),
	}}, channel.EncryptSensitive)
	must(err)
	_, err = globalplatform.Store(ctx, channel, blocks, globalplatform.StoreOptions{Format: globalplatform.FormatDGI}, nil)
	must(err)
	return card
}

// benchmarkCommand is a SELECT by a long AID.
var benchmarkCommand = []byte{
	0x00, 0xA4, 0x04, 0x00, 0x10, 0xF0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x00,
}

// BenchmarkAPDU sends commands through pcscd to a card, and to an echo card in
// the other slot of the same reader in turn. It reports both means and their
// ratio ("x-echo"), of one run on one machine.
func BenchmarkAPDU(b *testing.B) {
	for _, card := range benchmarkCards {
		b.Run(card.name, func(b *testing.B) {
			d, s := start(b, 2)
			(&naiveCard{atr: atrOne}).insert(b, d.Readers[0])
			card.insert(b, d.Readers[1])
			settle(b, s, d.Readers[0], d.Readers[1])
			echo, tried := open(b, s, d.Readers[0].Name, iso7816.Exclusive), open(b, s, d.Readers[1].Name, iso7816.Exclusive)
			if card.setup != nil {
				card.setup(b, tried)
			}
			ctx := b.Context()
			send := func(conn iso7816.Conn, command []byte) time.Duration {
				begin := time.Now()
				answer, err := conn.Transmit(ctx, command)
				took := time.Since(begin)
				if err != nil || len(answer) < 2 || !bytes.HasSuffix(answer, []byte{0x90, 0x00}) {
					b.Fatalf("answer % X, error %v to % X", answer, err, command)
				}
				return took
			}
			var echoTime, triedTime time.Duration
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				command := card.commands[n%len(card.commands)]
				echoTime += send(echo, command)
				triedTime += send(tried, command)
				n++
			}
			b.ReportMetric(float64(echoTime.Nanoseconds())/float64(n), "ns/echo")
			b.ReportMetric(float64(triedTime.Nanoseconds())/float64(n), "ns/APDU")
			b.ReportMetric(float64(triedTime)/float64(echoTime), "x-echo")
		})
	}
}
