package scp

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// CardOptions say how a card speaks SCP03.
type CardOptions struct {
	// DiversificationData is what INITIALIZE UPDATE answers first.
	DiversificationData [10]byte
	// I is the "i" parameter; 0 stands for 60: random challenge, R-MAC and
	// R-ENCRYPTION. Pseudo-random challenges and S16 are not offered.
	I byte
	// Rand draws the card's challenge; nil is crypto/rand.
	Rand io.Reader
	// Accept says which security levels the card takes; nil takes all that I
	// allows.
	Accept func(Level) bool
	// Keys returns the key set of a version, version 0 being the newest (or
	// first available); false where there is none. The version in the set is
	// what the card answers. What is returned is not erased.
	Keys func(version byte) (keys.Set, bool)
}

// CardSession is the card's side: one per application that speaks SCP03. It
// begins without a session; INITIALIZE UPDATE and EXTERNAL AUTHENTICATE open
// one. It is not safe for concurrent use.
type CardSession struct {
	o       CardOptions
	pending *pendingCard
	ch      *channel
	dek     keys.Key
	level   Level
	aborted bool
}

type pendingCard struct {
	ch         *channel // keys of the session to be, no level yet
	keys       SessionKeys
	dek        keys.Key
	host, card [ChallengeSize]byte
}

// NewCardSession returns the card's side without a session. It panics on an
// "i" parameter that it can't honour.
func NewCardSession(o CardOptions) *CardSession {
	if o.I == 0 {
		o.I = iRMAC | iREncryption
	}
	if o.I&(iPseudoRandom|iS16) != 0 {
		panic(fmt.Sprintf("scp: i parameter %02X not offered by the card's side", o.I))
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

// Resume replaces whatever session there is by one of a given state. The keys
// are copied as far as needed; it panics when one is missing or the level is
// invalid.
func (c *CardSession) Resume(k SessionKeys, level Level, chaining [16]byte, counter uint32) {
	if !level.Valid() {
		panic(fmt.Sprintf("scp: level %v", level))
	}
	ch, err := newChannel(k, level, chaining, counter)
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
	c.ch, c.level, c.aborted = nil, None, false
	c.dek.Erase()
	c.dek = keys.Key{}
}

func (c *CardSession) dropPending() {
	if c.pending != nil {
		c.pending.keys.Erase()
		c.pending.dek.Erase()
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
		return "aborted SCP03 session"
	case c.ch == nil:
		return "no SCP03 session"
	}
	return "SCP03 session at level " + c.level.String()
}

// GoString is String.
func (c *CardSession) GoString() string { return c.String() }

// Level is the open session's security level, None without one; see
// Authenticated.
func (c *CardSession) Level() Level { return c.level }

// InitializeUpdate answers INITIALIZE UPDATE (AmdD 7.1.1). Whatever session
// there was ends, whether the command succeeds or not.
func (c *CardSession) InitializeUpdate(cmd iso7816.Command) iso7816.Response {
	c.Reset()
	switch {
	case !isPlainClass(cmd.CLA) || cmd.CLA&0x80 == 0:
		return iso7816.Response{SW: iso7816.ErrUnknownCLA}
	case cmd.P2 != 0:
		return iso7816.Response{SW: iso7816.ErrIncorrectP1P2}
	case len(cmd.Data) != ChallengeSize:
		return iso7816.Response{SW: iso7816.ErrWrongLength}
	}
	var set keys.Set
	found := false
	if c.o.Keys != nil {
		set, found = c.o.Keys(cmd.P1)
	}
	if !found || checkSet(set) != nil { // AmdD 7.1.1: no such set, or a mandatory key is missing
		return iso7816.Response{SW: iso7816.ErrDataNotFound}
	}
	p := &pendingCard{host: [ChallengeSize]byte(cmd.Data)}
	if _, err := io.ReadFull(c.o.Rand, p.card[:]); err != nil {
		return iso7816.Response{SW: iso7816.ErrUnknown}
	}
	var err error
	if p.keys, err = DeriveSessionKeys(set, p.host[:], p.card[:]); err != nil {
		return iso7816.Response{SW: iso7816.ErrUnknown}
	}
	if p.ch, err = newChannel(p.keys, None, [sp800.Size]byte{}, 1); err != nil {
		return iso7816.Response{SW: iso7816.ErrUnknown}
	}
	if !set.DEK.IsZero() {
		if p.dek, err = keys.NewKey(set.DEK.Bytes()); err != nil {
			return iso7816.Response{SW: iso7816.ErrUnknown}
		}
	}
	c.pending = p
	info := KeyInformation{
		DiversificationData: c.o.DiversificationData,
		KeyVersion:          set.Version,
		Protocol:            3,
		I:                   c.o.I,
		Challenge:           p.card,
		Cryptogram:          cryptogram(p.ch.mac, constCardCryptogram, p.host[:], p.card[:]),
	}
	return iso7816.Response{Data: info.Encode(), SW: iso7816.OK}
}

// ExternalAuthenticate answers EXTERNAL AUTHENTICATE (AmdD 7.1.2): 9000 opens
// the session. A wrong host cryptogram is 6300, a wrong C-MAC 6982 and aborts;
// a level that the card does not take is 6982 too. After any of them
// INITIALIZE UPDATE must come again. The answer goes out as it is, not through
// Wrap (AmdD 6.2.5).
func (c *CardSession) ExternalAuthenticate(cmd iso7816.Command) iso7816.Response {
	p := c.pending
	if p == nil {
		if c.ch != nil { // inside a session, not a command of that session
			c.abort()
		}
		return iso7816.Response{SW: iso7816.ErrConditions}
	}
	defer c.dropPending()
	level := Level(cmd.P1)
	switch {
	case !hasSecureClass(cmd.CLA):
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	case cmd.P2 != 0 || !level.Valid():
		return iso7816.Response{SW: iso7816.ErrIncorrectP1P2}
	case len(cmd.Data) != 8+macSize:
		return iso7816.Response{SW: iso7816.ErrWrongLength}
	}
	// The cryptogram comes first: a host with the wrong keys gets both wrong,
	// and 6300 is what tells it so.
	host := cryptogram(p.ch.mac, constHostCryptogram, p.host[:], p.card[:])
	if subtle.ConstantTimeCompare(host[:], cmd.Data[:8]) != 1 {
		return iso7816.Response{SW: iso7816.ErrAuthentication}
	}
	mac := p.ch.commandMAC(cmd.CLA, cmd.INS, cmd.P1, cmd.P2, cmd.Data[:8], cmd.Extended)
	if subtle.ConstantTimeCompare(mac[:macSize], cmd.Data[8:]) != 1 {
		c.abort()
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	}
	if !(KeyInformation{I: c.o.I}).Supports(level) || c.o.Accept != nil && !c.o.Accept(level) {
		return iso7816.Response{SW: iso7816.ErrSecurityStatus}
	}
	ch, err := newChannel(p.keys, level, mac, 1)
	if err != nil {
		return iso7816.Response{SW: iso7816.ErrUnknown}
	}
	c.ch, c.level, c.dek = ch, level, p.dek
	p.dek = keys.Key{} // the session's now
	return iso7816.Response{SW: iso7816.OK}
}

// Unwrap verifies a command and returns it without secure messaging. The
// error is an [iso7816.SW]; after a wrong or missing MAC it is 6982 and the
// channel is aborted (AmdD 5.6).
//
// Ne of the result is how many bytes of response data fit once protected:
// with Le 00 that is 248 under R-MAC and 239 under R-ENCRYPTION. Under R-MAC it
// does not tell case 3 from case 4, since a host sends Le for the R-MAC alone.
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
	if !c.level.HasCMAC() {
		if !isPlainClass(cmd.CLA) {
			return iso7816.Command{}, iso7816.ErrSecureMessaging
		}
		return cmd, nil
	}
	plain, ok := c.unwrap(cmd)
	if !ok {
		c.abort()
		return iso7816.Command{}, iso7816.ErrSecurityStatus
	}
	return plain, nil
}

func (c *CardSession) unwrap(cmd iso7816.Command) (iso7816.Command, bool) {
	n := len(cmd.Data) - macSize
	if !hasSecureClass(cmd.CLA) || n < 0 {
		return iso7816.Command{}, false
	}
	data := cmd.Data[:n:n]
	mac := c.ch.commandMAC(cmd.CLA, cmd.INS, cmd.P1, cmd.P2, data, cmd.Extended)
	if subtle.ConstantTimeCompare(mac[:macSize], cmd.Data[n:]) != 1 {
		return iso7816.Command{}, false
	}
	c.ch.chaining = mac
	c.ch.count()
	if c.level.HasCDecryption() && n > 0 {
		var ok bool
		if data, ok = c.ch.decrypt(data, false); !ok {
			return iso7816.Command{}, false
		}
	}
	return iso7816.Command{
		CLA: plainClass(cmd.CLA), INS: cmd.INS, P1: cmd.P1, P2: cmd.P2,
		Data: data, Ne: c.level.plainNe(cmd.Ne), Extended: cmd.Extended,
	}, true
}

// Wrap protects the response to the command that Unwrap returned last.
// Responses with an error status word lose their data and carry no MAC
// (AmdD 6.2.5); a response without data is not encrypted (AmdD 6.2.7).
func (c *CardSession) Wrap(r iso7816.Response) iso7816.Response {
	if c.ch == nil || !c.level.HasRMAC() {
		return r
	}
	if !protects(r.SW) {
		return iso7816.Response{SW: r.SW}
	}
	out := make([]byte, 0, c.level.protectedNe(len(r.Data)))
	if c.level.HasREncryption() && len(r.Data) > 0 {
		out = appendPadded(out, r.Data)
		c.ch.icv(true)
		encryptCBC(c.ch.enc, &c.ch.iv, out)
	} else {
		out = append(out, r.Data...)
	}
	mac := c.ch.responseMAC(out, r.SW)
	return iso7816.Response{Data: append(out, mac[:macSize]...), SW: r.SW}
}

// DecryptSensitive decrypts under the static DEK of the session's key set
// (AmdD 6.2.8), a multiple of 16 bytes; no padding is taken off.
func (c *CardSession) DecryptSensitive(data []byte) ([]byte, error) {
	if c.ch == nil {
		return nil, ErrSessionOver
	}
	return sensitive(c.dek, data, decryptCBC)
}
