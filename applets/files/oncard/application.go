package oncard

import (
	"crypto/subtle"

	"github.com/freearea/freearea/applets/files"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// application is an instance's behaviour. Its fields are what was fixed at
// installation and handles to transient memory.
type application struct {
	card              card.Card
	pins, capacity    int
	volatile, staging []byte // see vol…, stg…
}

var (
	_ card.Application    = (*application)(nil)
	_ card.Personalizable = (*application)(nil)
)

func sw(s iso7816.SW) iso7816.Response { return iso7816.Response{SW: s} }

func ok(data []byte) iso7816.Response { return iso7816.Response{Data: data, SW: iso7816.OK} }

func (a *application) byteAt(h card.Handle, offset int) byte {
	return a.bytesAt(h, offset, 1)[0]
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

// file is a file of a slot, or a PIN file.
type file struct {
	id, sfi, kind int
	access        byte
	slot          card.Handle
	at, length    int         // of the content
	pin           card.Handle // objPINs and up; 0 for the others
}

// files lists what a slot holds.
func (a *application) files(slot card.Handle) []file {
	var out []file
	used := be16(a.bytesAt(slot, slotUsed, 2))
	for at := slotFiles; at < slotFiles+used; {
		h := a.bytesAt(slot, at, files.SizeFileHeader)
		f := file{
			id: be16(h[fileID:]), sfi: int(h[fileSFI]), kind: int(h[fileKind]), access: h[fileAccess],
			slot: slot, at: at + fileContent, length: be16(h[fileLength:]),
		}
		out = append(out, f)
		at = f.at + f.length
	}
	return out
}

// pinFiles lists the PINs that are set.
func (a *application) pinFiles() []file {
	var out []file
	for i := range a.pins {
		h := objPINs + card.Handle(i)
		b := a.bytesAt(h, 0, pinBlock)
		if b[pinLimit] != 0 {
			out = append(out, file{id: be16(b[pinID:]), sfi: int(b[pinSFI]), access: files.AccessNever, pin: h})
		}
	}
	return out
}

// find returns the elementary file that f accepts; data objects are none.
func (a *application) find(slot card.Handle, f func(file) bool) (file, bool) {
	for _, x := range append(a.files(slot), a.pinFiles()...) {
		if x.kind != int(files.KindDataObject) && f(x) {
			return x, true
		}
	}
	return file{}, false
}

// Select answers the FCI. What was left to be wiped when power was lost is
// wiped now: it is the first time that the instance is called again.
func (a *application) Select(iso7816.Command) iso7816.Response {
	clear(a.volatile)
	if err := a.finishWipe(); err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	fci := iso7816.AppendTLV(nil, 0x84, a.card.AID().Bytes())
	fci = iso7816.AppendTLV(fci, 0xA5, iso7816.AppendTLV(nil, 0x80, []byte{files.Version}))
	return ok(iso7816.AppendTLV(nil, 0x6F, fci))
}

// Deselect forgets what was verified.
func (a *application) Deselect() { clear(a.volatile) }

// Process handles every command but the SELECT that chose this instance.
func (a *application) Process(cmd iso7816.Command) iso7816.Response {
	switch {
	case cmd.CLA&^0x0F != 0:
		return sw(iso7816.ErrUnknownCLA)
	case cmd.CLA&0x03 != 0:
		return sw(iso7816.ErrLogicalChannel)
	case cmd.CLA&0x0C != 0:
		return sw(iso7816.ErrSecureMessaging)
	case cmd.INS == files.InsSelect && cmd.P1 == 0x04:
		return sw(iso7816.ErrNotFound) // by AID: no application has it (GPCS 6.4.2.1.2)
	}
	slot, personalized := a.active()
	var run func(card.Handle, iso7816.Command) iso7816.Response
	switch cmd.INS {
	case files.InsSelect:
		run = a.selectFile
	case files.InsReadBinary:
		run = a.readBinary
	case files.InsReadRecord:
		run = a.readRecord
	case files.InsGetData:
		run = a.getData
	case files.InsVerify:
		run = a.verify
	case files.InsChangeReference:
		run = a.changeReference
	default:
		return sw(iso7816.ErrUnknownINS)
	}
	if !personalized {
		return sw(iso7816.ErrConditions)
	}
	return run(slot, cmd)
}

// selectFile is SELECT of an EF by its identifier (ISO/IEC 7816-4, 11.2.2).
func (a *application) selectFile(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	switch {
	case cmd.P1 != 0x00 && cmd.P1 != 0x02, cmd.P2 != 0x04 && cmd.P2 != 0x0C:
		return sw(iso7816.ErrIncorrectP1P2)
	case len(cmd.Data) != 2 || cmd.P2 == 0x0C && cmd.Ne != 0:
		return sw(iso7816.ErrWrongLength)
	}
	id := be16(cmd.Data)
	f, found := a.find(slot, func(f file) bool { return f.id == id })
	if !found {
		return sw(iso7816.ErrNotFound)
	}
	a.setCurrent(f)
	if cmd.P2 == 0x0C {
		return ok(nil)
	}
	// Table 12: file descriptor byte of an internal, transparent or linear
	// variable EF.
	descriptor := byte(0x08)
	switch byte(f.kind) {
	case files.KindTransparent:
		descriptor = 0x01
	case files.KindRecords:
		descriptor = 0x04
	}
	fcp := iso7816.AppendTLV(nil, 0x80, []byte{byte(f.length >> 8), byte(f.length)})
	fcp = iso7816.AppendTLV(fcp, 0x82, []byte{descriptor})
	fcp = iso7816.AppendTLV(fcp, 0x83, cmd.Data)
	if f.sfi != 0 {
		fcp = iso7816.AppendTLV(fcp, 0x88, []byte{byte(f.sfi << 3)})
	}
	return ok(iso7816.AppendTLV(nil, 0x62, fcp))
}

func (a *application) setCurrent(f file) {
	a.volatile[volHave] = 1
	put16(a.volatile[volCurrent:], f.id)
}

// bySFI finds the file with a short identifier; 0 is the current one.
func (a *application) bySFI(slot card.Handle, sfi int) (file, iso7816.SW) {
	if sfi == 0 {
		if a.volatile[volHave] == 0 {
			return file{}, iso7816.ErrNotAllowed
		}
		id := be16(a.volatile[volCurrent:])
		f, found := a.find(slot, func(f file) bool { return f.id == id })
		if !found {
			return file{}, iso7816.ErrNotAllowed // another personalisation came in between
		}
		return f, iso7816.OK
	}
	f, found := a.find(slot, func(f file) bool { return f.sfi == sfi })
	if !found {
		return file{}, iso7816.ErrNotFound
	}
	return f, iso7816.OK
}

const wrongStructure iso7816.SW = 0x6981 // command incompatible with file structure

// readable says whether a file of the kind may be read now.
func (a *application) readable(f file, kind byte) iso7816.SW {
	switch {
	case f.pin != 0 || f.kind != int(kind):
		return wrongStructure
	case f.access == files.AccessFree:
		return iso7816.OK
	}
	for _, p := range a.pinFiles() {
		if f.access != files.AccessNever && p.sfi == int(f.access) && a.volatile[volVerified]&a.pinBit(p.pin) != 0 {
			return iso7816.OK
		}
	}
	return iso7816.ErrSecurityStatus
}

func (a *application) pinBit(h card.Handle) byte { return 1 << (h - objPINs) }

// readBinary is READ BINARY by short identifier (P1 = 80 + SFI, P2 = offset)
// or in the current file (P1 P2 = offset of 15 bits); 11.3.3.
func (a *application) readBinary(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	sfi, offset := 0, int(cmd.P1)<<8|int(cmd.P2)
	if cmd.P1&0x80 != 0 {
		if sfi, offset = int(cmd.P1&0x1F), int(cmd.P2); cmd.P1&0x60 != 0 || sfi > files.MaxSFI {
			return sw(iso7816.ErrIncorrectP1P2)
		}
	}
	if len(cmd.Data) != 0 || cmd.Ne == 0 {
		return sw(iso7816.ErrWrongLength)
	}
	f, s := a.bySFI(slot, sfi)
	if s == iso7816.OK {
		s = a.readable(f, files.KindTransparent)
	}
	switch {
	case s != iso7816.OK:
		return sw(s)
	case offset > f.length:
		return sw(iso7816.ErrWrongOffset)
	}
	a.setCurrent(f)
	n := min(f.length-offset, cmd.Ne, iso7816.MaxShortNe)
	return ok(a.bytesAt(f.slot, f.at+offset, n))
}

// readRecord is READ RECORD of one record by its number (P2 = SFI, 4; 11.4.3).
func (a *application) readRecord(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	switch {
	case cmd.P2&0x07 != 0x04 || cmd.P1 == 0 || cmd.P1 == 0xFF || cmd.P2>>3 > files.MaxSFI:
		return sw(iso7816.ErrIncorrectP1P2)
	case len(cmd.Data) != 0 || cmd.Ne == 0:
		return sw(iso7816.ErrWrongLength)
	}
	f, s := a.bySFI(slot, int(cmd.P2>>3))
	if s == iso7816.OK {
		s = a.readable(f, files.KindRecords)
	}
	if s != iso7816.OK {
		return sw(s)
	}
	a.setCurrent(f)
	at, end := f.at, f.at+f.length
	for n := byte(1); at < end; n++ {
		size := int(a.byteAt(f.slot, at))
		if n == cmd.P1 {
			if cmd.Ne < size {
				return sw(iso7816.ErrWrongLength)
			}
			return ok(a.bytesAt(f.slot, at+1, size))
		}
		at += 1 + size
	}
	return sw(iso7816.ErrRecordNotFound)
}

// getData is GET DATA: the value of a data object (P1 P2 = tag; 11.5.3).
func (a *application) getData(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	if len(cmd.Data) != 0 || cmd.Ne == 0 {
		return sw(iso7816.ErrWrongLength)
	}
	tag := int(cmd.P1)<<8 | int(cmd.P2)
	for _, f := range a.files(slot) {
		if f.kind != int(files.KindDataObject) || f.id != tag {
			continue
		}
		if s := a.readable(f, files.KindDataObject); s != iso7816.OK {
			return sw(s)
		}
		if cmd.Ne < f.length {
			return sw(iso7816.ErrWrongLength)
		}
		return ok(a.bytesAt(f.slot, f.at, f.length))
	}
	return sw(iso7816.ErrDataNotFound)
}

// reference finds the PIN that P2 names: 80 + SFI, or 80 for the current EF.
func (a *application) reference(slot card.Handle, cmd iso7816.Command) (card.Handle, iso7816.SW) {
	switch {
	case cmd.P1 != 0:
		return 0, iso7816.ErrIncorrectP1P2
	case cmd.P2&0x80 == 0 || cmd.P2&0x60 != 0 || cmd.P2&0x1F > files.MaxSFI:
		return 0, iso7816.ErrDataNotFound
	}
	f, s := a.bySFI(slot, int(cmd.P2&0x1F))
	switch {
	case s == iso7816.ErrNotFound, s == iso7816.OK && f.pin == 0:
		return 0, iso7816.ErrDataNotFound
	case s != iso7816.OK:
		return 0, s
	case cmd.Ne != 0:
		return 0, iso7816.ErrWrongLength
	}
	return f.pin, iso7816.OK
}

// checkPIN compares with the reference value. The try is gone before the
// comparison begins and outside of any transaction: power lost in between
// costs one and never gives one.
func (a *application) checkPIN(h card.Handle, block []byte) iso7816.SW {
	tries := a.byteAt(h, pinTries)
	if tries == 0 {
		return iso7816.ErrBlocked
	}
	a.volatile[volVerified] &^= a.pinBit(h)
	if err := a.card.WriteOutside(h, pinTries, []byte{tries - 1}); err != nil {
		return iso7816.ErrMemoryFailure
	}
	reference := a.bytesAt(h, pinBlock, files.PINBlock)
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
	return n >= 4
}

// verify is VERIFY (11.6.6); without data it tells the state and spends
// nothing.
func (a *application) verify(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	h, s := a.reference(slot, cmd)
	if s != iso7816.OK {
		return sw(s)
	}
	if len(cmd.Data) == 0 {
		tries := a.byteAt(h, pinTries)
		switch {
		case a.volatile[volVerified]&a.pinBit(h) != 0:
			return ok(nil)
		case tries == 0:
			return sw(iso7816.ErrBlocked)
		}
		return sw(0x63C0 | iso7816.SW(tries))
	}
	switch {
	case len(cmd.Data) != files.PINBlock:
		return sw(iso7816.ErrWrongLength)
	case !wellFormedPIN(cmd.Data):
		return sw(iso7816.ErrWrongData)
	}
	if s := a.checkPIN(h, cmd.Data); s != iso7816.OK {
		return sw(s)
	}
	if err := a.card.WriteOutside(h, pinTries, []byte{a.byteAt(h, pinLimit)}); err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	if a.byteAt(h, pinFlags)&files.FlagMustChange != 0 {
		return sw(iso7816.ErrDataInvalid)
	}
	a.volatile[volVerified] |= a.pinBit(h)
	return ok(nil)
}

// changeReference is CHANGE REFERENCE DATA, old block and new block (11.6.7).
func (a *application) changeReference(slot card.Handle, cmd iso7816.Command) iso7816.Response {
	h, s := a.reference(slot, cmd)
	switch {
	case s != iso7816.OK:
		return sw(s)
	case len(cmd.Data) != 2*files.PINBlock:
		return sw(iso7816.ErrWrongLength)
	}
	old, replacement := cmd.Data[:files.PINBlock], cmd.Data[files.PINBlock:]
	if !wellFormedPIN(old) || !wellFormedPIN(replacement) || subtle.ConstantTimeCompare(old, replacement) == 1 {
		return sw(iso7816.ErrWrongData)
	}
	if s := a.checkPIN(h, old); s != iso7816.OK {
		return sw(s)
	}
	limit := a.byteAt(h, pinLimit)
	// One write: after power is lost it is the old PIN with a try less, or
	// the new one with all.
	if err := a.card.Write(h, pinTries, append([]byte{limit, limit, 0}, replacement...)); err != nil {
		return sw(iso7816.ErrMemoryFailure)
	}
	a.volatile[volVerified] |= a.pinBit(h)
	return ok(nil)
}
