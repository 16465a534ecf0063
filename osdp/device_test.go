package osdp

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// panel is the least of a control panel that the tests below need. It is built
// of the package's own parts: what proves the protocol are the recorded panels
// and the published vectors.
type panel struct {
	*testing.T
	d        *Device
	sequence byte
	channel  *channel
}

func (p *panel) packet(code byte, data []byte) packet {
	return packet{address: p.d.address, sequence: p.sequence, crc: true, code: code, data: data}
}

// next sends a command with the next sequence number.
func (p *panel) next(code byte, data ...byte) packet {
	p.Helper()
	p.sequence = p.sequence%3 + 1
	return p.send(code, data...)
}

func (p *panel) send(code byte, data ...byte) packet {
	p.Helper()
	c := p.packet(code, data)
	if p.channel == nil {
		return p.raw(c.bytes(nil))
	}
	return p.raw(p.wrap(c, data))
}

func (p *panel) wrap(c packet, data []byte) []byte {
	c.security = []byte{scsMAC}
	if len(data) > 0 {
		c.security[0] = scsEncrypted
		iv := inverted(p.channel.replyMAC)
		c.data = pad(slices.Clone(data))
		cipher.NewCBCEncrypter(p.channel.enc, iv[:]).CryptBlocks(c.data, c.data)
	}
	return c.bytes(func(covered []byte) []byte {
		p.channel.commandMAC = p.channel.mac(p.channel.replyMAC, covered)
		return p.channel.commandMAC[:macSize]
	})
}

// raw gives the device bytes and returns its answer in the clear.
func (p *panel) raw(b []byte) packet {
	p.Helper()
	c, err := parsePacket(b)
	if err != nil {
		p.Fatal(err)
	}
	answer := p.d.handle(c)
	if answer == nil {
		return packet{}
	}
	r, err := parsePacket(answer)
	if err != nil || !r.reply {
		p.Fatalf("answer %x: %v", answer, err)
	}
	if r.mac != nil && p.channel != nil {
		iv := inverted(p.channel.commandMAC)
		p.channel.replyMAC = p.channel.mac(p.channel.commandMAC, r.covered)
		if !bytes.Equal(p.channel.replyMAC[:macSize], r.mac) {
			p.Fatalf("answer %x: wrong MAC", answer)
		}
		if r.security[0] == scsEncryptedR {
			clear := make([]byte, len(r.data))
			cipher.NewCBCDecrypter(p.channel.enc, iv[:]).CryptBlocks(clear, r.data)
			if r.data, err = unpad(clear); err != nil {
				p.Fatal(err)
			}
		}
	}
	return r
}

// open opens a secure channel; which is 1 for SCBK and 0 for SCBK-D.
func (p *panel) open(key [KeySize]byte, which byte) (opened bool) {
	p.Helper()
	p.channel = nil
	host := [8]byte{9, 8, 7, 6, 5, 4, 3, 2}
	p.sequence = p.sequence%3 + 1
	c := p.packet(cmdChallenge, host[:])
	c.security = []byte{scsChallenge, which}
	r := p.raw(c.bytes(nil))
	if r.code != replyChallenge {
		return false
	}
	ch := newChannel(key, host, [8]byte(r.data[8:16]))
	proof := ch.cryptogram(ch.ownPart, ch.hostRandom)
	p.sequence = p.sequence%3 + 1
	c = p.packet(cmdCryptogram, proof[:])
	c.security = []byte{scsServer, which}
	if r = p.raw(c.bytes(nil)); r.code != replyInitialRMAC {
		return false
	}
	if _, err := ch.accept(proof[:]); err != nil {
		p.Fatal(err)
	}
	p.channel = ch
	return true
}

func (p *panel) wantNAK(r packet, reason byte) {
	p.Helper()
	if r.code != replyNAK || !bytes.Equal(r.data, []byte{reason}) {
		p.Errorf("answer %02X %x, want NAK %d", r.code, r.data, reason)
	}
}

func (p *panel) want(r packet, code byte) {
	p.Helper()
	if r.code != code {
		p.Errorf("answer %02X %x, want %02X", r.code, r.data, code)
	}
}

// newPanel has made the device hear of it, and opened a channel where the
// device has a key.
func newPanel(t *testing.T, configure func(*Config)) (*panel, *clock) {
	t.Helper()
	time := &clock{time.Date(2026, 4, 1, 9, 0, 0, 0, time.UTC)}
	c := Config{Clock: time.Now, Rand: new(counting)}
	configure(&c)
	d, err := NewDevice(c)
	if err != nil {
		t.Fatal(err)
	}
	p := &panel{T: t, d: d}
	p.want(p.send(cmdID, 0), replyID)
	if c.Key != nil && !p.open(*c.Key, 1) {
		t.Fatal("no secure channel")
	}
	return p, time
}

func keyed(c *Config)   { c.Key = &testKey }
func inClear(c *Config) { c.Clear = true }

func someCard(t *testing.T) CardData {
	t.Helper()
	card, err := number40()
	if err != nil {
		t.Fatal(err)
	}
	return card
}

// TestOnce: a card's data is given once, again only when the panel did not get it.
func TestOnce(t *testing.T) {
	for name, configure := range map[string]func(*Config){"clear": inClear, "secure": keyed} {
		t.Run(name, func(t *testing.T) {
			p, _ := newPanel(t, configure)
			if err := p.d.Present(someCard(t)); err != nil {
				t.Fatal(err)
			}
			p.want(p.next(cmdPoll), replyRaw)
			p.want(p.next(cmdPoll), replyACK)
			p.want(p.next(cmdPoll), replyACK)
		})
	}
}

// TestAnswerLost: the panel repeats its command, and gets the same bytes; or it
// starts over, and gets the card's data again.
func TestAnswerLost(t *testing.T) {
	p, _ := newPanel(t, keyed)
	if err := p.d.Present(someCard(t)); err != nil {
		t.Fatal(err)
	}
	p.sequence = p.sequence%3 + 1
	c, err := parsePacket(p.wrap(p.packet(cmdPoll, nil), nil))
	if err != nil {
		t.Fatal(err)
	}
	first := p.d.handle(c)
	if second := p.d.handle(c); !bytes.Equal(first, second) {
		t.Errorf("repeated command is answered %x, at first %x", second, first)
	}
	p.channel, p.sequence = nil, 0
	p.want(p.send(cmdID, 0), replyID)
	if !p.open(testKey, 1) {
		t.Fatal("no secure channel")
	}
	p.want(p.next(cmdPoll), replyRaw)
	p.want(p.next(cmdPoll), replyACK)
}

// TestTooLate: who stood at the door has gone.
func TestTooLate(t *testing.T) {
	p, time := newPanel(t, inClear)
	if err := p.d.Present(someCard(t)); err != nil {
		t.Fatal(err)
	}
	time.now = time.now.Add(p.d.c.MaxAge + 1)
	p.want(p.next(cmdPoll), replyACK)
}

func TestNoPanel(t *testing.T) {
	p, time := newPanel(t, inClear)
	for range maxWaiting {
		if err := p.d.Present(someCard(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.d.Present(someCard(t)); !errors.Is(err, ErrFull) {
		t.Errorf("one card too many: %v", err)
	}
	time.now = time.now.Add(channelTimeout)
	if err := p.d.Present(someCard(t)); !errors.Is(err, ErrNoPanel) || p.d.Online() {
		t.Errorf("silent panel: %v", err)
	}
}

// TestChannelNeeded: a device with a key says nothing of cards without it, nor
// with the key that everybody knows.
func TestChannelNeeded(t *testing.T) {
	p, time := newPanel(t, keyed)
	if err := p.d.Present(someCard(t)); err != nil {
		t.Fatal(err)
	}
	secured := p.channel
	p.channel = nil
	for _, code := range []byte{cmdPoll, cmdLocalStatus, cmdKeySet, cmdLED, cmdComSet} {
		p.wantNAK(p.next(code), nakConditions)
	}
	if p.open(defaultKey, 0) {
		t.Error("default key opens the channel outside of the install mode")
	}
	if p.open([KeySize]byte{1}, 1) {
		t.Error("a wrong key opens the channel")
	}
	p.channel = secured
	p.wantNAK(p.next(cmdPoll), nakConditions) // the old channel is gone
	if !p.open(testKey, 1) {
		t.Fatal("no secure channel")
	}
	time.now = time.now.Add(channelTimeout)
	p.wantNAK(p.next(cmdPoll), nakConditions) // and so is one that was silent
}

// TestTampered: any changed bit of a secured command is refused, and the
// channel closed.
func TestTampered(t *testing.T) {
	p, _ := newPanel(t, keyed)
	p.sequence = p.sequence%3 + 1
	text := append([]byte{0, 2, 0, 1, 1, 2}, "OK"...)
	good := p.wrap(p.packet(cmdText, text), text)
	body := good[:len(good)-2]
	for i := headerSize + 2; i < len(body); i++ {
		p, _ := newPanel(t, keyed)
		bad := bytes.Clone(body)
		bad[i] ^= 1
		r := p.raw(appendCheck(bad, bad, true))
		p.wantNAK(r, nakConditions)
		if p.d.Secure() {
			t.Errorf("byte %d changed: channel is open still", i)
		}
	}
}

// TestReplayed: a secured command is good once.
func TestReplayed(t *testing.T) {
	p, _ := newPanel(t, keyed)
	p.sequence = p.sequence%3 + 1
	poll := p.wrap(p.packet(cmdPoll, nil), nil)
	p.want(p.raw(poll), replyACK)
	p.want(p.next(cmdPoll), replyACK)
	p.want(p.next(cmdPoll), replyACK)
	c, err := parsePacket(poll) // the sequence number fits again
	if err != nil {
		t.Fatal(err)
	}
	r, err := parsePacket(p.d.handle(c))
	if err != nil {
		t.Fatal(err)
	}
	p.wantNAK(r, nakConditions)
}

// TestInstall: the first key is taken, the default key's time is over with it,
// and no card data goes out before.
func TestInstall(t *testing.T) {
	var saved [][KeySize]byte
	refuse := true
	p, _ := newPanel(t, func(c *Config) {
		c.Install = true
		c.SaveKey = func(k [KeySize]byte) error {
			if refuse {
				return errors.New("disk is full")
			}
			saved = append(saved, k)
			return nil
		}
	})
	if p.open(testKey, 1) {
		t.Fatal("a key that the device does not have opens the channel")
	}
	if !p.open(defaultKey, 0) {
		t.Fatal("no secure channel in the install mode")
	}
	if err := p.d.Present(someCard(t)); err != nil {
		t.Fatal(err)
	}
	p.want(p.next(cmdPoll), replyACK)
	set := append([]byte{1, KeySize}, testKey[:]...)
	p.wantNAK(p.next(cmdKeySet, set...), nakRecord) // can't be kept
	refuse = false
	p.wantNAK(p.next(cmdKeySet, append([]byte{1, KeySize}, defaultKey[:]...)...), nakRecord)
	p.want(p.next(cmdKeySet, set...), replyACK)
	if diff := cmp.Diff([][KeySize]byte{testKey}, saved); diff != "" {
		t.Error(diff)
	}
	if p.open(defaultKey, 0) {
		t.Error("the default key is good still")
	}
	if !p.open(testKey, 1) {
		t.Error("the new key is not good")
	}
	p.want(p.next(cmdPoll), replyRaw)
}

// TestKeyInClear: a key that others on the line can read is not taken.
func TestKeyInClear(t *testing.T) {
	p, _ := newPanel(t, func(c *Config) {
		keyed(c)
		c.SaveKey = func([KeySize]byte) error { t.Error("key is kept"); return nil }
	})
	p.sequence = p.sequence%3 + 1
	c := p.packet(cmdKeySet, append([]byte{1, KeySize}, testKey[:]...))
	c.security = []byte{scsMAC}
	p.wantNAK(p.raw(c.bytes(func(covered []byte) []byte {
		p.channel.commandMAC = p.channel.mac(p.channel.replyMAC, covered)
		return p.channel.commandMAC[:macSize]
	})), nakConditions)
}

func TestComSet(t *testing.T) {
	var address byte
	var baud uint32
	p, _ := newPanel(t, func(c *Config) {
		inClear(c)
		c.Baud = 9600
		c.SaveLine = func(a byte, b uint32) error { address, baud = a, b; return nil }
	})
	r := p.next(cmdComSet, 7, 0x00, 0xC2, 0x01, 0x00)
	if diff := cmp.Diff([]byte{7, 0x00, 0xC2, 0x01, 0x00}, r.data); diff != "" || r.address != 0 {
		t.Error(diff, r.address)
	}
	if address != 7 || baud != 115200 {
		t.Errorf("kept address %d, %d bit/s", address, baud)
	}
	p.want(p.next(cmdPoll), replyACK) // at the new address
	p.wantNAK(p.next(cmdComSet, 0x7F, 0, 0, 0, 0), nakRecord)
	p.d.c.SaveLine = nil
	if r := p.next(cmdComSet, 9, 0, 0, 0, 0); !bytes.Equal(r.data, []byte{7, 0x00, 0xC2, 0x01, 0x00}) {
		t.Errorf("a line that can't be changed: %x", r.data)
	}
}

// TestRefused: every command that is malformed or not there.
func TestRefused(t *testing.T) {
	led := make([]byte, ledSize)
	for _, test := range []struct {
		name   string
		code   byte
		data   []byte
		reason byte
	}{
		{"poll with data", cmdPoll, []byte{0}, nakLength},
		{"identification without type", cmdID, nil, nakLength},
		{"input status", cmdInput, nil, nakUnknown},
		{"output status", cmdOutput, nil, nakUnknown},
		{"file transfer", 0x7C, nil, nakUnknown},
		{"manufacturer", 0x80, []byte{1, 2, 3}, nakUnknown},
		{"LED cut short", cmdLED, led[:13], nakLength},
		{"no LED", cmdLED, nil, nakLength},
		{"second LED", cmdLED, append([]byte{0, 1}, led[2:]...), nakRecord},
		{"LED that neither shines nor rests", cmdLED, append([]byte{0, 0, 2}, led[3:]...), nakRecord},
		{"buzzer of no length", cmdBuzzer, []byte{0, 2, 0, 0, 1}, nakRecord},
		{"buzzer of another reader", cmdBuzzer, []byte{1, 2, 1, 0, 1}, nakRecord},
		{"text longer than its length", cmdText, []byte{0, 1, 0, 1, 1, 1, 'A', 'B'}, nakLength},
		{"text shorter than its length", cmdText, []byte{0, 1, 0, 1, 1, 2, 'A'}, nakLength},
		{"text that is none", cmdText, []byte{0, 1, 0, 1, 1, 1, 7}, nakRecord},
		{"challenge without security block", cmdChallenge, make([]byte, 8), nakConditions},
		{"proof out of turn", cmdCryptogram, make([]byte, 16), nakConditions},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, _ := newPanel(t, inClear)
			p.wantNAK(p.next(test.code, test.data...), test.reason)
			p.want(p.next(cmdPoll), replyACK)
		})
	}
}

func TestSequence(t *testing.T) {
	p, _ := newPanel(t, inClear)
	p.sequence = 2
	p.wantNAK(p.send(cmdPoll), nakSequence)
	p.sequence = 1
	p.want(p.send(cmdPoll), replyACK)
	p.sequence = 2
	p.want(p.send(cmdPoll), replyACK)
	c := p.packet(cmdPoll, nil)
	c.address = 9
	if r := p.raw(c.bytes(nil)); r.code != 0 {
		t.Errorf("a command for another device is answered %02X", r.code)
	}
	c.address, c.sequence = broadcast, 3
	if r := p.raw(c.bytes(nil)); r.code != replyACK || r.address != broadcast {
		t.Errorf("a command for all is answered %02X from %d", r.code, r.address)
	}
}

// TestNoise: what is lost or comes between costs no more than itself.
func TestNoise(t *testing.T) {
	poll := packet{sequence: 1, crc: true, code: cmdPoll}.bytes(nil)
	status := packet{sequence: 2, crc: true, code: cmdLocalStatus}.bytes(nil)
	for name, line := range map[string][]byte{
		"marks":         slices.Concat([]byte{mark, mark}, poll, []byte{mark}, status),
		"cut short":     slices.Concat(poll[:4], poll, status),
		"SOM alone":     slices.Concat([]byte{som}, poll, []byte{som, som}, status),
		"wrong check":   slices.Concat(poll[:7], []byte{0}, poll, status),
		"giant":         slices.Concat([]byte{som, 0, 0xFF, 0xFF, 0}, poll, status),
		"nothing wrong": slices.Concat(poll, status),
	} {
		t.Run(name, func(t *testing.T) {
			for at := range line {
				var in splitter
				var codes []byte
				for _, part := range [][]byte{line[:at], line[at:], bytes.Repeat([]byte{mark}, MaxPacket)} {
					for _, p := range in.next(part) {
						codes = append(codes, p.code)
					}
				}
				if diff := cmp.Diff([]byte{cmdPoll, cmdLocalStatus}, codes); diff != "" {
					t.Fatalf("split at %d: %s", at, diff)
				}
			}
		})
	}
}

func TestConfigRefused(t *testing.T) {
	for want, c := range map[string]Config{
		"address":       {Address: 127, Clear: true},
		"default key":   {Key: &defaultKey},
		"without a key": {},
		"in clear":      {Key: &testKey, Clear: true},
		"a place":       {Install: true},
	} {
		if _, err := NewDevice(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func TestCardData(t *testing.T) {
	for name, err := range map[string]error{
		"letters":        second(Number("12A", 32)),
		"too big":        second(Number("256", 8)),
		"wiegand":        second(Wiegand26(1, "65536")),
		"nothing":        second(Formatted("")),
		"not ASCII":      second(Formatted("カード")),
		"too long":       second(Formatted(strings.Repeat("1", 256))),
		"more than bits": second(Raw([]byte{1}, 9, Unspecified)),
		"no bits":        second(Raw(nil, 0, Unspecified)),
		"no number":      second(Number("1", 65)),
	} {
		if !errors.Is(err, ErrCardData) {
			t.Errorf("%s: %v", name, err)
		}
	}
	spare, err := Raw([]byte{0xFF, 0xFF}, 9, Unspecified)
	if want := []byte{0, 0, 9, 0, 0xFF, 0x80}; err != nil || !bytes.Equal(spare.after, want) {
		t.Errorf("%x, %v, want %x", spare.after, err, want)
	}
}

func second(_ CardData, err error) error { return err }

// FuzzLine: whatever comes over the line, the device neither fails nor keeps
// more of it than a packet, and tells nothing of a card without the channel.
func FuzzLine(f *testing.F) {
	f.Add([]byte{})
	f.Add(packet{sequence: 1, crc: true, code: cmdPoll}.bytes(nil))
	f.Add(packet{sequence: 1, crc: true, code: cmdChallenge, security: []byte{scsChallenge, 1}, data: make([]byte, 8)}.bytes(nil))
	f.Add(packet{sequence: 1, code: cmdPoll, security: []byte{scsMAC}}.bytes(func([]byte) []byte { return make([]byte, 4) }))
	f.Fuzz(func(t *testing.T, line []byte) {
		d, err := NewDevice(Config{Key: &testKey, Rand: new(counting)})
		if err != nil {
			t.Fatal(err)
		}
		d.handle(packet{code: cmdID, data: []byte{0}, raw: []byte{0}})
		if err := d.Present(someCard(t)); err != nil {
			t.Fatal(err)
		}
		var in splitter
		for part := range slices.Chunk(line, 7) {
			for _, p := range in.next(part) {
				if again := p.bytes(nil); p.mac == nil && !p.reply && !bytes.Equal(again, p.raw) {
					t.Errorf("%x is made again as %x", p.raw, again)
				}
				answer := d.handle(p)
				if answer == nil {
					continue
				}
				if r, err := parsePacket(answer); err != nil || r.code == replyRaw {
					t.Fatalf("answer %x: %v", answer, err)
				}
			}
			if len(in.buf) > MaxPacket {
				t.Fatalf("%d bytes are kept", len(in.buf))
			}
		}
	})
}
