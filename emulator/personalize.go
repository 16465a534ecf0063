package emulator

import (
	"bytes"
	"crypto/aes"
	"crypto/des"
	"slices"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// personalization is a sequence of STORE DATA: for an application, or a
// Security Domain, that INSTALL [for personalization] named, and else for the
// Security Domain that receives it (GPCS 11.11.1).
type personalization struct {
	entry  *entry
	target *instance // nil for a Security Domain
	block  byte      // number that the next STORE DATA must have
	// What a Security Domain has received: it takes the data of the whole
	// sequence at once.
	format    byte
	encrypted bool // all values are
	data      []byte
}

// maxStored bounds the data of one sequence to a Security Domain, in bytes.
const maxStored = 8 << 10

// installForPersonalization is INSTALL [for personalization] (GPCS
// 11.5.2.3.6, 6.7, 7.3.2). A Security Domain can be personalised so by the one
// that it is associated with, until it is PERSONALIZED.
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
	case e.own || e == sd || e.securityDomain != sd.aid || !e.selectable():
		return refuse(iso7816.ErrConditions)
	case !sd.privileges.has(privTrustedPath) || !c.state.ready(sd) || (c.state.restricted|sd.domain.restricted)&noPersonalization != 0:
		return refuse(iso7816.ErrConditions)
	}
	p := &personalization{entry: e}
	if e.domain != nil {
		if e.lifeCycle != oncard.Selectable {
			return refuse(iso7816.ErrConditions)
		}
	} else {
		i, err := c.open(e)
		if err != nil {
			return refuse(err)
		}
		if _, ok := i.app.(oncard.Personalizable); !ok || c.restrictedElsewhere(e) {
			return refuse(iso7816.ErrConditions)
		}
		p.target = i
	}
	c.at.personal = p
	return iso7816.Response{Data: []byte{0}, SW: iso7816.OK}
}

// restrictedElsewhere reports whether an application is selected on another
// logical channel and can't be run on this one too.
func (c *Card) restrictedElsewhere(e *entry) bool {
	return c.selectedElsewhere(e) && !c.multiselectable(e)
}

// Parts of P1 of STORE DATA (GPCS table 11-89).
const (
	storeLast      = 0x80
	storeEncrypted = 0x60
	storeFormat    = 0x18
	storeDGI       = 0x08
)

// storeData is STORE DATA (GPCS 11.11).
func (c *Card) storeData(sd *entry, cmd iso7816.Command) iso7816.Response {
	l := c.at
	p := l.personal
	if p == nil {
		p = &personalization{entry: sd}
		l.personal = p
	}
	if e := p.entry; e != sd && (!e.selectable() || c.state.entry(e.aid) != e || p.target != nil && c.restrictedElsewhere(e)) {
		l.personal = nil // locked or deleted since
		return refuse(iso7816.ErrConditions)
	}
	if cmd.P2 != p.block {
		p.reset()
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	p.block++
	last := cmd.P1&storeLast != 0
	if last {
		l.personal = nil
	}
	var r iso7816.Response
	if p.target != nil {
		r = c.personalize(p.target, cmd)
	} else if err := c.storeInDomain(p, cmd); err != nil {
		r = refuse(err)
	} else {
		r.SW = iso7816.OK
	}
	switch {
	case r.SW != iso7816.OK && !r.SW.Warning():
		p.reset()
		return refuse(r.SW)
	case cmd.P1&0x01 == 0 && len(r.Data) > 0:
		p.reset()
		return refuse(iso7816.ErrIncorrectP1P2) // 11.11.3.1: case 3 has no response data
	}
	return r
}

// reset begins the sequence again.
func (p *personalization) reset() { p.block, p.data = 0, nil }

func (c *Card) personalize(i *instance, cmd iso7816.Command) iso7816.Response {
	l := c.at
	l.forwarding = i
	defer func() {
		l.forwarding = nil
		c.abortApplication()
	}()
	return i.app.(oncard.Personalizable).Personalize(cmd, channel{c.at.secure})
}

// storeInDomain takes one block for a Security Domain, and with the last one
// all that came.
func (c *Card) storeInDomain(p *personalization, cmd iso7816.Command) error {
	format, encrypted := cmd.P1&storeFormat, cmd.P1&storeEncrypted == storeEncrypted
	switch {
	case format == storeFormat || cmd.P1&storeEncrypted == 0x40:
		return iso7816.ErrIncorrectP1P2 // RFU
	case cmd.P2 == 0:
		p.format, p.encrypted, p.data = format, encrypted, nil
	case format != p.format, encrypted != p.encrypted:
		return iso7816.ErrIncorrectP1P2
	}
	if len(p.data)+len(cmd.Data) > maxStored {
		return iso7816.ErrNoMemory
	}
	p.data = append(p.data, cmd.Data...)
	if cmd.P1&storeLast == 0 {
		return nil
	}
	s := &storing{card: c, entry: p.entry, next: p.entry.domain.clone(), encrypted: p.encrypted}
	var err error
	if p.format == storeDGI {
		err = s.groups(p.data)
	} else {
		err = s.objects(p.data, s.value)
	}
	if err != nil {
		return err
	}
	return c.system(func() error {
		if s.aid != (iso7816.AID{}) && s.aid != s.entry.aid {
			c.rename(s.aid)
		}
		return c.put(s.entry, s.next)
	})
}

// storing is what a sequence of STORE DATA makes of a Security Domain.
type storing struct {
	card  *Card
	entry *entry
	next  *domain
	aid   iso7816.AID // of the Issuer Security Domain, where it gets another one

	encrypted bool // every value is (b7 and b6 of P1 are 11)
}

// value is a value in the clear. Where all are encrypted, it is under the
// secure channel's data encryption key, with the padding of GPCS B.1.3 and
// B.2.3, which no table changes for data objects.
func (s *storing) value(v []byte) ([]byte, error) {
	if !s.encrypted {
		return v, nil
	}
	plain, err := s.card.at.secure.DecryptSensitive(v)
	if err != nil {
		return nil, iso7816.ErrWrongData
	}
	end := len(bytes.TrimRight(plain, "\x00")) - 1
	size := aes.BlockSize
	if s.card.at.selected.domain.protocol.Number == 2 {
		size = des.BlockSize
	}
	if end < 0 || plain[end] != 0x80 || len(plain)-end > size {
		return nil, iso7816.ErrWrongData
	}
	return plain[:end], nil
}

// objects reads data objects, each with a value of its own; those of a data
// grouping have been deciphered with it.
func (s *storing) objects(data []byte, value func([]byte) ([]byte, error)) error {
	list, err := iso7816.ParseTLVs(data)
	if err != nil {
		return iso7816.ErrWrongData
	}
	for _, t := range list {
		if t.Value, err = value(t.Value); err == nil {
			err = s.object(t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// object stores one data object (GPCS 11.11.2.3). What the card makes itself is
// refused with 6A80, what it doesn't know with 6A88. An empty one takes an
// optional object away.
func (s *storing) object(t iso7816.TLV) error {
	issuer := s.entry == s.card.state.issuer()
	switch t.Tag {
	case tagIIN, tagCIN:
		if len(t.Value) > maxIdentity || issuer && len(t.Value) == 0 {
			return iso7816.ErrWrongData
		}
	case tagManagementData:
		if len(t.Value) > 0 {
			if _, err := iso7816.ParseSingleTLV(t.Value, 0x73); err != nil {
				return iso7816.ErrWrongData
			}
		}
	case tagAID, tagCapability:
		if !issuer {
			return iso7816.ErrDataNotFound
		}
		if t.Tag == tagAID {
			return s.rename(t.Value)
		}
	case tagSecurityLevel, tagApplications, tagResources, tagConfirmations, tagSequenceCounter, tagKeyInformation:
		return iso7816.ErrWrongData
	}
	if !storable(t.Tag) {
		return iso7816.ErrDataNotFound
	}
	s.next.put(t.Tag, t.Value)
	return nil
}

// storable reports whether a Security Domain keeps a data object.
func storable(tag iso7816.Tag) bool {
	switch tag {
	case tagIIN, tagCIN, tagManagementData, tagCapability, tagManagerURL, tagProprietary, tagProprietaryGroup:
		return true
	}
	return false
}

// rename takes another AID for the Issuer Security Domain.
func (s *storing) rename(value []byte) error {
	aid, err := iso7816.NewAID(value)
	if err != nil || aid != s.entry.aid && s.card.state.taken(aid) {
		return iso7816.ErrWrongData
	}
	s.aid = aid
	return nil
}

// rename gives the Issuer Security Domain another AID, in one write.
func (c *Card) rename(to iso7816.AID) {
	from := c.state.issuer().aid
	change := func(from, to iso7816.AID) {
		c.state.issuer().aid = to
		for _, e := range c.state.entries {
			if e.securityDomain == from {
				e.securityDomain = to
			}
		}
		for _, f := range c.state.files {
			if f.securityDomain == from {
				f.securityDomain = to
			}
		}
	}
	c.change(func() { change(from, to) }, func() { change(to, from) })
}

// Data grouping identifiers of Security Domains (GPCS 11.11.2.3, 11.11.4).
const (
	dgiObjects     = 0x0070
	dgiKeys        = 0x00B9
	dgiSecretKey   = 0x8113
	dgiRSAModulus  = 0x0010
	dgiRSAExponent = 0x0011
	dgiECPublic    = 0x0036
)

// groups reads data grouping identifiers: data objects, and keys with what
// follows them.
func (s *storing) groups(data []byte) error {
	list, err := globalplatform.ParseDGIs(data)
	if err != nil {
		return iso7816.ErrWrongData
	}
	for len(list) > 0 {
		d := list[0]
		list = list[1:]
		switch d.ID {
		case dgiObjects:
			v, err := s.value(d.Value)
			if err == nil {
				err = s.objects(v, func(v []byte) ([]byte, error) { return v, nil })
			}
			if err != nil {
				return err
			}
		case dgiKeys:
			if s.encrypted {
				return iso7816.ErrWrongData // table 11-91: the description of keys is not
			}
			if list, err = s.keys(d.Value, list); err != nil {
				return err
			}
		default:
			return iso7816.ErrDataNotFound
		}
	}
	return nil
}

// described is a key component as its control reference template says it is.
type described struct {
	kind    byte
	length  int
	another bool // begins another key than the one before
	key     newKey
	value   []byte // where the template itself holds it
}

// keys reads the keys that DGI 00B9 describes from the groups after it and
// returns what is left of them.
func (s *storing) keys(description []byte, list []globalplatform.DGI) ([]globalplatform.DGI, error) {
	templates, err := iso7816.ParseTLVs(description)
	if err != nil || len(templates) == 0 {
		return nil, iso7816.ErrWrongData
	}
	var all []newKey
	for i, t := range templates {
		d, err := describe(t)
		if err != nil {
			return nil, err
		}
		if d.kind == keyTypeECParameter {
			d.another = false // it belongs to the key before
		} else {
			d.another = i == 0 || d.key.id != all[len(all)-1].id || d.key.version != all[len(all)-1].version
		}
		value := d.value
		if value == nil {
			group, ok := map[byte]uint16{
				keyTypeAES: dgiSecretKey, keyTypeDES: dgiSecretKey, keyTypeRSAModulus: dgiRSAModulus,
				keyTypeRSAExponent: dgiRSAExponent, keyTypeECPublic: dgiECPublic,
			}[d.kind]
			if !ok || len(list) == 0 || list[0].ID != group {
				return nil, iso7816.ErrWrongData
			}
			value, list = list[0].Value, list[1:]
			if group == dgiSecretKey {
				if value, err = s.card.at.secure.DecryptSensitive(value); err != nil {
					return nil, iso7816.ErrWrongData
				}
				if d.length > len(value) {
					return nil, iso7816.ErrWrongData
				}
				value = value[:d.length]
			}
			if len(value) != d.length {
				return nil, iso7816.ErrWrongData
			}
		}
		if d.another {
			all = append(all, d.key)
		} else if i == 0 {
			return nil, iso7816.ErrWrongData
		}
		k := &all[len(all)-1]
		k.components = append(k.components, component{d.kind, bytes.Clone(value)})
	}
	for _, k := range all {
		if err := k.valid(true); err != nil {
			return nil, err
		}
		if i := s.next.find(k.version, k.id); i >= 0 {
			s.next.keys = slices.Delete(s.next.keys, i, i+1)
		}
		s.next.keys = append(s.next.keys, k.key)
		s.next.setCounter(k.version, 0)
	}
	return list, nil
}

// describe reads a control reference template (GPCS tables 11-92, 11-94,
// 11-102).
func describe(t iso7816.TLV) (d described, err error) {
	if t.Tag != 0xB9 {
		return d, iso7816.ErrWrongData
	}
	objects, err := t.Children()
	if err != nil {
		return d, iso7816.ErrWrongData
	}
	fields := map[iso7816.Tag][]byte{}
	for _, o := range objects {
		least, most := 1, 1
		switch o.Tag {
		case 0x80, 0x82, 0x83, 0x96:
		case 0x81, 0x95, 0x85:
			most = 2
		case 0x84:
			least, most = 3, 3
		default:
			return d, iso7816.ErrWrongData
		}
		if fields[o.Tag] != nil || len(o.Value) < least || len(o.Value) > most {
			return d, iso7816.ErrWrongData
		}
		fields[o.Tag] = o.Value
	}
	if fields[0x80] == nil {
		return d, iso7816.ErrWrongData
	}
	d.kind = fields[0x80][0]
	if d.kind == keyTypeECParameter {
		if d.value = fields[0x85]; d.value == nil {
			return d, iso7816.ErrWrongData
		}
		return d, nil
	}
	for _, tag := range []iso7816.Tag{0x81, 0x82, 0x83, 0x95} {
		if fields[tag] == nil {
			return d, iso7816.ErrWrongData
		}
	}
	for _, b := range fields[0x81] {
		d.length = d.length<<8 | int(b)
	}
	d.key.id, d.key.version = fields[0x82][0], fields[0x83][0]
	if d.key.id > 0x7F || d.key.version < 1 || d.key.version > 0x7F {
		return d, iso7816.ErrWrongData
	}
	d.key.usage, d.key.access, d.key.check = fields[0x95], fields[0x96], fields[0x84]
	return d, nil
}
