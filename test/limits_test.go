package test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

const limitsYAML = `
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
limits:
  per_user:
    key: [claim:sub]
    rate: 3/1h
  per_client:
    key: [claim:client_id]
    rate: 2/1h
  per_ip:
    key: [ip]
    rate: 100/1h
    burst: 4
  per_route:
    key: [route]
    rate: 1/1h
routes:
  - match: /users/{id}
    privileges: []
    limits: [per_user]
    upstream: BACKEND
  - match: /clients/{id}
    privileges: []
    limits: [per_client]
    upstream: BACKEND
  - match: /ip/{id}
    privileges: []
    limits: [per_ip]
    upstream: BACKEND
  - match: /route/{id}
    public: true
    limits: [per_route]
    upstream: BACKEND
  - match: /free/{id}
    privileges: []
    upstream: BACKEND
`

func startLimits(t *testing.T) (*gateway, *backend, *idp) {
	t.Helper()
	p, b := newIDP(t), newBackend(t)
	return start(t, fill(limitsYAML, "IDP", p.URL, "BACKEND", b.URL)), b, p
}

func TestLimitPerUser(t *testing.T) {
	t.Parallel()
	g, b, p := startLimits(t)
	for range 3 {
		g.do(t, "GET /users/1", bearer(p.token(t))).is(t, http.StatusOK) // each with a token of its own
	}
	a := g.do(t, "GET /users/1", bearer(p.token(t)))
	a.refused(t, http.StatusTooManyRequests, "rate_limited")
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 1200 {
		t.Errorf("Retry-After is %q, want up to 1200 s", a.header.Get("Retry-After"))
	}
	policy, state := a.header.Get("RateLimit-Policy"), a.header.Get("RateLimit")
	for _, want := range []string{`"per_user"`, "q=3", "w=3600"} {
		if !strings.Contains(policy, want) {
			t.Errorf("RateLimit-Policy is %q, want %s", policy, want)
		}
	}
	for _, want := range []string{`"per_user"`, "r=0", "t="} {
		if !strings.Contains(state, want) {
			t.Errorf("RateLimit is %q, want %s", state, want)
		}
	}
	if b.count() != 3 {
		t.Errorf("%d requests reached the backend", b.count())
	}
	// Another user and another route have buckets of their own, and a refused
	// token none.
	g.do(t, "GET /users/1", bearer(p.token(t, claims{"sub": "bob"}))).is(t, http.StatusOK)
	g.do(t, "GET /free/1", bearer(p.token(t))).is(t, http.StatusOK)
	for range 5 {
		g.do(t, "GET /users/1", bearer(p.token(t, claims{"sub": "carol", "aud": "x"}))).refused(t, http.StatusUnauthorized, "invalid_token")
	}
	g.do(t, "GET /users/1", bearer(p.token(t, claims{"sub": "carol"}))).is(t, http.StatusOK)
}

func TestLimitPerClient(t *testing.T) {
	t.Parallel()
	g, _, p := startLimits(t)
	for _, sub := range []string{"alice", "bob"} {
		g.do(t, "GET /clients/1", bearer(p.token(t, claims{"sub": sub}))).is(t, http.StatusOK)
	}
	g.do(t, "GET /clients/1", bearer(p.token(t, claims{"sub": "carol"}))).refused(t, http.StatusTooManyRequests, "rate_limited")
	g.do(t, "GET /clients/1", bearer(p.token(t, claims{"client_id": "kiosk"}))).is(t, http.StatusOK)
}

func TestLimitPerIPComesBeforeTheToken(t *testing.T) {
	t.Parallel()
	g, b, p := startLimits(t)
	for range 4 {
		// An untrusted X-Forwarded-For makes nobody somebody else.
		g.do(t, "GET /ip/1", bearer("abc"), "X-Forwarded-For: 9.9.9."+strconv.Itoa(b.count())).refused(t, http.StatusUnauthorized, "invalid_token")
	}
	g.do(t, "GET /ip/1", bearer("abc"), "X-Forwarded-For: 9.9.9.9").refused(t, http.StatusTooManyRequests, "rate_limited")
	g.do(t, "GET /ip/1", bearer(p.token(t))).refused(t, http.StatusTooManyRequests, "rate_limited")
	b.untouched(t)
}

func TestLimitPerRoute(t *testing.T) {
	t.Parallel()
	g, _, _ := startLimits(t)
	g.do(t, "GET /route/1").is(t, http.StatusOK)
	g.do(t, "GET /route/2").refused(t, http.StatusTooManyRequests, "rate_limited")
}

// TestLimitTakesIPv6ByNetwork: one caller has 2^64 addresses, and a proxy that
// is trusted says which.
func TestLimitTakesIPv6ByNetwork(t *testing.T) {
	t.Parallel()
	g := start(t, fill(`
server:
  ADDRESSES
  trusted_proxies: [127.0.0.1/32]
limits:
  per_ip:
    key: [ip]
    rate: 2/1h
routes:
  - match: /{rest...}
    public: true
    limits: [per_ip]
    upstream: BACKEND
`, "BACKEND", newBackend(t).URL))
	from := func(address string) answer { return g.do(t, "GET /x", "X-Forwarded-For: "+address) }
	from("2001:db8:1:2::1").is(t, http.StatusOK)
	from("2001:db8:1:2:ffff::7").is(t, http.StatusOK)
	from("2001:db8:1:2::9").refused(t, http.StatusTooManyRequests, "rate_limited")
	from("2001:db8:1:3::1").is(t, http.StatusOK)
	from("192.0.2.1").is(t, http.StatusOK)
	from("::ffff:192.0.2.1").is(t, http.StatusOK) // the same one
	from("192.0.2.1").refused(t, http.StatusTooManyRequests, "rate_limited")
	// What the caller itself put before the proxy's word counts for nothing.
	from("198.51.100.1, 192.0.2.1").refused(t, http.StatusTooManyRequests, "rate_limited")
	from("nonsense, 192.0.2.1").refused(t, http.StatusTooManyRequests, "rate_limited")
}

func TestReloadRefillsNoBucket(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	text := fill(limitsYAML, "IDP", p.URL, "BACKEND", b.URL)
	g := start(t, text)
	g.do(t, "GET /route/1").is(t, http.StatusOK)
	g.reload(t, text+fill(`
  - match: /new/{id}
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	eventually(t, "the new file is in force", func() bool { return g.do(t, "GET /new/1").status == http.StatusOK })
	g.do(t, "GET /route/1").refused(t, http.StatusTooManyRequests, "rate_limited")
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("%d fetches of the key set; the reload should have kept the keys", n)
	}
}
