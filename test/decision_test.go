package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deciding is a gateway that decides for a proxy, and where it is asked.
type deciding struct {
	*gateway
	proxy string
	asked *gateway
}

const decidedRoutes = `
headers:
  claims:
    iss: iss
    sub: sub
    privileges: privileges
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    token_from:
      - header
      - cookie: session
limits:
  two:
    key: [ip]
    rate: 2/1h
routes:
  - name: heroes
    match: GET,HEAD heroes.example/heroes/{id}
    privileges: [READ_HEROES]
    upstream: BACKEND
  - name: create
    match: POST heroes.example/heroes
    privileges: [CREATE_HERO]
    max_body: 10B
    upstream: BACKEND
  - name: scarce
    match: heroes.example/scarce
    limits: [two]
    privileges: []
    upstream: BACKEND
  - name: report
    match: heroes.example/report
    mode: report
    privileges: [NOBODY]
    upstream: BACKEND
  - name: healthz
    match: /healthz
    public: true
    upstream: BACKEND
`

// startDeciding starts a gateway that decides for the proxy.
func startDeciding(t *testing.T, proxy string) (*deciding, *backend, *idp) {
	t.Helper()
	p, b := newIDP(t), newBackend(t)
	d := &deciding{proxy: proxy, asked: &gateway{listen: freeAddress(t)}}
	d.gateway = start(t, d.text(decidedRoutes, p, b))
	return d, b, p
}

func (d *deciding) text(routes string, p *idp, b *backend) string {
	return fill("server:\n  ADDRESSES\n  trusted_proxies: [127.0.0.1/32]\n  decision:\n    listen: DECISION\n    proxy: PROXY"+routes,
		"DECISION", d.asked.listen, "PROXY", d.proxy, "IDP", p.URL, "BACKEND", b.URL)
}

// wording is what the proxy sends, byte for byte, to ask about a request
// ("METHOD TARGET") of 203.0.113.9 to heroes.example.
func wording(proxy, request string, headers ...string) string {
	method, target, _ := strings.Cut(request, " ")
	var lines []string
	switch proxy {
	case "nginx":
		lines = []string{"GET /_gatehouse HTTP/1.1", "X-Original-Method: " + method, "X-Original-URI: " + target, "X-Original-Host: heroes.example",
			"X-Forwarded-For: 203.0.113.9", "X-Request-Id: 00112233445566778899aabbccddeeff", "Host: gatehouse"}
	case "traefik":
		lines = []string{"GET / HTTP/1.1", "Host: 127.0.0.1:9903", "User-Agent: Go-http-client/1.1", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: heroes.example",
			"X-Forwarded-Method: " + method, "X-Forwarded-Port: 80", "X-Forwarded-Proto: http", "X-Forwarded-Uri: " + target, "X-Real-Ip: 203.0.113.9", "Accept-Encoding: gzip"}
	case "caddy":
		lines = []string{"GET / HTTP/1.1", "Host: heroes.example", "User-Agent: curl/8", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: heroes.example",
			"X-Forwarded-Method: " + method, "X-Forwarded-Proto: http", "X-Forwarded-Uri: " + target, "Accept-Encoding: gzip"}
	case "envoy":
		lines = []string{request + " HTTP/1.1", "host: heroes.example", "content-length: 0", "x-forwarded-for: 203.0.113.9", "x-forwarded-proto: http",
			"x-request-id: 2d3a6c1e-1c52-4d6a-8c5f-6a2d1b7c9e10", "x-envoy-internal: true"}
	}
	return strings.Join(append(lines, headers...), "\r\n") + "\r\nConnection: close\r\n\r\n"
}

// ask asks about a request.
func (d *deciding) ask(t *testing.T, request string, headers ...string) answer {
	t.Helper()
	return d.asked.send(t, wording(d.proxy, request, headers...))
}

// leaves fails the test unless the answer is a refusal of that status as it
// leaves for the proxy.
func (d *deciding) leaves(t *testing.T, a answer, status int, reason string) {
	t.Helper()
	if d.proxy == "nginx" {
		if got := a.header.Get("X-Gatehouse-Status"); got != fmt.Sprint(status) {
			t.Errorf("X-Gatehouse-Status is %q, want %d", got, status)
		}
		if want := status; want == 401 || a.status != 403 {
			a.is(t, want)
		}
		a.status = status
	} else if a.header["X-Gatehouse-Status"] != nil {
		t.Error("a status of its own for a proxy that takes any")
	}
	a.refused(t, status, reason)
}

var proxies = []string{"nginx", "traefik", "caddy", "envoy"}

func TestDecisionsInEachDialect(t *testing.T) {
	t.Parallel()
	for _, proxy := range proxies {
		t.Run(proxy, func(t *testing.T) {
			t.Parallel()
			d, b, p := startDeciding(t, proxy)
			good := p.token(t)

			a := d.ask(t, "GET /heroes/7?x=%zz", bearer(good), "Cookie: a=b")
			a.is(t, http.StatusOK)
			for name, want := range map[string]string{
				"X-Jwt-Sub": "alice", "X-Jwt-Iss": p.URL, "X-Jwt-Privileges": "READ_HEROES", "Cookie": "a=b", "Authorization": "", "Content-Length": "0", "Cache-Control": "no-store",
			} {
				if got := strings.Join(a.header[name], "|"); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			for _, name := range []string{"X-Request-Id", "Traceparent"} {
				if len(a.header[name]) != 1 {
					t.Errorf("%s: %q", name, a.header[name])
				}
			}
			removes := a.header.Get("X-Envoy-Auth-Headers-To-Remove")
			if want := map[bool]string{true: "Authorization"}[proxy == "envoy"]; removes != want {
				t.Errorf("to be removed is %q, want %q", removes, want)
			}
			d.output.says(t, `"client":"203.0.113.9","method":"GET","host":"heroes.example","path":"/heroes/7","route":"heroes","status":200`)
			d.output.says(t, `"decision":"`+proxy+`"`)

			a = d.ask(t, "HEAD /heroes/7", "Cookie: a=b; session="+good+"; c=d")
			a.is(t, http.StatusOK)
			if got := strings.Join(a.header["Cookie"], "|"); got != "a=b; c=d" {
				t.Errorf("the backend would receive the cookies %q", got)
			}

			a = d.ask(t, "GET /healthz", "Authorization: Basic YTpi")
			a.is(t, http.StatusOK)
			if a.header["X-Jwt-Sub"] != nil || a.header.Get("Authorization") != "Basic YTpi" {
				t.Errorf("of a public route: %v", a.header)
			}

			a = d.ask(t, "GET /report", bearer(good))
			a.is(t, http.StatusOK)
			if a.header.Get("X-Gatehouse-Would-Refuse") != "insufficient_privileges" || a.header.Get("Authorization") == "" {
				t.Errorf("in report mode: %v", a.header)
			}

			a = d.ask(t, "GET /heroes/7")
			d.leaves(t, a, 401, "missing_token")
			a.challenges(t, "")
			a = d.ask(t, "GET /heroes/7", bearer(good+"x"))
			d.leaves(t, a, 401, "invalid_token")
			a = d.ask(t, "POST /heroes", bearer(good))
			d.leaves(t, a, 403, "insufficient_privileges")
			a.challenges(t, "insufficient_scope")
			d.leaves(t, d.ask(t, "GET /nowhere", bearer(good)), 404, "no_route")
			a = d.ask(t, "DELETE /heroes/7", bearer(good))
			d.leaves(t, a, 405, "method_not_allowed")
			if a.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			d.leaves(t, d.ask(t, "GET /heroes/7", bearer(good), bearer(good)), 400, "bad_request")

			// Each question counts once.
			for range 2 {
				a = d.ask(t, "GET /scarce", bearer(good))
				a.is(t, http.StatusOK)
				if a.header.Get("RateLimit") == "" {
					t.Error("nothing is said of the limit")
				}
			}
			a = d.ask(t, "GET /scarce", bearer(good))
			d.leaves(t, a, 429, "rate_limited")
			if a.header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}

			// A path with two readings, and what is no path at all.
			for _, target := range []string{"//heroes/7", "/heroes//7", "/heroes/%2e%2e/healthz", "/heroes/../healthz", "/x/%2e/heroes/7", "/healthz;/../heroes/7", "/heroes/%2f", "/heroes/7%5c", "/heroes/7%00"} {
				d.leaves(t, d.ask(t, "GET "+target, bearer(good)), 400, "bad_path")
			}
			for _, method := range []string{"delete", "Delete", "gEt"} {
				d.leaves(t, d.ask(t, method+" /healthz"), 400, "bad_request")
			}
			if proxy != "envoy" { // whose request line net/http itself reads
				for _, target := range []string{"/%zz", "heroes/7", "?x", "*", "http://heroes.example/heroes/7", "/heroes/7#f", "/heroes/7?a#f", "/heroes/7 x", "/heroes/7?a b", "/heroes/7\tx"} {
					d.leaves(t, d.ask(t, "GET "+target, bearer(good)), 400, "bad_path")
				}
				for _, method := range []string{"G,T", "GET(x)", "CONNECT"} {
					d.leaves(t, d.ask(t, method+" /heroes/7", bearer(good)), 400, "bad_request")
				}
			}
			b.untouched(t)
		})
	}
}

// Nothing but what the configured proxy sets tells of the request, and nobody
// but a trusted proxy is answered.
func TestDecisionsAreForTheProxyAlone(t *testing.T) {
	t.Parallel()
	for _, proxy := range proxies {
		t.Run(proxy, func(t *testing.T) {
			t.Parallel()
			d, b, p := startDeciding(t, proxy)
			good := bearer(p.token(t))
			whole := wording(proxy, "GET /heroes/7", good)
			d.asked.send(t, whole).is(t, http.StatusOK)

			for line := range strings.SplitSeq(whole, "\r\n") {
				name, _, _ := strings.Cut(line, ":")
				own := map[string][]string{
					"nginx":   {"X-Original-Method", "X-Original-URI", "X-Original-Host", "X-Forwarded-For"},
					"traefik": {"X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host", "X-Forwarded-For"},
					"caddy":   {"X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host", "X-Forwarded-For"},
					"envoy":   {"x-forwarded-for"},
				}[proxy]
				if !slices.Contains(own, name) {
					continue
				}
				for _, other := range []string{"", name + ":\r\n", line + "\r\n" + line + "\r\n", line + "\r\n" + strings.ToUpper(name) + ": x\r\n"} {
					d.leaves(t, d.asked.send(t, strings.Replace(whole, line+"\r\n", other, 1)), 403, "no_decision")
				}
				alias := strings.ReplaceAll(name, "-", "_") + line[len(name):] + "\r\n"
				d.leaves(t, d.asked.send(t, strings.Replace(whole, line+"\r\n", alias, 1)), 403, "no_decision")
			}
			for _, hops := range []string{"unknown", "203.0.113.9, unknown", "203.0.113.9,", "evil"} {
				a := d.asked.send(t, strings.Replace(strings.Replace(whole, "For: 203.0.113.9", "For: "+hops, 1), "for: 203.0.113.9", "for: "+hops, 1))
				d.leaves(t, a, 403, "no_decision")
			}

			// What other dialects would say, a client may say.
			for _, other := range proxies {
				asks := func(request string, more ...string) answer {
					headers := append([]string{good}, more...)
					for line := range strings.SplitSeq(wording(other, "GET /healthz"), "\r\n") {
						name, _, ok := strings.Cut(line, ":")
						if ok && regexp.MustCompile("(?i)^x-(original-|forwarded-(method|uri|host|proto|port))").MatchString(name) && !strings.Contains(strings.ToLower(whole), "\n"+strings.ToLower(name)+":") {
							headers = append(headers, line)
						}
					}
					return d.ask(t, request, headers...)
				}
				a := asks("GET /heroes/7", "Forwarded: for=198.51.100.1;host=other.example", "X-Envoy-Original-Path: /healthz")
				a.is(t, http.StatusOK)
				if a.header.Get("X-Jwt-Sub") != "alice" {
					t.Errorf("headers of %s led elsewhere: %v", other, a.header)
				}
				d.leaves(t, asks("GET /nowhere"), 404, "no_route")
			}

			// A certificate that a client names is no certificate.
			bound := p.token(t, claims{"cnf": claims{"x5t#S256": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"}})
			d.leaves(t, d.ask(t, "GET /heroes/7", bearer(bound), "Client-Cert: ::"), 401, "invalid_token")

			// Which backends may read as the same, or as the path.
			for _, header := range []string{"X_Jwt_Sub: root", "x.jwt.sub: root", "X-Jwt_Admin: 1", "X_Gatehouse_Would_Refuse: x",
				"X-Original-URL: /heroes/7", "x-rewrite-url: /heroes/7", "X_Rewrite_Url: /heroes/7"} {
				d.leaves(t, d.ask(t, "GET /healthz", header), 400, "bad_request")
			}
			if a := d.ask(t, "GET /heroes/7", good, "X-Jwt-Other: root"); proxy == "nginx" {
				d.leaves(t, a, 400, "bad_request")
			} else if a.is(t, http.StatusOK); a.header["X-Jwt-Other"] != nil {
				t.Error("the client's own header is in the answer")
			}

			// Other listeners' paths are paths like any.
			for _, path := range []string{"/readyz", "/livez", "/metrics", "/refusals", "/explain", "/revoke"} {
				d.leaves(t, d.ask(t, "GET "+path, good), 404, "no_route")
			}
			b.untouched(t)

			if proxy == "nginx" {
				d.leaves(t, d.asked.do(t, "GET /healthz"), 403, "no_decision")
			}
			// A peer that is no trusted proxy gets no answer, whatever it asks.
			d.reload(t, strings.Replace(d.text(decidedRoutes, p, b), "127.0.0.1/32", "192.0.2.0/24", 1))
			eventually(t, "the proxy is trusted no more", func() bool { return d.gateway.metric(t, goodReloads) == 1 })
			for _, request := range []string{"GET /heroes/7", "GET /healthz", "GET /nowhere"} {
				d.leaves(t, d.ask(t, request, good), 403, "no_decision")
			}
		})
	}
}

// A 2xx is a permission, so that no refusal may be one: not in gRPC, whose
// refusals are 200 elsewhere, and not of a preflight, whose answer is 204.
func TestRefusalsAreNeverPermissions(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	for _, proxy := range []string{"envoy", "nginx"} {
		d := &deciding{proxy: proxy, asked: &gateway{listen: freeAddress(t)}}
		d.gateway = start(t, d.text(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /heroes/{id}
    privileges: [READ_HEROES]
    cors:
      allow_origins: [https://app.example]
    upstream: BACKEND
`, p, b))
		for _, kind := range []string{"application/grpc", "application/grpc+proto", "text/plain"} {
			fields := []string{":method: POST", ":scheme: http", ":path: /heroes/7", ":authority: heroes.example", "x-forwarded-for: 203.0.113.9", "content-type: " + kind}
			if proxy == "nginx" {
				fields = []string{":method: GET", ":scheme: http", ":path: /", ":authority: x", "x-original-method: POST", "x-original-uri: /heroes/7", "x-original-host: heroes.example", "x-forwarded-for: 203.0.113.9", "content-type: " + kind}
			}
			if status := d.asked.frames(t).ask("", fields...); status != "401" {
				t.Errorf("%s: HTTP/2, %s: status %s, want 401", proxy, kind, status)
			}
			if status := d.asked.frames(t).ask("", append(fields, "authorization: Bearer "+p.token(t))...); status != "200" {
				t.Errorf("%s: HTTP/2, %s: status %s, want 200", proxy, kind, status)
			}
		}
		a := d.ask(t, "OPTIONS /heroes/7", "Origin: https://app.example", "Access-Control-Request-Method: GET")
		d.leaves(t, a, 401, "missing_token")
		if a.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
			t.Error("a browser could not read the refusal")
		}
	}
	b.untouched(t)
}

// A proxy asks about a HEAD with a GET, which has an answer with a body, and
// goes on using the connection.
func TestDecisionsKeepTheConnection(t *testing.T) {
	t.Parallel()
	d, _, p := startDeciding(t, "nginx")
	conn := dial(t, d.asked.listen)
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for _, c := range []struct {
		request, header string
		status          int
	}{{"HEAD /heroes/7", "X-A: b", 401}, {"HEAD /heroes/7", bearer(p.token(t)), 200}, {"GET /nowhere", "X-A: b", 403}, {"GET /healthz", "X-A: b", 200}} {
		_, _ = io.WriteString(conn, strings.Replace(wording("nginx", c.request, c.header), "Connection: close\r\n", "", 1))
		readAnswer(t, r, "GET").is(t, c.status)
	}
}

// A page of another site opens a WebSocket with the browser's cookies; proxies
// keep Upgrade to themselves.
func TestDecisionsAboutWebSockets(t *testing.T) {
	t.Parallel()
	d, _, p := startDeciding(t, "traefik")
	cookie, key := "Cookie: session="+p.token(t), "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	d.ask(t, "GET /heroes/7", cookie, key, "Sec-Fetch-Site: same-origin").is(t, http.StatusOK)
	d.leaves(t, d.ask(t, "GET /heroes/7", cookie, key, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), 403, "cross_origin")
	d.ask(t, "GET /heroes/7", cookie, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example").is(t, http.StatusOK)
	d.leaves(t, d.ask(t, "GET /heroes/7", cookie, "Upgrade: chat"), 400, "bad_request")
	d.leaves(t, d.ask(t, "GET /heroes/7", cookie, "Upgrade: h2c"), 400, "bad_request") // who forwards might take it
}

// With decision alone nothing is forwarded; a file that has it no more decides nothing.
func TestDecisionsAlone(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	d := &deciding{proxy: "caddy", asked: &gateway{listen: freeAddress(t)}}
	d.gateway = &gateway{status: freeAddress(t), config: filepath.Join(t.TempDir(), "routes.yaml")}
	d.listen = d.asked.listen // where the harness looks whether it is up
	text := strings.Replace(d.text(decidedRoutes, p, b), "ADDRESSES", "status: "+d.status, 1)
	write(t, d.config, text)
	d.serve(t)
	d.ask(t, "GET /heroes/7", bearer(p.token(t))).is(t, http.StatusOK)
	d.output.says(t, `"msg":"listening","decision":"`+d.asked.listen+`","status":"`+d.status+`"}`)

	write(t, d.config, strings.Replace(text, "proxy: caddy", "proxy: nginx", 1))
	eventually(t, "another dialect", func() bool { return d.metric(t, goodReloads) == 1 })
	d.ask(t, "GET /heroes/7", bearer(p.token(t))).is(t, http.StatusForbidden)
	d.proxy = "nginx"
	d.ask(t, "GET /heroes/7", bearer(p.token(t))).is(t, http.StatusOK)

	write(t, d.config, regexp.MustCompile(`(?s)  decision:.*?nginx\n`).ReplaceAllString(strings.Replace(text, "proxy: caddy", "proxy: nginx", 1), ""))
	eventually(t, "no decision in the file", func() bool { return d.metric(t, goodReloads) == 2 })
	d.ask(t, "GET /heroes/7", bearer(p.token(t))).refused(t, http.StatusForbidden, "no_decision")
	d.output.says(t, "listen addresses cannot change by a reload")
	b.untouched(t)
}

// Each example of the docs, on the proxy itself.
func TestProxiesAsk(t *testing.T) {
	t.Parallel()
	for _, proxy := range proxies {
		t.Run(proxy, func(t *testing.T) {
			t.Parallel()
			d, b, p := startDeciding(t, proxy)
			front := startProxy(t, proxy, d.asked.listen, b.URL)
			good := p.token(t)
			host := "Host: heroes.example"

			front.do(t, "GET /heroes/7?a=b&c=%zz", host, bearer(good)).is(t, http.StatusOK)
			got := b.last(t)
			got.has(t, "x-jwt-sub", "alice")
			got.has(t, "x-jwt-privileges", "READ_HEROES")
			got.lacks(t, "authorization")
			got.clean(t, good)
			if len(got.header("x-request-id")) != 1 || len(got.header("traceparent")) != 1 {
				t.Errorf("the backend got no id or trace of the request:\n%s", got.raw)
			}
			if got.line() != "GET /heroes/7?a=b&c=%zz HTTP/1.1" {
				t.Errorf("the backend was asked for %q", got.line())
			}

			// What the client forges reaches nobody, with a token, without one, or where none is read.
			forged := []string{"X-Jwt-Sub: root", "x-jwt-privileges: root", "X-Jwt-Iss: root", "X-Jwt-Other: root", "X-Gatehouse-Would-Refuse: root"}
			for _, c := range []struct {
				path    string
				headers []string
			}{{"/heroes/7", []string{bearer(good)}}, {"/healthz", nil}, {"/report", []string{bearer(good)}}, {"/report", nil}, {"/heroes/7", []string{bearer(good), "Connection: x-jwt-sub"}}} {
				before := b.count()
				a := front.do(t, "GET "+c.path, append(append([]string{host}, c.headers...), forged...)...)
				if proxy == "nginx" { // which refuses even the attempt
					a.is(t, http.StatusBadRequest)
				} else {
					a.is(t, http.StatusOK)
				}
				for _, r := range b.all()[before:] {
					r.clean(t, "root")
				}
			}
			// Nor what it says of the connection.
			front.do(t, "GET /healthz", host, "Forwarded: for=root", "X-Real-IP: root", "Client-Cert: root", "Client-Cert-Chain: root", "X-Forwarded-Host: root", "X-Forwarded-Proto: root").is(t, http.StatusOK)
			b.last(t).clean(t, "root")
			// Nor where it says another path, which some backends believe.
			before := b.count()
			for _, lie := range []string{"X-Original-URL: /heroes/7", "X-Rewrite-URL: /heroes/7"} {
				front.do(t, "GET /healthz", host, lie).is(t, http.StatusBadRequest)
			}
			if b.count() != before {
				t.Error("the backend was told of another path")
			}
			for _, alias := range []string{"X_Jwt_Sub: root", "X.Jwt.Sub: root"} {
				before := b.count()
				front.do(t, "GET /healthz", host, alias)
				for _, r := range b.all()[before:] {
					r.clean(t, "root")
				}
			}

			// Nor can it name another request, or another client.
			for _, lie := range []string{"X-Original-URI: /healthz", "X-Forwarded-Uri: /healthz", "X-Original-Method: OPTIONS", "X-Forwarded-Method: OPTIONS",
				"X-Original-Host: other.example", "X-Forwarded-Host: other.example", "Forwarded: host=other.example", "X-Envoy-Original-Path: /healthz", "X-Http-Method-Override: GET"} {
				front.do(t, "GET /heroes/7", host, lie).is(t, http.StatusUnauthorized)
			}
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 0, 9)}}).Dial("tcp", front.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\n"+host+"\r\nX-Forwarded-For: 198.51.100.7\r\nX-Real-IP: 198.51.100.7\r\n\r\n")
			readAnswer(t, bufio.NewReader(conn), "GET").is(t, http.StatusOK)
			d.output.says(t, `"client":"127.1.0.9"`)

			a := front.do(t, "GET /heroes/7", host)
			a.is(t, http.StatusUnauthorized)
			a.challenges(t, "")
			front.do(t, "GET /heroes/7", host, bearer(p.token(t, claims{"privileges": []string{"OTHER"}}))).is(t, http.StatusForbidden)
			front.do(t, "GET /nowhere", host, bearer(good)).is(t, http.StatusNotFound)
			front.do(t, "DELETE /heroes/7", host, bearer(good)).is(t, http.StatusMethodNotAllowed)
			for range 2 {
				front.do(t, "GET /scarce", host, bearer(good)).is(t, http.StatusOK)
			}
			a = front.do(t, "GET /scarce", host, bearer(good))
			a.is(t, http.StatusTooManyRequests)
			if a.header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			before = b.count()
			for _, path := range []string{"/heroes/%2e%2e/healthz", "//healthz", "/heroes/..;/healthz", "/heroes/%2fhealthz"} {
				front.do(t, "GET "+path, host, bearer(good))
			}
			for _, r := range b.all()[before:] { // Traefik and Caddy may mend a path before they ask
				if r.line() != "GET /healthz HTTP/1.1" {
					t.Errorf("a path with two readings reached the backend: %s", r.line())
				}
			}

			// Another site's page opens a WebSocket with the browser's cookie.
			before = b.count()
			upgrade := dial(t, front.listen)
			defer func() { _ = upgrade.Close() }()
			_, _ = io.WriteString(upgrade, "GET /heroes/7 HTTP/1.1\r\n"+host+"\r\nCookie: session="+good+"\r\nOrigin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n"+
				"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			if readAnswer(t, bufio.NewReader(upgrade), "GET").is(t, http.StatusForbidden); b.count() != before {
				t.Error("another site's WebSocket reached the backend")
			}

			// A body goes from the proxy to the backend, past the decision.
			create := p.token(t, claims{"privileges": []string{"CREATE_HERO"}})
			front.send(t, "POST /heroes HTTP/1.1\r\n"+host+"\r\n"+bearer(create)+"\r\nContent-Length: 20\r\nConnection: close\r\n\r\n01234567890123456789").is(t, http.StatusOK)
			if got := b.last(t); got.body != "01234567890123456789" {
				t.Errorf("the body became %q", got.body)
			}

			// Without an answer nothing passes.
			d.kill()
			if a := front.do(t, "GET /healthz", host); a.status < 400 {
				t.Errorf("with the gateway gone: %d", a.status)
			}
			d.cutOff = true
		})
	}
}

// The file of the docs is one that check passes.
func TestDecisionExample(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routes.yaml")
	write(t, file, example(t, "Beside another proxy", "yaml"))
	if status, printed := command(t, "", "check", "--config", file); status != 0 || strings.Contains(printed, "warning") {
		t.Errorf("%d: %s", status, printed)
	}
}
