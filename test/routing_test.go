package test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

const routingYAML = `
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: GET /public/{rest...}
    public: true
    upstream: OPEN
  - match: GET,POST /heroes/{id}
    privileges: []
    upstream: CLOSED
  - match: /admin/{rest...}
    privileges: [ADMIN]
    upstream: CLOSED
  - match: GET /tree/{rest...}
    public: true
    upstream: OPEN
  - match: GET /files/{name}
    public: true
    encoded_slash: allow
    upstream: OPEN
  - match: GET api.example.test/hosted
    public: true
    upstream: OPEN
`

// startRouting gives a gateway with a backend behind public routes and one
// behind routes that need a token.
func startRouting(t *testing.T) (g *gateway, open, closed *backend, p *idp) {
	t.Helper()
	p, open, closed = newIDP(t), newBackend(t), newBackend(t)
	g = start(t, fill(routingYAML, "IDP", p.URL, "OPEN", open.URL, "CLOSED", closed.URL))
	return g, open, closed, p
}

func TestUnknownPathIs404(t *testing.T) {
	t.Parallel()
	g, open, closed, p := startRouting(t)
	for _, request := range []string{
		"GET /", "GET /nowhere", "POST /nowhere", "GET /heroes", "GET /heroes/1/2", "GET /Heroes/1",
		"GET /hosted", // of another host
		"GET /tree",   // ServeMux would redirect this one
	} {
		g.do(t, request, bearer(p.token(t))).refused(t, http.StatusNotFound, "no_route")
	}
	open.untouched(t)
	closed.untouched(t)
}

func TestUnknownMethodIs405WithAllow(t *testing.T) {
	t.Parallel()
	g, _, closed, p := startRouting(t)
	a := g.do(t, "DELETE /heroes/1", bearer(p.token(t)))
	a.refused(t, http.StatusMethodNotAllowed, "method_not_allowed")
	if allow := a.header.Get("Allow"); allow != "GET, HEAD, POST" {
		t.Errorf("Allow is %q", allow)
	}
	closed.untouched(t)
	g.do(t, "POST /heroes/1", "Content-Length: 0", bearer(p.token(t))).is(t, http.StatusOK)
}

func TestHeadHasNoBody(t *testing.T) {
	t.Parallel()
	g, open, closed, _ := startRouting(t)
	g.do(t, "HEAD /public/x").is(t, http.StatusOK)
	if got := open.last(t).line(); got != "HEAD /public/x HTTP/1.1" {
		t.Errorf("the backend got %s", got)
	}
	// Refusals with bodies of a HEAD would be read as the next answer's head.
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for _, want := range []struct {
		target string
		status int
	}{{"/nowhere", 404}, {"/heroes/1", 401}, {"/public/../x", 400}, {"/public/y", 200}} {
		if _, err := io.WriteString(conn, "HEAD "+want.target+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if a := readAnswer(t, r, "HEAD"); a.status != want.status {
			t.Errorf("HEAD %s: %d, want %d", want.target, a.status, want.status)
		}
	}
	closed.untouched(t)
}

func TestHostsAreComparedAsDNSDoes(t *testing.T) {
	t.Parallel()
	g, open, _, _ := startRouting(t)
	for _, host := range []string{"api.example.test", "API.Example.TEST", "api.example.test.", "api.example.test:8080"} {
		g.do(t, "GET /hosted", "Host: "+host).is(t, http.StatusOK)
	}
	before := open.count()
	for _, host := range []string{"example.test", "api.example.test.evil.test", "xapi.example.test", "api.example.test.."} {
		if a := g.do(t, "GET /hosted", "Host: "+host); a.status != 404 && a.status != 400 {
			t.Errorf("host %s: %d", host, a.status)
		}
	}
	if open.count() != before {
		t.Error("a request for another host reached the backend")
	}
}

// TestTrickyPathsAreRefused holds the ways in which a path was read
// differently by a peer's matcher and the backend behind it.
func TestTrickyPathsAreRefused(t *testing.T) {
	t.Parallel()
	g, open, closed, _ := startRouting(t)
	for _, target := range []string{
		// Empty and dot segments, in every encoding.
		"//", "//admin/x", "/public//x", "/public/x//", "/public/x//y", "//evil.example/public/x",
		"/public/.", "/public/..", "/public/./x", "/public/../admin/x", "/public/x/../../admin/x", "/public/x/..",
		"/public/%2e%2e/admin/x", "/public/%2E%2e/admin/x", "/public/.%2e/admin/x", "/public/%2e./admin/x", "/public/%2e/x",
		"/%2e%2e/admin/x", "/public%2e/../admin/x",
		// Encoded slashes: refused outright, or as part of a dot segment where the route allows them.
		"/public/x%2fy", "/public/x%2Fy", "/public/..%2fadmin/x", "/public/%2e%2e%2fadmin%2fx", "/public%2f..%2fadmin/x",
		"/files/..%2fadmin", "/files/a%2f..%2fadmin", "/files/%2fadmin", "/files/a%2f%2fb", "/files/%2e%2e%2fadmin",
		// Backslashes, NUL and what a URL's path may not hold (RFC 3986 §3.3).
		`/public/..\admin\x`, `/public\..\admin`, "/public/..%5cadmin/x", "/public/x%5Cy", "/public/x%00", "/public/%00/x", "/admin%00/x",
		"/public/x#y", "/admin/x#", "/public/#/../admin", `/public/"`, "/public/<", "/public/>", "/public/^", "/public/`", "/public/{x}", "/public/|", "/public/[x]",
		"/public/\x7f", "/public/\x80", "/public/\xc3\xa9", "/public/\x01",
		// Path parameters, which Java's servers cut off before they resolve dots.
		"/public/..;/admin/x", "/public/..;a=b/admin/x", "/public/.;/x", "/public/;/x", "/public/;a/x", "/public/..%3b/admin/x", "/public/%2e%2e;/admin/x",
		"/public/..%3B/admin/x",
		// Overlong UTF-8, and dots and spaces that Windows drops.
		"/public/%c0%ae%c0%ae/admin/x", "/public/%e0%80%ae%e0%80%ae/x", "/public/%f0%80%80%af", "/public/%f8%80%80%80%af", "/public/...%2e/x", "/public/%20/x", "/admin./x", "/admin%20/x",
		"/admin%2e/x", "/admin.%20./x", "/public./x",
		// Encoded twice.
		"/public/%252e%252e/admin/x", "/public/%252e/x", "/public/.%252e/admin/x", "/public/%25%32%65%25%32%65/admin/x", "/public/%252%65%252%65/admin/x", "/public/%25%32e%25%32e/admin/x", "/public/%252e%252e%252fadmin/x", "/public/..%252fadmin/x",
		"/public/..%255cadmin/x", "/public/%%32%65%%32%65/admin/x",
		// Bad escapes, and no path at all.
		"/public/%", "/public/%2", "/public/%zz", "/public/%u002e", "*", "admin/x", "public/x",
	} {
		a := g.send(t, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if a.status != http.StatusBadRequest {
			t.Errorf("%q: %d, want 400", target, a.status)
		}
		if loc := a.header.Get("Location"); loc != "" {
			t.Errorf("%q: a redirect to %s", target, loc)
		}
	}
	open.untouched(t)
	closed.untouched(t)
}

func TestBadPathSaysSo(t *testing.T) {
	t.Parallel()
	g, open, _, _ := startRouting(t)
	for _, target := range []string{"/public/../admin/x", "/public//x", "/public/x%5cy", "/public/..;/x", "/public/x%2fy"} {
		g.do(t, "GET "+target).refused(t, http.StatusBadRequest, "bad_path")
	}
	open.untouched(t)
}

// TestNoSpellingOfAPathAvoidsItsToken holds paths that are well-formed and mean
// the protected route, or could be taken to.
func TestNoSpellingOfAPathAvoidsItsToken(t *testing.T) {
	t.Parallel()
	g, open, closed, _ := startRouting(t)
	for target, statuses := range map[string][]int{
		"/admin/x":                   {401},
		"/adm%69n/x":                 {401},
		"/%61%64%6d%69%6e/x":         {401},
		"/admin/":                    {401},
		"/admin/x?/public/x":         {401},
		"/admin;/x":                  {400, 404},
		"/admin;a=b/x":               {400, 404},
		"/admin%3b/x":                {400, 404},
		"/%2561dmin/x":               {400, 404},
		"/ADMIN/x":                   {404},
		"http://x/admin/x":           {401},
		"http://other.example/admin": {400, 401, 404},
		"http://x":                   {400, 404},
	} {
		a := g.do(t, "GET "+target)
		ok := false
		for _, want := range statuses {
			ok = ok || a.status == want
		}
		if !ok {
			t.Errorf("%s: %d, want one of %v", target, a.status, statuses)
		}
	}
	for _, header := range []string{"X-Original-URL: /public/x", "X-Rewrite-URL: /public/x", "X-Forwarded-Uri: /public/x", "X-Envoy-Original-Path: /public/x",
		"X-HTTP-Method-Override: OPTIONS", "User-Agent: kube-probe/1.31", "X-Forwarded-Prefix: /public"} {
		g.do(t, "GET /admin/x", header).refused(t, 401, "missing_token")
	}
	open.untouched(t)
	closed.untouched(t)
}

func TestConnectAndOtherProtocolsAreRefused(t *testing.T) {
	t.Parallel()
	g, open, closed, p := startRouting(t)
	token := bearer(p.token(t))
	for _, raw := range []string{
		"CONNECT gatehouse.example:443 HTTP/1.1\r\nHost: gatehouse.example:443\r\nConnection: close\r\n\r\n",
		"CONNECT /public/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"CONNECT /public/../admin/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket, spdy/3.1\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nUpgrade: h2\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: spdy/3.1\r\n\r\n",
		"GET /heroes/1 HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: TLS/1.0\r\n" + token + "\r\n\r\n",
	} {
		if a := g.send(t, raw); a.status < 400 || a.status > 499 && a.status != 501 && a.status != 505 {
			t.Errorf("%s: %d, want a refusal", firstLine(raw), a.status)
		}
	}
	if a := g.do(t, "OPTIONS *"); a.status >= 500 {
		t.Errorf("OPTIONS *: %d", a.status)
	}
	open.untouched(t)
	closed.untouched(t)
}

// TestTraceNeedsARouteThatNamesIt: who answers TRACE shows what the gateway told it.
func TestTraceNeedsARouteThatNamesIt(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
  - match: GET,TRACE /diagnosis
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	g.do(t, "TRACE /heroes/7").refused(t, http.StatusBadRequest, "bad_request")
	g.do(t, "POST /heroes/7", "Content-Length: 0", "X-HTTP-Method-Override: TRACE").refused(t, http.StatusBadRequest, "bad_request")
	if status := g.frames(t).ask("", ":method: TRACE", ":scheme: http", ":path: /heroes/7", ":authority: x"); status != "400" {
		t.Errorf("in HTTP/2: %s", status)
	}
	b.untouched(t)
	g.do(t, "TRACE /diagnosis").is(t, http.StatusOK)
	g.do(t, "GET /diagnosis", "X-HTTP-Method-Override: TRACE").is(t, http.StatusOK)
}

// TestMethodsHaveOneCase: to frameworks that upper-case it, delete is the DELETE
// that no rule saw.
func TestMethodsHaveOneCase(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill("routes:\n  - match: /{rest...}\n    public: true\n    upstream: BACKEND\n", "BACKEND", b.URL))
	for _, method := range []string{"delete", "Delete", "gEt", "connect", "x-purge"} {
		g.do(t, method+" /heroes/7").refused(t, http.StatusBadRequest, "bad_request")
		if status := g.frames(t).ask("", ":method: "+method, ":scheme: http", ":path: /heroes/7", ":authority: x"); status != "400" {
			t.Errorf("%s in HTTP/2: %s", method, status)
		}
	}
	// HTTP/2 can say what is no method: the target would be blamed for not taking it.
	for _, method := range []string{"GET,DELETE", "GET /x HTTP/1.1"} {
		if status := g.frames(t).ask("", ":method: "+method, ":scheme: http", ":path: /heroes/7", ":authority: x"); status != "400" {
			t.Errorf("%s in HTTP/2: %s", method, status)
		}
	}
	b.untouched(t)
	for _, method := range []string{"DELETE", "GET", "X-PURGE"} {
		g.do(t, method+" /heroes/7").is(t, http.StatusOK)
	}
}

// TestSmuggledFramingIsRefused holds requests whose end two parsers see in
// different places.
func TestSmuggledFramingIsRefused(t *testing.T) {
	t.Parallel()
	g, open, closed, _ := startRouting(t)
	for _, framing := range []string{
		"Content-Length: 18446744073709551616\r\n\r\n",
		"Content-Length: +5\r\n\r\nhello",
		"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"Content-Length: \r\n\r\n",
		"Content-Length : 5\r\n\r\nhello",
		"Transfer-Encoding: identity\r\n\r\n",
		"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		": x\r\nX-Y: z\r\n\r\n",
		"X Y: z\r\n\r\n",
	} {
		a := g.send(t, "GET /public/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+framing)
		if a.status < 400 || a.status == 502 {
			t.Errorf("%q: %d, want a refusal", framing, a.status)
		}
	}
	open.untouched(t)
	closed.untouched(t)
}

// TestBodyCannotBecomeARequest: what stands in a body, or behind a chunk that
// other parsers read otherwise, is never a request at the backend.
func TestBodyCannotBecomeARequest(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	length := "Content-Length: " + itoa(int64(len(smuggled))) + "\r\n"
	for _, rest := range []string{
		length + "\r\n" + smuggled,
		length + "Connection: Content-Length\r\n\r\n" + smuggled,
		length + "Connection: content-length, host\r\n\r\n" + smuggled,
		length + "Transfer_Encoding: chunked\r\n\r\n" + smuggled,
		"Content_Length: 0\r\n" + length + "\r\n" + smuggled,
		"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + smuggled,
		"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + smuggled,
		"Transfer-Encoding: chunked\r\n\r\n1_0\r\n\r\n" + smuggled,
		"Transfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n" + smuggled,
		"Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\nok\r\n0\r\n\r\n" + smuggled,
		"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" + smuggled,
		"Transfer-Encoding: chunked\r\n\r\n2\r\nok0\r\n\r\n" + smuggled,
	} {
		conn := dial(t, g.listen)
		_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\n"+rest)
		readAnswer(t, bufio.NewReader(conn), "POST")
		_ = conn.Close()
	}
	g.do(t, "GET /end").is(t, http.StatusOK)
	for _, r := range b.all() {
		if line := r.line(); line != "POST /x HTTP/1.1" && line != "GET /end HTTP/1.1" {
			t.Errorf("the backend got %s", line)
		}
	}
}

func TestPathAndQueryArriveByteForByte(t *testing.T) {
	t.Parallel()
	g, open, _, _ := startRouting(t)
	for _, target := range []string{
		"/public/x", "/public/", "/public/x/", "/public/x?", "/public/a%20b", "/public/%41%7e~", "/public/caf%C3%A9", "/public/caf%c3%a9",
		"/public/a;b=c", "/public/x!$&'()*+,=:@-._~", "/public/100%25", "/public/x%3f%23",
		"/public/x?a=1;b=2", "/public/x?a=%zz&b=%", "/public/x?a=b&&=c&d", "/public/x?a%2fb=c%2Fd+e%20f", "/public/x??/../", "/public/x?a=\"<>|^`{}[]\\",
		"/files/a%2fb", "/files/a%2Fb%2fc", "/files/a%2f",
	} {
		g.do(t, "GET "+target).is(t, http.StatusOK)
		if got := strings.Fields(open.last(t).line()); len(got) != 3 || got[1] != target {
			t.Errorf("sent %s, the backend got %s", target, got)
		}
	}
}

func TestStripPrefixTakesWholeSegments(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
routes:
  - match: /heroes-service/{rest...}
    public: true
    strip_prefix: /heroes-service
    upstream: BACKEND/base
`, "BACKEND", b.URL))
	for target, want := range map[string]string{
		"/heroes-service/hero":         "/base/hero",
		"/heroes-service/":             "/base/",
		"/heroes-service/a%20b;c?d;e":  "/base/a%20b;c?d;e",
		"/heroes-service/caf%c3%a9/%7": "",
	} {
		a := g.do(t, "GET "+target)
		if want == "" {
			a.is(t, http.StatusBadRequest)
			continue
		}
		a.is(t, http.StatusOK)
		if got := b.last(t).line(); got != "GET "+want+" HTTP/1.1" {
			t.Errorf("%s: the backend got %s, want %s", target, got, want)
		}
	}
	before := b.count()
	for _, target := range []string{"/heroes-service/../x", "/heroes-service//x", "/heroes-service%2fx", "/heroes-service/%2e%2e/x", "/heroes-service..", "/heroes-service../x", "/heroes-servicex/y"} {
		if a := g.do(t, "GET "+target); a.status != 400 && a.status != 404 {
			t.Errorf("%s: %d", target, a.status)
		}
	}
	if b.count() != before {
		t.Errorf("the backend got %s", b.last(t).line())
	}
}

// TestLettersOfAnotherCase: where the backend does not tell cases apart, no
// spelling of a protected path falls to a less protected route.
func TestLettersOfAnotherCase(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: GET /Admin/{id}/Keys
    privileges: []
    ignore_case: true
    strip_prefix: /Admin
    upstream: BACKEND
  - match: GET /Admin/root/Keys
    privileges: [ROOT]
    strip_prefix: /Admin
    upstream: BACKEND
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	spellings := []string{"/Admin/Bob/Keys", "/admin/Bob/keys", "/ADMIN/Bob/KEYS", "/%61dmin/Bob/%4Beys", "/admin/Bob/%E2%84%AAeys"}
	for _, path := range spellings {
		g.do(t, "GET "+path).refused(t, http.StatusUnauthorized, "missing_token")
	}
	for _, path := range []string{"/admin;/Bob/keys", "/ADMIN./Bob/keys", "/ADMIN/Bob/keys%20", "/%2561dmin/Bob/keys", "/x;/Bob/../keys"} {
		g.do(t, "GET "+path).refused(t, http.StatusBadRequest, "bad_path")
	}
	// What lies under such a route is asked for in any case, too.
	for _, path := range []string{"/Admin/root/Keys", "/admin/ROOT/keys"} {
		g.do(t, "GET "+path, bearer(p.token(t))).refused(t, http.StatusForbidden, "insufficient_privileges")
	}
	b.untouched(t)
	for _, path := range spellings {
		g.do(t, "GET "+path, bearer(p.token(t))).is(t, http.StatusOK)
		_, rest, _ := strings.Cut(path[1:], "/")
		if got, want := b.last(t).line(), "GET /"+rest+" HTTP/1.1"; got != want {
			t.Errorf("%s: the backend got %s, want %s", path, got, want)
		}
	}
	g.do(t, "GET /admin").is(t, http.StatusOK)
}
