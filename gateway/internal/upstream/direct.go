package upstream

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"gatehouse/gateway/internal/socket"
)

// direct is the short way to a target that speaks HTTP/1.1 without TLS, for
// requests without a body: who sends one writes it and reads the answer in his
// own goroutine. An http.Transport has two goroutines for each connection, and
// waking them costs more than all else that it does. In all other things it is
// the measure: a caller, and the target, cannot tell which way a request went.
type direct struct {
	long        *http.Transport // of all other requests
	address     string
	idleTimeout time.Duration

	mu      sync.Mutex
	idle    []*directConn // the one that became idle last is taken first
	janitor *time.Timer   // closes those that were idle too long; nil while it has nothing to do
	closed  bool
}

// newDirect puts the short way to u, whose scheme is http, beside the long one.
func newDirect(u *url.URL, long *http.Transport) transport {
	address, err := httpguts.PunycodeHostPort(net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")))
	if err != nil || !socket.CanProbe {
		return long
	}
	return &direct{long: long, address: address, idleTimeout: long.IdleConnTimeout}
}

var heads = sync.Pool{New: func() any { return new([]byte) }}

// RoundTrip implements http.RoundTripper.
func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	return d.roundTrip(r, &added{}, nil)
}

// roundTrip is RoundTrip with more headers, which may be set in r, and with what
// else ends it than its context, if not nil.
func (d *direct) roundTrip(r *http.Request, more *added, e *ending) (*http.Response, error) {
	buf := heads.Get().(*[]byte)
	defer heads.Put(buf)
	head, ok := appendHead((*buf)[:0], r, more)
	*buf = head
	if !ok {
		return goLong(d.long, r, more, e)
	}
	if e == nil {
		e = following(r.Context())
	}
	res, err := d.send(r, head, more, e)
	if err != nil {
		e.done()
	}
	return res, err
}

// goLong is roundTrip by net/http's transport.
func goLong(long http.RoundTripper, r *http.Request, more *added, e *ending) (*http.Response, error) {
	more.into(r.Header)
	if e != nil {
		r = r.WithContext(e.context(r.Context()))
	}
	return long.RoundTrip(r)
}

// send sends a request whose bytes are head. The ending may end it until its
// answer is read, whatever connections were stale before.
func (d *direct) send(r *http.Request, head []byte, more *added, e *ending) (*http.Response, error) {
	ctx := r.Context()
	trace := httptrace.ContextClientTrace(ctx)
	for {
		if cause := e.why(ctx); cause != nil {
			return nil, cause
		}
		c, err := d.get(ctx, e)
		if err != nil {
			return nil, cmp.Or(e.why(ctx), err)
		}
		if trace != nil && trace.GotConn != nil {
			trace.GotConn(httptrace.GotConnInfo{Conn: c.Conn, Reused: c.reused, WasIdle: c.reused})
		}
		e.hold(c.cut)
		res, err := c.exchange(r, head, trace)
		if err == nil {
			if res.Body == http.NoBody {
				d.put(c, e.done() && !res.Close)
			} else {
				res.Body = &directBody{body: res.Body, ctx: ctx, direct: d, conn: c, last: res.Close, ending: e}
			}
			return res, nil
		}
		e.release()
		_ = c.Close()
		if cause := e.why(ctx); cause != nil {
			return nil, cause
		}
		// A target closes an idle connection when it likes, so perhaps while a
		// request is on its way there, which it will not look at any more (RFC
		// 9112 §9.3.1). This ends: each turn uses up a connection that was idle.
		var stale *staleError
		if !errors.As(err, &stale) || !c.reused || stale.written && !replayable(r, more) {
			return nil, err
		}
	}
}

// replayable says whether a request without a body may be sent again though it
// may have arrived, as net/http sees it (RFC 9110 §9.2.2).
func replayable(r *http.Request, more *added) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	for _, name := range [...]string{"Idempotency-Key", "X-Idempotency-Key"} {
		if r.Header[name] != nil || more.has(name) {
			return true
		}
	}
	return false
}

// get takes a connection that is idle, or makes one.
func (d *direct) get(ctx context.Context, e *ending) (*directConn, error) {
	for c := d.pop(); c != nil; c = d.pop() {
		if c.silent() {
			return c, nil
		}
		_ = c.Close()
	}
	conn, err := d.long.DialContext(e.context(ctx), "tcp", d.address)
	if err != nil {
		return nil, err
	}
	return newDirectConn(conn), nil
}

func (d *direct) pop() *directConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := len(d.idle) - 1
	if last < 0 {
		return nil
	}
	c := d.idle[last]
	d.idle[last], d.idle = nil, d.idle[:last]
	return c
}

// put gives a connection back whose answer was read whole, to serve again if
// it may.
func (d *direct) put(c *directConn, may bool) {
	// What was sent beyond the answer would be the next caller's.
	if !may || c.in.Buffered() > 0 || !d.keep(c) {
		_ = c.Close()
	}
}

func (d *direct) keep(c *directConn) bool {
	c.reused, c.since = true, time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.idle) == idleConnsPerHost {
		return false
	}
	d.idle = append(d.idle, c)
	if d.janitor == nil {
		d.janitor = time.AfterFunc(d.idleTimeout, d.tidy)
	}
	return true
}

// tidy closes the connections that were idle too long. They stand in front.
func (d *direct) tidy() {
	d.mu.Lock()
	d.janitor = nil
	old, n := time.Now().Add(-d.idleTimeout), 0
	for n < len(d.idle) && !d.idle[n].since.After(old) {
		n++
	}
	gone := slices.Clone(d.idle[:n])
	d.idle = slices.Delete(d.idle, 0, n)
	if len(d.idle) > 0 {
		d.janitor = time.AfterFunc(d.idle[0].since.Sub(old), d.tidy)
	}
	d.mu.Unlock()
	for _, c := range gone {
		_ = c.Close()
	}
}

// CloseIdleConnections closes the idle connections, and from now on each other
// when it has served: it is called when the target is of no further use.
func (d *direct) CloseIdleConnections() {
	d.long.CloseIdleConnections()
	d.mu.Lock()
	gone := d.idle
	d.idle, d.closed = nil, true
	if d.janitor != nil {
		d.janitor.Stop()
	}
	d.mu.Unlock()
	for _, c := range gone {
		_ = c.Close()
	}
}
