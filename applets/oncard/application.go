package oncard

import (
	"crypto/subtle"
	"io"

	"github.com/freearea/freearea/applets"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// application is an instance's behaviour. Its fields are what was fixed at
// installation, handles to transient memory, and the secure channel.
type application struct {
	card            card.Card
	typ             byte
	keySets, items  int
	pin             bool
	diversification [10]byte
	volatile        []byte // see vol…; nil for common-ap
	staging         []byte // see stg…
	channel         *scp.CardSession
}

var (
	_ card.Application    = (*application)(nil)
	_ card.Personalizable = (*application)(nil)
)

func sw(s iso7816.SW) iso7816.Response { return iso7816.Response{SW: s} }

func ok(data []byte) iso7816.Response { return iso7816.Response{Data: data, SW: iso7816.OK} }

// byteAt reads one byte of an object.
func (a *application) byteAt(h card.Handle, offset int) byte {
	var b [1]byte
	a.card.Read(h, offset, b[:])
	return b[0]
}

func (a *application) bytesAt(h card.Handle, offset, n int) []byte {
	b := make([]byte, n)
	a.card.Read(h, offset, b)
	return b
}

// active returns the slot that is served; false before personalisation and
// after a wipe.
func (a *application) active() (card.Handle, bool) {
	n := a.byteAt(objControl, ctlActive)
	return slotObject(n), n != 0
}

func slotObject(n byte) card.Handle { return objSlot1 + card.Handle(n) - 1 }

// Select answers the FCI. What was left to be wiped when power was lost is
// wiped now: it is the first time that the instance is called again.
func (a *application) Select(iso7816.Command) iso7816.Response {
	a.endSession()
	if err := a.finishWipe(); err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	own := iso7816.AppendTLV(nil, applets.TagType, []byte{a.typ, applets.ProtocolVersion})
	slot, personalized := a.active()
	if a.typ == applets.TypeCommonAP {
		if personalized {
			own = iso7816.AppendTLV(own, applets.TagRecord, a.record(slot))
		}
	} else {
		if personalized {
			challenge := a.volatile[volChallenge : volChallenge+16]
			if _, err := io.ReadFull(a.card.Random(), challenge); err != nil {
				return sw(iso7816.ErrUnknown)
			}
			a.volatile[volHave] = 1
			own = iso7816.AppendTLV(own, applets.TagChallenge, challenge)
		}
		own = iso7816.AppendTLV(own, applets.TagDiversification, a.diversification[:])
		if personalized {
			own = iso7816.AppendTLV(own, applets.TagKeyVersions, a.versions(slot))
		}
	}
	fci := iso7816.AppendTLV(nil, applets.TagAID, a.card.AID().Bytes())
	fci = iso7816.AppendTLV(fci, applets.TagProprietary, own)
	return ok(iso7816.AppendTLV(nil, applets.TagFCI, fci))
}

// Deselect forgets the session.
func (a *application) Deselect() { a.endSession() }

func (a *application) endSession() {
	clear(a.volatile)
	if a.channel != nil {
		a.channel.Reset()
	}
}

func (a *application) record(slot card.Handle) []byte {
	return a.bytesAt(slot, slotRecord, int(a.byteAt(slot, slotRecordLen)))
}

func (a *application) versions(slot card.Handle) []byte {
	out := make([]byte, a.byteAt(slot, slotKeySets))
	for i := range out {
		out[i] = a.byteAt(slot, slotKeys+i*applets.SizeKeySet+ksVersion)
	}
	return out
}

// keySet returns a key set of the served slot; version 0 is the newest, which
// stands first.
func (a *application) keySet(version byte) (keys.Set, bool) {
	slot, personalized := a.active()
	if !personalized {
		return keys.Set{}, false
	}
	for i, v := range a.versions(slot) {
		if version != 0 && v != version {
			continue
		}
		b := a.bytesAt(slot, slotKeys+i*applets.SizeKeySet, applets.SizeKeySet)
		defer clear(b)
		n := int(b[ksLength])
		enc, err1 := keys.NewKey(b[ksENC : ksENC+n])
		mac, err2 := keys.NewKey(b[ksMAC : ksMAC+n])
		return keys.Set{Version: v, ENC: enc, MAC: mac}, err1 == nil && err2 == nil
	}
	return keys.Set{}, false
}

// accepts says which security levels open this instance: a PIN is always
// encrypted, and so is everything of type D.
func (a *application) accepts(l scp.Level) bool {
	switch {
	case a.typ == applets.TypeD:
		return l == scp.Full
	case a.pin:
		return l == scp.CDecRMAC || l == scp.Full
	}
	return l == scp.CMACRMAC || l == scp.CDecRMAC || l == scp.Full
}

const insSelect, insInitializeUpdate, insExternalAuthenticate = 0xA4, 0x50, 0x82

// Process handles every command but the SELECT that chose this instance.
func (a *application) Process(cmd iso7816.Command) iso7816.Response {
	switch {
	case cmd.CLA&^0x87 != 0:
		return sw(iso7816.ErrUnknownCLA)
	case cmd.CLA&0x03 != 0:
		return sw(iso7816.ErrLogicalChannel)
	case cmd.INS == insSelect:
		// By AID: no application has it, and this one stays selected
		// (GPCS 6.4.2.1.2).
		if cmd.P1 != 0x04 {
			return sw(iso7816.ErrIncorrectP1P2)
		}
		return sw(iso7816.ErrNotFound)
	}
	slot, personalized := a.active()
	if !personalized {
		return sw(iso7816.ErrConditions)
	}
	if a.typ == applets.TypeCommonAP {
		switch {
		case cmd.CLA&0x04 != 0:
			return sw(iso7816.ErrSecureMessaging)
		case cmd.INS != applets.InsReadBinary:
			return sw(iso7816.ErrUnknownINS)
		}
		return a.readBinary(slot, cmd)
	}
	r := a.secured(slot, cmd)
	if !a.channel.Authenticated() {
		a.volatile[volVerified], a.volatile[volFile] = 0, 0
	}
	return r
}

func (a *application) secured(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	switch cmd.INS {
	case insInitializeUpdate:
		clear(a.volatile)
		return a.channel.InitializeUpdate(cmd)
	case insExternalAuthenticate:
		return a.channel.ExternalAuthenticate(cmd)
	case applets.InsExpress:
		return a.express(slot, cmd)
	}
	if !a.channel.Authenticated() {
		switch cmd.INS {
		case applets.InsReadBinary, applets.InsVerify, applets.InsChangeReference:
			return sw(iso7816.ErrSecurityStatus)
		}
		return sw(iso7816.ErrUnknownINS)
	}
	plain, err := a.channel.Unwrap(cmd)
	if err != nil {
		return sw(statusOf(err))
	}
	switch plain.INS {
	case applets.InsReadBinary:
		if a.pin && a.volatile[volVerified] == 0 {
			return sw(iso7816.ErrSecurityStatus)
		}
		return a.channel.Wrap(a.readBinary(slot, plain))
	case applets.InsVerify:
		return a.channel.Wrap(a.verify(slot, plain))
	case applets.InsChangeReference:
		return a.channel.Wrap(a.changeReference(plain))
	}
	return sw(iso7816.ErrUnknownINS)
}

func statusOf(err error) iso7816.SW {
	if s, is := err.(iso7816.SW); is {
		return s
	}
	return iso7816.ErrUnknown
}

// express is express reading: the host's proof, and EF.ID or, where a PIN
// guards it, nothing but the card's proof.
func (a *application) express(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	const size = 16 + 8
	level := scp.Level(cmd.P2)
	switch {
	case cmd.CLA != 0x84:
		return sw(iso7816.ErrUnknownCLA)
	case len(cmd.Data) != size || cmd.Ne < iso7816.MaxShortNe:
		return sw(iso7816.ErrWrongLength) // the answer could not be fetched again
	case cmd.P1 == 0:
		return sw(iso7816.ErrDataNotFound)
	}
	set, known := a.keySet(cmd.P1)
	defer set.Erase()
	switch {
	case !known:
		return sw(iso7816.ErrDataNotFound)
	case !a.accepts(level), a.volatile[volHave] == 0:
		return sw(iso7816.ErrSecurityStatus)
	}
	challenge := [16]byte(a.volatile[volChallenge:])
	clear(a.volatile) // used up, whatever comes of it
	a.channel.Reset()
	host := [16]byte(cmd.Data)
	k, err := applets.ExpressKeys(set, host, challenge)
	if err != nil {
		return sw(iso7816.ErrUnknown)
	}
	defer k.Erase()
	mac, err := applets.ExpressMAC(k.MAC, a.card.AID(), cmd.P1, level, host)
	if err != nil {
		return sw(iso7816.ErrUnknown)
	}
	if subtle.ConstantTimeCompare(mac[:8], cmd.Data[16:]) != 1 {
		return sw(iso7816.ErrSecurityStatus)
	}
	// The session's counter block is zero until a command counts, so the
	// answer is encrypted under the ICV AES(S-ENC, 80 00…00).
	a.channel.Resume(k, level, mac, 1)
	if a.pin {
		return a.channel.Wrap(ok(nil))
	}
	return a.channel.Wrap(ok(a.record(slot)))
}

// readBinary reads by short file identifier (P1 = 80 + SFI, P2 = offset) or on
// in the current file (P1 P2 = offset of 15 bits); ISO/IEC 7816-4, 11.3.2.
func (a *application) readBinary(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	file, offset := byte(0), 0
	switch {
	case cmd.P1&0x80 == 0:
		if a.volatile != nil {
			file = a.volatile[volFile]
		}
		if file == 0 {
			return sw(iso7816.ErrNotAllowed)
		}
		offset = int(cmd.P1)<<8 | int(cmd.P2)
	case cmd.P1&0x60 != 0:
		return sw(iso7816.ErrIncorrectP1P2)
	default:
		file, offset = cmd.P1&0x1F, int(cmd.P2)
	}
	var at, size int
	switch {
	case file == applets.FileRecord:
		at, size = slotRecord, int(a.byteAt(slot, slotRecordLen))
	case file == applets.FileItems && a.typ != applets.TypeCommonAP:
		at, size = slotKeys+a.keySets*applets.SizeKeySet, be16(a.bytesAt(slot, slotItemsLen, 2))
	default:
		return sw(iso7816.ErrNotFound)
	}
	switch {
	case len(cmd.Data) != 0 || cmd.Ne == 0:
		return sw(iso7816.ErrWrongLength)
	case offset > size:
		return sw(iso7816.ErrWrongOffset)
	}
	if a.volatile != nil {
		a.volatile[volFile] = file
	}
	n := min(size-offset, cmd.Ne, iso7816.MaxShortNe)
	return ok(a.bytesAt(slot, at+offset, n))
}

// checkPIN compares with the reference value. The try is gone before the
// comparison begins and outside of any transaction: power lost in between
// costs one and never gives one.
func (a *application) checkPIN(block []byte) iso7816.SW {
	tries := a.byteAt(objPIN, pinTries)
	if tries == 0 {
		return iso7816.ErrBlocked
	}
	a.volatile[volVerified] = 0
	if err := a.card.WriteOutside(objPIN, pinTries, []byte{tries - 1}); err != nil {
		return iso7816.ErrMemoryFailure
	}
	reference := a.bytesAt(objPIN, pinBlock, 12)
	defer clear(reference)
	if subtle.ConstantTimeCompare(reference, block) != 1 {
		return 0x63C0 | iso7816.SW(tries-1)
	}
	return iso7816.OK
}

// wellFormedPIN reports whether a reference block is 4 to 12 digits and FF.
func wellFormedPIN(block []byte) bool {
	n := 0
	for n < len(block) && block[n] >= '0' && block[n] <= '9' {
		n++
	}
	for _, b := range block[n:] {
		if b != 0xFF {
			return false
		}
	}
	return n >= applets.MinPINDigits
}

// pinCommand checks what VERIFY and CHANGE REFERENCE DATA have in common.
func (a *application) pinCommand(cmd iso7816.Command, blocks int) iso7816.SW {
	switch {
	case cmd.P1 != 0:
		return iso7816.ErrIncorrectP1P2
	case cmd.P2 != applets.QualifierPIN || !a.pin:
		return iso7816.ErrDataNotFound
	case len(cmd.Data) != 12*blocks:
		return iso7816.ErrWrongLength
	}
	for i := range blocks {
		if !wellFormedPIN(cmd.Data[12*i : 12*i+12]) {
			return iso7816.ErrWrongData
		}
	}
	return iso7816.OK
}

func (a *application) verify(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	if s := a.pinCommand(cmd, 1); s != iso7816.OK {
		return sw(s)
	}
	record := a.record(slot)
	if cmd.Ne < len(record) {
		return sw(iso7816.ErrWrongLength)
	}
	if s := a.checkPIN(cmd.Data); s != iso7816.OK {
		return sw(s)
	}
	if err := a.card.WriteOutside(objPIN, pinTries, []byte{a.byteAt(objPIN, pinLimit)}); err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	if a.byteAt(objPIN, pinFlags)&applets.FlagMustChange != 0 {
		return sw(iso7816.ErrDataInvalid)
	}
	a.volatile[volVerified] = 1
	return ok(record)
}

func (a *application) changeReference(cmd iso7816.Command) iso7816.Response {
	if s := a.pinCommand(cmd, 2); s != iso7816.OK {
		return sw(s)
	}
	old, replacement := cmd.Data[:12], cmd.Data[12:]
	if subtle.ConstantTimeCompare(old, replacement) == 1 {
		return sw(iso7816.ErrWrongData)
	}
	if s := a.checkPIN(old); s != iso7816.OK {
		return sw(s)
	}
	limit := a.byteAt(objPIN, pinLimit)
	// One write: after power is lost it is the old PIN with a try less, or
	// the new one with all.
	if err := a.card.Write(objPIN, 0, append([]byte{limit, limit, 0}, replacement...)); err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	a.volatile[volVerified] = 1
	return ok(nil)
}
