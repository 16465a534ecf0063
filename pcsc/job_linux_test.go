package pcsc_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
)

// Three services are issued to one card, read back by a terminal that holds
// the read keys only, asked for by a third party's program, and one is
// withdrawn.
func testWholeJob(t *testing.T, program string) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	o := newOffice(t, program)
	o.thorough = true
	o.makeKeys(o.services...)
	o.counter.run("emulate", "new", "card.img")
	card := o.emulate(t, "card.img")
	card.insert(t, s, slot)

	type slotLine struct {
		V           int    `json:"v"`
		Type        string `json:"type"`
		Slot        string `json:"slot"`
		CardPresent bool   `json:"card_present"`
		ATR         string `json:"atr"`
	}
	var slots []slotLine
	for line := range strings.Lines(o.counter.run("slots", "--json")) {
		slots = append(slots, as[slotLine](t, line))
	}
	want := []slotLine{
		{V: 1, Type: "slot", Slot: slot.Name, CardPresent: true, ATR: "3B888001000005E0B381A1007F"},
		{V: 1, Type: "slot", Slot: neighbour(slot)},
	}
	if diff := cmp.Diff(want, slots); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}

	var done []issued
	for i, service := range o.services {
		consent := o.consent(service, service.id)
		got := as[issued](t, o.counter.run(service.issueArgs(slot.Name, consent)...))
		steps := []string{"load", "install", "personalize", "verify"}
		if i > 0 {
			steps = steps[1:] // the load file is on the card
		}
		want := issued{V: 1, Type: "issue", Service: service.id, Instance: service.instance.String(), Steps: steps, IssueNumber: 1,
			Run: got.Run, ID: got.ID, Expiry: got.Expiry}
		if service.profile != "common-ap" {
			want.KeyVersion = 1
		}
		if diff := cmp.Diff(want, got); diff != "" || got.ID == "" || got.Expiry == "" || got.Run == "" {
			t.Fatalf("issue of %s (-want +got):\n%s\n%+v", service.id, diff, got)
		}
		done = append(done, got)
		again := as[issued](t, o.counter.run(service.issueArgs(slot.Name, consent)...))
		if !again.NothingToDo || len(again.Steps) != 0 || again.ID != got.ID {
			t.Errorf("second issue of %s: %+v, want nothing to do", service.id, again)
		}
	}

	o.equipTerminal(o.services...)
	for i, service := range o.services {
		got := as[tap](t, o.terminal.run(service.readArgs(slot.Name)...))
		want := tap{V: 1, Type: "tap", Service: service.id, Profile: service.profile, Instance: service.instance.String(),
			ID: done[i].ID, IssueNumber: 1, Expiry: done[i].Expiry}
		switch service.profile {
		case "common-ap":
			want.Authentication, want.Signature, want.Commands = "none", "verified", 1
		case "type-a":
			want.Authentication, want.Signature, want.Commands = "mutual", "verified", 3
			want.KeyVersion, want.PIN = 1, true
		case "type-d":
			want.Authentication, want.Signature, want.Commands, want.KeyVersion = "mutual-encrypted", "none", 2, 1
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("read of %s (-want +got):\n%s", service.id, diff)
		}
	}

	for i, service := range o.services {
		checkSelect(t, o, slot.Name, service, done[i])
	}
	wantOnCard(t, o, slot.Name, o.services...)

	withdrawn, left := o.services[1], []service{o.services[0], o.services[2]}
	got := as[issued](t, o.counter.run("withdraw", withdrawn.file, "--card", "pcsc:"+slot.Name, "--json"))
	if got.Type != "withdraw" || got.Service != withdrawn.id || !slices.Equal(got.Steps, []string{"wipe", "delete"}) {
		t.Errorf("withdrawal: %+v", got)
	}
	wantOnCard(t, o, slot.Name, left...)
	if answer := openscTool(t, slot.Name, selectCommand(withdrawn.instance)); !bytes.Equal(answer, []byte{0x6A, 0x82}) {
		t.Errorf("SELECT of the withdrawn service: % X, want 6A 82", answer)
	}
	if failed := o.terminal.try("", withdrawn.readArgs(slot.Name)...); failed.status != 1 || !strings.Contains(failed.stderr, "no service of ours on the card") {
		t.Errorf("read of the withdrawn service: %+v", failed)
	}
	for i, service := range left {
		if got := as[tap](t, o.terminal.run(service.readArgs(slot.Name)...)); got.ID != done[2*i].ID {
			t.Errorf("after the withdrawal %s reads %+v", service.id, got)
		}
	}
	if end := card.interrupt(); end.status != 0 {
		t.Errorf("the card's process ends with %+v", end)
	}
}

func selectCommand(aid iso7816.AID) []byte {
	return slices.Concat([]byte{0x00, 0xA4, 0x04, 0x00, byte(len(aid.Bytes()))}, aid.Bytes(), []byte{0x00})
}

// object encodes a BER-TLV data object with a tag of one byte and a value of
// less than 256 bytes.
func object(tag byte, value ...[]byte) []byte {
	v := bytes.Join(value, nil)
	if len(v) < 0x80 {
		return append([]byte{tag, byte(len(v))}, v...)
	}
	return append([]byte{tag, 0x81, byte(len(v))}, v...)
}

// checkSelect lets opensc-tool select a service, and compares the whole answer
// with what docs/card-protocol.md ("SELECT", "EF.ID") says, written out here
// and not taken from the packages that made it.
func checkSelect(t *testing.T, o *office, slot string, s service, done issued) {
	t.Helper()
	got := openscTool(t, slot, selectCommand(s.instance))
	fci := func(properties ...[]byte) []byte {
		return append(object(0x6F, object(0x84, s.instance.Bytes()), object(0xA5, properties...)), 0x90, 0x00)
	}
	if s.profile == "common-ap" {
		expiry, err := hex.DecodeString(strings.ReplaceAll(done.Expiry, "-", ""))
		if err != nil {
			t.Fatal(err)
		}
		record := slices.Concat(object(0xC1, []byte(s.id)), object(0xC2, []byte(done.ID)),
			object(0xC3, []byte{byte(done.IssueNumber >> 8), byte(done.IssueNumber)}), object(0xC4, expiry))
		signature := got[max(0, len(got)-66):max(0, len(got)-2)]
		want := fci(object(0x80, []byte{0x01, 0x01}), object(0x85, record, object(0xC5, signature)))
		if !bytes.Equal(got, want) {
			t.Fatalf("SELECT of %s:\n% X, want\n% X", s.id, got, want)
		}
		store, err := file.Open(bounded(t), filepath.Join(o.dir, "terminal.keys"), []byte(testPassphrase), file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		public, err := store.PublicKey(bounded(t), keys.Ref{Name: s.manifest.Keys.IssuerSigning})
		if err != nil {
			t.Fatal(err)
		}
		aid := s.instance.Bytes()
		if !ed25519.Verify(public, slices.Concat([]byte("FREEAREA EF.ID 1"), []byte{byte(len(aid))}, aid, record), signature) {
			t.Errorf("SELECT of %s: the signature is not the issuer's", s.id)
		}
		return
	}
	kind := map[string]byte{"type-a": 0x0A, "type-d": 0x0D}[s.profile]
	challenges := make(map[string]bool)
	var diversification []byte
	for range 2 {
		// 6F 2+16 2+… (84) then A5 { 80, 81 CC, 82 diversification data, 83 }
		const challengeAt, dataAt = 2 + 18 + 2 + 4 + 2, 2 + 18 + 2 + 4 + 18 + 2
		if len(got) < dataAt+10 {
			t.Fatalf("SELECT of %s: % X", s.id, got)
		}
		challenge, data := got[challengeAt:challengeAt+16], got[dataAt:dataAt+10]
		want := fci(object(0x80, []byte{kind, 0x01}), object(0x81, challenge), object(0x82, data), object(0x83, []byte{done.KeyVersion}))
		if !bytes.Equal(got, want) {
			t.Fatalf("SELECT of %s:\n% X, want\n% X", s.id, got, want)
		}
		challenges[string(challenge)] = true
		if diversification != nil && !bytes.Equal(diversification, data) {
			t.Errorf("SELECT of %s: diversification data % X and % X", s.id, diversification, data)
		}
		diversification = data
		got = openscTool(t, slot, selectCommand(s.instance))
	}
	if len(challenges) != 2 {
		t.Errorf("SELECT of %s: the same challenge twice", s.id)
	}
}

// wantOnCard compares the services on the card, personalised each, with those
// that should be there.
func wantOnCard(t *testing.T, o *office, slot string, services ...service) {
	t.Helper()
	listing := as[struct {
		V            int    `json:"v"`
		Type         string `json:"type"`
		Registry     bool   `json:"registry"`
		Applications []struct {
			AID      string `json:"aid"`
			State    string `json:"state"`
			LoadFile string `json:"load_file"`
		} `json:"applications"`
	}](t, o.counter.run("card", "show", "--card", "pcsc:"+slot, "--json"))
	want, got := make(map[string]string), make(map[string]string)
	for _, s := range services {
		want[s.instance.String()] = "personalized"
	}
	for _, a := range listing.Applications {
		if a.LoadFile == "F0465245454152454100" {
			got[a.AID] = a.State
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || !listing.Registry {
		t.Errorf("services on the card (-want +got), registry read: %v\n%s", listing.Registry, diff)
	}
}

// A card that is torn out of the reader while it is written: the program says
// so, and running it again with the card back in finishes.
func testTornIssue(t *testing.T, program string) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	o := newOffice(t, program)
	pass := o.services[2]
	o.makeKeys(pass)
	o.equipTerminal(pass)

	// One issue without a cut tells the commands' numbers: of LOAD (last
	// block), INSTALL [for install and make selectable], and the last STORE
	// DATA, which puts the new content into service.
	o.counter.run("emulate", "new", "model.img")
	model := o.emulate(t, "model.img", "--trace", "model.trace")
	remove := model.insert(t, s, slot)
	o.counter.run(pass.issueArgs(slot.Name, o.consent(pass, "model"))...)
	model.takeOut(s, slot, remove)
	trace, err := os.ReadFile(filepath.Join(o.dir, "model.trace"))
	if err != nil {
		t.Fatal(err)
	}
	commands := instructions(string(trace))
	load, install, write := slices.Index(commands, "E880"), slices.Index(commands, "E60C"), slices.Index(commands, "E2A8")
	if load < 0 || install < 0 || write < 0 {
		t.Fatalf("an issue without LOAD, INSTALL or STORE DATA: %v", commands)
	}

	for _, c := range []struct {
		cut string
		run bool // a run had begun
	}{
		{"before:1", false},
		{fmt.Sprintf("write:%d:1", load+1), true},
		{fmt.Sprintf("write:%d:2", install+1), true},
		{fmt.Sprintf("write:%d:2", write+1), true},
		{fmt.Sprintf("after:%d", write+1), true},
	} {
		t.Run(c.cut, func(t *testing.T) {
			image := "card-" + strings.ReplaceAll(c.cut, ":", "-") + ".img"
			o.counter.run("emulate", "new", image)
			consent := o.consent(pass, image)
			torn := o.emulate(t, image, "--cut", c.cut)
			remove := torn.insert(t, s, slot)
			failed := o.counter.try("", pass.issueArgs(slot.Name, consent)...)
			if failed.status != 1 || !isRemoved(failed) {
				t.Errorf("issue to a torn card: %+v", failed)
			}
			torn.pulled(s, slot, remove)
			if c.run {
				unfinished := o.unfinished(t)
				if len(unfinished) != 1 || unfinished[0].Outcome == ledger.Done || unfinished[0].Last == nil {
					t.Errorf("the ledger says of the torn card: %+v", unfinished)
				}
			}

			back := o.emulate(t, image)
			remove = back.insert(t, s, slot)
			got := as[issued](t, o.counter.run(pass.issueArgs(slot.Name, consent)...))
			if got.ID == "" || got.IssueNumber != 1 {
				t.Errorf("the second run: %+v", got)
			}
			if again := as[issued](t, o.counter.run(pass.issueArgs(slot.Name, consent)...)); !again.NothingToDo || again.ID != got.ID {
				t.Errorf("the third run: %+v, want nothing to do", again)
			}
			if unfinished := o.unfinished(t); len(unfinished) != 0 {
				t.Errorf("the ledger says afterwards: %+v", unfinished)
			}
			if read := as[tap](t, o.terminal.run(pass.readArgs(slot.Name)...)); read.ID != got.ID {
				t.Errorf("read %q, issued %q", read.ID, got.ID)
			}
			back.takeOut(s, slot, remove)
		})
	}
}

// isRemoved tells whether the program said that the card was removed, and what
// to do.
func isRemoved(o outcome) bool {
	return strings.Contains(o.stderr, "card removed") && strings.Contains(o.stderr, "put the card back")
}

// instructions returns the instruction byte and P1 of each command of a trace.
func instructions(trace string) (list []string) {
	for line := range strings.Lines(trace) {
		if rest, ok := strings.CutPrefix(line, "> "); ok && len(rest) > 6 {
			list = append(list, rest[2:6])
		}
	}
	return list
}

// unfinished returns what the ledger says was begun and not done on the card of
// the run that began last.
func (o *office) unfinished(t testing.TB) []ledger.Run {
	t.Helper()
	ctx := bounded(t)
	book, err := ledger.Open(ctx, filepath.Join(o.dir, "ledger.db"), ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	var last *ledger.RunStarted
	for e, err := range book.Events(ctx, ledger.Filter{Kinds: []ledger.Kind{ledger.KindRunStarted}}) {
		if err != nil {
			t.Fatal(err)
		}
		started := e.Data.(ledger.RunStarted)
		last = &started
	}
	if last == nil {
		t.Fatal("no run in the ledger")
	}
	runs, err := book.UnfinishedRuns(ctx, last.Card)
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// A card that leaves too early is a line, and does not end the watch.
func testTornRead(t *testing.T, program string) {
	d, s := start(t, 1)
	slot := d.Readers[0]
	o := newOffice(t, program)
	pass := o.services[2]
	o.makeKeys(pass)
	o.equipTerminal(pass)
	o.counter.run("emulate", "new", "card.img")
	card := o.emulate(t, "card.img")
	remove := card.insert(t, s, slot)
	done := as[issued](t, o.counter.run(pass.issueArgs(slot.Name, o.consent(pass, "one"))...))
	card.takeOut(s, slot, remove)

	watch := o.terminal.background(t, false, append(pass.readArgs(slot.Name), "--watch")...)
	for range 2 {
		// SELECT is the first command of a tap; the second is never answered.
		torn := o.emulate(t, "card.img", "--cut", "after:2")
		remove = torn.insert(t, s, slot)
		if got := as[tap](t, watch.line()); got.Type != "error" || got.Code != "card-removed" || got.Slot != slot.Name {
			t.Errorf("a torn card is the line %+v", got)
		}
		torn.pulled(s, slot, remove)
		whole := o.emulate(t, "card.img")
		remove = whole.insert(t, s, slot)
		if got := as[tap](t, watch.line()); got.Type != "tap" || got.ID != done.ID || got.Slot != slot.Name {
			t.Errorf("the next tap is the line %+v", got)
		}
		whole.takeOut(s, slot, remove)
	}
	if end := watch.interrupt(); end.status != 0 {
		t.Errorf("the watch ends with %+v", end)
	}
}
