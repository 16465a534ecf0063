package reader

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Service is a service to look for on cards.
type Service struct {
	// ID is the service's id, as its manifest and EF.ID name it.
	ID string
	// Profile is the type that the manifest asks for; a card that offers less
	// is refused.
	Profile applets.Profile
	// Instance is the AID of the service's instance.
	Instance iso7816.AID
	// ReadKey names the master of the read keys, Diversification the method
	// by which a card's keys follow from it: profiles with mutual
	// authentication only. Version 0 is the newest that card and store have in
	// common.
	ReadKey         keys.Ref
	Diversification keys.Method
	// IssuerKey checks the issuer's signature; an ID without one is then
	// refused. nil: signatures are not checked.
	IssuerKey ed25519.PublicKey
	// Items asks for the further items too, where the profile has them.
	Items bool
}

// Options of a reader.
type Options struct {
	// Services in order of priority: the first that a card has is read.
	Services []Service
	// Keys answers for read keys. It may be nil when no service needs one.
	Keys keys.Store
	// PIN asks for the card's PIN, which the reader erases after use. It may
	// wait for a person: a shared card is given back meanwhile, and the
	// context ends when the card leaves its slot. nil: a card that wants a PIN
	// is refused with [ErrPINNeeded].
	PIN func(ctx context.Context, q PINQuestion) (applets.PIN, error)
	// PINAtHand tells that PIN answers at once, because it was entered before
	// the card was presented. A tap of a shared card then takes 3 commands;
	// otherwise it is begun again after the question, which makes 5.
	PINAtHand bool
	// Standard opens SCP03 channels instead of express reading.
	Standard bool
	// Debounce is for how long the same ID on the same slot counts as the same
	// tap in [Reader.Taps], counted from when it was last read: a card that is
	// held badly comes and goes. 0: every insertion of a card is a tap.
	Debounce time.Duration
	// Clock is the time; nil is time.Now.
	Clock func() time.Time
	// Location is where expiry dates are meant: an ID is good until the named
	// day ends there. nil is Japan (UTC+9).
	Location *time.Location
	// Rand is the source of challenges and of tap ids, used by several
	// goroutines; nil is crypto/rand.
	Rand io.Reader
}

// PINQuestion says whose PIN is wanted.
type PINQuestion struct {
	Slot    string // "" outside of Taps
	Service string
}

// Reader reads IDs from cards. Its methods can be called from several goroutines.
type Reader struct{ o Options }

// New returns a reader. It refuses services that can't be read: without id, AID
// or profile, without a key or with an unknown diversification where the
// profile demands mutual authentication, or two with the same instance.
func New(o Options) (*Reader, error) {
	if len(o.Services) == 0 {
		return nil, errors.New("reader without services")
	}
	o.Services = slices.Clone(o.Services)
	for i, s := range o.Services {
		switch {
		case s.ID == "":
			return nil, fmt.Errorf("service %d has no id", i+1)
		case s.Profile == nil:
			return nil, fmt.Errorf("service %s has no profile", s.ID)
		case s.Instance.IsZero():
			return nil, fmt.Errorf("service %s has no instance AID", s.ID)
		case s.IssuerKey != nil && len(s.IssuerKey) != ed25519.PublicKeySize:
			return nil, fmt.Errorf("service %s has an issuer's key of %d bytes, %d expected", s.ID, len(s.IssuerKey), ed25519.PublicKeySize)
		case slices.ContainsFunc(o.Services[:i], func(t Service) bool { return t.Instance == s.Instance }):
			return nil, fmt.Errorf("service %s has the instance AID %v of another", s.ID, s.Instance)
		}
		if !s.Profile.Traits().MutualAuthentication {
			continue
		}
		switch {
		case o.Keys == nil:
			return nil, fmt.Errorf("service %s needs a read key, and there is no key store", s.ID)
		case s.ReadKey.Name == "":
			return nil, fmt.Errorf("service %s has no read key", s.ID)
		}
		if err := keys.CheckMethod(keys.Read, s.Diversification); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.ID, err)
		}
	}
	if o.Debounce < 0 {
		return nil, fmt.Errorf("debounce of %v", o.Debounce)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Location == nil {
		o.Location = time.FixedZone("JST", 9*60*60)
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	return &Reader{o}, nil
}

// Read reads the card: the first of the services that it has, in one
// transaction where the card offers them ([iso7816.Transactor]). See the
// errors of this package.
func (r *Reader) Read(ctx context.Context, card iso7816.Card) (*Tap, error) {
	return r.read(ctx, card, "")
}

// errAskFirst stops a reading in which a person has to be asked for a PIN
// while the transaction keeps the card from other programs.
var errAskFirst = errors.New("PIN has to be asked for outside of the transaction")

func (r *Reader) read(ctx context.Context, card iso7816.Card, slot string) (*Tap, error) {
	a := &attempt{Reader: r, card: &meter{Card: card}, slot: slot, began: r.o.Clock()}
	shared, ok := card.(iso7816.Transactor)
	if !ok {
		return a.first(ctx, r.o.Services, a.ask)
	}
	pin := a.ask
	if r.o.PIN != nil && !r.o.PINAtHand {
		pin = func(context.Context, Service) (applets.PIN, error) { return applets.PIN{}, errAskFirst }
	}
	tap, err := a.alone(ctx, shared, r.o.Services, pin)
	if !errors.Is(err, errAskFirst) {
		return tap, err
	}
	service := r.o.Services[a.index]
	known, err := a.ask(ctx, service)
	if err != nil {
		return nil, &ServiceError{service.ID, err}
	}
	defer known.Erase()
	return a.alone(ctx, shared, []Service{service}, func(context.Context, Service) (applets.PIN, error) { return known, nil })
}

// attempt is one reading of one card.
type attempt struct {
	*Reader
	card   *meter
	slot   string
	began  time.Time
	waited time.Duration // for a person
	index  int           // of the service that was tried last
}

// asker finds the PIN for a service.
type asker func(ctx context.Context, s Service) (applets.PIN, error)

// ask asks the caller.
func (a *attempt) ask(ctx context.Context, s Service) (applets.PIN, error) {
	if a.o.PIN == nil {
		return applets.PIN{}, ErrPINNeeded
	}
	began := a.o.Clock()
	pin, err := a.o.PIN(ctx, PINQuestion{Slot: a.slot, Service: s.ID})
	a.waited += a.o.Clock().Sub(began)
	return pin, err
}

// alone reads within a transaction.
func (a *attempt) alone(ctx context.Context, card iso7816.Transactor, services []Service, pin asker) (*Tap, error) {
	if err := card.Begin(ctx); err != nil {
		return nil, err
	}
	tap, err := a.first(ctx, services, pin)
	// What was read was read, and the first error is the one to tell,
	// whatever becomes of giving the card back.
	_ = card.End()
	return tap, err
}

// first reads the first of the services that the card has. An instance that
// holds nothing (not personalised yet, or withdrawn) counts as absent while
// there is another service to try.
func (a *attempt) first(ctx context.Context, services []Service, pin asker) (*Tap, error) {
	absent := ErrNoService
	for i, s := range services {
		a.index = i
		tap, err := a.service(ctx, s, pin)
		switch {
		case err == nil:
			return tap, nil
		case errors.Is(err, applets.ErrNotPersonalized):
			if absent == ErrNoService {
				absent = &ServiceError{s.ID, err}
			}
		case Missing(err):
		default:
			return nil, &ServiceError{s.ID, err}
		}
	}
	return nil, absent
}

// Missing reports whether an error of a SELECT by AID tells that the card does
// not have the instance, or has it locked: it said so, the application selected before answered in its place
// (GPCS 6.4.2.1.2), or it is a card that knows no SELECT by AID at all.
func Missing(err error) bool {
	var status *iso7816.StatusError
	switch {
	case errors.Is(err, applets.ErrWrongApplication):
		return true
	case !errors.As(err, &status) || status.Header != selectByAID:
		return false
	}
	switch status.SW {
	case iso7816.ErrNotFound, iso7816.ErrFuncNotSupported, iso7816.ErrIncorrectP1P2, iso7816.ErrUnknownINS, iso7816.ErrUnknownCLA:
		return true
	}
	return false
}

var selectByAID = iso7816.Select(iso7816.AID{}).Header()

// service reads one service.
func (a *attempt) service(ctx context.Context, s Service, pin asker) (*Tap, error) {
	request := applets.ReadRequest{
		AID:       s.Instance,
		Service:   s.ID,
		WantItems: s.Items && s.Profile.Traits().Items,
		Rand:      a.o.Rand,
		Standard:  a.o.Standard,
	}
	if a.o.Keys != nil {
		request.Keys = a.keys(s)
	}
	var used applets.PIN
	request.PIN = func(ctx context.Context) (p applets.PIN, err error) {
		used, err = pin(ctx, s)
		return used, err
	}
	defer func() { used.Erase() }()
	reading, err := s.Profile.Read(ctx, a.card, request)
	if err != nil {
		return nil, err
	}
	record := reading.Record
	now := a.o.Clock()
	signature := Unsigned
	if record.Signature != nil {
		signature = Unchecked
	}
	if s.IssuerKey != nil {
		if err := record.Verify(s.IssuerKey, s.Instance); err != nil {
			return nil, err
		}
		signature = Verified
	}
	if record.Service != s.ID {
		return nil, fmt.Errorf("%w: it is of %s", ErrOtherService, record.Service)
	}
	if record.Expired(now.In(a.o.Location)) {
		return nil, fmt.Errorf("%w: it was good until %s", ErrExpired, record.Expiry.Format(time.DateOnly))
	}
	var id [16]byte
	if _, err := io.ReadFull(a.o.Rand, id[:]); err != nil {
		return nil, fmt.Errorf("tap id: %w", err)
	}
	return &Tap{
		TapID: hex.EncodeToString(id[:]), Slot: a.slot, At: now, Duration: now.Sub(a.began) - a.waited,
		Service: s.ID, Profile: s.Profile.Name(), Instance: s.Instance,
		ID: record.ID, IssueNumber: record.IssueNumber, Expiry: record.Expiry, Items: reading.Items,
		Authentication: reading.Authentication, Signature: signature, KeyVersion: reading.KeyVersion,
		PIN: reading.PINVerified, Commands: a.card.commands, Bytes: a.card.bytes,
	}, nil
}

// keys answers for the read keys of a service.
func (a *attempt) keys(s Service) applets.KeysFunc {
	find := applets.StoreKeys(a.o.Keys, s.ReadKey.Name, s.Diversification)
	if s.ReadKey.Version == 0 {
		return find
	}
	return func(ctx context.Context, info applets.ApplicationInfo) (keys.Set, error) {
		if !slices.Contains(info.KeyVersions, s.ReadKey.Version) {
			return keys.Set{}, fmt.Errorf("%w: version %d is not on the card", ErrNoReadKey, s.ReadKey.Version)
		}
		info.KeyVersions = []byte{s.ReadKey.Version}
		return find(ctx, info)
	}
}

// meter counts what goes over the air.
type meter struct {
	iso7816.Card
	commands, bytes int
}

// Transmit implements iso7816.Card.
func (m *meter) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	m.commands++
	m.bytes += len(command)
	response, err := m.Card.Transmit(ctx, command)
	m.bytes += len(response)
	return response, err
}

// ExtendedLength implements iso7816.ExtendedLength.
func (m *meter) ExtendedLength() bool {
	x, ok := m.Card.(iso7816.ExtendedLength)
	return ok && x.ExtendedLength()
}
