package globalplatform

import (
	"context"
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// ErrTransition reports a change of a life cycle state that chapter 5 does
// not know. Nothing has been sent.
var ErrTransition = errors.New("no such life cycle transition")

// CheckCardTransition reports whether the card can go from one life cycle
// state to another by SET STATUS (5.1): step by step to SECURED, from there to
// CARD_LOCKED and back, and to TERMINATED from every other. A state to itself
// is an error too, as the card refuses it. Host and card use it.
func CheckCardTransition(from, to byte) error {
	switch {
	case to == CardTerminated && from != CardTerminated,
		from == CardOPReady && to == CardInitialized,
		from == CardInitialized && to == CardSecured,
		from == CardSecured && to == CardLocked,
		from == CardLocked && to == CardSecured:
		return nil
	}
	return fmt.Errorf("%w: card from %02X to %02X", ErrTransition, from, to)
}

// CheckTransition reports whether SET STATUS can take an application from one
// life cycle state to another: by itself (own) to any application specific
// state or to LOCKED (figure 5-2), a Security Domain by itself to PERSONALIZED
// or to LOCKED (5.3.2.6); by others to LOCKED, and back, which is all that
// bit 8 of to says (11.10.2.2). Host and card use it.
func CheckTransition(from, to byte, domain, own bool) error {
	fail := func() error {
		return fmt.Errorf("%w: application from %02X to %02X", ErrTransition, from, to)
	}
	locks, locked := to&StateLocked != 0, from&StateLocked != 0
	switch {
	case !own:
		if locks == locked {
			return fail()
		}
	case locked: // only others unlock
		return fail()
	case locks:
	case from&StateSelectable != StateSelectable || to == from:
		return fail() // not selectable yet, and INSTALL makes it so
	case domain:
		if to != StatePersonalized {
			return fail()
		}
	case to&StateSelectable != StateSelectable || to == StateSelectable:
		return fail() // application specific states have bits 3 to 1 set, and there is no way back
	}
	return nil
}

// SetCardStatus takes the card to a life cycle state through the selected
// Security Domain: CardInitialized, CardSecured, CardLocked or CardTerminated,
// which can't be taken back. The state is read first; a card that is there
// already is left as it is. A transition that chapter 5 does not know wraps
// [ErrTransition]. A Security Domain without Card Lock or Card Terminate is
// refused by the card.
func SetCardStatus(ctx context.Context, s iso7816.Sender, to byte) error {
	entries, err := GetStatus(ctx, s, ScopeIssuerSecurityDomain, iso7816.AID{})
	if err != nil {
		return err
	}
	if len(entries) != 1 {
		return malformed("%d entries for the Issuer Security Domain", len(entries))
	}
	from := entries[0].State
	if from == to {
		return nil
	}
	if err := CheckCardTransition(from, to); err != nil {
		return err
	}
	return setStatus(ctx, s, SetStatus{Type: StatusCard, State: to, AID: entries[0].AID})
}

// LockCard, UnlockCard and TerminateCard are [SetCardStatus] to CARD_LOCKED,
// back to SECURED, and to TERMINATED, which ends the card for good.
func LockCard(ctx context.Context, s iso7816.Sender) error {
	return SetCardStatus(ctx, s, CardLocked)
}

// UnlockCard takes a locked card back to SECURED; see [LockCard].
func UnlockCard(ctx context.Context, s iso7816.Sender) error {
	entries, err := GetStatus(ctx, s, ScopeIssuerSecurityDomain, iso7816.AID{})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.State != CardLocked && e.State != CardSecured {
			return fmt.Errorf("%w: the card is not locked but in state %02X", ErrTransition, e.State)
		}
	}
	return SetCardStatus(ctx, s, CardSecured)
}

// TerminateCard ends the card for good; see [LockCard].
func TerminateCard(ctx context.Context, s iso7816.Sender) error {
	return SetCardStatus(ctx, s, CardTerminated)
}

// SetLocked locks an application or supplementary Security Domain, or brings
// it back to the state before. Its state is read first; one that is there
// already is left as it is. An application that the selected Security Domain
// can't see is [iso7816.ErrDataNotFound]: it need not be absent.
func SetLocked(ctx context.Context, s iso7816.Sender, aid iso7816.AID, locked bool) error {
	entries, err := GetStatus(ctx, s, ScopeApplications, aid)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.AID != aid {
			continue
		}
		if e.Locked() == locked {
			return nil
		}
		c := Unlock(aid)
		if locked {
			c = Lock(aid)
		}
		return setStatus(ctx, s, c)
	}
	return fmt.Errorf("application %v: %w", aid, iso7816.ErrDataNotFound)
}

// SetDomainLocked locks or unlocks a Security Domain and all that is
// associated with it, directly or not (table 11-86). The card takes those that
// are there already as they are, so nothing is read first.
func SetDomainLocked(ctx context.Context, s iso7816.Sender, domain iso7816.AID, locked bool) error {
	c := SetStatus{Type: StatusDomainAndApplications, AID: domain}
	if locked {
		c.State = StateLocked
	}
	return setStatus(ctx, s, c)
}

func setStatus(ctx context.Context, s iso7816.Sender, c SetStatus) error {
	cmd, err := c.Command()
	if err != nil {
		return err
	}
	_, err = iso7816.Do(ctx, s, cmd)
	return err
}
