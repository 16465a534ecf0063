package ledger

import (
	"errors"
	"fmt"
)

// Basis is why values were erased.
type Basis string

// Bases of erasure.
const (
	Retention  Basis = "retention"  // the manifest's time of keeping is over
	Withdrawal Basis = "withdrawal" // the holder took the consent back
)

// ValuesErased: the erasable values of events were erased. The events stay,
// and so do the commitments in them, which tell nothing any more.
type ValuesErased struct {
	Consent string  `json:"consent"`
	Basis   Basis   `json:"basis"`
	Events  []int64 `json:"events"` // whose values are gone: 1 to 5,000 numbers, rising
}

// Kind is [KindValuesErased].
func (ValuesErased) Kind() Kind { return KindValuesErased }

func (d ValuesErased) check() error {
	var err error
	if d.Basis != Retention && d.Basis != Withdrawal {
		err = fmt.Errorf("basis %q", d.Basis)
	}
	for i, n := range d.Events {
		if n < 1 || i > 0 && n <= d.Events[i-1] {
			err = errors.Join(err, errors.New("numbers of events do not rise"))
			break
		}
	}
	return errors.Join(err, name("consent", d.Consent), number("number of events", len(d.Events), 1, 5000))
}
