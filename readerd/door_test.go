//go:build linux

package readerd_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/freearea/freearea/internal/pty"
	"github.com/freearea/freearea/readerd"
)

// TestDoorOnALine: from a card in the slot to the card data that a control
// panel polls for over a serial line. The panel's bytes are those that libosdp
// 3.2.0 sent in the recording of package osdp's testdata/clear.txt.
func TestDoorOnALine(t *testing.T) {
	panel, line := pty.OpenRaw(t)
	if err := panel.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	door, err := readerd.DoorConfig{Line: line, Baud: 9600, Address: 5, Format: "number", Bits: 40, Clear: true}.Open()
	if err != nil {
		t.Fatal(err)
	}
	lines := &teller{name: "lines", events: make(chan readerd.Event)}
	cards := make(source)
	d := newDaemon(t, readerd.Options{Reader: newReader(t), Source: cards, Outputs: []readerd.Output{door, lines}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()

	ask := func(command string) []byte {
		t.Helper()
		if _, err := panel.WriteString(command); err != nil {
			t.Fatal(err)
		}
		var answer []byte
		buf := make([]byte, 256)
		for len(answer) < 6 || len(answer) < 1+int(answer[3])+int(answer[4])<<8 {
			n, err := panel.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			answer = append(answer, buf[:n]...)
		}
		return answer
	}
	if err := door.Check(); err == nil {
		t.Error("well before a panel has spoken")
	}
	if answer := ask("\xff\x53\x05\x09\x00\x04\x61\x00\xc1\x25"); answer[6] != 0x45 { // osdp_ID, osdp_PDID
		t.Fatalf("answer %x", answer)
	}
	if err := door.Check(); err != nil {
		t.Errorf("with a panel: %v", err)
	}
	cards <- card{id: "1234567890"}
	<-lines.events
	const polls = "\xff\x53\x05\x08\x00\x05\x60"
	var answer []byte
	for sequence := 1; sequence < 1000; sequence++ { // the door is told beside the other output
		command := []byte(polls)
		command[5] = 4 | byte((sequence-1)%3+1)
		crc := crc16(command[1:])
		if answer = ask(string(append(command, byte(crc), byte(crc>>8)))); answer[6] != 0x40 {
			break
		}
	}
	if got, want := fmt.Sprintf("%x", answer[6:len(answer)-2]), "500000280000499602d2"; got != want {
		t.Errorf("panel is told %s, want %s", got, want)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func crc16(b []byte) uint16 {
	crc := uint16(0x1D0F)
	for _, x := range b {
		crc ^= uint16(x) << 8
		for range 8 {
			carry := crc & 0x8000
			if crc <<= 1; carry != 0 {
				crc ^= 0x1021
			}
		}
	}
	return crc
}

// TestNoLine: a line that is not there is tried again, and told of.
func TestNoLine(t *testing.T) {
	door, err := readerd.DoorConfig{Line: filepath.Join(t.TempDir(), "none"), Baud: 9600, Format: "text", Clear: true}.Open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- door.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
