// Package oncard is the file application's behaviour on a card, over
// emulator/oncard. docs/file-application.md says what every command answers.
package oncard

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/applets/files"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/iso7816"
)

// ErrForgedLoadFile reports a load file that has the file application's
// package AID and is not its load file.
var ErrForgedLoadFile = errors.New("load file is not the file application's, whose AID it has")

// Linker makes the file application's load file executable on an emulated
// card. It goes by the SHA-256 of the load file data block.
type Linker struct{}

var _ card.Linker = Linker{}

// Link implements the emulator's boundary.
func (Linker) Link(pkg iso7816.AID, loadFile []byte, sha256 [32]byte) (map[iso7816.AID]card.Module, error) {
	if pkg != files.Package {
		return nil, nil
	}
	if !files.IsLoadFile(sha256) {
		return nil, fmt.Errorf("%w: %v has SHA-256 %X, %X expected", ErrForgedLoadFile, pkg, sha256, files.LoadFileHash())
	}
	return map[iso7816.AID]card.Module{files.Module: module{}}, nil
}

type module struct{}

// Objects, in the order of their allocation.
const (
	objConfig card.Handle = iota
	objControl
	objSlot1
	objSlot2
	objPINs // the first of them
)

// The configuration object, written at installation and never again.
const (
	cfgVersion  = 0
	cfgPINs     = 1
	cfgCapacity = 2 // 2 bytes
)

// The control object.
const (
	ctlActive = 0 // slot that is served: 1, 2, or 0 for none
	ctlDirty  = 1 // bit n-1: slot n is to be wiped
)

// A slot: the number of bytes used, then file after file.
const (
	slotUsed  = 0 // 2 bytes
	slotFiles = files.SizeSlotHeader
)

// A file in a slot: header and content.
const (
	fileID      = 0 // 2 bytes
	fileSFI     = 2
	fileKind    = 3
	fileAccess  = 4
	fileLength  = 5 // 2 bytes
	fileContent = files.SizeFileHeader
)

// A PIN object. A limit of 0 says that there is none.
const (
	pinID    = 0 // 2 bytes
	pinSFI   = 2
	pinTries = 3
	pinLimit = 4
	pinFlags = 5
	pinBlock = 6 // 12 bytes
)

// Transient memory.
const (
	volVerified = 0 // bit n: PIN object n
	volHave     = 1 // there is a current EF
	volCurrent  = 2 // its identifier, 2 bytes
	volSize     = 4

	stgOpen = 0
	stgNext = 1 // number of the block that is expected
	stgHave = 2 // there is a file that content belongs to
	stgFile = 3 // its place in the slot, 2 bytes
	stgMore = 5 // bytes that its content group still has, 2 bytes
	stgPINs = 7 // a PIN object each
)

// Install checks the parameters, allocates everything and writes the
// configuration.
func (module) Install(c card.Card, p card.InstallParameters) error {
	list, err := iso7816.ParseTLVs(p.Specific)
	if err != nil || len(list) != 3 {
		return iso7816.ErrWrongData
	}
	for i, want := range []struct {
		tag iso7816.Tag
		n   int
	}{{files.TagParamVersion, 1}, {files.TagParamCapacity, 2}, {files.TagParamPINs, 1}} {
		if list[i].Tag != want.tag || len(list[i].Value) != want.n {
			return iso7816.ErrWrongData
		}
	}
	version, capacity, pins := list[0].Value[0], be16(list[1].Value), list[2].Value[0]
	if version != files.Version || capacity < 1 || capacity > files.MaxCapacity || pins > files.MaxPINs {
		return iso7816.ErrWrongData
	}
	sizes := []int{files.SizeConfig, files.SizeControl, files.SizeSlotHeader + capacity, files.SizeSlotHeader + capacity}
	for range pins {
		sizes = append(sizes, files.SizePIN)
	}
	for _, n := range sizes {
		if _, err := c.Alloc(n); err != nil {
			return err
		}
	}
	return c.Write(objConfig, 0, []byte{version, pins, byte(capacity >> 8), byte(capacity)})
}

// Open attaches behaviour to an instance.
func (module) Open(c card.Card) (card.Application, error) {
	a := &application{card: c}
	var config [files.SizeConfig]byte
	c.Read(objConfig, 0, config[:])
	a.pins, a.capacity = int(config[cfgPINs]), be16(config[cfgCapacity:])
	var err error
	if a.staging, err = c.Transient(stgPINs+a.pins*files.SizePIN, card.OnReset); err != nil {
		return nil, err
	}
	a.volatile, err = c.Transient(volSize, card.OnDeselect)
	return a, err
}

func be16(b []byte) int { return int(b[0])<<8 | int(b[1]) }

func put16(b []byte, n int) { b[0], b[1] = byte(n>>8), byte(n) }
