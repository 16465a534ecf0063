package appletstest

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

// powerCuts takes the power away before every write of every command that
// writes, and looks at what is left.
func powerCuts(s *suite) {
	for _, v := range variants {
		s.sub(v.String(), func(s *suite) {
			if _, ok := s.cfg.New(s).(Cutter); !ok {
				s.Skip("this card's power can't be cut between writes")
			}
			s.sub("Personalization", func(s *suite) { cutPersonalization(s, v) })
			s.sub("Wipe", func(s *suite) { cutWipe(s, v) })
			if v.pin {
				s.sub("PIN", func(s *suite) { cutPIN(s, v) })
			}
		})
	}
}

// cutBefore sends a command with the power cut before its n-th write, and
// gives power back. It reports whether there was such a write.
func (x *subject) cutBefore(n int, to iso7816.Sender, c iso7816.Command) bool {
	x.Helper()
	x.card.(Cutter).CutBeforeWrite(n)
	_, err := to.Send(x.ctx, c)
	x.card.(Cutter).CutBeforeWrite(0)
	if err == nil {
		return false
	}
	if !errors.Is(err, iso7816.ErrCardRemoved) {
		x.Fatalf("cut before write %d: %v", n, err)
	}
	if err := x.card.PowerCycle(x.ctx); err != nil {
		x.Fatal(err)
	}
	return true
}

// state reads the instance as a terminal and as its Security Domain: which of
// two contents it holds, or none.
func (x *subject) state(contents ...applets.Content) string {
	x.Helper()
	r := x.request()
	got, err := x.read(x.card, r)
	if errors.Is(err, applets.ErrNotPersonalized) {
		if o := x.observe(); o.Personalized() || o.State != 0x07 || o.PIN != nil {
			x.Errorf("reads as empty, observed %+v", o)
		}
		return "empty"
	}
	for i, c := range contents {
		if c.PIN != nil && errors.Is(err, applets.ErrWrongPIN) {
			r.PIN = func(context.Context) (applets.PIN, error) { return newPIN("2222"), nil }
			got, err = x.read(x.card, r)
		}
		if err != nil {
			x.Fatalf("read: %v", err)
		}
		if cmp.Equal(got.Record, c.Record) {
			o := x.observe()
			if !cmp.Equal(got.Items, c.Items) || o.Tag != c.Tag || o.State != 0x0F {
				x.Errorf("content %d is torn: %+v, %+v", i, got, o)
			}
			return fmt.Sprint(i)
		}
	}
	x.Fatalf("holds %+v", got)
	return ""
}

func cutPersonalization(s *suite, v variant) {
	first, second := v.content(), v.content()
	second.Record.ID, second.Tag = "second", [16]byte{2}
	if v.secured() {
		second.Items = []applets.Item{{Name: "n", Value: "second"}}
	}
	if v.pin {
		second.PIN = &applets.PINSetting{Reference: newPIN("2222")}
	}
	// seq sends the blocks with the power cut before write n of block k.
	attempt := func(x *subject, c applets.Content, k, n int) bool {
		sd := x.store(scp.CDecryption)
		blocks, err := v.get().Personalization(c, sd.EncryptSensitive)
		if err != nil {
			x.Fatal(err)
		}
		if err := x.send(sd, nil); err != nil {
			x.Fatal(err)
		}
		for i, b := range blocks {
			p1 := byte(0x08)
			if i == len(blocks)-1 {
				p1 |= 0x80
			}
			cmd := storeData(p1, byte(i), b)
			if i == k {
				return x.cutBefore(n, sd, cmd)
			}
			x.want(fmt.Sprint("block ", i), sd, cmd, iso7816.OK)
		}
		return false
	}
	count := func(x *subject, c applets.Content) []int {
		sd := x.store(scp.CDecryption)
		blocks, err := v.get().Personalization(c, sd.EncryptSensitive)
		if err != nil {
			x.Fatal(err)
		}
		x.card.(Cutter).CountWrites()
		if err := x.send(sd, blocks); err != nil {
			x.Fatal(err)
		}
		return x.card.(Cutter).Writes()
	}
	for _, fresh := range []bool{true, false} {
		prepare := func(card Card, aid iso7816.AID) *subject {
			x := s.install(v, card, aid)
			if !fresh {
				x.mustPersonalize(first)
			}
			return x
		}
		before, cuts, flipped := "empty", 0, 0
		if !fresh {
			before = "0"
		}
		for k, n := range count(prepare(nil, firstAID), second) {
			for w := 1; w <= n; w++ {
				x := prepare(nil, firstAID)
				if !attempt(x, second, k, w) {
					s.Fatalf("write %d of block %d did not come", w, k)
				}
				cuts++
				if got := x.state(first, second); got == "1" {
					flipped++
				} else if got != before {
					s.Errorf("cut before write %d of block %d: holds %s, held %s", w, k, got, before)
				}
				if o := x.observe(); v.pin && !fresh && o.PIN == nil {
					s.Errorf("cut before write %d of block %d: the PIN is gone", w, k)
				}
				x.mustPersonalize(second) // running it again converges
				if got := x.state(second); got != "0" {
					s.Errorf("after running again: %s", got)
				}
			}
		}
		if cuts == 0 || !fresh && flipped == 0 {
			s.Errorf("%d cuts, %d of them after the flip", cuts, flipped)
		}
	}
}

func cutWipe(s *suite, v variant) {
	for n := 1; ; n++ {
		x := s.issue(v)
		if !x.cutBefore(n, x.store(scp.CDecryption), storeData(0x88, 0, v.get().Wipe()[0])) {
			if n == 1 {
				s.Error("a wipe writes nothing")
			}
			return
		}
		x.state(v.content()) // all or nothing
		if err := x.send(x.store(scp.CDecryption), v.get().Wipe()); err != nil {
			s.Fatal(err)
		}
		if got := x.state(); got != "empty" {
			s.Errorf("cut before write %d, wiped again: %s", n, got)
		}
	}
}

// cutPIN: a try may be spent, never gained.
func cutPIN(s *suite, v variant) {
	for name, c := range map[string]iso7816.Command{
		"wrong": verify("1111"), "right": verify("48151623"),
		"change": changePIN("48151623", "2222"), "wrong change": changePIN("1111", "2222"),
	} {
		cuts := 0
		x := s.issue(v)
		left := 3
		for n := 1; ; n++ {
			session, _ := x.open(scp.Full)
			if !x.cutBefore(n, session, c) {
				break
			}
			cuts++
			now := x.observe().PIN.TriesLeft
			if now > left || now < left-1 {
				s.Errorf("%s: %d tries left after a cut before write %d, %d before", name, now, n, left)
			}
			if n > 1 && now != left-1 {
				s.Errorf("%s: the try was not counted before write %d", name, n)
			}
			x.mustPersonalize(v.content()) // the counter sets the PIN again
		}
		// A right PIN too costs its try before it is compared, and gets it back
		// with a second write; a wrong one ends after the first.
		want := 1
		if name == "right" || name == "change" {
			want = 2
		}
		if cuts != want {
			s.Errorf("%s: %d writes, want %d: the try is not counted down before the comparison", name, cuts, want)
		}
	}
	// A guesser who cuts the power as soon as the card would say no.
	x := s.issue(v)
	guesses := 0
	for ; guesses < 20; guesses++ {
		session, _ := x.open(scp.Full)
		x.card.(Cutter).CutBeforeWrite(2)
		r, err := session.Send(x.ctx, verify("9999"))
		x.card.(Cutter).CutBeforeWrite(0)
		if err == nil && r.SW == iso7816.ErrBlocked {
			break
		}
		if err := x.card.PowerCycle(x.ctx); err != nil {
			x.Fatal(err)
		}
	}
	if guesses != 3 {
		s.Errorf("%d guesses before the PIN is blocked, want 3", guesses)
	}
}
