package test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestClientCannotSpeakForTheGateway(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
headers:
  claims:
    sub: sub
    mail:
      claim: email
      header: X-User-Email
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
  - match: /public/{id}
    public: true
    upstream: BACKEND
  - match: /optional/{id}
    auth: optional
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	forged := []string{}
	for _, name := range []string{
		"x-jwt-sub", "X-JWT-Sub", "X-Jwt-Sub", "x_jwt_sub", "X_JWT_SUB", "x.jwt.sub", "X.Jwt-sub", "x-jwt_sub", "x~jwt~sub", "x!jwt!sub", "x-jwt-", "x-jwt-admin", "x_jwt_anything", "x'jwt'a", "x|jwt|b", "x#jwt#c", "x+jwt+d", "x*jwt*e", "x^jwt^f", "x`jwt`g", "x$jwt$h", "x%jwt%i", "x&jwt&j",
		"X-User-Email", "x_user_email", "X.User.Email", "X-USER_EMAIL",
		"X-Forwarded-For", "X_Forwarded_For", "X.Forwarded.For", "X-Forwarded-Host", "X-Forwarded-Proto", "x_forwarded_proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Uri", "X-Forwarded-Anything", "Forwarded", "X-Real-IP", "X_Real_IP", "X-Request-Id", "x_request_id",
		"Traceparent", "Tracestate", "trace_state", "Client-Cert", "Client-Cert-Chain", "Client_Cert",
	} {
		if name != "trace_state" { // is no spelling of tracestate
			forged = append(forged, name+": smuggled")
		}
	}
	token := p.token(t, claims{"email": "alice@heroes.example"})
	for _, more := range [][]string{
		nil,
		{"Connection: x-jwt-sub, x-user-email, x-request-id, x-forwarded-for"},
		{"Connection: , X-Jwt-Sub"},
		{"Connection: keep-alive, X-Jwt-Sub", "Connection: Authorization"},
		{"Te: trailers", "Connection: Te, content-length, transfer-encoding"},
	} {
		g.do(t, "GET /heroes/1", append(append([]string{bearer(token)}, forged...), more...)...).is(t, http.StatusOK)
		got := b.last(t)
		got.clean(t, "smuggled")
		got.has(t, "x-jwt-sub", "alice")
		got.has(t, "x-user-email", "alice@heroes.example")
		got.has(t, "x-forwarded-for", "127.0.0.1")
	}
	// Where the claim, or the token, is missing the client's header must not stand in for it.
	g.do(t, "GET /heroes/1", append([]string{bearer(p.token(t))}, forged...)...).is(t, http.StatusOK)
	b.last(t).clean(t, "smuggled")
	b.last(t).lacks(t, "x-user-email")
	for _, path := range []string{"/public/1", "/optional/1"} {
		g.do(t, "GET "+path, forged...).is(t, http.StatusOK)
		b.last(t).clean(t, "smuggled")
		b.last(t).lacks(t, "x-jwt-sub")
	}
}

func TestTrailersCannotSpeakForTheGateway(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	a := g.send(t, "POST /heroes/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+bearer(p.token(t))+"\r\n"+
		"Transfer-Encoding: chunked\r\nTrailer: x-jwt-sub, x_jwt_admin, X-Checksum, X-Forwarded-For\r\n\r\n"+
		"5\r\nhello\r\n0\r\nx-jwt-sub: smuggled\r\nx_jwt_admin: smuggled\r\nX-Checksum: abc\r\nX-Forwarded-For: smuggled\r\n\r\n")
	a.is(t, http.StatusOK)
	got := b.last(t)
	got.clean(t, "smuggled")
	got.has(t, "x-jwt-sub", "alice")
	if got.body != "hello" {
		t.Errorf("the body became %q", got.body)
	}
	if _, trailers, _ := strings.Cut(got.raw, "\r\n0\r\n"); !strings.Contains(strings.ToLower(trailers), "x-checksum: abc") {
		t.Errorf("the harmless trailer is lost:\n%s", got.raw)
	}
}

func TestClaimsBecomeHeaders(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	extra := `"text":"plain, with a comma","unicode":"Zoë","percent":"100%","space":" x ","control":"a\r\nX-Evil: 1\u0000b\tc","delete":"\u007f",` +
		`"int":12345678901234567890,"float":1.50,"exponent":1.0E+2,"yes":true,"no":false,"null":null,"empty":"","none":[],"nothing":[null,""],` +
		`"list":["a","b,c","d e"," f","g\nh","é"],"mixed":[1,true,null,"","x"],"object":{"b": 1, "a": [1, 2]},"nested":[["a"], {"b": 1}],` +
		`"userID":"u1","X5T":"x5t","https://x.example/roles":"r","--odd--Name--":"o","ünï":"n","🦸":"gone",` +
		`"team_id":"t1","teamId":"t2","client-id":"smuggled",`
	token := p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good()), "{", "{"+extra, 1))
	g.do(t, "GET /heroes/1", bearer(token)).is(t, http.StatusOK)
	got := b.last(t)
	for name, value := range map[string]string{
		"text": "plain, with a comma", "unicode": "Zo%C3%AB", "percent": "100%25", "space": "%20x%20", "control": "a%0D%0AX-Evil: 1%00b%09c", "delete": "%7F",
		"int": "12345678901234567890", "float": "1.50", "exponent": "1.0E+2", "yes": "true", "no": "false",
		"list": "a,b%2Cc,d e,%20f,g%0Ah,%C3%A9", "mixed": "1,true,x", "object": `{"b":1,"a":[1,2]}`,
		"user-id": "u1", "x5t": "x5t", "https-x-example-roles": "r", "odd-name": "o", "n": "n",
		"sub": "alice", "aud": audience, "iss": p.URL, "privileges": "READ_HEROES",
		"client-id": "shop", // the registered client_id wins over client-id
	} {
		got.has(t, "x-jwt-"+name, value)
	}
	for _, name := range []string{"null", "empty", "none", "nothing", "team-id", ""} {
		got.lacks(t, "x-jwt-"+name)
	}
	got.lacks(t, "x-evil")
	got.clean(t, "gone")
	got.clean(t, "smuggled")
}

func TestChosenClaimsOnly(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
headers:
  prefix: x-id-
  claims:
    user: sub
    roles: realm_access.roles
    groups:
      claim: groups
      type: list
    mail:
      claim: email
      header: X-User-Email
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	g.do(t, "GET /heroes/1", "X-Jwt-Sub: mine", "X-Id-Other: smuggled", bearer(p.token(t, claims{
		"realm_access": claims{"roles": []string{"a", "b"}}, "groups": []string{"x,y", "z"}, "email": "a@b.example",
	}))).is(t, http.StatusOK)
	got := b.last(t)
	got.has(t, "x-id-user", "alice")
	got.has(t, "x-id-roles", "a,b")
	got.has(t, "x-id-groups", "x%2Cy,z")
	got.has(t, "x-user-email", "a@b.example")
	got.has(t, "x-jwt-sub", "mine") // not the gateway's here
	got.lacks(t, "x-id-jti")
	got.clean(t, "smuggled")
	// A claim of another type than list gives no header.
	g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"groups": "x,y"}))).is(t, http.StatusOK)
	b.last(t).lacks(t, "x-id-groups")
}

func TestTooManyClaimsAre431(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"big": strings.Repeat("x", 9000)}))).
		refused(t, http.StatusRequestHeaderFieldsTooLarge, "header_too_large")
	b.untouched(t)
}

func TestBackendCannotSpeakForTheGateway(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	b.Answer = "HTTP/1.1 200 OK\r\nX-Jwt-Sub: leaked\r\nx_jwt_admin: leaked\r\nX.Jwt.Role: leaked\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\nok"
	a := g.do(t, "GET /heroes/1", bearer(p.token(t)))
	a.is(t, http.StatusOK)
	for name, values := range a.header {
		if strings.Contains(strings.Join(values, ""), "leaked") {
			t.Errorf("the caller got %s", name)
		}
	}
	if a.header.Get("X-Own") != "kept" {
		t.Error("the backend's own header is lost")
	}
}

func TestTokenIsRemovedUnlessForwarded(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
  - match: /forwarded/{id}
    privileges: []
    forward_token: true
    upstream: BACKEND
  - match: /optional/{id}
    auth: optional
    privileges: []
    upstream: BACKEND
  - match: /public/{id}
    public: true
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	token := p.token(t)
	g.do(t, "GET /heroes/1", bearer(token)).is(t, http.StatusOK)
	b.last(t).clean(t, token)
	g.do(t, "GET /forwarded/1", bearer(token)).is(t, http.StatusOK)
	b.last(t).has(t, "authorization", "Bearer "+token)
	b.last(t).has(t, "x-jwt-sub", "alice")

	// Public: neither read nor removed, good or not.
	for _, credentials := range []string{"Basic YWxpY2U6c2VjcmV0", "Bearer not-a-token", "Bearer " + token} {
		g.do(t, "GET /public/1", "Authorization: "+credentials).is(t, http.StatusOK)
		b.last(t).has(t, "authorization", credentials)
		b.last(t).lacks(t, "x-jwt-sub")
	}

	g.do(t, "GET /optional/1").is(t, http.StatusOK)
	b.last(t).lacks(t, "x-jwt-sub")
	g.do(t, "GET /optional/1", bearer(token)).is(t, http.StatusOK)
	b.last(t).has(t, "x-jwt-sub", "alice")
	b.last(t).clean(t, token)
	before := b.count()
	g.do(t, "GET /optional/1", bearer(token+"x")).refused(t, http.StatusUnauthorized, "invalid_token")
	if b.count() != before {
		t.Error("a bad token passed an optional route")
	}
}

var (
	traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
	someTrace   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)

func TestForwardingHeadersOfStrangersAreReplaced(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	g.do(t, "GET /heroes/1", bearer(p.token(t)), "Host: api.heroes.example", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example",
		"Forwarded: for=9.9.9.9", "X-Request-Id: theirs", "Traceparent: "+someTrace, "Tracestate: a=b").is(t, http.StatusOK)
	got := b.last(t)
	got.has(t, "x-forwarded-for", "127.0.0.1")
	got.has(t, "x-forwarded-proto", "http")
	got.has(t, "x-forwarded-host", "api.heroes.example")
	for _, name := range []string{"forwarded", "tracestate"} {
		got.lacks(t, name)
	}
	if id := got.header("x-request-id"); len(id) != 1 || id[0] == "" || id[0] == "theirs" {
		t.Errorf("X-Request-Id is %q", id)
	}
	if trace := got.header("traceparent"); len(trace) != 1 || !traceparent.MatchString(trace[0]) || strings.Contains(trace[0], "4bf92f35") {
		t.Errorf("traceparent is %q", trace)
	}
}

func TestForwardingHeadersOfTrustedProxiesAreExtended(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
server:
  ADDRESSES
  trusted_proxies: [127.0.0.0/8]
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	g.do(t, "GET /heroes/1", bearer(p.token(t)), "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: public.example", "X_Forwarded_Proto: smuggled",
		"X.Forwarded.For: smuggled", "x-jwt-sub: smuggled", "X-Request-Id: theirs", "Traceparent: "+someTrace, "Tracestate: a=b").is(t, http.StatusOK)
	got := b.last(t)
	got.has(t, "x-forwarded-for", "9.9.9.9, 127.0.0.1")
	got.has(t, "x-forwarded-proto", "https")
	got.has(t, "x-forwarded-host", "public.example")
	got.has(t, "x-request-id", "theirs")
	got.has(t, "tracestate", "a=b")
	got.has(t, "x-jwt-sub", "alice")
	got.clean(t, "smuggled")
	if trace := got.header("traceparent"); len(trace) != 1 || !strings.HasPrefix(trace[0], someTrace[:35]) {
		t.Errorf("traceparent is %q", trace)
	}
	refusal := g.do(t, "GET /heroes/1", "X-Request-Id: theirs-too").refused(t, http.StatusUnauthorized, "missing_token")
	if refusal.RequestID != "theirs-too" {
		t.Errorf("request_id is %q", refusal.RequestID)
	}
	// What a header may not hold in a log is no request id, whoever sends it.
	if id := g.do(t, "GET /heroes/1", "X-Request-Id: "+strings.Repeat("x", 5000)).refused(t, http.StatusUnauthorized, "missing_token").RequestID; len(id) > 500 {
		t.Errorf("a request id of %d bytes was taken", len(id))
	}
}

func TestBackendGetsTheBodyAndNoHopByHopHeaders(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	a := g.send(t, "POST /heroes/1 HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop\r\nX-Hop: gone\r\nKeep-Alive: gone\r\nProxy-Authorization: Basic gone\r\nProxy-Connection: gone\r\nX-End: end\r\n"+
		bearer(p.token(t, claims{"exp": time.Now().Add(time.Minute).Unix()}))+"\r\nContent-Length: 5\r\n\r\nhello")
	a.is(t, http.StatusOK)
	got := b.last(t)
	got.clean(t, "gone")
	got.has(t, "x-end", "end")
	got.has(t, "content-length", "5")
	if got.body != "hello" {
		t.Errorf("the body became %q", got.body)
	}
}
