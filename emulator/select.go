package emulator

import "github.com/freearea/freearea/iso7816"

const (
	insSelect      = 0xA4
	insGetResponse = 0xC0

	selectByName = 0x04
)

// selectByName is SELECT [by name] (GPCS 6.4.2.1.2, 11.9). P2 says which
// occurrence, and with 0C that no answer but the status word is wanted
// (ISO/IEC 7816-4, 7.1.1).
func (c *Card) selectByName(cmd iso7816.Command) iso7816.Response {
	s := c.session
	switch {
	case cmd.CLA&0x43 != 0:
		return refuse(iso7816.ErrLogicalChannel)
	case cmd.CLA&0x0C != 0:
		return refuse(iso7816.ErrSecureMessaging)
	case cmd.CLA != 0:
		return refuse(iso7816.ErrUnknownCLA)
	case cmd.P2&^0x0E != 0 || cmd.P2&0x0C != 0 && cmd.P2&0x0C != 0x0C:
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	quiet, next := cmd.P2&0x0C != 0, cmd.P2&0x02 != 0
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
		r := c.choose(e, cmd)
		if r.SW == iso7816.OK || r.SW.Warning() {
			return hush(r, quiet)
		}
		refusal = r
	}
	switch {
	case matched == 0 && !next && !s.selected.privileges.securityDomain():
		return c.process(cmd)
	case len(candidates) == 0 && matched > 0 && s.selected.locked:
		// Its session ends; what is implicitly selectable follows.
		c.leave()
		c.selectDomain(c.state.issuer())
	}
	return iso7816.Response{SW: refusal.SW}
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
	c.leave()
	c.selectDomain(c.state.issuer())
	if e.privileges.securityDomain() {
		c.selectDomain(e)
		return iso7816.Response{Data: c.domainFCI(e), SW: iso7816.OK}
	}
	i, err := c.open(e)
	if err != nil {
		return refuse(err)
	}
	defer c.abortApplication()
	r := i.app.Select(cmd)
	if r.SW == iso7816.OK || r.SW.Warning() {
		c.endDomainSession()
		c.session.selected = e
	} else {
		i.deselected()
	}
	return r
}

// leave ends the application session of what is selected.
func (c *Card) leave() {
	s := c.session
	if i := s.running[s.selected]; i != nil {
		c.deselect(i)
		i.deselected()
	}
	for _, i := range s.running {
		i.deselected()
	}
}

// deselect tells the application. It has no say: what it throws changes
// nothing, or a faulty application could keep the card for itself.
func (c *Card) deselect(i *instance) {
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(powerLoss); ok {
				panic(e)
			}
		}
		c.abortApplication()
	}()
	i.app.Deselect()
}
