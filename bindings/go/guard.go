//go:build cgo

package turso

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// How often a call is interrupted until it returns: an interrupt that comes before the call has begun to wait is lost.
const interruptAgain = 10 * time.Millisecond

// guarded runs call, and interrupt again and again from the moment ctx ends until call returns. Once it has returned,
// interrupt is not called any more.
func guarded(ctx context.Context, interrupt func(), call func() error) error {
	if ctx.Done() == nil {
		return call()
	}
	if ctx.Err() != nil {
		return &Error{Code: codeInterrupt, Message: "interrupted", cause: endOf(ctx)}
	}
	var running sync.Mutex
	returned := false
	stop := context.AfterFunc(ctx, func() {
		for {
			running.Lock()
			if returned {
				running.Unlock()
				return
			}
			interrupt()
			running.Unlock()
			time.Sleep(interruptAgain)
		}
	})
	err := call()
	// A call can return between the end of the context and the start of what it starts.
	if stop() && ctx.Err() == nil {
		return err
	}
	running.Lock()
	returned = true
	running.Unlock()
	// A wait for a lock that the end of the context has cut short: whether the interrupt or the busy timeout came first is a
	// matter of chance, and the caller knows the context.
	var failed *Error
	if errors.As(err, &failed) && (failed.Code == codeInterrupt || failed.Code == codeBusy) {
		failed.Code = codeInterrupt
		failed.cause = endOf(ctx)
	}
	return err
}

// endOf is why the context ended: its error, and the cause that was given, where one was.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(cause, err) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
