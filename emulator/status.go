package emulator

import (
	"bytes"

	"github.com/freearea/freearea/iso7816"
)

// Scopes of GET STATUS (GPCS table 11-33).
const (
	scopeIssuer       = 0x80
	scopeApplications = 0x40
	scopeFiles        = 0x20
	scopeModules      = 0x10
)

// fileLoaded is the only life cycle state of a load file (GPCS table 11-3).
const fileLoaded = 0x01

// listing is what GET STATUS [get next occurrence(s)] goes on with.
type listing struct {
	scope    byte
	criteria []byte
	rest     []byte   // of a template longer than a response
	left     [][]byte // templates E3 to come
}

// getStatus is GET STATUS (GPCS 11.4), response structure of tables 11-36 and
// 11-37.
func (c *Card) getStatus(sd *entry, cmd iso7816.Command) iso7816.Response {
	s := c.at
	next := cmd.P2&0x01 != 0
	switch cmd.P1 {
	case scopeIssuer:
		if next {
			return refuse(iso7816.ErrIncorrectP1P2)
		}
	case scopeApplications, scopeFiles, scopeModules:
	default:
		return refuse(iso7816.ErrIncorrectP1P2)
	}
	if cmd.P2&0x02 == 0 {
		return refuse(iso7816.ErrIncorrectP1P2) // the older structure
	}
	if next {
		if l := s.listing; l == nil || l.scope != cmd.P1 || !bytes.Equal(l.criteria, cmd.Data) {
			return refuse(iso7816.ErrConditions)
		}
		return c.list(cmd.Ne)
	}
	s.listing = nil
	prefix, tags, err := searchCriteria(cmd.Data)
	if err != nil {
		return refuse(iso7816.ErrWrongData)
	}
	l := &listing{scope: cmd.P1, criteria: cmd.Data}
	add := func(aid iso7816.AID, objects []iso7816.TLV) {
		if cmd.P1 != scopeIssuer && !bytes.HasPrefix(aid.Bytes(), prefix) {
			return
		}
		var template []byte
		for _, o := range objects {
			if tags == nil || tags[o.Tag] {
				template = append(template, o.Encode()...)
			}
		}
		l.left = append(l.left, iso7816.AppendTLV(nil, 0xE3, template))
	}
	switch cmd.P1 {
	case scopeIssuer:
		if sd != c.state.issuer() && !sd.privileges.has(privGlobalRegistry) {
			return refuse(iso7816.ErrDataNotFound)
		}
		add(c.state.issuer().aid, c.state.issuer().status())
	case scopeApplications:
		for _, e := range c.state.entries {
			if e != c.state.issuer() && (e == sd || c.visible(sd, e.securityDomain)) {
				add(e.aid, e.status())
			}
		}
	default:
		for _, f := range c.state.files {
			if c.visible(sd, f.securityDomain) {
				add(f.aid, f.status(cmd.P1 == scopeModules))
			}
		}
	}
	if len(l.left) == 0 {
		return refuse(iso7816.ErrDataNotFound)
	}
	s.listing = l
	return c.list(cmd.Ne)
}

// visible reports whether a Security Domain sees what is associated with
// another (GPCS 11.4.2.3).
func (c *Card) visible(sd *entry, of iso7816.AID) bool {
	return sd.privileges.has(privGlobalRegistry) || c.state.below(of, sd)
}

// list answers with as many templates as fit under the secure channel, which
// ne says. A template that is longer than a response goes on in the next one.
func (c *Card) list(ne int) iso7816.Response {
	l, limit := c.at.listing, min(ne, iso7816.MaxShortNe)
	if ne == 0 {
		limit = iso7816.MaxShortNe
	}
	out := l.rest
	for len(l.left) > 0 && (len(out) == 0 || len(out)+len(l.left[0]) <= limit) {
		out = append(out[:len(out):len(out)], l.left[0]...)
		l.left = l.left[1:]
	}
	l.rest = nil
	if len(out) > limit {
		out, l.rest = out[:limit], out[limit:]
	}
	if len(l.left) > 0 || len(l.rest) > 0 {
		return iso7816.Response{Data: out, SW: iso7816.SWMoreData}
	}
	c.at.listing = nil
	return iso7816.Response{Data: out, SW: iso7816.OK}
}

// searchCriteria reads the data field: 4F with the beginning of an AID, then
// what this card ignores, and a tag list 5C.
func searchCriteria(data []byte) (prefix []byte, tags map[iso7816.Tag]bool, err error) {
	objects, err := iso7816.ParseTLVs(data)
	if err != nil {
		return nil, nil, err
	}
	if len(objects) == 0 || objects[0].Tag != 0x4F || len(objects[0].Value) > 16 {
		return nil, nil, iso7816.ErrWrongData
	}
	list, ok := iso7816.Find(objects, 0x5C)
	if !ok {
		return objects[0].Value, nil, nil
	}
	tags = map[iso7816.Tag]bool{}
	for b := list.Value; len(b) > 0; {
		tag := iso7816.Tag(b[0])
		n := 1
		if b[0]&0x1F == 0x1F {
			for {
				if n >= len(b) || n >= 3 {
					return nil, nil, iso7816.ErrWrongData
				}
				tag = tag<<8 | iso7816.Tag(b[n])
				n++
				if b[n-1]&0x80 == 0 {
					break
				}
			}
		}
		tags[tag] = true
		b = b[n:]
	}
	return objects[0].Value, tags, nil
}

// status is what GET STATUS shows of an application.
func (e *entry) status() []iso7816.TLV {
	out := []iso7816.TLV{
		{Tag: 0x4F, Value: e.aid.Bytes()},
		{Tag: 0x9F70, Value: []byte{e.stateByte()}},
		{Tag: 0xC5, Value: e.privileges[:]},
	}
	for i := range e.implicit {
		out = append(out, iso7816.TLV{Tag: 0xCF, Value: e.implicit[i : i+1]})
	}
	if !e.file.IsZero() {
		out = append(out, iso7816.TLV{Tag: 0xC4, Value: e.file.Bytes()})
	}
	return append(out, iso7816.TLV{Tag: 0xCC, Value: e.securityDomain.Bytes()})
}

// status is what GET STATUS shows of a load file.
func (f *loadFile) status(modules bool) []iso7816.TLV {
	out := []iso7816.TLV{
		{Tag: 0x4F, Value: f.aid.Bytes()},
		{Tag: 0x9F70, Value: []byte{fileLoaded}},
	}
	if len(f.version) > 0 {
		out = append(out, iso7816.TLV{Tag: 0xCE, Value: f.version})
	}
	if modules {
		for _, m := range f.modules {
			out = append(out, iso7816.TLV{Tag: 0x84, Value: m.Bytes()})
		}
	}
	return append(out, iso7816.TLV{Tag: 0xCC, Value: f.securityDomain.Bytes()})
}
