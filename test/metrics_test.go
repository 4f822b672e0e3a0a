package test

import (
	"crypto/rand"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// observed is a gateway with something behind each metric, whose token is
// accepted by the route guarded.
func observed(t *testing.T, backend string, p *idp) *gateway {
	t.Helper()
	return start(t, fill(`
server:
  ADDRESSES
  auth_failures:
    rate: 100000/1s
  admin: ADMIN
redis:
  url: REDIS
issuers:
  main:
    issuer: ISSUER
    audiences: [https://heroes.example]
    introspection:
      when: opaque
      auth:
        client_id: gatehouse
        client_secret: gatehouse-secret
revocation:
  mode: replica
limits:
  shared:
    key: [claim:sub]
    rate: 100000/1s
    scope: shared
  local:
    key: [ip]
    rate: 100000/1s
upstreams:
  heroes:
    targets: [BACKEND]
  nobody:
    targets: [http://127.0.0.1:1]
routes:
  - name: guarded
    match: GET /guarded/{id}
    privileges: [READ_HEROES]
    limits: [shared]
    upstream: heroes
  - name: open
    match: /open/{rest...}
    public: true
    limits: [local]
    upstream: heroes
  - name: nobody
    match: /nobody
    public: true
    upstream: nobody
`, "ADMIN", freeAddress(t), "REDIS", startRedis(t).URL, "ISSUER", p.URL, "BACKEND", backend))
}

// odd sends a request whose every part is made up.
func odd(t *testing.T, g *gateway, p *idp) {
	t.Helper()
	word := "odd" + strings.ToLower(rand.Text()[:10])
	signer := p.signer
	signer.kid = word
	for _, token := range []string{
		"", word, signer.sign(t, p.good(claims{"sub": word})), p.token(t, claims{"sub": word, "client_id": word, "jti": word}),
		p.token(t, claims{"iss": "https://" + word}), p.token(t, claims{"privileges": []string{word}}),
	} {
		for _, line := range []string{
			"GET /guarded/" + word, "GET /" + word + "?" + word + "=" + word, strings.ToUpper(word) + " /open/" + word, "GET /nobody?" + word, "GET //" + word,
		} {
			headers := []string{"Host: " + word + ".example", "User-Agent: " + word, "X-Request-Id: " + word, "Origin: https://" + word}
			if token != "" {
				headers = append(headers, bearer(token))
			}
			g.do(t, line, headers...)
		}
	}
}

// Whatever callers send, the labels stay what the configuration and fixed
// lists hold, and so their number is bounded.
func TestMetricsHoldNothingOfTheCallers(t *testing.T) {
	p := newIDP(t)
	p.says(t, claims{"active": false})
	b := newBackend(t)
	g := observed(t, b.URL, p)
	series := func() int {
		text := g.metrics(t)
		if found := regexp.MustCompile(`(?i)odd[a-z0-9]{10}`).FindString(text); found != "" {
			t.Errorf("the metrics tell of %s, which a caller sent", found)
		}
		n := 0
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "gatehouse_") {
				n++
			}
		}
		return n
	}
	for range 3 {
		odd(t, g, p)
	}
	before := series()
	for range 5 {
		odd(t, g, p)
	}
	if after := series(); after != before {
		t.Errorf("there are %d series, and after more requests of the same kinds %d", before, after)
	}

	words := map[string][]string{
		"route":    {"guarded", "open", "nobody", "-"},
		"reason":   {"", "bad_path", "bad_request", "no_route", "method_not_allowed", "missing_token", "invalid_token", "insufficient_privileges", "upstream_refused"},
		"status":   {"200", "400", "401", "403", "404", "405", "502"},
		"rung":     {"route", "limits", "token", "revocation", "policy", "headers", "forward"},
		"upstream": {"heroes", "nobody"},
		"issuer":   {"main"},
		"kind":     {"discovery", "jwks", "introspection"},
		"outcome": {"success", "failure", "hit", "miss", "admitted", "refused", "reported", "fallback", "spilled",
			"server_error", "gateway_error", "timeout", "broken_off", "client", "budget_exhausted"},
		"limit":      {"shared", "local", "auth_failures"},
		"state":      {"new", "active", "idle", "upgraded"},
		"phase":      {"handshake", "headers", "body", "response", "idle"},
		"mode":       {"tracking"},
		"dependency": {"limits", "revocation"},
		"posture":    {"deny", "local"},
		"target":     {strings.TrimPrefix(b.URL, "http://"), "127.0.0.1:1"},
		"le":         nil, "version": nil, "goversion": nil, "error": nil,
	}
	for line := range strings.Lines(g.metrics(t)) {
		if !strings.HasPrefix(line, "gatehouse_") {
			continue
		}
		for _, label := range regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`).FindAllStringSubmatch(line, -1) {
			allowed, known := words[label[1]]
			if !known || allowed != nil && !slices.Contains(allowed, label[2]) {
				t.Errorf("%s holds the label %s", strings.TrimSpace(line), label[0])
			}
		}
	}
	problems, err := promlint.New(strings.NewReader(g.metrics(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "gatehouse_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// What a request waited for shows on the rung and the upstream where it did.
func TestDurationsByRungAndUpstream(t *testing.T) {
	p := newIDP(t)
	g := observed(t, newBackend(t).URL, p)
	for range 3 {
		g.do(t, "GET /guarded/1", bearer(p.token(t))).is(t, http.StatusOK)
	}
	g.do(t, "GET /nobody").refused(t, http.StatusBadGateway, "upstream_refused")
	eventually(t, "the requests are counted", func() bool {
		return g.metric(t, `gatehouse_rung_duration_seconds_count{rung="route"}`) == 4
	})
	for series, want := range map[string]float64{
		`gatehouse_rung_duration_seconds_count{rung="limits"}`:         3,
		`gatehouse_rung_duration_seconds_count{rung="token"}`:          3,
		`gatehouse_rung_duration_seconds_count{rung="revocation"}`:     3,
		`gatehouse_rung_duration_seconds_count{rung="policy"}`:         3,
		`gatehouse_rung_duration_seconds_count{rung="headers"}`:        3,
		`gatehouse_rung_duration_seconds_count{rung="forward"}`:        4,
		`gatehouse_upstream_duration_seconds_count{upstream="heroes"}`: 3,
		`gatehouse_upstream_duration_seconds_count{upstream="nobody"}`: 1, // one that fails took its time, too
		`gatehouse_issuer_ready{issuer="main"}`:                        1,
		`gatehouse_issuer_keys{issuer="main"}`:                         1,
		`gatehouse_config_last_reload_successful`:                      1,
	} {
		if got := g.metric(t, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if age := g.metric(t, `gatehouse_issuer_keys_age_seconds{issuer="main"}`); age <= 0 || age > patience.Seconds() {
		t.Errorf("the keys are %v s old", age)
	}
	g.reload(t, "routes: []\n")
	eventually(t, "the reload failed", func() bool {
		return g.metric(t, "gatehouse_config_last_reload_successful") == 0 && g.metric(t, badReloads) >= 1
	})
}
