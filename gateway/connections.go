package gateway

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/gateway/internal/socket"
)

// connections is the listener of callers' connections: it bounds how many are open,
// and counts them by what they do.
type connections struct {
	net.Listener
	most         func() int // connections at a time
	writeTimeout time.Duration
	slack        time.Duration // by which a deadline for reading may come early
	secure       bool          // TLS runs over them
	metrics      *metrics
	open         atomic.Int64
}

// Accept implements net.Listener. A connection too many is closed at once: left
// unaccepted it would wait, and keep whoever opened it waiting, for as long as
// the others last.
func (l *connections) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Load() >= int64(l.most()) {
			l.metrics.connectionsRefused.Inc()
			_ = conn.Close()
			continue
		}
		l.open.Add(1)
		c := &clientConn{Conn: socket.New(conn), listener: l}
		c.look.L = &c.mu
		c.handshaken.Store(!l.secure)
		c.enter(http.StateNew)
		return c, nil
	}
}

// entered is an http.Server's ConnState.
func entered(c net.Conn, state http.ConnState) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if c, ok := c.(*clientConn); ok && state != http.StateClosed { // Close tells of that, also of hijacked ones
		c.enter(state)
	}
}

// clientConn is one connection of a caller.
type clientConn struct {
	net.Conn
	listener *connections
	framing  framing // not under TLS

	handshaken atomic.Bool
	quiet      atomic.Bool // not a byte has come since it became idle

	mu       sync.Mutex // guards what follows
	reads    reading
	look     sync.Cond // ends a Read's waiting
	state    http.ConnState
	in       prometheus.Gauge // where the connection is counted; nil once it is closed
	deadline bool             // net/http, or the watchdog of an exchange, has set one for writing
	until    time.Time        // the one that Write has set
}

// The words for http.ConnState in metrics.
var connectionStates = [...]string{
	http.StateNew: "new", http.StateActive: "active", http.StateIdle: "idle", http.StateHijacked: "upgraded",
}

func (c *clientConn) enter(state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state = state; state == http.StateIdle {
		c.quiet.Store(true)
	}
	if c.in != nil {
		c.in.Dec()
	} else if state != http.StateNew {
		return // closed
	}
	c.in = c.listener.metrics.connections[state]
	c.in.Inc()
}

// Close implements net.Conn.
func (c *clientConn) Close() error {
	c.mu.Lock()
	if c.in != nil {
		c.in.Dec()
		c.in = nil
		c.listener.open.Add(-1)
	}
	c.wake()
	c.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is asked for by net/http, so that a client reads an answer before
// it sees a reset.
func (c *clientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// phase says what of a client was being waited for.
func (c *clientConn) phase() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.handshaken.Load():
		return "handshake"
	case c.state == http.StateActive:
		return "body"
	case c.state == http.StateIdle && c.quiet.Load():
		return "idle"
	}
	return "headers"
}

// Write implements net.Conn. A client that does not read holds up a Write for
// so long and no longer, unless the connection is upgraded. Setting a deadline
// costs more than looking at the clock: one that has seven eighths left stands.
func (c *clientConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	bound := !c.deadline && c.state != http.StateHijacked
	if now := time.Now(); bound && c.until.Sub(now) < c.listener.writeTimeout/8*7 {
		c.until = now.Add(c.listener.writeTimeout)
		_ = c.Conn.SetWriteDeadline(c.until)
	}
	c.mu.Unlock()
	n, err := c.Conn.Write(p)
	if bound && errors.Is(err, os.ErrDeadlineExceeded) {
		c.timedOut("response")
	}
	return n, err
}

// SetWriteDeadline implements net.Conn.
func (c *clientConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline, c.until = !t.IsZero(), time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

func (c *clientConn) timedOut(phase string) {
	c.listener.metrics.connectionTimeouts.WithLabelValues(phase).Inc()
}
