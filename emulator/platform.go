package emulator

import (
	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

var _ oncard.Platform = (*instance)(nil)

func (i *instance) LogicalChannel() int { return i.card.at.number }

func (i *instance) Reselecting() bool { return i.card.at.reselecting == i.entry }

func (i *instance) Selected(aid iso7816.AID) bool {
	e := i.card.state.entry(aid)
	return e != nil && i.card.selectedAnywhere(e)
}

func (i *instance) SecureChannel() oncard.SecureMessaging {
	c := i.card
	switch sd := c.state.associated(i.entry); {
	case c.at.forwarding == i:
		return forwarded{channel{c.at.secure}}
	case sd == nil || c.at.selected != i.entry:
		return forwarded{channel{nil}}
	default:
		if c.at.secure == nil {
			c.at.secure = c.secureSession(sd)
		}
		return spoken{channel{c.at.secure}, c, sd}
	}
}

// securedBy returns the Security Domain that speaks on a logical channel: the
// one that is selected, or what the selected application is associated with.
func (c *Card) securedBy(l *logicalChannel) *entry {
	if l.selected.domain != nil {
		return l.selected
	}
	return c.state.associated(l.selected)
}

// speaking reports whether a Security Domain has a session on another logical
// channel: this card has one at a time.
func (c *Card) speaking(sd *entry) bool {
	return c.elsewhere(func(o *logicalChannel) bool {
		return o.secure != nil && o.secure.Authenticated() && c.securedBy(o) == sd
	})
}

// channel is the Security Domain's channel as applications see it; nil is none.
type channel struct{ s *scp.CardSession }

func (c channel) Level() byte {
	if c.s == nil || !c.s.Authenticated() {
		return 0
	}
	return 0x80 | byte(c.s.Level())
}

func (c channel) DecryptSensitive(data []byte) ([]byte, error) {
	if c.s == nil {
		return nil, scp.ErrSessionOver
	}
	return c.s.DecryptSensitive(data)
}

func (c channel) EncryptSensitive(data []byte) ([]byte, error) {
	if c.s == nil {
		return nil, scp.ErrSessionOver
	}
	return c.s.EncryptSensitive(data)
}

// forwarded is a channel that isn't the application's to speak.
type forwarded struct{ channel }

func (forwarded) Aborted() bool                                     { return false }
func (forwarded) Process(iso7816.Command) iso7816.Response          { return refuse(iso7816.ErrConditions) }
func (forwarded) Unwrap(c iso7816.Command) (iso7816.Command, error) { return c, nil }
func (forwarded) Wrap(r iso7816.Response) iso7816.Response          { return r }
func (forwarded) Reset()                                            {}

// spoken is a channel of the selected application.
type spoken struct {
	channel
	card *Card
	sd   *entry
}

func (s spoken) Aborted() bool { return s.s.Aborted() }
func (s spoken) Reset()        { s.s.Reset() }

func (s spoken) Process(cmd iso7816.Command) iso7816.Response {
	c := s.card
	switch {
	case cmd.CLA&^0x84 != 0 || cmd.CLA&0x80 == 0:
		return refuse(iso7816.ErrUnknownCLA)
	case cmd.INS != insInitializeUpdate && cmd.INS != insExternalAuthenticate:
		return refuse(iso7816.ErrUnknownINS)
	case s.sd.locked || c.tx.open() || c.speaking(s.sd):
		return refuse(iso7816.ErrConditions)
	case cmd.INS == insInitializeUpdate:
		return s.s.InitializeUpdate(cmd)
	}
	return s.s.ExternalAuthenticate(cmd)
}

func (s spoken) Unwrap(cmd iso7816.Command) (iso7816.Command, error) { return s.s.Unwrap(cmd) }
func (s spoken) Wrap(r iso7816.Response) iso7816.Response            { return s.s.Wrap(r) }
