package test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// startRewrites gives a gateway with one route for each rewrite.
func startRewrites(t *testing.T) (*gateway, *backend, *idp) {
	t.Helper()
	p, b := newIDP(t), newBackend(t)
	return start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
defaults:
  response_headers:
    set:
      X-Frame-Options: DENY
      Content-Type: text/plain
routes:
  - match: /heroes-service/{rest...}
    privileges: []
    upstream: BACKEND/base
    strip_prefix: /heroes-service
    add_prefix: /v2
    rewrite_host: heroes.internal:8080
    request_headers:
      set:
        X-Tenant: blue
        Authorization: Basic YmFja2VuZA==
      add:
        X-List: gate
      remove: [User-Agent, X-Secret]
    response_headers:
      set:
        X-Frame-Options: SAMEORIGIN
      add:
        X-Backend: gate
      remove: [Server]
    rewrite_cookies:
      domain:
        heroes.internal: api.example.com
      path:
        /: /heroes-service
        /v2: /heroes-service/v2
  - match: /target
    public: true
    upstream: BACKEND
    rewrite_host: target
  - match: /plain
    public: true
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL)), b, p
}

func TestRequestsAreRewritten(t *testing.T) {
	t.Parallel()
	g, b, p := startRewrites(t)
	token := p.token(t)
	g.do(t, "GET /heroes-service/a%20b/?q=%zz;&r", bearer(token), "User-Agent: curl", "X-Secret: s", "X-Tenant: red", "X-Tenant: green",
		"X-List: client", "Connection: x-tenant, x-list", "X-Jwt-Sub: eve").is(t, http.StatusOK)
	r := b.last(t)
	if r.line() != "GET /base/v2/a%20b/?q=%zz;&r HTTP/1.1" {
		t.Errorf("the backend got %s", r.line())
	}
	r.has(t, "Host", "heroes.internal:8080")
	r.has(t, "X-Forwarded-Host", "gatehouse.example")
	r.has(t, "X-Tenant", "blue") // though the client would have it removed
	r.has(t, "Authorization", "Basic YmFja2VuZA==")
	r.has(t, "X-Jwt-Sub", "alice")
	r.lacks(t, "User-Agent")
	r.lacks(t, "X-Secret")
	r.clean(t, token)
	if got := r.header("X-List"); !slices.Equal(got, []string{"gate"}) { // the client's own was hop-by-hop
		t.Errorf("X-List is %q", got)
	}
	g.do(t, "GET /heroes-service/", bearer(token), "X-List: client").is(t, http.StatusOK)
	if got := b.last(t).header("X-List"); !slices.Equal(got, []string{"client", "gate"}) {
		t.Errorf("X-List is %q", got)
	}
	for request, line := range map[string]string{
		"GET /heroes-service":     "GET /base/v2/ HTTP/1.1",
		"GET /heroes-service/":    "GET /base/v2/ HTTP/1.1",
		"GET /heroes-service/v2/": "GET /base/v2/v2/ HTTP/1.1",
	} {
		if a := g.do(t, request, bearer(token)); a.status == http.StatusOK && b.last(t).line() != line {
			t.Errorf("%s became %s, want %s", request, b.last(t).line(), line)
		}
	}
	before := b.count()
	for _, path := range []string{"/heroes-service//admin", "/heroes-service/../admin", "/heroes-service/%2e%2e/admin", "/heroes-service/a/%2fadmin", "/heroes-service/x;/../admin"} {
		g.do(t, "GET "+path, bearer(token)).refused(t, http.StatusBadRequest, "bad_path")
	}
	if b.count() != before {
		t.Error("a path with two readings reached the backend")
	}

	g.do(t, "GET /target").is(t, http.StatusOK)
	b.last(t).has(t, "Host", strings.TrimPrefix(b.URL, "http://"))
	g.do(t, "GET /plain").is(t, http.StatusOK)
	b.last(t).has(t, "Host", "gatehouse.example")
}

// TestRewrittenHeadersHaveNoAlias: a backend that folds names, as CGI does, finds
// the gateway's value alone, and none where there is to be none.
func TestRewrittenHeadersHaveNoAlias(t *testing.T) {
	t.Parallel()
	g, b, p := startRewrites(t)
	token := p.token(t)
	sent := []string{bearer(token)}
	for _, name := range []string{"X_Tenant", "x.tenant", "X~TENANT", "X-tenant", "X_Secret", "x`secret", "User_Agent", "X_List"} {
		sent = append(sent, name+": eve")
	}
	g.do(t, "GET /heroes-service/", sent...).is(t, http.StatusOK)
	r := b.last(t)
	r.has(t, "X-Tenant", "blue")
	if n := strings.Count(r.raw, "eve"); n != 1 || !strings.Contains(r.raw, "X_list: eve") { // what is added to may be the client's, too
		t.Errorf("the backend got %q", r.raw)
	}
	g.send(t, "POST /heroes-service/ HTTP/1.1\r\nHost: x\r\n"+bearer(token)+"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Tenant, x_secret, X-Sum\r\nConnection: close\r\n\r\n"+
		"2\r\nhi\r\n0\r\nX-Tenant: eve\r\nx_secret: eve\r\nX-Sum: 7\r\n\r\n").is(t, http.StatusOK)
	r = b.last(t)
	if strings.Contains(r.raw, "eve") || strings.Contains(strings.ToLower(r.raw), "secret") || !strings.Contains(r.raw, "X-Sum: 7") {
		t.Errorf("the backend got %q", r.raw)
	}
	g.do(t, "GET /plain", "X_Tenant: eve").is(t, http.StatusOK)
	b.last(t).has(t, "X_tenant", "eve")
}

func TestAnswersAreRewritten(t *testing.T) {
	t.Parallel()
	g, b, p := startRewrites(t)
	b.Answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: secret/1\r\nX-Frame-Options: ALLOW\r\nX-Backend: own\r\n" +
		"Set-Cookie: a=1; Domain=.Heroes.Internal; Path=/v2/x; Odd ; SameSite=None;Secure\r\n" +
		"Set-Cookie: b=\"Path=/v2; \"; path=/; DOMAIN=other.internal\r\n" +
		"Set-Cookie: c=Domain=heroes.internal\r\n" +
		"Set-Cookie: d=4; Path=/v2x\r\n" +
		"Set-Cookie: e=5; Path=relative\r\n\r\n"
	a := g.do(t, "GET /heroes-service/", bearer(p.token(t)))
	a.is(t, http.StatusOK)
	if got, want := a.header["Set-Cookie"], []string{
		`a=1; Domain=api.example.com; Path=/heroes-service/v2/x; Odd ; SameSite=None;Secure`,
		`b="Path=/v2; "; path=/heroes-service/; DOMAIN=other.internal`,
		`c=Domain=heroes.internal`,
		`d=4; Path=/heroes-service/v2x`,
		`e=5; Path=relative`,
	}; !slices.Equal(got, want) {
		t.Errorf("cookies\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if a.header.Get("X-Frame-Options") != "SAMEORIGIN" || a.header["Server"] != nil || !slices.Equal(a.header["X-Backend"], []string{"own", "gate"}) {
		t.Errorf("headers %v", a.header)
	}
	// Security headers are on refusals, too, and what a refusal needs stays.
	a = g.do(t, "GET /heroes-service/")
	a.refused(t, http.StatusUnauthorized, "missing_token")
	if a.header.Get("X-Frame-Options") != "SAMEORIGIN" {
		t.Errorf("a refusal has %v", a.header)
	}
	a = g.do(t, "GET /plain") // the defaults hold where the route has none of its own
	if a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("Content-Type") != "text/plain" {
		t.Errorf("headers %v", a.header)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
limits:
  none:
    key: ip
    rate: 1/1h
routes:
  - match: GET,PUT /heroes
    privileges: []
    upstream: BACKEND
    cors:
      allow_origins: [https://app.example.com, "https://*.example.org"]
      allow_headers: [Authorization, X-Csrf]
      expose_headers: [ETag]
      allow_credentials: true
      max_age: 10m
  - match: DELETE /heroes
    privileges: []
    upstream: BACKEND
  - match: /own
    public: true
    upstream: BACKEND
  - match: POST /open
    privileges: []
    limits: [none]
    upstream: BACKEND
    cors:
      allow_origins: ["*"]
`, "IDP", p.URL, "BACKEND", b.URL))
	const app, method = "Origin: https://app.example.com", "Access-Control-Request-Method: "
	for _, c := range []struct {
		name    string
		request string
		headers []string
		status  int
		origin  string // Access-Control-Allow-Origin
		more    map[string]string
	}{
		{"preflight", "OPTIONS /heroes", []string{app, method + "PUT", "Access-Control-Request-Headers: authorization,x-csrf"}, 204, "https://app.example.com",
			map[string]string{"Access-Control-Allow-Methods": "PUT", "Access-Control-Allow-Headers": "authorization,x-csrf", "Access-Control-Max-Age": "600", "Access-Control-Allow-Credentials": "true"}},
		{"preflight of a subdomain", "OPTIONS /heroes", []string{"Origin: https://a.example.org", method + "GET"}, 204, "https://a.example.org", nil},
		{"preflight of the domain itself", "OPTIONS /heroes", []string{"Origin: https://example.org", method + "GET"}, 204, "", nil},
		{"preflight of another site", "OPTIONS /heroes", []string{"Origin: https://evil.example", method + "GET"}, 204, "", nil},
		{"preflight of a site whose name begins alike", "OPTIONS /heroes", []string{"Origin: https://app.example.com.evil.example", method + "GET"}, 204, "", nil},
		{"preflight of another scheme", "OPTIONS /heroes", []string{"Origin: http://app.example.com", method + "GET"}, 204, "", nil},
		{"preflight of no origin", "OPTIONS /heroes", []string{"Origin: null", method + "GET"}, 204, "", nil},
		{"preflight with a header that is not allowed", "OPTIONS /heroes", []string{app, method + "GET", "Access-Control-Request-Headers: x-other"}, 204, "", nil},
		{"preflight for a route without cors", "OPTIONS /heroes", []string{app, method + "DELETE"}, 405, "", nil},
		{"preflight for a method that has no route", "OPTIONS /heroes", []string{app, method + "PATCH"}, 405, "", nil},
		{"OPTIONS that is no preflight", "OPTIONS /heroes", []string{app}, 405, "", nil},
		{"preflight for an odd path", "OPTIONS /heroes/../heroes", []string{app, method + "GET"}, 400, "", nil},
		{"preflight for everybody", "OPTIONS /open", []string{"Origin: https://any.example", method + "POST", "Access-Control-Request-Headers: authorization"}, 204, "*", nil},
		{"refusal", "GET /heroes", []string{app}, 401, "https://app.example.com", map[string]string{"Access-Control-Expose-Headers": "Etag", "Access-Control-Allow-Credentials": "true"}},
		{"refusal to another site", "GET /heroes", []string{"Origin: https://evil.example"}, 401, "", nil},
		{"answer", "GET /heroes", []string{app, bearer(p.token(t))}, 200, "https://app.example.com", map[string]string{"Access-Control-Expose-Headers": "Etag"}},
		{"answer to another site", "GET /heroes", []string{"Origin: https://evil.example", bearer(p.token(t))}, 200, "", nil},
		{"answer to no page", "GET /heroes", []string{bearer(p.token(t))}, 200, "", nil},
		{"the backend's own matter", "GET /own", []string{app}, 200, "backend", nil},
		{"preflight for the backend", "OPTIONS /own", []string{app, method + "GET"}, 200, "backend", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			// What the backend says must not stand beside what the gateway says.
			b.Answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVary: Accept\r\nAccess-Control-Allow-Origin: backend\r\n\r\n"
			before := b.count()
			a := g.do(t, c.request, c.headers...)
			a.is(t, c.status)
			if got := strings.Join(a.header["Access-Control-Allow-Origin"], "|"); got != c.origin {
				t.Errorf("Access-Control-Allow-Origin is %q, want %q", got, c.origin)
			}
			for name, want := range c.more {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if strings.HasSuffix(c.request, "/heroes") && c.status < 400 && !strings.Contains(strings.Join(a.header["Vary"], ","), "Origin") {
				t.Errorf("Vary is %q: a cache would give one site's answer to another", a.header["Vary"])
			}
			if c.status == 204 && b.count() != before {
				t.Error("the backend was asked")
			}
		})
	}
	// Preflights take nothing from a limit.
	g.do(t, "POST /open", bearer(p.token(t)), "Content-Length: 0").is(t, http.StatusOK)
	g.do(t, "POST /open", bearer(p.token(t)), "Content-Length: 0").refused(t, http.StatusTooManyRequests, "rate_limited")
	g.do(t, "OPTIONS /open", app, method+"POST").is(t, http.StatusNoContent)
}
