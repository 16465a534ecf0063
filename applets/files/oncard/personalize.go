package oncard

import (
	"github.com/freearea/freearea/applets/files"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// What the Security Domain's channel must have: AUTHENTICATED, C-MAC and
// C-DECRYPTION (AmdD table 7-5).
const channelNeeds = 0x80 | 0x01 | 0x02

// P1 of STORE DATA (GPCS table 11-88).
const (
	p1Last     = 0x80
	p1Format   = 0x18
	p1DGI      = 0x08
	p1BERTLV   = 0x10
	p1RFU      = 0x06
	p1Response = 0x01
)

// Personalize handles STORE DATA. The interface can be called in any state and
// over any channel, so the application looks for itself.
func (a *application) Personalize(cmd iso7816.Command, channel card.SecureChannel) iso7816.Response {
	if channel.Level()&channelNeeds != channelNeeds {
		return sw(iso7816.ErrSecurityStatus)
	}
	if s := a.card.LifeCycle(); s != card.Selectable && s != card.Personalized {
		return sw(iso7816.ErrConditions)
	}
	if cmd.INS != files.InsStoreData {
		return sw(iso7816.ErrUnknownINS)
	}
	if a.staging[stgOpen] == 0 {
		if err := a.finishWipe(); err != nil {
			return sw(iso7816.ErrMemoryFailure)
		}
	}
	format := cmd.P1 & p1Format
	if format != p1DGI && format != p1BERTLV || cmd.P1&(p1RFU|p1Response) != 0 {
		return a.refuse(iso7816.ErrIncorrectP1P2)
	}
	data := cmd.Data
	if cmd.P2 == 0 {
		clear(a.staging)
		id, n, rest, s := header(data, format)
		switch {
		case s == iso7816.OK && n > len(rest):
			s = iso7816.ErrWrongData
		case s == iso7816.OK && id == files.GroupWipe:
			return a.wipe(cmd, rest, n)
		case s == iso7816.OK && (id != files.GroupBegin || n != 1 || rest[0] != 0):
			s = iso7816.ErrWrongData
		}
		if s != iso7816.OK {
			return a.refuse(s)
		}
		if s := a.begin(); s != iso7816.OK {
			return a.refuse(s)
		}
		data = rest[n:]
	} else if a.staging[stgOpen] != format || cmd.P2 != a.staging[stgNext] {
		return a.refuse(iso7816.ErrConditions)
	}
	a.staging[stgOpen] = format
	if s := a.stage(data, format, channel); s != iso7816.OK {
		return a.refuse(s)
	}
	if cmd.P1&p1Last == 0 {
		a.staging[stgNext] = cmd.P2 + 1
		if a.staging[stgNext] == 0 { // no number is left for another block
			return a.refuse(iso7816.ErrConditions)
		}
		return ok(nil)
	}
	s := a.complete()
	if s == iso7816.OK {
		s = a.flip()
	}
	if s != iso7816.OK {
		return a.refuse(s)
	}
	return ok(nil)
}

// refuse ends the staging: only block 00 can follow.
func (a *application) refuse(s iso7816.SW) iso7816.Response {
	clear(a.staging)
	return sw(s)
}

// header reads identifier and length of a group: of a DGI (GPCS 11.1.12), or
// of a data object with a tag of two bytes.
func header(b []byte, format byte) (id, n int, rest []byte, s iso7816.SW) {
	if len(b) < 3 {
		return 0, 0, nil, iso7816.ErrWrongData
	}
	id, n, rest = be16(b), int(b[2]), b[3:]
	long, least := 0, 0
	switch {
	case format == p1DGI && n == 0xFF:
		long, least = 2, 0xFF
	case format == p1BERTLV && n == 0x81:
		long, least = 1, 0x80
	case format == p1BERTLV && n == 0x82:
		long, least = 2, 0x100
	case format == p1BERTLV && n >= 0x80:
		return 0, 0, nil, iso7816.ErrWrongData
	}
	if long > 0 {
		if len(rest) < long {
			return 0, 0, nil, iso7816.ErrWrongData
		}
		n = 0
		for _, x := range rest[:long] {
			n = n<<8 | int(x)
		}
		if rest = rest[long:]; n < least {
			return 0, 0, nil, iso7816.ErrWrongData
		}
	}
	return id, n, rest, iso7816.OK
}

// inactive returns the slot that is being filled, by number.
func (a *application) inactive() byte {
	if a.byteAt(objControl, ctlActive) == 1 {
		return 2
	}
	return 1
}

// begin opens the slot that is not served.
func (a *application) begin() iso7816.SW {
	n := a.inactive()
	if a.byteAt(objControl, ctlDirty) != dirtyBit(n) {
		if err := a.card.Write(objControl, ctlDirty, []byte{dirtyBit(n)}); err != nil {
			return iso7816.ErrMemoryFailure
		}
	}
	if err := a.zero(slotObject(n)); err != nil {
		return iso7816.ErrMemoryFailure
	}
	return iso7816.OK
}

// put writes into the slot that is being filled. Nobody reads it before the
// flip, so the write need not be atomic.
func (a *application) put(offset int, p []byte) iso7816.SW {
	if a.card.WriteNonAtomic(slotObject(a.inactive()), offset, p) != nil {
		return iso7816.ErrMemoryFailure
	}
	return iso7816.OK
}

// stage takes the groups of a block in. Content may go on in the next block;
// every other group ends in the one in which it began.
func (a *application) stage(data []byte, format byte, channel card.SecureChannel) iso7816.SW {
	for len(data) > 0 {
		if more := be16(a.staging[stgMore:]); more > 0 {
			n := min(more, len(data))
			if s := a.content(data[:n]); s != iso7816.OK {
				return s
			}
			put16(a.staging[stgMore:], more-n)
			data = data[n:]
			continue
		}
		id, n, rest, s := header(data, format)
		if s != iso7816.OK {
			return s
		}
		if id == files.GroupContent {
			if s := a.openContent(n, len(rest)); s != iso7816.OK {
				return s
			}
			put16(a.staging[stgMore:], n)
			data = rest
			continue
		}
		if n > len(rest) {
			return iso7816.ErrWrongData
		}
		value := rest[:n]
		data = rest[n:]
		switch id {
		case files.GroupFile:
			s = a.stageFile(value)
		case files.GroupPIN:
			s = a.stagePIN(value, channel)
		default:
			s = iso7816.ErrDataNotFound
		}
		if s != iso7816.OK {
			return s
		}
	}
	return iso7816.OK
}

// stageFile begins a file.
func (a *application) stageFile(b []byte) iso7816.SW {
	if len(b) != 5 || b[0]|b[1] == 0 || b[2] > files.MaxSFI || b[4] > files.MaxSFI && b[4] != files.AccessNever {
		return iso7816.ErrWrongData
	}
	switch b[3] {
	case files.KindTransparent, files.KindRecords:
	case files.KindDataObject:
		if b[2] != 0 {
			return iso7816.ErrWrongData
		}
	default:
		return iso7816.ErrWrongData
	}
	at, s := a.grow(files.SizeFileHeader)
	if s == iso7816.OK {
		s = a.put(at, append(append([]byte(nil), b...), 0, 0))
	}
	a.staging[stgHave] = 1
	put16(a.staging[stgFile:], at)
	return s
}

// grow takes n more bytes of the slot and returns where they begin.
func (a *application) grow(n int) (int, iso7816.SW) {
	used := be16(a.bytesAt(slotObject(a.inactive()), slotUsed, 2))
	if used+n > a.capacity {
		return 0, iso7816.ErrNoMemory
	}
	var b [2]byte
	put16(b[:], used+n)
	return slotFiles + used, a.put(slotUsed, b[:])
}

// openContent begins a content group of n bytes, of which some are there.
func (a *application) openContent(n, there int) iso7816.SW {
	if a.staging[stgHave] == 0 {
		return iso7816.ErrConditions
	}
	slot, at := slotObject(a.inactive()), be16(a.staging[stgFile:])
	length := be16(a.bytesAt(slot, at+fileLength, 2))
	switch a.byteAt(slot, at+fileKind) {
	case files.KindRecords:
		if n < 1 || n > files.MaxRecordSize || n > there {
			return iso7816.ErrWrongData
		}
		return a.content([]byte{byte(n)})
	case files.KindDataObject:
		if length+n > files.MaxDataObject {
			return iso7816.ErrWrongData
		}
	}
	if n > a.capacity {
		return iso7816.ErrNoMemory // before any of it is written
	}
	return iso7816.OK
}

// content appends to the file.
func (a *application) content(b []byte) iso7816.SW {
	to, s := a.grow(len(b))
	if s == iso7816.OK {
		s = a.put(to, b)
	}
	if s != iso7816.OK {
		return s
	}
	at := be16(a.staging[stgFile:]) + fileLength
	var n [2]byte
	put16(n[:], be16(a.bytesAt(slotObject(a.inactive()), at, 2))+len(b))
	return a.put(at, n[:])
}

// stagePIN takes a PIN into transient memory, where it is forgotten with the
// staging.
func (a *application) stagePIN(b []byte, channel card.SecureChannel) iso7816.SW {
	const head = 5
	if len(b) != head+16 || b[0]|b[1] == 0 || b[2] < 1 || b[2] > files.MaxSFI ||
		b[3] < 1 || b[3] > files.MaxPINLimit || b[4]&^files.FlagMustChange != 0 {
		return iso7816.ErrWrongData
	}
	n := -1
	for i := range a.pins {
		staged := a.staging[stgPINs+i*files.SizePIN:]
		current := a.bytesAt(objPINs+card.Handle(i), 0, pinBlock)
		switch {
		case staged[pinLimit] != 0 && be16(staged) == be16(b):
			return iso7816.ErrWrongData // twice
		case current[pinLimit] != 0 && be16(current) == be16(b): // set anew
			n = i
		case n < 0 && staged[pinLimit] == 0 && current[pinLimit] == 0:
			n = i
		}
	}
	if n < 0 {
		return iso7816.ErrNoMemory
	}
	plain, err := channel.DecryptSensitive(b[head:])
	if err != nil || len(plain) != 16 {
		return iso7816.ErrSecurityStatus
	}
	defer clear(plain)
	if string(plain[files.PINBlock:]) != files.PINPadding || !wellFormedPIN(plain[:files.PINBlock]) {
		return iso7816.ErrSecurityStatus
	}
	to := a.staging[stgPINs+n*files.SizePIN:]
	copy(to[pinID:], b[:3])
	to[pinTries], to[pinLimit], to[pinFlags] = b[3], b[3], b[4]
	copy(to[pinBlock:], plain[:files.PINBlock])
	return iso7816.OK
}

// complete says whether what was staged is a set of files: identifiers once
// each, and a PIN for every file that asks for one.
func (a *application) complete() iso7816.SW {
	if be16(a.staging[stgMore:]) != 0 {
		return iso7816.ErrWrongData
	}
	list := a.files(slotObject(a.inactive()))
	if len(list) == 0 {
		return iso7816.ErrConditions
	}
	pins := map[int]bool{}
	for i := range a.pins {
		b := a.bytesAt(objPINs+card.Handle(i), 0, pinBlock)
		if staged := a.staging[stgPINs+i*files.SizePIN:]; staged[pinLimit] != 0 {
			b = staged[:pinBlock]
		}
		if b[pinLimit] != 0 {
			list = append(list, file{id: be16(b[pinID:]), sfi: int(b[pinSFI])})
			pins[int(b[pinSFI])] = true
		}
	}
	seen := map[[2]int]bool{} // data objects are another name space
	for _, f := range list {
		object := 0
		if f.kind == int(files.KindDataObject) {
			object = 1
		}
		id, sfi := [2]int{object, f.id}, [2]int{2, f.sfi}
		if seen[id] || f.sfi != 0 && seen[sfi] {
			return iso7816.ErrWrongData
		}
		seen[id], seen[sfi] = true, true
		if f.access != files.AccessFree && f.access != files.AccessNever && !pins[int(f.access)] {
			return iso7816.ErrConditions
		}
	}
	return iso7816.OK
}

// flip makes the staged slot the one that is served: one transaction of 2
// bytes, 18 for each PIN and the life cycle state. The slot that was served
// before is wiped after it; its mark is part of the transaction.
func (a *application) flip() iso7816.SW {
	old := a.byteAt(objControl, ctlActive)
	err := a.transaction(func() error {
		if err := a.card.Write(objControl, 0, []byte{a.inactive(), dirtyBit(old)}); err != nil {
			return err
		}
		for i := range a.pins {
			staged := a.staging[stgPINs+i*files.SizePIN:][:files.SizePIN]
			if staged[pinLimit] == 0 {
				continue
			}
			if err := a.card.Write(objPINs+card.Handle(i), 0, staged); err != nil {
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
	clear(a.volatile)
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
func (a *application) wipe(cmd iso7816.Command, value []byte, n int) iso7816.Response {
	switch {
	case n != len(value) || string(value) != files.WipeWord:
		return a.refuse(iso7816.ErrWrongData)
	case cmd.P1&p1Last == 0:
		return a.refuse(iso7816.ErrIncorrectP1P2)
	}
	err := a.transaction(func() error {
		if err := a.card.Write(objControl, 0, []byte{0, dirtyBit(1) | dirtyBit(2)}); err != nil {
			return err
		}
		for i := range a.pins {
			if err := a.card.Write(objPINs+card.Handle(i), 0, make([]byte, files.SizePIN)); err != nil {
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
	clear(a.volatile)
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
