package globalplatform

import (
	"context"
	"errors"
	"fmt"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// Connect sends INITIALIZE UPDATE to the selected Security Domain, in the
// secure channel protocol that the card speaks: the one that the profile
// forces, or else what Card Recognition Data (tag 66) offers, SCP03 before
// SCP02. A card without Card Recognition Data is asked in SCP03, mode S8, and
// may answer with SCP02. The session is at the profile's level, unless
// o.Level asks for another; o.Protocols is the profile's business.
//
// Card Recognition Data is read in the clear: whoever forges it makes the host
// speak SCP02 with its keys, no more, and [scp.Session.EncryptSensitive] then
// refuses unless the profile gives leave.
//
// When nothing that the card offers is spoken here, the error wraps
// [scp.ErrProtocolNotSupported].
func Connect(ctx context.Context, s iso7816.Sender, p CardProfile, o scp.HostOptions) (*scp.Pending, error) {
	if o.Level == scp.None {
		o.Level = p.Level
	}
	o.AllowDeprecated = o.AllowDeprecated || p.AllowDeprecated
	if o.Protocols = p.Protocols; o.Protocols == nil {
		var err error
		if o.Protocols, err = Protocols(ctx, s, o.Level); err != nil {
			return nil, err
		}
	}
	return scp.Initialize(ctx, s, o)
}

// Protocols returns the secure channel protocols that Card Recognition Data
// offers and package scp speaks, best first: those that can do the level
// before others, SCP03 before SCP02, mode S8 before mode S16.
func Protocols(ctx context.Context, s iso7816.Sender, level scp.Level) ([]scp.Protocol, error) {
	r, err := Recognition(ctx, s)
	switch {
	case errors.Is(err, iso7816.ErrDataNotFound), err == nil && len(r.SecureChannels) == 0:
		// Of SCP02 without options nothing is claimed that might not hold.
		return []scp.Protocol{scp.SCP03, {Number: 2, I: 0x15}}, nil
	case err != nil:
		return nil, err
	}
	var ranked [8][]scp.Protocol
	for _, c := range r.SecureChannels {
		p := scp.Protocol{Number: c.Protocol, I: byte(c.I)}
		if c.I > 0xFF || !p.Valid() {
			continue
		}
		rank := 0
		if !p.Supports(level) {
			rank |= 4
		}
		if p.Deprecated() {
			rank |= 2
		}
		if p.S16() {
			rank |= 1
		}
		ranked[rank] = append(ranked[rank], p)
	}
	var out []scp.Protocol
	for _, list := range ranked {
		out = append(out, list...)
	}
	if out == nil {
		return nil, fmt.Errorf("%w: the card offers %v", scp.ErrProtocolNotSupported, r.SecureChannels)
	}
	return out, nil
}
