package manifest

import (
	"errors"
	"fmt"
	"time"
)

// Errors of terms.
var (
	ErrNoCardExpiry = errors.New("the card's expiry was not entered")
	ErrCardExpired  = errors.New("the card has expired")
)

// maxTermYears is the longest that a card is valid.
const maxTermYears = 10

// TermEnd returns the last day on which an application serves that is issued
// on a day to a card with this printed expiry: the end of the manifest's
// term, or the card's expiry where that comes first. Only the calendar days
// of the arguments count, each in its own location; the result is midnight
// UTC of the day. It wraps [ErrNoCardExpiry] or [ErrCardExpired].
//
// Days are counted as the Civil Code does: the day of issue is not counted
// (art. 140); years and months go by the calendar and end the day before the
// corresponding day, or with the month that has none (art. 143).
func (m *Manifest) TermEnd(issued, cardExpiry time.Time) (time.Time, error) {
	if cardExpiry.IsZero() {
		return time.Time{}, ErrNoCardExpiry
	}
	issued, cardExpiry = day(issued), day(cardExpiry)
	if cardExpiry.Before(issued) {
		return time.Time{}, fmt.Errorf("%w on %s", ErrCardExpired, cardExpiry.Format(time.DateOnly))
	}
	if m.Term.CardExpiry {
		return cardExpiry, nil
	}
	end := m.Term.end(issued)
	if end.After(cardExpiry) {
		return cardExpiry, nil
	}
	return end, nil
}

// end returns the term's last day.
func (t Term) end(issued time.Time) time.Time {
	y, mon, d := issued.AddDate(0, 0, 1).Date()
	first := time.Date(y+t.Years, mon+time.Month(t.Months), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1)
	end := last
	if d <= last.Day() {
		end = time.Date(first.Year(), first.Month(), d-1, 0, 0, 0, 0, time.UTC)
	}
	return end.AddDate(0, 0, t.Days)
}

// day is midnight UTC of a time's calendar day.
func day(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}
