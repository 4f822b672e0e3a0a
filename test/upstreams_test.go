package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Targets that health checks find dead, hung or ill get no request, and come
// back when they are well.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 3), freeAddress(t)
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    health:
      path: /healthz
      interval: 500ms
      healthy: 1
      unhealthy: 2
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address, "THIRD", m[2].address))
	state := func(i int, want string) {
		t.Helper()
		eventually(t, fmt.Sprintf("target %d is %s", i, want), func() bool { return g.upstream(t, admin, "heroes")[m[i].address].State == want })
	}
	healthy := func(i int) float64 {
		return g.metric(t, fmt.Sprintf(`gatehouse_upstream_target_healthy{target="%s",upstream="heroes"}`, m[i].address))
	}
	for i := range m {
		state(i, "healthy")
	}
	for trouble, strike := range map[string]func(){
		"killed": m[0].kill,
		"hung":   func() { m[0].mood.Store(hung) },
		"ill":    func() { m[0].mood.Store(sick) },
	} {
		strike()
		state(0, "unhealthy")
		if healthy(0) != 0 || g.upstream(t, admin, "heroes")[m[0].address].Why == "" {
			t.Errorf("%s: its metric is %v, and the reason %+v", trouble, healthy(0), g.upstream(t, admin, "heroes")[m[0].address])
		}
		before := m[0].served.Load()
		for range 12 {
			g.do(t, "GET /heroes").is(t, http.StatusOK)
		}
		if m[0].served.Load() != before {
			t.Errorf("%s: it got requests all the same", trouble)
		}
		if trouble == "killed" {
			m[0].start(t)
		}
		m[0].mood.Store(well)
		state(0, "healthy")
		eventually(t, "it serves again", func() bool { return g.do(t, "GET /heroes").body == m[0].address && healthy(0) == 1 })
	}
	if log := g.output.String(); !strings.Contains(log, `"msg":"target is unhealthy","upstream":"heroes","target":"`+m[0].address+`","why":"status 500"`) {
		t.Error("the log does not say why it was unhealthy")
	}

	for i := range m {
		m[i].kill()
	}
	for i := range m {
		state(i, "unhealthy")
	}
	refused := g.do(t, "GET /heroes")
	refused.refused(t, http.StatusServiceUnavailable, "no_healthy_target")
	if got := refused.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: %q", got)
	}
	resp, err := http.Get("http://" + g.status + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	detail, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if want := `"heroes":{"ready":false,"targets":3,"healthy":0}`; resp.StatusCode != http.StatusOK || !strings.Contains(string(detail), want) {
		t.Errorf("readiness: %d %s", resp.StatusCode, detail)
	}
	m[1].start(t)
	state(1, "healthy")
	if got := g.do(t, "GET /heroes"); got.body != m[1].address {
		t.Errorf("the one that is back: %d %s", got.status, got.body)
	}
}

// Whatever requests show of a failing target ejects it, and for longer each
// time; it comes back by itself.
func TestOutlierDetection(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 3), freeAddress(t)
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    outlier_detection:
      consecutive_gateway_failure: 2
      consecutive_5xx: 4
      base_ejection_time: 500ms
      max_ejection_time: 1s
      max_ejection_percent: 34
defaults:
  timeout: 2s
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address, "THIRD", m[2].address))
	for _, trouble := range []string{"killed", hung, overtaxed, erring, breaking} {
		before := g.upstream(t, admin, "heroes")[m[0].address].Ejections
		if trouble == "killed" {
			m[0].kill()
		} else {
			m[0].mood.Store(trouble)
		}
		failed, last := 0, ""
		eventually(t, trouble+": it is ejected", func() bool {
			resp, err := http.Get("http://" + g.listen + "/heroes")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode >= 500 {
				failed, last = failed+1, fmt.Sprint(resp.StatusCode, err)
			} else if string(body) == m[0].address {
				t.Errorf("%s: it answered", trouble)
			}
			return g.upstream(t, admin, "heroes")[m[0].address].Ejections > before
		})
		want := 2
		if trouble == erring {
			want = 4
		}
		if failed != want {
			t.Errorf("%s: %d requests failed until it was ejected, want %d; the last: %s", trouble, failed, want, last)
		}
		if trouble == "killed" {
			m[0].start(t)
		}
		m[0].mood.Store(well)
		eventually(t, trouble+": it serves again", func() bool { return g.do(t, "GET /heroes").body == m[0].address })
	}
	series := fmt.Sprintf(`{target="%s",upstream="heroes"}`, m[0].address)
	if n := g.metric(t, "gatehouse_upstream_target_ejections_total"+series); n != 5 {
		t.Errorf("%v ejections", n)
	}
	requests := g.upstream(t, admin, "heroes")[m[0].address].Requests
	for outcome, want := range map[string]int{"refused": 2, "timeout": 2, "gateway_error": 2, "server_error": 4, "broken_off": 2} {
		if requests[outcome] != want || g.metric(t, fmt.Sprintf(`gatehouse_upstream_target_requests_total{outcome="%s",target="%s",upstream="heroes"}`, outcome, m[0].address)) != float64(want) {
			t.Errorf("%s: %d requests, want %d", outcome, requests[outcome], want)
		}
	}
	if log := g.output.String(); strings.Count(log, `"msg":"target ejected"`) != 5 || !strings.Contains(log, `"why":"2 failures in a row, the last: broken_off"`) {
		t.Error("the log does not tell of the five ejections")
	}
}

// What happens when all targets are out is configured.
func TestNoHealthyTarget(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"fail", "try_all"} {
		m, admin := newMembers(t, 2), freeAddress(t)
		g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND]
    outlier_detection:
      consecutive_gateway_failure: 1
      base_ejection_time: 1h
      max_ejection_percent: 100
    no_healthy_target: MODE
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address, "MODE", mode))
		for i := range m {
			m[i].kill()
		}
		for range m {
			g.do(t, "GET /heroes").refused(t, http.StatusBadGateway, "upstream_refused")
		}
		for _, r := range g.upstream(t, admin, "heroes") {
			if r.State != "ejected" {
				t.Errorf("%+v", r)
			}
		}
		if mode == "try_all" {
			g.do(t, "GET /heroes").refused(t, http.StatusBadGateway, "upstream_refused")
		}
		for i := range m {
			m[i].start(t)
		}
		for range 4 {
			got := g.do(t, "GET /heroes")
			if mode == "try_all" {
				got.is(t, http.StatusOK)
				continue
			}
			got.refused(t, http.StatusServiceUnavailable, "no_healthy_target")
			if after := got.header.Get("Retry-After"); len(after) != 4 { // some 3,600 s
				t.Errorf("Retry-After: %s", after)
			}
		}
		if got := m[0].served.Load() + m[1].served.Load(); got != map[string]int64{"fail": 0, "try_all": 4}[mode] {
			t.Errorf("%s: %d requests were served", mode, got)
		}
	}
}

// A reload keeps what is known of upstreams that it does not change, and forgets
// targets that have gone.
func TestReloadKeepsTargets(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 3), freeAddress(t)
	yaml := fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND]
    outlier_detection:
      consecutive_gateway_failure: 1
      base_ejection_time: 1h
    health:
      path: /healthz
      interval: 500ms
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address)
	g := start(t, yaml)
	m[0].mood.Store(overtaxed)
	eventually(t, "it is ejected", func() bool {
		_ = g.do(t, "GET /heroes")
		return g.upstream(t, admin, "heroes")[m[0].address].State == "ejected"
	})
	m[0].mood.Store(well)
	g.reload(t, yaml+"  - match: GET /villains\n    public: true\n    upstream: heroes\n")
	eventually(t, "the reload is through", func() bool { return g.metric(t, goodReloads) == 1 })
	for range 6 {
		if got := g.do(t, "GET /villains"); got.body != m[1].address {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if got := g.upstream(t, admin, "heroes")[m[0].address]; got.State != "ejected" || got.Ejections != 1 {
		t.Errorf("after the reload: %+v", got)
	}
	g.reload(t, strings.Replace(yaml, m[1].address, m[2].address, 1))
	eventually(t, "the second is through", func() bool { return g.metric(t, goodReloads) == 2 })
	eventually(t, "both serve", func() bool {
		rows := g.upstream(t, admin, "heroes")
		return rows[m[0].address].Requests["success"] > 0 && rows[m[2].address].Requests["success"] > 0 || g.do(t, "GET /heroes").status == 0
	})
	if rows := g.upstream(t, admin, "heroes"); len(rows) != 2 || strings.Contains(g.metrics(t), m[1].address) {
		t.Errorf("a target that has gone is told of: %+v", rows)
	}
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: &http.Protocols{}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, r.URL.Path)
	})}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	g := start(t, fill(`
upstreams:
  prior:
    targets:
      - url: h2c://heroes.internal/base
        unix: SOCKET
    health:
      path: /healthz
  dead:
    targets: [unix:///nowhere/app.sock]
routes:
  - match: GET /bare
    public: true
    upstream: unix://SOCKET
  - match: GET /local
    public: true
    upstream: unix://SOCKET
    rewrite_host: target
  - match: GET /prior
    public: true
    upstream: prior
    rewrite_host: target
  - match: GET /dead
    public: true
    upstream: dead
`, "SOCKET", path))
	for request, want := range map[string]string{
		"/bare":  "HTTP/1.1 gatehouse.example /bare",
		"/local": "HTTP/1.1 localhost /local",
		"/prior": "HTTP/2.0 heroes.internal /base/prior",
	} {
		if got := g.do(t, "GET "+request).body; got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
	g.do(t, "GET /dead").refused(t, http.StatusBadGateway, "upstream_refused")
	if n := g.metric(t, fmt.Sprintf(`gatehouse_upstream_target_requests_total{outcome="success",target="unix:%s/base",upstream="prior"}`, path)); n != 1 {
		t.Errorf("%v requests to the socket", n)
	}
}

// One caller's requests go to one target, by what the file says callers are
// told apart by; without it, in turn.
func TestHashing(t *testing.T) {
	t.Parallel()
	m, p := newMembers(t, 3), newIDP(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
upstreams:
  claim:
    targets: TARGETS
    balance:
      hash: claim:sub
  header:
    targets: TARGETS
    balance:
      hash: header:x-user
  cookie:
    targets: TARGETS
    balance:
      hash: cookie:sid
routes:
  - match: GET /claim
    privileges: []
    upstream: claim
  - match: GET /public
    public: true
    upstream: claim
  - match: GET /header
    public: true
    upstream: header
  - match: GET /cookie
    public: true
    upstream: cookie
`, "IDP", p.URL, "TARGETS", fmt.Sprintf("[http://%s, http://%s, http://%s]", m[0].address, m[1].address, m[2].address)))
	alices := map[string]string{}
	for path, line := range map[string]func(string) string{
		"/claim":  func(user string) string { return bearer(p.token(t, claims{"sub": user})) },
		"/header": func(user string) string { return "X-User: " + user },
		"/cookie": func(user string) string { return "Cookie: other=1; sid=" + user },
	} {
		used := map[string]bool{}
		for i := range 30 {
			user := fmt.Sprintf("user-%d", i)
			first := g.do(t, "GET "+path, line(user)).body
			if again := g.do(t, "GET "+path, line(user)).body; again != first {
				t.Errorf("%s: %s is at %s, then at %s", path, user, first, again)
			}
			used[first] = true
			if i == 0 {
				alices[path] = first
			}
		}
		if len(used) != 3 {
			t.Errorf("%s: %d targets are used", path, len(used))
		}
	}
	if alices["/claim"] != alices["/header"] || alices["/claim"] != alices["/cookie"] {
		t.Errorf("one value belongs to several targets: %v", alices)
	}
	for _, path := range []string{"/public", "/header", "/cookie"} {
		used := map[string]bool{}
		for range 3 {
			used[g.do(t, "GET "+path).body] = true
		}
		if len(used) != 3 {
			t.Errorf("%s without a value: %d targets in three requests", path, len(used))
		}
	}
}

// The transport that an upstream asks for is seen by how many informational
// answers it takes. Both send their targets the same bytes.
func TestTransports(t *testing.T) {
	direct, netHTTP := newBackend(t), newBackend(t)
	g := start(t, fill(`
upstreams:
  heroes:
    targets: [DIRECT]
    transport: direct
  villains:
    targets: [NET_HTTP]
    transport: net_http
routes:
  - match: /heroes
    public: true
    upstream: heroes
  - match: /villains
    public: true
    upstream: villains
`, "DIRECT", direct.URL, "NET_HTTP", netHTTP.URL))
	headers := []string{"Accept: a", "B: b", "B: c", "D: d", "User-Agent: e", "X-Request-Id: f"}
	for path, b := range map[string]*backend{"/heroes": direct, "/villains": netHTTP} {
		g.do(t, "GET "+path, headers...).is(t, 200)
		b.Answer = strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: <"+strings.Repeat("a", 1<<10)+">\r\n\r\n", 300) + b.Answer
	}
	own := regexp.MustCompile(`/heroes|/villains|(X-Request-Id|Traceparent): .*`)
	if one, other := own.ReplaceAllString(direct.last(t).raw, ""), own.ReplaceAllString(netHTTP.last(t).raw, ""); one != other {
		t.Errorf("directly %q, by net/http %q", one, other)
	}
	g.do(t, "GET /heroes").refused(t, http.StatusBadGateway, "upstream_refused")
	g.do(t, "GET /villains").is(t, 200)
}
