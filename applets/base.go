package applets

import (
	"errors"
	"fmt"
	"slices"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// Errors of building what is sent to a card.
var (
	// ErrSpec: the profile has no such instance.
	ErrSpec = errors.New("instance not possible with this profile")
	// ErrContent: the profile does not hold such content.
	ErrContent = errors.New("content not possible with this profile")
	// ErrMalformedObservation: the answer to ObservationRequest is none.
	ErrMalformedObservation = errors.New("malformed observation")
)

// base is one of the three base applications.
type base struct {
	name   string
	typ    byte
	module iso7816.AID
	traits Traits
	levels []scp.Level // that express reading and SCP03 accept, the type's own first
}

var (
	commonAP Profile = &base{name: "common-ap", typ: TypeCommonAP, module: ModuleCommonAP}
	typeA    Profile = &secured{base{
		name: "type-a", typ: TypeA, module: ModuleTypeA,
		traits: Traits{MutualAuthentication: true, PIN: true, Items: true},
		levels: []scp.Level{scp.CDecRMAC, scp.CMACRMAC, scp.Full},
	}}
	typeD Profile = &secured{base{
		name: "type-d", typ: TypeD, module: ModuleTypeD,
		traits: Traits{MutualAuthentication: true, Encryption: true, PIN: true, Items: true},
		levels: []scp.Level{scp.Full},
	}}
)

// secured is a base application with a PIN to change.
type secured struct{ base }

// BaseModule returns the AID of a base profile's module in the base load
// file.
func BaseModule(profile string) (iso7816.AID, bool) {
	switch profile {
	case "common-ap":
		return ModuleCommonAP, true
	case "type-a":
		return ModuleTypeA, true
	case "type-d":
		return ModuleTypeD, true
	}
	return iso7816.AID{}, false
}

func (p *base) Name() string   { return p.name }
func (p *base) Traits() Traits { return p.traits }

func (p *base) checkSpec(s InstallSpec) error {
	if !p.traits.MutualAuthentication {
		if s != (InstallSpec{}) {
			return fmt.Errorf("%w: %s has no keys, items, PIN or diversification data", ErrSpec, p.name)
		}
		return nil
	}
	switch {
	case s.KeySets < 1 || s.KeySets > MaxKeySets:
		return fmt.Errorf("%w: %d key sets, 1 to %d allowed", ErrSpec, s.KeySets, MaxKeySets)
	case s.ItemsCapacity < 0 || s.ItemsCapacity > MaxItemsFile:
		return fmt.Errorf("%w: %d bytes for items, 0 to %d allowed", ErrSpec, s.ItemsCapacity, MaxItemsFile)
	case s.DiversificationData == [10]byte{}:
		return fmt.Errorf("%w: diversification data not drawn", ErrSpec)
	}
	return nil
}

func (p *base) InstallParameters(s InstallSpec) ([]byte, error) {
	if err := p.checkSpec(s); err != nil {
		return nil, err
	}
	b := iso7816.AppendTLV(nil, TagParamVersion, []byte{ProtocolVersion})
	if !p.traits.MutualAuthentication {
		return b, nil
	}
	b = iso7816.AppendTLV(b, TagParamDiversification, s.DiversificationData[:])
	b = iso7816.AppendTLV(b, TagParamKeySets, []byte{byte(s.KeySets)})
	b = iso7816.AppendTLV(b, TagParamItems, []byte{byte(s.ItemsCapacity >> 8), byte(s.ItemsCapacity)})
	return iso7816.AppendTLV(b, TagParamPIN, []byte{flag(s.PIN, 1)}), nil
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

func (p *base) PersistentMemory(s InstallSpec) int {
	n := SizeCommonAP
	if p.traits.MutualAuthentication {
		n = SizeKeyed
	}
	n += 2 * (SizeSlotHeader + MaxRecord + s.KeySets*SizeKeySet + s.ItemsCapacity)
	if s.PIN {
		n += SizePIN
	}
	return n
}

// blocks packs data groups into the data fields of STORE DATA commands.
type blocks [][]byte

func (b *blocks) add(dgi uint16, parts ...[]byte) {
	group := []byte{byte(dgi >> 8), byte(dgi), 0}
	for _, p := range parts {
		group = append(group, p...)
	}
	group[2] = byte(len(group) - 3)
	if n := len(*b); n > 0 && len((*b)[n-1])+len(group) <= MaxBlock {
		(*b)[n-1] = append((*b)[n-1], group...)
		return
	}
	*b = append(*b, group)
}

// itemsPart is how much of EF.ITEMS stands in one block.
const itemsPart = MaxBlock - 3 - 2

func (p *base) Personalization(c Content, seal func([]byte) ([]byte, error)) ([][]byte, error) {
	if err := p.checkContent(c); err != nil {
		return nil, err
	}
	record, err := c.Record.Encode()
	if err != nil {
		return nil, err
	}
	items, err := EncodeItems(c.Items)
	if err != nil {
		return nil, err
	}
	var out blocks
	out.add(DGIBegin, []byte{flag(c.KeepKeys, FlagKeepKeys)})
	out.add(DGIRecord, record)
	for at := 0; at < len(items); at += itemsPart {
		out.add(DGIItems, []byte{byte(at >> 8), byte(at)}, items[at:min(at+itemsPart, len(items))])
	}
	for _, set := range c.ReadKeys {
		enc, mac := set.ENC.CheckValue(), set.MAC.CheckValue()
		sealed, err := sealed(seal, set.ENC.Bytes(), set.MAC.Bytes())
		if err != nil {
			return nil, fmt.Errorf("read key version %d: %w", set.Version, err)
		}
		out.add(DGIKeys, []byte{set.Version, byte(len(set.ENC.Bytes()))}, enc[:], mac[:], sealed)
	}
	if c.PIN != nil {
		sealed, err := sealed(seal, c.PIN.Reference.b, []byte(PINPadding))
		if err != nil {
			return nil, fmt.Errorf("PIN: %w", err)
		}
		limit := c.PIN.Limit
		if limit == 0 {
			limit = DefaultPINLimit
		}
		out.add(DGIPIN, []byte{limit, flag(c.PIN.MustChange, FlagMustChange)}, sealed)
	}
	out.add(DGITag, c.Tag[:])
	return out, nil
}

func (p *base) checkContent(c Content) error {
	if !p.traits.MutualAuthentication {
		if len(c.Items) > 0 || len(c.ReadKeys) > 0 || c.KeepKeys || c.PIN != nil {
			return fmt.Errorf("%w: %s holds an ID only", ErrContent, p.name)
		}
		return nil
	}
	if c.KeepKeys != (len(c.ReadKeys) == 0) {
		return fmt.Errorf("%w: read keys are either given or kept", ErrContent)
	}
	if len(c.ReadKeys) > MaxKeySets {
		return fmt.Errorf("%w: %d read key sets, %d at most", ErrContent, len(c.ReadKeys), MaxKeySets)
	}
	last := 128
	for _, set := range c.ReadKeys {
		n := len(set.ENC.Bytes())
		switch {
		case set.Version < 1 || int(set.Version) >= last:
			return fmt.Errorf("%w: read key versions are 1 to 127, the highest first", ErrContent)
		case n != len(set.MAC.Bytes()) || n != 16 && n != 32:
			return fmt.Errorf("%w: read key version %d is not a pair of AES-128 or AES-256 keys", ErrContent, set.Version)
		}
		last = int(set.Version)
	}
	if c.PIN != nil && (c.PIN.Reference.IsZero() || c.PIN.Limit > MaxPINLimit) {
		return fmt.Errorf("%w: the PIN is missing, or its limit is over %d", ErrContent, MaxPINLimit)
	}
	return nil
}

// sealed encrypts the parts as one message, which it then erases.
func sealed(seal func([]byte) ([]byte, error), parts ...[]byte) ([]byte, error) {
	if seal == nil {
		return nil, errors.New("nothing to encrypt it with")
	}
	plain := slices.Concat(parts...)
	defer clear(plain)
	out, err := seal(plain)
	if err != nil {
		return nil, err
	}
	if len(out) != len(plain) {
		return nil, fmt.Errorf("encrypted to %d bytes, %d expected", len(out), len(plain))
	}
	return out, nil
}

func (p *base) Wipe() [][]byte {
	var out blocks
	out.add(DGIWipe, []byte(WipeWord))
	return out
}

func (p *base) ObservationRequest() []byte {
	var out blocks
	out.add(DGIObserve)
	return out[0]
}

func (p *base) ParseObservation(b []byte) (Observation, error) {
	list, err := iso7816.ParseTLVs(b)
	if err != nil {
		return Observation{}, fmt.Errorf("%w: %w", ErrMalformedObservation, err)
	}
	var o Observation
	last := iso7816.Tag(0)
	fail := func(t iso7816.TLV) (Observation, error) {
		return Observation{}, fmt.Errorf("%w: tag %v is % X", ErrMalformedObservation, t.Tag, t.Value)
	}
	for _, t := range list {
		if t.Tag <= last {
			return Observation{}, fmt.Errorf("%w: tag %v after tag %v", ErrMalformedObservation, t.Tag, last)
		}
		last = t.Tag
		v := t.Value
		ok := false
		switch t.Tag {
		case TagObservedType:
			if ok = len(v) == 2; ok {
				o.Type, o.Version = v[0], v[1]
			}
		case TagObservedState:
			if ok = len(v) == 2 && v[1] <= 2; ok {
				o.State, o.Slot = v[0], v[1]
			}
		case TagObservedDiversification:
			if ok = len(v) == 10; ok {
				o.Spec.DiversificationData = [10]byte(v)
			}
		case TagObservedKeyVersions:
			ok = checkVersions(v)
			o.KeyVersions = slices.Clone(v)
		case TagObservedTag:
			if ok = len(v) == 16; ok {
				o.Tag = [16]byte(v)
			}
		case TagObservedIssueNumber:
			if ok = len(v) == 2; ok {
				o.IssueNumber = uint16(v[0])<<8 | uint16(v[1])
			}
		case TagObservedSpec:
			if ok = len(v) == 4 && v[3] <= 1; ok {
				o.Spec.KeySets, o.Spec.ItemsCapacity, o.Spec.PIN = int(v[0]), int(v[1])<<8|int(v[2]), v[3] == 1
			}
		case TagObservedPIN:
			if ok = len(v) == 3 && v[1] >= 1 && v[1] <= MaxPINLimit && v[0] <= v[1] && v[2] <= FlagMustChange; ok {
				o.PIN = &PINState{TriesLeft: int(v[0]), Limit: int(v[1]), MustChange: v[2] == FlagMustChange}
			}
		}
		if !ok {
			return fail(t)
		}
	}
	if o.Type != p.typ {
		return Observation{}, fmt.Errorf("%w: it is of type %02X, %s is %02X", ErrOtherType, o.Type, p.name, p.typ)
	}
	if o.Version != ProtocolVersion {
		return Observation{}, fmt.Errorf("%w: %02X", ErrVersion, o.Version)
	}
	if !slices.Equal(p.encodeObservation(o), b) {
		return Observation{}, fmt.Errorf("%w: an object is missing, or one too many is there", ErrMalformedObservation)
	}
	return o, nil
}

// encodeObservation writes what a card would, and so says which objects stand
// in an observation.
func (p *base) encodeObservation(o Observation) []byte {
	b := iso7816.AppendTLV(nil, TagObservedType, []byte{o.Type, o.Version})
	b = iso7816.AppendTLV(b, TagObservedState, []byte{o.State, o.Slot})
	keyed := p.traits.MutualAuthentication
	if keyed {
		b = iso7816.AppendTLV(b, TagObservedDiversification, o.Spec.DiversificationData[:])
	}
	if keyed && o.Personalized() {
		b = iso7816.AppendTLV(b, TagObservedKeyVersions, o.KeyVersions)
	}
	if o.Personalized() {
		b = iso7816.AppendTLV(b, TagObservedTag, o.Tag[:])
		b = iso7816.AppendTLV(b, TagObservedIssueNumber, []byte{byte(o.IssueNumber >> 8), byte(o.IssueNumber)})
	}
	if keyed {
		capacity := o.Spec.ItemsCapacity
		b = iso7816.AppendTLV(b, TagObservedSpec, []byte{byte(o.Spec.KeySets), byte(capacity >> 8), byte(capacity), flag(o.Spec.PIN, 1)})
	}
	if o.PIN != nil && o.Spec.PIN {
		b = iso7816.AppendTLV(b, TagObservedPIN, []byte{byte(o.PIN.TriesLeft), byte(o.PIN.Limit), flag(o.PIN.MustChange, FlagMustChange)})
	}
	return b
}

// checkVersions holds key versions to what a card shows: 1 to MaxKeySets of
// them, each 1 to 127, the highest first.
func checkVersions(v []byte) bool {
	if len(v) < 1 || len(v) > MaxKeySets {
		return false
	}
	last := byte(128)
	for _, x := range v {
		if x < 1 || x >= last {
			return false
		}
		last = x
	}
	return true
}

// StoreKeys returns a function for [ReadRequest.Keys] that takes the newest
// key version which both the instance and the store have under a name.
func StoreKeys(store keys.Store, name string, method keys.Method) KeysFunc {
	return storeKeys{store, name, method}.get
}
