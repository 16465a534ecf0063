package pcsc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freearea/freearea/iso7816"
)

// establish opens a context of the library.
func (s *Source) establish() (session, error) {
	sess, err := s.lib.establish()
	if err != nil {
		return nil, opError("connect to the service", "", err, classify)
	}
	return sess, nil
}

// serviceGone asks the service for a new context, to tell a failed card from a
// failed service.
func (s *Source) serviceGone() bool {
	sess, err := s.establish()
	if err != nil {
		return true
	}
	sess.release()
	return false
}

// idle reports whether err only says that the service sleeps until there is a
// device.
func (s *Source) idle(err error) bool {
	return s.platform.stopsWhenIdle && errors.Is(err, ErrNoService)
}

// snapshot gives the state of every slot as it is now, in the library's order.
// A device that goes away in between makes it ask again.
func (s *Source) snapshot(sess session) ([]slotState, error) {
	const attempts = 4
	var err error
	for range attempts {
		var names []string
		names, err = sess.readers()
		if err != nil {
			return nil, opError("list slots", "", err, classifySession)
		}
		states := make([]slotState, len(names))
		for i, name := range names {
			states[i].name = name
		}
		err = s.ask(sess, states)
		if err == nil {
			return states, nil
		}
		if !errors.Is(err, CodeUnknownReader) {
			break
		}
	}
	return nil, opError("list slots", "", err, classifySession)
}

// ask brings the states up to date without waiting, as many at once as the
// library takes.
func (s *Source) ask(sess session, states []slotState) error {
	for part := range slices.Chunk(states, s.platform.maxStates) {
		for i := range part {
			part[i].flags = stateUnaware
		}
		if err := sess.wait(part, 0); err != nil && !errors.Is(err, CodeTimeout) {
			return err
		}
	}
	return nil
}

// batch is what the watching goroutine hands over: events, and at the end the
// error that ended it.
type batch struct {
	events []iso7816.Event
	err    error
}

// watch sends events until the context or the service ends. Each wait inside
// the library is short: SCardCancel can come too early for a wait that is
// about to begin, and devices are announced only to a wait that has begun.
func (s *Source) watch(ctx context.Context, out chan<- batch) {
	send := func(b batch) bool {
		select {
		case out <- b:
			return true
		case <-ctx.Done():
			return false
		}
	}
	var sess session
	defer func() {
		if sess != nil {
			sess.release()
		}
	}()
	var known []slotState
	for ctx.Err() == nil {
		now, err := s.next(ctx, &sess, known)
		if err != nil {
			if s.idle(err) {
				if sess != nil {
					sess.release()
					sess = nil
				}
				now = nil
				pause(ctx, waitStep)
			} else {
				send(batch{err: err})
				return
			}
		}
		if events := diff(known, now); len(events) > 0 && !send(batch{events: events}) {
			return
		}
		known = now
	}
}

// next waits for a change from what is known, waitStep at most, and returns
// the slots as they are then, sorted by name.
func (s *Source) next(ctx context.Context, sess *session, known []slotState) ([]slotState, error) {
	if *sess == nil {
		opened, err := s.establish()
		if err != nil {
			return nil, err
		}
		*sess = opened
	}
	names, err := (*sess).readers()
	if err != nil {
		return nil, opError("watch slots", "", err, classifySession)
	}
	slices.Sort(names)
	states := make([]slotState, len(names), len(names)+1)
	fresh := len(names) != len(known)
	for i, name := range names {
		states[i].name = name
		if k, ok := find(known, name); ok {
			states[i] = k
			states[i].flags &^= stateChanged
		} else {
			fresh = true
		}
	}
	asked := states // shares its elements with states
	if s.platform.pnp && len(states) < s.platform.maxStates {
		asked = append(states, slotState{name: pnpReader})
	}
	switch {
	case fresh:
		err = s.ask(*sess, states)
	case !s.platform.blocking, len(asked) > s.platform.maxStates, len(asked) == 0:
		pause(ctx, waitStep)
		err = s.ask(*sess, states)
	default:
		err = (*sess).wait(asked, waitStep)
	}
	switch {
	case err == nil:
		return states, nil
	case errors.Is(err, CodeTimeout), errors.Is(err, CodeCancelled):
		return states, nil
	case errors.Is(err, CodeUnknownReader), errors.Is(err, CodeReaderUnavailable):
		// A device went away after it was listed; the next list lacks it.
		pause(ctx, waitStep/10)
		return known, nil
	}
	return nil, opError("watch slots", "", err, classifySession)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func find(states []slotState, name string) (slotState, bool) {
	i := slices.IndexFunc(states, func(s slotState) bool { return s.name == name })
	if i < 0 {
		return slotState{}, false
	}
	return states[i], true
}

// diff gives the events that lead from one sorted list of slots to another.
func diff(before, after []slotState) []iso7816.Event {
	var out []iso7816.Event
	event := func(kind iso7816.EventKind, s slotState) {
		e := iso7816.Event{Kind: kind, Slot: s.name}
		if kind == iso7816.CardInserted {
			e.ATR = s.cardATR()
		}
		out = append(out, e)
	}
	for _, b := range before {
		if _, ok := find(after, b.name); ok {
			continue
		}
		if b.has(statePresent) {
			event(iso7816.CardRemoved, b)
		}
		event(iso7816.SlotRemoved, b)
	}
	for _, a := range after {
		b, ok := find(before, a.name)
		if !ok {
			event(iso7816.SlotAdded, a)
		}
		was, is := b.has(statePresent), a.has(statePresent)
		switch {
		case was && is && exchanged(b, a):
			event(iso7816.CardRemoved, b)
			event(iso7816.CardInserted, a)
		case was && !is:
			event(iso7816.CardRemoved, b)
		case is && !was:
			event(iso7816.CardInserted, a)
		}
	}
	return out
}

// exchanged reports whether another card is there than before, or the same one
// again: the service has counted a removal and an insertion. The answer to
// reset shows it where the service doesn't count.
func exchanged(before, after slotState) bool {
	if before.count() != after.count() {
		return true
	}
	return len(before.atr) > 0 && len(after.atr) > 0 && !bytes.Equal(before.atr, after.atr)
}

func (s stateFlags) String() string {
	var names []string
	for _, f := range []struct {
		flag stateFlags
		name string
	}{
		{stateUnavailable, "unavailable"}, {stateUnknown, "unknown"}, {stateEmpty, "empty"},
		{statePresent, "present"}, {stateExclusive, "exclusive"}, {stateInUse, "in use"}, {stateMute, "mute"},
	} {
		if s&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return fmt.Sprintf("%s (%08X)", strings.Join(names, ", "), uint32(s))
}
