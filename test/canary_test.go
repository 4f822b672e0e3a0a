package test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
)

// A route's requests are split by weight, and a subject stays on its side. More
// weight moves as many as it must, and nobody back.
func TestCanaryByWeight(t *testing.T) {
	t.Parallel()
	m, p := newMembers(t, 2), newIDP(t)
	yaml := fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
upstreams:
  heroes:
    targets: [http://FIRST]
  heroes-v2:
    targets: [http://SECOND]
routes:
  - match: GET /sticky
    privileges: []
    upstream:
      - to: heroes
        weight: 80
      - to: heroes-v2
        weight: 20
    sticky: claim:sub
  - match: GET /drawn
    public: true
    upstream:
      - to: heroes
        weight: 3
      - to: heroes-v2
`, "IDP", p.URL, "FIRST", m[0].address, "SECOND", m[1].address)
	g := start(t, yaml)
	const subjects = 200
	tokens := make([]string, subjects)
	for i := range tokens {
		tokens[i] = bearer(p.token(t, claims{"sub": fmt.Sprintf("user-%d", i)}))
	}
	sides := func() (on map[int]bool) {
		on = map[int]bool{}
		for i, token := range tokens {
			got := g.do(t, "GET /sticky", token)
			got.is(t, http.StatusOK)
			on[i] = got.body == m[1].address
		}
		return on
	}
	canaries := func(on map[int]bool) (n int) {
		for _, yes := range on {
			if yes {
				n++
			}
		}
		return n
	}
	near := func(what string, n int, total, share float64) {
		t.Helper()
		if allowed := 5 * math.Sqrt(total*share*(1-share)); math.Abs(float64(n)-total*share) > allowed {
			t.Errorf("%s: %d of %v, want %v", what, n, total, total*share)
		}
	}
	before := sides()
	near("20 of 100", canaries(before), subjects, 0.2)
	for i, yes := range sides() {
		if yes != before[i] {
			t.Errorf("user-%d changed sides", i)
		}
	}
	drawn := 0
	for range subjects {
		if g.do(t, "GET /drawn").body == m[1].address {
			drawn++
		}
	}
	near("1 of 4", drawn, subjects, 0.25)

	g.reload(t, strings.NewReplacer("weight: 80", "weight: 50", "weight: 20", "weight: 50").Replace(yaml))
	eventually(t, "the reload is through", func() bool { return g.metric(t, goodReloads) == 1 })
	after := sides()
	near("50 of 100", canaries(after), subjects, 0.5)
	for i, yes := range before {
		if yes && !after[i] {
			t.Errorf("user-%d went back", i)
		}
	}
	if !strings.Contains(g.output.String(), `"upstream":"heroes-v2"`) {
		t.Error("the log does not say which upstream a request went to")
	}
}

// A header, or a claim of a token that was verified, sends a request to another
// upstream, and never past what the route asks for.
func TestCanaryByCondition(t *testing.T) {
	t.Parallel()
	m, p := newMembers(t, 3), newIDP(t)
	yaml := fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
upstreams:
  heroes:
    targets: [http://FIRST]
  heroes-v2:
    targets: [http://SECOND]
  staff:
    targets: [http://THIRD]
routes:
  - name: heroes
    match: GET /heroes
    privileges: [READ_HEROES]
    upstream:
      - to: staff
        when:
          claims:
            groups: [staff, admins]
          headers:
            X-Staff: "1"
      - to: heroes-v2
        when:
          headers:
            X-Canary: ["1", always]
      - to: heroes-v2
        when:
          claims:
            plan: gold
            level: 7
      - to: heroes
  - match: GET /open
    auth: optional
    upstream:
      - to: heroes-v2
        when:
          claims:
            plan: gold
      - to: heroes
tests:
  - request: GET /heroes
    claims: {sub: alice, privileges: [READ_HEROES]}
    expect:
      upstream: heroes
  - request: GET /heroes
    headers:
      X-Canary: always
    claims: {sub: alice, privileges: [READ_HEROES]}
    expect:
      upstream: heroes-v2
`, "IDP", p.URL, "FIRST", m[0].address, "SECOND", m[1].address, "THIRD", m[2].address)
	g := start(t, yaml)
	of := map[string]string{m[0].address: "heroes", m[1].address: "heroes-v2", m[2].address: "staff"}
	reader := func(more claims) string {
		c := claims{"sub": "alice", "privileges": []string{"READ_HEROES"}}
		for name, value := range more {
			c[name] = value
		}
		return bearer(p.token(t, c))
	}
	for _, c := range []struct {
		path    string
		want    string
		headers []string
	}{
		{"/heroes", "heroes", []string{reader(nil)}},
		{"/heroes", "heroes-v2", []string{reader(nil), "x-canary: 1"}},
		{"/heroes", "heroes-v2", []string{reader(nil), "X-Canary: no", "X-Canary: always"}},
		{"/heroes", "heroes", []string{reader(nil), "X-Canary: 11"}},
		{"/heroes", "heroes-v2", []string{reader(claims{"plan": "gold", "level": 7})}},
		{"/heroes", "heroes", []string{reader(claims{"plan": "gold", "level": 8})}},
		{"/heroes", "heroes", []string{reader(claims{"plan": "gold"})}},
		{"/heroes", "heroes", []string{reader(claims{"plan": map[string]any{"gold": true}, "level": 7})}},
		{"/heroes", "staff", []string{reader(claims{"groups": []string{"devs", "staff"}}), "X-Staff: 1", "X-Canary: 1"}},
		{"/heroes", "heroes", []string{reader(claims{"groups": []string{"devs", "staff"}})}},
		{"/heroes", "heroes", []string{reader(nil), "X-Staff: 1"}},
		{"/open", "heroes", nil},
		{"/open", "heroes-v2", []string{reader(claims{"plan": "gold"})}},
	} {
		if got := g.do(t, "GET "+c.path, c.headers...); got.status != http.StatusOK || of[got.body] != c.want {
			t.Errorf("%s %.60q: %d %s, want %s", c.path, c.headers, got.status, of[got.body], c.want)
		}
	}

	before := m[0].served.Load() + m[1].served.Load() + m[2].served.Load()
	g.do(t, "GET /heroes", "X-Canary: 1").refused(t, http.StatusUnauthorized, "missing_token")
	g.do(t, "GET /heroes", "X-Canary: 1", bearer(p.token(t, claims{"plan": "gold", "level": 7, "privileges": []string{}}))).refused(t, http.StatusForbidden, "insufficient_privileges")
	g.do(t, "GET /open", bearer("eyJhbGciOiJub25lIn0.eyJwbGFuIjoiZ29sZCJ9.")).refused(t, http.StatusUnauthorized, "invalid_token")
	if got := m[0].served.Load() + m[1].served.Load() + m[2].served.Load(); got != before {
		t.Errorf("%d requests got past what the route asks for", got-before)
	}

	config := t.TempDir() + "/routes.yaml"
	write(t, config, g.text(yaml))
	if status, printed := command(t, "", "check", "--config", config); status != 0 {
		t.Errorf("check: %d\n%s", status, printed)
	}
	_, printed := command(t, "", "explain", "--config", config, "--claims", `{"sub":"alice","privileges":["READ_HEROES"],"plan":"gold","level":7}`, "GET", "/heroes")
	if !strings.Contains(printed, "heroes-v2 is taken, since its condition (when) holds") {
		t.Errorf("the explanation does not say why it is heroes-v2:\n%s", printed)
	}
}
