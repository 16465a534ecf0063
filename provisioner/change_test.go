package provisioner_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/freearea/freearea/consent"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/provisioner"
	"github.com/freearea/freearea/reader"
)

// What is issued already is changed only as it is asked for; nothing of what
// is refused writes to the card.
func TestChangesRefused(t *testing.T) {
	b := newBook(t)
	onCard := func(c *counter) provisioner.Request {
		r := c.request(library)
		c.mustIssue(r)
		return c.updating(r)
	}
	for _, tt := range []struct {
		name string
		try  func(c *counter) error
		want error
	}{
		{"update of what is not there", func(c *counter) error {
			r := onCard(c)
			other := newCounter(c.t, b)
			_, err := other.issue(r)
			return err
		}, provisioner.ErrOtherCard},
		{"update of what was withdrawn", func(c *counter) error {
			r := onCard(c)
			must(c.withdraw(library))
			_, err := c.issue(r)
			return err
		}, provisioner.ErrNotOnCard},
		{"update to items that nobody agreed to", func(c *counter) error {
			r := onCard(c)
			r.Subject.Items = map[string]string{"category": "CHILD"}
			_, err := c.issue(r)
			return err
		}, consent.ErrItems},
		{"issue on the consent of a card that was lost, when it turns up", func(c *counter) error {
			r := c.request(office)
			c.mustIssue(r)
			next := newCounter(c.t, b)
			again := next.anew(r)
			again.Carry = &provisioner.Carry{From: c.active(office), Cause: ledger.CauseLost, NewID: true}
			next.mustIssue(again)
			must(c.withdraw(office)) // wiped
			_, err := c.issue(r)
			return err
		}, provisioner.ErrReplaced},
		{"carry something to a card that was replaced", func(c *counter) error {
			r := c.request(office)
			c.mustIssue(r)
			next := newCounter(c.t, b)
			again := next.anew(r)
			again.Carry = &provisioner.Carry{From: c.active(office), Cause: ledger.CauseRenewed}
			next.mustIssue(again)
			must(c.withdraw(office)) // wiped
			back := c.anew(r)
			back.Carry = &provisioner.Carry{From: next.active(office), Cause: ledger.CauseRenewed}
			_, err := c.issue(back)
			return err
		}, provisioner.ErrOldCard},
		{"suspend what is not there", func(c *counter) error { _, err := c.suspend(library); return err }, provisioner.ErrNotOnCard},
		{"update what is suspended", func(c *counter) error {
			r := onCard(c)
			must(c.suspend(library))
			_, err := c.issue(change(r))
			return err
		}, provisioner.ErrSuspended},
		{"resume what somebody else has locked", func(c *counter) error {
			onCard(c)
			c.execute(globalplatform.Lock(library.Application.Instance))
			_, err := c.resume(library)
			return err
		}, provisioner.ErrCardState},
		{"issue over what was revoked", func(c *counter) error {
			onCard(c)
			must(c.Revoke(t.Context(), must(b.IssuesOn(t.Context(), c.cardRef())), nil, ""))
			_, err := c.issue(c.request(library))
			return err
		}, provisioner.ErrRevoked},
		{"suspend what was revoked", func(c *counter) error {
			onCard(c)
			must(c.Revoke(t.Context(), must(b.IssuesOn(t.Context(), c.cardRef())), nil, ""))
			_, err := c.suspend(library)
			return err
		}, provisioner.ErrRevoked},
		{"PIN reset with other items", func(c *counter) error {
			r := change(onCard(c))
			r.Subject.PIN, r.Subject.KeepPIN = "1357", false
			_, err := c.resetPIN(r)
			return err
		}, provisioner.ErrOtherContent},
		{"PIN reset without a PIN", func(c *counter) error { _, err := c.resetPIN(onCard(c)); return err }, provisioner.ErrPINMissing},
		{"PIN of a service that has none", func(c *counter) error {
			r := c.request(office)
			c.mustIssue(r)
			_, err := c.resetPIN(c.updating(r))
			return err
		}, provisioner.ErrNoPIN},
		{"rekey without keys", func(c *counter) error {
			r := c.request(points)
			c.mustIssue(r)
			r = c.updating(r)
			r.Rekey = &provisioner.Rekey{}
			_, err := c.issue(r)
			return err
		}, provisioner.ErrNoReadKey},
		{"reissue to the same card", func(c *counter) error {
			r := onCard(c)
			r.Carry.Cause = ledger.CauseLost
			r.Subject.PIN, r.Subject.KeepPIN = "2580", false
			_, err := c.issue(c.anew(r))
			return err
		}, provisioner.ErrOtherCard},
		{"reissue on the old card's consent", func(c *counter) error {
			r := c.replacing(c.request(library), ledger.CauseRenewed, nil)
			_, err := c.issue(r)
			return err
		}, provisioner.ErrOtherCard},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCounter(t, b)
			wants(t, tt.try(c), tt.want)
			if c.wire.stray != nil {
				t.Error(c.wire.stray)
			}
		})
	}
}

// A suspended service can't be selected, and a terminal takes it for absent.
func TestSuspendedIsNotThere(t *testing.T) {
	c := newCounter(t, newBook(t))
	c.mustIssue(c.request(office))
	must(c.suspend(office))
	_, err := c.read(office, "")
	wants(t, err, reader.ErrNoService)
	must(c.resume(office))
	if _, err := c.read(office, ""); err != nil {
		t.Error(err)
	}
}

// An issue that is repeated leaves the card's keys alone; an older key stays
// until its term is over, and goes with what is written next.
func TestKeysBesideEachOther(t *testing.T) {
	c := newCounter(t, newBook(t))
	r := c.request(office)
	c.mustIssue(r)
	c.Keys = store()
	if result := c.mustIssue(r); result.Steps != 0 {
		t.Errorf("a newer key in the store led to %d steps", result.Steps)
	}
	versions := func(want string) {
		t.Helper()
		if o, _ := c.observe(office); string(o.KeyVersions) != want {
			t.Errorf("key versions % d, want % d", o.KeyVersions, []byte(want))
		}
	}
	versions("\x01")
	r = c.updating(r)
	r.Rekey = &provisioner.Rekey{KeepUntil: c.now.AddDate(0, 0, 30)}
	c.mustIssue(r)
	versions("\x02\x01")
	r = c.updating(r)
	c.mustIssue(change(r))
	versions("\x02\x01")
	c.now = c.now.AddDate(0, 0, 31)
	r = c.updating(r)
	r.Now = c.now
	c.mustIssue(r)
	versions("\x02")
}

// A manifest whose instance AID was changed since does not reach what is on the
// card; nothing is recorded of it, and nothing left behind.
func TestManifestWithAnotherAID(t *testing.T) {
	b := newBook(t)
	c := newCounter(t, b)
	moved := *office
	moved.Application.Instance = iso7816.MustAID("F7E2A9BD290B4E6F7257FFFF")
	request := func() provisioner.Request {
		r := c.request(office)
		r.Manifest = &moved
		return c.anew(r)
	}
	for name, leave := range map[string]func(){
		"torn": func() {
			c.wire.before = func(command []byte) {
				if command[1] == 0xE2 { // STORE DATA: it is installed
					c.emulated().SetCut(emulator.Cut{Command: 1, Where: emulator.BeforeCommand})
				}
			}
		},
		"issued": func() {},
	} {
		leave()
		r := c.request(office)
		_, err := c.issue(r)
		c.wire.before = nil
		c.emulated().SetCut(emulator.Cut{})
		c.emulated().PowerOn()
		if present := strings.Contains(c.registry(), office.Application.Instance.String()); !present {
			t.Fatalf("%s: the card does not have the instance: %v", name, err)
		}
		for what, try := range map[string]func() error{
			"issue":    func() error { _, err := c.issue(request()); return err },
			"withdraw": func() error { _, err := c.withdraw(&moved); return err },
			"suspend":  func() error { _, err := c.suspend(&moved); return err },
		} {
			if err := try(); !errors.Is(err, provisioner.ErrOtherInstance) {
				t.Errorf("%s, %s: %v, want %v", name, what, err, provisioner.ErrOtherInstance)
			}
		}
		check(t, func() error { _, err := c.withdraw(office); return err }())
	}
	// Now that it is gone the new one has its place.
	c.mustIssue(request())
}
