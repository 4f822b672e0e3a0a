package test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const policyRoutes = `
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    actor_from: [impersonator]
routes:
  - match: /heroes/{id}
    policy: heroes
    upstream: BACKEND
  - match: POST /payments
    privileges: []
    acr: [urn:example:gold, urn:example:silver]
    amr: [otp]
    max_auth_age: 5m
    upstream: BACKEND
  - match: /self
    privileges: []
    delegation: deny
    upstream: BACKEND
  - match: /desk
    privileges: []
    delegation:
      actors:
        - sub: helpdesk
        - iss: https://other.example
          sub: batch
    upstream: BACKEND
  - match: /anybody
    privileges: []
    upstream: BACKEND
  - match: /all/{id}
    privileges: [A]
    policy: heroes
    acr: [gold]
    delegation: deny
    upstream: BACKEND
`

const heroesPolicy = `
headers: [X-Region]
allow:
  - name: staff
    privileges: [STAFF]
  - name: own
    method: [GET, HEAD]
    claims:
      hero: {param: id}
  - name: region
    method: GET
    headers: {X-Region: eu}
    claims:
      tenant: {matches: 'acme-[0-9]+'}
      not_there: {present: false}
  - name: partner
    when: claims.partner.level >= 2 && params.id in claims.partner.heroes
  - name: trusted
    claims: {role: guard}
    not:
      claims: {suspended: true}
tests:
  - claims: {hero: 7}
    params: {id: "7"}
    expect: allow
    rule: own
  - claims: {hero: 8}
    params: {id: "7"}
    expect: deny
`

// TestUnreadablePrivilegesAreNotAbsent: what asks for the absence of a privilege
// denies a token whose privileges cannot all be read.
func TestUnreadablePrivilegesAreNotAbsent(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	policy := func(rule string) string {
		return "allow:\n  - " + rule + `
tests:
  - claims: {privileges: [suspended]}
    expect: deny
  - claims: {privileges: [{name: suspended}]}
    expect: deny
  - claims: {privileges: [READ]}
    expect: allow
`
	}
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    privileges_from:
      - privileges
      - claim: scope
        prefix: "scope:"
routes:
  - match: /fixed
    policy: fixed
    upstream: BACKEND
  - match: /cel
    policy: cel
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL),
		file{"policies/fixed.yaml", policy(`not: {privileges: [suspended]}`)},
		file{"policies/cel.yaml", policy(`when: '!("suspended" in privileges)'`)})
	paths := []string{"/fixed", "/cel"}
	for _, path := range paths {
		for _, c := range []claims{
			{"privileges": []claims{{"name": "suspended"}}},
			{"privileges": claims{"suspended": true}, "scope": "read"},
			{"privileges": []string{"READ"}, "scope": 7},
			{"privileges": []string{"suspended"}},
			{"privileges": nil},
		} {
			g.do(t, "GET "+path, bearer(p.token(t, c))).refused(t, http.StatusForbidden, "policy_denied")
		}
	}
	b.untouched(t)
	for _, path := range paths {
		for _, c := range []claims{{"privileges": []string{"READ"}}, {"privileges": []string{}, "scope": "read"}, {"privileges": nil, "scope": "read"}} {
			g.do(t, "GET "+path, bearer(p.token(t, c))).is(t, http.StatusOK)
		}
	}
}

func startPolicies(t *testing.T) (*gateway, *backend, *idp) {
	t.Helper()
	p, b := newIDP(t), newBackend(t)
	return start(t, fill(policyRoutes, "IDP", p.URL, "BACKEND", b.URL), file{"policies/heroes.yaml", heroesPolicy}), b, p
}

func TestPolicyAllowsAndDenies(t *testing.T) {
	t.Parallel()
	g, b, p := startPolicies(t)
	deep := any("x")
	for range 25 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		request string
		claims  claims
		header  string
		allowed bool
	}{
		{"GET /heroes/7", claims{"hero": 7}, "", true},
		{"GET /heroes/7", claims{"hero": "7"}, "", true},
		{"HEAD /heroes/7", claims{"hero": 7}, "", true},
		{"GET /heroes/a%20b", claims{"hero": "a b"}, "", true},
		{"GET /heroes/8", claims{"hero": 7}, "", false},
		{"POST /heroes/7", claims{"hero": 7}, "", false},
		{"POST /heroes/7", claims{"privileges": []string{"STAFF"}}, "", true},
		{"GET /heroes/9", claims{"tenant": "acme-1"}, "X-Region: eu", true},
		{"GET /heroes/9", claims{"tenant": "acme-1"}, "X-Region: us", false},
		{"GET /heroes/9", claims{"tenant": "acme-1"}, "X-Region: eu\r\nX-Region: us", false},
		{"GET /heroes/9", claims{"tenant": "acme-1"}, "X-Region: eu\r\nX-Region: eu", false},
		{"GET /heroes/9", claims{"tenant": "acme-1"}, "", false},
		{"GET /heroes/9", claims{"tenant": "acme-1.evil"}, "X-Region: eu", false},
		{"POST /heroes/9", claims{"partner": claims{"level": 2, "heroes": []string{"9"}}}, "", true},
		{"POST /heroes/9", claims{"partner": claims{"level": 1, "heroes": []string{"9"}}}, "", false},
		{"POST /heroes/9", claims{"partner": claims{"level": 2, "heroes": []string{"8"}}}, "", false},
		{"POST /heroes/9", claims{"role": "guard", "suspended": false}, "", true},
		// Claims of other types, deep and long ones: denied, and no crash.
		{"GET /heroes/7", claims{"hero": []int{7}}, "", false},
		{"GET /heroes/7", claims{"hero": claims{"id": 7}}, "", false},
		{"GET /heroes/7", claims{"hero": nil}, "", false},
		{"GET /heroes/true", claims{"hero": true}, "", false},
		{"GET /heroes/7", claims{"hero": 7.5}, "", false},
		{"GET /heroes/7", claims{"hero": deep}, "", false},
		{"GET /heroes/7", claims{"hero": strings.Repeat("7", 4000)}, "", false},
		{"POST /heroes/9", claims{"partner": "x"}, "", false},
		{"POST /heroes/9", claims{"partner": claims{"level": "2", "heroes": []string{"9"}}}, "", false},
		{"POST /heroes/9", claims{"partner": claims{"level": 2, "heroes": claims{"9": true}}}, "", false},
		{"POST /heroes/9", claims{"partner": claims{"level": 2, "heroes": deep}}, "", false},
		{"POST /heroes/9", claims{"role": "guard"}, "", false},
		{"POST /heroes/9", claims{"role": "guard", "suspended": "true"}, "", false},
		{"POST /heroes/9", claims{"role": "guard", "suspended": true}, "", false},
		{"POST /heroes/9", claims{"privileges": claims{"STAFF": true}}, "", false},
	} {
		headers := []string{bearer(p.token(t, claims{"privileges": []string{}}, c.claims))}
		if c.header != "" {
			headers = append(headers, strings.Split(c.header, "\r\n")...)
		}
		before := b.count()
		a := g.do(t, c.request, headers...)
		if c.allowed {
			a.is(t, http.StatusOK)
		} else {
			a.refused(t, http.StatusForbidden, "policy_denied")
			a.challenges(t, "insufficient_scope")
			if b.count() != before {
				t.Error("a refused request reached the backend")
			}
		}
		if t.Failed() {
			t.Fatalf("^ %s with %v and %q", c.request, c.claims, c.header)
		}
	}
	g.do(t, "GET /heroes/7").refused(t, http.StatusUnauthorized, "missing_token")
	g.output.says(t, `"rule":"own"`)
	g.output.says(t, `"undecided":"own"`)
}

// Of all that a token lacks the first is told: privileges, who acts, how the
// user was authenticated, the policy.
func TestPolicyComesAfterTheRest(t *testing.T) {
	t.Parallel()
	g, _, p := startPolicies(t)
	has := claims{"privileges": []string{}, "act": claims{"sub": "x"}}
	say := func(status int, reason string) {
		t.Helper()
		g.do(t, "GET /all/7", bearer(p.token(t, has))).refused(t, status, reason)
	}
	say(http.StatusForbidden, "insufficient_privileges")
	has["privileges"] = []string{"A"}
	say(http.StatusForbidden, "policy_denied")
	g.output.says(t, "delegation is denied")
	has["act"] = nil
	say(http.StatusUnauthorized, "insufficient_user_authentication")
	has["acr"] = "gold"
	say(http.StatusForbidden, "policy_denied")
	has["hero"] = 7
	g.do(t, "GET /all/7", bearer(p.token(t, has))).is(t, http.StatusOK)
}

func TestStepUpChallenge(t *testing.T) {
	t.Parallel()
	g, b, p := startPolicies(t)
	now := time.Now().Unix()
	good := claims{"acr": "urn:example:silver", "amr": []string{"pwd", "otp"}, "auth_time": now - 10}
	g.do(t, "POST /payments", bearer(p.token(t, good))).is(t, http.StatusOK)
	before := b.count()
	for _, change := range []claims{
		{"acr": nil}, {"acr": "urn:example:bronze"}, {"acr": []string{"urn:example:gold"}},
		{"amr": nil}, {"amr": []string{"pwd"}}, {"amr": "otp"}, {"amr": claims{"otp": true}},
		{"auth_time": nil}, {"auth_time": now - 301}, {"auth_time": fmt.Sprint(now)}, {"auth_time": now + 3600},
	} {
		a := g.do(t, "POST /payments", bearer(p.token(t, good, change)))
		a.refused(t, http.StatusUnauthorized, "insufficient_user_authentication")
		a.challenges(t, "insufficient_user_authentication")
		if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, `acr_values="urn:example:gold urn:example:silver"`) || !strings.Contains(got, `max_age="300"`) {
			t.Errorf("%v: the challenge is %s", change, got)
		}
	}
	if b.count() != before {
		t.Error("a refused request reached the backend")
	}
}

func TestDelegation(t *testing.T) {
	t.Parallel()
	g, b, p := startPolicies(t)
	const other = "https://other.example"
	for _, c := range []struct {
		claims claims
		open   string
		actor  string // subject and issuer, as the backend learns
	}{
		{claims{}, "/self /desk /anybody", ""},
		{claims{"act_sub": "helpdesk"}, "/self /desk /anybody", ""}, // an ordinary claim, which no backend must mistake
		{claims{"act": claims{"sub": "helpdesk"}}, "/desk /anybody", "helpdesk " + p.URL},
		{claims{"act": claims{"sub": "helpdesk", "iss": p.URL}}, "/desk /anybody", "helpdesk " + p.URL},
		{claims{"act": claims{"sub": "batch", "iss": other}}, "/desk /anybody", "batch " + other},
		{claims{"act": claims{"sub": "helpdesk", "iss": other}}, "/anybody", "helpdesk " + other},
		{claims{"act": claims{"sub": "batch"}}, "/anybody", "batch " + p.URL},
		{claims{"act": claims{"sub": "eve", "act": claims{"sub": "helpdesk"}}}, "/anybody", "eve " + p.URL},
		{claims{"act": "helpdesk"}, "/anybody", ""},
		{claims{"act": claims{}}, "/anybody", ""},
		{claims{"impersonator": "helpdesk"}, "/desk /anybody", "helpdesk " + p.URL},
		{claims{"impersonator": "eve"}, "/anybody", "eve " + p.URL},
		{claims{"act": claims{"sub": "eve"}, "impersonator": "helpdesk"}, "/anybody", "eve " + p.URL},
	} {
		for _, path := range []string{"/self", "/desk", "/anybody"} {
			a := g.do(t, "GET "+path, bearer(p.token(t, c.claims)))
			if strings.Contains(c.open+" ", path+" ") {
				a.is(t, http.StatusOK)
				if actor := strings.Fields(c.actor + " - -"); actor[0] != "-" {
					b.last(t).has(t, "x-jwt-act-sub", actor[0])
					b.last(t).has(t, "x-jwt-act-iss", actor[1])
				} else {
					b.last(t).lacks(t, "x-jwt-act-sub")
				}
			} else {
				a.refused(t, http.StatusForbidden, "policy_denied")
			}
			if t.Failed() {
				t.Fatalf("^ %v on %s", c.claims, path)
			}
		}
	}
	g.output.says(t, `"actor":"helpdesk of `)
}

func TestCheckRunsPolicies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, policy := filepath.Join(dir, "routes.yaml"), filepath.Join(dir, "policies", "heroes.yaml")
	write(t, path, fill(policyRoutes, "IDP", "https://id.example.com", "BACKEND", "http://127.0.0.1:9000"))
	for _, c := range []struct {
		old, new string
		status   int
		says     []string
	}{
		{"", "", 0, []string{"ok\theroes\t2 tests", "6 routes"}},
		{"{hero: 8}", "{hero: 7}", 1, []string{"--- FAIL: heroes/tests[1]", "heroes.yaml:27:5", "want deny, but rule own allows it", `id is "7"`, "1 of 2 tests failed"}},
		{"rule: own", "rule: staff", 1, []string{"want allow by rule staff, but rule own allows it"}},
		{"    expect: deny\n", "    expect: allow\n", 1, []string{"heroes.yaml:22:1", "no test expects deny"}},
		{"{param: id}", "{parm: id}", 1, []string{"heroes.yaml:9:14", `did you mean "param"`}},
		{"claims.partner.level", "claim.partner.level", 1, []string{"heroes.yaml:17:11", "claim"}},
		{"{param: id}", "{param: name}", 1, []string{"routes.yaml:9:13", "path parameter name"}},
		{"headers: [X-Region]", "headers: [X-Region, X-Jwt-Sub]", 1, []string{"heroes.yaml:2:21", "X-Jwt-Sub"}},
	} {
		write(t, policy, strings.Replace(heroesPolicy, c.old, c.new, 1))
		status, out := command(t, "", "check", "--config", path)
		if status != c.status {
			t.Errorf("%q instead of %q: status %d\n%s", c.new, c.old, status, out)
		}
		for _, want := range c.says {
			if !strings.Contains(out, want) {
				t.Errorf("%q instead of %q: check does not say %q:\n%s", c.new, c.old, want, out)
			}
		}
	}
	write(t, path, fill(policyRoutes, "IDP", "https://id.example.com", "BACKEND", "http://127.0.0.1:9000", "policy: heroes", "policy: heros"))
	if status, out := command(t, "", "check", "--config", path); status == 0 || !strings.Contains(out, `routes.yaml:9:13: unknown policy "heros"`) || !strings.Contains(out, `did you mean "heroes"?`) {
		t.Errorf("check of an unknown policy: %d\n%s", status, out)
	}
}

func TestReloadOfAPolicy(t *testing.T) {
	t.Parallel()
	g, b, p := startPolicies(t)
	policy := filepath.Join(filepath.Dir(g.config), "policies", "heroes.yaml")
	yaml := fill(policyRoutes, "IDP", p.URL, "BACKEND", b.URL)
	own, other := bearer(p.token(t, claims{"hero": 7})), bearer(p.token(t, claims{"hero": 8}))
	asBefore := func() {
		t.Helper()
		g.do(t, "GET /heroes/7", own).is(t, http.StatusOK)
		g.do(t, "GET /heroes/7", other).refused(t, http.StatusForbidden, "policy_denied")
	}
	asBefore()
	for _, broken := range []string{
		strings.Replace(heroesPolicy, "allow:", "alow:", 1),
		strings.Replace(heroesPolicy, "claims.partner.level", "claim.partner.level", 1),
		"allow: [",
	} {
		write(t, policy, broken)
		rejected := strings.Count(g.output.String(), "policies/heroes.yaml:")
		g.reload(t, yaml)
		eventually(t, "the reload is rejected", func() bool { return strings.Count(g.output.String(), "policies/heroes.yaml:") > rejected })
		asBefore()
	}
	write(t, policy, strings.NewReplacer("{hero: 7}", "{hero: x}", "{param: id}", `{in: [8, x]}`, "{hero: 8}", "{hero: 7}").Replace(heroesPolicy))
	g.reload(t, yaml)
	eventually(t, "the new policy holds", func() bool { return g.do(t, "GET /heroes/7", other).status == http.StatusOK })
	g.do(t, "GET /heroes/7", own).refused(t, http.StatusForbidden, "policy_denied")
}
