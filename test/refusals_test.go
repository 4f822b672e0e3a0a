package test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// TestEveryRefusalHasItsForm walks the table of refusals; the rooms' own
// stories say when each happens.
func TestEveryRefusalHasItsForm(t *testing.T) {
	t.Parallel()
	p, dead, b := newIDP(t), newIDP(t), newBackend(t)
	dead.Close()
	hangs := hanging(t)
	r := startRedis(t)
	g := start(t, fill(`
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
  dead:
    issuer: DEAD
    audiences: [https://heroes.example]
revocation:
  check: [jti]
limits:
  one:
    key: [route]
    rate: 1/1h
defaults:
  issuers: [main]
routes:
  - match: GET /heroes/{id}
    privileges: [ADMIN]
    upstream: BACKEND
  - match: GET /ok/{id}
    privileges: []
    upstream: BACKEND
  - match: GET /limited
    public: true
    limits: [one]
    upstream: BACKEND
  - match: GET /dead
    issuers: [dead]
    privileges: []
    upstream: BACKEND
  - match: GET /refused
    public: true
    upstream: http://NOBODY
  - match: GET /slow
    public: true
    timeout: 300ms
    upstream: HANGS
`, "IDP", p.URL, "DEAD", dead.URL, "REDIS", r.URL, "BACKEND", b.URL, "NOBODY", freeAddress(t), "HANGS", hangs.URL))
	g.do(t, "GET /limited").is(t, http.StatusOK)
	revoked := p.token(t, claims{"jti": "gone"})
	r.do(t, "SET", "revoked:jti:main:gone", "1")

	for _, c := range []struct {
		status  int
		reason  string
		code    string // of the challenge; "-": no challenge, "": one without an error
		retry   bool
		request []string
	}{
		{400, "bad_path", "-", false, []string{"/x/../y"}},
		{400, "bad_request", "invalid_request", false, []string{"/heroes/1", "Authorization: Bearer ,"}},
		{404, "no_route", "-", false, []string{"/nowhere"}},
		{401, "missing_token", "", false, []string{"/heroes/1"}},
		{401, "invalid_token", "invalid_token", false, []string{"/heroes/1", bearer(p.token(t, claims{"aud": "x"}))}},
		{401, "expired_token", "invalid_token", false, []string{"/heroes/1", bearer(p.token(t, claims{"exp": 1}))}},
		{401, "revoked_token", "invalid_token", false, []string{"/heroes/1", bearer(revoked)}},
		{403, "insufficient_privileges", "insufficient_scope", false, []string{"/heroes/1", bearer(p.token(t))}},
		{429, "rate_limited", "-", true, []string{"/limited"}},
		{431, "header_too_large", "-", false, []string{"/ok/1", bearer(p.token(t, claims{"big": strings.Repeat("x", 9000)}))}},
		{503, "issuer_unavailable", "-", true, []string{"/dead", bearer(dead.token(t))}},
		{502, "upstream_refused", "-", false, []string{"/refused"}},
		{504, "upstream_timeout", "-", false, []string{"/slow"}},
	} {
		a := g.do(t, "GET "+c.request[0], c.request[1:]...)
		id := a.refused(t, c.status, c.reason).RequestID
		if c.code != "-" {
			a.challenges(t, c.code)
		} else if got := a.header.Get("WWW-Authenticate"); got != "" {
			t.Errorf("%s: a challenge: %s", c.reason, got)
		}
		if _, err := strconv.Atoi(a.header.Get("Retry-After")); c.retry != (err == nil) {
			t.Errorf("%s: Retry-After is %q", c.reason, a.header.Get("Retry-After"))
		}
		if head := g.do(t, "HEAD "+c.request[0], c.request[1:]...); head.status != c.status || head.body != "" {
			t.Errorf("%s: HEAD got %d and a body of %d bytes", c.reason, head.status, len(head.body))
		}
		g.output.says(t, id) // the log can be found by what the caller was told
		g.output.says(t, c.reason)
	}

	r.proc.kill()
	a := g.do(t, "GET /ok/1", bearer(p.token(t)))
	a.refused(t, http.StatusServiceUnavailable, "store_unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("store_unavailable: no Retry-After")
	}
}

// TestRefusalsTellNothing compares the public words of all bad signatures.
func TestRefusalsTellNothing(t *testing.T) {
	t.Parallel()
	g, _, p := startOne(t, "")
	stranger := newSigner(t, "ES256", p.kid)
	texts := map[string]bool{}
	for _, token := range []string{stranger.sign(t, p.good()), p.sign(t, p.good(), claims{"kid": "nobody"}), p.token(t, claims{"aud": "x"}), "abc", p.sign(t, p.good(), claims{"alg": "none"})} {
		a := g.do(t, "GET /heroes/1", bearer(token))
		refusal := a.refused(t, http.StatusUnauthorized, "invalid_token")
		texts[strings.ReplaceAll(a.body, refusal.RequestID, "")] = true
		for _, secret := range []string{p.kid, "alice", "signature", "heroes.example", p.URL} {
			if strings.Contains(a.body+a.header.Get("WWW-Authenticate"), secret) {
				t.Errorf("the refusal speaks of %q: %s", secret, a.body)
			}
		}
	}
	if len(texts) != 1 {
		t.Errorf("%d different texts: %v", len(texts), texts)
	}
}

func TestStatusListenerAndMetrics(t *testing.T) {
	t.Parallel()
	g, _, p := startOne(t, "")
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1").is(t, http.StatusUnauthorized)
	g.do(t, "GET /no-such-path/"+strings.Repeat("x", 50)).is(t, http.StatusNotFound)
	for _, path := range []string{"/livez", "/readyz"} {
		if got := g.probe(path); got != http.StatusOK {
			t.Errorf("%s: %d", path, got)
		}
	}
	resp, err := http.Get("http://" + g.status + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`route="heroes"`, `reason="missing_token"`, `reason="no_route"`, "_bucket{"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if strings.Contains(string(text), "no-such-path") {
		t.Error("/metrics has a label that callers choose")
	}
	// Each listener keeps to its own.
	if got := g.probe("/heroes/1"); got != http.StatusNotFound {
		t.Errorf("the status listener answers %d for a route", got)
	}
	g.do(t, "GET /metrics").refused(t, http.StatusNotFound, "no_route")
}

// What is left of a body, or comes after a malformed one, is never the next
// request: whatever the reason of the refusal, the connection ends.
func TestNoBodyBecomesARequest(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    keys:
      - file: key.pem
routes:
  - match: /pub/{rest...}
    public: true
    idle_timeout: 300ms
    upstream: BACKEND
  - match: /dead/{rest...}
    public: true
    upstream: http://127.0.0.1:1
  - match: /guarded/{rest...}
    privileges: []
    upstream: BACKEND
`, "BACKEND", b.URL), file{"key.pem", newSigner(t, "ES256", "k").pem(t)})
	const smuggled = "GET /pub/SMUGGLED HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"bad chunk size":              {"POST /pub/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0x1\r\n" + smuggled, 400},
		"chunk without its end":       {"POST /pub/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX5\r\n" + smuggled, 400},
		"body that stalls":            {"POST /pub/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + smuggled, 400},
		"dead upstream":               {"POST /dead/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0x1\r\n" + smuggled, 502},
		"no token, body that stalls":  {"POST /guarded/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + smuggled, 401},
		"no token, large body":        {"POST /guarded/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + smuggled, 401},
		"no token, chunks that stall": {"POST /guarded/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", 401},
		"no token, bad chunk":         {"POST /guarded/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + smuggled, 401},
		"no route, body that stalls":  {"POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + smuggled, 404},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, g.listen)
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, c.request)
			r := bufio.NewReader(conn)
			if a := readAnswer(t, r, "POST"); a.status != c.status {
				t.Errorf("%d, want %d", a.status, c.status)
			}
			if rest, _ := io.ReadAll(r); len(rest) > 0 { // to the end of the connection, or its deadline
				t.Errorf("a second answer came: %q", firstLine(string(rest)))
			}
		})
	}
	for _, r := range b.all() {
		if strings.Contains(r.line(), "SMUGGLED") {
			t.Errorf("the backend got %s", r.line())
		}
	}
	// A small body that is there leaves the connection as it was.
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for range 2 {
		_, _ = io.WriteString(conn, "POST /guarded/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
		if a := readAnswer(t, r, "POST"); a.status != http.StatusUnauthorized {
			t.Errorf("%d, want 401", a.status)
		}
	}
}

// A client that stops sending, and whose backend has not answered, gets no
// answer of the gateway's own making.
func TestHalfClosedClientIsNotAnswered(t *testing.T) {
	t.Parallel()
	slow := hanging(t)
	g := start(t, fill("routes:\n  - match: /x\n    public: true\n    upstream: BACKEND\n", "BACKEND", slow.URL))
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(conn); len(got) > 0 {
		t.Errorf("the answer is %q", firstLine(string(got)))
	}
	g.output.says(t, `"reason":"client_gone"`)
}

// net/http guesses a type from the body; a gateway must not label what its backend did not.
func TestNoContentTypeIsMadeUp(t *testing.T) {
	t.Parallel()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "<script>alert(1)</script>")
	}))
	t.Cleanup(b.Close)
	g := start(t, fill("routes:\n  - match: /x\n    public: true\n    upstream: BACKEND\n", "BACKEND", b.URL))
	a := g.do(t, "GET /x")
	a.is(t, http.StatusOK)
	if got, ok := a.header["Content-Type"]; ok {
		t.Errorf("Content-Type: %q", got)
	}
}
