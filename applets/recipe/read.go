package recipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// Life cycle states of an observation (GPCS table 11-4).
const (
	selectable   = 0x07
	personalized = 0x0F
)

// ErrNotThere reports something that does not stand where the recipe says.
var ErrNotThere = errors.New("not where the recipe says")

func bcd(n int) byte { return byte(n/10<<4 | n%10) }

func packDate(t time.Time) []byte {
	y, m, d := t.Date()
	return []byte{bcd(y / 100), bcd(y % 100), bcd(int(m)), bcd(d)}
}

func parseDate(b []byte) (time.Time, error) {
	t, err := time.Parse("20060102", fmt.Sprintf("%X", b))
	if err != nil || len(b) != 4 {
		return time.Time{}, fmt.Errorf("%w: expiry is no date", applets.ErrMalformedRecord)
	}
	return t, nil
}

// answers are what was read, by the name of the step.
type answers map[string][]byte

// at returns what stands at a location; false where nothing does.
func (a answers) at(from string, path []Tag) ([]byte, bool, error) {
	b, ok := a[from]
	for i, tag := range path {
		list, err := objects(b, i == 0)
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", from, err)
		}
		t, found := iso7816.Find(list, iso7816.Tag(tag))
		if !found {
			return nil, false, nil
		}
		b = t.Value
	}
	return b, ok, nil
}

// objects reads data objects. After those of a file its unused rest may
// follow, 00 or FF throughout.
func objects(b []byte, file bool) ([]iso7816.TLV, error) {
	var out []iso7816.TLV
	for len(b) > 0 {
		if file && (b[0] == 0 || b[0] == 0xFF) && len(bytes.Trim(b, string(b[:1]))) == 0 {
			break
		}
		t, rest, err := iso7816.ParseTLV(b)
		if err != nil {
			return nil, err
		}
		out, b = append(out, t), rest
	}
	return out, nil
}

// dialogue is a selected application.
type dialogue struct {
	*Profile
	sender  iso7816.Sender
	answers answers
	pin     func(context.Context) (applets.PIN, error)
	checked bool // a PIN was verified
}

// open selects the instance.
func (p *Profile) open(ctx context.Context, card iso7816.Card, aid iso7816.AID) (*dialogue, error) {
	d := &dialogue{Profile: p, sender: iso7816.Plain(card), answers: answers{}}
	c := iso7816.Select(aid)
	r, err := d.sender.Send(ctx, c)
	if err != nil {
		return nil, err
	}
	if !expected(r.SW, p.r.Select.Status) {
		return nil, unexpected(r, c)
	}
	if p.r.Select.FCI != "none" {
		if err := checkFCI(r.Data, aid); err != nil {
			return nil, err
		}
	}
	d.answers["select"] = r.Data
	return d, nil
}

// checkFCI refuses the answer of another application.
func checkFCI(b []byte, aid iso7816.AID) error {
	fci, err := iso7816.ParseSingleTLV(b, applets.TagFCI)
	if err != nil {
		return fmt.Errorf("%w: %w", applets.ErrWrongApplication, err)
	}
	list, err := fci.Children()
	if err != nil {
		return fmt.Errorf("%w: %w", applets.ErrWrongApplication, err)
	}
	name, found := iso7816.Find(list, applets.TagAID)
	if !found || !bytes.Equal(name.Value, aid.Bytes()) {
		return fmt.Errorf("%w: %X in place of %v", applets.ErrWrongApplication, name.Value, aid)
	}
	return nil
}

func expected(sw iso7816.SW, list []Status) bool {
	if len(list) == 0 {
		return sw == iso7816.OK
	}
	return slices.Contains(list, Status(sw))
}

// send sends a command of a step and returns the answer's data. A status word
// by which the application says that it holds nothing is
// [applets.ErrNotPersonalized].
func (d *dialogue) send(ctx context.Context, s Step, c iso7816.Command) (iso7816.Response, error) {
	if len(s.Class) > 0 {
		c.CLA = s.Class[0]
	}
	r, err := d.sender.Send(ctx, c)
	switch {
	case err != nil:
		return r, err
	case slices.Contains(d.r.Absent, Status(r.SW)):
		return r, fmt.Errorf("%w: %w", applets.ErrNotPersonalized, &iso7816.StatusError{Header: c.Header(), SW: r.SW})
	}
	return r, nil
}

// do sends a command and holds its status against the step's.
func (d *dialogue) do(ctx context.Context, s Step, c iso7816.Command) ([]byte, error) {
	r, err := d.send(ctx, s, c)
	if err == nil && !expected(r.SW, s.Status) {
		err = unexpected(r, c)
	}
	return r.Data, err
}

// unexpected is a status word that the recipe does not list, be it a good one.
func unexpected(r iso7816.Response, c iso7816.Command) error {
	if err := r.Err(c); err != nil {
		return err
	}
	return fmt.Errorf("%w: %v is answered by %v, which the recipe does not expect", iso7816.ErrProtocol, c, r.SW)
}

const (
	insSelect     = 0xA4
	insReadRecord = 0xB2
	insGetData    = 0xCA
)

// run carries steps out in order, those that wanted says are needed.
func (d *dialogue) run(ctx context.Context, steps []Step, wanted func(Step) bool) error {
	for _, s := range steps {
		if !wanted(s) {
			continue
		}
		if s.When.From != "" {
			b, _, err := d.answers.at(s.When.From, s.When.Path)
			if err != nil {
				return err
			}
			if !bytes.Equal(b, s.When.Equals) {
				continue
			}
		}
		if len(s.File) > 0 {
			// SELECT an EF under the current DF, no answer wanted.
			select_ := iso7816.Command{INS: insSelect, P1: 0x02, P2: 0x0C, Data: s.File}
			if _, err := d.do(ctx, Step{Class: s.Class}, select_); err != nil {
				return err
			}
		}
		var b []byte
		var err error
		switch s.Command {
		case ReadBinary:
			b, err = d.readBinary(ctx, s)
		case ReadRecord:
			p2 := byte(s.SFI)<<3 | 0x04
			b, err = d.do(ctx, s, iso7816.Command{INS: insReadRecord, P1: byte(s.Record), P2: p2, Ne: iso7816.MaxShortNe})
		case GetData:
			b, err = d.do(ctx, s, iso7816.Command{INS: insGetData, P1: byte(s.Tag >> 8), P2: byte(s.Tag), Ne: iso7816.MaxShortNe})
		case Verify:
			err = d.verify(ctx, s)
		}
		if err != nil {
			return err
		}
		if s.Name != "" {
			d.answers[s.Name] = b
		}
	}
	return nil
}

// endOfFile is the warning that fewer bytes were there than asked for.
const endOfFile iso7816.SW = 0x6282

// readBinary reads a transparent file from its beginning: to the length that
// the recipe names, or to the end, which is where fewer bytes come than were
// asked for.
func (d *dialogue) readBinary(ctx context.Context, s Step) ([]byte, error) {
	most := s.Length
	if most == 0 {
		most = maxRead
	}
	var file []byte
	for {
		c := iso7816.Command{INS: applets.InsReadBinary, P1: byte(len(file) >> 8), P2: byte(len(file)), Ne: min(iso7816.MaxShortNe, most-len(file))}
		if s.SFI > 0 && len(file) == 0 {
			c.P1 = 0x80 | byte(s.SFI) // which makes it the current file
		}
		r, err := d.send(ctx, s, c)
		if err != nil {
			return nil, err
		}
		data, end := r.Data, len(r.Data) < c.Ne
		switch {
		case len(file) > 0 && r.SW == iso7816.ErrWrongOffset: // it ended with the part before
			data = nil
		case r.SW == endOfFile && s.Length == 0:
			end = true
		case !expected(r.SW, s.Status):
			return nil, unexpected(r, c)
		case len(data) > c.Ne:
			return nil, fmt.Errorf("%w: %d bytes where %d were asked for", iso7816.ErrProtocol, len(data), c.Ne)
		}
		file = append(file, data...)
		switch {
		case s.Length > 0 && len(file) == s.Length:
			return file, nil
		case s.Length > 0 && end:
			return nil, fmt.Errorf("%w: %s has %d bytes, %d are expected", ErrNotThere, s.Name, len(file), s.Length)
		case end:
			return file, nil
		case len(file) >= most:
			return nil, fmt.Errorf("%w: %s is longer than %d bytes", iso7816.ErrProtocol, s.Name, most)
		}
	}
}

// reference is P2 of VERIFY and CHANGE REFERENCE DATA: specific reference data
// by short EF identifier, or the current EF's.
func (s Step) reference() byte { return 0x80 | byte(s.SFI) }

// block writes a PIN as the application wants it. Whoever calls erases it.
func (s Step) block(pin applets.PIN) ([]byte, error) {
	digits := pin.Reveal()
	defer clear(digits)
	return fillUp(digits, s.Length, s.Fill[0])
}

func (d *dialogue) verify(ctx context.Context, s Step) error {
	if d.pin == nil {
		return applets.ErrPINRequired
	}
	pin, err := d.pin(ctx)
	if err != nil {
		return err
	}
	if pin.IsZero() {
		return applets.ErrPINRequired
	}
	block, err := s.block(pin)
	if err != nil {
		return err
	}
	defer clear(block)
	if err := d.present(ctx, s, iso7816.Command{INS: applets.InsVerify, P2: s.reference(), Data: block}); err != nil {
		return err
	}
	d.checked = true
	return nil
}

// present sends a command with a PIN and says what its refusal means.
func (d *dialogue) present(ctx context.Context, s Step, c iso7816.Command) error {
	r, err := d.send(ctx, s, c)
	if err != nil || expected(r.SW, s.Status) {
		return err
	}
	if n, ok := r.SW.TriesLeft(); ok {
		return &applets.PINError{TriesLeft: n}
	}
	switch r.SW {
	case iso7816.ErrBlocked:
		return applets.ErrPINBlocked
	case iso7816.ErrDataInvalid:
		return applets.ErrMustChangePIN
	}
	return unexpected(r, c)
}

// Read implements [applets.Profile].
func (p *Profile) Read(ctx context.Context, card iso7816.Card, req applets.ReadRequest) (*applets.Reading, error) {
	if req.Level != 0 {
		return nil, fmt.Errorf("%s at level %v: %w", p.name, req.Level, scp.ErrLevel)
	}
	d, err := p.open(ctx, card, req.AID)
	if err != nil {
		return nil, err
	}
	d.pin = req.PIN
	if err := d.run(ctx, p.r.Read.Steps, p.needed(req.WantItems)); err != nil {
		return nil, err
	}
	out := &applets.Reading{Info: applets.ApplicationInfo{AID: req.AID}, PINVerified: d.checked}
	if err := d.record(out, req.Service); err != nil {
		return nil, err
	}
	if req.WantItems {
		if out.Items, err = d.items(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// needed says which steps are for items only, and left out without them.
func (p *Profile) needed(items bool) func(Step) bool {
	r := p.r.Read
	used := map[string]bool{}
	for _, l := range []Location{r.Record, r.ID, r.Service, r.IssueNumber, r.Expiry, r.Signature} {
		used[l.From] = true
	}
	for _, s := range r.Steps {
		used[s.When.From] = true
	}
	return func(s Step) bool { return items || s.Command == Verify || used[s.Name] }
}

// record puts EF.ID together from where its fields stand.
func (d *dialogue) record(out *applets.Reading, service string) error {
	r := d.r.Read
	if r.Record.given() {
		b, found, err := d.answers.at(r.Record.From, r.Record.Path)
		switch {
		case err != nil:
			return err
		case !found || len(b) == 0:
			return fmt.Errorf("EF.ID: %w: %w", ErrNotThere, applets.ErrNotPersonalized)
		}
		out.RawRecord = b
		out.Record, err = applets.ParseRecord(b)
		return err
	}
	out.Record.Service = service
	for _, f := range []struct {
		name string
		l    Location
		put  func([]byte) error
	}{
		{"ID", r.ID, func(b []byte) error { out.Record.ID = string(b); return nil }},
		{"service", r.Service, func(b []byte) error { out.Record.Service = string(b); return nil }},
		{"issue number", r.IssueNumber, func(b []byte) (err error) { out.Record.IssueNumber, err = number(b); return err }},
		{"expiry", r.Expiry, func(b []byte) (err error) { out.Record.Expiry, err = parseDate(b); return err }},
		{"signature", r.Signature, func(b []byte) error { out.Record.Signature = bytes.Clone(b); return nil }},
	} {
		if !f.l.given() {
			continue
		}
		b, found, err := d.answers.at(f.l.From, f.l.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		optional := f.name == "expiry" || f.name == "signature"
		switch {
		case len(b) > 0:
			if err := f.put(b); err != nil {
				return err
			}
		case f.name == "ID":
			return fmt.Errorf("ID: %w: %w", ErrNotThere, applets.ErrNotPersonalized)
		case !found && !optional:
			return fmt.Errorf("%s: %w", f.name, ErrNotThere)
		}
	}
	_, err := out.Record.Encode() // which checks every field
	return err
}

func number(b []byte) (uint16, error) {
	if len(b) != 2 {
		return 0, fmt.Errorf("%w: issue number of %d bytes, 2 expected", applets.ErrMalformedRecord, len(b))
	}
	return uint16(b[0])<<8 | uint16(b[1]), nil
}

func (d *dialogue) items() ([]applets.Item, error) {
	r := d.r.Read
	if r.AllItems.given() {
		b, _, err := d.answers.at(r.AllItems.From, r.AllItems.Path)
		if err != nil {
			return nil, err
		}
		return applets.ParseItems(b)
	}
	var out []applets.Item
	for _, it := range r.Items {
		b, found, err := d.answers.at(it.From, it.Path)
		if err != nil {
			return nil, err
		}
		if found && len(b) > 0 {
			out = append(out, applets.Item{Name: it.Name, Value: string(b)})
		}
	}
	_, err := applets.EncodeItems(out) // which checks every value
	return out, err
}

// ObservationRequest implements [applets.Profile]; nil where Observe is what
// asks.
func (p *Profile) ObservationRequest() []byte { return bytes.Clone(p.r.Observe.Request) }

// ParseObservation implements [applets.Profile].
func (p *Profile) ParseObservation(response []byte) (applets.Observation, error) {
	return p.observation(answers{"answer": response})
}

// observation finds tag and issue number. No tag means that the instance holds
// nothing.
func (p *Profile) observation(a answers) (applets.Observation, error) {
	o := applets.Observation{State: selectable, SpecUnknown: true}
	tag, found, err := a.at(p.r.Observe.Tag.From, p.r.Observe.Tag.Path)
	switch {
	case err != nil:
		return applets.Observation{}, fmt.Errorf("%w: tag: %w", applets.ErrMalformedObservation, err)
	case !found || len(tag) == 0:
		return o, nil
	case len(tag) != len(o.Tag):
		return applets.Observation{}, fmt.Errorf("%w: tag of %d bytes, %d expected", applets.ErrMalformedObservation, len(tag), len(o.Tag))
	}
	o.State, o.Slot, o.Tag = personalized, 1, [16]byte(tag)
	l := p.r.Observe.IssueNumber
	b, _, err := a.at(l.From, l.Path)
	if err == nil {
		o.IssueNumber, err = number(b)
	}
	if err != nil {
		return applets.Observation{}, fmt.Errorf("%w: issue number: %w", applets.ErrMalformedObservation, err)
	}
	// A recipe can't tell the tries left; that a PIN is set follows from
	// personalisation having come to its end.
	if p.Traits().PIN {
		o.PIN = &applets.PINState{}
	}
	return o, nil
}

// Observe implements [applets.Observer].
func (o observing) Observe(ctx context.Context, card iso7816.Card, instance iso7816.AID) (applets.Observation, error) {
	d, err := o.open(ctx, card, instance)
	if err != nil {
		return applets.Observation{}, err
	}
	err = d.run(ctx, o.r.Observe.Steps, func(Step) bool { return true })
	if errors.Is(err, applets.ErrNotPersonalized) {
		return applets.Observation{State: selectable, SpecUnknown: true}, nil
	}
	if err != nil {
		return applets.Observation{}, err
	}
	return o.observation(d.answers)
}

// ChangePIN implements [applets.PINChanger].
func (c changing) ChangePIN(ctx context.Context, card iso7816.Card, req applets.ReadRequest, old, replacement applets.PIN) error {
	return changer{c.Profile}.ChangePIN(ctx, card, req, old, replacement)
}

// ChangePIN sends CHANGE REFERENCE DATA, after what the reading does before it
// verifies.
func (c changer) ChangePIN(ctx context.Context, card iso7816.Card, req applets.ReadRequest, old, replacement applets.PIN) error {
	if old.IsZero() || replacement.IsZero() {
		return applets.ErrPINRequired
	}
	d, err := c.p.open(ctx, card, req.AID)
	if err != nil {
		return err
	}
	steps := c.p.r.Read.Steps
	i := slices.IndexFunc(steps, func(s Step) bool { return s.Command == Verify })
	s := steps[i]
	if len(s.File) > 0 {
		if _, err := d.do(ctx, Step{Class: s.Class}, iso7816.Command{INS: insSelect, P1: 0x02, P2: 0x0C, Data: s.File}); err != nil {
			return err
		}
	}
	data, err := s.block(old)
	if err != nil {
		return err
	}
	second, err := s.block(replacement)
	if err != nil {
		return err
	}
	data = append(data, second...)
	defer clear(data)
	defer clear(second)
	return d.present(ctx, s, iso7816.Command{INS: applets.InsChangeReference, P2: s.reference(), Data: data})
}
