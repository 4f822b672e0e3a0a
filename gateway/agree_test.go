package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/inject"
	"gatehouse/gateway/token"
)

// agreeYAML has most of what decides about a request.
const agreeYAML = `
server:
  trusted_proxies: [127.0.0.0/8]
redis:
  url: REDIS
revocation:
  check: [jti]
issuers:
  main:
    issuer: https://main.example
    audiences: [api, web]
    leeway: 1s
    keys: [{env: MAIN}]
    token_from:
      - header
      - query: access_token
      - cookie: session
    may_grant: [READ, WRITE]
    actor_from: [impersonator.id]
    max_lifetime: 10h
  other:
    issuer: https://other.example
    audiences: [any]
    profile: rfc9068
    keys: [{env: OTHER}]
    privileges_from: [scope, {claim: roles.list, prefix: "r:"}]
    may_grant: ["r:READ"]
    mode: report
    required_claims:
      level: [2, 3]
  seed:
    issuer: none
    audiences: any
    keys: [{env: SEED}]
    token_from: {cookie: session}
  asked:
    issuer: https://asked.example
    audiences: any
    keys: [{env: ASKED}]
    introspection:
      when: opaque
      endpoint: BACKEND/introspect
      auth:
        client_id: gatehouse
        client_secret: a-secret-of-a-test
      misses:
        rate: 1000000/1s
headers:
  max_bytes: 600
limits:
  few:
    key: [claim:sub]
    rate: 3/240h
  reported:
    key: [ip]
    rate: 1/240h
    mode: report
  by_method:
    key: [ip, "header:X-Region"]
    rate: 40/240h
    cost: {POST: 5, GET: 0}
upstreams:
  back:
    targets: [BACKEND]
defaults:
  issuers: [main]
  limits: [reported]
routes:
  - match: /open/{rest...}
    public: true
    upstream: back
    encoded_slash: allow
    max_body: 10B
  - match: GET /heroes/{id}
    policy: p
    upstream: back
    strip_prefix: /heroes
  - match: POST,PUT /heroes/{id}
    privileges: {all: [WRITE], any: [READ, ADMIN]}
    limits: [few, by_method]
    upstream: back
    max_body: 10B
    request_headers:
      set:
        X-Region: us
      remove: [X-Other]
  - match: GET /both/{id}
    issuers: [main, other]
    privileges: {any: [READ, "r:READ"]}
    policy: p
    upstream: back
    forward_token: true
  - match: /strict/{id}
    mode: enforce
    issuers: [main, other]
    privileges: {any: [READ, "r:READ"]}
    upstream: back
  - match: GET,POST /asked/{id}
    issuers: [asked]
    privileges: [READ]
    policy: p
    upstream: back
  - match: GET,POST /asked/report/{id}
    mode: report
    issuers: [asked]
    privileges: [READ]
    upstream: back
  - match: /seed/{$}
    issuers: [seed]
    privileges: [READ]
    upstream: back
  - match: GET,POST /report/{id}
    mode: report
    issuers: [main, other]
    privileges: [WRITE]
    policy: p
    delegation: deny
    limits: [few]
    upstream: back
  - match: /step/up
    privileges: []
    acr: [gold]
    amr: {any: [otp, hwk]}
    max_auth_age: 5m
    upstream: back
  - match: /acts/deny
    privileges: []
    delegation: deny
    upstream: back
  - match: /acts/some
    privileges: []
    delegation:
      actors: [{sub: helpdesk}, {iss: "https://other.example", sub: batch}]
    upstream: back
  - match: GET /maybe/{id}
    auth: optional
    upstream: back
  - match: GET api.example.com/heroes/{id}
    privileges: [READ]
    upstream: back
    strip_prefix: /heroes
    add_prefix: /v2
    cors:
      allow_origins: ["https://app.example"]
`

const agreePolicy = `
headers: [X-Region]
allow:
  - name: own
    method: [GET, HEAD]
    claims:
      hero: {param: id}
    not: {claims: {suspended: true}}
  - name: region
    headers: {X-Region: eu}
    ip: [10.0.0.0/8]
  - name: level
    when: claims.level >= 2 && claims.roles.list.exists(r, r == "READ")
tests:
  - expect: deny
`

// world is a gateway in front of a backend that says what it received.
type world struct {
	t       *testing.T
	cfg     *config.Config
	gateway *Gateway
	front   *httptest.Server
	http2   *http.Client
	keys    map[string]ed25519.PrivateKey
	routes  chan string // of the access log
	random  *rand.Rand
}

// received is what the backend saw.
type received struct {
	URI    string
	Claims map[string]string
	Token  bool
}

func newWorld(t *testing.T, random *rand.Rand) *world {
	w := &world{t: t, keys: map[string]ed25519.PrivateKey{}, routes: make(chan string, 1), random: random}
	back := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/introspect" {
			answerIntrospection(rw, r)
			return
		}
		saw := received{URI: r.RequestURI, Claims: map[string]string{}, Token: r.Header.Get("Authorization") != ""}
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Jwt-") || name == inject.WouldRefuse {
				saw.Claims[name] = r.Header.Get(name)
			}
		}
		_ = json.NewEncoder(rw).Encode(saw)
	}))
	t.Cleanup(back.Close)
	env := map[string]string{}
	for _, name := range []string{"MAIN", "OTHER", "SEED", "ASKED", "NOBODY"} {
		_, key, _ := ed25519.GenerateKey(nil)
		w.keys[name] = key
		env[name] = `{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)) + `"}`
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "p.yaml"), []byte(agreePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	w.cfg, _, err = config.Parse(filepath.Join(dir, "routes.yaml"), []byte(strings.NewReplacer("BACKEND", back.URL, "REDIS", revokes(t)).Replace(agreeYAML)), config.Options{Env: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}})
	if err != nil {
		t.Fatal(err)
	}
	if w.gateway, err = New(t.Context(), w.cfg, Options{Logger: slog.New(routeLog{slog.DiscardHandler, w.routes})}); err != nil {
		t.Fatal(err)
	}
	w.front = httptest.NewUnstartedServer(w.gateway)
	w.front.Config.Protocols = new(http.Protocols)
	w.front.Config.Protocols.SetHTTP1(true)
	w.front.Config.Protocols.SetUnencryptedHTTP2(true)
	w.front.Start()
	only2 := new(http.Protocols)
	only2.SetUnencryptedHTTP2(true)
	w.http2 = &http.Client{
		Transport: &http.Transport{Protocols: only2, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.front.Listener.Addr().String())
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		w.http2.CloseIdleConnections()
		w.front.Close()
		_ = w.gateway.Close()
	})
	return w
}

// revokes starts a Redis in which the jti "gone" of every issuer is revoked.
func revokes(t *testing.T) (address string) {
	address = startRedis(t)
	o, err := redis.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close()
	for _, issuer := range []string{"main", "other", "seed", "asked"} {
		if err := client.Set(t.Context(), "revoked:jti:"+issuer+":gone", "1", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return address
}

// opaque returns a token that nobody but the provider can read.
func opaque(claims []byte) string { return "op-" + hex.EncodeToString(claims) }

// answerIntrospection knows opaque tokens (RFC 7662).
func answerIntrospection(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	said := map[string]any{"active": false}
	text, err := hex.DecodeString(strings.TrimPrefix(r.FormValue("token"), "op-"))
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if dec.Decode(&said) == nil {
			said["active"] = true
		}
	}
	_ = json.NewEncoder(w).Encode(said)
}

// routeLog hands on the route of each request's log line.
type routeLog struct {
	slog.Handler
	routes chan<- string
}

func (h routeLog) Enabled(context.Context, slog.Level) bool { return true }
func (h routeLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "request" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "route" {
				h.routes <- a.Value.String()
			}
			return true
		})
	}
	return nil
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// claims returns the claims of a token that main, other or seed could sign,
// good ones more often than not.
func (w *world) claims(issuer string) map[string]any {
	r, now := w.random, time.Now().Unix()
	c := map[string]any{"exp": now + 3600, "iat": now - 10, "sub": pick(r, "alice", "bob", "carol, \"x\" é%", strings.Repeat("long", 200))}
	switch issuer {
	case "MAIN":
		c["iss"], c["aud"] = "https://main.example", pick[any](r, "api", []string{"web", "x"}, "api")
	case "ASKED":
		c["iss"] = "https://asked.example"
	case "OTHER":
		c["iss"], c["aud"], c["client_id"], c["jti"], c["level"] = "https://other.example", "any", "web", "j", pick[any](r, 2, 3, 3, "2", 1)
	}
	c["privileges"] = pick[any](r, []string{"READ"}, []string{"READ", "WRITE"}, "WRITE ADMIN", []string{}, 7, nil, "READ WRITE")
	odd := []func(){
		func() {
			c["exp"] = pick[any](r, now-10, now-3600, now-2, "soon", json.Number("1e400"), nil, -1, now+1_000_000)
		},
		func() { c["exp"] = now - 5 },
		func() { c["nbf"] = pick[any](r, now+100, now-100, "x") },
		func() { c["aud"] = pick[any](r, "elsewhere", []any{1}, nil, map[string]any{"a": "b"}) },
		func() { c["iss"] = pick[any](r, "https://evil.example", 7, nil, "https://main.example/") },
		func() { c["nonce"] = "n" },
		func() { c["jti"] = pick(r, "gone", "gone", "there") },
		func() { c["hero"] = pick[any](r, 7, "7", []int{7}, "8", nil, 7.0) },
		func() { c["hero"], c["suspended"] = 7, pick[any](r, false, true, "false") },
		func() { c["level"] = pick[any](r, 1, 2, "2", 1e30, json.Number("9007199254740993")) },
		func() {
			c["roles"] = pick[any](r, map[string]any{"list": []string{"READ"}}, map[string]any{"list": "READ"}, []string{"READ"})
		},
		func() { c["scope"] = pick[any](r, "READ r:READ", []string{"READ"}, 1) },
		func() {
			c["act"] = pick[any](r, map[string]any{"sub": "helpdesk"}, map[string]any{"sub": "batch", "iss": "https://other.example"}, "x", map[string]any{})
		},
		func() { c["impersonator"] = pick[any](r, "bob", map[string]any{"id": "helpdesk"}) },
		func() { c["acr"], c["amr"], c["auth_time"] = "gold", []string{"pwd", "otp"}, now-60 },
		func() {
			c["acr"], c["amr"], c["auth_time"] = pick[any](r, "gold", "silver", nil), pick[any](r, "otp", []any{"hwk", 7}), pick[any](r, now-600, now+600, "now")
		},
		func() { c["Sub"], c["user_name"], c["userName"] = "root", "a", "b" },
		func() { c["cnf"] = pick[any](r, map[string]any{"x5t#S256": "abc"}, "x", map[string]any{"jkt": "x"}) },
		func() { c["deep"] = deep(pick(r, 3, 20, 40)) },
		func() { delete(c, pick(r, "exp", "iat", "sub", "aud", "iss", "jti")) },
	}
	for range max(0, r.IntN(5)-1) {
		pick(r, odd...)()
	}
	return c
}

func deep(n int) any {
	if n == 0 {
		return "bottom"
	}
	return map[string]any{"d": []any{deep(n - 1)}}
}

func (w *world) sign(key string, payload []byte) string {
	enc := base64.RawURLEncoding.EncodeToString
	header := `{"alg":"EdDSA","typ":"at+jwt"}`
	if w.random.IntN(10) == 0 {
		header = pick(w.random, `{"alg":"EdDSA"}`, `{"alg":"none"}`, `{"alg":"EdDSA","kid":"x"}`, `{"alg":"EdDSA","typ":"logout+jwt"}`)
	}
	signed := enc([]byte(header)) + "." + enc(payload)
	return signed + "." + enc(ed25519.Sign(w.keys[key], []byte(signed)))
}

// target returns a host and path that routes match, or nearly.
func (w *world) target() string {
	r := w.random
	path := pick(r, "/heroes/7", "/heroes/7", "/heroes/8", "/both/7", "/both/7", "/seed/", "/seed/", "/step/up", "/step/up", "/acts/deny", "/acts/some", "/maybe/7", "/report/7", "/report/7", "/strict/7", "/asked/7", "/asked/7", "/asked/report/7", "/open/x", "/open/", "/nothing", "/heroes", "/")
	if r.IntN(8) == 0 {
		odd := pick(r, "/..", "/.", "//", "/%2e%2e", "/%2f", ";x", "/..;", "%25%32%65", "%00", "%5c", "/%2e", "%3f", "é", "%zz", "/a%20b", "%", "/7?x=%zz&y=1;2")
		at := r.IntN(len(path) + 1)
		path = path[:at] + odd + path[at:]
	}
	if r.IntN(8) == 0 {
		path += pick(r, "?", "?a=1&b=%2f", "?x=%zz", "?access_token=abc", "?a;b")
	}
	host := pick(r, "", "", "", "api.example.com", "API.example.com.", "h:80")
	if r.IntN(50) == 0 {
		host = pick(r, "a_b", "bad..host", "a@b", "[::1]:8", "h:x")
	}
	return host + path
}

// request returns a request, its claims if they are good for claims mode, and
// what is sent over the wire.
func (w *world) request() (q Request, claims json.RawMessage, wire string) {
	r := w.random
	q = Request{Method: pick(r, "GET", "GET", "GET", "GET", "GET", "POST", "POST", "POST", "PUT", "HEAD", "HEAD", "DELETE", "OPTIONS"), URL: w.target(), Client: "127.0.0.1"}
	if r.IntN(50) == 0 {
		q.Method = pick(r, "CONNECT", "get", "TRACE")
	}
	for range r.IntN(3) {
		q.Headers = append(q.Headers, pick(r,
			"X-Region: eu", "X-Region: us", "Origin: https://app.example", "Access-Control-Request-Method: GET", "X-Jwt-Sub: root", "x_jwt_privileges: ADMIN", "X-Forwarded-For: 10.1.2.3", "X-Forwarded-For: 203.0.113.9, 10.0.0.1", "Cookie: a=b; c=d", "Sec-Fetch-Site: cross-site", "Origin: https://evil.example", "Connection: X-Jwt-Sub"))
	}
	if r.IntN(20) == 0 {
		q.Headers = append(q.Headers, pick(r, "Upgrade: h2c", "Upgrade: websocket", "Cookie: session=", "Authorization: Basic dTpw", "Authorization: Bearer"))
	}
	if r.IntN(10) == 0 {
		q.Headers = append(q.Headers, pick(r, "Content-Length: 5", "Content-Length: 10", "Content-Length: 11", "Content-Length: 500"))
	}
	if r.IntN(10) == 0 {
		q.Headers = append(q.Headers, pick(r, "Content-Type: application/grpc", "Content-Type: application/grpc+proto", "X-Other: x"))
	}
	if r.IntN(30) == 0 { // a preflight
		q.Method, q.URL = "OPTIONS", pick(r, "api.example.com/heroes/7", "/heroes/7")
		q.Headers = []string{"Origin: " + pick(r, "https://app.example", "https://evil.example"), "Access-Control-Request-Method: " + pick(r, "GET", "POST")}
	}
	if r.IntN(8) == 0 {
		return q, nil, ""
	}
	signer := pick(r, "MAIN", "MAIN", "MAIN", "MAIN", "OTHER", "SEED")
	if strings.Contains(q.URL, "asked") && r.IntN(5) > 0 {
		signer = "ASKED"
	}
	claims, err := json.Marshal(w.claims(signer))
	if err != nil {
		w.t.Fatal(err)
	}
	q.Token = w.sign(signer, claims)
	if r.IntN(10) == 0 {
		q.Token = pick(r, w.sign("NOBODY", claims), q.Token[:len(q.Token)-3], "a.b", "opaque", w.sign(signer, []byte(`{"iss":"https://main.example","iss":"x"}`)))
		claims = nil
	}
	if signer == "ASKED" && r.IntN(5) > 0 {
		q.Token, claims = opaque(claims), nil // what it says is seen by the provider alone
	}
	if r.IntN(20) == 0 {
		q.Headers = append(q.Headers, "Authorization: Bearer "+q.Token) // a second one, in most cases
		claims = nil
	}
	if r.IntN(10) == 0 { // the caller puts it somewhere
		q.Headers = append(q.Headers, pick(r, "Authorization: Bearer ", "authorization: bearer ", "Cookie: session=", "Cookie: a=b; session=")+q.Token)
		q.Token, claims = "", nil
	}
	return q, claims, ""
}

// serve sends what q describes over a socket. handled is false if net/http
// refused it before any handler.
func (w *world) serve(q Request) (status int, reason, route string, saw received, handled bool) {
	w.t.Helper()
	// Where the token goes depends on the route, which the explanation finds by
	// the same code; here a second reading of the table says it.
	probe, err := q.read(w.t.Context())
	var host, target string
	if err == nil {
		host, target = probe.Host, probe.RequestURI
		if q.Token != "" {
			s := w.gateway.current.Load()
			x := (&Gateway{now: time.Now}).exchange(s, &answer{http.Header{}}, probe)
			if x.canonical() == nil && x.match() == nil && !x.route.public {
				x.dry = &rehearsal{Request: q}
				if err := x.dry.bring(x); err != nil {
					w.t.Fatal(err)
				}
				if target = probe.URL.EscapedPath(); probe.URL.RawQuery != "" || probe.URL.ForceQuery {
					target += "?" + probe.URL.RawQuery
				}
			}
		}
	} else {
		if host, target, _ = strings.Cut(q.URL, "/"); host == "" {
			host = "localhost"
		}
		target = "/" + target
	}
	text := q.Method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n"
	if err == nil {
		for name, lines := range probe.Header {
			for _, line := range lines {
				text += name + ": " + line + "\r\n"
			}
		}
	}
	body := ""
	if err == nil {
		body = strings.Repeat("x", int(max(0, probe.ContentLength)))
		if w.random.IntN(4) == 0 && sayable(probe, host, target) {
			return w.serveHTTP2(probe, host, target, body)
		}
	}
	conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text+"\r\n"+body); err != nil {
		w.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: q.Method})
	if err != nil {
		w.t.Fatalf("%q: %v", text, err)
	}
	defer res.Body.Close()
	if res.Header.Get("X-Request-Id") == "" && res.StatusCode == http.StatusBadRequest {
		return res.StatusCode, "", "", saw, false
	}
	route = <-w.routes
	told, _ := io.ReadAll(res.Body)
	if res.StatusCode == http.StatusOK {
		_ = json.Unmarshal(told, &saw)
		return 0, "", route, saw, true
	}
	var p problem
	_ = json.Unmarshal(told, &p)
	return res.StatusCode, string(p.Reason), route, saw, true
}

// sayable says whether net/http's client would send the request in HTTP/2 as it is.
func sayable(r *http.Request, host, target string) bool {
	return r.Method != "CONNECT" && r.Header["Connection"] == nil && r.Header["Upgrade"] == nil && !strings.HasPrefix(target, "//") &&
		strings.Trim(host, "abcdefghijklmnopqrstuvwxyz.") == "" && strings.IndexFunc(target, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// serveHTTP2 is serve in HTTP/2, where gRPC has refusals of its own.
func (w *world) serveHTTP2(probe *http.Request, host, target, body string) (status int, reason, route string, saw received, handled bool) {
	w.t.Helper()
	r := &http.Request{
		Method: probe.Method, URL: &url.URL{Scheme: "http", Host: "h", Opaque: target}, Host: host, Header: probe.Header.Clone(),
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}
	if body == "" {
		r.Body = nil
	}
	res, err := w.http2.Do(r.WithContext(w.t.Context()))
	if err != nil {
		w.t.Fatalf("%s %s in HTTP/2: %v", r.Method, target, err)
	}
	defer res.Body.Close()
	if res.Header.Get("X-Request-Id") == "" && res.StatusCode == http.StatusBadRequest {
		return res.StatusCode, "", "", saw, false
	}
	route = <-w.routes
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if told := res.Header.Get("Gatehouse-Reason"); told != "" {
		return answers[token.Reason(told)].status, told, route, saw, true
	}
	if res.StatusCode == http.StatusOK {
		_ = json.Unmarshal(text, &saw)
		return 0, "", route, saw, true
	}
	var p problem
	_ = json.Unmarshal(text, &p)
	return res.StatusCode, string(p.Reason), route, saw, true
}

// differs says in what an explanation differs from what was served.
func differs(e *Explanation, status int, reason, route string, saw received, head bool) string {
	if e.Route == "" {
		e.Route = unmatched
	}
	switch {
	case e.Status != status:
		return fmt.Sprintf("status %d %s, served %d %s", e.Status, e.Reason, status, reason)
	case reason != "" && string(e.Reason) != reason:
		return fmt.Sprintf("reason %s, served %s", e.Reason, reason)
	case e.Route != route:
		return fmt.Sprintf("route %s, served %s", e.Route, route)
	case status != 0 || head:
		return ""
	case !e.Forward.Token && e.Forward.Path != saw.URI:
		return fmt.Sprintf("path %s, served %s", e.Forward.Path, saw.URI)
	}
	headers := map[string]string{}
	for _, h := range e.Forward.Headers {
		headers[http.CanonicalHeaderKey(h.Name)] = h.Value
	}
	if !maps.Equal(headers, saw.Claims) {
		return fmt.Sprintf("headers %v, served %v", headers, saw.Claims)
	}
	return ""
}

// Explain and serve never disagree: on the status, the reason, the route, the
// path that is asked for and the headers that tell who is calling. The seed is
// printed with each failure; AGREE_SEED tries one again.
func TestExplainAndServeAgree(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("AGREE_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	w := newWorld(t, rand.New(rand.NewPCG(seed, 0)))
	outcomes := map[string]int{}
	failed := 0
	for n := range 3000 {
		if failed > 3 {
			return
		}
		q, claims, _ := w.request()
		fail := func(mode, format string, args ...any) {
			failed++
			q := q
			if q.Claims = claims; claims != nil {
				q.Token = q.Token[:10] + "…"
			}
			text, _ := json.Marshal(q)
			t.Errorf("AGREE_SEED=%d, request %d, %s: %s\n%s", seed, n, mode, fmt.Sprintf(format, args...), text)
		}
		s := w.gateway.acquire()
		live, unusable := w.gateway.explain(t.Context(), s, q, func() error { return nil })
		s.release()
		var fresh, assumed *Explanation
		if unusable == nil && n%10 == 0 {
			var err error
			if fresh, err = Explain(t.Context(), w.cfg, q); err != nil {
				fail("fresh", "%v", err)
				continue
			}
		}
		if unusable == nil && claims != nil && verifiable(q.Token) && whole(claims) {
			alone := q
			alone.Token, alone.Claims = "", claims
			s := w.gateway.acquire()
			var err error
			if assumed, err = w.gateway.explain(t.Context(), s, alone, nil); err != nil {
				fail("claims", "%v", err)
			}
			s.release()
		}
		status, reason, route, saw, handled := w.serve(q)
		if unusable != nil || !handled {
			if unusable == nil && q.Method == "CONNECT" || unusable != nil && !handled {
				outcomes["net/http"]++
			} else {
				fail("net/http", "%v, and it answered %d", unusable, status)
			}
			continue
		}
		head := q.Method == "HEAD"
		if d := differs(live, status, reason, route, saw, head); d != "" {
			fail("live", "%s", d)
		}
		charged := reason == string(rateLimited) || saw.Claims[inject.WouldRefuse] == string(rateLimited)
		if fresh != nil && !charged && !(head && status == 429) {
			if d := differs(fresh, status, reason, route, saw, head); d != "" {
				fail("fresh", "%s", d)
			}
		}
		if assumed != nil && live.Reason != token.RevokedToken { // claims alone were never issued
			if d := differs(assumed, status, reason, route, saw, head); d != "" {
				fail("claims", "%s", d)
			}
		}
		if text, _ := json.Marshal(live); q.Token != "" && len(q.Token) > 20 && strings.Contains(string(text), q.Token) {
			fail("live", "the token is shown: %s", text)
		}
		outcomes[live.outcome()]++
	}
	for _, want := range []string{"forwarded", "reported", "answered", "bad_path", "bad_request", "no_route", "method_not_allowed", "missing_token", "invalid_token", "expired_token",
		"insufficient_privileges", "insufficient_user_authentication", "policy_denied", "rate_limited", "header_too_large", "body_too_large", "revoked_token", "cross_origin", "net/http"} {
		if outcomes[want] == 0 {
			t.Errorf("AGREE_SEED=%d: no request met %s: %v", seed, want, outcomes)
		}
	}
	t.Log(outcomes)
}

func (e *Explanation) outcome() string {
	switch {
	case e.WouldRefuse != "" && e.WouldRefuse != rateLimited:
		return "reported"
	case e.Forwarded():
		return "forwarded"
	case !e.Refused():
		return "answered"
	}
	return string(e.Reason)
}

// verifiable says whether a token's header is one that assumed claims stand for.
func verifiable(raw string) bool {
	return strings.HasPrefix(raw, base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"at+jwt"}`))+".")
}

// whole says whether claims mode would add nothing.
func whole(claims []byte) bool {
	var c map[string]any
	if _, err := token.ParseClaims(claims); err != nil || json.Unmarshal(claims, &c) != nil {
		return false
	}
	return !slices.ContainsFunc([]string{"iss", "aud", "exp", "iat"}, func(name string) bool { _, there := c[name]; return !there })
}
