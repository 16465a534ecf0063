package batch

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

// Errors of cards in a batch, beside those of package provisioner.
var (
	// ErrNoRow: no row of the list is left for the card, or none names its CIN.
	ErrNoRow = errors.New("no row of the list is for this card")
	// ErrRowTaken: the row that names the card's CIN belongs to another card.
	ErrRowTaken = errors.New("the row that names this card belongs to another card")
	// ErrStopped: the batch was stopped before the card got a row; nothing was
	// written to it.
	ErrStopped = errors.New("the batch was stopped")
	// ErrUnderWay: the card is still being written in another slot.
	ErrUnderWay = errors.New("the card's row is still under way in another slot")
	// ErrRowRevoked: the card's row was issued to it, and revoked since.
	ErrRowRevoked = errors.New("the row was issued to this card, and was revoked since")
)

// Ledger is what a batch asks of the ledger; *[ledger.Ledger] is one.
type Ledger interface {
	provisioner.Ledger
	Events(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Event, error]
	IDOwner(ctx context.Context, service, id string) (consent string, err error)
	Last(ctx context.Context) (seq int64, err error)
}

// Options of a batch. Manifest, LoadFile, Provisioner, Ledger, CounterKey and
// Source are needed.
type Options struct {
	Manifest *manifest.Manifest
	LoadFile *capfile.File
	// Manifests are those of other services that are at hand, by id. What was
	// revoked of them, or of Manifest, while its card was elsewhere is erased from
	// each card that is presented.
	Manifests map[string]*manifest.Manifest
	// Provisioner is how each card is worked on. Its Card, Ledger and Progress
	// are set for each.
	Provisioner provisioner.Provisioner
	Ledger      Ledger
	// CounterKey returns the public key of a name and version by which consents
	// are accepted.
	CounterKey func(ctx context.Context, k consent.Key) (ed25519.PublicKey, error)
	// PIN reads a PIN file.
	PIN func(ctx context.Context, path string) (manifest.PINDigits, error)
	// Dir is where the list's relative paths begin.
	Dir string
	// CardExpiry is that of rows that name none.
	CardExpiry time.Time
	Reason     string // for the ledger, may be ""

	Source iso7816.Source
	Slots  []string // to be used; nil is all
	// Now is the clock, in the counter's time zone; nil is time.Now.
	Now func() time.Time
	// Poll is how often the ledger is asked what other processes have issued of
	// the list; 0 is two seconds.
	Poll time.Duration
	// Observe is told what happens, one event at a time; it may be nil.
	Observe func(Event)
}

// State says what has come of a row.
type State string

// States of rows.
const (
	Open         State = "open"          // waits for a card
	Unfinished   State = "unfinished"    // begun; its own card, in any slot, goes on with it
	underWay     State = "under-way"     // a slot has it
	Issued       State = "issued"        // in this run
	IssuedBefore State = "issued-before" // before this run
	IssuedBeside State = "issued-beside" // during this run, by another process
	RefusedRow   State = "refused"       // in this run, for a reason that no other card mends
)

func (s State) issued() bool { return s == Issued || s == IssuedBefore || s == IssuedBeside }

// row is a row of the list at work. What changes is under the batch's mutex.
type row struct {
	Row
	consent *consent.Signed

	state  State
	card   ledger.CardRef // to which the consent is bound
	issue  *ledger.Issued // once issued
	slot   string
	at     time.Time
	failed error // the last error, nil after success
}

// Batch is a list at work.
type Batch struct {
	o    Options
	list *List
	rows []*row

	unrecorded []*consent.Signed // consents that are not in the ledger yet

	mu        sync.Mutex
	byConsent map[string]*row
	byCard    map[ledger.CardRef]*row
	byCIN     map[string]*row // by the digits of the list
	lengths   []int           // of those digits
	next      int             // rows before it need not be looked at for cards that nobody names
	count     map[State]int
	refusals  []Refusal
	wipes     []Wipe
	wipeOf    map[issueKey]int // in wipes
	wiped     int              // of wipes
	started   time.Time        // first card
	finished  chan struct{}
	observing sync.Mutex

	asking sync.Mutex
	seen   int64 // number of the last event that was looked at
}

// New checks a list against its files and the ledger: each consent must be
// there and cover its row now, each subject must fit, each PIN file hold a PIN.
// Rows that are issued already are not held against anything. Nothing is
// written. The error is [Faults] where the list is at fault, with those that
// [Parse] found: of such rows only the files are looked at.
func New(ctx context.Context, list *List, o Options) (*Batch, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Poll == 0 {
		o.Poll = 2 * time.Second
	}
	o.Provisioner.Ledger = o.Ledger
	manifests := maps.Collect(maps.All(o.Manifests))
	manifests[o.Manifest.ID] = o.Manifest
	o.Manifests = manifests
	b := &Batch{o: o, list: list, byConsent: map[string]*row{}, byCard: map[ledger.CardRef]*row{}, byCIN: map[string]*row{}, count: map[State]int{}, wipeOf: map[issueKey]int{}, finished: make(chan struct{})}
	var err error
	if b.seen, err = o.Ledger.Last(ctx); err != nil {
		return nil, err
	}
	faults := slices.Clone(list.faults)
	seen := map[string]int{}
	for i, in := range list.Rows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if i%together == 0 {
			b.prepared(Checking, i, len(list.Rows))
		}
		r := &row{Row: in, state: Open}
		fault := func(column string, f Fault) {
			at := list.cells[i][column]
			if at.line == 0 {
				at.line = in.Line
			}
			f.List, f.Line, f.Column, f.Name = list.Name, at.line, at.column, column
			faults = append(faults, f)
		}
		if r.CardExpiry.IsZero() {
			r.CardExpiry = o.CardExpiry
		}
		if in.ConsentRef == "" { // told already
			continue
		}
		recorded, err := b.findConsent(ctx, r)
		if err != nil {
			fault(ColumnConsent, Fault{Err: err})
			continue
		}
		id := r.consent.Record.ID
		if other, twice := seen[id]; twice {
			fault(ColumnConsent, Fault{Problem: ProblemSameConsent, Other: other})
			continue
		}
		seen[id] = in.Line
		if r.state, err = b.stateOf(ctx, r, recorded, IssuedBefore); err != nil {
			return nil, err
		}
		b.rows = append(b.rows, r)
		b.count[r.state]++
		if r.state.issued() {
			continue
		}
		if err := b.check(ctx, r, !list.faulty[i], fault); err != nil {
			return nil, err
		}
		if recorded == nil {
			b.unrecorded = append(b.unrecorded, r.consent)
		}
	}
	b.prepared(Checking, len(list.Rows), len(list.Rows))
	if len(faults) > 0 {
		return nil, faults.sorted()
	}
	for _, r := range b.rows {
		b.byConsent[r.consent.Record.ID] = r
		if r.card != "" {
			b.byCard[r.card] = r
		}
		if n := len(r.CIN); n > 0 {
			b.byCIN[r.CIN] = r
			if !slices.Contains(b.lengths, n) {
				b.lengths = append(b.lengths, n)
			}
		}
	}
	b.finish()
	return b, nil
}

// idInUse reports whether a row's ID is another holder's. One that was on a card,
// and is on none or is good no more, may pass to the holder's new consent: what
// the ledger holds of their cards decides that.
func (b *Batch) idInUse(ctx context.Context, r *row) (bool, error) {
	if r.ID == "" {
		return false, nil
	}
	owner, err := b.o.Ledger.IDOwner(ctx, b.o.Manifest.ID, r.ID)
	if err != nil || owner == "" || owner == r.consent.Record.ID {
		return false, err
	}
	other, err := b.o.Ledger.Consent(ctx, owner)
	if err != nil || other.Card == "" {
		return err == nil, err
	}
	on, err := b.o.Ledger.IssuesOn(ctx, other.Card)
	return slices.ContainsFunc(on, func(i ledger.CardIssue) bool {
		return i.Service == b.o.Manifest.ID && i.ID == r.ID && !i.Revoked
	}), err
}

// findConsent reads the consent that a row names, and returns what the ledger
// has of it, nil where that is nothing.
func (b *Batch) findConsent(ctx context.Context, r *row) (*ledger.Consent, error) {
	id := r.ConsentRef
	if !isConsentID(id) {
		data, err := os.ReadFile(b.path(id))
		if err != nil {
			return nil, err
		}
		if r.consent, err = consent.Parse(data); err != nil {
			return nil, err
		}
		id = r.consent.Record.ID
	}
	recorded, err := b.o.Ledger.Consent(ctx, id)
	switch {
	case r.consent != nil && errors.Is(err, ledger.ErrNotFound):
		return nil, nil
	case err == nil && r.consent == nil:
		r.consent, err = consent.Parse(recorded.Signed)
	}
	return &recorded, err
}

// path is where a path of the list leads.
func (b *Batch) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(b.o.Dir, filepath.FromSlash(name))
}

// look asks the ledger what has come of a row: to which card it belongs, and
// whether it is issued, which is told as done.
func (b *Batch) look(ctx context.Context, r *row, done State) (State, error) {
	recorded, err := b.o.Ledger.Consent(ctx, r.consent.Record.ID)
	if errors.Is(err, ledger.ErrNotFound) {
		return Open, nil
	}
	if err != nil {
		return Open, err
	}
	return b.stateOf(ctx, r, &recorded, done)
}

// stateOf is look with what the ledger has of the row's consent.
func (b *Batch) stateOf(ctx context.Context, r *row, recorded *ledger.Consent, done State) (State, error) {
	if recorded == nil || recorded.Card == "" {
		return Open, nil
	}
	r.card = recorded.Card
	issue, ok, err := b.o.Ledger.ActiveIssue(ctx, b.o.Manifest.ID, r.card)
	if err == nil && ok && issue.Consent == r.consent.Record.ID {
		r.issue = &issue
		return done, nil
	}
	return Unfinished, err
}

// set brings a row into another state.
func (b *Batch) set(r *row, s State) {
	b.count[r.state]--
	b.count[s]++
	r.state = s
	if r.card != "" {
		b.byCard[r.card] = r
	}
	b.finish()
}

// finish ends the batch when no row can be issued any more.
func (b *Batch) finish() {
	if b.count[Open]+b.count[Unfinished]+b.count[underWay] == 0 {
		select {
		case <-b.finished: // and was before a refused row was tried again
		default:
			close(b.finished)
		}
	}
}

// request is what is asked of the provisioner for a row.
func (b *Batch) request(ctx context.Context, r *row) (provisioner.Request, error) {
	q := provisioner.Request{
		Manifest: b.o.Manifest, LoadFile: b.o.LoadFile, Consent: r.consent, CardExpiry: r.CardExpiry, Now: b.o.Now(),
		Subject: manifest.Subject{ID: r.ID, Items: r.Items}, Reason: b.o.Reason,
	}
	var err error
	if q.CounterKey, err = b.o.CounterKey(ctx, r.consent.Key); err != nil {
		return q, &columnError{ColumnConsent, fmt.Errorf("key %q that signed the consent: %w", r.consent.Key.Name, err)}
	}
	if r.PINFile != "" {
		if q.Subject.PIN, err = b.o.PIN(ctx, b.path(r.PINFile)); err != nil {
			return q, &columnError{ColumnPINFile, err}
		}
	}
	return q, nil
}

// columnError is an error about one cell of a row.
type columnError struct {
	column string
	err    error
}

func (e *columnError) Error() string { return e.column + ": " + e.err.Error() }
func (e *columnError) Unwrap() error { return e.err }

// check holds a row against the manifest, its consent and this moment; of one
// whose cells have faults, which are told already, only what its files show. Only
// an error that is no fault of the row is returned.
func (b *Batch) check(ctx context.Context, r *row, whole bool, fault func(column string, f Fault)) error {
	q, err := b.request(ctx, r)
	if wrong := new(columnError); errors.As(err, &wrong) {
		fault(wrong.column, Fault{Err: wrong.err})
		return nil
	}
	if !whole {
		return nil
	}
	if inUse, err := b.idInUse(ctx, r); err != nil {
		return err
	} else if inUse {
		fault(ColumnID, Fault{Problem: ProblemIDInUse})
	}
	var subject manifest.Faults
	if errors.As(b.o.Manifest.CheckSubject(q.Subject), &subject) {
		for _, f := range subject { // all else was checked with the list
			f.Key = ""
			fault(ColumnPINFile, Fault{Err: f})
		}
		return nil
	}
	_, err = b.o.Provisioner.Desire(ctx, q)
	var gaps consent.Gaps
	switch {
	case err == nil:
	case errors.As(err, &gaps):
		for _, g := range gaps {
			fault(ColumnConsent, Fault{Err: g})
		}
	case errors.Is(err, manifest.ErrNoCardExpiry), errors.Is(err, manifest.ErrCardExpired):
		fault(ColumnCardExpiry, Fault{Err: err})
	case errors.Is(err, consent.ErrWithdrawn), errors.Is(err, provisioner.ErrTermEnded):
		fault(ColumnConsent, Fault{Err: err})
	default:
		return err // the same for every row
	}
	return nil
}

// together is how many consents go on record at a time: each time waits for the
// disk.
const together = 64

// recordConsents puts every consent of the list on record, before any card is
// used.
func (b *Batch) recordConsents(ctx context.Context) error {
	done := 0
	for some := range slices.Chunk(b.unrecorded, together) {
		if ctx.Err() != nil {
			return nil // stopped before the first card
		}
		done += len(some)
		err := b.o.Provisioner.RecordConsent(ctx, some...)
		if errors.Is(err, ledger.ErrExists) { // one of them, meanwhile, by another process
			err = nil
			for _, signed := range some {
				if one := b.o.Provisioner.RecordConsent(ctx, signed); !errors.Is(one, ledger.ErrExists) {
					err = errors.Join(err, one)
				}
			}
		}
		if err != nil {
			return err
		}
		b.prepared(Recording, done, len(b.unrecorded))
	}
	b.unrecorded = nil
	return nil
}

// Run issues until no row is open any more, the source ends, or the context
// does; the cards under way then are finished, also those that are being
// written. It first records the consents that the ledger does not have. A card
// that fails stops no other: what came of each is told to Observe and stands in
// the report. The error is that of the source, or of recording the consents.
func (b *Batch) Run(ctx context.Context) error {
	if err := b.recordConsents(ctx); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var following, working sync.WaitGroup
	following.Go(func() {
		defer stop()
		b.follow(watching)
	})
	var (
		turn   = closed()                     // of the card presented last
		busy   = map[string]<-chan struct{}{} // slots, until their last card is done with
		source error
	)
	for e, err := range b.o.Source.Events(watching) {
		if err != nil {
			if watching.Err() == nil {
				source = err
			}
			break
		}
		if len(b.o.Slots) > 0 && !slices.Contains(b.o.Slots, e.Slot) {
			continue
		}
		switch e.Kind {
		case iso7816.CardRemoved, iso7816.SlotAdded, iso7816.SlotRemoved:
			b.tell(Event{Kind: slotEvents[e.Kind], Slot: e.Slot})
		case iso7816.CardInserted:
			before, mine, earlier, done := turn, make(chan struct{}), busy[e.Slot], make(chan struct{})
			turn, busy[e.Slot] = mine, done
			working.Go(func() {
				defer close(done)
				if earlier != nil {
					<-earlier
				}
				b.present(watching, e.Slot, before, mine)
			})
		}
	}
	working.Wait()
	stop()
	following.Wait()
	return source
}

// follow ends with the context or with the last open row. It asks the ledger
// now and then which rows another process has issued.
func (b *Batch) follow(ctx context.Context) {
	ticks := time.NewTicker(b.o.Poll)
	defer ticks.Stop()
	for {
		_ = b.catchUp(ctx) // asked again; the cards' own questions tell why
		select {
		case <-b.finished:
			return
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// catchUp notes which rows other processes have begun and issued since the
// ledger was last asked. Each event is looked at once.
func (b *Batch) catchUp(ctx context.Context) error {
	b.asking.Lock()
	defer b.asking.Unlock()
	last, err := b.o.Ledger.Last(ctx)
	if err != nil || last == b.seen {
		return err
	}
	for e, err := range b.o.Ledger.Events(ctx, ledger.Filter{After: b.seen, Kinds: []ledger.Kind{ledger.KindCardBound, ledger.KindIssued}}) {
		if err != nil {
			return err
		}
		switch d := e.Data.(type) {
		case ledger.CardBound:
			err = b.beside(ctx, d.Consent)
		case ledger.Issued:
			err = b.beside(ctx, d.Consent)
		}
		if err != nil {
			return err
		}
	}
	b.seen = last
	return nil
}

// beside asks anew for the row of a consent, unless it is under way or done here.
func (b *Batch) beside(ctx context.Context, consent string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.byConsent[consent]; r != nil && (r.state == Open || r.state == Unfinished) {
		return b.refresh(ctx, r)
	}
	return nil
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// present works on one card, from its insertion to its outcome. before is closed
// when all cards that were presented earlier have got their rows; mine is
// closed then for those that come later.
func (b *Batch) present(watching context.Context, slot string, before <-chan struct{}, mine chan<- struct{}) {
	pass := sync.OnceFunc(func() {
		<-before
		close(mine)
	})
	defer pass()
	if watching.Err() != nil {
		return
	}
	// A card is never left half done because somebody stops the batch.
	ctx := context.WithoutCancel(watching)
	b.tell(Event{Kind: Presented, Slot: slot})
	conn, err := b.o.Source.Open(ctx, slot, iso7816.Exclusive)
	if err != nil {
		b.refuse(slot, nil, "", err)
		return
	}
	defer conn.Close() // what it could fail with, the next card in the slot shows
	pr := b.o.Provisioner
	pr.Card = conn
	session, err := pr.Connect(ctx)
	if err != nil {
		b.refuse(slot, nil, "", err)
		return
	}
	defer session.Close()
	<-before
	for wiped := false; ; wiped = true {
		if watching.Err() != nil {
			b.late(slot, session.CardRef)
			return
		}
		on, err := b.o.Ledger.IssuesOn(ctx, session.CardRef)
		if err != nil {
			b.refuse(slot, nil, session.CardRef, err)
			return
		}
		r, err := b.claim(ctx, slot, session, on)
		pass()
		// Whatever row it has: the holder asked for it, and here is the card.
		if !wiped && !errors.Is(err, ErrUnderWay) {
			b.wipe(ctx, &pr, session, slot, r, on)
		}
		switch {
		case err != nil:
			b.refuse(slot, nil, session.CardRef, err)
			return
		case r.state.issued() && slices.ContainsFunc(on, func(i ledger.CardIssue) bool { return i.Revoked && b.holds(r, i.Issued) }):
			b.revoked(slot, r, session.CardRef)
			return
		case r.state.issued():
			b.tell(Event{Kind: Recognised, Slot: slot, Line: r.Line, Reference: r.Reference})
			return
		}
		err = b.issue(ctx, &pr, session, r)
		if again := b.settle(ctx, slot, session.CardRef, r, err); !again {
			return
		}
	}
}

// late tells of a card that came when the batch was stopped, or was done:
// nothing was written to it.
func (b *Batch) late(slot string, card ledger.CardRef) {
	b.mu.Lock()
	r := b.byCard[card]
	issued := r != nil && r.state.issued()
	b.mu.Unlock()
	select {
	case <-b.finished:
		if issued {
			b.tell(Event{Kind: Recognised, Slot: slot, Line: r.Line, Reference: r.Reference})
			return
		}
		b.refuse(slot, nil, card, ErrNoRow)
	default:
		b.refuse(slot, nil, card, ErrStopped)
	}
}

// claim finds the row for a card, on which the ledger has these issues, and
// keeps it for the slot. A row that is issued is returned as it is: the card is
// one of the list's.
func (b *Batch) claim(ctx context.Context, slot string, s *provisioner.Session, on []ledger.CardIssue) (*row, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, err := b.match(ctx, s, on)
	if err != nil || r.state.issued() {
		return r, err
	}
	if r.state == underWay {
		return nil, ErrUnderWay
	}
	b.set(r, underWay) // also one that was refused: presented again, it is tried again
	r.slot = slot
	if b.started.IsZero() {
		b.started = b.o.Now()
	}
	return r, nil
}

func (b *Batch) match(ctx context.Context, s *provisioner.Session, on []ledger.CardIssue) (*row, error) {
	if r := b.byCard[s.CardRef]; r != nil {
		return r, nil
	}
	if r := b.named(s.CIN); r != nil {
		if r.card == "" {
			if err := b.refresh(ctx, r); err != nil {
				return nil, err
			}
		}
		if r.card != "" && r.card != s.CardRef {
			return nil, ErrRowTaken
		}
		return r, nil
	}
	for _, issue := range on {
		if issue.Service != b.o.Manifest.ID {
			continue
		}
		if r := b.byConsent[issue.Consent]; r != nil { // issued meanwhile, by another process
			return r, b.refresh(ctx, r)
		}
		if !issue.Revoked { // what was, is erased first
			return nil, fmt.Errorf("%w: issue number %d, under another consent", provisioner.ErrOtherIssue, issue.IssueNumber)
		}
	}
	for ; b.next < len(b.rows); b.next++ {
		if r := b.rows[b.next]; r.CIN == "" && r.state == Open {
			break
		}
	}
	for _, r := range b.rows[b.next:] {
		if r.CIN != "" || r.state != Open {
			continue
		}
		if err := b.refresh(ctx, r); err != nil {
			return nil, err
		}
		if r.card == "" || r.card == s.CardRef {
			return r, nil
		}
	}
	return nil, ErrNoRow
}

// named is the row that names a card by its CIN, nil if none does.
func (b *Batch) named(cin []byte) *row {
	digits := strings.ToUpper(hex.EncodeToString(cin))
	for _, n := range b.lengths {
		if n <= len(digits) {
			if r := b.byCIN[digits[len(digits)-n:]]; r != nil {
				return r
			}
		}
	}
	return nil
}

// refresh asks the ledger for what another process has done to a row that is
// open here.
func (b *Batch) refresh(ctx context.Context, r *row) error {
	state, err := b.look(ctx, r, IssuedBeside)
	if err == nil {
		b.set(r, state)
	}
	return err
}

// ofRow reports whether an error is the row's, whatever the card.
func ofRow(err error) bool {
	if errors.As(err, new(*columnError)) || errors.As(err, new(manifest.Faults)) || errors.As(err, new(consent.Gaps)) {
		return true
	}
	return slices.ContainsFunc([]error{
		consent.ErrWithdrawn, ledger.ErrWithdrawn, ledger.ErrIDTaken, provisioner.ErrTermEnded, manifest.ErrNoCardExpiry, manifest.ErrCardExpired,
	}, func(target error) bool { return errors.Is(err, target) })
}

// issue brings the row's content to the card.
func (b *Batch) issue(ctx context.Context, pr *provisioner.Provisioner, s *provisioner.Session, r *row) error {
	slot := r.slot
	b.tell(Event{Kind: Matched, Slot: slot, Line: r.Line, Reference: r.Reference})
	pr.Progress = func(p provisioner.Progress) {
		b.tell(Event{Kind: Progress, Slot: slot, Line: r.Line, Reference: r.Reference, Progress: p})
	}
	q, err := b.request(ctx, r)
	if err != nil {
		return err
	}
	desired, err := pr.Desire(ctx, q)
	if err != nil {
		return err
	}
	plan, err := pr.PlanIssue(ctx, s, desired)
	if err != nil {
		return err
	}
	_, err = pr.Run(ctx, s, plan)
	return err
}

// settle notes what came of a row, as the ledger says it, and reports whether
// the card may have another one: its row was taken by another card meanwhile.
func (b *Batch) settle(ctx context.Context, slot string, card ledger.CardRef, r *row, failed error) (again bool) {
	b.mu.Lock()
	state, lost := b.look(ctx, r, Issued)
	again = r.CIN == "" && r.card != "" && r.card != card && errors.Is(failed, provisioner.ErrOtherCard) && lost == nil
	switch {
	case state == Issued && r.card != card:
		state, failed = IssuedBeside, nil
	case state == Issued:
		failed = nil
	case ofRow(failed):
		state = RefusedRow
	case state == Open:
		b.next = 0 // the row is free again
	}
	r.at, r.failed = b.o.Now(), failed
	b.set(r, state)
	b.mu.Unlock()
	switch {
	case again:
	case state == Issued:
		b.tell(Event{Kind: Done, Slot: slot, Line: r.Line, Reference: r.Reference, Row: b.entry(r)})
	case state == IssuedBeside:
		b.refuse(slot, r, card, ErrRowTaken)
	default:
		b.refuse(slot, r, card, errors.Join(failed, lost))
	}
	return again
}

// refuse notes a card that got nothing, or not all of it.
func (b *Batch) refuse(slot string, r *row, card ledger.CardRef, err error) {
	x := Refusal{Slot: slot, Card: string(card), At: b.o.Now(), Code: Code(err), Err: err}
	e := Event{Kind: Refused, Slot: slot, Err: err}
	if r != nil {
		x.Line, x.Reference = r.Line, r.Reference
		e.Line, e.Reference, e.Row = r.Line, r.Reference, b.entry(r)
	}
	b.mu.Lock()
	b.refusals = append(b.refusals, x)
	b.mu.Unlock()
	b.tell(e)
}
