package emulator

import (
	"bytes"
	"slices"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Instruction bytes of Security Domains (GPCS chapter 11, AmdD 7).
const (
	insInitializeUpdate     = 0x50
	insExternalAuthenticate = 0x82
	insGetData              = 0xCA
	insGetDataFile          = 0xCB
	insPutKey               = 0xD8
	insStoreData            = 0xE2
	insDelete               = 0xE4
	insInstall              = 0xE6
	insLoad                 = 0xE8
	insSetStatus            = 0xF0
	insGetStatus            = 0xF2
)

// selectDomain begins an application session with a Security Domain.
func (c *Card) selectDomain(sd *entry) {
	c.endDomainSession()
	c.at.selected = sd
	c.at.secure = c.secureSession(sd)
}

// secureSession is a Security Domain's side of its protocol, without a session.
func (c *Card) secureSession(sd *entry) *scp.CardSession {
	return scp.NewCardSession(scp.CardOptions{
		DiversificationData: c.state.diversification,
		Protocol:            sd.domain.protocol,
		AID:                 sd.aid,
		Counter:             func(version byte) (uint32, error) { return c.state.keeper(sd).domain.counter(version), nil },
		SetCounter: func(version byte, n uint32) error {
			c.updateDomain(c.state.keeper(sd), func(d *domain) { d.setCounter(version, n) })
			return nil
		},
		Rand: c.rand,
		Keys: func(version byte) (keys.Set, bool) { return c.state.keeper(sd).domain.set(version) },
	})
}

// counter is the sequence counter of a key version.
func (d *domain) counter(version byte) uint32 {
	for _, s := range d.counters {
		if s.version == version {
			return s.next
		}
	}
	return 0
}

func (d *domain) setCounter(version byte, n uint32) {
	d.counters = slices.DeleteFunc(d.counters, func(s sequence) bool { return s.version == version })
	if n > 0 {
		d.counters = append(d.counters, sequence{version, n})
	}
}

// endDomainSession forgets what belongs to the selected Security Domain.
func (c *Card) endDomainSession() {
	l := c.at
	if l.secure != nil {
		l.secure.Reset()
	}
	l.secure = nil
	l.endSequences()
	l.listing = nil
}

// endSequences ends what runs over several commands of a secure channel.
func (l *logicalChannel) endSequences() {
	l.chain.Reset()
	l.loading, l.personal = nil, nil
}

// domainProcess is a Security Domain that processes a command.
func (c *Card) domainProcess(sd *entry, cmd iso7816.Command) iso7816.Response {
	l := c.at
	ends := cmd.INS == insGetData || cmd.INS == insGetDataFile
	switch {
	case cmd.CLA&^0x84 != 0:
		return refuse(iso7816.ErrUnknownCLA)
	case cmd.CLA&0x80 == 0 && !ends:
		if cmd.INS == insSelect {
			return refuse(iso7816.ErrIncorrectP1P2) // other than by name
		}
		return refuse(iso7816.ErrUnknownCLA)
	case sd.locked, c.state.issuer().lifeCycle == cardTerminated && !ends:
		return refuse(iso7816.ErrConditions)
	}
	if c.state.issuer().lifeCycle == cardTerminated {
		return c.getData(sd, cmd) // whatever session there was is over
	}
	switch cmd.INS {
	case insInitializeUpdate, insExternalAuthenticate:
		l.endSequences()
		if c.speaking(sd) {
			return refuse(iso7816.ErrConditions)
		}
		if cmd.INS == insInitializeUpdate {
			return l.secure.InitializeUpdate(cmd)
		}
		return l.secure.ExternalAuthenticate(cmd)
	}
	whole, err := l.chain.Add(cmd)
	switch {
	case err != nil:
		return refuse(err)
	case whole == nil: // others follow
		return iso7816.Response{SW: iso7816.OK}
	}
	plain, err := l.secure.Unwrap(*whole)
	if err != nil {
		l.endSequences()
		l.listing = nil
		return refuse(err)
	}
	return l.secure.Wrap(c.domainCommand(sd, plain))
}

// domainCommand carries out one command, secure messaging taken off.
func (c *Card) domainCommand(sd *entry, cmd iso7816.Command) iso7816.Response {
	l := c.at
	if cmd.INS == insGetData || cmd.INS == insGetDataFile {
		return c.getData(sd, cmd)
	}
	handler, ok := map[byte]func(*entry, iso7816.Command) iso7816.Response{
		insPutKey:    c.putKey,
		insStoreData: c.storeData,
		insDelete:    c.delete,
		insInstall:   c.install,
		insLoad:      c.load,
		insSetStatus: c.setStatus,
		insGetStatus: c.getStatus,
	}[cmd.INS]
	if !ok {
		return refuse(iso7816.ErrUnknownINS)
	}
	// GPCS table 11-2 asks for authentication; this card also wants every such
	// command to carry a C-MAC, since without one a stranger could add his own.
	if !l.secure.Authenticated() || !l.secure.Level().HasCMAC() {
		return refuse(iso7816.ErrSecurityStatus)
	}
	looks := cmd.INS == insGetStatus
	if c.state.cardLocked() && !looks && cmd.INS != insSetStatus {
		return refuse(iso7816.ErrConditions) // 5.1.1.4: neither content nor keys nor data
	}
	// What runs over several commands ends with the first that isn't of it.
	if cmd.INS != insLoad && !looks && !(cmd.INS == insInstall && cmd.P2 == combinedEnd) {
		l.loading = nil
	}
	if cmd.INS == insInstall {
		l.personal = nil
	}
	return handler(sd, cmd)
}

// domainFCI is the answer to SELECT (GPCS table 11-82).
func (c *Card) domainFCI(sd *entry) []byte {
	proprietary := bytes.Clone(c.managementData(sd))
	proprietary = iso7816.AppendTLV(proprietary, 0x9F65, []byte{iso7816.MaxShortData})
	fci := iso7816.AppendTLV(nil, 0x84, sd.aid.Bytes())
	fci = iso7816.AppendTLV(fci, 0xA5, proprietary)
	return iso7816.AppendTLV(nil, 0x6F, fci)
}

// managementData is the value of tag 66: what was stored, or what the Security
// Domain says of itself (GPCS H.2, H.3, format 1): Card Specification 2.3.1,
// identification by IIN and CIN, the secure channel protocol with its options.
func (c *Card) managementData(sd *entry) []byte {
	if v, ok := sd.domain.object(tagManagementData); ok {
		return v
	}
	oid := func(arcs ...byte) []byte {
		return iso7816.AppendTLV(nil, 0x06, append([]byte{0x2A, 0x86, 0x48, 0x86, 0xFC, 0x6B}, arcs...))
	}
	p := sd.domain.protocol
	b := oid(1)
	b = iso7816.AppendTLV(b, 0x60, oid(2, 2, 3, 1))
	b = iso7816.AppendTLV(b, 0x63, oid(3))
	b = iso7816.AppendTLV(b, 0x64, oid(4, p.Number, p.I))
	return iso7816.AppendTLV(nil, 0x73, b)
}

// capability is the value of Card Capability Information (GPCS H.4): the
// Issuer Security Domain's protocol, SCP03 with AES of all sizes; privileges
// that can be assigned; SHA-1, -256, -384 and -512; how tokens, receipts and
// DAPs can be signed.
func (c *Card) capability() []byte {
	issuer := c.state.issuer().domain
	if v, ok := issuer.object(tagCapability); ok {
		return v
	}
	p := issuer.protocol
	channel := iso7816.AppendTLV(nil, 0x80, []byte{p.Number})
	channel = iso7816.AppendTLV(channel, 0x81, []byte{p.I})
	if p.Number == 3 {
		channel = iso7816.AppendTLV(channel, 0x82, []byte{0x07})
	}
	b := iso7816.AppendTLV(nil, 0xA0, channel)
	b = iso7816.AppendTLV(b, 0x81, domainPrivileges[:])
	b = iso7816.AppendTLV(b, 0x82, applicationPrivileges[:])
	b = iso7816.AppendTLV(b, 0x83, []byte{1, 2, 3, 4})
	b = iso7816.AppendTLV(b, 0x84, loadCiphers)
	b = iso7816.AppendTLV(b, 0x85, verifiedSchemes)
	b = iso7816.AppendTLV(b, 0x86, receiptSchemes)
	b = iso7816.AppendTLV(b, 0x87, verifiedSchemes)
	return iso7816.AppendTLV(b, 0x88, curveReferences())
}

// Tags of the data objects of Security Domains (GPCS 11.3.2.1, 11.11.2.3).
const (
	tagIIN              iso7816.Tag = 0x42
	tagCIN              iso7816.Tag = 0x45
	tagAID              iso7816.Tag = 0x4F
	tagManagementData   iso7816.Tag = 0x66
	tagCapability       iso7816.Tag = 0x67
	tagManagerURL       iso7816.Tag = 0x5F50
	tagSequenceCounter  iso7816.Tag = 0xC1
	tagConfirmations    iso7816.Tag = 0xC2
	tagSecurityLevel    iso7816.Tag = 0xD3
	tagKeyInformation   iso7816.Tag = 0xE0
	tagResources        iso7816.Tag = 0xFF21
	tagApplications     iso7816.Tag = 0x2F00
	tagProprietary      iso7816.Tag = 0xDE
	tagProprietaryGroup iso7816.Tag = 0xFE
)

// getData is GET DATA (GPCS 11.3). Class byte 80 gets the data object, 00 its
// value.
func (c *Card) getData(sd *entry, cmd iso7816.Command) iso7816.Response {
	tag := iso7816.Tag(cmd.P1)<<8 | iso7816.Tag(cmd.P2)
	if tag == tagApplications {
		return c.applications(sd, cmd)
	}
	if cmd.INS != insGetData {
		return refuse(iso7816.ErrUnknownINS)
	}
	d := sd.domain
	var value []byte
	found := true
	switch tag {
	case tagManagementData:
		value = c.managementData(sd)
	case tagCapability:
		if found = sd == c.state.issuer(); found {
			value = c.capability()
		}
	case tagSequenceCounter:
		var set keys.Set
		if set, found = c.state.keeper(sd).domain.set(0); found {
			value, found = counterBytes(d.protocol, c.state.keeper(sd).domain.counter(set.Version))
		}
	case tagConfirmations:
		found = sd.privileges.has(privReceiptGeneration)
		value = []byte{byte(d.confirmations >> 8), byte(d.confirmations)}
	case tagSecurityLevel:
		value = []byte{channel{c.at.secure}.Level()}
	case tagKeyInformation:
		for _, k := range d.keys {
			value = iso7816.AppendTLV(value, 0xC0, k.information())
		}
	case tagResources:
		value = c.resources()
	default:
		value, found = d.object(tag)
	}
	switch {
	case !found:
		return refuse(iso7816.ErrDataNotFound)
	case len(cmd.Data) != 0:
		return refuse(iso7816.ErrWrongData)
	case cmd.CLA&0x80 == 0:
		return iso7816.Response{Data: bytes.Clone(value), SW: iso7816.OK}
	}
	return iso7816.Response{Data: iso7816.AppendTLV(nil, tag, value), SW: iso7816.OK}
}

// counterBytes is a sequence counter as GET DATA shows it; false where the
// protocol has none.
func counterBytes(p scp.Protocol, n uint32) ([]byte, bool) {
	switch {
	case p.Number == 2:
		return []byte{byte(n >> 8), byte(n)}, true
	case p.PseudoRandom():
		return []byte{byte(n >> 16), byte(n >> 8), byte(n)}, true
	}
	return nil, false
}

// applications is GET DATA with 2F00: the applications that the Security
// Domain sees (GPCS 11.3.3.1.3).
func (c *Card) applications(sd *entry, cmd iso7816.Command) iso7816.Response {
	switch {
	case cmd.CLA&0x80 != 0 != (cmd.INS == insGetData):
		return refuse(iso7816.ErrUnknownINS)
	case !bytes.Equal(cmd.Data, []byte{0x5C, 0x00}):
		return refuse(iso7816.ErrWrongData)
	}
	var out []byte
	for _, e := range c.state.entries {
		if e == sd || c.visible(sd, e.securityDomain) {
			out = iso7816.AppendTLV(out, 0x61, iso7816.AppendTLV(nil, tagAID, e.aid.Bytes()))
		}
	}
	return iso7816.Response{Data: out, SW: iso7816.OK}
}

// information is what the Key Information Template says of a key (GPCS tables
// 11-28, 11-29): the extended structure where the key came with what only that
// one can say.
func (k key) information() []byte {
	b := []byte{k.id, k.version}
	extended := len(k.usage) > 0 || len(k.access) > 0
	for _, p := range k.components {
		n := len(p.value)
		switch {
		case p.kind == keyTypeECGenerator:
			continue // 11.3.3.1.1: nothing about a key's own parameters
		case p.kind == keyTypeECPublic:
			n-- // without the byte that says how it is coded
		case p.kind == keyTypeECParameter:
			n = int(p.value[0]) // the reference itself
		}
		if extended {
			b = append(b, 0xFF, p.kind, byte(n>>8), byte(n))
			continue
		}
		if n > 0xFF {
			n = 0 // 256 or more
		}
		b = append(b, p.kind, byte(n))
	}
	if extended {
		b = append(append(b, byte(len(k.usage))), k.usage...)
		b = append(append(b, byte(len(k.access))), k.access...)
	}
	return b
}

// resources is the content of Extended Card Resources Information (ETSI TS
// 102 226, 8.2.1.7.2): number of installed applications, free non-volatile
// and free volatile memory.
func (c *Card) resources() []byte {
	m := c.memory()
	n := 0
	for _, e := range c.state.entries {
		if !e.own {
			n++
		}
	}
	number := func(n int) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	b := iso7816.AppendTLV(nil, 0x81, number(n)[2:])
	b = iso7816.AppendTLV(b, 0x82, number(m.Free()))
	return iso7816.AppendTLV(b, 0x83, number(m.TransientReset-m.TransientResetUsed+m.TransientDeselect))
}
