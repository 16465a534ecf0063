package emulator

import (
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// maxChannels is how many logical channels there can be, the basic one
// included (GPCS 11.1.4).
const maxChannels = 20

// session is what a card forgets without power.
type session struct {
	channels [maxChannels]*logicalChannel // nil where closed; the basic one is open always
	running  map[*entry]*instance
	linker   oncard.Linker  // the card's, or its runtime
	runtime  oncard.Runtime // nil where the linker has none
	// fresh says that the application that is implicitly selected on the basic
	// channel hasn't been told so yet: it is, with the first command.
	fresh bool
	cvm   cvmResult
}

// logicalChannel is an open logical channel with what is selected on it.
type logicalChannel struct {
	number      int
	selected    *entry
	reselecting *entry     // selected by a SELECT that found it selected
	rest        []byte     // of a response, for GET RESPONSE
	restSW      iso7816.SW // after the last of it
	held        *held      // with T=0

	// secure is the side of the selected Security Domain, or of the one that the
	// selected application is associated with: nil until the application asks.
	secure     *scp.CardSession
	forwarding *instance // what the selected Security Domain hands STORE DATA to

	// Of the selected Security Domain.
	chain    globalplatform.Chain
	loading  *loading
	personal *personalization
	listing  *listing
}

// elsewhere calls f with every other open logical channel until it returns
// true, and reports whether it did.
func (c *Card) elsewhere(f func(*logicalChannel) bool) bool {
	for _, l := range c.session.channels {
		if l != nil && l != c.at && f(l) {
			return true
		}
	}
	return false
}

// selectedElsewhere reports whether an application is selected on another
// logical channel.
func (c *Card) selectedElsewhere(e *entry) bool {
	return c.elsewhere(func(l *logicalChannel) bool { return l.selected == e })
}

// selectedAnywhere reports whether an application is selected.
func (c *Card) selectedAnywhere(e *entry) bool { return c.at.selected == e || c.selectedElsewhere(e) }

// multiselectable reports whether an application can be selected on several
// logical channels at once. Security Domains can.
func (c *Card) multiselectable(e *entry) bool {
	if e.domain != nil {
		return true
	}
	i, err := c.open(e)
	if err != nil {
		return false
	}
	_, ok := i.app.(oncard.MultiSelectable)
	return ok
}

// together reports whether two applications share one context: those of one
// load file do.
func together(a, b *entry) bool {
	return a == b || a.domain == nil && b.domain == nil && !a.file.IsZero() && a.file == b.file
}

// contextElsewhere reports whether an application, or another one of its load
// file, is selected on another logical channel.
func (c *Card) contextElsewhere(e *entry) bool {
	return c.elsewhere(func(l *logicalChannel) bool { return together(l.selected, e) })
}

// busy reports whether another logical channel keeps an application from being
// selected: the applications of one load file share one context, which is
// active on several channels only if all of them can be.
func (c *Card) busy(e *entry) bool {
	return e.domain == nil && c.elsewhere(func(l *logicalChannel) bool {
		o := l.selected
		return together(o, e) && !(c.multiselectable(e) && c.multiselectable(o))
	})
}

// address reads the logical channel from a class byte, and returns the class
// without it, as on the basic channel (GPCS 11.1.4). Classes that are coded
// otherwise are for the basic channel.
func address(cla byte) (number int, plain byte) {
	if cla&0x60 == 0x20 {
		return 0, cla
	}
	n, plain := globalplatform.ClassChannel(cla)
	return int(n), plain
}

// manageChannel is MANAGE CHANNEL (GPCS 6.4.2.2, 6.4.3.2, 11.7).
func (c *Card) manageChannel(cmd iso7816.Command) iso7816.Response {
	switch {
	case cmd.CLA&0x0C != 0:
		return refuse(iso7816.ErrSecureMessaging)
	case cmd.CLA != 0:
		return refuse(iso7816.ErrUnknownCLA)
	case len(cmd.Data) != 0:
		return refuse(iso7816.ErrWrongLength)
	}
	number := int(cmd.P2)
	switch {
	case cmd.P1 == 0x80 && number > 0 && number < c.state.profile.LogicalChannels:
		return c.closeChannel(number)
	case cmd.P1 != 0x00 || number >= c.state.profile.LogicalChannels && number != 0:
		return refuse(iso7816.ErrIncorrectP1P2)
	case c.state.cardLocked():
		return refuse(iso7816.ErrFuncNotSupported)
	}
	if number == 0 {
		for number = 1; number < c.state.profile.LogicalChannels && c.session.channels[number] != nil; number++ {
		}
	}
	if number >= c.state.profile.LogicalChannels || c.session.channels[number] != nil {
		return refuse(iso7816.ErrFuncNotSupported)
	}
	e := c.at.selected
	if c.at.number == 0 {
		e = c.state.implicit(number)
	}
	return c.openChannel(number, e)
}

// openChannel opens a logical channel with an application selected on it.
func (c *Card) openChannel(number int, e *entry) iso7816.Response {
	from := c.at
	c.at = &logicalChannel{number: number, selected: c.state.issuer()}
	opened := c.at
	defer func() { c.at = from }()
	if c.busy(e) {
		return refuse(iso7816.ErrConditions)
	}
	c.session.channels[number] = opened
	if c.choose(e, iso7816.Select(e.aid)); opened.selected != e {
		c.session.channels[number] = nil
		return refuse(iso7816.ErrConditions)
	}
	return iso7816.Response{Data: []byte{byte(number)}, SW: iso7816.OK}
}

// closeChannel ends the application session on a supplementary logical channel
// and closes it.
func (c *Card) closeChannel(number int) iso7816.Response {
	l := c.session.channels[number]
	if l == nil {
		return iso7816.Response{SW: iso7816.ErrUnchanged}
	}
	from := c.at
	c.at = l
	c.leave()
	c.endDomainSession()
	c.at = from
	c.session.channels[number] = nil
	return iso7816.Response{SW: iso7816.OK}
}

// implicit returns the application that is implicitly selectable on a logical
// channel of the card's interface (GPCS 6.4.1).
func (s *state) implicit(number int) *entry {
	on := byte(0x40) // contact
	if s.profile.Contactless {
		on = 0x80
	}
	find := func(number int) *entry {
		for _, e := range s.entries {
			for _, b := range e.implicit {
				if b&on != 0 && int(b&0x1F) == number {
					return e
				}
			}
		}
		return nil
	}
	e := find(number)
	if e == nil && number != 0 {
		e = find(0)
	}
	if e == nil {
		e = s.holder(privCardReset)
	}
	if !e.selectable() {
		e = s.holder(privFinalApplication)
	}
	return e
}
