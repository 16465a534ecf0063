package emulator

import (
	"bytes"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

const (
	insSelect        = 0xA4
	insManageChannel = 0x70
	insGetResponse   = 0xC0

	selectByName = 0x04
)

// selectByName is SELECT [by name] (GPCS 6.4.2.1.2, 6.4.3.1.2, 11.9). P2 says
// which occurrence, and with 0C that no answer but the status word is wanted
// (ISO/IEC 7816-4, 7.1.1).
func (c *Card) selectByName(cmd iso7816.Command) iso7816.Response {
	s := c.at
	switch {
	case cmd.CLA&0x0C != 0:
		return refuse(iso7816.ErrSecureMessaging)
	case cmd.CLA != 0:
		return refuse(iso7816.ErrUnknownCLA)
	case cmd.P2&^0x0E != 0 || cmd.P2&0x0C != 0 && cmd.P2&0x0C != 0x0C:
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	quiet, next := cmd.P2&0x0C != 0, cmd.P2&0x02 != 0
	if c.state.cardLocked() {
		return hush(c.selectOnLockedCard(cmd), quiet)
	}
	if len(cmd.Data) == 0 {
		return hush(c.choose(c.state.issuer(), cmd), quiet)
	}
	var candidates []*entry
	matched := 0
	if len(cmd.Data) >= 5 && len(cmd.Data) <= 16 {
		after := s.selected
		if !next {
			after = nil
		}
		candidates, matched = c.state.find(cmd.Data, after)
	}
	refusal := iso7816.Response{SW: iso7816.ErrNotFound}
	for _, e := range candidates {
		if c.busy(e) {
			refusal = refuse(iso7816.ErrConditions)
			continue
		}
		r := c.choose(e, cmd)
		if s.selected == e {
			return hush(r, quiet)
		}
		refusal = r
	}
	switch {
	case matched == 0 && !next && s.selected.domain == nil:
		return c.process(cmd)
	case len(candidates) == 0 && matched > 0 && s.selected.locked:
		// Its session ends; what is implicitly selectable follows.
		c.fallBack()
	}
	return iso7816.Response{SW: refusal.SW}
}

// selectOnLockedCard is SELECT while the card is locked or terminated: a
// supplementary logical channel is closed, and on the basic one there is only
// the Final Application.
func (c *Card) selectOnLockedCard(cmd iso7816.Command) iso7816.Response {
	if c.at.number != 0 {
		c.closeChannel(c.at.number)
		return refuse(iso7816.ErrFuncNotSupported)
	}
	final := c.state.holder(privFinalApplication)
	if c.at.selected != final {
		c.choose(final, iso7816.Select(final.aid))
	}
	named := len(cmd.Data) == 0 && final == c.state.issuer() ||
		len(cmd.Data) >= 5 && bytes.HasPrefix(final.aid.Bytes(), cmd.Data)
	if !named || c.state.issuer().lifeCycle == cardTerminated {
		return refuse(iso7816.ErrFuncNotSupported)
	}
	r := c.choose(final, cmd)
	if r.SW == iso7816.OK {
		r.SW = swCardLocked
	}
	return r
}

// swCardLocked is the warning with which the Final Application is selected
// while the card is locked (GPCS table 11-83).
const swCardLocked iso7816.SW = 0x6283

// fallBack ends the running application session and selects what is implicitly
// selectable on the channel.
func (c *Card) fallBack() {
	e := c.state.implicit(c.at.number)
	if c.busy(e) {
		e = c.state.issuer()
	}
	c.choose(e, iso7816.Select(e.aid))
}

// hush takes the data off a response.
func hush(r iso7816.Response, quiet bool) iso7816.Response {
	if quiet {
		r.Data = nil
	}
	return r
}

// choose ends the running application session and begins one with e. When e
// refuses, the Issuer Security Domain is selected.
func (c *Card) choose(e *entry, cmd iso7816.Command) iso7816.Response {
	l := c.at
	if l.selected == e {
		l.reselecting = e
		defer func() { l.reselecting = nil }()
	}
	c.leave()
	c.selectDomain(c.state.issuer())
	if e.domain != nil {
		c.selectDomain(e)
		return iso7816.Response{Data: c.domainFCI(e), SW: iso7816.OK}
	}
	i, err := c.open(e)
	if err != nil {
		return refuse(err)
	}
	defer c.abortApplication()
	var r iso7816.Response
	if app, ok := i.app.(oncard.ChannelSelectable); ok && c.contextElsewhere(e) {
		r = app.SelectShared(cmd, c.selectedElsewhere(e))
	} else {
		r = i.app.Select(cmd)
	}
	selected := r.SW == iso7816.OK || r.SW.Warning()
	if s, ok := i.app.(oncard.Selective); ok {
		selected = s.Selected()
	}
	if selected {
		c.endDomainSession()
		c.at.selected = e
	} else {
		i.deselected()
	}
	return r
}

// leave ends the application session of what is selected. What is selected on
// another logical channel too goes on there, and is told only if it asked for
// that.
func (c *Card) leave() {
	s := c.session
	left := c.at.selected
	if i := s.running[left]; i != nil {
		still := c.selectedElsewhere(left)
		if app, ok := i.app.(oncard.ChannelSelectable); ok && c.contextElsewhere(left) {
			c.deselect(func() { app.DeselectShared(still) })
		} else if !still {
			c.deselect(i.app.Deselect)
			i.deselected()
		}
	}
	for e, i := range s.running {
		if !c.selectedElsewhere(e) {
			i.deselected()
		}
	}
}

// deselect tells an application. It has no say: what it throws changes
// nothing, or a faulty application could keep the card for itself.
func (c *Card) deselect(tell func()) {
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(powerLoss); ok {
				panic(e)
			}
		}
		c.abortApplication()
	}()
	tell()
}
