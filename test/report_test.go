package test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const reportRoutes = `
server:
  ADDRESSES
  audit:
    file: audit.log
    sample_allows: 1000000
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    may_grant: [A]
  strict:
    issuer: https://strict.example
    audiences: any
    keys: [{file: strict.pem}]
    may_grant: [A]
    mode: enforce
limits:
  own:
    key: [ip, route]
    rate: 1/1h
    mode: enforce
  inherits:
    key: [ip, route]
    rate: 1/1h
defaults:
  mode: report
  issuers: [main, strict]
routes:
  - match: /heroes/{id}
    privileges: [A]
    upstream: BACKEND
  - match: /enforced
    mode: enforce
    privileges: [A]
    upstream: BACKEND
  - match: /policy/{id}
    policy: own
    acr: [gold]
    delegation: deny
    upstream: BACKEND
  - match: /optional
    auth: optional
    upstream: BACKEND
  - match: /limited
    public: true
    limits: [inherits]
    upstream: BACKEND
  - match: /limit-enforced
    public: true
    limits: [own]
    upstream: BACKEND
  - match: /limit-of-enforced
    public: true
    mode: enforce
    limits: [inherits]
    upstream: BACKEND
`

const ownPolicy = `
allow:
  - claims: {hero: {param: id}}
tests:
  - expect: deny
`

const wouldRefuse = "X-Gatehouse-Would-Refuse"

// would fails the test unless the request reached the backend marked with that
// reason, "" for none, and with its token as it came if it is marked.
func would(t *testing.T, b *backend, a answer, reason string, token ...string) {
	t.Helper()
	a.is(t, http.StatusOK)
	if a.header.Get(wouldRefuse) != "" {
		t.Error("the caller was told that the gateway only reports")
	}
	r := b.last(t)
	marks := 0
	for line := range strings.SplitSeq(r.raw, "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok && strings.EqualFold(strings.NewReplacer("_", "-", ".", "-").Replace(name), wouldRefuse) {
			if marks++; value != reason || name != wouldRefuse {
				t.Errorf("the backend was told %q, want %q", line, reason)
			}
		}
	}
	if (marks > 0) != (reason != "") || marks > 1 {
		t.Errorf("%d marks, want %q", marks, reason)
	}
	for _, token := range token {
		if strings.Contains(r.raw, token) != (reason != "") {
			t.Errorf("the backend received the token: %v", reason == "")
		}
	}
}

func TestReportLetsPass(t *testing.T) {
	t.Parallel()
	p, b, strict := newIDP(t), newBackend(t), newSigner(t, "ES256", "")
	g := start(t, fill(reportRoutes, "IDP", p.URL, "BACKEND", b.URL), file{"policies/own.yaml", ownPolicy}, file{"strict.pem", strict.pem(t)})
	good := p.token(t, claims{"privileges": []string{"A"}})
	for _, c := range []struct {
		request, token, reason string
		claims                 bool // become headers
	}{
		{"GET /heroes/1", good, "", true},
		{"GET /heroes/1", "", "missing_token", false},
		{"GET /heroes/1", "abc", "invalid_token", false},
		{"GET /heroes/1", good[:len(good)-9] + "AAAAAAAAA", "invalid_token", false},
		{"GET /heroes/1", p.token(t, claims{"exp": time.Now().Unix() - 3600}), "expired_token", false},
		{"GET /heroes/1", p.token(t, claims{"aud": "https://else.example"}), "invalid_token", false},
		{"GET /heroes/1", p.token(t, claims{"privileges": []string{"B"}}), "insufficient_privileges", true},
		{"GET /policy/7", p.token(t, claims{"hero": 8, "acr": "gold"}), "policy_denied", true},
		{"GET /policy/7", p.token(t, claims{"hero": 7, "acr": "gold"}), "", true},
		{"GET /policy/7", p.token(t, claims{"hero": 7}), "insufficient_user_authentication", true},
		{"GET /policy/7", p.token(t, claims{"hero": 7, "acr": "gold", "act": claims{"sub": "x"}}), "policy_denied", true},
		{"GET /optional", "", "", false},
		{"GET /optional", "abc", "invalid_token", false},
	} {
		headers := []string{"x-gatehouse-would-refuse: forged", "X_Gatehouse_Would.Refuse: forged"}
		if c.token != "" {
			headers = append(headers, bearer(c.token))
		}
		a := g.do(t, c.request, headers...)
		if c.token == "" {
			would(t, b, a, c.reason)
		} else {
			would(t, b, a, c.reason, c.token)
		}
		if has := strings.Contains(b.last(t).raw, "\r\nX-Jwt-Sub: "); has != c.claims {
			t.Errorf("claims became headers: %v", has)
		}
		if t.Failed() {
			t.Fatalf("^ %s, %s", c.request, c.reason)
		}
	}
	g.output.says(t, `"would_refuse":"insufficient_privileges","detail":"missing privilege A`)
	records, err := os.ReadFile(filepath.Join(filepath.Dir(g.config), "audit.log"))
	if err != nil || !strings.Contains(string(records), `"event":"decision","outcome":"allow","would_refuse":"policy_denied"`) {
		t.Errorf("%v, and the audit log has\n%s", err, records)
	}
	for _, line := range []string{
		`gatehouse_would_refuse_total{reason="invalid_token",route="/heroes/{id}"} 3`,
		`gatehouse_would_refuse_total{reason="insufficient_privileges",route="/heroes/{id}"} 1`,
		`gatehouse_requests_total{reason="",route="/heroes/{id}",status="200"} 7`,
	} {
		if !strings.Contains(g.metrics(t), line) {
			t.Errorf("no metric %s", line)
		}
	}
}

func TestReportEnforcesAllElse(t *testing.T) {
	t.Parallel()
	p, b, strict := newIDP(t), newBackend(t), newSigner(t, "ES256", "")
	g := start(t, fill(reportRoutes, "IDP", p.URL, "BACKEND", b.URL), file{"policies/own.yaml", ownPolicy}, file{"strict.pem", strict.pem(t)})
	poor := p.token(t, claims{"privileges": []string{}})
	for _, c := range []struct {
		request string
		status  int
		reason  string
		headers []string
	}{
		{"GET /enforced", 401, "missing_token", nil},
		{"GET /enforced", 403, "insufficient_privileges", []string{bearer(poor)}},
		{"GET /heroes/1", 400, "bad_request", []string{bearer(poor), bearer(poor)}},
		{"GET /heroes/..%2f", 400, "bad_path", nil},
		{"GET /nowhere", 404, "no_route", nil},
		{"GET /heroes/1", 400, "bad_request", []string{"Upgrade: spdy/3.1", "Connection: Upgrade"}},
		{"GET /heroes/1", 431, "header_too_large", []string{bearer(p.token(t, claims{"long": strings.Repeat("x", 9000)}))}},
		// An issuer's own mode covers the tokens that select it, verified or not.
		{"GET /heroes/1", 403, "insufficient_privileges", []string{bearer(strict.sign(t, p.good(claims{"iss": "https://strict.example", "privileges": []string{}})))}},
		{"GET /heroes/1", 401, "invalid_token", []string{bearer(p.token(t, claims{"iss": "https://strict.example"}))}},
	} {
		g.do(t, c.request, c.headers...).refused(t, c.status, c.reason)
		if t.Failed() {
			t.Fatalf("^ %s, %s", c.request, c.reason)
		}
	}
	b.untouched(t)
}

// TestReportOfAnIssuer: what one says of its own tokens opens no route that
// says otherwise.
func TestReportOfAnIssuer(t *testing.T) {
	t.Parallel()
	p, b, next := newIDP(t), newBackend(t), newSigner(t, "ES256", "")
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    may_grant: [A]
  next:
    issuer: https://next.example
    audiences: any
    keys: [{file: next.pem}]
    may_grant: [A]
    mode: report
defaults:
  issuers: [main, next]
routes:
  - match: /heroes
    privileges: [A]
    upstream: BACKEND
  - match: /enforced
    mode: enforce
    privileges: [A]
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL), file{"next.pem", next.pem(t)})
	poor := next.sign(t, p.good(claims{"iss": "https://next.example", "privileges": []string{}}))
	g.do(t, "GET /heroes").refused(t, 401, "missing_token")
	g.do(t, "GET /heroes", bearer(p.token(t, claims{"privileges": []string{}}))).refused(t, 403, "insufficient_privileges")
	g.do(t, "GET /heroes", bearer("abc")).refused(t, 401, "invalid_token")
	g.do(t, "GET /enforced", bearer(poor)).refused(t, 403, "insufficient_privileges")
	b.untouched(t)
	would(t, b, g.do(t, "GET /heroes", bearer(poor)), "insufficient_privileges", poor)
}

func TestReportOfLimits(t *testing.T) {
	t.Parallel()
	p, b, strict := newIDP(t), newBackend(t), newSigner(t, "ES256", "")
	g := start(t, fill(reportRoutes, "IDP", p.URL, "BACKEND", b.URL), file{"policies/own.yaml", ownPolicy}, file{"strict.pem", strict.pem(t)})
	for _, path := range []string{"/limited", "/limit-enforced", "/limit-of-enforced"} {
		would(t, b, g.do(t, "GET "+path), "")
	}
	would(t, b, g.do(t, "GET /limited"), "rate_limited")
	g.do(t, "GET /limit-enforced").refused(t, 429, "rate_limited")
	g.do(t, "GET /limit-of-enforced").refused(t, 429, "rate_limited")
}

func TestReportPassesWhileTheIssuerIsDown(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	token := p.token(t)
	p.serveDiscovery(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /heroes
    mode: report
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	would(t, b, g.do(t, "GET /heroes", bearer(token)), "issuer_unavailable", token)
	if strings.Contains(b.last(t).raw, "X-Jwt-") {
		t.Error("claims that nobody verified became headers")
	}
}

// TestReportRefusesRevokedTokens, verified or not, and where nobody can tell.
func TestReportRefusesRevokedTokens(t *testing.T) {
	t.Parallel()
	p, b, r := newIDP(t), newBackend(t), startRedis(t)
	g := start(t, fill(`
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
revocation:
  check: [jti]
routes:
  - match: /heroes
    mode: report
    privileges: [A]
    upstream: BACKEND
`, "IDP", p.URL, "REDIS", r.URL, "BACKEND", b.URL))
	tokens := map[string]string{
		"insufficient_privileges": p.token(t, claims{"jti": "poor", "privileges": []string{}}),
		"expired_token":           p.token(t, claims{"jti": "old", "exp": time.Now().Unix() - 3600}),
		"invalid_token":           p.token(t, claims{"jti": "other", "aud": "https://else.example"}),
	}
	for reason, token := range tokens {
		would(t, b, g.do(t, "GET /heroes", bearer(token)), reason, token)
	}
	for _, jti := range []string{"poor", "old", "other"} {
		r.do(t, "SET", "revoked:jti:main:"+jti, "1", "EX", "600")
	}
	before := b.count()
	for _, token := range tokens {
		g.do(t, "GET /heroes", bearer(token)).refused(t, http.StatusUnauthorized, "revoked_token")
	}
	r.proc.kill()
	for _, token := range tokens {
		g.do(t, "GET /heroes", bearer(token)).refused(t, http.StatusServiceUnavailable, "store_unavailable")
	}
	if b.count() != before {
		t.Error("a refused request reached the backend")
	}
	would(t, b, g.do(t, "GET /heroes"), "missing_token") // of no token is anything to be asked
}

// TestReportLetsLast: a request goes on when its token expires, and ends when
// it is revoked.
func TestReportLetsLast(t *testing.T) {
	t.Parallel()
	p, r := newIDP(t), startRedis(t)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("first"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(b.Close)
	g := start(t, fill(`
server:
  ADDRESSES
  audit:
    file: audit.log
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    leeway: 0s
revocation:
  mode: replica
  check: [jti]
routes:
  - match: /waits
    mode: report
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "REDIS", r.URL, "BACKEND", b.URL))
	conn := dial(t, g.listen)
	t.Cleanup(func() { _ = conn.Close() }) // held till then: what is forgotten is closed
	token := p.token(t, claims{"jti": "one", "exp": float64(time.Now().UnixMilli())/1000 + 4})
	if _, err := conn.Write([]byte("GET /waits HTTP/1.1\r\nHost: h\r\n" + bearer(token) + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	g.output.says(t, "would have ended with its token")
	if strings.Contains(g.output.String(), `"msg":"ended with its token"`) {
		t.Error("it ended")
	}
	r.do(t, "SET", "revoked:jti:main:one", "1", "EX", "600")
	g.output.says(t, `"msg":"ended with its token"`)
	eventually(t, "three records", func() bool { return len(g.audit(t, "decision")) == 3 })
	for i, r := range g.audit(t, "decision") {
		if want := []any{"allow", "allow", "end"}[i]; r["outcome"] != want || r["would_refuse"] != []any{nil, "expired_token", nil}[i] || r["reason"] != []any{nil, nil, "revoked_token"}[i] {
			t.Errorf("record %d is %v", i, r)
		}
	}
	g.cutOff = true
}
