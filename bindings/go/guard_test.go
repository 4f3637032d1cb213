package turso

import (
	"context"
	"errors"
	"testing"
	"time"
)

// The interrupt that the end of a context is and the busy timeout may come at the same moment.
func TestB9AContextThatEndsInAWaitForALockIsTheContextsError(t *testing.T) {
	for code, ends := range map[ErrorCode]bool{codeBusy: true, codeInterrupt: true, 3: false} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		err := guarded(ctx, func() {}, func() error {
			<-ctx.Done()
			return &Error{Code: code, Message: "the call"}
		})
		if is := errors.Is(err, context.DeadlineExceeded) && errors.Is(err, ErrTursoInterrupt); is != ends {
			t.Errorf("code %d: %v", code, err)
		}
		cancel()
	}
	// While the context is alive, busy is busy.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := guarded(ctx, func() {}, func() error { return &Error{Code: codeBusy, Message: "database is locked"} })
	if !errors.Is(err, ErrTursoBusy) || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
