package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestEventsAreFlushedAtOnce(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for n := range 3 {
			hold(r, more)
			_, _ = fmt.Fprintf(w, "data: %d\n\n", n)
			_ = http.NewResponseController(w).Flush()
		}
	}, func(t *testing.T, c *caller) {
		resp := c.send(t, "GET", "/events", nil) // the headers come before the first event
		lines := bufio.NewReader(resp.Body)
		for n := range 3 {
			more <- struct{}{}
			readLine(t, lines, fmt.Sprintf("data: %d", n))
			readLine(t, lines, "")
		}
		if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
			t.Errorf("the end is %q %v", rest, err)
		}
	})
}

func TestBothWaysAtOnceEverywhere(t *testing.T) {
	t.Parallel()
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			_, _ = io.WriteString(w, "echo "+s.Text()+"\n")
			_ = rc.Flush()
		}
	}, func(t *testing.T, c *caller) {
		r, w := io.Pipe()
		lines := bufio.NewReader(c.send(t, "POST", "/echo", r).Body)
		for _, line := range []string{"one", "two", "three"} {
			_, _ = io.WriteString(w, line+"\n")
			readLine(t, lines, "echo "+line)
		}
		_ = w.Close()
		if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
			t.Errorf("the end is %q %v", rest, err)
		}
	})
}

// counting counts what is read of a body.
type counting struct {
	io.Reader
	n atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	}, func(t *testing.T, c *caller) {
		for path, want := range map[string]struct {
			status int
			sent   int64
		}{"/no": {http.StatusExpectationFailed, 0}, "/yes": {http.StatusOK, 1000}} {
			var continued atomic.Bool
			ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got100Continue: func() { continued.Store(true) }})
			body := &counting{Reader: io.LimitReader(zeros{}, 1000)}
			resp := c.sendAs(t, ctx, "POST", path, body, "Expect: 100-continue")
			// From HTTP/2 net/http takes the expectation away; the gateway then asks for the body itself.
			kept := want.sent == 0 && resp.ProtoMajor == 1 || want.sent > 0
			if n := body.n.Load(); resp.StatusCode != want.status || kept && (n != want.sent || continued.Load() != (want.sent > 0)) {
				t.Errorf("%s: %d, %d bytes were sent, 100: %v", path, resp.StatusCode, n, continued.Load())
			}
		}
	})
}

func TestEarlyResponse(t *testing.T) {
	t.Parallel()
	everywhere(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // or net/http first waits for the body
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too much")
	}, func(t *testing.T, c *caller) {
		r, w := io.Pipe() // its end never comes
		defer func() { _ = w.Close() }()
		resp := c.send(t, "POST", "/x", r)
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "too much" || err != nil {
			t.Errorf("%d %q %v", resp.StatusCode, body, err)
		}
		_ = c.get(t, "/protocol") // the client is served on
	})
}

// TestEarlyResponseIsNotResetAway: whoever sends on must have the time to read
// what was answered meanwhile (RFC 9112 §9.6).
func TestEarlyResponseIsNotResetAway(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	shown := ca.issue(t, "127.0.0.1")
	enough, why := make(chan struct{}), strings.Repeat("too much", 400_000) // long: the backend is done before the client
	urls := backends(t, func(w http.ResponseWriter, r *http.Request) {
		hold(r, enough)
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, why)
	}, shown)
	yaml := fill(`
server:
  ADDRESSES
TLS
routes:
  - match: /one
    public: true
    upstream: ONE
  - match: /prior
    public: true
    upstream: PRIOR
`, "ONE", urls["one"], "PRIOR", urls["prior"])
	clear := start(t, fill(yaml, "TLS", ""))
	secure := start(t, fill(yaml, "TLS", "  tls:\n    cert_file: api.pem\n    key_file: api.key"), shown.files("api")...)
	for _, path := range []string{"/one", "/prior"} {
		for name, conn := range map[string]net.Conn{"clear": dial(t, clear.listen), "TLS": tls.Client(dial(t, secure.listen), trusting(ca))} {
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n80000000\r\n")
			sent := make(chan struct{})
			go func() {
				_, _ = io.CopyN(conn, zeros{}, 1<<20)
				close(sent)
				_, _ = io.Copy(conn, zeros{})
			}()
			receive(t, "a part of the body", sent)
			enough <- struct{}{}
			r := bufio.NewReader(conn)
			if a := readAnswer(t, r, "POST"); a.status != http.StatusRequestEntityTooLarge || a.body != why {
				t.Errorf("%s over %s: %d %.100q", path, name, a.status, a.body)
			}
			if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
				t.Errorf("%s over %s: after the response %q %v", path, name, rest, err)
			}
		}
	}
}

// TestUploadsAnsweredEarlyAtFullSpeed: many streams of one connection send on as
// fast as they can while their answers come. None may be cut short, and none may
// end the connection for the others (golang/go#56940).
func TestUploadsAnsweredEarlyAtFullSpeed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("too much", 30_000)
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		answer := ""
		if r.URL.Path == "/long" {
			answer = long
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		rc := http.NewResponseController(w)
		if r.ProtoMajor == 1 {
			_ = rc.EnableFullDuplex()
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, answer)
		_ = rc.Flush()
		if r.ProtoMajor == 1 {
			_, _ = io.Copy(io.Discard, r.Body) // or what is on its way would reset the answer away
		}
	}, func(t *testing.T, c *caller) {
		if strings.HasPrefix(c.URL, "http") && !strings.Contains(t.Name(), "/h2") {
			t.Skip("one connection, one request")
		}
		var connections sync.Map
		var callers sync.WaitGroup
		for range 16 {
			callers.Go(func() {
				for n := range 12 {
					path, want := "/short", ""
					if n%3 == 0 {
						path, want = "/long", long
					}
					ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(on httptrace.GotConnInfo) { connections.Store(on.Conn.LocalAddr().String(), true) }})
					req, _ := http.NewRequestWithContext(ctx, "POST", c.URL+path, io.LimitReader(zeros{}, 1<<20))
					resp, err := c.Do(req)
					if err != nil {
						t.Errorf("%s: %v", path, err)
						return
					}
					body, err := io.ReadAll(resp.Body)
					if resp.StatusCode != http.StatusRequestEntityTooLarge || string(body) != want || err != nil {
						t.Errorf("%s: %d, %d bytes, %v", path, resp.StatusCode, len(body), err)
					}
					_ = resp.Body.Close()
				}
			})
		}
		callers.Wait()
		n := 0
		connections.Range(func(_, _ any) bool { n++; return true })
		if n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestTrailersBothWays(t *testing.T) {
	t.Parallel()
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-Jwt-Sub")
		_, _ = io.Copy(w, r.Body)
		_, _ = fmt.Fprintf(w, " %v", r.Trailer)
		w.Header().Set("X-Sum", "7")
		w.Header().Set("X-Jwt-Sub", "forged")
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	}, func(t *testing.T, c *caller) {
		req, _ := http.NewRequest("POST", c.URL+"/x", struct{ io.Reader }{strings.NewReader("body")})
		req.Trailer = http.Header{"X-Check": {"9"}, "X-Jwt-Sub": {"forged"}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "body map[X-Check:[9]]" {
			t.Errorf("the backend got %q, %v", body, err)
		}
		if got := resp.Trailer; len(got["X-Jwt-Sub"]) > 0 || got.Get("X-Sum") != "7" || got.Get("X-Late") != "unannounced" {
			t.Errorf("the client got %v", got)
		}
	})
}

func TestEarlyHints(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.Header().Set("X-Jwt-Sub", "forged")
		w.WriteHeader(http.StatusEarlyHints)
		hold(r, more)
		w.WriteHeader(http.StatusTeapot)
	}, func(t *testing.T, c *caller) {
		hints := 0
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			hints++
			if status != http.StatusEarlyHints || h.Get("Link") != "</style.css>" || h.Get("X-Jwt-Sub") != "" {
				t.Errorf("got %d %v", status, h)
			}
			more <- struct{}{} // the final answer is still to be written
			return nil
		}})
		if resp := c.sendAs(t, ctx, "GET", "/x", nil); resp.StatusCode != http.StatusTeapot || hints != 1 {
			t.Errorf("%d after %d hints", resp.StatusCode, hints)
		}
	})
}

func TestHeadAndRanges(t *testing.T) {
	t.Parallel()
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader("0123456789"))
	}, func(t *testing.T, c *caller) {
		for _, want := range []struct {
			method, header, value string
			status                int
			length                int64
			contentRange, body    string
		}{
			{"HEAD", "Accept", "*/*", 200, 10, "", ""},
			{"HEAD", "Range", "bytes=2-4", 206, 3, "bytes 2-4/10", ""},
			{"GET", "Range", "bytes=2-4", 206, 3, "bytes 2-4/10", "234"},
			{"GET", "Range", "bytes=-2", 206, 2, "bytes 8-9/10", "89"},
			{"GET", "Range", "bytes=20-", 416, -2, "bytes */10", "-"},
			{"GET", "If-Modified-Since", "Sun, 09 Sep 2001 01:46:40 GMT", 304, -2, "", ""},
		} {
			resp := c.send(t, want.method, "/x", nil, want.header+": "+want.value)
			body, err := io.ReadAll(resp.Body)
			if resp.StatusCode != want.status || want.length != -2 && resp.ContentLength != want.length || resp.Header.Get("Content-Range") != want.contentRange || err != nil || want.body != "-" && string(body) != want.body {
				t.Errorf("%s with %s: %s: %d %d %v %q %v", want.method, want.header, want.value, resp.StatusCode, resp.ContentLength, resp.Header, body, err)
			}
		}
		resp := c.send(t, "GET", "/x", nil, "Range: bytes=0-1,8-9")
		if body, err := io.ReadAll(resp.Body); !strings.HasPrefix(resp.Header.Get("Content-Type"), "multipart/byteranges") || strings.Count(string(body), "Content-Range") != 2 || err != nil {
			t.Errorf("two ranges: %v %q %v", resp.Header, body, err)
		}
	})
}

func TestBodiesKeepTheirFraming(t *testing.T) {
	t.Parallel()
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		length := r.ContentLength
		body, err := io.ReadAll(r.Body)
		answer := fmt.Sprintf("%s %d %q %v", r.Method, length, body, err)
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		} else {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, answer)
	}, func(t *testing.T, c *caller) {
		for _, want := range []struct {
			method, path string
			body         io.Reader
			answer       string
		}{
			{"POST", "/known", strings.NewReader("hello"), `POST 5 "hello" <nil>`},
			{"PUT", "/unknown", struct{ io.Reader }{strings.NewReader("hello")}, `PUT -1 "hello" <nil>`},
			{"POST", "/known", http.NoBody, `POST 0 "" <nil>`},
			{"DELETE", "/known", strings.NewReader("why"), `DELETE 3 "why" <nil>`},
			{"GET", "/unknown", nil, `GET 0 "" <nil>`},
		} {
			resp := c.send(t, want.method, want.path, want.body)
			length := int64(len(want.answer))
			if want.path == "/unknown" {
				length = -1
			}
			if body, err := io.ReadAll(resp.Body); string(body) != want.answer || err != nil || resp.ContentLength != length {
				t.Errorf("%s %s: %d %s %v", want.method, want.path, resp.ContentLength, body, err)
			}
		}
	})
}

func TestBothSidesNoticeTheOthersEnd(t *testing.T) {
	t.Parallel()
	came, left := make(chan struct{}, 1), make(chan struct{}, 1)
	everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/breaks" {
			panic(http.ErrAbortHandler)
		}
		came <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	}, func(t *testing.T, c *caller) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		readLine(t, bufio.NewReader(c.sendAs(t, ctx, "GET", "/leaves", nil).Body), "first")
		receive(t, "the request at the backend", came)
		cancel()
		receive(t, "the end of the request at the backend", left)
		if _, err := io.ReadAll(c.send(t, "GET", "/breaks", nil).Body); err == nil {
			t.Error("a response that breaks off seems whole")
		}
	})
}
