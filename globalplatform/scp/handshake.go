package scp

import (
	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// handshake is what host and card compute alike between INITIALIZE UPDATE and
// the session that EXTERNAL AUTHENTICATE opens.
type handshake interface {
	cardCryptogram() []byte
	hostCryptogram() []byte
	// mac is the C-MAC of EXTERNAL AUTHENTICATE with that data, before it is
	// cut to its size on the wire.
	mac(c iso7816.Command) []byte
	// open returns the coding of the session after that C-MAC, with a DEK of
	// its own. The handshake is used up.
	open(level Level, mac []byte) (coding, error)
	erase()
}

// newHandshake derives the session keys. The set's keys are copied as far as
// needed. Errors wrap [ErrKeySet].
func newHandshake(p Protocol, set keys.Set, hostChallenge []byte, info KeyInformation) (handshake, error) {
	if p.Number == 2 {
		return newHandshake02(p, set, hostChallenge, uint16(info.SequenceCounter), info.Challenge)
	}
	k, err := DeriveSessionKeys(set, hostChallenge, info.Challenge)
	if err != nil {
		return nil, err
	}
	h := &handshake03{protocol: p, keys: k, host: hostChallenge, card: info.Challenge}
	if h.ch, err = newChannel(p, k, None, [sp800.Size]byte{}, 1); err != nil {
		h.erase()
		return nil, err
	}
	if !set.DEK.IsZero() {
		if h.dek, err = keys.NewKey(set.DEK.Bytes()); err != nil {
			h.erase()
			return nil, err
		}
	}
	return h, nil
}

type handshake03 struct {
	protocol   Protocol
	keys       SessionKeys
	dek        keys.Key
	ch         *channel // no level yet
	host, card []byte
}

func (h *handshake03) cardCryptogram() []byte {
	return cryptogram(h.ch.mac, constCardCryptogram, h.host, h.card)
}

func (h *handshake03) hostCryptogram() []byte {
	return cryptogram(h.ch.mac, constHostCryptogram, h.host, h.card)
}

func (h *handshake03) mac(c iso7816.Command) []byte {
	mac := h.ch.commandMAC(c.CLA, c.INS, c.P1, c.P2, c.Data, c.Extended)
	return mac[:]
}

func (h *handshake03) open(level Level, mac []byte) (coding, error) {
	ch, err := newChannel(h.protocol, h.keys, level, [sp800.Size]byte(mac), 1)
	if err != nil {
		return nil, err
	}
	ch.dek, h.dek = h.dek, keys.Key{} // the session's now
	return ch, nil
}

func (h *handshake03) erase() {
	h.keys.Erase()
	h.dek.Erase()
}

// expectedChallenge is the challenge that a card with a pseudo-random one
// must have answered to an application of the AID.
func expectedChallenge(p Protocol, h handshake, set keys.Set, counter uint32, aid iso7816.AID) ([]byte, error) {
	if h02, ok := h.(*handshake02); ok {
		return h02.challenge(aid), nil
	}
	return pseudoRandomChallenge(set, counter, aid, p.challengeSize())
}
