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
	insStoreData            = 0xE2
	insDelete               = 0xE4
	insInstall              = 0xE6
	insLoad                 = 0xE8
	insSetStatus            = 0xF0
	insGetStatus            = 0xF2
)

// secureChannelOptions is the "i" parameter: random challenge, R-MAC, R-ENC.
const secureChannelOptions = 0x60

// selectDomain begins an application session with a Security Domain.
func (c *Card) selectDomain(sd *entry) {
	c.endDomainSession()
	c.session.selected = sd
	c.session.channel = scp.NewCardSession(scp.CardOptions{
		DiversificationData: c.state.diversification,
		Protocol:            scp.Protocol{Number: 3, I: secureChannelOptions},
		Rand:                c.rand,
		Keys: func(version byte) (keys.Set, bool) {
			for _, k := range slices.Backward(sd.keys) {
				if version == 0 || k.Version == version {
					return k, true
				}
			}
			return keys.Set{}, false
		},
	})
}

// endDomainSession forgets what belongs to the selected Security Domain.
func (c *Card) endDomainSession() {
	s := c.session
	if s.channel != nil {
		s.channel.Reset()
	}
	s.channel, s.loading, s.personal, s.listing = nil, nil, nil, nil
}

// domainProcess is a Security Domain that processes a command.
func (c *Card) domainProcess(sd *entry, cmd iso7816.Command) iso7816.Response {
	s := c.session
	switch {
	case cmd.CLA&0x43 != 0:
		return refuse(iso7816.ErrLogicalChannel)
	case cmd.CLA&^0x84 != 0:
		return refuse(iso7816.ErrUnknownCLA)
	case cmd.CLA&0x80 == 0 && cmd.INS != insGetData:
		if cmd.INS == insSelect {
			return refuse(iso7816.ErrIncorrectP1P2) // other than by name
		}
		return refuse(iso7816.ErrUnknownCLA)
	}
	switch cmd.INS {
	case insInitializeUpdate:
		s.loading, s.personal = nil, nil
		return s.channel.InitializeUpdate(cmd)
	case insExternalAuthenticate:
		s.loading, s.personal = nil, nil
		return s.channel.ExternalAuthenticate(cmd)
	}
	plain, err := s.channel.Unwrap(cmd)
	if err != nil {
		s.loading, s.personal, s.listing = nil, nil, nil
		return refuse(err)
	}
	return s.channel.Wrap(c.domainCommand(sd, plain))
}

// domainCommand carries out one command, secure messaging taken off.
func (c *Card) domainCommand(sd *entry, cmd iso7816.Command) iso7816.Response {
	s := c.session
	if cmd.INS == insGetData {
		return c.getData(sd, cmd)
	}
	handler, ok := map[byte]func(*entry, iso7816.Command) iso7816.Response{
		insStoreData: c.storeData,
		insDelete:    c.deleteContent,
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
	if !s.channel.Authenticated() || !s.channel.Level().HasCMAC() {
		return refuse(iso7816.ErrSecurityStatus)
	}
	// What runs over several commands ends with the first that isn't of it.
	if cmd.INS != insLoad && cmd.INS != insGetStatus {
		s.loading = nil
	}
	if cmd.INS == insInstall {
		s.personal = nil
	}
	return handler(sd, cmd)
}

// domainFCI is the answer to SELECT (GPCS table 11-82).
func (c *Card) domainFCI(sd *entry) []byte {
	var proprietary []byte
	proprietary = iso7816.AppendTLV(proprietary, 0x73, recognition())
	proprietary = iso7816.AppendTLV(proprietary, 0x9F65, []byte{iso7816.MaxShortData})
	fci := iso7816.AppendTLV(nil, 0x84, sd.aid.Bytes())
	fci = iso7816.AppendTLV(fci, 0xA5, proprietary)
	return iso7816.AppendTLV(nil, 0x6F, fci)
}

// recognition is the content of tag 73 in Card Recognition Data and in
// Security Domain Management Data (GPCS H.2, H.3, format 1): Card Specification
// 2.3.1, identification by IIN and CIN, SCP03 with its options.
func recognition() []byte {
	oid := func(arcs ...byte) []byte {
		return iso7816.AppendTLV(nil, 0x06, append([]byte{0x2A, 0x86, 0x48, 0x86, 0xFC, 0x6B}, arcs...))
	}
	b := oid(1)
	b = iso7816.AppendTLV(b, 0x60, oid(2, 2, 3, 1))
	b = iso7816.AppendTLV(b, 0x63, oid(3))
	return iso7816.AppendTLV(b, 0x64, oid(4, 3, secureChannelOptions))
}

// capability is the content of Card Capability Information (GPCS H.4): SCP03
// with AES of all sizes, no privileges to assign, SHA-256, -384 and -512.
func capability() []byte {
	channel := iso7816.AppendTLV(nil, 0x80, []byte{3})
	channel = iso7816.AppendTLV(channel, 0x81, []byte{secureChannelOptions})
	channel = iso7816.AppendTLV(channel, 0x82, []byte{0x07})
	b := iso7816.AppendTLV(nil, 0xA0, channel)
	b = iso7816.AppendTLV(b, 0x82, []byte{0, 0, 0})
	return iso7816.AppendTLV(b, 0x83, []byte{2, 3, 4})
}

// getData is GET DATA (GPCS 11.3). Class byte 80 gets the data object, 00 its
// value.
func (c *Card) getData(sd *entry, cmd iso7816.Command) iso7816.Response {
	tag := iso7816.Tag(cmd.P1)<<8 | iso7816.Tag(cmd.P2)
	var value []byte
	switch tag {
	case 0x42:
		value = c.state.iin
	case 0x45:
		value = c.state.cin
	case 0x66:
		value = iso7816.AppendTLV(nil, 0x73, recognition())
	case 0x67:
		value = capability()
	case 0xD3:
		value = []byte{channel{c.session.channel}.Level()}
	case 0xE0:
		for _, k := range sd.keys {
			for i, key := range []keys.Key{k.ENC, k.MAC, k.DEK} {
				value = iso7816.AppendTLV(value, 0xC0, []byte{byte(i + 1), k.Version, keyTypeAES, byte(len(key.Bytes()))})
			}
		}
	case 0xFF21:
		value = c.resources()
	default:
		return refuse(iso7816.ErrDataNotFound)
	}
	if len(cmd.Data) != 0 {
		return refuse(iso7816.ErrWrongData)
	}
	if cmd.CLA&0x80 == 0 {
		return iso7816.Response{Data: bytes.Clone(value), SW: iso7816.OK}
	}
	return iso7816.Response{Data: iso7816.AppendTLV(nil, tag, value), SW: iso7816.OK}
}

const keyTypeAES = 0x88 // GPCS table 11-16

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

// channel is the Security Domain's channel as applications see it.
type channel struct{ s *scp.CardSession }

func (c channel) Level() byte {
	if !c.s.Authenticated() {
		return 0
	}
	return 0x80 | byte(c.s.Level())
}

func (c channel) DecryptSensitive(data []byte) ([]byte, error) { return c.s.DecryptSensitive(data) }
