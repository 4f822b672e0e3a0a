package test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"io"
	mathbig "math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A restart while the identity provider is down serves at once, from the snapshot.
func TestSnapshotOutlivesTheProvider(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	snapshot := filepath.Join(t.TempDir(), "main.jwks")
	yaml := fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    jwks:
      snapshot: SNAPSHOT
routes:
  - match: GET /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "SNAPSHOT", snapshot, "BACKEND", b.URL)
	token := p.token(t)
	g := start(t, yaml)
	g.do(t, "GET /heroes/1", bearer(token)).is(t, http.StatusOK)
	g.signal(syscall.SIGTERM)
	if status := g.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	info, err := os.Stat(snapshot)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the snapshot: %v, %v", info, err)
	}
	p.Close()
	g = start(t, yaml)
	g.do(t, "GET /heroes/1", bearer(token)).is(t, http.StatusOK)

	// A snapshot that somebody spoilt is no snapshot: nobody can tell, so 503 and never 401.
	g.signal(syscall.SIGTERM)
	g.exit(t)
	write(t, snapshot, "{}")
	start(t, yaml).do(t, "GET /heroes/1", bearer(token)).refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
}

// An issuer that a reload changes keeps its keys, unless it would fetch others: a
// dead provider must not make an edit an outage.
func TestReloadKeepsTheKeysOfAnIssuer(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	yaml := func(more string) string {
		return fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]MORE
routes:
  - match: GET /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL, "MORE", more)
	}
	g := start(t, yaml(""))
	reloads := 0.0
	reload := func(more string) {
		t.Helper()
		g.reload(t, yaml(more))
		reloads++
		eventually(t, "the reload has ended", func() bool { return g.metric(t, goodReloads) == reloads })
	}
	token := bearer(p.token(t))
	g.do(t, "GET /heroes/1", token).is(t, http.StatusOK)
	reload("\n    leeway: 40s")
	g.do(t, "GET /heroes/1", token).is(t, http.StatusOK)
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("%d fetches of keys", n)
	}

	fails := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	p.serveDiscovery(fails)
	p.serveJWKS(fails)
	for _, more := range []string{"\n    leeway: 50s", "\n    jwks:\n      max_stale: 48h", fill(asking, "WHEN", "opaque"), ""} {
		reload(more)
		g.do(t, "GET /heroes/1", token).is(t, http.StatusOK)
		if got := g.probe("/readyz"); got != http.StatusOK {
			t.Errorf("/readyz after a reload with %q: %d", more, got)
		}
	}

	// Keys from elsewhere are others, whoever has the same name.
	reload(fill("\n    jwks:\n      uri: IDP/keys", "IDP", p.URL))
	g.do(t, "GET /heroes/1", token).refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
	if got := g.probe("/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz without keys: %d", got)
	}
}

// However many requests bring kids that nobody knows, the provider is asked
// once in min_refresh_interval, which is half a minute.
func TestUnknownKidsAskOnce(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: GET /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	before := p.fetches.Load()
	stranger := newSigner(t, "ES256", "stranger")
	var callers sync.WaitGroup
	for n := range 10 {
		tokens := make([]string, 10)
		for i := range tokens {
			tokens[i] = stranger.sign(t, p.good(), claims{"kid": "stranger-" + itoa(int64(n*10+i))})
		}
		callers.Go(func() {
			for _, token := range tokens {
				g.do(t, "GET /heroes/1", bearer(token)).refused(t, http.StatusUnauthorized, "invalid_token")
			}
		})
	}
	callers.Wait()
	if n := p.fetches.Load() - before; n != 1 {
		t.Errorf("100 unknown kids caused %d fetches", n)
	}
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
	b.last(t)
}

func TestProfileAndRequiredClaims(t *testing.T) {
	t.Parallel()
	g, _, p := startOne(t, `
    profile: rfc9068
    max_lifetime: 1h
    required_claims:
      token_use: access`)
	now := time.Now().Unix()
	whole := claims{"sub": "alice", "client_id": "shop", "jti": "j1", "iat": now, "exp": now + 600, "token_use": "access"}
	typ := claims{"typ": "at+jwt"}
	g.do(t, "GET /heroes/1", bearer(p.sign(t, p.good(whole), typ))).is(t, http.StatusOK)
	for name, token := range map[string]string{
		"typ JWT":          p.sign(t, p.good(whole), claims{"typ": "JWT"}),
		"no client_id":     p.sign(t, p.good(whole, claims{"client_id": nil}), typ),
		"another use":      p.sign(t, p.good(whole, claims{"token_use": "id"}), typ),
		"lives too long":   p.sign(t, p.good(whole, claims{"exp": now + 7200}), typ),
		"an ID token":      p.sign(t, p.good(whole, claims{"nonce": "n"}), typ),
		"bound to a thing": p.sign(t, p.good(whole, claims{"cnf": claims{"jkt": "x"}}), typ),
	} {
		t.Run(name, func(t *testing.T) {
			g.do(t, "GET /heroes/1", bearer(token)).refused(t, http.StatusUnauthorized, "invalid_token")
		})
	}
	for _, says := range []string{"at+jwt", "client_id", "token_use", "max_lifetime", "nonce", "cnf"} {
		g.output.says(t, says)
	}
}

// A token that is bound to a client certificate is of no use without it.
func TestBoundTokenNeedsItsCertificate(t *testing.T) {
	t.Parallel()
	certificate := func() (header, print string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: mathbig.NewInt(1)}, &x509.Certificate{SerialNumber: mathbig.NewInt(1)}, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(der)
		return "Client-Cert: :" + base64.StdEncoding.EncodeToString(der) + ":", base64.RawURLEncoding.EncodeToString(sum[:])
	}
	header, print := certificate()
	another, _ := certificate()
	routes := `
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: GET /heroes/{id}
    privileges: []
    upstream: BACKEND
`
	p, b := newIDP(t), newBackend(t)
	behind := start(t, fill("server:\n  ADDRESSES\n  trusted_proxies: [127.0.0.1/32]"+routes, "IDP", p.URL, "BACKEND", b.URL))
	direct := start(t, fill(routes, "IDP", p.URL, "BACKEND", b.URL))
	bound := bearer(p.token(t, claims{"cnf": claims{"x5t#S256": print}}))
	for range 2 { // the second time the token is remembered
		behind.do(t, "GET /heroes/1", bound, header).is(t, http.StatusOK)
		behind.do(t, "GET /heroes/1", bound, another).refused(t, http.StatusUnauthorized, "invalid_token")
		behind.do(t, "GET /heroes/1", bound).refused(t, http.StatusUnauthorized, "invalid_token")
		behind.do(t, "GET /heroes/1", bound, header, header).refused(t, http.StatusUnauthorized, "invalid_token")
		behind.do(t, "GET /heroes/1", bound, "Client-Cert: ::").refused(t, http.StatusUnauthorized, "invalid_token")
		behind.do(t, "GET /heroes/1", bound, "Client_Cert: x").refused(t, http.StatusUnauthorized, "invalid_token")
	}
	// Nobody but a trusted proxy may say which certificate it was.
	direct.do(t, "GET /heroes/1", bound, header).refused(t, http.StatusUnauthorized, "invalid_token")
	direct.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
}

// Shared caches know Authorization; from elsewhere a token makes the answer private.
func TestAnswersToTokensFromElsewhereArePrivate(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, `
    token_from:
      - header
      - cookie: session`)
	token := p.token(t)
	if got := g.do(t, "GET /heroes/1", bearer(token)).header.Get("Cache-Control"); got != "" {
		t.Errorf("with Authorization: Cache-Control: %s", got)
	}
	if got := g.do(t, "GET /heroes/1", "Cookie: session="+token).header.Get("Cache-Control"); got != "private" {
		t.Errorf("with a cookie: Cache-Control: %q", got)
	}
	b.last(t)
	// An upgrade is a GET that opens a channel: another site's page must not.
	for origin, status := range map[string]int{"Origin: https://evil.example": http.StatusForbidden, "Sec-Fetch-Site: cross-site": http.StatusForbidden} {
		g.do(t, "GET /heroes/1", "Cookie: session="+token, "Connection: Upgrade", "Upgrade: websocket", origin).refused(t, status, "cross_origin")
	}
}

// A browser can offer subprotocols and nothing else: the token is one of them.
func TestTokenInAWebSocketProtocol(t *testing.T) {
	t.Parallel()
	offered := make(chan []string, 10)
	up := func(w http.ResponseWriter, r *http.Request) {
		offered <- r.Header["Sec-Websocket-Protocol"]
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, rw)
	}
	backend := httptest.NewServer(http.HandlerFunc(up))
	t.Cleanup(backend.Close)
	p := newIDP(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    token_from:
      - websocket_protocol: access_token
routes:
  - match: GET /ws
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", backend.URL))
	const handshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: "
	for _, c := range []struct {
		protocols, left string
		status          int
	}{
		{"access_token, " + p.token(t), "", http.StatusSwitchingProtocols},
		{"chat, access_token, " + p.token(t) + ", v2", "chat, v2", http.StatusSwitchingProtocols},
		{"chat", "", http.StatusUnauthorized},
		{"access_token", "", http.StatusBadRequest},
		{"access_token, " + p.token(t) + ", access_token, " + p.token(t), "", http.StatusBadRequest},
		{"access_token, " + p.token(t, claims{"exp": 1}), "", http.StatusUnauthorized},
	} {
		conn := dial(t, g.listen)
		_, _ = io.WriteString(conn, handshake+c.protocols+"\r\n\r\n")
		a := readAnswer(t, bufio.NewReader(conn), "GET")
		if a.status != c.status {
			t.Errorf("%s: %d, want %d", strings.Split(c.protocols, "ey")[0], a.status, c.status)
		}
		if a.status == http.StatusSwitchingProtocols {
			if got := strings.Join(receive(t, "the handshake", offered), ", "); got != c.left {
				t.Errorf("the backend was offered %q, want %q", got, c.left)
			}
			if got := a.header.Get("Sec-WebSocket-Protocol"); got != "access_token" {
				t.Errorf("the browser is told %q, and would fail the connection", got)
			}
		}
		_ = conn.Close()
	}
	if len(offered) > 0 {
		t.Error("a refused handshake reached the backend")
	}
}

func TestTokenCommand(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	path := filepath.Join(t.TempDir(), "routes.yaml")
	write(t, path, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: GET /heroes/{id}
    privileges: []
    upstream: http://127.0.0.1:1
`, "IDP", p.URL))
	for _, c := range []struct {
		name, token string
		status      int
		says        []string
	}{
		{"good", p.token(t, claims{"sub": "alice", "privileges": []string{"A", "B"}}), 0, []string{"ok    signature", "X-Jwt-Sub: alice", "X-Jwt-Privileges: A,B"}},
		{"expired", p.token(t, claims{"exp": 1}), 1, []string{"ok    signature", "FAIL  expired_token", "1970-01-01"}},
		{"another audience", p.token(t, claims{"aud": "https://other.example"}), 1, []string{"FAIL  invalid_token", "https://other.example", "https://heroes.example"}},
		{"another issuer", p.token(t, claims{"iss": "https://other.example"}), 1, []string{"FAIL  invalid_token", "https://other.example"}},
		{"forged", newSigner(t, "ES256", p.kid).sign(t, p.good()), 1, []string{"FAIL  invalid_token", "signature"}},
		{"no JWT", "opaque", 1, []string{"FAIL  invalid_token"}},
		{"nothing", "", 1, []string{"empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out := command(t, c.token+"\n", "token", "--config", path)
			if status != c.status {
				t.Errorf("status %d, want %d\n%s", status, c.status, out)
			}
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("does not say %q:\n%s", want, out)
				}
			}
			if strings.Contains(out, "X-Jwt") != (c.status == 0) {
				t.Errorf("headers of a refused token, or none of a good one:\n%s", out)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "token.jwt")
	write(t, file, p.token(t))
	if status, out := command(t, "", "token", "--config", path, file); status != 0 {
		t.Errorf("from a file: %d\n%s", status, out)
	}
	p.Close()
	if status, out := command(t, p.token(t), "token", "--config", path); status == 0 || !strings.Contains(out, "issuer_unavailable") {
		t.Errorf("with the provider down: %d\n%s", status, out)
	}
}
