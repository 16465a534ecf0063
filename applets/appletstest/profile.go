package appletstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// ProfileConfig is a profile under test, with what it is tested with.
type ProfileConfig struct {
	// Profile is the profile: a recipe, or anybody's Go code. The card's
	// Install is called with its name.
	Profile applets.Profile
	// New returns a card for one test, with room for two instances.
	New func(t testing.TB) Card
	// Spec is what instances are installed with.
	Spec applets.InstallSpec
	// Content is written first. It sets a PIN where Spec has one.
	Content applets.Content
	// Update is written over it: another ID and another tag, and PIN and keys
	// kept where there are any (KeepPIN, KeepKeys).
	Update applets.Content
}

// RunProfile runs what every profile must keep, whatever its application:
// what was written is read and observed, a PIN has its tries, an update and a
// wipe are whole or not at all, one instance knows nothing of another.
func RunProfile(t *testing.T, cfg ProfileConfig) {
	for _, test := range []struct {
		name string
		run  func(*foreign)
	}{
		{"Blocks", (*foreign).blocks},
		{"BeforePersonalization", (*foreign).before},
		{"ReadBack", (*foreign).readBack},
		{"PIN", (*foreign).pin},
		{"ChangePIN", (*foreign).changePIN},
		{"Update", (*foreign).update},
		{"Wipe", (*foreign).wipe},
		{"Independence", (*foreign).independence},
		{"SecurityDomainChannel", (*foreign).channel},
		{"BrokenAnswers", (*foreign).broken},
		{"PowerCuts", (*foreign).cuts},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(&foreign{T: t, cfg: cfg, ctx: context.Background()})
		})
	}
}

// foreign is one test of a profile.
type foreign struct {
	*testing.T
	cfg  ProfileConfig
	ctx  context.Context
	card Card
}

// install brings an instance to a card, which is new unless there is one.
func (f *foreign) install(aid iso7816.AID) {
	f.Helper()
	if f.card == nil {
		f.card = f.cfg.New(f)
	}
	p, err := f.cfg.Profile.InstallParameters(f.cfg.Spec)
	if err != nil {
		f.Fatal(err)
	}
	if err := f.card.Install(f.ctx, f.cfg.Profile.Name(), aid, p); err != nil {
		f.Fatalf("install: %v", err)
	}
}

// session is the Security Domain's, with INSTALL [for personalization] sent.
func (f *foreign) session(aid iso7816.AID, level scp.Level) *scp.Session {
	f.Helper()
	sd, err := f.card.SecurityDomain(f.ctx, level)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := globalplatform.Execute(f.ctx, sd, globalplatform.InstallForPersonalization{Instance: aid}); err != nil {
		f.Fatal(err)
	}
	return sd
}

// options says how the profile's blocks are marked.
func (f *foreign) options() globalplatform.StoreOptions {
	o := globalplatform.StoreOptions{Format: globalplatform.FormatDGI}
	if x, ok := f.cfg.Profile.(applets.StoreFormatter); ok {
		o.Format, o.Encryption = x.StoreFormat()
	}
	return o
}

func (f *foreign) personalizeAt(aid iso7816.AID, level scp.Level, c applets.Content) error {
	f.Helper()
	sd := f.session(aid, level)
	blocks, err := f.cfg.Profile.Personalization(c, sd.EncryptSensitive)
	if err != nil {
		f.Fatal(err)
	}
	_, err = globalplatform.Store(f.ctx, sd, blocks, f.options(), nil)
	return err
}

func (f *foreign) personalize(aid iso7816.AID, c applets.Content) {
	f.Helper()
	if err := f.personalizeAt(aid, scp.CDecryption, c); err != nil {
		f.Fatal(err)
	}
}

// issue installs and personalises the first instance.
func (f *foreign) issue() {
	f.Helper()
	f.install(firstAID)
	f.personalize(firstAID, f.cfg.Content)
}

func (f *foreign) observe(aid iso7816.AID) applets.Observation {
	f.Helper()
	p := f.cfg.Profile
	var o applets.Observation
	var err error
	if x, ok := p.(applets.Observer); ok {
		o, err = x.Observe(f.ctx, f.card, aid)
	} else {
		var answer []byte
		options := f.options()
		options.Answer = true
		answer, err = globalplatform.Store(f.ctx, f.session(aid, scp.CDecryption), [][]byte{p.ObservationRequest()}, options, nil)
		if err == nil {
			o, err = p.ParseObservation(answer)
		}
	}
	if err != nil {
		f.Fatalf("observe: %v", err)
	}
	return o
}

// request reads with the PIN and the keys that were written.
func (f *foreign) request(aid iso7816.AID) applets.ReadRequest {
	r := applets.ReadRequest{AID: aid, Service: f.cfg.Content.Record.Service, WantItems: f.cfg.Profile.Traits().Items}
	r.Keys = func(_ context.Context, info applets.ApplicationInfo) (keys.Set, error) {
		for _, set := range f.cfg.Content.ReadKeys {
			if slices.Contains(info.KeyVersions, set.Version) {
				enc, err1 := keys.NewKey(set.ENC.Bytes()) // a copy, since Read erases it
				mac, err2 := keys.NewKey(set.MAC.Bytes())
				return keys.Set{Version: set.Version, ENC: enc, MAC: mac}, errors.Join(err1, err2)
			}
		}
		return keys.Set{}, applets.ErrNoReadKey
	}
	if f.cfg.Content.PIN != nil {
		r.PIN = pinIs(string(f.cfg.Content.PIN.Reference.Reveal()))
	}
	return r
}

func (f *foreign) read(r applets.ReadRequest) (*applets.Reading, error) {
	return f.cfg.Profile.Read(f.ctx, f.card, r)
}

// holds compares what is read and observed with content.
func (f *foreign) holds(aid iso7816.AID, c applets.Content) {
	f.Helper()
	got, err := f.read(f.request(aid))
	if err != nil {
		f.Fatalf("read: %v", err)
	}
	if d := cmp.Diff(c.Record, got.Record); d != "" {
		f.Errorf("record (-written +read):\n%s", d)
	}
	if d := cmp.Diff(c.Items, got.Items); d != "" {
		f.Errorf("items (-written +read):\n%s", d)
	}
	o := f.observe(aid)
	if !o.Personalized() || o.Tag != c.Tag || o.IssueNumber != c.Record.IssueNumber {
		f.Errorf("observed %+v, tag %X and number %d were written", o, c.Tag, c.Record.IssueNumber)
	}
	if (o.PIN != nil) != f.cfg.Spec.PIN {
		f.Errorf("observed PIN %+v", o.PIN)
	}
}

// isEmpty asks for an instance that holds nothing.
func (f *foreign) isEmpty(aid iso7816.AID) {
	f.Helper()
	if _, err := f.read(f.request(aid)); !errors.Is(err, applets.ErrNotPersonalized) {
		f.Errorf("read: %v, want %v", err, applets.ErrNotPersonalized)
	}
	if o := f.observe(aid); o.Personalized() || o.PIN != nil {
		f.Errorf("observed %+v", o)
	}
}

func (f *foreign) blocks() {
	p := f.cfg.Profile
	digits := []byte("\x00none\x00")
	if f.cfg.Content.PIN != nil {
		digits = f.cfg.Content.PIN.Reference.Reveal()
	}
	seal := func(b []byte) ([]byte, error) {
		out := bytes.Clone(b)
		for i := range out {
			out[i] ^= 0xA5
		}
		return out, nil
	}
	for _, c := range []applets.Content{f.cfg.Content, f.cfg.Update} {
		blocks, err := p.Personalization(c, seal)
		if err != nil {
			f.Fatal(err)
		}
		again, err := p.Personalization(c, seal)
		if err != nil || !cmp.Equal(blocks, again) {
			f.Errorf("the same content gives other blocks, %v", err)
		}
		for i, b := range blocks {
			if len(b) == 0 || len(b) > applets.MaxBlock {
				f.Errorf("block %d has %d bytes", i, len(b))
			}
			if bytes.Contains(b, digits) {
				f.Errorf("the PIN stands in block %d in the clear", i)
			}
		}
	}
	if a, err := p.InstallParameters(f.cfg.Spec); err != nil || len(a) > 127 {
		f.Errorf("install parameters: %d bytes, %v", len(a), err)
	}
	if p.PersistentMemory(f.cfg.Spec) < 1 {
		f.Error("an instance takes no memory")
	}
	if known, ok := (applets.Profiles{p}).Lookup(p.Name()); !ok || known.Name() == "" {
		f.Error("the profile has no name")
	}
}

func (f *foreign) before() {
	f.install(firstAID)
	f.isEmpty(firstAID)
}

func (f *foreign) readBack() {
	f.issue()
	f.holds(firstAID, f.cfg.Content)
	if err := f.card.PowerCycle(f.ctx); err != nil {
		f.Fatal(err)
	}
	f.holds(firstAID, f.cfg.Content)
	got, err := f.read(f.request(firstAID))
	if err != nil {
		f.Fatal(err)
	}
	t := f.cfg.Profile.Traits()
	want := applets.None
	switch {
	case t.Encryption:
		want = applets.MutualEncrypted
	case t.MutualAuthentication:
		want = applets.Mutual
	}
	if got.Authentication != want || got.PINVerified != f.cfg.Spec.PIN {
		f.Errorf("authentication %v, PIN %t", got.Authentication, got.PINVerified)
	}
	r := f.request(firstAID)
	r.AID = thirdAID
	if _, err := f.read(r); err == nil {
		f.Error("an instance that is not there was read")
	}
}

func (f *foreign) pin() {
	if !f.cfg.Spec.PIN {
		f.Skip("no PIN")
	}
	f.issue()
	limit := int(f.cfg.Content.PIN.Limit)
	if limit == 0 {
		limit = applets.DefaultPINLimit
	}
	right, wrong := f.request(firstAID), f.request(firstAID)
	wrong.PIN = pinIs("7777000")
	none := f.request(firstAID)
	none.PIN = nil
	if _, err := f.read(none); !errors.Is(err, applets.ErrPINRequired) {
		f.Errorf("without PIN: %v", err)
	}
	refused := errors.New("nobody there")
	none.PIN = func(context.Context) (applets.PIN, error) { return applets.PIN{}, refused }
	if _, err := f.read(none); !errors.Is(err, refused) {
		f.Errorf("PIN not given: %v", err)
	}
	try := func(left int) {
		f.Helper()
		var e *applets.PINError
		if _, err := f.read(wrong); !errors.As(err, &e) || e.TriesLeft != left {
			f.Errorf("wrong PIN: %v, want %d tries left", err, left)
		}
	}
	if limit > 1 {
		try(limit - 1)
		if err := f.card.PowerCycle(f.ctx); err != nil {
			f.Fatal(err)
		}
		if _, err := f.read(right); err != nil {
			f.Error(err)
		}
		// New content leaves tries alone, and the PIN.
		try(limit - 1)
		f.personalize(firstAID, f.cfg.Update)
		if limit > 2 {
			try(limit - 2)
		}
		if _, err := f.read(right); err != nil {
			f.Error(err)
		}
	}
	for left := limit - 1; left >= 0; left-- {
		try(left)
	}
	if _, err := f.read(right); !errors.Is(err, applets.ErrPINBlocked) {
		f.Errorf("blocked: %v", err)
	}
	// The counter sets it anew.
	f.personalize(firstAID, f.cfg.Content)
	f.holds(firstAID, f.cfg.Content)
}

func (f *foreign) changePIN() {
	changer, ok := f.cfg.Profile.(applets.PINChanger)
	if !ok || !f.cfg.Spec.PIN {
		f.Skip("no PIN to change")
	}
	f.issue()
	old, replacement := f.cfg.Content.PIN.Reference, newPIN("86420")
	r := f.request(firstAID)
	if err := changer.ChangePIN(f.ctx, f.card, r, newPIN("7777000"), replacement); !errors.Is(err, applets.ErrWrongPIN) {
		f.Errorf("wrong old PIN: %v", err)
	}
	if err := changer.ChangePIN(f.ctx, f.card, r, old, replacement); err != nil {
		f.Fatal(err)
	}
	if _, err := f.read(r); !errors.Is(err, applets.ErrWrongPIN) {
		f.Errorf("old PIN: %v", err)
	}
	r.PIN = pinIs("86420")
	if _, err := f.read(r); err != nil {
		f.Errorf("new PIN: %v", err)
	}
}

func (f *foreign) update() {
	f.issue()
	f.personalize(firstAID, f.cfg.Update)
	f.holds(firstAID, f.cfg.Update)
	f.personalize(firstAID, f.cfg.Content)
	f.holds(firstAID, f.cfg.Content)
}

func (f *foreign) wipe() {
	blocks := f.cfg.Profile.Wipe()
	if len(blocks) == 0 {
		f.Skip("deleting the instance is what erases it")
	}
	f.issue()
	for range 2 { // an empty instance too
		if _, err := globalplatform.Store(f.ctx, f.session(firstAID, scp.CDecryption), blocks, f.options(), nil); err != nil {
			f.Fatal(err)
		}
		f.isEmpty(firstAID)
	}
	f.personalize(firstAID, f.cfg.Content)
	f.holds(firstAID, f.cfg.Content)
}

func (f *foreign) independence() {
	f.issue()
	f.install(secondAID)
	f.isEmpty(secondAID)
	other := f.cfg.Content
	other.Record.ID += "-2"
	other.Tag[0] ^= 0xFF
	f.personalize(secondAID, other)
	f.holds(secondAID, other)
	f.holds(firstAID, f.cfg.Content)
	if blocks := f.cfg.Profile.Wipe(); len(blocks) > 0 {
		if _, err := globalplatform.Store(f.ctx, f.session(firstAID, scp.CDecryption), blocks, f.options(), nil); err != nil {
			f.Fatal(err)
		}
		f.isEmpty(firstAID)
		f.holds(secondAID, other)
	}
}

// channel: a channel that encrypts nothing carries no content.
func (f *foreign) channel() {
	f.issue()
	if err := f.personalizeAt(firstAID, scp.CMAC, f.cfg.Update); !errors.Is(err, iso7816.ErrSecurityStatus) {
		f.Errorf("without C-DECRYPTION: %v", err)
	}
	f.holds(firstAID, f.cfg.Content)
}

// tamperer answers one command otherwise than the card did.
type tamperer struct {
	iso7816.Card
	nth  int
	with func([]byte) []byte
}

func (t *tamperer) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	answer, err := t.Card.Transmit(ctx, command)
	if t.nth--; t.nth == 0 && err == nil {
		answer = t.with(bytes.Clone(answer))
	}
	return answer, err
}

// broken: whatever a card answers, a reading ends, and with an ID that was
// written or an error.
func (f *foreign) broken() {
	f.issue()
	ways := map[string]func([]byte) []byte{
		"nothing":   func([]byte) []byte { return nil },
		"no data":   func(b []byte) []byte { return b[len(b)-2:] },
		"cut short": func(b []byte) []byte { return append(b[:(len(b)-2)/2:(len(b)-2)/2], b[len(b)-2:]...) },
		"refused":   func([]byte) []byte { return []byte{0x6F, 0x00} },
		"long value": func(b []byte) []byte {
			return append(bytes.Repeat([]byte{0x70, 0x82, 0xFF, 0xFF}, 64), b[len(b)-2:]...)
		},
		"zeros": func(b []byte) []byte { return append(make([]byte, 200), b[len(b)-2:]...) },
	}
	for name, way := range ways {
		for nth := 1; nth <= 8; nth++ {
			t := &tamperer{f.card, nth, way}
			got, err := f.cfg.Profile.Read(f.ctx, t, f.request(firstAID))
			if err == nil && got.Record.ID != f.cfg.Content.Record.ID {
				f.Errorf("%s in answer %d: read the ID %q", name, nth, got.Record.ID)
			}
			if t.nth > 0 {
				break // there are no more commands
			}
		}
	}
}

// cuts takes the power away before every write of an update.
func (f *foreign) cuts() {
	f.card = f.cfg.New(f)
	cutter, ok := f.card.(Cutter)
	if !ok {
		f.Skip("this card's power can't be cut between writes")
	}
	f.issue()
	saw := map[string]bool{}
	contents := map[string]applets.Content{"old": f.cfg.Content, "new": f.cfg.Update}
	for block := 0; ; block++ {
		for n := 1; ; n++ {
			if n > 1000 {
				f.Fatal("more than 1000 writes in a command")
			}
			f.personalize(firstAID, f.cfg.Content)
			sd := f.session(firstAID, scp.CDecryption)
			blocks, err := f.cfg.Profile.Personalization(f.cfg.Update, sd.EncryptSensitive)
			if err != nil {
				f.Fatal(err)
			}
			if block == len(blocks) {
				if len(saw) != 2 {
					f.Errorf("saw %v, want old and new", saw)
				}
				return
			}
			commands, err := globalplatform.StoreBlocks(blocks, f.options())
			if err != nil {
				f.Fatal(err)
			}
			for i, c := range commands[:block+1] {
				cmd, err := c.Command()
				if err != nil {
					f.Fatal(err)
				}
				if i == block {
					cutter.CutBeforeWrite(n)
				}
				if _, err = iso7816.Do(f.ctx, sd, cmd); err != nil {
					if i != block || !errors.Is(err, iso7816.ErrCardRemoved) {
						f.Fatalf("block %d: %v", i, err)
					}
					break
				}
				if i == block {
					n = 0 // it has no such write
				}
			}
			cutter.CutBeforeWrite(0)
			if n == 0 {
				break
			}
			if err := f.card.PowerCycle(f.ctx); err != nil {
				f.Fatal(err)
			}
			got, err := f.read(f.request(firstAID))
			if err != nil {
				f.Fatalf("block %d cut before write %d: %v", block, n, err)
			}
			state := ""
			for name, c := range contents {
				if cmp.Equal(got.Record, c.Record) && cmp.Equal(got.Items, c.Items) && f.observe(firstAID).Tag == c.Tag {
					state = name
				}
			}
			if state == "" {
				f.Fatalf("block %d cut before write %d left %s", block, n, fmt.Sprintf("%+v", got))
			}
			saw[state] = true
		}
	}
}
