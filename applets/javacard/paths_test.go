package javacard_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// traced is a type-d with a PIN, read with the key set, of which each command's
// trace is kept.
type traced struct {
	*card
	t      testing.TB
	set    keys.Set
	trace  bytes.Buffer
	damage func(command []byte) // of the next command
}

// tracedPIN can be wrong in any of eight places.
const tracedPIN = "48151623"

func newTraced(t testing.TB, values bool, set keys.Set, random byte) *traced {
	t.Helper()
	x := &traced{t: t, set: set}
	linker := executed().(jcvm.Linker)
	linker.Trace = &jcvm.Trace{AID: applets.BasePackage, Bytecode: true, Values: values, W: &x.trace}
	x.card = newCard(t, linker, rand.NewChaCha8([32]byte{random}))
	p := applets.Base()[2]
	spec, content := contentOf(t, p)
	content.ReadKeys = []keys.Set{set}
	content.PIN = &applets.PINSetting{Reference: newPIN(tracedPIN)}
	params, err := p.InstallParameters(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Install(context.Background(), p.Name(), instance, params); err != nil {
		t.Fatal(err)
	}
	x.personalize(t, p, content)
	return x
}

func (x *traced) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if x.damage != nil {
		x.damage(command)
		x.damage = nil
	}
	x.trace.Reset()
	return x.card.Transmit(ctx, command)
}

// want sends a command and looks at its status.
func (x *traced) want(to iso7816.Sender, c iso7816.Command, sw iso7816.SW) {
	x.t.Helper()
	r, err := to.Send(context.Background(), c)
	if err != nil || r.SW != sw {
		x.t.Fatalf("%02X answers %v (%v), want %v", c.INS, r.SW, err, sw)
	}
}

// open selects the instance and sends EXPRESS. With damage it is refused.
func (x *traced) open(damage func([]byte)) iso7816.Sender {
	x.t.Helper()
	info, err := applets.SelectInfo(context.Background(), x, instance)
	if err != nil {
		x.t.Fatal(err)
	}
	k, err := applets.ExpressKeys(x.set, [16]byte{1}, info.Challenge)
	if err != nil {
		x.t.Fatal(err)
	}
	mac, err := applets.ExpressMAC(k.MAC, instance, x.set.Version, scp.Full, [16]byte{1})
	if err != nil {
		x.t.Fatal(err)
	}
	sw := iso7816.OK
	if x.damage = damage; damage != nil {
		sw = iso7816.ErrSecurityStatus
	}
	x.want(iso7816.Plain(x), iso7816.Command{CLA: 0x84, INS: applets.InsExpress, P1: x.set.Version, P2: byte(scp.Full), Data: append([]byte{15: 0, 0: 1}, mac[:8]...), Ne: 256}, sw)
	return scp.ResumeHost(iso7816.Plain(x), k, scp.Full, mac, 1)
}

// authenticate opens a session as SCP03 does, up to EXTERNAL AUTHENTICATE.
func (x *traced) authenticate(damage func([]byte)) error {
	x.t.Helper()
	if _, err := applets.SelectInfo(context.Background(), x, instance); err != nil {
		x.t.Fatal(err)
	}
	_, err := scp.Open(context.Background(), iso7816.Plain(external{x, damage}), x.set, scp.HostOptions{Level: scp.Full})
	return err
}

// external damages EXTERNAL AUTHENTICATE.
type external struct {
	*traced
	external func([]byte)
}

func (x external) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if command[1] == 0x82 {
		x.damage = x.external
	}
	return x.traced.Transmit(ctx, command)
}

func flip(i int) func([]byte) { return func(command []byte) { command[i] ^= 1 } }

var (
	readRecord = iso7816.Command{CLA: 0x80, INS: applets.InsReadBinary, P1: 0x81, Ne: 256}
	verifyPIN  = iso7816.Command{CLA: 0x80, INS: applets.InsVerify, P2: 1, Ne: 256, Data: append([]byte(tracedPIN), 0xFF, 0xFF, 0xFF, 0xFF)}
)

// someKeys are key sets of a length.
func someKeys(t testing.TB, size int) []keys.Set {
	t.Helper()
	var sets []keys.Set
	for n := range byte(6) {
		enc, mac := sha256.Sum256([]byte{n, 1}), sha256.Sum256([]byte{n, 2})
		e, err1 := keys.NewKey(enc[:size])
		m, err2 := keys.NewKey(mac[:size])
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		sets = append(sets, keys.Set{Version: 1, ENC: e, MAC: m})
	}
	return sets
}

// TestSamePath: what the card executes, to the bytecode, tells neither where a
// MAC, a cryptogram or a PIN differs from the right one nor anything of the keys.
func TestSamePath(t *testing.T) {
	for _, size := range []int{16, 32} {
		paths := map[string]map[string]string{} // of a case, by what differs
		note := func(x *traced, name, what string) {
			if x.trace.Len() == 0 {
				t.Fatalf("%s: no trace", name)
			}
			if paths[name] == nil {
				paths[name] = map[string]string{}
			}
			paths[name][x.trace.String()] += " " + what
		}
		for n, set := range someKeys(t, size) {
			x := newTraced(t, false, set, byte(n))
			session := x.open(nil)
			note(x, "EXPRESS", fmt.Sprint("key set ", n))
			x.want(session, verifyPIN, iso7816.OK)
			x.want(session, readRecord, iso7816.OK)
			note(x, "READ BINARY", fmt.Sprint("key set ", n))
			if err := x.authenticate(nil); err != nil {
				t.Fatal(err)
			}
			note(x, "EXTERNAL AUTHENTICATE", fmt.Sprint("key set ", n))
		}
		x := newTraced(t, false, someKeys(t, size)[0], 0)
		for i := range 8 {
			what := fmt.Sprint("byte ", i)
			x.open(flip(5 + 16 + i))
			note(x, "EXPRESS, wrong C-MAC", what)
			session := x.open(nil)
			x.damage = flip(5 + i)
			x.want(session, readRecord, iso7816.ErrSecurityStatus)
			note(x, "READ BINARY, wrong C-MAC", what)
			if x.authenticate(flip(5+i)) == nil {
				t.Fatal("a wrong cryptogram is accepted")
			}
			note(x, "EXTERNAL AUTHENTICATE, wrong cryptogram", what)
			if x.authenticate(flip(5+8+i)) == nil {
				t.Fatal("a wrong C-MAC is accepted")
			}
			note(x, "EXTERNAL AUTHENTICATE, wrong C-MAC", what)

			session = x.open(nil)
			wrong := verifyPIN
			wrong.Data = slices.Clone(wrong.Data)
			wrong.Data[i] ^= 1
			x.want(session, wrong, 0x63C2)
			note(x, "VERIFY, wrong PIN", what)
			x.want(session, verifyPIN, iso7816.OK)
		}
		for name, by := range paths {
			if len(by) != 1 {
				t.Errorf("%s, keys of %d bytes: %d paths: %q", name, size, len(by), slices.Sorted(maps.Values(by)))
			}
		}
	}
}

// TestNothingStays: when a command ends, no key object has a key, and zeros
// stand where a Cipher had written, the answer aside.
func TestNothingStays(t *testing.T) {
	for _, size := range []int{16, 32} {
		x := newTraced(t, true, someKeys(t, size)[0], 0)
		check := func(what string) {
			t.Helper()
			if used, left := leftBehind(x.trace.String()); !used {
				t.Errorf("%s sets no key", what)
			} else if len(left) != 0 {
				t.Errorf("%s, keys of %d bytes: %q are left", what, size, left)
			}
		}
		session := x.open(nil)
		check("EXPRESS")
		x.want(session, verifyPIN, iso7816.OK)
		check("VERIFY")
		x.want(session, readRecord, iso7816.OK)
		check("READ BINARY")
		x.damage = flip(5)
		x.want(session, readRecord, iso7816.ErrSecurityStatus)
		check("READ BINARY with a wrong C-MAC")
		x.open(flip(5 + 16))
		check("EXPRESS with a wrong C-MAC")
		x.want(iso7816.Plain(x), iso7816.Command{CLA: 0x80, INS: 0x50, Data: make([]byte, 8), Ne: 256}, iso7816.OK)
		check("INITIALIZE UPDATE")
		if err := x.authenticate(nil); err != nil {
			t.Fatal(err)
		}
		check("EXTERNAL AUTHENTICATE")
	}
}

// leftBehind reads in a trace with values which key objects are set and not
// cleared, and which arrays a Cipher wrote to and nobody filled with zeros from
// their beginning on, the buffer of the APDU aside; and whether a key was set.
func leftBehind(trace string) (used bool, left []string) {
	dirty := map[string]int{} // what is to be zero, up to where
	buffer, next := "", false
	for line := range strings.Lines(trace) {
		words := strings.Fields(strings.NewReplacer("(", " ", ")", " ", "[", " ", "]", " ").Replace(line))
		if len(words) < 3 {
			continue
		}
		if next { // the bytecode that takes what getBuffer returned
			buffer, next = words[len(words)-1], false
		}
		if words[1] != "api" {
			continue
		}
		name, _, _ := strings.Cut(line, "(")
		name = name[strings.LastIndex(name, "/")+1:]
		_, values, _ := strings.Cut(line, " (")
		a := strings.Fields(strings.TrimRight(values, ")\n"))
		switch name {
		case "APDU.getBuffer":
			next = true
		case "AESKey.setKey":
			dirty[a[0]], used = 1, true
		case "Key.clearKey":
			delete(dirty, a[0])
		case "Cipher.update", "Cipher.doFinal":
			if a[4] != buffer {
				dirty[a[4]] = max(dirty[a[4]], number(a[5])+number(a[3]))
			}
		case "Util.arrayFillNonAtomic":
			if number(a[1]) == 0 && number(a[3]) == 0 && number(a[2]) >= dirty[a[0]] {
				delete(dirty, a[0])
			}
		}
	}
	return used, slices.Sorted(maps.Keys(dirty))
}

func number(s string) int {
	n := 0
	if _, err := fmt.Sscanf(s, "%x", &n); err != nil {
		panic(err)
	}
	return n
}
