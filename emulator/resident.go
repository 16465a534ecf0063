package emulator

import "github.com/freearea/freearea/iso7816"

// residents are the applications that the Individual Number Card comes with:
// JPKI, basic resident register, face of the card, entry support, and the one
// with a single record in the clear.
var residents = []iso7816.AID{
	iso7816.MustAID("D392F000260100000001"),
	iso7816.MustAID("D3921000310001010401"),
	iso7816.MustAID("D3921000310001010402"),
	iso7816.MustAID("D3921000310001010408"),
	iso7816.MustAID("D3921000310001010100"),
}

// resident stands for one of them: it answers SELECT with its name and knows
// no other command.
type resident struct{ aid iso7816.AID }

func (r resident) Select(iso7816.Command) iso7816.Response {
	name := iso7816.AppendTLV(nil, 0x84, r.aid.Bytes())
	return iso7816.Response{Data: iso7816.AppendTLV(nil, 0x6F, name), SW: iso7816.OK}
}

func (r resident) Process(cmd iso7816.Command) iso7816.Response {
	if cmd.INS == insSelect {
		return refuse(iso7816.ErrNotFound)
	}
	return refuse(iso7816.ErrUnknownINS)
}

func (r resident) Deselect() {}
