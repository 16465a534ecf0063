package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// benchCAP is a load file with a Debug component: see emulator/jcvm/testdata.
const benchCAP = "../../emulator/jcvm/testdata/bench.cap"

// benchCard is `benchcard IMAGE CAP`: it makes the image of a card with the
// applet of bench.cap, and copies that file.
func benchCard(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: benchcard IMAGE CAP")
	}
	ctx := context.Background()
	data, err := os.ReadFile(benchCAP)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o600))
	file, err := capfile.Parse(data)
	ts.Check(err)
	profile, err := emulator.LookupProfile("contact")
	ts.Check(err)
	set := keys.DevelopmentSet()
	card, err := emulator.Create(ts.MkAbs(args[0]), emulator.Config{Profile: profile, IIN: []byte{1}, CIN: []byte{2}, Keys: set, Linker: jcvm.Linker{}})
	ts.Check(err)
	_, err = globalplatform.Select(ctx, iso7816.Plain(card), globalplatform.IssuerSecurityDomain)
	ts.Check(err)
	session, err := scp.Open(ctx, iso7816.Plain(card), set, scp.HostOptions{Level: scp.CMAC})
	ts.Check(err)
	_, err = globalplatform.Load(ctx, session, file, globalplatform.LoadOptions{}, nil)
	ts.Check(err)
	_, err = globalplatform.Execute(ctx, session, globalplatform.InstallForInstall{
		LoadFile: file.Package.AID, Module: file.Applets[0], Instance: file.Applets[0], MakeSelectable: true,
	})
	ts.Check(err)
	ts.Check(card.Close())
}

// readers are the virtual readers of scripts, by their addresses.
type (
	readers    map[string]net.Listener
	readersKey struct{}
)

// reader is `reader listen`, which sets READER to the address of a virtual
// reader that waits for a card, and `reader exchange APDU SW...`, which powers
// the card that has come, sends it commands, wants these status words, and
// takes it out.
func reader(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 1 && args[0] == "listen":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { l.Close() })
		ts.Value(readersKey{}).(readers)[l.Addr().String()] = l
		ts.Setenv("READER", l.Addr().String())
	case !neg && len(args) > 1 && len(args)%2 == 1 && args[0] == "exchange":
		l := ts.Value(readersKey{}).(readers)[ts.Getenv("READER")]
		ts.Check(l.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second)))
		conn, err := l.Accept()
		ts.Check(err)
		defer conn.Close()
		send := func(b []byte) {
			_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			ts.Check(err)
		}
		send([]byte{1}) // power on
		for i := 1; i < len(args); i += 2 {
			command, err := hex.DecodeString(args[i])
			ts.Check(err)
			send(command)
			size := make([]byte, 2)
			_, err = io.ReadFull(conn, size)
			ts.Check(err)
			answer := make([]byte, binary.BigEndian.Uint16(size))
			_, err = io.ReadFull(conn, answer)
			ts.Check(err)
			if got := strings.ToUpper(hex.EncodeToString(answer)); !strings.HasSuffix(got, args[i+1]) {
				ts.Fatalf("%s: %s, want %s", args[i], got, args[i+1])
			}
		}
	default:
		ts.Fatalf("usage: reader listen | reader exchange APDU SW...")
	}
}
