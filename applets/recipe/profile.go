package recipe

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"reflect"
	"strings"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// Profile is an application profile that a recipe describes. It also offers
// what the optional interfaces of package applets say, as far as the recipe
// does.
type Profile struct {
	name   string
	r      Recipe
	digest [32]byte
}

// The forms that a profile takes, by what its recipe offers.
type (
	observing         struct{ *Profile }
	changing          struct{ *Profile }
	observingChanging struct {
		observing
		changer
	}
	changer struct{ p *Profile }
)

var (
	_ applets.Profile        = (*Profile)(nil)
	_ applets.StoreFormatter = (*Profile)(nil)
	_ applets.Digester       = (*Profile)(nil)
	_ applets.Observer       = observing{}
	_ applets.PINChanger     = changing{}
	_ applets.Observer       = observingChanging{}
	_ applets.PINChanger     = observingChanging{}
)

// New makes a profile of a recipe. The error is a [Problems] when the recipe
// has any.
func New(name string, r Recipe) (applets.Profile, error) {
	if problems := r.Check(); len(problems) > 0 {
		return nil, problems
	}
	h := sha256.New()
	h.Write([]byte("freearea recipe 1\n"))
	digest(h, reflect.ValueOf(r))
	p := &Profile{name: name, r: r, digest: [32]byte(h.Sum(nil))}
	change := false
	for _, s := range r.Read.Steps {
		change = change || s.Change
	}
	observe := r.Observe.Via != "store-data"
	switch {
	case observe && change:
		return observingChanging{observing{p}, changer{p}}, nil
	case observe:
		return observing{p}, nil
	case change:
		return changing{p}, nil
	}
	return p, nil
}

// Of returns the recipe of a profile that New made.
func Of(p applets.Profile) (Recipe, bool) {
	x, ok := p.(interface{ recipe() Recipe })
	if !ok {
		return Recipe{}, false
	}
	return x.recipe(), true
}

func (p *Profile) recipe() Recipe { return p.r }

// digest writes a recipe without ambiguity. What is empty is left out, so that
// keys which later versions add don't change the digest of older recipes.
func digest(h hash.Hash, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		h.Write([]byte("{"))
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				fmt.Fprintf(h, "%s=", v.Type().Field(i).Tag.Get("toml"))
				digest(h, f)
			}
		}
		h.Write([]byte("}"))
	case reflect.Slice:
		fmt.Fprintf(h, "[%d:", v.Len())
		for i := range v.Len() {
			digest(h, v.Index(i))
		}
		h.Write([]byte("]"))
	case reflect.String:
		fmt.Fprintf(h, "%d:%s,", v.Len(), v.String())
	default: // numbers and booleans
		fmt.Fprintf(h, "%v,", v.Interface())
	}
}

// Name implements [applets.Profile].
func (p *Profile) Name() string { return p.name }

// Digest implements [applets.Digester].
func (p *Profile) Digest() [32]byte { return p.digest }

// StoreFormat implements [applets.StoreFormatter].
func (p *Profile) StoreFormat() (globalplatform.Format, globalplatform.Encryption) {
	encryption := globalplatform.EncryptionUnknown
	var walk func([]Part)
	walk = func(list []Part) {
		for _, x := range list {
			if x.Encrypt {
				encryption = globalplatform.EncryptionApplication
			}
			walk(x.Parts)
		}
	}
	for _, g := range p.r.Personalize.Groups {
		walk(g.Parts)
	}
	return p.r.format(), encryption
}

// Traits implements [applets.Profile]. An application that a recipe describes
// authenticates nobody.
func (p *Profile) Traits() applets.Traits {
	t := applets.Traits{}
	for v := range p.r.written() {
		t.PIN = t.PIN || v == ValuePIN
		t.Items = t.Items || v == ValueItems || strings.HasPrefix(v, "item:")
	}
	return t
}

// InstallParameters implements [applets.Profile]: the recipe's, whatever the
// specification says of items.
func (p *Profile) InstallParameters(s applets.InstallSpec) ([]byte, error) {
	t := p.Traits()
	if s.KeySets != 0 || s.DiversificationData != [10]byte{} || s.PIN != t.PIN || s.ItemsCapacity > 0 && !t.Items {
		return nil, fmt.Errorf("%w: %s has a PIN: %t, items: %t, and no keys", applets.ErrSpec, p.name, t.PIN, t.Items)
	}
	return append([]byte(nil), p.r.Install.Parameters...), nil
}

// PersistentMemory implements [applets.Profile].
func (p *Profile) PersistentMemory(applets.InstallSpec) int { return p.r.Install.Memory }

// writer makes the bytes of groups out of content.
type writer struct {
	content applets.Content
	seal    func([]byte) ([]byte, error)
}

// Personalization implements [applets.Profile].
func (p *Profile) Personalization(c applets.Content, seal func([]byte) ([]byte, error)) ([][]byte, error) {
	t := p.Traits()
	switch {
	case len(c.ReadKeys) > 0 || c.KeepKeys:
		return nil, fmt.Errorf("%w: %s has no read keys", applets.ErrContent, p.name)
	case c.PIN != nil && !t.PIN:
		return nil, fmt.Errorf("%w: %s has no PIN", applets.ErrContent, p.name)
	case c.PIN != nil && (c.PIN.Reference.IsZero() || c.PIN.Limit > applets.MaxPINLimit):
		return nil, fmt.Errorf("%w: the PIN is missing, or its limit is over %d", applets.ErrContent, applets.MaxPINLimit)
	case c.PIN != nil && c.PIN.MustChange && !p.r.written()[ValuePINMustChange]:
		return nil, fmt.Errorf("%w: %s can't demand that the PIN be changed", applets.ErrContent, p.name)
	}
	if _, err := c.Record.Encode(); err != nil {
		return nil, err
	}
	if _, err := applets.EncodeItems(c.Items); err != nil {
		return nil, err
	}
	written := p.r.written()
	for _, it := range c.Items {
		if !written["item:"+it.Name] && !written[ValueItems] {
			return nil, fmt.Errorf("%w: %s has no place for the item %s", applets.ErrContent, p.name, it.Name)
		}
	}
	return p.blocks(p.r.Personalize.Groups, &writer{c, seal})
}

// Wipe implements [applets.Profile].
func (p *Profile) Wipe() [][]byte {
	out, err := p.blocks(p.r.Wipe.Groups, &writer{})
	if err != nil {
		panic("recipe: constants that can't be written: " + err.Error()) // Check refuses all else
	}
	return out
}

// blocks packs groups into the data fields of STORE DATA. A group longer than
// one goes on in the next (GPCS 11.11.2.3).
func (p *Profile) blocks(groups []Group, w *writer) ([][]byte, error) {
	var out [][]byte
	for i, g := range groups {
		value, present, err := w.parts(g.Parts)
		if err != nil {
			return nil, fmt.Errorf("group %d (%X): %w", i+1, []byte(g.ID), err)
		}
		if !present {
			continue
		}
		if len(value) > iso7816.MaxTLVLength {
			return nil, fmt.Errorf("%w: group %d (%X) has %d bytes", applets.ErrContent, i+1, []byte(g.ID), len(value))
		}
		var b []byte
		if p.r.format() == globalplatform.FormatDGI {
			b = globalplatform.AppendDGI(nil, globalplatform.DGI{ID: uint16(g.ID[0])<<8 | uint16(g.ID[1]), Value: value})
		} else {
			tag, err := tagOf(g.ID)
			if err != nil {
				return nil, err
			}
			b = iso7816.AppendTLV(nil, tag, value)
		}
		if n := len(out); n > 0 && len(out[n-1])+len(b) <= applets.MaxBlock {
			out[n-1] = append(out[n-1], b...)
			continue
		}
		for len(b) > 0 {
			n := min(len(b), applets.MaxBlock)
			out = append(out, append([]byte(nil), b[:n]...))
			b = b[n:]
		}
	}
	return out, nil
}

// parts returns the bytes of parts one after the other. They are present
// unless they have values and none of these is there to be written.
func (w *writer) parts(list []Part) (b []byte, present bool, err error) {
	values, there := false, false
	for _, p := range list {
		var x []byte
		var has, isValue bool
		switch {
		case len(p.Parts) > 0:
			if x, has, err = w.parts(p.Parts); err != nil {
				return nil, false, err
			}
			isValue = hasValues(p.Parts)
			switch {
			case !has:
				x = nil
			case p.Tag != 0 && len(x) > iso7816.MaxTLVLength:
				err = fmt.Errorf("%w: data object %X of %d bytes", applets.ErrContent, uint32(p.Tag), len(x))
			case p.Tag != 0:
				x = iso7816.AppendTLV(nil, iso7816.Tag(p.Tag), x)
			case p.Encrypt:
				x, err = w.encrypt(x, p.Padding)
			}
		case len(p.Hex) > 0:
			x, has = p.Hex, true
		default:
			isValue = true
			x, has, err = w.value(p)
		}
		if err != nil {
			return nil, false, err
		}
		b = append(b, x...)
		values = values || isValue
		there = there || isValue && has
	}
	return b, there || !values, nil
}

func hasValues(list []Part) bool {
	for _, p := range list {
		if p.Value != "" || p.Item != "" || hasValues(p.Parts) {
			return true
		}
	}
	return false
}

func (w *writer) encrypt(plain []byte, padding string) ([]byte, error) {
	if padding != "none" {
		plain = append(plain, 0x80)
		for len(plain)%16 != 0 {
			plain = append(plain, 0)
		}
	}
	defer clear(plain)
	switch {
	case len(plain)%16 != 0 || len(plain) == 0:
		return nil, fmt.Errorf("%w: %d bytes can't be encrypted without padding", applets.ErrContent, len(plain))
	case w.seal == nil:
		return nil, errors.New("nothing to encrypt it with")
	}
	out, err := w.seal(plain)
	if err == nil && len(out) != len(plain) {
		err = fmt.Errorf("encrypted to %d bytes, %d expected", len(out), len(plain))
	}
	return out, err
}

// value returns a value's bytes; false where there is none.
func (w *writer) value(p Part) (b []byte, there bool, err error) {
	c := w.content
	there = true
	one := func(set bool) []byte {
		if set {
			return []byte{1}
		}
		return []byte{0}
	}
	switch p.Value {
	case ValueID:
		b = []byte(c.Record.ID)
	case ValueService:
		b = []byte(c.Record.Service)
	case ValueIssueNumber:
		b = []byte{byte(c.Record.IssueNumber >> 8), byte(c.Record.IssueNumber)}
	case ValueExpiry:
		if there = !c.Record.Expiry.IsZero(); there {
			b = packDate(c.Record.Expiry)
		}
	case ValueSignature:
		b, there = c.Record.Signature, c.Record.Signature != nil
	case ValueRecord:
		b, err = c.Record.Encode()
	case ValueItems:
		b, err = applets.EncodeItems(c.Items)
		there = len(c.Items) > 0
	case ValueTag:
		b = c.Tag[:]
	case ValuePINSet:
		b = one(c.PIN != nil || c.KeepPIN)
	case ValuePIN, ValuePINLimit, ValuePINMustChange:
		if there = c.PIN != nil; !there {
			break
		}
		switch limit := c.PIN.Limit; {
		case p.Value == ValuePIN:
			b = c.PIN.Reference.Reveal()
		case p.Value == ValuePINMustChange:
			b = one(c.PIN.MustChange)
		case limit == 0:
			b = []byte{applets.DefaultPINLimit}
		default:
			b = []byte{limit}
		}
	default:
		there = false
		for _, it := range c.Items {
			if it.Name == p.Item {
				b, there = []byte(it.Value), true
			}
		}
	}
	if err != nil || !there || p.Length == 0 {
		return b, there, err
	}
	what := p.Value + p.Item
	b, err = fillUp(b, p.Length, p.Fill[0])
	if err != nil {
		return nil, false, fmt.Errorf("%w: %s %w", applets.ErrContent, what, err)
	}
	return b, true, nil
}

// fillUp appends a byte until b has the length.
func fillUp(b []byte, length int, fill byte) ([]byte, error) {
	if len(b) > length {
		return nil, fmt.Errorf("has %d bytes, there is room for %d", len(b), length)
	}
	out := make([]byte, length)
	for i := copy(out, b); i < length; i++ {
		out[i] = fill
	}
	return out, nil
}
