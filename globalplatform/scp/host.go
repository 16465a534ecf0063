package scp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Errors of the host's side.
var (
	// ErrCardCryptogram reports a card that did not prove that it has the
	// keys: the keys are wrong, or the card is not the one it seems to be.
	// Nothing computed with the keys has been sent.
	ErrCardCryptogram = errors.New("the card did not prove its keys (wrong key set, or another card)")
	// ErrResponseMAC reports a response that was not made by the card's side
	// of the session. The session is over.
	ErrResponseMAC = errors.New("the response's MAC is missing or wrong")
	// ErrSessionOver reports the use of a session that was closed, or that
	// ended with an earlier error.
	ErrSessionOver = errors.New("secure channel session is over")
	// ErrTooLong reports command data that does not fit into a short
	// command at the session's level; nothing has been sent.
	ErrTooLong = errors.New("command data too long for the security level")
	// ErrLevel reports a level that does not exist, or that the card does not
	// support.
	ErrLevel = errors.New("security level not available")
	// ErrKeyVersion reports that the card uses a key set of another version
	// than was asked for or than the keys at hand have.
	ErrKeyVersion = errors.New("card uses another key version")
	// ErrNoDEK reports that the key set has no data encryption key.
	ErrNoDEK = errors.New("key set has no data encryption key")
	// ErrSensitiveLength reports sensitive data that is not a multiple of 16
	// bytes, in SCP02 of 8: how it is padded is for the command to say (AmdD
	// 6.2.8; GPCS E.4.7).
	ErrSensitiveLength = errors.New("sensitive data is not a multiple of the cipher's block")
	// ErrCardChallenge reports a card whose pseudo-random challenge is not the
	// one that follows from its sequence counter. Nothing computed with the
	// keys has been sent.
	ErrCardChallenge = errors.New("the card's challenge does not follow from its sequence counter")
	// ErrDeprecated reports secrets that were to go over a deprecated protocol
	// ([Protocol.Deprecated]) without leave ([HostOptions.AllowDeprecated]).
	ErrDeprecated = errors.New("keys and PINs are not sent over a deprecated secure channel protocol")
)

// HostOptions say what the host asks for.
type HostOptions struct {
	KeyVersion byte      // 0: the first available key set, chosen by the card
	KeyID      byte      // P2 of INITIALIZE UPDATE, 0 for SCP02 and SCP03
	Level      Level     // of the session; None is authentication only
	Rand       io.Reader // for the host's challenge; nil is crypto/rand
	// Protocols are those that the host will speak with this card. The card
	// says in its answer which it is; another one is refused. Nil is SCP03 in
	// mode S8. What must be known beforehand is how long the host's challenge
	// is: it has 16 bytes where the first one is in mode S16, and no other
	// mode of SCP03 is taken then. Of SCP03 only that counts of "i", since
	// the card answers it; of SCP02 it is what the session uses.
	Protocols []Protocol
	// AID of the application or Security Domain that opens the channel, whole.
	// Unless it is zero, a pseudo-random challenge is checked to be the one
	// that follows from the card's sequence counter.
	AID iso7816.AID
	// AllowDeprecated lets EncryptSensitive work in a session of a deprecated
	// protocol.
	AllowDeprecated bool
}

// protocol finds which of the allowed protocols the card answered, with "i".
func (o HostOptions) protocol(answered KeyInformation) (Protocol, bool) {
	if o.Protocols == nil {
		return answered.Channel(), answered.Protocol == 3 && !answered.Channel().S16()
	}
	for _, p := range o.Protocols {
		switch {
		case p.Number != answered.Protocol:
		case p.Number == 2:
			return p, true
		case p.S16() == answered.Channel().S16() && p.S16() == o.Protocols[0].S16():
			return answered.Channel(), true
		}
	}
	return Protocol{}, false
}

// Pending is a channel whose card has answered INITIALIZE UPDATE and which
// waits for the keys.
type Pending struct {
	card      iso7816.Sender
	o         HostOptions
	challenge []byte
	info      KeyInformation
	used      bool
}

// Initialize sends INITIALIZE UPDATE (AmdD 7.1.1; GPCS E.5.1). Nothing secret
// is sent and nothing counts as an attempt yet.
func Initialize(ctx context.Context, card iso7816.Sender, o HostOptions) (*Pending, error) {
	if !o.Level.Valid() && o.Level != RMAC {
		return nil, fmt.Errorf("%w: %v", ErrLevel, o.Level)
	}
	size := SCP03.challengeSize()
	for i, p := range o.Protocols {
		if !p.Valid() {
			return nil, fmt.Errorf("%w: %v", ErrProtocolNotSupported, p)
		}
		if i == 0 {
			size = p.challengeSize()
		}
	}
	p := &Pending{card: card, o: o, challenge: make([]byte, size)}
	source := o.Rand
	if source == nil {
		source = rand.Reader
	}
	if _, err := io.ReadFull(source, p.challenge); err != nil {
		return nil, fmt.Errorf("host challenge: %w", err)
	}
	data, err := iso7816.Do(ctx, card, iso7816.Command{
		CLA: 0x80, INS: 0x50, P1: o.KeyVersion, P2: o.KeyID, Data: p.challenge, Ne: iso7816.MaxShortNe,
	})
	if err != nil {
		return nil, err
	}
	if p.info, err = ParseKeyInformation(data); err != nil {
		return nil, err
	}
	spoken, ok := o.protocol(p.info)
	if !ok {
		return nil, fmt.Errorf("%w: the card answers with SCP%02X (i = %02X), which was not asked for", ErrProtocolNotSupported, p.info.Protocol, p.info.I)
	}
	p.info.I = spoken.I
	if o.KeyVersion != 0 && p.info.KeyVersion != o.KeyVersion {
		return nil, fmt.Errorf("%w: %d was asked for, the card answers with %d", ErrKeyVersion, o.KeyVersion, p.info.KeyVersion)
	}
	if !spoken.Supports(o.Level) {
		return nil, fmt.Errorf("%w: level %v in %v", ErrLevel, o.Level, spoken)
	}
	return p, nil
}

// KeyInformation is what the card said, unproven until Authenticate returns.
// Of SCP02, "i" is what the host options say.
func (p *Pending) KeyInformation() KeyInformation { return p.info }

// Authenticate verifies the card's cryptogram and then sends EXTERNAL
// AUTHENTICATE (AmdD 7.1.2; GPCS E.5.2). When the card has not proved its keys
// the error wraps [ErrCardCryptogram] and nothing has been sent. SCP02 takes
// the keys of the set, 16 bytes each, as double length DES keys. The keys are
// copied as far as needed; the caller may erase them. It can be called once.
func (p *Pending) Authenticate(ctx context.Context, set keys.Set) (*Session, error) {
	if p.used {
		return nil, fmt.Errorf("%w: its challenges have been used", ErrSessionOver)
	}
	if set.Version != 0 && set.Version != p.info.KeyVersion {
		return nil, fmt.Errorf("%w: the keys at hand are version %d, the card's %d", ErrKeyVersion, set.Version, p.info.KeyVersion)
	}
	p.used = true
	spoken := p.info.Channel()
	h, err := newHandshake(spoken, set, p.challenge, p.info)
	if err != nil {
		return nil, err
	}
	defer h.erase()
	if subtle.ConstantTimeCompare(h.cardCryptogram(), p.info.Cryptogram) != 1 {
		return nil, fmt.Errorf("%w: key version %d", ErrCardCryptogram, p.info.KeyVersion)
	}
	if spoken.PseudoRandom() && !p.o.AID.IsZero() {
		want, err := expectedChallenge(spoken, h, set, p.info.SequenceCounter, p.o.AID)
		if err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare(want, p.info.Challenge) != 1 {
			return nil, fmt.Errorf("%w: %06X, application %v", ErrCardChallenge, p.info.SequenceCounter, p.o.AID)
		}
	}
	c := iso7816.Command{CLA: 0x84, INS: 0x82, P1: byte(p.o.Level), Data: h.hostCryptogram()}
	mac := h.mac(c)
	c.Data = append(c.Data, mac[:spoken.macSize()]...)
	if _, err := iso7816.Do(ctx, p.card, c); err != nil {
		return nil, err
	}
	ch, err := h.open(p.o.Level, mac)
	if err != nil {
		return nil, err
	}
	return &Session{
		card: p.card, ch: ch, protocol: spoken, level: p.o.Level, info: p.info,
		sensitive: p.o.AllowDeprecated || !spoken.Deprecated(),
	}, nil
}

// Open is Initialize and Authenticate with keys known beforehand. A set whose
// version is not 0 must be the one that the card uses.
func Open(ctx context.Context, card iso7816.Sender, set keys.Set, o HostOptions) (*Session, error) {
	if o.KeyVersion == 0 {
		o.KeyVersion = set.Version
	}
	p, err := Initialize(ctx, card, o)
	if err != nil {
		return nil, err
	}
	return p.Authenticate(ctx, set)
}

// ResumeHost returns a session of SCP03, mode S8, that begins with a given state, for protocols
// that end where an SCP03 session begins. chaining is the MAC chaining value,
// counter the encryption counter that the next command uses (1 is the first
// after authentication). Such a session has no DEK and no key information.
// The keys are copied as far as needed; it panics when one is missing or the
// level is invalid, which is a mistake of the program.
func ResumeHost(card iso7816.Sender, k SessionKeys, level Level, chaining [16]byte, counter uint32) *Session {
	if !level.Valid() {
		panic(fmt.Sprintf("scp: level %v", level))
	}
	ch, err := newChannel(SCP03, k, level, chaining, counter)
	if err != nil {
		panic("scp: " + err.Error())
	}
	return &Session{card: card, ch: ch, protocol: SCP03, level: level, sensitive: true}
}

// Channel is what a session offers to those who send through it. [*Session] is
// one, whichever protocol it speaks; tests and other secure channels may be
// others.
type Channel interface {
	iso7816.Sender
	Level() Level
	MaxData() int
	EncryptSensitive(data []byte) ([]byte, error)
	KeyInformation() KeyInformation
	Close()
}

// Session is the host's side of a session of SCP03 or SCP02. It is an
// [iso7816.Sender] for commands in the clear form. It is not safe for
// concurrent use: the order of commands is part of the protection.
type Session struct {
	card      iso7816.Sender
	ch        coding // nil when over
	protocol  Protocol
	level     Level
	info      KeyInformation
	sensitive bool  // EncryptSensitive is allowed
	over      error // why, after the session ended by itself
}

var _ Channel = (*Session)(nil)

// String says what session this is, and nothing of its keys.
func (s *Session) String() string {
	if s.ch == nil {
		return fmt.Sprintf("closed SCP%02X session", s.protocol.Number)
	}
	return fmt.Sprintf("SCP%02X session at level %v, key version %d", s.protocol.Number, s.level, s.info.KeyVersion)
}

// GoString is String.
func (s *Session) GoString() string { return s.String() }

// Level is the session's security level.
func (s *Session) Level() Level { return s.level }

// KeyInformation is what the card answered to INITIALIZE UPDATE; its key
// version is proven, its diversification data is what the card said.
func (s *Session) KeyInformation() KeyInformation { return s.info }

// Protocol is the session's protocol with its options.
func (s *Session) Protocol() Protocol { return s.protocol }

// AllowsSensitive reports whether EncryptSensitive works: not in a deprecated
// protocol, unless the host's options gave leave.
func (s *Session) AllowsSensitive() bool { return s.sensitive }

// MaxData is how many bytes of data one short command takes: 247 with a C-MAC,
// 239 with encryption, in mode S16 239 and 223.
func (s *Session) MaxData() int { return s.protocol.maxData(s.level) }

// MaxResponse is how many bytes of data one short response takes: 248 with an
// R-MAC, 239 with encryption, in mode S16 240 and 239.
func (s *Session) MaxResponse() int { return s.protocol.plainNe(s.level, 256) }

// Send protects the command, sends it, verifies and unprotects the response.
//
// Ne counts unprotected bytes: Send asks for as many more as the protection
// takes, up to 256 for a short command. A command that asks for no data at
// a level with R-MAC is sent with Le 00, since its response carries an R-MAC
// (as GPCS E.4.5 says for SCP02).
//
// Data longer than MaxData wraps [ErrTooLong], unless the command says that
// it is Extended; see SendChained too. A response whose R-MAC or padding is
// wrong wraps [ErrResponseMAC]; that, and any failure to get a response, ends
// the session: the card's state is then unknown. A response with an error
// status word carries no MAC in SCP03 (AmdD 6.2.5), so it proves nothing, and
// its data, if any, is dropped at levels with R-MAC. In SCP02 an R-MAC is
// verified where there is one.
func (s *Session) Send(ctx context.Context, c iso7816.Command) (iso7816.Response, error) {
	limit := iso7816.MaxShortData
	if c.Extended {
		limit = iso7816.MaxExtendedData
	}
	protected, err := s.protect(c, limit)
	if err != nil {
		return iso7816.Response{}, err
	}
	return s.receive(ctx, c, protected)
}

// SendChained is Send for a command that need not fit: what is longer once
// protected goes out as a sequence of short commands, all but the last with
// P1.b8 set (GPCS 11.1.5.1). DELETE, INSTALL and PUT KEY can be sent so, with
// P1.b8 clear. A card that refuses one of the first commands has ended the
// sequence; its answer is returned, and the session is over, since the C-MAC
// of the sequence has not reached the card.
func (s *Session) SendChained(ctx context.Context, c iso7816.Command) (iso7816.Response, error) {
	protected, err := s.protect(c, iso7816.MaxExtendedData)
	if err != nil {
		return iso7816.Response{}, err
	}
	data := protected.Data
	for len(data) > iso7816.MaxShortData {
		part := protected
		part.P1, part.Data, part.Ne = part.P1|0x80, data[:iso7816.MaxShortData], 0
		r, err := s.card.Send(ctx, part)
		switch {
		case err != nil:
		case r.SW != iso7816.OK:
			s.over = r.Err(c)
			s.end()
			return iso7816.Response{SW: r.SW}, nil
		case len(r.Data) > 0:
			err = fmt.Errorf("%s: %w: %d bytes of data amid a chained command", iso7816.InstructionName(c.CLA, c.INS), iso7816.ErrProtocol, len(r.Data))
		}
		if err != nil {
			s.over = err
			s.end()
			return iso7816.Response{}, err
		}
		data = data[iso7816.MaxShortData:]
	}
	protected.Data = data
	return s.receive(ctx, c, protected)
}

// protect builds the command that goes over the wire and moves the state on.
// The state is as before when it fails.
func (s *Session) protect(c iso7816.Command, limit int) (iso7816.Command, error) {
	if s.ch == nil {
		if s.over != nil {
			return iso7816.Command{}, fmt.Errorf("%w after an error: %w", ErrSessionOver, s.over)
		}
		return iso7816.Command{}, ErrSessionOver
	}
	size := len(c.Data)
	if s.level.HasCMAC() {
		if s.level.HasCDecryption() && size > 0 {
			size = (size/s.protocol.block() + 1) * s.protocol.block()
		}
		if size += s.protocol.macSize(); size > limit {
			return iso7816.Command{}, fmt.Errorf("%s: %w: %d bytes, %d at most at level %v",
				iso7816.InstructionName(c.CLA, c.INS), ErrTooLong, len(c.Data), s.MaxData(), s.level)
		}
	}
	return s.ch.protect(c), nil
}

// receive sends a protected command and unprotects its response.
func (s *Session) receive(ctx context.Context, c, protected iso7816.Command) (iso7816.Response, error) {
	r, err := s.card.Send(ctx, protected)
	if err == nil {
		r, err = s.ch.unprotect(r)
		if err != nil {
			err = fmt.Errorf("%s: %w", iso7816.InstructionName(c.CLA, c.INS), err)
		}
	}
	if err != nil {
		s.over = err
		s.end()
		return iso7816.Response{}, err
	}
	return r, nil
}

// EncryptSensitive encrypts keys and PINs for the card: in SCP03 under the
// static DEK (AES-CBC, zero ICV; AmdD 6.2.8), data of a multiple of 16 bytes;
// in SCP02 under the session's (triple DES, ECB; GPCS E.4.7), a multiple of 8.
// Keys of other sizes and other data are padded by the caller as the command
// in question says. In a deprecated protocol it refuses with [ErrDeprecated],
// unless [HostOptions.AllowDeprecated] gave leave.
func (s *Session) EncryptSensitive(data []byte) ([]byte, error) {
	if s.ch == nil {
		return nil, ErrSessionOver
	}
	if !s.sensitive {
		return nil, fmt.Errorf("%w (%v)", ErrDeprecated, s.protocol)
	}
	return s.ch.encryptSensitive(data)
}

// Close ends the session on this side and erases its keys as far as Go
// allows: expanded keys inside crypto/aes and crypto/des are only let go. The
// card ends its side with the next SELECT, INITIALIZE UPDATE or loss of power.
func (s *Session) Close() { s.end() }

func (s *Session) end() {
	if s.ch != nil {
		s.ch.erase()
	}
	s.ch = nil
}
