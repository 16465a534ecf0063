package reader

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"iter"
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
	// authentication only.
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
	// PIN asks for the card's PIN. It may wait for a person: a shared card is
	// given back meanwhile, and the context ends when the card leaves. nil: a
	// card that wants a PIN is refused with [ErrPINNeeded].
	PIN func(ctx context.Context, q PINQuestion) (applets.PIN, error)
	// Standard opens SCP03 channels instead of express reading.
	Standard bool
	// Clock is the time; nil is time.Now.
	Clock func() time.Time
	// Location is where expiry dates are meant: an ID expires when the named
	// day ends there. nil is Japan (UTC+9).
	Location *time.Location
	// Rand is the source of challenges; nil is crypto/rand.
	Rand io.Reader
}

// PINQuestion says whose PIN is wanted.
type PINQuestion struct {
	Slot    string // "" outside of Taps
	Service string
}

// Errors of a reading. They can be told apart with errors.Is; a card that
// left is [iso7816.ErrCardRemoved], a wrong PIN a [*applets.ErrPIN].
var (
	// ErrNoService: none of the services is on the card.
	ErrNoService = errors.New("no service of ours on the card")
	// ErrSignature: the ID bears no signature of the issuer, or a forged one.
	ErrSignature = errors.New("issuer's signature does not verify")
	// ErrExpired: the ID's expiry date has passed.
	ErrExpired = errors.New("ID has expired")
	// ErrPINNeeded: the card wants a PIN, and there is nobody to ask.
	ErrPINNeeded = errors.New("a PIN is needed")
)

// Reader reads IDs from cards. Its methods can be called from several goroutines.
type Reader struct{ o Options }

// New returns a reader. It refuses services that can't be read: without AID or
// profile, without a key or with an unknown diversification where the profile
// demands mutual authentication, or twice the same instance.
func New(o Options) (*Reader, error) { panic("in work") }

// Read reads the card: the first of the services that it has, in one
// transaction where the card offers them. It never repeats an authentication.
func (r *Reader) Read(ctx context.Context, card iso7816.Card) (*Tap, error) { panic("in work") }

// Taps waits for cards in all slots of the source, slots that appear later
// included, and yields what each card answered: a tap, or a [*TapError]. A
// card that stays in its slot is one tap. Errors of cards do not end the
// sequence; an error of the source is yielded once and does. It ends when the
// context does; every goroutine of its own has ended then.
func (r *Reader) Taps(ctx context.Context, source iso7816.Source) iter.Seq2[*Tap, error] {
	panic("in work")
}
