package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/freearea/freearea/iso7816"
)

// Limits of what an event holds, in bytes.
const (
	maxRecord = 64 << 10
	maxReason = 1000
	maxName   = 64
	maxError  = 500
	maxSigned = 32 << 10
	maxProof  = 1024
	maxSteps  = 1000
)

const timeForm = "2006-01-02T15:04:05.000Z"

// recordVersion is the version of the encoding.
const recordVersion = 2

// envelope is the order of a record's members.
type envelope struct {
	V        int             `json:"v"`
	Seq      int64           `json:"seq"`
	Time     string          `json:"time"`
	Kind     Kind            `json:"kind"`
	Operator string          `json:"operator"`
	Second   string          `json:"second,omitempty"`
	Counter  string          `json:"counter"`
	Reason   string          `json:"reason"`
	Data     json.RawMessage `json:"data"`
	seals
}

// seals are the signatures that a record ends with.
type seals struct {
	Signature        []byte `json:"signature,omitempty"`
	Countersignature []byte `json:"countersignature,omitempty"`
}

// body returns the canonical bytes that are signed: the record without its
// signatures. e is sealed and has passed check.
func (e Event) body() ([]byte, error) {
	data, err := marshal(e.Data)
	if err != nil {
		return nil, err
	}
	return marshal(envelope{
		V: recordVersion, Seq: e.Seq, Time: e.Time.UTC().Format(timeForm), Kind: e.Data.Kind(),
		Operator: e.Actor.Operator, Second: e.Second, Counter: e.Actor.Counter, Reason: e.Reason, Data: data,
	})
}

// close puts the signatures at the end of a body, which makes it the record.
func (s seals) close(body []byte) ([]byte, error) {
	tail, err := marshal(s)
	if err != nil {
		return nil, err
	}
	tail[0] = ','
	return append(body[:len(body)-1:len(body)-1], tail...), nil
}

// signed is what an operator signs: the event in this ledger and no other.
func signed(ledger string, body []byte) []byte {
	return append([]byte("freearea ledger event 2\n"+ledger+"\n"), body...)
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decode reads a record, and returns the body that its signatures are over as
// well. It accepts exactly what body and close write. The event is sealed.
func decode(record []byte) (e Event, body []byte, err error) {
	if len(record) > maxRecord {
		return Event{}, nil, fmt.Errorf("record of %d bytes, %d at most", len(record), maxRecord)
	}
	var env envelope
	if err := strict(record, &env); err != nil {
		return Event{}, nil, err
	}
	if env.V != recordVersion {
		return Event{}, nil, fmt.Errorf("record of version %d, %d is known", env.V, recordVersion)
	}
	t, err := time.Parse(timeForm, env.Time)
	if err != nil {
		return Event{}, nil, fmt.Errorf("time %q", env.Time)
	}
	data, err := decodeData(env.Kind, env.Data)
	if err != nil {
		return Event{}, nil, err
	}
	e = Event{
		Seq: env.Seq, Time: t, Second: env.Second, Reason: env.Reason, Data: data,
		Actor:  Actor{Operator: env.Operator, Counter: env.Counter},
		record: bytes.Clone(record), seals: env.seals,
	}
	if err := errors.Join(e.check(), e.commitments(), e.seals.check(e.Second != "")); err != nil {
		return Event{}, nil, err
	}
	if body, err = e.body(); err != nil {
		return Event{}, nil, err
	}
	again, err := e.seals.close(body)
	if err != nil {
		return Event{}, nil, err
	}
	if !bytes.Equal(again, record) {
		return Event{}, nil, errors.New("record is not in its canonical encoding")
	}
	return e, body, nil
}

func (s seals) check(second bool) error {
	if len(s.Signature) != ed25519.SignatureSize || second != (len(s.Countersignature) != 0) ||
		second && len(s.Countersignature) != ed25519.SignatureSize {
		return errors.New("no signature, or one that is no Ed25519 signature")
	}
	return nil
}

func decodeData(kind Kind, raw []byte) (Data, error) {
	switch kind {
	case KindConsentRecorded:
		return decodeAs[ConsentRecorded](raw)
	case KindConsentWithdrawn:
		return decodeAs[ConsentWithdrawn](raw)
	case KindCardBound:
		return decodeAs[CardBound](raw)
	case KindRunStarted:
		return decodeAs[RunStarted](raw)
	case KindRunFinished:
		return decodeAs[RunFinished](raw)
	case KindStepIntended:
		return decodeAs[StepIntended](raw)
	case KindStepDone:
		return decodeAs[StepDone](raw)
	case KindStepFailed:
		return decodeAs[StepFailed](raw)
	case KindIDReserved:
		return decodeAs[IDReserved](raw)
	case KindIDReassigned:
		return decodeAs[IDReassigned](raw)
	case KindIssued:
		return decodeAs[Issued](raw)
	case KindWithdrawn:
		return decodeAs[Withdrawn](raw)
	case KindAuthenticationFailed:
		return decodeAs[AuthenticationFailed](raw)
	case KindAuthenticationSucceeded:
		return decodeAs[AuthenticationSucceeded](raw)
	case KindSuspended:
		return decodeAs[Suspended](raw)
	case KindResumed:
		return decodeAs[Resumed](raw)
	case KindRevoked:
		return decodeAs[Revoked](raw)
	case KindCardReplaced:
		return decodeAs[CardReplaced](raw)
	case KindIDCarried:
		return decodeAs[IDCarried](raw)
	case KindKeyKept:
		return decodeAs[KeyKept](raw)
	case KindPINReset:
		return decodeAs[PINReset](raw)
	case KindHandoverPrepared:
		return decodeAs[HandoverPrepared](raw)
	case KindHandedOver:
		return decodeAs[HandedOver](raw)
	case KindOperatorAdded:
		return decodeAs[OperatorAdded](raw)
	case KindOperatorWithdrawn:
		return decodeAs[OperatorWithdrawn](raw)
	case KindKeysExchanged:
		return decodeAs[KeysExchanged](raw)
	case KindValuesErased:
		return decodeAs[ValuesErased](raw)
	}
	return nil, fmt.Errorf("unknown kind of event %q", kind)
}

func decodeAs[T Data](raw []byte) (Data, error) {
	var v T
	if err := strict(raw, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// strict decodes one JSON value without unknown members. What else JSON leaves
// open is closed by encoding again.
func strict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// check holds what can be said of an event without looking at the others.
func (e Event) check() error {
	if e.Data == nil {
		return errors.New("no data")
	}
	err := errors.Join(
		name("operator", e.Actor.Operator),
		optional("second operator", e.Second),
		name("counter", e.Actor.Counter),
		text("reason", e.Reason, maxReason),
		e.Data.check(),
	)
	// What is to come is not erased before it is there.
	if d, ok := e.Data.(ValuesErased); ok && len(d.Events) > 0 && d.Events[len(d.Events)-1] >= e.Seq {
		err = errors.Join(err, fmt.Errorf("values of event %d, which is not before this one", d.Events[len(d.Events)-1]))
	}
	if err != nil {
		return fmt.Errorf("%s: %s", e.Data.Kind(), strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

func (d ConsentRecorded) check() error {
	return errors.Join(
		name("consent", d.Consent),
		name("service", d.Service),
		digits("manifest", d.Manifest, 64),
		name("method", d.Method),
		second("given", d.Given),
		second("until", d.Until),
		size("signed", d.Signed, 1, maxSigned),
	)
}

func (d ConsentWithdrawn) check() error {
	return errors.Join(name("consent", d.Consent), size("signed", d.Signed, 0, maxSigned))
}

func (d CardBound) check() error {
	return errors.Join(name("consent", d.Consent), d.Card.check())
}

func (d RunStarted) check() error {
	return errors.Join(
		name("run", d.Run),
		name("purpose", d.Purpose),
		name("service", d.Service),
		d.Card.check(),
		optional("consent", d.Consent),
		aid("instance", d.Instance),
		number("steps", d.Steps, 0, maxSteps),
	)
}

func (d RunFinished) check() error {
	var err error
	if d.Outcome != Done && d.Outcome != Failed {
		err = fmt.Errorf("outcome %q", d.Outcome)
	}
	return errors.Join(name("run", d.Run), err, text("error", d.Error, maxError))
}

func (d StepIntended) check() error {
	return errors.Join(name("run", d.Run), number("step", d.Step, 1, maxSteps), name("name", d.Name))
}

func (d StepDone) check() error {
	return errors.Join(name("run", d.Run), number("step", d.Step, 1, maxSteps), size("evidence", d.Evidence, 0, maxProof))
}

func (d StepFailed) check() error {
	var err error
	if d.Status != "" && (len(d.Status) != 4 || strings.Trim(d.Status, "0123456789ABCDEF") != "") {
		err = fmt.Errorf("status %q is not 4 hexadecimal digits", d.Status)
	}
	return errors.Join(name("run", d.Run), number("step", d.Step, 1, maxSteps), text("error", d.Error, maxError), err)
}

func (d IDReserved) check() error {
	return errors.Join(name("service", d.Service), name("id", d.ID), name("consent", d.Consent), optional("run", d.Run), idDigest(d.IDDigest))
}

func (d IDReassigned) check() error {
	return errors.Join(name("service", d.Service), name("id", d.ID), name("consent", d.Consent), optional("run", d.Run), idDigest(d.IDDigest))
}

func (d Issued) check() error {
	var expiry error
	if d.Expiry != "" {
		if _, err := time.Parse(time.DateOnly, d.Expiry); err != nil {
			expiry = fmt.Errorf("expiry %q is not a date", d.Expiry)
		}
	}
	return errors.Join(
		name("service", d.Service),
		d.Card.check(),
		name("consent", d.Consent),
		name("run", d.Run),
		aid("instance", d.Instance),
		name("id", d.ID),
		number("issue number", int(d.IssueNumber), 1, 0xFFFF),
		expiry,
		digits("tag", d.Tag, 32),
		idDigest(d.IDDigest),
	)
}

func (d Withdrawn) check() error {
	return errors.Join(name("service", d.Service), d.Card.check(), name("run", d.Run), aid("instance", d.Instance))
}

func (d AuthenticationFailed) check() error {
	return errors.Join(d.Card.check(), aid("target", d.Target), name("key", d.Key), optional("run", d.Run))
}

func (d AuthenticationSucceeded) check() error {
	return errors.Join(d.Card.check(), aid("target", d.Target), name("key", d.Key), optional("run", d.Run))
}

func idDigest(s string) error { return digits("ID's digest", s, 32) }

func (c CardRef) check() error { return digits("card", string(c), 32) }

// name holds for identifiers: 1 to 64 bytes without control characters.
func name(what, s string) error {
	if s == "" {
		return fmt.Errorf("no %s", what)
	}
	return optional(what, s)
}

func optional(what, s string) error {
	if strings.ContainsAny(s, "\n\t") {
		return fmt.Errorf("%s has control characters", what)
	}
	return text(what, s, maxName)
}

// text holds for what people write: control characters other than line feed
// and tab would hide what stands beside them.
func text(what, s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("%s of %d bytes, %d at most", what, len(s), limit)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s is not UTF-8", what)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7F }):
		return fmt.Errorf("%s has control characters", what)
	}
	return nil
}

func digits(what, s string, n int) error {
	if b, err := hex.DecodeString(s); err != nil || len(s) != n || hex.EncodeToString(b) != s {
		return fmt.Errorf("%s is not %d lower-case hexadecimal digits", what, n)
	}
	return nil
}

func size(what string, b []byte, low, high int) error {
	if len(b) < low || len(b) > high {
		return fmt.Errorf("%s of %d bytes, %d to %d allowed", what, len(b), low, high)
	}
	return nil
}

func number(what string, n, low, high int) error {
	if n < low || n > high {
		return fmt.Errorf("%s %d, %d to %d allowed", what, n, low, high)
	}
	return nil
}

func aid(what string, a iso7816.AID) error {
	if a.IsZero() {
		return fmt.Errorf("no %s AID", what)
	}
	return nil
}

func second(what string, t time.Time) error {
	if t.IsZero() || t.Location() != time.UTC || t.Nanosecond() != 0 {
		return fmt.Errorf("%s is not a time in UTC and whole seconds", what)
	}
	return nil
}
