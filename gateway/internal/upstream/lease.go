package upstream

import (
	"context"
	"sync"
	"time"
)

// lease ends an exchange when its caller may no longer have it. It is asked
// about for the first time by the watchdog's timer, and so costs nothing to a
// request that is answered before.
type lease struct {
	parent context.Context // ends with the exchange, or later
	ending *ending
	renew  func(context.Context) (time.Duration, error) // nil lets the exchange last
	dog    *watchdog
	ctx    context.Context // of renew, from the first time on

	mu     sync.Mutex
	timer  *time.Timer // of what is asked after the first time
	over   bool
	err    error   // why it was ended
	tunnel *tunnel // once upgraded
}

func (l *lease) ask() {
	if l.ctx == nil {
		l.ctx = l.ending.context(l.parent)
	}
	if l.ctx.Err() != nil {
		return
	}
	more, err := l.renew(l.ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
	case err != nil:
		l.err = err
		l.end()
	case l.timer == nil:
		l.timer = time.AfterFunc(more, l.ask)
	default:
		l.timer.Reset(more)
	}
}

func (l *lease) end() {
	if l.tunnel != nil {
		l.tunnel.end(policyViolation, "the token has expired or was revoked")
	} else {
		l.dog.end(l.err)
	}
}

// upgraded has the tunnel ended from now on, in place of the request, which is
// watched no longer.
func (l *lease) upgraded(t *tunnel) {
	first := l.dog.retire()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tunnel = t
	if l.err != nil {
		l.end()
	} else if !first.IsZero() {
		l.timer = time.AfterFunc(time.Until(first), l.ask)
	}
}

// stop ends the lease. The error says why the exchange was ended, if it was.
func (l *lease) stop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.timer != nil {
		l.timer.Stop()
	}
	return l.err
}
