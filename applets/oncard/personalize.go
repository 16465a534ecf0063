package oncard

import (
	"bytes"

	"github.com/freearea/freearea/applets"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// What the Security Domain's channel must have: AUTHENTICATED, C-MAC and
// C-DECRYPTION (AmdD table 7-5).
const channelNeeds = 0x80 | 0x01 | 0x02

// P1 of STORE DATA (GPCS table 11-88).
const (
	p1Last     = 0x80
	p1Format   = 0x18
	p1DGI      = 0x08
	p1RFU      = 0x06
	p1Response = 0x01
)

// group is one data group of a STORE DATA command.
type group struct {
	id   uint16
	data []byte
}

// parseGroups takes the data of a STORE DATA command apart. A group does not
// go on in the next command, so one byte is enough for every length.
func parseGroups(b []byte) ([]group, bool) {
	var out []group
	for len(b) > 0 {
		if len(b) < 3 || b[2] == 0xFF || int(b[2]) > len(b)-3 {
			return nil, false
		}
		end := 3 + int(b[2])
		out = append(out, group{uint16(b[0])<<8 | uint16(b[1]), b[3:end]})
		b = b[end:]
	}
	return out, len(out) > 0
}

// Personalize handles STORE DATA. The interface can be called in any state and
// over any channel, so the application looks for itself.
func (a *application) Personalize(cmd iso7816.Command, channel card.SecureChannel) iso7816.Response {
	if channel.Level()&channelNeeds != channelNeeds {
		return sw(iso7816.ErrSecurityStatus)
	}
	if s := a.card.LifeCycle(); s != card.Selectable && s != card.Personalized {
		return sw(iso7816.ErrConditions)
	}
	if cmd.INS != applets.InsStoreData {
		return sw(iso7816.ErrUnknownINS)
	}
	if a.staging[stgOpen] == 0 {
		if err := a.finishWipe(); err != nil {
			return sw(iso7816.ErrMemoryFailure)
		}
	}
	if cmd.P1&p1Format != p1DGI || cmd.P1&p1RFU != 0 {
		return a.refuse(iso7816.ErrIncorrectP1P2)
	}
	groups, wellFormed := parseGroups(cmd.Data)
	if !wellFormed {
		return a.refuse(iso7816.ErrWrongData)
	}
	if cmd.P1&p1Response != 0 {
		return a.observe(groups)
	}
	if groups[0].id == applets.DGIWipe {
		return a.wipe(cmd, groups)
	}
	if cmd.P2 == 0 {
		if s := a.begin(groups[0]); s != iso7816.OK {
			return a.refuse(s)
		}
		groups = groups[1:]
	} else if a.staging[stgOpen] == 0 || cmd.P2 != a.staging[stgNext] {
		return a.refuse(iso7816.ErrConditions)
	}
	for _, g := range groups {
		if s := a.stage(g, channel); s != iso7816.OK {
			return a.refuse(s)
		}
	}
	if cmd.P1&p1Last == 0 {
		a.staging[stgNext] = cmd.P2 + 1
		if a.staging[stgNext] == 0 { // no number is left for another block
			return a.refuse(iso7816.ErrConditions)
		}
		return ok(nil)
	}
	if s := a.complete(); s != iso7816.OK {
		return a.refuse(s)
	}
	if s := a.flip(); s != iso7816.OK {
		return a.refuse(s)
	}
	return ok(nil)
}

// refuse ends the staging: only block 00 can follow.
func (a *application) refuse(s iso7816.SW) iso7816.Response {
	clear(a.staging)
	return sw(s)
}

// inactive returns the slot that is being filled, by number.
func (a *application) inactive() byte {
	if a.byteAt(objControl, ctlActive) == 1 {
		return 2
	}
	return 1
}

// begin discards what was staged and opens the slot that is not served.
func (a *application) begin(g group) iso7816.SW {
	clear(a.staging)
	n := a.inactive()
	if err := a.markDirty(n); err != nil {
		return iso7816.ErrMemoryFailure
	}
	if err := a.zero(slotObject(n)); err != nil {
		return iso7816.ErrMemoryFailure
	}
	allowed := applets.FlagKeepKeys
	if a.typ == applets.TypeCommonAP {
		allowed = 0
	}
	if g.id != applets.DGIBegin || len(g.data) != 1 || g.data[0]&^allowed != 0 {
		return iso7816.ErrWrongData
	}
	a.staging[stgOpen] = 1
	if g.data[0]&applets.FlagKeepKeys == 0 {
		return iso7816.OK
	}
	from, personalized := a.active()
	if !personalized {
		return iso7816.ErrConditions
	}
	all := a.bytesAt(from, slotKeys, a.keySets*applets.SizeKeySet)
	defer clear(all)
	if err := a.put(slotKeys, all); err != nil {
		return iso7816.ErrMemoryFailure
	}
	if err := a.put(slotKeySets, []byte{a.byteAt(from, slotKeySets)}); err != nil {
		return iso7816.ErrMemoryFailure
	}
	a.staging[stgParts] |= partKeys | partKept
	return iso7816.OK
}

// put writes into the slot that is being filled. Nobody reads it before the
// flip, so the write need not be atomic.
func (a *application) put(offset int, p []byte) error {
	return a.card.WriteNonAtomic(slotObject(a.inactive()), offset, p)
}

// stage takes one data group in.
func (a *application) stage(g group, channel card.SecureChannel) iso7816.SW {
	secured := a.typ != applets.TypeCommonAP
	switch {
	case g.id == applets.DGIRecord:
		return a.stageRecord(g.data)
	case g.id == applets.DGITag:
		return a.stageTag(g.data)
	case g.id == applets.DGIItems && secured:
		return a.stageItems(g.data)
	case g.id == applets.DGIKeys && secured:
		return a.stageKeys(g.data, channel)
	case g.id == applets.DGIPIN && a.pin:
		return a.stagePIN(g.data, channel)
	}
	return iso7816.ErrDataNotFound
}

// once reports whether a part has not come before, and notes that it has.
func (a *application) once(part byte) bool {
	fresh := a.staging[stgParts]&part == 0
	a.staging[stgParts] |= part
	return fresh
}

func (a *application) stageRecord(b []byte) iso7816.SW {
	if len(b) > applets.MaxRecord {
		return iso7816.ErrNoMemory
	}
	if _, wellFormed := issueNumber(b); !wellFormed || !a.once(partRecord) {
		return iso7816.ErrWrongData
	}
	if a.put(slotRecord, b) != nil || a.put(slotRecordLen, []byte{byte(len(b))}) != nil {
		return iso7816.ErrMemoryFailure
	}
	return iso7816.OK
}

// issueNumber walks over EF.ID, which must be data objects to its end, and
// returns what tag C3 says. What the others mean is the terminal's business.
func issueNumber(record []byte) ([]byte, bool) {
	list, err := iso7816.ParseTLVs(record)
	if err != nil {
		return nil, false
	}
	t, found := iso7816.Find(list, 0xC3)
	return t.Value, found && len(t.Value) == 2
}

func (a *application) stageTag(b []byte) iso7816.SW {
	if len(b) != 16 || !a.once(partTag) {
		return iso7816.ErrWrongData
	}
	if a.put(slotTag, b) != nil {
		return iso7816.ErrMemoryFailure
	}
	return iso7816.OK
}

// stageItems appends a part of EF.ITEMS; its offset must be where the part
// before ended.
func (a *application) stageItems(b []byte) iso7816.SW {
	slot := slotObject(a.inactive())
	have := be16(a.bytesAt(slot, slotItemsLen, 2))
	if len(b) < 3 || be16(b) != have {
		return iso7816.ErrWrongData
	}
	b = b[2:]
	if have+len(b) > a.items {
		return iso7816.ErrNoMemory
	}
	if a.put(slotKeys+a.keySets*applets.SizeKeySet+have, b) != nil {
		return iso7816.ErrMemoryFailure
	}
	have += len(b)
	if a.put(slotItemsLen, []byte{byte(have >> 8), byte(have)}) != nil {
		return iso7816.ErrMemoryFailure
	}
	return iso7816.OK
}

// stageKeys takes a key set: version, key length, key check values of ENC and
// MAC, then both keys under the Security Domain's DEK.
func (a *application) stageKeys(b []byte, channel card.SecureChannel) iso7816.SW {
	const header = 2 + 3 + 3
	if len(b) < header || len(b) != header+2*int(b[1]) || b[1] != 16 && b[1] != 32 || b[0] < 1 || b[0] > 127 {
		return iso7816.ErrWrongData
	}
	slot := slotObject(a.inactive())
	count := int(a.byteAt(slot, slotKeySets))
	if a.staging[stgParts]&partKept != 0 {
		return iso7816.ErrConditions
	}
	if count == a.keySets {
		return iso7816.ErrNoMemory
	}
	at := slotKeys + count*applets.SizeKeySet
	// The newest stands first: what INITIALIZE UPDATE with version 00 takes.
	if count > 0 && a.byteAt(slot, at-applets.SizeKeySet+ksVersion) <= b[0] {
		return iso7816.ErrWrongData
	}
	plain, err := channel.DecryptSensitive(b[header:])
	if err != nil || len(plain) != 2*int(b[1]) {
		return iso7816.ErrSecurityStatus
	}
	defer clear(plain)
	n := int(b[1])
	if !checkValue(plain[:n], b[2:5]) || !checkValue(plain[n:], b[5:8]) {
		return iso7816.ErrSecurityStatus
	}
	var set [applets.SizeKeySet]byte
	defer clear(set[:])
	set[ksVersion], set[ksLength] = b[0], b[1]
	copy(set[ksENC:], plain[:n])
	copy(set[ksMAC:], plain[n:])
	if a.put(at, set[:]) != nil || a.put(slotKeySets, []byte{byte(count + 1)}) != nil {
		return iso7816.ErrMemoryFailure
	}
	a.staging[stgParts] |= partKeys
	return iso7816.OK
}

func checkValue(key, want []byte) bool {
	k, err := keys.NewKey(key)
	if err != nil {
		return false
	}
	defer k.Erase()
	got := k.CheckValue()
	return bytes.Equal(got[:], want)
}

// stagePIN takes a PIN into transient memory, where it is forgotten with the
// staging: limit, flags, then the reference block and its padding under the
// Security Domain's DEK.
func (a *application) stagePIN(b []byte, channel card.SecureChannel) iso7816.SW {
	if len(b) != 2+16 || b[0] < 1 || b[0] > applets.MaxPINLimit || b[1]&^applets.FlagMustChange != 0 || !a.once(partPIN) {
		return iso7816.ErrWrongData
	}
	plain, err := channel.DecryptSensitive(b[2:])
	if err != nil || len(plain) != 16 {
		return iso7816.ErrSecurityStatus
	}
	defer clear(plain)
	if string(plain[12:]) != applets.PINPadding || !wellFormedPIN(plain[:12]) {
		return iso7816.ErrSecurityStatus
	}
	copy(a.staging[stgPIN:], b[:2])
	copy(a.staging[stgPIN+2:], plain[:12])
	return iso7816.OK
}

// complete says whether the staged slot holds all that this instance needs.
func (a *application) complete() iso7816.SW {
	need := partRecord | partTag
	if a.typ != applets.TypeCommonAP {
		need |= partKeys
	}
	if a.pin && a.byteAt(objPIN, pinLimit) == 0 {
		need |= partPIN
	}
	if a.staging[stgParts]&need != need {
		return iso7816.ErrConditions
	}
	slot := slotObject(a.inactive())
	if n := be16(a.bytesAt(slot, slotItemsLen, 2)); n > 0 {
		file := a.bytesAt(slot, slotKeys+a.keySets*applets.SizeKeySet, n)
		outer, err := iso7816.ParseSingleTLV(file, 0xE1)
		if err != nil {
			return iso7816.ErrWrongData // its last part is missing, for one
		}
		if _, err := outer.Children(); err != nil {
			return iso7816.ErrWrongData
		}
	}
	return iso7816.OK
}

// flip makes the staged slot the one that is served: one transaction of 2
// bytes, 15 for a PIN and the life cycle state. The slot that was served before
// is wiped after it; its mark is part of the transaction.
func (a *application) flip() iso7816.SW {
	old := a.byteAt(objControl, ctlActive)
	err := a.transaction(func() error {
		if err := a.card.Write(objControl, 0, []byte{a.inactive(), dirtyBit(old)}); err != nil {
			return err
		}
		if a.staging[stgParts]&partPIN != 0 {
			pin := a.staging[stgPIN : stgPIN+14]
			if err := a.card.Write(objPIN, 0, append([]byte{pin[0]}, pin...)); err != nil {
				return err
			}
		}
		if a.card.LifeCycle() == card.Personalized {
			return nil
		}
		return a.card.SetLifeCycle(card.Personalized)
	})
	if err != nil {
		return iso7816.ErrMemoryFailure
	}
	clear(a.staging)
	if err := a.finishWipe(); err != nil {
		return iso7816.ErrMemoryFailure
	}
	return iso7816.OK
}

func (a *application) transaction(f func() error) error {
	if err := a.card.Begin(); err != nil {
		return err
	}
	if err := f(); err != nil {
		a.card.Abort()
		return err
	}
	return a.card.Commit()
}

// wipe erases everything. The instance is empty from the commit on; the bytes
// follow, and are finished later where power is lost before the end.
func (a *application) wipe(cmd iso7816.Command, groups []group) iso7816.Response {
	switch {
	case len(groups) != 1 || string(groups[0].data) != applets.WipeWord:
		return a.refuse(iso7816.ErrWrongData)
	case cmd.P2 != 0 || cmd.P1&p1Last == 0:
		return a.refuse(iso7816.ErrIncorrectP1P2)
	}
	clear(a.staging)
	err := a.transaction(func() error {
		if err := a.card.Write(objControl, 0, []byte{0, dirtyBit(1) | dirtyBit(2)}); err != nil {
			return err
		}
		if a.pin {
			if err := a.card.Write(objPIN, 0, make([]byte, applets.SizePIN)); err != nil {
				return err
			}
		}
		if a.card.LifeCycle() == card.Selectable {
			return nil
		}
		return a.card.SetLifeCycle(card.Selectable)
	})
	if err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	if err := a.finishWipe(); err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	return ok(nil)
}

func dirtyBit(slot byte) byte {
	if slot == 0 {
		return 0
	}
	return 1 << (slot - 1)
}

func (a *application) markDirty(slot byte) error {
	if a.byteAt(objControl, ctlDirty) == dirtyBit(slot) {
		return nil
	}
	return a.card.Write(objControl, ctlDirty, []byte{dirtyBit(slot)})
}

// finishWipe wipes the slots that are marked; where none is, nothing is
// written. It ends a staging, whose slot is marked as long as it lasts.
func (a *application) finishWipe() error {
	dirty := a.byteAt(objControl, ctlDirty)
	if dirty == 0 {
		return nil
	}
	clear(a.staging)
	for slot := byte(1); slot <= 2; slot++ {
		if dirty&dirtyBit(slot) != 0 {
			if err := a.zero(slotObject(slot)); err != nil {
				return err
			}
		}
	}
	return a.card.Write(objControl, ctlDirty, []byte{0})
}

func (a *application) zero(h card.Handle) error {
	return a.card.WriteNonAtomic(h, 0, make([]byte, a.card.Size(h)))
}

// observe answers what the instance says of itself to its Security Domain. It
// leaves a staging as it is.
func (a *application) observe(groups []group) iso7816.Response {
	switch {
	case len(groups) != 1 || groups[0].id != applets.DGIObserve:
		return sw(iso7816.ErrDataNotFound)
	case len(groups[0].data) != 0:
		return sw(iso7816.ErrWrongData)
	}
	number := a.byteAt(objControl, ctlActive)
	slot, personalized := a.active()
	secured := a.typ != applets.TypeCommonAP
	out := iso7816.AppendTLV(nil, applets.TagObservedType, []byte{a.typ, applets.ProtocolVersion})
	out = iso7816.AppendTLV(out, applets.TagObservedState, []byte{a.card.LifeCycle(), number})
	if secured {
		out = iso7816.AppendTLV(out, applets.TagObservedDiversification, a.diversification[:])
	}
	if secured && personalized {
		out = iso7816.AppendTLV(out, applets.TagObservedKeyVersions, a.versions(slot))
	}
	if personalized {
		out = iso7816.AppendTLV(out, applets.TagObservedTag, a.bytesAt(slot, slotTag, 16))
		if n, wellFormed := issueNumber(a.record(slot)); wellFormed {
			out = iso7816.AppendTLV(out, applets.TagObservedIssueNumber, n)
		}
	}
	if secured {
		spec := []byte{byte(a.keySets), byte(a.items >> 8), byte(a.items), 0}
		if a.pin {
			spec[3] = 1
		}
		out = iso7816.AppendTLV(out, applets.TagObservedSpec, spec)
	}
	if a.pin && a.byteAt(objPIN, pinLimit) != 0 {
		out = iso7816.AppendTLV(out, applets.TagObservedPIN, a.bytesAt(objPIN, 0, pinBlock))
	}
	return ok(out)
}
