package applets

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func testKey(t testing.TB, first byte, size int) keys.Key {
	t.Helper()
	b := make([]byte, size)
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := keys.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func counting(first byte) (out [16]byte) {
	for i := range out {
		out[i] = first + byte(i)
	}
	return out
}

// canned answers one command.
type canned struct {
	sent   []byte
	answer []byte
}

func (c *canned) Transmit(_ context.Context, command []byte) ([]byte, error) {
	c.sent = bytes.Clone(command)
	return bytes.Clone(c.answer), nil
}

// The vector stands in docs/card-protocol.md ("Express reading"); it was
// computed by two implementations before this one was written. Expected: the
// host sends exactly this command and takes exactly this answer.
const (
	vectorCommand = "8454013318A0A1A2A3A4A5A6A7A8A9AAABACADAEAF1FB5FE794B5FB66F00"
	vectorAnswer  = "8641F18F616DC7514AB607CF1DCFEAFDC853C55E0FAA0E399000"
	vectorData    = "0102030405"
)

func vector(t testing.TB) (ApplicationInfo, keys.Set) {
	return ApplicationInfo{
			AID: iso7816.MustAID("F0465245454152454101"), Challenge: counting(0xC0), KeyVersions: []byte{1},
		}, keys.Set{
			Version: 1, ENC: testKey(t, 0x40, 16), MAC: testKey(t, 0x50, 16),
		}
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExpressVector(t *testing.T) {
	info, set := vector(t)
	card := &canned{answer: mustHex(t, vectorAnswer)}
	host := counting(0xA0)
	x, data, err := express(context.Background(), card, &info, set, scp.Full, bytes.NewReader(host[:]))
	if err != nil {
		t.Fatal(err)
	}
	if want := mustHex(t, vectorCommand); !bytes.Equal(card.sent, want) {
		t.Errorf("sent % X, want % X", card.sent, want)
	}
	if want := mustHex(t, vectorData); !bytes.Equal(data, want) {
		t.Errorf("read % X, want % X", data, want)
	}
	if !bytes.Equal(x.chaining[:8], mustHex(t, "1FB5FE794B5FB66F")) {
		t.Errorf("chaining value % X", x.chaining)
	}
}

// Every bit of the answer is covered by the R-MAC: none can be changed
// without the host refusing all of it.
func TestExpressAnswerChanged(t *testing.T) {
	info, set := vector(t)
	host := counting(0xA0)
	good := mustHex(t, vectorAnswer)
	for bit := range 8 * (len(good) - 2) {
		answer := bytes.Clone(good)
		answer[bit/8] ^= 1 << (bit % 8)
		_, data, err := express(context.Background(), &canned{answer: answer}, &info, set, scp.Full, bytes.NewReader(host[:]))
		if !errors.Is(err, ErrCardProof) || data != nil {
			t.Errorf("bit %d changed: % X, %v", bit, data, err)
		}
	}
	for n := range len(good) - 2 {
		answer := append(bytes.Clone(good[:n]), 0x90, 0)
		if _, data, err := express(context.Background(), &canned{answer: answer}, &info, set, scp.Full, bytes.NewReader(host[:])); !errors.Is(err, ErrCardProof) || data != nil {
			t.Errorf("cut to %d bytes: % X, %v", n, data, err)
		}
	}
	// A right answer to another challenge.
	host[0] ^= 1
	if _, _, err := express(context.Background(), &canned{answer: good}, &info, set, scp.Full, bytes.NewReader(host[:])); !errors.Is(err, ErrCardProof) {
		t.Errorf("an answer to another challenge: %v", err)
	}
	for sw, want := range map[string]error{"6982": ErrHostProof, "6A88": iso7816.ErrDataNotFound, "6F00": iso7816.ErrUnknown} {
		if _, _, err := express(context.Background(), &canned{answer: mustHex(t, sw)}, &info, set, scp.Full, bytes.NewReader(host[:])); !errors.Is(err, want) {
			t.Errorf("%s: %v", sw, err)
		}
	}
}

func FuzzParseApplicationInfo(f *testing.F) {
	for _, s := range fcis {
		f.Add(mustHex(f, s.fci))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := ParseApplicationInfo(b)
		switch {
		case err != nil:
			if !errors.Is(err, ErrWrongApplication) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrOtherType) {
				t.Error(err)
			}
		case !bytes.Equal(encodeFCI(info), b):
			t.Errorf("% X came back as % X", b, encodeFCI(info))
		}
	})
}

// encodeFCI writes the FCI that says info.
func encodeFCI(info ApplicationInfo) []byte {
	own := iso7816.AppendTLV(nil, TagType, []byte{info.Type, info.Version})
	if info.KeyVersions != nil {
		own = iso7816.AppendTLV(own, TagChallenge, info.Challenge[:])
	}
	if info.Type != TypeCommonAP {
		own = iso7816.AppendTLV(own, TagDiversification, info.DiversificationData[:])
	}
	if info.KeyVersions != nil {
		own = iso7816.AppendTLV(own, TagKeyVersions, info.KeyVersions)
	}
	if info.Record != nil {
		own = iso7816.AppendTLV(own, TagRecord, info.Record)
	}
	b := iso7816.AppendTLV(iso7816.AppendTLV(nil, TagAID, info.AID.Bytes()), TagProprietary, own)
	return iso7816.AppendTLV(nil, TagFCI, b)
}

var fcis = []struct {
	name, fci string
	err       error
}{
	{"common-ap", "6F1E840AF0465245454152454101A51080020101850AC10161C20131C3020000", nil},
	{"common-ap, empty", "6F12840AF0465245454152454101A50480020101", nil},
	{"type-d", "6F33840AF0465245454152454101A52580020D018110C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF820A0102030405060708090A830101", nil},
	{"type-a, empty", "6F1E840AF0465245454152454101A51080020A01820A0102030405060708090A", nil},
	{"nothing", "", ErrWrongApplication},
	{"a Security Domain", "6F108408A000000151000000A5049F6501FF", ErrWrongApplication},
	{"version 2", "6F12840AF0465245454152454101A50480020102", ErrVersion},
	{"trailing byte", "6F12840AF0465245454152454101A5048002010100", ErrWrongApplication},
	{"challenge without key versions", "6F30840AF0465245454152454101A52280020D018110C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF820A0102030405060708090A", ErrWrongApplication},
	{"type-d with an ID", "6F2A840AF0465245454152454101A51C80020D01820A0102030405060708090A850AC10161C20131C3020000", ErrWrongApplication},
	{"key versions ascend", "6F34840AF0465245454152454101A52680020D018110C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF820A0102030405060708090A83020102", ErrWrongApplication},
	{"order", "6F1E840AF0465245454152454101A510820A0102030405060708090A80020A01", ErrWrongApplication},
}

func TestParseApplicationInfo(t *testing.T) {
	for _, c := range fcis {
		info, err := ParseApplicationInfo(mustHex(t, c.fci))
		if !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: %+v, %v", c.name, info, err)
		}
	}
	card := &canned{answer: mustHex(t, fcis[0].fci+"9000")}
	if _, err := SelectInfo(context.Background(), card, iso7816.MustAID("F046524545415245410102")); !errors.Is(err, ErrWrongApplication) {
		t.Errorf("another application's FCI: %v", err)
	}
	if _, err := SelectInfo(context.Background(), card, iso7816.MustAID("F0465245454152454101")); err != nil {
		t.Error(err)
	}
}

// A card that shows a type byte of its choice gets nothing by it.
func TestTypeNotLowered(t *testing.T) {
	card := &canned{answer: mustHex(t, fcis[0].fci+"9000")}
	req := ReadRequest{AID: iso7816.MustAID("F0465245454152454101")}
	for _, p := range Base()[1:] {
		if _, err := p.Read(context.Background(), card, req); !errors.Is(err, ErrWeakerType) {
			t.Errorf("%s: %v", p.Name(), err)
		}
	}
	for _, level := range []scp.Level{scp.CMAC, scp.CDecRMAC, scp.CMACRMAC} {
		req.Level = level
		if _, err := typeD.Read(context.Background(), card, req); !errors.Is(err, scp.ErrLevel) {
			t.Errorf("type-d at level %v: %v", level, err)
		}
	}
}

var observations = []struct{ profile, bytes string }{
	{"common-ap", "8002010181020700"},
	{"common-ap", "8002010181020F018410000102030405060708090A0B0C0D0E0F85020003"},
	{"type-a", "80020A0181020700820A0102030405060708090A860402040000"},
	{"type-d", "80020D0181020F02820A0102030405060708090A830207028410000102030405060708090A0B0C0D0E0F85020003860402040001" + "8703020301"},
}

func TestParseObservation(t *testing.T) {
	for _, c := range observations {
		good := mustHex(t, c.bytes)
		p, _ := Base().Lookup(c.profile)
		if _, err := p.ParseObservation(good); err != nil {
			t.Errorf("%s: %v", c.bytes, err)
		}
		for n := range good {
			if o, err := p.ParseObservation(good[:n]); err == nil && n != len(good)-5 { // without the PIN it is one, too
				t.Errorf("% X: %+v", good[:n], o)
			}
		}
		for _, other := range Base() {
			if _, err := other.ParseObservation(good); other != p && !errors.Is(err, ErrOtherType) {
				t.Errorf("%s as %s: %v", c.bytes, other.Name(), err)
			}
		}
	}
	p, _ := Base().Lookup("type-d")
	o, err := p.ParseObservation(mustHex(t, observations[3].bytes))
	if err != nil || o.PIN == nil || *o.PIN != (PINState{TriesLeft: 2, Limit: 3, MustChange: true}) || o.Slot != 2 || o.Spec.ItemsCapacity != 1024 {
		t.Errorf("%+v, %v", o, err)
	}
}

func FuzzParseObservation(f *testing.F) {
	for _, c := range observations {
		f.Add(mustHex(f, c.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range Base() {
			o, err := p.ParseObservation(b)
			if err == nil && (o.Version != ProtocolVersion || o.Slot > 2 || o.PIN != nil && o.PIN.TriesLeft > o.PIN.Limit) {
				t.Errorf("accepted %+v", o)
			}
		}
	})
}
