package test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A connection that lasts keeps what it was admitted by, however many reloads
// come and go meanwhile: the second one here retires a configuration that
// nobody uses any more, but whose Redis client the first one's connection does.
func TestRevokedAfterTwoReloads(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	p := newIDP(t)
	yaml := fill(lastingYAML, "IDP", p.URL, "BACKEND", newLastingBackend(t)) + "revocation: {}\nredis:\n  url: REDIS\n"
	g := start(t, fill(yaml, "REDIS", r.URL))
	ends := g.websocketAt(t, "/ws", p.token(t, claims{"jti": "stolen"}))
	echoes(t, ends, "before")
	reloaded := func(n int, yaml string) {
		g.reload(t, yaml)
		eventually(t, "it is reloaded", func() bool { return strings.Count(g.output.String(), "configuration reloaded") == n })
	}
	reloaded(1, fill(strings.Replace(yaml, "match: /kept", "match: /renamed", 1), "REDIS", r.URL))
	reloaded(2, fill(yaml, "REDIS", r.URL+"?dial_timeout=2s"))
	r.do(t, "SET", "revoked:jti:main:stolen", "1", "EX", "600")
	closedWith(t, ends, websocket.StatusPolicyViolation)
	g.output.says(t, `"reason":"revoked_token"`)
}

// What only the provider knows ends a connection, too: it is asked again about
// a token whose answer is too old. While it is down nothing ends.
func TestConnectionEndsWhenTheProviderWithdraws(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	opaque := minted("opaque-token-of-a-long-connection")
	g := start(t, fill(strings.Replace(lastingYAML, "    leeway: 0s", "    leeway: 0s"+fill(asking, "WHEN", "always")+"\n      interval: 1s", 1),
		"IDP", p.URL, "BACKEND", newLastingBackend(t)))
	jwt := p.token(t)
	p.says(t, p.said(claims{"exp": nil}), opaque, jwt)
	one, two := g.websocketAt(t, "/ws", opaque), g.websocketAt(t, "/ws", jwt)
	kept := g.websocketAt(t, "/kept", opaque)
	echoes(t, one, "before")
	echoes(t, two, "before")

	p.introspect(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	before := p.asked.Load()
	eventually(t, "the provider is asked again about both", func() bool { return p.asked.Load() >= before+2 })
	echoes(t, one, "while the provider is down")
	echoes(t, two, "while the provider is down")

	p.says(t, nil, "another")
	closedWith(t, one, websocket.StatusPolicyViolation)
	closedWith(t, two, websocket.StatusPolicyViolation)
	echoes(t, kept, "close_on_expiry: false")
}

// A peer that sends the head of a request to the admin listener and no body is
// not waited for without end, whoever he is.
func TestAdminListenerDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	_, admin, _, _ := startAdmin(t)
	conn := dial(t, admin.listen)
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("POST /revoke HTTP/1.1\r\nHost: " + admin.listen + "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\ntoken="))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	var some [1]byte
	if _, err := conn.Read(some[:]); err != nil && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("no answer and no end of the connection: %v", err)
	}
}
