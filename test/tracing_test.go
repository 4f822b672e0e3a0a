package test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
)

const (
	callerTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callerSpan  = "00f067aa0ba902b7"
)

// traced is a gateway that asks somebody on each rung where that is possible.
func traced(t *testing.T, c *collector, p *idp, backend, ratio, trusted string) *gateway {
	t.Helper()
	return start(t, fill(`
server:
  ADDRESSES
  trusted_proxies: [TRUSTED]
  tracing:
    endpoint: COLLECTOR
    sample_ratio: RATIO
    headers:
      X-Key: secret
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
  mode: lookup
limits:
  per_user:
    key: [claim:sub]
    rate: 100000/1s
    scope: shared
upstreams:
  heroes:
    targets: [BACKEND]
routes:
  - name: hero
    match: GET /heroes/{id}
    privileges: [READ_HEROES]
    limits: [per_user]
    upstream: heroes
  - name: nobody
    match: /nobody
    public: true
    upstream: http://127.0.0.1:1
  - name: open
    match: /open
    public: true
    upstream: heroes
`, "COLLECTOR", c.URL, "REDIS", startRedis(t).URL, "ISSUER", p.URL, "BACKEND", backend, "RATIO", ratio, "TRUSTED", trusted))
}

func parentOf(flags string) string {
	return "Traceparent: 00-" + callerTrace + "-" + callerSpan + "-" + flags
}

// traceOf reads what the backend was told: the trace, the parent and the flags.
func traceOf(t *testing.T, b *backend) (trace, parent, flags string) {
	t.Helper()
	lines := b.last(t).header("traceparent")
	if len(lines) != 1 || len(lines[0]) != 55 {
		t.Fatalf("the backend got traceparent: %q", lines)
	}
	fields := strings.Split(lines[0], "-")
	return fields[1], fields[2], fields[3]
}

// A request is a span with a child for each rung that asked somebody, and the
// backend goes on where the gateway's call of it stands.
func TestSpans(t *testing.T) {
	c, p, b := newCollector(t), newIDP(t), newBackend(t)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	g := traced(t, c, p, b.URL, "1", "127.0.0.1/32")

	opaque := "opaque-token-of-alice-0123456789"
	p.says(t, p.good(claims{"active": true}), opaque)
	g.do(t, "GET /heroes/7?secret=word", bearer(opaque), parentOf("01"), "Tracestate: vendor=x", "X-Request-Id: r-1").is(t, http.StatusOK)
	server, children := c.whole(t, callerTrace)
	if server.parent != callerSpan || server.Name != "GET /heroes/{id}" || server.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET || server.TraceState != "vendor=x" {
		t.Errorf("the request's span is %v", server.Span)
	}
	server.has(t, map[string]string{
		"http.request.method": "GET", "http.route": "/heroes/{id}", "url.path": "/heroes/7", "url.scheme": "http", "http.response.status_code": "200",
		"gatehouse.route": "hero", "gatehouse.request_id": "r-1", "client.address": "127.0.0.1", "network.protocol.version": "1.1", "server.address": "gatehouse.example",
	})
	if got, want := slices.Sorted(maps.Keys(children)), []string{"GET", "introspection", "limits", "revocation"}; !slices.Equal(got, want) {
		t.Fatalf("the children are %q, want %q", got, want)
	}
	children["GET"].has(t, map[string]string{"gatehouse.upstream": "heroes", "http.request.method": "GET", "http.response.status_code": "200"})
	children["introspection"].has(t, map[string]string{"gatehouse.issuer": "main", "gatehouse.rung": "token"})
	children["limits"].has(t, map[string]string{"db.system.name": "redis"})
	children["revocation"].has(t, map[string]string{"db.system.name": "redis"})
	if trace, parent, flags := traceOf(t, b); trace != callerTrace || parent != children["GET"].id || flags != "01" {
		t.Errorf("the backend is told of %s, %s, %s; the span of its call is %s", trace, parent, flags, children["GET"].id)
	}
	b.last(t).has(t, "tracestate", "vendor=x")
	if c.resource["service.name"] != "gatehouse" || c.resource["deployment.environment.name"] != "test" || c.resource["service.version"] == "" {
		t.Errorf("the resource is %v", c.resource)
	}
	for _, s := range c.of(callerTrace) {
		if text := s.String(); strings.Contains(text, "word") || strings.Contains(text, opaque) || strings.Contains(text, "alice") {
			t.Errorf("a span tells too much: %s", text)
		}
	}

	// A remembered answer asks nobody again.
	second := strings.Repeat("ab", 16)
	g.do(t, "GET /heroes/7", bearer(opaque), "Traceparent: 00-"+second+"-"+callerSpan+"-01").is(t, http.StatusOK)
	if _, children = c.whole(t, second); children["introspection"] != nil || children["revocation"] == nil {
		t.Errorf("the children are %v", slices.Sorted(maps.Keys(children)))
	}

	// A key that is not known yet is waited for.
	third := strings.Repeat("cd", 16)
	newer := newSigner(t, "ES256", "main-2")
	p.publish(newer)
	g.do(t, "GET /heroes/7", bearer(newer.sign(t, p.good())), "Traceparent: 00-"+third+"-"+callerSpan+"-01").is(t, http.StatusOK)
	if _, children = c.whole(t, third); children["jwks"] == nil {
		t.Errorf("the children are %v", slices.Sorted(maps.Keys(children)))
	}

	// A refusal is no error of the gateway's, and goes no further.
	fourth := strings.Repeat("ef", 16)
	g.do(t, "GET /heroes/7", "Traceparent: 00-"+fourth+"-"+callerSpan+"-01").refused(t, http.StatusUnauthorized, "missing_token")
	server, children = c.whole(t, fourth)
	server.has(t, map[string]string{"gatehouse.reason": "missing_token", "http.response.status_code": "401", "error.type": ""})
	if len(children) > 0 || server.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET {
		t.Errorf("a refusal has the children %v and the status %v", children, server.Status)
	}

	// A backend that is down is one, of both spans. A method is what anyone makes up.
	fifth := strings.Repeat("12", 16)
	g.do(t, "BREW /nobody", "Traceparent: 00-"+fifth+"-"+callerSpan+"-01").refused(t, http.StatusBadGateway, "upstream_refused")
	server, children = c.whole(t, fifth)
	if server.Name != "HTTP /nobody" || server.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || children["HTTP"].Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("the spans are %v and %v", server.Span, children)
	}
	server.has(t, map[string]string{"error.type": "upstream_refused", "http.request.method": "_OTHER"})
	children["HTTP"].has(t, map[string]string{"error.type": "upstream_refused"})
	g.output.says(t, `"trace_id":"`+fifth+`"`)
}

// Who begins a trace decides whether it is recorded, if that one is believed.
func TestSpansAreSampled(t *testing.T) {
	c, p, b := newCollector(t), newIDP(t), newBackend(t)
	one := func(ratio, trusted, sent string) (trace, parent, flags string) {
		g := traced(t, c, p, b.URL, ratio, trusted)
		if sent == "" {
			sent = "Accept: a/b"
		}
		g.do(t, "GET /open", sent).is(t, http.StatusOK)
		g.signal(syscall.SIGTERM) // what is recorded is exported
		g.exit(t)
		return traceOf(t, b)
	}
	for _, story := range []struct {
		name, ratio, trusted, sent string
		same, recorded             bool
	}{
		{"begun here, all", "1", "10.0.0.0/8", "", false, true},
		{"begun here, none", "0", "10.0.0.0/8", "", false, false},
		{"a caller who is not believed", "0", "10.0.0.0/8", parentOf("01"), false, false},
		{"the proxy records", "0", "127.0.0.1/32", parentOf("01"), true, true},
		{"the proxy records, with a random id", "0", "127.0.0.1/32", parentOf("03"), true, true},
		{"the proxy does not", "1", "127.0.0.1/32", parentOf("00"), true, false},
	} {
		t.Run(story.name, func(t *testing.T) {
			c.mu.Lock()
			c.spans = nil
			c.mu.Unlock()
			trace, parent, flags := one(story.ratio, story.trusted, story.sent)
			if (trace == callerTrace) != story.same || parent == callerSpan {
				t.Errorf("the backend is told of the trace %s and the parent %s", trace, parent)
			}
			if got := flags == "01" || flags == "03"; got != story.recorded || story.sent == parentOf("03") && flags != "03" {
				t.Errorf("the backend is told the flags %s", flags)
			}
			if got := len(c.of(trace)); (got > 0) != story.recorded {
				t.Errorf("%d spans are exported", got)
			}
		})
	}
}

// A collector that is down costs spans and nothing else.
func TestCollectorDown(t *testing.T) {
	c, p, b := newCollector(t), newIDP(t), newBackend(t)
	g := traced(t, c, p, b.URL, "1", "10.0.0.0/8")
	c.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	g.do(t, "GET /open").is(t, http.StatusOK)
	eventually(t, "the spans have failed", func() bool { return g.metric(t, `gatehouse_spans_total{outcome="failed"}`) == 2 })
	g.output.says(t, "spans cannot be exported")

	released := make(chan struct{})
	defer close(released)
	c.answers(func(_ http.ResponseWriter, r *http.Request) { hold(r, released) })
	caller := g.caller(t, "http/1.1", nil)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				resp, err := caller.Get(caller.URL + "/open")
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%v %v", resp, err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	all.Wait()
	eventually(t, "spans are dropped", func() bool { return g.metric(t, `gatehouse_spans_total{outcome="dropped"}`) >= 1 })
	g.signal(syscall.SIGTERM)
	if status := g.exit(t); status != 0 {
		t.Errorf("the gateway ended with status %d", status)
	}
}

// Whoever can make a collector redirect gets neither the spans nor the key that
// goes with them.
func TestCollectorRedirects(t *testing.T) {
	c, other, p, b := newCollector(t), newBackend(t), newIDP(t), newBackend(t)
	g := traced(t, c, p, b.URL, "1", "10.0.0.0/8")
	c.answers(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	g.do(t, "GET /open").is(t, http.StatusOK)
	of := func(outcome string) float64 { return g.metric(t, `gatehouse_spans_total{outcome="`+outcome+`"}`) }
	eventually(t, "the spans have ended", func() bool { return of("exported")+of("failed") == 2 })
	other.untouched(t)
	if n := of("failed"); n != 2 {
		t.Errorf("%v spans have failed, want 2", n)
	}
	g.output.says(t, "the collector answers 307")
}

// Neither a drain nor a reload loses spans, however long they may wait.
func TestSpansAreFlushed(t *testing.T) {
	c, b := newCollector(t), newBackend(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
	yaml := fill(`
server:
  ADDRESSESTRACING
routes:
  - match: /open
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL)
	on := fill(yaml, "TRACING", fmt.Sprintf("\n  tracing:\n    endpoint: %s\n    headers:\n      X-Key: secret", c.URL))
	off := fill(yaml, "TRACING", "")
	g := start(t, off)
	asked := func() string {
		g.do(t, "GET /open").is(t, http.StatusOK)
		trace, _, _ := traceOf(t, b)
		return trace
	}
	never := asked()
	g.reload(t, on)
	eventually(t, "the reload", func() bool { return g.metric(t, goodReloads) == 1 })
	first := asked()
	g.reload(t, off)
	c.whole(t, first)
	g.reload(t, on)
	eventually(t, "the reload", func() bool { return g.metric(t, goodReloads) == 3 })
	last := asked()
	g.signal(syscall.SIGTERM)
	g.exit(t)
	if len(c.of(last)) != 2 {
		t.Errorf("after a drain there are %d spans of the last request", len(c.of(last)))
	}
	if len(c.of(never)) != 0 {
		t.Error("a request was recorded without tracing")
	}
}
