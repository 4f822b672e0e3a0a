package test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const sharedYAML = `
redis:
  url: REDISMORE
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
limits:
  per_user:
    key: [claim:sub]
    rate: 40/1h
    scope: sharedLIMIT
routes:
  - match: /heroes/{id}
    privileges: []
    limits: [per_user]
    upstream: BACKEND
`

// fleet are gateways on one Redis.
func fleet(t *testing.T, n int, yaml string, words ...string) ([]*gateway, *redis, *idp) {
	t.Helper()
	p, b, r := newIDP(t), newBackend(t), startRedis(t)
	gateways := make([]*gateway, n)
	for i := range gateways {
		gateways[i] = start(t, fill(yaml, append(words, "IDP", p.URL, "BACKEND", b.URL, "REDIS", r.URL, "MORE", "", "LIMIT", "")...))
	}
	return gateways, r, p
}

// flood sends n requests over all gateways at once and counts the answers.
func flood(t *testing.T, gateways []*gateway, n int, header string) map[int]int {
	t.Helper()
	var mu sync.Mutex
	var sent atomic.Int64
	answers := map[int]int{}
	var callers sync.WaitGroup
	for c := range 4 * len(gateways) {
		callers.Go(func() {
			for sent.Add(1) <= int64(n) {
				status := gateways[c%len(gateways)].do(t, "GET /heroes/1", header).status
				mu.Lock()
				answers[status]++
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	return answers
}

func TestSharedLimitIsExactOverGateways(t *testing.T) {
	t.Parallel()
	for name, lease := range map[string]string{"each asks": "", "leased": "\n    lease: 4"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateways, _, p := fleet(t, 3, sharedYAML, "LIMIT", lease)
			began := time.Now()
			answers := flood(t, gateways, 200, bearer(p.token(t)))
			// Two more may have refilled: one each 90 s.
			most := 40 + int(time.Since(began)/(90*time.Second)) + 1
			least := 40
			if lease != "" {
				least -= 3 * 4 // what gateways hold for a caller who went elsewhere
			}
			if ok := answers[200]; ok < least || ok > most || ok+answers[429] != 200 {
				t.Errorf("%v, want %d to %d times 200 and 429 for the rest", answers, least, most)
			}
			// Another caller has a bucket of his own.
			gateways[0].do(t, "GET /heroes/1", bearer(p.token(t, claims{"sub": "bob"}))).is(t, http.StatusOK)
		})
	}
}

// Redis dies in the middle: the declared posture, never a 500; and no burst when it is back.
func TestSharedLimitWhileRedisIsDown(t *testing.T) {
	t.Parallel()
	for posture, want := range map[string]string{"local": "some", "allow": "all", "deny": "none"} {
		t.Run(posture, func(t *testing.T) {
			t.Parallel()
			gateways, r, p := fleet(t, 2, sharedYAML, "LIMIT", "\n    on_error: "+posture, "MORE", "\n  replicas: 2")
			alice := bearer(p.token(t))
			if answers := flood(t, gateways, 20, alice); answers[200] != 20 {
				t.Fatalf("with Redis up: %v", answers)
			}
			r.proc.kill()
			answers := flood(t, gateways, 100, alice)
			ok := answers[200]
			switch want {
			case "all":
				if ok != 100 {
					t.Errorf("%v, want all of them to pass", answers)
				}
			case "none":
				if answers[503] != 100 {
					t.Errorf("%v, want 503 for all", answers)
				}
				gateways[0].do(t, "GET /heroes/1", alice).refused(t, http.StatusServiceUnavailable, "store_unavailable")
			case "some":
				// 20 were left, and each of two gateways counts double: together no more than that.
				if ok == 0 || ok > 22 || ok+answers[429] != 100 {
					t.Errorf("%v, want about 20 times 200 and 429 for the rest", answers)
				}
				a := gateways[0].do(t, "GET /heroes/1", alice)
				a.refused(t, http.StatusTooManyRequests, "rate_limited")
				if !strings.Contains(a.body, "temporary-reduced-capacity") {
					t.Errorf("the problem type does not tell of the outage: %s", a.body)
				}
				for _, g := range gateways {
					if !strings.Contains(g.metrics(t), `gatehouse_fallbacks_total{dependency="limits",posture="local"}`) {
						t.Error("no metric tells of the fallback")
					}
				}
			}
			r.start(t) // empty: it has forgotten everything
			if want == "none" {
				eventually(t, "Redis is asked again", func() bool {
					return gateways[0].do(t, "GET /heroes/1", bearer(p.token(t, claims{"sub": "carol"}))).status == http.StatusOK
				})
			}
			if want == "some" {
				eventually(t, "Redis is asked again", func() bool {
					return strings.Contains(gateways[0].output.String(), "Redis answers again") ||
						gateways[0].do(t, "GET /heroes/1", bearer(p.token(t, claims{"sub": "carol"}))).status == 0
				})
				if answers := flood(t, gateways, 60, alice); answers[200] > 2 {
					t.Errorf("%v: the bucket came back full", answers)
				}
			}
		})
	}
}

// Whoever only changes how Redis is reached, or how many gateways share it,
// fills nobody's bucket in an outage. Afterwards the new way is the one taken.
func TestSharedLimitWhenRedisIsReachedOtherwise(t *testing.T) {
	t.Parallel()
	const before = "redis://gate:first@127.0.0.1:PORT"
	for name, c := range map[string]struct {
		redis, password string
		share           int // of the burst of 40
	}{
		"replicas": {before + "\n  replicas: 2", "first", 20},
		"password": {before + "\n  password: second", "second", 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, b, r := newIDP(t), newBackend(t), startRedis(t)
			yaml := func(redis string) string {
				return fill(sharedYAML, "IDP", p.URL, "BACKEND", b.URL, "REDIS", strings.ReplaceAll(redis, "PORT", r.port), "MORE", "", "LIMIT", "")
			}
			allow := func(password string) {
				r.do(t, "ACL", "SETUSER", "gate", "on", "resetpass", ">"+password, "~*", "&*", "+@all")
			}
			allow("first")
			g := start(t, yaml(before))
			only := []*gateway{g}
			alice, bob := bearer(p.token(t)), bearer(p.token(t, claims{"sub": "bob"}))
			if answers := flood(t, only, 20, alice); answers[200] != 20 {
				t.Fatalf("with Redis up: %v", answers)
			}
			r.proc.kill()
			if answers := flood(t, only, 60, alice); answers[200] < 20 || answers[200] > 21 {
				t.Errorf("%v, want the 20 that were left", answers)
			}
			g.reload(t, yaml(c.redis))
			eventually(t, "the reload is through", func() bool { return g.metric(t, goodReloads) == 1 })
			if answers := flood(t, only, 60, alice); answers[200] > 1 {
				t.Errorf("%v: the reload filled the bucket", answers)
			}
			if answers := flood(t, only, 60, bob); answers[200] < c.share || answers[200] > c.share+1 {
				t.Errorf("%v, want a share of %d", answers, c.share)
			}
			r.start(t)
			allow(c.password)
			eventually(t, "Redis is asked again", func() bool {
				g.do(t, "GET /heroes/1", bob)
				return strings.Contains(g.output.String(), "Redis answers again")
			})
			if answers := flood(t, only, 60, alice); answers[200] > 2 {
				t.Errorf("%v: the bucket came back full", answers)
			}
		})
	}
}

// A Redis that hangs costs a few requests its time-out, and the others nothing.
func TestSharedLimitWhileRedisHangs(t *testing.T) {
	t.Parallel()
	gateways, r, p := fleet(t, 1, sharedYAML, "LIMIT", "\n    on_error: allow")
	alice := bearer(p.token(t))
	gateways[0].do(t, "GET /heroes/1", alice).is(t, http.StatusOK)
	r.proc.signal(syscall.SIGSTOP)
	t.Cleanup(func() { r.proc.signal(syscall.SIGCONT) })
	for range 100 {
		gateways[0].do(t, "GET /heroes/1", alice).is(t, http.StatusOK)
	}
	gateways[0].output.says(t, "Redis does not answer")
	r.proc.signal(syscall.SIGCONT)
	eventually(t, "Redis counts again", func() bool {
		return gateways[0].do(t, "GET /heroes/1", alice).status == http.StatusTooManyRequests ||
			strings.Contains(gateways[0].output.String(), "Redis answers again")
	})
}

// metrics returns what the status listener tells Prometheus.
func (g *gateway) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + g.status + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTiersCostsAndReport(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
limits:
  by_plan:
    key: [claim:sub]
    rate: 2/1h
    tiers:
      by: claim:plan
      rates:
        gold: 5/1h
  by_method:
    key: [claim:sub]
    rate: 6/1h
    cost:
      POST: 5
      OPTIONS: 0
  only_counted:
    key: [ip]
    rate: 1/1h
    mode: report
  by_header:
    key: ["header:X-Api-Key"]
    rate: 1/1h
routes:
  - match: /plan/{id}
    privileges: []
    limits: [by_plan]
    upstream: BACKEND
  - match: /method/{id}
    privileges: []
    limits: [by_method]
    upstream: BACKEND
  - match: /report/{id}
    public: true
    limits: [only_counted]
    upstream: BACKEND
  - match: /header/{id}
    public: true
    limits: [by_header]
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	count := func(n int, request string, headers ...string) (ok int) {
		for range n {
			if g.do(t, request, headers...).status == http.StatusOK {
				ok++
			}
		}
		return ok
	}
	for plan, want := range map[string]int{"gold": 5, "silver": 2, "": 2} {
		if ok := count(8, "GET /plan/1", bearer(p.token(t, claims{"sub": "plan-" + plan, "plan": plan}))); ok != want {
			t.Errorf("plan %q: %d admitted, want %d", plan, ok, want)
		}
	}
	alice := bearer(p.token(t))
	a := g.do(t, "POST /method/1", alice, "Content-Length: 0")
	a.is(t, http.StatusOK)
	if got := a.header.Get("RateLimit"); !strings.HasPrefix(got, `"by_method";r=1;t=`) {
		t.Errorf("RateLimit of an admitted request: %q, want one left", got)
	}
	if got := a.header.Get("RateLimit-Policy"); got != `"by_method";q=6;w=3600` {
		t.Errorf("RateLimit-Policy: %q", got)
	}
	g.do(t, "POST /method/1", alice, "Content-Length: 0").refused(t, http.StatusTooManyRequests, "rate_limited")
	if ok := count(3, "OPTIONS /method/1", alice); ok != 3 {
		t.Errorf("%d of 3 free requests were admitted", ok)
	}
	if ok := count(3, "GET /method/1", alice); ok != 1 {
		t.Errorf("%d admitted, want the one that was left", ok)
	}
	refusal := g.do(t, "GET /method/1", alice)
	if !strings.Contains(refusal.body, "http-problem-types#quota-exceeded") || !strings.Contains(refusal.body, `"violated-policies":["by_method"]`) {
		t.Errorf("the problem: %s", refusal.body)
	}

	if ok := count(5, "GET /report/1"); ok != 5 {
		t.Errorf("mode: report refused: %d of 5 passed", ok)
	}
	if text := g.metrics(t); !strings.Contains(text, `gatehouse_limit_decisions_total{limit="only_counted",outcome="reported"} 4`) {
		t.Error("what would have been refused is not counted")
	}

	if ok := count(3, "GET /header/1", "X-Api-Key: a"); ok != 1 {
		t.Errorf("key a: %d admitted, want 1", ok)
	}
	if ok := count(3, "GET /header/1", "X-Api-Key: b"); ok != 1 {
		t.Errorf("key b: %d admitted, want 1", ok)
	}
	if ok := count(3, "GET /header/1"); ok != 1 {
		t.Errorf("no key: %d admitted, want 1, by ip", ok)
	}
}

// Over the limit of failed authentications only a token that was verified
// before passes; another good one waits, since nobody knows that it is good.
func TestAuthFailures(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
server:
  ADDRESSES
  auth_failures:
    rate: 3/1h
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	known, unknown := bearer(p.token(t)), bearer(p.token(t))
	g.do(t, "GET /heroes/1", known).is(t, http.StatusOK)
	forged := newSigner(t, "ES256", p.kid)
	g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"exp": 1}))).refused(t, http.StatusUnauthorized, "expired_token") // late is not forged
	g.do(t, "GET /heroes/1").refused(t, http.StatusUnauthorized, "missing_token")
	for range 3 {
		g.do(t, "GET /heroes/1", bearer(forged.sign(t, p.good()))).refused(t, http.StatusUnauthorized, "invalid_token")
	}
	a := g.do(t, "GET /heroes/1", bearer(forged.sign(t, p.good())))
	a.refused(t, http.StatusTooManyRequests, "rate_limited")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	g.do(t, "GET /heroes/1", unknown).refused(t, http.StatusTooManyRequests, "rate_limited")
	g.do(t, "GET /heroes/1", known).is(t, http.StatusOK)
}
