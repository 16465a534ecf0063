package oncard

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/applets"
	card "github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// ErrForgedLoadFile reports a load file that has the base package's AID and is
// not the base load file.
var ErrForgedLoadFile = errors.New("load file is not the base load file whose AID it has")

// Linker makes the base load file executable on an emulated card: natively,
// since it holds no bytecode yet. It goes by the SHA-256 of the load file data
// block; a package that has the base AID and another hash is refused.
type Linker struct{}

var _ card.Linker = Linker{}

// Link implements the emulator's boundary.
func (Linker) Link(pkg iso7816.AID, loadFile []byte, sha256 [32]byte) (map[iso7816.AID]card.Module, error) {
	if pkg != applets.BasePackage {
		return nil, nil
	}
	if !applets.IsBaseLoadFile(sha256) {
		return nil, fmt.Errorf("%w: %v has SHA-256 %X, %X expected", ErrForgedLoadFile, pkg, sha256, applets.BaseLoadFileHash())
	}
	return Modules(), nil
}

// Modules returns the modules of the base load file by AID.
func Modules() map[iso7816.AID]card.Module {
	return map[iso7816.AID]card.Module{
		applets.ModuleCommonAP: module{applets.TypeCommonAP},
		applets.ModuleTypeA:    module{applets.TypeA},
		applets.ModuleTypeD:    module{applets.TypeD},
	}
}

type module struct{ typ byte }

// Objects, in the order of their allocation.
const (
	objConfig card.Handle = iota
	objControl
	objSlot1
	objSlot2
	objPIN // only where the instance has a PIN
)

// The configuration object, written at installation and never again.
const (
	cfgVersion = 0
	cfgType    = 1
	cfgKeySets = 2
	cfgItems   = 3 // 2 bytes
	cfgPIN     = 5
	cfgData    = 6 // diversification data, 10 bytes
)

// The control object.
const (
	ctlActive = 0 // slot that is served: 1, 2, or 0 for none
	ctlDirty  = 1 // bit n-1: slot n is to be wiped
)

// A slot.
const (
	slotRecordLen = 0
	slotItemsLen  = 1 // 2 bytes
	slotKeySets   = 3
	slotTag       = 4 // 16 bytes
	slotRecord    = applets.SizeSlotHeader
	slotKeys      = slotRecord + applets.MaxRecord // then EF.ITEMS
)

// A key set in a slot.
const (
	ksVersion = 0
	ksLength  = 1
	ksENC     = 2
	ksMAC     = 34
)

// The PIN object. A limit of 0 says that none is set.
const (
	pinTries = 0
	pinLimit = 1
	pinFlags = 2
	pinBlock = 3 // 12 bytes
)

// Transient memory.
const (
	volChallenge = 0 // 16 bytes
	volHave      = 16
	volVerified  = 17
	volFile      = 18 // short identifier of the current file, 0 for none
	volSize      = 19

	stgOpen  = 0
	stgNext  = 1 // number of the block that is expected
	stgParts = 2 // what has come, see part…
	stgPIN   = 3 // limit, flags, reference block: 14 bytes
	stgSize  = 17
)

const (
	partRecord byte = 1 << iota
	partTag
	partKeys
	partPIN
	partKept // the keys are those of the served slot
)

// Install checks the parameters, allocates everything and writes the
// configuration.
func (m module) Install(c card.Card, p card.InstallParameters) error {
	config, err := m.config(p.Specific)
	if err != nil {
		return err
	}
	slot := slotKeys + int(config[cfgKeySets])*applets.SizeKeySet + be16(config[cfgItems:])
	sizes := []int{applets.SizeConfig, applets.SizeControl, slot, slot}
	if config[cfgPIN] != 0 {
		sizes = append(sizes, applets.SizePIN)
	}
	for _, n := range sizes {
		if _, err := c.Alloc(n); err != nil {
			return err
		}
	}
	return c.Write(objConfig, 0, config)
}

// config reads the install parameters into the bytes of the configuration
// object.
func (m module) config(params []byte) ([]byte, error) {
	list, err := iso7816.ParseTLVs(params)
	if err != nil {
		return nil, iso7816.ErrWrongData
	}
	config := make([]byte, applets.SizeConfig)
	config[cfgType] = m.typ
	fields := []struct {
		tag iso7816.Tag
		at  int
		n   int
	}{
		{applets.TagParamVersion, cfgVersion, 1},
		{applets.TagParamDiversification, cfgData, 10},
		{applets.TagParamKeySets, cfgKeySets, 1},
		{applets.TagParamItems, cfgItems, 2},
		{applets.TagParamPIN, cfgPIN, 1},
	}
	if m.typ == applets.TypeCommonAP {
		fields = fields[:1]
	}
	if len(list) != len(fields) {
		return nil, iso7816.ErrWrongData
	}
	for i, f := range fields {
		if list[i].Tag != f.tag || len(list[i].Value) != f.n {
			return nil, iso7816.ErrWrongData
		}
		copy(config[f.at:], list[i].Value)
	}
	keySets, items := int(config[cfgKeySets]), be16(config[cfgItems:])
	if config[cfgVersion] != applets.ProtocolVersion || items > applets.MaxItemsFile || config[cfgPIN] > 1 ||
		m.typ != applets.TypeCommonAP && (keySets < 1 || keySets > applets.MaxKeySets) {
		return nil, iso7816.ErrWrongData
	}
	return config, nil
}

// Open attaches behaviour to an instance.
func (m module) Open(c card.Card) (card.Application, error) {
	a := &application{card: c, typ: m.typ}
	config := make([]byte, applets.SizeConfig)
	c.Read(objConfig, 0, config)
	a.keySets, a.items, a.pin = int(config[cfgKeySets]), be16(config[cfgItems:]), config[cfgPIN] != 0
	a.diversification = [10]byte(config[cfgData:])
	var err error
	if a.staging, err = c.Transient(stgSize, card.OnReset); err != nil {
		return nil, err
	}
	if a.typ == applets.TypeCommonAP {
		return a, nil
	}
	if a.volatile, err = c.Transient(volSize, card.OnDeselect); err != nil {
		return nil, err
	}
	a.channel = scp.NewCardSession(scp.CardOptions{
		DiversificationData: a.diversification,
		Rand:                c.Random(),
		Accept:              a.accepts,
		Keys:                a.keySet,
	})
	return a, nil
}

func be16(b []byte) int { return int(b[0])<<8 | int(b[1]) }
