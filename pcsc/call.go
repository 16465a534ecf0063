package pcsc

import (
	"context"
	"fmt"
	"sync/atomic"
)

// run calls f, which may block inside the PC/SC library, in a goroutine of its
// own and waits for it no longer than the context lasts. When it gives up,
// undo (if any) is given what f obtained, as soon as f returns without error.
func run[T any](ctx context.Context, op, slot string, f func() (T, error), undo func(T)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, waitError(op, slot, err)
	}
	type result struct {
		v   T
		err error
	}
	const waiting, returned, abandoned = 0, 1, 2
	var state atomic.Int32
	done := make(chan result, 1)
	go func() {
		v, err := f()
		if state.CompareAndSwap(waiting, returned) {
			done <- result{v, err}
			return
		}
		if err == nil && undo != nil {
			undo(v)
		}
	}()
	select {
	case r := <-done:
		return r.v, opError(op, slot, r.err, classify)
	case <-ctx.Done():
	}
	if state.CompareAndSwap(waiting, abandoned) {
		return zero, waitError(op, slot, ctx.Err())
	}
	r := <-done // it returned at the same moment
	return r.v, opError(op, slot, r.err, classify)
}

func waitError(op, slot string, err error) error {
	if slot == "" {
		return fmt.Errorf("pcsc: %s: %w", op, err)
	}
	return fmt.Errorf("pcsc: %s %q: %w", op, slot, err)
}
