package test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// asking is a part of an issuer's section: it asks the idp, about which tokens
// and with which further keys is filled in.
const asking = `
    introspection:
      when: WHEN
      auth:
        client_id: gatehouse
        client_secret: gatehouse-secret`

const opaqueToken = "mF_9.B5f-4.1JqM-opaque-token-of-alice"

// said is what an idp says of an opaque token.
func (p *idp) said(changes ...claims) claims {
	return p.good(claims{"active": true}).with(changes...)
}

func TestOpaqueTokens(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	token := minted(opaqueToken)
	p.says(t, p.said(), token)
	g, b := startFor(t, p, fill(asking, "WHEN", "opaque")+"\n      interval: 1h")
	get := func(token string) answer { return g.do(t, "GET /heroes/1", bearer(token)) }

	for range 3 {
		get(token).is(t, http.StatusOK)
	}
	b.last(t).has(t, "x-jwt-sub", "alice")
	b.last(t).lacks(t, "authorization")
	if got := p.asked.Load(); got != 1 {
		t.Errorf("%d calls for one token", got)
	}
	a := get(minted("somebody-elses-token"))
	a.refused(t, http.StatusUnauthorized, "invalid_token")
	a.challenges(t, "invalid_token")
	if got := p.asked.Load(); got != 2 {
		t.Errorf("%d calls for two tokens", got)
	}
	// JWTs are nobody's business, good or bad.
	get(p.token(t)).is(t, http.StatusOK)
	get(newSigner(t, "ES256", p.kid).sign(t, p.good())).refused(t, http.StatusUnauthorized, "invalid_token")
	if got := p.asked.Load(); got != 2 {
		t.Errorf("the provider was asked about a JWT: %d calls", got)
	}

	for name, answer := range map[string]claims{
		"without an audience":        p.said(claims{"aud": nil}),
		"for another audience":       p.said(claims{"aud": "https://other.example"}),
		"of another issuer":          p.said(claims{"iss": "https://other.example"}),
		"without word that it lives": p.said(claims{"active": false}),
	} {
		p.says(t, answer)
		if a := get(minted("token-" + strings.ReplaceAll(name, " ", "-"))); a.status != http.StatusUnauthorized {
			t.Errorf("a token %s: %d", name, a.status)
		}
	}
	p.says(t, p.said(claims{"privileges": []string{"OTHER"}}))
	get(minted("token-without-privilege")).refused(t, http.StatusForbidden, "insufficient_privileges")
	get(minted("token-without-privilege")).refused(t, http.StatusForbidden, "insufficient_privileges")

	// A provider that is down is no token's fault, and what it said before holds.
	p.introspect(nil)
	a = get(minted("token-of-nobody-knows-whom"))
	a.refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	get(token).is(t, http.StatusOK)
	if metrics := g.metrics(t); !strings.Contains(metrics, `gatehouse_issuer_fetches_total{issuer="main",kind="introspection",outcome="failure"} 1`) {
		t.Error("the metrics do not tell of the failure")
	}
}

// Whose token it is the configuration knows, also where an answer does not say it:
// it must not pass for one of the issuer whose tokens have no iss.
func TestOpaqueTokenWithoutIss(t *testing.T) {
	t.Parallel()
	p, b, seed := newIDP(t), newBackend(t), newSigner(t, "RS256", "")
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    may_grant: [READ_HEROES]ASKING
  seed:
    issuer: none
    audiences: any
    may_grant: [READ_HEROES]
    keys:
      - file: keys/public.pem
routes:
  - match: /heroes/{id}
    issuers: [main, seed]
    privileges: [READ_HEROES]
    upstream: BACKEND
  - match: /own/{id}
    issuers: [main]
    privileges: [READ_HEROES]
    policy: ours
    upstream: BACKEND
`, "ASKING", fill(asking, "WHEN", "opaque"), "IDP", p.URL, "BACKEND", b.URL), file{"keys/public.pem", seed.pem(t)}, file{"policies/ours.yaml", fill(`
allow:
  - name: of this provider
    claims:
      iss: IDP
tests:
  - claims:
      iss: IDP
    expect: allow
  - claims:
      iss: https://other.example
    expect: deny
`, "IDP", p.URL)})
	token := minted(opaqueToken)
	p.says(t, p.said(claims{"iss": nil}), token)
	for _, path := range []string{"/heroes/1", "/own/1"} {
		g.do(t, "GET "+path, bearer(token)).is(t, http.StatusOK)
		b.last(t).has(t, "x-jwt-iss", p.URL)
	}
	seeded := claims{"sub": "alice", "privileges": []string{"READ_HEROES"}, "exp": time.Now().Add(time.Hour).Unix()}
	g.do(t, "GET /heroes/1", bearer(seed.sign(t, seeded))).is(t, http.StatusOK)
	b.last(t).has(t, "x-jwt-iss", "none")
	p.says(t, p.said(claims{"iss": "none"}))
	g.do(t, "GET /heroes/1", bearer(minted("token-that-says-none"))).refused(t, http.StatusUnauthorized, "invalid_token")
}

// Made-up tokens cost whoever sends them nothing, and the provider a call each.
func TestMissesAreLimited(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	token := minted(opaqueToken)
	p.says(t, p.said(), token)
	g, _ := startFor(t, p, fill(asking, "WHEN", "opaque")+"\n      interval: 1h\n      misses:\n        rate: 3/1h")
	get := func(token string) answer { return g.do(t, "GET /heroes/1", bearer(token)) }
	get(token).is(t, http.StatusOK)
	get(minted("made-up-token-1")).refused(t, http.StatusUnauthorized, "invalid_token")
	get(minted("made-up-token-2")).refused(t, http.StatusUnauthorized, "invalid_token")
	a := get(minted("made-up-token-3"))
	a.refused(t, http.StatusTooManyRequests, "rate_limited")
	for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy"} {
		if a.header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
	// What is remembered, and what is no opaque token, is not asked about.
	get(token).is(t, http.StatusOK)
	get(minted("made-up-token-1")).refused(t, http.StatusUnauthorized, "invalid_token")
	get(p.token(t)).is(t, http.StatusOK)
	if got := p.asked.Load(); got != 3 {
		t.Errorf("the provider was asked about %d tokens", got)
	}
}

func TestJWTsAreAskedAbout(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	g, b := startFor(t, p, fill(asking, "WHEN", "always")+"\n      interval: 1s\n      on_error:\n        max_stale: 1h")
	get := func(token string) answer { return g.do(t, "GET /heroes/1", bearer(token)) }
	jwt := p.token(t)
	p.says(t, p.said(claims{"privileges": nil}), jwt)
	get(jwt).is(t, http.StatusOK)
	b.last(t).has(t, "x-jwt-sub", "alice")

	// Requests that bring one token at the same time share a call.
	other := p.token(t)
	enter, held := make(chan struct{}, 100), make(chan struct{})
	p.introspect(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("token") == other {
			enter <- struct{}{}
			<-held
		}
		_, _ = w.Write([]byte(toJSON(t, p.said())))
	})
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { get(other).is(t, http.StatusOK) })
	}
	receive(t, "the call", enter)
	close(held)
	all.Wait()

	// Withdrawn, it is refused within the interval; a provider that dies then does not revive it.
	p.says(t, claims{"active": false})
	eventually(t, "the token is refused", func() bool { return get(jwt).status == http.StatusUnauthorized })
	get(jwt).refused(t, http.StatusUnauthorized, "revoked_token")
	p.says(t, p.said(claims{"sub": "mallory"}))
	get(p.token(t)).refused(t, http.StatusUnauthorized, "invalid_token")

	p.says(t, p.said())
	last := p.token(t)
	get(last).is(t, http.StatusOK)
	p.introspect(nil)
	before := p.asked.Load()
	eventually(t, "the answer has aged", func() bool { get(last).is(t, http.StatusOK); return p.asked.Load() > before })
	get(last).is(t, http.StatusOK)
	get(jwt).refused(t, http.StatusUnauthorized, "revoked_token")
	get(p.token(t)).refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
}

// An opaque token has no key and no header, and is revoked all the same.
func TestOpaqueTokensAreRevoked(t *testing.T) {
	t.Parallel()
	g, r, p, b := startRevocation(t, fill(asking, "WHEN", "opaque"), "")
	token := minted("opaque-token-that-is-to-be-revoked")
	p.says(t, p.said(claims{"jti": "o1", "iat": time.Now().Unix() - 100}), token)
	get := func() answer { return g.do(t, "GET /heroes/1", bearer(token)) }
	get().is(t, http.StatusOK)
	b.last(t).has(t, "x-jwt-jti", "o1")
	sum := sha256.Sum256([]byte(token))
	for _, key := range []string{"revoked:jti:main:o1", "revoked:jws:main:" + b64(string(sum[:]))} {
		r.do(t, "SET", key, "1")
		get().refused(t, http.StatusUnauthorized, "revoked_token")
		r.do(t, "DEL", key)
		get().is(t, http.StatusOK)
	}
	r.do(t, "SET", "revoked:kid:main:", "1")
	get().is(t, http.StatusOK)
	if status, printed := command(t, token, "revoke", "--config", g.config, "--token-file", "-"); status != 0 {
		t.Errorf("gatehouse revoke: %d %s", status, printed)
	}
	get().refused(t, http.StatusUnauthorized, "revoked_token")
}

// TestRealProviderIntrospects asks panva's oidc-provider with each method of
// authentication. Its tokens by client credentials have no sub.
func TestRealProviderIntrospects(t *testing.T) {
	t.Parallel()
	o, b := newOIDC(t), newBackend(t)
	key := newSigner(t, "ES256", "gatehouse-1")
	der, err := x509.MarshalPKCS8PrivateKey(key.key)
	if err != nil {
		t.Fatal(err)
	}
	o.start(t, toJSON(t, key.jwk().with(claims{"kid": nil})))
	token := o.token(t, "reader", "opaque")
	for name, auth := range map[string]string{
		"basic": "client_secret: basic",
		"post":  "client_secret: post\n        method: client_secret_post",
		"key":   "key_file: client.pem\n        method: private_key_jwt",
		"wrong": "client_secret: wrong",
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    introspection:
      when: opaque
      interval: 1s
      auth:
        client_id: NAME
        AUTH
routes:
  - match: GET /heroes/{id}
    privileges: [READ_HEROES]
    upstream: BACKEND
  - match: POST /heroes/{id}
    privileges: [CREATE_HERO]
    upstream: BACKEND
`, "IDP", o.URL, "BACKEND", b.URL, "NAME", name, "AUTH", auth), file{"client.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))})
			get := func(token string) answer { return g.do(t, "GET /heroes/1", bearer(token)) }
			if name == "wrong" { // the gateway's fault, not the caller's
				get(token).refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
				return
			}
			get(token).is(t, http.StatusOK)
			last := b.last(t)
			last.has(t, "x-jwt-client-id", "reader")
			last.lacks(t, "x-jwt-sub")
			g.do(t, "POST /heroes/1", "Content-Length: 0", bearer(token)).refused(t, http.StatusForbidden, "insufficient_privileges")
			g.do(t, "POST /heroes/1", "Content-Length: 0", bearer(o.token(t, "writer", "opaque"))).is(t, http.StatusOK)
			get(o.token(t, "reader", "ES256")).is(t, http.StatusOK)
			get(minted("no-token-of-this-provider")).refused(t, http.StatusUnauthorized, "invalid_token")

			withdrawn := o.token(t, "reader", "opaque")
			get(withdrawn).is(t, http.StatusOK)
			o.revoke(t, "reader", withdrawn)
			eventually(t, "the withdrawn token is refused", func() bool { return get(withdrawn).status == http.StatusUnauthorized })
		})
	}
}

// A token that was good a moment ago is no made-up one: its caller is not shut
// out by what others behind the same address send.
func TestMissesDoNotShutOutGoodTokens(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	token := minted(opaqueToken)
	p.says(t, p.said(), token)
	g, _ := startFor(t, p, fill(asking, "WHEN", "opaque")+"\n      interval: 100ms\n      misses:\n        rate: 3/1h")
	get := func(token string) answer { return g.do(t, "GET /heroes/1", bearer(token)) }
	get(token).is(t, http.StatusOK)
	get(minted("made-up-token-1"))
	get(minted("made-up-token-2"))
	get(minted("made-up-token-3")).refused(t, http.StatusTooManyRequests, "rate_limited")
	before := p.asked.Load()
	eventually(t, "the answer is too old", func() bool {
		get(token).is(t, http.StatusOK)
		return p.asked.Load() > before
	})
}
