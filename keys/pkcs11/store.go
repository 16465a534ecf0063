package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freearea/freearea/keys"
)

// maxSessions is how many operations a Store asks of its token at a time.
const maxSessions = 8

// Options are for Open.
type Options struct {
	// PIN answers with the user's PIN. It is called once, after the token was
	// found, and told what the token says of itself: where one try is left,
	// whoever is asked should know. Open erases the slice.
	PIN func(ctx context.Context, t Token) ([]byte, error)
	// FinalTry allows Open to use up the last try for the PIN. Without it a
	// program that starts again by itself, with a wrong PIN in a file, can't
	// lock the token.
	FinalTry bool
	Now      func() time.Time // nil is time.Now
}

// Store is an open token. It implements [keys.Store] and is safe for
// concurrent use. A call whose context ends returns at once; what the token
// was asked then goes on without it. Only one Store can have a token open in a
// process.
type Store struct {
	lib   library
	token Token
	slot  uint
	now   func() time.Time
	// What mechanisms the token has.
	mechanisms map[uint]uint
	// keeper is a session that does nothing: the login lasts while one is open.
	keeper uint
	gone   atomic.Bool // the token was removed

	limit chan struct{} // one for each operation under way

	// changing is held by who makes or changes keys, alone: a version is chosen
	// from those that are there, and SoftHSM2 fails when keys are looked for
	// while others are made.
	changing sync.RWMutex

	mu     sync.Mutex
	closed bool
	idle   []uint // sessions for reading
	busy   sync.WaitGroup
	nowMu  sync.Mutex
}

var (
	_ keys.Store      = (*Store)(nil)
	_ keys.SchemeKeys = (*Store)(nil)
)

// Open finds the token that a URI names, loads its library, and logs in. The
// URI names the library by module-path and the token by any of its attributes;
// pin-source is told to Options.PIN and not read here.
//
// Errors wrap ErrNotBuilt, ErrUnsupportedURI, ErrModule, ErrNoToken,
// ErrSeveralTokens, ErrTokenInUse, ErrPINNotSet, ErrFinalTry, ErrPIN and
// ErrPINLocked (both in a PINError), or are Options.PIN's. A wrong PIN is
// never tried again.
func Open(ctx context.Context, u URI, o Options) (*Store, error) {
	if err := u.checkStore(); err != nil {
		return nil, err
	}
	module, err := u.Module()
	if err != nil {
		return nil, err
	}
	pinFile, err := u.PINFile()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lib, err := load(module)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, lib, u, pinFile, o)
	if err != nil {
		lib.release()
		return nil, err
	}
	return s, nil
}

// Find returns what the token that a URI names tells of itself, without a PIN.
// Errors are those of Open that come before its login.
func Find(ctx context.Context, u URI) (Token, error) {
	if err := u.checkStore(); err != nil {
		return Token{}, err
	}
	module, err := u.Module()
	if err != nil {
		return Token{}, err
	}
	pinFile, err := u.PINFile()
	if err != nil {
		return Token{}, err
	}
	if err := ctx.Err(); err != nil {
		return Token{}, err
	}
	lib, err := load(module)
	if err != nil {
		return Token{}, err
	}
	defer lib.release()
	t, err := one(lib, u)
	t.PINFile = pinFile
	return t.Token, err
}

// one finds the one token that a URI names.
func one(lib library, u URI) (present, error) {
	tokens, err := match(lib, u)
	if err != nil {
		return present{}, err
	}
	switch len(tokens) {
	case 0:
		return present{}, fmt.Errorf("%w: %v", ErrNoToken, u)
	case 1:
		return tokens[0], nil
	}
	var serials []string
	for _, t := range tokens {
		serials = append(serials, fmt.Sprintf("%q with serial %q", t.Label, t.Serial))
	}
	return present{}, fmt.Errorf("%w: %s", ErrSeveralTokens, serials)
}

func open(ctx context.Context, lib library, u URI, pinFile string, o Options) (*Store, error) {
	t, err := one(lib, u)
	if err != nil {
		return nil, err
	}
	t.PINFile = pinFile
	s := &Store{
		lib: lib, token: t.Token, slot: t.slot, now: o.Now,
		mechanisms: map[uint]uint{}, limit: make(chan struct{}, maxSessions),
	}
	if s.now == nil {
		s.now = time.Now
	}
	for _, m := range []uint{ckmAESCMAC, ckmAESECB, ckmAESKeyGen, ckmEDDSA, ckmECEdwardsKeyPairGen} {
		if s.mechanisms[m], err = lib.mechanism(t.slot, m); err != nil {
			return nil, s.fail(err)
		}
	}
	if s.keeper, err = lib.openSession(t.slot, false); err != nil {
		return nil, s.fail(err)
	}
	if err := s.login(ctx, t, o); err != nil {
		lib.closeSession(s.keeper)
		return nil, err
	}
	return s, nil
}

// login asks for the PIN and gives it to the token, once.
func (s *Store) login(ctx context.Context, t present, o Options) error {
	in, err := s.lib.loggedIn(s.keeper)
	switch {
	case err != nil:
		return s.fail(err)
	case in:
		return fmt.Errorf("%w: %q", ErrTokenInUse, t.Label)
	case t.flags&ckfUserPINInitialized == 0, t.flags&ckfUserPINToBeChanged != 0:
		return fmt.Errorf("%w: token %q", ErrPINNotSet, t.Label)
	case t.Tries == TriesLocked:
		return &PINError{t.Label, TriesLocked, ErrPINLocked}
	case t.Tries == TriesFinal && !o.FinalTry:
		return fmt.Errorf("%w: token %q", ErrFinalTry, t.Label)
	case t.flags&ckfProtectedPath != 0:
		return fmt.Errorf("%w: token %q takes its PIN at a pad of its own", ErrUnsupportedURI, t.Label)
	case o.PIN == nil:
		return errors.New("no way to ask for the token's PIN was given")
	}
	pin, err := o.PIN(ctx, t.Token)
	if err != nil {
		return err
	}
	defer clear(pin)
	if err := ctx.Err(); err != nil {
		return err
	}
	// An empty PIN is a PIN to some tokens, and costs a try.
	if len(pin) == 0 {
		return fmt.Errorf("%w: it is empty, and was not tried", ErrPIN)
	}
	err = s.lib.login(s.keeper, pin)
	var c code
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &c):
		return err
	}
	refused := func(sentinel error) error {
		e := &PINError{Token: t.Label, err: sentinel, Tries: t.Tries}
		if i, err := s.lib.tokenInfo(t.slot); err == nil {
			t.set(i)
			e.Tries = t.Tries
		}
		if sentinel == ErrPINLocked { // whatever its flags say
			e.Tries = TriesLocked
		}
		return e
	}
	switch c {
	case ckrPINIncorrect, ckrPINInvalid, ckrPINLenRange:
		return refused(ErrPIN)
	case ckrPINLocked:
		return refused(ErrPINLocked)
	case ckrPINExpired, ckrUserPINNotInit:
		return fmt.Errorf("%w: token %q (%v)", ErrPINNotSet, t.Label, c)
	case ckrUserAlreadyLoggedIn:
		return fmt.Errorf("%w: %q", ErrTokenInUse, t.Label)
	}
	return s.fail(err)
}

// Token returns what the token said of itself when it was opened.
func (s *Store) Token() Token { return s.token }

// Close waits for what is under way, ends the login, and gives the library
// back. The Store answers ErrClosed from then on.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.busy.Wait()
	// Sessions of a removed token are closed already: nothing is to be done
	// about errors here.
	for _, session := range append(s.idle, s.keeper) {
		s.lib.closeSession(session)
	}
	s.idle = nil
	s.lib.release()
	return nil
}

// do runs f with a session of its own. The token can't be interrupted: when
// ctx ends first, f goes on and its result is erased.
func do[T any](ctx context.Context, s *Store, write bool, f func(session uint) (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return zero, ErrClosed
	}
	s.busy.Add(1)
	s.mu.Unlock()
	select {
	case s.limit <- struct{}{}:
	case <-ctx.Done():
		s.busy.Done()
		return zero, ctx.Err()
	}

	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer s.busy.Done()
		defer func() { <-s.limit }()
		if write {
			s.changing.Lock()
			defer s.changing.Unlock()
		} else {
			s.changing.RLock()
			defer s.changing.RUnlock()
		}
		// Nobody waits for it any more.
		if err := ctx.Err(); err != nil {
			done <- result{err: err}
			return
		}
		session, err := s.session(write)
		if err != nil {
			done <- result{err: s.fail(err)}
			return
		}
		v, err := f(session)
		// A session in which something failed may have an operation begun.
		if err != nil || write {
			s.lib.closeSession(session)
		} else {
			s.mu.Lock()
			s.idle = append(s.idle, session)
			s.mu.Unlock()
		}
		if err != nil {
			err = s.fail(err)
		}
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		go func() {
			r := <-done
			if e, ok := any(&r.value).(interface{ Erase() }); ok {
				e.Erase()
			}
		}()
		return zero, ctx.Err()
	}
}

// session returns an idle session, or opens one. Without the login the token
// would only seem to be empty.
func (s *Store) session(write bool) (uint, error) {
	if s.gone.Load() {
		return 0, fmt.Errorf("%w: %q", ErrTokenRemoved, s.token.Label)
	}
	var session uint
	s.mu.Lock()
	n := len(s.idle)
	if write {
		n = 0
	}
	if n > 0 {
		session, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	s.mu.Unlock()
	if n == 0 {
		var err error
		if session, err = s.lib.openSession(s.slot, write); err != nil {
			return 0, err
		}
	}
	in, err := s.lib.loggedIn(session)
	if err == nil && !in {
		err = ckrUserNotLoggedIn
	}
	if err != nil {
		s.lib.closeSession(session)
		return 0, err
	}
	return session, nil
}

// seconds is the time of a change, in seconds since 1970.
func (s *Store) seconds() uint64 {
	s.nowMu.Lock()
	defer s.nowMu.Unlock()
	return uint64(max(s.now().Unix(), 1))
}

// need says whether the token has a mechanism.
func (s *Store) need(mechanism, flag uint, name, purpose string) error {
	if s.mechanisms[mechanism]&flag == 0 {
		return fmt.Errorf("%w: %q has no %s, so it can't %s", ErrMechanism, s.token.Label, name, purpose)
	}
	return nil
}

// Problems describes what in the token looks like a key of this module and
// can't be used, each as an error that wraps ErrDamaged or ErrExposed.
func (s *Store) Problems(ctx context.Context) ([]error, error) {
	return do(ctx, s, false, func(session uint) ([]error, error) {
		list, err := s.list(session, "")
		if err != nil {
			return nil, err
		}
		var out []error
		for _, k := range list {
			if err := k.usable(); err != nil {
				out = append(out, err)
			}
		}
		return out, nil
	})
}

// sortKeys sorts by name and version.
func sortKeys(list []*key) {
	slices.SortFunc(list, func(a, b *key) int { return a.compare(b) })
}
