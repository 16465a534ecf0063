package provisioner_test

import (
	"testing"
	"time"

	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/provisioner"
)

// run connects, plans and carries out.
func (c *counter) run(plan func(*provisioner.Session) (*provisioner.Plan, error)) (*provisioner.Result, error) {
	s, err := c.Connect(c.t.Context())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	todo, err := plan(s)
	if err != nil {
		return nil, err
	}
	return c.Run(c.t.Context(), s, todo)
}

func (c *counter) suspend(m *manifest.Manifest) (*provisioner.Result, error) {
	return c.run(func(s *provisioner.Session) (*provisioner.Plan, error) { return c.PlanSuspend(c.t.Context(), s, m) })
}

func (c *counter) resume(m *manifest.Manifest) (*provisioner.Result, error) {
	return c.run(func(s *provisioner.Session) (*provisioner.Plan, error) { return c.PlanResume(c.t.Context(), s, m) })
}

func (c *counter) resetPIN(r provisioner.Request) (*provisioner.Result, error) {
	d, err := c.Desire(c.t.Context(), r)
	if err != nil {
		return nil, err
	}
	return c.run(func(s *provisioner.Session) (*provisioner.Plan, error) { return c.PlanPIN(c.t.Context(), s, d) })
}

// active is what the card holds of a service, as the ledger says.
func (c *counter) active(m *manifest.Manifest) ledger.Issued {
	c.t.Helper()
	issue, ok, err := c.book.ActiveIssue(c.t.Context(), m.ID, c.cardRef())
	check(c.t, err)
	if !ok {
		c.t.Fatalf("%s is not on the card", m.ID)
	}
	return issue
}

// updating is a request on what is on the card already.
func (c *counter) updating(r provisioner.Request) provisioner.Request {
	r.Carry = &provisioner.Carry{From: c.active(r.Manifest)}
	r.Subject.ID, r.Subject.PIN, r.Subject.KeepPIN = "", "", r.Manifest.PIN.Policy == manifest.PINRequired
	return r
}

// change gives the request other items.
func change(r provisioner.Request) provisioner.Request {
	switch r.Manifest {
	case library:
		r.Subject.Items = map[string]string{"category": "CHILD", "home-branch": "東館"}
	case office:
		r.Subject.Items = map[string]string{"area": "HQ-3F"}
	case record:
		r.Subject.Items = map[string]string{"class": "BLUE"}
	default:
		r.CardExpiry = time.Date(2027, 2, 3, 0, 0, 0, 0, japan)
	}
	return r
}

// anew is the request under a consent that the holder gave later.
func (c *counter) anew(r provisioner.Request) provisioner.Request {
	r.Consent = c.consent(r.Manifest, r.Manifest.SubjectItems(r.Subject))
	return r
}

// replacing issues to a card of its own, and asks for the same on this one.
func (c *counter) replacing(r provisioner.Request, cause ledger.Cause, where func(*counter)) provisioner.Request {
	c.t.Helper()
	old := newCounter(c.t, c.book)
	if where != nil {
		where(old)
		old.allowIssue(r)
	}
	old.mustIssue(r)
	r.Carry = &provisioner.Carry{From: old.active(r.Manifest), Cause: cause, NewID: cause == ledger.CauseLost && r.Manifest.IDScheme.Kind != manifest.IDGiven}
	return r
}

func isKind(kind ledger.Kind) func(ledger.Event) bool {
	return func(e ledger.Event) bool { return e.Data.Kind() == kind }
}

// lifeFlows are what happens to an application after it was issued.
func lifeFlows() []flow {
	var out []flow
	places := []struct {
		name  string
		where func(*counter)
	}{{"", nil}, {"delegated/", byTokens}}
	for _, p := range places {
		// issued prepares a card that holds the service.
		issued := func(c *counter, m *manifest.Manifest) provisioner.Request {
			r := c.request(m)
			if p.where != nil {
				p.where(c)
				c.allowIssue(r)
			}
			c.mustIssue(r)
			return r
		}
		manifests := all
		if p.where == nil {
			manifests = append(manifests[:len(manifests):len(manifests)], record)
		}
		for _, m := range manifests {
			name := func(what string) string { return p.name + what + " " + m.Profile }
			unlocked := func(t *testing.T, c *counter) {
				if e := c.entry(m.Application.Instance); e == nil || e.Locked() {
					t.Errorf("the instance is %+v", e)
				}
			}
			out = append(out,
				flow{name: name("change"), manifest: m, issues: 2, prepare: func(c *counter) provisioner.Request {
					return change(c.updating(issued(c, m)))
				}},
				flow{name: name("change anew"), manifest: m, issues: 1, prepare: func(c *counter) provisioner.Request {
					return c.anew(change(c.updating(issued(c, m))))
				}, done: func(t *testing.T, c *counter) {
					if n := len(events[ledger.IDReserved](t, c.book, ledger.Filter{})); n != len(events[ledger.IDCarried](t, c.book, ledger.Filter{})) {
						t.Errorf("%d IDs were reserved, one for each card", n)
					}
				}},
				flow{name: name("suspend"), manifest: m, issues: 1, state: ledger.OnHold, event: isKind(ledger.KindSuspended),
					prepare: func(c *counter) provisioner.Request { return issued(c, m) },
					act:     func(c *counter, _ provisioner.Request) (*provisioner.Result, error) { return c.suspend(m) },
					done: func(t *testing.T, c *counter) {
						if e := c.entry(m.Application.Instance); e == nil || !e.Locked() {
							t.Errorf("the instance is %+v", e)
						}
					}},
				flow{name: name("resume"), manifest: m, issues: 1, event: isKind(ledger.KindResumed),
					prepare: func(c *counter) provisioner.Request {
						r := issued(c, m)
						must(c.suspend(m))
						return r
					},
					act:  func(c *counter, _ provisioner.Request) (*provisioner.Result, error) { return c.resume(m) },
					done: unlocked},
				flow{name: name("withdraw suspended"), manifest: m, issues: 1, withdrawing: true,
					prepare: func(c *counter) provisioner.Request {
						r := issued(c, m)
						if p.where != nil {
							c.allowWithdraw(m)
						}
						must(c.suspend(m))
						return r
					}},
			)
			for _, cause := range []ledger.Cause{ledger.CauseLost, ledger.CauseRenewed} {
				out = append(out, reissue(name("reissue "+string(cause)), m, cause, p.where))
			}
		}
		for _, m := range []*manifest.Manifest{library, office} {
			versions := func(want ...byte) func(*testing.T, *counter) {
				return func(t *testing.T, c *counter) {
					if o, _ := c.observe(m); string(o.KeyVersions) != string(want) {
						t.Errorf("key versions % d, want % d", o.KeyVersions, want)
					}
				}
			}
			begin := func(c *counter) provisioner.Request {
				r := issued(c, m)
				c.Keys = store()
				r = c.updating(r)
				r.Rekey = &provisioner.Rekey{KeepUntil: c.now.AddDate(0, 0, 30)}
				return r
			}
			out = append(out,
				flow{name: p.name + "rekey " + m.Profile, manifest: m, issues: 2, prepare: begin, done: versions(2, 1)},
				flow{name: p.name + "rekey finished " + m.Profile, manifest: m, issues: 3, prepare: func(c *counter) provisioner.Request {
					r := begin(c)
					c.mustIssue(r)
					r = c.updating(r)
					r.Rekey = &provisioner.Rekey{}
					return r
				}, done: versions(2)},
			)
		}
		for _, m := range manifests {
			if m.PIN.Policy != manifest.PINRequired {
				continue
			}
			out = append(out, flow{name: p.name + "PIN reset " + m.Profile, manifest: m, issues: 1, event: isKind(ledger.KindPINReset),
				prepare: func(c *counter) provisioner.Request {
					r := c.updating(issued(c, m))
					r.Subject.PIN, r.Subject.KeepPIN = "1357", false
					return r
				},
				act: func(c *counter, r provisioner.Request) (*provisioner.Result, error) { return c.resetPIN(r) },
				done: func(t *testing.T, c *counter) {
					if _, err := c.read(m, "1357"); err != nil {
						t.Errorf("with the new PIN: %v", err)
					}
				}})
		}
	}
	return out
}

// reissue is a flow in which a card takes another's place.
func reissue(name string, m *manifest.Manifest, cause ledger.Cause, where func(*counter)) flow {
	return flow{name: name, manifest: m, issues: 1,
		prepare: func(c *counter) provisioner.Request {
			r := c.anew(c.replacing(c.request(m), cause, where))
			if where != nil {
				where(c)
				c.allowIssue(r)
			}
			return r
		},
		between: func(t *testing.T, x *torn) {
			from := x.request.Carry.From
			old, err := x.book.IssuesOn(t.Context(), from.Card)
			check(t, err)
			_, carried, err := x.book.ActiveIssue(t.Context(), m.ID, x.ref)
			check(t, err)
			if len(old) != 1 || old[0].Revoked != carried {
				t.Errorf("the old card holds %+v, and that the new one has the service is %v", old, carried)
			}
		},
		done: func(t *testing.T, c *counter) {
			ref, found := c.cardRef(), 0
			for _, e := range events[ledger.CardReplaced](t, c.book, ledger.Filter{Card: ref}) {
				old, err := c.book.IssuesOn(t.Context(), e.Old)
				check(t, err)
				if len(old) != 1 || !old[0].Revoked || e.Cause != cause {
					t.Errorf("replaced by %+v, which holds %+v", e, old)
					continue
				}
				issue := c.active(m)
				if kept := old[0].ID == issue.ID; kept != (cause == ledger.CauseRenewed || m.IDScheme.Kind == manifest.IDGiven) {
					t.Errorf("ID %s in place of %s, %s", issue.ID, old[0].ID, cause)
				}
				if issue.IssueNumber <= old[0].IssueNumber {
					t.Errorf("issue number %d in place of %d", issue.IssueNumber, old[0].IssueNumber)
				}
				found++
			}
			if found != 1 {
				t.Errorf("%d cards replaced", found)
			}
		},
	}
}
