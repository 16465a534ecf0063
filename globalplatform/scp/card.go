package scp

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// CardOptions say how a card speaks its secure channel protocol.
type CardOptions struct {
	// DiversificationData is what INITIALIZE UPDATE answers first.
	DiversificationData [10]byte
	// Protocol is the one that the card speaks; the zero value is [SCP03].
	// Implicit initiation and R-MAC sessions (BEGIN and END R-MAC SESSION) of
	// SCP02 are not offered.
	Protocol Protocol
	// AID is that of the application which opens the channel, for
	// pseudo-random challenges.
	AID iso7816.AID
	// Counter and SetCounter read and keep the sequence counter of a key
	// version: of SCP03 with pseudo-random challenges 24 bits, counted up by
	// INITIALIZE UPDATE; of SCP02 16 bits, counted up with each session that
	// a host opens. It starts at 0 when the key set is put, never turns over,
	// and survives loss of power; an answer that depends on it goes out only
	// after SetCounter has returned. Others need neither function.
	Counter    func(version byte) (uint32, error)
	SetCounter func(version byte, n uint32) error
	// Rand draws the card's challenge; nil is crypto/rand.
	Rand io.Reader
	// Accept says which security levels the card takes; nil takes all that
	// the protocol's "i" allows.
	Accept func(Level) bool
	// Keys returns the key set of a version, version 0 being the newest (or
	// first available); false where there is none. The version in the set is
	// what the card answers. What is returned is not erased.
	Keys func(version byte) (keys.Set, bool)
}

// CardSession is the card's side: one per application that speaks a secure
// channel protocol. It begins without a session; INITIALIZE UPDATE and EXTERNAL
// AUTHENTICATE open one. It is not safe for concurrent use.
type CardSession struct {
	o       CardOptions
	pending *pendingCard
	ch      coding
	level   Level
	aborted bool
}

type pendingCard struct {
	handshake
	version byte
	counter uint32
}

// NewCardSession returns the card's side without a session. It panics on a
// protocol that it can't honour, which is a mistake of the program: one that
// nobody here speaks, or one without the counter or the AID that it needs.
func NewCardSession(o CardOptions) *CardSession {
	if o.Protocol == (Protocol{}) {
		o.Protocol = SCP03
	}
	counts := o.Protocol.PseudoRandom() || o.Protocol.Number == 2
	switch {
	case !o.Protocol.Valid():
		panic(fmt.Sprintf("scp: %v not offered by the card's side", o.Protocol))
	case counts && (o.Counter == nil || o.SetCounter == nil):
		panic(fmt.Sprintf("scp: %v without a sequence counter", o.Protocol))
	case o.Protocol.PseudoRandom() && o.AID.IsZero():
		panic(fmt.Sprintf("scp: %v without an AID", o.Protocol))
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	return &CardSession{o: o}
}

// ResumeCard returns the card's side within a session of a given state; see
// [ResumeHost]. Commands continue as in any SCP03 session, and INITIALIZE
// UPDATE begins a new one with the options.
func ResumeCard(o CardOptions, k SessionKeys, level Level, chaining [16]byte, counter uint32) *CardSession {
	c := NewCardSession(o)
	c.Resume(k, level, chaining, counter)
	return c
}

// Resume replaces whatever session there is by one of SCP03, mode S8, of a
// given state. The keys
// are copied as far as needed; it panics when one is missing or the level is
// invalid.
func (c *CardSession) Resume(k SessionKeys, level Level, chaining [16]byte, counter uint32) {
	if !level.Valid() {
		panic(fmt.Sprintf("scp: level %v", level))
	}
	ch, err := newChannel(SCP03, k, level, chaining, counter)
	if err != nil {
		panic("scp: " + err.Error())
	}
	c.Reset()
	c.ch, c.level = ch, level
}

// Reset ends the session, aborted or not: selection, loss of power, the end of
// the application session (AmdD 5.6).
func (c *CardSession) Reset() {
	c.dropPending()
	if c.ch != nil {
		c.ch.erase()
	}
	c.ch, c.level, c.aborted = nil, None, false
}

func (c *CardSession) dropPending() {
	if c.pending != nil {
		c.pending.erase()
		c.pending = nil
	}
}

// abort ends the session in a way that only INITIALIZE UPDATE or Reset mends.
func (c *CardSession) abort() {
	c.Reset()
	c.aborted = true
}

// Authenticated reports whether a session is open.
func (c *CardSession) Authenticated() bool { return c.ch != nil }

// Aborted reports whether a session was aborted by a security error and
// neither INITIALIZE UPDATE nor Reset has come since.
func (c *CardSession) Aborted() bool { return c.aborted }

// String says which state the card's side is in, and nothing of its keys.
func (c *CardSession) String() string {
	switch {
	case c.aborted:
		return fmt.Sprintf("aborted SCP%02X session", c.o.Protocol.Number)
	case c.ch == nil:
		return fmt.Sprintf("no SCP%02X session", c.o.Protocol.Number)
	}
	return fmt.Sprintf("SCP%02X session at level %v", c.o.Protocol.Number, c.level)
}

// GoString is String.
func (c *CardSession) GoString() string { return c.String() }

// Level is the open session's security level, None without one; see
// Authenticated.
func (c *CardSession) Level() Level { return c.level }

// InitializeUpdate answers INITIALIZE UPDATE (AmdD 7.1.1; GPCS E.5.1).
// Whatever session there was ends, whether the command succeeds or not. A
// sequence counter at its end is 6985, one that can't be kept 6581.
func (c *CardSession) InitializeUpdate(cmd iso7816.Command) iso7816.Response {
	c.Reset()
	spoken := c.o.Protocol
	switch {
	case !isPlainClass(cmd.CLA) || cmd.CLA&0x80 == 0:
		return iso7816.Response{SW: iso7816.ErrUnknownCLA}
	case cmd.P2 != 0:
		return iso7816.Response{SW: iso7816.ErrIncorrectP1P2}
	case len(cmd.Data) != spoken.challengeSize():
		return iso7816.Response{SW: iso7816.ErrWrongLength}
	}
	check := checkSet
	if spoken.Number == 2 {
		check = checkSet02
	}
	var set keys.Set
	found := false
	if c.o.Keys != nil {
		set, found = c.o.Keys(cmd.P1)
	}
	if !found || check(set) != nil { // AmdD 7.1.1: no such set, or a mandatory key is missing
		return iso7816.Response{SW: iso7816.ErrDataNotFound}
	}
	info := KeyInformation{
		DiversificationData: c.o.DiversificationData, KeyVersion: set.Version, Protocol: spoken.Number, I: spoken.I,
	}
	sw := c.count(&info)
	if sw == iso7816.OK {
		sw = c.draw(&info, set)
	}
	if sw != iso7816.OK {
		return iso7816.Response{SW: sw}
	}
	h, err := newHandshake(spoken, set, clone(cmd.Data), info)
	if err != nil {
		return iso7816.Response{SW: iso7816.ErrUnknown}
	}
	if h02, ok := h.(*handshake02); ok && spoken.PseudoRandom() {
		info.Challenge = h02.challenge(c.o.AID)
		h02.card = info.Challenge
	}
	info.Cryptogram = h.cardCryptogram()
	c.pending = &pendingCard{handshake: h, version: set.Version, counter: info.SequenceCounter}
	return iso7816.Response{Data: info.Encode(), SW: iso7816.OK}
}

// count takes the sequence counter of the key set that info names.
func (c *CardSession) count(info *KeyInformation) iso7816.SW {
	spoken := c.o.Protocol
	if !spoken.PseudoRandom() && spoken.Number != 2 {
		return iso7816.OK
	}
	n, err := c.o.Counter(info.KeyVersion)
	if err != nil {
		return iso7816.ErrMemoryFailure
	}
	end := uint32(0xFFFFFF)
	if spoken.Number == 2 {
		end = 0xFFFF
	}
	if n >= end { // AmdD 6.2.2.1; GPCS E.1.2
		return iso7816.ErrConditions
	}
	if spoken.Number == 3 { // a new challenge, a new number
		n++
		if c.o.SetCounter(info.KeyVersion, n) != nil {
			return iso7816.ErrMemoryFailure
		}
	}
	info.SequenceCounter = n
	return iso7816.OK
}

// draw makes the card's challenge, except where the session keys must be there
// first.
func (c *CardSession) draw(info *KeyInformation, set keys.Set) iso7816.SW {
	spoken := c.o.Protocol
	size := spoken.challengeSize()
	switch {
	case spoken.PseudoRandom() && spoken.Number == 2:
		return iso7816.OK
	case spoken.PseudoRandom():
		var err error
		if info.Challenge, err = pseudoRandomChallenge(set, info.SequenceCounter, c.o.AID, size); err != nil {
			return iso7816.ErrUnknown
		}
		return iso7816.OK
	case spoken.Number == 2:
		size = 6
	}
	info.Challenge = make([]byte, size)
	if _, err := io.ReadFull(c.o.Rand, info.Challenge); err != nil {
		return iso7816.ErrUnknown
	}
	return iso7816.OK
}

// ExternalAuthenticate answers EXTERNAL AUTHENTICATE (AmdD 7.1.2; GPCS E.5.2):
// 9000 opens the session. A wrong host cryptogram is 6300, a wrong C-MAC 6982
// and aborts; a level that the card does not take is 6982 too. After any of
// them INITIALIZE UPDATE must come again. The answer goes out as it is, not
// through Wrap (AmdD 6.2.5; GPCS E.4.5).
func (c *CardSession) ExternalAuthenticate(cmd iso7816.Command) iso7816.Response {
	p := c.pending
	if p == nil {
		if c.ch != nil { // inside a session, not a command of that session
			c.abort()
		}
		return iso7816.Response{SW: iso7816.ErrConditions}
	}
	defer c.dropPending()
	spoken := c.o.Protocol
	level := Level(cmd.P1)
	host := p.hostCryptogram()
	switch {
	case !hasSecureClass(cmd.CLA):
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	case cmd.P2 != 0 || !level.Valid() && level != RMAC:
		return iso7816.Response{SW: iso7816.ErrIncorrectP1P2}
	case len(cmd.Data) != len(host)+spoken.macSize():
		return iso7816.Response{SW: iso7816.ErrWrongLength}
	}
	// The cryptogram comes first: a host with the wrong keys gets both wrong,
	// and 6300 is what tells it so.
	if subtle.ConstantTimeCompare(host, cmd.Data[:len(host)]) != 1 {
		return iso7816.Response{SW: iso7816.ErrAuthentication}
	}
	covered := cmd
	covered.Data = host
	mac := p.mac(covered)
	if subtle.ConstantTimeCompare(mac[:spoken.macSize()], cmd.Data[len(host):]) != 1 {
		c.abort()
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	}
	// SCP02 counts sessions whose first C-MAC is right, before anything else
	// is done with the command (GPCS E.1.2).
	if spoken.Number == 2 && c.o.SetCounter(p.version, p.counter+1) != nil {
		return iso7816.Response{SW: iso7816.ErrMemoryFailure}
	}
	if !spoken.Supports(level) || c.o.Accept != nil && !c.o.Accept(level) {
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	}
	ch, err := p.open(level, mac)
	if err != nil {
		return iso7816.Response{SW: iso7816.ErrUnknown}
	}
	c.ch, c.level = ch, level
	return iso7816.Response{SW: iso7816.OK}
}

// Unwrap verifies a command and returns it without secure messaging. The
// error is an [iso7816.SW]; after a wrong or missing MAC it is 6982 and the
// channel is aborted (AmdD 5.6).
//
// Ne of the result is how many bytes of response data fit once protected:
// with Le 00 that is 248 under R-MAC and 239 under R-ENCRYPTION, in mode S16
// 240 and 239. Under R-MAC it does not tell case 3 from case 4, since a host
// sends Le for the R-MAC alone.
//
// Of a chained command (GPCS 11.1.5.1) it takes the whole: the header of the
// last one and the data of all.
//
// Without a session a command passes as it is, if it has no secure messaging
// and no session was aborted before.
func (c *CardSession) Unwrap(cmd iso7816.Command) (iso7816.Command, error) {
	if c.ch == nil {
		if c.aborted || !isPlainClass(cmd.CLA) {
			return iso7816.Command{}, iso7816.ErrSecurityStatus
		}
		return cmd, nil
	}
	if !c.level.HasCMAC() && !isPlainClass(cmd.CLA) {
		return iso7816.Command{}, iso7816.ErrSecureMessaging
	}
	plain, ok := c.ch.unwrap(cmd)
	if !ok {
		c.abort()
		return iso7816.Command{}, iso7816.ErrSecurityStatus
	}
	return plain, nil
}

// Wrap protects the response to the command that Unwrap returned last.
// Responses with an error status word lose their data; in SCP03 they carry no
// MAC (AmdD 6.2.5), in SCP02 they do (GPCS E.4.5). A response without data is
// not encrypted (AmdD 6.2.7).
func (c *CardSession) Wrap(r iso7816.Response) iso7816.Response {
	if c.ch == nil {
		return r
	}
	return c.ch.wrap(r)
}

// EncryptSensitive encrypts under the key that DecryptSensitive uses; the data
// is whole blocks.
func (c *CardSession) EncryptSensitive(data []byte) ([]byte, error) {
	if c.ch == nil {
		return nil, ErrSessionOver
	}
	return c.ch.encryptSensitive(data)
}

// DecryptSensitive decrypts what [Session.EncryptSensitive] encrypted; no
// padding is taken off.
func (c *CardSession) DecryptSensitive(data []byte) ([]byte, error) {
	if c.ch == nil {
		return nil, ErrSessionOver
	}
	return c.ch.decryptSensitive(data)
}
