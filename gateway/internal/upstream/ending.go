package upstream

import (
	"context"
	"sync"
)

// ending is how an exchange ends before its time: its client goes, the watchdog
// bites, or the lease is over. A context could tell of it, and is made where
// something waits for one; most requests go the short way, and have but one
// connection to cut.
type ending struct {
	mu      sync.Mutex
	cause   error                     // nil: the exchange goes on
	cut     func()                    // ends what is waited for; nil: nothing
	cancels []context.CancelCauseFunc // of the contexts that were made
	leave   func() bool               // stops following a context; nil: it follows none
}

// following is the ending of what ends with ctx.
func following(ctx context.Context) *ending {
	e := &ending{}
	e.leave = context.AfterFunc(ctx, func() { e.end(context.Cause(ctx)) })
	return e
}

// end ends the exchange, unless it was ended before. Without a cause it is over
// in an orderly way.
func (e *ending) end(cause error) {
	if cause == nil {
		cause = context.Canceled
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cause != nil {
		return
	}
	e.cause = cause
	if e.cut != nil {
		go e.cut() // which waits for who uses the connection
	}
	for _, cancel := range e.cancels {
		cancel(cause)
	}
}

// hold has cut called if the exchange ends before release.
func (e *ending) hold(cut func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cut = cut
	if e.cause != nil {
		go cut()
	}
}

// release says whether nothing was cut, and that nothing will be before the
// next hold.
func (e *ending) release() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cut = nil
	return e.cause == nil
}

// done is the last release: who followed a context does so no more.
func (e *ending) done() bool {
	if e.leave != nil {
		e.leave()
	}
	return e.release()
}

// context is a child of parent that ends with the exchange, too.
func (e *ending) context(parent context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancels = append(e.cancels, cancel)
	if e.cause != nil {
		cancel(e.cause)
	}
	return ctx
}

// why is the cause; nil while the exchange goes on. Since who ends it learns
// later than others that ctx has ended, ctx is asked, too.
func (e *ending) why(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cause != nil {
		return e.cause
	}
	return context.Cause(ctx)
}
