package ledger

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"
)

// saltSize is the size of a commitment's salt in bytes. Without the salt even
// a value of which there are few can't be found out from its commitment.
const saltSize = 16

// opening is an erasable value and what its commitment takes beside it.
type opening struct {
	Member string // as the record calls it
	Salt   []byte
	Value  []byte
}

// commitment is SHA-256(salt ‖ value).
func (o opening) commitment() []byte {
	h := sha256.New()
	h.Write(o.Salt)
	h.Write(o.Value)
	return h.Sum(nil)
}

// reasonMember is the one erasable member outside the event's data.
const reasonMember = "reason"

// member is an erasable member of an event: a string or bytes.
type member struct {
	name   string
	value  reflect.Value // can be set
	digest reflect.Value // the field for the keyed digest, if there is one
}

func (m member) get() []byte {
	if m.value.Kind() == reflect.String {
		return []byte(m.value.String())
	}
	return slices.Clone(m.value.Bytes())
}

func (m member) set(b []byte) {
	switch {
	case m.value.Kind() == reflect.String:
		m.value.SetString(string(b))
	case len(b) == 0:
		m.value.SetZero()
	default:
		m.value.SetBytes(slices.Clone(b))
	}
}

// setCommitment puts a commitment in the place of the value: 64 hexadecimal
// digits into a string.
func (m member) setCommitment(c []byte) {
	if m.value.Kind() == reflect.String {
		m.value.SetString(hex.EncodeToString(c))
		return
	}
	m.value.SetBytes(c)
}

// held returns the commitment that stands in the place of the value, nil
// where the value was empty.
func (m member) held() ([]byte, error) {
	b := m.get()
	if m.value.Kind() == reflect.String && len(b) > 0 {
		if err := digits(m.name, string(b), 2*sha256.Size); err != nil {
			return nil, err
		}
		b, _ = hex.DecodeString(string(b))
	}
	if len(b) != 0 && len(b) != sha256.Size {
		return nil, fmt.Errorf("%s is not a commitment", m.name)
	}
	return b, nil
}

// own makes the event's data its own, so that its members can be set without
// changing what somebody else has, and returns it to be stored again with
// done.
func (e *Event) own() (data reflect.Value, done func(), err error) {
	v := reflect.ValueOf(e.Data)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return reflect.Value{}, nil, errors.New("no data")
	}
	data = reflect.New(v.Type()).Elem()
	data.Set(v)
	return data, func() { e.Data = data.Interface().(Data) }, nil
}

// erasable yields the erasable members: the reason, then those of the data.
func (e *Event) erasable(data reflect.Value) iter.Seq[member] {
	return func(yield func(member) bool) {
		if !yield(member{name: reasonMember, value: reflect.ValueOf(&e.Reason).Elem()}) {
			return
		}
		t := data.Type()
		for i := range t.NumField() {
			f := t.Field(i)
			digest, ok := f.Tag.Lookup("private")
			if !ok {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			m := member{name: name, value: data.Field(i)}
			if digest != "" {
				m.digest = data.FieldByName(digest)
			}
			if !yield(m) {
				return
			}
		}
	}
}

// seal puts commitments in the place of the erasable values, which it
// returns with their salts.
func (e *Event) seal(random io.Reader) (values []opening, err error) {
	data, done, err := e.own()
	if err != nil {
		return nil, err
	}
	for m := range e.erasable(data) {
		o := opening{m.name, make([]byte, saltSize), m.get()}
		if len(o.Value) == 0 {
			continue
		}
		if _, err := io.ReadFull(random, o.Salt); err != nil {
			return nil, err
		}
		m.setCommitment(o.commitment())
		values = append(values, o)
	}
	done()
	return values, nil
}

// unseal puts the values in the place of their commitments. Where a value is
// missing, the member is empty and stands in Erased.
func (e *Event) unseal(values []opening) error {
	data, done, err := e.own()
	if err != nil {
		return err
	}
	used := 0
	for m := range e.erasable(data) {
		commitment, err := m.held()
		if err != nil {
			return err
		}
		if len(commitment) == 0 {
			continue
		}
		at := slices.IndexFunc(values, func(o opening) bool { return o.Member == m.name })
		if at < 0 {
			m.set(nil)
			e.Erased = append(e.Erased, m.name)
			continue
		}
		// Where the salt ends says how long it is: a longer one could take the
		// beginning of the value along.
		if len(values[at].Salt) != saltSize || subtle.ConstantTimeCompare(values[at].commitment(), commitment) == 0 {
			return fmt.Errorf("%s is not what the record commits to", m.name)
		}
		m.set(values[at].Value)
		used++
	}
	if used != len(values) {
		return errors.New("there is a value that the record does not commit to")
	}
	done()
	return nil
}

// digestIDs fills in the keyed digests of IDs.
func (e *Event) digestIDs(digest func(id string) (string, error)) error {
	data, done, err := e.own()
	if err != nil {
		return err
	}
	for m := range e.erasable(data) {
		if !m.digest.IsValid() {
			continue
		}
		d, err := digest(string(m.get()))
		if err != nil {
			return err
		}
		m.digest.SetString(d)
	}
	done()
	return nil
}

// commitments checks that what stands in the place of erasable values is
// commitments.
func (e *Event) commitments() error {
	data, _, err := e.own()
	if err != nil {
		return err
	}
	for m := range e.erasable(data) {
		if _, err := m.held(); err != nil {
			return err
		}
	}
	return nil
}
