package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// everywhere tells a story between each kind of client and each kind of
// backend: HTTP/1.1 and HTTP/2, in clear text and over TLS.
func everywhere(t *testing.T, h http.HandlerFunc, story func(t *testing.T, c *caller)) {
	t.Helper()
	ca := newAuthority(t)
	server := ca.issue(t, "127.0.0.1")
	urls := backends(t, h, server)
	yaml := fill(`
server:
  ADDRESSES
TLS
upstreams:
  one:
    targets: [CLEAR]
  two:
    targets: [SECURE]
    tls:
      ca_file: ca.pem
  prior:
    targets: [PRIOR]
routes:
  - match: /one/{rest...}
    public: true
    strip_prefix: /one
    upstream: one
  - match: /two/{rest...}
    public: true
    strip_prefix: /two
    upstream: two
  - match: /prior/{rest...}
    public: true
    strip_prefix: /prior
    upstream: prior
`, "CLEAR", urls["one"], "SECURE", urls["two"], "PRIOR", urls["prior"])
	files := append(server.files("api"), file{"ca.pem", ca.cert})
	clear := start(t, fill(yaml, "TLS", ""), files...)
	secure := start(t, fill(yaml, "TLS", "  tls:\n    cert_file: api.pem\n    key_file: api.key"), files...)
	for name, c := range map[string]*caller{
		"http/1.1": clear.caller(t, "http/1.1", nil), "h2c": clear.caller(t, "h2", nil),
		"https/1.1": secure.caller(t, "http/1.1", trusting(ca)), "h2": secure.caller(t, "h2", trusting(ca)),
	} {
		for to, protocol := range map[string]string{"one": "HTTP/1.1", "two": "HTTP/2.0", "prior": "HTTP/2.0"} {
			t.Run(name+" to "+to, func(t *testing.T) {
				c := &caller{c.Client, c.URL + "/" + to}
				if got := c.get(t, "/protocol"); got != protocol {
					t.Fatalf("the backend is spoken to in %s", got)
				}
				story(t, c)
			})
		}
	}
}

// backends serve h over HTTP/1.1, over TLS with HTTP/2, and in HTTP/2 without.
func backends(t *testing.T, h http.HandlerFunc, shown *pair) map[string]string {
	t.Helper()
	all := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/protocol" {
			_, _ = io.WriteString(w, r.Proto)
			return
		}
		h(w, r)
	})
	one, two, prior := httptest.NewServer(all), httptest.NewUnstartedServer(all), httptest.NewUnstartedServer(all)
	two.EnableHTTP2 = true
	two.TLS = &tls.Config{Certificates: []tls.Certificate{shown.shown(t)}}
	two.StartTLS()
	prior.Config.Protocols = &http.Protocols{}
	prior.Config.Protocols.SetUnencryptedHTTP2(true)
	prior.Start()
	for _, s := range []*httptest.Server{one, two, prior} {
		t.Cleanup(s.Close)
		t.Cleanup(s.CloseClientConnections)
	}
	return map[string]string{"one": one.URL, "two": two.URL, "prior": strings.Replace(prior.URL, "http", "h2c", 1)}
}

// get returns the body of a 200.
func (c *caller) get(t *testing.T, path string) string {
	t.Helper()
	resp := c.send(t, http.MethodGet, path, nil)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %v %.1000s", path, resp.StatusCode, err, body)
	}
	return string(body)
}

// send sends a request with those header lines and returns the answer as it comes.
func (c *caller) send(t *testing.T, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	return c.sendAs(t, context.Background(), method, path, body, headers...)
}

func (c *caller) sendAs(t *testing.T, ctx context.Context, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

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
