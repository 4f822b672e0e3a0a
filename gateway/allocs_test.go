package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// On a request with a remembered token no rung of the ladder allocates, but
// net/http's mux for the path's wildcards.
func TestNoRungAllocates(t *testing.T) {
	b := newBench(t, http.NotFound, `
  - match: /heroes/{id}
    privileges: {any: [WRITE, READ]}
    limits: [per_ip, per_subject]
    max_body: 1000B
    upstream: http://127.0.0.1:1
limits:
  per_ip:
    key: [ip]
    rate: 1000000/1m
  per_subject:
    key: [claim:sub]
    rate: 1000000/1m
server:
  auth_failures:
    rate: 30/1m
redis:
  url: `+startRedis(t)+`
revocation:
  mode: replica
`)
	raw := b.token(b.claims(`"privileges":["READ"]`))
	for _, at := range []struct {
		path     string
		wildcard float64 // what the mux allocates to match it
	}{{"/guarded", 0}, {"/heroes/7", 1}} {
		r := httptest.NewRequest(http.MethodGet, at.path, nil)
		r.Header.Set("Authorization", "Bearer "+raw)
		s := b.gateway.acquire()
		defer s.release()
		x := b.gateway.exchange(s, httptest.NewRecorder(), r)
		for _, rung := range []struct {
			name    string
			climb   func() error
			allowed float64
		}{
			{"canonical", x.canonical, 0},
			{"match", x.match, at.wildcard},
			{"bound body", x.boundBody, 0},
			{"limits before", func() error { return x.take(x.route.limits.before) }, 0},
			{"find token", x.findToken, 0},
			{"same origin", func() error { return x.found.sameOrigin(x.r) }, 0},
			{"failures", func() error { return x.tolerate(s.overFailures(x.client, x.found)) }, 0},
			{"verify", x.verify, 0},
			{"revoked", x.revoked, 0},
			{"limits after", func() error { return x.take(x.route.limits.after) }, 0},
			{"authorize", x.authorize, 0},
			{"claim headers", x.claimHeaders, 0},
			{"next rung", func() error { x.enter(forwardRung); return nil }, 0},
			{"metrics", func() error { b.gateway.metrics.request(x.route, 200, "", 1); return nil }, 0},
		} {
			t.Run(fmt.Sprint(at.path, " ", rung.name), func(t *testing.T) {
				if n := testing.AllocsPerRun(100, func() {
					if err := rung.climb(); err != nil {
						t.Fatal(err)
					}
				}); n > rung.allowed {
					t.Errorf("%v allocations, want %v", n, rung.allowed)
				}
			})
		}
	}
}
