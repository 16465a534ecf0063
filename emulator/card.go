package emulator

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// IssuerSecurityDomain is the AID of the Issuer Security Domain; the shorter
// A0000001510000 selects it too.
var IssuerSecurityDomain = iso7816.MustAID("A000000151000000")

// ErrClosed reports the use of a card after Close.
var ErrClosed = errors.New("emulated card is closed")

// Config says what a new card is.
type Config struct {
	Profile Profile
	// IIN and CIN identify the card (GPCS 7.4.1); 1 to 32 bytes each.
	IIN, CIN []byte
	// Keys is the key set of the Issuer Security Domain: ENC, MAC and DEK,
	// version 1 to 127. The card keeps a copy.
	Keys keys.Set
	// DiversificationData is what INITIALIZE UPDATE answers, for a host that
	// derives the card's keys from it. All zero stands for random data.
	DiversificationData [10]byte
	// SecureChannel is the protocol of the Issuer Security Domain, and of the
	// Security Domains installed without saying another; the zero value is
	// [scp.SCP03]. For SCP02 the keys are 16 bytes each, of Triple DES.
	SecureChannel scp.Protocol
	// LifeCycle is the card's life cycle state (GPCS table 11-6): OP_READY 01,
	// INITIALIZED 07, or SECURED 0F, for which 0 stands too.
	LifeCycle byte
	// Linker finds what can be executed in load files; nil finds nothing.
	Linker oncard.Linker
	// Rand is the card's random generator; nil is crypto/rand.
	Rand io.Reader
}

// Card is a card in software. It is an [iso7816.Conn], and offers
// [iso7816.AnswerToReset], [iso7816.Resetter] and [iso7816.ExtendedLength]. It
// has power from the beginning. Its methods may be called from several
// goroutines; commands are carried out one after the other.
type Card struct {
	mu     sync.Mutex
	linker oncard.Linker
	rand   io.Reader
	image  *imageFile // nil for a card in memory
	closed error      // why the card answers no more

	state   *state
	session *session // all that is lost with power; nil without power
	atr     atomic.Pointer[[]byte]

	// The running command.
	at     *logicalChannel // that it came on
	tx     transaction
	dirty  bool // something persistent was written
	lost   bool // power is lost in the middle of it
	writes int
	undone int // how often writes were taken back, ever

	cut        Cut
	cutCommand int // commands since SetCut
	counting   bool
	counts     []int
}

var (
	_ iso7816.Conn           = (*Card)(nil)
	_ iso7816.AnswerToReset  = (*Card)(nil)
	_ iso7816.Resetter       = (*Card)(nil)
	_ iso7816.ExtendedLength = (*Card)(nil)
)

// New returns a card in memory.
func New(cfg Config) (*Card, error) {
	s, err := newState(cfg)
	if err != nil {
		return nil, err
	}
	return newCard(s, cfg.Linker, cfg.Rand), nil
}

// Create makes a card in a new image file, which only the user can read
// (mode 0600): it holds the card's keys in the clear. The card is to be closed.
// The error wraps [os.ErrExist] where the file exists, and [ErrImageLocked]
// where another process is about to create it.
func Create(path string, cfg Config) (*Card, error) {
	s, err := newState(cfg)
	if err != nil {
		return nil, err
	}
	f, err := lockImage(path)
	if err != nil {
		return nil, err
	}
	if _, err = os.Lstat(path); err == nil {
		err = fmt.Errorf("%s: %w", path, os.ErrExist)
	} else if errors.Is(err, os.ErrNotExist) {
		err = f.save(s)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	c := newCard(s, cfg.Linker, cfg.Rand)
	c.image = f
	return c, nil
}

// Option is an option of Open.
type Option func(*Card)

// WithRand gives the card its random generator instead of crypto/rand.
func WithRand(r io.Reader) Option { return func(c *Card) { c.rand = r } }

// Open opens the card in an image file for this process alone; it is to be
// closed. What the linker knows of the load files on it may have changed since
// the last time: instances of what can't be executed any more stay on the
// card, can't be selected, and can be deleted; [Card.Refused] names what the
// linker refuses.
//
// The error wraps [ErrImageLocked], one of [ErrNotImage], [ErrImageVersion],
// [ErrImageTruncated], [ErrImageChecksum] and [ErrImageContent], or is the
// operating system's.
func Open(path string, linker oncard.Linker, options ...Option) (*Card, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("card image: %w", err) // and no lock file is left beside what isn't there
	}
	f, err := lockImage(path)
	if err != nil {
		return nil, err
	}
	s, err := f.load()
	if err != nil {
		f.close()
		return nil, err
	}
	c := newCard(s, linker, nil, options...)
	c.image = f
	return c, nil
}

func newCard(s *state, linker oncard.Linker, random io.Reader, options ...Option) *Card {
	c := &Card{linker: linker, rand: random, state: s}
	for _, o := range options {
		o(c)
	}
	if c.rand == nil {
		c.rand = rand.Reader
	}
	c.powerOn()
	return c
}

// newState is a card as it leaves its issuer: the Issuer Security Domain and
// the applications that such a card comes with.
func newState(cfg Config) (*state, error) {
	if err := cfg.Profile.check(); err != nil {
		return nil, err
	}
	for name, v := range map[string][]byte{"IIN": cfg.IIN, "CIN": cfg.CIN} {
		if len(v) < 1 || len(v) > maxIdentity {
			return nil, fmt.Errorf("%s of %d bytes, 1 to %d allowed", name, len(v), maxIdentity)
		}
	}
	if err := checkKeys(cfg.Keys); err != nil {
		return nil, err
	}
	protocol := cfg.SecureChannel
	if protocol == (scp.Protocol{}) {
		protocol = scp.SCP03
	}
	if err := checkProtocol(protocol, cfg.Keys); err != nil {
		return nil, err
	}
	lifeCycle := cfg.LifeCycle
	switch lifeCycle {
	case 0:
		lifeCycle = cardSecured
	case cardOPReady, cardInitialized, cardSecured:
	default:
		return nil, fmt.Errorf("life cycle state %02X of a new card, %02X, %02X or %02X allowed", lifeCycle, cardOPReady, cardInitialized, cardSecured)
	}
	s := &state{profile: cfg.Profile, diversification: cfg.DiversificationData}
	s.profile.ATR = bytes.Clone(cfg.Profile.ATR)
	if s.diversification == [10]byte{} {
		random := cfg.Rand
		if random == nil {
			random = rand.Reader
		}
		if _, err := io.ReadFull(random, s.diversification[:]); err != nil {
			return nil, fmt.Errorf("diversification data: %w", err)
		}
	}
	d := &domain{protocol: protocol, keys: channelKeys(cfg.Keys, channelKeyType(protocol))}
	d.put(tagIIN, cfg.IIN)
	d.put(tagCIN, cfg.CIN)
	s.entries = []*entry{{
		aid:            IssuerSecurityDomain,
		securityDomain: IssuerSecurityDomain,
		privileges:     issuerPrivileges,
		lifeCycle:      lifeCycle,
		own:            true,
		domain:         d,
	}}
	for _, aid := range residents {
		s.entries = append(s.entries, &entry{
			aid: aid, securityDomain: IssuerSecurityDomain, lifeCycle: oncard.Selectable, own: true,
		})
	}
	s.addDomainPackage()
	return s, nil
}

// addDomainPackage gives the card the load file that Security Domains are
// installed from.
func (s *state) addDomainPackage() {
	s.files = append([]*loadFile{{
		aid: domainPackage, securityDomain: s.issuer().aid, modules: []iso7816.AID{domainModule}, own: true,
	}}, s.files...)
}

const maxIdentity = 32 // bytes of IIN and CIN

// issuerPrivileges are those of GPCS 6.6.2: Security Domain, Card Lock, Card
// Terminate, Card Reset, CVM Management; Trusted Path, Authorized Management,
// Token Verification, Global Delete, Global Lock, Global Registry, Final
// Application; Receipt Generation.
var issuerPrivileges = privileges{0x9E, 0xFE, 0x80}

func checkKeys(k keys.Set) error {
	n := len(k.ENC.Bytes())
	switch {
	case k.Version < 1 || k.Version > 127:
		return fmt.Errorf("key version %d of the Issuer Security Domain, 1 to 127 allowed", k.Version)
	case n == 0 || len(k.MAC.Bytes()) != n || len(k.DEK.Bytes()) != n:
		return fmt.Errorf("key set %d of the Issuer Security Domain: ENC, MAC and DEK must be there and equally long", k.Version)
	}
	return nil
}

// channelKeyType is the type of the keys of a secure channel protocol.
func channelKeyType(p scp.Protocol) byte {
	if p.Number == 2 {
		return keyTypeDES
	}
	return keyTypeAES
}

// checkProtocol holds a protocol and the keys for it to each other.
func checkProtocol(p scp.Protocol, k keys.Set) error {
	switch {
	case !p.Valid():
		return fmt.Errorf("secure channel protocol %v is not known", p)
	case p.Number == 2 && k.ENC.Len() != 16:
		return fmt.Errorf("keys of %d bytes for %v, 16 wanted", k.ENC.Len(), p)
	}
	return nil
}

// ATR returns the answer to the last reset: the profile's, with the historical
// bytes that an application has set.
func (c *Card) ATR() []byte { return bytes.Clone(*c.atr.Load()) }

// ExtendedLength reports whether the profile's card takes extended-length
// commands.
func (c *Card) ExtendedLength() bool { return c.state.profile.ExtendedLength }

// Profile returns the profile that the card was made with.
func (c *Card) Profile() Profile {
	p := c.state.profile
	p.ATR = bytes.Clone(p.ATR)
	return p
}

// PowerOn gives the card power, also after a cut. The Issuer Security Domain
// is selected. On a card that has power it does nothing.
func (c *Card) PowerOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerOn()
}

func (c *Card) powerOn() {
	if c.session != nil {
		return
	}
	c.session = &session{running: map[*entry]*instance{}}
	atr := c.state.profile.ATR
	if c.state.historical != nil {
		atr, _ = withHistoricalBytes(atr, c.state.historical)
	}
	c.atr.Store(&atr)
	c.startRuntime()
	c.session.channels[0] = &logicalChannel{}
	c.at = c.session.channels[0]
	c.selectDomain(c.state.issuer())
	c.session.fresh = true
}

// begin tells the application that is implicitly selected that it is. One that
// refuses leaves the Issuer Security Domain selected (GPCS 6.4.2.1.1).
func (c *Card) begin() {
	c.session.fresh = false
	e := c.state.implicit(0)
	if c.state.cardLocked() {
		e = c.state.holder(privFinalApplication)
	}
	if e != c.state.issuer() {
		c.choose(e, iso7816.Select(e.aid))
	}
}

// PowerOff takes the power away between commands; a running command ends
// first. Until PowerOn, Transmit fails with an error that wraps
// [iso7816.ErrCardRemoved].
func (c *Card) PowerOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.losePower()
}

// losePower forgets what is not persistent, and takes back what is open.
func (c *Card) losePower() {
	c.rollback()
	if c.session != nil {
		for _, l := range c.session.channels {
			if l != nil && l.secure != nil {
				l.secure.Reset()
			}
		}
	}
	c.session, c.at, c.lost = nil, nil, false
}

// Reset takes the power away and gives it back.
func (c *Card) Reset(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		return c.closed
	}
	c.losePower()
	c.powerOn()
	return nil
}

// Close takes the power away, and lets others open the image.
func (c *Card) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil && c.image == nil {
		return nil
	}
	c.losePower()
	c.closed = ErrClosed
	if c.image == nil {
		return nil
	}
	f := c.image
	c.image = nil
	return f.close()
}

// Transmit carries out one command and returns the response. What the command
// changed is in the image before the response is returned. Bytes that are no
// command APDU get 6700.
//
// When the image can't be written the error says so and the card answers
// nothing more: the image holds the state before the command, or after it.
func (c *Card) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		return nil, c.closed
	}
	if c.session == nil {
		return nil, fmt.Errorf("%w: it has no power", iso7816.ErrCardRemoved)
	}
	c.writes, c.dirty, c.lost = 0, false, false
	c.cutCommand++
	if c.cutAt(BeforeCommand, 0) {
		c.losePower()
		return nil, errCut
	}
	response := c.execute(command)
	lost := c.lost || c.cutAt(AfterCommand, 0)
	if lost {
		c.losePower()
	} else {
		c.rollback() // nothing is open here, unless something above is wrong
	}
	if c.counting {
		c.counts = append(c.counts, c.writes)
	}
	if c.dirty && c.image != nil {
		if err := c.image.save(c.state); err != nil {
			c.losePower()
			c.closed = fmt.Errorf("card image not written: %w", err)
			return nil, c.closed
		}
	}
	if lost {
		return nil, errCut
	}
	return response.Encode(), nil
}

// execute carries out the command. Nothing that an application does gets past
// it.
func (c *Card) execute(command []byte) (r iso7816.Response) {
	defer func() {
		if recover() != nil {
			r = refuse(iso7816.ErrUnknown)
		}
	}()
	parse, t0 := iso7816.ParseCommand, c.state.profile.Protocol() == 0
	if t0 {
		parse = parseT0
	}
	cmd, err := parse(command)
	if err != nil || cmd.Extended && !c.state.profile.ExtendedLength {
		return refuse(iso7816.ErrWrongLength)
	}
	if cmd.CLA == 0xFF {
		return refuse(iso7816.ErrUnknownCLA)
	}
	// The response is the card's from here on, whatever the application does
	// to the command's bytes.
	cmd.Data = bytes.Clone(cmd.Data)
	number, cla := address(cmd.CLA)
	if c.session.channels[number] == nil {
		return refuse(iso7816.ErrLogicalChannel)
	}
	c.at, cmd.CLA = c.session.channels[number], cla
	if c.session.fresh {
		c.begin()
	}
	if cmd.INS == insGetResponse && c.at.rest != nil {
		if n := len(c.at.rest); t0 && cmd.Ne > n {
			return iso7816.Response{SW: remaining(0x6C00, n)}
		}
		return c.more(cmd.Ne)
	}
	c.at.rest = nil
	if t0 {
		if r, ok := c.at.again(cmd); ok {
			return r
		}
		return c.fitT0(cmd, c.dispatch(cmd))
	}
	return c.fit(c.dispatch(cmd), cmd.Ne)
}

// dispatch gives the command to whom it is for (GPCS 6.4.2.3).
func (c *Card) dispatch(cmd iso7816.Command) iso7816.Response {
	if cmd.INS == insSelect && cmd.P1 == selectByName && cmd.CLA&0x80 == 0 {
		return c.selectByName(cmd)
	}
	if cmd.INS == insManageChannel && cmd.CLA&0x80 == 0 {
		return c.manageChannel(cmd)
	}
	if e := c.at.selected; e.domain != nil {
		return c.domainProcess(e, cmd)
	}
	return c.process(cmd)
}

// process lets the selected application process a command.
func (c *Card) process(cmd iso7816.Command) iso7816.Response {
	i, err := c.open(c.at.selected)
	if err != nil {
		return refuse(err)
	}
	defer c.abortApplication()
	return i.app.Process(cmd)
}

// fit cuts a response to what the command asked for and keeps the rest for GET
// RESPONSE. A command without Le gets up to 256 bytes: cards with T=1 answer
// so, and hosts rely on it. An application may answer in parts by itself, each
// but the last one with 61xx.
func (c *Card) fit(r iso7816.Response, ne int) iso7816.Response {
	if ne == 0 {
		ne = iso7816.MaxShortNe
	}
	if len(r.Data) <= ne {
		return r
	}
	c.at.rest, c.at.restSW = r.Data, r.SW
	return c.more(ne)
}

func (c *Card) more(ne int) iso7816.Response {
	s := c.at
	if ne == 0 {
		ne = iso7816.MaxShortNe
	}
	if len(s.rest) <= ne {
		r := iso7816.Response{Data: s.rest, SW: s.restSW}
		s.rest = nil
		return r
	}
	r := iso7816.Response{Data: s.rest[:ne], SW: remaining(0x6100, len(s.rest)-ne)}
	s.rest = s.rest[ne:]
	return r
}

// refuse is the response to an error: its status word, where it has one.
func refuse(err error) iso7816.Response {
	var sw iso7816.SW
	if !errors.As(err, &sw) || sw == iso7816.OK {
		sw = iso7816.ErrUnknown
	}
	return iso7816.Response{SW: sw}
}

// link asks the linker. A linker that panics is an application at fault.
func (c *Card) link(aid iso7816.AID, data []byte) (modules map[iso7816.AID]oncard.Module, err error) {
	if c.session.linker == nil {
		return nil, nil
	}
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(powerLoss); ok {
				panic(e)
			}
			modules, err = nil, fmt.Errorf("linker: %v", e)
		}
	}()
	return c.session.linker.Link(aid, bytes.Clone(data), sha256Sum(data))
}
