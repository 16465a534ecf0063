package osdp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Errors of a device.
var (
	ErrNoPanel = errors.New("no control panel polls the reader") // Present: the card's data goes nowhere
	ErrFull    = errors.New("control panel takes no card data")  // Present: too many cards wait
)

// maxWaiting is how many cards can wait for the panel's polls.
const maxWaiting = 16

// channelTimeout is after how long without a packet a device counts as off
// line and closes its secure channel (SIA OSDP 2.2, 5.7).
const channelTimeout = 8 * time.Second

// Config of a device.
type Config struct {
	Address byte // 0 to 126
	// What the device says of itself (osdp_PDID).
	Vendor   [3]byte // IEEE OUI
	Model    byte
	Version  byte
	Serial   uint32
	Firmware [3]byte // major, minor, build

	// Key is the secure channel base key that device and panel share; nil
	// while the device has none.
	Key *[KeySize]byte
	// Install opens the door for the first key: the panel may open a secure
	// channel with the key that everybody knows, and set the device's own. No
	// card data is given in it.
	Install bool
	// Clear gives card data without a secure channel, for panels that have
	// none: without a key only. Who can touch the line then reads and replays IDs.
	Clear bool
	// SaveKey keeps the key that the panel sets (osdp_KEYSET), before it is
	// used; nil refuses new keys.
	SaveKey func(key [KeySize]byte) error
	// SaveLine keeps the address and the speed that the panel sets
	// (osdp_COMSET); nil keeps those that are.
	SaveLine func(address byte, baud uint32) error
	// Baud is the line's speed as it is told to the panel, in bit/s.
	Baud uint32

	// What the panel tells people; nil ignores it. They are called one at a
	// time, and must not wait.
	LED    func(LED)
	Buzzer func(Buzzer)
	Text   func(Text)

	// MaxAge is how long a card's data waits for the panel; 0 is 5 s.
	MaxAge time.Duration
	// Clock is the time; nil is time.Now.
	Clock func() time.Time
	// Rand is the source of challenges; nil is crypto/rand.
	Rand io.Reader
}

// Device is a reader on a control panel's line. Its methods can be called from
// several goroutines.
type Device struct {
	c Config

	mu       sync.Mutex
	key      *[KeySize]byte
	install  bool
	address  byte
	baud     uint32
	channel  *channel // nil, half open, or open
	sequence int      // of the last command taken, -1 before the first
	command  []byte   // that command
	answer   []byte   // and what was sent for it
	heard    time.Time
	waiting  []waitingCard
	given    bool // the first of waiting is in answer, and not yet confirmed
}

type waitingCard struct {
	CardData
	since time.Time
}

// NewDevice returns a device that no panel has spoken to yet. It refuses an
// address above 126, and a configuration in which no card data could ever
// be given: without a key, without install mode, and not in clear.
func NewDevice(c Config) (*Device, error) {
	switch {
	case c.Address >= broadcast:
		return nil, fmt.Errorf("OSDP address %d: 0 to 126 expected", c.Address)
	case c.Key != nil && *c.Key == defaultKey:
		return nil, errors.New("OSDP key is the default key (SCBK-D), which everybody knows: choose another, or use the install mode")
	case c.Clear && (c.Key != nil || c.Install):
		return nil, errors.New("OSDP device with a key, or in install mode, gives no card data in clear: choose one of them")
	case c.Key == nil && !c.Install && !c.Clear:
		return nil, errors.New("OSDP device without a key: give it one, or the install mode in which the panel sets one, or allow card data in clear")
	case c.Install && c.SaveKey == nil:
		return nil, errors.New("OSDP install mode needs a place for the key that the panel sets")
	}
	if c.MaxAge == 0 {
		c.MaxAge = 5 * time.Second
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return &Device{c: c, key: c.Key, install: c.Install, address: c.Address, baud: c.Baud, sequence: -1}, nil
}

// Present gives the panel a card's data with one of its next polls. It fails
// with [ErrNoPanel] or [ErrFull].
func (d *Device) Present(card CardData) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire()
	switch {
	case !d.online():
		return ErrNoPanel
	case len(d.waiting) >= maxWaiting:
		return ErrFull
	}
	d.waiting = append(d.waiting, waitingCard{card, d.c.Clock()})
	return nil
}

// Online tells whether a panel has spoken to the device within the last 8 seconds.
func (d *Device) Online() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.online()
}

// Secure tells whether a secure channel with the device's own key is open.
func (d *Device) Secure() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.online() && d.secure()
}

func (d *Device) online() bool {
	return !d.heard.IsZero() && d.c.Clock().Sub(d.heard) < channelTimeout
}

func (d *Device) secure() bool {
	return d.channel != nil && d.channel.open && !d.channel.defaultKey
}

// expire forgets cards that waited too long.
func (d *Device) expire() {
	first := d.given // its fate is the answer's
	d.waiting = slices.DeleteFunc(d.waiting, func(w waitingCard) bool {
		if first {
			first = false
			return false
		}
		return d.c.Clock().Sub(w.since) > d.c.MaxAge
	})
}

// Serve answers the panel on a line until the context ends, which closes the
// line, or the line fails.
func (d *Device) Serve(ctx context.Context, line io.ReadWriteCloser) error {
	defer line.Close()
	stop := context.AfterFunc(ctx, func() { line.Close() })
	defer stop()
	var in splitter
	buf := make([]byte, 512)
	for {
		n, err := line.Read(buf)
		for _, p := range in.next(buf[:n]) {
			reply := d.handle(p)
			if reply == nil {
				continue
			}
			if _, err := line.Write(append([]byte{mark}, reply...)); err != nil {
				return lineError(ctx, err)
			}
		}
		if err != nil {
			return lineError(ctx, err)
		}
	}
}

func lineError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("line to the control panel: %w", err)
}

// reply is what a command is answered with.
type reply struct {
	code     byte
	data     []byte
	security []byte // block of the two replies that open a channel
	after    func() // done once the reply stands
}

func nak(reason byte) reply { return reply{code: replyNAK, data: []byte{reason}} }

// handle answers a packet; nil for one that is not for this device.
func (d *Device) handle(p packet) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.reply || p.address != d.address && p.address != broadcast {
		return nil
	}
	if !d.online() {
		d.channel = nil
	}
	d.heard = d.c.Clock()
	switch {
	case p.sequence == 0: // the panel starts over
		d.channel, d.given = nil, false
	case int(p.sequence) == d.sequence && bytes.Equal(p.raw, d.command):
		return d.answer
	case d.sequence >= 0 && int(p.sequence) != d.sequence && int(p.sequence) != d.sequence%3+1:
		return d.send(p, nak(nakSequence), false)
	}
	d.sequence, d.command = int(p.sequence), bytes.Clone(p.raw)

	secured := p.mac != nil
	data, err := d.open(p)
	if err != nil {
		d.channel = nil
		d.answer = d.send(p, nak(nakConditions), false)
		return d.answer
	}
	if d.given { // the next command confirms that the last reply arrived
		d.given = false
		d.waiting = d.waiting[1:]
	}
	r := d.carryOut(p, data, secured)
	d.answer = d.send(p, r, secured)
	if r.after != nil {
		r.after()
	}
	return d.answer
}

// open returns the data of a command in the clear.
func (d *Device) open(p packet) ([]byte, error) {
	if p.mac == nil {
		return p.data, nil
	}
	if d.channel == nil || !d.channel.open || p.security[0] != scsMAC && p.security[0] != scsEncrypted {
		return nil, errChannel
	}
	return d.channel.unwrap(p)
}

// send makes the packet of a reply.
func (d *Device) send(to packet, r reply, secured bool) []byte {
	address := d.address
	if to.address == broadcast {
		address = broadcast
	}
	p := packet{address: address, reply: true, sequence: to.sequence, crc: to.crc, security: r.security, code: r.code, data: r.data}
	if secured && d.channel != nil {
		return d.channel.wrap(p)
	}
	return p.bytes(nil)
}

// carryOut carries out one command.
func (d *Device) carryOut(p packet, data []byte, secured bool) reply {
	switch p.code {
	case cmdID:
		return sized(data, 1, d.identification)
	case cmdCap:
		return sized(data, 1, d.capabilities)
	case cmdChallenge:
		return sized(data, 8, func() reply { return d.challenge(p, data) })
	case cmdCryptogram:
		return sized(data, 16, func() reply { return d.prove(data) })
	}
	if !secured && !d.c.Clear {
		return nak(nakConditions)
	}
	switch p.code {
	case cmdPoll:
		return sized(data, 0, d.poll)
	case cmdLocalStatus: // no tamper, no power failure
		return sized(data, 0, func() reply { return reply{code: replyLocalStatus, data: []byte{0, 0}} })
	case cmdReader: // one reader, normal
		return sized(data, 0, func() reply { return reply{code: replyReader, data: []byte{0}} })
	case cmdLED:
		return d.leds(data)
	case cmdBuzzer:
		return sized(data, 5, func() reply { return d.buzzer(data) })
	case cmdText:
		return d.text(data)
	case cmdComSet:
		return sized(data, 5, func() reply { return d.setLine(data) })
	case cmdKeySet:
		return sized(data, 2+KeySize, func() reply { return d.setKey(p, data) })
	case cmdReceiveSize:
		return sized(data, 2, acknowledge)
	case cmdKeepActive:
		return sized(data, 2, acknowledge)
	case cmdAbort:
		return sized(data, 0, acknowledge)
	}
	return nak(nakUnknown)
}

// sized refuses data of another size.
func sized(data []byte, size int, do func() reply) reply {
	if len(data) != size {
		return nak(nakLength)
	}
	return do()
}

func acknowledge() reply { return reply{code: replyACK} }

func (d *Device) identification() reply {
	b := append(d.c.Vendor[:], d.c.Model, d.c.Version)
	b = binary.LittleEndian.AppendUint32(b, d.c.Serial)
	return reply{code: replyID, data: append(b, d.c.Firmware[:]...)}
}

// capabilities are functions with their level and number (SIA OSDP 2.2, annex B).
func (d *Device) capabilities() reply {
	secure := byte(0)
	if d.key != nil || d.install {
		secure = 1 // AES-128
	}
	standard := byte(0)
	if d.install {
		standard = 1 // default key
	}
	return reply{code: replyCap, data: []byte{
		3, 3, 0, // card data: bits and characters
		4, 4, 1, // LED: timed, three colours
		5, 2, 1, // buzzer: timed
		6, 1, 1, // text: one row of 16
		8, 1, 0, // CRC
		9, secure, standard,
		10, MaxPacket & 0xFF, MaxPacket >> 8,
		13, 0, 1, // one reader
		16, 2, 0, // OSDP 2.2
	}}
}

func (d *Device) poll() reply {
	d.expire()
	if len(d.waiting) == 0 || d.channel != nil && d.channel.defaultKey {
		return acknowledge()
	}
	d.given = true
	first := d.waiting[0]
	return reply{code: first.code, data: first.after}
}

// challenge begins a secure channel (osdp_CHLNG, osdp_CCRYPT). The block's data
// says which key: 0 is SCBK-D.
func (d *Device) challenge(p packet, host []byte) reply {
	d.channel = nil
	if len(p.security) != 2 || p.security[0] != scsChallenge {
		return nak(nakConditions)
	}
	key := d.key
	if p.security[1] == 0 {
		if !d.install {
			return nak(nakNoChannel)
		}
		key = &defaultKey
	}
	if key == nil {
		return nak(nakNoChannel)
	}
	var own [8]byte
	if _, err := io.ReadFull(d.c.Rand, own[:]); err != nil {
		return nak(nakNoChannel)
	}
	d.channel = newChannel(*key, [8]byte(host), own)
	data := slices.Concat(d.clientID(), own[:])
	proof := d.channel.clientCryptogram()
	return reply{code: replyChallenge, data: append(data, proof[:]...), security: []byte{scsClient, p.security[1]}}
}

// clientID names the device (cUID): vendor, model, version's low part, serial number.
func (d *Device) clientID() []byte {
	return binary.LittleEndian.AppendUint32([]byte{d.c.Vendor[0], d.c.Vendor[1], d.c.Model, d.c.Version}, d.c.Serial)
}

// prove ends the opening of a secure channel (osdp_SCRYPT, osdp_RMAC_I).
func (d *Device) prove(proof []byte) reply {
	if d.channel == nil || d.channel.open {
		return nak(nakConditions)
	}
	mac, err := d.channel.accept(proof)
	if err != nil {
		d.channel = nil
		return nak(nakNoChannel)
	}
	return reply{code: replyInitialRMAC, data: mac[:], security: []byte{scsInitial, 1}}
}

// setKey takes the device's own key. The channel ends with the acknowledgement.
func (d *Device) setKey(p packet, data []byte) reply {
	key := [KeySize]byte(data[2:])
	switch {
	case p.mac == nil || p.security[0] != scsEncrypted:
		return nak(nakConditions)
	case data[0] != 1 || data[1] != KeySize || key == defaultKey || d.c.SaveKey == nil:
		return nak(nakRecord)
	}
	if d.c.SaveKey(key) != nil {
		return nak(nakRecord)
	}
	r := acknowledge()
	r.after = func() { d.key, d.install, d.channel = &key, false, nil }
	return r
}

// setLine answers with the address and the speed that hold from then on.
func (d *Device) setLine(data []byte) reply {
	address, baud := data[0], binary.LittleEndian.Uint32(data[1:])
	if address >= broadcast {
		return nak(nakRecord)
	}
	if d.c.SaveLine == nil || d.c.SaveLine(address, baud) != nil {
		address, baud = d.address, d.baud
	}
	return reply{
		code:  replyCom,
		data:  binary.LittleEndian.AppendUint32([]byte{address}, baud),
		after: func() { d.address, d.baud = address, baud },
	}
}
