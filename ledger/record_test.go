package ledger

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freearea/freearea/iso7816"
)

// samples has one event of every kind, with every member set, and one with
// every member empty that may be.
func samples() []Event {
	const card = CardRef("00112233445566778899aabbccddeeff")
	aid := iso7816.MustAID("F0465245454152454101")
	given := time.Date(2026, 4, 1, 0, 30, 0, 0, time.UTC)
	all := []Data{
		ConsentRecorded{"c-1", "library", strings.Repeat("ab", 32), "paper", given, given.AddDate(0, 0, 90), []byte("{\"signed\":1}\n")},
		ConsentWithdrawn{"c-1", []byte{0xFB, 0xFF}},
		ConsentWithdrawn{Consent: "c-1"},
		CardBound{"c-1", card},
		RunStarted{"r-1", "issue", "library", card, "c-1", aid, 7},
		RunStarted{"r-2", "withdraw", "library", card, "", aid, 0},
		RunFinished{"r-1", Done, ""},
		RunFinished{"r-2", Failed, "card removed"},
		StepIntended{"r-1", 1, "install"},
		StepDone{"r-1", 1, []byte{1, 2, 3}},
		StepDone{Run: "r-1", Step: 2},
		StepFailed{"r-1", 3, "not enough memory on the card", "6A84"},
		StepFailed{"r-1", 3, "", ""},
		IDReserved{"library", "L-000001", "c-1", "r-1", 1},
		IDReserved{"library", "図書 <&>\"\\", "c-2", "", 0},
		IDReassigned{"library", "L-000001", "c-3", "r-3"},
		Issued{"library", card, "c-1", "r-1", aid, "L-000001", 65535, "2031-03-31", strings.Repeat("7c", 16), 127},
		Issued{"library", card, "c-1", "r-1", aid, "L-000001", 1, "", strings.Repeat("7c", 16), 0},
		Withdrawn{"library", card, "r-4", aid, true},
		AuthenticationFailed{card, aid, "isd", 1, "r-1"},
		AuthenticationSucceeded{card, aid, "isd", 1, ""},
		Suspended{"library", card, "r-5"},
		Resumed{"library", card, "r-6"},
		Revoked{"library", card, "c-1", "L-000001", 2, CauseLost, "r-7"},
		Revoked{"library", card, "c-1", "L-000001", 2, CauseWithdrawn, ""},
		CardReplaced{card, CardRef(strings.Repeat("0f", 16)), CauseRenewed},
		IDCarried{"library", "L-000001", "c-1", "c-4", "r-7"},
		IDCarried{"library", "L-000001", "c-1", "c-4", ""},
		KeyKept{"library", card, "r-8", 1, "2027-03-31"},
		PINReset{"library", card, "r-9"},
		HandoverPrepared{"b-1", "library", 0, 40, 2, "csv", strings.Repeat("ab", 32)},
		HandedOver{"b-1", "library", "library-000000000040.csv"},
	}
	var events []Event
	for i, d := range all {
		events = append(events, Event{
			Seq: int64(i + 1), Time: given.Add(time.Duration(i) * 1500 * time.Millisecond),
			Actor: Actor{"op-7", "window-2"}, Data: d,
		})
	}
	events[0].Reason = "窓口での申請 <a&b> \"q\" \\\n\ttab\u2028\u2029é"
	return events
}

// TestCanonicalEncoding compares with testdata/events.jsonl, which was written
// by testdata/events.py: Python's json module following the package
// documentation. What is in ledgers has these bytes for ever.
func TestCanonicalEncoding(t *testing.T) {
	golden, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(golden), "\n"), "\n")
	events := samples()
	if len(lines) != len(events) {
		t.Fatalf("%d lines for %d events", len(lines), len(events))
	}
	for i, e := range events {
		got, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(lines[i], string(got)); d != "" {
			t.Errorf("%s: %s", e.Data.Kind(), d)
		}
		back, err := decode([]byte(lines[i]))
		if err != nil {
			t.Errorf("%s: %v", e.Data.Kind(), err)
			continue
		}
		if d := cmp.Diff(e, back, cmpopts.IgnoreUnexported(Event{}), cmpopts.EquateComparable(iso7816.AID{})); d != "" {
			t.Errorf("%s: %s", e.Data.Kind(), d)
		}
		if !bytes.Equal(back.Record(), got) {
			t.Errorf("%s: record %s", e.Data.Kind(), back.Record())
		}
	}
}

// TestEveryKindHasASample keeps samples whole.
func TestEveryKindHasASample(t *testing.T) {
	seen := map[Kind]reflect.Type{}
	for _, e := range samples() {
		seen[e.Data.Kind()] = reflect.TypeOf(e.Data)
	}
	for _, k := range []Kind{
		KindConsentRecorded, KindConsentWithdrawn, KindCardBound, KindRunStarted, KindRunFinished,
		KindStepIntended, KindStepDone, KindStepFailed, KindIDReserved, KindIDReassigned, KindIssued,
		KindWithdrawn, KindAuthenticationFailed, KindAuthenticationSucceeded,
		KindSuspended, KindResumed, KindRevoked, KindCardReplaced, KindIDCarried, KindKeyKept, KindPINReset,
		KindHandoverPrepared, KindHandedOver,
	} {
		if seen[k] == nil {
			t.Errorf("no sample of %s", k)
		}
		delete(seen, k)
	}
	if len(seen) > 0 {
		t.Errorf("kinds that this test does not know: %v", seen)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const good = `{"v":1,"seq":1,"time":"2026-04-01T00:30:00.000Z","kind":"card-bound","operator":"op","counter":"w","reason":"","data":{"consent":"c","card":"00112233445566778899aabbccddeeff"}}`
	if _, err := decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"version":           {`"v":1`, `"v":2`},
		"unknown kind":      {`card-bound`, `card-lost`},
		"unknown member":    {`"reason":""`, `"reason":"","x":1`},
		"unknown in data":   {`"consent":"c"`, `"consent":"c","x":1`},
		"case of a member":  {`"consent"`, `"Consent"`},
		"member twice":      {`"consent":"c"`, `"consent":"c","consent":"c"`},
		"member missing":    {`"reason":"",`, ``},
		"order":             {`"operator":"op","counter":"w"`, `"counter":"w","operator":"op"`},
		"white space":       {`"seq":1`, `"seq": 1`},
		"number form":       {`"seq":1`, `"seq":1.0`},
		"needless escape":   {`"op"`, `"\u006fp"`},
		"time with offset":  {`.000Z`, `.000+09:00`},
		"time in short":     {`.000Z`, `Z`},
		"trailing":          {`}}`, `}} `},
		"cut short":         {`}}`, `}`},
		"card in upper":     {`aabbcc`, `AABBCC`},
		"null data":         {`{"consent":"c","card":"00112233445566778899aabbccddeeff"}`, `null`},
		"data of two kinds": {`"card":"00112233445566778899aabbccddeeff"`, `"service":"s"`},
	} {
		b := strings.Replace(good, change[0], change[1], 1)
		if b == good {
			t.Errorf("%s: nothing changed", name)
		}
		if e, err := decode([]byte(b)); err == nil {
			t.Errorf("%s: accepted as %+v", name, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range samples() {
		b, err := e.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		again, err := e.encode()
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("%s\nencodes again to\n%s, %v", b, again, err)
		}
	})
}
