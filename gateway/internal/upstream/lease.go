package upstream

import (
	"context"
	"sync"
	"time"
)

// lease ends an exchange when its caller may no longer have it. Its timer is
// all that it costs a request that is answered before it is asked about.
type lease struct {
	ctx   context.Context
	renew func(context.Context) (time.Duration, error)
	dog   *watchdog

	mu     sync.Mutex
	timer  *time.Timer
	over   bool
	err    error   // why it was ended
	tunnel *tunnel // once upgraded
}

// hold begins a lease; nil renew lets the exchange last.
func hold(ctx context.Context, dog *watchdog, lasts time.Duration, renew func(context.Context) (time.Duration, error)) *lease {
	l := &lease{ctx: ctx, renew: renew, dog: dog}
	if renew != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer = time.AfterFunc(lasts, l.ask)
	}
	return l
}

func (l *lease) ask() {
	if l.ctx.Err() != nil {
		return
	}
	more, err := l.renew(l.ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
	case err == nil:
		l.timer.Reset(more)
	default:
		l.err = err
		l.end()
	}
}

func (l *lease) end() {
	if l.tunnel != nil {
		l.tunnel.end(policyViolation, "the token has expired or was revoked")
	} else {
		l.dog.end(l.err)
	}
}

// upgraded has the tunnel ended from now on, in place of the request.
func (l *lease) upgraded(t *tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tunnel = t
	if l.err != nil {
		l.end()
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
