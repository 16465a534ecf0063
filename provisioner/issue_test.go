package provisioner_test

import (
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/provisioner"
)

// Three services on one card, read back; again, and nothing happens.
func TestIssueAll(t *testing.T) {
	for _, profile := range []string{"emulated", "generic"} {
		t.Run(profile, func(t *testing.T) { issueAll(t, profile) })
	}
}

func issueAll(t *testing.T, profile string) {
	b := newBook(t)
	c := newCounter(t, b)
	c.CardProfile = cardProfile(profile)
	var requests []provisioner.Request
	issued := map[string]string{}
	for _, m := range all {
		r := c.request(m)
		requests = append(requests, r)
		result := c.mustIssue(r)
		issued[m.ID] = result.ID
		if result.IssueNumber != 1 || m.CheckID(result.ID) != nil || result.Run == "" {
			t.Errorf("%s: result %+v", m.ID, result)
		}
		if (result.KeyVersion == 1) != (m.Keys.Read != "") {
			t.Errorf("%s: key version %d", m.ID, result.KeyVersion)
		}
	}
	for _, m := range all {
		tap := c.holds(m, issued[m.ID])
		if tap.Service != m.ID || tap.IssueNumber != 1 || tap.Expiry.IsZero() {
			t.Errorf("%s: tap %+v", m.ID, tap)
		}
		if (tap.Authentication == applets.None) != (m.Profile == "common-ap") {
			t.Errorf("%s: authentication %v", m.ID, tap.Authentication)
		}
	}
	if tap := c.holds(library, issued[library.ID]); len(tap.Items) != 2 || tap.Items[1].Value != "中央館" || !tap.PIN {
		t.Errorf("items %v, PIN %v", tap.Items, tap.PIN)
	}
	if tap := c.holds(office, issued[office.ID]); len(tap.Items) != 1 || tap.Items[0].Value != "HQ-2F" {
		t.Errorf("items %v", tap.Items)
	}
	if c.wire.stray != nil {
		t.Error(c.wire.stray)
	}

	// Again, and another day: nothing to do, nothing written anywhere.
	before, written, registry := b.events, c.wire.written(), c.registry()
	for day := range 2 {
		for i, m := range all {
			r := requests[i]
			r.Now = start.AddDate(0, 0, day)
			s, plan, err := c.plan(r)
			check(t, err)
			if !plan.NothingToDo() {
				t.Errorf("%s: plan %+v, want nothing to do", m.ID, plan.Steps)
			}
			result, err := c.Run(t.Context(), s, plan)
			s.Close()
			check(t, err)
			if result.ID != issued[m.ID] || result.IssueNumber != 1 || result.Steps != 0 {
				t.Errorf("%s: again %+v", m.ID, result)
			}
		}
	}
	if n := c.wire.written(); n != written {
		t.Errorf("%d writes on the card when there was nothing to do", n-written)
	}
	if n := b.events; n != before {
		t.Errorf("%d events in the ledger when there was nothing to do", n-before)
	}
	if c.registry() != registry {
		t.Error("the registry changed when there was nothing to do")
	}
	if n := len(events[ledger.IDReserved](t, b, ledger.Filter{})); n != len(all) {
		t.Errorf("%d IDs reserved, want %d", n, len(all))
	}
}
