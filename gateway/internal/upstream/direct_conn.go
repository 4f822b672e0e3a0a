package upstream

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"syscall"
	"time"

	"gatehouse/gateway/internal/socket"
)

// directConn is a connection of the short way. It has one request at a time.
type directConn struct {
	net.Conn
	in     *bufio.Reader // of Read
	left   int64         // how much may be read
	reused bool
	since  time.Time // when it became idle
	cut    func()    // closes it

	raw   syscall.RawConn
	probe func(fd uintptr) bool
	quiet bool // what probe found
}

func newDirectConn(conn net.Conn) *directConn {
	c := &directConn{Conn: conn, cut: func() { _ = conn.Close() }}
	c.in = bufio.NewReader(c)
	if s, ok := conn.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn()
	}
	var one [1]byte
	c.probe = func(fd uintptr) bool {
		c.quiet = socket.NothingToRead(fd, one[:])
		return true
	}
	return c
}

// silent says whether an idle connection has nothing to be read, not even its
// end. An answer that nobody asked for would be taken for that to the next
// request: who can have a target send two would choose what somebody else sees.
func (c *directConn) silent() bool {
	return c.raw != nil && c.raw.Read(c.probe) == nil && c.quiet
}

var errLongHeaders = fmt.Errorf("the answer's headers have more than %d bytes", maxHeaderBytes)

// Read implements io.Reader.
func (c *directConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLongHeaders
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// exchange sends a request, and reads the headers of the answer. Those of
// informational answers count with them, or a target could send such for ever.
func (c *directConn) exchange(r *http.Request, head []byte, trace *httptrace.ClientTrace) (*http.Response, error) {
	if n, err := c.Write(head); err != nil {
		return nil, &staleError{err, n > 0}
	}
	c.left = maxHeaderBytes
	if _, err := c.in.Peek(1); err != nil {
		return nil, &staleError{err, true}
	}
	for {
		res, err := http.ReadResponse(c.in, r)
		if err != nil {
			return nil, err
		}
		switch {
		case res.StatusCode >= 200:
			c.left = math.MaxInt64
			return res, nil
		case res.StatusCode < 100, res.StatusCode == http.StatusSwitchingProtocols:
			return nil, fmt.Errorf("status %03d, which nobody asked for", res.StatusCode)
		case trace != nil && trace.Got1xxResponse != nil:
			if err := trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// staleError is the end of a connection before the first byte of an answer.
type staleError struct {
	err     error
	written bool // a part of the request, or all
}

func (e *staleError) Error() string {
	return "the target ended the connection before it answered: " + e.err.Error()
}

func (e *staleError) Unwrap() error { return e.err }

// directBody is the body of an answer. Read to its end it gives the connection
// back.
type directBody struct {
	body   io.Reader // net/http's, which once at its end touches the connection no more
	ctx    context.Context
	direct *direct
	conn   *directConn
	last   bool    // the connection serves no more
	ending *ending // which holds the connection
	ended  atomic.Bool
}

// Read implements io.Reader.
func (b *directBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err == nil || !b.ended.CompareAndSwap(false, true) {
		return n, err
	}
	b.direct.put(b.conn, b.ending.done() && err == io.EOF && !b.last)
	if err != io.EOF {
		err = cmp.Or(b.ending.why(b.ctx), err)
	}
	return n, err
}

// arrived says whether all of an answer's body can be read without waiting.
func arrived(res *http.Response) bool {
	b, ok := res.Body.(*directBody)
	return ok && 0 < res.ContentLength && res.ContentLength <= int64(b.conn.in.Buffered())
}

// Close implements io.Closer. Nobody knows how long the rest of the body is, so
// it costs the connection.
func (b *directBody) Close() error {
	if b.ended.CompareAndSwap(false, true) {
		b.ending.done()
		_ = b.conn.Close()
	}
	return nil
}
