package globalplatform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/freearea/freearea/iso7816"
)

// Tags of data objects that GET DATA answers (11.3.2.1).
const (
	TagIIN                   iso7816.Tag = 0x42 // Issuer Identification Number
	TagCIN                   iso7816.Tag = 0x45 // Card Image Number
	TagCardData              iso7816.Tag = 0x66 // Card Recognition Data
	TagCardCapabilities      iso7816.Tag = 0x67
	TagKeyInformation        iso7816.Tag = 0xE0
	TagSequenceCounter       iso7816.Tag = 0xC1 // of the default key version
	TagConfirmationCounter   iso7816.Tag = 0xC2
	TagProductionLifeCycle   iso7816.Tag = 0x9F7F // CPLC, by custom
	TagExtendedCardResources iso7816.Tag = 0xFF21
)

// GetDataRequest is the GET DATA command for one data object (11.3).
type GetDataRequest struct{ Tag iso7816.Tag }

// Command returns the command.
func (g GetDataRequest) Command() (iso7816.Command, error) {
	if g.Tag == 0 || g.Tag > 0xFFFF {
		return iso7816.Command{}, fmt.Errorf("%w: GET DATA takes tags of 1 or 2 bytes, not %v", ErrCommand, g.Tag)
	}
	return command(0xCA, byte(g.Tag>>8), byte(g.Tag), nil)
}

// GetData returns the value of a data object of the selected Security Domain.
// The card answers tag, length and value; another tag, or bytes after it, wrap
// [ErrMalformed]. An object that the card does not have is
// [iso7816.ErrDataNotFound].
func GetData(ctx context.Context, s iso7816.Sender, tag iso7816.Tag) ([]byte, error) {
	cmd, err := GetDataRequest{tag}.Command()
	if err != nil {
		return nil, err
	}
	data, err := iso7816.Do(ctx, s, cmd)
	if err != nil {
		return nil, fmt.Errorf("data object %v: %w", tag, err)
	}
	t, err := iso7816.ParseSingleTLV(data, tag)
	if err != nil {
		return nil, malformed("data object %v: %w", tag, err)
	}
	return t.Value, nil
}

// Applications returns the AIDs of the applications that the selected Security
// Domain lists: those associated with it, or with Global Registry all of them
// (tag 2F00, 11.3.3.1.3). Unlike GET STATUS it needs no authentication. What
// isn't a list wraps [ErrMalformed].
func Applications(ctx context.Context, s iso7816.Sender) ([]iso7816.AID, error) {
	cmd, err := command(0xCA, 0x2F, 0x00, []byte{0x5C, 0x00})
	if err != nil {
		return nil, err
	}
	data, err := iso7816.Do(ctx, s, cmd)
	if err != nil {
		return nil, fmt.Errorf("list of applications: %w", err)
	}
	templates, err := iso7816.ParseTLVs(data)
	if err != nil {
		return nil, malformed("list of applications: %w", err)
	}
	var out []iso7816.AID
	for _, t := range templates {
		if t.Tag != 0x61 {
			return nil, malformed("list of applications: tag %v instead of 61", t.Tag)
		}
		objects, err := t.Children()
		if err != nil {
			return nil, malformed("list of applications: %w", err)
		}
		name, ok := iso7816.Find(objects, tagAID)
		if !ok {
			return nil, malformed("list of applications: a template without an AID")
		}
		aid, err := iso7816.NewAID(name.Value)
		if err != nil {
			return nil, malformed("list of applications: %w", err)
		}
		out = append(out, aid)
	}
	return out, nil
}

// IIN returns the Issuer Identification Number (tag 42).
func IIN(ctx context.Context, s iso7816.Sender) ([]byte, error) { return GetData(ctx, s, TagIIN) }

// CIN returns the Card Image Number (tag 45), which names the card.
func CIN(ctx context.Context, s iso7816.Sender) ([]byte, error) { return GetData(ctx, s, TagCIN) }

// Keys returns the key information of the selected Security Domain (tag E0).
func Keys(ctx context.Context, s iso7816.Sender) ([]KeyInformation, error) {
	return getParsed(ctx, s, TagKeyInformation, ParseKeyInformation)
}

// Recognition returns the Card Recognition Data (tag 66).
func Recognition(ctx context.Context, s iso7816.Sender) (CardRecognition, error) {
	return getParsed(ctx, s, TagCardData, ParseCardRecognition)
}

// Capabilities returns the Card Capability Information (tag 67).
func Capabilities(ctx context.Context, s iso7816.Sender) (CardCapabilities, error) {
	return getParsed(ctx, s, TagCardCapabilities, ParseCardCapabilities)
}

// Resources returns the Extended Card Resources Information (tag FF21): free
// memory.
func Resources(ctx context.Context, s iso7816.Sender) (CardResources, error) {
	return getParsed(ctx, s, TagExtendedCardResources, ParseCardResources)
}

// ProductionLifeCycle returns the card production life cycle data (tag 9F7F).
func ProductionLifeCycle(ctx context.Context, s iso7816.Sender) (CPLC, error) {
	return getParsed(ctx, s, TagProductionLifeCycle, ParseCPLC)
}

func getParsed[T any](ctx context.Context, s iso7816.Sender, tag iso7816.Tag, parse func([]byte) (T, error)) (T, error) {
	value, err := GetData(ctx, s, tag)
	if err != nil {
		var zero T
		return zero, err
	}
	return parse(value)
}

// KeyType is the type of a key component (11.1.8).
type KeyType byte

// Key types in common use.
const (
	KeyTypeDES        KeyType = 0x80
	KeyTypeTLS        KeyType = 0x85
	KeyTypeAES        KeyType = 0x88
	KeyTypeRSAPublic  KeyType = 0xA0 // exponent
	KeyTypeRSAModulus KeyType = 0xA1
	KeyTypeECPublic   KeyType = 0xB0
	KeyTypeECPrivate  KeyType = 0xB1
	KeyTypeECParam    KeyType = 0xF0
)

func (t KeyType) String() string {
	switch t {
	case KeyTypeDES:
		return "DES"
	case KeyTypeTLS:
		return "TLS pre-shared key"
	case KeyTypeAES:
		return "AES"
	case KeyTypeRSAPublic:
		return "RSA public exponent"
	case KeyTypeRSAModulus:
		return "RSA public modulus"
	case KeyTypeECPublic:
		return "ECC public key"
	case KeyTypeECPrivate:
		return "ECC private key"
	case KeyTypeECParam:
		return "ECC parameters reference"
	}
	return fmt.Sprintf("key type %02X", byte(t))
}

// KeyComponent is one component of a key on the card.
type KeyComponent struct {
	Type   KeyType
	Length int // bytes; for KeyTypeECParam the reference; 0 in the basic form is 256 or more
}

// KeyInformation says which key a Security Domain has under an identifier and
// a version (tables 11-28, 11-29).
type KeyInformation struct {
	ID, Version   byte
	Components    []KeyComponent
	Extended      bool   // the extended structure, with usage and access
	Usage, Access []byte // each empty or 1 byte, where Extended
	// Undecoded is what follows ID and Version where it has neither form;
	// there are cards that mix both.
	Undecoded []byte
}

const tagKeyInformationData iso7816.Tag = 0xC0

// ParseKeyInformation reads the value of tag E0.
func ParseKeyInformation(value []byte) ([]KeyInformation, error) {
	objects, err := iso7816.ParseTLVs(value)
	if err != nil {
		return nil, malformed("key information template: %w", err)
	}
	var out []KeyInformation
	for i, o := range objects {
		if o.Tag != tagKeyInformationData {
			return nil, malformed("key information template: tag %v instead of C0", o.Tag)
		}
		if len(o.Value) < 2 {
			return nil, malformed("key information %d has %d bytes", i+1, len(o.Value))
		}
		k := KeyInformation{ID: o.Value[0], Version: o.Value[1]}
		if !k.parse(o.Value[2:]) {
			k = KeyInformation{ID: o.Value[0], Version: o.Value[1], Undecoded: bytes.Clone(o.Value[2:])}
		}
		out = append(out, k)
	}
	return out, nil
}

func (k *KeyInformation) parse(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	if b[0] != 0xFF {
		for ; len(b) >= 2 && b[0] != 0xFF; b = b[2:] {
			k.Components = append(k.Components, KeyComponent{KeyType(b[0]), int(b[1])})
		}
		return len(b) == 0
	}
	k.Extended = true
	for ; len(b) >= 4 && b[0] == 0xFF; b = b[4:] {
		k.Components = append(k.Components, KeyComponent{KeyType(b[1]), int(b[2])<<8 | int(b[3])})
	}
	for _, field := range []*[]byte{&k.Usage, &k.Access} {
		if len(b) == 0 || b[0] > 1 || int(b[0]) >= len(b) && b[0] > 0 {
			return false
		}
		n := 1 + int(b[0])
		if n > 1 {
			*field = bytes.Clone(b[1:n])
		}
		b = b[n:]
	}
	return len(b) == 0
}

// EncodeKeyInformation returns the value of tag E0.
func EncodeKeyInformation(list []KeyInformation) []byte {
	var out []byte
	for _, k := range list {
		v := []byte{k.ID, k.Version}
		for _, c := range k.Components {
			if k.Extended {
				v = append(v, 0xFF, byte(c.Type), byte(c.Length>>8), byte(c.Length))
			} else {
				v = append(v, byte(c.Type), byte(c.Length))
			}
		}
		if k.Extended {
			v = appendLV(appendLV(v, k.Usage), k.Access)
		}
		out = iso7816.AppendTLV(out, tagKeyInformationData, append(v, k.Undecoded...))
	}
	return out
}

// SecureChannel is a secure channel protocol with its options, the "i"
// parameter: one byte for SCP03, up to 14 bits for others.
type SecureChannel struct {
	Protocol byte
	I        int
}

func (c SecureChannel) String() string { return fmt.Sprintf("SCP%02X i=%02X", c.Protocol, c.I) }

// CardRecognition is Card Recognition Data (H.2).
type CardRecognition struct {
	Version        string          // of the Card Specification, such as "2.3.1"; empty where it isn't said
	UniqueByIINCIN bool            // IIN and CIN together name the card (note 3 of H.2)
	SecureChannels []SecureChannel // of the Issuer Security Domain
	Other          []iso7816.TLV   // application tags 5 to 8 and what else there is
}

// gpOID is {globalPlatform} (H.1.1) without what follows.
var gpOID = [...]byte{0x2A, 0x86, 0x48, 0x86, 0xFC, 0x6B}

// ParseCardRecognition reads the value of tag 66, in either of the formats of
// H.2.
func ParseCardRecognition(value []byte) (CardRecognition, error) {
	fail := func(err error) (CardRecognition, error) {
		return CardRecognition{}, malformed("card recognition data: %w", err)
	}
	outer, err := iso7816.ParseTLVs(value)
	if err != nil {
		return fail(err)
	}
	template, ok := iso7816.Find(outer, 0x73)
	if !ok {
		return fail(errors.New("no tag 73"))
	}
	objects, err := template.Children()
	if err != nil {
		return fail(err)
	}
	var r CardRecognition
	named := false
	for _, o := range objects {
		switch o.Tag {
		case 0x06:
			if rest, ok := gpArcs(o.Value); !ok || !bytes.Equal(rest, []byte{1}) {
				return fail(errors.New("its object identifier is not GlobalPlatform's"))
			}
			named = true
		case 0x60, 0x63, 0x64:
			oids, err := o.Children()
			if err != nil {
				return fail(err)
			}
			for _, oid := range oids {
				if oid.Tag != 0x06 {
					return fail(fmt.Errorf("tag %v inside tag %v", oid.Tag, o.Tag))
				}
				if err := r.add(o.Tag, oid.Value); err != nil {
					return fail(err)
				}
			}
		default:
			r.Other = append(r.Other, iso7816.TLV{Tag: o.Tag, Value: bytes.Clone(o.Value)})
		}
	}
	if !named {
		return fail(errors.New("no object identifier"))
	}
	return r, nil
}

func (r *CardRecognition) add(tag iso7816.Tag, oid []byte) error {
	rest, ok := gpArcs(oid)
	if !ok || len(rest) < 1 {
		if tag == 0x64 {
			return nil // a secure channel protocol of somebody else's
		}
		return fmt.Errorf("object identifier %X in tag %v is not GlobalPlatform's", oid, tag)
	}
	kind, rest := rest[0], rest[1:]
	switch {
	case tag == 0x60 && kind == 2:
		var parts []string
		for _, b := range rest {
			if b >= 0x80 {
				return fmt.Errorf("version %X", rest)
			}
			parts = append(parts, strconv.Itoa(int(b)))
		}
		r.Version = strings.Join(parts, ".")
	case tag == 0x63 && kind == 3:
		r.UniqueByIINCIN = true
	case tag == 0x64 && kind == 4:
		c, ok := parseSecureChannel(rest)
		if !ok {
			return fmt.Errorf("secure channel protocol %X", rest)
		}
		r.SecureChannels = append(r.SecureChannels, c)
	default:
		return fmt.Errorf("object identifier {globalPlatform %d …} in tag %v", kind, tag)
	}
	return nil
}

func gpArcs(oid []byte) ([]byte, bool) { return bytes.CutPrefix(oid, gpOID[:]) }

// parseSecureChannel reads the two arcs scp and i. Two bytes are taken as they
// stand, since cards write SCP80 as 80 where ISO/IEC 8825-1 wants 8100.
func parseSecureChannel(b []byte) (SecureChannel, bool) {
	if len(b) == 2 {
		return SecureChannel{b[0], int(b[1])}, true
	}
	var arcs []int
	n := 0
	for i, x := range b {
		if n = n<<7 | int(x&0x7F); n > 0x3FFF {
			return SecureChannel{}, false
		}
		if x&0x80 == 0 {
			arcs, n = append(arcs, n), 0
		} else if i == len(b)-1 {
			return SecureChannel{}, false
		}
	}
	if len(arcs) != 2 || arcs[0] > 0xFF {
		return SecureChannel{}, false
	}
	return SecureChannel{byte(arcs[0]), arcs[1]}, true
}

// ChannelCapability is what a card can do of one secure channel protocol
// (table H-6).
type ChannelCapability struct {
	Protocol byte
	Options  []byte        // values of "i"
	Keys     byte          // for SCP03: 01 AES-128, 02 AES-192, 04 AES-256; 0 where it isn't said
	Other    []iso7816.TLV // further objects
}

// CardCapabilities is Card Capability Information (H.4).
type CardCapabilities struct {
	Channels              []ChannelCapability
	DomainPrivileges      Privileges    // that a supplementary Security Domain can get
	ApplicationPrivileges Privileges    // that an application can get
	HashAlgorithms        []byte        // for load files: 01 SHA-1, 02 SHA-256, 03 SHA-384, 04 SHA-512
	Other                 []iso7816.TLV // cipher suites and what else there is
}

// ParseCardCapabilities reads the value of tag 67.
func ParseCardCapabilities(value []byte) (CardCapabilities, error) {
	fail := func(err error) (CardCapabilities, error) {
		return CardCapabilities{}, malformed("card capability information: %w", err)
	}
	objects, err := iso7816.ParseTLVs(value)
	if err != nil {
		return fail(err)
	}
	var c CardCapabilities
	for _, o := range objects {
		switch o.Tag {
		case 0xA0:
			inner, err := o.Children()
			if err != nil {
				return fail(err)
			}
			var ch ChannelCapability
			for _, x := range inner {
				switch {
				case x.Tag == 0x80 && len(x.Value) == 1:
					ch.Protocol = x.Value[0]
				case x.Tag == 0x81:
					ch.Options = bytes.Clone(x.Value)
				case x.Tag == 0x82 && len(x.Value) == 1:
					ch.Keys = x.Value[0]
				case x.Tag == 0x80 || x.Tag == 0x82:
					return fail(fmt.Errorf("tag %v of %d bytes inside tag A0", x.Tag, len(x.Value)))
				default:
					ch.Other = append(ch.Other, iso7816.TLV{Tag: x.Tag, Value: bytes.Clone(x.Value)})
				}
			}
			if ch.Protocol == 0 {
				return fail(errors.New("secure channel without its protocol"))
			}
			c.Channels = append(c.Channels, ch)
		case 0x81:
			c.DomainPrivileges, err = ParsePrivileges(o.Value)
		case 0x82:
			c.ApplicationPrivileges, err = ParsePrivileges(o.Value)
		case 0x83:
			c.HashAlgorithms = bytes.Clone(o.Value)
		default:
			c.Other = append(c.Other, iso7816.TLV{Tag: o.Tag, Value: bytes.Clone(o.Value)})
		}
		if err != nil {
			return fail(fmt.Errorf("tag %v: %w", o.Tag, err))
		}
	}
	return c, nil
}

// CardResources is what a card says of its memory (tag FF21; ETSI TS 102 226).
type CardResources struct {
	Applications    int // installed
	FreeNonVolatile int // bytes
	FreeVolatile    int // bytes
}

// ParseCardResources reads the value of tag FF21: tags 81, 82 and 83 once
// each, numbers of 1 to 4 bytes.
func ParseCardResources(value []byte) (CardResources, error) {
	objects, err := iso7816.ParseTLVs(value)
	if err != nil {
		return CardResources{}, malformed("card resources: %w", err)
	}
	numbers := map[iso7816.Tag]int{}
	for _, o := range objects {
		if o.Tag < 0x81 || o.Tag > 0x83 {
			continue
		}
		if _, twice := numbers[o.Tag]; twice || len(o.Value) < 1 || len(o.Value) > 4 {
			return CardResources{}, malformed("card resources: tag %v of %d bytes, or twice", o.Tag, len(o.Value))
		}
		n := 0
		for _, b := range o.Value {
			n = n<<8 | int(b)
		}
		numbers[o.Tag] = n
	}
	if len(numbers) != 3 {
		return CardResources{}, malformed("card resources: tags 81, 82 and 83 are wanted")
	}
	return CardResources{Applications: numbers[0x81], FreeNonVolatile: numbers[0x82], FreeVolatile: numbers[0x83]}, nil
}

// Encode returns the value of tag FF21.
func (r CardResources) Encode() []byte {
	v := iso7816.AppendTLV(nil, 0x81, []byte{byte(r.Applications >> 8), byte(r.Applications)})
	v = iso7816.AppendTLV(v, 0x82, []byte{byte(r.FreeNonVolatile >> 24), byte(r.FreeNonVolatile >> 16), byte(r.FreeNonVolatile >> 8), byte(r.FreeNonVolatile)})
	return iso7816.AppendTLV(v, 0x83, []byte{byte(r.FreeVolatile >> 24), byte(r.FreeVolatile >> 16), byte(r.FreeVolatile >> 8), byte(r.FreeVolatile)})
}

// CPLC is the card production life cycle data, 42 bytes (tag 9F7F). Its layout
// comes from the specification's predecessors.
type CPLC [42]byte

// ParseCPLC reads the value of tag 9F7F.
func ParseCPLC(value []byte) (CPLC, error) {
	if len(value) != len(CPLC{}) {
		return CPLC{}, malformed("production life cycle data of %d bytes, %d expected", len(value), len(CPLC{}))
	}
	return CPLC(value), nil
}

// Fabricator, Type and OperatingSystem are codes of the chip's maker, the chip
// and its operating system.
func (c CPLC) Fabricator() uint16      { return c.u2(0) }
func (c CPLC) Type() uint16            { return c.u2(2) }
func (c CPLC) OperatingSystem() uint16 { return c.u2(4) }

// FabricationDate is four digits, of the year's last one and the day.
func (c CPLC) FabricationDate() uint16 { return c.u2(10) }

// SerialNumber is the chip's, Batch the number of its batch.
func (c CPLC) SerialNumber() [4]byte { return [4]byte(c[12:]) }
func (c CPLC) Batch() uint16         { return c.u2(16) }

func (c CPLC) u2(i int) uint16 { return uint16(c[i])<<8 | uint16(c[i+1]) }
