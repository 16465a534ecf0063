package javacard_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// countFrom is a random generator that draws the same bytes every time.
type countFrom byte

func (c countFrom) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c) + byte(i)
	}
	return len(p), nil
}

// lines prints what goes over the air, 32 bytes a line.
type lines struct {
	iso7816.Card
	out *strings.Builder
}

func (l lines) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	printBytes(l.out, "> ", command)
	response, err := l.Card.Transmit(ctx, command)
	printBytes(l.out, "< ", response)
	return response, err
}

func printBytes(out *strings.Builder, mark string, b []byte) {
	for first := true; first || len(b) > 0; first = false {
		n := min(32, len(b))
		fmt.Fprintf(out, "%s%X\n", mark, b[:n])
		b, mark = b[n:], "  "
	}
}

// The worked traces of docs/card-protocol.md: the emulated card and the host
// do exactly what the document says. The document's bytes were checked with
// an independent implementation (Python's cryptography package and OpenSSL),
// which the document shows how to repeat.
func TestWorkedTraces(t *testing.T) {
	doc, err := os.ReadFile("../../docs/card-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	aid := iso7816.MustAID("F0465245454152454101")
	pin, err := applets.NewPIN("4815")
	if err != nil {
		t.Fatal(err)
	}
	for _, profile := range applets.Base() {
		t.Run(profile.Name(), func(t *testing.T) {
			c := newCard(t, executed(), countFrom(0xC0))
			var out strings.Builder
			spec := applets.InstallSpec{}
			content := applets.Content{
				Record: applets.Record{Service: "demo", ID: "K-1042", IssueNumber: 1, Expiry: time.Date(2031, 3, 31, 0, 0, 0, 0, time.UTC)},
				Tag:    [16]byte(mustKey(t, 0xE0).Bytes()),
			}
			if profile.Traits().MutualAuthentication {
				spec = applets.InstallSpec{DiversificationData: [10]byte(mustKey(t, 0xD0).Bytes()), KeySets: 1, ItemsCapacity: 64}
				content.Items = []applets.Item{{Name: "class", Value: "adult"}}
				content.ReadKeys = []keys.Set{{Version: 1, ENC: mustKey(t, 0x40), MAC: mustKey(t, 0x50)}}
			}
			if profile.Name() == "type-d" {
				spec.PIN = true
				content.PIN = &applets.PINSetting{Reference: pin}
			}
			params, err := profile.InstallParameters(spec)
			if err != nil {
				t.Fatal(err)
			}
			printBytes(&out, "C9 ", params)
			if err := c.Install(ctx, profile.Name(), aid, params); err != nil {
				t.Fatal(err)
			}
			sd, err := c.SecurityDomain(ctx, scp.CDecryption)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: aid}); err != nil {
				t.Fatal(err)
			}
			blocks, err := profile.Personalization(content, sd.EncryptSensitive)
			if err != nil {
				t.Fatal(err)
			}
			for i, b := range blocks {
				printBytes(&out, fmt.Sprintf("%02X ", i), b)
			}
			o := globalplatform.StoreOptions{Format: globalplatform.FormatDGI}
			if _, err := globalplatform.Store(ctx, sd, blocks, o, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := globalplatform.Execute(ctx, sd, globalplatform.InstallForPersonalization{Instance: aid}); err != nil {
				t.Fatal(err)
			}
			o.Answer = true
			observed, err := globalplatform.Store(ctx, sd, [][]byte{profile.ObservationRequest()}, o, nil)
			if err != nil {
				t.Fatal(err)
			}
			printBytes(&out, "? ", observed)
			_, err = profile.Read(ctx, lines{c, &out}, applets.ReadRequest{
				AID: aid, Rand: countFrom(0xA0), WantItems: profile.Name() == "type-d",
				Keys: func(context.Context, applets.ApplicationInfo) (keys.Set, error) {
					return keys.Set{Version: 1, ENC: mustKey(t, 0x40), MAC: mustKey(t, 0x50)}, nil
				},
				PIN: func(context.Context) (applets.PIN, error) { return applets.NewPIN("4815") },
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := "```trace " + profile.Name() + "\n" + out.String() + "```\n"; !strings.Contains(string(doc), want) {
				t.Errorf("docs/card-protocol.md does not have this trace:\n%s", want)
			}
		})
	}
}
