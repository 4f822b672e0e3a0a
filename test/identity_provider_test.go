package test

import (
	"net/http"
	"testing"
)

// startOIDC gives a gateway for a real identity provider, which is not started yet.
func startOIDC(t *testing.T) (*gateway, *oidc, *backend) {
	t.Helper()
	o, b := newOIDC(t), newBackend(t)
	return start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    jwks:
      refresh: 2s
      min_refresh_interval: 1s
routes:
  - match: GET /heroes/{id}
    privileges: [READ_HEROES]
    upstream: BACKEND
  - match: POST /heroes/{id}
    privileges: [CREATE_HERO]
    upstream: BACKEND
`, "IDP", o.URL, "BACKEND", b.URL)), o, b
}

// TestRealIdentityProvider is one story: down at start, up, its keys rotated
// and retired, and dead again.
func TestRealIdentityProvider(t *testing.T) {
	t.Parallel()
	g, o, b := startOIDC(t)
	get := func(token string) answer { return g.do(t, "GET /heroes/1", bearer(token)) }

	// Down at start: nobody can tell whether this token is genuine.
	unknowable := newSigner(t, "RS256", "RS256-1").sign(t, claims{"iss": o.URL, "aud": audience, "exp": 4102444800})
	a := get(unknowable)
	a.refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	b.untouched(t)

	o.start(t)
	old := o.token(t, "reader", "RS256")
	eventually(t, "the provider is found", func() bool { return get(old).status == http.StatusOK })
	b.last(t).has(t, "x-jwt-sub", "reader")
	b.last(t).has(t, "x-jwt-iss", o.URL)
	get(unknowable).refused(t, http.StatusUnauthorized, "invalid_token")
	for _, alg := range []string{"RS256", "ES256"} {
		get(o.token(t, "writer", alg)).is(t, http.StatusOK)
		g.do(t, "POST /heroes/1", "Content-Length: 0", bearer(o.token(t, "writer", alg))).is(t, http.StatusOK)
		g.do(t, "POST /heroes/1", "Content-Length: 0", bearer(o.token(t, "reader", alg))).refused(t, http.StatusForbidden, "insufficient_privileges")
	}

	// New keys are found, old ones go on until they are no longer published.
	o.tell(t, "rotate")
	for _, alg := range []string{"RS256", "ES256"} {
		fresh := o.token(t, "reader", alg)
		eventually(t, "the new key is found", func() bool { return get(fresh).status == http.StatusOK })
	}
	get(old).is(t, http.StatusOK)
	o.tell(t, "retire")
	eventually(t, "the old key is dropped", func() bool { return get(old).status == http.StatusUnauthorized })
	get(old).refused(t, http.StatusUnauthorized, "invalid_token")

	// Dead again: its keys are still known, and a refresh that fails loses none.
	last := o.token(t, "reader", "ES256")
	o.kill()
	g.output.says(t, "connection refused")
	get(last).is(t, http.StatusOK)
	if got := g.probe("/readyz"); got != http.StatusOK {
		t.Errorf("/readyz: %d", got)
	}
}
