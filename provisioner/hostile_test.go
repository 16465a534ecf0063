package provisioner_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/recipe"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/internal/hostile"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/reader"
)

// lies says how many lies of a flow are told: one of so many.
var lies = flag.Int("lies", 0, "tell hostile cards' lies: one of so many, 1 for every one; 0 for a few")

// mistrust is what the errors are that a host may have of a card that lies.
var mistrust = []error{
	scp.ErrCardCryptogram, scp.ErrResponseMAC, scp.ErrSessionOver, scp.ErrLevel, scp.ErrKeyVersion, scp.ErrCardChallenge, scp.ErrMalformedKeyInformation,
	scp.ErrProtocolNotSupported, scp.ErrKeySet,
	globalplatform.ErrMalformed, globalplatform.ErrOtherApplication, globalplatform.ErrKeyCheck, globalplatform.ErrSignature, globalplatform.ErrReceipt,
	provisioner.ErrForeign, provisioner.ErrOtherIssue, provisioner.ErrOtherCard, provisioner.ErrCardState, provisioner.ErrNotOnCard, provisioner.ErrDomain,
	provisioner.ErrNotVisible, provisioner.ErrTokenMissing, provisioner.ErrReceiptMissing, provisioner.ErrNotVerified, provisioner.ErrTooManyFailures,
	applets.ErrWrongApplication, applets.ErrNotPersonalized, applets.ErrWeakerType, applets.ErrOtherType, applets.ErrVersion, applets.ErrAuthentication,
	applets.ErrMalformedObservation, applets.ErrMalformedItems, applets.ErrMalformedRecord, applets.ErrSignature, applets.ErrNoSignature,
	applets.ErrWrongPIN, applets.ErrPINBlocked, applets.ErrMustChangePIN, applets.ErrPINRequired, recipe.ErrNotThere,
	reader.ErrNoService, reader.ErrExpired, reader.ErrOtherService,
}

// eachLie goes through the lies to a flow of that many commands: all, or as
// many as the flag says, and few of them without it.
func eachLie(t *testing.T, commands, few int, tell func(t *testing.T, at int, a hostile.Attack)) {
	t.Helper()
	attacks := hostile.Attacks(*lies == 1)
	all := commands * len(attacks)
	stride := *lies
	if stride == 0 {
		stride = max(1, all/few)
	}
	for stride > 1 && len(attacks)%stride == 0 { // else the same attacks at every command
		stride++
	}
	told := 0
	for i := 0; i < all; i += stride {
		at, a := i/len(attacks)+1, attacks[i%len(attacks)]
		told++
		if !t.Run(fmt.Sprintf("%s to command %d", a.Name, at), func(t *testing.T) { tell(t, at, a) }) && *lies == 0 {
			return
		}
	}
	t.Logf("%d of %d lies to %d commands", told, all, commands)
}

// A card that lies, at any command of any flow, is found out or does no harm:
// what the ledger says is true, and when the card is honest again, the next
// run makes everything good.
func TestHostileCards(t *testing.T) {
	for _, f := range flows() {
		t.Run(f.name, func(t *testing.T) {
			b := newBook(t)
			attempt := func(x *torn) func(context.Context, iso7816.Card) error {
				return func(ctx context.Context, card iso7816.Card) error {
					x.ctx, x.Card = ctx, card
					_, err := f.attempt(x.counter, x.request)
					x.ctx, x.Card = t.Context(), x.wire
					return err
				}
			}
			x := f.begin(t, b)
			honest := hostile.Measure(t, x.wire, attempt(x))
			eachLie(t, honest.Commands, 8, func(t *testing.T, at int, a hostile.Attack) {
				x := f.begin(t, b)
				card := &hostile.Card{Card: x.wire, Attack: a, At: at}
				err := hostile.Run(t, honest, card, mistrust, attempt(x))
				if err == nil && !x.recorded(t) {
					t.Error("done, and the ledger does not have it")
				}
				if x.recorded(t) {
					there := x.entry(x.manifest.Application.Instance) != nil // a suspended one can't be asked what it holds
					if there == x.withdrawing {
						t.Errorf("the ledger has the outcome, and the card does not: %v", err)
					}
				}
				x.interrupted(t)
				x.RetryAfterFailures = true
				x.finish(t)
			})
		})
	}
}

// A preparation likewise: the card is as it should be in the end.
func TestHostileCardsInPreparation(t *testing.T) {
	b := newBook(t)
	q := preparation(providerDomain)
	prepare := func(c *counter) func(context.Context, iso7816.Card) error {
		return func(ctx context.Context, card iso7816.Card) error {
			c.ctx, c.Card = ctx, card
			_, err := c.prepare(q)
			c.ctx, c.Card = t.Context(), c.wire
			return err
		}
	}
	c := newCounter(t, b)
	honest := hostile.Measure(t, c.wire, prepare(c))
	eachLie(t, honest.Commands, 40, func(t *testing.T, at int, a hostile.Attack) {
		c := newCounter(t, b)
		err := hostile.Run(t, honest, &hostile.Card{Card: c.wire, Attack: a, At: at}, mistrust, prepare(c))
		if e := c.entry(providerDomain); err == nil && (e == nil || e.State != globalplatform.StatePersonalized) {
			t.Errorf("prepared, and the Security Domain is %+v", e)
		}
		_, err = c.prepare(q)
		check(t, err)
		if e := c.entry(providerDomain); e.State != globalplatform.StatePersonalized || e.Privileges != delegated || e.SecurityDomain != providerDomain {
			t.Errorf("the Security Domain is %+v", e)
		}
	})
}

// A terminal never reads another ID than the card's from a service that
// authenticates the card, whatever is changed on the way.
func TestHostileCardsAtTerminals(t *testing.T) {
	b := newBook(t)
	for _, m := range []*manifest.Manifest{points, library, office, record} {
		t.Run(m.ID, func(t *testing.T) {
			c := newCounter(t, b)
			id := c.mustIssue(c.request(m)).ID
			var tap *reader.Tap
			read := func(ctx context.Context, card iso7816.Card) (err error) {
				tap, err = c.tap(ctx, card, m, "2580")
				return err
			}
			honest := hostile.Measure(t, c.emulated(), read)
			eachLie(t, honest.Commands, 300, func(t *testing.T, at int, a hostile.Attack) {
				err := hostile.Run(t, honest, &hostile.Card{Card: c.emulated(), Attack: a, At: at}, mistrust, read)
				if err == nil && tap.Authentication != applets.None && tap.ID != id {
					t.Errorf("authenticated ID %q, the card's is %q", tap.ID, id)
				}
				if errors.Is(err, context.Canceled) != (a.Late && at < honest.Commands) {
					t.Errorf("command %d of %d: %v", at, honest.Commands, err)
				}
				c.holds(m, id) // gives the tries of the PIN back too
			})
		})
	}
}
