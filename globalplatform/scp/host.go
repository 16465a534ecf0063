package scp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/freearea/freearea/internal/sp800"
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
	// bytes: how it is padded is for the command to say (AmdD 6.2.8).
	ErrSensitiveLength = errors.New("sensitive data is not a multiple of 16 bytes")
)

// HostOptions say what the host asks for.
type HostOptions struct {
	KeyVersion byte      // 0: the first available key set, chosen by the card
	KeyID      byte      // P2 of INITIALIZE UPDATE, 0 for SCP03
	Level      Level     // of the session; None is authentication only
	Rand       io.Reader // for the host's challenge; nil is crypto/rand
}

// Pending is a channel whose card has answered INITIALIZE UPDATE and which
// waits for the keys.
type Pending struct {
	card      iso7816.Sender
	level     Level
	challenge [ChallengeSize]byte
	info      KeyInformation
	used      bool
}

// Initialize sends INITIALIZE UPDATE (AmdD 7.1.1). Nothing secret is sent and
// nothing counts as an attempt yet.
func Initialize(ctx context.Context, card iso7816.Sender, o HostOptions) (*Pending, error) {
	if !o.Level.Valid() {
		return nil, fmt.Errorf("%w: %v", ErrLevel, o.Level)
	}
	p := &Pending{card: card, level: o.Level}
	source := o.Rand
	if source == nil {
		source = rand.Reader
	}
	if _, err := io.ReadFull(source, p.challenge[:]); err != nil {
		return nil, fmt.Errorf("host challenge: %w", err)
	}
	data, err := iso7816.Do(ctx, card, iso7816.Command{
		CLA: 0x80, INS: 0x50, P1: o.KeyVersion, P2: o.KeyID, Data: p.challenge[:], Ne: iso7816.MaxShortNe,
	})
	if err != nil {
		return nil, err
	}
	if p.info, err = ParseKeyInformation(data); err != nil {
		return nil, err
	}
	if o.KeyVersion != 0 && p.info.KeyVersion != o.KeyVersion {
		return nil, fmt.Errorf("%w: %d was asked for, the card answers with %d", ErrKeyVersion, o.KeyVersion, p.info.KeyVersion)
	}
	if !p.info.Supports(o.Level) {
		return nil, fmt.Errorf("%w: level %v, but the card's i parameter is %02X", ErrLevel, o.Level, p.info.I)
	}
	return p, nil
}

// KeyInformation is what the card said, unproven until Authenticate returns.
func (p *Pending) KeyInformation() KeyInformation { return p.info }

// Authenticate verifies the card's cryptogram and then sends EXTERNAL
// AUTHENTICATE (AmdD 7.1.2). When the card has not proved its keys the error
// wraps [ErrCardCryptogram] and nothing has been sent. The keys are copied as
// far as needed; the caller may erase them. It can be called once.
func (p *Pending) Authenticate(ctx context.Context, set keys.Set) (*Session, error) {
	if p.used {
		return nil, fmt.Errorf("%w: its challenges have been used", ErrSessionOver)
	}
	if set.Version != 0 && set.Version != p.info.KeyVersion {
		return nil, fmt.Errorf("%w: the keys at hand are version %d, the card's %d", ErrKeyVersion, set.Version, p.info.KeyVersion)
	}
	p.used = true
	k, err := DeriveSessionKeys(set, p.challenge[:], p.info.Challenge[:])
	if err != nil {
		return nil, err
	}
	defer k.Erase()
	ch, err := newChannel(k, p.level, [sp800.Size]byte{}, 1)
	if err != nil {
		return nil, err
	}
	card := cryptogram(ch.mac, constCardCryptogram, p.challenge[:], p.info.Challenge[:])
	if subtle.ConstantTimeCompare(card[:], p.info.Cryptogram[:]) != 1 {
		return nil, fmt.Errorf("%w: key version %d", ErrCardCryptogram, p.info.KeyVersion)
	}
	host := cryptogram(ch.mac, constHostCryptogram, p.challenge[:], p.info.Challenge[:])
	c := iso7816.Command{CLA: 0x84, INS: 0x82, P1: byte(p.level)}
	mac := ch.commandMAC(c.CLA, c.INS, c.P1, c.P2, host[:], false)
	ch.chaining = mac
	c.Data = append(host[:], mac[:macSize]...)
	if _, err := iso7816.Do(ctx, p.card, c); err != nil {
		return nil, err
	}
	s := &Session{card: p.card, ch: ch, level: p.level, info: p.info}
	if !set.DEK.IsZero() {
		if s.dek, err = keys.NewKey(set.DEK.Bytes()); err != nil {
			return nil, err
		}
	}
	return s, nil
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

// ResumeHost returns a session that begins with a given state, for protocols
// that end where an SCP03 session begins. chaining is the MAC chaining value,
// counter the encryption counter that the next command uses (1 is the first
// after authentication). Such a session has no DEK and no key information.
// The keys are copied as far as needed; it panics when one is missing or the
// level is invalid, which is a mistake of the program.
func ResumeHost(card iso7816.Sender, k SessionKeys, level Level, chaining [16]byte, counter uint32) *Session {
	if !level.Valid() {
		panic(fmt.Sprintf("scp: level %v", level))
	}
	ch, err := newChannel(k, level, chaining, counter)
	if err != nil {
		panic("scp: " + err.Error())
	}
	return &Session{card: card, ch: ch, level: level}
}

// Session is the host's side of an SCP03 session. It is an [iso7816.Sender]
// for commands in the clear form. It is not safe for concurrent use: the
// order of commands is part of the protection.
type Session struct {
	card  iso7816.Sender
	ch    *channel // nil when over
	level Level
	info  KeyInformation
	dek   keys.Key
	over  error // why, after the session ended by itself
}

var _ iso7816.Sender = (*Session)(nil)

// String says what session this is, and nothing of its keys.
func (s *Session) String() string {
	if s.ch == nil {
		return "closed SCP03 session"
	}
	return fmt.Sprintf("SCP03 session at level %v, key version %d", s.level, s.info.KeyVersion)
}

// GoString is String.
func (s *Session) GoString() string { return s.String() }

// Level is the session's security level.
func (s *Session) Level() Level { return s.level }

// KeyInformation is what the card answered to INITIALIZE UPDATE; its key
// version is proven, its diversification data is what the card said.
func (s *Session) KeyInformation() KeyInformation { return s.info }

// MaxData is how many bytes of data one short command takes; see
// [Level.MaxData].
func (s *Session) MaxData() int { return s.level.MaxData() }

// MaxResponse is how many bytes of data one short response takes; see
// [Level.MaxResponse].
func (s *Session) MaxResponse() int { return s.level.MaxResponse() }

// Send protects the command, sends it, verifies and unprotects the response.
//
// Ne counts unprotected bytes: Send asks for as many more as the protection
// takes, up to 256 for a short command. A command that asks for no data at
// a level with R-MAC is sent with Le 00, since its response carries an R-MAC
// (as GPCS E.4.5 says for SCP02).
//
// Data longer than MaxData wraps [ErrTooLong], unless the command says that
// it is Extended. A response whose R-MAC or padding is wrong wraps
// [ErrResponseMAC]; that, and any failure to get a response, ends the session:
// the card's state is then unknown. A response with an error status word
// carries no MAC (AmdD 6.2.5), so it proves nothing, and its data, if any, is
// dropped at levels with R-MAC.
func (s *Session) Send(ctx context.Context, c iso7816.Command) (iso7816.Response, error) {
	if s.ch == nil {
		if s.over != nil {
			return iso7816.Response{}, fmt.Errorf("%w after an error: %w", ErrSessionOver, s.over)
		}
		return iso7816.Response{}, ErrSessionOver
	}
	protected, err := s.protect(c)
	if err != nil {
		return iso7816.Response{}, err
	}
	r, err := s.card.Send(ctx, protected)
	if err == nil {
		r, err = s.unprotect(r)
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

// protect builds the command that goes over the wire and moves the state on.
// The state is as before when it fails.
func (s *Session) protect(c iso7816.Command) (iso7816.Command, error) {
	ch := s.ch
	if !s.level.HasCMAC() {
		return c, nil
	}
	size := len(c.Data)
	if s.level.HasCDecryption() && size > 0 {
		size = paddedSize(size)
	}
	size += macSize
	limit := iso7816.MaxShortData
	if c.Extended {
		limit = iso7816.MaxExtendedData
	}
	if size > limit {
		return iso7816.Command{}, fmt.Errorf("%s: %w: %d bytes, %d at most at level %v",
			iso7816.InstructionName(c.CLA, c.INS), ErrTooLong, len(c.Data), s.level.MaxData(), s.level)
	}
	out := iso7816.Command{CLA: secureClass(c.CLA), INS: c.INS, P1: c.P1, P2: c.P2, Extended: c.Extended}
	if s.level.HasRMAC() {
		out.Ne = iso7816.MaxShortNe
		if c.Ne > 0 {
			most := iso7816.MaxShortNe
			if c.Extended || c.Ne > most {
				most = iso7816.MaxExtendedNe
			}
			out.Ne = min(s.level.protectedNe(c.Ne), most)
		}
	} else {
		out.Ne = c.Ne
	}
	ch.count()
	data := make([]byte, 0, size)
	if s.level.HasCDecryption() && len(c.Data) > 0 {
		data = appendPadded(data, c.Data)
		ch.icv(false)
		encryptCBC(ch.enc, &ch.iv, data)
	} else {
		data = append(data, c.Data...)
	}
	mac := ch.commandMAC(c.CLA, c.INS, c.P1, c.P2, data, out.Extended || out.Ne > iso7816.MaxShortNe)
	ch.chaining = mac
	out.Data = append(data, mac[:macSize]...)
	return out, nil
}

// unprotect verifies a response and returns what the card meant.
func (s *Session) unprotect(r iso7816.Response) (iso7816.Response, error) {
	if !s.level.HasRMAC() {
		return r, nil
	}
	if !protects(r.SW) {
		return iso7816.Response{SW: r.SW}, nil
	}
	n := len(r.Data) - macSize
	if n < 0 {
		return iso7816.Response{}, fmt.Errorf("%w: %d bytes of data with %v", ErrResponseMAC, len(r.Data), r.SW)
	}
	data := r.Data[:n:n]
	mac := s.ch.responseMAC(data, r.SW)
	if subtle.ConstantTimeCompare(mac[:macSize], r.Data[n:]) != 1 {
		return iso7816.Response{}, ErrResponseMAC
	}
	if !s.level.HasREncryption() || n == 0 {
		return iso7816.Response{Data: data, SW: r.SW}, nil
	}
	plain, ok := s.ch.decrypt(data, true)
	if !ok {
		return iso7816.Response{}, fmt.Errorf("%w: encrypted data of %d bytes is not padded", ErrResponseMAC, n)
	}
	return iso7816.Response{Data: plain, SW: r.SW}, nil
}

// decrypt returns the plain data of a command or a response; false where the
// length or the padding is wrong, or where nothing but padding was encrypted
// (AmdD 6.2.6, 6.2.7: no data, no encryption).
func (c *channel) decrypt(data []byte, response bool) ([]byte, bool) {
	if len(data)%blockSize != 0 {
		return nil, false
	}
	plain := append([]byte(nil), data...)
	c.icv(response)
	decryptCBC(c.enc, &c.iv, plain)
	plain, ok := unpad(plain)
	return plain, ok && len(plain) > 0
}

// EncryptSensitive encrypts under the static DEK (AES-CBC, zero ICV; AmdD
// 6.2.8). The data is a multiple of 16 bytes: keys of 24 bytes and other data
// are padded by the caller as the command in question says.
func (s *Session) EncryptSensitive(data []byte) ([]byte, error) {
	if s.ch == nil {
		return nil, ErrSessionOver
	}
	return sensitive(s.dek, data, encryptCBC)
}

// Close ends the session on this side and erases its keys as far as Go
// allows: expanded AES keys inside crypto/aes are only let go. The card ends
// its side with the next SELECT, INITIALIZE UPDATE or loss of power.
func (s *Session) Close() { s.end() }

func (s *Session) end() {
	s.ch = nil
	s.dek.Erase()
	s.dek = keys.Key{}
}
