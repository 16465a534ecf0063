package pcsc

import "time"

// Call is one call of the PC/SC library, as NewObserved reports it.
type Call struct {
	Name         string // as in library, session and handle
	Began, Ended time.Time
	Present      []string // of wait: the slots that have a card, when it returned
}

// NewObserved returns the PC/SC devices of this machine, and has every call of
// the library told to observe, which several goroutines call.
func NewObserved(observe func(Call)) *Source {
	s := New(Options{})
	s.lib = observed{s.lib, observe}
	return s
}

type observed struct {
	library
	observe func(Call)
}

type observedSession struct {
	session
	observe func(Call)
}

type observedHandle struct {
	handle
	observe func(Call)
}

// timed makes a call and tells of it.
func timed[T any](observe func(Call), name string, f func() (T, error)) (T, error) {
	c := Call{Name: name, Began: time.Now()}
	v, err := f()
	c.Ended = time.Now()
	observe(c)
	return v, err
}

func (o observed) establish() (session, error) {
	s, err := timed(o.observe, "establish", o.library.establish)
	if err != nil {
		return nil, err
	}
	return observedSession{s, o.observe}, nil
}

func (o observedSession) wait(states []slotState, timeout time.Duration) error {
	c := Call{Name: "wait", Began: time.Now()}
	err := o.session.wait(states, timeout)
	c.Ended = time.Now()
	for _, s := range states {
		if s.has(statePresent) {
			c.Present = append(c.Present, s.name)
		}
	}
	o.observe(c)
	return err
}

func (o observedSession) connect(slot string, exclusive bool) (handle, error) {
	h, err := timed(o.observe, "connect", func() (handle, error) { return o.session.connect(slot, exclusive) })
	if err != nil {
		return nil, err
	}
	return observedHandle{h, o.observe}, nil
}

func (o observedHandle) atr() ([]byte, error) { return timed(o.observe, "atr", o.handle.atr) }

func (o observedHandle) begin() error {
	_, err := timed(o.observe, "begin", func() (struct{}, error) { return struct{}{}, o.handle.begin() })
	return err
}

func (o observedHandle) reconnect(exclusive, reset bool) error {
	_, err := timed(o.observe, "reconnect", func() (struct{}, error) { return struct{}{}, o.handle.reconnect(exclusive, reset) })
	return err
}

func (o observedHandle) transmit(command []byte) ([]byte, error) {
	return timed(o.observe, "transmit", func() ([]byte, error) { return o.handle.transmit(command) })
}
