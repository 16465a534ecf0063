package globalplatform

import (
	"context"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// Tags of the file control information (table 11-82).
const (
	tagFCI            iso7816.Tag = 0x6F
	tagFCIAID         iso7816.Tag = 0x84
	tagFCIProprietary iso7816.Tag = 0xA5
	tagMaxCommandData iso7816.Tag = 0x9F65
)

// FCI is the file control information that SELECT answers (table 11-82).
type FCI struct {
	AID         iso7816.AID   // tag 84
	Proprietary []iso7816.TLV // inside tag A5
	Other       []iso7816.TLV // further objects of the template
}

// ParseFCI reads an FCI template that fills b. Tag 84 is mandatory and stands
// once; tag A5 stands at most once.
func ParseFCI(b []byte) (FCI, error) {
	template, err := iso7816.ParseSingleTLV(b, tagFCI)
	if err != nil {
		return FCI{}, malformed("file control information: %w", err)
	}
	objects, err := template.Children()
	if err != nil {
		return FCI{}, malformed("file control information: %w", err)
	}
	var f FCI
	proprietary := false
	for _, o := range objects {
		switch o.Tag {
		case tagFCIAID:
			if !f.AID.IsZero() {
				return FCI{}, malformed("file control information: tag 84 twice")
			}
			if f.AID, err = iso7816.NewAID(o.Value); err != nil {
				return FCI{}, malformed("file control information: %w", err)
			}
		case tagFCIProprietary:
			if proprietary {
				return FCI{}, malformed("file control information: tag A5 twice")
			}
			proprietary = true
			if f.Proprietary, err = o.Children(); err != nil {
				return FCI{}, malformed("file control information, tag A5: %w", err)
			}
		default:
			f.Other = append(f.Other, o)
		}
	}
	if f.AID.IsZero() {
		return FCI{}, malformed("file control information without tag 84")
	}
	return f, nil
}

// Encode returns the FCI template: tag 84, tag A5 unless it is empty, the
// others.
func (f FCI) Encode() []byte {
	v := iso7816.AppendTLV(nil, tagFCIAID, f.AID.Bytes())
	if len(f.Proprietary) > 0 {
		v = iso7816.AppendTLV(v, tagFCIProprietary, encodeAll(f.Proprietary))
	}
	v = append(v, encodeAll(f.Other)...)
	return iso7816.AppendTLV(nil, tagFCI, v)
}

// MaxCommandData is how many bytes of command data the Security Domain says
// that it takes (tag 9F65), 0 where it doesn't say. A C-MAC counts among them.
func (f FCI) MaxCommandData() int {
	o, ok := iso7816.Find(f.Proprietary, tagMaxCommandData)
	if !ok || len(o.Value) > 2 {
		return 0
	}
	n := 0
	for _, b := range o.Value {
		n = n<<8 | int(b)
	}
	return n
}

// Select selects an application or Security Domain by its AID, which may be
// partial, and checks that it is the one that answered: [ErrOtherApplication]
// otherwise. The zero AID selects what the card has as default. A warning
// such as 6283 (card locked) returns the FCI along with the error.
func Select(ctx context.Context, s iso7816.Sender, aid iso7816.AID) (FCI, error) {
	return selectWith(ctx, s, aid, iso7816.Select(aid))
}

// SelectNext is Select for the next application whose AID begins with a
// partial one, after the one that is selected now (11.9.2.2).
// [iso7816.ErrNotFound] ends the list, and leaves the one before selected.
func SelectNext(ctx context.Context, s iso7816.Sender, partial iso7816.AID) (FCI, error) {
	cmd := iso7816.Select(partial)
	cmd.P2 = 0x02
	return selectWith(ctx, s, partial, cmd)
}

func selectWith(ctx context.Context, s iso7816.Sender, aid iso7816.AID, cmd iso7816.Command) (FCI, error) {
	r, err := s.Send(ctx, cmd)
	if err != nil {
		return FCI{}, err
	}
	if r.SW != iso7816.OK && !r.SW.Warning() {
		return FCI{}, r.Err(cmd)
	}
	f, err := ParseFCI(r.Data)
	if err != nil {
		return FCI{}, fmt.Errorf("SELECT %v: %w", aid, err)
	}
	if !f.AID.HasPrefix(aid) {
		return FCI{}, fmt.Errorf("%w: %v instead of %v", ErrOtherApplication, f.AID, aid)
	}
	return f, r.Err(cmd)
}

func encodeAll(objects []iso7816.TLV) []byte {
	var b []byte
	for _, o := range objects {
		b = iso7816.AppendTLV(b, o.Tag, o.Value)
	}
	return b
}
