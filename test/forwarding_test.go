package test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// startPublic gives a gateway in front of a backend, with no token asked for.
func startPublic(t *testing.T, h http.HandlerFunc) *gateway {
	t.Helper()
	b := httptest.NewServer(h)
	t.Cleanup(b.Close)
	return start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    timeout: 10m # none of these stories may end by it
    upstream: BACKEND
`, "BACKEND", b.URL))
}

func TestRoundRobin(t *testing.T) {
	t.Parallel()
	a, b, c := newBackend(t), newBackend(t), newBackend(t)
	g := start(t, fill(`
upstreams:
  heroes:
    targets: [A, B, C]
routes:
  - match: /heroes/{id}
    public: true
    upstream: heroes
`, "[A, B, C]", "["+a.URL+", "+b.URL+", "+c.URL+"]"))
	for range 12 {
		g.do(t, "GET /heroes/1").is(t, http.StatusOK)
	}
	if a.count() != 4 || b.count() != 4 || c.count() != 4 {
		t.Errorf("12 requests went %d, %d, %d", a.count(), b.count(), c.count())
	}
}

func TestBackendsAnswerIsPassedOn(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	b.Answer = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 418 I'm a teapot\r\nX-One: 1\r\nX-One: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: X-Hop\r\nX-Hop: hop\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nshort\r\n0\r\nX-Sum: 9\r\n\r\n"
	a := g.do(t, "GET /x")
	a.is(t, 418)
	if got := a.header["Set-Cookie"]; len(got) != 2 || a.body != "short" || len(a.header["X-One"]) != 2 || a.header.Get("X-Hop") != "" {
		t.Errorf("the answer became %v %q", a.header, a.body)
	}
	b.Answer = "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n"
	if a := g.do(t, "GET /x"); a.status != http.StatusFound || a.header.Get("Location") != "https://elsewhere.example/" {
		t.Errorf("the backend's redirect became %d %v", a.status, a.header)
	}
	b.Answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nGZIP"
	if a := g.do(t, "GET /x"); a.body != "GZIP" {
		t.Errorf("the body became %q", a.body)
	}
	b.last(t).lacks(t, "accept-encoding") // the caller did not ask for any
	b.last(t).lacks(t, "user-agent")
	b.Answer = "nonsense\r\n\r\n"
	if a := g.do(t, "GET /x"); a.status != http.StatusBadGateway {
		t.Errorf("nonsense became %d", a.status)
	}
}

// RFC 9110 §15.2: "a server MUST NOT send a 1xx response to an HTTP/1.0 client."
func TestInformationalResponsesAreOfHTTP11(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	b.Answer = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for version, first := range map[string]string{"1.0": "HTTP/1.0 200 OK\r\n", "1.1": "HTTP/1.1 103 Early Hints\r\n"} {
		conn, err := net.Dial("tcp", g.listen)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET /x HTTP/"+version+"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		answer, err := io.ReadAll(conn)
		_ = conn.Close()
		if err != nil || !strings.HasPrefix(string(answer), first) || !strings.HasSuffix(string(answer), "\r\n\r\nok") {
			t.Errorf("HTTP/%s: %q, %v", version, answer, err)
		}
	}
}

func TestDeadBackendIs502AndSlowOne504(t *testing.T) {
	t.Parallel()
	hangs := hanging(t)
	g := start(t, fill(`
routes:
  - match: /dead
    public: true
    upstream: http://NOBODY
  - match: /slow
    public: true
    timeout: 300ms
    upstream: HANGS
`, "NOBODY", freeAddress(t), "HANGS", hangs.URL))
	g.do(t, "GET /dead").refused(t, http.StatusBadGateway, "upstream_refused")
	g.do(t, "GET /slow").refused(t, http.StatusGatewayTimeout, "upstream_timeout")
}

func TestTimeoutEndsWithTheHeaders(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		hold(r, more)
		_, _ = io.WriteString(w, "second\n")
	}))
	t.Cleanup(b.Close)
	g := start(t, fill(`
routes:
  - match: /stream
    public: true
    timeout: 200ms
    upstream: BACKEND
  - match: /slow
    public: true
    timeout: 200ms
    upstream: HANGS
`, "BACKEND", b.URL, "HANGS", hanging(t).URL))
	conn, body := g.stream(t, "GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	defer func() { _ = conn.Close() }()
	readLine(t, body, "first")
	// A request that starts now and times out shows that the time has passed.
	g.do(t, "GET /slow").refused(t, http.StatusGatewayTimeout, "upstream_timeout")
	close(more)
	readLine(t, body, "second")
}

// stream sends a request's head and returns the answer's body as it comes.
func (g *gateway) stream(t *testing.T, head string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := dial(t, g.listen)
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d", firstLine(head), resp.StatusCode)
	}
	return conn, bufio.NewReader(resp.Body)
}

func readLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		t.Fatalf("got %q, %v, want %q", line, err, want)
	}
}

func TestUploadIsNotBuffered(t *testing.T) {
	t.Parallel()
	lines := make(chan string)
	g := startPublic(t, func(_ http.ResponseWriter, r *http.Request) {
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			lines <- s.Text()
		}
	})
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, line := range []string{"one", "two", "three"} {
		// The next is sent only when the backend has this one.
		_, _ = io.WriteString(conn, chunk(line+"\n"))
		if got := receive(t, "a line at the backend", lines); got != line {
			t.Fatalf("the backend got %q", got)
		}
	}
	_, _ = io.WriteString(conn, "0\r\n\r\n")
	if a := readAnswer(t, bufio.NewReader(conn), "POST"); a.status != http.StatusOK {
		t.Errorf("got %d", a.status)
	}
}

func TestDownloadIsNotBuffered(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	g := startPublic(t, func(w http.ResponseWriter, r *http.Request) {
		if length := r.URL.Query().Get("length"); length != "" {
			w.Header().Set("Content-Length", length)
		}
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		hold(r, more)
		_, _ = io.WriteString(w, "second\n")
	})
	var bodies []*bufio.Reader
	for _, query := range []string{"", "?length=13", "?length=1000000"} { // chunked, or of a length known before
		conn, body := g.stream(t, "GET /x"+query+" HTTP/1.1\r\nHost: x\r\n\r\n")
		defer func() { _ = conn.Close() }()
		readLine(t, body, "first")
		bodies = append(bodies, body)
	}
	close(more)
	for _, body := range bodies {
		readLine(t, body, "second")
	}
}

func TestBothDirectionsAtOnce(t *testing.T) {
	t.Parallel()
	g := startPublic(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			_, _ = io.WriteString(w, "echo "+s.Text()+"\n")
			_ = rc.Flush()
		}
	})
	conn, body := g.stream(t, "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	defer func() { _ = conn.Close() }()
	for _, line := range []string{"one", "two", "three"} {
		_, _ = io.WriteString(conn, chunk(line+"\n"))
		readLine(t, body, "echo "+line)
	}
	_, _ = io.WriteString(conn, "0\r\n\r\n")
	if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
		t.Errorf("the end is %q, %v", rest, err)
	}
}

func TestCallerWhoLeavesIsNoticedByTheBackend(t *testing.T) {
	t.Parallel()
	came, left := make(chan struct{}, 1), make(chan struct{}, 1)
	g := startPublic(t, func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	conn := dial(t, g.listen)
	_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
	receive(t, "the request at the backend", came)
	_ = conn.Close()
	receive(t, "the end of the request at the backend", left)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func chunk(s string) string {
	const digits = "0123456789abcdef"
	return string(digits[len(s)/16]) + string(digits[len(s)%16]) + "\r\n" + s + "\r\n"
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	opened := make(chan net.Conn, 100)
	b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	b.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened <- c
		}
	}
	b.Start()
	t.Cleanup(b.Close)
	g := start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for range 20 {
		_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
		if a := readAnswer(t, r, "GET"); a.status != http.StatusOK {
			t.Fatalf("got %d", a.status)
		}
	}
	if n := len(opened); n != 1 {
		t.Errorf("20 requests in turn took %d connections to the backend", n)
	}
}

// TestBackendThatClosesIdleConnections: a request that meets a connection just
// closed by the backend is no error of the caller's.
func TestBackendThatClosesIdleConnections(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // one answer that promises keep-alive, then close
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				_ = conn.Close()
			}()
		}
	}()
	g := start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "BACKEND", "http://"+l.Addr().String()))
	for range 20 {
		g.do(t, "GET /x").is(t, http.StatusOK)
	}
}

func TestIdleBodyEnds(t *testing.T) {
	t.Parallel()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		hold(r, nil)
	}))
	t.Cleanup(b.Close)
	g := start(t, fill(`
routes:
  - match: /stream
    public: true
    idle_timeout: 300ms
    upstream: BACKEND
`, "BACKEND", b.URL))
	began := time.Now()
	conn, body := g.stream(t, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
	defer func() { _ = conn.Close() }()
	readLine(t, body, "first")
	if _, err := body.ReadString('\n'); err == nil || time.Since(began) >= patience {
		t.Errorf("a body that stands still goes on: %v", err)
	}
}
