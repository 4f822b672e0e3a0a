package test

import (
	"net/http"
	"strings"
	"testing"
)

// The master of Redis dies under load: no 500, no more than the limit lets
// through, revocations hold, and both follow the new master.
func TestFailover(t *testing.T) {
	t.Parallel()
	p, b, s := newIDP(t), newBackend(t), startSentinel(t)
	gateways := make([]*gateway, 2)
	for i := range gateways {
		gateways[i] = start(t, fill(`
redis:
  url: SENTINEL
  replicas: 2
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    max_lifetime: 1h
revocation:
  mode: replica
limits:
  per_user:
    key: [claim:sub]
    rate: 40/1h
    scope: shared
routes:
  - match: /heroes/{id}
    privileges: []
    limits: [per_user]
    upstream: BACKEND
`, "SENTINEL", s.URL, "IDP", p.URL, "BACKEND", b.URL))
	}
	alice, stolen := bearer(p.token(t)), bearer(p.token(t, claims{"sub": "bob", "sid": "stolen"}))
	s.master.do(t, "SET", "revoked:sid:main:stolen", "1", "EX", "600")
	for _, g := range gateways {
		eventually(t, "it is revoked", func() bool { return g.do(t, "GET /heroes/1", stolen).status == http.StatusUnauthorized })
	}
	before := flood(t, gateways, 20, alice)
	if before[http.StatusOK] != 20 {
		t.Fatalf("with both servers up: %v", before)
	}

	over := make(chan struct{})
	go func() { defer close(over); s.failover(t) }()
	during := map[int]int{}
	for done := false; !done; {
		select {
		case <-over:
			done = true
		default:
		}
		for status, n := range flood(t, gateways, 10, alice) {
			during[status] += n
		}
		for _, g := range gateways {
			g.do(t, "GET /heroes/1", stolen).refused(t, http.StatusUnauthorized, "revoked_token")
		}
	}
	// 20 were left, and an hour refills 40: with the shares of two gateways one more each.
	if ok := during[http.StatusOK]; ok > 22 || len(during) > 2 || during[http.StatusTooManyRequests] == 0 {
		t.Errorf("during the failover: %v, want at most 22 times 200 and 429 for the rest", during)
	}

	s.replica.do(t, "SET", "revoked:sub:main:carol", "1", "EX", "600")
	carol := bearer(p.token(t, claims{"sub": "carol"}))
	for _, g := range gateways {
		eventually(t, "the new master is followed", func() bool { return g.do(t, "GET /heroes/1", carol).status == http.StatusUnauthorized })
		eventually(t, "the new master counts", func() bool {
			g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"sub": "dave"})))
			return strings.Contains(s.replica.do(t, "KEYS", "limit:per_user:*"), "limit:")
		})
	}
	if after := flood(t, gateways, 20, alice); after[http.StatusOK] > 2 {
		t.Errorf("after the failover the bucket came back: %v", after)
	}
}
