package gateway

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync/atomic"
)

// framing counts the lines of a clear-text connection that begin with the name
// of a header that says where a request ends. net/http hides from handlers a
// Content-Length beside chunks, and a Transfer-Encoding in HTTP/1.0; RFC 9112
// §6.1 wants the connection closed after such a request, since what stands in
// front may have seen another end.
//
// Lines in bodies, and in heads that were read ahead, count too: what comes of
// it is a connection that is closed without need, and never the reverse.
type framing struct {
	begins bool         // a line begins here
	rest   string       // what the line at hand must go on with to count; "": whatever, it does not
	lines  atomic.Int32 // that count, less those that net/http told of; it reads ahead while handlers run
}

// scan takes what is read next.
func (f *framing) scan(p []byte) {
	for len(p) > 0 {
		if !f.begins && f.rest == "" {
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				return
			}
			f.begins, p = true, p[i+1:]
			continue
		}
		c := p[0]
		p = p[1:]
		switch {
		case c == '\n':
			f.begins, f.rest = true, ""
		case f.begins && c|0x20 == 'c':
			f.begins, f.rest = false, "ontent-length"
		case f.begins && c|0x20 == 't':
			f.begins, f.rest = false, "ransfer-encoding"
		case !f.begins && c|0x20 == f.rest[0]:
			if f.rest = f.rest[1:]; f.rest == "" {
				f.lines.Add(1)
			}
		default:
			f.begins, f.rest = false, ""
		}
	}
}

type framingKey struct{}

// framingContext is an http.Server's ConnContext.
func framingContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*clientConn); ok {
		return context.WithValue(ctx, framingKey{}, &c.framing)
	}
	return ctx
}

// endsDoubtfully says whether something in front of the gateway may have seen
// the request's end elsewhere, so that nothing after it is to be believed.
// Under TLS nothing was counted, and so each request that might be one is.
// It is to be called once for each request.
func endsDoubtfully(r *http.Request) bool {
	if r.ProtoMajor != 1 {
		return false
	}
	f, counted := r.Context().Value(framingKey{}).(*framing)
	if counted && (r.TransferEncoding != nil || r.Header["Content-Length"] != nil) {
		f.lines.Add(-1) // the one that net/http told of
	}
	return (r.TransferEncoding != nil || r.ProtoMinor == 0) && (!counted || f.lines.Load() > 0)
}
