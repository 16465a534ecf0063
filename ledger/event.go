package ledger

import (
	"time"

	"github.com/freearea/freearea/iso7816"
)

// CardRef names a card: 32 lower-case hexadecimal digits, the digest of the
// card's CIN under the ledger key (keys.Store.Digest). Without the key it
// can't be found out which card it is.
type CardRef string

// Actor is who did something, and where.
type Actor struct {
	// Operator is the id of the operator who signed. In an event that is
	// appended it may be empty; otherwise it must be Options.Operator's.
	Operator string
	Counter  string // id of the counter, terminal or program
}

// Event is one thing that happened. Seq, Time, Second and Erased are given by
// the ledger when it is appended or read.
type Event struct {
	Seq    int64     // 1 for the ledger's first event, then without gaps
	Time   time.Time // UTC, to the millisecond; never before that of the event before
	Actor  Actor
	Second string // id of the other operator, where two acted together
	Reason string // 0 to 1,000 bytes; erasable
	Data   Data
	// Erased names the members whose values are erased, as the record calls
	// them. They are empty.
	Erased []string

	record []byte
	seals  seals
}

// Record returns the event's canonical bytes as the ledger holds them (see
// the package documentation); nil for an event that was not read from one.
func (e Event) Record() []byte { return append([]byte(nil), e.record...) }

// signers returns the ids of the operators who signed.
func (e Event) signers() []string {
	if e.Second == "" {
		return []string{e.Actor.Operator}
	}
	return []string{e.Actor.Operator, e.Second}
}

// Data is what happened: one of this package's event types, such as [Issued].
// Names and ids in it are UTF-8 of 1 to 64 bytes without control characters,
// unless the field says otherwise.
//
// Fields with the tag private are erasable: the record has a commitment in
// their place. They are strings or byte slices. The value of the tag, if there
// is one, names a field of the same type that gets the ID's keyed digest.
type Data interface {
	// Kind names the type.
	Kind() Kind
	check() error
}

// Kind names a type of event in the ledger.
type Kind string

// Kinds of events.
const (
	KindConsentRecorded         Kind = "consent-recorded"
	KindConsentWithdrawn        Kind = "consent-withdrawn"
	KindCardBound               Kind = "card-bound"
	KindRunStarted              Kind = "run-started"
	KindRunFinished             Kind = "run-finished"
	KindStepIntended            Kind = "step-intended"
	KindStepDone                Kind = "step-done"
	KindStepFailed              Kind = "step-failed"
	KindIDReserved              Kind = "id-reserved"
	KindIDReassigned            Kind = "id-reassigned"
	KindIssued                  Kind = "issued"
	KindWithdrawn               Kind = "withdrawn"
	KindAuthenticationFailed    Kind = "authentication-failed"
	KindAuthenticationSucceeded Kind = "authentication-succeeded"
	KindOperatorAdded           Kind = "operator-added"
	KindOperatorWithdrawn       Kind = "operator-withdrawn"
	KindKeysExchanged           Kind = "keys-exchanged"
	KindValuesErased            Kind = "values-erased"
)

// ConsentRecorded: a holder consented. A consent is recorded once; a second
// record of it is refused with [ErrExists].
type ConsentRecorded struct {
	Consent  string `json:"consent"`  // id of the consent
	Service  string `json:"service"`  // id of the service
	Manifest string `json:"manifest"` // SHA-256 of the manifest, 64 hexadecimal digits
	Method   string `json:"method"`   // how it was given, as the consent names it
	// Given and Until say when it was given and until when it holds, in UTC and
	// whole seconds.
	Given time.Time `json:"given"`
	Until time.Time `json:"until"`
	// Signed is the signed consent record itself, 1 to 32,768 bytes. The ledger
	// keeps it as it is and does not look into it.
	Signed []byte `json:"signed" private:""`
}

// ConsentWithdrawn: the holder withdrew the consent. It can be withdrawn once.
type ConsentWithdrawn struct {
	Consent string `json:"consent"`
	Signed  []byte `json:"signed,omitempty" private:""` // signed record of the withdrawal, 32,768 bytes at most
}

// CardBound: the consent's holder presented this card. A consent is bound to
// one card for ever: binding it to another is refused with [ErrBound]. The
// consent must be recorded and not withdrawn.
type CardBound struct {
	Consent string  `json:"consent"`
	Card    CardRef `json:"card"`
}

// RunStarted: a plan is about to be carried out on a card.
type RunStarted struct {
	Run      string      `json:"run"` // id of the run, used once
	Purpose  string      `json:"purpose"`
	Service  string      `json:"service"`
	Card     CardRef     `json:"card"`
	Consent  string      `json:"consent,omitempty"`
	Instance iso7816.AID `json:"instance"` // of the service
	Steps    int         `json:"steps"`    // how many the plan has, 0 to 1,000
}

// RunFinished: the run ended by itself. A run that was torn has none.
type RunFinished struct {
	Run     string  `json:"run"`
	Outcome Outcome `json:"outcome"`
	Error   string  `json:"error,omitempty" private:""` // code or short text, 500 bytes at most, without secrets
}

// Outcome says how a run ended.
type Outcome string

// Outcomes of runs.
const (
	Done   Outcome = "done"
	Failed Outcome = "failed"
)

// StepIntended: a step of a run is about to be sent to the card.
type StepIntended struct {
	Run  string `json:"run"`
	Step int    `json:"step"` // from 1
	Name string `json:"name"` // what the plan calls it
}

// StepDone: the step ended as wanted. Evidence that the card gave, such as a
// receipt, may stand in it.
type StepDone struct {
	Run      string `json:"run"`
	Step     int    `json:"step"`
	Evidence []byte `json:"evidence,omitempty" private:""` // 1,024 bytes at most, never secrets
}

// StepFailed: the step was refused, or what it did is unknown.
type StepFailed struct {
	Run    string `json:"run"`
	Step   int    `json:"step"`
	Error  string `json:"error" private:""` // code or short text, 500 bytes at most, without secrets
	Status string `json:"status,omitempty"` // status word, 4 hexadecimal digits, where the card gave one
}

// IDReserved: an ID of a service belongs to a consent from now on. An ID is
// reserved once per service, for ever. Use [Ledger.ReserveID], which finds an
// earlier reservation again.
type IDReserved struct {
	Service string `json:"service"`
	ID      string `json:"id" private:"IDDigest"` // 1 to 64 bytes, as the service's manifest declares it
	Consent string `json:"consent"`
	Run     string `json:"run,omitempty"`
	// Sequence is the number of the draw for IDs that the ledger counted, from
	// 1; 0 for one that was given.
	Sequence uint64 `json:"sequence,omitempty"`
	IDDigest string `json:"id_digest"` // keyed digest of service and ID, given by the ledger
}

// IDReassigned: an ID that the card's holder had by an earlier, ended issue
// on the same card belongs to a new consent. See [Ledger.ReserveID].
type IDReassigned struct {
	Service  string `json:"service"`
	ID       string `json:"id" private:"IDDigest"`
	Consent  string `json:"consent"` // the new one
	Run      string `json:"run,omitempty"`
	IDDigest string `json:"id_digest"` // as in IDReserved
}

// Issued: the card holds this now. The ID must be reserved for the consent,
// the consent bound to the card, and the instance AID not another service's.
type Issued struct {
	Service     string      `json:"service"`
	Card        CardRef     `json:"card"`
	Consent     string      `json:"consent"`
	Run         string      `json:"run"`
	Instance    iso7816.AID `json:"instance"`
	ID          string      `json:"id" private:"IDDigest"`
	IssueNumber uint16      `json:"issue_number"` // from 1, rising per service and card
	Expiry      string      `json:"expiry"`       // date, "2030-03-31"; empty without one
	Tag         string      `json:"tag"`          // of the content, 32 hexadecimal digits
	KeyVersion  byte        `json:"key_version"`  // newest read key version on the card, 0 without read keys
	IDDigest    string      `json:"id_digest"`    // as in IDReserved
}

// Withdrawn: the service's information was erased from the card.
type Withdrawn struct {
	Service  string      `json:"service"`
	Card     CardRef     `json:"card"`
	Run      string      `json:"run"`
	Instance iso7816.AID `json:"instance"`
	// Deleted tells that the instance is gone too, not only wiped.
	Deleted bool `json:"deleted"`
}

// AuthenticationFailed: the card refused the host's proof, or the host the
// card's. Failures are counted per card and target, see
// [Ledger.FailedAuthentications].
type AuthenticationFailed struct {
	Card       CardRef     `json:"card"`
	Target     iso7816.AID `json:"target"` // the Security Domain or instance
	Key        string      `json:"key"`    // name of the key
	KeyVersion byte        `json:"key_version"`
	Run        string      `json:"run,omitempty"`
}

// AuthenticationSucceeded: host and card proved themselves to each other.
type AuthenticationSucceeded struct {
	Card       CardRef     `json:"card"`
	Target     iso7816.AID `json:"target"`
	Key        string      `json:"key"`
	KeyVersion byte        `json:"key_version"`
	Run        string      `json:"run,omitempty"`
}

func (ConsentRecorded) Kind() Kind         { return KindConsentRecorded }
func (ConsentWithdrawn) Kind() Kind        { return KindConsentWithdrawn }
func (CardBound) Kind() Kind               { return KindCardBound }
func (RunStarted) Kind() Kind              { return KindRunStarted }
func (RunFinished) Kind() Kind             { return KindRunFinished }
func (StepIntended) Kind() Kind            { return KindStepIntended }
func (StepDone) Kind() Kind                { return KindStepDone }
func (StepFailed) Kind() Kind              { return KindStepFailed }
func (IDReserved) Kind() Kind              { return KindIDReserved }
func (IDReassigned) Kind() Kind            { return KindIDReassigned }
func (Issued) Kind() Kind                  { return KindIssued }
func (Withdrawn) Kind() Kind               { return KindWithdrawn }
func (AuthenticationFailed) Kind() Kind    { return KindAuthenticationFailed }
func (AuthenticationSucceeded) Kind() Kind { return KindAuthenticationSucceeded }
