package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"
)

// byHand is a target that a test writes by hand, byte for byte.
type byHand struct {
	net.Listener
	url      *url.URL
	conns    atomic.Int32 // that were opened
	open     atomic.Int32 // that are
	requests atomic.Int32
	running  sync.WaitGroup
}

// handmade serves each connection by serve, which is told its number, and
// closes it afterwards.
func handmade(t testing.TB, serve func(conn *net.TCPConn, in *bufio.Reader, n int)) *byHand {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &byHand{Listener: l, url: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	b.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n := int(b.conns.Add(1))
			b.open.Add(1)
			b.running.Go(func() {
				defer b.open.Add(-1)
				defer func() { _ = conn.Close() }()
				serve(conn.(*net.TCPConn), bufio.NewReader(conn), n)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.running.Wait()
	})
	return b
}

// answering answers each request with what answer says, and ends the
// connection where that is "".
func answering(t testing.TB, answer func(r *http.Request, conn, nth int) string) *byHand {
	var b *byHand
	b = handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
		for i := 1; ; i++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			b.requests.Add(1)
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			text := answer(r, n, i)
			if text == "" {
				return
			}
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	})
	return b
}

// way is a transport to the target, closed before the target is waited for.
func (b *byHand) way(t testing.TB, netHTTP bool) transport {
	told := Target{URL: b.url}
	w := newTarget(told, told.key(), &Options{NetHTTP: netHTTP, ConnectTimeout: 10 * time.Second}).transport
	if _, direct := w.(*direct); direct == netHTTP {
		t.Fatalf("the transport is a %T", w)
	}
	t.Cleanup(w.CloseIdleConnections)
	return w
}

// bothWays runs a test over the short way and over net/http's, which says
// what is right.
func bothWays(t *testing.T, f func(t *testing.T, netHTTP bool)) {
	t.Run("direct", func(t *testing.T) { f(t, false) })
	t.Run("net_http", func(t *testing.T) { f(t, true) })
}

// ask makes a request as httputil makes them.
func (b *byHand) ask(ctx context.Context, t testing.TB, method, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, b.url.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("User-Agent", "")
	return r
}

// told is what the sender of a request comes to know.
func told(w http.RoundTripper, r *http.Request) string {
	var early strings.Builder
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		fmt.Fprintf(&early, "%d %s, ", code, h.Get("Link"))
		return nil
	}}))
	res, err := w.RoundTrip(r)
	if err != nil {
		return early.String() + "error"
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if len(body) > 40 {
		body = fmt.Appendf(nil, "%d bytes", len(body))
	}
	answer := fmt.Sprintf("%s%d %q", early.String(), res.StatusCode, body)
	if a := res.Header.Get("A"); a != "" {
		answer += " A=" + a[:min(len(a), 5)]
	}
	for name, values := range res.Trailer {
		answer += " " + name + "=" + strings.Join(values, ",")
	}
	if err != nil {
		answer += " " + err.Error()
	}
	return answer
}

// What a target may answer, what the caller sees, and whether the connection
// serves the next request, too.
func TestDirectAnswers(t *testing.T) {
	long := func(n int) string { return strings.Repeat("a", n) }
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		method, answer string // the answer ends the connection if it ends with EOF
		want           string
		again          bool
		differs        string // what net/http makes of it, if not the same; "?": it depends
	}{
		"a length":                        {answer: ok + "A: b\r\nContent-Length: 5\r\n\r\nhello", want: `200 "hello" A=b`, again: true},
		"a long body":                     {answer: ok + "Content-Length: 100000\r\n\r\n" + long(100000), want: `200 "100000 bytes"`, again: true},
		"no body":                         {answer: ok + "Content-Length: 0\r\n\r\n", want: `200 ""`, again: true},
		"204":                             {answer: "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", want: `204 "" A=b`, again: true},
		"304 with a length":               {answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", want: `304 ""`, again: true},
		"HEAD":                            {method: "HEAD", answer: ok + "Content-Length: 5\r\n\r\n", want: `200 ""`, again: true},
		"HEAD with chunks":                {method: "HEAD", answer: ok + "Transfer-Encoding: chunked\r\n\r\n", want: `200 ""`, again: true},
		"POST":                            {method: "POST", answer: ok + "Content-Length: 5\r\n\r\nhello", want: `200 "hello"`, again: true},
		"chunks":                          {answer: ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", want: `200 "hello"`, again: true},
		"trailers":                        {answer: ok + "Transfer-Encoding: chunked\r\nTrailer: B\r\n\r\n5\r\nhello\r\n0\r\nB: c\r\n\r\n", want: `200 "hello" B=c`, again: true},
		"trailers without a body":         {answer: ok + "Transfer-Encoding: chunked\r\nTrailer: B\r\n\r\n0\r\nB: c\r\n\r\n", want: `200 "" B=c`, again: true},
		"chunks and a length":             {answer: ok + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: `200 "hello"`, again: true},
		"until the end":                   {answer: ok + "\r\nhelloEOF", want: `200 "hello"`},
		"Connection: close":               {answer: ok + "Connection: close\r\nContent-Length: 5\r\n\r\nhello", want: `200 "hello"`},
		"Connection: close without body":  {answer: ok + "Connection: close\r\nContent-Length: 0\r\n\r\n", want: `200 ""`},
		"HTTP/1.0":                        {answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", want: `200 "hello"`},
		"HTTP/1.0 that stays":             {answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", want: `200 "hello"`, again: true},
		"headers of 200 KiB":              {answer: ok + "A: " + long(200<<10) + "\r\nContent-Length: 0\r\n\r\n", want: `200 "" A=aaaaa`, again: true},
		"continue":                        {answer: "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 5\r\n\r\nhello", want: `100 , 200 "hello"`, again: true},
		"early hints, twice":              {answer: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", want: `103 a, 103 b, 200 ""`, again: true},
		"a body cut off":                  {answer: ok + "Content-Length: 9\r\n\r\nhelloEOF", want: `200 "hello" unexpected EOF`},
		"chunks cut off":                  {answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nEOF", want: `200 "hello" unexpected EOF`},
		"a bad chunk":                     {answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", want: `200 "hello" invalid byte in chunk length`},
		"trailers that are too long":      {answer: ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nB: " + long(5000) + "\r\n\r\n", want: `200 "" http: suspiciously long trailer after chunked body`},
		"headers of 300 KiB":              {answer: ok + "A: " + long(300<<10) + "\r\nContent-Length: 0\r\n\r\n", want: `error`},
		"headers without end":             {answer: ok + strings.Repeat("A: b\r\n", 100_000), want: `error`},
		"a status line without end":       {answer: "HTTP/1.1 200 " + long(300<<10), want: `error`},
		"headers cut off":                 {answer: ok + "A: bEOF", want: `error`},
		"no HTTP":                         {answer: "220 smtp.example.com ESMTP\r\n\r\n", want: `error`},
		"a header without name":           {answer: ok + ": b\r\nContent-Length: 0\r\n\r\n", want: `error`},
		"two lengths":                     {answer: ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", want: `error`},
		"a negative length":               {answer: ok + "Content-Length: -5\r\n\r\nhello", want: `error`},
		"another transfer coding":         {answer: ok + "Transfer-Encoding: gzip\r\n\r\nhello", want: `error`},
		"an upgrade that nobody asked of": {answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nEOF", want: `error`, differs: `101 ""`},
		"a status below 100":              {answer: "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n", want: `error`, differs: `99 ""`},
		"informational answers for ever":  {answer: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20_000) + ok + "Content-Length: 0\r\n\r\n", want: "", differs: "?"},
		// What stands behind an answer must not be the next one: net/http may
		// take the connection again before it has noticed.
		"a second answer":       {answer: ok + "Content-Length: 5\r\n\r\nhello" + ok + "Content-Length: 4\r\n\r\nevil", want: `200 "hello"`, differs: "?"},
		"a byte too many":       {answer: ok + "Content-Length: 5\r\n\r\nhello!", want: `200 "hello"`, differs: "?"},
		"chunks and a byte":     {answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n!", want: `200 "hello"`, differs: "?"},
		"a body of none":        {answer: ok + "Content-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", want: `200 ""`, differs: "?"},
		"HEAD with a body":      {method: "HEAD", answer: ok + "Content-Length: 5\r\n\r\nhello", want: `200 ""`, differs: "?"},
		"204 with a body":       {answer: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", want: `204 ""`, differs: "?"},
		"304 with a body":       {answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", want: `304 ""`, differs: "?"},
		"trailers and a byte":   {answer: ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nB: c\r\n\r\n!", want: `200 "" B=c`, differs: "?"},
		"HTTP/1.0 and a byte":   {answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello!", want: `200 "hello"`, differs: "?"},
		"a length, then an end": {answer: ok + "Content-Length: 5\r\n\r\nhelloEOF", want: `200 "hello"`},
	} {
		t.Run(strings.ReplaceAll(name, "/", ""), func(t *testing.T) {
			bothWays(t, func(t *testing.T, netHTTP bool) {
				want := c.want
				if netHTTP && c.differs != "" {
					want = c.differs
				}
				if want == "?" {
					t.Skip("net/http makes of it what it may")
				}
				text, ends := strings.CutSuffix(c.answer, "EOF")
				var b *byHand
				b = handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
					for {
						r, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						b.requests.Add(1)
						if wrong := len(r.TransferEncoding) > 0 || r.ContentLength != 0 || (r.Header.Get("Content-Length") == "0") != (r.Method == "POST"); wrong {
							t.Errorf("the target was asked %+v", r)
						}
						if _, err := io.WriteString(conn, text); err != nil || ends {
							return
						}
					}
				})
				w := b.way(t, netHTTP)
				for range 2 {
					got := told(w, b.ask(t.Context(), t, c.method, "/"))
					if want == "" {
						if !strings.HasSuffix(got, "102 , error") {
							t.Errorf("got %d bytes", len(got))
						}
					} else if got != want {
						t.Errorf("got %s, want %s", got, want)
					}
				}
				if got := b.requests.Load(); got != 2 {
					t.Errorf("the target had %d requests, want 2", got)
				}
				if again := b.conns.Load() == 1; again != c.again {
					t.Errorf("the connection served again: %t, want %t", again, c.again)
				}
			})
		})
	}
}

// A target that ends a connection while a request is on its way gets it once
// more, where net/http would send it so, and no other.
func TestDirectSendsAgain(t *testing.T) {
	reset := func(conn *net.TCPConn) { _ = conn.SetLinger(0) }
	for name, c := range map[string]struct {
		method, header string
		end            func(*net.TCPConn)
		idle           bool // the connection has served before
		again          bool
	}{
		"GET":                        {method: "GET", idle: true, again: true},
		"HEAD":                       {method: "HEAD", idle: true, again: true},
		"OPTIONS":                    {method: "OPTIONS", idle: true, again: true},
		"TRACE":                      {method: "TRACE", idle: true, again: true},
		"GET, reset":                 {method: "GET", end: reset, idle: true, again: true},
		"PUT":                        {method: "PUT", idle: true},
		"DELETE":                     {method: "DELETE", idle: true},
		"POST":                       {method: "POST", idle: true},
		"POST, reset":                {method: "POST", end: reset, idle: true},
		"POST with a key":            {method: "POST", header: "Idempotency-Key", idle: true, again: true},
		"POST with a key, X-":        {method: "POST", header: "X-Idempotency-Key", idle: true, again: true},
		"GET, a new connection":      {method: "GET"},
		"GET, reset, new connection": {method: "GET", end: reset},
		"GET, half an answer":        {method: "GET", end: func(conn *net.TCPConn) { _, _ = io.WriteString(conn, "HTTP/1.") }, idle: true},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, netHTTP bool) {
				var doomed atomic.Int32
				b := handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
					for i := 1; ; i++ {
						r, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						if r.URL.Path == "/doomed" && doomed.Add(1) == 1 {
							if c.end != nil {
								c.end(conn)
							}
							return
						}
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				})
				w := b.way(t, netHTTP)
				if c.idle {
					if got := told(w, b.ask(t.Context(), t, "GET", "/")); got != `200 ""` {
						t.Fatal(got)
					}
				}
				r := b.ask(t.Context(), t, c.method, "/doomed")
				if c.header != "" {
					r.Header.Set(c.header, "17")
				}
				want, times := "error", int32(1)
				if c.again {
					want, times = `200 ""`, 2
				}
				if got := told(w, r); got != want || doomed.Load() != times {
					t.Errorf("got %s at the %dth time, want %s at the %dth", got, doomed.Load(), want, times)
				}
			})
		})
	}
}

// When a target restarts all connections are stale, and no request is lost.
func TestDirectToATargetThatRestarts(t *testing.T) {
	var life atomic.Int32
	var met sync.WaitGroup
	b := answering(t, func(r *http.Request, _, nth int) string {
		if r.URL.Path == "/meet" { // so that each has a connection of its own
			met.Done()
			met.Wait()
		}
		if nth > 1 && life.Load() == 1 {
			return "" // as if it had ended before
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	})
	w := b.way(t, false)
	const many = 20
	all := func(path string) {
		var running sync.WaitGroup
		for range many {
			running.Go(func() {
				if got := told(w, b.ask(t.Context(), t, "GET", path)); got != `200 ""` {
					t.Errorf("%s: %s", path, got)
				}
			})
		}
		running.Wait()
	}
	met.Add(many)
	all("/meet")
	life.Store(1)
	all("/")
}

// unread waits until there is something to be read of an idle connection, be it
// its end.
func unread(t *testing.T, w transport) {
	t.Helper()
	d := w.(*direct)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle) != 1 {
		t.Fatalf("%d connections are idle, want 1", len(d.idle))
	}
	if err := d.idle[0].raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	}); err != nil {
		t.Fatal(err)
	}
}

// What comes on an idle connection was asked for by nobody, and must not be
// given to the next caller. Nor is a request lost on it: it is not sent there.
func TestDirectNeverReadsWhatNobodyAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		sends string
		ends  bool
	}{
		"a second answer":         {sends: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"},
		"the half of one":         {sends: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nev"},
		"a byte":                  {sends: "\n"},
		"408, as some say a time": {sends: "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", ends: true},
		"its end":                 {ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan struct{})
			var b *byHand
			b = handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					b.requests.Add(1)
					id := r.Header.Get("Id")
					_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
					if n == 1 {
						<-next
						_, _ = io.WriteString(conn, c.sends)
						if c.ends {
							return
						}
					}
				}
			})
			w := b.way(t, false)
			for i, id := range []string{"first", "second", "third"} {
				r := b.ask(t.Context(), t, "POST", "/") // which is not sent again
				r.Header.Set("Id", id)
				if got := told(w, r); got != `200 `+strconv.Quote(id) {
					t.Errorf("%s is told %s", id, got)
				}
				if i == 0 {
					close(next)
					unread(t, w)
				}
			}
			if conns, requests := b.conns.Load(), b.requests.Load(); conns != 2 || requests != 3 {
				t.Errorf("%d connections and %d requests, want 2 and 3", conns, requests)
			}
		})
	}
}

// answerOnce answers a request, and reads another, to which the connection is stale.
func answerOnce(conn *net.TCPConn, in *bufio.Reader) {
	if _, err := http.ReadRequest(in); err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	_, _ = http.ReadRequest(in)
}

// untilCut waits for the end of a connection that its other side has to cut.
func untilCut(t testing.TB, conn *net.TCPConn, in *bufio.Reader) {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, in); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("nobody cut the connection")
	}
}

// A context that ends, ends the exchange wherever it is, and its cause is the
// error. The connection is not used again.
func TestDirectCancel(t *testing.T) {
	over := errors.New("over")
	for name, c := range map[string]struct {
		answer   string // until it hangs
		size     int    // of the request's headers
		dials    bool   // no connection comes about
		stale    bool   // one was idle, and turns out to be closed
		ended    bool   // before it began
		status   int    // 0: no answer came
		deadline bool
	}{
		"before":             {ended: true},
		"while it connects":  {dials: true},
		"a deadline":         {deadline: true},
		"while it is sent":   {size: 32 << 20},
		"before the answer":  {},
		"in the status line": {answer: "HTTP/1.1 2"},
		"in the headers":     {answer: "HTTP/1.1 200 OK\r\nA: b\r\n"},
		"after early hints":  {answer: "HTTP/1.1 103 Early Hints\r\n\r\n"},
		"before the body":    {answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", status: 200},
		"in the body":        {answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", status: 200},
		"in a chunk":         {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello", status: 200},
		"while it connects, after a stale connection": {stale: true, dials: true},
		"before the answer, after a stale connection": {stale: true},
		"in the headers, after a stale connection":    {stale: true, answer: "HTTP/1.1 200 OK\r\nA: b\r\n"},
		"in the body, after a stale connection":       {stale: true, answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, netHTTP bool) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				want := over
				if c.deadline {
					var stop context.CancelFunc
					ctx, stop = context.WithTimeout(ctx, 10*time.Millisecond)
					defer stop()
					want = context.DeadlineExceeded
				}
				b := handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
					if c.stale && n == 1 {
						answerOnce(conn, in)
						return
					}
					if c.size == 0 {
						if _, err := http.ReadRequest(in); err != nil {
							return
						}
						_, _ = io.WriteString(conn, c.answer)
					} else {
						_, _ = in.ReadByte()
					}
					if c.status == 0 && !c.deadline {
						cancel(over)
					}
					untilCut(t, conn, in)
				})
				w := b.way(t, netHTTP)
				if c.stale {
					if got := told(w, b.ask(t.Context(), t, "GET", "/")); got != `200 ""` {
						t.Fatal(got)
					}
				}
				if c.dials {
					long, ok := w.(*http.Transport)
					if !ok {
						long = w.(*direct).long
					}
					long.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
						cancel(over)
						<-ctx.Done()
						return nil, ctx.Err()
					}
				}
				if c.ended {
					cancel(over)
				}
				r := b.ask(ctx, t, "GET", "/")
				r.Header.Set("A", strings.Repeat("a", c.size))
				res, err := w.RoundTrip(r)
				if c.status != 0 {
					if err != nil || res.StatusCode != c.status {
						t.Fatal(res, err)
					}
					cancel(over)
					_, err = io.ReadAll(res.Body)
					_ = res.Body.Close()
				}
				if !errors.Is(err, want) {
					t.Errorf("the error is %v, want %v", err, want)
				}
				eventually(t, "the connection is closed", func() bool { return b.open.Load() == 0 })
			})
		})
	}
}

// A context that ends after the answer was read does nothing to the connection,
// which is another request's by then.
func TestDirectCancelAfterwards(t *testing.T) {
	b := answering(t, func(r *http.Request, _, _ int) string {
		if r.URL.Path == "/none" {
			return "HTTP/1.1 204 No Content\r\n\r\n"
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	})
	w := b.way(t, false)
	for i := range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		path, want := "/", `200 "hello"`
		if i%2 == 0 {
			path, want = "/none", `204 ""`
		}
		if got := told(w, b.ask(ctx, t, "GET", path)); got != want {
			t.Fatal(got)
		}
		go cancel()
	}
	if got := b.conns.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

// eventually waits for a condition that others bring about.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// A body that is not read to its end costs the connection, and nothing more of
// it is read: it may have no end.
func TestDirectBodyClosedEarly(t *testing.T) {
	bothWays(t, func(t *testing.T, netHTTP bool) {
		b := handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(conn, "5\r\nhello\r\n")
			}
		})
		w := b.way(t, netHTTP)
		res, err := w.RoundTrip(b.ask(t.Context(), t, "GET", "/"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := res.Body.Close(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the connection is closed", func() bool { return b.open.Load() == 0 })
		runtime.KeepAlive(res) // or the garbage collector would close it
	})
}

// Hooks fire as those of net/http do, for retries stand on them.
func TestDirectTrace(t *testing.T) {
	bothWays(t, func(t *testing.T, netHTTP bool) {
		refused := errors.New("no more")
		b := answering(t, func(r *http.Request, _, _ int) string {
			return "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		})
		w := b.way(t, netHTTP)
		for _, reused := range []bool{false, true} {
			var got []httptrace.GotConnInfo
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				GotConn: func(i httptrace.GotConnInfo) { got = append(got, i) },
				Got1xxResponse: func(int, textproto.MIMEHeader) error {
					if reused {
						return refused
					}
					return nil
				},
			})
			_, err := w.RoundTrip(b.ask(ctx, t, "GET", "/"))
			if reused != errors.Is(err, refused) {
				t.Errorf("the error is %v", err)
			}
			if len(got) != 1 || got[0].Reused != reused || got[0].WasIdle != reused || got[0].Conn == nil {
				t.Errorf("reused %t: %+v", reused, got)
			}
		}
	})
}

// Idle connections are closed after a time, and at most so many are kept.
func TestDirectIdle(t *testing.T) {
	const many = idleConnsPerHost + 8
	var met sync.WaitGroup
	met.Add(many)
	b := answering(t, func(r *http.Request, _, _ int) string {
		met.Done()
		met.Wait()
		return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	})
	w := b.way(t, false).(*direct)
	w.idleTimeout = time.Hour
	var running sync.WaitGroup
	for range many {
		running.Go(func() {
			if got := told(w, b.ask(t.Context(), t, "GET", "/")); got != `200 "hello"` {
				t.Error(got)
			}
		})
	}
	running.Wait()
	eventually(t, "what is over the bound is closed", func() bool { return b.open.Load() == idleConnsPerHost })

	w.mu.Lock()
	for i, c := range w.idle {
		if i < 500 {
			c.since = time.Now().Add(-w.idleTimeout)
		}
	}
	w.mu.Unlock()
	w.tidy()
	eventually(t, "the old ones are closed", func() bool { return b.open.Load() == idleConnsPerHost-500 })

	w.mu.Lock()
	w.idleTimeout = 10 * time.Millisecond
	for _, c := range w.idle {
		c.since = time.Now().Add(time.Minute)
	}
	w.idle[0].since = time.Now()
	w.mu.Unlock()
	w.tidy()
	eventually(t, "the janitor closes one", func() bool { return b.open.Load() == idleConnsPerHost-501 })
	w.mu.Lock()
	for _, c := range w.idle {
		c.since = time.Now()
	}
	w.mu.Unlock()
	w.tidy()
	eventually(t, "the janitor closes all, and rests", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return b.open.Load() == 0 && len(w.idle) == 0 && w.janitor == nil
	})
}

// A target that is gone keeps no connection, also none that was in use when it
// went; requests that come late are yet sent.
func TestDirectOfATargetThatIsGone(t *testing.T) {
	goOn := make(chan struct{})
	b := answering(t, func(r *http.Request, _, _ int) string {
		if r.URL.Path == "/slow" {
			<-goOn
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	})
	before := runtime.NumGoroutine()
	w := b.way(t, false)
	if got := told(w, b.ask(t.Context(), t, "GET", "/")); got != `200 "hello"` {
		t.Fatal(got)
	}
	slow := make(chan string)
	go func() { slow <- told(w, b.ask(t.Context(), t, "GET", "/slow")) }()
	eventually(t, "it is asked", func() bool { return b.requests.Load() == 2 })
	if got := told(w, b.ask(t.Context(), t, "GET", "/")); got != `200 "hello"` {
		t.Fatal(got)
	}
	w.CloseIdleConnections()
	eventually(t, "the idle one is closed", func() bool { return b.open.Load() == 1 })
	close(goOn)
	if got := <-slow; got != `200 "hello"` {
		t.Error(got)
	}
	if got := told(w, b.ask(t.Context(), t, "GET", "/")); got != `200 "hello"` {
		t.Error(got)
	}
	eventually(t, "all are closed, and no goroutine is left", func() bool { return b.open.Load() == 0 && runtime.NumGoroutine() <= before })
}

// What goes the long way arrives as before: over a connection of net/http's.
func TestWhatGoesTheLongWay(t *testing.T) {
	b := answering(t, func(*http.Request, int, int) string { return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" })
	w := b.way(t, false).(*direct)
	for name, c := range map[string]struct {
		change func(*http.Request)
		long   bool
		want   string
	}{
		"nothing odd":              {func(*http.Request) {}, false, `200 ""`},
		"http.NoBody":              {func(r *http.Request) { r.Body = http.NoBody }, false, `200 ""`},
		"a body":                   {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("body")), 4 }, true, `200 ""`},
		"a body of unknown length": {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("body")), -1 }, true, `200 ""`},
		"an empty body":            {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("")), -1 }, true, `200 ""`},
		"a length without a body":  {func(r *http.Request) { r.ContentLength = 4 }, true, `error`},
		"an upgrade": {func(r *http.Request) {
			r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
		}, true, `200 ""`},
		"Expect":                        {func(r *http.Request) { r.Header.Set("Expect", "100-continue") }, true, `200 ""`},
		"TE":                            {func(r *http.Request) { r.Header.Set("Te", "trailers") }, true, `200 ""`},
		"trailers":                      {func(r *http.Request) { r.Trailer = http.Header{"A": {"b"}} }, true, `200 ""`},
		"Connection":                    {func(r *http.Request) { r.Header.Set("Connection", "close") }, true, `200 ""`},
		"to be closed":                  {func(r *http.Request) { r.Close = true }, true, `200 ""`},
		"CONNECT":                       {func(r *http.Request) { r.Method = "CONNECT" }, true, `200 ""`},
		"a method that is none":         {func(r *http.Request) { r.Method = "GET /evil HTTP/1.1\r\nA:" }, true, `error`},
		"a line break in a value":       {func(r *http.Request) { r.Header["A"] = []string{"b\r\nEvil: c"} }, true, `error`},
		"NUL in a value":                {func(r *http.Request) { r.Header["A"] = []string{"b\x00"} }, true, `error`},
		"a line break in a name":        {func(r *http.Request) { r.Header["A\nEvil"] = []string{"b"} }, true, `error`},
		"a space in a name":             {func(r *http.Request) { r.Header["A b"] = []string{"b"} }, true, `error`},
		"a line break in the query":     {func(r *http.Request) { r.URL.RawQuery = "a\r\nEvil: c" }, true, `error`},
		"a space in the query":          {func(r *http.Request) { r.URL.RawQuery = "a b" }, true, `error`},   // of the target's: net/http sends it
		"a line break in the host":      {func(r *http.Request) { r.Host = "a\r\nEvil: c" }, true, `200 ""`}, // sent as none
		"a host with a zone":            {func(r *http.Request) { r.Host = "[fe80::1%en0]" }, true, `200 ""`},
		"a host of other letters":       {func(r *http.Request) { r.Host = "bücher.example" }, true, `200 ""`},
		"no word of the User-Agent":     {func(r *http.Request) { delete(r.Header, "User-Agent") }, true, `200 ""`},
		"transfer encodings of its own": {func(r *http.Request) { r.TransferEncoding = []string{"identity"} }, true, `200 ""`},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.ask(t.Context(), t, "GET", "/")
			c.change(r)
			if _, ok := appendHead(nil, r, &added{}); ok == c.long {
				t.Errorf("it goes the long way: %t, want %t", !ok, c.long)
			}
			if name == "a space in the query" || c.want == "" {
				return
			}
			if got := told(w, r); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// Each byte counts wherever it stands.
func TestValidValue(t *testing.T) {
	for place := range 20 {
		for c := range 256 {
			text := []byte("twenty good letters.")
			text[place] = byte(c)
			if got, want := validValue(string(text)), httpguts.ValidHeaderFieldValue(string(text)); got != want {
				t.Errorf("%q: %t", text, got)
			}
		}
	}
}

// What goes the short way is what net/http would write, byte for byte, and
// nothing that it refuses.
func FuzzHead(f *testing.F) {
	f.Add("GET", "example.com", "/a/b", "c=d", "X-A", "b", "c", "agent", "X-B", "d")
	f.Add("POST", "", "/%2f", "", "User-Agent", "a", "b", "", "A", "b ")
	f.Add("PUT", "[::1]:80", "//a", "?", "Content-Length", "5", " ", " ", "Content-Length", "6")
	f.Add("OPTIONS", "a", "*", "", "A", " b ", "\t", " c", "A", "mine")
	f.Add("GET", "a", "/", "", "Content-Length", "\x01", "", "", "Host", "b")
	f.Add("get", "bücher", "a", "%", "host", "evil\r\n", "\x7f", "\t", "User-Agent", "mine")
	f.Add("DELETE", "a%b", "/\x00", "\x00", "Transfer-Encoding", "chunked", "ü", "a\nb", "Te", "trailers")
	f.Add("GET", "a", "/", "", "X-Jwt-Sub", "forged", "forged", "", "Z", "\n")
	f.Add("GET", "a", "/", "", "Connection", "close", "", "", "Connection", "close")
	f.Fuzz(func(t *testing.T, method, host, path, query, name, one, two, agent, own, value string) {
		r := &http.Request{Method: method, Host: host, URL: &url.URL{Scheme: "http", Host: "target:80", Path: path, RawPath: path, RawQuery: query}, Header: http.Header{"User-Agent": {agent}}}
		r.Header[name] = []string{one, two}
		more := &added{{{Name: own, Value: value}}, {{Name: "X-Jwt-Sub", Value: "root"}}}
		if own == "X-Jwt-Sub" {
			more[0] = nil // no name twice
		}
		head, ok := appendHead([]byte("before"), r, more)
		if !ok {
			return
		}
		more.into(r.Header)
		var want bytes.Buffer
		if err := r.Write(&want); err != nil {
			t.Fatalf("net/http refuses %q: %v", head, err)
		}
		if got := head[len("before"):]; !bytes.Equal(got, want.Bytes()) {
			t.Errorf("got\n%q, want\n%q", got, want.Bytes())
		}
		// And net/http's transport does not refuse it.
		sent := make(chan struct{}, 1)
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			sent <- struct{}{}
			return nil, io.EOF
		}}
		if _, err := transport.RoundTrip(r); len(sent) == 0 {
			t.Errorf("net/http refuses %q: %v", head, err)
		}
	})
}

// However targets answer, break off, and callers go: nobody ever gets another's
// answer, and nothing is left of it all.
func TestDirectUnderStress(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	b := handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			id := r.Header.Get("Id")
			evil := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
			var text string
			switch rand.N(12) {
			case 0:
				return
			case 1:
				_ = conn.SetLinger(0)
				return
			case 2:
				text = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(id), id, evil)
			case 3:
				text = "HTTP/1.1 204 No Content\r\nId: " + id + "\r\n\r\n" + evil
			case 4:
				text = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id)+5, id)
				_, _ = io.WriteString(conn, text)
				return
			case 5:
				text = fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", id)
				_, _ = io.WriteString(conn, text)
				return
			case 6:
				text = fmt.Sprintf("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(id), id)
			case 7:
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(id))
				runtime.Gosched()
				text = id
			default:
				text = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
			}
			for len(text) > 0 {
				k := len(text)
				if rand.N(4) == 0 {
					k = 1 + rand.N(len(text))
				}
				if _, err := io.WriteString(conn, text[:k]); err != nil {
					return
				}
				text = text[k:]
			}
		}
	})
	w := b.way(t, false)
	var whole, broken, gone atomic.Int32
	var running sync.WaitGroup
	for worker := range 16 {
		running.Go(func() {
			for i := range 400 {
				id := fmt.Sprintf("%d-%d", worker, i)
				ctx, cancel := context.WithCancel(t.Context())
				switch rand.N(6) {
				case 0:
					go cancel()
				case 1:
					defer time.AfterFunc(time.Duration(rand.N(int64(time.Millisecond))), cancel).Stop()
				}
				r := b.ask(ctx, t, "GET", "/")
				r.Header.Set("Id", id)
				res, err := w.RoundTrip(r)
				if err == nil {
					var body []byte
					if rand.N(10) == 0 {
						cancel() // and closed before it is read
					} else {
						body, err = io.ReadAll(res.Body)
					}
					_ = res.Body.Close()
					if got := string(body) + res.Header.Get("Id"); len(got) > 0 && got != id && (err == nil || !strings.HasPrefix(id, got)) {
						t.Errorf("%s got %q", id, got)
					} else if err == nil && got == id {
						whole.Add(1)
					}
				}
				if err != nil {
					broken.Add(1)
				}
				if ctx.Err() != nil {
					gone.Add(1)
				}
				cancel()
			}
		})
	}
	running.Wait()
	t.Logf("%d answers were read whole, %d broke off, %d callers went, %d connections", whole.Load(), broken.Load(), gone.Load(), b.conns.Load())
	if whole.Load() == 0 || broken.Load() == 0 || gone.Load() == 0 {
		t.Error("not all of it came to pass")
	}
	w.CloseIdleConnections()
	eventually(t, "all connections are closed", func() bool { return b.open.Load() == 0 })
	_ = b.Close()
	b.running.Wait()
	eventually(t, "no goroutine and no file is left", func() bool { return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files })
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system does not tell of open files")
	}
	return len(entries)
}
