package ledger

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// Errors of a ledger. All name the file.
var (
	ErrNotLedger = errors.New("not a ledger")                          // another kind of file
	ErrDamaged   = errors.New("ledger is damaged")                     // truncated, overwritten or tampered with
	ErrNewer     = errors.New("ledger is of a newer version")          // written by a newer program
	ErrReadOnly  = errors.New("ledger is open for reading only")       //
	ErrBusy      = errors.New("ledger is in use by another process")   // for longer than Options.Wait
	ErrNotFound  = errors.New("not in the ledger")                     //
	ErrInvalid   = errors.New("invalid event")                         // a field is missing, too long or malformed
	ErrExists    = errors.New("is in the ledger already")              // a consent, run or withdrawal recorded twice
	ErrIDTaken   = errors.New("ID is taken")                           // by another consent of the service
	ErrBound     = errors.New("consent is bound to another card")      //
	ErrWithdrawn = errors.New("consent is withdrawn")                  //
	ErrAIDTaken  = errors.New("AID belongs to another service")        //
	ErrOrder     = errors.New("event does not follow from the ledger") // e.g. an ID issued that was not reserved
)

// Options of a ledger. The zero value opens an existing one for reading and
// writing.
type Options struct {
	// Clock gives the time of events; nil is time.Now.
	Clock func() time.Time
	// Create makes a new, empty ledger where there is no file. Without it a
	// missing file is an error that wraps fs.ErrNotExist: an empty ledger in
	// the place of a lost one would give the same IDs out again.
	Create bool
	// ReadOnly refuses to append.
	ReadOnly bool
	// Wait is how long to wait for another process; 0 is 10 seconds.
	Wait time.Duration
}

// Ledger is an open ledger. Its methods can be called from several goroutines.
type Ledger struct {
	path  string
	db    *sql.DB
	clock func() time.Time
	wait  time.Duration
	ro    bool
}

// Open opens the ledger in a file, brings an older schema up to date, and
// checks the file. The error wraps [ErrNotLedger], [ErrDamaged] or [ErrNewer]
// where the content is at fault, and names the file. A new file has mode 0600.
func Open(ctx context.Context, path string, o Options) (*Ledger, error) { panic("in work") }

// Close closes the ledger.
func (l *Ledger) Close() error { panic("in work") }

// Check reads the whole ledger: SQLite's integrity check, every record in its
// one encoding, numbers without gaps. What it finds wraps [ErrDamaged].
func (l *Ledger) Check(ctx context.Context) error { panic("in work") }

// Append adds events, all or none, and returns the number of the last. They
// are on the disk when it returns. Seq and Time of what is given are ignored:
// all get the same time. See the event types for what is refused with which
// error.
func (l *Ledger) Append(ctx context.Context, events ...Event) (seq int64, err error) {
	panic("in work")
}

// Reservation asks for an ID.
type Reservation struct {
	Actor   Actor
	Reason  string
	Service string
	Consent string // recorded, not withdrawn
	Run     string // may be empty
	// ID is the ID that was given, for services whose IDs come from outside.
	ID string
	// Draw makes an ID where none is given, from the number of the draw: 1 for
	// the service's first. It is called again, with the next number, while the
	// ID that it made is taken. It runs while other processes wait: it must
	// not wait for anything.
	Draw func(number uint64) (string, error)
}

// ReserveID returns the ID of a service for a consent, reserved for it for
// ever; again tells that it had been reserved before. Exactly one of ID and
// Draw is set.
//
// With Draw, the reservation that the consent has already is returned, so that a
// run that was interrupted neither burns an ID nor gives out two. With ID, an
// ID that belongs to another consent is refused with [ErrIDTaken], unless
// that consent was bound to the same card as this one and the card's issue of
// the ID has ended (withdrawn): then the ID passes to this consent.
func (l *Ledger) ReserveID(ctx context.Context, r Reservation) (id string, again bool, err error) {
	panic("in work")
}

// ReservedID returns the newest ID reserved for a consent of a service; ok is
// false when there is none.
func (l *Ledger) ReservedID(ctx context.Context, service, consent string) (id string, ok bool, err error) {
	panic("in work")
}

// NextSequence returns the number that the next draw of the service will get,
// to show it; only ReserveID takes it.
func (l *Ledger) NextSequence(ctx context.Context, service string) (uint64, error) { panic("in work") }

// Filter chooses events; zero fields choose all.
type Filter struct {
	After   int64 // events with a greater number only
	Kinds   []Kind
	Service string
	Card    CardRef
	Consent string
	Run     string
	Limit   int // at most so many
}

// Events yields the chosen events in the order of their numbers. The ledger
// may be appended to meanwhile. An error is yielded once and ends the sequence.
//
// The filter compares what stands in the event itself: a StepDone names its
// run but no card.
func (l *Ledger) Events(ctx context.Context, f Filter) iter.Seq2[Event, error] { panic("in work") }

// Consent is a consent as it stands now.
type Consent struct {
	ConsentRecorded
	Actor     Actor     // who recorded it
	Recorded  time.Time // when
	Card      CardRef   // that it is bound to, "" while it is not
	Bound     time.Time // when
	Withdrawn time.Time // zero while it holds
}

// Consent returns a consent by its id. The error wraps [ErrNotFound].
func (l *Ledger) Consent(ctx context.Context, id string) (Consent, error) { panic("in work") }

// State says what a card holds of a service, as far as the ledger knows.
type State string

// States of a service on a card.
const (
	Active    State = "active"    // issued
	Ended     State = "withdrawn" // issued once, then withdrawn
	Uncertain State = "uncertain" // a run began and never ended
)

// ServiceState is a service on a card.
type ServiceState struct {
	Service string
	State   State
	Since   time.Time // of the event that made it so
	Issue   *Issued   // the last issue, nil when there was none
}

// Services returns the services that the card holds or held, sorted by name.
func (l *Ledger) Services(ctx context.Context, card CardRef) ([]ServiceState, error) {
	panic("in work")
}

// ActiveIssue returns the issue of a service that is on the card and not
// withdrawn; ok is false when there is none.
func (l *Ledger) ActiveIssue(ctx context.Context, service string, card CardRef) (issue Issued, ok bool, err error) {
	panic("in work")
}

// IssueNumber returns the number of the card's last issue of the service,
// withdrawn or not; 0 when there was none. The next issue has one more.
func (l *Ledger) IssueNumber(ctx context.Context, service string, card CardRef) (uint16, error) {
	panic("in work")
}

// AIDOwner returns the service that runs or issues have used the instance AID
// for; ok is false when none has.
func (l *Ledger) AIDOwner(ctx context.Context, aid iso7816.AID) (service string, ok bool, err error) {
	panic("in work")
}

// FailedAuthentications returns how often the authentication to a target on
// the card failed since it last succeeded.
func (l *Ledger) FailedAuthentications(ctx context.Context, card CardRef, target iso7816.AID) (int, error) {
	panic("in work")
}

// UnfinishedRuns returns the runs on a card that began and never ended, oldest
// first, leaving out those after which a run for the same service was done.
func (l *Ledger) UnfinishedRuns(ctx context.Context, card CardRef) ([]Run, error) { panic("in work") }

// Run is a run as it stands now.
type Run struct {
	RunStarted
	Started time.Time
	Outcome Outcome    // "" while it has not ended
	Last    *StepState // the last step that was begun, nil when none was
}

// StepState is a step of a run.
type StepState struct {
	Step  int
	Name  string
	Ended bool // done or failed; otherwise what it did to the card is unknown
}
