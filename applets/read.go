package applets

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// KeysFunc finds the read keys for an instance; see [ReadRequest].
type KeysFunc = func(ctx context.Context, info ApplicationInfo) (keys.Set, error)

type storeKeys struct {
	store  keys.Store
	name   string
	method keys.Method
}

func (s storeKeys) get(ctx context.Context, info ApplicationInfo) (keys.Set, error) {
	for _, v := range info.KeyVersions {
		set, err := s.store.ReadKeys(ctx, keys.Ref{Name: s.name, Version: v}, s.method, info.AID, info.DiversificationData[:])
		switch {
		case err == nil:
			set.Version = v
			return set, nil
		case !errors.Is(err, keys.ErrNotFound) && !errors.Is(err, keys.ErrRetired):
			return keys.Set{}, err
		}
	}
	return keys.Set{}, fmt.Errorf("%w: %s has key versions %v, the terminal has none of them as %s",
		ErrNoReadKey, info.AID, info.KeyVersions, s.name)
}

// SelectInfo selects an instance and reads what it says of itself. The error
// wraps [ErrWrongApplication] when something else answered.
func SelectInfo(ctx context.Context, card iso7816.Card, aid iso7816.AID) (ApplicationInfo, error) {
	data, err := iso7816.Do(ctx, iso7816.Plain(card), iso7816.Select(aid))
	if err != nil {
		return ApplicationInfo{}, err
	}
	info, err := ParseApplicationInfo(data)
	if err != nil {
		return ApplicationInfo{}, err
	}
	if info.AID != aid {
		return ApplicationInfo{}, fmt.Errorf("%w: %v in place of %v", ErrWrongApplication, info.AID, aid)
	}
	return info, nil
}

// ParseApplicationInfo reads the FCI of a base application. Anything else
// wraps [ErrWrongApplication]; another version of this protocol wraps
// [ErrVersion], and an unknown type [ErrOtherType].
func ParseApplicationInfo(fci []byte) (ApplicationInfo, error) {
	info, err := parseFCI(fci)
	if err != nil && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrOtherType) {
		return ApplicationInfo{}, fmt.Errorf("%w: %w", ErrWrongApplication, err)
	}
	return info, err
}

func parseFCI(b []byte) (ApplicationInfo, error) {
	outer, err := iso7816.ParseSingleTLV(b, TagFCI)
	if err != nil {
		return ApplicationInfo{}, err
	}
	name, rest, err := iso7816.ParseTLV(outer.Value)
	if err != nil {
		return ApplicationInfo{}, err
	}
	var info ApplicationInfo
	if name.Tag != TagAID {
		return ApplicationInfo{}, fmt.Errorf("FCI begins with tag %v", name.Tag)
	}
	if info.AID, err = iso7816.NewAID(name.Value); err != nil {
		return ApplicationInfo{}, err
	}
	own, err := iso7816.ParseSingleTLV(rest, TagProprietary)
	if err != nil {
		return ApplicationInfo{}, err
	}
	// Tags ascend, so that there is one way to say each thing.
	last := iso7816.Tag(0)
	var have [6]bool // by the last digit of the tag
	for rest := own.Value; len(rest) > 0; {
		var t iso7816.TLV
		if t, rest, err = iso7816.ParseTLV(rest); err != nil {
			return ApplicationInfo{}, err
		}
		if t.Tag <= last {
			return ApplicationInfo{}, fmt.Errorf("tag %v after tag %v in the FCI", t.Tag, last)
		}
		if last == 0 && t.Tag != TagType {
			return ApplicationInfo{}, fmt.Errorf("FCI has tag %v where type and version are expected", t.Tag)
		}
		last = t.Tag
		ok := false
		switch t.Tag {
		case TagType:
			if ok = len(t.Value) == 2; ok {
				info.Type, info.Version = t.Value[0], t.Value[1]
				if info.Version != ProtocolVersion {
					return ApplicationInfo{}, fmt.Errorf("%w: %02X", ErrVersion, info.Version)
				}
			}
		case TagChallenge:
			if ok = len(t.Value) == challengeSize; ok {
				info.Challenge = [challengeSize]byte(t.Value)
			}
		case TagDiversification:
			if ok = len(t.Value) == 10; ok {
				info.DiversificationData = [10]byte(t.Value)
			}
		case TagKeyVersions:
			ok = checkVersions(t.Value)
			info.KeyVersions = t.Value
		case TagRecord:
			ok = len(t.Value) > 0 && len(t.Value) <= MaxRecord
			info.Record = t.Value
		}
		if !ok {
			return ApplicationInfo{}, fmt.Errorf("tag %v in the FCI is unknown or malformed", t.Tag)
		}
		have[t.Tag&0xF] = true
	}
	challenge, diversified, versions, record := have[1], have[2], have[3], have[5]
	wellFormed := false
	switch info.Type {
	case TypeCommonAP:
		wellFormed = !challenge && !diversified && !versions
	case TypeA, TypeD:
		wellFormed = diversified && challenge == versions && !record
	default:
		return ApplicationInfo{}, fmt.Errorf("%w: %02X", ErrOtherType, info.Type)
	}
	if !have[0] || !wellFormed {
		return ApplicationInfo{}, fmt.Errorf("FCI is not one of type %02X", info.Type)
	}
	return info, nil
}

// checkType refuses an instance of another type than p.
func (p *base) checkType(info ApplicationInfo) error {
	switch {
	case info.Type == p.typ:
		return nil
	case info.Type < p.typ:
		return fmt.Errorf("%w: %v is of type %02X, %s is %02X", ErrWeakerType, info.AID, info.Type, p.name, p.typ)
	}
	return fmt.Errorf("%w: %v is of type %02X, %s is %02X", ErrOtherType, info.AID, info.Type, p.name, p.typ)
}

func (p *base) Read(ctx context.Context, card iso7816.Card, req ReadRequest) (*Reading, error) {
	if !p.traits.MutualAuthentication {
		return p.readOpen(ctx, card, req)
	}
	s, err := p.open(ctx, card, req)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.record == nil {
		if req.PIN == nil {
			return nil, ErrPINRequired
		}
		pin, err := req.PIN(ctx)
		if err != nil {
			return nil, err
		}
		if s.record, err = s.verify(ctx, pin); err != nil {
			return nil, err
		}
		s.reading.PINVerified = true
	}
	out := &s.reading
	out.RawRecord = s.record
	if out.Record, err = ParseRecord(s.record); err != nil {
		return nil, err
	}
	if req.WantItems {
		if out.Items, err = s.items(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p *base) readOpen(ctx context.Context, card iso7816.Card, req ReadRequest) (*Reading, error) {
	if req.Level != 0 {
		return nil, fmt.Errorf("%s at level %v: %w", p.name, req.Level, scp.ErrLevel)
	}
	info, err := SelectInfo(ctx, card, req.AID)
	if err != nil {
		return nil, err
	}
	if err := p.checkType(info); err != nil {
		return nil, err
	}
	if info.Record == nil {
		return nil, fmt.Errorf("%v: %w", info.AID, ErrNotPersonalized)
	}
	out := &Reading{Info: info, RawRecord: info.Record}
	if out.Record, err = ParseRecord(info.Record); err != nil {
		return nil, err
	}
	return out, nil
}

// tap is an authenticated session with an instance.
type tap struct {
	card    iso7816.Card
	reading Reading
	express *expressSession // nil in standard SCP03
	session *scp.Session    // nil until a command needs it
	record  []byte          // EF.ID; nil while the PIN has not been verified
}

func (t *tap) close() {
	if t.express != nil {
		t.express.keys.Erase()
	}
	if t.session != nil {
		t.session.Close()
	}
}

func (t *tap) send(ctx context.Context, c iso7816.Command) (iso7816.Response, error) {
	if t.session == nil {
		t.session = t.express.resume(t.card)
	}
	r, err := t.session.Send(ctx, c)
	if errors.Is(err, scp.ErrResponseMAC) {
		err = fmt.Errorf("%w: %w", ErrCardProof, err)
	}
	return r, err
}

// open selects and authenticates, and reads EF.ID where no PIN guards it.
func (p *base) open(ctx context.Context, card iso7816.Card, req ReadRequest) (*tap, error) {
	level := req.Level
	if level == 0 {
		level = p.levels[0]
	}
	if !slices.Contains(p.levels, level) {
		return nil, fmt.Errorf("%s at level %v: %w", p.name, level, scp.ErrLevel)
	}
	info, err := SelectInfo(ctx, card, req.AID)
	if err != nil {
		return nil, err
	}
	if err := p.checkType(info); err != nil {
		return nil, err
	}
	if info.KeyVersions == nil {
		return nil, fmt.Errorf("%v: %w", info.AID, ErrNotPersonalized)
	}
	if req.Keys == nil {
		return nil, fmt.Errorf("%w: the request has none", ErrNoReadKey)
	}
	set, err := req.Keys(ctx, info)
	if err != nil {
		return nil, err
	}
	defer set.Erase()
	if !slices.Contains(info.KeyVersions, set.Version) {
		return nil, fmt.Errorf("%w: version %d is not on the card", ErrNoReadKey, set.Version)
	}
	t := &tap{card: card, reading: Reading{Info: info, Authentication: Mutual, Level: level, KeyVersion: set.Version}}
	if level.HasREncryption() {
		t.reading.Authentication = MutualEncrypted
	}
	if req.Standard {
		if err := t.standard(ctx, set, req); err != nil {
			t.close()
			return nil, err
		}
		return t, nil
	}
	var data []byte
	if t.express, data, err = express(ctx, card, &info, set, level, req.Rand); err != nil {
		return nil, err
	}
	if len(data) > 0 {
		t.record = data
	}
	return t, nil
}

// standard opens plain SCP03 with the application's keys.
func (t *tap) standard(ctx context.Context, set keys.Set, req ReadRequest) error {
	pending, err := scp.Initialize(ctx, iso7816.Plain(t.card), scp.HostOptions{KeyVersion: set.Version, Level: t.reading.Level, Rand: req.Rand})
	if err != nil {
		return err
	}
	if t.session, err = pending.Authenticate(ctx, set); err != nil {
		switch {
		case errors.Is(err, scp.ErrCardCryptogram):
			return fmt.Errorf("%w: %w", ErrCardProof, err)
		case errors.Is(err, iso7816.ErrAuthentication), errors.Is(err, iso7816.ErrSecurityStatus):
			return fmt.Errorf("%w: %w", ErrHostProof, err)
		}
		return err
	}
	c := readBinary(FileRecord, 0)
	r, err := t.send(ctx, c)
	switch {
	case err != nil:
		return err
	case r.SW == iso7816.ErrSecurityStatus: // a PIN guards it
		return nil
	case r.SW != iso7816.OK:
		return r.Err(c)
	}
	t.record = r.Data
	return nil
}

// readBinary returns READ BINARY of a file by its short identifier, or of the
// current file (0), in the clear form.
func readBinary(file byte, offset int) iso7816.Command {
	c := iso7816.Command{CLA: 0x80, INS: InsReadBinary, P1: byte(offset >> 8), P2: byte(offset), Ne: iso7816.MaxShortNe}
	if file != 0 {
		c.P1, c.P2 = 0x80|file, byte(offset)
	}
	return c
}

// verify sends VERIFY, whose answer is EF.ID.
func (t *tap) verify(ctx context.Context, pin PIN) ([]byte, error) {
	if pin.IsZero() {
		return nil, ErrPINRequired
	}
	if err := t.mayCarryPIN(); err != nil {
		return nil, err
	}
	c := iso7816.Command{CLA: 0x80, INS: InsVerify, P2: QualifierPIN, Data: pin.b, Ne: iso7816.MaxShortNe}
	r, err := t.send(ctx, c)
	if err != nil {
		return nil, err
	}
	return r.Data, pinError(r, c)
}

// mayCarryPIN refuses to send a PIN in the clear, whatever the card would
// say to it.
func (t *tap) mayCarryPIN() error {
	if level := t.reading.Level; !level.HasCDecryption() {
		return fmt.Errorf("PIN at level %v: %w", level, scp.ErrLevel)
	}
	return nil
}

func pinError(r iso7816.Response, c iso7816.Command) error {
	if n, ok := r.SW.TriesLeft(); ok {
		return &PINError{TriesLeft: n}
	}
	switch r.SW {
	case iso7816.ErrBlocked:
		return ErrPINBlocked
	case iso7816.ErrDataInvalid:
		return ErrMustChangePIN
	}
	return r.Err(c)
}

// items reads EF.ITEMS, in as many parts as its length says.
func (t *tap) items(ctx context.Context) ([]Item, error) {
	var file []byte
	total := 0
	for part := byte(FileItems); ; part = 0 {
		c := readBinary(part, len(file))
		r, err := t.send(ctx, c)
		if err != nil {
			return nil, err
		}
		if err := r.Err(c); err != nil {
			return nil, err
		}
		if file == nil {
			if total, err = itemsLength(r.Data); err != nil {
				return nil, err
			}
		}
		file = append(file, r.Data...)
		switch {
		case len(file) == total:
			return ParseItems(file)
		case len(file) > total || len(r.Data) == 0:
			return nil, fmt.Errorf("%w: %d bytes read, its length says %d", ErrMalformedItems, len(file), total)
		}
	}
}

// itemsLength returns the length of EF.ITEMS from its first bytes.
func itemsLength(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, header := 0, 0
	switch {
	case len(b) >= 2 && b[1] < 0x80:
		n, header = int(b[1]), 2
	case len(b) >= 3 && b[1] == 0x81:
		n, header = int(b[2]), 3
	case len(b) >= 4 && b[1] == 0x82:
		n, header = int(b[2])<<8|int(b[3]), 4
	}
	if header == 0 || n+header > MaxItemsFile {
		return 0, fmt.Errorf("%w: begins with % X", ErrMalformedItems, b[:min(4, len(b))])
	}
	return n + header, nil
}

// ChangePIN implements [PINChanger].
func (p *secured) ChangePIN(ctx context.Context, card iso7816.Card, req ReadRequest, old, replacement PIN) error {
	if old.IsZero() || replacement.IsZero() {
		return ErrPINRequired
	}
	s, err := p.open(ctx, card, req)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.mayCarryPIN(); err != nil {
		return err
	}
	data := slices.Concat(old.b, replacement.b)
	defer clear(data)
	c := iso7816.Command{CLA: 0x80, INS: InsChangeReference, P2: QualifierPIN, Data: data}
	r, err := s.send(ctx, c)
	if err != nil {
		return err
	}
	return pinError(r, c)
}
