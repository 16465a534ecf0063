package emulator

import (
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// personalization is a personalisation session (GPCS 11.11.1): STORE DATA goes
// to the application until the last block.
type personalization struct {
	target *instance
	block  byte // number that the next STORE DATA must have
}

// installForPersonalization is INSTALL [for personalization] (GPCS
// 11.5.2.3.6).
func (c *Card) installForPersonalization(sd *entry, f *fields) iso7816.Response {
	f.empty()
	f.empty()
	aid := f.aid()
	f.empty()
	f.empty()
	f.empty()
	if !f.end() {
		return refuse(iso7816.ErrWrongData)
	}
	e := c.state.entry(aid)
	switch {
	case e == nil:
		return refuse(iso7816.ErrDataNotFound)
	case e.own || e.securityDomain != sd.aid || !e.selectable():
		return refuse(iso7816.ErrConditions)
	}
	i, err := c.open(e)
	if err != nil {
		return refuse(err)
	}
	if _, ok := i.app.(oncard.Personalizable); !ok {
		return refuse(iso7816.ErrConditions)
	}
	c.session.personal = &personalization{target: i}
	return iso7816.Response{Data: []byte{0}, SW: iso7816.OK}
}

// storeData is STORE DATA (GPCS 11.11), forwarded to the application being
// personalised. The Security Domain itself takes none: its data is set when the
// card is made.
func (c *Card) storeData(_ *entry, cmd iso7816.Command) iso7816.Response {
	s := c.session
	p := s.personal
	if p == nil {
		return refuse(iso7816.ErrConditions)
	}
	if e := p.target.entry; !e.selectable() || c.state.entry(e.aid) != e {
		s.personal = nil // locked or deleted since
		return refuse(iso7816.ErrConditions)
	}
	if cmd.P2 != p.block {
		p.block = 0
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	p.block++
	if cmd.P1&0x80 != 0 {
		s.personal = nil
	}
	r := c.personalize(p.target, cmd)
	switch {
	case r.SW != iso7816.OK && !r.SW.Warning():
		p.block = 0
		return refuse(r.SW)
	case cmd.P1&0x01 == 0 && len(r.Data) > 0:
		p.block = 0
		return refuse(iso7816.ErrIncorrectP1P2) // 11.11.3.1: case 3 has no response data
	}
	return r
}

func (c *Card) personalize(i *instance, cmd iso7816.Command) iso7816.Response {
	defer c.abortApplication()
	return i.app.(oncard.Personalizable).Personalize(cmd, channel{c.session.channel})
}
